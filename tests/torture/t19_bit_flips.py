"""T19: bits that flip in a closed file, and files that are cut short.

Copies of a file with jobs of all sorts are damaged, up to eight bits each or a cut at any place, and given to
the library: it opens the file, adds jobs, runs what there is, answers for every job, stops. The bars:

- it never hangs, and the process survives;
- whatever it raises or logs about it is an error of its own, with the reason;
- no handler gets a payload that nobody added, and none runs a job twice without a word.

SQLite has no checksums over its pages, so some damage cannot be noticed while jobs run, and is only counted
here: a bit in a payload that still decodes, a bit in another stored value, or one in an index, that makes a
job stand still. Of the last sort SQLite's own `PRAGMA integrity_check` would tell; it must be rare. A file
that is cut to nothing is a new database, and not tried.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .kit import Budget, Ledger, Row
from .t02_power_loss import PROGRAMS, memory, output, started

PROGRAM = str(PROGRAMS / "t19_open.py")
LIMIT = 20.0
"""Seconds for one file; the program itself gives up then."""

BATCH = 100
UNDAMAGED = -1
"""The number of a trial whose copy is not damaged."""


@dataclass
class Found:
    """What came of trials: reports, see `programs/t19_open.py`, and those that have none."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)  # processes that did not end
    killed: list[str] = field(default_factory=list)  # processes that died
    stray: list[str] = field(default_factory=list)  # errors that went to nobody
    at: list[int] = field(default_factory=list)  # the trials of a process at its end

    @property
    def stuck(self) -> bool:
        """Whether something hangs, which takes so long that the rest is left."""
        return bool(self.hung) or any(report.get("hung") for report in self.reports)

    def add(self, other: Found) -> None:
        """Take in what others have found."""
        self.reports += other.reports
        self.hung += other.hung
        self.killed += other.killed
        self.stray += other.stray


