"""What keeps the engine right when something beside it goes wrong; each guard by itself."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import anyio
import pytest

from backlite_async import (
    Client,
    DatabaseUnavailable,
    Discard,
    InvalidState,
    JobContext,
    JobStatus,
    QueueConfig,
    Retention,
    SystemClock,
    Task,
)
from backlite_async import _dispatcher as dispatcher
from backlite_async._events import Bus
from backlite_async._health import FIRST_PAUSE, LONGEST_PAUSE, Health
from backlite_async._job import Claim, ClaimedJob, Lane, Limit, NewJob, Outcome, Reschedule
from backlite_async._outcome import Result, conclude
from backlite_async._registry import Registry
from backlite_async._takeover import Takeover
from backlite_async.stores import MemoryStore
from backlite_async.stores.sqlite.locks import side_folder
from backlite_async.stores.sqlite.owners import SLOT

from .conftest import LIMIT, Journal

KEEP = Retention(payload="always")


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=3, max_crashes=2, retention=KEEP)
    number: int = 0


class Colour(Task):
    config: ClassVar[QueueConfig] = QueueConfig("colour", retention=KEEP)
    name: Literal["red", "blue"]


def new(job_id: str, queue: str = "work", task: str = "Work", payload: bytes = b'{"number":1}') -> NewJob:
    return NewJob(id=job_id, queue=queue, task=task, payload=payload, max_attempts=3, created_at=0, due_at=0)


async def turns(count: int = 20) -> None:
    """Let the event loop turn a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


# -- the dispatcher --------------------------------------------------------------------------------


async def test_no_more_jobs_at_once_than_there_are_workers(journal: Journal) -> None:
    """A job waits until a worker is free."""
    running, most = 0, 0

    async def work(task: Work) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await turns()
        running -= 1

    async with Client(":memory:", workers=2) as client:
        client.register(Work, work)
        await journal.ended(*await client.add(*[Work(number) for number in range(10)]).save())
    assert most == 2


def written_down(file: str) -> list[str]:
    """Return the jobs that another process would take for started, if this one died now."""
    (path,) = Path(side_folder(file)).glob("*.owner")
    content = path.read_bytes()
    slots = (content[begin : begin + SLOT] for begin in range(SLOT, len(content), SLOT))
    return [slot[1 : 1 + slot[0]].decode().split()[1] for slot in slots if slot[0]]


async def test_only_jobs_that_run_count_as_started(file: str, journal: Journal) -> None:
    """A job is written down before its handler begins, and crossed out once its outcome is written."""
    seen: list[list[str]] = []

    async def work(task: Work, job: JobContext) -> None:
        seen.append(written_down(file))

    async with Client(file) as client:
        client.register(Work, work)
        [job_id] = await client.add(Work()).save()
        await journal.ended(job_id)
        assert seen == [[job_id]]
        assert written_down(file) == []


class Failing(MemoryStore):
    """A store that writes no outcomes while it is told not to, and counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.works = True
        self.tries = 0

    async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        self.tries += 1
        if not self.works:
            raise DatabaseUnavailable("no space")
        return await super().finish(outcomes)


async def test_nothing_is_claimed_while_outcomes_cannot_be_written(journal: Journal) -> None:
    """Jobs that could not be completed are not begun: they would run again."""
    store = Failing()
    started: list[int] = []

    async def work(task: Work) -> None:
        started.append(task.number)

    async with Client(store) as client:
        client.register(Work, work)
        store.works = False
        [first] = await client.add(Work(1)).save()
        await journal.seen("store.failing")
        [second] = await client.add(Work(2)).save()
        with anyio.fail_after(LIMIT):
            while store.tries < 4:
                await asyncio.sleep(0.001)
        assert started == [1]
        store.works = True
        await journal.ended(first, second)
    assert started == [1, 2]


class Slow(MemoryStore):
    """A store whose claims take a while of its clock's time."""

    def __init__(self, clock: Stepping) -> None:
        super().__init__()
        self.clock = clock
        self.renewed: list[str] = []

    async def claim(
        self,
        lanes: Sequence[Lane],
        *,
        owner: str,
        now: int,
        until: int,
        limits: Sequence[Limit] = (),
        taking: Callable[[Sequence[ClaimedJob]], None] | None = None,
    ) -> Claim:
        found = await super().claim(lanes, owner=owner, now=now, until=until, limits=limits, taking=taking)
        self.clock.ahead += 6.0 * bool(found.jobs)
        return found

    def renew(self, claims: Iterable[tuple[str, int]], *, until: int) -> set[str]:
        claims = list(claims)
        self.renewed += [job_id for job_id, _ in claims]
        return super().renew(claims, until=until)


