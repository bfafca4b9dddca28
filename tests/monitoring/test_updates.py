"""The look for newer versions, at a server of its own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from bot.monitoring import updates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Answer = tuple[int, str]


class Releases:
    """A server that answers in turn with these statuses and bodies."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.url = ""
        self.emptied = asyncio.Event()

    async def latest(self, _: web.Request) -> web.Response:
        status, body = self.answers.pop(0)
        if not self.answers:
            self.emptied.set()
        return web.Response(status=status, text=body)


@pytest.fixture
async def releases() -> AsyncIterator[Releases]:
    releases = Releases()
    application = web.Application()
    application.router.add_get("/latest", releases.latest)
    async with TestServer(application) as server:
        releases.url = str(server.make_url("/latest"))
        yield releases


async def watched(releases: Releases, answers: list[Answer], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Return the client and the log of a bot of version 1.2.0 that has had all these answers."""
    monkeypatch.setattr(updates, "INTERVAL_SECONDS", 0.0)
    releases.answers = [*answers, (200, "[]")]
    client: Any = SimpleNamespace(newer_version=None)
    with capture_logs() as log:
        task = asyncio.create_task(updates.watch(releases.url, client, current="1.2.0"))
        await asyncio.wait_for(releases.emptied.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return client, log


async def test_a_newer_version_is_told_once(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = (200, '{"tag_name": "v1.10.0"}')
    client, log = await watched(releases, [(200, '{"tag_name": "v1.2.0"}'), newer, newer], monkeypatch)
    assert client.newer_version == "1.10.0"
    assert [(each["event"], each["version"]) for each in log if "version" in each] == [
        ("a newer version exists", "1.10.0")
    ]


async def test_what_goes_wrong_is_logged_and_tried_again(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [(404, ""), (200, "<html>"), (200, '{"tag_name": "latest"}'), (200, "[1]")]
    client, log = await watched(releases, [*wrong, (200, '{"tag_name": "1.2.1"}')], monkeypatch)
    assert client.newer_version == "1.2.1"
    failures = [each["error"] for each in log if each["event"].startswith("cannot look for a newer version")]
    assert len(failures) == len(wrong)
    assert "no version: Invalid version: 'latest'" in failures[2]
