"""What the memory store counts of attempts, by the minute and by the hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .._stats import HOUR, KEEP_HOURS, KEEP_MINUTES, MINUTE, StatsRow, Tally

__all__ = ["Tallies"]


class Tallies:
    """Numbers by queue, span, its begin, what was counted, and bucket."""

    def __init__(self) -> None:
        self._numbers: Counter[tuple[str, int, int, str, int]] = Counter()

    def add(self, tally: Tally, *, what: bool = True) -> None:
        """Count an attempt; without `what` it was, only how long it ran and had waited."""
        queue, start, name, run, wait = tally
        buckets = [(name, 0)] * what + [("run", run)] * (run >= 0) + [("wait", wait)] * (wait >= 0)
        for place in buckets:
            self._numbers[queue, MINUTE, start, *place] += 1

    def add_cancelled(self, queue: str, at: int) -> None:
        """Count a job that the store itself has ended as cancelled."""
        self.add((queue, at - at % MINUTE, "cancelled", -1, -1))

    def of(
        self,
        *,
        since: int,
        until: int,
        step: int | None = None,
        queue: str | None = None,
        together: bool = False,
    ) -> Sequence[StatsRow]:
        """Return what was counted of what began in a time, in steps; `together`: of all queues, as ""."""
        found: Counter[tuple[str, int, str, int]] = Counter()
        for (name, _, start, what, bucket), number in self._numbers.items():
            if since <= start < until and queue in (None, name):
                begin = since if step is None else start - (start - since) % step
                found["" if together else name, begin, what, bucket] += number
        return [(*place, number) for place, number in sorted(found.items())]

    def sum_up(self, *, now: int) -> None:
        """Sum up by the hour what is older than minutes are kept; forget what is older than hours are."""
        numbers, self._numbers = self._numbers, Counter()
        old = now - KEEP_MINUTES
        for (queue, span, start, what, bucket), number in numbers.items():
            hour = start - start % HOUR
            if span == MINUTE and hour >= old - old % HOUR:
                self._numbers[queue, MINUTE, start, what, bucket] = number
            elif hour >= now - KEEP_HOURS:
                self._numbers[queue, HOUR, hour, what, bucket] += number
