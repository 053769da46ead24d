"""Claims within limits cost what they take: not what waits for its turn, nor what is paused or full."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backlite_async._job import Claim, Lane, Limit
from backlite_async.stores.sqlite import claims, control
from backlite_async.stores.sqlite.store import SQLiteStore

NOW = 1_000_000
UNTIL = NOW + 30_000
OPEN, PAUSED, FULL, CLOSED = (
    [f"{name} {number:02}" for number in range(count)]
    for name, count in (("open", 50), ("paused", 20), ("full", 15), ("closed here", 15))
)
"""Queues: half of them open, the others paused, full in all processes, or full in this one."""

ALL = [*OPEN, *PAUSED, *FULL, *CLOSED]

KEYED = "open 07"
"""The queue with jobs of a full key in front of all others."""

ROOM = 100

PENDING = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < :rows - 1)
INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority)
SELECT value || ' ' || n, value, 'T', x'7b7d', 3, 0, n, n, 0
FROM json_each(:queues) CROSS JOIN number
"""

WAITING = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < :rows - 1)
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority, key
)
SELECT 'waiting ' || n, :queue, 'T', x'7b7d', 3, 0, 0, NULL, 10, 'full' FROM number
"""

RUNNING = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < :rows - 1)
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, status, fence, owner, key
)
SELECT :owner || value || n, value, 'T', x'7b7d', 3, 0, 0, :until, 'running', 7, :owner, :key
FROM json_each(:queues) CROSS JOIN number
"""


@pytest.fixture
def connection(path: str) -> Iterator[sqlite3.Connection]:
    """Return a connection to an empty database."""
    asyncio.run(SQLiteStore(path, durability="normal", busy_timeout=5.0).install())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    yield connection
    connection.close()


def names(queues: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{queue}"' for queue in queues) + "]"


def pending(connection: sqlite3.Connection, queues: Iterable[str], rows: int) -> None:
    connection.execute(PENDING, {"queues": names(queues), "rows": rows})


def waiting(connection: sqlite3.Connection, queue: str, rows: int) -> None:
    connection.execute(WAITING, {"queue": queue, "rows": rows})


def running(
    connection: sqlite3.Connection, queues: Iterable[str], owner: str, rows: int = 2, key: str | None = None
) -> None:
    parameters = {"queues": names(queues), "owner": owner, "rows": rows, "key": key, "until": UNTIL + 5}
    connection.execute(RUNNING, parameters)


def limits_of(queues: Sequence[str]) -> list[Limit]:
    """Return limits of all kinds, of which those of some queues leave no room."""
    limited = {
        "open": Limit(queue="", room=60, in_all=200, per_key=2),
        "paused": Limit(queue="", room=5, in_all=9),
        "full": Limit(queue="", in_all=2),
        "closed": Limit(queue="", room=0, in_all=200),
    }
    return [
        Limit(queue=queue, room=limit.room, in_all=limit.in_all, per_key=limit.per_key)
        for queue in queues
        for limit in (limited[queue.split()[0]],)
    ]


def claim(
    connection: sqlite3.Connection,
    queues: Sequence[str],
    limits: Sequence[Limit] | None = None,
    *,
    room: int = ROOM,
) -> Claim:
    lane = Lane(kinds=tuple((queue, "T") for queue in queues), room=room)
    limits = limits_of(queues) if limits is None else limits
    return claims.claim(connection, [lane], owner="mine", now=NOW, until=UNTIL, limits=limits)


def steps(connection: sqlite3.Connection, call: Callable[[], object]) -> int:
    """Count the steps of SQLite's machine, of all statements."""
    count = itertools.count()
    connection.set_progress_handler(lambda: next(count) < 0, 1)
    try:
        call()
    finally:
        connection.set_progress_handler(None, 1)
    return next(count)


