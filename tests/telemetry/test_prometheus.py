"""What Prometheus is told is exact, has few labels, and costs nobody a job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import anyio
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

import backlite_async
from backlite_async import (
    Client,
    DatabaseUnavailable,
    Discard,
    Event,
    InvalidType,
    JobContext,
    QueueConfig,
    Snooze,
    Task,
)
from backlite_async import _events as events_module
from backlite_async import _log as log
from backlite_async._job import ClaimedJob
from backlite_async._outcome import crashed
from backlite_async._reports import tell
from backlite_async.telemetry import prometheus
from backlite_async.telemetry.prometheus import Histogram, Prometheus

from ..conftest import LIMIT, Journal


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=2, backoff=0)
    number: int


class Later(Task):
    config: ClassVar[QueueConfig] = QueueConfig("later")


class Doomed(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work-doomed", max_attempts=1, dead_letter=Later)


@pytest.fixture
async def client(database: str) -> AsyncIterator[Client]:
    client = Client(database, durability="normal")

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        """Of twenty: one fails at once, one after two attempts, two in the second, one is snoozed."""
        kind = task.number % 20
        if kind == 0:
            raise Discard("no")
        if kind == 1 or (kind in (2, 3) and job.attempt == 1):
            raise ValueError
        if kind == 4 and job.fence < 1001 and not await snoozed(task.number):
            raise Snooze(0)

    done: set[int] = set()

    async def snoozed(number: int) -> bool:
        had = number in done
        done.add(number)
        return had

    async with client:
        yield client


def values(text: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Return samples by their names, and the values of their labels in the order of the names of these.

    Counters that have counted nothing are left out.
    """
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels))
            if family.type == "counter" and not sample.value:
                continue
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def all_ended(client: Client) -> None:
    """Wait until nothing is left to do, and all is told."""
    dispatcher = client._dispatcher
    assert dispatcher is not None
    with anyio.fail_after(LIMIT):
        while dispatcher.holds("work") or await client.jobs.count(state=["pending", "running"]):
            await asyncio.sleep(0)


