"""One queue for many replicas: fair scheduling, estimates of the wait, and retries on the loss of a replica.

A `Dispatcher` knows neither HTTP nor Ray: it gets a `ReplicaPool` and serves streams of messages. Its bot chooses the
id of a request. A bot that asks again with the same id, after a network failure, joins the request in its current
state. Every request carries its seed, so another replica generates the same words again.
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
"""Samples dispatched to a replica at a time: what its engine computes in one pass. The rest waits here, where owners'
shares are known."""

KEEPALIVE_SECONDS: Final = 5.0
"""Interval of the empty messages on an otherwise silent stream."""

REPLICA_TIMEOUT_SECONDS: Final = 15.0
"""Silence after which a replica counts as lost; a live one sends a frame every second."""

RECONNECT_SECONDS: Final = 15.0
"""Time that a request continues without a listener, so that its bot can reconnect."""

COUNT_TIMEOUT_SECONDS: Final = 2.0
"""Time limit for counting a prompt's tokens; an uncounted prompt is accepted and may be refused later."""

MAX_REPLICA_LOSSES: Final = 4
"""Replicas lost while computing a request, after which it is refused as the likely cause."""

REPORT_INTERVAL_SECONDS: Final = 5.0
"""Interval between reports of the replicas."""

MISSED_REPORTS: Final = 3
"""Reports in a row that a silent replica has missed; a single one may be late."""

_CHARACTERS_PER_TOKEN: Final = 4  # in English prose, for prompts that are not counted yet
_TICK_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = (0.1, 0.5, 1.0, 2.0)
_STALE_SECONDS: Final = 60.0  # age at which a replica's throughput and report are dropped

log = structlog.get_logger(__name__)


class ReplicaLostError(Exception):
    """A replica died or is unreachable; another may take over."""


class Frame(NamedTuple):
    """A replica's message about a request, sent every second at least.

    Attributes:
        message: Encoded message for the bot; empty if nothing is new.
        done: Whether this frame is the last.
        has_tokens: Whether the request has any new token.
        rows_left: Remaining work, as in `bot.gpt2.local.scheduler.Job.rows_left`.
        replica: Name of the replica.
        throughput: Of the replica.
    """

    message: bytes
    done: bool
    has_tokens: bool
    rows_left: int
    replica: str
    throughput: Throughput


class Report(NamedTuple):
    """A replica's state.

    Attributes:
        replica: Its name.
        throughput: Cost of its passes.
        statistics: Its work so far.
    """

    replica: str
    throughput: Throughput
    statistics: Statistics


class ReplicaPool(Protocol):
    """The replicas of a cluster. All methods raise ReplicaLostError on the loss of a replica."""

    async def size(self) -> int:
        """Count the running replicas."""
        ...

    def generate(self, request: bytes, owner: str | None) -> AsyncGenerator[Frame, None]:
        """Compute an encoded request on a replica; closing the generator stops it within one token."""
        ...

    async def call(self, method: str, message: bytes, owner: str | None) -> bytes:
        """Call another method on a replica and return its answer or refusal. Cancelling the call ends it."""
        ...

    async def reports(self) -> list[Report]:
        """Return the latest report of each replica that has sent any since the last call."""
        ...


@dataclass(eq=False, slots=True)
class _Entry:
    """A request from its acceptance to its answer."""

    name: str
    request: ContinuationRequest
    owner: str | None
    rows_left: int
    accepted_at: float = field(default_factory=time.monotonic)
    has_tokens: bool = False  # from any replica, ever
    acceptance: bytes = b""  # first message to every listener
    message: bytes = b""  # latest state
    version: int = 0  # of the message
    done: bool = False
    listeners: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # replaced whenever it is set
    scheduled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def publish(self, message: bytes, *, done: bool = False) -> None:
        """Replace the latest state, unless the request is done."""
        if self.done:
            return
        self.message, self.done, self.version = message, done, self.version + 1
        self.notify()

    def notify(self) -> None:
        """Wake all listeners."""
        self.changed.set()
        self.changed = asyncio.Event()


