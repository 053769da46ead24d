"""The seam behind which all database I/O happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from .._errors import InvalidState
from .._graph import NewWorkflow
from .._job import (
    Cancelled,
    Claim,
    ClaimedJob,
    Declared,
    Job,
    JobStatus,
    Lane,
    Limit,
    NewJob,
    Orders,
    Outcome,
    Owner,
    Queue,
    Unique,
)
from ._inspect import Inspectable
from ._schedules import Schedules
from ._service import MOST_COUNTED, WATCHED_FOR, Service

__all__ = [
    "MOST_COUNTED",
    "STEP_MARGIN",
    "STEP_NOTICE",
    "WATCHED_FOR",
    "Block",
    "Control",
    "Dead",
    "Life",
    "Owners",
    "Queries",
    "Service",
    "Store",
    "id_taken",
    "step_of_wait",
    "still_open",
]


def still_open(lanes: Sequence[Lane], claimed: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the kinds that lanes have room for, after kinds that were just claimed from them."""
    if len(claimed) >= max((lane.room for lane in lanes), default=0):
        return set()
    taken = Counter(claimed)
    return {
        kind for lane in lanes if sum(taken[kind] for kind in lane.kinds) < lane.room for kind in lane.kinds
    }


def id_taken() -> InvalidState:
    """Return the error of an add of new jobs, one of which has an id that is there already."""
    return InvalidState(
        "a job with one of these ids is there already, and nothing was added; what may have been added"
        " before is to be added with again=True"
    )


STEP_MARGIN, STEP_NOTICE = 1_000, 60_000
"""Milliseconds: by which processes differ in what is now; in which a step of the clock is noticed."""


def step_of_wait(*, waits_from: int, due_at: int, now: int, by: int) -> int:
    """Return by how many milliseconds a wait is to be shifted after a step of the clock."""
    if by == 0:
        return now - waits_from if waits_from > now + STEP_MARGIN else 0
    if by > 0:
        return by if due_at > now - by >= waits_from else 0
    began_before = waits_from > now + STEP_MARGIN or waits_from < now - STEP_NOTICE
    return by if due_at > now and began_before else 0


class Life(Protocol):
    """The life of a job: add, claim, renew, finish."""

    async def add(
        self, jobs: Sequence[NewJob], *, workflows: Sequence[NewWorkflow] = (), again: bool = False
    ) -> None:
        """Store pending jobs, and workflows with theirs, all or none.

        Raises `InvalidState` for an id that a live job has. With `again` they may have been stored before:
        ids that are there are left as they are, also those of completed jobs that are kept, and so are
        workflows with all that they have.
        """
        ...

    async def add_unique(self, job: NewJob, unique: Unique, *, now: int, again: bool = False) -> str | None:
        """Store a pending job, unless there is one that `unique` names: return that one's id then.

        With `again` it may have been stored before, and is then not in its own way.
        """
        ...

    def check_connection(self, connection: object) -> None:
        """Raise unless `add_within` could take this connection."""
        ...

    async def add_within(
        self,
        connection: Any,
        jobs: Sequence[NewJob],
        *,
        workflows: Sequence[NewWorkflow] = (),
        unique: Unique | None = None,
        now: int = 0,
        again: bool = False,
    ) -> str | None:
        """Store pending jobs, as `add` or `add_unique` do, inside the open transaction of a connection.

        The store notices the end of that transaction by itself and calls its listener.
        """
        ...

    async def claim(
        self,
        lanes: Sequence[Lane],
        *,
        owner: str,
        now: int,
        until: int,
        limits: Sequence[Limit] = (),
        taking: Callable[[Sequence[ClaimedJob]], None] | None = None,
    ) -> Claim:
        """Take due jobs, best first: by priority, then due time, then order of adding.

        `taking` is called, maybe in another thread, when they are about to be taken: their leases
        must be renewed from then on, also while a handler keeps the answer from arriving.

        At most `room` of each lane and the largest room in all, for one attempt each, with a new
        fence, until the lease ends at `until`. Nothing of a paused queue. Of each of the queues of
        `limits` the best jobs that it leaves room for (of each kind no more than fit its lane), and of
        those what fits the lanes: at most
        `room`, at most `in_all` less what runs, and at most as many as its rate permits, each of
        which counts as a start at `until` unless `note_starts` corrects it. Of each key of theirs, at
        most `per_key` less what runs of it: the others then wait for their turn, and due jobs of keys
        that have room are let in, due now, so that keys take turns.

        Reports claims of other owners, of the same kinds, whose lease has ended by `now`; and the
        next instant at which there is more to do: a job becomes due in a lane and queue that still
        has room, the rate of one that has jobs permits a start, or a lease of another owner ends
        after `now`.
        """
        ...

    async def claims_of(self, owner: str) -> Sequence[ClaimedJob]:
        """Return what an owner has claimed."""
        ...

    async def probe(self) -> None:
        """Write nothing; raise `DatabaseUnavailable` if nothing can be written now."""
        ...

    async def begin(self, limit: float) -> Block:
        """Begin a write transaction for a handler, which may be open for `limit` seconds.

        Raises `DatabaseBusy`, and `InvalidState` where there are no transactions.
        """
        ...

    async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Write outcomes; return the ids of those whose claim is no longer theirs.

        Once begun, a cancellation of the caller is put off until it is known what was written.
        At most one outcome of a job at a time. An outcome changes its job only while the job runs
        under the same fence and, where `lapsed_by` is given, only if its lease ended at or before
        that instant. A job that is to run again, but is to be cancelled, is. Where an outcome frees
        a turn of a key, the best job that waits for one, of each task, is let in, due at `frees.at`.
        In the same transaction, and only with those that are accepted: what they add to the statistics, their
        errors (the newest `MOST_ERRORS` of a job are kept) and notes, their dead letters; jobs that are
        not kept leave nothing behind, unless somebody watches them: then they are kept for `WATCHED_FOR`.
        What follows from the end of a step of a workflow (see `_flows`), too: it is kept as long as that.
        """
        ...

    def renew(self, claims: Iterable[tuple[str, int]], *, until: int) -> set[str]:
        """Extend leases of (id, fence) pairs, one a job, to `until`; return the ids of those that are lost.

        Blocking, and safe to call from any thread. A lease is never shortened.
        """
        ...

    def finish_now(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Do what `finish` does, blocking, from any thread."""
        ...


