"""An event loop that counts its callbacks, and cancels a call after the k-th of them, in several ways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple, TypeVarTuple, Unpack

import anyio

__all__ = ["FEW", "WAYS", "Ended", "Guarded", "SteppingLoop"]

Ts = TypeVarTuple("Ts")

WAYS = ("native", "native late", "twice", "scope", "scope late", "wait_for", "timeout")
"""How a call is cancelled; see `Guarded`."""

FEW = ("native", "scope late", "timeout")
"""Those that differ most, for one more situation of a call that knows them all in another."""

ALARM = 1e9
"""Seconds of a timeout that no clock reaches: the loop lets it end when it is told to."""


ANSWER = 0.002
"""Seconds within which the database answers, most often."""


class SteppingLoop(asyncio.SelectorEventLoop):
    """An ordinary loop whose callbacks are its steps.

    `plan(k, action)` has `action` called between the k-th callback from now and the next. A timer
    of `ALARM` seconds never ends by itself; `ring` ends it as if its time had come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self._left: int | None = None
        self._action: Callable[[], object] | None = None
        self._alarm: tuple[asyncio.TimerHandle, Callable[..., object], tuple[Any, ...]] | None = None

    def plan(self, k: int, action: Callable[[], object]) -> None:
        """Call `action` after so many more callbacks, beside the one that runs now."""
        self._left, self._action = k, action

    def forget(self) -> None:
        """Drop the plan, and the alarm."""
        self._left = self._action = self._alarm = None

    def ring(self) -> bool:
        """End the timer of `ALARM` seconds; return whether it still counted."""
        if self._alarm is None or self._alarm[0].cancelled():
            return False
        handle, callback, args = self._alarm
        handle.cancel()
        callback(*args)
        return True

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Count the callback as a step."""
        return super().call_soon(partial(self._step, callback, *args), context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Count the callback as a step."""
        return super().call_soon_threadsafe(partial(self._step, callback, *args), context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Count the callback as a step; take note of an alarm, from which the plan then counts."""
        handle = super().call_at(when, partial(self._step, callback, *args), context=context)
        if when - self.time() > ALARM / 2:
            self._alarm = (handle, callback, args)
        return handle

    def _step(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            callback(*args)
        finally:
            self.steps += 1
            if self._left is not None:
                self._left -= 1
                if self._left < 0 and self._action is not None:
                    action, self._left, self._action = self._action, None, None
                    action()


class Ended(NamedTuple):
    """How a guarded call ended: "returned", "cancelled" or "raised"; and whether it was cut at all."""

    how: str
    cut: bool
    value: Any
    steps: int


class Guarded:
    """One call under one way of cancellation, cut after its k-th step.

    "late" lets the database answer first, while the loop stands still: the answer is then on its
    way to the loop when the call is cut. "twice" cuts again after the next step but one.
    "everything" cancels all other tasks too, as the end of `asyncio.run` does.
    """

    def __init__(self, loop: SteppingLoop, way: str, call: Callable[[], Awaitable[Any]], k: int) -> None:
        self._loop, self._call, self._k = loop, call, k
        self._way, self._late = way.removesuffix(" late"), way.endswith(" late")
        self._scope = anyio.CancelScope()
        self._cut = False
        self.task: asyncio.Task[Any] | None = None

    async def run(self, limit: float) -> Ended | None:
        """Run the call to its end; None: it has not ended within so many seconds."""
        self._runner = asyncio.current_task()
        self._loop.steps = 0
        self.task = self._loop.create_task(self._body(), name="the call")
        if self._way in ("native", "twice", "everything", "scope"):
            self._loop.plan(self._k, self._strike)
        done, _ = await asyncio.wait([self.task], timeout=limit)
        steps = self._loop.steps
        self._loop.forget()
        if not done:
            return None
        if self.task.cancelled():
            return Ended("cancelled", self._cut, None, steps)
        error = self.task.exception()
        if isinstance(error, TimeoutError) and self._way in ("wait_for", "timeout"):
            return Ended("cancelled", self._cut, None, steps)
        if error is not None:
            return Ended("raised", self._cut, error, steps)
        if self._way == "scope" and self._scope.cancelled_caught:
            return Ended("cancelled", self._cut, None, steps)
        return Ended("returned", self._cut, self.task.result(), steps)

    async def _body(self) -> Any:
        if self._way in ("native", "twice", "everything"):
            return await self._call()
        if self._way == "scope":
            with self._scope:
                return await self._call()
            return None
        self._loop.plan(self._k, self._strike)
        if self._way == "wait_for":
            return await asyncio.wait_for(self._call(), ALARM)
        async with asyncio.timeout(ALARM):
            return await self._call()

    def _strike(self) -> None:
        """Cancel the call, unless it has ended before."""
        if self.task is None or self.task.done():
            return
        if self._late:
            time.sleep(ANSWER)
        if self._way in ("native", "twice"):
            self._cut = self.task.cancel()
            if self._way == "twice":
                self._loop.plan(1, self.task.cancel)
        elif self._way == "everything":
            self._cut = sum(task.cancel() for task in asyncio.all_tasks() if task is not self._runner) > 0
        elif self._way == "scope":
            self._cut = True
            self._scope.cancel()
        else:
            self._cut = self._loop.ring()
