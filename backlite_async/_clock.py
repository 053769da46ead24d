"""Time and identity: the two things that no decision may fetch by itself."""

from __future__ import annotations

import math
import random
import time
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Protocol

from ._errors import InvalidType, InvalidValue

__all__ = [
    "MAX_SECONDS",
    "Clock",
    "IdFactory",
    "SystemClock",
    "after",
    "aware",
    "from_millis",
    "seconds",
    "to_millis",
    "whole_millis",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

MAX_SECONDS = 100 * 365 * 86400.0
"""The longest duration that is taken: a hundred years."""


class Clock(Protocol):
    """Tells the time. Stored instants are wall time, measured durations monotonic."""

    def now(self) -> int:
        """Return the wall time in milliseconds since 1970 UTC, rounded down."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never step."""
        ...


class SystemClock:
    """The computer's clocks."""

    def now(self) -> int:
        """Return the wall time in milliseconds since 1970 UTC, rounded down."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds that never step."""
        return time.monotonic()


def to_millis(instant: datetime) -> int:
    """Convert an aware datetime to stored milliseconds, rounded up so that nothing runs early."""
    return -((_EPOCH - instant) // _MILLISECOND)


def from_millis(millis: int) -> datetime:
    """Convert stored milliseconds to an aware datetime in UTC; beyond the calendar: its end."""
    try:
        return _EPOCH + timedelta(milliseconds=millis)
    except OverflowError:  # datetime.max rounded up, or in a time zone west of UTC
        return (datetime.max if millis > 0 else datetime.min).replace(tzinfo=UTC)


def aware(name: str, instant: object) -> datetime:
    """Return `instant` if it is a timezone-aware datetime, or say what to write instead."""
    if not isinstance(instant, datetime):
        raise InvalidType(f"{name} must be a datetime, not {instant!r}")
    if instant.tzinfo is None or instant.utcoffset() is None:
        raise InvalidValue(
            f"{name}={instant!r} has no time zone; write datetime.now(UTC) or .replace(tzinfo=...)"
        )
    return instant


def seconds(name: str, value: object) -> float:
    """Return a duration given as a number of seconds or a timedelta, in seconds.

    Raises `InvalidType` for anything else, `InvalidValue` for a negative, endless or absurd one.
    """
    if isinstance(value, timedelta):
        number: float = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    else:
        raise InvalidType(f"{name} must be a number of seconds or a timedelta, not {value!r}")
    if not 0 <= number <= MAX_SECONDS:  # nor NaN
        raise InvalidValue(f"{name}={value!r} must lie between 0 and 100 years")
    return float(number)


def whole_millis(duration: float) -> int:
    """Convert seconds to milliseconds, rounded up so that nothing runs early."""
    return ceil(round(duration * 1000, 6))


def after(now: int, duration: float) -> int:
    """Return the instant `duration` seconds after `now`, which is rounded down: so never early."""
    return now + whole_millis(duration) + (duration > 0)


CHECK_AFTER = 2.0
"""Seconds after a step of the wall clock at which to see whether somebody has done what follows."""


class WallSteps:
    """Notices that the wall clock was set back against the monotonic one, and set right again.

    A step forward alone means nothing: it may be a computer that has slept.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead: int | None = None
        self._seen = self._behind = 0
        self._check_at = math.inf

    @property
    def pause(self) -> float:
        """Seconds until it is to be looked at again."""
        return self._check_at - self._clock.monotonic()

    def look(self) -> int | None:
        """Return by how many milliseconds the clock was set back (negative), or set right again.

        None: perhaps it was set back, who knows by how much. So at first, since it may have been while
        nobody ran; and a while after a step back, as whoever should have shifted the waits may have
        died before it did. The same answer comes again until it is `heeded`.
        """
        self._seen = self._now()
        if self._ahead is None or self.pause <= 0:
            return None
        step = self._seen - self._ahead
        if step < -1000:
            return step
        if step > 1000 and self._behind:
            return min(step, self._behind)
        self._ahead += step
        return 0

    def heeded(self, step: int | None) -> None:
        """Take note that what follows from a step was done; another one may have come meanwhile."""
        self._behind -= step or 0
        self._check_at = self._clock.monotonic() + CHECK_AFTER if step is not None and step < 0 else math.inf
        self._ahead = self._seen

    def _now(self) -> int:
        return self._clock.now() - round(self._clock.monotonic() * 1000)


class IdFactory:
    """Makes UUIDv7 ids (RFC 9562, 5.7) that grow, whatever the clock does."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._random = rng
        self._last = 0

    def next(self) -> str:
        """Return an id greater than every one before it."""
        value = (max(self._clock.now(), 0) & 0xFFFF_FFFF_FFFF) << 74 | self._random.getrandbits(74)
        if value <= self._last:  # same millisecond, or a clock that stepped back
            value = self._last + 1 + self._random.getrandbits(32)
        self._last = value
        millis, high, low = value >> 74, value >> 62 & 0xFFF, value & 0x3FFF_FFFF_FFFF_FFFF
        text = f"{millis << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
