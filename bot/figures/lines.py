"""Some dimensions of the positional embeddings, as lines over the positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bot.figures.drawing import canvas, captions
from bot.figures.drawing.picture import ALT_NAME_CHARACTERS, Array, Picture, Style, checked, filename, span
from bot.figures.drawing.summary import Summary, finite_only, summarize
from bot.figures.drawing.wording import listing, shorten
from bot.figures.positional import position_and_dimension
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND_WIDTH = 1.8  # inches beside the plotting area
MAX_IN_LEGEND = 16
MAX_NAMED = 3  # dimensions in a title or an alt text
MARKED = 20  # positions up to which each point is marked
LINE_STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True, slots=True)
class Lines:
    """Columns of `wpe` over a range of positions.

    Attributes:
        values: [positions, dimensions], infinities replaced by NaN.
        dims: The dimension of each column.
        positions: The position of each row.
        summary: Facts about the values.
    """

    values: Array
    dims: tuple[int, ...]
    positions: range
    summary: Summary

    @property
    def named(self) -> str:
        """The first dimensions by number: ``0, 1, 2``."""
        numbers = ", ".join(map(str, self.dims[:MAX_NAMED]))
        return numbers if len(self.dims) <= MAX_NAMED else f"{numbers}, …"


def positional_lines(
    values: Array, *, name: str, dims: Sequence[int], positions: range, dtype: str, style: Style
) -> Picture:
    """Draw dimensions of the positional embeddings, each as a line over the positions.

    Args:
        values: [positions, dimensions], one column for each of `dims`.
        name: The parameter's name in the state dict.
        dims: The dimensions that are shown, as the code counts them.
        positions: The positions that are shown.
        dtype: The type in which the parameter is stored.
        style: The look.

    Raises:
        ValueError: `values` is empty or does not fit `positions` and `dims`.
    """
    values = checked(values, positions, range(len(dims))).astype(np.float64)
    lines = Lines(finite_only(values), tuple(dims), positions, summarize(values))
    figure = _article_figure(lines) if style == "article" else _clear_figure(lines)
    picture_name = filename(f"{name}-dimensions-{'-'.join(map(str, dims))}", positions, style=style)
    return Picture(canvas.to_png(figure), _alt(lines, name), _caption(lines, name, dtype), picture_name)


def _article_figure(lines: Lines) -> Figure:
    title = f"Positional Embeddings (dimensions {lines.named})"
    figure, axes = canvas.article_figure(title, "Position", "Value")
    marker = "o" if len(lines.positions) == 1 else None
    for dimension, column in zip(lines.dims, lines.values.T, strict=True):
        axes.plot(lines.positions, column, marker=marker, label=f"Dimension {dimension}")
    axes.xaxis.set_major_locator(canvas.index_ticks(lines.positions))
    axes.legend(handles=axes.lines[:MAX_IN_LEGEND])
    return figure


def _clear_figure(lines: Lines) -> Figure:
    title = f"Positional embeddings: dimensions {lines.named}"
    subtitle = f"positions {span(lines.positions)}, values {captions.value_range(lines.summary)}"
    figure = canvas.clear_figure(title, subtitle)
    width = canvas.WIDTH - canvas.LEFT - LEGEND_WIDTH
    height = canvas.HEIGHT - canvas.BOTTOM - canvas.TOP
    axes = canvas.clear_axes(figure, (canvas.LEFT, canvas.BOTTOM, width, height), "position", "value")
    axes.axhline(0, color=canvas.LINE, linewidth=0.8)
    _plot(axes, lines)
    axes.xaxis.set_major_locator(canvas.index_ticks(lines.positions))
    return figure


def _plot(axes: Axes, lines: Lines) -> None:
    """Draw each dimension in its own colour and line style, and name them beside the axes."""
    few = len(lines.positions) <= MARKED
    handles = [
        axes.plot(
            lines.positions,
            column,
            color=canvas.CATEGORIES[index % len(canvas.CATEGORIES)],
            linestyle=LINE_STYLES[(index + index // len(canvas.CATEGORIES)) % len(LINE_STYLES)],
            marker=MARKERS[index % len(MARKERS)],
            markevery=1 if few else (index * 5, len(lines.positions) // 8),
            linewidth=1.6,
            markersize=5,
            label=f"Dimension {dimension}",
        )[0]
        for index, (dimension, column) in enumerate(zip(lines.dims, lines.values.T, strict=True))
    ]
    legend = axes.legend(
        handles=handles[:MAX_IN_LEGEND],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.02),
        frameon=False,
        labelcolor=canvas.INK,
        handlelength=2.4,
        title=f"first {MAX_IN_LEGEND} of {len(handles)}" if len(handles) > MAX_IN_LEGEND else None,
    )
    legend.get_title().set_color(canvas.MUTED)


def _caption(lines: Lines, name: str, dtype: str) -> tuple[Text, ...]:
    low_at, high_at = (
        position_and_dimension(lines.positions[row], lines.dims[column])
        for row, column in (lines.summary.low_at, lines.summary.high_at)
    )
    return (
        say(
            "{name}[{positions}], {dtype}: each line is one column, dimension {dims}.",
            name=name,
            positions=span(lines.positions),
            dtype=dtype,
            dims=", ".join(map(str, lines.dims)),
        ),
        captions.extremes(lines.summary, low_at, high_at),
        *captions.missing(lines.summary, say("left out")),
    )


def _alt(lines: Lines, name: str) -> Text:
    return say(
        "Lines of {name} over positions {positions}: {ranges}.",
        positions=span(lines.positions),
        name=shorten(name, ALT_NAME_CHARACTERS),
        ranges=listing(_ranges(lines)),
    )


def _ranges(lines: Lines) -> list[Text]:
    """Return the range of each of the first dimensions, and the number of further ones."""
    ranges = [
        say("dimension {dimension} {reach}", dimension=dimension, reach=captions.value_range(summarize(column)))
        for dimension, column in zip(lines.dims[:MAX_NAMED], lines.values.T, strict=False)
    ]
    more = len(lines.dims) - MAX_NAMED
    return [*ranges, say("{count} more", count=more)] if more > 0 else ranges
