"""`backlite_async.testing`: time that stands still, running until idle, and what was added."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
import sys
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import aiosqlite
import anyio
import pytest

from backlite_async import (
    BackliteError,
    Client,
    Clock,
    Discard,
    Event,
    InvalidState,
    InvalidType,
    InvalidValue,
    JobContext,
    JobStatus,
    QueueConfig,
    Rate,
    Retention,
    Retry,
    Snooze,
    SystemClock,
    Task,
    testing,
)

START = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Mail(Task):
    config: ClassVar[QueueConfig] = QueueConfig("mails", max_attempts=3, backoff=60.0)
    to: str
    subject: str = "news"


class Note(Task):
    config: ClassVar[QueueConfig] = QueueConfig("notes", retention=Retention(payload="never"))
    text: str


class Call(Task):
    config: ClassVar[QueueConfig] = QueueConfig("calls", rate=Rate(2, per=60))
    number: int


def mails(client: Client, **errors: BaseException) -> list[str]:
    """Register a handler of mails that raises these errors, each in the first attempt; return who got one."""
    sent = []

    @client.handler(Mail)
    async def mail(task: Mail, job: JobContext) -> None:
        if job.attempt == 1 and task.to in errors:
            raise errors.pop(task.to)
        sent.append(task.to)

    return sent


def statuses(ran: list[testing.Ran]) -> list[tuple[str, str]]:
    return [(attempt.task.to, attempt.status) for attempt in ran]


# -- the clock -------------------------------------------------------------------------------------


def test_a_manual_clock_stands_still_until_it_is_told() -> None:
    """Both of its times go on together, by what they are told."""
    clock = testing.ManualClock(START)
    assert (clock.instant, clock.monotonic()) == (START, 0.0)
    clock.advance(60)
    assert clock.now() == 1_893_456_060_001  # as a wait of 60 seconds, which never ends early
    assert clock.monotonic() == 60.001
    clock.set(START + HOUR)
    assert (clock.instant, clock.monotonic()) == (START + HOUR, 3600.0)
    clock.advance(timedelta(0))
    assert clock.instant == START + HOUR


def test_a_manual_clock_begins_now() -> None:
    """Instants that a test takes from the real clock mean what they say."""
    clock: Clock = testing.ManualClock()
    assert abs(clock.now() - SystemClock().now()) < 10_000


def test_a_manual_clock_refuses_what_is_no_way_forward() -> None:
    """Time does not run back, and instants are aware."""
    clock = testing.ManualClock(START)
    with pytest.raises(InvalidValue, match="time does not run back"):
        clock.set(START - HOUR)
    with pytest.raises(InvalidValue, match="no time zone"):
        clock.set(datetime(2031, 1, 1))
    with pytest.raises(InvalidValue, match="no time zone"):
        testing.ManualClock(datetime(2031, 1, 1))
    with pytest.raises(InvalidValue, match="duration=-1"):
        clock.advance(-1)
    assert clock.instant == START


async def test_a_clock_that_goes_on_wakes_its_clients() -> None:
    """What becomes due by that runs at once, without any further call."""
    clock = testing.ManualClock(START)
    async with testing.client(clock=clock) as client:
        ran = asyncio.Event()

        @client.handler(Mail)
        async def mail(task: Mail) -> None:
            ran.set()

        await client.add(Mail("ann")).wait(HOUR).save()
        assert await testing.run_until_idle(client, advance=False) == []
        clock.advance(HOUR)
        with anyio.fail_after(5):
            await ran.wait()


async def test_a_clock_holds_no_client() -> None:
    """A clock that many tests share keeps none of their clients alive."""
    clock = testing.ManualClock()
    client = testing.client(clock=clock)
    gone = weakref.ref(client)
    async with client:
        await client.add(Mail("ann")).save()
    del client
    await asyncio.sleep(0)
    gc.collect()
    assert gone() is None
    clock.advance(1)


# -- running until idle ----------------------------------------------------------------------------


async def test_everything_runs_in_its_order(database: str) -> None:
    """What is due, then retries, snoozes and what is scheduled, each at its time, and at once."""
    clock = testing.ManualClock(START)
    async with testing.client(database, clock=clock) as client:
        sent = mails(client, ann=Retry(after=7200), bob=OSError("no answer"), eve=Snooze(30))
        await client.add(Mail("ann"), Mail("bob"), Mail("eve")).save()
        await client.add(Mail("zoe")).wait(HOUR).save()
        ran = await testing.run_until_idle(client)
        assert statuses(ran) == [
            ("ann", "retried"),
            ("bob", "retried"),
            ("eve", "snoozed"),
            ("eve", "succeeded"),
            ("bob", "succeeded"),
            ("zoe", "succeeded"),
            ("ann", "succeeded"),
        ]
        assert sent == ["eve", "bob", "zoe", "ann"]
        assert timedelta(hours=2) <= clock.instant - START < timedelta(hours=2, seconds=1)
        assert await testing.run_until_idle(client) == []


async def test_an_attempt_tells_what_it_was(database: str) -> None:
    """Which job and task, which attempt, how it ended, and what was raised."""
    async with testing.client(database) as client:
        error = OSError("no answer")
        mails(client, ann=error)
        [job_id] = await client.add(Mail("ann")).save()
        first, second = await testing.run_until_idle(client)
        assert first == testing.Ran(
            id=job_id, queue="mails", name="Mail", task=Mail("ann"), attempt=1, status="retried",
            error="OSError: no answer", exception=error,
        )  # fmt: skip
        assert str(first) == "Mail(to='ann', subject='news') retried in attempt 1: OSError: no answer"
        assert second == testing.Ran(
            id=job_id, queue="mails", name="Mail", task=Mail("ann"), attempt=2, status="succeeded"
        )


async def test_no_attempt_is_missed_or_told_twice(file: str) -> None:
    """What ran before the call counts too, however long ago it began, but not what an earlier one told."""
    async with testing.client(file) as client:
        mails(client)
        for name in "ab":
            events = client.events()
            await client.add(Mail(name)).save()
            with anyio.fail_after(5):
                async for event in events:
                    if event.kind == "succeeded":
                        break
        await testing.run_handler(client, Mail("c"))
        ran = await testing.run_until_idle(client)
        assert [attempt.task.to for attempt in ran] == ["a", "b"]
        assert await testing.run_until_idle(client) == []


async def test_a_result_is_what_the_handler_returned_or_set(file: str) -> None:
    """Whether anything of it is kept or not."""
    async with testing.client(file) as client:

        @client.handler(Mail)
        async def mail(task: Mail, job: JobContext) -> object:
            if task.to == "ann":
                return {"to": task.to}
            async with job.transaction():
                job.result = [task.to]
            return None

        @client.handler(Note)
        async def note(task: Note) -> str:
            return task.text

        await client.add(Mail("ann"), Mail("bob"), Note("hi")).save()
        ran = await testing.run_until_idle(client)
        results = sorted((attempt.name, str(attempt.result)) for attempt in ran)
        assert results == [("Mail", "['bob']"), ("Mail", "{'to': 'ann'}"), ("Note", "hi")]


async def test_what_jobs_add_runs_too(database: str) -> None:
    """Jobs of jobs, and of listeners, also those of handlers in threads."""
    async with testing.client(database) as client:

        @client.handler(Mail)
        def mail(task: Mail, job: JobContext) -> None:
            if task.to != "last":
                anyio.from_thread.run(job.client.add(Mail("last")).wait(HOUR).save)

        @client.handler(Note)
        async def note(task: Note) -> None: ...

        @client.on("succeeded", queue="mails")
        async def told(event: Event) -> None:
            for _ in range(20):
                await client.status(event.job_id)  # it takes its time
            await client.add(Note(event.job_id)).save()

        await client.add(Mail("first")).save()
        ran = await testing.run_until_idle(client)
        assert [attempt.name for attempt in ran] == ["Mail", "Note", "Mail", "Note"]


async def test_what_is_taken_away_has_not_ended(database: str) -> None:
    """The outcome of a handler whose job was released is not accepted, and is none here."""
    async with testing.client(database) as client:
        fences: list[int] = []

        @client.handler(Note)
        async def note(task: Note, job: JobContext) -> None:
            fences.append(job.fence)
            if len(fences) == 1:
                assert await client.jobs.release(job.id) == 1

        await client.add(Note("a")).save()
        ran = await testing.run_until_idle(client)
        assert len(set(fences)) == 2
        assert [attempt.status for attempt in ran] == ["succeeded"]


async def test_rates_are_waited_for() -> None:
    """The clock goes on to when a rate permits the next start."""
    clock = testing.ManualClock(START)
    async with testing.client(clock=clock) as client:
        at = []

        @client.handler(Call)
        async def call(task: Call) -> None:
            at.append(round((clock.instant - START).total_seconds()))

        await client.add(*map(Call, range(5))).save()
        assert len(await testing.run_until_idle(client)) == 5
        assert at == [0, 0, 60, 60, 120]


async def test_time_can_be_let_pass(database: str) -> None:
    """With a duration what becomes due in it runs, and the clock ends there; False: nothing but now."""
    clock = testing.ManualClock(START)
    async with testing.client(database, clock=clock) as client:
        mails(client)
        for hours in (0, 1, 2, 3):
            await client.add(Mail(f"{hours}")).wait(hours * HOUR).save()
        assert statuses(await testing.run_until_idle(client, advance=False)) == [("0", "succeeded")]
        assert clock.instant == START
        ran = await testing.run_until_idle(client, advance=2 * HOUR)
        assert statuses(ran) == [("1", "succeeded"), ("2", "succeeded")]
        assert clock.now() - testing.ManualClock(START).now() == 7_200_001
        await testing.run_until_idle(client, advance=1800)
        assert await testing.assert_added(client, Mail, to="3")
        assert clock.now() - testing.ManualClock(START).now() == 9_000_002


async def test_with_a_clock_that_runs_only_what_is_due_runs() -> None:
    """Nobody waits for real time to pass."""
    async with testing.client(clock=SystemClock()) as client:
        mails(client)
        await client.add(Mail("ann")).save()
        await client.add(Mail("bob")).wait(HOUR).save()
        assert statuses(await testing.run_until_idle(client)) == [("ann", "succeeded")]
        with pytest.raises(InvalidState, match="needs a client with a ManualClock"):
            await testing.run_until_idle(client, advance=HOUR)


async def test_a_failed_job_is_loud() -> None:
    """After all has run it raises, with the handler's own error as its cause; unless the test looks."""
    async with testing.client() as client:
        first = Discard("gone")
        mails(client, ann=first, bob=Discard("moved"))
        await client.add(Mail("ann"), Mail("bob"), Mail("eve")).save()
        with pytest.raises(testing.JobFailed) as raised:
            await testing.run_until_idle(client)
        assert isinstance(raised.value, AssertionError)
        assert isinstance(raised.value, BackliteError)
        assert str(raised.value) == (
            "Mail(to='ann', subject='news') failed in attempt 1: gone\n"
            "Mail(to='bob', subject='news') failed in attempt 1: moved"
        )
        assert raised.value.__cause__ is first
        assert [attempt.task.to for attempt in raised.value.ran] == ["ann", "bob"]
        assert await testing.run_until_idle(client) == []

    async with testing.client() as client:
        mails(client, ann=Discard("gone"))
        await client.add(Mail("ann")).save()
        assert statuses(await testing.run_until_idle(client, raise_errors=False)) == [("ann", "failed")]


