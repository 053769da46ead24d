"""Priorities, and what else a job may have of its own: timeout, attempts, and what its handler sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

import anyio
import pytest

from backlite_async import (
    Client,
    JobContext,
    JobStatus,
    QueueConfig,
    Rate,
    Retention,
    Retry,
    Snooze,
    Task,
)
from backlite_async._clock import from_millis
from backlite_async._deadlines import Deadlines
from backlite_async.stores import MemoryStore

from .conftest import LIMIT, Journal
from .test_claimed_ahead import Still, record, until

KEEP = Retention(payload="always")


class Plain(Task):
    config: ClassVar[QueueConfig] = QueueConfig("plain", backoff=0, retention=KEEP)
    name: str = ""


class Urgent(Task):
    config: ClassVar[QueueConfig] = QueueConfig("urgent", priority=7, retention=KEEP)
    name: str = ""


class Idle(Task):
    config: ClassVar[QueueConfig] = QueueConfig("idle", priority=-10, retention=KEEP)
    name: str = ""


class Brief(Task):
    config: ClassVar[QueueConfig] = QueueConfig("brief", timeout=0.005, max_attempts=1, retention=KEEP)


class Keyed(Task):
    config: ClassVar[QueueConfig] = QueueConfig("keyed", concurrency_per_key=1, retention=KEEP)
    name: str = ""


class Rated(Task):
    config: ClassVar[QueueConfig] = QueueConfig("rated", rate=Rate(1, per=60), retention=KEEP)


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, file: str) -> Any:
    """Jobs in a place that several clients can share."""
    return MemoryStore() if request.param == "memory" else file


class Order:
    """In which order handlers have seen their jobs, one at a time."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def work(self, task: Plain | Urgent | Idle | Keyed) -> None:
        self.names.append(task.name)


async def run_one_by_one(client: Client, order: Order, ids: Sequence[str]) -> list[str]:
    """Run what has been added with one worker; return the order."""
    for kind in (Plain, Urgent, Idle, Keyed):
        client.registry.register(kind, order.work)  # all of them before anything is claimed
    client.notify()
    await until(client, ids, JobStatus.SUCCEEDED)
    return order.names


# -- priorities ------------------------------------------------------------------------------------


async def test_higher_priority_runs_first_within_what_is_due(place: Any) -> None:
    """A job's own one, or else its queue's; of equal ones as they were added."""
    clock = Still()
    async with Client(place, workers=1, clock=clock) as client:
        ids = [
            *await client.add(Plain("low")).priority(-3).save(),
            *await client.add(Idle("idle")).save(),
            *await client.add(Plain("first"), Plain("second")).save(),
            *await client.add(Urgent("urgent")).save(),
            *await client.add(Plain("most urgent")).priority(10).save(),
            *await client.add(Urgent("not so urgent")).priority(0).save(),
            *await client.add(Idle("urgent, too")).priority(7).save(),
        ]
        [later] = await client.add(Plain("later")).wait(1).priority(10).save()
        order = await run_one_by_one(client, Order(), ids)
        assert order == [
            "most urgent", "urgent", "urgent, too", "first", "second", "not so urgent", "low", "idle"
        ]  # fmt: skip
        assert await client.status(later) is JobStatus.PENDING
        assert (await record(client, ids[1])).priority == -10
        assert (await record(client, ids[6])).priority == 0


async def test_what_is_due_for_longer_does_not_come_before_what_is_urgent(place: Any) -> None:
    """Priority counts more than the time for which a job has been due."""
    clock = Still()
    async with Client(place, workers=1, clock=clock) as client:
        [old] = await client.add(Plain("old")).save()
        clock.millis += 3_600_000
        [new] = await client.add(Plain("new")).priority(1).save()
        assert await run_one_by_one(client, Order(), [old, new]) == ["new", "old"]


@pytest.mark.parametrize("again", [ValueError("no"), Retry(0), Snooze(0)])
async def test_job_keeps_its_priority_when_it_runs_again(place: Any, again: Exception) -> None:
    """An attempt later it comes first, as before."""
    clock = Still()
    names: list[str] = []

    async def work(task: Plain, job: JobContext) -> None:
        names.append(task.name)
        if names == ["high"]:
            raise again

    async with Client(place, workers=1, clock=clock) as client:
        high = await client.add(Plain("high")).priority(2).save()
        low = await client.add(Plain("a"), Plain("b")).save()
        client.register(Plain, work)
        await until(client, [*high, *low], JobStatus.SUCCEEDED)
        assert (await record(client, high[0])).priority == 2
    assert names[0] == "high"
    assert sorted(names) == ["a", "b", "high", "high"]
    assert names.index("high", 1) < 3


async def test_turns_of_a_key_go_by_priority(place: Any) -> None:
    """The best of those that wait is let in next."""
    clock = Still()
    async with Client(place, workers=1, clock=clock) as client:
        ids: list[str] = []
        for name, priority in (("first", 0), ("second", 0), ("high", 5), ("higher", 6)):
            ids += await client.add(Keyed(name)).key("k").priority(priority).save()
        order = await run_one_by_one(client, Order(), ids)
        assert order[-1] == "second"
        assert order.index("higher") < order.index("high") < 3


