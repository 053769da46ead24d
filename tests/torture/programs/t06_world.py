"""One sweep's files: what was added, what was acknowledged, what ran, and what must hold in between."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, ClassVar

from backlite_async import Client, Discard, JobContext, QueueConfig, Retention, Retry, Task
from tests.torture.kit import intact
from tests.torture.programs.t06_steps import SteppingLoop

__all__ = [
    "EXTENSION",
    "LIMIT",
    "PARTS",
    "SOON",
    "Effect",
    "Held",
    "Mark",
    "Recurring",
    "Step",
    "Turn",
    "World",
]

PARTS = 3
"""Jobs in one operation: all of them are there, or none."""

LIMIT = 60.0
"""Seconds after which something has hung."""

SOON = 10.0
"""Seconds within which jobs that are there have run, with nobody giving a hint, and what ends has ended."""

LOCK_LIMIT = 0.1
"""Seconds within which another connection must get the write lock."""

EXTENSION = 6
"""The part of a workflow that another one adds."""

PROBES = 50
"""Limits after which a lock is not late, but left."""

HASTE = 10
"""By how much less is waited for anything once there is a problem: then it is no longer to be ruled out."""


class Mark(Task):
    """One job of an operation."""

    config: ClassVar[QueueConfig] = QueueConfig("marks", retention=Retention(payload="always"))
    call: int
    part: int = 0


class Held(Task):
    """A job that runs until it is told to end, or cancelled."""

    config: ClassVar[QueueConfig] = QueueConfig("held", retention=Retention(payload="always"))
    call: int
    part: int = 0


class Turn(Task):
    """One of a key at a time."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "turns", retention=Retention(payload="always"), concurrency_per_key=1
    )
    call: int
    part: int = 0


class Effect(Task):
    """A job that writes into a table of ours, and adds more jobs, in one transaction with its end."""

    config: ClassVar[QueueConfig] = QueueConfig("effects", retention=Retention(payload="always"))
    call: int
    part: int = 0


class Step(Task):
    """A step of a workflow: its part of it, and of which parts it may have been told, one list or another."""

    config: ClassVar[QueueConfig] = QueueConfig("steps", retention=Retention(payload="always"))
    call: int
    part: int
    told: list[list[int]] = []


class Recurring(Task):
    """What a schedule adds."""

    config: ClassVar[QueueConfig] = QueueConfig("recurring", retention=Retention(payload="always"))
    call: int
    version: int = 0


UNWANTED = ("job.lease_lost", "job.unwritable", "store.failing", "job.crashed", "schedule.troubled")
"""Events that no cancellation explains."""


class Listener(logging.Handler):
    """Takes note of log events that must not be."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one line."""
        if record.getMessage().startswith(UNWANTED):
            self._world.problem(f"logged {record.getMessage()}")


