"""Continuous batching: requests join and leave between forward passes, and a failing request fails alone.

A `Scheduler` runs on the worker thread. The design follows vLLM's scheduler.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
import torch

from bot.errors import DeviceLostError
from bot.gpt2.fair_queue import FairQueue
from bot.gpt2.local.runner import PREFILL_CHUNK
from bot.gpt2.local.threads import ThreadTuner
from bot.gpt2.model.device import describe, raise_if_lost, translate_loss
from bot.gpt2.statistics import StatisticsRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterable, Sequence

    from bot.gpt2.local.runner import Runner, Sequences
    from bot.gpt2.requests import ContinuationRequest
    from bot.gpt2.statistics import Statistics

MAX_ROWS: Final = 96
"""Samples computed in one pass. More would not be faster: from about 40 on the products are bound by arithmetic."""

MAX_PROMPT_ROWS: Final = 2 * PREFILL_CHUNK
"""Prompt positions computed in one pass: about as much work as a token for every sample."""

REPORT_SECONDS: Final = 0.02
"""The shortest time between two reports of a job: a GPU computes thousands of passes a second."""

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Job:
    """A request in the scheduler.

    Attributes:
        request: The accepted request.
        prompt_ids: The tokens of its prompt.
        owner: Whose share of the machine it takes; all jobs of owner None share one.
        report: Called on the worker thread with the place in the queue, 0 if running or ended: after passes, but not
            more often than every `REPORT_SECONDS`, and at the end.
        stopped: Set from any thread to end the job within one token.
        sequences: Its samples, once it runs.
        failure: The error that ended it without a result.
        ended: Whether it has left the scheduler.
        began: `time.perf_counter()` at the start of its computation.
        accepted: `time.perf_counter()` at its creation.
    """

    request: ContinuationRequest
    prompt_ids: Sequence[int]
    owner: Hashable
    report: Callable[[Job, int], None]
    stopped: threading.Event = field(default_factory=threading.Event)
    sequences: Sequences | None = None
    failure: BaseException | None = None
    ended: bool = False
    began: float = 0.0
    accepted: float = field(default_factory=time.perf_counter)

    @property
    def rows_left(self) -> int:
        """Upper bound of the rows still to compute: prompt positions and tokens of all samples."""
        if self.sequences is None:
            return len(self.prompt_ids) + self.request.params.rows * self.request.params.length
        if self.sequences.done:
            return 0
        return self.sequences.prompt_left + self.request.params.rows * self.sequences.tokens_left

    @property
    def next_rows(self) -> int:
        """Rows in its next pass."""
        return (self.sequences.next_chunk or self.sequences.rows) if self.sequences else 0


@dataclass(eq=False, slots=True)
class StepTask:
    """Other work for the worker thread, interleaved with the passes one step at a time.

    Attributes:
        steps: Computes one step for each `next` and returns the result.
        owner: Whose share of the machine it takes.
        result: The outcome; once it is cancelled, no further step runs.
    """

    steps: Generator[None, None, object]
    owner: Hashable = None
    result: Future[object] = field(default_factory=Future)

    def advance(self) -> bool:
        """Run one step and return whether it was the last."""
        if self.result.cancelled():
            return True
        try:
            next(self.steps)
        except StopIteration as end:
            if self.result.set_running_or_notify_cancel():
                self.result.set_result(end.value)
        except BaseException as error:  # noqa: BLE001 # it is raised again
            fault = translate_loss(error)
            self.fail(fault)
            if not isinstance(fault, Exception) or isinstance(fault, DeviceLostError):
                raise fault  # noqa: B904 # it has its cause
        else:
            return False
        return True

    def fail(self, error: BaseException) -> None:
        """End the task with an error."""
        if self.result.set_running_or_notify_cancel():
            self.result.set_exception(error)


class Scheduler:
    """Accepts jobs and step tasks from any thread and computes them on the thread that calls `run`.

    `FairQueue` orders those that wait. After each pass one step of one task runs. A pass uses at most `threads`
    threads, see `ThreadTuner`.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        threads: int = 1,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self.throughput = runner.cost
        self.runner = runner
        self._max_rows = max_rows
        self._tuner = ThreadTuner(threads)
        self._reported_at = -math.inf
        self._lock = threading.Lock()  # guards `_active` and changes of `_running`
        self._active = False
        self._waiting: FairQueue[Job] = FairQueue()
        self._tasks: FairQueue[StepTask] = FairQueue()
        self._running: list[Job] = []  # changed by the worker thread only
        self._recorder = StatisticsRecorder()

    @property
    def statistics(self) -> Statistics:
        """The work done so far, and whether the worker makes progress."""
        return self._recorder.snapshot(computing=len(self._running), busy=self._active)

    @property
    def tasks_waiting(self) -> int:
        """Number of queued step tasks."""
        return len(self._tasks)

    def submit(self, job: Job) -> bool:
        """Queue a job and return whether the caller has to have `run` called, because it is not running."""
        self._waiting.add(job, job.owner, job.rows_left)
        return self._activate()

    def submit_task(self, task: StepTask) -> bool:
        """Queue a step task and return whether the caller has to have `run` called."""
        self._tasks.add(task, task.owner, 1)
        return self._activate()

    def queue(self) -> list[Job]:
        """Return the waiting jobs in scheduling order."""
        return self._waiting.ordered()

    def seconds_before(self, job: Job | None = None) -> float:
        """Estimate the time until `job` is done or, without one, until a new job could begin."""
        queue = self.queue()
        before = queue[: queue.index(job) + 1] if job in queue else queue
        return self._seconds((*self._running, *before))

    def seconds_left(self, job: Job) -> float:
        """Estimate the time until a running job is done."""
        passes = max(job.rows_left // max(job.request.params.rows, 1), 1)
        together = sum(each.request.params.rows for each in self._running) or job.request.params.rows
        return passes * self.throughput.seconds(together, self._max_rows)

    def run(self, seconds: float = math.inf) -> bool:
        """Compute until no work is left, or for so many seconds; return whether work is left.

        If so, the caller has to call this again. An exception has failed every remaining job and task before it leaves.

        Raises:
            DeviceLostError: This process can no longer use its GPU.
        """
        end = time.monotonic() + seconds
        try:
            while self._admit():
                self._run_pass()
                self._step_task()
                if time.monotonic() >= end:
                    return True
        except BaseException as error:  # noqa: BLE001 # it is raised again
            fault = translate_loss(error)
            self._fail_all(fault)
            raise fault  # noqa: B904 # it has its cause
        return False

    def _activate(self) -> bool:
        """Mark the scheduler as active and return whether it was idle."""
        with self._lock:
            start, self._active = not self._active, True
            if start:
                self._recorder.heartbeat()
            return start

    def _seconds(self, jobs: Sequence[Job]) -> float:
        together = min(sum(job.request.params.rows for job in jobs), self._max_rows)
        return self.throughput.seconds(sum(job.rows_left for job in jobs), together)

    def _admit(self) -> bool:
        """Remove stopped jobs, admit those that fit, and return whether work remains."""
        self._recorder.heartbeat()
        self._remove([job for job in self._running if job.stopped.is_set()])
        for job in self.queue():
            if job.stopped.is_set():
                self._dequeue(job)
                self._remove([job])
            elif self._fits(job):
                self._dequeue(job)
                self._start(job)
            else:
                break  # a smaller job must not overtake, or a large one would starve
        with self._lock:
            self._active = bool(self._running or self._waiting or self._tasks)
            return self._active

    def _fits(self, job: Job) -> bool:
        """Return whether a pass and memory have room for another job; a job alone always fits."""
        running = [each.sequences for each in self._running if each.sequences]
        rows = sum(sequences.rows for sequences in running) + job.request.params.rows
        fits = rows <= self._max_rows and self.runner.fits(running, len(job.prompt_ids), job.request)
        return fits or not running

    def _dequeue(self, job: Job) -> None:
        self._waiting.take(job)
        with self._lock:
            self._running.append(job)

    def _start(self, job: Job) -> None:
        job.began = time.perf_counter()
        try:
            job.sequences = self.runner.start(job.prompt_ids, job.request)
        except Exception as error:  # noqa: BLE001 # most likely out of memory; only this job fails
            raise_if_lost(error)
            self._fail(job, error)

    def _run_pass(self) -> None:
        jobs = self._select_jobs()
        if not jobs:
            return
        threads = self._tuner.choose()
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        rows, began, before = sum(job.next_rows for job in jobs), time.perf_counter(), _tokens(jobs)
        without_token = [job for job in jobs if not _tokens([job])]
        prompt_rows = sum(job.sequences.next_chunk for job in jobs if job.sequences)
        groups = [job.sequences for job in jobs if job.sequences]
        samples = sum(group.rows for group in groups if not group.prefilling)
        try:
            done = self.runner.advance(groups)
        except Exception as error:  # noqa: BLE001
            raise_if_lost(error)
            log.warning("a pass failed; retrying its requests one by one", requests=len(jobs), error=describe(error))
            self._retry_one_by_one(jobs)
        else:
            now, tokens = time.perf_counter(), _tokens(jobs) - before
            self._tuner.record(done.baseline_seconds, now - began)
            self.throughput.record(rows, tokens, now - began, passes=max(tokens / samples, 1.0) if samples else 1.0)
            self._recorder.count_pass(rows, prompt_rows, tokens)
            self._recorder.count_drafts(done.compared, done.equal)
            for job in without_token:
                if _tokens([job]):
                    self._recorder.first_token_seconds.add(now - job.accepted)
        self._remove([job for job in self._running if job.sequences and job.sequences.done])
        self._report()

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported_at < REPORT_SECONDS:
            return
        self._reported_at = now
        for job in self._running:
            job.report(job, 0)
        for place, job in enumerate(self.queue(), 1):
            job.report(job, place)

    def _step_task(self) -> None:
        for task in self._tasks.ordered()[:1]:
            # Dequeue before stepping, so that a caller holding the answer never sees the task still queued.
            self._tasks.take(task)
            if not task.advance():
                self._tasks.add(task, task.owner, 1)

    def _select_jobs(self) -> list[Job]:
        """Return all jobs that decode and as many that prefill as fit `MAX_PROMPT_ROWS`, first come first served."""
        chosen, budget = [], MAX_PROMPT_ROWS
        for job in self._running:
            chunk = job.sequences.next_chunk if job.sequences else 0
            if chunk <= budget:
                chosen.append(job)
                budget -= chunk
        return chosen

    def _retry_one_by_one(self, jobs: Iterable[Job]) -> None:
        """Repeat a failed pass job by job to find the faulty one; nothing had been sampled yet."""
        for job in jobs:
            try:
                if job.sequences:
                    self.runner.repeat(job.sequences)
            except Exception as error:  # noqa: BLE001
                raise_if_lost(error)
                self._fail(job, error)

    def _remove(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            with self._lock:
                self._running.remove(job)
            if job.sequences:
                job.sequences.release()  # now, not when the last reference to the job goes
            job.ended = True
            job.report(job, 0)

    def _fail(self, job: Job, error: BaseException) -> None:
        log.warning(
            "a request failed", samples=job.request.params.rows, length=job.request.params.length, error=describe(error)
        )
        job.failure = error
        self._remove([job])
        job.sequences = None

    def _fail_all(self, error: BaseException) -> None:
        with self._lock:
            self._active = False  # first: what is submitted from now on is either failed here or computed by a new run
            running, self._running = self._running, []
        jobs = [*running, *self._waiting.clear()]
        tasks = self._tasks.clear()
        for job in jobs:
            if job.sequences:
                job.sequences.release()
            job.failure, job.sequences, job.ended = error, None, True
            job.report(job, 0)
        for task in tasks:
            task.fail(error)


def _tokens(jobs: Iterable[Job]) -> int:
    return sum(len(row) for job in jobs if job.sequences for row in job.sequences.tokens)
