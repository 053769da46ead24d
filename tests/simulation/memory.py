"""The store that all processes of a world share, and what can be seen in it."""

from __future__ import annotations

from backlite_async import JobStatus
from backlite_async.stores import MemoryStore

__all__ = ["SharedMemory"]


class SharedMemory(MemoryStore):
    """A memory store that calls nobody back, and can be looked into."""

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

    def expiries(self) -> list[int | None]:
        """Return when the completed jobs that are kept expire."""
        return [row.expires_at for row in self._completed.values()]
