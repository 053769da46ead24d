"""Declare a task, say who handles it, add jobs: `python examples/quickstart.py`."""

import asyncio
import tempfile
from datetime import timedelta
from typing import ClassVar

from backlite_async import Client, JobContext, QueueConfig, Task


class SendEmail(Task):
    """Send one e-mail."""

    config: ClassVar[QueueConfig] = QueueConfig("send-email", max_attempts=5, timeout=10.0)

    to: str
    subject: str


folder = tempfile.TemporaryDirectory()  # an application gives the path of its own database here
client = Client(f"{folder.name}/app.db", workers=10)
last_one_sent = asyncio.Event()


@client.handler(SendEmail)
async def send_email(task: SendEmail, job: JobContext) -> None:
    print(f"to {task.to}: {task.subject} (attempt {job.attempt} of {job.max_attempts})")
    if task.subject == "Last news":
        last_one_sent.set()


async def main() -> None:
    async with client:  # opens the database, runs jobs in the background, stops gracefully
        ids = await client.add(SendEmail("ann@example.com", "Hi"), SendEmail("bob@example.com", "Hi")).save()
        print(f"stored {len(ids)} jobs")

        later = client.add(SendEmail("ann@example.com", "Last news")).wait(timedelta(seconds=0.1))
        [job_id] = await later.save()
        print(f"the last one is {await client.status(job_id)}")

        await last_one_sent.wait()
    print("stopped: every handler that was running has finished")


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
