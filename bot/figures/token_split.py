"""The tokens of a text and their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from bot.figures.attention_maps import direction_note
from bot.figures.drawing import canvas, token_layout
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import units
from bot.figures.drawing.wording import joined, number
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bot.figures.drawing.token_layout import Block, TokenLayout

LEFT: Final = 0.3
TOP: Final = 0.72
FILLED: Final = "#2b4d6b"  # every other block; those between have a frame instead
FRAME: Final = "#80848e"
BELOW: Final = 0.155  # inches of a line of numbers
PADDING: Final = 0.06


def token_split(text: str, *, pieces: Sequence[bytes], ids: Sequence[int]) -> Picture:
    """Draw the tokens of a text as blocks, with their ids below, and the bytes of parts of a character.

    Args:
        text: The text, whose characters and bytes are counted: not every tokenizer's tokens join to it.
        pieces: The tokens' bytes; of a text too long for the picture the first are shown.
        ids: One number for each token.

    Raises:
        ValueError: There are not as many ids as tokens, or none.
    """
    if len(pieces) != len(ids) or not pieces:
        raise ValueError(f"{len(pieces)} tokens with {len(ids)} ids")
    figure, shown, height = _figure(text, pieces, ids)
    parts = sum(len(unit.tokens) for unit in units(pieces) if len(unit.tokens) > 1)
    caption = _caption(text, pieces, shown, parts)
    return Picture(canvas.to_png(figure, height), _alt(text, pieces, ids), caption, "tokens.png")


def _figure(text: str, pieces: Sequence[bytes], ids: Sequence[int]) -> tuple[Figure, TokenLayout, float]:
    subtitle = f"{_counted(len(text), 'character')}, {_counted(len(text.encode()), 'byte')}"
    figure = canvas.clear_figure(_counted(len(pieces), "token"), subtitle)
    has_parts = any(len(unit.tokens) > 1 for unit in units(pieces))
    under = [
        max(str(token), piece.hex().upper() if has_parts else "", key=len)
        for token, piece in zip(ids, pieces, strict=True)
    ]
    pitch = token_layout.BLOCK + BELOW * (2 if has_parts else 1) + PADDING
    room = (canvas.WIDTH - 2 * LEFT, canvas.HEIGHT - TOP - 0.1)
    shown = token_layout.lay_out(figure, pieces, room, pitch=pitch, keep_end=False, under=under)
    axes = token_layout.axes_for(figure, shown, (LEFT, TOP), room)
    faces = np.array([(*canvas.rgb(FILLED if i % 2 == 0 else canvas.BACKGROUND), 1) for i in range(len(shown.blocks))])
    edges = [None if i % 2 == 0 else FRAME for i in range(len(shown.blocks))]
    token_layout.draw(axes, shown, faces, edges=edges, pitch=pitch)
    for block in shown.blocks:
        _write_under(axes, shown, block, pieces, ids, pitch)
    return figure, shown, TOP + shown.inches(pitch) + 0.15


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _write_under(
    axes: Axes, shown: TokenLayout, block: Block, pieces: Sequence[bytes], ids: Sequence[int], pitch: float
) -> None:
    """Write the id of each token under its block, and above it the bytes where several share a character."""
    tokens = block.unit.tokens
    for part, token in enumerate(tokens):
        x = block.left + block.width * (part + 0.5) / len(tokens)
        y = block.line * pitch + token_layout.BLOCK + BELOW / 2 + 0.015
        if len(tokens) > 1:
            token_layout.write(axes, shown, x, y, pieces[token].hex().upper(), color=canvas.CATEGORIES[1])
            y += BELOW
        token_layout.write(axes, shown, x, y, str(ids[token]), color=canvas.MUTED)


def _alt(text: str, pieces: Sequence[bytes], ids: Sequence[int]) -> Text:
    if len(pieces) == 1:
        return say("Text of a single token, id {id}.", id=ids[0])
    first = ", ".join(map(str, ids[:8])) + ("…" if len(ids) > 8 else "")  # noqa: PLR2004
    return say(
        "Text split into {tokens} tokens, {rate} characters each; ids {ids}.",
        tokens=len(pieces),
        rate=number(len(text) / len(pieces)),
        ids=first,
    )


def _caption(text: str, pieces: Sequence[bytes], shown: TokenLayout, parts: int) -> tuple[Text, ...]:
    hidden = (
        [
            say(
                "Showing the first {shown} of {tokens} tokens.",
                shown=len(shown.tokens),
                tokens=len(pieces),
            )
        ]
        if shown.hidden
        else []
    )
    cut = (
        [say("{parts} tokens are parts of a character: their bytes stand below in hexadecimal.", parts=parts)]
        if parts
        else []
    )
    return (
        _counts(len(pieces), len(text), len(text.encode())),
        joined(say("· is a space, ⏎ a newline."), *cut, *hidden, *direction_note(pieces)),
    )


def _counts(tokens: int, characters: int, size: int) -> Text:
    if tokens == 1:
        return say(
            "One token, with its id in the vocabulary. Characters: {characters}; bytes: {bytes}.",
            characters=characters,
            bytes=size,
        )
    if characters == 1:
        return say(
            "{tokens} tokens for one character ({bytes} bytes), with their ids in the vocabulary.",
            tokens=tokens,
            bytes=size,
        )
    return say(
        "{tokens} tokens for {characters} characters ({bytes} bytes), with their ids in the vocabulary.",
        tokens=tokens,
        characters=characters,
        bytes=size,
    )
