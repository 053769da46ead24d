"""T26: what people ask, and do, costs the same beside a million jobs. Steps of SQLite's machine are counted.

Every filter, both directions, deep pages, and each action upon 500 jobs, at two thousand rows of each shape
and at a million, after an ANALYZE that has seen few; and questions that no index answers, which have to end.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from backlite_async._job import JobStatus
from backlite_async._query import (
    LOOKS,
    Action,
    Delete,
    Edit,
    Postpone,
    Release,
    Rerun,
    SortKey,
    Wanted,
)
from backlite_async.stores.sqlite import actions, finding, graphs, rows
from backlite_async.stores.sqlite.store import SQLiteStore

from .kit import Budget, Row

__all__ = [
    "ACTIONS",
    "BOUNDED",
    "COUNTS",
    "LISTS",
    "Counted",
    "Question",
    "database",
    "judge",
    "measure",
    "run",
]

SECONDS, LEAST = 9.0, 1

NOW = 1_000_000_000
ROWS, FEW_ROWS, SHORT_ROWS = 1_000_000, 2_000, 15_000

PAGE, MOST, ACTED = 50, 300, 500
"""Jobs of a page, of a count, of an action."""

SAME = 1.1
"""By how much two counts may differ that are to be the same: few rows are not spread as many."""

STRIDE = 10
"""Steps between two counts."""

LOOK = 300
"""Steps that one look at a job, the way to it, and the look at how long its payload is, may cost."""

PENDING = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :rows)
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority, parent
)
SELECT
    'pending-' || n, CASE WHEN n % 2 THEN 'q' || (n / 2 % 3) ELSE 'tied' END,
    CASE WHEN n % 2 THEN 'T' || (n / 6 % 2) ELSE 'T0' END, x'7b7d', 3, n,
    1000 + n * (n % 2), 1000 + n * (n % 2), CASE WHEN n % 2 THEN n / 12 % 5 - 2 ELSE 0 END,
    CASE WHEN n % 2 THEN 'parent' END
FROM number
"""
"""Half of them are of one kind, due at one and the same instant."""

WAITING = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :rows)
INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at, priority, key)
SELECT
    'waiting-' || n, CASE WHEN n % 2 THEN 'w' ELSE 'one' END, 'T' || (n / 2 % 2), x'7b7d', 3, n, 1000 + n,
    n / 4 % 3, CASE WHEN n % 2 THEN 'key-' || (n / 12 % (:rows / 24)) ELSE 'key' END
FROM number
"""
"""Half of them are of one key, the others of as many as there are dozens."""

BLOCKED = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :rows)
INSERT INTO backlite_jobs (
    seq, id, queue, task, payload, max_attempts, created_at, scheduled_at, priority, blocked
)
SELECT
    n - 9999999, 'blocked-' || n, CASE WHEN n % 2 THEN 'b' ELSE 'held' END,
    CASE WHEN n % 2 THEN 'T' || (n / 2 % 2) ELSE 'T0' END, x'7b7d', 3, n, 1000 + n * (n % 2),
    CASE WHEN n % 2 THEN n / 4 % 3 ELSE 0 END, CASE WHEN n % 2 THEN 'key' ELSE '' END
FROM number
"""
"""Steps that wait for others, half of them of one kind, due at one and the same instant."""

FLOWS = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows / 4)
INSERT INTO backlite_workflows (id, created_at, size, left, status)
SELECT 'flow-' || (9999999 - n), n, 3, iif(n % 3, 3, 0), CASE WHEN n % 3 = 0 THEN 'failed' END FROM number
"""

STEPS = """
INSERT INTO backlite_steps (workflow, number, kind, job_id, status, blocked, if_failed, after, next)
SELECT
    flows.id, step.value, 'step', iif(left, 'pending-', 'completed-') || (3 * flows.rowid + step.value),
    status, step.value, 'cancel', iif(step.value, json_array(step.value - 1), '[]'), '[]'
FROM backlite_workflows AS flows CROSS JOIN json_each('[0, 1, 2]') AS step
"""
"""Workflows of three steps each, two thirds of which have not begun."""

TURNS = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < 999)
INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, key)
SELECT
    CASE WHEN n % 2 THEN 'behind-' ELSE 'turn-' END || (n / 2), 'turns', 'T0', x'7b7d', 3, n, n,
    CASE WHEN n % 2 = 0 THEN n END, 'key-' || (n / 2)
FROM number
"""

