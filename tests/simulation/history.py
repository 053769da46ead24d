"""What happened in a simulation, in order; nothing is ever taken back."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from backlite_async import JobStatus

from .clock import SimClock

__all__ = [
    "WATCHED_FOR",
    "Acknowledged",
    "Buried",
    "Charged",
    "Claimed",
    "Closed",
    "Died",
    "Ended",
    "Event",
    "Extended",
    "Fault",
    "Final",
    "FlowActed",
    "FlowEnded",
    "FlowLeft",
    "Found",
    "History",
    "How",
    "Jumped",
    "Kept",
    "Known",
    "Logged",
    "Manner",
    "Marked",
    "Misuse",
    "Node",
    "Opened",
    "Outage",
    "Paused",
    "Probed",
    "Replaced",
    "Rested",
    "Resumed",
    "Revoked",
    "Ruled",
    "Said",
    "Shifted",
    "Started",
    "Steered",
    "Steering",
    "StopAsked",
    "Stopped",
    "Stored",
    "Tallied",
    "Turned",
    "WaitBegan",
    "WaitEnded",
    "Woven",
    "Written",
]

Manner = Literal["bells", "deaf", "blind"]
"""How owners know of each other: told at once; by looking; not at all, but by their leases."""

WATCHED_FOR = 60_000
"""Milliseconds for which a job that somebody waits for is kept, though its queue keeps none."""

Steering = Literal["rerun", "postpone", "edit", "release", "delete"]
"""What people do to jobs."""

How = Literal["returned", "raised", "snoozed", "retried", "discarded", "cancelled"]


class Event(msgspec.Struct, kw_only=True, tag=True):
    """Anything that happened: `at` in seconds of virtual time, `wall` in milliseconds."""

    at: float = 0.0
    wall: int = 0


class Opened(Event, kw_only=True):
    """A client opened the store, as the owner of this number; `beat`: seconds between two renewals."""

    owner: int
    client: str
    life: int
    workers: int
    beat: float
    manner: Manner


class Closed(Event, kw_only=True):
    """An owner closed the store. `dead`: others are to release what it has claimed."""

    owner: int
    dead: bool


class Known(Event, kw_only=True):
    """A client has handlers for these kinds from now on."""

    client: str
    kinds: list[tuple[str, str]]


class Ruled(Event, kw_only=True):
    """What is promised of a queue: how many of its jobs run at once, here, in all, and of one key.

    `rate`: starts, in so many seconds; `timeout`: seconds that an attempt may take. `keeps`: whether
    cancelled jobs are kept, for `keep_for` milliseconds.
    """

    queue: str
    here: int | None = None
    in_all: int | None = None
    per_key: int | None = None
    rate: tuple[int, float] | None = None
    timeout: float | None = None
    keeps: bool = False
    keep_for: int | None = None


class Stored(Event, kw_only=True):
    """A job came into being in the store. `waits_from`: when its wait began, if it is to wait for a while.

    `unique`: the key that it was to be the only one of, `within` so many milliseconds of another, and
    what the caller took for `now`. `timeout`: seconds, where it has one of its own. `number`: that of its
    task. `about`: what it says, as a dead letter, of the job that has failed. `flow`: the workflow that it
    is a step of; `blocked`: it waits for others.
    """

    job: str
    kind: tuple[str, str]
    due_at: int
    waits_from: int | None = None
    max_attempts: int
    max_crashes: int
    priority: int = 0
    key: str | None = None
    timeout: float | None = None
    unique: str | None = None
    within: int | None = None
    created_at: int = 0
    now: int = 0
    number: int | None = None
    about: dict[str, Any] | None = None
    flow: str | None = None
    blocked: bool = False


class Found(Event, kw_only=True):
    """An add found a job in its way, of its own id or by a unique key, and stored nothing.

    `replace`: a pending one was to be replaced. The rest is what it would have stored.
    """

    job: str
    kind: tuple[str, str]
    own: str | None = None
    unique: str | None = None
    within: int | None = None
    replace: bool = False
    now: int = 0


class Replaced(Event, kw_only=True):
    """A pending job got another task, and when it is due."""

    job: str
    kind: tuple[str, str]
    due_at: int
    waits_from: int | None = None
    max_crashes: int
    number: int | None = None


class Steered(Event, kw_only=True):
    """Somebody did something to a job that was pending, running or completed, by what he took for `now`.

    `due_at`: of one that is pending then; None: it waits for its turn, or is gone. `told`: the others were.
    `follows`: it was done to another one, or to its workflow.
    """

    job: str
    how: Steering
    was: Literal["pending", "running", "completed"]
    now: int
    due_at: int | None = None
    waits_from: int | None = None
    max_attempts: int = 0
    number: int | None = None
    told: bool = False
    keep: bool = False
    until: int | None = None
    follows: bool = False


class Turned(Event, kw_only=True):
    """A job waits for its turn (`due_at` None), or has it and may be claimed.

    `flow`: not for that of its key, but for other steps of its workflow.
    """

    job: str
    due_at: int | None
    waits_from: int | None = None
    flow: bool = False


class Node(msgspec.Struct):
    """A node of a workflow. `status`: as the store shows it; None: it has not ended."""

    number: int
    kind: str
    job: str | None
    after: tuple[int, ...]
    if_failed: str
    fallback: bool
    status: str | None = None


class Woven(Event, kw_only=True):
    """A workflow came into being, or has got more nodes. `callbacks`: the numbers of their tasks.

    One for success, one for everything else, one for any end.
    """

    flow: str
    nodes: list[Node]
    callbacks: tuple[int | None, int | None, int | None] | None = None


class Extended(Event, kw_only=True):
    """A handler asked for these jobs to be added to its workflow; so far, all of this attempt."""

    job: str
    fence: int
    jobs: list[str]


class FlowActed(Event, kw_only=True):
    """Somebody has cancelled a workflow, or let it run again after that, or deleted it."""

    flow: str
    how: Literal["cancel", "rerun", "delete"]


class FlowEnded(Event, kw_only=True):
    """A workflow has ended, for the `times`th time, with these nodes."""

    flow: str
    status: str
    times: int
    nodes: list[Node]


class FlowLeft(Event, kw_only=True):
    """A workflow is there in the end, or was until it was removed, with these nodes."""

    flow: str
    status: str | None
    nodes: list[Node]


class Revoked(Event, kw_only=True):
    """A job was cancelled: it has `ended`, kept `until` an instant or not, or its owner is asked.

    `told`: the others were. `watched`: somebody waited for it. `skipped`: nobody asked for it, but a step
    before it ended without success.
    """

    job: str
    ended: bool
    now: int
    keep: bool = False
    until: int | None = None
    told: bool = False
    watched: bool = False
    skipped: bool = False


class Paused(Event, kw_only=True):
    """A queue was paused, everywhere or in one client. `told`: the others were."""

    queue: str
    client: str | None = None
    told: bool = False


class Resumed(Event, kw_only=True):
    """A queue may run again, everywhere or in one client."""

    queue: str
    client: str | None = None


class Rested(Event, kw_only=True):
    """`pause(wait=True)`, called at `since`, returned: none of its jobs runs, anywhere or in one client."""

    queue: str
    since: float
    client: str | None = None
    life: int = 0


class Shifted(Event, kw_only=True):
    """A job's wait was moved by `by` milliseconds, as the wall clock had been.

    0: nobody knows by how much that was, and the wait begins anew, at `waits_from`.
    """

    job: str
    by: int
    due_at: int
    waits_from: int


class Acknowledged(Event, kw_only=True):
    """`save()` returned this job's id, or `AlreadyExists` named it."""

    job: str


