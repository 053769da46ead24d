"""A client that claims more than its workers take: what waits there is kept from nobody, and never lost."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import pytest

from backlite_async import Client, JobContext, JobStatus, QueueConfig, Retention, Retry, Snooze, Task
from backlite_async import _dispatcher as dispatcher
from backlite_async._ahead import LIMIT as AHEAD_LIMIT
from backlite_async._feed import BURST
from backlite_async._job import Claim, ClaimedJob, Job, Lane, Limit, NewJob, Reschedule
from backlite_async.stores import MemoryStore

from .conftest import LIMIT, Journal
from .test_engine_guards import turns, written_down

KEEP = Retention(payload="always")


class Quick(Task):
    config: ClassVar[QueueConfig] = QueueConfig("quick", retention=None)


class Held(Task):
    config: ClassVar[QueueConfig] = QueueConfig("held", max_attempts=3, retention=KEEP)
    number: int = 0


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other", max_attempts=3, retention=KEEP)
    number: int = 0


class Third(Task):
    config: ClassVar[QueueConfig] = QueueConfig("third", max_attempts=3, retention=KEEP)
    number: int = 0


class Poison(Task):
    config: ClassVar[QueueConfig] = QueueConfig("poison", max_crashes=2, retention=KEEP)


class Still:
    """Clocks that stand still but for what one adds; so handlers take no time, and what waits is not old."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.millis = 1_800_000_000_000

    def now(self) -> int:
        return self.millis

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, file: str) -> Any:
    """Jobs in a place that several clients can share."""
    return MemoryStore() if request.param == "memory" else file


@pytest.fixture
def clock() -> Still:
    """A clock for one client, or for several that are to agree."""
    return Still()


async def quick(task: Quick) -> None:
    pass


async def quicken(client: Client) -> None:
    """Let so many jobs end in no time that much is claimed ahead."""
    client.register(Quick, quick)
    [*_, last] = await client.add(*[Quick() for _ in range(400)]).save()
    await until(client, [last], JobStatus.NOT_FOUND)


async def until(client: Client, job_ids: Sequence[str], status: JobStatus) -> None:
    """Wait until all of these jobs are there."""
    with anyio.fail_after(LIMIT):
        for job_id in job_ids:
            while await client.status(job_id) is not status:
                await asyncio.sleep(0.001)


async def record(client: Client, job_id: str) -> Job:
    found = await client.get(job_id)
    assert found is not None
    return found


