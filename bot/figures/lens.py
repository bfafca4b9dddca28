"""The logit lens: each layer's next-token prediction (nostalgebraist, "interpreting GPT: the logit lens", 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.patches import Rectangle

from bot.figures.attention_maps import colour_scale, direction_note
from bot.figures.drawing import canvas, colormaps
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import token_label, token_labels
from bot.figures.drawing.wording import joined, percent, shorten
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bot.figures.drawing.picture import Array

MAX_COLUMNS: Final = 10
MAX_ROWS: Final = 19
LEFT: Final = 0.85  # inches beside the table
TOP: Final = 0.95  # and above it
WIDTH: Final = 5.68  # inches of the table at most
HEIGHT: Final = 3.58
ROW: Final = 0.31  # inches of a row at most
WIDEST: Final = 1.6  # inches to which a column is widened
PADDING: Final = 0.1  # inches left and right of a label together
INSET: Final = 0.015  # inches from a column's border to a frame
BAR: Final = 2.0  # inches of the colour bar
FRAME: Final = "#ff7a2f"  # visible on white and on dark blue


@dataclass(frozen=True, slots=True)
class Lens:
    """The predictions of each layer, ready to draw.

    Attributes:
        inputs: [T], labels of the tokens.
        answers: [L + 1][T], labels of the likeliest next tokens; row 0 is the embedding's.
        probabilities: [L + 1, T].
        settled: [T], the first row from which on the answer is final.
    """

    inputs: list[str]
    answers: list[list[str]]
    probabilities: Array
    settled: NDArray[np.integer]

    @property
    def columns(self) -> range:
        """The positions that are shown, at the end."""
        return range(max(0, len(self.inputs) - MAX_COLUMNS), len(self.inputs))

    @property
    def rows(self) -> list[int]:
        """The rows that are shown: all, or the embedding and every second, third, … layer up to the last."""
        last = len(self.answers) - 1
        step = -(-last // (MAX_ROWS - 1)) or 1
        return [0, *sorted(range(last, 0, -step))]


def lens(
    *,
    pieces: Sequence[bytes],
    tops: Sequence[Sequence[bytes]],
    probabilities: Array,
    settled: NDArray[np.integer],
    left_out: int = 0,
    after: int = 0,
) -> Picture:
    """Draw a table of the next token that each layer predicts after each token.

    Args:
        pieces: The T tokens' bytes; of more than `MAX_COLUMNS` the last are shown.
        tops: [L + 1][T], the likeliest next token by the embedding (first) and after each layer.
        probabilities: [L + 1, T], theirs.
        settled: [T], the first row from which on the likeliest token is that of the last row.
        left_out: Earlier tokens of the prompt.
        after: Later tokens of the prompt.

    Raises:
        ValueError: The arrays don't fit together.
    """
    shape = (len(tops), len(pieces))
    fits = probabilities.shape == shape and settled.shape == shape[1:] and all(len(row) == shape[1] for row in tops)
    if not fits or 0 in shape or not ((settled >= 0) & (settled < shape[0])).all():
        raise ValueError(f"a lens of {shape} with probabilities {probabilities.shape} and settled {settled.shape}")
    found = Lens(token_labels(pieces), [[token_label(piece) for piece in row] for row in tops], probabilities, settled)
    figure, height = _figure(found)
    return Picture(canvas.to_png(figure, height), _alt(found), _caption(found, pieces, left_out, after), "lens.png")


def _figure(found: Lens) -> tuple[Figure, float]:
    figure = canvas.clear_figure(
        "What would each layer say next?", "read downwards; framed: from here on the final answer stands"
    )
    columns, rows = found.columns, found.rows
    borders = np.cumsum([0.0, *_widths(figure, found)])
    height = min(HEIGHT, ROW * len(rows))
    bottom = canvas.HEIGHT - TOP - height
    axes = canvas.clear_axes(figure, (LEFT, bottom, borders[-1], height), "", "")
    shares = found.probabilities[rows][:, columns.start :]
    colours = colormaps.share_colours(np.sqrt(shares))
    axes.pcolormesh(borders, np.arange(len(rows) + 1) - 0.5, colours)
    axes.set_xlim(0, borders[-1])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), labels=["embed." if row == 0 else str(row) for row in rows])
    axes.tick_params(length=0, pad=3)
    for (left, right), column, shades in zip(pairwise(borders), columns, colours.swapaxes(0, 1), strict=True):
        _draw_column(figure, axes, found, column, (left, right), shades)
    axes.set_ylabel("layer", color=canvas.MUTED, labelpad=2)
    bar = min(height, BAR)
    box = (LEFT + borders[-1] + 0.12, bottom + height - bar, 0.14, bar)
    colormaps.square_root_colorbar(figure, box, "")
    return figure, TOP + height + 0.14


def _widths(figure: Figure, found: Lens) -> list[float]:
    """Return the columns' widths in inches: what their labels need, or what there is for the longest of them."""
    needed = []
    for column in found.columns:
        answers = {found.answers[row][column] for row in found.rows}
        widest = max(canvas.text_width(figure, answer) for answer in answers)
        needed.append(max(widest, canvas.text_width(figure, found.inputs[column], "bold")) + PADDING)
    cap = WIDTH
    while sum(min(each, cap) for each in needed) > WIDTH:
        cap -= 0.01
    spare = (WIDTH - sum(min(each, cap) for each in needed)) / len(needed)
    return [min(each, cap) + min(spare, max(0.0, WIDEST - each)) for each in needed]


