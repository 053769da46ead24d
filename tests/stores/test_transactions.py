"""Adding inside the caller's own transaction, and noticing its end."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec
import pytest

from backlite_async import DatabaseBusy, DatabaseUnusable, InvalidState, InvalidType, InvalidValue
from backlite_async._job import Lane, NewJob
from backlite_async.stores import MemoryStore
from backlite_async.stores.sqlite.store import SQLiteStore

Opener = Callable[..., Awaitable[SQLiteStore]]

LIMIT = 20.0
"""Seconds after which a test that waits for something has failed."""


def new(job_id: str, **changes: Any) -> NewJob:
    job = NewJob(id=job_id, queue="q", task="T", payload=b"{}", max_attempts=3, created_at=0, due_at=0)
    return msgspec.structs.replace(job, **changes)


async def found(store: SQLiteStore, *ids: str) -> list[str]:
    return [(await store.status(job_id, now=0)).value for job_id in ids]


def heard(store: SQLiteStore) -> asyncio.Event:
    """Return an event that is set when the store calls its listener."""
    event = asyncio.Event()
    store.listen(event.set)
    return event


def watches() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "backlite transaction watch"]


@asynccontextmanager
async def application(path: str, *, begin: str = "BEGIN IMMEDIATE") -> AsyncIterator[aiosqlite.Connection]:
    """Open a connection as an application has it, in a transaction."""
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS users (name TEXT)")
        await connection.execute(begin)
        yield connection


@pytest.fixture
async def store(open_store: Opener) -> SQLiteStore:
    return await open_store()


async def test_commit(path: str, store: SQLiteStore) -> None:
    """Jobs appear with the caller's commit, not before, and then the listener is called."""
    event = heard(store)
    async with application(path) as connection, asyncio.timeout(LIMIT):
        await connection.execute("INSERT INTO users VALUES ('Ada')")
        await store.add_within(connection, [new("a"), new("b", due_at=5)])
        assert await found(store, "a", "b") == ["not_found", "not_found"]
        assert not event.is_set()
        await connection.commit()
        await event.wait()
        assert await found(store, "a", "b") == ["pending", "pending"]
    claim = await store.claim([Lane(kinds=(("q", "T"),), room=5)], owner="mine", now=0, until=9)
    assert ([job.id for job in claim.jobs], claim.next_at) == (["a"], 5)


async def test_rollback(path: str, store: SQLiteStore) -> None:
    """Jobs of a transaction that is rolled back never appear, and nothing watches on."""
    async with application(path) as connection, asyncio.timeout(LIMIT):
        await store.add_within(connection, [new("a")])
        (watch,) = watches()
        await connection.rollback()
        await asyncio.wait([watch])
    assert await found(store, "a") == ["not_found"]


async def test_savepoint(path: str, store: SQLiteStore) -> None:
    """A savepoint that is rolled back takes its jobs with it, and no others."""
    event = heard(store)
    async with application(path) as connection, asyncio.timeout(LIMIT):
        await store.add_within(connection, [new("a")])
        await connection.execute("SAVEPOINT inner")
        await store.add_within(connection, [new("b")])
        await connection.execute("ROLLBACK TO inner")
        await connection.commit()
        await event.wait()
    assert await found(store, "a", "b") == ["pending", "not_found"]


async def test_commit_followed_by_begin(path: str, store: SQLiteStore) -> None:
    """A commit is noticed though the connection is at once in its next transaction."""
    event = heard(store)
    async with application(path) as connection, asyncio.timeout(LIMIT):
        await store.add_within(connection, [new("a")])
        await asyncio.gather(connection.execute("COMMIT"), connection.execute("BEGIN IMMEDIATE"))
        await event.wait()
        assert connection.in_transaction
    assert await found(store, "a") == ["pending"]


async def test_several_transactions(path: str, store: SQLiteStore) -> None:
    """One transaction after the other, on one connection, is noticed each time."""
    event = heard(store)
    async with application(path) as connection, asyncio.timeout(LIMIT):
        for name in ("a", "b", "c"):
            event.clear()
            await store.add_within(connection, [new(name)])
            await connection.commit()
            await event.wait()
            assert await found(store, name) == ["pending"]
            await connection.execute("BEGIN IMMEDIATE")


