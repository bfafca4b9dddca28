"""The journal: interactions that were acknowledged and not answered yet, on disk for the next start.

One SQLite file, used by one thread. A row is written before Discord hears that an answer will come, and deleted once
the answer is delivered. Concurrent writes share a transaction, so a busy bot waits for the disk once and not once per
request.

The bot works without the journal where the disk is full, slow or read-only, and logs that once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

T = TypeVar("T")

WRITE_TIMEOUT_SECONDS: Final = 0.5
"""How long an acknowledgement waits for its row; Discord allows 3 s in all, and a worn SD card can take longer."""

RETRY_SECONDS: Final = 10.0
"""Seconds between two attempts to open the file."""

CLEANUP_SECONDS: Final = 10.0
"""Seconds for which a deleted row may stay in the write-ahead log; also between two attempts to delete it."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS owed (
    id INTEGER PRIMARY KEY,             -- the interaction's id
    payload TEXT NOT NULL,              -- the interaction as Discord sent it, with its token
    private INTEGER NOT NULL,           -- 1: only the person who asked sees the answer; 2: it is given in place
    written REAL NOT NULL,              -- seconds since 1970, by this machine's clock
    attempts INTEGER NOT NULL DEFAULT 0 -- starts that have tried to answer it
)
"""

_COLUMNS: Final = {"id", "payload", "private", "written", "attempts"}

_IN_PLACE: Final = 2  # of the column `private`

_DELETE: Final = "DELETE FROM owed WHERE id = ?"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """An interaction that was acknowledged and not answered.

    Attributes:
        payload: The interaction as Discord sent it.
        private: Whether only the person who asked sees the answer.
        written: The time of writing, in seconds since 1970.
        attempts: The number of starts that have tried to answer it.
        in_place: Whether the answer replaces what stands in the message of the pressed button.
    """

    payload: dict[str, Any]
    private: bool
    written: float
    attempts: int = 0
    in_place: bool = False

    @property
    def id(self) -> int:
        """The interaction's id."""
        return int(self.payload["id"])


