"""The way of an interaction, with a journal on disk and a Discord that takes everything."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import discord
import pytest
import structlog

from bot.errors import DeviceLostError, UnavailableError
from bot.interactions.journal import Journal
from bot.interactions.pipeline import Pipeline
from bot.interactions.quotas import Quotas
from bot.interactions.reply import Reply
from bot.interactions.request_log import LogEntry, Outcome
from bot.text import say
from bot.ui.locales import Catalogue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = Journal(tmp_path / "journal")
    await journal.open()
    yield journal
    await journal.close()


class Way:
    """A pipeline whose commands do what a test says, and what came of each."""

    def __init__(self, journal: Journal, command: Callable[[Reply], Awaitable[None]]) -> None:
        async def dispatch(interaction: discord.Interaction) -> None:
            await command(Reply.of(interaction))

        self.journal = journal
        self.pipeline = Pipeline(dispatch, Catalogue({}), journal, Quotas(per_person=1))
        self.ended: list[LogEntry] = []
        self._news = asyncio.Event()
        self.pipeline.request_log.observers.append(self._end)
        self.said: list[str] = []

    def receive(self, number: int) -> None:
        """Bring an interaction in as the gateway does."""
        self.pipeline.receive(self._interaction(number), {"id": str(number), "token": "x"})

    async def outcomes(self, count: int) -> list[Outcome]:
        """Return how the first `count` requests ended."""
        async with asyncio.timeout(5):
            while len(self.ended) < count:
                self._news.clear()
                await self._news.wait()
        return [entry.outcome for entry in self.ended]

    async def rows(self) -> list[int]:
        """Return the interactions that the journal has."""
        return [entry.id for entry in await self.journal.entries()]

    def _end(self, entry: LogEntry) -> None:
        self.ended.append(entry)
        self._news.set()

    def _interaction(self, number: int) -> Any:
        done: list[bool] = []

        async def defer(**_: Any) -> None:
            done.append(True)

        async def send(content: str, **_: Any) -> None:
            done.append(True)
            self.said.append(content)

        async def edit(content: str = "", **_: Any) -> None:
            self.said.append(content)

        async def delete() -> None:
            pass

        return SimpleNamespace(
            id=number,
            extras={},
            data={"name": "about-to-run"},
            type=discord.InteractionType.application_command,
            command=None,
            user=SimpleNamespace(id=7),
            guild_id=None,
            channel=None,
            locale=discord.Locale.american_english,
            response=SimpleNamespace(is_done=lambda: bool(done), defer=defer, send_message=send),
            followup=SimpleNamespace(send=send),
            edit_original_response=edit,
            delete_original_response=delete,
        )


async def nothing() -> None:
    """Check nothing."""


async def test_an_answered_request_leaves_nothing_behind(journal: Journal) -> None:
    async def command(reply: Reply) -> None:
        await reply.checked(nothing())
        assert await way.rows() == [reply.interaction.id]
        await reply.tell(say("Done."))

    way = Way(journal, command)
    for number in (1, 2):  # the quota of one is free again
        way.receive(number)
        await way.outcomes(number)
    assert [entry.outcome for entry in way.ended] == [Outcome.ANSWERED] * 2
    assert way.said == ["Done."] * 2
    assert not await way.rows()
    assert not len(way.pipeline.pending)


async def test_a_second_request_beyond_the_quota_is_refused(journal: Journal) -> None:
    release = asyncio.Event()

    async def command(reply: Reply) -> None:
        await reply.checked(nothing())
        await release.wait()
        await reply.tell(say("Done."))

    way = Way(journal, command)
    way.receive(1)
    way.receive(2)
    assert await way.outcomes(1) == [Outcome.REFUSED]
    assert "already have 1 requests running" in way.said[0]
    release.set()
    assert await way.outcomes(2) == [Outcome.REFUSED, Outcome.ANSWERED]


async def test_a_cancelled_request_stays_in_the_journal(journal: Journal) -> None:
    begun = asyncio.Event()

    async def command(reply: Reply) -> None:
        await reply.checked(nothing())
        begun.set()
        await asyncio.Event().wait()

    way = Way(journal, command)
    way.receive(1)
    await begun.wait()
    for task in way.pipeline._tasks:
        task.cancel()
    assert await way.outcomes(1) == [Outcome.CANCELLED]
    assert await way.rows() == [1]


@pytest.mark.parametrize(
    ("error", "outcome", "words"),
    [
        (UnavailableError(say("Not now.")), Outcome.REFUSED, "Not now."),
        (ZeroDivisionError(), Outcome.FAILED, "Something went wrong on my side."),
    ],
)
async def test_every_error_is_answered_and_settled(
    journal: Journal, error: Exception, outcome: Outcome, words: str
) -> None:
    async def command(reply: Reply) -> None:
        await reply.checked(nothing())
        raise error

    way = Way(journal, command)
    with structlog.testing.capture_logs() as lines:
        way.receive(1)
        assert await way.outcomes(1) == [outcome]
    assert words in way.said[-1]
    failures = [line for line in lines if line["event"] == "a command failed"]
    assert [line["reference"] for line in failures] == [way.ended[0].reference] * (outcome is Outcome.FAILED)
    assert not await way.rows()


async def test_an_acknowledgement_that_fails_owes_nothing(journal: Journal) -> None:
    async def command(reply: Reply) -> None:
        async def fail(**_: Any) -> None:
            raise OSError

        reply.interaction.response.defer = fail  # type: ignore[method-assign]
        await reply.checked(nothing())

    way = Way(journal, command)
    way.receive(1)
    await way.outcomes(1)
    assert not await way.rows()


async def test_after_shut_down_everything_is_refused(journal: Journal) -> None:
    async def command(_: Reply) -> None:
        raise AssertionError

    way = Way(journal, command)
    way.pipeline.shut_down()
    way.receive(1)
    assert await way.outcomes(1) == [Outcome.REFUSED]
    assert way.said


async def test_without_a_gpu_a_request_is_left_to_the_next_start(journal: Journal) -> None:
    failed = asyncio.Event()

    async def command(reply: Reply) -> None:
        await reply.checked(nothing())
        failed.set()
        raise DeviceLostError("The GPU failed.")

    way = Way(journal, command)
    way.receive(1)
    await failed.wait()
    await journal.count_attempt([1])  # as by the start that has taken it over
    assert not way.said, "it waits for the shutdown"
    await way.pipeline.pending.postpone(harmful=True)
    await way.outcomes(1)
    assert len(way.said) == 1, "the notice alone"
    (row,) = await journal.entries()
    assert (row.id, row.attempts) == (1, 1), "it may be the cause, so the attempt counts"


async def test_without_gpu_and_journal_a_request_is_refused() -> None:
    failed = asyncio.Event()

    async def command(reply: Reply) -> None:
        await reply.checked(nothing())
        failed.set()
        raise DeviceLostError("The GPU failed.")

    way = Way(Journal(None), command)
    way.receive(1)
    await failed.wait()
    assert not way.said
    await way.pipeline.pending.postpone()
    assert await way.outcomes(1) == [Outcome.REFUSED]
    assert "I'm shutting down" in "".join(way.said)


async def test_without_a_gpu_a_new_request_is_refused_at_once(journal: Journal) -> None:
    async def command(_: Reply) -> None:
        raise DeviceLostError("The GPU failed.")

    way = Way(journal, command)
    way.receive(1)
    assert await way.outcomes(1) == [Outcome.REFUSED]
    assert "I'm shutting down" in "".join(way.said)
