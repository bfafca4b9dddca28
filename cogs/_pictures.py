"""What all commands that look inside the model do: ask, have the answer drawn, post it below the words it is about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from bot.gpt2.validation import well_formed
from bot.interactions.reply import Reply
from bot.ui.buttons import Action
from bot.ui.code import CodeLayout, check_mark, mark
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
class Look(Action):
    """What a command was asked to show of a text, and what the button below it explains.

    The text is no part of it: it stands in the message, from which the button reads it back.
    """

    PROMPTS: ClassVar[int] = 1

    model: int = 0  # the model's mark, once it has been shown

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """What to show of so many prompts.

        Raises:
            InvalidInputError: There is nothing like that to show.
        """
        raise NotImplementedError


async def show(client: GPT2Client, interaction: discord.Interaction, look: Look, *prompts: str) -> None:
    """Answer with the picture."""
    reply, written = Reply.of(interaction), [well_formed(prompt) for prompt in prompts]

    async def make() -> tuple[Picture, ModelInfo]:
        model = await client.engine.model()
        exhibit = look.exhibit(model, *written)
        return await exhibit.picture(client.engine, client.renderer, owner=interaction.user.id), model

    picture, model = await reply.checked(make())
    code = replace(look, model=mark(model))
    layout = PictureLayout(picture, model_notes(model), reply.translate, code, written)
    await reply.give(layout, layout.files)


async def explain(client: GPT2Client, interaction: discord.Interaction, look: Look) -> None:
    """Answer the button below a picture with the program that draws it."""
    reply, message = Reply.of(interaction), interaction.message

    async def write() -> str:
        model = await client.engine.model()
        check_mark(look.model, model)
        prompts = [await prompt_of(message, number) for number in range(look.PROMPTS)] if message else []
        return look.exhibit(model, *prompts).program

    layout = CodeLayout(await reply.checked(write(), private=True), reply.translate)
    await reply.give(layout, layout.files)
