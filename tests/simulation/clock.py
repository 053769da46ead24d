"""The clock of a simulation: virtual time, and a wall that can be moved."""

from __future__ import annotations

from .loop import SimLoop

__all__ = ["EPOCH", "SimClock"]

EPOCH = 1_750_000_000_000
"""The wall time in milliseconds at which every simulation begins."""


class SimClock:
    """Tells the loop's time. The wall jumps when told to; the monotonic part never steps."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.offset = 0
        self.went_back = 0.0

    def now(self) -> int:
        """Return the wall time in milliseconds, rounded down."""
        return EPOCH + self.offset + self._loop.micros // 1000

    def monotonic(self) -> float:
        """Return the virtual time in seconds."""
        return self._loop.time()

    def jump(self, seconds: float) -> None:
        """Move the wall, forward or back."""
        self.offset += round(seconds * 1000)
        self.went_back -= min(seconds, 0.0)
