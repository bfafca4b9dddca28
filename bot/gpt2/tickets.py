"""The part of a ticket that every engine shares: an asyncio task computes the answer, and updates follow its state."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bot.gpt2.requests import Continuation, ContinuationRequest, Update


class TaskTicket(ABC):
    """Base class of tickets; see `bot.gpt2.engine.Ticket`.

    Attributes:
        request: The accepted request.
        task: The task that computes the answer; the engine sets it once the ticket exists.
        changed: Set by the engine whenever `current` may return something new.
    """

    task: asyncio.Task[Continuation]

    def __init__(self, request: ContinuationRequest) -> None:
        self.request = request
        self.changed = asyncio.Event()

    @abstractmethod
    async def current(self) -> Update | None:
        """Return the state of the request, or None if there is nothing to report yet."""

    @abstractmethod
    def stop(self) -> None:
        """See `Ticket.stop`."""

    async def updates(self) -> AsyncIterator[Update]:
        """See `Ticket.updates`."""
        last: Update | None = None
        while not self.task.done():
            self.changed.clear()
            update = await self.current()
            if update is not None and update != last:
                last = update
                yield update
            else:
                await first_of(self.changed, self.task)

    async def result(self) -> Continuation:
        """See `Ticket.result`."""
        return await asyncio.shield(self.task)

    def abandon(self) -> None:
        """See `Ticket.abandon`."""
        self.stop()
        self.task.add_done_callback(_ignore_error)


async def first_of(event: asyncio.Event, task: asyncio.Task[Continuation]) -> None:
    """Wait until the event is set or the task is done."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _ignore_error(task: asyncio.Task[Continuation]) -> None:
    if not task.cancelled():
        task.exception()  # or asyncio would log that it was never retrieved
