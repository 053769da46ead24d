"""Saying, asking and steering schedules, cancelled; and what must hold afterwards."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from base64 import b64decode
from contextlib import closing
from typing import Any, ClassVar, NamedTuple

from backlite_async import Client, InvalidState
from backlite_async._graph import follow_up_id
from tests.torture.programs.t06_cases import Locked
from tests.torture.programs.t06_control import Ordered
from tests.torture.programs.t06_steps import FEW, Ended
from tests.torture.programs.t06_world import LIMIT, SOON, Recurring

__all__ = ["RECURRING"]

EVERY, RUNS = 0.01, 2
"""Seconds between the runs of a schedule, and how many there are."""

FAR = 1000.0
"""Seconds between those of a schedule that is not due in any sweep."""


class Row(NamedTuple):
    """What is stored of a schedule."""

    created_at: int
    anchor: int
    every: int
    runs: int
    next_at: int | None
    is_paused: int
    version: int


class Beating(Ordered):
    """A case of a schedule that has so many runs, close to each other."""

    workers = 2
    every: ClassVar[float] = EVERY

    async def prepare(self) -> None:
        await super().prepare()
        self.beating: set[int] = set()  # calls whose schedules have their runs
        self.beside: set[str] = set()  # jobs that are no runs of a schedule
        self.next()
        await self.saved()  # later ones need not say what queues there are

    @property
    def name(self) -> str:
        """The name of this call's schedule."""
        return f"s{self.number}"

    async def saved(self, version: int = 0, every: float | None = None) -> None:
        """Make the schedule of this call, or change it."""
        await self.client.schedule(
            self.name,
            Recurring(self.number, version),
            every=every or self.every,
            max_runs=RUNS,
            missed="all",
        )

    def row(self) -> Row | None:
        """Return what another connection sees of it."""
        sql = (
            "SELECT created_at, json_extract(timing, '$.anchor'), json_extract(timing, '$.every'), runs,"
            " next_at, paused_at IS NOT NULL, json_extract(job, '$.payload')"
            " FROM backlite_schedules WHERE name = ?"
        )
        with closing(sqlite3.connect(self.world.file)) as other:
            found = other.execute(sql, (self.name,)).fetchone()
        return (
            None if found is None else Row._make([*found[:-1], json.loads(b64decode(found[-1]))["version"]])
        )

    async def finish(self) -> None:
        """See all schedules to the end of their runs; nobody gives a hint."""
        self.world.where = f"{self.world.where.rsplit(',', 1)[0]}, finish"
        for number in sorted(self.beating):
            self.number = number
            await self.until_over()
        self.world.require(await self.world.until_drained(), "runs do not start")
        for number in sorted(self.beating):
            self.number = number
            self.check_runs()
        await super().finish()

    async def until_over(self) -> None:
        """Wait until the schedule has had all its runs."""
        deadline = time.monotonic() + SOON
        while (row := self.row()) is not None and row.next_at is not None:
            if time.monotonic() > deadline:
                self.world.problem(f"schedule {self.name} is still due: {row}")
                return
            await asyncio.sleep(0.001)

    def ran(self) -> dict[str, int]:
        """Return the jobs of this call that have run, and how often."""
        return {job: times for (call, job, _), times in self.world.runs.items() if call == self.number}

    def check_runs(self) -> None:
        """Each instant has its job, which has run once, and there is no other."""
        row = self.row()
        if row is None:
            return
        due = {row.anchor + row.every * (n + 1) for n in range(RUNS)}
        ids = {follow_up_id("schedule", self.name, row.created_at, at) for at in due}
        ran = {job: times for job, times in self.ran().items() if job not in self.beside}
        self.world.lost += len(ids - ran.keys())
        self.world.require(
            ran.keys() == ids, f"{self.name}: {len(ids & ran.keys())} of {len(ids)} instants ran, {ran}"
        )
        self.world.doubles += sum(times - 1 for times in ran.values())
        self.world.require(all(times == 1 for times in ran.values()), f"{self.name}: runs twice: {ran}")
        self.world.require(row.runs == len(ran), f"{self.name} has counted {row.runs} runs of {len(ran)}")

    def at_last(self) -> None:
        """What there is of schedules is theirs."""
        jobs = self.world.count("SELECT count(*) FROM backlite_completed WHERE task = 'Recurring'")
        ran = len({job for _, job, _ in self.world.runs})
        self.world.require(jobs == ran, f"{jobs} jobs of schedules, {ran} have run")


class Make(Beating):
    """A schedule that is new: it is there, or not, and its instants have their jobs."""

    async def before(self) -> None:
        self.next()

    async def call(self) -> Any:
        await self.saved()

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        self.world.require(ended.how != "returned" or self.row() is not None, f"{self.name} is not there")
        self.beating.add(self.number)


class MakeAgain(Make):
    """A schedule that is said again after it was cut: there is one."""

    ways: tuple[str, ...] = FEW

    async def after(self, ended: Ended) -> None:
        if ended.how != "returned":
            await self.call()
        await super().after(ended._replace(how="returned"))


class MakeLocked(Locked, Make):
    """The same while the database is locked."""


class Resting(Beating):
    """A case of a schedule that is not due before somebody lets it be."""

    every: ClassVar[float] = FAR

    async def before(self) -> None:
        self.next()
        await self.saved()

    async def hurry(self) -> None:
        """Let it be due soon."""
        await self.client.schedules.edit(self.name, every=EVERY)
        self.beating.add(self.number)


