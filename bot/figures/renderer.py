"""The thread that draws pictures, and the cache of those that never change."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bot.figures.drawing import fonts
from bot.figures.drawing.picture import Picture
from bot.figures.weights import matrix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from bot.figures.disk_cache import DiskCache
    from bot.figures.drawing.picture import Drawing

CACHE_BYTES = 32 * 1024 * 1024


class Renderer:
    """A single drawing thread, with a cache of the pictures that never change.

    It belongs to one event loop; its owner calls `close`.

    Args:
        cache_bytes: Bytes of PNG to keep in memory; the least recently used picture is evicted first.
        disk_cache: Also keeps them on disk.
    """

    def __init__(self, *, cache_bytes: int = CACHE_BYTES, disk_cache: DiskCache | None = None) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="figures")
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="disk cache of pictures")
        self._cache_bytes = cache_bytes
        self._disk_cache = disk_cache
        self._cached: OrderedDict[Hashable, Picture] = OrderedDict()
        self._cached_bytes = 0
        self._making: dict[Hashable, asyncio.Task[Picture]] = {}

    async def render(self, draw: Callable[[], Picture | Drawing]) -> Picture:
        """Draw a picture on the thread and return it.

        Args:
            draw: Returns the picture, or a generator that draws it in steps. Other pictures may be drawn between the
                steps, and cancelling the call ends it after the current one.
        """
        loop = asyncio.get_running_loop()
        drawn = await loop.run_in_executor(self._executor, draw)
        while not isinstance(drawn, Picture):
            drawn = await loop.run_in_executor(self._executor, _advance, drawn)
        return drawn

    async def cached(self, key: Hashable, make: Callable[[], Awaitable[Picture]]) -> Picture:
        """Return the picture cached under `key`, or make and cache it.

        Concurrent callers with the same key share one call of `make`, which continues when one of them is cancelled.
        An exception of `make` reaches all of them and is not cached.

        Args:
            key: Its `repr` is unique, and stable across restarts.
            make: Reads the values and has them drawn with `render`.
        """
        if key in self._cached:
            self._cached.move_to_end(key)
            return self._cached[key]
        if key not in self._making:
            self._making[key] = asyncio.create_task(self._load_or_make(key, make), name="make a picture")
            self._making[key].add_done_callback(partial(self._finish, key))
        return await asyncio.shield(self._making[key])

    async def warm(self) -> None:
        """Load the fonts and draw once, so that the first user does not wait for either."""
        await self.render(_warm)

    def close(self) -> None:
        """Let the current picture finish, drop waiting ones, write to disk what was drawn, and end the threads."""
        self._executor.shutdown(cancel_futures=True)
        self._writer.shutdown()

    async def _load_or_make(self, key: Hashable, make: Callable[[], Awaitable[Picture]]) -> Picture:
        if self._disk_cache is None:
            return await make()
        # Not on the drawing thread: it may be busy for a second, and reading takes a millisecond.
        picture = await asyncio.to_thread(self._disk_cache.get, key)
        if picture is None:
            picture = await make()
            with contextlib.suppress(RuntimeError):  # closed in the meantime: the picture will be drawn again
                self._writer.submit(self._disk_cache.put, key, picture)
        return picture

    def _finish(self, key: Hashable, made: asyncio.Task[Picture]) -> None:
        del self._making[key]
        if not made.cancelled() and made.exception() is None:
            self._cache(key, made.result())

    def _cache(self, key: Hashable, picture: Picture) -> None:
        if len(picture.file) > self._cache_bytes:
            return
        self._cached[key] = picture
        self._cached_bytes += len(picture.file)
        while self._cached_bytes > self._cache_bytes:
            _, oldest = self._cached.popitem(last=False)
            self._cached_bytes -= len(oldest.file)


def _advance(drawing: Drawing) -> Picture | Drawing:
    """Draw the next step; return the picture after the last."""
    try:
        next(drawing)
    except StopIteration as end:
        picture: Picture = end.value
        return picture
    return drawing


def _warm() -> Picture:
    fonts.warm()
    whole = range(2)
    eye = np.eye(2, dtype=np.float32)
    return matrix(eye, name="warm", rows=whole, columns=whole, shape=(2, 2), dtype="float32", style="clear")
