"""Lives of an application that is killed at one of its system calls: each does something else.

Every life takes the database and the ledger, a file to which it appends what it knows: `ack` after
a save, `start` and `end` of each execution, and a `cause` before it makes the library run a job again.
A task tells by its plan what its handler does, so the ledger and the database can be compared with it.
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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import aiosqlite

sys.path.append(str(Path(__file__).parents[3]))  # the checkout; the library may be another copy

from backlite_async import Client, Discard, JobContext, QueueConfig, Retention, Retry, Snooze, Task
from tests.torture.looked import Looked

LEASE = 15.0
SHORT_LEASE = 0.15
SNOOZE = timedelta(milliseconds=20)
KEEP = Retention(payload="always")


class Kept(Task):
    """Leaves its record. Its plan: ok, raise, retry, snooze, discard, fail, slow, long or effect."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "kept", max_attempts=3, max_crashes=20, backoff=0.002, retention=KEEP
    )
    name: str
    plan: str = "ok"
    batch: str = ""  # jobs that were saved together, and how many these were
    size: int = 0
    order: bool = False  # added together with a row of the application
    padding: str = ""
    key: str = ""  # of which only so many run at once
    unique: str = ""  # of which there is one
    version: int = 0  # how often it was replaced


class Timely(Kept):
    """Has a time limit."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "timely", max_attempts=3, max_crashes=20, backoff=0.002, timeout=0.03, retention=KEEP
    )


class Threaded(Kept):
    """Runs in a thread."""

    config: ClassVar[QueueConfig] = QueueConfig("threaded", max_crashes=20, retention=KEEP)


class Bare(Kept):
    """Leaves nothing."""

    config: ClassVar[QueueConfig] = QueueConfig("bare", max_crashes=20)


class Brief(Kept):
    """Leaves its record for a moment."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "brief", max_crashes=20, retention=Retention(duration=0.03, payload="always")
    )


class Other(Kept):
    """Has no handler, unless it is given one."""

    config: ClassVar[QueueConfig] = QueueConfig("other", max_crashes=20, retention=KEEP)


class Expiry(logging.Handler):
    """Sets an event once this many records have been removed."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count
        self.over = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Count what a line says was removed."""
        event, *fields = record.getMessage().split()
        if event == "jobs.expired":
            self.left -= int(fields[0].removeprefix("count="))
            if self.left <= 0:
                self.over.set()


