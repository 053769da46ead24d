"""Cancelling jobs and pausing queues: whatever is just happening to a job, and in whichever client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
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
    JobContext,
    JobStatus,
    QueueConfig,
    Retention,
    Retry,
    Snooze,
    Task,
)
from backlite_async import _dispatcher as dispatcher
from backlite_async import _worker as worker
from backlite_async._clock import from_millis
from backlite_async._health import Health
from backlite_async._heed import LOOKS_APART, Heed
from backlite_async._job import Claim, ClaimedJob, Job, Lane, Orders, Outcome, Reschedule
from backlite_async.stores import Dead, MemoryStore

from .conftest import LIMIT, Journal
from .test_claimed_ahead import Still, Yard, crowd, record, until
from .test_engine_guards import turns

KEEP = Retention(payload="always")


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=3, backoff=0, retention=KEEP)
    number: int = 0


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other", max_attempts=3, retention=KEEP)


class Keyed(Task):
    config: ClassVar[QueueConfig] = QueueConfig("keyed", concurrency_per_key=1, retention=KEEP)
    number: int = 0


class Poison(Task):
    config: ClassVar[QueueConfig] = QueueConfig("poison", max_crashes=2, retention=KEEP)


Handler = Callable[..., Any]


@pytest.fixture(autouse=True)
def _soon_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that fails while it holds handlers does not wait for them."""
    defaults: Any = Client.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "stop_timeout", 1.0)


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, file: str) -> Any:
    """Jobs in a place that several clients can share."""
    return MemoryStore() if request.param == "memory" else file


class Stage:
    """Jobs that say when they have begun, and are held until the gate opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.began = asyncio.Event()
        self.numbers: list[int] = []

    async def hold(self, task: Work | Keyed) -> None:
        self.numbers.append(task.number)
        self.began.set()
        await self.gate.wait()

    async def rest(self, task: Task) -> None:
        await self.gate.wait()

    async def wait(self) -> None:
        """Wait until one has begun."""
        with anyio.fail_after(LIMIT):
            await self.began.wait()


@asynccontextmanager
async def running(
    place: Any, handler: Handler, began: asyncio.Event, **options: Any
) -> AsyncIterator[tuple[Client, str]]:
    """A client that runs one job, which has begun."""
    async with Client(place, **options) as client:
        client.register(Work, handler)
        [job_id] = await client.add(Work(7)).save()
        with anyio.fail_after(LIMIT):
            await began.wait()
        yield client, job_id


def cancelled(job: Job) -> tuple[JobStatus, int, int, str | None]:
    return job.status, job.attempt, job.crashes, job.error


# -- cancelling what does not run ------------------------------------------------------------------


async def test_pending_job_ends_at_once(place: Any, journal: Journal) -> None:
    """It is kept as its queue's retention says, and never runs."""
    stage = Stage()
    async with Client(place) as client:
        [job_id] = await client.add(Work(7)).save()
        assert await client.cancel(job_id) == 1
        job = await record(client, job_id)
        assert cancelled(job) == (JobStatus.CANCELLED, 0, 0, "cancelled")
        assert (job.payload, job.started_at, job.owner) == (b'{"number":7}', None, None)
        assert job.finished_at == job.cancelled_at is not None
        assert len(journal.of("job.cancelled", job_id)) == 1
        client.register(Work, stage.hold)
        await turns()
        assert stage.numbers == []


async def test_job_that_is_due_later_ends_at_once(place: Any) -> None:
    """Nobody waits for its time."""
    async with Client(place) as client:
        client.register(Work, Stage().hold)
        [job_id] = await client.add(Work()).wait(3600).save()
        assert await client.cancel(job_id) == 1
        assert await client.status(job_id) is JobStatus.CANCELLED


async def test_job_that_waits_for_its_turn_ends_at_once(place: Any) -> None:
    """And the turn goes to the next."""
    stage = Stage()
    async with Client(place) as client:
        client.register(Keyed, stage.hold)
        ids = [(await client.add(Keyed(number)).key("a").save())[0] for number in range(3)]
        await stage.wait()
        assert await client.cancel(ids[1]) == 1
        assert await client.status(ids[1]) is JobStatus.CANCELLED
        stage.gate.set()
        await until(client, [ids[0], ids[2]], JobStatus.SUCCEEDED)
        assert stage.numbers == [0, 2]


async def test_turn_of_a_cancelled_job_goes_to_the_next(place: Any) -> None:
    """Also where it runs in another client, and nobody else looks."""
    stage = Stage()
    async with Client(place) as client, Client(place, workers=0) as other:
        client.register(Keyed, stage.hold)
        first, second = [(await client.add(Keyed(number)).key("a").save())[0] for number in range(2)]
        await stage.wait()
        stage.began.clear()
        assert await other.cancel(first) == 1
        await stage.wait()
        assert stage.numbers == [0, 1]
        stage.gate.set()
        await until(client, [second], JobStatus.SUCCEEDED)
        assert await client.status(first) is JobStatus.CANCELLED


async def test_job_that_is_claimed_ahead_does_not_start(place: Any, journal: Journal) -> None:
    """It ends as if it had never been claimed; the others run."""
    yard = Yard()
    async with crowd(place, Still(), yard) as (client, job_ids):
        assert await client.cancel(job_ids[4]) == 1
        await journal.seen("job.cancelled", job_ids[4])
        assert cancelled(await record(client, job_ids[4])) == (JobStatus.CANCELLED, 0, 0, "cancelled")
        yard.gate.set()
        await until(client, [*job_ids[:4], job_ids[5]], JobStatus.SUCCEEDED)
    assert sorted(yard.started) == [0, 1, 2, 3, 5]


