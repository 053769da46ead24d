"""The public coroutines in the situations in which they are cancelled, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from typing import Any

import aiosqlite

from backlite_async import InvalidState, JobStatus
from tests.torture.programs.t06_steps import Ended, Guarded
from tests.torture.programs.t06_world import LIMIT, PARTS, Held, Mark, World

__all__ = ["CASES", "Case"]


class Case:
    """One public coroutine in one situation. A case lives for one sweep over its steps."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def prepare(self) -> None:
        """Begin the sweep."""

    async def before(self) -> None:
        """Get ready for one call."""

    async def call(self) -> Any:
        """Make the call that is cancelled."""

    async def run(self, way: str, k: int, *, late: bool) -> Ended | None:
        """Make the call, and cut it after its k-th step."""
        return await Guarded(self.world.loop, way, self.call, k, late=late).run(LIMIT)

    async def release(self) -> None:
        """Let go of locks of one's own."""

    async def after(self, ended: Ended) -> None:
        """Check what holds after the call."""

    async def finish(self) -> None:
        """End the sweep."""


class Start(Case):
    """A start of a file that is there, with jobs that wait to be run."""

    async def prepare(self) -> None:
        async with self.world.client(workers=0):
            pass

    async def before(self) -> None:
        self.client = self.world.client(workers=2)

    async def call(self) -> None:
        await self.client.start()

    async def after(self, ended: Ended) -> None:
        if ended.how != "returned":
            self.world.nothing_left()
            try:
                await self.client.start()
            except InvalidState as error:
                self.world.problem(f"cannot start again: {error}")
                await self.client.stop(LIMIT)
                await self.client.start()
        [task, *_] = tasks = self.world.marks()
        self.world.require(len(await self.client.add(*tasks).save()) == PARTS, "saved nothing")
        self.world.acknowledge(task.call)
        self.world.require(await self.client.stop(LIMIT), "stop() says False")


class StartNew(Start):
    """A start that makes the file."""

    async def prepare(self) -> None:
        pass

    async def before(self) -> None:
        self.world.begin_file()
        await super().before()

    async def after(self, ended: Ended) -> None:
        await super().after(ended)
        await self.world.drain()


class Install(StartNew):
    """The schema alone."""

    async def call(self) -> None:
        await self.client.install()

    async def after(self, ended: Ended) -> None:
        self.world.nothing_left()
        await self.client.install()
        await self.client.start()
        await super().after(ended._replace(how="returned"))


class Stop(Case):
    """A stop of a client that has nothing to do."""

    async def before(self) -> None:
        self.world.release.clear()
        self.world.started.clear()
        self.client = self.world.client(workers=2)
        await self.client.start()

    async def call(self) -> Any:
        return await self.client.stop()

    async def after(self, ended: Ended) -> None:
        self.world.require(await self.client.stop(LIMIT), "a stop of what is idle says False")


class StopEnding(Stop):
    """A stop while a job ends: its outcome is on its way to the database."""

    async def before(self) -> None:
        await super().before()
        self.world.calls += 1
        [self.id] = await self.client.add(Held(self.world.calls)).save()
        self.world.acknowledge(self.world.calls)
        async with asyncio.timeout(LIMIT):
            await self.world.started.wait()

    async def call(self) -> Any:
        self.world.release.set()
        return await self.client.stop()

    async def after(self, ended: Ended) -> None:
        self.world.release.set()
        await super().after(ended)
        async with self.world.client(workers=0) as other:
            status = await other.status(self.id)
        self.world.require(status is JobStatus.SUCCEEDED, f"what ended in time is {status}")


class StopWaiting(StopEnding):
    """A stop that waits for a job; cut or not, the job may end."""

    async def call(self) -> Any:
        self.world.loop.call_later(0.003, self.world.release.set)
        return await self.client.stop()


class StopCutting(StopEnding):
    """A stop that cancels a running job, and gives it back."""

    async def call(self) -> Any:
        return await self.client.stop(0)

    async def after(self, ended: Ended) -> None:
        clean = await self.client.stop(0)
        async with self.world.client(workers=0) as other:
            job = await other.get(self.id)
        was_cut = self.world.cut[self.world.calls, 0] > 0
        self.world.require(clean is not was_cut, f"stop() says {clean}, and the handler was cut: {was_cut}")
        pending = job is not None and (job.status, job.attempt) == (JobStatus.PENDING, 0)
        self.world.require(pending, f"what was cut is {job}")
        self.world.release.set()
        async with self.client:  # a stopped client starts again, and runs what was given back
            self.world.require(await self.world.until_drained(self.client), "given back and never run")


class AsyncWith(Case):
    """A whole `async with`, with a save inside."""

    async def before(self) -> None:
        self.tasks = self.world.marks()

    async def call(self) -> None:
        async with self.world.client(workers=2) as client:
            await client.add(*self.tasks).save()
            self.world.acknowledge(self.tasks[0].call)

    async def after(self, ended: Ended) -> None:
        await self.world.settled()
        if os.path.exists(self.world.file):
            async with self.world.client(workers=0):
                self.world.check_whole(self.tasks[0].call)


