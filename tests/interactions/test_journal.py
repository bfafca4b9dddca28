"""The journal: what is on disk, who can read it, when it goes, and a disk that cannot be written."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from bot.interactions import journal as module
from bot.interactions.journal import Entry, Journal
from tests.command_line import run_python


def entry(number: int = 1, *, written: float | None = None, **more: Any) -> Entry:
    payload = {"id": str(number), "token": f"secret-{number}", "data": {"name": "continue"}} | more
    return Entry(payload, private=False, written=time.time() if written is None else written)


async def opened(path: Path | None) -> Journal:
    journal = Journal(path)
    await journal.open()
    return journal


async def test_rows_survive_a_crash_until_removed(tmp_path: Path) -> None:
    first = await opened(tmp_path / "journal")
    assert await first.add(entry(1))
    assert await first.add(entry(2, prompt="half a surrogate \ud83d, 日本語"))
    # The first is not closed, as if its process had been killed.
    second = await opened(tmp_path / "journal")
    assert [each.payload for each in await second.entries()] == [
        entry(1).payload,
        entry(2, prompt="half a surrogate \ud83d, 日本語").payload,
    ]
    second.remove(1)
    assert [each.id for each in await second.entries()] == [2]
    await second.close()
    await first.close()


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
async def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    journal = await opened(tmp_path / "new" / "journal")
    await journal.add(entry())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert set(modes) == {"journal", "journal-wal", "journal-shm"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    await journal.close()


async def test_deleted_text_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLEANUP_SECONDS", 0.01)
    journal = await opened(tmp_path / "journal")
    await journal.add(entry(prompt="my own words"))

    def held() -> bool:
        return any(b"my own words" in path.read_bytes() for path in tmp_path.iterdir())

    assert held()
    journal.remove(1)
    async with asyncio.timeout(10):
        while held():  # noqa: ASYNC110 # a file tells nobody that it has changed
            await asyncio.sleep(0.01)
    await journal.close()


async def test_concurrent_writes_share_a_transaction(tmp_path: Path) -> None:
    journal = await opened(tmp_path / "journal")
    gate = threading.Event()
    journal._executor.submit(gate.wait)
    commits: list[str] = []
    assert journal._connection is not None
    journal._connection.set_trace_callback(
        lambda statement: commits.append(statement) if statement == "COMMIT" else None
    )
    adding = [asyncio.create_task(journal.add(entry(number))) for number in range(1, 50)]
    await asyncio.sleep(0)
    gate.set()
    assert all(await asyncio.gather(*adding))
    assert len(commits) == 1
    await journal.close()


async def test_acknowledgements_do_not_wait_for_slow_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_TIMEOUT_SECONDS", 0.05)
    journal = await opened(tmp_path / "journal")
    gate = threading.Event()
    journal._executor.submit(gate.wait)
    assert not await journal.add(entry())
    gate.set()
    assert [each.id for each in await journal.entries()] == [1], "it is written all the same, later"
    await journal.close()


async def test_without_a_path_it_keeps_nothing(tmp_path: Path) -> None:
    journal = await opened(None)
    assert not await journal.add(entry())
    journal.remove(1)
    assert await journal.entries() == []
    assert not journal.available
    await journal.close()
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def write_noise(path: Path) -> None:
    path.write_bytes(b"\x00\xff" * 5000)


def cut_off(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE owed (id INTEGER); INSERT INTO owed VALUES (1);")
    connection.close()
    path.write_bytes(path.read_bytes()[:5000])


def write_another_version(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE owed (id INTEGER, something TEXT);")
    connection.close()


@pytest.mark.parametrize("damage", [write_noise, cut_off, write_another_version])
async def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "journal"
    damage(path)
    before = path.read_bytes()
    with structlog.testing.capture_logs() as logged:
        journal = await opened(path)
    assert [line["event"] for line in logged] == ["the journal was damaged; starting a new one"]
    assert journal.available
    assert (tmp_path / "journal.damaged").read_bytes() == before
    assert await journal.add(entry())
    assert [each.id for each in await journal.entries()] == [1]
    await journal.close()


@pytest.mark.parametrize("path", ["/proc/journal.sqlite3", "/dev/null/journal.sqlite3"])
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs places where not even root can write")
async def test_an_unwritable_place_is_logged_once(path: str) -> None:
    with structlog.testing.capture_logs() as logged:
        journal = await opened(Path(path))
        assert not await journal.add(entry(1))
        assert not await journal.add(entry(2))
        journal.remove(1)
        assert await journal.entries() == []
        await journal.close()
    (line,) = logged
    assert line["log_level"] == "warning"
    assert "cannot write the journal" in line["event"]


async def test_the_journal_recovers_from_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    journal = await opened(tmp_path / "journal")
    # SQLite's own limit on the size of a file gives the very error that a full disk gives: SQLITE_FULL.
    await journal._run(lambda: journal._connection and journal._connection.execute("PRAGMA max_page_count = 4"))
    connection = journal._connection
    monkeypatch.setattr(journal, "_disconnect", lambda: None)
    with structlog.testing.capture_logs() as logged:
        assert not await journal.add(entry(1, prompt="x" * 100_000))
        assert not await journal.add(entry(2, prompt="x" * 100_000))
        assert not journal.available
        await journal._run(lambda: connection and connection.execute("PRAGMA max_page_count = 100000"))
        assert await journal.add(entry(3))
        assert journal.available
    assert [line["event"] for line in logged] == [
        "cannot write the journal; a crash would lose accepted requests",
        "the journal is writable again",
    ]
    assert "full" in logged[0]["error"]
    monkeypatch.undo()
    await journal.close()


async def test_failed_deletions_are_repeated_without_new_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(module, "CLEANUP_SECONDS", 0.01)
    first = await opened(tmp_path / "journal")
    await first.add(entry(1))
    await first.close()
    journal = await opened(tmp_path / "journal")
    assert len(await journal.entries()) == 1
    await journal.add(entry(2))
    await journal.add(entry(3))
    whole = module._open_database

    def full(_: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(module, "_open_database", full)
    await journal._run(journal._disconnect)
    for number in (1, 2, 99):
        journal.remove(number)
    assert not await journal.add(entry(4))
    monkeypatch.setattr(module, "_open_database", whole)
    async with asyncio.timeout(10):
        while [each.id for each in await rows(tmp_path / "journal")] != [3]:  # noqa: ASYNC110 # as above
            await asyncio.sleep(0.01)
    assert journal._undeleted == set()
    await journal.close()


async def rows(path: Path) -> list[Entry]:
    """Return the rows that another process finds."""
    other = await opened(path)
    try:
        return await other.entries()
    finally:
        await other.close()


async def test_attempts_are_counted_and_can_be_taken_back(tmp_path: Path) -> None:
    journal = await opened(tmp_path / "journal")
    await journal.add(entry(1))
    await journal.add(entry(2))
    await journal.count_attempt([1, 2])
    await journal.count_attempt([1])
    await journal.count_attempt([2], -1)
    await journal.count_attempt([2], -1)
    assert {each.id: each.attempts for each in await journal.entries()} == {1: 2, 2: 0}
    await journal.close()


def test_two_processes_can_share_a_file(tmp_path: Path) -> None:
    program = """
import asyncio, sys, time
from pathlib import Path
from bot.interactions.journal import Entry, Journal

async def main(first):
    journal = Journal(Path("journal"))
    await journal.open()
    for number in range(first, first + 100):
        # It waits half a second at most; a disk that is busy may take longer.
        while not await journal.add(Entry({"id": str(number)}, False, time.time())):
            await asyncio.sleep(0.1)
        if number % 2:
            journal.remove(number)
    await journal.close()

asyncio.run(main(int(sys.argv[1])))
"""
    (tmp_path / "one.py").write_text(program)
    outcomes = []
    threads = [
        threading.Thread(target=lambda first=first: outcomes.append(run_python("one.py", str(first), folder=tmp_path)))
        for first in (1000, 2000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.returncode for outcome in outcomes] == [0, 0], outcomes
    connection = sqlite3.connect(tmp_path / "journal")
    assert connection.execute("SELECT count(*), min(id), max(id) FROM owed").fetchone() == (100, 1000, 2098)
    connection.close()
