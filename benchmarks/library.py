"""The same with the library, by its public calls alone; durability full, as it comes."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backlite_async import Client, JobContext, JobStatus

from .workload import Noop, Sizes, tasks

__all__ = ["add_bulk", "add_hundred", "add_one", "drain_hundred", "drain_ten", "latency"]

LIMIT = 300.0
"""Seconds after which a measurement that hangs is given up."""

REST = 0.002
"""Seconds of idleness before each try of the latency."""


async def add_one(path: Path, sizes: Sizes) -> list[float]:
    """Add jobs one after the other; return jobs per second."""
    return [await _add_by_callers(path, 1, sizes.singles)]


async def add_hundred(path: Path, sizes: Sizes) -> list[float]:
    """Add jobs by many callers at once, each one after the other; return jobs per second."""
    return [await _add_by_callers(path, sizes.callers, sizes.per_caller)]


async def add_bulk(path: Path, sizes: Sizes) -> list[float]:
    """Add many jobs in one operation; return jobs per second."""
    many = tasks(sizes.bulk)
    async with asyncio.timeout(LIMIT), Client(path, workers=0) as client:
        await client.add(*tasks(1)).save()
        began = time.perf_counter()
        await client.add(*many).save()
        elapsed = time.perf_counter() - began
    _check(path, sizes.bulk + 1)
    return [sizes.bulk / elapsed]


async def drain_hundred(path: Path, sizes: Sizes) -> list[float]:
    """Run jobs that wait by 100 workers; return jobs per second."""
    return [await _drain(path, 100, sizes.drain)]


async def drain_ten(path: Path, sizes: Sizes) -> list[float]:
    """Run jobs that wait by 10 workers; return jobs per second."""
    return [await _drain(path, 10, sizes.drain)]


async def latency(path: Path, sizes: Sizes) -> list[float]:
    """Return the milliseconds from the return of save() to the handler's first line, sorted."""
    client = Client(path, workers=10)
    starts: asyncio.Queue[float] = asyncio.Queue()
    waits = []

    @client.handler(Noop)
    async def handle(task: Noop, job: JobContext) -> None:
        starts.put_nowait(time.perf_counter())

    async with asyncio.timeout(LIMIT), client:
        for task in tasks(sizes.tries):
            [job_id] = await client.add(task).save()
            saved = time.perf_counter()
            waits.append(1_000 * (await starts.get() - saved))
            while await client.status(job_id) is not JobStatus.NOT_FOUND:
                pass  # its outcome is being written
            await asyncio.sleep(REST)
    return sorted(waits)


async def _add_by_callers(path: Path, callers: int, each: int) -> float:
    many = tasks(each)

    async def caller() -> None:
        for task in many:
            await client.add(task).save()

    async with asyncio.timeout(LIMIT), Client(path, workers=0) as client:
        await client.add(*tasks(1)).save()
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
        elapsed = time.perf_counter() - began
    _check(path, callers * each + 1)
    return callers * each / elapsed


async def _drain(path: Path, workers: int, count: int) -> float:
    """Measure from the start of the dispatcher until the last outcome is on the disk."""
    client = Client(path, workers=workers)
    done = 0
    all_done = asyncio.Event()

    @client.handler(Noop)
    async def handle(task: Noop, job: JobContext) -> None:
        nonlocal done
        done += 1
        if done == count:
            all_done.set()

    async with asyncio.timeout(LIMIT):
        async with Client(path, workers=0) as filling:
            await filling.add(*tasks(count)).save()
        with _kept_open(path):
            await client.start()
            began = time.perf_counter()
            await all_done.wait()
            clean = await client.stop()
            elapsed = time.perf_counter() - began
    assert clean
    assert done == count
    _check(path, 0)
    return count / elapsed


@contextmanager
def _kept_open(path: Path) -> Iterator[None]:
    """Keep a connection open, so that the client's close() is not the last one and tidies nothing up."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        yield


def _check(path: Path, count: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        [[found]] = connection.execute("SELECT count(*) FROM backlite_jobs").fetchall()
    assert found == count, f"{found} jobs in the database, expected {count}"
