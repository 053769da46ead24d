"""A clock that knows when it was looked at last: how late a handler is that has to wait for a processor."""

from __future__ import annotations

import threading
import time
from math import inf

__all__ = ["MARGIN", "Looked"]

MARGIN = 0.02
"""Seconds that the library gives a handler to come to its first line, once it has started it."""


class Looked:
    """The computer's clocks."""

    def __init__(self) -> None:
        self._last = threading.local()

    def now(self) -> int:
        """Return the wall time in milliseconds."""
        self._last.at = time.time_ns()
        return int(self._last.at // 1_000_000)

    def monotonic(self) -> float:
        """Return seconds that never step."""
        return time.monotonic()

    def late(self) -> float:
        """Return by how many seconds more than its margin a handler is late whose first line this is.

        Just before that the library has looked at the clock in the same thread. What comes between them
        is no work of its own, so nobody could have done it sooner.
        """
        return max(0.0, (time.time_ns() - getattr(self._last, "at", inf)) / 1e9 - MARGIN)
