"""The command line: `python -m backlite_async demo [FOLDER]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import __version__

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m backlite_async", description="Background jobs inside an asyncio application."
    )
    parser.add_argument("--version", action="version", version=f"backlite_async {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="measure Python files, one job a file; can be interrupted and goes on where it was",
        description="Add one job for each Python file below FOLDER, parse each, and print a table of the"
        " figures. Interrupt it and run it again: it goes on where it was.",
    )
    demo.add_argument("folder", nargs="?", metavar="FOLDER", help="default: the standard library")
    demo.add_argument(
        "--db", default="backlite-demo.db", metavar="PATH", help="database file (default: %(default)s)"
    )
    demo.add_argument(
        "--workers", type=int, default=4, metavar="N", help="jobs at once (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"argument --workers: {options.workers} must be at least 1")

    from ._demo import run

    try:
        return run(options.folder, options.db, options.workers)
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
