"""Claiming: which jobs can be taken now, as lanes, limits, pauses and turns leave room for them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from ..._job import Claim, ClaimedJob, Lane, Lapsed, Limit
from .rows import claimed_job
from .sql import fetch, statements, text
from .turns import Turns

__all__ = ["claim", "look"]

_claimed_jobs = msgspec.json.Decoder(list[ClaimedJob])
_Kind = tuple[str, str]

LARGEST_PAYLOAD = 65_536
"""Bytes of a payload that travels with others in one array; SQLite's texts have an end, and so has memory."""

FEW_KINDS = 2
"""Kinds of which the best jobs of each are read and sorted; with more, a merge of them costs less."""

STALE = 100
"""Starts that have left their window, which every claim would walk over."""

ROUNDS = 8
"""Choices made in one claim, as long as they meet jobs that are to wait for a turn."""


class _Found(msgspec.Struct, frozen=True):
    """Jobs that can be claimed: where they are, what they will be, and when there is more to do."""

    seqs: str
    jobs: list[ClaimedJob]
    due_at: int | None
    lease_end: int | None


class _Place(NamedTuple):
    """A kind that is open: at most `cap` of it, `room` of its lane, and `size` of its portion."""

    queue: str
    task: str
    cap: int
    lane: int
    room: int
    portion: int | str
    size: int


class _Offer:
    """Lanes, as far as their queues have room now."""

    def __init__(
        self, raw: sqlite3.Connection, lanes: Sequence[Lane], limits: Sequence[Limit], now: int
    ) -> None:
        self._raw = raw
        self._now = now
        self._limits = {limit.queue: limit for limit in limits}
        paused: str = fetch(raw, "paused", {})[0][0]
        self._paused: set[str] = set() if paused == "[]" else set(msgspec.json.decode(paused))
        self._next_starts: dict[str, int] = {}
        self._permitted: dict[str, int] = {}
        self._stale: dict[str, int] = {}
        self.lanes = lanes
        self.total = max([lane.room for lane in lanes], default=0)
        self.sizes = self._sizes() if limits else {}
        self.places = self._places()
        self.per_key = {limit.queue: limit.per_key for limit in limits if limit.per_key is not None}

    def _sizes(self) -> dict[str, int]:
        """Return how many more jobs of each limited queue may run."""
        counted = [
            limit.queue
            for limit in self._limits.values()
            if limit.in_all is not None and limit.room != 0 and limit.queue not in self._paused
        ]
        running: dict[str, int] = {}
        if counted:
            running = msgspec.json.decode(
                fetch(self._raw, "running_of_queues", {"queues": text(counted)})[0][0]
            )
        sizes = {}
        for queue, limit in self._limits.items():
            rooms = [] if limit.room is None else [limit.room]
            if limit.in_all is not None:
                rooms.append(limit.in_all - running.get(queue, 0))
            if limit.rate is not None and queue not in self._paused:
                rooms.append(self._permitted_starts(queue, *limit.rate))
            if rooms:
                sizes[queue] = max(min(rooms), 0)
        return sizes

    def _permitted_starts(self, queue: str, count: int, per: int) -> int:
        """Return how many starts a rate permits now.

        Starts are numbered. One more is permitted if the one `count` before it, and all before that,
        have left the window that ends now: then no window holds more than `count`.
        """
        parameters = {"queue": queue, "since": self._now - per}
        ((first, at, last, lowest),) = fetch(self._raw, "starts", parameters)
        self._next_starts[queue] = (last or 0) + 1
        oldest = last if first is None else first
        if oldest is not None and oldest - lowest >= STALE:
            self._stale[queue] = oldest
        permitted = count if first is None else count - (last + 1 - first)
        if permitted <= 0 and at is not None:
            self._permitted[queue] = at + per
        return int(permitted)

    def _places(self) -> list[_Place]:
        """Return the kinds that are open, with the rooms that they share with others.

        What a kind alone may take is its cap. The kinds of a lane are one portion, but those of a
        limited queue that has several.
        """
        sizes, found = self.sizes, []
        kinds = Counter(queue for lane in self.lanes for queue, _ in lane.kinds if queue in sizes)
        for number, lane in enumerate(self.lanes):
            for queue, task in lane.kinds:
                size = sizes.get(queue, lane.room)
                if size > 0 and lane.room > 0 and queue not in self._paused:
                    cap = min(size, lane.room)
                    if kinds[queue] > 1:
                        found.append(_Place(queue, task, cap, number, lane.room, queue, size))
                    else:
                        found.append(_Place(queue, task, cap, number, lane.room, number, lane.room))
        return found

    @property
    def simple(self) -> bool:
        """Whether all that is open shares one room, and nothing else limits it."""
        return len(self.lanes) == 1 and not any(place.queue in self.sizes for place in self.places)

    def statement(self) -> tuple[str, int]:
        """Return the statement that finds what can be claimed, and of how many it is the best."""
        few = len(self.places) <= FEW_KINDS
        if self.simple:
            return "claimable" if few else "claimable_of_kinds", self.total
        lanes: set[int | str] = {place.lane for place in self.places}
        if lanes == {place.portion for place in self.places}:
            if few and len(lanes) == len(self.places):
                return "claimable_in_lanes", self.total
            if len(lanes) == 1:
                return "claimable_of_kinds", self.places[0].room
        return "claimable_of_kinds_in_lanes", self.total

    def still_open(self, claimed: Sequence[ClaimedJob]) -> list[_Kind]:
        """Return the kinds that there is room for after these jobs."""
        if len(claimed) >= self.total:
            return []
        if self.simple or not claimed:
            return [place[:2] for place in self.places]
        kinds = Counter((job.queue, job.task) for job in claimed)
        queues = Counter(job.queue for job in claimed)
        full = {
            number
            for number, lane in enumerate(self.lanes)
            if sum(kinds[kind] for kind in lane.kinds) >= lane.room
        }
        return sorted(
            (place.queue, place.task)
            for place in self.places
            if place.lane not in full
            and (place.queue not in self.sizes or queues[place.queue] < self.sizes[place.queue])
        )

    def next_start(self, claimed: Sequence[ClaimedJob]) -> int | None:
        """Return when a rate that now permits nothing more lets a job start that there is."""
        if not self._limits:
            return None
        queues = Counter(job.queue for job in claimed)
        instants = []
        for queue, limit in self._limits.items():
            if limit.rate is None or queue in self._paused or queues[queue] < self.sizes[queue]:
                continue
            kinds = [kind for lane in self.lanes for kind in lane.kinds if kind[0] == queue]
            parameters = {"places": text(kinds), "now": self._now, "total": 1}
            due_at = fetch(self._raw, "first_due", parameters)[0][0]
            if queue not in self._permitted:  # the last of them were just taken
                self._permitted_starts(queue, *limit.rate)
            if due_at is not None and queue in self._permitted:
                instants.append(max(due_at, self._permitted[queue]))
        return min(instants, default=None)

    def count_starts(self, claimed: Sequence[ClaimedJob], owner: str, until: int) -> dict[str, int]:
        """Count the starts of queues with a rate, at `until` for now; return their numbers by job."""
        numbers: dict[str, int] = {}
        starts: list[tuple[str, int]] = []
        for job in claimed:
            if job.queue in self._next_starts:
                numbers[job.id] = self._next_starts[job.queue]
                starts.append((job.queue, numbers[job.id]))
                self._next_starts[job.queue] += 1
        if starts:
            for queue in {queue for queue, _ in starts}:
                self._forget_starts(queue)
            self._raw.execute(
                statements()["count_starts"], {"starts": text(starts), "owner": owner, "at": until}
            )
        return numbers

    def forget_stale_starts(self) -> None:
        """Forget what has left the windows of queues that start nothing, where it has become much."""
        for queue, number in self._stale.items():
            self._raw.execute(statements()["forget_starts"], {"queue": queue, "number": number})

    def _forget_starts(self, queue: str) -> None:
        limit = self._limits[queue]
        assert limit.rate is not None
        ((first, _, last, _),) = fetch(
            self._raw, "starts", {"queue": queue, "since": self._now - limit.rate[1]}
        )
        number = first if first is not None else last
        if number is not None:
            self._raw.execute(statements()["forget_starts"], {"queue": queue, "number": number})


