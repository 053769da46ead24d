"""`job.transaction()`: what a handler writes and its job's completion are one commit, or nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

import aiosqlite
import anyio
import pytest

from backlite_async import (
    Client,
    InvalidState,
    JobContext,
    JobStatus,
    PayloadError,
    QueueConfig,
    Retention,
    Task,
    TransactionTimeout,
)

from .conftest import LIMIT, Journal


class Transfer(Task):
    config: ClassVar[QueueConfig] = QueueConfig("transfer", max_attempts=1, retention=Retention())
    amount: int = 1


class Receipt(Task):
    config: ClassVar[QueueConfig] = QueueConfig("receipt", retention=Retention())


Handler = Callable[[Transfer, JobContext], Awaitable[None]]


def rows(file: str, sql: str = "SELECT amount FROM ledger") -> list[tuple[object, ...]]:
    connection = sqlite3.connect(file)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def run(
    file: str, journal: Journal, handler: Handler, *, lease: float = 30.0, event: str = "job.succeeded"
) -> str:
    """Run one job and return its id, once the event is logged for it."""
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE ledger (amount INTEGER NOT NULL CHECK (amount > 0))")
    connection.close()
    async with Client(file, lease=lease) as client:
        client.register(Transfer, handler)
        [job_id] = await client.add(Transfer(3)).save()
        await journal.seen(event, job_id)
        record = await client.get(job_id)
        assert record is not None
        expected = JobStatus.FAILED if event == "job.failed" else JobStatus.SUCCEEDED
        assert record.status is expected
    return job_id


async def test_nothing_else_is_changed_inside(file: str, journal: Journal) -> None:
    """A cancellation, a pause and a resume would wait for the block that they are in; so they say so."""
    said = []

    async def transfer(task: Transfer, job: JobContext) -> None:
        async with job.transaction():
            for call in (job.client.cancel("id"), job.client.pause("q"), job.client.resume("q")):
                with pytest.raises(InvalidState, match="before or after the block") as refused:
                    await call
                said.append(refused.value)
        await job.client.pause("q")

    client = Client(file)
    client.register(Transfer, transfer)
    async with client:
        await client.add(Transfer()).save()
        await journal.seen("job.succeeded")
    assert len(said) == 3


async def test_effects_and_completion_are_one(file: str, journal: Journal) -> None:
    """At the end of the block both are there; the return of the handler adds nothing to it."""

    async def transfer(task: Transfer, job: JobContext) -> None:
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO ledger VALUES (?)", (task.amount,))
            assert await job.client.status(job.id) is JobStatus.RUNNING
            assert rows(file) == []
        assert await job.client.status(job.id) is JobStatus.SUCCEEDED
        assert rows(file) == [(3,)]

    await run(file, journal, transfer)
    assert rows(file) == [(3,)]
    assert not journal.of("job.lease_lost")


async def test_an_error_in_the_block_leaves_nothing(file: str, journal: Journal) -> None:
    """The writes are undone, and the attempt has failed like any other."""

    async def transfer(task: Transfer, job: JobContext) -> None:
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO ledger VALUES (1)")
            raise ValueError("on second thoughts")

    await run(file, journal, transfer, event="job.failed")
    assert rows(file) == []


async def test_an_error_after_the_block_changes_nothing(file: str, journal: Journal) -> None:
    """The job has succeeded; the error is logged."""

    async def transfer(task: Transfer, job: JobContext) -> None:
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO ledger VALUES (1)")
        raise ValueError("too late")

    job_id = await run(file, journal, transfer)
    [line] = await journal.seen("job.raised_late", job_id)
    assert "too late" in line
    assert rows(file) == [(1,)]


async def test_jobs_are_added_inside(file: str, journal: Journal) -> None:
    """With the block's connection they exist if it commits; a plain save would wait for itself."""

    async def transfer(task: Transfer, job: JobContext) -> None:
        with pytest.raises(InvalidState, match=r"\.tx\(connection\)"):
            async with job.transaction():
                await job.client.add(Receipt()).save()
        async with job.transaction() as connection:
            await job.client.add(Receipt()).tx(connection).save()
            assert rows(file, "SELECT count(*) FROM backlite_jobs") == [(1,)]
        await job.client.add(Receipt()).save()

    received = []

    async def receive(task: Receipt, job: JobContext) -> None:
        received.append(job.id)

    await Client(file).install()
    client = Client(file)
    client.register(Transfer, transfer)
    client.register(Receipt, receive)
    async with client:
        await client.add(Transfer()).save()
        await journal.seen("job.succeeded", count=3)
    assert len(received) == 2


