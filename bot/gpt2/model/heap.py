"""Memory of the C library's heap, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def trim() -> None:
    """Give freed memory back to the system, where the C library is glibc; elsewhere do nothing.

    A model's matrices are too small for glibc to map one by one. Freed, most of their memory would stay with this
    process, in which the next model may be loaded by another thread and so from another part of the heap.
    """
    if sys.platform.startswith("linux"):
        trimming = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trimming is not None:
            trimming(0)
