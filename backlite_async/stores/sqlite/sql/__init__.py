"""The store's SQL: named statements, and migrations in their order."""

from __future__ import annotations

import re
import sqlite3
from functools import cache
from importlib.resources import files

__all__ = ["migrations", "statements"]


@cache
def statements() -> dict[str, str]:
    """Return the named statements of queries.sql."""
    text = files(__name__).joinpath("queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


@cache
def migrations() -> list[list[str]]:
    """Return the migrations: for each version, from 1, the statements that lead to it."""
    folder = files(__name__).joinpath("migrations")
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    if [int(name[:4]) for name in names] != list(range(1, len(names) + 1)):
        raise RuntimeError(f"migrations are not numbered without gaps: {names}")
    return [split(folder.joinpath(name).read_text(encoding="utf-8")) for name in names]


def split(script: str) -> list[str]:
    """Split a script into its statements."""
    found, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            found.append(current.strip())
            current = ""
    if current.strip():
        raise RuntimeError(f"unfinished statement: {current!r}")
    return found
