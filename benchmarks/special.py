"""Measurements of the library alone: what blocks the loop, memory, and cost beside much that is kept."""

from __future__ import annotations

import asyncio
import gc
import resource
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from backlite_async import Client

from .library import Keeping, Library
from .programs import LIMIT, Values, percentile, place_of
from .system import Count, Starts
from .workload import tasks

__all__ = ["bulk_block", "bulk_memory", "costs", "expire", "fill_completed", "memory", "start"]

TICK = 0.001
"""Seconds between two looks at whether the event loop is free."""

AHEAD = 10
"""Batches that may wait, while memory is measured."""

MIB = 1_048_576


async def bulk_block(place: dict[str, str], count: int) -> Values:
    """Add many jobs in one operation; the longest that the event loop did nothing else, in ms."""
    queue = Library(place_of(place), lambda n: None)
    many = tasks(count, first=1)
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            longest = max(longest, time.perf_counter() - before - TICK)

    async with asyncio.timeout(LIMIT):
        await queue.start(0)
        await queue.add(tasks(1)[0])
        gc.collect()
        looking = asyncio.create_task(look())
        await asyncio.sleep(0.1)
        await queue.add_many(many)
        await asyncio.sleep(0.1)
        looking.cancel()
        await queue.stop()
    return {"block": 1_000 * longest}


async def bulk_memory(place: dict[str, str], count: int) -> Values:
    """Add many jobs in one operation; the peak of the memory, in bytes a job and in MiB."""
    queue = Library(place_of(place), lambda n: None)
    many = tasks(count, first=1)
    async with asyncio.timeout(LIMIT):
        await queue.start(0)
        await queue.add_many(tasks(100))
        gc.collect()
        before = peak_memory()
        await queue.add_many(many)
        grown = peak_memory() - before
        await queue.stop()
    return {"each": grown / count, "peak": grown / MIB}


async def memory(place: dict[str, str], count: int) -> Values:
    """Add and run many jobs; the memory after a tenth of them and after all, in MiB."""
    counter, tenth = Count(count), Count(count // 10)
    batch = min(1_000, count // 20)
    room = asyncio.Semaphore(AHEAD)
    seen: list[float] = []

    def note(n: int) -> None:
        counter.note(n)
        tenth.note(n)
        if n % batch == 0:
            room.release()

    queue = Library(place_of(place), note)

    async def add() -> None:
        for first in range(0, count, batch):
            await room.acquire()
            await queue.add_many(tasks(batch, first))

    async with asyncio.timeout(10 * LIMIT):
        await queue.start(100)
        adding = asyncio.create_task(add())
        for goal in (tenth, counter):
            await goal.reached.wait()
            gc.collect()
            seen.append(resident_memory() / MIB)
        await adding
        await queue.stop()
    return {"tenth": seen[0], "all": seen[1]}


async def costs(place: dict[str, str], count: int) -> Values:
    """Measure `status` and a lone add beside the jobs that wait or are kept; medians, in ms."""
    client = Client(place_of(place).file, workers=0)
    adds, asks = [], []
    async with asyncio.timeout(LIMIT), client:
        for task in tasks(count):
            began = time.perf_counter()
            [job_id] = await client.add(task).save()
            added = time.perf_counter()
            await client.status(job_id)
            asks.append(1_000 * (time.perf_counter() - added))
            adds.append(1_000 * (added - began))
    return {"add": percentile(adds, 0.5), "status": percentile(asks, 0.5)}


async def expire(place: dict[str, str], expired: int) -> Values:
    """Remove what has expired among all that is kept; rows a second."""
    path = place_of(place).file
    Keeping(place_of(place), lambda n: None).fill_completed(expired, time.time_ns() // 1_000_000 - 60_000)
    left = expired
    async with asyncio.timeout(LIMIT):
        with closing(sqlite3.connect(path)) as connection:
            client = Client(path, workers=1)
            began = time.perf_counter()
            async with client:
                while left:
                    await asyncio.sleep(0.002)
                    [[left]] = connection.execute(
                        "SELECT count(*) FROM backlite_completed WHERE expires_at < ?",
                        (time.time_ns() // 1_000_000,),
                    ).fetchall()
                elapsed = time.perf_counter() - began
    return {"rate": expired / elapsed}


def fill_completed(place: dict[str, str], count: int) -> Values:
    """Let many jobs have completed at a fresh place, and none wait."""

    async def set_up() -> Keeping:
        starts = Starts()
        queue = Keeping(place_of(place), starts.note)
        await queue.start(1)
        await queue.add(tasks(1)[0])
        await starts.of(0)
        await queue.stop()
        return queue

    asyncio.run(set_up()).fill(count - 1)
    return {}


async def start(place: dict[str, str]) -> Values:
    """Start a client on a database that it has had before; in ms."""
    path = place_of(place).file
    async with Client(path, workers=10):
        pass
    began = time.perf_counter()
    async with Client(path, workers=10):
        started = time.perf_counter()
    return {"start": 1_000 * (started - began), "both": 1_000 * (time.perf_counter() - began)}


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def resident_memory() -> int:
    """Return the memory that this process has, in bytes."""
    statm = Path("/proc/self/statm")
    return resource.getpagesize() * int(statm.read_text().split()[1]) if statm.exists() else peak_memory()
