"""Shows specimens: for each line that it reads it forks a process, which lives one life of an exhibit.

A life runs the specimen's job beside others, waits until all have ended, and checks that as many
workers are alive as were asked for. A later life of the same exhibit goes on with what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import structlog

from backlite_async import Client, JobContext, QueueConfig, Retention, Task
from tests.torture.children import Wire
from tests.torture.zoo import ZOO, Beside, Specimen, Stage
from tests.torture.zoo.tasks import LEAKED

WORKERS, THREADS = 4, 2
LIMIT = 60.0
"""Seconds that a life may take; a specimen that blocks takes its own time out of that."""

HOSTILE = ("hostile", "timed")
ENDS = ("job.succeeded", "job.failed", "job.lease_lost")

wire = Wire(int(sys.argv[1]))


class Probe(Task):
    config: ClassVar[QueueConfig] = QueueConfig("probe", backoff=0, retention=Retention())


class ThreadProbe(Task):
    config: ClassVar[QueueConfig] = QueueConfig("thread-probe", backoff=0, retention=Retention())


class Life:
    """One process of an exhibit."""

    def __init__(self, specimen: Specimen) -> None:
        self.specimen = specimen
        self.loop = asyncio.get_running_loop()
        self.changed = asyncio.Event()
        self.released = asyncio.Event()
        self.stage = Stage(lambda text, held: wire.note("stated", text=text, held=held))
        self.started: set[str] = set()
        self.expected, self.hostile, self.done = _stored()
        self.first = not self.expected
        self.arrived = 0
        self.together = asyncio.Event()
        self.threads = threading.Barrier(THREADS)
        self.client = Client(
            "app.db", workers=WORKERS, threads=THREADS, lease=1.0, stop_timeout=2.0, busy_timeout=0.5
        )
        self._register()
        structlog.configure(processors=[self._logged])

    def _logged(self, logger: Any, method: str, event: Any) -> Any:
        """Note what the library logs; it may come from any thread."""
        what, job = event.pop("event"), event.get("job_id", "")
        if what == "job.added":
            self.expected.add(job)
            if event["queue"] in HOSTILE:
                self.hostile.add(job)
        elif what == "job.started":
            self.started.add(job)
        elif what in ENDS:
            self.done.add(job)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.changed.set)
        with contextlib.suppress(OSError):  # a specimen has closed the pipe
            wire.note(what, **event)
        raise structlog.DropEvent

    def _register(self) -> None:
        specimen, stage = self.specimen, self.stage

        async def hostile(task: Task, job: JobContext) -> object:
            return await specimen.handler(task, job, stage)  # type: ignore[misc]

        def threaded(task: Task, job: JobContext) -> object:
            return specimen.handler(task, job, stage)

        self.client.register(specimen.kind, threaded if specimen.threaded else hostile)
        self.client.register(Beside, self.beside)
        self.client.register(Probe, self.probe)
        self.client.register(ThreadProbe, self.thread_probe)

    async def beside(self, task: Beside) -> None:
        if task.waits:
            await self.released.wait()

    async def probe(self, task: Probe) -> None:
        wire.note("stated", text="context variables do not leak", held=LEAKED.get() == "clean")
        self.arrived += 1
        if self.arrived == WORKERS:
            self.together.set()
        await self.together.wait()

    def thread_probe(self, task: ThreadProbe) -> None:
        self.threads.wait(LIMIT)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds; looked at whenever the library has logged something."""
        while not condition():
            await self.changed.wait()
            self.changed.clear()

    async def live(self) -> None:
        """Show the specimen beside two others, and with three that wait for a worker."""
        client, stage = self.client, self.stage
        async with asyncio.timeout(LIMIT), client:
            if self.first:
                besides = await client.add(Beside(True), Beside(True)).save()
                await self.until(lambda: self.started.issuperset(besides))
                await client.add(self.specimen.kind(), Beside(), Beside(), Beside()).save()
                shown = self.started if self.specimen.lingers else self.done
                await self.until(lambda: self.hostile <= shown)
            self.released.set()
            await self.until(lambda: self.expected - self.hostile <= self.done)
            stage.let_go.set()
            for last in stage.last_tasks:
                await last
            for call in stage.last_calls:
                call()
            await self.until(lambda: self.expected <= self.done)
            await self.prove()
            wire.note("whole")
        wire.note("stated", text="no thread of the library is left", held=not _threads())

    async def prove(self) -> None:
        """Show that every worker and every thread is there."""
        probes = [Probe() for _ in range(WORKERS)]
        threads = [ThreadProbe() for _ in range(THREADS)]
        ids = set(await self.client.add(*probes).save())
        await self.until(lambda: ids <= self.done)
        ids = set(await self.client.add(*threads).save())
        await self.until(lambda: ids <= self.done)


def _stored() -> tuple[set[str], set[str], set[str]]:
    """Return the jobs that are stored, which of them are the specimen's, and which have ended."""
    if not os.path.exists("app.db"):
        return set(), set(), set()
    with contextlib.closing(sqlite3.connect("app.db")) as connection:
        live = connection.execute("SELECT id, queue FROM backlite_jobs").fetchall()
        ended = connection.execute("SELECT id, queue FROM backlite_completed").fetchall()
    hostile = {job for job, queue in (*live, *ended) if queue in HOSTILE}
    return {job for job, _ in (*live, *ended)}, hostile, {job for job, _ in ended}


def _threads() -> list[str]:
    """Return the library's threads that do not end."""
    for thread in threading.enumerate():
        if re.match(r"backlite|.*_connection_worker_thread", thread.name):
            thread.join(2.0)
            if thread.is_alive():
                return [thread.name]
    return []


async def _live(specimen: Specimen) -> None:
    await Life(specimen).live()


def exhibit(command: dict[str, Any]) -> None:
    """Live one life; the process ends with it, whatever happens."""
    status = 1
    try:
        os.chdir(command["folder"])
        wire.note("born", folder=command["folder"])
        factory = None
        if command["loop"] == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_live(ZOO[command["name"]]))
        status = 0
    except BaseException as error:  # it is the end of this process anyway
        wire.note("died", error=f"{type(error).__name__}: {error}")
    finally:
        os._exit(status)


def main() -> None:
    wire.note("zoo", names=list(ZOO))
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            exhibit(command)
        _, status = os.waitpid(child, 0)
        wire.note("over", folder=command["folder"], status=os.waitstatus_to_exitcode(status))


main()
