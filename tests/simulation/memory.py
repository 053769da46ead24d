"""The store that all processes of a world share, and what can be seen in it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from backlite_async import JobStatus
from backlite_async._job import NewJob, Unique
from backlite_async.stores import MemoryStore

from .flowing import Flowing

__all__ = ["SharedMemory", "Wait"]


class Wait(NamedTuple):
    """When a pending job is due, and when its wait began. `due_at` None: it waits for its turn."""

    due_at: int | None
    waits_from: int | None


class SharedMemory(MemoryStore):
    """A memory store that calls nobody back, and can be looked into."""

    def __init__(self) -> None:
        super().__init__()
        self._turns: dict[str, Wait] = {}
        self.flowing = Flowing(self)

    def _ring(self) -> None:
        pass  # each process tells the others in its own way

    def rows(self) -> list[tuple[str, JobStatus, str | None, tuple[str, str], int | None]]:
        """Return id, status, owner, kind and due time of the jobs that have not ended."""
        return [(row.id, row.status, row.owner, row.kind, row.due_at) for row in self._live.rows.values()]

    def has(self, job_id: str) -> bool:
        """Return whether a job is there that has not ended."""
        return job_id in self._live.rows

    def lease_end(self, job_id: str, fence: int) -> int | None:
        """Return when the lease of a claim ends; None: it is no longer there."""
        row = self._live.held(job_id, fence)
        return None if row is None else row.due_at

    def claimed_by(self, owner: str) -> list[str]:
        """Return the jobs that an owner has claimed."""
        return [row.id for row in self._live.running() if row.owner == owner]

    def waits(self) -> dict[str, tuple[int, int | None]]:
        """Return when each pending job is due, and when its wait began; not of those that wait for a turn."""
        return {row.id: (row.until, row.waits_from) for row in self._live.pending()}

    def wait_of(self, job_id: str) -> Wait | None:
        """Return when a pending job is due; None: it is not pending."""
        row = self._live.rows.get(job_id)
        pending = row is not None and row.status is JobStatus.PENDING
        return Wait(row.due_at, row.waits_from) if row is not None and pending else None

    def is_due(self, job_id: str, due_at: int) -> bool:
        """Return whether a live job is to be due then, or waits for its turn since."""
        row = self._live.rows.get(job_id)
        return row is not None and row.scheduled_at == due_at and row.due_at in (None, due_at)

    def what_of(self, job_id: str) -> tuple[tuple[str, str], bytes | None] | None:
        """Return what kind of job it is, and its payload; None: it has ended."""
        row = self._live.rows.get(job_id)
        return None if row is None else (row.kind, row.payload)

    def in_the_way(self, job: NewJob, unique: Unique) -> list[str]:
        """Return the jobs that may be in the way of a new one."""
        added = None if unique.key is None else self._unique.get((job.queue, unique.key))
        return [job.id] if added is None else [job.id, added.id]

    def kept(self, job_id: str) -> tuple[bool, int | None]:
        """Return whether a job that has ended is kept, and until when."""
        row = self._completed.get(job_id)
        return row is not None, None if row is None else row.expires_at

    def turned(self) -> list[tuple[str, Wait]]:
        """Return which jobs of keys wait for their turn, or have it, otherwise than when last asked.

        Of those that were let in and claimed at once: due when they were claimed.
        """
        before, self._turns = self._turns, {}
        found = []
        for rows in self._live._keyed.values():
            for row in rows.values():
                was = before.get(row.id)
                if row.status is JobStatus.PENDING:
                    now = self._turns[row.id] = Wait(row.due_at, row.waits_from)
                    if now != was and (was is not None or row.due_at is None):
                        found.append((row.id, now))
                elif was is not None and was.due_at is None:
                    found.append((row.id, Wait(row.started_at, row.started_at)))
        return found

    def watched(self, job_id: str) -> bool:
        """Return whether anybody waits for a job."""
        return self._beside.watched(job_id)

    def watches(self) -> set[str]:
        """Return the owners that wait for a job."""
        return {owner for owners in self._beside._watches.values() for owner in owners}

    def left_behind(self) -> set[str]:
        """Return the ids of jobs that are gone, and left something behind."""
        beside = self._beside
        return (
            {*beside._errors, *beside._lines, *beside._tags} - self._live.rows.keys() - self._completed.keys()
        )

    def state_of(self, job_id: str) -> Literal["pending", "running", "completed"]:
        """Return where a job is that is there."""
        row = self._live.rows.get(job_id)
        if row is None:
            return "completed"
        return "running" if row.status is JobStatus.RUNNING else "pending"

    def asked_to_end(self, job_id: str) -> int | None:
        """Return when a live job was asked to end."""
        row = self._live.rows.get(job_id)
        return None if row is None else row.cancelled_at

    def most_attempts(self, job_id: str) -> int:
        """Return how many attempts a live job has."""
        return self._live.rows[job_id].max_attempts

    def ended_as(self, *states: JobStatus) -> list[str]:
        """Return the completed jobs that ended in one of these ways."""
        return [row.id for row in self._completed.values() if row.status in states]

    def expiries(self) -> list[int | None]:
        """Return when the completed jobs that are kept expire."""
        return [row.expires_at for row in self._completed.values()]
