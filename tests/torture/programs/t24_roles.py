"""Those who get orders: workers whose handlers write down when they begin, end and are cancelled."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import backlite_async  # before the checkout is on the path: what is tested may be another copy

sys.path.append(str(Path(__file__).parents[3]))

from backlite_async import Client, JobContext, QueueConfig, Retention, Task
from tests.torture.kit import Ledger

__all__ = ["ROLES", "Brief", "Endless", "Stream", "Stubborn", "Threaded", "backlite_async"]

ENDLESS = QueueConfig("endless", concurrency=2, retention=Retention())
FLOW = QueueConfig("flow", concurrency=2, retention=Retention())
STREAM = QueueConfig("stream", retention=Retention())


class Endless(Task):
    """A job that never ends by itself; two at a time in each process, so that every process has some."""

    config: ClassVar[QueueConfig] = ENDLESS


class Stubborn(Task):
    """A job that goes on when it is cancelled."""

    config: ClassVar[QueueConfig] = ENDLESS


class Threaded(Task):
    """A job in a thread, which can only be asked to end."""

    config: ClassVar[QueueConfig] = ENDLESS


class Brief(Task):
    """One of many jobs that end soon."""

    config: ClassVar[QueueConfig] = FLOW
    seconds: float


class Stream(Task):
    """The same, without a limit: some are claimed before a worker is free."""

    config: ClassVar[QueueConfig] = STREAM
    seconds: float


class Errors(logging.Handler):
    """Notes what the library logs as an error."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.ERROR)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        """Note one line."""
        self._ledger.note("error", text=record.getMessage())


async def worker(stop: asyncio.Event, *, database: str, ledger: str) -> None:
    """Run jobs until stopped."""
    book = Ledger(ledger)
    logging.getLogger("backlite_async").addHandler(Errors(book))
    client = Client(database, workers=6)

    @client.handler(Endless)
    async def endless(task: Endless, job: JobContext) -> None:
        book.note("start", job=job.id, fence=job.fence)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            book.note("cancelled", job=job.id)
            raise

    @client.handler(Stubborn)
    async def stubborn(task: Stubborn, job: JobContext) -> None:
        book.note("start", job=job.id, fence=job.fence)
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                book.note("cancelled", job=job.id)

    @client.handler(Threaded)
    def threaded(task: Threaded, job: JobContext) -> None:
        book.note("start", job=job.id, fence=job.fence)
        while not job.cancelled:
            time.sleep(0.001)
        book.note("cancelled", job=job.id)

    @client.handler(Brief)
    async def brief(task: Brief, job: JobContext) -> None:
        book.note("start", job=job.id, fence=job.fence)
        await asyncio.sleep(task.seconds)
        book.note("end", job=job.id, fence=job.fence)

    @client.handler(Stream)
    async def stream(task: Stream, job: JobContext) -> None:
        book.note("start", job=job.id, fence=job.fence)
        await asyncio.sleep(task.seconds)
        book.note("end", job=job.id, fence=job.fence)

    async with client:
        listen(client, book)
        book.note("up")
        await stop.wait()


def listen(client: Client, book: Ledger) -> None:
    """Pause, and resume, in this process alone when signals ask for it."""
    loop, tasks = asyncio.get_running_loop(), set()

    async def pause() -> None:
        await client.pause("flow", here=True)
        book.note("paused here")

    async def resume() -> None:
        await client.resume("flow", here=True)
        book.note("resumed here")

    def begin(order: signal.Signals) -> None:
        task = loop.create_task(pause() if order is signal.SIGUSR1 else resume())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, begin, number)


ROLES = {"worker": worker}
