"""Waiting for jobs: whoever waits is woken as soon as a job has ended, wherever that was, without polling."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from backlite_async import (
    Client,
    DatabaseUnavailable,
    Discard,
    InvalidState,
    InvalidType,
    InvalidValue,
    Job,
    JobContext,
    JobNotFound,
    JobStatus,
    QueueConfig,
    Retention,
    Task,
    _waits,
)
from backlite_async._query import Delete, Rerun
from backlite_async.stores import MemoryStore, Store

from .conftest import LIMIT, Journal
from .test_processes import Script


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=1, retention=Retention(payload="always"))
    number: int = 0


class Gone(Task):
    config: ClassVar[QueueConfig] = QueueConfig("gone", max_attempts=1)
    number: int = 0


class Gate:
    """A client whose handlers end when they are told to."""

    def __init__(self, database: str | Store, **options: Any) -> None:
        self.client = Client(database, stop_timeout=1.0, **options)
        self.open = asyncio.Event()
        self.client.register(Work, self._work)
        self.client.register(Gone, self._gone)

    async def _work(self, task: Work) -> None:
        await self._end(task.number)

    async def _gone(self, task: Gone) -> None:
        await self._end(task.number)

    async def _end(self, number: int) -> None:
        await self.open.wait()
        if number == 13:
            raise Discard("unlucky")


class Spy:
    """Counts the calls of a store that waiting makes; `fail`: errors that the next ones raise."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, list[list[str]]] = {}
        self.fail: dict[str, list[Exception]] = {}
        store = client.open_store()
        for name in ("watch", "unwatch", "which_ended"):
            self.calls[name] = []
            self.fail[name] = []
            monkeypatch.setattr(store, name, self._spy(name, getattr(store, name)))

    def _spy(self, name: str, method: Any) -> Any:
        async def call(job_ids: Sequence[str], **options: Any) -> Any:
            self.calls[name].append(list(job_ids))
            if self.fail[name]:
                raise self.fail[name].pop(0)
            return await method(job_ids, **options)

        return call


async def watched(client: Client, *job_ids: str) -> None:
    """Wait until these jobs, and no others, are watched in the store, and nothing is left to do."""
    waits = client.waits
    with anyio.fail_after(LIMIT):
        while waits._stored != dict.fromkeys(job_ids, True) or not waits._wake._waiters:
            await asyncio.sleep(0)


def rows(file: str) -> list[tuple[str]]:
    connection = sqlite3.connect(file)
    try:
        return connection.execute("SELECT job_id FROM backlite_watches").fetchall()
    finally:
        connection.close()


async def soon(*futures: asyncio.Future[Job]) -> list[Job]:
    with anyio.fail_after(LIMIT):
        return list(await asyncio.gather(*futures))


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Work, Gone])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_wait_ends_with_its_job(database: str, kind: type[Work | Gone], elsewhere: bool) -> None:
    """However a job ends, and wherever, also where its queue keeps nothing; then nobody watches any more."""
    store: str | Store = MemoryStore() if database == ":memory:" else database
    gate, other = Gate(store), Client(store, workers=0)
    async with gate.client, other:
        waiter = other if elsewhere else gate.client
        good, bad, later = await gate.client.add(kind(), kind(13)).save() + (
            await gate.client.add(kind()).wait(1000).save()
        )
        waits = [asyncio.ensure_future(waiter.wait(job_id)) for job_id in (good, bad, later)]
        await watched(waiter, good, bad, later)
        gate.open.set()
        await gate.client.cancel(later)
        jobs = await soon(*waits)
        await watched(waiter)
    assert [job.status for job in jobs] == [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED]
    assert [job.id for job in jobs] == [good, bad, later]
    assert jobs[1].error == "unlucky"
    if kind is Gone:
        assert [job.payload for job in jobs] == [None] * 3
        assert all(job.expires_at is not None for job in jobs)


async def test_who_comes_late(database: str, journal: Journal) -> None:
    """A job that is kept is returned at once, without a watch; one that is not is an error that says so."""
    gate = Gate(database)
    gate.open.set()
    async with gate.client as client:
        [kept] = await client.add(Work()).save()
        [gone] = await client.add(Gone()).save()
        await journal.ended(kept, gone)
        assert (await client.wait(kept, timeout=0)).status is JobStatus.SUCCEEDED
        for job_id in (gone, "never was"):
            with pytest.raises(
                JobNotFound, match=f"job {job_id}: there is no such job or workflow, or it has ended and"
            ) as caught:
                await client.wait(job_id)
            assert isinstance(caught.value, LookupError)
        assert not client.waits._stored


