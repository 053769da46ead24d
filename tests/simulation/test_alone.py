"""Jobs with a last chance, and waits under a wall clock that moves: single properties, each in a world."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from backlite_async import JobStatus

from .history import Died, Jumped, Started, Written
from .order import check_prompt
from .test_owners import settle, start
from .test_scenarios import every
from .work import Patient, Simple, Single, Work
from .world import World


@pytest.mark.parametrize("kind", [Work, Single, Patient])
def test_neighbours_of_a_job_that_kills_its_process_do_not_pay_for_its_last_chance(kind: type[Work]) -> None:
    """Each of its deaths costs what runs beside it a crash, but the last one, for which it is alone."""

    async def scenario(world: World) -> None:
        (process,) = await start(world, 4)
        await world.save(process, [kind(number=0, plan=[("die", 0.4)] * 9)])
        await world.save(process, [Simple(number=n, plan=[("ok", 1.0)] * 9) for n in range(1, 8)])
        while world.memory.rows():
            if not process.alive:
                (process,) = await start(world, 4)
            await asyncio.sleep(0.1)
        if not process.alive:
            await start(world, 4)

    for seed in range(10):
        world = settle(scenario, seed)
        last = every(world, Died)[-1]
        beside = {
            event.job for event in every(world, Started) if event.client == last.client and event.at < last.at
        }
        ended = {event.job for event in every(world, Written) if event.accepted and event.at <= last.at}
        assert len(every(world, Died)) == kind.config.max_crashes
        assert len(beside - ended) <= 1
        failed = [event for event in every(world, Written) if event.status is JobStatus.FAILED]
        assert [event.crashes for event in failed if event.accepted] == [kind.config.max_crashes]


def test_last_chance_holds_others_up_once_for_five_seconds() -> None:
    """While it waits to be alone nothing starts, for a while; then all goes on, and it waits."""

    async def scenario(world: World) -> None:
        (victim,) = await start(world, 1)
        await world.save(victim, [Single(number=0, plan=[("die", 0.0), ("ok", 1.0)])])
        while victim.alive:
            await asyncio.sleep(0.1)
        (process,) = await start(world, 3)
        await world.save(process, [Simple(number=1, plan=[("ok", 30.0)])])
        while world.loop.time() < 40:
            await world.save(process, [Simple(number=2, plan=[("ok", 0.1)])])
            await asyncio.sleep(0.5)

    for seed in range(10):
        world = settle(scenario, seed)
        starts = [event.at for event in every(world, Started)]
        gaps = sorted(after - before for before, after in pairwise(starts))
        assert gaps[-1] < 6.2  # its patience, and its run
        assert gaps[-3] < 1.5


def test_last_chance_goes_to_a_process_that_is_idle() -> None:
    """Where one process has no pause for it, another one that has runs it."""

    async def scenario(world: World) -> None:
        (victim,) = await start(world, 1)
        await world.save(victim, [Single(number=0, plan=[("die", 0.0), ("ok", 1.0)])])
        while victim.alive:
            await asyncio.sleep(0.1)
        (busy,) = await start(world, 2)
        await world.save(busy, [Simple(number=1, plan=[("ok", 300.0)])])
        await asyncio.sleep(10)
        await start(world, 1)
        await asyncio.sleep(60)  # at each time they are equally quick
        alone = [event for event in every(world, Started) if event.job not in _long(world)]
        assert [event.client for event in alone] == ["client-0", "client-2"]

    for seed in range(10):
        settle(scenario, seed)


def _long(world: World) -> set[str]:
    return {row[0] for row in world.memory.rows() if row[3] == ("plain", "Simple")}


def jump(world: World, by: float) -> None:
    world.clock.jump(by)
    world.history.add(Jumped(by=by))


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("by", [-3600.0, -100.0])
def test_waits_end_as_they_were_meant_though_the_wall_goes_back(by: float, processes: int) -> None:
    """Waits, backoffs and snoozes last as long as they were to; an instant comes when the wall shows it."""

    async def scenario(world: World) -> None:
        first, *_ = await start(world, *[4] * processes)
        await world.save(first, [Simple(number=1)], wait=90.0)
        await world.save(first, [Work(number=2, plan=[("snooze", 80.0)])])
        await world.save(first, [Work(number=3, plan=[("retry", 70.0)])])
        instant = world.clock.now() + 60_000
        await world.save(first, [Simple(number=4)], at=instant)
        await asyncio.sleep(world.rng.uniform(1, 40))
        jump(world, by)
        await asyncio.sleep(100 - world.loop.time())
        starts = [event.at for event in every(world, Started)]
        assert [round(at) for at in starts] == [0, 0, 70, 80, 90]
        await asyncio.sleep(-by - 30)
        assert abs(every(world, Started)[-1].wall - instant) < 100

    for seed in range(10):
        settle(scenario, seed)


@pytest.mark.parametrize("processes", [1, 3])
def test_waits_end_as_they_were_meant_when_the_wall_is_set_right_again(processes: int) -> None:
    """A wait that began before the wall was wrong, or while it was, is neither shorter nor longer for it."""

    async def scenario(world: World) -> None:
        first, *_ = await start(world, *[4] * processes)
        await world.save(first, [Simple(number=1)], wait=400.0)
        await asyncio.sleep(world.rng.uniform(1, 40))
        jump(world, -3600.0)
        await asyncio.sleep(world.rng.uniform(50, 100))
        began = world.loop.time()
        await world.save(first, [Simple(number=2)], wait=300.0)
        await asyncio.sleep(world.rng.uniform(50, 100))
        jump(world, 3600.0)
        await asyncio.sleep(410 - world.loop.time())
        late = await world.save(first, [Simple(number=3)], wait=100.0)
        await world.drain()
        starts = [event.at for event in every(world, Started)]
        assert [round(at - end) for at, end in zip(starts, sorted([400, began + 300, 510]), strict=True)] == [
            0
        ] * 3
        assert every(world, Started)[-1].job == late[0]

    for seed in range(10):
        settle(scenario, seed)


def test_job_added_for_now_starts_soon_though_the_wall_goes_back() -> None:
    """Nothing that is due waits for the wall to come round again."""

    async def scenario(world: World) -> None:
        (process,) = await start(world, 1)
        for _ in range(5):
            await world.save(process, [Simple(number=n, plan=[("ok", 1.0)]) for n in range(10)])
            await asyncio.sleep(world.rng.uniform(0, 9))
            jump(world, -world.rng.choice((2.0, 30.0, 900.0)))
            await world.drain()

    for seed in range(20):
        world = settle(scenario, seed)
        assert check_prompt(world.history.events, workers=1, within=0.1) == []
        assert world.loop.time() < 5 * (9 + 10 + 45)
