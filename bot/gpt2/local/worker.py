"""The threads that compute passes: an engine's own, or one that several engines share by turns.

Two engines that compute at once would each spread a pass over all cores, and their threads would wait for each other.
On one thread they also share PyTorch's pool of threads; with a pool for each model, even the idle ones would make
OpenMP's waiting slower, because there would be more threads than cores.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from bot.gpt2.local.scheduler import Scheduler

TURN_SECONDS: Final = 0.1
"""How long an engine computes before the next one has its turn; a longer pass is a turn by itself.

Turns are equally long and not equally many passes, so that a large model slows a small one no more than the other way
around."""


class Worker:
    """The thread of one engine.

    Attributes:
        loader: The thread that loads the model.
        sharers: The number of engines that compute; each is about so many times slower than it would be alone.
    """

    sharers = 1

    def __init__(self) -> None:
        self.loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpt2-worker")

    def end_loading(self) -> None:
        """Keep the thread: it computes what it has loaded."""

    def run(self, scheduler: Scheduler) -> asyncio.Future[bool]:
        """Have a scheduler compute until it has no work left."""
        return asyncio.get_running_loop().run_in_executor(self.loader, scheduler.run)

    def close(self) -> None:
        """End the thread; blocks until it has ended its work."""
        self.loader.shutdown(wait=True, cancel_futures=True)


class SharedWorker:
    """A thread for the passes of several engines, which take turns in the order in which they ask for them.

    Attributes:
        executor: The thread.
        threads: The number of threads in which PyTorch computes a pass by default.
        sharers: The number of engines that compute at present.
    """

    def __init__(self) -> None:
        # Read now: the engines tune the number, and threads that begin later would take over what they chose.
        self.threads = torch.get_num_threads()
        self.executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpt2-worker")
        self.sharers = 0

    def close(self) -> None:
        """End the thread; blocks until it has ended its work."""
        self.executor.shutdown(wait=True, cancel_futures=True)


class Share:
    """One engine's share of a `SharedWorker`, used like a `Worker`; loading has a thread of its own."""

    def __init__(self, shared: SharedWorker) -> None:
        self._shared = shared
        self.loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpt2-loader")

    @property
    def sharers(self) -> int:
        """See `Worker`."""
        return max(self._shared.sharers, 1)

    def end_loading(self) -> None:
        """End the thread for loading, and its pool of threads with it."""
        self.loader.shutdown(wait=False)

    def run(self, scheduler: Scheduler) -> asyncio.Future[bool]:
        """Have a scheduler compute, turn by turn, until it has no work left."""
        return asyncio.create_task(self._take_turns(scheduler), name="compute")

    def close(self) -> None:
        """End the thread for loading; blocks until the shared one has ended the turns that were asked for before."""
        self.loader.shutdown(wait=True, cancel_futures=True)
        self._shared.executor.submit(_nothing).result()

    async def _take_turns(self, scheduler: Scheduler) -> bool:
        self._shared.sharers += 1
        try:
            while await asyncio.get_running_loop().run_in_executor(self._shared.executor, scheduler.run, TURN_SECONDS):
                pass
        finally:
            self._shared.sharers -= 1
        return False


def _nothing() -> None:
    """Do nothing, in the thread's next turn."""
