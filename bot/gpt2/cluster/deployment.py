"""The engine as an application of Ray Serve: replicas on any number of machines, and one door before them.

`Replica` is a `LocalEngine` on one machine, which batches what it is given. `FrontEnd` takes what the bots ask over HTTP,
and its `Dispatcher` gives it to the replicas. Ray Serve keeps the number of both, replaces what dies or hangs, and
lets what runs finish when it brings a new version.

`application` is what `python -m bot cluster` and the files in `deploy/` name.
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
from bot.gpt2.cluster.dispatcher import Dispatcher, Frame, ReplicaLostError, Report
from bot.gpt2.model.files import SHIPPED
from bot.gpt2.requests import ContinuationRequest, Progress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
    from pathlib import Path

    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
    from starlette.requests import Request

    from bot.config import Device, Precision
    from bot.gpt2.local.engine import LocalTicket
    from bot.gpt2.throughput import Throughput

NAME: Final = "gpt2"
"""Of the application."""

TARGET_REQUESTS: Final = 4
"""Requests a replica should have at a time. While any wait, each has two to twenty times as many (`dispatch.ROWS` over
the samples of each), so that Ray Serve adds replicas as long as there is a queue."""

LOOK_BACK_SECONDS: Final = 30.0
"""Over how long Ray Serve takes the mean of the requests that run."""

REPORT_SECONDS: Final = 10.0  # between two counts of them that Ray Serve hears of; its own default
UPSCALE_SECONDS: Final = 5.0
"""How long they must be too many before a replica is added."""

DOWNSCALE_SECONDS: Final = 300.0
"""How long they must be few enough before one is taken away: loading a model costs more than keeping it."""

HEALTH_SECONDS: Final = 5.0  # between two looks at a replica or the door
HEALTH_PATIENCE_SECONDS: Final = 15.0  # that one look may take; Ray Serve gives up after three that fail
FINISH_SECONDS: Final = 60.0
"""How long a replica that is taken away may finish what it has; what is cut off then is computed again elsewhere. One
that hangs keeps its cores for as long, and a new one may wait for them."""

FINISH_LOOK_SECONDS: Final = 0.5  # between two looks whether it has

MANY: Final = 10_000  # requests that Ray Serve lets through to door and replicas, which have bounds of their own
FIRST_SECONDS: Final = 0.02  # between looks at a request that has not written anything
STATUS_SECONDS: Final = 5.0  # that Ray Serve may take to say how many replicas there are
UPDATE_SECONDS: Final = 0.5  # between looks at one that has; Discord takes about one edit a second
HEARTBEAT_SECONDS: Final = 1.0
STUCK_SECONDS: Final = 60.0
"""A replica whose worker gives no sign of life for so long is replaced."""

ABOUT_SECONDS: Final = 30.0  # a new version may bring another model

MAX_BODY: Final = 2**20
OWNER: Final = "x-owner"
"""The header with whose share a request takes, quoted as in a URL. A header, because addresses are logged."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What the host of a cluster chooses.

    Attributes:
        model: As in `bot.config.Settings.gpt2_model`; a folder must be there on every machine.
        device: Where each replica computes.
        precision: Of the weights.
        threads: CPU threads, and so cores, of each replica.
        gpus: GPUs of each replica, parts of one too.
        cache: Folder for downloads, on every machine.
        min_replicas: The fewest.
        max_replicas: The most; between the two Ray Serve chooses by what waits.
    """

    model: str = "gpt2"
    device: Device = "auto"
    precision: Precision = "float32"
    threads: int = 1
    gpus: float = 0.0
    cache: Path | None = None
    min_replicas: int = 1
    max_replicas: int = 1

    def __post_init__(self) -> None:
        faults = []
        if self.threads < 1:
            faults.append("a replica has at least 1 thread.")
        if not 1 <= self.min_replicas <= self.max_replicas:
            faults.append(f"replicas must be from 1 upwards, not {self.min_replicas} to {self.max_replicas}.")
        if self.gpus < 0:
            faults.append("a replica has 0 GPUs or more.")
        if faults:
            raise SettingsError(faults)


def application(args: Mapping[str, Any] | Options) -> Application:
    """The door and its replicas, not deployed yet.

    Args:
        args: `Options`, or what a config file of Ray Serve has as the application's `args`.

    Raises:
        SettingsError: They cannot be used.
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
        max_ongoing_requests=MANY,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=HEALTH_PATIENCE_SECONDS,
        graceful_shutdown_timeout_s=FINISH_SECONDS,
        graceful_shutdown_wait_loop_s=FINISH_LOOK_SECONDS,
    )(Replica)
    # One door: whose turn it is must be known in one place. Ray Serve starts another where it dies.
    door = serve.deployment(
        name=FrontEnd.__name__,
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MANY,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=HEALTH_PATIENCE_SECONDS,
        graceful_shutdown_wait_loop_s=FINISH_LOOK_SECONDS,
        graceful_shutdown_timeout_s=900,  # nobody waits for longer
    )(FrontEnd)
    bound: Application = door.bind(replicas.bind(options))
    return bound


