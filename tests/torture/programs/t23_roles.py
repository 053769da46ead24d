"""The roles of rates: workers whose handlers write down when they begin, and an adder."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import backlite_async  # before the checkout is on the path: what is tested may be another copy

sys.path.append(str(Path(__file__).parents[3]))

from backlite_async import Client, QueueConfig, Rate, Retry, Task
from tests.torture.kit import Ledger
from tests.torture.looked import Looked

__all__ = ["RATES", "ROLES", "backlite_async"]

RATES = {
    "slow": Rate(20, per=1.0),
    "single": Rate(1, per=0.25),
    "quick": Rate(20, per=0.5),
    "long": Rate(150, per=3.0),
}


DEADLY = 80
"""Jobs of which the second kills its process: so soon that it has not been noted when it began."""


def config(name: str) -> QueueConfig:
    """Return the configuration of a queue with its rate."""
    return QueueConfig(name, max_crashes=1_000, max_attempts=1_000, rate=RATES[name])


class Slow(Task):
    """Twenty in a second."""

    config: ClassVar[QueueConfig] = config("slow")
    number: int


class Single(Task):
    """One at a time."""

    config: ClassVar[QueueConfig] = config("single")
    number: int


class Quick(Task):
    """A few in a short time, in threads; some kill their process with the first thing that they do."""

    config: ClassVar[QueueConfig] = config("quick")
    number: int


class Long(Task):
    """Many at once, and then none for long; tries count."""

    config: ClassVar[QueueConfig] = config("long")
    number: int


class Errors(logging.Handler):
    """Notes what the library logs as an error."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.ERROR)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        """Note one line."""
        self._ledger.note("error", text=record.getMessage())


def first(path: str) -> bool:
    """Return whether this is the first time that any process asks for this path."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


async def worker(stop: asyncio.Event, *, database: str, ledger: str, starts: str) -> None:
    """Run jobs until stopped."""
    book = Ledger(ledger)
    logging.getLogger("backlite_async").addHandler(Errors(book))
    file = os.open(starts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    clock = Looked()
    client = Client(database, workers=30, clock=clock)

    def note(queue: bytes) -> None:
        now, late = time.time_ns(), clock.late()
        os.write(file, b"%s %d %d\n" % (queue, now, 1e9 * late))

    @client.handler(Slow)
    async def slow(task: Slow) -> None:
        note(b"slow")
        await asyncio.sleep(0.01)

    @client.handler(Single)
    async def single(task: Single) -> None:
        note(b"single")

    @client.handler(Quick)
    def quick(task: Quick) -> None:
        note(b"quick")
        if task.number % DEADLY == 1 and first(f"{starts}.{task.number}"):
            os.kill(os.getpid(), signal.SIGKILL)

    @client.handler(Long)
    async def long(task: Long) -> None:
        note(b"long")
        if task.number % 3 == 0:
            raise Retry(after=0)

    async with client:
        book.note("up")
        await stop.wait()


async def adder(stop: asyncio.Event, *, database: str, ledger: str, seconds: float) -> None:
    """Add more jobs of each queue than its rate permits in so many seconds."""
    async with Client(database, workers=0) as client:
        for kind in (Slow, Single, Quick, Long):
            rate = RATES[kind.config.name]
            enough = int(rate.count * (seconds / float(rate.per) + 3))  # type: ignore[arg-type]
            await client.add(*(kind(number) for number in range(enough))).save()
    Ledger(ledger).note("added")


ROLES = {"worker": worker, "adder": adder}
