"""What is wrong with a database is found, made for real, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from backlite_async import (
    Client,
    DatabaseBusy,
    DatabaseUnusable,
    Finding,
    InvalidState,
    JobContext,
    QueueConfig,
    Rate,
    Task,
    _checkup,
)
from backlite_async._clock import SystemClock, from_millis
from backlite_async._doctor import findings
from backlite_async._inspection import Backlog, Claims, Inspection, QueueSeen
from backlite_async._job import OwnerInfo
from backlite_async.stores.sqlite import inspect as sqlite_inspect
from backlite_async.stores.sqlite.sql import migrations

from .conftest import LIMIT, Journal

NEWEST = len(migrations())


class Mail(Task):
    config: ClassVar[QueueConfig] = QueueConfig("mail")
    to: str = ""


class Letter(Task):
    config: ClassVar[QueueConfig] = Mail.config


class Ahead(SystemClock):
    """Goes ahead of the computer's clock."""

    def __init__(self, by: float) -> None:
        self._by = round(by * 1000)

    def now(self) -> int:
        return super().now() + self._by


@pytest.fixture(autouse=True)
def _sound_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever SQLite this Python has: it is not what most of these are about."""
    monkeypatch.setattr(sqlite_inspect, "is_affected", lambda version: False)


PROGRAM = """
import asyncio, sys
from typing import ClassVar
from backlite_async import Client, QueueConfig, Task

class Mail(Task):
    config: ClassVar[QueueConfig] = QueueConfig("mail")
    to: str = ""

