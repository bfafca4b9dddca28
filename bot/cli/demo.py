"""`python -m bot demo`: the real bot and the real engine in a local page, without a token and without Discord.

SimCord simulates Discord in this process, and its Preview shows the channel at an address on 127.0.0.1.
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

import discord

from bot.cli.run import build_client, shut_down, wait_for_signal, wait_until_stopped
from bot.errors import ExitCode, ModelInvalidError, NotInstalledError, OperatorError, UnreachableError
from bot.gpt2.model.files import SHIPPED
from bot.installation import install_command, is_checkout, program
from bot.ui.continuation import ACCENT
from bot.ui.first_steps import first_steps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import tzinfo

    import simcord

    from bot.client import GPT2Client
    from bot.config import Settings
    from bot.gpt2.model_info import ModelInfo
    from bot.text import Translate

BOT_NAME: Final = "GPT-2"
CHANNEL_NAME: Final = "gpt-2"

# SimCord's limit for an action in the page, which ends when the bot has no work left: the longest answer takes minutes.
SETTLE_SECONDS: Final = 600.0

REFRESH_SECONDS: Final = 0.3  # between two looks for changed messages
POLL_SECONDS: Final = 0.1  # between two looks for a result

# Their INFO lines are about the login to a simulated Discord.
_CHATTY: Final = ("discord.client", "bot.client", "bot.interactions.request_log")


class DemoError(OperatorError):
    """A page that cannot be shown at the given port."""

    exit_code = ExitCode.SETTINGS


async def demo(settings: Settings, *, port: int | None = None) -> ExitCode:
    """Serve the page until Ctrl-C or until the visitor ends it in the page.

    Raises:
        OperatorError: The model cannot be loaded, the port is taken, or the demo's own packages are missing.
    """
    if settings.log_level == "INFO":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
    _simcord()  # first, because the engine's libraries take seconds to import
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(build_client(settings))
        stop = asyncio.create_task(wait_for_signal(client.pipeline.shut_down), name="wait for a signal")
        page = await stack.enter_async_context(open_page(client, port=port))
        welcome = asyncio.create_task(_welcome(client, page), name="load the model and greet")
        watching = asyncio.create_task(client.models.watch(), name="watch the models")
        closed = asyncio.create_task(page.wait_closed(), name="wait for the page's end")
        try:
            await wait_until_stopped({welcome, watching}, stop, closed)
        finally:
            await shut_down(client)
            for task in (welcome, watching, stop, closed):
                task.cancel()
            await asyncio.gather(welcome, watching, stop, closed, return_exceptions=True)
    return ExitCode.OK


@contextlib.asynccontextmanager
async def open_page(
    client: GPT2Client, *, port: int | None = None, now: datetime | None = None
) -> AsyncIterator[simcord.Preview]:
    """Yield the page of a simulated server with one channel, the bot and one visitor.

    Args:
        client: The client, not started; this starts it in a Discord of its own, but not its engine.
        port: The page's port on 127.0.0.1; a free one by default.
        now: The time and the time zone in that Discord; the local ones by default.

    Raises:
        DemoError: The port is taken.
        NotInstalledError: The demo's own packages are missing.
    """
    simcord = _simcord()
    now = now or datetime.now(_time_zone())
    async with simcord.run(client, shard_count=1, settle_timeout=SETTLE_SECONDS, check_errors=False) as world:
        # SimCord fails an action whose error reaches the bot's handler; here the bot has answered it.
        world.errors_since = _no_errors
        # SimCord's clock begins with 2026 and moves only when told to.
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
                        f"Port {port} on 127.0.0.1 cannot be used, probably because another program uses it. "
                        f"Choose another ({_command('port', '…')}), or none for a free one."
                    ) from error
                raise
            _scroll_to_answers(page)
            live = _LivePage(client, world, page)
            client.wait_between_edits = live.wait
            refreshing = asyncio.create_task(live.refresh(), name="refresh the page")
            try:
                yield page
            finally:
                refreshing.cancel()
                await asyncio.gather(refreshing, return_exceptions=True)


class Greeting(discord.ui.LayoutView):
    """The channel's first message: the tutorial as buttons, and what else to try."""

    def __init__(self, model: ModelInfo, translate: Translate, names: Sequence[str] = ()) -> None:
        super().__init__(timeout=None)
        container: discord.ui.Container[Greeting] = discord.ui.Container(accent_colour=ACCENT)
        container.add_item(discord.ui.TextDisplay(greeting(model, names)))
        self.add_item(container)
        self.add_item(first_steps(translate))


def greeting(model: ModelInfo, names: Sequence[str] = ()) -> str:
    """Return the text of the first message; `names` are those of several models."""
    lines = [
        f"**Welcome!** I am GPT-2, here with `{model.name}`: {model.parameters / 1e6:.1f} million parameters.",
        "Press a button: five continuations (seed `42` gives them every time), my positions, or what I look at.",
        "Or type `/` below and choose a command:",
        "- `/continue`: any text, any settings; without a prompt, a form for several lines",
        "- `/tokens next`: what I would say next, and how likely each token is",
        "- `/weights attention`: the matrix that makes queries, keys and values",
        "- `/help`: everything else",
        "",
        "-# This page is private: nothing leaves your computer. Press Ctrl-C in the terminal to end it.",
    ]
    if len(names) > 1:
        several = ", ".join(f"`{name}`" for name in names)
        lines.insert(-4, f"- the option `model` of these: {several}; `/compare` shows two of them side by side")
    if model.missing:
        lines.insert(
            1, "Some of its parameters are missing and random instead: my text is noise, and random pictures say so."
        )
    return "\n".join(lines)


