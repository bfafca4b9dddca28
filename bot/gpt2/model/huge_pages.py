"""Huge memory pages for the weights, which are read from end to end for every token.

A token of GPT-2 small reads 475 MiB of weights, and each of its drafts 119 MiB: with pages of 4 KiB these are 152,000
address translations, with pages of 2 MiB 300. Linux grants huge pages on request; on other systems nothing happens.
The matrices lie where PyTorch's libraries put them, so the request is for all memory that loading the model has taken.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterator

HUGE_PAGE: Final = 2 * 2**20
LEAST_BYTES: Final = 32 * 2**20
"""Size of the weights of a model from which on they are worth the time: smaller ones stay in the processor's cache."""

_MADV_HUGEPAGE: Final = 14  # <linux/mman.h>: may be done later
_MADV_COLLAPSE: Final = 25  # since Linux 6.1: now
# Memory that can be written and belongs to no file: addresses, rights, offset, device, inode 0, perhaps a name.
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0(?: +\[(?:heap|anon:.*)\])?")


def pages_in_use() -> set[int]:
    """Return the addresses at which this process uses memory of the size of a huge page as a whole; empty off Linux."""
    if not sys.platform.startswith("linux"):
        return set()
    mincore = ctypes.CDLL(None).mincore
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    pages = ctypes.create_string_buffer(HUGE_PAGE // mmap.PAGESIZE)
    in_use = int.from_bytes(b"\1" * len(pages))  # the lowest bit of each byte: the others are undefined
    return {
        address
        for begin, end in _mappings()
        for address in range(-(-begin // HUGE_PAGE) * HUGE_PAGE, end - HUGE_PAGE + 1, HUGE_PAGE)
        # A hole would be filled, which takes memory.
        if mincore(address, HUGE_PAGE, pages) == 0 and int.from_bytes(pages.raw) & in_use == in_use
    }


def use_huge_pages(addresses: Collection[int], stopped: threading.Event) -> None:
    """Request huge pages at these of `pages_in_use`; the contents stay the same, and other threads may use them.

    Takes 4 ms each, until `stopped` is set: the memory may be freed then. A refusal (old kernel, fragmented memory,
    huge pages disabled) leaves the memory as it is.
    """
    if not addresses:
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for address in sorted(addresses):
        if stopped.is_set():
            return
        for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
            madvise(address, HUGE_PAGE, advice)


def _mappings() -> Iterator[tuple[int, int]]:
    """Yield where each of the process's own mappings begins and ends."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if found := _MAPPING.fullmatch(line.rstrip()):
            yield int(found[1], 16), int(found[2], 16)
