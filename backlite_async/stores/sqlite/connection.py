"""The only module that knows aiosqlite: connections, one hop a call, patience with locks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import aiosqlite

from ..._errors import (
    DatabaseBusy,
    DatabaseUnavailable,
    DatabaseUnusable,
    InvalidState,
    InvalidType,
    InvalidValue,
)
from .locks import SharedFile, shared_file

__all__ = [
    "Connection",
    "Database",
    "execute_within",
    "in_transaction",
    "require_connection",
    "require_transaction",
    "settled",
    "translate",
]

T = TypeVar("T")

OLDEST_SQLITE = (3, 37, 0)
"""The first version with STRICT tables."""

_CALL = "-- call a function on the database thread"
_LOCK_STEP = 0.1
"""Seconds of waiting for another process's lock at a time; then look whether to give up."""

_BUSY, _LOCKED, _IO_ERROR, _FULL, _BUSY_SNAPSHOT = 5, 6, 10, 13, 517


class _CallingConnection(sqlite3.Connection):
    """A connection whose `execute(_CALL, (function,))` runs a function instead of a statement.

    That gives several statements, BEGIN to COMMIT, in one hop by aiosqlite's public calls.
    """

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        if sql is _CALL:
            return _Answer(parameters[0](self))
        return super().execute(sql, parameters)


class _Answer(Generic[T]):
    """What `execute_fetchall` takes for a cursor."""

    def __init__(self, value: T) -> None:
        self._value = value

    def fetchall(self) -> list[T]:
        return [self._value]


class Connection:
    """An aiosqlite connection that runs whole functions on its thread, come what may."""

    def __init__(
        self, inner: aiosqlite.Connection, raw: sqlite3.Connection, thread: threading.Thread
    ) -> None:
        self._inner = inner
        self._thread = thread
        self.raw = raw

    @classmethod
    async def open(cls, path: str) -> Connection:
        """Open a file; nothing is read or written yet."""
        made: list[tuple[sqlite3.Connection, threading.Thread]] = []

        def factory(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            made.append((_CallingConnection(*args, **kwargs), threading.current_thread()))
            return made[0][0]

        def create() -> aiosqlite.Connection:
            return aiosqlite.connect(
                path, factory=factory, isolation_level=None, check_same_thread=False, timeout=_LOCK_STEP
            )

        inner = _in_daemon_thread(create)
        await inner
        return cls(inner, *made[0])

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on the database thread and return what it returns or raises.

        A cancelled caller is kept until the function has ended, and cancelled then: what the
        thread does cannot be undone by not listening.
        """
        answers: list[tuple[Any, BaseException | None]] = []

        def run(raw: sqlite3.Connection) -> None:
            try:
                answers.append((function(raw), None))
            except BaseException as error:  # carried over to the caller, StopIteration included
                answers.append((None, error))

        try:
            await self._inner.execute_fetchall(_CALL, (run,))
        except asyncio.CancelledError:
            while not answers:
                await self._drain()
            raise
        value, error = answers[0]
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    async def _drain(self) -> None:
        """Wait until the thread has answered all calls so far: it answers them in their order."""
        await _outlast(asyncio.ensure_future(self._inner.execute_fetchall(_CALL, (_nothing,))))

    async def close(self) -> None:
        """Close the connection and end its thread."""
        closing = asyncio.ensure_future(self._inner.close())
        await _outlast(closing)
        closing.result()
        self._thread.join()  # which has nothing left to do

    def close_soon(self) -> None:
        """Close the connection and end its thread, without waiting; from any thread."""
        self._inner.stop()


def _nothing(raw: sqlite3.Connection) -> None:
    pass


async def _outlast(future: asyncio.Future[Any]) -> None:
    """Wait for a future through any number of cancellations."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])


def _in_daemon_thread(function: Callable[[], T]) -> T:
    """Call a function in a daemon thread, so that threads it makes are daemons too.

    A database thread that nobody has closed must not keep the interpreter from exiting.
    """
    made: list[T] = []
    thread = threading.Thread(target=lambda: made.append(function()), daemon=True)
    thread.start()
    thread.join()
    return made[0]


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
                if _code(error) not in (_BUSY, _LOCKED):
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
    if not create and not os.path.exists(path):
        raise DatabaseUnusable(path, "does not exist; run await client.install() or Client(install=True)")


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


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
    if code in (_BUSY, _LOCKED):
        return DatabaseBusy(
            f"database {path!r} stayed locked beyond the busy timeout: some connection keeps a write"
            " transaction open; most often it is the caller's own, not yet committed"
        )
    if code in (_IO_ERROR, _FULL):
        return DatabaseUnavailable(f"database {path!r}: {error}")
    return DatabaseUnusable(path, str(error))


def require_connection(connection: object) -> None:
    """Raise unless this is an aiosqlite connection."""
    if not isinstance(connection, aiosqlite.Connection):
        raise InvalidType(f".tx() takes an aiosqlite.Connection, not {connection!r}")


async def require_transaction(connection: aiosqlite.Connection, path: str) -> None:
    """Raise unless a connection to this very file has a transaction open."""
    if not in_transaction(connection):
        raise InvalidState(
            "the connection given to .tx() has no open transaction; begin one with"
            " await connection.execute('BEGIN IMMEDIATE') and commit it afterwards"
        )
    if connection not in _main_files:
        _main_files[connection] = await _main_file(connection)
    if _main_files[connection] != os.path.realpath(path):
        raise InvalidValue(f"the connection given to .tx() is not one to this client's database {path!r}")


_main_files: WeakKeyDictionary[aiosqlite.Connection, str] = WeakKeyDictionary()


async def _main_file(connection: aiosqlite.Connection) -> str:
    """Return the file of a connection's main database, whatever its rows are made into.

    A plain PRAGMA, because a SELECT would begin to read: a write after that does not wait for locks.
    """
    async with await connection.cursor() as cursor:
        cursor.row_factory = None
        await cursor.execute("PRAGMA database_list")
        rows = await cursor.fetchall()
    files = {_str(row[1]): _str(row[2]) for row in rows}
    return os.path.realpath(files["main"]) if files.get("main") else ""


def _str(value: str | bytes | None) -> str:
    return os.fsdecode(value or "")


def in_transaction(connection: aiosqlite.Connection) -> bool:
    """Return whether a connection is open and inside a transaction. No hop, no SQL."""
    try:
        return connection.in_transaction
    except (ValueError, sqlite3.ProgrammingError):  # closed, or being closed
        return False


async def settled(connection: aiosqlite.Connection) -> None:
    """Wait until the connection's thread has done what it was doing.

    SQLite leaves its transaction, by this flag, *before* COMMIT has written and synced: only what
    is asked of the same thread afterwards comes after it.
    """
    with contextlib.suppress(ValueError, sqlite3.Error):  # closed: then it is done, too
        await connection.execute_fetchall("SELECT 1 WHERE 0")  # no row, no row factory


async def execute_within(connection: aiosqlite.Connection, path: str, sql: str, parameters: Any) -> None:
    """Run one statement inside the caller's transaction."""
    try:
        await connection.execute_fetchall(sql, parameters)
    except sqlite3.Error as error:
        raise translate(error, path) from error
