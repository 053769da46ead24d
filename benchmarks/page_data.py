"""A database as an admin page may meet it: `python -m benchmarks.page_data PATH [--jobs N] [--queues N]`.

A million completed jobs of one day, some failed, cancelled or tagged, a hundred with a megabyte of payload;
others that are pending, running, or wait for their key; statistics; task types, schedules and workflows.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from backlite_async import Client, JobContext, QueueConfig, Task, chain, group

__all__ = ["fill", "main", "queue_name"]

KINDS = """
CREATE TEMP TABLE kinds (queue TEXT, number INTEGER);
INSERT INTO kinds
WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < :queues)
SELECT printf('queue-%03d', n), n FROM n
"""

COMPLETED = """
WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :jobs)
INSERT INTO backlite_completed (
    id, queue, task, status, priority, key, payload, attempt, max_attempts, crashes, fence, owner,
    created_at, scheduled_at, started_at, finished_at, duration, error, result, expires_at, tags, noted
)
SELECT
    printf('0199%04x-%04x-7000-8000-%012x', n / 65536, n % 65536, n),
    printf('queue-%03d', (n + n / 100) % :queues),
    'Task' || (n % 3),
    CASE WHEN n % 20 = 0 THEN 'failed' WHEN n % 100 = 1 THEN 'cancelled' ELSE 'succeeded' END,
    n % 3 - 1, iif(n % 50 = 2, 'customer-' || (n % 1000), NULL),
    CASE
        WHEN n % (:jobs / 100 + 1) = 5
        THEN CAST('{"n":' || n || ',"text":"' || hex(zeroblob(500000)) || '"}' AS BLOB)
        ELSE CAST('{"n":' || n || ',"to":"user' || n || '@example.org"}' AS BLOB)
    END,
    1 + (n % 20 = 0), 3, 0, n, 'owner-' || (n % 8), at - 2000, at - 1000, at - 500, at, 1000 * (n % 500),
    iif(n % 20 = 0, 'ValueError: no such user: user' || n || '@example.org', NULL),
    iif(n % 10 = 3, CAST('{"sent":true}' AS BLOB), NULL),
    at + 86400000 * 30, iif(n % 10 = 4, '["tag-' || (n % 7) || '"]', NULL),
    iif(n % 20 = 0 OR n % 10 = 4, 1, NULL)
FROM (SELECT n, :now - 86400000 + 86400000 * n / :jobs AS at FROM n)
"""

PENDING = """
WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :pending)
INSERT INTO backlite_jobs (
    id, queue, task, priority, key, payload, max_attempts, created_at, scheduled_at, due_at, waits_from, tags
)
SELECT
    printf('019a%04x-%04x-7000-8000-%012x', n / 65536, n % 65536, n),
    printf('queue-%03d', (n + n / 100) % :queues),
    'Task' || (n % 3), n % 3 - 1, iif(n % 10 = 1, 'customer-' || (n % 100), NULL),
    CAST('{"n":' || n || ',"to":"user' || n || '@example.org"}' AS BLOB), 3, :now - 60000, at,
    iif(n % 10 = 1, NULL, at), :now - 60000, iif(n % 10 = 4, '["tag-' || (n % 7) || '"]', NULL)
FROM (SELECT n, :now + 100 * (n - 1000) AS at FROM n)
"""

RUNNING = """
WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 200)
INSERT INTO backlite_jobs (
    id, queue, task, status, payload, max_attempts, created_at, scheduled_at, due_at, attempt, fence, owner,
    started_at, progress
)
SELECT
    printf('019b%04x-%04x-7000-8000-%012x', n / 65536, n % 65536, n),
    printf('queue-%03d', (n + n / 100) % :queues),
    'Task' || (n % 3), 'running', CAST('{"n":' || n || '}' AS BLOB), 3, :now - 60000, :now - 60000,
    :now + 3600000, 1, 2000000 + n, 'owner-' || (n % 8), :now - 100 * n, n / 200.0