class Journal:
    """The file and the thread that uses it. A journal without a path keeps nothing.

    Args:
        path: The SQLite file, or None.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._lock = threading.Lock()  # guards `_pending`
        self._pending: list[_Write] = []
        self._cleanup: asyncio.TimerHandle | None = None
        self._closed = False
        # Used by the journal's thread alone:
        self._connection: sqlite3.Connection | None = None
        self._retry_at = 0.0
        self._failing = False
        self._stored: set[int] = set()  # rows that this process knows to be on disk
        self._undeleted: set[int] = set()  # those of them whose deletion failed

    @property
    def available(self) -> bool:
        """Return whether rows written now would survive a crash, as far as is known."""
        return self._connection is not None and not self._failing

    async def open(self) -> None:
        """Open the file or create it. Failures are logged, not raised."""
        await self._write(())

    async def add(self, entry: Entry) -> bool:
        """Write a row and return whether it is on disk; wait for `WRITE_TIMEOUT_SECONDS` at most."""
        statement = "INSERT OR REPLACE INTO owed (id, payload, private, written) VALUES (?, ?, ?, ?)"
        audience = _IN_PLACE if entry.in_place else int(entry.private)
        values = (entry.id, json.dumps(entry.payload), audience, entry.written)
        written = self._write([(statement, values)], added=entry.id)
        try:
            return await asyncio.wait_for(asyncio.shield(written), WRITE_TIMEOUT_SECONDS)
        except TimeoutError:
            log.warning("the journal is slow; acknowledging an interaction before it is written", interaction=entry.id)
            return False

    def remove(self, interaction_id: int) -> None:
        """Delete a row soon, or as soon as the file is writable again.

        If the process dies first, the next start gives the same answer again in the same place.
        """
        self._write([(_DELETE, (interaction_id,))], removed=interaction_id)
        self._schedule_cleanup()

    async def count_attempt(self, interaction_ids: Iterable[int], change: int = 1) -> None:
        """Count an attempt to answer each row before it begins; a `change` of -1 takes that back."""
        statement = "UPDATE owed SET attempts = MAX(attempts + ?, 0) WHERE id = ?"
        await self._write([(statement, (change, each)) for each in interaction_ids])

    async def entries(self) -> list[Entry]:
        """Return every row, oldest first, including those of other processes that share the file."""
        return await self._run(self._read)

    async def close(self) -> None:
        """Commit what is pending and close the file."""
        self._closed = True
        if self._cleanup:
            self._cleanup.cancel()
        await self._write(())
        await self._run(self._disconnect)
        await asyncio.to_thread(self._executor.shutdown)

    # On the event loop

    def _write(
        self,
        statements: Iterable[tuple[str, tuple[Any, ...]]],
        *,
        added: int | None = None,
        removed: int | None = None,
    ) -> asyncio.Future[bool]:
        """Queue statements for the next transaction; the future returns whether they were committed."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        if self._path is None:
            done.set_result(False)
            return done

        def settle(committed: bool) -> None:  # noqa: FBT001 # called by the loop
            if not done.done():
                done.set_result(committed)

        def report(committed: bool) -> None:  # noqa: FBT001
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, committed)

        with self._lock:
            first = not self._pending
            self._pending.append(_Write(tuple(statements), report, added, removed))
        if first:
            self._executor.submit(self._commit)
        return done

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _schedule_cleanup(self) -> None:
        if self._cleanup is None and self._path and not self._closed:
            self._cleanup = asyncio.get_running_loop().call_later(CLEANUP_SECONDS, self._start_cleanup)

    def _start_cleanup(self) -> None:
        self._cleanup = None
        loop = asyncio.get_running_loop()

        def repeat(done: Future[bool]) -> None:
            if not done.cancelled() and not done.result():
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._schedule_cleanup)

        self._executor.submit(self._clean_up).add_done_callback(repeat)

    # On the journal's thread

    def _commit(self) -> None:
        with self._lock:
            writes, self._pending = self._pending, []
        committed = self._attempt(lambda connection: self._execute(connection, writes))
        self._track(writes, committed=committed)
        for write in writes:
            write.report(committed)

    def _track(self, writes: list[_Write], *, committed: bool) -> None:
        """Note which rows are on disk, and which of them still have to be deleted."""
        if committed:
            self._stored -= self._undeleted
            self._undeleted.clear()
        for write in writes:
            if committed and write.added is not None:
                self._stored.add(write.added)
            elif committed and write.removed is not None:
                self._stored.discard(write.removed)
            elif write.removed in self._stored:
                self._undeleted.add(write.removed)

    def _execute(self, connection: sqlite3.Connection, writes: list[_Write]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(_DELETE, [(each,) for each in self._undeleted])
            for write in writes:
                for statement, values in write.statements:
                    connection.execute(statement, values)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back already if the disk is full
                connection.execute("ROLLBACK")
            raise

    def _read(self) -> list[Entry]:
        entries: list[Entry] = []

        def read(connection: sqlite3.Connection) -> None:
            rows = connection.execute("SELECT payload, private, written, attempts FROM owed ORDER BY written")
            for payload, audience, written, attempts in rows:
                in_place = audience == _IN_PLACE
                entries.append(Entry(json.loads(payload), audience == 1, written, attempts, in_place))

        self._attempt(read)
        self._stored.update(entry.id for entry in entries)
        return entries

    def _clean_up(self) -> bool:
        """Delete leftover rows and empty the write-ahead log, which still holds deleted ones.

        Returns:
            Whether nothing is left that should have been deleted.
        """
        busy: list[int] = []  # 1 where another process is reading

        def truncate(connection: sqlite3.Connection) -> None:
            if self._undeleted:
                self._execute(connection, [])
            busy.extend(row[0] for row in connection.execute("PRAGMA wal_checkpoint(TRUNCATE)"))

        if not self._attempt(truncate):
            return False
        self._track([], committed=True)
        return not any(busy)

    def _attempt(self, call: Callable[[sqlite3.Connection], object]) -> bool:
        """Call with the connection and return whether that succeeded; log the first failure and the recovery."""
        if self._path is None:
            return False
        try:
            connection = self._connect(self._path)
            if connection is None:
                return False
            call(connection)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._fail(error)
            return False
        if self._failing:
            self._failing = False
            log.info("the journal is writable again")
        return True

    def _fail(self, error: Exception) -> None:
        if not self._failing:
            log.warning("cannot write the journal; a crash would lose accepted requests", error=str(error))
        self._failing = True
        # Opening the file again examines it, and sets it aside if it was damaged while in use.
        self._disconnect()

    def _connect(self, path: Path) -> sqlite3.Connection | None:
        if self._connection is None and time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            try:
                self._connection = _open_database(path)
            except sqlite3.OperationalError:
                raise  # locked, full or read-only: the file itself may be sound
            except (sqlite3.DatabaseError, ValueError) as error:
                damaged = _set_aside(path)
                log.warning("the journal was damaged; starting a new one", kept_as=str(damaged), error=str(error))
                self._connection = _open_database(path)
            self._retry_at = 0.0
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
        self._retry_at = time.monotonic() + RETRY_SECONDS


@dataclass(frozen=True, slots=True)
class _Write:
    """Statements of one transaction, and the id of the row that they add or remove."""

    statements: tuple[tuple[str, tuple[Any, ...]], ...]
    report: Callable[[bool], None]
    added: int | None = None
    removed: int | None = None


def examine(path: Path) -> str | None:
    """Return what is damaged in an existing file, or None. Change nothing: a bot may be using it.

    Raises:
        sqlite3.OperationalError, OSError: The file is not writable.
    """
    with contextlib.closing(sqlite3.connect(path.resolve().as_uri() + "?mode=rw", uri=True, timeout=5.0)) as connection:
        connection.isolation_level = None
        try:
            _verify(connection)
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(f"PRAGMA user_version = {version}")  # a write that changes nothing
            connection.execute("COMMIT")
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, ValueError) as error:
            return str(error)
    return None


def _open_database(path: Path) -> sqlite3.Connection:
    """Connect to a sound file that only this user can read: it holds prompts and tokens."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its other two files the mode of the first.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    # There is one thread, but after a failed start another one closes the file.
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        _verify(connection)
        # A commit is one fsync, against 4 with a rollback journal (measured: 5 times the commits per second).
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL, usual with WAL, survives kill -9 but loses the last commits in a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # overwrites deleted rows
        connection.execute(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _verify(connection: sqlite3.Connection) -> None:
    """Raise ValueError if the database is damaged or another version's."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise ValueError(verdict)
    columns = {row[1] for row in connection.execute("PRAGMA table_info(owed)")}
    if columns and columns != _COLUMNS:
        raise ValueError(f"another version's table, with the columns {sorted(columns)}")


def _set_aside(path: Path) -> Path:
    """Rename a damaged file. It replaces the one set aside before, so that they do not pile up."""
    kept = path.with_name(path.name + ".damaged")
    path.replace(kept)
    kept.chmod(0o600)
    for suffix in ("-wal", "-shm"):  # they belong to the damaged file, and would damage the new one
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return kept
