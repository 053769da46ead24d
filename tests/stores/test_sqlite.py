"""What SQLite alone brings: files, schemas, locks, shared commits, closing."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from backlite_async import (
    BackliteError,
    Client,
    DatabaseBusy,
    DatabaseReplaced,
    DatabaseUnavailable,
    DatabaseUnusable,
    InvalidState,
)
from backlite_async._job import ClaimedJob, Complete, JobStatus, Keep, Lane, NewJob, Reschedule
from backlite_async.stores.sqlite import database, schema
from backlite_async.stores.sqlite.database import Database
from backlite_async.stores.sqlite.sql import migrations, split
from backlite_async.stores.sqlite.store import SQLiteStore

Opener = Callable[..., Awaitable[SQLiteStore]]

LANE = Lane(kinds=(("q", "T"),), room=100)


def new(job_id: str, **changes: Any) -> NewJob:
    job = NewJob(id=job_id, queue="q", task="T", payload=b"{}", max_attempts=3, created_at=0, due_at=0)
    return msgspec.structs.replace(job, **changes)


async def running(store: SQLiteStore, job_id: str = "a") -> ClaimedJob:
    await store.add([new(job_id)])
    (job,) = (await store.claim([LANE], owner="mine", now=100, until=1000)).jobs
    return job


def complete(job: ClaimedJob) -> Complete:
    return Complete(
        id=job.id,
        fence=job.fence,
        status=JobStatus.SUCCEEDED,
        finished_at=200,
        started_at=None,
        duration=None,
        attempt=job.attempt,
        crashes=job.crashes,
        keep=Keep(until=None, payload=True),
    )


def query(path: str, sql: str) -> list[Any]:
    """Return what another connection sees."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


@contextmanager
def locked(path: str) -> Iterator[sqlite3.Connection]:
    """Hold the write lock in another connection, until it ends its transaction."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


@contextmanager
def traced(store: SQLiteStore) -> Iterator[list[str]]:
    """Note the statements of the writing connection."""
    seen: list[str] = []
    raw = store._database.writer.raw
    raw.set_trace_callback(seen.append)
    yield seen
    raw.set_trace_callback(None)


@contextmanager
def attempts(store: SQLiteStore, count: int) -> Iterator[asyncio.Event]:
    """Return an event that is set when the store has tried so often to get the write lock."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    tries = 0

    def trace(statement: str) -> None:
        nonlocal tries
        tries += statement == "BEGIN IMMEDIATE"
        if tries == count:
            loop.call_soon_threadsafe(event.set)

    raw = store._database.writer.raw
    raw.set_trace_callback(trace)
    yield event
    raw.set_trace_callback(None)


# -- schema ----------------------------------------------------------------------------------------


async def test_jobs_survive_reopening(open_store: Opener) -> None:
    """What was stored is there when the file is opened again: pending, running, completed, fences."""
    first = await open_store()
    await first.finish([complete(await running(first, "completed"))])
    held = await running(first, "running")
    await first.add([new("pending")])
    await first.close()
    store = await open_store()
    assert [await store.status(job_id, now=0) for job_id in ("completed", "running", "pending")] == [
        "succeeded",
        "running",
        "pending",
    ]
    assert await store.claims_of("mine") == [held]
    (job,) = (await store.claim([LANE], owner="other", now=0, until=9)).jobs
    assert job.fence > held.fence


async def test_store_opens_again(open_store: Opener) -> None:
    """A closed store can be opened again, and works."""
    store = await open_store()
    await store.close()
    await store.open(install=False)
    await store.add([new("a")])
    assert await store.status("a", now=0) is JobStatus.PENDING


async def test_install_can_be_repeated(path: str, open_store: Opener) -> None:
    """Installing where everything is there already changes nothing."""
    store = await open_store()
    await store.add([new("a")])
    before = query(path, "SELECT name, sql FROM sqlite_schema")
    await store.install()
    await (await open_store()).install()
    assert query(path, "SELECT name, sql FROM sqlite_schema") == before
    assert await store.status("a", now=0) is JobStatus.PENDING


async def test_install_without_opening(path: str, open_store: Opener) -> None:
    """Installing alone leaves a file that opens without installing."""
    await SQLiteStore(path, durability="full", busy_timeout=5.0).install()
    store = await open_store(install=False)
    await store.add([new("a")])


async def test_stores_that_install_at_once(path: str, open_store: Opener) -> None:
    """Stores of one process that install into one new file at the same time all open."""
    stores = await asyncio.gather(*(open_store() for _ in range(5)))
    await asyncio.gather(*(store.add([new(str(number))]) for number, store in enumerate(stores)))
    assert query(path, "SELECT count(*) FROM backlite_jobs") == [(5,)]


OPEN_AND_ADD = """
import asyncio, sys
from backlite_async._job import NewJob
from backlite_async.stores.sqlite.store import SQLiteStore

async def main(path, name):
    store = SQLiteStore(path, durability="normal", busy_timeout=20.0)
    print("ready", flush=True)
    sys.stdin.readline()
    await store.open(install=True)
    job = NewJob(id=name, queue="q", task="T", payload=b"{}", max_attempts=1, created_at=0, due_at=0)
    await store.add([job])
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_processes_that_install_at_once(path: str) -> None:
    """Processes that install into one new file at the same time all succeed."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_ADD, path, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    assert query(path, "SELECT id FROM backlite_jobs ORDER BY id") == [("0",), ("1",), ("2",)]


