"""A person's words above the picture that was made of them, and their way back from there.

The message is the only memory of them. What it has no room for, or cannot show as it was written, is in an attached
file beside it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import discord

from bot.errors import InvalidInputError
from bot.text import say
from bot.ui.limits import fit, length
from bot.ui.literal import bold
from bot.ui.readback import attached, body, guarded, survives, text_display

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot.text import Translate

SHOWN_CHARACTERS: Final = 300
"""What is shown of each prompt, in UTF-16 units with their escapes: more would push the picture out of sight."""

FIRST_DISPLAY: Final = 101
"""Component id of the text display with the first prompt; the second has the next."""

_FILES: Final = ("prompt.txt", "second-prompt.txt")
_NAMES: Final = ("A", "B")  # as the picture of two calls them


class Prompts:
    """The prompts of one picture, one or two or none, laid out."""

    def __init__(self, prompts: Sequence[str], translate: Translate) -> None:
        # The small print above is also what Discord leaves white space at the beginning of a prompt for.
        labels = _NAMES if len(prompts) > 1 else (say("What GPT-2 reads").in_language(translate),)
        self._shown = [
            f"-# {label}\n{guarded(fit(prompt, SHOWN_CHARACTERS, bold))}"
            for label, prompt in zip(labels, prompts, strict=False)
        ]
        self._attached = [
            (prompt, name)
            for prompt, shown, name in zip(prompts, self._shown, _FILES, strict=False)
            if not survives(prompt) or body(shown) != prompt
        ]

    @property
    def files(self) -> list[discord.File]:
        """What cannot be read back from what is shown, to be sent with the message."""
        return [discord.File(io.BytesIO(prompt.encode()), filename=name) for prompt, name in self._attached]

    @property
    def length(self) -> int:
        """UTF-16 units that they take of a message's texts."""
        return sum(map(length, self._shown))

    def displays(self) -> Iterator[discord.ui.TextDisplay[discord.ui.LayoutView]]:
        """What goes above the picture."""
        for number, shown in enumerate(self._shown):
            yield discord.ui.TextDisplay(shown, id=FIRST_DISPLAY + number)

    def file_links(self) -> Iterator[discord.ui.File[discord.ui.LayoutView]]:
        """What goes below it, where something is attached: Discord shows no file that no component names."""
        for _, name in self._attached:
            yield discord.ui.File(f"attachment://{name}")


async def prompt_of(message: discord.Message, number: int = 0) -> str:
    """A prompt as it was written, read back from the message with its picture; `number` 1 is the second of two.

    Raises:
        InvalidInputError: The message has no such prompt.
        UnavailableError: Its file is not handed out any more.
    """
    written = await attached(message, _FILES[number])
    if written is not None:
        return written
    shown = text_display(message, FIRST_DISPLAY + number)
    if shown is None:
        raise InvalidInputError(say("I can't read the prompt from this message any more. Use the command again."))
    return body(shown)
