"""What the client tells of queues and processes, and who sums up what is counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, ClassVar

import msgspec
import pytest

from backlite_async import (
    Client,
    InvalidType,
    InvalidValue,
    JobStatus,
    QueueConfig,
    QueueStats,
    Task,
)
from backlite_async._clock import SystemClock, from_millis
from backlite_async._health import Health
from backlite_async._job import Complete, Lane
from backlite_async._maintenance import Maintenance
from backlite_async._registry import Registry
from backlite_async._stats import HOUR, KEEP_HOURS, MINUTE, bucket
from backlite_async.stores import MemoryStore

from .conftest import LIMIT

BEGIN = 500_000 * HOUR
"""A full hour."""


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", concurrency=3)


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other")


class Clock(SystemClock):
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = BEGIN

    def now(self) -> int:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(database: str, clock: Clock) -> AsyncIterator[Client]:
    """A client that runs nothing, whose time stands still."""
    async with Client(database, workers=0, clock=clock) as client:
        yield client


async def succeed(client: Client, task: Task, count: int = 1, *, run: int = 1_000) -> None:
    """Have so many jobs succeed now, each after so many microseconds."""
    await client.add(*[task] * count).save()
    store, now = client.open_store(), client.clock.now()
    queue, name = task.config.name, type(task).__name__
    claim = await store.claim([Lane(kinds=((queue, name),), room=count)], owner="o", now=now, until=now + 1)
    tally = (queue, now - now % MINUTE, "succeeded", bucket(run), bucket(500))
    outcomes = [
        Complete(
            id=job.id, fence=job.fence, status=JobStatus.SUCCEEDED, finished_at=now, started_at=now,
            duration=run, attempt=1, crashes=0, tally=tally,
        )
        for job in claim.jobs
    ]  # fmt: skip
    assert await store.finish(outcomes) == set()
    assert len(outcomes) == count


# -- statistics -----------------------------------------------------------------------------------


async def test_queues_with_what_they_did(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last minutes and of the last day, in as many questions, whatever the number of queues."""
    await succeed(client, Work(), 3)
    clock.at += 23 * HOUR + 58 * MINUTE
    await succeed(client, Work(), 2)
    await succeed(client, Other(), 1)
    await client.add(Work(), Other()).wait(60).save()
    clock.at += 5 * MINUTE
    asked: list[dict[str, Any]] = []
    store = client.open_store()

    def noted(ask: Any) -> Any:
        async def note(**options: Any) -> Any:
            asked.append(options)
            return await ask(**options)

        return note

    for name in ("queues", "stats", "numbers"):
        monkeypatch.setattr(store, name, noted(getattr(store, name)))
    queues = {queue.name: queue for queue in await client.queues.list()}
    assert len(asked) == 5
    await client.queues.list()
    assert len(asked) == 8  # what is over is known of the day
    assert [queues[name].recent.succeeded for name in ("work", "other")] == [2, 1]
    assert [queues[name].today.succeeded for name in ("work", "other")] == [5, 1]
    assert queues["work"].limits["concurrency"] == 3
    clock.at += 2 * MINUTE
    queues = {queue.name: queue for queue in await client.queues.list()}
    assert [queues[name].recent.ended for name in ("work", "other")] == [0, 0]
    assert queues["work"].recent.since >= timedelta(minutes=5)
    assert queues["work"].recent.begin is not None
    assert queues["work"].today.succeeded == 5


async def test_one_queue(client: Client, clock: Clock) -> None:
    """With the times of its attempts, which a list has of the last minutes only."""
    assert await client.queues.get("work") is None
    await succeed(client, Work(), 3)
    await client.add(Work(), Other()).save()
    clock.at += 1
    queue = await client.queues.get("work")
    [listed] = [queue for queue in await client.queues.list() if queue.name == "work"]
    assert queue is not None
    assert (queue.pending, queue.recent, queue.today.succeeded) == (1, listed.recent, 3)
    assert queue.recent.run is not None
    assert queue.today.run is not None
    assert listed.today == msgspec.structs.replace(queue.today, run=None, wait=None)
    [quick] = [queue for queue in await client.queues.list(times=False) if queue.name == "work"]
    without = msgspec.structs.replace(queue.recent, run=None, wait=None)
    assert quick == msgspec.structs.replace(listed, recent=without)


async def test_queues_are_counted_as_far_as_asked(client: Client) -> None:
    await client.add(*[Work()] * 3).save()
    [queue] = await client.queues.list(most=2)
    assert (queue.pending, queue.capped) == (2, ("pending", "due"))
    for most in (0, 10_001):
        with pytest.raises(InvalidValue, match="must lie between 1 and 10,000"):
            await client.queues.list(most=most)


