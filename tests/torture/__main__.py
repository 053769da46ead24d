"""Run the battery: `python -m tests.torture`, or some of its rows: `python -m tests.torture T3 T8`."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from .runner import FULL_MINUTES, Report, discover, run_entry, summary

FOLDER = Path(__file__).parent


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    made.add_argument("rows", nargs="*", metavar="ROW", help="T3, t03_simulation, ...; none: all")
    made.add_argument("--minutes", type=float, default=FULL_MINUTES, help="length of a whole battery")
    made.add_argument(
        "--quick", action="store_true", help="a few seconds a row; its bars on counts do not apply"
    )
    made.add_argument("--allow-missing", action="store_true", help="missing tools do not make it fail")
    return made


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Run rows; return 1 if a bar was missed, a row failed, or a tool is missing."""
    options = parser().parse_args(arguments)
    try:
        entries = discover(folder, options.rows)
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    print(
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()},"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        flush=True,
    )
    reports: list[Report] = []
    for entry in entries:
        print(f"{entry.name} ...", end=" ", flush=True)
        report = run_entry(entry, options.minutes, quick=options.quick)
        reports.append(report)
        print(state(report), flush=True)
    text, status = summary(reports, allow_missing=options.allow_missing)
    print(f"\n{text}")
    return status


def state(report: Report) -> str:
    """Return in one line what became of a row."""
    if report.skipped is not None:
        return f"SKIPPED: {report.skipped}"
    done = "" if report.row is None else f"{report.row.trials:,} {report.row.unit}, "
    verdict = "MISSED " + "; ".join(report.missed) if report.missed else "ok"
    return f"{done}{report.seconds:.0f} s, {verdict}"


if __name__ == "__main__":
    sys.exit(main())
