"""What jobs hold is text, and stays text."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import anyio
from playwright.async_api import Page

from backlite_async.web import Dashboard

from .conftest import Open
from .hostile import TEXT, begin, hostile_client
from .serving import serve

MOST = 80
"""Pages that are looked at."""


async def test_nothing_that_jobs_hold_becomes_more_than_text(opened: Open) -> None:
    """Whatever link is followed: no script runs, nothing is loaded or said, and the text is there."""
    gate = anyio.Event()
    client = hostile_client(gate)
    async with client, serve(Dashboard(client)) as base:
        try:
            await begin(client)
            page, watch = await opened(base)
            seen = await crawled(page, base)
            watch.check()
        finally:
            gate.set()
    shown = {path for path, text in seen.items() if TEXT in text or TEXT[:100] in text}
    assert {"/", "/jobs", "/queues", "/schedules", "/workflows", "/tasks"} <= seen.keys()
    assert {"/", "/jobs", "/queues", "/schedules", "/workflows", "/tasks"} <= shown
    below = {path for path in seen if path.count("/") > 1}
    assert len(below) > 6
    assert below - shown == set()


LINKS = "links => links.map(link => new URL(link.getAttribute('href'), location).href)"


async def crawled(page: Page, base: str) -> dict[str, str]:
    """Follow all links, each kind of address once; return what stands on each page, by its path."""
    texts: dict[str, str] = {}
    todo, known = ["/"], {("/", "")}
    while todo and len(texts) < MOST:
        path = todo.pop(0)
        answer = await page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        assert await page.locator("img[onerror], img[src=x], main script, body > script").count() == 0
        texts.setdefault(urlsplit(path).path, await content(page))
        for link in await page.eval_on_selector_all("a[href]", LINKS):
            parts = urlsplit(link)
            kind = parts.path, " ".join(sorted(parse_qs(parts.query)))
            if link.startswith(base) and kind not in known:
                known.add(kind)
                todo.append(link.removeprefix(base))
    return texts


async def content(page: Page) -> str:
    """Return the text of a page, with that of fields and tooltips."""
    text: str = await page.evaluate(
        """() => [document.title, document.body.textContent,
          ...[...document.querySelectorAll("input, textarea")].map(field => field.value),
          ...[...document.querySelectorAll("[title]")].map(one => one.title)].join("\\n")"""
    )
    return text