class Claimed(Event, kw_only=True):
    """A claim took effect, whether its answer arrived or not; it took what was due by `now`."""

    job: str
    owner: int
    client: str
    fence: int
    attempt: int
    crashes: int
    now: int


class Marked(Event, kw_only=True):
    """An owner put down, so that it outlives its process, that a handler starts."""

    job: str
    owner: int
    fence: int


class Started(Event, kw_only=True):
    """A handler began. `life` counts the starts of its client, which has `workers`.

    `willing`: it ends as soon as it is cancelled.
    """

    job: str
    client: str
    life: int
    workers: int
    fence: int
    attempt: int
    willing: bool = False
    number: int | None = None


class Ended(Event, kw_only=True):
    """A handler ended. `wait`: seconds that it asked for, if it did."""

    job: str
    client: str
    fence: int
    how: How
    wait: float | None = None


class Written(Event, kw_only=True):
    """An outcome reached the store. `status` pending: the job runs again at `due_at`.

    `lapse`: only because the claim's lease had ended, at `lease_end`. `within`: a handler wrote it
    itself, in its transaction. `watched`: somebody waited for the job. `told`: the others were.
    """

    job: str
    owner: int
    client: str
    fence: int
    accepted: bool
    status: JobStatus
    attempt: int
    crashes: int
    due_at: int | None = None
    waits_from: int | None = None
    keep: bool = False
    until: int | None = None
    lapse: bool = False
    lease_end: int = 0
    within: bool = False
    watched: bool = False
    told: bool = False


