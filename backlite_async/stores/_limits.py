"""What keeps due jobs of the memory store from being claimed: pauses, limits of queues, rates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import dropwhile

from .._job import Lane, Limit
from ._base import still_open
from ._rows import Live, Row

__all__ = ["Limits", "Starts"]


class Starts:
    """The starts of a queue: numbers, each with an instant.

    A start counts at the latest instant at which it can be, until it is known when it was: for
    longer than it should then, never for less.
    """

    def __init__(self) -> None:
        self._instants: dict[int, int] = {}
        self._next = 1

    def room(self, rate: tuple[int, int], *, now: int) -> int:
        """Return how many may start now, so that no window of the rate's length holds too many."""
        first = self._first(rate, now)
        return rate[0] if first is None else max(rate[0] - (self._next - first), 0)

    def permits_at(self, rate: tuple[int, int], *, now: int) -> int:
        """Return when the next start is permitted."""
        first = self._first(rate, now)
        return now if first is None or self.room(rate, now=now) > 0 else self._instants[first] + rate[1]

    def take(self, rate: tuple[int, int], *, now: int, until: int) -> int:
        """Count a start, at `until` at the latest; return its number. Forget what no window can hold."""
        oldest, begin = self._next - rate[0], now - rate[1]
        kept = dropwhile(lambda start: start[0] < oldest and start[1] <= begin, self._instants.items())
        self._instants = dict(kept) | {self._next: until}
        self._next += 1
        return self._next - 1

    def note(self, number: int, at: int) -> None:
        """Correct when a start was; 0: it was none."""
        if number in self._instants:
            self._instants[number] = at

    def _first(self, rate: tuple[int, int], now: int) -> int | None:
        """Return the first number whose start is in the window that ends now."""
        return next((number for number, at in self._instants.items() if at > now - rate[1]), None)


class Limits:
    """What is known of queues, whoever runs their jobs: which are paused, and when jobs started."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.paused: set[str] = set()
        self.starts: defaultdict[str, Starts] = defaultdict(Starts)

    def permitted(self, lanes: Sequence[Lane], limits: Sequence[Limit], *, now: int) -> list[Row]:
        """Return the due jobs that their queues let run, best first."""
        kinds = {kind for lane in lanes for kind in lane.kinds if kind[0] not in self.paused}
        for limit in limits:
            if limit.per_key is not None:
                self._live.fill(kinds, limit.queue, limit.per_key, now=now)
        due = [row for row in self._live.pending() if row.until <= now and row.kind in kinds]
        limited = {limit.queue for limit in limits}
        fits = [row for row in due if row.queue not in limited]
        for limit in limits:
            of_queue = sorted((row for row in due if row.queue == limit.queue), key=lambda row: row.order)
            fits += self._permitted(of_queue, limit, now=now)
        return sorted(fits, key=lambda row: row.order)

    def _permitted(self, due: Sequence[Row], limit: Limit, *, now: int) -> list[Row]:
        """Return the best of the due jobs of a queue that may run; let those of full keys wait."""
        places = self._places(limit)
        if limit.rate is not None:
            places.append(self.starts[limit.queue].room(limit.rate, now=now))
        fits: list[Row] = []
        running = Counter(row.key for row in self._live.running(limit.queue))
        for row in due:
            if len(fits) >= min(places, default=len(due)):
                break
            if row.key is None or limit.per_key is None or running[row.key] < limit.per_key:
                running[row.key] += 1
                fits.append(row)
            else:
                row.due_at = None
        return fits

    def next_due(
        self, lanes: Sequence[Lane], limits: Sequence[Limit], claimed: Sequence[tuple[str, str]], *, now: int
    ) -> list[int]:
        """Return when pending jobs can be claimed, in the lanes and queues that have room after a claim."""
        taken = Counter(queue for queue, _ in claimed)
        full, permitted = set(self.paused), dict[str, int]()
        for limit in limits:
            if min(self._places(limit, taken=taken[limit.queue]), default=1) <= 0:
                full.add(limit.queue)
            elif limit.rate is not None:
                permitted[limit.queue] = self.starts[limit.queue].permits_at(limit.rate, now=now)
        kinds = still_open(lanes, claimed)
        pending = [row for row in self._live.pending() if row.kind in kinds and row.queue not in full]
        instants = [max(row.until, permitted.get(row.queue, now)) for row in pending]
        return [instant for instant in instants if instant > now]

    def _places(self, limit: Limit, *, taken: int = 0) -> list[int]:
        """Return how many places of a queue are free: here, where some were just taken, and in all."""
        places = [] if limit.room is None else [limit.room - taken]
        if limit.in_all is not None:
            places.append(limit.in_all - len(self._live.running(limit.queue)))
        return places
