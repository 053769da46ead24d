"""A server that stops is not held up by a page that somebody looks at."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from subprocess import PIPE, STDOUT

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from playwright.async_api import expect

from ..torture.pulse import START, Pulse
from .conftest import Open
from .driving import passing, poll
from .serving import LIMIT

HERE = Path(__file__).parent
STOPS = 2.0
"""Seconds in which a server stops, on a machine that has time for it."""


async def test_uvicorn_stops_with_the_page_open(opened: Open, tmp_path: Path) -> None:
    """SIGTERM ends uvicorn, its lifespan and so the client's drain, within two seconds, in their order."""
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "--port", "0", "stopping:app"]
    environment = os.environ | {"BACKLITE_DB": str(tmp_path / "app.db")}
    process = await anyio.open_process(command, cwd=tmp_path, env=environment, stdout=PIPE, stderr=STDOUT)
    async with process, ended(process):
        lines = _Lines(process)
        match = await lines.until(r"running on (http://\S+)")
        page, watch = await opened(match.group(1), at=datetime.now(UTC))
        await page.goto("/backlite/jobs")
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        assert [await poll(page), await poll(page)] == [200, 304]  # by a connection that is kept
        with Pulse(tmp_path) as pulse:
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            with anyio.fail_after(LIMIT):
                await lines.until("stopped")
                await process.wait()
            assert pulse.beats().charged(began, time.monotonic(), START) < STOPS
        assert "cut off" in lines.text
        async with page.expect_request("**/jobs") as asked:
            await passing(page, asked.is_done)
        await expect(page.get_by_text("Not live", exact=True)).to_be_visible()
        watch.check(but=["ERR_CONNECTION_REFUSED"])


@asynccontextmanager
async def ended(process: Process) -> AsyncIterator[None]:
    """Kill a process at the end, if it still runs."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()


class _Lines:
    """What a process has written."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        self._stream = TextReceiveStream(process.stdout)
        self.text = ""

    async def until(self, pattern: str) -> re.Match[str]:
        """Wait until it has written something."""
        with anyio.fail_after(LIMIT):
            while (match := re.search(pattern, self.text)) is None:
                self.text += await self._stream.receive()
        return match
