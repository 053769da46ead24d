"""The figures: what is measured, beside what, and where it should lie."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from . import library, raw
from .workload import Sizes

__all__ = ["Comparison", "Figure", "comparisons", "measure"]

Values = list[float]


@dataclass(kw_only=True)
class Figure:
    """One line of the result: a value a round, of the library and of plain sqlite3 beside it.

    Rates are jobs per second, latencies milliseconds.
    """

    title: str
    unit: str
    pick: Callable[[Values], float] = field(default=lambda values: values[0])
    library: Values = field(default_factory=list)
    raw: Values = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the ratios of each round, which neighbours in time make fair."""
        return median(ours / theirs for ours, theirs in zip(self.library, self.raw, strict=True))


@dataclass(kw_only=True)
class Comparison:
    """Two measurements that belong side by side, and the figures that they give."""

    library: Callable[[Path, Sizes], Awaitable[Values]]
    raw: Callable[[Path, Sizes], Values]
    figures: list[Figure]


def comparisons() -> list[Comparison]:
    """Return everything there is to measure, with no values yet."""
    return [
        _rate("add, one caller", library.add_one, raw.add_one),
        _rate("add, 100 callers", library.add_hundred, raw.add_one),
        _rate("add, 10k in one operation", library.add_bulk, raw.add_bulk),
        _rate("drain, 100 workers", library.drain_hundred, raw.drain),
        _rate("drain, 10 workers", library.drain_ten, raw.drain),
        Comparison(
            library=library.latency,
            raw=raw.latency,
            figures=[
                Figure(title="idle latency, p50", unit="ms", pick=_percentile(0.50)),
                Figure(title="idle latency, p99", unit="ms", pick=_percentile(0.99)),
            ],
        ),
    ]


def measure(found: list[Comparison], sizes: Sizes, rounds: int, folder: Path) -> Iterator[str]:
    """Fill in the figures, round by round and alternating; yield what has just been done."""
    for number in range(rounds):
        for comparison in found:
            sides = [_measure_raw, _measure_library]
            for side in sides if number % 2 == 0 else reversed(sides):
                with tempfile.TemporaryDirectory(dir=folder, prefix="benchmark-") as place:
                    side(comparison, Path(place) / "jobs.db", sizes)
        yield f"round {number + 1} of {rounds} done"


def _measure_raw(comparison: Comparison, path: Path, sizes: Sizes) -> None:
    values = comparison.raw(path, sizes)
    for figure in comparison.figures:
        figure.raw.append(figure.pick(values))


def _measure_library(comparison: Comparison, path: Path, sizes: Sizes) -> None:
    async def run() -> Values:
        return await comparison.library(path, sizes)

    values = asyncio.run(run())
    for figure in comparison.figures:
        figure.library.append(figure.pick(values))


def _rate(
    title: str,
    ours: Callable[[Path, Sizes], Awaitable[Values]],
    theirs: Callable[[Path, Sizes], Values],
) -> Comparison:
    return Comparison(library=ours, raw=theirs, figures=[Figure(title=title, unit="jobs/s")])


def _percentile(part: float) -> Callable[[Values], float]:
    def pick(values: Values) -> float:
        return values[math.ceil(part * len(values)) - 1]

    return pick
