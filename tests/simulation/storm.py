"""Random worlds: everything that can go wrong, all of it drawn from one seed."""

from __future__ import annotations

import asyncio
import random
from unittest.mock import patch

from backlite_async import _ahead

from .checker import check
from .history import Event, Fault, Jumped, Manner
from .order import check_order, check_prompt
from .process import Process
from .recurring import check_schedules
from .work import DEADLY_STEPS, HOSTILE_STEPS, KINDS, LIMITED, PLAIN_STEPS, THREADED, Simple, Threaded, Work
from .world import World, run_world

__all__ = ["simulate"]


class Storm:
    """The things that happen in one world: which of them, how often, and for how long."""

    def __init__(self, rng: random.Random) -> None:
        self.calm = rng.random() < 0.15
        self.slots = 1 if self.calm else rng.choice((1, 1, 2, 3))
        manners: tuple[Manner, ...] = ("bells", "bells", "bells", "deaf", "blind")
        self.manner = rng.choice(manners)
        self.horizon = rng.choice((5.0, 20.0, 60.0))
        self.longest_wait = rng.choice((2.0, 15.0, 15.0, 200.0))
        self.latency = rng.choice((0.0, 0.003, 0.1))
        self.lease = rng.choice((1.0, 10.0, 30.0))
        self.adds = rng.randint(3, 15)
        self.hostile = not self.calm and rng.random() < 0.7
        self.deadly = self._sometimes(rng, 1.0) > 0
        self.adder = self._sometimes(rng, 1.0) > 0
        self.haunted = self._sometimes(rng, rng.choice((0.3, 0.7)))
        self.faults = self._sometimes(rng, rng.choice((0.02, 0.3)))
        self.deaths = self._sometimes(rng, 0.01)
        self.outages = self._sometimes(rng, 1.0) > 0
        self.cuts = self._sometimes(rng, 1.0) > 0
        self.stops = self._sometimes(rng, 1.0) > 0
        self.kills = self._sometimes(rng, 1.0) > 0
        self.teardowns = self._sometimes(rng, 1.0) > 0
        self.jumps = rng.random() < 0.4
        self.late_handlers = self._sometimes(rng, 1.0) > 0
        self.hasty = self._sometimes(rng, 1.0) > 0
        self.limited = tuple(kind for kind in LIMITED if rng.random() < 0.4) if rng.random() < 0.6 else ()
        self.kinds = KINDS + self.limited
        self.choosy = rng.random() < 0.6
        self.cancels = rng.randint(1, 12) if rng.random() < 0.5 else 0
        self.pauses = rng.random() < 0.4
        self.contests = rng.randint(1, 4) if rng.random() < 0.4 else 0
        self.steers = rng.randint(1, 12) if rng.random() < 0.5 else 0
        self.waits = rng.randint(1, 6) if rng.random() < 0.4 else 0
        self.shuffle = rng.random() < 0.8
        self.early = rng.choice((0.0, 0.0, 0.001))
        self.step = rng.choice((1, 1, 50))
        self.schedules = rng.randint(1, 2) if not self.calm and rng.random() < 0.3 else 0
        self.flows = rng.randint(1, 4) if rng.random() < 1 / 3 else 0
        self.flow_steers = rng.randint(1, 6) if rng.random() < 0.5 else 0

    def _sometimes(self, rng: random.Random, value: float) -> float:
        chosen = rng.random() < 0.4
        return value if chosen and not self.calm else 0.0


async def _live(world: World, storm: Storm, rng: random.Random) -> None:
    """One process after another in the same place: started, stopped, killed, started again."""
    kinds = (Simple, Threaded) if storm.late_handlers else storm.kinds
    process = world.spawn(kinds=kinds)
    until = storm.horizon
    while world.loop.time() < until:
        await process.start()
        await asyncio.sleep(rng.uniform(0, storm.horizon))
        if world.loop.time() >= until:
            break
        process.know(*rng.sample(storm.kinds, 2))
        await _end(process, storm, rng)
        if not process.alive:
            await asyncio.sleep(rng.uniform(0, 5))
            process = world.spawn(kinds=kinds)


