"""Middleware: around every attempt, a part of it, and nothing where there is none."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import anyio
import pytest

from backlite_async import (
    CallNext,
    Client,
    Discard,
    Event,
    Events,
    InvalidState,
    InvalidType,
    InvalidValue,
    JobContext,
    QueueConfig,
    Rate,
    Retry,
    Snooze,
    Task,
    current_job,
)
from backlite_async._dispatcher import Dispatcher
from backlite_async._worker import WorkerPool

from .conftest import LIMIT

ENDS = ("succeeded", "failed", "retried", "snoozed", "cancelled")


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=2, backoff=3600)
    what: str = ""


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other")


class Quick(Task):
    config: ClassVar[QueueConfig] = QueueConfig("quick", max_attempts=1, timeout=0.05)


class Rated(Task):
    config: ClassVar[QueueConfig] = QueueConfig("rated", rate=Rate(100, per=60))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A started client in memory."""
    async with Client(":memory:") as client:
        yield client


async def outcome(events: Events) -> Event:
    """Return how the next attempt ends."""
    with anyio.fail_after(LIMIT):
        async for event in events:
            if event.kind in ENDS:
                return event
    raise AssertionError("the client has stopped")


async def run(client: Client, task: Task) -> Event:
    """Run one attempt of a task; return how it ends."""
    async with client.events() as events:
        await client.add(task).save()
        return await outcome(events)


both = pytest.mark.parametrize("threaded", [False, True], ids=["async def", "def"])


def says(seen: list[Any], what: object, value: str) -> str:
    """Take note of something, and return something else."""
    seen.append(what)
    return value


def handling(client: Client, threaded: bool, function: Callable[[Any], Any], kind: type[Task] = Work) -> None:
    """Register a handler of either sort that does this."""
    if threaded:
        client.register(kind, function)
    else:

        async def handler(task: Any) -> Any:
            return function(task)

        client.register(kind, handler)


# -- around an attempt ----------------------------------------------------------------------------


@both
async def test_the_first_is_the_outermost(client: Client, threaded: bool) -> None:
    """Each sees the task before those that were registered after it, and what it led to after them."""
    seen: list[str] = []

    def around(name: str) -> Callable[[JobContext, Any, CallNext], Any]:
        async def layer(job: JobContext, task: Work, call_next: CallNext) -> Any:
            seen.append(f"{name} {task.what}")
            value = await call_next(job, task)
            seen.append(f"{name} {value}")
            return f"{value}{name}"

        return layer

    for name in "ab":
        client.middleware(around(name))
    client.middleware(queue="work")(around("c"))
    client.middleware(queue="other")(around("d"))
    handling(client, threaded, lambda task: says(seen, f"handler {task.what}", "v"))
    assert (await run(client, Work("x"))).kind == "succeeded"
    assert seen == ["a x", "b x", "c x", "handler x", "c v", "b vc", "a vcb"]
    seen.clear()
    handling(client, threaded, lambda _: seen.append("handler"), Other)
    with anyio.fail_after(LIMIT):
        assert await client.run(Work("y")) == "vcba"
    assert seen == ["a y", "b y", "c y", "handler y", "c v", "b vc", "a vcb"]


@both
async def test_it_may_pass_another_task(client: Client, threaded: bool) -> None:
    """The handler gets the task that the innermost middleware gives it."""
    seen: list[str] = []

    @client.middleware
    async def louder(job: JobContext, task: Work, call_next: CallNext) -> Any:
        return await call_next(job, Work(task.what.upper()))

    handling(client, threaded, lambda task: seen.append(task.what))
    await run(client, Work("hello"))
    assert seen == ["HELLO"]


@both
async def test_what_it_returns_is_the_result(client: Client, threaded: bool) -> None:
    """It may replace the handler's, or stand in for a handler that it does not call."""
    ran: list[Work] = []

    @client.middleware
    async def instead(job: JobContext, task: Work, call_next: CallNext) -> str:
        return "cached" if task.what == "known" else f"<{await call_next(job, task)}>"

    handling(client, threaded, lambda task: says(ran, task, "new"))
    assert await client.run(Work("known")) == "cached"
    assert await client.run(Work("unknown")) == "<new>"
    assert (await run(client, Work("known"))).kind == "succeeded"
    assert ran == [Work("unknown")]


