"""Jobs that are unique, limited by key, paused and cancelled: `python examples/controlled.py`."""

import asyncio
import tempfile
from typing import ClassVar

import anyio

from backlite_async import Client, JobContext, QueueConfig, Retention, Task


class Sync(Task):
    """Fetch a customer's new orders: of each customer one at a time, or they would disturb each other."""

    config: ClassVar[QueueConfig] = QueueConfig("sync", concurrency_per_key=1, retention=Retention())
    customer: str
    page: int = 1


folder = tempfile.TemporaryDirectory()
client = Client(f"{folder.name}/app.db")
began: asyncio.Queue[str] = asyncio.Queue()


@client.handler(Sync)
async def sync(task: Sync, job: JobContext) -> None:
    began.put_nowait(f"{task.customer}, page {task.page}, for {job.meta.get('reason')}")
    if task.page == 404:
        try:
            await anyio.sleep_forever()
        finally:
            print("cancelled: cleaning up")


async def main() -> None:
    async with client:
        await client.pause("sync")  # stored, so nothing of it starts, in any process
        for page in (1, 2):
            await client.add(Sync("ann", page)).key("ann").meta({"reason": "import"}).save()
        added = await client.add(Sync("bob")).key("bob").unique().meta({"reason": "click"}).save()
        again = await client.add(Sync("bob")).key("bob").unique().save()  # an impatient user
        print("bob clicked twice:", "one job" if again.existing == (added[0],) else "two jobs")
        await client.add(Sync("eve")).key("eve").priority(5).meta({"reason": "support"}).save()
        [queue] = await client.queues.list()
        print(f"{queue.name}: paused {queue.paused}, running {queue.running}")
        await client.resume("sync")
        for _ in range(4):
            print(await began.get())  # eve first; ann's second page after her first, so after bob

        [endless] = await client.add(Sync("zoe", 404)).id("zoe-404").save()
        await began.get()
        print("asked to end:", await client.cancel(endless))
        await client.pause("sync", wait=True)  # until nothing of it runs any more
        print(endless, "is", await client.status(endless))


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
