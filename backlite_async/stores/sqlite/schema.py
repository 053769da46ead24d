"""Installing the schema and bringing an older one up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ..._errors import DatabaseUnusable
from .database import Database
from .sql import migrations, statements

__all__ = ["check", "install", "version"]


def version(raw: sqlite3.Connection) -> int:
    """Return the schema's version; 0 where there is none."""
    sql = statements()
    if raw.execute(sql["schema_tables"]).fetchall()[0][0] == 0:
        return 0
    return int(raw.execute(sql["schema_version"]).fetchall()[0][0])


def install(database: Database, steps: Sequence[Sequence[str]] | None = None) -> None:
    """Run the migrations that are missing, each in one transaction; blocking."""
    steps = migrations() if steps is None else steps
    while _check_not_newer(database, len(steps)) < len(steps):
        database.transact(lambda raw: _step(raw, steps))


def check(database: Database) -> None:
    """Raise `DatabaseUnusable` unless the schema is current."""
    newest = len(migrations())
    found = _check_not_newer(database, newest)
    if found < newest:
        what = "has no Backlite schema" if found == 0 else f"has schema version {found}, this needs {newest}"
        raise DatabaseUnusable(database.path, f"{what}; run await client.install() or Client(install=True)")


def _check_not_newer(database: Database, newest: int) -> int:
    found = database.look(version)
    if found > newest:
        raise DatabaseUnusable(
            database.path,
            f"was written by a newer backlite_async (schema version {found}, this one knows {newest});"
            " upgrade it",
        )
    return found


def _step(raw: sqlite3.Connection, steps: Sequence[Sequence[str]]) -> None:
    sql = statements()
    found = version(raw)  # again, now under the write lock: another process may have been faster
    if found >= len(steps):
        return
    if raw.execute(sql["schema_tables"]).fetchall()[0][0] == 0:
        raw.execute(sql["create_schema"])
        raw.execute(sql["start_schema"])
    for statement in steps[found]:
        raw.execute(statement)
    raw.execute(sql["set_schema_version"], {"version": found + 1})
