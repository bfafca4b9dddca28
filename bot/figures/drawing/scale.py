"""Colour scales of weights, and the sentences that describe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import AsinhNorm, Colormap, LinearSegmentedColormap, Normalize

from bot.figures.drawing.summary import limits
from bot.figures.drawing.wording import number, percent
from bot.text import Text, say

if TYPE_CHECKING:
    from bot.figures.drawing.picture import Array
    from bot.figures.drawing.summary import Summary

CLIP_PERCENTILE = 99
LINEAR_PERCENTILE = 90
CLIP_FROM = 1000  # cells; readers look at each of fewer
STRONGEST_STRETCH = 1 / 20  # of the limit
WEAKEST_STRETCH = 1 / 3
SMALLEST_LIMIT = 1e-30

# Dark in the middle, so that brightness is magnitude; blue and orange stay apart without red and green.
STOPS = ("#a8d4ff", "#4f9ff0", "#27548c", "#1e1f22", "#8a4614", "#f08a2a", "#ffd08a")
LEVELS = 127  # half of a palette: the other half is for the smooth edges of text
MISSING_IN_CLEAR = "#ffffff"
MISSING_IN_ARTICLE = "#d62728"


@dataclass(frozen=True, slots=True)
class Scale:
    """A colour scale fitted to the cells of a picture.

    Attributes:
        norm: Maps a weight to 0…1.
        colormap: Maps 0…1 to a colour, and NaN to one that no weight has.
        ticks: The weights to mark on the colour bar, from the lower colour limit to the upper.
        clips: Whether there are cells beyond the limits.
        sentences: Describe the scale in the caption.
        missing: How values that are not finite are drawn, for the caption.
    """

    norm: Normalize
    colormap: Colormap
    ticks: tuple[float, ...]
    clips: bool
    sentences: tuple[Text, ...]
    missing: Text


def diverging(cells: Array) -> Scale:
    """Fit a linear scale, centred on zero and clipped at a percentile of the magnitudes."""
    magnitudes = _magnitudes(cells)
    limit = _limit(magnitudes)
    return _centred(Normalize(-limit, limit), limit, limit / 2, magnitudes)


def stretched(cells: Array) -> Scale:
    """Fit a scale like `diverging`, but compressed (asinh) for the largest tenth of the cells.

    A few dimensions of GPT-2's `wpe` are a hundred times as large as most; a linear scale would show only them. Where
    the weights are of one size, as in small models, the scale stays linear.
    """
    magnitudes = _magnitudes(cells)
    limit = _limit(magnitudes)
    linear = max(limit * STRONGEST_STRETCH, float(np.percentile(magnitudes, LINEAR_PERCENTILE)))
    if linear > limit * WEAKEST_STRETCH:
        return diverging(cells)
    sentence = say("Linear up to about ±{linear}, then asinh.", linear=number(linear))
    return _centred(AsinhNorm(linear, -limit, limit), limit, linear, magnitudes, sentence)


def cosine(cells: Array) -> Scale:
    """Fit a linear scale from −1 to 1, so that pictures can be compared."""
    return _centred(Normalize(-1, 1), 1, 0.5, np.clip(_magnitudes(cells), 0, 1))


def full_range(summary: Summary) -> Scale:
    """Fit gray from the smallest weight (black) to the largest (white), as `imshow` does by default."""
    low, high = limits(summary.low, summary.high)
    sentence = say(
        "Colour scale: {low} (black) to {high} (white), nothing clipped.",
        low=number(low),
        high=number(high),
    )
    gray = colormaps["gray"].with_extremes(bad=MISSING_IN_ARTICLE)
    missing = say("drawn in red")
    return Scale(Normalize(low, high), gray, (low, high), clips=False, sentences=(sentence,), missing=missing)


def _centred(norm: Normalize, limit: float, inner: float, magnitudes: Array, *sentences: Text) -> Scale:
    cut = float(np.mean(magnitudes > limit))
    return Scale(
        norm,
        LinearSegmentedColormap.from_list("weights", STOPS, N=LEVELS, bad=MISSING_IN_CLEAR),
        ticks=(-limit, -inner, 0.0, inner, limit),
        clips=cut > 0,
        sentences=(_limit_sentence(limit, cut), *sentences),
        missing=say("drawn in white"),
    )


def _magnitudes(cells: Array) -> Array:
    """Return the magnitudes of the cells that are not NaN, or a single zero if all are."""
    numbers = cells[~np.isnan(cells)]
    return np.abs(numbers) if numbers.size else np.zeros(1, cells.dtype)


def _limit(magnitudes: Array) -> float:
    """Return the limit of the colours; 1 if all weights are zero."""
    largest = float(magnitudes.max())
    clip = float(np.percentile(magnitudes, CLIP_PERCENTILE)) if magnitudes.size >= CLIP_FROM else largest
    return next((limit for limit in (clip, largest) if limit > SMALLEST_LIMIT), 1.0)


def _limit_sentence(limit: float, cut: float) -> Text:
    if not cut:
        return say("Colour scale: ±{limit}, nothing clipped.", limit=number(limit))
    return say(
        "Colour scale: ±{limit} ({percentile}th percentile of magnitudes), {share} clipped.",
        limit=number(limit),
        percentile=CLIP_PERCENTILE,
        share=percent(cut),
    )
