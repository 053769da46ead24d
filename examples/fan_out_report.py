"""Many steps side by side, and one that puts their results together: `python examples/fan_out_report.py`."""

import asyncio
import tempfile
from typing import ClassVar

from backlite_async import Client, JobContext, QueueConfig, Retention, Task, group

SALES = {"north": [120, 80], "east": [45], "south": [], "west": [300, 15, 5]}


class Sum(Task):
    config: ClassVar[QueueConfig] = QueueConfig("regions", max_attempts=2, backoff=0.1)
    region: str


class Report(Task):
    config: ClassVar[QueueConfig] = QueueConfig("reports", retention=Retention())
    regions: list[str]


folder = tempfile.TemporaryDirectory()
client = Client(f"{folder.name}/reports.db")


@client.handler(Sum)
async def add_up(task: Sum, job: JobContext) -> int:
    if task.region == "east" and job.attempt == 1:
        raise ConnectionError("nobody answers")  # the report waits for the next attempt
    if task.region == "south":
        raise ValueError("nothing was sold")  # for good: its result is None
    return sum(SALES[task.region])


@client.handler(Report)
async def report(task: Report, job: JobContext) -> dict[str, int]:
    sums = await job.previous(int | None, many=True)  # in the order of the group, also of one
    return {region: found or 0 for region, found in zip(task.regions, sums, strict=True)}


async def main() -> None:
    regions = list(SALES)
    sums = group(*[Sum(region) for region in regions], if_failed="continue")
    sales = sums.then(Report(regions))
    print(sales.mermaid(), end="")
    async with client:
        await client.add(sales).priority(5).save()
        run = await client.wait(sales.id, timeout=30)
        print(f"{run.status}: {run.progress:.0%} of {run.size} steps")
        for step in run.steps:
            print(f"{step.task}, {step.status} in attempt {step.attempt}, {step.error}")
        print(await client.result(sales.steps[-1].id, dict[str, int]))


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
