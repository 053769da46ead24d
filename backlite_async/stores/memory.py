"""Jobs in dicts: the readable specification of what a store does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import msgspec

from .._errors import InvalidState
from .._job import Claim, ClaimedJob, Complete, Job, JobStatus, Lane, Lapsed, NewJob, Outcome, Owner, record
from ._base import Dead, step_of_wait, still_open

__all__ = ["MemoryStore"]


class _Row(msgspec.Struct, kw_only=True):
    """A job, live or completed."""

    seq: int
    id: str
    queue: str
    task: str
    status: JobStatus
    priority: int
    payload: bytes | None
    attempt: int = 0
    max_attempts: int
    crashes: int = 0
    fence: int | None = None
    owner: str | None = None
    created_at: int
    scheduled_at: int
    due_at: int
    waits_from: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    duration: int | None = None
    error: str | None = None
    result: bytes | None = None
    expires_at: int | None = None

    @property
    def kind(self) -> tuple[str, str]:
        return self.queue, self.task

    @property
    def order(self) -> tuple[int, int, int]:
        return -self.priority, self.due_at, self.seq


class MemoryStore:
    """Keeps jobs in this process alone. Nothing is persisted; nothing is shared."""

    shared = False
    writing = False

    def __init__(self) -> None:
        self._listeners: set[Callable[[], None]] = set()
        self._live: dict[str, _Row] = {}
        self._completed: dict[str, _Row] = {}
        self._seq = 0
        self._fence = 0

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back when jobs were added."""
        self._listeners.add(callback)

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Undo `listen`."""
        self._listeners.discard(callback)

    async def open(
        self, *, install: bool, owner: Owner | None = None, gone: Callable[[], None] | None = None
    ) -> None:
        """Do nothing: it is open."""

    def hazards(self) -> Sequence[str]:
        """Return nothing: there is no file."""
        return ()

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
        """Do nothing: what is stored stays until the store itself is gone."""

    def close_soon(self) -> None:
        """Do nothing: it is closed."""

    def abandon(self) -> None:
        """Do nothing: there is nothing to wait for."""

    async def add(self, jobs: Sequence[NewJob]) -> None:
        """Store pending jobs."""
        for job in jobs:
            if job.id in self._live or job.id in self._completed:
                continue
            self._seq += 1
            self._live[job.id] = _Row(
                seq=self._seq,
                id=job.id,
                queue=job.queue,
                task=job.task,
                status=JobStatus.PENDING,
                priority=job.priority,
                payload=job.payload,
                max_attempts=job.max_attempts,
                created_at=job.created_at,
                scheduled_at=job.due_at,
                due_at=job.due_at,
                waits_from=job.waits_from,
            )
        self._ring()

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

    async def add_within(self, connection: Any, jobs: Sequence[NewJob]) -> None:
        """Refuse: there are no transactions here."""
        self.check_connection(connection)

    async def claim(
        self,
        lanes: Sequence[Lane],
        *,
        owner: str,
        now: int,
        until: int,
        taking: Callable[[Sequence[ClaimedJob]], None] | None = None,
    ) -> Claim:
        """Take due jobs."""
        total = max((lane.room for lane in lanes), default=0)
        best = sorted((row for row in self._pending() if row.due_at <= now), key=lambda row: row.order)
        fits = [row for lane in lanes for row in [row for row in best if row.kind in lane.kinds][: lane.room]]
        chosen = sorted(fits, key=lambda row: row.order)[:total]
        if chosen:
            self._fence += 1
        for row in chosen:
            row.status, row.fence, row.owner = JobStatus.RUNNING, self._fence, owner
            row.attempt, row.started_at, row.due_at = row.attempt + 1, now, until
        if taking is not None:
            taking([_claimed(row) for row in chosen])
        kinds = {kind for lane in lanes for kind in lane.kinds}
        others = [row for row in self._running() if row.kind in kinds and row.owner != owner]
        open_kinds = still_open(lanes, [row.kind for row in chosen])
        waiting = [row for row in self._pending() if row.kind in open_kinds]
        lapsed = [row for row in others if row.due_at <= now]
        held = [row for row in others if row.due_at > now]
        return Claim(
            jobs=[_claimed(row) for row in chosen],
            lapsed=[Lapsed(job=_claimed(row), owner=str(row.owner), until=row.due_at) for row in lapsed],
            next_at=min((row.due_at for row in [*waiting, *held]), default=None),
        )

    async def claims_of(self, owner: str) -> Sequence[ClaimedJob]:
        """Return what an owner has claimed."""
        return [_claimed(row) for row in self._running() if row.owner == owner]

    async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Write outcomes."""
        return self.finish_now(outcomes)

    def finish_now(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Write outcomes."""
        lost = {outcome.id for outcome in outcomes if not self._finish(outcome)}
        if any(not isinstance(outcome, Complete) for outcome in outcomes):
            self._ring()
        return lost

    def _finish(self, outcome: Outcome) -> bool:
        row = self._held(outcome.id, outcome.fence)
        if row is None or (outcome.lapsed_by is not None and row.due_at > outcome.lapsed_by):
            return False
        row.attempt, row.crashes = outcome.attempt, outcome.crashes
        row.error = row.error if outcome.error is None else outcome.error
        if not isinstance(outcome, Complete):
            row.status, row.owner, row.started_at = JobStatus.PENDING, None, None
            row.scheduled_at = row.due_at = outcome.due_at
            row.waits_from = outcome.waits_from
            return True
        del self._live[row.id]
        if outcome.keep is not None:
            row.status, row.finished_at, row.duration = outcome.status, outcome.finished_at, outcome.duration
            row.started_at = outcome.started_at if outcome.started_at is not None else row.started_at
            row.payload = row.payload if outcome.keep.payload else None
            row.result = None if outcome.result is None else outcome.result.encode()
            row.expires_at = outcome.keep.until
            self._completed[row.id] = row
        return True

    def renew(self, claims: Iterable[tuple[str, int]], *, until: int) -> set[str]:
        """Extend leases."""
        lost = set()
        for job_id, fence in claims:
            row = self._held(job_id, fence)
            if row is None:
                lost.add(job_id)
            else:
                row.due_at = max(row.due_at, until)
        return lost

    async def status(self, job_id: str, *, now: int) -> JobStatus:
        """Return where a job is in its life."""
        row = self._find(job_id, now)
        return JobStatus.NOT_FOUND if row is None else row.status

    async def get(self, job_id: str, *, now: int) -> Job | None:
        """Return a job's record."""
        row = self._find(job_id, now)
        return None if row is None else record(msgspec.structs.asdict(row))

    async def kinds(self) -> Sequence[tuple[str, str]]:
        """Return the queues and task names that have pending jobs."""
        return sorted({row.kind for row in self._pending()})

    async def shift_waits(self, *, now: int, by: int) -> int:
        """Let waits go on as they were meant after a step of the wall clock."""
        shifted = 0
        for row in self._pending():
            if row.waits_from is not None:
                step = step_of_wait(waits_from=row.waits_from, due_at=row.due_at, now=now, by=by)
                row.scheduled_at = row.due_at = row.due_at + step
                row.waits_from += step
                shifted += step != 0
        return shifted

    async def next_expiry(self) -> int | None:
        """Return the instant at which the next completed job expires."""
        instants = (row.expires_at for row in self._completed.values())
        return min((instant for instant in instants if instant is not None), default=None)

    async def expire(self, *, now: int, limit: int) -> int:
        """Remove completed jobs that have expired."""
        expired = [row.id for row in self._completed.values() if _expired(row, now)][:limit]
        for job_id in expired:
            del self._completed[job_id]
        return len(expired)

    def _ring(self) -> None:
        for callback in list(self._listeners):
            callback()

    def _pending(self) -> list[_Row]:
        return [row for row in self._live.values() if row.status is JobStatus.PENDING]

    def _running(self) -> list[_Row]:
        return [row for row in self._live.values() if row.status is JobStatus.RUNNING]

    def _held(self, job_id: str, fence: int) -> _Row | None:
        row = self._live.get(job_id)
        held = row is not None and row.status is JobStatus.RUNNING and row.fence == fence
        return row if held else None

    def _find(self, job_id: str, now: int) -> _Row | None:
        live = self._live.get(job_id)
        completed = self._completed.get(job_id)
        return live if live or completed is None or _expired(completed, now) else completed


def _expired(row: _Row, now: int) -> bool:
    return row.expires_at is not None and row.expires_at <= now


def _claimed(row: _Row) -> ClaimedJob:
    job = {name: getattr(row, name) for name in ClaimedJob.__struct_fields__}
    return ClaimedJob(**job | {"payload": job["payload"].decode("utf-8", "surrogateescape")})