async def test_no_schema_without_install(path: str, open_store: Opener) -> None:
    """Without installing, a file without the schema is refused, and gets none."""
    with pytest.raises(DatabaseUnusable, match=r"does not exist; run .*install"):
        await open_store(install=False)
    assert not Path(path).exists()
    query(path, "CREATE TABLE theirs (a)")
    with pytest.raises(DatabaseUnusable, match=r"has no Backlite schema.*install") as caught:
        await open_store(install=False)
    assert caught.value.path == path
    assert query(path, "SELECT name FROM sqlite_schema") == [("theirs",)]


async def test_older_schema(path: str, open_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older schema is refused without installing, and brought up to date with it."""
    store = await open_store()
    await store.add([new("a")])
    await store.close()
    newer = [*migrations(), ["CREATE TABLE backlite_more (a INTEGER) STRICT"]]
    monkeypatch.setattr(schema, "migrations", lambda: newer)
    with pytest.raises(
        DatabaseUnusable, match=f"has schema version {len(newer) - 1}, this needs {len(newer)}"
    ):
        await open_store(install=False)
    upgraded = await open_store(install=True)
    assert query(path, "SELECT version FROM backlite_schema") == [(len(newer),)]
    assert query(path, "SELECT * FROM backlite_more") == []
    assert await upgraded.status("a", now=0) is JobStatus.PENDING
    await upgraded.close()
    await open_store(install=False)


OLD_ROWS = """
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, status, fence, owner
)
VALUES
    ('pending', 'q', 'T', x'7b7d', 3, 0, 0, 0, 'pending', NULL, NULL),
    ('mine', 'q', 'T', x'7b7d', 3, 0, 0, 500, 'running', 1, 'mine'),
    ('others', 'q', 'T', x'7b7d', 3, 0, 0, 600, 'running', 2, 'other')
"""


@pytest.mark.parametrize("version", range(1, len(migrations())))
async def test_every_older_schema(path: str, open_store: Opener, version: int) -> None:
    """Whatever version a file has, it is brought up to date with its jobs, and is whole."""
    database = Database(path, synchronous="FULL", busy_timeout=5.0)
    await database.open()
    await database.writer.call(lambda _: schema.install(database, migrations()[:version]))
    await database.close()
    query(path, OLD_ROWS)
    query(path, "UPDATE backlite_fence SET value = 2")
    store = await open_store(install=True)
    found = await store.claim([LANE], owner="mine", now=100, until=1000)
    assert ([job.id for job in found.jobs], found.jobs[0].fence, found.next_at) == (["pending"], 3, 600)
    held = await store.claims_of("mine")
    assert sorted(job.id for job in held) == ["mine", "pending"]
    assert await store.finish([complete(job) for job in held]) == set()
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    new_path = path + ".new"
    await (await open_store(new_path)).close()
    schemas = [query(name, "SELECT name, sql FROM sqlite_schema ORDER BY name") for name in (path, new_path)]
    assert schemas[0] == schemas[1]


@pytest.mark.parametrize("install", [True, False])
async def test_newer_schema(path: str, open_store: Opener, install: bool) -> None:
    """A schema that a newer version wrote is refused, and left as it is."""
    await (await open_store()).close()
    query(path, "UPDATE backlite_schema SET version = 999")
    with pytest.raises(DatabaseUnusable, match=r"newer backlite_async \(schema version 999"):
        await open_store(install=install)
    assert query(path, "SELECT version FROM backlite_schema") == [(999,)]


async def test_failing_migration(path: str, open_store: Opener) -> None:
    """A migration that fails leaves nothing of itself; those before it stay."""
    store = await open_store()
    before = query(path, "SELECT name FROM sqlite_schema")
    steps = [
        *migrations(),
        ["CREATE TABLE backlite_second (a INTEGER)"],
        ["CREATE TABLE backlite_third (a INTEGER)", "DROP TABLE backlite_jobs", "CREATE NONSENSE"],
    ]

    def install(raw: sqlite3.Connection) -> None:
        schema.install(store._database, steps)

    with pytest.raises(sqlite3.OperationalError, match="NONSENSE"):
        await store._database.writer.call(install)
    assert query(path, "SELECT version FROM backlite_schema") == [(len(steps) - 1,)]
    after = query(path, "SELECT name FROM sqlite_schema")
    assert sorted(after) == sorted([*before, ("backlite_second",)])
    with locked(path):
        pass


async def test_failing_first_migration(path: str) -> None:
    """Where the first migration fails, the file stays without any table."""
    database = Database(path, synchronous="FULL", busy_timeout=5.0)
    await database.open()
    try:
        with pytest.raises(sqlite3.OperationalError, match="NONSENSE"):
            await database.writer.call(
                lambda _: schema.install(database, [["CREATE TABLE backlite_first (a)", "CREATE NONSENSE"]])
            )
    finally:
        await database.close()
    assert query(path, "SELECT name FROM sqlite_schema") == []


async def test_application_keeps_its_own(path: str, open_store: Opener) -> None:
    """The application's tables, user_version and application_id are not touched."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('Ada');"
            "PRAGMA user_version = 7; PRAGMA application_id = 42;"
        )
    store = await open_store()
    await store.finish([complete(await running(store))])
    await store.close()
    assert query(path, "SELECT name FROM users") == [("Ada",)]
    assert query(path, "PRAGMA user_version") == [(7,)]
    assert query(path, "PRAGMA application_id") == [(42,)]


