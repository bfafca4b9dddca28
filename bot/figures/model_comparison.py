"""One prompt, two models: next-token probabilities, and the surprise of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bot.figures.comparison import MAX_CANDIDATES, WIDE
from bot.figures.drawing import canvas
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import token_label
from bot.figures.drawing.wording import joined, listing, percent, plain, shorten
from bot.figures.side_by_side import COLOURS, Bars, MarkedText, draw_texts
from bot.figures.surprise import Surprises, colour_scale, shared_note
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.figures.drawing.picture import Array

LONGEST_NAME = 24  # characters of a model's name in the picture


def compare_models(
    *,
    names: tuple[str, str],
    pieces: tuple[Sequence[bytes], Sequence[bytes]],
    bits: tuple[Array, Array],
    candidates: Sequence[bytes],
    probabilities: Array,
    likeliest: tuple[tuple[bytes, float], tuple[bytes, float]],
) -> Picture:
    """Draw what two models make of one prompt.

    Args:
        names: The models.
        pieces: The prompt in the tokens of each.
        bits: [tokens] of each, NaN for the first token.
        candidates: Next tokens; the first `MAX_CANDIDATES` are shown.
        probabilities: [2, candidates], NaN where a model has no such token.
        likeliest: The likeliest next token of each, with its probability.

    Raises:
        ValueError: The arrays don't fit together.
    """
    if probabilities.shape != (2, len(candidates)) or not candidates:
        raise ValueError(f"{len(candidates)} candidates with probabilities {probabilities.shape}")
    texts = tuple(Surprises.of(each, values) for each, values in zip(pieces, bits, strict=True))
    shown = tuple(shorten(name, LONGEST_NAME) for name in names)
    shares = probabilities[:, :MAX_CANDIDATES].astype(np.float64)
    labels = [token_label(piece) for piece in candidates[:MAX_CANDIDATES]]
    per_byte = [_per_byte(text) for text in texts]
    figure = canvas.clear_figure("Two models compared", f"surprise: {per_byte[0]} and {per_byte[1]} bits per byte")
    top = Bars(labels, shares, (shown[0], shown[1])).draw(figure, WIDE) + 0.2
    marked = [MarkedText(text, mark, colour) for text, mark, colour in zip(texts, "AB", COLOURS, strict=True)]
    layouts, height = draw_texts(figure, marked, top, WIDE)
    likely = [
        say(
            "{name} {token} {share}",
            name=name,
            token=shorten(token_label(piece), 24),
            share=percent(share),
        )
        for name, (piece, share) in zip(names, likeliest, strict=True)
    ]
    surprise = [
        say("{name} {bits} bits per byte", name=name, bits=each) for name, each in zip(names, per_byte, strict=True)
    ]
    alt = say(
        "Two models compared. Likeliest next token: {tokens}. Surprise of the prompt: {surprise}.",
        tokens=listing(likely),
        surprise=listing(surprise),
    )
    notes = shared_note([*texts[0].pieces, *texts[1].pieces])
    hidden = [say("Only the end of the prompt is shown; the numbers are of all.")] if layouts[0].hidden else []
    caption: tuple[Text, ...] = (
        say(
            "Bars: next-token probabilities of {first} (A, plain) and {second} (B, hatched).",
            first=names[0],
            second=names[1],
        ),
        joined(
            say("Surprise of the prompt: {surprise}; less is better.", surprise=listing(surprise)),
            colour_scale(),
        ),
        *([joined(*hidden, *notes)] if hidden or notes else []),
    )
    return Picture(canvas.to_png(figure, height), alt, caption, "models.png")


def _per_byte(text: Surprises) -> str:
    return plain(text.per_byte) if text.known.size else "–"
