"""Schedules of a client: said in the code, made, asked for and changed at run time, on both stores."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import anyio
import msgspec
import pytest

from backlite_async import (
    AlreadyRegistered,
    Client,
    DatabaseUnavailable,
    InvalidState,
    InvalidTask,
    InvalidType,
    InvalidValue,
    JobContext,
    JobStatus,
    OwnerInfo,
    PayloadError,
    QueueConfig,
    Retention,
    Schedule,
    ScheduleNotFound,
    Task,
    chain,
    testing,
)
from backlite_async._clock import from_millis
from backlite_async._declarations import GRACE
from backlite_async._recurring import StoredSchedule
from backlite_async.stores import MemoryStore

from .conftest import LIMIT, Journal

START = datetime(2030, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Report(Task):
    """Count something."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "reports", max_attempts=1, priority=4, retention=Retention(payload="always")
    )
    about: str = "all"


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other")


def make(database: Any, clock: testing.ManualClock | None = None, **more: Any) -> Client:
    """Make a client whose clock stands, and that runs reports."""
    client = testing.client(database, clock=clock or testing.ManualClock(START), **more)

    @client.handler(Report)
    async def report(task: Report) -> str:
        if task.about == "trouble":
            raise ValueError("no data")
        return task.about

    return client


@pytest.fixture
def clock() -> testing.ManualClock:
    """A clock that stands at noon."""
    return testing.ManualClock(START)


async def found(client: Client, name: str = "hourly") -> Schedule:
    """Return a schedule that is there."""
    schedule = await client.schedules.get(name)
    assert schedule is not None
    return schedule


async def stored(client: Client, name: str = "hourly") -> StoredSchedule:
    return (await client.open_store().schedules(name))[0]


async def settled(client: Client) -> None:
    """Wait until whoever looks for what is due has looked."""
    assert client._dispatcher is not None
    with anyio.fail_after(LIMIT):
        await client._dispatcher.ticked()


async def look_around(client: Client) -> None:
    """Have a client see who has gone."""
    assert client._dispatcher is not None
    client._dispatcher.look_for_the_dead()
    await settled(client)


async def pass_by(client: Client, duration: timedelta) -> list[tuple[str, datetime]]:
    """Let time pass, and return what ran, and when it was due."""
    ran = await testing.run_until_idle(client, advance=duration, raise_errors=False)
    jobs = [await client.get(one.id) for one in ran]
    return [(one.task.about, job.due_at) for one, job in zip(ran, jobs, strict=True) if job is not None]


# -- runs ------------------------------------------------------------------------------------------


async def test_a_declared_schedule_runs(database: str) -> None:
    """One run an hour, from the start on, each with what the queue says of its jobs."""
    client = make(database)
    client.schedule("hourly", Report("money"), every=HOUR)
    async with client:
        ran = await pass_by(client, 3.5 * HOUR)
        assert ran == [("money", START + n * HOUR) for n in (1, 2, 3)]
        schedule = await found(client)
        job = await client.get(schedule.last_job_id or "")
    assert job is not None
    assert (job.queue, job.task, job.max_attempts, job.priority) == ("reports", "Report", 1, 4)
    assert (job.payload, job.parent, job.workflow) == (b'{"about":"money"}', None, None)


async def test_in_tests_of_applications_time_brings_runs(database: str) -> None:
    """Where time is to pass, schedules run in it; where all is to be run, they are no reason to go on."""
    client = make(database)
    client.schedule("hourly", Report(), every=HOUR)
    client.schedule("other", Other(), every=HOUR)  # which nobody runs here
    async with client:
        assert await testing.run_until_idle(client) == []
        assert await testing.run_until_idle(client, advance=HOUR / 2) == []
        assert len(await testing.run_until_idle(client, advance=HOUR)) == 1
        await testing.assert_added(client, Report, count=1, at=START + HOUR)
        await testing.assert_added(client, Other, count=1, at=START + HOUR)
        await client.add(Report("later")).wait(2 * HOUR).save()
        ran = await testing.run_until_idle(client)
        assert [attempt.task.about for attempt in ran] == ["all", "all", "later"]


