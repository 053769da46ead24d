"""What a client does is told to listeners and streams: in order, bounded, and without harm to any job."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import aiosqlite
import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from backlite_async import (
    Client,
    Discard,
    Event,
    Events,
    InvalidState,
    InvalidType,
    InvalidValue,
    JobContext,
    PayloadError,
    QueueConfig,
    Retention,
    Snooze,
    Task,
)
from backlite_async import _events as events_module
from backlite_async import _log as log
from backlite_async._events import KINDS
from backlite_async._health import Health
from backlite_async._history import Line, Note
from backlite_async._job import ClaimedJob, Complete, JobStatus, Reschedule
from backlite_async._outcome import crashed, give_back
from backlite_async._registry import Registry
from backlite_async._reports import Reports, tell_note
from backlite_async._takeover import Takeover
from backlite_async.stores import MemoryStore

from .conftest import LIMIT, Journal


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=2, max_crashes=2, backoff=0)
    number: int = 0


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other")


class Alarm(Task):
    config: ClassVar[QueueConfig] = QueueConfig("alarms")


class Doomed(Task):
    config: ClassVar[QueueConfig] = QueueConfig("doomed", max_attempts=1, dead_letter=Alarm)


class Kept(Task):
    config: ClassVar[QueueConfig] = QueueConfig("kept", retention=Retention())


async def take(events: Events, count: int) -> list[Event]:
    """Return the next events."""
    found: list[Event] = []
    with anyio.fail_after(LIMIT):
        while len(found) < count:
            found.append(await anext(events))
    return found


async def until(events: Events, *kinds: str) -> list[Event]:
    """Return the events up to the first of these kinds."""
    found = await take(events, 1)
    while found[-1].kind not in kinds:
        found += await take(events, 1)
    return found


class Collector:
    """A listener that keeps what it is told, and lets tests wait for it."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self._changed = asyncio.Event()

    async def __call__(self, event: Event) -> None:
        self.told.append(event)
        self._changed.set()

    async def count(self, number: int) -> list[Event]:
        """Wait until it has been told so many."""
        with anyio.fail_after(LIMIT):
            while len(self.told) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.told


# -- what is told ---------------------------------------------------------------------------------


async def test_a_job_that_succeeds() -> None:
    """Each event says of which job, and when."""
    async with Client(":memory:") as client:
        client.register(Work, lambda _: None)
        before = datetime.now(UTC).replace(microsecond=0)
        async with client.events() as events:
            [job_id] = await client.add(Work()).save()
            added, started, succeeded = await take(events, 3)
    for event, kind, attempt in ((added, "added", 0), (started, "started", 1), (succeeded, "succeeded", 1)):
        assert (event.kind, event.job_id, event.queue, event.task) == (kind, job_id, "work", "Work")
        assert event.attempt == attempt
        assert event.at.tzinfo is UTC
        assert before <= event.at <= datetime.now(UTC)
        assert (event.error, event.due_at) == (None, None)
    assert added.duration is started.duration is None
    assert succeeded.duration is not None
    assert timedelta(0) < succeeded.duration < timedelta(seconds=LIMIT)


async def test_a_job_that_fails() -> None:
    """First it is retried, at an instant that is told, then it has failed."""
    client = Client(":memory:")

    @client.handler(Work)
    async def failing(task: Work) -> None:
        raise ValueError("bad")

    async with client, client.events() as events:
        await client.add(Work()).save()
        told = await until(events, "failed")
    assert [event.kind for event in told] == ["added", "started", "retried", "started", "failed"]
    assert [event.attempt for event in told] == [0, 1, 1, 2, 2]
    assert [event.error for event in told[2::2]] == ["ValueError: bad"] * 2
    assert told[2].due_at is not None
    assert told[2].due_at <= told[2].at
    assert told[4].due_at is None
    assert all(event.duration is not None for event in told[2::2])


async def test_a_job_that_snoozes() -> None:
    """It is told when it will run again; that is no error."""
    client = Client(":memory:")
    until_then = datetime(2099, 1, 1, tzinfo=UTC)

    @client.handler(Work)
    async def snoozing(task: Work) -> None:
        raise Snooze(until=until_then)

    async with client, client.events() as events:
        await client.add(Work()).save()
        [*_, event] = await until(events, "snoozed")
    assert (event.due_at, event.error, event.attempt) == (until_then, None, 1)


