"""What a case is: a public coroutine in the situation in which it is cancelled."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

from tests.torture.programs.t06_steps import FEW, WAYS, Ended, Guarded
from tests.torture.programs.t06_world import LIMIT, World

__all__ = ["Case", "Locked"]


class Case:
    """One public coroutine in one situation. A case lives for one sweep over its steps."""

    ways: tuple[str, ...] = WAYS

    def __init__(self, world: World) -> None:
        self.world = world

    async def prepare(self) -> None:
        """Begin the sweep."""

    async def before(self) -> None:
        """Get ready for one call."""

    async def call(self) -> Any:
        """Make the call that is cancelled."""

    async def run(self, way: str, k: int) -> Ended | None:
        """Make the call, and cut it after its k-th step."""
        return await Guarded(self.world.loop, way, self.call, k).run(LIMIT)

    async def release(self) -> None:
        """Let go of locks of one's own."""

    async def after(self, ended: Ended) -> None:
        """Check what holds after the call."""

    async def finish(self) -> None:
        """End the sweep."""

    def at_last(self) -> None:
        """Check what holds once all that was left has run."""


class Locked(Case):
    """Another connection holds the write lock meanwhile, for a while that all have the patience for."""

    ways: tuple[str, ...] = FEW

    async def before(self) -> None:
        await super().before()
        self._unlocked = asyncio.Event()
        self._other = sqlite3.connect(self.world.file, isolation_level=None, timeout=LIMIT)
        self._other.execute("BEGIN IMMEDIATE")
        self.world.loop.call_later(0.02, self._unlock)

    def _unlock(self) -> None:
        self._other.close()
        self._unlocked.set()

    async def release(self) -> None:
        await self._unlocked.wait()
