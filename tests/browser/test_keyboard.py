"""Everything can be done with the keyboard, and one sees where one is."""

from __future__ import annotations

from playwright.async_api import Page, expect

from backlite_async import JobStatus

from .conftest import Open
from .serving import World

MOST = 80
"""Presses of the tab key until something should have been reached."""


async def test_retrying(steered: World, opened: Open) -> None:
    """A failed job is chosen and retried with Tab, Space and Enter; the focus is visible at each step."""
    await steered.client.pause("webhooks")
    page, watch = await opened(steered.base)
    await page.goto("/jobs?queue=webhooks&state=failed")
    await tab_to(page, "input[name=id][value=webhook-failed]")
    await page.keyboard.press("Space")
    await tab_to(page, "button[name=action][value=retry][data-needs]", back=True)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").first).to_contain_text("retried")
    assert await steered.client.status("webhook-failed") is JobStatus.PENDING
    watch.check()


async def test_opening_a_job_and_retrying_it(steered: World, opened: Open) -> None:
    """From the list into a job by its link, and there to its button."""
    await steered.client.pause("webhooks")
    page, watch = await opened(steered.base)
    await page.goto("/jobs?queue=webhooks&state=failed")
    await tab_to(page, "a.row[href='/jobs/webhook-failed']")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/jobs/webhook-failed")
    await tab_to(page, "main button:has-text('Retry')")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").first).to_contain_text("retried")
    assert await steered.client.status("webhook-failed") is JobStatus.PENDING
    watch.check()


async def test_skipping_to_the_content(seen: World, opened: Open) -> None:
    """The first press of Tab shows a link over the navigation to what the page is about."""
    page, watch = await opened(seen.base)
    await page.goto("/jobs")
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    watch.check()


async def test_keys_of_lists(seen: World, opened: Open) -> None:
    """The search by "/", from row to row by "j" and "k"; in a field they are letters."""
    page, watch = await opened(seen.base)
    await page.goto("/jobs")
    rows = page.locator("tbody tr a.row")
    for key, number in (("j", 0), ("j", 1), ("k", 0)):
        await page.keyboard.press(key)
        await expect(rows.nth(number)).to_be_focused()
    await page.keyboard.press("/")
    search = page.locator("input[type=search]")
    await expect(search).to_be_focused()
    await page.keyboard.type("jk/")
    await expect(search).to_have_value("jk/")
    watch.check()


FOCUSED = """() => {
  const one = document.activeElement;
  const style = getComputedStyle(one);
  const marked = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return one === document.body || marked ? "" : one.outerHTML.slice(0, 200);
}"""
"""What has the focus, if that cannot be seen."""


async def tab_to(page: Page, selector: str, *, back: bool = False) -> None:
    """Press Tab until something has the focus, and see that whatever has it is marked."""
    wanted = page.locator(selector).first
    for _ in range(MOST):
        await page.keyboard.press("Shift+Tab" if back else "Tab")
        assert await page.evaluate(FOCUSED) == ""
        if await wanted.evaluate("one => one === document.activeElement"):
            return
    raise AssertionError(f"{selector} cannot be reached by {MOST} presses of Tab")
