"""The roles of limits: workers whose handlers hold locks that leave room for nobody else, and an adder."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

import backlite_async  # before the checkout is on the path: what is tested may be another copy

sys.path.append(str(Path(__file__).parents[3]))

from backlite_async import Client, JobContext, QueueConfig, Retention, Retry, Task
from tests.torture.kit import Ledger

__all__ = ["ROLES", "backlite_async"]

KEYS, PER_KEY, FEW = 20, 2, 3

BATCH = 50
"""Jobs of each queue that are added in one go."""

ALONE = QueueConfig("alone", max_crashes=1_000, global_concurrency=1, retention=Retention())
"""One at a time, of both of its task types together."""

SOME = QueueConfig("some", max_crashes=1_000, global_concurrency=FEW, concurrency=1, retention=Retention())
"""A few at a time, each in a process of its own."""

KEYED = QueueConfig("keyed", max_crashes=1_000, concurrency_per_key=PER_KEY, retention=Retention())


class Alone(Task):
    """A job of the event loop."""

    config: ClassVar[QueueConfig] = ALONE
    number: int


class Threaded(Task):
    """A job of a thread, of the same queue."""

    config: ClassVar[QueueConfig] = ALONE
    number: int


class Some(Task):
    """One of a few."""

    config: ClassVar[QueueConfig] = SOME
    number: int


class Keyed(Task):
    """A job of one of many customers."""

    config: ClassVar[QueueConfig] = KEYED
    customer: int
    number: int


class Errors(logging.Handler):
    """Notes what the library logs as an error."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.ERROR)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        """Note one line."""
        self._ledger.note("error", text=record.getMessage())


class Places:
    """Locks in a folder, so many in each group, that the operating system drops with their holder."""

    def __init__(self, folder: str, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger

    @contextmanager
    def held(self, job: JobContext, **groups: int) -> Iterator[ExitStack]:
        """Hold a place in each group, of so many, and note the start and the end of the run.

        Who has ended before his handler has closes the stack.
        """
        run = f"{job.id}#{job.attempt}"  # what is tried again is another run
        with ExitStack() as stack:
            for group, size in groups.items():
                self._hold(stack, run, group, size)
            self._ledger.note("start", job=run, fence=job.fence, groups=groups)
            stack.callback(self._ledger.note, "end", job=run, fence=job.fence)
            yield stack

    def _hold(self, stack: ExitStack, run: str, group: str, size: int) -> None:
        """Take the first free place; it is refused where all are taken. A place tells its holder's pid."""
        holders = []
        for number in range(size):
            place = os.open(f"{self._folder}/{group}.{number}", os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holders.append(int(os.pread(place, 20, 0) or b"0"))
                os.close(place)
                continue
            os.pwrite(place, b"%-20d" % os.getpid(), 0)
            stack.callback(os.close, place)
            stack.callback(os.ftruncate, place, 0)
            return
        self._ledger.note("refused", job=run, group=group, holders=holders)


async def worker(stop: asyncio.Event, *, database: str, ledger: str, places: str) -> None:
    """Run jobs until stopped."""
    book = Ledger(ledger)
    logging.getLogger("backlite_async").addHandler(Errors(book))
    room = Places(places, book)
    client = Client(database, workers=8)

    @client.handler(Alone)
    async def alone(task: Alone, job: JobContext) -> None:
        with room.held(job, alone=1) as run:
            await work(task.number, job, run)

    @client.handler(Threaded)
    def threaded(task: Threaded, job: JobContext) -> None:
        with room.held(job, alone=1):
            pass

    @client.handler(Some)
    async def some(task: Some, job: JobContext) -> None:
        with room.held(job, **{"some": FEW, f"some-{os.getpid()}": 1}):
            await asyncio.sleep(0.005)

    @client.handler(Keyed)
    async def keyed(task: Keyed, job: JobContext) -> None:
        with room.held(job, **{f"customer-{task.customer}": PER_KEY}) as run:
            await work(task.number, job, run)

    async with client:
        book.note("up")
        await stop.wait()


async def work(number: int, job: JobContext, run: ExitStack) -> None:
    """End in one of the ways in which a place can become free."""
    match number % 8:
        case 0 if job.attempt == 1:
            raise Retry(after=0)
        case 1:
            async with job.transaction():
                job.result = number
                run.close()  # with the block, the job ends
        case 2:
            await asyncio.sleep(0.002)
        case 3:
            pass
        case _:
            await asyncio.sleep(0)


async def adder(
    stop: asyncio.Event, *, database: str, ledger: str, alone: int, keyed: int, some: int
) -> None:
    """Add so many jobs of each queue, a batch of each in turn."""
    book = Ledger(ledger)
    logging.getLogger("backlite_async").addHandler(Errors(book))
    async with Client(database, workers=0) as client:
        for first in range(0, max(alone, keyed, some), BATCH):
            numbers = range(first, first + BATCH)
            tasks: list[Task] = [(Threaded if n % 5 == 4 else Alone)(n) for n in numbers if n < alone]
            tasks += [Some(n) for n in numbers if n < some]
            book.note("ack", jobs=await client.add(*tasks).save())
            for customer in range(KEYS):
                own = [Keyed(customer, n) for n in numbers if n < keyed and n % KEYS == customer]
                if own:
                    added = await client.add(*own).key(f"customer-{customer}").save()
                    book.note("ack", jobs=added)


ROLES = {"worker": worker, "adder": adder}
