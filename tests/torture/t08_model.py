"""T8: any sequence of calls does to a store what it does to a model of a few lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from .chunks import Chunks
from .kit import Budget, Missing, Row

__all__ = ["LEAST", "SECONDS", "run"]

LEAST, SECONDS = 300, 12.0
"""Examples of the long form, of up to 40 steps each; and its seconds."""

PROGRAM = Path(__file__).parent / "programs" / "t08_machines.py"
CHUNK = 20
STORES = ("sqlite", "memory", "sqlite")
"""Whose turn it is: the store that everybody uses gets more, and takes longer."""


def task(chunk: range) -> str:
    """Return the line that asks for these examples; their first number is the seed."""
    return f"{STORES[chunk.start // CHUNK % len(STORES)]} {chunk.start} {len(chunk)}"


def run(budget: Budget, *, chunks: Chunks | None = None) -> Row:
    """Give the examples to processes, store by store."""
    try:
        import hypothesis  # noqa: F401 - the programs need it
    except ImportError as error:
        raise Missing("needs hypothesis: pip install hypothesis") from error
    row = Row("T8", "any sequence of calls, against a model", unit="examples", doubles=None, hangs=0)
    steps: Counter[str] = Counter()

    def answered(chunk: range, answer: Any) -> None:
        row.trials += answer["examples"]
        store = task(chunk).split()[0]
        steps[store] += answer["steps"]
        if answer["error"] is not None:
            again = f'echo "{task(chunk)}" | python tests/torture/programs/{PROGRAM.name}'
            row.failures.append(f"{answer['error']}; to see it again: {again}")

    chunks = chunks or Chunks(PROGRAM, CHUNK, task=task)
    troubles = chunks.work(budget, answered)
    row.hangs = troubles.hangs
    row.failures += [f"examples {text}" for text in troubles.texts]
    row.notes.append(", ".join(f"{count:,} steps of the {store} store" for store, count in steps.items()))
    row.require("each store took steps", len(steps) == len(set(STORES)) and all(steps.values()))
    return row
