"""T5: a write or a sync fails, once or from then on, with an I/O error or a full disk."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .kit import Budget, Ledger, Row, audit, intact, needs
from .t01_kill_points import crowded, disobeyed, forgotten
from .t05_flows import woven
from .traced import LANES, Bench, Hung, copied, counted, files, in_turns, lanes, note, share

__all__ = ["FLOWS", "JOBS", "Syncs", "io_errors", "run"]

WRITES, SYNCS = ("pwrite64", "ftruncate", "rename", "unlink"), ("fdatasync", "fsync")
CALLS = ",".join((*WRITES, *SYNCS))
JOBS, FLOWS = "tests.torture.programs.t05_life", "t05_flows"
LIVES = (f"{JOBS}:live", f"{FLOWS}:live")
"""Jobs alone, and workflows and schedules: a module, which also makes what lives find, and a life of it."""

LIMIT = 60.0
"""Seconds after which a process that has not said anything hangs."""
SECONDS, LEAST = 25, 100

STOP_GRACE = 8.0
"""Seconds that a stop may take beyond its limit: to cancel handlers, and to write what it can."""


class Fault(NamedTuple):
    """Which call of which life fails, with which error, and how that ends.

    `ends`: "once": the next call succeeds. "healed": all later ones fail too, until the fault is gone.
    "killed": the process dies before it is. "stopped": it stops in good order before it is.
    """

    life: str
    call: str
    n: int
    error: str
    ends: str

    def __str__(self) -> str:
        return f"{self.life.rpartition('.')[2]}: {self.error} at {self.call} {self.n}, {self.ends}"

    def options(self, log: Path) -> list[str]:
        """Return the options that make strace inject it, and log all writes and syncs with their time."""
        when = f"{self.n}" if self.ends == "once" else f"{self.n}+"
        inject = f"inject={self.call}:error={self.error}:when={when}"
        return ["-ttt", "-o", str(log), "-e", f"trace={CALLS}", "-e", inject]


@dataclass
class Findings:
    """What was wrong after a trial, or after all of them."""

    lost: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    acknowledgements: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refused: int = 0
    slowest: tuple[float, str] = (0.0, "")


@dataclass
class Calls:
    """How often a life without a fault makes each call: until it has tried everything, and in all."""

    before: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)


class Faults:
    """The row in the making: lanes of processes that take one fault after another."""

    def __init__(self, budget: Budget, lives: Sequence[str], folder: Path) -> None:
        self.budget = budget
        self.folder = folder
        self.findings = Findings()
        self.done: Counter[str] = Counter()
        self.tried = self.faults = 0
        self.waiting: deque[Fault] = deque()
        self.calls = {life: Calls() for life in lives}

    async def work(self, library: str | None, limit: float, count: int) -> None:
        """Look which calls there are, then let each fail, in a random but fixed order."""
        async with lanes(FLOWS, library, limit, count=count) as benches:  # which has the other module, too
            await share(benches, [partial(self._prepare, life=life) for life in self.calls])
            faults = [fault for life in self.calls for fault in self._all_faults(life)]
            random.Random(1).shuffle(faults)
            self.waiting.extend(in_turns(faults, lambda fault: (fault.life, fault.call)))
            self.faults = len(faults)
            await share(benches, [self._lane] * len(benches))

    async def _prepare(self, bench: Bench, life: str) -> None:
        """Make what a life finds, a dead process's jobs, and count the calls of one without a fault."""
        own, calls = self.folder / life, self.calls[life]
        left, first, log = own / "left", own / "first", own / "log"
        left.mkdir(parents=True)
        pid = await bench.begin(_beside(life, "made_left"), **files(left))
        await bench.ended(LIMIT)
        note(left, "killed", victim=pid)
        copied(left, first)
        await bench.begin(life, strace=["-o", str(log), "-e", f"trace={CALLS}"], **files(first))
        try:
            await bench.said()
            calls.before = counted(log)
            bench.tell("go")
            await bench.ended()
        except Hung:
            self.findings.hangs.append(f"{life} without a fault")
        calls.last = counted(log)

    def _all_faults(self, life: str) -> Iterable[Fault]:
        """Return every fault: each call fails in each way, those after everything was tried only once."""
        calls = self.calls[life]
        for call, last in calls.last.items():
            for n in range(1, last + 1):
                for error in ("EIO", "ENOSPC"):
                    yield Fault(life, call, n, error, "once")
                    if n <= calls.before.get(call, 0):
                        yield Fault(life, call, n, error, "healed")
                        yield Fault(life, call, n, error, "killed" if n % 8 else "stopped")

    async def _lane(self, bench: Bench) -> None:
        while self.waiting and self.budget.more(self.tried):
            self.tried += 1
            fault = self.waiting.popleft()
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            copied(self.folder / fault.life / "left", folder)
            try:
                await self._trial(bench, fault, folder)
            except Hung:
                self.findings.hangs.append(str(fault))
            finally:
                shutil.rmtree(folder)

    async def _trial(self, bench: Bench, fault: Fault, folder: Path) -> None:
        """Let a process live with the fault, and then without."""
        log, recover = folder / "log", _beside(fault.life, "recover")
        pid = await bench.begin(fault.life, strace=fault.options(log), **files(folder))
        code = 1
        if "end" not in await bench.said():  # it says that it has tried everything
            if fault.ends == "killed":
                await bench.kill()
                note(folder, "killed", victim=pid)
                await bench.begin(recover, **files(folder))
            elif fault.ends == "stopped":
                bench.tell("stop")
                if code := await bench.ended():
                    self.findings.wrong.append(f"{fault}: stop broke ({code}): {bench.errors()}")
                await bench.begin(recover, **files(folder))
            else:
                if fault.n <= self.calls[fault.life].before.get(fault.call, 0):  # else it is to come yet
                    note(folder, "lifting")
                    await bench.release()
                bench.tell("go")
            code = await bench.ended()
        if code:
            self.findings.wrong.append(f"{fault}: broke ({code}): {bench.errors()}")
        if "INJECTED" in log.read_text():
            self.done[f"{fault.error} {fault.ends}"] += 1
        judge(folder, pid, str(fault), self.findings)


