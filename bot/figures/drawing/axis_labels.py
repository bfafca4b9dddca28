"""Token labels along an axis: as many lanes of them as it takes for each to be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matplotlib.transforms import blended_transform_factory

from bot.figures.drawing import canvas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDED: Final = 0.152  # inches from one label to the next in a lane
AIR: Final = 0.06


def lanes_for(count: int, inches: float) -> int:
    """How many lanes labels take where `count` of them share `inches`."""
    return max(1, -(-int(NEEDED * count * 1000) // int(inches * 1000)))


def label_rows(axes: Axes, figure: Figure, labels: Sequence[str], lane: float, lanes: int) -> None:
    """Write a label left of each row, in lanes of so many inches, with a line to those that stand farther away."""
    width = axes.get_position().width * canvas.WIDTH
    across = blended_transform_factory(axes.transAxes, axes.transData)
    for row, label in enumerate(labels):
        away = row % lanes * lane + AIR
        shown = canvas.cut_to(figure, label, lane - AIR)
        canvas.put(axes, -away / width, row, shown, ha="right", transform=across)
        if away > AIR:
            axes.plot(
                [0, -away / width + AIR / 2 / width],
                [row, row],
                color=canvas.LINE,
                linewidth=0.6,
                transform=across,
                clip_on=False,
            )


def label_columns(axes: Axes, figure: Figure, labels: Sequence[str], lane: float, lanes: int, *, upright: bool) -> None:
    """Write a label under each column: lying where it fits, else turned, in lanes of so many inches."""
    height = axes.get_position().height * canvas.HEIGHT
    each = axes.get_position().width * canvas.WIDTH / len(labels)
    down = blended_transform_factory(axes.transData, axes.transAxes)
    for column, label in enumerate(labels):
        away = column % lanes * lane + AIR
        shown = canvas.cut_to(figure, label, lane - AIR if upright else each - AIR / 2)
        canvas.put(
            axes,
            column,
            -away / height,
            shown,
            ha="center",
            va="top",
            rotation=90 if upright else 0,
            transform=down,
        )
        if away > AIR:
            axes.plot(
                [column, column],
                [0, -away / height + AIR / 2 / height],
                color=canvas.LINE,
                linewidth=0.6,
                transform=down,
                clip_on=False,
            )
