"""What holds for every page, in light and dark, on a phone and on a desk."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from .conftest import Open
from .driving import violations
from .pages import PAGES, STATUS, path_of
from .serving import World

WIDTHS = (375, 1280)


async def test_a_page(seen: World, opened: Open, name: str) -> None:
    """No violation, no console message, no request that fails or goes elsewhere, nothing wider than it."""
    page, watch = await opened(seen.base, paused=False)  # axe has timers
    answer = await page.goto(path_of(name, seen.places))
    status = STATUS.get(name, 200)
    assert answer is not None
    assert answer.status == status
    problems: list[str] = []
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 800})
        assert await overflow(page) == "", f"at {width} pixels"
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            problems += [f"{scheme}, {width}: {line}" for line in await violations(page)]
    assert not problems, "\n".join(problems)
    watch.check(but=[f"status of {status}"] if status != 200 else [])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each page."""
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", PAGES)


WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const clipped = one => one && (getComputedStyle(one).overflowX !== "visible" || clipped(one.parentElement));
  return [...document.querySelectorAll("body *")]
    .filter(one => one.getBoundingClientRect().right > width + 1 && !clipped(one.parentElement))
    .map(one => one.outerHTML.slice(0, 120));
}"""


async def overflow(page: Page) -> str:
    """Return what makes a page wider than the window."""
    found: list[str] = await page.evaluate(WIDE)
    return "\n".join(found)