async def test_all_queues_together(client: Client, clock: Clock) -> None:
    """None is all of them: in steps and in one, before and after they were summed up."""
    assert (await client.queues.stats(None)).ended == 0
    for number in range(1, 4):
        await succeed(client, Work(), number, run=1_000)
        await succeed(client, Other(), 1, run=1_000_000)
        clock.at += 10 * MINUTE
        series = await client.queues.series(None, timedelta(minutes=40), 600)
        assert [step.succeeded for step in series if step.succeeded] == list(range(2, number + 2))
        stats = await client.queues.stats(None)
        assert stats.succeeded == sum(range(2, number + 2))
        assert stats.run is not None
        assert stats.run.longest == pytest.approx(timedelta(seconds=1), rel=0.13)
    clock.at += 5 * HOUR
    await client.open_store().sum_up(now=clock.at)
    hours = await client.queues.series(None, timedelta(hours=6))
    assert [step.succeeded for step in hours] == [0, 9, 0, 0, 0, 0, 0]
    assert {queue.name for queue in await client.queues.list()} <= {"work", "other"}


async def test_statistics_of_a_time(client: Client, clock: Clock) -> None:
    """Counts and percentiles of what ended in it; it begins with a whole minute, and says when."""
    assert (await client.queues.stats("work")).ended == 0
    await succeed(client, Work(), 9, run=1_000)
    await succeed(client, Work(), 1, run=1_000_000)
    assert (await client.queues.stats("work")).ended == 10
    clock.at += 90_000
    stats = await client.queues.stats("work", last=timedelta(seconds=90))
    assert (stats.succeeded, stats.failed, stats.ended) == (10, 0, 10)
    assert (stats.begin, stats.since) == (from_millis(BEGIN), timedelta(seconds=90))
    assert stats.throughput == pytest.approx(10 / 90)
    assert stats.run is not None
    assert stats.run.p50 == pytest.approx(timedelta(milliseconds=1), rel=0.13)
    assert stats.run.longest == pytest.approx(timedelta(seconds=1), rel=0.13)
    stats = await client.queues.stats("work", 60)
    assert (stats.begin, stats.since, stats.ended) == (from_millis(BEGIN), timedelta(seconds=90), 10)
    clock.at += 90_000
    assert (await client.queues.stats("work", 60)).ended == 0
    assert (await client.queues.stats("none", timedelta(days=1))).run is None


async def test_a_series_in_minutes(client: Client, clock: Clock) -> None:
    """Each step with its begin, the empty ones too, and the last one as far as it has got."""
    for number in range(1, 5):
        await succeed(client, Work(), number)
        await succeed(client, Other(), 1)
        clock.at += MINUTE
    clock.at += 30_000
    series = await client.queues.series("work", last=timedelta(minutes=5))
    assert [step.succeeded for step in series] == [0, 1, 2, 3, 4, 0]
    assert [step.begin for step in series] == [from_millis(BEGIN + at * MINUTE) for at in range(-1, 5)]
    assert [step.since for step in series] == [*[timedelta(minutes=1)] * 5, timedelta(seconds=30)]
    series = await client.queues.series("work", last=300, step=120)
    assert [step.succeeded for step in series] == [0, 3, 7, 0]
    assert series[0].begin == from_millis(BEGIN - 2 * MINUTE)


async def test_a_series_in_hours(client: Client, clock: Clock) -> None:
    """What is summed up by the hour is in the hour's step, before and after it was summed up."""
    for number in range(1, 5):
        clock.at += 7 * MINUTE
        await succeed(client, Work(), number)
        clock.at += 2 * HOUR - 7 * MINUTE
    before = await client.queues.series("work", last=timedelta(hours=8))
    assert [step.succeeded for step in before] == [1, 0, 2, 0, 3, 0, 4, 0, 0]
    await client.open_store().sum_up(now=clock.at)
    assert await client.queues.series("work", last=timedelta(hours=8)) == before
    days = await client.queues.series("work", timedelta(days=2), timedelta(days=1))
    assert sum(step.succeeded for step in days) == 10
    assert (await client.queues.stats("work", timedelta(hours=8))).succeeded == 10
    assert (await client.queues.stats("work", timedelta(hours=7.5))).succeeded == 10  # begins with an hour
    assert (await client.queues.stats("work", timedelta(hours=6.5))).succeeded == 9