async def _welcome(client: GPT2Client, page: simcord.Preview) -> None:
    """Load the model, greet in the channel and print the page's address; then warm up the renderer."""
    shipped = client.engine.model_name == SHIPPED
    try:
        await client.engine.start()
    except (ModelInvalidError, UnreachableError) as error:
        if shipped:
            raise
        raise type(error)(
            f"{error}\nThe model that ships with the bot needs no download: {_command('model', SHIPPED)}."
        ) from error
    translate = client.catalogue.translate_to(discord.Locale.american_english)
    view = Greeting(await client.engine.model(), translate, client.models.names)
    await client.get_partial_messageable(page.channel.id).send(view=view)
    print(f"The bot is at {page.url}\nPress Ctrl-C to end it.", flush=True)
    await client.renderer.warm()


def _simcord() -> Any:
    """Import SimCord, which is an extra.

    Its import tests discord.py with a client without intents, which would make discord.py warn.
    """
    state = logging.getLogger("discord.state")
    state.addFilter(_nothing)
    try:
        import simcord  # noqa: PLC0415 # an extra
    except ImportError as error:
        raise NotInstalledError(f"The demo needs its extra: {install_command('demo')}") from error
    finally:
        state.removeFilter(_nothing)
    return simcord


def _scroll_to_answers(page: simcord.Preview) -> None:
    """Make the page scroll to the answer of each action.

    SimCord 3.2.1 tries to stay at the end of the channel, but takes the shrinking of its own input box, just when an
    answer arrives, for scrolling by hand. It has no public way to name the message to show in an open page.
    """
    publish = page._publish  # noqa: SLF001

    def publish_latest(shown: Any, *, reason: Any = "action") -> None:
        if reason == "action":
            shown.target_id = page._initial_target(shown.viewer, shown.channel_id)  # noqa: SLF001
        publish(shown, reason=reason)

    page._publish = publish_latest  # type: ignore[assignment] # noqa: SLF001


class _LivePage:
    """A page that shows answers while they grow and takes further actions meanwhile.

    SimCord 3.2.1 alone shows the result of an action when the bot has no work left, and allows no other action until
    then: nobody could watch samples grow or press Stop.
    """

    def __init__(self, client: GPT2Client, world: simcord.Env, page: simcord.Preview) -> None:
        self._client = client
        self._world = world
        self._page = page
        self._visible: dict[asyncio.Future[Any], bool] = {}  # running results, and whether a part has been shown
        self._detached = False  # an answer grows, or has grown, for which no action of the page waits any more
        self._settle, world._settle_internal = world._settle_internal, self._settled  # type: ignore[method-assign] # noqa: SLF001
        self._act, page._action = page._action, self._action  # type: ignore[method-assign] # noqa: SLF001

    async def wait(self, result: asyncio.Future[Any], seconds: float) -> None:
        """Wait as `progress.wait_for_result`, but on threads: SimCord defers the bot's timers until it is idle."""
        if result in self._visible:
            self._visible[result] = True  # the first wait comes before the first edit
        elif not result.done():
            self._visible[result] = False
            result.add_done_callback(self._visible.pop)
        end = time.perf_counter() + seconds
        while not result.done() and time.perf_counter() < end:
            await asyncio.to_thread(time.sleep, min(seconds, POLL_SECONDS))

    async def refresh(self) -> None:
        """Show changed messages every few moments, until cancelled."""
        seen = 0
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            owed, latest = len(self._client.pipeline.pending), len(self._world.http_requests)
            if latest > seen and (self._detached or self._page._active_action is not None):  # noqa: SLF001
                self._page._publish_message_pages(reason="refresh")  # noqa: SLF001
            seen, self._detached = latest, self._detached and owed > 0

    async def _settled(self, *, dispatch: str | None = None, **options: Any) -> None:
        """Wait as SimCord does, but while an answer grows only until the present action has its own answer."""
        if dispatch != "INTERACTION_CREATE":
            # Not in a new task, which would wait for SimCord's clock: the clock itself may be waiting here.
            await self._settle(dispatch=dispatch, **options)
            return
        settled = asyncio.ensure_future(self._settle(dispatch=dispatch, **options))
        try:
            while not settled.done():
                await asyncio.wait({settled}, timeout=REFRESH_SECONDS)
                if any(self._visible.values()) and self._answered:
                    self._detached = True
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
        """Accept a click on a message that has grown since the page was last refreshed."""
        if "published_revision" in body:
            body = {**body, "published_revision": self._page._get_page(context_id).revision}  # noqa: SLF001
        return await self._act(context_id, body)


def _command(option: str, value: str) -> str:
    """Return the command that starts the demo with an option; only a checkout has make's."""
    plain = f"{program()} demo --{option} {value}"
    return f"make demo {option.upper()}={value} (or {plain})" if is_checkout() else plain


def _no_errors(_: int) -> tuple[BaseException, ...]:
    return ()


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _time_zone() -> tzinfo:
    """Return the system's time zone, or UTC if the system does not tell its name (Windows)."""
    _, _, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    return zoneinfo.ZoneInfo(name) if name in zoneinfo.available_timezones() else UTC
