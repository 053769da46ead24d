"""Limits of queues and keys, and rates: never exceeded, always reached, and nobody else is delayed."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import anyio
import pytest

from backlite_async import (
    Client,
    Discard,
    JobContext,
    JobStatus,
    QueueConfig,
    Rate,
    Retention,
    Retry,
    Snooze,
    Task,
)
from backlite_async import _dispatcher as dispatcher
from backlite_async import _worker as worker
from backlite_async._ahead import LIMIT as AHEAD_LIMIT
from backlite_async._job import ClaimedJob, Lane, Limit, NewJob, Reschedule
from backlite_async._plan import plan_limits
from backlite_async._starts import MARGIN, Starts
from backlite_async.stores import MemoryStore

from .conftest import LIMIT
from .test_claimed_ahead import Quick, Still, nothing, quicken, record, until
from .test_engine_guards import turns
from .test_orders import LateClaims

KEEP = Retention(payload="always")


class Free(Task):
    config: ClassVar[QueueConfig] = QueueConfig("free", retention=KEEP)
    number: int = 0


class Narrow(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "narrow", concurrency=1, max_attempts=9, backoff=0, retention=KEEP
    )
    number: int = 0


class Wide(Task):
    config: ClassVar[QueueConfig] = QueueConfig("wide", concurrency=3, retention=KEEP)
    number: int = 0


class One(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "one", global_concurrency=1, max_attempts=9, backoff=0, retention=KEEP
    )
    number: int = 0


class Several(Task):
    config: ClassVar[QueueConfig] = QueueConfig("several", global_concurrency=6, retention=KEEP)
    number: int = 0


SHARED = QueueConfig("shared", global_concurrency=1, concurrency_per_key=1, retention=KEEP)


class Left(Task):
    config: ClassVar[QueueConfig] = SHARED
    number: int = 0


class Right(Task):
    config: ClassVar[QueueConfig] = SHARED
    number: int = 0


class Keyed(Task):
    config: ClassVar[QueueConfig] = QueueConfig("keyed", concurrency_per_key=1, retention=KEEP)
    name: str = ""


TURNS = QueueConfig("turns", concurrency_per_key=1, retention=KEEP)


class Odd(Task):
    config: ClassVar[QueueConfig] = TURNS
    name: str = ""


class Even(Task):
    config: ClassVar[QueueConfig] = TURNS
    name: str = ""


class Rated(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "rated", rate=Rate(2, per=10), backoff=0, max_crashes=2, retention=KEEP
    )
    number: int = 0


@pytest.fixture(autouse=True)
def _soon_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that fails while it holds handlers does not wait for them."""
    defaults: Any = Client.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "stop_timeout", 1.0)


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, file: str) -> Any:
    """Jobs in a place that several clients can share."""
    return MemoryStore() if request.param == "memory" else file


@pytest.fixture
def clock() -> Still:
    """A clock for one client, or for several that are to agree."""
    return Still()


class Crowd:
    """Counts how many jobs run, and how many did at most."""

    def __init__(self) -> None:
        self.running = self.most = self.calls = 0
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.lock = threading.Lock()

    def enter(self) -> None:
        with self.lock:
            self.calls += 1
            self.running += 1
            self.most = max(self.most, self.running)
        self.entered.set()

    def leave(self) -> None:
        with self.lock:
            self.running -= 1

    async def work(self, task: Task) -> None:
        """Run for a few turns of the event loop."""
        self.enter()
        await turns(3)
        self.leave()

    async def hold(self, task: Task) -> None:
        """Run until the gate opens."""
        self.enter()
        try:
            await self.gate.wait()
        finally:
            self.leave()

    async def exactly(self, number: int) -> None:
        """Wait until so many have begun, and no more."""
        with anyio.fail_after(LIMIT):
            while self.calls < number:
                await asyncio.sleep(0.001)
        await turns()
        assert self.calls == number

    async def wait(self) -> None:
        """Wait until one more has begun."""
        with anyio.fail_after(LIMIT):
            await self.entered.wait()
        self.entered.clear()


def held(client: Client) -> dict[str, int]:
    """Return the places of limited queues that are taken in a client."""
    feed: Any = client._dispatcher._feed  # type: ignore[union-attr]
    return {queue: number for queue, number in feed.held.items() if number}


# -- in this process -------------------------------------------------------------------------------


async def test_no_more_of_a_queue_run_than_it_allows(place: Any) -> None:
    """But as many; and other queues do not wait for it."""
    crowd, beside = Crowd(), Crowd()
    async with Client(place, workers=10) as client:
        client.register(Wide, crowd.hold)
        client.register(Free, beside.work)
        ids = await client.add(*[Wide(number) for number in range(9)]).save()
        await until(client, ids[:3], JobStatus.RUNNING)
        others = await client.add(*[Free(number) for number in range(20)]).save()
        await until(client, others, JobStatus.SUCCEEDED)
        assert (crowd.running, held(client)) == (3, {"wide": 3})
        assert [await client.status(job_id) for job_id in ids[3:]] == [JobStatus.PENDING] * 6
        crowd.gate.set()
        await until(client, ids, JobStatus.SUCCEEDED)
        assert held(client) == {}
    assert (crowd.most, crowd.calls) == (3, 9)