async def _end(process: Process, storm: Storm, rng: random.Random) -> None:
    ways = [
        way
        for way, chosen in (("stop", storm.stops), ("kill", storm.kills), ("teardown", storm.teardowns))
        if chosen
    ]
    if not ways or not process.started:
        return
    way = rng.choice(ways)
    if way == "kill":
        process.kill()
    elif way == "teardown":
        await process.world.tear_down()
    else:
        limit = rng.choice((0.0, 0.5, 4.0, None))
        callers = [asyncio.ensure_future(process.stop(limit))]
        if rng.random() < 0.3:
            await asyncio.sleep(rng.uniform(0, 1))
            callers.append(asyncio.ensure_future(process.stop(rng.choice((0.0, 2.0)))))
        if rng.random() < 0.2:
            callers[0].cancel()
            callers.append(asyncio.ensure_future(process.stop(None)))
        await asyncio.wait(callers)


async def _happen(world: World, storm: Storm, rng: random.Random) -> None:
    """Let the weather change."""
    while world.loop.time() < storm.horizon:
        await asyncio.sleep(rng.uniform(0, storm.horizon / 2))
        if storm.jumps:
            if storm.longest_wait > storm.horizon and rng.random() < 0.3:
                await asyncio.sleep(storm.longest_wait / 2)
            far = 900.0 if storm.manner == "bells" else 50.0  # longer than any lease; the deaf look often
            by = rng.choice((far, -far, 5.0, -5.0))
            world.clock.jump(by)
            world.history.add(Jumped(by=by))
        if storm.outages:
            await world.outage(rng.choice((0.2, 3.0, 15.0)))


async def _cut_off(world: World, storm: Storm, rng: random.Random) -> None:
    """Keep one process after the other from using the store, for a while."""
    while storm.cuts and world.loop.time() < storm.horizon:
        await asyncio.sleep(rng.uniform(0, storm.horizon / 2))
        host = rng.choice(world.processes).host
        host.cut_off = True
        await asyncio.sleep(rng.uniform(0, 2.5 * storm.lease))
        host.cut_off = False


async def _add(world: World, storm: Storm, rng: random.Random, kinds: tuple[type[Work], ...]) -> None:
    await asyncio.sleep(rng.uniform(0, storm.horizon))
    started = [process for process in world.processes if process.started]
    if not started:
        return
    adding = asyncio.ensure_future(world.add_some(rng.choice(started), kinds))
    if storm.hasty and rng.random() < 0.3:  # whoever adds is cancelled in the middle of it
        await asyncio.sleep(rng.uniform(0, storm.latency * 2))
        adding.cancel()
    await asyncio.wait([adding])
    if not adding.cancelled():
        adding.result()


async def _contend(world: World, storm: Storm, rng: random.Random, kinds: tuple[type[Work], ...]) -> None:
    """Have several processes add the same at once."""
    await asyncio.sleep(rng.uniform(0, storm.horizon))
    started = [process for process in world.processes if process.started]
    if started:
        await world.contend([rng.choice(started) for _ in range(3)], (rng.choice(kinds),))


async def _cancel(world: World, storm: Storm, rng: random.Random) -> None:
    """Cancel some jobs at any moment, from any process."""
    await asyncio.sleep(rng.uniform(0, storm.horizon))
    started = [process for process in world.processes if process.started]
    if started:
        await world.cancel(rng.choice(started), world.some_jobs(rng))


async def _steer(world: World, storm: Storm, rng: random.Random) -> None:
    """Do something to some jobs at any moment, from any process."""
    await asyncio.sleep(rng.uniform(0, storm.horizon))
    started = [process for process in world.processes if process.started]
    if started:
        await world.people.steer(rng.choice(started), rng, calm=storm.calm)


async def _wait(world: World, storm: Storm, rng: random.Random) -> None:
    """Begin to wait for a job."""
    await asyncio.sleep(rng.uniform(0, storm.horizon))
    started = [process for process in world.processes if process.started]
    if started:
        world.people.wait(rng.choice(started), rng)


async def _weave(world: World, storm: Storm, rng: random.Random, kinds: tuple[type[Work], ...]) -> None:
    """Add a workflow; sometimes steer one a while later."""
    await asyncio.sleep(rng.uniform(0, storm.horizon))
    started = [process for process in world.processes if process.started]
    if started:
        await world.weavers.weave(rng.choice(started), rng, kinds)
    for _ in range(storm.flow_steers):
        await asyncio.sleep(rng.uniform(0, storm.horizon / 3))
        started = [process for process in world.processes if process.started]
        if started:
            await world.weavers.steer(rng.choice(started), rng)


