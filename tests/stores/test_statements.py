"""The statements of queries.sql compile, use their indexes, and cost the same at any backlog."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from backlite_async._job import Outcome, Reschedule
from backlite_async.stores.sqlite.sql import named, statements
from backlite_async.stores.sqlite.store import SQLiteStore

NOW = 1_000_000
KINDS = [("q", "T"), ("q", "U"), ("r", "V")]
"""The kinds that are asked for. The databases hold jobs of T alone, and of kinds before and after."""

FILL = """
WITH RECURSIVE
    number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows),
    shape (queue, task, priority, due_at) AS (
        VALUES ('q', 'T', 0, 0),             -- due
               ('q', 'T', 10, 900000000),    -- in front, but not due for long
               ('q', 'T', -10, 0),           -- due, behind all others
               ('a-queue', 'T', 10, 0),      -- of kinds that nobody asks for: sorted before,
               ('q', 'Unhandled', 10, 0),    -- in the same queue,
               ('z-queue', 'T', 0, 0)        -- and after
    )
INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority)
SELECT queue || task || priority || '-' || n, queue, task, x'7b7d', 3, 0, due_at + n, due_at + n, priority
FROM shape CROSS JOIN number
"""

COMPLETED = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_completed (
    id, queue, task, status, priority, payload, attempt, max_attempts, crashes,
    created_at, scheduled_at, finished_at, expires_at
)
SELECT 'completed-' || n, 'q', 'T', 'succeeded', 0, x'7b7d', 1, 3, 0, 0, 0, 0, nullif(n % 3, 0) * 500 + n
FROM number
"""

RUNNING = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 10)
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, status, fence, owner
)
SELECT owner || '-' || n, 'q', 'T', x'7b7d', 3, 0, 0, ends_at + n, 'running', 7, owner
FROM number CROSS JOIN (
    SELECT 'mine' AS owner, 2000000 AS ends_at
    UNION ALL SELECT 'other', 500000
    UNION ALL SELECT 'third', 3000000
)
"""

FOREIGN = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, status, fence, owner
)
SELECT owner || n, 'q', task, x'7b7d', 3, 0, 0, n, 'running', 7, owner
FROM number CROSS JOIN (
    SELECT 'another' AS owner, 'Unhandled' AS task -- claims that nobody asks for,
    UNION ALL SELECT 'busy', 'T'                    -- and of the owner that asks for all but its own
)
"""

KEYED = """
WITH RECURSIVE
    number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows),
    shape (queue, task, key, let_in, at, many) AS (
        VALUES ('q', 'T', 'full', 1, 900000, false),     -- due, a few
               ('q', 'T', 'full', 0, 0, true),           -- in front of all others, but not their turn
               ('q', 'U', 'full', 0, 0, true),           -- the same of another task
               ('q', 'T', 'full', 1, 900000000, true),   -- of the same key, for later
               ('q', 'T', NULL, 0, 0, true),             -- of many keys, one each
               ('q', 'Unhandled', 'full', 1, 900000000, true),
               ('a-queue', 'T', 'full', 0, 0, true),     -- in other queues
               ('r', 'V', 'full', 0, 0, false),
               ('z-queue', 'T', 'full', 0, 0, true)
    )
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority, key
)
SELECT
    queue || task || coalesce(key, 'keys') || let_in || at || '-' || n, queue, task, x'7b7d', 3, 0, at + n,
    CASE WHEN let_in THEN at + n END, n % 3, coalesce(key, 'key-' || n)
FROM shape CROSS JOIN number WHERE many OR n <= 5
"""

