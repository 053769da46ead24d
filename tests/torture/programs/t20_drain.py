"""Runs what is left to do in a copy of a database, `t20_drain.py COPY`; prints how that went, as JSON."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import sqlite3
import sys
import time
from collections import Counter
from typing import ClassVar

from backlite_async import Client, JobContext, QueueConfig, Retention, Task

LIMIT = 60.0


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())
    padding: str = ""


def left(path: str) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM backlite_jobs").fetchone()[0])
    finally:
        connection.close()


async def main(path: str) -> None:
    """Run all jobs there are."""
    runs: Counter[str] = Counter()
    client = Client(path, workers=50)

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        runs[job.id] += 1

    began = time.monotonic()
    before = left(path)
    async with client:
        while left(path) and time.monotonic() - began < LIMIT:
            await asyncio.sleep(0.02)
    answer = {"before": before, "left": left(path), "twice": sum(count > 1 for count in runs.values())}
    print(json.dumps({**answer, "ran": len(runs), "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    faulthandler.dump_traceback_later(120.0, exit=True)
    asyncio.run(main(sys.argv[1]))
