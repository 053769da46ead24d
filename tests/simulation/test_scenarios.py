"""Single properties, each in a world of its own where nothing else goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, TypeVar
from unittest import mock

import pytest

from backlite_async import (
    Client,
    DatabaseUnavailable,
    InvalidState,
    JobContext,
    JobStatus,
    QueueConfig,
    Retention,
    Task,
)
from backlite_async._job import Claim, Lane
from backlite_async.stores import MemoryStore

from .checker import check
from .clock import EPOCH, SimClock
from .history import Claimed, Ended, Event, Jumped, Misuse, Started, Stored, Written
from .loop import SimLoop, run
from .order import check_order, check_prompt
from .process import Process
from .work import KINDS, Patient, Simple, Single, Threaded, Work
from .world import World, run_world

E = TypeVar("E", bound=Event)

ASYNC_KINDS = tuple(kind for kind in KINDS if kind is not Threaded)


def every(world: World, kind: type[E]) -> list[E]:
    return [event for event in world.history.events if isinstance(event, kind)]


def live(
    make: Callable[[World, Process], Awaitable[None]],
    seed: int,
    *,
    workers: int = 4,
    latency: float = 0.0,
    early: float = 0.0,
    stop: bool = True,
) -> World:
    """Run a scenario with one started client; what the checker has to say against it is an error."""

    async def whole(world: World) -> None:
        process = world.spawn(workers=workers)
        await process.start()
        await make(world, process)
        if stop:
            await world.drain()
            await world.finish()

    world, found = run_world(whole, seed, latency=latency, early=early)
    assert (found or check(world.history.events)) == []
    return world


@pytest.mark.parametrize("workers", [1, 3, 50])
def test_no_wake_up_is_lost(workers: int) -> None:
    """A job added at any instant of the dispatcher's cycle starts at once if a worker is free."""

    async def add(world: World, process: Process, rng: random.Random) -> None:
        await asyncio.sleep(rng.uniform(0, 0.05))
        await world.save(process, [Simple(number=1, plan=[("ok", rng.choice((0.0, 0.004)))])])

    async def scenario(world: World, process: Process) -> None:
        adding = [add(world, process, random.Random(world.rng.random())) for _ in range(20)]
        await asyncio.gather(*adding)

    for seed in range(60):
        world = live(scenario, seed, workers=workers, latency=0.003)
        assert check_prompt(world.history.events, workers=workers, within=0.015) == []
        assert len(every(world, Started)) == 20


@pytest.mark.parametrize("later", [0, 40 * 86_400], ids=["nothing to do", "a job in forty days"])
def test_idle_day_has_only_the_capped_wake_ups(later: int) -> None:
    """A client with nothing to do wakes every 45 s, for nothing else, and does next to nothing then."""
    loop = SimLoop(0)

    async def main() -> tuple[int, int]:
        async with Client(MemoryStore(), clock=SimClock(loop), rng=random.Random(0)) as client:
            client.register(Simple, _nothing)
            if later:
                await client.add(Simple(number=1)).wait(later).save()
            await asyncio.sleep(1)
            wakeups, steps = loop.wakeups, loop.steps
            await asyncio.sleep(86_400)
            return loop.wakeups - wakeups, loop.steps - steps

    wakeups, steps = run(loop, main())
    assert 1915 <= wakeups <= 1922
    assert steps < 12 * wakeups


async def _nothing(task: Simple) -> None:
    pass


@pytest.mark.parametrize("early", [0.0, 0.001], ids=["exact timers", "early timers"])
def test_scheduled_job_starts_in_its_millisecond(early: float) -> None:
    """A job starts when it is due: never before, and within a millisecond."""

    async def scenario(world: World, process: Process) -> None:
        for _ in range(20):
            await asyncio.sleep(world.rng.uniform(0, 0.01))
            at = world.clock.now() + world.rng.randint(1, 100_000)
            await world.save(process, [Simple(number=1)], at=at)

    for seed in range(20):
        world = live(scenario, seed, workers=20, early=early)
        due = {event.job: event.due_at for event in every(world, Stored)}
        late = [event.wall - due[event.job] for event in every(world, Started)]
        assert len(late) == 20
        assert set(late) <= {0, 1}
        assert world.loop.steps < 5_000  # it does not spin until the instant has come


def test_retried_job_starts_when_it_is_due() -> None:
    """An attempt that failed is followed by the next one when its wait is over, no later."""

    async def scenario(world: World, process: Process) -> None:
        steps = [("fail", 0.1), ("retry", 3.0), ("snooze", 7.5), ("fail", 1.0)]
        await world.save(process, [Patient(number=1, plan=steps)])

    for seed in range(20):
        world = live(scenario, seed)
        due = [event.due_at for event in every(world, Written) if event.due_at is not None]
        starts = [event.wall for event in every(world, Started)]
        assert len(due) == 4
        assert all(0 <= start - at <= 1 for start, at in zip(starts[1:], due, strict=True))


