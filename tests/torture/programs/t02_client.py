"""A client whose system calls are recorded, and one that goes on after a power loss.

    t02_client.py ORDER

ORDER is JSON, see `Order`. The roles "alone", or "adder" and "worker" in two processes, add, run, retry
and complete jobs. Each of their notes is one write to a file, so that the record of system calls has it in
its place among the writes and syncs. The role "drain" opens databases that others have left, and runs what
is in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import aiosqlite

from backlite_async import (
    BackliteError,
    Backoff,
    Client,
    Discard,
    JobContext,
    QueueConfig,
    Retention,
    Snooze,
    Task,
)

LIMIT = 60.0
DRAIN_LIMIT = 15.0
TOGETHER = 8
"""Databases that are drained at a time."""

BRIEF = 0.2
"""Seconds for which completed jobs of the kind `brief` are kept."""

CONSTANT = Backoff(base=0.0, factor=1.0, jitter=0.0)


@dataclass
class Order:
    """What this process is to do."""

    role: str
    database: str = ""
    notes: str = ""
    durability: str = "full"
    page_size: int = 4096
    checkpoint: int = 1000  # pages in the log after which it is written back
    rounds: int = 1  # lives of the client
    adders: int = 4
    operations: int = 8  # of each adder, in each round
    folders: list[str] = dataclasses.field(default_factory=list)  # to drain

    def names(self, number: int) -> list[str]:
        """Return the names of a round's adders."""
        return [f"{number}{chr(ord('a') + adder)}" for adder in range(self.adders)]

    def jobs(self, number: int) -> int:
        """Return how many jobs a round adds for good, also those that other jobs add."""
        kept = (n for n in range(self.operations) if not is_undone(n))
        tasks = [task for n in kept for name in self.names(number) for task in tasks_of("", name, n)]
        return len(tasks) + sum(isinstance(task, Sealed) for task in tasks)


class Payload(Task):
    key: str
    fill: str
    check: int


class Quick(Payload):
    config: ClassVar[QueueConfig] = QueueConfig("quick")


class Kept(Payload):
    config: ClassVar[QueueConfig] = QueueConfig("kept", retention=Retention(payload="always"))


class Flaky(Payload):
    config: ClassVar[QueueConfig] = QueueConfig(
        "flaky", max_attempts=3, backoff=CONSTANT, retention=Retention(payload="always")
    )


class Doomed(Payload):
    config: ClassVar[QueueConfig] = QueueConfig(
        "doomed", retention=Retention(only_failed=True, payload="failed")
    )


class Brief(Payload):
    config: ClassVar[QueueConfig] = QueueConfig(
        "brief", retention=Retention(duration=BRIEF, payload="always")
    )


class Sealed(Payload):
    """Completes in a transaction of its handler, together with an order and the order's job."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "sealed", max_attempts=20, backoff=CONSTANT, retention=Retention(payload="always")
    )


class Sleepy(Payload):
    config: ClassVar[QueueConfig] = QueueConfig("sleepy", retention=Retention(only_failed=True))


class Once(Payload):
    """Is unique, replaced, and cancelled; runs only where a power loss has left it."""

    config: ClassVar[QueueConfig] = QueueConfig("once", retention=Retention(payload="always"))


class Stuck(Payload):
    """Runs until it is cancelled; where a power loss has left it, it just ends."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "stuck", max_crashes=20, retention=Retention(payload="always"), concurrency_per_key=1
    )


KINDS: tuple[type[Payload], ...] = (Quick, Kept, Flaky, Doomed, Brief, Sealed, Sleepy)


LEFT: tuple[type[Payload], ...] = (*KINDS, Once, Stuck)
"""All that a power loss may leave."""


def payload(operation: str, member: int, members: int, number: int) -> Payload:
    """Return a task that says which part of which operation it is, now and then longer than a page."""
    kind = KINDS[number % len(KINDS)]
    key = f"{operation}/{member}/{members}/{kind.__name__.lower()}"
    fill = f"{key} " * (160 if number % 13 == 5 else number % 7)
    return kind(key, fill, zlib.crc32(fill.encode()))


