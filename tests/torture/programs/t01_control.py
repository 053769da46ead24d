"""Lives with keys that take turns, limits, unique jobs, pauses and cancellations, killed at a system call.

Beside what the other lives note there is `cancelling`, `cancelled` around a `cancel()`, `pausing`,
`paused`, `resuming`, `resumed`, `replaced` (the version that a pending job has from now on), and `found`,
the queues that the next process finds paused.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import ClassVar

import aiosqlite

sys.path.append(str(Path(__file__).parents[3]))  # the checkout; the library may be another copy

from backlite_async import AddOperation, AlreadyExists, JobContext, QueueConfig, Rate
from backlite_async.stores.sqlite import schema
from backlite_async.stores.sqlite.database import Database
from backlite_async.stores.sqlite.sql import migrations
from tests.torture.programs import t01_lives
from tests.torture.programs.t01_lives import KEEP, Application, Bare, Kept, drained, made_empty

WORKERS = 4
OLD = 3
"""Schema version before there were keys and pauses."""


class Turn(Kept):
    """One of a key at a time."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "turns", max_attempts=3, max_crashes=20, backoff=0.002, retention=KEEP, concurrency_per_key=1
    )


class TurnToo(Kept):
    """Another type of the same queue, whose keys are the same."""

    config: ClassVar[QueueConfig] = Turn.config


class Held(Kept):
    """Runs until it is cancelled; where a life has left it, it just ends."""

    config: ClassVar[QueueConfig] = QueueConfig("held", max_crashes=20, retention=KEEP, concurrency_per_key=1)


class Sole(Kept):
    """One at a time, over all processes."""

    config: ClassVar[QueueConfig] = QueueConfig("sole", max_crashes=20, retention=KEEP, global_concurrency=1)


