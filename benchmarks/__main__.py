"""Measure, print the table, and write it down if asked: `python -m benchmarks [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from .figures import comparisons, measure
from .report import as_json, table
from .workload import FULL, QUICK


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often; default: 5, with --quick 3")
    parser.add_argument("--quick", action="store_true", help="fewer jobs, for a first impression")
    parser.add_argument("--only", default="", metavar="TEXT", help="the figures whose title contains this")
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="on which disk; default: the current folder"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    options = parser.parse_args()
    sizes = QUICK if options.quick else FULL
    rounds = options.rounds if options.rounds is not None else (3 if options.quick else 5)
    if rounds < 1:
        parser.error("--rounds must be at least 1")

    found = [
        comparison
        for comparison in comparisons()
        if any(options.only in figure.title for figure in comparison.figures)
    ]
    if not found:
        parser.error(f"--only: no figure's title contains {options.only!r}")
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmarks-") as folder:
        for progress in measure(found, sizes, rounds, Path(folder)):
            print(progress, file=sys.stderr, flush=True)
    figures = [figure for comparison in found for figure in comparison.figures]
    print(table(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(figures, sizes, rounds), indent=2) + "\n")


if __name__ == "__main__":
    main()
