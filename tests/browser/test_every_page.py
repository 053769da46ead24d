"""What holds for every page, in light and dark, on a phone and on a desk."""

from __future__ import annotations

import pytest

from .conftest import Open
from .driving import check
from .pages import PAGES, STATUS, path_of
from .serving import World


async def test_a_page(seen: World, opened: Open, name: str) -> None:
    """No violation, no console message, no request that fails or goes elsewhere, nothing wider than it."""
    page, watch = await opened(seen.base, paused=False)  # axe has timers
    answer = await page.goto(path_of(name, seen.places))
    status = STATUS.get(name, 200)
    assert answer is not None
    assert answer.status == status
    await check(page)
    watch.check(but=[f"status of {status}"] if status != 200 else [])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each page."""
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", PAGES)