@pytest.mark.parametrize("lease", [0.5, 29.0, 3600.0])
def test_claim_of_a_dead_owner_is_taken_when_its_lease_ends(lease: float) -> None:
    """Nobody adds anything: the dispatcher wakes at the instant at which the lease ends."""
    until = EPOCH + round(lease * 1000)

    async def whole(world: World) -> None:
        writer = world.spawn(kinds=(Simple,), workers=1)
        await writer.start()
        (job,) = await world.save(writer, [Work(number=1)])
        lane = Lane(kinds=(("short", "Work"),), room=1)
        await world.memory.claim([lane], owner="dead", now=world.clock.now(), until=until)
        survivor = world.spawn(workers=1)
        await survivor.start()
        await asyncio.sleep(lease + 0.1)
        assert [(e.job, 0 <= e.wall - until <= 1) for e in every(world, Started)] == [(job, True)]
        await world.drain()
        await world.finish()

    _, found = run_world(whole, 5)
    assert found == []


class Brief(Task):
    """A job that is kept for less time than the dispatcher sleeps."""

    config: ClassVar[QueueConfig] = QueueConfig("brief", retention=Retention(duration=7.0))


def test_expired_job_is_removed_when_it_expires() -> None:
    """What is kept for seven seconds is gone after seven seconds, without a look around."""

    async def nothing(task: Brief, job: JobContext) -> None:
        world, process = here[-1]
        world.begun(process, job)
        world.ended(process, job, "returned", None)

    here: list[tuple[World, Process]] = []

    async def scenario(world: World, process: Process) -> None:
        here.append((world, process))
        process.client.register(Brief, nothing)
        for _ in range(3):
            await world.save(process, [Brief()])
            await asyncio.sleep(1.7)
        instants = [instant for instant in world.memory.expiries() if instant is not None]
        assert len(instants) == 3
        for instant in sorted(instants):
            await asyncio.sleep((instant - world.clock.now()) / 1000 - 0.002)
            assert instant in world.memory.expiries()
            await asyncio.sleep(0.005)
            assert instant not in world.memory.expiries()

    for seed in range(10):
        live(scenario, seed)


def test_jobs_run_in_the_order_in_which_they_are_due() -> None:
    """By due time, then by order of adding, over all queues; a retry is not starved by new jobs."""

    async def scenario(world: World, process: Process) -> None:
        for _ in range(12):
            await world.add_some(process, ASYNC_KINDS)
            await asyncio.sleep(world.rng.uniform(0, 2))

    for seed in range(60):
        world = live(scenario, seed, workers=1, latency=0.01)
        assert check_order(world.history.events) == []


def test_stop_at_any_instant_leaves_no_claim() -> None:
    """`stop(0)` comes at any point of a claim, a run or a write: no job stays claimed, True or not."""

    async def scenario(world: World, process: Process) -> None:
        for _ in range(6):
            await world.save(process, [Simple(number=1, plan=[("ok", world.rng.choice((0.0, 0.01)))])] * 2)
            await asyncio.sleep(world.rng.uniform(0, 0.02))
            await process.stop(world.rng.choice((0.0, 0.001)))
            assert process.claims(process.life) == []
            await process.start()

    for seed in range(60):
        live(scenario, seed, workers=2, latency=0.003)


def test_outcome_waits_out_an_outage_and_follows_soon_after() -> None:
    """An outcome that cannot be written is written within seconds of the outage's end, once."""

    async def scenario(world: World, process: Process) -> None:
        await world.save(process, [Simple(number=1, plan=[("ok", 1.0)])])
        await asyncio.sleep(0.5)
        world.weather.outage = True
        await asyncio.sleep(120)
        world.weather.outage = False
        healed_at = world.loop.time()
        await world.drain()
        ended = [event for event in every(world, Written) if event.accepted]
        assert [event.status for event in ended] == [JobStatus.SUCCEEDED]
        assert ended[0].at - healed_at <= 5.1
        assert len(every(world, Ended)) == 1
        assert len(every(world, Claimed)) == 1

    for seed in range(20):
        live(scenario, seed, latency=0.01, early=0.001)


def test_two_clients_share_the_work() -> None:
    """Two clients on one store run every job once, and a burst keeps the workers of both busy."""

    async def whole(world: World) -> None:
        processes = [world.spawn(workers=2), world.spawn(workers=3)]
        for process in processes:
            await process.start()
        for process in processes * 10:
            await world.add_some(process)
            await asyncio.sleep(world.rng.uniform(0, 0.5))
        await world.drain()
        await world.probe()
        await world.finish()

    for seed in range(20):
        world, found = run_world(whole, seed, latency=0.01)
        assert (found or check(world.history.events)) == []
        assert {event.client for event in every(world, Started)} == {"client-0", "client-1"}


