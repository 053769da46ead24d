"""T3: any interleaving, cancellation, latency, fault and clock jump, in simulated worlds."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from .chunks import Chunks, Troubles
from .kit import Budget, Row

__all__ = ["LEAST", "SECONDS", "run"]

LEAST, SECONDS = 10_000, 100.0
"""Seeds of the long form; about as many as two cores simulate in these seconds."""

PROGRAM = Path(__file__).parent / "programs" / "t03_worlds.py"
CHUNK = 25
EVENTS = (
    *("Started", "Fault", "Died", "StopAsked", "Jumped", "Revoked", "Paused", "Turned", "Found"),
    *("FlowEnded", "FlowActed", "Extended"),
)
"""What must have happened in some world."""

SHOWN = 10
"""Failed seeds that are named, each with what was found first."""


def run(budget: Budget, *, chunks: Chunks | None = None) -> Row:
    """Simulate the worlds of one seed after the other, in as many processes as there are cores."""
    began = time.monotonic()
    chunks = chunks or Chunks(PROGRAM, CHUNK)
    failed: dict[int, list[str]] = {}
    seen: Counter[str] = Counter()
    done = 0

    def answered(chunk: range, answer: Any) -> None:
        nonlocal done
        done += len(chunk)
        failed.update({int(seed): lines for seed, lines in answer["failed"].items()})
        seen.update(answer["seen"])

    troubles = chunks.work(budget, answered)
    row = _columns(done, failed, troubles)
    row.notes.append(f"{done / (time.monotonic() - began):.0f} seeds/s in {chunks.processes} processes")
    _show_what_happened(row, seen)
    return row


def _columns(done: int, failed: dict[int, list[str]], troubles: Troubles) -> Row:
    kinds = Counter(line.split(":")[0] for lines in failed.values() for line in lines)
    row = Row(
        "T3",
        "any interleaving, cancellation, latency, fault, clock jump",
        trials=done,
        unit="seeds",
        lost=kinds["lost"],
        doubles=kinds["extra"] + kinds["overlap"] + kinds["claimed twice"] + kinds["completed twice"],
        hangs=troubles.hangs + kinds["deadlock"] + kinds["livelock"] + kinds["endless"],
    )
    row.failures += [f"seeds {text}" for text in troubles.texts]
    for seed, lines in list(failed.items())[:SHOWN]:
        row.failures.append(f"seed {seed}: {lines[0]} (python -m tests.simulation --seed {seed})")
    if len(failed) > SHOWN:
        row.failures.append(f"{len(failed)} seeds fail: {', '.join(map(str, sorted(failed)))}")
    return row


def _show_what_happened(row: Row, seen: Counter[str]) -> None:
    row.notes.append(
        f"{seen['Started']:,} executions, {seen['Fault']:,} faults of the store, {seen['Died']:,} deaths,"
        f" {seen['StopAsked']:,} stops, {seen['Jumped']:,} clock jumps, {seen['Revoked']:,} cancellations,"
        f" {seen['Paused']:,} pauses, {seen['Turned']:,} turns, {seen['Found']:,} jobs found in the way,"
        f" {seen['FlowEnded']:,} ends of workflows, {seen['Extended']:,} extensions asked for"
    )
    dull = [what for what in EVENTS if not seen[what]]
    row.require(f"worlds in which something happens: no {', '.join(dull)}", not dull)
