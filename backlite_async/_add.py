"""Adding jobs: one operation, all or nothing."""

from __future__ import annotations

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
from ._task import task_type

if TYPE_CHECKING:
    import aiosqlite

    from ._client import Client

__all__ = ["AddOperation"]


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
        self._tried = False

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
        if self._jobs is None:
            self._jobs = [self._job(number, task) for number, task in enumerate(self._tasks, 1)]
        jobs = self._jobs
        self._state = "being saved"
        try:
            if jobs and self._connection is None:
                await store.add(jobs)
            elif jobs:
                await store.add_within(self._connection, jobs)
        except BaseException:
            self._state = "new"
            raise
        self._state = "saved"
        self._client.added(jobs)
        return [job.id for job in jobs]

    def _job(self, number: int, task: object) -> NewJob:
        if isinstance(task, type):
            raise InvalidTask(f"{task.__qualname__} is a class; add an instance of it")
        kind = task_type(type(task))
        assert isinstance(task, msgspec.Struct)
        self._client.registry.meet(kind)
        try:
            payload = encode(kind, task, self._client.max_payload)
        except PayloadError as error:
            if len(self._tasks) == 1:
                raise
            reason = f"{error.reason} (task {number} of {len(self._tasks)})"
            raise PayloadError(error.task, reason) from error.__cause__
        now = self._client.clock.now()
        due_at = self._at
        if due_at is None:
            due_at = now if self._wait is None else after(now, self._wait)
        return NewJob(
            id=self._client.ids.next(),
            queue=kind.config.name,
            task=kind.name,
            payload=payload,
            max_attempts=kind.config.max_attempts,
            created_at=now,
            due_at=due_at,
            waits_from=now if self._at is None else None,
        )

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
