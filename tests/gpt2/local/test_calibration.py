"""The durations that are measured at the start."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from bot.gpt2.local import calibration
from bot.gpt2.local.calibration import Durations, compute, measure
from bot.gpt2.model.loading import load

if TYPE_CHECKING:
    from pathlib import Path


def test_durations_lie_on_straight_lines_between_and_beyond_the_measured_ones() -> None:
    durations = Durations((4, 6, 16), (2.0, 2.0, 7.0))
    assert [durations(rows) for rows in (1, 4, 5, 6, 8, 16, 20)] == [2, 2, 2, 2, 3, 7, 9]


def test_the_line_goes_through_the_first_and_the_last() -> None:
    throughput = Durations((4, 6, 14), (3.0, 9.0, 8.0)).throughput()
    assert [throughput.baseline_seconds(rows) for rows in (4, 14)] == [3, 8]
    assert Durations((4, 8), (1.0, 3.0)).throughput().base > 0, "a pass without rows takes some time"


def test_models_are_measured_in_turn_and_disturbances_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(run: str, rows: int) -> float:
        calls.append((run, rows))
        disturbed = len(calls) <= 6 or (run, rows) == ("first", 6)
        return (100.0 if disturbed else 1.0) * rows * (1 if run == "first" else 3)

    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(calibration, "_seconds", seconds)
    first, second = measure("first", "second", rows=(4, 6, 10))  # type: ignore[arg-type]
    assert calls[:4] == [("first", 4), ("second", 4), ("first", 6), ("second", 6)]
    assert first == Durations((4, 6, 10), (4.0, 10.0, 10.0)), "no pass takes longer than one of more rows"
    assert second == Durations((4, 6, 10), (12.0, 18.0, 30.0))


def test_a_model_is_measured(tiny_model: Path) -> None:
    transformer = load(str(tiny_model), device="cpu").transformer
    (durations,) = measure(functools.partial(compute, transformer))
    assert 0 < durations(1) <= durations(48) < 1
    throughput = durations.throughput()
    assert throughput.base > 0
    assert throughput.per_row >= 0
