"""Labels of tokens. A token is bytes: GPT-2 may split a character into two, three or four tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.figures.drawing.fonts import in_order, visible
from bot.figures.drawing.wording import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CHARACTER_BYTES = 4  # in UTF-8
NOTHING = "∅"


@dataclass(frozen=True, slots=True)
class Unit:
    """Tokens that only together are text: mostly one, several where they share a character.

    Attributes:
        text: The text as it was written; hex digits where the bytes are no text.
        label: The text as it is drawn.
        tokens: Their positions.
    """

    text: str
    label: str
    tokens: range


def hexadecimal(piece: bytes) -> str:
    """Return bytes as pairs of digits: ``E6 BC``."""
    return piece.hex(" ").upper()


def token_label(piece: bytes) -> str:
    """Return a token's text with spaces `·` and newlines `⏎`, or its bytes where it is a part of a character."""
    try:
        return visible(piece.decode()) or NOTHING
    except UnicodeDecodeError:
        return hexadecimal(piece)


def token_labels(pieces: Sequence[bytes], most: int | None = None) -> list[str]:
    """Return a label of at most `most` characters for each token; parts of a character name it: ``漢 E6BC``."""
    labels = []
    for unit in units(pieces):
        if len(unit.tokens) == 1:
            labels.append(unit.label)
        else:
            labels += [f"{in_order(unit.label)} {pieces[i].hex().upper()}" for i in unit.tokens]
    return [shorten(label, most) for label in labels] if most else labels


def units(pieces: Sequence[bytes]) -> list[Unit]:
    """Group the tokens of a text, so that those which share a character stand together."""
    found = []
    start = 0
    while start < len(pieces):
        unit = _unit_at(pieces, start)
        found.append(unit)
        start = unit.tokens.stop
    return found


def _unit_at(pieces: Sequence[bytes], start: int) -> Unit:
    """Return the shortest run of tokens from `start` on that is text, or that one token in hex."""
    joined = b""
    for stop in range(start, min(len(pieces), start + MAX_CHARACTER_BYTES)):
        joined += pieces[stop]
        try:
            text = joined.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                break
        else:
            return Unit(text, visible(text) or NOTHING, range(start, stop + 1))
    digits = hexadecimal(pieces[start])
    return Unit(digits, digits, range(start, start + 1))
