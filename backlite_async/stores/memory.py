"""Jobs in dicts: the readable specification of what a store does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import msgspec

from .._errors import InvalidState
from .._graph import NewWorkflow
from .._inspection import Inspection
from .._job import (
    Cancelled,
    Claim,
    ClaimedJob,
    Complete,
    Declared,
    Hands,
    Job,
    JobStatus,
    Lane,
    Lapsed,
    Limit,
    NewJob,
    Orders,
    Outcome,
    Owner,
    Reschedule,
    Unique,
)
from . import _flows
from ._base import STEP_NOTICE, Dead, id_taken, step_of_wait
from ._memory_schedules import MemorySchedules
from ._memory_service import Added, cut_record, expired
from ._rows import Row

__all__ = ["MemoryStore"]


class MemoryStore(MemorySchedules):
    """Keeps jobs in this process alone. Nothing is persisted; nothing is shared."""

    shared = False
    writing = False

    def __init__(self) -> None:
        super().__init__()
        self._fence = 0
        self._opens = 0

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back when jobs were added."""
        self._listeners.add(callback)

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Undo `listen`."""
        self._listeners.discard(callback)

    async def open(
        self, *, install: bool, owner: Owner | None = None, gone: Callable[[], None] | None = None
    ) -> None:
        """Remember who it is."""
        self._opens += 1
        if owner is not None:
            self._owners[owner.id] = owner

    def hazards(self) -> Sequence[str]:
        """Return nothing: there is no file."""
        return ()

    async def inspect(self, *, now: int, ended_by: int, late_by: int) -> Inspection:
        """Return what is to be seen of owners and jobs."""
        return await self.seen(now=now, ended_by=ended_by, late_by=late_by)

    async def versions(self) -> tuple[int, int]:
        """Return twice the same: there is no schema."""
        return 0, 0

    async def vacuum(self) -> None:
        """Do nothing: there is no file."""

    def handles(self, owner: str, hands: Hands) -> None:
        """Remember it."""
        self._handled[owner] = hands

    rings = True

    def started(self, job_id: str, fence: int) -> None:
        """Do nothing: what is written here does not outlive this process."""

    def ended(self, job_id: str, fence: int) -> None:
        """Do nothing."""

    def dead_owners(self) -> Sequence[Dead]:
        """Return nobody: none could tell."""
        return ()

    def beat_of(self, owner: str) -> float | None:
        """Return None: clients that share a store in memory know each other by their leases only."""
        return None

    def leads(self) -> bool:
        """Return True: there is no other process."""
        return True

    async def install(self) -> None:
        """Do nothing: there is no schema."""

    async def close(self, *, lend: bool = False) -> None:
        """Keep what is stored until the store itself is gone; once all have closed it, nobody is here."""
        self._opens -= 1
        if self._opens <= 0:
            self._opens = 0
            self._owners.clear()
            self._handled.clear()

    def close_soon(self) -> None:
        """Do nothing: it is closed."""

    def abandon(self) -> None:
        """Do nothing: there is nothing to wait for."""

    async def add(
        self, jobs: Sequence[NewJob], *, workflows: Sequence[NewWorkflow] = (), again: bool = False
    ) -> None:
        """Store pending jobs, and workflows."""
        ids = [job.id for job in jobs]
        for workflow in workflows:
            ids += [workflow.id, *(job.id for job in workflow.jobs)]
        taken = any(job_id in self._live.rows or job_id in self._flows for job_id in ids)
        if not again and (taken or len(set(ids)) < len(ids)):
            raise id_taken()
        for job in jobs:
            if not again or not (job.id in self._live.rows or job.id in self._completed):
                self._add(job)
        for workflow in workflows:
            if workflow.id not in self._flows:
                self._flows.add(workflow)
        self._live.take_turns(jobs, now=max((job.created_at for job in jobs), default=0))
        self._ring()

    def _add(self, job: NewJob) -> None:
        self._live.add(job)
        self._beside.take_tags(job.id, None if job.more is None else job.more.tags)

    async def add_unique(self, job: NewJob, unique: Unique, *, now: int, again: bool = False) -> str | None:
        """Store a pending job, unless there is one that `unique` names."""
        there = self._find(job.id, now)
        if there is None and self._completed.pop(job.id, None) is not None:  # it has expired
            self._forget(job.id)
        if there is not None and again and (not unique.own_id or _same(there, job)):
            return None
        if there is not None and unique.own_id:
            return self._keep_or_replace(job, job.id, replace=unique.replace_own, now=now)
        added = self._unique.get((job.queue, unique.key)) if unique.key is not None else None
        if added is not None and added.id == job.id and again:
            return None
        if added is not None and (self._lives(added) or added.lasts(unique.within, now)):
            return self._keep_or_replace(job, added.id, replace=unique.replace_key, now=now)
        await self.add([job])
        if unique.key is not None:
            until = job.created_at + (unique.within or 0)
            self._unique[job.queue, unique.key] = Added(job.id, job.created_at, until)
        return None

    def _keep_or_replace(self, job: NewJob, job_id: str, *, replace: bool, now: int) -> str:
        """Return the id of a job that is in the way; give it what the new one has, if that is asked for."""
        row = self._live.rows.get(job_id)
        if replace and row is not None and row.status is JobStatus.PENDING and row.workflow is None:
            had_turn = row.due_at is not None
            queue, leaves = row.queue, job.due_at > now or row.kind != (job.queue, job.task)
            self._live.move(row, job.queue)
            if row.due_at is not None or leaves:  # else it waits on
                row.due_at = job.due_at
            row.task, row.payload = job.task, job.payload
            row.scheduled_at, row.waits_from = job.due_at, job.waits_from
            if had_turn and leaves and row.key is not None:
                self._live.let_in(queue, row.key, at=now)
            self._ring()
        return job_id

    def check_connection(self, connection: object) -> None:
        """Refuse: there are no transactions here."""
        raise InvalidState("the memory store has no transactions: .tx() needs a client on a SQLite file")

    async def begin(self, limit: float) -> NoReturn:
        """Refuse: there are no transactions here."""
        raise InvalidState("the memory store has no transactions: job.transaction() needs a SQLite file")

    async def backup(self, path: str) -> None:
        """Refuse: nothing is kept."""
        raise InvalidState("the memory store keeps nothing that could be backed up: use a SQLite file")

    async def probe(self) -> None:
        """Do nothing: one can always write."""

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
        """Refuse: there are no transactions here."""
        self.check_connection(connection)
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
        """Take due jobs."""
        chosen = self._limits.choose(lanes, limits, now=now)
        if chosen:
            self._fence += 1
        for row in chosen:
            row.status, row.fence, row.owner = JobStatus.RUNNING, self._fence, owner
            row.attempt, row.started_at, row.due_at = row.attempt + 1, now, until
        if taking is not None:
            taking([_claimed(row) for row in chosen])
        rates = {limit.queue: limit.rate for limit in limits if limit.rate is not None}
        started = [row for row in chosen if row.queue in rates]
        for queue in {row.queue for row in started}:
            self._limits.starts[queue].forget(rates[queue], now=now)
        starts = {row.id: self._limits.starts[row.queue].take(owner=owner, until=until) for row in started}
        kinds = {kind for lane in lanes for kind in lane.kinds}
        others = [row for row in self._live.running() if row.kind in kinds and row.owner != owner]
        lapsed = [row for row in others if row.until <= now]
        instants = [row.until for row in others if row.until > now]
        instants += self._limits.next_due(lanes, limits, chosen, now=now)
        return Claim(
            jobs=[_claimed(row) for row in chosen],
            lapsed=[Lapsed(job=_claimed(row), owner=str(row.owner), until=row.until) for row in lapsed],
            next_at=min(instants, default=None),
            starts=starts,
        )

    async def claims_of(self, owner: str) -> Sequence[ClaimedJob]:
        """Return what an owner has claimed."""
        return [_claimed(row) for row in self._live.running() if row.owner == owner]

    async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Write outcomes."""
        return self.finish_now(outcomes)

    def finish_now(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Write outcomes."""
        self._flows.stirs = False
        heard = any(self._is_heard(outcome) for outcome in outcomes)
        ends: list[_flows.End] = []
        in_order = sorted(outcomes, key=lambda outcome: isinstance(outcome, Reschedule))
        lost = {outcome.id for outcome in in_order if not self._finish(outcome, ends)}
        self._follow(ends)
        if heard or self._flows.stirs:
            self._ring()
        return lost

    def _is_heard(self, outcome: Outcome) -> bool:
        """Return whether others wait for what an outcome brings."""
        if not isinstance(outcome, Complete):
            return True
        return outcome.frees is not None or outcome.letter is not None or self._beside.watched(outcome.id)

    def _finish(self, outcome: Outcome, ends: list[_flows.End]) -> bool:
        row = self._live.held(outcome.id, outcome.fence)
        if row is None or (outcome.lapsed_by is not None and row.until > outcome.lapsed_by):
            return False
        self._keep_beside(row, outcome)
        row.attempt, row.crashes = outcome.attempt, outcome.crashes
        row.error = row.error if outcome.error is None else outcome.error
        if isinstance(outcome, Complete):
            self._complete(row, outcome)
        else:
            row.status, row.owner, row.started_at = JobStatus.PENDING, None, None
            row.scheduled_at = row.due_at = outcome.due_at
            row.waits_from = outcome.waits_from
            if row.cancelled_at is not None:
                self._cancel(row, outcome.error or "cancelled", row.cancelled_at)
        if outcome.frees is not None and outcome.frees.key is not None:
            self._live.let_in(outcome.frees.queue, outcome.frees.key, at=outcome.frees.at)
        elif row.cancelled_at is not None and row.key is not None:
            self._live.let_in(row.queue, row.key, at=row.cancelled_at)
        if row.ended and row.workflow is not None:
            ends.append(self._flows.end(row, outcome))
            if isinstance(outcome, Complete):
                _flows.extend(self._flows, row.workflow, outcome.extends, outcome.finished_at)
        return True

    def _keep_beside(self, row: Row, outcome: Outcome) -> None:
        """Keep what an attempt has said, how it went wrong, and what it adds to the statistics."""
        if outcome.note is not None:
            self._beside.note(row, outcome.note)
        if outcome.trouble is not None:
            self._beside.keep_error(row, outcome.fence, outcome.trouble)
        if outcome.tally is not None:
            is_cancelled_instead = isinstance(outcome, Reschedule) and row.cancelled_at is not None
            self._tallies.add(outcome.tally, what=not is_cancelled_instead)

    def _complete(self, row: Row, outcome: Complete) -> None:
        row.status, row.duration = outcome.status, outcome.duration
        row.started_at = outcome.started_at if outcome.started_at is not None else row.started_at
        row.result = None if outcome.result is None else outcome.result.encode()
        if row.workflow is not None:  # it may run again, unless it has succeeded
            ok = outcome.status is JobStatus.SUCCEEDED
            row.payload = None if ok and not (outcome.keep and outcome.keep.payload) else row.payload
        elif outcome.keep is not None:
            row.payload = row.payload if outcome.keep.payload else None
            row.expires_at = outcome.keep.until
        self._end(row, keeps=outcome.keep is not None, ended_at=outcome.finished_at)
        letter = outcome.letter
        if letter is not None and letter.id not in self._live.rows and letter.id not in self._completed:
            self._add(letter)

    def renew(self, claims: Iterable[tuple[str, int]], *, until: int) -> set[str]:
        """Extend leases."""
        lost = set()
        for job_id, fence in claims:
            row = self._live.held(job_id, fence)
            if row is None:
                lost.add(job_id)
            else:
                row.due_at = max(row.until, until)
        return lost

    async def status(self, job_id: str, *, now: int) -> JobStatus:
        """Return where a job is in its life."""
        flow, row = self._flows.of(job_id, now), self._find(job_id, now)
        if row is None and flow is not None:
            return self._flows.run(flow, whole=False).status
        return JobStatus.NOT_FOUND if row is None else row.status

    async def get(self, job_id: str, *, now: int, cut: int | None = None) -> Job | None:
        """Return a job's record with its history."""
        row = self._find(job_id, now)
        if row is None:
            return None
        history = self._beside.history(job_id)
        job = cut_record(row, cut)
        unique = self._held_key(row, now)
        return msgspec.structs.replace(job, unique=unique, errors=history.errors, lines=history.lines)

    async def kinds(self) -> Sequence[tuple[str, str]]:
        """Return the queues and task names that have pending jobs."""
        return sorted({row.kind for row in self._live.pending()})

    async def shift_waits(self, *, now: int, by: int) -> int:
        """Let waits go on as they were meant after a step of the wall clock."""
        shifted = 0
        self._limits.shift(now=now, by=by)
        for row in self._live.pending():
            if row.waits_from is not None:
                step = step_of_wait(waits_from=row.waits_from, due_at=row.until, now=now, by=by)
                row.due_at = row.until + step
                row.scheduled_at += step
                row.waits_from += step
                shifted += step != 0
        return shifted

    async def next_expiry(self) -> int | None:
        """Return the instant at which the next completed job expires."""
        instants = [row.expires_at for row in self._completed.values()] + [self._flows.next_expiry()]
        return min((instant for instant in instants if instant is not None), default=None)

    async def expire(self, *, now: int, limit: int) -> int:
        """Remove completed jobs that have expired."""
        gone = [row.id for row in self._completed.values() if expired(row, now)][:limit]
        for job_id in gone:
            del self._completed[job_id]
            self._forget(job_id)
        self._flows.expire(now)
        for place, added in list(self._unique.items()):
            if not self._lives(added) and added.until + STEP_NOTICE <= now:
                del self._unique[place]
        return len(gone)

    async def declare(self, queues: Sequence[Declared], *, now: int) -> None:
        """Remember what is to be known of queues."""
        known = {declared.queue: declared for declared in queues}
        late = [row for row in self._live.waiting() if row.queue in known and known[row.queue].turns is None]
        for row in late:
            row.due_at = row.scheduled_at
        if late or any(self._declared.get(queue) != declared for queue, declared in known.items()):
            self._declared |= known
            for declared in queues:
                self._catalogue(declared, now)
            for row in self._live.waiting():
                turns = known[row.queue].turns if row.queue in known else None
                if row.key is not None and turns is not None:
                    self._live.fill_up(row.queue, row.key, turns, now=now)
        self._ring()

    async def pause(self, queue: str, *, now: int) -> None:
        """Let nothing of a queue be claimed."""
        self._limits.paused.add(queue)
        self._ring()

    async def resume(self, queue: str) -> None:
        """Undo `pause`."""
        self._limits.paused.discard(queue)
        self._ring()

    async def running(self, queue: str) -> int:
        """Return how many jobs of a queue are claimed."""
        return len(self._live.running(queue))

    async def cancel(self, job_ids: Sequence[str], *, now: int) -> Cancelled:
        """End pending jobs as cancelled, and ask the owners of running ones to."""
        rows = [self._live.rows[job_id] for job_id in dict.fromkeys(job_ids) if job_id in self._live.rows]
        ended = sorted((row for row in rows if row.status is JobStatus.PENDING), key=lambda row: row.seq)
        asked = [row for row in rows if row.status is JobStatus.RUNNING]
        had_turn = [row for row in ended if row.due_at is not None]
        for row in ended:
            self._cancel(row, "cancelled", now)
        for row in had_turn:
            self._let_in(row, now)
        for row in asked:
            row.cancelled_at = now if row.cancelled_at is None else row.cancelled_at
        self._follow([self._flows.end(row) for row in ended if row.workflow is not None])
        all_ended, all_asked = [row.id for row in ended], [row.id for row in asked]
        for workflow in dict.fromkeys(job_ids):
            of_flow, of_running, _ = _flows.cancel_flow(self._flows, workflow, now)
            all_ended += of_flow
            all_asked += of_running
        self._ring()
        return Cancelled(ended=all_ended, asked=list(dict.fromkeys(all_asked)))

    async def orders(self, owner: str) -> Orders:
        """Return what an owner is to heed."""
        claims = [row for row in self._live.running() if row.owner == owner and row.cancelled_at is not None]
        return Orders(
            paused=frozenset(self._limits.paused), cancelled=[(row.id, row.fence or 0) for row in claims]
        )

    async def end_starts(self, owners: Sequence[str], *, now: int) -> None:
        """Count what owners that have died may have started as started by now; nor do they wait for jobs."""
        self._limits.end_starts(owners, now=now)
        for owner in owners:
            self._beside.unwatch(owner)

    async def note_starts(self, starts: Sequence[tuple[str, int, int]]) -> None:
        """Correct when starts that a rate counts were."""
        for queue, number, at in starts:
            self._limits.starts[queue].note(number, at)

    def ring(self) -> None:
        """Call the listeners of all who share this store."""
        self._ring()


def _same(row: Row, job: NewJob) -> bool:
    """Return whether a job of the caller's own id is the one that an earlier try has added."""
    return row.created_at == job.created_at and row.payload in (None, job.payload)


def _claimed(row: Row) -> ClaimedJob:
    job = {name: getattr(row, name) for name in ClaimedJob.__struct_fields__}
    return ClaimedJob(**job | {"payload": job["payload"].decode("utf-8", "surrogateescape")})
