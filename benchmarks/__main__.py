"""Measure, and print the tables: `python -m benchmarks [--quick] [--servers] [--write FOLDER]`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from .check import check, judged, passed
from .figures import Contest, Figure, contests, figures
from .measures import Stage, backlogs, stages
from .peers import Peer
from .plots import growth_plot, latency_plot
from .report import as_json, check_table, contest_table, figure_table, notes
from .run import Results, Runner
from .servers import Servers
from .workload import FULL, QUICK, Sizes

BEGAN = time.monotonic()


def main() -> int:
    parser, options = _options()
    if options.check:
        return _check(options.folder.resolve(), options.only)
    sizes = QUICK if options.quick else FULL
    if options.rounds is not None:
        sizes = replace(sizes, rounds=options.rounds)
    if sizes.rounds < 1:
        parser.error("--rounds must be at least 1")
    shown = [figure for figure in figures(sizes) if options.only in figure.title]
    beside = [contest for contest in contests(sizes) if options.only in contest.title]
    if not shown and not beside:
        parser.error(f"--only: no figure's title contains {options.only!r}")

    with (
        tempfile.TemporaryDirectory(dir=options.folder.resolve(), prefix="benchmarks-") as folder,
        Servers(Path(folder), wanted=options.servers, redis_sync=options.redis_sync) as servers,
    ):
        peers = [] if options.alone else servers.usable()
        runner = Runner(Path(folder), sizes.rounds, servers, _say)
        for stage in _needed(sizes, peers, shown, beside):
            runner.run(stage)
    reasons = {} if options.alone else servers.reasons
    tables = _tables(shown, beside, runner.results, peers, reasons)
    print(tables, end="")
    if options.write is not None:
        found = as_json(
            shown, beside, runner.results, sizes=sizes, peers=peers, reasons=reasons, command=_command()
        )
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "tables.md").write_text(tables)
        _write(options.write, found, runner.results, sizes, peers)
    return 0


def _check(folder: Path, only: str) -> int:
    """Judge the figures by half of their bars; return 1 if one has failed at every try."""
    found = [figure for figure in judged() if only in figure.title]
    with tempfile.TemporaryDirectory(dir=folder, prefix="benchmarks-") as place:
        results = check(Path(place), _say, found)
    print(check_table(found, results))
    for name, reason in results.failures.items():
        print(f"{name}: {reason}")
    return 0 if all(passed(figure, results) for figure in found) else 1


def _options() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__
    )
    parser.add_argument(
        "--check", action="store_true", help="half a minute: fail if something is far too slow"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often; default: 5, with --quick 2")
    parser.add_argument("--quick", action="store_true", help="fewer jobs, for a first impression")
    parser.add_argument("--servers", action="store_true", help="with the peers on Redis and PostgreSQL")
    parser.add_argument(
        "--redis-sync",
        choices=["everysec", "always"],
        default="everysec",
        help="when Redis syncs; it recommends everysec, the default; with always it promises what we do",
    )
    parser.add_argument("--alone", action="store_true", help="without any peer")
    parser.add_argument("--only", default="", metavar="TEXT", help="the figures whose title contains this")
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="on which disk; default: the current folder"
    )
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write results and plots there too")
    return parser, parser.parse_args()


def _needed(sizes: Sizes, peers: list[Peer], shown: list[Figure], beside: list[Contest]) -> list[Stage]:
    """Return the stages with the measures that the figures need, and the preparations that those need."""
    own = {figure.key for figure in shown}
    compared = {contest.key for contest in beside}
    if any(key.startswith("backlog-") for key in compared):
        compared |= {f"backlog-{count}" for count in backlogs(sizes)}
    keys = own | compared | {figure.reference.key for figure in shown if figure.reference}
    embedded = [peer.name for peer in peers if not peer.server]
    served = [peer.name for peer in peers if peer.server]
    return [stage.only(keys, compared) for stage in stages(sizes, sizes.rounds, embedded, served)]


def _tables(
    shown: list[Figure],
    beside: list[Contest],
    results: Results,
    peers: list[Peer],
    reasons: dict[str, str],
) -> str:
    parts = [figure_table(shown, results)] if shown else []
    parts += [contest_table(beside, results, peers)] if peers and beside else []
    parts.append("\n".join(f"- {note}" for note in notes(results, peers, reasons, _command())))
    return "\n\n".join(parts) + "\n"


def _write(folder: Path, found: dict[str, object], results: Results, sizes: Sizes, peers: list[Peer]) -> None:
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    names = [peer.name for peer in peers]
    (folder / "growth.svg").write_text(growth_plot(results, names, backlogs(sizes)))
    (folder / "latency.svg").write_text(latency_plot(results, names))


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


def _say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:4.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