async def test_what_is_told_of_a_schedule(database: str) -> None:
    """The record has all that was said, in plain words, the next runs, and the last one with its result."""
    client = make(database)
    client.schedule(
        "hourly",
        Report("money"),
        every=HOUR,
        max_runs=5,
        missed="all",
        overlap=False,
        jitter=0,
        end=START + 9 * HOUR,
    )
    async with client:
        await pass_by(client, 2.5 * HOUR)
        [schedule] = await client.schedules.list()
        assert schedule == await found(client)
    assert (schedule.name, schedule.state, schedule.declared) == ("hourly", "active", True)
    assert (schedule.queue, schedule.task, schedule.payload) == ("reports", "Report", b'{"about":"money"}')
    assert schedule.words == "Every hour, until 2030-03-01 21:00 (UTC)"
    assert schedule.next_runs == (
        START + 3 * HOUR,
        START + 4 * HOUR,
        START + 5 * HOUR,
    )  # of five, two have run
    assert (schedule.cron, schedule.every, schedule.rule, schedule.at) == (None, HOUR, None, None)
    assert (schedule.tz, schedule.start, schedule.end) == ("UTC", None, START + 9 * HOUR)
    assert (schedule.max_runs, schedule.missed, schedule.overlap, schedule.jitter) == (5, "all", False, None)
    assert (schedule.runs, schedule.skipped, schedule.last_run) == (2, 0, START + 2 * HOUR)
    assert schedule.last_job is not None
    assert (schedule.last_job.status, schedule.last_job.result) == (JobStatus.SUCCEEDED, b'"money"')
    assert schedule.last_job.id == schedule.last_job_id
    assert (schedule.created_at, schedule.paused_at) == (START, None)


async def test_cron_in_a_time_zone(database: str) -> None:
    """Three in the morning is three in the morning there, the clocks set forward or not."""
    client = make(database)
    client.schedule(
        "nightly", Report(), cron="0 3 * * *", tz="Europe/Berlin", start=datetime(2030, 3, 29, tzinfo=UTC)
    )
    async with client:
        assert (await found(client, "nightly")).state == "draft"
        ran = await pass_by(client, timedelta(days=33))
    assert [at.isoformat() for _, at in ran] == [
        "2030-03-29T02:00:00+00:00",
        "2030-03-30T02:00:00+00:00",
        "2030-03-31T01:00:00+00:00",
        "2030-04-01T01:00:00+00:00",
        "2030-04-02T01:00:00+00:00",
        "2030-04-03T01:00:00+00:00",
    ]


async def test_a_failed_run_ends_nothing(database: str) -> None:
    """A schedule goes on, whatever becomes of its jobs."""
    client = make(database)
    client.schedule("hourly", Report("trouble"), every=HOUR)
    async with client:
        assert len(await pass_by(client, 101 * HOUR)) == 101
        schedule = await found(client)
    assert (schedule.state, schedule.runs) == ("active", 101)
    assert schedule.last_job is not None
    assert schedule.last_job.status is JobStatus.FAILED
    assert schedule.last_job.error == "ValueError: no data"


async def test_a_list_reads_no_large_payload(database: str) -> None:
    """Of the last jobs only their beginnings, as in a brief list; of one schedule all is read."""
    client = make(database)
    client.schedule("hourly", Report("money" * 1000), every=HOUR)
    async with client:
        await pass_by(client, HOUR)
        [schedule] = await client.schedules.list()
        whole = await found(client)
    assert schedule.last_job is not None
    assert whole.last_job is not None
    assert whole.last_job.payload == schedule.payload == b'{"about":"%s"}' % (b"money" * 1000)
    assert whole.last_job.result == b'"%s"' % (b"money" * 1000)
    cut = {"payload": whole.last_job.payload[:200], "result": whole.last_job.result[:200]}
    assert schedule.last_job == msgspec.structs.replace(whole.last_job, **cut)


async def test_a_run_that_would_overlap_is_skipped(database: str) -> None:
    """While the last job has not finished no other is added; then it goes on."""
    client, go = make(database, workers=1), asyncio.Event()

    class Slow(Task):
        config: ClassVar[QueueConfig] = QueueConfig("slow")

    @client.handler(Slow)
    async def slow(task: Slow) -> None:
        await go.wait()

    client.schedule("slow", Slow(), every=HOUR, overlap=False)
    clock: Any = client.clock
    async with client:
        for _ in range(3):
            clock.advance(HOUR)
            await settled(client)
        schedule = await found(client, "slow")
        assert (schedule.runs, schedule.skipped) == (1, 2)
        go.set()
        await testing.run_until_idle(client, advance=HOUR)
        schedule = await found(client, "slow")
        assert (schedule.runs, schedule.skipped) == (2, 2)


async def test_states(database: str, clock: testing.ManualClock) -> None:
    """A schedule is a draft before its start, paused while it is, and completed after its last run."""
    client = make(database, clock)
    client.schedule("hourly", Report(), every=HOUR, start=START + HOUR, max_runs=2)
    async with client:
        assert (await found(client)).state == "draft"
        assert len(await pass_by(client, HOUR)) == 1
        assert (await found(client)).state == "active"
        await client.schedules.pause("hourly")
        schedule = await found(client)
        assert (schedule.state, schedule.next_runs, schedule.paused_at) == ("paused", (), clock.instant)
        await client.schedules.resume("hourly")
        assert len(await pass_by(client, 5 * HOUR)) == 1
        schedule = await found(client)
        assert (schedule.state, schedule.next_runs, schedule.runs) == ("completed", (), 2)


