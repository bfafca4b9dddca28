"""The heads of Q, K and V to which the columns of `c_attn` belong."""

from __future__ import annotations

from dataclasses import dataclass

from bot.figures.drawing.wording import listing
from bot.text import Text, say

PARTS = ("Q", "K", "V")


@dataclass(frozen=True, slots=True)
class HeadSpan:
    """The columns of one head that a slice shows.

    Attributes:
        part: "Q", "K" or "V".
        head: The head's number, counted from 1.
        columns: The code's indices of its columns in the slice.
        width: How many columns the whole head has.
    """

    part: str
    head: int
    columns: range
    width: int

    @property
    def is_whole(self) -> bool:
        """Return whether the slice shows all of the head's columns."""
        return len(self.columns) == self.width


def head_spans(columns: range, width: int, heads: int) -> list[HeadSpan]:
    """Divide columns of `c_attn` [width, 3*width = Q|K|V] at the borders of heads.

    Raises:
        ValueError: The heads don't divide the width, or there are columns outside the matrix.
    """
    if width % heads or not 0 <= columns.start < columns.stop <= len(PARTS) * width:
        raise ValueError(f"columns {columns} of {heads} heads in a width of {width}")
    each = width // heads
    spans = []
    for index in range(columns.start // each, -(-columns.stop // each)):
        shown = range(max(columns.start, index * each), min(columns.stop, (index + 1) * each))
        spans.append(HeadSpan(PARTS[index // heads], index % heads + 1, shown, each))
    return spans


def describe(spans: list[HeadSpan]) -> Text:
    """Describe the spans: "This slice is Q alone: 4 whole heads and …"."""
    parts = list(dict.fromkeys(span.part for span in spans))
    by_part = [_heads([span for span in spans if span.part == part]) for part in parts]
    if len(parts) == 1:
        return say("This slice is {part} alone: {heads}.", part=parts[0], heads=by_part[0])
    each = [say("{part} ({heads})", part=part, heads=of) for part, of in zip(parts, by_part, strict=True)]
    return say("This slice covers {parts}.", parts=listing(each))


def _heads(spans: list[HeadSpan]) -> Text:
    """Count the whole heads, and describe the columns shown of the others."""
    whole = sum(span.is_whole for span in spans)
    count = [say("one whole head")] if whole == 1 else [say("{count} whole heads", count=whole)] if whole else []
    cut = [
        say(
            "{shown} of the {width} columns of head {head}",
            shown=len(span.columns),
            width=span.width,
            head=span.head,
        )
        for span in spans
        if not span.is_whole
    ]
    return listing([*count, *cut])
