"""A two-dimensional slice as a heatmap, in both styles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bot.figures.drawing import canvas, captions
from bot.figures.drawing.downsampling import Downsampled, downsample
from bot.figures.drawing.scale import Scale, diverging, full_range
from bot.figures.drawing.summary import Summary, finite_only, summarize
from bot.figures.drawing.wording import joined, number, printed, shorten
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from bot.figures.drawing.picture import Array, Slice

TITLE_NAME_CHARACTERS = 46
MAX_CELL = 1.3  # inches, so that a slice of one row is a strip and one of one weight a square
MIN_BAR_LENGTH = 2.0  # inches
CHARACTER_WIDTH = 0.092  # inches of a digit at 10 points, with padding
ARTICLE_LIMIT = (4096, 4096)  # imshow smooths by itself; only larger matrices are downsampled first
SQUARE_CELLS_UP_TO = 4  # the ratio of sides beyond which square cells would make a thin strip


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A slice with its summary and scale, ready to draw.

    Attributes:
        part: Where the values come from.
        values: [rows, columns], infinities replaced by NaN.
        summary: Facts about the values.
        downsampled: The values as drawn.
        scale: The colours of what is drawn.
    """

    part: Slice
    values: Array
    summary: Summary
    downsampled: Downsampled
    scale: Scale

    @classmethod
    def of(cls, values: Array, part: Slice, fit: Callable[[Array], Scale] = diverging) -> Heatmap:
        """Check, summarize, downsample and scale `values` [rows, columns]; `fit` makes the clear style's scale."""
        values = part.take(values)
        summary = summarize(values)
        values = finite_only(values)
        if part.style == "article":
            return cls(part, values, summary, downsample(values, ARTICLE_LIMIT), full_range(summary))
        downsampled = downsample(values)
        return cls(part, values, summary, downsampled, fit(downsampled.cells))

    @property
    def title(self) -> str:
        """The parameter's name, cut where it is long, and the slice."""
        return shorten(self.part.name, TITLE_NAME_CHARACTERS) + self.part.bracket

    @property
    def subtitle(self) -> str:
        """The range of the weights and, if they are too many to draw each, what a cell is."""
        reach = say("Values: {reach}.", reach=captions.value_range(self.summary))
        return " ".join(map(str, (reach, *self.downsampled.sentences())))

    def caption(self, place: Callable[[int, int], Text], *notes: Text) -> tuple[Text, ...]:
        """Return the caption: parameter and slice, `notes`, true extremes, and the scale.

        `place` names a row and a column, given as the code's indices.
        """
        low_at, high_at = (
            place(self.part.rows[row], self.part.columns[column])
            for row, column in (self.summary.low_at, self.summary.high_at)
        )
        return (
            captions.origin(self.part),
            *([joined(*notes)] if notes else []),
            captions.extremes(self.summary, low_at, high_at),
            joined(
                *self.scale.sentences,
                *self.downsampled.sentences(),
                *captions.missing(self.summary, self.scale.missing),
            ),
        )


def draw_article(heatmap: Heatmap, title: str, x: str, y: str) -> Figure:
    """Draw the tutorial's `imshow(values, cmap="gray")`, with a colour bar."""
    figure, axes = canvas.article_figure(title, x, y)
    rows, columns = heatmap.values.shape
    square = 1 / SQUARE_CELLS_UP_TO <= rows / columns <= SQUARE_CELLS_UP_TO
    image = _show(axes, heatmap, aspect="equal" if square else "auto", interpolation="auto")
    figure.colorbar(image, ax=axes)
    return figure


def draw_clear(heatmap: Heatmap, title: str, subtitle: str, x: str, y: str, headroom: float = 0) -> Figure:
    """Draw the slice on the dark canvas, with `headroom` inches between the headline and the cells."""
    figure = canvas.clear_figure(title, subtitle)
    left, bottom, width, height = _box(heatmap.values.shape, headroom)
    axes = canvas.clear_axes(figure, (left, bottom, width, height), x, y)
    image = _show(axes, heatmap, aspect="auto", interpolation="nearest")
    _print_values(axes, heatmap)
    bar = max(height, MIN_BAR_LENGTH)
    draw_colorbar(figure, image, heatmap.scale, (left + width + 0.16, bottom + (height - bar) / 2, 0.14, bar))
    return figure


def _box(shape: tuple[int, ...], headroom: float) -> tuple[float, float, float, float]:
    """Return left, bottom, width and height in inches: all the room, or less for few rows or columns."""
    most_width = canvas.WIDTH - canvas.LEFT - canvas.RIGHT
    most_height = canvas.HEIGHT - canvas.BOTTOM - canvas.TOP - headroom
    width, height = min(most_width, shape[1] * MAX_CELL), min(most_height, shape[0] * MAX_CELL)
    return canvas.LEFT + (most_width - width) / 2, canvas.BOTTOM + (most_height - height) / 2, width, height


def _show(axes: Axes, heatmap: Heatmap, *, aspect: Literal["equal", "auto"], interpolation: str) -> AxesImage:
    """Draw the image on axes with the code's indices."""
    rows, columns = heatmap.part.rows, heatmap.part.columns
    height, width = (n * b for n, b in zip(heatmap.downsampled.cells.shape, heatmap.downsampled.block, strict=True))
    image = axes.imshow(
        np.ma.masked_invalid(heatmap.downsampled.cells),
        cmap=heatmap.scale.colormap,
        norm=heatmap.scale.norm,
        aspect=aspect,
        interpolation=interpolation,
        extent=(columns.start - 0.5, columns.start - 0.5 + width, rows.start - 0.5 + height, rows.start - 0.5),
    )
    axes.set_xlim(columns.start - 0.5, columns.stop - 0.5)  # the last block may be only partly filled
    axes.set_ylim(rows.stop - 0.5, rows.start - 0.5)
    axes.xaxis.set_major_locator(canvas.index_ticks(columns))
    axes.yaxis.set_major_locator(canvas.index_ticks(rows))
    return image


def _print_values(axes: Axes, heatmap: Heatmap) -> None:
    """Print each weight in its cell where there are few, and name the unit."""
    cells, scale, part = heatmap.downsampled.cells, heatmap.scale, heatmap.part
    if max(cells.shape) > canvas.FEW:
        return
    inches = axes.get_position().width * canvas.WIDTH / cells.shape[1]
    texts, unit = printed(cells, int(inches / CHARACTER_WIDTH))
    colours = scale.colormap(scale.norm(np.ma.masked_invalid(cells)))
    for (row, column), text in zip(np.ndindex(cells.shape), texts, strict=True):
        axes.text(
            part.columns[column],
            part.rows[row],
            text,
            color=canvas.contrasting_colour(colours[row, column]),
            size=canvas.TEXT_POINTS,
            ha="center",
            va="center",
        )
    if unit != 1:
        axes.set_xlabel(f"{axes.get_xlabel()}   (printed in units of {number(unit)})")


def draw_colorbar(figure: Figure, image: AxesImage, scale: Scale, box: tuple[float, float, float, float]) -> None:
    """Draw the colour bar of an image at `box` = left, bottom, width, height in inches."""
    axes = canvas.clear_axes(figure, box, "", "")
    bar = figure.colorbar(image, cax=axes, extend="both" if scale.clips else "neither")
    bar.outline.set_edgecolor(canvas.LINE)
    bar.set_ticks(list(scale.ticks), labels=[number(float(f"{tick:.2g}")) for tick in scale.ticks])
    bar.minorticks_off()