class Yard:
    """Jobs that are held until one opens the gate, and which of them have started."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.started: list[int] = []
        self.attempts: list[int] = []
        self.fences: list[int] = []

    async def handle(self, task: Held, job: JobContext) -> None:
        self.started.append(task.number)
        self.attempts.append(job.attempt)
        self.fences.append(job.fence)
        await self.gate.wait()


@asynccontextmanager
async def crowd(
    place: Any, clock: Still, yard: Yard, *, workers: int = 2, jobs: int = 6, **options: Any
) -> AsyncIterator[tuple[Client, list[str]]]:
    """A client that has claimed more jobs than it has workers, which are kept until the gate opens."""
    async with Client(place, workers=workers, clock=clock, **options) as client:
        try:
            await quicken(client)
            client.register(Held, yard.handle)
            job_ids = await client.add(*[Held(number) for number in range(jobs)]).save()
            await until(client, job_ids, JobStatus.RUNNING)
            await turns()
            assert yard.started == list(range(workers))
            yield client, job_ids
        finally:
            yard.gate.set()


# -- given back ------------------------------------------------------------------------------------


async def test_stop_gives_back_what_has_not_started(place: Any, clock: Still, journal: Journal) -> None:
    """At once, without its attempt; and that is a clean end."""
    yard = Yard()
    async with crowd(place, clock, yard) as (client, job_ids):
        stopping = asyncio.create_task(client.stop(LIMIT))
        for job_id in job_ids[2:]:
            await journal.seen("job.given_back", job_id)
        assert not stopping.done()
        yard.gate.set()
        assert await stopping is True
        assert yard.started == [0, 1]
        async with Client(place, workers=0, clock=clock) as other:
            found = [await record(other, job_id) for job_id in job_ids]
    assert [(job.status, job.attempt) for job in found[:2]] == [(JobStatus.SUCCEEDED, 1)] * 2
    assert [(job.status, job.attempt, job.crashes) for job in found[2:]] == [(JobStatus.PENDING, 0, 0)] * 4


async def test_what_waits_for_too_long_goes_to_others(place: Any, clock: Still) -> None:
    """A few long jobs that keep all workers keep nothing else."""
    yard, others = Yard(), Yard()
    others.gate.set()
    async with (
        crowd(place, clock, yard) as (client, job_ids),
        Client(place, clock=clock) as other,
    ):
        other.register(Held, others.handle)
        clock.seconds += AHEAD_LIMIT - 0.01
        client.notify()
        await until(client, job_ids, JobStatus.RUNNING)
        await turns()
        assert others.started == []
        clock.seconds += 0.02
        client.notify()
        await until(client, job_ids[2:], JobStatus.SUCCEEDED)
        assert sorted(others.started) == [2, 3, 4, 5]
        assert others.attempts == [1] * 4
        assert yard.started == [0, 1]
        assert [await client.status(job_id) for job_id in job_ids[:2]] == [JobStatus.RUNNING] * 2


async def test_what_went_back_comes_again_when_there_is_a_worker(place: Any, clock: Still) -> None:
    """Nothing is forgotten where there is no other client."""
    yard = Yard()
    async with crowd(place, clock, yard) as (client, job_ids):
        clock.seconds += 10 * AHEAD_LIMIT
        client.notify()
        await until(client, job_ids[2:], JobStatus.PENDING)
        yard.gate.set()
        await until(client, job_ids, JobStatus.SUCCEEDED)
    assert sorted(yard.started) == list(range(6))
    assert yard.attempts == [1] * 6


@pytest.mark.parametrize("jobs", [6, 800])
async def test_it_goes_back_without_being_told_to(place: Any, clock: Still, jobs: int) -> None:
    """The dispatcher's own timer looks after it, also while nothing more is to be claimed."""
    yard = Yard()
    async with crowd(place, clock, yard, jobs=jobs) as (client, job_ids):
        clock.seconds += AHEAD_LIMIT
        await until(client, job_ids[2:], JobStatus.PENDING)
        assert yard.started == [0, 1]


async def test_what_waits_through_the_end_of_its_lease_goes_back(place: Any, clock: Still) -> None:
    """A computer that sleeps stops monotonic time, and not the leases."""
    yard = Yard()
    async with crowd(place, clock, yard, lease=30.0) as (client, job_ids):
        clock.millis += 29_000
        client.notify()
        await turns()
        assert await client.status(job_ids[-1]) is JobStatus.RUNNING
        clock.millis += 1_000
        client.notify()
        await until(client, job_ids[2:], JobStatus.PENDING)
        assert yard.started == [0, 1]
        assert (await record(client, job_ids[2])).attempt == 0


async def test_what_waits_through_the_end_of_its_lease_does_not_start(place: Any, clock: Still) -> None:
    """Also if a worker is free before anybody looks: others may have taken it meanwhile."""
    yard = Yard()
    async with crowd(place, clock, yard, lease=30.0) as (client, job_ids):
        clock.millis += 3_600_000
        yard.gate.set()
        await until(client, job_ids[:2], JobStatus.SUCCEEDED)
        assert yard.started[:2] == [0, 1]
        await until(client, job_ids, JobStatus.SUCCEEDED)
    assert yard.attempts == [1] * 6
    assert yard.fences[2] > yard.fences[0]


async def test_only_what_has_started_would_count_a_crash(file: str, clock: Still) -> None:
    """If the process died now, what waits in it would be as if nobody had claimed it."""
    yard = Yard()
    async with crowd(file, clock, yard) as (_, job_ids):
        assert sorted(written_down(file)) == sorted(job_ids[:2])


