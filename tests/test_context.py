"""What a handler sees of its job and its client."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar, NoReturn

import pytest
import structlog

from backlite_async import Client, JobContext, QueueConfig, Task, current_client, current_job
from backlite_async._clock import to_millis
from backlite_async._context import running_job
from backlite_async._job import ClaimedJob

DEADLINE = datetime(2030, 1, 1, tzinfo=UTC)

CLAIMED = ClaimedJob(
    id="j1",
    queue="mail",
    task="SendEmail",
    payload='{"secret":1}',
    attempt=2,
    max_attempts=5,
    crashes=1,
    fence=42,
    created_at=1_700_000_000_123,
    scheduled_at=1_700_000_000_456,
)


class Ping(Task):
    config: ClassVar[QueueConfig] = QueueConfig("ping")
    value: int = 0


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture
def client() -> Client:
    return Client(":memory:")


def context(client: Client, started_at: int = 0, timeout: float | None = None) -> JobContext:
    def no_transaction(_: JobContext) -> NoReturn:
        raise AssertionError

    return JobContext(CLAIMED, client, started_at, timeout, no_transaction)


def test_a_job_has_what_its_claim_says(client: Client) -> None:
    """Every documented attribute is there, instants as aware datetimes."""
    job = context(client, to_millis(DEADLINE) - 1500, 1.5)
    assert (job.id, job.queue, job.attempt, job.max_attempts, job.fence) == ("j1", "mail", 2, 5, 42)
    assert job.created_at == datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)
    assert job.created_at.tzinfo is UTC
    assert job.deadline == DEADLINE
    assert job.client is client


def test_a_job_without_timeout_has_no_deadline(client: Client) -> None:
    """None means never."""
    assert context(client).deadline is None


def test_a_job_does_not_take_attributes_that_it_has_not(client: Client) -> None:
    """A typing mistake in a handler is an error, not an attribute."""
    with pytest.raises(AttributeError):
        context(client).reslut = 5  # type: ignore[attr-defined]


def test_a_job_shows_itself_without_its_payload(client: Client) -> None:
    """The repr says which job this is, and nothing of what it carries."""
    assert repr(context(client)) == "<job j1 of queue 'mail', attempt 2 of 5>"


def test_a_job_has_a_logger_of_its_own(client: Client) -> None:
    """Each line names job, queue and attempt."""
    structlog.configure()
    with structlog.testing.capture_logs() as kept:
        context(client).log.info("half", share=0.5)
    assert kept == [
        {"log_level": "info", "event": "half", "job_id": "j1", "queue": "mail", "attempt": 2, "share": 0.5}
    ]


def test_a_jobs_logger_writes_to_standard_logging(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Without structlog configured, lines go to the standard library's logger."""
    with caplog.at_level(logging.INFO, "backlite_async"):
        context(client).log.info("half")
    assert [record.getMessage() for record in caplog.records] == ["half job_id=j1 queue=mail attempt=2"]


@pytest.mark.parametrize("function", [current_client, current_job])
def test_outside_of_handlers_there_is_nothing(function: Any) -> None:
    """Asking outside of a handler is a LookupError that says so, without a second error behind it."""
    with pytest.raises(LookupError, match=rf"{function.__name__}\(\) works inside a handler only") as caught:
        function()
    assert caught.value.__suppress_context__


def test_inside_there_is_what_was_set(client: Client) -> None:
    """The two functions give what the worker has set in its context."""
    job = context(client)

    def inside() -> None:
        running_job.set(job)
        assert current_client() is client
        assert current_job() is job

    contextvars.copy_context().run(inside)
    with pytest.raises(LookupError):
        current_job()


@pytest.mark.parametrize("threaded", [False, True])
async def test_every_handler_sees_its_own_job(threaded: bool, journal: Any) -> None:
    """Jobs that run side by side, in the loop or in threads, do not see each other's."""
    client = Client(":memory:", workers=4)
    seen: dict[int, tuple[str, str, Client]] = {}
    together, all_in = threading.Barrier(4, timeout=20), asyncio.Event()
    arrived: list[int] = []

    async def in_loop(task: Ping, job: JobContext) -> None:
        arrived.append(task.value)
        if len(arrived) == 4:
            all_in.set()
        await all_in.wait()
        seen[task.value] = (job.id, current_job().id, current_client())

    def in_thread(task: Ping, job: JobContext) -> None:
        together.wait()
        seen[task.value] = (job.id, current_job().id, current_client())

    client.register(Ping, in_thread if threaded else in_loop)
    async with client:
        ids = await client.add(*(Ping(value) for value in range(4))).save()
        await journal.ended(*ids)
    assert seen == {value: (ids[value], ids[value], client) for value in range(4)}
    with pytest.raises(LookupError):
        current_client()