def _beside(life: str, other: str) -> str:
    """Return another life of the same module."""
    return f"{life.partition(':')[0]}:{other}"


# -- the judgement ---------------------------------------------------------------------------------------


class Syncs:
    """The syncs of which a log of strace tells: when they began, and whether they succeeded."""

    def __init__(self, log: Path) -> None:
        begun: dict[str, float] = {}
        self._good: list[float] = []
        for line in log.read_text().splitlines():
            thread, at, rest = line.split(None, 2)
            if rest.startswith(tuple(f"{call}(" for call in SYNCS)):
                begun[thread] = float(at)
            elif not any(rest.startswith(f"<... {call} resumed>") for call in SYNCS):
                continue
            if rest.endswith("= 0"):
                self._good.append(begun[thread])

    def within(self, after: float, before: float) -> bool:
        """Return whether one that succeeded began between two instants."""
        return any(after <= at <= before for at in self._good)


def judge(folder: Path, pid: int, where: str, findings: Findings) -> None:
    """Compare the ledger with the database, and what this process was told with the syncs that there were."""
    events = Ledger.read(folder / "ledger")
    if not intact(folder / "app.db"):
        findings.corrupt.append(where)
        return
    connection = sqlite3.connect(folder / "app.db")
    kept = dict(connection.execute("SELECT id, status FROM backlite_completed"))
    query = "SELECT id FROM backlite_completed WHERE task IN ('Effect', 'Charge') AND status = 'succeeded'"
    done = {row[0] for row in connection.execute(query)}
    left = {row[0] for row in connection.execute("SELECT id FROM backlite_jobs")}
    effects = Counter(row[0] for row in connection.execute("SELECT job FROM effects"))
    tangled = woven(connection, events)
    connection.close()
    brief = {event["job"] for event in events if event["what"] == "end" and event.get("bare")}
    verdict = audit([*events, *given_up(events)], (kept.keys() | brief) - left)
    unsynced = unfounded(events, pid, Syncs(folder / "log"))
    findings.lost += [f"{where}: {what}" for what in verdict.lost]
    findings.doubles += [f"{where}: {what}" for what in [*verdict.unexplained, *after_told(events)]]
    findings.acknowledgements += [f"{where}: {what}" for what in unsynced]
    findings.wrong += [f"{where}: {what}" for what in [*surprises(events), *_effects(done, effects)]]
    controlled = [*disobeyed(events), *forgotten(events), *crowded(events), *unheeded(events, kept), *tangled]
    findings.wrong += [f"{where}: {what}" for what in controlled]
    findings.refused += sum(event["what"] == "refused" for event in events)
    times = {event["what"]: event["at"] for event in events}
    if "drained" in times:
        took = (times["drained"] - times["free"]) * 1000
        findings.slowest = max(findings.slowest, (took, where))


def unfounded(events: Iterable[dict[str, Any]], pid: int, syncs: Syncs) -> list[str]:
    """Return what a process took for written to disk without a good sync since it had asked for that.

    Only as long as there is a log of its syncs: until the fault is lifted.
    """
    wrong = []
    asked: dict[int, float] = {}
    ended: dict[str, float] = {}
    for event in events:
        what = event["what"]
        if what == "lifting":
            break
        if event["pid"] != pid:
            continue
        if what == "try":
            asked[event["number"]] = event["wall"]
        elif what in ("end", "cause"):
            ended[event["job"]] = event["wall"]
        elif what == "ack" and not syncs.within(asked[event["number"]], event["wall"]):
            wrong.append(f"{event['job']} acknowledged")
        elif what == "did" and not syncs.within(asked[event["number"]], event["wall"]):
            wrong.append(f"said to be {event['order']}")
        elif what == "told" and not syncs.within(ended[event["job"]], event["wall"]):
            wrong.append(f"{event['job']} said to be complete")
    return wrong


