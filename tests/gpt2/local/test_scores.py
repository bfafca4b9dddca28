"""Scores of heads whose behaviour is known."""

from __future__ import annotations

import numpy as np
import pytest

from bot.gpt2.local.scores import head_scores


def test_scores_of_heads_that_do_one_thing_only() -> None:
    ids = [5, 6, 7, 5, 6, 7, 8]
    weights = np.zeros((1, 4, 7, 7), dtype=np.float32)
    for now in range(7):
        weights[0, 0, now, max(now - 1, 0)] = 1  # looks at the previous token
        weights[0, 1, now, 0] = 1  # at the first
        weights[0, 2, now, now] = 1  # at itself
        weights[0, 3, now, now - 2 if now in {3, 4, 5} else 0] = 1  # at what came after it the last time
    scores = {name: score[0].tolist() for name, score in head_scores(weights, ids).items()}
    assert scores["previous"] == pytest.approx([1, 1 / 6, 0, 1 / 6])
    assert scores["first"] == pytest.approx([1 / 6, 1, 0, 3 / 6])
    assert scores["same"] == pytest.approx([0, 0, 1, 0])
    assert scores["induction"] == pytest.approx([0, 0, 0, 1])


def test_scores_that_cannot_be_measured_are_nan() -> None:
    scores = head_scores(np.eye(3, dtype=np.float32)[None, None], [1, 2, 3])
    assert np.isnan(scores["induction"]).all()
    assert not np.isnan(scores["previous"]).any()
    alone = head_scores(np.ones((2, 3, 1, 1), dtype=np.float32), [1])
    assert all(score.shape == (2, 3) and np.isnan(score).all() for score in alone.values())
