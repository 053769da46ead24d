"""The SQLite store: every method one transaction in one hop."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from ..._errors import BackliteError, DatabaseUnusable, InvalidState
from ..._job import (
    Cancelled,
    Claim,
    ClaimedJob,
    Complete,
    Declared,
    Job,
    JobStatus,
    Lane,
    Limit,
    NewJob,
    Orders,
    Outcome,
    Owner,
    Queue,
    Unique,
)
from . import claims, control, rows, schema
from . import unique as unique_jobs
from .backup import backup
from .blocks import Block
from .callers import TransactionWatch
from .commits import Committer
from .connection import require_connection, require_transaction
from .database import Database, fail
from .hazards import hazards
from .owners import Dead
from .presence import Presence
from .sql import statements

__all__ = ["SQLiteStore"]

T = TypeVar("T")


class SQLiteStore:
    """Keeps jobs in a SQLite file that other processes, and the application, may use too."""

    shared = True

    def __init__(self, path: str, *, durability: str, busy_timeout: float) -> None:
        self._database = Database(path, synchronous=durability.upper(), busy_timeout=busy_timeout)
        self._callbacks: set[Callable[[], None]] = set()
        self._commits: Committer | None = None
        self._presence: Presence | None = None

    # -- opening and closing -----------------------------------------------------------------------

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
        """Return whether claims of ours are left, which others are to release: then our file stays."""
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

    def hazards(self) -> Sequence[str]:
        """Return what is dangerous about this database or this SQLite."""
        found = hazards(self._database.path)
        if self._presence is not None and self._presence.trouble:
            found.append(self._presence.trouble)
        return found

    # -- owners ------------------------------------------------------------------------------------

    @property
    def rings(self) -> bool:
        """Whether others tell us at once of what they add, and of their end."""
        return self._presence is not None and self._presence.rings

    def started(self, job_id: str, fence: int) -> None:
        """Write down that a handler starts."""
        if self._presence is not None:
            self._presence.started(job_id, fence)

    def ended(self, job_id: str, fence: int) -> None:
        """Cross it out again."""
        if self._presence is not None:
            self._presence.ended(job_id, fence)

    def dead_owners(self) -> Sequence[Dead]:
        """Take charge of the owners that died."""
        return [] if self._presence is None else self._presence.dead()

    def beat_of(self, owner: str) -> float | None:
        """Return the seconds between two renewals of an owner; 0: it has died; None: not known."""
        return None if self._presence is None else self._presence.beat(owner)

    def leads(self) -> bool:
        """Return whether upkeep is ours to do."""
        return self._presence is None or self._presence.leads()

    @property
    def writing(self) -> bool:
        """Whether a group of writes is on its way."""
        return self._commits is not None and self._commits.writing

    # -- the life of a job -------------------------------------------------------------------------

    async def add(self, jobs: Sequence[NewJob], *, again: bool = False) -> None:
        """Store pending jobs, all or none."""
        add = rows.add_again if again else rows.add
        await self._writing().submit(add, batch=jobs, committed=self._ring_all)

    def check_connection(self, connection: object) -> None:
        """Raise unless this is an `aiosqlite.Connection`."""
        require_connection(connection)

    async def add_unique(self, job: NewJob, unique: Unique, *, now: int, again: bool = False) -> str | None:
        """Store a pending job, unless there is one that `unique` names."""
        add = partial(unique_jobs.add_unique, job=job, unique=unique, now=now, again=again)
        return await self._writing().submit(add, committed=self._ring_all)

    async def add_within(
        self,
        connection: Any,
        jobs: Sequence[NewJob],
        *,
        unique: Unique | None = None,
        now: int = 0,
        again: bool = False,
    ) -> str | None:
        """Store pending jobs inside the open transaction of an `aiosqlite.Connection`."""
        self.check_connection(connection)
        path = self._database.path
        await require_transaction(connection, path)
        self._watch.watch(connection, jobs[-1].id)
        try:
            if unique is not None:
                return await unique_jobs.add_unique_within(connection, jobs[0], unique, now=now, again=again)
            name = "add_again" if again else "add_from_array"
            await connection.execute_fetchall(statements()[name], {"jobs": rows.added(jobs)})
        except sqlite3.Error as error:
            fail(error, path)
        return None

    async def claim(
        self,
        lanes: Sequence[Lane],
        *,
        owner: str,
        now: int,
        until: int,
        limits: Sequence[Limit] = (),
        taking: Callable[[Sequence[ClaimedJob]], None] | None = None,
    ) -> Claim:
        """Take due jobs; look first, without the write lock, whether there are any."""
        claim = partial(
            claims.claim, lanes=lanes, owner=owner, now=now, until=until, limits=limits, taking=taking
        )
        look = partial(claims.look, lanes=lanes, owner=owner, now=now, limits=limits)
        return await self._writing().submit(claim, look=look, durable=False, claims=True, insist=True)

    async def claims_of(self, owner: str) -> Sequence[ClaimedJob]:
        """Return what an owner has claimed."""
        return await self._database.read(lambda raw: rows.claims_of(raw, owner))

    async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Write outcomes; return the ids of those whose claim is no longer theirs."""
        finish = partial(rows.finish, outcomes=outcomes)
        return await self._writing().submit(finish, committed=partial(self._finished, outcomes), insist=True)

    def _finished(self, outcomes: Sequence[Outcome], claimed: bool = False) -> None:
        """Tell the others where there are jobs that may be due, or a place that they may wait for."""
        if any(outcome.frees or not isinstance(outcome, Complete) for outcome in outcomes):
            self._ring()

    def finish_now(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Do what `finish` does, blocking, from any thread."""
        lost = self._transact(partial(rows.finish, outcomes=outcomes))
        self._finished(outcomes)
        return lost

    def renew(self, claims: Iterable[tuple[str, int]], *, until: int) -> set[str]:
        """Extend leases, blocking, from any thread."""
        renew = partial(rows.renew, fences=dict(claims), until=until)
        return self._transact(renew, durable=False)

    async def probe(self) -> None:
        """Write nothing, in a transaction, to see whether one can write."""
        await self._writing().submit(lambda raw: None, durable=False)

    async def begin(self, limit: float) -> SQLiteBlock:
        """Begin a write transaction for a handler."""
        self._writing()
        return SQLiteBlock(self, await Block.begin(self._database, limit))

    def _writing(self) -> Committer:
        if self._commits is None:
            raise InvalidState("the store is not open")
        return self._commits

    def _transact(self, function: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        try:
            return self._database.transact(function, durable=durable)
        except Exception as error:
            fail(error, self._database.path)

    # -- control -----------------------------------------------------------------------------------

    async def declare(self, queues: Sequence[Declared], *, now: int) -> None:
        """Remember what is to be known of queues."""
        if not await self._database.read(lambda raw: control.declared(raw, queues)):
            declare = partial(control.declare, queues=queues, now=now)
            await self._writing().submit(declare, durable=False, committed=self._ring_all)

    async def pause(self, queue: str, *, now: int) -> None:
        """Let nothing of a queue be claimed."""
        await self._writing().submit(partial(control.pause, queue=queue, now=now), committed=self._ordered)

    async def resume(self, queue: str) -> None:
        """Undo `pause`."""
        await self._writing().submit(partial(control.resume, queue=queue), committed=self._ordered)

    def _ordered(self, claimed: bool) -> None:
        """Tell everybody of orders, ourselves too: a claim beside them was asked for before."""
        self._ring_all()

    async def running(self, queue: str) -> int:
        """Return how many jobs of a queue are claimed."""
        return await self._database.read(lambda raw: control.running(raw, queue))

    async def queues(self, *, now: int) -> Sequence[Queue]:
        """Return how the queues are doing."""
        return await self._database.read(lambda raw: control.queues(raw, now))

    async def cancel(self, job_ids: Sequence[str], *, now: int) -> Cancelled:
        """End pending jobs as cancelled, and ask for the end of running ones."""
        cancel = partial(control.cancel, job_ids=job_ids, now=now)
        return await self._writing().submit(cancel, committed=self._ordered)

    async def orders(self, owner: str) -> Orders:
        """Return what an owner is to heed."""
        return await self._database.read(lambda raw: control.orders(raw, owner))

    async def note_starts(self, starts: Sequence[tuple[str, int, int]]) -> None:
        """Correct when counted starts were."""
        note = partial(control.note_starts, starts=starts)
        await self._writing().submit(note, durable=False, committed=self._ring_all)

    async def end_starts(self, owners: Sequence[str], *, now: int) -> None:
        """Count what owners that have died may have started as started by now."""
        end = partial(control.end_starts, owners=list(owners), now=now)
        await self._writing().submit(end, durable=False, committed=self._ring_all)

    def ring(self) -> None:
        """Tell the others to look."""
        self._ring()

    # -- queries and upkeep ------------------------------------------------------------------------

    async def status(self, job_id: str, *, now: int) -> JobStatus:
        """Return where a job is in its life."""
        return await self._database.read(lambda raw: rows.status(raw, job_id, now))

    async def get(self, job_id: str, *, now: int) -> Job | None:
        """Return a job's record."""
        return await self._database.read(lambda raw: rows.get(raw, job_id, now))

    async def kinds(self) -> Sequence[tuple[str, str]]:
        """Return the queues and task names that have pending jobs with a due time."""
        return await self._database.read(rows.kinds)

    async def next_expiry(self) -> int | None:
        """Return the instant at which the next completed job expires."""
        return await self._database.read(rows.next_expiry)

    async def shift_waits(self, *, now: int, by: int) -> int:
        """Let waits go on as they were meant after a step of the wall clock."""
        if by == 0:
            if not await self._database.read(lambda raw: rows.waits_ahead(raw, now)):
                return 0
        elif self._presence is not None and not (self._presence.locks and self._presence.leads()):
            self._ring()  # one does it for all, and nobody where that cannot be told
            return 0
        shift = partial(rows.shift_waits, now=now, by=by)
        return await self._writing().submit(shift, durable=False, committed=self._ring_all)

    async def backup(self, path: str) -> None:
        """Copy the database to a new file."""
        self._writing()
        await backup(self._database, path)

    async def expire(self, *, now: int, limit: int) -> int:
        """Remove completed jobs that have expired."""
        expire = partial(rows.expire, now=now, limit=limit)
        return await self._writing().submit(expire, durable=False)

    async def _visible(self, job_id: str) -> bool:
        return await self.status(job_id, now=0) is not JobStatus.NOT_FOUND


class SQLiteBlock:
    """A handler's transaction, for those who know of no database."""

    def __init__(self, store: SQLiteStore, block: Block) -> None:
        self._store = store
        self._block = block

    @property
    def connection(self) -> Any:
        """The connection for the handler's own statements."""
        return self._block.connection

    @property
    def overdue(self) -> bool:
        """Whether it was rolled back because it was open for too long."""
        return self._block.overdue

    @property
    def committed(self) -> bool:
        """Whether it has been committed."""
        return self._block.committed

    async def commit(self, outcome: Outcome) -> None:
        """Write the outcome and commit."""
        try:
            await self._block.commit(lambda raw: not rows.finish(raw, outcomes=[outcome]))
        finally:
            if self.committed:
                self._store._ring_all()

    async def rollback(self) -> None:
        """Undo all of it."""
        await self._block.close()


async def _blocking(database: Database, function: Callable[[Database], None]) -> None:
    """Run a blocking function on the thread of the writing connection."""

    def run(raw: sqlite3.Connection) -> None:
        try:
            function(database)
        except Exception as error:
            fail(error, database.path)

    await database.writer.call(run)
