"""Real processes: killed, interrupted, left without a stop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import ClassVar

import anyio
import pytest

from backlite_async import Client, DatabaseBusy, JobStatus, QueueConfig, Retention, Task

from .conftest import LIMIT, Journal


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())


PRELUDE = """
import asyncio, os, signal, sys, threading, time
from typing import ClassVar
from backlite_async import Client, QueueConfig, Retention, Task

class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())

client = Client(sys.argv[1], lease=1.0, stop_timeout=0.2)

running = asyncio.Event()

@client.handler(Work)
async def work(task: Work) -> None:
    print("started", flush=True)
    running.set()
    await asyncio.Event().wait()

async def begin() -> None:
    await client.start()
    print(*await client.add(Work()).save(), flush=True)
"""


class Script:
    """A program that uses the library in a process of its own."""

    def __init__(self, folder: Path, text: str, *arguments: str, stdin: bool = False) -> None:
        self.file = str(folder / "app.db")
        script = folder / "script.py"
        script.write_text(PRELUDE + textwrap.dedent(text))
        self.process = subprocess.Popen(
            [sys.executable, "-P", script, self.file, *arguments],
            cwd=folder,
            stdin=subprocess.PIPE if stdin else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def line(self) -> str:
        """Return the next line it prints."""
        assert self.process.stdout is not None
        with anyio.fail_after(LIMIT):
            return (
                await anyio.to_thread.run_sync(self.process.stdout.readline, abandon_on_cancel=True)
            ).strip()

    def end(self) -> tuple[int, str]:
        """Wait for its end; return the exit status and what it wrote to stderr."""
        try:
            _, errors = self.process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode, errors


async def test_a_killed_process_loses_nothing(tmp_path: Path, journal: Journal) -> None:
    """Its running job runs again in another process once the lease has ended, with no add."""
    script = Script(
        tmp_path,
        """
        async def main():
            await begin()
            await asyncio.Event().wait()
        asyncio.run(main())
        """,
    )
    job_id = await script.line()
    assert await script.line() == "started"
    async with Client(script.file) as client:
        client.register(Work, lambda task: None)
        assert await client.status(job_id) is JobStatus.RUNNING
        script.process.kill()
        assert script.end()[0] == -signal.SIGKILL
        await journal.ended(job_id)
        job = await client.get(job_id)
    assert job is not None
    assert (job.status, job.attempt, job.crashes) == (JobStatus.SUCCEEDED, 1, 1)


async def pending(file: str, job_id: str, *, crashes: int = 0) -> None:
    """Check that a job went back in good order."""
    async with Client(file, workers=0) as client:
        job = await client.get(job_id)
    assert job is not None
    assert (job.status, job.attempt, job.crashes) == (JobStatus.PENDING, 0, crashes)


async def test_asyncio_run_without_a_stop_ends_a_client_that_only_adds(tmp_path: Path) -> None:
    """Also without a dispatcher the end of `asyncio.run` is the end of the client."""
    script = Script(
        tmp_path,
        """
        async def main():
            adder = Client(sys.argv[1], workers=0)
            await adder.start()
            print(*await adder.add(Work()).save(), flush=True)
        asyncio.run(main())
        """,
    )
    job_id = await script.line()
    assert script.end() == (0, "")
    await pending(script.file, job_id)


async def test_asyncio_run_ends_at_any_step_of_a_write(tmp_path: Path) -> None:
    """The program may end right after a wake-up, before the writer has begun: it ends all the same."""
    script = Script(
        tmp_path,
        """
        class Quick(Task):
            config: ClassVar[QueueConfig] = QueueConfig("quick")

        async def main(steps):
            done = asyncio.Event()
            quick = Client(sys.argv[1], workers=2)

            @quick.handler(Quick)
            async def handler(task: Quick) -> None:
                done.set()

            await quick.start()
            await quick.add(Quick()).save()
            await done.wait()
            for _ in range(steps):
                await asyncio.sleep(0)

        for steps in range(12):
            asyncio.run(main(steps))
        """,
    )
    assert script.end() == (0, "")


async def test_a_thread_outlives_its_loop_with_its_claim(tmp_path: Path, journal: Journal) -> None:
    """While a `def` handler's thread runs on, its job is nobody else's; what it returns is recorded."""
    script = Script(
        tmp_path,
        """
        import threading
        release, entered = threading.Event(), threading.Event()

        class Slow(Task):
            config: ClassVar[QueueConfig] = QueueConfig("slow", retention=Retention())

        @client.handler(Slow)
        def slow(task: Slow) -> None:
            entered.set()
            release.wait(20)

        def when_told() -> None:
            sys.stdin.readline()
            release.set()

        async def main():
            await client.start()
            print(*await client.add(Slow()).save(), flush=True)
            await asyncio.to_thread(entered.wait, 20)
            print("the loop ends", flush=True)
            threading.Thread(target=when_told).start()

        asyncio.run(main())
        print("ended", flush=True)
        """,
        stdin=True,
    )
    job_id = await script.line()
    assert await script.line() == "the loop ends"

    class Slow(Task):
        config: ClassVar[QueueConfig] = QueueConfig("slow", retention=Retention())

    ran: list[Slow] = []
    async with Client(script.file, lease=0.5) as other:
        other.register(Slow, ran.append)
        probe = other.add(Slow()).wait(2.4)  # two leases later
        await journal.ended(*await probe.save())
        assert await other.status(job_id) is JobStatus.RUNNING
        assert script.process.stdin is not None
        script.process.stdin.write("go\n")
        script.process.stdin.flush()
        assert await script.line() == "ended"
        status, errors = script.end()
        assert (status, errors) == (0, "")
        assert await other.status(job_id) is JobStatus.SUCCEEDED
    assert len(ran) == 1


async def test_asyncio_run_without_a_stop_ends_in_good_order(tmp_path: Path) -> None:
    """The end of `asyncio.run` cancels everything: a hard stop, not a hang and not a lost job."""
    script = Script(
        tmp_path,
        """
        async def main():
            await begin()
            await running.wait()
        asyncio.run(main())
        """,
    )
    job_id = await script.line()
    assert await script.line() == "started"
    assert script.end() == (0, "")
    await pending(script.file, job_id)


@pytest.mark.parametrize("how", ["close", "forget", "exit"])
async def test_an_event_loop_closed_with_work_running(tmp_path: Path, how: str) -> None:
    """The process ends by itself; nothing is corrupt; the job's claim ends with its lease."""
    script = Script(
        tmp_path,
        f"""
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.run_until_complete(running.wait())
        if {how!r} == "close": loop.close()
        if {how!r} == "exit": sys.exit(3)
        print("end", flush=True)
        """,
    )
    job_id = await script.line()
    assert await script.line() == "started"
    status, _ = script.end()
    assert status == (3 if how == "exit" else 0)
    again = Client(script.file)
    done: asyncio.Queue[Work] = asyncio.Queue()
    again.register(Work, done.put)
    async with again:
        with anyio.fail_after(LIMIT):
            await done.get()
    async with again:
        assert await again.status(job_id) is JobStatus.SUCCEEDED