def claim(
    raw: sqlite3.Connection,
    lanes: Sequence[Lane],
    *,
    owner: str,
    now: int,
    until: int,
    limits: Sequence[Limit] = (),
    taking: Callable[[Sequence[ClaimedJob]], None] | None = None,
) -> Claim:
    """Take due jobs, best first; `taking` is called when they are taken."""
    offer = _Offer(raw, lanes, limits, now)
    offer.forget_stale_starts()
    found, more = _choose(raw, offer, owner, now)
    if found.jobs:
        raw.execute(statements()["next_fence"])
        raw.execute(statements()["claim"], {"seqs": found.seqs, "owner": owner, "now": now, "until": until})
    if taking is not None:
        taking(found.jobs)
    starts = offer.count_starts(found.jobs, owner, until) if found.jobs and limits else {}
    due_at = now if more else _next_due(raw, offer, found, now)
    return _told(raw, lanes, owner=owner, now=now, found=found, due_at=due_at, starts=starts)


def look(
    raw: sqlite3.Connection, lanes: Sequence[Lane], *, owner: str, now: int, limits: Sequence[Limit] = ()
) -> Claim | None:
    """Return what a claim would that finds nothing due; None: there is something."""
    offer = _Offer(raw, lanes, limits, now)
    parameters = {
        "places": text(offer.still_open([])),
        "kinds": _kinds_of(lanes),
        "total": 1,  # whether there is any
        "owner": owner,
        "now": now,
        "after": -1,
    }
    due_at, lease_end = fetch(raw, "look", parameters)[0]
    if due_at is not None and due_at <= now:
        return None
    if lease_end is None:
        lease_end = _lease_end(raw, lanes, owner, -1)
    instants = [instant for instant in (due_at, offer.next_start([])) if instant is not None]
    found = _Found("[]", [], None, lease_end)
    return _told(raw, lanes, owner=owner, now=now, found=found, due_at=min(instants, default=None), starts={})


