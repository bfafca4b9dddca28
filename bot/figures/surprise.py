"""The surprise of each token of a text, in bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from bot.figures.attention_maps import direction_note
from bot.figures.drawing import canvas, colormaps, token_layout
from bot.figures.drawing.fonts import in_order
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import Unit, units
from bot.figures.drawing.wording import joined, listing, number, plain, shorten
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array
    from bot.figures.drawing.token_layout import TokenLayout

MAX_BITS: Final = 16.0  # end of the colour scale: about the surprise of a uniform guess among GPT-2's 50257 tokens
CORNER: Final = (0.3, 0.72)  # left and top in inches
ROOM: Final = (6.75, 3.12)  # width and height
KEY: Final = 0.8  # inches below the text
NAMED: Final = 3
NAMED_BITS: Final = 4.0  # below this a token is not named
NAME_CHARACTERS: Final = 16
BETWEEN: Final = "   "  # not a comma, which may be a token
FRAME: Final = "#2a86e8"  # visible on dark orange and on white


@dataclass(frozen=True, slots=True)
class Surprises:
    """A text with the surprise of its tokens.

    Attributes:
        pieces: The tokens.
        bits: [T] in float64; NaN where nothing is predicted.
        text: The text, in UTF-8.
    """

    pieces: Sequence[bytes]
    bits: Array
    text: bytes

    @classmethod
    def of(cls, pieces: Sequence[bytes], bits: Array, text: bytes | None = None) -> Surprises:
        """Check that tokens and bits fit; without a text, the tokens are taken to join to it.

        Raises:
            ValueError: There is not one number for each token, or one is below zero.
        """
        if bits.shape != (len(pieces),) or not pieces:
            raise ValueError(f"{len(pieces)} tokens with surprise of shape {bits.shape}")
        if (bits < -1e-3).any():  # noqa: PLR2004  rounding
            raise ValueError("a surprise below zero")
        return cls(pieces, bits.astype(np.float64), b"".join(pieces) if text is None else text)

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
        """Bits per byte of the predicted text, NaN where nothing is predicted."""
        first = self.pieces[0] if np.isnan(self.bits[0]) else b""
        count = len(self.text.removeprefix(first))  # a tokenizer may begin with a token of its own
        return float(self.known.sum()) / count if self.known.size and count else float("nan")

    def of_unit(self, unit: Unit) -> float:
        """Return the bits of a unit: the sum over its tokens."""
        return float(self.bits[unit.tokens.start : unit.tokens.stop].sum())

    def most(self, among: range | None = None, count: int = NAMED) -> list[tuple[Unit, float]]:
        """Return the most surprising units of the text, or of some of its tokens, the most surprising first."""
        each = [
            (unit, self.of_unit(unit)) for unit in units(self.pieces) if among is None or unit.tokens.start in among
        ]
        worth = [pair for pair in each if pair[1] >= NAMED_BITS]
        return sorted(worth, key=lambda pair: -pair[1])[:count]

    def faces(self, shown: TokenLayout) -> Array:
        """Return the colour of each block, [blocks, 4]."""
        return colormaps.surprise_colours([self.of_unit(block.unit) for block in shown.blocks], MAX_BITS)


def surprise(
    text: str, *, pieces: Sequence[bytes], bits: Array, first: int | None = None, until: int | None = None
) -> Picture:
    """Draw the text itself, each token on a background as bright as its surprise.

    Args:
        text: The text, whose characters and bytes are counted: not every tokenizer's tokens join to it.
        pieces: The tokens' bytes; of a text too long for the picture the last are shown, or those from `first` on.
        bits: [T], minus the logarithm to base 2 of the probability of each token; NaN for the first, which nothing
            predicts.
        first: The first token to show.
        until: The token before which the picture ends.

    Raises:
        ValueError: `bits` doesn't fit the tokens.
    """
    found = Surprises.of(pieces, bits, text.encode())
    figure, shown = _figure(found, first, until)
    caption = _caption(found, shown, len(text))
    return Picture(canvas.to_png(figure, _foot(shown) + KEY), _alt(found), caption, "surprise.png", shown.tokens)


def _figure(found: Surprises, first: int | None, until: int | None) -> tuple[Figure, TokenLayout]:
    known = found.known
    subtitle = "One token: nothing predicts it."
    if known.size:
        total, mean = plain(float(known.sum())), plain(float(known.mean()))
        subtitle = f"{total} bits in all, {mean} per token, {number(found.per_byte)} per byte; perplexity "
        subtitle += plain(found.perplexity)
    figure = canvas.clear_figure("How surprising is each token?", subtitle)
    shown = token_layout.lay_out(figure, found.pieces[first:until], ROOM, keep_end=first is None)
    shown = shown.shifted(first or 0, len(found.pieces))
    axes = token_layout.axes_for(figure, shown, CORNER, ROOM)
    token_layout.draw(axes, shown, found.faces(shown), edges=_edges(found, shown))
    bar = (CORNER[0], canvas.HEIGHT - _foot(shown) - 0.3, 2.3, 0.13)
    colormaps.colorbar(figure, bar, colormaps.SURPRISE, (0, MAX_BITS), "bits", ticks=(0, 4, 8, 12, 16))
    _name_most(figure, found, shown)
    return figure, shown


def _foot(shown: TokenLayout) -> float:
    """Return the lower edge of the text, in inches from the top."""
    return CORNER[1] + shown.inches()


def _edges(found: Surprises, shown: TokenLayout) -> list[str | None]:
    """Return a blue frame for the most surprising tokens, a gray one for those without a prediction."""
    named = {unit.tokens.start for unit, _ in found.most(shown.tokens)}
    return [
        FRAME if block.unit.tokens.start in named else canvas.LINE if np.isnan(found.of_unit(block.unit)) else None
        for block in shown.blocks
    ]


def _name_most(figure: Figure, found: Surprises, shown: TokenLayout) -> None:
    axes = canvas.bare_axes(figure, (2.95, canvas.HEIGHT - _foot(shown) - KEY, 4.2, KEY - 0.05))
    if shown.hidden:
        text = _window(shown, len(found.pieces))
        canvas.draw_text(axes, 0, 0.05, text, color=canvas.MUTED)
    named = [f"{in_order(shorten(unit.label, NAME_CHARACTERS))} {bits:.1f}" for unit, bits in found.most(shown.tokens)]
    text = f"framed, most surprising: {BETWEEN.join(named)}" if named else "nothing surprising"
    canvas.draw_text(axes, 0, 0.24, canvas.truncate(figure, text, 4.2), color=canvas.INK)
    canvas.draw_text(axes, 0, 0.43, "n bits: as unlikely as n heads in a row", color=canvas.MUTED)


def _window(shown: TokenLayout, tokens: int) -> str:
    if shown.tokens.stop == tokens:
        return f"the last {len(shown.tokens)} of {tokens} tokens"
    return f"tokens {shown.tokens.start + 1} to {shown.tokens.stop} of {tokens}"


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


def _caption(found: Surprises, shown: TokenLayout, characters: int) -> tuple[Text, ...]:
    beyond = sum(found.of_unit(unit) > MAX_BITS for unit in units(found.pieces))
    counts = say("{tokens} tokens, {characters} characters.", tokens=len(found.pieces), characters=characters)
    notes = (*hidden_note(shown, len(found.pieces)), *shared_note(found.pieces), *direction_note(found.pieces))
    return (
        joined(counts, *_totals(found)),
        colour_scale(beyond),
        *([joined(*notes)] if notes else []),
    )


def _totals(found: Surprises) -> tuple[Text, ...]:
    if not found.known.size:
        return ()
    return (
        say(
            "{total} bits in all, {per_byte} per byte; perplexity {perplexity}.",
            total=plain(float(found.known.sum())),
            perplexity=plain(found.perplexity),
            per_byte=number(found.per_byte),
        ),
    )


def hidden_note(shown: TokenLayout, tokens: int) -> tuple[Text, ...]:
    """Say how much of a text is not shown, if any."""
    if not shown.hidden:
        return ()
    if shown.tokens.stop < tokens:
        return (
            say(
                "Showing tokens {first} to {last} of {tokens}; the numbers are of all.",
                first=shown.tokens.start + 1,
                last=shown.tokens.stop,
                tokens=tokens,
            ),
        )
    return (
        say(
            "Showing the last {shown} of {tokens} tokens; the numbers are of all.",
            shown=len(shown.tokens),
            tokens=tokens,
        ),
    )


def colour_scale(beyond: int = 0) -> Text:
    """Describe the colour scale, and count the tokens beyond it."""
    if not beyond:
        return say("Colour scale: 0–{most} bits.", most=number(MAX_BITS))
    return say("Colour scale: 0–{most} bits; clipped tokens: {beyond}.", most=number(MAX_BITS), beyond=beyond)


def shared_note(pieces: Sequence[bytes]) -> tuple[Text, ...]:
    """Explain the colour of characters of several tokens, where there are any."""
    if all(len(unit.tokens) == 1 for unit in units(pieces)):
        return ()
    return (say("A character of several tokens, marked at its foot, has the sum of their bits."),)
