"""Any two-dimensional parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.figures.drawing import captions
from bot.figures.drawing.canvas import to_png
from bot.figures.drawing.heatmap import Heatmap, draw_article, draw_clear
from bot.figures.drawing.picture import Array, Picture, Slice, Style
from bot.figures.drawing.wording import by
from bot.text import Text, say

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def matrix(
    values: Array, *, name: str, rows: range, columns: range, shape: tuple[int, int], dtype: str, style: Style
) -> Picture:
    """Draw a slice of a matrix as a heatmap.

    Args:
        values: [rows, columns].
        name: The parameter's name in the state dict.
        rows: The rows that are shown, as the code counts them.
        columns: The columns that are shown, as the code counts them.
        shape: The whole parameter's shape.
        dtype: The type in which it is stored.
        style: The look.

    Raises:
        ValueError: `values` is empty or does not fit `rows` and `columns`.
    """
    heatmap = Heatmap.of(values, Slice(name, rows, columns, shape, dtype, style))
    return Picture(to_png(_figure(heatmap)), _alt(heatmap), heatmap.caption(cell), heatmap.part.filename)


def cell(row: int, column: int) -> Text:
    """Return the name of a place in a matrix."""
    return say("row {row}, column {column}", row=row, column=column)


def _figure(heatmap: Heatmap) -> Figure:
    if heatmap.part.style == "article":
        return draw_article(heatmap, heatmap.title, "Column", "Row")
    return draw_clear(heatmap, heatmap.title, heatmap.subtitle, "column", "row")


def _alt(heatmap: Heatmap) -> Text:
    return say(
        "Heatmap of {name}: {shape} weights, {reach}.",
        name=heatmap.part.alt_name,
        shape=by(len(heatmap.part.rows), len(heatmap.part.columns)),
        reach=captions.value_range(heatmap.summary),
    )
