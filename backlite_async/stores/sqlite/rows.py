"""What the store's statements do to rows: functions over a connection of SQLite's, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from ..._job import (
    Claim,
    ClaimedJob,
    Complete,
    Job,
    JobStatus,
    Lane,
    Lapsed,
    NewJob,
    Outcome,
    Reschedule,
    record,
)
from .._base import STEP_MARGIN, STEP_NOTICE, still_open
from .sql import many, statements

__all__ = [
    "add",
    "add_again",
    "added",
    "claim",
    "claims_of",
    "expire",
    "finish",
    "get",
    "holds_claims",
    "kinds",
    "look",
    "next_expiry",
    "renew",
    "shift_waits",
    "status",
    "waits_ahead",
]

_RECORD = (
    "id queue task status payload attempt max_attempts crashes priority fence owner"
    " created_at scheduled_at started_at finished_at duration error result expires_at"
).split()
"""The columns of the statement `get`."""

_encoder = msgspec.json.Encoder()
_claimed_jobs = msgspec.json.Decoder(list[ClaimedJob])

LARGEST_ADD = 256
"""Jobs that are added by one statement; with more, nothing is gained, and others wait for the interpreter."""

LARGEST_PAYLOAD = 65_536
"""Bytes of a payload that travels with others in one array; SQLite's texts have an end, and so has memory."""

FEW_KINDS = 2
"""Kinds of which the best jobs of each are read and sorted; with more, a merge of them costs less."""


def _all(raw: sqlite3.Connection, name: str, parameters: dict[str, Any]) -> list[Any]:
    """Run a statement and fetch all: one with RETURNING that is not read to its end holds its lock."""
    return raw.execute(statements()[name], parameters).fetchall()


def _text(value: object) -> str:
    return _encoder.encode(value).decode()


def add(raw: sqlite3.Connection, jobs: Sequence[NewJob]) -> None:
    """Store pending jobs, whose ids are new."""
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
    for begin in range(0, len(jobs), LARGEST_ADD):
        _all(raw, "add_again", {"jobs": added(jobs[begin : begin + LARGEST_ADD])})


def added(jobs: Iterable[NewJob]) -> str:
    """Return the parameter of the statements `add_within` and `add_again`."""
    return _text(
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
            )
            for job in jobs
        ]
    )


def claim(
    raw: sqlite3.Connection,
    lanes: Sequence[Lane],
    *,
    owner: str,
    now: int,
    until: int,
    taking: Callable[[Sequence[ClaimedJob]], None] | None = None,
) -> Claim:
    """Take due jobs, best first; `taking` is called when they are taken."""
    seqs, jobs, due_at, lease_end = _claimable(raw, lanes, owner, now)
    if seqs != "[]":
        raw.execute(statements()["next_fence"])
        raw.execute(statements()["claim"], {"seqs": seqs, "owner": owner, "now": now, "until": until})
        if jobs is None:
            jobs = [_claimed(row) for row in _all(raw, "claimed", {"seqs": seqs})]
    jobs = jobs or []
    if taking is not None:
        taking(jobs)
    open_kinds = still_open(lanes, [(job.queue, job.task) for job in jobs])
    if not open_kinds:
        due_at = None
    elif len(lanes) > 1:
        parameters = {"places": _text(sorted(open_kinds)), "now": now, "total": 1}
        due_at = _all(raw, "first_due", parameters)[0][0]
    return _told(raw, lanes, owner=owner, now=now, jobs=jobs, due_at=due_at, lease_end=lease_end)


def look(raw: sqlite3.Connection, lanes: Sequence[Lane], *, owner: str, now: int) -> Claim | None:
    """Return what a claim would that finds nothing due; None: there is something."""
    parameters = {
        "places": _text(sorted(still_open(lanes, []))),
        "kinds": _kinds_of(lanes),
        "total": 1,  # whether there is any
        "owner": owner,
        "now": now,
        "after": -1,
    }
    due_at, lease_end = _all(raw, "look", parameters)[0]
    if due_at is not None and due_at <= now:
        return None
    return _told(raw, lanes, owner=owner, now=now, jobs=[], due_at=due_at, lease_end=lease_end)


