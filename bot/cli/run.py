"""The bot on Discord: opens engine, renderer and client, runs them, and closes them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import signal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import aiohttp
import discord
import structlog

import bot
from bot.client import GPT2Client
from bot.errors import DeviceError, DeviceLostError, ExitCode, OperatorError, TokenError, UnreachableError
from bot.figures import DiskCache, Renderer
from bot.gpt2.model import files
from bot.gpt2.models import Models
from bot.interactions import retry
from bot.interactions.journal import Journal
from bot.interactions.moderation import Moderation
from bot.interactions.quotas import Quotas
from bot.monitoring import health, updates
from bot.ui.locales import Catalogue
from cogs import COGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bot.config import Secret, Settings
    from bot.gpt2.engine import Engine

# For telling users of acknowledged requests, if there is no journal, that the bot shuts down. Supervisors wait longer.
SHUTDOWN_NOTICE_SECONDS: Final = 5.0

EXIT_SECONDS: Final = 60.0
"""How long the process may take to end without its GPU, whose driver may hang; then it is killed, as after a crash."""

_AUTHENTICATION_FAILED: Final = 4004  # the gateway's close code

log = structlog.get_logger(__name__)


async def run(settings: Settings) -> ExitCode:
    """Run until SIGTERM or Ctrl-C.

    Raises:
        OperatorError: The token, the model or the GPU cannot be used, or Discord ended the connection for good.
    """
    journal = Journal(settings.journal)
    async with (
        build_client(settings, journal) as client,
        health.endpoints(client, settings.health_host, settings.health_port),
    ):
        await journal.open()
        jobs = {
            asyncio.create_task(client.engine.start(), name="load the model"),
            asyncio.create_task(client.models.watch(), name="watch the models"),
            asyncio.create_task(client.renderer.warm(), name="warm up the renderer"),
            asyncio.create_task(_stay_connected(client, settings), name="Discord"),
        }
        if settings.updates_url:
            watching = updates.watch(settings.updates_url, client, bot.__version__)
            jobs.add(asyncio.create_task(watching, name="look for newer versions"))
        stop = asyncio.create_task(wait_for_signal(client.pipeline.shut_down), name="wait for a signal")
        finish_seconds, harmful = settings.shutdown_seconds, False
        try:
            await wait_until_stopped(jobs, stop)
        except DeviceError as error:
            finish_seconds, harmful = 0.0, isinstance(error, DeviceLostError)
            if harmful:
                faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True)
            raise
        finally:
            await shut_down(client, finish_seconds, harmful=harmful)
            for task in (*jobs, stop):
                task.cancel()
            await asyncio.gather(*jobs, stop, return_exceptions=True)
    return ExitCode.OK


@contextlib.asynccontextmanager
async def build_client(settings: Settings, journal: Journal | None = None) -> AsyncIterator[GPT2Client]:
    """Yield a client with its engine, renderer and journal, none of them started; close them in reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        journal = journal or Journal(None)
        stack.push_async_callback(journal.close)
        models = await stack.enter_async_context(build_models(settings))
        renderer = Renderer(disk_cache=_disk_cache(settings))
        stack.callback(renderer.close)
        moderation = Moderation(settings.safety)
        stack.callback(moderation.close)
        client = GPT2Client(
            models.default,
            renderer,
            Catalogue.shipped(),
            COGS,
            models=models,
            journal=journal,
            quotas=Quotas(
                per_person=settings.requests_per_person,
                per_server=settings.requests_per_server,
                cooldown_seconds=settings.cooldown_seconds,
                nsfw_only=settings.nsfw_only,
            ),
            moderation=moderation,
            sync_commands=settings.sync_commands,
            source_url=settings.source_url or None,
            shard_count=settings.shard_count or None,
            shard_ids=settings.shard_ids or None,
            **_proxy_options(settings.discord_proxy),
        )
        yield await stack.enter_async_context(client)


def _disk_cache(settings: Settings) -> DiskCache | None:
    if not settings.pictures_mb:
        return None
    return DiskCache(files.pictures(settings.gpt2_cache), settings.pictures_mb * 10**6, bot.__version__)


