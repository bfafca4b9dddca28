"""An engine whose model is loaded when somebody first asks for it, and may be dropped while it is idle."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from bot.errors import OperatorError, UnavailableError, UserError
from bot.gpt2 import refusals
from bot.gpt2.engine import MAX_WAIT_SECONDS, MAX_WAITING, run_to_completion
from bot.gpt2.statistics import Statistics
from bot.tasks import BackgroundTasks
from bot.text import say

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Callable, Hashable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bot.gpt2.engine import Answer, Engine, Ticket
    from bot.gpt2.model_info import ModelInfo, ParameterInfo, ParameterSlice
    from bot.gpt2.questions import Question
    from bot.gpt2.requests import Continuation, ContinuationRequest
    from bot.text import Text

_uses = itertools.count(1)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """A model that can be loaded.

    Attributes:
        name: The name under which people know it.
        make: Returns a new engine for it, not started.
        measure: Estimates its bytes in memory; the event ends a download that this may take.
    """

    name: str
    make: Callable[[], Engine]
    measure: Callable[[threading.Event], int] = lambda _: 0


class Loader(Protocol):
    """Decides when a model is loaded; see `bot.gpt2.models.ModelMemory`."""

    async def load(self, engine: LazyEngine) -> None:
        """Call the engine's `open` when there is room for it."""
        ...