BLOCKED = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, priority, workflow, step, blocked
)
SELECT queue || task || 'blocked-' || n, queue, task, x'7b7d', 3, 0, 0, 10, 'flow-' || n, 1, blocked
FROM number CROSS JOIN (
    SELECT 'q' AS queue, 'T' AS task, 'full' AS blocked  -- steps that wait for others, in front of all,
    UNION ALL SELECT 'q', 'U', ''                        -- and such as have no key
    UNION ALL SELECT 'a-queue', 'T', 'full'
)
"""

FLOWS = [
    """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
    INSERT INTO backlite_workflows (id, created_at, size, left, status, expires_at)
    SELECT 'flow-' || n, 0, 2, n % 2, iif(n % 2, NULL, 'succeeded'), iif(n % 2, NULL, 900000000 + n)
    FROM number
    """,
    """
    INSERT INTO backlite_steps (workflow, number, kind, job_id, blocked, if_failed, after, next)
    SELECT flows.id, step.value, 'step', 'qTblocked-' || flows.rowid, step.value, 'cancel', '[]', '[]'
    FROM backlite_workflows AS flows CROSS JOIN json_each('[0, 1]') AS step WHERE flows.id LIKE 'flow-%'
    """,
]

RUNNING_KEYED = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, status, fence, owner, key,
    cancelled_at
)
SELECT
    owner || queue || key || n, queue, 'Unhandled', x'7b7d', 3, 0, 0, 900000000, 'running', 7, owner, key,
    CASE WHEN cancelled THEN n END
FROM number CROSS JOIN (
    SELECT 'another' AS owner, 'q' AS queue, 'busy' AS key, false AS many, false AS cancelled
    UNION ALL SELECT 'other', 'q', 'full', false, false
    UNION ALL SELECT 'other', 'r', 'full', false, false
    UNION ALL SELECT 'keyed', 'q', 'kept', true, true
    UNION ALL SELECT 'mine', 'z-queue', 'mine', false, true
) WHERE many OR n <= 5
"""

UNIQUE = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_unique (queue, key, job_id, added_at, until, look_at)
SELECT queue, 'key-' || n, CASE WHEN n % 2 THEN queue || 'T0-' || n ELSE 'gone' END, n, n, n
FROM number CROSS JOIN (SELECT 'q' AS queue UNION ALL SELECT 'z-queue')
"""

STARTS = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_starts (queue, number, owner, at)
SELECT queue, n, 'mine', 1000 + n FROM number CROSS JOIN (SELECT 'q' AS queue UNION ALL SELECT 'z-queue')
"""