async def test_names_in_the_schema(path: str, open_store: Opener) -> None:
    """Everything of ours in the file is named backlite_, or is an index of such a table."""
    await open_store()
    found = query(path, "SELECT name, tbl_name FROM sqlite_schema")
    assert found
    for name, table in found:
        assert table.startswith("backlite_")
        assert name.startswith(("backlite_", "sqlite_autoindex_backlite_"))


def test_script_is_split_into_its_statements() -> None:
    """A script is split at the end of statements, not at any semicolon."""
    script = "CREATE TABLE a (b TEXT DEFAULT ';');\n\n-- a; b\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\n"
    script += "  SELECT 1;\n  SELECT 2;\nEND;\n"
    statements = split(script)
    assert [statement.split()[1] for statement in statements] == ["TABLE", "a;"]
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements:
            connection.execute(statement)
    with pytest.raises(RuntimeError, match="unfinished"):
        split("CREATE TABLE a (b)")


# -- files that cannot be used -----------------------------------------------------------------------


async def test_missing_folder(tmp_path: Path, open_store: Opener) -> None:
    """A folder that does not exist is named, and not created."""
    with pytest.raises(DatabaseUnusable, match="nowhere' does not exist"):
        await open_store(str(tmp_path / "nowhere" / "app.db"))
    assert list(tmp_path.iterdir()) == []


async def test_folder_for_a_file(tmp_path: Path, open_store: Opener) -> None:
    """A folder is no database."""
    with pytest.raises(DatabaseUnusable, match="is a folder"):
        await open_store(str(tmp_path))


async def test_no_database(path: str, open_store: Opener) -> None:
    """A file of something else is refused and left as it is."""
    text = "Dear diary, this is no database.\n" * 100
    Path(path).write_text(text)
    with pytest.raises(DatabaseUnusable, match="not a database"):
        await open_store()
    assert Path(path).read_text() == text


async def test_failed_opening_leaves_nothing_open(path: str, open_store: Opener) -> None:
    """After a failed opening, the store opens once the cause is gone."""
    Path(path).write_text("Dear diary\n" * 100)
    store = SQLiteStore(path, durability="full", busy_timeout=5.0)
    for _ in range(2):
        with pytest.raises(DatabaseUnusable):
            await store.open(install=True)
    Path(path).unlink()
    await store.open(install=True)
    await store.close()


OPEN = """
import asyncio, os, sys
from backlite_async import DatabaseUnusable
from backlite_async.stores.sqlite.sql import migrations, statements
from backlite_async.stores.sqlite.store import SQLiteStore

migrations(), statements()
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)

async def main(path):
    store = SQLiteStore(path, durability="normal", busy_timeout=1.0)
    try:
        await store.open(install=True)
    except DatabaseUnusable as error:
        print(error.reason)
    else:
        await store.close()
        print("opened")

asyncio.run(main(sys.argv[1]))
"""


def opened_without_rights(path: str) -> str:
    """Open a file in a process that has not root's rights; return what it says."""
    command = [sys.executable, "-c", OPEN, path]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that everybody can enter, but not write into."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_folder_that_cannot_be_written(open_folder: Path) -> None:
    """A database cannot be made in a folder that is read-only for us, and the error says so."""
    assert opened_without_rights(str(open_folder / "app.db")) == "cannot be created: Permission denied"


def test_file_that_cannot_be_written(open_folder: Path) -> None:
    """A database that is read-only for us is refused with that reason."""
    path = open_folder / "app.db"
    open_folder.chmod(0o755)
    query(str(path), "CREATE TABLE a (b)")
    path.chmod(0o444)
    open_folder.chmod(0o555)
    assert opened_without_rights(str(path)) == "is not writable for this user"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


@pytest.mark.parametrize("root", [True, False])
async def test_what_is_made_beside_a_database_belongs_to_its_owner(
    path: str, monkeypatch: pytest.MonkeyPatch, *, root: bool
) -> None:
    """Also where root is the first to look at it, after whom nobody else could; what is there stays."""
    query(path, "CREATE TABLE a (b)")
    given: dict[int, tuple[int, int]] = {}

    def chown(what: int | str, owner: int, group: int, *, follow_symlinks: bool = True) -> None:
        assert follow_symlinks == isinstance(what, int)
        given[os.stat(what, follow_symlinks=follow_symlinks).st_ino] = (owner, group)

    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1)
    monkeypatch.setattr(os, "chown", chown)
    whose, folder = os.stat(path), Path(f"{path}-backlite")
    async with Client(path, durability="normal"):
        there = {entry.lstat().st_ino for entry in (folder, *folder.iterdir())}
        assert len(there) >= 5  # the folder, two locks, an owner and its socket
        assert given == dict.fromkeys(there, (whose.st_uid if root else -1, whose.st_gid))
    given.clear()
    async with Client(path, durability="normal"):
        assert given
        assert not given.keys() & {entry.stat().st_ino for entry in folder.glob("*.lock")}