@both
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_it_raises_is_the_error_of_the_attempt(client: Client, threaded: bool, when: str) -> None:
    """Before or after the handler has run."""
    ran: list[Work] = []

    @client.middleware
    async def broken(job: JobContext, task: Work, call_next: CallNext) -> Any:
        if when == "after":
            await call_next(job, task)
        raise ValueError("not today")

    handling(client, threaded, ran.append)
    event = await run(client, Work())
    assert (event.kind, event.error) == ("retried", "ValueError: not today")
    assert len(ran) == (when == "after")


STEERS = {"retried": Retry(5), "snoozed": Snooze(5), "failed": Discard("gone")}


@both
@pytest.mark.parametrize("kind", STEERS)
async def test_it_may_steer_its_job(client: Client, threaded: bool, kind: str) -> None:
    """Retry, Snooze and Discard mean the same in a middleware as in a handler."""

    @client.middleware
    async def steering(job: JobContext, task: Work, call_next: CallNext) -> Any:
        await call_next(job, task)
        raise STEERS[kind]

    handling(client, threaded, lambda _: None)
    assert (await run(client, Work())).kind == kind


@both
@pytest.mark.parametrize("error", [*STEERS.values(), ValueError("bad"), StopIteration(5)], ids=repr)
async def test_it_may_catch_what_the_handler_raises(client: Client, threaded: bool, error: Exception) -> None:
    """It sees the handler's own error, of a `def` handler too."""
    caught: list[Exception] = []

    def raising(_: Work) -> None:
        raise error

    @client.middleware
    async def catching(job: JobContext, task: Work, call_next: CallNext) -> None:
        try:
            await call_next(job, task)
        except Exception as found:
            caught.append(found)

    handling(client, threaded, raising)
    assert (await run(client, Work())).kind == "succeeded"
    if isinstance(error, StopIteration):  # which no coroutine can raise
        assert [type(found) for found in caught] == [RuntimeError]
    else:
        assert caught == [error]


@both
async def test_the_error_of_a_handler_goes_through(client: Client, threaded: bool) -> None:
    """A middleware that lets it through leaves it what it was, with its cause."""

    def raising(_: Work) -> None:
        raise ValueError("bad") from KeyError("missing")

    @client.middleware
    async def plain(job: JobContext, task: Work, call_next: CallNext) -> Any:
        return await call_next(job, task)

    handling(client, threaded, raising)
    assert (await run(client, Work())).error == "ValueError: bad (from KeyError: 'missing')"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=repr)
async def test_what_ends_a_thread_does_not_end_the_process(client: Client, error: BaseException) -> None:
    """A `def` handler's KeyboardInterrupt is no Ctrl-C of the user's, with middleware around it either."""

    def raising(_: Work) -> None:
        raise error

    @client.middleware
    async def plain(job: JobContext, task: Work, call_next: CallNext) -> Any:
        return await call_next(job, task)

    client.register(Work, raising)
    event = await run(client, Work())
    assert (event.kind, (event.error or "").partition(":")[0]) == ("retried", type(error).__name__)


@both
async def test_it_may_call_the_handler_again(client: Client, threaded: bool) -> None:
    """Each call runs it once more."""
    tries: list[Work] = []

    def second_time(task: Work) -> str:
        tries.append(task)
        if len(tries) == 1:
            raise OSError("busy")
        return "done"

    @client.middleware
    async def twice(job: JobContext, task: Work, call_next: CallNext) -> Any:
        try:
            return await call_next(job, task)
        except OSError:
            return await call_next(job, task)

    handling(client, threaded, second_time)
    assert (await run(client, Work())).kind == "succeeded"
    assert len(tries) == 2