def _proxy_options(address: Secret) -> dict[str, Any]:
    """Return discord.py's options for a proxy; it takes the name and password in its address apart from it."""
    if not address:
        return {}
    parts = urlsplit(address)
    login = (
        aiohttp.BasicAuth(unquote(parts.username), unquote(parts.password or ""), "utf-8") if parts.username else None
    )
    return {"proxy": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", "proxy_auth": login}


@contextlib.asynccontextmanager
async def build_models(settings: Settings) -> AsyncIterator[Models]:
    """Yield the models that the settings name, none of them loaded; release them afterwards."""
    if len(settings.models) > 1:
        from bot.cli.models import build_several  # noqa: PLC0415 # needs PyTorch

        async with build_several(settings) as models:
            yield models
    else:
        engine = build_engine(settings)
        try:
            yield Models(engine)
        finally:
            await engine.close()


def build_engine(settings: Settings) -> Engine:
    """Return the engine named by GPT2_ENGINE, not started."""
    # Local imports: only the local engine needs PyTorch in this process.
    if settings.gpt2_engine == "ray":
        from bot.gpt2.cluster.engine import ClusterEngine  # noqa: PLC0415

        return ClusterEngine(settings.gpt2_cluster, model_name=settings.gpt2_model)
    from bot.cli.models import make_engine  # noqa: PLC0415

    return make_engine(settings, settings.gpt2_model)


async def shut_down(client: GPT2Client, finish_seconds: float = 0.0, *, harmful: bool = False) -> None:
    """Refuse new requests, finish running ones, and leave the rest to the next start or, without a journal, refuse it.

    Args:
        client: The client with the requests.
        finish_seconds: How long running requests get to finish.
        harmful: Whether one of them may be why the bot ends.
    """
    client.pipeline.shut_down()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.pipeline.pending.drained(), finish_seconds)
    await client.pipeline.pending.postpone(harmful=harmful)
    client.models.stop()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.pipeline.pending.drained(), SHUTDOWN_NOTICE_SECONDS)


async def wait_for_signal(on_signal: Callable[[], None]) -> None:
    """Return at the first SIGTERM or SIGINT; a second one ends the process at once.

    Args:
        on_signal: Called at once, before any task that awaits this function is resumed.
    """
    loop, received = asyncio.get_running_loop(), asyncio.Event()

    def handle(number: signal.Signals) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        on_signal()
        log.info("stopping", signal=number.name)
        received.set()

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, handle, number)
    except NotImplementedError:  # Windows: Ctrl-C arrives as KeyboardInterrupt, which asyncio.run handles
        pass
    await received.wait()


async def wait_until_stopped(jobs: set[asyncio.Task[None]], *stops: asyncio.Task[None]) -> None:
    """Wait for one of `stops`, or raise the error of the first job that fails; jobs that succeed change nothing."""
    running = set(jobs)
    while not any(stop.done() for stop in stops):
        done, _ = await asyncio.wait({*running, *stops}, return_when=asyncio.FIRST_COMPLETED)
        for job in done & running:
            job.result()
        running -= done


async def _stay_connected(client: GPT2Client, settings: Settings) -> None:
    """Log in and stay connected; turn final failures into errors for the operator."""
    retry.install_adapter()
    if client.http.proxy:
        log.info("using a proxy for Discord", proxy=client.http.proxy)
    try:
        await client.start(settings.discord_token)
    except discord.LoginFailure as error:
        raise _refused_token() from error
    except discord.ConnectionClosed as error:
        if error.code == _AUTHENTICATION_FAILED:
            raise _refused_token() from error
        raise UnreachableError(f"Discord closed the connection for good (code {error.code}).") from error
    except (discord.HTTPException, RecursionError) as error:
        # During an outage discord.py reopens a shard from within its own attempt, one level deeper every 5 s.
        raise UnreachableError(f"Discord cannot be reached: {error}") from error


def _refused_token() -> OperatorError:
    return TokenError(
        "Discord refused the token. Copy a new one from the Bot page of your application "
        "(https://discord.com/developers/applications, Reset Token) into DISCORD_TOKEN."
    )
