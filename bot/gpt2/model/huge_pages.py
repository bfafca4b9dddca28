"""Large memory pages for what is read from end to end for every token.

A token of GPT-2 small reads 475 MiB of weights. In pages of 4 KiB the processor looks up 120,000 addresses on the way;
in pages of 2 MiB, 240. Linux gives them to whoever asks; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_HUGE_PAGE: Final = 2 * 2**20
_MADV_HUGEPAGE: Final = 14  # <linux/mman.h>
_MADV_COLLAPSE: Final = 25  # since Linux 6.1: now, where the other only says what may be done later

log = structlog.get_logger(__name__)


def use_huge_pages(address: int, size: int) -> None:
    """Ask for the pages between `address` and `address + size` to be large; their contents stay as they are."""
    madvise = _madvise()
    if madvise is None or size < _HUGE_PAGE:
        return
    begin = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + size - begin) // mmap.PAGESIZE * mmap.PAGESIZE
    for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
        # Refusals (an old kernel, memory in fragments, pages switched off) leave the pages as they were.
        madvise(begin, length, advice)


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    function.restype = ctypes.c_int
    return function
