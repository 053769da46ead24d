"""T10: a job kills its process, and a supervisor starts the process again.

The job must have failed after as many deaths as its queue allows. The jobs that ran beside it are run
again, and complete: a job that is one death short of its limit runs alone in its process, so nobody
ever pays for another's last death.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.torture.children import Children, Event, Hang
from tests.torture.kit import Budget, Row, intact
from tests.torture.pulse import START, STEADY, Beats, Pulse

__all__ = ["SECONDS", "Record", "Trial", "judge", "run"]

SECONDS = 15.0

MAX_CRASHES = 3
"""As the worker's queue has it."""

LIMIT = 120.0
"""Seconds that a trial may take."""

DEATHS = ("kill", "segfault", "exit", "abort", "exec", "orphan")


@dataclass
class Record:
    """A job as its file shows it in the end."""

    job: str
    status: str
    attempt: int
    crashes: int
    error: str | None


@dataclass
class Trial:
    """What happened to one file of jobs."""

    workers: int
    processes: int
    poisons: int
    crashes: int = 0  # deaths that each poison has behind it
    events: list[Event] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    lives: int = 0
    hang: str = ""
    sound: bool = True


@dataclass
class Verdict:
    """What a trial says."""

    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    wasted: int = 0  # runs of innocent jobs that were cut off
    worst: int = 0  # of one job
    poison_deaths: list[int] = field(default_factory=list)  # of each, until it had failed
    recovery: list[float] = field(default_factory=list)  # seconds


def judge(trial: Trial) -> Verdict:
    """Judge a trial that has ended."""
    verdict = Verdict()
    starts: dict[str, int] = defaultdict(int)
    begun: dict[str, int] = defaultdict(int)  # by the library's word: some time before a thread's first line
    poisons = set()
    for event in trial.events:
        if event["what"] == "job.started":
            begun[event["job_id"]] += 1
        elif event["what"] == "start":
            starts[event["job"]] += 1
            if event["poison"]:
                poisons.add(event["job"])
    for record in trial.records:
        runs = starts[record.job]
        if record.job in poisons:
            _judge_poison(verdict, record, trial.crashes + runs, trial.crashes + begun[record.job])
        else:
            _judge_innocent(verdict, record, runs, begun[record.job])
    added = {event["job_id"] for event in trial.events if event["what"] == "job.added"}
    verdict.lost += len(added - {record.job for record in trial.records})
    if len(poisons) != trial.poisons:
        verdict.wrong.append(f"{len(poisons)} of {trial.poisons} poisons ran")
    allowed = (MAX_CRASHES - 1) * (trial.workers - 1) * trial.poisons
    if verdict.wasted > allowed:
        verdict.wrong.append(f"{verdict.wasted} wasted runs, {allowed} would be all beside the first deaths")
    if trial.hang:
        verdict.wrong.append(trial.hang)
    if not trial.sound:
        verdict.wrong.append("the file is corrupt")
    verdict.wrong += _beside(trial.events, dict.fromkeys(poisons, trial.crashes))
    verdict.recovery = _recoveries(trial.events)
    return verdict


def _judge_poison(verdict: Verdict, record: Record, runs: int, begun: int) -> None:
    """It has failed after as many deaths as it may cause, not one more or less."""
    verdict.poison_deaths.append(record.crashes)
    if (record.status, record.crashes) != ("failed", MAX_CRASHES) or not runs <= MAX_CRASHES <= begun:
        verdict.wrong.append(f"poison {record.job} is {record} after {runs} runs")
    elif f"process died {MAX_CRASHES} times" not in (record.error or ""):
        verdict.wrong.append(f"poison {record.job} has failed with {record.error!r}")


def _judge_innocent(verdict: Verdict, record: Record, runs: int, begun: int) -> None:
    """It succeeds in its first attempt; each start but the last was cut off and is counted as a crash."""
    verdict.wasted += runs - 1
    verdict.worst = max(verdict.worst, runs - 1)
    if record.status == "pending":
        verdict.lost += 1
    if (record.status, record.attempt) != ("succeeded", 1):
        verdict.wrong.append(f"innocent {record.job} is {record} after {runs} runs")
    elif not runs - 1 <= record.crashes <= begun - 1:
        verdict.wrong.append(f"innocent {record.job} ran {runs} times, with {record.crashes} crashes")