class Dispatcher:
    """The queue for the requests of all bots, scheduled fairly over all replicas."""

    def __init__(self, pool: ReplicaPool) -> None:
        self._pool = pool
        self._entries: dict[str, _Entry] = {}
        self._queue: FairQueue[_Entry] = FairQueue()
        self._running: set[_Entry] = set()
        self._throughputs: dict[str, tuple[Throughput, float]] = {}  # by replica, with the time of receipt
        self._reports: dict[str, tuple[Report, float]] = {}  # likewise
        self._first_tokens: dict[str, Histogram] = {}  # by replica
        self._calls = 0
        self._size = 0
        self._last_reports = -REPORT_INTERVAL_SECONDS
        self._ticker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Continuations accepted and not yet answered."""
        return sum(not entry.done for entry in self._entries.values())

    @property
    def replicas(self) -> int:
        """Number of running replicas at the last count."""
        return self._size

    @property
    def computing(self) -> tuple[str, ...]:
        """Names of the replicas heard of recently."""
        now = time.monotonic()
        return tuple(sorted(name for name, (_, at) in self._throughputs.items() if now - at < _STALE_SECONDS))

    @property
    def tokens_per_second(self) -> float | None:
        """Recent speed of all replicas together; None before the first measurement."""
        speeds = (self._throughputs[replica][0].tokens_per_second for replica in self.computing)
        known = [speed for speed in speeds if speed is not None]
        return sum(known) if known else None

    @property
    def statistics(self) -> Mapping[str, Statistics]:
        """The work of each replica by name, including those lost within the last minute.

        Waits for the first token count from the acceptance here, so they include this queue.
        """
        now = time.monotonic()
        return {name: self._adjusted(report, now - at) for name, (report, at) in self._reports.items()}

    def start(self) -> None:
        """Begin to count replicas and to publish queue positions."""
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._run_ticks(), name="dispatcher ticks")

    async def close(self) -> None:
        """Cancel everything; listeners see their stream break and reconnect elsewhere."""
        tasks = [task for task in (self._ticker, *(entry.task for entry in self._entries.values())) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ticker = None

    async def listen(self, name: str, request: ContinuationRequest, owner: str | None) -> AsyncIterator[bytes]:
        """Yield the latest state of a request whenever it changes, the answer last, and empty keepalive messages.

        Args:
            name: Unique id of the request; a known id joins that request.
            request: The prompt and how to continue it.
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
            seen, accepted = 0, False
            while True:
                changed = entry.changed
                if entry.acceptance and not accepted:
                    accepted = True
                    yield entry.acceptance
                if entry.version > seen:
                    seen, done = entry.version, entry.done
                    yield entry.message
                    if done:
                        return
                    continue
                try:
                    await asyncio.wait_for(changed.wait(), KEEPALIVE_SECONDS)
                except TimeoutError:
                    yield b""
        finally:
            entry.listeners -= 1
            if not entry.listeners:
                asyncio.get_running_loop().call_later(RECONNECT_SECONDS, self._cancel_if_abandoned, entry)

    def cancel(self, name: str) -> None:
        """Cancel a request whose answer is not needed any more."""
        entry = self._entries.get(name)
        if entry is not None:
            self._cancel(entry)

    async def call(self, method: str, message: bytes, owner: str | None) -> AsyncIterator[bytes]:
        """Yield a replica's answer to anything but a continuation, after keepalive messages."""
        if self._calls >= MAX_WAITING:
            yield protocol.encode(protocol.to_refusal(refusals.queue_full(self._calls)))
            return
        self._calls += 1
        answer = asyncio.ensure_future(self._call(method, message, owner))
        try:
            while not (await asyncio.wait({answer}, timeout=KEEPALIVE_SECONDS))[0]:
                yield b""
            yield answer.result()
        finally:
            self._calls -= 1
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)

    async def _call(self, method: str, message: bytes, owner: str | None) -> bytes:
        for attempt in range(MAX_REPLICA_LOSSES):
            try:
                return await self._pool.call(method, message, owner)
            except ReplicaLostError as error:
                log.warning("lost a replica; retrying its call", method=method, error=str(error))
                await asyncio.sleep(_backoff(attempt))
        return protocol.encode(protocol.to_refusal(refusals.failed()))

    def _admit(self, name: str, request: ContinuationRequest, owner: str | None) -> _Entry:
        if self.waiting >= MAX_WAITING:
            raise refusals.queue_full(self.waiting)
        seconds = self._estimate(sum(entry.rows_left for entry in self._entries.values() if not entry.done))
        if seconds > MAX_WAIT_SECONDS:
            raise refusals.wait_too_long(seconds)
        prompt = max(len(request.prompt) // _CHARACTERS_PER_TOKEN, 1)
        entry = _Entry(name, request, owner, prompt + request.params.rows * request.params.length)
        self._entries[name] = entry
        # In a context of its own: Ray Serve would cancel its calls together with the stream that started them.
        entry.task = asyncio.create_task(self._serve(entry), name=f"request {name}", context=contextvars.Context())
        return entry

    async def _serve(self, entry: _Entry) -> None:
        """Compute a request's answer and publish it."""
        body = protocol.encode(entry.request)
        try:
            await self._accept(entry, body)
            self._queue.add(entry, entry.owner, entry.rows_left)
            entry.notify()
            self._schedule()
            self._publish_positions()
            await entry.scheduled.wait()
            await self._compute(entry, body)
        except UserError as error:
            entry.publish(protocol.encode(protocol.to_refusal(error)), done=True)
        except Exception as error:
            log.exception("a request failed")
            entry.publish(protocol.encode(protocol.to_refusal(refusals.failed(error))), done=True)
        finally:
            self._queue.discard(entry)
            self._running.discard(entry)
            self._schedule()

    async def _accept(self, entry: _Entry, body: bytes) -> None:
        """Count the prompt's tokens and accept the request.

        Raises:
            InvalidInputError: Prompt and continuation exceed the context.
        """
        count = None
        with contextlib.suppress(ReplicaLostError, TimeoutError):
            answer = await asyncio.wait_for(self._pool.call("count", body, entry.owner), COUNT_TIMEOUT_SECONDS)
            count = protocol.decode(answer)
        if isinstance(count, protocol.Refusal):
            raise protocol.to_error(count)
        if count is not None:
            entry.rows_left = count + entry.request.params.rows * entry.request.params.length
        entry.acceptance = protocol.encode(protocol.Accepted(count))

    async def _compute(self, entry: _Entry, body: bytes) -> None:
        """Run a request on replicas until one has finished it; repeated output is identical."""
        losses = attempt = 0
        while not entry.done:
            responded = False
            try:
                async with contextlib.aclosing(self._pool.generate(body, entry.owner)) as frames:
                    while not entry.done:
                        frame = await _within(anext(frames), REPLICA_TIMEOUT_SECONDS)
                        responded = True
                        self._take_frame(entry, frame)
            except (ReplicaLostError, TimeoutError, StopAsyncIteration) as error:
                losses += responded
                log.warning("lost a replica; recomputing its request", losses=losses, error=repr(error))
                if losses >= MAX_REPLICA_LOSSES:
                    raise refusals.failed() from error
                await asyncio.sleep(_backoff(attempt))
                attempt += 1

    def _take_frame(self, entry: _Entry, frame: Frame) -> None:
        now = time.monotonic()
        self._throughputs[frame.replica] = (frame.throughput, now)
        if frame.has_tokens and not entry.has_tokens:
            entry.has_tokens = True
            self._first_tokens.setdefault(frame.replica, Histogram(SECONDS)).add(now - entry.accepted_at)
        entry.rows_left = frame.rows_left
        if frame.message:
            entry.publish(frame.message, done=frame.done)

    def _schedule(self) -> None:
        """Start queued requests as far as the replicas have room."""
        room = MAX_REPLICA_ROWS * max(self._size, 1) - sum(entry.request.params.rows for entry in self._running)
        for entry in self._queue.ordered():
            if self._running and entry.request.params.rows > room:
                break  # a smaller request must not overtake, or a large one would starve
            self._queue.take(entry)
            self._running.add(entry)
            entry.scheduled.set()
            room -= entry.request.params.rows

    def _publish_positions(self) -> None:
        rows = sum(entry.rows_left for entry in self._running)
        for place, entry in enumerate(self._queue.ordered(), 1):
            rows += entry.rows_left
            entry.publish(protocol.encode(Queued(place, self._estimate(rows))))

    def _estimate(self, rows: int) -> float:
        """Estimate the seconds for so many rows on all replicas, with the latest known throughput."""
        if not self._throughputs:
            return 0.0
        throughput, _ = max(self._throughputs.values(), key=lambda received: received[1])
        return throughput.seconds(rows, min(rows, MAX_REPLICA_ROWS)) / max(self._size, 1)

    def _cancel_if_abandoned(self, entry: _Entry) -> None:
        if not entry.listeners and self._entries.get(entry.name) is entry:
            self._cancel(entry)

    def _cancel(self, entry: _Entry) -> None:
        del self._entries[entry.name]
        if entry.task:
            entry.task.cancel()

    async def _collect_reports(self) -> None:
        reports = await self._pool.reports()
        self._last_reports = now = time.monotonic()
        self._throughputs |= {report.replica: (report.throughput, now) for report in reports}
        self._reports |= {report.replica: (report, now) for report in reports}

    def _adjusted(self, report: Report, age: float) -> Statistics:
        """Return a report's statistics with the waits measured here, and as stalled if the replica is silent."""
        statistics = report.statistics
        if age > MISSED_REPORTS * REPORT_INTERVAL_SECONDS:  # its requests have moved to other replicas
            stalled = age if statistics.computing else 0.0
            statistics = replace(statistics, computing=0, stalled_seconds=stalled)
        waits = self._first_tokens.setdefault(report.replica, Histogram(SECONDS))
        return replace(statistics, first_token_seconds=waits.snapshot())

    def _drop_stale(self) -> None:
        recent = self.computing
        self._throughputs = {name: self._throughputs[name] for name in recent} or self._throughputs
        self._reports = {name: self._reports[name] for name in recent if name in self._reports}
        self._first_tokens = {name: self._first_tokens[name] for name in recent if name in self._first_tokens}

    async def _run_ticks(self) -> None:
        while True:
            try:
                self._size = await self._pool.size()
                if self._size and time.monotonic() - self._last_reports >= REPORT_INTERVAL_SECONDS:
                    await self._collect_reports()
            except Exception as error:  # noqa: BLE001 # scheduling continues with what is known
                log.warning("cannot count the replicas", error=repr(error))
            self._drop_stale()
            self._schedule()
            self._publish_positions()
            await asyncio.sleep(_TICK_SECONDS)


async def _within(awaitable: Awaitable[Frame], seconds: float) -> Frame:
    async with asyncio.timeout(seconds):
        return await awaitable


def _backoff(attempt: int) -> float:
    return _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)] * random.uniform(0.75, 1.25)
