"""One queue for many replicas: whose turn it is, how long it will take, and a second try where a replica died.

A `Dispatcher` knows neither HTTP nor Ray: it is given a `ReplicaPool`, and it is asked for streams of messages. A request is
known by an id that its bot chose. Who asks with the same id again, after the network was gone, finds the request where
it is by now. Every request carries its seed, so another replica writes the same words again.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import structlog

from bot.errors import UserError
from bot.gpt2 import refusals
from bot.gpt2.cluster import protocol
from bot.gpt2.engine import MAX_WAIT_SECONDS, MAX_WAITING
from bot.gpt2.fair_queue import FairQueue
from bot.gpt2.requests import Queued
from bot.gpt2.statistics import SECONDS, Histogram, Statistics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping

    from bot.gpt2.requests import ContinuationRequest
    from bot.gpt2.throughput import Throughput

MAX_REPLICA_ROWS: Final = 96
"""Samples that one replica is given at a time: what its own engine computes in one pass. The rest waits here, where
everyone's share is known."""

KEEPALIVE_SECONDS: Final = 5.0
"""How often a stream says at least that it is still there."""

REPLICA_TIMEOUT_SECONDS: Final = 15.0
"""After how long a silent replica is given up; one that lives says something every second."""

RECONNECT_SECONDS: Final = 15.0
"""How long a request goes on while nobody listens: time to come back in, after the network was gone."""

COUNT_TIMEOUT_SECONDS: Final = 2.0
"""How long a request waits for its prompt to be counted; where nobody can, it is accepted and maybe refused later."""

MAX_REPLICA_LOSSES: Final = 4
"""Replicas that may die while they compute a request, before it is refused as the likely cause."""

REPORT_INTERVAL_SECONDS: Final = 5.0
"""How often every replica is asked how it is doing."""

MISSED_REPORTS: Final = 3
"""A replica that has not answered so many of them is silent; one alone may be late."""

_CHARACTERS_A_TOKEN: Final = 4  # of English prose, where nobody could count
_TICK_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = (0.1, 0.5, 1.0, 2.0)
_STALE_SECONDS: Final = 60.0  # for how long the speed of a replica counts

log = structlog.get_logger(__name__)


class ReplicaLostError(Exception):
    """A replica died or could not be reached; another may do what was asked of it."""


class Frame(NamedTuple):
    """What a replica says of a request, every second at least.

    Attributes:
        message: To be passed on; empty where there is nothing new.
        done: Whether this is the last one.
        begun: Whether there is a token.
        rows_left: Work left, as `bot.gpt2.local.scheduler.Job.rows_left` counts it.
        replica: Who says so.
        throughput: How long its passes take.
    """

    message: bytes
    done: bool
    begun: bool
    rows_left: int
    replica: str
    throughput: Throughput


class Report(NamedTuple):
    """How a replica is doing.

    Attributes:
        replica: Which.
        throughput: How long its passes take.
        statistics: What it has done.
    """

    replica: str
    throughput: Throughput
    statistics: Statistics


class ReplicaPool(Protocol):
    """The replicas. Everything raises ReplicaLostError where a replica is lost."""

    async def size(self) -> int:
        """How many can compute now."""
        ...

    def write(self, request: bytes, owner: str | None) -> AsyncGenerator[Frame, None]:
        """Compute an encoded request on one of them; closing the generator ends it within one token."""
        ...

    async def ask(self, method: str, message: bytes, owner: str | None) -> bytes:
        """The answer to anything else, which may be a refusal. Cancelling the call ends it."""
        ...

    async def reports(self) -> list[Report]:
        """How those of them are doing that answer."""
        ...


