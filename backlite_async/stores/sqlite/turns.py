"""Turns: of each key only so many jobs run, the next ones are let in, and the rest waits out of the way.

What waits for its turn has no `due_at`, so no claim meets it. Always, where a job of a key waits, as
many of them run or are let in as may: whoever ends one lets in the next, in the same transaction,
due then, so that keys take turns. That is by task, as its types may be handled by different processes.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from ..._job import ClaimedJob, NewJob, Place
from .sql import fetch, statements, text

__all__ = ["Turns", "crowd", "fill_up", "let_in", "take_turns"]

_Key = tuple[str, str]
_Turn = tuple[str, str, int, str | None]
"""A queue, a key, since when its turn is free, and the task that it is for: None, one of each."""


class _OfKey(NamedTuple):
    """What there is of a key: how many run, how many are let in and due by task, and which tasks wait."""

    key: _Key
    running: int
    due: dict[str, int]
    waiting: list[str]

    def crowded(self, room: int) -> bool:
        """Return whether more of a task are let in than there is room for."""
        return any(number > room for number in self.due.values())

    def missing(self, room: int, now: int) -> list[tuple[_Turn, int]]:
        """Return the turns, and how often, that nobody has who waits."""
        return [((*self.key, now, task), room - self.due.get(task, 0)) for task in self.waiting]


class Turns:
    """The keys that one claim meets, and how many more jobs of each may run."""

    def __init__(self, raw: sqlite3.Connection, limits: Mapping[str, int], now: int) -> None:
        self._raw = raw
        self._limits = limits
        self._now = now
        self._rooms: dict[_Key, int] = {}

    def settle(self, jobs: Sequence[ClaimedJob]) -> bool:
        """Let in and let wait what is to, of keys that were not met before; return whether that was any."""
        keys = {key for job in jobs if (key := self._key(job)) is not None and key not in self._rooms}
        if not keys:
            return False
        over: list[tuple[str, str, int]] = []
        missing: list[tuple[_Turn, int]] = []
        for found in _count(self._raw, keys, self._now):
            room = self._rooms[found.key] = max(self._limits[found.key[0]] - found.running, 0)
            if found.crowded(room):
                over.append((*found.key, room))
            missing += found.missing(room, self._now)
        if over:
            self._raw.execute(statements()["wait_for_turn"], {"keys": text(over), "now": self._now})
        return _let_in(self._raw, missing) or bool(over)

    def excess(self, jobs: Sequence[ClaimedJob], *, whole: bool = False) -> list[int]:
        """Return the places of jobs whose key has no room beside those before them.

        With `whole` also those of keys that were not met before.
        """
        taken: Counter[_Key] = Counter()
        places = []
        for place, job in enumerate(jobs):
            key = self._key(job)
            if key is None:
                continue
            if taken[key] >= self._rooms.get(key, 0 if whole else len(jobs)):
                places.append(place)
            taken[key] += 1
        return places

    def _key(self, job: ClaimedJob) -> _Key | None:
        return None if job.key is None or job.queue not in self._limits else (job.queue, job.key)


def take_turns(raw: sqlite3.Connection, jobs: Iterable[NewJob], now: int) -> None:
    """Let new jobs wait for their turn whose key is full."""
    limits = {
        (job.queue, job.more.key): job.more.turns
        for job in jobs
        if job.more is not None and job.more.key is not None and job.more.turns is not None
    }
    if limits:
        crowd(raw, limits, now)


def crowd(raw: sqlite3.Connection, limits: Mapping[_Key, int], now: int) -> None:
    """Let due jobs of these keys wait, of which there are more than may run."""
    rooms = [(found, max(limits[found.key] - found.running, 0)) for found in _count(raw, limits, now)]
    over = [(*found.key, room) for found, room in rooms if found.crowded(room)]
    if over:
        raw.execute(statements()["wait_for_turn"], {"keys": text(over), "now": now})


def fill_up(raw: sqlite3.Connection, queue: str, turns: int, now: int) -> None:
    """Let in what waits of a queue's keys that have room, when the limit was raised."""
    keys = [(queue, key) for (key,) in fetch(raw, "waiting_keys", {"queue": queue})]
    missing: list[tuple[_Turn, int]] = []
    for found in _count(raw, keys, now):
        missing += found.missing(max(turns - found.running, 0), now)
    _let_in(raw, missing)


def let_in(raw: sqlite3.Connection, freed: Iterable[Place]) -> None:
    """Let in the next of those that wait for turns which are free, one of each task, due since then."""
    _let_in(raw, [((place.queue, place.key, place.at, None), 1) for place in freed if place.key is not None])


def _let_in(raw: sqlite3.Connection, turns: Iterable[tuple[_Turn, int]]) -> bool:
    """Let in so many for each turn, as long as any wait; return whether there were any."""
    left = [(turn, count) for turn, count in turns if count > 0]
    let = 0
    while left:
        first = {(queue, key, task): (queue, key, at, task) for (queue, key, at, task), _ in reversed(left)}
        found = raw.execute(statements()["let_in"], {"keys": text(list(first.values()))}).rowcount
        if found == 0:
            break
        let += found
        taken = Counter(first.values())
        left = [(turn, count - taken.pop(turn, 0)) for turn, count in left]
        left = [(turn, count) for turn, count in left if count > 0]
    return let > 0


def _count(raw: sqlite3.Connection, keys: Iterable[_Key], now: int) -> list[_OfKey]:
    """Return how many of each key run, are let in, and wait."""
    return [
        _OfKey((queue, key), running, msgspec.json.decode(due), msgspec.json.decode(waiting))
        for queue, key, running, due, waiting in fetch(raw, "turns", {"keys": text(sorted(keys)), "now": now})
    ]
