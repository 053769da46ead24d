"""Leases: held as long as the work takes, and ended by a crash alone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable
from typing import ClassVar

import anyio
import pytest

from backlite_async import Client, JobStatus, QueueConfig, Retention, SystemClock, Task
from backlite_async._leases import LeaseKeeper
from backlite_async.stores import MemoryStore
from backlite_async.stores.sqlite.store import SQLiteStore

from .conftest import LIMIT, Journal
from .simulation.loop import SimLoop, run


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())


class Renewals:
    """Counts renewals, and lets a thread or a task wait for some more."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    def add(self) -> None:
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def wait(self, more: int) -> None:
        with self._condition:
            until = self._count + more
            assert self._condition.wait_for(lambda: self._count >= until, LIMIT)


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> Renewals:
    found = Renewals()
    renew: Callable[..., set[str]] = SQLiteStore.renew

    def counted(self: SQLiteStore, claims: Iterable[tuple[str, int]], *, until: int) -> set[str]:
        try:
            return renew(self, claims, until=until)
        finally:
            found.add()

    monkeypatch.setattr(SQLiteStore, "renew", counted)
    return found


class Renewed(MemoryStore):
    """Notes when claims are renewed."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def renew(self, claims: Iterable[tuple[str, int]], *, until: int) -> set[str]:
        assert list(claims) == [("a", 7)]
        self.times.append(asyncio.get_running_loop().time())
        return set()


def test_renewals_leave_room_for_two_that_fail() -> None:
    """Held claims are renewed three times in the length of a lease, others not at all."""

    async def hold() -> None:
        keeper = LeaseKeeper(store, SystemClock(), lease=30.0, in_thread=lambda job_id: False)
        began = asyncio.get_running_loop().time()
        keeper.hold("a", 7)
        assert [claim in keeper for claim in (("a", 7), ("a", 6), ("a", 8), ("b", 7))] == [True] + [False] * 3
        keeper.drop("a", 6)
        await asyncio.sleep(95)
        assert [round(at - began) for at in store.times] == [*range(10, 100, 10)]
        keeper.drop("a", 7)
        await asyncio.sleep(60)
        assert len(store.times) == 9
        await keeper.stop()

    store = Renewed()
    run(SimLoop(0), hold())


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_job_longer_than_its_lease_runs_once(
    file: str, journal: Journal, renewals: Renewals, blocking: bool
) -> None:
    """Renewed while its handler waits, or blocks the event loop, a claim is never taken by another."""
    runs: list[str] = []

    async def work(task: Work) -> None:
        runs.append("run")
        if blocking:
            renewals.wait(12)  # the loop stands still for four leases
        else:
            await anyio.to_thread.run_sync(renewals.wait, 12)

    def in_another_thread(ready: threading.Event, stop: threading.Event) -> None:
        async def other() -> None:
            async with Client(file, lease=0.3) as client:
                client.register(Work, work)
                ready.set()
                await asyncio.to_thread(stop.wait, LIMIT)

        asyncio.run(other())

    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=in_another_thread, args=(ready, stop))
    async with Client(file, lease=0.3) as client:
        client.register(Work, work)
        [job_id] = await client.add(Work()).save()
        await journal.seen("job.started", job_id)
        thread.start()
        assert ready.wait(LIMIT)
        await journal.ended(job_id)
        stop.set()
        await anyio.to_thread.run_sync(thread.join)
    assert runs == ["run"]
    assert not journal.of("job.crashed")


def abandon(file: str, job_id: str, *, crashes: int = 0) -> None:
    """Leave a job as a process does that died while it ran, with a lease that ended long ago."""
    with sqlite3.connect(file) as connection:
        connection.execute(
            "UPDATE backlite_jobs SET status = 'running', owner = 'dead', fence = 1, attempt = 1,"
            " crashes = ?, due_at = 1 WHERE id = ?",
            (crashes, job_id),
        )
        connection.execute("UPDATE backlite_fence SET value = 1")
    connection.close()


async def test_an_ended_lease_is_a_crash_not_an_attempt(file: str, journal: Journal) -> None:
    """The job runs again at once, with the attempt given back and the crash counted and recorded."""
    attempts: list[tuple[int, int]] = []
    async with Client(file, workers=0) as client:
        [job_id] = await client.add(Work()).save()
    abandon(file, job_id)
    async with Client(file) as client:
        client.register(Work, lambda task, job: attempts.append((job.attempt, job.fence)))
        await journal.ended(job_id)
        job = await client.get(job_id)
    assert attempts == [(1, 2)]
    assert job is not None
    assert (job.status, job.attempt, job.crashes) == (JobStatus.SUCCEEDED, 1, 1)
    assert job.error == "process died (crash 1 of at most 3)"
    assert len(journal.of("job.crashed", job_id)) == 1


async def test_crashes_have_a_limit(file: str, journal: Journal) -> None:
    """At `max_crashes` the job has failed, and is not run again."""
    ran: list[Work] = []
    async with Client(file, workers=0) as client:
        [job_id] = await client.add(Work()).save()
    abandon(file, job_id, crashes=2)
    async with Client(file) as client:
        client.register(Work, ran.append)
        await journal.ended(job_id)
        job = await client.get(job_id)
    assert ran == []
    assert job is not None
    assert (job.status, job.crashes, job.error) == (
        JobStatus.FAILED,
        3,
        "process died 3 times while the job ran",
    )


async def test_a_claim_without_a_handler_here_is_left_alone(file: str, journal: Journal) -> None:
    """Where nobody could run the job, an ended lease is not touched."""
    async with Client(file, workers=0) as client:
        [job_id] = await client.add(Work()).save()
    abandon(file, job_id)

    class Else(Task):
        config: ClassVar[QueueConfig] = QueueConfig("else")

    async with Client(file) as client:
        client.register(Else, lambda task: None)
        await journal.ended(*await client.add(Else()).save())
        job = await client.get(job_id)
    assert job is not None
    assert (job.status, job.owner, job.crashes) == (JobStatus.RUNNING, "dead", 0)


async def test_a_stale_outcome_changes_nothing(file: str, journal: Journal) -> None:
    """An outcome whose claim is another's is dropped, and logged as a lost lease."""
    go_on = asyncio.Event()

    async def work(task: Work) -> None:
        await go_on.wait()

    async with Client(file) as client:
        client.register(Work, work)
        [job_id] = await client.add(Work()).save()
        await journal.seen("job.started", job_id)
        connection = sqlite3.connect(file)
        connection.execute("UPDATE backlite_jobs SET fence = 99, owner = 'thief'")
        connection.commit()
        go_on.set()
        [line] = await journal.seen("job.lease_lost", job_id)
        assert "claim 1 has lost its lease" in line
        job = await client.get(job_id)
        connection.close()
    assert job is not None
    assert (job.status, job.fence, job.owner) == (JobStatus.RUNNING, 99, "thief")
    assert not journal.of("job.succeeded")


async def test_a_clock_that_steps_does_not_take_jobs_from_their_process(file: str, journal: Journal) -> None:
    """Two clients of one process: with the wall clock an hour ahead, none takes what the other runs."""

    class Stepping(SystemClock):
        ahead = 0

        def now(self) -> int:
            return super().now() + Stepping.ahead

    runs: list[str] = []
    go_on = asyncio.Event()

    async def work(task: Work) -> None:
        runs.append("run")
        await go_on.wait()

    async with Client(file, clock=Stepping()) as first, Client(file, clock=Stepping()) as second:
        first.register(Work, work)
        [job_id] = await first.add(Work()).save()
        await journal.seen("job.started", job_id)
        second.register(Work, work)

        class Probe(Task):
            config: ClassVar[QueueConfig] = QueueConfig("probe", retention=Retention())

        second.register(Probe, lambda task: None)
        Stepping.ahead = 3_600_000
        await journal.ended(*await second.add(Probe()).save())
        await journal.ended(*await second.add(Probe()).save())
        go_on.set()
        await journal.ended(job_id)
    assert runs == ["run"]
    assert not journal.of("job.crashed")
