"""From `save()` to the handler: in one transaction where there are workers; in turns where there is much."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import aiosqlite
import anyio
import pytest

import backlite_async
from backlite_async import (
    Client,
    DatabaseUnavailable,
    InvalidState,
    JobContext,
    JobStatus,
    PayloadError,
    QueueConfig,
    Retention,
    Task,
)
from backlite_async._job import NewJob
from backlite_async.stores import MemoryStore
from backlite_async.stores.sqlite import claims, rows
from backlite_async.stores.sqlite.database import Database
from backlite_async.stores.sqlite.store import SQLiteStore

from .conftest import LIMIT, Journal
from .test_engine_guards import turns

KEEP = Retention(payload="always")
CHUNK = 10


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=KEEP)
    text: str = ""


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other", retention=KEEP)


async def nothing(task: Task) -> None:
    pass


async def settled(client: Client) -> None:
    """Wait until a client that has just started has looked around."""
    with anyio.fail_after(LIMIT):
        for _ in range(60):
            await client.status("nobody")
            await turns()


# -- the claim in the transaction that adds --------------------------------------------------------


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The write transactions that were begun: whether each is durable."""
    found: list[bool] = []
    original = Database.transact

    def transact(
        self: Database, function: Callable[[sqlite3.Connection], Any], *, durable: bool = True
    ) -> Any:
        found.append(durable)
        return original(self, function, durable=durable)

    monkeypatch.setattr(Database, "transact", transact)
    return found


async def test_add_and_claim_are_one_transaction(
    file: str, transactions: list[bool], journal: Journal
) -> None:
    """Where a worker is free; and `save()` has returned by the time the handler starts."""
    seen: list[tuple[int, bool]] = []
    saved = False

    async def work(task: Work) -> None:
        seen.append((len(transactions), saved))

    async with Client(file) as client:
        client.register(Work, work)
        await settled(client)
        for count in range(1, 6):
            transactions.clear()
            saved = False
            [job_id] = await client.add(Work()).save()
            saved = True
            assert len(seen) == count - 1
            await journal.ended(job_id)
    assert seen == [(1, True)] * 5


async def test_handler_starts_after_the_commit(file: str, journal: Journal) -> None:
    """Others see the job running when its handler begins."""
    seen: list[tuple[str, str]] = []

    async def work(task: Work, job: JobContext) -> None:
        with sqlite3.connect(file) as other:
            seen.extend(other.execute("SELECT id, status FROM backlite_jobs").fetchall())
        other.close()

    async with Client(file) as client:
        client.register(Work, work)
        await settled(client)
        [job_id] = await client.add(Work()).save()
        await journal.ended(job_id)
    assert [job for job, _ in seen] == [job_id]


async def test_job_for_later_asks_for_no_claim(file: str, transactions: list[bool]) -> None:
    """There is nothing to claim yet."""
    async with Client(file) as client:
        client.register(Work, nothing)
        await settled(client)
        transactions.clear()
        await client.add(Work()).wait(3600).save()
        await settled(client)
        assert transactions == [True]


async def test_kinds_that_are_added_together_are_all_seen(file: str, journal: Journal) -> None:
    """Though the first of them has no handler here."""
    async with Client(file) as client:
        client.register(Work, nothing)
        await settled(client)
        _, job_id = await client.add(Other(), Work()).save()
        await journal.ended(job_id)


async def test_next_of_several_for_later_is_waited_for(file: str, journal: Journal) -> None:
    """Also where it is a claim that tells when that is, because there was a job to take."""
    async with Client(file) as client:
        [later] = await client.add(Work()).wait(0.3).save()
        await client.add(Work()).wait(3600).save()
        [now] = await client.add(Work()).save()
        client.register(Work, nothing)
        await journal.ended(now, later)


async def waiting(store: SQLiteStore, count: int) -> None:
    """Wait until so many writes wait behind those on their way."""
    with anyio.fail_after(LIMIT):
        while store._commits is None or not store._commits.writing or len(store._commits._waiting) != count:
            await asyncio.sleep(0)


async def test_client_that_finds_nothing_writes_nothing(file: str, transactions: list[bool]) -> None:
    """Looking around takes no write lock."""
    async with Client(file) as client:
        client.register(Work, nothing)
        await settled(client)
        transactions.clear()
        client.notify()
        await settled(client)
        assert transactions == []


