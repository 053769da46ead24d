"""An order, step by step, and what makes up for it if a step fails: `python examples/order_pipeline.py`."""

import asyncio
import tempfile
from typing import ClassVar

from backlite_async import Client, Discard, JobContext, QueueConfig, Task, chain


class Reserve(Task):
    config: ClassVar[QueueConfig] = QueueConfig("orders", max_attempts=3, backoff=0.1)
    order: int


class Charge(Reserve): ...


class Ship(Reserve): ...


class MakeUp(Reserve): ...


folder = tempfile.TemporaryDirectory()
client = Client(f"{folder.name}/shop.db")


@client.handler(Reserve)
async def reserve(task: Reserve) -> str:
    return f"shelf {task.order}"


@client.handler(Charge)
async def charge(task: Charge, job: JobContext) -> int:
    print(f"order {task.order}: charged for what is on {await job.previous(str)}")
    return 1999


@client.handler(Ship)
async def ship(task: Ship) -> None:
    if task.order == 404:
        raise Discard("no such address")  # for good, whatever attempts remain
    print(f"order {task.order}: shipped")


@client.handler(MakeUp)
async def make_up(task: MakeUp, job: JobContext) -> None:
    for name, result in (await job.results()).items():  # of the steps that have succeeded
        print(f"order {task.order}: gives back its {name}, {result}")


async def main() -> None:
    async with client:
        for n in (1, 404):
            goods, payment = chain(Reserve(n), name="goods"), chain(Charge(n), name="payment")
            order = chain(goods, payment, Ship(n), name=f"order {n}", if_failed=MakeUp(n))
            await client.add(order).save()
            print(f"{order.name} has {(await client.wait(order.id)).status}")


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