async def test_a_second_process(tmp_path: Path) -> None:
    """A job that another process runs wakes who waits here."""
    script = Script(
        tmp_path,
        """
        class Gone(Task):
            config: ClassVar[QueueConfig] = QueueConfig("gone", max_attempts=1)
            number: int = 0

        told = asyncio.Event()

        @client.handler(Gone)
        async def gone(task: Gone) -> None:
            print("started", flush=True)
            await told.wait()

        async def main():
            await client.start()
            await asyncio.to_thread(sys.stdin.readline)
            told.set()
            await asyncio.to_thread(sys.stdin.readline)
            await client.stop()
        asyncio.run(main())
        """,
        stdin=True,
    )
    async with Client(script.file, workers=0) as client:
        [job_id] = await client.add(Gone()).save()
        assert await script.line() == "started"
        wait = asyncio.ensure_future(client.wait(job_id))
        await watched(client, job_id)
        assert script.process.stdin is not None
        script.process.stdin.write("go on\n")
        script.process.stdin.flush()
        [job] = await soon(wait)
        assert job.status is JobStatus.SUCCEEDED
    assert script.end() == (0, "")


async def test_a_deleted_job_is_not_waited_for(database: str) -> None:
    """Whoever waits for a job that somebody removes hears of it at once."""
    store: str | Store = MemoryStore() if database == ":memory:" else database
    async with Client(store, workers=0) as client, Client(store, workers=0) as other:
        [job_id] = await client.add(Work()).save()
        wait = asyncio.ensure_future(other.wait(job_id))
        await watched(other, job_id)
        assert await client.open_store().act(Delete(), [job_id], now=client.clock.now())
        with pytest.raises(JobNotFound, match="it was deleted, or ended elsewhere"):
            await soon(wait)


