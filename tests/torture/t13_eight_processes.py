"""T13: eight processes add to, and claim from, one file, as fast as they can.

None may ever hear that the database is locked, and none may starve: over the same time the one
that got least done has done at least a third of what the busiest has done, in adding and in running.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any

from .crew import LIMIT, Crew, Late, percentile, until
from .kit import Budget, Ledger, Row, audit, intact

__all__ = ["judge", "run"]

Event = dict[str, Any]

PROCESSES = 8

LEAST_SHARE = 1 / 3
"""What the least busy process does at least, of what the busiest does."""

SECONDS = 5
"""Seconds of which the one in the middle says something."""

ENOUGH = 2_000
"""Jobs that all have run when the window may close, so that shares of them say something."""

ENOUGH_IN_A_SECOND = 400
"""Those of a second of which shares say something."""


def run(budget: Budget) -> Row:
    """Let them compete for most of the budget's time, drain, and judge."""
    row = Row("T13", f"{PROCESSES} processes add and claim on one file", unit="jobs", hangs=0)
    with tempfile.TemporaryDirectory(prefix="t13-") as name:
        place = Path(name)
        database, ledger = str(place / "app.db"), str(place / "ledger")
        with Crew("t13_roles", place / "errors") as crew:
            try:
                compete(crew, place, max(1.0, min(budget.seconds * 0.8, budget.seconds - 2)))
            except Late as error:
                row.hangs = 1
                row.failures.append(str(error))
            row.require(f"processes complain: {crew.complaints[-500:]}", not crew.complaints)
        row.corrupt = 0 if intact(database) else 1
        row.require("the database is whole", row.corrupt == 0)
        judge(row, Ledger.read(ledger), ask(database, "SELECT id, status FROM backlite_completed"))
    row.require(f"at least {budget.least} jobs", row.trials >= budget.least)
    return row


def compete(crew: Crew, place: Path, seconds: float) -> None:
    """Start all, open the window for some seconds, and wait until every job has run."""
    files = {
        "database": str(place / "app.db"),
        "ledger": str(place / "ledger"),
        "board": str(place / "board"),
    }
    board = Path(files["board"])
    board.write_bytes(bytes(16 + 16 * PROCESSES))
    for number in range(PROCESSES):
        crew.start("process", **files, place=number)
    until(lambda: _count(files["ledger"], "up") == PROCESSES, LIMIT, "the start of all processes")
    begin = time.monotonic() + 0.05
    with board.open("r+b") as file:
        os.pwrite(file.fileno(), struct.pack("dd", begin, inf), 0)
        while (left := begin + seconds - time.monotonic()) > 0:
            crew.listen(left)
        until(lambda: ran(board) >= ENOUGH, LIMIT, f"{ENOUGH} jobs")
        os.pwrite(file.fileno(), struct.pack("d", time.monotonic()), 8)
    until(lambda: _count(files["ledger"], "share") == PROCESSES, LIMIT, "the end of adding")
    until(lambda: ask(files["database"], "SELECT count(*) FROM backlite_jobs") == [(0,)], LIMIT, "the rest")
    if statuses := crew.dismiss("process"):
        raise Late(f"processes ended with {statuses}")


def ran(board: Path) -> int:
    """Return how many jobs have run so far, by what the processes show."""
    return sum(done for _, done in struct.iter_unpack("QQ", board.read_bytes()[16:]))


def _count(ledger: str, what: str) -> int:
    marked = f'"what": "{what}"'.encode()
    return Path(ledger).read_bytes().count(marked) if os.path.exists(ledger) else 0


def ask(database: str, sql: str) -> list[Any]:
    """Return the rows of a query."""
    with closing(sqlite3.connect(database, timeout=10.0)) as connection:
        return connection.execute(sql).fetchall()


# -- judging ---------------------------------------------------------------------------------------


def judge(row: Row, events: Sequence[Event], completed: Collection[tuple[str, str]]) -> None:
    """Fill in what the ledger, and the completed jobs, say."""
    verdict = audit(events, [job for job, status in completed if status == "succeeded"])
    shares = [event for event in events if event["what"] == "share"]
    surfaced = [event["error"] for event in events if event["what"] == "surfaced"]
    errors = [event["text"] for event in events if event["what"] == "error"]
    waits = [wait / 1000 for event in shares for wait in event["waits"]]
    row.trials, row.lost, row.doubles = verdict.acknowledged, len(verdict.lost), len(verdict.doubles)
    p50, p99, worst = (percentile(waits, share) for share in (0.5, 0.99, 1.0))
    row.notes.append(f"errors surfaced {len(surfaced)}, logged {len(errors)}")
    row.notes.append(f"save() p50 {p50:.1f}, p99 {p99:.1f}, max {worst:.1f} ms")
    for what in ("added", "ran"):
        done = sorted(event[what] for event in shares)
        share = done[0] / done[-1] if done and done[-1] else 0.0
        row.notes.append(f"{what} {sum(done):,}, per process {done}: smallest/largest {share:.2f}")
        row.require(f"{what}: smallest/largest share {share:.2f}, to be 0.33: {done}", share >= LEAST_SHARE)
        slices = shares_by_second(events, "ack" if what == "added" else "start")
        middle = percentile(slices, 0.5)
        row.notes.append(
            f"{what}, in single seconds: median {middle:.2f}, worst {min(slices, default=0):.2f}"
        )
        fair = len(slices) < SECONDS or middle >= LEAST_SHARE
        row.require(f"{what}: smallest/largest in the median second {middle:.2f}, to be 0.33", fair)
    row.require(f"{len(shares)} of {PROCESSES} processes told their share", len(shares) == PROCESSES)
    row.require(f"{len(surfaced)} errors surfaced: {surfaced[:2]}", not surfaced)
    row.require(f"{len(errors)} errors logged: {errors[:2]}", not errors)
    row.require(f"lost: {verdict.lost[:3]}", not verdict.lost)
    row.require(f"ran more than once: {verdict.doubles[:3]}", not verdict.doubles)


def shares_by_second(events: Sequence[Event], what: str, least: int = ENOUGH_IN_A_SECOND) -> list[float]:
    """Return the smallest share over the largest in each second in which all compete, and do enough.

    Where nobody takes turns, who has just written writes again, and others wait for seconds; it evens
    out in the long run only.
    """
    up = {event["pid"]: event["at"] for event in events if event["what"] == "up"}
    begin = max(up.values(), default=0.0)
    whole = int(min((event["at"] for event in events if event["what"] == "share"), default=0.0) - begin)
    counts = [Counter(dict.fromkeys(up, 0)) for _ in range(whole)]
    for event in events:
        second = int(event.get("at", begin) - begin)
        if event["what"] == what and event["at"] >= begin and second < whole:
            counts[second][event["pid"]] += 1
    full = [count for count in counts if count.total() >= least]
    return [min(count.values()) / max(count.values()) for count in full]