@pytest.mark.parametrize("damage", ["job = '{'", "job = '{}'", "timing = 'x'", "declared_by = '[1]'"])
async def test_a_damaged_one_holds_up_no_other(
    file: str, clock: testing.ManualClock, journal: Journal, damage: str
) -> None:
    """What somebody has written into one row is told once; the others run, and it can be deleted."""
    client = make(file, clock)
    client.schedule("a", Report("damaged"), every=HOUR)
    client.schedule("b", Report("well"), every=HOUR)
    async with client:
        with closing(sqlite3.connect(file)) as raw, raw:
            raw.execute(f"UPDATE backlite_schedules SET {damage} WHERE name = 'a'")
        assert {about for about, _ in await pass_by(client, 2.5 * HOUR)} == {"well"}
        await journal.seen("schedule.troubled", count=1)
        assert [schedule.name for schedule in await client.schedules.list()] == ["a", "b"]
        assert "delete it" in (await found(client, "a")).words
        assert await client.schedules.delete("a") == 1


# -- several clients -------------------------------------------------------------------------------


async def test_two_clients_add_each_run_once(file: str, clock: testing.ManualClock) -> None:
    """Whoever declares it, all tick it, and each instant has one job."""
    one, two = make(file, clock), make(file, clock)
    one.schedule("hourly", Report(), every=HOUR, missed="all")
    two.schedule("hourly", Report(), every=HOUR, missed="all")
    async with one, two:
        for _ in range(20):
            clock.advance(HOUR)
            await asyncio.gather(settled(one), settled(two))
        schedule = await found(one)
        assert schedule.runs == 20
        assert set((await stored(one)).declared_by) == {owner.id for owner in await one.owners.list()}
        assert len(await one.open_store().schedules()) == 1
        await testing.run_until_idle(one)
        assert len(await one.jobs.list(queue="reports", limit=100)) == 20


async def test_a_change_by_another_client_is_heard(file: str, journal: Journal) -> None:
    """A client that sleeps until tomorrow hears at once of what is due in a moment."""
    watching, asking = Client(file), Client(file, workers=0)

    @watching.handler(Report)
    async def report(task: Report) -> None: ...

    async with watching, asking:
        await asking.schedule("soon", Report(), every=0.2)
        with anyio.fail_after(LIMIT):
            await journal.seen("schedule.ticked", count=2)
            await journal.seen("job.succeeded", count=2)


async def test_what_one_makes_oneself_runs_at_once(database: str, journal: Journal) -> None:
    """Nobody else is there to call: the client itself looks when it is due, and runs it."""
    client = Client(database)

    @client.handler(Report)
    async def report(task: Report) -> None: ...

    async with client:
        assert client._dispatcher is not None
        await settled(client)
        for millis in (300, 3_000, 10_000):  # on a busy machine the first may be over before it is stored
            soon = from_millis(client.clock.now() + millis)
            schedule = await client.schedule(f"in {millis}", Report(), at=[soon])
            if schedule.next_runs:
                break
        await journal.seen("job.succeeded")  # long before anybody looks around
        job = await client.get((await found(client, schedule.name)).last_job_id or "")
    assert job is not None
    assert job.started_at is not None
    assert timedelta(0) <= job.started_at - schedule.next_runs[0] < timedelta(seconds=LIMIT)


# -- at run time -----------------------------------------------------------------------------------


async def test_made_at_run_time(database: str) -> None:
    """On a started client a schedule is made when it is awaited; awaited again, it goes on as it was."""
    client = make(database)
    async with client:
        schedule = await client.schedule("hourly", Report(), every=HOUR)
        assert (schedule.declared, schedule.state, schedule.next_runs[0]) == (False, "active", START + HOUR)
        await pass_by(client, 1.5 * HOUR)
        again = await client.schedule("hourly", Report("else"), every=HOUR)
        assert (again.runs, again.next_runs[0], again.payload) == (1, START + 2 * HOUR, b'{"about":"else"}')
    async with client:
        assert (await found(client)).runs == 1