FROM n
"""

TAGS = """
INSERT INTO backlite_tags (job_id, tag)
SELECT id, json_extract(tags, '$[0]') FROM backlite_completed WHERE tags IS NOT NULL
UNION ALL SELECT id, json_extract(tags, '$[0]') FROM backlite_jobs WHERE tags IS NOT NULL
"""

ERRORS = """
INSERT INTO backlite_errors (
    job_id, fence, attempt, type, message, traceback, owner, started_at, finished_at, duration
)
SELECT
    completed.id, attempt.value, attempt.value, 'ValueError', error, 'File "mail.py", line 7, in send', owner,
    started_at - 9000 + 1000 * attempt.value, finished_at - 9000 + 1000 * attempt.value, 500000
FROM backlite_completed AS completed CROSS JOIN json_each('[1, 2]') AS attempt WHERE error IS NOT NULL
"""

STATS = """
WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < :spans)
INSERT OR IGNORE INTO backlite_stats (queue, span, start, what, bucket, number)
SELECT
    kinds.queue, :span, start, what,
    iif(what IN ('run', 'wait'), 50 + (kinds.number + n * 3 + bucket.value * 5) % 25, 0),
    :span / 60000 * (1 + (kinds.number + n + bucket.value) % 3)
FROM (SELECT n, :last - :span * n AS start FROM n) CROSS JOIN kinds
CROSS JOIN (
    SELECT 'succeeded' AS what, 1 AS many UNION ALL SELECT 'failed', 1 UNION ALL SELECT 'retried', 1
    UNION ALL SELECT 'run', :buckets UNION ALL SELECT 'wait', :buckets
) CROSS JOIN json_each('[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]') AS bucket
WHERE bucket.value < many
"""


def queue_name(number: int) -> str:
    """Return the name of a queue."""
    return f"queue-{number:03}"


def fill(path: Path, *, jobs: int, queues: int, pending: int = 50_000, now: int | None = None) -> None:
    """Make the database; what happened ends now, in milliseconds, or then."""
    now = int(time.time() * 1000) if now is None else now
    asyncio.run(_declare(path, queues))
    given = {"jobs": jobs, "queues": queues, "pending": pending, "now": now}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        for statement in KINDS.split(";"):
            connection.execute(statement, given)
        for statement in (COMPLETED, PENDING, RUNNING, TAGS, ERRORS):
            connection.execute(statement, given)
        for span, spans, last, buckets in (
            (60_000, 179, now - now % 60_000, 6),
            (3_600_000, 30, now - now % 3_600_000 - 3 * 3_600_000, 16),
        ):
            many = {"span": span, "spans": spans, "last": last, "buckets": buckets}
            connection.execute(STATS, many)
        connection.execute("UPDATE backlite_fence SET value = 3000000")
        connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


async def _declare(path: Path, queues: int) -> None:
    """Install the schema; declare queues and task types; add schedules and workflows."""
    client = Client(path, workers=0)
    kinds = [_kind(queue_name(number)) for number in range(queues)]
    for kind in kinds:
        client.register(kind, _handle)
    for number in range(20):
        client.schedule(f"schedule-{number:02}", kinds[number % queues](number), every=timedelta(hours=1))
    async with client:
        for number in range(50):
            kind = kinds[number % queues]
            parts = group(*(kind(each) for each in range(20)))
            await client.add(chain(kind(0), parts, kind(99), name=f"workflow-{number:02}")).save()


async def _handle(task: Task, job: JobContext) -> None:
    raise NotImplementedError("nothing of this is to be run")


def _kind(queue: str) -> type[Task]:
    class Task0(Task):
        """Send something to somebody."""

        config: ClassVar[QueueConfig] = QueueConfig(queue)
        n: int
        to: str = ""

    return Task0


def main() -> int:
    """Make one where the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page_data", description=sys.modules[__name__].__doc__
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="completed ones")
    parser.add_argument("--queues", type=int, default=100)
    parser.add_argument("--pending", type=int, default=50_000)
    options = parser.parse_args()
    if options.path.exists():
        parser.error(f"{options.path} is there already")
    fill(options.path, jobs=options.jobs, queues=options.queues, pending=options.pending)
    return 0


if __name__ == "__main__":
    sys.exit(main())
