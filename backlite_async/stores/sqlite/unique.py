"""Adding in several steps, as where another job may be in the way, so that any connection can take them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from ..._graph import NewWorkflow
from ..._job import NewJob, Unique
from .history import tagged
from .rows import added
from .sql import fetch, statements, text
from .turns import take_turns
from .workflows import adding

if TYPE_CHECKING:
    import aiosqlite

__all__ = ["add_tagged_within", "add_unique", "add_unique_within", "add_workflows_within"]

_Steps = Generator[tuple[str, Any], list[Any], str | None]
"""Statements, by name or as they are, with their parameters; answered by their rows.

Returns the id that is in the way.
"""

LOOK_AFTER, LOOKS_TOGETHER = 60_000, 60_000
"""Milliseconds after which a unique key may be forgotten, and of which one look serves all."""


def add_unique(raw: sqlite3.Connection, job: NewJob, unique: Unique, *, now: int, again: bool) -> str | None:
    """Store a pending job, unless there is one that `unique` names: return that one's id then."""
    taking = _steps(job, unique, now=now, again=again)
    try:
        step = next(taking)
        while True:
            step = taking.send(fetch(raw, *step))
    except StopIteration as end:
        found: str | None = end.value
    if found is None:
        take_turns(raw, [job], now)
    return found


async def add_unique_within(
    connection: aiosqlite.Connection, job: NewJob, unique: Unique, *, now: int, again: bool
) -> str | None:
    """Do the same in the open transaction of a caller, all of it or nothing."""
    return await _within(connection, _steps(job, unique, now=now, again=again))


async def add_tagged_within(
    connection: aiosqlite.Connection, jobs: Sequence[NewJob], *, again: bool
) -> str | None:
    """Store pending jobs, some of which have tags, in the open transaction of a caller, or nothing."""
    return await _within(connection, _tagged_steps(jobs, again))


async def add_workflows_within(
    connection: aiosqlite.Connection, jobs: Sequence[NewJob], flows: Sequence[NewWorkflow], *, again: bool
) -> str | None:
    """Store pending jobs, and workflows with theirs, in the open transaction of a caller, or nothing."""
    return await _within(connection, _workflow_steps(jobs, flows, again))


async def _within(connection: aiosqlite.Connection, taking: _Steps) -> str | None:
    async def run(name: str, parameters: Any = None) -> list[Any]:
        return list(await connection.execute_fetchall(statements().get(name, name), parameters or {}))

    await run("write_nothing")
    await run("savepoint")
    try:
        step = next(taking)
        while True:
            try:
                step = taking.send(await run(*step))
            except StopIteration as end:
                found: str | None = end.value
                break
    except BaseException:
        # The thread takes these in their order, also where nobody waits for them any more.
        undone = asyncio.gather(run("rollback_to_savepoint"), run("release_savepoint"))
        await asyncio.shield(undone)
        raise
    await run("release_savepoint")
    return found


def _steps(job: NewJob, unique: Unique, *, now: int, again: bool) -> _Steps:
    """Take the steps of an add, inside a write transaction."""
    if unique.own_id or again:
        rows = yield "same_id", {"id": job.id, "now": now}
        for status, created_at, payload, expired in rows:
            if expired:
                yield from _forget(job.id)
                continue
            if _is_ours(job, unique, created_at, payload, again):
                return None
            if unique.replace_own and status == "pending":
                yield from _replace(job, job.id, now)
            return job.id
    if unique.key is not None:
        rows = yield "same_key", {"queue": job.queue, "key": unique.key}
        if rows:
            there, added_at, until, status = rows[0]
            if there == job.id and again:
                return None
            if status is not None or _recent(unique, added_at, until, now):
                if unique.replace_key and status == "pending":
                    yield from _replace(job, there, now)
                return str(there)
    yield from _tagged_steps([job], again=False)
    if unique.key is not None:
        yield "remember_key", _memory(job, unique, unique.key)
    return None


def _tagged_steps(jobs: Sequence[NewJob], again: bool) -> _Steps:
    """Add jobs, then their tags."""
    yield "add_again" if again else "add_from_array", {"jobs": added(jobs)}
    tags = tagged(jobs)
    if tags:
        yield "add_tags", {"tagged": text(tags)}
    return None


def _workflow_steps(jobs: Sequence[NewJob], flows: Sequence[NewWorkflow], again: bool) -> _Steps:
    """Add jobs, then workflows."""
    if jobs:
        yield from _tagged_steps(jobs, again)
    yield from adding(flows, again)
    return None


def _forget(job_id: str) -> Generator[tuple[str, dict[str, Any]], list[Any], None]:
    """Remove what is kept of a job for longer than it should be: another one gets its id."""
    yield "forget_job", {"id": job_id}
    for name in ("forget_tags", "forget_errors", "forget_lines"):
        yield name, {"ids": text([job_id])}


def _is_ours(job: NewJob, unique: Unique, created_at: int, payload: bytes | None, again: bool) -> bool:
    """Return whether a job of the same id is the one that a first try has stored."""
    if not again:
        return False
    return not unique.own_id or (created_at == job.created_at and payload in (None, job.payload))


def _recent(unique: Unique, added_at: int, until: int, now: int) -> bool:
    return unique.within is not None and added_at > now - unique.within and until > now


def _memory(job: NewJob, unique: Unique, key: str) -> dict[str, Any]:
    until = job.created_at + (unique.within or 0)
    look_at = (until + LOOK_AFTER) // LOOKS_TOGETHER * LOOKS_TOGETHER + LOOKS_TOGETHER
    return {
        "queue": job.queue, "key": key, "id": job.id, "added_at": job.created_at, "until": until,
        "look_at": look_at,
    }  # fmt: skip


def _replace(job: NewJob, there: str, now: int) -> Generator[tuple[str, dict[str, Any]], list[Any], None]:
    """Give a pending job another task, payload and due time; a turn that it had goes to the next."""
    turn = yield "let_in_pending", {"id": there}
    yield (
        "replace",
        {
            "id": there,
            "queue": job.queue,
            "task": job.task,
            "payload": job.payload,
            "due_at": job.due_at,
            "waits_from": job.waits_from,
            "now": now,
        },
    )
    for queue, key, task in turn:
        if job.due_at > now or (queue, task) != (job.queue, job.task):
            yield "let_in", {"keys": text([(queue, key, now)])}