def _claimable(
    raw: sqlite3.Connection, lanes: Sequence[Lane], owner: str, now: int
) -> tuple[str, list[ClaimedJob] | None, int | None, int | None]:
    """Return where the jobs to claim are, and what they will be; None where that needs their rows."""
    places = [(*kind, number, lane.room) for number, lane in enumerate(lanes) for kind in lane.kinds]
    encoded_places = _text(places)
    parameters = {
        "places": encoded_places,
        "kinds": encoded_places,
        "total": max((lane.room for lane in lanes), default=0),
        "owner": owner,
        "now": now,
        "after": -1,
        "largest": LARGEST_PAYLOAD,
    }
    name = "claimable" if len(places) <= FEW_KINDS else "claimable_of_kinds"
    if len(lanes) > 1:
        name += "_in_lanes"
    try:
        ((seqs, encoded, due_at, lease_end),) = _all(raw, name, parameters)
        return seqs, _claimed_jobs.decode(encoded), due_at, lease_end
    except (msgspec.DecodeError, UnicodeDecodeError, sqlite3.DataError):
        ((seqs, _, due_at, lease_end),) = _all(raw, name, parameters | {"largest": -1})
        return seqs, None, due_at, lease_end


def _told(
    raw: sqlite3.Connection,
    lanes: Sequence[Lane],
    *,
    owner: str,
    now: int,
    jobs: Sequence[ClaimedJob],
    due_at: int | None,
    lease_end: int | None,
) -> Claim:
    """Return a claim of these jobs, with what is to be told of the leases of others."""
    lapsed = []
    if lease_end is not None and lease_end <= now:
        parameters = {"kinds": _kinds_of(lanes), "owner": owner, "now": now, "after": now}
        parameters |= {"places": "[]", "total": 1}
        for other, until, *row in _all(raw, "lapsed", parameters):
            lapsed.append(Lapsed(owner=other, until=until, job=_claimed(row)))
        lease_end = _all(raw, "look", parameters)[0][1]
    instants = [instant for instant in (due_at, lease_end) if instant is not None]
    return Claim(jobs=jobs, lapsed=lapsed, next_at=min(instants, default=None))


def finish(raw: sqlite3.Connection, *, outcomes: Sequence[Outcome]) -> set[str]:
    """Write outcomes; return the ids of those whose claim is no longer theirs."""
    completed: dict[int | None, list[Complete]] = {}
    again: dict[int | None, list[Reschedule]] = {}
    kept: list[Complete] = []
    for outcome in outcomes:
        if isinstance(outcome, Complete):
            completed.setdefault(outcome.lapsed_by, []).append(outcome)
            if outcome.keep is not None:
                kept.append(outcome)
        else:
            again.setdefault(outcome.lapsed_by, []).append(outcome)
    if kept:
        _all(raw, "keep", {"outcomes": _text(kept)})
    lost: set[str] = set()
    for lapsed_by, group in completed.items():
        lost |= _finish(raw, "remove", group, lapsed_by)
    for lapsed_by, others in again.items():
        lost |= _finish(raw, "reschedule", others, lapsed_by)
    return lost


def _finish(
    raw: sqlite3.Connection, name: str, outcomes: Sequence[Outcome], lapsed_by: int | None
) -> set[str]:
    """Write outcomes by a statement that takes all or none; without those that are lost, then."""
    if _whole(raw, name, outcomes, lapsed_by):
        return set()
    fences = {outcome.id: outcome.fence for outcome in outcomes}
    held = _held(raw, fences, lapsed_by)
    rest = [outcome for outcome in outcomes if outcome.id in held]
    if rest and not _whole(raw, name, rest, lapsed_by):
        raise LookupError(f"claims of {len(rest)} jobs are held, and were not found")
    return fences.keys() - held


