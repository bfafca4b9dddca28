"""Discord's limits, and functions that cut texts to them."""

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
BUTTONS: Final = 5  # of a row
MENU_PLACEHOLDER_CHARACTERS: Final = 150

ELLIPSIS: Final = "…"


def length(text: str) -> int:
    """Return the length in UTF-16 code units, as Discord's clients count it: never less than its API's count."""
    return len(text) + sum(character > "\uffff" for character in text)


def clip(text: str, limit: int) -> str:
    """Cut a text to `limit` UTF-16 units, with an ellipsis where it was cut."""
    return fit(text, limit, lambda part: part)


def fit(text: str, limit: int, render: Callable[[str], str]) -> str:
    """Render a text, cut so that the result stays within `limit` UTF-16 units.

    The text is cut and not its rendering, so that no escape sequence or emphasis is split.
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
    """Divide a budget among demands by max-min fairness.

    Small demands are met in full, the others share the rest equally. The sum never exceeds `budget`.
    """
    given = [0] * len(wanted)
    left = budget
    for place, index in enumerate(sorted(range(len(wanted)), key=lambda each: wanted[each])):
        given[index] = min(wanted[index], left // (len(wanted) - place))
        left -= given[index]
    return given
