"""What the SQLite store keeps beside jobs: what it costs, and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import anyio
import msgspec
import pytest

from backlite_async import DatabaseBusy, InvalidState, JobStatus
from backlite_async._history import MOST_ERRORS, MOST_LINES, Line
from backlite_async._job import ClaimedJob, Complete, Keep, NewJob, Outcome, Unique
from backlite_async._query import Wanted
from backlite_async.stores.sqlite import finishing, history, rows, schema
from backlite_async.stores.sqlite.database import Database
from backlite_async.stores.sqlite.locks import side_folder
from backlite_async.stores.sqlite.sql import many, migrations, statements
from backlite_async.stores.sqlite.store import SQLiteStore
from tests.conftest import LIMIT

from .conftest import Opener
from .test_contract import again, claim, claim_one, complete, new, record
from .test_guards import owner
from .test_service import fail, lines, note, tags, tally, trouble
from .test_sqlite import query

BESIDE = ("tags", "errors", "lines")


@pytest.fixture
async def store(open_store: Opener) -> SQLiteStore:
    return await open_store()


def left(path: str, *tables: str) -> list[Any]:
    """Return the ids in the tables beside jobs."""
    return [row for table in tables for row in query(path, f"SELECT job_id FROM backlite_{table}")]


@contextmanager
def written(path: str) -> Iterator[tuple[sqlite3.Connection, list[str]]]:
    """Open a transaction; give it, and the names of the statements that run in it."""
    names = {" ".join(sql.split()): name for name, sql in statements().items()}
    names |= {" ".join(many(name, 128).split()): name for name in ("add", "keep")}
    found: list[str] = []
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    execute = connection.execute

    class Listening:
        def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
            found.append(names[" ".join(sql.split())])
            return execute(sql, parameters)

    yield Listening(), found  # type: ignore[misc]
    connection.execute("ROLLBACK")
    connection.close()


def counted(job: ClaimedJob, number: int, **changes: Any) -> Complete:
    """Return the outcome of a plain job, as attempts of different lengths have it."""
    return complete(job, keep=None, tally=tally("succeeded", run=number % 7, wait=number % 5), **changes)


# -- what it costs ---------------------------------------------------------------------------------


async def test_plain_jobs_cost_one_statement_more(store: SQLiteStore, path: str) -> None:
    """To add them costs nothing; to end many, one statement for the statistics, and none for the rest."""
    jobs = [new(str(number)) for number in range(128)]
    with written(path) as (raw, names):
        rows.add(raw, jobs)
    assert names == ["add"]
    await store.add(jobs)
    claimed = (await claim(store, room=128)).jobs
    await store.watch(["another"], owner="somebody")
    with written(path) as (raw, names):
        assert finishing.finish(raw, outcomes=[counted(job, int(job.id)) for job in claimed]) == set()
    assert names == ["remove", "tally"]
    with written(path) as (raw, names):
        finishing.finish(raw, outcomes=[complete(job) for job in claimed])
    assert names == ["keep", "remove"]


async def test_what_is_claimed_says_whether_anything_is_beside_it(store: SQLiteStore) -> None:
    """However a claim is read: with others in an array, alone, of an owner, or once its lease has ended."""
    broken = msgspec.json.encode({}) + b"\xff"
    await store.add([new("plain"), new("noted"), new("broken", payload=broken)])
    for job in (await claim(store)).jobs:
        note_ = None if job.id == "plain" else note(job, lines=lines(0))
        await store.finish([again(job, note=note_, due_at=100)])
    found = await claim(store, now=100, until=200)
    expected = {"plain": None, "noted": 1, "broken": 1}
    assert {job.id: job.noted for job in found.jobs} == expected
    assert {job.id: job.noted for job in await store.claims_of("mine")} == expected
    others = await claim(store, owner="other", now=300, until=400)
    assert {lapsed.job.id: lapsed.job.noted for lapsed in others.lapsed} == expected


# -- nothing is left -------------------------------------------------------------------------------


ENDS: dict[str, dict[str, Any]] = {
    "not kept": {"keep": None, "beside": True},
    "expired": {"keep": Keep(until=300, payload=True)},
}


@pytest.mark.parametrize("how", [*ENDS, "cancelled", "replaced", "in a block"])
async def test_nothing_is_left_of_a_job_that_is_gone(store: SQLiteStore, path: str, how: str) -> None:
    """Neither tags nor errors nor lines; what is beside other jobs stays."""
    await store.add_unique(new("a", more=tags("x", "y")), Unique(own_id=True), now=0)
    await store.add([new("b", more=tags("x"))])
    for first in (await claim(store)).jobs:
        told = {"trouble": trouble(first), "note": note(first, lines=lines(0, 1))}
        await store.finish([again(first, due_at=100, **told)])
    if how in {"cancelled", "replaced"}:
        await store.cancel(["a"], now=150)
    else:
        job = await claim_one(store, now=200, room=1)
        if how == "in a block":
            block = await store.begin(5.0)
            await block.commit(complete(job, **ENDS["not kept"]))
        else:
            await store.finish([complete(job, **ENDS[how])])
    if how == "replaced":
        await store.add_unique(new("a"), Unique(own_id=True), now=200)
    if how == "expired":
        assert ("a",) in left(path, *BESIDE)
        assert await store.expire(now=300, limit=10) == 1
    assert sorted(left(path, *BESIDE)) == [("b",)] * 4


async def test_what_is_removed_is_bounded(store: SQLiteStore, path: str) -> None:
    """An expiry takes no more than it is told to, with what is beside that."""
    await store.add([new(name, more=tags(name)) for name in "abc"])
    jobs = (await claim(store)).jobs
    ends = {"a": 300, "b": 200, "c": 400}
    await store.finish([complete(job, keep=Keep(until=ends[job.id], payload=True)) for job in jobs])
    assert await store.expire(now=350, limit=1) == 1
    assert sorted(left(path, "tags")) == [("a",), ("c",)]
    assert await store.expire(now=350, limit=5) == 1
    assert await store.expire(now=350, limit=5) == 0
    assert left(path, "tags") == [("c",)]


async def test_what_is_kept_of_a_job_is_bounded(store: SQLiteStore, path: str) -> None:
    """Not only is no more shown of it."""
    await store.add([new("a")])
    for number in range(MOST_ERRORS + 5):
        job = await claim_one(store, room=1, now=number)
        await store.finish([again(job, trouble=trouble(job), due_at=number + 1)])
    [row] = query(path, "SELECT count(*), min(fence) FROM backlite_errors WHERE job_id = 'a'")
    assert row == (MOST_ERRORS, 6)
    job = await claim_one(store, room=1, now=number + 1)
    for first in range(0, 3 * MOST_LINES, 70):
        told = tuple(Line(first + place, 0, "info", "so far") for place in range(70))
        await store.note([note(job, lines=told)])
    [(many,)] = query(path, "SELECT count(*) FROM backlite_lines")
    assert MOST_LINES <= many < MOST_LINES + history.TRIM_EVERY


# -- tags in the transaction of a caller -----------------------------------------------------------


@pytest.fixture
async def application(path: str) -> AsyncIterator[aiosqlite.Connection]:
    """Open a connection as an application has it."""
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        await connection.execute("CREATE TABLE users (name TEXT)")
        yield connection


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("unique", [None, Unique(own_id=True)])
async def test_tags_within(
    store: SQLiteStore, application: aiosqlite.Connection, path: str, end: str, unique: Unique | None
) -> None:
    """They are there if the jobs are: if the caller commits."""
    await application.execute("BEGIN")
    jobs = [new("a", more=tags("x"))] if unique else [new("a", more=tags("x")), new("b")]
    await store.add_within(application, jobs, unique=unique)
    await application.execute("INSERT INTO users VALUES ('Ada')")
    await application.execute(end)
    assert left(path, "tags") == [("a",)] * (end == "COMMIT")
    assert await store.status("a", now=0) is (JobStatus.PENDING if end == "COMMIT" else JobStatus.NOT_FOUND)


async def test_failed_add_within_leaves_no_tags(
    store: SQLiteStore, application: aiosqlite.Connection, path: str
) -> None:
    """Nothing of it is in the caller's transaction, which goes on."""
    await store.add([new("b")])
    await application.execute("BEGIN")
    await application.execute("INSERT INTO users VALUES ('Ada')")
    with pytest.raises(InvalidState):
        await store.add_within(application, [new("a", more=tags("x")), new("b", more=tags("x"))])
    await application.execute("COMMIT")
    assert (query(path, "SELECT name FROM users"), left(path, "tags")) == ([("Ada",)], [])
    assert await store.status("a", now=0) is JobStatus.NOT_FOUND


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_cancelled_add_within_leaves_all_or_nothing(
    store: SQLiteStore, application: aiosqlite.Connection, path: str, turns: int
) -> None:
    """Never jobs without their tags."""
    await application.execute("BEGIN IMMEDIATE")
    adding = asyncio.create_task(store.add_within(application, [new("a", more=tags("x"))]))
    for _ in range(turns):
        await asyncio.sleep(0)
    adding.cancel()
    await asyncio.wait([adding])
    await application.execute("COMMIT")
    there = await store.status("a", now=0) is JobStatus.PENDING
    assert left(path, "tags") == [("a",)] * there
    assert there or adding.cancelled()


