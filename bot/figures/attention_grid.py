"""The attention of all heads of all layers on one text, as a mosaic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from bot.figures.attention_maps import (
    KINDS,
    Kind,
    Notable,
    Sink,
    checked_maps,
    colour_scale,
    direction_note,
    left_out_note,
    sink_sentence,
    sink_shares,
    strongest_heads,
    without_future,
    without_sink,
)
from bot.figures.drawing import canvas, colormaps
from bot.figures.drawing.fonts import in_order
from bot.figures.drawing.mosaic import Mosaic, tiles_of
from bot.figures.drawing.picture import Picture
from bot.figures.drawing.tokens import units
from bot.figures.drawing.wording import joined, listing
from bot.text import Text, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bot.figures.drawing.picture import Array

TILES: Final = (0.62, 1.0, 3.95, 3.5)  # left, top, width, height in inches of the room for the mosaic
KEY: Final = 0.73  # inches above the key
STRIP_GAP: Final = 0.12
STRIP: Final = 0.9
COLOURS: Final = dict(zip((kind.key for kind in KINDS), ("#f0e442", "#ff7a2f", "#00b887", "#e48cc0"), strict=True))
NAMED_IN_TEXT: Final = 2  # kinds of head in alt text and caption; the key on the picture has all


@dataclass(frozen=True, slots=True)
class Grid:
    """The attention of all heads, ready to draw.

    Attributes:
        shown: [L, H, T, T] or, without the sink, [L, H, T - 1, T - 1]; NaN for the future.
        shares: [L, H], the attention on the first token.
        strongest: The heads that are named, in the order of `KINDS`.
        pieces: The tokens.
        sink: Whether the first token is shown.
    """

    shown: Array
    shares: Array
    strongest: list[Notable]
    pieces: Sequence[bytes]
    sink: Sink

    @property
    def shape(self) -> tuple[int, int]:
        """The number of layers and of heads."""
        return self.shown.shape[0], self.shown.shape[1]

    @property
    def share(self) -> float:
        """The mean attention on the first token, NaN for a single token."""
        known = self.shares[np.isfinite(self.shares)]
        return float(known.mean()) if known.size else float("nan")


def attention_grid(
    weights: Array, *, pieces: Sequence[bytes], scores: Mapping[str, Array], sink: Sink, left_out: int = 0
) -> Picture:
    """Draw the attention of every head as a small map, the strongest of each known kind marked with a letter.

    Args:
        weights: [layers, heads, T, T], rows attend to columns, each row sums to 1.
        pieces: The T tokens' bytes.
        scores: [layers, heads] each: the mean attention on the "previous" token, the "first", the "same" and, where a
            token is repeated, the one after its earlier occurrence ("induction"); any may be missing or NaN.
        sink: Whether to show the attention on the first token.
        left_out: Earlier tokens of the prompt, which the model was not given.

    Raises:
        ValueError: The arrays don't fit together, or the first token is to be removed from a text of one.
    """
    seen = without_future(checked_maps(weights, 4, len(pieces)))
    shown = without_sink(seen) if sink == "removed" else seen
    strongest = strongest_heads(scores, (weights.shape[0], weights.shape[1]))
    grid = Grid(shown, sink_shares(seen), strongest, pieces, sink)
    figure, height = _figure(grid)
    name = f"attention-grid-{sink}.png"
    return Picture(canvas.to_png(figure, height), _alt(grid), _caption(grid, left_out), name)


def _figure(grid: Grid) -> tuple[Figure, float]:
    layers, heads = grid.shape
    title = f"Attention of all {layers * heads} heads" if layers * heads > 1 else "Attention of the only head"
    if grid.sink == "removed":
        title += ", first token removed"
    figure = canvas.clear_figure(title, " ".join(in_order(unit.label) for unit in units(grid.pieces)))
    mosaic = Mosaic.within(layers, heads, TILES)
    axes = mosaic.draw(figure, _colours(grid, mosaic.tile))
    marked = set()
    for each in grid.strongest:
        if each.is_notable and (each.layer, each.head) not in marked:
            letter = each.kind.letter if min(mosaic.tile) >= canvas.TEXT_POINTS * canvas.DPI / 72 * 1.2 else ""
            mosaic.mark(axes, each.layer, each.head, COLOURS[each.kind.key], letter)
            marked.add((each.layer, each.head))
    left = mosaic.right_inches + STRIP_GAP
    _sink_strip(figure, grid, mosaic, left)
    foot = _key(figure, grid, left + STRIP + 0.16)
    return figure, max(mosaic.bottom_inches + 0.15, foot)


def _colours(grid: Grid, tile: tuple[int, int]) -> Array:
    colours = colormaps.share_colours(np.sqrt(tiles_of(grid.shown, tile)))
    if grid.sink == "removed":
        high, wide = (max(1, side // grid.shown.shape[-1]) for side in tile)
        colours[:, :, :high, :wide, :3] = canvas.rgb(colormaps.KNOWN_BY_CONSTRUCTION)
    return colours


def _sink_strip(figure: Figure, grid: Grid, mosaic: Mosaic, left: float) -> None:
    """Draw beside each row of tiles its heads' attention on the first token: a dot a head, a bar their mean."""
    height = mosaic.size[1] / canvas.DPI
    bottom = canvas.HEIGHT - mosaic.top / canvas.DPI - height
    axes = canvas.clear_axes(figure, (left, bottom, STRIP, height), "", "")
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(grid.shape[0] - 0.5, -0.5)
    layers = np.arange(grid.shape[0])
    if np.isfinite(grid.share):
        with np.errstate(invalid="ignore"):
            means = np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else 0 for row in grid.shares])
        axes.barh(layers, means, height=0.72, color="#33414f")
        axes.plot(grid.shares, np.repeat(layers[:, None], grid.shape[1], 1), "o", color="#93ccff", ms=2.6, mew=0)
    axes.set_yticks([])
    axes.xaxis.tick_top()
    axes.set_xticks([0, 1], labels=["0", "100%"])
    axes.tick_params(length=2, pad=1)
    axes.get_xticklabels()[1].set_horizontalalignment("right")
    axes.set_title("on first token", color=canvas.MUTED, size=canvas.TEXT_POINTS, pad=4)


