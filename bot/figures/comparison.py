"""Two prompts side by side: next-token probabilities, surprise and the difference of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import ListedColormap

from bot.figures.attention_maps import MAX_HEAD_TOKENS, direction_note, without_future
from bot.figures.drawing import canvas, colormaps
from bot.figures.drawing.mosaic import Mosaic, tiles_of
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.scale import Scale, diverging
from bot.figures.drawing.tokens import token_label
from bot.figures.drawing.wording import joined, listing, percent, shorten
from bot.figures.side_by_side import COLOURS, LEFT, Bars, MarkedText, draw_texts, mean_bits
from bot.figures.surprise import Surprises, colour_scale, shared_note
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array
    from bot.figures.drawing.token_layout import TokenLayout

NAMES: Final = ("A", "B")
MAX_CANDIDATES: Final = 6
CHANGED: Final = 3  # heads that are named
NARROW: Final = 3.85  # inches left of the mosaic
WIDE: Final = canvas.WIDTH - 2 * LEFT
TILES: Final = (4.72, 1.12, 2.5, 2.6)
FRAME: Final = "#ffffff"
SAME: Final = "#2e3138"  # the darkest colour of a tile, so that no difference still differs from the unseen future


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two prompts, ready to draw.

    Attributes:
        texts: The two, with their surprise.
        labels: [k], of the candidates.
        probabilities: [2, k].
        difference: [L, H, T, T], NaN for the future, or None.
    """

    texts: tuple[Surprises, Surprises]
    labels: list[str]
    probabilities: Array
    difference: Array | None

    @property
    def width(self) -> float:
        """Inches for everything but attention."""
        return WIDE if self.difference is None else NARROW

    @property
    def changed(self) -> list[tuple[int, int, float]]:
        """The heads that differ most: layer and head (counted from 0), and the share of attention that moved."""
        if self.difference is None:
            return []
        moved = np.nansum(np.abs(self.difference), axis=-1).mean(axis=-1) / 2
        order = np.argsort(-moved, axis=None, kind="stable")[:CHANGED]
        places = [(int(at // moved.shape[1]), int(at % moved.shape[1])) for at in order]
        return [(layer, head, float(moved[layer, head])) for layer, head in places if moved[layer, head] > 0]


def compare(
    *,
    first: Sequence[bytes],
    second: Sequence[bytes],
    candidates: Sequence[bytes],
    probabilities: Array,
    first_bits: Array,
    second_bits: Array,
    difference: Array | None,
) -> Picture:
    """Draw next-token probabilities, surprise and the difference of attention of two prompts.

    Args:
        first: The first prompt's tokens, A.
        second: The second prompt's, B.
        candidates: The next tokens that are compared; the first `MAX_CANDIDATES` are shown.
        probabilities: [2, candidates].
        first_bits: [tokens of A], NaN for the first.
        second_bits: [tokens of B].
        difference: [layers, heads, T, T], the attention of B less that of A, where both have T tokens, else None.

    Raises:
        ValueError: The arrays don't fit together.
    """
    texts = (Surprises.of(first, first_bits), Surprises.of(second, second_bits))
    if probabilities.shape != (2, len(candidates)) or not candidates:
        raise ValueError(f"{len(candidates)} candidates with probabilities {probabilities.shape}")
    if difference is not None:
        tokens = len(first)
        if len(second) != tokens or difference.ndim != 4 or difference.shape[2:] != (tokens, tokens):  # noqa: PLR2004
            raise ValueError(f"a difference {difference.shape} for {tokens} and {len(second)} tokens")
        difference = without_future(difference.astype(np.float32, copy=False))
    labels = [token_label(piece) for piece in candidates[:MAX_CANDIDATES]]
    found = Comparison(texts, labels, probabilities[:, :MAX_CANDIDATES].astype(np.float64), difference)
    figure, height, shown, scale = _figure(found)
    return Picture(canvas.to_png(figure, height), _alt(found), _caption(found, shown, scale), "comparison.png")


def _figure(found: Comparison) -> tuple[Figure, float, list[TokenLayout], Scale | None]:
    """Return the figure with its height, the layouts of the texts and the scale of the difference."""
    means = [mean_bits(text) for text in found.texts]
    figure = canvas.clear_figure("Two prompts compared", f"surprise: A {means[0]}, B {means[1]} bits per token")
    bars = Bars(found.labels, found.probabilities, ("next after A", "next after B"))
    top = bars.draw(figure, found.width) + 0.2
    texts = [MarkedText(text, name, colour) for text, name, colour in zip(found.texts, NAMES, COLOURS, strict=True)]
    shown, height = draw_texts(figure, texts, top, found.width)
    scale = None
    if found.difference is not None:
        scale, foot = _draw_difference(figure, found, found.difference)
        height = max(height, foot)
    return figure, height, shown, scale


def _draw_difference(figure: Figure, found: Comparison, difference: Array) -> tuple[Scale, float]:
    """Draw the mosaic of B − A, orange where B has more; return the scale and its lower edge, inches from the top."""
    layers, heads = difference.shape[:2]
    mosaic = Mosaic.within(layers, heads, TILES)
    tiles = tiles_of(difference, mosaic.tile)
    scale = diverging(difference)
    each = scale.colormap(np.linspace(0, 1, scale.colormap.N))[:, :3]
    colormap = ListedColormap(np.maximum(each, canvas.rgb(SAME))).with_extremes(bad=canvas.BACKGROUND)
    axes = mosaic.draw(figure, np.asarray(colormap(scale.norm(np.ma.masked_invalid(tiles)))))
    for layer, head, _ in found.changed:
        mosaic.mark(axes, layer, head, FRAME)
    low, high = scale.ticks[0], scale.ticks[-1]
    bar = colormaps.colorbar(
        figure,
        (TILES[0] + 0.15, canvas.HEIGHT - mosaic.bottom_inches - 0.25, mosaic.size[0] / canvas.DPI - 0.4, 0.11),
        colormap,
        (low, high),
        "attention of B − A",
        ticks=(low, 0.0, high),
    )
    bar.set_xticks([low, 0, high], labels=[f"−{high:.1%}", "0", f"+{high:.1%}"])
    return scale, mosaic.bottom_inches + 0.68


def _alt(found: Comparison) -> Text:
    likely = [
        say(
            "{name} {token} {share}",
            name=name,
            token=shorten(found.labels[int(np.nanargmax(shares))], 24),
            share=percent(float(np.nanmax(shares))),
        )
        for name, shares in zip(NAMES, found.probabilities, strict=True)
    ]
    return say(
        "Two prompts compared. Likeliest next token: {tokens}. Surprise: A {first}, B {second} bits per token.",
        tokens=listing(likely),
        first=mean_bits(found.texts[0]),
        second=mean_bits(found.texts[1]),
    )


def _caption(found: Comparison, shown: Sequence[TokenLayout], scale: Scale | None) -> tuple[Text, ...]:
    pieces = [*found.texts[0].pieces, *found.texts[1].pieces]
    notes = (*_hidden_notes(found, shown), *shared_note(pieces), *direction_note(pieces))
    return (
        say("Bars: next-token probabilities after the first prompt (A, plain) and the second (B, hatched)."),
        joined(
            say(
                "Surprise of the prompts: A {first}, B {second} bits per token.",
                first=mean_bits(found.texts[0]),
                second=mean_bits(found.texts[1]),
            ),
            colour_scale(),
        ),
        joined(*_difference_sentences(found, scale)),
        *([joined(*notes)] if notes else []),
    )


def _hidden_notes(found: Comparison, shown: Sequence[TokenLayout]) -> tuple[Text, ...]:
    """Name the prompts of which only the end is shown."""
    return tuple(
        say(
            "Showing the last {shown} of {tokens} tokens of {prompt}; the numbers are of all.",
            prompt=name,
            shown=len(end.tokens),
            tokens=len(text.pieces),
        )
        for name, text, end in zip(NAMES, found.texts, shown, strict=True)
        if end.hidden
    )


def _difference_sentences(found: Comparison, scale: Scale | None) -> tuple[Text, ...]:
    if scale is None:
        first, second = (len(text.pieces) for text in found.texts)
        if first == second:
            return (say("Attention is compared only for 2 to {most} tokens.", most=MAX_HEAD_TOKENS),)
        return (
            say(
                "Attention is compared only for equally many tokens: A has {first}, B {second}.",
                first=first,
                second=second,
            ),
        )
    changed = [
        say("layer {layer}, head {head} ({share})", layer=layer + 1, head=head + 1, share=f"{share:.0%}")
        for layer, head, share in found.changed
    ]
    most = [say("Framed: the most changed, {heads}.", heads=listing(changed))] if changed else []
    return (
        say("Right: attention of B − A for each head, orange more, blue less."),
        *most,
        *scale.sentences,
    )
