"""Token labels along an axis, staggered in tiers so that none is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from matplotlib.transforms import blended_transform_factory

from bot.figures.drawing import canvas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPACING: Final = 0.152  # inches from one label to the next in a tier
PADDING: Final = 0.06


def tiers_for(count: int, inches: float) -> int:
    """Return the number of tiers for `count` labels that share `inches`."""
    return max(1, -(-int(SPACING * count * 1000) // int(inches * 1000)))


def label_rows(axes: Axes, figure: Figure, labels: Sequence[str], depth: float, tiers: int) -> None:
    """Write a label left of each row, in tiers of `depth` inches, with a line to those farther away."""
    width = axes.get_position().width * canvas.WIDTH
    across = blended_transform_factory(axes.transAxes, axes.transData)
    for row, label in enumerate(labels):
        away = row % tiers * depth + PADDING
        shown = canvas.truncate(figure, label, depth - PADDING)
        canvas.draw_text(axes, -away / width, row, shown, ha="right", transform=across)
        if away > PADDING:
            axes.plot(
                [0, -away / width + PADDING / 2 / width],
                [row, row],
                color=canvas.LINE,
                linewidth=0.6,
                transform=across,
                clip_on=False,
            )


def label_columns(
    axes: Axes, figure: Figure, labels: Sequence[str], depth: float, tiers: int, *, upright: bool
) -> None:
    """Write a label under each column, horizontal or `upright`, in tiers of `depth` inches."""
    height = axes.get_position().height * canvas.HEIGHT
    each = axes.get_position().width * canvas.WIDTH / len(labels)
    down = blended_transform_factory(axes.transData, axes.transAxes)
    for column, label in enumerate(labels):
        away = column % tiers * depth + PADDING
        shown = canvas.truncate(figure, label, depth - PADDING if upright else each - PADDING / 2)
        canvas.draw_text(
            axes,
            column,
            -away / height,
            shown,
            ha="center",
            va="top",
            rotation=90 if upright else 0,
            transform=down,
        )
        if away > PADDING:
            axes.plot(
                [column, column],
                [0, -away / height + PADDING / 2 / height],
                color=canvas.LINE,
                linewidth=0.6,
                transform=down,
                clip_on=False,
            )
