"""T7: a worker that was stopped beyond its lease comes back and completes what another has taken.

Two processes run jobs on one file. One of them is stopped by SIGSTOP, or by a handler that holds the
interpreter's lock in one long call; the other takes its jobs when their lease has ended. Then the
stale one goes on, and its outcomes come while the other still runs the jobs, after it has completed
them, after it has given them back, or at the very moment of the taking. None may be accepted.

A handler that only blocks its event loop is no stale worker: its jobs must not be taken at all.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.children import Children, Event, Hang
from tests.torture.kit import Budget, Row, intact

__all__ = ["SECONDS", "History", "Plan", "judge", "run"]

SECONDS = 14.0

LIMIT = 60.0
"""Seconds in which anything that is to happen has to happen."""

ACCEPTED = ("job.succeeded", "job.failed", "job.retried", "job.snoozed")
FINAL = ("job.succeeded", "job.failed")
STAGES = ("running", "completed", "given back", "race", "frozen")
MANNERS = ("return", "fail", "retry", "snooze", "discard")


@dataclass
class Outcome:
    """What became of one attempt. `overtaken`: a later claim had started before it ended."""

    job: str
    pid: int
    fence: int
    event: str
    overtaken: bool


class History:
    """What a file's processes have noted, in its order."""

    def __init__(self) -> None:
        self.added: list[str] = []
        self.claims: dict[str, list[int]] = defaultdict(list)
        self.outcomes: list[Outcome] = []
        self.running: dict[int, set[str]] = defaultdict(set)
        self.final: set[str] = set()
        self.done: set[str] = set()
        self.thawed = 0
        self._ends: dict[tuple[int, str], deque[tuple[int, bool]]] = defaultdict(deque)

    def take(self, event: Event) -> None:
        """Take note of one event."""
        what, pid = event["what"], event["pid"]
        if what == "ack":
            self.added.append(event["job"])
        elif what == "done":
            self.done.add(event["name"])
        elif what == "thawed":
            self.thawed += 1
        elif what == "start":
            self.claims[event["job"]].append(event["fence"])
            self.running[pid].add(event["job"])
        elif what == "end":
            overtaken = any(fence > event["fence"] for fence in self.claims[event["job"]])
            self._ends[pid, event["job"]].append((event["fence"], overtaken))
        elif what in ACCEPTED or what == "job.lease_lost":
            self._outcome(event)

    def _outcome(self, event: Event) -> None:
        """Outcomes of one job in one process are written in the order in which its attempts ended."""
        pid, job, what = event["pid"], event["job_id"], event["what"]
        ends = self._ends[pid, job]
        if not ends or (what == "job.lease_lost" and f"claim {ends[0][0]} " not in event["error"]):
            return  # a claim that was given back without having been run
        fence, overtaken = ends.popleft()
        self.running[pid].discard(job)
        self.outcomes.append(Outcome(job, pid, fence, what, overtaken))
        if what in FINAL:
            self.final.add(job)


@dataclass
class Verdict:
    """What a history says."""

    offered: int = 0  # outcomes of stale claims
    accepted: list[str] = field(default_factory=list)  # those of them that counted
    refused: list[str] = field(default_factory=list)  # outcomes of current claims that did not count
    twice: list[str] = field(default_factory=list)  # jobs that were completed more than once
    lost: list[str] = field(default_factory=list)


def judge(history: History) -> Verdict:
    """Judge every outcome of a history that has drained.

    No claim follows on a completion, so an accepted one must be of the job's last claim. An outcome
    that was refused must have been overtaken by another claim, before or after its attempt's end.
    """
    verdict = Verdict(lost=[job for job in history.added if job not in history.final])
    completions: dict[str, int] = defaultdict(int)
    for outcome in history.outcomes:
        last = max(history.claims[outcome.job])
        what = f"{outcome.job}: {outcome.event} by claim {outcome.fence}, the last is {last}"
        if outcome.event == "job.lease_lost":
            verdict.offered += 1
            if outcome.fence == last:
                verdict.refused.append(what)
            continue
        completions[outcome.job] += outcome.event in FINAL
        if outcome.overtaken or (outcome.event in FINAL and outcome.fence < last):
            verdict.offered += 1
            verdict.accepted.append(what)
    verdict.twice = [job for job, number in completions.items() if number > 1]
    return verdict


@dataclass
class Plan:
    """How a run is made: `workers` of each process; seconds of a lease, and of a blocked event loop."""

    workers: int = 20
    lease: float = 0.8
    calm_lease: float = 1.5  # long enough that no busy machine keeps a process from renewing it
    blocked: float = 4.0
    pairs: int = 5
    library: Path | None = None