def _choose(raw: sqlite3.Connection, offer: _Offer, owner: str, now: int) -> tuple[_Found, bool]:
    """Return the jobs to claim, and whether there may be more that only want another look."""
    found = _claimable(raw, offer, owner, now)
    if not offer.per_key:
        return found, False
    turns = Turns(raw, offer.per_key, now)
    for _ in range(ROUNDS):
        if not turns.settle(found.jobs):
            excess = turns.excess(found.jobs)
            if not excess:
                return found, False
            seqs = msgspec.json.decode(found.seqs)
            raw.execute(statements()["wait_for_turns"], {"seqs": text([seqs[place] for place in excess])})
        found = _claimable(raw, offer, owner, now)
    return _without(found, turns.excess(found.jobs, whole=True)), True


def _without(found: _Found, places: Sequence[int]) -> _Found:
    """Return what was found without the jobs at these places."""
    left_out = set(places)
    seqs = msgspec.json.decode(found.seqs)
    return msgspec.structs.replace(
        found,
        seqs=text([seq for place, seq in enumerate(seqs) if place not in left_out]),
        jobs=[job for place, job in enumerate(found.jobs) if place not in left_out],
    )


def _claimable(raw: sqlite3.Connection, offer: _Offer, owner: str, now: int) -> _Found:
    """Return what can be claimed by the rooms of lanes and queues."""
    name, total = offer.statement()
    most = max([total, *(place.size for place in offer.places)])
    parameters = {
        "places": text(offer.places),
        "kinds": _kinds_of(offer.lanes),
        "total": total,
        "most": most,
        "owner": owner,
        "now": now,
        "after": -1,
        "largest": LARGEST_PAYLOAD,
    }
    try:
        ((seqs, encoded, due_at, lease_end),) = fetch(raw, name, parameters)
        return _Found(seqs, _claimed_jobs.decode(encoded), due_at, lease_end)
    except (msgspec.DecodeError, UnicodeDecodeError, sqlite3.DataError):
        ((seqs, _, due_at, lease_end),) = fetch(raw, name, parameters | {"largest": -1})
        jobs = [claimed_job(row) for row in fetch(raw, "to_claim", {"seqs": seqs})]
        return _Found(seqs, jobs, due_at, lease_end)


def _next_due(raw: sqlite3.Connection, offer: _Offer, found: _Found, now: int) -> int | None:
    """Return when a job is due, or may start, that there is room for after these."""
    open_kinds = offer.still_open(found.jobs)
    due_at = found.due_at if open_kinds else None
    if open_kinds and not offer.simple:
        due_at = fetch(raw, "first_due", {"places": text(open_kinds), "now": now, "total": 1})[0][0]
    instants = [instant for instant in (due_at, offer.next_start(found.jobs)) if instant is not None]
    return min(instants, default=None)


def _told(
    raw: sqlite3.Connection,
    lanes: Sequence[Lane],
    *,
    owner: str,
    now: int,
    found: _Found,
    due_at: int | None,
    starts: Mapping[str, int],
) -> Claim:
    """Return a claim of these jobs, with what is to be told of the leases of others."""
    lapsed, lease_end = [], found.lease_end
    if lease_end is not None and lease_end <= now:
        parameters = {"kinds": _kinds_of(lanes), "owner": owner, "now": now}
        for other, until, *row in fetch(raw, "lapsed", parameters):
            lapsed.append(Lapsed(owner=other, until=until, job=claimed_job(row)))
        lease_end = _lease_end(raw, lanes, owner, now)
    instants = [instant for instant in (due_at, lease_end) if instant is not None]
    return Claim(jobs=found.jobs, lapsed=lapsed, next_at=min(instants, default=None), starts=starts)


def _lease_end(raw: sqlite3.Connection, lanes: Sequence[Lane], owner: str, after: int) -> int | None:
    """Return when the first lease of another owner ends after an instant."""
    parameters = {
        "kinds": _kinds_of(lanes), "owner": owner, "now": after, "after": after, "places": "[]", "total": 1
    }  # fmt: skip
    found: int | None = fetch(raw, "look", parameters)[0][1]
    return found


def _kinds_of(lanes: Sequence[Lane]) -> str:
    return text([kind for lane in lanes for kind in lane.kinds])
