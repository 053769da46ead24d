"""The client: what applications hold in their hands."""

from __future__ import annotations

import asyncio
import os
import random
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar, overload

import msgspec

from . import _log as log
from ._add import AddOperation
from ._ahead import MOST
from ._catalogue import Catalogue
from ._checkup import HealthReport, checkup, examine
from ._clock import Clock, IdFactory, SystemClock, seconds, whole_millis
from ._config import Duration, checked_name
from ._context import JobContext, check_outside_block, running_job
from ._declare import declaration
from ._direct import run
from ._dispatcher import UNWRITTEN_LIMIT, WRITE_GRACE, Dispatcher
from ._errors import InvalidState, InvalidType, InvalidValue
from ._events import Bus, EventKind, Events, L
from ._filters import checked_id
from ._graph import WorkflowId, WorkflowRun
from ._inside import NOTHING_GIVEN, given
from ._inspection import Finding
from ._job import Job, JobStatus, NewJob, Owner
from ._jobs import Jobs
from ._leases import BEATS_PER_LEASE
from ._life import Run
from ._middleware import Layers, M
from ._outcome import CANCELLED
from ._owners import Owners
from ._queues import Queues
from ._recurring import Missed
from ._registry import Registry
from ._reports import naming
from ._results import result_of, wait_for
from ._rule import Rule
from ._schedules import Said, ScheduleOperation, Schedules, Times
from ._telemetry import Telemetry
from ._waits import Waits
from ._workflow import Chain, Group, Workflow
from ._workflows import Workflows
from .stores import Store, is_file, store_maker

__all__ = ["Client"]

REST_LOOK = 0.5
"""Seconds between two looks whether a paused queue rests, where nobody tells."""

T = TypeVar("T", bound=msgspec.Struct)
D = TypeVar("D", bound=msgspec.Struct)
R = TypeVar("R")
V = TypeVar("V")


class _Decorator(Protocol[D]):
    """Registers a handler of one task type and returns it as it is."""

    @overload
    def __call__(self, function: Callable[[D], R], /) -> Callable[[D], R]: ...
    @overload
    def __call__(self, function: Callable[[D, JobContext], R], /) -> Callable[[D, JobContext], R]: ...