class Pair:
    """Two processes on one file."""

    def __init__(self, children: Children, file: Path, workers: int, lease: float) -> None:
        self.file = file
        self.workers, self.lease = workers, lease
        self.history = History()
        self.vanished: list[str] = []
        self.early: list[str] = []
        self._children, self._seen = children, 0
        self._numbers = self._freezes = 0
        self.both = [children.start("t07_worker.py", file, workers, lease) for _ in range(2)]
        self.wait(lambda: sum(event["what"] == "ready" for event in children.events) == 2, "start")

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition on the history holds."""
        self._children.until(lambda: self._caught_up() or condition(), LIMIT, what)

    def _caught_up(self) -> bool:
        for event in self._children.events[self._seen :]:
            self.history.take(event)
        self._seen = len(self._children.events)
        return False

    def tell(self, child: subprocess.Popen[bytes], **command: object) -> None:
        """Send a command without waiting."""
        self._children.tell(child, **command)

    def ask(self, child: subprocess.Popen[bytes], **command: object) -> None:
        """Send a command and wait until it is carried out."""
        self._numbers += 1
        name = f"{child.pid}.{self._numbers}"
        self.tell(child, **command, name=name)
        self.wait(lambda: name in self.history.done, f"{command}")

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self._children.settle(seconds)
        self._caught_up()

    def fill(self, by: subprocess.Popen[bytes]) -> None:
        """Have every worker of both processes run a job that does not end."""
        for child in self.both:
            self.ask(child, gate=False, manner="return")
        self.ask(by, add=2 * self.workers)
        running = self.history.running
        self.wait(lambda: all(len(running[child.pid]) == self.workers for child in self.both), "a full house")

    def drain(self) -> None:
        """Let every job end, here and now."""
        for child in self.both:
            self.tell(child, gate=True, manner="return")
        self.wait(lambda: self.history.final.issuperset(self.history.added), "drain")
        self.wait(lambda: not any(self.history.running.values()), "the last outcomes")

    def stale(self, stage: str, manner: str, dice: random.Random) -> None:
        """Make one process stale at one stage of its jobs' second lives, and let it end its own."""
        victim, other = self.both if dice.random() < 0.5 else self.both[::-1]
        self.fill(by=dice.choice(self.both))
        taken, own = (set(self.history.running[child.pid]) for child in (victim, other))
        if stage == "frozen":
            self._freezes += 1
            self.tell(victim, freeze=2.5 * self.lease)
        else:
            self._stop(victim, in_a_write=stage == "race")
        leases = self._leases(taken) if stage != "frozen" else {}
        try:
            if stage == "race":
                self.pause(self.lease * dice.uniform(0.9, 2.0))
            else:
                self._take_over(other, taken, own, stage)
            self.tell(victim, gate=True, manner=manner)
        finally:
            os.kill(victim.pid, signal.SIGCONT)
        if stage != "race":
            self.wait(lambda: not taken & self.history.running[victim.pid], "the stale outcomes")
        if stage in ("running", "frozen"):
            self._still_there(taken)
        self.drain()
        self._not_early(victim, leases)

    def _leases(self, jobs: Collection[str]) -> dict[str, float]:
        """Return when the leases of jobs end, on the monotonic clock."""
        ahead = time.time() - time.monotonic()
        with closing(sqlite3.connect(self.file)) as connection:
            rows = connection.execute("SELECT id, due_at FROM backlite_jobs WHERE status = 'running'")
            return {job: due_at / 1000 - ahead for job, due_at in rows if job in jobs}

    def _not_early(self, victim: subprocess.Popen[bytes], leases: dict[str, float]) -> None:
        """Check that nothing was taken from a live process before one more renewal period had passed."""
        for event in self._children.events:
            if event["what"] == "start" and event["pid"] != victim.pid and event["job"] in leases:
                grace = event["at"] - leases[event["job"]]
                if grace < 0.9 * self.lease / 3:
                    self.early.append(f"{event['job']}: {grace:.3f} s after its lease's end")

    def _stop(self, victim: subprocess.Popen[bytes], *, in_a_write: bool) -> None:
        """Stop a process; unless told otherwise not inside a write, which would stop everybody else's."""
        if in_a_write:
            os.kill(victim.pid, signal.SIGSTOP)
            return
        with closing(sqlite3.connect(self.file, isolation_level=None, timeout=LIMIT)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            os.kill(victim.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, victim.pid, os.WSTOPPED | os.WNOWAIT)
            connection.execute("ROLLBACK")

    def _take_over(self, other: subprocess.Popen[bytes], taken: set[str], own: set[str], stage: str) -> None:
        """Let the other process end its own jobs, then take those of the stale one."""
        running = self.history.running[other.pid]
        self.ask(other, gate=True)
        self.wait(lambda: not own & running, "the other's own jobs")
        if stage == "given back":
            self.tell(other, manner="fail")
            self.wait(lambda: taken <= self._given_back(other.pid), "giving back")
        elif stage == "completed":
            self.wait(lambda: taken <= self.history.final, "completing for the stale one")
        else:
            self.tell(other, gate=False)
            self.wait(lambda: taken <= running | self.history.final or self._too_late(stage), "taking over")

    def _too_late(self, stage: str) -> bool:
        """Return whether a frozen process came back before the other could be sure that it was stale."""
        return stage == "frozen" and self._freezes == self.history.thawed

    def _given_back(self, pid: int) -> set[str]:
        return {o.job for o in self.history.outcomes if o.event == "job.retried" and o.pid == pid}

    def _still_there(self, jobs: Collection[str]) -> None:
        """Check in the file that what the other process runs has not been completed by the stale one."""
        with closing(sqlite3.connect(self.file)) as connection:
            live = {row[0] for row in connection.execute("SELECT id FROM backlite_jobs")}
        rightly = {o.job for o in self.history.outcomes if o.event in FINAL and not o.overtaken}
        self.vanished += [job for job in jobs if job not in live and job not in rightly]

    def blocked(self, seconds: float) -> None:
        """Block the event loop of one process, where jobs run and are held, while the other waits."""
        before = len(self.history.added)
        for child in self.both:
            self.ask(child, gate=False, manner="return")
        self.ask(self.both[0], add=4, block=1, thread=1, seconds=seconds)
        jobs = self.history.added[before:]
        self.wait(lambda: self.history.final & set(jobs), "the first end")
        self.drain()


def run(budget: Budget, plan: Plan | None = None) -> Row:
    """Make stale workers in some pairs of processes at once, and blocked ones in one more."""
    plan = plan or Plan()
    row = Row("T7", "worker stopped beyond its lease, or blocked", unit="stale outcomes")
    row.hangs = row.doubles = row.corrupt = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(plan.pairs + 1) as threads,
    ):
        lanes = [
            threads.submit(_stale_lane, budget, plan, Path(folder, f"{number}.db"), number)
            for number in range(plan.pairs)
        ]
        calm = threads.submit(_calm_lane, budget, plan, Path(folder, "calm.db"))
        found = [lane.result() for lane in (*lanes, calm)]
    verdict = Verdict()
    for one in found:
        verdict.offered += one.verdict.offered
        for name in ("accepted", "refused", "twice", "lost"):
            getattr(verdict, name).extend(getattr(one.verdict, name))
        row.hangs += len(one.hangs)
        row.doubles += len(one.doubled)
        row.corrupt += not one.intact
    row.trials, row.lost = verdict.offered, len(verdict.lost)
    _bars(row, verdict, found)
    return row


