"""What can be asked of queues."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from ._clock import from_millis, seconds, whole_millis
from ._config import Duration, checked_name
from ._errors import InvalidValue
from ._filters import checked_number
from ._job import Queue
from ._stats import (
    DAY,
    HOUR,
    KEEP_HOURS,
    KEEP_MINUTES,
    MINUTE,
    MOST_COUNTED,
    QueueStats,
    StatsRow,
    queue_stats,
)
from ._sums import Counted, Sums, by_start

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Queues"]

RECENT = 5 * MINUTE
"""Milliseconds of `Queue.recent`."""


class Queues:
    """The queues of a client's database: `client.queues`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sums: Sums | None = None

    async def list(self, *, most: int = MOST_COUNTED, times: bool = True) -> Sequence[Queue]:
        """Return how the queues are doing that have jobs, are paused or were declared, by name.

        Jobs are counted to `most`, which is 10,000 at most: fewer are quicker. `oldest_due` shows jobs that
        starve: by others of higher priority, a limit, a pause, or for want of a handler. How long attempts
        ran and had waited `today` is not there: that costs much for all queues, see `get` and `stats`; of
        the last minutes it is there if `times` are asked for. What is written late is told late `today`, see
        `series`.
        """
        now = self._client.clock.now()
        number = checked_number("most", most, MOST_COUNTED)
        queues = await self._client.open_store().queues(now=now, most=number)
        if not queues:
            return queues
        recent = await self._stats(RECENT, now) if times else await self._numbers(RECENT, now)
        begin, end, rows = await self._all().numbers(DAY)
        today = _by_queue(rows, begin, end)
        return [_with(queue, recent, today, now) for queue in queues]

    async def get(self, name: str) -> Queue | None:
        """Return how a queue is doing; None if it has no jobs, is not paused, and nobody has declared it."""
        now = self._client.clock.now()
        found = await self._client.open_store().queues(now=now, queue=checked_name(name))
        if not found:
            return None
        recent, today = await self._stats(RECENT, now, name), await self._stats(DAY, now, name)
        return _with(found[0], recent, today, now)

    async def stats(self, queue: str | None, last: Duration = timedelta(hours=1)) -> QueueStats:
        """Return what the attempts of a queue have come to in the last so many seconds, or a timedelta.

        None: those of all queues together, see `series`.
        From a minute to 32 days. It is counted by the minute, and what is older than three hours by the
        hour, so the time begins with a whole one: `begin` and `since` tell which it is.
        """
        name, length = None if queue is None else checked_name(queue), _checked_last(last)
        if name is None:
            begin, end, counted = await self._all().last(length, _unit(length))
            return _stats_of([row for rows in counted.values() for row in rows], begin, end)
        now = self._client.clock.now()
        found = await self._stats(length, now, name)
        return found.get(name) or _stats_of([], *_period(length, now))

    async def series(
        self, queue: str | None, last: Duration = timedelta(hours=1), step: Duration | None = None
    ) -> Sequence[QueueStats]:
        """Return the same in steps, oldest first, each with its `begin`; the last one is not over yet.

        A `step` is a minute, or several that divide an hour, or whole hours; where `last` is more than three
        hours, whole hours. None: the least. Steps begin at multiples of it in UTC.

        Of all queues together (None) the client remembers the minutes that ended two minutes ago, and the
        hours that ended five minutes ago. What is written later than that, as after an outage of the
        database, is told when the next hour begins; of an hour, up to three hours after its end.
        """
        name, length = None if queue is None else checked_name(queue), _checked_last(last)
        size = _checked_step(step, length)
        if name is None:
            begin, now, counted = await self._all().last(length, size)
        else:
            now = self._client.clock.now()
            begin = (now - length) // size * size
            counted = await self._steps(name, begin, now, size)
        return [
            _stats_of(counted.get(start, ()), start, min(start + size, now))
            for start in range(begin, now + 1, size)
        ]

    def _all(self) -> Sums:
        """Return the sums of all queues of the store that is open now."""
        store = self._client.open_store()
        if self._sums is None or not self._sums.are_of(store):
            self._sums = Sums(store, self._client.clock)
        return self._sums

    async def _steps(self, queue: str, begin: int, now: int, size: int) -> Mapping[int, Counted]:
        rows = await self._client.open_store().stats(since=begin, until=now + 1, step=size, queue=queue)
        return by_start(rows)

    async def _stats(self, length: int, now: int, queue: str | None = None) -> dict[str, QueueStats]:
        """Return what was counted of one or all queues, by their names."""
        begin, end = _period(length, now)
        rows = await self._client.open_store().stats(since=begin, until=end + 1, queue=queue)
        return _by_queue(rows, begin, end)

    async def _numbers(self, length: int, now: int) -> dict[str, QueueStats]:
        """Return the same of all queues without the times of attempts."""
        begin, end = _period(length, now)
        return _by_queue(await self._client.open_store().numbers(since=begin, until=end + 1), begin, end)


def _by_queue(rows: Sequence[StatsRow], begin: int, end: int) -> dict[str, QueueStats]:
    counted: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for name, _, what, bucket, number in rows:
        counted[name].append((what, bucket, number))
    return {name: _stats_of(found, begin, end) for name, found in counted.items()}


def _with(queue: Queue, recent: dict[str, QueueStats], today: dict[str, QueueStats], now: int) -> Queue:
    return msgspec.structs.replace(
        queue,
        recent=recent.get(queue.name) or _stats_of([], *_period(RECENT, now)),
        today=today.get(queue.name) or _stats_of([], *_period(DAY, now)),
    )


def _period(length: int, now: int) -> tuple[int, int]:
    """Return begin and end of a time that is no shorter, and begins as it is counted."""
    unit = _unit(length)
    return (now - length) // unit * unit, now


def _unit(length: int) -> int:
    """Return by what a time is counted."""
    return MINUTE if length <= KEEP_MINUTES else HOUR


def _stats_of(counted: Counted, begin: int, end: int) -> QueueStats:
    return queue_stats(counted, timedelta(milliseconds=end - begin), from_millis(begin))


def _checked_last(last: Duration) -> int:
    length = whole_millis(seconds("last", last))
    if not MINUTE <= length <= KEEP_HOURS:
        raise InvalidValue(
            f"last={last!r} must lie between a minute and 32 days, for which statistics are kept"
        )
    return length


def _checked_step(step: Duration | None, length: int) -> int:
    unit, called = HOUR, f"whole hours, as last={timedelta(milliseconds=length)}"
    if length <= KEEP_MINUTES:
        unit, called = MINUTE, "minutes that divide an hour, such as 60, 300 or 900 seconds, or whole hours"
    size = unit if step is None else whole_millis(seconds("step", step))
    if size <= 0 or size % unit or (size % HOUR and HOUR % size):
        raise InvalidValue(
            f"step={step!r} must be {called}: statistics are counted by the minute for three hours, then by"
            " the hour"
        )
    return size
