from __future__ import annotations

import itertools

import numpy as np
import pytest

from bot.figures.drawing import canvas, token_layout
from tests.figures.builders import words

ROOM = (6.0, 2.0)
TEXT = words("The quick brown fox jumps over the lazy dog and goes home. " * 20)


def figure() -> canvas.Figure:
    return canvas.clear_figure("", "")


def test_nothing_is_lost_or_overlaps() -> None:
    shown = token_layout.lay_out(figure(), TEXT[:30], ROOM)
    assert shown.tokens == range(30)
    assert shown.hidden == 0
    for left, right in itertools.pairwise(shown.blocks):
        assert left.line < right.line or left.left + left.width < right.left
    assert all(block.left + block.width <= ROOM[0] / shown.scale + 1e-9 for block in shown.blocks)
    assert shown.lines * token_layout.LINE * shown.scale <= ROOM[1] + 1e-9


def test_a_short_text_is_set_larger() -> None:
    scales = [token_layout.lay_out(figure(), TEXT[:count], ROOM).scale for count in (3, 60, 240)]
    assert scales[0] == token_layout.SCALES[0] > scales[1] > scales[2] == 1


@pytest.mark.parametrize("keep_end", [True, False])
def test_of_a_long_text_one_end_is_kept(keep_end: bool) -> None:
    shown = token_layout.lay_out(figure(), TEXT, ROOM, keep_end=keep_end)
    assert shown.hidden == len(TEXT) - len(shown.tokens) > 0
    assert (shown.tokens.stop == len(TEXT)) is keep_end
    assert (shown.tokens.start == 0) is not keep_end


def test_words_of_several_tokens_stay_together() -> None:
    pieces = [piece for _ in range(60) for piece in (b" inter", b"nation", b"al")]
    shown = token_layout.lay_out(figure(), pieces, ROOM)
    assert all(block.unit.text == " inter" for block in shown.blocks if block.left == 0)


def test_a_newline_ends_its_line_where_it_should() -> None:
    pieces = [b"a", b"\n", b"b"]
    assert token_layout.lay_out(figure(), pieces, ROOM).lines == 2
    assert token_layout.lay_out(figure(), pieces, ROOM, breaks=False).lines == 1


def test_a_block_is_as_wide_as_what_stands_under_it() -> None:
    narrow = token_layout.lay_out(figure(), [b"a"], ROOM).blocks[0].width
    assert token_layout.lay_out(figure(), [b"a"], ROOM, under=["50256"]).blocks[0].width > narrow


def test_a_token_wider_than_a_line_is_cut() -> None:
    shown = token_layout.lay_out(figure(), [b"W" * 500], (1.0, 1.0))
    assert shown.blocks[0].unit.label.endswith("…")
    assert shown.blocks[0].width <= 1.0


def test_text_stands_in_the_middle_of_its_block() -> None:
    drawn = figure()
    shown = token_layout.lay_out(drawn, [b"a"], ROOM)
    axes = token_layout.axes_for(drawn, shown, (0.3, 0.3), ROOM)
    token_layout.draw(axes, shown, np.ones((1, 4)), height=0.1)
    ((_, y),) = (text.get_position() for text in axes.texts)
    assert y == pytest.approx(0.05)
