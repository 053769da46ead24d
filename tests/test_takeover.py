"""Several processes on one file: they hear of each other's jobs and deaths at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Self

import anyio
import pytest

from backlite_async import (
    Client,
    DatabaseReplaced,
    InvalidState,
    JobContext,
    JobStatus,
    QueueConfig,
    Retention,
    Task,
    _dispatcher,
    _feed,
    _solo,
)
from backlite_async._job import Claim

from .conftest import LIMIT, Journal

LEASE = 3600.0
"""So long that nothing here can be explained by the end of a lease."""


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())
    number: int = 0


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other", max_crashes=1, retention=Retention())


PROGRAM = """
import asyncio, sys
from typing import ClassVar
from backlite_async import Client, QueueConfig, Retention, Task

class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())
    number: int = 0

class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other", max_crashes=1, retention=Retention())

async def main() -> None:
    client = Client(sys.argv[1], lease=3600, workers=int(sys.argv[2]))

    async def run(task) -> None:
        print("started", flush=True)
        await asyncio.Event().wait()

    client.register(Work, run)
    client.register(Other, run)
    async with client:
        print("open", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            kind = {"work": Work, "other": Other}[line.strip()]
            print(*await client.add(kind()).save(), flush=True)

asyncio.run(main())
"""


class Companion:
    """Another process with a client on the same file."""

    def __init__(self, file: str, workers: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, file, str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    async def __aenter__(self) -> Self:
        assert await self.line() == "open"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    async def line(self) -> str:
        assert self.process.stdout is not None
        with anyio.fail_after(LIMIT):
            return (
                await anyio.to_thread.run_sync(self.process.stdout.readline, abandon_on_cancel=True)
            ).strip()

    async def add(self, kind: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kind}\n")
        return await self.line()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


async def test_a_job_added_in_one_process_starts_in_another(file: str, journal: Journal) -> None:
    """An idle dispatcher hears of it, without a look of its own: that would come after 45 s."""
    assert LIMIT < _dispatcher.LONGEST_SLEEP
    async with Client(file, lease=LEASE) as client, Companion(file, workers=0) as other:
        client.register(Work, lambda task: None)
        await journal.ended(await other.add("work"))
        await journal.ended(await other.add("work"))


async def test_jobs_of_a_process_that_dies_run_again_at_once(file: str, journal: Journal) -> None:
    """The lease is an hour: the death itself is noticed, and told in the job's errors."""
    async with Client(file, lease=LEASE) as client:
        async with Companion(file, workers=5) as other:
            job_id = await other.add("work")
            assert await other.line() == "started"
            client.register(Work, lambda task: None)
        await journal.ended(job_id)
        job = await client.get(job_id)
        [line] = journal.of("owner.died")
        assert "jobs=1" in line
    assert job is not None
    assert (job.status, job.attempt, job.crashes) == (JobStatus.SUCCEEDED, 1, 1)
    assert job.error == "process died (crash 1 of at most 3)"


async def test_jobs_of_a_dead_process_run_at_the_next_start(file: str, journal: Journal) -> None:
    """Where nobody lived to notice, the next one who starts does, with no add."""
    async with Companion(file, workers=5) as other:
        job_id = await other.add("work")
        assert await other.line() == "started"
    client = Client(file, lease=LEASE)
    client.register(Work, lambda task: None)
    async with client:
        await journal.ended(job_id)
    assert [name for name in os.listdir(file + "-backlite") if not name.endswith(".lock")] == []


async def test_a_process_without_the_handler_takes_over_too(file: str, journal: Journal) -> None:
    """It releases the jobs; their limit of crashes holds where they are claimed."""
    async with Client(file, lease=LEASE) as client:
        async with Companion(file, workers=5) as dying:
            job_id = await dying.add("other")
            assert await dying.line() == "started"
        await journal.seen("job.crashed", job_id)
        found = await client.get(job_id)
        assert found is not None
        assert (found.status, found.crashes) == (JobStatus.PENDING, 1)
        client.register(Other, lambda task: None)
        [line] = await journal.seen("job.failed", job_id)
        assert "process died 1 time while" in line


async def test_a_stopped_process_is_not_dead(file: str, journal: Journal) -> None:
    """Its lock is held, so its job is not taken; it ends when the process really dies."""
    async with Client(file, lease=LEASE) as client, Companion(file, workers=5) as other:
        job_id = await other.add("work")
        assert await other.line() == "started"
        client.register(Work, lambda task: None)
        other.process.send_signal(signal.SIGSTOP)
        await journal.ended(*await client.add(Work()).save())
        assert await client.status(job_id) is JobStatus.RUNNING
        other.kill()
        await journal.ended(job_id)


async def test_upkeep_is_done_once(file: str, journal: Journal) -> None:
    """Of two dispatchers one removes what has expired; the other takes that over with its end."""

    class Brief(Task):
        config: ClassVar[QueueConfig] = QueueConfig("brief", retention=Retention(duration=0.01))

    async with Client(file) as first:
        first.register(Brief, lambda task: None)
        await first.add(Brief()).save()
        await journal.seen("jobs.expired")
        async with Client(file) as second:
            second.register(Brief, lambda task: None)
            await first.stop()
            await second.add(Brief()).save()
            await journal.seen("jobs.expired", count=2)


async def test_a_job_with_a_last_chance_runs_alone(file: str, journal: Journal) -> None:
    """It waits until the others have ended, and no other starts beside it."""
    running: set[int] = set()
    beside: dict[int, set[int]] = {}
    release = asyncio.Event()

    async def work(task: Work) -> None:
        running.add(task.number)
        beside[task.number] = running - {task.number}
        if task.number == 1:
            await release.wait()
        running.discard(task.number)

    client = Client(file)
    await client.install()
    async with Client(file, workers=0) as adder:
        ids = await adder.add(*(Work(number) for number in range(1, 6))).save()
    connection = sqlite3.connect(file)
    connection.execute("UPDATE backlite_jobs SET crashes = 2 WHERE id = ?", (ids[1],))
    connection.commit()
    connection.close()
    client.register(Work, work)
    async with client:
        await journal.ended(ids[2], ids[3], ids[4])
        assert not journal.of("job.started", ids[1])
        release.set()
        await journal.ended(*ids)
    assert beside[2] == set()
    assert all(2 not in others for others in beside.values())


async def test_a_job_with_a_last_chance_does_not_hold_others_up_for_long(
    file: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while the others go on, and it comes again later."""
    monkeypatch.setattr(_solo, "PATIENCE", 0.05)
    monkeypatch.setattr(_feed, "POSTPONED", 0.05)
    release = asyncio.Event()

    async def work(task: Work) -> None:
        if task.number == 1:
            await release.wait()

    client = Client(file, workers=3)
    client.register(Work, work)
    async with client:
        await client.add(Work(1)).save()
        await journal.seen("job.started")
        [suspect] = await client.add(Work(2)).wait(3600).save()
        connection = sqlite3.connect(file)
        connection.execute("UPDATE backlite_jobs SET crashes = 2, due_at = 0 WHERE id = ?", (suspect,))
        connection.commit()
        connection.close()
        client.notify()
        await journal.seen("job.given_back", suspect)
        await journal.ended(*await client.add(Work(3), Work(4)).save())
        assert not journal.of("job.started", suspect)
        release.set()
        await journal.ended(suspect)


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
async def test_a_file_that_is_gone_stops_the_dispatcher(file: str, journal: Journal, replaced: bool) -> None:
    """Nothing is written into the void: adds say why, at the next claim the client ends."""
    async with Client(file, workers=0) as adder:
        client = Client(file)
        client.register(Work, lambda task: None)
        await client.start()
        await journal.ended(*await client.add(Work()).save())
        if replaced:
            Path(file + ".new").write_bytes(b"")
            os.rename(file + ".new", file)
        else:
            os.unlink(file)
        with pytest.raises(DatabaseReplaced, match="replaced by another" if replaced else "deleted"):
            await adder.add(Work()).save()
        client.notify()
        await journal.seen("store.lost")
        await journal.seen("client.stopped")
        with pytest.raises(DatabaseReplaced):
            await client.add(Work()).save()
        assert await client.stop() is True or journal.of("store.failing")
        with pytest.raises(DatabaseReplaced):
            await adder.status("x")


async def test_an_outcome_that_cannot_be_written_into_another_file_stops_the_dispatcher(
    file: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it notices first, as no claim will: none is tried while outcomes wait."""
    client, begun, release = Client(file, workers=1), asyncio.Event(), asyncio.Event()

    @client.handler(Work)
    async def work(task: Work) -> None:
        begun.set()
        await release.wait()

    async def nothing(*_: object, **__: object) -> Claim:
        return Claim()

    await client.start()
    await client.add(Work()).save()
    with anyio.fail_after(LIMIT):
        await begun.wait()
    monkeypatch.setattr(client.open_store(), "claim", nothing)
    os.unlink(file)
    release.set()
    assert len(await journal.seen("store.lost")) == 1
    await journal.seen("client.stopped")
    with pytest.raises(DatabaseReplaced):
        await client.add(Work()).save()
    assert not await client.stop()


async def test_hazards_are_logged_at_the_start(
    file: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SQLite with the WAL-reset bug is named, with what to do; one without it is not."""
    for version, warned in (((3, 51, 2), True), ((3, 51, 3), False)):
        journal.lines.clear()
        monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
        async with Client(file):
            pass
        assert bool([line for line in journal.of("store.hazard") if "3.51.3" in line]) is warned


async def test_a_forked_child_is_told(tmp_path: Path) -> None:
    """In the child this client and any other on its file say so; the parent and its owner file live on."""
    program = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from typing import ClassVar
from backlite_async import Client, InvalidState, QueueConfig, Task

class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work")

async def main() -> None:
    done = asyncio.Event()
    async with Client(sys.argv[1]) as client:
        client.register(Work, lambda task: loop.call_soon_threadsafe(done.set))
        loop = asyncio.get_running_loop()
        if (child := os.fork()) == 0:
            said = 0
            new = Client(sys.argv[1])
            for call in (
                client.add(Work()).save, client.start, client.stop, lambda: client.status("x"), new.start
            ):
                try:
                    asyncio.events._set_running_loop(None)
                    asyncio.new_event_loop().run_until_complete(call())
                except InvalidState as error:
                    said += "fork" in str(error)
            os._exit(said)
        status = await asyncio.to_thread(os.waitpid, child, 0)
        print(os.waitstatus_to_exitcode(status[1]))
        await client.add(Work()).save()
        await done.wait()
        print(len([name for name in os.listdir(sys.argv[1] + "-backlite") if name.endswith(".owner")]))

asyncio.run(main())
"""
    done = await anyio.run_process([sys.executable, "-c", program, str(tmp_path / "app.db")], check=False)
    assert (done.stdout, done.returncode) == (b"5\n1\n", 0), done.stderr.decode()


async def test_a_backup_opens_and_goes_on(file: str, tmp_path: Path, journal: Journal) -> None:
    """What was acknowledged is in the copy; what ran is pending there."""
    copy = tmp_path / "copy.db"
    never = asyncio.Event()

    async def work(task: Work, job: JobContext) -> None:
        if job.client is original:
            await never.wait()

    original = Client(file)
    original.register(Work, work)
    async with original:
        ids = await original.add(Work(1), Work(2)).save()
        await journal.seen("job.started", count=2)
        await original.backup(copy)
        with pytest.raises(ValueError, match="something is there"):
            await original.backup(str(copy))
        await original.stop(0)
    restored = Client(copy)
    restored.register(Work, work)
    async with restored:
        await journal.ended(*ids)
        jobs = [await restored.get(job_id) for job_id in ids]
    assert [(job.attempt, job.crashes) for job in jobs if job] == [(1, 0), (1, 0)]
    with pytest.raises(InvalidState):
        await restored.backup(tmp_path / "late.db")