class WaitBegan(Event, kw_only=True):
    """A client began to wait for a job to end, at most for so many seconds."""

    number: int
    job: str
    client: str
    limit: float | None = None


class WaitEnded(Event, kw_only=True):
    """A wait is over. `status`: that of the job; None: there is none; `gave_up`: it took too long."""

    number: int
    status: JobStatus | None = None
    gave_up: bool = False


class Said(Event, kw_only=True):
    """A handler said these lines of itself; all of them before it ended."""

    job: str
    client: str
    fence: int
    lines: list[str]
    progress: float


class Died(Event, kw_only=True):
    """A client's process was killed: what it ran has vanished."""

    client: str


class Charged(Event, kw_only=True):
    """A client took charge of a dead owner: nobody else does while it lives and has not left it."""

    owner: int
    client: str


class Buried(Event, kw_only=True):
    """A dead owner was buried: its claims are released."""

    owner: int


class Fault(Event, kw_only=True):
    """The store failed; `took_effect`: but had done it."""

    client: str
    operation: str
    took_effect: bool


class Outage(Event, kw_only=True):
    """From now on, or no longer, the store fails whatever is asked of it."""

    begins: bool


class Jumped(Event, kw_only=True):
    """The wall clock was moved by so many seconds."""

    by: float


class StopAsked(Event, kw_only=True):
    """Somebody called `stop`, or cancelled the client's task (limit 0)."""

    client: str
    life: int
    limit: float | None


class Stopped(Event, kw_only=True):
    """A call of `stop` returned; `claims`: jobs that the store still shows as this client's.

    `asked_at` and `limit` are those of the call.
    """

    client: str
    life: int
    clean: bool
    asked_at: float
    limit: float | None
    claims: list[str]


class Probed(Event, kw_only=True):
    """A burst of as many jobs as there are workers, which wait for each other, met or not."""

    expected: int
    met: int


class Kept(Event, kw_only=True):
    """What the client shows in the end of what was kept with a job."""

    job: str
    status: JobStatus
    lines: list[str]
    errors: int
    progress: float | None


class Tallied(Event, kw_only=True):
    """How many attempts of each queue were counted in the end, by what they were.

    `letters`: the queues whose failed jobs have dead letters.
    """

    counts: dict[str, dict[str, int]]
    letters: list[str]


class Final(Event, kw_only=True):
    """What the client says of a job in the end."""

    job: str
    status: JobStatus


class Misuse(Event, kw_only=True):
    """Something happened that no checker needs to deduce: a use after close, an unhandled error."""

    what: str


class Logged(Event, kw_only=True):
    """A log line of the library; for reading a history, not for checking it."""

    event: str
    fields: dict[str, object]


class History:
    """An append-only log that stamps what it is given."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        self.events: list[Event] = []

    def now(self) -> int:
        """Return the wall time in milliseconds."""
        return self._clock.now()

    def add(self, event: Event) -> None:
        """Append an event with the present time."""
        event.at, event.wall = self._clock.monotonic(), self._clock.now()
        self.events.append(event)
