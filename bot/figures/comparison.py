"""Two prompts side by side: next-token probabilities, surprise and the difference of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from bot.figures.attention_maps import MAX_HEAD_TOKENS, direction_note, without_future
from bot.figures.drawing import canvas, colormaps, token_layout
from bot.figures.drawing.mosaic import Mosaic, tiles_of
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.scale import Scale, diverging
from bot.figures.drawing.tokens import token_label
from bot.figures.drawing.wording import joined, listing, percent, plain, shorten
from bot.figures.surprise import MAX_BITS, Surprises, colour_scale, shared_note
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array
    from bot.figures.drawing.token_layout import TokenLayout

NAMES: Final = ("A", "B")
SCALES: Final = (1.5, 1.2, 1.0)
COLOURS: Final = (canvas.CATEGORIES[0], canvas.CATEGORIES[1])
HATCHES: Final = ("", "////")
MAX_CANDIDATES: Final = 6
CHANGED: Final = 3  # heads that are named
LEFT: Final = 0.3
NARROW: Final = 3.85  # inches left of the mosaic
WIDE: Final = canvas.WIDTH - 2 * LEFT
BARS: Final = (0.95, 1.62)  # from the top, height, in inches
TEXTS: Final = 2.68  # from the top
TEXT: Final = 0.72  # the height of each of the two
TILES: Final = (4.72, 1.12, 2.5, 2.6)
FRAME: Final = "#ffffff"
SAME: Final = "#2e3138"  # the darkest colour of a tile, so that no difference still differs from the unseen future


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two prompts, ready to draw.

    Attributes:
        texts: The two, with their surprise.
        labels: [k], of the candidates.
        probabilities: [2, k].
        difference: [L, H, T, T], NaN for the future, or None.
    """

    texts: tuple[Surprises, Surprises]
    labels: list[str]
    probabilities: Array
    difference: Array | None

    @property
    def width(self) -> float:
        """Inches for everything but attention."""
        return WIDE if self.difference is None else NARROW

    @property
    def changed(self) -> list[tuple[int, int, float]]:
        """The heads that differ most: layer and head (counted from 0), and the share of attention that moved."""
        if self.difference is None:
            return []
        moved = np.nansum(np.abs(self.difference), axis=-1).mean(axis=-1) / 2
        order = np.argsort(-moved, axis=None, kind="stable")[:CHANGED]
        places = [(int(at // moved.shape[1]), int(at % moved.shape[1])) for at in order]
        return [(layer, head, float(moved[layer, head])) for layer, head in places if moved[layer, head] > 0]


def compare(
    *,
    first: Sequence[bytes],
    second: Sequence[bytes],
    candidates: Sequence[bytes],
    probabilities: Array,
    first_bits: Array,
    second_bits: Array,
    difference: Array | None,
) -> Picture:
    """Draw next-token probabilities, surprise and the difference of attention of two prompts.

    Args:
        first: The first prompt's tokens, A.
        second: The second prompt's, B.
        candidates: The next tokens that are compared; the first `MAX_CANDIDATES` are shown.
        probabilities: [2, candidates].
        first_bits: [tokens of A], NaN for the first.
        second_bits: [tokens of B].
        difference: [layers, heads, T, T], the attention of B less that of A, where both have T tokens, else None.

    Raises:
        ValueError: The arrays don't fit together.
    """
    texts = (Surprises.of(first, first_bits), Surprises.of(second, second_bits))
    if probabilities.shape != (2, len(candidates)) or not candidates:
        raise ValueError(f"{len(candidates)} candidates with probabilities {probabilities.shape}")
    if difference is not None:
        tokens = len(first)
        if len(second) != tokens or difference.ndim != 4 or difference.shape[2:] != (tokens, tokens):  # noqa: PLR2004
            raise ValueError(f"a difference {difference.shape} for {tokens} and {len(second)} tokens")
        difference = without_future(difference.astype(np.float32, copy=False))
    labels = [token_label(piece) for piece in candidates[:MAX_CANDIDATES]]
    found = Comparison(texts, labels, probabilities[:, :MAX_CANDIDATES].astype(np.float64), difference)
    figure, shown, scale = _figure(found)
    return Picture(canvas.to_png(figure), _alt(found), _caption(found, shown, scale), "comparison.png")


def _figure(found: Comparison) -> tuple[Figure, list[TokenLayout], Scale | None]:
    means = [_mean_bits(text) for text in found.texts]
    figure = canvas.clear_figure("Two prompts compared", f"surprise: A {means[0]}, B {means[1]} bits per token")
    _draw_candidates(figure, found)
    shown = [_draw_text(figure, found, index) for index in range(2)]
    scale = None if found.difference is None else _draw_difference(figure, found, found.difference)
    return figure, shown, scale


def _draw_candidates(figure: Figure, found: Comparison) -> None:
    """Draw two bars for each candidate, with their probabilities."""
    top, height = BARS
    names, values = 0.85, 1.15
    box = (LEFT + names, canvas.HEIGHT - top - height, found.width - names - values, height)
    axes = canvas.clear_axes(figure, box, "", "")
    count = len(found.labels)
    axes.set_xlim(0, max(float(np.nanmax(found.probabilities)) * 1.05, 1e-12))
    axes.set_ylim(max(count, 3) - 0.45, -0.55)
    axes.set_xticks([])
    axes.set_yticks([])
    beside = axes.get_yaxis_transform()
    for index, (colour, hatch) in enumerate(zip(COLOURS, HATCHES, strict=True)):
        rows = np.arange(count) + (index - 0.5) * 0.38
        shares = np.nan_to_num(found.probabilities[index])
        axes.barh(rows, shares, height=0.34, facecolor=colour, hatch=hatch, edgecolor=canvas.BACKGROUND, linewidth=0)
    for row, label in enumerate(found.labels):
        shown = canvas.truncate(figure, label, names - 0.1)
        canvas.draw_text(axes, -0.02, row, shown, ha="right", transform=beside)
        shares = " / ".join(percent(float(share)) for share in found.probabilities[:, row])
        canvas.draw_text(axes, 1.02, row, shares, transform=beside)
    axes.legend(
        handles=[
            Patch(facecolor=colour, hatch=hatch, edgecolor=canvas.BACKGROUND, linewidth=0, label=f"next after {name}")
            for colour, hatch, name in zip(COLOURS, HATCHES, NAMES, strict=True)
        ],
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.97),
        ncols=2,
        frameon=False,
        labelcolor=canvas.INK,
        fontsize=canvas.TEXT_POINTS,
        columnspacing=1,
    )


def _draw_text(figure: Figure, found: Comparison, index: int) -> TokenLayout:
    """Draw one prompt, coloured by surprise, with its letter, and an ellipsis where its beginning does not fit."""
    text = found.texts[index]
    room = (found.width - 0.28, TEXT)
    top = TEXTS + index * (TEXT + 0.1)
    shown = token_layout.lay_out(figure, text.pieces, room, scales=SCALES)
    if shown.hidden:  # running lines show more of it
        shown = token_layout.lay_out(figure, text.pieces, room, scales=SCALES, breaks=False)
    axes = token_layout.axes_for(figure, shown, (LEFT + 0.28, top), room)
    edges = [canvas.LINE if np.isnan(text.of_unit(block.unit)) else None for block in shown.blocks]
    token_layout.draw(axes, shown, text.faces(shown), edges=edges)
    mark = canvas.bare_axes(figure, (LEFT, canvas.HEIGHT - top - 0.4, 0.25, 0.4))
    canvas.draw_text(mark, 0, 0.1, NAMES[index], color=COLOURS[index], weight="bold", size=canvas.TITLE_POINTS)
    if shown.hidden:
        canvas.draw_text(mark, 0, 0.28, "…", weight="bold", size=canvas.TITLE_POINTS)
    if index == 1:
        low = top + TEXT + 0.06
        colormaps.colorbar(
            figure,
            (LEFT + 0.28, canvas.HEIGHT - low - 0.1, 1.5, 0.1),
            colormaps.SURPRISE,
            (0, MAX_BITS),
            "",
            ticks=(0, 8, 16),
        )
        key = canvas.bare_axes(figure, (LEFT + 1.95, canvas.HEIGHT - low - 0.2, 2, 0.25))
        canvas.draw_text(key, 0, 0.1, "bits of surprise", color=canvas.MUTED)
    return shown


def _draw_difference(figure: Figure, found: Comparison, difference: Array) -> Scale:
    """Draw the mosaic of B − A: orange where B has more, blue where it has less."""
    layers, heads = difference.shape[:2]
    mosaic = Mosaic.within(layers, heads, TILES)
    tiles = tiles_of(difference, mosaic.tile)
    scale = diverging(difference)
    each = scale.colormap(np.linspace(0, 1, scale.colormap.N))[:, :3]
    colormap = ListedColormap(np.maximum(each, canvas.rgb(SAME))).with_extremes(bad=canvas.BACKGROUND)
    axes = mosaic.draw(figure, np.asarray(colormap(scale.norm(np.ma.masked_invalid(tiles)))))
    for layer, head, _ in found.changed:
        mosaic.mark(axes, layer, head, FRAME)
    low, high = scale.ticks[0], scale.ticks[-1]
    bar = colormaps.colorbar(
        figure,
        (TILES[0] + 0.15, 0.42, mosaic.size[0] / canvas.DPI - 0.4, 0.11),
        colormap,
        (low, high),
        "attention of B − A",
        ticks=(low, 0.0, high),
    )
    bar.set_xticks([low, 0, high], labels=[f"−{high:.1%}", "0", f"+{high:.1%}"])
    return scale


def _mean_bits(text: Surprises) -> str:
    return plain(float(text.known.mean())) if text.known.size else "–"


def _alt(found: Comparison) -> Text:
    likely = [
        say(
            "{name} {token} {share}",
            name=name,
            token=shorten(found.labels[int(np.nanargmax(shares))], 24),
            share=percent(float(np.nanmax(shares))),
        )
        for name, shares in zip(NAMES, found.probabilities, strict=True)
    ]
    return say(
        "Two prompts compared. Likeliest next token: {tokens}. Surprise: A {first}, B {second} bits per token.",
        tokens=listing(likely),
        first=_mean_bits(found.texts[0]),
        second=_mean_bits(found.texts[1]),
    )


def _caption(found: Comparison, shown: Sequence[TokenLayout], scale: Scale | None) -> tuple[Text, ...]:
    pieces = [*found.texts[0].pieces, *found.texts[1].pieces]
    notes = (*_hidden_notes(found, shown), *shared_note(pieces), *direction_note(pieces))
    return (
        say("Bars: next-token probabilities after the first prompt (A, plain) and the second (B, hatched)."),
        joined(
            say(
                "Surprise of the prompts: A {first}, B {second} bits per token.",
                first=_mean_bits(found.texts[0]),
                second=_mean_bits(found.texts[1]),
            ),
            colour_scale(),
        ),
        joined(*_difference_sentences(found, scale)),
        *([joined(*notes)] if notes else []),
    )


def _hidden_notes(found: Comparison, shown: Sequence[TokenLayout]) -> tuple[Text, ...]:
    """Name the prompts of which only the end is shown."""
    return tuple(
        say(
            "Showing the last {shown} of {tokens} tokens of {prompt}; the numbers are of all.",
            prompt=name,
            shown=len(end.tokens),
            tokens=len(text.pieces),
        )
        for name, text, end in zip(NAMES, found.texts, shown, strict=True)
        if end.hidden
    )


def _difference_sentences(found: Comparison, scale: Scale | None) -> tuple[Text, ...]:
    if scale is None:
        first, second = (len(text.pieces) for text in found.texts)
        if first == second:
            return (say("Attention is compared only for 2 to {most} tokens.", most=MAX_HEAD_TOKENS),)
        return (
            say(
                "Attention is compared only for equally many tokens: A has {first}, B {second}.",
                first=first,
                second=second,
            ),
        )
    changed = [
        say("layer {layer}, head {head} ({share})", layer=layer + 1, head=head + 1, share=f"{share:.0%}")
        for layer, head, share in found.changed
    ]
    most = [say("Framed: the most changed, {heads}.", heads=listing(changed))] if changed else []
    return (
        say("Right: attention of B − A for each head, orange more, blue less."),
        *most,
        *scale.sentences,
    )
