"""The bot on a machine that takes its time for every pass, and no core for it; run as a process's `entry`.

So a tiny model writes slowly enough to be watched, stopped and killed, however fast the machine is.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from bot.__main__ import main as run
from bot.gpt2.local.eager import EagerRunner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.gpt2.local.runner import Pass

PASS_SECONDS: Final = 0.04


def take_time(seconds: float = PASS_SECONDS) -> None:
    """Have every pass take so much longer."""
    advance = EagerRunner.advance

    def advance_slowly(self: EagerRunner, groups: Sequence[Any]) -> Pass:
        time.sleep(seconds)
        return advance(self, groups)

    EagerRunner.advance = advance_slowly  # type: ignore[method-assign]


def main(arguments: Sequence[str]) -> int:
    """Run the bot's own main."""
    take_time()
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
