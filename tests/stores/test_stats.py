"""What is counted in SQLite: sums are right however they are cut, and cost what is asked for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async._job import Declared, DeclaredTask
from backlite_async._stats import DAY, HOUR, KEEP_HOURS, KEEP_MINUTES, MINUTE, Tally
from backlite_async.stores._base import MOST_COUNTED
from backlite_async.stores.sqlite import control, stats
from backlite_async.stores.sqlite.sql import migrations

from .conftest import Opener
from .test_contract import claim, complete, new

START = 1_000 * DAY


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    """Make a database in memory, with the whole schema."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in [statement for steps in migrations() for statement in steps]:
        connection.execute(statement)
    yield connection
    connection.close()


def asked(raw: sqlite3.Connection, *, since: int = 0, until: int = START * 2, **changes: Any) -> list[Any]:
    return stats.stats(
        raw, since=since, until=until, **{"step": None, "queue": None, "together": False} | changes
    )


TALLIES = st.tuples(
    st.sampled_from(["a", "b"]),
    st.integers(0, 40 * 24 * 60).map(lambda minute: START - minute * MINUTE),
    st.sampled_from(["succeeded", "retried"]),
    st.integers(-1, 3),
    st.integers(-1, 3),
)


@given(st.lists(TALLIES, max_size=40), st.integers(1, 5))
def test_sums_are_those_of_all_parts(tallies: list[Tally], parts: int) -> None:
    """In however many transactions it was counted; summed up by the hour, nothing is lost but the oldest."""
    expected: Counter[tuple[str, str, int]] = Counter()
    old: Counter[tuple[str, str, int]] = Counter()
    forgotten = START - KEEP_HOURS
    for queue, start, what, run, wait in tallies:
        for key in [(queue, what, 0), (queue, "run", run), (queue, "wait", wait)]:
            if key[2] >= 0:
                expected[key] += 1
                old[key] += start // HOUR * HOUR < forgotten
    with database() as raw:
        for part in range(parts):
            stats.tally(raw, Counter(tallies[part::parts]))
        assert {(row[0], *row[2:4]): row[4] for row in asked(raw)} == expected
        for _ in range(2):
            stats.sum_up(raw, START)
            assert {(row[0], *row[2:4]): row[4] for row in asked(raw)} == expected - old
        spans = dict(raw.execute("SELECT span, min(start) FROM backlite_stats GROUP BY span"))
        assert spans.get(MINUTE, START) >= (START - KEEP_MINUTES) // HOUR * HOUR
        assert spans.get(HOUR, START) >= forgotten