async def test_no_file_elsewhere_is_taken_for_a_lock(path: str, tmp_path: Path) -> None:
    """Whoever owns the folder could have root change the mode of what a link leads to."""
    query(path, "CREATE TABLE a (b)")
    os.chmod(path, 0o666)
    other, folder = tmp_path / "other", Path(f"{path}-backlite")
    other.touch(0o600)
    folder.mkdir()
    (folder / "queue.lock").symlink_to(other)
    with pytest.raises(OSError, match="symbolic"):
        await Client(path, durability="normal").start()
    assert stat.S_IMODE(other.stat().st_mode) == 0o600


def test_a_lock_that_another_user_has_made_is_named(open_folder: Path) -> None:
    """In words, with its path, as an error of the library."""
    path = open_folder / "app.db"
    open_folder.chmod(0o777)
    query(str(path), "CREATE TABLE a (b)")
    path.chmod(0o666)
    folder = open_folder / "app.db-backlite"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "queue.lock").touch(0o600)
    if os.geteuid():  # no other user's, but as closed
        (folder / "queue.lock").chmod(0)
    said = opened_without_rights(str(path))
    assert said.startswith(f"'{folder.resolve()}/queue.lock', where processes meet, is not for this user")


# -- waiting for locks -----------------------------------------------------------------------------


async def test_busy_beyond_the_timeout(path: str, open_store: Opener) -> None:
    """A write that finds the database locked gives up after the busy timeout; nothing is written."""
    store = await open_store(busy_timeout=0.3)
    with locked(path):
        begun = time.monotonic()
        with pytest.raises(DatabaseBusy, match="stayed locked"):
            await store.add([new("a")])
        assert 0.3 <= time.monotonic() - begun < 5.0
        assert await store.status("a", now=0) is JobStatus.NOT_FOUND
    await store.add([new("a")])
    assert await store.status("a", now=0) is JobStatus.PENDING


async def test_busy_for_a_while(path: str, open_store: Opener) -> None:
    """A write waits, longer than one try, and succeeds when the lock is released."""
    store = await open_store(busy_timeout=60.0)
    with locked(path) as other, attempts(store, 3) as tried:
        adding = asyncio.create_task(store.add([new("a")]))
        async with asyncio.timeout(30):
            await tried.wait()
            assert not adding.done()
            other.execute("COMMIT")
            await adding
    assert await store.status("a", now=0) is JobStatus.PENDING


async def test_busy_for_all_in_a_group(path: str, open_store: Opener) -> None:
    """All that wait together for a locked database give up together, each with an error of its own."""
    store = await open_store(busy_timeout=0.5)
    with locked(path):
        async with asyncio.timeout(10):  # less than each one's patience after the other
            errors = await asyncio.gather(
                *(store.add([new(str(number))]) for number in range(30)), return_exceptions=True
            )
    assert {type(error) for error in errors} == {DatabaseBusy}
    assert len({id(error) for error in errors}) == 30
    assert query(path, "SELECT count(*) FROM backlite_jobs") == [(0,)]


async def test_busy_for_blocking_calls(path: str, open_store: Opener) -> None:
    """Blocking calls give up with the same error."""
    store = await open_store(busy_timeout=0.1)
    job = await running(store)
    with locked(path):
        with pytest.raises(DatabaseBusy):
            store.renew([(job.id, job.fence)], until=2000)
        with pytest.raises(DatabaseBusy):
            store.finish_now([complete(job)])
    assert store.renew([(job.id, job.fence)], until=2000) == set()
    assert store.finish_now([complete(job)]) == set()


async def test_busy_while_opening(path: str, open_store: Opener) -> None:
    """Opening a file that stays locked fails with the same error."""
    query(path, "PRAGMA journal_mode = WAL")
    with locked(path), pytest.raises(DatabaseBusy):
        await open_store(busy_timeout=0.1)
    await open_store()


async def test_reading_beside_a_writer(path: str, open_store: Opener) -> None:
    """Nothing that only reads waits for the write lock, a claim that finds nothing due included."""
    store = await open_store(busy_timeout=60.0)
    await store.add([new("later", due_at=500)])
    with locked(path):
        async with asyncio.timeout(10):
            assert await store.status("later", now=0) is JobStatus.PENDING
            assert await store.get("later", now=0) is not None
            assert await store.kinds() == [("q", "T")]
            assert await store.next_expiry() is None
            assert await store.claims_of("mine") == []
            assert (await store.claim([LANE], owner="mine", now=100, until=9)).next_at == 500


async def test_abandon(path: str, open_store: Opener) -> None:
    """Abandoning ends the waiting for locks, long before the busy timeout."""
    store = await open_store(busy_timeout=600.0)
    with locked(path), attempts(store, 2) as tried:
        adding = asyncio.create_task(store.add([new("a")]))
        async with asyncio.timeout(30):
            await tried.wait()
            assert not adding.done()
            store.abandon()
            with pytest.raises(DatabaseBusy):
                await adding


