"""What can be asked of queues."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
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

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Queues"]

RECENT = 5 * MINUTE
"""Milliseconds of `Queue.recent`."""


class Queues:
    """The queues of a client's database: `client.queues`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self, *, most: int = MOST_COUNTED) -> Sequence[Queue]:
        """Return how the queues are doing that have jobs, are paused or were declared, by name.

        Jobs are counted to `most`, which is 10,000 at most: fewer are quicker. `oldest_due` shows jobs that
        starve: by others of higher priority, a limit, a pause, or for want of a handler. How long attempts
        ran and had waited `today` is not there: that costs much for all queues, see `get` and `stats`.
        """
        now = self._client.clock.now()
        number = checked_number("most", most, MOST_COUNTED)
        queues = await self._client.open_store().queues(now=now, most=number)
        if not queues:
            return queues
        recent, today = await self._stats(RECENT, now), await self._numbers(DAY, now)
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

        None: those of all queues together.
        From a minute to 32 days. It is counted by the minute, and what is older than three hours by the
        hour, so the time begins with a whole one: `begin` and `since` tell which it is.
        """
        name, now = None if queue is None else checked_name(queue), self._client.clock.now()
        length = _checked_last(last)
        found = await self._stats(length, now, name, together=name is None)
        return found.get(name or "") or _stats_of([], *_period(length, now))

    async def series(
        self, queue: str | None, last: Duration = timedelta(hours=1), step: Duration | None = None
    ) -> Sequence[QueueStats]:
        """Return the same in steps, oldest first, each with its `begin`; the last one is not over yet.

        A `step` is a minute, or several that divide an hour, or whole hours; where `last` is more than three
        hours, whole hours. None: the least. Steps begin at multiples of it in UTC.
        """
        name, now = None if queue is None else checked_name(queue), self._client.clock.now()
        length = _checked_last(last)
        size = _checked_step(step, length)
        begin = (now - length) // size * size
        rows = await self._client.open_store().stats(
            since=begin, until=now + 1, step=size, queue=name, together=name is None
        )
        counted: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
        for _, start, what, bucket, number in rows:
            counted[start].append((what, bucket, number))
        return [
            _stats_of(counted[start], start, min(start + size, now)) for start in range(begin, now + 1, size)
        ]

    async def _stats(
        self, length: int, now: int, queue: str | None = None, *, together: bool = False
    ) -> dict[str, QueueStats]:
        """Return what was counted of one or all queues, by their names; `together`: of all, as ""."""
        begin, end = _period(length, now)
        rows = await self._client.open_store().stats(
            since=begin, until=end + 1, queue=queue, together=together
        )
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
    unit = MINUTE if length <= KEEP_MINUTES else HOUR
    return (now - length) // unit * unit, now


def _stats_of(counted: Sequence[tuple[str, int, int]], begin: int, end: int) -> QueueStats:
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
