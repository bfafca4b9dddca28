"""The retrying adapter against a misbehaving server; test_bad_days.py has the whole bot against Discord's outages."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import discord
import pytest
from discord.webhook.async_ import interaction_message_response_params

from bot.interactions import retry
from bot.interactions.retry import RetryingAdapter, UnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]

ID: Final = 123456789
TOKEN: Final = "the-token-of-an-interaction"
MESSAGE: Final = 4
DEFER: Final = 5
TAKEN: Final = {"interaction": {"id": str(ID), "type": 2}}


async def hang_up(_: asyncio.StreamWriter) -> None:
    """Close the connection without a response."""


async def keep_silent(_: asyncio.StreamWriter) -> None:
    """Keep the connection open without a response."""
    await asyncio.Event().wait()


async def break_off(writer: asyncio.StreamWriter) -> None:
    """Send the status and the beginning of the body, then close the connection."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"inter')
    await writer.drain()


async def fail(writer: asyncio.StreamWriter) -> None:
    """Send a server error."""
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


@contextlib.asynccontextmanager
async def answering(monkeypatch: pytest.MonkeyPatch, *replies: Reply) -> AsyncIterator[list[bytes]]:
    """Run a server with one reply for each connection, the last one repeating; yield the requests it gets."""
    left, sent = list(replies), []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            sent.append(await reader.readuntil(b"\r\n\r\n"))
            await (left.pop(0) if len(left) > 1 else left[0])(writer)
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(discord.http.Route, "BASE", f"http://127.0.0.1:{port}/api/v10")
    yield sent
    server.close()


async def acknowledge(kind: int = DEFER) -> Any:
    params = interaction_message_response_params(type=kind)
    if kind == DEFER:
        params = params._replace(payload={"type": DEFER})
    async with aiohttp.ClientSession() as session:
        return await RetryingAdapter().create_interaction_response(ID, TOKEN, session=session, params=params)


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "ACKNOWLEDGE_SECONDS", 0.4)
    monkeypatch.setattr(retry, "CONFIRMATION_SECONDS", 0.8)
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.05)


@pytest.mark.parametrize(
    ("reply", "then"),
    [(hang_up, fail), (keep_silent, fail), (break_off, fail), (keep_silent, hang_up), (hang_up, keep_silent)],
)
async def test_an_unconfirmed_deferral_counts_as_taken(
    monkeypatch: pytest.MonkeyPatch, reply: Reply, then: Reply
) -> None:
    began = time.monotonic()
    async with answering(monkeypatch, reply, then) as sent:
        assert await acknowledge() == TAKEN
        assert f"/api/v10/interactions/{ID}/{TOKEN}/callback".encode() in sent[0]
    assert time.monotonic() - began < 3, "Discord allows no longer"


async def test_a_refused_deferral_was_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(monkeypatch, fail):
        with pytest.raises(UnreachableError, match=r"^TimeoutError$"):
            await acknowledge()


async def test_an_unsent_deferral_was_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(monkeypatch, fail):
        pass  # and is gone
    with pytest.raises(UnreachableError, match=r"^ClientConnectorError \d+$"):
        await acknowledge()


@pytest.mark.parametrize("reply", [hang_up, keep_silent, break_off])
async def test_an_unconfirmed_message_does_not_count_as_taken(monkeypatch: pytest.MonkeyPatch, reply: Reply) -> None:
    """Only a deferral leaves its user waiting for an answer."""
    async with answering(monkeypatch, reply):
        with pytest.raises(UnreachableError) as raised:
            await acknowledge(MESSAGE)
    assert TOKEN not in str(raised.value)
