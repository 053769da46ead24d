"""T12: stops at random times, with hostile handlers, on both event loops and under a web server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import backlite_async

from .kit import Budget, Missing, Row
from .pulse import START, STEADY, Beats, Pulse

__all__ = ["run"]

PROGRAMS = Path(__file__).parent / "programs"

TOTALS = ("trials", "lost", "doubles", "corrupt", "leaks", "stuck", "lies", "alarms", "jobs")

LOOPS = ("asyncio", "uvloop", "web")

SHOWN = 20
"""Problems that are told in full."""

GRACE = 3.5
"""Seconds that a stop may take beyond its limit."""

END = 8.0
"""Seconds of the budget that are left for the last trials to end, and for draining."""


def run(budget: Budget, *, library: Path | None = None, seed: int = 12) -> Row:
    """Stop clients until the time is up, or `budget.most` of them.

    `library`: the folder of another copy of the library.
    """
    if find_spec("uvicorn") is None or find_spec("fastapi") is None:
        raise Missing("needs a web application: pip install fastapi uvicorn")
    row = Row("T12", "stopped at random times, hostile handlers", unit="stops")
    loops = ["asyncio", "uvloop"] if find_spec("uvloop") is not None else ["asyncio"]
    with tempfile.TemporaryDirectory() as folder, Pulse(Path(folder)) as pulse:
        lines, errors = _together(_commands(folder, budget, loops, seed), folder, library, budget)
        beats = pulse.beats()
    row.failures += errors
    row.hangs = sum("hang" in line for line in lines)
    row.failures += [f"hangs: {line['hang']}" for line in lines if "hang" in line]
    judge(row, [line for line in lines if "trials" in line], beats)
    if "uvloop" not in loops:
        row.notes.append("uvloop was not tried: pip install uvloop")
    row.require(f"at least {budget.least} stops, not {row.trials}", row.trials >= budget.least)
    return row


def _commands(folder: str, budget: Budget, loops: Sequence[str], seed: int) -> list[list[str]]:
    """Return the programs to run at the same time: most of the time they wait."""
    seconds = str(max(1.0, budget.seconds - END))
    web = clients = 0
    copies = 3
    if budget.most is not None:
        web = max(1, budget.most // 4)
        clients, copies = max(1, (budget.most - web) // len(loops)), 1
    names = [(loop, seed + copy) for loop in loops for copy in range(copies)]
    commands = [
        [
            str(PROGRAMS / "t12_clients.py"),
            f"{folder}/{loop}{number}",
            loop,
            str(number),
            str(clients),
            seconds,
        ]
        for loop, number in names
    ]
    program = str(PROGRAMS / "t12_web.py")
    commands += [
        [program, f"{folder}/web{seed + copy}", str(seed + copy), str(web), seconds]
        for copy in range(max(1, copies - 1))
    ]
    for command in commands:
        os.mkdir(command[1])
    return commands


def _together(
    commands: Sequence[Sequence[str]], folder: str, library: Path | None, budget: Budget
) -> tuple[list[dict[str, Any]], list[str]]:
    """Run programs; return what they have said, and which did not end well."""
    environment = {**os.environ, "PYTHONPATH": str(library or Path(backlite_async.__file__).parents[1])}
    limit = 300 + 3 * budget.seconds
    running: list[subprocess.Popen[bytes]] = []
    lines: list[dict[str, Any]] = []
    errors = []
    try:
        for number, command in enumerate(commands):
            with open(f"{folder}/{number}.out", "wb") as out, open(f"{folder}/{number}.err", "wb") as err:
                process = [sys.executable, "-P", *command]
                running.append(subprocess.Popen(process, env=environment, stdout=out, stderr=err))
        for number, started in enumerate(running):
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(limit)
            if started.poll() != 0:
                text = Path(f"{folder}/{number}.err").read_text(errors="replace")[-3000:]
                errors.append(f"{Path(commands[number][1]).name}: status {started.poll()}: {text}")
            lines += map(json.loads, Path(f"{folder}/{number}.out").read_text().splitlines())
    finally:
        for started in running:
            started.kill()
            started.wait()
    return lines, errors


def judge(row: Row, found: Sequence[dict[str, Any]], beats: Beats = STEADY) -> None:
    """Add up what the programs have found."""
    total = {name: sum(line[name] for line in found) for name in TOTALS}
    row.trials, row.lost, row.doubles, row.corrupt = (total[name] for name in TOTALS[:4])
    row.recovery_ms = max((line["drained_in"] for line in found), default=0.0) * 1000
    worst = max((line["overrun"] for line in found), default=0.0)
    row.notes.append(f"worst overrun of a stop's limit {worst:.2f} s")
    row.notes.append(f"tasks and threads left: {total['leaks']}; claimed and not running: {total['stuck']}")
    row.notes.append(f"stop() said True and it was not so: {total['lies']}")
    row.notes.append(f"stop() said False and nothing was cut short: {total['alarms']}")
    under = {loop: sum(line["trials"] for line in found if line["loop"] == loop) for loop in LOOPS}
    row.notes.append(", ".join(f"{loop} {trials} stops" for loop, trials in under.items()))
    row.notes.append(f"{total['jobs']:,} jobs acknowledged")
    for name in ("lost", "doubles", "corrupt", "leaks", "stuck", "lies"):
        row.require(f"{total[name]} {name}", total[name] == 0)
    late = [
        f"{where}: ended {ended - limit:.2f} s after its limit"
        for line in found
        for where, limit, ended in line["late"]
        if beats.charged(limit, ended, START) > GRACE
    ]
    problems = [*late, *(problem for line in found for problem in line["problems"])]
    row.failures += problems[:SHOWN]
    row.require(f"... and {len(problems) - SHOWN} more problems", len(problems) <= SHOWN)
