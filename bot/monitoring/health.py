"""The health of the bot for supervisors and monitoring: /healthz, /readyz and /metrics over HTTP.

They serve numbers and states, never texts. They need no password, so they listen on loopback unless the operator sets
HEALTH_HOST.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web
from prometheus_client.exposition import choose_encoder

from bot.errors import ExitCode, SettingsError
from bot.gpt2.engine import MAX_WAITING
from bot.monitoring.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from bot.client import GPT2Client
    from bot.config import Settings

STALLED_SECONDS: Final = 120.0
"""A busy worker completes a pass every few seconds, even on a small machine."""

QUERY_SECONDS: Final = 5.0
"""How long `python -m bot health` waits for an answer."""

_OK: Final = "ok"
_WILDCARDS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # queried, not bound

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def endpoints(client: GPT2Client, host: str, port: int) -> AsyncIterator[None]:
    """Serve the endpoints while the body runs; port 0 serves none.

    If the address cannot be bound, log it and continue without: users still get answers, and a restart would not free
    the port.
    """
    if not port:
        yield
        return
    metrics = Metrics(client)
    runner = web.AppRunner(_application(client, metrics), access_log=None, shutdown_timeout=1.0)
    watching = asyncio.create_task(metrics.watch_event_loop(), name="measure the event loop")
    try:
        await runner.setup()
        await _bind(runner, host, port)
        yield
    finally:
        watching.cancel()
        await runner.cleanup()


def readiness(client: GPT2Client) -> dict[str, str]:
    """Return for each part of the bot "ok", or the reason why it cannot answer users now."""
    engine = client.engine  # the default model's: the others are loaded when asked for
    stalled = max(each.statistics.stalled_seconds for each in client.models.engines.values())
    return {
        "gateway": _gateway(client),
        "model": _OK if engine.ready else "not loaded yet",
        "worker": _OK if stalled < STALLED_SECONDS else f"stalled for {stalled:.0f} seconds",
        "queue": _OK if engine.waiting < MAX_WAITING else f"full: {engine.waiting} requests",
    }


def query(settings: Settings, *, ready: bool) -> ExitCode:
    """Query the bot on this machine and print its state, for supervisors without an HTTP client.

    Args:
        settings: The settings of the running bot, for its address.
        ready: Whether the bot must be able to answer users; otherwise it need only be alive.

    Raises:
        SettingsError: The settings turn the endpoints off.
    """
    if not settings.health_port:
        raise SettingsError(["HEALTH_PORT is 0: the bot has no health endpoints."])
    host = _WILDCARDS.get(settings.health_host, settings.health_host)
    connection = http.client.HTTPConnection(host, settings.health_port, timeout=QUERY_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        parts: Mapping[str, str] = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"no answer from {host}:{settings.health_port}: {error}")
        return ExitCode.CRASHED
    finally:
        connection.close()
    for part, state in parts.items():
        print(f"{part:8}  {state}")
    return ExitCode.OK if answer.status == http.HTTPStatus.OK or not ready else ExitCode.CRASHED


async def _bind(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except (OSError, UnicodeError) as error:
        log.warning(
            "cannot bind HEALTH_HOST:HEALTH_PORT; continuing without health endpoints",
            host=host,
            port=port,
            error=str(error),
        )
    else:
        log.info("health endpoints are up", host=host, port=port)


def _application(client: GPT2Client, metrics: Metrics) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        # The event loop answers, which proves that it runs.
        return web.json_response({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        parts = readiness(client)
        return web.json_response(parts, status=200 if set(parts.values()) == {_OK} else 503)

    async def metrics_(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type})

    application = web.Application(client_max_size=0)
    application.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics_)])
    return application


def _gateway(client: GPT2Client) -> str:
    if not client.is_ready():
        return "not connected yet"
    closed = [str(number) for number, shard in client.shards.items() if shard.is_closed()]
    return f"not connected: shard {', '.join(closed)} of {len(client.shards)}" if closed else _OK
