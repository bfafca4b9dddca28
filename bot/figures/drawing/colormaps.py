"""Colormaps of one hue, in which brightness is the quantity, so that they are readable without colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize

from bot.figures.drawing import canvas
from bot.figures.drawing.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

LEVELS: Final = 127
LONG_BAR: Final = 1.8  # inches
EMPTY: Final = canvas.BACKGROUND  # no value: the future, or a token without a prediction

# Zero is a little brighter than the background, so that it differs from a missing value.
SHARE: Final[Colormap] = LinearSegmentedColormap.from_list(
    "share", ("#2e3138", "#1c4a78", "#2f86d6", "#93ccff", "#ffffff"), N=LEVELS, bad=EMPTY
)
SURPRISE: Final[Colormap] = LinearSegmentedColormap.from_list(
    "surprise", ("#33302e", "#69400f", "#c06f12", "#ffb648", "#fff3dc"), N=LEVELS, bad=EMPTY
)
KNOWN_BY_CONSTRUCTION: Final = "#5c5f66"  # gray: true of any model


def share_colours(values: ArrayLike) -> NDArray[np.floating]:
    """Return red, green, blue and opacity of shares from 0 to 1; NaN has the background's colour."""
    return np.asarray(SHARE(np.ma.masked_invalid(np.clip(np.asarray(values, np.float64), 0, 1))))


def surprise_colours(bits: ArrayLike, most: float) -> NDArray[np.floating]:
    """Return red, green, blue and opacity of bits from 0 to `most`; NaN has the background's colour."""
    return np.asarray(SURPRISE(np.ma.masked_invalid(np.clip(np.asarray(bits, np.float64) / most, 0, 1))))


def colorbar(
    figure: Figure,
    box: tuple[float, float, float, float],
    colormap: Colormap,
    reach: tuple[float, float],
    label: str,
    *,
    ticks: tuple[float, ...] = (),
) -> Axes:
    """Draw a colour bar at `box` = left, bottom, width, height in inches, horizontal or vertical as the box is."""
    axes = canvas.clear_axes(figure, box, "", "")
    lies = box[2] > box[3]
    gradient = np.linspace(*reach, LEVELS)
    axes.imshow(
        gradient[None, :] if lies else gradient[:, None],
        cmap=colormap,
        norm=Normalize(*reach),
        aspect="auto",
        origin="lower",
        extent=(*reach, 0, 1) if lies else (0, 1, *reach),
    )
    along, across = (axes.xaxis, axes.yaxis) if lies else (axes.yaxis, axes.xaxis)
    across.set_ticks([])
    at = ticks or (reach[0], sum(reach) / 2, reach[1])
    along.set_ticks(at, labels=[number(tick) for tick in at])
    if lies:
        axes.set_xlabel(label, color=canvas.INK, labelpad=1)
        axes.tick_params(axis="x", pad=1.5, length=2)
    else:
        axes.yaxis.tick_right()
        axes.set_title(label, color=canvas.INK, size=canvas.TEXT_POINTS, pad=9)
    return axes


def square_root_colorbar(figure: Figure, box: tuple[float, float, float, float], label: str) -> Axes:
    """Draw the colour bar of shares on a square-root scale."""
    axes = colorbar(figure, box, SHARE, (0.0, 1.0), label)
    along = axes.xaxis if box[2] > box[3] else axes.yaxis
    shares = (0, 0.01, 0.1, 0.5, 1) if max(box[2:]) > LONG_BAR else (0, 0.1, 1)
    along.set_ticks([share**0.5 for share in shares], labels=[f"{share:.0%}" for share in shares])
    return axes