class LateClaims:
    """Lets the claims of all clients answer late."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer = asyncio.Event()
        self.claimed = asyncio.Event()
        original = dispatcher.Dispatcher._claim

        async def claim(of: dispatcher.Dispatcher, lanes: Sequence[Lane], *more: Any) -> Claim:
            found = await original(of, lanes, *more)
            if found.jobs:
                self.claimed.set()
                await self.answer.wait()
            return found

        monkeypatch.setattr(dispatcher.Dispatcher, "_claim", claim)


async def test_job_that_is_cancelled_during_its_claim_does_not_start(
    place: Any, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order comes before the job does; the others of that claim run."""
    stage, claims = Stage(), LateClaims(monkeypatch)
    stage.gate.set()
    async with Client(place, workers=2) as client:
        client.register(Work, stage.hold)
        first, second = await client.add(Work(1), Work(2)).save()
        with anyio.fail_after(LIMIT):
            await claims.claimed.wait()
        assert await client.status(first) is JobStatus.RUNNING
        assert await client.cancel(first) == 1
        feed = client._dispatcher._feed  # type: ignore[union-attr]
        with anyio.fail_after(LIMIT):
            while not feed.cancelled:
                await asyncio.sleep(0.001)
        claims.answer.set()
        await journal.seen("job.cancelled", first)
        await until(client, [second], JobStatus.SUCCEEDED)
        assert cancelled(await record(client, first)) == (JobStatus.CANCELLED, 0, 0, "cancelled")
        assert (stage.numbers, feed.cancelled) == ([2], set())


async def crash_once(client: Client, job_id: str) -> None:
    """Let a job look as if its process had died in it."""
    store, now = client.open_store(), client.clock.now()
    lane = Lane(kinds=(("poison", "Poison"),), room=1)
    [job] = (await store.claim([lane], owner="dead", now=now, until=now + 1000)).jobs
    assert job.id == job_id
    outcome = Reschedule(id=job.id, fence=job.fence, due_at=now, attempt=0, crashes=1)
    assert await store.finish([outcome]) == set()


async def test_job_that_waits_to_run_alone_ends_at_once(place: Any, journal: Journal) -> None:
    """And holds up nobody any more."""
    stage = Stage()
    async with running(place, stage.hold, stage.began) as (client, held):
        [poison] = await client.add(Poison()).save()
        await crash_once(client, poison)
        client.register(Poison, nothing)
        await until(client, [poison], JobStatus.RUNNING)
        assert await client.cancel(poison) == 1
        await journal.seen("job.cancelled", poison)
        assert cancelled(await record(client, poison)) == (JobStatus.CANCELLED, 0, 1, "cancelled")
        [other] = await client.add(Work(2)).save()
        await journal.seen("job.started", other)
        stage.gate.set()
        await until(client, [held, other], JobStatus.SUCCEEDED)


async def nothing(task: Task) -> None:
    pass


# -- cancelling what runs --------------------------------------------------------------------------


async def test_running_job_is_cancelled_and_may_clean_up(place: Any, journal: Journal) -> None:
    """Its scope is cancelled; what it awaits in a shield is done; it does not run again."""
    began, done = asyncio.Event(), asyncio.Event()
    cleaned: list[bool] = []

    async def work(task: Work, job: JobContext) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await done.wait()
                cleaned.append(job.cancelled)

    async with running(place, work, began) as (client, job_id):
        assert await client.cancel(job_id) == 1
        await turns()
        assert (await record(client, job_id)).cancelled_at is not None
        assert await client.status(job_id) is JobStatus.RUNNING
        done.set()
        await journal.seen("job.cancelled", job_id)
        job = await record(client, job_id)
    assert cancelled(job) == (JobStatus.CANCELLED, 1, 0, "cancelled")
    assert (cleaned, job.payload) == ([True], b'{"number":7}')
    assert job.started_at is not None
    assert job.cancelled_at is not None
    assert len(journal.of("job.started", job_id)) == 1


async def test_handler_that_returns_all_the_same_has_succeeded(place: Any, journal: Journal) -> None:
    """What it has done counts, and is logged as late."""
    began = asyncio.Event()

    async def work(task: Work, job: JobContext) -> None:
        began.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with running(place, work, began) as (client, job_id):
        assert await client.cancel(job_id) == 1
        await journal.seen("job.succeeded", job_id)
        assert await client.status(job_id) is JobStatus.SUCCEEDED
    assert len(journal.of("job.late", job_id)) == 1


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (ValueError("no more"), "ValueError: no more (after it was cancelled)"),
        (Retry(0), "Retry: asked to run again after 0 s (after it was cancelled)"),
        (Snooze(0), "Snooze: asked to run again later (after it was cancelled)"),
        (Discard("bad"), "bad (after it was cancelled)"),
    ],
    ids=["error", "retry", "snooze", "discard"],
)
async def test_whatever_it_raises_it_is_cancelled(
    place: Any, journal: Journal, raised: Exception, error: str
) -> None:
    """It does not run again, whatever it asks for; its error is told."""
    began = asyncio.Event()

    async def work(task: Work, job: JobContext) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise raised from None

    async with running(place, work, began) as (client, job_id):
        assert await client.cancel(job_id) == 1
        await journal.seen("job.cancelled", job_id)
        assert cancelled(await record(client, job_id)) == (JobStatus.CANCELLED, 1, 0, error)


