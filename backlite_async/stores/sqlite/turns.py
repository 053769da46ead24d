"""Turns: of each key only so many jobs run, the next ones are let in, and the rest waits out of the way.

What waits for its turn has no `due_at`, so no claim meets it. Always, where a job of a key waits, as
many of them run or are let in as may: whoever ends one lets in the next, in the same transaction,
due then, so that keys take turns. That is by task, as its types may be handled by different processes.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ..._job import ClaimedJob, NewJob, Place
from .sql import fetch, statements, text

__all__ = ["Turns", "fill_up", "let_in", "take_turns"]

_Key = tuple[str, str]


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
        found = _count(self._raw, keys, self._now)
        changed = False
        over: list[tuple[str, str, int]] = []
        wanted: list[tuple[str, str, int]] = []
        for key, running, due, waiting in found:
            room = self._rooms[key] = max(self._limits[key[0]] - running, 0)
            if any(number > room for number in due.values()):
                over.append((*key, room))
            wanted += [(*key, self._now)] * max((room - due.get(task, 0) for task in waiting), default=0)
        if over:
            self._raw.execute(statements()["wait_for_turn"], {"keys": text(over), "now": self._now})
            changed = True
        return _let_in(self._raw, wanted) or changed

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
    if not limits:
        return
    over = []
    for key, running, due, _ in _count(raw, limits, now):
        room = max(limits[key] - running, 0)
        if any(number > room for number in due.values()):
            over.append((*key, room))
    if over:
        raw.execute(statements()["wait_for_turn"], {"keys": text(over), "now": now})


def fill_up(raw: sqlite3.Connection, queue: str, turns: int, now: int) -> None:
    """Let in what waits of a queue's keys that have room, when the limit was raised."""
    keys = [(queue, key) for (key,) in fetch(raw, "waiting_keys", {"queue": queue})]
    wanted: list[tuple[str, str, int]] = []
    for key, running, due, waiting in _count(raw, keys, now):
        missing = max((turns - running - due.get(task, 0) for task in waiting), default=0)
        wanted += [(*key, now)] * max(missing, 0)
    _let_in(raw, wanted)


def let_in(raw: sqlite3.Connection, freed: Iterable[Place]) -> None:
    """Let in the next of those that wait for turns which are free, due since then."""
    _let_in(raw, [(place.queue, place.key, place.at) for place in freed if place.key is not None])


def _let_in(raw: sqlite3.Connection, turns: Iterable[tuple[str, str, int]]) -> bool:
    """Let in one for each turn; return whether there were any."""
    rounds: list[list[tuple[str, str, int]]] = []
    taken: Counter[_Key] = Counter()
    for queue, key, at in turns:
        number = taken[queue, key]
        taken[queue, key] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append((queue, key, at))
    let = 0
    for keys in rounds:
        let += raw.execute(statements()["let_in"], {"keys": text(keys)}).rowcount
    return let > 0


def _count(
    raw: sqlite3.Connection, keys: Iterable[_Key], now: int
) -> list[tuple[_Key, int, dict[str, int], list[str]]]:
    """Return of each key how many run, how many are let in and due by task, and which tasks wait."""
    return [
        ((queue, key), running, msgspec.json.decode(due), msgspec.json.decode(waiting))
        for queue, key, running, due, waiting in fetch(raw, "turns", {"keys": text(sorted(keys)), "now": now})
    ]