async def test_abandon_leaves_one_try(open_store: Opener) -> None:
    """After abandoning, what needs no waiting is still written."""
    store = await open_store()
    store.abandon()
    await store.add([new("a")])
    assert await store.status("a", now=0) is JobStatus.PENDING


async def test_patient_again_after_reopening(path: str, open_store: Opener) -> None:
    """A store that was abandoned waits again after it was opened anew."""
    store = await open_store(busy_timeout=60.0)
    store.abandon()
    await store.close()
    await store.open(install=True)
    with locked(path) as other, attempts(store, 3) as tried:
        adding = asyncio.create_task(store.add([new("a")]))
        async with asyncio.timeout(30):
            await tried.wait()
            other.execute("COMMIT")
            await adding


# -- shared commits --------------------------------------------------------------------------------


async def test_commits_are_shared(path: str, open_store: Opener) -> None:
    """Adds that wait together are written in one commit."""
    store = await open_store()
    with traced(store) as seen:
        await asyncio.gather(*(store.add([new(str(number))]) for number in range(100)))
    assert seen.count("COMMIT") == 1
    assert query(path, "SELECT count(*) FROM backlite_jobs") == [(100,)]


async def test_adds_that_follow_each_other_share_a_statement(open_store: Opener) -> None:
    """Adds of one commit are written by few statements, and seen by a claim that was asked for before."""
    store = await open_store()
    with traced(store) as seen:
        await asyncio.gather(*(store.add([new(f"{n} {m}") for m in range(3)]) for n in range(20)))
    assert len([statement for statement in seen if "INSERT" in statement]) == 4
    await store.finish(
        [complete(job) for job in (await store.claim([LANE], owner="mine", now=0, until=9)).jobs]
    )
    called: list[int] = []
    store.listen(lambda: called.append(1))
    with traced(store) as seen:
        first, _, second = await asyncio.gather(
            store.claim([LANE], owner="mine", now=0, until=9),
            store.add([new("a"), new("b")]),
            store.claim([LANE], owner="mine", now=0, until=9),
        )
    assert [job.id for job in first.jobs] == ["a", "b"]
    assert not second.jobs
    assert seen.count("COMMIT") == 1
    assert not called  # who would be called has claimed them already


async def test_what_no_task_could_be_made_for_is_not_written_later(path: str, open_store: Opener) -> None:
    """Where the event loop makes no task, the caller hears of it, and nothing is written afterwards."""
    store, loop = await open_store(), asyncio.get_running_loop()

    def refuse(*args: object, **options: object) -> NoReturn:
        raise TypeError("no tasks today")

    loop.set_task_factory(refuse)
    try:
        with pytest.raises(TypeError, match="no tasks today"):
            await store.add([new("refused")])
    finally:
        loop.set_task_factory(None)
    await store.add([new("taken")])
    assert query(path, "SELECT id FROM backlite_jobs") == [("taken",)]


async def test_followers_of_one_commit_are_called_once(open_store: Opener) -> None:
    """However many adds share a commit, the listeners are told of it once."""
    store = await open_store()
    called: list[int] = []
    store.listen(lambda: called.append(1))
    await asyncio.gather(*(store.add([new(str(number))]) for number in range(100)))
    assert len(called) == 1


async def test_callers_that_return_share_the_next_commit(open_store: Opener) -> None:
    """Who waited for a commit can be in the next one: nobody alternates with those who came meanwhile."""
    store = await open_store()

    async def caller(name: str) -> None:
        for number in range(10):
            await store.add([new(f"{name}-{number}")])

    with traced(store) as seen:
        await asyncio.gather(*(caller(str(number)) for number in range(20)))
    assert seen.count("COMMIT") <= 12


async def test_order_within_a_group(path: str, open_store: Opener) -> None:
    """Adds that share a commit keep the order in which they were asked for."""
    store = await open_store()
    await asyncio.gather(*(store.add([new(str(number))]) for number in range(50)))
    assert query(path, "SELECT id FROM backlite_jobs ORDER BY seq") == [(str(n),) for n in range(50)]


async def test_bad_member_of_a_group(open_store: Opener) -> None:
    """Of adds that would share a commit, the bad one fails alone; the others are stored."""
    store = await open_store()
    jobs = [new("a"), new("bad", priority=99), new("b"), new("worse", max_attempts=0), new("c")]
    errors = await asyncio.gather(*(store.add([job]) for job in jobs), return_exceptions=True)
    assert [type(error) for error in errors] == [
        type(None),
        DatabaseUnusable,
        type(None),
        DatabaseUnusable,
        type(None),
    ]
    assert "priority" in str(errors[1])
    assert "max_attempts" in str(errors[3])
    found = [await store.status(job.id, now=0) for job in jobs]
    assert found == ["pending", "not_found", "pending", "not_found", "pending"]