# -- a job's own attempts and timeout --------------------------------------------------------------


@pytest.mark.parametrize(("own", "queues"), [(5, 2), (1, 3), (2, 2)])
async def test_job_has_attempts_of_its_own(place: Any, own: int, queues: int) -> None:
    """More than its queue's, or fewer; its handler sees that."""

    class Failing(Task):
        config: ClassVar[QueueConfig] = QueueConfig("failing", max_attempts=queues, backoff=0, retention=KEEP)

    seen: list[tuple[int, int]] = []

    async def work(task: Failing, job: JobContext) -> None:
        seen.append((job.attempt, job.max_attempts))
        raise ValueError("no")

    async with Client(place) as client:
        client.register(Failing, work)
        [job_id] = await client.add(Failing()).max_attempts(own).save()
        await until(client, [job_id], JobStatus.FAILED)
        job = await record(client, job_id)
    assert seen == [(attempt, own) for attempt in range(1, own + 1)]
    assert (job.attempt, job.max_attempts) == (own, own)


async def test_job_has_a_timeout_of_its_own(place: Any, journal: Journal) -> None:
    """Also where its queue has none; a second attempt has it again."""
    deadlines: list[timedelta] = []

    async def work(task: Plain, job: JobContext) -> None:
        assert job.deadline is not None
        deadlines.append(job.deadline - job.created_at)
        await asyncio.Event().wait()

    async with Client(place) as client:
        client.register(Plain, work)
        [job_id] = await client.add(Plain()).timeout(0.005).max_attempts(2).save()
        await until(client, [job_id], JobStatus.FAILED)
        job = await record(client, job_id)
    assert (job.attempt, job.timeout) == (2, 0.005)
    assert job.error == "TimeoutError: the handler ran longer than its timeout of 0.005 s"
    assert all(timedelta(milliseconds=5) <= length < timedelta(seconds=LIMIT) for length in deadlines)


async def test_own_timeout_may_be_longer_than_the_queues(place: Any) -> None:
    """It holds instead; the other jobs of the queue have theirs."""
    gate = asyncio.Event()
    deadlines: list[timedelta] = []

    async def work(task: Brief, job: JobContext) -> None:
        assert job.deadline is not None
        deadlines.append(job.deadline - job.created_at)
        await gate.wait()

    clock = Still()
    async with Client(place, clock=clock) as client:
        client.register(Brief, work)
        [long] = await client.add(Brief()).timeout(60).save()
        [short] = await client.add(Brief()).save()
        await until(client, [short], JobStatus.FAILED)
        assert await client.status(long) is JobStatus.RUNNING
        gate.set()
        await until(client, [long], JobStatus.SUCCEEDED)
    assert sorted(deadlines) == [timedelta(milliseconds=5), timedelta(seconds=60)]


async def test_lengths_of_timeouts_are_forgotten() -> None:
    """With as many lengths as there are jobs, nothing of those that have ended stays."""
    passed: list[str] = []
    done = asyncio.Event()

    def over(item: str) -> None:
        passed.append(item)
        if item == "last":
            done.set()

    deadlines = Deadlines(over)
    for number in range(20):
        deadlines.begin(f"ended {number}", 0.001 + number / 10_000)
        deadlines.end(f"ended {number}", 0.001 + number / 10_000)
    deadlines.begin("first", 0.002)
    deadlines.begin("last", 0.005)
    assert len(deadlines._began) >= 20
    with anyio.fail_after(LIMIT):
        await done.wait()
    assert passed == ["first", "last"]
    assert deadlines._began == deadlines._timers == {}
    deadlines.begin("again", 0.005)
    assert len(deadlines._began) == len(deadlines._timers) == 1
    deadlines.end("again", 0.005)
    deadlines.end("again", 0.005)
    deadlines.close()


# -- what a handler sees ---------------------------------------------------------------------------


class Seen:
    """What a handler has seen of its job."""

    def __init__(self) -> None:
        self.fields: list[dict[str, Any]] = []

    def work(self, job: JobContext) -> None:
        fields = ("key", "meta", "tags", "parent", "cancelled")
        self.fields.append({name: getattr(job, name) for name in fields})


