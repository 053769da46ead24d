"""Schedules of the memory store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from .._job import NewJob
from .._recurring import StoredSchedule, Tick
from ._memory_service import MemoryService
from ._schedules import ticked

__all__ = ["MemorySchedules"]


class MemorySchedules(MemoryService):
    """Keeps schedules, and adds what is due of them."""

    if TYPE_CHECKING:

        async def add(self, jobs: Sequence[NewJob], *, again: bool = False) -> None:
            """Store pending jobs."""

    def __init__(self) -> None:
        super().__init__()
        self._schedules: dict[str, StoredSchedule] = {}

    async def save_schedule(self, schedule: StoredSchedule, *, expected: int | None) -> bool:
        """Write a schedule whose version is `expected`, None: there is none yet; return whether it was."""
        there = self._schedules.get(schedule.name)
        if expected != (None if there is None else there.version):
            return False
        self._schedules[schedule.name] = msgspec.structs.replace(schedule, version=(expected or 0) + 1)
        self._ring()
        return True

    async def delete_schedule(self, name: str) -> bool:
        """Delete a schedule; return whether there was one."""
        gone = self._schedules.pop(name, None)
        if gone is not None:
            self._ring()
        return gone is not None

    async def schedules(self, name: str | None = None) -> Sequence[StoredSchedule]:
        """Return all schedules by name, removed ones too, or the one of this name."""
        return [self._schedules[key] for key in sorted(self._schedules) if name in (None, key)]

    async def due_schedules(self, *, now: int, limit: int) -> Sequence[StoredSchedule]:
        """Return the schedules that are due, the earliest first."""
        due = [
            (schedule.next_at, schedule.name)
            for schedule in self._schedules.values()
            if schedule.next_at is not None and schedule.next_at <= now
        ]
        return [self._schedules[name] for _, name in sorted(due)[:limit]]

    async def next_tick(self) -> int | None:
        """Return the instant at which the next schedule is due."""
        instants = (schedule.next_at for schedule in self._schedules.values())
        return min((instant for instant in instants if instant is not None), default=None)

    async def tick(self, tick: Tick) -> Sequence[str] | None:
        """Add what is due of a schedule and move it on; return the ids of what was added."""
        schedule = self._schedules.get(tick.name)
        if schedule is None or schedule.version != tick.version:
            return None
        is_live = schedule.last_job_id in self._live.rows
        jobs, skipped, next_at = ticked(tick, runs=schedule.runs, max_runs=schedule.max_runs, is_live=is_live)
        self._schedules[tick.name] = msgspec.structs.replace(
            schedule,
            version=schedule.version + 1,
            runs=schedule.runs + len(jobs),
            skipped=schedule.skipped + skipped,
            next_at=next_at,
            last_instant=schedule.last_instant if tick.last_instant is None else tick.last_instant,
            last_at=tick.at if jobs else schedule.last_at,
            last_job_id=jobs[-1].id if jobs else schedule.last_job_id,
        )
        if jobs:
            await self.add(jobs, again=True)
        return [job.id for job in jobs]
