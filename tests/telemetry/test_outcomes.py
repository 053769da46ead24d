"""What a span says of how its attempt has ended, what meters are told, and what log lines carry."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from backlite_async import (
    Client,
    Discard,
    JobContext,
    QueueConfig,
    Retention,
    Retry,
    Snooze,
    Task,
)

from ..conftest import Journal
from .spans import Spans, ended, metered, said


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=2, backoff=0, retention=Retention())
    number: int = 0


class Hurried(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "hurried", max_attempts=1, timeout=0.01, retention=Retention()
    )


Body = Callable[[JobContext], Coroutine[Any, Any, Any]]


async def raising(job: JobContext, error: BaseException) -> None:
    if job.attempt == 1 and not isinstance(error, Snooze):
        raise error
    if isinstance(error, Snooze) and not job.meta.pop("snoozed", None) and job.fence == 1:
        raise error


@pytest.mark.parametrize(
    ("error", "outcome", "kind"),
    [
        (ValueError("no"), "retried", "ValueError"),
        (Retry(after=0), "retried", "Retry"),
        (Discard("no"), "failed", "Discard"),
        (Snooze(0), "snoozed", None),
        (asyncio.CancelledError(), "retried", "CancelledError"),
        (SystemExit(1), "retried", "SystemExit"),
    ],
)
async def test_an_attempt_says_what_became_of_it(
    database: str, spans: Spans, error: BaseException, outcome: str, kind: str | None
) -> None:
    """By an attribute; what is an error is told as such, by its type alone."""
    client = Client(database, durability="normal")

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        await raising(job, error)

    async with client:
        [job_id] = await client.add(Work()).save()
        await ended(client, job_id)
    span = spans.of("process work")[0]
    assert said(span)["backlite.job.outcome"] == outcome
    assert said(span).get("error.type") == kind
    assert span.status.status_code is (trace.StatusCode.ERROR if kind else trace.StatusCode.UNSET)
    assert span.status.description == kind
    assert not span.events


async def test_a_timeout_and_a_cancellation_say_so(database: str, spans: Spans) -> None:
    """The one is a TimeoutError, the other `cancelled`."""
    client, begun = Client(database, durability="normal"), asyncio.Event()

    @client.handler(Work)
    async def work(task: Work) -> None:
        begun.set()
        await asyncio.Event().wait()

    @client.handler(Hurried)
    async def hurried(task: Hurried) -> None:
        await asyncio.Event().wait()

    async with client:
        first, second = await client.add(Work(), Hurried()).save()
        await begun.wait()
        await client.cancel(first)
        await ended(client, first, second)
    cancelled, late = spans.one("process work"), spans.one("process hurried")
    assert (said(cancelled)["backlite.job.outcome"], said(cancelled)["error.type"]) == (
        "cancelled",
        "cancelled",
    )
    assert (said(late)["backlite.job.outcome"], said(late)["error.type"]) == ("failed", "TimeoutError")


async def test_a_handler_that_is_stopped_with_its_client_has_no_error(file: str, spans: Spans) -> None:
    """Its attempt is given back; the next one is of the same trace."""
    client, begun = Client(file, durability="normal"), asyncio.Event()

    @client.handler(Work)
    async def work(task: Work) -> None:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()

    await client.start()
    [job_id] = await client.add(Work()).save()
    await begun.wait()
    await client.stop(0)
    async with client:
        await ended(client, job_id)
    first, second = spans.of("process work")
    assert said(first)["backlite.job.outcome"] == "given_back"
    assert first.status.status_code is trace.StatusCode.UNSET
    assert said(second)["backlite.job.outcome"] == "succeeded"
    assert len(spans.traces) == 1


async def test_a_payload_that_does_not_decode_is_an_attempt_too(file: str, spans: Spans) -> None:
    """It has failed, by a PayloadError."""
    async with Client(file, durability="normal", workers=0) as client:
        [job_id] = await client.add(Work()).save()
    runner = Client(file, durability="normal")

    class Other(Task):
        config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())
        task_name: ClassVar[str] = "Work"
        needed: str

    @runner.handler(Other)
    async def other(task: Other) -> None: ...

    async with runner:
        await ended(runner, job_id)
    span = spans.one("process work")
    assert (said(span)["backlite.job.outcome"], said(span)["error.type"]) == ("failed", "PayloadError")


# -- metrics --------------------------------------------------------------------------------------


async def no_space(*_: object, **__: object) -> None:
    raise OSError("no space")


@pytest.mark.parametrize("traced", [True, False])
async def test_metrics_are_counted(
    database: str,
    reader: InMemoryMetricReader,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    *,
    traced: bool,
) -> None:
    """Jobs that were added or could not be, attempts that have begun, and how long they ran."""
    if traced:
        request.getfixturevalue("spans")
    client = Client(database, durability="normal")

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        if job.attempt == 1:
            raise ValueError

    async with client:
        ids = await client.add(Work(), Work()).save()
        with monkeypatch.context() as patched:
            patched.setattr(client.open_store(), "add", no_space)
            with pytest.raises(OSError, match="no space"):
                await client.add(Work(), Work(), Work()).save()
        await ended(client, *ids)
    send = (("messaging.destination.name", "work"), ("messaging.operation.name", "send"))
    process = (("messaging.destination.name", "work"), ("messaging.operation.name", "process"))
    assert metered(reader, "messaging.client.sent.messages") == {
        send: 2,
        (("error.type", "OSError"), *send): 3,
    }
    assert metered(reader, "messaging.client.consumed.messages") == {process: 4}
    assert metered(reader, "messaging.process.duration") == {
        process: 2,
        (("error.type", "ValueError"), *process): 2,
    }
    assert 0 < sum(metered(reader, "messaging.process.duration", "sum").values()) < 10  # seconds


async def test_metrics_alone_carry_nothing(database: str, reader: InMemoryMetricReader) -> None:
    """Where nobody traces, jobs carry nothing."""
    client = Client(database, durability="normal")

    @client.handler(Work)
    async def work(task: Work) -> None: ...

    async with client:
        [job_id] = await client.add(Work()).save()
        await ended(client, job_id)
        job = await client.get(job_id)
    assert job is not None
    assert job.context == {}
    assert list(metered(reader, "messaging.process.duration").values()) == [1]


# -- log lines ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threaded", [False, True])
async def test_context_variables_travel(database: str, journal: Journal, *, threaded: bool) -> None:
    """Those that are chosen are bound around the handler again, also in threads, and in what it adds."""
    client = Client(database, durability="normal", context=["request_id", "user"], tracing=False)
    seen: list[dict[str, Any]] = []

    def look(task: Work, job: JobContext) -> None:
        seen.append(structlog.contextvars.get_contextvars())
        job.log.info("looked")

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        look(task, job)
        await client.add(Hurried()).save()

    def hurried(task: Hurried, job: JobContext) -> None:
        assert threading.current_thread() is not threading.main_thread()
        look(Work(), job)

    async def unhurried(task: Hurried, job: JobContext) -> None:
        look(Work(), job)

    client.register(Hurried, hurried if threaded else unhurried)
    async with client:
        with structlog.contextvars.bound_contextvars(request_id="r-7", other="x"):
            [job_id] = await client.add(Work()).save()
        await ended(client, job_id)
        await ended(client, *(job.id for job in await client.jobs.list(queue="hurried")))
        job = await client.get(job_id)
    assert seen == [{"request_id": "r-7"}] * 2
    lines = journal.of("looked")
    assert len(lines) == 2
    assert all("request_id=r-7" in line for line in lines)
    assert job is not None
    assert job.context == {"log": {"request_id": "r-7"}}


async def test_what_is_not_bound_is_not_carried(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it cost anything; one attempt does not see what another has bound."""
    client, seen = Client(database, durability="normal", context=["request_id"]), list[Any]()

    @client.handler(Work)
    async def work(task: Work) -> None:
        seen.append(structlog.contextvars.get_contextvars())
        structlog.contextvars.bind_contextvars(request_id=f"bound by {task.number}")

    async with client:
        added: list[Any] = []
        with monkeypatch.context() as patched:
            patched.setattr(client, "added", added.extend)
            ids = await client.add(Work(1)).save()
        await ended(client, *ids)
        await ended(client, *await client.add(Work(2)).save())
    assert seen == [{}, {}]
    assert [job.more for job in added] == [None]
