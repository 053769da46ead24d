"""What many tests need: databases, a journal of log events to wait on, bounded waiting."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, settings

LIMIT = 20.0
"""Seconds after which a test that waits for something has failed."""


settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


class Journal(logging.Handler):
    """Keeps the library's log lines, and lets tests wait for one instead of sleeping."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._loop.call_soon_threadsafe(self._changed.set)

    def of(self, event: str, job_id: str | None = None) -> list[str]:
        """Return the lines of an event, of one job if given."""
        lines = [line for line in self.lines if line.split()[0] == event]
        return [line for line in lines if job_id is None or f"job_id={job_id}" in line]

    async def seen(self, event: str, job_id: str | None = None, *, count: int = 1) -> list[str]:
        """Wait until an event has been logged `count` times; return its lines."""
        with anyio.fail_after(LIMIT):
            while len(found := self.of(event, job_id)) < count:
                self._changed.clear()
                await self._changed.wait()
        return found

    async def ended(self, *job_ids: str) -> None:
        """Wait until each of these jobs has completed and that is stored."""
        for job_id in job_ids:
            with anyio.fail_after(LIMIT):
                while not (self.of("job.succeeded", job_id) or self.of("job.failed", job_id)):
                    self._changed.clear()
                    await self._changed.wait()


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    """The library's log, at every level."""
    logger = logging.getLogger("backlite_async")
    handler = Journal()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(params=["memory", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind."""
    return ":memory:" if request.param == "memory" else str(tmp_path / "app.db")


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The path of a SQLite database that does not exist yet."""
    return str(tmp_path / "app.db")


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """No test may leave a thread of ours behind."""
    import threading

    yield
    ours = [
        thread
        for thread in threading.enumerate()
        if re.match(r"backlite|.*_connection_worker_thread", thread.name)
    ]
    for thread in ours:
        thread.join(5.0)
    assert [thread.name for thread in ours if thread.is_alive()] == []
