"""What a store keeps of schedules: the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .._recurring import StoredSchedule, Tick

__all__ = ["Schedules"]


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
        added again, and counted all the same. Without `overlap`, no job is added while the last one that
        was is live (or was added by this tick): it is counted as skipped.
        """
        ...
