"""A small, real Discord on 127.0.0.1: the HTTP API v10 and the gateway, for a bot in a process of its own.

What it takes is held against Discord's own OpenAPI description and against the rules that no schema states; what a
good bot does not do ends up in ``violations``. See ``driver.py`` for what its people can do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from aiohttp import web

from tests.loopback import openapi
from tests.loopback.api import PREFIX, Api
from tests.loopback.changes import Changes
from tests.loopback.commands import CommandStore
from tests.loopback.driver import Driver
from tests.loopback.faults import Faults
from tests.loopback.gateway import Gateway, GatewaySettings
from tests.loopback.interactions import InteractionDesk
from tests.loopback.log import Request, Violation
from tests.loopback.messages import MessageStore
from tests.loopback.ratelimits import RateLimits
from tests.loopback.world import User, snowflake

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.loopback.world import Channel, Guild

HOST = "127.0.0.1"
# Its form is that of a real token (id, time, signature), so that a bot's own check of the form lets it through.
TOKEN = "MTAwMDAwMDAwMDAwMDAwMDAwMA.GLoop1.back-on-loopback-only-not-a-secret-1234567"
ACKNOWLEDGE_SECONDS = 3.0
TOKEN_SECONDS = 15 * 60.0


class LoopbackDiscord(Driver):
    """The server, an async context manager.

    Args:
        settings: The gateway's behaviour: shards, heartbeats, concurrency.
        window_seconds: How long an acknowledgement may take before Discord answers 10062.
        token_seconds: How long an interaction may be answered.
        description: Discord's OpenAPI description; where the file is absent bodies are not held against it and
            ``validates`` says so.

    Attributes:
        token: The bot's token; any other is answered 401, and 4004 at the gateway.
        requests: Every request, in order.
        violations: What a good bot does not do; empty at the end of a good test.
        answering: The request in progress, if any, to which violations are attributed.
        faults: Bad days to order.
        rate_limits: The limits in force.
        gateway: Shards, sessions, and ways to break them.
        commands: What the bot has synced.
        desk: The interactions, with their time limits.
        messages: Every message, and the bytes of every file.
        guild: The server that is always there; ``channel`` is its one text channel.
        owner: The application's owner.
    """

    def __init__(
        self,
        settings: GatewaySettings | None = None,
        *,
        window_seconds: float = ACKNOWLEDGE_SECONDS,
        token_seconds: float = TOKEN_SECONDS,
        description: Path = openapi.DESCRIPTION,
    ) -> None:
        self.token = TOKEN
        self.changes = Changes()
        self.requests: list[Request] = []
        self.violations: list[Violation] = []
        self.answering: Request | None = None
        self.faults = Faults()
        self.rate_limits = RateLimits()
        self.api_description = openapi.load(description)
        self.users: dict[str, User] = {}
        self.guilds: list[Guild] = []
        self.channels: dict[int, Channel] = {}
        self.channel = self.server("Reading room")
        assert self.channel.guild is not None
        self.guild = self.channel.guild
        self.owner = self.user("owner")
        self.application_id = snowflake()
        self.bot = User(self.application_id, "GPT-2", bot=True)
        self.users["bot"] = self.bot
        self.commands = CommandStore(self.application_id)
        self.messages = MessageStore(lambda: self.address, self.violate)
        self.desk = InteractionDesk(
            self.bot,
            self.application_id,
            self.messages,
            self.changes,
            self.violate,
            window_seconds=window_seconds,
            token_seconds=token_seconds,
        )
        self.gateway = Gateway(
            self.token,
            self.bot,
            self.application_id,
            self.guilds,
            self.changes,
            self.violate,
            settings or GatewaySettings(),
        )
        self.address = ""
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def validates(self) -> bool:
        """Return whether Discord's description is there and bodies are held against it."""
        return self.api_description is not None

    @property
    def api_url(self) -> str:
        """Return what the bot shall take for https://discord.com/api/v10."""
        return self.address + PREFIX

    def violate(self, kind: str, detail: str, request: Request | None = None) -> None:
        """Note something that a good bot does not do."""
        self.violations.append(Violation(kind, detail, request or self.answering))

    def take_violations(self) -> list[Violation]:
        """Return the violations and forget them: for a test that wants some."""
        taken = list(self.violations)
        self.violations.clear()
        return taken

    def forget(self) -> None:
        """Let go of requests, messages, files and interactions: for a soak of hours."""
        self.requests.clear()
        self.desk.by_token.clear()
        self.messages.messages.clear()
        self.messages.files.clear()

    def calls(self, method: str, template: str) -> list[Request]:
        """Return the requests of one method whose path or description's template contains ``template``."""
        return [r for r in self.requests if r.method == method and template in f"{r.template} {r.path}"]

    async def __aenter__(self) -> Self:
        # The port stays the same for the server's life; a bot that is restarted finds it again.
        self._runner = web.AppRunner(Api(self).application(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await self._listen(0)
        port = self._runner.addresses[0][1]
        self.address = f"http://{HOST}:{port}"
        self.gateway.address = f"ws://{HOST}:{port}"
        return self

    async def _listen(self, port: int) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, HOST, port)
        await self._site.start()

    async def go_offline(self) -> None:
        """Tear all connections and refuse new ones: the network is gone, as far as the bot can tell."""
        assert self._site is not None
        assert self._runner is not None
        assert self._runner.server is not None
        await self._site.stop()
        self._site = None
        self.gateway.tear_all()
        await self._runner.server.shutdown(0.1)

    async def go_online(self) -> None:
        """Listen again, at the same address."""
        if self._site is None:
            await self._listen(int(self.address.rpartition(":")[2]))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.gateway.shut()
        if self._runner is not None:
            await self._runner.cleanup()
