"""The bot, which tells on SIGUSR1 how many tasks its event loop has; run as a process's `entry`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from bot.__main__ import main as run

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "inspected: "


def main(arguments: Sequence[str]) -> int:
    """Run the bot's own main."""
    whole = asyncio.Runner.run

    def watched(self: asyncio.Runner, coroutine: Any, **more: Any) -> Any:
        def tell() -> None:
            print(PREFIX + json.dumps({"tasks": len(asyncio.all_tasks(self.get_loop()))}), flush=True)

        self.get_loop().add_signal_handler(signal.SIGUSR1, tell)
        return whole(self, coroutine, **more)

    asyncio.Runner.run = watched  # type: ignore[method-assign,assignment]
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
