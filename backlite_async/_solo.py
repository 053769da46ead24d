"""Jobs that are one crash short of their limit: each runs alone, so that the guilty one is found."""

from __future__ import annotations

from collections.abc import Callable

from ._job import ClaimedJob
from ._registry import Handler

__all__ = ["Solo"]

PATIENCE = 5.0
"""Seconds for which nothing new starts so that such a job can run alone."""

POSTPONED = 5.0
"""Seconds after which a job that could not run alone may be claimed again, by others or here."""


class Solo:
    """Holds claimed jobs back until nothing else runs, and everything else while one of them does.

    A job holds others up once, for a while. If they do not end it is given back, goes to another
    process, or runs here when there happens to be nothing else. One that does not end when its client
    is stopped holds up nobody any more when that is started again.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[ClaimedJob, Handler]] = []
        self._running: str | None = None
        self._deadline = 0.0
        self._tried: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._waiting) or self._running is not None

    def wait(self, job: ClaimedJob, handler: Handler, now: float) -> None:
        """Let a claimed job wait for its turn. `now`: monotonic seconds."""
        if not self:
            self._deadline = now if job.id in self._tried else now + PATIENCE
        self._waiting.append((job, handler))

    def start(self) -> tuple[ClaimedJob, Handler] | None:
        """Return the job that is to run now that nothing else does."""
        self._running = None
        if not self._waiting:
            return None
        job, handler = self._waiting.pop(0)
        self._running = job.id
        self._tried.discard(job.id)
        return job, handler

    def remaining(self, now: float) -> float | None:
        """Return for how many seconds nothing new may start; None: until the one that runs has ended."""
        return None if self._running is not None else max(0.0, self._deadline - now)

    def take_out(self, wanted: Callable[[ClaimedJob], bool]) -> list[ClaimedJob]:
        """Return those jobs that are wanted, which wait no longer."""
        jobs = [job for job, _ in self._waiting if wanted(job)]
        self._waiting = [waiting for waiting in self._waiting if not wanted(waiting[0])]
        return jobs

    def give_up(self) -> list[ClaimedJob]:
        """Return the jobs that have waited in vain, and wait no longer."""
        jobs, self._waiting = [job for job, _ in self._waiting], []
        self._tried.update(job.id for job in jobs)
        return jobs
