"""A deterministic event loop: a virtual clock, a seeded order of whatever is ready, no sleep."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Coroutine
from math import ceil
from typing import Any, TypeVar

__all__ = ["Deadlock", "Livelock", "SimLoop", "run"]

T = TypeVar("T")


class Deadlock(Exception):
    """Nothing is ready and nothing is scheduled: whoever waits, waits for ever."""


class Livelock(Exception):
    """More callbacks ran than anything in a simulation needs."""


class SimLoop(asyncio.BaseEventLoop):
    """Runs one ready callback at a time, chosen at random, and jumps to the next timer.

    - `shuffle=False`: callbacks run in the order in which they became ready, as in asyncio.
    - `early`: a timer may fire up to so many seconds before its time, as with a coarse clock.
    - `step`: microseconds that pass with every callback.
    - `patience`: callbacks after which it is a livelock.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(
        self,
        seed: int,
        *,
        shuffle: bool = True,
        early: float = 0.0,
        step: int = 1,
        patience: int = 200_000,
    ) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._shuffle, self._early, self._step, self._patience = shuffle, early, step, patience
        self.micros = self.steps = self.wakeups = 0

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.micros / 1_000_000

    def _run_once(self) -> None:
        early = self._random.uniform(0, self._early) if self._early else 0.0
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)
        if not self._ready and not self._stopping:
            if not self._scheduled:
                raise Deadlock(f"nothing is ready and nothing is scheduled at {self.time():.6f} s")
            self.wakeups += 1
            self.micros = max(self.micros, ceil((self._scheduled[0].when() - early) * 1_000_000))
        while self._scheduled and self._scheduled[0].when() <= self.time() + early + 1e-9:
            self._ready.append(heapq.heappop(self._scheduled))
        if not self._ready:
            return
        if self._shuffle and len(self._ready) > 1:
            self._ready.rotate(-self._random.randrange(len(self._ready)))
        handle = self._ready.popleft()
        if not handle.cancelled():
            self.steps += 1
            if self.steps > self._patience:
                raise Livelock(f"{self.steps} callbacks at {self.time():.6f} s, the next: {handle!r}")
            handle._run()
            self.micros += self._step

    def _write_to_self(self) -> None:
        raise RuntimeError("a simulation has one thread")


def run(loop: SimLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop, and close the loop."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