async def main():
    client = Client(sys.argv[1], workers=2, lease=60)

    @client.handler(Mail)
    async def send(task: Mail) -> None:
        print("started", flush=True)
        await asyncio.Event().wait()

    async with client:
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def worker(file: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that sends mail, endlessly."""
    code = [sys.executable, "-c", PROGRAM, file]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as process:
        try:
            heard(process, "ready")
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == line


def codes(found: Any) -> list[str]:
    for finding in found:
        assert finding.message
        assert finding.remedy.endswith(".")
    return [finding.code for finding in found]


def run_sql(file: str, *statements: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


# -- nothing is wrong -----------------------------------------------------------------------------


async def test_of_a_healthy_database_nothing_is_said(database: str, journal: Journal) -> None:
    """Before, while and after its jobs run; also of jobs that are for later, and by another client."""
    client = Client(database)

    @client.handler(Mail)
    async def send(task: Mail) -> None: ...

    await client.install()
    assert await client.doctor() == []
    async with client:
        assert await client.doctor() == []
        [now, later] = [*await client.add(Mail()).save(), *await client.add(Mail()).wait(60).save()]
        await journal.ended(now)
        assert await client.doctor(late=0) == []
        if database != ":memory:":
            assert await client.observer().doctor() == []
            async with Client(database, workers=0) as other:
                assert await other.doctor() == []
                handles = [owner.handles for owner in await other.owners.list()]
                assert sorted(handles, key=bool) == [(), (("mail", "Mail"),)]
        await client.jobs.delete(later)
    assert await client.doctor() == []


async def test_threads_that_are_all_taken_are_no_room(database: str) -> None:
    """However many workers are free; what waits for one of them is left alone by nobody."""
    client, begun, release = Client(database, workers=4, threads=1), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @client.handler(Mail)
    def send(task: Mail) -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait(LIMIT)

    async with client:
        try:
            await client.add(*[Mail()] * 4).save()
            await begun.wait()
            assert await client.doctor(late=0) == []
            [owner] = await client.owners.list()
            assert (owner.handles, owner.threaded, owner.threads) == ((("mail", "Mail"),), ("mail",), 1)
            assert await client.jobs.count(state="pending") > 0
        finally:
            release.set()


async def test_the_truth_about_this_sqlite(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite with the bug is named with its version; one without is not."""
    await Client(file).install()
    monkeypatch.setattr(sqlite_inspect, "is_affected", lambda version: version == sqlite3.sqlite_version_info)
    [found] = await Client(file).doctor()
    assert found.code == "sqlite_affected"
    assert sqlite3.sqlite_version in found.message
    assert "3.51.3" in found.remedy


# -- the file -------------------------------------------------------------------------------------


async def test_a_network_file_system(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its type."""
    await Client(file).install()
    monkeypatch.setattr(sqlite_inspect, "network_file_system", lambda path: "nfs4")
    [found] = await Client(file).doctor()
    assert (found.code, found.subject) == ("network_file_system", file)
    assert "nfs4" in found.message


async def test_another_journal_mode(file: str) -> None:
    """Some program has switched it; a client that starts switches it back."""
    client = Client(file, workers=0)
    await client.install()
    run_sql(file, "PRAGMA journal_mode = DELETE")
    [found] = await client.doctor()
    assert (found.code, found.subject) == ("not_wal", file)
    assert "'delete'" in found.message
    async with client:
        assert await client.doctor() == []


async def test_a_log_that_has_grown(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that does not end keeps the log from being begun anew."""
    monkeypatch.setattr(sqlite_inspect, "LOG_LIMIT", 1_000_000)
    client = Client(file, workers=0)
    async with client:
        run_sql(file, "CREATE TABLE own (value)")
        assert await client.doctor() == []
        with closing(sqlite3.connect(file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM own").fetchall()
            for _ in range(3):
                run_sql(file, "INSERT INTO own VALUES (zeroblob(1000000))")
            for one in (client, client.observer()):
                [found] = await one.doctor()
                assert (found.code, found.subject) == ("wal_grown", file + "-wal")
                assert re.search(r" 3\.\d MiB, more than the 1\.0 MiB", found.message)


# -- the schema -----------------------------------------------------------------------------------


async def test_no_schema(file: str) -> None:
    """No file, an empty one, and one that has other tables; nothing is made."""
    client = Client(file)
    [found] = await client.doctor()
    assert (found.code, found.subject) == ("schema_missing", file)
    assert "does not exist" in found.message
    assert await client.schema() == (0, NEWEST)
    assert not os.path.exists(file)
    run_sql(file, "CREATE TABLE own (value)")
    [found] = await client.doctor()
    assert found.code == "schema_missing"
    assert await client.schema() == (0, NEWEST)
    assert not os.path.exists(file + "-backlite")


@pytest.mark.parametrize(("version", "code"), [(NEWEST - 1, "schema_older"), (NEWEST + 1, "schema_newer")])
async def test_another_schema(file: str, version: int, code: str) -> None:
    """Both numbers are told, and nothing else is looked at: who knows what it means there."""
    client = Client(file, workers=0)
    async with client:
        await client.add(Mail()).save()
    assert await client.schema() == (NEWEST, NEWEST)
    run_sql(file, f"UPDATE backlite_schema SET version = {version}", "DROP INDEX backlite_jobs_pending")
    [found] = await client.doctor()
    assert (found.code, found.subject) == (code, file)
    assert f"version {version}," in found.message
    assert await client.schema() == (version, NEWEST)


async def test_it_leaves_everything_as_it_is(file: str, tmp_path: Path) -> None:
    """Also a log that nobody has written back, of a process that was killed, and the time of the file."""

    def there() -> dict[str, tuple[int, int]]:
        found = {path.name: path.stat() for path in tmp_path.rglob("*") if not path.name.endswith("-shm")}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}

    client = Client(file)
    await client.install()
    for _ in range(2):
        before = there()
        assert (await client.schema(), await client.doctor()) == ((NEWEST, NEWEST), [])
        assert there() == before
        with worker(file) as process:
            process.kill()
    assert "app.db-wal" in before


async def test_what_is_no_database(file: str, tmp_path: Path) -> None:
    """Raises, as a start would."""
    Path(file).write_bytes(b"no database" * 1000)
    for path, said in ((file, "database"), (str(tmp_path), "is a folder")):
        with pytest.raises(DatabaseUnusable, match=said):
            await Client(path).doctor()
        with pytest.raises(DatabaseUnusable, match=said):
            await Client(path).schema()


async def test_a_file_that_is_not_ours_to_write(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said so, not that somebody has tried to."""
    client = Client(file, workers=0)
    await client.install()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    for ask in (client.doctor, client.schema):
        with pytest.raises(DatabaseUnusable, match="is not writable for this user"):
            await ask()


async def test_a_locked_database(file: str) -> None:
    """In another journal mode a writer keeps readers out: that is said after the busy timeout."""
    client = Client(file, busy_timeout=0.05)
    await client.install()
    run_sql(file, "PRAGMA journal_mode = DELETE")
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseBusy):
            await client.doctor()


async def test_in_memory_there_is_no_schema() -> None:
    """Nor a file."""
    client = Client(":memory:")
    found, newest = await client.schema()
    assert found == newest
    async with client:
        await client.vacuum()


# -- jobs -----------------------------------------------------------------------------------------


async def test_a_queue_without_a_handler(database: str) -> None:
    """Nobody runs at all, or none of those that do has a handler for all of its tasks."""
    client = Client(database, workers=0)
    async with client:
        await client.add(Mail(), Mail()).save()
        await client.add(Letter()).wait(3600).save()
        [found] = await client.doctor()
        assert (found.code, found.subject) == ("queue_unhandled", "mail")
        assert "3 jobs pending (Letter, Mail), and no process with workers runs" in found.message


async def test_a_handler_that_is_there_is_known_everywhere(file: str) -> None:
    """By a client in another process, while it lives, and as soon as it is registered."""
    async with Client(file, workers=0) as client:
        await client.add(Mail()).wait(3600).save()
        await client.add(Letter()).wait(3600).save()
        assert "2 jobs" in (await client.doctor())[0].message
        with worker(file) as process:
            [found] = await client.doctor()
            assert (found.code, found.subject) == ("queue_unhandled", "mail")
            assert "1 job pending (Letter), and none of the 1 running" in found.message
            assert found == (await client.observer().doctor())[0]
            async with Client(file) as here:
                assert len(await client.doctor()) == 1

                @here.handler(Letter)
                async def write(task: Letter) -> None: ...

                assert await client.doctor() == []
                await here.pause("mail", here=True)
                assert len(await client.doctor()) == 1
                await here.resume("mail", here=True)
                assert await client.doctor() == []
            process.terminate()
            process.wait()
        assert "2 jobs" in (await client.doctor())[0].message


async def test_leases_of_the_dead(file: str) -> None:
    """A process that was killed, with nobody to take over: once its lease has ended."""
    client = Client(file, workers=0)
    async with client:
        with worker(file) as process:
            [job_id] = await client.add(Mail()).save()
            heard(process, "started")
            process.kill()
        job = await client.get(job_id)
        assert job is not None
        assert job.owner is not None
    assert await client.doctor() == []
    [found] = await Client(file, clock=Ahead(200)).doctor()
    assert (found.code, found.subject) == ("lease_of_dead_owner", job.owner)
    assert f"1 job of 'mail' still belongs to {job.owner}, which is dead" in found.message
    assert "2 minutes ago" in found.message


async def test_due_jobs_that_nobody_claims(file: str) -> None:
    """The process with the handler hangs; not while it has no room, or the queue is paused."""
    later = Client(file, clock=Ahead(90))
    async with Client(file, workers=0) as client:
        with worker(file) as process:
            process.send_signal(signal.SIGSTOP)
            await client.add(Mail(), Mail()).save()
            assert await client.doctor() == []
            [found] = await later.doctor()
            assert (found.code, found.subject) == ("due_unclaimed", "mail")
            assert "2 jobs of queue 'mail' are due for more than 60 seconds" in found.message
            assert await later.doctor(late=120) == []
            await client.pause("mail")
            assert await later.doctor() == []
            await client.resume("mail")
            process.send_signal(signal.SIGCONT)
            heard(process, "started")
            heard(process, "started")
            process.send_signal(signal.SIGSTOP)
            await client.add(Mail()).save()
            assert await Client(file, clock=Ahead(59)).doctor(late=1) == []  # both of its workers are busy
            [found] = await Client(file, clock=Ahead(200)).doctor()  # it lives, but its leases end
            assert found.code == "lease_of_dead_owner"
            assert "2 jobs of 'mail' still belong to " in found.message
            assert "lives, but does not renew" in found.message
            assert "let it go on or kill it" in found.remedy


# -- decisions ------------------------------------------------------------------------------------

NOW = 1_900_000_000_000


def owner(**values: Any) -> OwnerInfo:
    usual: dict[str, Any] = {
        "id": "one", "host": "here", "pid": 1, "started_at": None, "workers": 4, "running": 0, "alive": True,
        "seen_at": from_millis(NOW), "handles": (("mail", "Mail"),),
    }  # fmt: skip
    return OwnerInfo(**usual | values)


IN_THREADS = [owner(threaded=("mail", "other"), threads=2)]


def late_mail(**values: Any) -> list[Finding]:
    usual: dict[str, Any] = {
        "owners": [owner()],
        "backlogs": [Backlog("mail", "Mail", 5, 3, NOW - 90_000)],
        "queues": [QueueSeen("mail", paused=False)],
    }
    return findings(Inspection(**usual | values), now=NOW, late=60_000)


def limited(**limits: Any) -> list[QueueSeen]:
    return [QueueSeen("mail", False, limits, started=3)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, ["due_unclaimed"]),
        ({"backlogs": [Backlog("mail", "Mail", 5, 0, NOW - 9)]}, []),
        ({"queues": [QueueSeen("mail", paused=True)]}, []),
        ({"queues": []}, ["due_unclaimed"]),
        ({"claims": [Claims("mail", "one", 3, 0, NOW)]}, ["due_unclaimed"]),
        ({"claims": [Claims("mail", "one", 4, 0, NOW)]}, []),
        ({"claims": [Claims("other", "one", 4, 0, NOW)]}, []),
        ({"claims": [Claims("mail", "two", 4, 0, NOW)]}, ["due_unclaimed"]),
        ({"owners": IN_THREADS, "claims": [Claims("mail", "one", 2, 0, NOW)]}, []),
        ({"owners": IN_THREADS, "claims": [Claims("mail", "one", 1, 0, NOW)]}, ["due_unclaimed"]),
        ({"owners": IN_THREADS, "claims": [Claims("other", "one", 2, 0, NOW)]}, []),
        ({"owners": IN_THREADS, "claims": [Claims("async", "one", 2, 0, NOW)]}, ["due_unclaimed"]),
        ({"owners": IN_THREADS, "claims": [Claims("mail", "two", 2, 0, NOW)]}, ["due_unclaimed"]),
        ({"queues": limited(global_concurrency=4)}, ["due_unclaimed"]),
        ({"queues": limited(global_concurrency=4), "claims": [Claims("mail", "two", 4, 0, NOW)]}, []),
        ({"queues": limited(concurrency=2), "claims": [Claims("mail", "one", 2, 0, NOW)]}, []),
        ({"queues": limited(concurrency=2), "claims": [Claims("mail", "two", 2, 0, NOW)]}, ["due_unclaimed"]),
        ({"queues": limited(rate={"count": 3, "per": 60})}, []),
        ({"queues": limited(rate={"count": 4, "per": 60})}, ["due_unclaimed"]),
        ({"owners": [owner(alive=False)]}, ["queue_unhandled"]),
        ({"owners": [owner(alive=None)]}, ["queue_unhandled"]),
        ({"owners": [owner(handles=None)]}, []),
        ({"owners": [owner(handles=()), owner(id="two", handles=None)]}, []),
        ({"owners": [owner(handles=()), owner(id="two", workers=0, handles=())]}, ["queue_unhandled"]),
        ({"owners": [], "all_owners": False}, []),
        ({"claims": [Claims("mail", "two", 4, 1, NOW - 5_000)]}, ["lease_of_dead_owner", "due_unclaimed"]),
        ({"schema": (6, 7), "path": "x"}, ["schema_older"]),
    ],
)
def test_what_is_found_of_jobs(values: dict[str, Any], found: list[str]) -> None:
    """Jobs are nobody's, or somebody could claim them and does not."""
    assert codes(late_mail(**values)) == found


@pytest.mark.parametrize(
    ("again", "found"),
    [
        ({}, ["due_unclaimed"]),
        ({"backlogs": [Backlog("mail", "Mail", 6, 4, NOW - 90_000)]}, ["due_unclaimed"]),
        ({"backlogs": [Backlog("mail", "Mail", 4, 2, NOW - 90_000)]}, []),
        ({"backlogs": [Backlog("mail", "Mail", 5, 3, NOW - 80_000)]}, []),
        ({"queues": limited(rate={"count": 3, "per": 60})}, []),
        ({"queues": limited(rate={"count": 4, "per": 60})}, ["due_unclaimed"]),
        ({"backlogs": [Backlog("mail", "Other", 4, 2, NOW - 9)]}, ["queue_unhandled"]),
    ],
)
async def test_what_seems_to_be_left_alone_is_looked_at_twice(
    monkeypatch: pytest.MonkeyPatch, again: dict[str, Any], found: list[str]
) -> None:
    """The moment between room and the next claim is no finding; nor is it where some were taken since."""
    usual: dict[str, Any] = {
        "owners": [owner()],
        "backlogs": [Backlog("mail", "Mail", 5, 3, NOW - 90_000)],
        "queues": [QueueSeen("mail", paused=False)],
    }
    looks = [Inspection(**usual), Inspection(**usual | again)]

    class Seen:
        async def inspect(self, **_: object) -> Inspection:
            return looks.pop(0)

    client = Client(":memory:")
    monkeypatch.setattr(client, "_make_store", Seen)
    monkeypatch.setattr(_checkup, "AGAIN", 0)
    assert codes(await client.doctor()) == found
    assert looks == []


async def test_a_rate_that_is_used_up(database: str, journal: Journal) -> None:
    """What waits for its rate is not held against anybody."""

    class Slow(Task):
        config: ClassVar[QueueConfig] = QueueConfig("slow", rate=Rate(1, per=3600), concurrency=5)

    client = Client(database)

    @client.handler(Slow)
    async def go(task: Slow) -> None: ...

    async with client:
        ids = await client.add(Slow()).save()
        await journal.ended(*ids)
        await client.add(Slow()).save()
        assert await client.doctor(late=0) == []
        seen = await client._make_store().inspect(now=client.clock.now(), ended_by=0, late_by=0)
        [queue] = seen.queues
        assert queue.started == 1


# -- vacuum ---------------------------------------------------------------------------------------


async def test_a_file_is_built_anew_while_it_is_used(file: str, journal: Journal) -> None:
    """It shrinks, its log too; jobs run before, meanwhile and afterwards; what is there stays."""
    client = Client(file, workers=2)

    @client.handler(Mail)
    async def send(task: Mail, job: JobContext) -> None: ...

    async with client:
        kept = await client.add(*(Mail(f"{n}@x") for n in range(20))).wait(3600).save()
        big = await client.add(*(Mail("x" * 100_000) for _ in range(50))).wait(3600).save()
        await client.jobs.delete(*big)
        before = os.stat(file).st_size + os.stat(file + "-wal").st_size
        ids = await client.add(Mail(), Mail()).save()
        async with client.observer() as observer:
            await observer.vacuum()
            await client.vacuum()
        ids += await client.add(Mail(), Mail()).save()
        await journal.ended(*ids)
        after = os.stat(file).st_size + os.stat(file + "-wal").st_size
        assert before > 5_000_000
        assert after < 1_000_000
        assert await client.jobs.count(queue="mail") == len(kept)
        assert await client.doctor() == []
    run_sql(file, "PRAGMA integrity_check")


async def test_a_file_that_cannot_be_built_anew(file: str) -> None:
    """Somebody's transaction is open; the client is not started."""
    client = Client(file, workers=0, busy_timeout=0.2)
    with pytest.raises(InvalidState, match="is not started"):
        await client.vacuum()
    async with client:
        with closing(sqlite3.connect(file, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseBusy):
                await client.vacuum()
        await client.vacuum()
