"""Adding jobs: one operation, all or nothing."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import msgspec

from ._clock import after, aware, seconds, to_millis
from ._config import Duration, checked_priority
from ._context import running_job
from ._errors import DatabaseBusy, InvalidState, InvalidValue
from ._graph import NewWorkflow, WorkflowId
from ._job import NewJob, Unique
from ._maker import Addable, JobOptions, Maker, Whole
from ._options import (
    Added,
    OnConflict,
    OwnId,
    UniqueKey,
    checked_attempts,
    checked_conflict,
    checked_text,
    checked_timeout,
    checked_within,
    encoded_meta,
    encoded_tags,
    in_its_way,
    refusal,
)
from ._task import task_type
from ._workflow import WHOLES

if TYPE_CHECKING:
    import aiosqlite

    from ._client import Client
    from ._telemetry import Sending
    from .stores import Store

__all__ = ["AddOperation"]

F = TypeVar("F", bound=Callable[..., Any])


def _option(method: F) -> F:
    """Take an option only while the jobs are still to be made; a refused one is no forgotten `save()`."""

    @functools.wraps(method)
    def checked(self: AddOperation, *args: Any, **kwargs: Any) -> AddOperation:
        self._check_unmade(method.__name__)
        tried, self._tried = self._tried, True
        operation: AddOperation = method(self, *args, **kwargs)
        self._tried = tried
        return operation

    return cast("F", checked)


class AddOperation:
    """Tasks on their way to become jobs. Made by `client.add(...)`; nothing is stored before `save()`.

    Every option returns the operation, counts for all of its jobs, and may be given again: the last
    call counts. Wrong values raise `InvalidValue` (a ValueError) or `InvalidType` (a TypeError) at the
    call; what needs the database raises at `save()`.
    """

    # What most operations do not have; it costs them nothing here.
    _options = JobOptions()
    _own: OwnId | None = None
    _by: UniqueKey | None = None
    _unique: Unique | None = None
    _workflows: tuple[NewWorkflow, ...] = ()

    def __init__(self, client: Client, parts: tuple[Addable, ...]) -> None:
        self._client = client
        self._parts = parts
        self._wholes: list[tuple[int, Whole]] = []
        if not WHOLES.isdisjoint(map(type, parts)):
            found = ((place, part) for place, part in enumerate(parts) if type(part) in WHOLES)
            self._wholes = cast("list[tuple[int, Whole]]", [*found])
            self._token = object()
        self._at: int | None = None
        self._wait: float | None = None
        self._connection: aiosqlite.Connection | None = None
        self._jobs: list[NewJob] | None = None
        self._state = "new"
        self._tried = self._again = False

    # -- when, and in which order ------------------------------------------------------------------

    @_option
    def at(self, instant: datetime) -> Self:
        """Run the jobs at an instant, a timezone-aware datetime; one in the past: now."""
        self._at, self._wait = to_millis(aware("at", instant)), None
        return self

    @_option
    def wait(self, duration: Duration) -> Self:
        """Run the jobs after a duration from `save()` on, in seconds or as a timedelta."""
        self._at, self._wait = None, seconds("wait", duration)
        return self

    @_option
    def priority(self, n: int) -> Self:
        """Give the jobs a priority from -10 to 10, instead of their queue's (0, if that has none).

        Of the jobs that are due and may run, over all queues, those of the highest priority run
        first; among equals those that have been due for longest. A running job is never interrupted.
        So jobs of a low priority starve as long as there are enough due ones of a higher priority to
        keep all workers busy; nothing raises their priority with time. `Queue.oldest_due` tells how
        long the oldest job of a queue has been due. A retry keeps the job's priority.
        """
        self._say(priority=checked_priority(n))
        return self

    @_option
    def key(self, key: str) -> Self:
        """Let the jobs count against the limit of their key, such as "customer-42".

        Where their queue has `concurrency_per_key=n`, at most n of its jobs of one key run at once,
        over all processes; elsewhere the key is only stored. Jobs beyond that wait for their turn, in
        their order (priority, then the time they are due, then order of adding), and hold up nobody
        else. When a place of the key becomes free, its next job lines up behind those that are due
        already: so keys take turns, and one with thousands of jobs does not keep others waiting.
        Uniqueness, see `unique()`, has nothing to do with it. 1 to 200 printable characters.
        """
        self._say(key=checked_text("key", key))
        return self

    # -- each attempt ------------------------------------------------------------------------------

    @_option
    def max_attempts(self, n: int) -> Self:
        """Try these jobs at most n times, whatever their queue's `max_attempts`; 1: never again."""
        self._say(max_attempts=checked_attempts(n))
        return self

    @_option
    def timeout(self, duration: Duration) -> Self:
        """Give each attempt of these jobs this long, whatever their queue's `timeout`.

        In seconds or as a timedelta, kept in whole milliseconds, rounded up. There is no None: without
        this call the queue's timeout applies.
        """
        self._say(timeout=checked_timeout(duration))
        return self

    # -- one of a kind -----------------------------------------------------------------------------

    @_option
    def unique(
        self, key: str | None = None, within: Duration | None = None, on_conflict: OnConflict = "keep"
    ) -> Self:
        """Add the job only if there is none of the same queue and unique key; for one task at a time.

        In its way is the job that was last added with this queue and key while that is pending
        (retries too) or running; with `within`, also if it was added less than that ago, however it
        has ended since. That is remembered for as long as the `within` with which *it* was added, so
        use the same one for all jobs of a key. `key`: 1 to 200 printable characters; None: a hash of
        the task's type and values, so that equal tasks of one type are one job. Keys of different
        queues have nothing to do with each other, nor with `key()`. What is in the way:

        - "keep": its id is returned, and nothing is added.
        - "replace": so too, but if it is pending, it gets the task and the due time of this operation
          (without `at` and `wait`: now). It keeps its id, attempts, priority and all other options. A
          running one, and one that has ended, is left as it is.
        - "raise": `save()` raises `AlreadyExists` with its id; the operation may be saved again.

        Which ids are not new says `.existing` of what `save()` returns. It is decided inside the
        transaction that adds the job, so that no race makes two, whatever the processes. With `.tx()`
        that is the caller's: it sees what that has added, and what it adds or replaces is there, for
        others too, if it commits. `InvalidValue` if the operation has not exactly one task.
        """
        self._check_one("unique")
        self._by = UniqueKey(
            None if key is None else checked_text("unique", key),
            checked_within(within),
            checked_conflict(on_conflict),
        )
        return self

    @_option
    def id(self, value: str, on_conflict: OnConflict = "keep") -> Self:
        """Give the job an id of your own, such as "order-42"; for one task at a time.

        In its way is a job of that id, of any queue, that is pending, running, or completed and still
        kept by retention; once it is gone, the id is free again. `on_conflict` is as for `unique()`:
        "keep" returns the id and adds nothing, "replace" gives a pending one the task (with its type and
        queue) and due time of this operation, "raise" raises `AlreadyExists`. With `unique()` as well,
        the id is looked at first, and each has its own `on_conflict`. 1 to 200 printable characters.
        `InvalidValue` if the operation has not exactly one task.
        """
        self._check_one("id")
        self._own = OwnId(checked_text("id", value), checked_conflict(on_conflict))
        return self

    # -- what is said of them ----------------------------------------------------------------------

    @_option
    def meta(self, meta: dict[str, Any]) -> Self:
        """Store a dict with the jobs, for the handler (`job.meta`) and for lists; it is not the task.

        Keys are str; values are text, numbers, True, False, None, and lists and dicts of these (tuples
        come back as lists). At most 8192 bytes as JSON. It is taken as it is at this call.
        """
        self._say(meta=encoded_meta(meta))
        return self

    @_option
    def tags(self, *tags: str) -> Self:
        """Store tags with the jobs, for the handler (`job.tags`) and to find them by.

        At most 20, of 1 to 100 printable characters each; they keep their order, each counts once.
        """
        self._say(tags=encoded_tags(tags))
        return self

    # -- storing them ------------------------------------------------------------------------------

    def tx(self, connection: aiosqlite.Connection) -> Self:
        """Add the jobs inside this connection's open transaction: they exist if it commits.

        The connection must be to the client's database file. A transaction that reads before it
        adds should begin with BEGIN IMMEDIATE.
        """
        self._client.check_connection(connection)
        self._connection = connection
        return self

    async def save(self) -> Added:
        """Store the jobs, all or none, and return their ids in the order of the tasks.

        A list of str, whose `.existing` are the ids of jobs that were there already, see `unique()`
        and `id()`, and `.new` the others. A job that a handler adds knows the id of the handler's own
        job as its `parent`.

        Raises `PayloadError` and `InvalidTask` for tasks that cannot become jobs, `AlreadyExists` if
        that was asked for, `DatabaseBusy` if the database stays locked, `DatabaseUnavailable` if it
        fails. Then nothing is stored, or (after an I/O error or a cancellation) it is unknown:
        `save()` may be called again, and will not add anything twice while the jobs have not run.
        After success an operation is over.
        """
        if self._state != "new":
            raise InvalidState(f"this operation is {self._state}; every client.add(...) saves once")
        self._tried = True
        store = self._client.open_store()
        running = running_job.get(None)
        if running is not None and running.client is self._client:
            if self._connection is None and running.open_block:
                raise InvalidState(
                    "save() inside a job.transaction() would wait for the block itself; add with"
                    " .tx(connection), the connection that the block gives"
                )
            self._say(parent=running.id if running.fence else None)  # none that run() has made up
        if self._wholes:
            self._hold()
        self._state = "being saved"
        again, sending = self._again, self._client.telemetry.sending()
        try:
            if self._jobs is None:
                self._jobs = await self._make(sending)
            elif sending is not None:
                sending.begin(self._all())
            if self._connection is None and self._client.undeclared:  # else it would wait for the caller
                await self._client.declare_queues()
            existing = await self._store(store, self._jobs)
        except BaseException as error:
            self._failed(error, again, sending)
            raise
        self._state = "saved"
        if sending is not None:
            sending.ended(self._all(), existing=existing)
        if existing is not None:
            found = Added([existing])
            found.existing = (existing,)
            return found
        return self._added()

    def _failed(self, error: BaseException, again: bool, sending: Sending | None) -> None:
        """Take note that it is unknown what is stored; `again`: as it was before this try."""
        if sending is not None:
            sending.ended(self._all(), error=error)
        self._state = "new"
        if self._wholes and not again and (not self._again or isinstance(error, DatabaseBusy)):
            self._let_go()

    async def _store(self, store: Store, jobs: list[NewJob]) -> str | None:
        """Store the jobs; return the id of the one that was in the way of the only one."""
        again, self._again = self._again, True  # who has failed once may have stored them all the same
        workflows = self._workflows
        if self._unique is not None:
            return await self._store_unique(store, jobs[0], self._unique, again)
        if not jobs and not workflows:
            return None
        if self._connection is None:
            self._client.adding(jobs or workflows[0].jobs[:1])
            await store.add(jobs, workflows=workflows, again=again)
        else:
            await store.add_within(self._connection, jobs, workflows=workflows, again=again)
        return None

    async def _store_unique(self, store: Store, job: NewJob, unique: Unique, again: bool) -> str | None:
        now = self._client.clock.now()
        if self._connection is None:
            self._client.adding([job])
            found = await store.add_unique(job, unique, now=now, again=again)
        else:
            found = await store.add_within(self._connection, [job], unique=unique, now=now, again=again)
        error = None if found is None else refusal(found, self._own, self._by)
        if error is not None:
            self._jobs, self._again = None, False  # nothing is stored: another save() begins anew
            raise error
        return found

    # -- making jobs of tasks ----------------------------------------------------------------------

    def _say(self, **said: object) -> None:
        self._options = msgspec.structs.replace(self._options, **said)

    async def _make(self, sending: Sending | None) -> list[NewJob]:
        """Make jobs and workflows of the parts, many of them in several turns of the event loop."""
        now = self._client.clock.now()
        due_at = self._at
        if due_at is None:
            due_at = now if self._wait is None else after(now, self._wait)
        waits_from = now if self._at is None else None
        carry = None if sending is None else sending.context
        maker = Maker(self._client, self._options, now, due_at=due_at, waits_from=waits_from, carry=carry)
        own_id = None if self._own is None else self._own.value
        if len(self._parts) == 1 and not self._wholes:
            jobs = maker.jobs(cast("tuple[msgspec.Struct]", self._parts), 0, 1, own_id)
        else:
            jobs, self._workflows = await maker.all(self._parts, self._wholes)
        if self._own is not None or self._by is not None:
            [task] = self._parts
            self._unique = in_its_way(
                self._own, self._by, task_type(type(task)), cast("msgspec.Struct", task)
            )
        return jobs

    # -- workflows are saved once ------------------------------------------------------------------

    def _hold(self) -> None:
        """Make sure that nobody else saves these workflows, or raise."""
        if len({id(whole) for _, whole in self._wholes}) < len(self._wholes):
            raise InvalidState("client.add() was given the same workflow twice; build another one")
        for _, whole in self._wholes:
            if whole.graph.holder not in (None, self._token):
                raise InvalidState(
                    f"this {type(whole).__name__.lower()} is saved, or may be, by another client.add(...),"
                    " and its steps have their ids; build another one"
                )
        for _, whole in self._wholes:
            whole.graph.holder = self._token

    def _let_go(self) -> None:
        """Nothing is stored: let anybody save these workflows."""
        self._jobs, self._again = None, False
        for _, whole in self._wholes:
            whole.graph.holder = None

    def _all(self) -> list[NewJob]:
        """Return the jobs as far as they are made, and those of steps."""
        return [*(self._jobs or ()), *(job for workflow in self._workflows for job in workflow.jobs)]

    def _added(self) -> Added:
        """Take note that all is stored; return the ids."""
        jobs = self._jobs or []
        if not self._wholes:
            self._client.added(jobs)
            return Added([job.id for job in jobs])
        for (_, whole), workflow in zip(self._wholes, self._workflows, strict=True):
            whole.graph.id = WorkflowId(workflow.id)
        self._client.added(self._all())
        ids = iter([job.id for job in jobs])
        workflows = iter([workflow.id for workflow in self._workflows])
        added = Added(next(workflows if type(part) in WHOLES else ids) for part in self._parts)
        added.workflows = tuple(WorkflowId(workflow.id) for workflow in self._workflows)
        return added

    # -- misuse ------------------------------------------------------------------------------------

    def _check_unmade(self, option: str) -> None:
        if self._jobs is not None or self._state != "new":
            raise InvalidState(
                f".{option}() comes too late: the jobs of this operation are stored, or may be; change"
                " nothing and save() it again, or begin another client.add(...)"
            )

    def _check_one(self, option: str) -> None:
        if self._wholes:
            raise InvalidValue(
                f".{option}() is for one task at a time, not for a workflow; give it to a task whose handler"
                " adds the workflow, so that there is one of it"
            )
        if len(self._parts) != 1:
            raise InvalidValue(
                f".{option}() is for one task at a time, and this operation has {len(self._parts)}; write"
                f" client.add(task).{option}(...) for each"
            )

    def __del__(self) -> None:
        if getattr(self, "_state", None) == "new" and self._parts and not self._tried:
            names = ", ".join(sorted({type(task).__qualname__ for task in self._parts}))
            warnings.warn(
                f"client.add({names}) was never saved, and nothing was added; write"
                " await client.add(...).save()",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )
