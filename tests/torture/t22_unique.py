"""T22: eight processes add the same job ten thousand times, and there is one of it.

They begin at the same instant, with keys, ids of their own and payloads, one or hundreds of them, plain
and in transactions; one of them is killed meanwhile. All get the same id. Where a worker runs the job,
the next one is made when it has ended, and never before.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from .crew import LIMIT, Crew, Late, until
from .kit import Budget, Ledger, Row, intact

__all__ = ["judge_one", "judge_turns", "run"]

Event = dict[str, Any]

SECONDS, LEAST = 12.0, 10_000

PROCESSES = 8


class Round(NamedTuple):
    """In which way they add, how many keys, whether one of them is killed, and whether jobs run."""

    way: str
    keys: int = 1
    killed: bool = False
    worked: bool = False


ROUNDS = [
    Round("key"),
    Round("id"),
    Round("payload", keys=200),
    Round("key", keys=500, killed=True),
    Round("id", keys=500, killed=True),
    Round("tx", keys=20),
    Round("raise", keys=20),
    Round("replace", keys=20),
    Round("both", keys=20),
    Round("key", keys=3, worked=True),
]

SLOW = {"tx": 10, "replace": 4}
"""Ways in which every add is written, or waits for a lock: so many times fewer."""


def run(budget: Budget, *, size: int | None = None) -> Row:
    """Do all rounds, once at least, of so many adds; judge each."""
    row = Row("T22", "8 processes add the same at once", unit="adds", lost=0, doubles=0, corrupt=0, hangs=0)
    size, began, rounds = size or LEAST, time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="t22-") as name:
        folder = Path(name)
        with Crew("t22_roles", folder / "errors") as crew:
            try:
                while rounds < len(ROUNDS) or budget.more(row.trials):
                    contest = Contest(folder, rounds)
                    contest.hold(crew, ROUNDS[rounds % len(ROUNDS)], size)
                    contest.judge(row)
                    rounds += 1
            except Late as error:
                row.hangs = 1
                row.failures.append(str(error))
            row.require(f"processes complain: {crew.complaints[-500:]}", not crew.complaints)
    row.notes.append(f"{rounds} rounds, {row.trials / (time.monotonic() - began):,.0f} adds a second")
    row.require(f"at least {budget.least} adds", row.trials >= budget.least)
    return row


class Contest:
    """One round, on a file of its own."""

    def __init__(self, folder: Path, number: int) -> None:
        self.database = str(folder / f"{number}.db")
        self.ledger = str(folder / f"{number}.ledger")
        self._go = folder / f"{number}.go"
        self._round = Round("")

    def hold(self, crew: Crew, kind: Round, size: int) -> None:
        """Start all, let them begin at once, and wait for their ends."""
        self._round = kind
        keys = [f"{kind.way}-{number}" for number in range(kind.keys)]
        times = max(1, size // SLOW.get(kind.way, 1) // PROCESSES // kind.keys)
        files = {"database": self.database, "ledger": self.ledger}
        if kind.worked:
            crew.start("worker", **files)
        more = {"go": str(self._go), "way": kind.way, "keys": keys, "times": times}
        adders = [crew.start("adder", **files, **more) for _ in range(PROCESSES)]
        until(lambda: self._count("up") == PROCESSES + kind.worked, LIMIT, "the start of all processes")
        self._go.touch()
        if kind.killed:
            until(lambda: self._count("new") > kind.keys // 4, LIMIT, "a few adds")
            crew.send(adders[:1], signal.SIGKILL)
        crew.ended(adders, 2 * LIMIT, f"adding by {kind.way}")
        if statuses := [crew.statuses[pid] for pid in adders[kind.killed :] if crew.statuses[pid]]:
            raise Late(f"adding by {kind.way} ended with {statuses}: {crew.complaints[-500:]}")
        if kind.worked:
            until(lambda: not self.pending(), LIMIT, "the rest of the jobs")
            crew.dismiss("worker")

    def _count(self, what: str) -> int:
        path = Path(self.ledger)
        return path.read_bytes().count(f'"what": "{what}"'.encode()) if path.exists() else 0

    def pending(self) -> dict[str, list[str]]:
        """Return the ids of the live jobs of each key."""
        found = defaultdict(list)
        with closing(sqlite3.connect(self.database, timeout=10.0)) as connection:
            for job, payload in connection.execute("SELECT id, payload FROM backlite_jobs"):
                found[json.loads(payload)["key"]].append(job)
        return found

    def judge(self, row: Row) -> None:
        """Judge what the ledger says, and what is there."""
        events = Ledger.read(self.ledger)
        if self._round.worked:
            judge_turns(row, events)
        else:
            judge_one(row, events, self.pending(), self._round)
        errors = [event["text"] for event in events if event["what"] == "error"]
        row.require(f"the library logged {len(errors)} errors: {errors[:2]}", not errors)
        whole = intact(self.database)
        row.corrupt = (row.corrupt or 0) + (not whole)
        row.require("the database is whole", whole)


# -- judging ---------------------------------------------------------------------------------------


def judge_one(row: Row, events: Sequence[Event], there: Mapping[str, Sequence[str]], kind: Round) -> None:
    """Require one job of each key, whose id all have got, and that one at most has been told it is new."""
    found, new, told = defaultdict(set), defaultdict(list), f"by {kind.way}"
    for event in events:
        if event["what"] == "found":
            found[event["key"]].update(event["jobs"])
            row.trials += event["times"]
        elif event["what"] == "new":
            new[event["key"]].append(event["job"])
    doubles = {key: jobs for key, jobs in there.items() if len(jobs) > 1}
    lost = sorted(key for key in found if not there.get(key))
    others = {key: jobs for key, jobs in found.items() if jobs != set(there.get(key, ()))}
    claims = {key: jobs for key, jobs in new.items() if len(jobs) > 1}
    nobody = sorted(found.keys() - new.keys()) if not kind.killed else []
    row.doubles = (row.doubles or 0) + sum(len(jobs) - 1 for jobs in doubles.values())
    row.lost = (row.lost or 0) + len(lost)
    row.require(f"{told}, {len(found)} of {kind.keys} keys were added", len(found) == kind.keys)
    row.require(f"{told}, twice: {dict(list(doubles.items())[:3])}", not doubles)
    row.require(f"{told}, lost: {lost[:3]}", not lost)
    row.require(f"{told}, another id was told: {list(others.items())[:3]}", not others)
    row.require(f"{told}, new more than once: {list(claims.items())[:3]}", not claims)
    row.require(f"{told}, new for nobody: {nobody[:3]}", not nobody)


def judge_turns(row: Row, events: Sequence[Event]) -> None:
    """Require that jobs of a key run one after the other, each of them once, and none that was not told."""
    running: dict[str, str] = {}
    crowded: list[str] = []
    news: list[str] = []
    starts: list[str] = []
    told: set[str] = set()
    for event in events:
        if event["what"] == "start":
            if event["key"] in running:
                crowded.append(f"{event['job']} of {event['key']} runs beside {running[event['key']]}")
            running[event["key"]] = event["job"]
            starts.append(event["job"])
        elif event["what"] == "end":
            running.pop(event["key"], None)
        elif event["what"] == "new":
            news.append(event["job"])
        elif event["what"] == "found":
            told.update(event["jobs"])
            row.trials += event["times"]
    lost = sorted(told - set(starts))
    twice = len(starts) - len(set(starts)) + len(news) - len(set(news))
    row.lost = (row.lost or 0) + len(lost)
    row.doubles = (row.doubles or 0) + twice
    row.notes.append(f"{len(starts)} jobs of 3 keys ran, one after the other")
    row.require(f"{len(crowded)} are not alone: {crowded[:3]}", not crowded)
    row.require(f"told, and never run: {lost[:3]}", not lost)
    row.require(f"{twice} times, a job was new or ran twice", twice == 0)
    row.require("ran, and new for nobody", set(starts) == set(news) == told)
