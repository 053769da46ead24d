"""Where jobs are kept: the `Store` protocol, a memory store and a SQLite store."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from os import PathLike, fspath

from .._errors import InvalidType, InvalidValue
from ._base import WATCHED_FOR, Block, Dead, Store
from .memory import MemoryStore

__all__ = ["WATCHED_FOR", "Block", "Dead", "MemoryStore", "Store", "is_file", "store_maker"]


def store_maker(
    database: str | PathLike[str] | Store, *, durability: str, busy_timeout: float
) -> Callable[[], Store]:
    """Return what makes the store that a client's `database` argument asks for.

    A path is a SQLite file, opened anew for each start; ":memory:" a memory store of its own; a
    `Store` is taken as it is.
    """
    if durability not in ("full", "normal"):
        raise InvalidValue(f'durability={durability!r} must be "full" or "normal"')
    if isinstance(database, Store):
        return lambda: database
    if database == ":memory:":
        memory = MemoryStore()
        return lambda: memory
    if not isinstance(database, (str, PathLike)):
        raise InvalidType(f'database={database!r} must be a path, ":memory:" or a Store')
    path = fspath(database)
    if not isinstance(path, str):
        raise InvalidType(f"database={database!r} must be a str path, not bytes")
    if not path or path.startswith("file:") or "\0" in path:
        raise InvalidValue(f'database={database!r} must be the path of a file, or ":memory:"')
    from .sqlite.store import SQLiteStore

    # Resolved once: the application may change its folder.
    return partial(SQLiteStore, os.path.abspath(path), durability=durability, busy_timeout=busy_timeout)


def is_file(make: Callable[[], Store]) -> bool:
    """Return whether what `store_maker` has returned opens a file anew each time, as others may."""
    return isinstance(make, partial)
