"""The measurements that every system can run, each written once. Rates in jobs/s, latencies in ms.

Each takes the name of a system and a place, as strings, for they run in processes of their own.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from .system import Count, Place, Starts, load
from .workload import Noop, tasks

__all__ = [
    "add",
    "bulk",
    "drain",
    "fill",
    "idle",
    "idle_latency",
    "latencies",
    "load_latency",
    "percentile",
    "wake_ups",
]

Values = dict[str, float]
Adding = Callable[[Noop], Coroutine[Any, Any, None]]

LIMIT = 110.0
"""Seconds after which a measurement that hangs is given up."""

LATE = 0.002
"""Seconds after which a job that should have been added is late through no fault of the timer's."""

DRAIN_OUT = 5.0
"""Seconds that jobs may start late, after a steady load has ended."""


def place_of(place: dict[str, str]) -> Place:
    """Return a place from its parts."""
    return Place(folder=Path(place["folder"]), redis=place["redis"], postgres=place["postgres"])


async def add(system: str, place: dict[str, str], callers: int, each: int) -> Values:
    """Add jobs by some callers at once, each one after the other."""
    queue = load(system)(place_of(place), lambda n: None)
    groups = [tasks(each, first=1 + number * each) for number in range(callers)]
    async with asyncio.timeout(LIMIT):
        await queue.start(0)
        await queue.add(tasks(1)[0])
        gc.collect()
        began = time.perf_counter()
        async with asyncio.TaskGroup() as callings:
            for group in groups:
                callings.create_task(_add_all(queue.add, group))
        elapsed = time.perf_counter() - began
        await queue.stop()
    return {"rate": callers * each / elapsed}


async def bulk(system: str, place: dict[str, str], count: int) -> Values:
    """Add many jobs in the fastest way there is."""
    queue = load(system)(place_of(place), lambda n: None)
    many = tasks(count, first=1)
    async with asyncio.timeout(LIMIT):
        await queue.start(0)
        await queue.add(tasks(1)[0])
        gc.collect()
        began = time.perf_counter()
        await queue.add_many(many)
        elapsed = time.perf_counter() - began
        await queue.stop()
    return {"rate": count / elapsed}


async def drain(
    system: str,
    place: dict[str, str],
    *,
    workers: int,
    count: int,
    beside: int | None = 0,
    seconds: float = LIMIT,
) -> Values:
    """Run so many of the jobs that wait, with others beside them (None: they all wait there already).

    Those of them that it can in so many seconds; others take minutes for what takes us one.

    A peer's clock stops when its last job starts, the library's when all outcomes are on the disk.
    """
    place_ = place_of(place)
    async with asyncio.timeout(LIMIT):
        if beside is not None:
            filling = load(system)(place_, lambda n: None)
            await filling.start(0)
            await filling.add_many(tasks(count + beside))
            await filling.stop()
        counter = Count(count)
        queue = load(system)(place_, counter.note)
        with kept_open(place_.file):
            gc.collect()
            opening = time.perf_counter()
            await queue.start(workers)
            began = time.perf_counter()
            done = await _reached(counter, count, seconds)
            elapsed = time.perf_counter() - began
            await queue.stop()
            if system.startswith("library"):
                elapsed, done = time.perf_counter() - began, counter.last
    return {"rate": done / elapsed, "start": 1_000 * (began - opening)}


async def idle_latency(system: str, place: dict[str, str], tries: int, rest: float, seconds: float) -> Values:
    """Add a job to an idle system, rest, and again; time from the call to the handler's first line.

    `after` is the median of the time from the call's return.
    """
    starts = Starts()
    queue = load(system)(place_of(place), starts.note)
    called, returned = [], []
    chance = random.Random(1)
    async with asyncio.timeout(LIMIT):
        await queue.start(10)
        end = time.perf_counter() + seconds
        for task in tasks(tries + 3):
            began = time.perf_counter()
            await queue.add(task)
            added = time.perf_counter()
            at = await starts.of(task.n)
            called.append(1_000 * (at - began))
            returned.append(1_000 * (at - added))
            await asyncio.sleep(rest * chance.uniform(0.5, 1.5))  # in step with nobody's polling
            if at > end:
                break
        await queue.stop()
    return latencies(called[3:] or called) | {"after": percentile(returned[3:] or returned, 0.5)}


