"""Pauses, cancellations and limits: single properties, each in a world of its own."""

from __future__ import annotations

import asyncio
from operator import methodcaller

import pytest

from backlite_async import JobStatus

from .history import Claimed, Manner, Started, Written
from .process import Process
from .test_owners import settle
from .test_scenarios import every
from .work import KINDS, LIMITED, Lone, Paced, Patient, Simple, Single, Turn, Work
from .world import World


async def start(world: World, *workers: int) -> list[Process]:
    processes = [world.spawn(kinds=KINDS + LIMITED, workers=number) for number in workers]
    for process in processes:
        await process.start()
    return processes


@pytest.mark.parametrize("manner", ["bells", "deaf", "blind"])
def test_resumed_queue_is_claimed_once_by_whoever_has_not_heard_of_it(manner: Manner) -> None:
    """A claim that was asked for after the last look at orders knows better; nothing goes in circles."""

    async def scenario(world: World) -> None:
        one, other = await start(world, 0, 2)
        await world.save(one, [Simple(number=0, plan=[("ok", 0.0)])])
        await one.client.pause("plain")
        await asyncio.sleep(100)  # by now everybody knows
        for _ in range(3):
            await world.save(one, [Simple(number=1, plan=[("ok", 0.0)])])
        await one.client.resume("plain")
        other.client.notify()

    for seed in range(10):
        world = settle(scenario, seed, manner=manner)
        assert len(every(world, Claimed)) <= len(every(world, Started)) + 2


def test_pause_here_lets_others_go_on() -> None:
    """A queue that is paused in one process runs in another."""

    async def scenario(world: World) -> None:
        one, other = await start(world, 4, 1)
        await one.client.pause("plain", here=True)
        await world.save(one, [Simple(number=n, plan=[("ok", 0.1)]) for n in range(6)])
        await asyncio.sleep(5)
        assert {event.client for event in every(world, Started)} == {other.name}
        await one.client.resume("plain", here=True)

    for seed in range(5):
        settle(scenario, seed)


@pytest.mark.parametrize("state", ["its queue is full", "no worker is free", "it runs"])
def test_cancelled_job_ends_within_a_moment(state: str) -> None:
    """From another process, whatever it does just then."""

    async def scenario(world: World) -> None:
        one, other = await start(world, 1, 0)
        first = await world.save(one, [Lone(number=0, plan=[("ok", 4.0)])])
        jobs = first if state == "it runs" else []
        if state == "its queue is full":
            jobs = await world.save(one, [Lone(number=1)])
        elif state == "no worker is free":
            jobs = await world.save(one, [Patient(number=1)])
        await asyncio.sleep(1)
        assert await other.client.cancel(*jobs) == 1
        await asyncio.sleep(0.15)
        status = await other.client.status(jobs[0])
        assert status in (JobStatus.CANCELLED, JobStatus.NOT_FOUND)

    for seed in range(5):
        settle(scenario, seed)


async def claim_in_flight(world: World, adder: Process, kind: type[Work]) -> list[str]:
    """Return a job that is claimed, which its process does not know for a while."""
    jobs = await world.save(adder, [kind(number=1, plan=[("ok", 5.0)])], wait=1.0)
    await asyncio.sleep(0.9)  # so that nothing else is on its way
    world.weather.latency = 4.0
    while not every(world, Claimed):
        await asyncio.sleep(0.01)
    world.weather.latency = 0.0
    return jobs


def test_job_that_is_cancelled_while_its_claim_is_in_flight_does_not_start() -> None:
    """It ends when the claim is handed over."""

    async def scenario(world: World) -> None:
        adder, _ = await start(world, 0, 1)
        jobs = await claim_in_flight(world, adder, Patient)
        await adder.client.cancel(*jobs)

    begun = 0
    for seed in range(20):
        world = settle(scenario, seed, latency=0.0)
        [last] = [event for event in every(world, Written) if event.accepted]
        assert last.status is JobStatus.CANCELLED
        begun += len(every(world, Started))
    assert begun < 5  # now and then the claim comes first


def test_job_that_is_paused_while_its_claim_is_in_flight_does_not_start() -> None:
    """It is given back when the claim is handed over."""

    async def scenario(world: World) -> None:
        adder, _ = await start(world, 0, 1)
        await claim_in_flight(world, adder, Patient)
        await adder.client.pause("long")
        await asyncio.sleep(10)
        await adder.client.resume("long")

    begun = 0
    for seed in range(20):
        world = settle(scenario, seed, latency=0.0)
        begun += any(event.at < 10 for event in every(world, Started))
    assert begun < 5


@pytest.mark.parametrize("order", ["cancel", "pause"])
def test_order_reaches_a_job_that_waits_to_run_alone(order: str) -> None:
    """It has its last chance, and waits until nothing else runs."""

    async def scenario(world: World) -> None:
        victim, adder = await start(world, 1, 0)
        [job] = await world.save(adder, [Single(number=0, plan=[("die", 0.0), ("ok", 1.0)])])
        while victim.alive:
            await asyncio.sleep(0.1)
        (process,) = await start(world, 3)
        await world.save(process, [Simple(number=1, plan=[("ok", 3.0)])], options=methodcaller("priority", 9))
        while len(every(world, Claimed)) < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        before = len(every(world, Started))
        if order == "cancel":
            await adder.client.cancel(job)
        else:
            await adder.client.pause("once")
        await asyncio.sleep(10)
        assert len(every(world, Started)) == before
        await adder.client.resume("once")

    for seed in range(5):
        settle(scenario, seed)


def test_place_of_a_dead_process_is_taken_within_a_second() -> None:
    """Limits count what is claimed, so that what is released counts no longer."""

    async def scenario(world: World) -> None:
        victim, other = await start(world, 2, 2)
        await other.client.pause("lone", here=True)
        await world.save(victim, [Lone(number=n, plan=[("ok", 3.0)] * 2) for n in range(2)])
        await asyncio.sleep(1)
        await other.client.resume("lone", here=True)
        victim.kill()
        died_at = world.loop.time()
        await asyncio.sleep(0.5)
        assert [event.client for event in every(world, Started) if event.at > died_at] == [other.name]

    for seed in range(5):
        settle(scenario, seed)


def test_keys_take_turns_and_their_jobs_come_in_order() -> None:
    """One of each key runs at a time; the next one begins when it has ended."""

    async def scenario(world: World) -> None:
        (process,) = await start(world, 4)
        for key in "aab":
            tasks = [Turn(number=n, plan=[("ok", 1.0)]) for n in range(2)]
            await world.save(process, tasks, options=methodcaller("key", key))

    for seed in range(5):
        world = settle(scenario, seed, latency=0.001)
        ends = [event.at for event in every(world, Written) if event.accepted]
        assert len(ends) == 6
        assert max(ends) < 4.5  # four of "a", a second each


def test_rate_is_used_up() -> None:
    """Two jobs start in three seconds, not fewer."""

    async def scenario(world: World) -> None:
        one, _ = await start(world, 2, 2)
        await world.save(one, [Paced(number=n) for n in range(8)])

    for seed in range(5):
        world = settle(scenario, seed, latency=0.001)
        starts = [event.at for event in every(world, Started)]
        assert 9.0 <= starts[7] - starts[0] < 9.3