def unheeded(events: Iterable[dict[str, Any]], kept: Mapping[str, str]) -> list[str]:
    """Return jobs that were cancelled and have ended otherwise, and a job that there may be once, twice."""
    cancelled = {event["job"] for event in events if event["what"] == "cancelled"}
    wrong = [f"{job} was cancelled and has {kept[job]}" for job in cancelled if kept[job] != "cancelled"]
    once = {event["job"] for event in events if event["what"] == "start" and event["queue"] == "paused"}
    return wrong + [f"unique, and {len(once)} jobs"] * (len(once) > 1)


def given_up(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a cause for each job whose outcome was not written when `stop()` said so."""
    causes = []
    unwritten: set[str] = set()
    for event in events:
        if event["what"] == "end":
            unwritten.add(event["job"])
        elif event["what"] == "told":
            unwritten.discard(event["job"])
        elif event["what"] == "killed":
            unwritten.clear()
        elif event["what"] == "stopped" and event["clean"] is False:
            causes += [{"what": "cause", "job": job, "why": "given up"} for job in unwritten]
    return causes


def after_told(events: Iterable[dict[str, Any]]) -> list[str]:
    """Return executions of jobs that had been said to be complete."""
    told = set()
    again = []
    for event in events:
        if event["what"] == "told":
            told.add(event["job"])
        elif event["what"] == "start" and event["job"] in told:
            again.append(f"{event['job']} ran again after it was complete")
    return again


def surprises(events: Iterable[dict[str, Any]]) -> list[str]:
    """Return what the library should not have had to say, and stops that took too long or were untrue."""
    wrong = []
    lifted = False
    unwritten: set[str] = set()
    for event in events:
        what = event["what"]
        if what == "surprise":
            wrong.append(event["line"])
        elif what == "start":
            unwritten.add(event["job"])
        elif what in ("told", "told again"):
            unwritten.discard(event["job"])
        elif what == "killed":
            unwritten.clear()
        elif what == "free":
            lifted = True
        elif what == "stopped":
            if event["clean"] and unwritten:
                wrong.append(f"stop() said that all was written, {len(unwritten)} outcomes were not")
            elif lifted and not event["clean"]:
                wrong.append("stop() was not clean, and there was no fault any more")
            if event["over"] > STOP_GRACE:
                wrong.append(f"stop() took {event['over']:.1f} s more than its limit")
    return wrong


def _effects(done: set[str], effects: Counter[str]) -> list[str]:
    """Return jobs that have not succeeded once with their effect."""
    wrong = [job for job in done | set(effects) if effects[job] != (job in done)]
    return [f"{job}: its effect is there {effects[job]} times" for job in wrong]


# -- the row ---------------------------------------------------------------------------------------------


def run(budget: Budget) -> Row:
    """Let each write and sync fail in turn; when the fault is gone, everything must drain."""
    return io_errors(budget)


def io_errors(
    budget: Budget,
    *,
    lives: Sequence[str] = LIVES,
    library: str | None = None,
    limit: float = LIMIT,
    benches: int = LANES,
) -> Row:
    """Do the row with these lives, with the library in this folder; hangs after this time."""
    needs("strace", "strace")
    with tempfile.TemporaryDirectory() as folder:
        trials = Faults(budget, lives, Path(folder))
        asyncio.run(trials.work(library, limit, benches))
    return _report(trials)


def _report(trials: Faults) -> Row:
    findings = trials.findings
    row = Row("T5", "EIO and ENOSPC at every write and sync, once and for good", unit="faults")
    row.trials = sum(trials.done.values())
    row.lost, row.doubles = len(findings.lost), len(findings.doubles)
    row.corrupt, row.hangs = len(findings.corrupt), len(findings.hangs)
    row.recovery_ms = findings.slowest[0]
    for name in ("lost", "doubles", "corrupt", "hangs", "acknowledgements", "wrong"):
        found = getattr(findings, name)
        row.require(f"0 {name}, found {len(found)}: " + "; ".join(found[:3]), not found)
    least = min(LEAST, trials.budget.least)
    row.require(f"at least {least} faults, tried {trials.tried}", trials.tried >= least)
    row.require("saves refused: the faults are felt", findings.refused > 0 or row.trials < 10)
    row.notes.append(f"wrong acknowledgements {len(findings.acknowledgements)}")
    row.notes.append(f"refused calls {findings.refused}, slowest to drain: {findings.slowest[1]}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(trials.done.items()))
    row.notes.append(f"{row.trials} of {trials.faults}: {kinds}")
    return row
