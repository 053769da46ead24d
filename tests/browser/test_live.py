"""The page follows what happens while somebody looks, and asks for no more than it must."""

from __future__ import annotations

from playwright.async_api import Page, expect

from .conftest import Open
from .driving import passing, poll
from .serving import World
from .shop import BuildReport, CallWebhook, ResizeImage

QUIET = ("/", "/jobs", "/jobs/webhook-failed", "/queues", "/queues/emails", "/schedules", "/workflows")
"""Pages on which nothing changes while nothing happens."""

COUNT_CHANGES = """() => {
  window.touched = 0;
  const count = changes => window.touched += changes.filter(one => !one.target.closest("time, #live")).length;
  new MutationObserver(count).observe(document.body, {subtree: true, childList: true});
}"""

SHOW = """seen => {
  const state = seen ? "visible" : "hidden";
  Object.defineProperty(document, "hidden", {value: !seen, configurable: true});
  Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


async def test_a_job_that_ends_is_shown_without_reloading(steered: World, opened: Open) -> None:
    """Its badge changes, and the document is still the same one."""
    gate = steered.shop.hold("followed")
    await steered.client.add(BuildReport("May")).id("followed").save()
    page, watch = await opened(steered.base)
    await page.goto("/jobs/followed")
    await mark(page)
    await expect(page.locator("main .state").first).to_have_text("running")
    gate.set()
    await steered.client.wait("followed", timeout=10)
    assert await poll(page) == 200
    await expect(page.locator("main .state").first).to_have_text("succeeded")
    assert await marked(page)
    watch.check()


async def test_progress_and_log_lines_come_by_themselves(steered: World, opened: Open) -> None:
    """What a handler says while it runs is there a moment later."""
    gate = steered.shop.hold("told")
    page, watch = await opened(steered.base)
    await steered.client.add(BuildReport("June")).id("told").wait(3600).save()
    await page.goto("/jobs/told")
    await expect(page.get_by_text("orders read period=June")).to_have_count(0)
    async with steered.client.events() as events:
        await steered.client.jobs.run_now("told")
        async for event in events:
            if event.kind == "progress":
                break
    assert await poll(page) == 200
    await expect(page.get_by_text("orders read period=June")).to_be_visible()
    await expect(page.locator("progress")).to_have_attribute("value", "0.25")
    gate.set()
    watch.check()


LOW_LOGS = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(".log { max-height: 30px; overflow: auto } .log li { height: 40px }");
  document.adoptedStyleSheets = [sheet];
}"""
LEFT_BELOW = "log => log.scrollHeight - log.scrollTop - log.clientHeight"


async def test_the_last_log_line_is_in_sight(steered: World, opened: Open) -> None:
    """A log follows what comes in, and stays where it is while somebody looks further up."""
    gate = steered.shop.hold("followed-log")
    page, watch = await opened(steered.base)
    await steered.client.add(BuildReport("June")).id("followed-log").wait(3600).save()
    await page.goto("/jobs/followed-log")
    await page.evaluate(LOW_LOGS)
    async with steered.client.events() as events:
        await steered.client.jobs.run_now("followed-log")
        async for event in events:
            if event.kind == "progress":
                break
    assert await poll(page) == 200
    log = page.locator(".log")
    await expect(log.get_by_text("orders read")).to_be_visible()
    assert await log.evaluate(LEFT_BELOW) < 2
    await log.evaluate("log => log.scrollTo({top: 0, behavior: 'instant'})")
    gate.set()
    await steered.client.wait("followed-log", timeout=10)
    await poll(page)
    assert await log.evaluate("log => log.scrollTop") == 0
    watch.check()


async def test_what_was_done_is_said_once(steered: World, opened: Open) -> None:
    """It is gone after a reload, and from the address."""
    page, watch = await opened(steered.base)
    await page.goto("/jobs?queue=emails&done=deleted&n=3")
    await expect(page.get_by_text("Done: 3 deleted.")).to_be_visible()
    await expect(page).to_have_url(f"{steered.base}/jobs?queue=emails")
    await page.reload()
    await expect(page.get_by_text("Done: 3 deleted.")).to_have_count(0)
    watch.check()


