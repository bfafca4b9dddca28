"""All heads of all layers as one image: a tile a head, a row of tiles a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.patches import Rectangle

from bot.figures.drawing import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bot.figures.drawing.picture import Array

GUTTER: Final = 3  # pixels between tiles, one of Discord's preview
WIDEST: Final = 2.0  # width of a tile for one of height
LABEL_EVERY: Final = 0.17  # inches that a number on an axis needs


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The layout of the tiles, in pixels of the picture.

    Attributes:
        layers: Rows of tiles.
        heads: Columns of tiles.
        tile: Height and width of a tile.
        left: The left edge, from the left.
        top: The upper edge, from the top.
    """

    layers: int
    heads: int
    tile: tuple[int, int]
    left: int
    top: int

    @classmethod
    def within(cls, layers: int, heads: int, box: tuple[float, float, float, float]) -> Mosaic:
        """Fit the largest tiles into a box = left, top, width, height in inches, from its upper left.

        A tile is as wide as it is high, or up to `WIDEST` times as wide where that fills the box.
        """
        left, top, width, height = (round(inches * canvas.DPI) for inches in box)
        wide = max(1, (width + GUTTER) // heads - GUTTER)
        high = max(1, min((height + GUTTER) // layers - GUTTER, wide))
        return cls(layers, heads, (high, min(wide, int(WIDEST * high))), left, top)

    @property
    def pitch(self) -> tuple[int, int]:
        """Pixels from one tile to the next, down and across."""
        return self.tile[0] + GUTTER, self.tile[1] + GUTTER

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.heads * self.pitch[1] - GUTTER, self.layers * self.pitch[0] - GUTTER

    @property
    def right_inches(self) -> float:
        """The right edge of the mosaic, in inches from the left."""
        return (self.left + self.size[0]) / canvas.DPI

    @property
    def bottom_inches(self) -> float:
        """The lower edge of the mosaic, in inches from the top."""
        return (self.top + self.size[1]) / canvas.DPI

    def draw(self, figure: Figure, colours: NDArray[np.floating]) -> Axes:
        """Put the tiles [layers, heads, *tile, 3 or 4] on the figure, numbered from 1 along both sides."""
        width, height = self.size
        image = np.empty((height, width, 3))
        image[:] = canvas.rgb(canvas.BACKGROUND)
        for layer, head in np.ndindex(self.layers, self.heads):
            y, x = layer * self.pitch[0], head * self.pitch[1]
            image[y : y + self.tile[0], x : x + self.tile[1]] = colours[layer, head, ..., :3]
        across, down = canvas.WIDTH * canvas.DPI, canvas.HEIGHT * canvas.DPI
        axes = figure.add_axes(
            (self.left / across, 1 - (self.top + height) / down, width / across, height / down),
            facecolor=canvas.BACKGROUND,
        )
        axes.imshow(image, interpolation="nearest", aspect="auto", extent=(0, width, height, 0))
        axes.set_frame_on(False)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(colors=canvas.INK, labelsize=canvas.TEXT_POINTS, length=0, pad=2)
        for axis, count, pitch, side in zip(
            (axes.yaxis, axes.xaxis), (self.layers, self.heads), self.pitch, self.tile, strict=True
        ):
            numbers = _numbers(count, pitch / canvas.DPI)
            axis.set_ticks([(n - 1) * pitch + side / 2 for n in numbers], labels=[str(n) for n in numbers])
        axes.set_xlabel("head", color=canvas.MUTED, labelpad=1, size=canvas.TEXT_POINTS)
        axes.set_ylabel("layer", color=canvas.MUTED, labelpad=1, size=canvas.TEXT_POINTS)
        return axes

    def mark(self, axes: Axes, layer: int, head: int, colour: str, letter: str = "") -> None:
        """Frame a tile (counted from 0), with a letter in its upper right corner, where causal attention is empty."""
        x, y = head * self.pitch[1], layer * self.pitch[0]
        high, wide = self.tile
        axes.add_patch(
            Rectangle((x - 1, y - 1), wide + 2, high + 2, fill=False, edgecolor=colour, linewidth=1.6)
        ).set_clip_on(False)
        if letter:
            canvas.draw_text(
                axes, x + wide - 4, y + 3, letter, color=colour, ha="right", va="top", weight="bold", zorder=4
            )


def tiles_of(weights: Array, tile: tuple[int, int]) -> Array:
    """Resample matrices [layers, heads, T, T] to tiles [layers, heads, *tile], each pixel a mean by area.

    A pixel of a small matrix lies within one cell and has its value; at the edges, and where there are more tokens
    than pixels, cells mix by area. The background shows through NaN.
    """
    down, across = (_areas(weights.shape[-1], side) for side in tile)
    there = np.isfinite(weights)
    known = down @ there.astype(np.float32) @ across.T
    sums = down @ np.where(there, weights, 0).astype(np.float32) @ across.T
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = np.where(known >= 0.5, sums / known, np.nan)  # noqa: PLR2004  at least half of the pixel
    return means


def _areas(cells: int, pixels: int) -> NDArray[np.float32]:
    """Return the share of each pixel that each cell covers along one side, [pixels, cells]."""
    edges = np.arange(pixels + 1) * cells / pixels
    starts, stops = edges[:-1, None], edges[1:, None]
    index = np.arange(cells)
    overlap = np.minimum(stops, index + 1) - np.maximum(starts, index)
    shares: NDArray[np.floating] = np.clip(overlap, 0, None) / (stops - starts)
    return shares.astype(np.float32)


def _numbers(count: int, inches: float) -> list[int]:
    """Return the numbers from 1 to `count` that fit where each has so many inches."""
    step = next((step for step in (1, 2, 4, 6, 8, 12) if step * inches >= LABEL_EVERY), 12)
    return [n for n in range(1, count + 1) if step == 1 or n % step == 0]
