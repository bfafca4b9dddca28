"""An answer that grows before its reader's eyes, within what Discord allows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import discord
import structlog

if TYPE_CHECKING:
    from bot.gpt2.engine import Ticket
    from bot.gpt2.requests import Continuation, Update
    from bot.interactions.reply import Reply

EDIT_SECONDS: Final = 1.0
"""From when Discord has taken one edit to the next, so that a slow Discord is not hurried. It has been seen to allow 5
in 2 s; discord.py heeds what it says."""

FIRST_EDIT_SECONDS: Final = 0.8
"""What is done by then is shown at once and whole."""

RESERVE_SECONDS: Final = 30.0
"""What must be left of an interaction's 15 minutes for the last edit."""

_NOBODY_IS_THERE: Final = frozenset({401, 404})  # the interaction is over, or somebody has deleted the message

log = structlog.get_logger(__name__)


Wait = Callable[["asyncio.Future[Any]", float], Awaitable[object]]
"""Waits for a number of seconds, or until a result is there."""


async def wait_for_result(result: asyncio.Future[Any], seconds: float) -> None:
    """Wait by the event loop's clock."""
    await asyncio.wait({result}, timeout=seconds)


async def followed(
    ticket: Ticket, reply: Reply, show: Callable[[Update], discord.ui.LayoutView], wait: Wait = wait_for_result
) -> tuple[Continuation, bool]:
    """The result of a ticket, whose progress is shown meanwhile, and whether Discord's 15 minutes have ended it.

    When this returns, no edit is under way: the next one is the last.

    Raises:
        UserError: There is no result.
        discord.HTTPException: The message is gone, or the interaction is over.
    """
    result = asyncio.ensure_future(ticket.result())
    showing = asyncio.create_task(_show(ticket, result, reply, show, wait), name="show progress")
    try:
        await asyncio.wait({result, showing}, timeout=_patience(reply), return_when=asyncio.FIRST_EXCEPTION)
        late = not result.done() and not showing.done()
        ticket.stop()  # late, or nobody is there to read it; where it is done, nothing
        await showing
        return await result, late
    finally:
        ticket.abandon()
        showing.cancel()
        result.cancel()


async def _show(
    ticket: Ticket,
    result: asyncio.Future[Continuation],
    reply: Reply,
    show: Callable[[Update], discord.ui.LayoutView],
    wait: Wait,
) -> None:
    await wait(result, FIRST_EDIT_SECONDS)
    async for update in ticket.updates():
        if result.done():
            continue  # the updates end by themselves
        try:
            await reply.update(show(update))
        except (discord.HTTPException, OSError) as error:
            if isinstance(error, discord.HTTPException) and error.status in _NOBODY_IS_THERE:
                raise
            log.info("an intermediate state could not be shown", error=str(error))
        await wait(result, EDIT_SECONDS)


def _patience(reply: Reply) -> float:
    return max(0.0, reply.seconds_left - RESERVE_SECONDS)
