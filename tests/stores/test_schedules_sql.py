"""The statements of schedules.sql seek, whatever ANALYZE has counted, and cost the same at any number."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from backlite_async.stores.sqlite.sql import migrations, named, statements

NAMES = named("schedules.sql")

FILL = """
WITH RECURSIVE
    number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows),
    shape (kind, next_at) AS (
        VALUES ('due', 0), ('later', 900000000), ('paused', NULL), ('due too', 0), ('late', 5000)
    )
INSERT INTO backlite_schedules (
    name, version, timing, job, missed, overlap, jitter, created_at, updated_at, next_at, last_job_id
)
SELECT kind || ' ' || n, 3, '{}', '{}', 'one', true, 0, 0, 0, next_at + n, 'job ' || n
FROM shape CROSS JOIN number
"""

JOBS = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at)
SELECT 'job ' || n, 'q', 'T', x'7b7d', 3, 0, n, n FROM number
"""

WRITTEN: dict[str, Any] = {
    "timing": "{}",
    "job": "{}",
    "missed": "one",
    "overlap": True,
    "jitter": 0,
    "max_runs": None,
    "declared": None,
    "declared_by": "[]",
    "removed": False,
    "paused_at": None,
    "created_at": 0,
    "updated_at": 0,
    "next_at": 7,
    "runs": 0,
    "skipped": 0,
    "last_instant": None,
    "last_at": None,
    "last_job_id": None,
}
MOVED = {"added": 1, "skipped": 0, "next_at": 7, "last_instant": 5, "at": 6, "last_job_id": "new"}

PARAMETERS: dict[str, dict[str, Any]] = {
    "add_schedule": WRITTEN | {"name": "new"},
    "change_schedule": WRITTEN | {"name": "due 7", "expected": 3},
    "delete_schedule": {"name": "due 7"},
    "schedules": {},
    "schedule": {"name": "later 7"},
    "due_schedules": {"now": 900_000, "limit": 10},
    "next_tick": {},
    "ticking": {"name": "due 7", "version": 3},
    "tick": MOVED | {"name": "due 7"},
}
"""What each statement is given."""

FOUND = {"schedule": 1, "due_schedules": 10, "next_tick": 1, "ticking": 1}
CHANGED = {"add_schedule", "change_schedule", "delete_schedule", "tick"}

WHOLE = {"schedules"}
"""Statements that a person asks for, of all there is."""


def database(rows: int, *, counted: int | None = None) -> sqlite3.Connection:
    """Return a database with five times so many schedules, that had `counted` when SQLite counted them."""
    raw = sqlite3.connect(":memory:", isolation_level=None)
    for statement in (statement for migration in migrations() for statement in migration):
        raw.execute(statement)
    if counted is not None:
        fill(raw, counted)
        raw.execute("ANALYZE")
        for table in ("schedules", "jobs"):
            raw.execute(f"DELETE FROM backlite_{table}")
    fill(raw, rows)
    return raw


def fill(raw: sqlite3.Connection, rows: int) -> None:
    if rows:
        for statement in (FILL, JOBS):
            raw.execute(statement, {"rows": rows})


def plan(raw: sqlite3.Connection, name: str) -> list[str]:
    return [row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + statements()[name], PARAMETERS[name])]


def steps(raw: sqlite3.Connection, name: str) -> int:
    """Count the steps of SQLite's machine for a statement, and undo what it does."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    raw.execute("BEGIN IMMEDIATE")
    raw.set_progress_handler(step, 1)
    try:
        before = raw.total_changes
        found = raw.execute(statements()[name], PARAMETERS[name]).fetchall()
        changed = raw.total_changes - before
    finally:
        raw.set_progress_handler(None, 1)
        raw.execute("ROLLBACK")
    assert (len(found), changed) == (FOUND.get(name, 0), int(name in CHANGED))
    return count


@pytest.fixture(scope="module", params=[None, 2, 100], ids=["never", "small", "some"])
def sizes(request: pytest.FixtureRequest) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    """Make a database with a few schedules and one with many, that were counted never or once."""
    found = database(200, counted=request.param), database(5_000, counted=request.param)
    yield found
    for raw in found:
        raw.close()


def test_every_statement_is_looked_at() -> None:
    """No statement escapes these tests."""
    assert set(NAMES) == PARAMETERS.keys()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WHOLE])
def test_statement_does_not_grow(sizes: tuple[sqlite3.Connection, sqlite3.Connection], name: str) -> None:
    """A statement costs the same beside a thousand schedules and beside many."""
    for raw in sizes:
        steps(raw, name)  # the first time, it is compiled
    few, many = (steps(raw, name) for raw in sizes)
    assert few == many


@pytest.mark.parametrize("counted", [None, 0, 1, 2, 3, 5, 10, 20, 50, 200])
def test_plans_walk_over_nothing(counted: int | None) -> None:
    """Schedules are sought by name or by their next instant, and sorted by nothing, whatever was counted."""
    raw = database(0, counted=counted)
    for name in NAMES:
        lines = plan(raw, name)
        walks = [line for line in lines if line.startswith("SCAN") and "backlite_schedules_next" not in line]
        assert bool(walks) is (name in WHOLE), (name, lines)
        assert not [line for line in lines if "TEMP" in line or "BLOOM" in line or "AUTO" in line], (
            name,
            lines,
        )
    assert plan(raw, "due_schedules") == [
        "SEARCH backlite_schedules USING INDEX backlite_schedules_next (next_at<?)"
    ]
    raw.close()
