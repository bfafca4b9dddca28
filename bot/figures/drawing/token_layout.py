"""Tokens laid out in lines like a text, as blocks that each picture colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection

from bot.figures.drawing import canvas
from bot.figures.drawing.tokens import Unit, units
from bot.figures.drawing.wording import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

PADDING: Final = 0.025  # inches left and right of the text in its block
GAP: Final = 0.02  # between blocks
LINE: Final = 0.205  # from one line to the next
BLOCK: Final = 0.18
MAX_LABEL_CHARACTERS: Final = 28
TICK: Final = 0.03  # of a mark where one token ends within a block, at most
SCALES: Final = (2.4, 1.8, 1.5, 1.2, 1.0)  # a short text gets the largest that fits


@dataclass(frozen=True, slots=True)
class Block:
    """One unit of a text and its place.

    Attributes:
        unit: Its text and tokens.
        width: Inches, as `left` before the text is enlarged.
        line: Counted from 0, from the top.
        left: Inches from the left edge.
    """

    unit: Unit
    width: float
    line: int = 0
    left: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """A text in lines.

    Attributes:
        blocks: In reading order, only those that are shown.
        lines: The number of lines.
        hidden: Tokens that do not fit, before the first block or after the last.
        scale: The factor by which the text is enlarged.
    """

    blocks: tuple[Block, ...]
    lines: int
    hidden: int
    scale: float

    @property
    def tokens(self) -> range:
        """The tokens that are shown."""
        return range(self.blocks[0].unit.tokens.start, self.blocks[-1].unit.tokens.stop)

    def inches(self, pitch: float = LINE) -> float:
        """Return the height of the lines on the picture."""
        return self.lines * pitch * self.scale

    def shifted(self, by: int, tokens: int) -> TokenLayout:
        """Return the layout of the same blocks as a part of a text of so many tokens, `by` tokens later in it."""
        units_there = [replace(each.unit, tokens=_later(each.unit.tokens, by)) for each in self.blocks]
        blocks = tuple(replace(block, unit=unit) for block, unit in zip(self.blocks, units_there, strict=True))
        return replace(self, blocks=blocks, hidden=tokens - len(self.tokens))


def _later(tokens: range, by: int) -> range:
    return range(tokens.start + by, tokens.stop + by)


def lay_out(
    figure: Figure,
    pieces: Sequence[bytes],
    room: tuple[float, float],
    *,
    pitch: float = LINE,
    keep_end: bool = True,
    under: Sequence[str] = (),
    scales: Sequence[float] = SCALES,
    breaks: bool = True,
) -> TokenLayout:
    """Lay out tokens in lines, as large as they fit; where they don't, the last that do, or the first.

    Args:
        figure: Where they will be drawn.
        pieces: The tokens' bytes, at least one.
        room: Width and height in inches.
        pitch: Inches from one line to the next, before the text is enlarged.
        keep_end: Whether the end of a text that is too long is shown, rather than its beginning.
        under: The label under each token, if any: its block is wide enough for it.
        scales: Factors by which the text may be enlarged, the largest first.
        breaks: Whether a newline ends its line.
    """
    width, height = room
    found = units(pieces)
    blocks = _measured(figure, found if not keep_end else found[::-1], under, width / scales[-1], height / pitch)
    if keep_end:
        blocks.reverse()
    for scale in scales[:-1]:
        whole = len(blocks) == len(found) and max(block.width for block in blocks) <= width / scale
        placed = _place(blocks, width / scale, breaks=breaks) if whole else []
        if placed and (placed[-1].line + 1) * pitch <= height / scale:
            return TokenLayout(tuple(placed), placed[-1].line + 1, 0, scale)
    placed = _fitting(blocks, width / scales[-1], int(height / pitch / scales[-1]), keep_end=keep_end, breaks=breaks)
    shown = range(placed[0].unit.tokens.start, placed[-1].unit.tokens.stop)
    return TokenLayout(tuple(placed), placed[-1].line + 1, len(pieces) - len(shown), scales[-1])


def _measured(figure: Figure, found: list[Unit], under: Sequence[str], width: float, lines: float) -> list[Block]:
    """Measure the first units, as many as could fit into so many lines and a few more."""
    blocks: list[Block] = []
    taken = 0.0
    for unit in found:
        if taken > (lines + 1) * width:
            break
        blocks.append(_block(figure, unit, width, under))
        taken += blocks[-1].width + GAP
    return blocks


def axes_for(figure: Figure, shown: TokenLayout, corner: tuple[float, float], room: tuple[float, float]) -> Axes:
    """Add axes in the units of the layout, with their upper left corner so many inches from the figure's."""
    left, top = corner
    width, height = room
    axes = canvas.bare_axes(figure, (left, canvas.HEIGHT - top - height, width, height))
    axes.set_xlim(0, width / shown.scale)
    axes.set_ylim(height / shown.scale, 0)
    return axes