class Rated(Kept):
    """Not more than two starts in a time."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "rated", max_crashes=20, retention=KEEP, rate=Rate(2, per=0.04)
    )


class Later(Kept):
    """Has a handler only where a life has left it."""

    config: ClassVar[QueueConfig] = QueueConfig("later", max_crashes=20, retention=KEEP)


class Controlled(Application):
    """An application that also uses limits, and gives orders."""

    def __init__(self, database: str, ledger: str, *, workers: int = WORKERS, after: bool = False) -> None:
        super().__init__(database, ledger, workers=workers)
        self._after = after
        self._holding: set[str] = set()
        self._news = asyncio.Event()
        for kind in (Turn, TurnToo, Sole, Rated):
            self.client.register(kind, self.handle)
        self.client.register(Held, self.hold)
        if after:
            self.client.register(Later, self.handle)

    async def hold(self, task: Held, job: JobContext) -> None:
        """Run until cancelled."""
        self.begin(task, job)
        if self._after:
            self.finish(task, job)
            return
        self._holding.add(job.id)
        self._news.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.again(job, "cut")  # by a stop: what is cancelled must not run again all the same
            raise
        finally:
            self._holding.discard(job.id)

    async def holds(self, *ids: str) -> None:
        """Wait until these run."""
        while not self._holding.issuperset(ids):
            self._news.clear()
            await self._news.wait()

    def new(self, task: Kept) -> AddOperation:
        """Begin to add a job, with its key."""
        operation = self.client.add(task)
        return operation.key(task.key) if task.key else operation

    async def put(self, operation: AddOperation) -> str:
        """Save an operation of one job, and take note of it."""
        [job_id] = await operation.save()
        self.acknowledge([job_id])
        return job_id

    async def cancel(self, *ids: str) -> None:
        """Cancel jobs, and wait until all of them have ended."""
        for job_id in ids:
            self.note("cancelling", job=job_id)
        await self.client.cancel(*ids)
        for job_id in ids:
            self.note("cancelled", job=job_id)
        for job_id in ids:
            while await self.client.status(job_id) in ("pending", "running"):
                await asyncio.sleep(0.002)

    async def pause(self, queue: str, *, wait: bool = False) -> None:
        """Pause a queue."""
        self.note("pausing", queue=queue)
        await self.client.pause(queue, wait=wait)
        self.note("paused", queue=queue)

    async def resume(self, queue: str) -> None:
        """Let it go on."""
        self.note("resuming", queue=queue)
        await self.client.resume(queue)
        self.note("resumed", queue=queue)


async def turns(database: str, ledger: str) -> None:
    """Run jobs of some keys, which end in every way."""
    app = Controlled(database, ledger)
    async with app.client:
        a = [Turn(f"a {number}", key="a", batch="a", size=3) for number in range(3)]
        app.acknowledge(await app.client.add(*a).key("a").save())
        plans = ("raise", "retry", "snooze", "discard", "effect")
        kinds = (Turn, TurnToo)
        await asyncio.gather(
            *[app.put(app.new(kinds[n % 2](f"b {plan}", plan, key="b"))) for n, plan in enumerate(plans)],
            app.put(app.new(Turn("c", key="c"))),
            app.put(app.new(TurnToo("a too", key="a"))),
        )
        await app.ends(3 + len(plans) + 1 + 2)  # with what follows the effect


async def limits(database: str, ledger: str) -> None:
    """Run jobs one at a time, and not more than so many in a time."""
    app = Controlled(database, ledger)
    async with app.client:
        await app.add(*[Sole(f"sole {number}") for number in range(3)])
        await app.add(*[Rated(f"rated {number}") for number in range(4)], Sole("last", "snooze"))
        await app.ends(8)


async def unique(database: str, ledger: str) -> None:
    """Add what is there already: it is kept, replaced, or refused."""
    app = Controlled(database, ledger)
    async with app.client:
        first = await app.put(app.new(Later("u 0", unique="u")).unique("u"))
        assert await app.put(app.new(Later("u 1", unique="u", version=9)).unique("u")) == first
        await replace(app, first, app.new(Later("u 2", unique="u", version=2)).unique("u", None, "replace"))
        own = await app.put(app.new(Later("own 0", unique="o")).id("own").unique("o"))
        await replace(app, own, app.new(Later("own 1", unique="o", version=1)).id("own", "replace"))
        for _ in range(2):  # also once it has ended
            await app.put(app.new(Kept("once", unique="once")).unique("once", 3600))
            await app.put(app.new(Kept("kept", unique="kept")).id("kept"))
            await app.ends(2)
        running = await app.put(app.new(Held("runs", key="k", unique="r")).unique("r"))
        await app.holds(running)
        waits = await app.put(app.new(Held("waits 0", key="k", unique="w")).unique("w"))
        await replace(
            app, waits, app.new(Held("waits 1", key="k", unique="w", version=1)).unique("w", None, "replace")
        )
        refused = app.new(Held("refused", unique="w", version=9)).unique("w", None, "raise")
        [error] = await asyncio.gather(refused.save(), return_exceptions=True)
        assert isinstance(error, AlreadyExists)
        assert error.job_id == waits
        await app.cancel(running)
        await app.holds(waits)
        await app.client.stop(0)


async def replace(app: Controlled, job_id: str, operation: AddOperation) -> None:
    """Save an operation that replaces what a pending job is to do."""
    [task] = operation._parts
    assert isinstance(task, Kept)
    saved = await operation.save()
    assert saved == [job_id]
    assert saved.existing == (job_id,)
    app.note("replaced", job=job_id, version=task.version)


async def unique_within(database: str, ledger: str) -> None:
    """Add unique jobs in the application's own transactions."""
    app = Controlled(database, ledger)
    async with app.client, aiosqlite.connect(database, isolation_level=None) as connection:

        async def ordered(task: Kept, instead: str, end: str) -> str:
            await connection.execute("BEGIN IMMEDIATE")
            await connection.execute("DELETE FROM orders WHERE name = ?", (instead,))
            await connection.execute("INSERT INTO orders VALUES (?)", (task.name,))
            operation = app.new(task).unique(task.unique, None, "replace").tx(connection)
            [job_id] = await operation.save()
            await connection.execute(end)
            if end == "COMMIT":
                app.acknowledge([job_id])
                app.note("replaced", job=job_id, version=task.version)
            return job_id

        await ordered(Later("x 0", order=True, unique="x"), "", "ROLLBACK")
        first = await ordered(Later("x 1", order=True, unique="x", version=1), "", "COMMIT")
        for version, end in ((2, "ROLLBACK"), (3, "COMMIT")):
            task = Later(f"x {version}", order=True, unique="x", version=version)
            assert await ordered(task, "x 1", end) == first
        await ordered(Kept("runs", order=True, unique="runs"), "", "COMMIT")
        await app.ends(1)


async def cancel(database: str, ledger: str) -> None:
    """Cancel what is pending, what waits for its turn and what runs, one by one and together."""
    app = Controlled(database, ledger)
    async with app.client:
        later = [await app.put(app.new(Later(f"later {number}"))) for number in range(3)]
        held = [await app.put(app.new(Held(f"held {number}"))) for number in range(2)]
        keyed = [await app.put(app.new(Held(f"keyed {number}", key="k"))) for number in range(5)]
        await app.holds(*held, keyed[0])
        await app.cancel(later[0])
        await app.cancel(held[0])
        await app.cancel(keyed[2])
        await app.cancel(keyed[0])
        await app.holds(keyed[1])
        await app.cancel(later[1], held[1], keyed[1], keyed[3], later[1])
        await app.holds(keyed[4])
        await app.client.stop(0)