async def test_never_awaited_is_told(database: str) -> None:
    """Who forgets to await it on a started client is warned; a declaration needs no await."""
    client = make(database)
    declared = await client.schedule("declared", Report(), every=HOUR)
    assert (declared.declared, declared.name, declared.runs) == (True, "declared", 0)
    client.schedule("unawaited", Report(), every=HOUR)
    async with client:
        operation: object = client.schedule("lost", Report(), every=HOUR)
        with pytest.warns(RuntimeWarning, match=r"client.schedule\('lost', ...\) was never awaited"):
            del operation
        assert [schedule.name for schedule in await client.schedules.list()] == ["declared", "unawaited"]


async def test_paused_over_a_due_time(database: str, clock: testing.ManualClock) -> None:
    """What was due in a pause is not made up, not even by a schedule that makes up for all."""
    client = make(database, clock)
    client.schedule("hourly", Report(), every=HOUR, missed="all")
    async with client:
        assert await client.schedules.pause("hourly", "hourly", "unknown") == 1
        assert await client.schedules.pause("hourly") == 0
        assert await pass_by(client, 5.5 * HOUR) == []
        assert await client.schedules.resume("hourly") == 1
        assert await client.schedules.resume("hourly") == 0
        assert [at for _, at in await pass_by(client, HOUR)] == [START + 6 * HOUR]


async def test_a_pause_outlives_a_restart(database: str) -> None:
    """It is stored, and the code says nothing of it."""
    client = make(database)
    client.schedule("hourly", Report(), every=HOUR)
    async with client:
        await client.schedules.pause("hourly")
    async with client:
        assert (await found(client)).state == "paused"


async def test_run_now(database: str, journal: Journal) -> None:
    """A job beside the runs: it counts for nothing, and may be added at any time."""
    client = make(database)
    client.schedule("hourly", Report("money"), every=HOUR, overlap=False, max_runs=1)
    async with client:
        job_id = await client.schedules.run_now("hourly")
        assert len(journal.of("job.added", job_id)) == 1
        assert (await client.wait(job_id)).result == b'"money"'
        schedule = await found(client)
        assert (schedule.runs, schedule.last_job_id, schedule.next_runs) == (0, None, (START + HOUR,))
        await pass_by(client, HOUR)
        assert (await found(client)).state == "completed"
        assert (await client.wait(await client.schedules.run_now("hourly"))).status == "succeeded"
        assert (await found(client)).runs == 1
        with pytest.raises(ScheduleNotFound, match="there is no schedule 'unknown'"):
            await client.schedules.run_now("unknown")


async def test_edit_keeps_its_runs(database: str) -> None:
    """What is given changes, all else stays."""
    client = make(database)
    client.schedule("hourly", Report(), every=HOUR, missed="all", max_runs=9, tz="Europe/Berlin")
    async with client:
        await pass_by(client, 2.5 * HOUR)
        edited = await client.schedules.edit("hourly", Report("else"), jitter=0)
        assert (edited.payload, edited.every, edited.next_runs[0]) == (
            b'{"about":"else"}',
            HOUR,
            START + 3 * HOUR,
        )
        assert (edited.runs, edited.missed, edited.max_runs, edited.tz) == (2, "all", 9, "Europe/Berlin")
        edited = await client.schedules.edit("hourly", cron="0 0 * * *", max_runs=None)
        assert (edited.cron, edited.every, edited.max_runs) == ("0 0 * * *", None, None)
        assert edited.next_runs[0] == datetime(2030, 3, 1, 23, tzinfo=UTC)
        assert (edited.tz, edited.payload, edited.runs) == ("Europe/Berlin", b'{"about":"else"}', 2)
        edited = await client.schedules.edit("hourly", tz="UTC", end=START + 48 * HOUR)
        assert edited.next_runs == tuple(datetime(2030, 3, day, tzinfo=UTC) for day in (2, 3))
        edited = await client.schedules.edit("hourly", at=[START + 5 * HOUR], end=None)
        assert (edited.cron, edited.end, edited.next_runs) == (None, None, (START + 5 * HOUR,))
        edited = await client.schedules.edit("hourly", Other(), every=60)
        assert (edited.queue, edited.task, edited.every) == ("other", "Other", timedelta(minutes=1))
        assert await found(client) == edited


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"every": -1}, InvalidValue),
        ({"every": 60, "cron": "* * * * *"}, InvalidValue),
        ({"every": None}, InvalidValue),
        ({"tz": "CET+1"}, InvalidValue),
        ({"missed": "some"}, InvalidValue),
        ({"max_runs": 0}, InvalidValue),
        ({"colour": "red"}, InvalidType),
        ({"task": Report}, InvalidTask),
    ],
)
async def test_a_wrong_edit_changes_nothing(changes: dict[str, Any], error: type[Exception]) -> None:
    """What is refused leaves the schedule as it is."""
    client = make(":memory:")
    client.schedule("hourly", Report(), every=HOUR)
    async with client:
        before = await stored(client)
        with pytest.raises(error):
            await client.schedules.edit("hourly", **changes)
        assert await stored(client) == before
        with pytest.raises(ScheduleNotFound):
            await client.schedules.edit("unknown", every=60)