async def test_limit_counts_what_is_claimed_ahead(place: Any, clock: Still) -> None:
    """Where jobs wait for a worker, they have taken their places already."""
    crowd = Crowd()
    async with Client(place, workers=2, clock=clock) as client:
        await quicken(client)
        client.register(Wide, crowd.hold)
        ids = await client.add(*[Wide(number) for number in range(6)]).save()
        await until(client, ids[:3], JobStatus.RUNNING)
        await turns()
        assert (crowd.running, held(client)) == (2, {"wide": 3})
        assert [await client.status(job_id) for job_id in ids[3:]] == [JobStatus.PENDING] * 3
        clock.seconds += AHEAD_LIMIT
        client.notify()
        await until(client, ids[2:3], JobStatus.PENDING)
        await turns()
        crowd.gate.set()
        await until(client, ids, JobStatus.SUCCEEDED)
        assert held(client) == {}
    assert crowd.calls == 6


async def test_place_of_a_job_that_never_starts_is_free_again(place: Any, clock: Still) -> None:
    """Where it is cancelled while it waits for a worker."""
    crowd = Crowd()
    async with Client(place, workers=2, clock=clock) as client:
        await quicken(client)
        client.register(Wide, crowd.hold)
        ids = await client.add(*[Wide(number) for number in range(4)]).save()
        await until(client, ids[:3], JobStatus.RUNNING)
        await turns()
        assert held(client) == {"wide": 3}
        assert await client.cancel(ids[2]) == 1
        await until(client, ids[2:3], JobStatus.CANCELLED)
        await until(client, ids[3:], JobStatus.RUNNING)
        assert (held(client), crowd.calls) == ({"wide": 3}, 2)
        crowd.gate.set()
        await until(client, [*ids[:2], ids[3]], JobStatus.SUCCEEDED)
        assert held(client) == {}


async def test_limit_holds_at_full_speed(place: Any) -> None:
    """Though much else is claimed ahead, and every end lets in the next."""
    crowd = Crowd()
    async with Client(place, workers=20) as client:
        await quicken(client)
        client.register(Narrow, crowd.work)
        tasks = [kind() for _ in range(60) for kind in (Quick, Narrow)]
        ids = await client.add(*tasks).save()
        await until(client, ids[1::2], JobStatus.SUCCEEDED)
    assert (crowd.most, crowd.calls) == (1, 60)


async def test_limit_holds_for_threads(place: Any) -> None:
    """As for coroutines; other threads go on."""
    crowd, gate, seen = Crowd(), threading.Event(), threading.Semaphore(0)

    def block(task: Wide) -> None:
        with crowd.lock:
            crowd.running += 1
            crowd.most = max(crowd.most, crowd.running)
        seen.release()
        gate.wait(LIMIT)
        crowd.leave()

    def free(task: Free) -> None:
        pass

    async with Client(place, workers=10, threads=6) as client:
        try:
            client.register(Wide, block)
            client.register(Free, free)
            ids = await client.add(*[Wide(number) for number in range(8)]).save()
            for _ in range(3):
                assert await anyio.to_thread.run_sync(seen.acquire, True, LIMIT)
            others = await client.add(*[Free(number) for number in range(10)]).save()
            await until(client, others, JobStatus.SUCCEEDED)
            assert crowd.running == 3
        finally:
            gate.set()
        await until(client, ids, JobStatus.SUCCEEDED)
    assert crowd.most == 3


async def test_each_client_has_a_limit_of_its_own(place: Any) -> None:
    """`concurrency` is for one process: two of them run twice as many."""
    first, second = Crowd(), Crowd()
    async with Client(place) as client, Client(place) as other:
        client.register(Narrow, first.hold)
        other.register(Narrow, second.hold)
        ids = await client.add(*[Narrow(number) for number in range(6)]).save()
        await until(client, ids[:2], JobStatus.RUNNING)
        await first.wait()
        await second.wait()
        assert (first.running, second.running) == (1, 1)
        assert [await client.status(job_id) for job_id in ids[2:]] == [JobStatus.PENDING] * 4
        first.gate.set()
        second.gate.set()
        await until(client, ids, JobStatus.SUCCEEDED)
    assert (first.most, second.most, first.calls + second.calls) == (1, 1, 6)