def run(budget: Budget) -> Row:
    """Damage copies, a batch in each of several processes at a time."""
    row = Row("T19", "bits flipped in a closed file, or the file cut short", unit="files", hangs=0)
    found = Found()
    processes = min(os.cpu_count() or 1, 8)
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        make(folder)
        with ThreadPoolExecutor(processes) as pool:
            done = 0
            while budget.more(done) and not found.stuck:
                left = max(budget.least - done, processes) if budget.most is None else budget.most - done
                size = min(BATCH, -(-left // processes))
                batches = [range(done + n * size, done + (n + 1) * size) for n in range(processes)]
                for part in pool.map(lambda batch: open_all(folder, batch), batches):
                    found.add(part)
                done += size * processes
        judge(row, found, done)
        last = open_all(folder, [UNDAMAGED])
        _judge_undamaged(row, last)
    return row


def make(folder: str) -> None:
    """Make a file with jobs that wait, have ended, are not due, or were running; and close it."""
    with started([sys.executable, PROGRAM, json.dumps({"role": "make", "folder": folder})]) as process:
        output(process)
    base = Path(folder, "base")
    with contextlib.closing(sqlite3.connect(base)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if Path(folder, "base-wal").exists():
        raise RuntimeError("the file is not closed")


def open_all(folder: str, trials: Sequence[int], limit: float = LIMIT) -> Found:
    """Open damaged copies in a process; where one ends it, the others go on in another. A hang ends all."""
    found, waiting = Found(), list(trials)
    while waiting and not found.stuck:
        batch = _batch(folder, waiting, limit)
        found.add(batch)
        if not batch.killed and not batch.hung and len(batch.reports) < len(waiting):
            raise RuntimeError("the program has ended before its trials")
        for trial in batch.at if batch.killed and len(waiting) > 1 else ():
            found.add(_batch(folder, [trial], limit))
        over = {report["trial"] for report in found.reports}.union(batch.at)
        waiting = [trial for trial in waiting if trial not in over]
    return found


def _batch(folder: str, trials: Sequence[int], limit: float) -> Found:
    """Run one process."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="report-") as report:
        order = {"role": "open", "folder": folder, "trials": list(trials), "limit": limit}
        order |= {"report": report.name}
        with started([sys.executable, PROGRAM, json.dumps(order)]) as process:
            ended = _watched(process, Path(report.name), limit * 2)
        lines = Ledger.read(report.name)
    reports = [line["end"] for line in lines if "end" in line]
    found = Found(reports, stray=[line["stray"] for line in lines if "stray" in line])
    begun = {line["begin"] for line in lines if "begin" in line}
    found.at = sorted(begun - {one["trial"] for one in reports})
    if ended is None:
        found.hung.append(f"at {found.at}")
    elif ended:
        found.killed.append(f"at {found.at}: exit status {ended}")
    return found


def _watched(process: subprocess.Popen[str], report: Path, patience: float) -> int | None:
    """Wait for a process while its report grows; return its exit status, None if it hangs."""
    size, since = -1, time.monotonic()
    while time.monotonic() - since < patience:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=0.5)
            return process.returncode
        if report.stat().st_size != size:
            size, since = report.stat().st_size, time.monotonic()
    return None


TOLD = ("refused", "noticed", "unclear")
ODD = ("lost", "missing", "early", "repeated", "altered", "mistaken")


def judge(row: Row, found: Found, trials: int) -> None:
    """Hold what was found against the bars."""
    reports = found.reports
    row.trials = trials
    hung = found.hung + [one["fault"] for one in reports if one["hung"]]
    wrong = [f"{one['fault']}: {one['wrong'][0]}" for one in reports if one["wrong"]]
    unclear = [f"{one['fault']}: {one['unclear'][0]}" for one in reports if one["unclear"]]
    silent = [one for one in reports if not any(one[what] for what in TOLD)]
    doubles = [one for one in silent if one["repeated"]]
    row.hangs, row.corrupt, row.doubles = len(hung), len(wrong), len(doubles)
    row.require(f"every trial has an answer: {len(reports)} of {trials}", len(reports) == trials)
    row.require(f"nothing hangs: {hung[:3]}", not hung)
    row.require(f"every process survives: {found.killed[:3]}", not found.killed)
    row.require(f"no handler gets what nobody added: {len(wrong)} did; {wrong[:3]}", not wrong)
    row.require(f"no job runs twice without a word: {doubles[:1]}", not doubles)
    row.require(f"every error is the library's own: {len(unclear)} are not; {unclear[:3]}", not unclear)
    row.require(f"no error goes to nobody: {found.stray[:3]}", not found.stray)
    still = [one["fault"] for one in silent if one["lost"]]
    rare = len(still) <= max(1, len(reports) // 100)
    row.require(f"jobs saved to a damaged file seldom stand still without a word: {still[:5]}", rare)
    row.notes += _figures(reports, silent)


def _figures(reports: Sequence[dict[str, Any]], silent: Sequence[dict[str, Any]]) -> list[str]:
    """Return what cannot be called right or wrong: how much damage was told, and how much nobody noticed."""
    refused = sum(report["refused"] is not None for report in reports)
    odd = [report for report in silent if any(report[what] for what in ODD)]
    others = [report for report in odd if not report["altered"]]
    values = [report for report in others if report["whole"]]
    still = sum(bool(report["lost"]) for report in odd)
    mistaken = sum(bool(report["mistaken"]) for report in odd)
    unnoticed = (
        f"unnoticed, as SQLite has no checksums: {len(odd) - len(others)} in payloads that still decode,"
        f" {len(values)} in other values, {len(others) - len(values)} that integrity_check would tell"
    )
    return [
        f"told: {refused:,} refused at the start, {len(reports) - refused - len(silent):,} later",
        f"harmless: {len(silent) - len(odd):,}",
        unnoticed,
        f"among the unnoticed: saved jobs that stand still {still}, answers about another job {mistaken}",
    ]


def _judge_undamaged(row: Row, found: Found) -> None:
    """Without damage everything runs, once, and nothing is said."""
    report = found.reports[0] if found.reports else {"hung": True}
    said = {
        what: cases for what, cases in report.items() if cases and what not in ("fault", "seconds", "trial")
    }
    row.require(f"a copy without damage drains: {said}", not said)
