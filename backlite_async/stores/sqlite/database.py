"""A SQLite file: how it is opened, written under a lock, and what its errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

from ..._errors import BackliteError, DatabaseBusy, DatabaseReplaced, DatabaseUnavailable, DatabaseUnusable
from .._base import id_taken
from .connection import Connection
from .locks import SharedFile, give, shared_file, side_folder

__all__ = ["Database", "fail", "is_busy", "translate"]

T = TypeVar("T")

OLDEST_SQLITE = (3, 37, 0)
"""The first version with STRICT tables."""

LOG_LIMIT = 67_108_864
"""Bytes that the write-ahead log is cut to when it is begun anew."""

TICK, COARSE_TICK = 20_000_000, 3_000_000_000
"""Nanoseconds since the last change of a folder after which the next one has another time: where the file
system counts ticks of the kernel, at most 10 ms; and where it counts seconds."""

_BUSY, _LOCKED, _IO_ERROR, _FULL, _BUSY_SNAPSHOT, _NOT_UNIQUE = 5, 6, 10, 13, 517, 2067
_IDS = ("backlite_jobs.id", "backlite_workflows.id")


class Database:
    """A SQLite file: one connection that writes, one that reads, and a lock around each write.

    After an I/O error what a connection remembers of the file may be wrong: it is opened anew
    before the next use. A file that is no longer the one that was opened is not used any more.
    """

    def __init__(self, path: str, *, synchronous: str, busy_timeout: float) -> None:
        self.path = path
        self.folder = side_folder(path)
        self.synchronous = synchronous
        self.busy_timeout = busy_timeout
        self.abandoned = threading.Event()
        self._broken: set[Connection] = set()
        self._log: tuple[int, int] | None = None
        self._counted = False
        self._level = ""
        self._writer: Connection | None = None
        self._reader: Connection | None = None

    @property
    def writer(self) -> Connection:
        """The connection that writes."""
        return self._opened(self._writer)

    @property
    def reader(self) -> Connection:
        """The connection that reads."""
        return self._opened(self._reader)

    def _opened(self, connection: Connection | None) -> Connection:
        if connection is None:
            raise DatabaseUnusable(self.path, "is closed")
        return connection

    async def open(self, *, create: bool = True) -> None:
        """Open both connections. Raises `DatabaseUnusable` that says what is wrong with the file."""
        _check_path(self.path, create)
        self.abandoned.clear()
        self._broken.clear()
        _make_folder(self.path, self.folder)
        self._identity, self._log = _identity(self.path), None
        self._folder_of_file = None if os.path.islink(self.path) else os.path.dirname(self.path)
        self._folder_seen: tuple[int, ...] | None = None
        self.file: SharedFile = shared_file(self.path, self.folder)
        try:
            self._writer = await Connection.open(self.path)
            await self.writer.call(self._prepare_writer)
            self._reader = await Connection.open(self.path)
            await self.reader.call(self._prepare_reader)
            with self.file.owners_lock:
                self.file.opened += 1
            self._counted = True
        except BaseException as error:
            await self.close()
            fail(error, self.path)

    def _prepare_writer(self, raw: sqlite3.Connection) -> None:
        mode = self.patiently(lambda: raw.execute("PRAGMA journal_mode = WAL").fetchall()[0][0])
        if mode != "wal":
            raise DatabaseUnusable(self.path, f"cannot use write-ahead logging here (journal mode {mode!r})")
        self._configure_writer(raw)

    def _configure_writer(self, raw: sqlite3.Connection) -> None:
        self._level = ""  # not known yet
        self._sync(raw, self.synchronous)
        raw.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
        raw.execute("PRAGMA cache_size = -16384")  # KiB: an index of a million jobs, but its leaves
        raw.execute("PRAGMA trusted_schema = OFF")

    def _prepare_reader(self, raw: sqlite3.Connection) -> None:
        raw.execute("PRAGMA query_only = ON")
        raw.execute("PRAGMA wal_autocheckpoint = 0")
        raw.execute("PRAGMA trusted_schema = OFF")

    async def close(self) -> None:
        """Close what is open; safe to repeat."""
        cancelled = False
        for connection in self._take():
            try:
                await connection.close()
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    def close_soon(self) -> None:
        """Close what is open without waiting; from any thread."""
        for connection in self._take():
            connection.close_soon()

    def _take(self) -> list[Connection]:
        taken = [connection for connection in (self._reader, self._writer) if connection is not None]
        if self._counted:
            self._counted = False
            with self.file.owners_lock:
                self.file.opened -= 1
        self._reader = self._writer = None
        return taken

    def abandon(self) -> None:
        """Give up waiting for locks from now on."""
        self.abandoned.set()

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on the reading connection."""
        reader = self.reader

        def run(_: sqlite3.Connection) -> T:
            try:
                return self.patiently(lambda: function(self._usable(reader, self._prepare_reader)))
            except Exception as error:
                self._take_note(reader, error)
                fail(error, self.path)

        return await reader.call(run)

    def transact(self, function: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Run a function in one write transaction, blocking; from any thread.

        `durable=False` commits without a sync: the transaction survives a crash of the process,
        not a power loss.
        """
        writer = self.writer

        def attempt() -> T:
            with self.file.lock, self.file.turn(self.abandoned):
                raw = self._usable(writer, self._configure_writer)
                self._sync(raw, self.synchronous if durable else "NORMAL")
                return _transaction(raw, function)

        return self._noting(writer, attempt)

    def _sync(self, raw: sqlite3.Connection, level: str) -> None:
        """Choose how the writer's next commit is synced; it stays so until another is chosen."""
        if level != self._level:
            raw.execute("PRAGMA synchronous = " + level)
            self._level = level

    def look(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function that only reads on the writing connection, blocking; from any thread."""
        writer = self.writer

        def attempt() -> T:
            with self.file.lock:
                return function(self._usable(writer, self._configure_writer))

        return self._noting(writer, attempt)

    def _noting(self, connection: Connection, attempt: Callable[[], T]) -> T:
        try:
            return self.patiently(attempt)
        except sqlite3.Error as error:
            self._take_note(connection, error)
            raise

    def _take_note(self, connection: Connection, error: Exception) -> None:
        if isinstance(error, sqlite3.Error) and _code(error) == _IO_ERROR:
            self._broken.add(connection)

    def _usable(
        self, connection: Connection, configure: Callable[[sqlite3.Connection], None]
    ) -> sqlite3.Connection:
        """Return SQLite's connection, a new one after an I/O error; raise if the file is another one."""
        self.check_same_file()
        if connection in self._broken:
            try:
                connection.reopen()
                configure(connection.raw)
            except sqlite3.Error as error:
                raise DatabaseUnavailable(
                    f"database {self.path!r} cannot be opened again: {error}"
                ) from error
            self._broken.discard(connection)
        return connection.raw

    def check_same_file(self) -> None:
        """Raise `DatabaseReplaced` unless the paths lead to the file that was opened, and its log.

        Where nothing in their folder was made, renamed or removed since the last time, they do. To ask
        that first is worth it: on Linux from 6.13 on the next sync of a file whose times were asked for
        costs half as much again.
        """
        folder = _settled(self._folder_of_file)
        if folder is not None and folder == self._folder_seen:
            return
        self._folder_seen = None
        self._check_identity()
        self._folder_seen = folder

    def _check_identity(self) -> None:
        try:
            if _identity(self.path) != self._identity:
                self._refuse("was replaced by another file")
            log = _identity(self.path + "-wal")
        except (FileNotFoundError, NotADirectoryError):
            if self._log is None and os.path.exists(self.path):
                return  # nothing was written yet
            self._refuse("was deleted, or its write-ahead log was,")
        except OSError as error:
            raise DatabaseUnavailable(f"database {self.path!r}: {error}") from error
        else:
            # Nobody removes the log while we are open, but who does not see our locks: some code of
            # this process has opened and closed the file, which drops them.
            if self._log not in (None, log):
                self._refuse("has another write-ahead log than the one that was opened, and so was changed")
            self._log = log

    def _refuse(self, what: str) -> NoReturn:
        raise DatabaseReplaced(
            self.path,
            f"{what} while it was open; nothing is written any more. Put the right file in its place"
            " (restore a backup), then stop() and start() again",
        )

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Repeat an attempt that finds the database locked, until the busy timeout."""
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                if time.monotonic() >= deadline or self.abandoned.is_set():
                    raise
                if _code(error) == _LOCKED:
                    self.abandoned.wait(0.01)


def _transaction(raw: sqlite3.Connection, function: Callable[[sqlite3.Connection], T]) -> T:
    raw.execute("BEGIN IMMEDIATE")
    try:
        value = function(raw)
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the first error tells more
                raw.execute("ROLLBACK")
        raise
    return value


def _settled(folder: str | None) -> tuple[int, ...] | None:
    """Return what differs once an entry of a folder has changed; None where that cannot be told.

    The clock of file systems may have ticks: what has changed just now may change again unnoticed.
    """
    if folder is None or sys.platform == "win32":
        return None
    try:
        found = os.stat(folder)
    except OSError:
        return None
    whole_seconds = found.st_ctime_ns % 1_000_000_000 == 0
    if time.time_ns() - found.st_ctime_ns < (COARSE_TICK if whole_seconds else TICK):
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_mtime_ns


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


_creating = threading.Lock()
"""Held so that no other thread opens a file that this one has just made: closing it drops its locks."""


def _create(path: str) -> None:
    """Create a database file that only this user can read, as jobs may hold anything."""
    with _creating, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _make_folder(path: str, folder: str) -> None:
    """Make the folder beside the database; who may write the one may enter the other."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    try:
        os.mkdir(folder)
        os.chmod(folder, mode | (mode & 0o444) >> 2)
        give(folder, folder)
    except FileExistsError:
        pass
    except OSError as error:
        raise DatabaseUnusable(
            path, f"the folder {folder!r}, where processes meet, cannot be made: {error.strerror}"
        ) from error


def _check_path(path: str, create: bool) -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise DatabaseUnusable(path, f"needs SQLite {needed} or newer, this is {sqlite3.sqlite_version}")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise DatabaseUnusable(path, f"the folder {folder!r} does not exist; create it first")
    if os.path.isdir(path):
        raise DatabaseUnusable(path, "is a folder; give the path of a file")
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise DatabaseUnusable(path, "is not writable for this user")
    if os.path.exists(path):
        return
    if not create:
        raise DatabaseUnusable(path, "does not exist; run await client.install() or Client(install=True)")
    try:
        _create(path)
    except OSError as error:
        raise DatabaseUnusable(path, f"cannot be created: {error.strerror}") from error


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Return whether the database was locked, so that nothing has happened."""
    return isinstance(error, sqlite3.Error) and _code(error) in (_BUSY, _LOCKED)


def fail(error: BaseException, path: str) -> NoReturn:
    """Raise the library's error for this one; one that needs none goes through as it is."""
    found = translate(error, path)
    if found is error:
        raise error
    raise found from error


def translate(error: BaseException, path: str) -> BaseException:
    """Return the library's error for one of sqlite3's, or of what was read; anything else as it is."""
    if isinstance(error, (ValueError, TypeError, LookupError, OverflowError)) and not isinstance(
        error, BackliteError
    ):
        what = f"{type(error).__name__}: {error}"
        return DatabaseUnusable(path, f"is damaged, or holds what this library did not write ({what})")
    if not isinstance(error, sqlite3.Error):
        return error
    code = _code(error)
    if getattr(error, "sqlite_errorcode", 0) == _NOT_UNIQUE and str(error).endswith(_IDS):
        return id_taken()
    if getattr(error, "sqlite_errorcode", 0) == _BUSY_SNAPSHOT:
        return DatabaseBusy(
            f"database {path!r}: the transaction has read before another one wrote, so it can no longer"
            " write; begin it with BEGIN IMMEDIATE"
        )
    if is_busy(error):
        return DatabaseBusy(
            f"database {path!r} stayed locked beyond the busy timeout: some connection keeps a write"
            " transaction open; most often it is the caller's own, not yet committed"
        )
    if code in (_IO_ERROR, _FULL):
        return DatabaseUnavailable(f"database {path!r}: {error}")
    return DatabaseUnusable(path, str(error))
