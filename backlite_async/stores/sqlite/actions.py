"""What is done to jobs: functions over a connection of SQLite's, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from ..._job import JobStatus, Place
from ..._query import Action, Delete, Edit, Postpone, Release, Rerun
from .._flows import revive
from . import workflows
from .finishing import end_cancelled
from .history import forget
from .sql import fetch, statements, text
from .turns import let_in

__all__ = ["act"]


class _Live(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A live job, as the statement `states_of` returns it."""

    id: str
    status: JobStatus
    queue: str
    task: str
    key: str | None
    has_turn: bool | int
    workflow: str | None


class _Kept(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A completed job, as the statement `kept_of` returns it; `has_all`: whether it can run again."""

    id: str
    has_all: bool | int
    workflow: str | None
    step: int | None


_live = msgspec.json.Decoder(list[_Live])
_kept_jobs = msgspec.json.Decoder(list[_Kept])


def act(raw: sqlite3.Connection, *, action: Action, job_ids: Sequence[str], now: int) -> list[str]:
    """Do something to jobs; return the ids of those that it was done to, in the order that was given."""
    ids = list(dict.fromkeys(job_ids))
    live = _live_of(raw, ids)
    pending = [job for job in live.values() if job.status is JobStatus.PENDING]
    done: Collection[str]
    if isinstance(action, Rerun):
        done = _rerun(raw, action, ids, live, now)
    elif isinstance(action, Delete):
        done = _delete(raw, ids, live, now)
    elif isinstance(action, Postpone):
        done = _postpone(raw, action, pending, now)
    elif isinstance(action, Edit):
        done = _edit(raw, action, pending)
    else:
        assert isinstance(action, Release)
        done = _release(raw, [job for job in live.values() if job.status is JobStatus.RUNNING], now)
    return [job_id for job_id in ids if job_id in done]


def _live_of(raw: sqlite3.Connection, ids: Sequence[str]) -> dict[str, _Live]:
    """Return those of these jobs that are live."""
    return {job.id: job for job in _live.decode(fetch(raw, "states_of", {"ids": text(ids)})[0][0])}


def _rerun(
    raw: sqlite3.Connection,
    action: Rerun,
    ids: Sequence[str],
    live: dict[str, _Live],
    now: int,
) -> set[str]:
    """Make pending jobs due, and completed ones pending; the claim sees to it that their turns come.

    Of a workflow, the steps that have failed or were cancelled.
    """
    flows = workflows.Flows(raw)
    ended = {workflow: flows.unsuccessful(workflow) for workflow in workflows.live(raw, ids, now)}
    of_flows = [job_id for of_flow in ended.values() for job_id in of_flow]
    waiting = [job.id for job in live.values() if job.status is JobStatus.PENDING]
    kept = _kept(raw, [*ids, *of_flows], now).values()
    again = [job for job in kept if job.has_all and job.id not in live]
    run = [job.id for job in again]
    _run(raw, "rerun_pending", waiting, attempts=action.attempts, now=now)
    _run(raw, "rerun_completed", run, attempts=action.attempts, now=now)
    _run(raw, "delete_completed", run)
    revive(flows, [(job.workflow, job.step or 0) for job in again if job.workflow is not None])
    done = {*waiting, *run}
    return done | {workflow for workflow, of_flow in ended.items() if not done.isdisjoint(of_flow)}


def _postpone(raw: sqlite3.Connection, action: Postpone, pending: Sequence[_Live], now: int) -> set[str]:
    done = [job.id for job in pending]
    _run(raw, "postpone", done, due_at=action.due_at, waits_from=action.waits_from, now=now)
    if action.due_at > now:
        let_in(raw, _turns(pending, now))
    return set(done)


def _edit(raw: sqlite3.Connection, action: Edit, pending: Sequence[_Live]) -> set[str]:
    done = [job.id for job in pending if (job.queue, job.task) == (action.queue, action.task)]
    _run(raw, "edit", done, payload=action.payload)
    return set(done)


def _release(raw: sqlite3.Connection, running: Sequence[_Live], now: int) -> set[str]:
    """Take jobs away from their owners; those that are to be cancelled end."""
    done = [job.id for job in running]
    _run(raw, "release", done, now=now)
    ended = end_cancelled(raw) if done else []
    let_in(raw, _turns([job for job in running if job.id not in ended], now))
    return set(done)


def _delete(
    raw: sqlite3.Connection,
    ids: Sequence[str],
    live: dict[str, _Live],
    now: int,
) -> set[str]:
    """Remove jobs that do not run, and all that is kept of them; those of workflows with the whole only."""
    gone = [job for job in live.values() if job.status is JobStatus.PENDING and job.workflow is None]
    waiting = {job.id for job in gone}
    kept = [
        job.id
        for job in _kept(raw, ids, now).values()
        if job.workflow is None and (job.id not in live or job.id in waiting)
    ]
    _run(raw, "delete_pending", sorted(waiting))
    _run(raw, "delete_completed", kept)
    done = {*waiting, *kept}
    if done:
        _run(raw, "delete_unique", sorted(done))
        forget(raw, sorted(done))
        let_in(raw, _turns(gone, now))
    flows = workflows.Flows(raw)
    return done | {workflow for workflow in workflows.live(raw, ids, now) if flows.delete(workflow, now)}


def _kept(raw: sqlite3.Connection, ids: Sequence[str], now: int) -> dict[str, _Kept]:
    """Return those of these jobs that are kept."""
    found = fetch(raw, "kept_of", {"ids": text(list(dict.fromkeys(ids))), "now": now})[0][0]
    return {job.id: job for job in _kept_jobs.decode(found)}


def _turns(jobs: Iterable[_Live], now: int) -> list[Place]:
    """Return what jobs that had a turn leave to others of their keys."""
    return [Place(job.queue, job.key, now) for job in jobs if job.key is not None and job.has_turn]


def _run(raw: sqlite3.Connection, name: str, ids: Sequence[str], **parameters: Any) -> None:
    if ids:
        raw.execute(statements()[name], {"ids": text(ids), **parameters})
