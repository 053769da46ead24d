"""What people do in a world: they steer jobs, wait for them, and look at what was kept and counted."""

from __future__ import annotations

import asyncio
import contextlib
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from backlite_async import BackliteError, DatabaseUnavailable, InvalidState, JobStatus
from backlite_async._clock import from_millis

from .faults import Killed
from .history import Acknowledged, Kept, Misuse, Tallied, WaitBegan, WaitEnded
from .process import Process
from .work import LETTERS

if TYPE_CHECKING:
    from .world import World

__all__ = ["People"]

NOT_HERE = (DatabaseUnavailable, InvalidState, Killed)
"""What may come of anything that is asked of a client that stops, or of its store."""

ACTIONS = ("retry", "run_now", "reschedule", "edit", "copy", "release", "delete", "cancel")

AGES = 10**15
"""Milliseconds around now in which all statistics lie."""


class People:
    """Asks clients of a world for things, at any moment, and puts down what it was told."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waits: dict[asyncio.Task[None], Process] = {}
        self._numbers = 0

    # -- steering ----------------------------------------------------------------------------------

    async def steer(self, process: Process, rng: random.Random, *, calm: bool) -> None:
        """Do something to a few jobs, or to those that match a filter, if that works."""
        name = rng.choice(ACTIONS)
        if name == "release" and calm:
            return  # its handler goes on here, and it cannot run beside itself
        with contextlib.suppress(*NOT_HERE, LookupError, BackliteError):
            if name == "edit":
                await self._edit(process, rng)
            elif name == "copy":
                await self._copy(process, rng)
            else:
                await self._act(process, name, rng)

    async def _act(self, process: Process, name: str, rng: random.Random) -> None:
        jobs = self._some_jobs(rng)
        filters: dict[str, Any] = {}
        if rng.random() < 0.3 or not jobs:
            jobs = []
            filters["queue"] = rng.choice(self._world.kinds).config.name
            if rng.random() < 0.5:
                filters["state"] = rng.choice(["pending", "running", "failed", "cancelled"])
            if rng.random() < 0.3:
                filters["tag"] = rng.choice("xy")
        if name == "retry":
            filters["attempts"] = rng.randint(1, 2)
        if name == "reschedule" and rng.random() < 0.5:
            filters["wait"] = timedelta(seconds=rng.uniform(0, self._world.longest_wait))
        elif name == "reschedule":
            filters["at"] = from_millis(self._world.clock.now() + rng.randint(-5_000, 20_000))
        await getattr(process.client.jobs, name)(*jobs, **filters)

    async def _edit(self, process: Process, rng: random.Random) -> None:
        for job_id in self._some_jobs(rng):
            what = self._world.memory.what_of(job_id)
            kinds = [kind for kind in self._world.kinds if what and kind.__name__ == what[0][1]]
            if kinds:
                await process.client.jobs.edit(job_id, self._world.task((kinds[0],)))

    async def _copy(self, process: Process, rng: random.Random) -> None:
        for job_id in self._some_jobs(rng)[:1]:
            copied = await process.client.jobs.copy(job_id)
            if process.alive:
                self._world.history.add(Acknowledged(job=copied))

    def _some_jobs(self, rng: random.Random) -> list[str]:
        """Return some jobs, live or not, more of those that have failed."""
        ended = self._world.memory.ended_as(JobStatus.FAILED, JobStatus.CANCELLED)
        if ended and rng.random() < 0.4:
            return [rng.choice(ended) for _ in range(rng.choice((1, 1, 3)))]
        return self._world.some_jobs(rng)

    # -- waiting -----------------------------------------------------------------------------------

    def wait(self, process: Process, rng: random.Random) -> None:
        """Wait for a job in the background, perhaps for ever; perhaps whoever waits loses patience."""
        for job_id in self._world.some_jobs(rng)[:1]:
            self.wait_for(process, job_id, rng)

    def wait_for(self, process: Process, job_id: str, rng: random.Random) -> None:
        """Wait for a job or a workflow in the background."""
        limit = rng.choice((None, None, None, 0.0, 1.0, 20.0))
        patience = rng.uniform(0, 5) if rng.random() < 0.2 else None
        task = asyncio.get_running_loop().create_task(self._wait(process, job_id, limit))
        self._waits[task] = process
        task.add_done_callback(self._waits.pop)
        if patience is not None:
            asyncio.get_running_loop().call_later(patience, task.cancel)

    async def _wait(self, process: Process, job_id: str, limit: float | None) -> None:
        history = self._world.history
        self._numbers += 1
        number = self._numbers
        history.add(WaitBegan(number=number, job=job_id, client=process.name, limit=limit))
        ended = WaitEnded(number=number, gave_up=True)
        try:
            ended = WaitEnded(number=number, status=(await process.client.wait(job_id, limit)).status)
        except LookupError:
            ended = WaitEnded(number=number)
        except (TimeoutError, *NOT_HERE):
            pass
        finally:
            if process.alive:
                history.add(ended)

    async def finish(self) -> None:
        """See that all waits have ended, now that all jobs have."""
        if self._waits:
            await asyncio.wait(self._waits, timeout=35.0)
        for task, process in list(self._waits.items()):
            if process.alive:
                self._world.history.add(Misuse(what="a wait for a job that has ended goes on"))
            task.cancel()

    # -- looking -----------------------------------------------------------------------------------

    async def look(self, process: Process) -> None:
        """Put down what was kept with each job and counted of each queue."""
        client, history = process.client, self._world.history
        names = dict.fromkeys(event.job for event in history.events if isinstance(event, Acknowledged))
        for job_id in names:
            job = await client.get(job_id)
            if job is not None:
                lines = [line.text for line in job.lines]
                history.add(
                    Kept(
                        job=job_id,
                        status=job.status,
                        lines=lines,
                        errors=len(job.errors),
                        progress=job.progress,
                    )
                )
        now = self._world.clock.now()
        counts: dict[str, dict[str, int]] = {}
        for queue, _, what, _, number in await client.open_store().stats(since=now - AGES, until=now + AGES):
            of_queue = counts.setdefault(queue, {})
            of_queue[what] = of_queue.get(what, 0) + number
        history.add(Tallied(counts=counts, letters=sorted(LETTERS)))

    def left_behind(self) -> None:
        """Put down what jobs and owners that are gone have left in the store."""
        memory, company = self._world.memory, self._world.company
        for job_id in sorted(memory.left_behind()):
            self._world.history.add(Misuse(what=f"{job_id} is gone, and left something behind"))
        if company.manner != "blind":  # else nobody knows of the dead
            for owner in sorted(company.ever[owner].number for owner in memory.watches()):
                self._world.history.add(Misuse(what=f"owner {owner} still waits for a job"))
