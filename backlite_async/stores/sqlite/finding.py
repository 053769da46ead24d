"""Where jobs stand in lists, and finding those that are wanted: walks along indexes, and looks at jobs."""

from __future__ import annotations

import heapq
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from ... import _query
from ..._job import Job, JobStatus, record
from ..._query import Found, SortKey, Wanted
from ..._stats import Count
from .sql import fetch, text

__all__ = ["count", "find"]

_LEAST, _MOST = -(2**63), 2**63 - 1
_RECORD = (
    "id queue task status payload attempt max_attempts crashes priority fence owner"
    " created_at scheduled_at started_at finished_at duration error result expires_at"
    " key timeout parent meta tags cancelled_at progress progress_message"
).split()
"""The columns of the statements `live_records` and `completed_records`, behind the first one."""

_AT_ONCE = 1000
"""Places that are read by one statement, at most."""

_AFTER_ALL = b""
"""What SQLite sorts behind every text."""

_LIVE = frozenset({JobStatus.PENDING, JobStatus.RUNNING})
_ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
_ALL = _LIVE | _ENDED


class _Spot(NamedTuple):
    """A place in a list, and the job there: its number in its table. None: there is no such job."""

    place: SortKey
    seq: int | None
    live: bool


class _Way(NamedTuple):
    """From where to walk, None: from one end; whether backwards; and how far, probably."""

    place: SortKey | None
    back: bool
    size: int


_Section = Callable[[sqlite3.Connection, Wanted, _Way], Iterator[_Spot]]


def find(
    raw: sqlite3.Connection,
    wanted: Wanted,
    *,
    limit: int,
    after: SortKey | None,
    before: SortKey | None,
    now: int,
) -> Found:
    """Return the first jobs that are wanted after a place, or the last ones before one."""
    back = before is not None
    looks = _Looks(raw, wanted, _Way(before if back else after, back, limit + 1), now)
    found: list[_Spot] = []
    while len(found) <= limit and (more := looks.take(limit + 1 - len(found))) is not None:
        found += more
    page = found[:limit]
    left = len(found) > limit or looks.left()
    limited = left and len(page) < limit
    if back:
        page.reverse()
    return Found(
        jobs=_records(raw, page),
        places=[spot.place for spot in page],
        more=left,
        limited=limited,
        looked_to=looks.last if limited else None,
    )


def count(raw: sqlite3.Connection, wanted: Wanted, *, most: int, now: int) -> Count:
    """Return how many jobs are wanted."""
    if _driver(wanted) is _INDEXED and not _looked_at(wanted):
        return _count_indexed(raw, wanted, most, now)
    looks = _Looks(raw, wanted, _Way(None, False, min(most + 1, _AT_ONCE)), now)
    number = 0
    while number <= most and (more := looks.take(most + 1 - number)) is not None:
        number += len(more)
    return _counted(number, most, looks.left())


class _Looks:
    """Looks at jobs in their order: at all, where something is wanted that no index knows.

    At most `LOOKS` then; where indexes know all, at most as many that turn out to be gone or expired.
    """

    def __init__(self, raw: sqlite3.Connection, wanted: Wanted, way: _Way, now: int) -> None:
        self._raw = raw
        self._wanted = wanted
        self._spots = _walk(raw, wanted, way)
        self._looked_at = _looked_at(wanted)
        self._parameters = _parameters(wanted, now)
        self._budget = _query.LOOKS
        self._size = way.size
        self._ended = False
        self.last: SortKey | None = None

    def take(self, enough: int) -> list[_Spot] | None:
        """Return those of the next jobs that are wanted; None: there is nothing more to look at."""
        if self._budget <= 0 or self._ended:
            return None
        size = self._size if self._looked_at else min(enough, self._size)
        size = min(size, self._budget) if self._looked_at else size
        spots = list(islice(self._spots, size))
        self._ended = len(spots) < size
        self._size = min(2 * self._size, _AT_ONCE)
        if spots:
            self.last = spots[-1].place
        found = self._those_wanted(spots)
        self._budget -= len(spots) if self._looked_at else len(spots) - len(found)
        return found

    def left(self) -> bool:
        """Return whether there is anything that has not been looked at."""
        return not self._ended and next(self._spots, None) is not None

    def _those_wanted(self, spots: Sequence[_Spot]) -> list[_Spot]:
        live = {spot.seq for spot in spots if spot.live and spot.seq is not None}
        ended = {spot.seq for spot in spots if not spot.live and spot.seq is not None}
        if self._wanted.finished is not None:
            live.clear()
        if self._wanted.due is not None:
            ended.clear()
        if live and self._looked_at:
            live = self._fitting("wanted_live", live)
        if ended:
            ended = self._fitting("wanted_completed", ended)
        return [spot for spot in spots if spot.seq in (live if spot.live else ended)]

    def _fitting(self, name: str, seqs: set[int]) -> set[int]:
        parameters = self._parameters | {"seqs": text(sorted(seqs))}
        return set(_decoded(self._raw, name, parameters))


