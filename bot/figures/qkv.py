"""The whole of `c_attn`, divided into the heads of Q, K and V, with the root mean square of each head."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from bot.figures.drawing import canvas
from bot.figures.drawing.heatmap import Heatmap, draw_colorbar
from bot.figures.drawing.picture import Picture, Slice
from bot.figures.drawing.wording import listing, number
from bot.figures.heads import PARTS, head_spans
from bot.figures.weights import cell
from bot.text import Text, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array
    from bot.figures.heads import HeadSpan

LEFT: Final = 0.72
WIDTH: Final = 5.62
MAP: Final = (LEFT, 1.62, WIDTH, 2.12)  # left, bottom, width, height in inches
BARS: Final = (LEFT, 0.56, WIDTH, 0.98)
COLOURS: Final = dict(zip(PARTS, canvas.CATEGORIES, strict=False))
HATCHES: Final = {"Q": "", "K": "///", "V": "..."}


def attention_heads(values: Array, *, name: str, layer: int, width: int, heads: int, dtype: str) -> Picture:
    """Draw all of `c_attn` with the borders of its heads, and the root mean square of each head's weights.

    Args:
        values: [width, 3*width = Q|K|V].
        name: The parameter's name in the state dict.
        layer: Counted from 1.
        width: The model's width, d_model.
        heads: How many heads a layer has.
        dtype: The type in which the parameter is stored.

    Raises:
        ValueError: `values` is not the whole matrix, or the heads don't divide it.
    """
    columns = range(len(PARTS) * width)
    spans = head_spans(columns, width, heads)
    heatmap = Heatmap.of(values, Slice(name, range(width), columns, (width, len(columns)), dtype, "clear"))
    sizes = np.array([_root_mean_square(values[:, span.columns.start : span.columns.stop]) for span in spans])
    caption = heatmap.caption(cell, *_notes(layer, spans, sizes))
    figure = _figure(heatmap, layer, spans, sizes)
    return Picture(canvas.to_png(figure), _alt(layer, spans, sizes), caption, f"layer-{layer}-attention-heads.png")


def _root_mean_square(values: Array) -> float:
    """Return the root mean square of the finite values, in float64; NaN where there is none."""
    known = values[np.isfinite(values)].astype(np.float64)
    return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")


def _figure(heatmap: Heatmap, layer: int, spans: list[HeadSpan], sizes: Array) -> Figure:
    figure = canvas.clear_figure(
        f"Layer {layer}: the heads in Q, K and V", f"{heatmap.part.name}, and the root mean square of each head"
    )
    axes = canvas.clear_axes(figure, MAP, "", "input dim.")
    image = axes.imshow(
        np.ma.masked_invalid(heatmap.downsampled.cells),
        cmap=heatmap.scale.colormap,
        norm=heatmap.scale.norm,
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, heatmap.part.columns.stop - 0.5, heatmap.part.rows.stop - 0.5, -0.5),
    )
    axes.set_xticks([])
    axes.yaxis.set_major_locator(canvas.index_ticks(heatmap.part.rows))
    bars = canvas.clear_axes(figure, BARS, "head", "RMS")
    bars.set_xlim(axes.get_xlim())
    _draw_bars(figure, bars, spans, sizes)
    for before, after in pairwise(spans):
        strong = before.part != after.part
        for each in (axes, bars):
            each.axvline(
                after.columns.start - 0.5,
                color=canvas.INK if strong else canvas.LINE,
                linewidth=1.8 if strong else 0.6,
            )
    third = heatmap.part.columns.stop // len(PARTS)
    for index, part in enumerate(PARTS):
        canvas.label_above(axes, part, range(index * third, (index + 1) * third))
    draw_colorbar(figure, image, heatmap.scale, (LEFT + WIDTH + 0.14, MAP[1], 0.14, MAP[3]))
    return figure


def _draw_bars(figure: Figure, axes: Axes, spans: list[HeadSpan], sizes: Array) -> None:
    for span, size in zip(spans, np.nan_to_num(sizes), strict=True):
        middle = (span.columns.start + span.columns.stop - 1) / 2
        axes.bar(
            middle,
            size,
            width=len(span.columns) * 0.8,
            facecolor=COLOURS[span.part],
            hatch=HATCHES[span.part],
            edgecolor=canvas.BACKGROUND,
            linewidth=0,
        )
    axes.set_ylim(0, float(np.nan_to_num(sizes).max()) * 1.15 or 1.0)
    axes.locator_params(axis="y", nbins=3)
    heads = len(spans) // len(PARTS)
    each = WIDTH / len(spans)
    step = next(step for step in (1, 2, 4, 8, 100) if canvas.text_width(figure, "00") + 0.02 <= each * step)
    numbered = [span for span in spans if step == 1 or span.head % step == 0 or heads == 1]
    axes.set_xticks([(span.columns.start + span.columns.stop - 1) / 2 for span in numbered])
    axes.set_xticklabels([str(span.head) for span in numbered])
    axes.tick_params(axis="x", length=0, pad=2)


def _extremes(spans: list[HeadSpan], sizes: Array) -> list[Text]:
    """Return the largest and the smallest head of each of Q, K and V."""
    found = []
    for part in PARTS:
        of = [(size, span.head) for span, size in zip(spans, sizes, strict=True) if span.part == part]
        known = [pair for pair in of if np.isfinite(pair[0])]
        if known:
            (low, smallest), (high, largest) = min(known), max(known)
            found.append(
                say(
                    "{part} from {low} (head {smallest}) to {high} (head {largest})",
                    part=part,
                    low=number(low),
                    smallest=smallest,
                    high=number(high),
                    largest=largest,
                )
            )
    return found


def _notes(layer: int, spans: list[HeadSpan], sizes: Array) -> tuple[Text, ...]:
    found = _extremes(spans, sizes)
    return (
        say(
            "Layer {layer} (h.{index} in the code): {heads} heads of {width} columns in each of Q, K and V.",
            layer=layer,
            index=layer - 1,
            heads=len(spans) // len(PARTS),
            width=spans[0].width,
        ),
        *([say("Root mean square: {parts}.", parts=listing(found))] if found else []),
    )


def _alt(layer: int, spans: list[HeadSpan], sizes: Array) -> Text:
    found = _extremes(spans, sizes)
    return say(
        "Layer {layer}, weights of {heads} heads. Root mean square: {parts}.",
        layer=layer,
        heads=len(spans) // len(PARTS),
        parts=listing(found or [say("no finite value")]),
    )