def tasks_of(operation: str, name: str, number: int) -> list[Payload]:
    """Return what an adder adds with its operation of this number."""
    members = number % 3 + 1
    first = number * 3 + ord(name[-1])
    return [payload(operation, member, members, first + member) for member in range(members)]


def lone(kind: type[Payload], operation: str) -> Payload:
    """Return the only task of an operation."""
    return kind(f"{operation}/0/1/{kind.__name__.lower()}", "", 0)


def is_within(number: int) -> bool:
    """Return whether an adder's operation is part of a transaction of its own."""
    return number % 4 == 3


def is_undone(number: int) -> bool:
    """Return whether that is rolled back."""
    return number % 8 == 7


class Notes(logging.Handler):
    """Notes what the library told, by its log and by its answers."""

    def __init__(self, path: str) -> None:
        super().__init__(logging.INFO)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.keys: dict[str, str] = {}
        self.done = 0
        self.changed = asyncio.Event()

    def note(self, *words: object) -> None:
        os.write(self._file, json.dumps(words).encode() + b"\n")

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        event = line.split(maxsplit=1)[0]
        found = re.search(r" job_id=(\S+)", line)
        if found is None or event not in ("job.succeeded", "job.failed", "job.retried", "job.cancelled"):
            return
        if found[1] not in self.keys:  # cancelled before it ran: its adder tells
            return
        key = self.keys[found[1]]
        if event == "job.retried":
            attempt = re.search(r" attempt=(\d+)", line)
            assert attempt is not None
            self.note("again", key, int(attempt[1]))
        else:
            self.note("done", key, event.removeprefix("job."))
            self.done += event != "job.cancelled"
            self.changed.set()

    async def all_done(self, count: int) -> None:
        while self.done < count:
            self.changed.clear()
            await self.changed.wait()


def handle(client: Client, notes: Notes) -> None:
    """Register a handler for each kind of job."""
    slept: set[str] = set()

    async def run(task: Payload, job: JobContext) -> None:
        notes.keys[job.id] = task.key
        if isinstance(task, Flaky) and job.attempt < 3:
            raise RuntimeError("not yet")
        if isinstance(task, Sleepy) and task.key not in slept:
            slept.add(task.key)
            raise Snooze(0.005)
        notes.note("end", task.key)
        if isinstance(task, Doomed):
            raise Discard("as planned")
        if isinstance(task, Sealed):
            await seal(task, job)

    async def seal(task: Sealed, job: JobContext) -> None:
        operation = "order-" + task.key.replace("/", ":")
        order = Kept(f"{operation}/0/1/kept", "", 0)
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO orders VALUES (?)", (operation,))
            ids = await client.add(order).tx(connection).save()
        notes.note("done", task.key, "succeeded")
        notes.note("ack", operation, [(order.key, ids[0])])

    async def stick(task: Stuck, job: JobContext) -> None:
        notes.keys[job.id] = task.key
        await asyncio.Event().wait()

    for kind in KINDS:
        client.register(kind, run)
    client.register(Stuck, stick)