async def test_what_goes_on_without_end_is_named() -> None:
    """A limit of attempts, whether time has to pass for them or not."""
    for wait in (0, 3600):
        async with testing.client() as client:

            @client.handler(Mail)
            async def mail(task: Mail) -> None:
                raise Snooze(wait)  # noqa: B023

            await client.add(Mail("ann")).save()
            with pytest.raises(AssertionError, match=r"not idle after limit=20 attempts: Mail \(21 times\)$"):
                await testing.run_until_idle(client, limit=20)


async def test_a_limit_that_is_just_enough() -> None:
    """So many attempts may be made."""
    async with testing.client() as client:
        mails(client)
        await client.add(*(Mail(f"{number}") for number in range(20))).save()
        assert len(await testing.run_until_idle(client, limit=20)) == 20


async def test_what_runs_for_too_long_is_named() -> None:
    """A handler that waits for what the test does not do."""
    async with testing.client(stop_timeout=0) as client:

        @client.handler(Mail)
        async def mail(task: Mail) -> None:
            await anyio.sleep_forever()

        await client.add(Mail("ann"), Mail("bob")).save()
        with pytest.raises(AssertionError, match=r"ended for 0.05 s.*running: Mail \(2 times\)$"):
            await testing.run_until_idle(client, patience=0.05)


