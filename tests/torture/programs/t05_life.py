"""The life of an application whose writes or syncs fail, once or for good, until the fault is gone.

It takes the database and the ledger, a file to which it appends what it knows and when: `try`, then `ack`,
`did` or `refused` for each save and each order (those also note `pausing`, `paused`, `resuming`, `resumed`,
`cancelling`, `cancelled` and `replaced`, and the next process which queues it has `found` paused), `start`
and `end` of each execution, a `cause` before it makes the library run a job again, and `told` when the
library has logged that a job is complete. It says "tried" once it has tried everything, and waits for a
line: "go", the fault is gone, or "stop", in spite of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import aiosqlite

sys.path.append(str(Path(__file__).parents[3]))  # the checkout; the library may be another copy

from backlite_async import (
    AddOperation,
    BackliteError,
    Client,
    JobContext,
    QueueConfig,
    Rate,
    Retention,
    Task,
)
from tests.torture.looked import Looked

STOP_LIMIT = 30.0


class Kept(Task):
    """Succeeds; at the second attempt, if it says so."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "kept", max_attempts=3, max_crashes=20, backoff=0.002, retention=Retention()
    )
    name: str
    twice: bool = False


class Effect(Task):
    """Succeeds in a transaction, together with its effect, or fails."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "effect", max_attempts=3, max_crashes=20, backoff=0.002, retention=Retention()
    )
    name: str = "effect"


class Other(Task):
    """Has no handler."""

    config: ClassVar[QueueConfig] = QueueConfig("other", retention=Retention())


class Brief(Task):
    """Leaves its record for a moment, so that it has to be removed."""

    config: ClassVar[QueueConfig] = QueueConfig("brief", max_crashes=20, retention=Retention(duration=0.01))
    name: str


class Paused(Task):
    """Is added while its queue is paused; there is only one."""

    config: ClassVar[QueueConfig] = QueueConfig("paused", max_crashes=20, retention=Retention())
    name: str
    version: int = 0


class Turn(Task):
    """One of a key at a time."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "turns", max_crashes=20, backoff=0.002, retention=Retention(), concurrency_per_key=1
    )
    name: str
    twice: bool = False


class Rated(Task):
    """Not more than two starts in a time."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "rated", max_crashes=20, retention=Retention(), rate=Rate(2, per=0.04)
    )
    name: str


class Dropped(Task):
    """Is cancelled; has no handler but where a process has died before."""

    config: ClassVar[QueueConfig] = QueueConfig("dropped", max_crashes=20, retention=Retention())
    name: str


class Log(logging.Handler):
    """What the library says: which jobs are complete, and whether it has trouble."""

    def __init__(self, application: Application) -> None:
        super().__init__()
        self._application = application
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.complete: set[str] = set()
        self.trouble: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a line."""
        event, *words = record.getMessage().split()
        fields = dict(word.split("=", 1) for word in words if "=" in word)
        if event in ("job.succeeded", "job.failed"):
            self._application.note("told", job=fields["job_id"])
            self.complete.add(fields["job_id"])
        elif event in ("job.retried", "job.given_back"):
            self._application.note("told again", job=fields["job_id"])
        elif event in ("job.lease_lost", "job.unwritable"):
            self._application.note("surprise", line=record.getMessage())
        elif event == "store.failing":
            self._application.note("trouble", line=record.getMessage())
            self.trouble.add(record.getMessage().split("doing=")[1].split(" error=")[0])
        elif event == "store.recovered":
            self.trouble.discard(record.getMessage().split("doing=")[1])
        self._loop.call_soon_threadsafe(self._changed.set)

    async def all_complete(self, ids: set[str], *, or_trouble: bool = False) -> None:
        """Wait until these jobs are complete, or the library says that it has trouble."""
        while not (ids <= self.complete or (or_trouble and self.trouble)):
            self._changed.clear()
            await self._changed.wait()


def promised(ledger: str) -> set[str]:
    """Return the jobs that other processes have been promised."""
    if not os.path.exists(ledger):
        return set()
    with open(ledger) as lines:
        return {event["job"] for event in map(json.loads, lines) if event["what"] == "ack"}


