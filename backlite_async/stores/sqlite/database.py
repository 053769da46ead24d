"""A SQLite file: how it is opened, written under a lock, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ..._errors import DatabaseBusy, DatabaseUnavailable, DatabaseUnusable
from .connection import Connection
from .locks import SharedFile, shared_file

__all__ = ["Database", "is_busy", "translate"]

T = TypeVar("T")

OLDEST_SQLITE = (3, 37, 0)
"""The first version with STRICT tables."""

_BUSY, _LOCKED, _IO_ERROR, _FULL, _BUSY_SNAPSHOT = 5, 6, 10, 13, 517


class Database:
    """A SQLite file: one connection that writes, one that reads, and a lock around each write."""

    def __init__(self, path: str, *, synchronous: str, busy_timeout: float) -> None:
        self.path = path
        self._synchronous = synchronous
        self.busy_timeout = busy_timeout
        self._abandoned = threading.Event()
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
        self._abandoned.clear()
        try:
            self._writer = await Connection.open(self.path)
            await self.writer.call(self._prepare_writer)
            self._reader = await Connection.open(self.path)
            await self.reader.call(self._prepare_reader)
        except BaseException as error:
            await self.close()
            raise translate(error, self.path) from error

    def _prepare_writer(self, raw: sqlite3.Connection) -> None:
        mode = self.patiently(lambda: raw.execute("PRAGMA journal_mode = WAL").fetchall()[0][0])
        if mode != "wal":
            raise DatabaseUnusable(self.path, f"cannot use write-ahead logging here (journal mode {mode!r})")
        raw.execute("PRAGMA synchronous = " + self._synchronous)
        raw.execute("PRAGMA journal_size_limit = 67108864")
        raw.execute("PRAGMA trusted_schema = OFF")
        self.file: SharedFile = shared_file(self.path)

    def _prepare_reader(self, raw: sqlite3.Connection) -> None:
        raw.execute("PRAGMA query_only = ON")
        raw.execute("PRAGMA wal_autocheckpoint = 0")
        raw.execute("PRAGMA trusted_schema = OFF")

    async def close(self) -> None:
        """Close what is open; safe to repeat."""
        for connection in self._take():
            await connection.close()

    def close_soon(self) -> None:
        """Close what is open without waiting; from any thread."""
        for connection in self._take():
            connection.close_soon()

    def _take(self) -> list[Connection]:
        taken = [connection for connection in (self._reader, self._writer) if connection is not None]
        self._reader = self._writer = None
        return taken

    def abandon(self) -> None:
        """Give up waiting for locks from now on."""
        self._abandoned.set()

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on the reading connection."""

        def run(raw: sqlite3.Connection) -> T:
            try:
                return self.patiently(lambda: function(raw))
            except sqlite3.Error as error:
                raise translate(error, self.path) from error

        return await self.reader.call(run)

    def transact(self, function: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Run a function in one write transaction, blocking; from any thread.

        `durable=False` commits without a sync: the transaction survives a crash of the process,
        not a power loss.
        """
        raw = self.writer.raw

        def attempt() -> T:
            with self.file.lock:
                if durable or self._synchronous != "FULL":
                    return _transaction(raw, function)
                raw.execute("PRAGMA synchronous = NORMAL")
                try:
                    return _transaction(raw, function)
                finally:
                    raw.execute("PRAGMA synchronous = FULL")

        return self.patiently(attempt)

    def look(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function that only reads on the writing connection, blocking; from any thread."""

        def attempt() -> T:
            with self.file.lock:
                return function(self.writer.raw)

        return self.patiently(attempt)

    def patiently(self, attempt: Callable[[], T]) -> T:
        """Repeat an attempt that finds the database locked, until the busy timeout."""
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                if time.monotonic() >= deadline or self._abandoned.is_set():
                    raise
                if _code(error) == _LOCKED:
                    self._abandoned.wait(0.01)


def _transaction(raw: sqlite3.Connection, function: Callable[[sqlite3.Connection], T]) -> T:
    raw.execute("BEGIN IMMEDIATE")
    try:
        value = function(raw)
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise
    return value


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
    if not create and not os.path.exists(path):
        raise DatabaseUnusable(path, "does not exist; run await client.install() or Client(install=True)")


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Return whether the database was locked, so that nothing has happened."""
    return isinstance(error, sqlite3.Error) and _code(error) in (_BUSY, _LOCKED)


def translate(error: BaseException, path: str) -> BaseException:
    """Return the library's error for one of sqlite3's; anything else as it is."""
    if not isinstance(error, sqlite3.Error):
        return error
    code = _code(error)
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
