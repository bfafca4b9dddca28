"""Huge memory pages for the weights, which are read from end to end for every token.

A token of GPT-2 small reads 475 MiB of weights: 120,000 address translations with pages of 4 KiB, 240 with pages of
2 MiB. Linux grants huge pages on request; on other systems nothing happens.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_HUGE_PAGE: Final = 2 * 2**20
_MADV_HUGEPAGE: Final = 14  # <linux/mman.h>: may be done later
_MADV_COLLAPSE: Final = 25  # since Linux 6.1: now


def use_huge_pages(address: int, size: int) -> None:
    """Request huge pages for the memory from `address` to `address + size`; its contents stay the same."""
    madvise = _madvise()
    if madvise is None or size < _HUGE_PAGE:
        return
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + size - begin) // mmap.PAGESIZE * mmap.PAGESIZE
    for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
        # A refusal (old kernel, fragmented memory, huge pages disabled) leaves the pages as they were.
        madvise(begin, length, advice)


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    function.restype = ctypes.c_int
    return function
