"""The SQLite store: every method one transaction in one hop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ..._graph import NewWorkflow
from ..._inspection import Inspection
from ..._job import (
    Cancelled,
    Claim,
    ClaimedJob,
    Declared,
    Hands,
    Job,
    JobStatus,
    Lane,
    Limit,
    NewJob,
    Orders,
    Outcome,
    Queue,
    Unique,
)
from ..._stats import MOST_COUNTED
from . import claims, control, finishing, history, records, rows
from . import unique as unique_jobs
from . import workflows as flows
from .backup import backup
from .blocks import Block
from .connection import require_connection, require_transaction
from .database import fail
from .hazards import hazards
from .inspect import inspect, versions
from .listing import ListingStore, at_one_instant
from .owners import Dead
from .schedules import ScheduleStore
from .service import ServiceStore
from .sql import statements
from .vacuum import vacuum

__all__ = ["SQLiteStore"]


class SQLiteStore(ServiceStore, ListingStore, ScheduleStore):
    """Keeps jobs in a SQLite file that other processes, and the application, may use too."""

    shared = True

    def hazards(self) -> Sequence[str]:
        """Return what is dangerous about this database or this SQLite."""
        found = hazards(self._database.path)
        if self._presence is not None and self._presence.trouble:
            found.append(self._presence.trouble)
        return found

    # -- whatever it is, open or not ---------------------------------------------------------------

    async def inspect(self, *, now: int, ended_by: int, late_by: int) -> Inspection:
        """Look at the file, and change nothing."""
        database = self._database
        look = partial(inspect, database.path, busy_timeout=database.busy_timeout)
        return await asyncio.to_thread(look, now=now, ended_by=ended_by, late_by=late_by)

    async def versions(self) -> tuple[int, int]:
        """Return the version of the schema, and the newest one."""
        database = self._database
        return await asyncio.to_thread(versions, database.path, busy_timeout=database.busy_timeout)

    async def vacuum(self) -> None:
        """Build the file anew."""
        self._writing()
        await vacuum(self._database)

    # -- owners ------------------------------------------------------------------------------------

    def handles(self, owner: str, hands: Hands) -> None:
        """Let others know which kinds of jobs we run."""
        if self._presence is not None:
            self._presence.handles(hands)

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

    async def add(
        self, jobs: Sequence[NewJob], *, workflows: Sequence[NewWorkflow] = (), again: bool = False
    ) -> None:
        """Store pending jobs, and workflows with theirs, all or none."""
        if workflows:
            add_all = partial(flows.add, jobs=jobs, workflows=workflows, again=again)
            await self._writing().submit(add_all, committed=self._ring_all)
            return
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
        workflows: Sequence[NewWorkflow] = (),
        unique: Unique | None = None,
        now: int = 0,
        again: bool = False,
    ) -> str | None:
        """Store pending jobs, and workflows, inside the open transaction of an `aiosqlite.Connection`."""
        self.check_connection(connection)
        path = self._database.path
        await require_transaction(connection, path)
        last = jobs or [job for workflow in workflows[-1:] for job in workflow.jobs]
        self._watch.watch(connection, last[-1].id)
        try:
            if unique is not None:
                return await unique_jobs.add_unique_within(connection, jobs[0], unique, now=now, again=again)
            if workflows:
                return await unique_jobs.add_workflows_within(connection, jobs, workflows, again=again)
            if history.tagged(jobs):
                return await unique_jobs.add_tagged_within(connection, jobs, again=again)
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
        finish = finishing.Finish(outcomes)
        return await self._writing().submit(finish, committed=partial(self._finished, finish), insist=True)

    def _finished(self, finish: finishing.Finish, claimed: bool = False) -> None:
        """Tell the others of jobs that may be due, and of places and ends that they may wait for."""
        if finish.watched:
            self._ring_all()
        elif finish.releases:
            self._ring_all(claimed)
        elif finish.rings:
            self._ring()

    def finish_now(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Do what `finish` does, blocking, from any thread."""
        finish = finishing.Finish(outcomes)
        lost = self._transact(finish)
        if finish.watched or finish.releases:
            self._database.file.ring()  # not from here: our listeners live in their event loop
        if finish.watched or finish.rings:
            self._ring()
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

    async def running(self, queue: str) -> int:
        """Return how many jobs of a queue are claimed."""
        return await self._database.read(lambda raw: control.running(raw, queue))

    async def queues(
        self, *, now: int, most: int = MOST_COUNTED, queue: str | None = None
    ) -> Sequence[Queue]:
        """Return how the queues are doing."""
        read = partial(control.queues, now=now, most=most, queue=queue)
        return await self._database.read(lambda raw: at_one_instant(raw, read))

    async def oldest_due(self, kinds: Sequence[tuple[str, str]]) -> int | None:
        """Return when the first pending job of these queues and tasks is due; None: there is none."""
        return await self._database.read(lambda raw: control.oldest_due(raw, kinds))

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

    async def get(self, job_id: str, *, now: int, cut: int | None = None) -> Job | None:
        """Return a job's record."""
        return await self._database.read(lambda raw: records.get(raw, job_id, now, cut))

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
        expire = partial(flows.expire, now=now, limit=limit)
        return await self._writing().submit(expire, durable=False)


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
            await self._block.commit(lambda raw: not finishing.finish(raw, outcomes=[outcome]))
        finally:
            if self.committed:
                self._store._ring_all()

    async def rollback(self) -> None:
        """Undo all of it."""
        await self._block.close()