async def load_latency(system: str, place: dict[str, str], rate: int, seconds: float) -> Values:
    """Add jobs at a steady rate, whatever becomes of them; time from the call to the handler's first line."""
    starts = Starts()
    queue = load(system)(place_of(place), starts.note)
    many = tasks(int(rate * seconds))
    called: dict[int, float] = {}
    async with asyncio.timeout(LIMIT):
        await queue.start(100)
        await _warm_up(queue.add, starts)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as adding:
            for task in many:
                due = began + task.n / rate
                if (now := time.perf_counter()) < due:
                    await asyncio.sleep(due - now)
                    now = time.perf_counter()
                # The timer is coarse; but whoever blocks the loop shall not hide it by asking later.
                called[task.n] = now if now - due < LATE else due
                adding.create_task(queue.add(task))
        with suppress(TimeoutError):  # what has not started then counts as infinitely late
            async with asyncio.timeout(DRAIN_OUT):
                await starts.until(lambda: len(starts.at) >= len(many) + 1)
        await queue.stop()
    waits = [1_000 * (starts.at.get(n, math.inf) - at) for n, at in called.items()]
    return latencies(waits[len(waits) // 10 :])


async def idle(system: str, place: dict[str, str], seconds: float) -> Values:
    """Have nothing to do; percent of a core, and how often a thread was woken in a minute."""
    queue = load(system)(place_of(place), lambda n: None)
    await queue.start(10)
    await asyncio.sleep(1.0)  # until what a start leaves behind is done
    gc.collect()
    wakes, cpu, began = wake_ups(), time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - began
    cpu, wakes = time.process_time() - cpu, wake_ups() - wakes - 1  # this function's own
    await queue.stop()
    return {"cpu": 100 * cpu / elapsed, "wakes": 60 * max(wakes, 0) / elapsed}


def fill(system: str, place: dict[str, str], count: int) -> Values:
    """Let many jobs wait at a fresh place."""

    async def set_up() -> None:
        queue = load(system)(place_of(place), lambda n: None)
        await queue.start(0)
        await queue.add(tasks(1)[0])
        await queue.stop()
        queue.fill(count - 1)

    asyncio.run(set_up())
    return {}


def wake_ups() -> int:
    """Return how often a thread of this process has gone to sleep and been woken, where Linux tells."""
    found = [status.read_text() for status in Path("/proc/self/task").glob("*/status")]
    lines = [line for text in found for line in text.splitlines() if line.startswith("voluntary_ctxt")]
    return sum(int(line.split()[1]) for line in lines)


def latencies(waits: list[float]) -> Values:
    """Return the median and the 99th percentile."""
    return {"p50": percentile(waits, 0.50), "p99": percentile(waits, 0.99)}


def percentile(values: list[float], part: float) -> float:
    """Return the smallest value that so large a part does not exceed."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


@contextmanager
def kept_open(path: Path) -> Iterator[None]:
    """Keep a connection open, so that whoever closes is not the last one and tidies nothing up."""
    if not path.exists():
        yield
        return
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        yield


async def _reached(counter: Count, count: int, seconds: float) -> int:
    """Return how many jobs have started when enough have, or the time is over."""
    try:
        async with asyncio.timeout(seconds):
            await counter.reached.wait()
    except TimeoutError:
        return counter.last
    return count


async def _add_all(add_one: Adding, group: list[Noop]) -> None:
    for task in group:
        await add_one(task)


async def _warm_up(add_one: Adding, starts: Starts) -> None:
    await add_one(tasks(1, first=-1)[0])
    await starts.of(-1)
