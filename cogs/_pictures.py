"""Pictures of a text inside the model: ask the engine, draw the answer, post it below the prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from bot.gpt2.validation import well_formed
from bot.interactions.reply import Reply
from bot.ui.buttons import Action
from bot.ui.code import CodeLayout, check_model, model_checksum
from bot.ui.parameters import model_notes
from bot.ui.picture import PictureLayout
from bot.ui.prompts import prompt_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import discord

    from bot.client import GPT2Client
    from bot.exhibits import Exhibit
    from bot.figures import Picture
    from bot.gpt2.model_info import ModelInfo
    from bot.text import Translate
    from bot.ui.buttons import PersistentItem


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

    def buttons(self, translate: Translate) -> list[PersistentItem]:  # noqa: ARG002
        """Return the buttons beside **Show code**."""
        return []


async def show_picture(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture, *prompts: str) -> None:
    """Answer with the picture."""

    async def written() -> list[str]:
        return [well_formed(prompt) for prompt in prompts]

    await _show(client, interaction, asked, written, private=False)


async def show_further(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture) -> None:
    """Answer a button below a picture with another picture of its prompts, as private as that one."""
    message = interaction.message
    read = partial(_prompts, client, interaction, asked)
    await _show(client, interaction, asked, read, private=message is not None and message.flags.ephemeral)


async def show_code(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture) -> None:
    """Answer the button below a picture with its program."""
    reply = Reply.of(interaction)

    async def write() -> str:
        prompts = await _prompts(client, interaction, asked)
        return asked.exhibit(await client.engine.model(), *prompts).program

    layout = CodeLayout(await reply.checked(write(), private=True), reply.translate)
    await reply.give(layout, layout.files)


async def _show(
    client: GPT2Client,
    interaction: discord.Interaction,
    asked: TextPicture,
    read: Callable[[], Awaitable[list[str]]],
    *,
    private: bool,
) -> None:
    reply = Reply.of(interaction)

    async def make() -> tuple[Picture, ModelInfo, list[str]]:
        model, prompts = await client.engine.model(), await read()
        exhibit = asked.exhibit(model, *prompts)
        return await exhibit.picture(client.engine, client.renderer, owner=interaction.user.id), model, prompts

    picture, model, prompts = await reply.checked(make(), private=private)
    shown = replace(asked, model=model_checksum(model))
    layout = PictureLayout(picture, model_notes(model), reply.translate, shown, prompts, shown.buttons(reply.translate))
    await reply.give(layout, layout.files)


async def _prompts(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture) -> list[str]:
    """Read back the prompts of the message with the button; the model must be the one that made its picture."""
    check_model(asked.model, await client.engine.model())
    message = interaction.message
    return [await prompt_of(message, number) for number in range(asked.PROMPTS)] if message else []
