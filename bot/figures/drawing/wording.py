"""Numbers, names and sentences in the texts of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"


def number(value: float) -> str:
    """Format a number with four significant digits and a true minus sign."""
    return f"{value:.4g}".replace("-", MINUS)


def plain(value: float) -> str:
    """Format a number with four significant digits, or all those before the point; never with an exponent."""
    return f"{value:.0f}" if value >= 1000 else number(value)  # noqa: PLR2004


def by(rows: int, columns: int) -> str:
    """Format the shape of a matrix or block, `rows` first."""
    return f"{rows} {TIMES} {columns}"


def percent(share: float) -> str:
    """Format a share from 0 to 1 as a percentage; a tiny one is never rounded to 0."""
    if share == 0:
        return "0%"
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"  # noqa: PLR2004


def printed(values: NDArray[np.floating], most_characters: int) -> tuple[list[str], float]:
    """Format values in reading order, with as many digits as fit, and return the unit in which they are given.

    The unit is 1 where three digits of each value fit, else the power of ten of the largest.
    """
    for digits in (4, 3):
        texts = [f"{value:.{digits}g}".replace("-", MINUS) for value in values.flat]
        if max(map(len, texts)) <= most_characters:
            return texts, 1
    unit = 10.0 ** np.floor(np.log10(np.nanmax(np.abs(values))))
    return [f"{value / unit:z.1f}".replace("-", MINUS) for value in values.flat], unit


def shorten(name: str, most: int) -> str:
    """Cut a name with an ellipsis to at most `most` characters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def listing(items: Sequence[Text]) -> Text:
    """Enumerate one or more texts: "a", "a and b", "a, b and c"."""
    if len(items) == 1:
        return items[0]
    if len(items) == 2:  # noqa: PLR2004
        return say("{first} and {second}", first=items[0], second=items[1])
    return say("{first}, {rest}", first=items[0], rest=listing(items[1:]))


def joined(*sentences: Text) -> Text:
    """Join one or more sentences to one line of a caption."""
    if len(sentences) == 1:
        return sentences[0]
    return say("{first} {rest}", first=sentences[0], rest=joined(*sentences[1:]))
