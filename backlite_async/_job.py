"""What a job is: to the user, to the store, and in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from ._carry import parted
from ._clock import from_millis
from ._history import AttemptError, LogLine, Note, Trouble
from ._stats import QueueStats, Tally

if TYPE_CHECKING:
    from ._graph import NewStep

__all__ = [
    "Cancelled",
    "Claim",
    "ClaimedJob",
    "Complete",
    "Declared",
    "DeclaredTask",
    "Job",
    "JobStatus",
    "Keep",
    "Lane",
    "Lapsed",
    "Limit",
    "More",
    "NewJob",
    "Orders",
    "Outcome",
    "Owner",
    "OwnerInfo",
    "Place",
    "Queue",
    "Reschedule",
    "TaskInfo",
    "Unique",
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

    Instants are aware datetimes in UTC. `payload` is None where it is not retained; `error` is the text of
    the last failed attempt; `duration` is that of the attempt that completed it. `result` is the JSON of
    what the handler returned, or set inside `job.transaction()`. `timeout`: seconds, where the job has one
    of its own; `parent`: the id of the job whose handler added it; `workflow`: the id of what it is a step
    of; `cancelled_at`: when somebody asked to cancel it. `progress`: what the handler said of it, from 0 to
    1, with a message. `waiting`: it is pending, and waits for the turn of its key, or for steps before it,
    whatever `due_at` says. `context`: what it carries from where it was added, for traces and log lines.

    Filled by `get`, not in lists: `errors`, of every attempt that went wrong, the newest 100; `lines` of
    `job.log`, the newest 1,000; `unique`, the unique key by which it keeps others from being added.
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
    key: str | None = None
    timeout: float | None = None
    parent: str | None = None
    workflow: str | None = None
    meta: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    cancelled_at: datetime | None = None
    progress: float | None = None
    progress_message: str | None = None
    waiting: bool = False
    unique: str | None = None
    errors: tuple[AttemptError, ...] = ()
    lines: tuple[LogLine, ...] = ()
    context: dict[str, Any] = {}


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """How a queue is doing.

    `paused`: for all processes; `running`: claims of all of them; `oldest_due`: for how long its oldest
    pending job has been due, None if none is. One that waited for its key counts from its turn.
    `pending`: all that are not running, also those that are `scheduled` for later or are `waiting` for the
    turn of their key, or for other steps of their workflow; `due`: the others of these; `succeeded`,
    `failed`, `cancelled`: those that are kept. Counts end at 10,000; `capped` names those that did. `limits`:
    as last declared by any process.
    `recent` and `today`: the last five minutes, the last day.
    """

    name: str
    paused: bool
    running: int
    oldest_due: timedelta | None
    pending: int = 0
    scheduled: int = 0
    waiting: int = 0
    due: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    capped: tuple[str, ...] = ()
    limits: dict[str, Any] = {}
    recent: QueueStats = QueueStats()
    today: QueueStats = QueueStats()


class OwnerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One started client in one process.

    `alive`: whether its process lives, None where that cannot be told; `seen_at`: when that was last known;
    `running`: jobs that it has claimed; `handles`: queue and task name of what it has workers and handlers
    for, None where that cannot be told; `threaded`: the queues that have `def` handlers there, of which it
    runs at most `threads` at once.
    """

    id: str
    host: str
    pid: int
    started_at: datetime | None
    workers: int
    running: int
    alive: bool | None
    seen_at: datetime | None
    handles: tuple[tuple[str, str], ...] | None = None
    threaded: tuple[str, ...] = ()
    threads: int = 0


class Hands(msgspec.Struct, frozen=True):
    """What an owner lets others know of its handlers, as `OwnerInfo` tells it."""

    kinds: tuple[tuple[str, str], ...] | None = None
    threaded: tuple[str, ...] = ()
    threads: int = 0

    def told(self, info: OwnerInfo) -> OwnerInfo:
        """Return what is known of an owner, with this."""
        return msgspec.structs.replace(info, handles=self.kinds, threaded=self.threaded, threads=self.threads)


class TaskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A task type as last registered by any process.

    `title` and `description`: the first line and the whole of its docstring; `schema`: its JSON schema, None
    where it has none; `limits`: those of its queue.
    """

    name: str
    queue: str
    title: str
    description: str
    schema: dict[str, Any] | None
    registered_at: datetime
    limits: dict[str, Any] = {}


class More(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What most jobs have not. `timeout` in milliseconds; `meta` and `tags`: JSON.

    `turns`: how many jobs of its queue and `key` may run at once; the others wait for their turn.
    `workflow`, `step`: what it is a step of, and its number there; `blocked`: it waits for others.
    """

    key: str | None = None
    turns: int | None = None
    timeout: int | None = None
    parent: str | None = None
    meta: str | None = None
    tags: str | None = None
    workflow: str | None = None
    step: int | None = None
    blocked: bool = False


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
    more: More | None = None


