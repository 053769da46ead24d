"""The results, as a table to read and as JSON to keep."""

from __future__ import annotations

import os
import platform
import sqlite3
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import backlite_async

from .figures import Figure
from .workload import Sizes

__all__ = ["as_json", "table"]

HEAD = ("figure", "library", "min-max", "sqlite3", "min-max", "ratio")


def table(figures: list[Figure]) -> str:
    """Return the figures in aligned columns; medians, with the spread beside."""
    rows = [HEAD, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    notes = {**setting(), **_few_workers(figures)}
    return "\n".join([*lines, "", *(f"{name}: {value}" for name, value in notes.items())])


def as_json(figures: list[Figure], sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Return everything that was measured, and where."""
    return {
        "setting": setting(),
        "rounds": rounds,
        "sizes": asdict(sizes),
        "figures": [
            {
                "title": figure.title,
                "unit": figure.unit,
                "library": {"median": median(figure.library), "rounds": figure.library},
                "sqlite3": {"median": median(figure.raw), "rounds": figure.raw},
                "ratio": figure.ratio,
            }
            for figure in figures
        ],
    }


def setting() -> dict[str, str]:
    """Return the machine and the versions."""
    return {
        "machine": f"{platform.system()} {platform.release()}, {_processor()}, {os.cpu_count()} CPUs",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "backlite_async": f"{backlite_async.__version__}, durability full",
    }


def _few_workers(figures: list[Figure]) -> dict[str, str]:
    """Return what few workers do of what many do."""
    found = {figure.title: median(figure.library) for figure in figures if figure.title.startswith("drain")}
    if len(found) < 2:
        return {}
    many, few = found.values()
    return {"10 workers of 100 workers": f"{few / many:.2f}x"}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        figure.title,
        f"{_number(median(figure.library))} {figure.unit}",
        _spread(figure.library),
        f"{_number(median(figure.raw))} {figure.unit}",
        _spread(figure.raw),
        f"{figure.ratio:.2f}x",
    )


def _spread(values: list[float]) -> str:
    return f"{_number(min(values))}-{_number(max(values))}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
