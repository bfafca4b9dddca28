"""Induction heads: they attend to the token after an earlier occurrence of the same one (Olsson et al., 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from bot.figures.attention_maps import checked_maps, colour_scale, without_future
from bot.figures.drawing import canvas, colormaps
from bot.figures.drawing.picture import Picture
from bot.text import Text, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array

SCORES: Final = (0.58, 0.62, 2.75, 3.32)  # left, bottom, width, height in inches
MAP: Final = (3.98, 0.62, 2.6, 3.32)
BAR: Final = (6.68, 0.62, 0.12, 3.32)
MARK: Final = "#ff7a2f"
TICKS: Final = 12
STRONG: Final = 0.4  # a score from which a head is called an induction head


def induction(stripe: Array, *, scores: Array, layer: int, head: int, length: int) -> Picture:
    """Draw every head's induction score, and the best head's attention on repeated random tokens.

    Args:
        stripe: [T, T], the best head's attention on `length` random tokens repeated twice; T is `2 * length`, or one
            more where another token stands before them.
        scores: [layers, heads], each head's mean attention, in the second half, on the token after the earlier
            occurrence of the same one.
        layer: The best head's layer, counted from 1.
        head: The best head, counted from 1.
        length: How many tokens are repeated.

    Raises:
        ValueError: The arrays don't fit.
    """
    size = len(stripe)
    seen = without_future(checked_maps(stripe, 2, size))
    if length < 1 or size not in {2 * length, 2 * length + 1}:
        raise ValueError(f"{length} tokens repeated twice do not make {size}")
    if scores.ndim != 2 or not (1 <= layer <= scores.shape[0] and 1 <= head <= scores.shape[1]):  # noqa: PLR2004
        raise ValueError(f"scores of shape {scores.shape} without layer {layer}, head {head}")
    best = float(scores[layer - 1, head - 1])
    return Picture(
        canvas.to_png(_figure(seen, scores, layer, head, length)),
        say(
            "Induction: layer {layer}, head {head} puts {share} of its attention on the token after the earlier"
            " occurrence; the median of {heads} heads is {median}.",
            layer=layer,
            head=head,
            share=f"{best:.0%}",
            heads=scores.size,
            median=f"{np.nanmedian(scores):.1%}" if np.isfinite(scores).any() else "–",
        ),
        _caption(scores, best, layer, head, length),
        "induction.png",
    )


def _figure(seen: Array, scores: Array, layer: int, head: int, length: int) -> Figure:
    best = scores[layer - 1, head - 1]
    figure = canvas.clear_figure(
        "Which heads continue what they have seen before?",
        f"{length} random tokens, then the same again: best is layer {layer}, head {head} with {best:.0%}",
    )
    _draw_scores(canvas.clear_axes(figure, SCORES, "head", "layer"), scores, layer, head)
    axes = canvas.clear_axes(figure, MAP, f"… layer {layer}, head {head} looks at position", "position …")
    axes.imshow(colormaps.share_colours(np.sqrt(seen)), interpolation="nearest", aspect="auto")
    _mark_stripe(axes, len(seen), length)
    axes.xaxis.set_major_locator(canvas.index_ticks(range(len(seen))))
    axes.yaxis.set_major_locator(canvas.index_ticks(range(len(seen))))
    axes.locator_params(nbins=5) if len(seen) > canvas.FEW else None
    colormaps.square_root_colorbar(figure, BAR, "")
    return figure


def _draw_scores(axes: Axes, scores: Array, layer: int, head: int) -> None:
    layers, heads = scores.shape
    axes.imshow(
        colormaps.share_colours(np.sqrt(scores)),
        interpolation="nearest",
        aspect="auto",
        extent=(0.5, heads + 0.5, layers + 0.5, 0.5),
    )
    axes.plot(head, layer, "s", color="none", markeredgecolor=MARK, markersize=13, markeredgewidth=2)
    for axis, count in ((axes.xaxis, heads), (axes.yaxis, layers)):
        axis.set_major_locator(canvas.index_ticks(range(1, count + 1)))
    axes.tick_params(length=0, pad=2)


def _mark_stripe(axes: Axes, size: int, length: int) -> None:
    """Mark the stripe with two lines: from each token of the second half to the one after its first occurrence."""
    first = size - length
    rows = np.array([first - 0.5, size - 0.5])
    for side in (-1.5, 1.5):
        axes.plot(rows - length + 1 + side, rows, color=MARK, linewidth=1.3, linestyle=(0, (4, 3)))
    axes.axhline(first - 0.5, color=canvas.LINE, linewidth=0.8, linestyle=":")
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    key = "dashed: right\nafter the same\ntoken before"
    canvas.draw_text(axes, 0.97, 0.94, key, ha="right", va="top", color=MARK, transform=axes.transAxes)


def _caption(scores: Array, best: float, layer: int, head: int, length: int) -> tuple[Text, ...]:
    strong = int((scores >= STRONG).sum())
    return (
        say(
            "{length} random tokens, repeated once. In the second half, an induction head attends to the token after"
            " the earlier occurrence: the dashed stripe.",
            length=length,
        ),
        say(
            "Left: that share for each head. Best: layer {layer}, head {head} with {share}; {strong} of {heads} heads"
            " reach {least}.",
            layer=layer,
            head=head,
            share=f"{best:.1%}",
            strong=strong,
            heads=scores.size,
            least=f"{STRONG:.0%}",
        ),
        colour_scale(),
    )
