"""What was accepted and is not answered yet, on disk, so that a start after a crash can answer it.

One SQLite file, used by one thread of its own. A row is written before Discord is told that an answer will come, and
goes when the answer is there. What comes in at the same moment is committed together, so that a busy bot waits for
the disk once and not once a request.

The journal helps to keep promises and never stands in the way of one: where the disk is full, slow or cannot be
written to, the bot works without it, and says so once in the log.
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

PATIENCE_SECONDS: Final = 0.5
"""How long an acknowledgement waits for its row; Discord allows 3 s in all, and a worn SD card can take longer."""

RETRY_SECONDS: Final = 10.0
"""How soon a journal that could not be opened is tried again."""

TIDY_SECONDS: Final = 10.0
"""How long what was deleted may stay in the write-ahead log; and how often a journal in trouble is tried."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS owed (
    id INTEGER PRIMARY KEY,            -- the interaction's
    payload TEXT NOT NULL,             -- all of it, as Discord sent it; with its token
    private INTEGER NOT NULL,          -- whether only the one who asked sees the answer
    written REAL NOT NULL,             -- seconds since 1970, by this machine's clock
    attempts INTEGER NOT NULL DEFAULT 0 -- starts that have taken it up
)
"""

_COLUMNS: Final = {"id", "payload", "private", "written", "attempts"}

_DELETE: Final = "DELETE FROM owed WHERE id = ?"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """An interaction that was acknowledged and not answered.

    Attributes:
        payload: As Discord sent it.
        private: Whether only the one who asked sees the answer.
        written: When, in seconds since 1970.
        attempts: How many starts have taken it up.
    """

    payload: dict[str, Any]
    private: bool
    written: float
    attempts: int = 0

    @property
    def id(self) -> int:
        """The interaction's."""
        return int(self.payload["id"])


