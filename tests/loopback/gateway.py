"""The gateway: sessions that outlive their connections, shards, heartbeats, resumption, and ways to break them."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from tests.loopback.compression import Compressor, compressor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.loopback.changes import Changes
    from tests.loopback.world import Guild, User

DISPATCH, HEARTBEAT, IDENTIFY, PRESENCE, VOICE, RESUME, RECONNECT = 0, 1, 2, 3, 4, 6, 7
REQUEST_MEMBERS, INVALID_SESSION, HELLO, HEARTBEAT_ACK = 8, 9, 10, 11
UNKNOWN_OPCODE, DECODE_ERROR, NOT_AUTHENTICATED, AUTHENTICATION_FAILED = 4001, 4002, 4003, 4004
ALREADY_AUTHENTICATED, TIMED_OUT, INVALID_SHARD, INVALID_VERSION = 4005, 4009, 4010, 4012
INVALID_INTENTS, DISALLOWED_INTENTS = 4013, 4014
GUILDS_INTENT = 1 << 0
PRIVILEGED = 1 << 1 | 1 << 8 | 1 << 15  # members, presences, message content
_KEPT_EVENTS = 1000  # for resumption
_ROUND_TRIP_SECONDS = 5.0
_ALL_INTENTS = (1 << 22) - 1 | 1 << 24 | 1 << 25


@dataclass(slots=True)
class Identify:
    """One IDENTIFY: when, which shard of how many, with which intents, and the session it was given."""

    at: float
    shard: int
    shards: int
    intents: int
    session_id: str


@dataclass(slots=True)
class Resume:
    """One RESUME.

    Attributes:
        at: When.
        shard: Whose; None where there is no such session.
        sequence: The last event that the client had seen.
        taken: Whether the session went on.
        by_resume_url: Whether it came to the resume address.
        brought: The ids of the interactions that were sent again, or for the first time.
    """

    at: float
    shard: int | None
    sequence: int
    taken: bool
    by_resume_url: bool
    brought: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Connection:
    """One WebSocket."""

    socket: web.WebSocketResponse
    request: web.Request
    compress: Compressor | None
    session: Session | None = None
    pong: asyncio.Future[None] | None = None

    async def send(self, payload: dict[str, Any]) -> None:
        """Send one gateway message; a connection that is gone swallows it."""
        text = json.dumps(payload)
        try:
            if self.compress is not None:
                await self.socket.send_bytes(self.compress(text))
            else:
                await self.socket.send_str(text)
        except ConnectionError:
            pass

    async def round_trip(self) -> None:
        """Ping the client and wait for its pong: what was sent before has reached its event loop."""
        self.pong = asyncio.get_running_loop().create_future()
        try:
            await self.socket.ping()
            async with asyncio.timeout(_ROUND_TRIP_SECONDS):
                await self.pong
        except (ConnectionError, TimeoutError):
            pass  # gone or busy: what comes next will show it

    def tear(self) -> None:
        """Break the connection without a close frame, as a lost network does."""
        if self.request.transport is not None:
            self.request.transport.abort()


@dataclass(slots=True, eq=False)
class Session:
    """What a shard has identified for; it lives on without a connection until it is resumed or invalidated."""

    id: str
    shard: int
    shards: int
    intents: int
    sequence: int = 0
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT_EVENTS))
    connection: Connection | None = None

    async def dispatch(self, event: str, data: dict[str, Any]) -> None:
        """Send an event now, or keep it for the resumption."""
        self.sequence += 1
        message = {"op": DISPATCH, "t": event, "s": self.sequence, "d": data}
        self.events.append(message)
        if self.connection is not None:
            await self.connection.send(message)


@dataclass(slots=True)
class GatewaySettings:
    """How the gateway behaves; change it at any time.

    Attributes:
        shards: How many shards /gateway/bot recommends.
        max_concurrency: How many shards may identify at once.
        identify_seconds: The window for that; 0 leaves it unwatched.
        refuse_early: Whether who is early is answered op 9, as Discord does, and not only noted as a violation.
        heartbeat_seconds: The interval told in HELLO.
        privileged_intents: The privileged intents that the application was granted.
        acknowledge_heartbeats: Whether heartbeats are answered; False makes a zombie.
        accept_connections: Whether anybody gets in; False answers 503.
        accept_resumes: Whether sessions may be resumed; False answers op 9.
    """

    shards: int = 1
    max_concurrency: int = 1
    identify_seconds: float = 0.0
    refuse_early: bool = False
    heartbeat_seconds: float = 41.25
    privileged_intents: int = 0
    acknowledge_heartbeats: bool = True
    accept_connections: bool = True
    accept_resumes: bool = True


class Gateway:
    """Serves the WebSockets and remembers what came over them.

    Args:
        token: The bot's token.
        bot: The bot's own user.
        application_id: The application's snowflake.
        guilds: The servers, looked at when a shard identifies.
        changes: Told of every change.
        complain: Hears of violations.
        settings: How to behave.
    """

    def __init__(
        self,
        token: str,
        bot: User,
        application_id: int,
        guilds: list[Guild],
        changes: Changes,
        complain: Callable[[str, str], None],
        settings: GatewaySettings,
    ) -> None:
        self._token = token
        self._bot = bot
        self._application_id = application_id
        self._guilds = guilds
        self._changes = changes
        self._complain = complain
        self.settings = settings
        self.sessions: dict[int, Session] = {}
        self.identifies: list[Identify] = []
        self.resumes: list[Resume] = []
        self.heartbeats = 0
        self.refused = 0
        self.closed_with: list[int] = []
        self.address = ""
        self._connections: set[Connection] = set()

    # What a test does

    def live(self, shard: int = 0) -> bool:
        """Return whether a shard is connected and identified or resumed."""
        session = self.sessions.get(shard)
        return session is not None and session.connection is not None

    @property
    def shard_count(self) -> int:
        """Return over how many shards the bot spreads itself, or should, before any has come."""
        return next((session.shards for session in self.sessions.values()), self.settings.shards)

    async def until(self, predicate: Callable[[Gateway], object], *, within: float = 20.0, what: str = "") -> None:
        """Wait for anything of the gateway's."""
        await self._changes.until(
            lambda: predicate(self),
            within=within,
            what=lambda: f"{what or predicate}: {self.identifies}, {self.resumes}",
        )

    async def ready(self, *, within: float = 20.0, shards: int | None = None) -> None:
        """Wait until all shards are live."""
        count = shards if shards is not None else self.settings.shards
        await self.until(lambda g: all(map(g.live, range(count))), within=within, what=f"{count} shards live")

    async def dispatch(self, shard: int, event: str, data: dict[str, Any]) -> None:
        """Send an event to a shard; what a shard without a session misses is lost, as it is on Discord."""
        session = self.sessions.get(shard)
        if session is None:
            raise RuntimeError(f"shard {shard} has no session: await discord.gateway.ready() first")
        await session.dispatch(event, data)

    async def settle(self, shard: int = 0) -> None:
        """Let the bot take in the answers to its requests, as it has long done when a person reacts to them.

        discord.py knows a form or a view only once the request that showed it is answered, and the gateway is
        another connection: without this a test's press could overtake that answer.
        """
        session = self.sessions.get(shard)
        for _ in range(2):
            if session is not None and session.connection is not None:
                await session.connection.round_trip()

    def drop(self, shard: int = 0) -> None:
        """Tear a shard's connection, without a word; its session can be resumed."""
        connection = self._connection(shard)
        self._detach(connection)
        connection.tear()

    def tear_all(self) -> None:
        """Tear every connection without a word; the sessions can be resumed."""
        for connection in list(self._connections):
            self._detach(connection)
            connection.tear()

    async def close(self, shard: int = 0, code: int = 4000) -> None:
        """Close a shard's connection with a code."""
        connection = self._connection(shard)
        self._detach(connection)
        await connection.socket.close(code=code)

    async def ask_to_reconnect(self, shard: int = 0) -> None:
        """Send op 7: the client shall come back and resume."""
        connection = self._connection(shard)
        self._detach(connection)
        await connection.send({"op": RECONNECT, "d": None})

    async def invalidate(self, shard: int = 0, *, resumable: bool = False) -> None:
        """Send op 9: the session is over, or (resumable) shall be resumed."""
        connection = self._connection(shard)
        self._detach(connection)
        if not resumable:
            del self.sessions[shard]
        await connection.send({"op": INVALID_SESSION, "d": resumable})

    def _connection(self, shard: int) -> Connection:
        session = self.sessions.get(shard)
        if session is None or session.connection is None:
            raise RuntimeError(f"shard {shard} is not connected")
        return session.connection

    async def shut(self) -> None:
        """End all connections, when the server ends."""
        for connection in list(self._connections):
            self._detach(connection)
            await connection.socket.close(code=1001)

    # What a client does

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one WebSocket from HELLO to its end."""
        if not self.settings.accept_connections:
            return web.Response(status=503)
        socket = web.WebSocketResponse(compress=False, autoping=False, max_msg_size=4096 * 16, timeout=1.0)
        await socket.prepare(request)
        connection = Connection(socket, request, compressor(request.query.get("compress")))
        self._connections.add(connection)
        try:
            if request.query.get("v") != "10" or request.query.get("encoding") != "json":
                await self._end(connection, INVALID_VERSION)
            interval = int(self.settings.heartbeat_seconds * 1000)
            await connection.send({"op": HELLO, "d": {"heartbeat_interval": interval}})
            await self._listen(connection)
        finally:
            self._detach(connection)
            self._connections.discard(connection)
        return socket

    async def _listen(self, connection: Connection) -> None:
        while not connection.socket.closed:
            try:
                # Two intervals without a heartbeat: Discord gives the session up for dead.
                received = await connection.socket.receive(timeout=self.settings.heartbeat_seconds * 2)
            except TimeoutError:
                await self._end(connection, TIMED_OUT)
                return
            if received.type is WSMsgType.PING:
                await connection.socket.pong(received.data)
                continue
            if received.type is WSMsgType.PONG:
                if connection.pong is not None and not connection.pong.done():
                    connection.pong.set_result(None)
                continue
            if received.type is not WSMsgType.TEXT:
                return
            try:
                message = json.loads(received.data)
                operation, data = message["op"], message.get("d")
            except (ValueError, TypeError, KeyError):
                await self._end(connection, DECODE_ERROR)
                return
            await self._take(connection, operation, data)
            self._changes.announce()

    async def _take(self, connection: Connection, operation: int, data: Any) -> None:
        if operation == HEARTBEAT:
            self.heartbeats += 1
            if self.settings.acknowledge_heartbeats:
                await connection.send({"op": HEARTBEAT_ACK, "d": None})
        elif operation == IDENTIFY:
            await self._identify(connection, data)
        elif operation == RESUME:
            await self._resume(connection, data)
        elif connection.session is None:
            await self._end(connection, NOT_AUTHENTICATED)
        elif operation not in {PRESENCE, VOICE, REQUEST_MEMBERS}:
            await self._end(connection, UNKNOWN_OPCODE)

    async def _identify(self, connection: Connection, data: dict[str, Any]) -> None:
        shard, shards = data.get("shard") or (0, 1)
        intents = data["intents"]
        fault = 0
        if connection.session is not None:
            fault = ALREADY_AUTHENTICATED
        elif data["token"] != self._token:
            fault = AUTHENTICATION_FAILED
        elif not 0 <= shard < shards:
            fault = INVALID_SHARD
        elif intents & ~_ALL_INTENTS:
            fault = INVALID_INTENTS
        elif intents & PRIVILEGED & ~self.settings.privileged_intents:
            fault = DISALLOWED_INTENTS
        if fault:
            await self._end(connection, fault)
            return
        now = asyncio.get_running_loop().time()
        early = self._early(shard, now)
        if early and self.settings.refuse_early:
            self.refused += 1
            await connection.send({"op": INVALID_SESSION, "d": False})
            return
        for complaint in early:
            self._complain("identify", complaint)
        session = Session(secrets.token_hex(16), shard, shards, intents)
        self.identifies.append(Identify(now, shard, shards, intents, session.id))
        self.sessions[shard] = session
        self._attach(connection, session)
        own = [g for g in self._guilds if g.bot_is_member and (g.id >> 22) % shards == shard]
        await session.dispatch("READY", self._ready_payload(session, own))
        if intents & GUILDS_INTENT:
            for guild in own:
                await session.dispatch("GUILD_CREATE", guild.payload(self._bot))

    def _early(self, shard: int, now: float) -> list[str]:
        """Return whose turns it is still, in words."""
        concurrency, window = self.settings.max_concurrency, self.settings.identify_seconds
        return [
            f"shard {shard} only {now - earlier.at:.2f} s after shard {earlier.shard}"
            for earlier in self.identifies
            if (earlier.shard - shard) % concurrency == 0 and now - earlier.at < window
        ]

    def _ready_payload(self, session: Session, guilds: list[Guild]) -> dict[str, Any]:
        return {
            "v": 10,
            "user": self._bot.payload() | {"verified": True, "mfa_enabled": True, "email": None},
            "guilds": [{"id": str(guild.id), "unavailable": True} for guild in guilds],
            "session_id": session.id,
            "session_type": "normal",
            "resume_gateway_url": f"{self.address}/resume",
            "shard": [session.shard, session.shards],
            "application": {"id": str(self._application_id), "flags": 0},
            "private_channels": [],
            "relationships": [],
            "user_settings": {},
            "presences": [],
            "geo_ordered_rtc_regions": [],
            "_trace": [],
        }

    async def _resume(self, connection: Connection, data: dict[str, Any]) -> None:
        session = next((s for s in self.sessions.values() if s.id == data["session_id"]), None)
        if data["token"] != self._token:
            await self._end(connection, AUTHENTICATION_FAILED)
            return
        taken = session is not None and self.settings.accept_resumes
        shard = session.shard if session is not None else None
        by_resume_url = connection.request.path.startswith("/resume")
        now = asyncio.get_running_loop().time()
        sequence = data["seq"] or 0
        self.resumes.append(Resume(now, shard, sequence, taken, by_resume_url))
        if session is None or not taken:
            if shard is not None:
                del self.sessions[shard]
            await connection.send({"op": INVALID_SESSION, "d": False})
            return
        missed = [message for message in session.events if message["s"] > sequence]
        brought = tuple(message["d"]["id"] for message in missed if message["t"] == "INTERACTION_CREATE")
        self.resumes[-1].brought = brought
        self._attach(connection, session)
        for message in missed:
            await connection.send(message)
        await session.dispatch("RESUMED", {"_trace": []})

    async def _end(self, connection: Connection, code: int) -> None:
        self.closed_with.append(code)
        self._changes.announce()
        await connection.socket.close(code=code)

    def _attach(self, connection: Connection, session: Session) -> None:
        connection.session, session.connection = session, connection
        self._changes.announce()

    def _detach(self, connection: Connection) -> None:
        if connection.session is not None and connection.session.connection is connection:
            connection.session.connection = None
        self._changes.announce()