@dataclass(eq=False, slots=True)
class _Entry:
    """A request from its arrival to its answer."""

    name: str
    request: ContinuationRequest
    owner: str | None
    rows_left: int
    came: float = field(default_factory=time.monotonic)
    begun: bool = False  # whether anything was ever written, by whichever replica
    accepted: bytes = b""  # said to every listener, before anything else
    message: bytes = b""  # the latest state
    version: int = 0
    done: bool = False
    listeners: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)  # set once, then replaced
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def publish(self, message: bytes, *, done: bool = False) -> None:
        if self.done:
            return
        self.message, self.done, self.version = message, done, self.version + 1
        self.wake()

    def wake(self) -> None:
        """Let everyone who listens look again."""
        self.news.set()
        self.news = asyncio.Event()


class Dispatcher:
    """Takes requests of many bots and gives them to a fleet, everyone's share the same."""

    def __init__(self, fleet: ReplicaPool) -> None:
        self._fleet = fleet
        self._entries: dict[str, _Entry] = {}
        self._queue: FairQueue[_Entry] = FairQueue()
        self._running: set[_Entry] = set()
        self._throughputs: dict[str, tuple[Throughput, float]] = {}  # by replica, with the time it was heard of
        self._reports: dict[str, tuple[Report, float]] = {}  # likewise
        self._first_tokens: dict[str, Histogram] = {}  # by replica
        self._asked = 0
        self._size = 0
        self._surveyed = -REPORT_INTERVAL_SECONDS
        self._tick: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Continuations accepted and not yet answered."""
        return sum(not entry.done for entry in self._entries.values())

    @property
    def replicas(self) -> int:
        """How many could compute when they were last counted."""
        return self._size

    @property
    def computing(self) -> tuple[str, ...]:
        """The replicas that were heard of of late."""
        now = time.monotonic()
        return tuple(sorted(name for name, (_, heard) in self._throughputs.items() if now - heard < _STALE_SECONDS))

    @property
    def tokens_per_second(self) -> float | None:
        """Of late, all replicas together; None before anything was measured."""
        speeds = (self._throughputs[replica][0].tokens_per_second for replica in self.computing)
        known = [speed for speed in speeds if speed is not None]
        return sum(known) if known else None

    @property
    def statistics(self) -> Mapping[str, Statistics]:
        """What each replica has done, by its name; one that was lost within the last minute is among them.

        Waits for the first token are from the acceptance here: those in this queue are part of them.
        """
        now = time.monotonic()
        return {name: self._seen(report, now - heard) for name, (report, heard) in self._reports.items()}

    def start(self) -> None:
        """Begin to count replicas and to tell places in the queue."""
        if self._tick is None:
            self._tick = asyncio.create_task(self._keep_time(), name="keep time")

    async def close(self) -> None:
        """End everything; who listens sees the stream break, and asks elsewhere."""
        tasks = [task for task in (self._tick, *(entry.task for entry in self._entries.values())) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tick = None

    async def listen(self, name: str, request: ContinuationRequest, owner: str | None) -> AsyncIterator[bytes]:
        """What becomes of a request: the latest state each time, the answer last. Nothing said is an empty message.

        Args:
            name: Of this request, unlike any other; the same again joins it where it is.
            request: What to continue.
            owner: Whose share it takes.
        """
        entry = self._entries.get(name)
        if entry is None:
            try:
                entry = self._admit(name, request, owner)
            except UserError as error:
                yield protocol.encode(protocol.to_refusal(error))
                return
        entry.listeners += 1
        try:
            seen, told = 0, False
            while True:
                news = entry.news
                if entry.accepted and not told:
                    told = True
                    yield entry.accepted
                if entry.version > seen:
                    seen, done = entry.version, entry.done
                    yield entry.message
                    if done:
                        return
                    continue
                try:
                    await asyncio.wait_for(news.wait(), KEEPALIVE_SECONDS)
                except TimeoutError:
                    yield b""
        finally:
            entry.listeners -= 1
            if not entry.listeners:
                asyncio.get_running_loop().call_later(RECONNECT_SECONDS, self._forget_if_alone, entry)

    def drop(self, name: str) -> None:
        """Nobody wants the answer to a request any more."""
        entry = self._entries.get(name)
        if entry is not None:
            self._forget(entry)

    async def ask(self, method: str, message: bytes, owner: str | None) -> AsyncIterator[bytes]:
        """The answer to anything but a continuation, after as many empty messages as it takes."""
        if self._asked >= MAX_WAITING:
            yield protocol.encode(protocol.to_refusal(refusals.queue_full(self._asked)))
            return
        self._asked += 1
        answer = asyncio.ensure_future(self._answer(method, message, owner))
        try:
            while not (await asyncio.wait({answer}, timeout=KEEPALIVE_SECONDS))[0]:
                yield b""
            yield answer.result()
        finally:
            self._asked -= 1
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)

    async def _answer(self, method: str, message: bytes, owner: str | None) -> bytes:
        for attempt in range(MAX_REPLICA_LOSSES):
            try:
                return await self._fleet.ask(method, message, owner)
            except ReplicaLostError as error:
                log.warning("a replica was lost; what it was asked is asked again", method=method, error=str(error))
                await asyncio.sleep(_pause(attempt))
        return protocol.encode(protocol.to_refusal(refusals.failed()))

    def _admit(self, name: str, request: ContinuationRequest, owner: str | None) -> _Entry:
        if self.waiting >= MAX_WAITING:
            raise refusals.queue_full(self.waiting)
        seconds = self._time(sum(entry.rows_left for entry in self._entries.values() if not entry.done))
        if seconds > MAX_WAIT_SECONDS:
            raise refusals.wait_too_long(seconds)
        prompt = max(len(request.prompt) // _CHARACTERS_A_TOKEN, 1)
        entry = _Entry(name, request, owner, prompt + request.rows * request.length)
        self._entries[name] = entry
        # In a context of its own: Ray Serve would end what it asks of replicas with the stream that brought it first.
        entry.task = asyncio.create_task(self._serve(entry), name=f"request {name}", context=contextvars.Context())
        return entry

    async def _serve(self, entry: _Entry) -> None:
        """Bring a request to its answer."""
        body = protocol.encode(entry.request)
        try:
            await self._count(entry, body)
            self._queue.add(entry, entry.owner, entry.rows_left)
            entry.wake()
            self._give_turns()
            self._tell_places()
            await entry.turn.wait()
            await self._compute(entry, body)
        except UserError as error:
            entry.publish(protocol.encode(protocol.to_refusal(error)), done=True)
        except Exception as error:
            log.exception("a request failed")
            entry.publish(protocol.encode(protocol.to_refusal(refusals.failed(error))), done=True)
        finally:
            self._queue.discard(entry)
            self._running.discard(entry)
            self._give_turns()

    async def _count(self, entry: _Entry, body: bytes) -> None:
        """Count the prompt's tokens and say that the request is accepted.

        Raises:
            InvalidInputError: Prompt and continuation do not fit the context together.
        """
        count = None
        with contextlib.suppress(ReplicaLostError, TimeoutError):
            answer = await asyncio.wait_for(self._fleet.ask("count", body, entry.owner), COUNT_TIMEOUT_SECONDS)
            count = protocol.decode(answer)
        if isinstance(count, protocol.Refusal):
            raise protocol.to_error(count)
        if count is not None:
            entry.rows_left = count + entry.request.rows * entry.request.length
        entry.accepted = protocol.encode(protocol.Accepted(count))

    async def _compute(self, entry: _Entry, body: bytes) -> None:
        """Let replicas write until one has finished; who listens takes what comes again for what it is, the same."""
        deaths = attempt = 0
        while not entry.done:
            begun = False
            try:
                async with contextlib.aclosing(self._fleet.write(body, entry.owner)) as frames:
                    while not entry.done:
                        frame = await _within(anext(frames), REPLICA_TIMEOUT_SECONDS)
                        begun = True
                        self._learn(frame)
                        if frame.begun and not entry.begun:
                            entry.begun = True
                            waited = self._first_tokens.setdefault(frame.replica, Histogram(SECONDS))
                            waited.add(time.monotonic() - entry.came)
                        entry.rows_left = frame.rows_left
                        if frame.message:
                            entry.publish(frame.message, done=frame.done)
            except (ReplicaLostError, TimeoutError, StopAsyncIteration) as error:
                deaths += begun
                log.warning("a replica was lost; its request is computed again", deaths=deaths, error=repr(error))
                if deaths >= MAX_REPLICA_LOSSES:
                    raise refusals.failed() from error
                await asyncio.sleep(_pause(attempt))
                attempt += 1

    def _give_turns(self) -> None:
        room = MAX_REPLICA_ROWS * max(self._size, 1) - sum(entry.request.rows for entry in self._running)
        for entry in self._queue.ordered():
            if self._running and entry.request.rows > room:
                break  # whoever is first waits for room, or a large request would wait for ever
            self._queue.take(entry)
            self._running.add(entry)
            entry.turn.set()
            room -= entry.request.rows

    def _tell_places(self) -> None:
        running = sum(entry.rows_left for entry in self._running)
        for place, entry in enumerate(self._queue.ordered(), 1):
            running += entry.rows_left
            entry.publish(protocol.encode(Queued(place, self._time(running))))

    def _time(self, rows: int) -> float:
        """Seconds for so much work, shared by all replicas at the throughput of the last one heard."""
        if not self._throughputs:
            return 0.0
        throughput, _ = max(self._throughputs.values(), key=lambda heard: heard[1])
        together = min(rows, MAX_REPLICA_ROWS)
        return throughput.seconds(rows, together) / max(self._size, 1)

    def _learn(self, frame: Frame) -> None:
        self._throughputs[frame.replica] = (frame.throughput, time.monotonic())

    def _forget_if_alone(self, entry: _Entry) -> None:
        if not entry.listeners and self._entries.get(entry.name) is entry:
            self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        del self._entries[entry.name]
        if entry.task:
            entry.task.cancel()

    async def _survey(self) -> None:
        reports = await self._fleet.reports()
        self._surveyed = now = time.monotonic()
        self._throughputs |= {report.replica: (report.throughput, now) for report in reports}
        self._reports |= {report.replica: (report, now) for report in reports}

    def _seen(self, report: Report, silent: float) -> Statistics:
        statistics = report.statistics
        if silent > MISSED_REPORTS * REPORT_INTERVAL_SECONDS:  # its requests are elsewhere by now
            stalled = silent if statistics.computing else 0.0
            statistics = replace(statistics, computing=0, stalled_seconds=stalled)
        waits = self._first_tokens.setdefault(report.replica, Histogram(SECONDS))
        return replace(statistics, first_token_seconds=waits.snapshot())

    def _forget_the_gone(self) -> None:
        self._throughputs = {name: self._throughputs[name] for name in self.computing} or self._throughputs
        self._reports = {name: self._reports[name] for name in self.computing if name in self._reports}
        self._first_tokens = {name: self._first_tokens[name] for name in self.computing if name in self._first_tokens}

    async def _keep_time(self) -> None:
        while True:
            try:
                self._size = await self._fleet.size()
                if self._size and time.monotonic() - self._surveyed >= REPORT_INTERVAL_SECONDS:
                    await self._survey()
            except Exception as error:  # noqa: BLE001 # whatever it is, places and shares go on from what is known
                log.warning("the replicas could not be counted", error=repr(error))
            self._forget_the_gone()
            self._give_turns()
            self._tell_places()
            await asyncio.sleep(_TICK_SECONDS)


async def _within(awaitable: Awaitable[Frame], seconds: float) -> Frame:
    async with asyncio.timeout(seconds):
        return await awaitable


def _pause(attempt: int) -> float:
    return _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)] * random.uniform(0.75, 1.25)