# -- what indexes know -----------------------------------------------------------------------------

_INDEXED = frozenset({"queue", "task", "states", "due", "finished"})


def _driver(wanted: Wanted) -> frozenset[str]:
    """Return what the walk knows, so that it need not be looked at."""
    if wanted.tag is not None:
        return frozenset({"tag"})
    if wanted.unique is not None:
        return frozenset({"queue", "unique"})
    return _INDEXED if wanted.parent is None else frozenset({"parent"})


def _looked_at(wanted: Wanted) -> bool:
    """Return whether anything is wanted that is to be looked at, job by job."""
    known = _driver(wanted)
    return any(getattr(wanted, name) is not None for name in wanted.__struct_fields__ if name not in known)


def _range(times: tuple[int | None, int | None] | None) -> tuple[int, int]:
    since, until = times or (None, None)
    return _LEAST if since is None else since, _MOST if until is None else until


def _parameters(wanted: Wanted, now: int) -> dict[str, Any]:
    """Return what the statements `wanted_live` and `wanted_completed` are asked for."""
    found: dict[str, Any] = {name: getattr(wanted, name) for name in ("queue", "task", "key", "parent")}
    for name in ("added", "due", "finished"):
        found[f"{name}_since"], found[f"{name}_until"] = _range(getattr(wanted, name))
    found["due"] = None if wanted.due is None else 1
    found["states"] = None if wanted.states is None else text(sorted(wanted.states))
    found["text"] = None if wanted.text is None else _lower(wanted.text)
    found["now"] = now
    return found


def _lower(text: str) -> str:
    """Return a text with small ASCII letters, as SQLite does it."""
    return text.encode("utf-8", "replace").lower().decode()


# -- walks -----------------------------------------------------------------------------------------


def _walk(raw: sqlite3.Connection, wanted: Wanted, way: _Way) -> Iterator[_Spot]:
    """Return the places of all jobs that the indexes find, section by section."""
    sections = _sections(wanted)
    for number, section in reversed(sections) if way.back else sections:
        begin = None if way.place is None else way.place[0]
        if begin is None or begin == number or (begin < number) is not way.back:  # type: ignore[operator]
            here = way if begin == number else way._replace(place=None)
            yield from section(raw, wanted, here)


def _sections(wanted: Wanted) -> list[tuple[int, _Section]]:
    """Return the sections in which there may be jobs that are wanted, by their numbers."""
    if wanted.tag is not None:
        return [(4, _tagged)]
    if wanted.unique is not None:
        return [
            (number, _unique_in(number)) for number in ((0, 1, 2, 3) if wanted.parent is None else (5, 6))
        ]
    if wanted.parent is not None:
        return [(5, _live_children), (6, _kept_children)]
    states = _ALL if wanted.states is None else wanted.states
    sections: list[tuple[int, _Section]] = []
    if JobStatus.RUNNING in states and wanted.due is None and wanted.finished is None:
        sections.append((0, _running))
    if JobStatus.PENDING in states and wanted.finished is None:
        sections += [(1, _pending), (2, _waiting)]
    if states & _ENDED and wanted.due is None:
        sections.append((3, _completed))
    return sections


def _running(raw: sqlite3.Connection, wanted: Wanted, way: _Way) -> Iterator[_Spot]:
    found = _decoded(raw, "running_places", {"queue": wanted.queue, "task": wanted.task})
    places: list[SortKey] = sorted(((0, at, seq) for at, seq in found), reverse=way.back)
    for place in places:
        if way.place is None or (place < way.place if way.back else place > way.place):
            yield _Spot(place, int(place[2]), True)


def _levels(raw: sqlite3.Connection, wanted: Wanted) -> list[tuple[str, str, int]]:
    """Return the queues, tasks and priorities of pending jobs that are wanted."""
    found = _decoded(raw, "pending_levels", {"queue": wanted.queue})
    return [level for level in found if wanted.task in (None, level[1])]


def _pending(raw: sqlite3.Connection, wanted: Wanted, way: _Way) -> Iterator[_Spot]:
    since, until = _range(wanted.due)
    place = None if way.place is None else (int(way.place[1]), int(way.place[2]))
    begin = _begin(place, since, until, ascending=not way.back)
    name, sign = ("pending_before", -1) if way.back else ("pending_after", 1)
    bound = since if way.back else until
    for at, seq in _merged(raw, name, _levels(raw, wanted), begin, bound, sign, way.size):
        yield _Spot((1, at, seq), seq, True)