class Unique(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps a new job from being added: one that is there.

    `own_id`: its id is the caller's own; one of that id, live or kept, is in its way. `key`: so is one
    of the same queue and key that is live, or was added within so many milliseconds. `replace_...`: a
    pending one gets the task, payload and due time of the new one.
    """

    own_id: bool = False
    replace_own: bool = False
    key: str | None = None
    within: int | None = None
    replace_key: bool = False


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
    key: str | None = None
    timeout: int | None = None
    parent: str | None = None
    meta: str | None = None
    tags: str | None = None
    noted: int | None = None
    """Whether something is kept beside it: errors, log lines."""
    workflow: str | None = None
    step: int | None = None


class Lapsed(msgspec.Struct, frozen=True, kw_only=True):
    """A claim of another owner whose lease ended, at `until`."""

    job: ClaimedJob
    owner: str
    until: int


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """One started client in one process.

    `beat`: seconds between two renewals of its leases; `slots`: how many jobs it can have started;
    `started_at`: in milliseconds.
    """

    id: str
    beat: float
    slots: int
    host: str = ""
    pid: int = 0
    started_at: int = 0
    workers: int = 0


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """Kinds of jobs, each a queue and a task type's name, that share `room` free places."""

    kinds: tuple[tuple[str, str], ...]
    room: int


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps jobs of a queue from being claimed.

    `room`: places that are free here; `in_all`: jobs that may run in all processes; `per_key`: the
    same of one key; `rate`: starts, in so many milliseconds. None: no limit.
    """

    queue: str
    room: int | None = None
    in_all: int | None = None
    per_key: int | None = None
    rate: tuple[int, int] | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim found: jobs to run, claims of others whose lease has ended, when to look again.

    `starts`: of jobs whose queue has a rate, by their id, the number of the start that it counts.
    """

    jobs: Sequence[ClaimedJob] = ()
    lapsed: Sequence[Lapsed] = ()
    next_at: int | None = None
    starts: Mapping[str, int] = {}


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner is to heed: paused queues, and which of its claims (id, fence) are to be cancelled."""

    paused: frozenset[str] = frozenset()
    cancelled: Sequence[tuple[str, int]] = ()


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """What a cancellation did: pending jobs that have ended, and running ones whose owners are asked."""

    ended: Sequence[str] = ()
    asked: Sequence[str] = ()


class Declared(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a store is to know of a queue: how it keeps cancelled jobs, and what limits its keys.

    `keeps`: whether at all; `keep_for`: milliseconds, None: for ever; `keep_payload`: with it; `turns`:
    how many jobs of a key may run at once, None: any number; `limits`: all of its limits as JSON, to be
    shown; `tasks`: the task types that were met of it.
    """

    queue: str
    keeps: bool
    keep_for: int | None
    keep_payload: bool
    turns: int | None
    limits: str = "{}"
    tasks: tuple[DeclaredTask, ...] = ()


class DeclaredTask(msgspec.Struct, frozen=True, array_like=True):
    """What is to be known of a task type where its code is not."""

    name: str
    title: str
    description: str
    schema: str | None


class Keep(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """How a completed job is kept: until when (None: for ever), and whether with its payload."""

    until: int | None
    payload: bool


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What others may wait for, free since `at`: a place in a limited queue, and the turn of a key."""

    queue: str
    key: str | None
    at: int


class Complete(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An outcome: the job has ended. `error` None leaves the last one as it is.

    `tally`: what it adds to the statistics; `trouble`: the attempt's error, to be kept with the job;
    `note`: what the attempt has said and is not stored yet; `letter`: a job to add for one that has failed.
    `beside`: whether anything is stored beside the job (tags, errors, log lines), to be removed with it.
    `workflow`, `step`: what it was a step of, which is kept by the store as long as that, whatever `keep`
    says, and `extends` what its handler has added to that.
    """

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
    frees: Place | None = None
    tally: Tally | None = None
    beside: bool = False
    trouble: Trouble | None = None
    note: Note | None = None
    letter: NewJob | None = None
    workflow: str | None = None
    step: int | None = None
    extends: tuple[NewStep, ...] = ()


class Reschedule(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An outcome: the job runs again at `due_at`; the rest is as in `Complete`."""

    id: str
    fence: int
    due_at: int
    attempt: int
    crashes: int
    waits_from: int | None = None
    error: str | None = None
    lapsed_by: int | None = None
    frees: Place | None = None
    tally: Tally | None = None
    trouble: Trouble | None = None
    note: Note | None = None


Outcome = Complete | Reschedule
"""What follows from an attempt.

Both carry the job's counters as they are to be, so that writing one twice does no harm.
`lapsed_by` makes the write conditional: only if the claim's lease ended at or before that instant.
Stores may encode them as arrays: the order of the fields is that of `keep` and `reschedule` in queries.sql.
"""


def record(columns: Mapping[str, Any]) -> Job:
    """Make a job's record from what a store keeps: milliseconds, and microseconds of duration."""
    duration = columns["duration"]
    meta, context = parted(columns["meta"])
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
        key=columns["key"],
        timeout=None if columns["timeout"] is None else columns["timeout"] / 1000,
        parent=columns["parent"],
        workflow=columns["workflow"],
        meta=meta,
        context=context,
        tags=msgspec.json.decode(columns["tags"] or "[]", type=tuple[str, ...]),
        cancelled_at=_instant(columns["cancelled_at"]),
        progress=columns["progress"],
        progress_message=columns["progress_message"],
        waiting=bool(columns["waiting"]),
        unique=columns.get("unique"),
    )


def _instant(millis: int | None) -> datetime | None:
    return None if millis is None else from_millis(millis)
