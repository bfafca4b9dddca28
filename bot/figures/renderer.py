"""The one lane on which pictures are drawn, and the memory of those that never change."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bot.figures.drawing import fonts
from bot.figures.weights import matrix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from bot.figures.disk_cache import Shelf
    from bot.figures.drawing.picture import Picture

CACHE_BYTES = 32 * 1024 * 1024


class Renderer:
    """Draws pictures one after another on a thread of its own, and keeps those that never change.

    It belongs to one event loop and one owner, who calls `close`.

    Args:
        cache_bytes: How many bytes of PNG to keep in memory; the picture that was not asked for longest goes first.
        shelf: Keeps them on disk, too.
    """

    def __init__(self, *, cache_bytes: int = CACHE_BYTES, shelf: Shelf | None = None) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="figures")
        self._cache_bytes = cache_bytes
        self._shelf = shelf
        self._kept: OrderedDict[Hashable, Picture] = OrderedDict()
        self._kept_bytes = 0
        self._making: dict[Hashable, asyncio.Task[Picture]] = {}

    async def render(self, draw: Callable[[], Picture]) -> Picture:
        """The picture that `draw` makes."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, draw)

    async def kept(self, key: Hashable, make: Callable[[], Awaitable[Picture]]) -> Picture:
        """The picture kept under `key`, or the one that `make` makes, which is kept from now on.

        Callers with the same key at the same time share one making, which goes on when one of them is cancelled.
        What `make` raises is raised to all of them and not kept.

        Args:
            key: Its `repr` tells it from every other key, after a restart, too.
            make: Reads the values and has them drawn with `render`.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._making:
            self._making[key] = asyncio.create_task(self._taken_or_made(key, make), name="make a picture")
            self._making[key].add_done_callback(partial(self._finish, key))
        return await asyncio.shield(self._making[key])

    async def warm(self) -> None:
        """Load the fonts and draw once, so that the first user does not wait for it."""
        await self.render(_warm)

    def close(self) -> None:
        """Let the picture being drawn finish, drop those that wait, and end the thread."""
        self._executor.shutdown(cancel_futures=True)

    async def _taken_or_made(self, key: Hashable, make: Callable[[], Awaitable[Picture]]) -> Picture:
        if self._shelf is None:
            return await make()
        # Not on the thread that draws: it may be busy for a second, and a kept picture is there in a millisecond.
        picture = await asyncio.to_thread(self._shelf.take, key)
        if picture is None:
            picture = await make()
            with contextlib.suppress(RuntimeError):  # closed in the meantime: then it is drawn again one day
                self._executor.submit(self._shelf.put, key, picture)
        return picture

    def _finish(self, key: Hashable, made: asyncio.Task[Picture]) -> None:
        del self._making[key]
        if not made.cancelled() and made.exception() is None:
            self._keep(key, made.result())

    def _keep(self, key: Hashable, picture: Picture) -> None:
        if len(picture.png) > self._cache_bytes:
            return
        self._kept[key] = picture
        self._kept_bytes += len(picture.png)
        while self._kept_bytes > self._cache_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.png)


def _warm() -> Picture:
    fonts.warm()
    whole = range(2)
    eye = np.eye(2, dtype=np.float32)
    return matrix(eye, name="warm", rows=whole, columns=whole, shape=(2, 2), dtype="float32", style="clear")