class Journal:
    """Owns the file and the thread. `path` None is a journal that keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lane = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._lock = threading.Lock()  # guards what is pending
        self._pending: list[_Write] = []
        self._connection: sqlite3.Connection | None = None  # the thread's own, with what follows
        self._next_try = 0.0
        self._troubled = False
        self._there: set[int] = set()  # rows that this process knows to be on disk
        self._stale: set[int] = set()  # those of them that should have been deleted, and could not be
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def works(self) -> bool:
        """Whether what is written now will be there after a crash, as far as is known."""
        return self._connection is not None and not self._troubled

    async def open(self) -> None:
        """Open the file, or begin a new one; what is wrong with either is logged and not raised."""
        await self._write(())

    async def add(self, entry: Entry) -> bool:
        """Write a row; returns whether it is on disk now. Waits for `PATIENCE_SECONDS` at most."""
        values = (
            entry.id,
            json.dumps(entry.payload),
            entry.private,
            entry.written,
        )
        statement = "INSERT OR REPLACE INTO owed (id, payload, private, written) VALUES (?, ?, ?, ?)"
        written = self._write([(statement, values)], added=entry.id)
        try:
            return await asyncio.wait_for(asyncio.shield(written), PATIENCE_SECONDS)
        except TimeoutError:
            log.warning(
                "the journal is slow; an interaction is acknowledged before it is written", interaction=entry.id
            )
            return False

    def remove(self, interaction_id: int) -> None:
        """Delete a row soon, or as soon as the file can be written again.

        Should the process die first, the same answer is given once more in the same place.
        """
        self._write([(_DELETE, (interaction_id,))], removed=interaction_id)
        self._tidy_soon()

    async def count_attempt(self, interaction_ids: Iterable[int], change: int = 1) -> None:
        """Note that rows are being taken up, before anything is done about them; -1 takes that back."""
        statement = "UPDATE owed SET attempts = MAX(attempts + ?, 0) WHERE id = ?"
        await self._write([(statement, (change, each)) for each in interaction_ids])

    async def owed(self) -> list[Entry]:
        """Every row, the oldest first; those of other processes too, where several share the file."""
        return await self._on_lane(self._read)

    async def close(self) -> None:
        """Write what is pending and close the file."""
        self._closed = True
        if self._tidying:
            self._tidying.cancel()
        await self._write(())
        await self._on_lane(self._disconnect)
        await asyncio.to_thread(self._lane.shutdown)

    # On the event loop

    def _write(
        self,
        statements: Iterable[tuple[str, tuple[Any, ...]]],
        *,
        added: int | None = None,
        removed: int | None = None,
    ) -> asyncio.Future[bool]:
        """Queue statements for the next transaction; the future says whether they were committed."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        if self._path is None:
            done.set_result(False)
            return done

        def settle(committed: bool) -> None:  # noqa: FBT001 # called by the loop
            if not done.done():
                done.set_result(committed)

        def report(committed: bool) -> None:  # noqa: FBT001
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to tell
                loop.call_soon_threadsafe(settle, committed)

        with self._lock:
            first = not self._pending
            self._pending.append(_Write(tuple(statements), report, added, removed))
        if first:
            self._lane.submit(self._commit)
        return done

    async def _on_lane(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._lane, call)

    def _tidy_soon(self) -> None:
        if self._tidying is None and self._path and not self._closed:
            self._tidying = asyncio.get_running_loop().call_later(TIDY_SECONDS, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        loop = asyncio.get_running_loop()

        def tidied(done: Future[bool]) -> None:
            if not done.cancelled() and not done.result():
                with contextlib.suppress(RuntimeError):  # the loop was closed
                    loop.call_soon_threadsafe(self._tidy_soon)

        self._lane.submit(self._truncate).add_done_callback(tidied)

    # On the journal's thread

    def _commit(self) -> None:
        with self._lock:
            writes, self._pending = self._pending, []
        committed = self._attempt(lambda connection: self._execute(connection, writes))
        self._remember(writes, committed=committed)
        for write in writes:
            write.report(committed)

    def _remember(self, writes: list[_Write], *, committed: bool) -> None:
        """Which rows are there, and which of them should not be: they hold what people wrote, answered long ago."""
        if committed:
            self._there -= self._stale
            self._stale.clear()
        for write in writes:
            if committed and write.added is not None:
                self._there.add(write.added)
            elif committed and write.removed is not None:
                self._there.discard(write.removed)
            elif write.removed in self._there:
                self._stale.add(write.removed)

    def _execute(self, connection: sqlite3.Connection, writes: list[_Write]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(_DELETE, [(each,) for each in self._stale])
            for write in writes:
                for statement, values in write.statements:
                    connection.execute(statement, values)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back already where the disk was full
                connection.execute("ROLLBACK")
            raise

    def _read(self) -> list[Entry]:
        found: list[Entry] = []

        def read(connection: sqlite3.Connection) -> None:
            rows = connection.execute("SELECT payload, private, written, attempts FROM owed ORDER BY written")
            for payload, private, written, attempts in rows:
                found.append(Entry(json.loads(payload), bool(private), written, attempts))

        self._attempt(read)
        self._there.update(entry.id for entry in found)
        return found

    def _truncate(self) -> bool:
        """Empty the write-ahead log: it holds what was deleted, and that is nobody's business any more.

        Returns:
            Whether nothing is left that should have been deleted.
        """
        busy: list[int] = []  # by another process that reads

        def truncate(connection: sqlite3.Connection) -> None:
            if self._stale:
                self._execute(connection, [])
            busy.extend(row[0] for row in connection.execute("PRAGMA wal_checkpoint(TRUNCATE)"))

        if not self._attempt(truncate):
            return False
        self._remember([], committed=True)
        return not any(busy)

    def _attempt(self, call: Callable[[sqlite3.Connection], object]) -> bool:
        """Do something with the file; what goes wrong is logged when it begins, and when it has passed."""
        if self._path is None:
            return False
        try:
            connection = self._connect(self._path)
            if connection is None:
                return False
            call(connection)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._trouble(error)
            return False
        if self._troubled:
            self._troubled = False
            log.info("the journal works again")
        return True

    def _trouble(self, error: Exception) -> None:
        if not self._troubled:
            log.warning("the journal cannot be written: what is asked now would be lost in a crash", error=str(error))
        self._troubled = True
        # A file found damaged while it is used is looked at again, and set aside, when it is opened the next time.
        self._disconnect()

    def _connect(self, path: Path) -> sqlite3.Connection | None:
        if self._connection is None and time.monotonic() >= self._next_try:
            self._next_try = time.monotonic() + RETRY_SECONDS
            try:
                self._connection = _opened(path)
            except sqlite3.OperationalError:
                raise  # locked, full, read-only: the file itself may be sound
            except (sqlite3.DatabaseError, ValueError) as error:
                damaged = _set_aside(path)
                log.warning("the journal was damaged; a new one is begun", kept_as=str(damaged), error=str(error))
                self._connection = _opened(path)
            self._next_try = 0.0
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
        self._next_try = time.monotonic() + RETRY_SECONDS


@dataclass(frozen=True, slots=True)
class _Write:
    """Statements of one transaction, and the row that they add or remove, if one."""

    statements: tuple[tuple[str, tuple[Any, ...]], ...]
    report: Callable[[bool], None]
    added: int | None = None
    removed: int | None = None


def examine(path: Path) -> str | None:
    """What is damaged in a file that is there, or None; nothing is changed, and a bot may be using it.

    Raises:
        sqlite3.OperationalError, OSError: It cannot be written.
    """
    with contextlib.closing(sqlite3.connect(path.resolve().as_uri() + "?mode=rw", uri=True, timeout=5.0)) as connection:
        connection.isolation_level = None
        try:
            _examine(connection)
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(f"PRAGMA user_version = {version}")  # written, though it stays as it is
            connection.execute("COMMIT")
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, ValueError) as error:
            return str(error)
    return None


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to a sound file, which only this user can read: it holds what people wrote, and tokens."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its other two files the mode of the first.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    # The thread is one, but what closes the file after a failed start is another.
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        _examine(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL waits for the disk at every commit. NORMAL, usual with WAL, survives kill -9 and loses the last commits
        # when the power goes. There is one commit for all that is acknowledged at a time, so FULL can be afforded.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # deleted rows are overwritten, not only forgotten
        connection.execute(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _examine(connection: sqlite3.Connection) -> None:
    """Raise ValueError where the file cannot be used."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise ValueError(verdict)
    columns = {row[1] for row in connection.execute("PRAGMA table_info(owed)")}
    if columns and columns != _COLUMNS:
        raise ValueError(f"another version's table, with the columns {sorted(columns)}")


def _set_aside(path: Path) -> Path:
    """Rename a damaged file, over the one that was damaged before, so that they do not pile up."""
    kept = path.with_name(path.name + ".damaged")
    path.replace(kept)
    kept.chmod(0o600)
    for suffix in ("-wal", "-shm"):  # they belong to the damaged file, and would damage the new one
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return kept