def _draw_column(
    figure: Figure, axes: Axes, found: Lens, column: int, borders: tuple[float, float], colours: Array
) -> None:
    """Write the token above its column and the answers into it, and frame those that are final."""
    left, right = borders
    middle, width = (left + right) / 2, right - left
    heading = canvas.truncate(figure, found.inputs[column], width - 0.04, "bold")
    canvas.draw_text(axes, middle, -0.6, heading, ha="center", va="bottom", weight="bold")
    for line, row in enumerate(found.rows):
        label = canvas.truncate(figure, found.answers[row][column], width - 0.05)
        ink = canvas.contrasting_colour(colours[line])
        canvas.draw_text(axes, middle, line, label, ha="center", va="center_baseline", color=ink)
    line = next(line for line, row in enumerate(found.rows) if row >= found.settled[column])
    corner, height = (left + INSET, line - 0.44), len(found.rows) - line - 0.1
    axes.add_patch(Rectangle(corner, width - 2 * INSET, height, fill=False, edgecolor=FRAME, linewidth=2))


def _alt(found: Lens) -> Text:
    last, settled = len(found.answers) - 1, int(found.settled[-1])
    return say(
        "Logit lens of {layers} layers: after the last token, {token}, the answer {answer} ({share}) stands from {row}"
        " on.",
        layers=last,
        token=shorten(found.inputs[-1], 20),
        answer=shorten(found.answers[-1][-1], 20),
        share=percent(float(found.probabilities[-1, -1])),
        row=_row(settled),
    )


def _row(row: int) -> Text:
    return say("layer {layer}", layer=row) if row else say("the embedding")


def _caption(found: Lens, pieces: Sequence[bytes], left_out: int, after: int) -> tuple[Text, ...]:
    layers, tokens = len(found.answers) - 1, left_out + len(found.inputs) + after
    settled = int(np.quantile(found.settled, 0.5, method="inverted_cdf"))  # the first row from which on half are final
    shown, last = len(found.columns), tokens - after
    window = (
        say("Showing tokens {first} to {last} of {tokens}.", first=last - shown + 1, last=last, tokens=tokens)
        if after
        else say("Showing the last {shown} of {tokens} tokens.", shown=shown, tokens=tokens)
    )
    some_layers = say("Showing {shown} of {layers} layers.", shown=len(found.rows) - 1, layers=layers)
    return (
        say("Under each token: the likeliest next token if the model stopped after the embedding or that layer."),
        (
            say("Half of the answers are final from layer {layer} of {layers} on.", layer=settled, layers=layers)
            if settled
            else say("Half of the answers are final from the embedding on.")
        ),
        joined(
            colour_scale(),
            *([window] if shown < tokens else []),
            *([some_layers] if len(found.rows) <= layers else []),
            *direction_note(pieces),
        ),
    )
