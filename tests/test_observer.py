"""A second client of the same database: it looks, and does what it is told to, and nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from backlite_async import (
    Client,
    DatabaseUnusable,
    InvalidState,
    JobContext,
    JobStatus,
    QueueConfig,
    Retention,
    Task,
)
from backlite_async.stores import MemoryStore

from .conftest import Journal


class Resize(Task):
    config: ClassVar[QueueConfig] = QueueConfig("pictures", max_attempts=7, retention=Retention())
    path: str
    width: int = 800


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("others")


def with_handler(file: str, **options: Any) -> Client:
    client = Client(file, **options)

    @client.handler(Resize)
    async def resize(task: Resize) -> str:
        return task.path

    return client


async def test_it_sees_what_there_is(file: str) -> None:
    """Jobs, queues, task types and owners of a client that was never started."""
    client = with_handler(file)
    await client.install()
    async with client.observer() as observer:
        task = await observer.tasks.build("Resize", {"path": "a.png"})
        assert task == Resize("a.png")
        [job_id] = await observer.add(task).save()
        assert [job.id for job in await observer.jobs.list()] == [job_id]
        assert await observer.jobs.edit(job_id, Resize("b.png")) == 1
        [owner] = await observer.owners.list()
        assert owner.workers == 0
        assert await observer.run(Resize("c.png")) == "c.png"
    assert not client.is_open


async def test_it_runs_nothing_and_the_original_does(file: str, journal: Journal) -> None:
    """What it adds waits for the workers of the original, which runs as before, and starts after it too."""
    client = with_handler(file, workers=2)
    await client.install()
    observer = client.observer()
    async with observer:
        [job_id] = await observer.add(Resize("a.png")).save()
        async with client:
            await journal.ended(job_id)
        assert not client.is_open
        assert observer.is_open
        assert [queue.name for queue in await observer.queues.list()] == ["pictures"]


async def test_it_works_beside_the_started_original(file: str) -> None:
    """Two clients of one process: each has its own life, what one pauses here is paused there alone."""
    client = with_handler(file)
    async with client:
        async with client.observer() as observer:
            await observer.pause("pictures", here=True)
            assert client.registry.paused == frozenset()
            await observer.add(Other()).save()
            assert ("others", "Other") not in client.registry.types
            [job_id] = await observer.add(Resize("a.png")).save()
            assert (await client.wait(job_id)).status is JobStatus.SUCCEEDED
        assert client.is_open
        assert await client.add(Resize("b.png")).save()


async def test_it_knows_what_is_registered_later(file: str) -> None:
    """Types and handlers of the original are its own, whenever they come; middleware as it is now."""
    client = Client(file)
    await client.install()
    calls = []

    @client.middleware
    async def note(job: JobContext, task: Any, call_next: Any) -> Any:
        calls.append(task)
        return await call_next(job, task)

    observer = client.observer()

    @client.handler(Other)
    async def other(task: Other) -> int:
        return 5

    assert await observer.tasks.build("Other", {}) == Other()
    assert await observer.run(Other()) == 5
    assert calls == [Other()]


async def test_declared_schedules_stay(file: str) -> None:
    """It declares none, and removes none that others declare."""
    client = with_handler(file, workers=0)
    client.schedule("often", Resize("a.png"), every=60)
    async with client:
        assert [schedule.name for schedule in await client.schedules.list()] == ["often"]
    async with client.observer() as observer:
        [schedule] = await observer.schedules.list()
        assert schedule.name == "often"
    async with client:
        assert [schedule.name for schedule in await client.schedules.list()] == ["often"]


async def test_it_installs_nothing(file: str) -> None:
    """A missing file or schema is an error that says what to do."""
    client = Client(file)
    with pytest.raises(DatabaseUnusable, match=r"does not exist; run await client\.install\(\)"):
        await client.observer().start()
    assert not os.path.exists(file)
    Path(file).touch()
    with pytest.raises(DatabaseUnusable, match=r"has no Backlite schema; run await client\.install\(\)"):
        await client.observer().start()


@pytest.mark.parametrize("database", [":memory:", MemoryStore()])
def test_there_must_be_a_file(database: Any) -> None:
    """What no other client can open cannot be observed by one; the message says what to do."""
    with pytest.raises(InvalidState, match="start it, and use it instead"):
        Client(database).observer()


async def test_it_works_in_another_event_loop(file: str) -> None:
    """While the original runs in this one."""
    client = with_handler(file)
    found: list[object] = []

    async def look() -> None:
        async with client.observer() as observer:
            [job_id] = await observer.add(Resize("a.png")).save()
            found.append((await observer.wait(job_id, timeout=10)).status)

    async with client:
        thread = threading.Thread(target=asyncio.run, args=(look(),))
        thread.start()
        await asyncio.to_thread(thread.join)
    assert found == [JobStatus.SUCCEEDED]


LEFT_OPEN = """
import asyncio, sys, threading
from backlite_async import Client

async def main():
    client = Client(sys.argv[1])
    await client.install()
    observer = client.observer()
    await observer.start()
    assert await observer.jobs.list() == []

if sys.argv[2] == "run":
    asyncio.run(main())
else:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    if sys.argv[2] == "close":
        loop.close()
print("end", flush=True)
"""


@pytest.mark.parametrize("how", ["run", "close"])
def test_it_may_be_left_open(file: str, how: str) -> None:
    """Who cannot stop it at the end of the event loop gets no warning, and the process ends."""
    code = [sys.executable, "-W", "error", "-c", LEFT_OPEN, file, how]
    done = subprocess.run(code, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    if how == "run":
        assert done.stderr == ""
