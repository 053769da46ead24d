"""A process with a client and a clock that can be set: `t15_worker.py HOW OFFSET DATABASE LEDGER WORKERS`.

HOW is `clock`: the client gets a clock of its own, whose offset lies in the mapped file OFFSET; or
`system`: the client uses the computer's clock, which libfaketime may set. Commands come as lines of
JSON, each is answered by one.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import mmap
import os
import resource
import struct
import sys
import time
from datetime import UTC, datetime
from typing import Any, ClassVar

import structlog

from backlite_async import Client, Clock, JobContext, QueueConfig, Retention, SystemClock, Task

LEASE = 1.0
RETRY = 1.5


class Work(Task):
    """Ends at once, fails at its first attempt, or holds until it is released."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "work", max_attempts=2, backoff=RETRY, timeout=30.0, retention=Retention()
    )
    how: str = "quick"


class OffsetClock:
    """The computer's clock and an offset, which another process sets. Counts how often it is asked."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._offset = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
        self.asked = 0

    def now(self) -> int:
        self.asked += 1
        offset: float = struct.unpack("d", self._offset[:8])[0]
        return time.time_ns() // 1_000_000 + round(offset * 1000)

    def monotonic(self) -> float:
        return time.monotonic()


class Worker:
    """One client, what it is told, and what it tells."""

    def __init__(self, clock: Clock, database: str, ledger: str, workers: int) -> None:
        self.clock = clock
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._released: dict[str, asyncio.Event] = {}
        structlog.configure(processors=[self.capture])
        self.client = Client(database, workers=workers, lease=LEASE, stop_timeout=0.2, clock=clock)
        self.client.register(Work, self.work)

    def note(self, what: str, **fields: Any) -> None:
        line = {
            "what": what,
            "pid": os.getpid(),
            "at": time.monotonic(),
            "wall": self.clock.now() / 1000,
            **fields,
        }
        os.write(self._ledger, json.dumps(line).encode() + b"\n")

    def capture(self, _logger: object, _method: str, event: Any) -> Any:
        """Keep what the library logs: a processor of structlog."""
        if "job_id" in event and event["event"] != "job.added":
            self.note("log", event=event["event"], job=event["job_id"])
        raise structlog.DropEvent

    def released(self, how: str) -> asyncio.Event:
        return self._released.setdefault(how, asyncio.Event())

    async def work(self, task: Work, job: JobContext) -> None:
        self.note("start", job=job.id, fence=job.fence, attempt=job.attempt, how=task.how)
        if task.how.startswith("hold"):
            await self.released(task.how).wait()
        self.note("end", job=job.id, fence=job.fence, attempt=job.attempt)
        if task.how == "fail once" and job.attempt == 1:
            raise ValueError("fails once")

    # -- commands ----------------------------------------------------------------------------------

    async def add(self, how: str, wait: float | None = None, at: float | None = None) -> Any:
        """Add a job: for now, after a wait, or at so many seconds of the wall clock from now."""
        operation = self.client.add(Work(how))
        if wait is not None:
            operation.wait(wait)
        if at is not None:
            operation.at(datetime.fromtimestamp(self.clock.now() / 1000 + at, UTC))
        before = {"job": "", "at": time.monotonic(), "wall": self.clock.now() / 1000}
        [before["job"]] = await operation.save()
        self.note("ack", job=before["job"], how=how)
        return before

    async def release(self, how: str) -> None:
        self.released(how).set()

    async def status(self, job: str) -> str:
        return str(await self.client.status(job))

    async def usage(self) -> dict[str, float]:
        """Return the seconds of processor used so far, and how often the clock was asked."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        asked = self.clock.asked if isinstance(self.clock, OffsetClock) else 0
        return {"cpu": used.ru_utime + used.ru_stime, "asked": asked, "at": time.monotonic()}

    async def serve(self) -> None:
        """Do what comes in, until the input ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with self.client:
            print(json.dumps("ready"), flush=True)
            while line := await reader.readline():
                command: dict[str, Any] = json.loads(line)
                answer = await getattr(self, command.pop("do"))(**command)
                print(json.dumps(answer), flush=True)


async def main(how: str, offset: str, database: str, ledger: str, workers: str) -> None:
    clock = OffsetClock(offset) if how == "clock" else SystemClock()
    await Worker(clock, database, ledger, int(workers)).serve()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(240.0, exit=True)
    asyncio.run(main(*sys.argv[1:]))
