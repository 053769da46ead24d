"""What a handler sees of its job, and of the client that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from datetime import datetime
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import msgspec

from ._carry import parted
from ._clock import from_millis, whole_millis
from ._codec import encode_result
from ._errors import InvalidState, InvalidType, InvalidValue
from ._failure import storable
from ._graph import NewStep, WorkflowId
from ._inside import Given, Inside, Results
from ._job import ClaimedJob
from ._log import bound, logger
from ._notes import MOST_MESSAGE, Notes, Said
from ._steps import IfFailed, Step
from ._workflow import Part

if TYPE_CHECKING:
    import aiosqlite

    from ._client import Client
    from ._transaction import JobTransaction

__all__ = ["JobContext", "check_outside_block", "current_client", "current_job", "running_job"]

ROUNDING = 1e-9
"""By which a sum of fractions may exceed 1."""

V = TypeVar("V")

running_job: ContextVar[JobContext] = ContextVar("backlite_async.job")


class JobContext:
    """The running job, as its handler sees it.

    `attempt` counts from 1; `fence` is the number of this claim, greater than that of every claim
    before. `key` is what was given with `.key()`, `parent` the id of the job whose handler added this
    one, `workflow` the id of what it is a step of; None: there is none.
    """

    __slots__ = (
        "_created_at",
        "_encoded",
        "_inside",
        "_job",
        "_meta",
        "_result",
        "_started_at",
        "_tags",
        "_timeout",
        "_transaction",
        "attempt",
        "cancel_asked",
        "client",
        "completed",
        "fence",
        "id",
        "key",
        "max_attempts",
        "names",
        "notes",
        "open_block",
        "over",
        "parent",
        "queue",
        "said",
        "workflow",
    )

    def __init__(
        self,
        job: ClaimedJob,
        client: Client,
        started_at: int,
        timeout: float | None,
        transaction: Callable[[JobContext], AbstractAsyncContextManager[aiosqlite.Connection]],
        *,
        notes: Notes | None = None,
    ) -> None:
        self._job = job
        self.notes = notes
        self.said: Said | None = None
        self.names: tuple[str, ...] = ()
        self.id = job.id
        self.queue = job.queue
        self.attempt = job.attempt
        self.max_attempts = job.max_attempts
        self.fence = job.fence
        self.key = job.key
        self.parent = job.parent
        self.workflow = None if job.workflow is None else WorkflowId(job.workflow)
        self._meta: str | dict[str, Any] | None = job.meta
        self._tags = job.tags
        self.cancel_asked = False
        self._created_at = job.created_at
        self._started_at = started_at
        self._timeout = timeout
        self.client = client
        self.open_block: JobTransaction | None = None
        self.completed = self.over = False
        self._inside: Inside | None = None
        self._transaction = transaction
        self._result: object = None
        self._encoded: str | None = None

    @property
    def created_at(self) -> datetime:
        """When the job was added, an aware datetime."""
        return from_millis(self._created_at)

    @property
    def deadline(self) -> datetime | None:
        """When this attempt times out, an aware datetime; None: never.

        By the job's own timeout, given with `.timeout()`, or else by its queue's.
        """
        if self._timeout is None:
            return None
        return from_millis(self._started_at + whole_millis(self._timeout))

    @property
    def meta(self) -> dict[str, Any]:
        """What was stored with the job by `.meta()`; an empty dict if nothing was.

        The same dict at every access of this attempt; changes to it are not stored.
        """
        if not isinstance(self._meta, dict):
            self._meta = parted(self._meta)[0]
        return self._meta

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the job, in the order in which they were given to `.tags()`."""
        return () if self._tags is None else msgspec.json.decode(self._tags, type=tuple[str, ...])

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked to cancel this job.

        An `async def` handler is cancelled without looking. The thread of a `def` handler cannot be
        stopped: it must look here itself, now and then, and return or raise when this is True. Until
        it ends, the job counts as running.
        """
        return self.cancel_asked

    def transaction(self) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """Return a block whose writes are committed together with this job's completion, or not at all.

        `async with job.transaction() as connection:` gives an aiosqlite connection to the client's
        database, inside a write transaction. At the end of the block the job has succeeded; nothing
        the handler does afterwards changes that, and no limit over processes counts it any longer.
        Inside, jobs are added with `.tx(connection)`, and `job.result = value` sets what is kept as the
        job's result.

        The block keeps everybody else from writing: after 5 seconds (or 0.3 of the lease, if that is
        less) it is rolled back with `TransactionTimeout`. `LeaseLost`: the job was taken away
        meanwhile, and nothing of the block stays. `DatabaseBusy`: no write lock within the busy
        timeout. `InvalidState`: in a block already, or completed, or a store without transactions.
        """
        return self._transaction(self)

    @property
    def result(self) -> object:
        """What the job is to keep as its result; set inside `transaction()`, stored as JSON.

        Kept as long as the job, see `Retention`. Raises `PayloadError` for what JSON cannot carry
        or is larger than the client's `max_payload`, `InvalidState` outside of the block.
        """
        return self._result

    @result.setter
    def result(self, value: object) -> None:
        if self.open_block is None:
            raise InvalidState("job.result is set inside 'async with job.transaction():'")
        self._encoded = encode_result(self.queue, value, self.client.max_payload)
        self._result = value

    @property
    def encoded_result(self) -> str | None:
        """The result as JSON."""
        return self._encoded

    @overload
    async def previous(self, *, many: Literal[False] = False) -> Any: ...
    @overload
    async def previous(self, type: type[V], *, many: Literal[False] = False) -> V: ...
    @overload
    async def previous(self, type: UnionType, *, many: Literal[False] = False) -> Any: ...
    @overload
    async def previous(self, *, many: Literal[True]) -> list[Any]: ...
    @overload
    async def previous(self, type: type[V], *, many: Literal[True]) -> list[V]: ...
    @overload
    async def previous(self, type: UnionType, *, many: Literal[True]) -> list[Any]: ...
    async def previous(self, type: Any = None, *, many: bool = False) -> Any:  # noqa: A002 - it is promised
        """Return what the step before this one has returned, as `type` if one is given.

        Where this step comes after several, such as a group, a list in their order; `type` is then that of
        the list. `many=True`: a list in any case, of `type`s, as a group may have one part. None for a step
        that has returned nothing, or has failed though this one runs all the same. `PayloadError` if it is
        of another type. A `LookupError` where there is no step before this one, the job is of no workflow,
        or (`ResultNotFound`) what was returned cannot be kept. In a `def` handler:
        `anyio.from_thread.run(job.previous, int)`.
        """
        return await self._place().previous(type, many=many)

    @overload
    async def results(self) -> Results[Any]: ...
    @overload
    async def results(self, type: type[V]) -> Results[V]: ...
    @overload
    async def results(self, type: UnionType) -> Results[Any]: ...
    async def results(self, type: Any = None) -> Results[Any]:  # noqa: A002 - the name is promised
        """Return what all steps before this one have returned, near and far, as `type` if one is given.

        A mapping by their names, or ids where they have none, in the order of the workflow; found is each
        by its id, too. Of steps that have succeeded, None for one that has returned nothing. A callback of
        the whole sees those of all. Raises a `LookupError` if the job is of no workflow; what is wrong with
        a result is raised when it is looked up, as `previous` does.
        """
        return await self._place().results(type)

    async def extend(
        self,
        part: Part,
        *,
        after: Step | str | Iterable[Step | str] | None = None,
        name: str | None = None,
        if_failed: IfFailed | None = None,
    ) -> Step:
        """Add a task, a chain or a group to this job's own workflow, and return its handle.

        It is written with the outcome of this attempt, if that succeeds: a failed one adds nothing, so that
        retries add nothing twice. It runs after this step; or after what `after` says: handles of what was
        added before, names or ids of steps that are there. `after=()`: when this attempt is over. The other
        arguments are those of `Workflow.add`. To a workflow that was cancelled nothing is added any more.

        Raises `InvalidValue` (a ValueError) for steps that are not there and names that are, and a
        `LookupError` if the job is of no workflow. In a `def` handler: `anyio.from_thread.run(job.extend,
        part)`.
        """
        if self.completed or self.over:
            raise InvalidState(f"job {self.id} has ended, and adds nothing more to its workflow")
        return await self._place().extend(part, after, name, if_failed)

    @property
    def extends(self) -> tuple[NewStep, ...]:
        """What this job adds to its workflow if the attempt succeeds."""
        return () if self._inside is None else tuple(self._inside.added)

    def forget_extends(self, had: int) -> None:
        """Add to its workflow only so many, the first ones: what came after was in a block that is undone."""
        if self._inside is not None:
            self._inside.cut(had)

    def pretend(self, given: Given) -> None:
        """Let the job be told this of steps before it that there are not."""
        self._inside = Inside(self.client, self._job, given)

    def _place(self) -> Inside:
        if self._inside is None:
            self._inside = Inside(self.client, self._job)
        return self._inside

    async def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far the job is, from 0 to 1, maybe with a message of up to 1,000 characters.

        Kept with the job, and shown while it runs: the newest counts, whatever was said before. It is
        written now and then, for all running jobs together, and does not wait for the database: call it
        as often as you like. In a `def` handler: `anyio.from_thread.run(job.progress, 0.5)`.
        """
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)):
            raise InvalidType(f"progress() takes a number from 0 to 1, not {fraction!r}")
        if not 0 <= fraction <= 1 + ROUNDING:  # nor NaN
            raise InvalidValue(f"progress({fraction!r}) must lie between 0 and 1")
        if message is not None:
            if not isinstance(message, str):
                raise InvalidType(f"the message of a progress is a str, not {message!r}")
            message = storable(message, MOST_MESSAGE)
        said = self._say()
        if said is not None and said.report(min(float(fraction), 1.0), message):
            await asyncio.sleep(0)

    @property
    def log(self) -> Any:
        """A structlog logger that names this job on every line.

        Lines go where the application's own go, and are kept with the job: those from `info` up, 1,000 an
        attempt, of up to 2,000 characters. What a filter of the application's loggers (their
        `wrapper_class`) drops is not kept.
        """
        own: dict[str, Any] = {"job_id": self.id, "queue": self.queue, "attempt": self.attempt}
        if self.names:  # which the job has carried here
            own = bound(self.names) | own
        return logger(None if self.notes is None else self._keep_line, **own)

    def _keep_line(self, level: str, render: Callable[[], str]) -> None:
        said = self._say()
        if said is not None:
            said.keep(level, render)

    def fall_silent(self) -> None:
        """Keep nothing more of what this job says: its attempt has ended."""
        self.notes = None
        if self.said is not None:
            self.said.close()

    def _say(self) -> Said | None:
        """Return what keeps what this job says; None: nothing is kept."""
        notes = self.notes
        if self.said is None and notes is not None:
            with notes.lock:
                if self.said is None:
                    self.said = Said(self._job, notes)
        return self.said

    def __repr__(self) -> str:
        return f"<job {self.id} of queue {self.queue!r}, attempt {self.attempt} of {self.max_attempts}>"


def check_outside_block(client: Client) -> None:
    """Raise inside a `job.transaction()`, for which everybody else who writes has to wait."""
    running = running_job.get(None)
    if running is not None and running.client is client and running.open_block:
        raise InvalidState(
            "jobs and queues cannot be changed inside a job.transaction(), which keeps everybody else from"
            " writing, the client too; do it before or after the block"
        )


def current_client() -> Client:
    """Return the client whose handler is running; `LookupError` outside of handlers."""
    try:
        return running_job.get().client
    except LookupError:
        raise LookupError("current_client() works inside a handler only") from None


def current_job() -> JobContext:
    """Return the job whose handler is running; `LookupError` outside of handlers."""
    try:
        return running_job.get()
    except LookupError:
        raise LookupError("current_job() works inside a handler only") from None