@given(st.lists(TALLIES, max_size=20), st.integers(0, 3 * DAY), st.integers(1, 4 * HOUR))
def test_steps_hold_what_began_in_them(tallies: list[Tally], back: int, step: int) -> None:
    """Each minute is in one step, that in which it begins; nothing of another time is counted."""
    since, until = START - back, START - back // 3
    expected: defaultdict[tuple[str, int], int] = defaultdict(int)
    for queue, start, what, *_ in tallies:
        if since <= start < until and what == "succeeded":
            expected[queue, since + (start - since) // step * step] += 1
    with database() as raw:
        stats.tally(raw, Counter(tallies))
        found = asked(raw, since=since, until=until, step=step)
        assert {tuple(row[:2]): row[4] for row in found if row[2] == "succeeded"} == expected
        assert found == sorted(found)
        for queue in "ab":
            assert asked(raw, since=since, until=until, step=step, queue=queue) == [
                row for row in found if row[0] == queue
            ]


def test_what_comes_late_is_added_to_its_hour() -> None:
    """A minute that was written after its hour had been summed up."""
    late: Tally = ("q", START - DAY, "succeeded", 5, -1)
    with database() as raw:
        for number in (1, 2):
            stats.tally(raw, Counter([late]))
            stats.sum_up(raw, START)
            assert raw.execute("SELECT span, what, number FROM backlite_stats").fetchall() == [
                (HOUR, "run", number),
                (HOUR, "succeeded", number),
            ]


def test_nothing_counted_is_nothing_written() -> None:
    with database() as raw:
        stats.tally(raw, Counter())
        assert (asked(raw), asked(raw, queue="q")) == ([], [])
        stats.sum_up(raw, START)


async def test_outcomes_of_several_stores_add_up(open_store: Opener) -> None:
    """Whoever ends jobs, and in whatever groups: an outcome that is written twice counts once."""
    stores = [await open_store(), await open_store()]
    await stores[0].add([new(str(number)) for number in range(60)])
    jobs = (await claim(stores[0], room=60)).jobs
    outcomes = [
        complete(job, keep=None, tally=("q", START, "succeeded", int(job.id) % 4, -1)) for job in jobs
    ]
    halves = [outcomes[:40], outcomes[20:]]
    lost = await asyncio.gather(*[store.finish(half) for store, half in zip(stores, halves, strict=True)])
    assert sorted(len(ids) for ids in lost) == [0, 20]
    found = await stores[1].stats(since=0, until=START + 1)
    assert found == [("q", 0, "run", bucket, 15) for bucket in range(4)] + [("q", 0, "succeeded", 0, 60)]


# -- numbers of queues -----------------------------------------------------------------------------


MANY = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_completed (
    id, queue, task, status, priority, attempt, max_attempts, crashes, created_at, scheduled_at, finished_at,
    expires_at
)
SELECT status || task || n, 'q', task, status, 0, 1, 1, 0, 0, 0, n, CASE WHEN n <= :expired THEN 50 END
FROM number CROSS JOIN (SELECT 'T' AS task UNION ALL SELECT 'U')
CROSS JOIN (SELECT 'failed' AS status UNION ALL SELECT 'cancelled')
"""

LIVE = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority, key
)
SELECT
    task || at || n, 'q', task, x'7b7d', 1, 0, 0, at, n % 3, CASE WHEN at IS NULL THEN 'k' END
FROM number CROSS JOIN (SELECT 'T' AS task UNION ALL SELECT 'U')
CROSS JOIN (SELECT 50 AS at UNION ALL SELECT 900)
UNION ALL SELECT 'waits' || n, 'q', 'T', x'7b7d', 1, 0, 0, NULL, 0, 'k' FROM number
"""


def counts(raw: sqlite3.Connection) -> dict[str, int]:
    [found] = control.queues(raw, 100)
    names = ("pending", "scheduled", "waiting", "due", "failed", "cancelled")
    return {name: getattr(found, name) for name in names}


def test_numbers_of_a_queue() -> None:
    """Of all its tasks and priorities; what has expired is not counted."""
    with database() as raw:
        raw.execute(MANY, {"rows": 50, "expired": 10})
        raw.execute(LIVE, {"rows": 30})
        expected = {"pending": 150, "scheduled": 60, "waiting": 30, "due": 60, "failed": 80, "cancelled": 80}
        assert counts(raw) == expected
        assert control.queues(raw, 100)[0].capped == ()


def test_numbers_of_a_queue_are_capped() -> None:
    """Counting ends; and it counts the newest, of which the fewest have expired."""
    with database() as raw:
        raw.execute(MANY, {"rows": MOST_COUNTED + 10, "expired": 10})
        raw.execute(LIVE, {"rows": MOST_COUNTED + 10})
        assert counts(raw) == dict.fromkeys(counts(raw), MOST_COUNTED)
        assert set(control.queues(raw, 100)[0].capped) == counts(raw).keys()


@pytest.mark.parametrize("what", ["limits", "title", "schema", "another task"])
async def test_what_is_declared_again_is_not_written(open_store: Opener, what: str) -> None:
    """A process that starts writes nothing that is known already, and anything that is new."""
    store = await open_store()
    task = DeclaredTask("T", "title", "title, and more", None)
    tasks = (task, msgspec.structs.replace(task, name="U"))
    queue = Declared(
        queue="q", keeps=True, keep_for=None, keep_payload=False, turns=None, limits="{}", tasks=tasks
    )
    changed = {
        "limits": msgspec.structs.replace(queue, limits='{"concurrency": 5}'),
        "title": msgspec.structs.replace(queue, tasks=(msgspec.structs.replace(task, title="another"),)),
        "schema": msgspec.structs.replace(queue, tasks=(msgspec.structs.replace(task, schema="{}"),)),
        "another task": msgspec.structs.replace(queue, tasks=(msgspec.structs.replace(task, name="V"),)),
    }[what]
    changes = []
    for declared in (queue, queue, msgspec.structs.replace(queue, tasks=tasks[:1]), changed):
        await store.declare([declared], now=5)
        changes.append(await store._database.writer.call(lambda raw: raw.total_changes))
    assert changes[0] == changes[1] == changes[2] < changes[3]
