"""The attention of one head on one text, with every token labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from bot.figures.attention_maps import (
    KINDS,
    MAX_HEAD_TOKENS,
    Kind,
    Sink,
    checked_maps,
    colour_scale,
    direction_note,
    left_out_note,
    sink_sentence,
    sink_shares,
    without_future,
    without_sink,
)
from bot.figures.drawing import canvas, colormaps
from bot.figures.drawing.axis_labels import label_columns, label_rows, tiers_for
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import token_labels
from bot.figures.drawing.wording import joined
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array

PRINTED: Final = 16  # tokens up to which the values are printed
TOP: Final = 0.7  # inches for the headline
RIGHT: Final = 0.82  # inches for the colour bar
EDGE: Final = 0.12
LONGEST: Final = 1.3  # inches of a label in a single tier
SHORTER: Final = 0.7  # inches of a label where there are several tiers
HIGHEST_CELL: Final = 0.42
LOWEST: Final = 1.3  # inches of a map of two or three tokens
TITLE_ROOM: Final = 0.2  # inches for the name of an axis


@dataclass(frozen=True, slots=True)
class Head:
    """The attention of one head, ready to draw.

    Attributes:
        shown: [T, T] or, without the sink, [T - 1, T - 1]; NaN for the future.
        labels: Of the tokens that are shown.
        layer: Counted from 1.
        head: Counted from 1.
        sink: Whether the first token is shown.
        share: Mean attention on the first token, NaN for a single token.
        habits: The mean attention on the previous token, the same and the first, the strongest first.
    """

    shown: Array
    labels: list[str]
    layer: int
    head: int
    sink: Sink
    share: float
    habits: list[tuple[Kind, float]]

    @property
    def title(self) -> str:
        """The head's name, counted from 1."""
        return f"Layer {self.layer}, head {self.head}"


def attention_head(
    weights: Array, *, pieces: Sequence[bytes], layer: int, head: int, sink: Sink, left_out: int = 0
) -> Picture:
    """Draw the attention of one head as a map with labelled rows and columns.

    Args:
        weights: [T, T], rows attend to columns, each row sums to 1.
        pieces: The T tokens' bytes, at most `MAX_HEAD_TOKENS`.
        layer: Counted from 1.
        head: Counted from 1.
        sink: Whether to show the attention on the first token.
        left_out: Earlier tokens of the prompt, which the model was not given.

    Raises:
        ValueError: The array doesn't fit the tokens, they are too many, or the first is to be removed from a text of
            one.
    """
    if len(pieces) > MAX_HEAD_TOKENS:
        raise ValueError(f"{len(pieces)} tokens cannot be labelled, only {MAX_HEAD_TOKENS}")
    seen = without_future(checked_maps(weights, 2, len(pieces)))
    labels = token_labels(pieces)
    shown, labels = (without_sink(seen), labels[1:]) if sink == "removed" else (seen, labels)
    found = Head(shown, labels, layer, head, sink, float(sink_shares(seen)), _habits(seen))
    name = f"attention-layer-{layer}-head-{head}-{sink}.png"
    figure, height = _figure(found)
    return Picture(canvas.to_png(figure, height), _alt(found), _caption(found, pieces, left_out), name)


def _habits(weights: Array) -> list[tuple[Kind, float]]:
    """Return the mean attention on the previous token, the same and the first, over all tokens but the first."""
    rows = np.arange(1, len(weights))
    if not rows.size:
        return []
    columns = {"previous": rows - 1, "same": rows, "first": rows * 0}
    found = [(kind, float(weights[rows, columns[kind.key]].mean())) for kind in KINDS if kind.key in columns]
    return sorted((each for each in found if np.isfinite(each[1])), key=lambda each: -each[1])


