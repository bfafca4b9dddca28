"""Pictures of a text inside the model: ask the engine, draw the answer, post it below the prompt or move it on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from bot.gpt2.validation import well_formed
from bot.interactions.reply import Reply
from bot.ui.buttons import Action
from bot.ui.code import CodeLayout, check_model, model_checksum
from bot.ui.moves import Controls
from bot.ui.parameters import model_notes
from bot.ui.picture import PictureLayout
from bot.ui.prompts import Prompts, prompt_of
from bot.ui.readback import is_blurred, was_asked_by
from cogs._models import model_line
from cogs._seeds import seed_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import discord

    from bot.client import GPT2Client
    from bot.exhibits import Exhibit
    from bot.figures import Picture
    from bot.gpt2.model_info import ModelInfo
    from bot.text import Text, Translate


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture of a text, and what it was drawn from.

    Attributes:
        texts: The prompts.
        model: The model that read them.
        answer: The answer to the picture's question.
        picture: The picture.
    """

    texts: Sequence[str]
    model: ModelInfo
    answer: Any
    picture: Picture


@dataclass(frozen=True, slots=True)
class TextPicture(Action):
    """A picture that a command shows of a text; the button below it shows its program.

    The text is not a field: the button reads it back from the message.
    """

    PROMPTS: ClassVar[int] = 1
    """The number of prompts in the message."""

    model: int = 0  # the model's checksum, once one was chosen or the picture is shown

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """Return the exhibit for the prompts.

        Raises:
            InvalidInputError: The model has no such layer or head, or a value is out of range.
        """
        raise NotImplementedError

    async def program(
        self,
        exhibit: Exhibit[Any],
        model: ModelInfo,  # noqa: ARG002
        introspect: Callable[[Any], Awaitable[Any]],  # noqa: ARG002
    ) -> str:
        """Return the program that draws the same; `introspect` answers questions that it may have."""
        return exhibit.program

    def seeded(self, seed: int) -> TextPicture:  # noqa: ARG002
        """Return the picture with a seed, if drawing it takes one."""
        return self

    def resolved(self, drawn: Drawn) -> TextPicture:
        """Return the picture as its buttons name it, which may say more than the request did."""
        return replace(self, model=model_checksum(drawn.model))

    def prompts(self, drawn: Drawn, translate: Translate) -> Prompts:
        """Return the prompts to show above it."""
        return Prompts(drawn.texts, translate)

    def notes(self, drawn: Drawn) -> Sequence[Text]:
        """Return more lines for the caption."""
        return model_notes(drawn.model)

    def add_controls(self, controls: Controls, drawn: Drawn) -> None:
        """Add the menus and buttons that lead to other pictures."""


def register(client: GPT2Client, *kinds: type[TextPicture]) -> None:
    """Register the handlers of pictures: of **Show code** below them, and of the moves that lead to them."""
    for kind in kinds:
        client.actions.on(kind, partial(show_code, client))
        client.moves.on(kind, partial(move_picture, client))


async def show_picture(
    client: GPT2Client, interaction: discord.Interaction, asked: TextPicture, *prompts: str, private: bool = False
) -> None:
    """Answer with the picture."""

    async def read() -> Sequence[str]:
        return prompts

    await show_read(client, interaction, asked, read, private=private)


async def show_read(
    client: GPT2Client,
    interaction: discord.Interaction,
    asked: TextPicture,
    read: Callable[[], Awaitable[Sequence[str]]],
    *,
    private: bool = False,
    in_place: bool = False,
) -> None:
    """Answer with the picture of prompts that are read first, such as from the message of the pressed button."""

    async def draw() -> Drawn:
        texts, engine = [well_formed(text) for text in await read()], client.models.of(asked.model)
        model = await engine.model()
        exhibit = asked.exhibit(model, *texts)
        answer = await client.answers.introspect(exhibit.source, owner=interaction.user.id, engine=engine)
        return Drawn(texts, model, answer, await client.renderer.render(partial(exhibit.draw, answer)))

    drawn = await Reply.of(interaction).checked(draw(), private=private, in_place=in_place)
    await _give(client, interaction, asked, drawn)


async def show_further(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture) -> None:
    """Answer a button below a picture with another picture of its prompts, as private as that one."""
    message = interaction.message
    private = message is not None and message.flags.ephemeral
    await show_read(client, interaction, asked, partial(_prompts_of, client, interaction, asked), private=private)


async def move_picture(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture) -> None:
    """Answer a button or menu below a picture with the picture that it leads to.

    That takes the place of the present one for the person who asked for it; others get one of their own in private.
    """
    mine = was_asked_by(interaction.message, interaction.user)
    read = partial(_prompts_of, client, interaction, asked)
    with client.presses.once(interaction, "move"):
        seeded = asked.seeded(seed_of(interaction))
        await show_read(client, interaction, seeded, read, private=not mine, in_place=mine)


async def show_code(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture) -> None:
    """Answer the button below a picture with its program."""
    reply = Reply.of(interaction)

    async def write() -> str:
        prompts, engine = await _prompts_of(client, interaction, asked), client.models.of(asked.model)
        model = await engine.model()
        exhibit = asked.exhibit(model, *prompts)
        introspect = partial(client.answers.introspect, owner=interaction.user.id, engine=engine)
        return await asked.program(exhibit, model, introspect)

    layout = CodeLayout(await reply.checked(write(), private=True), reply.translate)
    await reply.give(layout, layout.files)


async def _prompts_of(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture) -> list[str]:
    """Read back the prompts of the message with the button; the model must be the one that made its picture."""
    check_model(asked.model, await client.models.of(asked.model).model())
    message = interaction.message
    return [await prompt_of(message, number) for number in range(asked.PROMPTS)] if message else []


async def _give(client: GPT2Client, interaction: discord.Interaction, asked: TextPicture, drawn: Drawn) -> None:
    """Show a picture with its controls."""
    reply, shown = Reply.of(interaction), asked.resolved(drawn)
    controls, prompts = Controls(reply.translate), asked.prompts(drawn, reply.translate)
    shown.add_controls(controls, drawn)
    # A blurred text must not come to light below another picture.
    blurred = await client.moderation.blurs_written(prompts.written) or is_blurred(interaction.message)
    notes = [*model_line(client, drawn.model), *asked.notes(drawn)]
    layout = PictureLayout(drawn.picture, notes, reply.translate, shown, prompts, controls, blurred=blurred)
    await reply.give(layout, layout.files)
