"""A quick look at whether something has become slow: `python -m benchmarks --check`.

Ratios in one run alone, never absolute times; half of each bar is enough, and the best of several tries
counts, for others may use the machine meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .figures import Bar, Figure, figures
from .measures import Stage, stages
from .run import Results, Runner
from .servers import Servers
from .workload import QUICK, Sizes

__all__ = ["CHECK", "check", "judged", "loosened", "passed"]

TRIES = 5

CHECK: Sizes = replace(
    QUICK, rounds=TRIES, singles=200, per_caller=40, bulk=20_000, drain=8_000, tries=40, million=20_000
)
"""Small enough for half a minute, large enough that starting up does not decide."""

LATENCY = Bar(limit=6.0, at_least=False, ratio=True)
"""Where latency may lie beside a hop and a commit; its own bar is an absolute time."""

IMPORT = Bar(limit=1.6, at_least=False, ratio=True)
"""Twice the excess that the import may have."""

SKIPPED = ("bulk-memory", "memory")
"""Measures of memory: they vary with the sizes, which are small here."""


def judged() -> list[Figure]:
    """Return the figures that are judged, with loosened bars."""
    return [found for figure in figures(CHECK) if (found := loosened(figure)) is not None]


def loosened(figure: Figure) -> Figure | None:
    """Return a figure with the bar that a quick look holds it to; None if it is not judged."""
    bar = figure.bar
    if bar is None or figure.reference is None or figure.key in SKIPPED:
        return None
    if figure.key == "import":
        return replace(figure, bar=IMPORT)
    if not bar.ratio:
        return replace(figure, bar=LATENCY) if figure.name == "p50" and figure.key == "idle-2" else None
    return replace(figure, bar=replace(bar, limit=bar.limit / 2))


def check(folder: Path, say: Callable[[str], None], found: Sequence[Figure]) -> Results:
    """Take the measures again and again, until each figure has met its bar once or the tries are over."""
    open_figures = list(found)
    with Servers(folder, wanted=False) as servers:
        runner = Runner(folder, 1, servers, say)
        for _ in range(TRIES):
            for stage in stages(CHECK, 1, [], []):
                runner.run(_for(stage, open_figures))
            open_figures = [figure for figure in open_figures if not passed(figure, runner.results)]
            if not open_figures:
                break
    return runner.results


def passed(figure: Figure, results: Results) -> bool:
    """Return whether the best of the tries meets the bar."""
    best = figure.best(results)
    return figure.bar is not None and best is not None and figure.bar.met(best)


def _for(stage: Stage, open_figures: Sequence[Figure]) -> Stage:
    """Return what of a stage these figures need."""
    keys = {figure.key for figure in open_figures}
    keys |= {figure.reference.key for figure in open_figures if figure.reference}
    return stage.only(keys)
