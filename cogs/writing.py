"""The button Watch below /continue: an animation of how a sample was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from discord.ext import commands

from bot import exhibits
from bot.errors import InvalidInputError
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.gpt2.writing import WritingQuestion
from bot.interactions.progress import while_shown
from bot.interactions.reply import Reply
from bot.text import say
from bot.ui.buttons import custom_id_of
from bot.ui.code import check_model
from bot.ui.continuation import Watch, read_back
from bot.ui.parameters import model_notes
from bot.ui.picture import DrawingLayout, PictureLayout
from bot.ui.prompts import Prompts
from bot.ui.readback import is_blurred
from cogs._models import model_line
from cogs._pictures import TextPicture, show_code

if TYPE_CHECKING:
    import discord

    from bot.client import GPT2Client
    from bot.exhibits import Exhibit
    from bot.gpt2.model_info import ModelInfo


@dataclass(frozen=True, slots=True)
class Watched(TextPicture):
    """The animation of a sample, which counts from 1."""

    NAME: ClassVar[str] = "watched"

    params: SamplingParams = field(default_factory=SamplingParams)
    sample: int = 1

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.writing(WritingQuestion(ContinuationRequest(prompts[0], self.params), self.sample), model)


class Writing(commands.Cog):
    """The handler of the button."""

    def __init__(self, client: GPT2Client) -> None:
        self.client = client
        client.actions.on(Watch, self._watch)
        client.actions.on(Watched, partial(show_code, client))

    async def _watch(self, interaction: discord.Interaction, button: Watch) -> None:
        """Answer with the animation, as private and as blurred as the samples above."""
        with self.client.presses.once(interaction, custom_id_of(interaction)):
            await self._answer(interaction, button)

    async def _answer(self, interaction: discord.Interaction, button: Watch) -> None:
        reply, message = Reply.of(interaction), interaction.message
        private = message is not None and message.flags.ephemeral
        prompt, model = await reply.checked(self._prompt(message, button), private=private)
        shown = Watched(button.model, button.params, button.sample)
        exhibit = shown.exhibit(model, prompt)
        drawing = exhibit.picture(self.client.models.of(button.model), self.client.renderer, owner=interaction.user.id)
        waiting = DrawingLayout(reply.translate)
        picture = await while_shown(drawing, reply, waiting, self.client.wait_between_edits)
        notes, blurred = [*model_line(self.client, model), *model_notes(model)], is_blurred(message)
        layout = PictureLayout(
            picture, notes, reply.translate, shown, Prompts([prompt], reply.translate), blurred=blurred
        )
        await reply.give(layout, layout.files)

    async def _prompt(self, message: discord.Message | None, button: Watch) -> tuple[str, ModelInfo]:
        """Return the prompt as GPT-2 got it, and the model, which must be the one that wrote the sample."""
        model = await self.client.models.of(button.model).model()
        check_model(button.model, model)
        written = await read_back(message, button)
        if not any(written.samples[button.sample - 1 : button.sample]):  # also where my operator's filter hides it
            raise InvalidInputError(say("There is nothing to look at: GPT-2 wrote nothing here."))
        return written.prompt[button.unseen :], model
