"""Schedules of a faulty store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from backlite_async._graph import follow_up_id
from backlite_async._recurring import StoredSchedule, Tick

from .faults import Faults
from .history import Stored
from .memory import SharedMemory
from .telling import Teller
from .telling import now as at_once

if TYPE_CHECKING:
    from .world import World

__all__ = ["Recurring", "check_schedules"]


class Recurring(Faults):
    """The part of a faulty store that keeps schedules, and adds what is due of them."""

    _inner: SharedMemory
    _teller: Teller

    def _ring_all(self) -> None:
        raise NotImplementedError

    def _changed(self, done: object) -> None:
        if done:
            self._ring_all()

    async def save_schedule(self, schedule: StoredSchedule, *, expected: int | None) -> bool:
        """Write a schedule of this version."""
        save = partial(self._inner.save_schedule, schedule, expected=expected)
        return await self._do("save_schedule", lambda: at_once(save()), committed=self._changed)

    async def delete_schedule(self, name: str) -> bool:
        """Delete a schedule."""
        delete = partial(self._inner.delete_schedule, name)
        return await self._do("delete_schedule", lambda: at_once(delete()), committed=self._changed)

    async def schedules(self, name: str | None = None) -> Sequence[StoredSchedule]:
        """Return all schedules, or the one of this name."""
        return await self._do("schedules", lambda: at_once(self._inner.schedules(name)))

    async def due_schedules(self, *, now: int, limit: int) -> Sequence[StoredSchedule]:
        """Return the schedules that are due."""
        due = partial(self._inner.due_schedules, now=now, limit=limit)
        return await self._do("due_schedules", lambda: at_once(due()))

    async def next_tick(self) -> int | None:
        """Return when the next schedule is due."""
        return await self._do("next_tick", lambda: at_once(self._inner.next_tick()))

    async def tick(self, tick: Tick) -> Sequence[str] | None:
        """Add what is due of a schedule, and move it on."""
        return await self._do("tick", partial(self._teller.tick, tick), committed=self._changed)


def check_schedules(world: World, count: int) -> list[str]:
    """Return the instants of schedules that have no job or several, and the schedules that are gone."""
    from .world import EVERY, RUNS

    stored = {schedule.name: schedule for schedule in at_once(world.memory.schedules())}
    added = Counter(event.job for event in world.history.events if isinstance(event, Stored))
    wrong = []
    for number in range(count):
        schedule = stored.get(f"schedule {number}")
        if schedule is None:
            wrong.append(f"schedule {number} is gone")
            continue
        anchor, every = msgspec.json.decode(schedule.timing)["anchor"], round(EVERY[number] * 1000)
        instants = range(anchor + every, anchor + every * RUNS + 1, every)
        ids = [follow_up_id("schedule", schedule.name, schedule.created_at, instant) for instant in instants]
        counts = [added[job] for job in ids]
        if counts != [1] * RUNS or schedule.runs != RUNS or schedule.next_at is not None:
            wrong.append(f"{schedule.name} has {schedule.runs} runs, jobs of its instants: {counts}")
    return wrong
