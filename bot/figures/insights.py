"""The samples of one prompt: the surprise of each, and their similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from bot.figures.attention_maps import direction_note
from bot.figures.drawing import canvas, colormaps, token_layout
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import units
from bot.figures.drawing.wording import joined, number
from bot.figures.surprise import MAX_BITS, Surprises, colour_scale, shared_note
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array

MAX_SAMPLES: Final = 10
TOP: Final = 0.69
FOOT: Final = 0.46
LEFT: Final = 0.3
HEAD: Final = 0.96  # inches for a sample's number and its mean
PITCH: Final = 0.174  # inches from one line of a sample to the next
BLOCK: Final = 0.163
SCALES: Final = (1.5, 1.2, 1.0)
ENLARGED: Final = 150  # tokens up to which larger scales are tried
MATRIX: Final = 1.75  # inches of its side
MATRIX_TOP: Final = 1.12  # inches above it
BETWEEN: Final = 0.16  # inches between samples
PRINTED: Final = 5  # samples up to which the matrix shows its numbers


def insights(*, samples: Sequence[tuple[Sequence[bytes], Array]], similarity: Array | None) -> Picture:
    """Draw each sample coloured by surprise, its mean beside it, and the similarity of the samples.

    Args:
        samples: Of one prompt, 1 to `MAX_SAMPLES`: the tokens' bytes and their surprise in bits [T].
        similarity: [samples, samples], 0 for nothing in common to 1 for the same; None where it is not known.

    Raises:
        ValueError: There are no samples, too many, or arrays that don't fit them.
    """
    count = len(samples)
    if not 1 <= count <= MAX_SAMPLES:
        raise ValueError(f"{count} samples, not 1 to {MAX_SAMPLES}")
    if similarity is not None and similarity.shape != (count, count):
        raise ValueError(f"similarity of shape {similarity.shape} for {count} samples")
    texts = [Surprises.of(pieces, bits) for pieces, bits in samples]
    similarity = similarity if count > 1 else None
    figure, height, hidden = _figure(texts, similarity)
    caption = _caption(texts, similarity, hidden)
    return Picture(canvas.to_png(figure, height), _alt(texts, similarity), caption, "insights.png")


def _figure(texts: list[Surprises], similarity: Array | None) -> tuple[Figure, float, int]:
    """Return the figure, its height, and the number of samples that are cut."""
    count = len(texts)
    means = [_mean(text) for text in texts]
    subtitle = f"mean surprise {_mean_of(np.array(means))} bits per token"
    if similarity is not None:
        subtitle += f"; mean similarity {_mean_of(_pairs(similarity))}"
    figure = canvas.clear_figure(
        "How expected is each sample?" if count > 1 else "How expected is this sample?", subtitle
    )
    right = canvas.WIDTH - 0.2 - (MATRIX + 0.5 if similarity is not None else 0)
    each = (canvas.HEIGHT - TOP - FOOT) / count
    room = (right - LEFT - HEAD, each - 0.003)
    layouts = _set(figure, texts, room)
    top = TOP
    for index, (text, shown) in enumerate(zip(texts, layouts, strict=True)):
        axes = token_layout.axes_for(figure, shown, (LEFT + HEAD, top), room)
        edges = [canvas.LINE if np.isnan(text.of_unit(block.unit)) else None for block in shown.blocks]
        token_layout.draw(axes, shown, text.faces(shown), edges=edges, pitch=PITCH, height=BLOCK)
        head = canvas.bare_axes(figure, (LEFT, canvas.HEIGHT - top - 0.2, HEAD, 0.2))
        canvas.draw_text(head, 0, 0.09, str(index + 1), weight="bold")
        canvas.draw_text(head, HEAD - 0.12, 0.09, _shown_mean(means[index]), color=canvas.MUTED, ha="right")
        top += min(shown.inches(PITCH) + BETWEEN, each)
    bar = (LEFT + HEAD, canvas.HEIGHT - top - 0.16, 2.0, 0.11)
    colormaps.colorbar(figure, bar, colormaps.SURPRISE, (0, MAX_BITS), "", ticks=(0, 4, 8, 12, 16))
    key = canvas.bare_axes(figure, (bar[0] + 2.15, bar[1] - 0.06, 2.0, 0.22))
    canvas.draw_text(key, 0, 0.11, "bits of surprise", color=canvas.MUTED)
    height = top + FOOT
    if similarity is not None:
        _draw_similarity(figure, similarity)
        height = max(height, MATRIX_TOP + MATRIX + 0.65)
    return figure, height, sum(shown.hidden > 0 for shown in layouts)


def _set(figure: Figure, texts: list[Surprises], room: tuple[float, float]) -> list[token_layout.TokenLayout]:
    """Lay out all samples at one scale, the largest that fits, or as much of each as fits at the smallest."""
    few = sum(len(text.pieces) for text in texts) <= ENLARGED
    layouts = []
    for scale in SCALES if few else SCALES[-1:]:
        layouts = [
            token_layout.lay_out(figure, text.pieces, room, pitch=PITCH, keep_end=False, scales=(scale,), breaks=False)
            for text in texts
        ]
        if not any(shown.hidden for shown in layouts):
            break
    return layouts


def _draw_similarity(figure: Figure, similarity: Array) -> None:
    """Draw the similarity matrix without its diagonal."""
    count = len(similarity)
    left = canvas.WIDTH - MATRIX - 0.25
    bottom = canvas.HEIGHT - MATRIX_TOP - MATRIX
    axes = canvas.clear_axes(figure, (left, bottom, MATRIX, MATRIX), "", "")
    off = np.where(np.eye(count, dtype=bool), np.nan, similarity)
    colours = colormaps.share_colours(off)
    axes.imshow(colours, interpolation="nearest", extent=(0.5, count + 0.5, count + 0.5, 0.5), aspect="auto")
    axes.xaxis.tick_top()
    axes.set_xticks(range(1, count + 1))
    axes.set_yticks(range(1, count + 1))
    axes.tick_params(length=0, pad=2)
    axes.set_title("similarity", color=canvas.MUTED, size=canvas.TEXT_POINTS, pad=4)
    if count <= PRINTED:
        for row, column in zip(*np.nonzero(np.isfinite(off)), strict=True):
            ink = canvas.contrasting_colour(colours[row, column])
            canvas.draw_text(
                axes,
                column + 1,
                row + 1,
                f"{similarity[row, column]:.2f}".removeprefix("0"),
                ha="center",
                va="center_baseline",
                color=ink,
            )
    colormaps.colorbar(
        figure, (left, bottom - 0.22, MATRIX, 0.11), colormaps.SHARE, (0.0, 1.0), "0: nothing shared, 1: the same"
    )


def _mean(text: Surprises) -> float:
    return float(text.known.mean()) if text.known.size else float("nan")


def _mean_of(values: Array) -> str:
    known = values[np.isfinite(values)]
    return number(float(known.mean())) if known.size else "–"


def _shown_mean(mean: float) -> str:
    return f"{mean:.1f} bits" if np.isfinite(mean) else "–"


def _pairs(similarity: Array) -> Array:
    """Return the values above the diagonal."""
    return similarity[np.triu_indices(len(similarity), 1)]


def _alt(texts: list[Surprises], similarity: Array | None) -> Text:
    means = ", ".join(_shown_mean(_mean(text)).removesuffix(" bits") for text in texts)
    if similarity is None:
        return say("Samples coloured by surprise: {count}, with {means} bits per token.", count=len(texts), means=means)
    return say(
        "Samples coloured by surprise: {count}, with {means} bits per token. Mean similarity {alike}.",
        count=len(texts),
        means=means,
        alike=_mean_of(_pairs(similarity)),
    )


def _caption(texts: list[Surprises], similarity: Array | None, hidden: int) -> tuple[Text, ...]:
    pieces = [piece for text in texts for piece in text.pieces]
    beyond = sum(text.of_unit(unit) > MAX_BITS for text in texts for unit in units(text.pieces))
    right = []
    if similarity is not None:
        right = [
            say(
                "Right: the similarity of each pair, 0 (nothing shared) to 1 (the same); {mean} on average.",
                mean=_mean_of(_pairs(similarity)),
            )
        ]
    cut = [say("Only the beginning of {count} samples is shown; the means are of the whole.", count=hidden)]
    notes = (*(cut if hidden else []), *shared_note(pieces), *direction_note(pieces))
    return (
        say("Each sample, coloured by the surprise of its tokens, with its mean in bits per token."),
        *right,
        colour_scale(beyond),
        *([joined(*notes)] if notes else []),
    )