@dataclass
class Found:
    """What one pair of processes has shown."""

    verdict: Verdict = field(default_factory=Verdict)
    hangs: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    intact: bool = True
    rounds: int = 0


def _stale_lane(budget: Budget, plan: Plan, file: Path, seed: int) -> Found:
    dice, found = random.Random(seed), Found()
    with Children(library=plan.library) as children:
        try:
            pair = Pair(children, file, plan.workers, plan.lease)
            try:
                while found.rounds * plan.pairs < len(STAGES) or budget.more(found.rounds):
                    number = found.rounds * plan.pairs + seed
                    manner = MANNERS[(number + number // len(STAGES)) % len(MANNERS)]
                    pair.stale(STAGES[number % len(STAGES)], manner, dice)
                    found.rounds += 1
            finally:
                found.verdict = judge(pair.history)
                found.vanished, found.early = pair.vanished, pair.early
        except Hang as hang:
            found.hangs.append(str(hang))
    found.intact = intact(file)
    return found


def _calm_lane(budget: Budget, plan: Plan, file: Path) -> Found:
    found = Found()
    with Children(library=plan.library) as children:
        try:
            pair = Pair(children, file, 10, plan.calm_lease)
            try:
                while found.rounds < 1 or budget.more(found.rounds):
                    pair.blocked(plan.blocked)
                    found.rounds += 1
            finally:
                found.verdict = judge(pair.history)
                found.doubled = [job for job, claims in pair.history.claims.items() if len(claims) > 1]
        except Hang as hang:
            found.hangs.append(str(hang))
    found.intact = intact(file)
    return found


def _bars(row: Row, verdict: Verdict, found: list[Found]) -> None:
    """Write down the figures, and require what is promised."""
    hangs = [hang for one in found for hang in one.hangs]
    vanished = [job for one in found for job in one.vanished]
    early = [job for one in found for job in one.early]
    stale, calm = sum(one.rounds for one in found[:-1]), found[-1].rounds
    row.notes.append(f"{len(verdict.accepted)} of {verdict.offered:,} stale outcomes accepted")
    row.notes.append(f"{stale} stale processes, {calm} blocked ones of which {row.doubles} jobs were taken")
    row.require(f"no stale outcome is accepted: {verdict.accepted[:3]}", not verdict.accepted)
    row.require(f"no job leaves the table by its stale claim: {vanished[:3]}", not vanished)
    row.require(f"nothing is taken early from a live process: {early[:3]}", not early)
    row.require(f"no current outcome is refused: {verdict.refused[:3]}", not verdict.refused)
    row.require(f"no job completes twice: {verdict.twice[:3]}", not verdict.twice)
    row.require(f"no job of a blocked process is taken: {row.doubles}", row.doubles == 0)
    row.require(f"everything drains: {verdict.lost[:3]}, {hangs}", not verdict.lost and not hangs)
    row.require("the files are whole", row.corrupt == 0)
    row.require("stale workers did come back", verdict.offered > 0)
