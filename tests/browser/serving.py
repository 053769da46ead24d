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

__all__ = ["Answer", "App", "Served", "World", "serve", "world"]

App = Callable[..., Awaitable[None]]

LIMIT = 20.0
"""Seconds after which what should have happened has not."""


@dataclass(frozen=True)
class Answer:
    """That a request was answered."""

    method: str
    path: str
    status: int


@dataclass
class Served:
    """An application on a port: where, and what it has answered."""

    base: str
    answers: list[Answer] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def watched(self, app: App) -> App:
        """Wrap an application, to note what it answers."""

        async def watching(scope: Any, receive: Any, send: Any) -> None:
            async def noting(message: Any) -> None:
                await send(message)
                if message["type"] == "http.response.start":
                    self.answers.append(Answer(scope["method"], scope["path"], message["status"]))
                    self._changed.set()

            await app(scope, receive, noting)

        return watching

    async def until(self, wanted: Callable[[Answer], bool], *, count: int = 1) -> None:
        """Wait until there were so many answers of a kind."""
        with anyio.fail_after(LIMIT):
            while sum(map(wanted, self.answers)) < count:
                self._changed.clear()
                await self._changed.wait()


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
async def serve(app: App) -> AsyncIterator[Served]:
    """Serve an application on a free port of this computer alone."""
    listening = socket.create_server(("127.0.0.1", 0))
    served = Served(f"http://127.0.0.1:{listening.getsockname()[1]}")
    config = uvicorn.Config(served.watched(app), log_level="warning", lifespan="off", ws="none")
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listening]))  # no task group: fixtures end in another task
    try:
        with anyio.fail_after(LIMIT):
            await server.listens.wait()
        yield served
    finally:
        server.should_exit = server.force_exit = True
        await serving


@dataclass
class World:
    """A shop with its page."""

    client: Client
    shop: Shop
    served: Served
    places: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """Where the page is."""
        return self.served.base


@asynccontextmanager
async def world(database: Path, *, present: bool = True, **options: Any) -> AsyncIterator[World]:
    """Serve the page of a shop with this past; `present`: with something going on; options: the page's."""
    shop = Shop(random.Random(8))
    client = seed.shop_client(database, shop)
    async with client, serve(Dashboard(client, **options)) as served:
        made = World(client, shop, served)
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
