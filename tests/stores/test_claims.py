"""A claim takes exactly the best jobs, whatever their kinds, and costs what it takes, not what there is."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backlite_async._job import Claim, Lane, Lapsed
from backlite_async.stores.sqlite import claims
from backlite_async.stores.sqlite.store import SQLiteStore

NOW = 1_000
UNTIL = 10_000
MANY, EACH, ROOM = 200, 600, 500
"""Kinds, jobs of each, and the room of a claim, where steps are counted: each kind alone could fill it."""

Kind = tuple[str, str]


class Waiting(NamedTuple):
    """A pending job; its kind by number."""

    kind: int
    priority: int
    due_at: int


def kind_of(number: int) -> Kind:
    return f"queue {number // 2}", f"Task{number % 2}"


def lanes_of(kinds: Sequence[int], rooms: Sequence[int]) -> list[Lane]:
    """Deal kinds out to as many lanes as there are rooms."""
    dealt = [[kind_of(number) for number in kinds[lane :: len(rooms)]] for lane in range(len(rooms))]
    return [Lane(kinds=tuple(kinds), room=room) for kinds, room in zip(dealt, rooms, strict=True)]


def fill(connection: sqlite3.Connection, jobs: Sequence[Waiting]) -> None:
    connection.executemany(
        "INSERT INTO backlite_jobs (seq, id, queue, task, payload, max_attempts, created_at, scheduled_at,"
        " due_at, priority) VALUES (?, ?, ?, ?, x'7b7d', 3, 0, ?, ?, ?)",
        (
            (seq, f"job {seq}", *kind_of(job.kind), job.due_at, job.due_at, job.priority)
            for seq, job in enumerate(jobs)
        ),
    )


def best(jobs: Sequence[Waiting], lanes: Sequence[Lane]) -> tuple[list[int], int | None]:
    """Return what a claim is to take, by sorting all there is, and the next due time in lanes with room."""
    rooms = [lane.room for lane in lanes]
    total = max(rooms)
    lane_of = {kind: number for number, lane in enumerate(lanes) for kind in lane.kinds}
    order = sorted(range(len(jobs)), key=lambda seq: (-jobs[seq].priority, jobs[seq].due_at, seq))
    chosen: list[int] = []
    for seq in order:
        lane = lane_of.get(kind_of(jobs[seq].kind))
        if lane is not None and jobs[seq].due_at <= NOW and rooms[lane] > 0 and len(chosen) < total:
            rooms[lane] -= 1
            chosen.append(seq)
    left = [
        job.due_at
        for seq, job in enumerate(jobs)
        if seq not in set(chosen) and rooms[lane_of.get(kind_of(job.kind), 0)] > 0
        if kind_of(job.kind) in lane_of
    ]
    return chosen, min(left, default=None) if len(chosen) < total else None


@st.composite
def backlogs(draw: st.DrawFn) -> list[Waiting]:
    """Return jobs of one kind to 14: evenly spread, all in one, each kind at once, or skewed."""
    count, kinds = draw(st.integers(1, 120)), draw(st.sampled_from([1, 2, 3, 14]))
    shape = draw(st.sampled_from(["even", "one", "blocks", "skewed", "any"]))
    spread: dict[str, Callable[[int], int]] = {
        "even": lambda number: number % kinds,
        "one": lambda number: 0 if number % 10 else number % kinds,
        "blocks": lambda number: number * kinds // count,
        "skewed": lambda number: min(kinds - 1, (number & -number).bit_length() if number else 0),
        "any": lambda _: chance.randrange(kinds),
    }
    chance = random.Random(draw(st.integers(0, 1_000)))
    priorities = draw(st.lists(st.integers(-10, 10), min_size=1, max_size=5))
    dues = draw(st.lists(st.integers(NOW - 3, NOW + 3) | st.integers(0, 2 * NOW), min_size=1, max_size=9))
    return [
        Waiting(spread[shape](number), chance.choice(priorities), chance.choice(dues))
        for number in range(count)
    ]


@pytest.fixture
def connection(path: str) -> Iterator[sqlite3.Connection]:
    """Return a connection to an empty database."""
    asyncio.run(SQLiteStore(path, durability="normal", busy_timeout=5.0).install())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    yield connection
    connection.close()


def claim(connection: sqlite3.Connection, lanes: Sequence[Lane]) -> Claim:
    return claims.claim(connection, lanes, owner="mine", now=NOW, until=UNTIL)


def steps(connection: sqlite3.Connection, call: Callable[[], object]) -> int:
    """Count the steps of SQLite's machine."""
    count = itertools.count()
    connection.set_progress_handler(lambda: next(count) < 0, 1)
    try:
        call()
    finally:
        connection.set_progress_handler(None, 1)
    return next(count)