def _kinds(raw: sqlite3.Connection, wanted: Wanted) -> list[tuple[str, str, str]]:
    """Return the queues, tasks and statuses of completed jobs that are wanted."""
    states = _ENDED if wanted.states is None else wanted.states
    found = _decoded(raw, "completed_kinds", {"queue": wanted.queue})
    return [kind for kind in found if wanted.task in (None, kind[1]) and kind[2] in states]


def _completed(raw: sqlite3.Connection, wanted: Wanted, way: _Way) -> Iterator[_Spot]:
    since, until = _range(wanted.finished)
    place = None if way.place is None else (-int(way.place[1]), -int(way.place[2]))
    begin = _begin(place, since, until, ascending=way.back)
    name, sign = ("completed_before", 1) if way.back else ("completed_after", -1)
    bound = until if way.back else since
    for at, seq in _merged(raw, name, _kinds(raw, wanted), begin, bound, sign, way.size):
        yield _Spot((3, -at, -seq), seq, False)


def _begin(place: tuple[int, int] | None, since: int, until: int, *, ascending: bool) -> tuple[int, int]:
    """Return the instant and number behind which a walk begins, which goes up or down."""
    if ascending:
        edge = (max(since, _LEAST + 1) - 1, _MOST)
        return edge if place is None else max(edge, place)
    edge = (min(until, _MOST - 1) + 1, _LEAST)
    return edge if place is None else min(edge, place)


