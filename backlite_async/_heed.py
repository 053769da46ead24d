"""Heeding orders: which queues are paused, which of our jobs are to be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ._health import Health
from .stores import Store

__all__ = ["Heed"]

LOOKS_APART = 0.02
"""Seconds between two looks at least: who is told of every job that others add need not look for each."""


class Heed:
    """Looks for orders when there may be some. They are stored, so whoever misses a call misses nothing.

    A task of its own, so that a claim that waits for a lock keeps no job from being cancelled.
    `paused` is told when other queues are paused than before, `cancel` of each claim of ours that is to
    be cancelled, again and again until its outcome is written.
    """

    def __init__(
        self,
        store: Store,
        health: Health,
        *,
        owner: str,
        paused: Callable[[frozenset[str]], None],
        cancel: Callable[[str, int], None],
    ) -> None:
        self._store = store
        self._health = health
        self._owner = owner
        self._tell_paused = paused
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._wake.set()
        self._timer: asyncio.TimerHandle | None = None
        self._earliest = 0.0
        self._closing = False
        self.paused: frozenset[str] = frozenset()
        self.looks = 0
        """How often it was seen which queues are paused."""

    def look(self) -> None:
        """Look soon."""
        if self._timer is None and not self._closing:
            self._timer = self._loop.call_at(max(self._earliest, self._loop.time()), self._wake.set)

    def close(self) -> None:
        """Let `run` return."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake.set()

    async def run(self) -> None:
        """Work until closed."""
        while not self._closing:
            try:
                await self._wake.wait()
                self._wake.clear()
                self._timer = None
                if not self._closing:
                    self._earliest = self._loop.time() + LOOKS_APART
                    await self._look()
                    self._health.succeeded()
            except asyncio.CancelledError:  # ends with its client, in the client's own order
                continue
            except Exception as error:  # orders can wait until the trouble is over
                self._earliest = self._loop.time() + self._health.failed(error)
                self.look()

    async def _look(self) -> None:
        orders = await self._store.orders(self._owner)
        self.looks += 1
        if orders.paused != self.paused:
            self.paused = orders.paused
            self._tell_paused(orders.paused)
        for job_id, fence in orders.cancelled:
            self._cancel(job_id, fence)
