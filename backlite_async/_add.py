"""Adding jobs: one operation, all or nothing."""

from __future__ import annotations

import asyncio
import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Self

import msgspec

from ._clock import after, aware, seconds, to_millis
from ._codec import encode
from ._config import Duration
from ._context import running_job
from ._errors import InvalidState, InvalidTask, PayloadError
from ._job import NewJob
from ._task import TaskType, task_type

if TYPE_CHECKING:
    import aiosqlite

    from ._client import Client
    from .stores import Store

__all__ = ["AddOperation"]

CHUNK = 1000
"""Tasks encoded in one turn of the event loop: some three milliseconds."""


class AddOperation:
    """Tasks on their way to become jobs. Made by `client.add(...)`; nothing is stored before `save()`."""

    def __init__(self, client: Client, tasks: tuple[msgspec.Struct, ...]) -> None:
        self._client = client
        self._tasks = tasks
        self._at: int | None = None
        self._wait: float | None = None
        self._connection: aiosqlite.Connection | None = None
        self._jobs: list[NewJob] | None = None
        self._state = "new"
        self._tried = self._again = False

    def at(self, instant: datetime) -> Self:
        """Run the jobs at an instant, a timezone-aware datetime; one in the past: now."""
        self._at, self._wait = to_millis(aware("at", instant)), None
        return self

    def wait(self, duration: Duration) -> Self:
        """Run the jobs after a duration from `save()` on, in seconds or as a timedelta."""
        self._at, self._wait = None, seconds("wait", duration)
        return self

    def tx(self, connection: aiosqlite.Connection) -> Self:
        """Add the jobs inside this connection's open transaction: they exist if it commits.

        The connection must be to the client's database file. A transaction that reads before it
        adds should begin with BEGIN IMMEDIATE.
        """
        self._client.check_connection(connection)
        self._connection = connection
        return self

    async def save(self) -> list[str]:
        """Store the jobs, all or none, and return their ids in the order of the tasks.

        Raises `PayloadError` and `InvalidTask` for tasks that cannot become jobs, `DatabaseBusy`
        if the database stays locked, `DatabaseUnavailable` if it fails. Then nothing is stored, or
        (after an I/O error or a cancellation) it is unknown: `save()` may be called again, and
        will not add anything twice while the jobs have not run. After success an operation is over.
        """
        if self._state != "new":
            raise InvalidState(f"this operation is {self._state}; every client.add(...) saves once")
        self._tried = True
        store = self._client.open_store()
        running = running_job.get(None)
        if self._connection is None and running and running.open_block and running.client is self._client:
            raise InvalidState(
                "save() inside a job.transaction() would wait for the block itself; add with"
                " .tx(connection), the connection that the block gives"
            )
        self._state = "being saved"
        try:
            if self._jobs is None:
                self._jobs = await self._encode()
            await self._store(store, self._jobs)
        except BaseException:
            self._state = "new"
            raise
        self._state = "saved"
        self._client.added(self._jobs)
        return [job.id for job in self._jobs]

    async def _store(self, store: Store, jobs: list[NewJob]) -> None:
        again, self._again = self._again, True  # who has failed once may have stored them all the same
        if jobs and self._connection is None:
            self._client.adding(jobs)
            await store.add(jobs, again=again)
        elif jobs:
            await store.add_within(self._connection, jobs, again=again)

    async def _encode(self) -> list[NewJob]:
        """Make jobs of the tasks, many of them in several turns of the event loop."""
        now = self._client.clock.now()
        jobs: list[NewJob] = []
        for first in range(0, len(self._tasks), CHUNK):
            if first:
                await asyncio.sleep(0)
            jobs += self._encode_some(first, now)
        return jobs

    def _encode_some(self, first: int, now: int) -> list[NewJob]:
        due_at = self._at
        if due_at is None:
            due_at = now if self._wait is None else after(now, self._wait)
        waits_from = now if self._at is None else None
        next_id = self._client.ids.next
        jobs: list[NewJob] = []
        kind: TaskType | None = None
        for number, task in enumerate(self._tasks[first : first + CHUNK], first + 1):
            if kind is None or type(task) is not kind.cls:
                kind = self._kind(task)
            jobs.append(
                NewJob(
                    id=next_id(),
                    queue=kind.config.name,
                    task=kind.name,
                    payload=self._payload(number, kind, task),
                    max_attempts=kind.config.max_attempts,
                    created_at=now,
                    due_at=due_at,
                    waits_from=waits_from,
                )
            )
        return jobs

    def _kind(self, task: object) -> TaskType:
        if isinstance(task, type):
            raise InvalidTask(f"{task.__qualname__} is a class; add an instance of it")
        kind = task_type(type(task))
        self._client.registry.meet(kind)
        return kind

    def _payload(self, number: int, kind: TaskType, task: msgspec.Struct) -> bytes:
        try:
            return encode(kind, task, self._client.max_payload)
        except PayloadError as error:
            if len(self._tasks) == 1:
                raise
            reason = f"{error.reason} (task {number} of {len(self._tasks)})"
            raise PayloadError(error.task, reason) from error.__cause__

    def __del__(self) -> None:
        if getattr(self, "_state", None) == "new" and self._tasks and not self._tried:
            names = ", ".join(sorted({type(task).__qualname__ for task in self._tasks}))
            warnings.warn(
                f"client.add({names}) was never saved, and nothing was added; write"
                " await client.add(...).save()",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )
