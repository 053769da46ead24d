"""What every system that is measured looks like to the programs that measure it."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .workload import Noop

__all__ = ["Count", "Place", "Starts", "System", "load"]

NAMES = {
    "library": "benchmarks.library:Library",
    "library, keeping": "benchmarks.library:Keeping",
    "library, delayed in front": "benchmarks.library:Delayed",
    "library, many queues": "benchmarks.library:Queues",
    "huey": "benchmarks.peers.huey:Huey",
    "tinyjobs": "benchmarks.peers.tinyjobs:TinyJobs",
    "saq": "benchmarks.peers.saq:Saq",
    "arq": "benchmarks.peers.arq:Arq",
    "pgqueuer": "benchmarks.peers.pgqueuer:PgQueuer",
    "procrastinate": "benchmarks.peers.procrastinate:Procrastinate",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a system keeps its jobs: a folder, and where the servers are that it may need."""

    folder: Path
    redis: str = ""
    postgres: str = ""

    @property
    def file(self) -> Path:
        """The database of the systems that keep one file."""
        return self.folder / "jobs.db"


class System(Protocol):
    """One queue at one place; `note` is called with a job's number at the first line of its handler."""

    def __init__(self, place: Place, note: Callable[[int], object]) -> None: ...

    async def start(self, workers: int) -> None:
        """Open it, and run jobs with so many workers; 0: add only."""

    async def add(self, task: Noop) -> None:
        """Add one job; return when it is as durable as the system makes it."""

    async def add_many(self, tasks: list[Noop]) -> None:
        """Add jobs in the fastest way that the system documents."""

    async def stop(self) -> None:
        """Run no more, and close it."""

    def fill(self, count: int) -> None:
        """Let so many more jobs wait at a place that is set up, past the system's own calls."""


def load(name: str) -> type[System]:
    """Return the class of a system; raises ImportError if it is not installed."""
    module, _, attribute = NAMES[name].partition(":")
    found: type[System] = getattr(importlib.import_module(module), attribute)
    return found


class Count:
    """Takes note of jobs, from whatever thread, until so many have started."""

    def __init__(self, goal: int) -> None:
        self._numbers = itertools.count(1)
        self._goal = goal
        self._loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        self.last = 0

    def note(self, n: int) -> None:
        self.last = number = next(self._numbers)
        if number == self._goal:
            self._loop.call_soon_threadsafe(self.reached.set)


class Starts:
    """Takes note of when each job started, and lets one wait for it."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def note(self, n: int) -> None:
        self.at.setdefault(n, time.perf_counter())
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # a system that runs jobs in threads
            self._loop.call_soon_threadsafe(self._changed.set)
        else:
            self._changed.set()

    async def of(self, n: int) -> float:
        """Return when a job started, as soon as it has."""
        await self.until(lambda: n in self.at)
        return self.at[n]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the starts satisfy a condition."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()
