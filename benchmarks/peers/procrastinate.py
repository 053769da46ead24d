"""procrastinate on PostgreSQL: `async def` tasks in the event loop, fetched one by one, woken by NOTIFY.

Its psycopg connector with a pool of ten connections; `concurrency` is the number of workers. Completed
jobs are deleted (`delete_jobs="always"`), as ours are. In bulk, `batch_defer_async`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from procrastinate import App, PsycopgConnector

from ..system import Place
from ..workload import Noop

__all__ = ["Procrastinate"]

logging.getLogger("procrastinate").setLevel(logging.CRITICAL)

CONNECTIONS = 10


class Procrastinate:
    """An app and, with workers, its worker in this event loop."""

    def __init__(self, place: Place, note: Callable[[int], object]) -> None:
        self._app: Any = App(
            connector=PsycopgConnector(conninfo=place.postgres, min_size=CONNECTIONS, max_size=CONNECTIONS)
        )

        async def noop(n: int, s: str) -> None:
            note(n)

        self._noop: Any = self._app.task(name="noop")(noop)
        self._running: asyncio.Task[None] | None = None

    async def start(self, workers: int) -> None:
        await self._app.open_async()
        if not await self._app.check_connection_async():
            await self._app.schema_manager.apply_schema_async()
        if workers:
            self._running = asyncio.create_task(
                self._app.run_worker_async(
                    concurrency=workers, delete_jobs="always", install_signal_handlers=False
                )
            )

    async def add(self, task: Noop) -> None:
        await self._noop.defer_async(n=task.n, s=task.s)

    async def add_many(self, tasks: list[Noop]) -> None:
        await self._noop.batch_defer_async(*({"n": task.n, "s": task.s} for task in tasks))

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._app.close_async()

    def fill(self, count: int) -> None:
        raise NotImplementedError
