"""Fills databases past the calls of their owners: with many more rows like one that is there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

__all__ = ["Row", "clone", "insert", "numbered", "template"]

Row = dict[str, Any]

FIRST = 0x0190_0000_0000_7000_8000_0000_0000_0000
"""Where ids begin that grow as those of UUIDv7 do."""


def clone(path: Path, table: str, count: int, vary: Callable[[Row, int], Row]) -> None:
    """Insert rows like the first one of a table, each with its differences; sync nothing meanwhile."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        row = template(connection, table)
        connection.execute("BEGIN IMMEDIATE")
        insert(connection, table, row, (vary(row, number) for number in range(count)))
        connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def template(connection: sqlite3.Connection, table: str) -> Row:
    """Return the first row of a table by its columns, without those that are NULL or the row's number."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    keys = {name for _, name, kind, _, _, key in columns if key and kind.upper() == "INTEGER"}
    [values] = connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()
    found = zip((column[1] for column in columns), values, strict=True)
    return {name: value for name, value in found if value is not None and name not in keys}


def insert(
    connection: sqlite3.Connection, table: str, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Insert rows with one executemany."""
    connection.executemany(statement(table, columns), (tuple(row.values()) for row in rows))


def statement(table: str, columns: Iterable[str]) -> str:
    """Return the INSERT of a row with these columns."""
    names = list(columns)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def numbered(row: Row, number: int) -> Row:
    """Return the row with an id of its own, of the type that its id has."""
    value = UUID(int=FIRST + number)
    return row | {"id": str(value) if isinstance(row["id"], str) else value.bytes}
