"""What a handler returns is kept with its job, where jobs are kept, and never makes it fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import anyio
import msgspec
import pytest

from backlite_async import (
    Client,
    Discard,
    InvalidState,
    Job,
    JobContext,
    JobNotFound,
    PayloadError,
    QueueConfig,
    ResultNotFound,
    Retention,
    Task,
    _codec,
    _worker,
    chain,
)

from .conftest import LIMIT, Journal


class Kept(Task):
    config: ClassVar[QueueConfig] = QueueConfig("kept", max_attempts=1, retention=Retention())
    number: int = 0


class Failures(Task):
    config: ClassVar[QueueConfig] = QueueConfig("failures", retention=Retention(only_failed=True))


class Gone(Task):
    config: ClassVar[QueueConfig] = QueueConfig("gone")


class Pair(msgspec.Struct):
    left: int
    right: str


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is encoded as a result."""
    values: list[object] = []
    encode = _codec.encode_result

    def spy(queue: str, value: object, max_payload: int) -> str:
        values.append(value)
        return encode(queue, value, max_payload)

    monkeypatch.setattr(_worker, "encode_result", spy)
    return values


async def run_one(client: Client, task: Task, journal: Journal) -> str:
    [job_id] = await client.add(task).save()
    await journal.ended(job_id)
    return job_id


async def stored(client: Client, job_id: str) -> Job:
    job = await client.get(job_id)
    assert job is not None
    return job


@pytest.mark.parametrize("threaded", [False, True])
async def test_what_a_handler_returns_is_kept(database: str, journal: Journal, threaded: bool) -> None:
    """As JSON, in the record of its job; it comes back as plain values, or as the type that is asked for."""
    client = Client(database)

    async def in_loop(task: Kept) -> Pair:
        return Pair(3, "three")

    def in_thread(task: Kept) -> Pair:
        return Pair(3, "three")

    client.register(Kept, in_thread if threaded else in_loop)
    async with client:
        job_id = await run_one(client, Kept(), journal)
        assert (await stored(client, job_id)).result == b'{"left":3,"right":"three"}'
        assert await client.result(job_id) == {"left": 3, "right": "three"}
        assert await client.result(job_id, Pair) == Pair(3, "three")
        with pytest.raises(PayloadError, match="task Kept: its result is of another type: Expected `int`"):
            await client.result(job_id, int)


async def test_nothing_returned_is_no_result(database: str, journal: Journal) -> None:
    """None is what such a job has returned, and nothing is stored of it."""
    client = Client(database)
    client.register(Kept, _returning(None))
    async with client:
        job_id = await run_one(client, Kept(), journal)
        assert (await stored(client, job_id)).result is None
        nothing: Any = await client.result(job_id)
        assert nothing is None
        with pytest.raises(PayloadError, match="got `null`"):
            await client.result(job_id, int)


def _returning(value: object) -> Callable[[Task], Any]:
    async def handler(task: Task) -> object:
        return value

    return handler


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "its result cannot be encoded: TypeError: Encoding objects of type object"),
        ("\ud800", "its result cannot be encoded: UnicodeEncodeError"),
        ("x" * 200, "its result has 202 bytes, the limit is 100"),
    ],
    ids=["no JSON", "no text", "too large"],
)
async def test_a_result_that_cannot_be_kept(
    database: str, journal: Journal, value: object, reason: str
) -> None:
    """Its job has succeeded all the same, and knows that there was one; a warning says why, once."""
    client = Client(database, max_payload=100)
    client.register(Kept, _returning(value))
    async with client:
        job_id = await run_one(client, Kept(), journal)
        assert (await stored(client, job_id)).result == b""
        with pytest.raises(ResultNotFound, match="what its handler returned is not kept") as caught:
            await client.result(job_id)
    [line] = journal.of("job.result_dropped", job_id)
    assert reason in line
    assert isinstance(caught.value, LookupError)
    assert caught.value.job_id == job_id


async def test_an_awaitable_is_no_result(database: str, journal: Journal) -> None:
    """A handler that returns one has failed: nobody would run it."""

    async def inner() -> int:
        return 3

    client = Client(database)
    client.register(Kept, lambda task: inner())
    async with client:
        job_id = await run_one(client, Kept(), journal)
        with pytest.raises(
            ResultNotFound, match="it has failed: TypeError: the handler returned an awaitable"
        ):
            await client.result(job_id)


@pytest.mark.parametrize("task", [Failures(), Gone()], ids=["only failed", "nothing"])
async def test_nothing_is_encoded_that_is_not_kept(
    database: str, journal: Journal, encoded: list[object], task: Task
) -> None:
    """Where retention keeps nothing of a job that succeeds, its result costs nothing."""
    client = Client(database)
    client.register(type(task), _returning({"large": 1}))
    async with client:
        job_id = await run_one(client, task, journal)
        with pytest.raises(
            JobNotFound, match="there is no such job, or it has ended and nothing is kept of it"
        ):
            await client.result(job_id)
    assert encoded == []
    assert not journal.of("job.result_dropped")


