"""A client that has nothing to do: it says so on standard output, and stays until its input ends."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import ClassVar

from backlite_async import Client, JobStatus, QueueConfig, Task


class Tick(Task):
    """The only job there ever is."""

    config: ClassVar[QueueConfig] = QueueConfig("tick")


async def main(database: str, kind: str) -> None:
    """Be idle; `worked`: after having run a job; `adder`: without workers."""
    client = Client(database, workers=0 if kind == "adder" else 10)
    ran, over = asyncio.Event(), asyncio.Event()

    async def tick(task: Tick) -> None:
        ran.set()

    client.register(Tick, tick)
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(0)
        over.set()

    loop.add_reader(0, end)
    async with client:
        if kind == "worked":
            [job_id] = await client.add(Tick()).save()
            await ran.wait()
            while await client.status(job_id) is not JobStatus.NOT_FOUND:
                await asyncio.sleep(0.01)
        os.write(1, b"idle\n")
        await over.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
