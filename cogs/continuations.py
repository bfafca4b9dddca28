"""/continue: several seeded samples of how a text goes on, and the buttons below them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final, Protocol

import discord
from discord import app_commands
from discord.ext import commands

from bot import exhibits, programs
from bot.errors import InvalidInputError
from bot.gpt2 import requests, validation
from bot.gpt2.questions import InsightsQuestion, VisibleEnd
from bot.gpt2.requests import ContinuationRequest
from bot.interactions.progress import follow
from bot.interactions.reply import Reply
from bot.text import say
from bot.ui import limits
from bot.ui.buttons import custom_id_of
from bot.ui.code import CodeLayout, check_model
from bot.ui.continuation import (
    Asked,
    ContinuationLayout,
    ContinueSample,
    Delete,
    Edit,
    Edited,
    Insights,
    OfContinuation,
    ProgressLayout,
    Reroll,
    ShowCode,
    Stop,
    read_back,
    transcript,
)
from bot.ui.forms import Ask, EditForm, PromptForm, show, typed_prompt, typed_settings
from bot.ui.parameters import model_notes
from bot.ui.picture import PictureLayout
from bot.ui.readback import is_blurred

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from bot.client import GPT2Client
    from bot.gpt2.engine import Ticket
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
"""How long what a form is filled with may take to be read."""

_ANY_PROMPT: Final = "x"


class Settings(Protocol):
    """What command, buttons and forms have in common: the values of a request, but for its prompt."""

    @property
    def seed(self) -> int | None: ...  # noqa: D102
    @property
    def samples(self) -> int: ...  # noqa: D102
    @property
    def length(self) -> int: ...  # noqa: D102
    @property
    def temperature(self) -> float: ...  # noqa: D102
    @property
    def top_k(self) -> int: ...  # noqa: D102
    @property
    def top_p(self) -> float: ...  # noqa: D102


class Continuations(commands.Cog):
    """The commands that make GPT-2 write."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client
        self._running: dict[int, Ticket] = {}  # by the id of the interaction that asked
        self._pressed: set[tuple[int, int, str]] = set()  # person, message and button of what is being answered
        self._menu = app_commands.ContextMenu(name="Continue with GPT-2", callback=self.continue_message)
        client.actions.on(Ask, self._asked)
        client.actions.on(ContinueSample, self._continue_sample)
        client.actions.on(Reroll, self._reroll)
        client.actions.on(Edit, self._edit)
        client.actions.on(Edited, self._edited)
        client.actions.on(Insights, self._insights)
        client.actions.on(ShowCode, self._show_code)
        client.actions.on(Delete, self._delete)
        client.actions.on(Stop, self._stop)

    async def cog_load(self) -> None:
        """Add the entry in the menu of messages, which a cog cannot hold by itself."""
        self.client.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        """Take it out again."""
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
    ) -> None:
        """Continue a text with GPT-2, several samples at once."""
        settings = Ask(seed, samples, length, float(temperature), top_k, float(top_p), private)
        if prompt is None:
            _request(settings, _ANY_PROMPT, 0)  # refuses settings that cannot be before anybody types a long text
            await show(interaction, PromptForm(settings, Reply.of(interaction).translate))
        else:
            await self._answer(interaction, settings, prompt, private=private)

    async def continue_message(self, interaction: discord.Interaction, message: discord.Message) -> None:
        """Continue what somebody has written; an entry in the menu of every message."""
        if message.author.bot:
            raise InvalidInputError(
                say("That was written by a bot. Choose a person's message; my own have Continue buttons.")
            )
        if not validation.has_visible_character(message.content):
            raise InvalidInputError(say("That message has no text that GPT-2 could go on from. Choose another one."))
        await self._answer(interaction, Ask(), message.content)

    async def _asked(self, interaction: discord.Interaction, form: Ask) -> None:
        """The form for a prompt was sent."""
        await self._answer(interaction, form, typed_prompt(interaction), private=form.private)

    async def _continue_sample(self, interaction: discord.Interaction, button: ContinueSample) -> None:
        async def text() -> str:
            return (await read_back(interaction.message, button)).until(button.sample)

        await self._answer_again(interaction, replace(button, seed=_seed_of(interaction)), text)

    async def _reroll(self, interaction: discord.Interaction, button: Reroll) -> None:
        async def prompt() -> str:
            return (await read_back(interaction.message, button)).prompt

        await self._answer_again(interaction, replace(button, seed=_seed_of(interaction)), prompt)

    async def _edit(self, interaction: discord.Interaction, button: Edit) -> None:
        _require_owner(interaction, button.owner)
        prompt = None
        if button.prompt_characters <= limits.TEXT_INPUT_CHARACTERS:
            # A form must be the first answer, within Discord's 3 seconds: a file that takes longer is left for later.
            with contextlib.suppress(TimeoutError):
                prompt = (await asyncio.wait_for(read_back(interaction.message, button), FORM_SECONDS)).prompt
        translate = Reply.of(interaction).translate
        await show(interaction, EditForm(Edited(**asdict(button)), prompt, translate))

    async def _edited(self, interaction: discord.Interaction, form: Edited) -> None:
        _require_owner(interaction, form.owner)
        typed = typed_settings(interaction)

        async def prompt() -> str:
            return typed.prompt or (await read_back(interaction.message, form)).prompt

        await self._answer_again(interaction, typed, prompt)

    async def _insights(self, interaction: discord.Interaction, button: Insights) -> None:
        """Show how expected the samples were, to who pressed the button."""
        reply = Reply.of(interaction)
        written, model = await reply.checked(self._recalled(interaction, button), private=True)
        samples = tuple(sample for sample in written.samples if sample)
        if not samples:
            raise InvalidInputError(say("There is nothing to look at: GPT-2 has not written anything here."))
        engine, owner = self.client.engine, interaction.user.id
        with self._once(interaction):
            seen = await engine.introspect(VisibleEnd(written.prompt[button.unseen :], 1, samples), owner=owner)
            exhibit = exhibits.insights(InsightsQuestion(seen, samples), model)
            picture = await exhibit.picture(engine, self.client.renderer, owner=owner)
        left_out = [] if len(samples) == len(written.samples) else [say("Samples without a word are left out.")]
        layout = PictureLayout(picture, [*left_out, *model_notes(model)], reply.translate)
        await reply.give(layout, layout.files)

    async def _show_code(self, interaction: discord.Interaction, button: ShowCode) -> None:
        """Show the program that makes the samples again, to who pressed the button."""
        reply = Reply.of(interaction)
        written, model = await reply.checked(self._recalled(interaction, button), private=True)
        request = _request(button, written.prompt[button.unseen :], button.seed)
        layout = CodeLayout(programs.continuation(request, model), reply.translate)
        await reply.give(layout, layout.files)

    async def _recalled(self, interaction: discord.Interaction, button: OfContinuation) -> tuple[Written, ModelInfo]:
        """What the message says, and the model, which must be the one that wrote it."""
        model = await self.client.engine.model()
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
            raise InvalidInputError(say("This isn't running any more."))
        await interaction.response.defer()
        ticket.stop()

    async def _answer_again(
        self, interaction: discord.Interaction, settings: Settings, text: Callable[[], Awaitable[str]]
    ) -> None:
        """Answer a button or its form with a new message, as private as the one that it belongs to."""
        message = interaction.message
        with self._once(interaction):
            await self._answer(interaction, settings, text, private=message is not None and message.flags.ephemeral)

    async def _answer(
        self,
        interaction: discord.Interaction,
        settings: Settings,
        text: str | Callable[[], Awaitable[str]],
        *,
        private: bool = False,
    ) -> None:
        """Acknowledge, ask the engine, present: live while it is computed, then whole."""
        reply = Reply.of(interaction)
        asked, ticket = await reply.checked(
            self._accepted(interaction, settings, text), private=private, undo=lambda accepted: accepted[1].abandon()
        )
        self._running[interaction.id] = ticket
        stop = Stop(asked.owner, interaction.id)
        try:
            continuation, late = await follow(
                ticket, reply, lambda update: ProgressLayout(asked, update, stop, reply.translate)
            )
        finally:
            del self._running[interaction.id]
        model = await self.client.engine.model()
        layout = ContinuationLayout(asked, continuation, model, reply.translate, late=late)
        files = [transcript(asked, continuation, model, reply.translate)] if layout.attached else []
        await reply.give(layout, files)

    async def _accepted(
        self, interaction: discord.Interaction, settings: Settings, text: str | Callable[[], Awaitable[str]]
    ) -> tuple[Asked, Ticket]:
        """The one place where a request is accepted, or refused by what it raises.

        A text that was read back may be longer than the context by now: then the engine gets its end.
        """
        engine = self.client.engine
        seed = _seed_of(interaction) if settings.seed is None else settings.seed
        if isinstance(text, str):
            whole = seen = validation.well_formed(text)
        else:
            _request(settings, _ANY_PROMPT, seed)  # before a wrong length leaves nothing of the text
            whole = validation.well_formed(await text())
            seen = await engine.introspect(VisibleEnd(whole, settings.length), owner=interaction.user.id)
        request = _request(settings, seen, seed)
        # What people write is not judged, but a blurred sample must not come to light as the next one's prompt.
        blurred = is_blurred(interaction.message) and await self.client.moderation.should_blur(whole)
        ticket = self.client.moderation.moderate(await engine.submit(request, owner=interaction.user.id))
        return Asked(request, interaction.user.id, whole, blurred), ticket

    @contextlib.contextmanager
    def _once(self, interaction: discord.Interaction) -> Iterator[None]:
        """Refuse what the same person has just pressed and has not been answered yet."""
        key = (interaction.user.id, interaction.message.id if interaction.message else 0, custom_id_of(interaction))
        if key in self._pressed:
            raise InvalidInputError(say("You have pressed that already; the answer is on its way."))
        self._pressed.add(key)
        try:
            yield
        finally:
            self._pressed.discard(key)


def _request(settings: Settings, prompt: str, seed: int) -> ContinuationRequest:
    return ContinuationRequest(
        prompt, seed, settings.samples, settings.length, settings.temperature, settings.top_k, settings.top_p
    )


def _seed_of(interaction: discord.Interaction) -> int:
    """A seed where none was given: nobody chooses an interaction's id, and one that is answered again has the same."""
    return int.from_bytes(hashlib.sha256(str(interaction.id).encode()).digest()[:4], "big")


def _require_owner(interaction: discord.Interaction, owner: int) -> None:
    if interaction.user.id != owner and not interaction.permissions.manage_messages:
        raise InvalidInputError(
            say("Only the person who asked for this may do that, and whoever manages messages here.")
        )