def _figure(head: Head) -> tuple[Figure, float]:
    title = head.title + (", first token removed" if head.sink == "removed" else "")
    habits = ", ".join(f"{share:.0%} on the {kind.title}" for kind, share in head.habits)
    means = f"Mean {'with it' if head.sink == 'removed' else 'attention'}: {habits}"
    figure = canvas.clear_figure(title, means if habits else "A single token sees only itself.")
    axes, height = _axes(figure, head)
    axes.imshow(_colours(head), interpolation="nearest", aspect="auto")
    count = len(head.labels)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.plot(  # the border of the future
        np.repeat(np.arange(count + 1), 2)[1:] - 0.5,
        np.repeat(np.arange(count + 1), 2)[:-1] - 0.5,
        color=canvas.LINE,
        linewidth=0.8,
    )
    if count >= 4:  # noqa: PLR2004  room for the word
        canvas.draw_text(axes, count * 0.72, count * 0.2, "the future:\nnot seen", color=canvas.MUTED, ha="center")
    if count <= PRINTED:
        _print_values(axes, head)
    position = axes.get_position()
    bar = (position.x1 * canvas.WIDTH + 0.14, position.y0 * canvas.HEIGHT, 0.14, position.height * canvas.HEIGHT)
    colormaps.square_root_colorbar(figure, bar, "")
    return figure, height


def _axes(figure: Figure, head: Head) -> tuple[Axes, float]:
    """Make axes with room for their labels: one tier of long ones, or several tiers of shorter ones.

    Returns:
        The axes, and the height of the picture in inches.
    """
    count = len(head.labels)
    longest = max(canvas.text_width(figure, label) for label in head.labels) + 0.1
    most_height = canvas.HEIGHT - TOP - EDGE - TITLE_ROOM
    rows = tiers_for(count, most_height - min(longest, SHORTER))
    depth = min(longest, LONGEST if rows == 1 else SHORTER)
    left = EDGE + TITLE_ROOM + rows * depth
    width = canvas.WIDTH - left - RIGHT
    upright = longest > width / count
    columns = tiers_for(count, width) if upright else 1
    foot = min(longest, LONGEST if columns == 1 else SHORTER) if upright else 0.22
    below = EDGE + TITLE_ROOM + columns * foot
    height = min(canvas.HEIGHT - TOP - below, max(LOWEST, HIGHEST_CELL * count))
    bottom = canvas.HEIGHT - TOP - height
    axes = canvas.clear_axes(figure, (left, bottom, width, height), "", "")
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    label_rows(axes, figure, head.labels, depth, rows)
    label_columns(axes, figure, head.labels, foot, columns, upright=upright)
    x, y = "… looks at this token", "this token …"
    middle = left + width / 2
    low = (bottom - below + EDGE) / canvas.HEIGHT
    figure.text(middle / canvas.WIDTH, low, x, color=canvas.MUTED, ha="center", va="bottom")
    middle = bottom + height / 2
    figure.text(EDGE / canvas.WIDTH, middle / canvas.HEIGHT, y, color=canvas.MUTED, rotation=90, va="center")
    return axes, TOP + height + below


def _colours(head: Head) -> Array:
    colours = colormaps.share_colours(np.sqrt(head.shown))
    if head.sink == "removed":
        colours[0, 0, :3] = canvas.rgb(colormaps.KNOWN_BY_CONSTRUCTION)
    return colours


def _print_values(axes: Axes, head: Head) -> None:
    """Print each share in its cell, in percent."""
    colours = _colours(head)
    for row, column in zip(*np.nonzero(np.isfinite(head.shown)), strict=True):
        canvas.draw_text(
            axes,
            column,
            row,
            f"{head.shown[row, column]:.0%}".removesuffix("%"),
            color=canvas.contrasting_colour(colours[row, column]),
            ha="center",
            va="center_baseline",
        )


def _alt(head: Head) -> Text:
    if not head.habits:
        return say("Layer {layer}, head {head}: a single token attends to itself.", layer=head.layer, head=head.head)
    kind, share = head.habits[0]
    return say(
        "Layer {layer}, head {head}: {does}, over {tokens} tokens.",
        layer=head.layer,
        head=head.head,
        does=kind.does(f"{share:.0%}"),
        tokens=len(head.labels) + (head.sink == "removed"),
    )


def _caption(head: Head, pieces: Sequence[bytes], left_out: int) -> tuple[Text, ...]:
    printed = [say("Numbers: percent of a row.")] if len(head.labels) <= PRINTED else []
    return (
        say(
            "Layer {layer}, head {head} (h.{layer_index}, head index {head_index} in the code): rows are tokens,"
            " columns the tokens they attend to.",
            layer=head.layer,
            head=head.head,
            layer_index=head.layer - 1,
            head_index=head.head - 1,
        ),
        sink_sentence(head.sink, head.share),
        joined(colour_scale(), *printed, *left_out_note(left_out, len(pieces)), *direction_note(pieces)),
    )