@pytest.mark.parametrize("minutes", [1, 5, 15, 60])
async def test_minutes_are_exact_for_three_hours(client: Client, clock: Clock, minutes: int) -> None:
    """Nothing of the last three hours is hidden in an hour that began before them."""
    clock.at += 38 * MINUTE
    start = clock.at
    for _ in range(12):
        await succeed(client, Work())
        clock.at += 15 * MINUTE
    await client.open_store().sum_up(now=clock.at)
    assert clock.at == start + 3 * HOUR
    series = await client.queues.series("work", timedelta(hours=3), timedelta(minutes=minutes))
    assert sum(step.succeeded for step in series) == 12
    assert (await client.queues.stats("work", timedelta(hours=3))).succeeded == 12


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"queue": 5}, InvalidType, "name=5"),
        ({"last": 59}, InvalidValue, "last=59 must lie between a minute and 32 days"),
        ({"last": timedelta(days=33)}, InvalidValue, "must lie between a minute and 32 days"),
        ({"last": "day"}, InvalidType, "last must be a number of seconds"),
        ({"step": 0}, InvalidValue, "step=0 must be minutes that divide an hour"),
        ({"step": 90}, InvalidValue, "step=90"),
        ({"step": 420}, InvalidValue, "step=420"),
        (
            {"last": timedelta(hours=4), "step": 60},
            InvalidValue,
            "step=60 must be whole hours, as last=4:00:00",
        ),
    ],
)
async def test_what_is_said_of_wrong_times(
    client: Client, arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    """The thing, the value, and what it may be."""
    with pytest.raises(error) as caught:
        await client.queues.series(**{"queue": "work", **arguments})
    assert said in str(caught.value)
    if "step" not in arguments:
        with pytest.raises(error):
            await client.queues.stats(**{"queue": "work", **arguments})


async def test_the_longest_series(client: Client, clock: Clock) -> None:
    """32 days by the hour."""
    await succeed(client, Work())
    clock.at += KEEP_HOURS
    series = await client.queues.series("work", timedelta(days=32))
    assert len(series) == 32 * 24 + 1
    assert series[0].succeeded == 1
    assert all(isinstance(step, QueueStats) for step in series)


# -- owners ---------------------------------------------------------------------------------------


async def test_owners(database: str) -> None:
    """Each started client is there, with what it is and how much it runs."""
    client = Client(database, workers=3)
    running, done = asyncio.Event(), asyncio.Event()

    @client.handler(Work)
    async def work(task: Work) -> None:
        running.set()
        await done.wait()

    async with client, asyncio.timeout(LIMIT):
        await client.add(Work()).save()
        await running.wait()
        [owner] = await client.owners.list()
        assert (owner.pid, owner.workers, owner.running, owner.alive) == (os.getpid(), 3, 1, True)
        assert owner.started_at is not None
        assert str(os.getpid()) in owner.id
        done.set()


async def test_owners_of_one_file(file: str) -> None:
    """Other clients are seen too, those without workers as well."""
    async with Client(file) as one, Client(file, workers=0) as two:
        owners = await one.owners.list()
        assert sorted(owner.workers for owner in owners) == [0, 10]
        assert [owner.id for owner in owners] == [owner.id for owner in await two.owners.list()]
    async with two:
        assert len(await two.owners.list()) == 1


# -- summing up -----------------------------------------------------------------------------------


class Counting(MemoryStore):
    """Tells when it has summed up, who leads, and who has asked what expires."""

    def __init__(self) -> None:
        super().__init__()
        self.leading = True
        self.summed_up: list[int] = []
        self.asked: list[bool] = []
        self.looked = asyncio.Event()

    def leads(self) -> bool:
        return self.leading

    async def sum_up(self, *, now: int) -> None:
        self.summed_up.append(now)

    async def next_expiry(self) -> int | None:
        self.asked.append(self.leading)
        return await super().next_expiry()

    async def kinds(self) -> Any:
        self.looked.set()
        return await super().kinds()


async def test_the_leader_sums_up_once_an_hour() -> None:
    """At first, and in every hour in which it looks around; nobody else does; who leads anew, does again.

    Nor does anybody else remove what has expired.
    """
    clock, store = Clock(), Counting()
    maintenance = Maintenance(store, clock, Registry(), Health("clean up", set()))
    upkeep = asyncio.create_task(maintenance.run())

    async def look() -> list[int]:
        store.looked.clear()
        maintenance.look()
        async with asyncio.timeout(LIMIT):
            await store.looked.wait()
        return [at - BEGIN for at in store.summed_up]

    try:
        assert await look() == [0]
        clock.at += HOUR - 1
        assert await look() == [0]
        clock.at += 1
        assert await look() == [0, HOUR]
        store.leading = False
        clock.at += HOUR
        assert await look() == [0, HOUR]
        store.leading = True
        assert await look() == [0, HOUR, 2 * HOUR]
        store.leading = False
        assert await look() == [0, HOUR, 2 * HOUR]
        store.leading = True
        assert await look() == [0, HOUR, 2 * HOUR, 2 * HOUR]
        assert set(store.asked) == {True}
    finally:
        maintenance.close()
        await upkeep


async def test_a_client_with_workers_sums_up_at_its_start() -> None:
    """What was left by the minute is summed up, whoever left it."""
    clock, store = Clock(), Counting()
    async with Client(store, clock=clock), asyncio.timeout(LIMIT):
        await store.looked.wait()
        assert store.summed_up == [BEGIN]