class Application:
    """A client with a handler for each kind of task, and the ledger."""

    def __init__(self, database: str, ledger: str, *, workers: int = 3, lease: float = LEASE) -> None:
        self._clock = Looked()
        self.client = Client(database, workers=workers, lease=lease, clock=self._clock)
        self._file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.staying = 0  # handlers that are not to end
        self.stays = asyncio.Event()
        self._ends = 0
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for kind in (Kept, Timely, Bare, Brief):
            self.client.register(kind, self.handle)
        self.client.register(Threaded, self.handle_in_thread)

    def note(self, what: str, **fields: Any) -> None:
        """Append to the ledger, in one write."""
        line = {"what": what, "pid": os.getpid(), "at": time.monotonic(), **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    async def add(self, *tasks: Task, wait: float = 0.0) -> None:
        """Add jobs, and take note once they are saved."""
        self.acknowledge(await self.client.add(*tasks).wait(wait).save())

    def acknowledge(self, ids: list[str]) -> None:
        """Take note of what is promised from now on."""
        for job_id in ids:
            self.note("ack", job=job_id)

    async def ends(self, count: int) -> None:
        """Wait until so many jobs have run for the last time."""
        while self._ends < count:
            self._ended.clear()
            await self._ended.wait()

    async def handle(self, task: Kept, job: JobContext) -> None:
        """Do what the task's plan says."""
        self.begin(task, job)
        if self.staying:
            await self.stay()
        if task.plan == "long":
            await asyncio.sleep(2 * SHORT_LEASE)
        first = job.attempt == 1
        if task.plan == "snooze" and datetime.now(UTC) < job.created_at + SNOOZE:
            self.again(job, "snoozed")
            raise Snooze(until=job.created_at + SNOOZE)
        if task.plan == "retry" and first:
            self.again(job, "retried")
            raise Retry(after=0)
        if task.plan == "slow" and first:
            self.again(job, "timed out")
            await asyncio.Event().wait()
        if (task.plan == "raise" and first) or (task.plan == "fail" and job.attempt < job.max_attempts):
            self.again(job, "raised")
            raise ValueError(task.name)
        if task.plan == "effect":
            await self.have_effect(task, job)
        self.finish(task, job)
        if task.plan == "fail":
            raise ValueError(task.name)
        if task.plan == "discard":
            raise Discard(task.name)

    async def have_effect(self, task: Kept, job: JobContext) -> None:
        """Write a row and add a job, together with the completion of this one."""
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO effects VALUES (?)", (task.name,))
            await self.client.add(Kept(f"follows {task.name}")).tx(connection).save()

    async def stay(self) -> None:
        """Never end; tell once all that were to stay do."""
        self.staying -= 1
        if not self.staying:
            self.stays.set()
        await asyncio.Event().wait()

    def handle_in_thread(self, task: Threaded, job: JobContext) -> None:
        """Succeed, in a thread."""
        self.begin(task, job)
        self._loop.call_soon_threadsafe(self.finish, task, job)

    def begin(self, task: Kept, job: JobContext) -> None:
        """Take note that an execution begins; `late`: how much more than it may be."""
        late = self._clock.late()
        fields = {
            "late": late,
            "plan": task.plan,
            "batch": task.batch,
            "size": task.size,
            "order": task.order,
        }
        more = {"queue": job.queue, "key": task.key, "version": task.version}
        self.note("start", job=job.id, fence=job.fence, attempt=job.attempt, name=task.name, **fields, **more)

    def again(self, job: JobContext, why: str) -> None:
        """Take note that the job is to run again."""
        self.note("cause", job=job.id, fence=job.fence, why=why)

    def finish(self, task: Kept, job: JobContext) -> None:
        """Take note that the job is not to run again."""
        self.note("end", job=job.id, fence=job.fence, bare=isinstance(task, (Bare, Brief)))
        self._ends += 1
        self._ended.set()


async def install(database: str, ledger: str) -> None:
    """Create the database, and run a job."""
    app = Application(database, ledger)
    async with app.client:
        await app.add(Kept("first"))
        await app.ends(1)


async def add(database: str, ledger: str) -> None:
    """Only add: one, several, many at once, for later, more than fits a page."""
    app = Application(database, ledger, workers=0)
    async with app.client:
        await app.add(Kept("alone"))
        await app.add(*[Kept(f"batch {number}", batch="one", size=3) for number in range(3)])
        await asyncio.gather(*[app.add(Kept(f"at once {number}")) for number in range(4)])
        await app.add(Kept("later"), wait=0.05)
        await app.add(*[Bare(f"large {n}", padding="x" * 9000, batch="two", size=2) for n in range(2)])


async def transact(database: str, ledger: str) -> None:
    """Add jobs in the application's own transactions, of which one is rolled back."""
    app = Application(database, ledger)
    async with app.client, aiosqlite.connect(database, isolation_level=None) as connection:
        for number, end in enumerate(("COMMIT", "ROLLBACK", "COMMIT")):
            await connection.execute("BEGIN IMMEDIATE")
            await connection.execute("INSERT INTO orders VALUES (?)", (f"order {number}",))
            task = Kept(f"order {number}", order=True)
            ids = await app.client.add(task).tx(connection).save()
            await connection.execute(end)
            if end == "COMMIT":
                app.acknowledge(ids)
        await app.ends(2)


async def run(database: str, ledger: str) -> None:
    """Claim, run and complete, with and without a record."""
    app = Application(database, ledger)
    async with app.client:
        await app.add(Kept("one"), Bare("two"), Threaded("three"), Kept("four"))
        await app.ends(3)
        await asyncio.gather(app.add(Bare("five")), app.add(Kept("six"), Threaded("seven")))
        await app.ends(7)


async def retry(database: str, ledger: str) -> None:
    """Run again and fail, for every reason there is."""
    app = Application(database, ledger)
    async with app.client:
        for plan in ("raise", "retry", "snooze"):
            await app.add(Kept(plan, plan))
        await app.add(Kept("discard", "discard"), Kept("fail", "fail"), Timely("slow", "slow"))
        await app.ends(6)


async def effect(database: str, ledger: str) -> None:
    """Complete jobs in transactions with their effects."""
    app = Application(database, ledger)
    async with app.client:
        await app.add(Kept("effect 1", "effect"))
        await app.ends(2)
        await app.add(Kept("effect 2", "effect"), Kept("effect 3", "effect"))
        await app.ends(6)


async def retain(database: str, ledger: str) -> None:
    """Keep records, and remove them when their time is over."""
    expiry = Expiry(4)
    logger = logging.getLogger("backlite_async")
    logger.addHandler(expiry)
    logger.setLevel(logging.DEBUG)
    app = Application(database, ledger)
    async with app.client:
        await app.add(Brief("one"), Brief("two"), Kept("stays"))
        await app.ends(3)
        await app.add(Brief("three"), Brief("four"))
        await expiry.over.wait()


async def checkpoint(database: str, ledger: str) -> None:
    """Work beside a write-ahead log that is full, so that it is copied and begun anew."""
    app = Application(database, ledger)
    async with app.client:
        for number in range(4):
            await app.add(Kept(f"before {number}"), Bare(f"beside {number}"))
            await app.ends(2 * number + 2)


async def renew(database: str, ledger: str) -> None:
    """Run a job that takes longer than its lease."""
    app = Application(database, ledger, lease=SHORT_LEASE)
    async with app.client:
        await app.ends(1)


async def takeover(database: str, ledger: str) -> None:
    """Begin where a process has died, and take over its jobs."""
    app = Application(database, ledger)
    async with app.client:
        await app.ends(4)


async def recover(database: str, ledger: str) -> None:
    """Begin after a death, be done with everything, and add and run one job more."""
    app = Application(database, ledger)
    began = time.monotonic()
    async with app.client:
        await drained(database)
        app.note("drained", ms=(time.monotonic() - began) * 1000)
        await app.add(Kept("after"))
        await drained(database)


LEFT = """
SELECT
    (SELECT count(*) FROM backlite_jobs)
    + (SELECT count(*) FROM backlite_schedules WHERE next_at IS NOT NULL)
"""


async def drained(database: str) -> None:
    """Wait until no job is left, and none is due of a schedule."""
    connection = sqlite3.connect(database)
    while connection.execute(LEFT).fetchall()[0][0]:
        await asyncio.sleep(0.005)
    connection.close()


async def rehearse(database: str, ledger: str) -> None:
    """Use what lives use."""
    await made_empty(database, ledger)
    for life in (retry, run, effect, transact):
        await life(database, ledger)


# -- what some lives find: made before, copied for each trial -----------------------------------------


async def made_empty(database: str, ledger: str) -> None:
    """Leave a database with our schema and a table of the application."""
    await Application(database, ledger).client.install()
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE orders (name TEXT NOT NULL)")
    connection.execute("CREATE TABLE effects (name TEXT NOT NULL)")
    connection.execute("CREATE TABLE pages (number INTEGER PRIMARY KEY, content TEXT NOT NULL)")
    connection.commit()
    connection.close()


async def made_full(database: str, ledger: str) -> None:
    """Leave a write-ahead log that is about to be copied."""
    await made_empty(database, ledger)
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA synchronous = OFF")
    for number in range(970):
        row = (number % 12, f"{number} ".ljust(3000, "x"))
        connection.execute("INSERT OR REPLACE INTO pages VALUES (?, ?)", row)
    os._exit(0)  # a connection that is closed copies it


async def made_long(database: str, ledger: str) -> None:
    """Leave one job that will take long."""
    await made_empty(database, ledger)
    app = Application(database, ledger, workers=0)
    async with app.client:
        await app.add(Kept("long", "long"))


async def made_left(database: str, ledger: str) -> None:
    """Die while some jobs run, one is claimed and one waits."""
    await made_empty(database, ledger)
    app = Application(database, ledger)
    app.staying = 3
    await app.client.start()
    await app.add(*[Kept(f"left {number}") for number in range(4)])
    await app.stays.wait()
    os.kill(os.getpid(), signal.SIGKILL)


# -- lives that break a promise, or have the library break it: the row must see each of them -----------


async def boasts(database: str, ledger: str) -> None:
    """Acknowledge a job before its transaction is committed."""
    app = Application(database, ledger, workers=0)
    async with app.client, aiosqlite.connect(database, isolation_level=None) as connection:
        await connection.execute("BEGIN IMMEDIATE")
        app.acknowledge(await app.client.add(Kept("boast")).tx(connection).save())
        await connection.execute("COMMIT")


async def repeats(database: str, ledger: str) -> None:
    """Run a job twice."""
    app = Application(database, ledger)

    async def twice(task: Kept, job: JobContext) -> None:
        app.begin(task, job)
        await app.handle(task, job)

    app.client.register(Other, twice)
    async with app.client:
        await app.add(Other("twice"))
        await app.ends(1)


async def halves(database: str, ledger: str) -> None:
    """Save a batch in two parts, an order without its job, and an effect twice."""
    app = Application(database, ledger)
    async with app.client:
        for number in range(2):
            await app.add(Kept(f"part {number}", batch="parts", size=2))
            await app.ends(number + 1)
    connection = sqlite3.connect(database)
    connection.execute("INSERT INTO orders VALUES ('forgotten')")
    connection.execute("INSERT INTO effects VALUES ('twice'), ('twice')")
    connection.commit()
    connection.close()


async def spoils(database: str, ledger: str) -> None:
    """Overwrite a page that only an examination of the whole database reads."""
    await add(database, ledger)
    connection = sqlite3.connect(database)
    query = "SELECT rootpage FROM sqlite_schema WHERE name = 'pages'"
    page = connection.execute(query).fetchall()[0][0]
    connection.close()
    file = os.open(database, os.O_RDWR)
    os.pwrite(file, b"\xff" * 100, (page - 1) * 4096)
    os.close(file)


async def strands(database: str, ledger: str) -> None:
    """Add a job that nobody can run."""
    app = Application(database, ledger)
    async with app.client:
        await app.add(Other("stranded"))
        await app.add(Kept("beside"))
        await app.ends(1)
