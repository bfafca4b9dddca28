"""The tutorial's picture of attention: a slice of `c_attn`, whose columns are Q, K and V."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np

from bot.figures.drawing import canvas, captions
from bot.figures.drawing.heatmap import Heatmap, draw_article, draw_clear
from bot.figures.drawing.picture import Array, Picture, Slice, Style
from bot.figures.drawing.wording import number
from bot.figures.heads import HeadSpan, describe, head_spans
from bot.figures.weights import cell
from bot.text import Text, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHARACTER_WIDTH = 0.085  # inches of an average letter at 10 points


def attention_slice(
    values: Array,
    *,
    name: str,
    layer: int,
    rows: range,
    columns: range,
    width: int,
    heads: int,
    dtype: str,
    style: Style,
) -> Picture:
    """Draw a slice of `c_attn` [width, 3*width = Q|K|V] as a heatmap, divided into heads.

    Args:
        values: [rows, columns].
        name: The parameter's name in the state dict.
        layer: The layer's number, counted from 1.
        rows: The rows (dimensions of the layer's input) that are shown.
        columns: The columns (outputs) that are shown.
        width: The model's width, d_model.
        heads: How many heads a layer has.
        dtype: The type in which the parameter is stored.
        style: The look.

    Raises:
        ValueError: `values` is empty or does not fit `rows` and `columns`, or these not the matrix.
    """
    part = Slice(name, rows, columns, (width, 3 * width), dtype, style)
    spans = head_spans(columns, width, heads)
    heatmap = Heatmap.of(values, part)
    caption = heatmap.caption(cell, _layer(layer), describe(spans), *_extreme_heads(heatmap, spans))
    return Picture(canvas.to_png(_figure(heatmap, layer, spans)), _alt(heatmap, layer, spans), caption, part.filename)


def _figure(heatmap: Heatmap, layer: int, spans: list[HeadSpan]) -> Figure:
    if heatmap.part.style == "article":
        return draw_article(heatmap, f"Attention Matrix (Layer {layer})", "Column", "Row")
    title = f"Layer {layer} attention weights: c_attn{heatmap.part.bracket}"
    x, y = "column (output)", "row (input dimension)"
    figure = draw_clear(heatmap, title, str(_reach(spans)), x, y, canvas.HEADROOM)
    _mark_heads(figure.axes[0], spans)
    return figure


def _mark_heads(axes: Axes, spans: list[HeadSpan]) -> None:
    """Draw a border between heads, a stronger one between Q, K and V, and as many labels as fit."""
    for before, after in pairwise(spans):
        width = 2.2 if before.part != after.part else 0.9 if len(spans) <= canvas.FEW else 0.4
        axes.axvline(after.columns.start - 0.5, color=canvas.INK, linewidth=width)
    inches_per_column = axes.get_position().width * canvas.WIDTH / sum(len(span.columns) for span in spans)
    for label, columns in _labels(spans, inches_per_column):
        canvas.label_above(axes, label, columns)


def _labels(spans: list[HeadSpan], inches_per_column: float) -> list[tuple[str, range]]:
    """Return the labels above the columns: "Q head 1", else "Q1", else "Q", whichever fits the widest span."""

    def fits(label: str, columns: range) -> bool:
        return len(label) * CHARACTER_WIDTH <= len(columns) * inches_per_column

    for template in ("{} head {}", "{}{}"):
        labels = [(template.format(span.part, span.head), span.columns) for span in spans]
        fitting = [(label, columns) for label, columns in labels if fits(label, columns)]
        if len(fitting) >= len(spans) - 2:  # the first and the last may be cut too narrow
            return fitting
    parts = [[span.columns for span in of] for _, of in groupby(spans, key=lambda span: span.part)]
    names = dict.fromkeys(span.part for span in spans)
    return [(name, range(of[0].start, of[-1].stop)) for name, of in zip(names, parts, strict=True)]


def _reach(spans: list[HeadSpan]) -> Text:
    if spans[0].part == spans[-1].part:
        return describe(spans)
    return say("From {first} to {last}.", first=_head(spans[0]), last=_head(spans[-1]))


def _layer(layer: int) -> Text:
    return say(
        "Layer {layer} (h.{index} in the code): rows are the layer's input, columns its Q, K and V.",
        layer=layer,
        index=layer - 1,
    )


def _extreme_heads(heatmap: Heatmap, spans: list[HeadSpan]) -> tuple[Text, ...]:
    """Name the heads with the largest and the smallest mean magnitude, where there are two or more."""
    magnitudes = _mean_magnitudes(heatmap, spans)
    if len(spans) == 1 or np.isnan(magnitudes).any():
        return ()
    loudest, quietest = int(np.argmax(magnitudes)), int(np.argmin(magnitudes))
    return (
        say(
            "Mean magnitude: largest in {loudest} ({high}), smallest in {quietest} ({low}).",
            loudest=_head(spans[loudest]),
            high=number(magnitudes[loudest]),
            quietest=_head(spans[quietest]),
            low=number(magnitudes[quietest]),
        ),
    )


def _mean_magnitudes(heatmap: Heatmap, spans: list[HeadSpan]) -> list[float]:
    """Return the mean magnitude of each span, NaN where a weight is not finite."""
    start = heatmap.part.columns.start
    return [
        float(np.abs(heatmap.values[:, span.columns.start - start : span.columns.stop - start]).mean())
        for span in spans
    ]


def _head(span: HeadSpan) -> Text:
    return say("{part} head {head}", part=span.part, head=span.head)


def _alt(heatmap: Heatmap, layer: int, spans: list[HeadSpan]) -> Text:
    return say(
        "Layer {layer} attention weights {slice}, {first} to {last}: {reach}. {loudest}",
        layer=layer,
        slice=heatmap.part.bracket,
        first=_head(spans[0]),
        last=_head(spans[-1]),
        reach=captions.value_range(heatmap.summary),
        loudest=next(iter(_extreme_heads(heatmap, spans)), ""),
    )