async def test_several_connections(path: str, store: SQLiteStore) -> None:
    """A transaction that ends is noticed while another one goes on, and that one afterwards."""
    event = heard(store)
    async with application(path) as first, asyncio.timeout(LIMIT):
        await store.add_within(first, [new("a")])
        await first.commit()
        async with application(path) as second:
            await store.add_within(second, [new("b")])
            await event.wait()
            assert await found(store, "a", "b") == ["pending", "not_found"]
            event.clear()
            await second.commit()
            await event.wait()
            assert await found(store, "b") == ["pending"]


async def test_idle_after_the_transaction(path: str, store: SQLiteStore) -> None:
    """A transaction is watched while it is open; afterwards nothing runs for it."""
    async with application(path) as connection, asyncio.timeout(LIMIT):
        assert watches() == []
        await store.add_within(connection, [new("a")])
        (watch,) = watches()
        await connection.commit()
        await asyncio.wait([watch])
        assert watches() == []


async def test_implicit_transaction(path: str, store: SQLiteStore) -> None:
    """A transaction that sqlite3 has begun by itself, before an INSERT, serves as well."""
    event = heard(store)
    async with aiosqlite.connect(path) as connection, asyncio.timeout(LIMIT):
        await connection.execute("CREATE TABLE users (name TEXT)")
        await connection.execute("INSERT INTO users VALUES ('Ada')")
        await store.add_within(connection, [new("a")])
        await connection.commit()
        await event.wait()
    assert await found(store, "a") == ["pending"]


async def test_id_that_is_there(path: str, store: SQLiteStore) -> None:
    """An id that is there is an error or, again, left as it is; the caller's transaction goes on."""
    await store.add([new("a", priority=3)])
    async with application(path) as connection:
        with pytest.raises(InvalidState, match="is there already"):
            await store.add_within(connection, [new("c"), new("a", priority=5)])
        assert connection.in_transaction
        await store.add_within(connection, [new("a", priority=5), new("b")], again=True)
        await connection.commit()
    job = await store.get("a", now=0)
    assert job is not None
    assert job.priority == 3
    assert await found(store, "b", "c") == ["pending", "not_found"]


async def test_add_needs_no_lock_of_ours(path: str, store: SQLiteStore) -> None:
    """An add in the transaction that holds up the store's own writes does not wait for them."""
    async with application(path) as connection, asyncio.timeout(LIMIT):
        waiting = asyncio.create_task(store.add([new("waits")]))
        for number in range(20):
            await store.add_within(connection, [new(str(number))])
        assert not waiting.done()
        await connection.commit()
        await waiting
    assert await found(store, "0", "19", "waits") == ["pending"] * 3


# -- what is refused -------------------------------------------------------------------------------


async def test_no_open_transaction(path: str, store: SQLiteStore) -> None:
    """Without a transaction there is nothing to add within; the error says how to begin one."""
    async with aiosqlite.connect(path) as connection:
        with pytest.raises(InvalidState, match=r"no open transaction.*BEGIN IMMEDIATE"):
            await store.add_within(connection, [new("a")])
    assert await found(store, "a") == ["not_found"]
    assert watches() == []


async def test_closed_connection(path: str, store: SQLiteStore) -> None:
    """A closed connection is named as such."""
    async with aiosqlite.connect(path) as connection:
        pass
    with pytest.raises(InvalidState, match="is not open"):
        await store.add_within(connection, [new("a")])


async def test_connection_closed_in_its_transaction(path: str, store: SQLiteStore) -> None:
    """A connection that is closed without a commit has rolled back, and is watched no longer."""
    async with asyncio.timeout(LIMIT):
        async with application(path) as connection:
            await store.add_within(connection, [new("a")])
            (watch,) = watches()
        await asyncio.wait([watch])
    assert await found(store, "a") == ["not_found"]


async def test_other_file(tmp_path: Path, store: SQLiteStore) -> None:
    """A connection to another database is refused before anything is written there."""
    other = str(tmp_path / "other.db")
    async with application(other) as connection:
        with pytest.raises(InvalidValue, match=r"is one to '.*other\.db', not to this client's database"):
            await store.add_within(connection, [new("a")])
        assert list(await connection.execute_fetchall("SELECT name FROM sqlite_schema")) == [("users",)]
    async with application(":memory:") as connection:
        with pytest.raises(InvalidValue):
            await store.add_within(connection, [new("a")])


