"""huey on `SqliteHuey`: tasks in threads, which poll.

- WAL, as it comes, with `fsync=True`: that is `synchronous=FULL`. Results are not stored.
- Adding is a plain call that blocks the caller, under one lock. It is called from the event loop's thread:
  a hop to a thread costs more, and 100 callers wait for the lock either way. There is no bulk call.
- Worker threads, as documented for what waits for I/O; 0.1 seconds of polling at first, growing by 1.15
  up to 10 seconds, as it comes. No periodic tasks, no health check. It runs a job at most once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from huey import SqliteHuey
from huey.consumer import Consumer

from ..filling import clone
from ..system import Place
from ..workload import Noop

__all__ = ["Huey"]

logging.getLogger("huey").setLevel(logging.ERROR)


class _InThreads(Consumer):  # type: ignore[misc]
    """A consumer that leaves the signals of this process alone."""

    def _set_signal_handlers(self) -> None:
        pass


class Huey:
    """A queue and, with workers, a consumer in this process's threads."""

    def __init__(self, place: Place, note: Callable[[int], object]) -> None:
        self._file = place.file
        self._huey = SqliteHuey("benchmark", filename=str(place.file), fsync=True, results=False)

        def noop(n: int, s: str) -> None:
            note(n)

        self._noop: Any = self._huey.task()(noop)
        self._consumer: Any = None

    async def start(self, workers: int) -> None:
        if workers:
            self._consumer = _InThreads(
                self._huey, workers=workers, periodic=False, check_worker_health=False
            )
            self._consumer.start()

    async def add(self, task: Noop) -> None:
        self._noop(task.n, task.s)

    async def add_many(self, tasks: list[Noop]) -> None:
        for task in tasks:
            self._noop(task.n, task.s)

    async def stop(self) -> None:
        if self._consumer is not None:
            await asyncio.to_thread(self._consumer.stop, True)
        self._huey.storage.close()

    def fill(self, count: int) -> None:
        clone(self._file, "task", count, lambda row, number: row)
