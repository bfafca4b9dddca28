"""The work between two products of a pass, shared with a second thread.

Drawing the tokens of a crowd takes a seventh of its pass, most of it in PyTorch and NumPy without Python's lock. One of
the threads that compute products would do it alone, while the cores of the others idle.
"""

from __future__ import annotations

import functools
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def run_all(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Run independent calls, on a second thread too where products have several, and return their results in any order.

    Each thread takes a call whenever it has time: where other programs use the second core, this one makes them alone.

    Raises:
        Exception: That of a call that failed. Others may have been made or not; none is still running.
    """
    if len(calls) < 2 or torch.get_num_threads() < 2:  # noqa: PLR2004
        return [call() for call in calls]
    left = deque(calls)
    try:
        helped = _helper().submit(_run, left)
    except RuntimeError:  # Python is shutting down
        return _run(left)
    try:
        results = _run(left)
    finally:
        left.clear()
        wait([helped])
    return results + helped.result()


@torch.inference_mode()
def _run(left: deque[Callable[[], T]]) -> list[T]:
    results = []
    while left:
        try:
            call = left.popleft()
        except IndexError:  # the other thread took the last one
            break
        results.append(call())
    return results


@functools.cache
def _helper() -> ThreadPoolExecutor:
    """Return the second thread, one for all engines."""
    threads = torch.get_num_threads()
    helper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpt2-helper")
    helper.submit(_compute_alone).result()
    torch.set_num_threads(threads)  # what the other thread has set would be the default of threads to come
    return helper


def _compute_alone() -> None:
    """Have PyTorch use no other thread for the operations of this one."""
    torch.get_num_threads()  # a thread takes the default when it first needs it, and would do so later
    torch.set_num_threads(1)