QUEUES = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_queues (queue, paused_at, keeps, keep_for)
SELECT 'declared ' || n, CASE WHEN n <= 5 THEN n END, true, 1000 FROM number
UNION ALL VALUES ('q', NULL, true, 1000)
"""

BESIDE = [
    """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
    INSERT INTO backlite_tags (job_id, tag)
    SELECT job || n, tag FROM number CROSS JOIN (
        SELECT 'completed-' AS job, 'all' AS tag
        UNION ALL SELECT 'gone-', 'all' UNION ALL SELECT 'gone-', 'some'
    )
    """,
    """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
    INSERT INTO backlite_errors (job_id, fence, attempt, type, message, finished_at)
    SELECT job || n, fence, fence, 'Error', 'no', n
    FROM (SELECT 1 AS fence UNION ALL SELECT 2) CROSS JOIN number CROSS JOIN (
        SELECT 'completed-' AS job UNION ALL SELECT 'gone-' UNION ALL SELECT 'pending-'
    )
    """,
    """
    INSERT INTO backlite_lines (job_id, fence, number, attempt, at, level, text)
    SELECT job_id, fence, number, attempt, finished_at, 'info', 'so far'
    FROM backlite_errors CROSS JOIN (SELECT 0 AS number UNION ALL SELECT 1)
    """,
    """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
    INSERT INTO backlite_watches (job_id, owner)
    SELECT 'qT0-' || n, owner FROM number CROSS JOIN (SELECT 'another' AS owner UNION ALL SELECT 'third')
    UNION ALL SELECT 'qT0-' || n, 'fourth' FROM number WHERE n <= 5
    """,
    """
    WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
    INSERT INTO backlite_stats (queue, span, start, what, bucket, number)
    SELECT queue, span, n * span, what, bucket, 1
    FROM number CROSS JOIN (SELECT 'a-queue' AS queue UNION ALL SELECT 'q' UNION ALL SELECT 'z-queue')
    CROSS JOIN (SELECT 60000 AS span UNION ALL SELECT 3600000)
    CROSS JOIN (SELECT 'succeeded' AS what, 0 AS bucket UNION ALL SELECT 'run', 7)
    """,
    """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
    INSERT INTO backlite_tasks (queue, task, title, description, registered_at)
    SELECT 'q', 'T' || n, 'a title', 'a description', n FROM number
    """,
]
"""What is kept beside jobs, of each kind."""

HELD = [(f"mine-{number}", 7) for number in range(1, 11)]


FENCES = json.dumps(dict(HELD))


def encoded(outcomes: list[Outcome]) -> str:
    return msgspec.json.encode(outcomes).decode()


KEPT = [*HELD[0], None, True, 2_000_000, "failed", NOW, None, 1000, 1, 0, "no", None, False]
AGAIN = encoded(
    [Reschedule(id=job_id, fence=fence, due_at=NOW, attempt=1, crashes=0) for job_id, fence in HELD]
)
PLACES = [[*kind, 4, lane, 4, lane, 4] for lane, kind in enumerate(KINDS)]
CLAIMABLE = {
    "places": json.dumps(PLACES),
    "kinds": json.dumps(KINDS),
    "total": 4,
    "most": 4,
    "owner": "busy",
    "now": NOW,
    "after": -1,
    "largest": 100,
}
ROW = ["new", "q", "T", b"{}", 3, NOW, NOW, NOW, 0, None]
ADDED = [[f"new {number}", "q", "T", "{}", 3, NOW, NOW, 0] for number in range(10)]
FULL = json.dumps([["q", "full"], ["q", "key-7"], ["q", "none"]])
IDS = json.dumps(["qT0-1", "qT0-2", "qTfull00-3", "mine-1", "gone"])
DECLARED = json.dumps(
    [
        ["q", True, 1000, False, 1, '{"global_concurrency": 5}', [["T7", "another title", "", "{}"]]],
        ["r", True, 1000, False, None, "{}", []],
    ]
)
TOLD = {"told": json.dumps([[*held, None, [1, "Error", "no", None, None, NOW, 5]] for held in HELD])}
NOTED = {"told": json.dumps([[*held, None, 1, 0.5, "half", [[0, NOW, "info", "so far"]]] for held in HELD])}
BESIDE_IDS = json.dumps(["completed-1", "gone-3", "gone-7", "pending-2"])

PARAMETERS: dict[str, dict[str, Any] | list[Any]] = {
    "add": ROW,
    "add_from_array": {"jobs": json.dumps(ADDED)},
    "add_again": {"jobs": json.dumps(ADDED)},
    "same_id": {"id": "completed-3", "now": 0},
    "same_key": {"queue": "q", "key": "key-7"},
    "add_tags": {"tagged": json.dumps([["new 1", '["all", "some"]'], ["new 2", '["none"]']])},
    "forget_job": {"id": "completed-3"},
    "remember_key": {"queue": "q", "key": "key-7", "id": "new", "added_at": 1, "until": 1, "look_at": 1},
    "let_in_pending": {"id": "qTfull1900000-1"},
    "replace": {
        "id": "qTfull1900000-1",
        "queue": "q",
        "task": "T",
        "payload": b"{}",
        "due_at": NOW,
        "waits_from": NOW,
        "now": NOW,
    },
    "write_nothing": {},
    "look": CLAIMABLE,
    "first_due": CLAIMABLE,
    "claimable": CLAIMABLE,
    "claimable_of_kinds": CLAIMABLE,
    "claimable_in_lanes": CLAIMABLE,
    "claimable_of_kinds_in_lanes": CLAIMABLE,
    "paused": {},
    "running_of_queues": {"queues": json.dumps(["r", "a-queue"])},
    "starts": {"queue": "q", "since": 1003},
    "forget_starts": {"queue": "q", "number": 3},
    "count_starts": {"starts": json.dumps([["q", 900_000], ["r", 1]]), "owner": "mine", "at": NOW},
    "note_starts": {"starts": json.dumps([["q", 5, 0], ["q", 6, NOW], ["r", 1, NOW]])},
    "turns": {"keys": FULL, "now": NOW},
    "wait_for_turn": {"keys": json.dumps([["q", "full", 1], ["q", "none", 0]]), "now": NOW},
    "wait_for_turns": {"seqs": "[1, 2, 3, 4]"},
    "let_in": {"keys": json.dumps([[*key, NOW] for key in json.loads(FULL)])},
    "next_fence": {},
    "claim": {"seqs": "[1, 2, 3, 4]", "owner": "mine", "now": NOW, "until": 2_000_000},
    "to_claim": {"seqs": "[1, 2, 3, 4]"},
    "lapsed": {"kinds": json.dumps(KINDS), "now": NOW, "owner": "busy"},
    "claims_of": {"owner": "mine"},
    "renew": {"fences": FENCES, "until": 4_000_000},
    "held": {"fences": FENCES, "lapsed_by": None},
    "watched": {"ids": json.dumps(["qT0-1", "qT0-2", "mine-1", "gone"])},
    "keep_errors": TOLD,
    "trim_errors": {"ids": BESIDE_IDS, "most": 1},
    "note": NOTED,
    "keep_lines": NOTED,
    "trim_lines": {"ids": BESIDE_IDS, "most": 1},
    "keep": KEPT,
    "remove": {"fences": FENCES, "lapsed_by": None, "count": 10, "unwatched": True},
    "reschedule": {"outcomes": AGAIN, "lapsed_by": None, "count": 10},
    "forget_tags": {"ids": BESIDE_IDS},
    "forget_errors": {"ids": BESIDE_IDS},
    "forget_lines": {"ids": BESIDE_IDS},
    "tally": {"rows": json.dumps([["q", 60_000, "succeeded", 0, 5], ["q", 60_000, "run", 9, 5]])},
    "cancel": {"ids": IDS, "now": NOW},
    "asked": {"ids": IDS},
    "to_end": {},
    "keep_cancelled": {"watched_for": 60_000},
    "end_cancelled": {},
    "which_ended": {"ids": IDS},
    "orders": {"owner": "mine"},
    "pause": {"queue": "q", "now": NOW},
    "resume": {"queue": "declared 3"},
    "undeclared": {"queues": DECLARED},
    "declare": {"queues": DECLARED},
    "declare_tasks": {"queues": DECLARED, "now": NOW},
    "end_turns": {"queues": DECLARED},
    "live_counts": {"queue": "q", "now": NOW, "most": 10},
    "due_count": {"queue": "q", "now": NOW, "most": 10},
    "kept_count": {"queue": "q", "status": "succeeded", "now": NOW, "most": 10},
    "oldest_due": {"queue": "r"},
    "oldest_due_of": {"kinds": '[["r", "T"], ["q", "T"]]'},
    "status": {"id": "completed-1", "now": 0},
    "get": {"id": "completed-1", "now": 0, "cut": 5, "long": 65536},
    "errors": {"id": "completed-1", "most": 1},
    "lines": {"id": "completed-1", "most": 1},
    "watch": {"ids": IDS, "owner": "mine"},
    "end_watches": {"owners": '["mine", "fourth"]'},
    "unwatch": {"ids": IDS, "owner": "another"},
    "stats": {"since": 600_000, "until": 1_200_000, "step": 300_000, "queue": None},
    "stats_numbers": {"since": 600_000, "until": 1_200_000, "queue": None},
    "stats_together": {
        "since": 600_000,
        "until": 1_200_000,
        "step": 300_000,
        "queue": None,
    },
    "sum_up": {"queue": None, "before": 600_000},
    "forget_stats": {"queue": None, "span": 60_000, "before": 600_000},
    "next_kind": {"queue": "q", "task": "T"},
    "next_expiry": {},
    "look_later": {"now": NOW, "limit": 10, "later": 2_000_000},
    "forget_keys": {"now": NOW, "limit": 10},
    "expired": {"now": NOW, "limit": 10},
    "expire": {"seqs": "[1, 2, 3, 4, 5]"},
    "holds_claims": {"owner": "mine"},
}
"""What each statement that runs beside a backlog is given."""

SMALL = set("json_each outcome claim place kind lane head level merge candidate ranked chosen held".split())
SMALL |= {"other", "first", "portion", "part", "in_lane", "owners", "waiting", "again", "backlite_fence"}
SMALL |= {"job", "tag", "told", "note", "line", "declared", "met", "ended", "counted", "anybody"}
"""What a statement may walk over: what it was given, and what it has found by seeks."""

SCHEMA = {"schema_version", "schema_tables", "create_schema", "start_schema", "set_schema_version"}
"""Statements of the installation: they see a table with one row."""

SAVEPOINT = {"savepoint", "rollback_to_savepoint", "release_savepoint"}
"""Statements that see no rows."""

RARE: dict[str, dict[str, Any]] = {
    "waits_ahead": {"now": NOW, "margin": 1},
    "restart_waits": {"now": NOW, "margin": 1},
    "shift_waits": {"now": NOW, "by": -1, "margin": 1, "notice": 1},
    "shift_waits_back": {"now": NOW, "by": 1},
    "starts_ahead": {"latest": NOW},
    "pull_starts": {"now": NOW, "latest": NOW},
    "shift_starts": {"now": NOW, "by": -1, "latest": NOW},
    "end_starts": {"owners": '["mine"]', "now": NOW},
    "free_claims": {},
    "queues": {"queue": None},
    "owners": {},
    "tasks": {},
    "forget_watches": {},
    "waiting_keys": {"queue": "q"},
}
"""Statements that look at every job that waits, or runs, or at every start of a window.