async def test_claim_sees_what_was_added_after_it_was_asked_for(file: str, journal: Journal) -> None:
    """In the same group; so nobody has to look again."""
    async with Client(file) as client:
        client.register(Work, nothing)
        await settled(client)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        store = client.open_store()
        assert isinstance(store, SQLiteStore)
        probing = asyncio.create_task(store.probe())
        await waiting(store, 0)
        client.notify()
        await waiting(store, 1)
        saving = asyncio.create_task(client.add(Work()).wait(0.01).save())
        await waiting(store, 2)
        other.execute("COMMIT")
        other.close()
        await probing
        await journal.ended(*await saving)


async def test_adds_of_one_group_are_all_stored(file: str, transactions: list[bool]) -> None:
    """Those that wait together are written at once, each whole, in their order."""
    async with Client(file, workers=0) as client:
        await client.add(Work()).save()  # which declares the queue
        transactions.clear()
        saves = [client.add(*[Work(f"{n} of {count}") for n in range(count)]).save() for count in (1, 3, 2)]
        groups = await asyncio.gather(*saves)
        assert transactions == [True]
        assert [len(group) for group in groups] == [1, 3, 2]
        for count, group in zip((1, 3, 2), groups, strict=True):
            for number, job_id in enumerate(group):
                found = await client.get(job_id)
                assert found is not None
                assert found.payload == f'{{"text":"{number} of {count}"}}'.encode()


