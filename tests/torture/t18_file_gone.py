"""T18: the database is taken away under a running client: deleted, replaced, its locks dropped, forked.

It is noticed before the next claim and before the next add: nothing is acknowledged into a file that
nobody else sees, nothing starts, and the client says why. A fork leaves its parent unharmed.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .kit import Budget, Row, intact
from .pulse import START, STEADY, Beats, Pulse

__all__ = ["CASES", "LEAST", "SECONDS", "judge", "run"]

SECONDS, LEAST = 10.0, 44

PROGRAM = Path(__file__).parent / "programs" / "t18_victim.py"
LIMIT = 250.0
"""Seconds after which a program counts as hung."""

STOP_LIMIT = 4.0
"""Seconds that stopping may take, with half a second asked for."""

WORKERS = 2  # as in the program

GONE = ["deleted", "all deleted", "moved", "replaced", "replaced by text", "folder removed"]
UNLOCKED = ["opened and closed", "log replaced", "second library"]
FORKED = ["fork", "fork by multiprocessing"]
MOMENTS = ["running", "adding", "idle", "adds only"]

CASES = [
    (fault, MOMENTS[(number + turn) % len(MOMENTS)])
    for turn in range(len(MOMENTS))
    for number, fault in enumerate([*GONE, *UNLOCKED, *FORKED])
]
"""Every fault at every moment; the first eleven have every fault."""


def run(budget: Budget) -> Row:
    """Take the databases of programs away, four at a time."""
    row = Row("T18", "file deleted, replaced, second library, fork", unit="cases")
    row.lost = row.corrupt = row.hangs = 0
    row.recovery_ms = 0.0
    detected: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name, Pulse(Path(name)) as pulse, ThreadPoolExecutor(4) as pool:
        while budget.more(row.trials):
            size = len(CASES) if budget.most is None else budget.most - row.trials
            cases = [CASES[(row.trials + number) % len(CASES)] for number in range(min(size, 11))]
            for (fault, moment), facts in zip(cases, pool.map(victim, cases), strict=True):
                failures = judge(row, fault, moment, facts, pulse.beats())
                row.failures += [f"{fault}, {moment}: {failure}" for failure in failures]
                detected[fault] += not failures
                row.trials += 1
    row.notes.append(f"detected {detected.total()} of {row.trials}")
    for what in ("lost", "corrupt", "hangs"):
        row.require(f"{what}: {getattr(row, what)}", getattr(row, what) == 0)
    return row


def victim(case: tuple[str, str]) -> dict[str, Any]:
    """Run a program; return what it saw, and what another process finds in the file afterwards."""
    fault, moment = case
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer, "folder")
        folder.mkdir()
        quiet = ["-W", "ignore::DeprecationWarning"]  # that it forks with threads, which is the point
        command = [sys.executable, *quiet, str(PROGRAM), fault, moment, str(folder)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            return {"hang": f"the program did not end in {LIMIT} s"}
        if ended.returncode != 0 or ended.stderr:
            return {"hang": f"the program ended with {ended.returncode}: {ended.stderr[-1500:]}"}
        facts: dict[str, Any] = json.loads(ended.stdout)
        file = folder / "app.db"
        if fault in UNLOCKED + FORKED:
            facts |= {"intact": intact(file), "found": found(file), "visits": visits(file)}
        return facts


def found(file: Path) -> list[str]:
    """Return the ids of all jobs in a file."""
    return _column(file, "SELECT id FROM backlite_jobs UNION ALL SELECT id FROM backlite_completed")


def visits(file: Path) -> int:
    """Return how much of what another process wrote is still there."""
    return len(_column(file, "SELECT number FROM visits"))


def _column(file: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(file)
    try:
        return [row[0] for row in connection.execute(query)]
    except sqlite3.DatabaseError:
        return []
    finally:
        connection.close()


def judge(row: Row, fault: str, moment: str, facts: dict[str, Any], beats: Beats = STEADY) -> list[str]:
    """Add one case to the row; return what was wrong."""
    if "hang" in facts:
        row.hangs = (row.hangs or 0) + 1
        return [facts["hang"]]
    failures = [f"a save broke: {text}" for how, text in facts["saves"] if how == "broke"]
    stop = beats.charged(facts["stopped_at"] - facts["stop"], facts["stopped_at"], START)
    if stop > STOP_LIMIT or facts["stopped"] == "never":
        failures.append(f"the stop took {stop:.1f} s: {facts['stopped']}")
    failures += _unharmed(row, facts) if fault in FORKED else _noticed(row, moment, facts)
    if "intact" in facts:
        row.corrupt = (row.corrupt or 0) + (not facts["intact"])
        if not facts["intact"]:
            failures.append("the file is damaged")
        elif facts["visits"] != (3 if fault == "log replaced" else 1):
            failures.append("what another process has written is gone")
    return failures


def _noticed(row: Row, moment: str, facts: dict[str, Any]) -> list[str]:
    """Return why the loss of the file was not noticed in time; what was under way may still end."""
    failures = []
    returned = sum(how == "returned" for how, _ in facts["saves"])
    if returned > facts["concurrent"]:
        failures.append(f"{returned} saves were acknowledged afterwards")
        row.lost = (row.lost or 0) + returned - facts["concurrent"]
    if not any(how == "refused" for how, _ in facts["saves"]):
        failures.append("no save was refused")
    if facts["started"] > WORKERS * (moment == "adding"):
        failures.append(f"{facts['started']} handlers were started afterwards")
    if moment != "adds only":
        lost = [said for said in facts["said"] if said[0] == "store.lost"]
        if len(lost) != 1:
            failures.append(f"said to be lost {len(lost)} times, and {len(facts['said'])} errors in all")
        row.recovery_ms = max([row.recovery_ms or 0.0, *(said[1] * 1000 for said in lost)])
    return failures


def _unharmed(row: Row, facts: dict[str, Any]) -> list[str]:
    """Return why a fork was not told that it is one, or what it did to its parent."""
    failures = [
        f"in the child: {said}"
        for said in facts["child"]
        if not (said.startswith("refused") and "fork" in said)
    ]
    missing = {text for how, text in facts["saves"] if how == "returned"} - set(facts["found"])
    row.lost = (row.lost or 0) + len(missing)
    if missing:
        failures.append(f"{len(missing)} acknowledged jobs are not in the file")
    refused = [text for how, text in facts["saves"] if how != "returned"]
    failures += [f"in the parent: {text}" for text in refused[:1]]
    if facts["said"] or facts["stopped"] != "True":
        failures.append(f"the parent: stopped {facts['stopped']}, {facts['said'][:1]}")
    return failures