class Queries(Protocol):
    """What can be asked, and upkeep."""

    async def status(self, job_id: str, *, now: int) -> JobStatus:
        """Return where a job is in its life; `NOT_FOUND` once its retention has ended."""
        ...

    async def get(self, job_id: str, *, now: int, cut: int | None = None) -> Job | None:
        """Return a job's record with its history; None once its retention has ended.

        `cut`: of payload and result only the first so many bytes; the rest is not read.
        """
        ...

    async def kinds(self) -> Sequence[tuple[str, str]]:
        """Return the queues and task names that have pending jobs with a due time."""
        ...

    async def shift_waits(self, *, now: int, by: int) -> int:
        """Let waits of pending jobs go on as they were meant after a step of the wall clock.

        `by` milliseconds: negative, it was set back; positive, it was set right again; 0: perhaps it
        was set back while nobody ran, so waits that began after `now` begin anew. One owner does it
        for all; the others tell it to look. Where it cannot be told whether a wait began before or
        after the step it is left, or made longer, so that it ends late rather than early: see
        `step_of_wait`. Returns how many were changed.
        """
        ...

    async def backup(self, path: str) -> None:
        """Copy everything, as it is at one instant, to a new file; jobs that run are pending there.

        Raises `InvalidValue` if there is something at `path`, `InvalidState` where nothing is kept.
        """
        ...

    async def next_expiry(self) -> int | None:
        """Return the instant at which the next completed job expires."""
        ...

    async def expire(self, *, now: int, limit: int) -> int:
        """Remove completed jobs that have expired, at most `limit`; return how many there were."""
        ...


class Control(Protocol):
    """What decides whether jobs run. All of it is stored, and told to the other owners at once."""

    async def declare(self, queues: Sequence[Declared], *, now: int) -> None:
        """Remember what is to be known of queues; let in what waits for turns that there are now."""
        ...

    async def pause(self, queue: str, *, now: int) -> None:
        """Let nothing of a queue be claimed."""
        ...

    async def resume(self, queue: str) -> None:
        """Undo `pause`."""
        ...

    async def running(self, queue: str) -> int:
        """Return how many jobs of a queue are claimed."""
        ...

    async def queues(
        self, *, now: int, most: int = MOST_COUNTED, queue: str | None = None
    ) -> Sequence[Queue]:
        """Return how queues are doing that have live jobs, are paused or declared, by name; no statistics.

        Counts end at `most`. `queue`: that one only.
        """
        ...

    async def oldest_due(self, kinds: Sequence[tuple[str, str]]) -> int | None:
        """Return when the first pending job of these queues and tasks is due, None: there is none.

        Paused queues do not count, nor does what waits for a turn or for steps.
        """
        ...

    async def cancel(self, job_ids: Sequence[str], *, now: int) -> Cancelled:
        """End pending jobs as cancelled, and ask the owners of running ones to.

        A cancelled job is kept as its queue was declared. The id of a workflow stands for all of it that has
        not ended: the ids of those jobs are returned.
        """
        ...

    async def orders(self, owner: str) -> Orders:
        """Return what an owner is to heed."""
        ...

    async def note_starts(self, starts: Sequence[tuple[str, int, int]]) -> None:
        """Correct when starts that a rate counts were: queue, number, instant (0: it was none)."""
        ...

    async def end_starts(self, owners: Sequence[str], *, now: int) -> None:
        """Count what owners that have died may have started, by their claims, as started by `now`.

        Nor do they watch any job any more.
        """
        ...

    def ring(self) -> None:
        """Tell the others to look; safe from any thread."""
        ...