ENDINGS: dict[str, Exception | None] = {
    "success": None,
    "error": ValueError("no"),
    "retry": Retry(0),
    "snooze": Snooze(0),
    "discard": Discard("no"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", [Narrow, One])
async def test_place_is_free_again_however_a_job_ends(
    place: Any, ending: str, kind: type[Narrow | One]
) -> None:
    """The next one runs, and the same one again."""
    crowd = Crowd()

    async def work(task: Narrow | One, job: JobContext) -> None:
        await crowd.work(task)
        error = ENDINGS[ending]
        if error is not None and crowd.calls <= 3:
            raise error

    async with Client(place, workers=5) as client:
        client.register(kind, work)
        ids = await client.add(*[kind(number) for number in range(4)]).save()
        await until(client, ids[3:], JobStatus.SUCCEEDED)
        last = JobStatus.FAILED if ending == "discard" else JobStatus.SUCCEEDED
        await until(client, ids[:3], last)
        assert held(client) == {}
    assert crowd.most == 1


@pytest.mark.parametrize("manner", ["cancel", "timeout", "payload", "no task"])
async def test_place_is_free_again_whatever_happens_to_a_job(
    place: Any, manner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation, a timeout, a payload that nobody understands, an event loop that makes no task."""
    crowd = Crowd()
    async with Client(place, workers=5) as client:
        client.register(Narrow, crowd.hold)
        if manner == "payload":
            now = client.clock.now()
            bad = NewJob(
                id="bad",
                queue="narrow",
                task="Narrow",
                payload=b"[]",
                max_attempts=1,
                created_at=now,
                due_at=now,
            )
            await client.open_store().add([bad])
        elif manner == "no task":
            with monkeypatch.context() as patch:
                patch.setattr(worker.WorkerPool, "start", no_task)
                [first] = await client.add(Narrow()).save()
                with anyio.fail_after(LIMIT):
                    while not client._dispatcher._feed._broken and held(client):  # type: ignore[union-attr]
                        await asyncio.sleep(0.001)
        else:
            operation = client.add(Narrow()).max_attempts(1)
            [first] = await (operation.timeout(0.005) if manner == "timeout" else operation).save()
            await crowd.wait()
            if manner == "cancel":
                await client.cancel(first)
            await until(client, [first], JobStatus.FAILED if manner == "timeout" else JobStatus.CANCELLED)
        crowd.gate.set()
        [last] = await client.add(Narrow(1)).save()
        await until(client, [last], JobStatus.SUCCEEDED)
        assert held(client) == {}


def no_task(pool: worker.WorkerPool, job: ClaimedJob, handler: Any) -> None:
    raise RuntimeError("no more tasks")


async def test_job_that_runs_alone_keeps_its_place(place: Any) -> None:
    """Also while it waits for that; and leaves it when it has run."""
    crowd, gate = Crowd(), asyncio.Event()

    class Last(Task):
        config: ClassVar[QueueConfig] = QueueConfig("last", concurrency=1, max_crashes=2, retention=KEEP)

    async def other(task: Free) -> None:
        await gate.wait()

    async with Client(place) as client:
        client.register(Free, other)
        [free] = await client.add(Free()).save()
        await until(client, [free], JobStatus.RUNNING)
        [first] = await client.add(Last()).save()
        await crash_once(client, first, "last", "Last")
        client.register(Last, crowd.work)
        await until(client, [first], JobStatus.RUNNING)
        [second] = await client.add(Last()).save()
        assert held(client) == {"last": 1}
        gate.set()
        await until(client, [first, second], JobStatus.SUCCEEDED)
        assert held(client) == {}
    assert crowd.most == 1


async def crash_once(client: Client, job_id: str, queue: str, task: str) -> None:
    """Let a job look as if its process had died in it."""
    store, now = client.open_store(), client.clock.now()
    lane = Lane(kinds=((queue, task),), room=1)
    [job] = (await store.claim([lane], owner="dead", now=now, until=now + 1000)).jobs
    assert job.id == job_id
    outcome = Reschedule(id=job.id, fence=job.fence, due_at=now, attempt=0, crashes=1)
    assert await store.finish([outcome]) == set()


# -- over all processes ----------------------------------------------------------------------------


async def test_no_more_run_over_all_clients(place: Any) -> None:
    """However many of them there are."""
    crowd = Crowd()
    async with Client(place) as first, Client(place) as second, Client(place) as third:
        for client in (first, second, third):
            client.register(One, crowd.work)
        ids = [(await client.add(One()).save())[0] for _ in range(15) for client in (first, second, third)]
        await until(first, ids, JobStatus.SUCCEEDED)
    assert (crowd.most, crowd.calls) == (1, 45)


@pytest.mark.parametrize("ending", ["success", "later", "snooze", "discard", "cancel"])
async def test_place_that_is_free_in_one_client_lets_in_another(place: Any, ending: str) -> None:
    """It hears of it at once, though nothing else happens there."""
    first, second = Crowd(), Crowd()
    raised = {"later": Retry(3600), "snooze": Snooze(3600), "discard": Discard("no")}

    async def work(task: Left) -> None:
        await first.hold(task)
        if ending in raised:
            raise raised[ending]

    async with Client(place) as client, Client(place) as other:
        client.register(Left, work)
        other.register(Right, second.work)
        [running] = await client.add(Left(1)).save()
        await first.wait()
        [waiting] = await other.add(Right(2)).save()
        await turns()
        assert await other.status(waiting) is JobStatus.PENDING
        if ending == "cancel":
            await client.cancel(running)
        first.gate.set()
        await until(other, [waiting], JobStatus.SUCCEEDED)
    assert second.calls == 1


async def test_place_of_a_completed_transaction_is_free(file: str) -> None:
    """The block ends the job; whoever waits for its place hears of that."""
    first, second = Crowd(), Crowd()

    async def work(task: Left, job: JobContext) -> None:
        await first.hold(task)
        async with job.transaction():
            pass
        await asyncio.Event().wait()

    async with Client(file, stop_timeout=0) as client, Client(file) as other:
        client.register(Left, work)
        other.register(Right, second.work)
        await client.add(Left(1)).save()
        await first.wait()
        [waiting] = await other.add(Right(2)).save()
        first.gate.set()
        await until(other, [waiting], JobStatus.SUCCEEDED)


async def test_claims_of_the_dead_are_counted_until_they_are_released(place: Any) -> None:
    """Nothing leaks: what counts is the claims that there are."""
    crowd = Crowd()
    async with Client(place) as client:
        first, second = await client.add(One(1), One(2)).save()
        store, now = client.open_store(), client.clock.now()
        lane = Lane(kinds=(("one", "One"),), room=1)
        assert (await store.claim([lane], owner="dead", now=now, until=now)).jobs
        client.register(One, crowd.work)
        await until(client, [first, second], JobStatus.SUCCEEDED)
        assert (await record(client, first)).crashes == 1
    assert crowd.most == 1


@pytest.mark.parametrize("threaded", [False, True])
async def test_what_is_limited_for_all_is_not_claimed_ahead(place: Any, clock: Still, threaded: bool) -> None:
    """Another client may have a worker for it."""
    first, second = Crowd(), Crowd()
    gate = threading.Event()

    def block(task: Several) -> None:
        first.enter()
        gate.wait(LIMIT)
        first.leave()

    def fast(task: Free) -> None:
        pass

    async with (
        Client(place, workers=8, threads=2, clock=clock) as client,
        Client(place, clock=clock) as other,
    ):
        try:
            client.register(Free, fast if threaded else nothing)
            ids = await client.add(*[Free(number) for number in range(100)]).save()
            await until(client, ids, JobStatus.SUCCEEDED)
            await client.resume("free")
            blocker = Crowd()
            if not threaded:
                client.register(Wide, blocker.hold)
                client.register(Narrow, blocker.hold)
                await client.add(*[Wide(n) for n in range(3)], Narrow()).save()
                client.register(Keyed, blocker.hold)
                await client.add(Keyed(), Keyed()).save()
                with anyio.fail_after(LIMIT):
                    while blocker.running < 6:
                        await asyncio.sleep(0.001)
            client.register(Several, block if threaded else first.hold)
            ids = await client.add(*[Several(number) for number in range(6)]).save()
            with anyio.fail_after(LIMIT):
                while first.running < 2:
                    await asyncio.sleep(0.001)
            await turns()
            assert await client.open_store().running("several") == 2
            other.register(Several, second.hold)
            with anyio.fail_after(LIMIT):
                while second.running < 4:
                    await asyncio.sleep(0.001)
            assert (first.running, second.running) == (2, 4)
        finally:
            gate.set()
            for crowd in (first, second, blocker):
                crowd.gate.set()
        await until(client, ids, JobStatus.SUCCEEDED)


async def test_types_of_one_queue_share_its_limit(place: Any) -> None:
    """Also where each is handled by another client; both get on."""
    crowd = Crowd()
    async with Client(place) as client, Client(place) as other:
        client.register(Left, crowd.work)
        other.register(Right, crowd.work)
        ids = [(await client.add(kind(number)).save())[0] for number in range(10) for kind in (Left, Right)]
        await until(client, ids, JobStatus.SUCCEEDED)
    assert (crowd.most, crowd.calls) == (1, 20)


# -- keys ------------------------------------------------------------------------------------------


async def test_one_of_each_key_runs_and_keys_beside_each_other(place: Any) -> None:
    """As many as there are keys, never two of one."""
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    crowd = Crowd()

    async def work(task: Keyed) -> None:
        running[task.name] += 1
        most[task.name] = max(most[task.name], running[task.name])
        await crowd.work(task)
        running[task.name] -= 1

    async with Client(place, workers=8) as client:
        client.register(Keyed, work)
        ids = [(await client.add(Keyed(key)).key(key).save())[0] for _ in range(8) for key in "abc"]
        await until(client, ids, JobStatus.SUCCEEDED)
    assert most == {"a": 1, "b": 1, "c": 1}
    assert crowd.calls == 24


async def test_keys_take_turns(place: Any, clock: Still) -> None:
    """Who has added much waits behind those who have added little."""
    order: list[str] = []

    async def work(task: Keyed) -> None:
        order.append(task.name)
        clock.millis += 1

    async with Client(place, workers=1, clock=clock) as client:
        for key, number in (("a", 5), ("b", 3), ("c", 1)):
            for count in range(number):
                *_, last = await client.add(Keyed(f"{key}{count}")).key(key).save()
                clock.millis += 1
        ids = [last]
        client.register(Keyed, work)
        with anyio.fail_after(LIMIT):
            while len(order) < 9:
                await asyncio.sleep(0.001)
        await until(client, ids, JobStatus.SUCCEEDED)
    assert order == ["a0", "b0", "c0", "a1", "b1", "a2", "b2", "a3", "a4"]


async def test_jobs_without_a_key_have_no_turn(place: Any) -> None:
    """They run beside each other, in the same queue."""
    crowd = Crowd()
    async with Client(place, workers=8) as client:
        client.register(Keyed, crowd.hold)
        ids = await client.add(*[Keyed() for _ in range(5)]).save()
        await until(client, ids, JobStatus.RUNNING)
        crowd.gate.set()
        await until(client, ids, JobStatus.SUCCEEDED)
    assert crowd.most == 5


async def test_key_is_shared_by_the_types_of_a_queue(place: Any) -> None:
    """Also where each is handled by another client, which hears that its turn has come."""
    crowd = Crowd()
    async with Client(place) as client, Client(place) as other:
        client.register(Odd, crowd.work)
        other.register(Even, crowd.work)
        ids = [(await client.add(kind()).key("a").save())[0] for _ in range(10) for kind in (Odd, Even)]
        await until(client, ids, JobStatus.SUCCEEDED)
    assert (crowd.most, crowd.calls) == (1, 20)


@pytest.mark.parametrize(
    ("again", "expected"),
    [(Retry(0), ["a", "a", "b"]), (Retry(3600), ["a", "b"]), (Snooze(3600), ["a", "b"])],
    ids=["at once", "later", "snoozed"],
)
async def test_job_that_runs_again_keeps_its_turn_only_if_that_is_at_once(
    place: Any, clock: Still, again: Exception, expected: list[str]
) -> None:
    """A long wait is no reason for others of its key to wait."""
    order: list[str] = []

    async def work(task: Keyed, job: JobContext) -> None:
        order.append(task.name)
        if order == ["a"]:
            raise again

    async with Client(place, clock=clock) as client:
        *_, last = [(await client.add(Keyed(name)).key("k").save())[0] for name in "ab"]
        client.register(Keyed, work)
        await until(client, [last], JobStatus.SUCCEEDED)
    assert order == expected


async def test_jobs_of_full_keys_hold_up_nobody(place: Any) -> None:
    """Many of them wait in front; other keys and queues run at once."""
    crowd, beside = Crowd(), Crowd()
    async with Client(place, workers=2) as client:
        client.register(Keyed, crowd.hold)
        ids = await client.add(*[Keyed() for _ in range(200)]).key("full").save()
        await crowd.wait()
        client.register(Free, beside.work)
        others = await client.add(*[Free(number) for number in range(5)]).save()
        [other] = await client.add(Keyed()).key("empty").save()
        await until(client, others, JobStatus.SUCCEEDED)
        await until(client, [other], JobStatus.RUNNING)
        await crowd.exactly(2)
        assert await client.cancel(*ids) == 200
        await until(client, ids, JobStatus.CANCELLED)
        crowd.gate.set()
        await until(client, [other], JobStatus.SUCCEEDED)


# -- rates -----------------------------------------------------------------------------------------


class Sleeps:
    """How long the dispatcher has slept, and until when it does now."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.delays: list[float] = [math.inf]
        original = dispatcher.Dispatcher._sleep

        async def sleep(of: dispatcher.Dispatcher, delay: float) -> None:
            self.delays.append(delay)
            await original(of, delay)

        monkeypatch.setattr(dispatcher.Dispatcher, "_sleep", sleep)

    async def of(self, delay: float) -> None:
        """Wait until it sleeps for so long."""
        with anyio.fail_after(LIMIT):
            while not math.isclose(self.delays[-1], delay, abs_tol=1e-6):
                await asyncio.sleep(0.001)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> Sleeps:
    """What the dispatchers sleep in this test."""
    return Sleeps(monkeypatch)


WINDOW = 10 + MARGIN / 1000


async def test_rate_lets_so_many_start_in_each_window(place: Any, clock: Still, sleeps: Sleeps) -> None:
    """The dispatcher sleeps until the next may start, and not longer."""
    crowd = Crowd()
    async with Client(place, clock=clock) as client:
        client.register(Rated, crowd.work)
        ids = await client.add(*[Rated(number) for number in range(5)]).save()
        await sleeps.of(WINDOW)
        await crowd.exactly(2)
        clock.millis += 10_019
        client.notify()
        await sleeps.of(0.001)
        await crowd.exactly(2)
        clock.millis += 1
        client.notify()
        await sleeps.of(WINDOW)
        await crowd.exactly(4)
        clock.millis += 10_020
        client.notify()
        await until(client, ids, JobStatus.SUCCEEDED)


async def test_window_slides(place: Any, clock: Still, sleeps: Sleeps) -> None:
    """It is that of the last starts, not of a calendar; one that is permitted now does not wait for two."""
    crowd = Crowd()
    async with Client(place, clock=clock) as client:
        client.register(Rated, crowd.work)
        [first] = await client.add(Rated(1)).save()
        await until(client, [first], JobStatus.SUCCEEDED)
        clock.millis += 6_000
        ids = await client.add(Rated(2), Rated(3)).save()
        await sleeps.of(WINDOW - 6)
        await crowd.exactly(2)
        await sleeps.of(WINDOW - 6)
        clock.millis += 4_020
        client.notify()
        await until(client, ids, JobStatus.SUCCEEDED)
        [last] = await client.add(Rated(4)).save()
        await sleeps.of(WINDOW - 4.02)
        await crowd.exactly(3)
        await client.cancel(last)


async def test_rate_holds_over_all_clients_and_lives(place: Any, clock: Still, sleeps: Sleeps) -> None:
    """It is kept in the database: neither another client nor a new start has a window of its own."""
    crowd = Crowd()
    async with Client(place, clock=clock) as client, Client(place, clock=clock) as other:
        client.register(Rated, crowd.work)
        other.register(Rated, crowd.work)
        ids = await client.add(*[Rated(number) for number in range(4)]).save()
        await sleeps.of(WINDOW)
        await turns()
        await crowd.exactly(2)
    async with client:
        await sleeps.of(WINDOW)
        await crowd.exactly(2)
        clock.millis += 10_020
        client.notify()
        await until(client, ids, JobStatus.SUCCEEDED)


async def test_rate_holds_up_nobody_else(place: Any, clock: Still, sleeps: Sleeps) -> None:
    """Other queues go on while one waits for its time."""
    crowd = Crowd()
    async with Client(place, workers=2, clock=clock) as client:
        client.register(Rated, crowd.work)
        client.register(Free, crowd.work)
        rated = await client.add(*[Rated(number) for number in range(50)]).save()
        await sleeps.of(WINDOW)
        ids = await client.add(*[Free(number) for number in range(20)]).save()
        await until(client, ids, JobStatus.SUCCEEDED)
        assert crowd.calls == 22
        assert await client.open_store().running("rated") == 0
        await client.cancel(*rated)


async def test_retries_count(place: Any, clock: Still, sleeps: Sleeps) -> None:
    """What is limited is starts, of whatever attempt."""
    attempts: list[int] = []

    async def work(task: Rated, job: JobContext) -> None:
        attempts.append(job.attempt)
        raise ValueError("no")

    async with Client(place, clock=clock) as client:
        client.register(Rated, work)
        [job_id] = await client.add(Rated()).save()
        await sleeps.of(WINDOW)
        assert attempts == [1, 2]
        clock.millis += 10_020
        client.notify()
        await until(client, [job_id], JobStatus.FAILED)


async def test_rate_counts_from_the_first_line_of_a_thread(place: Any, clock: Still, sleeps: Sleeps) -> None:
    """A handler in a thread counts when it begins there."""
    calls: list[int] = []

    def work(task: Rated) -> None:
        calls.append(task.number)

    async with Client(place, clock=clock) as client:
        client.register(Rated, work)
        ids = await client.add(*[Rated(number) for number in range(3)]).save()
        await until(client, ids[:2], JobStatus.SUCCEEDED)
        await sleeps.of(WINDOW)
        assert sorted(calls) == [0, 1]
        clock.millis += 10_020
        client.notify()
        await until(client, ids, JobStatus.SUCCEEDED)


@pytest.mark.parametrize("threaded", [False, True])
async def test_start_counts_while_its_handler_runs(
    place: Any, clock: Still, sleeps: Sleeps, threaded: bool
) -> None:
    """It is known at once when it was; nobody waits for the handler's end, or that of its lease."""
    crowd, gate = Crowd(), threading.Event()

    def block(task: Rated) -> None:
        gate.wait(LIMIT)

    async with Client(place, clock=clock) as client:
        try:
            client.register(Rated, block if threaded else crowd.hold)
            ids = await client.add(*[Rated(number) for number in range(3)]).save()
            await sleeps.of(WINDOW)
            clock.millis += 10_020
            client.notify()
            await until(client, ids, JobStatus.RUNNING)
        finally:
            gate.set()
            crowd.gate.set()
        await until(client, ids, JobStatus.SUCCEEDED)


@pytest.mark.parametrize("threaded", [False, True])
async def test_start_of_a_rate_is_not_claimed_ahead(
    place: Any, clock: Still, sleeps: Sleeps, threaded: bool
) -> None:
    """Only as many are claimed as there are workers, and threads, for them."""
    crowd, gate = Crowd(), threading.Event()

    class Fast(Task):
        config: ClassVar[QueueConfig] = QueueConfig("fast", rate=Rate(8, per=10), retention=KEEP)

    def block(task: Fast) -> None:
        crowd.enter()
        gate.wait(LIMIT)

    def fast(task: Free) -> None:
        pass

    async with Client(place, workers=4 if threaded else 1, threads=1, clock=clock) as client:
        try:
            client.register(Free, fast if threaded else nothing)
            await until(client, await client.add(*[Free() for _ in range(100)]).save(), JobStatus.SUCCEEDED)
            client.register(Fast, block if threaded else crowd.hold)
            ids = await client.add(*[Fast() for _ in range(4)]).save()
            await crowd.wait()
            await turns()
            assert await client.open_store().running("fast") == 1
        finally:
            gate.set()
            crowd.gate.set()
        await until(client, ids, JobStatus.SUCCEEDED)


# -- starts that are none --------------------------------------------------------------------------


@pytest.mark.parametrize("manner", ["pause", "cancel", "stop"])
async def test_job_that_does_not_start_frees_its_start(
    place: Any, clock: Still, monkeypatch: pytest.MonkeyPatch, manner: str
) -> None:
    """It is given back, or ends, before its handler begins: others start at the same instant."""
    crowd, claims = Crowd(), LateClaims(monkeypatch)
    async with Client(place, clock=clock) as client, Client(place, clock=clock) as other:
        client.register(Rated, crowd.work)
        ids = await client.add(Rated(1), Rated(2)).save()
        with anyio.fail_after(LIMIT):
            await claims.claimed.wait()
        if manner == "pause":
            await client.pause("rated", here=True)
        elif manner == "cancel":
            await client.cancel(*ids)
            feed = client._dispatcher._feed  # type: ignore[union-attr]
            with anyio.fail_after(LIMIT):
                while len(feed.cancelled) < 2:
                    await asyncio.sleep(0.001)
        else:
            stopping = asyncio.create_task(client.stop(LIMIT))
            await turns()
        claims.answer.set()
        if manner == "stop":
            assert await stopping is True
        other.register(Rated, crowd.work)
        more = await other.add(Rated(3), Rated(4)).save() if manner == "cancel" else ids
        await until(other, more, JobStatus.SUCCEEDED)
    assert crowd.calls == 2


async def test_job_that_is_refused_frees_its_start(place: Any, clock: Still) -> None:
    """One that has crashed too often does not start."""
    crowd = Crowd()
    async with Client(place, clock=clock) as client:
        store, now = client.open_store(), clock.now()
        job = NewJob(
            id="poison",
            queue="rated",
            task="Rated",
            payload=b"{}",
            max_attempts=3,
            created_at=now,
            due_at=now,
        )
        await store.add([job])
        lane = Lane(kinds=(("rated", "Rated"),), room=1)
        [claimed] = (await store.claim([lane], owner="dead", now=now, until=now + 9)).jobs
        await store.finish([Reschedule(id=claimed.id, fence=claimed.fence, due_at=now, attempt=0, crashes=2)])
        client.register(Rated, crowd.work)
        await until(client, ["poison"], JobStatus.FAILED)
        ids = await client.add(Rated(1), Rated(2)).save()
        await until(client, ids, JobStatus.SUCCEEDED)


@pytest.mark.parametrize("manner", ["payload", "cancel", "thread"])
async def test_job_whose_handler_never_begins_does_not_stop_its_rate(
    place: Any, clock: Still, sleeps: Sleeps, manner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a payload that is no task, or cancelled at the last moment: no later than if it had begun."""
    crowd = Crowd()
    begun: list[int] = []

    def thread(task: Rated) -> None:
        begun.append(task.number)

    async with Client(place, clock=clock) as client:
        now = clock.now()
        payload = b"[]" if manner == "payload" else b"{}"
        bad = [
            NewJob(
                id=f"bad {number}",
                queue="rated",
                task="Rated",
                payload=payload,
                max_attempts=1,
                created_at=now,
                due_at=now,
            )
            for number in range(2)
        ]
        await client.open_store().add(bad)
        original = worker.WorkerPool.start

        def start_and_cancel(pool: worker.WorkerPool, job: ClaimedJob, handler: Any) -> None:
            original(pool, job, handler)
            if manner != "payload" and job.id.startswith("bad"):
                assert pool.cancel_job(job.id, job.fence)

        monkeypatch.setattr(worker.WorkerPool, "start", start_and_cancel)
        client.register(Rated, thread if manner == "thread" else crowd.hold)
        ended = JobStatus.FAILED if manner == "payload" else JobStatus.CANCELLED
        await until(client, ["bad 0", "bad 1"], ended)
        crowd.gate.set()
        clock.millis += 10_020
        ids = await client.add(Rated(1), Rated(2)).save()
        await until(client, ids, JobStatus.SUCCEEDED)
        starts = client._dispatcher._starts  # type: ignore[union-attr]
        assert starts._numbers == {}


# -- noting starts ---------------------------------------------------------------------------------


class Noting(MemoryStore):
    """A store that takes down what is noted, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[list[tuple[str, int, int]]] = []
        self.during: Callable[[], None] = lambda: None
        self.failing = False

    async def note_starts(self, starts: Any) -> None:
        self.noted.append(list(starts))
        self.during()
        if self.failing:
            raise RuntimeError("no")


def job(job_id: str, fence: int = 1) -> ClaimedJob:
    return ClaimedJob(
        id=job_id, queue="q", task="T", payload="{}", attempt=1, max_attempts=3, crashes=0, fence=fence,
        created_at=0, scheduled_at=0,
    )  # fmt: skip


async def expecting(*jobs: ClaimedJob) -> tuple[Starts, Noting]:
    """Starts of these jobs, numbered from 1, that are expected."""
    from backlite_async._job import Claim

    store = Noting()
    starts = Starts(store)
    starts.expect(Claim(jobs=jobs, starts={job.id: number for number, job in enumerate(jobs, 1)}))
    return starts, store


async def test_start_is_noted_a_little_later_than_it_was() -> None:
    """A handler's first line runs soon after it was started; and one that does not start is none."""
    starts, store = await expecting(job("a"), job("b"), job("c"))
    starts.count(job("a"), 1000)
    starts.void(job("b"))
    starts.void(job("a"))
    starts.count(job("a"), 2000)
    starts.count(job("c", fence=2), 3000)
    await starts.note()
    await starts.note()
    assert store.noted == [[("q", 1, 1000 + MARGIN), ("q", 2, 0)]]


async def test_what_starts_while_others_are_noted_is_noted_next() -> None:
    """Nothing is lost, and nothing noted twice."""
    starts, store = await expecting(job("a"), job("b"))
    starts.count(job("a"), 1000)
    store.during = lambda: starts.count(job("b"), 2000)
    await starts.note()
    store.during = lambda: None
    await starts.note()
    assert store.noted == [[("q", 1, 1000 + MARGIN)], [("q", 2, 2000 + MARGIN)]]


async def test_what_could_not_be_noted_is_noted_again() -> None:
    """As trouble with the disk passes."""
    starts, store = await expecting(job("a"))
    starts.count(job("a"), 1000)
    store.failing = True
    with pytest.raises(RuntimeError):
        await starts.note()
    store.failing = False
    await starts.note()
    assert store.noted == [[("q", 1, 1000 + MARGIN)]] * 2


# -- what is asked of the store --------------------------------------------------------------------


def test_limits_leave_the_room_that_is_free() -> None:
    """Here: less what is held; for all: no more than the workers that are free now."""
    local = QueueConfig("a", concurrency=3)
    everywhere = QueueConfig("b", global_concurrency=9, concurrency=4)
    rated = QueueConfig("c", rate=Rate(5, per=0.0015))
    keyed = QueueConfig("d", concurrency_per_key=2)
    held = {"a": 2, "b": 1}
    assert plan_limits([local, everywhere, rated, keyed], held=held, workers_free=2, threads_free=9) == [
        Limit(queue="a", room=1),
        Limit(queue="b", room=2, in_all=9),
        Limit(queue="c", room=2, rate=(5, 2)),
        Limit(queue="d", per_key=2),
    ]
    held = {"a": 5, "b": 2}
    assert plan_limits([local, everywhere, rated], held=held, workers_free=9, threads_free=0) == [
        Limit(queue="a", room=0),
        Limit(queue="b", room=2, in_all=9),
        Limit(queue="c", room=9, rate=(5, 2)),
    ]


@pytest.mark.parametrize(("workers", "threads", "room"), [(9, 3, 3), (2, 3, 2), (9, 0, 0)])
def test_what_runs_in_threads_has_the_room_of_threads(workers: int, threads: int, room: int) -> None:
    """Where all of a queue does; what counts here alone may be claimed ahead of them."""
    local, rated = QueueConfig("a", concurrency=7), QueueConfig("c", rate=Rate(5, per=1))
    assert plan_limits(
        [local, rated], held={}, workers_free=workers, threads_free=threads, in_threads={"a", "c"}
    ) == [Limit(queue="a", room=7), Limit(queue="c", room=room, rate=(5, 1000))]