def test_killed_clients_jobs_run_again_once_each() -> None:
    """Jobs of a client that dies run again, with the crash counted."""

    async def whole(world: World) -> None:
        victim = world.spawn(workers=3)
        await victim.start()
        jobs = await world.save(victim, [Simple(number=n, plan=[("ok", 50.0)]) for n in range(3)])
        await asyncio.sleep(world.rng.uniform(1, 5))
        victim.kill()
        survivor = world.spawn(workers=3)
        await survivor.start()
        await world.drain()
        await world.finish()
        crashed = [event.job for event in every(world, Written) if event.crashes == 1 and event.due_at]
        assert sorted(crashed) == sorted(jobs)
        assert len(every(world, Started)) == 6

    for seed in range(20):
        world, found = run_world(whole, seed, latency=0.01)
        assert (found or check(world.history.events)) == []


def test_lease_that_is_renewed_at_the_last_moment_is_left_alone() -> None:
    """A claim that was seen to have lapsed is not taken if its owner renews it before the write."""

    async def whole(world: World) -> None:
        claim = world.memory.claim
        lane = Lane(kinds=(("short", "Work"),), room=1)

        async def then_renew(lanes: Sequence[Lane], **how: Any) -> Claim:
            found = await claim(lanes, **how)
            if found.lapsed and not renewed:
                renewed.append(how["now"] + 20_000)
                held = [(lapsed.job.id, lapsed.job.fence) for lapsed in found.lapsed]
                world.memory.renew(held, until=renewed[0])
            return found

        renewed: list[int] = []
        with mock.patch.object(world.memory, "claim", then_renew):
            writer = world.spawn(kinds=(), workers=1)
            await writer.start()
            await world.save(writer, [Work(number=1)])
            await claim([lane], owner="slow", now=world.clock.now(), until=world.clock.now() + 1000)
            await world.spawn(workers=1).start()
            await world.drain()
        starts = [event.wall for event in every(world, Started)]
        assert [0 <= start - instant <= 1000 for start, instant in zip(starts, renewed, strict=True)] == [
            True
        ]
        await world.finish()

    world, found = run_world(whole, 3, latency=0.01)
    assert found == []
    assert every(world, Misuse) == []


@pytest.mark.parametrize("kind", [Work, Single], ids=["at most three", "at most two"])
def test_job_that_kills_its_process_fails_after_its_crashes(kind: type[Work]) -> None:
    """A poisonous job runs as often as its queue allows crashes, and has then failed."""

    async def deadly(world: World) -> None:
        """Kill each process a second after it has begun the job."""
        process = world.spawn(workers=2)
        await process.start()
        await world.save(process, [kind(number=1, plan=[("ok", 2.0)] * 9)])
        seen = 0
        while world.memory.rows():
            await asyncio.sleep(1)
            if len(every(world, Started)) > seen:
                seen += 1
                process.kill()
                process = world.spawn(workers=2)
                await process.start()
        await world.finish()

    world, found = run_world(deadly, 1)
    assert (found or check(world.history.events)) == []
    starts = [event for event in every(world, Started) if event.number == 1]
    assert len(starts) == kind.config.max_crashes
    assert [event.status for event in every(world, Written) if event.job == starts[0].job][
        -1
    ] is JobStatus.FAILED


def test_free_worker_does_not_wait_for_the_write() -> None:
    """The next job is claimed while the outcome of the last one is still on its way to the store."""

    async def scenario(world: World, process: Process) -> None:
        await world.save(process, [Simple(number=number, plan=[("ok", 1.0)]) for number in range(8)])

    world = live(scenario, 4, workers=1, latency=0.1)
    ends = [event.at for event in every(world, Ended)]
    starts = [event.at for event in every(world, Started)]
    assert all(start - end <= 0.201 for start, end in zip(starts[1:], ends[:-1], strict=True))
    written = [event.at for event in every(world, Written)]
    assert any(claim.at < at for claim, at in zip(every(world, Claimed)[1:], written[:-1], strict=True))


def test_late_handler_finds_its_jobs_waiting() -> None:
    """Registering a handler starts the jobs that waited for it, at once."""

    async def whole(world: World) -> None:
        process = world.spawn(kinds=(Simple,), workers=3)
        await process.start()
        await world.save(process, [Work(number=1)] * 3)
        await asyncio.sleep(world.rng.uniform(1, 100))
        assert every(world, Started) == []
        process.know(Work)
        await asyncio.sleep(0.1)
        assert len(every(world, Started)) == 3
        await world.drain()
        await world.finish()

    for seed in range(10):
        world, found = run_world(whole, seed, latency=0.01)
        assert (found or check(world.history.events)) == []