async def test_jobs_that_nobody_can_run_are_left() -> None:
    """Those without a handler, and those of paused queues; without any handler nothing runs."""
    async with testing.client() as client:
        await client.add(Mail("ann")).save()
        assert await testing.run_until_idle(client) == []
        mails(client)
        await client.add(Note("hi")).save()
        await client.pause("mails")
        assert await testing.run_until_idle(client) == []
        await client.resume("mails")
        assert statuses(await testing.run_until_idle(client)) == [("ann", "succeeded")]


async def test_a_handler_that_goes_on_after_its_transaction_is_waited_for(file: str) -> None:
    """Its job has ended, but it has not, and may add jobs."""
    async with testing.client(file) as client:
        done = []

        @client.handler(Mail)
        async def mail(task: Mail, job: JobContext) -> None:
            async with job.transaction():
                pass
            for _ in range(20):
                await client.status(job.id)  # it takes its time
            done.append(task.to)
            if task.to == "ann":
                await client.add(Mail("bob")).save()

        await client.add(Mail("ann")).save()
        ran = await testing.run_until_idle(client)
        assert statuses(ran) == [("ann", "succeeded"), ("bob", "succeeded")]
        assert done == ["ann", "bob"]


async def test_only_recorded_clients_can_be_watched() -> None:
    """Others are told what to do, and so are handlers, which would wait for themselves."""
    async with Client(":memory:") as client:
        with pytest.raises(InvalidState, match=r"testing\.client\(\), or start it inside"):
            await testing.run_until_idle(client)
    client = testing.client()
    with pytest.raises(InvalidState, match="not started"):
        await testing.run_until_idle(client)
    async with client:

        @client.handler(Mail)
        async def mail(task: Mail, job: JobContext) -> None:
            await testing.run_until_idle(job.client)

        with pytest.raises(InvalidState, match="waits for itself"):
            await testing.run_handler(client, Mail("ann"))