class Change(Resting):
    """A schedule that is said otherwise: it is as it was, or as it is said now, in everything."""

    ways: tuple[str, ...] = FEW

    async def call(self) -> Any:
        await self.saved(1, 2 * FAR)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        row = self.row()
        found = None if row is None else (row.version, row.every)
        old, new = (0, FAR * 1000), (1, 2 * FAR * 1000)
        wanted = [new] if ended.how == "returned" else [old, new]
        self.world.require(found in wanted, f"a schedule that was changed is {found}")
        await self.hurry()

    def check_runs(self) -> None:
        super().check_runs()
        row = self.row()
        versions = {version for call, _, version in self.world.runs if call == self.number}
        self.world.require(row is None or versions == {row.version}, f"of {row} ran {versions}")


class Edit(Change):
    """An edit of the task and the times."""

    async def call(self) -> Any:
        await self.client.schedules.edit(self.name, Recurring(self.number, 1), every=2 * FAR)


class Pause(Resting):
    """A pause of a schedule: it holds, or not."""

    ways: tuple[str, ...] = FEW

    async def call(self) -> Any:
        return await self.client.schedules.pause(self.name)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        row = self.row()
        assert row is not None
        self.world.require(
            ended.how != "returned" or row.is_paused == 1, "pause() has returned, and it is not paused"
        )
        self.world.require(ended.how != "returned" or ended.value == 1, f"pause() says {ended.value}")
        again = await self.client.schedules.resume(self.name)
        self.world.require(
            again == row.is_paused, f"resume() says {again}, and it was paused: {row.is_paused}"
        )
        await self.hurry()


class Resume(Resting):
    """The end of a pause."""

    ways: tuple[str, ...] = FEW

    async def before(self) -> None:
        await super().before()
        await self.client.schedules.pause(self.name)

    async def call(self) -> Any:
        return await self.client.schedules.resume(self.name)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        row = self.row()
        assert row is not None
        self.world.require(ended.how != "returned" or row.is_paused == 0, "resume() has returned")
        due = row.next_at is not None
        self.world.require(due != row.is_paused, f"it is paused: {row.is_paused}, and due: {due}")
        again = await self.client.schedules.resume(self.name)
        self.world.require(again == row.is_paused, f"resume() again says {again}")
        await self.hurry()


class RunNow(Resting):
    """A run beside those of a schedule: its job is there, or not, and it counts for nothing."""

    async def call(self) -> Any:
        return await self.client.schedules.run_now(self.name)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        self.world.require(await self.world.until_drained(), "the run does not start")
        ran = self.ran()
        once = [{ended.value: 1}] if ended.how == "returned" else [{}, dict.fromkeys(ran, 1)]
        self.world.require(len(ran) <= 1 and ran in once, f"run_now() says {ended.value}, ran {ran}")
        self.beside |= ran.keys()
        await self.hurry()


class Delete(Resting):
    """A deletion of a schedule."""

    async def call(self) -> Any:
        return await self.client.schedules.delete(self.name)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        there = self.row() is not None
        self.world.require(ended.how != "returned" or not there, "delete() has returned, and it is there")
        self.world.require(ended.how != "returned" or ended.value == 1, f"delete() says {ended.value}")
        if self.number % 2 and there:
            await self.hurry()
        else:
            again = await self.client.schedules.delete(self.name)
            self.world.require(again == there, f"delete() again says {again}")


class Ask(Resting):
    """A question for one schedule."""

    ways: tuple[str, ...] = FEW

    async def prepare(self) -> None:
        await super().prepare()
        await self.client.schedules.pause(self.name)  # so that it is shown as it is, at any time

    async def before(self) -> None:
        pass

    async def call(self) -> Any:
        return await self.client.schedules.get(self.name)

    async def after(self, ended: Ended) -> None:
        again = await self.call()
        self.world.require(ended.how != "returned" or ended.value == again, f"{ended.value}, then {again}")
        [found] = again if isinstance(again, list) else [again]
        self.world.require(found is not None and found.name == self.name, f"says {again}")


class AskForAll(Ask):
    """A question for all schedules."""

    async def call(self) -> Any:
        return [*await self.client.schedules.list()]


class Declare(Beating):
    """A start of a client that declares a schedule: started again, it has made it, once."""

    ways: tuple[str, ...] = FEW

    async def prepare(self) -> None:
        self.beside = set()
        async with self.world.client(workers=0):
            pass

    async def before(self) -> None:
        self.next()
        self.client: Client = self.world.client(workers=2)
        self.client.schedule(self.name, Recurring(self.number), every=EVERY, max_runs=RUNS, missed="all")

    async def call(self) -> Any:
        await self.client.start()

    async def after(self, ended: Ended) -> None:
        if ended.how != "returned":
            self.world.nothing_left()
            try:
                await self.client.start()
            except InvalidState as error:
                self.world.problem(f"cannot start again: {error}")
                return
        self.world.require(self.row() is not None, "a client is started, and its schedule is not there")
        await self.until_over()
        self.world.require(await self.world.until_drained(), "runs do not start")
        self.check_runs()
        self.world.require(await self.client.stop(LIMIT), "stop() says False")

    async def finish(self) -> None:
        pass


RECURRING: dict[str, type[Beating]] = {
    "schedule": Make,
    "schedule, again": MakeAgain,
    "schedule, locked": MakeLocked,
    "schedule, changes": Change,
    "edit schedule": Edit,
    "pause schedule": Pause,
    "resume schedule": Resume,
    "run schedule now": RunNow,
    "delete schedule": Delete,
    "get schedule": Ask,
    "schedules": AskForAll,
    "start, declares": Declare,
}
"""By name: the call, then the situation."""
