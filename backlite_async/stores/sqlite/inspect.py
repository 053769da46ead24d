"""Looking at a database file that may be anything, on a connection of its own that cannot write."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from ..._errors import DatabaseUnusable
from ..._inspection import Backlog, Claims, Inspection, QueueSeen
from ..._job import OwnerInfo
from .._base import MOST_COUNTED
from . import schema
from .database import LOG_LIMIT, fail
from .hazards import is_affected, network_file_system
from .locks import shared_file, side_folder
from .presence import owners_here
from .sql import fetch, migrations

__all__ = ["inspect", "versions"]


def versions(path: str, *, busy_timeout: float) -> tuple[int, int]:
    """Return the version of a file's schema and the newest; blocking."""
    newest = len(migrations())
    if not os.path.exists(path):
        return 0, newest
    try:
        with closing(_connect(path, busy_timeout)) as raw:
            return schema.version(raw), newest
    except Exception as error:
        fail(error, path)


def inspect(path: str, *, busy_timeout: float, now: int, ended_by: int, late_by: int) -> Inspection:
    """Return what is to be seen of a file; blocking."""
    newest = len(migrations())
    seen: dict[str, Any] = {
        "path": path,
        "there": os.path.exists(path),
        "sqlite": sqlite3.sqlite_version,
        "affected": is_affected(sqlite3.sqlite_version_info),
        "file_system": network_file_system(path),
        "log_bytes": _size(path + "-wal"),  # before a connection of ours may change it
        "log_limit": LOG_LIMIT,
        "schema": (0, newest),
    }
    if not seen["there"]:
        return Inspection(**seen)
    try:
        owners = _owners(path, now)
        with closing(_connect(path, busy_timeout)) as raw:
            seen["journal"] = raw.execute("PRAGMA journal_mode").fetchall()[0][0]
            raw.execute("BEGIN")  # all of it at one instant
            found = schema.version(raw)
            if found == newest:
                seen |= _jobs(raw, now, ended_by, late_by)
    except Exception as error:
        fail(error, path)
    all_owners = sys.platform != "win32"
    seen |= {"schema": (found, newest), "owners": owners, "all_owners": all_owners}
    return Inspection(**seen)


def _connect(path: str, busy_timeout: float) -> sqlite3.Connection:
    """Open a file that must be there, to read it only.

    Where there is a log, its last user would write it back at the end, and may not; where there is none, the
    one that is made for reading is removed again, which only who may write does.
    """
    if os.path.isdir(path):
        raise DatabaseUnusable(path, "is a folder; give the path of a file")
    log = os.path.exists(path + "-wal")
    if not log and not os.access(path, os.W_OK):
        raise DatabaseUnusable(path, "is not writable for this user")
    uri = f"{Path(path).absolute().as_uri()}?mode={'ro' if log else 'rw'}"
    raw = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_timeout)
    raw.execute("PRAGMA query_only = ON")
    raw.execute("PRAGMA trusted_schema = OFF")
    return raw


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _owners(path: str, now: int) -> list[OwnerInfo]:
    folder = side_folder(path)
    if not os.path.isdir(folder):
        return []
    return owners_here(folder, shared_file(path, folder), now)


def _jobs(raw: sqlite3.Connection, now: int, ended_by: int, late_by: int) -> dict[str, Any]:
    levels = msgspec.json.decode(fetch(raw, "pending_levels", {"queue": None})[0][0])
    backlogs = [
        Backlog(queue, task, *fetch(raw, "backlog", _level(queue, task, priority, late_by))[0])
        for queue, task, priority in levels
    ]
    queues = []
    for name, paused, limits in fetch(raw, "queues_seen", {}):
        known = msgspec.json.decode(limits or "{}")
        started = _started(raw, name, known.get("rate"), now)
        queues.append(QueueSeen(name, bool(paused), known, started))
    claims = [Claims(*row) for row in fetch(raw, "claims_seen", {"ended_by": ended_by})]
    return {"backlogs": backlogs, "claims": claims, "queues": queues}


def _level(queue: str, task: str, priority: int, late_by: int) -> dict[str, Any]:
    return {
        "queue": queue,
        "task": task,
        "priority": priority,
        "late_by": late_by,
        "most": MOST_COUNTED,
    }


def _started(raw: sqlite3.Connection, queue: str, rate: dict[str, Any] | None, now: int) -> int:
    """Return how many have started in a window that ends now."""
    if rate is None:
        return 0
    since = now - round(rate["per"] * 1000)
    first, _, last, _ = fetch(raw, "starts", {"queue": queue, "since": since})[0]
    return 0 if first is None else last - first + 1