async def test_bad_job_in_one_add(open_store: Opener) -> None:
    """An add with one bad job stores none of its jobs."""
    store = await open_store()
    with pytest.raises(DatabaseUnusable, match="priority"):
        await store.add([new("a"), new("bad", priority=99), new("b")])
    assert [await store.status(job_id, now=0) for job_id in ("a", "bad", "b")] == ["not_found"] * 3


async def test_bad_outcome(open_store: Opener) -> None:
    """Outcomes of one call are written together or, if one is refused, not at all."""
    store = await open_store()
    good, bad = await running(store, "good"), await running(store, "bad")
    outcomes = [complete(good), msgspec.structs.replace(complete(bad), status=JobStatus.PENDING)]
    with pytest.raises(DatabaseUnusable):
        await store.finish(outcomes)
    with pytest.raises(DatabaseUnusable):
        store.finish_now(outcomes)
    assert [await store.status(job_id, now=0) for job_id in ("good", "bad")] == ["running"] * 2


async def test_cancelled_before_its_group_begins(open_store: Opener, path: str) -> None:
    """A write whose caller is cancelled while it still waits for its turn leaves nothing."""
    store = await open_store(busy_timeout=60.0)
    with locked(path) as other, attempts(store, 1) as tried:
        first = asyncio.create_task(store.add([new("first")]))
        async with asyncio.timeout(30):
            await tried.wait()
            second = asyncio.create_task(store.add([new("second")]))
            third = asyncio.create_task(store.add([new("third")]))
            await asyncio.sleep(0)
            second.cancel()
            other.execute("COMMIT")
            await asyncio.wait([first, second, third])
    assert second.cancelled()
    found = [await store.status(job_id, now=0) for job_id in ("first", "second", "third")]
    assert found == ["pending", "not_found", "pending"]


async def test_cancelled_after_its_group_has_begun(open_store: Opener, path: str) -> None:
    """A write whose caller is cancelled while it is on its way happens all the same."""
    store = await open_store(busy_timeout=60.0)
    with locked(path) as other, attempts(store, 1) as tried:
        adding = asyncio.create_task(store.add([new("a"), new("b")]))
        async with asyncio.timeout(30):
            await tried.wait()
            adding.cancel()
            await asyncio.wait([adding])
            other.execute("COMMIT")
            await store.add([])
    assert adding.cancelled()
    assert [await store.status(job_id, now=0) for job_id in ("a", "b")] == ["pending"] * 2


async def test_cancellation_leaves_no_transaction(path: str, open_store: Opener) -> None:
    """Whatever callers are cancelled, at any moment, no transaction stays open."""
    rng = random.Random(7)
    store = await open_store(durability="normal")
    for turn in range(100):
        calls = [
            store.add([new(f"{turn}-{number}") for number in range(3)]),
            store.claim([LANE], owner="mine", now=100, until=1000),
            store.expire(now=100, limit=10),
            store.status("1-1", now=0),
        ]
        tasks = [asyncio.ensure_future(call) for call in calls]
        for _ in range(rng.choice([0, 1, 2, 5, 20, 100])):
            await asyncio.sleep(0)
        for task in rng.sample(tasks, 2):
            task.cancel()
        await asyncio.wait(tasks)
        await store.add([])
        assert not store._database.writer.raw.in_transaction
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0.0)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    counts = query(path, "SELECT count(*) FROM backlite_jobs GROUP BY substr(id, 1, instr(id, '-'))")
    assert {count for (count,) in counts} == {3}


# -- durability ------------------------------------------------------------------------------------


def sync_level(store: SQLiteStore) -> int:
    (found,) = store._database.writer.raw.execute("PRAGMA synchronous").fetchone()
    return int(found)


FULL, NORMAL = 2, 1


async def test_sync_level_after_claims(open_store: Opener) -> None:
    """Claims, renewals and expiry do without a sync; what follows them is synced again."""
    store = await open_store(durability="full")
    await store.add([new("a")])
    with traced(store) as seen:
        (job,) = (await store.claim([LANE], owner="mine", now=100, until=1000)).jobs
        store.renew([(job.id, job.fence)], until=2000)
        await store.expire(now=0, limit=1)
        assert sync_level(store) == NORMAL
        await store.add([new("b")])
        await store.add([new("c")])
    levels = [statement for statement in seen if "synchronous =" in statement or "BEGIN" in statement]
    normal, full, begin = "PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL", "BEGIN IMMEDIATE"
    assert levels == [normal, begin, begin, begin, full, begin, begin]


async def test_sync_level_after_failure(path: str, open_store: Opener) -> None:
    """What follows a claim that could not be written is synced."""
    store = await open_store(durability="full", busy_timeout=0.0)
    await store.add([new("a")])
    with locked(path), pytest.raises(DatabaseBusy):
        await store.claim([LANE], owner="mine", now=100, until=1000)
    await store.add([new("b")])
    assert sync_level(store) == FULL


@pytest.mark.parametrize(("durability", "level"), [("full", FULL), ("normal", NORMAL)])
async def test_sync_level_of_a_new_connection(open_store: Opener, durability: str, level: int) -> None:
    """A connection that is opened anew, because of an I/O error, syncs what is added as it is to be."""
    store = await open_store(durability=durability)
    await running(store)
    assert sync_level(store) == NORMAL
    store._database._broken.add(store._database.writer)
    await store.add([new("b")])
    assert sync_level(store) == level


