"""What plain sqlite3 does with the library's own tables: the limit that the library is compared with.

One connection in one thread, WAL, synchronous=FULL; ids and payloads are made before the clock starts.
A drain claims a hundred jobs in one transaction and deletes them in the next: with less, a crash
between the two would lose jobs.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import msgspec

from backlite_async.stores.sqlite.sql import migrations

from .workload import Noop, Sizes, tasks

__all__ = ["add_bulk", "add_one", "drain", "latency", "open_database"]

HUNDRED = 100

INSERT = """
    INSERT INTO backlite_jobs
        (id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
CLAIM = """
    UPDATE backlite_jobs
    SET status = 'running', fence = :fence, owner = 'raw', attempt = attempt + 1,
        started_at = :now, due_at = :now + 30000
    WHERE seq IN (
        SELECT seq FROM backlite_jobs
        WHERE status = 'pending' AND queue = :queue AND task = :task AND priority = 0 AND due_at <= :now
        ORDER BY due_at, seq LIMIT :limit
    )
    RETURNING id, payload
"""
DELETE = """
    DELETE FROM backlite_jobs
    WHERE id IN (SELECT value FROM json_each(:ids)) AND fence = :fence AND status = 'running'
"""

Row = tuple[str, str, str, bytes, int, int, int, int, int]

_ids = itertools.count(0x0190_0000_0000_7000_8000_0000_0000_0000)


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a new database with the library's tables and settings."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        for statement in itertools.chain.from_iterable(migrations()):
            connection.execute(statement)
        yield connection
    finally:
        connection.close()


def add_one(path: Path, sizes: Sizes) -> list[float]:
    """Insert rows, each in a transaction of its own; return rows per second."""
    with open_database(path) as connection:
        return [sizes.singles / sum(_commits(connection, sizes.singles))]


def add_bulk(path: Path, sizes: Sizes) -> list[float]:
    """Insert many rows with one executemany in one transaction; return rows per second."""
    rows = _rows(sizes.bulk)
    with open_database(path) as connection:
        began = time.perf_counter()
        _insert_all(connection, rows)
        return [sizes.bulk / (time.perf_counter() - began)]


def drain(path: Path, sizes: Sizes) -> list[float]:
    """Claim and delete all rows, a hundred at a time; return rows per second."""
    with open_database(path) as connection:
        _insert_all(connection, _rows(sizes.drain))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        done = 0
        began = time.perf_counter()
        for fence in itertools.count(1):
            claimed = connection.execute(CLAIM, _claim(fence)).fetchall()
            if not claimed:
                break
            ids = json.dumps([job_id for job_id, _payload in claimed])
            done += connection.execute(DELETE, {"ids": ids, "fence": fence}).rowcount
        elapsed = time.perf_counter() - began
    assert done == sizes.drain
    return [sizes.drain / elapsed]


def latency(path: Path, sizes: Sizes) -> list[float]:
    """Insert rows one by one; return the milliseconds that a commit takes, sorted."""
    with open_database(path) as connection:
        return sorted(1_000 * taken for taken in _commits(connection, sizes.tries))


def _commits(connection: sqlite3.Connection, count: int) -> list[float]:
    taken = []
    for row in _rows(count):
        began = time.perf_counter()
        connection.execute(INSERT, row)
        taken.append(time.perf_counter() - began)
    return taken


def _insert_all(connection: sqlite3.Connection, rows: list[Row]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, rows)
    connection.execute("COMMIT")


def _rows(count: int) -> list[Row]:
    now = time.time_ns() // 1_000_000
    config = Noop.config
    return [
        (
            str(UUID(int=next(_ids))),
            config.name,
            Noop.__name__,
            msgspec.json.encode(task),
            config.max_attempts,
            now,
            now,
            now,
            0,
        )
        for task in tasks(count)
    ]


def _claim(fence: int) -> dict[str, object]:
    now = time.time_ns() // 1_000_000
    return {"fence": fence, "now": now, "queue": Noop.config.name, "task": Noop.__name__, "limit": HUNDRED}
