"""What was added."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from .._client import Client
from .._clock import aware, from_millis, to_millis
from .._codec import decode
from .._errors import InvalidValue, PayloadError
from .._job import Job, JobStatus
from .._query import MOST_LISTED, SortKey, Wanted
from .._task import TaskType, task_type
from ._clients import records

__all__ = ["added", "assert_added", "refute_added"]

T = TypeVar("T", bound=msgspec.Struct)

LISTED = 20
"""Jobs that a message lists."""


class _Added(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was added; `task` None: nobody has kept it."""

    task: Any
    due_at: datetime
    status: str

    def __str__(self) -> str:
        task = "one whose task is not kept" if self.task is None else repr(self.task)
        return f"{task}, due at {self.due_at}, {self.status}"


async def added(client: Client, task_type: type[T], /) -> list[T]:
    """Return the tasks of a type of which jobs were added, in that order.

    Those of the database, and those that this client has added since it was made by `testing.client()`
    or replaced, also where they have run and are gone. What was added in a transaction that was rolled
    back was not added.
    """
    return [job.task for job in await _added(client, task_type) if job.task is not None]


async def assert_added(
    client: Client,
    what: type[T] | T,
    /,
    *,
    count: int | None = None,
    at: datetime | None = None,
    **fields: object,
) -> list[T]:
    """Fail unless a job was added: of a type, with these values in its fields; or equal to a task.

    `count`: just so many; `at`: due at that instant. Returns the tasks. See `added` for what counts as
    added. The AssertionError lists what was added instead.
    """
    cls, found, expected = await _look(client, what, at, fields)
    if len(found) == count or (found and count is None):
        return [job.task for job in found]
    number = "no job" if not found else f"{len(found)}, not {count},"
    raise AssertionError(f"{number} {expected} was added{await _instead(client, cls)}")


async def refute_added(
    client: Client, what: type[T] | T, /, *, at: datetime | None = None, **fields: object
) -> None:
    """Fail if a job was added that `assert_added` would find."""
    cls, found, expected = await _look(client, what, at, fields)
    if found:
        raise AssertionError(f"{expected} was added{await _instead(client, cls)}")


async def _look(
    client: Client, what: type[T] | T, at: datetime | None, fields: dict[str, object]
) -> tuple[type[T], list[_Added], str]:
    """Return the task type, the jobs that are as expected, and what that is."""
    cls: type[T] = what if isinstance(what, type) else type(what)
    task_type(cls)
    for name in fields:
        if not isinstance(what, type) or name not in cls.__struct_fields__:
            known = ", ".join(cls.__struct_fields__) if isinstance(what, type) else "all in the task itself"
            raise InvalidValue(f"{cls.__name__} has no field {name!r} to compare; the fields are: {known}")
    instant = None if at is None else to_millis(aware("at", at))

    def expected(job: _Added) -> bool:
        if job.task is None or (instant is not None and abs(to_millis(job.due_at) - instant) > 1):
            return False  # waits are a millisecond longer than they were given
        if not isinstance(what, type):
            return bool(job.task == what)
        return all(getattr(job.task, name) == value for name, value in fields.items())

    values = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    text = f"{cls.__name__}({values})" if isinstance(what, type) else repr(what)
    found = [job for job in await _added(client, cls) if expected(job)]
    return cls, found, text if at is None else f"{text}, due at {at},"


async def _instead(client: Client, cls: type[msgspec.Struct]) -> str:
    """Return what was added, as the end of a message."""
    jobs = await _added(client, cls)
    lines = [f"; of {cls.__name__} there are:" if jobs else f"; of {cls.__name__} there is none"]
    lines += [f"  {job}" for job in jobs[:LISTED]]
    if len(jobs) > LISTED:
        lines.append(f"  and {len(jobs) - LISTED} more")
    record = records.get(client)
    if record is not None:
        names = task_type(cls).names
        others = record.summary(job for job in record.added.values() if job.task not in names)
        lines += [f"of other types: {others}"] if others else []
    return "\n".join(lines)


async def _added(client: Client, cls: type) -> list[_Added]:
    kind = task_type(cls)
    there = await _stored(client, kind)
    record = records.get(client)
    found: list[_Added] = []
    recorded, uncertain = ({}, set()) if record is None else (record.added, record.uncertain)
    for job in recorded.values():
        stored = there.pop(job.id, None)
        if job.queue != kind.config.name or job.task not in kind.names:
            continue
        if stored is not None and stored.status is JobStatus.PENDING and stored.payload is not None:
            found.append(_added_job(kind, stored.payload, stored.due_at, stored.status))
        elif stored is not None or job.id not in uncertain:
            status = "gone" if stored is None else stored.status
            found.append(_added_job(kind, job.payload, from_millis(job.due_at), status))
    others = sorted(there.values(), key=lambda job: (job.created_at, job.id))
    return found + [_added_job(kind, job.payload, job.due_at, job.status) for job in others]


def _added_job(kind: TaskType, payload: bytes | None, due_at: datetime, status: str) -> _Added:
    try:
        task = None if payload is None else decode(kind, payload)
    except PayloadError:
        task = None
    return _Added(task=task, due_at=due_at, status=str(status))


async def _stored(client: Client, kind: TaskType) -> dict[str, Job]:
    """Return the jobs of a type that are in the database, by id."""
    store, now = client.open_store(), client.clock.now()
    jobs: dict[str, Job] = {}
    for name in kind.names:
        wanted = Wanted(queue=kind.config.name, task=name)
        after: SortKey | None = None
        while True:
            page = await store.find(wanted, limit=MOST_LISTED, after=after, now=now)
            jobs.update((job.id, job) for job in page.jobs)
            after = page.places[-1] if page.places and page.looked_to is None else page.looked_to
            if not page.more or after is None:
                break
    return jobs