async def test_add_that_fails_takes_nothing_with_it(
    file: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the claim nor the other adds of its group."""
    original = rows.add

    def add(raw: sqlite3.Connection, jobs: Sequence[NewJob]) -> None:
        if any(b"bad" in job.payload for job in jobs):
            raise sqlite3.OperationalError("this add fails")
        original(raw, jobs)

    monkeypatch.setattr(rows, "add", add)
    async with Client(file) as client:
        client.register(Work, nothing)
        await settled(client)
        saves = [client.add(Work(text)).save() for text in ("good", "bad", "better")]
        first, second, third = await asyncio.gather(*saves, return_exceptions=True)
        assert isinstance(second, Exception)
        assert isinstance(first, list)
        assert isinstance(third, list)
        await journal.ended(*first, *third)
        assert len(journal.of("job.started")) == 2


async def test_claim_that_fails_takes_no_add_with_it(
    file: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is added all the same, and runs once claims work again."""
    original = claims.claim
    failures = 0

    def claim(raw: sqlite3.Connection, *arguments: Any, **options: Any) -> Any:
        nonlocal failures
        if failures < 2:
            failures += 1
            raise sqlite3.OperationalError("this claim fails")
        return original(raw, *arguments, **options)

    async with Client(file) as client:
        client.register(Work, nothing)
        await settled(client)
        monkeypatch.setattr(claims, "claim", claim)
        [job_id] = await client.add(Work()).save()
        assert await client.status(job_id) is JobStatus.PENDING
        await journal.ended(job_id)
    assert failures == 2


async def test_others_are_rung_also_where_one_has_claimed(file: str, journal: Journal) -> None:
    """Who adds may not have the handler, or a free worker."""
    ran: list[str] = []
    gate = asyncio.Event()

    def noting(name: str) -> Callable[[Task], Any]:
        async def handle(task: Task) -> None:
            ran.append(name)
            await gate.wait()

        return handle

    async with Client(file, workers=1) as adding, Client(file, workers=1) as helping:
        adding.register(Work, noting("adding"))
        helping.register(Work, noting("helping"))
        helping.register(Other, nothing)
        await settled(adding)
        await settled(helping)
        await journal.ended(*await adding.add(Other()).save())
        first, second = await adding.add(Work(), Work()).save()
        await journal.seen("job.started", first)
        await journal.seen("job.started", second)
        gate.set()
    assert sorted(ran) == ["adding", "helping"]


# -- many tasks ------------------------------------------------------------------------------------


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backlite_async._maker.CHUNK", CHUNK)


@pytest.mark.usefixtures("_small_chunks")
async def test_others_get_their_turns(database: str) -> None:
    """Between any two chunks; and the ids come in the order of the tasks."""
    turn = 0
    met: list[int] = []

    async def tick() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async with Client(database, workers=0) as client:
        ticking = asyncio.create_task(tick())
        original = client.ids.next

        def next_id() -> str:
            met.append(turn)
            return original()

        client.ids.next = next_id  # type: ignore[method-assign]
        ids = await client.add(*[Work(str(number)) for number in range(4 * CHUNK + 5)]).save()
        ticking.cancel()
        assert ids == sorted(ids)
        assert len(set(ids)) == 4 * CHUNK + 5
        assert list(Counter(met).values()) == [CHUNK] * 4 + [5]
        found = await client.get(ids[3 * CHUNK + 1])
        assert found is not None
        assert found.payload == b'{"text":"31"}'


@pytest.mark.usefixtures("_small_chunks")
async def test_bad_task_in_a_later_chunk_stores_nothing(database: str) -> None:
    """And is named by its place among all."""
    async with Client(database, workers=0, max_payload=50) as client:
        tasks = [Work("x" * 60 if number == 33 else "") for number in range(45)]
        operation = client.add(*tasks)
        with pytest.raises(PayloadError, match=r"task 34 of 45"):
            await operation.save()
        assert await client.open_store().kinds() == []


@pytest.mark.usefixtures("_small_chunks")
async def test_cancellation_between_chunks_stores_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operation can be saved again, as if it had not been tried."""
    again = recording(monkeypatch)
    async with Client(database, workers=0) as client:
        operation = client.add(*[Work() for _ in range(45)])
        saving = asyncio.create_task(operation.save())
        await turns(2)
        with pytest.raises(InvalidState, match="being saved"):
            await operation.save()
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert await client.open_store().kinds() == []
        ids = await operation.save()
        assert [await client.status(job_id) for job_id in ids] == [JobStatus.PENDING] * 45
        with pytest.raises(InvalidState, match="saved"):
            await operation.save()
    assert again == [False]


def recording(monkeypatch: pytest.MonkeyPatch, *, lost: int = 0, stored: bool = True) -> list[bool]:
    """Note what each add is told of earlier tries; the first few fail, though they may have done it."""
    found: list[bool] = []

    def replace(kind: type[MemoryStore | SQLiteStore]) -> None:
        original = kind.add

        async def add(self: Any, jobs: Sequence[NewJob], *, again: bool = False, **options: Any) -> None:
            found.append(again)
            if stored or len(found) > lost:
                await original(self, jobs, again=again, **options)
            if len(found) <= lost:
                raise DatabaseUnavailable("disk I/O error")

        monkeypatch.setattr(kind, "add", add)

    replace(MemoryStore)
    replace(SQLiteStore)
    return found


@pytest.mark.parametrize("stored", [True, False])
async def test_add_whose_answer_was_lost_is_not_done_twice(
    database: str, stored: bool, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try says that it is one, and stores what is missing, in its order."""
    again = recording(monkeypatch, lost=2, stored=stored)
    ran: list[str] = []

    async def work(task: Work) -> None:
        ran.append(task.text)

    async with Client(database, workers=1) as client:
        operation = client.add(*[Work(str(number)) for number in range(20)])
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                await operation.save()
        ids = await operation.save()
        client.register(Work, work)
        await journal.ended(*ids)
        await turns()
    assert again == [False, True, True]
    assert ran == [str(number) for number in range(20)]


async def test_jobs_of_a_transaction_keep_their_order(file: str, journal: Journal) -> None:
    """Those that are added by the application's own connection start as they were added."""
    ran: list[str] = []

    async def work(task: Work) -> None:
        ran.append(task.text)

    async with Client(file, workers=1) as client, aiosqlite.connect(file) as connection:
        client.register(Work, work)
        await connection.execute("BEGIN IMMEDIATE")
        ids = await client.add(*[Work(str(number)) for number in range(20)]).tx(connection).save()
        await connection.commit()
        await journal.ended(*ids)
    assert ran == [str(number) for number in range(20)]


# -- the end of the process ------------------------------------------------------------------------

LATE = """
import asyncio, sys, threading, time
sys.path[:0] = {paths!r}
from backlite_async import Client
from backlite_async.stores.sqlite.store import SQLiteStore
from tests.test_handing_over import Work

began, go_on = threading.Event(), threading.Event()
finish_now = SQLiteStore.finish_now

def slowly(self, outcomes):
    time.sleep(0.5)
    return finish_now(self, outcomes)

SQLiteStore.finish_now = slowly

def work(task):
    began.set()
    go_on.wait()

async def main():
    client = Client({file!r})
    client.register(Work, work)
    await client.start()
    [job_id] = await client.add(Work()).save()
    await asyncio.to_thread(began.wait)
    assert await client.stop(0) is False
    go_on.set()
    print(job_id)

asyncio.run(main())
"""


async def test_late_outcome_is_written_before_the_process_ends(file: str) -> None:
    """A thread that ends after its client has its outcome written, however slow that is."""
    paths = [str(Path(module).parents[1]) for module in (backlite_async.__file__, __file__)]
    program = LATE.format(paths=paths, file=file)
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT
    )
    assert ended.returncode == 0, ended.stderr
    async with Client(file, workers=0) as client:
        assert await client.status(ended.stdout.strip()) is JobStatus.SUCCEEDED
