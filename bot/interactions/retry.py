"""Getting answers to Discord on its bad days: what may pass is tried again, what will not is not.

discord.py tries again where Discord answers 429, 500, 502, 504 and the like, five times within half a minute. It gives
up at once on a connection that was reset (it knows that error by the numbers it has on macOS and Windows), on a name
that cannot be resolved, and on a 429 of Cloudflare's, which has no `Via` header. Answers to interactions all go through
its webhook adapter, so that is where patience is added.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
import discord
import structlog
from discord.webhook.async_ import AsyncWebhookAdapter, async_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

T = TypeVar("T")

ACKNOWLEDGE_SECONDS: Final = 2.5
"""How long an acknowledgement is tried; Discord takes none after 3 s."""

LAST_WORD_SECONDS: Final = 3.5
"""How long Discord's word on an acknowledgement is waited for; nothing that comes later could change what is done."""

DELIVERY_SECONDS: Final = 10 * 60.0
"""How long everything else is tried; an interaction can be answered for 15 minutes."""

FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 30.0

LONGEST_START_PAUSE_SECONDS: Final = 60
"""Between two attempts to log in, or to find the gateway."""

QUIET_SECONDS: Final = 1.0
"""The least that nothing is sent after a 429 of Cloudflare's; it doubles, up to `LONGEST_QUIET_SECONDS`."""

LONGEST_QUIET_SECONDS: Final = 300.0

TROUBLE: Final = (discord.HTTPException, discord.GatewayNotFound, aiohttp.ClientError, OSError)
"""What a request to Discord raises; `may_pass` tells what of it may be over the next time."""

_TOO_MANY_REQUESTS: Final = 429
_ALREADY_ACKNOWLEDGED: Final = 40060
_DEFERRALS: Final = frozenset({5, 6})

log = structlog.get_logger(__name__)


class UnreachableError(ConnectionError):
    """Discord could not be told in all the time there was; the text says why, without any address."""


class _Listening:
    """A session that knows whether something was sent of which no word came back."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.unheard = False

    @contextlib.asynccontextmanager
    async def request(self, *arguments: Any, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            response = await self._session.request(*arguments, **options)
        except aiohttp.ClientConnectorError:
            raise  # nobody was there to be told
        except BaseException:
            self.unheard = True
            raise
        async with response:
            self.unheard |= response.ok  # until it has been read to its end
            yield response


class PatientAdapter(AsyncWebhookAdapter):
    """discord.py's own, with more patience."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # discord.py's
        self._refusals = 0  # 429s of Cloudflare's in a row, all requests together
        self._calm = asyncio.Event()
        self._calm.set()
        self._alone = asyncio.Lock()

    async def request(
        self,
        route: discord.http.Route,
        session: aiohttp.ClientSession,
        *,
        payload: dict[str, Any] | None = None,
        files: Sequence[discord.File] | None = None,
        **rest: Any,
    ) -> Any:
        """See `AsyncWebhookAdapter.request`.

        Raises:
            UnreachableError: In place of what would have passed, had there been more time.
        """
        acknowledges = route.path.endswith("/callback")
        defers = acknowledges and payload is not None and payload.get("type") in _DEFERRALS
        taken = {"interaction": {"id": str(route.webhook_id), "type": 2}}
        listening = _Listening(session)
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + (ACKNOWLEDGE_SECONDS if acknowledges else DELIVERY_SECONDS)
        for attempt in itertools.count():
            for file in files or ():
                file.reset(seek=attempt)
            try:
                # discord.py itself sleeps for up to 25 s between attempts of its own.
                async with asyncio.timeout_at(began + LAST_WORD_SECONDS if acknowledges else None):
                    return await self._send(deadline, route, listening, payload=payload, files=files, **rest)
            except TROUBLE as error:
                if defers and isinstance(error, discord.HTTPException) and error.code == _ALREADY_ACKNOWLEDGED:
                    return taken
                if not may_pass(error):
                    raise
                pause = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS) * random.uniform(0.75, 1.25)
                if loop.time() + pause > deadline:
                    if not (defers and listening.unheard):
                        raise UnreachableError(_short(error)) from error
                    # Somebody may be waiting for the answer. If nobody is, Discord will say so when it comes.
                    log.info(
                        "an acknowledgement may have been taken; the answer is made",
                        interaction=route.webhook_id,
                        error=_short(error),
                    )
                    return taken
                log.info("Discord could not be reached; trying again", error=_short(error), seconds=round(pause, 2))
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _send(self, deadline: float, route: discord.http.Route, session: Any, **rest: Any) -> Any:
        # Every refused request counts towards the 10,000 in ten minutes that get the address banned for longer. So
        # while they are refused, one at a time asks whether it has passed.
        while self._refusals:
            async with asyncio.timeout_at(deadline):
                await self._calm.wait()
                await self._alone.acquire()
            try:
                if self._refusals and self._calm.is_set():
                    return await self._send_now(route, session, **rest)
            finally:
                self._alone.release()
        return await self._send_now(route, session, **rest)

    async def _send_now(self, route: discord.http.Route, session: Any, **rest: Any) -> Any:
        try:
            answer = await super().request(route, session, **rest)
        except discord.HTTPException as error:
            if error.status == _TOO_MANY_REQUESTS and not error.response.headers.get("Via"):
                self._keep_quiet(error)
            raise
        self._refusals = 0
        return answer

    def _keep_quiet(self, error: discord.HTTPException) -> None:
        if not self._calm.is_set():
            return  # it was sent before the last refusal was known
        seconds = min(QUIET_SECONDS * 2**self._refusals, LONGEST_QUIET_SECONDS)
        with contextlib.suppress(ValueError):  # it may be a date, too
            seconds = max(seconds, float(error.response.headers.get("Retry-After", 0)))
        self._refusals += 1
        self._calm.clear()
        asyncio.get_running_loop().call_later(seconds, self._calm.set)
        log.warning("Discord refuses this address for a while; nothing is sent meanwhile", seconds=seconds)


def be_patient() -> None:
    """Let answers that are sent from this task, and from those it starts, go through a `PatientAdapter`."""
    async_context.set(PatientAdapter())


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: the network, or Discord, is in trouble."""
    if isinstance(error, discord.HTTPException):
        return error.status >= 500 or error.status == _TOO_MANY_REQUESTS  # noqa: PLR2004 # HTTP's own
    return isinstance(error, TROUBLE)


async def patiently(
    call: Callable[[], Awaitable[T]], step: str, afresh: Callable[[], Awaitable[None]] | None = None
) -> T:
    """The result of `call`, which is tried until the trouble has passed, however long that takes.

    Args:
        call: What needs Discord; its errors are raised where they will not pass.
        step: What it is, for the log.
        afresh: Makes it possible to call it again.
    """
    for attempt in itertools.count():
        try:
            return await call()
        except TROUBLE as error:
            if not may_pass(error):
                raise
            seconds = min(2**attempt, LONGEST_START_PAUSE_SECONDS)
            log.warning("Discord cannot be reached yet; trying again", at=step, error=str(error), seconds=seconds)
            if afresh:
                await afresh()
            await asyncio.sleep(seconds)
    raise AssertionError("unreachable")


def _short(error: BaseException) -> str:
    """Without what an aiohttp error may quote: the address, which holds the interaction's token."""
    status = f" {error.status}" if isinstance(error, discord.HTTPException) else ""
    number = f" {error.errno}" if isinstance(error, OSError) and error.errno else ""
    return f"{type(error).__name__}{status}{number}"
