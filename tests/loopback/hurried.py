"""The bot with its long pauses made short, so that hours of bad weather pass in seconds; run as a process's `entry`.

Settings of its own, from the environment: ``NAMES_FAIL`` says how often the first names asked for cannot be resolved.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import yarl
from discord.backoff import ExponentialBackoff
from discord.gateway import DiscordWebSocket
from discord.http import Route

from bot import client, command_sync
from bot.__main__ import main as run
from bot.interactions import journal, retry

if TYPE_CHECKING:
    from collections.abc import Sequence

HASTE = 100.0
NAME = "discord.test"


def hurry() -> None:
    """Divide what the bot and discord.py wait for between attempts."""
    client.IDENTIFY_SECONDS = 0.0  # type: ignore[misc]
    command_sync.SYNC_RETRY_SECONDS = tuple(seconds / HASTE for seconds in command_sync.SYNC_RETRY_SECONDS)  # type: ignore[misc,assignment]
    retry.MAX_PAUSE_SECONDS = retry.MAX_PAUSE_SECONDS / HASTE  # type: ignore[misc]
    retry.MAX_START_PAUSE_SECONDS = 1  # type: ignore[misc]
    retry.BACK_OFF_SECONDS = 0.3  # type: ignore[misc]
    retry.MAX_BACK_OFF_SECONDS = 1.0  # type: ignore[misc]
    journal.RETRY_SECONDS = journal.CLEANUP_SECONDS = 1.0  # type: ignore[misc]
    whole = ExponentialBackoff.delay
    ExponentialBackoff.delay = lambda self: whole(self) / HASTE  # type: ignore[method-assign]


def forget_names(times: int) -> None:
    """Give Discord a name that cannot be resolved so many times, as while a machine's network is not up yet."""
    address = yarl.URL(Route.BASE)
    Route.BASE = str(address.with_host(NAME))
    DiscordWebSocket.DEFAULT_GATEWAY = DiscordWebSocket.DEFAULT_GATEWAY.with_host(NAME)
    whole, left = socket.getaddrinfo, times

    def resolve(host: Any, *more: Any, **named: Any) -> Any:
        nonlocal left
        if host != NAME:
            return whole(host, *more, **named)
        left -= 1
        if left >= 0:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return whole(address.host, *more, **named)

    socket.getaddrinfo = resolve  # type: ignore[assignment]


def main(arguments: Sequence[str]) -> int:
    """Run the bot's own main."""
    hurry()
    if "NAMES_FAIL" in os.environ:
        forget_names(int(os.environ["NAMES_FAIL"]))
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