async def test_jobs_that_are_cancelled() -> None:
    """A pending one at once, a running one when it has ended; each once, though nothing is kept of them."""
    client = Client(":memory:")
    running = asyncio.Event()

    @client.handler(Work)
    async def endless(task: Work) -> None:
        running.set()
        await anyio.sleep_forever()

    async with client, client.events() as events:
        [runs] = await client.add(Work()).save()
        await running.wait()
        [waits] = await client.add(Other()).wait(3600).save()
        assert await client.cancel(waits, runs, "nobody") == 2
        told = [event for event in await take(events, 5) if event.kind == "cancelled"]
    assert [(event.job_id, event.queue, event.attempt, event.error) for event in told] == [
        (waits, "other", 0, "cancelled"),
        (runs, "work", 1, "cancelled"),
    ]


async def test_a_dead_letter_is_added() -> None:
    """What is stored with a failure is told after it."""
    client = Client(":memory:")

    @client.handler(Doomed)
    async def failing(task: Doomed) -> None:
        raise Discard("gone")

    async with client, client.events() as events:
        await client.add(Doomed()).save()
        [*_, failed, letter] = await take(events, 4)
    assert (failed.kind, failed.error) == ("failed", "gone")
    assert (letter.kind, letter.queue, letter.task, letter.attempt) == ("added", "alarms", "Alarm", 0)


async def test_what_is_not_added_is_not_told() -> None:
    """Nor is a job that was there already."""
    async with Client(":memory:", workers=0) as client:
        first = await client.add(Work()).unique("a").save()
        events = client.events()
        assert await client.add(Work()).unique("a").save() == first
        with pytest.raises(PayloadError):
            await client.add(Work(number="1")).save()  # type: ignore[arg-type]
    assert [event async for event in events] == []


async def test_added_in_a_transaction_is_told_when_it_is_saved(file: str) -> None:
    """Whether it is committed, nobody can know then."""
    async with Client(file, workers=0) as client, aiosqlite.connect(file) as connection:
        events = client.events()
        await connection.execute("BEGIN IMMEDIATE")
        [job_id] = await client.add(Work()).tx(connection).save()
        [event] = await take(events, 1)
        await connection.rollback()
    assert (event.kind, event.job_id) == ("added", job_id)


async def test_only_what_is_stored_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome is told once it is written, not before."""
    written: list[str] = []
    finish = MemoryStore.finish

    async def slow(store: MemoryStore, outcomes: Sequence[Any]) -> Any:
        for _ in range(10):
            await asyncio.sleep(0)
        found = await finish(store, outcomes)
        written.extend(outcome.id for outcome in outcomes)
        return found

    monkeypatch.setattr(MemoryStore, "finish", slow)
    async with Client(":memory:") as client:
        client.register(Work, lambda _: None)
        async with client.events() as events:
            ids = await client.add(*[Work() for _ in range(5)]).save()
            told = [event for event in await take(events, 15) if event.kind == "succeeded"]
            assert len(told) == 5
            assert sorted(written) == sorted(ids)


async def test_a_lost_outcome_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store does not accept did not happen: neither succeeded nor failed."""

    async def refuse(store: MemoryStore, outcomes: Sequence[Any]) -> set[str]:
        return {outcome.id for outcome in outcomes}

    monkeypatch.setattr(MemoryStore, "finish", refuse)
    async with Client(":memory:") as client:
        client.register(Work, lambda _: None)
        async with client.events() as events:
            await client.add(Work()).save()
            told = await until(events, "lost", "succeeded")
    assert told[-1].kind == "lost"
    assert "has lost its lease" in (told[-1].error or "")


CLAIMED = ClaimedJob(
    id="j", queue="work", task="Work", payload="{}", attempt=1, max_attempts=2, crashes=0, fence=7,
    created_at=0, scheduled_at=0,
)  # fmt: skip