# -- one handler -----------------------------------------------------------------------------------


async def test_run_handler_goes_all_the_way(database: str) -> None:
    """The job is stored with its options, and its attempt is returned."""
    async with testing.client(database) as client:
        seen = []

        @client.handler(Mail)
        async def mail(task: Mail, job: JobContext) -> None:
            seen.append((task, job.key, job.meta, job.tags, job.max_attempts, await client.status(job.id)))

        ran = await testing.run_handler(
            client, Mail("ann"), key="k", meta={"a": 1}, tags=["x", "y"], max_attempts=1, id="mine", timeout=5
        )
        assert (ran.id, ran.status, ran.task) == ("mine", "succeeded", Mail("ann"))
        assert seen == [(Mail("ann"), "k", {"a": 1}, ("x", "y"), 1, JobStatus.RUNNING)]


@pytest.mark.parametrize("error", [ValueError("odd"), Retry(1), Snooze(1), Discard("no"), KeyError("k")])
async def test_run_handler_raises_what_the_handler_raises(error: Exception) -> None:
    """The very exception, with its traceback; also what steers a job."""
    async with testing.client() as client:
        mails(client, ann=error)
        with pytest.raises(type(error)) as raised:
            await testing.run_handler(client, Mail("ann"))
        assert raised.value is error


async def test_run_handler_raises_what_a_thread_raises() -> None:
    """The same for `def` handlers."""
    async with testing.client() as client:

        @client.handler(Mail)
        def mail(task: Mail) -> None:
            raise LookupError(task.to)

        with pytest.raises(LookupError, match="ann"):
            await testing.run_handler(client, Mail("ann"))


