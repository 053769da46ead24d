"""The statements of workflows.sql seek, whatever ANALYZE has counted, and cost the same at any number."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from backlite_async.stores.sqlite.sql import migrations, named, statements

from .test_listing import COUNTED, analyze

NAMES = named("workflows.sql")

FLOWS = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_workflows (id, created_at, size, left, expires_at)
SELECT 'flow ' || n, 0, 10, 7, CASE WHEN n <= 5 OR n % 2 THEN 900000 + n END FROM number
"""

SHAPE = """
WITH RECURSIVE
    number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows),
    shape (step, kind, live, status, key, blocked) AS (
        VALUES (0, 'step', NULL, 'succeeded', NULL, NULL),
               (1, 'step', NULL, 'failed', NULL, NULL),
               (2, 'step', NULL, 'cancelled', NULL, NULL),
               (3, 'step', 'running', NULL, NULL, NULL),
               (4, 'step', 'pending', NULL, 'key', NULL),
               (5, 'step', 'pending', NULL, NULL, 'full'),
               (6, 'step', 'pending', NULL, NULL, ''),
               (7, 'step', 'pending', NULL, NULL, ''),
               (8, 'join', NULL, NULL, NULL, NULL),
               (9, 'fallback', 'pending', NULL, NULL, NULL)
    )
"""

NODES = f"""{SHAPE}
INSERT INTO backlite_steps (
    workflow, number, kind, job_id, name, status, blocked, if_failed, strip, after, next
)
SELECT
    'flow ' || n, step, kind, CASE WHEN kind <> 'join' THEN n || '-' || step END,
    CASE WHEN step < 5 THEN 'name ' || step END, status, blocked IS NOT NULL, 'cancel', step = 1, '[0]', '[8]'
FROM number CROSS JOIN shape
"""

LIVE = f"""{SHAPE}
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, status, fence, owner, key, tags,
    workflow, step, blocked
)
SELECT
    n || '-' || step, 'q', 'T', x'7b7d', 3, 0, 0, CASE WHEN blocked IS NULL THEN 0 END, live, 7, 'owner', key,
    CASE WHEN step = 4 THEN '[]' END, 'flow ' || n, step, blocked
FROM number CROSS JOIN shape WHERE live IS NOT NULL
"""

ENDED = f"""{SHAPE}
INSERT INTO backlite_completed (
    id, queue, task, status, priority, payload, attempt, max_attempts, crashes, created_at, scheduled_at,
    finished_at, noted, workflow, step, expires_at
)
SELECT
    n || '-' || step, 'q', 'T', status, 0, x'7b7d', 1, 3, 0, 0, 0, n, CASE WHEN step = 1 THEN 1 END,
    'flow ' || n, step, CASE WHEN n <= 5 OR n % 2 THEN 900000 + n END
FROM number CROSS JOIN shape WHERE status IS NOT NULL
"""

QUEUES = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_queues (queue, keeps, keep_payload, turns)
SELECT 'queue ' || n, true, true, 5 FROM number
UNION ALL VALUES ('q', true, false, 5)
"""

WATCHES = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_watches (job_id, owner) SELECT 'job ' || n, 'somebody' FROM number
"""

FLOW = {"workflow": "flow 5"}
ENDED_IDS = json.dumps(["5-1", "5-2", "none"])
WAITING_IDS = json.dumps(["5-5", "5-6", "none"])
NEW = ["new", "q", "T", b"{}", 3, 0, 0, 0, 0, None]

PARAMETERS: dict[str, dict[str, Any] | list[Any]] = {
    "add_workflow": ["new", None, 0, 1, 1, None, None, None],
    "add_nodes": ["flow 5", 10, "step", "new", "name", 0, "cancel", None, "[]", "[]"],
    "add_first_steps": [*NEW, "flow 5", 10],
    "add_steps": [*NEW, None, None, "5-1", None, None, "flow 5", 10, ""],
    "known_workflows": {"ids": json.dumps(["flow 5", "flow 7", "none"])},
    "live_workflows": {"ids": json.dumps(["flow 5", "flow 7", "none"]), "now": 900_005},
    "flow": {"id": "flow 5"},
    "put_flow": {
        "id": "flow 5", "left": 1, "size": 10, "status": None, "finished_at": None, "cancelled_at": None,
        "expires_at": None, "ends": 0, "keep_for": 0,
    },
    "nodes": FLOW | {"numbers": "[1, 3, 4, 99]"},
    "waiting_nodes": FLOW | {"numbers": "[1, 5, 6, 99]"},
    "next_of_open": FLOW | {"numbers": "[1, 3, 4, 5, 6, 99]"},
    "live_nodes": FLOW,
    "put_nodes": FLOW | {"numbers": "[1, 3, 4]", "status": "failed", "blocked": 0, "strip": True},
    "put_next": FLOW | {"number": 3, "next": "[4, 5]"},
    "named": FLOW | {"name": "name 3"},
    "endings": FLOW,
    "keys_of_blocked": {"ids": WAITING_IDS},
    "unblock": {"ids": WAITING_IDS, "at": 5},
    "skip": {"jobs": json.dumps([["5-5", "so"], ["5-6", "so"], ["5-4", "so"]]), "at": 5},
    "block_pending": {"ids": json.dumps(["5-4", "5-3"])},
    "able_to_run": {"ids": ENDED_IDS},
    "block_completed": {"ids": json.dumps(["5-1", "5-2"])},
    "blocked_of": {"ids": WAITING_IDS},
    "close_jobs": FLOW | {"expires_at": 7},
    "reopen_jobs": FLOW,
    "beside_flow": FLOW,
    "turns_of_flow": FLOW,
    "remove_completed": FLOW,
    "remove_live": FLOW,
    "remove_nodes": FLOW,
    "remove_flow": FLOW,
    "runs": FLOW,
    "flow_watched": FLOW,
    "unsuccessful_of_flow": FLOW,
    "expired_flows": {"now": 900_005, "limit": 100},
}  # fmt: skip
"""What each statement is given."""