async def test_sync_of_a_mixed_group(open_store: Opener) -> None:
    """A claim that shares its commit with an add is synced like it."""
    store = await open_store(durability="full")
    with traced(store) as seen:
        await asyncio.gather(
            store.add([new("a")]),
            store.claim([LANE], owner="mine", now=100, until=1000),
            store.add([new("b")]),
        )
    assert seen.count("COMMIT") == 1
    assert "PRAGMA synchronous = NORMAL" not in seen


async def test_adds_and_outcomes_are_synced(open_store: Opener) -> None:
    """What was accepted or completed is synced, also by the blocking call."""
    store = await open_store(durability="full")
    jobs = [await running(store, "a"), await running(store, "b")]
    with traced(store) as seen:
        await store.add([new("c")])
        await store.finish([complete(jobs[0])])
        store.finish_now([complete(jobs[1])])
    assert seen.count("COMMIT") == 3
    assert "PRAGMA synchronous = NORMAL" not in seen


async def test_normal_durability(open_store: Opener) -> None:
    """With normal durability the level is NORMAL, and stays so."""
    store = await open_store(durability="normal")
    assert sync_level(store) == NORMAL
    await running(store)
    assert sync_level(store) == NORMAL


# -- closing ---------------------------------------------------------------------------------------


async def test_close_writes_what_was_accepted(path: str, open_store: Opener) -> None:
    """What was asked for before the end is written first."""
    store = await open_store()
    adding = [asyncio.create_task(store.add([new(str(number))])) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*adding)
    assert query(path, "SELECT count(*) FROM backlite_jobs") == [(50,)]


async def test_close_writes_what_is_waiting(path: str, open_store: Opener) -> None:
    """What waits for its turn when the store is closed is written, too."""
    store = await open_store(busy_timeout=60.0)
    with locked(path) as other, attempts(store, 1) as tried:
        adding = [asyncio.create_task(store.add([new("first")]))]
        async with asyncio.timeout(30):
            await tried.wait()
            adding.append(asyncio.create_task(store.add([new("second")])))
            await asyncio.sleep(0)
            closing = asyncio.create_task(store.close(lend=True))
            await asyncio.sleep(0)
            other.execute("COMMIT")
            await asyncio.gather(closing, *adding)
    assert query(path, "SELECT id FROM backlite_jobs ORDER BY seq") == [("first",), ("second",)]


async def test_closed_store(open_store: Opener) -> None:
    """A closed store refuses what it is asked, and can be closed again."""
    store = await open_store()
    await store.close()
    with pytest.raises(InvalidState, match="closed"):
        await store.add([new("a")])
    with pytest.raises(BackliteError, match="closed"):
        await store.status("a", now=0)
    with pytest.raises(BackliteError, match="closed"):
        store.renew([("a", 1)], until=9)
    await store.close()


