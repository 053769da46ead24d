"""Jobs that run later, fail, try again and tell: `python examples/scheduled_and_retried.py`."""

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from backlite_async import Backoff, Client, Discard, JobContext, QueueConfig, Retention, Retry, Snooze, Task


class Pay(Task):
    """Collect a payment from a bank that is often out of order."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "payments",
        max_attempts=4,
        backoff=Backoff(base=0.05, factor=2.0, jitter=0.1),  # seconds: 0.05, 0.1, 0.2, ...
        retention=Retention(duration=timedelta(hours=6), payload="failed"),
    )
    account: str


folder = tempfile.TemporaryDirectory()
client = Client(f"{folder.name}/app.db")
settled: asyncio.Queue[str] = asyncio.Queue()


@client.handler(Pay)
async def pay(task: Pay, job: JobContext) -> None:
    print(f"{task.account}: attempt {job.attempt} of {job.max_attempts}")
    if task.account == "shaky" and job.attempt == 1:
        raise ConnectionError("no answer")  # as any exception: once more, after the backoff
    if task.account == "shaky" and job.attempt == 2:
        raise Retry(after=0.1)  # the bank said when
    if task.account == "early" and datetime.now(UTC) < job.created_at + timedelta(seconds=0.2):
        raise Snooze(0.2)  # not an error, and not counted
    settled.put_nowait(task.account)
    if task.account == "closed":
        raise Discard("the account is closed")  # failed now: trying again cannot help


async def main() -> None:
    async with client:
        ids = await client.add(Pay("shaky"), Pay("early"), Pay("closed")).save()
        ids += await client.add(Pay("relative")).wait(timedelta(seconds=0.1)).save()
        ids += await client.add(Pay("absolute")).at(datetime.now(UTC) + timedelta(seconds=0.2)).save()
        print("statuses:", *[await client.status(job_id) for job_id in ids[-2:]])
        for _ in ids:
            await settled.get()

    async with client:  # as after a restart: what Retention keeps is there
        for job in [await client.get(job_id) for job_id in ids]:
            assert job is not None
            print(f"{job.status} in attempt {job.attempt}, payload {job.payload!r}, error {job.error!r}")


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