async def test_other_path_to_the_same_file(path: str, open_store: Opener) -> None:
    """A connection that has come to the same file on another path is taken."""
    await open_store()
    os.symlink(path, link := path + ".link")
    linked = await open_store(link)
    for name, way in (("a", path), ("b", link), ("c", os.path.relpath(path))):
        async with application(way) as connection:
            await linked.add_within(connection, [new(name)])
            await connection.commit()
    assert await found(linked, "a", "b", "c") == ["pending"] * 3


@pytest.mark.parametrize("kind", [sqlite3.connect, lambda _: None, lambda path: path])
async def test_no_aiosqlite_connection(path: str, store: SQLiteStore, kind: Callable[[str], Any]) -> None:
    """Anything but an aiosqlite connection is refused, one of sqlite3 included."""
    connection = kind(path)
    with pytest.raises(InvalidType, match=r"aiosqlite\.Connection"):
        store.check_connection(connection)
    with pytest.raises(InvalidType, match=r"aiosqlite\.Connection"):
        await store.add_within(connection, [new("a")])
    if isinstance(connection, sqlite3.Connection):
        connection.close()


async def test_check_connection(path: str, store: SQLiteStore) -> None:
    """The check takes an aiosqlite connection, in a transaction or not."""
    async with aiosqlite.connect(path) as connection:
        store.check_connection(connection)


async def test_memory_store(path: str) -> None:
    """The memory store has no transactions, and says so."""
    memory = MemoryStore()
    async with application(path) as connection:
        with pytest.raises(InvalidState, match="SQLite"):
            memory.check_connection(connection)
        with pytest.raises(InvalidState, match="SQLite"):
            await memory.add_within(connection, [new("a")])


# -- the caller's connection as it is --------------------------------------------------------------


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


@pytest.mark.parametrize("factory", [as_dict, sqlite3.Row], ids=["dict", "Row"])
async def test_row_factory(path: str, store: SQLiteStore, factory: Any) -> None:
    """A row factory of the caller's is no hindrance, and stays."""
    async with application(path) as connection:
        connection.row_factory = factory
        await store.add_within(connection, [new("a")])
        assert connection.row_factory is factory
        await connection.commit()
    assert await found(store, "a") == ["pending"]


async def test_text_factory(path: str, store: SQLiteStore) -> None:
    """Neither is a text factory."""
    async with application(path) as connection:
        connection.text_factory = bytes
        await store.add_within(connection, [new("a")])
        await connection.commit()
    assert await found(store, "a") == ["pending"]


# -- what goes wrong -------------------------------------------------------------------------------


async def test_failed_add_leaves_nothing(path: str, store: SQLiteStore) -> None:
    """An add that fails leaves the transaction as it was: open, with what the caller wrote."""
    async with application(path) as connection:
        await connection.execute("INSERT INTO users VALUES ('Ada')")
        await store.add_within(connection, [new("a")])
        with pytest.raises(DatabaseUnusable, match="priority"):
            await store.add_within(connection, [new("b"), new("bad", priority=99), new("c")])
        assert connection.in_transaction
        await connection.commit()
        assert list(await connection.execute_fetchall("SELECT name FROM users")) == [("Ada",)]
    assert await found(store, "a", "b", "bad", "c") == ["pending"] + ["not_found"] * 3


async def test_transaction_that_has_read_before(path: str, store: SQLiteStore) -> None:
    """A snapshot that another write has made old cannot be written: begin with BEGIN IMMEDIATE."""
    async with application(path, begin="BEGIN") as connection, asyncio.timeout(LIMIT):
        await connection.execute_fetchall("SELECT * FROM users")
        await store.add([new("other")])
        with pytest.raises(DatabaseBusy, match="BEGIN IMMEDIATE"):
            await store.add_within(connection, [new("a")])
        await connection.rollback()
        await connection.execute("BEGIN IMMEDIATE")
        await store.add_within(connection, [new("a")])
        await connection.commit()
    assert await found(store, "a") == ["pending"]


async def test_locked_by_another(path: str, store: SQLiteStore) -> None:
    """Where another connection holds the lock beyond the caller's own timeout, the add is busy."""
    async with application(path) as holder:
        async with aiosqlite.connect(path, isolation_level=None, timeout=0.05) as connection:
            await connection.execute("BEGIN")
            with pytest.raises(DatabaseBusy, match="stayed locked"):
                await store.add_within(connection, [new("a")])
        await holder.rollback()


