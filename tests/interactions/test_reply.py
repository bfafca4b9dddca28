"""The one answer to an interaction, where Discord does not take its first word."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, Final, cast

import discord
import pytest

from bot.interactions.reply import NEXT_STATES, Reply, ReplyState
from bot.text import say
from bot.ui.locales import Catalogue


class Owed(set[Reply]):
    """The replies that are owed."""

    async def add(self, reply: Reply) -> None:  # type: ignore[override]
        super().add(reply)


@pytest.mark.parametrize("late", [False, True], ids=["after the check", "while it is checked"])
async def test_a_refused_acknowledgement_undoes_the_check(*, late: bool) -> None:
    acknowledging, accepted = asyncio.Event(), asyncio.Event()
    undone: list[str] = []
    owed = Owed()

    async def check() -> str:
        if late:
            await acknowledging.wait()
        accepted.set()
        return "a place in the queue"

    async def expired(**_: Any) -> None:
        acknowledging.set()
        await accepted.wait()
        raise discord.NotFound(SimpleNamespace(status=404, reason="Not Found"), {"code": 10062, "message": "Unknown"})

    interaction: Any = SimpleNamespace(extras={}, response=SimpleNamespace(is_done=lambda: False, defer=expired))
    with pytest.raises(discord.NotFound):
        await Reply(interaction, {}, Catalogue({}), owed).checked(check(), undo=undone.append)
    assert undone == ["a place in the queue"]
    assert not owed


async def test_a_refused_acknowledgement_cancels_the_check() -> None:
    cancelled = asyncio.Event()

    async def check() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def expired(**_: Any) -> None:
        raise discord.NotFound(SimpleNamespace(status=404, reason="Not Found"), {"code": 10062, "message": "Unknown"})

    interaction: Any = SimpleNamespace(extras={}, response=SimpleNamespace(is_done=lambda: False, defer=expired))
    with pytest.raises(discord.NotFound):
        await Reply(interaction, {}, Catalogue({}), Owed()).checked(check())
    async with asyncio.timeout(5):
        await cancelled.wait()


STATES: Final = list(ReplyState)


@pytest.mark.parametrize("state", STATES)
async def test_only_listed_transitions_are_possible(state: ReplyState) -> None:
    for target in STATES:
        reply = Reply(cast("Any", SimpleNamespace(extras={})), {}, Catalogue({}), Owed())
        reply.state = state
        if target in NEXT_STATES[state]:
            reply._enter(target)
            assert reply.state is target
        else:
            with pytest.raises(RuntimeError, match=f"from {state.name} to {target.name}"):
                reply._enter(target)


async def test_a_postponed_reply_stays_in_the_journal() -> None:
    owed = Owed()
    reply = Reply.resumed(acknowledged(), {}, Catalogue({}), owed, private=False, age=0.0)
    await owed.add(reply)
    assert reply.postpone()
    await reply.give(cast("Any", None))
    await reply.refuse(say("No."))
    reply.settle()
    assert reply.state is ReplyState.POSTPONED
    assert reply in owed


async def test_an_acknowledgement_that_fails_after_a_shutdown_raises_its_own_error() -> None:
    async def fail(**_: Any) -> None:
        assert reply.postpone()
        raise OSError("Discord is away")

    interaction: Any = SimpleNamespace(extras={}, response=SimpleNamespace(is_done=lambda: False, defer=fail))
    reply = Reply(interaction, {}, Catalogue({}), Owed())
    with pytest.raises(OSError, match="Discord is away"):
        await reply.acknowledge()
    assert reply.state is ReplyState.POSTPONED


def acknowledged() -> Any:
    """Return an interaction on which any call to Discord would fail."""
    return SimpleNamespace(extras={}, response=SimpleNamespace(is_done=lambda: True))


async def test_a_picture_that_cannot_move_stays() -> None:
    """Whatever is said instead of a new picture is said in private, and the message is left alone."""
    said: list[tuple[str, bool]] = []

    async def send(sentence: str, *, ephemeral: bool) -> None:
        said.append((sentence, ephemeral))

    for say_it in (Reply.refuse, Reply.tell, Reply.announce):
        interaction = acknowledged()
        interaction.locale, interaction.followup = discord.Locale.american_english, SimpleNamespace(send=send)
        reply = Reply.resumed(interaction, {}, Catalogue({}), Owed(), private=False, in_place=True, age=0.0)
        assert interaction.response._response_type is discord.InteractionResponseType.deferred_message_update
        await say_it(reply, say("Not now."))
    assert said == [("Not now.", True)] * 3
