"""A clean-up every night, by the clock on the wall: `python examples/nightly.py`."""

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from backlite_async import Client, JobContext, QueueConfig, Task


class CleanUp(Task):
    """Remove what nobody has asked for in a while."""

    config: ClassVar[QueueConfig] = QueueConfig("nightly", timeout=timedelta(minutes=30))
    older_than_days: int


folder = tempfile.TemporaryDirectory()
client = Client(f"{folder.name}/app.db")
files = {"new.txt": 1, "old.txt": 40, "older.txt": 400}  # and their ages in days
cleaned = asyncio.Event()

client.schedule(  # declared: made at the first start, changed at the start after it was changed here
    "clean-up",
    CleanUp(older_than_days=30),
    cron="30 2 * * *",
    tz="Europe/Berlin",
    missed="one",  # after downtime: once, however many nights were missed
    overlap=False,  # and never beside the last one
)


@client.handler(CleanUp)
async def clean_up(task: CleanUp, job: JobContext) -> None:
    old = [name for name, age in files.items() if age > task.older_than_days]
    for name in old:
        del files[name]
    print(f"removed {', '.join(old)}")
    cleaned.set()


async def main() -> None:
    async with client:
        for there in await client.schedules.list():
            print(f"{there.name}: {there.words}, {there.state}, {len(there.next_runs)} runs in sight")

        print("when the clocks are set:")
        spring = datetime(2027, 3, 27, 12, tzinfo=UTC)  # 02:30 does not exist the day after
        for run in client.schedules.preview(cron="30 2 * * *", tz="Europe/Berlin", after=spring, n=2):
            print(f"  {run}")

        await client.schedules.run_now("clean-up")  # not to wait for the night
        await cleaned.wait()
        await client.schedules.pause("clean-up")
        paused = await client.schedules.get("clean-up")
        print(f"now it is {paused.state if paused else 'gone'}; left: {', '.join(files)}")


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
