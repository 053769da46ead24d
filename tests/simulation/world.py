"""A world: processes with clients over one store, what their jobs do, and what there is to do with them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import anyio

from backlite_async import (
    AlreadyExists,
    DatabaseUnavailable,
    InvalidState,
    JobContext,
    JobStatus,
    Snooze,
    _log,
)
from backlite_async._add import AddOperation
from backlite_async._clock import from_millis
from backlite_async._options import OnConflict

from .clock import SimClock
from .company import Company
from .faults import Killed, Weather
from .history import (
    Acknowledged,
    Ended,
    Final,
    History,
    How,
    Logged,
    Manner,
    Misuse,
    Outage,
    Paused,
    Probed,
    Rested,
    Resumed,
    Said,
    Started,
    StopAsked,
)
from .loop import Deadlock, Livelock, SimLoop
from .memory import SharedMemory
from .process import Process
from .steering import People
from .weaving import Weavers
from .work import (
    KEYED,
    KINDS,
    PLAIN_STEPS,
    QUEUES,
    WILLING_STEPS,
    Probe,
    Simple,
    Step,
    Work,
    how_it_ended,
    raise_as_planned,
    rule_of,
)

__all__ = ["EVERY", "RUNS", "World", "run_world"]

EVERY, RUNS = (0.7, 11.0), 4
"""The intervals of schedules in seconds, and how often they run."""

CONFLICTS: tuple[OnConflict, ...] = ("keep", "replace", "raise")


class World:
    """Everything in one simulation."""

    def __init__(
        self,
        loop: SimLoop,
        rng: random.Random,
        *,
        latency: float = 0.0,
        lease: float = 10.0,
        manner: Manner = "bells",
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.clock = SimClock(loop)
        self.history = History(self.clock)
        self.memory = SharedMemory()
        self.company = Company(rng, self.history, manner, self.memory.claimed_by)
        self.weather = Weather(latency=latency)
        self.lease = lease
        self.processes: list[Process] = []
        self.executions: dict[str, int] = {}
        self.numbers = 0
        self.steps: tuple[str, ...] = PLAIN_STEPS
        self.longest_wait = 15.0
        self.deadly = True
        self.expected, self.met = 0, asyncio.Event()
        self.meeting = self.most_met = 0
        self.leaks: set[asyncio.Task[None]] = set()
        self.kinds = KINDS
        self.choosy = False
        self.known: list[str] = []
        self.paused: set[str] = set()
        self.waiters: dict[asyncio.Task[None], Process] = {}
        self.people = People(self)
        self.repeated: list[Work] = []
        self.weavers = Weavers(self)
        for queue in (*QUEUES, Probe.config):
            self.history.add(rule_of(queue))

    def spawn(self, *, kinds: tuple[type[Work], ...] = KINDS, workers: int | None = None) -> Process:
        """Make a process that knows these kinds."""
        process = Process(self, f"client-{len(self.processes)}", workers)
        self.processes.append(process)
        process.know(*kinds)
        for number, task in enumerate(self.repeated):
            said: dict[str, Any] = {"every": EVERY[number], "max_runs": RUNS, "missed": "all"}
            process.client.schedule(f"schedule {number}", task, **said)
        return process

    def repeat(self, count: int) -> None:
        """Let every process that is made from now on declare so many schedules."""
        self.repeated = [Simple(number=-1 - number, plan=[]) for number in range(count)]

    async def see_schedules_out(self) -> None:
        """Wait until all schedules have had their runs."""
        until = self.loop.time() + 400 + self.clock.went_back
        while self.loop.time() < until:
            if all(schedule.next_at is None for schedule in await self.memory.schedules()):
                return
            await asyncio.sleep(0.5)

    # -- what jobs do ------------------------------------------------------------------------------

    def task(self, kinds: tuple[type[Work], ...] = KINDS) -> Work:
        """Return a task with a random plan."""
        self.numbers += 1
        longest = self.rng.choice((0.0, 0.1, 2.0, 6.0))
        plan = [
            (self.rng.choice(self.steps), round(self.rng.uniform(0, longest), 3))
            for _ in range(self.rng.randint(0, 3))
        ]
        return self.rng.choice(kinds)(number=self.numbers, plan=plan)

    def _next_step(self, task: Work, job: JobContext) -> Step:
        done = self.executions.get(job.id, 0)
        self.executions[job.id] = done + 1
        return task.plan[done] if done < len(task.plan) else ("ok", 0.0)

    def begun(
        self, process: Process, job: JobContext, *, willing: bool = False, number: int | None = None
    ) -> None:
        if process.alive:
            self.history.add(
                Started(
                    job=job.id,
                    client=process.name,
                    life=process.life,
                    workers=process.workers,
                    fence=job.fence,
                    attempt=job.attempt,
                    willing=willing,
                    number=number,
                )
            )

    def ended(self, process: Process, job: JobContext, how: How, wait: float | None) -> None:
        if process.alive:
            self.history.add(Ended(job=job.id, client=process.name, fence=job.fence, how=how, wait=wait))

    def perform_now(self, process: Process, task: Work, job: JobContext) -> None:
        """Do what the plan says, without waiting."""
        name, seconds = self._next_step(task, job)
        self.begun(process, job, number=task.number)
        how: How = "returned"
        wait = None
        try:
            raise_as_planned(name, seconds)
        except BaseException as error:
            how, wait = how_it_ended(error)
            raise
        finally:
            self.ended(process, job, how, wait)

    async def perform(self, process: Process, task: Work, job: JobContext) -> None:
        """Do what the plan says, and put it down."""
        name, seconds = self._next_step(task, job)
        self.begun(process, job, willing=name in WILLING_STEPS, number=task.number)
        how: How = "returned"
        wait = None
        try:
            await self._act(process, job, name, seconds)
            raise_as_planned(name, seconds)
        except BaseException as error:
            how, wait = how_it_ended(error)
            raise
        finally:
            self.ended(process, job, how, wait)

    async def _cancel_own(self, seconds: float) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        if seconds < 1:
            await asyncio.sleep(0)  # else it returns before the cancellation can reach it

    async def _act(self, process: Process, job: JobContext, name: str, seconds: float) -> None:
        if name in ("late", "stubborn"):
            await self._swallow(seconds + (6.0 if name == "stubborn" else 0.0))
        elif name == "cancel own":
            await self._cancel_own(seconds)
        elif name == "add":
            with contextlib.suppress(DatabaseUnavailable, InvalidState):
                await self.save(process, [self.task((Simple,))])
        elif name == "leak":
            leak = asyncio.get_running_loop().create_task(asyncio.sleep(seconds * 3))
            self.leaks.add(leak)
        elif name == "own scope":
            with anyio.move_on_after(seconds / 2):
                await asyncio.sleep(seconds)
        elif name == "parting snooze":
            try:
                await asyncio.sleep(seconds + 2.0)
            except asyncio.CancelledError:
                raise Snooze(seconds) from None
        elif name in ("extend", "extend fail", "extend commit", "commit"):
            await self._extend(process, job, name, seconds)
        elif name == "die":
            await asyncio.sleep(seconds / 2)
            if self.deadly:
                process.kill()
                raise Killed
        elif name in ("report", "cancel"):
            await self._speak(process, job, name, seconds)
        elif name not in ("snooze", "retry"):
            await asyncio.sleep(seconds)

    async def _extend(self, process: Process, job: JobContext, name: str, seconds: float) -> None:
        """Add to a workflow, or commit the outcome before the end, or one after the other."""
        if name != "commit":
            await asyncio.sleep(seconds / 3)
            await self.weavers.extend(process, job)
        if name.endswith("commit"):
            async with job.transaction():
                await asyncio.sleep(seconds / 3)
        await asyncio.sleep(seconds / 2)

    async def _speak(self, process: Process, job: JobContext, name: str, seconds: float) -> None:
        if name == "report":
            await self._report(process, job, seconds)
        else:
            await self.cancel(process, self.some_jobs(self.rng))
            await asyncio.sleep(seconds)

    async def _report(self, process: Process, job: JobContext, seconds: float) -> None:
        """Say a few lines, and how far it is; sometimes wait meanwhile, so that some are written before."""
        said = Said(job=job.id, client=process.name, fence=job.fence, lines=[], progress=0.0)
        if process.alive:
            self.history.add(said)
        for number in range(3):
            line = f"{job.fence}.{number} of {process.name}"
            job.log.info(line)
            said.lines.append(line)
            said.progress = (number + 1) / 4
            await job.progress(said.progress, line)
            await asyncio.sleep(seconds / 3)

    async def _swallow(self, seconds: float) -> None:
        """Go on for a while whatever happens: refuse a few cancellations, then hide from them."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        for _ in range(3):
            try:
                await asyncio.sleep(max(0.0, until - loop.time()))
                return
            except asyncio.CancelledError:
                continue
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(max(0.0, until - loop.time()))

    async def meet(self) -> None:
        """Wait until as many of these run as there are workers."""
        self.meeting += 1
        self.most_met = max(self.meeting, self.most_met)
        if self.meeting >= self.expected:
            self.met.set()
        try:
            with anyio.move_on_after(120):
                await self.met.wait()
        finally:
            self.meeting -= 1

    # -- adding ------------------------------------------------------------------------------------

    async def save(
        self,
        process: Process,
        tasks: list[Any],
        *,
        wait: float | None = None,
        at: int | None = None,
        options: Callable[[AddOperation], object] = lambda _: None,
    ) -> list[str]:
        """Add jobs, and put down what `save()` acknowledges."""
        operation = process.client.add(*tasks)
        if wait is not None:
            operation.wait(timedelta(seconds=wait))
        if at is not None:
            operation.at(from_millis(at))
        options(operation)
        ids: list[str] = []
        for attempt in range(4):
            try:
                ids = await operation.save()
                break
            except DatabaseUnavailable:
                if attempt == 3 or not process.started:
                    raise
                await asyncio.sleep(self.rng.uniform(0, 1))
            except AlreadyExists as error:
                ids = [error.job_id]
                break
        if process.alive:
            self.known += ids
            for job in ids:
                self.history.add(Acknowledged(job=job))
        return ids

    async def add_some(self, process: Process, kinds: tuple[type[Work], ...] = KINDS) -> None:
        """Add one or several random jobs, now or later."""
        tasks = [self.task(kinds) for _ in range(self.rng.choice((1, 1, 2, 7)))]
        wait = self.rng.uniform(0, self.longest_wait) if self.rng.random() < 0.3 else None
        at = None
        if self.rng.random() < 0.2:
            at = self.clock.now() + self.rng.randint(-5_000, 20_000)
        options = self.options(tasks)
        with contextlib.suppress(DatabaseUnavailable, InvalidState, Killed):
            await self.save(process, tasks, wait=wait, at=at, options=options)

    async def contend(self, processes: list[Process], kinds: tuple[type[Work], ...]) -> None:
        """Add the same from several processes at once."""
        task = self.task(kinds)
        key, conflict = self.rng.choice("uvw"), self.rng.choice(CONFLICTS)
        within = self.rng.choice((None, 5.0, 60.0))
        own = self.rng.random() < 0.4

        def options(operation: AddOperation) -> None:
            if own:
                operation.id(f"own-{key}", on_conflict=conflict)
            else:
                operation.unique(key, within=within, on_conflict=conflict)

        async def add(process: Process) -> None:
            with contextlib.suppress(DatabaseUnavailable, InvalidState, Killed):
                await self.save(process, [task], options=options)

        async with asyncio.TaskGroup() as group:
            for process in processes:
                group.create_task(add(process))

    def options(self, tasks: list[Work]) -> Callable[[AddOperation], None]:
        """Return what sets random options of an add."""
        rng = self.rng
        keyed = tasks[0].config.name in KEYED
        key = rng.choice("abc") if rng.random() < (0.9 if keyed else 0.1) else None
        chosen = [self.choosy and rng.random() < 0.3 for _ in range(5)]
        name, conflict = rng.choice("uvw"), rng.choice(CONFLICTS)
        within = rng.choice((None, None, 5.0, 60.0))
        tag = rng.choice("xy") if self.choosy and rng.random() < 0.3 else None
        priority, attempts, timeout = rng.randint(-10, 10), rng.randint(1, 4), rng.choice((0.5, 2.0, 9.0))

        def options(operation: AddOperation) -> None:
            if key is not None:
                operation.key(key)
            if chosen[0]:
                operation.priority(priority)
            if chosen[1]:
                operation.max_attempts(attempts)
            if chosen[2]:
                operation.timeout(timeout)
            if tag is not None:
                operation.tags(tag)
            if chosen[3] and len(tasks) == 1:
                operation.unique(name, within=within, on_conflict=conflict)
            if chosen[4] and len(tasks) == 1:
                operation.id(f"own-{name}", on_conflict=conflict)

        return options

    # -- orders ------------------------------------------------------------------------------------

    def some_jobs(self, rng: random.Random) -> list[str]:
        """Return some jobs, most of them live, if there are any."""
        live = [row[0] for row in self.memory.rows()]
        running = [row[0] for row in self.memory.rows() if row[1] is JobStatus.RUNNING]
        where = rng.choice((live, live, running, self.known))
        return [rng.choice(where) for _ in range(rng.choice((1, 1, 3)))] if where else []

    async def cancel(self, process: Process, jobs: list[str]) -> None:
        """Cancel jobs, if that works."""
        with contextlib.suppress(DatabaseUnavailable, InvalidState, Killed):
            await process.client.cancel(*jobs)

    async def pause(self, process: Process, queue: str, *, here: bool, wait: bool) -> None:
        """Pause a queue, and see it come to rest."""
        since, life = self.loop.time(), process.life
        client = process.name if here else None
        with contextlib.suppress(DatabaseUnavailable, InvalidState, Killed):
            if here:
                await process.client.pause(queue, here=True)
                self.history.add(Paused(queue=queue, client=client, told=True))
            if wait or not here:
                await process.client.pause(queue, wait=wait, here=here)
            if wait:
                self.history.add(Rested(queue=queue, client=client, life=life, since=since))

    async def resume(self, process: Process, queue: str, *, here: bool) -> None:
        """Resume a queue, if that works."""
        with contextlib.suppress(DatabaseUnavailable, InvalidState, Killed):
            self.history.add(Resumed(queue=queue, client=process.name))
            await process.client.resume(queue, here=here)

    def in_background(self, process: Process, what: Coroutine[Any, Any, None]) -> None:
        """Do something in a process that may last until all jobs have ended."""
        task = asyncio.get_running_loop().create_task(what)
        self.waiters[task] = process
        task.add_done_callback(self.waiters.pop)

    async def resume_all(self) -> None:
        """Let everything run again."""
        alive = [process for process in self.processes if process.started]
        for process in alive:
            for queue in sorted({kind.config.name for kind in self.kinds}):
                await self.resume(process, queue, here=process is not alive[0])

    async def tear_down(self) -> None:
        """Cancel every task of the library, as `asyncio.run` does at its end, and see them stop."""
        processes = [process for process in self.processes if process.started]
        for process in processes:
            self.history.add(StopAsked(client=process.name, life=process.life, limit=0))
        for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
            if task.get_name().startswith("backlite"):
                task.cancel()
        for process in processes:
            await process.stop(0)

    async def outage(self, seconds: float) -> None:
        """Let everything fail for a while."""
        self.weather.outage = True
        self.history.add(Outage(begins=True))
        await asyncio.sleep(seconds)
        self.weather.outage = False
        self.history.add(Outage(begins=False))

    # -- the end -----------------------------------------------------------------------------------

    async def drain(self, patience: float = 3600.0) -> None:
        """Wait until every job has ended, for so many seconds and those by which the wall went back."""
        began = self.loop.time()
        until = began + patience + self.clock.went_back
        while self.memory.rows() and self.loop.time() < until:
            await asyncio.sleep(0.5 if self.loop.time() < began + 60 else 30)

    async def probe(self) -> None:
        """See whether as many jobs run at once as there are workers."""
        alive = [process for process in self.processes if process.started]
        self.expected = sum(process.workers for process in alive)
        self.most_met = 0
        self.met.clear()
        await self.save(alive[0], [Probe() for _ in range(self.expected)])
        await self.drain(400)
        self.history.add(Probed(expected=self.expected, met=self.most_met))

    async def ask_all(self) -> None:
        """Put down what the client says of every job, and what there is of workflows."""
        for event in (*self.memory.flowing.look(), *self.memory.flowing.left()):
            self.history.add(event)
        alive = next(process for process in self.processes if process.started)
        names = dict.fromkeys(event.job for event in self.history.events if isinstance(event, Acknowledged))
        for job in names:
            status = await alive.client.status(job)
            self.history.add(Final(job=job, status=status))
        await self.people.look(alive)

    async def settle(self) -> None:
        """Wait until the dead are buried, for as long as that may take."""
        until = self.loop.time() + 2 * self.lease
        while self.company.lingering and self.loop.time() < until:
            await asyncio.sleep(0.5)
        until = self.loop.time() + (
            6.0 if self.company.manner == "bells" else 2 * min(30.0, self.lease) + 6.0
        )
        while self.company.unburied and self.loop.time() < until:
            await asyncio.sleep(0.5)
        for owner in self.company.unburied:
            self.history.add(Misuse(what=f"owner {owner.number} was never buried"))

    async def finish(self) -> None:
        """Stop everything and look for what is left."""
        await self.settle()
        await self.people.finish()
        if self.waiters:
            await asyncio.wait(self.waiters, timeout=5.0)
        for waiter, process in self.waiters.items():
            if process.alive:
                self.history.add(Misuse(what="a wait for a paused queue to rest never ended"))
            waiter.cancel()
        for process in self.processes:
            if process.started and not await process.stop(60.0):
                self.history.add(Misuse(what="the last stop, with nothing to do, said False"))
        self.people.left_behind()
        for process in self.processes:
            if not process.alive:
                await process.client.stop(0)
        for leak in self.leaks:
            leak.cancel()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in sorted(others, key=lambda task: task.get_name()):
            if not task.done() and task.get_name().startswith("backlite"):
                await asyncio.wait([task], timeout=100)
            if not task.done() and task.get_name().startswith("backlite"):
                self.history.add(Misuse(what=f"task {task.get_name()} is left"))
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0)), *others])

    def unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Put down what nobody handled; what a killed process leaves behind is no concern."""
        error = context.get("exception")
        if not isinstance(error, Killed):
            self.history.add(Misuse(what=f"{context.get('message')}: {error!r}"))


@contextlib.contextmanager
def patched(world: World) -> Iterator[None]:
    """Have log lines in the history, and `def` handlers without threads."""

    def emit(event: _log.Event, /, **fields: object) -> None:
        fields.pop("owner", None)  # which no seed decides, nor where a scope lies
        if isinstance(error := fields.get("error"), str):
            fields["error"] = re.sub("scope [0-9a-f]+", "scope", error)
        world.history.add(Logged(event=event.name, fields=fields))

    async def run_sync(
        function: Callable[..., Any], *arguments: Any, limiter: anyio.CapacityLimiter
    ) -> object:
        await anyio.lowlevel.checkpoint()
        async with limiter:
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(world.rng.choice((0.0, 0.01, 0.5)))
            return function(*arguments)

    def no_frames(_: object) -> list[traceback.FrameSummary]:
        return []  # nobody reads them here, and they are looked up in files

    with (
        mock.patch.object(_log, "emit", emit),
        mock.patch("anyio.to_thread.run_sync", run_sync),
        mock.patch("traceback.extract_tb", no_frames),
    ):
        yield


_wrecks: list[set[asyncio.Task[Any]]] = []
"""Tasks of worlds that broke: kept, for what would be said at their deletion adds nothing."""


def run_world(
    make: Callable[[World], Awaitable[None]],
    seed: int,
    *,
    latency: float = 0.0,
    lease: float = 10.0,
    shuffle: bool = True,
    manner: Manner = "bells",
    early: float = 0.0,
    step: int = 1,
) -> tuple[World, list[str]]:
    """Run a world to its end; return it, with what went wrong outright: a deadlock, a livelock."""
    loop = SimLoop(seed, shuffle=shuffle, early=early, step=step)
    rng = random.Random(f"world {seed}")
    world = World(loop, rng, latency=latency, lease=lease, manner=manner)
    loop.set_exception_handler(world.unhandled)

    async def main() -> None:
        await make(world)

    try:
        with patched(world):
            loop.run_until_complete(main())
    except (Deadlock, Livelock) as error:
        _wrecks.append(asyncio.all_tasks(loop))
        return world, [f"{type(error).__name__.lower()}: {error}"]
    except (Exception, Killed, SystemExit) as error:
        _wrecks.append(asyncio.all_tasks(loop))
        return world, [f"the world broke: {type(error).__name__}: {error}"]
    finally:
        loop.set_exception_handler(lambda _loop, _context: None)
        loop.close()
    return world, []
