"""GPT-2 on a cluster that `bot.gpt2.cluster.deployment` runs, reached over HTTP.

The bot's process has neither torch nor Ray, so any failure of the cluster or the network is only a broken stream here.
The request is then sent again with the same id. Its seed gives the same words. Users never see output withdrawn: states
with fewer tokens are dropped until the repeated computation has caught up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

import aiohttp
import structlog

from bot.errors import ModelNotLoadedError, UnavailableError, UnreachableError
from bot.gpt2 import refusals
from bot.gpt2.cluster import protocol
from bot.gpt2.engine import MAX_WAIT_SECONDS, run_to_completion
from bot.gpt2.model_info import ParameterSlice
from bot.gpt2.parameter_names import ParameterNames
from bot.gpt2.requests import Continuation, Loading, Progress, Queued, Sample
from bot.gpt2.statistics import Statistics
from bot.gpt2.tickets import TaskTicket, first_of
from bot.installation import program
from bot.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bot.gpt2.engine import Answer
    from bot.gpt2.model_info import ModelInfo, ParameterInfo
    from bot.gpt2.questions import Question
    from bot.gpt2.requests import ContinuationRequest, Update

REQUEST_TIMEOUT_SECONDS: Final = MAX_WAIT_SECONDS + 30
"""Time limit of a request: an interaction lives for 15 minutes, and the answer has to be delivered."""

START_TIMEOUT_SECONDS: Final = 300.0
"""How long `start` waits for a cluster to respond and to load its model."""

UNREACHABLE_SECONDS: Final = 60.0
"""Silence of the cluster after which new requests are refused; until then it may be restarting."""

READ_TIMEOUT_SECONDS: Final = 15.0  # of a stream, which has a keepalive every 5 seconds
CONNECT_TIMEOUT_SECONDS: Final = 5.0
LARGE_MESSAGE_BYTES: Final = 2**16  # size from which a message is decoded off the event loop
STATUS_SECONDS: Final = 2.0  # between two status requests
_RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_OWNER_HEADER: Final = "x-owner"

log = structlog.get_logger(__name__)


class _DisconnectedError(Exception):
    """The cluster did not respond, or a stream broke."""


class ClusterEngine:
    """The engine of a cluster; see `bot.gpt2.engine.Engine`."""

    def __init__(self, addresses: Sequence[str], *, model_name: str = "") -> None:
        """Keep the addresses; `start` connects.

        Args:
            addresses: Of the cluster's front end, ``http://host:port``, tried in turn.
            model_name: Name of the model until the cluster reports it.
        """
        self.model_name = model_name
        self._addresses = deque(address.rstrip("/") for address in addresses)
        self._session: aiohttp.ClientSession | None = None
        self._tickets: set[ClusterTicket] = set()
        self._background = BackgroundTasks()
        self._start_finished = asyncio.Event()  # with or without success
        self._about: protocol.About | None = None
        self._names = ParameterNames(())
        self._status: protocol.Status | None = None
        self._about_hash: str | None = None
        self._last_response = time.monotonic()
        self._reachable = False
        self._closing = False
        self._ended = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Return whether the cluster is reachable and its model loaded."""
        return self._reachable and self._about is not None

    @property
    def waiting(self) -> int:
        """Continuations accepted and not yet answered, including those of other bots."""
        return max(self._status.waiting if self._status else 0, len(self._tickets))

    @property
    def tokens_per_second(self) -> float | None:
        """Recent speed of all replicas together; None before the first measurement."""
        return self._status.tokens_per_second if self._status else None

    @property
    def statistics(self) -> Statistics:
        """The work of the current replicas; never stalled, since a restart of the bot would not help."""
        return replace(sum(self.workers.values(), Statistics()), stalled_seconds=0.0)

    @property
    def workers(self) -> Mapping[str, Statistics]:
        """The statistics of each replica; replicas work for all bots of the cluster."""
        return self._status.statistics if self._status else {}

    async def start(self, *, patience: float | None = None) -> None:
        """Connect to the cluster and return when it has loaded its model.

        Args:
            patience: Seconds to wait; `START_TIMEOUT_SECONDS` if None.

        Raises:
            UnreachableError: The cluster did not respond or has no model.
        """
        self._background.start(self._poll_status(), name="poll the status")
        try:
            await asyncio.wait_for(self._start_finished.wait(), START_TIMEOUT_SECONDS if patience is None else patience)
        except TimeoutError as error:
            self._start_finished.set()
            raise UnreachableError(
                f"The cluster at {' and '.join(self._addresses)} (GPT2_CLUSTER) did not answer with a model. "
                f"`{program()} cluster` starts one; `serve status` on one of its machines says how it is."
            ) from error
        if self._about:
            log.info("the model is ready", model=self.model_name, replicas=self._status.replicas if self._status else 0)

    async def watch(self) -> None:
        """See `Engine.watch`; the cluster replaces replicas whose GPU is lost."""
        await self._ended.wait()

    def stop(self) -> None:
        """See `Engine.stop`."""
        self._closing = True
        self._ended.set()
        self._start_finished.set()
        for ticket in self._tickets:
            ticket.abandon()

    async def close(self) -> None:
        """Stop, and close the connections."""
        self.stop()
        await asyncio.gather(*(ticket.task for ticket in self._tickets), return_exceptions=True)
        cancellations = {task for task in self._background if task.get_name() == "cancel"}
        if cancellations:
            await asyncio.wait(cancellations, timeout=1.0)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._session:
            await self._session.close()

    async def model(self) -> ModelInfo:
        """See `Engine.model`."""
        return (await self._model()).model

    async def submit(self, request: ContinuationRequest, *, owner: Hashable = None) -> ClusterTicket:
        """See `Engine.submit`."""
        if self._closing:
            raise UnavailableError(refusals.SHUTTING_DOWN)
        self._refuse_if_unreachable()
        ticket = ClusterTicket(request, uuid.uuid4().hex)
        ticket.task = asyncio.create_task(self._serve(ticket, owner), name="continuation")
        self._tickets.add(ticket)
        ticket.task.add_done_callback(lambda _: self._tickets.discard(ticket))
        try:
            await first_of(ticket.accepted, ticket.task)
        except asyncio.CancelledError:
            ticket.abandon()
            raise
        if not ticket.accepted.is_set():
            await ticket.result()  # raises the refusal
        return ticket

    async def continuation(self, request: ContinuationRequest, *, owner: Hashable = None) -> Continuation:
        """See `Engine.continuation`."""
        return await run_to_completion(self, request, owner)

    async def introspect(self, question: Question[Answer], *, owner: Hashable = None) -> Answer:
        """See `Engine.introspect`."""
        return cast("Answer", await self._request("introspect", question, owner))

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
        return cast("NDArray[np.float32]", await self._request("read", part, None))

    async def _model(self) -> protocol.About:
        await self._start_finished.wait()
        if self._closing:
            raise UnavailableError(refusals.SHUTTING_DOWN)
        if self._about is None:
            raise ModelNotLoadedError
        return self._about

    async def _serve(self, ticket: ClusterTicket, owner: Hashable) -> Continuation:
        """Return the answer to a ticket within the time limit, or raise its refusal."""
        stream = asyncio.create_task(self._follow(ticket, owner))
        try:
            ends: set[asyncio.Future[Any]] = {stream, ticket.stopped}
            await asyncio.wait(ends, timeout=REQUEST_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if stream.done():
                return stream.result()
            self._background.start(self._cancel(ticket), name="cancel")
            if self._closing:
                raise UnavailableError(refusals.SHUTTING_DOWN)
            if ticket.stopped.done():
                return ticket.partial()
            raise refusals.cluster_timed_out()
        finally:
            ticket.stopped.cancel()
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)

    async def _follow(self, ticket: ClusterTicket, owner: Hashable) -> Continuation:
        """Follow a request until it is answered, over as many streams as necessary."""
        message, attempt = protocol.encode(ticket.request), 0
        while True:
            try:
                stream = self._stream(f"requests/{ticket.name}", message, owner)
                async with contextlib.aclosing(stream) as received:
                    async for each in received:
                        attempt = 0
                        if ticket.receive(each):
                            return ticket.partial()
            except _DisconnectedError as error:
                log.warning("lost the cluster; resending a request", attempt=attempt, error=str(error))
            ticket.disconnect()
            await asyncio.sleep(_backoff(attempt))
            attempt += 1

    async def _request(self, method: str, argument: object, owner: Hashable) -> Any:
        """Return the answer to anything but a continuation."""
        await self._model()
        self._refuse_if_unreachable()
        message, attempt = await asyncio.to_thread(protocol.encode, argument), 0
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                while True:
                    with contextlib.suppress(_DisconnectedError):
                        answer = None
                        async with contextlib.aclosing(self._stream(f"ask/{method}", message, owner)) as received:
                            async for each in received:
                                answer = (each,)
                        if answer:
                            return answer[0]
                    if self._closing:
                        raise UnavailableError(refusals.SHUTTING_DOWN)
                    await asyncio.sleep(_backoff(attempt))
                    attempt += 1
        except TimeoutError:
            raise refusals.cluster_timed_out() from None

    async def _stream(self, path: str, message: bytes, owner: Hashable) -> AsyncGenerator[Any, None]:
        """Send a message and yield the decoded responses.

        Raises:
            _DisconnectedError: The stream broke or did not begin.
            UserError: The cluster refused.
        """
        headers = {} if owner is None else {_OWNER_HEADER: quote(str(owner), safe="")}
        async with self._call("POST", path, data=message, headers=headers) as response:
            async for each in protocol.messages(response.content.iter_any()):
                if not each:
                    continue
                large = len(each) >= LARGE_MESSAGE_BYTES
                received = await asyncio.to_thread(protocol.decode, each) if large else protocol.decode(each)
                if isinstance(received, protocol.Refusal):
                    raise protocol.to_error(received)
                yield received

    @contextlib.asynccontextmanager
    async def _call(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a response of the cluster; raise `_DisconnectedError` for any failure while it is open."""
        address = self._addresses[0]
        try:
            async with self._client().request(method, f"{address}/{path}", **options) as response:
                if response.status == 400:  # noqa: PLR2004 # a message it cannot decode
                    log.error("the cluster rejected a message; bot and cluster need the same version")
                    raise refusals.failed()
                if not response.ok:
                    raise _DisconnectedError(f"HTTP status {response.status}")
                self._last_response = time.monotonic()
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError, protocol.MalformedMessageError) as error:
            if self._addresses[0] == address:
                self._addresses.rotate(-1)
            raise _DisconnectedError(repr(error)) from error

    async def _cancel(self, ticket: ClusterTicket) -> None:
        """Cancel a request on the cluster, which otherwise does so itself after a while without listeners."""
        with contextlib.suppress(_DisconnectedError, UnavailableError):
            async with self._call("DELETE", f"requests/{ticket.name}"):
                pass

    async def _poll_status(self) -> None:
        """Poll the cluster's status, and its model whenever that changes."""
        while True:
            try:
                async with self._call(
                    "GET", "status", timeout=aiohttp.ClientTimeout(CONNECT_TIMEOUT_SECONDS)
                ) as response:
                    status: protocol.Status = protocol.decode(await response.read())
                self._status = status
                if status.about is not None and status.about != self._about_hash:
                    await self._fetch_about(status.about)
                if not self._reachable:
                    log.info("the cluster is reachable", address=self._addresses[0])
                self._reachable = True
            except (_DisconnectedError, UnavailableError, protocol.MalformedMessageError) as error:
                if self._reachable:
                    log.warning("the cluster is unreachable", error=str(error))
                self._reachable = False
            await asyncio.sleep(STATUS_SECONDS if self.ready else _RETRY_SECONDS[1])

    async def _fetch_about(self, about_hash: str) -> None:
        async with contextlib.aclosing(self._stream("ask/about", protocol.encode(None), None)) as received:
            async for about in received:
                self._about, self._names, self._about_hash = about, ParameterNames(about.parameters), about_hash
                self.model_name = about.model_name
                self._start_finished.set()

    def _refuse_if_unreachable(self) -> None:
        if time.monotonic() - self._last_response > UNREACHABLE_SECONDS:
            raise refusals.cluster_unreachable()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=READ_TIMEOUT_SECONDS
            )
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        return self._session


