"""Handlers of every kind: the pool, its timeouts and its limits survive all of them."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, NoReturn

import anyio
import pytest

from backlite_async import (
    Backoff,
    Client,
    Discard,
    Job,
    JobContext,
    JobStatus,
    QueueConfig,
    Retention,
    Retry,
    Snooze,
    Task,
    _worker,
)
from backlite_async._codec import decode
from backlite_async._task import TaskType

from .conftest import LIMIT, Journal

KEEP = Retention(payload="always")


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=2, backoff=0, retention=KEEP)
    what: str = ""


class Quick(Task):
    config: ClassVar[QueueConfig] = QueueConfig("quick", max_attempts=1, timeout=0.05, retention=KEEP)


class Probe(Task):
    config: ClassVar[QueueConfig] = QueueConfig("probe", max_attempts=1, retention=KEEP)


async def run_one(
    client: Client, journal: Journal, handler: Callable[..., Any], task: Task | None = None
) -> Job:
    """Run one job with this handler to its end and return its record."""
    task = Work() if task is None else task
    client.register(type(task), handler)
    [job_id] = await client.add(task).save()
    await journal.ended(job_id)
    job = await client.get(job_id)
    assert job is not None
    return job


async def assert_whole(client: Client, workers: int) -> None:
    """Check that as many jobs as there are workers run at the same time."""
    together = asyncio.Barrier(workers + 1)

    @client.handler(Probe)
    async def probe(task: Probe) -> None:
        await together.wait()

    await client.add(*[Probe() for _ in range(workers)]).save()
    with anyio.fail_after(LIMIT):
        await together.wait()


# -- what a handler raises ---------------------------------------------------------------------------


async def test_a_failed_attempt_is_retried_until_it_succeeds(database: str, journal: Journal) -> None:
    """Attempts count from 1; the record keeps the last error; the log has a short traceback."""
    attempts: list[int] = []

    async def handler(task: Work, job: JobContext) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            raise ValueError("not yet")

    async with Client(database) as client:
        job = await run_one(client, journal, handler)
    assert attempts == [1, 2]
    assert (job.status, job.attempt, job.error) == (JobStatus.SUCCEEDED, 2, "ValueError: not yet")
    [line] = journal.of("job.retried", job.id)
    assert 'raise ValueError("not yet")' in line
    assert "backlite_async/_worker.py" not in line


async def test_a_job_fails_after_its_attempts(database: str, journal: Journal) -> None:
    """The last failed attempt fails the job, with its error and cause."""

    async def handler(task: Work) -> NoReturn:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    async with Client(database) as client:
        job = await run_one(client, journal, handler)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 2)
    assert job.error == "ValueError: outer (from KeyError: 'inner')"
    assert len(journal.of("job.retried")) == 1
    assert len(journal.of("job.failed")) == 1


async def test_backoff_is_waited(database: str, journal: Journal) -> None:
    """A retry is due after the queue's backoff, or after the wait of `Retry`."""

    class Slow(Task):
        config: ClassVar[QueueConfig] = QueueConfig("slow", backoff=timedelta(hours=1))
        retry: bool

    async def handler(task: Slow) -> None:
        raise Retry(after=60) if task.retry else ValueError

    async with Client(database) as client:
        client.register(Slow, handler)
        ids = await client.add(Slow(False), Slow(True)).save()
        await journal.seen("job.retried", count=2)
        jobs = [await client.get(job_id) for job_id in ids]
    waits = [job.due_at - job.created_at for job in jobs if job]
    assert timedelta(hours=1) < waits[0] < timedelta(hours=1, seconds=LIMIT)
    assert timedelta(seconds=60) < waits[1] < timedelta(seconds=60 + LIMIT)
    assert [job.status for job in jobs if job] == [JobStatus.PENDING] * 2


async def test_retry_counts_and_keeps_its_cause(database: str, journal: Journal) -> None:
    """`Retry` is a failed attempt: without attempts left the job has failed."""

    async def handler(task: Work) -> NoReturn:
        raise Retry(after=0) from OSError("the reason")

    async with Client(database) as client:
        job = await run_one(client, journal, handler)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 2)
    assert job.error is not None
    assert "OSError: the reason" in job.error


