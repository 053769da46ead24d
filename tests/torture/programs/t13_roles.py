"""The role of one of many processes that all add to, and claim from, one file for the same time."""

from __future__ import annotations

import asyncio
import json
import logging
import mmap
import os
import struct
import time
from typing import Any, ClassVar

from backlite_async import BackliteError, Client, JobContext, QueueConfig, Retention, Task

BACKLOG = 400
"""Jobs that may wait before nobody adds more: enough that nobody ever runs dry."""

ADDERS = 4
"""Coroutines that add, in each process."""


class Bit(Task):
    """A small job."""

    config: ClassVar[QueueConfig] = QueueConfig("share", retention=Retention())
    adder: int


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


class Board:
    """Shared memory: when the window begins and ends, and what each process has added and run so far."""

    def __init__(self, path: str, place: int) -> None:
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._offset = 16 + 16 * place
        self.added = self.ran = 0

    def window(self) -> tuple[float, float]:
        """Return when the window begins and ends: both 0 before, infinity as long as nobody knows."""
        begin, end = struct.unpack_from("dd", self._memory, 0)
        return begin, end

    def show(self) -> None:
        """Let the others see our counts."""
        struct.pack_into("QQ", self._memory, self._offset, self.added, self.ran)

    def backlog(self) -> int:
        """Return about how many jobs wait or run."""
        pairs = struct.iter_unpack("QQ", self._memory[16:])
        return sum(added - ran for added, ran in pairs)


class Process:
    """One process: it adds as long as the backlog is small, runs what it can get, and counts both."""

    def __init__(self, client: Client, ledger: Ledger, board: Board, place: int) -> None:
        self._client = client
        self._ledger = ledger
        self._board = board
        self._place = place
        self.share = {"added": 0, "ran": 0}
        self.waits: list[float] = []

    def count(self, what: str) -> None:
        """Count what happens inside the window."""
        begin, end = self._board.window()
        if begin <= time.monotonic() < end:
            self.share[what] += 1

    async def run(self, task: Bit, job: JobContext) -> None:
        """Handle a job."""
        self._ledger.note("start", job=job.id, fence=job.fence)
        self._board.ran += 1
        self._board.show()
        self.count("ran")

    async def add(self) -> None:
        """Add one job at a time until the window ends."""
        while (now := time.monotonic()) < (window := self._board.window())[1]:
            if now < window[0] or self._board.backlog() >= BACKLOG:
                await asyncio.sleep(0.001)
                continue
            try:
                [job] = await self._client.add(Bit(self._place)).save()
                self.waits.append(time.monotonic() - now)
                if len(self.waits) % 20 == 0:
                    await self._client.status(job)
            except BackliteError as error:
                self._ledger.note("surfaced", error=f"{type(error).__name__}: {error}")
                continue
            self._board.added += 1
            self._board.show()
            self.count("added")
            self._ledger.note("ack", job=job)


async def process(stop: asyncio.Event, *, database: str, ledger: str, board: str, place: int) -> None:
    """Add and run until the window is over; then only run, until stopped."""
    book, shown = Ledger(ledger), Board(board, place)
    logging.getLogger("backlite_async").addHandler(Errors(book))
    client = Client(database)
    mine = Process(client, book, shown, place)
    client.register(Bit, mine.run)
    async with client:
        book.note("up")
        while shown.window()[1] == 0:
            await asyncio.sleep(0.002)
        await asyncio.gather(*(mine.add() for _ in range(ADDERS)))
        book.note("share", **mine.share, waits=[round(wait * 1e6) for wait in mine.waits])
        await stop.wait()


ROLES = {"process": process}
