"""The thread tuner: fewer threads under other load, all of them when it is gone; and how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from bot.gpt2.local.threads import MAX_TRIAL_SECONDS, SPINS, ThreadTuner, limit_spinning
from tests.command_line import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

QUIET = 0.015
ALONE = {1: 0.030, 2: 0.015}
CROWDED = {1: 0.035, 2: 0.160}  # measured with GPT-2 small beside two test suites


class Machine:
    """A machine with a given pass duration for each number of threads."""

    def __init__(self, most: int) -> None:
        self.now = 100.0
        self.tuner = ThreadTuner(most, lambda: self.now)

    def run(self, passes: int, seconds: Mapping[int, float] | Callable[[int], float]) -> Counter[int]:
        """Return the number of passes for each number of threads."""
        used: Counter[int] = Counter()
        for _ in range(passes):
            threads = self.tuner.choose()
            took = seconds(threads) if callable(seconds) else seconds[threads]
            self.now += took
            self.tuner.record(QUIET, took)
            used[threads] += 1
        return used


def test_on_a_quiet_machine_all_threads_compute_and_trials_are_rare() -> None:
    used = Machine(2).run(10_000, ALONE)
    assert used[1] <= 3 + 10_000 * QUIET / MAX_TRIAL_SECONDS


def test_a_few_slow_passes_are_reason_enough_for_fewer() -> None:
    assert Machine(2).run(50, CROWDED)[2] <= 5


def test_what_begins_later_is_noticed_at_once() -> None:
    machine = Machine(2)
    machine.run(300, ALONE)
    assert machine.run(50, CROWDED)[2] <= 5


def test_among_others_trials_cost_little() -> None:
    used = Machine(2).run(10_000, CROWDED)
    assert used[2] * CROWDED[2] < 0.02 * used[1] * CROWDED[1]


def test_all_threads_come_back_when_the_machine_is_quiet_again() -> None:
    machine = Machine(2)
    machine.run(5_000, CROWDED)
    machine.run(int(MAX_TRIAL_SECONDS / ALONE[1]) + 5, ALONE)
    assert machine.run(100, ALONE)[2] >= 99


def test_one_slow_pass_among_many_changes_nothing_for_long() -> None:
    machine = Machine(2)
    machine.run(300, ALONE)
    machine.run(1, {1: 0.5, 2: 0.5})
    assert machine.run(200, ALONE)[2] >= 198


@pytest.mark.parametrize("best", [1, 2, 4, 8])
def test_of_many_threads_the_best_number_is_found(best: int) -> None:
    machine = Machine(8)

    def seconds(threads: int) -> float:
        return QUIET * max(threads / best, best / threads)

    machine.run(20_000, seconds)
    assert machine.run(1_000, seconds).most_common(1)[0][0] == best


def test_idle_time_is_no_reason_for_a_trial_unless_threads_are_missing() -> None:
    machine = Machine(2)
    machine.run(20, ALONE)
    for _ in range(20):
        machine.now += 60
        assert machine.run(3, ALONE)[1] == 0
    machine.run(50, CROWDED)
    assert machine.tuner.threads == 1
    machine.now += 60
    machine.run(3, ALONE)
    assert machine.tuner.threads == 2


def test_an_odd_number_is_come_back_to() -> None:
    machine = Machine(6)
    machine.run(2_000, {6: 0.1, 3: 0.06, 1: 0.03, 2: 0.05, 4: 0.07})
    assert machine.tuner.threads == 1
    machine.run(20_000, {6: 0.01, 3: 0.02, 1: 0.06, 2: 0.03, 4: 0.015})
    assert machine.tuner.threads == 6


def test_a_single_thread_has_no_choice() -> None:
    assert Machine(1).run(10_000, {1: 1.0}) == {1: 10_000}


def test_openmp_learns_how_long_to_spin() -> None:
    program = (
        "import os; from bot.gpt2.local.threads import limit_spinning; limit_spinning(os.environ)\n"
        "import sys; assert 'torch' not in sys.modules; import torch"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    if "GOMP_SPINCOUNT" not in process.stderr:
        pytest.skip("this PyTorch has another OpenMP than GNU's")
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in process.stderr


@pytest.mark.parametrize("given", [{"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "active"}])
def test_an_operator_may_say_how_threads_wait(given: dict[str, str]) -> None:
    environment = dict(given)
    limit_spinning(environment)
    assert environment == given