class World:
    """One sweep's files and findings."""

    def __init__(self, loop: SteppingLoop, folder: str) -> None:
        self.loop = loop
        self.folder = folder
        self.calls = 0
        self.acknowledged: set[int] = set()
        self.cancelled: set[int] = set()
        self.ran: Counter[tuple[int, int]] = Counter()
        self.cut: Counter[tuple[int, int]] = Counter()  # runs that a stop cut short: each explains one more
        self.problems: list[str] = []
        self.lost = self.doubles = self.late_locks = self.leaks = self.corrupt = 0
        self.worst_lock = 0.0
        self.where = ""
        self.release = asyncio.Event()
        self.started = asyncio.Event()
        self.file = os.path.join(folder, "app.db")
        self._files = 0
        self.failing: set[tuple[int, int]] = set()  # steps that fail
        self.holding: set[tuple[int, int]] = set()  # steps that do not end before they are told to
        self.extending: set[tuple[int, int]] = set()  # steps that end in a transaction
        self.runs: Counter[tuple[int, str, int]] = Counter()  # of schedules: call, job, version
        self.guards: dict[int, Callable[[Callable[[], Awaitable[None]]], Awaitable[bool]]] = {}
        log = logging.getLogger("backlite_async")
        log.handlers[:] = [Listener(self)]
        log.propagate = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._threads: set[threading.Thread] = set()

    def begin_file(self) -> None:
        """Go on with a new file, in which there is nothing yet."""
        self._files += 1
        self.file = os.path.join(self.folder, f"app{self._files}.db")
        self.acknowledged.clear()
        self.ran.clear()
        self.calls = 0

    def problem(self, what: str) -> None:
        """Take note of something that must not be."""
        self.problems.append(f"{self.where}: {what}")

    def require(self, held: bool, what: str) -> None:
        """Take note of something that must be."""
        if not held:
            self.problem(what)

    def client(self, workers: int, **options: Any) -> Client:
        """Return a client of the file, with handlers that keep count."""
        client = Client(self.file, workers=workers, **options)
        client.register(Mark, self._mark)
        client.register(Turn, self._mark)
        client.register(Held, self._held)
        client.register(Effect, self._effect)
        client.register(Step, self._step)
        client.register(Recurring, self._recurring)
        return client

    async def _mark(self, task: Mark | Turn) -> None:
        self.ran[task.call, task.part] += 1

    async def _held(self, task: Held) -> None:
        self.ran[task.call, task.part] += 1
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cut[task.call, task.part] += 1
            raise

    async def _effect(self, task: Effect, job: JobContext) -> None:
        self.ran[task.call, task.part] += 1

        async def block() -> None:
            async with job.transaction() as connection:
                await connection.execute("INSERT INTO effects VALUES (?)", (task.call,))
                more = [Mark(task.call, part) for part in range(1, PARTS)]
                await job.client.add(*more).tx(connection).save()

        guard = self.guards.pop(task.call, None)
        if guard is None:
            try:
                await block()
            except asyncio.CancelledError:
                self.cut[task.call, task.part] += 1
                raise
            finally:
                self.release.set()
        elif not await guard(block):
            self.cut[task.call, task.part] += 1
            raise Retry(after=0)

    async def _step(self, task: Step, job: JobContext) -> int:
        """Run a step of a workflow, which is told of all that it waits for, and of nothing else."""
        place = task.call, task.part
        self.ran[place] += 1
        told = sorted((await job.results(int)).values())
        self.require(told in task.told, f"step {place} was told of {told}, not of one of {task.told}")
        if place in self.failing:
            self.cut[place] += 1
            raise Discard(f"step {place}")
        if place in self.holding:
            self.started.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cut[place] += 1
                raise
        if place in self.extending:
            guard = self.guards.pop(task.call, None)
            if guard is None:
                await self._extend(task, job)
            elif not await guard(lambda: self._extend(task, job)):
                self.cut[place] += 1
                raise Retry(after=0)
        return task.part

    async def _extend(self, task: Step, job: JobContext) -> None:
        """End a step in a transaction with its effect, and with one step more."""
        async with job.transaction() as connection:
            before = await job.previous(int)
            await connection.execute("INSERT INTO notes VALUES (?, ?)", (task.call, before))
            await job.extend(Step(task.call, EXTENSION, [[0, task.part]]))
            job.result = task.part

    async def _recurring(self, task: Recurring, job: JobContext) -> None:
        self.runs[task.call, job.id, task.version] += 1

    def marks(self) -> list[Mark]:
        """Return the tasks of a new operation."""
        self.calls += 1
        return [Mark(self.calls, part) for part in range(PARTS)]

    def acknowledge(self, call: int) -> None:
        """Take note that a save has returned."""
        self.acknowledged.add(call)

    def stored(self, call: int, *, file: str | None = None) -> int:
        """Return how many jobs of an operation another connection sees, completed ones included."""
        sql = (
            "SELECT count(*) FROM (SELECT task, payload FROM backlite_jobs UNION ALL"
            " SELECT task, payload FROM backlite_completed)"
            " WHERE task = 'Mark' AND json_extract(CAST(payload AS TEXT), '$.call') = ?"
        )
        return self.count(sql, call, file=file)

    def count(self, sql: str, *parameters: object, file: str | None = None) -> int:
        """Return a number that another connection finds."""
        with closing(sqlite3.connect(file or self.file)) as other:
            return int(other.execute(sql, parameters).fetchone()[0])

    def check_whole(self, call: int) -> None:
        """An operation is there wholly, or not at all and was not acknowledged."""
        stored, acknowledged = self.stored(call), call in self.acknowledged
        if stored not in ((PARTS,) if acknowledged else (0, PARTS)):
            self.lost += acknowledged
            self.problem(f"{stored} of {PARTS} jobs are there, acknowledged: {acknowledged}")

    def waiting(self) -> int:
        """Return how many jobs have not ended."""
        return self.count("SELECT count(*) FROM backlite_jobs")

    def probe(self) -> None:
        """See that another connection gets the write lock, while our event loop stands still."""
        if not os.path.exists(self.file):
            return
        began = time.perf_counter()
        with closing(sqlite3.connect(self.file, timeout=LOCK_LIMIT, isolation_level=None)) as other:
            for _ in range(PROBES // HASTE if self.problems else PROBES):
                with suppress(sqlite3.OperationalError):
                    other.execute("BEGIN IMMEDIATE")
                    other.execute("ROLLBACK")
                    break
                self.late_locks += 1
            else:
                self.problem("another connection does not get the write lock")
        self.worst_lock = max(self.worst_lock, time.perf_counter() - began)

    def remember(self) -> None:
        """Take note of the tasks and threads that there are."""
        self._tasks, self._threads = asyncio.all_tasks(), set(threading.enumerate())

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Take note of the tasks and threads that there are, until the end of the block."""
        saved = self._tasks, self._threads
        self.remember()
        yield
        self._tasks, self._threads = saved

    async def settled(self) -> None:
        """Wait until there are no other tasks and threads than those remembered."""
        deadline = time.monotonic() + (SOON / HASTE if self.problems else SOON)
        while self._left():
            if time.monotonic() > deadline:
                self.nothing_left()
                self.remember()
                return
            await asyncio.sleep(0.0005)

    def nothing_left(self) -> None:
        """There are no other tasks and threads now than those remembered."""
        if left := self._left():
            self.leaks += 1
            self.problem(f"left behind: {', '.join(left)}")

    def _left(self) -> list[str]:
        tasks = [task.get_name() for task in asyncio.all_tasks() - self._tasks]
        return tasks + [thread.name for thread in set(threading.enumerate()) - self._threads]

    async def until_drained(self, limit: float = SOON) -> bool:
        """Wait until every job has ended; the open client must need no further hint."""
        deadline = time.monotonic() + limit
        while self.waiting():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.002)
        return True

    def left_over(self) -> list[Any]:
        """Return what the database says of jobs that have not ended."""
        sql = "SELECT task, status, attempt, crashes, due_at - created_at, owner FROM backlite_jobs LIMIT 3"
        with closing(sqlite3.connect(self.file)) as other:
            return other.execute(sql).fetchall()

    def make_effects(self) -> None:
        """Make the table for what transactions do."""
        with closing(sqlite3.connect(self.file)) as other:
            other.execute("CREATE TABLE effects (call INTEGER)")

    def check_effects(self) -> None:
        """Every transaction has happened once, with the end of its job."""
        if not self.count("SELECT count(*) FROM sqlite_master WHERE name = 'effects'"):
            return
        rows = self.count("SELECT count(*) FROM effects")
        calls = self.count("SELECT count(DISTINCT call) FROM effects")
        jobs = self.count("SELECT count(*) FROM backlite_completed WHERE task = 'Effect'")
        if not rows == calls == jobs:
            self.doubles += max(0, rows - calls)
            self.problem(f"{jobs} transactions have {rows} effects, {calls} different ones")

    async def drain(self) -> None:
        """Run everything that is left, then compare what ran with what was acknowledged."""
        self.where = f"{self.where.rsplit(',', 1)[0]}, drain"
        self.release.set()
        if not os.path.exists(self.file):
            return
        async with self.client(workers=4):
            self.require(await self.until_drained(LIMIT), f"jobs never end: {self.left_over()}")
        self.check_effects()
        if not intact(self.file):
            self.corrupt += 1
            self.problem("the database is corrupt")
        for call in range(1, self.calls + 1):
            parts = {part for (number, part) in self.ran if number == call}
            self.require(
                not (parts and call in self.cancelled), f"operation {call} was cancelled and has run"
            )
            if call in self.acknowledged and not parts:
                self.lost += 1
                self.problem(f"operation {call} was acknowledged and never ran")
            extra = sum(self.ran[call, part] - 1 - self.cut[call, part] for part in parts)
            if extra > 0:
                self.doubles += extra
                self.problem(f"operation {call} ran {extra} times too often")
