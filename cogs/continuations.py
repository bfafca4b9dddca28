"""/continue: several seeded continuations of a text, and the buttons below them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import discord
from discord import app_commands
from discord.ext import commands

from bot import exhibits, programs
from bot.errors import InvalidInputError
from bot.gpt2 import requests, validation
from bot.gpt2.questions import InsightsQuestion, VisibleEnd
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.interactions.progress import follow
from bot.interactions.reply import Reply
from bot.text import say
from bot.ui import limits, looking
from bot.ui.buttons import custom_id_of
from bot.ui.code import CodeLayout, check_model
from bot.ui.continuation import (
    ContinuationAction,
    ContinuationLayout,
    ContinueSample,
    Delete,
    Edit,
    Insights,
    Look,
    OwnedRequest,
    ProgressLayout,
    Reroll,
    ShowCode,
    Stop,
    SubmitEdit,
    read_back,
    transcript,
)
from bot.ui.first_steps import TryContinuation
from bot.ui.forms import EditForm, PromptForm, SubmitPrompt, SubmitPromptTo, show, typed_prompt, typed_settings
from bot.ui.message_text import by_a_program, text_of
from bot.ui.moves import chosen_value
from bot.ui.parameters import model_notes
from bot.ui.picture import PictureLayout
from bot.ui.readback import is_blurred
from cogs._models import leave_out, model_line, with_model
from cogs._pictures import show_read
from cogs._seeds import seed_of
from cogs._text_pictures import VIEWS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bot.client import GPT2Client
    from bot.gpt2.engine import Engine, Ticket
    from bot.gpt2.model_info import ModelInfo
    from bot.ui.continuation import Written

_Samples = app_commands.Range[int, requests.MIN_SAMPLES, requests.MAX_SAMPLES]
_Length = app_commands.Range[int, requests.MIN_LENGTH, requests.MAX_LENGTH]
_Seed = app_commands.Range[int, 0, requests.MAX_SEED]
_Temperature = app_commands.Range[float, requests.MIN_TEMPERATURE, requests.MAX_TEMPERATURE]
_TopK = app_commands.Range[int, 0, requests.MAX_TOP_K]
_TopP = app_commands.Range[float, 0.0, 1.0]
_Prompt = app_commands.Range[str, 1, validation.MAX_PROMPT_CHARACTERS]

FORM_SECONDS: Final = 2.0
"""How long reading the prompt for a form may take."""


class Continuations(commands.Cog):
    """Commands that make GPT-2 write."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client
        self._running: dict[int, Ticket] = {}  # by the id of the interaction that asked
        self._menu = app_commands.ContextMenu(name="Continue with GPT-2", callback=self.continue_message)
        leave_out(self, client)
        client.actions.on(SubmitPrompt, self._asked)
        client.actions.on(SubmitPromptTo, self._asked_model)
        client.actions.on(TryContinuation, self._try)
        client.actions.on(ContinueSample, self._continue_sample)
        client.actions.on(Reroll, self._reroll)
        client.actions.on(Edit, self._edit)
        client.actions.on(SubmitEdit, self._edited)
        client.actions.on(Insights, self._insights)
        client.actions.on(ShowCode, self._show_code)
        client.actions.on(Look, self._look)
        client.actions.on(Delete, self._delete)
        client.actions.on(Stop, self._stop)

    async def cog_load(self) -> None:
        """Add the context menu, which a cog cannot hold by itself."""
        self.client.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        """Remove the context menu."""
        self.client.tree.remove_command(self._menu.name, type=self._menu.type)

    @app_commands.command(name="continue")
    @app_commands.describe(
        prompt="The beginning of a text; leave it out for a form with room for several lines",
        samples="How many continuations to draw (5)",
        length="How many new tokens each may have (40); a token is about three quarters of a word",
        seed="The same seed gives the same words again; drawn and shown if left out",
        temperature="Below 1 safer, above 1 wilder; 0 always takes the likeliest token (1)",
        top_k="Draw from the k likeliest tokens only; 0 is off (50)",
        top_p="Draw from the likeliest tokens that make up this share; 1 is off (1)",
        private="Show the answer to you alone",
    )
    @with_model
    async def continue_(
        self,
        interaction: discord.Interaction,
        prompt: _Prompt | None = None,
        samples: _Samples = 5,
        length: _Length = 40,
        seed: _Seed | None = None,
        temperature: _Temperature = 1.0,
        top_k: _TopK = 50,
        top_p: _TopP = 1.0,
        private: bool = False,  # noqa: FBT001, FBT002 # an option that Discord gives by name
        model: str | None = None,
    ) -> None:
        """Continue a text with GPT-2, several samples at once."""
        params = SamplingParams(seed, samples, length, temperature, top_k, top_p)
        chosen = self.client.models.checksum(model)
        if prompt is None:
            title = say("Continue a text with GPT-2")
            action = SubmitPromptTo(params, private, chosen) if chosen else SubmitPrompt(params, private)
            await show(interaction, PromptForm(action, title, Reply.of(interaction).translate))
        else:
            await self._answer(interaction, params, prompt, chosen, private=private)

    async def continue_message(self, interaction: discord.Interaction, message: discord.Message) -> None:
        """Continue a message; called from its context menu."""
        if by_a_program(message):
            raise InvalidInputError(
                say("That was written by a bot. Choose a person's message; my own have Continue buttons.")
            )
        prompt = text_of(interaction, message)
        if not validation.has_visible_character(prompt):
            raise InvalidInputError(say("That message has no text to continue. Choose another one."))
        await self._answer(interaction, SamplingParams(), prompt)

    async def _asked(self, interaction: discord.Interaction, form: SubmitPrompt) -> None:
        """Answer the submitted prompt form."""
        await self._answer(interaction, form.params, typed_prompt(interaction), private=form.private)

    async def _asked_model(self, interaction: discord.Interaction, form: SubmitPromptTo) -> None:
        """Answer the submitted prompt form of a command that chose a model."""
        await self._answer(interaction, form.params, typed_prompt(interaction), form.model, private=form.private)

    async def _try(self, interaction: discord.Interaction, _: TryContinuation) -> None:
        """Answer the button that continues the tutorial's prompt."""
        with self.client.presses.once(interaction, custom_id_of(interaction)):
            await self._answer(interaction, SamplingParams(requests.TUTORIAL_SEED), requests.TUTORIAL_PROMPT)

    async def _continue_sample(self, interaction: discord.Interaction, button: ContinueSample) -> None:
        async def text() -> str:
            return (await read_back(interaction.message, button)).until(button.sample)

        await self._answer_again(interaction, replace(button.params, seed=None), text, button.model)

    async def _reroll(self, interaction: discord.Interaction, button: Reroll) -> None:
        async def prompt() -> str:
            return (await read_back(interaction.message, button)).prompt

        await self._answer_again(interaction, replace(button.params, seed=None), prompt, button.model)

    async def _edit(self, interaction: discord.Interaction, button: Edit) -> None:
        _require_owner(interaction, button.owner)
        prompt = None
        if button.prompt_characters <= limits.TEXT_INPUT_CHARACTERS:
            # A form must be the first answer, within Discord's 3 seconds: a file that takes longer is left for later.
            with contextlib.suppress(TimeoutError):
                prompt = (await asyncio.wait_for(read_back(interaction.message, button), FORM_SECONDS)).prompt
        translate = Reply.of(interaction).translate
        form = SubmitEdit(button.owner, button.params, button.prompt_characters, button.unseen, button.model)
        await show(interaction, EditForm(form, prompt, translate))

    async def _edited(self, interaction: discord.Interaction, form: SubmitEdit) -> None:
        _require_owner(interaction, form.owner)
        params = typed_settings(interaction)

        async def prompt() -> str:
            return typed_prompt(interaction) or (await read_back(interaction.message, form)).prompt

        await self._answer_again(interaction, params, prompt, form.model)

    async def _insights(self, interaction: discord.Interaction, button: Insights) -> None:
        """Show in private how likely the model found the samples."""
        reply = Reply.of(interaction)
        written, model = await reply.checked(self._recalled(interaction, button), private=True)
        samples = tuple(sample for sample in written.samples if sample)
        if not samples:
            raise InvalidInputError(say("There is nothing to look at: GPT-2 wrote nothing here."))
        engine, owner = self.client.models.of(button.model), interaction.user.id
        with self.client.presses.once(interaction, custom_id_of(interaction)):
            seen = await engine.introspect(VisibleEnd(written.prompt[button.unseen :], 1, samples), owner=owner)
            exhibit = exhibits.insights(InsightsQuestion(seen, samples), model)
            picture = await exhibit.picture(engine, self.client.renderer, owner=owner)
        left_out = [] if len(samples) == len(written.samples) else [say("Empty samples are omitted.")]
        notes = [*left_out, *model_line(self.client, model), *model_notes(model)]
        layout = PictureLayout(picture, notes, reply.translate)
        await reply.give(layout, layout.files)

    async def _look(self, interaction: discord.Interaction, menu: Look) -> None:
        """Show in private a picture of a sample, or what else the menu offers."""
        value = chosen_value(interaction)
        fields = (menu.owner, menu.params, menu.prompt_characters, menu.unseen, menu.model)
        if value == looking.INSIGHTS:
            await self._insights(interaction, Insights(*fields))
        elif value == looking.CODE:
            await self._show_code(interaction, ShowCode(*fields))
        else:
            sample, view = looking.parse_choice(value)

            async def read() -> Sequence[str]:
                text = (await self._recalled(interaction, menu))[0].until(sample)[menu.unseen :]
                engine = self.client.models.of(menu.model)
                return [await engine.introspect(VisibleEnd(text, 0), owner=interaction.user.id)]

            with self.client.presses.once(interaction, custom_id_of(interaction)):
                await show_read(self.client, interaction, VIEWS[view](menu.model), read, private=True)

    async def _show_code(self, interaction: discord.Interaction, button: ShowCode) -> None:
        """Show in private the program that reproduces the samples."""
        reply = Reply.of(interaction)
        written, model = await reply.checked(self._recalled(interaction, button), private=True)
        request = ContinuationRequest(written.prompt[button.unseen :], button.params)
        layout = CodeLayout(programs.continuation(request, model), reply.translate)
        await reply.give(layout, layout.files)

    async def _recalled(
        self, interaction: discord.Interaction, button: ContinuationAction
    ) -> tuple[Written, ModelInfo]:
        """Return the texts of the message, and the model, which must be the one that wrote it."""
        model = await self.client.models.of(button.model).model()
        check_model(button.model, model)
        return await read_back(interaction.message, button), model

    async def _delete(self, interaction: discord.Interaction, button: Delete) -> None:
        _require_owner(interaction, button.owner)
        # By the interaction's own token: it opens private messages and places where the bot is not a member, too.
        await interaction.response.defer()
        await interaction.delete_original_response()

    async def _stop(self, interaction: discord.Interaction, button: Stop) -> None:
        _require_owner(interaction, button.owner)
        ticket = self._running.get(button.interaction)
        if ticket is None:
            raise InvalidInputError(say("This is no longer running."))
        await interaction.response.defer()
        ticket.stop()

    async def _answer_again(
        self,
        interaction: discord.Interaction,
        params: SamplingParams,
        text: Callable[[], Awaitable[str]],
        model: int,
    ) -> None:
        """Answer a button or its form in a new message by the same model, as private as the one above it."""
        message = interaction.message
        with self.client.presses.once(interaction, custom_id_of(interaction)):
            private = message is not None and message.flags.ephemeral
            await self._answer(interaction, params, text, model, private=private)

    async def _answer(
        self,
        interaction: discord.Interaction,
        params: SamplingParams,
        text: str | Callable[[], Awaitable[str]],
        model: int = 0,
        *,
        private: bool = False,
    ) -> None:
        """Acknowledge, ask the engine, and show the samples as they grow; a `model` of 0 is the default one."""
        reply, engine = Reply.of(interaction), self.client.models.of(model)
        asked, ticket = await reply.checked(
            self._accepted(interaction, engine, params, text),
            private=private,
            undo=lambda accepted: accepted[1].abandon(),
        )
        self._running[interaction.id] = ticket
        stop = Stop(asked.owner, interaction.id)
        try:
            continuation, late = await follow(
                ticket,
                reply,
                lambda update: ProgressLayout(asked, update, stop, reply.translate),
                self.client.wait_between_edits,
            )
        finally:
            del self._running[interaction.id]
        info = await engine.model()
        layout = ContinuationLayout(asked, continuation, info, reply.translate, late=late)
        files = [transcript(asked, continuation, info, reply.translate)] if layout.attached else []
        await reply.give(layout, files)

    async def _accepted(
        self,
        interaction: discord.Interaction,
        engine: Engine,
        params: SamplingParams,
        text: str | Callable[[], Awaitable[str]],
    ) -> tuple[OwnedRequest, Ticket]:
        """Submit a request to the engine, or refuse it by raising a UserError.

        A text that was read back may be longer than the context by now: then the engine gets its end.
        """
        if params.seed is None:
            params = replace(params, seed=seed_of(interaction))
        if isinstance(text, str):
            whole = seen = validation.well_formed(text)
        else:
            whole = validation.well_formed(await text())
            seen = await engine.introspect(VisibleEnd(whole, params.length), owner=interaction.user.id)
        request = ContinuationRequest(seen, params)
        # What people write is not judged, but a blurred sample must not come to light as the next one's prompt.
        blurred = is_blurred(interaction.message) and await self.client.moderation.should_blur(whole)
        ticket = self.client.moderation.moderate(await engine.submit(request, owner=interaction.user.id))
        return OwnedRequest(request, interaction.user.id, whole, blurred), ticket


def _require_owner(interaction: discord.Interaction, owner: int) -> None:
    if interaction.user.id != owner and not interaction.permissions.manage_messages:
        raise InvalidInputError(
            say("Only the person who ran this command, or someone who can manage messages, can do that.")
        )