async def test_crashes_are_told_by_who_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash: retried, or failed at the limit. What is only given back: nothing."""
    client = Client(":memory:", workers=0)
    jobs = dict.fromkeys(("first", "last", "claimed", "lost"), CLAIMED)
    outcomes = {
        "first": crashed(CLAIMED, Work.config, 5),
        "last": crashed(CLAIMED, QueueConfig("work", max_crashes=1), 5),
        "claimed": give_back(CLAIMED, 5),
        "lost": crashed(CLAIMED, Work.config, 5),
    }
    assert isinstance(outcomes["last"], Complete)
    async with client:
        store = client.open_store()
        takeover = Takeover(
            store, client.clock, Registry(), Health("x", set()), bus=client.bus, released=lambda: None
        )
        async with client.events() as events:
            for name, job in jobs.items():
                takeover._report([job], [outcomes[name]], {"j"} if name == "lost" else set())
            events.close()
            told = [event async for event in events]
    assert [(event.kind, event.error, event.due_at is None) for event in told] == [
        ("retried", "process died (crash 1 of at most 2)", False),
        ("failed", "process died 1 time while the job ran", True),
    ]


async def test_a_crash_that_is_in_doubt_is_not_told_as_lost() -> None:
    """If a lease is renewed after all, nobody has lost anything."""
    client = Client(":memory:", workers=0)
    async with client, client.events() as events:
        reports = Reports(client.bus)
        outcome = crashed(CLAIMED, Work.config, 5, lapsed_by=5)
        for lost in (True, False):
            reports.put(CLAIMED, log.JOB_CRASHED, {"error": outcome.error})
            reports.written(outcome, lost=lost)
        events.close()
        assert [event.kind async for event in events] == ["retried"]
    assert isinstance(outcome, Reschedule)


async def test_jobs_that_are_given_back_are_not_told() -> None:
    """A stop that cuts off a handler undoes its claim: nothing has happened."""
    client = Client(":memory:")
    running = asyncio.Event()

    @client.handler(Work)
    async def endless(task: Work) -> None:
        running.set()
        await anyio.sleep_forever()

    await client.start()
    events = client.events()
    await client.add(Work()).save()
    await running.wait()
    await client.stop(0)
    assert [event.kind async for event in events] == ["added", "started"]


async def test_others_doings_are_not_told(file: str) -> None:
    """A client tells of what it does itself."""
    async with Client(file, workers=0) as adder, Client(file) as worker:
        worker.register(Work, lambda _: None)
        async with adder.events() as added, worker.events() as worked:
            await adder.add(Work()).save()
            assert [event.kind for event in await take(worked, 2)] == ["started", "succeeded"]
            added.close()
            assert [event.kind async for event in added] == ["added"]


async def test_what_a_handler_says_is_told() -> None:
    """Once it is stored: the newest progress, and log lines with their own time; before the outcome."""
    client = Client(":memory:")

    @client.handler(Work)
    async def talking(task: Work, job: JobContext) -> None:
        await job.progress(0.25, "begun")
        await job.progress(0.5, "half")
        job.log.info("opened", size=12)
        job.log.warning("odd")

    @client.handler(Other)
    async def logging(task: Other, job: JobContext) -> None:
        job.log.info("only this")

    async with client, client.events() as events:
        [job_id] = await client.add(Work()).save()
        told = await until(events, "succeeded")
        await client.add(Other()).save()
        others = await until(events, "succeeded")
    assert [event.kind for event in told] == ["added", "started", "progress", "log", "log", "succeeded"]
    progress, *lines = told[2:5]
    assert (progress.job_id, progress.attempt, progress.progress, progress.message) == (
        job_id,
        1,
        0.5,
        "half",
    )
    assert [(line.level, line.text) for line in lines] == [("info", "opened size=12"), ("warning", "odd")]
    assert [event.kind for event in others] == ["added", "started", "log", "succeeded"]


def test_a_line_is_told_with_its_own_time() -> None:
    """It may have waited for its turn to be stored."""
    told: list[dict[str, Any]] = []

    class Ear:
        heard = KINDS

        def tell(self, kind: str, **fields: Any) -> None:
            told.append({"kind": kind, **fields})

    note = Note(id="j", fence=7, attempt=1, lines=(Line(0, 1234, "info", "hello"),))
    tell_note(Ear(), CLAIMED, note)  # type: ignore[arg-type]
    name = {"job_id": "j", "queue": "work", "task": "Work", "attempt": 1}
    assert told == [{"kind": "log", **name, "at": 1234, "level": "info", "text": "hello"}]


# -- listeners ------------------------------------------------------------------------------------


async def test_listeners_are_told_of_their_kind_and_queue() -> None:
    """Of all queues, or one."""
    client = Client(":memory:")
    everything, others, failures = Collector(), Collector(), Collector()
    client.on("succeeded")(everything)
    client.on("succeeded", queue="other")(others)
    client.on("failed")(failures)
    client.register(Work, lambda _: None)
    client.register(Other, lambda _: None)
    async with client:
        await client.add(Work(), Other()).save()
        told = await everything.count(2)
    assert sorted(event.queue for event in told) == ["other", "work"]
    assert [event.queue for event in others.told] == ["other"]
    assert failures.told == []


async def test_listeners_are_called_in_the_order_of_events() -> None:
    """One after the other, `async def` and `def` alike, however long each takes."""
    client = Client(":memory:", workers=0)
    told: list[tuple[str, str]] = []
    names = iter(range(1000))

    @client.on("added")
    async def slow(event: Event) -> None:
        for _ in range(next(names) % 3):
            await asyncio.sleep(0)
        told.append(("slow", event.job_id))

    @client.on("added")
    def in_thread(event: Event) -> None:
        told.append(("thread", event.job_id))

    async with client:
        ids = await client.add(*[Work() for _ in range(20)]).save()
    assert told == [(name, job_id) for job_id in ids for name in ("slow", "thread")]


async def test_a_def_listener_runs_in_a_thread() -> None:
    """It may block, and no job waits for it."""
    client = Client(":memory:")
    release = threading.Event()
    threads: list[threading.Thread] = []

    @client.on("started")
    def blocking(event: Event) -> None:
        threads.append(threading.current_thread())
        release.wait(LIMIT)

    client.register(Work, lambda _: None)
    async with client, client.events() as events:
        await client.add(Work(), Work()).save()
        ended = 0
        while ended < 2:
            ended += (await take(events, 1))[0].kind == "succeeded"
        release.set()
    assert len(threads) == 2
    assert threading.main_thread() not in threads


async def test_a_slow_listener_slows_no_job() -> None:
    """Jobs begin and end while a listener sits over the first event."""
    client = Client(":memory:")
    release = asyncio.Event()
    told: list[str] = []

    @client.on("started")
    async def slow(event: Event) -> None:
        await release.wait()
        told.append(event.job_id)

    client.register(Work, lambda _: None)
    async with client, client.events() as events:
        ids = await client.add(*[Work() for _ in range(20)]).save()
        ended = [event.job_id for event in await take(events, 60) if event.kind == "succeeded"]
        assert sorted(ended) == sorted(ids)
        assert told == []
        release.set()
    assert sorted(told) == sorted(ids)


async def test_listeners_that_never_wait_give_way() -> None:
    """Ten thousand events at once do not stop the event loop for as long as all of them take."""
    client = Client(":memory:", workers=0)
    turns = 0
    told: list[int] = []

    @client.on("added")
    async def busy(event: Event) -> None:
        told.append(turns)
        until = asyncio.get_running_loop().time() + events_module.TURN
        while asyncio.get_running_loop().time() < until:
            pass

    async with client:
        await client.add(*[Work() for _ in range(20)]).save()
        while len(told) < 20:
            turns += 1
            await asyncio.sleep(0)
    assert len(set(told)) > 5


class Broken(BaseException):
    """Something worse than an Exception."""


@pytest.mark.parametrize("threaded", [False, True], ids=["async def", "def"])
@pytest.mark.parametrize(
    "error", [ValueError("bad"), Broken("bad"), asyncio.CancelledError("bad"), SystemExit(3)], ids=repr
)
async def test_an_error_in_a_listener_changes_nothing(
    journal: Journal, threaded: bool, error: BaseException
) -> None:
    """It is logged; other listeners are called, later events are told, jobs are not concerned."""
    client = Client(":memory:")
    after = Collector()

    def raising(event: Event) -> None:
        raise error

    async def raising_too(event: Event) -> None:
        raise error

    client.on("succeeded")(raising if threaded else raising_too)
    client.on("succeeded")(after)
    client.register(Kept, lambda _: None)
    async with client:
        ids = await client.add(Kept(), Kept()).save()
        told = await after.count(2)
        assert [await client.status(job_id) for job_id in ids] == [JobStatus.SUCCEEDED] * 2
    lines = await journal.seen("listener.failed", count=2)
    name = "raising" if threaded else "raising_too"
    for line, event in zip(lines, told, strict=True):
        assert f"job_id={event.job_id}" in line
        assert "kind=succeeded" in line
        assert name in line
        assert type(error).__name__ in line
        assert "test_events.py" in line


async def test_a_def_listener_that_returns_a_coroutine_is_named(journal: Journal) -> None:
    """Nobody would await it."""
    client = Client(":memory:", workers=0)

    async def forgotten(event: Event) -> None: ...

    client.on("added")(lambda event: [forgotten(event)][0])
    async with client:
        await client.add(Work()).save()
    [line] = journal.of("listener.failed")
    assert "make it async def" in line


async def test_a_listener_may_use_its_client() -> None:
    """Add, ask, cancel; what it adds has no parent."""
    client = Client(":memory:")
    done = asyncio.Event()

    @client.on("succeeded", queue="work")
    async def chained(event: Event) -> None:
        [cancelled] = await client.add(Other()).wait(3600).save()
        assert await client.cancel(cancelled) == 1
        [job_id] = await client.add(Other()).save()
        job = await client.get(job_id)
        assert job is not None
        assert job.parent is None
        done.set()

    client.register(Work, lambda _: None)
    async with client:
        await client.add(Work()).save()
        with anyio.fail_after(LIMIT):
            await done.wait()


@pytest.mark.parametrize("threaded", [False, True], ids=["async def", "def"])
async def test_a_listener_cannot_stop_its_client(threaded: bool, journal: Journal) -> None:
    """It would wait for itself; a task that it starts may."""
    client = Client(":memory:", workers=0)

    @client.on("added", queue="work")
    async def stopping(event: Event) -> None:
        await client.stop()

    @client.on("added", queue="work")
    def stopping_too(event: Event) -> None:
        anyio.from_thread.run(client.stop)

    tasks: list[asyncio.Task[bool]] = []

    @client.on("added", queue="other")
    async def leaving(event: Event) -> None:
        tasks.append(asyncio.ensure_future(client.stop()))

    await client.start()
    await client.add(Work(), Other()).save()
    lines = await journal.seen("listener.failed", count=2)
    assert all("a listener cannot stop its own client" in line for line in lines)
    with anyio.fail_after(LIMIT):
        await journal.seen("client.stopped")
        assert await tasks[0] is True


async def test_a_listener_hears_of_what_comes_after_it() -> None:
    """Registered while the client runs, it is not told of what waits for others."""
    client = Client(":memory:", workers=0)
    first, second = Collector(), Collector()
    client.on("added")(first)
    async with client:
        [one] = await client.add(Work()).save()
        client.on("added")(second)
        [two] = await client.add(Work()).save()
    assert [event.job_id for event in first.told] == [one, two]
    assert [event.job_id for event in second.told] == [two]


async def test_what_waits_for_listeners_is_bounded(monkeypatch: pytest.MonkeyPatch, journal: Journal) -> None:
    """The oldest are dropped; it is logged when that begins, and how many when the rest is told."""
    monkeypatch.setattr(events_module, "WAITING", 10)
    client = Client(":memory:", workers=0)
    entered, release = asyncio.Event(), asyncio.Event()
    told = Collector()

    @client.on("added")
    async def slow(event: Event) -> None:
        entered.set()
        await release.wait()
        await told(event)

    async with client:
        ids = await client.add(Work()).save()
        await entered.wait()
        ids += await client.add(*[Work() for _ in range(14)]).save()
        assert len(journal.of("listeners.behind")) == 1
        assert journal.of("listeners.missed") == []
        release.set()
        await told.count(11)
        assert await journal.seen("listeners.missed") == ["listeners.missed count=4"]
        assert [event.job_id for event in told.told] == [ids[0], *ids[5:]]
        release.clear()
        entered.clear()
        await client.add(Work()).save()
        await entered.wait()
        await client.add(*[Work() for _ in range(12)]).save()
        assert len(journal.of("listeners.behind")) == 2
        release.set()
    assert journal.of("listeners.missed") == ["listeners.missed count=4", "listeners.missed count=2"]


# -- stop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 0], ids=["in good time", "at once"])
async def test_a_stop_tells_what_waits(limit: int | None) -> None:
    """Also what the last jobs led to; then nothing more."""
    client = Client(":memory:")
    told = Collector()
    client.on("succeeded")(told)
    running, release = asyncio.Event(), asyncio.Event()

    @client.handler(Work)
    async def handler(task: Work) -> None:
        running.set()
        if limit is None:
            await release.wait()

    @client.on("added")
    async def adding(event: Event) -> None:
        if event.queue == "work":
            await client.add(Other()).wait(3600).save()

    await client.start()
    [job_id] = await client.add(Work()).save()
    await running.wait()
    if limit == 0:
        await told.count(1)
    stopping = asyncio.ensure_future(client.stop(limit))
    await asyncio.sleep(0)
    release.set()
    assert await stopping is True
    assert [event.job_id for event in told.told] == [job_id]
    assert not [task for task in asyncio.all_tasks() if "backlite" in task.get_name()]


async def test_a_stop_ends_though_listeners_make_events() -> None:
    """What follows from what listeners do while it waits for them is not told."""
    client = Client(":memory:", workers=0)
    told: list[Event] = []

    @client.on("added")
    async def breeding(event: Event) -> None:
        told.append(event)
        await client.add(Other()).wait(3600).save()

    await client.start()
    await client.add(Work(), Work()).save()
    with anyio.fail_after(LIMIT):
        assert await client.stop() is True
    assert [event.queue for event in told[:2]] == ["work", "work"]


async def test_a_stop_tells_what_waits_though_nobody_tells_any_more() -> None:
    """Whatever has ended the task that calls listeners, another goes on with what is left."""
    client = Client(":memory:", workers=0)
    told: list[str] = []

    @client.on("added")
    async def deadly(event: Event) -> None:
        told.append(event.job_id)
        if len(told) < 3:
            raise GeneratorExit

    await client.start()
    ids = await client.add(Work(), Work()).save()
    while len(told) < 1:
        await asyncio.sleep(0)
    ids += await client.add(Work(), Work()).save()
    while len(told) < 2:
        await asyncio.sleep(0)
    assert await client.stop() is True
    assert told == ids


@pytest.mark.parametrize("threaded", [False, True], ids=["async def", "def"])
async def test_a_listener_that_hangs_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, journal: Journal, threaded: bool
) -> None:
    """A stop waits for it no longer than its limit and a little; what it was not told is counted."""
    monkeypatch.setattr(events_module, "STOP_GRACE", 0.01)
    client = Client(":memory:", workers=0)
    hanging, release = threading.Event(), threading.Event()

    async def endless(event: Event) -> None:
        hanging.set()
        await anyio.sleep_forever()

    def endless_too(event: Event) -> None:
        hanging.set()
        release.wait(LIMIT)

    client.on("added")(endless_too if threaded else endless)
    after = Collector()
    client.on("added")(after)
    await client.start()
    await client.add(Work(), Work(), Work()).save()
    await anyio.to_thread.run_sync(hanging.wait)
    with anyio.fail_after(LIMIT):
        assert await client.stop(0) is True
    assert journal.of("listeners.missed") == ["listeners.missed count=2"]
    assert after.told == []
    release.set()
    assert not [task for task in asyncio.all_tasks() if "backlite" in task.get_name()]


async def test_a_listener_that_will_not_end_does_not_come_back(
    monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    """Left behind by one stop, it does not call listeners beside those of the next start."""
    monkeypatch.setattr(events_module, "STOP_GRACE", 0.01)
    monkeypatch.setattr(events_module, "CUT_GRACE", 0.02)
    client = Client(":memory:", workers=0)
    release = asyncio.Event()
    told: list[str] = []

    @client.on("added")
    async def stubborn(event: Event) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        told.append(event.job_id)

    await client.start()
    [left] = await client.add(Work()).save()
    await asyncio.sleep(0)
    await client.stop(0)
    async with client:
        [one, two] = await client.add(Work(), Work()).save()
        release.set()
    assert sorted(told) == sorted([left, one, two])
    assert told.index(one) < told.index(two)


async def test_the_end_of_the_event_loop_ends_listeners() -> None:
    """`asyncio.run` ends, though nobody has stopped the client, and what waits is told."""
    told: list[str] = []

    async def main() -> None:
        client = Client(":memory:", workers=0)

        @client.on("added")
        async def slow(event: Event) -> None:
            try:
                await asyncio.sleep(3600 if event.queue == "work" else 0)
            finally:
                told.append(event.queue)

        await client.start()
        await client.add(Work(), Other()).save()
        await asyncio.sleep(0)

    with anyio.fail_after(LIMIT):
        await asyncio.to_thread(asyncio.run, main())
    assert told == ["work", "other"]


# -- streams --------------------------------------------------------------------------------------


async def test_a_stream_ends_with_its_client() -> None:
    """After what is there; it may have been opened before the start, also outside of any event loop."""
    client = Client(":memory:", workers=0)
    events = await anyio.to_thread.run_sync(client.events)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    async with client:
        [one, two] = await client.add(Work(), Work()).save()
    assert (await waiting).job_id == one
    assert [event.job_id async for event in events] == [two]
    assert [event async for event in events] == []
    async with client:  # a stream does not begin again
        await client.add(Work()).save()
    assert [event async for event in events] == []


async def test_everybody_who_reads_a_stream_hears_of_its_end() -> None:
    """Two that share one get each event once, and both come to an end."""
    client = Client(":memory:", workers=0)
    events = client.events()

    async def read() -> list[str]:
        return [event.job_id async for event in events]

    readers = [asyncio.ensure_future(read()), asyncio.ensure_future(read())]
    async with client:
        ids = await client.add(Work(), Work(), Work()).save()
    with anyio.fail_after(LIMIT):
        found = await asyncio.gather(*readers)
    assert sorted(found[0] + found[1]) == sorted(ids)


async def test_a_stream_of_one_queue() -> None:
    """Events of others do not come into it."""
    async with Client(":memory:", workers=0) as client:
        events = client.events(queue="other")
        await client.add(Work(), Other()).save()
    assert [event.queue async for event in events] == ["other"]


async def test_a_stream_is_bounded() -> None:
    """The oldest are dropped and counted; the rest is in order."""
    async with Client(":memory:", workers=0) as client:
        events, all_events = client.events(limit=3), client.events()
        ids = await client.add(*[Work() for _ in range(5)]).save()
        assert (events.missed, all_events.missed) == (2, 0)
        assert [event.job_id for event in await take(events, 3)] == ids[2:]
        ids = await client.add(Work()).save()
    assert [event.job_id async for event in events] == ids
    assert events.missed == 2


async def test_a_closed_stream_takes_no_more() -> None:
    """What is there can be read; then it ends, and nothing is made for it."""
    async with Client(":memory:", workers=0) as client:
        async with client.events() as events:
            [one] = await client.add(Work()).save()
        assert client.bus.heard == frozenset()
        await client.add(Work()).save()
        events.close()
        assert [event.job_id async for event in events] == [one]


async def test_a_stream_that_nobody_holds_is_closed() -> None:
    """Breaking out of a loop leaves nothing behind."""
    async with Client(":memory:", workers=0) as client:
        await client.add(Work()).save()
        pending = asyncio.ensure_future(client.add(Work()).wait(1).save())
        async for event in client.events():
            assert event.kind == "added"
            break
        await pending
        gc.collect()
        assert client.bus.heard == frozenset()


async def test_a_stream_that_waits_in_a_closed_loop_harms_nobody() -> None:
    """Whoever read it is gone; jobs go on, and so do other streams."""
    client = Client(":memory:", workers=0)
    streams: list[Events] = []

    def elsewhere() -> None:
        loop = asyncio.new_event_loop()
        streams.append(client.events())
        task = loop.create_task(anext(streams[0]))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    await asyncio.to_thread(elsewhere)
    async with client:
        events = client.events()
        [job_id] = await client.add(Work()).save()
    assert [event.job_id async for event in events] == [job_id]


# -- where nobody listens -------------------------------------------------------------------------


async def test_where_nobody_listens_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """No event is made, and no task: one look is all."""
    made: list[Any] = []

    def make(**fields: Any) -> Event:
        made.append(fields["kind"])
        return Event(**fields)

    monkeypatch.setattr(events_module, "Event", make)
    client = Client(":memory:")
    failures = Collector()
    client.on("failed")(failures)
    client.register(Kept, lambda _: None)
    async with client:
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        [job_id] = await client.add(Kept()).save()
        with anyio.fail_after(LIMIT):
            while await client.status(job_id) is not JobStatus.SUCCEEDED:
                await asyncio.sleep(0)
        assert {task.get_name() for task in asyncio.all_tasks()} == tasks
    assert made == []


# -- registering ----------------------------------------------------------------------------------


def test_unknown_kinds_are_refused() -> None:
    """Where they are given, with the known ones."""
    client = Client(":memory:")
    with pytest.raises(
        InvalidValue, match=r"'done' is no kind of event; the kinds are: added, started, .* log$"
    ):
        client.on("done")  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match=r'lambda> is no kind of event; write @client.on\("failed"\)'):
        client.on(lambda event: None)  # type: ignore[arg-type]
    assert len(KINDS) == 10


async def nothing() -> None: ...


async def two(event: Event, more: int) -> None: ...


def keyword(event: Event, *, key: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (nothing, "listener nothing is called with one argument, the event"),
        (two, "listener two is called with one argument, the event"),
        (keyword, "listener keyword is called with one argument, the event"),
        (Work, "listener Work must be a function, async def or def"),
        ("work", "listener 'work' must be a function, async def or def"),
    ],
)
def test_what_cannot_listen(function: Any, says: str) -> None:
    """Refused where it is registered; nothing is registered."""
    client = Client(":memory:")
    with pytest.raises(InvalidType, match=says):
        client.on("failed")(function)
    assert client.bus.heard == frozenset()


@pytest.mark.parametrize(("queue", "error"), [(5, InvalidType), ("", InvalidValue)])
def test_a_queue_has_a_name(queue: Any, error: type[Exception]) -> None:
    """A wrong one is refused where it is given."""
    client = Client(":memory:")
    with pytest.raises(error, match="name="):
        client.on("failed", queue=queue)
    with pytest.raises(error, match="name="):
        client.events(queue=queue)


@pytest.mark.parametrize(("limit", "error"), [(0, InvalidValue), (1.5, InvalidType)])
def test_a_limit_is_a_number(limit: Any, error: type[Exception]) -> None:
    """At least one event fits into a stream."""
    with pytest.raises(error, match="limit="):
        Client(":memory:").events(limit=limit)


async def test_what_listens_stays_what_it_was() -> None:
    """The decorator returns the function; methods, partials and callables of C will do."""
    client = Client(":memory:", workers=0)
    told: list[Any] = []
    collector = Collector()
    listeners: list[Callable[[Event], Any]] = [
        told.append,
        functools.partial(told.append),
        collector,
        collector.__call__,
    ]
    for listener in listeners:
        assert client.on("added")(listener) is listener
    async with client:
        await client.add(Work()).save()
    assert (len(told), len(collector.told)) == (2, 2)


async def test_listeners_run_in_the_context_of_the_start() -> None:
    """Not in that of whoever added the job, or ran it."""
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    seen: list[str] = []
    client = Client(":memory:", workers=0)
    client.on("added")(lambda event: seen.append(who.get()))
    who.set("starter")
    await client.start()
    who.set("adder")
    await client.add(Work()).save()
    await client.stop()
    assert seen == ["starter"]


async def test_a_listener_does_not_need_a_started_client() -> None:
    """Nor does it keep it from being started again: each life is told."""
    client = Client(":memory:", workers=0)
    told = Collector()
    client.on("added")(told)
    with pytest.raises(InvalidState):
        await client.add(Work()).save()
    for _ in range(2):
        async with client:
            await client.add(Work()).save()
    assert len(told.told) == 2
