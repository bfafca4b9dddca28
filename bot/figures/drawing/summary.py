"""Summaries of arrays: true extremes with their places, and the number of missing values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bot.figures.drawing.picture import Array

SMALLEST_SPREAD = 1e-6  # of the magnitude


@dataclass(frozen=True, slots=True)
class Summary:
    """Facts about all values of an array, computed before any downsampling or clipping.

    Attributes:
        low: The smallest finite value, NaN when there is none.
        high: The largest finite value, NaN when there is none.
        low_at: Index of the first smallest value, one number per axis.
        high_at: Index of the first largest value, one number per axis.
        size: The number of values.
        missing: The number of them that are NaN or infinite.
    """

    low: float
    high: float
    low_at: tuple[int, ...]
    high_at: tuple[int, ...]
    size: int
    missing: int

    @property
    def is_constant(self) -> bool:
        """Return whether all finite values are the same."""
        return self.low == self.high


def finite_only(values: Array) -> Array:
    """Return the array with NaN in place of infinities."""
    infinite = np.isinf(values)
    return np.where(infinite, np.nan, values) if infinite.any() else values


def limits(low: float, high: float) -> tuple[float, float]:
    """Return limits for an axis or a scale: `low` and `high`, moved apart where they (almost) coincide."""
    if np.isnan(low) or np.isnan(high):
        return 0.0, 1.0
    if high - low > SMALLEST_SPREAD * max(abs(low), abs(high)):
        return low, high
    half = max(abs(low), abs(high)) / 2 or 0.5
    return low - half, high + half


def summarize(values: Array) -> Summary:
    """Summarize `values` ([n] or [rows, columns], at least one), ignoring what is not finite."""
    values = finite_only(values)
    missing = int(np.count_nonzero(np.isnan(values)))
    if missing == values.size:
        origin = (0,) * values.ndim
        return Summary(np.nan, np.nan, origin, origin, values.size, missing)
    lowest, highest = (np.nanargmin(values), np.nanargmax(values)) if missing else (values.argmin(), values.argmax())
    low_at, high_at = (tuple(int(i) for i in np.unravel_index(at, values.shape)) for at in (lowest, highest))
    return Summary(float(values[low_at]), float(values[high_at]), low_at, high_at, values.size, missing)
