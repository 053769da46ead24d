"""What becomes of schedules by what is said of them: in the code, or at run time. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b

import msgspec

from ._due import is_over, timing_of
from ._job import NewJob
from ._recurring import Missed, StoredSchedule, Timing
from ._schedule import next_after

__all__ = [
    "Definition",
    "changed",
    "edited",
    "made",
    "orphans",
    "paused",
    "reconciled",
    "resumed",
    "retired",
]

_encode = msgspec.json.Encoder().encode


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a schedule by whoever makes it. Durations in milliseconds.

    `job` has no id and no times; `task` is a hash of its task, the same for equal ones in every process. The
    anchor of `timing` says nothing: it is when the schedule is made.
    """

    name: str
    timing: Timing
    job: NewJob
    task: str
    missed: Missed
    overlap: bool
    jitter: int
    max_runs: int | None

    @property
    def fingerprint(self) -> str:
        """A hash of all of it. What it gives is stored, so it must not change with versions."""
        job = self.job
        form = [
            msgspec.structs.replace(self.timing, anchor=0),
            [job.queue, job.task, self.task, job.max_attempts, job.priority],
            [self.missed, self.overlap, self.jitter, self.max_runs],
        ]
        return blake2b(_encode(form), digest_size=16).hexdigest()


def made(definition: Definition, *, owner: str | None, now: int) -> StoredSchedule:
    """Return a new schedule. `owner`: whose code it is in; None: it is made at run time."""
    timing = _anchored(definition.timing, now)
    return StoredSchedule(
        name=definition.name,
        timing=_encode(timing).decode(),
        job=definition.job,
        missed=definition.missed,
        overlap=definition.overlap,
        jitter=definition.jitter,
        max_runs=definition.max_runs,
        created_at=now,
        updated_at=now,
        next_at=next_after(timing, now),
        declared=None if owner is None else definition.fingerprint,
        declared_by=() if owner is None else (owner,),
    )


def changed(stored: StoredSchedule, definition: Definition, *, now: int) -> StoredSchedule:
    """Return a schedule that does as it is told from now on, and keeps its runs and what it has done.

    As long as it is due at the same times, what is due already stays so; otherwise that is dealt with, also
    if the schedule is removed and comes back.
    """
    old = timing_of(stored)
    same = _pattern(definition.timing) == _pattern(old)
    timing = _anchored(definition.timing, old.anchor if same else now)
    there = msgspec.structs.replace(
        stored,
        timing=_encode(timing).decode(),
        job=definition.job,
        missed=definition.missed,
        overlap=definition.overlap,
        jitter=definition.jitter,
        max_runs=definition.max_runs,
        updated_at=now,
    )
    return msgspec.structs.replace(
        there,
        next_at=_next_at(there, timing, same=same, now=now),
        last_instant=stored.last_instant if same else _dealt_with(stored, now),
        removed=False,
    )


def _anchored(timing: Timing, anchor: int) -> Timing:
    """Return a timing that is counted from then, if it is not counted from what was said."""
    return msgspec.structs.replace(timing, anchor=anchor) if timing.anchor else timing


def _pattern(timing: Timing) -> Timing:
    """Return what decides which instants there are, but for the last one."""
    return msgspec.structs.replace(timing, anchor=0, end=None)


def _next_at(stored: StoredSchedule, timing: Timing, *, same: bool, now: int) -> int | None:
    """Return when a schedule is due next that was changed, or comes back; `same`: not its instants."""
    if stored.paused_at is not None or is_over(stored):
        return None
    if same and stored.next_at is not None:
        return next_after(timing, stored.next_at - 1)
    if same and stored.removed:  # what was due since it was removed is missed
        return next_after(timing, stored.created_at if stored.last_instant is None else stored.last_instant)
    return next_after(timing, _dealt_with(stored, now))


def _dealt_with(stored: StoredSchedule, now: int) -> int:
    """Return the instant up to which nothing is due any more: never one that was dealt with."""
    return now if stored.last_instant is None else max(now, stored.last_instant)


# -- in the code -----------------------------------------------------------------------------------


def reconciled(
    stored: StoredSchedule | None, definition: Definition, *, owner: str, living: Collection[str], now: int
) -> StoredSchedule:
    """Return what is to be stored of a schedule that the code of a starting owner declares.

    What the code said when it was last declared, it need not say again: it is left as it is, also if it was
    edited at run time since.
    """
    if stored is None:
        return made(definition, owner=owner, now=now)
    owners = [other for other in stored.declared_by if other in living and other != owner]
    there = stored
    if stored.removed or stored.declared != definition.fingerprint:
        there = changed(stored, definition, now=now)
    return msgspec.structs.replace(
        there, declared=definition.fingerprint, declared_by=(*owners, owner), removed=False
    )


def orphans(
    stored: Sequence[StoredSchedule], known: Mapping[str, Collection[str]], *, living: Collection[str]
) -> list[StoredSchedule]:
    """Return the schedules that no code declares any more.

    `known`: the owners by which each was declared that ours is newer than. Who has declared it since is newer
    than ours: then its end says nothing, it may just be starting anew.
    """
    return [
        schedule
        for schedule in stored
        if schedule.declared is not None
        and not schedule.removed
        and schedule.name in known
        and set(schedule.declared_by) <= set(known[schedule.name])
        and not set(schedule.declared_by) & set(living)
    ]


def retired(stored: StoredSchedule, now: int) -> StoredSchedule:
    """Return a schedule that is no longer declared: kept, in case it comes back."""
    return msgspec.structs.replace(stored, removed=True, next_at=None, declared_by=(), updated_at=now)


# -- at run time -----------------------------------------------------------------------------------


def edited(stored: StoredSchedule | None, definition: Definition, *, now: int) -> StoredSchedule:
    """Return what is to be stored of a schedule that is made or changed at run time."""
    if stored is None:
        return made(definition, owner=None, now=now)
    if stored.removed:  # nobody sees that it was paused
        stored = msgspec.structs.replace(stored, paused_at=None)
    return msgspec.structs.replace(
        changed(stored, definition, now=now), declared=None, declared_by=(), removed=False
    )


def paused(stored: StoredSchedule, now: int) -> StoredSchedule:
    """Return a schedule of which nothing is due until it is resumed."""
    return msgspec.structs.replace(stored, paused_at=now, next_at=None, updated_at=now)


def resumed(stored: StoredSchedule, now: int) -> StoredSchedule:
    """Return a schedule that goes on from now: what was due in its pause is not made up for."""
    since = _dealt_with(stored, now)
    return msgspec.structs.replace(
        stored,
        paused_at=None,
        next_at=None if is_over(stored) else next_after(timing_of(stored), since),
        last_instant=since,
        updated_at=now,
    )
