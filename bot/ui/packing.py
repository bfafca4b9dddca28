"""Texts of a message, cut so that together they fit into it."""

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
    """A text of a message: a line of small print, the prompt in bold, the model's text, and more small print.

    Attributes:
        label: Markdown of the first line.
        prompt: The user's text.
        text: The model's text, which follows it.
        note: Markdown of the last line; may be empty.
    """

    label: str
    prompt: str = ""
    text: str = ""
    note: str = ""

    @property
    def whole(self) -> str:
        """Its uncut markdown."""
        return self._rendered(self.prompt, self.text)

    def within(self, limit: int) -> str:
        """Return its markdown, cut to `limit` UTF-16 units.

        The model's text is cut at its end. A prompt that stands alone is cut in the middle, since the model
        continues its end. Other prompts and small print are never cut, so the result may exceed a very small limit.
        """
        if length(self.whole) <= limit:
            return self.whole
        if self.text:
            kept = _longest(
                len(self.text), limit, lambda count: self._rendered(self.prompt, _beginning(self.text, count))
            )
            return self._rendered(self.prompt, _beginning(self.text, kept))
        kept = _longest(len(self.prompt), limit, lambda count: self._rendered(_ends(self.prompt, count), ""))
        return self._rendered(_ends(self.prompt, kept), "")

    def _rendered(self, prompt: str, text: str) -> str:
        note = f"\n{self.note}" if self.note else ""
        return f"{self.label}\n{guarded(bold(prompt) + literal(text))}{note}"


def pack(passages: Sequence[Passage], budget: int) -> list[str]:
    """Return the markdown of each passage, all together within `budget` UTF-16 units; short ones stay whole."""
    limits = shares([length(passage.whole) for passage in passages], budget)
    return [passage.within(limit) for passage, limit in zip(passages, limits, strict=True)]


def _beginning(text: str, count: int) -> str:
    return text[:count] + ELLIPSIS


def _ends(text: str, count: int) -> str:
    """Return `count` characters of a text, a third from its beginning and the others from its end."""
    first = count // 3
    return text[:first] + ELLIPSIS + text[len(text) - (count - first) :]


def _longest(longest: int, limit: int, rendered: Callable[[int], str]) -> int:
    """Return how many characters of a text may be kept, so that its rendering stays within `limit`."""
    shortest = 0
    while shortest < longest:
        middle = math.ceil((shortest + longest) / 2)
        if length(rendered(middle)) <= limit:
            shortest = middle
        else:
            longest = middle - 1
    return shortest
