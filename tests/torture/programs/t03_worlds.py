"""Simulates worlds: for each line `FIRST COUNT` that it reads, it answers with a line of JSON."""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # last: the library may be another one

from tests.simulation.storm import simulate


def judge(first: int, count: int) -> dict[str, object]:
    """Return what failed, by seed, and how many events of each kind there were."""
    failed: dict[int, list[str]] = {}
    seen: Counter[str] = Counter()
    for seed in range(first, first + count):
        try:
            events, found = simulate(seed)
        except Exception as error:  # a defect of the simulation is a failed seed, too
            events, found = [], [f"broken: {type(error).__name__}: {error}"]
        seen.update(type(event).__name__ for event in events)
        if found:
            failed[seed] = found
    return {"failed": failed, "seen": seen}


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        first, count = map(int, line.split())
        print(json.dumps(judge(first, count)), flush=True)


if __name__ == "__main__":
    main()