class Stepping(SystemClock):
    """The computer's clocks, both ahead by as much as one says."""

    ahead = 0.0

    def now(self) -> int:
        return super().now() + round(self.ahead * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


async def test_claim_that_was_long_in_coming_is_renewed_at_once(journal: Journal) -> None:
    """A lease begins when the claim is asked for; after a slow one little of it may be left."""
    clock = Stepping()
    store = Slow(clock)
    renewed: list[list[str]] = []

    async def work(task: Work) -> None:
        renewed.append(list(store.renewed))

    async with Client(store, clock=clock, lease=30.0) as client:
        client.register(Work, work)
        [job_id] = await client.add(Work()).save()
        await journal.ended(job_id)
    assert renewed == [[job_id]]


class Inhabited(MemoryStore):
    """A store with another owner, who lives."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def beat_of(self, owner: str) -> float | None:
        self.looks += 1
        return 1000.0


async def test_owner_that_lives_is_not_robbed_at_the_end_of_its_lease() -> None:
    """A lease that has ended is no proof: its owner has one more renewal period."""
    store = Inhabited()
    await store.add([new("a")])
    await store.claim([Lane(kinds=(("work", "Work"),), room=1)], owner="other", now=10, until=20)
    async with Client(store) as client:
        client.register(Work, never)
        with anyio.fail_after(LIMIT):
            while store.looks < 3:
                client.notify()
                await asyncio.sleep(0.001)
        assert await client.status("a") is JobStatus.RUNNING


async def never(task: Work) -> None:
    raise AssertionError("this job is another's")


async def test_job_that_was_taken_away_is_not_run_beside_itself(journal: Journal) -> None:
    """A job that others have taken from us, and given back, is left to them while it still runs here."""
    store = MemoryStore()
    go_on = asyncio.Event()
    fences: list[int] = []

    async def work(task: Work, job: JobContext) -> None:
        fences.append(job.fence)
        await go_on.wait()

    async with Client(store, stop_timeout=0.1) as client:
        client.register(Work, work)
        [job_id] = await client.add(Work()).save()
        await journal.seen("job.started", job_id)
        taken = Reschedule(id=job_id, fence=fences[0], due_at=0, attempt=0, crashes=0)
        assert await store.finish([taken]) == set()
        await journal.seen("job.given_back", job_id)
        record = await client.get(job_id)
        assert record is not None
        assert (record.status, record.attempt) == (JobStatus.PENDING, 0)
        go_on.set()
        await journal.seen("job.lease_lost", job_id)
    assert len(fences) == 1


async def test_stop_gives_back_what_waits_to_run_alone(journal: Journal) -> None:
    """A job that waits until it can run alone is given back by a stop, as if it had not been claimed."""
    store = MemoryStore()
    await store.add([new("poison")])
    claim = await store.claim([Lane(kinds=(("work", "Work"),), room=1)], owner="dead", now=1, until=2)
    [job] = claim.jobs
    outcome = Reschedule(id=job.id, fence=job.fence, due_at=0, attempt=0, crashes=1)
    assert await store.finish([outcome]) == set()
    client = Client(store, workers=3)
    await client.start()
    client.register(Colour, hold)
    [busy] = await client.add(Colour("red")).save()
    await journal.seen("job.started", busy)
    client.register(Work, hold)
    with anyio.fail_after(LIMIT):
        while await client.status("poison") is not JobStatus.RUNNING:
            await asyncio.sleep(0.001)
    await client.stop(0)
    assert len(journal.of("job.started")) == 1
    for job_id in (busy, "poison"):
        record = await store.get(job_id, now=0)
        assert record is not None
        assert (record.status, record.attempt) == (JobStatus.PENDING, 0)


async def hold(task: Task) -> None:
    await asyncio.Event().wait()


async def test_stop_does_not_wait_for_a_lock(
    file: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where outcomes cannot be written in time, a stop gives up waiting for the database, too."""
    monkeypatch.setattr("backlite_async._dispatcher.WRITE_GRACE", 0.1)
    monkeypatch.setattr("backlite_async._client.WRITE_GRACE", 0.1)
    go_on = asyncio.Event()
    client = Client(file, busy_timeout=LIMIT)

    async def work(task: Work) -> None:
        await go_on.wait()

    client.register(Work, work)
    await client.start()
    [job_id] = await client.add(Work()).save()
    await journal.seen("job.started", job_id)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    go_on.set()
    with anyio.fail_after(LIMIT / 2):
        assert await client.stop(0.1) is False
    other.close()


# -- the workers -----------------------------------------------------------------------------------


async def test_handler_that_makes_an_error_of_its_cancellation_is_given_back(journal: Journal) -> None:
    """What a handler raises because a stop has cancelled it costs no attempt, whatever it is."""
    store = MemoryStore()
    client = Client(store)

    async def work(task: Work) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("interrupted") from None

    client.register(Work, work)
    await client.start()
    [job_id] = await client.add(Work()).save()
    await journal.seen("job.started", job_id)
    assert await client.stop(0) is False
    record = await store.get(job_id, now=0)
    assert record is not None
    assert (record.status, record.attempt) == (JobStatus.PENDING, 0)


async def test_values_of_a_payload_are_told_nobody(journal: Journal) -> None:
    """A payload that does not decode is an error that names the field, and not what is in it."""
    store = MemoryStore()
    await store.add([new("a", "colour", "Colour", b'{"name":"my secret"}')])

    async def colour(task: Colour) -> None:
        raise AssertionError("nobody can run this")

    async with Client(store) as client:
        client.register(Colour, colour)
        await journal.ended("a")
        record = await client.get("a")
    assert record is not None
    assert record.error is not None
    assert "name" in record.error
    assert "secret" not in record.error
    assert not any("secret" in line for line in journal.lines)


async def test_what_steers_a_job_keeps_no_frames(monkeypatch: pytest.MonkeyPatch, journal: Journal) -> None:
    """An exception that is kept until its outcome is written does not keep the handler's variables."""
    steered: list[Result] = []

    def spy(job: ClaimedJob, config: QueueConfig, result: Result, spread: float) -> Any:
        steered.append(result)
        return conclude(job, config, result, spread)

    async def work(task: Work) -> None:
        raise Discard("enough")

    monkeypatch.setattr(dispatcher, "conclude", spy)
    async with Client(":memory:") as client:
        client.register(Work, work)
        await journal.ended(*await client.add(Work()).save())
    [result] = steered
    assert result.steer is not None
    assert result.steer.__traceback__ is None


async def test_job_that_has_completed_itself_begins_no_other_block(file: str, journal: Journal) -> None:
    """What is written after the completion could not be undone with it."""
    refused: list[str] = []

    async def work(task: Work, job: JobContext) -> None:
        async with job.transaction():
            pass
        with suppress(InvalidState):
            async with job.transaction():
                refused.append("not at all")
            return
        refused.append("InvalidState")

    async with Client(file) as client:
        client.register(Work, work)
        [job_id] = await client.add(Work()).save()
        await journal.ended(job_id)
        await client.stop()
    assert refused == ["InvalidState"]


# -- health and takeover ---------------------------------------------------------------------------


def test_pauses_grow_up_to_a_limit() -> None:
    """A database that cannot be used is tried ever less often, but never given up."""
    health = Health("try", set())
    pauses = [health.failed(DatabaseUnavailable("no space")) for _ in range(12)]
    assert pauses[0] == FIRST_PAUSE
    assert all(later == min(2 * sooner, LONGEST_PAUSE) for sooner, later in itertools.pairwise(pauses))
    assert pauses[-1] == LONGEST_PAUSE
    health.succeeded()
    assert health.failed(DatabaseUnavailable("no space")) == FIRST_PAUSE


class Corpse:
    """A dead owner that had started one of its jobs."""

    id = "dead"

    def __init__(self) -> None:
        self.buried = self.left = False

    def started(self, job_id: str, fence: int) -> bool:
        return job_id == "started"

    def bury(self) -> None:
        self.buried = True

    def leave(self) -> None:
        self.left = True


class Graveyard(Failing):
    """A store with dead owners."""

    def __init__(self) -> None:
        super().__init__()
        self.corpses: list[Corpse] = []

    def dead_owners(self) -> Sequence[Corpse]:
        return [corpse for corpse in self.corpses if not corpse.buried]


@pytest.fixture
async def graveyard() -> Graveyard:
    """Return a store with a dead owner and two of its jobs."""
    store = Graveyard()
    store.corpses.append(Corpse())
    await store.add([new("started"), new("claimed")])
    await store.claim([Lane(kinds=(("work", "Work"),), room=2)], owner="dead", now=1, until=10**15)
    return store


def takeover(store: Graveyard) -> Takeover:
    clock = SystemClock()
    health = Health("take over", set())
    return Takeover(store, clock, Registry(), health, bus=Bus(clock), released=lambda: None)


async def test_starts_of_the_dead_are_counted_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate need not wait for leases that nobody renews; what cannot be stored is tried again."""
    store, told, works = Graveyard(), list[list[str]](), False
    store.corpses.append(Corpse())

    async def end_starts(owners: Sequence[str], *, now: int) -> None:
        told.append(list(owners))
        if not works:
            raise DatabaseUnavailable("disk full")

    monkeypatch.setattr(store, "end_starts", end_starts)
    taking = takeover(store)
    with pytest.raises(DatabaseUnavailable):
        await taking._take_over()
    assert len(store.dead_owners()) == 1, "somebody else may have to do it"
    works = True
    await taking._take_over()
    assert not store.dead_owners()
    await taking._take_over()
    assert told == [["dead"], ["dead"]]


async def test_only_what_had_started_counts_a_crash(graveyard: Graveyard) -> None:
    """A job that was only claimed by a dead process goes back as if it had not been."""
    await takeover(graveyard)._take_over()
    assert graveyard.corpses[0].buried
    rows = graveyard._live.rows
    assert {job_id: (row.crashes, row.attempt) for job_id, row in rows.items()} == {
        "started": (1, 0),
        "claimed": (0, 0),
    }
    assert {row.status for row in rows.values()} == {JobStatus.PENDING}


async def test_owner_is_buried_once_its_jobs_are_released(graveyard: Graveyard) -> None:
    """Where that fails it is left to the next one who looks, and its jobs stay its own."""
    graveyard.works = False
    with pytest.raises(DatabaseUnavailable):
        await takeover(graveyard)._take_over()
    [corpse] = graveyard.corpses
    assert (corpse.buried, corpse.left) == (False, True)
    graveyard.works = True
    await takeover(graveyard)._take_over()
    assert corpse.buried


LEADER = """
import asyncio, os, sys
from backlite_async._job import Owner
from backlite_async.stores.sqlite.store import SQLiteStore

async def main():
    store = SQLiteStore(sys.argv[1], durability="full", busy_timeout=5.0)
    await store.open(install=True, owner=Owner(id="leader", beat=1.0, slots=1))
    assert store.leads()
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # by now it has forgotten what it must not have
    sys.stdin.read()
    os._exit(0)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_child_of_a_dead_process_keeps_none_of_its_locks(file: str) -> None:
    """A lock that a forked child had inherited would keep all others from leading while it lives."""
    import fcntl

    command = [sys.executable, "-P", "-W", "ignore", "-c", LEADER, file]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(parent.pid, 9)
    parent.wait(LIMIT)
    try:
        os.kill(child, 0)  # it lives
        with open(os.path.join(side_folder(file), "upkeep.lock"), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child, 9)
        parent.communicate()
