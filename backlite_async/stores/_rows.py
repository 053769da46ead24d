"""The live jobs of the memory store, and whose turn it is among those of a key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from .._job import JobStatus, NewJob

__all__ = ["Live", "Row"]


class Row(msgspec.Struct, kw_only=True):
    """A job, live or completed. A pending one without `due_at` waits for its turn, or is `blocked`.

    That one waits for other steps of its workflow, and has no turn of its key, nor waits for one, until then.
    """

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
    workflow: str | None = None
    step: int | None = None
    blocked: bool = False
    meta: str | None = None
    tags: str | None = None
    cancelled_at: int | None = None
    noted: int | None = None
    progress: float | None = None
    progress_message: str | None = None

    @property
    def kind(self) -> tuple[str, str]:
        """Its queue and task."""
        return self.queue, self.task

    @property
    def waits(self) -> bool:
        """Whether it is pending and waits for its turn."""
        return self.status is JobStatus.PENDING and self.due_at is None and not self.blocked

    @property
    def is_let_in(self) -> bool:
        """Whether it is pending and can be claimed once it is due."""
        return self.status is JobStatus.PENDING and self.due_at is not None

    @property
    def ended(self) -> bool:
        """Whether it has completed."""
        return self.status not in (JobStatus.PENDING, JobStatus.RUNNING)

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
        self._keyed: dict[tuple[str, str], dict[str, Row]] = {}
        self._seq = 0

    def add(self, job: NewJob) -> None:
        """Add a pending job."""
        more = {} if job.more is None else msgspec.structs.asdict(job.more)
        more.pop("turns", None)
        row = Row(
            seq=0,
            id=job.id,
            queue=job.queue,
            task=job.task,
            status=JobStatus.PENDING,
            priority=job.priority,
            payload=job.payload,
            max_attempts=job.max_attempts,
            created_at=job.created_at,
            scheduled_at=job.due_at,
            due_at=None if more.get("blocked") else job.due_at,
            waits_from=job.waits_from,
            **more,
        )
        self.enter(row)

    def enter(self, row: Row) -> None:
        """Take a job in, behind all others."""
        self._seq += 1
        row.seq = self._seq
        self.rows[row.id] = row
        self._index(row)

    def move(self, row: Row, queue: str) -> None:
        """Move a job to another queue."""
        self._unindex(row)
        row.queue = queue
        self._index(row)

    def remove(self, row: Row) -> None:
        """Remove a job that has ended."""
        del self.rows[row.id]
        self._unindex(row)
        row.blocked = False

    def release(self, row: Row, at: int) -> None:
        """Let a blocked job run, from `at` on or when it is scheduled; no wait gets longer by that."""
        row.blocked = False
        if row.waits_from is not None:
            row.scheduled_at = min(row.scheduled_at, at + row.scheduled_at - row.waits_from)
        if row.waits_from is not None or row.scheduled_at <= at:
            row.waits_from = at
        row.scheduled_at = row.due_at = max(row.scheduled_at, at)
        self._index(row)

    def block(self, row: Row) -> None:
        """Let a pending job wait for other steps."""
        self._unindex(row)
        row.blocked, row.due_at = True, None

    def _index(self, row: Row) -> None:
        if row.key is not None and not row.blocked:
            self._keyed.setdefault((row.queue, row.key), {})[row.id] = row

    def _unindex(self, row: Row) -> None:
        if row.key is not None and not row.blocked:
            of_key = self._keyed[row.queue, row.key]
            del of_key[row.id]
            if not of_key:
                del self._keyed[row.queue, row.key]

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

    def blocked(self, queue: str | None = None) -> list[Row]:
        """Return the jobs that wait for other steps of their workflows; of one queue, if given."""
        return [row for row in self.rows.values() if row.blocked and queue in (None, row.queue)]

    def waiting(self, queue: str | None = None) -> list[Row]:
        """Return the jobs that wait for their turn; of one queue, if given."""
        return [row for row in self.rows.values() if row.waits and queue in (None, row.queue)]

    def take_turns(self, jobs: Sequence[NewJob], *, now: int) -> None:
        """Let new jobs wait for their turn whose keys are full."""
        for job in jobs:
            if job.more is not None and job.more.key is not None and job.more.turns is not None:
                self.queue_up(job.queue, job.more.key, job.more.turns, now=now)

    def queue_up(self, queue: str, key: str, turns: int, *, now: int) -> bool:
        """Let the due jobs of a key wait, but of each task the best that may run; return whether any do."""
        free = self.free(queue, key, turns)
        late = [row for due in self._due(queue, key, now).values() for row in due[free:]]
        for row in late:
            row.due_at = None
        return len(late) > 0

    def fill_up(self, queue: str, key: str, turns: int, *, now: int) -> bool:
        """Let in, due now, as many jobs of a key and each task as may run; return whether any were."""
        free, due = self.free(queue, key, turns), self._due(queue, key, now)
        next_ones = [
            row
            for task, waiting in self._waiting(queue, key).items()
            for row in waiting[: max(free - len(due[task]), 0)]
        ]
        for row in next_ones:
            row.due_at = row.waits_from = now
        return len(next_ones) > 0

    def settle(self, queue: str, key: str, turns: int, *, now: int) -> bool:
        """Let wait and let in what is to of a key; return whether anything changed."""
        waits = self.queue_up(queue, key, turns, now=now)
        return self.fill_up(queue, key, turns, now=now) or waits

    def let_in(self, queue: str, key: str, *, at: int) -> None:
        """Let in the best job of each task that waits for a turn of a key, due at `at`."""
        for waiting in self._waiting(queue, key).values():
            waiting[0].due_at = waiting[0].waits_from = at

    def free(self, queue: str, key: str, turns: int) -> int:
        """Return how many more jobs of a key may run, of whatever task."""
        rows = self._of_key(queue, key)
        return max(turns - sum(row.status is JobStatus.RUNNING for row in rows), 0)

    def _of_key(self, queue: str, key: str) -> Sequence[Row]:
        return list(self._keyed.get((queue, key), {}).values())

    def _due(self, queue: str, key: str, now: int) -> defaultdict[str, list[Row]]:
        """Return the due jobs of a key by task, best first."""
        rows = [row for row in self._of_key(queue, key) if row.is_let_in and row.until <= now]
        return _by_task(sorted(rows, key=lambda row: row.order))

    def _waiting(self, queue: str, key: str) -> defaultdict[str, list[Row]]:
        """Return the jobs that wait for a turn of a key by task, best first."""
        rows = [row for row in self._of_key(queue, key) if row.waits]
        return _by_task(sorted(rows, key=lambda row: row.turn))


def _by_task(rows: Sequence[Row]) -> defaultdict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.task].append(row)
    return found