async def test_run_handler_raises_a_timeout_and_a_cancellation_as_errors() -> None:
    """Not as a CancelledError, which would look like the test's own."""
    async with testing.client() as client:

        @client.handler(Mail)
        async def mail(task: Mail, job: JobContext) -> None:
            if task.to == "eve":
                await client.cancel(job.id)
            await anyio.sleep_forever()

        with pytest.raises(TimeoutError, match="ran longer than its timeout"):
            await testing.run_handler(client, Mail("ann"), timeout=0.02)
        with pytest.raises(testing.JobFailed, match="cancelled in attempt 1: cancelled"):
            await testing.run_handler(client, Mail("eve"))


async def test_handlers_that_are_run_directly_leave_no_trace() -> None:
    """`client.run()` adds nothing, so there is nothing to be told."""
    async with testing.client() as client:
        mails(client, ann=ValueError())
        with pytest.raises(ValueError):  # noqa: PT011
            await client.run(Mail("ann"))
        record = testing._clients.records[client]
        assert (record.raised, record.returned, record.ran) == ({}, {}, [])
        await testing.refute_added(client, Mail)


async def test_run_handler_says_what_is_missing() -> None:
    """A handler, or an option that it has."""
    async with testing.client() as client:
        with pytest.raises(InvalidState, match="no handler of Mail"):
            await testing.run_handler(client, Mail("ann"))
        mails(client)
        with pytest.raises(InvalidType, match="no option 'wait'"):
            await testing.run_handler(client, Mail("ann"), wait=5)
        assert await testing.added(client, Mail) == []


# -- what was added --------------------------------------------------------------------------------


async def test_what_was_added_is_found(database: str) -> None:
    """Pending, running or gone; by type and fields, or by an equal task; how many, and when due."""
    clock = testing.ManualClock(START)
    async with testing.client(database, clock=clock) as client:
        mails(client)
        await client.add(Mail("ann"), Mail("bob", "bill")).save()
        await testing.run_until_idle(client)
        await client.add(Mail("ann", "bill")).wait(HOUR).save()
        await client.add(Note("hi")).save()
        assert await testing.added(client, Mail) == [Mail("ann"), Mail("bob", "bill"), Mail("ann", "bill")]
        assert await testing.assert_added(client, Mail, to="ann") == [Mail("ann"), Mail("ann", "bill")]
        assert await testing.assert_added(client, Mail, count=3)
        assert await testing.assert_added(client, Mail("bob", "bill"), count=1) == [Mail("bob", "bill")]
        assert await testing.assert_added(client, Mail, at=START + HOUR) == [Mail("ann", "bill")]
        assert await testing.assert_added(client, Mail("eve"), count=0) == []
        await testing.refute_added(client, Mail, to="eve")
        await testing.refute_added(client, Mail("ann", "bill"), at=START)
        await testing.refute_added(client, Mail("ann", "bill"), at=START + HOUR + timedelta(seconds=1))


async def test_what_was_added_instead_is_told() -> None:
    """An error lists the jobs of the type, and how many there are of others."""
    clock = testing.ManualClock(START)
    async with testing.client(clock=clock) as client:
        with pytest.raises(AssertionError) as raised:
            await testing.assert_added(client, Mail)
        assert str(raised.value) == "no job Mail() was added; of Mail there is none"
        mails(client)
        await client.add(Mail("ann")).save()
        await testing.run_until_idle(client)
        await client.add(Mail("bob", "bill")).at(START + HOUR).save()
        await client.add(Note("a"), Note("b")).save()
        there = (
            "; of Mail there are:\n"
            "  Mail(to='ann', subject='news'), due at 2030-01-01 00:00:00+00:00, gone\n"
            "  Mail(to='bob', subject='bill'), due at 2030-01-01 01:00:00+00:00, pending\n"
            "of other types: Note (2 times)"
        )
        for what, options, text in (
            (Mail, {"to": "bob", "subject": "news"}, "no job Mail(to='bob', subject='news') was added"),
            (Mail, {"count": 3}, "2, not 3, Mail() was added"),
            (Mail("eve"), {}, "no job Mail(to='eve', subject='news') was added"),
            (Mail, {"at": START + 2 * HOUR}, "no job Mail(), due at 2030-01-01 02:00:00+00:00, was added"),
        ):
            with pytest.raises(AssertionError) as raised:
                await testing.assert_added(client, what, **options)
            assert str(raised.value) == text + there
        with pytest.raises(AssertionError) as raised:
            await testing.refute_added(client, Mail, to="ann")
        assert str(raised.value) == "Mail(to='ann') was added" + there


