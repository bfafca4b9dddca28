"""The discord.py client: its intents, its commands, and how it connects and closes."""

from __future__ import annotations

import asyncio
import math
import sys
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import discord
import structlog
from discord import app_commands
from discord.ext import commands

from bot.command_sync import CommandSync
from bot.gpt2.models import Models
from bot.gpt2.recent_answers import RecentAnswers
from bot.interactions import retry
from bot.interactions.gateway import State
from bot.interactions.journal import Journal
from bot.interactions.moderation import Moderation
from bot.interactions.pipeline import Pipeline
from bot.interactions.presses import Presses
from bot.interactions.progress import Wait, wait_for_result
from bot.interactions.quotas import Quotas
from bot.tasks import BackgroundTasks
from bot.ui.buttons import Actions
from bot.ui.information import CommandLine, Status, invitation
from bot.ui.locales import DESCRIPTION_CONTEXT, CommandTranslator
from bot.ui.moves import Moves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import yarl

    from bot.figures import Renderer
    from bot.gpt2.engine import Engine
    from bot.ui.locales import Catalogue

# Commands need no intent. discord.py resolves the channels and permissions of an interaction from its cache of guilds,
# hence `guilds`. No members, presences, messages or message content.
INTENTS: Final = discord.Intents(guilds=True)

IDENTIFY_SECONDS: Final = 5.0
MAX_RECONNECT_EXPONENT: Final = 6  # 2**6 seconds, about a minute

# The bot's own, and those of the libraries on which the samples for a seed depend.
SHOWN_VERSIONS: Final = ("gpt2-for-discord", "transformers", "torch", "discord.py")

log = structlog.get_logger(__name__)


