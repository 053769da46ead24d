"""`backlite demo`: what the library does, seen on Python's own files."""

from __future__ import annotations

import click

from ._base import Settings, command, without_client

__all__ = ["demo"]

DATABASE = "backlite-demo.db"


@command(None, "demo", "backlite demo", "backlite demo src --workers 8 --db /tmp/demo.db")
@click.argument("folder", required=False)
@click.option("--workers", type=click.IntRange(1, 10_000), default=4, show_default=True, help="Jobs at once.")
@without_client
def demo(settings: Settings, *, folder: str | None, workers: int) -> int:
    """Measure the Python files below FOLDER (the standard library), one job a file, and print a table.

    Interrupt it and run it again: it goes on where it was. The database is backlite-demo.db, or that of --db;
    not that of BACKLITE_DB.
    """
    from .._demo import run

    return run(folder, settings.db or DATABASE, workers)
