"""What the store's statements do to rows: functions over a connection of SQLite's, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..._job import ClaimedJob, JobStatus, More, NewJob
from .._base import STEP_MARGIN, STEP_NOTICE
from . import history
from .sql import fetch, many, statements, text
from .turns import take_turns

__all__ = [
    "add",
    "add_again",
    "added",
    "claimed_job",
    "claims_of",
    "expire",
    "held",
    "holds_claims",
    "kinds",
    "next_expiry",
    "placed",
    "readable",
    "renew",
    "shift_waits",
    "status",
    "waits_ahead",
]

KEY_LOOKS = 600_000
"""Milliseconds between two looks whether the job of a unique key is live."""

LARGEST_ADD = 256
"""Jobs that are added by one statement; with more, nothing is gained, and others wait for the interpreter."""


def add(raw: sqlite3.Connection, jobs: Sequence[NewJob]) -> None:
    """Store pending jobs, whose ids are new."""
    if any(job.more is not None for job in jobs):
        _add_chunks(raw, "add_from_array", jobs)
        history.add_tags(raw, jobs)
        take_turns(raw, jobs, max(job.created_at for job in jobs))
        return
    begin = 0
    while left := len(jobs) - begin:
        # Powers of two: few statements, all of them prepared, serve any number.
        size = min(1 << left.bit_length() - 1, LARGEST_ADD)
        values: list[object] = []
        for job in jobs[begin : begin + size]:
            values += (
                job.id,
                job.queue,
                job.task,
                job.payload,
                job.max_attempts,
                job.created_at,
                job.due_at,
                job.due_at,
                job.priority,
                job.waits_from,
            )
        raw.execute(many("add", size), values)
        begin += size


def add_again(raw: sqlite3.Connection, jobs: Sequence[NewJob]) -> None:
    """Store pending jobs, those that are not there already."""
    _add_chunks(raw, "add_again", jobs)
    history.add_tags(raw, jobs)
    take_turns(raw, jobs, max(job.created_at for job in jobs))


def _add_chunks(raw: sqlite3.Connection, name: str, jobs: Sequence[NewJob]) -> None:
    for begin in range(0, len(jobs), LARGEST_ADD):
        fetch(raw, name, {"jobs": added(jobs[begin : begin + LARGEST_ADD])})


def added(jobs: Iterable[NewJob]) -> str:
    """Return the parameter of the statements `add_from_array` and `add_again`."""
    return text(
        [
            (
                job.id,
                job.queue,
                job.task,
                job.payload.decode(),
                job.max_attempts,
                job.created_at,
                job.due_at,
                job.priority,
                job.waits_from,
                *(placed(more) if more else ()),
            )
            for job in jobs
            for more in (job.more,)
        ]
    )


def placed(more: More) -> tuple[object, ...]:
    """Return the columns of a job that most have not; one that waits for others has its key only then."""
    if more.workflow is None:
        return (more.key, more.timeout, more.parent, more.meta, more.tags)
    key, blocked = (None, more.key or "") if more.blocked else (more.key, None)
    return (key, more.timeout, more.parent, more.meta, more.tags, more.workflow, more.step, blocked)


def held(raw: sqlite3.Connection, fences: dict[str, int], lapsed_by: int | None) -> set[str]:
    """Return the ids of those of these claims that are held."""
    found = fetch(raw, "held", {"fences": text(fences), "lapsed_by": lapsed_by})
    return set(msgspec.json.decode(found[0][0]))


def claims_of(raw: sqlite3.Connection, owner: str) -> list[ClaimedJob]:
    """Return what an owner has claimed."""
    return [claimed_job(row) for row in fetch(raw, "claims_of", {"owner": owner})]


def holds_claims(raw: sqlite3.Connection, owner: str) -> bool:
    """Return whether an owner has claimed anything, or waits for a job."""
    return bool(fetch(raw, "holds_claims", {"owner": owner})[0][0])


def renew(raw: sqlite3.Connection, *, fences: dict[str, int], until: int) -> set[str]:
    """Extend leases; return the ids of those that are lost."""
    parameters = {"fences": text(fences), "until": until}
    if raw.execute(statements()["renew"], parameters).rowcount == len(fences):
        return set()
    return fences.keys() - held(raw, fences, None)


def status(raw: sqlite3.Connection, job_id: str, now: int) -> JobStatus:
    """Return where a job is in its life."""
    found = fetch(raw, "status", {"id": job_id, "now": now})
    return JobStatus(found[0][0]) if found else JobStatus.NOT_FOUND


def next_expiry(raw: sqlite3.Connection) -> int | None:
    """Return the instant at which the next completed job expires."""
    found = fetch(raw, "next_expiry", {})
    return found[0][0] if found else None


def expire(raw: sqlite3.Connection, *, now: int, limit: int) -> int:
    """Remove completed jobs that have expired, and forget unique keys; return how many jobs."""
    parameters = {"now": now, "limit": limit, "later": now + KEY_LOOKS}
    raw.execute(statements()["look_later"], parameters)
    raw.execute(statements()["forget_keys"], parameters)
    ((number, seqs, beside),) = fetch(raw, "expired", {"now": now, "limit": limit})
    if number:
        raw.execute(statements()["expire"], {"seqs": seqs})
        history.forget(raw, msgspec.json.decode(beside))
    return int(number)


def waits_ahead(raw: sqlite3.Connection, now: int) -> bool:
    """Return whether a job waits since a time that is still to come, or a start is counted then."""
    return bool(
        fetch(raw, "waits_ahead", {"now": now, "margin": STEP_MARGIN})[0][0]
        or fetch(raw, "starts_ahead", {"latest": now + STEP_NOTICE})[0][0]
    )


def shift_waits(raw: sqlite3.Connection, *, now: int, by: int) -> int:
    """Shift waits after a step of the clock, or let them begin anew; return how many."""
    name = "restart_waits" if by == 0 else "shift_waits" if by < 0 else "shift_waits_back"
    parameters = {
        "now": now, "by": by, "margin": STEP_MARGIN, "notice": STEP_NOTICE, "latest": now + STEP_NOTICE
    }  # fmt: skip
    raw.execute(statements()["shift_starts" if by else "pull_starts"], parameters)
    return raw.execute(statements()[name], parameters).rowcount


def kinds(raw: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the queues and task names that have pending jobs with a due time."""
    found: list[tuple[str, str]] = []
    after = ("", "")
    while rows := fetch(raw, "next_kind", {"queue": after[0], "task": after[1]}):
        after = (rows[0][0], rows[0][1])
        found.append(after)
    return found


def claimed_job(row: Sequence[Any]) -> ClaimedJob:
    """Make a claimed job of a row with its fields."""
    job = dict(zip(ClaimedJob.__struct_fields__, row, strict=True))
    job["payload"] = job["payload"].decode("utf-8", "surrogateescape")
    for name in ("key", "parent", "meta", "tags", "workflow"):
        job[name] = readable(job[name])
    return ClaimedJob(**job)


def readable(text: bytes | None) -> str | None:
    """Return a text whatever has become of its bytes: one bad row must not stop all others."""
    return None if text is None else text.decode("utf-8", "replace")
