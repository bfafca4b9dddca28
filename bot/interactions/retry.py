"""Delivery to Discord on its bad days: transient errors are retried, permanent ones raised.

discord.py retries 429, 500, 502, 504 and the like five times within half a minute. It gives up at once on a connection
that was reset (it knows that error only by its numbers on macOS and Windows), on a name that cannot be resolved, and on
a 429 of Cloudflare's, which has no `Via` header. Every answer to an interaction goes through its webhook adapter, so
`RetryingAdapter` replaces that.
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
"""How long an acknowledgement is retried; Discord takes none after 3 s."""

CONFIRMATION_SECONDS: Final = 3.5
"""How long to wait for Discord's response to an acknowledgement. A later one would change nothing."""

DELIVERY_SECONDS: Final = 10 * 60.0
"""How long every other request is retried; an interaction can be answered for 15 minutes."""

FIRST_PAUSE_SECONDS: Final = 0.25
MAX_PAUSE_SECONDS: Final = 30.0

MAX_START_PAUSE_SECONDS: Final = 60
"""The longest pause between two attempts to log in or to find the gateway."""

BACK_OFF_SECONDS: Final = 1.0
"""The shortest silence after a 429 of Cloudflare's; it doubles up to `MAX_BACK_OFF_SECONDS`."""

MAX_BACK_OFF_SECONDS: Final = 300.0

REQUEST_ERRORS: Final = (discord.HTTPException, discord.GatewayNotFound, aiohttp.ClientError, OSError)
"""The errors that a request to Discord raises; `is_transient` tells which of them to retry."""

_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
_ALREADY_ACKNOWLEDGED: Final = 40060
_DEFERRALS: Final = frozenset({5, 6})

log = structlog.get_logger(__name__)


class UnreachableError(ConnectionError):
    """A request that Discord did not take in time; the text gives the reason without any address."""