async def test_snooze_does_not_count(database: str, journal: Journal) -> None:
    """A snoozed job runs again with the same attempt number, and has no error."""
    attempts: list[int] = []

    async def handler(task: Work, job: JobContext) -> None:
        attempts.append(job.attempt)
        if len(attempts) < 5:
            raise Snooze(0)

    async with Client(database) as client:
        job = await run_one(client, journal, handler)
    assert attempts == [1] * 5
    assert (job.status, job.attempt, job.error) == (JobStatus.SUCCEEDED, 1, None)
    assert len(journal.of("job.snoozed")) == 4


async def test_discard_fails_at_once(database: str, journal: Journal) -> None:
    """`Discard` ends the job whatever attempts remain; its reason is the error."""

    async def handler(task: Work) -> NoReturn:
        raise Discard("no such customer")

    async with Client(database) as client:
        job = await run_one(client, journal, handler)
    assert (job.status, job.attempt, job.error) == (JobStatus.FAILED, 1, "no such customer")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


def raising(error: BaseException) -> Callable[[Work], Any]:
    async def handler(task: Work) -> NoReturn:
        raise error

    return handler


def raising_in_thread(error: BaseException) -> Callable[[Work], Any]:
    def handler(task: Work) -> NoReturn:
        raise error

    return handler


async def cancels_itself(task: Work) -> None:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(0)


async def recurses(task: Work) -> None:
    await recurses(task)


def forgets_await(task: Work) -> object:
    return recurses(task)


async def leaves_its_scope_cancelled(task: Work) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await asyncio.sleep(0)
    raise ValueError("after its own scope")


async def fails_in_a_group(task: Work) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(recurses(task))


ZOO: dict[str, tuple[Callable[..., Any], str]] = {
    "SystemExit": (raising(SystemExit(1)), "SystemExit: 1"),
    "CancelledError": (raising(asyncio.CancelledError()), "CancelledError"),
    "StopIteration": (raising(StopIteration()), "RuntimeError: coroutine raised StopIteration"),
    "BaseExceptionGroup": (raising(BaseExceptionGroup("two", [SystemExit(1), KeyError(2)])), "SystemExit: 1"),
    "GeneratorExit": (raising(GeneratorExit()), "GeneratorExit"),
    "MemoryError": (raising(MemoryError()), "MemoryError"),
    "huge": (raising(ValueError("x" * 1_000_000)), "ValueError: xxx"),
    "surrogate and NUL": (raising(ValueError("a\ud800\0b")), r"ValueError: a\ud800\0b"),
    "unprintable": (raising(Unprintable()), "Unprintable: <its message cannot be shown: RuntimeError>"),
    "cancels itself": (cancels_itself, "CancelledError"),
    "recursion": (recurses, "RecursionError"),
    "recursion in a group": (fails_in_a_group, "ExceptionGroup: unhandled errors in a TaskGroup"),
    "own scope": (leaves_its_scope_cancelled, "ValueError: after its own scope"),
    "thread: SystemExit": (raising_in_thread(SystemExit(1)), "SystemExit: 1"),
    "thread: StopIteration": (raising_in_thread(StopIteration(5)), "StopIteration: 5"),
    "thread: KeyboardInterrupt": (raising_in_thread(KeyboardInterrupt()), "KeyboardInterrupt"),
    "forgets await": (forgets_await, "TypeError: the handler returned an awaitable"),
}


@pytest.mark.parametrize("name", ZOO)
async def test_the_pool_survives(database: str, journal: Journal, name: str) -> None:
    """Whatever a handler raises is a failed attempt, and every worker is there afterwards."""
    handler, error = ZOO[name]
    async with Client(database, workers=3) as client:
        job = await run_one(client, journal, handler)
        assert (job.status, job.attempt) == (JobStatus.FAILED, 2)
        assert job.error is not None
        assert error in job.error
        assert len(job.error) <= 16_384
        await assert_whole(client, 3)


