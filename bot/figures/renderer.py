"""The one lane on which pictures are drawn, and the memory of those that never change."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bot.figures import fonts
from bot.figures.weights import matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from bot.figures.picture import Picture

CACHE_BYTES = 32 * 1024 * 1024


class Renderer:
    """Draws pictures one after another on a thread of its own, and keeps those that were given a key.

    It belongs to one event loop and one owner, who calls `close`.

    Args:
        cache_bytes: How many bytes of PNG to keep; the picture that was not asked for longest goes first.
    """

    def __init__(self, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="figures")
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[Hashable, Picture] = OrderedDict()
        self._kept_bytes = 0
        self._drawing: dict[Hashable, asyncio.Future[Picture]] = {}

    async def render(self, draw: Callable[[], Picture], *, key: Hashable | None = None) -> Picture:
        """The picture that `draw` makes, or the one kept under `key`.

        Callers with the same key at the same time share one drawing, which goes on when one of them is cancelled.
        What `draw` raises is raised to all of them and not kept.
        """
        if key is None:
            return await self._start(draw)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._drawing:
            self._drawing[key] = self._start(draw)
            self._drawing[key].add_done_callback(partial(self._finish, key))
        return await asyncio.shield(self._drawing[key])

    async def warm(self) -> None:
        """Load the fonts and draw once, so that the first user does not wait for it."""
        await self.render(_warm)

    def close(self) -> None:
        """Let the picture being drawn finish, drop those that wait, and end the thread."""
        self._executor.shutdown(cancel_futures=True)

    def _start(self, draw: Callable[[], Picture]) -> asyncio.Future[Picture]:
        return asyncio.get_running_loop().run_in_executor(self._executor, draw)

    def _finish(self, key: Hashable, drawn: asyncio.Future[Picture]) -> None:
        del self._drawing[key]
        if not drawn.cancelled() and drawn.exception() is None:
            self._keep(key, drawn.result())

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