async def test_tags_within_again(store: SQLiteStore, application: aiosqlite.Connection, path: str) -> None:
    """What was added by a first try is left as it is."""
    job = new("a", more=tags("x"))
    await store.add([job])
    await application.execute("BEGIN")
    await store.add_within(application, [job, new("b", more=tags("x"))], again=True)
    await application.execute("COMMIT")
    assert left(path, "tags") == [("a",), ("b",)]


# -- those who wait --------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("name", ["b", "d"])
async def test_one_of_many_is_waited_for(store: SQLiteStore, path: str, lost: bool, name: str) -> None:
    """It is kept, the others end as they would; also where a claim is lost, and where one has lapsed."""
    await store.add([new(name, more=tags(name)) for name in "abcd"])
    await store.watch([name], owner="other")
    jobs = {job.id: job for job in (await claim(store, until=500)).jobs}
    if lost:
        await store.finish([again(jobs["a"], due_at=0)])
    gone: dict[str, Any] = {"keep": None, "beside": True, "tally": tally("succeeded")}
    outcomes: list[Outcome] = [complete(jobs[other], **gone) for other in "abc"]
    outcomes.append(complete(jobs["d"], lapsed_by=600, **gone))
    assert await store.finish(outcomes) == ({"a"} if lost else set())
    there = {other: await store.status(other, now=300) for other in "abcd"}
    expected = dict.fromkeys("abcd", JobStatus.NOT_FOUND) | {name: JobStatus.SUCCEEDED}
    assert there == expected | ({"a": JobStatus.PENDING} if lost else {})
    assert sorted(left(path, "tags")) == [("a",)] * lost + [(name,)]
    assert [row[2:] for row in await store.stats(since=0, until=1)] == [("succeeded", 0, 4 - lost)]