class Replica:
    """GPT-2 on one machine of a cluster."""

    async def __init__(self, options: Options) -> None:  # type: ignore[misc] # Ray Serve awaits it
        """Load the model; while that takes, Ray Serve sends nothing here.

        Raises:
            HostError: It cannot be loaded.
        """
        from bot.gpt2.local.engine import LocalEngine  # noqa: PLC0415 # the door needs no PyTorch

        self._name = serve.get_replica_context().replica_id.unique_id
        self._engine = LocalEngine(
            options.model,
            device=options.device,
            precision=options.precision,
            threads=options.threads,
            cache=options.cache,
        )
        await self._engine.start()

    async def __del__(self) -> None:
        """Ray Serve awaits this once nothing runs here any more."""
        await self._engine.close()

    async def check_health(self) -> None:
        """Ray Serve replaces a replica where this raises or does not return."""
        stalled = self._engine.statistics.stalled_seconds
        if stalled > STUCK_SECONDS:
            raise RuntimeError(f"the worker has given no sign of life for {stalled:.0f} seconds")

    async def write(self, request: bytes, owner: str | None) -> AsyncGenerator[Frame, None]:
        """See `ReplicaPool.write`."""
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

    async def ask(self, method: str, message: bytes, owner: str | None) -> bytes:
        """See `ReplicaPool.ask`."""
        try:
            answer = await self._answer(method, protocol.decode(message), owner)
        except UserError as error:
            answer = protocol.to_refusal(error)
        return await asyncio.to_thread(protocol.encode, answer)

    async def report(self) -> Report:
        """How it is doing; see `ReplicaPool.reports`."""
        return Report(self._name, self._throughput(), self._engine.statistics)

    async def _answer(self, method: str, asked: Any, owner: str | None) -> object:
        match method:
            case "count":
                return await self._engine.prompt_tokens(asked)
            case "introspect":
                return await self._engine.introspect(asked, owner=owner)
            case "read":
                return await self._engine.read(asked)
            case "about":
                model, parameters = await self._engine.model(), await self._engine.parameters()
                return protocol.About(self._engine.model_name, self._engine.model_name == SHIPPED, model, parameters)
        raise ValueError(f"nobody asks for {method}")

    async def _watch(self, ticket: LocalTicket) -> AsyncIterator[Frame]:
        result = asyncio.ensure_future(ticket.result())
        before: tuple[tuple[int, ...], ...] | None = None
        began, said, pause = 0.0, time.monotonic(), FIRST_SECONDS
        try:
            while not (await asyncio.wait({result}, timeout=pause))[0]:
                update, now = await self._engine.update(ticket), time.monotonic()
                if isinstance(update, Progress) and update.token_ids != before:
                    before, said, began = update.token_ids, now, began or now
                    if any(before):
                        pause = UPDATE_SECONDS
                    yield await self._written(ticket, update, now - began)
                elif now - said >= HEARTBEAT_SECONDS:
                    said = now
                    yield self._frame(b"", before or (), _work(ticket.request, before or ()))
            answer = await result
        except UserError as error:
            if not self._engine.ready:
                raise RuntimeError("this replica is being closed") from error  # another one will do it
            yield self._frame(protocol.encode(protocol.to_refusal(error)), done=True)
        else:
            whole = protocol.Output(answer.prompt_tokens, answer.samples, answer.seconds, 0.0, done=True)
            yield self._frame(protocol.encode(whole), (sample.token_ids for sample in answer.samples), done=True)
        finally:
            result.cancel()

    async def _written(self, ticket: LocalTicket, update: Progress, seconds: float) -> Frame:
        samples, job = await self._engine.samples(update.token_ids), ticket.job
        written = protocol.Output(len(job.prompt_ids) if job else 0, samples, seconds, update.seconds, done=False)
        return self._frame(protocol.encode(written), update.token_ids, _work(ticket.request, update.token_ids))

    def _frame(
        self, message: bytes, rows: Iterable[Sequence[int]] = (), rows_left: int = 0, *, done: bool = False
    ) -> Frame:
        return Frame(message, done, any(rows), rows_left, self._name, self._throughput())

    def _throughput(self) -> Throughput:
        if self._engine.throughput is None:
            raise RuntimeError("this replica is being closed")
        return self._engine.throughput


