"""`client.run(task)`: the handler as it would run, and nothing else of it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, ClassVar

import anyio
import anyio.from_thread
import msgspec
import pytest

from backlite_async import (
    AlreadyRegistered,
    CallNext,
    Client,
    Discard,
    InvalidState,
    InvalidTask,
    JobContext,
    PayloadError,
    QueueConfig,
    Retry,
    Snooze,
    Task,
    current_client,
    current_job,
)

from .conftest import LIMIT, Journal

both = pytest.mark.parametrize("threaded", [False, True], ids=["async def", "def"])


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=5)
    aliases: ClassVar[tuple[str, ...]] = ("OldWork",)
    what: str = ""
    extra: Any = None


class Quick(Task):
    config: ClassVar[QueueConfig] = QueueConfig("quick", timeout=0.05)


class Unknown(Task):
    config: ClassVar[QueueConfig] = QueueConfig("unknown")


def handling(client: Client, threaded: bool, function: Callable[[Any], Any]) -> None:
    """Register a handler of either sort that does this."""
    if threaded:
        client.register(Work, function)
    else:

        async def handler(task: Any) -> Any:
            return function(task)

        client.register(Work, handler)


@pytest.fixture
def client() -> Client:
    """A client that is never started: its database does not even exist."""
    return Client("/nowhere/app.db")


# -- what comes back ------------------------------------------------------------------------------


@both
async def test_it_returns_what_the_handler_returns(client: Client, threaded: bool) -> None:
    """The value itself, whatever it is: nothing of it is stored."""
    value = object()
    handling(client, threaded, lambda _: value)
    assert await client.run(Work()) is value


@both
@pytest.mark.parametrize(
    "error", [ValueError("bad"), Retry(5), Snooze(5), Discard("gone")], ids=lambda error: type(error).__name__
)
async def test_it_raises_what_the_handler_raises(client: Client, threaded: bool, error: Exception) -> None:
    """The error itself, those that steer a job too; it is tried once."""
    tries: list[Work] = []

    def raising(task: Work) -> None:
        tries.append(task)
        raise error

    handling(client, threaded, raising)
    with pytest.raises(type(error)) as caught:
        await client.run(Work())
    assert caught.value is error
    assert len(tries) == 1


async def test_a_def_handler_that_returns_a_coroutine_is_named(client: Client) -> None:
    """As for a worker: nobody would await it."""

    async def forgotten() -> None: ...

    client.register(Work, lambda task: [forgotten()][0])
    with pytest.raises(TypeError, match="make it async def"):
        await client.run(Work())


# -- as it would run ------------------------------------------------------------------------------


@both
async def test_the_task_comes_through_its_payload(client: Client, threaded: bool) -> None:
    """Another object, as it would come back from the database."""
    seen: list[Work] = []
    handling(client, threaded, seen.append)
    task = Work("a", extra=(1, 2))
    await client.run(task)
    assert seen[0] is not task
    assert seen == [Work("a", extra=[1, 2])]


@pytest.mark.parametrize(
    ("task", "error"),
    [
        (Work(what=5), PayloadError),  # type: ignore[arg-type]
        (Work(extra=float("nan")), PayloadError),
        (Work(what="x" * 2_000_000), PayloadError),
        (Work, InvalidTask),
        ("Work", InvalidTask),
    ],
    ids=["wrong type", "NaN", "too large", "a class", "no task"],
)
async def test_what_save_refuses_is_refused(client: Client, task: Any, error: type[Exception]) -> None:
    """With the same error, and without a call of the handler."""
    seen: list[Work] = []
    client.register(Work, seen.append)
    with pytest.raises(error, match="is a class; run an instance" if task is Work else None):
        await client.run(task)
    assert seen == []


async def test_another_queue_of_the_same_name_is_refused(client: Client) -> None:
    """As at `save()`: the handler is not that of this task type."""
    client.register(Work, lambda _: None)

    class Impostor(Task):
        config: ClassVar[QueueConfig] = QueueConfig("work")
        task_name: ClassVar[str] = "Work"

    with pytest.raises(AlreadyRegistered, match="has another QueueConfig already"):
        await client.run(Impostor())


async def test_without_a_handler_there_is_nothing_to_run(client: Client) -> None:
    """The error names the type, and the way out."""
    with pytest.raises(
        InvalidState, match=r"Unknown has no handler in this client; register one with @client"
    ):
        await client.run(Unknown())


@both
async def test_the_handler_sees_a_job(client: Client, threaded: bool) -> None:
    """The first attempt of a job that was added just now, which is nobody's claim."""
    seen: list[JobContext] = []

    def look(task: Work) -> None:
        assert current_client() is client
        seen.append(current_job())

    handling(client, threaded, look)
    before = datetime.now(UTC)
    await client.run(Work())
    await client.run(Work())
    job, other = seen
    assert (job.queue, job.attempt, job.max_attempts, job.fence) == ("work", 1, 5, 0)
    assert (job.key, job.parent, job.meta, job.tags, job.cancelled) == (None, None, {}, (), False)
    assert job.deadline is None
    assert abs((job.created_at - before).total_seconds()) < LIMIT
    assert job.id != other.id
    with pytest.raises(LookupError):
        current_job()


