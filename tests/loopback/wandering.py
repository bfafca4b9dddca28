"""The bot on a machine whose clock jumps; run as a process's `entry`.

The clock is real time and an offset in seconds: ``CLOCK`` in the environment at first, and again whatever the file of
that name in the working directory holds whenever SIGUSR1 comes, which is answered with a line. What only counts seconds
(the monotonic clock, timers) goes on as it does on a real machine.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import discord.utils

from bot.__main__ import main as run

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = "CLOCK"
JUMPED = "the clock jumps by "

_real = time.time
_offset = float(os.environ.get(FILE, "0"))


def _now() -> float:
    return _real() + _offset


def _jump(*_: object) -> None:
    global _offset  # noqa: PLW0603 # there is one clock
    _offset = float(Path(FILE).read_text())
    os.write(1, f"{JUMPED}{_offset}\n".encode())  # past Python's streams: it may come in the middle of a line


def main(arguments: Sequence[str]) -> int:
    """Run the bot's own main."""
    time.time = _now
    time.time_ns = lambda: int(_now() * 1e9)
    discord.utils.utcnow = lambda: dt.datetime.fromtimestamp(_now(), dt.UTC)
    signal.signal(signal.SIGUSR1, _jump)
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
