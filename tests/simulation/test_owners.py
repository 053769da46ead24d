"""Deaths, leases, doorbells and clocks: single properties, each in a world of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ClassVar

import pytest

from backlite_async import JobContext, JobStatus, QueueConfig, Retention, Task

from .checker import check
from .faults import Killed
from .history import (
    Buried,
    Charged,
    Claimed,
    Closed,
    Died,
    Jumped,
    Manner,
    Marked,
    Opened,
    Started,
    Stored,
    Written,
)
from .process import Process
from .test_scenarios import every
from .work import Patient, Simple, Single
from .world import World, run_world


def settle(
    make: Callable[[World], Awaitable[None]],
    seed: int,
    *,
    manner: Manner = "bells",
    latency: float = 0.01,
    lease: float = 10.0,
) -> World:
    """Run a scenario to its end; what the checker has to say against it is an error."""

    async def whole(world: World) -> None:
        await make(world)
        await world.drain()
        await world.finish()

    world, found = run_world(whole, seed, latency=latency, lease=lease, manner=manner)
    assert (found or check(world.history.events, latency=latency)) == []
    return world


async def start(world: World, *workers: int) -> list[Process]:
    processes = [world.spawn(workers=number) for number in workers]
    for process in processes:
        await process.start()
    return processes


@pytest.mark.parametrize(
    ("manner", "within"), [("bells", 0.3), ("deaf", 21.0), ("blind", 10.5)], ids=["told", "looks", "waits"]
)
def test_jobs_of_a_dead_process_run_again(manner: Manner, within: float) -> None:
    """At once, where its end is noticed; else after a look around, or when their lease has ended."""

    async def scenario(world: World) -> None:
        victim, _ = await start(world, 3, 3)
        jobs = await world.save(victim, [Simple(number=n, plan=[("ok", 50.0)] * 9) for n in range(2)])
        await asyncio.sleep(world.rng.uniform(1, 5))
        victim.kill()
        died_at = world.loop.time()
        await asyncio.sleep(within)
        starts = [event for event in every(world, Started) if event.at > died_at]
        held = {event.job for event in every(world, Started) if event.client == "client-0"}
        assert {event.job for event in starts} == held
        assert held <= set(jobs)

    for seed in range(20):
        world = settle(scenario, seed, manner=manner)
        assert all(event.crashes == 0 or event.attempt == 1 for event in every(world, Claimed))


class Brief(Task):
    """A job that is kept for a short while."""

    config: ClassVar[QueueConfig] = QueueConfig("brief", retention=Retention(duration=20.0))


def know_brief(process: Process) -> None:
    world = process.world

    async def handle(task: Brief, job: JobContext) -> None:
        world.begun(process, job)
        world.ended(process, job, "returned", None)

    process.client.register(Brief, handle)


def test_jobs_that_were_only_claimed_pay_nothing() -> None:
    """A process that dies before its handlers have started costs its jobs neither attempt nor crash."""

    async def scenario(world: World) -> None:
        victim, _ = await start(world, 4, 1)
        claimed = len(every(world, Claimed))
        await world.save(victim, [Simple(number=n) for n in range(4)])
        while len(every(world, Claimed)) == claimed:
            await asyncio.sleep(0.0005)
        victim.kill()

    untouched = 0
    for seed in range(40):
        world = settle(scenario, seed)
        marks = {(event.job, event.fence) for event in every(world, Marked)}
        for event in every(world, Written):
            if event.accepted and event.client == "client-1" and event.status is JobStatus.PENDING:
                untouched += (event.job, event.fence) not in marks
                assert (event.attempt, event.crashes) == (0, (event.job, event.fence) in marks)
    assert untouched > 40


def test_recovery_goes_on_when_those_who_recover_die() -> None:
    """One process after the other dies with the charge of the dead; the last one releases everything."""

    async def scenario(world: World) -> None:
        world.weather.haunted = 1.0
        victim, *others = await start(world, 2, 1, 1, 1)
        await world.save(victim, [Simple(number=n, plan=[("ok", 50.0)]) for n in range(2)])
        await asyncio.sleep(2)
        victim.kill()
        while sum(process.alive for process in others) > 1:
            await asyncio.sleep(0.0001)
        world.weather.haunted = 0.0

    charges = 0
    for seed in range(20):
        world = settle(scenario, seed)
        deaths = every(world, Died)
        assert len(deaths) == 3
        assert {event.owner for event in every(world, Buried)} == {1, 2, 3, 4} - _alive(world)
        charges += len(every(world, Charged))
    assert charges > 70  # most die before they have released everything


def _alive(world: World) -> set[int]:
    return {event.owner for event in every(world, Opened) if event.client not in _dead(world)}


def _dead(world: World) -> set[str]:
    return {event.client for event in every(world, Died)}


def test_owner_that_leaves_claims_is_released_by_the_others() -> None:
    """What a stop could not give back, as nothing could be written, is given back by others then."""

    async def scenario(world: World) -> None:
        leaver, _ = await start(world, 2, 2)
        await world.save(leaver, [Patient(number=n, plan=[("ok", 6.0)]) for n in range(4)])
        await asyncio.sleep(1)
        outage = asyncio.ensure_future(world.outage(30.0))
        await asyncio.sleep(1)
        assert await leaver.stop(0) is False
        await outage
        healed_at = world.loop.time()
        await asyncio.sleep(6)  # the longest pause after a failure
        left = {event.job for event in every(world, Started) if event.client == "client-0"}
        again = [event for event in every(world, Started) if event.at > healed_at]
        assert left <= {event.job for event in again}

    for seed in range(20):
        world = settle(scenario, seed)
        assert next(event.dead for event in every(world, Closed)) is True


def test_lent_owner_lives_as_long_as_its_handlers() -> None:
    """Nobody takes the job of a handler that goes on after its client was stopped."""

    async def scenario(world: World) -> None:
        stopped, _ = await start(world, 1, 1)
        await world.save(stopped, [Simple(number=1, plan=[("stubborn", 60.0)])])
        await asyncio.sleep(1)
        if not any(event.client == "client-0" for event in every(world, Started)):
            return  # the other one was quicker
        assert await stopped.stop(0) is False
        await asyncio.sleep(50)
        assert every(world, Closed) == []
        await asyncio.sleep(40)
        assert [event.dead for event in every(world, Closed)] == [True]

    for seed in range(20):
        world = settle(scenario, seed)
        assert len(every(world, Started)) == 1


@pytest.mark.parametrize("by", [3600.0, 60.0])
def test_jump_of_the_wall_takes_nothing_from_the_living(by: float) -> None:
    """Leases that all end at once are renewed before anybody takes them for lost."""

    async def scenario(world: World) -> None:
        first, *_ = await start(world, 3, 1, 1)
        await world.save(first, [Simple(number=n, plan=[("ok", 30.0)]) for n in range(5)])
        for _ in range(4):
            await asyncio.sleep(world.rng.uniform(0.1, 5))
            world.clock.jump(by)
            world.history.add(Jumped(by=by))
            await world.save(first, [Simple(number=1)])  # so that all look

    for seed in range(20):
        world = settle(scenario, seed)
        assert not any(event.lapse for event in every(world, Written))


def test_owner_that_cannot_write_loses_its_jobs_after_a_beat_more() -> None:
    """A lease that a living owner could not renew is taken a third of a lease after its end."""

    async def scenario(world: World) -> None:
        victim, _ = await start(world, 1, 5)
        while not any(event.client == "client-0" for event in every(world, Started)):
            await world.save(victim, [Simple(number=1, plan=[("ok", 40.0)])])
            await asyncio.sleep(0.2)
        victim.host.cut_off = True
        await asyncio.sleep(9.0)
        assert not any(event.lapse for event in every(world, Written))
        await asyncio.sleep(10.0)
        assert any(event.lapse for event in every(world, Written))
        victim.host.cut_off = False

    for seed in range(20):
        settle(scenario, seed)


def test_time_in_which_nobody_could_write_does_not_count() -> None:
    """An owner whose lease has ended is given its beat after an outage, not in it."""

    async def scenario(world: World) -> None:
        owner, _ = await start(world, 1, 5)
        while not any(event.client == "client-0" for event in every(world, Started)):
            await world.save(owner, [Simple(number=1, plan=[("ok", 60.0)])])
            await asyncio.sleep(0.2)
        owner.host.cut_off = True
        await asyncio.sleep(world.rng.uniform(10.5, 11.5))
        outage = asyncio.ensure_future(world.outage(20.0))
        await asyncio.sleep(10.0)
        owner.host.cut_off = False
        await outage

    for seed in range(20):
        world = settle(scenario, seed)
        assert not any(event.lapse and event.accepted for event in every(world, Written))


def test_limit_of_crashes_holds_though_who_takes_over_does_not_know_it() -> None:
    """A job that is released at its limit by a process without its handler is not run once more."""

    async def scenario(world: World) -> None:
        for _ in range(2):
            victim = world.spawn(workers=1)
            await victim.start()
            if not every(world, Stored):
                await world.save(victim, [Single(number=1, plan=[("ok", 5.0)] * 2)])
            await asyncio.sleep(1)
            victim.kill()
            stranger = world.spawn(workers=1, kinds=())
            await stranger.start()
            await asyncio.sleep(1)
            stranger.kill()
        await start(world, 1)

    for seed in range(10):
        world = settle(scenario, seed)
        starts = [event for event in every(world, Started) if event.number == 1]
        assert len(starts) == 2
        ends = [event.status for event in every(world, Written) if event.job == starts[0].job]
        assert ends[-1] is JobStatus.FAILED


def test_job_of_another_process_starts_at_once() -> None:
    """A job that one process adds starts in another one within a few ways to the store."""

    async def scenario(world: World) -> None:
        adder = world.spawn(workers=0)
        await adder.start()
        await start(world, 1)
        for _ in range(10):
            await asyncio.sleep(world.rng.uniform(0, 100))
            await world.save(adder, [Simple(number=1)])
            await world.drain()
        stored = {event.job: event.at for event in every(world, Stored)}
        late = [event.at - stored[event.job] for event in every(world, Started)]
        assert max(late) < 0.06

    for seed in range(10):
        settle(scenario, seed)


def test_job_of_a_process_that_dies_before_it_can_tell_starts_at_once() -> None:
    """Who hears the end of a process looks for jobs, too."""

    async def scenario(world: World) -> None:
        adder = world.spawn(workers=0)
        await adder.start()
        await start(world, 1)
        await adder.client.declare_queues()  # so that the add is all that it does
        await asyncio.sleep(world.rng.uniform(0, 50))
        world.weather.deaths = 1.0
        with pytest.raises(Killed):
            await adder.client.add(Simple(number=1)).save()
        world.weather.deaths = 0.0
        await asyncio.sleep(0.1)
        assert len(every(world, Stored)) == len(every(world, Started)) == 1

    for seed in range(20):
        settle(scenario, seed)


def test_expiry_goes_on_when_the_leader_dies() -> None:
    """What is kept for a while is removed when it expires, whoever leads."""

    async def scenario(world: World) -> None:
        processes = await start(world, 1, 1, 1)
        for process in processes:
            know_brief(process)
        for process in processes[:2]:
            await process.client.add(Brief()).save()
            await world.drain()
            (instant,) = [instant for instant in world.memory.expiries() if instant is not None]
            await asyncio.sleep(world.rng.uniform(0, 19))
            process.kill()
            await asyncio.sleep((instant - world.clock.now()) / 1000 + 0.5)
            assert world.memory.expiries() == []

    for seed in range(20):
        settle(scenario, seed)
