"""Live progress: an answer that grows in its message, as often as Discord allows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

import discord
import structlog

if TYPE_CHECKING:
    from bot.gpt2.engine import Ticket
    from bot.gpt2.requests import Continuation, Update
    from bot.interactions.reply import Reply

EDIT_SECONDS: Final = 1.0
"""Seconds between the response to one edit and the next edit, so that a slow Discord is not overrun.

Discord has been seen to allow 5 edits in 2 s; discord.py obeys its rate limits."""

FIRST_EDIT_SECONDS: Final = 0.8
"""An answer that is complete by then is shown at once, without progress."""

RESERVE_SECONDS: Final = 30.0
"""The part of an interaction's 15 minutes that is kept for the last edit."""

_GONE: Final = frozenset({401, 404})  # HTTP statuses: the interaction is over, or the message was deleted

T = TypeVar("T")

log = structlog.get_logger(__name__)


Wait = Callable[["asyncio.Future[Any]", float], Awaitable[object]]
"""Waits for a number of seconds, or until a result is there."""


async def wait_for_result(result: asyncio.Future[Any], seconds: float) -> None:
    """Wait by the event loop's clock."""
    await asyncio.wait({result}, timeout=seconds)


async def follow(
    ticket: Ticket, reply: Reply, show: Callable[[Update], discord.ui.LayoutView], wait: Wait = wait_for_result
) -> tuple[Continuation, bool]:
    """Show a ticket's progress; return its result and whether Discord's 15 minutes cut it short.

    No edit is in flight when this returns or raises, so the caller's edit is the last.

    Raises:
        UserError: The request has no result.
        discord.HTTPException: The message is gone, or the interaction is over.
    """
    result = asyncio.ensure_future(ticket.result())
    showing = asyncio.create_task(_show(ticket, result, reply, show, wait), name="show progress")
    try:
        await asyncio.wait({result, showing}, timeout=_patience(reply), return_when=asyncio.FIRST_EXCEPTION)
        late = not result.done() and not showing.done()
        ticket.stop()  # late, or the message is gone; has no effect on a finished one
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
            continue  # the updates are about to end
        try:
            await reply.update(show(update))
        except (discord.HTTPException, OSError) as error:
            if isinstance(error, discord.HTTPException) and error.status in _GONE:
                raise
            log.info("cannot show progress", error=str(error))
        await wait(result, EDIT_SECONDS)


async def while_shown(
    work: Coroutine[Any, Any, T], reply: Reply, view: discord.ui.LayoutView, wait: Wait = wait_for_result
) -> T:
    """Await work that takes seconds, with a view in its message; cancel the work when the message is gone.

    Raises:
        discord.HTTPException: The message is gone, or the interaction is over.
    """
    result = asyncio.ensure_future(work)
    try:
        await wait(result, FIRST_EDIT_SECONDS)
        while not result.done():
            try:
                await reply.update(view)
            except (discord.HTTPException, OSError) as error:
                if isinstance(error, discord.HTTPException) and error.status in _GONE:
                    raise
                log.info("cannot show progress", error=str(error))
            await wait(result, EDIT_SECONDS)
        return await result
    finally:
        result.cancel()


def _patience(reply: Reply) -> float:
    return max(0.0, reply.seconds_left - RESERVE_SECONDS)
