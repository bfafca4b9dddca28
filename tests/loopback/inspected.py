"""The bot, which can be looked into while it runs, however stuck it is; run as a process's `entry`.

On SIGUSR1 it prints how many tasks its event loop has. On SIGUSR2 it writes to standard error where all its threads
and tasks are, between two lines that begin with ``STACKS``. Both work from the first moment to the last, with the event
loop blocked or closed: the threads are told by `faulthandler`, whose handler needs no interpreter.
"""

from __future__ import annotations

import asyncio
import faulthandler
import io
import itertools
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from bot.__main__ import main as run

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "inspected: "
STACKS = "stacks of "
END_OF_STACKS = f"{STACKS}all tasks told"

_STDOUT, _STDERR = 1, 2


class Inspection:
    """What the two signals tell."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._counter = itertools.count(1)

    def begin(self) -> None:
        """Heed the signals, and learn of the event loop when it is made."""
        whole = asyncio.Runner.run

        def watched(runner: asyncio.Runner, coroutine: Any, **more: Any) -> Any:
            self._loop = runner.get_loop()
            return whole(runner, coroutine, **more)

        asyncio.Runner.run = watched  # type: ignore[method-assign,assignment]
        # Not the loop's own handlers: closing it removes them, and then the signal would end the process.
        signal.signal(signal.SIGUSR1, self._count)
        signal.signal(signal.SIGUSR2, self._tell_tasks)
        faulthandler.register(signal.SIGUSR2, file=_STDERR, all_threads=True, chain=True)

    def _tasks(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks(self._loop) if self._loop else set()

    def _count(self, *_: object) -> None:
        _write(_STDOUT, PREFIX + json.dumps({"tasks": len(self._tasks()), "time": next(self._counter)}))

    def _tell_tasks(self, *_: object) -> None:
        text = io.StringIO()
        print(f"{STACKS}{len(self._tasks())} tasks", file=text)
        for task in self._tasks():
            task.print_stack(file=text)
        _write(_STDERR, text.getvalue() + END_OF_STACKS)


def _write(descriptor: int, text: str) -> None:
    """Write past Python's streams, since a signal may interrupt a line that is being written to them."""
    data = f"{text}\n".encode()
    while data:
        data = data[os.write(descriptor, data) :]


def main(arguments: Sequence[str]) -> int:
    """Run the bot's own main."""
    Inspection().begin()
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