async def test_within_a_handler_the_outer_job_comes_back(client: Client) -> None:
    """A handler may run another's directly; each sees its own job, also after an error."""
    seen: list[str] = []

    @client.handler(Work)
    async def outer(task: Work, job: JobContext) -> None:
        for _ in range(2):
            with pytest.raises(Discard):
                await client.run(Quick())
        assert current_job() is job
        seen.append(job.queue)

    @client.handler(Quick)
    async def inner(task: Quick, job: JobContext) -> None:
        assert current_job() is job
        seen.append(job.queue)
        raise Discard

    await client.run(Work())
    assert seen == ["quick", "quick", "work"]


@both
async def test_middleware_is_around_it(client: Client, threaded: bool) -> None:
    """In its order, with its job."""
    seen: list[str] = []

    @client.middleware
    async def around(job: JobContext, task: Work, call_next: CallNext) -> Any:
        assert current_job() is job
        seen.append("before")
        value = await call_next(job, Work(task.what.upper()))
        seen.append("after")
        return value * 2

    handling(client, threaded, lambda task: seen.append(task.what) or task.what)  # type: ignore[func-returns-value]
    assert await client.run(Work("a")) == "AA"
    assert seen == ["before", "A", "after"]


async def test_a_def_handler_runs_in_a_thread(client: Client) -> None:
    """As a worker would run it: it may block, and reach the event loop by anyio."""

    @client.handler(Work)
    def handler(task: Work, job: JobContext) -> threading.Thread:
        anyio.from_thread.run(asyncio.sleep, 0)
        return threading.current_thread()

    assert await client.run(Work()) is not threading.current_thread()


async def test_the_timeout_of_the_queue_holds(client: Client) -> None:
    """Then the handler is cut off, as in a worker."""
    ended: list[str] = []

    @client.handler(Quick)
    async def endless(task: Quick, job: JobContext) -> None:
        assert job.deadline is not None
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    with pytest.raises(TimeoutError, match=r"the handler ran longer than its timeout of 0.05 s"):
        await client.run(Quick())
    assert ended == ["cancelled"]


async def test_a_cancellation_goes_through(client: Client) -> None:
    """Whoever waits for it and is cancelled cancels the handler."""
    begun, ended = asyncio.Event(), asyncio.Event()

    @client.handler(Work)
    async def endless(task: Work) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    running = asyncio.ensure_future(client.run(Work()))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()


# -- and nothing else -----------------------------------------------------------------------------


async def test_nothing_is_stored_told_or_counted(file: str, journal: Journal) -> None:
    """Not in a started client either: no job, no event, no statistics, no log line."""
    async with Client(file, workers=0) as client:  # which writes nothing by itself
        client.register(Work, lambda _: None)
        events = client.events()
        lines = len(journal.lines)
        with closing(sqlite3.connect(file)) as other:
            before = other.execute("PRAGMA data_version").fetchone()
            await client.run(Work())
            assert other.execute("PRAGMA data_version").fetchone() == before
        assert len(journal.lines) == lines
        events.close()
        assert [event async for event in events] == []


async def test_progress_and_log_lines_are_kept_nowhere(client: Client, journal: Journal) -> None:
    """A handler that says how far it is runs all the same; its log lines go where they always go."""

    @client.handler(Work)
    async def talking(task: Work, job: JobContext) -> str:
        await job.progress(0.5, "half")
        job.log.info("said", what=task.what)
        return "done"

    assert await client.run(Work("this")) == "done"
    [line] = journal.of("said")
    assert "queue=work" in line
    assert "what=this" in line


async def test_there_is_no_transaction(client: Client) -> None:
    """There is no job that it could complete, and the error says so."""

    @client.handler(Work)
    async def handler(task: Work, job: JobContext) -> None:
        async with job.transaction():
            pass

    with pytest.raises(InvalidState, match=r"run\(\) stores nothing"):
        await client.run(Work())


async def test_what_the_handler_adds_is_added() -> None:
    """If the client is started; it is nobody's child, as the job that added it does not exist."""
    async with Client(":memory:") as client:

        @client.handler(Work)
        async def adding(task: Work) -> str:
            [job_id] = await client.add(Unknown()).save()
            return job_id

        job = await client.get(await client.run(Work()))
    assert job is not None
    assert (job.task, job.parent) == ("Unknown", None)


async def test_a_struct_of_any_sort_is_a_task(client: Client) -> None:
    """Frozen ones, too."""

    class Plain(msgspec.Struct, frozen=True):
        config: ClassVar[QueueConfig] = QueueConfig("plain")
        value: int

    client.register(Plain, lambda task: task.value + 1)
    assert await client.run(Plain(1)) == 2
