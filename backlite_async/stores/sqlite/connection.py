"""The only module that knows aiosqlite: our connections, one hop a call, and those of our callers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import aiosqlite

from ..._errors import InvalidState, InvalidType, InvalidValue
from .locks import not_in_children

__all__ = [
    "Connection",
    "in_transaction",
    "require_connection",
    "require_transaction",
    "settled",
]

T = TypeVar("T")

_CALL = "-- call a function on the database thread"
CLOSING = 0.001
"""Seconds between two looks for the answers of a connection that is being closed."""

_OPTIONS: dict[str, Any] = {"isolation_level": None, "timeout": 0.1}
"""How a connection is opened: it waits 0.1 s for a lock at a time; then we look whether to give up."""


class _CallingConnection(sqlite3.Connection):
    """A connection whose `execute(_CALL, (function,))` runs a function instead of a statement.

    That gives several statements, BEGIN to COMMIT, in one hop by aiosqlite's public calls.
    Who uses it from another thread holds `in_use`: to be closed meanwhile would end the process.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.in_use = threading.Lock()

    def close(self) -> None:
        """Close, once no other thread uses it."""
        with self.in_use:
            super().close()

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
        self, path: str, inner: aiosqlite.Connection, raw: _CallingConnection, thread: threading.Thread
    ) -> None:
        self._path = path
        self.inner = inner
        self._thread = thread
        self._first = raw
        self.raw: sqlite3.Connection = raw
        not_in_children(self)

    @property
    def in_use(self) -> threading.Lock:
        """The lock to hold where another thread than the connection's own uses it."""
        return self._first.in_use

    @classmethod
    async def open(cls, path: str, *, cached_statements: int = 128) -> Connection:
        """Open a file; nothing is read or written yet."""
        made: list[tuple[_CallingConnection, threading.Thread]] = []

        def factory(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            made.append((_CallingConnection(*args, **kwargs), threading.current_thread()))
            return made[0][0]

        def create() -> aiosqlite.Connection:
            options = {"cached_statements": cached_statements, **_OPTIONS}
            return aiosqlite.connect(path, factory=factory, check_same_thread=False, **options)

        inner = _in_daemon_thread(create)
        opening = asyncio.ensure_future(inner)
        cancelled = await _outlast(opening)
        if opening.cancelled():  # by the end of the loop, maybe before it had begun
            with contextlib.suppress(Exception):
                inner.stop()
        opening.result()
        connection = cls(path, inner, *made[0])
        if cancelled:
            await connection.close()
            raise asyncio.CancelledError
        return connection

    async def call(
        self, function: Callable[[sqlite3.Connection], T], *, cancelled: Callable[[], None] | None = None
    ) -> T:
        """Run a function on the database thread and return what it returns or raises.

        A cancelled caller is kept until the function has ended, and cancelled then: what the
        thread does cannot be undone by not listening. `cancelled` may tell it to hurry.
        """
        answers: list[tuple[Any, BaseException | None]] = []

        def run(_: sqlite3.Connection) -> None:
            try:
                answers.append((function(self.raw), None))
            except BaseException as error:  # carried over to the caller, StopIteration included
                answers.append((None, error))

        try:
            await self.inner.execute_fetchall(_CALL, (run,))
        except asyncio.CancelledError:
            if cancelled is not None:
                cancelled()
            while not answers:
                await self._drain()
            raise
        value, error = answers[0]
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    async def _drain(self) -> None:
        """Wait until the thread has answered all calls so far: it answers them in their order.

        While the connection is being closed it takes no more calls, but answers those that it has.
        """
        draining = asyncio.ensure_future(self.inner.execute_fetchall(_CALL, (_nothing,)))
        await _outlast(draining)
        if not draining.cancelled() and draining.exception() is not None:
            await _outlast(asyncio.ensure_future(asyncio.sleep(CLOSING)))

    async def close(self) -> None:
        """Close the connection and end its thread; a cancelled caller is kept until then."""
        closing = asyncio.ensure_future(self.inner.close())
        cancelled = await _outlast(closing)
        self._close_raw()
        if closing.cancelled():  # by the end of the loop, maybe before it had begun
            self.inner.stop()
        self._thread.join()  # which has nothing left to do
        closing.result()
        if cancelled:
            raise asyncio.CancelledError

    def close_soon(self) -> None:
        """Close the connection and end its thread, without waiting; from any thread."""
        self._close_raw()
        self.inner.stop()

    def reopen(self) -> None:
        """Replace SQLite's connection by a new one; blocking, by whoever may use it now.

        The first one stays with aiosqlite, closed, as the way to its thread. The new one has read
        before the old one is closed: the last one to be closed would remove the log.
        """
        fresh = sqlite3.connect(self._path, check_same_thread=False, **_OPTIONS)
        try:
            fresh.execute("PRAGMA user_version").fetchall()
        except BaseException:
            fresh.close()
            raise
        broken, self.raw = self.raw, fresh
        with contextlib.suppress(sqlite3.Error):
            broken.close()

    def _close_raw(self) -> None:
        if self.raw is not self._first:
            self.raw.close()

    def forget(self) -> None:
        """Keep what a forked child has inherited: SQLite forbids it even to close it."""
        _inherited.append(self)


_inherited: list[Connection] = []


def _nothing(raw: sqlite3.Connection) -> None:
    pass


async def _outlast(future: asyncio.Future[Any]) -> bool:
    """Wait for a future through any number of cancellations; return whether there were any."""
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


def _in_daemon_thread(function: Callable[[], T]) -> T:
    """Call a function in a daemon thread, so that threads it makes are daemons too.

    A database thread that nobody has closed must not keep the interpreter from exiting.
    """
    made: list[T] = []
    thread = threading.Thread(target=lambda: made.append(function()), daemon=True)
    thread.start()
    thread.join()
    return made[0]


def require_connection(connection: object) -> None:
    """Raise unless this is an aiosqlite connection."""
    if not isinstance(connection, aiosqlite.Connection):
        raise InvalidType(f".tx() takes an aiosqlite.Connection, not {connection!r}")


async def require_transaction(connection: aiosqlite.Connection, path: str) -> None:
    """Raise unless a connection to this very file has a transaction open."""
    if not is_open(connection):
        raise InvalidState("the connection given to .tx() is not open; await aiosqlite.connect(...) first")
    if not in_transaction(connection):
        raise InvalidState(
            "the connection given to .tx() has no open transaction; begin one with"
            " await connection.execute('BEGIN IMMEDIATE') and commit it afterwards"
        )
    if connection not in _main_files:
        _main_files[connection] = await _main_file(connection)
    if _main_files[connection] != os.path.realpath(path):
        raise InvalidValue(
            f"the connection given to .tx() is one to {_main_files[connection] or 'a temporary database'!r},"
            f" not to this client's database {path!r}"
        )


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


def is_open(connection: aiosqlite.Connection) -> bool:
    """Return whether a connection has been opened and not closed. No hop, no SQL."""
    try:
        return connection.total_changes >= 0
    except (ValueError, sqlite3.ProgrammingError):
        return False


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
