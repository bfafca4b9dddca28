from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bot.figures import Picture, lens
from bot.figures.drawing import canvas, colormaps
from bot.figures.lens import FRAME, MAX_COLUMNS, MAX_ROWS
from tests.figures.builders import caption, drawn, texts


def draw(layers: int, size: int, settled: int) -> Picture:
    return lens(
        pieces=[f" in{i}".encode() for i in range(size)],
        tops=[[f" r{row}c{i}".encode() for i in range(size)] for row in range(layers + 1)],
        probabilities=probabilities(layers, size),
        settled=np.full(size, settled),
    )


def probabilities(layers: int, size: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.random.default_rng(0).random((layers + 1, size))


def test_rows_are_the_embedding_and_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, figure = drawn(monkeypatch, lambda: draw(3, 4, 2))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["embed.", "1", "2", "3"]
    assert {f"·r{row}c{i}" for row in range(4) for i in range(4)} <= set(texts(figure))
    colours = colormaps.share_colours(np.sqrt(probabilities(3, 4)))
    np.testing.assert_allclose(axes.collections[0].get_array(), colours)
    assert str(picture.alt).startswith("Logit lens of 3 layers: after the last token, ·in3, the answer ·r3c3 (")
    assert str(picture.alt).endswith("stands from layer 2 on.")


def test_the_settled_answer_is_framed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, lambda: draw(3, 4, 2))
    frames = [patch for patch in figure.axes[0].patches if canvas.rgb(FRAME) == tuple(patch.get_edgecolor()[:3])]
    assert len(frames) == 4
    assert all(1.5 < frame.get_y() < 2 and frame.get_y() + frame.get_height() > 3 for frame in frames)


def test_of_many_tokens_the_last_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, figure = drawn(monkeypatch, lambda: draw(3, 40, 0))
    assert sum(text.startswith("·in") for text in texts(figure)) == MAX_COLUMNS
    assert f"Showing the last {MAX_COLUMNS} of 40 tokens." in caption(picture)
    assert "stands from the embedding on" in str(picture.alt)
    assert "Half of the answers are final from the embedding on." in caption(picture)


@pytest.mark.parametrize("layers", [12, 24, 36, 48])
def test_of_many_layers_some_are_shown_and_the_last(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, figure = drawn(monkeypatch, lambda: draw(layers, 3, layers))
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert (rows[0], rows[-1]) == ("embed.", str(layers))
    assert len(rows) <= MAX_ROWS
    assert ("layers." in caption(picture)) is (len(rows) <= layers)


def test_arrays_that_do_not_fit_are_refused() -> None:
    good = {"pieces": [b"a"], "tops": [[b"a"], [b"b"]], "probabilities": np.ones((2, 1)), "settled": np.zeros(1, int)}
    for wrong in (
        {"pieces": []},
        {"tops": [[b"a"]]},
        {"probabilities": np.ones((1, 2))},
        {"settled": np.array([2])},
    ):
        with pytest.raises(ValueError, match="lens"):
            lens(**good | wrong)


def test_labels_do_not_overlap_and_are_cut_only_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"probabilities": np.ones((2, MAX_COLUMNS)), "settled": np.zeros(MAX_COLUMNS, int)}
    long, short = b" language", b" a"
    for pieces in ([long, short] * (MAX_COLUMNS // 2), [long * 3] * MAX_COLUMNS):
        _, figure = drawn(monkeypatch, lambda pieces=pieces: lens(pieces=pieces, tops=[pieces] * 2, **nothing))
        bold = [text for text in figure.axes[0].texts if text.get_weight() == "bold"]
        assert len(bold) == MAX_COLUMNS
        boxes = [text.get_window_extent() for text in bold]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
        assert any("…" in text.get_text() for text in bold) is (short not in pieces)