@pytest.mark.parametrize("same", [True, False])
async def test_another_event_loop_after_one_was_closed(tmp_path: Path, same: bool) -> None:
    """The same client, or another one, starts in a new loop; the job that died with the old one runs."""
    script = Script(
        tmp_path,
        """
        async def until_started():
            await begin()
            await running.wait()
        loop = asyncio.new_event_loop()
        loop.run_until_complete(until_started())
        loop.close()

        async def again():
            other = client if len(sys.argv) > 2 else Client(sys.argv[1])
            if other is not client:
                other.register(Work, client.registry.find("work", "Work").function)
            async with other:
                await asyncio.Event().wait()
        asyncio.run(again())
        """,
        *(["same"] if same else []),
    )
    await script.line()
    assert await script.line() == "started"
    assert await script.line() == "started"
    script.process.kill()
    script.end()


async def test_ctrl_c_ends_in_good_order(tmp_path: Path) -> None:
    """SIGINT leaves the block: handlers get `stop_timeout`, then their jobs go back uncounted."""
    script = Script(
        tmp_path,
        """
        async def main():
            async with client:
                print(*await client.add(Work()).save(), flush=True)
                await asyncio.Event().wait()
        asyncio.run(main())
        """,
    )
    job_id = await script.line()
    assert await script.line() == "started"
    os.kill(script.process.pid, signal.SIGINT)
    status, errors = script.end()
    assert status in (-signal.SIGINT, 130, 1)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    await pending(script.file, job_id)


async def test_a_keyboard_interrupt_in_a_handler_goes_through(tmp_path: Path) -> None:
    """What ends the application counts as a crash, so that a supervisor does not restart it for ever."""
    script = Script(
        tmp_path,
        """
        class Other(Task):
            config: ClassVar[QueueConfig] = QueueConfig("other", retention=Retention())

        @client.handler(Other)
        async def other(task: Other) -> None:
            raise KeyboardInterrupt

        async def main():
            async with client:
                print(*await client.add(Other()).save(), flush=True)
                await asyncio.Event().wait()
        asyncio.run(main())
        """,
    )
    job_id = await script.line()
    status, errors = script.end()
    assert status in (-signal.SIGINT, 130, 1)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    await pending(script.file, job_id, crashes=1)


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


async def test_a_database_that_another_process_keeps_locked(file: str, journal: Journal) -> None:
    """For seconds nothing can be written: adds say so, a finished job waits; then all goes on."""
    finish = asyncio.Event()

    async def work(task: Work) -> None:
        await finish.wait()

    async with Client(file, busy_timeout=0.7) as client:
        client.register(Work, work)
        [job_id] = await client.add(Work()).save()
        await journal.seen("job.started", job_id)
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert await anyio.to_thread.run_sync(holder.stdout.readline) == "locked\n"
            finish.set()
            operations = [client.add(Work()) for _ in range(3)]
            for operation in operations:
                with pytest.raises(DatabaseBusy):
                    await operation.save()
            assert await client.status(job_id) is JobStatus.RUNNING
            holder.communicate()
        await journal.ended(job_id)
        for operation in operations:
            await journal.ended(*await operation.save())
    assert len(journal.of("store.failing")) == len(journal.of("store.recovered")) == 1
