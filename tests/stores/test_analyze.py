"""The statements of queries.sql seek, whatever ANALYZE has counted while tables were small."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from backlite_async.stores.sqlite.sql import migrations, named, statements

from .test_listing import COUNTED, add_flows, fill, jobs_of
from .test_statements import PARAMETERS, RARE, SMALL, populate, steps

LOOKED_AT = {**PARAMETERS, **RARE}
NAMES = [name for name in named("queries.sql") if name in LOOKED_AT]

BOUNDED = {"trim_errors", "trim_lines", "forget_stats"}
"""Statements that may seek by fewer columns: they read no more than all of a job, or of a minute."""

ALL_THAT_WAITS = {"waits_ahead", "restart_waits", "shift_waits", "shift_waits_back"}
"""Statements that look at every pending job, and may skip some of them."""


def mixed(raw: sqlite3.Connection, rows: int) -> None:
    """Add jobs of all sorts, live and ended, so many of each."""
    jobs = jobs_of(random.Random(3), 20 * rows + 20)
    for ended in (False, True):
        fill(raw, [job for job in jobs if job.ended is ended][:rows])
    add_flows(raw, rows)


def beside(raw: sqlite3.Connection, rows: int) -> None:
    """Add jobs, and something to every other table."""
    populate(raw, 10 * rows)


def plain(raw: sqlite3.Connection, rows: int) -> None:
    """Add jobs of one kind, and such as are kept."""
    for number in range(rows):
        raw.execute(
            "INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at,"
            " due_at) VALUES (?, 'q', 'T', x'7b7d', 3, 0, ?, ?)",
            (f"job {number}", number, number),
        )
        raw.execute(
            "INSERT INTO backlite_completed (id, queue, task, status, priority, attempt, max_attempts,"
            " crashes, created_at, scheduled_at, finished_at)"
            " VALUES (?, 'q', 'T', 'succeeded', 0, 1, 3, 0, 0, 0, 0)",
            (f"ended {number}",),
        )
        raw.execute("INSERT INTO backlite_starts VALUES ('q', ?, 'mine', ?)", (number, number))


def running(raw: sqlite3.Connection, rows: int) -> None:
    """Add claims, every second one to be cancelled."""
    plain(raw, rows)
    raw.execute(
        "UPDATE backlite_jobs SET status = 'running', fence = 1, owner = 'mine',"
        " cancelled_at = CASE WHEN seq % 2 THEN 1 END"
    )


def waiting(raw: sqlite3.Connection, rows: int) -> None:
    """Add jobs of a few keys, every second one let in."""
    plain(raw, rows)
    raw.execute(
        "UPDATE backlite_jobs SET key = 'key-' || seq % 3, due_at = CASE WHEN seq % 2 THEN due_at END"
    )


FILLS: list[tuple[Callable[[sqlite3.Connection, int], None], list[int]]] = [
    (mixed, COUNTED),
    (beside, [1, 2, 4]),
    (plain, [*range(1, 21), 40, 100]),
    (running, [1, 2, 4, 8, 20]),
    (waiting, [1, 2, 4, 8, 9, 20]),
]


def database() -> sqlite3.Connection:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    for statement in (statement for migration in migrations() for statement in migration):
        raw.execute(statement)
    return raw


def plan(raw: sqlite3.Connection, name: str) -> list[str]:
    return [row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + statements()[name], LOOKED_AT[name])]


@pytest.fixture(scope="module")
def plans() -> dict[str, list[str]]:
    """Return the plans of all statements before anything is counted."""
    raw = database()
    found = {name: plan(raw, name) for name in NAMES}
    raw.close()
    return found


def spoilt(name: str, before: list[str], after: list[str]) -> list[str]:
    """Return what is worse in a plan, or new: walks, filters, sorts, other seeks."""
    found = []
    for line in set(after):
        table = re.match(r"(SCAN|SEARCH|BLOOM FILTER ON) ([a-z]\w*)", line)
        if line.startswith("BLOOM"):
            found.append(line)
        elif line.startswith("USE TEMP"):
            found += [line] * (after.count(line) > before.count(line) and name not in BOUNDED)
        elif table is not None and line not in before and table[2] not in SMALL:
            skips = name in ALL_THAT_WAITS and "INDEX backlite_jobs_pending (ANY(" in line
            found += [line] * (not skips and (line.startswith("SCAN") or name not in BOUNDED))
    return found


@pytest.mark.parametrize(
    ("add", "rows"),
    [pytest.param(add, rows, id=f"{add.__name__}-{rows}") for add, counts in FILLS for rows in counts],
)
def test_plans_outlast_analyze(
    plans: dict[str, list[str]], add: Callable[[sqlite3.Connection, int], None], rows: int
) -> None:
    """No plan gets worse, whatever ANALYZE has counted."""
    raw = database()
    add(raw, rows)
    raw.execute("ANALYZE")
    found = {name: worse for name in NAMES if (worse := spoilt(name, plans[name], plan(raw, name)))}
    raw.close()
    assert not found


def counted(rows: int) -> sqlite3.Connection:
    """Return a database with so many rows of each shape, that had ten jobs when it was counted."""
    raw = database()
    beside(raw, 2)
    empty(raw, "backlite_jobs", "backlite_completed", "backlite_unique", "backlite_tags")
    mixed(raw, 10)
    raw.execute("ANALYZE")
    tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    kept = ("backlite_schema", "backlite_fence")
    empty(raw, *(table for table in tables if table.startswith("backlite_") and table not in kept))
    populate(raw, rows)
    return raw


def empty(raw: sqlite3.Connection, *tables: str) -> None:
    for table in tables:
        raw.execute(f"DELETE FROM {table}")


@pytest.fixture(scope="module")
def small() -> Iterator[sqlite3.Connection]:
    connection = counted(1_000)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def large() -> Iterator[sqlite3.Connection]:
    connection = counted(5_000)
    yield connection
    connection.close()


@pytest.mark.parametrize("name", PARAMETERS)
def test_statement_does_not_grow(small: sqlite3.Connection, large: sqlite3.Connection, name: str) -> None:
    """A statement costs the same behind any backlog, though SQLite believes that there are ten jobs."""
    for connection in (small, large):
        steps(connection, name)  # the first time, it is compiled
    assert steps(small, name) == steps(large, name)