async def test_a_handler_does_not_run_beside_itself(client: Client) -> None:
    """A second call while the first has not returned is refused: a job runs once at a time."""
    refused: list[BaseException] = []

    @client.middleware
    async def double(job: JobContext, task: Work, call_next: CallNext) -> None:
        found = await asyncio.gather(call_next(job, task), call_next(job, task), return_exceptions=True)
        refused.extend(error for error in found if isinstance(error, BaseException))

    ran: list[Work] = []

    @client.handler(Work)
    async def handler(task: Work) -> None:
        ran.append(task)
        await asyncio.sleep(0)

    assert (await run(client, Work())).kind == "succeeded"
    assert len(ran) == 1
    [error] = refused
    assert isinstance(error, InvalidState)
    assert "runs; call_next() again once it has returned" in str(error)


@pytest.mark.parametrize("layers", [1, 2])
async def test_only_the_job_itself_goes_on(client: Client, layers: int) -> None:
    """Arguments in the wrong order are an error that says so, where they are in the wrong order."""
    inner: list[Any] = []

    async def plain(job: JobContext, task: Work, call_next: CallNext) -> Any:
        inner.append(job)
        return await call_next(job, task)

    async def swapped(job: JobContext, task: Any, call_next: CallNext) -> Any:
        return await call_next(task, job)

    client.middleware(swapped)
    if layers == 2:
        client.middleware(plain)
    client.register(Work, lambda _: None)
    assert (await run(client, Work())).error == (
        "InvalidType: call_next(job, task) takes the job that the middleware was given, not Work(what='')"
    )
    assert inner == []


# -- a part of the attempt ------------------------------------------------------------------------


async def test_it_runs_within_the_timeout(client: Client) -> None:
    """An attempt's time is that of all around it."""

    @client.middleware
    async def endless(job: JobContext, task: Work, call_next: CallNext) -> None:
        await anyio.sleep_forever()

    client.register(Quick, lambda _: None)
    event = await run(client, Quick())
    assert event.kind == "failed"
    assert event.error == "TimeoutError: the handler ran longer than its timeout of 0.05 s"


async def test_it_is_cancelled_with_its_job(client: Client) -> None:
    """A cancellation goes through the handler to all around it."""
    seen: list[str] = []
    started = asyncio.Event()

    @client.middleware
    async def watching(job: JobContext, task: Work, call_next: CallNext) -> None:
        try:
            await call_next(job, task)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @client.handler(Work)
    async def handler(task: Work) -> None:
        started.set()
        await anyio.sleep_forever()

    async with client.events() as events:
        [job_id] = await client.add(Work()).save()
        await started.wait()
        await client.cancel(job_id)
        assert (await outcome(events)).kind == "cancelled"
    assert seen == ["cancelled"]


@both
async def test_it_runs_in_the_context_of_its_job(client: Client, threaded: bool) -> None:
    """`current_job()` works, and variables that it sets are the handler's."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    seen: list[Any] = []

    @client.middleware
    async def naming(job: JobContext, task: Work, call_next: CallNext) -> None:
        assert current_job() is job
        request.set(task.what)
        await call_next(job, task)

    handling(client, threaded, lambda _: seen.append((request.get(), current_job().attempt)))
    assert (await run(client, Work("r1"))).kind == "succeeded"
    assert seen == [("r1", 1)]


async def test_a_def_handler_still_runs_in_a_thread(client: Client) -> None:
    """The middleware does not: it runs in the event loop."""
    threads: list[threading.Thread] = []

    @client.middleware
    async def here(job: JobContext, task: Work, call_next: CallNext) -> None:
        threads.append(threading.current_thread())
        await call_next(job, task)

    client.register(Work, lambda _: threads.append(threading.current_thread()))
    await run(client, Work())
    assert threads[0] is threading.current_thread()
    assert threads[1] is not threads[0]


async def test_an_attempt_has_started_with_its_middleware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written down, and counted by a rate, before its first line and once: a crash in it is a crash."""
    told: list[str] = []
    client = Client(":memory:")

    @client.middleware
    async def twice(job: JobContext, task: Rated, call_next: CallNext) -> None:
        told.append("middleware")
        await call_next(job, task)
        await call_next(job, task)

    client.register(Rated, lambda _: told.append("handler"))
    counted = Dispatcher._count_start

    def count(dispatcher: Dispatcher, *arguments: Any) -> None:
        told.append("counted")
        counted(dispatcher, *arguments)

    monkeypatch.setattr(Dispatcher, "_count_start", count)
    async with client:
        monkeypatch.setattr(
            client._dispatcher._pool if client._dispatcher else None,
            "_started",
            lambda job_id, fence: told.append("started"),
        )
        assert (await run(client, Rated())).kind == "succeeded"
    assert told[:2] == ["started", "middleware"]
    assert sorted(told) == ["counted", "handler", "handler", "middleware", "started"]


