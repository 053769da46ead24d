"""T4: kill -9 at random. Four adders and four workers share a file; who is killed is started again.

Handlers write their starts and ends into a ledger, adders what was acknowledged, the row whom it kills.
Recovery is the time from the kill of a process to the next start of each job that it was running.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from .crew import LIMIT, Crew, Late, percentile, until
from .kit import Budget, Ledger, Row, audit, intact
from .pulse import START, STEADY, Beats, Pulse

__all__ = ["DYING", "judge", "recoveries", "run", "unexplained"]

Event = dict[str, Any]

PROCESSES = 4
"""Of each role."""

KILLS_PER_SECOND = 9.0

SLOWEST_RECOVERY = 1.0
"""Seconds within which 99 of 100 jobs of a killed process run again."""

DYING = 1.0
"""Seconds for which a process may go on after its kill was noted, which is just before it is sent."""

ENOUGH = 100
"""Recoveries of which the slowest hundredth says something; of fewer the median is judged."""


def run(budget: Budget, *, lease: float = 30.0) -> Row:
    """Kill until the budget is spent, let everything drain, and judge."""
    row = Row("T4", "kill -9 at random, 4 adders and 4 workers on one file", unit="kills", hangs=0)
    with tempfile.TemporaryDirectory(prefix="t04-") as folder:
        storm = Storm(Path(folder), lease)
        pulse = Pulse(Path(folder))
        try:
            with pulse:
                storm.rage(budget)
        except Late as error:
            row.hangs = 1
            row.failures.append(str(error))
        row.corrupt = 0 if intact(storm.database) else 1
        row.require("the database is whole", row.corrupt == 0)
        row.require(f"processes complain: {storm.complaints[-500:]}", not storm.complaints)
        row.require(f"statuses of processes at the end: {storm.statuses}", not storm.statuses)
        if not row.hangs:
            events = Ledger.read(storm.ledger)
            judge(row, events, storm.completed(), pulse.beats())
            judge_orders(row, events, storm.orders())
            left = storm.left()
            row.require(f"{len(left)} files of dead processes are left: {left[:3]}", not left)
    row.require(f"at least {budget.least} kills", row.trials >= budget.least)
    return row


class Storm:
    """The processes, the kills among them, and the files that they leave."""

    def __init__(self, folder: Path, lease: float) -> None:
        self.database = str(folder / "app.db")
        self.ledger = str(folder / "ledger")
        self.complaints = ""
        self.statuses: list[int] = []
        self._errors = folder / "errors"
        self._lease = lease
        self._book = Ledger(self.ledger)
        self._random = random.Random()
        self._kills = 0

    def rage(self, budget: Budget) -> None:
        """Kill and start again; then stop the adders, wait for the last job, stop the workers."""
        with Crew("t04_roles", self._errors) as crew:
            try:
                for _ in range(PROCESSES):
                    self._start(crew, "worker")
                    self._start(crew, "adder")
                self._kill(crew, budget)
                self.statuses += crew.dismiss("adder")
                until(self._drained, LIMIT, "the rest of the jobs")
                self.statuses += crew.dismiss("worker")
            finally:
                self.complaints = crew.complaints
                self._book.close()

    def _start(self, crew: Crew, role: str) -> None:
        more = {"lease": self._lease} if role == "worker" else {"pause": 0.05}
        crew.start(role, database=self.database, ledger=self.ledger, **more)

    def _kill(self, crew: Crew, budget: Budget) -> None:
        limit = budget.began + 3 * budget.seconds + LIMIT
        while budget.more(self._kills):
            if time.monotonic() > limit:
                raise Late(f"{self._kills} kills took {limit - budget.began:g} s")
            self._rest(crew, self._random.expovariate(KILLS_PER_SECOND / 1.5))
            victims = self._victims(crew)
            for pid in victims:
                self._book.note("killed", victim=pid, role=crew.living[pid])
                crew.send([pid], signal.SIGKILL)
            self._kills += len(victims)
            roles = [crew.living[pid] for pid in victims]
            crew.ended(victims, LIMIT, "a killed process")
            for role in roles:
                self._start(crew, role)

    def _rest(self, crew: Crew, seconds: float) -> None:
        """Let some time pass, in which nobody should end by himself."""
        before, deadline = dict(crew.living), time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            crew.listen(left)
        if strays := [before[pid] for pid in before if pid not in crew.living]:
            raise Late(f"ended by themselves: {strays}")

    def _victims(self, crew: Crew) -> Sequence[int]:
        """Choose who is hit: mostly one process, now and then all workers at once, or everybody."""
        chance = self._random.random()
        if chance < 0.9:
            return self._random.sample(list(crew.living), 1)
        if chance < 0.96:
            return self._random.sample(list(crew.living), 2)
        return crew.of("worker") if chance < 0.99 else list(crew.living)

    def _drained(self) -> bool:
        return self._ask("SELECT count(*) FROM backlite_jobs") == [(0,)]

    def completed(self) -> list[tuple[str, str]]:
        """Return the ids of completed jobs, and how they ended."""
        return self._ask("SELECT id, status FROM backlite_completed")

    def orders(self) -> set[str]:
        """Return the batches whose transactions have committed."""
        return {batch for (batch,) in self._ask("SELECT batch FROM orders")}

    def left(self) -> list[str]:
        """Return the files that processes have left beside the database, without its locks."""
        return sorted(
            file.name for file in Path(f"{self.database}-backlite").iterdir() if file.suffix != ".lock"
        )

    def _ask(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.database, timeout=10.0)) as connection:
            return connection.execute(sql).fetchall()


# -- judging ---------------------------------------------------------------------------------------


def judge(
    row: Row, events: Sequence[Event], completed: Collection[tuple[str, str]], beats: Beats = STEADY
) -> None:
    """Fill in what a storm's ledger, and its completed jobs, say."""
    verdict = audit(events, [job for job, _ in completed])
    doubles = unexplained(events)
    spans = recoveries(events)
    waits = [later - death for death, later in spans]
    errors = [event["text"] for event in events if event["what"] == "error"]
    failed = [job for job, status in completed if status != "succeeded"]
    torn = torn_batches(events)
    ended = {event["job"] for event in events if event["what"] == "end"}
    cut = [job for job, status in completed if status == "succeeded" and job not in ended]
    row.trials = sum(event["what"] == "killed" for event in events)
    row.lost = len(verdict.lost)
    row.doubles = len(doubles)
    row.recovery_ms = max(waits, default=0.0) * 1000
    p50, p99 = (1000 * percentile(waits, share) for share in (0.5, 0.99))
    row.notes += [
        f"{verdict.acknowledged:,} jobs acknowledged, {verdict.executions:,} executions",
        f"{len(waits):,} jobs interrupted, running again after p50 {p50:.0f} ms, p99 {p99:.0f} ms",
    ]
    row.require(f"lost: {verdict.lost[:3]}", not verdict.lost)
    row.require(f"unexplained executions: {doubles[:3]}", not doubles)
    row.require(f"fences go back: {stale(events)[:3]}", not stale(events))
    row.require(f"jobs failed: {failed[:3]}", not failed)
    row.require(f"succeeded without having run to the end: {cut[:3]}", not cut)
    row.require(f"the library logged {len(errors)} errors: {errors[:2]}", not errors)
    row.require(f"batches added in part: {torn[:3]}", not torn)
    name, share = ("p99", 0.99) if len(waits) >= ENOUGH else ("p50", 0.5)
    value = percentile([beats.charged(death, later, START) for death, later in spans], share)
    row.require(f"recovery {name} {1000 * value:.0f} ms, to be below 1,000 ms", value < SLOWEST_RECOVERY)