async def test_nothing_is_sent_again_that_has_not_changed(steered: World, opened: Open) -> None:
    """Where nothing happens, the answers are 304, and nothing in the page is touched."""
    page, watch = await opened(steered.base)
    for path in (
        "/",
        "/jobs",
        "/jobs/webhook-failed",
        "/queues",
        "/queues/emails",
        "/schedules",
        "/workflows",
    ):
        await page.goto(path)
        assert await poll(page) == 200, path
        await page.evaluate(COUNT_CHANGES)
        assert [await poll(page), await poll(page)] == [304, 304], path
        assert await page.evaluate("window.touched") == 0
    watch.check()


async def test_a_hidden_page_asks_nothing(steered: World, opened: Open) -> None:
    """It stops when it is hidden, goes on at once when it is seen, and then knows what happened meanwhile."""
    page, watch = await opened(steered.base)
    await page.goto("/jobs?queue=reports")
    assert await poll(page) == 200
    await visible(page, False)
    asked = len(watch.requested)
    await page.clock.run_for(60_000)
    assert watch.requested[asked:] == []
    await steered.client.add(BuildReport("hidden")).id("meanwhile").wait(3600).save()
    async with page.expect_response("**/jobs?queue=reports"):
        await visible(page, True)  # without waiting for the next turn
    await expect(page.locator("a[href='/jobs/meanwhile']")).to_be_visible()
    assert await poll(page) == 304
    watch.check()


async def test_what_was_chosen_stays_chosen(steered: World, opened: Open) -> None:
    """A refresh of the list keeps boxes, focus and what is typed into the filters."""
    page, watch = await opened(steered.base)
    await page.goto("/jobs?queue=webhooks&state=failed")
    box = page.locator("input[name=id][value=webhook-failed]")
    await box.check()
    await page.get_by_label("Task").fill("Call")
    await box.focus()
    await (
        steered.client.add(CallWebhook("https://northwind.example/x", 1)).id("another").max_attempts(1).save()
    )
    await steered.client.wait("another", timeout=10)
    assert await poll(page) == 200
    await expect(page.locator("input[name=id][value=another]")).not_to_be_checked()
    await expect(box).to_be_checked()
    await expect(box).to_be_focused()
    await expect(page.get_by_label("Task")).to_have_value("Call")
    await expect(page.locator("[data-count]").first).to_have_text("1 chosen")
    watch.check()


async def test_a_server_that_is_away_is_asked_less_often(steered: World, opened: Open) -> None:
    """The page says that it is not live, keeps what it shows, and is live again when the server is."""
    page, watch = await opened(steered.base)
    await page.goto("/jobs?queue=images")
    await page.context.set_offline(True)
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    await passing(page, lambda: len(failed) > 0)
    await expect(page.locator("#live")).to_have_text("Not live")
    before = len(failed)
    await page.clock.run_for(3_500)  # each failure puts the next question off by two more seconds
    assert len(failed) == before
    await passing(page, lambda: len(failed) > before)
    await steered.client.add(ResizeImage("new.jpg")).id("meanwhile").wait(3600).save()
    await page.context.set_offline(False)
    assert await poll(page) == 200
    await expect(page.locator("#live")).to_have_text("Live")
    await expect(page.locator("a[href='/jobs/meanwhile']")).to_be_visible()
    watch.check(but=["ERR_INTERNET_DISCONNECTED"])


async def visible(page: Page, seen: bool) -> None:
    """Have the page think that it is seen, or not."""
    await page.evaluate(SHOW, seen)


async def mark(page: Page) -> None:
    """Leave something in the document that a reload takes away."""
    await page.evaluate("window.marked = true")


async def marked(page: Page) -> bool:
    """Return whether it is still there."""
    return bool(await page.evaluate("window.marked === true"))