async def test_cancelled_add(path: str, store: SQLiteStore) -> None:
    """An add whose caller is cancelled is in the transaction entirely or not at all."""
    for turns in (0, 1, 2, 3, 5, 8, 13, 30, 100):
        names = [f"{turns}-{number}" for number in range(3)]
        async with application(path) as connection:
            adding = asyncio.create_task(store.add_within(connection, [new(name) for name in names]))
            for _ in range(turns):
                await asyncio.sleep(0)
            adding.cancel()
            await asyncio.wait([adding])
            await connection.commit()
        assert len(set(await found(store, *names))) == 1


# -- other stores on the same file -----------------------------------------------------------------


async def test_listeners_on_the_same_file(path: str, open_store: Opener) -> None:
    """All stores of this process on the file hear of adds and of commits, whatever their path."""
    os.symlink(path, link := path + ".link")
    stores = [await open_store(), await open_store(), await open_store(link)]
    for store in stores:
        events = [heard(each) for each in stores]
        async with asyncio.timeout(LIMIT):
            await store.add([new(f"added {id(store)}")])
            for event in events:
                await event.wait()
                event.clear()
            async with application(path) as connection:
                await store.add_within(connection, [new(f"within {id(store)}")])
                await connection.commit()
                for event in events:
                    await event.wait()


async def test_listeners_on_other_files(tmp_path: Path, open_store: Opener) -> None:
    """A store on another file hears nothing of it."""
    store, other = await open_store(), await open_store(str(tmp_path / "other.db"))
    event, foreign = heard(store), heard(other)
    async with asyncio.timeout(LIMIT):
        await store.add([new("a")])
        await event.wait()
        assert not foreign.is_set()
        await other.add([new("a")])
        await foreign.wait()


async def test_close_with_an_open_transaction(path: str, open_store: Opener) -> None:
    """A store that closes leaves the caller's transaction to the caller."""
    store = await open_store()
    async with application(path) as connection:
        await store.add_within(connection, [new("a")])
        await store.close()
        assert watches() == []
        assert connection.in_transaction
        await connection.commit()
    assert await found(await open_store(), "a") == ["pending"]


async def test_a_deferred_transaction_still_waits_for_locks(store: SQLiteStore, path: str) -> None:
    """Checking the connection does not begin to read: the write waits as long as the caller allows."""
    async with (
        aiosqlite.connect(path, isolation_level=None) as holder,
        aiosqlite.connect(path, isolation_level=None, timeout=20.0) as connection,
    ):
        await holder.execute("BEGIN IMMEDIATE")
        await connection.execute("BEGIN")
        adding = asyncio.create_task(store.add_within(connection, [new("a")]))
        await connection.execute("SELECT 1 WHERE 0")  # behind the check of the connection, on its thread
        await holder.execute("COMMIT")
        async with asyncio.timeout(LIMIT):
            await adding
        await connection.commit()
    assert await found(store, "a") == ["pending"]


async def test_a_row_factory_of_another_shape(store: SQLiteStore, path: str) -> None:
    """What the caller's connection makes of its rows does not matter."""
    ended = heard(store)
    async with application(path) as connection:
        connection.row_factory = lambda cursor, row: (row[0], row[1], row[2], row[3], row[4])  # type: ignore[assignment]
        await store.add_within(connection, [new("a")])
        await connection.commit()
        async with asyncio.timeout(LIMIT):
            await ended.wait()
    assert await found(store, "a") == ["pending"]


async def test_a_busy_connection_delays_nobody_elses_jobs(store: SQLiteStore, path: str) -> None:
    """A long statement right after one COMMIT does not hold up the notice of another transaction."""
    release = threading.Event()
    async with application(path) as slow, application_later(path) as quick:
        await slow.create_function("hold", 0, lambda: release.wait(LIMIT))
        await store.add_within(slow, [new("a")])
        both = asyncio.gather(slow.execute("COMMIT"), slow.execute_fetchall("SELECT hold()"))
        await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT):
            while watches():
                await asyncio.sleep(0)
            ended = heard(store)
            await quick.execute("BEGIN IMMEDIATE")
            await store.add_within(quick, [new("b")])
            await quick.execute("COMMIT")
            await ended.wait()
        release.set()
        await both
    assert await found(store, "a", "b") == ["pending", "pending"]


@asynccontextmanager
async def application_later(path: str) -> AsyncIterator[aiosqlite.Connection]:
    """Open a connection without a transaction."""
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        yield connection