async def test_handler_that_ignores_it_is_shown(
    place: Any, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, its record says since when it is to end, and it is not run beside itself."""
    monkeypatch.setattr(worker, "UNRESPONSIVE_AFTER", 0.0)
    stage = Stage()

    async def work(task: Work, job: JobContext) -> None:
        with anyio.CancelScope(shield=True):
            await stage.hold(task)

    async with running(place, work, stage.began) as (client, job_id):
        assert await client.cancel(job_id) == 1
        await journal.seen("job.unresponsive", job_id)
        job = await record(client, job_id)
        assert (job.status, job.finished_at) == (JobStatus.RUNNING, None)
        assert job.cancelled_at is not None
        stage.gate.set()
        await until(client, [job_id], JobStatus.SUCCEEDED)
        assert stage.numbers == [7]


async def test_handler_that_is_about_to_return_has_succeeded(place: Any, journal: Journal) -> None:
    """A cancellation that comes in the same turn of the event loop is too late; nobody watches it further."""
    stage = Stage()
    async with running(place, stage.hold, stage.began) as (client, job_id):
        pool = client._dispatcher._pool  # type: ignore[union-attr]
        attempt: Any = next(iter(pool.running.values()))
        stage.gate.set()
        assert pool.cancel_job(job_id, attempt.job.fence)
        await until(client, [job_id], JobStatus.SUCCEEDED)
        assert not pool.cancel_job(job_id, attempt.job.fence)
        assert attempt.watch is not None
        assert attempt.watch.cancelled()
    assert len(journal.of("job.late", job_id)) == 1


@pytest.mark.parametrize("way", ["returns", "raises"])
async def test_thread_is_asked(place: Any, journal: Journal, way: str) -> None:
    """`job.cancelled` becomes true in it; it decides how it ends, and counts as running until then."""
    began, loop = asyncio.Event(), asyncio.get_running_loop()
    asked, gate = threading.Event(), threading.Event()
    beats = threading.Event()
    at_first: list[bool] = []

    def work(task: Work, job: JobContext) -> None:
        at_first.append(job.cancelled)
        loop.call_soon_threadsafe(began.set)
        while not job.cancelled:
            beats.wait(0.0005)
        asked.set()
        gate.wait(LIMIT)
        if way == "raises":
            raise RuntimeError("so be it")

    async with running(place, work, began) as (client, job_id):
        try:
            assert await client.cancel(job_id) == 1
            assert await anyio.to_thread.run_sync(asked.wait, LIMIT)
            assert at_first == [False]
            assert await client.status(job_id) is JobStatus.RUNNING
        finally:
            gate.set()
        if way == "returns":
            await until(client, [job_id], JobStatus.SUCCEEDED)
            assert len(journal.of("job.late", job_id)) == 1
        else:
            await journal.seen("job.cancelled", job_id)
            error = "RuntimeError: so be it (after it was cancelled)"
            assert cancelled(await record(client, job_id)) == (JobStatus.CANCELLED, 1, 0, error)


async def test_thread_that_has_not_begun_never_does(place: Any, journal: Journal) -> None:
    """A job that is cancelled between its claim and the thread's first line does not begin."""
    called: list[int] = []

    def work(task: Work) -> None:
        called.append(task.number)

    async with Client(place) as client:
        original = worker.WorkerPool.start

        def start_and_cancel(pool: worker.WorkerPool, job: ClaimedJob, handler: Any) -> None:
            original(pool, job, handler)
            assert pool.cancel_job(job.id, job.fence)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker.WorkerPool, "start", start_and_cancel)
            client.register(Work, work)
            [job_id] = await client.add(Work()).save()
            await journal.seen("job.cancelled", job_id)
        assert await client.status(job_id) is JobStatus.CANCELLED
    assert called == []


async def test_job_of_another_client_is_cancelled_there(place: Any, journal: Journal) -> None:
    """Whoever asks; nobody else needs to have a handler."""
    stage = Stage()
    async with (
        running(place, stage.hold, stage.began) as (_, job_id),
        Client(place, workers=0) as other,
    ):
        assert await other.cancel(job_id) == 1
        await journal.seen("job.cancelled", job_id)
        assert await other.status(job_id) is JobStatus.CANCELLED


async def test_second_request_changes_nothing(place: Any, journal: Journal) -> None:
    """It is counted while the job runs, and the first one's instant stays."""
    began, done = asyncio.Event(), asyncio.Event()
    cuts: list[int] = []

    async def work(task: Work, job: JobContext) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cuts.append(1)
            with anyio.CancelScope(shield=True):
                await done.wait()

    clock = Still()
    async with running(place, work, began, clock=clock) as (client, job_id):
        assert await client.cancel(job_id) == 1
        first = (await record(client, job_id)).cancelled_at
        clock.millis += 1
        assert await client.cancel(job_id) == 1
        assert (await record(client, job_id)).cancelled_at == first
        done.set()
        await until(client, [job_id], JobStatus.CANCELLED)
        assert await client.cancel(job_id) == 0
    assert cuts == [1]
    assert len(journal.of("job.cancelled", job_id)) == 1


async def test_order_of_an_earlier_claim_ends_no_other(place: Any) -> None:
    """What is to be cancelled is a claim, not whatever runs under a job's id."""
    stage = Stage()
    async with running(place, stage.hold, stage.began) as (client, job_id):
        dispatcher: Any = client._dispatcher
        [attempt] = dispatcher._pool.running.values()
        dispatcher._cancel(job_id, attempt.job.fence - 1)
        assert not dispatcher._pool.cancel_job(job_id, attempt.job.fence - 1)
        assert (attempt.cancelled, dispatcher._feed.cancelled) == (False, set())
        stage.gate.set()
        await until(client, [job_id], JobStatus.SUCCEEDED)


