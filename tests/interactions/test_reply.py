"""The one answer to an interaction, where Discord does not take its first word."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import discord
import pytest

from bot.interactions.reply import Reply
from bot.ui.locales import Catalogue


class Promises:
    """What is owed, counted."""

    def __init__(self) -> None:
        self.owed = 0

    async def make(self, _: Reply, *, private: bool) -> None:
        self.owed += 1

    def keep(self, _: Reply) -> None:
        self.owed -= 1


@pytest.mark.parametrize("late", [False, True], ids=["after the check", "while it is checked"])
async def test_what_was_accepted_is_undone_where_discord_takes_no_acknowledgement(*, late: bool) -> None:
    acknowledging, accepted = asyncio.Event(), asyncio.Event()
    undone: list[str] = []
    promises = Promises()

    async def check() -> str:
        if late:
            await acknowledging.wait()
        accepted.set()
        return "a place in the queue"

    async def expired(**_: Any) -> None:
        acknowledging.set()
        await accepted.wait()
        raise discord.NotFound(SimpleNamespace(status=404, reason="Not Found"), {"code": 10062, "message": "Unknown"})

    interaction: Any = SimpleNamespace(response=SimpleNamespace(is_done=lambda: False, defer=expired))
    with pytest.raises(discord.NotFound):
        await Reply(interaction, Catalogue({}), promises).checked(check(), undo=undone.append)
    assert undone == ["a place in the queue"]
    assert promises.owed == 0


async def test_a_check_that_has_not_ended_by_then_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def check() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def expired(**_: Any) -> None:
        raise discord.NotFound(SimpleNamespace(status=404, reason="Not Found"), {"code": 10062, "message": "Unknown"})

    interaction: Any = SimpleNamespace(response=SimpleNamespace(is_done=lambda: False, defer=expired))
    with pytest.raises(discord.NotFound):
        await Reply(interaction, Catalogue({}), Promises()).checked(check())
    async with asyncio.timeout(5):
        await cancelled.wait()