async def test_job_that_has_to_run_alone_is_not_kept_waiting(clock: Still, journal: Journal) -> None:
    """All that waits goes back for it, and comes again when it has run."""
    store = MemoryStore()
    await store.add([poison(clock.now())])
    [job] = (await store.claim([lane("poison", "Poison")], owner="dead", now=clock.now(), until=0)).jobs
    outcome = Reschedule(id=job.id, fence=job.fence, due_at=clock.now(), attempt=0, crashes=1)
    assert await store.finish([outcome]) == set()
    yard = Yard()
    beside: list[list[int]] = []

    async def alone(task: Poison) -> None:
        beside.append(list(yard.started))

    async with crowd(store, clock, yard) as (client, job_ids):
        client.register(Poison, alone)
        for job_id in job_ids[2:]:
            await journal.seen("job.given_back", job_id)
        assert yard.started == [0, 1]
        yard.gate.set()
        await journal.ended("poison", *job_ids)
    assert beside == [[0, 1]]
    assert yard.attempts == [1] * 6


def poison(now: int) -> NewJob:
    return NewJob(
        id="poison", queue="poison", task="Poison", payload=b"{}", max_attempts=3, created_at=now, due_at=now
    )


def lane(queue: str, task: str) -> Lane:
    return Lane(kinds=((queue, task),), room=1)


