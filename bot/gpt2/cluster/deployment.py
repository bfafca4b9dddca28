"""The engine as an application of Ray Serve: replicas on any number of machines behind one front end.

A `Replica` is a `LocalEngine` on one machine, which batches its requests. The `FrontEnd` takes the bots' requests over
HTTP, and its `Dispatcher` distributes them over the replicas. Ray Serve scales both, replaces those that die or hang,
and lets running requests finish when a new version is deployed.

`python -m bot cluster` and the files in `deploy/` name `application`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

import structlog
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import RayServeException
from starlette.responses import Response, StreamingResponse

from bot.errors import SettingsError, UserError
from bot.gpt2.cluster import protocol
from bot.gpt2.cluster.dispatcher import REPORT_INTERVAL_SECONDS, Dispatcher, Frame, ReplicaLostError, Report
from bot.gpt2.requests import ContinuationRequest, Progress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
    from pathlib import Path

    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
    from starlette.requests import Request

    from bot.config import Device, Draft, Precision
    from bot.gpt2.local.engine import LocalTicket
    from bot.gpt2.throughput import Throughput

NAME: Final = "gpt2"
"""Name of the application."""

TARGET_REQUESTS: Final = 4
"""Target of concurrent requests per replica. While any are queued, each replica has two to twenty times as many
(`dispatcher.MAX_REPLICA_ROWS` over the samples of each), so Ray Serve adds replicas as long as there is a queue."""

LOOK_BACK_SECONDS: Final = 30.0
"""Window over which Ray Serve averages the running requests."""

REPORT_SECONDS: Final = 10.0  # between two counts of them reported to Ray Serve; its default
UPSCALE_SECONDS: Final = 5.0
"""How long they must exceed the target before a replica is added."""

DOWNSCALE_SECONDS: Final = 300.0
"""How long they must stay below it before one is removed: loading a model costs more than keeping it."""

HEALTH_SECONDS: Final = 5.0  # between two health checks of a replica or the front end
HEALTH_TIMEOUT_SECONDS: Final = 15.0  # of one check; three failures in a row replace the replica
FINISH_SECONDS: Final = 60.0
"""How long a removed replica may finish its requests; the rest is recomputed elsewhere. A hanging replica keeps its
cores as long, and a new one may wait for them."""

FINISH_POLL_SECONDS: Final = 0.5  # between two checks whether it has finished

UNBOUNDED: Final = 10_000  # concurrent requests at Ray Serve; front end and replicas have limits of their own
FIRST_TOKEN_POLL_SECONDS: Final = 0.02  # between two looks at a request without a token
STATUS_SECONDS: Final = 5.0  # timeout of Ray Serve's count of the replicas
UPDATE_SECONDS: Final = 0.5  # between two looks at one with tokens; Discord takes about one edit a second
HEARTBEAT_SECONDS: Final = 1.0
STUCK_SECONDS: Final = 60.0
"""Time without a heartbeat of its worker after which a replica is replaced."""

ABOUT_SECONDS: Final = 30.0  # maximum age of the model's description; a new version may bring another model

MAX_BODY: Final = 2**20
OWNER_HEADER: Final = "x-owner"
"""Header with the owner whose share a request takes, quoted as in a URL. A header, because URLs are logged."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """The operator's options for a cluster.

    Attributes:
        model: As in `bot.config.Settings.gpt2_model`; a folder must exist on every machine.
        device: Device of each replica.
        precision: Of the weights.
        threads: CPU threads, and so cores, of each replica.
        gpus: GPUs of each replica, possibly a fraction.
        cache: Folder for downloads, on every machine.
        draft: As in `bot.config.Settings.gpt2_draft`.
        min_replicas: Minimum number of replicas.
        max_replicas: Maximum number of replicas; Ray Serve scales between the two with the queue.
    """

    model: str = "gpt2"
    device: Device = "auto"
    precision: Precision = "float32"
    threads: int = 1
    gpus: float = 0.0
    cache: Path | None = None
    draft: Draft = "auto"
    min_replicas: int = 1
    max_replicas: int = 1

    def __post_init__(self) -> None:
        faults = []
        if self.threads < 1:
            faults.append("a replica needs at least 1 thread.")
        if not 1 <= self.min_replicas <= self.max_replicas:
            faults.append(f"replicas must be 1 or more, ascending, not {self.min_replicas} to {self.max_replicas}.")
        if self.gpus < 0:
            faults.append("a replica cannot have a negative number of GPUs.")
        if faults:
            raise SettingsError(faults)


def application(args: Mapping[str, Any] | Options) -> Application:
    """Build the application: the front end and its replicas.

    Args:
        args: `Options`, or the application's `args` in a config file of Ray Serve.

    Raises:
        SettingsError: Invalid options.
    """
    try:
        options = args if isinstance(args, Options) else Options(**args)
    except TypeError as error:
        raise SettingsError([f"the application's args: {error}"]) from error
    replicas = serve.deployment(
        name=Replica.__name__,
        ray_actor_options={"num_cpus": options.threads, "num_gpus": options.gpus},
        autoscaling_config=AutoscalingConfig(
            min_replicas=options.min_replicas,
            max_replicas=options.max_replicas,
            target_ongoing_requests=TARGET_REQUESTS,
            metrics_interval_s=REPORT_SECONDS,
            look_back_period_s=LOOK_BACK_SECONDS,
            upscale_delay_s=UPSCALE_SECONDS,
            downscale_delay_s=DOWNSCALE_SECONDS,
        ),
        max_ongoing_requests=UNBOUNDED,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=HEALTH_TIMEOUT_SECONDS,
        graceful_shutdown_timeout_s=FINISH_SECONDS,
        graceful_shutdown_wait_loop_s=FINISH_POLL_SECONDS,
    )(Replica)
    # A single front end, since fair scheduling needs one queue. Ray Serve restarts it if it dies.
    front_end = serve.deployment(
        name=FrontEnd.__name__,
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=UNBOUNDED,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=HEALTH_TIMEOUT_SECONDS,
        graceful_shutdown_wait_loop_s=FINISH_POLL_SECONDS,
        graceful_shutdown_timeout_s=900,  # the lifetime of an interaction
    )(FrontEnd)
    bound: Application = front_end.bind(replicas.bind(options))
    return bound


class Replica:
    """A `LocalEngine` on one machine of a cluster."""

    async def __init__(self, options: Options) -> None:  # type: ignore[misc] # Ray Serve awaits it
        """Load the model; Ray Serve sends no requests until it is done.

        Raises:
            OperatorError: It cannot be loaded.
        """
        from bot.gpt2.local.engine import LocalEngine  # noqa: PLC0415 # the front end needs no PyTorch

        self._reporting: asyncio.Task[None] | None = None
        self._name = serve.get_replica_context().replica_id.unique_id
        self._engine = LocalEngine(
            options.model,
            device=options.device,
            precision=options.precision,
            threads=options.threads,
            cache=options.cache,
            draft=options.draft,
        )
        await self._engine.start()
        self._reporting = asyncio.create_task(self._send_reports(), name="reports")

    async def __del__(self) -> None:
        """Close the engine; Ray Serve awaits this after the last request."""
        if self._reporting:
            self._reporting.cancel()
        await self._engine.close()

    async def check_health(self) -> None:
        """Raise if the worker is stuck or its GPU lost; Ray Serve then replaces the replica, as on a timeout."""
        if self._engine.fault:
            raise self._engine.fault
        stalled = self._engine.statistics.stalled_seconds
        if stalled > STUCK_SECONDS:
            raise RuntimeError(f"the worker has had no heartbeat for {stalled:.0f} seconds")

    async def generate(self, request: bytes, owner: str | None) -> AsyncGenerator[Frame, None]:
        """See `ReplicaPool.generate`."""
        try:
            ticket = await self._engine.submit(protocol.decode(request), owner=owner)
        except UserError as error:
            yield self._frame(protocol.encode(protocol.to_refusal(error)), done=True)
            return
        try:
            async for frame in self._watch(ticket):
                yield frame
        finally:
            ticket.abandon()

    async def call(self, method: str, message: bytes, owner: str | None) -> bytes:
        """See `ReplicaPool.call`."""
        try:
            answer = await self._answer(method, protocol.decode(message), owner)
        except UserError as error:
            answer = protocol.to_refusal(error)
        return await asyncio.to_thread(protocol.encode, answer)

    async def _send_reports(self) -> None:
        """Report to the front end now and then.

        The front end does not ask for reports: Ray Serve would count the questions to a replica that hangs as if it had
        accepted them, forget older ones, and send it more requests.
        """
        front_end: DeploymentHandle[Any] | None = None
        while True:
            with contextlib.suppress(ReplicaLostError, RuntimeError):  # it may not be there yet, or again
                async with _ray_errors():
                    application = serve.get_replica_context().app_name
                    front_end = front_end or serve.get_deployment_handle(FrontEnd.__name__, application)
                    report = Report(self._name, self._throughput(), self._engine.statistics)
                    await asyncio.wait_for(front_end.take_report.remote(report), HEARTBEAT_SECONDS)
            await asyncio.sleep(REPORT_INTERVAL_SECONDS / 2)

    async def _answer(self, method: str, argument: Any, owner: str | None) -> object:
        match method:
            case "count":
                return await self._engine.prompt_tokens(argument)
            case "introspect":
                return await self._engine.introspect(argument, owner=owner)
            case "read":
                return await self._engine.read(argument)
            case "about":
                model, parameters = await self._engine.model(), await self._engine.parameters()
                return protocol.About(self._engine.model_name, model, parameters)
        raise ValueError(f"unknown method {method}")

    async def _watch(self, ticket: LocalTicket) -> AsyncIterator[Frame]:
        result = asyncio.ensure_future(ticket.result())
        before: tuple[tuple[int, ...], ...] | None = None
        began, last_frame, interval = 0.0, time.monotonic(), FIRST_TOKEN_POLL_SECONDS
        try:
            while not (await asyncio.wait({result}, timeout=interval))[0]:
                update, now = await self._engine.update(ticket), time.monotonic()
                if isinstance(update, Progress) and update.token_ids != before:
                    before, last_frame, began = update.token_ids, now, began or now
                    if any(before):
                        interval = UPDATE_SECONDS
                    yield await self._output_frame(ticket, update, now - began)
                elif now - last_frame >= HEARTBEAT_SECONDS:
                    last_frame = now
                    yield self._frame(b"", before or (), _tokens_left(ticket.request, before or ()))
            answer = await result
        except UserError as error:
            if not self._engine.ready:
                raise RuntimeError("this replica is being closed") from error  # so that another one takes over
            yield self._frame(protocol.encode(protocol.to_refusal(error)), done=True)
        else:
            output = protocol.Output(answer.prompt_tokens, answer.samples, answer.seconds, 0.0, done=True)
            yield self._frame(protocol.encode(output), (sample.token_ids for sample in answer.samples), done=True)
        finally:
            result.cancel()

    async def _output_frame(self, ticket: LocalTicket, update: Progress, seconds: float) -> Frame:
        samples, job = await self._engine.samples(update.token_ids), ticket.job
        output = protocol.Output(len(job.prompt_ids) if job else 0, samples, seconds, update.seconds, done=False)
        return self._frame(protocol.encode(output), update.token_ids, _tokens_left(ticket.request, update.token_ids))

    def _frame(
        self, message: bytes, rows: Iterable[Sequence[int]] = (), rows_left: int = 0, *, done: bool = False
    ) -> Frame:
        return Frame(message, done, any(rows), rows_left, self._name, self._throughput())

    def _throughput(self) -> Throughput:
        if self._engine.throughput is None:
            raise RuntimeError("this replica is being closed")
        return self._engine.throughput


class FrontEnd:
    """The HTTP interface for bots.

    ``POST /requests/NAME`` with a `ContinuationRequest` follows that request, ``DELETE`` cancels it;
    ``POST /ask/METHOD`` calls any other method. Responses are streams of `protocol.framed` messages, the last of which
    is the answer. ``GET /status`` responds with a single message.
    """

    def __init__(self, replicas: DeploymentHandle[Any]) -> None:
        self._pool = ServeReplicaPool(replicas)
        self._dispatcher = Dispatcher(self._pool)
        self._about: bytes | None = None
        self._about_at = 0.0  # when it was fetched

    async def __call__(self, request: Request) -> Response:
        """Handle an HTTP request."""
        self._dispatcher.start()
        owner = unquote(request.headers[OWNER_HEADER]) if OWNER_HEADER in request.headers else None
        match request.method, *request.url.path.strip("/").split("/")[-2:]:
            case "GET", *_, "status":
                return Response(protocol.encode(await self._status()))
            case "POST", "requests", name:
                message = await _message(request)
                if isinstance(message, ContinuationRequest):
                    return _stream(self._dispatcher.listen(name, message, owner))
            case "DELETE", "requests", name:
                self._dispatcher.cancel(name)
                return Response(status_code=HTTPStatus.NO_CONTENT)
            case "POST", "ask", ("introspect" | "read" | "about") as method:
                await _message(request)
                return _stream(self._dispatcher.call(method, await request.body(), owner))
        return Response(status_code=HTTPStatus.BAD_REQUEST)

    async def take_report(self, report: Report) -> None:
        """Keep a replica's report for the dispatcher."""
        self._pool.received[report.replica] = report

    async def __del__(self) -> None:
        """Close the dispatcher; Ray Serve awaits this after the last stream."""
        await self._dispatcher.close()

    async def _status(self) -> protocol.Status:
        age = time.monotonic() - self._about_at
        if self._dispatcher.replicas and (self._about is None or age > ABOUT_SECONDS):
            with contextlib.suppress(ReplicaLostError, TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    self._about = await self._pool.call("about", protocol.encode(None), None)
                self._about_at = time.monotonic()
        about = hashlib.sha256(self._about).hexdigest() if self._about else None
        dispatcher = self._dispatcher
        return protocol.Status(
            about,
            dispatcher.waiting,
            dispatcher.replicas,
            dispatcher.computing,
            dispatcher.tokens_per_second,
            dispatcher.statistics,
        )


class ServeReplicaPool:
    """The replicas of this application, through Ray Serve's handle; see `bot.gpt2.cluster.dispatcher.ReplicaPool`.

    Attributes:
        received: The latest report of each replica that has come since `reports` was called.
    """

    def __init__(self, replicas: DeploymentHandle[Any]) -> None:
        self.received: dict[str, Report] = {}
        self._replicas = replicas
        self._streams = replicas.options(stream=True)
        self._application = serve.get_replica_context().app_name

    async def size(self) -> int:
        """See `ReplicaPool.size`."""
        async with _ray_errors():
            async with asyncio.timeout(STATUS_SECONDS):
                status = await asyncio.to_thread(serve.status)
            states = status.applications[self._application].deployments[Replica.__name__].replica_states
            return sum(count for state, count in states.items() if state == "RUNNING")

    async def generate(self, request: bytes, owner: str | None) -> AsyncGenerator[Frame, None]:
        """See `ReplicaPool.generate`."""
        async with _ray_errors():
            response = cast("DeploymentResponseGenerator[Frame]", self._streams.generate.remote(request, owner))
            try:
                async for frame in response:
                    yield frame
            finally:
                response.cancel()  # type: ignore[no-untyped-call]

    async def call(self, method: str, message: bytes, owner: str | None) -> bytes:
        """See `ReplicaPool.call`."""
        async with _ray_errors():
            answer: bytes = await self._replicas.call.remote(method, message, owner)
            return answer

    async def reports(self) -> list[Report]:
        """See `ReplicaPool.reports`."""
        received, self.received = self.received, {}
        return list(received.values())


@contextlib.asynccontextmanager
async def _ray_errors() -> AsyncIterator[None]:
    """Convert Ray's errors to ReplicaLostError."""
    try:
        yield
    except (RayError, RayServeException, KeyError, OSError, TimeoutError) as error:
        raise ReplicaLostError(type(error).__name__) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        raise ReplicaLostError("cancelled by Ray Serve") from error  # by no task of ours


async def _message(request: Request) -> Any:
    """Return the decoded body of a request, or None if it cannot be decoded."""
    if int(request.headers.get("content-length", MAX_BODY)) >= MAX_BODY:
        return None
    with contextlib.suppress(protocol.MalformedMessageError, UserError):
        return protocol.decode(await request.body())
    return None


def _stream(messages: AsyncIterator[bytes]) -> StreamingResponse:
    async def framed() -> AsyncIterator[bytes]:
        async for message in messages:
            yield protocol.framed(message)

    return StreamingResponse(framed(), media_type="application/octet-stream")


def _tokens_left(request: ContinuationRequest, rows: tuple[tuple[int, ...], ...]) -> int:
    """Return the most tokens still to generate."""
    return request.params.rows * (request.params.length - max(map(len, rows), default=0))
