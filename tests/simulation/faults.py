"""Faults of a store: latency, errors before and after the fact, the death of its process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

from backlite_async import DatabaseUnavailable
from backlite_async._errors import DatabaseBusy

from .history import Fault, History

__all__ = ["Faults", "Host", "Killed", "Weather"]

T = TypeVar("T")


class Killed(BaseException):
    """The process of whoever called is dead; not an `Exception`, so that nobody handles it."""


class Weather:
    """What stores have to suffer; shared by those of all processes, changed at any time.

    - `latency`: seconds that a way to or from the store takes at most.
    - `faults`, `deaths`: how likely an operation fails, or is the last of its process.
    - `haunted`: how likely a process dies soon after it has taken charge of a dead owner.
    - `outage`: everything fails.
    """

    def __init__(self, *, latency: float = 0.0, faults: float = 0.0, deaths: float = 0.0) -> None:
        self.latency = latency
        self.faults = faults
        self.deaths = deaths
        self.haunted = 0.0
        self.outage = False

    def clear(self) -> None:
        """End all faults; the latency stays."""
        self.faults = self.deaths = self.haunted = 0.0
        self.outage = False


class Host:
    """A process, as its stores see it. `life` counts the starts of its client, `die` kills it.

    `cut_off`: whatever it asks of the store fails, while others can use it.
    """

    def __init__(
        self, name: str, *, workers: int, rng: random.Random, weather: Weather, history: History
    ) -> None:
        self.name = name
        self.workers = workers
        self.random = rng
        self.weather = weather
        self.history = history
        self.loop = asyncio.get_running_loop()
        self.life = 0
        self.dead = self.cut_off = False
        self.die: Callable[[], None] = lambda: None


class Faults:
    """Makes operations slow, and fail, as the weather wants it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._pauses: dict[asyncio.Future[None], None] = {}
        self._abandoned = False

    def abandon(self) -> None:
        """Let whatever waits for the database fail now."""
        self._abandoned = True
        for future in self._pauses:
            if not future.done():
                future.set_result(None)

    async def _do(
        self,
        name: str,
        operation: Callable[[], T],
        *,
        insist: bool = False,
        committed: Callable[[T], None] | None = None,
    ) -> T:
        """Do something after a while, with a fault before or after it; another while, and return.

        `insist`: a cancellation is put off, and comes again once the answer is there. `committed` is
        called once it is done, unless it is reported as failed.
        """
        cancelled = False
        try:
            cancelled |= await self._pause(insist=insist)
            self._strike(name)
            result = operation()
            if self._host.weather.deaths and self._host.random.random() < self._host.weather.deaths:
                self._host.die()
                raise Killed
            fault = self._fault(name, took_effect=True)
            if fault is None and committed is not None:
                committed(result)
            cancelled |= await self._pause(insist=insist)
            if self._host.dead:
                raise Killed
            if fault is not None:
                raise fault
            return result
        finally:
            if cancelled and (task := asyncio.current_task()) is not None:
                task.uncancel()
                self._host.loop.call_soon(task.cancel)

    async def _pause(self, *, insist: bool) -> bool:
        """Wait a random while; return whether a cancellation came, if it insists on its while."""
        loop = self._host.loop
        latency = 0.0 if self._abandoned else self._host.weather.latency
        until = loop.time() + self._host.random.random() * latency if latency else 0.0
        cancelled = False
        while True:
            future: asyncio.Future[None] = loop.create_future()
            self._pauses[future] = None
            timer = loop.call_at(until, _end, future) if latency else loop.call_soon(_end, future)
            try:
                await future
            except asyncio.CancelledError:
                if not insist:
                    raise
                cancelled = True
            else:
                return cancelled
            finally:
                timer.cancel()
                del self._pauses[future]

    def _strike(self, name: str, *, took_effect: bool = False) -> None:
        """Raise if the process is dead, or if a fault is due."""
        if self._host.dead:
            raise Killed
        fault = self._fault(name, took_effect=took_effect)
        if fault is not None:
            raise fault

    def _fault(self, name: str, *, took_effect: bool) -> DatabaseUnavailable | None:
        """Return the fault that is due, if one is."""
        weather, rng = self._host.weather, self._host.random
        rate = 1.0 if weather.outage or self._host.cut_off else weather.faults
        if not rate:
            return None
        if took_effect:  # an outage shows before; what it had done already, it seldom denies
            rate = min(rate, 0.3) / 2
        if rng.random() >= rate:
            return None
        self._host.history.add(Fault(client=self._host.name, operation=name, took_effect=took_effect))
        if took_effect or rng.random() < 0.5:
            return DatabaseUnavailable(f"{name}: I/O error")
        return DatabaseBusy(f"{name}: locked")


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
