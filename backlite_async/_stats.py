"""What is counted of attempts: numbers by minute, and histograms of how long they ran and had waited.

A histogram has four buckets to each doubling of the time, so a percentile taken from it is right to within
an eighth. Buckets are numbered, and those of all processes add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

__all__ = [
    "DAY",
    "HOUR",
    "KEEP_HOURS",
    "KEEP_MINUTES",
    "MINUTE",
    "MOST_COUNTED",
    "WHATS",
    "Count",
    "Percentiles",
    "QueueStats",
    "StatsRow",
    "Tally",
    "bucket",
    "bucket_time",
    "capped",
    "queue_stats",
]

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
KEEP_MINUTES, KEEP_HOURS = 3 * HOUR, 32 * DAY
"""Milliseconds for which statistics are kept by the minute, then by the hour."""

WHATS = ("succeeded", "failed", "cancelled", "retried", "snoozed", "crashed")
"""What an attempt can have been. "failed": its job has; "retried": it has failed, and its job goes on."""

MOST_COUNTED = 10_000
"""Where the counts of queues end, or earlier."""

Tally = tuple[str, int, str, int, int]
"""What one attempt adds: its queue, when it ended (milliseconds, of its minute), which of `WHATS` it was, the
buckets of the microseconds that it ran and had waited for its start since it was due; -1: neither."""

StatsRow = tuple[str, int, str, int, int]
"""Of a queue: begin of a minute or hour, what (one of `WHATS`, "run", "wait"), the bucket, how many."""


class Count(int):
    """A number of jobs; `capped`: there are more, which were not counted."""

    capped: bool = False

    @classmethod
    def of(cls, number: int, most: int) -> Count:
        """Make one of a number that was counted up to one more than `most`."""
        count = cls(min(number, most))
        count.capped = number > most
        return count

    def __repr__(self) -> str:
        return f"{int(self)}{'+' * self.capped}"

    __str__ = __repr__


def capped(numbers: Mapping[str, int], most: int) -> dict[str, Any]:
    """Return numbers that were counted up to one more than `most` as a queue shows them."""
    cut = {name: min(number, most) for name, number in numbers.items()}
    return cut | {"capped": tuple(name for name, number in numbers.items() if number > most)}


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """How long half, nine in ten, 99 in a hundred took at most, and the longest, within an eighth."""

    p50: timedelta
    p90: timedelta
    p99: timedelta
    longest: timedelta


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """What attempts of a queue have come to in a time.

    `begin`: when that began; `since`: how long it was. `run`: how long attempts ran; `wait`: how long they
    had waited since they were due. None: there were none.
    """

    since: timedelta = timedelta()
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    snoozed: int = 0
    crashed: int = 0
    begin: datetime | None = None
    run: Percentiles | None = None
    wait: Percentiles | None = None

    @property
    def ended(self) -> int:
        """Jobs that have ended."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def throughput(self) -> float:
        """Jobs that have ended, per second."""
        return self.ended / self.since.total_seconds() if self.since else 0.0


def bucket(micros: int) -> int:
    """Return the bucket of a time in microseconds: four to each doubling."""
    if micros < 4:
        return max(micros, 0)
    shift = micros.bit_length() - 3
    return (shift << 2) + (micros >> shift)


def bucket_time(number: int) -> float:
    """Return the middle of a bucket, in microseconds."""
    if number < 8:
        return float(number)
    shift, mantissa = (number >> 2) - 1, (number & 3) + 4
    return (mantissa + 0.5) * (1 << shift)


def queue_stats(
    rows: Iterable[tuple[str, int, int]], since: timedelta, begin: datetime | None = None
) -> QueueStats:
    """Sum up what was counted: (what, bucket, how many)."""
    numbers = dict.fromkeys(WHATS, 0)
    histograms: dict[str, dict[int, int]] = {"run": {}, "wait": {}}
    for what, place, count in rows:
        if what in numbers:
            numbers[what] += count
        elif what in histograms:
            histograms[what][place] = histograms[what].get(place, 0) + count
    return QueueStats(
        since=since,
        begin=begin,
        **numbers,
        run=_percentiles(histograms["run"]),
        wait=_percentiles(histograms["wait"]),
    )


def _percentiles(histogram: dict[int, int]) -> Percentiles | None:
    total = sum(histogram.values())
    if not total:
        return None
    found: list[timedelta] = []
    places = sorted(histogram)
    last = places[-1]
    for percent in (50, 90, 99):
        left = percent * total
        for last in places:
            left -= 100 * histogram[last]
            if left <= 0:
                break
        found.append(timedelta(microseconds=bucket_time(last)))
    longest = timedelta(microseconds=bucket_time(places[-1]))
    return Percentiles(p50=found[0], p90=found[1], p99=found[2], longest=longest)
