"""Processes forked from one that has imported the bot's libraries: torch and Transformers cost every start 4 s of CPU.

`multiprocessing`'s fork server keeps that process, one for each process of tests. What it forks is a process like any
other, with a pid, an environment, streams and a folder of its own, and dies of signals alike. Only what libraries read
from the environment while they are imported was read before.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
import threading
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Final
from unittest import mock

from tests.loopback import launcher

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
    from multiprocessing.context import ForkServerProcess

AVAILABLE: Final = "forkserver" in multiprocessing.get_all_start_methods()
"""Whether this system can fork."""

_PRELOADED: Final = ["bot.cli.run", "bot.gpt2.local.engine", "tests.loopback.launcher"]

_starting = threading.Lock()


class ForkedProcess:
    """A running fork of `tests.loopback.launcher`; like `asyncio.subprocess.Process`, as far as `BotProcess` needs it.

    Attributes:
        pid: Its process id.
        stdout: What it prints.
        stderr: What it logs.
    """

    def __init__(
        self, process: ForkServerProcess, pid: int, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader
    ) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self._process = process
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(process.sentinel, self._on_end)

    @property
    def returncode(self) -> int | None:
        """Return the exit code; None while it runs, negative if a signal ended it."""
        return self._process.exitcode

    async def wait(self) -> int:
        """Wait for its end and return the exit code."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        self._ended.set()


async def start(arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> ForkedProcess:
    """Fork a process that runs the launcher with these arguments, in this environment and folder."""
    with tempfile.TemporaryDirectory(prefix="loopback-fork-") as pipes:
        names = [os.path.join(pipes, name) for name in ("stdout", "stderr")]  # noqa: PTH118 # for the other process
        readers = [await _reader(name) for name in names]
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_run, args=(tuple(names), tuple(arguments), dict(environment), folder))
        await asyncio.to_thread(_start, process, environment)
        assert process.pid is not None
        return ForkedProcess(process, process.pid, *[await reader for reader in readers])


async def _reader(pipe: str) -> asyncio.Task[asyncio.StreamReader]:
    """Make a pipe and begin to read it: opening it waits for the other end."""
    os.mkfifo(pipe)

    async def connect() -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        file = await asyncio.to_thread(open, pipe, "rb", 0)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
        return reader

    return asyncio.create_task(connect())


def _start(process: ForkServerProcess, environment: Mapping[str, str]) -> None:
    with _starting:
        # The server itself, started by the first, knows no more of this machine's settings than its forks.
        bare = {name: os.environ[name] for name in environment if name in os.environ}
        with mock.patch.dict(os.environ, bare | {"PYTHONPATH": environment["PYTHONPATH"]}, clear=True):
            forkserver.set_forkserver_preload(_PRELOADED)
            forkserver.ensure_running()
        process.start()


def _run(pipes: tuple[str, str], arguments: tuple[str, ...], environment: dict[str, str], folder: str) -> None:
    """Become the bot's process."""
    for number, pipe in enumerate(pipes, 1):
        file = os.open(pipe, os.O_WRONLY)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = sys.__stdout__ = open(1, "w", buffering=1, closefd=False)  # type: ignore[misc] # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # type: ignore[misc] # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [launcher.__file__, *arguments]
    sys.exit(launcher.main(arguments))