class Adder:
    """Adds jobs one operation after another, some of them in a transaction of its own."""

    def __init__(self, client: Client, notes: Notes, database: str, name: str) -> None:
        self.client = client
        self.notes = notes
        self.database = database
        self.name = name

    async def run(self, operations: int) -> None:
        async with aiosqlite.connect(self.database, isolation_level=None, timeout=LIMIT) as connection:
            for number in range(operations):
                if is_within(number):
                    await self.within(connection, number)
                else:
                    await self.plain(number)
                if number % 2:
                    await self.control(number)

    async def control(self, number: int) -> None:
        """Pause or resume a queue of its own; add, replace and cancel what is unique; cancel what runs."""
        client, note, queue = self.client, self.notes.note, f"calm-{self.name}"
        if number % 4 == 1:
            note("pausing", queue)
            await client.pause(queue)
            note("paused", queue)
        else:
            note("resuming", queue)
            await client.resume(queue)
            note("resumed", queue)
        unique, operation = f"u-{self.name}-{number}", f"once-{self.name}-{number}"
        first, second = lone(Once, operation), lone(Once, f"{operation}:again")
        ids = await client.add(first).unique(unique, within=3600).save()
        self.acknowledged(operation, [first], ids)
        note("replacing", first.key, second.key)
        await client.add(second).unique(unique, 3600, "replace").save()
        note("replaced", first.key, second.key)
        if number % 4 == 1:
            await client.cancel(*ids)
            note("done", second.key, "cancelled")
        await self.stuck(number)

    async def stuck(self, number: int) -> None:
        """Cancel two jobs of a key: one runs, the other waits for its turn."""
        tasks = [lone(Stuck, f"stuck-{self.name}-{number}{letter}") for letter in "ab"]
        ids = []
        for task in tasks:
            [job_id] = await self.client.add(task).key(f"{self.name}-{number}").id(task.key).save()
            self.acknowledged(task.key.split("/")[0], [task], [job_id])
            ids.append(job_id)
        while await self.client.status(ids[0]) == "pending":
            await asyncio.sleep(0.002)
        await self.client.cancel(ids[0])
        self.notes.note("asked", tasks[0].key)
        while await self.client.status(ids[1]) == "pending":
            await asyncio.sleep(0.002)
        await self.client.cancel(*ids)
        self.notes.note("asked", tasks[1].key)
        while await self.client.status(ids[1]) == "running":
            await asyncio.sleep(0.002)

    async def plain(self, number: int) -> None:
        operation = f"plain-{self.name}-{number}"
        tasks = tasks_of(operation, self.name, number)
        ids = await self.client.add(*tasks).save()
        self.acknowledged(operation, tasks, ids)

    def acknowledged(self, operation: str, tasks: list[Payload], ids: list[str]) -> None:
        self.notes.note("ack", operation, [(task.key, id_) for task, id_ in zip(tasks, ids, strict=True)])

    async def within(self, connection: aiosqlite.Connection, number: int) -> None:
        """Add an order and its jobs in one transaction; each second one is rolled back."""
        kept = not is_undone(number)
        operation = f"{'order' if kept else 'never'}-{self.name}-{number}"
        await connection.execute("BEGIN IMMEDIATE")
        await connection.execute("INSERT INTO orders VALUES (?)", (operation,))
        tasks = tasks_of(operation, self.name, number)
        ids = await self.client.add(*tasks).tx(connection).save()
        once = lone(Once, f"{'once' if kept else 'never'}-{self.name}-{number}:within")
        first = await self.client.add(once).unique(once.key).tx(connection).save()
        await connection.execute("COMMIT" if kept else "ROLLBACK")
        if kept:
            self.acknowledged(operation, tasks, ids)
            self.acknowledged(once.key.split("/")[0], [once], first)


async def record(order: Order, role: str) -> None:
    """Do all rounds, each with a client of its own, so that the file is closed and opened again."""
    notes = Notes(order.notes)
    logger = logging.getLogger("backlite_async")
    logger.addHandler(notes)
    logger.setLevel(logging.INFO)
    for number in range(1 if role == "worker" else order.rounds):
        workers = 0 if role == "adder" else 6
        options: dict[str, Any] = {"durability": order.durability, "lease": 3.0, "workers": workers}
        client = Client(order.database, **options)
        if workers:
            handle(client, notes)
        async with client:
            if role != "worker":
                hands = [Adder(client, notes, order.database, name) for name in order.names(number)]
                await asyncio.gather(*(hand.run(order.operations) for hand in hands))
            if workers:
                rounds = order.rounds if role == "worker" else number + 1
                await notes.all_done(sum(order.jobs(done) for done in range(rounds)))


