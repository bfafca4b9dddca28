"""Discord's numbers, and texts cut to them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MESSAGE_CHARACTERS: Final = 2000
LAYOUT_CHARACTERS: Final = 4000  # all text displays of a Components V2 message together
ALT_TEXT_CHARACTERS: Final = 1024
GALLERY_ALT_TEXT_CHARACTERS: Final = 256
CHOICES: Final = 25
CHOICE_CHARACTERS: Final = 100
FORM_TITLE_CHARACTERS: Final = 45
TEXT_INPUT_CHARACTERS: Final = 4000
COMPONENTS: Final = 40  # of a Components V2 message, nested ones counted
CUSTOM_ID_CHARACTERS: Final = 100
BUTTON_LABEL_CHARACTERS: Final = 80

ELLIPSIS: Final = "…"


def length(text: str) -> int:
    """Length as Discord's clients count it, in UTF-16 code units: never less than what its API counts."""
    return len(text) + sum(character > "\uffff" for character in text)


def clip(text: str, limit: int) -> str:
    """`text`, or as much of its beginning as leaves room for an ellipsis within `limit` UTF-16 units."""
    return fit(text, limit, lambda part: part)


def fit(text: str, limit: int, render: Callable[[str], str]) -> str:
    """`render(text)`, or of the longest beginning of `text` that with an ellipsis stays within `limit`.

    What is cut is the text and not its rendering, so that no escape sequence or emphasis is cut in two.
    """
    whole = render(text)
    if length(whole) <= limit:
        return whole
    shortest, longest = 0, len(text)
    while shortest < longest:
        middle = math.ceil((shortest + longest) / 2)
        if length(render(text[:middle] + ELLIPSIS)) <= limit:
            shortest = middle
        else:
            longest = middle - 1
    return render(text[:shortest] + ELLIPSIS)


def shares(wanted: Sequence[int], budget: int) -> list[int]:
    """How much of `budget` each gets: all that it wants where that is little, else an equal part of what is left.

    The sum never exceeds `budget`, and nobody gets less than a smaller one does (max-min fairness).
    """
    given = [0] * len(wanted)
    left = budget
    for place, index in enumerate(sorted(range(len(wanted)), key=lambda each: wanted[each])):
        given[index] = min(wanted[index], left // (len(wanted) - place))
        left -= given[index]
    return given
