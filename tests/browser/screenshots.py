"""Make pictures of the page: `python -m tests.browser.screenshots FOLDER [PAGE ...]`."""

from __future__ import annotations

import argparse
import asyncio
import io
import tempfile
from pathlib import Path
from unittest import mock

from PIL import Image
from playwright.async_api import Browser, Page

from . import seed
from .driving import browser
from .pages import path_of
from .serving import world

MOST = 150_000
"""Bytes that a picture may have."""

DESK = {
    "overview": "overview",
    "jobs": "jobs",
    "job": "job-failed",
    "workflow": "workflow",
    "queues": "queues",
    "schedules": "schedules",
}
PHONE = {"phone-overview": "overview", "phone-job": "job-running"}


async def main(folder: Path, wanted: list[str]) -> None:
    """Make the pictures of all pages, or of those that are named."""
    with tempfile.TemporaryDirectory() as there, mock.patch("socket.gethostname", return_value="shop-1"):
        database = Path(there) / "shop.db"
        await seed.past(database, jobs=2600)
        async with world(database, page_size=12) as shown, browser() as started:
            for names, width, height, schemes in (
                (DESK, 1280, 820, ("light", "dark")),
                (PHONE, 375, 720, ("light", "dark")),
            ):
                for name, page_name in names.items():
                    if wanted and name not in wanted:
                        continue
                    path = path_of(page_name, shown.places)
                    for scheme in schemes:
                        page = await opened(started, width, height, scheme)
                        await page.goto(shown.base + path, wait_until="networkidle")
                        write(folder / f"{name}-{scheme}.png", await page.screenshot())
                        await page.context.close()


async def opened(started: Browser, width: int, height: int, scheme: str) -> Page:
    """Return a page of a size, in light or dark, at the moment that is shown."""
    context = await started.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
        is_mobile=width < 500,  # scroll bars lie over the page
    )
    await context.clock.set_fixed_time(seed.NOW)
    return await context.new_page()


def write(path: Path, picture: bytes) -> None:
    """Write a picture, small."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    reduced = image.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size:,} bytes")
    if size > MOST:
        raise SystemExit(f"{path} has {size:,} bytes, more than {MOST:,}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("pages", nargs="*")
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(given.folder, given.pages))
