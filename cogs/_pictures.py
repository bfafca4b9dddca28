"""Pictures of a text inside the model: ask the engine, draw the answer, post it below the prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from bot.gpt2.validation import well_formed
from bot.interactions.reply import Reply
from bot.ui.buttons import Action
from bot.ui.code import CodeLayout, check_model, model_checksum
from bot.ui.parameters import model_notes
from bot.ui.picture import PictureLayout
from bot.ui.prompts import prompt_of

if TYPE_CHECKING:
    import discord

    from bot.client import GPT2Client
    from bot.exhibits import Exhibit
    from bot.figures import Picture
    from bot.gpt2.model_info import ModelInfo


@dataclass(frozen=True, slots=True)
class TextPicture(Action):
    """A picture that a command shows of a text; the button below it shows its program.

    The text is not a field: the button reads it back from the message.
    """

    PROMPTS: ClassVar[int] = 1
    """The number of prompts in the message."""

    model: int = 0  # the model's checksum, once the picture is shown

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """Return the exhibit for the prompts.

        Raises:
            InvalidInputError: The model has no such layer or head, or a value is out of range.
        """
        raise NotImplementedError


async def show_picture(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture, *prompts: str) -> None:
    """Answer with the picture."""
    reply, written = Reply.of(interaction), [well_formed(prompt) for prompt in prompts]

    async def make() -> tuple[Picture, ModelInfo]:
        model = await client.engine.model()
        exhibit = asked.exhibit(model, *written)
        return await exhibit.picture(client.engine, client.renderer, owner=interaction.user.id), model

    picture, model = await reply.checked(make())
    code = replace(asked, model=model_checksum(model))
    layout = PictureLayout(picture, model_notes(model), reply.translate, code, written)
    await reply.give(layout, layout.files)


async def show_code(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture) -> None:
    """Answer the button below a picture with its program."""
    reply, message = Reply.of(interaction), interaction.message

    async def write() -> str:
        model = await client.engine.model()
        check_model(asked.model, model)
        prompts = [await prompt_of(message, number) for number in range(asked.PROMPTS)] if message else []
        return asked.exhibit(model, *prompts).program

    layout = CodeLayout(await reply.checked(write(), private=True), reply.translate)
    await reply.give(layout, layout.files)
