"""Trouble with the database: it delays work, is logged once, and heals by itself."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from backlite_async import (
    Client,
    DatabaseBusy,
    DatabaseUnavailable,
    DatabaseUnusable,
    JobStatus,
    QueueConfig,
    Retention,
    Task,
)
from backlite_async._job import Outcome
from backlite_async.stores import MemoryStore

from .conftest import Journal


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())
    number: int = 0


async def test_a_lock_of_another_process_delays_and_heals(file: str, journal: Journal) -> None:
    """`save` says what keeps the database locked; an outcome waits, and is written afterwards."""
    go_on = asyncio.Event()
    async with Client(file, busy_timeout=0.2) as client:

        @client.handler(Work)
        async def work(task: Work) -> None:
            await go_on.wait()

        [job_id] = await client.add(Work()).save()
        await journal.seen("job.started", job_id)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        go_on.set()
        await journal.seen("store.failing")
        operation = client.add(Work())
        with pytest.raises(DatabaseBusy, match="stayed locked beyond the busy timeout"):
            await operation.save()
        assert await client.status(job_id) is JobStatus.RUNNING
        other.execute("ROLLBACK")
        other.close()
        await journal.ended(job_id)
        assert journal.of("store.recovered")
        await journal.ended(*await operation.save())
    assert len(journal.of("store.failing")) == len(journal.of("store.recovered")) == 1


async def test_stop_gives_up_what_cannot_be_written(
    file: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the database locked, `stop` ends at its limit and says False; the job runs again later."""
    monkeypatch.setattr("backlite_async._dispatcher.WRITE_GRACE", 0.1)
    go_on = asyncio.Event()
    client = Client(file, lease=0.3)

    @client.handler(Work)
    async def work(task: Work) -> None:
        await go_on.wait()

    await client.start()
    [job_id] = await client.add(Work()).save()
    await journal.seen("job.started", job_id)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    go_on.set()
    assert await client.stop(0.1) is False
    other.execute("ROLLBACK")
    other.close()
    async with client:
        await journal.ended(job_id)
        assert await client.status(job_id) is JobStatus.SUCCEEDED
    assert len(journal.of("job.crashed", job_id)) == 1


class Refusing(MemoryStore):
    """Refuses outcomes of some jobs for good, and everything for a while."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.error, self.times = error, times

    async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        if self.times > 0:
            self.times -= 1
            raise self.error
        return await super().finish(outcomes)

    async def claim(self, *args: Any, **kwargs: Any) -> Any:
        if self.times > 0 and isinstance(self.error, OSError):
            self.times -= 1
            raise self.error
        return await super().claim(*args, **kwargs)


async def test_an_outcome_is_tried_until_it_is_written(journal: Journal) -> None:
    """A failing disk is logged once, however often the write is tried."""
    store = Refusing(DatabaseUnavailable("disk full"), 4)
    async with Client(store) as client:
        client.register(Work, lambda task: None)
        await journal.ended(*await client.add(Work()).save())
    assert store.times == 0
    assert len(journal.of("store.failing")) == 1
    assert len(journal.of("store.recovered")) == 1


async def test_an_outcome_that_is_refused_fails_its_job_alone(journal: Journal) -> None:
    """Of several outcomes the one that the database refuses fails; the others are written."""

    class RefusingOne(MemoryStore):
        async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
            if any(outcome.error == "ValueError: refused" for outcome in outcomes):
                raise DatabaseUnusable("memory", "does not like it")
            return await super().finish(outcomes)

    class Once(Task):
        config: ClassVar[QueueConfig] = QueueConfig("once", max_attempts=1, retention=Retention())
        number: int

    together = asyncio.Barrier(3)

    async def once(task: Once) -> None:
        await together.wait()
        if task.number == 1:
            raise ValueError("refused")

    async with Client(RefusingOne()) as client:
        client.register(Once, once)
        ids = await client.add(Once(0), Once(1), Once(2)).save()
        await journal.ended(*ids)
        jobs = [await client.get(job_id) for job_id in ids]
    assert [job.status for job in jobs if job] == ["succeeded", "failed", "succeeded"]
    assert jobs[1] is not None
    assert jobs[1].error is not None
    assert "could not be stored: DatabaseUnusable" in jobs[1].error
    assert len(journal.of("job.unwritable")) == 1


async def test_the_dispatcher_outlives_any_error_of_a_claim(journal: Journal) -> None:
    """Even an error that no store should raise only delays the claim."""
    async with Client(Refusing(OSError("out of files"), 3)) as client:
        client.register(Work, lambda task: None)
        await journal.ended(*await client.add(Work()).save())
    assert len(journal.of("store.failing")) == 1


async def test_expired_jobs_are_removed_when_they_expire(database: str, journal: Journal) -> None:
    """Completed jobs are gone once their retention has ended, without anything else happening."""

    class Brief(Task):
        config: ClassVar[QueueConfig] = QueueConfig("brief", retention=Retention(duration=0.05))

    async with Client(database) as client:
        client.register(Brief, lambda task: None)
        ids = await client.add(*[Brief() for _ in range(5)]).save()
        await journal.ended(*ids)
        while await client.open_store().next_expiry() is not None:
            await journal.seen("jobs.expired", count=len(journal.of("jobs.expired")) + 1)
        assert [await client.status(job_id) for job_id in ids] == [JobStatus.NOT_FOUND] * 5


async def test_retention_decides_what_is_kept(database: str, journal: Journal) -> None:
    """Nothing without retention; failed ones only; payloads as configured."""

    class Nothing(Task):
        config: ClassVar[QueueConfig] = QueueConfig("nothing", max_attempts=1)
        fail: bool

    class Failed(Task):
        config: ClassVar[QueueConfig] = QueueConfig(
            "failed", max_attempts=1, retention=Retention(only_failed=True, payload="failed")
        )
        fail: bool

    class Each(Task):
        config: ClassVar[QueueConfig] = QueueConfig(
            "each", max_attempts=1, retention=Retention(duration=3600, payload="failed")
        )
        fail: bool

    async def handler(task: Nothing | Failed | Each) -> None:
        if task.fail:
            raise ValueError

    async with Client(database) as client:
        tasks = [kind(fail) for kind in (Nothing, Failed, Each) for fail in (False, True)]
        for kind in (Nothing, Failed, Each):
            client.register(kind, handler)
        ids = await client.add(*tasks).save()
        await journal.ended(*ids)
        jobs = [await client.get(job_id) for job_id in ids]
    kept = [None if job is None else (str(job.status), job.payload) for job in jobs]
    assert kept == [
        None,
        None,
        None,
        ("failed", b'{"fail":true}'),
        ("succeeded", None),
        ("failed", b'{"fail":true}'),
    ]
    assert [job.expires_at is not None for job in jobs[3:] if job] == [False, True, True]
