"""The bot in a process of its own: started, watched, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.loopback import forked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from tests.loopback.forked import ForkedProcess
    from tests.loopback.server import LoopbackDiscord

ROOT = Path(__file__).parents[2]
# What a process needs of this one's environment; the bot's settings are not among it.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "SYSTEMROOT", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_KEPT_LINES = 5000


class BotExitedError(Exception):
    """The process ended while something was expected of it; the text has its exit code and last words."""


class BotProcess:
    """A bot run by ``tests.loopback.launcher``, an async context manager.

    It starts in an empty folder, so that no ``.env`` of the checkout reaches it, with the given settings and
    ``DISCORD_TOKEN`` alone in its environment. Leaving the context stops it as a supervisor does, then kills it.

    Args:
        discord: The server it shall talk to.
        *arguments: The bot's own command line.
        env: Its settings.
        cwd: Another folder to start in.
        entry: What to run in it, as ``module:function``; the product's main by default.
        stop_seconds: How long it may take to stop before it is killed, on leaving the context.
        fresh: Whether a new interpreter imports everything, rather than a fork of one that has; see `forked`.

    Attributes:
        stdout: The lines it has printed.
        stderr: The lines it has logged.
    """

    def __init__(
        self,
        discord: LoopbackDiscord,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        entry: str | None = None,
        stop_seconds: float = 15.0,
        fresh: bool = not forked.AVAILABLE,
    ) -> None:
        self._discord = discord
        self._arguments = arguments
        self._env = dict(env or {})
        self._cwd = cwd
        self._entry = entry
        self._stop_seconds = stop_seconds
        self._fresh = fresh
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: asyncio.subprocess.Process | ForkedProcess | None = None
        self._watchers: list[asyncio.Task[None]] = []
        self._ended = False
        self.stdout: list[str] = []
        self.stderr: list[str] = []

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._running().pid

    @property
    def exit_code(self) -> int | None:
        """Return the exit code; None while it runs, negative where a signal ended it."""
        return self._process.returncode if self._process is not None else None

    @property
    def log(self) -> str:
        """Return all it has logged."""
        return "\n".join(self.stderr)

    def _running(self) -> asyncio.subprocess.Process | ForkedProcess:
        if self._process is None:
            raise RuntimeError("the bot was not started")
        return self._process

    async def start(self) -> Self:
        """Start the process, and don't wait for anything."""
        if self._cwd is None:
            self._folder = tempfile.TemporaryDirectory(prefix="loopback-bot-")
        environment = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "DISCORD_TOKEN": self._discord.token}
        environment["HEALTH_PORT"] = "0"  # several run at one time
        arguments = [
            "--api",
            self._discord.address,
            *(("--entry", self._entry) if self._entry else ()),
            *self._arguments,
        ]
        folder = str(self._cwd) if self._folder is None else self._folder.name
        environment |= self._env
        if self._fresh:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.loopback.launcher"),
                *arguments,
                env=environment,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        else:
            self._process = await forked.start(arguments, environment, folder)
        self._watchers = [
            asyncio.create_task(self._collect(self._process.stdout, self.stdout)),
            asyncio.create_task(self._collect(self._process.stderr, self.stderr)),
            asyncio.create_task(self._watch(self._process)),
        ]
        return self

    async def _collect(self, stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        assert stream is not None
        while line := await stream.readline():
            lines.append(line.decode(errors="replace").rstrip("\r\n"))
            del lines[:-_KEPT_LINES]
            self._discord.changes.announce()

    async def _watch(self, process: asyncio.subprocess.Process | ForkedProcess) -> None:
        await process.wait()
        self._ended = True
        self._discord.changes.announce()

    async def ready(self, *, within: float = 60.0, commands: bool = True, shards: Sequence[int] | None = None) -> None:
        """Wait until the server has seen its shards (all, by default) come and, with ``commands``, commands registered.

        Raises:
            BotExitedError: If the process ends first.
        """
        gateway = self._discord.gateway

        def there() -> bool:
            live = all(map(gateway.live, shards if shards is not None else range(gateway.settings.shards)))
            return self._ended or (live and (not commands or bool(self._discord.commands.names())))

        await self._discord.changes.until(there, within=within, what=lambda: f"bot ready:\n{self._last_words()}")
        if self._ended:
            raise BotExitedError(await self._obituary())

    async def loaded(self) -> None:
        """Wait until it is ready and so is its model."""
        await self.ready()
        await self.logged("the model is ready")

    async def logged(self, text: str, *, within: float = 30.0) -> str:
        """Wait for a line on stderr or stdout that contains ``text``, and return it."""

        def line() -> str | None:
            return next((line for line in [*self.stderr, *self.stdout] if text in line), None)

        found = await self._discord.changes.until(
            lambda: line() or self._ended, within=within, what=lambda: f"a line with {text!r}:\n{self._last_words()}"
        )
        if not isinstance(found, str):
            await self.wait()
            if (late := line()) is None:
                raise BotExitedError(await self._obituary())
            return late
        return found

    async def wait(self, *, within: float = 30.0) -> int:
        """Wait for the process to end by itself, its last lines read, and return its exit code."""
        process = self._running()
        async with asyncio.timeout(within):
            await asyncio.gather(*self._watchers)
        assert process.returncode is not None
        return process.returncode

    async def stop(self, *, within: float = 15.0) -> int:
        """Ask it to end as a supervisor does (SIGTERM) and return its exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait(within=within)

    async def kill(self) -> None:
        """End it at once (SIGKILL), and wait until the server has seen its connections go."""
        gateway = self._discord.gateway
        self.signal(signal.SIGKILL)
        await self.wait()
        await gateway.until(lambda g: not any(map(g.live, g.sessions)), what="connections of the killed bot gone")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.exit_code is None:
            self._running().send_signal(number)

    def _last_words(self) -> str:
        return "\n".join([*self.stdout[-5:], *self.stderr[-40:]])

    async def _obituary(self) -> str:
        code = await self.wait()
        return f"the bot ended with exit code {code}\n{self._last_words()}"

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._process is not None and self.exit_code is None:
                try:
                    await self.stop(within=self._stop_seconds)
                except TimeoutError:
                    self.signal(signal.SIGKILL)
            if self._process is not None:
                await self.wait()
        finally:
            if self._folder is not None:
                self._folder.cleanup()