class Application:
    """A client with handlers, the ledger, and operations that were refused."""

    def __init__(self, database: str, ledger: str, durability: Literal["full", "normal"] = "full") -> None:
        self._file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.database = database
        self._clock = Looked()
        self.client = Client(database, workers=3, lease=15.0, durability=durability, clock=self._clock)
        self.client.register(Kept, self.handle)
        self.client.register(Effect, self.handle_effect)
        self.client.register(Brief, self.handle_brief)
        self.client.register(Turn, self.handle)
        self.client.register(Rated, self.handle)
        self.client.register(Paused, self.handle)
        self.log = Log(self)
        logger = logging.getLogger("backlite_async")
        logger.addHandler(self.log)
        logger.setLevel(logging.INFO)
        self._tries = 0
        self.staying: asyncio.Barrier | None = None
        self.refused: list[AddOperation] = []
        self.unheeded: list[Callable[[], Awaitable[bool]]] = []  # in their order
        self.acknowledged = promised(ledger)

    def note(self, what: str, **fields: Any) -> None:
        """Append to the ledger, in one write."""
        line = {"what": what, "pid": os.getpid(), "at": time.monotonic(), "wall": time.time(), **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    async def start(self) -> bool:
        """Start the client; return whether it could."""
        try:
            await self.client.start()
        except BackliteError as error:
            self.note("refused", error=repr(error))
            return False
        return True

    async def stop(self, limit: float) -> None:
        """Stop the client, and take note how."""
        began = time.monotonic()
        clean = await self.client.stop(limit)
        self.note("stopped", clean=clean, over=time.monotonic() - began - limit)

    async def save(self, operation: AddOperation) -> list[str]:
        """Save an operation, or keep it for later."""
        number = self.begin_try()
        try:
            ids = await operation.save()
        except BackliteError as error:
            self.note("refused", error=repr(error))
            self.refused.append(operation)
            return []
        if ids.existing:  # nothing new is promised; nor written, if it is not pending any more
            self.acknowledged.update(ids)
        else:
            self.acknowledge(number, ids)
        return ids

    async def order(
        self, call: Callable[[], Awaitable[object]], about: str, done: str, **fields: str
    ) -> bool:
        """Give an order; return whether it is done.

        One that may change nothing, as others before it were refused, needs no sync.
        """
        changes = not self.unheeded
        number = self.begin_try()
        self.note(about, **fields)
        try:
            await call()
        except BackliteError as error:
            self.note("refused", error=repr(error))
            return False
        if changes:
            self.note("did", number=number, order=done)
        self.note(done, **fields)
        return True

    async def insist(self, order: Callable[[], Awaitable[bool]]) -> bool:
        """Give an order, or keep it for later; return whether it is done."""
        done = await order()
        if not done:
            self.unheeded.append(order)
        return done

    async def control(self) -> None:
        """Pause, add what is unique, replace it, resume; cancel what nobody can run; let keys take turns."""
        add, queue = self.client.add, "paused"
        paused = await self.insist(
            lambda: self.order(lambda: self.client.pause(queue), "pausing", "paused", queue=queue)
        )
        first = await self.save(add(Paused("p 0")).unique("p", within=3600))
        again = add(Paused("p 1", version=1)).unique("p", 3600, "replace")
        replaced = await self.save(again)
        if paused and first and replaced == first:
            self.note("did", number=self._tries, order="replaced")
            self.note("replaced", job=first[0], version=1)
        if await self.save(add(Dropped("dropped")).id("dropped")):
            await self.insist(self.drop)
        else:
            self.unheeded.append(self.drop)
        await self.save(add(*[Turn(f"turn {n}", twice=n == 1) for n in range(3)]).key("k"))
        await self.save(add(*[Rated(f"rated {n}") for n in range(3)]))

        async def resume() -> bool:
            return await self.order(lambda: self.client.resume(queue), "resuming", "resumed", queue=queue)

        if await self.insist(resume) and not paused:  # it will be
            self.unheeded.append(resume)

    async def drop(self) -> bool:
        """Cancel the job that nobody can run."""
        done = await self.order(
            lambda: self.client.cancel("dropped"), "cancelling", "cancelled", job="dropped"
        )
        if done:
            self.log.complete.add("dropped")
        return done

    def begin_try(self) -> int:
        """Take note that something is about to be promised; return the number of this try."""
        self._tries += 1
        self.note("try", number=self._tries)
        return self._tries

    def acknowledge(self, number: int, ids: list[str]) -> None:
        """Take note of what is promised from now on."""
        self.acknowledged.update(ids)
        for job_id in ids:
            self.note("ack", number=number, job=job_id)

    async def transact(self) -> None:
        """Add a job in a transaction of the application; if that fails, it is the application's to know."""
        try:
            async with aiosqlite.connect(self.database, isolation_level=None) as connection:
                await connection.execute("BEGIN IMMEDIATE")
                ids = await self.client.add(Kept("within")).tx(connection).save()
                number = self.begin_try()
                await connection.execute("COMMIT")
                self.acknowledge(number, ids)
        except (BackliteError, sqlite3.Error) as error:
            self.note("refused", error=repr(error))

    def begin(self, task: Any, job: JobContext) -> None:
        """Take note that an execution begins."""
        fields = {"name": task.name, "version": getattr(task, "version", 0), "plan": ""}
        where = {"queue": job.queue, "key": job.key or "", "late": self._clock.late()}
        self.note("start", job=job.id, fence=job.fence, attempt=job.attempt, **fields, **where)

    async def handle(self, task: Any, job: JobContext) -> None:
        """Succeed, perhaps the second time."""
        self.begin(task, job)
        if self.staying:
            await self.staying.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        if getattr(task, "twice", False) and job.attempt == 1:
            self.note("cause", job=job.id, why="raised")
            raise ValueError(task.name)
        self.note("end", job=job.id, fence=job.fence)

    async def handle_effect(self, task: Effect, job: JobContext) -> None:
        """Succeed together with the effect. What is raised makes it run again, or was the last try."""
        self.begin(task, job)
        try:
            async with job.transaction() as connection:
                await connection.execute("INSERT INTO effects VALUES (?)", (job.id,))
                self.note("end", job=job.id, fence=job.fence)
        except (BackliteError, sqlite3.Error) as error:
            self.note("cause", job=job.id, why=repr(error))
            raise

    async def handle_brief(self, task: Brief, job: JobContext) -> None:
        """Succeed."""
        self.begin(task, job)
        self.note("end", job=job.id, fence=job.fence, bare=True)

    async def try_all(self) -> None:
        """Do each thing once, and look what becomes of it until it is done or trouble is reported."""
        add = self.client.add
        await self.log.all_complete(self.acknowledged, or_trouble=True)
        await self.save(add(Kept("alone")))
        await self.log.all_complete(self.acknowledged, or_trouble=True)
        await self.save(add(*[Kept(f"batch {number}", twice=number == 1) for number in range(3)]))
        await self.log.all_complete(self.acknowledged, or_trouble=True)
        await asyncio.gather(
            self.save(add(Brief("brief"))), *[self.save(add(Kept(f"{n}"))) for n in range(3)]
        )
        await self.save(add(Effect()))
        await self.log.all_complete(self.acknowledged, or_trouble=True)
        await self.transact()
        await self.log.all_complete(self.acknowledged, or_trouble=True)
        await self.control()
        if not self.unheeded:  # else some have to wait until it is heeded
            await self.log.all_complete(self.acknowledged, or_trouble=True)

    async def over(self) -> None:
        """Wait until everything that was promised is done."""
        await self.log.all_complete(self.acknowledged)

    async def make_good(self) -> None:
        """Save what was refused before, as often as it takes."""
        while self.refused:
            operation = self.refused.pop()
            await self.save(operation)
            if operation in self.refused:
                await asyncio.sleep(0.02)
        while self.unheeded:
            if await self.unheeded[0]():
                del self.unheeded[0]
            else:
                await asyncio.sleep(0.02)


async def live(database: str, ledger: str) -> None:
    """Try everything; once the fault is gone, do what is still to do, and stop in good order."""
    await through(Application(database, ledger))


async def careless(database: str, ledger: str) -> None:
    """Do the same without syncs: a promise that is not kept."""
    await through(Application(database, ledger, "normal"))


async def stranded(database: str, ledger: str) -> None:
    """Do the same, and add what nobody can run: that does not end."""
    await through(Application(database, ledger), Kept("last"), Other())


async def through(app: Application, *last: Task) -> None:
    """Live: before the fault is gone, and after."""
    started = await app.start()
    if started:
        await app.try_all()
    os.write(1, b'{"said": "tried"}\n')
    if await asyncio.to_thread(os.read, 0, 10) == b"stop\n":
        await app.stop(0.1)
        return
    app.note("free")
    while not started:
        started = await app.start()
    await app.make_good()
    await app.over()  # what was held up goes on by itself
    await app.save(app.client.add(*(last or [Kept("last")])))
    await app.over()
    app.note("drained")
    await app.stop(STOP_LIMIT)


async def recover(database: str, ledger: str) -> None:
    """Begin after a death, and be done with everything."""
    app = Application(database, ledger)
    app.note("free")
    app.client.register(Dropped, app.handle)
    async with app.client:
        paused = [queue.name for queue in await app.client.queues.list() if queue.paused]
        app.note("found", paused=paused)
        for queue in paused:
            app.note("resuming", queue=queue)
            await app.client.resume(queue)
        await app.save(app.client.add(Kept("last")))
        await drained(database)
        app.note("drained")


async def drained(database: str) -> None:
    """Wait until no job is left."""
    connection = sqlite3.connect(database)
    while connection.execute("SELECT count(*) FROM backlite_jobs").fetchall()[0][0]:
        await asyncio.sleep(0.005)
    connection.close()


async def made_empty(database: str, ledger: str) -> None:
    """Leave a database with our schema and a table of the application."""
    await Application(database, ledger).client.install()
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE effects (job TEXT NOT NULL)")
    connection.commit()
    connection.close()


async def made_left(database: str, ledger: str) -> None:
    """Die while jobs run."""
    await made_empty(database, ledger)
    app = Application(database, ledger)
    await app.start()
    app.staying = asyncio.Barrier(3)
    await app.save(app.client.add(Kept("left 1"), Kept("left 2")))
    await app.staying.wait()
    await asyncio.Event().wait()


async def rehearse(database: str, ledger: str) -> None:
    """Use what lives use."""
    await made_empty(database, ledger)
    app = Application(database, ledger)
    async with app.client:
        await app.try_all()
