"""GPT-2 on this machine, on two threads.

The worker loads the model and computes with it, many requests in each pass. The reader does what takes milliseconds:
tokenizing, decoding, reading slices of the weights' file. The event loop touches neither torch nor the tokenizer.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, cast

import structlog
import torch

from bot.errors import (
    DeviceError,
    DeviceLostError,
    ModelInvalidError,
    ModelNotLoadedError,
    OperatorError,
    UnavailableError,
    UserError,
)
from bot.gpt2 import refusals
from bot.gpt2.engine import MAX_WAIT_SECONDS, MAX_WAITING, run_to_completion
from bot.gpt2.local import calibration, introspection
from bot.gpt2.local.drafting import Drafter, make_draft_model, short_pass
from bot.gpt2.local.eager import EagerRunner
from bot.gpt2.local.scheduler import Job, Scheduler, StepTask
from bot.gpt2.local.slots import SlotRunner, slots_work
from bot.gpt2.local.tokens import decode_samples, decode_so_far, tokenize_prompt
from bot.gpt2.local.worker import Share, Worker
from bot.gpt2.model import heap
from bot.gpt2.model.device import describe, on_device
from bot.gpt2.model.huge_pages import LEAST_BYTES, pages_in_use, use_huge_pages
from bot.gpt2.model.loading import LoadedModel, load
from bot.gpt2.model_info import ParameterSlice
from bot.gpt2.requests import Continuation, ContinuationRequest, Loading, Progress, Queued
from bot.gpt2.statistics import Statistics
from bot.gpt2.tickets import TaskTicket

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bot.config import Device, Draft, Precision
    from bot.gpt2.engine import Answer
    from bot.gpt2.local.introspection import Steps
    from bot.gpt2.local.runner import Runner
    from bot.gpt2.local.worker import SharedWorker
    from bot.gpt2.model_info import ModelInfo, ParameterInfo
    from bot.gpt2.questions import Question
    from bot.gpt2.requests import Sample, Update
    from bot.gpt2.throughput import Throughput

T = TypeVar("T")

log = structlog.get_logger(__name__)


class LocalEngine:
    """The engine that owns the model and the threads that use it; see `bot.gpt2.engine.Engine`."""

    def __init__(
        self,
        model_name: str,
        *,
        device: Device = "auto",
        precision: Precision = "float32",
        threads: int = 0,
        cache: Path | None = None,
        draft: Draft = "auto",
        shared: SharedWorker | None = None,
    ) -> None:
        self.model_name = model_name
        self._device: Device = device
        self._precision: Precision = precision
        self._threads = threads or (shared.threads if shared else 0)
        self._shared = shared is not None
        self._cache = cache
        self._draft: Draft = draft
        self._worker = Share(shared) if shared else Worker()
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpt2-reader")
        self._load_finished = asyncio.Event()  # with or without success
        self._loaded: LoadedModel | None = None
        self._scheduler: Scheduler | None = None
        self._tickets: set[LocalTicket] = set()
        self._closing = threading.Event()
        self._computing: asyncio.Future[bool] | None = None
        self._fault: DeviceError | None = None
        self._ended = asyncio.Event()  # by `stop` or by a fault

    @property
    def ready(self) -> bool:
        """Return whether the model is loaded."""
        return self._loaded is not None

    @property
    def waiting(self) -> int:
        """Continuations accepted and not yet answered."""
        return len(self._tickets)

    @property
    def tokens_per_second(self) -> float | None:
        """Recent speed over all requests; None before the first pass."""
        return self._scheduler.throughput.tokens_per_second if self._scheduler else None

    @property
    def statistics(self) -> Statistics:
        """The work done so far, and whether the worker makes progress."""
        return self._scheduler.statistics if self._scheduler else Statistics()

    @property
    def workers(self) -> Mapping[str, Statistics]:
        """The statistics of the only worker."""
        return {"": self.statistics}

    @property
    def fault(self) -> DeviceError | None:
        """The fault of the GPU because of which this engine computes nothing, if there is one."""
        return self._fault

    async def start(self) -> None:
        """Load the model on the worker and return when it is ready.

        Raises:
            DeviceError: The GPU is wanted and cannot be used; callers that wait for the model get this error, too.
            OperatorError: It cannot be loaded; callers that wait for it get ModelNotLoadedError.
        """
        began = time.perf_counter()
        try:
            loaded, self._scheduler = await self._run_on(self._worker.loader, self._load)
            self._loaded = loaded
        except DeviceError as error:
            self._fault = error
            raise
        except OperatorError:
            raise
        except Exception as error:
            raise ModelInvalidError(f"The model {self.model_name!r} could not be loaded: {error!r}") from error
        finally:
            self._worker.end_loading()
            self._load_finished.set()
        seconds = round(time.perf_counter() - began, 2)
        log.info("the model is ready", parameters=loaded.info.parameters, seconds=seconds)

    async def watch(self) -> None:
        """See `Engine.watch`."""
        await self._ended.wait()
        if self._fault:
            raise self._fault

    def stop(self) -> None:
        """See `Engine.stop`."""
        self._closing.set()
        self._load_finished.set()
        self._ended.set()
        for ticket in self._tickets:
            ticket.abandon()

    async def close(self) -> None:
        """Stop, and end the threads."""
        self.stop()
        if self._computing:
            await asyncio.wait({self._computing})
        # Off the event loop: a thread may be in a forward pass or an uninterruptible download.
        await asyncio.to_thread(self._shut_down)

    async def model(self) -> ModelInfo:
        """See `Engine.model`."""
        return (await self._model()).info

    async def submit(self, request: ContinuationRequest, *, owner: Hashable = None) -> LocalTicket:
        """See `Engine.submit`."""
        self._refuse_if_full()
        prompt_ids = await self._tokenize(self._loaded, request) if self._loaded else None
        self._refuse_if_full()  # again, for requests accepted in the meantime
        ticket = LocalTicket(request, self)
        ticket.task = asyncio.create_task(self._serve(ticket, prompt_ids, owner), name="continuation")
        self._tickets.add(ticket)
        ticket.task.add_done_callback(lambda _: self._tickets.discard(ticket))
        return ticket

    async def continuation(self, request: ContinuationRequest, *, owner: Hashable = None) -> Continuation:
        """See `Engine.continuation`."""
        return await run_to_completion(self, request, owner)

    async def introspect(self, question: Question[Answer], *, owner: Hashable = None) -> Answer:
        """See `Engine.introspect`."""
        loaded, scheduler = await self._model(), self._scheduler
        if scheduler is None:
            raise UnavailableError(refusals.SHUTTING_DOWN)
        if scheduler.tasks_waiting >= MAX_WAITING:
            raise refusals.queue_full(scheduler.tasks_waiting)
        task = StepTask(_until(self._closing, introspection.answer(question, loaded)), owner)
        try:
            # The first step counts tokens and refuses, so it need not wait for the worker.
            if not await self._run_on(self._reader, task.advance):
                self._run_scheduler(idle=scheduler.submit_task(task))
            return cast("Answer", await asyncio.wrap_future(task.result))
        except (UserError, asyncio.CancelledError):
            raise
        except DeviceLostError as error:
            raise self._lose(error)  # noqa: B904 # the same, if it is the first
        except Exception as error:
            log.warning("a question failed", question=type(question).__name__, error=describe(error))
            raise refusals.failed(error) from error

    async def parameters(self, part: str = "") -> tuple[ParameterInfo, ...]:
        """See `Engine.parameters`."""
        return (await self._model()).parameters.filtered(part)

    async def complete_name(self, typed: str, most: int) -> tuple[str, ...]:
        """See `Engine.complete_name`."""
        return self._loaded.parameters.complete(typed, most) if self._loaded else ()

    async def select(self, name: str, rows: str | None = None, columns: str | None = None) -> ParameterSlice:
        """See `Engine.select`."""
        return ParameterSlice.parse((await self._model()).parameters.find(name), rows, columns)

    async def read(self, part: ParameterSlice) -> NDArray[np.float32]:
        """See `Engine.read`."""
        parameters = (await self._model()).parameters
        return await self._run_on(self._reader, lambda: parameters.read(part))

    async def prompt_tokens(self, request: ContinuationRequest) -> int:
        """Count the tokens of a request's prompt.

        Raises:
            InvalidInputError: Prompt and continuation exceed the context.
        """
        return len(await self._tokenize(await self._model(), request))

    async def samples(self, rows: Sequence[Sequence[int]]) -> tuple[Sample, ...]:
        """Decode the new tokens of each sample so far."""
        loaded = await self._model()
        return await self._run_on(self._reader, lambda: decode_samples(loaded, rows))

    @property
    def runner(self) -> Runner | None:
        """The runner that computes the passes; None before the model is loaded."""
        return self._scheduler.runner if self._scheduler else None

    @property
    def throughput(self) -> Throughput | None:
        """The measured cost of passes; None before the model is loaded."""
        return self._scheduler.throughput if self._scheduler else None

    async def _model(self) -> LoadedModel:
        await self._load_finished.wait()
        self._refuse_if_ended()
        if self._loaded is None:
            raise ModelNotLoadedError
        return self._loaded

    def _refuse_if_ended(self) -> None:
        if self._closing.is_set():
            raise UnavailableError(refusals.SHUTTING_DOWN)
        if self._fault:
            raise self._fault

    async def _serve(self, ticket: LocalTicket, prompt_ids: Sequence[int] | None, owner: Hashable) -> Continuation:
        """Compute the answer to a ticket, from the prompt's tokens to the samples' texts."""
        request = ticket.request
        loaded = await self._model()
        if prompt_ids is None:
            prompt_ids = await self._tokenize(loaded, request)
        job = ticket.create_job(prompt_ids, owner)
        try:
            if self._scheduler is None:
                raise UnavailableError(refusals.SHUTTING_DOWN)
            self._run_scheduler(idle=self._scheduler.submit(job))
            await ticket.finished.wait()
        finally:
            ticket.drop_job()
        done = job.sequences is not None and job.sequences.done
        if self._closing.is_set() and not done:
            raise UnavailableError(refusals.SHUTTING_DOWN)
        if job.failure is not None:
            if isinstance(job.failure, DeviceLostError):
                raise self._lose(job.failure)
            raise refusals.failed(job.failure)
        seconds = time.perf_counter() - job.began if job.sequences else 0.0
        # A request that was stopped before its turn has empty samples.
        rows = job.sequences.tokens if job.sequences else [[] for _ in range(request.params.rows)]
        samples = await self._run_on(self._reader, lambda: decode_samples(loaded, rows))
        return Continuation(request, len(prompt_ids), samples, seconds, stopped=not done)

    def _run_scheduler(self, *, idle: bool) -> None:
        """Run the scheduler on the worker if it is idle; it leaves the worker when no work is left."""
        if idle and self._scheduler:
            self._computing = self._worker.run(self._scheduler)
            self._computing.add_done_callback(self._note_fault)

    def _note_fault(self, run: asyncio.Future[bool]) -> None:
        error = None if run.cancelled() else run.exception()
        if error is None:
            return
        if isinstance(error, DeviceLostError):
            self._lose(error)
        else:
            log.error("the scheduler failed; the next request restarts it", exc_info=error)

    def _lose(self, fault: DeviceLostError) -> DeviceError:
        """Compute nothing any more, because the GPU is lost; return the first fault."""
        if self._fault is None:
            self._fault = fault
            log.error("the GPU is lost; a restart is needed", reason=str(self._fault))
            self._ended.set()
        return self._fault

    def _refuse_if_full(self) -> None:
        self._refuse_if_ended()
        if self.waiting >= MAX_WAITING:
            raise refusals.queue_full(self.waiting)
        seconds = self._scheduler.seconds_before() * self._worker.sharers if self._scheduler else 0.0
        if seconds > MAX_WAIT_SECONDS:
            raise refusals.wait_too_long(seconds)

    async def _tokenize(self, loaded: LoadedModel, request: ContinuationRequest) -> list[int]:
        return await self._run_on(self._reader, lambda: tokenize_prompt(loaded, request))

    async def update(self, ticket: LocalTicket) -> Update | None:
        """Return the state of a ticket, or None if there is nothing to report."""
        job, loaded, scheduler = ticket.job, self._loaded, self._scheduler
        if loaded is None or scheduler is None:
            return None if self._load_finished.is_set() else Loading()
        if job is None or job.ended:
            return None
        if job.sequences is None:
            seconds = scheduler.seconds_before(job) * self._worker.sharers
            return Queued(ticket.place, seconds) if ticket.place else None
        rows = tuple(map(tuple, job.sequences.tokens))
        texts = await self._run_on(self._reader, lambda: tuple(decode_so_far(loaded, row) for row in rows))
        return Progress(rows, texts, scheduler.seconds_left(job) * self._worker.sharers)

    def _load(self) -> tuple[LoadedModel, Scheduler]:
        if self._threads:
            torch.set_num_threads(self._threads)
        return on_device(self._device, self._precision, self._load_on)

    def _load_on(self, device: torch.device) -> tuple[LoadedModel, Scheduler]:
        before = pages_in_use()
        loaded = load(
            self.model_name,
            device="cpu" if device.type == "cpu" else "cuda",
            precision=self._precision,
            cache=self._cache,
            stopped=self._closing,
        )
        runner = _make_runner(loaded, self._draft)
        heap.trim()  # of what was needed only to load it
        on_cpu = loaded.transformer.device.type == "cpu"
        if on_cpu and loaded.info.parameters * torch.float32.itemsize >= LEAST_BYTES:
            pages = pages_in_use() - before
            threading.Thread(
                target=use_huge_pages, args=(pages, self._closing), name="gpt2-huge-pages", daemon=True
            ).start()
        return loaded, Scheduler(runner, threads=torch.get_num_threads() if on_cpu else 1)

    async def _run_on(self, executor: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        if self._closing.is_set():
            raise UnavailableError(refusals.SHUTTING_DOWN)
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, call)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closing.is_set() and not (task and task.cancelling()):  # the executor has dropped the call
                raise UnavailableError(refusals.SHUTTING_DOWN) from None
            raise

    def _shut_down(self) -> None:
        self._worker.close()
        self._reader.shutdown(wait=True, cancel_futures=True)
        self._loaded = self._scheduler = None
        if self._shared:  # the process goes on without this model
            heap.trim()


class LocalTicket(TaskTicket):
    """A ticket of `LocalEngine`."""

    def __init__(self, request: ContinuationRequest, engine: LocalEngine) -> None:
        super().__init__(request)
        self.finished = asyncio.Event()
        self.job: Job | None = None
        self.place = 0  # in the queue; 0 before and after
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._stop_requested = False

    async def current(self) -> Update | None:
        """See `TaskTicket.current`."""
        return await self._engine.update(self)

    def stop(self) -> None:
        """See `Ticket.stop`."""
        self._stop_requested = True
        if self.job:
            self.job.stopped.set()

    def create_job(self, prompt_ids: Sequence[int], owner: Hashable) -> Job:
        """Create the job that computes this ticket."""
        self.job = Job(self.request, prompt_ids, owner, self._report)
        if self._stop_requested:
            self.job.stopped.set()
        return self.job

    def drop_job(self) -> None:
        """Drop the job, which refers to this ticket: the cycle would live until the next garbage collection."""
        self.job = None

    def _report(self, job: Job, place: int) -> None:
        """Note the place in the queue; called on the worker thread."""
        self.place = place
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe((self.finished if job.ended else self.changed).set)


def _make_runner(loaded: LoadedModel, draft: Draft) -> Runner:
    """Return the fastest runner for a model on its device."""
    transformer, end_tokens = loaded.transformer, loaded.endings.tokens
    if transformer.device.type == "cuda" and slots_work(transformer.config):
        return SlotRunner(transformer, end_tokens)
    exact_pass = functools.partial(calibration.compute, transformer)
    model = make_draft_model(transformer) if draft == "auto" else None
    if model is None:
        [exact] = calibration.measure(exact_pass)
        return EagerRunner(transformer, end_tokens, exact.throughput())
    exact, cost = calibration.measure(exact_pass, short_pass(model, transformer.config))
    return EagerRunner(transformer, end_tokens, exact.throughput(), Drafter(model, cost, exact))


def _until(closing: threading.Event, steps: Steps[Answer]) -> Steps[Answer]:
    """Run the steps until the engine closes."""
    while not closing.is_set():
        try:
            next(steps)
        except StopIteration as end:
            return cast("Answer", end.value)
        yield
    raise UnavailableError(refusals.SHUTTING_DOWN)
