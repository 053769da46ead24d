"""Stores to test: opened for a test, closed after it whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from backlite_async.stores import MemoryStore, Store
from backlite_async.stores.sqlite.store import SQLiteStore

Opener = Callable[..., Awaitable[SQLiteStore]]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return the path of a file that does not exist yet."""
    return str(tmp_path / "app.db")


@pytest.fixture
async def open_store(path: str) -> AsyncIterator[Opener]:
    """Return a function that opens a SQLite store on the test's file, or on another."""
    stores: list[SQLiteStore] = []

    async def open_one(
        path: str = path, *, durability: str = "full", busy_timeout: float = 5.0, install: bool = True
    ) -> SQLiteStore:
        store = SQLiteStore(path, durability=durability, busy_timeout=busy_timeout)
        await store.open(install=install)
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        await store.close()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, open_store: Opener) -> AsyncIterator[Store]:
    """Return an empty, open store of each kind in turn."""
    if request.param == "sqlite":
        yield await open_store()
    else:
        memory = MemoryStore()
        await memory.open(install=True)
        yield memory
        await memory.close()
