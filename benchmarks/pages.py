"""Measure every page at a million jobs: `python -m benchmarks.pages [FILE] [--jobs N] [--queues N]`.

The file is made if it does not exist (a minute or two), and kept if it was named. Beside each page stands
what a raw `sqlite3` connection takes in the same run to read as many jobs as a page shows, by an index.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import httpx

from backlite_async import Client
from backlite_async.web import Dashboard

from .page_data import fill

ROUNDS = 15
BAR = 100.0
"""Milliseconds that a page may take."""


class Page(NamedTuple):
    """A page and how long it took: milliseconds, bytes."""

    name: str
    median: float
    worst: float
    size: int


def main() -> int:
    """Measure, print a table, and return 1 if a page's median is over the bar."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pages", description=sys.modules[__name__].__doc__
    )
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--jobs", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--queues", type=int, default=100, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pages-", dir=".") as folder:
        path = options.file or Path(folder, "pages.db")
        if not path.exists():
            print(f"making {path} of {options.jobs:,} jobs in {options.queues} queues", file=sys.stderr)
            fill(path, jobs=options.jobs, queues=options.queues)
        raw = _raw(path)
        pages = asyncio.run(_pages(path))
    print(f"{'page':<44}{'median':>10}{'worst':>10}{'size':>10}{'x raw':>8}")
    for page in pages:
        figures = f"{page.median:>7.1f} ms{page.worst:>7.1f} ms{page.size / 1000:>7.1f} kB"
        print(f"{page.name:<44}{figures}{page.median / raw:>8.0f}")
    print(f"raw: 25 completed jobs by their index, sqlite3: {raw:.2f} ms; medians of {ROUNDS}, warm")
    return int(any(page.median > BAR for page in pages))


def _raw(path: Path) -> float:
    """Return the milliseconds in which a raw connection reads 25 completed jobs."""
    with sqlite3.connect(path) as connection:
        statement = (
            "SELECT * FROM backlite_completed WHERE queue = (SELECT queue FROM backlite_completed LIMIT 1)"
            " ORDER BY finished_at DESC LIMIT 25"
        )
        times = [_timed(lambda: connection.execute(statement).fetchall()) for _ in range(ROUNDS)]
    connection.close()
    return statistics.median(times)


def _timed(call: object) -> float:
    began = time.perf_counter()
    call()  # type: ignore[operator]
    return (time.perf_counter() - began) * 1000


async def _pages(path: Path) -> Sequence[Page]:
    client = Client(path, workers=0)
    async with (
        client,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(Dashboard(client)), base_url="http://localhost"
        ) as browser,
    ):
        return [await _page(browser, name, address) for name, address in await _addresses(client)]


async def _addresses(client: Client) -> list[tuple[str, str]]:
    """Return what is to be looked at, and where it is."""
    queue = (await client.queues.list(most=1))[0].name
    found: list[tuple[str, str]] = [
        ("overview", "/"),
        ("overview, last day", "/?last=day"),
        ("jobs", "/jobs"),
    ]
    found += [(f"jobs, {state}", f"/jobs?state={state}") for state in _STATES]
    found += [(f"jobs of a queue, {state}", f"/jobs?queue={queue}&state={state}") for state in _STATES]
    found += [("jobs with a text", "/jobs?text=nowhere"), ("jobs with a tag", "/jobs?tag=tag-1")]
    [job] = await client.jobs.list(limit=1)
    deep = await client.jobs.list(state="succeeded", limit=1000, brief=True)
    found += [("jobs, the 41st page", f"/jobs?state=succeeded&after={deep.next}"), ("job", f"/jobs/{job.id}")]
    found += [("queues", "/queues"), ("queue", f"/queues/{queue}"), ("schedules", "/schedules")]
    return [*found, ("workflows", "/workflows"), ("tasks", "/tasks")]


_STATES = ("pending", "running", "succeeded", "failed", "cancelled")


async def _page(browser: httpx.AsyncClient, name: str, address: str) -> Page:
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        answer = await browser.get(address)
        times.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, (address, answer.text[:500])
    return Page(name, statistics.median(times[1:]), max(times[1:]), len(answer.content))


if __name__ == "__main__":
    sys.exit(main())