def _fitting(blocks: list[Block], width: float, most_lines: int, *, keep_end: bool, breaks: bool) -> list[Block]:
    placed = _place(blocks, width, breaks=breaks)
    if not keep_end:
        return [block for block in placed if block.line < most_lines]
    while placed[-1].line >= most_lines:  # dropping lines from the front may move the words behind them
        drop = placed[-1].line - most_lines + 1
        placed = _place(
            [replace(block, line=0, left=0) for block in placed if block.line >= drop], width, breaks=breaks
        )
    return placed


def _block(figure: Figure, unit: Unit, width: float, under: Sequence[str]) -> Block:
    label = canvas.truncate(figure, shorten(unit.label, MAX_LABEL_CHARACTERS), width - 2 * PADDING)
    wide = canvas.text_width(figure, label)
    if under:
        widest = max(canvas.text_width(figure, under[token]) for token in unit.tokens) + 2 * PADDING
        wide = max(wide, widest * len(unit.tokens))
    return Block(replace(unit, label=label), min(width, wide + 2 * PADDING))


def _place(blocks: list[Block], width: float, *, breaks: bool) -> list[Block]:
    """Break lines greedily: words stay whole where a line can hold them, and a newline ends its line if `breaks`."""
    placed: list[Block] = []
    line, left = 0, 0.0
    for word in _words(blocks):
        whole = sum(block.width + GAP for block in word) - GAP
        if left and left + whole > width and whole <= width:
            line, left = line + 1, 0.0
        for block in word:
            if left and left + block.width > width:
                line, left = line + 1, 0.0
            placed.append(replace(block, line=line, left=left))
            left += block.width + GAP
        if breaks and "\n" in word[-1].unit.text:
            line, left = line + 1, 0.0
    return placed


def _words(blocks: list[Block]) -> list[list[Block]]:
    """Group the blocks that should stay on one line: a new word begins with a space or after a newline."""
    words: list[list[Block]] = []
    for block in blocks:
        if words and not block.unit.text[:1].isspace() and "\n" not in words[-1][-1].unit.text:
            words[-1].append(block)
        else:
            words.append([block])
    return words


def draw(
    axes: Axes,
    layout: TokenLayout,
    faces: NDArray[np.floating],
    *,
    edges: Sequence[str | None] = (),
    pitch: float = LINE,
    height: float = BLOCK,
) -> None:
    """Draw the blocks.

    Args:
        axes: Made by `axes_for`.
        layout: The blocks.
        faces: [blocks, 4], the colour of each.
        edges: The colour of each block's frame, None for none.
        pitch: Inches from one line to the next.
        height: Inches of a block.
    """
    corners = [corners_of(block, pitch, height) for block in layout.blocks]
    axes.add_collection(PolyCollection(corners, facecolors=faces, edgecolors="none"), autolim=False)
    framed = [(box, edge) for box, edge in zip(corners, edges, strict=False) if edge]
    if framed:
        boxes, colours = zip(*framed, strict=True)
        axes.add_collection(
            PolyCollection(boxes, facecolors="none", edgecolors=colours, linewidths=1.4 * layout.scale), autolim=False
        )
    for block, face in zip(layout.blocks, faces, strict=True):
        x, y = block.left + block.width / 2, block.line * pitch + height / 2
        write(axes, layout, x, y, block.unit.label, color=canvas.contrasting_colour(face), va="center_baseline")
    _mark_parts(axes, layout, pitch, height)


def write(axes: Axes, layout: TokenLayout, x: float, y: float, text: str, **look: str) -> None:
    """Write a text centred at a place of the layout, at its scale."""
    canvas.draw_text(axes, x, y, text, ha="center", size=canvas.TEXT_POINTS * layout.scale, **look)


def corners_of(block: Block, pitch: float = LINE, height: float = BLOCK) -> NDArray[np.floating]:
    """Return the four corners of a block in inches."""
    left, top = block.left, block.line * pitch
    right, bottom = left + block.width, top + height
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _mark_parts(axes: Axes, layout: TokenLayout, pitch: float, height: float) -> None:
    """Draw a short mark under a block, in the gap between lines, where one token ends and the next begins."""
    length = min(TICK, pitch - height)
    marks = []
    for block in layout.blocks:
        parts = len(block.unit.tokens)
        foot = block.line * pitch + height
        for part in range(1, parts):
            x = block.left + block.width * part / parts
            marks.append([(x, foot), (x, foot + length)])
    if marks:
        width = 1.5 * layout.scale
        axes.add_collection(LineCollection(marks, colors=canvas.INK, linewidths=width, capstyle="butt"), autolim=False)
