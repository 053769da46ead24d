"""The life of an application with workflows and schedules whose writes or syncs fail.

It does as the other life does, which is described there. Beside what that notes there is `flow`, a workflow
that was saved: its id, its name, how it must end and the names of all that must have run; with each `start`
of a step its workflow, and after which others it runs; `mistold`, a step that was told of other results than
theirs; `scheduling`, `scheduled`, `unscheduling` and `unscheduled` around the orders that make and delete a
schedule, and `now` before a run that is beside those of its schedule. What it finds has the schedule "old",
which no code declares any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

sys.path.append(str(Path(__file__).parents[3]))  # the checkout; the library may be another copy

import aiosqlite

from backlite_async import (
    BackliteError,
    Chain,
    Discard,
    Group,
    JobContext,
    QueueConfig,
    Retention,
    Task,
    chain,
    group,
)
from tests.torture.programs import t05_life
from tests.torture.programs.t05_life import Application, Kept

KEEP = Retention(payload="always")

EVERY, RUNS = 0.04, 4
FAR = 1000.0
"""Seconds between the runs of a schedule, and between those of one that is never due here."""

LEFT = """
SELECT
    (SELECT count(*) FROM backlite_jobs)
    + (SELECT count(*) FROM backlite_schedules WHERE next_at IS NOT NULL AND name <> 'steered')
"""


class Step(Task):
    """Runs after others, and is told of these, or of some. Its plan: ok, twice, breaks."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "steps", max_attempts=30, max_crashes=20, backoff=0.002, retention=KEEP
    )
    name: str
    after: list[str] = []
    plan: str = "ok"
    told: list[str] | None = None


class Charge(Step):
    """Ends in a transaction, together with its effect and one step more."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "charges", max_attempts=30, max_crashes=20, backoff=0.002, retention=KEEP
    )


class Recurring(Task):
    """What a schedule adds."""

    config: ClassVar[QueueConfig] = QueueConfig("recurring", max_crashes=20, retention=KEEP)
    name: str


class Flow(NamedTuple):
    """A workflow on its way: how it must end, and the names of all that must have run then."""

    order: Chain | Group
    name: str
    end: str
    names: list[str]


def flows() -> list[Flow]:
    """Build the workflows of a life."""
    wide = chain(
        Step("a1"),
        Step("a2", ["a1"], "twice"),
        group(Step("a3", ["a1", "a2"]), Step("a4", ["a1", "a2"])),
        Step("a5", ["a1", "a2", "a3", "a4"]),
        on_success=Step("a over", ["a1", "a2", "a3", "a4", "a5"]),
    )
    broken = chain(
        Step("b1"),
        Step("b2", ["b1"], "breaks"),
        Step("b3", ["b1", "b2"]),
        if_failed=Step("b undo", ["b1", "b2"], told=["b1"]),
        on_complete=Step("b over", ["b1", "b2", "b undo"], told=["b1", "b undo"]),
    )
    charged = chain(Charge("c1"), Step("c2", ["c1"]))
    within = chain(Step("d1"), Step("d2", ["d1"]))
    return [
        Flow(wide, "a", "succeeded", ["a1", "a2", "a3", "a4", "a5", "a over"]),
        Flow(broken, "b", "failed", ["b1", "b2", "b undo", "b over"]),
        Flow(charged, "c", "succeeded", ["c1", "c2", "more of c1"]),
        Flow(within, "d", "succeeded", ["d1", "d2"]),
    ]


class Flowing(Application):
    """An application that also runs workflows and schedules."""

    def __init__(self, database: str, ledger: str, declares: str = "declared") -> None:
        super().__init__(database, ledger)
        for kind in (Step, Charge):
            self.client.register(kind, self.step)
        self.client.register(Recurring, self.recurring)
        self.declares = declares
        self.client.schedule(declares, Recurring(declares), every=EVERY, max_runs=RUNS, missed="all")
        self.flows = flows()

    async def start(self) -> bool:
        """Start the client, which stores the schedule that is declared; return whether it could."""
        started = await super().start()
        if started:
            self.note("scheduled", schedule=self.declares)
        return started

    def begin(self, task: Any, job: JobContext) -> None:
        """Take note that an execution begins."""
        fields = {"name": task.name, "version": 0, "plan": "", "queue": job.queue, "key": ""}
        place = {"flow": job.workflow or "", "after": getattr(task, "after", [])}
        self.note("start", job=job.id, fence=job.fence, attempt=job.attempt, **fields, **place)

    def finish(self, task: Any, job: JobContext) -> None:
        """Take note that an execution was the last one."""
        self.note("end", job=job.id, fence=job.fence, name=task.name, flow=job.workflow or "")

    async def step(self, task: Step, job: JobContext) -> str:
        """Do what the plan says, and look of what one is told."""
        self.begin(task, job)
        if self.staying:
            await self.staying.wait()
            await asyncio.Event().wait()
        try:
            told = sorted((await job.results(str)).values())
            if told != sorted(task.after if task.told is None else task.told):
                self.note("mistold", job=job.id, name=task.name, told=told)
            if task.plan == "twice" and job.attempt == 1:
                raise ValueError(task.name)
            if isinstance(task, Charge):
                await self.charge(task, job)
                return task.name
        except (BackliteError, sqlite3.Error, ValueError) as error:
            self.note("cause", job=job.id, why=repr(error))
            raise
        self.finish(task, job)
        if task.plan == "breaks":
            raise Discard(task.name)
        return task.name

    async def charge(self, task: Charge, job: JobContext) -> None:
        """End in a transaction with an effect, and a step more."""
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO effects VALUES (?)", (job.id,))
            await job.extend(Step(f"more of {task.name}", [*task.after, task.name]))
            job.result = task.name
            self.finish(task, job)

    async def recurring(self, task: Recurring, job: JobContext) -> None:
        """Succeed."""
        self.begin(task, job)
        self.finish(task, job)

    def acknowledge(self, number: int, ids: list[str]) -> None:
        """Take note of what is promised from now on: of a workflow each of its steps."""
        promised = []
        for job_id in ids:
            flow = next((flow for flow in self.flows if flow.order.graph.id == job_id), None)
            if flow is None:
                promised.append(job_id)
            else:
                self.note("flow", flow=job_id, name=flow.name, end=flow.end, names=flow.names)
                promised += [step.id for step in flow.order.steps]
        super().acknowledge(number, promised)

    async def over(self, *, or_trouble: bool = False) -> None:
        """Wait until nothing is left to do, or the library says that it has trouble."""
        while left(self.database) and not (or_trouble and self.log.trouble):
            await asyncio.sleep(0.003)

    async def try_all(self) -> None:
        """Do each thing once, and look what becomes of it until it is done or trouble is reported."""
        wide, broken, charged, within = self.flows
        await self.save(self.client.add(wide.order, broken.order, Kept("beside a")))
        await self.over(or_trouble=True)
        await self.save(self.client.add(charged.order))
        await self.over(or_trouble=True)
        await self.transact_with(within.order, Kept("beside d"))
        await self.steer()
        await self.over(or_trouble=True)
        await self.recur("beat", every=EVERY, max_runs=RUNS)  # at last: nobody gives it a hint
        await self.over(or_trouble=True)

    async def transact_with(self, *parts: Any) -> None:
        """Add this in a transaction of the application; if that fails, it is the application's to know."""
        try:
            async with aiosqlite.connect(self.database, isolation_level=None) as connection:
                await connection.execute("BEGIN IMMEDIATE")
                ids = await self.client.add(*parts).tx(connection).save()
                number = self.begin_try()
                await connection.execute("COMMIT")
                self.acknowledge(number, ids)
        except (BackliteError, sqlite3.Error) as error:
            self.note("refused", error=repr(error))

    async def recur(self, name: str, **said: Any) -> None:
        """Make a schedule."""

        async def make() -> object:
            return await self.client.schedule(name, Recurring(name), missed="all", **said)

        await self.insist(lambda: self.order(make, "scheduling", "scheduled", schedule=name))

    async def steer(self) -> None:
        """Do to a schedule whatever can be done to it, and delete it."""
        schedules, name = self.client.schedules, "steered"
        await self.recur(name, every=FAR)

        async def steered(call: Callable[[], Awaitable[object]], about: str, done: str) -> None:
            async def give() -> bool:
                return await self.order(call, about, done, schedule=name)

            if self.unheeded:  # one after the other
                self.unheeded.append(give)
            else:
                await self.insist(give)

        await steered(lambda: schedules.pause(name), "halting", "halted")
        await steered(lambda: schedules.edit(name, every=2 * FAR), "editing", "edited")
        await steered(lambda: schedules.resume(name), "going on", "gone on")
        if not self.unheeded:  # else it may not be there
            await self.run_now(name)
        await steered(lambda: schedules.delete(name), "unscheduling", "unscheduled")

    async def run_now(self, name: str) -> None:
        """Add a run beside those of a schedule, once."""
        number = self.begin_try()
        self.note("now", schedule=name)
        try:
            self.acknowledge(number, [await self.client.schedules.run_now(name)])
        except BackliteError as error:
            self.note("refused", error=repr(error))