async def test_a_thread_outlives_its_loop_with_its_middleware(client: Client) -> None:
    """At the end of the event loop a `def` handler's value still comes through what is around it."""
    entered, release = threading.Event(), threading.Event()
    seen: list[Any] = []

    async def main() -> Events:
        client = Client(":memory:")

        @client.middleware
        async def around(job: JobContext, task: Work, call_next: CallNext) -> None:
            seen.append(await call_next(job, task))

        @client.handler(Work)
        def slow(task: Work) -> str:
            entered.set()
            release.wait(LIMIT)
            return "value"

        async def when_cancelled() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                release.set()

        await client.start()
        events = client.events()
        await client.add(Work()).save()
        await asyncio.to_thread(entered.wait, LIMIT)
        asyncio.current_task().waits = asyncio.ensure_future(when_cancelled())  # type: ignore[union-attr]
        await asyncio.sleep(0)
        return events

    events = await asyncio.to_thread(asyncio.run, main())
    assert seen == ["value"]
    assert [event.kind async for event in events] == ["added", "started", "succeeded"]


@both
async def test_without_any_nothing_is_around(
    client: Client, monkeypatch: pytest.MonkeyPatch, threaded: bool
) -> None:
    """Where none is registered for a queue, its handler is called as if there were no middleware."""
    wrapped: list[str] = []
    within = WorkerPool._handle_within

    async def watched(pool: WorkerPool, attempt: Any, *arguments: Any) -> Any:
        wrapped.append(attempt.job.queue)
        return await within(pool, attempt, *arguments)

    async def plain(job: JobContext, task: Any, call_next: CallNext) -> Any:
        return await call_next(job, task)

    monkeypatch.setattr(WorkerPool, "_handle_within", watched)
    handling(client, threaded, lambda _: None)
    handling(client, threaded, lambda _: None, Other)
    assert (await run(client, Work())).kind == "succeeded"
    client.middleware(queue="other")(plain)
    assert (await run(client, Work())).kind == "succeeded"
    assert wrapped == []
    assert (await run(client, Other())).kind == "succeeded"
    assert wrapped == ["other"]


async def test_registered_while_running_it_holds_from_the_next_attempt_on(client: Client) -> None:
    """An attempt that has begun goes on as it is."""
    seen: list[str] = []
    begun, goon = asyncio.Event(), asyncio.Event()

    @client.middleware
    async def first(job: JobContext, task: Work, call_next: CallNext) -> None:
        begun.set()
        await goon.wait()
        seen.append(f"first {task.what}")
        await call_next(job, task)

    client.register(Work, lambda _: None)
    async with client.events() as events:
        await client.add(Work("1")).save()
        await begun.wait()

        @client.middleware
        async def second(job: JobContext, task: Work, call_next: CallNext) -> None:
            seen.append(f"second {task.what}")
            await call_next(job, task)

        goon.set()
        await outcome(events)
    await run(client, Work("2"))
    assert seen == ["first 1", "first 2", "second 2"]


# -- transactions ---------------------------------------------------------------------------------


async def test_a_transaction_that_the_handler_leaves_open_is_undone(file: str) -> None:
    """Also where it could hide behind a middleware, which sees the error."""
    seen: list[str] = []
    async with Client(file) as client:

        @client.middleware
        async def watching(job: JobContext, task: Work, call_next: CallNext) -> None:
            try:
                await call_next(job, task)
            except InvalidState as error:
                seen.append(str(error))
                async with job.transaction():
                    pass

        @client.handler(Work)
        async def careless(task: Work, job: JobContext) -> None:
            await job.transaction().__aenter__()

        assert (await run(client, Work())).kind == "succeeded"
    assert seen == ["the handler has returned without leaving its job.transaction(); use async with"]


