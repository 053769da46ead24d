"""Building the file anew, while it is in use."""

from __future__ import annotations

import sqlite3

from .connection import Connection
from .database import Database, fail

__all__ = ["vacuum"]


async def vacuum(database: Database) -> None:
    """Build the file anew, on a connection of its own; readers go on, writers wait for their turn."""
    database.check_same_file()
    connection = await Connection.open(database.path)
    try:
        await connection.call(
            lambda raw: database.patiently(lambda: _vacuum(raw, database)),
            cancelled=connection.raw.interrupt,
        )
    except sqlite3.Error as error:
        fail(error, database.path)
    finally:
        await connection.close()


def _vacuum(raw: sqlite3.Connection, database: Database) -> None:
    """Do it in our turn: whoever writes and checkpoints takes turns, see `hazards`."""
    with database.file.lock, database.file.turn(database.abandoned):
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("VACUUM")
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # the whole file was in the log