def left(database: str) -> int:
    """Return how many jobs and schedules have not come to their end."""
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute(LEFT).fetchone()[0])


async def live(database: str, ledger: str) -> None:
    """Try everything; once the fault is gone, do what is still to do, and stop in good order."""
    await t05_life.through(Flowing(database, ledger))


async def misled(database: str, ledger: str) -> None:
    """Do the same, and promise a step that there is not."""
    app = Flowing(database, ledger)
    app.flows[0] = app.flows[0]._replace(names=["none"])
    await t05_life.through(app)


async def recover(database: str, ledger: str) -> None:
    """Begin after a death, and be done with everything."""
    app = Flowing(database, ledger)
    app.note("free")
    async with app.client:
        app.note("unscheduling", schedule="steered")
        await app.client.schedules.delete("steered")
        await app.save(app.client.add(Kept("last")))
        await app.over()
        app.note("drained")


async def made_left(database: str, ledger: str) -> None:
    """Die while steps run, and while a schedule is due."""
    await t05_life.made_empty(database, ledger)
    app = Flowing(database, ledger, "old")
    app.staying = asyncio.Barrier(3)
    order = group(chain(Step("l1"), Step("l2", ["l1"])), Step("l3")).then(Step("l4", ["l1", "l2", "l3"]))
    app.flows.append(Flow(order, "left", "succeeded", ["l1", "l2", "l3", "l4"]))
    await app.start()
    await app.recur("left", every=EVERY, max_runs=RUNS)
    await app.save(app.client.add(order))
    await app.staying.wait()
    os.kill(os.getpid(), signal.SIGKILL)


async def rehearse(database: str, ledger: str) -> None:
    """Use what lives use, those of the other module too."""
    await t05_life.rehearse(database, ledger)
    app = Flowing(database, ledger)
    async with app.client:
        await app.try_all()
