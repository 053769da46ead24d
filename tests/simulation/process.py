"""A simulated process: a client, what it does for its jobs, and how it dies."""

from __future__ import annotations

import asyncio
import random
import typing
from typing import TYPE_CHECKING

from backlite_async import Client, DatabaseUnavailable, JobContext
from backlite_async.stores import Store

from .faults import Host, Killed
from .history import Died, Known, StopAsked, Stopped
from .store import FaultyStore
from .work import QUEUES, THREADED, Letter, Probe, Work, kind_of

if TYPE_CHECKING:
    from .world import World

__all__ = ["Process"]


class Process:
    """A client in a process of its own, which can be killed."""

    def __init__(self, world: World, name: str, workers: int | None = None) -> None:
        self.world = world
        self.name = name
        self.workers = world.rng.randint(1, 4) if workers is None else workers
        self.host = Host(
            name,
            workers=self.workers,
            rng=random.Random(world.rng.random()),
            weather=world.weather,
            history=world.history,
        )
        self.host.die = self.kill
        self.client = Client(
            ":memory:",
            workers=self.workers,
            threads=world.rng.randint(1, 2),
            lease=world.lease,
            clock=world.clock,
            rng=random.Random(world.rng.random()),
        )
        self.client._make_store = self._open_store  # one for each start, as with a file
        self.client.register(Probe, self.meet)
        self.client.register(Letter, self.read)
        world.history.add(Known(client=name, kinds=[kind_of(Letter)]))
        self.known: set[type[Work]] = set()
        self.started = False

    def _open_store(self) -> Store:
        return FaultyStore(self.world.memory, self.world.company, self.host, (*QUEUES, Probe.config))

    @property
    def alive(self) -> bool:
        """Whether it has not been killed."""
        return not self.host.dead

    @property
    def life(self) -> int:
        """How often it was started."""
        return self.host.life

    def know(self, *kinds: type[Work]) -> None:
        """Register the handlers of these kinds."""
        new = [kind for kind in dict.fromkeys(kinds) if kind not in self.known]
        for kind in new:
            self.known.add(kind)
            handler = self.sync_handler if kind in THREADED else self.handler
            self.client.register(kind, handler)
        if new:
            self.world.history.add(Known(client=self.name, kinds=[kind_of(kind) for kind in new]))

    async def handler(self, task: Work, job: JobContext) -> None:
        await self.world.perform(self, task, job)

    async def meet(self, _: Probe, job: JobContext) -> None:
        self.world.begun(self, job)
        await self.world.meet()
        self.world.ended(self, job, "returned", None)

    async def read(self, _: Letter, job: JobContext) -> None:
        self.world.begun(self, job)
        self.world.ended(self, job, "returned", None)

    def sync_handler(self, task: Work, job: JobContext) -> None:
        self.world.perform_now(self, task, job)

    async def start(self) -> None:
        """Start, however often it takes; nothing comes of it if the process is killed meanwhile."""
        pause = 0.05
        while self.alive and not self.started:
            self.host.life += 1
            try:
                await self.client.start()
            except DatabaseUnavailable:
                pause = min(2 * pause, 1.0)
                await asyncio.sleep(pause)
            except Killed:
                return
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise  # else the client was cancelled while it started
            else:
                self.started = self.alive

    async def stop(self, limit: float | None) -> bool:
        """Stop, and put down what came of it."""
        history, life = self.world.history, self.life
        asked_at = asyncio.get_running_loop().time()
        history.add(StopAsked(client=self.name, life=life, limit=limit))
        try:
            clean = await self.client.stop(limit)
        except DatabaseUnavailable:  # it was starting just now, and could not
            return True
        self.started = self.started and self.life != life
        history.add(
            Stopped(
                client=self.name,
                life=life,
                clean=clean,
                asked_at=asked_at,
                limit=limit,
                claims=self.claims(life),
            )
        )
        return clean

    def claims(self, life: int) -> list[str]:
        """Return what the store shows as claimed by this process since that start."""
        return [
            job
            for owner in self.world.company.ever.values()
            if owner.host is self.host and owner.life == life
            for job in self.world.memory.claimed_by(owner.id)
        ]

    def kill(self) -> None:
        """Die."""
        if self.alive:
            self.host.dead = True
            self.started = False
            self.world.history.add(Died(client=self.name))
            self.world.company.die(self.host)


for _handler in (Process.handler, Process.meet, Process.read, Process.sync_handler):
    _handler.__annotations__ = typing.get_type_hints(_handler)  # once, not at each registration
