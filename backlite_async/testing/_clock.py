"""A clock that stands still."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from weakref import WeakSet

from .._clock import SystemClock, after, aware, from_millis, seconds, to_millis
from .._config import Duration
from .._errors import InvalidValue

if TYPE_CHECKING:
    from .._client import Client

__all__ = ["ManualClock"]


class ManualClock:
    """A clock that stands still until it is told to go on: `Client(..., clock=ManualClock())`.

    It begins at `start`, an aware datetime (None: now). Wall time and monotonic time go on together.
    Clients made by `testing.client` and `testing.replaced` look for due jobs when it does.
    """

    def __init__(self, start: datetime | None = None) -> None:
        began = SystemClock().now() if start is None else to_millis(aware("start", start))
        self._began = self._now = began
        self.clients: WeakSet[Client] = WeakSet()
        """Those that look for due jobs when it goes on."""

    def now(self) -> int:
        """Return the time in milliseconds since 1970 UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return (self._now - self._began) / 1000

    @property
    def instant(self) -> datetime:
        """The time as an aware datetime."""
        return from_millis(self._now)

    def advance(self, duration: Duration) -> None:
        """Go on by a duration, in seconds or as a timedelta.

        And by a millisecond more, as waits do, which never end early: what waits for a minute is due
        after `advance(60)`.
        """
        self.move(after(self._now, seconds("duration", duration)))

    def set(self, instant: datetime) -> None:
        """Go on to an instant, an aware datetime that is not before the present one."""
        there = to_millis(aware("instant", instant))
        if there < self._now:
            raise InvalidValue(f"instant={instant!r} lies before {self.instant}; time does not run back")
        self.move(there)

    def move(self, there: int) -> None:
        """Go on to an instant in milliseconds, and have clients look."""
        self._now = there
        for waiting in list(self.clients):
            running = waiting._running
            if running is not None and not running.over:
                running.loop.call_soon_threadsafe(waiting.notify)
