from __future__ import annotations

import numpy as np
import pytest

from bot.figures.drawing.summary import limits, summarize
from tests.figures.builders import noise


@pytest.mark.parametrize("shape", [(7,), (30, 40)])
def test_extremes_and_their_places_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    values = noise(*shape)
    summary = summarize(values)
    assert (summary.low, summary.high) == (values.min(), values.max())
    assert summary.low_at == np.unravel_index(values.argmin(), shape)
    assert summary.high_at == np.unravel_index(values.argmax(), shape)
    assert summary.missing == 0


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    values = np.array([[np.nan, 1, -np.inf], [3, np.inf, -2]])
    summary = summarize(values)
    assert (summary.low, summary.low_at) == (-2, (1, 2))
    assert (summary.high, summary.high_at) == (3, (1, 0))
    assert (summary.missing, summary.size) == (3, 6)


def test_nothing_finite_has_no_extremes() -> None:
    summary = summarize(np.full((2, 2), np.inf))
    assert np.isnan([summary.low, summary.high]).all()
    assert summary.missing == 4


@pytest.mark.parametrize(("low", "high"), [(0, 0), (3, 3), (-5, -5), (1, 1 + 1e-9), (np.nan, np.nan)])
def test_limits_of_almost_nothing_are_apart(low: float, high: float) -> None:
    below, above = limits(low, high)
    assert above - below > 1e-6


def test_limits_of_a_range_are_the_range() -> None:
    assert limits(-4.5, 4) == (-4.5, 4)
