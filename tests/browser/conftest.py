"""A browser for all tests, and worlds to look at. All of these tests run in one event loop."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    from .driving import Watch
    from .serving import World

NEEDED = ("playwright", "axe_playwright_python", "uvicorn", "starlette", "jinja2", "cronsim")


def missing() -> str | None:
    """Return why there can be no browser tests here."""
    for name in NEEDED:
        if find_spec(name) is None:
            return f"{name} is not installed: see the groups browser and extras in pyproject.toml"
    from .driving import chromium

    if chromium() is None:
        return "no Chromium: apt-get install chromium, or say where one is in BACKLITE_CHROMIUM"
    return None


class Without(pytest.Module):
    """Stands for a module of tests that cannot be run."""

    def collect(self) -> Any:
        reason = missing()
        assert reason is not None
        if os.environ.get("BACKLITE_BROWSER"):
            raise self.CollectError(reason)
        pytest.skip(reason, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip the modules here, which import what may not be installed, with the reason."""
    if missing() is None:
        return None
    without: pytest.Module = Without.from_parent(parent, path=module_path)
    return without


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of this folder in one event loop, that of the browser."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> None:
    """Let threads outlive a test here: those of worlds that several tests look at."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a day of a shop's jobs, for copies of it."""
    from . import seed

    database = tmp_path_factory.mktemp("past") / "shop.db"
    logger = logging.getLogger("backlite_async")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # or every failure of a test would begin with the day's
    await seed.past(database, jobs=300)
    logger.setLevel(level)
    return database


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def seen(past: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A shop in the middle of its work, which tests only look at."""
    from . import serving

    database = serving.copied(past, tmp_path_factory.mktemp("seen"))
    async with serving.world(database, page_size=4) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def steered(past: Path, tmp_path: Path) -> AsyncIterator[World]:
    """A shop with its past alone, which a test may change."""
    from . import serving

    async with serving.world(serving.copied(past, tmp_path), present=False) as made:
        yield made


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    from . import driving

    async with driving.browser() as started:
        yield started


Open = Callable[..., Awaitable["tuple[Page, Watch]"]]
"""Makes a page, in a context of its own with these options, and a watch over it."""


@pytest_asyncio.fixture(loop_scope="session")
async def opened(browser: Browser) -> AsyncIterator[Open]:
    """Makes pages, each in a context of its own; returns the page and its watch."""
    from playwright.async_api import expect

    from . import seed
    from .driving import Watch
    from .serving import LIMIT

    expect.set_options(timeout=1000 * LIMIT)

    async with AsyncExitStack() as stack:

        async def make(
            base: str, *, at: datetime = seed.NOW, paused: bool = True, **options: Any
        ) -> tuple[Page, Watch]:
            context = await browser.new_context(base_url=base, reduced_motion="reduce", **options)
            stack.push_async_callback(context.close)
            context.set_default_timeout(1000 * LIMIT)
            await context.clock.install(time=at - timedelta(seconds=1))
            if paused:  # timers run when a test says so, by clock.run_for()
                await context.clock.pause_at(at)
            watch = Watch(context, base)
            return await context.new_page(), watch

        yield make
