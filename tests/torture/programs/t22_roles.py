"""The roles of uniqueness: adders that add the same at once, and a worker that makes room for the next."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import ClassVar

import aiosqlite

import backlite_async  # before the checkout is on the path: what is tested may be another copy

sys.path.append(str(Path(__file__).parents[3]))

from backlite_async import AlreadyExists, Client, JobContext, QueueConfig, Retention, Task
from tests.torture.kit import Ledger

__all__ = ["ROLES", "backlite_async"]

ADDERS = 4
"""Coroutines that add, in each process."""


class Once(Task):
    """A job of which there is to be one for each key."""

    config: ClassVar[QueueConfig] = QueueConfig("once", max_crashes=1_000, retention=Retention())
    key: str


class Errors(logging.Handler):
    """Notes what the library logs as an error."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.ERROR)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        """Note one line."""
        self._ledger.note("error", text=record.getMessage())


Add = Callable[[Client, str], Awaitable[tuple[str, bool]]]
"""Adds a job of a key; returns the id of the one that there is, and whether it is a new one."""


async def by_key(client: Client, key: str) -> tuple[str, bool]:
    """Add with a unique key."""
    ids = await client.add(Once(key)).unique(key).save()
    return ids[0], not ids.existing


async def by_payload(client: Client, key: str) -> tuple[str, bool]:
    """Add what is the same because its payload is."""
    ids = await client.add(Once(key)).unique().save()
    return ids[0], not ids.existing


async def by_replacing(client: Client, key: str) -> tuple[str, bool]:
    """Add, or put off the one that is there."""
    ids = await client.add(Once(key)).unique(key, on_conflict="replace").save()
    return ids[0], not ids.existing


async def by_raising(client: Client, key: str) -> tuple[str, bool]:
    """Add, or be told which one there is by an error."""
    try:
        ids = await client.add(Once(key)).unique(key, on_conflict="raise").save()
    except AlreadyExists as error:
        return error.job_id, False
    return ids[0], True


async def by_id(client: Client, key: str) -> tuple[str, bool]:
    """Add with an id of one's own."""
    ids = await client.add(Once(key)).id(key).save()
    return ids[0], not ids.existing


async def by_both(client: Client, key: str) -> tuple[str, bool]:
    """Add with a unique key, and an id that nobody else has."""
    own = f"{key}-{os.getpid()}-{time.monotonic_ns()}"
    ids = await client.add(Once(key)).unique(key).id(own).save()
    return ids[0], not ids.existing


class Inside:
    """Adds within transactions of the application."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()

    async def __call__(self, client: Client, key: str) -> tuple[str, bool]:
        """Add with a unique key, in a transaction of its own."""
        async with self._lock:
            await self._connection.execute("BEGIN IMMEDIATE")
            ids = await client.add(Once(key)).unique(key).tx(self._connection).save()
            await self._connection.commit()
            return ids[0], not ids.existing


WAYS: dict[str, Add] = {
    "key": by_key,
    "payload": by_payload,
    "replace": by_replacing,
    "raise": by_raising,
    "id": by_id,
    "both": by_both,
}


async def adder(
    stop: asyncio.Event, *, database: str, ledger: str, go: str, way: str, keys: list[str], times: int
) -> None:
    """Add each key so many times, in an order of our own, once the others are there; tell the ids."""
    book = Ledger(ledger)
    logging.getLogger("backlite_async").addHandler(Errors(book))
    found: dict[str, set[str]] = {key: set() for key in keys}
    client = Client(database, workers=0)
    async with client, aiosqlite.connect(database, isolation_level=None) as connection:
        add = Inside(connection) if way == "tx" else WAYS[way]
        await connection.execute("PRAGMA busy_timeout = 20000")

        async def some(left: Iterator[str]) -> None:
            for key in left:
                job, new = await add(client, key)
                if new:
                    book.note("new", key=key, job=job)
                found[key].add(job)

        book.note("up", go=go)
        while not os.path.exists(go):
            await asyncio.sleep(0.001)
        order = iter([key for _ in range(times) for key in random.sample(keys, len(keys))])
        await asyncio.gather(*(some(order) for _ in range(ADDERS)))
    for key, jobs in found.items():
        book.note("found", key=key, jobs=sorted(jobs), times=times)


async def worker(stop: asyncio.Event, *, database: str, ledger: str) -> None:
    """Run jobs until stopped."""
    book = Ledger(ledger)
    logging.getLogger("backlite_async").addHandler(Errors(book))
    client = Client(database)

    @client.handler(Once)
    async def once(task: Once, job: JobContext) -> None:
        book.note("start", job=job.id, key=task.key)
        await asyncio.sleep(random.uniform(0, 0.02))
        book.note("end", job=job.id, key=task.key)

    async with client:
        book.note("up", go="")
        await stop.wait()


ROLES = {"adder": adder, "worker": worker}