def _key(figure: Figure, grid: Grid, left: float) -> float:
    """Explain the letters, list their heads, draw the colour bar, and return its lower edge in inches from the top."""
    axes = canvas.bare_axes(figure, (left, 0, canvas.WIDTH - left - 0.1, canvas.HEIGHT - KEY))
    top = 0.1
    for kind in KINDS:
        top = _key_of(axes, kind, [each for each in grid.strongest if each.kind is kind], top)
    top += KEY
    bar = (left + 0.05, canvas.HEIGHT - top - 0.13, canvas.WIDTH - left - 0.42, 0.13)
    colormaps.square_root_colorbar(figure, bar, "share of a row")
    return top + 0.58


def _key_of(axes: Axes, kind: Kind, heads: list[Notable], top: float) -> float:
    """Write one kind into the key and return the top of the next."""
    colour = COLOURS[kind.key]
    canvas.draw_text(axes, 0.02, top, kind.letter, color=colour, weight="bold")
    canvas.draw_text(axes, 0.2, top, kind.title)
    if not heads:
        canvas.draw_text(axes, 0.2, top + 0.18, "not measured", color=canvas.MUTED)
        return top + 0.44
    for line, each in enumerate(heads, 1):
        colour = canvas.INK if each.is_notable else canvas.MUTED
        canvas.draw_text(axes, 0.2, top + 0.18 * line, f"{each.layer + 1}.{each.head + 1}", color=colour)
        canvas.draw_text(axes, 1.15, top + 0.18 * line, f"{each.score:.0%}", color=colour, ha="right")
    return top + 0.18 * len(heads) + 0.26


def _alt(grid: Grid) -> Text:
    count = grid.shape[0] * grid.shape[1]
    best = [each.sentence() for each in _best(grid)[:NAMED_IN_TEXT]]
    if not best:
        return say("Attention maps of {heads} heads over {tokens} tokens.", heads=count, tokens=len(grid.pieces))
    return say(
        "Attention maps of {heads} heads over {tokens} tokens; {best}.",
        heads=count,
        tokens=len(grid.pieces),
        best=listing(best),
    )


def _best(grid: Grid) -> list[Notable]:
    """Return the strongest head of each kind, in falling order."""
    firsts = {each.kind.key: each for each in reversed(grid.strongest)}
    return sorted(firsts.values(), key=lambda each: -each.score)


def _caption(grid: Grid, left_out: int) -> tuple[Text, ...]:
    layers, heads = grid.shape
    tokens = len(grid.pieces)
    best = [each.sentence() for each in _best(grid)[:NAMED_IN_TEXT]]
    return (
        say(
            "{layers} layers with {heads} heads each, on {tokens} tokens: the rows of a map are tokens, its columns"
            " the tokens they attend to.",
            layers=layers,
            heads=heads,
            tokens=tokens,
        ),
        *([say("Strongest heads: {heads}.", heads=listing(best))] if best else []),
        sink_sentence(grid.sink, grid.share),
        joined(colour_scale(), *left_out_note(left_out, tokens), *direction_note(grid.pieces)),
    )
