"""Allocation of ranges of consecutive numbers."""

from __future__ import annotations


class Ranges:
    """The free ones of consecutive numbers; the first range that is long enough is taken."""

    def __init__(self, numbers: range) -> None:
        self._free = [numbers]

    @property
    def longest(self) -> int:
        """The length of the longest free range."""
        return max(map(len, self._free), default=0)

    def take(self, length: int) -> range | None:
        """Return a free range of this length, which is taken from now on; None if there is none."""
        for index, free in enumerate(self._free):
            if len(free) >= length:
                self._free[index : index + 1] = [free[length:]] if free[length:] else []
                return free[:length]
        return None

    def give_back(self, taken: range) -> None:
        """Free a range that was taken."""
        merged: list[range] = []
        for free in sorted([*self._free, taken], key=lambda each: each.start):
            if merged and merged[-1].stop == free.start:
                merged[-1] = range(merged[-1].start, free.stop)
            else:
                merged.append(free)
        self._free = merged