def _whole(raw: sqlite3.Connection, name: str, outcomes: Sequence[Outcome], lapsed_by: int | None) -> bool:
    parameters: dict[str, Any] = {"count": len(outcomes), "lapsed_by": lapsed_by}
    if name == "remove":
        parameters["fences"] = _text({outcome.id: outcome.fence for outcome in outcomes})
    else:
        parameters["outcomes"] = _text(outcomes)
    return raw.execute(statements()[name], parameters).rowcount == len(outcomes)


def _held(raw: sqlite3.Connection, fences: dict[str, int], lapsed_by: int | None) -> set[str]:
    """Return the ids of those of these claims that are held."""
    found = _all(raw, "held", {"fences": _text(fences), "lapsed_by": lapsed_by})
    return set(msgspec.json.decode(found[0][0]))


def claims_of(raw: sqlite3.Connection, owner: str) -> list[ClaimedJob]:
    """Return what an owner has claimed."""
    return [_claimed(row) for row in _all(raw, "claims_of", {"owner": owner})]


def holds_claims(raw: sqlite3.Connection, owner: str) -> bool:
    """Return whether an owner has claimed anything."""
    return bool(_all(raw, "holds_claims", {"owner": owner})[0][0])


def renew(raw: sqlite3.Connection, *, fences: dict[str, int], until: int) -> set[str]:
    """Extend leases; return the ids of those that are lost."""
    parameters = {"fences": _text(fences), "until": until}
    if raw.execute(statements()["renew"], parameters).rowcount == len(fences):
        return set()
    return fences.keys() - _held(raw, fences, None)


def status(raw: sqlite3.Connection, job_id: str, now: int) -> JobStatus:
    """Return where a job is in its life."""
    found = _all(raw, "status", {"id": job_id, "now": now})
    return JobStatus(found[0][0]) if found else JobStatus.NOT_FOUND


def get(raw: sqlite3.Connection, job_id: str, now: int) -> Job | None:
    """Return a job's record."""
    found = _all(raw, "get", {"id": job_id, "now": now})
    return record(dict(zip(_RECORD, found[0], strict=True))) if found else None


def next_expiry(raw: sqlite3.Connection) -> int | None:
    """Return the instant at which the next completed job expires."""
    found = _all(raw, "next_expiry", {})
    return found[0][0] if found else None


def expire(raw: sqlite3.Connection, *, now: int, limit: int) -> int:
    """Remove completed jobs that have expired; return how many."""
    return raw.execute(statements()["expire"], {"now": now, "limit": limit}).rowcount


def waits_ahead(raw: sqlite3.Connection, now: int) -> bool:
    """Return whether a job waits since a time that is still to come."""
    return bool(_all(raw, "waits_ahead", {"now": now, "margin": STEP_MARGIN})[0][0])


def shift_waits(raw: sqlite3.Connection, *, now: int, by: int) -> int:
    """Shift waits after a step of the clock, or let them begin anew; return how many."""
    name = "restart_waits" if by == 0 else "shift_waits" if by < 0 else "shift_waits_back"
    parameters = {"now": now, "by": by, "margin": STEP_MARGIN, "notice": STEP_NOTICE}
    return raw.execute(statements()[name], parameters).rowcount


def kinds(raw: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the queues and task names that have pending jobs with a due time."""
    found: list[tuple[str, str]] = []
    after = ("", "")
    while rows := _all(raw, "next_kind", {"queue": after[0], "task": after[1]}):
        after = (rows[0][0], rows[0][1])
        found.append(after)
    return found


def _kinds_of(lanes: Sequence[Lane]) -> str:
    return _text([kind for lane in lanes for kind in lane.kinds])


def _claimed(row: Sequence[Any]) -> ClaimedJob:
    job = dict(zip(ClaimedJob.__struct_fields__, row, strict=True))
    job["payload"] = job["payload"].decode("utf-8", "surrogateescape")
    return ClaimedJob(**job)
