"""Stopping: graceful, hard, with handlers that will not end; and never a lie about it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from backlite_async import (
    Client,
    DatabaseBusy,
    Discard,
    InvalidState,
    JobContext,
    JobStatus,
    QueueConfig,
    Retention,
    Retry,
    Snooze,
    Task,
)
from backlite_async._job import Claim
from backlite_async._outcome import Steer
from backlite_async.stores import MemoryStore

from .conftest import LIMIT, Journal
from .torture.pulse import Pulse


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=1, timeout=60, retention=Retention())
    number: int = 0


async def started(client: Client, journal: Journal) -> str:
    """Add one job and wait until it runs."""
    [job_id] = await client.add(Work()).save()
    await journal.seen("job.started", job_id)
    return job_id


async def test_running_jobs_end_and_waiting_ones_stay(file: str, journal: Journal) -> None:
    """A graceful stop lets handlers end, starts nothing more, and writes every outcome."""
    go_on = asyncio.Event()
    client = Client(file, workers=2)

    @client.handler(Work)
    async def work(task: Work) -> None:
        await go_on.wait()

    await client.start()
    ids = await client.add(*[Work() for _ in range(5)]).save()
    await journal.seen("job.started", count=2)
    stopping = asyncio.ensure_future(client.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    go_on.set()
    assert await stopping
    async with Client(file, workers=0) as after:
        states = [await after.status(job_id) for job_id in ids]
        jobs = [await after.get(job_id) for job_id in ids]
    assert states == [JobStatus.SUCCEEDED] * 2 + [JobStatus.PENDING] * 3
    assert [job.attempt for job in jobs if job] == [1, 1, 0, 0, 0]
    assert len(journal.of("job.started")) == 2


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_handlers_that_are_cut_short_go_back_uncounted(
    file: str, journal: Journal, tmp_path: Path, timeout: float
) -> None:
    """At the limit handlers are cancelled; their jobs are pending and due, the attempt not counted."""
    cancelled = []
    client = Client(file)

    @client.handler(Work)
    async def work(task: Work) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(task)
            raise

    await client.start()
    job_id = await started(client, journal)
    with Pulse(tmp_path) as pulse:
        began = time.monotonic()
        assert await client.stop(timeout) is False
        assert pulse.beats().charged(began + timeout, time.monotonic()) < 1.0
    assert len(cancelled) == 1
    async with Client(file, workers=0) as after:
        job = await after.get(job_id)
    assert job is not None
    assert (job.status, job.attempt, job.crashes, job.error) == (JobStatus.PENDING, 0, 0, None)
    assert job.due_at == job.created_at
    again = Client(file)
    again.register(Work, lambda task: None)
    async with again:
        await journal.ended(job_id)


async def test_a_handler_may_still_say_what_it_wants(database: str, journal: Journal) -> None:
    """Cancelled by a stop, a handler may return, snooze, be tried again or be done with; it is done so."""
    client = Client(database)
    wishes: list[Steer | None] = [None, Snooze(3600), Retry(3600), Discard("enough")]

    @client.handler(Work)
    async def work(task: Work) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if wish := wishes[task.number]:
                raise wish from None

    await client.start()
    ids = await client.add(*map(Work, range(4))).max_attempts(2).save()
    await journal.seen("job.started", count=4)
    assert await client.stop(0) is False
    said = ["job.succeeded", "job.snoozed", "job.retried", "job.failed"]
    assert [len(journal.of(*told)) for told in zip(said, ids, strict=True)] == [1] * 4


async def test_async_with_stops_within_its_timeout(database: str, journal: Journal) -> None:
    """`stop_timeout` bounds the end of the block."""
    with anyio.fail_after(LIMIT):
        async with Client(database, stop_timeout=0.05) as client:
            client.register(Work, lambda_that_waits)
            await started(client, journal)
    assert journal.lines[-1].endswith("clean=False")


async def lambda_that_waits(task: Work) -> None:
    await asyncio.Event().wait()


async def test_stop_from_several_tasks(database: str, journal: Journal) -> None:
    """All callers get the answer; the earliest limit counts."""
    client = Client(database)
    client.register(Work, lambda_that_waits)
    await client.start()
    await started(client, journal)
    patient = asyncio.ensure_future(client.stop())
    await asyncio.sleep(0)
    with anyio.fail_after(LIMIT):
        assert await client.stop(0) is False
        assert await patient is False


async def test_a_cancelled_stop_goes_on(file: str, journal: Journal) -> None:
    """Whoever waits for the stop may be cancelled; the client stops all the same."""
    go_on = asyncio.Event()
    client = Client(file)

    @client.handler(Work)
    async def work(task: Work) -> None:
        await go_on.wait()

    await client.start()
    job_id = await started(client, journal)
    with anyio.move_on_after(0.01):
        await client.stop()
    go_on.set()
    with anyio.fail_after(LIMIT):
        assert await client.stop()
    assert journal.of("job.succeeded", job_id)
    await client.start()
    assert await client.stop()


async def test_a_handler_cannot_stop_its_own_client(database: str, journal: Journal) -> None:
    """It would wait for itself: an error that says so, at once."""
    async with Client(database) as client:

        @client.handler(Work)
        async def work(task: Work, job: JobContext) -> None:
            await job.client.stop()

        [job_id] = await client.add(Work()).save()
        await journal.ended(job_id)
        job = await client.get(job_id)
    assert job is not None
    assert job.error is not None
    assert job.error.startswith(InvalidState.__name__)


async def test_nothing_is_left_running(file: str, journal: Journal) -> None:
    """After a stop there is no task and no thread of the client."""
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    for _ in range(3):
        client = Client(file)
        client.register(Work, lambda_that_waits)
        await client.start()
        await client.add(Work()).save()
        await client.stop(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == tasks
        assert threading.active_count() == threads


async def test_stop_during_a_claim_gives_the_jobs_back(file: str, journal: Journal) -> None:
    """Stopped at any moment after an add, a job is either run to its end or as if never claimed."""
    ran: list[int] = []
    for steps in range(0, 60, 3):
        client = Client(file)
        client.register(Work, lambda task: ran.append(task.number))
        await client.start()
        [job_id] = await client.add(Work(steps)).save()
        for _ in range(steps):
            await asyncio.sleep(0)
        assert await client.stop()
        async with Client(file, workers=0) as after:
            job = await after.get(job_id)
        assert job is not None
        assert (job.status is JobStatus.SUCCEEDED) == (steps in ran)
        if steps not in ran:
            assert (job.status, job.attempt) == (JobStatus.PENDING, 0)
        with sqlite3.connect(file) as connection:
            connection.execute("DELETE FROM backlite_jobs")
        connection.close()


@pytest.mark.parametrize("workers", [0, 2])
async def test_a_locked_database_does_not_hold_up_the_stop(
    file: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An add that waits for a lock of another process is told that it failed, and the stop ends in time."""
    for module in ("_client", "_dispatcher"):
        monkeypatch.setattr(f"backlite_async.{module}.WRITE_GRACE", 0.2)
    client = Client(file, workers=workers, busy_timeout=60)
    await client.start()
    await client.add(Work()).save()  # which declares the queue
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        adding = asyncio.ensure_future(client.add(Work()).save())
        await asyncio.sleep(0)
        with anyio.fail_after(LIMIT):
            await client.stop(0)
            with pytest.raises(DatabaseBusy):
                await adding


