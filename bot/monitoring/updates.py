"""A look for newer versions, once a day, if the operator sets UPDATES_URL."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from bot.client import GPT2Client

INTERVAL_SECONDS: Final = 24 * 60 * 60.0
TIMEOUT: Final = aiohttp.ClientTimeout(total=30)

log = structlog.get_logger(__name__)


async def watch(url: str, client: GPT2Client, current: str) -> None:
    """Tell the log and the client of versions newer than `current`, until cancelled.

    Args:
        url: The address of the latest release in the API of GitHub, GitLab or Forgejo.
        client: Its `newer_version` is shown by /about.
        current: The version that runs.
    """
    while True:
        try:
            latest = await latest_version(url)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.warning("cannot look for a newer version (UPDATES_URL)", error=str(error) or type(error).__name__)
        else:
            newer = str(latest) if latest > Version(current) else None
            if newer and newer != client.newer_version:
                log.warning("a newer version exists", version=newer, running=current)
            client.newer_version = newer
        await asyncio.sleep(INTERVAL_SECONDS)


async def latest_version(url: str) -> Version:
    """Return the version of the latest release.

    Raises:
        aiohttp.ClientError: The server cannot be reached or has no release.
        TimeoutError: It did not answer in time.
        ValueError: The answer is no release, or its tag no version.
    """
    async with (
        aiohttp.ClientSession(timeout=TIMEOUT, trust_env=True, raise_for_status=True) as session,
        session.get(url, headers={"Accept": "application/json"}) as response,
    ):
        release = await response.json(content_type=None)
    try:
        return Version(release["tag_name"])
    except (LookupError, TypeError) as error:
        raise ValueError("the answer describes no release") from error
    except InvalidVersion as error:
        raise ValueError(f"the tag of the latest release is no version: {error}") from error
