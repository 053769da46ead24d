"""Upkeep beside the jobs: removing what has expired, and naming what nobody here can run."""

from __future__ import annotations

import asyncio

from . import _log as log
from ._clock import Clock
from ._health import Health
from ._registry import Registry
from ._stats import HOUR
from .stores import Store

__all__ = ["Maintenance"]

BATCH = 500
"""Completed jobs removed in one transaction, so that nobody waits long behind it."""


class Maintenance:
    """Wakes at the next expiry, or when the dispatcher takes its capped sleep's look around."""

    def __init__(self, store: Store, clock: Clock, registry: Registry, health: Health) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._health = health
        self._wake = asyncio.Event()
        self._next: int | None = None
        self._later: int | None = None
        self._leading = False
        self._named: set[tuple[str, str]] = set()
        self._summed_up: int | None = None
        self._closing = False

    def look(self) -> None:
        """Look around now."""
        self._wake.set()

    def expect(self, expires_at: int | None) -> None:
        """Take note that something kept now expires then."""
        if self._leading and expires_at is not None and (self._next is None or expires_at < self._next):
            self._wake.set()

    def expect_later(self, expires_at: int | None) -> None:
        """Take note of a step that expires then, or later: with its workflow, which may go on for long."""
        if self._leading and expires_at is not None and (self._later is None or expires_at < self._later):
            self._later = expires_at
            self._wake.set()

    def close(self) -> None:
        """Let `run` return."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Work until closed."""
        loop = asyncio.get_running_loop()
        while not self._closing:
            self._wake.clear()
            timer = None
            try:
                await self._expire()
                await self._sum_up()
                await self._name_unhandled()
                self._health.succeeded()
                soonest = min((at for at in (self._next, self._later) if at is not None), default=None)
                if soonest is not None:
                    delay = max((soonest - self._clock.now()) / 1000, 0.001)
                    timer = loop.call_later(min(delay, 86_400.0), self._wake.set)
            except Exception as error:  # upkeep outlives every trouble
                timer = loop.call_later(self._health.failed(error), self._wake.set)
            except asyncio.CancelledError:  # ends with its client, in the client's own order
                continue
            try:
                if not self._closing:
                    await self._wake.wait()
            except asyncio.CancelledError:
                continue
            finally:
                if timer is not None:
                    timer.cancel()

    async def _expire(self) -> None:
        """Remove what has expired; one process does it for all."""
        self._leading = self._store.leads()
        if self._later is not None and self._later <= self._clock.now():
            self._later = None
        if not self._leading:
            self._next = None
            return
        self._next = await self._store.next_expiry()
        while self._next is not None and self._next <= self._clock.now() and not self._closing:
            removed = await self._store.expire(now=self._clock.now(), limit=BATCH)
            if removed:
                log.emit(log.JOBS_EXPIRED, count=removed)
            self._next = await self._store.next_expiry()

    async def _sum_up(self) -> None:
        """Sum up statistics, at first and once an hour; we are awake more often than that anyway."""
        hour = self._clock.now() // HOUR
        if not self._leading:
            self._summed_up = None
        elif hour != self._summed_up:
            await self._store.sum_up(now=self._clock.now())
            self._summed_up = hour

    async def _name_unhandled(self) -> None:
        """Log each kind of job that waits without a handler here, once."""
        for queue, task in await self._store.kinds():
            self.seen(queue, task)

    def seen(self, queue: str, task: str) -> None:
        """Take note of a kind of job that waits."""
        if self._registry.find(queue, task) is None and (queue, task) not in self._named:
            self._named.add((queue, task))
            log.emit(log.QUEUE_UNHANDLED, queue=queue, task=task)