def test_claim_takes_the_best(connection: sqlite3.Connection) -> None:
    """Whatever waits, a claim takes what sorting all of it gives, and tells when to look again."""

    @settings(max_examples=600, deadline=None, database=None, derandomize=True)
    @given(
        jobs=backlogs(),
        kinds=st.sampled_from([2, 3, 16]).flatmap(lambda number: st.permutations(range(number))),
        asked=st.sampled_from([1, 2, 3, 16]),
        rooms=st.lists(st.sampled_from([0, 1, 2, 3, 7, 20, 50, 200]), min_size=1, max_size=3),
    )
    def check(jobs: list[Waiting], kinds: list[int], asked: int, rooms: list[int]) -> None:
        connection.execute("BEGIN")
        fill(connection, jobs)
        lanes = lanes_of(kinds[:asked], rooms)
        chosen, next_at = best(jobs, lanes)
        due = next_at is None or next_at > NOW
        seen = claims.look(connection, lanes, owner="mine", now=NOW)
        found = claim(connection, lanes)
        connection.execute("ROLLBACK")
        assert [job.id for job in found.jobs] == [f"job {seq}" for seq in chosen]
        assert found.next_at == next_at
        assert due
        if max(rooms) > 0:
            assert (seen is None) == bool(chosen)
        if seen is not None:
            assert (seen.jobs, seen.next_at) == ([], next_at)

    check()


def test_claim_reports_leases_of_others_alone(connection: sqlite3.Connection) -> None:
    """Of many kinds too, a claim tells of the leases of others that have ended, and of the next to end."""
    kinds = list(range(12))
    lanes = lanes_of(kinds, [50])
    fill(connection, [Waiting(number, 0, 0) for number in kinds])
    for owner, until in (("mine", NOW + 2), ("second", NOW + 5), ("first", NOW)):
        claims.claim(connection, lanes_of(kinds, [2]), owner=owner, now=0, until=until)
        if owner == "second":
            none = claims.claim(connection, lanes_of(kinds, [0]), owner="mine", now=0, until=0)
            assert none.next_at == NOW + 5
    found = claim(connection, lanes)
    assert {(lapsed.owner, lapsed.until) for lapsed in found.lapsed} == {("first", NOW)}
    assert all(isinstance(lapsed, Lapsed) for lapsed in found.lapsed)
    assert (len(found.lapsed), len(found.jobs), found.next_at) == (2, 6, NOW + 5)


SHAPES: dict[str, Callable[[int], Waiting]] = {
    "evenly spread": lambda number: Waiting(number % MANY, 0, 0),
    "one kind after the other": lambda number: Waiting(number // EACH, 0, 0),
    "due one after the other": lambda number: Waiting(number % MANY, 0, -number),
    "in five levels": lambda number: Waiting(number % MANY, number // MANY % 5, 0),
    "the best in one kind": lambda number: Waiting(number % MANY, 10 if number % MANY == 7 else 0, 0),
    "a tenth in front and delayed": lambda number: Waiting(
        number % MANY, *((5, UNTIL) if number // MANY % 10 == 0 else (0, 0))
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rooms", [[ROOM], [ROOM, ROOM // 2]], ids=["one lane", "two lanes"])
def test_kinds_do_not_multiply(connection: sqlite3.Connection, shape: str, rooms: list[int]) -> None:
    """A claim from many full kinds takes at most twice the steps of one from one kind, for each lane."""
    connection.execute("BEGIN")
    fill(connection, [Waiting(0, 0, 0)] * (2 * ROOM))
    one = steps(connection, lambda: claim(connection, lanes_of([0], [ROOM])))
    connection.execute("ROLLBACK")
    connection.execute("BEGIN")
    fill(connection, [SHAPES[shape](number) for number in range(MANY * EACH)])
    many = steps(connection, lambda: claim(connection, lanes_of(range(MANY), rooms)))
    connection.execute("ROLLBACK")
    assert many <= 2 * len(rooms) * one


def test_levels_do_not_multiply(connection: sqlite3.Connection) -> None:
    """A claim from one kind with jobs in every priority level takes no more than one from one level."""
    taken = []
    for levels in (1, 21):
        connection.execute("BEGIN")
        fill(connection, [Waiting(0, number % levels - 10, 0) for number in range(21 * ROOM)])
        taken.append(steps(connection, lambda: claim(connection, lanes_of([0], [ROOM]))))
        connection.execute("ROLLBACK")
    assert taken[1] <= 1.5 * taken[0]
