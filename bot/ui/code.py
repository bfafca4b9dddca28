"""Show code: the program that reproduces a message."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import discord

from bot.errors import InvalidInputError
from bot.gpt2.model_info import name_checksum
from bot.text import say
from bot.ui.buttons import button
from bot.ui.limits import MESSAGE_CHARACTERS, length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.gpt2.model_info import ModelInfo
    from bot.text import Translate
    from bot.ui.buttons import Action, PersistentItem

PROGRAM_NAME: Final = "program.py"
_FENCE: Final = "```"


class CodeLayout(discord.ui.LayoutView):
    """A program in a code block, or as a file if it is too long or itself contains a code fence."""

    def __init__(self, program: str, translate: Translate) -> None:
        super().__init__(timeout=None)
        text = say("To reproduce this on your own machine, run `pip install torch transformers matplotlib`, then:")
        block = f"{_FENCE}py\n{program}{_FENCE}"
        container: discord.ui.Container[CodeLayout] = discord.ui.Container()
        container.add_item(discord.ui.TextDisplay(text.in_language(translate)))
        self.files: Sequence[discord.File] = ()
        if _FENCE in program or length(block) > MESSAGE_CHARACTERS:
            container.add_item(discord.ui.File(f"attachment://{PROGRAM_NAME}"))
            self.files = (discord.File(io.BytesIO(program.encode()), filename=PROGRAM_NAME),)
        else:
            container.add_item(discord.ui.TextDisplay(block))
        self.add_item(container)


def code_button(action: Action, translate: Translate) -> PersistentItem:
    """Return the button that shows the program behind a message."""
    return button(action, say("Show code").in_language(translate), emoji="🐍")


def model_checksum(model: ModelInfo) -> int:
    """Return a checksum of the model's name, never 0, which buttons keep to detect another model."""
    return name_checksum(model.name)


def check_model(checksum: int, model: ModelInfo) -> None:
    """Check that a message was made with this model.

    Raises:
        InvalidInputError: The checksum is another model's.
    """
    if checksum != model_checksum(model):
        raise InvalidInputError(
            say("This was made with a different model; I now run {model}. Ask for it again.", model=model.name)
        )
