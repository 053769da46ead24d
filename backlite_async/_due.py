"""What is due of a schedule, and how it goes on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from ._graph import follow_up_id
from ._job import NewJob
from ._recurring import ScheduleState, StoredSchedule, Tick, Timing
from ._schedule import jitter, last_of, next_after, occurrences, preview

__all__ = ["BATCH", "LATE", "coming", "is_over", "passed_over", "plan_tick", "state_of", "timing_of"]

LATE = 10_000
"""Milliseconds after which a run is missed where nothing is made up for: `missed="none"`."""

BATCH = 100
"""Runs that one tick adds at most where all are made up for, so that nobody waits long behind it."""

_decode = msgspec.json.Decoder(Timing).decode


def timing_of(stored: StoredSchedule) -> Timing:
    """Return when a schedule is due."""
    return _decode(stored.timing)


def plan_tick(stored: StoredSchedule, timing: Timing, now: int) -> Tick:
    """Return what is to be done about a schedule that is due by now.

    Its instants only grow: a clock that is set back finds nothing due, and repeats nothing.
    """
    first = now if stored.next_at is None else stored.next_at
    instants = _due(stored, timing, first, now)
    last = max([first - 1, *instants]) if stored.missed == "all" else now
    runs = instants
    if stored.missed == "none":
        runs = [instant for instant in instants if now - instant < LATE]
    if stored.max_runs is not None:
        runs = runs[: max(stored.max_runs - stored.runs, 0)]
    return Tick(
        name=stored.name,
        version=stored.version,
        jobs=tuple(_job(stored, instant, now) for instant in runs),
        next_at=next_after(timing, last),
        last_instant=max(instants, default=None),
        at=now,
        overlap=stored.overlap,
    )


def _due(stored: StoredSchedule, timing: Timing, first: int, now: int) -> Sequence[int]:
    """Return the instants that are dealt with at once: some of many, or the last one.

    None, if what was due is so no longer, by a time zone that has other rules now.
    """
    if stored.missed == "all":
        return occurrences(timing, first - 1, now, BATCH)
    last = last_of(timing, first - 1, now)
    return [] if last is None else [last]


def _job(stored: StoredSchedule, instant: int, now: int) -> NewJob:
    """Return the job of an instant: the same one, whoever makes it."""
    job_id = follow_up_id("schedule", stored.name, stored.created_at, instant)
    due_at = instant + jitter(job_id, stored.jitter)
    return msgspec.structs.replace(stored.job, id=job_id, created_at=now, due_at=due_at, waits_from=None)


def passed_over(stored: StoredSchedule, tick: Tick) -> bool:
    """Return whether instants went by in a tick that are not made up for."""
    if stored.missed == "all" or tick.last_instant is None:
        return False
    reached = stored.max_runs is not None and stored.runs >= stored.max_runs
    return tick.last_instant != stored.next_at or (not tick.jobs and not reached)


def is_over(stored: StoredSchedule) -> bool:
    """Return whether a schedule has had its last run."""
    return stored.max_runs is not None and stored.runs >= stored.max_runs


def state_of(stored: StoredSchedule, timing: Timing, now: int) -> ScheduleState:
    """Return where a schedule is in its life."""
    if stored.paused_at is not None:
        return ScheduleState.PAUSED
    if stored.next_at is None:
        return ScheduleState.COMPLETED
    if timing.start is not None and now < timing.start:
        return ScheduleState.DRAFT
    return ScheduleState.ACTIVE


def coming(stored: StoredSchedule, timing: Timing, most: int) -> Sequence[datetime]:
    """Return the next times that are due, as far as `max_runs` leaves any, in the schedule's time zone."""
    if stored.next_at is None:
        return []
    if stored.max_runs is not None:
        most = min(most, max(stored.max_runs - stored.runs, 0))
    return preview(timing, stored.next_at - 1, most)
