"""Many requests in one forward pass: who is computed together, who waits, who leaves.

A `Batcher` lives on the worker thread. Requests join and leave between passes. A request that fails, fails alone.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
import torch

from bot.gpt2.fair_queue import FairQueue
from bot.gpt2.local.sequences import PREFILL_CHUNK, Generation, advance, cache_bytes
from bot.gpt2.local.threads import Crew
from bot.gpt2.statistics import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterable, Sequence

    from bot.gpt2.model.transformer import Transformer
    from bot.gpt2.requests import ContinuationRequest
    from bot.gpt2.statistics import Statistics
    from bot.gpt2.throughput import Pace

MAX_ROWS: Final = 96
"""Samples computed in one pass. More would not be faster: the products are bound by arithmetic from about 40 on."""

MAX_PROMPT_ROWS: Final = 2 * PREFILL_CHUNK
"""Positions of prompts computed in one pass: about as much work as a token for everyone."""

CACHE_BYTES: Final = 256 * 2**20
"""Room for the keys and values of what is computed at one time; 80 samples of 40 tokens of GPT-2 small take 236 MiB."""

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Job:
    """One request on its way through the batcher.

    Attributes:
        request: What was asked.
        prompt_ids: Its prompt in tokens.
        owner: Whose share of the machine it takes; None shares with all others of None.
        report: Called on the worker thread, with the place in the queue (0: it is computed or ended), after every pass.
        stopped: Set by anyone who wants it to end within one token.
        generation: Its state, once it is computed.
        failure: Why it ended without a result.
        began: `time.perf_counter()` when its computation began.
        accepted: `time.perf_counter()` when it was made.
    """

    request: ContinuationRequest
    prompt_ids: Sequence[int]
    owner: Hashable
    report: Callable[[Job, int], None]
    stopped: threading.Event = field(default_factory=threading.Event)
    generation: Generation | None = None
    failure: BaseException | None = None
    ended: bool = False
    began: float = 0.0
    accepted: float = field(default_factory=time.perf_counter)

    @property
    def rows_left(self) -> int:
        """Rows still to compute, positions of the prompt and tokens of all samples; the most it can be."""
        if self.generation is None:
            return len(self.prompt_ids) + self.request.params.rows * self.request.params.length
        done = max(map(len, self.generation.tokens))
        return self.generation.prompt_left + self.request.params.rows * max(self.request.params.length - done, 0)


@dataclass(eq=False, slots=True)
class Errand:
    """Something else to compute on the worker's thread, one step between two passes.

    Attributes:
        steps: Each `next` computes one; what the generator returns is the result.
        owner: Whose share of the machine it takes.
        result: Whoever cancels it needs it no more, and no further step is taken.
    """

    steps: Generator[None, None, object]
    owner: Hashable = None
    result: Future[object] = field(default_factory=Future)

    def advance(self) -> bool:
        """Take one step; whether it was the last."""
        if self.result.cancelled():
            return True
        try:
            next(self.steps)
        except StopIteration as end:
            if self.result.set_running_or_notify_cancel():
                self.result.set_result(end.value)
        except BaseException as error:
            self.fail(error)  # whoever sent it is told
            if not isinstance(error, Exception):
                raise
        else:
            return False
        return True

    def fail(self, error: BaseException) -> None:
        """End without a result."""
        if self.result.set_running_or_notify_cancel():
            self.result.set_exception(error)


class Batcher:
    """Takes jobs from any thread and computes them on the one that calls `run`.

    Whose turn it is when several wait says `FairQueue`. Errands take turns with the passes, one step after each. Passes
    take at most `threads` threads, see `Crew`.
    """

    def __init__(
        self,
        transformer: Transformer,
        end_of_text: int,
        pace: Pace,
        *,
        threads: int = 1,
        max_rows: int = MAX_ROWS,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.pace = pace
        self._transformer = transformer
        self._end_of_text = end_of_text
        self._max_rows = max_rows
        self._cache_bytes = cache_bytes
        self._crew = Crew(threads)
        self._lock = threading.Lock()  # guards who runs
        self._active = False
        self._waiting: FairQueue[Job] = FairQueue()
        self._errands: FairQueue[Errand] = FairQueue()
        self._running: list[Job] = []  # the worker's own, but for len() and reading
        self._tally = Tally()

    @property
    def statistics(self) -> Statistics:
        """What was computed so far, and whether the worker goes on."""
        return self._tally.picture(computing=len(self._running), at_work=self._active)

    @property
    def errands(self) -> int:
        """How many errands wait."""
        return len(self._errands)

    def submit(self, job: Job) -> bool:
        """Queue a job. Returns whether `run` must be called for it, because nobody is running."""
        self._waiting.add(job, job.owner, job.rows_left)
        return self._wake()

    def send(self, errand: Errand) -> bool:
        """Queue an errand. Returns whether `run` must be called for it."""
        self._errands.add(errand, errand.owner, 1)
        return self._wake()

    def queue(self) -> list[Job]:
        """The jobs that wait, in the order in which they will be taken."""
        return self._waiting.ordered()

    def seconds_before(self, job: Job | None = None) -> float:
        """How long until `job` is done, or without one: until a new job could begin; from the pace so far."""
        queue = self.queue()
        before = queue[: queue.index(job) + 1] if job in queue else queue
        return self._seconds((*self._running, *before))

    def seconds_left(self, job: Job) -> float:
        """How long until a job is done that is being computed."""
        passes = max(job.rows_left // max(job.request.params.rows, 1), 1)
        together = sum(each.request.params.rows for each in self._running) or job.request.params.rows
        return passes * self.pace.seconds(together, self._max_rows)

    def run(self) -> None:
        """Compute until nothing is left. An exception here has already failed every job and errand it leaves behind."""
        try:
            while self._admit():
                self._pass()
                self._go_on_an_errand()
        except BaseException as error:
            self._fail_all(error)
            raise

    def _wake(self) -> bool:
        with self._lock:
            start, self._active = not self._active, True
            if start:
                self._tally.sign_of_life()
            return start

    def _seconds(self, jobs: Sequence[Job]) -> float:
        together = min(sum(job.request.params.rows for job in jobs), self._max_rows)
        return self.pace.seconds(sum(job.rows_left for job in jobs), together)

    def _admit(self) -> bool:
        """Take out who was stopped, take in who fits; whether there is anything to compute."""
        self._tally.sign_of_life()
        self._leave([job for job in self._running if job.stopped.is_set()])
        for job in self.queue():
            if job.stopped.is_set():
                self._take(job)
                self._leave([job])
            elif self._fits(job):
                self._take(job)
                self._begin(job)
            else:
                break  # whoever is first waits for room, or a large request would wait for ever
        with self._lock:
            self._active = bool(self._running or self._waiting or self._errands)
            return self._active

    def _fits(self, job: Job) -> bool:
        """Whether there is room for one more; for one alone there always is."""
        running = [each.generation for each in self._running if each.generation]
        rows = sum(generation.rows for generation in running) + job.request.params.rows
        held = sum(generation.cache_bytes for generation in running)
        wanted = cache_bytes(self._transformer.config, len(job.prompt_ids), job.request)
        return not running or (rows <= self._max_rows and held + wanted <= self._cache_bytes)

    def _take(self, job: Job) -> None:
        self._waiting.take(job)
        with self._lock:
            self._running.append(job)

    def _begin(self, job: Job) -> None:
        job.began = time.perf_counter()
        try:
            job.generation = Generation(self._transformer, job.prompt_ids, job.request, self._end_of_text)
        except Exception as error:  # noqa: BLE001 # most likely memory; whatever it is, it is this job's alone
            self._fail(job, error)

    def _pass(self) -> None:
        jobs = self._next_pass()
        if not jobs:
            return
        threads = self._crew.choose()
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        rows, began, before = sum(map(_rows, jobs)), time.perf_counter(), _tokens(jobs)
        fresh = [job for job in jobs if not _tokens([job])]
        prompts = sum(job.generation.next_chunk for job in jobs if job.generation)
        try:
            advance(self._transformer, [job.generation for job in jobs if job.generation])
        except Exception as error:  # noqa: BLE001
            log.warning("a pass failed; its requests are computed one by one", requests=len(jobs), error=repr(error))
            self._pass_alone(jobs)
        else:
            now, tokens = time.perf_counter(), _tokens(jobs) - before
            self._crew.record(self.pace.quiet_seconds(rows), now - began)
            self.pace.record(rows, tokens, now - began)
            self._tally.count_pass(rows, prompts, tokens)
            for job in fresh:
                if _tokens([job]):
                    self._tally.first_token_seconds.add(now - job.accepted)
        self._leave([job for job in self._running if job.generation and job.generation.done])
        for job in self._running:
            job.report(job, 0)
        for place, job in enumerate(self.queue(), 1):
            job.report(job, place)

    def _go_on_an_errand(self) -> None:
        for errand in self._errands.ordered()[:1]:
            self._errands.take(errand)  # before its step: whoever has the answer must not find it waiting still
            if not errand.advance():
                self._errands.add(errand, errand.owner, 1)

    def _next_pass(self) -> list[Job]:
        """Everyone who is writing, and as many prompts as do not hold them up noticeably, first come first served."""
        chosen, budget = [], MAX_PROMPT_ROWS
        for job in self._running:
            chunk = job.generation.next_chunk if job.generation else 0
            if chunk <= budget:
                chosen.append(job)
                budget -= chunk
        return chosen

    def _pass_alone(self, jobs: Iterable[Job]) -> None:
        """Find out whose fault it was: nothing was drawn yet, so every job can go through its pass again."""
        for job in jobs:
            try:
                if job.generation:
                    advance(self._transformer, [job.generation])
            except Exception as error:  # noqa: BLE001
                self._fail(job, error)

    def _leave(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            with self._lock:
                self._running.remove(job)
            if job.generation:
                job.generation.release()  # now, not when whoever still holds the job lets go of it
            job.ended = True
            job.report(job, 0)

    def _fail(self, job: Job, error: BaseException) -> None:
        log.warning(
            "a request failed", samples=job.request.params.rows, length=job.request.params.length, error=repr(error)
        )
        job.failure = error
        job.generation = None
        self._leave([job])

    def _fail_all(self, error: BaseException) -> None:
        jobs = [*self._running, *self._waiting.clear()]
        errands = self._errands.clear()
        with self._lock:
            self._running.clear()
            self._active = False
        for job in jobs:
            job.failure, job.generation, job.ended = error, None, True
            job.report(job, 0)
        for errand in errands:
            errand.fail(error)


def _tokens(jobs: Iterable[Job]) -> int:
    return sum(len(row) for job in jobs if job.generation for row in job.generation.tokens)


def _rows(job: Job) -> int:
    """How many rows a job has in the next pass."""
    return (job.generation.next_chunk or job.generation.rows) if job.generation else 0
