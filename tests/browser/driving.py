"""Chromium, and what is watched in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Literal

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    async_playwright,
)

__all__ = ["Watch", "browser", "check", "chromium", "passing", "poll", "violations"]

ARGUMENTS = [
    "--disable-background-networking",
    # Nothing leaves this computer.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]

WIDTHS = (375, 1280)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def chromium() -> str | None:
    """Return where Chromium is."""
    named = os.environ.get("BACKLITE_CHROMIUM")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome"]
    return next(filter(None, map(shutil.which, names)), None)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start Chromium."""
    sandbox = hasattr(os, "geteuid") and os.geteuid() != 0
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=chromium(), args=ARGUMENTS, chromium_sandbox=sandbox
        )
        yield started
        await started.close()


class Watch:
    """Notes what should not be in any page of a context: messages, failures, dialogs, foreign addresses."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.base = base
        self.noted: list[str] = []
        self.requested: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self.noted.append(f"error: {error.error}"))
        context.on("requestfailed", self._failed)
        context.on("request", self._request)
        context.on("dialog", self._dialog)

    def _console(self, message: ConsoleMessage) -> None:
        self.noted.append(f"console: {message.type}: {message.text} ({message.location.get('url', '')})")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by going to another page meanwhile
            self.noted.append(f"failed: {request.url}: {request.failure}")

    def _request(self, request: Request) -> None:
        self.requested.append(request.url)
        if not request.url.startswith((self.base + "/", "data:", "about:")):
            self.noted.append(f"elsewhere: {request.url}")

    async def _dialog(self, dialog: Dialog) -> None:
        self.noted.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def check(self, *, but: Sequence[str] = ()) -> None:
        """Fail if anything was noted that has none of these texts in it; begin anew."""
        noted, self.noted = self.noted, []
        wrong = [line for line in noted if not any(text in line for text in but)]
        assert not wrong, "\n".join(wrong)


async def passing(page: Page, done: Callable[[], bool]) -> None:
    """Let time pass for a page until something is done."""
    while not done():
        await page.clock.run_for(500)


async def poll(page: Page) -> int:
    """Let time pass for a page until it asks whether anything has changed; return the answer's status."""
    async with page.expect_response(lambda answer: answer.request.resource_type == "fetch") as answer:
        await passing(page, answer.is_done)
    return (await answer.value).status


async def violations(page: Page) -> list[str]:
    """Return what axe finds wrong in a page, and where."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    found: dict[str, Any] = await page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {' '.join(map(str, node['target']))}: {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const clipped = one => one && (getComputedStyle(one).overflowX !== "visible" || clipped(one.parentElement));
  return [...document.querySelectorAll("body *")]
    .filter(one => one.getBoundingClientRect().right > width + 1 && !clipped(one.parentElement))
    .map(one => one.outerHTML.slice(0, 120));
}"""


SMALL = """() => [...document.querySelectorAll("main :is(button, input, select, textarea, summary)")]
  .filter(one => one.checkVisibility() && one.type !== "hidden" && !one.closest(".hide"))
  .filter(one => { const box = one.getBoundingClientRect(); return box.width < 12 || box.height < 12; })
  .map(one => one.outerHTML.slice(0, 120))"""


async def check(page: Page) -> None:
    """See that a page is right in light and dark, on a phone and on a desk."""
    problems: list[str] = []
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 800})
        problems += [f"{width}: too wide: {text}" for text in await page.evaluate(WIDE)]
        problems += [f"{width}: too small: {text}" for text in await page.evaluate(SMALL)]
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            problems += [f"{width}, {scheme}: {line}" for line in await violations(page)]
    assert not problems, "\n".join(problems)