async def test_long_lists_are_cut() -> None:
    """A message stays readable."""
    async with testing.client() as client:
        await client.add(*(Mail(f"{number}") for number in range(25))).save()
        with pytest.raises(AssertionError, match=r"subject='news'\).*\n  and 5 more$"):
            await testing.assert_added(client, Mail, to="ann")


async def test_a_field_that_is_none_is_no_silent_mismatch() -> None:
    """A misspelt field is an error, in `refute_added` above all."""
    async with testing.client() as client:
        with pytest.raises(
            InvalidValue, match="Mail has no field 'tp' to compare; the fields are: to, subject"
        ):
            await testing.refute_added(client, Mail, tp="ann")
        with pytest.raises(InvalidValue, match="all in the task itself"):
            await testing.refute_added(client, Mail("ann"), to="ann")
        with pytest.raises(InvalidValue, match="no time zone"):
            await testing.refute_added(client, Mail, at=datetime(2030, 1, 1))


async def test_what_a_rolled_back_transaction_added_was_not_added(file: str) -> None:
    """In the caller's transaction: what is committed counts, pending, or run and gone."""
    async with testing.client(file) as client:
        mails(client)
        async with aiosqlite.connect(file) as connection:
            for name, end in (("ann", connection.commit), ("bob", connection.rollback)):
                await connection.execute("BEGIN IMMEDIATE")
                await client.add(Mail(name)).tx(connection).save()
                await end()
        assert await testing.added(client, Mail) == [Mail("ann")]
        await testing.run_until_idle(client)
        assert await testing.added(client, Mail) == [Mail("ann")]


async def test_what_others_have_added_is_found_while_it_is_there(file: str) -> None:
    """Another client of the same file, and what was in it before; a plain client knows only that."""
    async with testing.client(file, workers=0) as other:
        await other.add(Mail("ann")).save()
        async with testing.client(file) as client, Client(file, workers=0) as plain:
            assert await testing.added(client, Mail) == [Mail("ann")]
            assert await testing.added(plain, Mail) == [Mail("ann")]
            await other.add(Mail("bob")).save()
            assert await testing.assert_added(client, Mail, count=2)
            await testing.refute_added(plain, Mail("eve"))


async def test_a_kept_job_without_its_payload(database: str) -> None:
    """What another client added and nobody keeps is listed as such, and matches nothing."""
    async with testing.client(database) as client:

        @client.handler(Note)
        async def note(task: Note) -> None: ...

        await client.add(Note("a")).save()
        await testing.run_until_idle(client)
        assert await testing.added(client, Note) == [Note("a")]
        forgetful: Any = client
        testing._clients.records[forgetful].added.clear()
        assert await testing.added(client, Note) == []
        with pytest.raises(AssertionError, match=r"one whose task is not kept, due at .*, succeeded"):
            await testing.assert_added(client, Note)


async def test_a_job_that_was_replaced_or_edited_is_found_as_it_is(database: str) -> None:
    """`unique(on_conflict="replace")` gives a pending job another task: there is one, the new one."""
    async with testing.client(database) as client:
        for subject in ("old", "new"):
            operation = client.add(Mail("ann", subject)).wait(HOUR)
            await operation.unique("ann", on_conflict="replace").save()
        assert await testing.added(client, Mail) == [Mail("ann", "new")]
        mails(client)
        await testing.run_until_idle(client)
        assert await testing.added(client, Mail) == [Mail("ann", "new")]