async def test_a_result_is_kept_with_the_job(file: str, journal: Journal) -> None:
    """What is set inside the block is stored as JSON; outside, or as what JSON is not, it is refused."""
    found = []

    async def transfer(task: Transfer, job: JobContext) -> None:
        with pytest.raises(InvalidState, match="inside"):
            job.result = 1
        async with job.transaction():
            with pytest.raises(PayloadError, match="result cannot be encoded"):
                job.result = object()
            job.result = {"big": 2**60 + 1, "exact": 0.1, "text": "ß"}
        found.append(job.result)

    job_id = await run(file, journal, transfer)
    async with Client(file, workers=0) as client:
        record = await client.get(job_id)
    assert record is not None
    assert record.result == '{"big":1152921504606846977,"exact":0.1,"text":"ß"}'.encode()
    assert found == [{"big": 2**60 + 1, "exact": 0.1, "text": "ß"}]


async def test_a_claim_that_was_lost_undoes_the_block(file: str, journal: Journal) -> None:
    """Who no longer holds the job cannot leave anything behind, and is told."""
    raised: list[str] = []

    async def transfer(task: Transfer, job: JobContext) -> None:
        connection = sqlite3.connect(file, isolation_level=None)
        connection.execute("UPDATE backlite_jobs SET fence = fence + 1")
        connection.close()
        try:
            async with job.transaction() as block:
                await block.execute("INSERT INTO ledger VALUES (1)")
        except Exception as error:
            raised.append(type(error).__name__)
            raise

    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE ledger (amount INTEGER NOT NULL)")
    connection.close()
    async with Client(file) as client:
        client.register(Transfer, transfer)
        [job_id] = await client.add(Transfer()).save()
        await journal.seen("job.lease_lost", job_id)
        connection = sqlite3.connect(file, isolation_level=None)
        connection.execute("DELETE FROM backlite_jobs")  # nobody has the claim that we gave it
        connection.close()
    assert raised == ["LeaseLost"]
    assert rows(file) == []


@pytest.mark.parametrize("blocking", [False, True], ids=["waits", "blocks the loop"])
async def test_a_block_that_takes_too_long_is_rolled_back(
    file: str, journal: Journal, blocking: bool
) -> None:
    """It keeps everybody from writing, so its time is limited, whatever the handler does."""
    raised: list[BaseException] = []

    async def transfer(task: Transfer, job: JobContext) -> None:
        try:
            async with job.transaction() as connection:
                await connection.execute("INSERT INTO ledger VALUES (1)")
                if blocking:
                    until = time.monotonic() + 0.6
                    while time.monotonic() < until:
                        pass
                else:
                    await anyio.sleep_forever()
        except TransactionTimeout as error:
            raised.append(error)
            raise

    await run(file, journal, transfer, lease=0.9, event="job.failed")
    assert "0.27 s" in str(raised[0])
    assert rows(file) == []


async def test_a_blocked_loop_does_not_keep_others_from_writing(file: str, journal: Journal) -> None:
    """A thread ends the transaction of a handler that cannot be told to."""
    wrote: list[bool] = []

    async def transfer(task: Transfer, job: JobContext) -> None:
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO ledger VALUES (1)")
            other = sqlite3.connect(file, timeout=LIMIT, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")  # blocks the event loop until the block is rolled back
            wrote.append(True)
            other.close()

    await run(file, journal, transfer, lease=0.9, event="job.failed")
    assert wrote == [True]
    assert rows(file) == []


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "END", "BEGIN"])
async def test_the_block_is_ended_by_its_end_alone(file: str, journal: Journal, statement: str) -> None:
    """A COMMIT inside would part the writes from the completion, so it is refused."""

    async def transfer(task: Transfer, job: JobContext) -> None:
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO ledger VALUES (1)")
            with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
                await connection.execute(statement)
            if statement == "COMMIT":
                with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
                    await connection.commit()
            await connection.execute("SAVEPOINT mine")
            await connection.execute("INSERT INTO ledger VALUES (2)")
            await connection.execute("ROLLBACK TO mine")

    await run(file, journal, transfer)
    assert rows(file) == [(1,)]


