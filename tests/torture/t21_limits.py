"""T21: limits over four processes, kill -9s in between: one job at a time, two of a key, three of a queue.

Every handler takes a lock that the operating system drops with its process, and is refused where more
run than may. The ledger is looked through for the same thing once more. And a place that becomes free,
also by a death, is taken at once.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from .crew import LIMIT, Crew, Late, percentile, until
from .kit import Budget, Ledger, Row, intact, lively
from .pulse import ORDER, START, STEADY, Beats, Pulse
from .t04_kill_storm import unexplained

__all__ = ["crowds", "judge", "run", "waits"]

Event = dict[str, Any]
Span = tuple[float, float]

SECONDS, LEAST = 50.0, 10_000

PROCESSES = 4

ROUND = 1_000
"""Jobs of the queue with a limit of 1 that are added, and drain, before there are more."""

EVERY = 100
"""Jobs of that queue between two kills."""

SOON = 1.0
"""Seconds within which a place that is free is taken again, whatever has freed it."""


def run(budget: Budget, *, every: int = EVERY) -> Row:
    """Let jobs pass through their limits until the budget is spent, and judge."""
    row = Row("T21", "limits over 4 processes, kill -9 in between", unit="jobs", hangs=0)
    with tempfile.TemporaryDirectory(prefix="t21-") as folder:
        narrows = Narrows(Path(folder), every)
        pulse = Pulse(Path(folder))
        try:
            with pulse:
                narrows.pass_through(budget)
        except Late as error:
            row.hangs = 1
            row.failures.append(str(error))
        row.corrupt = 0 if intact(narrows.database) else 1
        row.require("the database is whole", row.corrupt == 0)
        row.require(f"processes complain: {narrows.complaints[-500:]}", not narrows.complaints)
        row.require(f"statuses of processes at the end: {narrows.statuses}", not narrows.statuses)
        done = narrows.ask("SELECT id, status FROM backlite_completed")
        judge(row, Ledger.read(narrows.ledger), done, pulse.beats())
    row.require(f"at least {budget.least} jobs", row.trials >= budget.least)
    return row


class Narrows:
    """The processes, the kills among them, and the files that they leave."""

    def __init__(self, folder: Path, every: int) -> None:
        self.database = str(folder / "app.db")
        self.ledger = str(folder / "ledger")
        self.complaints = ""
        self.statuses: list[int] = []
        self._errors = folder / "errors"
        self._places = folder / "places"
        self._places.mkdir()
        self._every = every
        self._book = Ledger(self.ledger)
        self._random = random.Random()

    def pass_through(self, budget: Budget) -> None:
        """Add a round of jobs, kill until it has drained, and again; then stop the workers."""
        added = 0
        with Crew("t21_roles", self._errors) as crew:
            try:
                for _ in range(PROCESSES):
                    self._start(crew)
                until(lambda: self._noted("up") == PROCESSES, LIMIT, "the start of all processes")
                while budget.more(added):
                    size = min(ROUND, budget.most or ROUND)
                    self._round(crew, size)
                    added += size
                self.statuses += crew.dismiss("worker")
            finally:
                self.complaints = crew.complaints
                self._book.close()

    def _start(self, crew: Crew) -> None:
        crew.start("worker", database=self.database, ledger=self.ledger, places=str(self._places))

    def _round(self, crew: Crew, size: int) -> None:
        self._book.note("round")
        sizes = {"alone": size, "keyed": size, "some": size // 10}
        adder = crew.start("adder", database=self.database, ledger=self.ledger, **sizes)
        done, at, progressed = 0, self._every, time.monotonic()
        while adder in crew.living or self._left():
            crew.listen(0.02)
            if (now := self._ends()) > done:
                done, progressed = now, time.monotonic()
            if time.monotonic() - progressed > LIMIT:
                raise Late(f"nothing ends for {LIMIT:g} s; there are {self._left()} jobs")
            if done >= at:
                self._kill(crew)
                at = done + self._every
        if crew.statuses[adder]:
            self.statuses.append(crew.statuses[adder])

    def _noted(self, what: str) -> int:
        return Path(self.ledger).read_bytes().count(f'"what": "{what}"'.encode())

    def _ends(self) -> int:
        """Return how many jobs of the limit of 1 have ended in this file."""
        return int(self.ask("SELECT count(*) FROM backlite_completed WHERE queue = 'alone'")[0][0])

    def _left(self) -> int:
        return int(self.ask("SELECT count(*) FROM backlite_jobs")[0][0])

    def _kill(self, crew: Crew) -> None:
        """Kill who holds the one place, if there is somebody; or anybody; or, now and then, all."""
        crew.listen(self._random.uniform(0, 0.005))
        workers, chance = crew.of("worker"), self._random.random()
        victims = [self._random.choice(workers)]
        if chance < 0.1:
            victims = workers
        elif chance < 0.7:
            place = self._places / "alone.0"
            held = place.read_bytes() if place.exists() else b""
            victims = [pid for pid in workers if pid == int(held or b"0")] or victims
        for pid in victims:
            self._book.note("killed", victim=pid)
            crew.send([pid], signal.SIGKILL)
        crew.ended(victims, LIMIT, "a killed process")
        for _ in victims:
            self._start(crew)

    def ask(self, sql: str) -> list[Any]:
        """Return the rows of a query."""
        with closing(sqlite3.connect(self.database, timeout=10.0)) as connection:
            return connection.execute(sql).fetchall()


# -- judging ---------------------------------------------------------------------------------------


def judge(
    row: Row, events: Sequence[Event], completed: Collection[tuple[str, str]], beats: Beats = STEADY
) -> None:
    """Fill in what the ledger, and the completed jobs, say."""
    acknowledged = {job for event in events if event["what"] == "ack" for job in event["jobs"]}
    done = dict(completed)
    lost = sorted(acknowledged - done.keys())
    failed = [job for job, status in completed if status != "succeeded"]
    errors = [event["text"] for event in events if event["what"] == "error"]
    refused, doubles = refusals(events), unexplained(events)
    row.trials = len({event["job"].split("#")[0] for event in runs_of(events, "alone")} & done.keys())
    row.lost, row.doubles = len(lost), len(doubles)
    free, freed = waits(events, "alone")
    turns, deaths = ([later - at for at, later in spans] for spans in (free, freed))
    row.recovery_ms = 1000 * max(deaths, default=0.0)
    p50, p99, worst = (1000 * percentile(turns, share) for share in (0.5, 0.99, 1.0))
    kills = sum(event["what"] == "killed" for event in events)
    row.notes += [
        f"{len(done):,} jobs of all limits, {kills} kills, {len(deaths)} between two jobs of the one place",
        f"the place is taken again after p50 {p50:.1f}, p99 {p99:.1f}, max {worst:.0f} ms",
        f"after a kill p50 {1000 * percentile(deaths, 0.5):.0f}, max {row.recovery_ms:.0f} ms",
    ]
    row.require(f"{len(refused)} found all places taken: {refused[:3]}", not refused)
    row.require(f"more ran than may: {crowds(events)[:3]}", not crowds(events))
    row.require(f"lost: {lost[:3]}", not lost)
    row.require(f"jobs failed: {failed[:3]}", not failed)
    row.require(f"unexplained executions: {doubles[:3]}", not doubles)
    row.require(f"the library logged {len(errors)} errors: {errors[:2]}", not errors)
    for whose, spans, turns_of in (("place", free, ORDER), ("place of a dead one", freed, START)):
        found = max((beats.charged(at, later, turns_of) for at, later in spans), default=0.0)
        row.require(f"the {whose} was free for {1000 * found:.0f} ms", found < SOON)


def runs_of(events: Sequence[Event], group: str) -> Iterator[Event]:
    """Return the starts of those that took a place in a group."""
    return (event for event in events if event["what"] == "start" and group in event["groups"])


def refusals(events: Sequence[Event]) -> list[str]:
    """Return who found all places taken, by processes none of which had been killed by then.

    (Who is killed does not run any more, but his files may be closed one after the other.)
    """
    killed: set[int] = set()
    found = []
    for event in events:
        if event["what"] == "killed":
            killed.add(event["victim"])
        elif event["what"] == "refused" and killed.isdisjoint(event["holders"]):
            found.append(f"{event['job']} of {event['group']} in {event['pid']}: {event['holders']}")
    return found


def crowds(events: Sequence[Event]) -> list[str]:
    """Return the starts by which more ran in a group than may, by the order of the ledger."""
    running: dict[str, dict[tuple[str, int], int]] = defaultdict(dict)  # pids by run, by group
    found = []
    for event in lively(events):
        if event["what"] == "start":
            for group, size in event["groups"].items():
                running[group][event["job"], event["fence"]] = event["pid"]
                if len(running[group]) > size:
                    found.append(f"{event['job']} in {group}, beside {running[group]}")
        elif event["what"] == "end":
            for runs in running.values():
                runs.pop((event["job"], event["fence"]), None)
        elif event["what"] == "killed":
            for group, runs in running.items():
                running[group] = {run: pid for run, pid in runs.items() if pid != event["victim"]}
    return found


def waits(events: Sequence[Event], group: str) -> tuple[list[Span], list[Span]]:
    """Return when the one place of a group was free: where nobody was killed, and where somebody was.

    Who was killed may have been next, without having started. A round's first job waits for nobody.
    """
    turns: list[Span] = []
    deaths: list[Span] = []
    holder, job, free_at, killed = 0, "", 0.0, False
    for event in lively(events):
        if event["what"] == "round":
            holder, job, free_at, killed = 0, "", 0.0, False
        elif event["what"] == "start" and group in event["groups"]:
            if free_at:
                (deaths if killed else turns).append((free_at, event["at"]))
            holder, job, free_at, killed = event["pid"], event["job"], 0.0, False
        elif event["what"] == "end" and event["job"] == job:
            holder, job, free_at = 0, "", event["at"]
        elif event["what"] == "killed":
            killed = True
            if event["victim"] == holder:
                holder, job, free_at = 0, "", event["at"]
    return turns, deaths
