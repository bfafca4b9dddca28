"""The logit lens: each layer's next-token prediction (nostalgebraist, "interpreting GPT: the logit lens", 2020)."""

from __future__ import annotations

from dataclasses import dataclass
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
BOX: Final = (0.85, 0.14, 5.62, 3.58)  # left, bottom, width, height in inches
WIDEST: Final = 1.3  # inches of a column
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
) -> Picture:
    """Draw a table of the next token that each layer predicts after each token.

    Args:
        pieces: The T tokens' bytes; of more than `MAX_COLUMNS` the last are shown.
        tops: [L + 1][T], the likeliest next token by the embedding (first) and after each layer.
        probabilities: [L + 1, T], theirs.
        settled: [T], the first row from which on the likeliest token is that of the last row.
        left_out: Earlier tokens of the prompt.

    Raises:
        ValueError: The arrays don't fit together.
    """
    shape = (len(tops), len(pieces))
    fits = probabilities.shape == shape and settled.shape == shape[1:] and all(len(row) == shape[1] for row in tops)
    if not fits or 0 in shape or not ((settled >= 0) & (settled < shape[0])).all():
        raise ValueError(f"a lens of {shape} with probabilities {probabilities.shape} and settled {settled.shape}")
    found = Lens(token_labels(pieces), [[token_label(piece) for piece in row] for row in tops], probabilities, settled)
    return Picture(canvas.to_png(_figure(found)), _alt(found), _caption(found, pieces, left_out), "lens.png")


def _figure(found: Lens) -> Figure:
    figure = canvas.clear_figure(
        "What would each layer say next?", "read downwards; framed: from here on the final answer stands"
    )
    left, bottom, width, height = BOX
    columns, rows = found.columns, found.rows
    width = min(width, WIDEST * len(columns))
    height = min(height, 0.45 * len(rows))
    axes = canvas.clear_axes(figure, (left, bottom + BOX[3] - height, width, height), "", "")
    shares = found.probabilities[rows][:, columns.start :]
    colours = colormaps.share_colours(np.sqrt(shares))
    axes.imshow(colours, aspect="auto", interpolation="nearest")
    each = width / len(columns)
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), labels=["embed." if row == 0 else str(row) for row in rows])
    axes.tick_params(length=0, pad=3)
    for place, column in enumerate(columns):
        heading = canvas.truncate(figure, found.inputs[column], each - 0.04, "bold")
        canvas.draw_text(axes, place, -0.6, heading, ha="center", va="bottom", weight="bold")
        for line, row in enumerate(rows):
            label = canvas.truncate(figure, found.answers[row][column], each - 0.05)
            ink = canvas.contrasting_colour(colours[line, place])
            canvas.draw_text(axes, place, line, label, ha="center", va="center_baseline", color=ink)
        _frame_settled(axes, place, rows, int(found.settled[column]))
    axes.set_ylabel("layer", color=canvas.MUTED, labelpad=2)
    colormaps.square_root_colorbar(figure, (left + width + 0.12, bottom + BOX[3] - 2.0, 0.14, 2.0), "")
    return figure


def _frame_settled(axes: Axes, place: int, rows: list[int], settled: int) -> None:
    """Frame the cells of a column from the row on in which its answer is final."""
    line = next(line for line, row in enumerate(rows) if row >= settled)
    axes.add_patch(
        Rectangle((place - 0.47, line - 0.44), 0.94, len(rows) - line - 0.1, fill=False, edgecolor=FRAME, linewidth=2)
    )


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


def _caption(found: Lens, pieces: Sequence[bytes], left_out: int) -> tuple[Text, ...]:
    layers, tokens = len(found.answers) - 1, len(found.inputs) + left_out
    settled = int(np.quantile(found.settled, 0.5, method="inverted_cdf"))  # the first row from which on half are final
    last_tokens = say("Showing the last {shown} of {tokens} tokens.", shown=len(found.columns), tokens=tokens)
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
            *([last_tokens] if len(found.columns) < tokens else []),
            *([some_layers] if len(found.rows) <= layers else []),
            *direction_note(pieces),
        ),
    )
