"""Whose turn it is: a queue in which everybody gets the same share, however much some of them ask for."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Entry(Generic[T]):
    item: T
    start_tag: float  # the share its owner has had when it begins


class FairQueue(Generic[T]):
    """Start-time fair queueing (Goyal, Vin and Cheng, 1996).

    Every owner gets the same amount of work done while several have something waiting, whoever sends much only waits
    for himself, and nobody waits for ever. It may be used from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Entry[T]] = []
        self._virtual_time = 0.0  # the share that everyone with something waiting has had
        self._finish_tags: dict[Hashable, float] = {}  # the share an owner has had when all that is his is done

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, item: T, owner: Hashable, cost: float) -> None:
        """Let `item` wait.

        Args:
            item: Told from others by identity.
            owner: Whose share it takes; None shares with all others of None.
            cost: How much work it is, in any unit; more than 0.
        """
        with self._lock:
            tag = max(self._virtual_time, self._finish_tags.get(owner, 0.0))
            self._finish_tags[owner] = tag + cost
            self._waiting.append(_Entry(item, tag))

    def ordered(self) -> list[T]:
        """Those who wait, in the order in which it will be their turn."""
        with self._lock:
            return [entry.item for entry in sorted(self._waiting, key=lambda entry: entry.start_tag)]

    def take(self, item: T) -> None:
        """It is the turn of `item`, which waits.

        Raises:
            ValueError: It does not wait.
        """
        with self._lock:
            entry = next((entry for entry in self._waiting if entry.item is item), None)
            if entry is None:
                raise ValueError("what does not wait cannot be taken")
            self._waiting.remove(entry)
            self._virtual_time = max(self._virtual_time, entry.start_tag)
            # Who has had no more than his share so far needs no memory of it.
            self._finish_tags = {who: tag for who, tag in self._finish_tags.items() if tag > self._virtual_time}

    def leave(self, item: T) -> None:
        """`item`, which may wait, does not want its turn any more."""
        with self._lock:
            self._waiting = [entry for entry in self._waiting if entry.item is not item]

    def clear(self) -> list[T]:
        """Let nobody wait any more; returns who did."""
        with self._lock:
            gone, self._waiting = [entry.item for entry in self._waiting], []
            return gone
