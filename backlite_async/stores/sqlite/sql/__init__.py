"""The store's SQL: named statements, and migrations in their order."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import msgspec

__all__ = ["fetch", "many", "migrations", "named", "portions", "statements", "text"]

T = TypeVar("T")

_encoder = msgspec.json.Encoder()


def fetch(raw: sqlite3.Connection, name: str, parameters: dict[str, Any]) -> list[Any]:
    """Run a statement and fetch all: one with RETURNING that is not read to its end holds its lock."""
    return raw.execute(statements()[name], parameters).fetchall()


def text(value: object) -> str:
    """Encode a parameter as JSON."""
    return _encoder.encode(value).decode()


@cache
def statements() -> dict[str, str]:
    """Return the named statements of all files; a part may stand in another file than where it is used."""
    names, parts = _sections("name"), _sections("part")
    bodies = {name: _without_comment(body) for name, body in parts.items()}
    return {name: re.sub(r"\{(\w+)\}", lambda found: bodies[found[1]], body) for name, body in names.items()}


def named(file: str) -> list[str]:
    """Return the names of the statements of a file, such as "queries.sql"."""
    return [name for source, what, name, _ in _files() if source == file and what == "name"]


def _sections(wanted: str) -> dict[str, str]:
    """Return the sections of a sort by their names, each of which is there once."""
    found: dict[str, str] = {}
    for file, what, name, body in _files():
        if what == wanted and found.setdefault(name, body) is not body:
            raise RuntimeError(f"{file}: there are two of {what} {name!r}")
    return found


@cache
def _files() -> list[tuple[str, str, str, str]]:
    """Return the sections of all files: file, what it is, name, body; those of queries.sql first."""
    found = []
    sources = [item for item in files(__name__).iterdir() if item.name.endswith(".sql")]
    for source in sorted(sources, key=lambda item: (item.name != "queries.sql", item.name)):
        text = source.read_text(encoding="utf-8")
        parts = re.split(r"^-- (name|part): (\w+)\n", text, flags=re.MULTILINE)
        for what, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            found.append((source.name, what, name, body.strip()))
    return found


@cache
def many(name: str, rows: int) -> str:
    """Return a statement with VALUES of one row, with those of so many rows."""
    head, values, rest = statements()[name].rpartition("VALUES ")
    row, end, tail = rest.partition(")")
    return head + values + ", ".join([row + end] * rows) + tail


def portions(
    name: str, items: Sequence[T], row: Callable[[T], Iterable[object]], *, most: int
) -> Iterator[tuple[str, list[object]]]:
    """Return a statement with VALUES as often as it takes for the rows of these, with what it is to be given.

    With powers of two of rows: few statements, all of them prepared, serve any number.
    """
    begin = 0
    while left := len(items) - begin:
        size = min(1 << left.bit_length() - 1, most)
        values: list[object] = []
        for item in items[begin : begin + size]:
            values += row(item)
        yield many(name, size), values
        begin += size


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
