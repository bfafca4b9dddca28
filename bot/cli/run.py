"""The bot on Discord: opens engine, renderer and client, and closes them whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Final

import discord
import structlog

import bot
from bot import config
from bot.client import GPT2Client
from bot.errors import ExitCode, HostError, TokenError, UnreachableError
from bot.figures import Renderer, Shelf
from bot.gpt2.model import files
from bot.interactions import retry
from bot.interactions.journal import Journal
from bot.interactions.moderation import Moderation
from bot.interactions.quotas import Quotas
from bot.monitoring import health
from bot.ui.locales import Catalogue
from cogs import COGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bot.config import Settings
    from bot.gpt2.engine import Engine

# How long commands that were acknowledged may take to be told that the bot goes, where there is no journal to leave
# them in; a supervisor's patience is longer.
FAREWELL_SECONDS: Final = 5.0

_AUTHENTICATION_FAILED: Final = 4004  # the gateway's close code

log = structlog.get_logger(__name__)


async def run(settings: Settings) -> ExitCode:
    """Run until SIGTERM or Ctrl-C.

    Raises:
        HostError: The token, the model or Discord stands in the way.
    """
    fault = config.token_fault(settings.discord_token)
    if fault:
        log.warning(fault)
    journal = Journal(settings.journal)
    async with (
        assembled(settings, journal) as client,
        health.served(client, settings.health_host, settings.health_port),
    ):
        await journal.open()
        jobs = {
            asyncio.create_task(client.engine.start(), name="load the model"),
            asyncio.create_task(client.renderer.warm(), name="warm up the renderer"),
            asyncio.create_task(_stay_connected(client, settings), name="Discord"),
        }
        stop = asyncio.create_task(stop_signal(client.pipeline.shut_down), name="wait for a signal")
        try:
            await until_stopped(jobs, stop)
        finally:
            await say_goodbye(client, settings.shutdown_seconds)
            for task in (*jobs, stop):
                task.cancel()
            await asyncio.gather(*jobs, stop, return_exceptions=True)
    return ExitCode.OK


@contextlib.asynccontextmanager
async def assembled(settings: Settings, journal: Journal | None = None) -> AsyncIterator[GPT2Client]:
    """A client with its engine, renderer and journal, none of them started; closed in reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        journal = journal or Journal(None)
        stack.push_async_callback(journal.close)
        engine = chosen_engine(settings)
        stack.push_async_callback(engine.close)
        renderer = Renderer(shelf=_shelf(settings))
        stack.callback(renderer.close)
        moderation = Moderation(settings.safety)
        stack.callback(moderation.close)
        client = GPT2Client(
            engine,
            renderer,
            Catalogue.shipped(),
            COGS,
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
        )
        yield await stack.enter_async_context(client)


def _shelf(settings: Settings) -> Shelf | None:
    if not settings.pictures_mb:
        return None
    return Shelf(files.pictures(settings.gpt2_cache), settings.pictures_mb * 10**6, bot.__version__)


def chosen_engine(settings: Settings) -> Engine:
    """The engine that the host chose, not started; only one of them loads PyTorch into this process."""
    if settings.gpt2_engine == "ray":
        from bot.gpt2.cluster.engine import ClusterEngine  # noqa: PLC0415

        return ClusterEngine(settings.gpt2_cluster, model_name=settings.gpt2_model)
    from bot.gpt2.local.engine import LocalEngine  # noqa: PLC0415

    return LocalEngine(
        settings.gpt2_model,
        device=settings.gpt2_device,
        precision=settings.gpt2_precision,
        threads=settings.gpt2_threads,
        cache=settings.gpt2_cache,
    )


async def say_goodbye(client: GPT2Client, finish_seconds: float = 0.0) -> None:
    """Take nothing new, finish what can be, leave the rest to the next start; or, without a journal, refuse it.

    Args:
        client: Whose users wait.
        finish_seconds: How long what is running may take.
    """
    client.pipeline.shut_down()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.pipeline.pending.drained(), finish_seconds)
    await client.pipeline.pending.postpone()
    client.engine.stop()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.pipeline.pending.drained(), FAREWELL_SECONDS)


async def stop_signal(heard: Callable[[], None]) -> None:
    """Return at the first SIGTERM or SIGINT; a second one ends the process at once.

    Args:
        heard: Called as soon as the first is there, before anything that waits for this to return has its turn.
    """
    loop, received = asyncio.get_running_loop(), asyncio.Event()

    def heed(number: signal.Signals) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        heard()
        log.info("stopping", signal=number.name)
        received.set()

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, heed, number)
    except NotImplementedError:  # Windows: Ctrl-C arrives as KeyboardInterrupt, which asyncio.run handles
        pass
    await received.wait()


async def until_stopped(jobs: set[asyncio.Task[None]], *stops: asyncio.Task[None]) -> None:
    """Wait for one of `stops`; a job that fails ends the wait with its error, one that succeeds is just done."""
    running = set(jobs)
    while not any(stop.done() for stop in stops):
        done, _ = await asyncio.wait({*running, *stops}, return_when=asyncio.FIRST_COMPLETED)
        for job in done & running:
            job.result()
        running -= done


async def _stay_connected(client: GPT2Client, settings: Settings) -> None:
    """Be on Discord; what makes that impossible becomes a sentence for the host."""
    retry.install_adapter()
    try:
        await client.start(settings.discord_token)
    except discord.LoginFailure as error:
        raise _refused_token() from error
    except discord.ConnectionClosed as error:
        if error.code == _AUTHENTICATION_FAILED:
            raise _refused_token() from error
        raise UnreachableError(f"Discord closed the connection for good (code {error.code}).") from error
    except (discord.HTTPException, RecursionError) as error:
        # discord.py opens a shard again from within its own attempt, a level deeper every 5 s of an outage.
        raise UnreachableError(f"Discord could not be reached: {error}") from error


def _refused_token() -> HostError:
    return TokenError(
        "Discord refused the token. Copy a new one from the Bot page of your application "
        "(https://discord.com/developers/applications, Reset Token) into DISCORD_TOKEN."
    )
