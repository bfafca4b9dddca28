"""Checks of texts and numbers that people write; each refuses with a sentence for its user."""

from __future__ import annotations

import unicodedata
from typing import Final

from bot.errors import InvalidInputError
from bot.text import Text, say

MAX_PROMPT_CHARACTERS: Final = 6000  # the longest value of a slash command's string option
_UNSEEN: Final = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})  # Unicode's categories of controls, formats and spaces
_BLANK: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # fillers and a pattern without dots: letters by category


def well_formed(text: str) -> str:
    """`text` with surrogate pairs joined and lone halves replaced by U+FFFD, so that it can be encoded."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def has_visible_character(text: str) -> bool:
    """Return whether a reader would see anything: spaces, control and zero-width characters alone do not count."""
    # Not by `isprintable`: that is false of emoji which are newer than this Python.
    return any(unicodedata.category(each) not in _UNSEEN and each not in _BLANK for each in text)


def checked_text(text: str, what: Text) -> str:
    """`text` as it can be encoded, having checked that there is something to see in it and not too much.

    Args:
        text: What a person wrote.
        what: What it is, to begin a sentence with: "The prompt".

    Raises:
        InvalidInputError: There is nothing to see, or there are more characters than a slash command takes.
    """
    text = well_formed(text)
    if not has_visible_character(text):
        raise InvalidInputError(say("{what} is empty: write at least one word.", what=what))
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise InvalidInputError(
            say(
                "{what} has {count} characters; at most {limit} fit. Shorten it.",
                what=what,
                count=len(text),
                limit=MAX_PROMPT_CHARACTERS,
            )
        )
    return text


def check_range(what: Text | str, value: float, low: float, high: float) -> None:
    """Refuse a number that is not within its limits.

    Raises:
        InvalidInputError: It is not.
    """
    if not low <= value <= high:  # NaN is in no range
        raise InvalidInputError(
            say("{what} must be from {low} to {high}, not {value}.", what=what, low=low, high=high, value=value)
        )