When the clock was set, in a backup, and where a person asks.
"""

BEFORE = dict.fromkeys(("to_end", "keep_cancelled", "end_cancelled"), "cancel")
"""What comes before a statement in its transaction."""

RESULTS = {
    "add": 0,
    "add_from_array": 0,
    "add_again": 0,
    "same_id": 1,
    "add_tags": 0,
    "forget_job": 0,
    "same_key": 1,
    "remember_key": 0,
    "let_in_pending": 1,
    "replace": 0,
    "write_nothing": 0,
    "look": 1,
    "first_due": 1,
    "claimable": 1,
    "claimable_of_kinds": 1,
    "claimable_in_lanes": 1,
    "claimable_of_kinds_in_lanes": 1,
    "paused": 1,
    "running_of_queues": 1,
    "starts": 1,
    "forget_starts": 0,
    "count_starts": 0,
    "note_starts": 0,
    "turns": 3,
    "wait_for_turn": 0,
    "wait_for_turns": 0,
    "let_in": 0,
    "next_fence": 0,
    "claim": 0,
    "to_claim": 4,
    "lapsed": 10,
    "claims_of": 15,
    "renew": 0,
    "held": 1,
    "watched": 1,
    "keep_errors": 0,
    "trim_errors": 0,
    "note": 0,
    "keep_lines": 0,
    "trim_lines": 0,
    "keep": 0,
    "remove": 0,
    "reschedule": 0,
    "forget_tags": 0,
    "forget_errors": 0,
    "forget_lines": 0,
    "tally": 0,
    "cancel": 0,
    "asked": 1,
    "to_end": 3,
    "keep_cancelled": 0,
    "end_cancelled": 0,
    "which_ended": 1,
    "orders": 1,
    "pause": 0,
    "resume": 0,
    "undeclared": 1,
    "declare": 0,
    "declare_tasks": 0,
    "end_turns": 0,
    "live_counts": 1,
    "due_count": 1,
    "kept_count": 1,
    "oldest_due": 1,
    "oldest_due_of": 1,
    "status": 1,
    "get": 1,
    "errors": 1,
    "lines": 1,
    "watch": 0,
    "end_watches": 0,
    "unwatch": 0,
    "stats": 1,
    "stats_numbers": 1,
    "stats_together": 1,
    "sum_up": 0,
    "forget_stats": 0,
    "next_kind": 1,
    "next_expiry": 1,
    "look_later": 0,
    "forget_keys": 0,
    "expired": 1,
    "expire": 0,
    "holds_claims": 1,
}
"""How many rows each of them returns, so that none is measured while it finds nothing."""

CHANGES = {
    "add": 1,
    "add_from_array": 10,
    "add_again": 10,
    "add_tags": 3,
    "forget_job": 1,
    "remember_key": 1,
    "replace": 1,
    "forget_starts": 2,
    "count_starts": 2,
    "note_starts": 2,
    "wait_for_turn": 4,
    "wait_for_turns": 4,
    "let_in": 3,
    "next_fence": 1,
    "claim": 4,
    "renew": 10,
    "keep_errors": 10,
    "trim_errors": 4,
    "note": 10,
    "keep_lines": 10,
    "trim_lines": 12,
    "keep": 1,
    "remove": 10,
    "reschedule": 10,
    "forget_tags": 4,
    "forget_errors": 6,
    "forget_lines": 12,
    "tally": 2,
    "cancel": 4,
    "keep_cancelled": 3,
    "end_cancelled": 3,
    "pause": 1,
    "resume": 1,
    "declare": 2,
    "declare_tasks": 1,
    "end_turns": 5,
    "look_later": 5,
    "forget_keys": 4,
    "watch": 5,
    "end_watches": 5,
    "unwatch": 2,
    "sum_up": 6,
    "forget_stats": 60,
    "expire": 5,
}


async def install(path: str) -> None:
    await SQLiteStore(path, durability="normal", busy_timeout=5.0).install()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("statements"))


@pytest.fixture(scope="module")
def empty(folder: str) -> Iterator[sqlite3.Connection]:
    """Make a database with the schema and nothing else."""
    yield from filled(f"{folder}/empty.db", 0)


@pytest.fixture(scope="module")
def small(folder: str) -> Iterator[sqlite3.Connection]:
    """Make a database with a thousand rows of each shape."""
    yield from filled(f"{folder}/small.db", 1_000)


@pytest.fixture(scope="module")
def large(folder: str) -> Iterator[sqlite3.Connection]:
    """Make a database with a hundred thousand rows of each shape."""
    yield from filled(f"{folder}/large.db", 100_000)


def filled(path: str, rows: int) -> Iterator[sqlite3.Connection]:
    with asyncio.Runner() as runner:
        runner.run(install(path))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    if rows:
        populate(connection, rows)
    yield connection
    connection.close()


def populate(connection: sqlite3.Connection, rows: int) -> None:
    """Fill a database that has only the schema with so many rows of each shape."""
    connection.execute("BEGIN")
    connection.execute(KEYED, {"rows": rows})
    connection.execute(BLOCKED, {"rows": rows // 10})
    connection.execute(FILL, {"rows": rows})
    connection.execute(RUNNING)
    connection.execute(FOREIGN, {"rows": rows // 100})
    connection.execute(RUNNING_KEYED, {"rows": rows // 100})
    connection.execute(UNIQUE, {"rows": rows})
    connection.execute(STARTS, {"rows": rows})
    connection.execute(QUEUES, {"rows": rows // 10})
    connection.execute(COMPLETED, {"rows": rows})
    for flows in FLOWS:
        connection.execute(flows, {"rows": rows // 10})
    for beside in BESIDE:
        connection.execute(beside, {"rows": rows // 10})
    connection.execute("COMMIT")


def steps(connection: sqlite3.Connection, name: str) -> int:
    """Count the steps of SQLite's machine for a statement, and undo what it does."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    connection.execute("BEGIN IMMEDIATE")
    if name in BEFORE:
        connection.execute(statements()[BEFORE[name]], PARAMETERS[BEFORE[name]])
    connection.set_progress_handler(step, 1)
    try:
        before = connection.total_changes
        found = connection.execute(statements()[name], PARAMETERS[name]).fetchall()
        changed = connection.total_changes - before
    finally:
        connection.set_progress_handler(None, 1)
        connection.execute("ROLLBACK")
    assert len(found) == RESULTS[name]
    assert changed >= CHANGES.get(name, 0)
    return count