async def test_a_defect_of_ours_costs_an_attempt_and_no_worker(
    database: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong before the handler is called takes neither the job nor its worker with it."""
    broken = [ZeroDivisionError("a defect")]

    def breaks_once(kind: TaskType, payload: str) -> Any:
        if broken:
            raise broken.pop()
        return decode(kind, payload)

    monkeypatch.setattr(_worker, "decode", breaks_once)
    async with Client(database, workers=1) as client:
        job = await run_one(client, journal, lambda task: None)
        assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
        assert [error.message for error in job.errors] == ["ZeroDivisionError: a defect"]
        await assert_whole(client, 1)


async def test_a_return_after_cancelling_itself_counts(database: str, journal: Journal) -> None:
    """A cancellation that hits nothing is nobody's: the job succeeded, and no other job suffers."""

    async def handler(task: Work) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()

    async with Client(database, workers=1) as client:
        assert (await run_one(client, journal, handler)).status is JobStatus.SUCCEEDED
        await assert_whole(client, 1)


async def test_orphan_tasks_do_not_hold_the_job(database: str, journal: Journal) -> None:
    """A task that a handler leaves behind is its own business."""
    go_on, orphans = asyncio.Event(), []

    async def handler(task: Work) -> None:
        orphans.append(asyncio.create_task(go_on.wait()))

    async with Client(database, workers=1) as client:
        assert (await run_one(client, journal, handler)).status is JobStatus.SUCCEEDED
        await assert_whole(client, 1)
        go_on.set()
        await orphans[0]


async def test_context_variables_do_not_leak_from_job_to_job(database: str, journal: Journal) -> None:
    """Each job begins with the context in which the client was started."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def handler(task: Work) -> None:
        seen.append(variable.get())
        variable.set(task.what)

    variable.set("from the application")
    async with Client(database, workers=1) as client:
        client.register(Work, handler)
        await journal.ended(*await client.add(Work("a"), Work("b")).save())
    assert seen == ["from the application"] * 2


# -- timeouts ----------------------------------------------------------------------------------------


async def test_a_timeout_fails_the_attempt(database: str, journal: Journal) -> None:
    """The handler is cancelled at its deadline, which it can see, and the attempt has failed."""
    deadlines = []

    async def handler(task: Quick, job: JobContext) -> None:
        deadlines.append(job.deadline)
        await asyncio.Event().wait()

    async with Client(database) as client:
        job = await run_one(client, journal, handler, Quick())
    assert job.status is JobStatus.FAILED
    assert job.error == "TimeoutError: the handler ran longer than its timeout of 0.05 s"
    assert job.started_at is not None
    assert deadlines[0] is not None
    assert timedelta(0) <= deadlines[0] - job.started_at <= timedelta(seconds=1)
    assert job.duration is not None
    assert job.duration >= timedelta(seconds=0.049)


async def test_a_timeout_error_of_its_own_is_an_ordinary_failure(database: str, journal: Journal) -> None:
    """A handler's TimeoutError is not taken for the queue's timeout."""
    async with Client(database) as client:
        job = await run_one(client, journal, raising(TimeoutError("theirs")))
    assert job.error == "TimeoutError: theirs"


async def test_a_return_after_the_timeout_counts(database: str, journal: Journal) -> None:
    """A handler that swallows its cancellation and returns has succeeded; it is logged as late."""

    async def handler(task: Quick) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    async with Client(database) as client:
        job = await run_one(client, journal, handler, Quick())
    assert job.status is JobStatus.SUCCEEDED
    assert len(journal.of("job.late", job.id)) == 1


async def test_an_error_after_the_timeout_names_both(database: str, journal: Journal) -> None:
    """What a handler raises instead of its cancellation is the error, with a hint at the timeout."""

    async def handler(task: Quick) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("while cleaning up") from None

    async with Client(database) as client:
        job = await run_one(client, journal, handler, Quick())
    assert job.error == "ValueError: while cleaning up (after its timeout of 0.05 s)"


async def test_a_thread_is_waited_for_beyond_its_timeout(
    database: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be cancelled: its job runs until it ends, and what it returns counts."""
    monkeypatch.setattr("backlite_async._worker.UNRESPONSIVE_AFTER", 0.01)
    ends = threading.Event()

    def handler(task: Quick) -> None:
        assert ends.wait(LIMIT)

    async with Client(database, workers=1) as client:
        client.register(Quick, handler)
        [job_id] = await client.add(Quick()).save()
        await journal.seen("job.unresponsive", job_id)
        assert await client.status(job_id) is JobStatus.RUNNING
        ends.set()
        await journal.ended(job_id)
        assert await client.status(job_id) is JobStatus.SUCCEEDED
        assert len(journal.of("job.late")) == 1


async def test_a_handler_that_will_not_end_is_logged_once(
    database: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its place and its claim, is named once, and never runs a second time beside itself."""
    monkeypatch.setattr("backlite_async._worker.UNRESPONSIVE_AFTER", 0.01)
    release, runs = asyncio.Event(), []

    async def handler(task: Quick) -> None:
        runs.append(task)
        while not release.is_set():
            with anyio.CancelScope(shield=True):
                await release.wait()

    async with Client(database, workers=2, lease=0.3) as client:
        client.register(Quick, handler)
        [job_id] = await client.add(Quick()).save()
        await journal.seen("job.unresponsive", job_id)
        assert await client.status(job_id) is JobStatus.RUNNING
        await assert_whole(client, 1)
        release.set()
        await journal.ended(job_id)
    assert len(runs) == 1
    assert len(journal.of("job.unresponsive")) == 1


# -- limits ------------------------------------------------------------------------------------------


async def test_no_more_than_workers_run_at_once(database: str, journal: Journal) -> None:
    """The pool is bounded, and used to the full."""
    running = most = 0
    together = asyncio.Barrier(4)

    async def handler(task: Work) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await together.wait()
        running -= 1

    async with Client(database, workers=4) as client:
        client.register(Work, handler)
        await journal.ended(*await client.add(*[Work() for _ in range(20)]).save())
    assert most == 4


async def test_threads_have_a_limit_of_their_own(database: str, journal: Journal) -> None:
    """`def` handlers fill their threads only; coroutines go on beside them."""
    running = most = 0
    lock, pair, ends = threading.Lock(), threading.Barrier(2), threading.Event()

    def handler(task: Work) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        pair.wait(LIMIT)
        assert ends.wait(LIMIT)
        with lock:
            running -= 1

    async with Client(database, workers=5, threads=2) as client:
        client.register(Work, handler)
        ids = await client.add(*[Work() for _ in range(6)]).save()
        await journal.seen("job.started", count=2)
        await assert_whole(client, 3)
        assert len([job_id for job_id in ids if await client.status(job_id) is JobStatus.RUNNING]) == 2
        ends.set()
        await journal.ended(*ids)
    assert most == 2


# -- what is in the table ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"\xff\xfe", b'{"what": 3}', b"[" * 100_000, b'{"what": NaN}', b"null", b"\0"]
)
async def test_a_payload_that_does_not_decode_fails_at_once(
    file: str, journal: Journal, payload: bytes
) -> None:
    """It has failed with the reason, without retries, and the others go on."""
    ran: list[str] = []
    async with Client(file, workers=0) as client:
        bad, good = await client.add(Work("bad"), Work("good")).save()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE backlite_jobs SET payload = ? WHERE id = ?", (payload, bad))
    connection.close()
    async with Client(file) as client:
        client.register(Work, lambda task: ran.append(task.what))
        await journal.ended(bad, good)
        job = await client.get(bad)
    assert ran == ["good"]
    assert job is not None
    assert (job.status, job.attempt) == (JobStatus.FAILED, 1)
    assert job.error is not None
    assert job.error.startswith("task Work: does not decode")


async def test_attempts_are_bounded_at_the_claim(file: str, journal: Journal) -> None:
    """A job whose attempts are used up is not run once more."""
    ran: list[str] = []
    async with Client(file, workers=0) as client:
        [job_id] = await client.add(Work()).save()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE backlite_jobs SET attempt = 2")
    connection.close()
    async with Client(file) as client:
        client.register(Work, lambda task: ran.append(task.what))
        await journal.ended(job_id)
        job = await client.get(job_id)
    assert ran == []
    assert job is not None
    assert (job.status, job.error) == (JobStatus.FAILED, "no attempts left of 2")


async def test_an_old_name_still_finds_its_handler(file: str, journal: Journal) -> None:
    """A renamed task type runs jobs that were added under its aliases."""

    class Renamed(Task):
        config: ClassVar[QueueConfig] = Work.config
        aliases: ClassVar[tuple[str, ...]] = ("Work",)
        what: str = ""

    ran: list[Renamed] = []
    async with Client(file, workers=0) as client:
        ids = await client.add(Work("old")).save()
    async with Client(file) as client:
        client.register(Renamed, ran.append)
        await journal.ended(*ids)
    assert ran == [Renamed("old")]


async def test_backoff_default_grows() -> None:
    """The default configuration is three attempts with a growing backoff."""
    config = QueueConfig("q")
    assert (config.max_attempts, config.max_crashes, config.timeout, config.retention) == (3, 3, None, None)
    assert config.backoff == Backoff(base=1.0, factor=2.0, cap=3600.0, jitter=0.1)
