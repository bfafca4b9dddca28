"""The prompts above a picture, and reading them back from its message.

The message is their only storage. A prompt that is too long for it, or that it cannot show exactly, is attached as a
file.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import discord

from bot.errors import InvalidInputError
from bot.text import say
from bot.ui.limits import fit, length
from bot.ui.literal import bold, literal
from bot.ui.readback import attached, body, guarded, survives, text_display

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot.text import Translate

SHOWN_CHARACTERS: Final = 300
"""UTF-16 units of each prompt that are shown, with escapes. More would push the picture out of sight."""

FIRST_DISPLAY: Final = 101
"""Component id of the text display with the first prompt; the second prompt has the next id."""

_FILES: Final = ("prompt.txt", "second-prompt.txt")
_NAMES: Final = ("A", "B")  # as in the picture that compares two


class Prompts:
    """The components that show the prompts of one picture.

    Args:
        prompts: None, one, or two that the picture compares.
        translate: Translates into the reader's language.
        written: The end of a single prompt that was written after it; it is not in bold.

    Attributes:
        written: The same.
    """

    def __init__(self, prompts: Sequence[str], translate: Translate, written: str = "") -> None:
        self.written = written
        # Without a line above it, Discord would strip white space at the beginning of a prompt.
        labels = _NAMES if len(prompts) > 1 else (say("What GPT-2 reads").in_language(translate),)
        self._shown = [
            f"-# {label}\n{guarded(_fitted(prompt, written))}" for label, prompt in zip(labels, prompts, strict=False)
        ]
        self._attached = [
            (prompt, name)
            for prompt, shown, name in zip(prompts, self._shown, _FILES, strict=False)
            if not survives(prompt) or body(shown) != prompt
        ]

    @property
    def files(self) -> list[discord.File]:
        """The prompts that cannot be read back from the message, as files to send with it."""
        return [discord.File(io.BytesIO(prompt.encode()), filename=name) for prompt, name in self._attached]

    @property
    def length(self) -> int:
        """UTF-16 units of the shown texts."""
        return sum(map(length, self._shown))

    def displays(self) -> Iterator[discord.ui.TextDisplay[discord.ui.LayoutView]]:
        """Yield the text displays above the picture."""
        for number, shown in enumerate(self._shown):
            yield discord.ui.TextDisplay(shown, id=FIRST_DISPLAY + number)

    def file_links(self) -> Iterator[discord.ui.File[discord.ui.LayoutView]]:
        """Yield the file components below the picture; Discord shows no file without one."""
        for _, name in self._attached:
            yield discord.ui.File(f"attachment://{name}")


def _fitted(prompt: str, written: str) -> str:
    """Return the markdown of a prompt, cut at its end, or at its beginning if it grows at its end."""
    if not written:
        return fit(prompt, SHOWN_CHARACTERS, bold)

    def render(backwards: str) -> str:
        text = backwards[::-1]
        split = max(len(text) - len(written), 0)
        return (bold(text[:split]) if text[:split] else "") + literal(text[split:])

    return fit(prompt[::-1], SHOWN_CHARACTERS, render)


async def prompt_of(message: discord.Message, number: int = 0) -> str:
    """Read a prompt back from the message with its picture, exactly as it was written.

    Args:
        message: The message with the picture.
        number: 0 for the first prompt, 1 for the second.

    Raises:
        InvalidInputError: The message has no such prompt.
        UnavailableError: Discord no longer serves its file.
    """
    written = await attached(message, _FILES[number])
    if written is not None:
        return written
    shown = text_display(message, FIRST_DISPLAY + number)
    if shown is None:
        raise InvalidInputError(say("I can no longer read the prompt from this message. Use the command again."))
    return body(shown)