async def test_a_transaction_that_a_middleware_leaves_open_is_undone(file: str) -> None:
    """It is an error of the attempt, which says whose."""
    async with Client(file) as client:

        @client.middleware
        async def careless(job: JobContext, task: Work, call_next: CallNext) -> None:
            await job.transaction().__aenter__()
            await call_next(job, task)

        client.register(Work, lambda _: None)
        error = "the middleware has returned without leaving its job.transaction(); use async with"
        assert (await run(client, Work())).error == f"InvalidState: {error}"


@both
async def test_a_transaction_around_the_handler_is_one(file: str, threaded: bool) -> None:
    """A middleware may complete its job together with what it writes, after or before the handler."""
    async with Client(file) as client:

        @client.middleware
        async def within(job: JobContext, task: Work, call_next: CallNext) -> None:
            async with job.transaction() as connection:
                await connection.execute("CREATE TABLE notes (what)")
                await call_next(job, task)

        handling(client, threaded, lambda _: None)
        assert (await run(client, Work())).kind == "succeeded"


# -- registering ----------------------------------------------------------------------------------


async def no_task(job: JobContext, call_next: CallNext) -> None: ...


async def too_many(job: JobContext, task: Any, call_next: CallNext, more: int) -> None: ...


async def keyword(job: JobContext, task: Any, call_next: CallNext, *, key: str) -> None: ...


async def swapped(task: Any, job: Any, call_next: Any) -> None: ...


async def annotated(first: Any, second: JobContext, call_next: Any) -> None: ...


async def generating(job: JobContext, task: Any, call_next: CallNext) -> AsyncIterator[int]:
    yield 1


def plain(job: JobContext, task: Any, call_next: CallNext) -> None: ...


WRONG = {
    "no_task": (no_task, "middleware no_task cannot be called with three arguments"),
    "too_many": (too_many, "middleware too_many cannot be called with three arguments"),
    "keyword": (keyword, "middleware keyword cannot be called with three arguments"),
    "swapped": (swapped, "middleware swapped takes the job second, but it comes first"),
    "annotated": (annotated, "middleware annotated takes the job second, but it comes first"),
    "generating": (generating, "middleware generating is not async def"),
    "plain": (plain, "middleware plain is not async def"),
    "name": ("work", r"'work' is no function; write @client.middleware\(queue='work'\)"),
    "class": (Work, "middleware Work is not async def"),
    "number": (5, "middleware 5 is not async def"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_around(what: str) -> None:
    """Refused where it is registered, with a word on how it is called; nothing is registered."""
    function: Any
    function, reason = WRONG[what]
    client = Client(":memory:")
    with pytest.raises(InvalidType, match=reason):
        client.middleware(function)
    assert client.layers.of("work") == ()


@pytest.mark.parametrize(("queue", "error"), [(5, InvalidType), ("", InvalidValue)])
def test_a_queue_has_a_name(queue: Any, error: type[Exception]) -> None:
    """A wrong one is refused before there is a function."""
    with pytest.raises(error, match="name="):
        Client(":memory:").middleware(queue=queue)


async def test_it_stays_what_it_was() -> None:
    """The decorator returns the function; methods, partials and callable objects will do."""
    client = Client(":memory:")
    seen: list[str] = []

    class Tracer:
        async def method(self, job: JobContext, task: Any, call_next: CallNext) -> Any:
            seen.append("method")
            return await call_next(job, task)

        async def __call__(self, job: JobContext, task: Any, call_next: CallNext) -> Any:
            seen.append("object")
            return await call_next(job, task)

    async def named(name: str, job: JobContext, task: Any, call_next: CallNext) -> Any:
        seen.append(name)
        return await call_next(job, task)

    partial = functools.partial(named, "partial")
    tracer = Tracer()
    method = tracer.method
    assert client.middleware(partial) is partial
    assert client.middleware()(method) is method
    assert client.middleware(queue="work")(tracer) is tracer
    client.register(Work, lambda _: seen.append("handler"))
    await client.run(Work())
    assert seen == ["partial", "method", "object", "handler"]
