"""T16: payloads that nobody has checked, written straight into the table.

Another type's, of the wrong types, deep, huge, mutated, random bytes, no text at all. Each job has to
fail at once, with a reason that shows no value of the payload, or to run once with values of the
annotated types; nothing else may come of it. So with hostile meta data, tags, keys and ids: they are
refused where they are given, or come back as they were; and what others have written there keeps no job
from running. Tasks that hypothesis makes from their annotations are
saved too: each is refused, or runs as the same.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.children import Children, Event, Hang
from tests.torture.kit import Budget, Row, intact

__all__ = ["SECONDS", "Plan", "run"]

SECONDS = 12.0

SLACK = 180.0
"""Seconds beyond its own that a program may need for its start, its first and its last inputs."""


@dataclass
class Plan:
    """How many programs run at once, and what each does at least."""

    programs: int = 2
    least: int = 2_000
    examples: int = 60  # tasks that hypothesis makes of each type
    giants: int = 10
    library: Path | None = None


@dataclass
class Found:
    """What all programs have told."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    left: int = 0
    slowest: float = 0.0


def run(budget: Budget, plan: Plan | None = None) -> Row:
    """Run some programs at once, each with its own seed, and add up what they tell."""
    plan = plan or Plan()
    row = Row("T16", "payloads that nobody has checked", unit="inputs")
    row.hangs = row.corrupt = 0
    found = Found()
    with tempfile.TemporaryDirectory() as folder, Children(library=plan.library) as children:
        files = [Path(folder, f"{number}.db") for number in range(plan.programs)]
        seconds = max(0.0, budget.seconds - (time.monotonic() - budget.began))
        running = [
            children.start("t16_payloads.py", file, number, seconds, plan.least, plan.examples, plan.giants)
            for number, file in enumerate(files)
        ]
        try:
            limit = seconds + SLACK
            children.until(lambda: _over(running), limit, "the programs' ends")
        except Hang as hang:
            row.hangs += 1
            row.failures.append(str(hang))
        children.settle(0.01)
        row.corrupt = sum(not intact(file) for file in files)
        tallies = [event for event in children.events if event["what"] == "tally"]
    for tally in tallies:
        _add(found, tally)
    statuses = [child.returncode for child in running]
    row.require(f"every program comes to its end: {statuses}", len(tallies) == plan.programs)
    _bars(row, found)
    return row


def _over(running: list[subprocess.Popen[bytes]]) -> bool:
    return all(child.poll() is not None for child in running)


def _add(found: Found, tally: Event) -> None:
    found.counts.update(tally["counts"])
    for kind, what in tally["wrong"].items():
        found.wrong[kind] += what
    found.left += tally["left"]
    found.slowest = max(found.slowest, tally["slowest"])


def _bars(row: Row, found: Found) -> None:
    """Write down the figures, and require what is promised."""
    counts = found.counts
    row.trials, row.lost = counts["inputs"], found.left
    row.notes.append(f"{counts['succeeded']:,} ran, {counts['failed']:,} failed at once")
    row.notes.append(f"{counts['escaped']} escaped exceptions, {counts['leaked']} values shown")
    row.notes.append(
        f"of tasks made by hypothesis {counts['saved']} ran as saved, {counts['refused']} refused"
    )
    row.notes.append(
        f"{counts['said']:,} hostile options, {counts['options refused']:,} refused;"
        f" {counts['beside']:,} texts beside payloads, {counts['unreadable']:,} unreadable"
    )
    row.notes.append(f"the slowest payload took {found.slowest * 1000:,.0f} ms")
    row.require(
        f"each fails at once or runs with the right types: {found.wrong['wrong'][:2]}", counts["wrong"] == 0
    )
    row.require(f"no exception escapes: {found.wrong['escaped'][:2]}", counts["escaped"] == 0)
    row.require(f"no value of a payload is shown: {found.wrong['leaked'][:2]}", counts["leaked"] == 0)
    row.require(f"no job is left: {found.left}", found.left == 0)
    said, refused = counts["said"], counts["options refused"]
    row.require("options are both taken and refused", 0 < refused < said)
    row.require("payloads both run and fail", counts["succeeded"] > 0 and counts["failed"] > 0)
    row.require("the files are whole", row.corrupt == 0)