@contextmanager
def undone(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def open_alone(connection: sqlite3.Connection, rows: int, owner: str) -> None:
    """Fill with jobs of the open queues, some of which run."""
    pending(connection, OPEN, rows)
    running(connection, ["open 00", "open 01"], owner)
    running(connection, [KEYED], owner, key="full")


def with_closed(connection: sqlite3.Connection, rows: int, owner: str, waiting_rows: int = 10_000) -> None:
    """Add queues that are paused or full, and jobs of a full key in front."""
    open_alone(connection, rows, owner)
    pending(connection, [*PAUSED, *FULL, *CLOSED], rows)
    running(connection, FULL, owner)
    for queue in PAUSED:
        control.pause(connection, queue, NOW)
    waiting(connection, KEYED, waiting_rows)


def compared(connection: sqlite3.Connection, owner: str, room: int) -> tuple[int, int]:
    """Return the steps of a claim from the open queues alone, and of one from all."""
    with undone(connection):
        open_alone(connection, 100, owner)
        claim(connection, OPEN)  # the first time, statements are compiled
    with undone(connection):
        open_alone(connection, 100, owner)
        alone = steps(connection, lambda: claim(connection, OPEN, room=room))
    with undone(connection):
        with_closed(connection, 100, owner)
        together = steps(connection, lambda: claim(connection, ALL, room=room))
    return alone, together


def test_closed_queues_cost_nothing(connection: sqlite3.Connection) -> None:
    """Half of the queues paused or full, and 10,000 jobs of a full key: as if there were none of it."""
    alone, together = compared(connection, "mine", ROOM)
    assert together <= 1.05 * alone


@pytest.mark.parametrize("room", [1, 10, ROOM])
def test_limits_cost_a_count(connection: sqlite3.Connection, room: int) -> None:
    """Limits of fifty open queues cost what it takes to count what runs of each."""
    taken = []
    for limits in ([], limits_of(OPEN)):
        with undone(connection):
            open_alone(connection, 200, "mine")
            claim(connection, OPEN, limits, room=0)
            taken.append(steps(connection, partial(claim, connection, OPEN, limits, room=room)))
    assert taken[1] - taken[0] <= 30 * len(OPEN)


@pytest.mark.parametrize("room", [1, ROOM])
def test_closed_queue_costs_no_more_than_a_look_at_others(connection: sqlite3.Connection, room: int) -> None:
    """Where others run jobs, their leases are looked at, also those of a queue that is closed."""
    alone, together = compared(connection, "other", room)
    assert together - alone <= 40 * len([*PAUSED, *FULL, *CLOSED])


@pytest.mark.parametrize("room", [1, ROOM])
def test_claim_does_not_grow(connection: sqlite3.Connection, room: int) -> None:
    """A whole claim costs the same whatever waits behind what it takes, or for its turn."""
    taken = []
    for rows in (1_000, 100_000):
        with undone(connection):
            with_closed(connection, rows // 50 * 2, "other", rows)
            claim(connection, ALL, room=0)
            taken.append(steps(connection, lambda: claim(connection, ALL, room=room)))
    assert taken[0] == taken[1]


def test_full_keys_are_met_once(connection: sqlite3.Connection) -> None:
    """Jobs of a full key that were added without regard to its turns cost one claim, and no other."""
    taken = []
    for rows in (0, 1_000):
        with undone(connection):
            open_alone(connection, 100, "mine")
            waiting(connection, KEYED, rows)
            connection.execute("UPDATE backlite_jobs SET due_at = 0 WHERE priority = 10")
            first = claim(connection, OPEN)
            assert (len(first.jobs), [job for job in first.jobs if job.key is not None]) == (ROOM, [])
            taken.append(steps(connection, lambda: claim(connection, OPEN)))
    assert taken[0] == taken[1]


# -- what is chosen --------------------------------------------------------------------------------


class Backlog(NamedTuple):
    """Kinds, their jobs (kind by number, priority, due time), and what limits them."""

    kinds: list[tuple[str, str]]
    jobs: list[tuple[int, int, int]]
    rooms: list[int]
    sizes: dict[str, int | None]
    paused: set[str]


@st.composite
def backlogs(draw: st.DrawFn) -> Backlog:
    """Return jobs of some queues with one to three tasks, in up to three lanes."""
    chance = random.Random(draw(st.integers(0, 10_000)))
    queues = range(draw(st.integers(1, 5)))
    kinds = [(f"queue {queue}", f"T{task}") for queue in queues for task in range(chance.randint(1, 3))]
    chance.shuffle(kinds)
    return Backlog(
        kinds=kinds,
        jobs=[
            (chance.randrange(len(kinds)), chance.choice([0, 0, 0, 1, -1]), NOW + chance.randint(-20, 2))
            for _ in range(draw(st.integers(1, 60)))
        ],
        rooms=draw(st.lists(st.sampled_from([0, 1, 2, 5, 50]), min_size=1, max_size=3)),
        sizes={
            f"queue {queue}": size
            for queue in queues
            if (size := draw(st.sampled_from([-1, None, 0, 1, 2, 3, 9]))) != -1
        },
        paused={f"queue {queue}" for queue in queues if draw(st.integers(0, 9)) == 9},
    )


def best(backlog: Backlog, lanes: Sequence[Lane]) -> tuple[list[str], int | None]:
    """Return what a claim is to take, by sorting all there is, and when to look for more."""
    order = sorted(
        range(len(backlog.jobs)), key=lambda seq: (-backlog.jobs[seq][1], backlog.jobs[seq][2], seq)
    )
    lane_of = {kind: number for number, lane in enumerate(lanes) for kind in lane.kinds if lane.room > 0}
    rooms = [lane.room for lane in lanes]
    left = {queue: size_of(backlog, queue) for queue, _ in backlog.kinds}
    fits = {kind: rooms[number] for kind, number in lane_of.items()}
    chosen: list[int] = []
    for seq in order:
        kind = backlog.kinds[backlog.jobs[seq][0]]
        due = backlog.jobs[seq][2] <= NOW and kind[0] not in backlog.paused and kind in lane_of
        if due and left[kind[0]] > 0 and fits[kind] > 0:
            left[kind[0]] -= 1
            fits[kind] -= 1
            if rooms[lane_of[kind]] > 0:
                rooms[lane_of[kind]] -= 1
                chosen.append(seq)
    total = max(lane.room for lane in lanes)
    if len(chosen) >= total:
        return [str(seq) for seq in chosen[:total]], None
    taken = Counter(backlog.kinds[backlog.jobs[seq][0]][0] for seq in chosen)
    waiting = [
        backlog.jobs[seq][2]
        for seq in order
        for kind in (backlog.kinds[backlog.jobs[seq][0]],)
        if seq not in chosen and kind in lane_of and kind[0] not in backlog.paused
        if rooms[lane_of[kind]] > 0 and taken[kind[0]] < size_of(backlog, kind[0])
    ]
    return [str(seq) for seq in chosen], min(waiting, default=None)


def size_of(backlog: Backlog, queue: str) -> int:
    size = backlog.sizes.get(queue)
    return len(backlog.jobs) + 1 if size is None else size


def test_claim_takes_the_best_within_limits(connection: sqlite3.Connection) -> None:
    """First each queue has its best jobs, as many as it may, and of those the lanes have theirs."""

    @settings(max_examples=600, deadline=None, database=None, derandomize=True)
    @given(backlog=backlogs(), in_all=st.booleans())
    def check(backlog: Backlog, in_all: bool) -> None:
        dealt = [backlog.kinds[lane :: len(backlog.rooms)] for lane in range(len(backlog.rooms))]
        lanes = [
            Lane(kinds=tuple(kinds), room=room) for kinds, room in zip(dealt, backlog.rooms, strict=True)
        ]
        limits = [
            Limit(queue=queue, in_all=size) if in_all else Limit(queue=queue, room=size)
            for queue, size in backlog.sizes.items()
        ]
        with undone(connection):
            connection.executemany(
                "INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at,"
                " due_at, priority) VALUES (?, ?, ?, x'7b7d', 3, 0, 0, ?, ?)",
                (
                    (str(seq), *backlog.kinds[kind], due_at, priority)
                    for seq, (kind, priority, due_at) in enumerate(backlog.jobs)
                ),
            )
            for queue in backlog.paused:
                control.pause(connection, queue, NOW)
            seen = claims.look(connection, lanes, owner="mine", now=NOW, limits=limits)
            found = claims.claim(connection, lanes, owner="mine", now=NOW, until=UNTIL, limits=limits)
        expected, next_at = best(backlog, lanes)
        assert [job.id for job in found.jobs] == expected
        assert found.next_at == next_at
        assert (seen is None) == (len(expected) > 0)
        if seen is not None:
            assert seen.next_at == found.next_at

    check()
