"""T1: a process dies at every write and sync call of everything that the library does."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import sqlite3
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .kit import Budget, Ledger, Row, audit, intact, needs
from .traced import LANES, LIMIT, Bench, Hung, copied, counted, files, in_turns, lanes, note, share

__all__ = ["Life", "run"]

CALLS = "pwrite64,fdatasync,fsync,ftruncate,unlink,rename,mkdir,bind,write"
"""All that changes files; `write` is the ledger's, so these points lie between two calls of the library."""

SECONDS, LEAST = 45, 300
SLOWEST_RECOVERY = 5.0


class Life(NamedTuple):
    """What a process does until it is killed, and what it finds: a life that left it, or nothing."""

    function: str
    before: str | None = "made_empty"


LIVES = [
    Life("install", None),
    Life("add"),
    Life("transact"),
    Life("run"),
    Life("retry"),
    Life("effect"),
    Life("retain"),
    Life("checkpoint", "made_full"),
    Life("renew", "made_long"),
    Life("takeover", "made_left"),
]


class Point(NamedTuple):
    """One way to die: a life, and before which call of which kind it ends (0: it does not)."""

    life: Life
    call: str = ""
    n: int = 0

    def __str__(self) -> str:
        return f"{self.life.function}, {self.call} {self.n}"


EXPECTED = {
    "ok": ("succeeded", 1),
    "long": ("succeeded", 1),
    "effect": ("succeeded", 1),
    "raise": ("succeeded", 2),
    "retry": ("succeeded", 2),
    "slow": ("succeeded", 2),
    "snooze": ("succeeded", 1),
    "discard": ("failed", 1),
    "fail": ("failed", 3),
}
"""What becomes of a job, and at which attempt, by its plan: no death may change it."""


@dataclass
class Findings:
    """What was wrong after a trial, or after all of them."""

    lost: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    recovery_ms: float = 0.0


class KillPoints:
    """The row in the making: lanes of processes that take one point after another."""

    def __init__(self, budget: Budget, lives: Sequence[Life], calls: str, folder: Path) -> None:
        self.budget = budget
        self.lives = list(lives)
        self.calls = calls
        self.folder = folder
        self.findings = Findings()
        self.killed: Counter[str] = Counter()
        self.tried = 0
        self.points = 0
        self.last: dict[tuple[Life, str], int] = {}
        self.waiting: deque[Point] = deque()

    async def work(self, library: str | None, limit: float, count: int) -> None:
        """Prepare, look which calls there are, then try the points in a random but fixed order."""
        async with lanes("t01_lives", library, limit, count=count) as benches:
            found = sorted({life.before for life in self.lives if life.before})
            await share(benches, [partial(self._prepare, name=name) for name in found])
            await share(benches, [partial(self._survey, life=life) for life in self.lives])
            points = [
                Point(life, call, n)
                for (life, call), last in sorted(self.last.items())
                for n in range(1, last + 1)
            ]
            random.Random(1).shuffle(points)
            self.waiting.extend(in_turns(points, lambda point: point.call))
            self.points = len(points)
            await share(benches, [self._lane] * len(benches))

    async def _prepare(self, bench: Bench, name: str) -> None:
        """Make what lives find when they begin."""
        folder = self.folder / name
        folder.mkdir()
        pid = await bench.begin(f"t01_lives:{name}", **files(folder))
        if await bench.ended() < 0:
            note(folder, "killed", victim=pid)

    async def _survey(self, bench: Bench, life: Life) -> None:
        """Let a life live, and count the calls it makes."""
        log = self.folder / f"{life.function}.log"
        await self._trial(bench, Point(life), ["-o", str(log), "-e", f"trace={self.calls}"])
        for call, count in counted(log).items():
            self.last[life, call] = count

    async def _lane(self, bench: Bench) -> None:
        while self.waiting and self.budget.more(self.tried):
            self.tried += 1
            point = self.waiting.popleft()
            inject = f"inject={point.call}:signal=KILL:when={point.n}"
            options = ["-o", "/dev/null", "-e", f"trace={point.call}", "-e", inject]
            if not await self._trial(bench, point, options):
                self.tried -= 1
                continue
            self.killed[point.call] += 1
            if point.n == self.last[point.life, point.call]:  # until it is not killed any more
                self.last[point.life, point.call] += 1
                self.waiting.append(point._replace(n=point.n + 1))

    async def _trial(self, bench: Bench, point: Point, strace: list[str]) -> bool:
        """Do one trial; return whether the process was killed."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            if point.life.before:
                copied(self.folder / point.life.before, folder)
            return await self._die_and_recover(bench, point, strace, folder)
        except Hung:
            self.findings.hangs.append(str(point))
            return False
        finally:
            shutil.rmtree(folder)

    async def _die_and_recover(self, bench: Bench, point: Point, strace: list[str], folder: Path) -> bool:
        pid = await bench.begin(f"t01_lives:{point.life.function}", strace=strace, **files(folder))
        code = await bench.ended()
        killed = code == -signal.SIGKILL
        if killed:
            note(folder, "killed", victim=pid)
            self.findings.wrong += [f"{point}: {what}" for what in half_done(folder)]
        elif code:
            self.findings.wrong.append(f"{point}: the life broke ({code}): {bench.errors()}")
        await bench.begin("t01_lives:recover", **files(folder))
        if code := await bench.ended():
            self.findings.wrong.append(f"{point}: recovery broke ({code}): {bench.errors()}")
        judge(folder, str(point), self.findings)
        return killed


# -- the judgement ---------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What a database holds: nothing where the schema was not yet installed."""

    kept: list[tuple[str, str, int, int, dict[str, Any]]]  # id, status, attempt, crashes, task
    left: dict[str, dict[str, Any]]  # id: task
    tables: dict[str, list[str]]  # of the application, if it had come to make them


