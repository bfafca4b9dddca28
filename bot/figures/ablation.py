"""What changes without some heads: next-token probabilities, and the surprise of the prompt's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from bot.figures.attention_maps import direction_note
from bot.figures.drawing import canvas
from bot.figures.drawing.fonts import in_order
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import token_label, units
from bot.figures.drawing.wording import MINUS, joined, percent, shorten
from bot.figures.side_by_side import COLOURS, LEFT, Bars, MarkedText, draw_texts, mean_bits
from bot.figures.surprise import NAME_CHARACTERS, Surprises, colour_scale, hidden_note, shared_note
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array
    from bot.figures.drawing.token_layout import TokenLayout
    from bot.figures.drawing.tokens import Unit

MAX_CANDIDATES: Final = 5
WIDTH: Final = canvas.WIDTH - 2 * LEFT
NAMED: Final = 4  # tokens whose change is named
NAMED_BITS: Final = 0.5  # a smaller change is not named
NAMES: Final = 0.26  # inches for the names of the most changed tokens
BETWEEN: Final = "   "  # not a comma, which may be a token


@dataclass(frozen=True, slots=True)
class Ablated:
    """The model with all heads and without some, ready to draw.

    Attributes:
        heads: Their names: "7.1, 8.6".
        count: How many they are.
        texts: The prompt's surprise with all heads and without these.
        labels: [k], of the candidates.
        probabilities: [2, k].
    """

    heads: str
    count: int
    texts: tuple[Surprises, Surprises]
    labels: list[str]
    probabilities: Array

    @property
    def without(self) -> str:
        """The missing heads, for a title."""
        return f"without head{'' if self.count == 1 else 's'} {self.heads}"

    def changes(self, among: range) -> list[tuple[Unit, float]]:
        """Return the units of these tokens whose surprise changes most, and by how many bits."""
        whole, rest = self.texts
        each = [
            (unit, rest.of_unit(unit) - whole.of_unit(unit))
            for unit in units(whole.pieces)
            if unit.tokens.start in among
        ]
        worth = [pair for pair in each if abs(pair[1]) >= NAMED_BITS]
        return sorted(worth, key=lambda pair: -abs(pair[1]))[:NAMED]


def ablation(
    *,
    pieces: Sequence[bytes],
    heads: Sequence[tuple[int, int]],
    candidates: Sequence[bytes],
    probabilities: Array,
    bits: Array,
) -> Picture:
    """Draw next-token probabilities and surprise with all heads and without some.

    Args:
        pieces: The prompt's tokens.
        heads: Layer and head, from 1, of those that are silenced.
        candidates: The next tokens that are compared; the first `MAX_CANDIDATES` are shown.
        probabilities: [2, candidates], with all heads and without these.
        bits: [2, tokens], the same of the prompt's surprise; NaN for the first.

    Raises:
        ValueError: The arrays don't fit together, or no head is silenced.
    """
    if not heads or not candidates or probabilities.shape != (2, len(candidates)):
        raise ValueError(f"{len(candidates)} candidates with probabilities {probabilities.shape}, {len(heads)} heads")
    if bits.shape[:1] != (2,):
        raise ValueError(f"surprise of shape {bits.shape}, not two rows")
    names = ", ".join(f"{layer}.{head}" for layer, head in heads)
    texts = (Surprises.of(pieces, bits[0]), Surprises.of(pieces, bits[1]))
    labels = [token_label(piece) for piece in candidates[:MAX_CANDIDATES]]
    found = Ablated(names, len(heads), texts, labels, probabilities[:, :MAX_CANDIDATES].astype(np.float64))
    figure, height, shown = _figure(found)
    return Picture(canvas.to_png(figure, height), _alt(found), _caption(found, shown), "ablation.png")


def _figure(found: Ablated) -> tuple[Figure, float, TokenLayout]:
    means = [mean_bits(text) for text in found.texts]
    figure = canvas.clear_figure(
        f"What changes {found.without}?", f"surprise of the text: {means[0]} → {means[1]} bits per token"
    )
    names = ("next token, with all heads", found.without)
    top = Bars(found.labels, found.probabilities, names, " → ").draw(figure, WIDTH) + 0.2
    texts = [
        MarkedText(text, mark, colour, lambda among: {unit.tokens.start for unit, _ in found.changes(among)})
        for text, mark, colour in zip(found.texts, ("with", "without"), COLOURS, strict=True)
    ]
    layouts, foot = draw_texts(figure, texts, top, WIDTH, NAMES)
    changes = found.changes(layouts[1].tokens)
    named = [f"{in_order(shorten(unit.label, NAME_CHARACTERS))} {signed(bits)}" for unit, bits in changes]
    line = f"framed, most changed: {BETWEEN.join(named)}" if named else "no token changes by half a bit"
    axes = canvas.bare_axes(figure, (LEFT, canvas.HEIGHT - foot - NAMES, WIDTH, NAMES))
    canvas.draw_text(axes, 0, 0.1, canvas.truncate(figure, line, WIDTH))
    return figure, foot + NAMES, layouts[1]


def signed(bits: float) -> str:
    """Format a change of surprise: ``+8.1``."""
    return f"{bits:+.1f}".replace("-", MINUS)


def _alt(found: Ablated) -> Text:
    top = int(np.argmax(found.probabilities[0]))
    before, after = (percent(float(share)) for share in found.probabilities[:, top])
    return say(
        "Without heads {heads} (layer.head): next token {token} {before} → {after}; surprise {first} → {second} bits"
        " per token.",
        heads=found.heads,
        token=shorten(found.labels[top], 24),
        before=before,
        after=after,
        first=mean_bits(found.texts[0]),
        second=mean_bits(found.texts[1]),
    )


def _caption(found: Ablated, shown: TokenLayout) -> tuple[Text, ...]:
    pieces = found.texts[0].pieces
    notes = (*hidden_note(shown, len(pieces)), *shared_note(pieces), *direction_note(pieces))
    return (
        say("Silenced heads, as layer.head: {heads}. Silenced means that the output is zero.", heads=found.heads),
        say(
            "Surprise of the text: {first} bits per token with all heads, {second} without these.",
            first=mean_bits(found.texts[0]),
            second=mean_bits(found.texts[1]),
        ),
        joined(say("Bars: next-token probabilities, hatched without the heads."), colour_scale()),
        *([joined(*notes)] if notes else []),
    )