FOUND = dict.fromkeys(
    "known_workflows live_workflows flow nodes waiting_nodes live_nodes named keys_of_blocked able_to_run"
    " blocked_of beside_flow turns_of_flow runs flow_watched unsuccessful_of_flow".split(),
    1,
) | {"endings": 6, "expired_flows": 5, "next_of_open": 2}
CHANGED = {
    "add_workflow": 1,
    "add_nodes": 1,
    "add_first_steps": 1,
    "add_steps": 1,
    "put_flow": 1,
    "put_nodes": 3,
    "put_next": 1,
    "unblock": 2,
    "skip": 2,
    "block_pending": 1,
    "block_completed": 2,
    "close_jobs": 3,
    "reopen_jobs": 3,
    "remove_completed": 3,
    "remove_live": 6,
    "remove_nodes": 10,
    "remove_flow": 1,
}

SORTS = {"endings", "keys_of_blocked", "turns_of_flow", "block_completed", "next_of_open"}
"""Statements that sort the few rows that they have found."""

SMALL = {"json_each", "wanted", "following", "skipped", "held", "anybody", "CONSTANT"}
"""What a statement may walk over: what it was given, and what it has found by seeks."""


def database(rows: int, *, counted: int | None = None) -> sqlite3.Connection:
    """Return a database with so many workflows, that had `counted` when SQLite counted them."""
    raw = sqlite3.connect(":memory:", isolation_level=None)
    for statement in (statement for migration in migrations() for statement in migration):
        raw.execute(statement)
    if counted is not None:
        fill(raw, counted)
        raw.execute("ANALYZE")
        for table in ("workflows", "steps", "jobs", "completed", "queues", "watches"):
            raw.execute(f"DELETE FROM backlite_{table}")
    fill(raw, rows)
    return raw


def fill(raw: sqlite3.Connection, rows: int) -> None:
    if rows:
        for statement in (FLOWS, NODES, LIVE, ENDED, QUEUES, WATCHES):
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
    assert (len(found), changed) == (FOUND.get(name, 0), CHANGED.get(name, 0))
    return count


@pytest.fixture(scope="module", params=[None, 2, 100], ids=["never", "small", "some"])
def sizes(request: pytest.FixtureRequest) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    """Make a database with a few workflows and one with many, that were counted never or once."""
    found = database(100, counted=request.param), database(2_000, counted=request.param)
    yield found
    for raw in found:
        raw.close()


def test_every_statement_is_looked_at() -> None:
    """No statement escapes these tests."""
    assert set(NAMES) == PARAMETERS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_statement_does_not_grow(sizes: tuple[sqlite3.Connection, sqlite3.Connection], name: str) -> None:
    """A statement costs the same beside a hundred workflows and beside many."""
    for raw in sizes:
        steps(raw, name)  # the first time, it is compiled
    few, many = (steps(raw, name) for raw in sizes)
    assert few == many


@pytest.mark.parametrize("counted", [None, 0, 1, 2, 3, 5, 10, 20, 100])
def test_plans_walk_over_nothing(counted: int | None) -> None:
    """Nodes are sought by their workflow, jobs by their ids, whatever was counted."""
    raw = database(0, counted=counted)
    for name in NAMES:
        lines = plan(raw, name)
        scanned = {found[1] for line in lines if (found := re.match(r"SCAN (\w+)", line))}
        assert scanned <= SMALL, (name, lines)
        assert not [line for line in lines if "BLOOM" in line or "AUTOMATIC" in line], (name, lines)
        assert bool([line for line in lines if "TEMP B-TREE" in line]) is (name in SORTS), (name, lines)
        by_id = [line for line in lines if re.match(r"SEARCH (jobs|backlite_jobs|backlite_completed) ", line)]
        assert not [line for line in by_id if "(id=?)" not in line and "rowid" not in line], (name, lines)
    raw.close()


@pytest.mark.parametrize("counted", COUNTED)
def test_plans_outlast_analyze(counted: int) -> None:
    """The plans are the same before and after jobs of all sorts were counted."""
    raw = database(0)
    before = {name: plan(raw, name) for name in NAMES}
    analyze(raw, counted)
    assert {name: plan(raw, name) for name in NAMES} == before
    raw.close()


def test_a_node_that_comes_after_many_costs_no_more(sizes: tuple[sqlite3.Connection, ...]) -> None:
    """To read and to write one of a workflow does not depend on how many there are beside it."""
    raw = sizes[0]
    few = [steps(raw, name) for name in ("nodes", "waiting_nodes", "put_nodes", "put_next", "named")]
    raw.execute("BEGIN")
    for number in range(100, 1_000):
        raw.execute(
            statements()["add_nodes"],
            ["flow 5", number, "step", f"{number}", f"n {number}", 0, "cancel", None, "[]", "[8]"],
        )
    raw.execute("COMMIT")
    many = [steps(raw, name) for name in ("nodes", "waiting_nodes", "put_nodes", "put_next", "named")]
    raw.execute("DELETE FROM backlite_steps WHERE workflow = 'flow 5' AND number >= 100")
    assert few == many
