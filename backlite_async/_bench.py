"""A quick measure of this computer: adds and runs, beside plain inserts into SQLite in the same run."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Awaitable
from contextlib import closing
from typing import ClassVar

from . import Client, QueueConfig, Task

__all__ = ["Figure", "measure"]

ROWS = 1000
"""Jobs in one call of an add of many."""

CALLERS = 10

Figure = tuple[str, int, float]
"""What was done, how often, in how many seconds."""


class Nothing(Task):
    """Do nothing."""

    config: ClassVar[QueueConfig] = QueueConfig("bench")
    number: int


def measure(jobs: int, workers: int) -> list[Figure]:
    """Measure in a temporary folder, with so many jobs."""
    few = -(-jobs // 100) * CALLERS  # of what syncs each time
    with tempfile.TemporaryDirectory(prefix="backlite-bench-") as folder:
        return [
            _inserts("SQLite: inserts, one a commit", folder, few, 1),
            _inserts(f"SQLite: inserts, {ROWS:,} a commit", folder, jobs, ROWS),
            *asyncio.run(_measured(os.path.join(folder, "jobs.db"), jobs, few, workers)),
        ]


def _inserts(what: str, folder: str, number: int, each: int) -> Figure:
    """Insert rows as large as such a job into a table of their own."""
    path = os.path.join(folder, f"plain-{each}.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE plain (id TEXT PRIMARY KEY, queue TEXT, payload TEXT, due INTEGER)")
        rows = [(f"{place:036}", "bench", f'{{"number":{place}}}', place) for place in range(number)]
        begin = time.perf_counter()
        for first in range(0, number, each):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO plain VALUES (?, ?, ?, ?)", rows[first : first + each])
            connection.execute("COMMIT")
        return what, number, time.perf_counter() - begin


async def _measured(path: str, number: int, few: int, workers: int) -> list[Figure]:
    async with Client(path, workers=0) as client:
        found = [
            await _timed("add, one after the other", few, _one_by_one(client, few)),
            await _timed(f"add, {CALLERS} at once", few, _side_by_side(client, few)),
            await _timed(f"add, {ROWS:,} a call", number, _many(client, number)),
        ]
    total = number + 2 * few
    return [*found, await _timed("run to the end", total, _drained(path, total, workers))]


async def _timed(what: str, number: int, work: Awaitable[None]) -> Figure:
    begin = time.perf_counter()
    await work
    return what, number, time.perf_counter() - begin


async def _one_by_one(client: Client, number: int) -> None:
    for place in range(number):
        await client.add(Nothing(place)).save()


async def _side_by_side(client: Client, number: int) -> None:
    await asyncio.gather(*(_one_by_one(client, number // CALLERS) for _ in range(CALLERS)))


async def _many(client: Client, number: int) -> None:
    for first in range(0, number, ROWS):
        await client.add(*(Nothing(place) for place in range(first, min(first + ROWS, number)))).save()


async def _drained(path: str, total: int, workers: int) -> None:
    """Run all jobs, until each has ended and that is stored."""
    left, done = total, asyncio.Event()
    client = Client(path, workers=workers)

    @client.handler(Nothing)
    async def nothing(task: Nothing) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async with client:
        await done.wait()