class FrontEnd:
    """Where the bots come in, over HTTP.

    ``POST /requests/NAME`` with a `ContinuationRequest` listens to it, ``DELETE`` of the same gives it up;
    ``POST /ask/METHOD`` asks for anything else. Answers are streams of `wire.framed` messages, of which the last is
    the answer. ``GET /status`` answers with one message.
    """

    def __init__(self, replicas: DeploymentHandle[Any]) -> None:
        self._fleet = ServeReplicaPool(replicas)
        self._dispatcher = Dispatcher(self._fleet)
        self._about: bytes | None = None
        self._asked = 0.0  # when

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request."""
        self._dispatcher.start()
        owner = unquote(request.headers[OWNER]) if OWNER in request.headers else None
        match request.method, *request.url.path.strip("/").split("/")[-2:]:
            case "GET", *_, "status":
                return Response(protocol.encode(await self._status()))
            case "POST", "requests", name:
                asked = await _message(request)
                if isinstance(asked, ContinuationRequest):
                    return _stream(self._dispatcher.listen(name, asked, owner))
            case "DELETE", "requests", name:
                self._dispatcher.drop(name)
                return Response(status_code=HTTPStatus.NO_CONTENT)
            case "POST", "ask", ("introspect" | "read" | "about") as method:
                await _message(request)
                return _stream(self._dispatcher.ask(method, await request.body(), owner))
        return Response(status_code=HTTPStatus.BAD_REQUEST)

    async def __del__(self) -> None:
        """Ray Serve awaits this once nobody listens any more."""
        await self._dispatcher.close()

    async def _status(self) -> protocol.Status:
        age = time.monotonic() - self._asked
        if self._dispatcher.replicas and (self._about is None or age > ABOUT_SECONDS):
            with contextlib.suppress(ReplicaLostError, TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    self._about = await self._fleet.ask("about", protocol.encode(None), None)
                self._asked = time.monotonic()
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
    """The replicas of this application; see `bot.gpt2.cluster.dispatcher.ReplicaPool`."""

    def __init__(self, replicas: DeploymentHandle[Any]) -> None:
        self._replicas = replicas
        self._streams = replicas.options(stream=True)
        self._application = serve.get_replica_context().app_name

    async def size(self) -> int:
        """See `ReplicaPool.size`."""
        async with _lost():
            async with asyncio.timeout(STATUS_SECONDS):
                status = await asyncio.to_thread(serve.status)
            states = status.applications[self._application].deployments[Replica.__name__].replica_states
            return sum(count for state, count in states.items() if state == "RUNNING")

    async def write(self, request: bytes, owner: str | None) -> AsyncGenerator[Frame, None]:
        """See `ReplicaPool.write`."""
        async with _lost():
            response = cast("DeploymentResponseGenerator[Frame]", self._streams.write.remote(request, owner))
            try:
                async for frame in response:
                    yield frame
            finally:
                response.cancel()  # type: ignore[no-untyped-call]

    async def ask(self, method: str, message: bytes, owner: str | None) -> bytes:
        """See `ReplicaPool.ask`."""
        async with _lost():
            answer: bytes = await self._replicas.ask.remote(method, message, owner)
            return answer

    async def reports(self) -> list[Report]:
        """See `ReplicaPool.reports`."""
        async with _lost():
            said = self._replicas.broadcast("report")
            # One that hangs must not keep those of the others from being heard.
            reports = await asyncio.to_thread(said.results, timeout_s=HEARTBEAT_SECONDS, return_exceptions=True)
            return [each for each in reports if isinstance(each, Report)]


@contextlib.asynccontextmanager
async def _lost() -> AsyncIterator[None]:
    try:
        yield
    except (RayError, RayServeException, KeyError, OSError, TimeoutError) as error:
        raise ReplicaLostError(type(error).__name__) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        raise ReplicaLostError("cancelled by Ray Serve") from error  # not by anyone here


async def _message(request: Request) -> Any:
    """The decoded body of a request; None where it is none of ours."""
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


def _work(request: ContinuationRequest, rows: tuple[tuple[int, ...], ...]) -> int:
    """Tokens still to write, at most."""
    return request.rows * (request.length - max(map(len, rows), default=0))
