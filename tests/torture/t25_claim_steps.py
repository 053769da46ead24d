"""T25: what cannot run costs the claim nothing. Steps of SQLite's machine for one claim are counted.

A hundred queues, a quarter of them paused and a quarter full, at a million rows, with ten thousand jobs of
full keys in front: against the same queues with a few rows, against the open ones alone, and against one.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from backlite_async import QueueConfig, Rate
from backlite_async._job import Claim, Lane, Limit, More, NewJob
from backlite_async._plan import plan_limits
from backlite_async.stores.sqlite import claims, control, rows
from backlite_async.stores.sqlite.store import SQLiteStore

from .kit import Budget, Row

__all__ = ["Counted", "Scene", "count", "judge", "measure", "run"]

SECONDS, LEAST = 5.0, 1

NOW, LEASE_END = 100_000_000, 100_030_000

ROWS, FEW_ROWS = 1_000_000, 20_000

ROOM = 10
"""Jobs that one claim takes."""

NAMES = [f"queue-{number:02}" for number in range(100)]
OPEN, PAUSED, FULL = NAMES[::2], NAMES[1::4], NAMES[3::4]
"""They stand among each other, as they come."""

KEYS, PER_KEY = 50, 200
"""Full keys in the first queue, and jobs of each of them: all better than the others of that queue."""

SAME = 1.1
"""By how much two counts may differ that are to be the same."""

CLOSED = 75
"""Steps that a closed queue may cost a claim, to find that it is closed, whatever is in it."""

OPTIONS: dict[str, dict[str, object]] = {
    "no limit": {},
    "concurrency": {"concurrency": 20},
    "global_concurrency": {"global_concurrency": 20},
    "concurrency_per_key": {"concurrency_per_key": 1},
    "rate": {"rate": Rate(100, per=1.0)},
}
"""What the open queues are limited by, without being full."""

FILL = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :rows)
INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at)
SELECT 'job-' || n, queues.name, 'T', x'7b7d', 3, 0, n, n
FROM number CROSS JOIN queues ON queues.number = n % (SELECT count(*) FROM queues)
"""


class Scene(NamedTuple):
    """A database: its queues, its rows, and whether some are closed and keys are full."""

    name: str
    queues: Sequence[str]
    rows: int
    crowded: bool


class Counted(NamedTuple):
    """What one claim has cost: steps, milliseconds without counting; and how many jobs it took."""

    steps: int
    millis: float
    jobs: int


def run(budget: Budget, *, size: int | None = None) -> Row:
    """Count in each of the databases, and judge."""
    row = Row("T25", "claims beside what cannot run: closed queues, full keys", unit="claims")
    large = size or (ROWS if budget.most is None else FEW_ROWS)
    scenes = [
        Scene(f"{large:,} rows", NAMES, large, True),
        Scene("few rows", NAMES, len(NAMES) * 20, True),
        Scene("open ones alone", OPEN, len(OPEN) * 20, False),
        Scene("one queue", OPEN[:1], 1_000, False),
    ]
    with tempfile.TemporaryDirectory(prefix="t25-") as folder:
        found = {scene.name: measure(Path(folder), scene) for scene in scenes}
    judge(row, list(found), found)
    return row


def judge(row: Row, names: Sequence[str], found: dict[str, dict[str, Counted]]) -> None:
    """Compare the first database with the others, for each sort of limit."""
    large, few, alone, _ = names
    for limit in found[large]:
        counts = [found[name][limit] for name in names]
        row.trials += len(counts)
        steps = ", ".join(f"{name} {count.steps:,}" for name, count in zip(names, counts, strict=True))
        closed = (counts[0].steps - found[alone][limit].steps) / (len(NAMES) - len(OPEN))
        row.notes.append(
            f"{limit}: {steps} steps, {closed:.0f} for each closed queue;"
            f" {counts[0].millis:.2f} ms, one {counts[-1].millis:.2f} ms"
        )
        jobs = [count.jobs for count in counts]
        row.require(f"{limit}: {jobs} jobs were claimed, not {ROOM} each", set(jobs) == {ROOM})
        row.require(f"{limit}: {closed:.0f} steps for each closed queue", closed <= CLOSED)
        ratio = counts[0].steps / max(1, found[few][limit].steps)
        row.require(f"{limit}: {ratio:.2f} times the steps of {few}", 1 / SAME <= ratio <= SAME)


