"""Deadlines of what runs, with one timer for all of the same length."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Calls back with each item that was not ended in time.

    Those that may take equally long pass in the order in which they began; so the first one's
    timer serves all, and beginning and ending cost no more than an entry in a dictionary.
    """

    def __init__(self, passed: Callable[[T], None]) -> None:
        self._passed = passed
        self._loop = asyncio.get_running_loop()
        self._began: dict[float, dict[T, float]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def begin(self, item: T, length: float) -> None:
        """Let `item` end within `length` seconds."""
        now = self._loop.time()
        self._began.setdefault(length, {})[item] = now
        if length not in self._timers:
            self._timers[length] = self._loop.call_at(now + length, self._look, length)

    def end(self, item: T, length: float) -> None:
        """Take note that `item` has ended; safe to repeat."""
        began = self._began.get(length)
        if began is not None:
            began.pop(item, None)

    def close(self) -> None:
        """Call back no more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _look(self, length: float) -> None:
        """Call back with those whose time is over, and look again when it is for the next one."""
        del self._timers[length]
        began = self._began[length]
        over = self._loop.time() - length
        passed = []
        for item, at in began.items():
            if at > over:
                self._timers[length] = self._loop.call_at(at + length, self._look, length)
                break
            passed.append(item)
        for item in passed:
            del began[item]
        if not began:
            del self._began[length]
        for item in passed:
            self._passed(item)
