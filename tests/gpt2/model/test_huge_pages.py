"""Huge pages are for memory that is in use, and change nothing in it."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
import threading
from pathlib import Path

import pytest

from bot.gpt2.model import huge_pages
from bot.gpt2.model.huge_pages import HUGE_PAGE, pages_in_use, use_huge_pages

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them on request")


def mapping(memory: mmap.mmap) -> tuple[int, int]:
    """Return the mapping in /proc/self/maps that this memory is a part of."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return next((begin, end) for begin, end in huge_pages._mappings() if begin <= address < end)


def advised(begin: int, end: int) -> bool:
    """Return whether huge pages were requested for some of this memory: the flag "hg" in /proc/self/smaps."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) < end and int(found[2], 16) > begin
        elif inside and line.startswith("VmFlags:") and "hg" in line.split():
            return True
    return False


@linux
def test_memory_in_use_gets_them_and_keeps_its_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 6 * HUGE_PAGE
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    contents = bytes(range(256)) * (size // 256)
    memory[:] = contents
    whole = mapping(memory)
    monkeypatch.setattr(huge_pages, "_mappings", lambda: iter([whole]))
    pages = pages_in_use()
    assert len(pages) >= 5, "all but what is cut off at both ends"
    use_huge_pages(pages, threading.Event())
    assert memory[:] == contents


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="this kernel has none")
@pytest.mark.parametrize("stopping", [True, False])
def test_it_ends_when_stopped(monkeypatch: pytest.MonkeyPatch, *, stopping: bool) -> None:
    memory = mmap.mmap(-1, 4 * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = bytes(len(memory))
    whole = mapping(memory)
    monkeypatch.setattr(huge_pages, "_mappings", lambda: iter([whole]))
    stopped = threading.Event()
    if stopping:
        stopped.set()
    use_huge_pages(pages_in_use(), stopped)
    assert advised(*whole) is not stopping


@linux
def test_memory_that_is_not_in_use_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = mmap.mmap(-1, 8 * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for begin in range(0, len(memory), HUGE_PAGE):
        memory[begin] = 1  # of each huge page one small page
    whole = mapping(memory)
    monkeypatch.setattr(huge_pages, "_mappings", lambda: iter([whole]))
    before = pages_in_use()
    memory[: 4 * HUGE_PAGE] = bytes(4 * HUGE_PAGE)
    assert 3 <= len(pages_in_use() - before) <= 4


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert pages_in_use() == set()
    use_huge_pages(set(), threading.Event())
