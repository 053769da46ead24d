"""The roles of a storm of kills: adders, and workers whose handlers write what they do into a ledger."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import aiosqlite

from backlite_async import Client, JobContext, QueueConfig, Retention, Task

STORM = QueueConfig("storm", max_crashes=1_000, retention=Retention(payload="always"))
"""No job is poison here: each may be hit by many kills."""


class Wait(Task):
    """A job that waits in the event loop."""

    config: ClassVar[QueueConfig] = STORM
    batch: str
    size: int
    seconds: float


class Block(Task):
    """A job that sits in a thread."""

    config: ClassVar[QueueConfig] = STORM
    batch: str
    size: int
    seconds: float


class Ledger:
    """A file to which many processes append lines, each in one write."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, **fields: Any) -> None:
        """Append a line."""
        line = {"what": what, "pid": os.getpid(), "at": time.monotonic(), **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Errors(logging.Handler):
    """Notes what the library logs as an error."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.ERROR)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        """Note one line."""
        self._ledger.note("error", text=record.getMessage())


def watch(ledger: Ledger) -> None:
    """Note from now on what the library logs as an error."""
    logging.getLogger("backlite_async").addHandler(Errors(ledger))


async def worker(stop: asyncio.Event, *, database: str, ledger: str, lease: float) -> None:
    """Run jobs until stopped."""
    book = Ledger(ledger)
    watch(book)
    client = Client(database, workers=8, lease=lease)

    def start(task: Wait | Block, job: JobContext) -> Callable[[], None]:
        book.note("start", job=job.id, fence=job.fence, batch=task.batch, size=task.size)
        return lambda: book.note("end", job=job.id, fence=job.fence)

    @client.handler(Wait)
    async def wait(task: Wait, job: JobContext) -> None:
        end = start(task, job)
        await asyncio.sleep(task.seconds)
        end()

    @client.handler(Block)
    def block(task: Block, job: JobContext) -> None:
        end = start(task, job)
        time.sleep(task.seconds)
        end()

    async with client:
        book.note("up")
        await stop.wait()


async def adder(stop: asyncio.Event, *, database: str, ledger: str, pause: float) -> None:
    """Add batches of jobs until stopped, one in four in a transaction of its own."""
    book = Ledger(ledger)
    watch(book)
    client = Client(database, workers=0)
    rng = random.Random()
    async with client, aiosqlite.connect(database, isolation_level=None) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS orders (batch TEXT PRIMARY KEY)")
        book.note("up")
        for number in itertools.count():
            inside = number % 4 == 3
            batch = f"{'tx-' if inside else ''}{os.getpid()}-{time.monotonic_ns()}"
            ids = await add(client, connection if inside else None, rng, batch)
            for job in ids:
                book.note("ack", job=job)
            try:
                await asyncio.wait_for(stop.wait(), rng.uniform(0, 2 * pause))
                break
            except TimeoutError:
                continue


async def add(
    client: Client, connection: aiosqlite.Connection | None, rng: random.Random, batch: str
) -> list[str]:
    """Add a batch; return its ids once it is promised to be there."""
    size = rng.choice((1, 1, 2, 8))
    kind = rng.choice((Wait, Wait, Block))
    operation = client.add(*(kind(batch, size, rng.uniform(0, 0.1)) for _ in range(size)))
    if connection is None:
        return await operation.save()
    await connection.execute("BEGIN IMMEDIATE")
    await connection.execute("INSERT INTO orders (batch) VALUES (?)", (batch,))
    ids = await operation.tx(connection).save()
    await connection.commit()
    return ids


ROLES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"worker": worker, "adder": adder}
