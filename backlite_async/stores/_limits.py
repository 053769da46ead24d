"""What keeps due jobs of the memory store from being claimed: pauses, limits of queues, rates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence

from .._job import Lane, Limit
from ._base import STEP_NOTICE, still_open
from ._rows import Live, Row

__all__ = ["Limits", "Starts"]


class Starts:
    """The starts of a queue: numbers, each with an instant.

    A start counts at the latest instant at which it can be, until it is known when it was: for
    longer than it should then, never for less.
    """

    def __init__(self) -> None:
        self._instants: dict[int, int] = {}
        self._owners: dict[int, str] = {}
        self._next = 1

    def room(self, rate: tuple[int, int], *, now: int) -> int:
        """Return how many may start now, so that no window of the rate's length holds too many."""
        first = self._first(rate, now)
        return rate[0] if first is None else max(rate[0] - (self._next - first), 0)

    def permits_at(self, rate: tuple[int, int], *, now: int) -> int:
        """Return when the next start is permitted."""
        first = self._first(rate, now)
        return now if first is None or self.room(rate, now=now) > 0 else self._instants[first] + rate[1]

    def forget(self, rate: tuple[int, int], *, now: int) -> None:
        """Forget what no window can hold any more, but for the last one."""
        first = self._first(rate, now)
        oldest = self._next - 1 if first is None else first
        self._instants = {number: at for number, at in self._instants.items() if number >= oldest}
        self._owners = {number: self._owners[number] for number in self._instants}

    def take(self, *, owner: str, until: int) -> int:
        """Count a start of an owner, at `until` at the latest; return its number."""
        number = self._next
        self._instants[number], self._owners[number] = until, owner
        self._next += 1
        return number

    def note(self, number: int, at: int) -> None:
        """Correct when a start was; 0: it was none."""
        if number in self._instants:
            self._instants[number] = at

    def end(self, owners: Sequence[str], *, now: int) -> None:
        """Count what owners that have died may have started as started by now."""
        for number, at in self._instants.items():
            if self._owners[number] in owners:
                self._instants[number] = min(at, now)

    def shift(self, *, now: int, by: int) -> None:
        """Follow a step of the clock; with 0, one that nobody saw: what has started has started by now.

        Where it cannot be told whether a start was before the step or after it, it counts for longer.
        """
        latest = now + STEP_NOTICE
        for number, at in self._instants.items():
            if by > 0 and at > 0:
                self._instants[number] = max(at, min(at + by, now))
            elif at > latest:
                self._instants[number] = at + by if by else now

    def _first(self, rate: tuple[int, int], now: int) -> int | None:
        """Return the first number whose start is in the window that ends now."""
        return next((number for number, at in self._instants.items() if at > now - rate[1]), None)


class Limits:
    """What is known of queues, whoever runs their jobs: which are paused, and when jobs started."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.paused: set[str] = set()
        self.starts: defaultdict[str, Starts] = defaultdict(Starts)

    def end_starts(self, owners: Sequence[str], *, now: int) -> None:
        """Count what owners that have died may have started as started by now."""
        for starts in self.starts.values():
            starts.end(owners, now=now)

    def choose(self, lanes: Sequence[Lane], limits: Sequence[Limit], *, now: int) -> list[Row]:
        """Return the jobs to claim, best first; settle of their keys which jobs have their turn."""
        turns = {limit.queue: limit.per_key for limit in limits if limit.per_key is not None}
        settled: set[tuple[str, str]] = set()
        while True:
            chosen = self._fitting(lanes, limits, now=now)
            met = _places(chosen, turns) - settled
            settled |= met
            changed = [self._live.settle(queue, key, turns[queue], now=now) for queue, key in met]
            late = [] if any(changed) else self._beyond(chosen, turns)
            for row in late:
                row.due_at = None
            if not late and not any(changed):
                return chosen

    def _fitting(self, lanes: Sequence[Lane], limits: Sequence[Limit], *, now: int) -> list[Row]:
        """Return what fits: of each kind its lane, of that the room of its queue, of that its lane again."""
        due: list[Row] = []
        for kind, room in {kind: lane.room for lane in lanes for kind in lane.kinds}.items():
            of_kind = [row for row in self._live.pending() if row.until <= now and row.kind == kind]
            due += sorted(of_kind, key=lambda row: row.order)[: 0 if kind[0] in self.paused else room]
        for limit in limits:
            of_queue = sorted((row for row in due if row.queue == limit.queue), key=lambda row: row.order)
            due = [row for row in due if row.queue != limit.queue] + of_queue[: self._room(limit, now=now)]
        best = sorted(due, key=lambda row: row.order)
        fits = [row for lane in lanes for row in [row for row in best if row.kind in lane.kinds][: lane.room]]
        total = max((lane.room for lane in lanes), default=0)
        return sorted(fits, key=lambda row: row.order)[:total]

    def _beyond(self, chosen: Sequence[Row], turns: Mapping[str, int]) -> list[Row]:
        """Return those for which their key has no room beside those before them."""
        taken: Counter[tuple[str, str]] = Counter()
        beyond = []
        for row in chosen:
            for queue, key in _places([row], turns):
                if taken[queue, key] >= self._live.free(queue, key, turns[queue]):
                    beyond.append(row)
                taken[queue, key] += 1
        return beyond

    def next_due(
        self, lanes: Sequence[Lane], limits: Sequence[Limit], claimed: Sequence[Row], *, now: int
    ) -> list[int]:
        """Return when pending jobs are due for which there is room after a claim, or their rate permits."""
        pending = [row for row in self._live.pending() if row.queue not in self.paused]
        taken = Counter(row.queue for row in claimed)
        full = {limit.queue for limit in limits if self._room(limit, now=now, taken=taken[limit.queue]) == 0}
        kinds = still_open(lanes, [row.kind for row in claimed])
        instants = [row.until for row in pending if row.kind in kinds and row.queue not in full]
        asked = {kind for lane in lanes for kind in lane.kinds}
        for limit in limits:
            starts = self.starts[limit.queue]
            if limit.rate is not None and starts.room(limit.rate, now=now) == 0:
                permitted = starts.permits_at(limit.rate, now=now)
                of_queue = [row for row in pending if row.queue == limit.queue and row.kind in asked]
                instants += [max(row.until, permitted) for row in of_queue]
        return instants

    def _room(self, limit: Limit, *, now: int, taken: int = 0) -> int:
        """Return how many jobs of a queue may be claimed, here after some, of those that are pending."""
        rooms = [sum(row.queue == limit.queue for row in self._live.pending())]
        if limit.room is not None:
            rooms.append(limit.room - taken)
        if limit.in_all is not None:
            rooms.append(limit.in_all - len(self._live.running(limit.queue)))
        if limit.rate is not None:
            rooms.append(self.starts[limit.queue].room(limit.rate, now=now))
        return max(min(rooms), 0)

    def shift(self, *, now: int, by: int) -> None:
        """Shift the starts as waits are after a step of the clock; with 0, none is later than can be."""
        for starts in self.starts.values():
            starts.shift(now=now, by=by)


def _places(rows: Sequence[Row], queues: Container[str]) -> set[tuple[str, str]]:
    """Return the keys of jobs, each with its queue, of those queues."""
    return {(row.queue, row.key) for row in rows if row.key is not None and row.queue in queues}
