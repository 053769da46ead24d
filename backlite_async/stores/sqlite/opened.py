"""A store that can be opened: its connections, its presence among others, and how it calls them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from ..._errors import BackliteError, DatabaseUnusable, InvalidState
from ..._job import JobStatus, Owner
from . import rows, schema
from .callers import TransactionWatch
from .commits import Committer
from .database import Database, fail
from .presence import Presence

__all__ = ["OpenStore"]

T = TypeVar("T")


class OpenStore:
    """A SQLite file that is open: what reads, what writes, who is told."""

    def __init__(self, path: str, *, durability: str, busy_timeout: float) -> None:
        self._database = Database(path, synchronous=durability.upper(), busy_timeout=busy_timeout)
        self._callbacks: set[Callable[[], None]] = set()
        self._commits: Committer | None = None
        self._presence: Presence | None = None

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back, in the event loop of `open`, when jobs may have become due by others' doing."""
        self._callbacks.add(callback)

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Undo `listen`."""
        self._callbacks.discard(callback)

    async def open(
        self, *, install: bool, owner: Owner | None = None, gone: Callable[[], None] | None = None
    ) -> None:
        """Open, and install or check the schema."""
        database = self._database
        await database.open(create=install)
        try:
            await _blocking(database, schema.install if install else schema.check)
            if owner is not None:
                self._presence = Presence(
                    database.folder, database.file, owner, rung=self._called, gone=gone or self._called
                )
        except BaseException as error:
            await database.close()
            if isinstance(error, OSError):
                reason = f"no files can be made in {database.folder!r}: {error.strerror}"
                raise DatabaseUnusable(database.path, reason) from error
            raise
        self._commits = Committer(database)
        self._watch = TransactionWatch(self._ring_all, self._visible)
        loop = asyncio.get_running_loop()

        def ring() -> None:
            with contextlib.suppress(RuntimeError):  # a loop that was closed without stopping us
                loop.call_soon_threadsafe(self._called)

        database.file.listen(self, ring)

    def _called(self) -> None:
        for callback in list(self._callbacks):
            callback()

    def _ring(self) -> None:
        """Tell all others, in this process and elsewhere, that there may be jobs."""
        self._database.file.ring(but=self)
        if self._presence is not None:
            self._presence.ring()

    def _ring_all(self, claimed: bool = False) -> None:
        """Tell everybody, ourselves without a detour, unless we have looked already."""
        if not claimed:
            self._called()
        self._ring()

    async def install(self) -> None:
        """Install or migrate the schema without opening the store."""
        database = Database(self._database.path, synchronous="FULL", busy_timeout=self._database.busy_timeout)
        await database.open()
        try:
            await _blocking(database, schema.install)
        finally:
            await database.close()

    async def close(self, *, lend: bool = False) -> None:
        """Close in good order; what was accepted before is written first."""
        keep = lend
        if self._commits is not None:
            self._database.file.unlisten(self)
            await self._watch.close()
            await self._commits.close()
            keep = keep or await self._holds_claims()
        if self._presence is not None:
            self._presence.detach()
        if not lend:
            self._leave(keep=keep)
            await self._database.close()

    async def _holds_claims(self) -> bool:
        """Return whether claims or watches of ours are left, for others to end: then our file stays."""
        if self._presence is None:
            return False
        owner = self._presence.owner.id
        try:
            return await self._database.read(lambda raw: rows.holds_claims(raw, owner))
        except BackliteError:
            return True

    def _leave(self, *, keep: bool) -> None:
        presence, self._presence = self._presence, None
        if presence is not None:
            presence.close(keep=keep)

    def close_soon(self) -> None:
        """Close what `close(lend=True)` left open."""
        self._leave(keep=True)
        self._database.close_soon()

    def abandon(self) -> None:
        """Give up waiting for locks from now on."""
        self._database.abandon()

    def _writing(self) -> Committer:
        if self._commits is None:
            raise InvalidState("the store is not open")
        return self._commits

    def _transact(self, function: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        try:
            return self._database.transact(function, durable=durable)
        except Exception as error:
            fail(error, self._database.path)

    def _ordered(self, claimed: bool) -> None:
        """Tell everybody of orders, ourselves too: a claim beside them was asked for before."""
        self._ring_all()

    async def _visible(self, job_id: str) -> bool:
        found = await self._database.read(lambda raw: rows.status(raw, job_id, 0))
        return found is not JobStatus.NOT_FOUND


async def _blocking(database: Database, function: Callable[[Database], None]) -> None:
    """Run a blocking function on the thread of the writing connection."""

    def run(raw: sqlite3.Connection) -> None:
        try:
            function(database)
        except Exception as error:
            fail(error, database.path)

    await database.writer.call(run)
