"""Statistics of all queues: of what is over, the sums are remembered, as pages ask often."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ._clock import Clock
from ._stats import HOUR, KEEP_HOURS, KEEP_MINUTES, MINUTE, StatsRow
from .stores import Store

__all__ = ["Counted", "Sums", "by_start"]

Counted = Sequence[tuple[str, int, int]]
"""What was counted: (what, bucket, how many)."""

MINUTE_OVER, HOUR_OVER = 2 * MINUTE, 5 * MINUTE
"""Milliseconds after its end in which a minute or hour is still asked for: outcomes may be written late."""

SETTLED = KEEP_MINUTES + HOUR
"""Milliseconds after which an hour is not asked for once more."""


class Sums:
    """What was counted of all queues of a store, on one event loop.

    Minutes that are over, and hours, are remembered: at most four hours of these, and 32 days of those.
    With each new hour all minutes and the last hours are asked for anew, for what was written late.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._minutes: dict[int, Counted] = {}
        self._hours: dict[int, Counted] = {}
        self._numbers: dict[tuple[int, int], Sequence[StatsRow]] = {}
        self._at = clock.now()

    def are_of(self, store: Store) -> bool:
        """Return whether they are those of a store, and of the event loop that runs."""
        return self._store is store and self._loop is asyncio.get_running_loop()

    async def last(self, length: int, size: int) -> tuple[int, int, Mapping[int, Counted]]:
        """Return when that time began, and now, and what was counted by steps of `size`, in milliseconds.

        Steps begin at multiples of it. One asks at a time, so that the next finds what the first has asked.
        """
        async with self._turn:
            now = self._clock.now()
            self._forget(now)
            begin = since = (now - length) // size * size
            counted: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
            parts = []
            if size % HOUR == 0:
                oldest, since = max(begin, _oldest(now)), max(begin, (now - HOUR_OVER) // HOUR * HOUR)
                if begin < oldest:  # where steps are of days; nothing is to be expected there
                    parts.append(await self._asked(begin, oldest, size))
                parts.append(await self._hours_between(oldest, since))
            parts.append(await self._minutes_since(since, now))
            for part in parts:
                for at, numbers in part.items():
                    counted[at // size * size] += numbers
        return begin, now, counted

    async def numbers(self, length: int) -> tuple[int, int, Sequence[StatsRow]]:
        """Return when a time of whole hours began, and now, and what `Store.numbers` tells of it."""
        async with self._turn:
            now = self._clock.now()
            self._forget(now)
            begin = (now - length) // HOUR * HOUR
            hours = max(begin, (now - HOUR_OVER) // HOUR * HOUR)
            minutes = max(hours, (now - MINUTE_OVER) // MINUTE * MINUTE)
            known: dict[tuple[int, int], Sequence[StatsRow]] = {}
            for since, until in ((begin, hours), (hours, minutes)):
                found = self._numbers.get((since, until))
                if found is None:
                    found = await self._store.numbers(since=since, until=until)
                known[since, until] = found
            self._numbers = known
            new = await self._store.numbers(since=minutes, until=now + 1)
        return begin, now, [*new, *(row for found in known.values() for row in found)]

    async def _hours_between(self, begin: int, end: int) -> Mapping[int, Counted]:
        missing = [at for at in range(begin, end, HOUR) if at not in self._hours]
        if missing:
            since, until = missing[0], missing[-1] + HOUR
            counted = await self._asked(since, until, HOUR)
            self._hours |= {at: counted.get(at, ()) for at in range(since, until, HOUR)}
        return {at: self._hours[at] for at in range(begin, end, HOUR)}

    async def _minutes_since(self, begin: int, now: int) -> Mapping[int, Counted]:
        """Ask from the first one on that is not known to be over."""
        over = max(begin, (now - MINUTE_OVER) // MINUTE * MINUTE)
        known = self._minutes
        since = next((at for at in range(begin, over, MINUTE) if at not in known), over)
        counted = await self._asked(since, now + 1, MINUTE)
        known |= {at: counted.get(at, ()) for at in range(since, over, MINUTE)}
        return {at: known[at] for at in range(begin, since, MINUTE)} | dict(counted)

    async def _asked(self, since: int, until: int, step: int) -> Mapping[int, Counted]:
        return by_start(await self._store.stats(since=since, until=until, step=step, together=True))

    def _forget(self, now: int) -> None:
        """Forget what may have changed since, and what is too old to be asked for; all, if time goes back."""
        if now < self._at:
            self._minutes, self._hours, self._numbers = {}, {}, {}
        elif now // HOUR != self._at // HOUR:
            self._minutes, self._numbers = {}, {}
            oldest, newest = _oldest(now), now - SETTLED
            self._hours = {at: found for at, found in self._hours.items() if oldest <= at < newest}
        self._at = now


def _oldest(now: int) -> int:
    """Return when the first hour began that may be remembered: older ones are deleted."""
    return (now - KEEP_HOURS) // HOUR * HOUR


def by_start(rows: Sequence[StatsRow]) -> Mapping[int, Counted]:
    """Return what was counted by the instants at which steps begin."""
    found: dict[int, list[tuple[str, int, int]]] = {}
    for _, start, what, bucket, number in rows:
        found.setdefault(start, []).append((what, bucket, number))
    return found
