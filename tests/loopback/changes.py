"""Waiting for something to become true, without sleeping."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Changes:
    """A condition that wakes its waiters when anything in the simulated Discord changes."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def announce(self) -> None:
        """Say that something changed."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, predicate: Callable[[], T], *, within: float, what: str | Callable[[], str]) -> T:
        """Return the predicate's value as soon as it is true.

        Args:
            predicate: Asked now, and again after every change.
            within: Seconds until TimeoutError.
            what: What is waited for, as the error shall say it.
        """
        deadline = asyncio.get_running_loop().time() + within
        while not (value := predicate()):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                said = what if isinstance(what, str) else what()
                raise TimeoutError(f"not within {within:g} s: {said}") from None
            finally:
                self._waiters.discard(waiter)
        return value