async def test_end_of_one_that_was_to_run_again_is_told(store: SQLiteStore) -> None:
    """It has ended as cancelled: who waits for it in the same process hears of it, too."""
    await store.add([new("a"), new("b")])
    jobs = {job.id: job for job in (await claim(store)).jobs}
    await store.watch(["b"], owner="me")
    await store.cancel(["a", "b"], now=200)
    calls: list[str] = []
    store.listen(lambda: calls.append("own"))
    await store.finish([again(jobs["a"])])
    assert calls == []
    await store.finish([again(jobs["b"])])
    assert calls == ["own"]
    assert await store.status("b", now=300) is JobStatus.CANCELLED


async def test_finish_now_calls_who_waits(open_store: Opener) -> None:
    """In their event loop, from whatever thread; the store that does it too."""
    store, other = await open_store(), await open_store()
    await store.add([new("a"), new("b")])
    first, second = (await claim(store)).jobs
    await store.watch([second.id], owner="me")
    bells = [asyncio.Event(), asyncio.Event()]
    store.listen(bells[0].set)
    other.listen(bells[1].set)
    await asyncio.to_thread(store.finish_now, [complete(first)])
    await asyncio.to_thread(store.finish_now, [complete(second)])
    with anyio.fail_after(LIMIT):
        for bell in bells:
            await bell.wait()


async def test_nobody_is_called_for_nothing(open_store: Opener) -> None:
    """The end of a job that nobody waits for calls nobody, also while somebody waits for another."""
    store, other = await open_store(), await open_store()
    await store.add([new("a"), new("b")])
    first, second = (await claim(store)).jobs
    await store.watch([second.id], owner="me")
    calls: list[str] = []
    done = asyncio.Event()
    store.listen(lambda: calls.append("own"))
    other.listen(lambda: calls.append("other"))
    other.listen(done.set)
    await store.finish([complete(first, keep=None)])
    assert calls == []
    await store.finish([complete(second, keep=None)])
    with anyio.fail_after(LIMIT):
        await done.wait()
    assert sorted(calls) == ["other", "own"]


async def test_others_are_called_for_a_letter(open_store: Opener) -> None:
    """It is due, and those who can run it may all be elsewhere."""
    store, other = await open_store(), await open_store()
    await store.add([new("a")])
    done = asyncio.Event()
    other.listen(done.set)
    await store.finish([fail(await claim_one(store), keep=None, letter=new("letter", "U"))])
    with anyio.fail_after(LIMIT):
        await done.wait()