def plan(connection: sqlite3.Connection, name: str) -> list[str]:
    rows = connection.execute("EXPLAIN QUERY PLAN " + statements()[name], PARAMETERS[name]).fetchall()
    return [row[3] for row in rows]


def test_every_statement_is_looked_at() -> None:
    """No statement escapes these tests."""
    assert set(named("queries.sql")) == PARAMETERS.keys() | RARE.keys() | SCHEMA | SAVEPOINT
    assert PARAMETERS.keys() == RESULTS.keys()


@pytest.mark.parametrize("name", sorted({*named("queries.sql")} - {"create_schema"}))
def test_statement_compiles(empty: sqlite3.Connection, name: str) -> None:
    """Each statement fits the schema that the migrations make."""
    parameters = {**PARAMETERS, **RARE}.get(name, {"version": 1})
    assert empty.execute("EXPLAIN " + statements()[name], parameters).fetchall()


def test_schema_compiles() -> None:
    """The table of the schema's version can be made where there is none."""
    connection = sqlite3.connect(":memory:")
    assert connection.execute("EXPLAIN " + statements()["create_schema"]).fetchall()
    connection.close()


@pytest.mark.parametrize("name", PARAMETERS)
def test_statement_does_not_grow(small: sqlite3.Connection, large: sqlite3.Connection, name: str) -> None:
    """A statement costs the same behind a thousand rows of every shape and behind a hundred thousand."""
    for connection in (small, large):
        steps(connection, name)  # the first time, it is compiled
    assert steps(small, name) == steps(large, name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_plan_uses_indexes(large: sqlite3.Connection, name: str) -> None:
    """No statement walks over a table of jobs, nor over an index of one."""
    lines = [line for line in plan(large, name) if not line.endswith("INDEX backlite_queues_paused")]
    scanned = {found[1] for line in lines if (found := re.match(r"SCAN ([a-z]\w*)", line))}
    assert scanned <= SMALL


def test_plans_outlast_analyze(large: sqlite3.Connection) -> None:
    """Whatever the application lets SQLite count, jobs are found by their id."""
    large.execute("SAVEPOINT before")
    large.execute("ANALYZE")
    try:
        for name in ("renew", "held", "keep_errors", "note", "keep_lines", "keep", "remove", "reschedule"):
            assert not [line for line in plan(large, name) if "backlite_jobs_running" in line], name
    finally:
        large.execute("ROLLBACK TO before")
        large.execute("RELEASE before")