class Block(Protocol):
    """A handler's transaction; it cannot be ended but by these two methods, and by being overdue."""

    @property
    def connection(self) -> Any:
        """The connection for the handler's own statements."""
        ...

    @property
    def overdue(self) -> bool:
        """Whether it was rolled back because it was open for too long."""
        ...

    @property
    def committed(self) -> bool:
        """Whether it has been committed."""
        ...

    async def commit(self, outcome: Outcome) -> None:
        """Write the outcome in it and commit; where the claim is no longer ours, roll back."""
        ...

    async def rollback(self) -> None:
        """Undo all of it."""
        ...


class Dead(Protocol):
    """An owner that died. Nobody else releases its jobs until it is left, or buried."""

    id: str

    def started(self, job_id: str, fence: int) -> bool:
        """Return whether it had started this job and not yet written its outcome."""
        ...

    def bury(self) -> None:
        """Forget it: its jobs are released."""
        ...

    def leave(self) -> None:
        """Leave it to the next one who looks."""
        ...


class Owners(Protocol):
    """Who has the store open, and who has died with claims."""

    @property
    def rings(self) -> bool:
        """Whether we are told at once when others add jobs, or die."""
        ...

    def started(self, job_id: str, fence: int) -> None:
        """Write down, so that it outlives this process, that a job's handler starts."""
        ...

    def ended(self, job_id: str, fence: int) -> None:
        """Cross it out: its outcome is written."""
        ...

    def dead_owners(self) -> Sequence[Dead]:
        """Take charge of the owners that have died; nobody else gets them meanwhile."""
        ...

    def beat_of(self, owner: str) -> float | None:
        """Return the seconds between two renewals of an owner that lives.

        0: it has died, and its jobs are to be released with what it has written down; None: nothing
        is known of it but its leases.
        """
        ...

    def leads(self) -> bool:
        """Return whether this is the one owner that does what is to be done once."""
        ...


@runtime_checkable
class Store(Life, Control, Queries, Service, Schedules, Owners, Inspectable, Protocol):
    """Keeps jobs. All database I/O of the library happens behind this seam.

    What every store promises, and tests/stores/test_contract.py checks:

    - a method happens entirely or not at all, also when its caller is cancelled; several may
      share a commit, and one that fails fails alone;
    - times are arguments, in integer milliseconds; a store reads no clock;
    - a job is held by one claim at a time, named by its *fence*, which grows with every claim;
    - a store decides nothing: no backoff, no retention rule, no logging;
    - `DatabaseUnavailable` means: try again later. It may have happened all the same.
    """

    shared: bool
    """Whether other processes can see the jobs, so that leases need a thread of their own."""

    @property
    def writing(self) -> bool:
        """Whether a thread is writing, which a busy event loop should let have the interpreter."""
        ...

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back, in the event loop of `open`, when jobs were added or are due, or orders were given."""
        ...

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Undo `listen`; safe to repeat."""
        ...

    async def open(
        self, *, install: bool, owner: Owner | None = None, gone: Callable[[], None] | None = None
    ) -> None:
        """Open, and install or migrate the schema (`install=False`: raise if it is not current).

        With `owner` the others see that it lives, and `gone` is called, in this event loop, when
        one of them may have died.
        """
        ...

    def hazards(self) -> Sequence[str]:
        """Return what is dangerous here, each with what to do about it."""
        ...

    async def install(self) -> None:
        """Install or migrate the schema without opening the store."""
        ...

    async def close(self, *, lend: bool = False) -> None:
        """Close in good order; what was accepted before is written first.

        With `lend`, `renew` and `finish_now` go on working until `close_soon`.
        """
        ...

    def close_soon(self) -> None:
        """Close what `close(lend=True)` left open, without waiting; safe from any thread."""
        ...

    def abandon(self) -> None:
        """Stop waiting for the database, as `close` is about to come; safe from any thread."""
        ...
