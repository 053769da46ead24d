"""pgqueuer on PostgreSQL: `async def` entrypoints in the event loop, taken in batches, woken by NOTIFY.

asyncpg with a pool, which its documentation recommends for enqueuing by several at once, and one
connection of its own for the worker. `batch_size` is the number of workers and `max_concurrent_tasks`
twice that, the least it accepts. In bulk, `enqueue` takes lists.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import asyncpg
from pgqueuer import PgQueuer as Application
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

from ..system import Place
from ..workload import Noop

__all__ = ["PgQueuer"]

logging.getLogger("pgqueuer").setLevel(logging.CRITICAL)

CONNECTIONS = 10


class PgQueuer:
    """Queries over a pool and, with workers, an application in this event loop."""

    def __init__(self, place: Place, note: Callable[[int], object]) -> None:
        self._url = place.postgres
        self._note = note
        self._pool: Any = None
        self._queries: Any = None
        self._connection: Any = None
        self._application: Any = None
        self._running: asyncio.Task[None] | None = None

    async def start(self, workers: int) -> None:
        self._pool = await asyncpg.create_pool(self._url, min_size=CONNECTIONS, max_size=CONNECTIONS)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))
        if await self._pool.fetchval("SELECT to_regclass('pgqueuer')") is None:
            await self._queries.install()
        if workers:
            self._connection = await asyncpg.connect(self._url)
            self._application = Application(AsyncpgDriver(self._connection))
            note = self._note

            async def noop(job: Any) -> None:
                number, _, _ = job.payload.partition(b" ")
                note(int(number))

            self._application.entrypoint("noop")(noop)
            self._running = asyncio.create_task(
                self._application.qm.run(batch_size=workers, max_concurrent_tasks=2 * workers)
            )

    async def add(self, task: Noop) -> None:
        await self._queries.enqueue("noop", _encoded(task), 0)

    async def add_many(self, tasks: list[Noop]) -> None:
        count = len(tasks)
        await self._queries.enqueue(["noop"] * count, [_encoded(task) for task in tasks], [0] * count)

    async def stop(self) -> None:
        if self._running is not None:
            self._application.qm.shutdown.set()
            await self._running
            await self._connection.close()
        await self._pool.close()

    def fill(self, count: int) -> None:
        raise NotImplementedError


def _encoded(task: Noop) -> bytes:
    return f"{task.n} {task.s}".encode()