def _beside(events: list[Event], crashes: dict[str, int]) -> list[str]:
    """Return which jobs did not run alone although they were one death short of their limit."""
    wrong = []
    cut: dict[str, int] = defaultdict(int, crashes)
    running: dict[int, dict[str, bool]] = defaultdict(dict)
    for event in events:
        pid = event["pid"]
        if event["what"] == "start":
            alone = cut[event["job"]] == MAX_CRASHES - 1
            others = running[pid]
            if others and (alone or any(others.values())):
                wrong.append(f"{event['job']} started beside {list(others)}, alone: {alone}")
            others[event["job"]] = alone
        elif event["what"] == "end":
            running[pid].pop(event["job"], None)
        elif event["what"] == "over":
            for job in running.pop(event["child"], {}):
                cut[job] += 1
    return wrong


def _recoveries(events: list[Event]) -> list[float]:
    """Return how long it took from each death to the first start of a job that it had cut off."""
    found = []
    running: dict[int, set[str]] = defaultdict(set)
    waiting: list[tuple[float, set[str]]] = []
    for event in events:
        if event["what"] == "start":
            running[event["pid"]].add(event["job"])
            found += [event["at"] - died for died, jobs in waiting if event["job"] in jobs]
            waiting = [(died, jobs) for died, jobs in waiting if event["job"] not in jobs]
        elif event["what"] == "end":
            running[event["pid"]].discard(event["job"])
        elif event["what"] == "over" and (jobs := running.pop(event["child"], None)):
            waiting.append((event["at"], jobs))
    return found


class Supervisor:
    """Runs trials, one after the other, and starts dead processes again."""

    def __init__(self, children: Children, folder: Path) -> None:
        self._children, self._folder = children, folder
        self._servers = [children.start("t10_worker.py") for _ in range(2)]
        self._trials = 0

    def attempt(self, trial: Trial, jobs: list[dict[str, Any]]) -> None:
        """Run one trial to its end."""
        self._trials += 1
        file = self._folder / f"{self._trials}.db"
        begin = len(self._children.events)
        servers = self._servers[: trial.processes]
        try:
            for server in servers:
                self._begin(trial, server, file, jobs if server is servers[0] else [])
            self._supervise(trial, servers, file, begin, len(jobs))
        except Hang as hang:
            trial.hang = str(hang)
            self._end_all(trial, signal.SIGKILL, begin)
        trial.events = self._children.events[begin:]
        trial.sound = intact(file)
        with closing(sqlite3.connect(file)) as connection:
            columns = "id, status, attempt, crashes, error"
            rows = connection.execute(
                f"SELECT {columns} FROM backlite_jobs UNION ALL SELECT {columns} FROM backlite_completed"
            )
            trial.records = [Record(*row) for row in rows]

    def _begin(
        self, trial: Trial, server: subprocess.Popen[bytes], file: Path, jobs: list[dict[str, Any]]
    ) -> None:
        trial.lives += 1
        self._children.tell(server, file=str(file), workers=trial.workers, jobs=jobs, crashes=trial.crashes)

    def _supervise(
        self, trial: Trial, servers: list[subprocess.Popen[bytes]], file: Path, begin: int, jobs: int
    ) -> None:
        """Start what dies, until all jobs have ended."""
        by_pid = {server.pid: server for server in servers}
        deadline = time.monotonic() + LIMIT
        final: set[str] = set()
        seen = begin
        while len(final) < jobs:
            self._children.until(
                self._news(seen), deadline - time.monotonic(), f"{len(final)} of {jobs} ends"
            )
            for event in self._children.events[seen:]:
                if event["what"] in ("job.succeeded", "job.failed"):
                    final.add(event["job_id"])
                elif event["what"] == "over":
                    final |= _completed(file)  # also what was written, and not said, before the death
                    self._begin(trial, by_pid[event["pid"]], file, [])
                seen += 1
        self._end_all(trial, signal.SIGTERM, begin)

    def _news(self, seen: int) -> Callable[[], bool]:
        return lambda: len(self._children.events) > seen

    def _end_all(self, trial: Trial, how: signal.Signals, begin: int) -> None:
        """End every process that lives, or is about to."""
        told: set[int] = set()

        def ended() -> bool:
            events = self._children.events[begin:]
            over = {event["child"] for event in events if event["what"] == "over"}
            ready = {event["pid"] for event in events if event["what"] in ("client.started", "died")}
            for pid in ready - over - told:
                told.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
            return len(over) == trial.lives

        self._children.until(ended, LIMIT, "the end of all processes")


