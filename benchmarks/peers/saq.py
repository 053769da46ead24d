"""SAQ on Redis: `async def` functions in the event loop, taken one by one by as many loops as workers.

`concurrency` is the number of workers. Results are not kept (`ttl=-1`), and no worker statistics are
written (`timers`). hiredis is installed with it. There is no bulk call: a hundred at a time are enqueued
together; `max_concurrent_ops`, which bounds the commands in flight, is raised to the callers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from saq import Worker
from saq.queue.redis import RedisQueue

from ..system import Place
from ..workload import CALLERS, Noop

__all__ = ["Saq"]

logging.getLogger("saq").setLevel(logging.CRITICAL)


class Saq:
    """A queue and, with workers, its worker in this event loop."""

    def __init__(self, place: Place, note: Callable[[int], object]) -> None:
        self._queue: Any = RedisQueue.from_url(place.redis, max_concurrent_ops=CALLERS)
        self._note = note
        self._running: asyncio.Task[None] | None = None
        self._worker: Any = None

    async def start(self, workers: int) -> None:
        note = self._note

        async def noop(context: Any, *, n: int, s: str) -> None:
            note(n)

        await self._queue.connect()
        if workers:
            self._worker = Worker(self._queue, [("noop", noop)], concurrency=workers)
            self._worker.SIGNALS = []
            self._running = asyncio.create_task(self._worker.start())

    async def add(self, task: Noop) -> None:
        await self._queue.enqueue("noop", n=task.n, s=task.s, timeout=30, ttl=-1)

    async def add_many(self, tasks: list[Noop]) -> None:
        for first in range(0, len(tasks), CALLERS):
            await asyncio.gather(*map(self.add, tasks[first : first + CALLERS]))

    async def stop(self) -> None:
        if self._running is not None:
            self._worker.event.set()
            await self._running
        await self._queue.disconnect()

    def fill(self, count: int) -> None:
        raise NotImplementedError
