"""The roles of schedules: watchers that declare them all, a manager who pauses and resumes, and a closer."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

import backlite_async  # before the checkout is on the path: what is tested may be another copy

sys.path.append(str(Path(__file__).parents[3]))

from backlite_async import Client, JobContext, QueueConfig, Retention, Task
from tests.torture.kit import Ledger

__all__ = ["ROLES", "SCHEDULES", "backlite_async"]

KEPT = QueueConfig("runs", max_crashes=1_000, retention=Retention(payload="always"))

SCHEDULES: dict[str, dict[str, Any]] = {
    "beat": {"every": 0.05, "missed": "all"},
    "slower": {"every": 0.13, "missed": "all"},
    "spread": {"every": 0.2, "missed": "all", "jitter": 0.15},
    "cron": {"cron": "* * * * * *", "missed": "all"},
    "rule": {"rule": "FREQ=SECONDLY", "missed": "all", "tz": "Europe/Berlin"},
    "few": {"every": 0.07, "missed": "all", "max_runs": 31},
    "last": {"every": 0.1},
    "fresh": {"every": 0.1, "missed": "none"},
    "alone": {"every": 0.1, "missed": "all", "overlap": False},
    "alone too": {"every": 0.15, "overlap": False},
}
"""What is declared, by name."""

SOLO = "solo"
"""The schedule that only one process declares: as often as it dies it is removed, and brought back."""

STEERED = "steered"
"""The schedule that a manager makes, pauses and resumes."""


class Run(Task):
    """A run of a schedule."""

    config: ClassVar[QueueConfig] = KEPT
    schedule: str


class Watching(logging.Handler):
    """Notes what the library logs as an error, and which schedules are brought back."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.INFO)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        """Note one line."""
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._ledger.note("error", text=text)
        elif "brought back" in text:
            self._ledger.note("back", text=text)


async def watcher(stop: asyncio.Event, *, database: str, ledger: str, solo: bool = False) -> None:
    """Declare all schedules, with `solo` one more, and run their jobs until stopped."""
    book = Ledger(ledger)
    logger = logging.getLogger("backlite_async")
    logger.addHandler(Watching(book))
    logger.setLevel(logging.INFO)
    client = Client(database, workers=6)
    for name, said in SCHEDULES.items():
        client.schedule(name, Run(name), **said)
    if solo:
        client.schedule(SOLO, Run(SOLO), every=0.06, missed="all")

    @client.handler(Run)
    async def run(task: Run, job: JobContext) -> None:
        book.note("start", job=job.id, fence=job.fence, schedule=task.schedule, wall=time.time())
        await asyncio.sleep(random.uniform(0, 0.12) if task.schedule.startswith("alone") else 0.001)
        book.note("end", job=job.id, fence=job.fence)

    async with client:
        book.note("up")
        await stop.wait()


async def soloist(stop: asyncio.Event, *, database: str, ledger: str) -> None:
    """Watch, and declare what nobody else does."""
    await watcher(stop, database=database, ledger=ledger, solo=True)


async def manager(stop: asyncio.Event, *, database: str, ledger: str) -> None:
    """Pause and resume a schedule, with the times between which nothing of it is due."""
    book = Ledger(ledger)
    async with Client(database, workers=0) as client:
        if await client.schedules.get(STEERED) is None:
            await client.schedule(STEERED, Run(STEERED), every=0.03, missed="all")
        while not stop.is_set():
            book.note("resuming", wall=time.time())
            await client.schedules.resume(STEERED)
            await idle(stop, 0.4)
            await client.schedules.pause(STEERED)
            book.note("paused", wall=time.time())
            await idle(stop, 0.2)


async def idle(stop: asyncio.Event, most: float) -> None:
    """Wait for a random while, or until stopped."""
    try:
        await asyncio.wait_for(stop.wait(), random.uniform(0, most))
    except TimeoutError:
        return


async def closer(stop: asyncio.Event, *, database: str, ledger: str) -> None:
    """Pause all schedules."""
    async with Client(database, workers=0) as client:
        names = [schedule.name for schedule in await client.schedules.list()]
        await client.schedules.pause(*names)
    Ledger(ledger).note("closed", wall=time.time())


ROLES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "watcher": watcher,
    "soloist": soloist,
    "manager": manager,
    "closer": closer,
}
