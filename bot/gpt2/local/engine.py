"""GPT-2 on this machine, with two lanes behind the front door.

The worker lane is one thread that loads the model and computes with it, many requests in each pass. The reader lane
is one thread for what takes milliseconds: splitting text into tokens, reading slices of the weights' file. The event
loop touches neither torch nor the tokenizer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, cast

import structlog
import torch

from bot.errors import (
    InvalidInputError,
    ModelInvalidError,
    ModelNotLoadedError,
    OperatorError,
    UnavailableError,
    UserError,
)
from bot.gpt2 import refusals
from bot.gpt2.engine import MAX_WAIT_SECONDS, MAX_WAITING, finished
from bot.gpt2.local import calibration, introspection
from bot.gpt2.local.scheduler import Batcher, Errand, Job
from bot.gpt2.model.files import SHIPPED
from bot.gpt2.model.loading import LoadedModel, load
from bot.gpt2.model_info import ParameterSlice, example_prompt
from bot.gpt2.requests import Continuation, ContinuationRequest, Loading, Progress, Queued, Sample
from bot.gpt2.statistics import Statistics
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bot.config import Device, Precision
    from bot.gpt2.engine import Answer
    from bot.gpt2.local.introspection import Steps
    from bot.gpt2.model_info import ModelInfo, ParameterInfo
    from bot.gpt2.questions import Question
    from bot.gpt2.requests import Update
    from bot.gpt2.throughput import Pace

T = TypeVar("T")

log = structlog.get_logger(__name__)


class LocalEngine:
    """Owns the model and the threads that use it; see `bot.gpt2.engine.Engine`."""

    def __init__(
        self,
        model_name: str,
        *,
        device: Device = "auto",
        precision: Precision = "float32",
        threads: int = 0,
        cache: Path | None = None,
    ) -> None:
        self.model_name = model_name
        self._device: Device = device
        self._precision: Precision = precision
        self._threads = threads
        self._cache = cache
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpt2-worker")
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpt2-reader")
        self._settled = asyncio.Event()  # loaded, or known that it cannot be
        self._loaded: LoadedModel | None = None
        self._batcher: Batcher | None = None
        self._tickets: set[LocalTicket] = set()
        self._closing = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._loaded is not None

    @property
    def example_prompt(self) -> str:
        """A prompt that suits the model."""
        return example_prompt(shipped=self.model_name == SHIPPED)

    @property
    def waiting(self) -> int:
        """Continuations accepted and not yet answered."""
        return len(self._tickets)

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of the last passes, all requests together; None before the first."""
        return self._batcher.pace.tokens_per_second if self._batcher else None

    @property
    def statistics(self) -> Statistics:
        """What it has done so far, and whether its worker goes on."""
        return self._batcher.statistics if self._batcher else Statistics()

    @property
    def workers(self) -> Mapping[str, Statistics]:
        """The only one."""
        return {"": self.statistics}

    async def start(self) -> None:
        """Load the model on the worker; returns when it is ready.

        Raises:
            OperatorError: It cannot be loaded. Whoever waits for it gets ModelNotLoadedError.
        """
        began = time.perf_counter()
        try:
            loaded, self._batcher = await self._on(self._worker, self._load)
            self._loaded = loaded
        except OperatorError:
            raise
        except Exception as error:
            raise ModelInvalidError(f"The model {self.model_name!r} could not be loaded: {error!r}") from error
        finally:
            self._settled.set()
        seconds = round(time.perf_counter() - began, 2)
        log.info("the model is ready", parameters=loaded.info.parameters, seconds=seconds)

    def stop(self) -> None:
        """Stop what is running within one token and refuse everything else from now on."""
        self._closing.set()
        self._settled.set()
        for ticket in self._tickets:
            ticket.abandon()

    async def close(self) -> None:
        """`stop`, and end the threads."""
        self.stop()
        # Off the loop: a thread may be inside a forward pass, or a download that cannot be interrupted.
        await asyncio.to_thread(self._shut_down)
        self._loaded = self._batcher = None

    async def model(self) -> ModelInfo:
        """What people may know of the model, once it is loaded."""
        return (await self._model()).info

    async def submit(self, request: ContinuationRequest, *, owner: Hashable = None) -> LocalTicket:
        """See `Engine.submit`."""
        self._refuse_if_full()
        prompt_ids = await self._tokenize(self._loaded, request) if self._loaded else None
        self._refuse_if_full()  # others may have come in the meantime
        ticket = LocalTicket(request, self)
        ticket.task = asyncio.create_task(self._serve(ticket, prompt_ids, owner), name="continuation")
        self._tickets.add(ticket)
        ticket.task.add_done_callback(lambda _: self._tickets.discard(ticket))
        return ticket

    async def continuation(self, request: ContinuationRequest, *, owner: Hashable = None) -> Continuation:
        """See `Engine.continuation`."""
        return await finished(self, request, owner)

    async def introspect(self, question: Question[Answer], *, owner: Hashable = None) -> Answer:
        """See `Engine.introspect`."""
        loaded, batcher = await self._model(), self._batcher
        if batcher is None:
            raise UnavailableError(refusals.SHUTTING_DOWN)
        if batcher.errands >= MAX_WAITING:
            raise refusals.too_many(batcher.errands)
        errand = Errand(_until(self._closing, introspection.answer(question, loaded)), owner)
        # The first step counts tokens and refuses; what needs no more than that waits for nobody.
        if not await self._on(self._reader, errand.advance):
            self._work_if(batcher.send(errand))
        try:
            return cast("Answer", await asyncio.wrap_future(errand.result))
        except (UserError, asyncio.CancelledError):
            raise
        except Exception as error:
            log.warning("a question failed", question=type(question).__name__, error=repr(error))
            raise refusals.failed(error) from error

    async def parameters(self, part: str = "") -> tuple[ParameterInfo, ...]:
        """The entries of the state dict whose names contain `part`, in its order.

        Raises:
            InvalidInputError: No name contains it.
        """
        return (await self._model()).parameters.filtered(part)

    async def complete_name(self, typed: str, most: int) -> tuple[str, ...]:
        """Up to `most` names of parameters that what was typed may become; none while the model is being loaded."""
        return self._loaded.parameters.complete(typed, most) if self._loaded else ()

    async def select(self, name: str, rows: str | None = None, columns: str | None = None) -> ParameterSlice:
        """The slice of a parameter that a person asked for; see `ParameterSlice.parse`. Nothing is read yet.

        Raises:
            InvalidInputError: No such parameter, or a slice that cannot be used.
        """
        return ParameterSlice.parse((await self._model()).parameters.find(name), rows, columns)

    async def read(self, part: ParameterSlice) -> NDArray[np.float32]:
        """The values of a slice: float32, in its shape."""
        parameters = (await self._model()).parameters
        return await self._on(self._reader, lambda: parameters.read(part))

    async def prompt_tokens(self, request: ContinuationRequest) -> int:
        """How many tokens the prompt of a request has.

        Raises:
            InvalidInputError: Prompt and continuation do not fit the context together.
        """
        return len(await self._tokenize(await self._model(), request))

    async def samples(self, rows: Sequence[Sequence[int]]) -> tuple[Sample, ...]:
        """The samples that new tokens make, as far as they are written."""
        loaded = await self._model()
        return await self._on(self._reader, lambda: tuple(_sample(loaded, list(row)) for row in rows))

    @property
    def pace(self) -> Pace | None:
        """How long passes take here; None before it was measured."""
        return self._batcher.pace if self._batcher else None

    async def _model(self) -> LoadedModel:
        await self._settled.wait()
        if self._closing.is_set():
            raise UnavailableError(refusals.SHUTTING_DOWN)
        if self._loaded is None:
            raise ModelNotLoadedError
        return self._loaded

    async def _serve(self, ticket: LocalTicket, prompt_ids: Sequence[int] | None, owner: Hashable) -> Continuation:
        """Bring a ticket from the prompt's tokens to the samples' texts."""
        request = ticket.request
        loaded = await self._model()
        if prompt_ids is None:
            prompt_ids = await self._tokenize(loaded, request)
        job = ticket.start(prompt_ids, owner)
        try:
            if self._batcher is None:
                raise UnavailableError(refusals.SHUTTING_DOWN)
            self._work_if(self._batcher.submit(job))
            await ticket.finished.wait()
        finally:
            ticket.end()
        done = job.generation is not None and job.generation.done
        if self._closing.is_set() and not done:
            raise UnavailableError(refusals.SHUTTING_DOWN)
        if job.failure is not None:
            raise refusals.failed(job.failure)
        seconds = time.perf_counter() - job.began if job.generation else 0.0
        # Stopped before its turn came, it has as many samples as any other, with nothing in them.
        rows = job.generation.tokens if job.generation else [[] for _ in range(request.params.rows)]
        samples = await self._on(self._reader, lambda: tuple(_sample(loaded, row) for row in rows))
        return Continuation(request, len(prompt_ids), samples, seconds, stopped=not done)

    def _work_if(self, idle: bool) -> None:  # noqa: FBT001 # reads as the sentence it is
        """Set the worker going: it occupies its lane only while there is work."""
        if idle and self._batcher:
            run = asyncio.get_running_loop().run_in_executor(self._worker, self._batcher.run)
            run.add_done_callback(_log_fault)

    def _refuse_if_full(self) -> None:
        if self._closing.is_set():
            raise UnavailableError(refusals.SHUTTING_DOWN)
        if self.waiting >= MAX_WAITING:
            raise refusals.too_many(self.waiting)
        seconds = self._batcher.seconds_before() if self._batcher else 0.0
        if seconds > MAX_WAIT_SECONDS:
            raise refusals.too_long(seconds)

    async def _tokenize(self, loaded: LoadedModel, request: ContinuationRequest) -> list[int]:
        return await self._on(self._reader, lambda: _tokenize(loaded, request))

    async def update(self, ticket: LocalTicket) -> Update | None:
        """How a ticket is getting on; None where there is nothing to say."""
        job, loaded, batcher = ticket.job, self._loaded, self._batcher
        if loaded is None or batcher is None:
            return None if self._settled.is_set() else Loading()
        if job is None or job.ended:
            return None
        if job.generation is None:
            return Queued(ticket.place, batcher.seconds_before(job)) if ticket.place else None
        rows = tuple(map(tuple, job.generation.tokens))
        texts = await self._on(self._reader, lambda: tuple(_text_so_far(loaded, row) for row in rows))
        return Progress(rows, texts, batcher.seconds_left(job))

    def _load(self) -> tuple[LoadedModel, Batcher]:
        if self._threads:
            torch.set_num_threads(self._threads)
        loaded = load(
            self.model_name,
            device=self._device,
            precision=self._precision,
            cache=self._cache,
            stopped=self._closing,
        )
        measured, threads = calibration.measure(loaded.transformer), torch.get_num_threads()
        return loaded, Batcher(loaded.transformer, loaded.end_of_text, measured, threads=threads)

    async def _on(self, lane: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        if self._closing.is_set():
            raise UnavailableError(refusals.SHUTTING_DOWN)
        return await asyncio.get_running_loop().run_in_executor(lane, call)

    def _shut_down(self) -> None:
        for lane in (self._worker, self._reader):
            lane.shutdown(wait=True, cancel_futures=True)


class LocalTicket:
    """See `bot.gpt2.engine.Ticket`."""

    task: asyncio.Task[Continuation]

    def __init__(self, request: ContinuationRequest, engine: LocalEngine) -> None:
        self.request = request
        self.finished = asyncio.Event()
        self.job: Job | None = None
        self.place = 0  # in the queue; 0 before and after
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._unwanted = False

    async def updates(self) -> AsyncIterator[Update]:
        """See `Ticket.updates`."""
        last: Update | None = None
        while not self.task.done():
            self._news.clear()
            update = await self._engine.update(self)
            if update is not None and update != last:
                last = update
                yield update
            else:
                await self._wait_for_news()

    async def result(self) -> Continuation:
        """See `Ticket.result`."""
        return await asyncio.shield(self.task)

    def stop(self) -> None:
        """See `Ticket.stop`."""
        self._unwanted = True
        if self.job:
            self.job.stopped.set()

    def abandon(self) -> None:
        """See `Ticket.abandon`."""
        self.stop()
        self.task.add_done_callback(_swallow)

    def start(self, prompt_ids: Sequence[int], owner: Hashable) -> Job:
        """Make the job; used by the engine."""
        self.job = Job(self.request, prompt_ids, owner, self._report)
        if self._unwanted:
            self.job.stopped.set()
        return self.job

    def end(self) -> None:
        """Let go of the job, which knows this ticket: a cycle would keep both until the garbage collector comes."""
        self.job = None

    async def _wait_for_news(self) -> None:
        news = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({news, self.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    def _report(self, job: Job, place: int) -> None:
        """Called on the worker thread."""
        self.place = place
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to tell
            self._loop.call_soon_threadsafe((self.finished if job.ended else self._news).set)


def _until(closing: threading.Event, steps: Steps[Answer]) -> Steps[Answer]:
    """The same steps, none of them once the engine closes."""
    while not closing.is_set():
        try:
            next(steps)
        except StopIteration as end:
            return cast("Answer", end.value)
        yield
    raise UnavailableError(refusals.SHUTTING_DOWN)


def _tokenize(loaded: LoadedModel, request: ContinuationRequest) -> list[int]:
    """Token ids of the prompt; raises InvalidInputError where prompt and continuation do not fit together."""
    ids: list[int] = loaded.tokenizer(request.prompt, verbose=False)["input_ids"]
    room = loaded.info.context - request.params.length
    if len(ids) > room:
        raise InvalidInputError(
            say(
                "The prompt has {count} tokens. With a length of {length}, at most {room} fit into {model}'s context "
                "of {context}: shorten the prompt or the length.",
                count=len(ids),
                length=request.params.length,
                room=max(room, 0),
                model=loaded.info.name,
                context=loaded.info.context,
            )
        )
    return ids


def _sample(loaded: LoadedModel, tokens: list[int]) -> Sample:
    # As TextGenerationPipeline.postprocess decodes: the new tokens alone, special ones left out.
    text = loaded.tokenizer.decode(tokens, skip_special_tokens=True)
    return Sample(tuple(tokens), str(text), ended=tokens[-1:] == [loaded.end_of_text])


def _text_so_far(loaded: LoadedModel, tokens: tuple[int, ...]) -> str:
    """As `_sample` decodes, without a character at the end of which some bytes have not been written yet."""
    return str(loaded.tokenizer.decode(list(tokens), skip_special_tokens=True)).rstrip("\ufffd")


def _log_fault(run: asyncio.Future[None]) -> None:
    if not run.cancelled() and run.exception() is not None:
        log.error("the worker failed; the next request starts it again", exc_info=run.exception())


def _swallow(task: asyncio.Task[Continuation]) -> None:
    if not task.cancelled():
        task.exception()
