"""arq on Redis: `async def` functions in the event loop, found by polling a sorted set.

`max_jobs` is the number of workers, `queue_read_limit` follows it as it comes; the documented half second
of polling stays. Results are not kept (`keep_result=0`) nor logged. There is no bulk call: a hundred at a
time are enqueued together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

from ..system import Place
from ..workload import CALLERS, Noop

__all__ = ["Arq"]

logging.getLogger("arq").setLevel(logging.CRITICAL)


class Arq:
    """A pool of connections and, with workers, a worker in this event loop."""

    def __init__(self, place: Place, note: Callable[[int], object]) -> None:
        self._settings = RedisSettings.from_dsn(place.redis)
        self._note = note
        self._pool: Any = None
        self._worker: Any = None
        self._running: asyncio.Task[None] | None = None

    async def start(self, workers: int) -> None:
        note = self._note

        async def noop(context: Any, n: int, s: str) -> None:
            note(n)

        self._pool = await create_pool(self._settings)
        if workers:
            self._worker = Worker(
                [func(noop, name="noop", keep_result=0, timeout=30)],
                redis_settings=self._settings,
                max_jobs=workers,
                handle_signals=False,
                log_results=False,
            )
            self._running = asyncio.create_task(self._worker.async_run())

    async def add(self, task: Noop) -> None:
        await self._pool.enqueue_job("noop", task.n, task.s)

    async def add_many(self, tasks: list[Noop]) -> None:
        for first in range(0, len(tasks), CALLERS):
            await asyncio.gather(*map(self.add, tasks[first : first + CALLERS]))

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            # Its close() fails if it finds a job that still runs.
            await asyncio.gather(self._running, *self._worker.tasks.values(), return_exceptions=True)
            await self._worker.close()
        await self._pool.aclose()

    def fill(self, count: int) -> None:
        raise NotImplementedError