def _merged(
    raw: sqlite3.Connection,
    name: str,
    sources: Sequence[tuple[object, ...]],
    begin: tuple[int, int],
    until: int,
    sign: int,
    size: int,
) -> Iterator[tuple[int, int]]:
    """Merge walks of one index, each in the order of instants and numbers; `sign` -1: downwards."""
    if not sources:
        return
    sizes = [min(size // len(sources) + 2, _AT_ONCE)] * len(sources)

    def read(walks: Sequence[tuple[object, ...]], size: int) -> list[list[tuple[int, int]]]:
        found: list[list[tuple[int, int]]] = _decoded(
            raw, name, {"walks": text(walks), "size": size, "until": until}
        )
        return found

    batches = [deque(found) for found in read([(*source, *begin) for source in sources], sizes[0])]
    full = [len(batch) == sizes[0] for batch in batches]
    heads = [
        (sign * batch[0][0], sign * batch[0][1], number) for number, batch in enumerate(batches) if batch
    ]
    heapq.heapify(heads)
    while heads:
        number = heads[0][2]
        at, seq = batches[number].popleft()
        yield at, seq
        if not batches[number] and full[number]:
            sizes[number] = min(2 * sizes[number], _AT_ONCE)
            batches[number].extend(read([(*sources[number], at, seq)], sizes[number])[0])
            full[number] = len(batches[number]) == sizes[number]
        if batches[number]:
            at, seq = batches[number][0]
            heapq.heapreplace(heads, (sign * at, sign * seq, number))
        else:
            heapq.heappop(heads)


def _waiting(raw: sqlite3.Connection, wanted: Wanted, way: _Way) -> Iterator[_Spot]:
    """Walk over jobs that wait for their turn; those that are not wanted are places without a job."""
    since, until = _range(wanted.due)
    place = _waiting_begin(wanted, way)
    name, bounds = "waiting_after", {"above": max(since, _LEAST + 1) - 1, "until": until}
    if way.back:
        name, bounds = "waiting_before", {"above": min(until, _MOST - 1) + 1, "until": since}
    size = min(way.size, _AT_ONCE)
    while place is not None:
        queue, key, task, lowness, at, seq = place
        parameters = {
            "from_queue": queue,
            "from_key": key,
            "from_task": task,
            "from_priority": -lowness,
            "from_instant": at,
            "from_seq": seq,
            "queue": wanted.queue,
            "task": wanted.task,
            "size": size,
            **bounds,
        }
        found = _decoded(raw, name, parameters)
        for *place, fits in found:
            yield _Spot((2, *place), place[-1] if fits else None, True)
        if len(found) < size:
            return
        size = min(2 * size, _AT_ONCE)


def _waiting_begin(wanted: Wanted, way: _Way) -> list[Any] | None:
    """Return the place behind which to walk over those that wait, None where none can follow."""
    edge: str | bytes = _AFTER_ALL if way.back else ""
    number = _MOST if way.back else _LEAST
    priority = 100 if way.back else -100
    begin = [edge if wanted.queue is None else wanted.queue, edge, edge, priority, number, number]
    if way.place is None:
        return begin
    queue = str(way.place[1])
    if wanted.queue is None or wanted.queue == queue:
        return list(way.place[1:])
    return begin if (queue < wanted.queue) is not way.back else None


def _tagged(raw: sqlite3.Connection, wanted: Wanted, way: _Way) -> Iterator[_Spot]:
    return _newest_first(raw, "tagged", 4, wanted.tag, way)


def _live_children(raw: sqlite3.Connection, wanted: Wanted, way: _Way) -> Iterator[_Spot]:
    return _newest_first(raw, "live_children", 5, wanted.parent, way)


def _kept_children(raw: sqlite3.Connection, wanted: Wanted, way: _Way) -> Iterator[_Spot]:
    return _newest_first(raw, "kept_children", 6, wanted.parent, way)


def _newest_first(
    raw: sqlite3.Connection, name: str, section: int, of: str | None, way: _Way
) -> Iterator[_Spot]:
    """Walk from the highest number down, or back."""
    at = -int(way.place[1]) if way.place is not None else _LEAST if way.back else _MOST
    size = min(way.size, _AT_ONCE)
    statement = f"{name}_before" if way.back else f"{name}_after"
    while True:
        found = _decoded(raw, statement, {"of": of, "at": at, "size": size})
        for at, live, ended in found:
            yield _Spot((section, -at), ended if live is None else live, live is not None)
        if len(found) < size:
            return
        size = min(2 * size, _AT_ONCE)


def _unique_in(section: int) -> _Section:
    """Return the walk over the one job that was last added with a unique key, if it is in a section."""

    def walk(raw: sqlite3.Connection, wanted: Wanted, way: _Way) -> Iterator[_Spot]:
        rows = fetch(raw, "place_of_unique", {"queue": wanted.queue, "unique": wanted.unique})
        for row in rows:
            spot = _spot_of(row, child=wanted.parent is not None)
            if spot.place[0] == section and (
                way.place is None or (spot.place < way.place if way.back else spot.place > way.place)
            ):
                yield spot

    return walk


def _spot_of(row: Sequence[Any], *, child: bool) -> _Spot:
    seq, status, queue, key, task, priority, scheduled_at, due_at, started_at, finished_at = row
    live = finished_at is None
    place: SortKey
    if child:
        place = (5 if live else 6, -seq)
    elif not live:
        place = (3, -finished_at, -seq)
    elif status == JobStatus.RUNNING:
        place = (0, started_at or 0, seq)
    elif due_at is None:
        place = (2, queue, key, task, -priority, scheduled_at, seq)
    else:
        place = (1, due_at, seq)
    return _Spot(place, seq, live)


# -- counting, and jobs ----------------------------------------------------------------------------


def _count_indexed(raw: sqlite3.Connection, wanted: Wanted, most: int, now: int) -> Count:
    """Count what the indexes know; of what may have expired no more than can be looked at."""
    number, cut = 0, False
    sections = [section for _, section in _sections(wanted)]
    since, until = _range(wanted.finished if wanted.due is None else wanted.due)
    parameters = {"queue": wanted.queue, "task": wanted.task, "since": since, "until": until, "now": now}
    for section in sections:
        left = most + 1 - number
        if left <= 0:
            break
        if section is _running:
            number += len(_decoded(raw, "running_places", parameters))
            continue
        name = "count_waiting"
        if section is _pending:
            name, parameters["levels"] = "count_pending", text(_levels(raw, wanted))
        elif section is _completed:
            name, parameters["kinds"] = "count_completed", text(_kinds(raw, wanted))
        found, more = fetch(raw, name, parameters | {"looks": left})[0]
        if more and found < left:  # some of them do not count
            found, more = fetch(raw, name, parameters | {"looks": left + _query.LOOKS})[0]
        number, cut = number + found, cut or bool(more)
    return _counted(number, most, cut)


def _counted(number: int, most: int, cut: bool) -> Count:
    """Return a count; `cut`: there may be more, which nobody has looked at."""
    found = Count.of(number, most)
    found.capped = found.capped or cut
    return found


def _records(raw: sqlite3.Connection, spots: Sequence[_Spot]) -> list[Job]:
    """Return the records of the jobs at these places."""
    found: dict[tuple[bool, int], Job] = {}
    for name, live in (("live_records", True), ("completed_records", False)):
        seqs = [spot.seq for spot in spots if spot.live is live]
        if seqs:
            for seq, *columns in fetch(raw, name, {"seqs": text(seqs)}):
                found[live, seq] = record(dict(zip(_RECORD, columns, strict=True)))
    return [found[spot.live, spot.seq] for spot in spots if spot.seq is not None]


def _decoded(raw: sqlite3.Connection, name: str, parameters: dict[str, Any]) -> list[Any]:
    """Run a statement that returns one array."""
    found: list[Any] = msgspec.json.decode(fetch(raw, name, parameters)[0][0])
    return found
