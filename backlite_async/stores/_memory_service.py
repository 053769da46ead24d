"""What people ask of the memory store, and what they do to its jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from .. import _query
from .._clock import from_millis
from .._graph import StepResult, WorkflowRun
from .._history import Note
from .._inspection import Inspection
from .._job import Declared, Hands, Job, JobStatus, Owner, OwnerInfo, Queue, TaskInfo, record
from .._query import Action, Delete, Edit, Found, Postpone, Release, Rerun, SortKey, Wanted
from .._stats import WHATS, Count, StatsRow, capped
from . import _flows, _memory_inspect
from ._beside import Beside
from ._limits import Limits
from ._lists import has, is_looked_at, sort_key
from ._memory_flows import MemoryFlows
from ._rows import Live, Row
from ._service import MOST_COUNTED, WATCHED_FOR
from ._tallies import Tallies

__all__ = ["Added", "MemoryService", "cut_record", "expired"]


class Added(NamedTuple):
    """The job that was last added with a unique key. `until`: for how long that was to keep others out."""

    id: str
    added_at: int
    until: int

    def lasts(self, within: int | None, now: int) -> bool:
        """Return whether it keeps a job out that asks for this distance, though it may have ended."""
        return within is not None and self.added_at > now - within and self.until > now


class MemoryService:
    """Lists, actions, notes, waits, statistics, over what the store keeps."""

    def __init__(self) -> None:
        self._listeners: set[Callable[[], None]] = set()
        self._live = Live()
        self._limits = Limits(self._live)
        self._beside = Beside()
        self._tallies = Tallies()
        self._completed: dict[str, Row] = {}
        self._ends = 0
        self._unique: dict[tuple[str, str], Added] = {}
        self._declared: dict[str, Declared] = {}
        self._tasks: dict[tuple[str, str], TaskInfo] = {}
        self._owners: dict[str, Owner] = {}
        self._handled: dict[str, Hands] = {}
        self._flows = MemoryFlows(
            self._live, self._completed, self._beside, self._declared, cancel=self._cancel
        )

    # -- what there is -----------------------------------------------------------------------------

    def _ring(self) -> None:
        for callback in list(self._listeners):
            callback()

    def _find(self, job_id: str, now: int) -> Row | None:
        live = self._live.rows.get(job_id)
        completed = self._completed.get(job_id)
        return live if live or completed is None or expired(completed, now) else completed

    def _lives(self, added: Added) -> bool:
        """Return whether the job that has a unique key lives; another one may have got its id since."""
        row = self._live.rows.get(added.id)
        return row is not None and row.created_at == added.added_at

    def _end(self, row: Row, *, keeps: bool, ended_at: int) -> None:
        """Move a job to the completed ones, or forget it; a step, or if somebody waits for it, not yet."""
        self._live.remove(row)
        row.finished_at = ended_at
        if row.workflow is not None:
            row.expires_at = None
        elif self._beside.watched(row.id):
            row.payload = row.payload if keeps else None
            until = row.expires_at if keeps else 0
            row.expires_at = None if until is None else max(until, ended_at + WATCHED_FOR)
        elif not keeps:
            self._forget(row.id)
            return
        self._ends += 1
        row.seq = self._ends
        self._completed[row.id] = row

    def _cancel(self, row: Row, error: str, now: int) -> None:
        """End a job as cancelled, which is kept as its queue was declared."""
        self._tallies.add_cancelled(row.queue, now)
        declared = self._declared.get(row.queue)
        row.status, row.error, row.cancelled_at = JobStatus.CANCELLED, error, now
        if declared is not None and declared.keeps and row.workflow is None:
            row.payload = row.payload if declared.keep_payload else None
            row.expires_at = None if declared.keep_for is None else now + declared.keep_for
        self._end(row, keeps=declared is not None and declared.keeps, ended_at=now)

    def _follow(self, ends: Sequence[_flows.End]) -> None:
        """Do what follows from the ends of steps of workflows."""
        if ends and _flows.ended(self._flows, ends):
            self._flows.stirs = True

    def _forget(self, job_id: str) -> None:
        """Forget what is kept beside a job that is gone, unless another has got its id."""
        if job_id not in self._live.rows and job_id not in self._completed:
            self._beside.forget(job_id)

    def _let_in(self, row: Row, at: int) -> None:
        """Let others have the turn that a job has left."""
        if row.key is not None:
            self._live.let_in(row.queue, row.key, at=at)

    # -- lists -------------------------------------------------------------------------------------

    async def find(
        self,
        wanted: Wanted,
        *,
        limit: int,
        after: SortKey | None = None,
        before: SortKey | None = None,
        now: int,
        brief: bool = False,
    ) -> Found:
        """Return the jobs that are wanted, from a place in their order on, or up to it."""
        places = self._places(wanted, now)
        if after is not None:
            places = [place for place in places if place[0] > after]
        if before is not None:
            places = [place for place in places if place[0] < before][::-1]
        looked = _looked(places, wanted)
        hits = [(key, row) for key, row in looked if has(row, wanted, known=False)]
        limited = len(hits) < limit and len(looked) < len(places)
        page = hits[:limit] if before is None else hits[:limit][::-1]
        return Found(
            jobs=[cut_record(row, _query.BRIEF if brief else None, error=brief) for _, row in page],
            places=[key for key, _ in page],
            more=len(hits) > limit or len(looked) < len(places),
            limited=limited,
            looked_to=looked[-1][0] if limited else None,
        )

    async def count(self, wanted: Wanted, *, most: int, now: int) -> Count:
        """Return how many jobs are wanted."""
        places = self._places(wanted, now)
        looked = _looked(places, wanted)
        count = Count.of(sum(has(row, wanted, known=False) for _, row in looked), most)
        count.capped = count.capped or len(looked) < len(places)
        return count

    def _places(self, wanted: Wanted, now: int) -> list[tuple[SortKey, Row]]:
        """Return the jobs that have what the driving index knows, and where they stand, in their order."""
        rows = [*self._live.rows.values(), *self._completed.values()]
        if wanted.unique is not None:
            rows = self._last_added(wanted.queue, wanted.unique)
        found = [row for row in rows if not expired(row, now) and has(row, wanted, known=True)]
        number = self._beside.number
        keyed = [
            (sort_key(row, wanted, None if wanted.tag is None else number(row.id, wanted.tag)), row)
            for row in found
        ]
        return sorted(keyed, key=lambda place: place[0])

    def _last_added(self, queue: str | None, unique: str) -> list[Row]:
        """Return the job that was last added with a unique key, if it is there."""
        added = None if queue is None else self._unique.get((queue, unique))
        if added is None:
            return []
        rows = [self._live.rows.get(added.id), self._completed.get(added.id)]
        return [row for row in rows if row is not None and row.created_at == added.added_at]

    def _held_key(self, row: Row, now: int) -> str | None:
        """Return the unique key by which a job keeps others away."""
        held = [
            key
            for (queue, key), added in self._unique.items()
            if (queue, added.id, added.added_at) == (row.queue, row.id, row.created_at)
            and (not row.ended or added.until > now)
        ]
        return max(held, default=None)

    # -- actions -----------------------------------------------------------------------------------

    async def act(self, action: Action, job_ids: Sequence[str], *, now: int) -> Sequence[str]:
        """Do something to jobs that are in a state for it; then let in who has waited for what that frees."""
        of_flows = {
            asked: self._flows.unsuccessful(asked) if isinstance(action, Rerun) else []
            for asked in dict.fromkeys(job_ids)
            if self._flows.of(asked, now) is not None
        }
        asked_for = [*job_ids, *(job_id for of_flow in of_flows.values() for job_id in of_flow)]
        found = [row for job_id in dict.fromkeys(asked_for) if (row := self._find(job_id, now)) is not None]
        had_turn = {row.id for row in found if not row.ended and row.due_at is not None}
        had_ended = [row for row in found if row.ended]
        done = [row for row in found if self._act(action, row, now)]
        leaves = action.due_at > now if isinstance(action, Postpone) else isinstance(action, Delete | Release)
        for row in done:
            if leaves and row.id in had_turn:
                self._let_in(row, now)
        changed = {row.id for row in done}
        if isinstance(action, Rerun):
            again = [row for row in had_ended if row.id in changed]
            _flows.revive(self._flows, [(row.workflow, row.step or 0) for row in again if row.workflow])
        elif isinstance(action, Release):
            self._follow([self._flows.end(row) for row in done if row.ended and row.workflow])
        elif isinstance(action, Delete):
            changed |= {workflow for workflow in of_flows if self._delete_flow(workflow, now)}
        changed |= {workflow for workflow, of_flow in of_flows.items() if not changed.isdisjoint(of_flow)}
        self._ring()
        return [asked for asked in dict.fromkeys(job_ids) if asked in changed]

    def _act(self, action: Action, row: Row, now: int) -> bool:
        match action:
            case Rerun():
                return self._rerun(row, action.attempts, now)
            case Postpone():
                return self._postpone(row, action, now)
            case Edit():
                return self._edit(row, action)
            case Release():
                return self._release(row, now)
            case Delete():
                return self._delete(row)

    def _delete_flow(self, workflow: str, now: int) -> bool:
        had_turn = [row for row in self._flows.jobs(workflow) if row.is_let_in]
        done = _flows.delete_flow(self._flows, workflow)
        for row in had_turn if done else ():
            self._let_in(row, now)
        return done

    def _rerun(self, row: Row, attempts: int, now: int) -> bool:
        if row.status in (JobStatus.RUNNING, JobStatus.SUCCEEDED) or row.payload is None:
            return False
        if row.ended:
            del self._completed[row.id]
            row.status, row.due_at = JobStatus.PENDING, now
            row.result = row.started_at = row.finished_at = row.duration = row.expires_at = None
            row.fence = row.owner = row.cancelled_at = None
            self._live.enter(row)
        row.due_at = None if row.due_at is None else now
        row.scheduled_at = row.waits_from = now
        row.crashes, row.max_attempts = 0, max(row.max_attempts, row.attempt + attempts)
        return True

    def _postpone(self, row: Row, action: Postpone, now: int) -> bool:
        if row.status is not JobStatus.PENDING:
            return False
        if not row.blocked and (row.due_at is not None or action.due_at > now):  # else it waits on
            row.due_at = action.due_at
        row.scheduled_at, row.waits_from = action.due_at, action.waits_from
        return True

    def _edit(self, row: Row, action: Edit) -> bool:
        fits = row.status is JobStatus.PENDING and row.kind == (action.queue, action.task)
        row.payload = action.payload if fits else row.payload
        return fits

    def _release(self, row: Row, now: int) -> bool:
        if row.status is not JobStatus.RUNNING:
            return False
        row.status, row.owner, row.started_at = JobStatus.PENDING, None, None
        row.attempt = max(row.attempt - 1, 0)
        row.due_at, row.scheduled_at = now, min(row.scheduled_at, now)
        if row.cancelled_at is not None:
            self._cancel(row, "cancelled", row.cancelled_at)
        return True

    def _delete(self, row: Row) -> bool:
        if row.status is JobStatus.RUNNING or row.workflow is not None:
            return False
        if row.ended:
            del self._completed[row.id]
        else:
            self._live.remove(row)
        self._forget(row.id)
        self._unique = {place: added for place, added in self._unique.items() if added.id != row.id}
        return True

    # -- workflows ---------------------------------------------------------------------------------

    async def workflow(self, workflow_id: str, *, now: int) -> WorkflowRun | None:
        """Return a workflow with its steps."""
        flow = self._flows.of(workflow_id, now)
        return None if flow is None else self._flows.run(flow)

    async def workflows(
        self, *, states: frozenset[JobStatus] | None, limit: int, before: str | None, now: int
    ) -> Sequence[WorkflowRun]:
        """Return workflows without their steps."""
        flows = [flow for flow in self._flows.all(now) if before is None or flow.id < before]
        looked = flows if states is None else flows[: _query.LOOKS]
        runs = [self._flows.run(flow, whole=False) for flow in looked]
        return [run for run in runs if states is None or run.status in states][:limit]

    async def step_results(
        self, workflow_id: str, number: int | None, *, deep: bool = False
    ) -> Sequence[StepResult]:
        """Return what steps have left."""
        return self._flows.results(workflow_id, number, deep=deep)

    # -- what is kept beside -----------------------------------------------------------------------

    async def note(self, notes: Sequence[Note]) -> None:
        """Store what running jobs say of themselves."""
        for note in notes:
            row = self._live.held(note.id, note.fence)
            if row is not None:
                self._beside.note(row, note)

    async def watch(self, job_ids: Sequence[str], *, owner: str) -> None:
        """Keep these jobs for a while when they complete."""
        for job_id in job_ids:
            self._beside.watch(job_id, owner)

    async def unwatch(self, job_ids: Sequence[str], *, owner: str) -> None:
        """Undo `watch`."""
        self._beside.unwatch(owner, job_ids)

    async def which_ended(self, job_ids: Sequence[str], *, now: int) -> Sequence[str]:
        """Return which of these jobs are neither pending nor running."""
        flows = {job_id: flow for job_id in job_ids if (flow := self._flows.of(job_id, now)) is not None}
        return [
            job_id
            for job_id in job_ids
            if job_id not in self._live.rows and (job_id not in flows or flows[job_id].status is not None)
        ]

    async def stats(
        self,
        *,
        since: int,
        until: int,
        step: int | None = None,
        queue: str | None = None,
        together: bool = False,
    ) -> Sequence[StatsRow]:
        """Return what was counted."""
        return self._tallies.of(since=since, until=until, step=step, queue=queue, together=together)

    async def numbers(self, *, since: int, until: int) -> Sequence[StatsRow]:
        """Return what was counted of each queue in a time, but not how long attempts ran and had waited."""
        rows = self._tallies.of(since=since, until=until)
        return [row for row in rows if row[2] in WHATS]

    async def sum_up(self, *, now: int) -> None:
        """Sum up old statistics by the hour."""
        self._tallies.sum_up(now=now)

    async def tasks(self) -> Sequence[TaskInfo]:
        """Return the task types that were declared."""
        return [
            msgspec.structs.replace(
                self._tasks[place], limits=msgspec.json.decode(self._declared[place[0]].limits)
            )
            for place in sorted(self._tasks)
        ]

    def _catalogue(self, declared: Declared, now: int) -> None:
        """Remember the task types of a queue, those that are new or otherwise than they are known."""
        for task in declared.tasks:
            info = TaskInfo(
                name=task.name,
                queue=declared.queue,
                title=task.title,
                description=task.description,
                schema=None if task.schema is None else msgspec.json.decode(task.schema),
                registered_at=from_millis(now),
            )
            known = self._tasks.get((info.queue, info.name), info)
            if known is info or msgspec.structs.replace(known, registered_at=info.registered_at) != info:
                self._tasks[info.queue, info.name] = info

    # -- queues and owners -------------------------------------------------------------------------

    async def queues(
        self, *, now: int, most: int = MOST_COUNTED, queue: str | None = None
    ) -> Sequence[Queue]:
        """Return how the queues are doing."""
        names = {row.queue for row in self._live.rows.values()} | self._limits.paused | self._declared.keys()
        return [self._queue(name, now, most) for name in sorted(names) if queue in (None, name)]

    async def oldest_due(self, kinds: Sequence[tuple[str, str]]) -> int | None:
        """Return when the first pending job of these queues and tasks is due; None: there is none."""
        meant = {kind for kind in kinds if kind[0] not in self._limits.paused}
        return min((row.until for row in self._live.pending() if row.kind in meant), default=None)

    def _queue(self, name: str, now: int, most: int) -> Queue:
        let_in = [row for row in self._live.pending() if row.queue == name]
        waiting, blocked = self._live.waiting(name), self._live.blocked(name)
        due = [row.until for row in let_in if row.until <= now] + [row.scheduled_at for row in waiting]
        ended = [row for row in self._completed.values() if row.queue == name and not expired(row, now)]
        numbers = {
            "pending": len(let_in) + len(waiting) + len(blocked),
            "scheduled": sum(row.until > now for row in let_in),
            "waiting": len(waiting) + len(blocked),
            "due": sum(row.until <= now for row in let_in),
        }
        for status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED):
            numbers[status.value] = sum(row.status is status for row in ended)
        declared = self._declared.get(name)
        return Queue(
            name=name,
            paused=name in self._limits.paused,
            running=len(self._live.running(name)),
            oldest_due=from_millis(now) - from_millis(min(due)) if due else None,
            limits={} if declared is None else msgspec.json.decode(declared.limits),
            **capped(numbers, most),
        )

    async def owners(self, *, now: int) -> Sequence[OwnerInfo]:
        """Return the owners that have opened the store, and those that have claims."""
        claims: dict[str, list[int]] = {owner_id: [] for owner_id in self._owners}
        for row in self._live.running():
            claims.setdefault(row.owner or "", []).append(row.started_at or 0)
        return [self._owner(owner_id, claims[owner_id], now) for owner_id in sorted(claims)]

    def _owner(self, owner_id: str, claimed_at: Sequence[int], now: int) -> OwnerInfo:
        """Return what is known of an owner: of one that has not opened the store, when it has claimed."""
        owner = self._owners.get(owner_id) or Owner(id=owner_id, beat=0, slots=0)
        is_here = owner_id in self._owners
        info = OwnerInfo(
            id=owner_id,
            host=owner.host,
            pid=owner.pid,
            started_at=from_millis(owner.started_at) if owner.started_at else None,
            workers=owner.workers,
            running=len(claimed_at),
            alive=True if is_here else None,
            seen_at=from_millis(now if is_here else max(claimed_at)),
        )
        hands = Hands(()) if is_here and not owner.workers else self._handled.get(owner_id, Hands())
        return hands.told(info)

    async def seen(self, *, now: int, ended_by: int, late_by: int) -> Inspection:
        """Return what is to be seen of owners and jobs."""
        owners = await self.owners(now=now)
        return _memory_inspect.inspection(
            self._live, self._declared, self._limits, owners, now=now, ended_by=ended_by, late_by=late_by
        )


def _looked(places: list[tuple[SortKey, Row]], wanted: Wanted) -> list[tuple[SortKey, Row]]:
    """Return the places that one question looks at."""
    if not is_looked_at(wanted):
        return places
    looked, size = places[: _query.LOOKS], 0
    for number, (_, row) in enumerate(looked if wanted.text is not None else ()):
        size += len(row.payload or b"")
        if number > 0 and size > _query.LOOK_BYTES:
            return looked[:number]
    return looked


def expired(row: Row, now: int) -> bool:
    """Return whether the retention of a job has ended."""
    return row.expires_at is not None and row.expires_at <= now


def cut_record(row: Row, cut: int | None, *, error: bool = False) -> Job:
    """Return a job's record, with so many bytes of payload and result, and letters of `error`."""
    columns = msgspec.structs.asdict(row)
    for name in ("payload", "result", "error") if error else ("payload", "result"):
        if cut is not None and columns[name] is not None:
            columns[name] = columns[name][:cut]
    columns["waiting"] = row.status is JobStatus.PENDING and row.due_at is None
    return record(columns)
