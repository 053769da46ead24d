"""Fixtures of the page's tests. What needs the page's dependencies is imported when it is used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from backlite_async import Client

if TYPE_CHECKING:
    from .support import Browser, World


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    """A started client on a database of each kind, with the page on it and a clock that stands still."""
    from .support import world_of

    async with world_of(database) as world:
        yield world


@pytest.fixture
def client(world: World) -> Client:
    """The client of the world."""
    return world.client


@pytest.fixture
def page(world: World) -> Browser:
    """A browser on this machine that looks at the page of the world: an httpx client."""
    return world.page
