"""Tasks that nobody awaits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


class BackgroundTasks(set[asyncio.Task[None]]):
    """The running ones. asyncio itself keeps only weak references to tasks, so that one could vanish while it runs."""

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a coroutine in a task of its own, which leaves the set when it ends."""
        task = asyncio.create_task(work, name=name)
        self.add(task)
        task.add_done_callback(self.discard)