class LazyEngine:
    """A model that may be absent from memory; see `bot.gpt2.engine.Engine`.

    A call that needs the model holds a lease on it until it has ended, that of `submit` until its ticket is done.

    Attributes:
        last_used: Larger for the more recently used of two engines.
    """

    def __init__(self, source: Source, memory: Loader) -> None:
        self.source = source
        self.model_name = source.name
        self.last_used = 0
        self._memory = memory
        self._engine: Engine | None = None
        self._info: ModelInfo | None = None  # stays known while the model is not loaded
        self._leases = 0
        self._no_lease = asyncio.Event()
        self._no_lease.set()
        self._giving_way = False
        self._waiting: list[asyncio.Future[Engine]] = []  # calls that wait for the model
        self._tasks = BackgroundTasks()
        self._loading = False
        self._stopped = False
        self._changed = asyncio.Event()  # a model was loaded, or `stop` was called

    @property
    def ready(self) -> bool:
        """Return whether the model is loaded."""
        return self._engine is not None

    @property
    def idle(self) -> bool:
        """Return whether nothing uses the model."""
        return not self._leases

    @property
    def waiting(self) -> int:
        """Continuations accepted and not yet answered, and calls that wait for the model."""
        return (self._engine.waiting if self._engine else 0) + len(self._waiting)

    @property
    def tokens_per_second(self) -> float | None:
        """Recent speed over all requests; None before the first measurement."""
        return self._engine.tokens_per_second if self._engine else None

    @property
    def statistics(self) -> Statistics:
        """The work done since the model was loaded, and whether its worker makes progress."""
        return self._engine.statistics if self._engine else Statistics()

    @property
    def workers(self) -> Mapping[str, Statistics]:
        """The statistics of the only worker."""
        return {"": self.statistics}

    async def start(self) -> None:
        """Load the model now."""
        async with self._leased():
            pass

    async def open(self) -> None:
        """Load the model and let all calls that wait for it go on; called by `ModelMemory`.

        Raises:
            OperatorError: It cannot be loaded.
        """
        engine = self.source.make()
        try:
            await engine.start()
            self._info = await engine.model()
        except BaseException:
            await engine.close()
            raise
        self._engine = engine
        self._changed.set()
        self._touch()
        self._grant()

    async def give_way(self, seconds: float) -> bool:
        """Drop the model once its running work is done; return False, and keep it, if that takes longer than `seconds`.

        New calls wait meanwhile, and afterwards until the model is loaded again.
        """
        self._giving_way = True
        try:
            if self._leases:
                async with asyncio.timeout(seconds):
                    await self._no_lease.wait()
        except TimeoutError:
            self._grant()
            return False
        finally:
            self._giving_way = False
        engine, self._engine = self._engine, None
        if engine:
            await engine.close()
        return True

    async def watch(self) -> None:
        """See `Engine.watch`."""
        while not self._stopped:
            self._changed.clear()
            watched = self._engine
            if watched:
                await watched.watch()  # until it is dropped
            if watched is self._engine:
                await self._changed.wait()

    def stop(self) -> None:
        """See `Engine.stop`."""
        self._stopped = True
        self._changed.set()
        if self._engine:
            self._engine.stop()
        self._refuse(refusals.SHUTTING_DOWN)

    async def close(self) -> None:
        """See `Engine.close`."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._engine:
            await self._engine.close()
            self._engine = None

    async def model(self) -> ModelInfo:
        """See `Engine.model`. A model that was loaded before need not be loaded for that again."""
        if self._info is None:
            await self.start()
        assert self._info is not None  # noqa: S101 # `open` sets it
        return self._info

    async def submit(self, request: ContinuationRequest, *, owner: Hashable = None) -> Ticket:
        """See `Engine.submit`. This returns once the model is loaded."""
        async with self._leased() as engine:
            ticket = await engine.submit(request, owner=owner)
            self._leases += 1
        self._tasks.start(self._hold(ticket), "hold a model")
        return ticket

    async def continuation(self, request: ContinuationRequest, *, owner: Hashable = None) -> Continuation:
        """See `Engine.continuation`."""
        return await run_to_completion(self, request, owner)

    async def introspect(self, question: Question[Answer], *, owner: Hashable = None) -> Answer:
        """See `Engine.introspect`."""
        async with self._leased() as engine:
            return await engine.introspect(question, owner=owner)

    async def parameters(self, part: str = "") -> tuple[ParameterInfo, ...]:
        """See `Engine.parameters`."""
        async with self._leased() as engine:
            return await engine.parameters(part)

    async def complete_name(self, typed: str, most: int) -> tuple[str, ...]:
        """See `Engine.complete_name`."""
        return await self._engine.complete_name(typed, most) if self._engine else ()

    async def select(self, name: str, rows: str | None = None, columns: str | None = None) -> ParameterSlice:
        """See `Engine.select`."""
        async with self._leased() as engine:
            return await engine.select(name, rows, columns)

    async def read(self, part: ParameterSlice) -> NDArray[np.float32]:
        """See `Engine.read`."""
        async with self._leased() as engine:
            return await engine.read(part)

    @contextlib.asynccontextmanager
    async def _leased(self) -> AsyncIterator[Engine]:
        """Yield the loaded engine, which stays loaded meanwhile.

        Raises:
            UnavailableError: It could not be loaded, or too many wait for it.
        """
        engine = await self._acquire()
        try:
            yield engine
        finally:
            self._release()

    async def _acquire(self) -> Engine:
        """Return the loaded engine with a lease on it."""
        if self._stopped:
            raise UnavailableError(refusals.SHUTTING_DOWN)
        if self._engine and not self._giving_way:
            self._lease()
            return self._engine
        if len(self._waiting) >= MAX_WAITING:
            raise refusals.queue_full(len(self._waiting))
        granted: asyncio.Future[Engine] = asyncio.get_running_loop().create_future()
        self._waiting.append(granted)
        if not self._loading:
            self._loading = True
            self._tasks.start(self._load(), "load a model")
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                return await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled() and not granted.exception():
                self._release()  # it was granted in the same moment
            if isinstance(error, TimeoutError):
                raise UnavailableError(
                    say("{model} is still being loaded. Try again in a few minutes.", model=self.model_name)
                ) from error
            raise

    async def _load(self) -> None:
        """Have the model loaded, and tell everybody who waits if it cannot be."""
        try:
            await self._memory.load(self)
        except UserError as error:
            self._refuse(error.text)
        except Exception as error:  # noqa: BLE001 # the bot and its other models go on
            reason = str(error) if isinstance(error, OperatorError) else repr(error)
            log.error("a model could not be loaded", model=self.model_name, error=reason)  # noqa: TRY400 # one line
            self._refuse(
                say(
                    "{model} could not be loaded. My operator can find the reason in the log. Try again later, or "
                    "choose another model.",
                    model=self.model_name,
                )
            )
        finally:
            self._loading = False

    async def _hold(self, ticket: Ticket) -> None:
        """Keep the lease of a ticket until that is done."""
        try:
            await ticket.result()
        except Exception:  # noqa: BLE001, S110 # whoever has the ticket hears of it
            pass
        finally:
            self._release()

    def _lease(self) -> None:
        self._leases += 1
        self._no_lease.clear()

    def _release(self) -> None:
        self._leases -= 1
        self._touch()
        if not self._leases:
            self._no_lease.set()

    def _touch(self) -> None:
        self.last_used = next(_uses)

    def _grant(self) -> None:
        """Give a lease to every call that waits."""
        for waiting in self._waiting:
            if not waiting.done() and self._engine:
                self._lease()
                waiting.set_result(self._engine)
        self._waiting.clear()

    def _refuse(self, text: Text) -> None:
        """Tell every call that waits why it gets no model."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(UnavailableError(text))
        self._waiting.clear()
