"""Everything can be done on a phone, by touching."""

from __future__ import annotations

from typing import Any

from playwright.async_api import expect

from backlite_async import JobStatus

from .conftest import Open
from .serving import World

PHONE: dict[str, Any] = {"viewport": {"width": 375, "height": 700}, "is_mobile": True, "has_touch": True}


async def test_retrying(steered: World, opened: Open) -> None:
    """A failed job is chosen by its box, and retried."""
    await steered.client.pause("webhooks")
    page, watch = await opened(steered.base, **PHONE)
    await page.goto("/jobs?queue=webhooks&state=failed")
    box = page.locator("input[name=id][value=webhook-failed]")
    await box.tap()
    await expect(box).to_be_checked()
    await page.get_by_role("button", name="Retry", exact=True).tap()
    await expect(page.get_by_role("status").first).to_contain_text("retried")
    assert await steered.client.status("webhook-failed") is JobStatus.PENDING
    watch.check()


async def test_the_way_around(seen: World, opened: Open) -> None:
    """From page to page by the navigation, in which one sees where one is."""
    page, watch = await opened(seen.base, **PHONE)
    await page.goto("/")
    navigation = page.get_by_role("navigation", name="Pages")
    for name in ("Jobs", "Schedules", "Workflows", "Tasks", "Overview"):
        await navigation.get_by_role("link", name=name).tap()
        await expect(page.get_by_role("heading", level=1)).to_contain_text(name)
        await expect(navigation.locator("[aria-current]")).to_be_in_viewport(ratio=0.9)
        await expect(page.locator("#live i")).to_be_visible()
    watch.check()
