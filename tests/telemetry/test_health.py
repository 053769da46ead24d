"""`client.health()` says whether a client does what it is there for, and raises nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, ClassVar

import anyio
import pytest

from backlite_async import (
    Client,
    DatabaseReplaced,
    DatabaseUnavailable,
    HealthReport,
    InvalidValue,
    QueueConfig,
    Task,
    testing,
)

from ..conftest import LIMIT, Journal


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work")


class Keyed(Task):
    config: ClassVar[QueueConfig] = QueueConfig("keyed", concurrency_per_key=1)


class Unhandled(Task):
    config: ClassVar[QueueConfig] = Keyed.config


class Foreign(Task):
    config: ClassVar[QueueConfig] = QueueConfig("foreign")


async def test_a_client_that_works_is_well(database: str) -> None:
    """With workers it dispatches; without, that is not asked of it."""
    async with Client(database) as client:
        assert await client.health() == HealthReport(alive=True, dispatching=True)
    async with Client(database, workers=0) as client:
        report = await client.health()
    assert report == HealthReport(alive=True, dispatching=None)
    assert report.ok()


async def test_a_client_that_is_not_started_is_not(database: str) -> None:
    """Nor one that has stopped; it says so."""
    client = Client(database)
    before = await client.health()
    async with client:
        pass
    after = await client.health()
    for report in (before, after):
        assert (report.alive, report.dispatching, report.ok()) == (False, False, False)
        assert report.reason is not None
        assert "not started" in report.reason
    assert (await Client(database, workers=0).health()).dispatching is None


async def test_one_of_another_event_loop_is_not_and_says_so(database: str) -> None:
    """Whoever asks from a thread is told, not raised at."""
    async with Client(database) as client:
        report = await asyncio.to_thread(lambda: asyncio.run(client.health()))
    assert not report.alive
    assert report.reason is not None
    assert "event loop" in report.reason


async def test_the_lag_is_of_what_it_could_run() -> None:
    """Of queues that have a handler here and are not paused, anywhere or here."""
    client = testing.client(workers=1)

    @client.handler(Work)
    async def work(task: Work) -> None:
        begun.set()
        await release.wait()

    begun, release = asyncio.Event(), asyncio.Event()
    clock: Any = client.clock
    async with client:
        await client.add(Foreign()).save()
        clock.advance(600)
        await client.add(Work(), Work()).save()
        with anyio.fail_after(LIMIT):
            await begun.wait()
        clock.advance(90)
        report = await client.health()
        assert report.lag is not None
        assert timedelta(seconds=90) <= report.lag < timedelta(seconds=91)
        assert (report.ok(), report.ok(max_lag=91), report.ok(max_lag=89)) == (True, True, False)
        assert not report.ok(timedelta(minutes=1))
        await client.pause("work")
        assert (await client.health()).lag is None
        await client.resume("work")
        await client.pause("work", here=True)
        assert (await client.health()).lag is None
        release.set()


async def test_what_is_not_due_yet_is_not_late() -> None:
    """However long ago it was added."""
    client = testing.client(workers=1)

    @client.handler(Work)
    async def work(task: Work) -> None: ...

    async with client:
        await client.add(Work()).wait(7200).save()
        client.clock.advance(3600)  # type: ignore[attr-defined]
        assert (await client.health()).lag is None


async def test_the_lag_is_not_of_other_types_nor_of_keys_that_wait() -> None:
    """A queue may have jobs that this process cannot run, and some that wait for those that it runs."""
    client = testing.client(workers=2)

    @client.handler(Keyed)
    async def keyed(task: Keyed) -> None:
        begun.set()
        await release.wait()

    begun, release = asyncio.Event(), asyncio.Event()
    clock: Any = client.clock
    async with client:
        await client.add(Unhandled()).save()
        await client.add(Keyed()).key("k").save()
        await client.add(Keyed()).key("k").save()
        with anyio.fail_after(LIMIT):
            await begun.wait()
        clock.advance(90)
        assert (await client.health()).lag is None
        release.set()


async def test_a_database_that_does_not_answer_is_said(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time that it has."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    async with Client(database) as client:
        monkeypatch.setattr(client.open_store(), "oldest_due", never)
        with anyio.fail_after(LIMIT):
            report = await client.health(within=0.01)
        assert report == HealthReport(
            alive=False, dispatching=True, reason="the database has not answered within 0.01 s"
        )
        with pytest.raises(InvalidValue):
            await client.health(within=-1)


@pytest.mark.parametrize("error", [DatabaseUnavailable("disk full"), RuntimeError("disk full")])
async def test_a_database_that_fails_is_said(
    database: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """With what it says."""

    async def fail(*_: object) -> None:
        raise error

    async with Client(database) as client:
        monkeypatch.setattr(client.open_store(), "oldest_due", fail)
        report = await client.health()
    assert not report.ok()
    assert report.reason == f"{type(error).__name__}: disk full"


async def test_a_dispatcher_that_cannot_claim_is_said(
    database: str, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    """Until it can again."""

    async def fail(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("locked")

    async with Client(database) as client:
        client.register(Work, lambda task: None)
        with monkeypatch.context() as patched:
            patched.setattr(client.open_store(), "claim", fail)
            client.notify()
            await journal.seen("store.failing")
            report = await client.health()
            assert (report.alive, report.dispatching, report.ok()) == (True, False, False)
            assert report.reason is not None
        client.notify()
        await journal.seen("store.recovered")
        assert (await client.health()).ok()


async def test_a_database_that_was_replaced_is_said(database: str) -> None:
    """The client has stopped by itself, which nobody else may have noticed."""
    async with Client(database) as client:
        dispatcher = client._dispatcher
        assert dispatcher is not None
        dispatcher.lost = DatabaseReplaced(database, "gone")
        report = await client.health()
    assert (report.alive, report.dispatching) == (False, False)
    assert report.reason is not None
    assert "gone" in report.reason


async def test_a_probe_that_is_cancelled_is_cancelled(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is no error of the client's, and leaves nothing behind."""
    asked = asyncio.Event()

    async def never(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with Client(database) as client:
        monkeypatch.setattr(client.open_store(), "oldest_due", never)
        task = asyncio.create_task(client.health())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