def _completed(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM backlite_completed")}


def plan(dice: random.Random) -> tuple[Trial, list[dict[str, Any]]]:
    """Make up a trial: its processes, their workers, and jobs of which some are poison."""
    workers, processes, poisons = dice.randint(2, 8), dice.randint(1, 2), dice.choice((1, 1, 2, 3))
    jobs: list[dict[str, Any]] = [
        {"seconds": dice.uniform(0.005, 0.04), "threaded": dice.random() < 0.2}
        for _ in range(dice.randint(5, 40))
    ]
    jobs += [
        {
            "seconds": 0.1,
            "threaded": dice.random() < 0.2,
            "death": dice.choice(DEATHS),
            "company": dice.randint(0, workers - 1),
        }
        for _ in range(poisons)
    ]
    dice.shuffle(jobs)
    return Trial(workers, processes, poisons), jobs


PATIENCE = 5.0
"""Seconds for which nothing may start so that a job can run alone."""

SOON = 1.5
"""Seconds after that within which all others have started."""


def patient_plan() -> tuple[Trial, list[dict[str, Any]]]:
    """Make up a trial where a poison one death short waits for a job that is longer than anybody waits."""
    jobs: list[dict[str, Any]] = [
        {"seconds": PATIENCE + 2.0, "threaded": False},
        {"seconds": 0.0, "threaded": False, "death": "kill", "company": 0},
        *({"seconds": 0.01, "threaded": False} for _ in range(10)),
    ]
    return Trial(workers=4, processes=1, poisons=1, crashes=MAX_CRASHES - 1), jobs


def judge_patience(trial: Trial, beats: Beats = STEADY) -> list[str]:
    """Check that the others were held up for a while at most, and that the poison took nobody with it."""
    starts = [event for event in trial.events if event["what"] == "start"]
    first = starts[0]["at"]
    others = sorted(event["at"] - first for event in starts if not event["poison"])[1:]
    wrong = []
    if not others or beats.charged(first + PATIENCE, first + others[-1], START) > SOON:
        wrong.append(f"jobs were held up until {others[-1:]} s after the first start")
    if sum(record.status != "succeeded" for record in trial.records) != 1 or trial.lives != 2:
        wrong.append(f"{trial.lives} lives; {[record for record in trial.records if record.crashes]}")
    return wrong


def run(budget: Budget, *, lanes: int = 3, patience: bool = True, library: Path | None = None) -> Row:
    """Try some files of jobs at once; with `patience` also one that lasts for as long as anybody waits."""
    row = Row("T10", "job that kills its process, which is started again", unit="deaths")
    trials: list[Trial] = []
    trouble: list[str] = []

    def patient(folder: Path) -> None:
        folder.mkdir()
        with Children(library=library) as children, Pulse(folder) as pulse:
            trial, jobs = patient_plan()
            Supervisor(children, folder).attempt(trial, jobs)
            trials.append(trial)
            trouble.extend(judge_patience(trial, pulse.beats()))

    def lane(folder: Path, number: int) -> None:
        folder.mkdir()
        dice = random.Random(number)
        with Children(library=library) as children:
            supervisor = Supervisor(children, folder)
            while budget.more(len(trials)):
                trial, jobs = plan(dice)
                trials.append(trial)
                supervisor.attempt(trial, jobs)
                if trial.hang:
                    return

    with tempfile.TemporaryDirectory() as folder:
        threads = [threading.Thread(target=lane, args=[Path(folder, str(n)), n]) for n in range(lanes)]
        if patience:
            threads.append(threading.Thread(target=patient, args=[Path(folder, "patience")]))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    _bars(row, trials)
    row.require(f"nobody waits for long until another has run alone: {trouble}", not trouble)
    return row


def _bars(row: Row, trials: list[Trial]) -> None:
    """Write down the figures, and require what is promised."""
    verdicts = [judge(trial) for trial in trials]
    deaths = [number for verdict in verdicts for number in verdict.poison_deaths]
    recoveries = sorted(seconds for verdict in verdicts for seconds in verdict.recovery)
    wasted = sum(verdict.wasted for verdict in verdicts)
    row.trials = sum(deaths)
    row.lost = sum(verdict.lost for verdict in verdicts)
    row.hangs = sum(bool(trial.hang) for trial in trials)
    row.corrupt = sum(not trial.sound for trial in trials)
    if recoveries:
        row.recovery_ms = recoveries[-1] * 1000
        row.notes.append(
            f"a cut-off job runs again after {recoveries[len(recoveries) // 2] * 1000:.0f} ms (p50)"
        )
    row.notes.append(f"{len(deaths)} poisons, {max(deaths, default=0)} deaths each until failed")
    innocent = sum(len(trial.records) for trial in trials) - len(deaths)
    worst = max((verdict.worst for verdict in verdicts), default=0)
    row.notes.append(f"{innocent} jobs beside them: {wasted} wasted runs, at most {worst} of one job")
    for trial, verdict in zip(trials, verdicts, strict=True):
        what = f"{trial.poisons} poisons, {trial.processes} processes of {trial.workers} workers"
        row.require(f"{what}: {'; '.join(verdict.wrong[:3])}", not verdict.wrong)
    row.require("poisons were tried", bool(deaths))