class _ObservedSession:
    """A session that knows what may have become of its requests.

    Attributes:
        unanswered: Whether a request went out and its response did not come back.
        failed: Whether Discord answered one with a server error, after which it may have been carried out.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.unanswered = False
        self.failed = False

    @contextlib.asynccontextmanager
    async def request(self, *arguments: Any, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            response = await self._session.request(*arguments, **options)
        except aiohttp.ClientConnectorError:
            raise  # nothing was sent
        except BaseException:
            self.unanswered = True
            raise
        async with response:
            self.unanswered |= response.ok  # until it has been read to its end
            self.failed |= response.status >= _SERVER_ERROR
            yield response


class RetryingAdapter(AsyncWebhookAdapter):
    """discord.py's webhook adapter with retries.

    An acknowledgement is retried for `ACKNOWLEDGE_SECONDS`, every other request for `DELIVERY_SECONDS`. One counts as
    taken if Discord calls it "already acknowledged" after an attempt whose outcome is unknown: that one arrived, and
    its response was lost. Without such an attempt somebody else has acknowledged the interaction, and the error is
    raised. A deferral also counts as taken if it went out and no response came within `CONFIRMATION_SECONDS`, since
    somebody may see "is thinking…". If nobody does, Discord refuses the answer later.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # discord.py's
        self._refusals = 0  # consecutive 429s of Cloudflare's, all requests together
        self._open = asyncio.Event()  # cleared while nothing is sent
        self._open.set()
        self._probing = asyncio.Lock()
        self._rival_seen = False

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
            UnreachableError: The time for retries is over.
        """
        acknowledges = route.path.endswith("/callback")
        defers = acknowledges and payload is not None and payload.get("type") in _DEFERRALS
        taken = {"interaction": {"id": str(route.webhook_id), "type": 2}}
        observed = _ObservedSession(session)
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + (ACKNOWLEDGE_SECONDS if acknowledges else DELIVERY_SECONDS)
        for attempt in itertools.count():
            for file in files or ():
                file.reset(seek=attempt)
            try:
                # discord.py itself sleeps for up to 25 s between attempts of its own.
                async with asyncio.timeout_at(began + CONFIRMATION_SECONDS if acknowledges else None):
                    return await self._send(deadline, route, observed, payload=payload, files=files, **rest)
            except REQUEST_ERRORS as error:
                if acknowledges and already_acknowledged(error):
                    if observed.unanswered or observed.failed:
                        return taken
                    self._warn_of_rival()
                if not is_transient(error):
                    raise
                pause = min(FIRST_PAUSE_SECONDS * 2**attempt, MAX_PAUSE_SECONDS) * random.uniform(0.75, 1.25)
                if loop.time() + pause > deadline:
                    if not (defers and observed.unanswered):
                        raise UnreachableError(_summary(error)) from error
                    log.info(
                        "an acknowledgement was not confirmed; answering anyway",
                        interaction=route.webhook_id,
                        error=_summary(error),
                    )
                    return taken
                log.info("cannot reach Discord; retrying", error=_summary(error), seconds=round(pause, 2))
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _send(self, deadline: float, route: discord.http.Route, session: Any, **rest: Any) -> Any:
        # Every refused request counts towards the 10,000 in ten minutes for which Cloudflare bans the address. So
        # while requests are refused, one at a time probes whether that is over.
        while self._refusals:
            async with asyncio.timeout_at(deadline):
                await self._open.wait()
                await self._probing.acquire()
            try:
                if self._refusals and self._open.is_set():
                    return await self._send_now(route, session, **rest)
            finally:
                self._probing.release()
        return await self._send_now(route, session, **rest)

    async def _send_now(self, route: discord.http.Route, session: Any, **rest: Any) -> Any:
        try:
            response = await super().request(route, session, **rest)
        except discord.HTTPException as error:
            if error.status == _TOO_MANY_REQUESTS and not error.response.headers.get("Via"):
                self._back_off(error)
            raise
        self._refusals = 0
        return response

    def _warn_of_rival(self) -> None:
        if not self._rival_seen:
            self._rival_seen = True
            log.warning(
                "another process answers for this bot: it runs with the same token. Stop one of the two. This one is "
                "silent about every request that the other acknowledges first."
            )

    def _back_off(self, error: discord.HTTPException) -> None:
        if not self._open.is_set():
            return  # the request went out before the last refusal came back
        seconds = min(BACK_OFF_SECONDS * 2**self._refusals, MAX_BACK_OFF_SECONDS)
        with contextlib.suppress(ValueError):  # Retry-After may also be a date
            seconds = max(seconds, float(error.response.headers.get("Retry-After", 0)))
        self._refusals += 1
        self._open.clear()
        asyncio.get_running_loop().call_later(seconds, self._open.set)
        log.warning("Cloudflare refuses this address; sending nothing for a while", seconds=seconds)


def install_adapter() -> None:
    """Send answers to interactions through a `RetryingAdapter`, in this task and in those it starts."""
    async_context.set(RetryingAdapter())


def already_acknowledged(error: BaseException) -> bool:
    """Return whether Discord refused an acknowledgement because it has one of this interaction."""
    return isinstance(error, discord.HTTPException) and error.code == _ALREADY_ACKNOWLEDGED


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later: the network or Discord is in trouble."""
    if isinstance(error, discord.HTTPException):
        return error.status >= _SERVER_ERROR or error.status == _TOO_MANY_REQUESTS
    return isinstance(error, REQUEST_ERRORS)


async def retry_forever(
    call: Callable[[], Awaitable[T]], step: str, reset: Callable[[], Awaitable[None]] | None = None
) -> T:
    """Return the result of `call`, retrying transient errors without a limit.

    Args:
        call: Makes requests to Discord. Its permanent errors are raised.
        step: The name of the step, for the log.
        reset: Called before each retry.
    """
    for attempt in itertools.count():
        try:
            return await call()
        except REQUEST_ERRORS as error:
            if not is_transient(error):
                raise
            seconds = min(2**attempt, MAX_START_PAUSE_SECONDS)
            log.warning("cannot reach Discord yet; retrying", at=step, error=str(error), seconds=seconds)
            if reset:
                await reset()
            await asyncio.sleep(seconds)
    raise AssertionError("unreachable")


def _summary(error: BaseException) -> str:
    """Describe an error without its text: aiohttp's quotes the address, which holds the interaction's token."""
    status = f" {error.status}" if isinstance(error, discord.HTTPException) else ""
    number = f" {error.errno}" if isinstance(error, OSError) and error.errno else ""
    return f"{type(error).__name__}{status}{number}"