def read(database: Path) -> Found:
    """Read the records, the jobs that are left, and the application's own tables."""
    connection = sqlite3.connect(database)
    try:
        there = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        tables = {
            name: [row[0] for row in connection.execute(f"SELECT name FROM {name}")]
            for name in ("orders", "effects")
            if name in there
        }
        if "backlite_jobs" not in there:
            return Found([], {}, tables)
        rows = connection.execute("SELECT id, status, attempt, crashes, payload FROM backlite_completed")
        kept = [(*row[:4], json.loads(row[4])) for row in rows]
        rows = connection.execute("SELECT id, payload FROM backlite_jobs")
        left = {row[0]: json.loads(row[1]) for row in rows}
    finally:
        connection.close()
    return Found(kept, left, tables)


def half_done(folder: Path) -> list[str]:
    """Return what a death has left half done; looks at a copy, for another is to find it as it is."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for file in folder.glob("app.db*"):
            if file.is_file() and not file.name.endswith("-shm"):
                shutil.copy(file, name)
        try:
            return contradictions(read(Path(name, "app.db")))
        except sqlite3.Error as error:
            return [f"cannot be read: {error}"]


def contradictions(found: Found) -> list[str]:
    """Return what cannot be true at once, at any moment of any life."""
    kept = {record[0] for record in found.kept}
    wrong = [f"{job_id} is completed and is not" for job_id in found.left if job_id in kept]
    effects = found.tables.get("effects", [])
    for job_id, task in found.left.items():
        if task["plan"] == "effect" and task["name"] in effects:
            wrong.append(f"{job_id} has had its effect and has not run")
    tasks = [*found.left.values(), *(task for *_, task in found.kept)]
    ordered = {task["name"] for task in tasks if task["order"]}
    alone = ordered ^ set(found.tables.get("orders", []))
    return [*wrong, *(f"{name}: not both the order and its job" for name in alone)]


def judge(folder: Path, where: str, findings: Findings) -> None:
    """Compare the ledger with the database, once everything should have drained."""
    database, events = folder / "app.db", Ledger.read(folder / "ledger")
    if not intact(database):
        findings.corrupt.append(where)
        return
    try:
        found = read(database)
    except sqlite3.Error as error:
        findings.wrong.append(f"{where}: cannot be read: {error}")
        return
    completed = {record[0] for record in found.kept}
    completed |= {event["job"] for event in events if event["what"] == "end" and event["bare"]}
    verdict = audit(events, completed - set(found.left))
    doubles = [*verdict.unexplained, *repeated(events)]
    wrong = [*outcomes(found, events), *halves(found, events), *contradictions(found)]
    findings.lost += [f"{where}: {what}" for what in verdict.lost]
    findings.doubles += [f"{where}: {what}" for what in doubles]
    findings.wrong += [f"{where}: {what}" for what in wrong]
    for event in events:
        if event["what"] == "drained":
            findings.recovery_ms = max(findings.recovery_ms, event["ms"])


def repeated(events: list[dict[str, Any]]) -> list[str]:
    """Return executions of one attempt twice in one process; a snooze does not count as one."""
    starts = [event for event in events if event["what"] == "start" and event["plan"] != "snooze"]
    counts = Counter((event["job"], event["pid"], event["attempt"]) for event in starts)
    return [f"attempt {key[2]} of {key[0]} {count} times" for key, count in counts.items() if count > 1]


def outcomes(found: Found, events: list[dict[str, Any]]) -> list[str]:
    """Return records that are not what their plan says, or that count more deaths than there were."""
    wrong = []
    deaths = sum(event["what"] == "killed" for event in events)
    for job_id, status, attempt, crashes, task in found.kept:
        if (status, attempt) != EXPECTED[task["plan"]]:
            wrong.append(f"{job_id}, {task['plan']}: {status} at attempt {attempt}")
        if crashes > deaths:
            wrong.append(f"{job_id}, {task['plan']}: {crashes} crashes, {deaths} deaths")
    return wrong


def halves(found: Found, events: list[dict[str, Any]]) -> list[str]:
    """Return batches and transactions of which a part took effect, or all of it twice."""
    wrong = []
    starts = [event for event in events if event["what"] == "start"]
    batches: dict[tuple[str, int], set[str]] = defaultdict(set)
    for event in starts:
        if event["batch"]:
            batches[event["batch"], event["size"]].add(event["name"])
    for (batch, size), parts in batches.items():
        if len(parts) != size:
            wrong.append(f"batch {batch}: {len(parts)} of {size}")
    names = sorted(task["name"] for *_, task in found.kept)
    effects = sorted(task["name"] for *_, task in found.kept if task["plan"] == "effect")
    follows = [name.removeprefix("follows ") for name in names if name.startswith("follows ")]
    if not effects == follows == sorted(found.tables.get("effects", [])):
        wrong.append(f"completed {effects}, followed by {follows}, effects {found.tables.get('effects')}")
    return wrong


# -- the row ---------------------------------------------------------------------------------------------


def run(budget: Budget) -> Row:
    """Kill a process at each point in turn; what is left is recovered by another, and judged."""
    return kill_points(budget, LIVES)


def kill_points(
    budget: Budget,
    lives: Sequence[Life],
    *,
    calls: str = CALLS,
    library: str | None = None,
    limit: float = LIMIT,
    benches: int = LANES,
) -> Row:
    """Do the row with these lives and calls, with the library in this folder; hangs after this time."""
    needs("strace", "strace")
    with tempfile.TemporaryDirectory() as folder:
        trials = KillPoints(budget, lives, calls, Path(folder))
        asyncio.run(trials.work(library, limit, benches))
    return _report(trials)


def _report(trials: KillPoints) -> Row:
    findings = trials.findings
    row = Row("T1", "process killed at every write and sync call", unit="points")
    row.trials = sum(trials.killed.values())
    row.lost, row.doubles = len(findings.lost), len(findings.doubles)
    row.corrupt, row.hangs = len(findings.corrupt), len(findings.hangs)
    row.recovery_ms = findings.recovery_ms
    for name in ("lost", "doubles", "corrupt", "hangs", "wrong"):
        found = getattr(findings, name)
        row.require(f"0 {name}, found {len(found)}: " + "; ".join(found[:3]), not found)
    row.require(
        f"recovery within {SLOWEST_RECOVERY} s, took {findings.recovery_ms / 1000:.1f} s",
        findings.recovery_ms <= SLOWEST_RECOVERY * 1000,
    )
    least = min(LEAST, trials.budget.least)
    row.require(f"at least {least} points, tried {row.trials}", row.trials >= least)
    calls = ", ".join(f"{count} {call}" for call, count in trials.killed.most_common())
    row.notes.append(f"{row.trials} deaths of {trials.points} points: {calls}")
    return row