async def test_delete(database: str) -> None:
    """Its jobs stay; what stands in the code is made anew at the next start, and begins anew."""
    client = make(database)
    client.schedule("hourly", Report(), every=HOUR)
    async with client:
        await pass_by(client, 2 * HOUR)
        last = (await found(client)).last_job_id
        assert await client.schedules.delete("hourly", "unknown") == 1
        assert await client.schedules.get("hourly") is None
        assert await client.schedules.list() == []
        assert await client.status(last or "") is JobStatus.SUCCEEDED
        assert await pass_by(client, 5 * HOUR) == []
    async with client:
        assert (await found(client)).runs == 0


async def test_written_by_two_at_once_both_count(file: str, clock: testing.ManualClock) -> None:
    """Whoever finds that another one has written in between reads again: nothing is lost."""
    one, two = make(file, clock), make(file, clock, workers=0)
    async with one, two:
        await one.schedule("hourly", Report(), every=HOUR)
        await asyncio.gather(
            *(one.schedules.edit("hourly", max_runs=n) for n in range(10, 15)),
            *(two.schedules.edit("hourly", Report(str(n))) for n in range(5)),
            two.schedules.edit("hourly", missed="all"),
        )
        schedule = await found(one)
    assert (schedule.missed, schedule.max_runs in range(10, 15)) == ("all", True)
    assert schedule.payload != b'{"about":"all"}'


async def test_not_inside_a_transaction(file: str) -> None:
    """Inside a job's own transaction nobody else can write, and says so instead of waiting."""
    client, seen = make(file), []

    class Inside(Task):
        config: ClassVar[QueueConfig] = QueueConfig("inside")

    @client.handler(Inside)
    async def inside(task: Inside, job: JobContext) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: client.schedule("new", Report(), every=60),
            lambda: client.schedules.pause("hourly"),
            lambda: client.schedules.edit("hourly", every=5),
            lambda: client.schedules.delete("hourly"),
            lambda: client.schedules.run_now("hourly"),
        ]
        async with job.transaction():
            for call in calls:
                try:
                    await call()
                except InvalidState as error:
                    seen.append(str(error))

    client.schedule("hourly", Report(), every=HOUR)
    async with client:
        await testing.run_handler(client, Inside())
    assert len(seen) == 5


# -- preview ---------------------------------------------------------------------------------------


def test_preview() -> None:
    """The next runs are told without a database, in the time zone that was asked for."""
    client = make(":memory:")
    runs = client.schedules.preview(
        cron="30 1 * * *", tz="America/New_York", after=datetime(2030, 11, 2, tzinfo=UTC), n=3
    )
    assert [run.isoformat() for run in runs] == [
        "2030-11-02T01:30:00-04:00",
        "2030-11-03T01:30:00-04:00",
        "2030-11-04T01:30:00-05:00",
    ]
    assert client.schedules.preview(every=HOUR, n=2) == [START + HOUR, START + 2 * HOUR]
    assert client.schedules.preview(at=[START, START + HOUR]) == [START + HOUR]
    with pytest.raises(InvalidValue, match="one of cron="):
        client.schedules.preview()
    with pytest.raises(InvalidValue, match="time zone"):
        client.schedules.preview(every=1, after=datetime(2030, 1, 1))
    with pytest.raises(InvalidValue, match="n=0"):
        client.schedules.preview(every=1, n=0)


# -- wrong values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({}, InvalidValue, "one of cron="),
        ({"every": 60, "missed": "most"}, InvalidValue, "missed='most'"),
        ({"every": 60, "missed": None}, InvalidType, "missed=None"),
        ({"every": 60, "overlap": 1}, InvalidType, "overlap=1"),
        ({"every": 60, "max_runs": 0}, InvalidValue, "max_runs=0"),
        ({"every": 60, "max_runs": 1.5}, InvalidType, "max_runs=1.5"),
        ({"every": 60, "jitter": -1}, InvalidValue, "jitter=-1"),
        ({"every": 60, "tz": "Mars/Phobos"}, InvalidValue, "Mars/Phobos"),
        ({"every": 60, "start": datetime(2030, 1, 1)}, InvalidValue, "start="),
        ({"cron": "every day"}, InvalidValue, "every day"),
    ],
)
async def test_wrong_values_raise_at_the_call(said: Any, error: type[Exception], message: str) -> None:
    """Started or not, nothing is recorded, and the message names what is wrong."""
    client = make(":memory:")
    with pytest.raises(error, match=message):
        client.schedule("s", Report(), **said)
    async with client:
        with pytest.raises(error, match=message):
            client.schedule("s", Report(), **said)
        assert await client.schedules.list() == []


