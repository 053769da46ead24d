"""The store's SQL: named statements, and migrations in their order."""

from __future__ import annotations

import re
import sqlite3
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

__all__ = ["fetch", "many", "migrations", "statements", "text"]

_encoder = msgspec.json.Encoder()


def fetch(raw: sqlite3.Connection, name: str, parameters: dict[str, Any]) -> list[Any]:
    """Run a statement and fetch all: one with RETURNING that is not read to its end holds its lock."""
    return raw.execute(statements()[name], parameters).fetchall()


def text(value: object) -> str:
    """Encode a parameter as JSON."""
    return _encoder.encode(value).decode()


@cache
def statements() -> dict[str, str]:
    """Return the named statements of queries.sql."""
    text = files(__name__).joinpath("queries.sql").read_text(encoding="utf-8")
    found = re.split(r"^-- (name|part): (\w+)\n", text, flags=re.MULTILINE)
    named: dict[str, dict[str, str]] = {"name": {}, "part": {}}
    for what, name, body in zip(found[1::3], found[2::3], found[3::3], strict=True):
        named[what][name] = body.strip()
    parts = {name: _without_comment(body) for name, body in named["part"].items()}
    return {
        name: re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], body)
        for name, body in named["name"].items()
    }


@cache
def many(name: str, rows: int) -> str:
    """Return a statement that ends with the VALUES of one row, with those of so many rows."""
    head, values, row = statements()[name].rpartition("VALUES ")
    return head + values + ", ".join([row] * rows)


def _without_comment(part: str) -> str:
    """Return a part without the comment that it begins with, which has been read where it stands."""
    return re.sub(r"\A(--.*\n)+", "", part)


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