@pytest.mark.parametrize("threaded", [False, True])
async def test_handler_sees_what_was_given_with_its_job(place: Any, threaded: bool) -> None:
    """Its key, meta and tags as they were given, and that nobody has cancelled it."""
    seen = Seen()

    async def work(task: Plain, job: JobContext) -> None:
        seen.work(job)

    def thread(task: Plain, job: JobContext) -> None:
        seen.work(job)

    meta = {"a": [1, 2.5, None, {"ü": "ß"}], "b": True}
    async with Client(place) as client:
        client.register(Plain, thread if threaded else work)
        operation = client.add(Plain()).key("customer-42").meta(meta).tags("x", "ä b", "x")
        ids = [*await operation.save(), *await client.add(Plain()).save()]
        await until(client, ids[:1], JobStatus.SUCCEEDED)
        await until(client, ids, JobStatus.SUCCEEDED)
        job = await record(client, ids[0])
    rich: dict[str, Any] = {
        "key": "customer-42",
        "meta": meta,
        "tags": ("x", "ä b"),
        "parent": None,
        "cancelled": False,
    }
    bare: dict[str, Any] = {"key": None, "meta": {}, "tags": (), "parent": None, "cancelled": False}
    assert sorted(seen.fields, key=lambda fields: str(fields["key"])) == [bare, rich]
    assert (job.key, job.meta, job.tags) == ("customer-42", meta, ("x", "ä b"))


async def test_meta_is_the_same_dict_throughout_an_attempt_and_new_in_the_next(place: Any) -> None:
    """Changes to it are not stored."""
    found: list[dict[str, Any]] = []

    async def work(task: Plain, job: JobContext) -> None:
        job.meta["n"] += 1
        found.append(dict(job.meta))
        assert job.meta is job.meta
        if job.attempt == 1:
            raise Retry(0)

    async with Client(place) as client:
        client.register(Plain, work)
        [job_id] = await client.add(Plain()).meta({"n": 1}).save()
        await until(client, [job_id], JobStatus.SUCCEEDED)
        assert (await record(client, job_id)).meta == {"n": 1}
    assert found == [{"n": 2}, {"n": 2}]


async def test_job_knows_the_job_that_has_added_it(place: Any) -> None:
    """Whatever it is; what is added outside of handlers, or in another client, has no parent."""
    parents: dict[str, str | None] = {}
    added: list[str] = []

    async def parent(task: Urgent, job: JobContext) -> None:
        added.extend(await job.client.add(Plain("child")).save())

    async def child(task: Plain, job: JobContext) -> None:
        parents[task.name] = job.parent

    async with Client(place) as client:
        client.register(Urgent, parent)
        client.register(Plain, child)
        [outer] = await client.add(Urgent()).save()
        [orphan] = await client.add(Plain("orphan")).save()
        await until(client, [outer, orphan], JobStatus.SUCCEEDED)
        await until(client, added, JobStatus.SUCCEEDED)
        assert (await record(client, added[0])).parent == outer
    assert parents == {"child": outer, "orphan": None}


# -- how queues are doing --------------------------------------------------------------------------


async def test_queues_show_for_how_long_their_oldest_due_job_waits(place: Any) -> None:
    """Also of low priority, without a handler, paused, and waiting for a turn; what is due later does not."""
    clock = Still()
    gate = asyncio.Event()

    async def hold(task: Keyed) -> None:
        await gate.wait()

    async with Client(place, clock=clock) as client:
        assert await queues(client) == []
        client.register(Keyed, hold)
        [running] = await client.add(Keyed()).key("k").save()
        await until(client, [running], JobStatus.RUNNING)
        [waiting] = await client.add(Keyed()).key("k").save()
        await client.add(Plain()).priority(-10).save()
        clock.millis += 2_000
        await client.add(Plain()).priority(10).save()
        await client.add(Urgent()).at(from_millis(clock.millis + 60_000)).save()
        await client.pause("paused")
        await client.pause("plain")
        clock.millis += 1_000
        assert await queues(client) == [
            queue("keyed", running=1, oldest_due=3),
            queue("paused", paused=True),
            queue("plain", paused=True, oldest_due=3),
            queue("urgent"),
        ]
        await client.cancel(waiting)
        assert (await queues(client))[0] == queue("keyed", running=1)
        gate.set()
        await until(client, [running], JobStatus.SUCCEEDED)
        await client.resume("paused")
        clock.millis += 59_000
        assert await queues(client) == [
            queue("keyed"),
            queue("plain", paused=True, oldest_due=62),
            queue("urgent", oldest_due=0),
        ]


def queue(
    name: str, *, paused: bool = False, running: int = 0, oldest_due: int | None = None
) -> tuple[str, bool, int, timedelta | None]:
    """Return what is looked at of a queue."""
    return name, paused, running, None if oldest_due is None else timedelta(seconds=oldest_due)


async def queues(client: Client) -> list[tuple[str, bool, int, timedelta | None]]:
    """Return how the queues are doing."""
    found = await client.queues.list()
    return [(one.name, one.paused, one.running, one.oldest_due) for one in found]


async def test_queues_show_what_their_limits_keep(place: Any) -> None:
    """A job that a rate does not let start yet grows old in the sight of everybody, in every client."""
    clock = Still()

    async def work(task: Rated) -> None:
        pass

    async with Client(place, clock=clock) as client, Client(place, workers=0, clock=clock) as other:
        client.register(Rated, work)
        [first] = await client.add(Rated()).save()
        await until(client, [first], JobStatus.SUCCEEDED)
        await client.add(Rated()).save()
        clock.millis += 5_000
        assert await queues(other) == [queue("rated", oldest_due=5)]
