"""Show code: the program that makes again what a message shows, for who pressed the button."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Final

import discord

from bot.errors import InvalidInputError
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
_MARKS: Final = 36**4 - 1


class CodeLayout(discord.ui.LayoutView):
    """A program to be copied: in a code block, or as a file where that is too small or would end too early."""

    def __init__(self, program: str, translate: Translate) -> None:
        super().__init__(timeout=None)
        text = say("The same on your own machine, after `pip install torch transformers matplotlib`:")
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
    """The button that shows the program of a message."""
    return button(action, say("Show code").in_language(translate), emoji="🐍")


def mark(model: ModelInfo) -> int:
    """What a button remembers of the model, so that a program never names another than the one at work; never 0."""
    return zlib.crc32(model.name.encode("utf-8", "surrogatepass")) % _MARKS + 1


def check_mark(marked: int, model: ModelInfo) -> None:
    """Refuse to explain with this model what another one made.

    Raises:
        InvalidInputError: It is another model than the one that the button was made with.
    """
    if marked != mark(model):
        raise InvalidInputError(
            say("This was made with another model than {model}, which I run now. Ask for it again.", model=model.name)
        )
