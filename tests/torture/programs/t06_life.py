"""Start, stop, install and `async with`, cancelled; and what must hold afterwards."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from backlite_async import InvalidState
from tests.torture.programs.t06_cases import Case, Locked
from tests.torture.programs.t06_steps import FEW, WAYS, Ended
from tests.torture.programs.t06_world import LIMIT, PARTS, Effect, Held

__all__ = ["LIFE"]


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

    ways: tuple[str, ...] = FEW

    async def before(self) -> None:
        await super().before()
        self.world.calls += 1
        await self.client.add(Held(self.world.calls)).save()
        self.world.acknowledge(self.world.calls)
        async with asyncio.timeout(LIMIT):
            await self.world.started.wait()

    async def call(self) -> Any:
        self.world.release.set()
        return await self.client.stop()

    async def after(self, ended: Ended) -> None:
        self.world.release.set()
        await super().after(ended)
        left = self.world.waiting()
        self.world.require(left == 0, "what ended in time is not completed")


class StopWaiting(StopEnding):
    """A stop that waits for a job; cut or not, the job may end."""

    ways: tuple[str, ...] = WAYS

    async def call(self) -> Any:
        self.world.loop.call_later(0.003, self.world.release.set)
        return await self.client.stop()


class StopCutting(StopEnding):
    """A stop that cancels a running job, and gives it back."""

    ways: tuple[str, ...] = WAYS

    async def call(self) -> Any:
        return await self.client.stop(0)

    async def after(self, ended: Ended) -> None:
        clean = await self.client.stop(0)
        was_cut = self.world.cut[self.world.calls, 0] > 0
        self.world.require(clean is not was_cut, f"stop() says {clean}, and the handler was cut: {was_cut}")
        uncounted = "SELECT count(*) FROM backlite_jobs WHERE status = 'pending' AND attempt = 0"
        self.world.require(self.world.count(uncounted) == 1, "what was cut is not as before")
        self.world.release.set()
        async with self.client:  # a stopped client starts again, and runs what was given back
            self.world.require(await self.world.until_drained(), "given back and never run")


class AsyncWith(Case):
    """A whole `async with`, with a save inside."""

    ways: tuple[str, ...] = (*WAYS, "everything")

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


class AsyncWithTransaction(AsyncWith):
    """A whole `async with`, with a job inside that completes in a transaction of its own."""

    ways: tuple[str, ...] = (*FEW, "everything")

    async def prepare(self) -> None:
        await self.world.client(workers=0).install()
        self.world.make_effects()

    async def before(self) -> None:
        self.world.release.clear()
        self.world.calls += 1

    async def call(self) -> None:
        call = self.world.calls
        async with self.world.client(workers=1) as client:
            await client.add(Effect(call)).save()
            self.world.acknowledge(call)
            await self.world.release.wait()

    async def release(self) -> None:
        await self.world.settled()  # a stop that was cut goes on, and the transaction until then

    async def after(self, ended: Ended) -> None:
        pass


class StartLocked(Locked, Start):
    """A start while the database is locked."""


class StopLocked(Locked, StopEnding):
    """A stop whose last outcome waits for a lock."""


LIFE: dict[str, type[Case]] = {
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
    "async with, transaction": AsyncWithTransaction,
}
"""By name: the call, then the situation."""