class Open(Case):
    """A case that keeps one client open for all its calls."""

    workers = 0

    async def prepare(self) -> None:
        self.client = self.world.client(workers=self.workers)
        await self.client.start()

    async def finish(self) -> None:
        self.world.where = "finish"
        if self.workers:  # what was added here has started here, without any further call
            self.world.require(await self.world.until_drained(self.client), "jobs did not start")
        self.world.require(await self.client.stop(LIMIT), "stop() says False")


class Save(Open):
    """A save of several jobs."""

    async def before(self) -> None:
        self.tasks = self.world.marks()

    async def call(self) -> None:
        self.operation = self.client.add(*self.tasks)
        await self.operation.save()
        self.world.acknowledge(self.tasks[0].call)

    async def after(self, ended: Ended) -> None:
        await self.world.settled()
        self.world.check_whole(self.tasks[0].call)


class SaveAgain(Save):
    """A save that is tried again after it was cut: it adds nothing twice."""

    async def before(self) -> None:
        await super().before()
        self.operation = self.client.add(*self.tasks)

    async def call(self) -> None:
        await self.operation.save()
        self.world.acknowledge(self.tasks[0].call)

    async def after(self, ended: Ended) -> None:
        if ended.how != "returned":
            await self.call()
        await super().after(ended)


class SaveAndRun(Save):
    """A save where jobs run at once."""

    workers = 2


class SaveAmongOthers(Save):
    """A save that shares its commit with others, which are not cut."""

    async def before(self) -> None:
        await super().before()
        self.others = [asyncio.ensure_future(self._other(self.world.marks())) for _ in range(4)]

    async def _other(self, tasks: list[Mark]) -> int:
        await self.client.add(*tasks).save()
        self.world.acknowledge(tasks[0].call)
        return tasks[0].call

    async def after(self, ended: Ended) -> None:
        for call in await asyncio.gather(*self.others):
            self.world.check_whole(call)
        await super().after(ended)


class SaveWithin(Open):
    """A save in a transaction of the caller, who then commits."""

    workers = 2
    commits = True

    async def before(self) -> None:
        self.tasks = self.world.marks()
        self.connection = await aiosqlite.connect(self.world.file)
        await self.connection.execute("BEGIN IMMEDIATE")

    async def call(self) -> None:
        await self.client.add(*self.tasks).tx(self.connection).save()
        self.returned = self.tasks[0].call

    async def release(self) -> None:
        if self.commits:
            await self.connection.commit()
        else:
            await self.connection.rollback()
        await self.connection.close()

    async def after(self, ended: Ended) -> None:
        call = self.tasks[0].call
        if ended.how == "returned" and self.commits:
            self.world.acknowledge(call)
        self.world.check_whole(call)
        if not self.commits:
            self.world.require(self.world.stored(call) == 0, "jobs of a transaction that was rolled back")
        await self.world.settled()


class SaveWithinRolledBack(SaveWithin):
    """A save in a transaction of the caller, who then rolls back."""

    commits = False


class Status(Open):
    """A question for a job's status."""

    async def prepare(self) -> None:
        await super().prepare()
        tasks = self.world.marks()
        [self.id, *_] = await self.client.add(*tasks).save()
        self.world.acknowledge(tasks[0].call)

    async def call(self) -> object:
        return await self.client.status(self.id)

    async def after(self, ended: Ended) -> None:
        again = await self.client.status(self.id)
        self.world.require(again is JobStatus.PENDING, f"status() says {again}")
        if ended.how == "returned":
            self.check(ended.value)

    def check(self, value: object) -> None:
        """Check what an undisturbed call has returned."""
        self.world.require(value is JobStatus.PENDING, f"status() says {value}")


class Get(Status):
    """A question for a whole job."""

    async def call(self) -> object:
        return await self.client.get(self.id)

    def check(self, value: object) -> None:
        self.world.require(getattr(value, "id", None) == self.id, f"get() says {value}")


class Locked(Case):
    """Another connection holds the write lock meanwhile, for a while that all have the patience for."""

    async def before(self) -> None:
        await super().before()
        self._unlocked = asyncio.Event()
        self._other = sqlite3.connect(self.world.file, isolation_level=None, timeout=LIMIT)
        self._other.execute("BEGIN IMMEDIATE")
        self.world.loop.call_later(0.02, self._unlock)

    def _unlock(self) -> None:
        self._other.close()
        self._unlocked.set()

    async def release(self) -> None:
        await self._unlocked.wait()


class StartLocked(Locked, Start):
    """A start while the database is locked."""


class SaveLocked(Locked, Save):
    """A save while the database is locked."""


class StopLocked(Locked, StopEnding):
    """A stop whose last outcome waits for a lock."""


CASES: dict[str, type[Case]] = {
    "start": Start,
    "start, new file": StartNew,
    "start, locked": StartLocked,
    "install": Install,
    "stop": Stop,
    "stop, job ends": StopEnding,
    "stop, job runs on": StopWaiting,
    "stop, job is cut": StopCutting,
    "stop, locked": StopLocked,
    "async with": AsyncWith,
    "save": Save,
    "save, again": SaveAgain,
    "save, jobs run": SaveAndRun,
    "save, among others": SaveAmongOthers,
    "save, locked": SaveLocked,
    "tx save": SaveWithin,
    "tx save, rolled back": SaveWithinRolledBack,
    "status": Status,
    "get": Get,
}
"""By name: the call, then the situation."""