def test_wrong_names_and_tasks_raise_at_the_call() -> None:
    """So do names that are none, and what is no task."""
    client = make(":memory:", max_payload=100)
    with pytest.raises(InvalidValue, match="name=''"):
        client.schedule("", Report(), every=60)
    with pytest.raises(InvalidType, match="name=5"):
        client.schedule(5, Report(), every=60)  # type: ignore[arg-type]
    with pytest.raises(InvalidTask, match="schedule an instance"):
        client.schedule("s", Report, every=60)  # type: ignore[arg-type]
    with pytest.raises(InvalidTask, match="a task whose handler adds it"):
        client.schedule("s", chain(Report()), every=60)  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match="limit is 100"):
        client.schedule("s", Report("x" * 200), every=60)


def test_a_name_is_declared_once() -> None:
    """The same declaration again is none; another one of this name is a mistake."""
    client = make(":memory:")
    client.schedule("hourly", Report(), every=HOUR)
    client.schedule("hourly", Report(), every=3600)
    with pytest.raises(AlreadyRegistered, match="schedule 'hourly' is declared already"):
        client.schedule("hourly", Report("else"), every=HOUR)


async def test_what_must_be_started() -> None:
    """What needs the database says that the client is not started."""
    client = make(":memory:")
    for call in (client.schedules.list(), client.schedules.run_now("s"), client.schedules.pause("s")):
        with pytest.raises(InvalidState, match="not started"):
            await call
    async with client:
        with pytest.raises(InvalidType, match="one argument for each"):
            await client.schedules.pause(["s"])  # type: ignore[arg-type]


# -- starts ----------------------------------------------------------------------------------------


async def lives(
    file: str,
    clock: testing.ManualClock,
    declare: Callable[[Client], object] | None,
    *,
    then: timedelta = timedelta(0),
) -> tuple[Schedule | None, list[tuple[str, datetime]]]:
    """Let a client with this code live for a while; return how its schedule is then, and what ran."""
    client = make(file, clock)
    if declare is not None:
        declare(client)
    async with client:
        await settled(client)
        ran = await pass_by(client, then)
        return await client.schedules.get("hourly"), ran


def hourly(about: str = "all", **more: Any) -> Callable[[Client], object]:
    usual: dict[str, Any] = {"every": HOUR}
    return lambda client: client.schedule("hourly", Report(about), **(usual | more))


async def test_over_starts(file: str, clock: testing.ManualClock) -> None:
    """New, unchanged, changed, removed and back again: its runs and its history stay."""
    new, _ = await lives(file, clock, hourly(), then=1.5 * HOUR)
    assert new is not None
    same, ran = await lives(file, clock, hourly(), then=HOUR)
    assert same is not None
    assert (same.created_at, same.runs, ran) == (START, 2, [("all", START + 2 * HOUR)])
    changed, _ = await lives(file, clock, hourly("money", max_runs=50))
    assert changed is not None
    assert (changed.runs, changed.max_runs, changed.payload) == (2, 50, b'{"about":"money"}')
    gone, ran = await lives(file, clock, None, then=5 * HOUR)
    assert (gone, ran) == (None, [])
    back, ran = await lives(file, clock, hourly("money", max_runs=50))
    assert back is not None
    assert (back.created_at, back.runs, ran) == (START, 3, [("money", START + 7 * HOUR)])


@pytest.mark.parametrize(("missed", "hours"), [("one", [5]), ("all", [1, 2, 3, 4, 5]), ("none", [])])
async def test_after_a_time_without_anybody(
    file: str, clock: testing.ManualClock, missed: Any, hours: list[int]
) -> None:
    """What was due while no client was started is made up as was said."""
    await lives(file, clock, hourly(missed=missed))
    clock.advance(5 * HOUR + timedelta(minutes=5))
    _, ran = await lives(file, clock, hourly(missed=missed))
    assert [at for _, at in ran] == [START + n * HOUR for n in hours]


async def test_an_edit_outlives_restarts_until_the_code_changes(
    file: str, clock: testing.ManualClock
) -> None:
    """The code is compared with what it said last, not with what is there."""
    client = make(file, clock)
    hourly()(client)
    async with client:
        await client.schedules.edit("hourly", every=60)
    same, _ = await lives(file, clock, hourly())
    assert same is not None
    assert same.every == timedelta(minutes=1)
    changed, _ = await lives(file, clock, hourly("money"))
    assert changed is not None
    assert changed.every == HOUR


