"""A message's texts, cut so that together they stay within what one message holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.ui.limits import ELLIPSIS, length, shares
from bot.ui.literal import bold, literal
from bot.ui.readback import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Passage:
    """One text of a message: a line of small print, a person's words in bold, the model's plain, small print again.

    Attributes:
        label: Markdown of the first line.
        prompt: A person's words.
        text: The model's words, which follow them.
        note: Markdown of the last line; may be empty.
    """

    label: str
    prompt: str = ""
    text: str = ""
    note: str = ""

    @property
    def whole(self) -> str:
        """Its markdown, nothing left out."""
        return self._rendered(self.prompt, self.text)

    def within(self, room: int) -> str:
        """Its markdown in at most `room` UTF-16 units, where small print and, beside a text, the prompt fit there.

        Of the model's words the end is left out, of a prompt that stands alone the middle: the model goes on from its
        end.
        """
        if length(self.whole) <= room:
            return self.whole
        if self.text:
            kept = _most(len(self.text), room, lambda count: self._rendered(self.prompt, _beginning(self.text, count)))
            return self._rendered(self.prompt, _beginning(self.text, kept))
        kept = _most(len(self.prompt), room, lambda count: self._rendered(_ends(self.prompt, count), ""))
        return self._rendered(_ends(self.prompt, kept), "")

    def _rendered(self, prompt: str, text: str) -> str:
        note = f"\n{self.note}" if self.note else ""
        return f"{self.label}\n{guarded(bold(prompt) + literal(text))}{note}"


def pack(passages: Sequence[Passage], budget: int) -> list[str]:
    """The markdown of each, all together within `budget` UTF-16 units; who needs little gets all of it."""
    given = shares([length(passage.whole) for passage in passages], budget)
    return [passage.within(room) for passage, room in zip(passages, given, strict=True)]


def _beginning(text: str, count: int) -> str:
    return text[:count] + ELLIPSIS


def _ends(text: str, count: int) -> str:
    """A third of the characters from the beginning, the others from the end."""
    first = count // 3
    return text[:first] + ELLIPSIS + text[len(text) - (count - first) :]


def _most(longest: int, room: int, rendered: Callable[[int], str]) -> int:
    """How many characters may be kept; what is cut is the text, so that no escape or emphasis is cut in two."""
    shortest = 0
    while shortest < longest:
        middle = math.ceil((shortest + longest) / 2)
        if length(rendered(middle)) <= room:
            shortest = middle
        else:
            longest = middle - 1
    return shortest
