"""How surprised the model is by each token of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from bot.figures.attention_maps import direction_note
from bot.figures.drawing import canvas, colormaps, token_layout
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import Unit, units
from bot.figures.drawing.wording import listing, number, plain, shorten
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array
    from bot.figures.drawing.token_layout import Flow

MOST_BITS: Final = 16.0  # where the colours end: about what a uniform guess among GPT-2's 50257 tokens costs
CORNER: Final = (0.3, 0.72)  # left and top in inches
ROOM: Final = (6.75, 3.0)  # width and height
NAMED: Final = 3
NAMED_BITS: Final = 4.0  # less is no surprise worth a name
NAME_CHARACTERS: Final = 16
BETWEEN: Final = "   "  # no comma, which may be one of the tokens
FRAME: Final = "#2a86e8"  # seen on dark orange and on white


@dataclass(frozen=True, slots=True)
class Surprises:
    """A text with what it costs the model.

    Attributes:
        pieces: The tokens.
        bits: [T] in float64; NaN where nothing is predicted.
    """

    pieces: Sequence[bytes]
    bits: Array

    @classmethod
    def of(cls, pieces: Sequence[bytes], bits: Array) -> Surprises:
        """Check that they fit.

        Raises:
            ValueError: There is not one number for each token, or one is below zero.
        """
        if bits.shape != (len(pieces),) or not pieces:
            raise ValueError(f"{len(pieces)} tokens with surprise of shape {bits.shape}")
        if (bits < -1e-3).any():  # noqa: PLR2004  rounding
            raise ValueError("a surprise below zero")
        return cls(pieces, bits.astype(np.float64))

    @property
    def known(self) -> Array:
        """The bits of the tokens that are predicted."""
        known: Array = self.bits[np.isfinite(self.bits)]
        return known

    @property
    def perplexity(self) -> float:
        """Two to the mean bits per token, NaN where nothing is predicted."""
        return float(2 ** self.known.mean()) if self.known.size else float("nan")

    @property
    def per_byte(self) -> float:
        """Bits per byte of the text that is predicted, NaN where nothing is."""
        count = sum(len(piece) for piece, bits in zip(self.pieces, self.bits, strict=True) if np.isfinite(bits))
        return float(self.known.sum()) / count if count else float("nan")

    def of_unit(self, unit: Unit) -> float:
        """The bits of tokens that are a character together, which is their sum."""
        return float(self.bits[unit.tokens.start : unit.tokens.stop].sum())

    def most(self, among: range | None = None, count: int = NAMED) -> list[tuple[Unit, float]]:
        """The most surprising parts of the text, or of some of its tokens, the most surprising first."""
        each = [
            (unit, self.of_unit(unit)) for unit in units(self.pieces) if among is None or unit.tokens.start in among
        ]
        worth = [pair for pair in each if pair[1] >= NAMED_BITS]
        return sorted(worth, key=lambda pair: -pair[1])[:count]

    def faces(self, shown: Flow) -> Array:
        """[blocks, 4]: the colour of each block."""
        return colormaps.surprise_colours([self.of_unit(block.unit) for block in shown.blocks], MOST_BITS)


def surprise(*, pieces: Sequence[bytes], bits: Array, characters: int) -> Picture:
    """The text itself, each token on a ground as bright as it surprised the model.

    Args:
        pieces: The tokens' bytes; of a text too long for the picture the last are shown.
        bits: [T], minus the logarithm to base 2 of the probability of each token; NaN for the first, which nothing
            predicts.
        characters: Of the whole text.

    Raises:
        ValueError: `bits` doesn't fit the tokens.
    """
    found = Surprises.of(pieces, bits)
    figure, shown = _figure(found)
    return Picture(canvas.to_png(figure), _alt(found), _caption(found, shown, characters), "surprise.png")


def _figure(found: Surprises) -> tuple[Figure, Flow]:
    known = found.known
    subtitle = "One token: nothing predicts it."
    if known.size:
        total, mean = plain(float(known.sum())), plain(float(known.mean()))
        subtitle = f"{total} bits in all, {mean} per token, {number(found.per_byte)} per byte; perplexity "
        subtitle += plain(found.perplexity)
    figure = canvas.clear_figure("How surprising is each token?", subtitle)
    shown = token_layout.set_lines(figure, found.pieces, ROOM)
    axes = token_layout.axes_for(figure, shown, CORNER, ROOM)
    token_layout.draw(axes, shown, found.faces(shown), edges=_edges(found, shown))
    colormaps.bar(
        figure, (CORNER[0], 0.46, 2.3, 0.13), colormaps.SURPRISE, (0, MOST_BITS), "bits", ticks=(0, 4, 8, 12, 16)
    )
    _name_most(figure, found, shown)
    return figure, shown


def _edges(found: Surprises, shown: Flow) -> list[str | None]:
    """A blue frame for the most surprising, a gray one for what nothing predicts."""
    named = {unit.tokens.start for unit, _ in found.most(shown.tokens)}
    return [
        FRAME if block.unit.tokens.start in named else canvas.LINE if np.isnan(found.of_unit(block.unit)) else None
        for block in shown.blocks
    ]


def _name_most(figure: Figure, found: Surprises, shown: Flow) -> None:
    axes = canvas.free_axes(figure, (2.95, 0.08, 4.2, 0.75))
    if shown.hidden:
        text = f"the last {len(shown.tokens)} of {len(found.pieces)} tokens"
        canvas.put(axes, 0, 0.05, text, color=canvas.MUTED)
    named = [f"{shorten(unit.label, NAME_CHARACTERS)} {bits:.1f}" for unit, bits in found.most(shown.tokens)]
    text = f"framed, most surprising: {BETWEEN.join(named)}" if named else "nothing surprising"
    canvas.put(axes, 0, 0.24, canvas.cut_to(figure, text, 4.2), color=canvas.INK)
    canvas.put(axes, 0, 0.43, "n bits: as unlikely as n heads in a row", color=canvas.MUTED)


def _alt(found: Surprises) -> Text:
    if not found.known.size:
        return say("Surprise of a text of one token, which nothing predicts.")
    named = [
        say("{token} {bits} bits", token=shorten(unit.label, NAME_CHARACTERS), bits=f"{bits:.1f}")
        for unit, bits in found.most()
    ]
    numbers = say(
        "Text coloured by surprise: {tokens} tokens, {mean} bits per token, perplexity {perplexity}.",
        tokens=len(found.pieces),
        mean=number(float(found.known.mean())),
        perplexity=plain(found.perplexity),
    )
    if not named:
        return numbers
    return say("{numbers} Most surprising: {tokens}.", numbers=numbers, tokens=listing(named))


def _caption(found: Surprises, shown: Flow, characters: int) -> tuple[Text, ...]:
    beyond = sum(found.of_unit(unit) > MOST_BITS for unit in units(found.pieces))
    return (
        say(
            "{tokens} tokens, {characters} characters. Bits are the surprise: 1 bit for a token that was given a"
            " probability of 1/2, 10 bits for 1/1024.",
            tokens=len(found.pieces),
            characters=characters,
        ),
        say("Nothing predicts the first token: it is not counted."),
        *_sums(found),
        *hidden_note(shown, len(found.pieces)),
        *scale_note(beyond),
        *shared_note(found.pieces),
        *direction_note(found.pieces),
        say("Surprising means rare in what the model has read, not wrong."),
    )


def _sums(found: Surprises) -> tuple[Text, ...]:
    if not found.known.size:
        return ()
    return (
        say(
            "In all {total} bits: perplexity {perplexity}, {per_byte} bits per byte.",
            total=plain(float(found.known.sum())),
            perplexity=plain(found.perplexity),
            per_byte=number(found.per_byte),
        ),
    )


def hidden_note(shown: Flow, tokens: int) -> tuple[Text, ...]:
    """Says how much of a text is left out."""
    if not shown.hidden:
        return ()
    return (
        say(
            "The picture has room for the last {shown} of {tokens} tokens; the numbers are those of all.",
            shown=len(shown.tokens),
            tokens=tokens,
        ),
    )


def scale_note(beyond: int) -> tuple[Text, ...]:
    """Says where the colours end and how many values lie beyond."""
    return (
        say(
            "Brightness goes from 0 to {most} bits, in every picture of this kind; beyond it and as bright: {beyond}.",
            most=number(MOST_BITS),
            beyond=beyond,
        ),
    )


def shared_note(pieces: Sequence[bytes]) -> tuple[Text, ...]:
    """Says how characters are coloured that are made of several tokens, where there are any."""
    if all(len(unit.tokens) == 1 for unit in units(pieces)):
        return ()
    return (say("A character that takes several tokens, marked at its foot, has the sum of their bits."),)