async def test_who_goes_while_waiting_is_left_to_the_others(path: str) -> None:
    """What could not be undone at its end is undone by those who find its file."""
    store = SQLiteStore(path, durability="full", busy_timeout=5.0)
    await store.open(install=True, owner=owner("mine"))
    await store.watch(["a"], owner="mine")
    await store.watch(["a"], owner="other")
    await store.close()
    assert [file.name for file in Path(side_folder(path)).glob("*.owner")] == ["mine.owner"]
    await store.open(install=True, owner=owner("survivor"))
    [dead] = store.dead_owners()
    dead.bury()
    await store.end_starts([dead.id], now=0)
    await store.close()
    assert query(path, "SELECT owner FROM backlite_watches") == [("other",)]


async def test_nobody_waits_in_a_copy(store: SQLiteStore, open_store: Opener, tmp_path: Path) -> None:
    """But history and statistics are there."""
    await store.add([new("a", more=tags("x"))])
    job = await claim_one(store)
    await store.watch(["a"], owner="mine")
    await store.finish(
        [fail(job, trouble=trouble(job), note=note(job, lines=lines(0)), tally=tally("failed"))]
    )
    await store.backup(str(tmp_path / "copy.db"))
    copy = await open_store(str(tmp_path / "copy.db"))
    assert await record(copy, "a") == await record(store, "a")
    assert await copy.stats(since=0, until=1) == await store.stats(since=0, until=1) != []
    assert left(str(tmp_path / "copy.db"), "tags", "watches") == [("a",)]


# -- in a handler's transaction --------------------------------------------------------------------


async def test_history_is_part_of_a_block(store: SQLiteStore, path: str) -> None:
    """It is written with the outcome, or not at all where the claim is lost."""
    await store.add([new("a"), new("b")])
    jobs = {job.id: job for job in (await claim(store)).jobs}
    await store.finish([again(jobs["b"])])
    for job in jobs.values():
        block = await store.begin(5.0)
        told = {"trouble": trouble(job), "note": note(job, lines=lines(0)), "tally": tally("failed")}
        await block.commit(fail(job, **told))
    assert left(path, "errors", "lines") == [("a",), ("a",)]
    assert [row[2:] for row in await store.stats(since=0, until=1)] == [("failed", 0, 1)]


async def test_what_cannot_be_stored_stores_nothing(store: SQLiteStore, path: str) -> None:
    """One member of a finish that fails takes all of it back."""
    await store.add([new("a", more=tags("x"))])
    job = await claim_one(store)
    bad = NewJob(id="letter", queue="q", task="T", payload=b"{}", max_attempts=0, created_at=0, due_at=0)
    with pytest.raises(Exception, match="max_attempts"):
        await store.finish([fail(job, keep=None, beside=True, tally=tally("failed"), letter=bad)])
    assert await store.status("a", now=0) is JobStatus.RUNNING
    assert (left(path, "tags"), await store.stats(since=0, until=1)) == ([("a",)], [])


async def test_notes_are_not_synced(path: str, open_store: Opener) -> None:
    """A note shares the durability of a claim: nothing of a job's outcome depends on it."""
    store = await open_store(busy_timeout=0.05)
    await store.add([new("a")])
    job = await claim_one(store)
    levels: list[int] = []
    writer = store._database.writer
    await store.note([note(job, progress=0.5)])
    await writer.call(lambda raw: levels.append(raw.execute("PRAGMA synchronous").fetchone()[0]))
    await store.finish([complete(job)])
    await writer.call(lambda raw: levels.append(raw.execute("PRAGMA synchronous").fetchone()[0]))
    assert levels == [1, 2]
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy):
            await store.note([note(job, progress=0.7)])
        other.execute("ROLLBACK")
    other.close()


# -- from older versions ---------------------------------------------------------------------------


OLD_ROWS = """
WITH old (id, tags) AS (VALUES ('a', '["x", "y"]'), ('b', 'no JSON'), ('c', '["x", "x"]'), ('d', '[null]'))
INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, tags)
SELECT id, 'q', 'T', x'7b7d', 3, 0, 0, 0, tags FROM old
"""


async def test_tags_of_older_versions_are_found(path: str, open_store: Opener) -> None:
    """In the order of adding, as far as they can be read."""
    database = Database(path, synchronous="FULL", busy_timeout=5.0)
    await database.open()
    await database.writer.call(lambda _: schema.install(database, migrations()[:4]))
    await database.close()
    query(path, OLD_ROWS)
    store = await open_store()
    found = query(path, "SELECT job_id, tag FROM backlite_tags ORDER BY number")
    assert found == [("a", "x"), ("a", "y"), ("c", "x")]
    page = await store.find(Wanted(tag="x"), limit=10, now=0)
    assert [job.id for job in page.jobs] == ["c", "a"]