async def test_dead_letters_count_as_added() -> None:
    """They are written with the outcome of the job that has failed."""

    class Dead(Task):
        config: ClassVar[QueueConfig] = QueueConfig("dead")
        job_id: str

    class Doomed(Task):
        config: ClassVar[QueueConfig] = QueueConfig("doomed", max_attempts=1, dead_letter=Dead)

    async with testing.client() as client:

        @client.handler(Doomed)
        async def doomed(task: Doomed) -> None:
            raise ValueError

        @client.handler(Dead)
        async def dead(task: Dead) -> None: ...

        [job_id] = await client.add(Doomed()).save()
        await testing.run_until_idle(client, raise_errors=False)
        assert await testing.assert_added(client, Dead(job_id), count=1)


# -- the application's own client ------------------------------------------------------------------


async def test_an_applications_client_runs_elsewhere_for_a_while(tmp_path: Path) -> None:
    """With its own handlers; its database is not touched, and afterwards it is as it was."""
    own = Client(tmp_path / "own.db", workers=0)
    before = dict(vars(own))
    sent = mails(own)
    clock = testing.ManualClock(START)
    for database in (":memory:", tmp_path / "test.db"):
        with testing.replaced(own, database, clock=clock, workers=3) as client:
            assert client is own
            async with own:
                await own.add(Mail("ann")).save()
                await own.add(Mail("bob")).wait(HOUR).save()
                assert statuses(await testing.run_until_idle(own)) == [
                    ("ann", "succeeded"), ("bob", "succeeded"),
                ]  # fmt: skip
                await own.pause("mails", here=True)
        assert sent == ["ann", "bob"]
        sent.clear()
    assert not (tmp_path / "own.db").exists()
    assert (tmp_path / "test.db").exists()
    after = vars(own)
    changed = {name for name in after if after[name] is not before[name]}
    assert changed <= {"_running", "_declared"}
    assert own.registry.paused == frozenset()
    assert not own.layers.of("mails")
    async with own:
        assert not await own.queues.list()
        with pytest.raises(InvalidState, match="nobody has recorded"):
            await testing.run_until_idle(own)


async def test_every_part_of_a_replaced_client_has_the_other_clock() -> None:
    """No part has kept the clock that it was made with."""
    own, clock = Client(":memory:"), testing.ManualClock()

    def clocks() -> list[Clock]:
        parts = [getattr(part, "__dict__", {}) for part in vars(own).values()]
        return [own.clock, *(part["_clock"] for part in parts if "_clock" in part)]

    before = clocks()
    assert len(before) > 2
    with testing.replaced(own, clock=clock):
        assert clocks() == [clock] * len(before)
    assert clocks() == before


async def test_two_blocks_have_two_memories() -> None:
    """No test sees what another one has added."""
    own = Client("never.db")
    for _ in range(2):
        with testing.replaced(own):
            async with own:
                assert await testing.added(own, Mail) == []
                await own.add(Mail("ann")).save()


async def test_a_client_is_replaced_while_it_is_stopped() -> None:
    """A start before or a forgotten stop is told; an error of the test comes first."""
    own = Client(":memory:")
    async with own:
        with pytest.raises(InvalidState, match="begins before its start"), testing.replaced(own):
            pass
    try:
        with pytest.raises(InvalidState, match="ends after its stop"), testing.replaced(own):
            await own.start()
    finally:
        await own.stop()
    try:
        with pytest.raises(ZeroDivisionError), testing.replaced(own):  # noqa: PT012
            await own.start()
            raise ZeroDivisionError
    finally:
        await own.stop()


def test_the_public_names() -> None:
    """What is offered has a docstring, and is listed in order."""
    assert testing.__all__ == sorted(testing.__all__)
    for name in testing.__all__:
        assert getattr(testing, name).__doc__, name


def test_the_examples_of_the_docs_run(tmp_path: Path) -> None:
    """The tests in docs/testing.md pass, of the module that it shows, but for that of an application."""
    text = (Path(__file__).parents[1] / "docs" / "testing.md").read_text(encoding="utf-8")
    module, *tests = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    tests = [test for test in tests if "http" not in test]
    assert len(tests) == 6
    (tmp_path / "shop.py").write_text(module)
    (tmp_path / "test_shop.py").write_text("\n\n".join(tests))
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "backlite_async.pytest_plugin", "-p", "no:cacheprovider"]
    options = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function", "-W", "error"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, *options, "--rootdir", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "6 passed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "shop.db").exists()