async def test_a_schedule_of_a_client_that_lives_is_not_removed(
    file: str, clock: testing.ManualClock, journal: Journal
) -> None:
    """Another application on the same file declares its own; once it is gone for good, so are they."""
    old, new = make(file, clock), make(file, clock)
    hourly()(old)
    new.schedule("other", Report("other"), every=HOUR)
    async with old:
        await settled(old)
        async with new:
            await settled(new)
            assert [schedule.name for schedule in await new.schedules.list()] == ["hourly", "other"]
            await old.stop()
            await look_around(new)
            await old.start()  # within its time
            clock.advance(GRACE + 1)
            await look_around(new)
            assert [schedule.name for schedule in await new.schedules.list()] == ["hourly", "other"]
    async with new:
        assert [schedule.name for schedule in await new.schedules.list()] == ["other"]
    assert "schedule=hourly action=removed" in journal.of("schedule.changed")[-1]


async def test_in_a_rolling_deployment_the_last_old_process_takes_its_schedules_along(
    file: str, clock: testing.ManualClock
) -> None:
    """What newer code says no more goes on while older processes live, and is removed a minute later."""
    old, older, new = make(file, clock), make(file, clock), make(file, clock)
    hourly()(old)
    hourly()(older)
    async with old, older, new:
        await settled(new)
        for left in (older, old):
            clock.advance(GRACE)
            await look_around(new)
            assert await new.schedules.get("hourly")
            await left.stop()
            await look_around(new)
        clock.advance(GRACE - 1)
        await look_around(new)
        assert await new.schedules.get("hourly")
        clock.advance(1)
        await look_around(new)
        assert await new.schedules.get("hourly") is None


async def test_the_end_of_a_newer_client_removes_nothing(file: str, clock: testing.ManualClock) -> None:
    """A worker that runs on while the application that declares the schedules restarts adds their runs."""
    worker, application = make(file, clock), make(file, clock, workers=0)
    hourly()(application)
    async with worker:
        await settled(worker)
        async with application:
            pass
        for _ in range(3):
            await look_around(worker)
            clock.advance(GRACE)
        assert await pass_by(worker, HOUR) == [("all", START + HOUR)]
        assert (await found(worker)).state == "active"


async def test_a_client_that_neither_declares_nor_runs_removes_nothing(
    file: str, clock: testing.ManualClock
) -> None:
    """A script that looks at the schedules of an application that is down finds them."""
    await lives(file, clock, hourly())
    script = make(file, clock, workers=0)
    async with script:
        assert (await found(script)).state == "active"
        other = Client(file, workers=0)
        other.schedule("own", Report(), every=HOUR)
        async with other:
            assert [schedule.name for schedule in await script.schedules.list()] == ["own"]


async def test_made_at_run_time_it_is_not_removed(file: str, clock: testing.ManualClock) -> None:
    """Only code that is gone takes its schedules along."""
    client = make(file, clock)
    async with client:
        await client.schedule("hourly", Report(), every=HOUR)
    there, ran = await lives(file, clock, None, then=2 * HOUR)
    assert there is not None
    assert len(ran) == 2


async def test_made_at_run_time_where_one_was_removed_it_is_active(
    file: str, clock: testing.ManualClock
) -> None:
    """Nobody sees that the one that is gone was paused."""
    client = make(file, clock)
    hourly()(client)
    async with client:
        await settled(client)
        await client.schedules.pause("hourly")
    async with make(file, clock) as other:
        await settled(other)
        assert await other.schedules.get("hourly") is None
        there = await other.schedule("hourly", Report(), every=60)
        assert (there.state, there.paused_at) == ("active", None)
        assert await other.schedules.pause("hourly") == 1
        assert (await other.schedule("hourly", Report(), every=90)).state == "paused"


async def test_stopped_and_started_again_one_client_declares_again(database: str) -> None:
    """A client's code is the same in each of its lives, and its own earlier life has gone."""
    client = make(database)
    hourly()(client)
    owners: set[str] = set()
    for _ in range(3):
        async with client:
            await settled(client)
            (owner,) = (await stored(client)).declared_by
            owners.add(owner)
    assert len(owners) == 3
    client.schedule("later", Report(), every=HOUR)
    async with client:
        assert len(await client.schedules.list()) == 2


