"""A deterministic event loop: a virtual clock, a seeded order of whatever is ready, no sleep."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from heapq import heappop, heappush
from math import ceil
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["Deadlock", "Livelock", "SimLoop", "run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Deadlock(Exception):
    """Nothing is ready and nothing is scheduled: whoever waits, waits for ever."""


class Livelock(Exception):
    """More callbacks ran than anything in a simulation needs."""


class _Call(asyncio.TimerHandle):
    """A callback that is ready or scheduled; made a dozen times as often as anything else, so it is bare."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None

    def cancel(self) -> None:
        """Never run this callback."""
        self._cancelled = True
        self._callback, self._args = _nothing, ()

    def _run(self) -> None:
        try:
            self._context.run(self._callback, *self._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # as asyncio does: whoever handles it is told, the loop goes on
            text = f"Exception in callback {self._callback!r}"
            self._loop.call_exception_handler({"message": text, "exception": error, "handle": self})


def _nothing() -> None:
    pass


class SimLoop(asyncio.BaseEventLoop):
    """Runs one ready callback at a time, chosen at random, and jumps to the next timer.

    - `shuffle=False`: callbacks run in the order in which they became ready, as in asyncio.
    - `early`: a timer may fire up to so many seconds before its time, as with a coarse clock.
    - `step`: microseconds that pass with every callback.
    - `patience`: callbacks after which it is a livelock.
    """

    _closed: bool
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
        self._random = random.Random(seed).random
        self._shuffle, self._early, self._step, self._patience = shuffle, early, step, patience
        self._ready: deque[_Call] = deque()
        self._scheduled: list[tuple[float, int, _Call]] = []
        self._number = self._tasks = 0
        self.micros = self.steps = self.wakeups = 0

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.micros / 1_000_000

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Make a callback ready."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        call = _Call(0.0, callback, args, self, context)
        self._ready.append(call)
        return call

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Make a callback ready: what plays a thread here runs in this one."""
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Make a callback ready at an instant; of two at one instant the older one first."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        call = _Call(when, callback, args, self, context)
        self._number += 1
        heappush(self._scheduled, (when, self._number, call))
        return call

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Make a callback ready after so many seconds."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def create_task(self, coro: Any, *, name: object = None, **more: Any) -> asyncio.Task[Any]:
        """Make a task with a name of its own, by which tasks can be put into an order."""
        self._tasks += 1
        return super().create_task(coro, name=f"{name or 'task'} #{self._tasks:06}", **more)

    def _run_once(self) -> None:
        """Run callbacks until told to stop."""
        ready, scheduled = self._ready, self._scheduled
        latest = self._early + 1e-9
        while not self._stopping:
            if not ready or (scheduled and scheduled[0][0] <= self.micros / 1_000_000 + latest):
                self._take_due()
                if not ready:
                    continue
            if self._shuffle and len(ready) > 1:
                ready.rotate(-int(self._random() * len(ready)))
            call = ready.popleft()
            if call._cancelled:
                continue
            self.steps += 1
            if self.steps > self._patience:
                raise Livelock(f"{self.steps} callbacks at {self.time():.6f} s, the next: {call!r}")
            call._run()
            self.micros += self._step

    def _take_due(self) -> None:
        """Make ready whatever is due; if nothing is ready, go on to the time of the next timer."""
        early = self._random() * self._early if self._early else 0.0
        scheduled = self._scheduled
        while scheduled and scheduled[0][2]._cancelled:
            heappop(scheduled)
        if not self._ready:
            if not scheduled:
                raise Deadlock(f"nothing is ready and nothing is scheduled at {self.time():.6f} s")
            self.wakeups += 1
            due = scheduled[0][0] - early
            self.micros = max(self.micros, ceil(due * 1_000_000))
            if self.micros / 1_000_000 < due:  # after months, a float is coarser than that
                self.micros += 1
        horizon = self.micros / 1_000_000 + early + 1e-9
        while scheduled and scheduled[0][0] <= horizon:
            self._ready.append(heappop(scheduled)[2])

    def _write_to_self(self) -> None:
        raise RuntimeError("a simulation has one thread")


def run(loop: SimLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop, and close the loop."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
