"""Tests of the work that two threads share."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch

from bot.gpt2.local.sharing import run_all

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_call_is_made_once(threads: int) -> None:
    for number in (0, 1, 2, 3, 50):
        made: list[int] = []
        calls = [partial(made.append, each) for each in range(number)]
        assert run_all(calls) == [None] * number
        assert sorted(made) == list(range(number))
    assert sorted(run_all([partial(abs, -each) for each in range(20)])) == list(range(20))


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_two_threads_make_them_each_with_one_thread_of_pytorch(threads: int) -> None:
    both = threading.Barrier(2, timeout=30)
    state = {}

    def call() -> None:
        state[threading.get_ident()] = (torch.get_num_threads(), torch.is_inference_mode_enabled())
        both.wait()  # or one thread may make both

    run_all([call, call])
    own = state.pop(threading.get_ident())
    assert own == (threads, True)
    assert list(state.values()) == [(1, True)]
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()
    numbers: list[int] = []
    later = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert numbers == [threads], "threads to come have the default"


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_one_thread_makes_them_alone(threads: int) -> None:
    assert set(run_all([threading.get_ident] * 20)) == {threading.get_ident()}


def test_an_error_is_raised_when_no_call_is_running(threads: int) -> None:
    running, most = 0, 20
    lock = threading.Lock()

    def call(number: int) -> None:
        nonlocal running
        with lock:
            running += 1
        try:
            torch.ones(100_000).exp()
            if number in {0, 1, most - 1}:  # on either thread, and on both
                raise FloatingPointError(str(number))
        finally:
            with lock:
                running -= 1

    for _ in range(20):
        with pytest.raises(FloatingPointError):
            run_all([partial(call, number) for number in range(most)])
        assert not running
    assert run_all([int, int]) == [0, 0], "the second thread goes on"
