"""An estimate must be neither hopeful nor frightening."""

from __future__ import annotations

import pytest

from bot.gpt2.throughput import Throughput


def test_many_together_take_less_than_one_after_another() -> None:
    throughput = Throughput(base=0.02, per_row=0.001)
    assert throughput.seconds(100, 1) == pytest.approx(100 * 0.021)
    assert throughput.seconds(100, 50) == pytest.approx(2 * 0.02 + 100 * 0.001)
    assert throughput.seconds(0, 50) == 0
    assert throughput.seconds(10, 0) == throughput.seconds(10, 1)


def test_a_quiet_hour_does_not_make_a_crowd_look_slow() -> None:
    """Single samples run at a tenth of the speed of a full batch, and say nothing about that."""
    throughput = Throughput(base=0.02, per_row=0.001)
    before = throughput.seconds(4000, 80)
    for _ in range(1000):
        throughput.record(rows=1, tokens=1, seconds=0.021)
    assert throughput.tokens_per_second == pytest.approx(1 / 0.021)
    assert throughput.seconds(4000, 80) == pytest.approx(before)


def test_what_turns_out_slower_is_expected_to_stay_so() -> None:
    throughput = Throughput(base=0.02, per_row=0.001)
    for _ in range(200):
        throughput.record(rows=10, tokens=10, seconds=0.06)
    assert throughput.seconds(10, 10) == pytest.approx(0.06, rel=0.01)
    assert throughput.seconds(80, 80) == pytest.approx(0.2, rel=0.01)


def test_reading_a_prompt_does_not_count_as_writing_slowly() -> None:
    throughput = Throughput(base=0.02, per_row=0.001)
    throughput.record(rows=64, tokens=0, seconds=0.084)
    assert throughput.tokens_per_second is None