async def test_nothing_is_written_after_sqlite_has_rolled_back(file: str, journal: Journal) -> None:
    """After a statement that ends the transaction by its failure no other is committed by itself."""

    async def transfer(task: Transfer, job: JobContext) -> None:
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO ledger VALUES (1)")
            with pytest.raises(sqlite3.IntegrityError):
                await connection.execute("INSERT OR ROLLBACK INTO ledger VALUES (-1)")
            with pytest.raises(sqlite3.DatabaseError):
                await connection.execute("INSERT INTO ledger VALUES (2)")

    await run(file, journal, transfer, event="job.failed")
    assert rows(file) == []


async def test_a_connection_closed_inside_is_an_error(file: str, journal: Journal) -> None:
    """The block says so, and nothing of it stays."""

    async def transfer(task: Transfer, job: JobContext) -> None:
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO ledger VALUES (1)")
            await connection.close()

    job_id = await run(file, journal, transfer, event="job.failed")
    assert "closed inside the block" in journal.of("job.failed", job_id)[0]
    assert rows(file) == []


async def test_a_job_completes_once(file: str, journal: Journal) -> None:
    """A second block, inside the first or after it, is refused."""

    async def transfer(task: Transfer, job: JobContext) -> None:
        async with job.transaction():
            with pytest.raises(InvalidState, match="open already"):
                await job.transaction().__aenter__()
        with pytest.raises(InvalidState, match="completed in a transaction already"):
            await job.transaction().__aenter__()

    await run(file, journal, transfer)


async def test_a_timeout_inside_the_block_undoes_it(file: str, journal: Journal) -> None:
    """The handler's own time limit ends the block as an error does."""

    async def transfer(task: Transfer, job: JobContext) -> None:
        with anyio.move_on_after(0.05):
            async with job.transaction() as connection:
                await connection.execute("INSERT INTO ledger VALUES (1)")
                await anyio.sleep_forever()
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO ledger VALUES (2)")

    await run(file, journal, transfer)
    assert rows(file) == [(2,)]


async def test_cancelled_at_any_moment_it_is_all_or_nothing(file: str, journal: Journal) -> None:
    """Wherever a cancellation hits the block, the effect is there exactly if the job is complete."""
    outcomes = set()

    async def transfer(task: Transfer, job: JobContext) -> None:
        current = asyncio.current_task()
        assert current is not None
        timers = [asyncio.get_running_loop().call_later(task.amount / 4000, current.cancel)]
        try:
            async with job.transaction() as connection:
                await connection.execute("INSERT INTO ledger VALUES (?)", (task.amount,))
        except asyncio.CancelledError:
            current.uncancel()
            outcomes.add("cancelled")
        else:
            outcomes.add("done")
        finally:
            timers.pop().cancel()
        there = rows(file, f"SELECT amount FROM ledger WHERE amount = {task.amount}")
        completed = await job.client.status(job.id) is JobStatus.SUCCEEDED
        assert bool(there) is completed
        assert job.completed is completed

    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE ledger (amount INTEGER NOT NULL)")
    connection.close()
    async with Client(file, workers=1) as client:
        client.register(Transfer, transfer)
        ids = await client.add(*(Transfer(number) for number in (*range(41), 240_000))).save()
        await journal.ended(*ids)
        assert {await client.status(job_id) for job_id in ids} == {JobStatus.SUCCEEDED}
        async with aiosqlite.connect(file, timeout=0.1) as other:
            await other.execute("BEGIN IMMEDIATE")  # no lock is left
    assert outcomes == {"cancelled", "done"}


async def test_a_memory_store_has_no_transactions(journal: Journal) -> None:
    """It says so, and the handler may go on without."""
    said: list[str] = []

    async def transfer(task: Transfer, job: JobContext) -> None:
        try:
            async with job.transaction():
                pass
        except InvalidState as error:
            said.append(str(error))

    async with Client(":memory:") as client:
        client.register(Transfer, transfer)
        await journal.ended(*await client.add(Transfer()).save())
        with pytest.raises(InvalidState, match="SQLite file"):
            await client.backup("/nowhere/copy.db")
    assert "needs a SQLite file" in said[0]


async def test_a_block_that_is_never_left_is_undone(file: str, journal: Journal) -> None:
    """Entered by hand and forgotten, it is an error, and neither its lock nor its thread stays."""

    async def transfer(task: Transfer, job: JobContext) -> None:
        connection = await job.transaction().__aenter__()
        await connection.execute("INSERT INTO ledger VALUES (1)")

    job_id = await run(file, journal, transfer, event="job.failed")
    assert "without leaving its job.transaction()" in journal.of("job.failed", job_id)[0]
    assert rows(file) == []
