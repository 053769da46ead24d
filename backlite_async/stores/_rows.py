"""The live jobs of the memory store, and whose turn it is among those of a key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container

import msgspec

from .._job import JobStatus, NewJob

__all__ = ["Live", "Row"]


class Row(msgspec.Struct, kw_only=True):
    """A job, live or completed. A pending one without `due_at` waits for its turn."""

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
    due_at: int | None
    waits_from: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    duration: int | None = None
    error: str | None = None
    result: bytes | None = None
    expires_at: int | None = None
    key: str | None = None
    timeout: int | None = None
    parent: str | None = None
    meta: str | None = None
    tags: str | None = None
    cancelled_at: int | None = None

    @property
    def kind(self) -> tuple[str, str]:
        """Its queue and task."""
        return self.queue, self.task

    @property
    def waits(self) -> bool:
        """Whether it is pending and waits for its turn."""
        return self.status is JobStatus.PENDING and self.due_at is None

    @property
    def is_let_in(self) -> bool:
        """Whether it is pending and can be claimed once it is due."""
        return self.status is JobStatus.PENDING and self.due_at is not None

    @property
    def until(self) -> int:
        """When it is due, or when its lease ends."""
        assert self.due_at is not None
        return self.due_at

    @property
    def order(self) -> tuple[int, int, int]:
        """Its place among due jobs."""
        return -self.priority, self.until, self.seq

    @property
    def turn(self) -> tuple[int, int, int]:
        """Its place among the jobs of its key that wait for their turn."""
        return -self.priority, self.scheduled_at, self.seq


class Live:
    """The jobs that have not ended, by their ids."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._keyed: defaultdict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
        self._seq = 0

    def add(self, job: NewJob, *, now: int) -> None:
        """Add a pending job. Of the due ones of its key and task, no more stay let in than may run."""
        more = {} if job.more is None else msgspec.structs.asdict(job.more)
        turns = more.pop("turns", None)
        self._seq += 1
        row = self.rows[job.id] = Row(
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
            **more,
        )
        if row.key is not None:
            self._keyed[row.queue, row.key][row.id] = row
        self.queue_up(row, turns, now=now)

    def remove(self, row: Row) -> None:
        """Remove a job that has ended."""
        del self.rows[row.id]
        if row.key is not None:
            del self._keyed[row.queue, row.key][row.id]

    def held(self, job_id: str, fence: int) -> Row | None:
        """Return a job that runs under this claim."""
        row = self.rows.get(job_id)
        held = row is not None and row.status is JobStatus.RUNNING and row.fence == fence
        return row if held else None

    def pending(self) -> list[Row]:
        """Return the pending jobs, but for those that wait for their turn."""
        return [row for row in self.rows.values() if row.is_let_in]

    def running(self, queue: str | None = None) -> list[Row]:
        """Return the jobs that are claimed; of one queue, if given."""
        rows = self.rows.values()
        return [row for row in rows if row.status is JobStatus.RUNNING and queue in (None, row.queue)]

    def waiting(self, queue: str) -> list[Row]:
        """Return the jobs of a queue that wait for their turn, in the order of their turns."""
        rows = (row for row in self.rows.values() if row.waits and row.queue == queue)
        return sorted(rows, key=lambda row: row.turn)

    def queue_up(self, row: Row, turns: int | None, *, now: int) -> None:
        """Let the due jobs of its key and task wait for their turn, but for as many as may run."""
        if row.key is not None and turns is not None:
            for late in self._due(row, now=now)[self._free(row, turns) :]:
                late.due_at = None

    def let_in(self, queue: str, key: str | None, *, at: int) -> None:
        """Let in the best job of each task that waits for a turn of a key, due at `at`."""
        rows = [] if key is None else [row for row in self._keyed[queue, key].values() if row.waits]
        best: dict[str, Row] = {}
        for row in sorted(rows, key=lambda row: row.turn):
            best.setdefault(row.task, row)
        for row in best.values():
            row.due_at = row.waits_from = at

    def fill(self, kinds: Container[tuple[str, str]], queue: str, turns: int, *, now: int) -> None:
        """Let in what waits for a turn of a key of a queue, of each task as many as may run."""
        for row in self.waiting(queue):
            if row.kind in kinds and len(self._due(row, now=now)) < self._free(row, turns):
                row.due_at = row.waits_from = now

    def _due(self, like: Row, *, now: int) -> list[Row]:
        """Return the due jobs of the key and task of a job, best first."""
        rows = self._keyed[like.queue, str(like.key)].values()
        due = [row for row in rows if row.is_let_in and row.task == like.task and row.until <= now]
        return sorted(due, key=lambda row: row.order)

    def _free(self, like: Row, turns: int) -> int:
        """Return how many more jobs of the key of a job may run, of any task."""
        rows = self._keyed[like.queue, str(like.key)].values()
        return max(turns - sum(row.status is JobStatus.RUNNING for row in rows), 0)
