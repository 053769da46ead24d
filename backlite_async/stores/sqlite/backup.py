"""Copying the database while it is in use."""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import threading
from contextlib import closing, suppress

from ..._errors import DatabaseUnusable, InvalidValue
from .connection import Connection
from .database import Database, fail
from .finishing import end_cancelled
from .sql import statements

__all__ = ["backup"]

PAGES = 4096
"""Pages copied before looking whether to go on."""


class _Cancelled(Exception):
    """Nobody waits for the copy any more."""


async def backup(database: Database, target: str) -> None:
    """Copy the whole database, as it is at one instant, to a file that must not exist yet.

    Nobody waits for it: it reads a snapshot on a connection and a thread of its own. The file
    gets its name when it is whole and synced.
    """
    if os.path.lexists(target):
        raise InvalidValue(f"backup to {target!r}: something is there; remove it, or take another path")
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise InvalidValue(f"backup to {target!r}: the folder {folder!r} does not exist; create it first")
    database.check_same_file()
    unfinished = f"{target}.{secrets.token_hex(4)}.unfinished"
    cancelled = threading.Event()
    connection = await Connection.open(database.path)
    try:
        await connection.call(lambda raw: _copy(raw, unfinished, target, cancelled), cancelled=cancelled.set)
    except sqlite3.Error as error:
        fail(error, target)
    except OSError as error:
        raise DatabaseUnusable(target, f"cannot be written: {error.strerror}") from error
    finally:
        await connection.close()


def _copy(raw: sqlite3.Connection, unfinished: str, target: str, cancelled: threading.Event) -> None:
    raw.execute("PRAGMA query_only = ON")
    raw.execute("PRAGMA wal_autocheckpoint = 0")
    source = raw.execute("PRAGMA database_list").fetchall()[0][2]
    mode = stat.S_IMODE(os.stat(source).st_mode)
    os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))

    def progress(_status: int, _remaining: int, _total: int) -> None:
        if cancelled.is_set():
            raise _Cancelled

    try:
        raw.execute("BEGIN")  # one snapshot for all steps: else every write by others would begin it anew
        raw.execute(statements()["schema_version"]).fetchall()
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as copy:
            raw.backup(copy, pages=PAGES, progress=progress)
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute("BEGIN")
            copy.execute(statements()["free_claims"])
            copy.execute(statements()["forget_watches"])  # nor does anybody wait there
            end_cancelled(copy)  # who was asked to do so does not run there
            copy.execute("COMMIT")
        _sync(unfinished)
        _name(unfinished, target)
    finally:
        raw.execute("ROLLBACK")
        for name in (unfinished, unfinished + "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(name)


def _name(unfinished: str, target: str) -> None:
    """Give a file its name without ever replacing another one."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.replace(unfinished, target)
    if os.name != "nt":
        _sync(os.path.dirname(target), os.O_RDONLY)


def _sync(path: str, flags: int = os.O_RDWR) -> None:
    file = os.open(path, flags)
    try:
        os.fsync(file)
    finally:
        os.close(file)
