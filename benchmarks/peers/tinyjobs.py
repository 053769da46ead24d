"""tinyjobs on SQLite: `async def` tasks in the event loop, claimed in batches of the free slots, polled.

- WAL with `synchronous=NORMAL`, which it sets itself and does not let one change: it syncs less than the
  others here.
- `aenqueue` is its native call. There is no bulk call: a hundred at a time are awaited together.
- `concurrency` is the number of workers. Polling is adaptive, 5 to 500 ms, as it comes; the scheduler of
  cron tasks is off; completed jobs are kept, as it always does.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

import tinyjobs

from ..filling import clone
from ..system import Place
from ..workload import Noop

__all__ = ["TinyJobs"]

logging.getLogger("tinyjobs").setLevel(logging.CRITICAL)

TOGETHER = 100


class TinyJobs:
    """An app and, with workers, its worker in this event loop."""

    def __init__(self, place: Place, note: Callable[[int], object]) -> None:
        self._file = place.file
        self._app = tinyjobs.TinyJobs(f"sqlite:///{place.file}")

        async def noop(n: int, s: str) -> None:
            note(n)

        self._noop: Any = self._app.task(noop, name="noop", timeout=30.0)
        self._worker: Any = None
        self._running: asyncio.Task[None] | None = None

    async def start(self, workers: int) -> None:
        await self._app.ready()
        if workers:
            self._worker = self._app.worker(concurrency=workers, scheduler=False, handle_signals=False)
            self._running = asyncio.create_task(self._worker.start())

    async def add(self, task: Noop) -> None:
        await self._noop.aenqueue(task.n, task.s)

    async def add_many(self, tasks: list[Noop]) -> None:
        for first in range(0, len(tasks), TOGETHER):
            await asyncio.gather(*map(self.add, tasks[first : first + TOGETHER]))

    async def stop(self) -> None:
        if self._running is not None:
            self._worker.stop()
            await self._running
        await self._app.aclose()

    def fill(self, count: int) -> None:
        clone(self._file, "jobs", count, lambda row, number: row | {"id": str(uuid.uuid4())})