async def test_a_thousand_jobs_are_counted_exactly(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job and each attempt once, also where listeners are told of next to none."""
    monkeypatch.setattr(events_module, "WAITING", 5)
    metrics = Prometheus(client)
    heard: list[Event] = []

    @client.on("succeeded")
    async def slow(event: Event) -> None:
        heard.append(event)
        await release.wait()

    release = asyncio.Event()
    await client.add(*(Work(number) for number in range(1000))).save()
    await all_ended(client)
    found = values((await metrics.render())[0])
    release.set()
    assert len(heard) < 10
    assert found["backlite_jobs_added_total"] == {("work",): 1000}
    assert found["backlite_jobs_finished_total"] == {("failed", "work"): 100, ("succeeded", "work"): 900}
    assert found["backlite_job_attempts_total"] == {
        ("failed", "work"): 100,
        ("retried", "work"): 150,
        ("snoozed", "work"): 50,
        ("succeeded", "work"): 900,
    }
    for name in ("backlite_job_run_seconds", "backlite_job_wait_seconds"):
        buckets = found[f"{name}_bucket"]
        assert found[f"{name}_count"] == {("work",): 1200}
        assert max(buckets.values()) == 1200
        assert list(buckets.values()) == sorted(buckets.values())
        assert found[f"{name}_sum"][("work",)] > 0


def test_a_bound_belongs_to_its_bucket() -> None:
    """A bucket has what is less or equal, and what the smaller ones have."""
    histogram = Histogram((1, 2))
    for value in (0.5, 1.0, 1.5, 3.0):
        histogram.observe("q", value)
    samples = histogram.collect("name", "what").samples
    found = {sample.labels.get("le"): sample.value for sample in samples if sample.name == "name_bucket"}
    assert found == {"1.0": 2, "2.0": 3, "+Inf": 4}


async def test_what_it_tells_of_queues_is_as_refreshed(client: Client) -> None:
    """By state, each job in one; the age of the oldest; workers, and versions."""
    metrics = Prometheus(client)
    await client.add(Later(), Later()).wait(timedelta(hours=1)).save()
    await client.add(Later()).save()
    body, kind = await metrics.render()
    found = values(body)
    assert kind.startswith("text/plain")
    jobs = {labels[1]: value for labels, value in found["backlite_jobs"].items() if labels[0] == "later"}
    assert {state: value for state, value in jobs.items() if value} == {"scheduled": 2, "pending": 1}
    assert set(jobs) == {"pending", "scheduled", "waiting", "running", "succeeded", "failed", "cancelled"}
    assert found["backlite_oldest_due_job_age_seconds"][("later",)] >= 0
    assert found["backlite_workers"] == {("busy",): 0, ("idle",): 10}
    [(_, version)] = found["backlite_build_info"]
    assert version == backlite_async.__version__


async def test_what_is_due_is_told_beside_more_that_is_scheduled_than_is_counted(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert on a backlog would never come, were it what is left of two counts that have ended."""
    metrics, few = Prometheus(client), partial(client.queues.list, most=5)
    monkeypatch.setattr(client.queues, "list", few)
    await client.add(*[Later()] * 7).wait(timedelta(hours=1)).save()
    await client.add(*[Later()] * 4).save()
    jobs = values((await metrics.render())[0])["backlite_jobs"]
    assert (jobs["later", "pending"], jobs["later", "scheduled"]) == (4, 5)


async def test_busy_workers_are_told(client: Client) -> None:
    """As they are when somebody asks, without the database."""
    begun, release = asyncio.Event(), asyncio.Event()

    @client.handler(Later)
    async def later(task: Later) -> None:
        begun.set()
        await release.wait()

    metrics = Prometheus(client)
    await client.add(Later()).save()
    await begun.wait()
    assert values((await metrics.render())[0])["backlite_workers"] == {("busy",): 1, ("idle",): 9}
    release.set()
    await client.stop()
    assert values((await metrics.render())[0])["backlite_workers"] == {("busy",): 0, ("idle",): 0}


async def test_without_an_answer_of_the_database_the_rest_is_told(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing old is told of queues then."""

    async def fail(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("disk")

    metrics = Prometheus(client)
    await client.add(Later()).save()
    assert "backlite_jobs" in values((await metrics.render())[0])
    monkeypatch.setattr(client.open_store(), "queues", fail)
    with pytest.raises(DatabaseUnavailable):
        await metrics.refresh()
    found = values((await metrics.render())[0])
    assert "backlite_jobs" not in found
    assert found["backlite_jobs_added_total"] == {("later",): 1}


async def test_a_database_that_never_answers_holds_nobody_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever scrapes is told the rest before it gives up; one that is cancelled is cancelled."""
    begun = asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    metrics = Prometheus(client)
    await client.add(Later()).save()
    await metrics.refresh()
    with monkeypatch.context() as patched:
        patched.setattr(client.open_store(), "queues", never)
        scraping = asyncio.ensure_future(metrics.render())
        await begun.wait()
        scraping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scraping
        patched.setattr(prometheus, "PATIENCE", 0.01)
        found = values((await metrics.render())[0])
    assert "backlite_jobs" not in found
    assert found["backlite_jobs_added_total"] == {("later",): 1}
    assert "backlite_jobs" in values((await metrics.render())[0])


async def test_a_registry_of_the_applications_own(client: Client) -> None:
    """It has these metrics beside others, until they are closed; nothing is told twice."""
    registry = CollectorRegistry()

    class Own:
        def collect(self) -> Any:
            family = CounterMetricFamily("own", "One's own.")
            family.add_metric([], 7)
            return [family]

    registry.register(Own())
    metrics = Prometheus(client, registry)
    with pytest.raises(ValueError, match="backlite_jobs_added"):
        Prometheus(client, registry)
    await client.add(Later()).save()
    found = values((await metrics.render())[0])
    assert found["own_total"] == {(): 7}
    assert found["backlite_jobs_added_total"] == {("later",): 1}
    metrics.close()
    metrics.close()
    assert list(values((await metrics.render())[0])) == ["own_total"]
    assert not client.bus.heard


async def test_labels_are_queues_outcomes_and_states(client: Client) -> None:
    """However many jobs there are, so that nothing grows with them."""
    metrics = Prometheus(client)
    await client.add(*(Work(number) for number in range(40))).save()
    await all_ended(client)
    await metrics.refresh()
    labels: set[str] = set()
    for family in metrics.collect():
        for sample in family.samples:
            labels |= set(sample.labels)
    assert labels == {"queue", "outcome", "state", "le", "version", "python"}


async def test_counters_begin_with_nothing(client: Client) -> None:
    """Of each queue that is known here: a first crash is an increase."""
    text = (await Prometheus(client).render())[0].decode()
    assert 'backlite_jobs_added_total{queue="work"} 0.0' in text
    assert 'backlite_jobs_finished_total{outcome="failed",queue="work"} 0.0' in text
    assert 'backlite_job_attempts_total{outcome="crashed",queue="work"} 0.0' in text


async def test_another_thread_may_collect(client: Client) -> None:
    """As a server of `prometheus_client` does, while jobs run."""
    metrics = Prometheus(client)
    errors: list[BaseException] = []
    over = threading.Event()

    def collect() -> None:
        try:
            while not over.is_set():
                list(metrics.collect())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=collect)
    thread.start()
    await client.add(*(Work(number) for number in range(200))).save()
    await all_ended(client)
    over.set()
    thread.join()
    assert errors == []


async def test_a_crash_counts_as_such(client: Client) -> None:
    """Whether the job goes on or has failed by it."""
    metrics = Prometheus(client)
    job = ClaimedJob(
        id="1", queue="work", task="Work", payload="{}", attempt=1, max_attempts=2, crashes=0, fence=1,
        created_at=0, scheduled_at=0,
    )  # fmt: skip
    again = crashed(job, Work.config, 0)
    ended = crashed(job, QueueConfig("doomed", max_crashes=1), 0)
    tell(client.bus, job, again, log.JOB_CRASHED)
    tell(client.bus, job, ended, log.JOB_FAILED)
    found = values((await metrics.render())[0])
    assert found["backlite_job_attempts_total"] == {("crashed", "work"): 2}
    assert found["backlite_jobs_finished_total"] == {("failed", "work"): 1}


async def test_a_dead_letter_is_added(client: Client) -> None:
    """By the outcome of another job."""

    @client.handler(Doomed)
    async def doomed(task: Doomed) -> None:
        raise ValueError

    metrics = Prometheus(client)
    async with client.events() as events:
        await client.add(Doomed()).save()
        with anyio.fail_after(LIMIT):
            while (await anext(events)).task != "Later":
                pass
    found = values((await metrics.render())[0])
    assert found["backlite_jobs_added_total"] == {("later",): 1, ("work-doomed",): 1}


async def test_a_job_that_was_cancelled_before_it_ran_had_no_attempt(client: Client) -> None:
    """It has ended all the same."""
    metrics = Prometheus(client)
    [job_id] = await client.add(Later()).wait(60).save()
    await client.cancel(job_id)
    found = values((await metrics.render())[0])
    assert found["backlite_jobs_finished_total"] == {("cancelled", "later"): 1}
    assert "backlite_job_attempts_total" not in found


async def test_an_observer_that_raises_changes_nothing(client: Client, journal: Journal) -> None:
    """It is logged; the others are told, and jobs run."""
    seen: list[str] = []

    def broken(event: Event) -> None:
        raise RuntimeError("broken")

    client.bus.observe(broken, "added", "started", "succeeded")
    client.bus.observe(lambda event: seen.append(event.kind), "added", "started", "succeeded")
    await client.add(Work(10)).save()
    await all_ended(client)
    assert seen == ["added", "started", "succeeded"]
    assert len(journal.of("telemetry.failed")) == 3


async def test_added_jobs_are_counted_by_operation_and_queue(client: Client, journal: Journal) -> None:
    """Without an event for each; who raises harms nobody, who has ended is told nothing."""

    def broken(queue: str, number: int) -> None:
        raise RuntimeError("broken")

    told: list[tuple[str, int]] = []
    ends = [client.bus.count_added(broken), client.bus.count_added(lambda *what: told.append(what))]
    await client.add(Later(), Work(10), Later()).save()
    for end in ends:
        end()
    await client.add(Later()).save()
    assert told == [("later", 2), ("work", 1)]
    assert len(journal.of("telemetry.failed")) == 2
    assert not client.bus.heard


async def test_an_event_of_a_start_tells_the_wait(client: Client) -> None:
    """For how long the job had been due."""
    seen: list[Event] = []
    client.bus.observe(seen.append, "started")
    await client.add(Work(10)).save()
    await all_ended(client)
    [event] = seen
    assert event.waited is not None
    assert timedelta(0) <= event.waited < timedelta(seconds=LIMIT)


async def test_one_end_of_observing_ends_no_other(client: Client) -> None:
    """And where nobody observes, nothing is made."""
    one, other = [list[Event]() for _ in range(2)]
    end_one = client.bus.observe(one.append, "added")
    end_other = client.bus.observe(other.append, "added")
    end_one()
    await client.add(Later()).save()
    end_other()
    assert (len(one), len(other)) == (0, 1)
    assert not client.bus.heard


def test_metrics_are_of_a_client() -> None:
    """Anything else is refused, in words."""
    with pytest.raises(InvalidType, match="takes a Client"):
        Prometheus("shop.db")  # type: ignore[arg-type]
