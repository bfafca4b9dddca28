"""One-dimensional parameters: biases and the weights of layer norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FixedLocator, StrMethodFormatter

from bot.figures.drawing import canvas, captions
from bot.figures.drawing.picture import ALT_NAME_CHARACTERS, Array, Picture, Style, checked, filename, span
from bot.figures.drawing.summary import Summary, finite_only, limits, summarize
from bot.figures.drawing.wording import joined, number, shorten
from bot.figures.heads import PARTS
from bot.text import Text, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

STEMS = 48  # values up to which each gets a stem
BINS = 48
HISTOGRAM_WIDTH, GAP, RIGHT = 1.35, 0.14, 0.2  # inches
LARGEST = 3  # values that are named
TITLE_NAME_CHARACTERS = 46
LABEL_SPACE = (0.12, 0.05)  # shares of the axes' width and height that a label takes
NEAR_RIGHT_EDGE = 0.88


@dataclass(frozen=True, slots=True)
class Vector:
    """A range of a one-dimensional parameter, with its statistics.

    Attributes:
        name: The parameter's name in the state dict.
        values: [positions], infinities replaced by NaN.
        positions: The code's index of each value.
        length: How many values the whole parameter has.
        summary: Facts about the values.
        mean: Mean of the finite values.
        std: Their standard deviation.
        largest: Where the largest magnitudes are, as the code counts, largest first.
    """

    name: str
    values: Array
    positions: range
    length: int
    summary: Summary
    mean: float
    std: float
    largest: tuple[int, ...]

    @classmethod
    def of(cls, values: Array, name: str, positions: range, length: int) -> Vector:
        """Check and summarize `values` [positions]."""
        values = finite_only(checked(values, positions).astype(np.float64))
        summary = summarize(values)
        finite = values[np.isfinite(values)]
        mean, std = (float(finite.mean()), float(finite.std())) if finite.size else (np.nan, np.nan)
        order = np.argsort(-np.abs(values), kind="stable")  # NaN comes last
        named = 0 if summary.is_constant else min(LARGEST, finite.size)
        largest = tuple(positions[index] for index in order[:named])
        return cls(name, values, positions, length, summary, mean, std, largest)

    @property
    def is_few(self) -> bool:
        """Return whether there are so few values that each gets a stem."""
        return len(self.values) <= STEMS

    @property
    def has_histogram(self) -> bool:
        """Return whether there are enough finite values for a distribution."""
        return len(self.values) - self.summary.missing > STEMS

    @property
    def has_thirds(self) -> bool:
        """Return whether this is the bias of `c_attn`, whose thirds belong to Q, K and V."""
        return self.name.endswith("c_attn.bias") and self.length % len(PARTS) == 0

    @property
    def parts(self) -> list[tuple[str, range]]:
        """The shown positions of Q, K and V; for any other parameter all of them, without a label."""
        if not self.has_thirds:
            return [("", self.positions)]
        third = self.length // len(PARTS)
        shown = [
            (part, range(max(self.positions.start, i * third), min(self.positions.stop, (i + 1) * third)))
            for i, part in enumerate(PARTS)
        ]
        return [(part, positions) for part, positions in shown if positions]

    @property
    def limits(self) -> tuple[float, float]:
        """Limits of the value axis: all finite values and a margin."""
        low, high = self.summary.low, self.summary.high
        if self.is_few:  # stems begin at zero
            low, high = min(0, low), max(0, high)
        low, high = limits(low, high)
        margin = (high - low) * 0.07
        return low - margin, high + margin


def vector(values: Array, *, name: str, positions: range, length: int, dtype: str, style: Style) -> Picture:
    """Draw a one-dimensional parameter: its values over their index, and their distribution.

    Args:
        values: [positions].
        name: The parameter's name in the state dict.
        positions: The indices that are shown, as the code counts them.
        length: How many values the whole parameter has.
        dtype: The type in which it is stored.
        style: The look.

    Raises:
        ValueError: `values` is empty or does not fit `positions`.
    """
    shown = Vector.of(values, name, positions, length)
    figure = _article_figure(shown) if style == "article" else _clear_figure(shown)
    picture_name = filename(name, positions, style=style)
    return Picture(canvas.to_png(figure), _alt(shown), _caption(shown, dtype), picture_name)


def _article_figure(shown: Vector) -> Figure:
    figure, axes = canvas.article_figure(_title(shown), "Index", "Value")
    axes.plot(shown.positions, shown.values, marker="o" if len(shown.values) == 1 else None)
    axes.set_ylim(shown.limits)
    axes.xaxis.set_major_locator(canvas.index_ticks(shown.positions))
    return figure


def _clear_figure(shown: Vector) -> Figure:
    subtitle = f"mean {number(shown.mean)}, standard deviation {number(shown.std)}"
    figure = canvas.clear_figure(_title(shown), subtitle)
    width = canvas.WIDTH - canvas.LEFT - RIGHT - (GAP + HISTOGRAM_WIDTH if shown.has_histogram else 0)
    height = canvas.HEIGHT - canvas.BOTTOM - canvas.TOP - (canvas.HEADROOM if shown.has_thirds else 0)
    axes = canvas.clear_axes(figure, (canvas.LEFT, canvas.BOTTOM, width, height), "index", "value")
    _plot(axes, shown)
    _name_largest(axes, shown)
    if shown.has_histogram:
        box = (canvas.LEFT + width + GAP, canvas.BOTTOM, HISTOGRAM_WIDTH, height)
        _histogram(canvas.clear_axes(figure, box, "how many", ""), shown)
    return figure


def _plot(axes: Axes, shown: Vector) -> None:
    """Draw each value as a point, with a stem when there are few, and the mean as a dashed line."""
    axes.set_xlim(
        shown.positions.start - 1 - len(shown.positions) / 60, shown.positions.stop + len(shown.positions) / 60
    )
    axes.set_ylim(shown.limits)
    axes.axhline(shown.mean, color=canvas.LINE, linewidth=1, linestyle="--")
    size = min(6.0, max(2.0, 90 / len(shown.values) ** 0.5))
    for (part, positions), colour in zip(shown.parts, canvas.CATEGORIES, strict=False):
        start = positions.start - shown.positions.start
        values = shown.values[start : start + len(positions)]
        if shown.is_few:
            axes.vlines(positions, 0, values, color=colour, linewidth=1.5)
        axes.plot(positions, values, "o", color=colour, markersize=size, markeredgewidth=0)
        if part:
            canvas.label_above(axes, part, positions)
        if positions.start > shown.positions.start:
            axes.axvline(positions.start - 0.5, color=canvas.INK, linewidth=0.9, zorder=1)
    axes.xaxis.set_major_locator(canvas.index_ticks(shown.positions))


def _name_largest(axes: Axes, shown: Vector) -> None:
    """Ring the largest magnitudes and label them with their index, where labels do not collide."""
    named: list[NDArray[np.float64]] = []
    for index in shown.largest:
        point = (index, float(shown.values[index - shown.positions.start]))
        place = axes.transLimits.transform(point)  # as shares of the axes' width and height
        axes.plot(*point, "o", markersize=8, markerfacecolor="none", markeredgecolor=canvas.INK)
        if any((np.abs(place - other) < LABEL_SPACE).all() for other in named):
            continue
        named.append(place)
        axes.annotate(
            str(index),
            point,
            xytext=(7, 0) if place[0] < NEAR_RIGHT_EDGE else (-7, 0),
            textcoords="offset points",
            ha="left" if place[0] < NEAR_RIGHT_EDGE else "right",
            va="center",
            color=canvas.INK,
            size=canvas.TEXT_POINTS,
            bbox={"facecolor": canvas.BACKGROUND, "edgecolor": "none", "pad": 0.5},
            zorder=1.5,  # above the border between thirds, below the points
        )


def _histogram(axes: Axes, shown: Vector) -> None:
    """Draw a histogram on the value axis of the plot beside it; the counts are logarithmic."""
    axes.hist(
        shown.values[np.isfinite(shown.values)],
        bins=BINS,
        range=shown.limits,
        orientation="horizontal",
        color=canvas.CATEGORIES[0],
    )
    axes.set_xscale("log")
    axes.set_xlim(0.7, max(12, axes.get_xlim()[1]))
    axes.xaxis.set_major_locator(FixedLocator([1, 10, 100, 1000, 10_000]))
    axes.set_ylim(shown.limits)
    axes.tick_params(axis="y", labelleft=False)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.minorticks_off()


def _title(shown: Vector) -> str:
    return f"{shorten(shown.name, TITLE_NAME_CHARACTERS)}[{span(shown.positions)}]"


def _caption(shown: Vector, dtype: str) -> tuple[Text, ...]:
    low_at, high_at = (
        say("index {index}", index=shown.positions[at[0]]) for at in (shown.summary.low_at, shown.summary.high_at)
    )
    origin = say(
        "{name}[{positions}]: {count} of {length} values, {dtype}.",
        name=shown.name,
        positions=span(shown.positions),
        count=len(shown.positions),
        length=shown.length,
        dtype=dtype,
    )
    thirds = [say("The thirds are the biases of Q, K and V.")] if shown.has_thirds else []
    return (
        joined(origin, *thirds),
        captions.extremes(shown.summary, low_at, high_at),
        *_statistics(shown),
        *captions.missing(shown.summary, say("left out")),
    )


def _statistics(shown: Vector) -> tuple[Text, ...]:
    """Return mean, standard deviation and the largest magnitudes, unless they are meaningless."""
    if shown.summary.missing == shown.summary.size or shown.summary.is_constant:
        return ()
    largest = ", ".join(f"{index} ({number(shown.values[index - shown.positions.start])})" for index in shown.largest)
    return (
        joined(
            say("Mean {mean}, standard deviation {std}.", mean=number(shown.mean), std=number(shown.std)),
            say("Largest magnitudes at index {largest}.", largest=largest),
        ),
    )


def _alt(shown: Vector) -> Text:
    return say(
        "Plot of {name}[{positions}]: {reach}; mean {mean}, standard deviation {std}.",
        name=shorten(shown.name, ALT_NAME_CHARACTERS),
        positions=span(shown.positions),
        reach=captions.value_range(shown.summary),
        mean=number(shown.mean),
        std=number(shown.std),
    )
