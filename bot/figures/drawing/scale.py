"""How a weight becomes a colour, and the sentence that says so."""

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
CLIP_FROM = 1000  # cells; among fewer, those that a percentile cuts are ones the reader looks at
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
        sentences: What the caption says about all this.
        missing: What the caption says of values that are not finite.
    """

    norm: Normalize
    colormap: Colormap
    ticks: tuple[float, ...]
    clips: bool
    sentences: tuple[Text, ...]
    missing: Text


def diverging(cells: Array) -> Scale:
    """Linear, centred on zero, clipped at a percentile of the magnitudes."""
    magnitudes = _magnitudes(cells)
    limit = _limit(magnitudes)
    return _centred(Normalize(-limit, limit), limit, limit / 2, magnitudes)


def stretched(cells: Array) -> Scale:
    """Like `diverging`, but compressed (asinh) where only the largest tenth of the cells is.

    A few dimensions of GPT-2's `wpe` are a hundred times as large as most; linear colour would show only them. Where
    the weights are of one size anyway, as in small models, nothing is gained and the colours stay linear.
    """
    magnitudes = _magnitudes(cells)
    limit = _limit(magnitudes)
    linear = max(limit * STRONGEST_STRETCH, float(np.percentile(magnitudes, LINEAR_PERCENTILE)))
    if linear > limit * WEAKEST_STRETCH:
        return diverging(cells)
    sentence = say("Colour is about linear up to ±{linear}, then compressed (asinh).", linear=number(linear))
    return _centred(AsinhNorm(linear, -limit, limit), limit, linear, magnitudes, sentence)


def cosine(cells: Array) -> Scale:
    """Linear from −1 to 1, whatever the cells are, so that pictures can be compared."""
    return _centred(Normalize(-1, 1), 1, 0.5, np.clip(_magnitudes(cells), 0, 1))


def full_range(summary: Summary) -> Scale:
    """Gray from the smallest weight (black) to the largest (white), as `imshow` does by itself."""
    low, high = limits(summary.low, summary.high)
    sentence = say(
        "Gray covers the full range, black {low} to white {high}: nothing is cut.",
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
    """Absolute values of the cells that are numbers, or a single zero when none is."""
    numbers = cells[~np.isnan(cells)]
    return np.abs(numbers) if numbers.size else np.zeros(1, cells.dtype)


def _limit(magnitudes: Array) -> float:
    """Where the colours end; 1 when all weights are zero."""
    largest = float(magnitudes.max())
    clip = float(np.percentile(magnitudes, CLIP_PERCENTILE)) if magnitudes.size >= CLIP_FROM else largest
    return next((limit for limit in (clip, largest) if limit > SMALLEST_LIMIT), 1.0)


def _limit_sentence(limit: float, cut: float) -> Text:
    if not cut:
        return say("Colours end at ±{limit}: nothing is cut.", limit=number(limit))
    return say(
        "Colours end at ±{limit} ({percentile}% of the magnitudes are below): {share} of what is drawn lies"
        " beyond and has the end colour.",
        limit=number(limit),
        percentile=CLIP_PERCENTILE,
        share=percent(cut),
    )