def prepare(order: Order) -> None:
    """Make the application's own part of the file."""
    with contextlib.closing(sqlite3.connect(order.database, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {order.page_size}")
        connection.execute("CREATE TABLE orders (operation TEXT NOT NULL)")


def often_checkpointed(pages: int) -> None:
    """Let new connections write back their log after a few pages, so that a short record has it often."""
    connect = sqlite3.connect

    def connected(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        return connection

    sqlite3.connect = connected  # type: ignore[assignment]


def start(order: Order) -> None:
    """Record in this process, as an adder with a second process that runs the jobs."""
    worker = None
    if order.role == "adder":
        second = dataclasses.asdict(dataclasses.replace(order, role="worker"))
        worker = subprocess.Popen([sys.executable, __file__, json.dumps(second)])
    try:
        asyncio.run(asyncio.wait_for(record(order, order.role), LIMIT))
        if worker is not None and worker.wait(LIMIT):
            raise SystemExit("the process that runs the jobs has failed")
    finally:
        if worker is not None:
            worker.kill()
            worker.wait()


def leave_owners(database: Path) -> None:
    """Leave files of the owners that were running jobs, as a power loss may: none, empty, or of zeros."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        sql = "SELECT DISTINCT owner FROM backlite_jobs WHERE status = 'running'"
        owners = [owner for (owner,) in connection.execute(sql)] if "backlite_jobs" in tables else []
    for number, owner in enumerate(owners, zlib.crc32(str(database).encode())):
        if number % 3:
            file = Path(f"{database}-backlite", f"{owner}.owner")
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(bytes(1024 * (number % 3 - 1)))


async def drain(folder: str) -> dict[str, Any]:
    """Go on with the database in a folder; return what became of it."""
    expected = json.loads(Path(folder, "expected").read_text())
    leave_owners(Path(folder, "app.db"))
    ran: set[str] = set()
    client = Client(Path(folder, "app.db"), lease=1.0)

    async def run(task: Payload) -> None:
        ran.add(task.key)

    for kind in LEFT:
        client.register(kind, run)
    began = time.monotonic()
    left, error = -1, None
    try:
        async with client:
            for queue in await client.queues.list():
                if queue.paused:
                    await client.resume(queue.name)
            await client.add(payload("after", 0, 1, 1)).save()
            left = await emptied(Path(folder, "app.db"))
    except BackliteError as found:
        error = f"{type(found).__name__}: {found}"
    return {
        "error": error,
        "left": left,
        "again": sorted(ran & set(expected["done"])),
        "missing": sorted(set(expected["live"]) - ran),
        "seconds": time.monotonic() - began,
    }


async def emptied(database: Path) -> int:
    """Wait until no job is pending or running; return how many are after the limit."""
    until = time.monotonic() + DRAIN_LIMIT
    async with aiosqlite.connect(database, isolation_level=None) as connection:
        while True:
            rows = list(await connection.execute_fetchall("SELECT count(*) FROM backlite_jobs"))
            if rows[0][0] == 0 or time.monotonic() > until:
                return int(rows[0][0])
            await asyncio.sleep(0.01)


async def drain_all(folders: list[str]) -> list[dict[str, Any]]:
    """Drain many databases, some at a time."""
    room = asyncio.Semaphore(TOGETHER)

    async def one(folder: str) -> dict[str, Any]:
        async with room:
            return await drain(folder)

    return list(await asyncio.gather(*(one(folder) for folder in folders)))


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    if order.role == "drain":
        print(json.dumps(asyncio.run(drain_all(order.folders))))
        return
    often_checkpointed(order.checkpoint)
    if order.role != "worker":
        prepare(order)
        start(order)
    else:
        asyncio.run(asyncio.wait_for(record(order, order.role), LIMIT))


if __name__ == "__main__":
    main()
