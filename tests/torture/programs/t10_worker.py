"""Runs jobs of which some kill their process: for each line that it reads it forks one that does.

A process ends in good order when it gets SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar

from backlite_async import Client, JobContext, QueueConfig, Retention, Task
from tests.torture.children import Wire

CONFIG = QueueConfig("jobs", max_attempts=3, max_crashes=3, backoff=0, retention=Retention())


class Job(Task):
    """Works for some seconds; with a way to die, it does that when enough others run beside it."""

    config: ClassVar[QueueConfig] = CONFIG
    seconds: float
    death: str = ""
    company: int = 0


class Threaded(Job):
    """The same in a thread."""


POISONED = """
UPDATE backlite_jobs SET crashes = :crashes WHERE json_extract(CAST(payload AS TEXT), '$.death') <> ''
"""

wire = Wire(int(sys.argv[1]))
running: set[str] = set()


def orphan() -> None:
    """Die, and leave a child behind that holds on to whatever was open."""
    if os.fork() == 0:
        time.sleep(2.0)
        os._exit(0)
    os._exit(3)


DEATHS: dict[str, Callable[[], object]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(0),
    "abort": os.abort,
    "exec": lambda: os.execv(sys.executable, [sys.executable, "-S", "-c", ""]),
    "orphan": orphan,
}


def begin(task: Job, job: JobContext) -> None:
    wire.note("start", job=job.id, fence=job.fence, poison=task.death)
    running.add(job.id)


def end(job: JobContext) -> None:
    running.discard(job.id)
    wire.note("end", job=job.id)


async def work(task: Job, job: JobContext) -> None:
    begin(task, job)
    deadline = time.monotonic() + task.seconds
    while task.death and len(running) <= task.company and time.monotonic() < deadline:
        await asyncio.sleep(0)
    if task.death:
        DEATHS[task.death]()
    await asyncio.sleep(task.seconds)
    end(job)


def work_in_thread(task: Threaded, job: JobContext) -> None:
    begin(task, job)
    deadline = time.monotonic() + task.seconds
    while task.death and len(running) <= task.company and time.monotonic() < deadline:
        time.sleep(0.001)
    if task.death:
        DEATHS[task.death]()
    end(job)


async def live(file: str, workers: int, jobs: list[dict[str, Any]], crashes: int) -> None:
    """Add the jobs, those that die with deaths behind them, and run whatever is there until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = Client(file, workers=workers, threads=4, lease=1.0, stop_timeout=2.0)
    client.register(Job, work)
    client.register(Threaded, work_in_thread)
    if jobs:
        async with Client(file, workers=0) as adder:
            tasks = [(Threaded if job.pop("threaded") else Job)(**job) for job in jobs]
            await adder.add(*tasks).save()
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute(POISONED, {"crashes": crashes})
    async with client:
        await stop.wait()


def main() -> None:
    wire.tap()
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                wire.note("born", server=os.getppid())
                asyncio.run(live(command["file"], command["workers"], command["jobs"], command["crashes"]))
                status = 0
            except BaseException as error:  # it is the end of this process anyway
                wire.note("died", error=f"{type(error).__name__}: {error}")
            finally:
                os._exit(status)
        _, code = os.waitpid(child, 0)
        wire.note("over", child=child, status=os.waitstatus_to_exitcode(code))


main()
