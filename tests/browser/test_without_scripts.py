"""Everything works where scripts are off: by links and forms."""

from __future__ import annotations

import msgspec
from playwright.async_api import expect

from backlite_async import JobStatus

from .conftest import Open
from .serving import World
from .shop import ResizeImage, SendEmail


async def test_finding_and_retrying(steered: World, opened: Open) -> None:
    """From the overview to the failed jobs, by a filter to one of them, whose button retries it."""
    page, watch = await opened(steered.base, java_script_enabled=False)
    await page.goto("/")
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Jobs").click()
    await page.get_by_role("navigation", name="States").get_by_role("link", name="Failed").click()
    await page.get_by_label("Queue").fill("webhooks")
    await page.get_by_role("button", name="Filter", exact=True).click()
    await expect(page.get_by_role("row")).to_have_count(2)  # and the heading
    await page.get_by_role("row").nth(1).get_by_role("link", name="CallWebhook").click()
    await expect(page.get_by_text("PartnerDown").first).to_be_visible()
    await steered.client.pause("webhooks")
    await page.get_by_role("button", name="Retry", exact=True).click()
    await expect(page.get_by_role("status").first).to_contain_text("retried")
    await expect(page.locator("main .state").first).not_to_have_text("failed")
    assert await steered.client.status("webhook-failed") is JobStatus.PENDING
    watch.check()


async def test_what_is_done_to_many_is_asked_for_first(steered: World, opened: Open) -> None:
    """Chosen rows are deleted after a page that names them; going back from it changes nothing."""
    page, watch = await opened(steered.base, java_script_enabled=False)
    before = await steered.client.jobs.count(queue="images", state="succeeded")
    assert before > 2
    for answer in ("No, go back", "Delete"):
        await page.goto("/jobs?queue=images&state=succeeded")
        boxes = page.locator("input[name=id]")
        await boxes.nth(0).check()
        await boxes.nth(1).check()
        await page.get_by_role("button", name="Delete", exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("2 jobs")
        await (
            page.locator("main")
            .get_by_role("link" if answer.startswith("No") else "button", name=answer)
            .click()
        )
        await expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    await expect(page.get_by_role("status").first).to_contain_text("2 deleted")
    assert await steered.client.jobs.count(queue="images", state="succeeded") == before - 2
    watch.check()


async def test_everything_that_matches(steered: World, opened: Open) -> None:
    """All that match the filters are cancelled, after a page with their number; others are not."""
    pictures = [ResizeImage(f"{number}.jpg") for number in range(40)]  # more than a page
    ids = await steered.client.add(*pictures).wait(3600).tags("old").save()
    [other] = await steered.client.add(ResizeImage("other.jpg")).wait(3600).save()
    page, watch = await opened(steered.base, java_script_enabled=False)
    await page.goto("/jobs?queue=images&tag=old&state=pending")
    await page.get_by_role("button", name="Cancel all").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("40 jobs")
    await page.locator("main").get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("status").first).to_contain_text("40 cancelled")
    assert {await steered.client.status(job_id) for job_id in ids} == {JobStatus.CANCELLED}
    assert await steered.client.status(other) is JobStatus.PENDING
    watch.check()


async def test_pausing_a_queue(steered: World, opened: Open) -> None:
    """Its button pauses it, and then resumes it."""
    page, watch = await opened(steered.base, java_script_enabled=False)
    await page.goto("/queues/emails")
    for button, paused in (("Pause", True), ("Resume", False)):
        await page.get_by_role("button", name=button).click()
        await expect(page.get_by_role("status").first).to_contain_text(button.lower())
        [queue] = [queue for queue in await steered.client.queues.list() if queue.name == "emails"]
        assert queue.paused is paused
    watch.check()


async def test_adding_a_job(steered: World, opened: Open) -> None:
    """The form of a task type adds a job with what was typed."""
    page, watch = await opened(steered.base, java_script_enabled=False)
    await steered.client.pause("emails")
    await page.goto("/tasks")
    await page.locator("a[href*='SendEmail']").first.click()
    await page.locator("[name='f.to']").fill("new@example.org")
    await page.locator("[name='f.template']").fill("welcome")
    await page.get_by_role("button", name="Add the job").click()
    await expect(page.get_by_role("status").first).to_contain_text("added")
    [job] = await steered.client.jobs.list(queue="emails", state="pending", text="new@example.org")
    assert job.payload is not None
    assert b"welcome" in job.payload
    watch.check()


async def test_editing_a_payload(steered: World, opened: Open) -> None:
    """What does not fit the task is refused with the reason; what is hidden stays what it is."""
    task = SendEmail("first@example.org", "welcome", api_key="key-of-the-shop")
    await steered.client.add(task).id("edited").wait(3600).save()
    page, watch = await opened(steered.base, java_script_enabled=False)
    await page.goto("/jobs/edited")
    await expect(page.locator("main")).not_to_contain_text("key-of-the-shop")
    await page.get_by_role("link", name="Edit").click()
    text = page.get_by_role("textbox")
    shown = await text.input_value()
    wrong, right = shown.replace('"first@example.org"', "17"), shown.replace("first", "last")
    await text.fill(wrong)
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("to")
    await expect(text).to_have_value(wrong)
    await text.fill(right)
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status").first).to_contain_text("edited")
    job = await steered.client.get("edited")
    assert job is not None
    assert job.payload is not None
    edited = msgspec.json.decode(job.payload, type=SendEmail)
    assert edited == SendEmail("last@example.org", "welcome", api_key="key-of-the-shop")
    watch.check(but=["status of 400"])


async def test_steering_a_schedule(steered: World, opened: Open) -> None:
    """It is paused, run and resumed by its buttons."""
    page, watch = await opened(steered.base, java_script_enabled=False)
    await page.goto("/schedules/nightly-report")
    for button, state in (("Pause", "paused"), ("Resume", "active")):
        await page.get_by_role("button", name=button, exact=True).click()
        schedule = await steered.client.schedules.get("nightly-report")
        assert schedule is not None
        assert schedule.state == state
    async with steered.client.events(queue="reports") as events:
        await page.get_by_role("button", name="Run now").click()
        async for event in events:
            if event.kind == "succeeded":
                break
    watch.check()