async def test_what_cannot_be_declared_at_a_start_is_told_and_can_be_tried_again(
    clock: testing.ManualClock,
) -> None:
    """A start that cannot store what the code says fails, whole, and the next one does all of it."""

    class Full(MemoryStore):
        full = 2

        async def save_schedule(self, schedule: StoredSchedule, *, expected: int | None) -> bool:
            self.full -= 1
            if self.full == 0:
                raise DatabaseUnavailable("disk full")
            return await super().save_schedule(schedule, expected=expected)

    client = make(Full(), clock)
    for name in ("hourly", "second", "third"):
        client.schedule(name, Report(), every=HOUR)
    with pytest.raises(DatabaseUnavailable, match="disk full"):
        await client.start()
    with pytest.raises(InvalidState):
        await client.schedules.list()
    async with client:
        assert [schedule.name for schedule in await client.schedules.list()] == ["hourly", "second", "third"]
        assert len(await pass_by(client, HOUR)) == 3


async def test_declared_while_it_starts(clock: testing.ManualClock) -> None:
    """What is said while a client is starting is a declaration of this start."""
    store = Crowded()
    client = make(store, clock)
    hourly()(client)

    async def by_another_task() -> None:
        client.schedule("late", Report(), every=HOUR)

    store.others = [by_another_task]
    async with client:
        assert [schedule.name for schedule in await client.schedules.list()] == ["hourly", "late"]


class Crowded(MemoryStore):
    """A store in which others write while one is about to."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[], Awaitable[object]]] = []

    async def schedules(self, name: str | None = None) -> Sequence[StoredSchedule]:
        found = await super().schedules(name)
        if name is not None and self.others:
            await self.others.pop()()
        return found


async def test_started_at_once_all_declare(clock: testing.ManualClock) -> None:
    """Of several that start at the same moment one makes the schedule, and all are known to declare it."""
    store = Crowded()
    clients = [make(store, clock) for _ in range(4)]
    for client in clients:
        hourly()(client)
    store.others = [client.start for client in clients[1:]]
    async with clients[0]:
        assert len((await stored(clients[0])).declared_by) == 4
        await asyncio.gather(*(client.stop() for client in clients))


@pytest.mark.parametrize("deaf", [True, False])
async def test_where_nobody_can_tell_who_lives_nothing_is_removed(
    clock: testing.ManualClock, deaf: bool
) -> None:
    """On a system without such locks others may live that nobody sees: then schedules stay."""

    class Dark(MemoryStore):
        async def owners(self, *, now: int) -> Sequence[OwnerInfo]:
            return await super().owners(now=now) if deaf else []

    store = Dark()
    store.rings = not deaf
    first, second = make(store, clock), make(store, clock)
    hourly()(first)
    second.schedule("other", Report(), every=HOUR)
    for _ in range(3):
        async with first:
            pass
    async with second:
        await settled(second)
        assert [schedule.name for schedule in await second.schedules.list()] == ["hourly", "other"]
        assert len((await stored(second)).declared_by) == 1


async def test_changed_while_another_one_changes_it(clock: testing.ManualClock) -> None:
    """Whoever writes second reads again first: each change is made to what is there."""
    store = Crowded()
    one, two = make(store, clock), make(store, clock, workers=0)
    hourly()(one)
    async with one, two:

        async def by_another() -> None:
            await two.schedules.edit("hourly", max_runs=7)

        for change in (
            lambda: one.schedules.edit("hourly", missed="all"),
            lambda: one.schedules.pause("hourly"),
            lambda: one.schedule("hourly", Report(), every=60, max_runs=7),
        ):
            before = (await stored(one)).version
            store.others = [by_another]
            await change()
            assert (await stored(one)).version == before + 2
            assert (await found(one)).max_runs == 7
        assert (await found(one)).state == "paused"


async def test_stopped_in_the_middle_of_many_runs(file: str) -> None:
    """A stop does not wait until all that was missed is made up; the next start goes on with it."""
    clock = testing.ManualClock(START)
    await lives(file, clock, hourly(every=1, missed="all"))
    clock.advance(timedelta(minutes=15))
    client = make(file, clock, workers=1)
    hourly(every=1, missed="all")(client)
    async with client:
        pass
    async with client:
        await settled(client)
        schedule = await found(client)
        assert schedule.runs == 900
        await client.jobs.delete(queue="reports")


async def test_the_log_names_no_payload(database: str, journal: Journal) -> None:
    """What is logged of schedules are names and numbers."""
    client = make(database)
    client.schedule("hourly", Report("secret"), every=HOUR)
    async with client:
        await pass_by(client, 2 * HOUR)
        await client.schedules.edit("hourly", max_runs=4)
    assert journal.of("schedule.changed")[0] == "schedule.changed schedule=hourly action=made"
    assert journal.of("schedule.ticked") == ["schedule.ticked schedule=hourly jobs=1"] * 2
    assert not [line for line in journal.lines if "secret" in line]
