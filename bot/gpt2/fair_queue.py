"""Fair scheduling between owners: each gets an equal share of the work, however much one of them submits."""

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
    start_tag: float  # virtual time at which its turn begins


class FairQueue(Generic[T]):
    """A thread-safe queue with start-time fair queueing (Goyal, Vin and Cheng, 1996).

    Owners with queued items get equal amounts of work done. Heavy users delay only their own requests, and nobody
    starves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[_Entry[T]] = []
        self._virtual_time = 0.0  # work done for each owner that has items queued
        self._finish_tags: dict[Hashable, float] = {}  # virtual time at which an owner's last item ends

    def __len__(self) -> int:
        """Return the number of queued items."""
        return len(self._entries)

    def add(self, item: T, owner: Hashable, cost: float) -> None:
        """Queue an item.

        Args:
            item: Compared by identity.
            owner: Whose share it takes; all items of owner None share one.
            cost: Amount of work in any unit, more than 0.
        """
        with self._lock:
            tag = max(self._virtual_time, self._finish_tags.get(owner, 0.0))
            self._finish_tags[owner] = tag + cost
            self._entries.append(_Entry(item, tag))

    def ordered(self) -> list[T]:
        """Return the queued items in scheduling order."""
        with self._lock:
            return [entry.item for entry in sorted(self._entries, key=lambda entry: entry.start_tag)]

    def take(self, item: T) -> None:
        """Dequeue an item to run it, and advance the virtual time.

        Raises:
            ValueError: The item is not queued.
        """
        with self._lock:
            entry = next((entry for entry in self._entries if entry.item is item), None)
            if entry is None:
                raise ValueError("an item that is not queued cannot be taken")
            self._entries.remove(entry)
            self._virtual_time = max(self._virtual_time, entry.start_tag)
            # An owner who has not used more than the common share needs no record.
            self._finish_tags = {owner: tag for owner, tag in self._finish_tags.items() if tag > self._virtual_time}

    def discard(self, item: T) -> None:
        """Remove an item that will not run, if it is queued."""
        with self._lock:
            self._entries = [entry for entry in self._entries if entry.item is not item]

    def clear(self) -> list[T]:
        """Empty the queue and return what was in it."""
        with self._lock:
            removed, self._entries = [entry.item for entry in self._entries], []
            return removed
