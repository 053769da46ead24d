"""`backlite bench`: how fast this computer is, beside plain inserts into SQLite in the same run."""

from __future__ import annotations

import os
import platform

import click

from ._base import Settings, command, without_client

__all__ = ["bench"]


@command(None, "bench", "backlite bench", "backlite bench --jobs 100000 --workers 50 --json")
@click.option(
    "--jobs", type=click.IntRange(100, 1_000_000), default=5000, show_default=True, help="How many."
)
@click.option("--workers", type=click.IntRange(1, 1000), default=10, show_default=True, help="Jobs at once.")
@without_client
def bench(settings: Settings, *, jobs: int, workers: int) -> None:
    """Measure adds and runs on this computer, beside plain inserts into SQLite in the same run.

    In a temporary folder, every commit synced to its disk. The figures are those of one run, here and now.
    """
    from .._bench import measure

    out, rows = settings.out, []
    for what, number, seconds in measure(jobs, workers):
        if settings.json:
            out.data({"what": what, "number": number, "seconds": seconds, "a_second": number / seconds})
        rows.append((what, f"{number:,}", f"{seconds:.3f}", f"{number / seconds:,.0f}"))
    if not settings.json:
        out.table(rows, ("what", ">number", ">seconds", ">a second"))
        out.say(f"Python {platform.python_version()}, {os.cpu_count()} processors")
