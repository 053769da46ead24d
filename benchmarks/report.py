"""The results, as tables to read and as JSON to keep."""

from __future__ import annotations

import math
import os
import platform
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from .figures import Contest, Figure
from .measures import LIBRARY
from .peers import Peer
from .run import Results
from .workload import Sizes

__all__ = ["as_json", "check_table", "contest_table", "figure_table", "notes", "number", "setting"]

HEAD = ("figure", "median", "min to max", "beside", "median", "ratio", "min to max", "bar", "met")
NOTHING = "-"


def figure_table(figures: Sequence[Figure], results: Results) -> str:
    """Return the library's figures: medians, spread, ratios, bars."""
    return _markdown([HEAD, *(_figure_row(figure, results) for figure in figures)], left={0, 3})


def contest_table(contests: Sequence[Contest], results: Results, peers: Sequence[Peer]) -> str:
    """Return the medians of every system, and the library's lead over the best peer."""
    names = [peer.name for peer in peers]
    head = ("figure", LIBRARY, *names, "ours to the best peer's", "ahead")
    return _markdown([head, *(_contest_row(contest, results, names) for contest in contests)], left={0})


def check_table(figures: Sequence[Figure], results: Results) -> str:
    """Return the best ratio of each figure, beside the bar that a quick look holds it to."""
    head = ("figure", "beside", "best ratio", "tries", "needs", "met")
    rows = [_check_row(figure, results) for figure in figures]
    return _markdown([head, *rows], left={0, 1})


def notes(results: Results, peers: Sequence[Peer], reasons: dict[str, str], command: str) -> list[str]:
    """Return what must be known to read the tables."""
    said = [f"command: {command}", *(f"{name}: {value}" for name, value in setting().items())]
    said += [f"{peer.name} {peer.version}: {peer.durability}" for peer in peers]
    said += [f"{name}: not measured, {reason}" for name, reason in reasons.items()]
    said += [f"{name}: no value, {reason}" for name, reason in results.failures.items()]
    return said


def setting() -> dict[str, str]:
    """Return the machine and the versions."""
    own = ("aiosqlite", "anyio", "msgspec", "structlog")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.release()}, {_processor()}, {os.cpu_count()} CPUs",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "backlite_async": f"{_version('backlite_async')}, WAL, synchronous=FULL",
        "dependencies": ", ".join(f"{name} {_version(name)}" for name in own),
    }


def as_json(
    figures: Sequence[Figure],
    contests: Sequence[Contest],
    results: Results,
    *,
    sizes: Sizes,
    peers: Sequence[Peer],
    reasons: dict[str, str],
    command: str,
) -> dict[str, Any]:
    """Return everything that was measured, and where."""
    names = [peer.name for peer in peers]
    return {
        "setting": setting() | {"command": command},
        "sizes": asdict(sizes),
        "peers": {peer.name: {"version": peer.version, "durability": peer.durability} for peer in peers},
        "not_measured": reasons,
        "failures": results.failures,
        "figures": [_figure_json(figure, results) for figure in figures],
        "contests": [
            {
                "title": contest.title,
                "unit": contest.unit,
                "medians": {side: _plain(_middle(contest, results, side)) for side in [LIBRARY, *names]},
                "lead": _plain(contest.lead(results, names)),
            }
            for contest in contests
        ],
        "rounds": {
            key: {
                side: {name: [_plain(value) for value in values] for name, values in found.items()}
                for side, found in sides.items()
            }
            for key, sides in results.values.items()
        },
    }


def _check_row(figure: Figure, results: Results) -> tuple[str, ...]:
    assert figure.bar is not None
    assert figure.reference is not None
    best = figure.best(results)
    return (
        figure.title,
        figure.reference.label,
        "failed" if best is None else f"{best:.2f}",
        str(len(figure.ratios(results))),
        str(figure.bar),
        "yes" if best is not None and figure.bar.met(best) else "**no**",
    )


def _figure_json(figure: Figure, results: Results) -> dict[str, Any]:
    values, ratios = figure.values(results), figure.ratios(results)
    return {
        "title": figure.title,
        "unit": figure.unit,
        "median": _plain(median(values)) if values else None,
        "beside": figure.reference.label if figure.reference else None,
        "ratio": _plain(median(ratios)) if ratios else None,
        "bar": str(figure.bar) if figure.bar else None,
        "met": figure.met(results),
    }


def _figure_row(figure: Figure, results: Results) -> tuple[str, ...]:
    values, ratios = figure.values(results), figure.ratios(results)
    theirs = figure.reference_values(results)
    met = figure.met(results)
    return (
        figure.title,
        f"{number(median(values))} {figure.unit}" if values else "failed",
        _spread(values),
        figure.reference.label if figure.reference else NOTHING,
        number(median(theirs)) if theirs else NOTHING,
        f"{median(ratios):.2f}" if ratios else NOTHING,
        f"{min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else NOTHING,
        str(figure.bar) if figure.bar else NOTHING,
        NOTHING if met is None else "yes" if met else "**no**",
    )


def _contest_row(contest: Contest, results: Results, peers: list[str]) -> tuple[str, ...]:
    lead = contest.lead(results, peers)
    ahead = (
        NOTHING
        if lead is None
        else "yes"
        if lead > 1
        else f"no: {contest.note}"
        if contest.note
        else "**no**"
    )
    cells = [_middle(contest, results, side) for side in [LIBRARY, *peers]]
    return (
        f"{contest.title}, {contest.unit}",
        *(NOTHING if value is None else number(value) for value in cells),
        NOTHING if lead is None else f"{number(lead)}x",
        ahead,
    )


def _middle(contest: Contest, results: Results, side: str) -> float | None:
    return results.middle(side, contest.key, contest.name)


def number(value: float) -> str:
    """Return a number as it is read best."""
    if not math.isfinite(value):
        return "overloaded"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _plain(value: float | None) -> float | None:
    """Return a number as JSON can hold it."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _spread(values: list[float]) -> str:
    return f"{number(min(values))} to {number(max(values))}" if len(values) > 1 else NOTHING


def _markdown(rows: Sequence[Sequence[str]], left: set[int]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    ruler = [
        "-" * width if column in left else "-" * (width - 1) + ":" for column, width in enumerate(widths)
    ]
    return "\n".join([line(rows[0]), line(ruler), *map(line, rows[1:])])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from a checkout"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
