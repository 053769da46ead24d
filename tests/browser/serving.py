"""The page on a real port, in the event loop of the test."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import uvicorn

from backlite_async import Client
from backlite_async.web import Dashboard

from . import seed
from .shop import Shop

__all__ = ["App", "World", "serve", "world"]

App = Callable[..., Awaitable[None]]

LIMIT = 20.0
"""Seconds after which what should have happened has not."""


class _Server(uvicorn.Server):
    """One that leaves signals alone, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def serve(app: App) -> AsyncIterator[str]:
    """Serve an application on a free port of this computer alone; give its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none")
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listening]))  # no task group: fixtures end in another task
    try:
        with anyio.fail_after(LIMIT):
            await server.listens.wait()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await serving


@dataclass
class World:
    """A shop with its page."""

    client: Client
    shop: Shop
    base: str
    places: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def world(database: Path, *, present: bool = True, **options: Any) -> AsyncIterator[World]:
    """Serve the page of a shop with this past; `present`: with something going on; options: the page's."""
    shop = Shop(random.Random(8))
    client = seed.shop_client(database, shop)
    async with client, serve(Dashboard(client, **options)) as base:
        made = World(client, shop, base)
        if present:
            made.places = await seed.present(client, shop)
        try:
            yield made
        finally:
            for gate in shop.held.values():
                gate.set()


def copied(database: Path, folder: Path) -> Path:
    """Return a copy of a database that nobody has open."""
    return Path(shutil.copy(database, folder / "shop.db"))