async def test_a_result_for_whoever_waits_here(database: str, encoded: list[object]) -> None:
    """A queue that keeps nothing keeps its job for those who wait, with its result if they wait here."""
    go_on, client = asyncio.Event(), Client(database)

    @client.handler(Gone)
    async def gone(task: Gone) -> str:
        await go_on.wait()
        return "here you are"

    async with client:
        [job_id] = await client.add(Gone()).save()
        with anyio.fail_after(LIMIT):
            waiting = asyncio.ensure_future(client.wait(job_id))
            await _watched(client, job_id)
            go_on.set()
            job = await waiting
        assert job.result == b'"here you are"'
        assert await client.result(job_id, str) == "here you are"
    assert encoded == ["here you are"]


async def _watched(client: Client, job_id: str) -> None:
    """Wait until the watch of a job is stored."""
    while not client.waits._stored.get(job_id):
        await asyncio.sleep(0)


async def test_a_result_for_whoever_waits_elsewhere(file: str) -> None:
    """Who waits in another client gets the job; its result was not known to be wanted, and says so."""
    go_on, client, other = asyncio.Event(), Client(file), Client(file, workers=0)

    @client.handler(Gone)
    async def gone(task: Gone) -> str:
        await go_on.wait()
        return "here you are"

    async with client, other:
        [job_id] = await client.add(Gone()).save()
        with anyio.fail_after(LIMIT):
            waiting = asyncio.ensure_future(other.wait(job_id))
            await _watched(other, job_id)
            go_on.set()
            assert (await waiting).result == b""
        with pytest.raises(ResultNotFound, match="not kept"):
            await other.result(job_id)


async def test_there_is_no_result_and_why(database: str, journal: Journal) -> None:
    """Each reason is another error, or another text."""
    client, go_on = Client(database), asyncio.Event()

    @client.handler(Kept)
    async def kept(task: Kept) -> None:
        if task.number == 1:
            raise Discard("no good")
        await go_on.wait()

    async with client:
        with pytest.raises(JobNotFound, match="job nobody: there is no such job"):
            await client.result("nobody")
        whole = chain(Kept(0))
        await client.add(whole).wait(3600).save()
        with pytest.raises(ResultNotFound, match=f"{whole.id} has no result: it is a workflow"):
            await client.result(whole.id)
        failed = await run_one(client, Kept(1), journal)
        with pytest.raises(ResultNotFound, match=f"job {failed} has no result: it has failed: no good"):
            await client.result(failed)
        [later] = await client.add(Kept()).wait(1000).save()
        with pytest.raises(ResultNotFound, match=r"it is pending; await client\.wait\(id\) first"):
            await client.result(later)
        await client.cancel(later)
        with pytest.raises(ResultNotFound, match="has no result: it was cancelled"):
            await client.result(later)
        [running] = await client.add(Kept()).save()
        await journal.seen("job.started", running)
        with pytest.raises(ResultNotFound, match="it is running"):
            await client.result(running)
        go_on.set()


async def test_a_late_result_counts(database: str, journal: Journal) -> None:
    """A handler that returns after its timeout has succeeded, with what it returns."""

    class Slow(Task):
        config: ClassVar[QueueConfig] = QueueConfig("slow", timeout=0.01, retention=Retention())

    client = Client(database)

    @client.handler(Slow)
    async def slow(task: Slow) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return 7
        raise AssertionError

    async with client:
        job_id = await run_one(client, Slow(), journal)
        assert await client.result(job_id) == 7
    assert journal.of("job.late", job_id)


async def test_the_result_of_a_transaction_stands(file: str, journal: Journal, encoded: list[object]) -> None:
    """What a handler returns after its transaction has completed the job changes nothing."""
    client = Client(file)

    @client.handler(Kept)
    async def kept(task: Kept, job: JobContext) -> object:
        if task.number:
            async with job.transaction():
                job.result = "set inside"
        else:
            async with job.transaction():
                pass
        return object()

    async with client:
        with_one = await run_one(client, Kept(1), journal)
        without = await run_one(client, Kept(0), journal)
        assert await client.result(with_one) == "set inside"
        assert await client.result(without) is None
    assert encoded == []
    assert not journal.of("job.result_dropped")


async def test_a_result_needs_a_started_client() -> None:
    """Before the start there is nobody to ask."""
    with pytest.raises(InvalidState, match="not started"):
        await Client(":memory:").result("some job")
