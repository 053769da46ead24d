"""The roles of waking up: who adds, who runs it elsewhere, and who dies with a job in hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import time
from typing import Any, ClassVar

import aiosqlite

from backlite_async import Client, JobContext, JobStatus, QueueConfig, Task

WAKE = QueueConfig("wake", max_crashes=1_000)


class Tick(Task):
    """A job that is done once it has started."""

    config: ClassVar[QueueConfig] = WAKE


class Hold(Task):
    """A job that is held until its process is killed; the second time it is done at once."""

    config: ClassVar[QueueConfig] = WAKE


class Ledger:
    """A file to which many processes append lines, each in one write."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, **fields: Any) -> None:
        """Append a line."""
        line = {"what": what, "pid": os.getpid(), "at": time.monotonic(), **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def first(self, name: str) -> bool:
        """Return whether this is the first time that any process asks for this name."""
        try:
            os.close(os.open(f"{self.path}.{name}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


async def worker(stop: asyncio.Event, *, database: str, ledger: str) -> None:
    """Run jobs until stopped."""
    book = Ledger(ledger)
    client = Client(database)

    @client.handler(Tick)
    async def tick(task: Tick, job: JobContext) -> None:
        book.note("start", job=job.id)

    @client.handler(Hold)
    async def hold(task: Hold, job: JobContext) -> None:
        first = book.first(job.id)  # before the note, which may be the last that this process does
        book.note("start", job=job.id)
        if first:
            await asyncio.Event().wait()

    book.note("begun")
    async with client:
        book.note("up")
        await stop.wait()


async def adder(
    stop: asyncio.Event, *, database: str, ledger: str, pause: list[float], burst: int, within: float
) -> None:
    """Add up to so many jobs at once, one by one, and then wait; again and again until stopped.

    They come within about the time that a look for jobs takes. A burst is over when all its jobs
    have started, so that nobody's later ring makes good for one that was lost. `pause`: between two
    bursts, any order of magnitude between two numbers of seconds. `within`: the share that is added
    in transactions. What counts is the instant before the call that commits.
    """
    book, rng = Ledger(ledger), random.Random()
    client = Client(database, workers=0)
    async with client, aiosqlite.connect(database, isolation_level=None) as connection:
        book.note("up")
        while not stop.is_set():
            jobs = []
            for _ in range(rng.randint(1, burst)):
                kind = "tx" if rng.random() < within else "add"
                called, ids = await add(client, connection if kind == "tx" else None)
                book.note("ack", job=ids[0], called=called, kind=kind)
                jobs += ids
                await asyncio.sleep(rng.uniform(0, 0.001))
            for job in jobs if burst > 1 else ():
                await started(client, job)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), between(rng, *pause))


def between(rng: random.Random, least: float, most: float) -> float:
    """Return a number of any order of magnitude between two."""
    return float(least * (most / least) ** rng.random())


async def started(client: Client, job: str) -> None:
    """Wait until a job is no longer pending, but not for ever. Reading wakes nobody."""
    deadline = time.monotonic() + 1.5
    while await client.status(job) is JobStatus.PENDING and time.monotonic() < deadline:
        await asyncio.sleep(0.003)


async def add(client: Client, connection: aiosqlite.Connection | None) -> tuple[float, list[str]]:
    """Add one job; return when the call that committed it was made, and its id."""
    if connection is None:
        called = time.monotonic()
        return called, await client.add(Tick()).save()
    await connection.execute("BEGIN IMMEDIATE")
    ids = await client.add(Tick()).tx(connection).save()
    called = time.monotonic()
    await connection.commit()
    return called, ids


async def once(stop: asyncio.Event, *, database: str, ledger: str) -> None:
    """Add one job that is held."""
    async with Client(database, workers=0) as client:
        for job in await client.add(Hold()).save():
            Ledger(ledger).note("ack", job=job)


async def mute(stop: asyncio.Event, *, database: str, ledger: str) -> None:
    """Add one job, and die with the first byte that is to tell another process of it."""
    book, send = Ledger(ledger), socket.socket.send

    def die(sender: socket.socket, data: bytes, *flags: int) -> int:
        if data == b"\0":  # the event loop wakes itself
            return send(sender, data, *flags)
        book.note("dying")
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    async with Client(database, workers=0) as client:
        socket.socket.send = die  # type: ignore[method-assign, assignment]
        await client.add(Tick()).save()
        await stop.wait()


ROLES = {"worker": worker, "adder": adder, "once": once, "mute": mute}