async def test_what_a_claim_brings_after_the_stop_is_given_back(journal: Journal) -> None:
    """A claim that was on its way when the stop was asked for starts nothing."""
    claimed, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def claim(self, *args: Any, **kwargs: Any) -> Claim:
            claim = await super().claim(*args, **kwargs)
            if claim.jobs:
                claimed.set()
                await go_on.wait()
            return claim

    client = Client(Slow())
    client.register(Work, lambda_that_waits)
    await client.start()
    [job_id] = await client.add(Work()).save()
    with anyio.fail_after(LIMIT):
        await claimed.wait()
    stopping = asyncio.ensure_future(client.stop())
    await asyncio.sleep(0)
    go_on.set()
    assert await stopping
    assert len(journal.of("job.given_back", job_id)) == 1
    assert not journal.of("job.started")


async def test_a_handler_that_will_not_end_keeps_its_claim(file: str, journal: Journal) -> None:
    """`stop` returns in time with False; the job is nobody else's while the handler lives.

    When it ends after all, its outcome is recorded, and the database is closed.
    """
    release, runs = asyncio.Event(), []

    async def work(task: Work) -> None:
        runs.append(task)
        while not release.is_set():
            with anyio.CancelScope(shield=True):
                await release.wait()

    client = Client(file, lease=0.3)
    client.register(Work, work)
    await client.start()
    job_id = await started(client, journal)
    with anyio.fail_after(LIMIT):
        assert await client.stop(0) is False
    assert journal.of("job.unresponsive", job_id)
    renewed = renewals(file, job_id)
    async with Client(file, lease=0.3) as other:
        other.register(Work, work)
        with anyio.fail_after(LIMIT):
            await anyio.to_thread.run_sync(next, renewed)
            await anyio.to_thread.run_sync(next, renewed)
        assert await other.status(job_id) is JobStatus.RUNNING
        release.set()
        with anyio.fail_after(LIMIT):
            await anyio.to_thread.run_sync(next, renewed, "gone")
        assert await other.status(job_id) is JobStatus.SUCCEEDED
    assert len(runs) == 1


def renewals(file: str, job_id: str):  # type: ignore[no-untyped-def]
    """Yield each time that the lease of a running job was extended; end when it no longer runs."""
    last = None
    while True:
        connection = sqlite3.connect(file)
        row = connection.execute(
            "SELECT due_at FROM backlite_jobs WHERE id = ? AND status = 'running'", (job_id,)
        ).fetchone()
        connection.close()
        if row is None:
            return
        if last is not None and row[0] > last:
            yield row[0]
        last = row[0]


class Unrenewed(MemoryStore):
    """Lets leases end, as a database does that cannot be written for long."""

    def renew(self, claims: Iterable[tuple[str, int]], *, until: int) -> set[str]:
        return set()


@pytest.mark.parametrize("renewed", [True, False])
async def test_the_same_client_starts_again_beside_a_handler_that_will_not_end(
    file: str, journal: Journal, renewed: bool
) -> None:
    """After a restart the job is not run a second time beside itself, whatever becomes of its lease."""
    release, runs = asyncio.Event(), []

    async def work(task: Work) -> None:
        runs.append(task)
        while not release.is_set():
            with anyio.CancelScope(shield=True):
                await release.wait()

    client = Client(file if renewed else Unrenewed(), lease=0.1)
    client.register(Work, work)
    await client.start()
    await started(client, journal)
    assert await client.stop(0) is False
    async with client:
        [second] = await client.add(Work(2)).wait(0.3).save()  # when the lease would have ended
        await journal.seen("job.started", second)
        release.set()
        await journal.ended(second)
    assert [task.number for task in runs] == [0, 2]
