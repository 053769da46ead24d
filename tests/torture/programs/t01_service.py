"""Lives with errors, log lines, results, dead letters and waits, and of people who steer; killed at a call.

Beside what the other lives note there is `deleting`, `deleted` around a `jobs.delete()`, and `letter`,
the job of which a dead letter was read.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

sys.path.append(str(Path(__file__).parents[3]))  # the checkout; the library may be another copy

from backlite_async import Discard, JobContext, QueueConfig, Task
from tests.torture.programs import t01_control
from tests.torture.programs.t01_control import Controlled, Held, Later, Turn
from tests.torture.programs.t01_lives import (
    KEEP,
    SHORT_LEASE,
    Bare,
    Kept,
    drained,
    made_empty,  # noqa: F401 - these lives find it by its name
)


class Fallen(Task):
    """The dead letter of a job that has failed."""

    config: ClassVar[QueueConfig] = QueueConfig("fallen", max_crashes=20, retention=KEEP)
    job_id: str
    attempts: int
    error: str


class Noted(Kept):
    """Says something of itself, and has a result. Its plan can also be "spare": fail until it is retried."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "noted", max_attempts=3, max_crashes=20, backoff=0.002, retention=KEEP, dead_letter=Fallen
    )


class Gone(Bare):
    """Says something, and leaves nothing but a dead letter."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "gone", max_attempts=2, max_crashes=20, backoff=0.002, dead_letter=Fallen
    )


class Served(Controlled):
    """An application that also keeps what its jobs say, and steers them."""

    def __init__(self, database: str, ledger: str, *, workers: int = 4, after: bool = False) -> None:
        super().__init__(database, ledger, workers=workers, after=after)
        for kind in (Noted, Gone):
            self.client.register(kind, self.say)
        self.client.register(Fallen, self.read)

    async def say(self, task: Kept, job: JobContext) -> dict[str, Any]:
        """Say a line and how far it is, then do what the plan says."""
        job.log.info(f"attempt {job.attempt}")
        await job.progress(0.5, task.name)
        if task.plan == "long":
            job.log.info("long")
            await asyncio.sleep(2 * SHORT_LEASE)  # so that it is stored before the end
        if task.plan == "spare" and job.attempt == 1:
            self.begin(task, job)
            self.again(job, "to be retried")
            raise Discard(task.name)
        await self.handle(task, job)
        return {"name": task.name}

    async def read(self, task: Fallen, job: JobContext) -> None:
        """Take note of a dead letter."""
        self.note("letter", job=task.job_id, letter=job.id)
        self._ends += 1
        self._ended.set()

    async def waits(self, *ids: str) -> list[str]:
        """Wait until these have ended, and return how they have; "gone": before anybody waited."""
        found = await asyncio.gather(*map(self.client.wait, ids), return_exceptions=True)
        return ["gone" if isinstance(job, BaseException) else job.status.value for job in found]


async def keep(database: str, ledger: str) -> None:
    """Run jobs that say something and end in every way, while somebody waits for them."""
    app = Served(database, ledger)
    async with app.client:
        plans = ("ok", "raise", "fail", "discard", "long")
        ids = [await app.put(app.client.add(Noted(plan, plan)).tags("a", plan)) for plan in plans]
        ids += [await app.put(app.client.add(Gone(plan, plan)).tags("a")) for plan in ("ok", "fail")]
        assert set(await app.waits(*ids)) <= {"succeeded", "failed", "gone"}
        await app.ends(7 + 3)


async def steer(database: str, ledger: str) -> None:
    """Do to jobs whatever can be done to them."""
    app = Served(database, ledger)
    jobs = app.client.jobs
    async with app.client:
        later = [await app.put(app.client.add(Later(f"later {n}")).tags("b")) for n in range(4)]
        spare = await app.put(app.client.add(Noted("spare", "spare")))
        held = await app.put(app.new(Held("held", key="k")))
        behind = await app.put(app.new(Held("behind", key="k")))
        await app.holds(held)
        assert await app.waits(spare) == ["failed"]
        await jobs.reschedule(later[0], behind, wait=0.01)
        await jobs.run_now(later[0])
        await jobs.edit(later[1], Later("edited", version=1))
        app.note("replaced", job=later[1], version=1)
        await delete(app, later[2])
        app.acknowledge([await jobs.copy(later[3])])
        await jobs.retry(spare, attempts=2)
        assert await app.waits(spare) == ["succeeded"]
        await app.pause("held")  # else it is claimed, and put off by a lease as its handler goes on
        app.note("cause", job=held, fence=0, why="released")
        await jobs.release(held)
        await app.put(app.new(Turn("turn", key="k")))
        await app.ends(3)
        await delete(app, spare)
        await app.client.stop(0)


async def delete(app: Served, job_id: str) -> None:
    """Delete a job, which is neither to run nor to be found from now on."""
    app.note("deleting", job=job_id)
    assert await app.client.jobs.delete(job_id) == 1
    app.note("deleted", job=job_id)


async def recover(database: str, ledger: str, made: type[Served] = Served) -> None:
    """Begin after a death, let go on what is paused, be done with everything, and run one job more."""
    app = made(database, ledger, after=True)
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
    await t01_control.rehearse(database, ledger)
    await keep(database, ledger)
    await recover(database, ledger)


# -- lives that break a promise: the row must see each of them ----------------------------------------


async def loses_letters(database: str, ledger: str) -> None:
    """Fail a job, and remove its dead letter."""
    app = Served(database, ledger)
    async with app.client:
        await app.put(app.client.add(Noted("fail", "discard")))
        await app.ends(2)
        for letter in await app.client.jobs.list(queue="fallen"):
            await app.client.jobs.delete(letter.id)


async def leaves_lines(database: str, ledger: str) -> None:
    """Remove a job, and nothing of what is kept beside it."""
    app = Served(database, ledger)
    async with app.client:
        job_id = await app.put(app.client.add(Noted("raise", "raise")))
        await app.ends(1)
    await spoil(database, f"DELETE FROM backlite_completed WHERE id = '{job_id}'")


async def counts_twice(database: str, ledger: str) -> None:
    """Count a job twice."""
    app = Served(database, ledger)
    async with app.client:
        await app.put(app.client.add(Noted("ok")))
        await app.ends(1)
    await spoil(database, "UPDATE backlite_stats SET number = number + 1 WHERE what = 'succeeded'")


async def forgets_errors(database: str, ledger: str) -> None:
    """Forget the error of an attempt."""
    app = Served(database, ledger)
    async with app.client:
        await app.put(app.client.add(Noted("fail", "fail")))
        await app.ends(2)
    await spoil(database, "DELETE FROM backlite_errors WHERE attempt = 2")


async def spoil(database: str, statement: str) -> None:
    """Do what the library would not."""
    connection = sqlite3.connect(database)
    connection.execute(statement)
    connection.commit()
    connection.close()