async def test_who_joins_as_another_leaves(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may have ended since somebody has looked, also where it is still watched for another."""
    gate, other = Gate(file), Client(file, workers=0)
    async with gate.client, other:
        [job_id] = await gate.client.add(Gone()).save()
        first = asyncio.ensure_future(other.wait(job_id))
        await watched(other, job_id)
        monkeypatch.setattr(other.waits, "look", lambda: None)
        gate.open.set()
        with anyio.fail_after(LIMIT):
            assert (await gate.client.wait(job_id)).status is JobStatus.SUCCEEDED
        assert not first.done()
        first.cancel()
        with other.waits.waiting(job_id) as watch, anyio.fail_after(LIMIT):
            job = await other.waits.end_of(job_id, watch)
        assert job.status is JobStatus.SUCCEEDED


async def test_a_job_that_runs_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has ended and lives again when it is looked at has not ended."""
    gate = Gate(":memory:")
    async with gate.client as client:
        [job_id] = await client.add(Work(13)).save()
        wait = asyncio.ensure_future(client.wait(job_id))
        await watched(client, job_id)
        store = client.open_store()
        get = store.get
        seen: list[Sequence[str]] = []

        async def rerun_first(job_id: str, *, now: int) -> Job | None:
            if not seen:
                gate.open.clear()
                seen.append(await store.act(Rerun(), [job_id], now=now))
            return await get(job_id, now=now)

        monkeypatch.setattr(store, "get", rerun_first)
        gate.open.set()
        with anyio.fail_after(LIMIT):
            while not seen:
                await asyncio.sleep(0)
        await watched(client, job_id)
        assert not wait.done()
        gate.open.set()
        [job] = await soon(wait)
    assert (job.attempt, seen) == (2, [[job_id]])


# -- what it costs ---------------------------------------------------------------------------------


async def test_many_wait_for_one_job(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share one watch, which stays while any of them waits."""
    gate = Gate(database)
    async with gate.client as client:
        spy = Spy(client, monkeypatch)
        [job_id] = await client.add(Gone()).save()
        waits = [asyncio.ensure_future(client.wait(job_id)) for _ in range(100)]
        await watched(client, job_id)
        for wait in waits[:99]:
            wait.cancel()
        await asyncio.wait(waits[:99])
        await watched(client, job_id)
        gate.open.set()
        [job] = await soon(waits[99])
        assert job.status is JobStatus.SUCCEEDED
        await watched(client)
    assert spy.calls["watch"] == [[job_id]]
    assert spy.calls["unwatch"] == [[job_id]]


async def test_who_only_asks_is_not_written_down() -> None:
    """A watch is stored once it is known that the job has not ended, not before."""
    async with Client(":memory:", workers=0) as client:
        first, second = await client.add(Work(), Work()).save()
        with client.waits.waiting(first):
            wait = asyncio.ensure_future(client.wait(second))
            await watched(client, second)
        wait.cancel()
        await watched(client)


async def test_one_look_for_all_who_wait(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings, many at once, are one look at all jobs that are waited for; nobody looks without a ring."""
    gate, other = Gate(file), Client(file, workers=0)
    async with gate.client, other:
        ids = await gate.client.add(*(Work(number) for number in range(100, 200))).save()
        spy = Spy(other, monkeypatch)
        waits = [asyncio.ensure_future(other.wait(job_id)) for job_id in ids]
        await watched(other, *ids)
        watches = spy.calls["watch"]
        assert sorted(job_id for call in watches for job_id in call) == sorted(ids)
        assert len(watches) < 20
        looks = len(spy.calls["which_ended"])
        for _ in range(50):
            other.news()
        with anyio.fail_after(LIMIT):
            while len(spy.calls["which_ended"]) == looks:
                await asyncio.sleep(0)
        await watched(other, *ids)
        assert [set(call) for call in spy.calls["which_ended"][looks:]] == [set(ids)]
        assert other.waits._timer is not None
        assert other.waits._timer.when() > asyncio.get_running_loop().time() + 10
        gate.open.set()
        await soon(*waits)
        await watched(other)
    assert len(spy.calls["which_ended"]) - looks < 60


async def test_ends_here_are_told_without_a_look_at_all(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this client writes it knows: it asks for those jobs alone, at once."""
    monkeypatch.setattr(_waits, "LOOKS_APART", 1000.0)
    gate = Gate(database, workers=1)
    async with gate.client as client:
        ids = await client.add(Work(1), Work(2)).save()
        waits = [asyncio.ensure_future(client.wait(job_id)) for job_id in ids]
        await watched(client, *ids)
        spy = Spy(client, monkeypatch)
        monkeypatch.setattr(client.waits, "look", lambda: None)
        gate.open.set()
        await soon(*waits)
    assert sorted(job_id for call in spy.calls["which_ended"] for job_id in call) == sorted(ids)


async def test_nobody_waits_and_nothing_is_asked(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings and ends of jobs make no look where nobody waits."""
    gate = Gate(database)
    gate.open.set()
    async with gate.client as client:
        spy = Spy(client, monkeypatch)
        [job_id] = await client.add(Work()).save()
        with anyio.fail_after(LIMIT):
            while await client.status(job_id) is not JobStatus.SUCCEEDED:
                await asyncio.sleep(0)
        client.news()
        assert client.waits._timer is None
    assert spy.calls == {"watch": [], "unwatch": [], "which_ended": []}


async def test_a_store_that_cannot_be_rung_is_looked_at(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can tell, there is a look now and then."""
    monkeypatch.setattr(_waits, "DEAF_LOOK", 0.01)
    gate, other = Gate(file), Client(file, workers=0)
    async with gate.client, other:
        [job_id] = await gate.client.add(Gone()).save()
        monkeypatch.setattr(type(other.open_store()), "rings", False)
        monkeypatch.setattr(other.waits, "look", lambda: None)
        wait = asyncio.ensure_future(other.wait(job_id))
        await watched(other, job_id)
        gate.open.set()
        [job] = await soon(wait)
    assert job.status is JobStatus.SUCCEEDED


# -- what ends a wait otherwise --------------------------------------------------------------------


async def test_a_timeout(file: str) -> None:
    """It says which job and how long; the job goes on, and is watched no longer."""
    gate = Gate(file)
    async with gate.client as client:
        [job_id] = await client.add(Gone()).save()
        for timeout in (0, 0.02):
            with pytest.raises(
                TimeoutError, match=rf"job {job_id} has not ended within {timeout} s; it goes on"
            ):
                await client.wait(job_id, timeout)
        await watched(client)
        assert rows(file) == []
        gate.open.set()


async def test_a_cancellation(file: str) -> None:
    """Who is cancelled waits no longer, and the job is watched no longer."""
    gate = Gate(file)
    async with gate.client as client:
        [job_id] = await client.add(Gone()).save()
        wait = asyncio.ensure_future(client.wait(job_id))
        await watched(client, job_id)
        assert rows(file) == [(job_id,)]
        wait.cancel()
        await asyncio.wait([wait])
        assert wait.cancelled()
        await watched(client)
        assert rows(file) == []
        gate.open.set()


async def test_a_stop_wakes_who_waits(file: str) -> None:
    """A client that is stopped waits for nothing more, says so, and leaves no watch behind."""
    gate, other = Gate(file), Client(file, workers=0)
    async with gate.client:
        await other.start()
        ids = await gate.client.add(Gone(), Gone()).save()
        waits = [asyncio.ensure_future(other.wait(job_id)) for job_id in ids]
        await watched(other, *ids)
        await other.stop()
        for job_id, wait in zip(ids, waits, strict=True):
            with pytest.raises(InvalidState, match=f"stopped while job {job_id} was waited for"):
                await soon(wait)
        assert rows(file) == []
        with pytest.raises(InvalidState, match="not started"):
            await other.wait(ids[0])
        async with other:  # and it works again
            wait = asyncio.ensure_future(other.wait(ids[0]))
            await watched(other, ids[0])
            gate.open.set()
            [job] = await soon(wait)
    assert job.status is JobStatus.SUCCEEDED


async def test_who_waits_hears_of_what_ends_while_its_client_stops(
    database: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop lets handlers end in time, and those who wait for them hear of it, at the last look."""
    gate = Gate(database)
    await gate.client.start()
    [job_id] = await gate.client.add(Gone()).save()
    wait = asyncio.ensure_future(gate.client.wait(job_id))
    await watched(gate.client, job_id)
    await journal.seen("job.started", job_id)
    Spy(gate.client, monkeypatch).fail["which_ended"] = [DatabaseUnavailable("not now")]
    stopping = asyncio.ensure_future(gate.client.stop())
    await asyncio.sleep(0)
    gate.open.set()
    [job] = await soon(wait)
    assert await stopping
    assert job.status is JobStatus.SUCCEEDED


def test_a_client_waits_in_one_loop_after_the_other() -> None:
    """What is left of an event loop that was closed is in nobody's way."""
    client = Client(":memory:")

    @client.handler(Work)
    async def work(task: Work) -> int:
        return task.number

    async def main(number: int) -> bytes | None:
        async with client:
            [job_id] = await client.add(Work(number)).save()
            with anyio.fail_after(LIMIT):
                return (await client.wait(job_id)).result

    assert [asyncio.run(main(number)) for number in (1, 2)] == [b"1", b"2"]


# -- what cannot be waited for ---------------------------------------------------------------------


async def test_a_handler_does_not_wait_for_itself(file: str, journal: Journal) -> None:
    """Nor for anything inside its transaction, which keeps all others from writing; but for other jobs."""
    errors: list[str] = []
    go_on = asyncio.Event()
    async with Client(file) as client:

        @client.handler(Gone)
        async def gone(task: Gone) -> None:
            await go_on.wait()

        @client.handler(Work)
        async def work(task: Work, job: JobContext) -> None:
            [other] = await client.add(Gone()).save()
            with pytest.raises(InvalidState) as caught:
                await client.wait(job.id)
            errors.append(str(caught.value))
            async with job.transaction():
                with pytest.raises(InvalidState) as caught:
                    await client.wait(other)
                errors.append(str(caught.value))
                job.result = "well"
            waiting = asyncio.ensure_future(client.wait(other))
            await watched(client, other)
            go_on.set()
            await waiting
            job.log.info("waited")

        [job_id] = await client.add(Work()).save()
        await journal.seen("waited", job_id)
        assert await client.result(job_id) == "well"
    assert errors[0] == f"job {job_id}: a handler that waits for its own job waits for ever"
    assert errors[1].startswith("inside job.transaction() nothing can be waited for")


async def test_what_wait_takes() -> None:
    """Ids are text; a timeout is a duration."""
    async with Client(":memory:", workers=0) as client:
        with pytest.raises(InvalidType, match="the id of a job or workflow, which is a str, not 5"):
            await client.wait(5)  # type: ignore[call-overload]
        with pytest.raises(InvalidValue, match="timeout=-1"):
            await client.wait("some job", -1)


# -- trouble ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["watch", "which_ended", "unwatch"])
async def test_trouble_with_the_database_delays_a_wait(
    database: str, journal: Journal, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is said once, tried again, and whoever waits goes on waiting."""
    store: str | Store = MemoryStore() if database == ":memory:" else database
    gate, client = Gate(store), Client(store, workers=0)
    async with gate.client, client:
        spy = Spy(client, monkeypatch)
        spy.fail[name] = [DatabaseUnavailable("disk full"), OSError("what is that?")]
        [job_id] = await gate.client.add(Gone()).save()
        wait = asyncio.ensure_future(client.wait(job_id))
        await watched(client, job_id)
        gate.open.set()
        [job] = await soon(wait)
        await watched(client)
    assert job.status is JobStatus.SUCCEEDED
    assert len(journal.of("store.failing")) == len(journal.of("store.recovered")) == 1


@pytest.mark.parametrize("place", ["memory", "file"])
async def test_a_job_of_which_nothing_is_kept_tells_all_that_went_wrong(place: str, tmp_path: Path) -> None:
    """Who waits for it in time sees the error of every attempt, of the last one too."""
    gate = Gate(":memory:" if place == "memory" else str(tmp_path / "app.db"))
    async with gate.client as client:
        [job_id] = await client.add(Gone(13)).save()
        waiting = asyncio.create_task(client.wait(job_id))
        await watched(client, job_id)
        gate.open.set()
        with anyio.fail_after(LIMIT):
            job = await waiting
    assert [(error.attempt, error.type, error.message) for error in job.errors] == [(1, "Discard", "unlucky")]


@pytest.mark.parametrize("place", ["memory", "file"])
async def test_a_job_that_ends_as_its_wait_begins_is_kept(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the call on, what ends in this process is kept, though the store knows nobody yet who waits."""
    gate = Gate(":memory:" if place == "memory" else str(tmp_path / "app.db"))
    async with gate.client as client:
        [job_id] = await client.add(Gone()).save()
        store, ended = client.open_store(), asyncio.Event()
        get, finish = store.get, store.finish

        async def slow_get(job_id: str, *, now: int) -> Job | None:
            job = await get(job_id, now=now)
            gate.open.set()
            await ended.wait()
            return job

        async def told_finish(outcomes: Sequence[Any]) -> set[str]:
            lost = await finish(outcomes)
            ended.set()
            return lost

        monkeypatch.setattr(store, "finish", told_finish)
        monkeypatch.setattr(store, "get", slow_get)
        with anyio.fail_after(LIMIT):
            job = await client.wait(job_id)
        assert (job.id, job.status) == (job_id, JobStatus.SUCCEEDED)


@pytest.mark.parametrize("transaction", [False, True])
async def test_a_job_that_ends_before_it_is_watched(
    file: str, journal: Journal, monkeypatch: pytest.MonkeyPatch, transaction: bool
) -> None:
    """Who asked before a job of this client ended gets it, though that was not yet written down."""
    client, go_on, asked = Client(file), asyncio.Event(), asyncio.Event()

    @client.handler(Gone)
    async def gone(task: Gone, job: JobContext) -> str:
        await go_on.wait()
        if transaction:
            async with job.transaction():
                job.result = "well"
        return "well"

    async with client:
        [job_id] = await client.add(Gone()).save()
        await journal.seen("job.started", job_id)
        store = client.open_store()
        get = store.get

        async def late(job_id: str, *, now: int) -> Job | None:
            job = await get(job_id, now=now)
            if not asked.is_set():
                asked.set()
                go_on.set()
                await journal.ended(job_id)
            return job

        monkeypatch.setattr(store, "get", late)
        [job] = await soon(asyncio.ensure_future(client.wait(job_id)))
        assert (job.status, job.result, job.payload) == (JobStatus.SUCCEEDED, b'"well"', None)
        assert job.expires_at is not None
        assert job.finished_at is not None
        assert (job.expires_at - job.finished_at).total_seconds() == 60