class Gated:
    """Keeps a store's method from answering until the gate opens."""

    def __init__(self, client: Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.answered = asyncio.Event()
        store = client.open_store()
        original = getattr(store, name)

        async def wait(*arguments: Any, **more: Any) -> Any:
            self.asked.set()
            await self.gate.wait()
            found = await original(*arguments, **more)
            self.answered.set()
            return found

        monkeypatch.setattr(store, name, wait)


@pytest.mark.parametrize(
    ("raised", "status"),
    [(None, JobStatus.SUCCEEDED), (Retry(0), JobStatus.CANCELLED), (Discard("bad"), JobStatus.FAILED)],
    ids=["success", "retry", "discard"],
)
async def test_outcome_that_is_on_its_way_counts(
    place: Any, monkeypatch: pytest.MonkeyPatch, raised: Exception | None, status: JobStatus
) -> None:
    """Unless the job is to run again: that it does not."""
    began, calls = asyncio.Event(), []

    async def work(task: Work, job: JobContext) -> None:
        calls.append(job.attempt)
        began.set()
        if raised is not None:
            raise raised

    async with Client(place) as client:
        finish = Gated(client, "finish", monkeypatch)
        client.register(Work, work)
        [job_id] = await client.add(Work()).save()
        with anyio.fail_after(LIMIT):
            await finish.asked.wait()
        orders = Gated(client, "orders", monkeypatch)
        assert await client.cancel(job_id) == 1
        with anyio.fail_after(LIMIT):
            await orders.asked.wait()
        orders.gate.set()
        with anyio.fail_after(LIMIT):
            await orders.answered.wait()
        await turns()
        finish.gate.set()
        await until(client, [job_id], status)
        feed = client._dispatcher._feed  # type: ignore[union-attr]
        assert feed.cancelled == set()
    assert calls == [1]


async def test_cancel_within_a_transaction_undoes_it(
    file: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler is cut off inside its block, of which nothing stays."""
    began, entered, never = asyncio.Event(), asyncio.Event(), asyncio.Event()
    go = asyncio.Event()

    async def work(task: Work, job: JobContext) -> None:
        began.set()
        await go.wait()
        async with job.transaction() as connection:
            await connection.execute("CREATE TABLE mine (a)")
            entered.set()
            await never.wait()

    async with running(file, work, began) as (client, job_id):
        orders = Gated(client, "orders", monkeypatch)
        assert await client.cancel(job_id) == 1
        go.set()
        with anyio.fail_after(LIMIT):
            await entered.wait()
        orders.gate.set()
        await journal.seen("job.cancelled", job_id)
        assert cancelled(await record(client, job_id)) == (JobStatus.CANCELLED, 1, 0, "cancelled")
        [again] = await client.add(Other()).save()
        assert await client.status(again) is JobStatus.PENDING


async def test_job_that_completes_in_a_transaction_meanwhile_has_succeeded(
    file: str, journal: Journal
) -> None:
    """The request waits for the block, as every write does, and comes too late."""
    began, go = asyncio.Event(), asyncio.Event()

    async def work(task: Work, job: JobContext) -> None:
        async with job.transaction():
            began.set()
            await go.wait()

    async with running(file, work, began) as (client, job_id):
        asking = asyncio.create_task(client.cancel(job_id))
        await turns()
        go.set()
        assert await asking == 0
        assert await client.status(job_id) is JobStatus.SUCCEEDED


async def test_cancel_is_heeded_during_a_stop(place: Any, journal: Journal) -> None:
    """A client that waits for its handlers still cancels those it is told to."""
    stage = Stage()
    async with (
        Client(place, workers=0) as other,
        running(place, stage.hold, stage.began) as (client, job_id),
    ):
        stopping = asyncio.create_task(client.stop(LIMIT))
        await journal.seen("client.stopping")
        assert await other.cancel(job_id) == 1
        assert await stopping is True
        assert cancelled(await record(other, job_id)) == (JobStatus.CANCELLED, 1, 0, "cancelled")


async def test_job_that_a_stop_gives_back_ends_as_cancelled(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is stored: it does not run again though nobody had heeded it."""
    stage = Stage()
    async with (
        Client(place, workers=0) as other,
        running(place, stage.hold, stage.began) as (client, job_id),
    ):
        monkeypatch.setattr(Heed, "_look", lambda self: asyncio.sleep(0))
        assert await other.cancel(job_id) == 1
        assert await client.stop(0) is False
        assert cancelled(await record(other, job_id)) == (JobStatus.CANCELLED, 0, 0, "cancelled")


async def test_job_whose_owner_seems_dead_ends_as_cancelled(place: Any) -> None:
    """Its lease has ended: it does not run again, and the crash is told."""
    async with Client(place, workers=0) as client:
        [job_id] = await client.add(Work(7)).save()
        store, now = client.open_store(), client.clock.now()
        lane = Lane(kinds=(("work", "Work"),), room=1)
        assert (await store.claim([lane], owner="dead", now=now, until=now)).jobs
        assert await client.cancel(job_id) == 1
        async with Client(place) as other:
            other.register(Work, nothing)
            await until(client, [job_id], JobStatus.CANCELLED)
        job = await record(client, job_id)
    assert cancelled(job)[:3] == (JobStatus.CANCELLED, 0, 1)
    assert job.error == "process died (crash 1 of at most 3)"
    assert job.finished_at == job.cancelled_at


class Gone:
    """An owner that has died."""

    id = "dead"

    def __init__(self, *, had_started: bool) -> None:
        self.had_started = had_started
        self.buried = False

    def started(self, job_id: str, fence: int) -> bool:
        return self.had_started

    def bury(self) -> None:
        self.buried = True

    def leave(self) -> None:
        pass


class Mourning(MemoryStore):
    """A store that knows of one owner that has died."""

    def __init__(self, gone: Gone) -> None:
        super().__init__()
        self.gone = gone

    def dead_owners(self) -> Sequence[Dead]:
        return [] if self.gone.buried else [self.gone]


@pytest.mark.parametrize("started", [True, False])
async def test_takeover_ends_a_job_that_was_to_be_cancelled(started: bool) -> None:
    """Whether it had started or not, and though its queue has no handler there."""
    store = Mourning(Gone(had_started=started))
    async with Client(store, workers=0) as client:
        [job_id] = await client.add(Work(7)).save()
        now = client.clock.now()
        lane = Lane(kinds=(("work", "Work"),), room=1)
        assert (await store.claim([lane], owner="dead", now=now, until=now + 3_600_000)).jobs
        assert await client.cancel(job_id) == 1
        async with Client(store):
            await until(client, [job_id], JobStatus.CANCELLED)
        error = "process died (crash 1)" if started else "cancelled"
        assert cancelled(await record(client, job_id)) == (JobStatus.CANCELLED, 0, int(started), error)


# -- what cancelling takes and returns -------------------------------------------------------------


async def test_number_of_jobs_that_are_cancelled_is_returned(place: Any) -> None:
    """Those that have ended by it and those that are asked, each once; unknown and ended ones are none."""
    stage = Stage()
    async with running(place, stage.hold, stage.began) as (client, held):
        pending = await client.add(Other(), Other()).save()
        assert await client.cancel() == 0
        assert await client.cancel("no such job") == 0
        assert await client.cancel(pending[0], held, "no such job", pending[0], pending[1], held) == 3
        assert await client.cancel(*pending) == 0
        await until(client, [held], JobStatus.CANCELLED)
        assert await client.cancel(held) == 0


async def test_jobs_that_have_ended_stay_as_they_are(place: Any) -> None:
    """Neither success nor failure is turned into a cancellation."""

    async def work(task: Work) -> None:
        if task.number:
            raise Discard("bad")

    async with Client(place) as client:
        client.register(Work, work)
        ids = await client.add(Work(0), Work(1)).save()
        await until(client, ids[:1], JobStatus.SUCCEEDED)
        await until(client, ids[1:], JobStatus.FAILED)
        assert await client.cancel(*ids) == 0
        assert [await client.status(job_id) for job_id in ids] == [JobStatus.SUCCEEDED, JobStatus.FAILED]
        assert [(await record(client, job_id)).cancelled_at for job_id in ids] == [None, None]


@pytest.mark.parametrize("wrong", [7, None, b"id", ["id"]])
async def test_ids_are_text(wrong: Any) -> None:
    """What is none is named, and nothing is cancelled."""
    async with Client(":memory:") as client:
        [job_id] = await client.add(Work()).save()
        with pytest.raises(InvalidType, match="takes ids of jobs"):
            await client.cancel(job_id, wrong)
        assert await client.status(job_id) is JobStatus.PENDING


async def test_orders_need_a_client_that_is_started(place: Any) -> None:
    """Before the start and after the end they say so."""
    client = Client(place)
    for _ in range(2):
        with pytest.raises(InvalidState, match="not started"):
            await client.cancel("a")
        for order in (client.pause, client.resume):
            with pytest.raises(InvalidState, match="not started"):
                await order("work")
            with pytest.raises(InvalidState, match="not started"):
                await order("work", here=True)
        with pytest.raises(InvalidState, match="not started"):
            await client.queues.list()
        async with client:
            pass


@pytest.mark.parametrize(("wrong", "error"), [(7, InvalidType), ("", InvalidValue), ("a\n", InvalidValue)])
async def test_queues_are_named_as_they_can_be(wrong: Any, error: type[Exception]) -> None:
    """A name that no queue can have is refused."""
    async with Client(":memory:") as client:
        with pytest.raises(error):
            await client.pause(wrong)
        with pytest.raises(error):
            await client.resume(wrong)
        assert await client.queues.list() == []


# -- how cancelled jobs are kept -------------------------------------------------------------------


class Lost(Task):
    config: ClassVar[QueueConfig] = QueueConfig("lost")


class Bare(Task):
    config: ClassVar[QueueConfig] = QueueConfig("bare", retention=Retention(duration=60))
    text: str = "x"


class Whole(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "whole", retention=Retention(only_failed=True, payload="failed")
    )
    text: str = "x"


@pytest.mark.parametrize("manner", ["pending", "running"])
async def test_client_that_knows_no_queue_keeps_what_it_cancels(place: Any, manner: str) -> None:
    """As the queue's own retention says, which others have declared; running or not."""
    clock = Still()
    kinds: list[type[Task]] = [Lost, Bare, Whole]
    async with (
        Client(place, workers=0, clock=clock) as client,
        Client(place, workers=0, clock=clock) as other,
    ):
        ids = await client.add(*[kind() for kind in kinds]).save()
        if manner != "pending":
            lane = Lane(kinds=tuple((kind.config.name, kind.__name__) for kind in kinds), room=3)
            found = await client.open_store().claim([lane], owner="a", now=clock.now(), until=clock.now() + 9)
            assert len(found.jobs) == 3
        assert await other.cancel(*ids) == 3
        if manner != "pending":
            store = other.open_store()
            assert await store.finish([back(job, clock.now()) for job in found.jobs]) == set()
        jobs = [await other.get(job_id) for job_id in ids]
    assert jobs[0] is None
    assert jobs[1] is not None
    assert jobs[2] is not None
    assert (jobs[1].status, jobs[1].payload) == (JobStatus.CANCELLED, None)
    assert jobs[1].expires_at == from_millis(clock.now() + 60_000)
    assert (jobs[2].status, jobs[2].payload, jobs[2].expires_at) == (
        JobStatus.CANCELLED,
        b'{"text":"x"}',
        None,
    )


def back(job: ClaimedJob, now: int) -> Outcome:
    return Reschedule(id=job.id, fence=job.fence, due_at=now, attempt=0, crashes=0)


async def test_declaration_follows_the_last_client_that_started(place: Any) -> None:
    """A queue whose retention was changed is kept as it is now."""
    async with Client(place, workers=0) as client:
        await client.add(Whole()).save()

    class Changed(Task):
        config: ClassVar[QueueConfig] = QueueConfig("whole")

    async with Client(place, workers=0) as client:
        [job_id] = await client.add(Changed()).save()
        async with Client(place, workers=0) as other:
            assert await other.cancel(job_id) == 1
            assert await other.status(job_id) is JobStatus.NOT_FOUND


# -- pausing ---------------------------------------------------------------------------------------


async def test_paused_queue_claims_nothing_until_it_is_resumed(place: Any, journal: Journal) -> None:
    """In every client; other queues go on, and running jobs too."""
    stage = Stage()
    async with (
        running(place, stage.hold, stage.began) as (client, held),
        Client(place) as other,
    ):
        other.register(Work, stage.hold)
        other.register(Other, nothing)
        await other.pause("work")
        await journal.seen("queues.paused", count=2)
        ids = await client.add(Work(1), Work(2)).save()
        [beside] = await client.add(Other()).save()
        await until(client, [beside], JobStatus.SUCCEEDED)
        assert stage.numbers == [7]
        assert [await client.status(job_id) for job_id in ids] == [JobStatus.PENDING] * 2
        stage.gate.set()
        await until(client, [held], JobStatus.SUCCEEDED)
        await turns()
        assert stage.numbers == [7]
        await client.resume("work")
        await until(client, ids, JobStatus.SUCCEEDED)
        assert sorted(stage.numbers) == [1, 2, 7]


@pytest.mark.parametrize("here", [False, True])
async def test_pause_gives_back_what_was_claimed_ahead(place: Any, journal: Journal, here: bool) -> None:
    """Nothing of the queue starts any more; what runs goes on."""
    yard = Yard()
    async with crowd(place, Still(), yard) as (client, job_ids):
        await client.pause("held", here=here)
        for job_id in job_ids[2:]:
            await journal.seen("job.given_back", job_id)
        yard.gate.set()
        await until(client, job_ids[:2], JobStatus.SUCCEEDED)
        await turns()
        assert yard.started == [0, 1]
        found = [await record(client, job_id) for job_id in job_ids[2:]]
        assert [(job.status, job.attempt) for job in found] == [(JobStatus.PENDING, 0)] * 4
        await client.resume("held", here=here)
        await until(client, job_ids, JobStatus.SUCCEEDED)
        assert sorted(yard.started) == list(range(6))


async def test_pause_reaches_what_others_have_claimed_ahead(place: Any, journal: Journal) -> None:
    """Whichever client was asked."""
    yard = Yard()
    async with crowd(place, Still(), yard) as (client, job_ids), Client(place, workers=0) as other:
        await other.pause("held")
        for job_id in job_ids[2:]:
            await journal.seen("job.given_back", job_id)
        assert yard.started == [0, 1]
        await other.resume("held")
        yard.gate.set()
        await until(client, job_ids, JobStatus.SUCCEEDED)


@pytest.mark.parametrize("here", [False, True])
async def test_claim_that_is_on_its_way_when_its_queue_is_paused_goes_back(
    place: Any, journal: Journal, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    """It had looked before; none of its jobs starts."""
    stage, claims = Stage(), LateClaims(monkeypatch)
    stage.gate.set()
    async with Client(place) as client:
        client.register(Work, stage.hold)
        ids = await client.add(Work(1), Work(2)).save()
        with anyio.fail_after(LIMIT):
            await claims.claimed.wait()
        await client.pause("work", here=here)
        await journal.seen("queues.paused")
        claims.answer.set()
        for job_id in ids:
            await journal.seen("job.given_back", job_id)
        assert stage.numbers == []
        await client.resume("work")
        await until(client, ids, JobStatus.SUCCEEDED)


@pytest.mark.parametrize("here", [False, True])
async def test_job_that_waits_to_run_alone_goes_back_when_its_queue_is_paused(
    place: Any, journal: Journal, here: bool
) -> None:
    """It does not start, and holds up nobody any more."""
    stage = Stage()
    async with running(place, stage.hold, stage.began) as (client, held):
        [poison] = await client.add(Poison()).save()
        await crash_once(client, poison)
        client.register(Poison, nothing)
        await until(client, [poison], JobStatus.RUNNING)
        await client.pause("poison", here=here)
        await journal.seen("job.given_back", poison)
        stage.gate.set()
        [other] = await client.add(Work(2)).save()
        await until(client, [held, other], JobStatus.SUCCEEDED)
        job = await record(client, poison)
        assert (job.status, job.attempt, job.crashes) == (JobStatus.PENDING, 0, 1)
        await client.resume("poison")
        await until(client, [poison], JobStatus.SUCCEEDED)


async def test_pause_here_stops_nobody_else(place: Any) -> None:
    """The other client runs what this one leaves."""
    mine, theirs = Stage(), Stage()
    mine.gate.set()
    theirs.gate.set()
    async with Client(place) as client, Client(place) as other:
        await client.pause("work", here=True)
        client.register(Work, mine.hold)
        ids = await client.add(Work(1), Work(2)).save()
        await turns()
        assert [await client.status(job_id) for job_id in ids] == [JobStatus.PENDING] * 2
        other.register(Work, theirs.hold)
        await until(client, ids, JobStatus.SUCCEEDED)
        assert [queue.paused for queue in await client.queues.list()] == [False]
    assert (mine.numbers, sorted(theirs.numbers)) == ([], [1, 2])


async def test_resume_everywhere_undoes_a_pause_here_too(place: Any) -> None:
    """But with here=True only that one: what is paused everywhere stays so."""
    stage = Stage()
    stage.gate.set()
    async with Client(place) as client:
        client.register(Work, stage.hold)
        await client.pause("work", here=True)
        await client.pause("work")
        [job_id] = await client.add(Work(1)).save()
        await client.resume("work", here=True)
        await turns()
        assert [queue.paused for queue in await client.queues.list()] == [True]
        assert await client.status(job_id) is JobStatus.PENDING
        await client.pause("work", here=True)
        await client.resume("work")
        await until(client, [job_id], JobStatus.SUCCEEDED)


async def test_pause_outlives_its_client(place: Any) -> None:
    """The next one starts nothing of that queue, from its first claim on."""
    stage = Stage()
    stage.gate.set()
    async with Client(place, workers=0) as client:
        await client.pause("work")
        [job_id] = await client.add(Work(1)).save()
    again = Client(place)
    again.register(Work, stage.hold)
    again.register(Other, nothing)
    async with again:
        [beside] = await again.add(Other()).save()
        await until(again, [beside], JobStatus.SUCCEEDED)
        assert (await again.status(job_id), stage.numbers) == (JobStatus.PENDING, [])
    async with again:
        [beside] = await again.add(Other()).save()
        await until(again, [beside], JobStatus.SUCCEEDED)
        assert (await again.status(job_id), stage.numbers) == (JobStatus.PENDING, [])
        await again.resume("work")
        await until(again, [job_id], JobStatus.SUCCEEDED)


async def test_queue_that_is_paused_twice_is_resumed_once(place: Any) -> None:
    """A pause is a state, not a count; and a resume of what is not paused does nothing."""
    async with Client(place) as client:
        client.register(Work, nothing)
        await client.resume("work")
        await client.pause("work")
        await client.pause("work")
        [job_id] = await client.add(Work()).save()
        await client.resume("work")
        await until(client, [job_id], JobStatus.SUCCEEDED)


@pytest.mark.parametrize("whose", ["mine", "another's"])
async def test_pause_waits_until_none_of_the_queue_runs(place: Any, journal: Journal, whose: str) -> None:
    """In any client; jobs of other queues are not waited for."""
    stage, beside = Stage(), Stage()
    async with (
        running(place, stage.hold, stage.began) as (client, _),
        Client(place) as other,
    ):
        other.register(Other, beside.rest)
        await other.add(Other()).save()
        asked = client if whose == "mine" else other
        pausing = asyncio.create_task(asked.pause("work", wait=True))
        await journal.seen("queues.paused", count=2)
        await turns()
        assert not pausing.done()
        stage.gate.set()
        with anyio.fail_after(LIMIT):
            await pausing
        assert await client.open_store().running("work") == 0
        beside.gate.set()


async def test_pause_that_waits_hears_of_the_end(
    place: Any, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and need not look again and again."""
    monkeypatch.setattr("backlite_async._client.REST_LOOK", 1000.0)
    stage = Stage()
    async with (
        running(place, stage.hold, stage.began),
        Client(place, workers=0) as other,
    ):
        pausing = asyncio.create_task(other.pause("work", wait=True))
        await journal.seen("queues.paused")
        await turns()
        stage.gate.set()
        with anyio.fail_after(LIMIT):
            await pausing


async def test_pause_that_nobody_tells_looks_by_itself(
    place: Any, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end of which no news has come is seen at the next look."""
    monkeypatch.setattr("backlite_async._client.REST_LOOK", 0.001)
    monkeypatch.setattr(Client, "news", lambda self: None)
    stage = Stage()
    async with running(place, stage.hold, stage.began) as (client, _):
        pausing = asyncio.create_task(client.pause("work", wait=True))
        await journal.seen("queues.paused")
        stage.gate.set()
        with anyio.fail_after(LIMIT):
            await pausing


async def test_pause_here_waits_for_those_that_run_here(place: Any, journal: Journal) -> None:
    """Until their outcomes are stored; what runs in another client is left alone."""
    mine, theirs = Stage(), Stage()
    async with (
        running(place, theirs.hold, theirs.began) as (other, held),
        Client(place) as client,
    ):
        with anyio.fail_after(LIMIT):
            await client.pause("work", wait=True, here=True)
        await client.resume("work", here=True)
        await other.pause("work", here=True)
        client.register(Work, mine.hold)
        [job_id] = await client.add(Work(1)).save()
        await mine.wait()
        pausing = asyncio.create_task(client.pause("work", wait=True, here=True))
        await turns()
        assert not pausing.done()
        mine.gate.set()
        with anyio.fail_after(LIMIT):
            await pausing
        assert await client.status(job_id) is JobStatus.SUCCEEDED
        assert await client.status(held) is JobStatus.RUNNING
        theirs.gate.set()


async def test_pause_here_waits_until_outcomes_are_stored(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only until the handlers have ended."""
    stage = Stage()
    async with running(place, stage.hold, stage.began) as (client, job_id):
        finish = Gated(client, "finish", monkeypatch)
        pausing = asyncio.create_task(client.pause("work", wait=True, here=True))
        stage.gate.set()
        try:
            with anyio.fail_after(LIMIT):
                await finish.asked.wait()
            client.news()
            await turns()
            assert not pausing.done()
        finally:
            finish.gate.set()
        with anyio.fail_after(LIMIT):
            await pausing
        assert await client.status(job_id) is JobStatus.SUCCEEDED


async def test_pause_that_waits_is_given_up_by_cancelling_it(place: Any, journal: Journal) -> None:
    """The queue stays paused."""
    stage = Stage()
    async with running(place, stage.hold, stage.began) as (client, _):
        pausing = asyncio.create_task(client.pause("work", wait=True))
        with anyio.fail_after(LIMIT):
            while not client._waiting_for_news:
                await asyncio.sleep(0)
        pausing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pausing
        assert client._waiting_for_news == set()
        assert [queue.paused for queue in await client.queues.list()] == [True]
        stage.gate.set()


@pytest.mark.parametrize("here", [False, True])
async def test_handler_cannot_wait_for_itself(place: Any, journal: Journal, here: bool) -> None:
    """It may pause its own queue, but not wait until it rests; another queue it may."""
    errors: list[Exception] = []

    async def work(task: Work, job: JobContext) -> None:
        with anyio.fail_after(LIMIT):
            await job.client.pause("other", wait=True, here=here)
        try:
            await job.client.pause("work", wait=True, here=here)
        except InvalidState as error:
            errors.append(error)
        await job.client.pause("work", here=here)

    async with Client(place) as client:
        client.register(Work, work)
        first, second = [(await client.add(Work(number)).save())[0] for number in range(2)]
        await until(client, [first], JobStatus.SUCCEEDED)
        await turns()
        assert "waits for ever" in str(errors[0])
        await client.resume("work")
        await until(client, [second], JobStatus.SUCCEEDED)


async def test_paused_queue_is_unhindered_for_cancelling(place: Any) -> None:
    """Its jobs end all the same."""
    stage = Stage()
    async with running(place, stage.hold, stage.began) as (client, held):
        await client.pause("work")
        [pending] = await client.add(Work(1)).save()
        assert await client.cancel(held, pending) == 2
        await until(client, [held, pending], JobStatus.CANCELLED)


# -- heeding orders --------------------------------------------------------------------------------


class Orderly(MemoryStore):
    """A store that gives orders, or fails, as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.given = Orders()
        self.failing = 0
        self.looks = 0
        self.looked = asyncio.Event()

    async def orders(self, owner: str) -> Orders:
        self.looks += 1
        self.looked.set()
        if self.failing:
            self.failing -= 1
            raise DatabaseUnavailable("no disk")
        return self.given


@asynccontextmanager
async def heeding(
    store: Orderly,
) -> AsyncIterator[tuple[Heed, list[frozenset[str]], list[tuple[str, int]]]]:
    """Somebody who heeds, and what it has told."""
    paused: list[frozenset[str]] = []
    asked: list[tuple[str, int]] = []
    heed = Heed(
        store,
        Health("heed orders", set()),
        owner="me",
        paused=paused.append,
        cancel=lambda job_id, fence: asked.append((job_id, fence)),
    )
    task = asyncio.create_task(heed.run())
    try:
        with anyio.fail_after(LIMIT):
            await store.looked.wait()
        store.looked.clear()
        await turns()
        yield heed, paused, asked
    finally:
        heed.close()
        with anyio.fail_after(LIMIT):
            await task


async def look(store: Orderly, heed: Heed) -> None:
    store.looked.clear()
    heed.look()
    with anyio.fail_after(LIMIT):
        await store.looked.wait()
    await turns()


async def test_orders_are_heeded_from_the_start_and_told_as_they_change() -> None:
    """Pauses when they are others than before, what is to be cancelled again and again."""
    store = Orderly()
    store.given = Orders(paused=frozenset({"a"}), cancelled=[("x", 3)])
    async with heeding(store) as (heed, paused, asked):
        assert (paused, asked, heed.paused) == ([frozenset({"a"})], [("x", 3)], frozenset({"a"}))
        await look(store, heed)
        assert (paused, asked) == ([frozenset({"a"})], [("x", 3), ("x", 3)])
        store.given = Orders()
        await look(store, heed)
        assert (paused, asked) == ([frozenset({"a"}), frozenset()], [("x", 3), ("x", 3)])


async def test_many_calls_are_one_look() -> None:
    """Looks are some time apart, and none is forgotten."""
    store = Orderly()
    async with heeding(store) as (heed, _, _):
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            heed.look()
        await turns()
        assert store.looks == 1
        await look(store, heed)
        assert store.looks == 2
        assert asyncio.get_running_loop().time() - began >= LOOKS_APART / 2


async def test_call_during_a_look_is_not_lost() -> None:
    """It may have asked before the order was given."""
    store = Orderly()
    async with heeding(store) as (heed, _, asked):
        gate, original = asyncio.Event(), store.orders

        async def late(owner: str) -> Orders:
            found = await original(owner)
            await gate.wait()
            return found

        store.orders = late  # type: ignore[method-assign]
        await look(store, heed)
        store.given = Orders(cancelled=[("x", 1)])
        heed.look()
        store.looked.clear()
        gate.set()
        with anyio.fail_after(LIMIT):
            await store.looked.wait()
        await turns()
        assert asked == [("x", 1)]


async def test_trouble_is_outlived(journal: Journal) -> None:
    """Orders that could not be read are read when that is over, without another call."""
    store = Orderly()
    async with heeding(store) as (heed, _, asked):
        store.given, store.failing = Orders(cancelled=[("x", 1)]), 2
        heed.look()
        await journal.seen("store.recovered")
        assert (asked, store.looks) == ([("x", 1)], 4)


async def test_order_that_is_no_longer_wanted_is_looked_for_by_nobody() -> None:
    """After the end no timer is left."""
    store = Orderly()
    async with heeding(store) as (heed, _, _):
        heed.look()
        timer = heed._timer
        assert timer is not None
    heed.look()
    assert timer.cancelled()
    assert heed._timer is None
    assert store.looks == 1
