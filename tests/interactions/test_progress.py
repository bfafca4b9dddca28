"""An answer that grows, from a real engine into a reply that is only written down."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import discord
import pytest

from bot.gpt2.requests import ContinuationRequest, Progress, SamplingParams
from bot.interactions import progress
from bot.interactions.progress import follow, while_shown

if TYPE_CHECKING:
    from bot.gpt2.local.engine import LocalEngine, LocalTicket

LONG = ContinuationRequest("Hello", SamplingParams(1, samples=10, length=120))


@dataclass
class Written:
    """The part of a reply that `follow` uses."""

    seconds_left: float = 900.0
    refusal: Exception | None = None
    updates: list[Any] = field(default_factory=list)

    async def update(self, shown: Any) -> None:
        self.updates.append(shown)
        if self.refusal:
            raise self.refusal


def refusal(status: int) -> discord.HTTPException:
    kind = discord.NotFound if status == 404 else discord.HTTPException
    return kind(SimpleNamespace(status=status, reason=""), {"code": 0, "message": ""})


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_EDIT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "EDIT_SECONDS", 0.0)


async def follow_long(engine: LocalEngine, reply: Written) -> tuple[Any, bool, LocalTicket]:
    ticket = await engine.submit(LONG)
    return *await follow(ticket, reply, lambda update: update), ticket


async def test_the_samples_grow_and_then_are_whole(engine: LocalEngine) -> None:
    reply = Written()
    continuation, late, _ = await follow_long(engine, reply)
    assert not late
    assert not continuation.stopped
    grown = [update for update in reply.updates if isinstance(update, Progress)]
    assert grown
    for earlier, later in zip(grown, [*grown[1:], continuation], strict=True):
        texts = later.texts if isinstance(later, Progress) else [sample.text for sample in later.samples]
        assert all(text.startswith(begin) for begin, text in zip(earlier.texts, texts, strict=True))


async def test_the_end_of_discords_15_minutes_stops_it(engine: LocalEngine) -> None:
    continuation, late, _ = await follow_long(engine, Written(seconds_left=progress.RESERVE_SECONDS))
    assert late
    assert continuation.stopped
    assert continuation.new_tokens < 1200


@pytest.mark.parametrize("status", [401, 404])
async def test_what_nobody_can_see_is_computed_no_further(engine: LocalEngine, status: int) -> None:
    reply = Written(refusal=refusal(status))
    ticket = await engine.submit(LONG)
    with pytest.raises(discord.HTTPException):
        await follow(ticket, reply, lambda update: update)
    assert len(reply.updates) == 1
    assert (await ticket.result()).stopped


@pytest.mark.parametrize("error", [refusal(500), OSError()])
async def test_an_edit_that_is_lost_does_no_harm(engine: LocalEngine, error: Exception) -> None:
    continuation, _, _ = await follow_long(engine, Written(refusal=error))
    assert not continuation.stopped


async def test_no_edit_overlaps_the_last_one(engine: LocalEngine) -> None:
    class Slow(Written):
        under_way = 0

        async def update(self, shown: Any) -> None:
            self.under_way += 1
            assert self.under_way == 1
            await asyncio.sleep(0.05)
            self.under_way -= 1
            await super().update(shown)

    reply = Slow()
    await follow_long(engine, reply)
    assert reply.updates
    assert not reply.under_way


async def test_a_view_stands_in_the_message_while_work_goes_on() -> None:
    reply, enough = Written(), asyncio.Event()

    async def work() -> str:
        await enough.wait()
        return "done"

    def wait(result: asyncio.Future[Any], _: float) -> Any:
        if len(reply.updates) == 3:
            enough.set()
        return asyncio.wait({result}, timeout=0.001)

    assert await while_shown(work(), reply, "view", wait) == "done"
    assert set(reply.updates) == {"view"}
    assert len(reply.updates) >= 3


async def test_quick_work_is_shown_at_once() -> None:
    async def work() -> str:
        return "done"

    reply = Written()
    assert await while_shown(work(), reply, "view", lambda result, _: asyncio.wait({result})) == "done"
    assert not reply.updates


@pytest.mark.parametrize(("status", "stopped"), [(401, True), (404, True), (500, False)])
async def test_work_ends_with_its_message(status: int, stopped: bool) -> None:
    reply, end = Written(refusal=refusal(status)), asyncio.Event()
    ended = []

    async def work() -> None:
        try:
            await end.wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    def wait(result: asyncio.Future[Any], _: float) -> Any:
        if len(reply.updates) > 2:
            end.set()
        return asyncio.wait({result}, timeout=0.001)

    if stopped:
        with pytest.raises(discord.HTTPException):
            await while_shown(work(), reply, "view", wait)
        await asyncio.sleep(0)
    else:
        await while_shown(work(), reply, "view", wait)
    assert ended == (["cancelled"] if stopped else [])