# -- databases -------------------------------------------------------------------------------------


@contextmanager
def database(folder: Path, scene: Scene) -> Iterator[sqlite3.Connection]:
    """Make a database, and open it."""
    path = str(folder / f"{scene.name}.db")
    asyncio.run(SQLiteStore(path, durability="normal", busy_timeout=5.0).install())
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA synchronous = OFF")
        raw.execute("CREATE TEMP TABLE queues (number INTEGER PRIMARY KEY, name TEXT)")
        raw.execute("BEGIN")
        raw.executemany("INSERT INTO queues VALUES (?, ?)", list(enumerate(scene.queues)))
        raw.execute(FILL, {"rows": scene.rows})
        for queue in scene.queues:
            if queue not in PAUSED:  # what another process runs of each of them
                claim(raw, [queue], room=2, owner="another")
        if scene.crowded:
            crowd(raw)
        raw.execute("COMMIT")
        yield raw


def crowd(raw: sqlite3.Connection) -> None:
    """Pause queues, and fill keys: of each one job runs elsewhere, and many wait in front."""
    for queue in PAUSED:
        control.pause(raw, queue, NOW)
    limit = Limit(queue=OPEN[0], per_key=1)
    keys = [f"customer-{number}" for number in range(KEYS)]
    rows.add(raw, [keyed(key, 0) for key in keys])
    claim(raw, [OPEN[0]], room=KEYS, owner="another", limits=[limit])
    rows.add(raw, [keyed(key, number) for number in range(1, PER_KEY) for key in keys])


def keyed(key: str, number: int) -> NewJob:
    """Return a job of a key, better than any other."""
    return NewJob(
        id=f"{key}-{number}",
        queue=OPEN[0],
        task="T",
        payload=b"{}",
        max_attempts=3,
        created_at=NOW,
        due_at=0,
        priority=5,
        more=More(key=key, turns=1),
    )


def claim(
    raw: sqlite3.Connection,
    queues: Sequence[str],
    *,
    room: int,
    owner: str,
    limits: Sequence[Limit] = (),
) -> Claim:
    """Claim of queues, in one lane."""
    lane = Lane(kinds=tuple((queue, "T") for queue in queues), room=room)
    return claims.claim(raw, [lane], owner=owner, now=NOW, until=LEASE_END, limits=limits)


# -- counting --------------------------------------------------------------------------------------


def measure(folder: Path, scene: Scene) -> dict[str, Counted]:
    """Return what a claim costs in a scene, for each limit that its open queues may have."""
    with database(folder, scene) as raw:
        return {
            name: count(raw, scene.queues, limits_of(scene, options)) for name, options in OPTIONS.items()
        }


def limits_of(scene: Scene, options: dict[str, object]) -> list[Limit]:
    """Return the limits that a process with free workers asks by; the full queues have one of their own."""
    configs = [
        QueueConfig(queue, global_concurrency=2) if queue in FULL else QueueConfig(queue, **options)  # type: ignore[arg-type]
        for queue in scene.queues
    ]
    limited = [config for config in configs if config.limited]
    return plan_limits(limited, held={}, workers_free=ROOM, threads_free=ROOM)


def count(raw: sqlite3.Connection, queues: Sequence[str], limits: Sequence[Limit]) -> Counted:
    """Count the steps of a claim, measure another one, and undo both."""
    steps, times, jobs = 0, [], 0

    def step() -> None:
        nonlocal steps
        steps += 1

    for handler in (None, step, None, None, None):  # at first, statements are compiled
        raw.execute("BEGIN IMMEDIATE")
        raw.set_progress_handler(handler, 1)
        began = time.perf_counter()
        try:
            jobs = len(claim(raw, queues, room=ROOM, owner="mine", limits=limits).jobs)
        finally:
            times.append(time.perf_counter() - began)
            raw.set_progress_handler(None, 1)
            raw.execute("ROLLBACK")
    return Counted(steps, 1000 * min(times), jobs)
