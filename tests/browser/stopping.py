"""An application with the page, for uvicorn in a process of its own: `uvicorn --app-dir ... stopping:app`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import anyio
from starlette.applications import Starlette
from starlette.routing import Mount

from backlite_async import Client, QueueConfig, Task
from backlite_async.web import Dashboard

client = Client(os.environ["BACKLITE_DB"])


class Endless(Task):
    """Run until the process stops."""

    config: ClassVar[QueueConfig] = QueueConfig("endless")


@client.handler(Endless)
async def endless(task: Endless) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        print("cut off", flush=True)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await client.start()
    await client.add(Endless()).id("endless").save()
    yield
    await client.stop(0.2)
    print("stopped", flush=True)


app = Starlette(routes=[Mount("/backlite", Dashboard(client))], lifespan=lifespan)
