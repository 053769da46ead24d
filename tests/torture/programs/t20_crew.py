"""A process that adds, works and copies its database: `t20_crew.py DATABASE LEDGER ADDERS WORKERS`.

Commands come as lines of JSON, each is answered by one.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import sys
import time
from typing import Any, ClassVar

import structlog

from backlite_async import BackliteError, Client, JobContext, QueueConfig, Retention, Task

LIMIT = 60.0
BACKLOG = 300
"""Jobs of this process that may wait before it stops adding for a while."""


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())
    padding: str = "x" * 200


class Crew:
    """A client with adders and workers, and what is known of its jobs."""

    def __init__(self, database: str, ledger: str, workers: int) -> None:
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.acknowledged: set[str] = set()
        self.ended: set[str] = set()
        self.adding = True
        self.slowest_add = self.longest_pause = 0.0
        structlog.configure(processors=[self.capture])
        self.client = Client(database, workers=workers)
        self.client.register(Work, self.work)

    def note(self, what: str, **fields: Any) -> None:
        line = {"what": what, "pid": os.getpid(), "at": time.monotonic(), **fields}
        os.write(self._ledger, json.dumps(line).encode() + b"\n")

    def capture(self, _logger: object, _method: str, event: Any) -> Any:
        """Keep what the library logs: a processor of structlog."""
        if event["event"] in ("job.succeeded", "job.failed"):
            self.ended.add(event["job_id"])
        raise structlog.DropEvent

    async def work(self, task: Work, job: JobContext) -> None:
        self.note("start", job=job.id, fence=job.fence)
        await asyncio.sleep(0.005)

    async def add(self) -> None:
        """Add, a few at a time, as long as that is wanted."""
        while self.adding:
            if len(self.acknowledged - self.ended) > BACKLOG:
                await asyncio.sleep(0.01)
                continue
            began = time.monotonic()
            ids = await self.client.add(*[Work() for _ in range(5)]).save()
            self.slowest_add = max(self.slowest_add, time.monotonic() - began)
            self.acknowledged.update(ids)
            for job_id in ids:
                self.note("ack", job=job_id)
            await asyncio.sleep(0.005)

    async def tick(self) -> None:
        """Measure how long the event loop pauses."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            self.longest_pause = max(self.longest_pause, time.monotonic() - before - 0.001)

    # -- commands ----------------------------------------------------------------------------------

    async def backup(self, path: str, cancel: float | None = None) -> dict[str, Any]:
        """Copy the database; with `cancel`, only for so many seconds."""
        self.slowest_add = self.longest_pause = 0.0
        began, error = time.monotonic(), ""
        self.note("backup", path=path)
        try:
            async with asyncio.timeout(LIMIT if cancel is None else cancel):
                await self.client.backup(path)
            how = "done"
        except TimeoutError:
            how = "hung" if cancel is None else "cancelled"
        except BackliteError as refused:
            how, error = "refused", f"{type(refused).__name__}: {refused}"
        except Exception as broken:  # whatever else comes is a finding
            how, error = "broke", f"{type(broken).__name__}: {broken}"
        return {
            "how": how,
            "error": error,
            "began": began,
            "seconds": time.monotonic() - began,
            "pause": self.longest_pause,
            "add": self.slowest_add,
        }

    async def twins(self, path: str) -> list[dict[str, Any]]:
        """Copy to the same path twice at once."""
        return list(await asyncio.gather(self.backup(path), self.backup(path)))

    async def watch(self, seconds: float) -> float:
        """Return the longest pause of the event loop while nothing is copied."""
        self.longest_pause = 0.0
        await asyncio.sleep(seconds)
        return self.longest_pause

    async def drain(self) -> list[str]:
        """Add no more, and wait until all jobs added here have ended; return those that have not."""
        self.adding = False
        deadline = time.monotonic() + LIMIT
        left = self.acknowledged - self.ended
        while left and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            left = {job_id for job_id in left if str(await self.client.status(job_id)) != "succeeded"}
        return sorted(left)

    async def serve(self, adders: int) -> None:
        """Do what comes in, until the input ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with self.client, asyncio.TaskGroup() as group:
            ticking = group.create_task(self.tick())
            for _ in range(adders):
                group.create_task(self.add())
            print(json.dumps("ready"), flush=True)
            while line := await reader.readline():
                command: dict[str, Any] = json.loads(line)
                answer = await getattr(self, command.pop("do"))(**command)
                print(json.dumps(answer), flush=True)
            self.adding = False
            ticking.cancel()


if __name__ == "__main__":
    faulthandler.dump_traceback_later(300.0, exit=True)
    asyncio.run(Crew(sys.argv[1], sys.argv[2], int(sys.argv[4])).serve(int(sys.argv[3])))