async def _pause(world: World, storm: Storm, rng: random.Random) -> None:
    """Pause one queue after the other, for a while, everywhere or in one process."""
    while storm.pauses and world.loop.time() < storm.horizon:
        await asyncio.sleep(rng.uniform(0, storm.horizon / 3))
        started = [process for process in world.processes if process.started]
        if not started:
            continue
        process, queue = rng.choice(started), rng.choice(storm.kinds).config.name
        here = rng.random() < 0.3
        world.in_background(process, world.pause(process, queue, here=here, wait=rng.random() < 0.4))
        await asyncio.sleep(rng.uniform(0, storm.horizon / 3))
        again = process if here or not process.started else rng.choice(started)
        await world.resume(again, queue, here=here)


async def _unfold(world: World, storm: Storm) -> None:
    rng = world.rng
    world.repeat(storm.schedules)
    kinds = tuple(kind for kind in storm.kinds if not (storm.calm and kind in THREADED))
    world.kinds, world.choosy = storm.kinds, storm.choosy
    crowded = tuple(kind for kind in storm.limited if kind in kinds)
    weather = world.weather
    weather.faults, weather.deaths, weather.haunted = storm.faults, storm.deaths, storm.haunted
    world.steps = HOSTILE_STEPS if storm.hostile else PLAIN_STEPS
    world.steps = DEADLY_STEPS if storm.deadly else world.steps
    if storm.cancels and not storm.calm:
        world.steps += ("cancel",)
    world.longest_wait = storm.longest_wait
    if storm.adder:
        await world.spawn(kinds=storm.kinds, workers=0).start()
    async with asyncio.TaskGroup() as group:
        for _ in range(storm.slots):
            group.create_task(_live(world, storm, random.Random(rng.random())))
        for _ in range(storm.adds):
            some = (rng.choice(crowded),) if crowded and rng.random() < 0.6 else kinds
            group.create_task(_add(world, storm, random.Random(rng.random()), some))
        for _ in range(storm.cancels):
            group.create_task(_cancel(world, storm, random.Random(rng.random())))
        for _ in range(storm.contests):
            group.create_task(_contend(world, storm, random.Random(rng.random()), kinds))
        for _ in range(storm.steers):
            group.create_task(_steer(world, storm, random.Random(rng.random())))
        for _ in range(storm.waits):
            group.create_task(_wait(world, storm, random.Random(rng.random())))
        for _ in range(storm.flows):
            group.create_task(_weave(world, storm, random.Random(rng.random()), kinds))
        for change in (_happen, _cut_off, _pause):
            group.create_task(change(world, storm, random.Random(rng.random())))
    world.weather.clear()
    world.steps, world.deadly = ("ok",), False
    alive = [process for process in world.processes if process.alive]
    if not any(process.workers for process in alive):
        alive.append(world.spawn(kinds=storm.kinds))
    for process in alive:
        process.know(*storm.kinds)
        await process.start()
    await world.resume_all()
    await world.see_schedules_out()
    await world.drain()
    await world.probe()
    await world.ask_all()
    await world.finish()


def simulate(seed: int) -> tuple[list[Event], list[str]]:
    """Run the world of a seed; return its history and what is wrong with it."""
    storm = Storm(random.Random(f"storm {seed}"))

    async def unfold(world: World) -> None:
        await _unfold(world, storm)

    known_after = random.Random(f"ahead {seed}").choice((1, 1, 4, _ahead.KNOWN_AFTER))
    with patch.object(_ahead, "KNOWN_AFTER", known_after):
        world, found = run_world(
            unfold,
            seed,
            latency=storm.latency,
            lease=storm.lease,
            manner=storm.manner,
            shuffle=storm.shuffle,
            early=storm.early,
            step=storm.step,
        )
    events = world.history.events
    if found:
        return events, found
    found = check(events, latency=storm.latency) + check_schedules(world, storm.schedules)
    if storm.calm:
        workers = world.processes[0].workers
        if storm.manner == "bells" or not storm.jumps:  # else nobody heeds the wall
            found += check_prompt(events, workers=workers, within=6 * storm.latency + 0.01)
        found += check_order(events)
        found += [f"fault: {event} in calm weather" for event in events if isinstance(event, Fault)]
    return events, found
