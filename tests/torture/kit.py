"""What the rows of the battery share: how they report, and a ledger that survives any process."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Budget", "Ledger", "Missing", "Row", "Verdict", "audit", "intact", "lively", "needs"]


class Missing(Exception):
    """A tool that a row needs is not installed; the message says how to get it."""


def needs(tool: str, package: str) -> None:
    """Raise `Missing` unless a command is on the path."""
    if shutil.which(tool) is None:
        raise Missing(f"needs {tool}: apt-get install {package}")


@dataclass
class Budget:
    """How long a row may go on: until its least number of trials is done, then until the time is up.

    `seconds` is what one row may take; `least` trials are done in any case, `most` end it early.
    """

    seconds: float
    least: int = 1
    most: int | None = None
    began: float = field(default_factory=time.monotonic)

    def more(self, done: int) -> bool:
        """Return whether to do another trial after so many."""
        if self.most is not None and done >= self.most:
            return False
        return done < self.least or time.monotonic() - self.began < self.seconds


@dataclass
class Row:
    """What one row of the battery found. A column that says nothing about the fault stays None."""

    name: str  # "T1"
    fault: str  # "process killed at every write and sync call"
    trials: int = 0
    unit: str = "trials"  # "points", "images", "kills", ...
    lost: int | None = None
    doubles: int | None = None  # executions without a logged cause
    corrupt: int | None = None
    hangs: int | None = None
    recovery_ms: float | None = None  # the worst
    notes: list[str] = field(default_factory=list)  # further figures: "p50 0.4 ms", ...
    failures: list[str] = field(default_factory=list)  # each bar that was missed, with what was found

    def require(self, what: str, held: bool) -> None:
        """Take note of a bar of this row, and whether it was met."""
        if not held:
            self.failures.append(what)

    def columns(self) -> list[str]:
        """Return the row of the table."""
        numbers = [self.lost, self.doubles, self.corrupt, self.hangs]
        worst = "-" if self.recovery_ms is None else f"{self.recovery_ms:,.0f} ms"
        shown = ["-" if number is None else str(number) for number in numbers]
        return [self.name, self.fault, f"{self.trials:,} {self.unit}", *shown, worst]


class Ledger:
    """A file to which many processes append lines, each in one write: none is lost with its writer."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, **fields: Any) -> None:
        """Append a line: what happened, in which process, when, and more."""
        line = {"what": what, "pid": os.getpid(), "at": time.monotonic(), **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    @staticmethod
    def read(path: str | Path) -> list[dict[str, Any]]:
        """Return all whole lines, in the order in which they were written."""
        lines = Path(path).read_bytes().split(b"\n") if os.path.exists(path) else []
        found = []
        for line in lines[:-1]:
            try:
                found.append(json.loads(line))
            except ValueError:  # torn by the writer's death
                continue
        return found


@dataclass
class Verdict:
    """What an audit found."""

    acknowledged: int = 0
    executions: int = 0
    lost: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)  # all executions beyond the first of a job
    unexplained: list[str] = field(default_factory=list)  # those without a cause


def audit(events: Iterable[dict[str, Any]], completed: Iterable[str]) -> Verdict:
    """Judge a ledger after everything has drained.

    Events: `ack` (`job`), `start` and `end` (`job`, `fence`), `killed` (`victim`: a pid; also for
    stopped processes), `cause` (`job`: a known reason for one more run of it). `completed` are the ids
    that the database shows as succeeded or failed. Lost is what was acknowledged and is not completed;
    an execution is explained if each one before it was in a process that was killed before it
    ended its write, or has a cause of its own.
    """
    verdict = Verdict()
    done = set(completed)
    starts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    causes: dict[str, int] = defaultdict(int)
    killed: set[int] = set()
    acknowledged: dict[str, None] = {}
    for event in events:
        if event["what"] == "ack":
            acknowledged[event["job"]] = None
        elif event["what"] == "start":
            starts[event["job"]].append(event)
            verdict.executions += 1
        elif event["what"] == "killed":
            killed.add(event["victim"])
        elif event["what"] == "cause":
            causes[event["job"]] += 1
    verdict.acknowledged = len(acknowledged)
    verdict.lost = [job for job in acknowledged if job not in done]
    for job, runs in starts.items():
        for earlier, later in itertools.pairwise(runs):
            what = f"{job}: claim {earlier['fence']} in {earlier['pid']}, {later['fence']} in {later['pid']}"
            verdict.doubles.append(what)
            if earlier["pid"] in killed:
                continue
            if causes[job] > 0:
                causes[job] -= 1
            else:
                verdict.unexplained.append(what)
    return verdict


def lively(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Leave out what processes start once their kill is noted, which is just before it is sent.

    A start in between is never followed by an end, and is over when anybody else can begin. A pid
    that comes again is noted as `up`.
    """
    dying: set[int] = set()
    for event in events:
        if event["what"] == "killed":
            dying.add(event["victim"])
        elif event["what"] == "up":
            dying.discard(event["pid"])
        if event["what"] != "start" or event["pid"] not in dying:
            yield event


def intact(database: str | Path) -> bool:
    """Return whether SQLite finds the database whole."""
    try:
        connection = sqlite3.connect(database)
        try:
            rows: Sequence[Sequence[Any]] = connection.execute("PRAGMA integrity_check").fetchall()
        finally:
            connection.close()
    except sqlite3.DatabaseError:
        return False
    return [tuple(row) for row in rows] == [("ok",)]
