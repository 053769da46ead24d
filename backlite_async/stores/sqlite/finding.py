"""Finding the jobs that are wanted: walks along indexes, and looks at what is there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ... import _query
from ..._job import JobStatus
from ..._query import Found, SortKey, Wanted
from ..._stats import Count
from .kept import Expired
from .records import records
from .sql import fetch, text
from .walks import (
    AT_ONCE,
    Spot,
    Way,
    blocked,
    blocked_levels,
    bounds,
    completed,
    decoded,
    kinds,
    levels,
    pending,
    running,
    sections,
    walk,
)

__all__ = ["count", "find"]


def find(
    raw: sqlite3.Connection,
    wanted: Wanted,
    *,
    limit: int,
    after: SortKey | None,
    before: SortKey | None,
    now: int,
    brief: bool = False,
) -> Found:
    """Return the first jobs that are wanted after a place, or the last ones before one."""
    back = before is not None
    looks = _Looks(raw, wanted, Way(before if back else after, back, limit + 1), now)
    found: list[Spot] = []
    while len(found) <= limit and (more := looks.take(limit + 1 - len(found))) is not None:
        found += more
    page = found[:limit]
    left = len(found) > limit or looks.left()
    limited = left and len(page) < limit
    if back:
        page.reverse()
    return Found(
        jobs=records(raw, page, brief=brief),
        places=[spot.place for spot in page],
        more=left,
        limited=limited,
        looked_to=looks.last if limited else None,
    )


def count(raw: sqlite3.Connection, wanted: Wanted, *, most: int, now: int) -> Count:
    """Return how many jobs are wanted."""
    if _driver(wanted) >= _INDEXED and not _looked_at(wanted):
        return _count_indexed(raw, wanted, most, now)
    looks = _Looks(raw, wanted, Way(None, False, min(most + 1, AT_ONCE)), now)
    number = 0
    while number <= most and (more := looks.take(most + 1 - number)) is not None:
        number += len(more)
    return _counted(number, most, number <= most and looks.left())


class _Looks:
    """Looks at jobs in their order: at `LOOKS` of them, where something is wanted that no index knows.

    Places where there is no job, or one that has expired, are no looks; of those there may be as many.
    """

    def __init__(self, raw: sqlite3.Connection, wanted: Wanted, way: Way, now: int) -> None:
        self._raw = raw
        self._wanted = wanted
        self._spots = walk(raw, wanted, way)
        self._looked_at = _looked_at(wanted)
        self._parameters = _parameters(wanted, now)
        self._looks = self._misses = _query.LOOKS
        self._size = way.size
        self._ended = False
        self._bytes: int | None = None
        self._full = False
        self.last: SortKey | None = None

    def take(self, enough: int) -> list[Spot] | None:
        """Return those of the next jobs that are wanted; None: there is nothing more to look at."""
        if self._ended or self._full or self._looks <= 0 or self._misses <= 0:
            return None
        size = min(self._size, self._looks if self._looked_at else enough)
        spots, kept, found = self._next(size)
        if spots:
            self.last = spots[-1].place
        self._size = min(2 * self._size, AT_ONCE)
        self._looks -= kept if self._looked_at else 0
        return found

    def left(self) -> bool:
        """Return whether there is, or may be, a job that has not been looked at."""
        size = 1
        if self._full:
            return True
        while not self._ended and self._misses > 0:
            if self._next(size)[1] or self._full:
                return True
            size = min(2 * size, AT_ONCE)
        return not self._ended

    def _next(self, size: int) -> tuple[list[Spot], int, list[Spot]]:
        """Return the next places, how many jobs are there, and those of them that are wanted."""
        spots = list(islice(self._spots, size))
        self._ended = len(spots) < size
        if self._wanted.text is not None:
            spots = self._bounded(spots)
        live = {spot.seq for spot in spots if spot.live and spot.seq is not None}
        ended = {spot.seq for spot in spots if not spot.live and spot.seq is not None}
        number = len(live)
        if self._wanted.finished is not None:
            live.clear()
        if live and self._looked_at:
            live = set(decoded(self._raw, "wanted_live", self._parameters | {"seqs": text(sorted(live))}))
        if ended:
            parameters = self._parameters | {"seqs": text(sorted(ended))}
            kept, fitting = decoded(self._raw, "wanted_completed", parameters)
            number += len(kept)
            ended = set() if self._wanted.due is not None else set(fitting)
        self._misses -= len(spots) - number
        return spots, number, [spot for spot in spots if spot.seq in (live if spot.live else ended)]

    def _bounded(self, spots: list[Spot]) -> list[Spot]:
        """Return the first of these places, as many as have payloads that may still be looked through."""
        sizes: dict[tuple[bool, int | None], int] = {}
        for name, live in (("live_sizes", True), ("completed_sizes", False)):
            seqs = [spot.seq for spot in spots if spot.live is live and spot.seq is not None]
            if seqs:
                found = decoded(self._raw, name, {"seqs": text(seqs), "now": self._parameters["now"]})
                sizes.update({(live, seq): size for seq, size in found})
        for number, spot in enumerate(spots):
            size = sizes.get((spot.live, spot.seq))
            if size is None:  # no job, or one that has expired
                continue
            if self._bytes is not None and self._bytes + size > _query.LOOK_BYTES:
                self._full = True
                return spots[:number]
            self._bytes = size + (self._bytes or 0)
        return spots


# -- what indexes know -----------------------------------------------------------------------------

_INDEXED = frozenset({"queue", "task", "states", "due", "finished"})
_RUNNING = _INDEXED | {"owner"}


def _driver(wanted: Wanted) -> frozenset[str]:
    """Return what the walk knows, so that it need not be looked at."""
    if wanted.unique is not None:
        return frozenset({"queue", "unique", "workflow", "tag"})
    for name in ("workflow", "tag", "parent"):
        if getattr(wanted, name) is not None:
            return frozenset({name})
    return _RUNNING if wanted.states == frozenset({JobStatus.RUNNING}) else _INDEXED


def _looked_at(wanted: Wanted) -> bool:
    """Return whether anything is wanted that is to be looked at, job by job."""
    known = _driver(wanted)
    return any(getattr(wanted, name) is not None for name in wanted.__struct_fields__ if name not in known)


def _parameters(wanted: Wanted, now: int) -> dict[str, Any]:
    """Return what the statements `wanted_live` and `wanted_completed` are asked for."""
    found: dict[str, Any] = {name: getattr(wanted, name) for name in _ASKED}
    for name in ("added", "due", "finished"):
        found[f"{name}_since"], found[f"{name}_until"] = bounds(getattr(wanted, name))
    found["due"] = None if wanted.due is None else 1
    found["states"] = None if wanted.states is None else text(sorted(wanted.states))
    found["text"] = None if wanted.text is None else _lower(wanted.text)
    found["tag"] = wanted.tag if _driver(wanted) == {"workflow"} else None  # else the walk knows
    found["now"] = now
    return found


_ASKED = ("queue", "task", "key", "tag", "parent", "owner", "workflow")


def _lower(text: str) -> str:
    """Return a text with small ASCII letters, as SQLite does it."""
    return text.encode("utf-8", "replace").lower().decode()


# -- counting -------------------------------------------------------------------------------------


def _count_indexed(raw: sqlite3.Connection, wanted: Wanted, most: int, now: int) -> Count:
    """Count what indexes know; jobs that have expired or do not fit are passed over, `LOOKS` of them."""
    number, misses, cut = 0, _query.LOOKS, False
    expired = Expired(raw, now)
    for name, source in _sources(raw, wanted):
        left = most + 1 - number
        if left <= 0:
            break
        if name == "count_completed" and expired.known:
            kind = (source["queue"], source["task"], source["status"])
            gone = expired.within(kind, source["since"], source["until"])
            number += fetch(raw, "count_ended", source | {"looks": left + gone})[0][0] - gone
            continue
        parameters = source | {"now": now, "looks": left}
        found, looked = fetch(raw, name, parameters)[0]
        if found < looked == left:
            found, looked = fetch(raw, name, parameters | {"looks": left + misses})[0]
            cut = cut or (found < left and looked == left + misses)
        misses -= looked - found
        number += found
    return _counted(number, most, cut)


def _sources(raw: sqlite3.Connection, wanted: Wanted) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the statements, with their parameters, that count together what is wanted."""
    since, until = bounds(wanted.finished if wanted.due is None else wanted.due)
    times = {"since": since, "until": until}
    for _, section in sections(wanted):
        if section is running:
            yield "count_running", {"queue": wanted.queue, "task": wanted.task, "owner": wanted.owner}
        elif section is pending:
            for queue, task, priority in levels(raw, wanted):
                yield "count_pending", {"queue": queue, "task": task, "priority": priority, **times}
        elif section is blocked:
            for queue, task, priority in blocked_levels(raw, wanted):
                yield "count_blocked", {"queue": queue, "task": task, "priority": priority, **times}
        elif section is completed:
            for queue, task, status in kinds(raw, wanted):
                yield "count_completed", {"queue": queue, "task": task, "status": status, **times}
        else:
            queues = decoded(raw, "waiting_queues", {}) if wanted.queue is None else [wanted.queue]
            for queue in queues:
                yield "count_waiting", {"queue": queue, "task": wanted.task, **times}


def _counted(number: int, most: int, cut: bool) -> Count:
    """Return a count; `cut`: there may be more, which nobody has looked at."""
    found = Count.of(number, most)
    found.capped = found.capped or cut
    return found