class ClusterTicket(TaskTicket):
    """A ticket of `ClusterEngine`."""

    def __init__(self, request: ContinuationRequest, name: str) -> None:
        super().__init__(request)
        self.name = name
        self.accepted = asyncio.Event()
        self.stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._state: Update | None = None
        self._output: protocol.Output | None = None
        self._prompt_tokens = 0

    async def current(self) -> Update | None:
        """See `TaskTicket.current`."""
        return self._state

    def stop(self) -> None:
        """See `Ticket.stop`."""
        if not self.stopped.done():
            self.stopped.set_result(None)

    def receive(self, message: object) -> bool:
        """Apply a message of the cluster and return whether it is the final answer."""
        self.accepted.set()
        match message:
            case protocol.Accepted(prompt_tokens):
                self._prompt_tokens = prompt_tokens or 0
            case Queued() if self._output is None:
                self._state = message
            case protocol.Output() if message.done or self._output is None or message.tokens >= self._output.tokens:
                # Output with fewer tokens repeats what users saw before a replica was lost.
                self._output, self._prompt_tokens = message, message.prompt_tokens
                texts = tuple(sample.text.rstrip("\ufffd") for sample in message.samples)
                tokens = tuple(sample.token_ids for sample in message.samples)
                self._state = Progress(tokens, texts, message.seconds_left)
        self.changed.set()
        return isinstance(message, protocol.Output) and message.done

    def disconnect(self) -> None:
        """Note that the connection is lost for now."""
        self.accepted.set()  # by this bot, which resends the request
        if self._output is None:
            self._state = Loading()
        self.changed.set()

    def partial(self) -> Continuation:
        """Return the answer as far as it has arrived."""
        output = self._output
        if output is None:
            samples = (Sample((), "", ended=False),) * self.request.params.rows
            return Continuation(self.request, self._prompt_tokens, samples, seconds=0.0, stopped=True)
        return Continuation(self.request, output.prompt_tokens, output.samples, output.seconds, stopped=not output.done)


def _backoff(attempt: int) -> float:
    return _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)] * random.uniform(0.75, 1.25)
