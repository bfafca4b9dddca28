"""A replica that takes its time for every pass, and no core for it.

So what a tiny model writes can be stopped, and its replica be killed, before it is done, however fast the machine is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bot.gpt2.cluster import deployment

if TYPE_CHECKING:
    from bot.gpt2.cluster.deployment import Options

PASS_SECONDS: Final = 0.02


class Replica(deployment.Replica):
    """Deployed by `tests.ray_cluster` under the name of the real one."""

    async def __init__(self, options: Options) -> None:  # type: ignore[misc] # Ray Serve awaits it
        from tests.loopback.leisurely import take_time  # noqa: PLC0415 # PyTorch, which the deploying process lacks

        take_time(PASS_SECONDS)
        await super().__init__(options)  # type: ignore[misc]