def judge_orders(row: Row, events: Sequence[Event], orders: Collection[str]) -> None:
    """Require that a transaction's jobs ran if and only if it committed."""
    ran = {event["batch"] for event in events if event["what"] == "start"}
    ran = {batch for batch in ran if batch.startswith("tx-")}
    row.require(f"orders without jobs: {sorted(set(orders) - ran)[:3]}", set(orders) <= ran)
    row.require(f"jobs without orders: {sorted(ran - set(orders))[:3]}", ran <= set(orders))


def _starts(events: Sequence[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event["what"] == "start":
            found[event["job"]].append(event)
    return found


def _kills(events: Sequence[Event]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = defaultdict(list)
    for event in events:
        if event["what"] == "killed":
            found[event["victim"]].append(event["at"])
    return found


def _death(kills: dict[int, list[float]], start: Event) -> float | None:
    """Return when the process of a start was killed, or None; pids come again in the end."""
    return min((at for at in kills[start["pid"]] if at >= start["at"] - DYING), default=None)


def unexplained(events: Sequence[Event]) -> list[str]:
    """Return the executions that began although the process of the one before had not been killed yet."""
    kills, found = _kills(events), []
    for job, runs in _starts(events).items():
        for earlier, later in pairwise(runs):
            death = _death(kills, earlier)
            if death is None or later["at"] < death:
                found.append(f"{job} in {earlier['pid']}, then in {later['pid']}")
    return found


def stale(events: Sequence[Event]) -> list[str]:
    """Return the jobs of which a later execution has no greater fence."""
    return [
        job
        for job, runs in _starts(events).items()
        if any(later["fence"] <= earlier["fence"] for earlier, later in pairwise(runs))
    ]


def recoveries(events: Sequence[Event]) -> list[tuple[float, float]]:
    """Return when a process was killed, and when the next start was of each job that it had in hand."""
    kills, found = _kills(events), []
    for runs in _starts(events).values():
        for earlier, later in pairwise(runs):
            death = _death(kills, earlier)
            if death is not None and later["at"] >= death:
                found.append((death, later["at"]))
    return found


def torn_batches(events: Sequence[Event]) -> list[str]:
    """Return the batches, acknowledged or not, of which only some jobs have ever run."""
    sizes: dict[str, int] = {}
    seen: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event["what"] == "start":
            sizes[event["batch"]] = event["size"]
            seen[event["batch"]].add(event["job"])
    return [batch for batch, size in sizes.items() if len(seen[batch]) != size]
