"""What plain sqlite3 does with the library's own tables: the limit that the library is compared with.

One connection in one thread, WAL, synchronous=FULL; rows are made before the clock starts, with the
columns that the library fills, by copying a row that it has written. A cycle claims a hundred jobs in one
transaction and deletes them in the next: with less, a crash between the two would lose jobs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from backlite_async import Client

from .filling import Row, numbered, statement, template
from .programs import Values, latencies
from .workload import HUNDRED, Noop, tasks

__all__ = ["add_hundreds", "add_one", "bulk", "cycle", "hop", "open_database"]

TABLE = "backlite_jobs"

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


@contextmanager
def open_database(path: Path) -> Iterator[tuple[sqlite3.Connection, Row]]:
    """Open a new database with the library's tables; yield a row to copy, too. Empty but for that."""
    asyncio.run(_set_up(path))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        row = template(connection, TABLE)
        connection.execute(f"DELETE FROM {TABLE}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        yield connection, row
    finally:
        connection.close()


def add_one(place: dict[str, str], count: int) -> Values:
    """Insert rows, each in a transaction of its own; the latency is that of a commit."""
    taken = []
    with open_database(_file(place)) as (connection, row):
        sql = statement(TABLE, row)
        for values in _rows(row, count):
            began = time.perf_counter()
            connection.execute(sql, values)
            taken.append(time.perf_counter() - began)
    waits = [1_000 * seconds for seconds in taken]
    return {"rate": count / sum(taken)} | latencies(waits)


def hop(place: dict[str, str], tries: int, rest: float) -> Values:
    """Insert a row from an event loop by a thread, in a transaction of its own; rest, and again."""
    waits = []

    async def run(connection: sqlite3.Connection, row: Row) -> None:
        loop = asyncio.get_running_loop()
        sql = statement(TABLE, row)
        with ThreadPoolExecutor(1) as thread:
            for values in _rows(row, tries):
                await asyncio.sleep(rest)
                began = time.perf_counter()
                await loop.run_in_executor(thread, connection.execute, sql, values)
                waits.append(1_000 * (time.perf_counter() - began))

    with open_database(_file(place)) as (connection, row):
        asyncio.run(run(connection, row))
    return latencies(waits)


def add_hundreds(place: dict[str, str], count: int) -> Values:
    """Insert rows with one executemany in one transaction per hundred."""
    with open_database(_file(place)) as (connection, row):
        sql = statement(TABLE, row)
        rows = _rows(row, count)
        began = time.perf_counter()
        for first in range(0, count, HUNDRED):
            _insert_all(connection, sql, rows[first : first + HUNDRED])
        return {"rate": count / (time.perf_counter() - began)}


def bulk(place: dict[str, str], count: int) -> Values:
    """Insert many rows with one executemany in one transaction."""
    with open_database(_file(place)) as (connection, row):
        sql = statement(TABLE, row)
        rows = _rows(row, count)
        began = time.perf_counter()
        _insert_all(connection, sql, rows)
        return {"rate": count / (time.perf_counter() - began)}


def cycle(place: dict[str, str], count: int) -> Values:
    """Claim and delete all rows, a hundred at a time."""
    with open_database(_file(place)) as (connection, row):
        _insert_all(connection, statement(TABLE, row), _rows(row, count))
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
    assert done == count
    return {"rate": count / elapsed}


async def _set_up(path: Path) -> None:
    async with Client(path, workers=0) as client:
        await client.add(*tasks(1)).save()


def _insert_all(connection: sqlite3.Connection, sql: str, rows: list[tuple[Any, ...]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(sql, rows)
    connection.execute("COMMIT")


def _rows(row: Row, count: int) -> list[tuple[Any, ...]]:
    return [
        tuple((numbered(row, number) | {"payload": msgspec.json.encode(task)}).values())
        for number, task in enumerate(tasks(count))
    ]


def _claim(fence: int) -> dict[str, object]:
    now = time.time_ns() // 1_000_000
    return {"fence": fence, "now": now, "queue": Noop.config.name, "task": Noop.__name__, "limit": HUNDRED}


def _file(place: dict[str, str]) -> Path:
    return Path(place["folder"]) / "jobs.db"