class GPT2Client(commands.AutoShardedBot):
    """GPT-2's bot. It uses the engine and the renderer but does not close them."""

    _connection: State

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        catalogue: Catalogue,
        cogs: Iterable[Callable[[GPT2Client], commands.Cog]],
        *,
        models: Models | None = None,
        journal: Journal | None = None,
        quotas: Quotas | None = None,
        moderation: Moderation | None = None,
        sync_commands: bool = True,
        source_url: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            # Required by discord.py, though there are no prefix commands.
            command_prefix=commands.when_mentioned,
            help_command=None,
            intents=INTENTS,
            allowed_mentions=discord.AllowedMentions.none(),
            tree_cls=Tree,
            # Servers and accounts; servers, direct messages and group chats.
            allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True),
            # Cache nothing that people write.
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            **options,
        )
        self.engine = engine
        self.models = models or Models(engine)
        self.renderer = renderer
        self.catalogue = catalogue
        self._cogs = tuple(cogs)
        self.actions = Actions()
        self.moves = Moves(self.actions)
        self.presses = Presses()
        self.answers = RecentAnswers(engine)
        self.moderation = moderation or Moderation()
        self.newer_version: str | None = None
        self.wait_between_edits: Wait = wait_for_result
        self._quotas = quotas or Quotas()
        self.pipeline = Pipeline(self._dispatch_interaction, catalogue, journal or Journal(None), self._quotas)
        self._sync_commands = sync_commands
        self._source_url = source_url
        self._started = discord.utils.utcnow()
        self.command_sync = CommandSync(self)
        self._background = BackgroundTasks()
        self._max_concurrency = 1
        self._identified: dict[int, float] = {}  # by rate limit bucket, the time of its last identify

    async def login(self, token: str) -> None:
        """Log in, waiting for Discord and the network if they are down, as after a power cut.

        Raises:
            discord.LoginFailure: Discord refuses the token.
            discord.HTTPException: Discord refuses the login for another reason that retries do not change.
        """

        async def reset() -> None:
            # discord.py opens a session for each login and does not close it if the login fails.
            await self.http.close()
            self.http.connector = discord.utils.MISSING

        await retry.retry_forever(partial(super().login, token), "login", reset)

    async def launch_shards(self) -> None:
        """Connect every shard of this process, retrying like `login`."""

        async def launch() -> None:
            limits = await self.fetch_session_start_limits()
            self._max_concurrency = limits.max_concurrency
            await super(GPT2Client, self).launch_shards()

        await retry.retry_forever(launch, "gateway")

    async def launch_shard(self, gateway: yarl.URL, shard_id: int, *, initial: bool = False) -> None:
        """Connect one shard."""
        await super().launch_shard(gateway, shard_id, initial=initial)
        shard = self.get_shard(shard_id)
        if shard:
            # During a long outage discord.py would pause for up to 17 minutes between two attempts to reconnect.
            shard._parent._backoff._max = MAX_RECONNECT_EXPONENT  # noqa: SLF001

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:  # noqa: ARG002
        """Wait for the shard's turn: one shard of each rate limit bucket may identify every 5 s."""
        bucket, loop = (shard_id or 0) % self._max_concurrency, asyncio.get_running_loop()
        turn = self._identified.get(bucket, -math.inf) + IDENTIFY_SECONDS
        self._identified[bucket] = max(turn, loop.time())
        await asyncio.sleep(turn - loop.time())

    async def setup_hook(self) -> None:
        """Add the commands, sync them in the background, and answer the journal's requests."""
        for cog in self._cogs:
            await self.add_cog(cog(self))
        self._quotas.mark(self.tree)
        await self.tree.set_translator(CommandTranslator(self.catalogue))
        if self._sync_commands:
            self._background.start(self.command_sync.sync_until_done(), "sync commands")
        await self.pipeline.recover(self._connection.read, self._is_mine)

    def receive(self, interaction: discord.Interaction[Any], payload: Any, fault: Exception | None) -> None:
        """Handle an interaction from the gateway; see `bot.interactions.gateway`."""
        if interaction.type is discord.InteractionType.autocomplete:
            self.tree._from_interaction(interaction)  # noqa: SLF001 # autocompletion bypasses the pipeline
        else:
            self.pipeline.receive(interaction, payload, fault)

    async def _dispatch_interaction(self, interaction: discord.Interaction[Any]) -> None:
        """Run the command, button or form of an interaction, and raise its errors."""
        if interaction.type is discord.InteractionType.application_command:
            await self.tree._call(interaction)  # noqa: SLF001 # the public method starts a task of its own
        else:
            await self.actions.dispatch(interaction)

    async def close(self) -> None:
        """Disconnect from Discord."""
        for task in self._background:
            task.cancel()
        self.answers.clear()
        await super().close()

    def current_status(self) -> Status:
        """Return the state of the bot for /about."""
        return Status(
            versions={name: metadata.version(name) for name in SHOWN_VERSIONS},
            started=self._started,
            waiting=self.models.waiting,
            tokens_per_second=self.engine.tokens_per_second,
            acceptance=self.engine.statistics.acceptance,
            servers=len(self.guilds),
            invitation=invitation(self.application_id or 0),
            source=self._source_url,
            newer_version=self.newer_version,
            models={name: engine.ready for name, engine in self.models.engines.items()} if self.models.several else {},
        )

    def described_commands(self, locale: discord.Locale) -> list[CommandLine]:
        """Return every command for members, in the order of the cogs, described in the reader's language."""
        return [
            self._described(command, locale)
            for top in self.tree.get_commands(type=discord.AppCommandType.chat_input)
            if top.default_permissions is None
            for command in (top.walk_commands() if isinstance(top, app_commands.Group) else [top])
            if isinstance(command, app_commands.Command)
        ]

    def _described(self, command: app_commands.Command[Any, ..., Any], locale: discord.Locale) -> CommandLine:
        name = command.qualified_name
        command_id = self.command_sync.command_ids.get((command.root_parent or command).name)
        translated = self.catalogue.look_up(DESCRIPTION_CONTEXT, command.description, locale)
        typed = f"</{name}:{command_id}>" if command_id else f"`/{self.catalogue.command_name(name, locale)}`"
        return CommandLine(name, typed, translated or command.description)

    async def on_error(self, event_method: str, /, *_: Any, **__: Any) -> None:
        """Log an error in an event handler without its arguments, which may hold what people wrote."""
        log.error("an event handler failed", event_name=event_method, exc_info=sys.exception())

    def _get_state(self, **options: Any) -> State:
        """Return a connection state that keeps payloads; see `discord.AutoShardedClient`."""
        state = State(dispatch=self.dispatch, handlers=self._handlers, hooks=self._hooks, http=self.http, **options)
        state.receiver = self
        return state

    def _is_mine(self, payload: dict[str, Any]) -> bool:
        """Return whether this process answers a payload, if several shard processes share the journal."""
        if self.shard_ids is None or not self.shard_count:
            return True
        return (int(payload.get("guild_id") or 0) >> 22) % self.shard_count in self.shard_ids


class Tree(app_commands.CommandTree[GPT2Client]):
    """A command tree that leaves errors to the pipeline."""

    async def on_error(self, interaction: discord.Interaction[GPT2Client], error: app_commands.AppCommandError) -> None:  # noqa: ARG002
        """Raise the error of a command, for the pipeline to answer."""
        raise error
