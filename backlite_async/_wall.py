"""Heeding steps of the wall clock: waits go on as they were meant."""

from __future__ import annotations

import math

from ._clock import Clock, WallSteps
from ._errors import DatabaseBusy, DatabaseUnavailable
from .stores import Store

__all__ = ["Wall"]

SHIFTING = 1.0
"""Seconds for another process to shift waits after a step of the wall clock."""


class Wall:
    """Has waits shifted where the wall clock was set back, also before our start."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._steps = WallSteps(clock)
        self._shifting_until = -math.inf

    @property
    def pause(self) -> float:
        """Seconds until it is to be looked at again."""
        return max(self._steps.pause, 0.001)

    async def heed(self) -> float:
        """Look at the clock, and do what follows.

        Returns for how long to claim nothing: it was set right again, and another process is about to
        shift the waits that it makes look due.
        """
        step = self._steps.look()
        if step != 0:
            try:
                await self._store.shift_waits(now=self._clock.now(), by=step or 0)
            except DatabaseUnavailable as error:
                if step is not None and step < 0 and not isinstance(error, DatabaseBusy):
                    self._steps.heeded(step)  # it may be done: a second time would end waits early
                raise
            self._steps.heeded(step)
            if step is not None and step > 0 and not self._store.leads():
                self._shifting_until = self._clock.monotonic() + SHIFTING
        return max(0.0, self._shifting_until - self._clock.monotonic())
