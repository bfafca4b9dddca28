"""`python -m bot demo`: the real bot and the real engine in a local page, with no token and no Discord.

SimCord plays Discord inside this process and its Preview shows the channel at an address on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import zoneinfo
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bot.cli.run import assembled, say_goodbye, stop_signal, until_stopped
from bot.errors import ExitCode, OperatorError, ModelInvalidError, UnreachableError
from bot.gpt2.model.files import SHIPPED
from bot.gpt2.model_info import example_prompt
from bot.interactions import progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import tzinfo

    import simcord

    from bot.client import GPT2Client
    from bot.config import Settings
    from bot.gpt2.model_info import ModelInfo

BOT_NAME: Final = "GPT-2"
CHANNEL_NAME: Final = "gpt-2"

# An action in the page is over when the bot has nothing left to do for it: the longest answer takes minutes.
SETTLE_SECONDS: Final = 600.0

# How often it is looked whether an answer has grown, and whether it is whole.
LOOK_SECONDS: Final = 0.3
PAUSE_SECONDS: Final = 0.1

# Who tries the bot need not read how it logs in to a Discord that is none.
_CHATTY: Final = ("discord.client", "bot.client", "bot.interactions.request_log")


class DemoError(OperatorError):
    """The page cannot be shown as it was asked for."""

    exit_code = ExitCode.SETTINGS


async def demo(settings: Settings, *, port: int | None = None) -> ExitCode:
    """Serve the page until Ctrl-C or until it is ended in the page.

    Raises:
        OperatorError: The model cannot be loaded, the port is taken, or the demo's own packages are missing.
    """
    if settings.log_level == "INFO":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(assembled(settings))
        stop = asyncio.create_task(stop_signal(client.turn_away), name="wait for a signal")
        page = await stack.enter_async_context(page_with(client, port=port))
        welcome = asyncio.create_task(_welcome(client, page), name="load the model and greet")
        closed = asyncio.create_task(page.wait_closed(), name="wait for the page's end")
        try:
            await until_stopped({welcome}, stop, closed)
        finally:
            await say_goodbye(client)
            for task in (welcome, stop, closed):
                task.cancel()
            await asyncio.gather(welcome, stop, closed, return_exceptions=True)
    return ExitCode.OK


@contextlib.asynccontextmanager
async def page_with(
    client: GPT2Client, *, port: int | None = None, now: datetime | None = None
) -> AsyncIterator[simcord.Preview]:
    """A server with one channel, the bot and one visitor, shown at a local address.

    Args:
        client: Not started; this starts it, in a Discord of its own. Its engine is left alone.
        port: On 127.0.0.1; a free one by default.
        now: What time it is in that Discord, and where; the time of day here by default.

    Raises:
        DemoError: The port is taken, or the demo's own packages are missing.
    """
    simcord = _simcord()
    now = now or datetime.now(_time_zone())
    async with simcord.run(client, shard_count=1, settle_timeout=SETTLE_SECONDS, check_errors=False) as world:
        # To SimCord an error that reaches the bot's handler is a failed action; here it is one that was answered.
        world.errors_since = _no_errors
        # Its clock begins with 2026 and stands still unless it is moved.
        await world.advance_time(max(0.0, (now - world.now()).total_seconds()))
        if client.user:
            await client.user.edit(username=BOT_NAME)
        guild = world.create_guild(f"{BOT_NAME} demo")
        channel = guild.create_text_channel(CHANNEL_NAME)
        visitor = guild.add_member(world.create_user("you"))
        await world.settle()
        preview = world.preview(channel, viewers=[visitor], layout="channel", timezone=str(now.tzinfo), port=port)
        async with contextlib.AsyncExitStack() as stack:
            try:
                page = await stack.enter_async_context(preview)
            except simcord.SetupError as error:
                if isinstance(error.__cause__, OSError):
                    raise DemoError(
                        f"Port {port} on 127.0.0.1 cannot be used, probably because another program has it: "
                        "choose another with --port (make demo PORT=…), or leave it out for a free one."
                    ) from error
                raise
            _follow_answers(page)
            growth = _Growth(client, world, page)
            showing = asyncio.create_task(growth.show(), name="show what grows")
            progress.pause, pause = growth.pause, progress.pause
            try:
                yield page
            finally:
                progress.pause = pause
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)


def greeting(model: ModelInfo, *, shipped: bool) -> str:
    """What the channel begins with: what to type first, with prompts that suit the model."""
    prompt = example_prompt(shipped=shipped)
    size = f"{model.parameters / 1e6:.1f} million parameters"
    origin = "that have read nothing but Shakespeare" if shipped else "in all"
    lines = [
        f"**Welcome!** I am GPT-2, here with the model `{model.name}`: {size} {origin}.",
        "Type `/` below, choose a command, fill in what options you like, and send it. Try these first:",
        f"- `/continue` with the prompt `{prompt}`: five ways to go on. Seed `42` gives the same ones every time.",
        "- `/continue` without a prompt: a form for texts of several lines",
        "- `/weights positional`: how I know where in a text a word stands",
        "- `/weights attention`: the matrix that makes queries, keys and values",
        "- `/help`: everything else",
        "",
        "-# This page is yours alone: nothing leaves your computer. Ctrl-C in the terminal ends it.",
    ]
    if model.missing:
        lines.insert(
            1, "A part of it is missing and random instead: my text is noise, and pictures say if their values are."
        )
    return "\n".join(lines)


async def _welcome(client: GPT2Client, page: simcord.Preview) -> None:
    """Load the model, greet in the channel, and only then say where the page is. The first picture can wait longer."""
    shipped = client.engine.model_name == SHIPPED
    try:
        await client.engine.start()
    except (ModelInvalidError, UnreachableError) as error:
        if shipped:
            raise
        raise type(error)(
            f"{error}\nThe demo also has a small model of its own, which needs no download: make demo MODEL={SHIPPED} "
            f"(or python -m bot demo --model {SHIPPED})."
        ) from error
    await client.get_partial_messageable(page.channel.id).send(greeting(await client.engine.model(), shipped=shipped))
    print(f"The bot is here: {page.url}\nCtrl-C ends it.", flush=True)
    await client.renderer.warm()


def _simcord() -> Any:
    """SimCord, which is an extra: the bot on Discord runs without it.

    On import it tries discord.py with a client that has no intents, about which discord.py would warn.
    """
    state = logging.getLogger("discord.state")
    state.addFilter(_nothing)
    try:
        import simcord  # noqa: PLC0415 # here, because it is an extra
    except ImportError as error:
        raise DemoError("The demo needs its extra: python -m pip install -e .[demo] -c constraints.txt") from error
    finally:
        state.removeFilter(_nothing)
    return simcord


def _follow_answers(page: simcord.Preview) -> None:
    """Have the page scroll to what an action brought.

    SimCord 3.2.1 means to stay at the end of the channel, but its input box shrinks just when an answer arrives, which
    it takes for scrolling by hand. There is no public way to name the message to show in an open page.
    """
    publish = page._publish  # noqa: SLF001

    def publish_latest(shown: Any, *, reason: Any = "action") -> None:
        if reason == "action":
            shown.target_id = page._initial_target(shown.viewer, shown.channel_id)  # noqa: SLF001
        publish(shown, reason=reason)

    page._publish = publish_latest  # type: ignore[assignment] # noqa: SLF001


class _Growth:
    """Answers that grow in the page, and what can be done there meanwhile.

    By itself SimCord 3.2.1 shows what an action brought when the bot has nothing left to do, and allows no other until
    then: samples could not be seen to grow, and Stop could not be pressed.
    """

    def __init__(self, client: GPT2Client, world: simcord.Env, page: simcord.Preview) -> None:
        self._client = client
        self._world = world
        self._page = page
        self._shown: dict[asyncio.Future[Any], bool] = {}  # what is computed, and whether a part of it can be seen
        self._followed = False  # an answer grows, or has grown, that no action of the page waits for
        self._settle, world._settle_internal = world._settle_internal, self._settled  # type: ignore[method-assign] # noqa: SLF001
        self._act, page._action = page._action, self._action  # type: ignore[method-assign] # noqa: SLF001

    async def pause(self, result: asyncio.Future[Any], seconds: float) -> None:
        """As `live.pause`, by threads: SimCord holds a timer of the bot up until nothing else is left to wait for."""
        if result in self._shown:
            self._shown[result] = True  # the first pause comes before the first edit
        elif not result.done():
            self._shown[result] = False
            result.add_done_callback(self._shown.pop)
        end = time.perf_counter() + seconds
        while not result.done() and time.perf_counter() < end:
            await asyncio.to_thread(time.sleep, min(seconds, PAUSE_SECONDS))

    async def show(self) -> None:
        """Show what has changed, now and then; runs until it is cancelled."""
        seen = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            owed, latest = self._client.promises.open, len(self._world.http_requests)
            if latest > seen and (self._followed or self._page._active_action is not None):  # noqa: SLF001
                self._page._publish_message_pages(reason="refresh")  # noqa: SLF001
            seen, self._followed = latest, self._followed and owed > 0

    async def _settled(self, *, dispatch: str | None = None, **options: Any) -> None:
        """Wait as SimCord does; for what somebody does while an answer grows, only until that has its own answer."""
        if dispatch != "INTERACTION_CREATE":
            # In this very task: another one would wait for SimCord's clock, which may be what is waiting here.
            await self._settle(dispatch=dispatch, **options)
            return
        settled = asyncio.ensure_future(self._settle(dispatch=dispatch, **options))
        try:
            while not settled.done():
                await asyncio.wait({settled}, timeout=LOOK_SECONDS)
                if any(self._shown.values()) and self._answered:
                    self._followed = True
                    return
            settled.result()
        finally:
            settled.cancel()
            await asyncio.gather(settled, return_exceptions=True)

    @property
    def _answered(self) -> bool:
        action = self._page._active_action  # noqa: SLF001
        interaction = action.interaction if action else None
        return interaction is not None and interaction.responded and not interaction.loading

    async def _action(self, context_id: str | None, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take a click on what has grown a little since the page was told."""
        if "published_revision" in body:
            body = {**body, "published_revision": self._page._get_page(context_id).revision}  # noqa: SLF001
        return await self._act(context_id, body)


def _no_errors(_: int) -> tuple[BaseException, ...]:
    return ()


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _time_zone() -> tzinfo:
    """The system's time zone, or UTC where the system does not tell its name (Windows)."""
    _, _, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    return zoneinfo.ZoneInfo(name) if name in zoneinfo.available_timezones() else UTC
