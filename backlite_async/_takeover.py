"""Taking over what dead owners have left: their jobs run again at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from . import _log as log
from ._clock import Clock
from ._events import Bus
from ._health import Health
from ._job import ClaimedJob, Complete, Outcome
from ._outcome import crashed, give_back
from ._registry import Registry
from ._reports import tell
from .stores import Dead, Store

__all__ = ["Takeover"]

GROUP = 500
"""Jobs released in one transaction."""


class Takeover:
    """Looks for dead owners at the start and when somebody is gone, and releases their jobs.

    A job whose handler had started counts a crash; one that had only been claimed goes back as
    if it had not been. That does not need a handler here: any process can do it.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        health: Health,
        *,
        bus: Bus,
        released: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._health = health
        self._bus = bus
        self._released = released
        self._wake = asyncio.Event()
        self._wake.set()
        self._closing = False

    def look(self) -> None:
        """Look now."""
        self._wake.set()

    def close(self) -> None:
        """Let `run` return."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Work until closed."""
        while not self._closing:
            timer = None
            try:
                await self._wake.wait()
                self._wake.clear()
                if not self._closing:
                    await self._take_over()
                    self._health.succeeded()
            except asyncio.CancelledError:  # ends with its client, in the client's own order
                continue
            except Exception as error:  # the dead can wait until the trouble is over
                delay = self._health.failed(error)
                timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
                await self._rest(timer)

    async def _rest(self, timer: asyncio.TimerHandle) -> None:
        try:
            await self._wake.wait()
        except asyncio.CancelledError:
            pass
        finally:
            timer.cancel()

    async def _take_over(self) -> None:
        dead = list(self._store.dead_owners())
        try:
            for owner in dead:
                await self._release(owner)
            if dead:  # before they are forgotten: we may die, too, and nobody else would do it
                await self._store.end_starts([owner.id for owner in dead], now=self._clock.now())
            while dead:
                dead.pop().bury()
        finally:
            for owner in dead:
                owner.leave()

    async def _release(self, dead: Dead) -> None:
        jobs = await self._store.claims_of(dead.id)
        log.emit(log.OWNER_DIED, owner=dead.id, jobs=len(jobs))
        for first in range(0, len(jobs), GROUP):
            group = jobs[first : first + GROUP]
            outcomes = [self._outcome(job, started=dead.started(job.id, job.fence)) for job in group]
            lost = await self._store.finish(outcomes)
            self._report(group, outcomes, lost)
        self._released()

    def _outcome(self, job: ClaimedJob, *, started: bool) -> Outcome:
        handler = self._registry.find(job.queue, job.task)
        now = self._clock.now()
        config = None if handler is None else handler.config
        return crashed(job, config, now) if started else give_back(job, now)

    def _report(self, jobs: Sequence[ClaimedJob], outcomes: Sequence[Outcome], lost: set[str]) -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.id in lost:
                continue
            event = log.JOB_FAILED if isinstance(outcome, Complete) else log.JOB_CRASHED
            if outcome.crashes == job.crashes:
                event = log.JOB_GIVEN_BACK
            log.emit(
                event,
                job_id=job.id,
                queue=job.queue,
                task=job.task,
                attempt=job.attempt,
                error=outcome.error,
            )
            if self._bus.heard:
                tell(self._bus, job, outcome, event)