RUNNING = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < 499)
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, attempt, created_at, scheduled_at, due_at, started_at, status,
    fence, owner
)
SELECT
    'running-' || n, 'r', 'T0', x'7b7d', 3, 1, n, n, 2 * 1000000000, n, 'running', 7, 'owner-' || (n % 10)
FROM number
"""

COMPLETED = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :rows)
INSERT INTO backlite_completed (
    id, queue, task, status, priority, payload, attempt, max_attempts, crashes, created_at, scheduled_at,
    finished_at, parent, tags, error
)
SELECT
    'completed-' || n, CASE WHEN n % 2 THEN 'q' || (n / 2 % 3) ELSE 'tied' END,
    CASE WHEN n % 2 THEN 'T' || (n / 6 % 2) ELSE 'T0' END,
    CASE WHEN n % 2 THEN iif(n / 12 % 2, 'succeeded', 'cancelled') ELSE 'failed' END,
    0, x'7b7d', 3, 3, 1, n, n, 1000 + n * (n % 2), 'parent', '["all"]',
    CASE WHEN n % 3 THEN 'so' ELSE 'it' END
FROM number
"""

EXPIRED = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :rows)
INSERT INTO backlite_completed (
    id, queue, task, status, priority, payload, attempt, max_attempts, crashes, created_at, scheduled_at,
    finished_at, expires_at
)
SELECT 'expired-' || n, 'gone', 'T0', 'failed', 0, x'7b7d', 3, 3, 1, n, n, 999000000 + n, 999000001 + n
FROM number
"""

TAGS = """
INSERT INTO backlite_tags (job_id, tag) SELECT id, 'all' FROM backlite_completed WHERE tags IS NOT NULL
"""

UNIQUE = """
INSERT INTO backlite_unique (queue, key, job_id, added_at, until, look_at)
SELECT queue, id, id, created_at, 0, 0 FROM backlite_jobs WHERE key IS NULL AND status = 'pending'
"""

ERRORS = """
INSERT INTO backlite_errors (job_id, fence, attempt, type, message, finished_at)
SELECT id, 1, 1, 'Error', 'no', 0 FROM backlite_completed WHERE seq % 10 < 5
"""

LINES = """
INSERT INTO backlite_lines (job_id, fence, number, attempt, at, level, text)
SELECT id, 1, 0, 1, 0, 'info', 'so far' FROM backlite_completed WHERE seq % 10 < 5
"""


class Question(NamedTuple):
    """What is wanted, from where on; of pages also backwards."""

    name: str
    wanted: Wanted
    places: Sequence[SortKey] = ()


class Counted(NamedTuple):
    """What a question or an action has cost: steps, milliseconds without counting; and how much it found."""

    steps: int
    millis: float
    found: int


def _states(*states: str) -> frozenset[JobStatus]:
    return frozenset(JobStatus(state) for state in states)


_PENDING, _FAILED = _states("pending"), _states("failed")

LISTS = [
    Question(
        "all",
        Wanted(),
        [
            (1, 1000, 700),
            (1, 1500, 1),
            (2, "w", "key-1", "T1", -1, 1500, 0),
            (3, "b", "T1", -1, 1500, 0),
            (4, -1800, -1),
        ],
    ),
    Question("queue", Wanted(queue="q1"), [(1, 1500, 1), (4, -1800, -1)]),
    Question("task", Wanted(task="T1"), [(1, 1500, 1), (4, -1800, -1)]),
    Question("queue and task", Wanted(queue="q1", task="T1"), [(1, 1500, 1), (4, -1800, -1)]),
    Question("running", Wanted(states=_states("running")), [(0, 100, 0)]),
    Question("pending", Wanted(states=_PENDING), [(1, 1000, 700), (1, 1500, 1)]),
    Question("due at once", Wanted(queue="tied", states=_PENDING), [(1, 1000, 700)]),
    Question("waiting", Wanted(queue="w"), [(2, "w", "key-2", "T1", -1, 1500, 0)]),
    Question("waiting, of a task", Wanted(queue="w", task="T1"), [(2, "w", "key-2", "T1", -1, 1500, 0)]),
    Question("waiting, of one key", Wanted(queue="one"), [(2, "one", "key", "T0", -1, 1500, 0)]),
    Question("due", Wanted(due=(1200, 2800), queue="q1"), [(1, 1500, 1)]),
    Question(
        "waiting for later", Wanted(due=(1200, None), queue="one"), [(2, "one", "key", "T0", -1, 1500, 0)]
    ),
    Question("blocked", Wanted(queue="b"), [(3, "b", "T1", -1, 1500, 0)]),
    Question("blocked, of a task", Wanted(queue="b", task="T1"), [(3, "b", "T1", -1, 1500, 0)]),
    Question("blocked at once", Wanted(queue="held"), [(3, "held", "T0", 0, 1000, -9_999_000)]),
    Question("blocked for later", Wanted(due=(1200, None), queue="b"), [(3, "b", "T1", -1, 1500, 0)]),
    Question("key of blocked", Wanted(key="key", queue="b"), [(3, "b", "T1", -1, 1500, 0)]),
    Question("failed", Wanted(states=_FAILED), [(4, -1000, -900)]),
    Question("failed and cancelled", Wanted(states=_states("failed", "cancelled")), [(4, -1800, -1)]),
    Question("ended at once", Wanted(queue="tied", states=_FAILED), [(4, -1000, -900)]),
    Question("ended", Wanted(finished=(1200, 1800)), [(4, -1500, -1)]),
    Question("ended, of a task", Wanted(finished=(1200, None), task="T1"), [(4, -1500, -1)]),
    Question("tag", Wanted(tag="all"), [(5, -1000)]),
    Question("tag of a queue", Wanted(tag="all", queue="q1"), [(5, -1000)]),
    Question("parent", Wanted(parent="parent"), [(6, -1000), (7, -1000)]),
    Question("parent, succeeded", Wanted(parent="parent", states=_states("succeeded")), [(7, -1000)]),
    Question("unique", Wanted(unique="pending-999", queue="q1")),
    Question("key", Wanted(key="key", queue="one"), [(2, "one", "key", "T0", -1, 1500, 0)]),
    Question("added", Wanted(added=(5, None), queue="tied", states=_FAILED), [(4, -1000, -900)]),
    Question("text", Wanted(text="IT", queue="tied", states=_FAILED), [(4, -1000, -900)]),
    Question("text and tag", Wanted(text="iT", tag="all"), [(5, -1000)]),
]
"""What is answered at once, at any backlog: a page from each end, and after and before these places."""

COUNTS = [
    Question("all", Wanted()),
    Question("queue", Wanted(queue="q1")),
    Question("pending", Wanted(states=_PENDING)),
    Question("waiting", Wanted(queue="w")),
    Question("blocked", Wanted(queue="b")),
    Question("due", Wanted(due=(1200, None))),
    Question("running", Wanted(states=_states("running"))),
    Question("failed", Wanted(states=_FAILED)),
    Question("ended", Wanted(finished=(1200, None))),
    Question("tag", Wanted(tag="all")),
    Question("parent", Wanted(parent="parent")),
    Question("text", Wanted(text="it", queue="tied", states=_FAILED)),
]

BOUNDED = [
    Question("no such text", Wanted(text="nowhere")),
    Question("no such text, failed", Wanted(text="nowhere", states=_FAILED)),
    Question("no such text, waiting", Wanted(text="nowhere", queue="w")),
    Question("no such key", Wanted(key="nowhere")),
    Question("added before all", Wanted(added=(None, -1))),
    Question("waiting of no such task", Wanted(queue="w", task="T9")),
    Question("no such text, blocked", Wanted(text="nowhere", queue="b")),
    Question("blocked of no such key", Wanted(queue="b", key="nowhere")),
    Question("blocked for a time that is past", Wanted(queue="b", due=(None, 1))),
    Question("waiting for a time that is past", Wanted(queue="w", due=(None, 1))),
    Question("tag of no such queue", Wanted(tag="all", queue="nowhere")),
    Question("parent of no such queue", Wanted(parent="parent", queue="nowhere")),
    Question("expired", Wanted(queue="gone")),
]
"""What no index answers, and so ends after `LOOKS` jobs."""

FLOW_LISTS: dict[str, tuple[frozenset[JobStatus] | None, str | None]] = {
    "all": (None, None),
    "all, before one": (None, "flow-9999899"),
    "failed": (_FAILED, None),
    "that have not ended": (_states("pending", "running"), "flow-9999899"),
}
"""Pages of workflows: of which states, before which id."""

ACTIONS: dict[str, tuple[Action, str]] = {
    "rerun failed": (Rerun(), "completed"),
    "rerun pending": (Rerun(attempts=5), "pending"),
    "postpone": (Postpone(due_at=NOW + 1000), "pending"),
    "postpone turns": (Postpone(due_at=NOW + 1000), "turn"),
    "run now": (Postpone(due_at=NOW), "pending"),
    "run waiting now": (Postpone(due_at=NOW), "waiting"),
    "postpone blocked": (Postpone(due_at=NOW + 1000), "blocked"),
    "run blocked now": (Rerun(attempts=5), "blocked"),
    "edit": (Edit(queue="tied", task="T0", payload=b"[]"), "pending"),
    "release": (Release(), "running"),
    "delete pending": (Delete(), "pending"),
    "delete waiting": (Delete(), "waiting"),
    "delete turns": (Delete(), "turn"),
    "delete completed": (Delete(), "completed"),
}
"""What is done, and to which jobs."""


def run(budget: Budget, *, size: int | None = None) -> Row:
    """Count in a small database and in a large one, and judge."""
    row = Row("T26", "lists and actions beside a million jobs of each sort", unit="questions")
    large = size or (ROWS if budget.most is None else SHORT_ROWS)
    with tempfile.TemporaryDirectory(prefix="t26-") as folder:
        few, bounded = measure(Path(folder) / "few.db", FEW_ROWS, bounded=False), {}
        many = measure(Path(folder) / "many.db", large, bounded=True)
        bounded = {name: many.pop(name) for name in list(many) if name not in few}
    judge(row, few, many, bounded)
    return row


def judge(row: Row, few: dict[str, Counted], many: dict[str, Counted], bounded: dict[str, Counted]) -> None:
    """Compare what was counted beside few jobs and beside many; see that the rest has ended."""
    row.trials = len(few) + len(many) + len(bounded)
    row.require(f"{few.keys() ^ many.keys()} were not asked everywhere", few.keys() == many.keys())
    for name in few.keys() & many.keys():
        ratio = many[name].steps / max(1, few[name].steps)
        row.require(
            f"{name}: {many[name].found} found, not {few[name].found}", many[name].found == few[name].found
        )
        row.require(f"{name}: nothing found", many[name].found > 0)
        row.require(f"{name}: {ratio:.2f} times the steps of few", 1 / SAME <= ratio <= SAME)
    for name, count in bounded.items():
        row.require(f"{name}: {count.steps:,} steps", count.steps <= LOOK * LOOKS)
    for counts, what in ((many, "the dearest"), (bounded, "the longest search")):
        if counts:
            name = max(counts, key=lambda name: counts[name].steps)
            row.notes.append(f"{what}: {name}, {counts[name].steps:,} steps, {counts[name].millis:.1f} ms")


# -- databases -------------------------------------------------------------------------------------


@contextmanager
def database(path: Path, rows: int, *, counted: bool = False) -> Iterator[sqlite3.Connection]:
    """Make a database with so many rows of each sort, and open it.

    With `counted` the application has run ANALYZE when there were next to none, as plans know ever since.
    """
    asyncio.run(SQLiteStore(str(path), durability="normal", busy_timeout=5.0).install())
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA synchronous = OFF")
        if counted:
            fill(raw, 24)
            raw.execute("ANALYZE")
            for table in ("jobs", "completed", "workflows", "steps", "tags", "unique", "errors", "lines"):
                raw.execute(f"DELETE FROM backlite_{table}")
        fill(raw, rows)
        yield raw


def fill(raw: sqlite3.Connection, rows: int) -> None:
    """Add so many rows of each sort."""
    raw.execute("BEGIN")
    for statement in (PENDING, WAITING, BLOCKED, COMPLETED, FLOWS):
        raw.execute(statement, {"rows": rows})
    for statement in (STEPS, TURNS, RUNNING, TAGS, UNIQUE, ERRORS, LINES):
        raw.execute(statement)
    raw.execute("COMMIT")


# -- counting --------------------------------------------------------------------------------------


def measure(path: Path, rows: int, *, bounded: bool) -> dict[str, Counted]:
    """Return what everything costs that can be asked and done."""
    with database(path, rows, counted=bounded) as raw:
        found = {name: count(raw, call) for name, call in questions(raw)}
        for name, (action, sort) in ACTIONS.items():
            found[f"do: {name}"] = count(raw, acting(raw, action, sort))
        if bounded:
            raw.execute(EXPIRED, {"rows": 2 * LOOKS})
            for question in BOUNDED:
                found[f"search: {question.name}"] = count(raw, listing(raw, question.wanted))
                found[f"count: {question.name}"] = count(raw, counting(raw, question.wanted))
            found["search: workflows that were cancelled"] = count(
                raw, flows(raw, _states("cancelled"), None)
            )
    return found


def questions(raw: sqlite3.Connection) -> Iterator[tuple[str, Callable[[], int]]]:
    """Return all questions that indexes answer."""
    for name, wanted, places in LISTS:
        yield f"list: {name}", listing(raw, wanted)
        yield f"list: {name}, from the end", listing(raw, wanted, before=(9,))
        for place in places:
            yield f"list: {name}, after {place}", listing(raw, wanted, after=place)
            yield f"list: {name}, before {place}", listing(raw, wanted, before=place)
    for name, wanted, _ in COUNTS:
        yield f"count: {name}", counting(raw, wanted)
    for name, (states, before_id) in FLOW_LISTS.items():
        yield f"workflows: {name}", flows(raw, states, before_id)
    for which, flow_id in (("ended", "flow-9999900"), ("pending", "flow-9999899")):
        yield f"workflow: {which}", partial(_nodes, raw, flow_id)
        yield f"status: {which}", partial(_known, raw, flow_id)
    yield "results", lambda: len(graphs.step_results(raw, "flow-9999900", 2, deep=True))


def listing(raw: sqlite3.Connection, wanted: Wanted, **place: Any) -> Callable[[], int]:
    """Return a call for a page."""
    options = {"after": None, "before": None, **place}
    return lambda: len(finding.find(raw, wanted, limit=PAGE, now=NOW, **options).jobs)


def counting(raw: sqlite3.Connection, wanted: Wanted) -> Callable[[], int]:
    """Return a call for a count."""
    return lambda: finding.count(raw, wanted, most=MOST, now=NOW)


def flows(
    raw: sqlite3.Connection, states: frozenset[JobStatus] | None, before: str | None
) -> Callable[[], int]:
    """Return a call for a page of workflows."""
    return lambda: len(graphs.workflows(raw, states=states, limit=PAGE, before=before, now=NOW))


def _nodes(raw: sqlite3.Connection, flow_id: str) -> int:
    run = graphs.workflow(raw, flow_id, NOW)
    return 0 if run is None else len(run.steps)


def _known(raw: sqlite3.Connection, flow_id: str) -> int:
    return rows.status(raw, flow_id, NOW) is not JobStatus.NOT_FOUND


def acting(raw: sqlite3.Connection, action: Action, sort: str) -> Callable[[], int]:
    """Return a call for an action upon 500 jobs of a sort: all there are, or even ones."""
    step = 1 if sort in ("turn", "running") else 2
    ids = [f"{sort}-{step * number}" for number in range(ACTED)]
    return lambda: len(actions.act(raw, action=action, job_ids=ids, now=NOW))


def count(raw: sqlite3.Connection, call: Callable[[], int]) -> Counted:
    """Count the steps of a call, by tens, measure another one, and undo both."""
    steps, times, found = 0, [], 0

    def step() -> None:
        nonlocal steps
        steps += STRIDE

    for handler in (None, step, None):  # at first, statements are compiled
        raw.execute("BEGIN IMMEDIATE")
        raw.set_progress_handler(handler, STRIDE)
        began = time.perf_counter()
        try:
            found = call()
        finally:
            times.append(time.perf_counter() - began)
            raw.set_progress_handler(None, STRIDE)
            raw.execute("ROLLBACK")
    return Counted(steps, 1000 * min(times), found)
