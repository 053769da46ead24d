"""How long the import of the package takes, beside that of its four dependencies alone; in ms."""

from __future__ import annotations

import statistics
import subprocess
import sys

__all__ = ["measure"]

DEPENDENCIES = "aiosqlite, anyio, msgspec, structlog"
PROGRAM = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def measure(place: dict[str, str], times: int) -> dict[str, float]:
    """Import in fresh processes, alternately; return medians."""
    taken: dict[str, list[float]] = {"library": [], "dependencies": []}
    for _ in range(times):
        for name, modules in (("library", "backlite_async._public"), ("dependencies", DEPENDENCIES)):
            command = [sys.executable, "-P", "-c", PROGRAM.format(modules)]  # what is installed, compiled
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            taken[name].append(1_000 * float(answer))
    found = {name: statistics.median(values) for name, values in taken.items()}
    return found | {"ratio": found["library"] / found["dependencies"]}
