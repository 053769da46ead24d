"""Schedules as plain data: jobs that come again."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

import msgspec

from ._job import Job, NewJob

__all__ = ["Missed", "Schedule", "ScheduleState", "StoredSchedule", "Tick", "Timing"]

Missed = Literal["one", "all", "none"]
"""Which of the runs to make up for that were due while nobody watched: the last one, all of them, none."""


class ScheduleState(StrEnum):
    """Where a schedule is in its life. Draft: not begun yet; completed: nothing is due any more."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"


class Timing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a schedule is due: one of `cron`, `every` (milliseconds), `rule` and `at`.

    `rule`: the parts of a recurrence rule as in RFC 5545, without DTSTART. `tz`: an IANA name. `start`:
    nothing is due before; intervals and rules are counted from there (`anchor` where no start was given:
    when it was made). `end`: nothing is due after. Instants in milliseconds.
    """

    cron: str | None = None
    every: int | None = None
    rule: str | None = None
    at: tuple[int, ...] | None = None
    tz: str = "UTC"
    anchor: int = 0
    start: int | None = None
    end: int | None = None


class StoredSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as a store keeps it. Instants and durations in milliseconds.

    `timing`: a `Timing` as JSON; `job`: what each run adds, but for its id and times. `version` grows with
    every write, and whoever writes names the one that it has read. `next_at`: the next instant that is due;
    None: there is none, or it is paused, or removed. `runs` were added, `skipped` were not, as the last one
    had not finished. `last_instant`: the last one that was dealt with; `last_at`, `last_job_id`: when a job
    was last added, and which. `declared`: a fingerprint of what the code says of it, None: it was made at
    run time; `declared_by`: the owners whose code it is in; `removed`: no code says it any more.
    """

    name: str
    timing: str
    job: NewJob
    missed: Missed
    overlap: bool
    jitter: int
    max_runs: int | None
    created_at: int
    updated_at: int
    next_at: int | None
    version: int = 0
    declared: str | None = None
    declared_by: tuple[str, ...] = ()
    removed: bool = False
    paused_at: int | None = None
    runs: int = 0
    skipped: int = 0
    last_instant: int | None = None
    last_at: int | None = None
    last_job_id: str | None = None


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """What is due of a schedule: jobs to add, in the order of their instants, and how it moves on.

    `version`: that of what it was made from; `next_at`: as if any number of runs were allowed. Without
    `overlap`, nothing runs beside the last run: is its job live, or is one of `jobs` added before, the
    others are skipped.
    """

    name: str
    version: int
    jobs: tuple[NewJob, ...]
    next_at: int | None
    last_instant: int | None
    at: int
    overlap: bool = True


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it is now. Instants are aware datetimes in UTC, `next_runs` in the schedule's time zone.

    `declared`: it stands in the code of a client; else it was made at run time. `words`: when it runs, in
    plain English. `next_runs`: the next five; `last_run`: when a job was last added,
    `last_job` its record, as far as it is kept (in a list, 200 bytes of its payload and result),
    `last_job_id` its id. `runs`: how many were added;
    `skipped`: how many were due while the last one had not finished (`overlap=False`).
    """

    name: str
    state: ScheduleState
    queue: str
    task: str
    payload: bytes
    words: str
    next_runs: tuple[datetime, ...]
    cron: str | None
    every: timedelta | None
    rule: str | None
    at: tuple[datetime, ...] | None
    tz: str
    start: datetime | None
    end: datetime | None
    max_runs: int | None
    missed: Missed
    overlap: bool
    jitter: timedelta | None
    declared: bool
    runs: int
    skipped: int
    last_run: datetime | None
    last_job_id: str | None
    last_job: Job | None
    paused_at: datetime | None
    created_at: datetime
    updated_at: datetime