class Client:
    """Adds jobs to a database and, with workers, runs them in this process's event loop.

    - `database`: path of a SQLite file, which the application may use for its own tables too;
      ":memory:": nothing is persisted.
    - `workers`: how many jobs run at once; 0: add only.
    - `threads`: how many of them may be `def` handlers, which run in worker threads.
    - `lease`: seconds that a claim is valid; it is renewed while this process lives, and ends
      this long after a crash.
    - `stop_timeout`: seconds that `async with` gives running handlers at its end; None: no limit.
    - `durability`: "full" syncs every add and completion to disk; "normal" may lose the last
      ones at power loss, never by a crash of the process.
    - `max_payload`: bytes of JSON that one task may have.
    - `busy_timeout`: seconds to wait for a locked database.
    - `install`: create or migrate the schema at start; False: a missing or older one is an error.
    - `tracing`: make spans and metrics by OpenTelemetry; None: if the application has set that up.
    - `context`: names of context variables of structlog that travel with jobs into their handlers.

    Nothing is opened before `start()`. Handlers can be registered at any time.
    """

    def __init__(
        self,
        database: str | PathLike[str] | Store,
        *,
        workers: int = 10,
        threads: int = 10,
        lease: Duration = 30.0,
        stop_timeout: Duration | None = 30.0,
        durability: Literal["full", "normal"] = "full",
        max_payload: int = 1_048_576,
        busy_timeout: Duration = 5.0,
        install: bool = True,
        tracing: bool | None = None,
        context: Sequence[str] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._workers = _whole("workers", workers, 0, 10_000)
        self._threads = _whole("threads", threads, 1, 10_000)
        self._lease = seconds("lease", lease)
        if self._lease < 0.1:
            raise InvalidValue(f"lease={lease!r} must be at least 0.1 seconds")
        self._stop_timeout = None if stop_timeout is None else seconds("stop_timeout", stop_timeout)
        self._install = install
        self._make_store = store_maker(
            database, durability=durability, busy_timeout=seconds("busy_timeout", busy_timeout)
        )
        self.max_payload = _whole("max_payload", max_payload, 1, 1_000_000_000)
        self.clock = clock or SystemClock()
        self.registry = Registry()
        self._random = rng or random.Random()
        self.ids = IdFactory(self.clock, self._random)
        self.jobs = Jobs(self)
        self.workflows = Workflows(self)
        self.queues = Queues(self)
        self.owners = Owners(self)
        self.tasks = Catalogue(self)
        self.schedules = Schedules(self)
        self.waits = Waits(self.clock)
        self.layers = Layers()
        self.bus = Bus(self.clock)
        self.telemetry = Telemetry(tracing, context, self.bus)
        self._declared: set[tuple[str, str]] = set()
        self._waiting_for_news: set[asyncio.Event] = set()
        self._unending: dict[str, int] = {}
        self._running: Run | None = None

    # -- start and stop ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the database, install the schema, and dispatch in the background.

        Raises `DatabaseUnusable` if the file cannot be used, `InvalidState` if already started, and
        `DatabaseUnavailable` if declared schedules cannot be stored.
        """
        if self._running is not None:
            self._running.check_process()
        if self._running is not None and not self._running.over:
            raise InvalidState("this client is started already; stop() it first, or use another Client")
        if self._running is not None:
            self._running.clear_away()
        running = self._running = Run(self._serve)
        try:
            await asyncio.shield(running.ready)
        except BaseException:
            running.stop.ask(0)
            await running.stop.outlast([running.task])
            raise

    async def stop(self, timeout: Duration | None = None) -> bool:
        """Stop gracefully; return whether every running handler ended in time.

        Claims no more, waits up to `timeout` seconds for running handlers (None: for ever, 0: not
        at all), cancels the rest and gives their jobs back without counting the attempt. Called
        twice, the earlier limit counts and both get the answer. `start()` works again afterwards.
        """
        limit = None if timeout is None else seconds("timeout", timeout)
        running = self._running
        if running is not None:
            running.check_process()
        if running is None or running.loop.is_closed():
            return True
        self._check_loop(running)
        job = running_job.get(None)
        if job is not None and job.client is self and running.dispatcher and running.dispatcher.runs(job.id):
            raise InvalidState(
                "a handler cannot stop its own client: stop() would wait for the handler itself"
            )
        if self.bus.calling:
            raise InvalidState(
                "a listener cannot stop its own client: stop() would wait for the listener itself"
            )
        if not running.task.done():
            running.stop.ask(limit)
            await asyncio.wait([running.task])
        return running.task.result() if running.was_open else True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(self._stop_timeout)

    async def install(self) -> None:
        """Create or migrate the schema, without starting; safe to repeat."""
        await self._make_store().install()

    def observer(self) -> Client:
        """Return another client of the same database, which only looks, and does what it is told to.

        For what shows an application's jobs, such as an admin page: it can be started where this one is not,
        and in another event loop. It knows the same task types, handlers and middleware, has no workers and
        no declared schedules, and installs nothing: a missing or older schema is `DatabaseUnusable` at its
        start. This one is left as it is. `InvalidState` where there is no file to open.
        """
        if not is_file(self._make_store):
            raise InvalidState(
                "observer() needs a database in a file; a store in memory, or one that was given as an"
                " object, is for this client alone: start it, and use it instead"
            )
        other = Client(":memory:", workers=0, install=False, max_payload=self.max_payload, clock=self.clock)
        other._make_store = self._make_store
        other._lease, other._stop_timeout = self._lease, self._stop_timeout
        other.registry = self.registry.seen()
        other.layers = self.layers.copy()
        other.telemetry = self.telemetry.copy(other.bus)
        return other

    async def _serve(self, running: Run) -> bool:
        """Open, run until asked to stop, close: the life of a started client, in one task."""
        store = self._make_store()
        slots = self._workers and 2 * self._workers + UNWRITTEN_LIMIT + MOST
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())  # it names files, too
        name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        owner = Owner(
            id=name,
            beat=self._lease / BEATS_PER_LEASE,
            slots=slots,
            host=host,
            pid=os.getpid(),
            started_at=self.clock.now(),
            workers=self._workers,
        )
        await store.open(install=self._install, owner=owner, gone=running.somebody_gone)
        clean = True
        dispatcher = None
        try:
            self.schedules.declarations.begin()
            await self.schedules.declarations.reconcile(store, self.clock, owner.id)
            if self._workers:
                dispatcher = running.dispatcher = Dispatcher(
                    self,
                    store,
                    self.registry,
                    clock=self.clock,
                    rng=self._random,
                    owner=owner.id,
                    workers=self._workers,
                    threads=self._threads,
                    lease=self._lease,
                    stop=running.stop,
                    unending=self._unending,
                )
                running.owner = owner.id
                store.handles(owner.id, self.registry.hands(self._threads))
            self._declared.clear()
            store.listen(self.rung)
            self.waits.begin()
            running.waiting = asyncio.ensure_future(self.waits.run(store, owner.id))
            self.bus.open()
            running.opened(store)
            log.emit(log.CLIENT_STARTED, owner=owner.id, workers=self._workers)
            for hazard in store.hazards():
                log.emit(log.STORE_HAZARD, hazard=hazard)
            if dispatcher is None:
                await running.stop.wait()
            else:
                clean = await dispatcher.run()
        finally:
            store.unlisten(self.rung)
            self.waits.close()
            if running.waiting is not None and not await running.stop.outlast(
                [running.waiting], grace=WRITE_GRACE
            ):
                store.abandon()
                await running.stop.outlast([running.waiting])
            await self.bus.close(running.stop)
            closing = await running.close(store)
        closing.result()
        log.emit(log.CLIENT_STOPPED, owner=owner.id, clean=clean)
        return clean

    # -- handlers ----------------------------------------------------------------------------------

    @overload
    def register(self, task_type: type[T], handler: Callable[[T], object]) -> None: ...
    @overload
    def register(self, task_type: type[T], handler: Callable[[T, JobContext], object]) -> None: ...
    def register(self, task_type: type[T], handler: Callable[..., object]) -> None:
        """Run tasks of a type with this function, `async def` or `def`, with or without `job`.

        A second handler for a task type raises `AlreadyRegistered`; one that takes another type
        raises `InvalidType`. Neither changes anything.
        """
        self.registry.register(task_type, handler)
        self._tell_kinds()
        self._wake()

    def handler(self, task_type: type[T]) -> _Decorator[T]:
        """Register the decorated function as the handler of a task type.

        Raises as `register` does, and `InvalidTask` at once for what is no task type.
        """
        self.registry.check(task_type)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            self.register(task_type, function)
            return function

        return decorate

    # -- hooks -------------------------------------------------------------------------------------

    @overload
    def middleware(self, function: M, /) -> M: ...
    @overload
    def middleware(self, /, *, queue: str | None = None) -> Callable[[M], M]: ...
    def middleware(self, function: M | None = None, /, *, queue: str | None = None) -> M | Callable[[M], M]:
        """Put the decorated function around each attempt, of all queues or one, and return it as it is.

        `async def around(job, task, call_next)` runs in the event loop, within the attempt's timeout. It
        returns `await call_next(job, task)`, the handler's value, or something else; may give another
        task; and need not call it, or may do so again. What it raises is the attempt's error. The first
        that was registered is the outermost. Attempts that have begun go on as they are.
        """
        decorate = self.layers.decorator(queue)
        return decorate if function is None else decorate(function)

    def on(self, kind: EventKind, *, queue: str | None = None) -> Callable[[L], L]:
        """Call the decorated function with every `Event` of a kind, of all queues or one.

        `async def listener(event)`, or `def`, which runs in a worker thread. Listeners are told of what
        this client does, not others, one after the other and once it is stored; what they raise is
        logged and changes nothing. If 10,000 events wait for them, the oldest are dropped, and logged.
        `stop()` waits for them within its limit.
        """
        return self.bus.decorator(kind, queue)

    def events(self, *, queue: str | None = None, limit: int = 1000) -> Events:
        """Return the same as a stream, `async for event in client.events()`, from now until the client stops.

        If more than `limit` events wait in it, the oldest are dropped and counted in its `missed`.
        """
        return self.bus.stream(queue, _whole("limit", limit, 1, 1_000_000))

    async def run(
        self,
        task: msgspec.Struct,
        *,
        previous: Any = NOTHING_GIVEN,
        results: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the handler of a task here and now, with middleware and timeout; return what it returns.

        Nothing is stored, told or counted, and the client need not be started. The task is encoded and
        decoded as on its way through the database. Raises what the handler raises, also `Retry`, `Snooze`
        and `Discard`; `TimeoutError` beyond the queue's timeout; `InvalidState` without a handler.

        `previous`, `results`: what `job.previous()` and `job.results()` are to return, to try the handler of
        a step; what it adds by `job.extend()` is then checked and dropped.
        """
        return await run(self, task, given(previous, results))

    # -- adding and asking -------------------------------------------------------------------------

    def add(self, *parts: msgspec.Struct | Chain | Group | Workflow) -> AddOperation:
        """Start an operation that adds jobs and workflows: `await client.add(task, ...).save()`."""
        return AddOperation(self, parts)

    def schedule(
        self,
        name: str,
        task: msgspec.Struct,
        *,
        cron: str | None = None,
        every: Duration | None = None,
        rule: str | Rule | None = None,
        at: Iterable[datetime] | None = None,
        tz: str = "UTC",
        start: datetime | None = None,
        end: datetime | None = None,
        max_runs: int | None = None,
        missed: Missed = "one",
        overlap: bool = True,
        jitter: Duration | None = None,
    ) -> ScheduleOperation:
        """Add a task again and again, when it is due: one job for each instant, whatever runs or dies.

        Before `start()` it is a declaration: at every start, schedules are made as the code says, and those
        that it says no longer are removed. Afterwards, `await` it: it makes a schedule, or changes the one of
        this name, at run time. One of these says when:

        - `cron`: five fields, or "@daily" and its like; needs `pip install backlite_async[cron]`.
        - `every`: seconds or a timedelta, counted from `start`, or from when it was made.
        - `rule`: a `Rule`, or a recurrence rule of RFC 5545, "FREQ=WEEKLY;BYDAY=MO,WE"; needs the same.
        - `at`: aware datetimes.

        `tz`: an IANA name, in whose time that is meant. Nothing is due before `start` or after `end`. At most
        `max_runs` are added. `missed`: of the runs that were due while nobody watched, add the last "one",
        "all", or "none". `overlap=False`: none while the last one has not finished. `jitter`: each starts
        later, by up to so many seconds. Wrong values raise here.
        """
        times = Times(cron=cron, every=every, rule=rule, at=at, tz=tz, start=start, end=end)
        said = Said(**times, max_runs=max_runs, missed=missed, overlap=overlap, jitter=jitter)
        return self.schedules.operation(name, task, said)

    def notify(self) -> None:
        """Wake the dispatcher; never needed in normal use."""
        if self._running is not None and self._running.dispatcher is not None:
            self._running.dispatcher.look()

    async def status(self, job_id: str) -> JobStatus:
        """Return where a job or workflow is in its life; `NOT_FOUND` also once it is no longer retained."""
        return await self.open_store().status(checked_id("status", job_id), now=self.clock.now())

    async def get(self, job_id: str) -> Job | None:
        """Return a job's whole record; None if there is none, or none any more."""
        return await self.open_store().get(checked_id("get", job_id), now=self.clock.now())

    async def workflow(self, workflow_id: str) -> WorkflowRun | None:
        """Return a workflow with its steps as they are now; None if there is none, or none any more."""
        return await self.workflows.get(workflow_id)

    @overload
    async def wait(self, job_id: WorkflowId, timeout: Duration | None = None) -> WorkflowRun: ...  # type: ignore[overload-overlap]
    @overload
    async def wait(self, job_id: str, timeout: Duration | None = None) -> Job: ...
    async def wait(self, job_id: str, timeout: Duration | None = None) -> Any:
        """Return a job as soon as it has ended, however it has ended, in whichever process.

        Raises `TimeoutError` if that takes longer than `timeout` seconds, `JobNotFound` if there is no such
        job, or it has ended and its queue keeps nothing: one waits before that. While somebody waits, such a
        job is kept for a minute, without its payload; its result too if it ends in this client.

        Given the id of a workflow, it returns that: a `WorkflowRun`. Type checkers know that of `.id` of what
        was added; of an id that is a plain str, write `client.workflows.wait(id)`.
        """
        return await wait_for(self, job_id, timeout)

    @overload
    async def result(self, job_id: str) -> Any: ...
    @overload
    async def result(self, job_id: str, type: type[V]) -> V: ...
    async def result(self, job_id: str, type: Any = None) -> Any:  # noqa: A002 - the name is promised
        """Return what the handler of a job returned, as `type` if one is given.

        Raises a `LookupError`: `JobNotFound`, or `ResultNotFound`, which says why there is none; and
        `PayloadError` if it is of another type.
        """
        return await result_of(self, checked_id("result", job_id), type)

    # -- control -----------------------------------------------------------------------------------

    async def cancel(self, *job_ids: str) -> int:
        """Cancel jobs, or all jobs of workflows; return how many have ended by it, or were asked to.

        A pending job becomes `CANCELLED` at once. A running one is cancelled through its scope, in
        whichever process it runs, and may clean up: `CANCELLED` once its handler has raised; where it
        returns all the same, its job has succeeded. The request is stored: a job whose process dies
        does not run again. A `def` handler's thread cannot be stopped, it is asked: it must look at
        `job.cancelled`. Ids of jobs that have completed, and unknown ones, are passed over.
        """
        for job_id in job_ids:
            if not isinstance(job_id, str):
                raise InvalidType(f"cancel() takes ids of jobs, which are str, not {job_id!r}")
        if not job_ids:
            return 0
        check_outside_block(self)
        await self.declare_queues()  # which says how pending ones are kept
        ids = list(dict.fromkeys(job_ids))
        known = {}  # of what ends by it nothing may be kept
        if "cancelled" in self.bus.heard:
            known = {job_id: job for job_id in ids if (job := await self.get(job_id)) is not None}
        done = await self.open_store().cancel(ids, now=self.clock.now())
        for job_id in done.ended:
            log.emit(log.JOB_CANCELLED, job_id=job_id)
            if job := known.get(job_id):
                self.bus.tell("cancelled", **naming(job), error=CANCELLED)
        self.rung()
        return len(done.ended) + len(done.asked)

    async def pause(self, queue: str, *, wait: bool = False, here: bool = False) -> None:
        """Start nothing more of a queue, in all processes, until `resume`; running jobs go on.

        It is stored, so it outlives restarts. `here=True`: in this client alone, and not stored.
        `wait=True` returns once no job of the queue runs any more, in any process (with `here`: here).
        """
        name = checked_name(queue)
        store = self.open_store()
        job = running_job.get(None)
        if wait and job is not None and job.queue == name and job.client is self:
            raise InvalidState(
                f"a job of queue {name!r} that waits until none of that queue runs waits for ever"
            )
        if here:
            self.registry.pause(name)
            self._tell_kinds()
            if self._dispatcher is not None:
                self._dispatcher.pause_here()
        else:
            check_outside_block(self)
            await store.pause(name, now=self.clock.now())
            self.rung()
        if wait:
            await self._rest(store, name, here=here)

    async def resume(self, queue: str, *, here: bool = False) -> None:
        """Undo `pause`, everywhere; with `here=True` only that of this client."""
        name = checked_name(queue)
        store = self.open_store()
        if not here:
            check_outside_block(self)
        self.registry.resume(name)
        self._tell_kinds()
        if self._dispatcher is not None:
            self._dispatcher.pause_here()
        if not here:
            await store.resume(name)
            self.rung()

    async def _rest(self, store: Store, queue: str, *, here: bool) -> None:
        """Wait until nothing of a queue runs."""
        event = asyncio.Event()
        self._waiting_for_news.add(event)
        try:
            while True:
                event.clear()
                if here:
                    runs = self._dispatcher is not None and self._dispatcher.holds(queue)
                else:
                    runs = await store.running(queue) > 0
                if not runs:
                    return
                timer = asyncio.get_running_loop().call_later(REST_LOOK, event.set)
                try:
                    await event.wait()
                finally:
                    timer.cancel()
        finally:
            self._waiting_for_news.discard(event)

    async def health(self, *, within: Duration = 5.0) -> HealthReport:
        """Return how this client is doing, for a probe; it raises nothing, and can be asked at any time.

        `within`: seconds that the database has to answer. `(await client.health()).ok(max_lag=60)` decides.
        """
        return await checkup(self, seconds("within", within))

    async def backup(self, path: str | PathLike[str]) -> None:
        """Copy the whole database, the application's tables too, to a new file, while it is in use.

        The copy is the database at one instant: every job that was acknowledged before is in it.
        Jobs that run at that instant are pending in the copy. It appears under its name when it is
        whole and synced. Raises `InvalidValue` if there is something at `path` already or its
        folder does not exist, `DatabaseUnusable` or `DatabaseUnavailable` if it cannot be written,
        `InvalidState` for a store that keeps nothing.
        """
        await self.open_store().backup(os.path.abspath(os.fspath(path)))

    async def vacuum(self) -> None:
        """Build the database file anew, so that it no longer has the room of what was deleted.

        Others may read meanwhile; whoever writes, here and in other processes, waits, and gives up as if the
        file were locked: do it in a quiet hour, it takes seconds for each gigabyte, and as much disk again.
        Raises `DatabaseBusy` if somebody keeps a transaction open, `DatabaseUnavailable` if the disk is full.
        Where there is no file, it does nothing.
        """
        check_outside_block(self)
        await self.open_store().vacuum()

    async def schema(self) -> tuple[int, int]:
        """Return the version of the database's schema, 0 if there is none, and the newest one known here.

        The client need not be started; nothing is installed.
        """
        return await self._make_store().versions()

    async def doctor(self, *, late: Duration = 60.0) -> Sequence[Finding]:
        """Look for what is wrong with the database and its jobs; return what was found, with what to do.

        The client need not be started, and the schema may be missing, older or newer. Nothing is changed.
        `late`: for how many seconds a job may be due and unclaimed where there is room for it; that is looked
        at twice, a moment apart. The codes:
        `sqlite_affected`, `network_file_system`, `not_wal`, `wal_grown`, `schema_missing`, `schema_older`,
        `schema_newer`; of a current schema `lease_of_dead_owner`, `queue_unhandled`, `due_unclaimed`.
        Raises `DatabaseUnusable` for what is no database.
        """
        return await examine(self, self._make_store(), whole_millis(seconds("late", late)))

    # -- for the parts of the library --------------------------------------------------------------

    def open_store(self) -> Store:
        """Return the open store, or raise `InvalidState`."""
        running = self._running
        if running is not None:
            running.check_process()
            if running.dispatcher is not None and running.dispatcher.lost is not None:
                raise running.dispatcher.lost
        if running is None or running.store is None or running.over:
            raise InvalidState(
                "this client is not started; use it inside 'async with client:' or after start()"
            )
        self._check_loop(running)
        return running.store

    @property
    def installs(self) -> bool:
        """Whether it creates or migrates the schema where it starts."""
        return self._install

    @property
    def is_open(self) -> bool:
        """Whether it has started, and not ended."""
        running = self._running
        return running is not None and running.store is not None and not running.over

    @property
    def is_open_here(self) -> bool:
        """Whether it is open, and in the event loop that runs here."""
        running = self._running
        return self.is_open and running is not None and running.loop is asyncio.get_running_loop()

    @property
    def workers(self) -> int:
        """How many jobs it can run at once; another number counts from the next start on."""
        return self._workers

    @workers.setter
    def workers(self, number: int) -> None:
        self._workers = _whole("workers", number, 0, 10_000)

    @property
    def busy(self) -> int:
        """How many of its workers run a job."""
        return 0 if self._dispatcher is None else self._dispatcher.busy

    @property
    def dispatches(self) -> bool:
        """Whether it claims jobs."""
        return self._dispatcher is not None and self._dispatcher.claims

    def check_connection(self, connection: object) -> None:
        """Raise unless `.tx()` can take this connection."""
        self._make_store().check_connection(connection)

    @property
    def _dispatcher(self) -> Dispatcher | None:
        return None if self._running is None or self._running.over else self._running.dispatcher

    def rung(self) -> None:
        """Look for jobs and orders."""
        if self._running is not None and self._running.dispatcher is not None:
            self._running.dispatcher.rung()
        self.news()

    def news(self) -> None:
        """Wake whoever waits for something to change."""
        for event in self._waiting_for_news:
            event.set()
        self.waits.look()

    @property
    def undeclared(self) -> bool:
        """Whether task types were met that are not declared."""
        return len(self.registry.types) > len(self._declared)

    async def declare_queues(self) -> None:
        """Store what others are to know of the queues and task types that were met, once each."""
        if self.undeclared:
            types = dict(self.registry.types)
            queues = dict.fromkeys(queue for queue, name in types.keys() - self._declared)
            new = [
                declaration([kind for (name, _), kind in types.items() if name == queue]) for queue in queues
            ]
            await self.open_store().declare(new, now=self.clock.now())
            self._declared.update(types)

    def _tell_kinds(self) -> None:
        """Let others know which kinds of jobs are run here."""
        if self._dispatcher is not None and self._running is not None and self._running.store is not None:
            self._running.store.handles(self._running.owner, self.registry.hands(self._threads))

    def _wake(self) -> None:
        if self._running is not None and self._running.dispatcher is not None:
            self._running.dispatcher.wake()

    def adding(self, jobs: list[NewJob]) -> None:
        """Have jobs that are due claimed in the transaction that adds them, if there are workers for them."""
        first = jobs[0]
        if first.due_at <= first.created_at and self.registry.find(first.queue, first.task):
            self._wake()

    def added(self, jobs: list[NewJob]) -> None:
        """Take note of jobs that were added here."""
        if log.heard(log.JOB_ADDED):
            for job in jobs:
                log.emit(log.JOB_ADDED, job_id=job.id, queue=job.queue, task=job.task)
        if self.bus.heard:
            self.bus.added(jobs)
        dispatcher = self._running.dispatcher if self._running is not None else None
        if dispatcher is not None:
            for queue, task in dict.fromkeys((job.queue, job.task) for job in jobs):
                dispatcher.seen(queue, task)

    def _check_loop(self, running: Run) -> None:
        if asyncio.get_running_loop() is not running.loop:
            raise InvalidState(
                "this client was started in another event loop; give each loop a Client of its own"
            )


def _whole(name: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidType(f"{name}={value!r} must be a whole number")
    if not least <= value <= most:
        raise InvalidValue(f"{name}={value!r} must lie between {least:,} and {most:,}")
    return value
