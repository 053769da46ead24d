"""Adding, asking, copying and the transactions of handlers, cancelled; and what must hold afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import ClassVar

import aiosqlite

from backlite_async import JobStatus
from tests.torture.kit import intact
from tests.torture.programs.t06_cases import Case, Locked
from tests.torture.programs.t06_steps import Ended, Guarded
from tests.torture.programs.t06_world import LIMIT, PARTS, Effect, Mark

__all__ = ["WORK"]


class Open(Case):
    """A case that keeps one client open for all its calls."""

    workers = 0

    async def prepare(self) -> None:
        self.client = self.world.client(workers=self.workers)
        await self.client.start()

    async def finish(self) -> None:
        self.world.where = f"{self.world.where.rsplit(',', 1)[0]}, finish"
        if self.workers:  # what was added here has started here, without any further call
            self.world.require(await self.world.until_drained(), "jobs did not start")
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

    async def after(self, ended: Ended) -> None:
        await super().after(ended)
        self.world.require(await self.world.until_drained(), "jobs that are there do not start")


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
        self.world.require(await self.world.until_drained(), "jobs that were committed do not start")
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


class Backup(Status):
    """A copy of the database."""

    copies = 0

    async def before(self) -> None:
        self.copies += 1
        self.copy = os.path.join(self.world.folder, f"copy{self.copies}.db")

    async def call(self) -> None:
        await self.client.backup(self.copy)

    async def after(self, ended: Ended) -> None:
        world, copy = self.world, self.copy
        world.require(
            ended.how != "returned" or os.path.exists(copy), "backup() returned, and there is no copy"
        )
        if not os.path.exists(copy):
            await self.client.backup(copy)
        world.require(intact(copy), "the copy is not whole")
        world.require(world.stored(1, file=copy) == PARTS, "an acknowledged job is not in the copy")
        os.unlink(copy)
        left = [name for name in os.listdir(world.folder) if name.startswith(os.path.basename(copy))]
        world.require(not left, f"files are left: {left}")


class Transaction(Open):
    """A handler's transaction: its effect, the jobs it adds and its job's end are one."""

    workers = 1
    whole: ClassVar[tuple[int, int, int]] = (1, PARTS - 1, 1)

    async def prepare(self) -> None:
        await super().prepare()
        self.world.make_effects()

    async def begin(self) -> None:
        """Add the job, which ends in a transaction."""
        await self.client.add(Effect(self.number)).save()
        self.world.acknowledge(self.number)

    async def run(self, way: str, k: int) -> Ended | None:
        self.world.calls += 1
        call = self.number = self.world.calls
        future: asyncio.Future[Ended | None] = self.world.loop.create_future()

        async def guard(block: Callable[[], Awaitable[None]]) -> bool:
            ended = await Guarded(self.world.loop, way, block, k).run(LIMIT)
            self.world.probe()
            self.check(ended)
            future.set_result(ended)
            return ended is not None and ended.how == "returned"

        self.world.guards[call] = guard
        await self.begin()
        done, _ = await asyncio.wait([future], timeout=2 * LIMIT)
        return future.result() if done else None

    def check(self, ended: Ended | None) -> None:
        """All of it is there, or nothing."""
        found = self.found()
        wanted = [self.whole] if ended and ended.how == "returned" else [(0, 0, 0), self.whole]
        self.world.require(found in wanted, f"effects, jobs added, jobs ended: {found}")

    def found(self) -> tuple[int, int, int]:
        """Return how often there is its effect, and how many jobs were added by it, and have ended."""
        count, mine = self.world.count, "json_extract(CAST(payload AS TEXT), '$.call') = ?"
        return (
            count("SELECT count(*) FROM effects WHERE call = ?", self.number),
            self.world.stored(self.number),
            count(f"SELECT count(*) FROM backlite_completed WHERE task = 'Effect' AND {mine}", self.number),
        )

    async def release(self) -> None:
        self.world.require(await self.world.until_drained(), "jobs never end")

    async def after(self, ended: Ended) -> None:
        found = self.found()
        self.world.require(found == self.whole, f"at last effects, jobs added, jobs ended: {found}")


class SaveLocked(Locked, Save):
    """A save while the database is locked."""


WORK: dict[str, type[Case]] = {
    "save": Save,
    "save, again": SaveAgain,
    "save, jobs run": SaveAndRun,
    "save, among others": SaveAmongOthers,
    "save, locked": SaveLocked,
    "tx save": SaveWithin,
    "tx save, rolled back": SaveWithinRolledBack,
    "status": Status,
    "get": Get,
    "backup": Backup,
    "transaction": Transaction,
}
"""By name: the call, then the situation."""