@pytest.mark.parametrize("jump", [0.0, 3600.0], ids=["steady wall", "wall jumps"])
def test_handler_that_outlives_its_client_is_not_run_beside_itself(jump: float) -> None:
    """Stopped and started again, a client leaves alone what still runs from before."""

    async def whole(world: World) -> None:
        process = world.spawn(workers=2)
        await process.start()
        await world.save(process, [Simple(number=1, plan=[("stubborn", 60.0)])])
        await asyncio.sleep(1)
        assert await process.stop(0) is False
        world.clock.jump(jump)
        await process.start()
        await asyncio.sleep(50)
        assert len(every(world, Started)) == 1
        await world.drain()
        await world.probe()
        await world.finish()
        assert len(every(world, Started)) == 3
        assert next(event.status for event in every(world, Written)) is JobStatus.SUCCEEDED

    for seed in range(10):
        world, found = run_world(whole, seed, latency=0.01)
        assert (found or check(world.history.events)) == []


def test_late_end_of_a_released_job_is_nothing_to_write() -> None:
    """What a handler comes to whose claim was taken away needs no store, which may be closed by then."""

    async def whole(world: World) -> None:
        process = world.spawn(workers=2)
        await process.start()
        await world.save(process, [Simple(number=1, plan=[("stubborn", 60.0)])])
        await asyncio.sleep(1)
        assert await process.client.jobs.release(every(world, Started)[0].job) == 1
        await process.stop(0)
        await asyncio.sleep(100)
        assert len(every(world, Ended)) == 1
        await process.start()
        await world.drain()
        await world.finish()
        assert every(world, Written)[-1].status is JobStatus.SUCCEEDED

    for seed in range(10):
        world, found = run_world(whole, seed, latency=0.01)
        assert (found or check(world.history.events)) == []
        assert every(world, Misuse) == []


def test_job_that_was_taken_away_is_not_run_beside_itself() -> None:
    """A client that loses a running job's lease does not run that job again while its handler goes on."""

    async def whole(world: World) -> None:
        first, second = world.spawn(workers=3), world.spawn(workers=3)
        await first.start()
        await world.save(first, [Simple(number=1, plan=[("ok", 20.0)])])
        await asyncio.sleep(1)
        await second.start()
        world.clock.jump(3600.0)
        world.history.add(Jumped(by=3600.0))
        await world.save(second, [Simple(number=2)])  # it looks, and takes the job for abandoned
        await world.drain()
        await world.finish()

    for seed in range(40):
        world, found = run_world(whole, seed, latency=0.01, manner="blind")
        assert (found or check(world.history.events)) == []
        assert any(event.lapse and event.accepted for event in every(world, Written))


def test_start_at_the_instant_of_the_end_leaves_the_lent_store_open() -> None:
    """Whoever starts a client again just as it ends does not cut off handlers that go on from before."""

    async def again(process: Process) -> None:
        while not process.started:
            with contextlib.suppress(InvalidState, DatabaseUnavailable):
                await process.client.start()
                process.started = True
            await asyncio.sleep(0 if process.world.loop.time() < 2.5 else 0.1)

    async def whole(world: World) -> None:
        process = world.spawn(workers=2)
        await process.start()
        await world.save(process, [Simple(number=1, plan=[("stubborn", 30.0)])])
        await asyncio.sleep(1)
        stopping = asyncio.ensure_future(process.client.stop(0))
        process.started = False
        await asyncio.sleep(0.9)
        world.weather.outage = True
        starting = asyncio.ensure_future(again(process))
        assert await stopping is False
        await asyncio.sleep(5)
        world.weather.outage = False
        await starting
        await world.drain()
        await world.finish()

    for seed in range(40):
        world, found = run_world(whole, seed, step=100)
        assert found == []
        assert every(world, Misuse) == []
        assert [event.status for event in every(world, Written)] == [JobStatus.SUCCEEDED]


def test_last_wish_of_a_cancelled_handler_counts() -> None:
    """A handler that is cancelled by a stop and snoozes by that runs again when it asked for."""

    async def whole(world: World) -> None:
        process = world.spawn(workers=2)
        await process.start()
        await world.save(process, [Simple(number=1, plan=[("parting snooze", 30.0)])])
        await asyncio.sleep(1)
        assert await process.stop(0) is False
        await process.start()
        await world.drain()
        await world.finish()
        first, second = every(world, Started)
        assert second.at - first.at > 30.9
        assert second.attempt == 1

    for seed in range(10):
        world, found = run_world(whole, seed, latency=0.01)
        assert (found or check(world.history.events)) == []
