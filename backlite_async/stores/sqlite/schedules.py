"""Schedules of the SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from ..._job import NewJob
from ..._recurring import StoredSchedule, Tick
from .._schedules import ticked
from .opened import OpenStore
from .rows import add_again
from .sql import fetch, statements, text

__all__ = ["ScheduleStore"]

_COLUMNS = (
    "name version timing job missed overlap jitter max_runs declared declared_by removed paused_at"
    " created_at updated_at next_at runs skipped last_instant last_at last_job_id"
).split()
"""The columns of the part `schedule`."""

_job = msgspec.json.Decoder(NewJob)

NOTHING = NewJob(id="", queue="", task="", payload=b"", max_attempts=1, created_at=0, due_at=0)
"""The job of a schedule whose row is damaged; its timing says nothing either, so that it never runs."""


class ScheduleStore(OpenStore):
    """Keeps schedules, and adds what is due of them."""

    async def save_schedule(self, schedule: StoredSchedule, *, expected: int | None) -> bool:
        """Write a schedule whose version is `expected`, None: there is none yet; return whether it was."""
        save = _Write(partial(_save, schedule=schedule, expected=expected))
        return bool(await self._writing().submit(save, committed=partial(self._changed, save)))

    async def delete_schedule(self, name: str) -> bool:
        """Delete a schedule; return whether there was one."""
        delete = _Write(partial(_delete, name=name))
        return bool(await self._writing().submit(delete, committed=partial(self._changed, delete)))

    async def schedules(self, name: str | None = None) -> Sequence[StoredSchedule]:
        """Return all schedules by name, removed ones too, or the one of this name."""
        if name is None:
            return await self._database.read(lambda raw: _fetch(raw, "schedules", {}))
        return await self._database.read(lambda raw: _fetch(raw, "schedule", {"name": name}))

    async def due_schedules(self, *, now: int, limit: int) -> Sequence[StoredSchedule]:
        """Return the schedules that are due, the earliest first."""
        asked = {"now": now, "limit": limit}
        return await self._database.read(
            lambda raw: [_read(row) for row in fetch(raw, "due_schedules", asked)]
        )

    async def next_tick(self) -> int | None:
        """Return the instant at which the next schedule is due."""
        found: int | None = await self._database.read(lambda raw: fetch(raw, "next_tick", {})[0][0])
        return found

    async def tick(self, tick: Tick) -> Sequence[str] | None:
        """Add what is due of a schedule and move it on; return the ids of what was added."""
        move = _Write(partial(_tick, tick=tick))
        added: list[str] | None = await self._writing().submit(move, committed=partial(self._ticked, move))
        return added

    def _changed(self, write: _Write, claimed: bool) -> None:
        """Tell everybody, ourselves too: a claim beside it does not look for what is due next."""
        if write.done:
            self._ring_all()

    def _ticked(self, write: _Write, claimed: bool) -> None:
        if write.done:
            self._ring_all(claimed)


class _Write:
    """A write on its way into the database; afterwards, what it has done: of nothing, nobody is told."""

    def __init__(self, run: partial[Any]) -> None:
        self._run = run
        self.done: Any = None

    def __call__(self, raw: sqlite3.Connection) -> Any:
        """Write it."""
        self.done = self._run(raw)
        return self.done


def _save(raw: sqlite3.Connection, *, schedule: StoredSchedule, expected: int | None) -> bool:
    values = {name: getattr(schedule, name) for name in _COLUMNS if name != "version"}
    values["job"] = text(schedule.job)
    values["declared_by"] = text(schedule.declared_by)
    if expected is None:
        return raw.execute(statements()["add_schedule"], values).rowcount > 0
    return raw.execute(statements()["change_schedule"], values | {"expected": expected}).rowcount > 0


def _delete(raw: sqlite3.Connection, *, name: str) -> bool:
    return raw.execute(statements()["delete_schedule"], {"name": name}).rowcount > 0


def _tick(raw: sqlite3.Connection, *, tick: Tick) -> list[str] | None:
    found = fetch(raw, "ticking", {"name": tick.name, "version": tick.version})
    if not found:
        return None
    ((runs, max_runs, is_live),) = found
    jobs, skipped, next_at = ticked(tick, runs=runs, max_runs=max_runs, is_live=bool(is_live))
    if jobs:
        add_again(raw, jobs)
    moved = {
        "name": tick.name,
        "at": tick.at,
        "added": len(jobs),
        "skipped": skipped,
        "next_at": next_at,
        "last_instant": tick.last_instant,
        "last_job_id": jobs[-1].id if jobs else None,
    }
    raw.execute(statements()["tick"], moved)
    return [job.id for job in jobs]


def _fetch(raw: sqlite3.Connection, name: str, parameters: dict[str, Any]) -> list[StoredSchedule]:
    return [_read(row) for row in fetch(raw, name, parameters)]


def _read(row: Sequence[Any]) -> StoredSchedule:
    values = dict(zip(_COLUMNS, row, strict=True))
    for name in ("overlap", "removed"):
        values[name] = bool(values[name])
    try:
        values["job"] = _job.decode(values["job"])
        values["declared_by"] = msgspec.json.decode(values["declared_by"], type=tuple[str, ...])
    except (msgspec.DecodeError, TypeError):  # whoever has written into it: the others are due all the same
        values |= {"job": NOTHING, "declared_by": (), "timing": ""}
    return StoredSchedule(**values)
