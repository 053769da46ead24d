"""Results, progress, events, a dead letter and a retry: `python examples/observed.py`."""

import asyncio
import tempfile
from typing import ClassVar

from backlite_async import Client, Event, JobContext, QueueConfig, Retention, Task


class Alarm(Task):
    config: ClassVar[QueueConfig] = QueueConfig("alarms")
    job_id: str
    error: str


class Count(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "count", max_attempts=1, retention=Retention(payload="failed"), dead_letter=Alarm
    )
    text: str


folder = tempfile.TemporaryDirectory()
client = Client(f"{folder.name}/app.db")
alarms: asyncio.Queue[str] = asyncio.Queue()


@client.handler(Count)
async def count(task: Count, job: JobContext) -> int:
    job.log.info("counting", characters=len(task.text))  # logged, and kept with the job
    await job.progress(0.5, "half")
    if not task.text:
        raise ValueError("nothing to count")
    return len(task.text.split())


@client.handler(Alarm)
async def alarm(task: Alarm) -> None:
    alarms.put_nowait(task.error)


@client.on("failed", queue="count")
def failed(event: Event) -> None:
    print("failed:", event.error)


async def main() -> None:
    async with client:
        [good, bad] = await client.add(Count("to be or not to be"), Count("")).tags("demo").save()
        await client.wait(good)
        print("words:", await client.result(good, int))
        job = await client.wait(bad, timeout=10)
        print(f"{job.status}: {job.errors[0].type} in attempt {job.errors[0].attempt}, {job.lines[0].text!r}")
        print("alarm:", await alarms.get())
        print("tried again:", await client.jobs.retry(tag="demo", state="failed"))


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
