from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bot.figures import next_tokens
from bot.figures.next_tokens import MAX_CANDIDATES
from tests.figures.builders import caption, drawn, texts

if TYPE_CHECKING:
    from bot.figures import Picture

CANDIDATES = [b" store", b" park", "猫".encode()[:2]]
BEFORE = np.array([0.5, 0.2, 0.1])


def draw(**changes: Any) -> Picture:
    given: dict[str, Any] = {
        "prompt": [b"to", b" the"],
        "candidates": CANDIDATES,
        "before": BEFORE,
        "after": np.array([0.75, 0.25, 0.0]),
        "rest_before": 0.2,
        "rest_after": 0.0,
        "temperature": 0.7,
        "top_k": 2,
        "top_p": 0.9,
    }
    return next_tokens(**given | changes)


def test_the_likeliest_the_rest_and_what_is_cut_are_said() -> None:
    picture = draw()
    assert str(picture.alt) == (
        "Next token: ·store 75.0% and ·park 25.0%; all others 0%. 1 of the 3 tokens shown are cut by the settings."
    )
    said = caption(picture)
    assert "at temperature 0.7, top-k 2, top-p 0.9" in said
    assert "All other tokens: 20.0% before the settings, 0% after." in said


def test_bars_are_the_probabilities_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, draw)
    axes = next(axes for axes in figure.axes if axes.patches)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.5, 0.2, 0.1, 0.2, 0.75, 0.25, 0, 0])
    assert {bar.get_hatch() for bar in axes.patches[:4]} == {"////"}


def test_a_token_that_is_cut_is_crossed_and_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _, figure = drawn(monkeypatch, draw)
    axes = next(axes for axes in figure.axes if axes.patches)
    (cross,) = (line for line in axes.lines if line.get_marker() == "x")
    assert round(cross.get_ydata()[0]) == 2
    assert "10.0% → ✕ cut" in texts(figure)
    assert "E7 8C" in texts(figure)


def test_settings_that_change_nothing_leave_one_bar_each(monkeypatch: pytest.MonkeyPatch) -> None:
    neutral = partial(draw, after=BEFORE, rest_after=0.2, temperature=1, top_k=0, top_p=1)
    _, figure = drawn(monkeypatch, neutral)
    axes = next(axes for axes in figure.axes if axes.patches)
    assert len(axes.patches) == 4
    assert "the settings change nothing" in texts(figure)


def test_greedy_is_said() -> None:
    assert "the likeliest token is always taken" in caption(draw(temperature=0, after=np.array([1.0, 0, 0])))


def test_more_candidates_than_rows_count_as_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = np.full(20, 0.04)
    many = partial(draw, candidates=[b"a"] * 20, before=shares, after=shares, rest_after=0.2)
    picture, figure = drawn(monkeypatch, many)
    assert texts(figure).count("a") == MAX_CANDIDATES
    assert f"all others {1 - 0.04 * MAX_CANDIDATES:.1%}" in str(picture.alt)


@pytest.mark.parametrize(
    "changes",
    [
        {"candidates": []},
        {"before": BEFORE[:2]},
        {"rest_before": 0.5},
        {"after": np.array([1.5, -0.5, 0])},
        {"after": np.array([np.nan, 1, 0])},
    ],
)
def test_what_is_no_distribution_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        draw(**changes)


def test_the_prompt_is_written_as_text_and_not_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    cat = "猫".encode()
    _, figure = drawn(monkeypatch, partial(draw, prompt=[b"my", b" " + cat[:1], cat[1:2], cat[2:]]))
    assert "my·猫" in texts(figure)
