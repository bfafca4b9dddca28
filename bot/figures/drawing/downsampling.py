"""Downsampling of matrices with more weights than the picture has pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bot.figures.drawing.wording import by
from bot.text import Text, say

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bot.figures.drawing.picture import Array

PIXELS = (600, 1100)
"""Rows and columns of cells at most: about the pixels of the plotting area, less what keeps the PNG light."""


@dataclass(frozen=True, slots=True)
class Downsampled:
    """A matrix as it is drawn.

    Attributes:
        cells: [ceil(rows / block[0]), ceil(columns / block[1])] in float64: means of blocks, or the weights themselves.
        block: Rows and columns of weights in one cell; the last row and column of cells may hold fewer.
    """

    cells: NDArray[np.floating]
    block: tuple[int, int]

    @property
    def is_whole(self) -> bool:
        """Return whether every weight has a cell of its own."""
        return self.block == (1, 1)

    def sentences(self) -> tuple[Text, ...]:
        """Describe a cell, where it is more than one weight."""
        if self.is_whole:
            return ()
        return (say("Each cell is the mean of {block} weights.", block=by(*self.block)),)


def downsample(values: Array, most: tuple[int, int] = PIXELS) -> Downsampled:
    """Average `values` [rows, columns] over the smallest blocks that make them fit into `most`.

    Means keep structure (waves over positions, large columns) and suppress noise; the caption gives the extremes of
    the weights themselves. A block with a NaN is NaN, so that it shows.
    """
    block = (-(-values.shape[0] // most[0]), -(-values.shape[1] // most[1]))
    cells = values
    for axis, length in enumerate(block):
        if length > 1:
            cells = _means(cells, length, axis)
    return Downsampled(cells.astype(np.float64), block)


def _means(values: Array, length: int, axis: int) -> Array:
    starts = np.arange(0, values.shape[axis], length)
    counts = np.diff(np.append(starts, values.shape[axis]))
    sums = np.add.reduceat(values, starts, axis=axis, dtype=np.float64)
    means: Array = sums / (counts[:, None] if axis == 0 else counts)
    return means
