"""Walks along indexes: where jobs stand in lists, section by section, in both directions."""

from __future__ import annotations

import heapq
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from ..._job import JobStatus
from ..._query import SortKey, Wanted
from .sql import fetch, text

__all__ = [
    "AFTER_ALL",
    "AT_ONCE",
    "Spot",
    "Way",
    "blocked",
    "blocked_levels",
    "bounds",
    "completed",
    "decoded",
    "kinds",
    "levels",
    "pending",
    "running",
    "sections",
    "walk",
]

AT_ONCE = 1000
"""Places that are read by one statement, at most."""

_LEAST, _MOST = -(2**63), 2**63 - 1

AFTER_ALL = b""
"""What SQLite sorts behind every text."""

_LIVE = frozenset({JobStatus.PENDING, JobStatus.RUNNING})
_ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
_ALL = _LIVE | _ENDED


class Spot(NamedTuple):
    """A place in a list, and the job there: its number in its table. None: there is no such job."""

    place: SortKey
    seq: int | None
    live: bool


class Way(NamedTuple):
    """From where to walk, None: from one end; whether backwards; and how far, probably."""

    place: SortKey | None
    back: bool
    size: int


_Section = Callable[[sqlite3.Connection, Wanted, Way], Iterator[Spot]]


def walk(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
    """Return the places of all jobs that the indexes find, section by section."""
    found = sections(wanted)
    for number, section in reversed(found) if way.back else found:
        begin = None if way.place is None else way.place[0]
        if begin is None or begin == number or (begin < number) is not way.back:  # type: ignore[operator]
            here = way if begin == number else way._replace(place=None)
            yield from section(raw, wanted, here)


def sections(wanted: Wanted) -> list[tuple[int, _Section]]:
    """Return the sections in which there may be jobs that are wanted, by their numbers."""
    if wanted.unique is not None:
        return [(number, _unique_in(number)) for number in _numbers_of_unique(wanted)]
    if wanted.workflow is not None:
        return [(8, _steps)]
    if wanted.tag is not None:
        return [(5, _tagged)]
    states = _ALL if wanted.states is None else wanted.states
    found: list[tuple[int, _Section]] = []
    if wanted.parent is not None:
        if states & _LIVE and wanted.finished is None:
            found.append((6, _live_children))
        if states & _ENDED and wanted.due is None:
            found.append((7, _kept_children))
        return found
    if JobStatus.RUNNING in states and wanted.due is None and wanted.finished is None:
        found.append((0, running))
    if JobStatus.PENDING in states and wanted.finished is None and wanted.owner is None:
        found += [(1, pending), (2, _waiting), (3, blocked)]
    if states & _ENDED and wanted.due is None:
        found.append((4, completed))
    return found


def _numbers_of_unique(wanted: Wanted) -> tuple[int, ...]:
    """Return the sections in which the job may be that has a unique key."""
    if wanted.workflow is not None:
        return (8,)
    if wanted.tag is not None:
        return (5,)
    return (6, 7) if wanted.parent is not None else (0, 1, 2, 3, 4)


def running(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
    """Walk over jobs that run: they are few, and read at once."""
    found = decoded(
        raw, "running_places", {name: getattr(wanted, name) for name in ("queue", "task", "owner")}
    )
    places: list[SortKey] = sorted(((0, at, seq) for at, seq in found), reverse=way.back)
    for place in places:
        if way.place is None or (place < way.place if way.back else place > way.place):
            yield Spot(place, int(place[2]), True)


def levels(raw: sqlite3.Connection, wanted: Wanted) -> list[tuple[str, str, int]]:
    """Return the queues, tasks and priorities of pending jobs with a due time that are wanted."""
    return _levels(raw, "pending_levels", wanted)


def blocked_levels(raw: sqlite3.Connection, wanted: Wanted) -> list[tuple[str, str, int]]:
    """Return those of jobs that wait for other steps, in their order: the highest priority first."""
    return _levels(raw, "blocked_levels", wanted)


def _levels(raw: sqlite3.Connection, name: str, wanted: Wanted) -> list[tuple[str, str, int]]:
    found = decoded(raw, name, {"queue": wanted.queue})
    return [(queue, task, priority) for queue, task, priority in found if wanted.task in (None, task)]


def pending(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
    """Walk over pending jobs with a due time."""
    since, until = bounds(wanted.due)
    place = None if way.place is None else (int(way.place[1]), int(way.place[2]))
    begin = _begin(place, since, until, ascending=not way.back)
    name, sign = ("pending_before", -1) if way.back else ("pending_after", 1)
    bound = since if way.back else until
    sources = levels(raw, wanted)
    for at, seq in _merged(raw, name, sources, begin, until=bound, sign=sign, size=way.size):
        yield Spot((1, at, seq), seq, True)


def kinds(raw: sqlite3.Connection, wanted: Wanted) -> list[tuple[str, str, str]]:
    """Return the queues, tasks and statuses of completed jobs that are wanted."""
    states = _ENDED if wanted.states is None else wanted.states
    found = decoded(raw, "completed_kinds", {"queue": wanted.queue})
    return [kind for kind in found if wanted.task in (None, kind[1]) and kind[2] in states]


def completed(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
    """Walk over completed jobs, the last one to end first."""
    since, until = bounds(wanted.finished)
    place = None if way.place is None else (-int(way.place[1]), -int(way.place[2]))
    begin = _begin(place, since, until, ascending=way.back)
    name, sign = ("completed_before", 1) if way.back else ("completed_after", -1)
    bound = until if way.back else since
    sources = kinds(raw, wanted)
    for at, seq in _merged(raw, name, sources, begin, until=bound, sign=sign, size=way.size):
        yield Spot((4, -at, -seq), seq, False)


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
    *,
    until: int,
    sign: int,
    size: int,
) -> Iterator[tuple[int, int]]:
    """Merge walks of one index, each in the order of instants and numbers; `sign` -1: downwards."""
    if not sources or sign * begin[0] > sign * until:
        return
    sizes = [min(size // len(sources) + 2, AT_ONCE)] * len(sources)

    def read(walks: Sequence[tuple[object, ...]], size: int) -> list[list[tuple[int, int]]]:
        found: list[list[tuple[int, int]]] = decoded(
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
            sizes[number] = min(2 * sizes[number], AT_ONCE)
            batches[number].extend(read([(*sources[number], at, seq)], sizes[number])[0])
            full[number] = len(batches[number]) == sizes[number]
        if batches[number]:
            at, seq = batches[number][0]
            heapq.heapreplace(heads, (sign * at, sign * seq, number))
        else:
            heapq.heappop(heads)


def _waiting(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
    """Walk over jobs that wait for their turn; those that are not wanted are places without a job."""
    since, until = bounds(wanted.due)
    place = _waiting_begin(wanted, way)
    name, within = "waiting_after", {"above": max(since, _LEAST + 1) - 1, "until": until}
    if way.back:
        name, within = "waiting_before", {"above": min(until, _MOST - 1) + 1, "until": since}
    size = min(way.size, AT_ONCE)
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
            **within,
        }
        found = decoded(raw, name, parameters)
        for *place, fits in found:
            yield Spot((2, *place), place[-1] if fits else None, True)
        if len(found) < size:
            return
        size = min(2 * size, AT_ONCE)


def _waiting_begin(wanted: Wanted, way: Way) -> list[Any] | None:
    """Return the place behind which to walk over those that wait, None where none can follow."""
    edge: str | bytes = AFTER_ALL if way.back else ""
    number = _MOST if way.back else _LEAST
    priority = 100 if way.back else -100
    begin = [edge if wanted.queue is None else wanted.queue, edge, edge, priority, number, number]
    if way.place is None:
        return begin
    queue = str(way.place[1])
    if wanted.queue is None or wanted.queue == queue:
        return list(way.place[1:])
    return begin if (queue < wanted.queue) is not way.back else None


def blocked(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
    """Walk over jobs that wait for other steps of their workflows, level by level."""
    since, until = bounds(wanted.due)
    name, bound = ("blocked_before", since) if way.back else ("blocked_after", until)
    here = None if way.place is None else tuple(way.place[1:4])
    size = min(way.size, AT_ONCE)
    found = blocked_levels(raw, wanted)
    for queue, task, priority in reversed(found) if way.back else found:
        level = (queue, task, -priority)
        if here is not None and level != here and (level < here) is not way.back:
            continue
        place = None if way.place is None or level != here else (int(way.place[4]), int(way.place[5]))
        at, seq = _begin(place, since, until, ascending=not way.back)
        while True:
            walk = {"queue": queue, "task": task, "priority": priority, "at": at, "seq": seq}
            places = decoded(raw, name, walk | {"until": bound, "size": size})
            for at, seq in places:
                yield Spot((3, *level, at, seq), seq, True)
            if len(places) < size:
                break
            size = min(2 * size, AT_ONCE)


def _steps(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
    return _numbered(raw, "steps", 8, wanted.workflow, way, sign=1)


def _tagged(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
    return _numbered(raw, "tagged", 5, wanted.tag, way)


def _live_children(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
    return _numbered(raw, "live_children", 6, wanted.parent, way)


def _kept_children(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
    return _numbered(raw, "kept_children", 7, wanted.parent, way)


def _numbered(
    raw: sqlite3.Connection, name: str, section: int, of: str | None, way: Way, *, sign: int = -1
) -> Iterator[Spot]:
    """Walk from the highest number down, or back; `sign` 1: from the lowest up, or back."""
    begin = _MOST if (sign == 1) is way.back else _LEAST
    at = begin if way.place is None else sign * int(way.place[1])
    size = min(way.size, AT_ONCE)
    statement = f"{name}_before" if way.back else f"{name}_after"
    while True:
        found = decoded(raw, statement, {"of": of, "at": at, "size": size})
        for at, live, ended in found:
            yield Spot((section, sign * at), ended if live is None else live, live is not None)
        if len(found) < size:
            return
        size = min(2 * size, AT_ONCE)


def _unique_in(section: int) -> _Section:
    """Return the walk over the one job that was last added with a unique key, if it is in a section."""

    def walk(raw: sqlite3.Connection, wanted: Wanted, way: Way) -> Iterator[Spot]:
        names = {name: getattr(wanted, name) for name in ("queue", "unique", "tag")}
        for row in fetch(raw, "place_of_unique", names):
            spot = _spot_of(row, wanted)
            if spot.place[0] == section and (
                way.place is None or (spot.place < way.place if way.back else spot.place > way.place)
            ):
                yield spot

    return walk


def _spot_of(row: Sequence[Any], wanted: Wanted) -> Spot:
    (
        seq,
        status,
        queue,
        key,
        task,
        priority,
        scheduled_at,
        due_at,
        started_at,
        finished_at,
        number,
        blocked,
        workflow,
        step,
    ) = row
    live = finished_at is None
    place: SortKey
    is_there = wanted.tag is None or number is not None
    if wanted.workflow is not None:
        place = (8, step or 0)
        is_there = is_there and wanted.workflow == workflow
    elif wanted.tag is not None:
        place = (5, -(number or 0))
    elif wanted.parent is not None:
        place = (6 if live else 7, -seq)
    elif not live:
        place = (4, -finished_at, -seq)
    elif status == JobStatus.RUNNING:
        place = (0, started_at or 0, seq)
    elif blocked is not None:
        place = (3, queue, task, -priority, scheduled_at, seq)
    elif due_at is None:
        place = (2, queue, key, task, -priority, scheduled_at, seq)
    else:
        place = (1, due_at, seq)
    return Spot(place, seq if is_there else None, live)


def bounds(times: tuple[int | None, int | None] | None) -> tuple[int, int]:
    """Return the first and the last instant of a range."""
    since, until = times or (None, None)
    return _LEAST if since is None else since, _MOST if until is None else until


def decoded(raw: sqlite3.Connection, name: str, parameters: dict[str, Any]) -> list[Any]:
    """Run a statement that returns one array."""
    found: list[Any] = msgspec.json.decode(fetch(raw, name, parameters)[0][0])
    return found
