"""What operations do to the store, put down in the history."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from backlite_async import JobStatus, QueueConfig
from backlite_async._graph import NewWorkflow
from backlite_async._job import Cancelled, Claim, Complete, Declared, NewJob, Outcome, Reschedule, Unique
from backlite_async._query import Action, Delete, Edit, Postpone, Release, Rerun
from backlite_async._recurring import Tick

from .history import (
    Claimed,
    FlowEnded,
    Found,
    History,
    Paused,
    Replaced,
    Resumed,
    Revoked,
    Shifted,
    Steered,
    Steering,
    Stored,
    Turned,
    Written,
)
from .memory import SharedMemory

__all__ = ["Teller", "now"]

STEERING: dict[type[Action], Steering] = {
    Rerun: "rerun",
    Postpone: "postpone",
    Edit: "edit",
    Release: "release",
    Delete: "delete",
}


class Teller:
    """Does at once what is asked of the shared store, and tells the history what came of it."""

    def __init__(self, inner: SharedMemory, history: History, queues: Sequence[QueueConfig]) -> None:
        self._inner = inner
        self._history = history
        self._crash_limits = {queue.name: queue.max_crashes for queue in queues}
        self._written: dict[tuple[str, int], Written] = {}
        self._releases = False

    def _flowed(self, told: Collection[str] = (), *, deleted: bool = False, at: int = 0) -> None:
        for event in self._inner.flowing.look(told=told, deleted=deleted, at=at):
            self._history.add(event)
            due = isinstance(event, (Stored, Turned)) and event.due_at is not None
            self._releases |= due or isinstance(event, (FlowEnded, Revoked))  # which somebody may wait for

    def _turned(self, but: Collection[str | None] = ()) -> None:
        for job, wait in self._inner.turned():
            if job not in but:
                self._history.add(Turned(job=job, due_at=wait.due_at, waits_from=wait.waits_from))

    # -- adding ------------------------------------------------------------------------------------

    def add(self, jobs: Sequence[NewJob], again: bool, workflows: Sequence[NewWorkflow] = ()) -> None:
        """Store pending jobs, and workflows with theirs."""
        there = {job.id for job in jobs if self._inner.has(job.id)}
        now(self._inner.add(jobs, workflows=workflows, again=again))
        for job in jobs:
            if job.id not in there and self._inner.has(job.id):
                self._stored(job)
        self._flowed()
        self._turned()

    def tick(self, tick: Tick) -> Sequence[str] | None:
        """Add what is due of a schedule, and move it on."""
        there = {job.id for job in tick.jobs if self._inner.has(job.id)}
        added: Sequence[str] | None = now(self._inner.tick(tick))
        for job in tick.jobs:
            if job.id in (added or ()) and job.id not in there and self._inner.has(job.id):
                self._stored(job)
        self._turned()
        return added

    def add_unique(self, job: NewJob, unique: Unique, at: int, again: bool) -> str | None:
        """Store a pending job, unless there is one that `unique` names."""
        there = self._inner.has(job.id)
        before = {name: self._what(name) for name in self._inner.in_the_way(job, unique)}
        found: str | None = now(self._inner.add_unique(job, unique, now=at, again=again))
        if found is None and not there and self._inner.has(job.id):
            self._stored(job, unique, at)
        elif found is not None:
            self._found(found, job, unique, at, before)
        self._turned(but=[found])
        return found

    def _stored(
        self, job: NewJob, unique: Unique | None = None, at: int = 0, *, letter: bool = False
    ) -> None:
        timeout = None if job.more is None else job.more.timeout
        self._history.add(
            Stored(
                job=job.id,
                kind=(job.queue, job.task),
                due_at=job.due_at,
                waits_from=job.waits_from,
                max_attempts=job.max_attempts,
                max_crashes=self._crash_limits.get(job.queue, 3),
                priority=job.priority,
                key=None if job.more is None else job.more.key,
                timeout=None if timeout is None else timeout / 1000,
                unique=None if unique is None else unique.key,
                within=None if unique is None else unique.within,
                created_at=job.created_at,
                now=at,
                number=_number(job.payload),
                about=_about(job) if letter else None,  # a copy of one is none
            )
        )

    def _what(self, job_id: str) -> object:
        return self._inner.what_of(job_id), self._inner.wait_of(job_id)

    def _found(self, found: str, job: NewJob, unique: Unique, at: int, before: dict[str, object]) -> None:
        by_id = unique.own_id and found == job.id
        asked = unique.replace_own if by_id else unique.replace_key
        self._history.add(
            Found(
                job=found,
                kind=(job.queue, job.task),
                own=job.id if by_id else None,
                unique=unique.key,
                within=unique.within,
                replace=asked,
                now=at,
            )
        )
        what, wait = self._inner.what_of(found), self._inner.wait_of(found)
        if what is None or wait is None:
            return
        done = what == ((job.queue, job.task), job.payload) and self._inner.is_due(found, job.due_at)
        if (asked and done) or (what, wait) != before[found]:
            self._history.add(
                Replaced(
                    job=found,
                    kind=what[0],
                    due_at=job.due_at,
                    waits_from=job.waits_from,
                    max_crashes=self._crash_limits.get(job.queue, 3),
                    number=_number(what[1] or b"{}"),
                )
            )
            if wait.due_at is None:
                self._history.add(Turned(job=found, due_at=None))

    # -- running -----------------------------------------------------------------------------------

    def claim(self, number: int, client: str, *arguments: Any, **how: Any) -> Claim:
        """Take due jobs for an owner of this number."""
        claim: Claim = now(self._inner.claim(*arguments, **how))
        self._turned()
        for job in claim.jobs:
            self._history.add(
                Claimed(
                    job=job.id,
                    owner=number,
                    client=client,
                    fence=job.fence,
                    attempt=job.attempt,
                    crashes=job.crashes,
                    now=how["now"],
                )
            )
        return claim

    def finish(self, number: int, client: str, outcome: Outcome, *, within: bool) -> bool:
        """Write an outcome; return whether it was accepted."""
        lease_end = self._inner.lease_end(outcome.id, outcome.fence)
        letter = outcome.letter if isinstance(outcome, Complete) else None
        had_letter = letter is not None and self._inner.has(letter.id)
        watched = self._inner.watched(outcome.id)
        accepted = not self._inner.finish_now([outcome])
        status = outcome.status if isinstance(outcome, Complete) else JobStatus.PENDING
        keep, until = False, None
        if isinstance(outcome, Complete) and outcome.keep is not None:
            keep, until = True, outcome.keep.until
        elif isinstance(outcome, Reschedule) and accepted and not self._inner.has(outcome.id):
            status, (keep, until) = JobStatus.CANCELLED, self._inner.kept(outcome.id)
        if accepted and watched and status is not JobStatus.PENDING:
            keep, until = self._inner.kept(outcome.id)
        again = isinstance(outcome, Reschedule) and status is JobStatus.PENDING
        written = Written(
            job=outcome.id,
            owner=number,
            client=client,
            fence=outcome.fence,
            accepted=accepted,
            status=status,
            attempt=outcome.attempt,
            crashes=outcome.crashes,
            due_at=outcome.due_at if again and isinstance(outcome, Reschedule) else None,
            waits_from=outcome.waits_from if again and isinstance(outcome, Reschedule) else None,
            keep=keep,
            until=until,
            lapse=outcome.lapsed_by is not None,
            lease_end=lease_end or 0,
            within=within,
            watched=watched,
        )
        self._history.add(written)
        if accepted:
            self._written[outcome.id, outcome.fence] = written
        if letter is not None and not had_letter and self._inner.has(letter.id):
            self._stored(letter, letter=True)
        self._flowed([outcome.id], at=outcome.finished_at if isinstance(outcome, Complete) else 0)
        self._turned()
        return accepted

    def tell(self, outcomes: Sequence[Outcome]) -> bool:
        """Take note that others are told of outcomes; return whether anybody waits for one of these jobs."""
        told = [
            self._written.pop((outcome.id, outcome.fence))
            for outcome in outcomes
            if (outcome.id, outcome.fence) in self._written
        ]
        for written in told:
            written.told = True
        return any(written.watched for written in told)

    def releases(self) -> bool:
        """Return whether outcomes have made steps due, since this was last asked."""
        releases, self._releases = self._releases, False
        return releases

    def shift(self, at: int, by: int) -> int:
        """Let waits go on as they were meant."""
        before = self._inner.waits()
        shifted: int = now(self._inner.shift_waits(now=at, by=by))
        for job, wait in self._inner.waits().items():
            if wait != before[job]:
                due_at, waits_from = wait
                assert waits_from is not None
                self._history.add(Shifted(job=job, by=by, due_at=due_at, waits_from=waits_from))
        self._inner.turned()
        return shifted

    # -- orders ------------------------------------------------------------------------------------

    def declare(self, queues: Sequence[Declared], at: int) -> None:
        """Remember what is to be known of queues."""
        now(self._inner.declare(queues, now=at))
        self._turned()

    def cancel(self, job_ids: Sequence[str], at: int) -> tuple[Cancelled, list[Revoked]]:
        """End pending jobs, and ask the owners of running ones; return also what was put down."""
        watched = {job for job in job_ids if self._inner.watched(job)}
        done: Cancelled = now(self._inner.cancel(job_ids, now=at))
        told = [self._ended(job, at, watched=job in watched) for job in done.ended]
        told += [Revoked(job=job, ended=False, now=at) for job in done.asked]
        for event in told:
            self._history.add(event)
        self._flowed(done.ended)
        self._turned()
        return done, told

    def _ended(self, job: str, at: int, *, watched: bool) -> Revoked:
        keep, until = self._inner.kept(job)
        return Revoked(job=job, ended=True, now=at, keep=keep, until=until, watched=watched)

    def act(
        self, action: Action, job_ids: Sequence[str], at: int
    ) -> tuple[Sequence[str], list[Steered | Revoked]]:
        """Do something to jobs; return those that it was done to, and what was put down."""
        inner, flows = self._inner, self._inner.flowing.known
        before = {
            job: (inner.state_of(job), inner.asked_to_end(job), inner.watched(job))
            for job in dict.fromkeys(job_ids)
        }
        done: Sequence[str] = now(inner.act(action, job_ids, now=at))
        told: list[Steered | Revoked] = []
        for job in done:
            if job in flows:
                continue  # what that does to its jobs is found out
            was, cancelled_at, watched = before[job]
            there, wait, what = inner.has(job), inner.wait_of(job), inner.what_of(job)
            told.append(
                Steered(
                    job=job,
                    how=STEERING[type(action)],
                    was=was,
                    now=at,
                    due_at=None if wait is None else wait.due_at,
                    waits_from=None if wait is None else wait.waits_from,
                    max_attempts=inner.most_attempts(job) if there else 0,
                    number=None if what is None else _number(what[1] or b"{}"),
                )
            )
            if isinstance(action, Release) and cancelled_at is not None:
                told.append(self._ended(job, cancelled_at, watched=watched))
        for event in told:
            self._history.add(event)
        self._flowed(done, deleted=isinstance(action, Delete), at=at)
        self._turned(but=done)
        return done, told

    def pause(self, queue: str, at: int) -> Paused:
        """Let nothing of a queue be claimed; return what was put down."""
        now(self._inner.pause(queue, now=at))
        told = Paused(queue=queue)
        self._history.add(told)
        return told

    def resume(self, queue: str) -> None:
        """Undo `pause`."""
        now(self._inner.resume(queue))
        self._history.add(Resumed(queue=queue))


def _number(payload: bytes) -> int | None:
    number = msgspec.json.decode(payload).get("number")
    return number if isinstance(number, int) else None


def _about(job: NewJob) -> dict[str, Any] | None:
    said: dict[str, Any] = msgspec.json.decode(job.payload)
    return said if "job_id" in said else None


def now(operation: Any) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        operation.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the memory store waited")
