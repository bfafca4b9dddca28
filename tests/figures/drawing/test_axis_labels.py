from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bot.figures.drawing import canvas
from bot.figures.drawing.axis_labels import label_columns, label_rows
from tests.figures.builders import labels, to_pixels

WORDS = ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("upright", [False, True])
def test_a_label_stands_at_its_row_and_column(lanes: int, upright: bool) -> None:
    figure = canvas.clear_figure("", "")
    axes = canvas.clear_axes(figure, (2, 2, 4, 2), "", "")
    axes.imshow(np.eye(len(WORDS)), aspect="auto")
    axes.set_axis_off()
    label_rows(axes, figure, WORDS, 0.9, lanes)
    label_columns(axes, figure, WORDS, 0.5, lanes, upright=upright)
    to_pixels(figure)
    written = labels(figure)
    rows, columns = written[: len(WORDS)], written[len(WORDS) :]
    assert [label.get_text() for label in written] == WORDS * 2
    places = axes.transData.transform([(number, number) for number in range(len(WORDS))])
    for place, row, column in zip(places, rows, columns, strict=True):
        across, down = row.get_window_extent(), column.get_window_extent()
        assert (across.y0 + across.y1) / 2 == pytest.approx(place[1], abs=4)
        assert (down.x0 + down.x1) / 2 == pytest.approx(place[0], abs=4)
        assert across.x1 < axes.bbox.x0
        assert down.y1 < axes.bbox.y0
    for one, two in pairwise(rows):
        assert bool(abs(one.get_window_extent().x1 - two.get_window_extent().x1) < 1) is (lanes == 1)
