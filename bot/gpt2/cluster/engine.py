"""GPT-2 on other machines: the front door of `bot.gpt2.engine` to a cluster that `bot.gpt2.cluster.deployment` runs.

The bot speaks HTTP to the cluster's door, and has neither torch nor Ray in its process: what becomes of the cluster, a
head that restarts, a network that is gone, can only ever be a broken stream here. Then the request is sent again, with
the same id. Its seed gives the same words, and what its user has seen is not taken back: older states are held back
until the newer one has caught up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote

import aiohttp
import structlog

from bot.errors import ModelNotLoadedError, UnavailableError, UnreachableError
from bot.gpt2 import refusals
from bot.gpt2.cluster import protocol
from bot.gpt2.engine import MAX_WAIT_SECONDS, finished
from bot.gpt2.model_info import ParameterSlice, example_prompt
from bot.gpt2.parameter_names import ParameterNames
from bot.gpt2.requests import Continuation, Loading, Progress, Queued, Sample
from bot.gpt2.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Hashable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bot.gpt2.engine import Answer
    from bot.gpt2.model_info import ModelInfo, ParameterInfo
    from bot.gpt2.questions import Question
    from bot.gpt2.requests import ContinuationRequest, Update

T = TypeVar("T")

REQUEST_TIMEOUT_SECONDS: Final = MAX_WAIT_SECONDS + 30
"""How long a request may take in all: an interaction lives for 15 minutes, and the answer takes its time."""

START_TIMEOUT_SECONDS: Final = 300.0
"""How long `start` waits for a cluster that does not answer or has not loaded its model yet."""

UNREACHABLE_SECONDS: Final = 60.0
"""After how long without a word from the cluster nothing new is accepted; it may be restarting until then."""

READ_TIMEOUT_SECONDS: Final = 15.0  # of a stream, which says something every 5 seconds
CONNECT_TIMEOUT_SECONDS: Final = 5.0
LARGE_BYTES: Final = 2**16  # from here on a message is read off the event loop
STATUS_SECONDS: Final = 2.0  # between two looks at the cluster
_RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_OWNER: Final = "x-owner"

log = structlog.get_logger(__name__)


class _DisconnectedError(Exception):
    """The cluster did not answer, or not to the end."""


class ClusterEngine:
    """A cluster's engine; see `bot.gpt2.engine.Engine`."""

    def __init__(self, addresses: Sequence[str], *, model_name: str = "") -> None:
        """Describe the way; nothing is opened yet.

        Args:
            addresses: Of the cluster's door, ``http://host:port``; the next one is taken where one does not answer.
            model_name: What to call the model until the cluster has told.
        """
        self.model_name = model_name
        self._addresses = deque(address.rstrip("/") for address in addresses)
        self._open: aiohttp.ClientSession | None = None
        self._tickets: set[ClusterTicket] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._known = asyncio.Event()  # what the model is, or that nobody will tell
        self._about: protocol.About | None = None
        self._names = ParameterNames(())
        self._status: protocol.Status | None = None
        self._version: str | None = None
        self._heard = time.monotonic()  # of the cluster, when last
        self._in_reach = False
        self._closing = False

    @property
    def ready(self) -> bool:
        """Whether the cluster is in reach and its model loaded."""
        return self._in_reach and self._about is not None

    @property
    def example_prompt(self) -> str:
        """A prompt that suits the model."""
        return example_prompt(shipped=self._about is not None and self._about.shipped)

    @property
    def waiting(self) -> int:
        """Continuations accepted and not yet answered, those of other bots too."""
        return max(self._status.waiting if self._status else 0, len(self._tickets))

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of late, all replicas together; None before anything was measured."""
        return self._status.tokens_per_second if self._status else None

    @property
    def statistics(self) -> Statistics:
        """What the cluster's replicas of today have done; never stalled, for a restart of the bot would not help."""
        return replace(sum(self.workers.values(), Statistics()), stalled_seconds=0.0)

    @property
    def workers(self) -> Mapping[str, Statistics]:
        """The replicas, which work for all bots of the cluster."""
        return self._status.statistics if self._status else {}

    async def start(self, *, patience: float | None = None) -> None:
        """Find the cluster; returns when it has loaded its model.

        Args:
            patience: Seconds to wait for that; `START_TIMEOUT_SECONDS` if None.

        Raises:
            UnreachableError: It did not answer, or not with a model.
        """
        self._in_background(self._keep_in_touch())
        try:
            await asyncio.wait_for(self._known.wait(), START_TIMEOUT_SECONDS if patience is None else patience)
        except TimeoutError as error:
            self._known.set()
            raise UnreachableError(
                f"The cluster at {' and '.join(self._addresses)} (GPT2_CLUSTER) did not answer with a model. "
                "`python -m bot cluster` starts one; `serve status` on one of its machines says how it is."
            ) from error
        if self._about:
            log.info("the model is ready", model=self.model_name, replicas=self._status.replicas if self._status else 0)

    def stop(self) -> None:
        """Give up what is running and refuse everything else from now on."""
        self._closing = True
        self._known.set()
        for ticket in self._tickets:
            ticket.abandon()

    async def close(self) -> None:
        """`stop`, and close the connections."""
        self.stop()
        await asyncio.gather(*(ticket.task for ticket in self._tickets), return_exceptions=True)
        farewells = {task for task in self._background if task.get_name() == "drop"}
        if farewells:
            await asyncio.wait(farewells, timeout=1.0)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._open:
            await self._open.close()

    async def model(self) -> ModelInfo:
        """What people may know of the model, once the cluster has told."""
        return (await self._model()).model

    async def submit(self, request: ContinuationRequest, *, owner: Hashable = None) -> ClusterTicket:
        """See `Engine.submit`."""
        if self._closing:
            raise UnavailableError(refusals.SHUTTING_DOWN)
        self._refuse_if_away()
        ticket = ClusterTicket(request, uuid.uuid4().hex)
        ticket.task = asyncio.create_task(self._serve(ticket, owner), name="continuation")
        self._tickets.add(ticket)
        ticket.task.add_done_callback(lambda _: self._tickets.discard(ticket))
        accepted = asyncio.ensure_future(ticket.accepted.wait())
        try:
            await asyncio.wait({accepted, ticket.task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            ticket.abandon()
            raise
        finally:
            accepted.cancel()
        if not ticket.accepted.is_set():
            await ticket.result()  # raises what it was refused with
        return ticket

    async def continuation(self, request: ContinuationRequest, *, owner: Hashable = None) -> Continuation:
        """See `Engine.continuation`."""
        return await finished(self, request, owner)

    async def introspect(self, question: Question[Answer], *, owner: Hashable = None) -> Answer:
        """See `Engine.introspect`."""
        return cast("Answer", await self._ask("introspect", question, owner))

    async def parameters(self, part: str = "") -> tuple[ParameterInfo, ...]:
        """See `Engine.parameters`."""
        await self._model()
        return self._names.filtered(part)

    async def complete_name(self, typed: str, most: int) -> tuple[str, ...]:
        """See `Engine.complete_name`."""
        return self._names.complete(typed, most)

    async def select(self, name: str, rows: str | None = None, columns: str | None = None) -> ParameterSlice:
        """See `Engine.select`."""
        await self._model()
        return ParameterSlice.parse(self._names.find(name), rows, columns)

    async def read(self, part: ParameterSlice) -> NDArray[np.float32]:
        """See `Engine.read`."""
        return cast("NDArray[np.float32]", await self._ask("read", part, None))

    async def _model(self) -> protocol.About:
        await self._known.wait()
        if self._closing:
            raise UnavailableError(refusals.SHUTTING_DOWN)
        if self._about is None:
            raise ModelNotLoadedError
        return self._about

    async def _serve(self, ticket: ClusterTicket, owner: Hashable) -> Continuation:
        """The answer to a ticket, or the one refusal, within the time that there is."""
        stream = asyncio.create_task(self._follow(ticket, owner))
        try:
            ends: set[asyncio.Future[Any]] = {stream, ticket.given_up}
            await asyncio.wait(ends, timeout=REQUEST_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if stream.done():
                return stream.result()
            self._in_background(self._drop(ticket), name="drop")
            if self._closing:
                raise UnavailableError(refusals.SHUTTING_DOWN)
            if ticket.given_up.done():
                return ticket.so_far()
            raise refusals.cluster_timed_out()
        finally:
            ticket.given_up.cancel()
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)

    async def _follow(self, ticket: ClusterTicket, owner: Hashable) -> Continuation:
        """Listen to a request until it is answered, on as many streams as it takes."""
        message, attempt = protocol.encode(ticket.request), 0
        while True:
            try:
                async with contextlib.aclosing(self._listen(f"requests/{ticket.name}", message, owner)) as said:
                    async for each in said:
                        attempt = 0
                        if ticket.see(each):
                            return ticket.so_far()
            except _DisconnectedError as error:
                log.warning("the cluster was lost; a request is sent again", attempt=attempt, error=str(error))
            ticket.lose()
            await asyncio.sleep(_pause(attempt))
            attempt += 1

    async def _ask(self, method: str, asked: object, owner: Hashable) -> Any:
        """The answer to anything but a continuation."""
        await self._model()
        self._refuse_if_away()
        message, attempt = await asyncio.to_thread(protocol.encode, asked), 0
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                while True:
                    with contextlib.suppress(_DisconnectedError):
                        answer = None
                        async with contextlib.aclosing(self._listen(f"ask/{method}", message, owner)) as said:
                            async for each in said:
                                answer = (each,)
                        if answer:
                            return answer[0]
                    if self._closing:
                        raise UnavailableError(refusals.SHUTTING_DOWN)
                    await asyncio.sleep(_pause(attempt))
                    attempt += 1
        except TimeoutError:
            raise refusals.cluster_timed_out() from None

    async def _listen(self, path: str, message: bytes, owner: Hashable) -> AsyncGenerator[Any, None]:
        """What the cluster says to a message, decoded.

        Raises:
            _DisconnectedError: The stream broke, or did not begin.
            UserError: The cluster refuses.
        """
        headers = {} if owner is None else {_OWNER: quote(str(owner), safe="")}
        async with self._call("POST", path, data=message, headers=headers) as response:
            async for each in protocol.messages(response.content.iter_any()):
                if not each:
                    continue
                said = (
                    protocol.decode(each) if len(each) < LARGE_BYTES else await asyncio.to_thread(protocol.decode, each)
                )
                if isinstance(said, protocol.Refusal):
                    raise protocol.to_error(said)
                yield said

    @contextlib.asynccontextmanager
    async def _call(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response of the cluster, as long as it lasts; whatever goes wrong with it is a `_DisconnectedError`."""
        address = self._addresses[0]
        try:
            async with self._session().request(method, f"{address}/{path}", **options) as response:
                if response.status == 400:  # noqa: PLR2004 # it does not understand: another version
                    log.error("the cluster does not understand this bot: give both the same version")
                    raise refusals.failed()
                if not response.ok:
                    raise _DisconnectedError(f"HTTP status {response.status}")
                self._heard = time.monotonic()
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError, protocol.MalformedMessageError) as error:
            if self._addresses[0] == address:
                self._addresses.rotate(-1)
            raise _DisconnectedError(repr(error)) from error

    async def _drop(self, ticket: ClusterTicket) -> None:
        """Tell the cluster that nobody waits; if it does not hear, it finds out by itself after a while."""
        with contextlib.suppress(_DisconnectedError, UnavailableError):
            async with self._call("DELETE", f"requests/{ticket.name}"):
                pass

    async def _keep_in_touch(self) -> None:
        """Know how the cluster is doing, and which model it has."""
        while True:
            try:
                async with self._call(
                    "GET", "status", timeout=aiohttp.ClientTimeout(CONNECT_TIMEOUT_SECONDS)
                ) as response:
                    status: protocol.Status = protocol.decode(await response.read())
                self._status = status
                if status.about is not None and status.about != self._version:
                    await self._learn(status.about)
                self._reached()
            except (_DisconnectedError, UnavailableError, protocol.MalformedMessageError) as error:
                self._missed(error)
            await asyncio.sleep(STATUS_SECONDS if self.ready else _RETRY_SECONDS[1])

    async def _learn(self, version: str) -> None:
        async with contextlib.aclosing(self._listen("ask/about", protocol.encode(None), None)) as said:
            async for about in said:
                self._about, self._names, self._version = about, ParameterNames(about.parameters), version
                self.model_name = about.model_name
                self._known.set()

    def _reached(self) -> None:
        if not self._in_reach:
            log.info("the cluster is in reach", address=self._addresses[0])
        self._in_reach = True

    def _missed(self, error: Exception) -> None:
        if self._in_reach:
            log.warning("the cluster is out of reach", error=str(error))
        self._in_reach = False

    def _refuse_if_away(self) -> None:
        if time.monotonic() - self._heard > UNREACHABLE_SECONDS:
            raise refusals.cluster_unreachable()

    def _session(self) -> aiohttp.ClientSession:
        if self._open is None or self._open.closed:
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=READ_TIMEOUT_SECONDS
            )
            self._open = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        return self._open

    def _in_background(self, work: Coroutine[Any, Any, None], *, name: str = "cluster") -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


class ClusterTicket:
    """See `bot.gpt2.engine.Ticket`."""

    task: asyncio.Task[Continuation]

    def __init__(self, request: ContinuationRequest, name: str) -> None:
        self.request = request
        self.name = name
        self.accepted = asyncio.Event()
        self.given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()
        self._state: Update | None = None
        self._written: protocol.Output | None = None
        self._prompt_tokens = 0

    async def updates(self) -> AsyncIterator[Update]:
        """See `Ticket.updates`."""
        last: Update | None = None
        while not self.task.done():
            self._news.clear()
            state = self._state
            if state is not None and state != last:
                last = state
                yield state
            else:
                await self._wait_for_news()

    async def result(self) -> Continuation:
        """See `Ticket.result`."""
        return await asyncio.shield(self.task)

    def stop(self) -> None:
        """See `Ticket.stop`."""
        if not self.given_up.done():
            self.given_up.set_result(None)

    def abandon(self) -> None:
        """See `Ticket.abandon`."""
        self.stop()
        self.task.add_done_callback(_swallow)

    def see(self, said: object) -> bool:
        """Take what the cluster says; whether that was the answer."""
        self.accepted.set()
        match said:
            case protocol.Accepted(prompt_tokens):
                self._prompt_tokens = prompt_tokens or 0
            case Queued() if self._written is None:
                self._state = said
            case protocol.Output() if said.done or self._written is None or said.tokens >= self._written.tokens:
                # Anything less was seen before the request had to be computed again.
                self._written, self._prompt_tokens = said, said.prompt_tokens
                texts = tuple(sample.text.rstrip("\ufffd") for sample in said.samples)
                self._state = Progress(tuple(sample.token_ids for sample in said.samples), texts, said.left)
        self._news.set()
        return isinstance(said, protocol.Output) and said.done

    def lose(self) -> None:
        """The cluster is gone for the moment."""
        self.accepted.set()  # by this bot, which asks again
        if self._written is None:
            self._state = Loading()
        self._news.set()

    def so_far(self) -> Continuation:
        """The answer as far as it is written."""
        if self._written is None:
            nothing = Sample((), "", ended=False)
            return Continuation(
                self.request, self._prompt_tokens, (nothing,) * self.request.rows, seconds=0.0, stopped=True
            )
        written = self._written
        return Continuation(
            self.request, written.prompt_tokens, written.samples, written.seconds, stopped=not written.done
        )

    async def _wait_for_news(self) -> None:
        news = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({news, self.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()


def _pause(attempt: int) -> float:
    return _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)] * random.uniform(0.75, 1.25)


def _swallow(task: asyncio.Task[Continuation]) -> None:
    if not task.cancelled():
        task.exception()