async def test_cancelled_close(path: str, open_store: Opener) -> None:
    """A close whose caller is cancelled closes all the same."""
    for turns in range(30):
        store = await open_store(durability="normal")
        await store.add([new(str(turns))])
        closing = asyncio.create_task(store.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await store.close()
    assert query(path, "SELECT count(*) FROM backlite_jobs") == [(30,)]


async def test_close_leaves_one_file(path: str, open_store: Opener) -> None:
    """After the last store's end, the write-ahead log has gone into the file; locks stay beside it."""
    store = await open_store()
    await store.add([new("a")])
    await store.close()
    names = sorted(name.name for name in Path(path).parent.iterdir())
    assert names == [Path(path).name, Path(path).name + "-backlite"]


async def test_lent_store(path: str, open_store: Opener) -> None:
    """A store that is closed but lent renews leases and writes outcomes, and accepts nothing new."""
    store = await open_store()
    job = await running(store)
    await store.close(lend=True)
    assert store.renew([(job.id, job.fence)], until=5000) == set()
    assert query(path, "SELECT due_at FROM backlite_jobs") == [(5000,)]
    with pytest.raises(InvalidState):
        await store.add([new("b")])
    assert await asyncio.to_thread(store.finish_now, [complete(job)]) == set()
    assert query(path, "SELECT status FROM backlite_completed") == [("succeeded",)]
    await asyncio.to_thread(store.close_soon)
    with pytest.raises(BackliteError, match="closed"):
        store.renew([(job.id, job.fence)], until=6000)


async def test_close_soon_is_safe_to_repeat(open_store: Opener) -> None:
    """A lent store may be closed more than once, in both ways."""
    store = await open_store()
    await store.close(lend=True)
    await asyncio.to_thread(store.close_soon)
    await asyncio.to_thread(store.close_soon)
    await store.close()


async def test_a_cancelled_add_that_was_committed_is_told(open_store: Opener, path: str) -> None:
    """Whoever added may be gone: the listeners hear of the jobs when they are there."""
    store = await open_store()
    heard = asyncio.Event()
    store.listen(heard.set)
    with locked(path) as other, attempts(store, 2) as trying:
        adding = asyncio.create_task(store.add([new("a")]))
        async with asyncio.timeout(20):
            await trying.wait()
            adding.cancel()
            await asyncio.wait([adding])
            other.execute("COMMIT")
            await heard.wait()
    assert adding.cancelled()
    assert await store.status("a", now=0) is JobStatus.PENDING


@pytest.mark.parametrize("what", ["status", "finish"])
async def test_a_cancellation_is_not_lost(open_store: Opener, what: str) -> None:
    """A cancellation that comes while the database thread works is delivered afterwards."""
    store = await open_store()
    job = await running(store)

    async def caller() -> None:
        await (store.status("a", now=0) if what == "status" else store.finish([complete(job)]))
        await asyncio.Event().wait()

    calling = asyncio.create_task(caller())
    await asyncio.sleep(0)
    calling.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait([calling])
    assert calling.cancelled()


async def test_finish_now_tells_the_others(open_store: Opener) -> None:
    """A job that is given back from another thread wakes the other stores on the file."""
    store, other = await open_store(), await open_store()
    job = await running(store)
    heard = asyncio.Event()
    other.listen(heard.set)
    again = Reschedule(id=job.id, fence=job.fence, due_at=0, attempt=0, crashes=0)
    assert await asyncio.to_thread(store.finish_now, [again]) == set()
    async with asyncio.timeout(20):
        await heard.wait()


async def test_a_store_that_was_never_opened(path: str) -> None:
    """It can be closed, and says that it is not open."""
    store = SQLiteStore(path, durability="full", busy_timeout=1.0)
    with pytest.raises(InvalidState, match="not open"):
        await store.add([new("a")])
    await store.close()


def test_asyncio_run_ends_with_a_store_left_open(tmp_path: Path) -> None:
    """A store that nobody closes does not keep the program from ending."""
    script = """if True:
        import asyncio, sys
        from backlite_async.stores.sqlite.store import SQLiteStore
        async def main():
            store = SQLiteStore(sys.argv[1], durability="normal", busy_timeout=1.0)
            await store.open(install=True)
            await store.add([])
        asyncio.run(main())
    """
    command = [sys.executable, "-P", "-c", script, str(tmp_path / "a.db")]
    subprocess.run(command, timeout=20, check=True, cwd=tmp_path)


# -- after an I/O error ----------------------------------------------------------------------------


@pytest.mark.parametrize("reading", [False, True], ids=["writer", "reader"])
async def test_a_connection_is_opened_anew_after_an_io_error(open_store: Opener, reading: bool) -> None:
    """What it remembered of the file is not trusted; what it was set to holds for the new one."""
    store = await open_store()
    await store.add([new("a")])
    database = store._database
    connection = database.reader if reading else database.writer
    before = connection.raw

    def fail(raw: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error

    with pytest.raises(DatabaseUnavailable if reading else sqlite3.OperationalError, match="disk I/O"):
        await (database.read(fail) if reading else asyncio.to_thread(database.transact, fail))
    assert connection.raw is before
    await store.add([new("b")])
    assert await store.status("b", now=0) is JobStatus.PENDING
    assert connection.raw is not before
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        before.execute("SELECT 1")
    expected = ("query_only", 1) if reading else ("synchronous", 2)
    assert connection.raw.execute(f"PRAGMA {expected[0]}").fetchall() == [(expected[1],)]
    claim = await store.claim([LANE], owner="mine", now=100, until=1000)
    assert [job.id for job in claim.jobs] == ["a", "b"]


@pytest.mark.parametrize("what", ["", "-wal"])
async def test_a_file_that_was_removed_after_long_is_noticed(
    path: str, open_store: Opener, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Where nothing in the folder has changed for a while, only the folder is looked at; then all of it."""
    store = await open_store()
    await store.add([new("a")])
    monkeypatch.setattr(database, "TICK", -(10**18))  # as if any change were long ago
    await store.add([new("b")])
    stats: list[object] = []
    stat_of = os.stat

    def noted(name: Any, **options: Any) -> os.stat_result:
        stats.append(name)
        return stat_of(name, **options)

    monkeypatch.setattr(os, "stat", noted)
    await store.add([new("c")])
    assert set(stats) == {os.path.dirname(path)}
    os.rename(path + what, path + ".old")
    with pytest.raises(DatabaseReplaced):
        await store.add([new("d")])
    os.rename(path + ".old", path + what)


async def test_a_folder_that_has_just_changed_is_not_trusted(path: str, open_store: Opener) -> None:
    """What has changed may change again at the same tick of the clock."""
    store = await open_store()
    await store.add([new("a")])
    os.utime(os.path.dirname(path))  # an entry of a folder that changes would do the same
    assert database._settled(os.path.dirname(path)) is None


async def test_a_log_that_was_removed_is_noticed(path: str, open_store: Opener) -> None:
    """Who opens and closes the file in our process drops our locks; then another may remove the log."""
    store = await open_store()
    await store.add([new("a")])
    os.unlink(path + "-wal")
    claim = store.claim([LANE], owner="mine", now=100, until=1000)
    for call in (store.add([new("b")]), store.status("a", now=0), claim):
        with pytest.raises(DatabaseReplaced, match="write-ahead log"):
            await call
