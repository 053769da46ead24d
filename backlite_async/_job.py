"""What a job is: to the user, to the store, and in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from ._clock import from_millis

__all__ = [
    "Claim",
    "ClaimedJob",
    "Complete",
    "Job",
    "JobStatus",
    "Keep",
    "Lane",
    "Lapsed",
    "NewJob",
    "Outcome",
    "Owner",
    "Reschedule",
    "record",
]

MIN_PRIORITY, MAX_PRIORITY = -10, 10


class JobStatus(StrEnum):
    """Where a job is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOT_FOUND = "not_found"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a job: pending, running, or completed as far as retention keeps it.

    Instants are aware datetimes in UTC. `payload` is None where it is not retained; `error` is
    the text of the last failed attempt; `duration` is that of the attempt that completed it.
    `result` is the JSON of what the handler set inside `job.transaction()`.
    """

    id: str
    queue: str
    task: str
    status: JobStatus
    payload: bytes | None
    attempt: int
    max_attempts: int
    crashes: int
    priority: int
    fence: int | None
    owner: str | None
    created_at: datetime
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration: timedelta | None
    error: str | None
    result: bytes | None
    expires_at: datetime | None


class NewJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job on its way into the store. Instants in milliseconds.

    `waits_from`: when a wait of a certain length began; None: due at an instant that was given.
    """

    id: str
    queue: str
    task: str
    payload: bytes
    max_attempts: int
    created_at: int
    due_at: int
    waits_from: int | None = None
    priority: int = 0


class ClaimedJob(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A job as its claim returned it. `attempt` counts this claim; instants in milliseconds.

    What is no UTF-8 in a payload stands in it as lone surrogates, and so does not decode. Stores may
    decode it from an array: the order of the fields is that of `jobs` in queries.sql.
    """

    id: str
    queue: str
    task: str
    payload: str
    attempt: int
    max_attempts: int
    crashes: int
    fence: int
    created_at: int
    scheduled_at: int
    waits_from: int | None = None


class Lapsed(msgspec.Struct, frozen=True, kw_only=True):
    """A claim of another owner whose lease ended, at `until`."""

    job: ClaimedJob
    owner: str
    until: int


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """One started client in one process.

    `beat`: seconds between two renewals of its leases; `slots`: how many jobs it can have started.
    """

    id: str
    beat: float
    slots: int


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """Kinds of jobs, each a queue and a task type's name, that share `room` free places."""

    kinds: tuple[tuple[str, str], ...]
    room: int


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim found: jobs to run, claims of others whose lease has ended, when to look again."""

    jobs: Sequence[ClaimedJob] = ()
    lapsed: Sequence[Lapsed] = ()
    next_at: int | None = None


class Keep(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """How a completed job is kept: until when (None: for ever), and whether with its payload."""

    until: int | None
    payload: bool


class Complete(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An outcome: the job has ended. `error` None leaves the last one as it is."""

    id: str
    fence: int
    status: JobStatus
    finished_at: int
    started_at: int | None
    duration: int | None
    attempt: int
    crashes: int
    error: str | None = None
    result: str | None = None
    keep: Keep | None = None
    lapsed_by: int | None = None


class Reschedule(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An outcome: the job runs again at `due_at`. `error` None leaves the last one as it is."""

    id: str
    fence: int
    due_at: int
    attempt: int
    crashes: int
    waits_from: int | None = None
    error: str | None = None
    lapsed_by: int | None = None


Outcome = Complete | Reschedule
"""What follows from an attempt.

Both carry the job's counters as they are to be, so that writing one twice does no harm.
`lapsed_by` makes the write conditional: only if the claim's lease ended at or before that instant.
Stores may encode them as arrays: the order of the fields is that of `keep` and `reschedule` in queries.sql.
"""


def record(columns: Mapping[str, Any]) -> Job:
    """Make a job's record from what a store keeps: milliseconds, and microseconds of duration."""
    duration = columns["duration"]
    return Job(
        id=columns["id"],
        queue=columns["queue"],
        task=columns["task"],
        status=JobStatus(columns["status"]),
        payload=columns["payload"],
        attempt=columns["attempt"],
        max_attempts=columns["max_attempts"],
        crashes=columns["crashes"],
        priority=columns["priority"],
        fence=columns["fence"],
        owner=columns["owner"],
        created_at=from_millis(columns["created_at"]),
        due_at=from_millis(columns["scheduled_at"]),
        started_at=_instant(columns["started_at"]),
        finished_at=_instant(columns["finished_at"]),
        duration=None if duration is None else timedelta(microseconds=duration),
        error=columns["error"],
        result=columns["result"],
        expires_at=_instant(columns["expires_at"]),
    )


def _instant(millis: int | None) -> datetime | None:
    return None if millis is None else from_millis(millis)
