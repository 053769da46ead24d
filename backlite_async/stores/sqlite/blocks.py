"""Transactions of handlers: their writes and their job's completion, in one commit."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..._errors import InvalidState
from .connection import Connection
from .database import Database, fail

if TYPE_CHECKING:
    import aiosqlite

__all__ = ["Block"]


class Block:
    """An open write transaction on a connection of its own, which its user cannot end.

    Nor can statements follow that are not part of it, after SQLite has rolled it back because of an
    error: no statement is prepared then, and none is kept prepared.
    """

    def __init__(self, database: Database, connection: Connection, limit: float) -> None:
        self._database = database
        self._connection = connection
        self._timer = threading.Timer(limit, self._end)
        self._timer.daemon = True
        self._ender: int | None = None
        self.overdue = self.committed = False

    @classmethod
    async def begin(cls, database: Database, limit: float) -> Block:
        """Begin the transaction; it may be open for `limit` seconds. Raises `DatabaseBusy`."""
        database.check_same_file()
        connection = await Connection.open(database.path, cached_statements=0)
        block = cls(database, connection, limit)
        try:
            await connection.call(block._begin)
        except BaseException as error:
            await block.close()
            fail(error, database.path)
        return block

    def _begin(self, raw: sqlite3.Connection) -> None:
        raw.execute("PRAGMA synchronous = " + self._database.synchronous)
        raw.execute("PRAGMA wal_autocheckpoint = 0")

        def attempt() -> None:
            with self._database.file.lock, self._database.file.turn(self._database.abandoned):
                raw.execute("BEGIN IMMEDIATE")

        self._database.patiently(attempt)
        raw.set_authorizer(self._authorize)
        self._timer.start()

    def _authorize(self, action: int, *_: object) -> int:
        if action == sqlite3.SQLITE_TRANSACTION:
            allowed = threading.get_ident() == self._ender
        else:
            allowed = self._connection.raw.in_transaction
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    @property
    def connection(self) -> aiosqlite.Connection:
        """The connection for the handler's own statements."""
        return self._connection.inner

    async def commit(self, complete: Callable[[sqlite3.Connection], bool]) -> None:
        """Complete the job and commit, unless it is no longer ours, or overdue: nothing is left then."""
        try:
            await self._connection.call(lambda raw: self._commit(raw, complete))
        except sqlite3.Error as error:
            fail(error, self._database.path)
        except ValueError as error:  # aiosqlite's
            raise InvalidState(
                "the connection of a job.transaction() was closed inside the block, and nothing of it is"
                " written; leave it open, it is closed at the end of the block"
            ) from error
        finally:
            await self.close()

    def _commit(self, raw: sqlite3.Connection, complete: Callable[[sqlite3.Connection], bool]) -> None:
        with self._connection.in_use:
            self._ender = threading.get_ident()
            self._database.check_same_file()
            if self.overdue:
                return
            if not raw.in_transaction:
                raise sqlite3.OperationalError(
                    "the transaction was rolled back by SQLite after an error in it"
                )
            if complete(raw):
                raw.execute("COMMIT")
                self.committed = True
            else:
                raw.execute("ROLLBACK")

    async def close(self) -> None:
        """Roll back what is not committed, and close; a statement that runs is interrupted."""
        self._timer.cancel()
        if not self.committed:
            with contextlib.suppress(sqlite3.Error):  # closed already
                self._connection.raw.interrupt()
        await self._connection.close()

    def _end(self) -> None:
        """Roll back as the time is up, in a thread: the handler may block the loop that should do it."""
        if not self._connection.in_use.acquire(blocking=False):
            return  # it is being committed, or closed
        try:
            self._ender = threading.get_ident()
            self.overdue = not self.committed
            with contextlib.suppress(sqlite3.Error):  # an interrupted write rolls back by itself
                self._connection.raw.interrupt()
                self._connection.raw.execute("ROLLBACK")
        finally:
            self._connection.in_use.release()
