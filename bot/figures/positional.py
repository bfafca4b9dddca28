"""The positional embeddings `wpe` as a heatmap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bot.figures.drawing import captions
from bot.figures.drawing.canvas import to_png
from bot.figures.drawing.heatmap import Heatmap, draw_article, draw_clear
from bot.figures.drawing.picture import Array, Picture, Slice, Style
from bot.figures.drawing.scale import stretched
from bot.figures.drawing.wording import by, number
from bot.text import Text, say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRONGEST = 3  # dimensions named in the caption


def positional_heatmap(
    values: Array, *, name: str, rows: range, columns: range, shape: tuple[int, int], dtype: str, style: Style
) -> Picture:
    """Draw the positional embedding matrix as a heatmap.

    Args:
        values: [positions, dimensions].
        name: The parameter's name in the state dict.
        rows: The positions that are shown.
        columns: The dimensions that are shown.
        shape: The whole parameter's shape.
        dtype: The type in which it is stored.
        style: The look.

    Raises:
        ValueError: `values` is empty or does not fit `rows` and `columns`.
    """
    part = Slice(name, rows, columns, shape, dtype, style)
    heatmap = Heatmap.of(values, part, stretched)
    caption = heatmap.caption(position_and_dimension, *_notes(heatmap))
    return Picture(to_png(_figure(heatmap)), _alt(heatmap), caption, part.filename)


def position_and_dimension(position: int, dimension: int) -> Text:
    """Return the name of a place in the positional embeddings."""
    return say("position {position}, dimension {dimension}", position=position, dimension=dimension)


def _figure(heatmap: Heatmap) -> Figure:
    if heatmap.part.style == "article":
        return draw_article(heatmap, "Positional Embedding Matrix", "Embedding Dimension", "Position")
    title = f"Positional embeddings: wpe{heatmap.part.bracket}"
    return draw_clear(heatmap, title, heatmap.subtitle, "embedding dimension", "position")


def _notes(heatmap: Heatmap) -> list[Text]:
    """Name the strongest dimensions and compare position 0 with the rest, where there are several."""
    magnitudes = np.ma.masked_invalid(np.abs(heatmap.values))
    rows, columns = heatmap.part.rows, heatmap.part.columns
    notes = []
    if len(columns) > STRONGEST:
        order = np.argsort(magnitudes.mean(axis=0).filled(0), kind="stable")[::-1]
        strongest = ", ".join(str(columns[index]) for index in order[:STRONGEST])
        notes.append(say("Largest mean magnitude: dimensions {dimensions}.", dimensions=strongest))
    if rows.start == 0 and len(rows) > 1:
        first, rest = (float(np.ma.filled(part.mean(), np.nan)) for part in (magnitudes[0], magnitudes[1:]))
        notes.append(
            say(
                "Mean magnitude: {first} at position 0, {rest} elsewhere.",
                first=number(first),
                rest=number(rest),
            )
        )
    return notes


def _alt(heatmap: Heatmap) -> Text:
    return say(
        "Heatmap of the positional embeddings {slice}, {shape} (positions by dimensions),"
        " {reach}; half of the values are within ±{median}.",
        slice=heatmap.part.bracket,
        shape=by(len(heatmap.part.rows), len(heatmap.part.columns)),
        reach=captions.value_range(heatmap.summary),
        median=number(_median_magnitude(heatmap.values)),
    )


def _median_magnitude(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(np.abs(finite))) if finite.size else float("nan")
