"""Does the same to stores and to their model: for each line `STORE SEED EXAMPLES` it answers with JSON.

The same line gives the same examples, so a failure can be looked at again:
`echo "sqlite 17 50" | python tests/torture/programs/t08_machines.py`.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

sys.path.append(str(Path(__file__).resolve().parents[3]))  # last: the library may be another one

from tests.stores.test_model import Machine, MemoryMachine, SQLiteMachine

MACHINES: dict[str, type[Machine]] = {"memory": MemoryMachine, "sqlite": SQLiteMachine}


def judge(store: str, number: int, examples: int) -> dict[str, object]:
    """Return how many examples and steps there were, and what disagreed."""
    counts = {"examples": 0, "steps": 0}

    base: Any = MACHINES[store]

    class Counted(base):  # type: ignore[misc]
        def __init__(self) -> None:
            counts["examples"] += 1
            super().__init__()

        @invariant()
        def step(self) -> None:
            counts["steps"] += 1

    options = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    error = None
    try:
        run_state_machine_as_test(seed(number)(Counted), settings=options)
    except Exception as found:  # whatever the store or the comparison raises
        error = f"{type(found).__name__}: {found}"[:1000] + _place(found)
    return {**counts, "error": error}


def _place(error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "tests" in frame.filename]
    return f" (in {frames[-1].name}, line {frames[-1].lineno})" if frames else ""


def main() -> None:
    for line in sys.stdin:
        store, number, examples = line.split()
        print(json.dumps(judge(store, int(number), int(examples))), flush=True)


if __name__ == "__main__":
    main()
