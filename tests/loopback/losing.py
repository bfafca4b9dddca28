"""The bot on a machine whose GPU fails after so many steps of attention (``STEPS``); run as a process's `entry`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from bot.__main__ import main as run
from bot.gpt2.local.sequences import SequenceGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

ERROR = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later."


def lose(steps: int) -> None:
    """Have every step after so many fail as CUDA fails, which stays until the process ends."""
    attend, left = SequenceGroup.attend, steps

    def attend_until_lost(self: SequenceGroup, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError(ERROR)
        return attend(self, layer, qkv)

    SequenceGroup.attend = attend_until_lost  # type: ignore[method-assign]


def main(arguments: Sequence[str]) -> int:
    """Run the bot's own main."""
    lose(int(os.environ["STEPS"]))
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