async def pause(database: str, ledger: str) -> None:
    """Pause queues, what waits and what runs; beside them others go on."""
    app = Controlled(database, ledger)
    async with app.client:
        await app.pause("kept")
        await app.pause("turns", wait=True)
        await app.add(Kept("paused"))
        await app.put(app.new(Turn("turn", key="a")))
        await app.add(Bare("goes on"))
        await app.ends(1)
        await app.resume("kept")
        await app.ends(2)
        await app.pause("turns")
        await app.resume("turns")
        await app.ends(3)
        await app.pause("later")


async def takeover(database: str, ledger: str) -> None:
    """Begin where a process has died that had turns, and take over its jobs."""
    app = Controlled(database, ledger, after=True)
    async with app.client:
        await drained(database)


async def upgrade(database: str, ledger: str) -> None:
    """Bring a database up to date, and run what is in it."""
    app = Controlled(database, ledger, after=True)
    async with app.client:
        await app.put(app.new(Turn("new", key="a")))
        await app.ends(2)


async def recover(database: str, ledger: str) -> None:
    """Begin after a death, let go on what is paused, be done with everything, and run one job more."""
    app = Controlled(database, ledger, after=True)
    began = time.monotonic()
    async with app.client:
        paused = [queue.name for queue in await app.client.queues.list() if queue.paused]
        app.note("found", paused=paused)
        for queue in paused:
            await app.resume(queue)
        await drained(database)
        app.note("drained", ms=(time.monotonic() - began) * 1000)
        await app.put(app.new(Turn("after", key="a")))
        await drained(database)


async def rehearse(database: str, ledger: str) -> None:
    """Use what lives use."""
    await t01_lives.rehearse(database, ledger)
    await unique_within(database, ledger)
    await recover(database, ledger)


# -- what some lives find -----------------------------------------------------------------------------


async def made_held(database: str, ledger: str) -> None:
    """Die while jobs of keys run, one of which was just cancelled, and others wait for their turn."""
    await made_empty(database, ledger)
    app = Controlled(database, ledger)
    await app.client.start()
    a = [await app.put(app.new(Held(f"a {number}", key="a"))) for number in range(3)]
    b = [await app.put(app.new(Held(f"b {number}", key="b"))) for number in range(2)]
    c = [await app.put(app.new(Held(f"c {number}"))) for number in range(2)]
    await app.holds(a[0], b[0], *c)
    await app.put(app.new(Turn("behind", key="a")))
    for job_id in (b[0], c[1]):
        app.note("cancelling", job=job_id)
    await app.client.cancel(b[0], c[1])
    for job_id in (b[0], c[1]):
        app.note("cancelled", job=job_id)
    os.kill(os.getpid(), signal.SIGKILL)


async def made_old(database: str, ledger: str) -> None:
    """Leave a database of an older version, with a job in it."""
    old = Database(database, synchronous="FULL", busy_timeout=5.0)
    await old.open()
    await asyncio.to_thread(schema.install, old, migrations()[:OLD])
    await old.close()
    connection = sqlite3.connect(database)
    for name in ("orders", "effects"):
        connection.execute(f"CREATE TABLE {name} (name TEXT NOT NULL)")
    task = b'{"name":"old","plan":"ok","order":false}'
    connection.execute(
        "INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at)"
        " VALUES ('old', 'kept', 'Kept', ?, 3, 0, 0, 0)",
        (task,),
    )
    connection.commit()
    connection.close()
    Application(database, ledger).acknowledge(["old"])


# -- lives that break a promise -----------------------------------------------------------------------


async def cancels_nothing(database: str, ledger: str) -> None:
    """Say that a job is cancelled."""
    app = Controlled(database, ledger, workers=0)
    async with app.client:
        job_id = await app.put(app.new(Later("not cancelled")))
        app.note("cancelling", job=job_id)
        app.note("cancelled", job=job_id)


async def pauses_nothing(database: str, ledger: str) -> None:
    """Say that a queue is paused."""
    app = Controlled(database, ledger, workers=0)
    async with app.client:
        app.note("paused", queue="later")


async def twins(database: str, ledger: str) -> None:
    """Add one job of a unique key twice."""
    app = Controlled(database, ledger, workers=0)
    async with app.client:
        for number in range(2):
            await app.put(app.new(Later(f"twin {number}", unique="twin")))


async def crowds(database: str, ledger: str) -> None:
    """Run two jobs of what is one key."""
    app = Controlled(database, ledger)
    async with app.client:
        ids = [await app.put(app.client.add(Held("held", key="k")).key(key)) for key in "kl"]
        await app.holds(*ids)
        await app.client.stop(0)