async def test_nobody_looks_for_more_while_enough_waits(
    clock: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each end of a job, also where there is no handler of the other sort."""
    looks = 0
    original = dispatcher.Dispatcher._lanes

    def lanes(self: dispatcher.Dispatcher) -> list[Lane]:
        nonlocal looks
        looks += 1
        return original(self)

    async with Client(MemoryStore(), workers=1, clock=clock) as client:
        await quicken(client)
        monkeypatch.setattr(dispatcher.Dispatcher, "_lanes", lanes)
        [*_, last] = await client.add(*[Quick() for _ in range(3000)]).save()
        await until(client, [last], JobStatus.NOT_FOUND)
    assert 3 <= looks < 100


# -- coroutines and threads ------------------------------------------------------------------------


async def test_threads_that_are_kept_do_not_keep_coroutines(
    place: Any, clock: Still, journal: Journal
) -> None:
    """What needs a thread waits for one; the rest goes on."""
    gate = threading.Event()
    running, most = 0, 0
    count = threading.Lock()
    entered = threading.Semaphore(0)

    def block(task: Other) -> None:
        nonlocal running, most
        with count:
            running += 1
            most = max(most, running)
        entered.release()
        gate.wait(LIMIT)
        with count:
            running -= 1

    async with Client(place, workers=4, threads=2, clock=clock) as client:
        try:
            await quicken(client)
            client.register(Other, block)
            client.register(Held, yards_open().handle)
            blocked = await client.add(*[Other(number) for number in range(8)]).save()
            for _ in range(2):  # the log line comes before the thread
                assert await anyio.to_thread.run_sync(entered.acquire, True, LIMIT)
            await journal.ended(*await client.add(*[Held(number) for number in range(20)]).save())
            assert most == 2
            assert not any(journal.of("job.succeeded", job_id) for job_id in blocked)
        finally:
            gate.set()
        await journal.ended(*blocked)
        assert most == 2


def yards_open() -> Yard:
    yard = Yard()
    yard.gate.set()
    return yard


async def test_coroutines_that_are_kept_do_not_keep_threads(
    place: Any, clock: Still, journal: Journal
) -> None:
    """As long as there is a worker for them."""
    seen = threading.Semaphore(0)

    def threaded(task: Other) -> None:
        seen.release()

    yard = Yard()
    async with Client(place, workers=4, clock=clock) as client:
        await quicken(client)
        client.register(Held, yard.handle)
        client.register(Other, threaded)
        held = await client.add(*[Held(number) for number in range(3)]).save()
        await journal.seen("job.started", held[2])
        await journal.ended(*await client.add(*[Other(number) for number in range(20)]).save())
        assert yard.started == [0, 1, 2]
        yard.gate.set()


async def test_threads_have_a_pace_of_their_own(place: Any, clock: Still, journal: Journal) -> None:
    """What runs in threads is claimed ahead, too, once it is known how long it takes."""
    gate = threading.Event()
    gate.set()

    def threaded(task: Other) -> None:
        gate.wait(LIMIT)

    async with Client(place, workers=20, threads=1, clock=clock) as client:
        try:
            client.register(Other, threaded)
            *_, last = await client.add(*[Other(number) for number in range(300)]).save()
            await journal.ended(last)
            gate.clear()
            job_ids = await client.add(*[Other(number) for number in range(6)]).save()
            await until(client, job_ids, JobStatus.RUNNING)
            await turns()
            assert len([job_id for job_id in job_ids if journal.of("job.started", job_id)]) == 1
        finally:
            gate.set()
        await journal.ended(*job_ids)


# -- starting --------------------------------------------------------------------------------------


async def test_no_more_than_a_burst_starts_in_one_turn(place: Any, journal: Journal) -> None:
    """The application's own tasks get their turns between jobs."""
    turn = 0
    begun: list[int] = []

    async def tick() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def work(task: Other) -> None:
        begun.append(turn)

    ticking = asyncio.create_task(tick())
    try:
        async with Client(place, workers=200) as client:
            job_ids = await client.add(*[Other(number) for number in range(300)]).save()
            client.register(Other, work)
            await journal.ended(*job_ids)
    finally:
        ticking.cancel()
    bursts = [len(list(group)) for _, group in itertools.groupby(begun)]
    assert sum(bursts) == 300
    assert max(bursts) == BURST


async def test_more_than_a_burst_starts_without_any_end(
    place: Any, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond the burst starts in the next turns, and not when it has waited for too long."""
    monkeypatch.setattr("backlite_async._ahead.LIMIT", 1000.0)
    yard = Yard()
    async with Client(place, workers=100) as client:
        job_ids = await client.add(*[Held(number) for number in range(100)]).save()
        client.register(Held, yard.handle)
        await journal.seen("job.started", job_ids[-1])
        yard.gate.set()
        await journal.ended(*job_ids)


async def test_event_loop_that_makes_no_task_loses_no_job(place: Any, clock: Still, journal: Journal) -> None:
    """What could not be started is given back, whoever was about to start it, and runs later."""
    loop = asyncio.get_running_loop()
    failing = 5
    yard = Yard()

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        nonlocal failing
        if failing and coro.__qualname__.endswith("_work"):
            failing -= 1
            raise RuntimeError("no more tasks")
        return asyncio.Task(coro, loop=loop, **options)

    async with crowd(place, clock, yard) as (client, job_ids):
        loop.set_task_factory(make)
        try:
            yard.gate.set()
            await until(client, job_ids, JobStatus.SUCCEEDED)
        finally:
            loop.set_task_factory(None)
        assert len(journal.of("store.failing")) >= 1
    assert failing == 0
    assert sorted(yard.started) == list(range(6))
    assert yard.attempts == [1] * 6


# -- no lost wake-up -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 7])
async def test_all_kinds_come_to_their_end(place: Any, workers: int, journal: Journal) -> None:
    """Whatever there is room for, nobody waits for the longest sleep."""

    async def held(task: Held) -> None:
        await turns(task.number % 3)

    def other(task: Other) -> None:
        pass

    async def third(task: Third, job: JobContext) -> None:
        if job.attempt == 1 and task.number % 4 == 1:
            raise Retry(0)

    kinds: list[tuple[type[Held | Other | Third], Callable[..., Any]]]
    kinds = [(Held, held), (Other, other), (Third, third)]
    async with Client(place, workers=workers, threads=1) as client:
        for kind, handler in kinds:
            client.register(kind, handler)
        job_ids: list[str] = []
        for number in range(60):
            job_ids += await client.add(kinds[number % 3][0](number)).save()
        await journal.ended(*job_ids)


async def test_job_that_is_added_while_all_workers_are_kept_starts_when_one_is_free(
    place: Any, journal: Journal
) -> None:
    """Also of another kind, and also if nothing is claimed ahead."""
    yard = Yard()
    async with Client(place, workers=1) as client:
        client.register(Held, yard.handle)
        client.register(Other, nothing)
        [held] = await client.add(Held()).save()
        await journal.seen("job.started", held)
        others = await client.add(*[Other(number) for number in range(5)]).save()
        await turns()
        assert [await client.status(job_id) for job_id in others] == [JobStatus.PENDING] * 5
        yard.gate.set()
        await journal.ended(held, *others)


async def nothing(task: Task) -> None:
    pass


class Lingering(MemoryStore):
    """A store whose claims answer when one lets them."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = asyncio.Event()

    async def claim(
        self,
        lanes: Sequence[Lane],
        *,
        owner: str,
        now: int,
        until: int,
        limits: Sequence[Limit] = (),
        taking: Callable[[Sequence[ClaimedJob]], None] | None = None,
    ) -> Claim:
        found = await super().claim(lanes, owner=owner, now=now, until=until, limits=limits, taking=taking)
        self.asked.set()
        await self.answers.wait()
        return found


@pytest.mark.parametrize("what", ["add", "end", "register", "snooze"])
async def test_what_happens_during_a_claim_is_seen_after_it(what: str, journal: Journal) -> None:
    """A claim that has looked already knows nothing of it."""
    store, yard = Lingering(), Yard()
    async with Client(store, workers=1 if what == "end" else 3) as client:
        client.register(Held, yard.handle if what == "end" else snoozing())
        if what != "register":
            client.register(Other, nothing)
        [first] = await client.add(Held()).save()
        await journal.seen("job.started", first)
        if what == "register":
            [first] = await client.add(Other()).save()
        await turns()
        store.answers.clear()
        store.asked.clear()
        client.notify()
        if what != "end":
            await store.asked.wait()
        await turns()
        if what == "register":
            client.register(Other, nothing)
        if what in {"add", "end"}:
            [first] = await client.add(Other()).save()
        yard.gate.set()
        await turns()
        store.answers.set()
        await journal.ended(first)


def snoozing() -> Callable[[Held, JobContext], Any]:
    """Return a handler that asks once to run again at once."""
    seen: set[str] = set()

    async def handle(task: Held, job: JobContext) -> None:
        if job.id not in seen:
            seen.add(job.id)
            await turns(10)
            raise Snooze(0)

    return handle


@pytest.mark.parametrize("again", [Snooze(0), Retry(0)])
async def test_job_that_is_to_run_again_at_once_does(place: Any, again: Exception, journal: Journal) -> None:
    """Though it is alone, and nobody rings for it."""
    calls = 0

    async def work(task: Held) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise again

    async with Client(place, workers=5) as client:
        client.register(Held, work)
        await journal.ended(*await client.add(Held()).save())
    assert calls == 3


async def test_handler_that_is_registered_late_is_heard_by_a_full_pool(place: Any, journal: Journal) -> None:
    """Its jobs start when a worker is free."""
    yard = Yard()
    async with Client(place, workers=1) as client:
        client.register(Held, yard.handle)
        [held] = await client.add(Held()).save()
        others = await client.add(*[Other(number) for number in range(3)]).save()
        await journal.seen("job.started", held)
        client.register(Other, nothing)
        await turns()
        yard.gate.set()
        await journal.ended(held, *others)


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_outcomes_that_wait_leave_room_when_they_are_written(
    place: Any, limit: int, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few that may wait, jobs are claimed in small portions, and all of them."""
    monkeypatch.setattr(dispatcher, "UNWRITTEN_LIMIT", limit)
    async with Client(place, workers=3) as client:
        client.register(Other, nothing)
        client.register(Third, nothing)
        tasks = [kind(number) for number in range(15) for kind in (Other, Third)]
        await journal.ended(*await client.add(*tasks).save())
