"""Pages that are seen seldom are right, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect
from starlette.applications import Starlette
from starlette.routing import Mount

from backlite_async import Client
from backlite_async.web import Access, Dashboard, allow_all, basic

from .conftest import Open
from .driving import check
from .serving import World, serve

READER = Access(write=False, payloads=False)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/refused/", 403, "You may not see this page."),
        ("/unmade/", 503, ""),
        ("/reader/jobs", 200, "read-only"),
        ("/reader/jobs/email-sent", 200, "read-only"),
        ("/reader/jobs/email-scheduled/edit", 403, "You may not see payloads."),
    ],
)
async def test_for_who_may_not_do_everything(
    seen: World, opened: Open, tmp_path: Path, *, path: str, status: int, text: str
) -> None:
    """Who is refused, and who may only look, gets a page that says so."""
    app = Starlette(
        routes=[
            Mount("/refused", Dashboard(seen.client, auth=lambda scope: None)),
            Mount("/unmade", Dashboard(Client(tmp_path / "unmade.db"))),
            Mount("/reader", Dashboard(seen.client, auth=allow_all(READER))),
        ]
    )
    async with serve(app) as base:
        page, watch = await opened(base, paused=False)
        answer = await page.goto(path)
        assert answer is not None
        assert answer.status == status
        await expect(page.get_by_text(text).first).to_be_visible()
        await expect(page.locator("main form[method=post] button")).to_have_count(0)
        await check(page)
        watch.check(but=[f"status of {status}"] if status != 200 else [])


async def test_a_password(seen: World, opened: Open) -> None:
    """A browser that knows the password is let in by it, and the page says as whom; others are not."""
    async with serve(Dashboard(seen.client, auth=basic("ann", "secret"))) as base:
        page, watch = await opened(base, http_credentials={"username": "ann", "password": "secret"})
        await page.goto("/queues")
        await expect(page.get_by_role("banner").get_by_text("ann", exact=True)).to_be_visible()
        watch.check(but=["status of 401"])
        stranger, _ = await opened(base, http_credentials={"username": "ann", "password": "other"})
        answer = await stranger.goto("/queues")
        assert answer is not None
        assert answer.status == 401


async def test_where_there_is_nothing_yet(opened: Open, tmp_path: Path) -> None:
    """A new database has pages that say that there is nothing."""
    async with Client(tmp_path / "new.db") as client, serve(Dashboard(client)) as base:
        page, watch = await opened(base, paused=False)
        for path in ("/", "/jobs", "/queues", "/schedules", "/workflows", "/tasks"):
            await page.goto(path)
            await check(page)
        watch.check()


async def test_the_question_whether_it_is_meant(seen: World, opened: Open) -> None:
    """The page that is between many jobs and their end."""
    page, watch = await opened(seen.base, paused=False)
    await page.goto("/jobs?state=failed")
    await page.locator("[data-all]").check()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Delete")
    await check(page)
    watch.check()


async def test_a_theme_is_remembered(seen: World, opened: Open) -> None:
    """The button changes it at once, and the next page has it from the beginning, without a script."""
    page, watch = await opened(seen.base, color_scheme="light")
    await page.goto("/")
    background = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(background)
    await page.get_by_role("button", name="Change the theme").click()
    dark = await page.evaluate(background)
    assert dark != light
    answer = await page.goto("/jobs")
    assert answer is not None
    assert 'data-theme="dark"' in await answer.text()
    assert await page.evaluate(background) == dark
    watch.check()


async def test_nothing_moves_for_who_does_not_want_it(seen: World, opened: Open) -> None:
    """`prefers-reduced-motion` ends every animation; without it something tells that a job runs."""
    page, watch = await opened(seen.base)
    await page.goto("/jobs/import-running")
    assert await page.evaluate("document.getAnimations().length") == 0
    await page.emulate_media(reduced_motion="no-preference")
    assert await page.evaluate("document.getAnimations().length") > 0
    watch.check()
