"""T6: every public coroutine is cancelled after each of its steps, in several ways."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import backlite_async

from .kit import Budget, Row

__all__ = ["run"]

PROGRAM = Path(__file__).parent / "programs" / "t06_points.py"
SHARDS = 2
"""Processes at once: as many as there are cores."""

SHOWN = 20
"""Problems that are told in full."""

TOTALS = ("points", "lost", "doubles", "corrupt", "late_locks", "leaks")


def run(budget: Budget, *, library: Path | None = None, cases: Sequence[str] = (), seed: int = 6) -> Row:
    """Cancel at every step there is, or at `budget.most` of them, spread over all cases.

    `library`: the folder of another copy of the library; `cases`: only these.
    """
    row = Row("T6", "a call cancelled after each of its steps", unit="points")
    some = 0 if budget.most is None else max(1, budget.most // 20)
    options = ["--some", str(some), "--seed", str(seed), *(["--cases", *cases] if cases else [])]
    with tempfile.TemporaryDirectory() as folder:
        lines, errors = _shards(folder, options, library, limit=400 + 6 * budget.seconds)
    row.hangs = sum("hang" in line for line in lines)
    row.failures += errors
    _judge(row, [line for line in lines if "points" in line])
    wanted, done = sum(line.get("sweeps", 0) for line in lines), sum("points" in line for line in lines)
    row.require(f"{wanted} sweeps, not {done}", wanted == done > 0)
    if budget.most is None:  # a few calls on a busy machine may be late
        late = sum(line.get("late_locks", 0) for line in lines)
        row.require(f"the write lock within 100 ms, {late} times it took longer", late == 0)
    row.require(f"at least {budget.least} points, not {row.trials}", row.trials >= budget.least)
    return row


def _judge(row: Row, sweeps: Sequence[dict[str, Any]]) -> None:
    """Add up what the sweeps have found."""
    total = {name: sum(sweep[name] for sweep in sweeps) for name in TOTALS}
    row.trials, row.lost, row.doubles, row.corrupt = (total[name] for name in TOTALS[:4])
    late, leaks = total["late_locks"], total["leaks"]
    worst = max((sweep["worst_lock"] for sweep in sweeps), default=0.0) * 1000
    row.notes.append(f"{len(sweeps)} sweeps over {len({sweep['case'] for sweep in sweeps})} calls")
    row.notes.append(
        f"another connection gets the write lock within {worst:.1f} ms, {late} times it does not"
    )
    row.notes.append(f"tasks and threads left: {leaks}")
    problems = [problem for sweep in sweeps for problem in sweep["problems"]]
    row.failures += problems[:SHOWN]
    row.require(f"... and {len(problems) - SHOWN} more problems", len(problems) <= SHOWN)


def _shards(
    folder: str, options: Sequence[str], library: Path | None, *, limit: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Run the program once per core; return what has been said, and which did not end well."""
    under_test = library or Path(backlite_async.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(under_test)}
    running: list[subprocess.Popen[bytes]] = []
    lines: list[dict[str, Any]] = []
    errors = []
    try:
        for shard in range(SHARDS):
            with open(f"{folder}/{shard}.out", "wb") as out, open(f"{folder}/{shard}.err", "wb") as err:
                command = [sys.executable, "-P", str(PROGRAM), folder, *options]
                command += ["--shard", str(shard), "--shards", str(SHARDS)]
                running.append(subprocess.Popen(command, env=environment, stdout=out, stderr=err))
        for shard, process in enumerate(running):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(limit)
            if process.poll() != 0:
                text = Path(f"{folder}/{shard}.err").read_text(errors="replace")[-3000:]
                errors.append(f"shard {shard}: status {process.poll()} within {limit:g} s: {text}")
            said = Path(f"{folder}/{shard}.out").read_text().splitlines()
            lines += [json.loads(line) for line in said]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return lines, errors
