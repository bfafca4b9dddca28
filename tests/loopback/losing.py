"""The bot on a machine whose GPU hangs after ``STEPS`` steps of attention, and fails once the file ``LOST`` exists.

It is run as a process's `entry`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bot.__main__ import main as run
from bot.gpt2.local.sequences import SequenceGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

ERROR = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later."


def lose(steps: int, lost: Path) -> None:
    """Have every step after so many wait for a file and then fail as CUDA fails, until the process ends."""
    attend, left = SequenceGroup.attend, steps

    def attend_until_lost(self: SequenceGroup, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            while not lost.exists():
                time.sleep(0.01)
            raise RuntimeError(ERROR)
        return attend(self, layer, qkv)

    SequenceGroup.attend = attend_until_lost  # type: ignore[method-assign]


def main(arguments: Sequence[str]) -> int:
    """Run the bot's own main."""
    lose(int(os.environ["STEPS"]), Path(os.environ["LOST"]))
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
