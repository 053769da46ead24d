"""What a store keeps of schedules: the protocol, and what becomes of a tick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .._job import NewJob
from .._recurring import StoredSchedule, Tick

__all__ = ["Schedules", "Ticked", "ticked"]


class Schedules(Protocol):
    """Schedules, and their runs. A write tells the other owners."""

    async def save_schedule(self, schedule: StoredSchedule, *, expected: int | None) -> bool:
        """Write a schedule whose version is `expected`, None: there is none yet; return whether it was.

        Its version is then one more (of a new one: 1), whatever `schedule` says.
        """
        ...

    async def delete_schedule(self, name: str) -> bool:
        """Delete a schedule; return whether there was one. Its jobs stay."""
        ...

    async def schedules(self, name: str | None = None) -> Sequence[StoredSchedule]:
        """Return all schedules by name, removed ones too, or the one of this name."""
        ...

    async def due_schedules(self, *, now: int, limit: int) -> Sequence[StoredSchedule]:
        """Return the schedules that are due, the earliest first."""
        ...

    async def next_tick(self) -> int | None:
        """Return the instant at which the next schedule is due."""
        ...

    async def tick(self, tick: Tick) -> Sequence[str] | None:
        """Add what is due of a schedule and move it on, in one transaction; return the ids of what was added.

        None: its version is another one by now, and nothing is done. Ids that are there already are not
        added again, and counted and returned all the same. Without `overlap`, no job is added while the last
        one that was is live (or was added by this tick): it is counted as skipped. Once `max_runs` were
        added, no more are, and nothing is due any more, whatever `next_at` the tick has.
        """
        ...


class Ticked(NamedTuple):
    """What becomes of a tick: jobs to add, how many are skipped, and when the schedule is due next."""

    jobs: tuple[NewJob, ...]
    skipped: int
    next_at: int | None


def ticked(tick: Tick, *, runs: int, max_runs: int | None, is_live: bool) -> Ticked:
    """Return what becomes of a tick of a schedule with so many runs, whose last job is live or is not."""
    jobs = tick.jobs
    if not tick.overlap:
        jobs = () if is_live else jobs[:1]
    if max_runs is None or runs + len(jobs) < max_runs:
        return Ticked(jobs, len(tick.jobs) - len(jobs), tick.next_at)
    return Ticked(jobs[: max(max_runs - runs, 0)], 0, None)
