"""Runs jobs that end only when told so, and can be told to block or to freeze its whole process."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, ClassVar

from backlite_async import Client, Discard, JobContext, QueueConfig, Retention, Retry, Snooze, Task
from tests.torture.children import Wire

AGAIN = 0.4
"""Seconds until a job that did not succeed runs again."""


class Held(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "held", max_attempts=1_000, max_crashes=1_000, backoff=AGAIN, retention=Retention()
    )


class Blocking(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "blocking", max_attempts=1, max_crashes=1_000, retention=Retention()
    )
    seconds: float


class Threaded(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "threaded", max_attempts=1, max_crashes=1_000, retention=Retention()
    )
    seconds: float


wire = Wire(int(sys.argv[1]))
client = Client(sys.argv[2], workers=int(sys.argv[3]), lease=float(sys.argv[4]))
gate = asyncio.Event()
manner = "return"


def act() -> None:
    """End an attempt in the manner that this process was told."""
    if manner == "fail":
        raise ValueError("as told")
    if manner == "retry":
        raise Retry(after=AGAIN)
    if manner == "snooze":
        raise Snooze(AGAIN)
    if manner == "discard":
        raise Discard("as told")


@client.handler(Held)
async def held(task: Held, job: JobContext) -> None:
    wire.note("start", job=job.id, fence=job.fence)
    await gate.wait()
    wire.note("end", job=job.id, fence=job.fence)
    act()


@client.handler(Blocking)
async def blocking(task: Blocking, job: JobContext) -> None:
    wire.note("start", job=job.id, fence=job.fence)
    time.sleep(task.seconds)  # noqa: ASYNC251 - what a handler must not do
    wire.note("end", job=job.id, fence=job.fence)


@client.handler(Threaded)
def threaded(task: Threaded, job: JobContext) -> None:
    wire.note("start", job=job.id, fence=job.fence)
    time.sleep(task.seconds)
    wire.note("end", job=job.id, fence=job.fence)


def freeze(seconds: float) -> None:
    """Hold the interpreter's lock in one long call, so that no thread of this process runs."""
    began = time.monotonic()
    sum(range(1_000_000))
    count = int(1_000_000 * seconds / (time.monotonic() - began))
    wire.note("freezing")
    sum(range(count))
    wire.note("thawed", seconds=time.monotonic() - began)


async def obey(command: dict[str, Any]) -> None:
    global manner  # noqa: PLW0603 - this process's one manner
    if "manner" in command:
        manner = command["manner"]
    if "gate" in command:
        gate.set() if command["gate"] else gate.clear()
    if "freeze" in command:
        freeze(command["freeze"])
    if "add" in command:
        tasks: list[Task] = [Held() for _ in range(command["add"])]
        for kind, number in ((Blocking, "block"), (Threaded, "thread")):
            tasks += [kind(command["seconds"]) for _ in range(command.get(number, 0))]
        for job in await client.add(*tasks).save():
            wire.note("ack", job=job)
    if "name" in command:
        wire.note("done", name=command["name"])


async def main() -> None:
    wire.tap()
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with client:
        wire.note("ready")
        while line := await commands.readline():
            await obey(json.loads(line))


asyncio.run(main())
