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

from backlite_async._graph import follow_up_id

from .kit import Budget, Ledger, Row, audit, intact, needs
from .t01_flows import Flow, astray, entangled, flows_in
from .traced import LANES, LIMIT, Bench, Hung, copied, counted, files, in_turns, lanes, note, share

__all__ = ["Life", "run"]

CALLS = "pwrite64,fdatasync,fsync,ftruncate,unlink,rename,mkdir,bind,write"
"""All that changes files; `write` is the ledger's, so these points lie between two calls of the library."""

PLAIN, CONTROL = "tests.torture.programs.t01_lives", "tests.torture.programs.t01_control"
SERVICE = "tests.torture.programs.t01_service"
RECURRING, FLOWS = "tests.torture.programs.t01_recurring", "t01_flows"
"""The modules of lives, as their server has imported them: the last one, which imports the others."""

SECONDS, LEAST = 60, 300
SLOWEST_RECOVERY = 5.0


class Life(NamedTuple):
    """What a process does until it is killed, and what it finds: a life that left it, or nothing."""

    function: str
    before: str | None = "made_empty"
    module: str = PLAIN


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
    Life("upgrade", "made_old", CONTROL),
    Life("turns", module=CONTROL),
    Life("limits", module=CONTROL),
    Life("unique", module=CONTROL),
    Life("unique_within", module=CONTROL),
    Life("cancel", module=CONTROL),
    Life("pause", module=CONTROL),
    Life("takeover", "made_held", CONTROL),
    Life("keep", module=SERVICE),
    Life("steer", module=SERVICE),
    Life("recur", module=RECURRING),
    Life("rearrange", module=RECURRING),
    Life("catch_up", "made_watched", RECURRING),
    Life("weave", module=FLOWS),
    Life("mend", module=FLOWS),
    Life("go_on", "made_woven", FLOWS),
]

LIMITS = {"turns": 1, "held": 1}
"""Queues of which so many jobs of a key run at once."""

IN_ALL = {"sole": 1}
"""Queues of which so many run at once."""

RATES = {"rated": (2, 0.04)}
"""Queues of which so many start in so many seconds."""


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
    "spare": ("failed", 1),
    "skipped": ("cancelled", 0),
    "extend": ("succeeded", 1),
}
"""What becomes of a job, and at which attempt, by its plan: no death may change it."""


ERRORS = {"raise": 1, "fail": 3, "discard": 1}
"""The errors of a job's attempts, beside its crashes, by its plan."""


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
        async with lanes(FLOWS, library, limit, count=count) as benches:
            found = sorted({(life.before, life.module) for life in self.lives if life.before})
            await share(benches, [partial(self._prepare, name=name, module=one) for name, one in found])
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

    async def _prepare(self, bench: Bench, name: str, module: str) -> None:
        """Make what lives find when they begin."""
        folder = self.folder / module / name
        folder.mkdir(parents=True)
        pid = await bench.begin(f"{module}:{name}", **files(folder))
        code = await bench.ended(LIMIT)
        if code < 0:
            note(folder, "killed", victim=pid)
        elif code:
            self.findings.wrong.append(f"{name} broke ({code}): {bench.errors()}")

    async def _survey(self, bench: Bench, life: Life) -> None:
        """Let a life live, and count the calls it makes."""
        log = self.folder / f"{life.module}.{life.function}.log"
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
                copied(self.folder / point.life.module / point.life.before, folder)
            return await self._die_and_recover(bench, point, strace, folder)
        except Hung:
            self.findings.hangs.append(str(point))
            return False
        finally:
            shutil.rmtree(folder)

    async def _die_and_recover(self, bench: Bench, point: Point, strace: list[str], folder: Path) -> bool:
        pid = await bench.begin(f"{point.life.module}:{point.life.function}", strace=strace, **files(folder))
        code = await bench.ended()
        killed = code == -signal.SIGKILL
        if killed:
            note(folder, "killed", victim=pid)
            self.findings.wrong += [f"{point}: {what}" for what in half_done(folder)]
        elif code:
            self.findings.wrong.append(f"{point}: the life broke ({code}): {bench.errors()}")
        await bench.begin(f"{FLOWS}:recover", **files(folder))
        if code := await bench.ended():
            self.findings.wrong.append(f"{point}: recovery broke ({code}): {bench.errors()}")
        judge(folder, str(point), self.findings)
        return killed


# -- the judgement ---------------------------------------------------------------------------------------


class Live(NamedTuple):
    """What the table says of a job that has not ended."""

    id: str
    queue: str
    task: str
    status: str
    key: str | None
    due_at: int | None
    cancelled_at: int | None = None


class Record(NamedTuple):
    """What is kept of a job that says something of itself."""

    id: str
    status: str
    attempt: int
    crashes: int
    task: dict[str, Any]
    result: Any
    errors: int
    lines: set[str]


class Service(NamedTuple):
    """What is kept beside jobs, and counted of them."""

    records: list[Record]
    letters: dict[str, int]  # jobs that have failed, and how many dead letters they have
    left_behind: list[str]  # ids of jobs that are gone, and have left something
    watches: int
    counts: dict[tuple[str, str], int]  # by queue and what


class Scheduled(NamedTuple):
    """What is stored of a schedule. `every`: its interval, None: it is due at instants that were given."""

    name: str
    created_at: int
    at: list[int] | None
    every: int | None
    anchor: int
    max_runs: int | None
    runs: int
    skipped: int
    removed: bool


class Found(NamedTuple):
    """What a database holds: nothing where the schema was not yet installed."""

    kept: list[tuple[str, str, int, int, dict[str, Any]]]  # id, status, attempt, crashes, task
    left: dict[str, dict[str, Any]]  # id: task
    tables: dict[str, list[str]]  # of the application, if it had come to make them
    live: tuple[Live, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()  # unique keys, and the job that was last added with each
    service: Service | None = None
    schedules: tuple[Scheduled, ...] = ()
    flows: tuple[Flow, ...] = ()


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
        own = "WHERE queue <> 'fallen' AND payload IS NOT NULL"  # none: somebody waits for what is not kept
        columns = "id, status, attempt, crashes, payload"
        rows = connection.execute(f"SELECT {columns} FROM backlite_completed {own}")
        kept = [(*row[:4], json.loads(row[4])) for row in rows]
        rows = connection.execute(f"SELECT id, payload FROM backlite_jobs {own}")
        left = {row[0]: json.loads(row[1]) for row in rows}
        if "backlite_unique" not in there:  # an older schema
            return Found(kept, left, tables)
        query = f"SELECT id, queue, task, status, key, due_at, cancelled_at FROM backlite_jobs {own}"
        live = tuple(Live(*row) for row in connection.execute(query))
        keys = tuple(connection.execute("SELECT key, job_id FROM backlite_unique"))
        service = beside(connection) if "backlite_stats" in there else None
        schedules = scheduled(connection) if "backlite_schedules" in there else ()
        flows = flows_in(connection) if "backlite_workflows" in there else ()
    finally:
        connection.close()
    return Found(kept, left, tables, live, keys, service, schedules, flows)


def scheduled(connection: sqlite3.Connection) -> tuple[Scheduled, ...]:
    """Read the schedules."""
    times = ", ".join(f"json_extract(timing, '$.{name}')" for name in ("at", "every", "anchor"))
    query = f"SELECT name, created_at, {times}, max_runs, runs, skipped, removed FROM backlite_schedules"
    return tuple(
        Scheduled._make([name, created_at, at and json.loads(at), every, anchor or 0, *rest, bool(removed)])
        for name, created_at, at, every, anchor, *rest, removed in connection.execute(query)
    )


def beside(connection: sqlite3.Connection) -> Service:
    """Read what is kept beside jobs, and what was counted."""

    def rows(query: str, *values: object) -> list[Any]:
        return connection.execute(query, values).fetchall()

    columns = "id, status, attempt, crashes, payload, result"
    records = [
        Record(
            id=row[0],
            status=row[1],
            attempt=row[2],
            crashes=row[3],
            task=json.loads(row[4]),
            result=None if row[5] is None else json.loads(row[5]),
            errors=rows("SELECT count(*) FROM backlite_errors WHERE job_id = ?", row[0])[0][0],
            lines={line for (line,) in rows("SELECT text FROM backlite_lines WHERE job_id = ?", row[0])},
        )
        for row in rows(f"SELECT {columns} FROM backlite_completed WHERE queue = 'noted'")
    ]
    letters = [
        json.loads(payload)["job_id"]
        for table in ("backlite_jobs", "backlite_completed")
        for (payload,) in rows(f"SELECT payload FROM {table} WHERE queue = 'fallen'")
    ]
    there = "SELECT id FROM backlite_jobs UNION ALL SELECT id FROM backlite_completed"
    left_behind = [
        job_id
        for table in ("backlite_errors", "backlite_lines", "backlite_tags")
        for (job_id,) in rows(f"SELECT DISTINCT job_id FROM {table} WHERE job_id NOT IN ({there})")
    ]
    counts = rows("SELECT queue, what, sum(number) FROM backlite_stats GROUP BY queue, what")
    watches = rows("SELECT count(*) FROM backlite_watches")[0][0]
    return Service(records, dict(Counter(letters)), left_behind, watches, {row[:2]: row[2] for row in counts})


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
    wrong += [f"{name}: not both the order and its job" for name in alone]
    return [
        *wrong,
        *stranded(found),
        *twins(found),
        *torn(found.service),
        *miscounted_runs(found),
        *entangled(found.flows),
    ]


def runs_of(found: Found, name: str) -> list[str]:
    """Return the ids of the jobs of a schedule."""
    kept = [job_id for job_id, *_, task in found.kept if task["name"] == f"run {name}"]
    return kept + [job_id for job_id, task in found.left.items() if task["name"] == f"run {name}"]


def miscounted_runs(found: Found) -> list[str]:
    """Return schedules that have counted more or fewer runs than there are; one is run beside that."""
    return [
        f"{schedule.name} has counted {schedule.runs} runs, there are {count}"
        for schedule in found.schedules
        for count in [len(runs_of(found, schedule.name))]
        if count != schedule.runs and not (schedule.name == "steered" and count == schedule.runs + 1)
    ]


def mistimed(found: Found, events: list[dict[str, Any]]) -> list[str]:
    """Return schedules that are gone, instants without a run, and runs of no instant."""
    told = {(event["what"], event.get("schedule")) for event in events}
    there = {schedule.name for schedule in found.schedules}
    wrong = [
        f"{name} was made, and is not there"
        for what, name in told
        if what == "scheduled" and name not in there and ("unscheduling", name) not in told
    ]
    wrong += [
        f"{name} was deleted, and is there" for what, name in told if what == "unscheduled" and name in there
    ]
    for schedule in found.schedules:
        if schedule.name == "steered" or schedule.removed:
            continue
        due = schedule.at or [
            schedule.anchor + (schedule.every or 0) * (n + 1) for n in range(schedule.max_runs or 0)
        ]
        due = [at for at in due if at > schedule.created_at]
        ids = {follow_up_id("schedule", schedule.name, schedule.created_at, at) for at in due}
        runs = set(runs_of(found, schedule.name))
        paused = ("unscheduling", schedule.name) in told or schedule.name == "deleted"
        if runs - ids:
            wrong.append(f"{schedule.name} has runs of no instant: {runs - ids}")
        if ids - runs and not paused:
            wrong.append(f"{schedule.name} has no run for {len(ids - runs)} instants of {len(ids)}")
    return wrong


def torn(service: Service | None) -> list[str]:
    """Return what is beside no job, and what failed jobs lack, or have twice."""
    if service is None:
        return []
    wrong = [f"{job_id} is gone, and has left something behind" for job_id in service.left_behind]
    wrong += [f"{count} dead letters of {job}" for job, count in service.letters.items() if count > 1]
    for record in service.records:
        failed = record.status == "failed" or record.task["plan"] == "spare"
        if failed and record.id not in service.letters:
            wrong.append(f"{record.id} has failed without a dead letter")
        if record.status == "succeeded" and record.result != {"name": record.task["name"]}:
            wrong.append(f"{record.id} has the result {record.result}")
        missing = {f"attempt {number + 1}" for number in range(record.attempt)} - record.lines
        if missing:
            wrong.append(f"{record.id} lacks what it has said: {missing}")
        errors = ERRORS.get(record.task["plan"], 0) + record.crashes
        if record.errors != errors and record.task["plan"] != "spare":
            wrong.append(f"{record.id} has {record.errors} errors, not {errors}")
    return wrong


def miscounted(service: Service | None, events: list[dict[str, Any]]) -> list[str]:
    """Return what the statistics tell otherwise than the jobs that are kept for ever, and who still waits."""
    if service is None:
        return []
    wrong = [f"{service.watches} waits are left"] if service.watches else []
    deleted = any(event["what"] == "deleting" for event in events)
    for status in ("succeeded", "failed"):
        kept = sum(record.status == status for record in service.records)
        again = [record for record in service.records if record.task["plan"] == "spare"]
        kept += status == "failed" and any(record.status == "succeeded" for record in again)
        counted = service.counts.get(("noted", status), 0)
        if counted != kept and not (deleted and counted == kept + 1):
            wrong.append(f"{counted} jobs were counted as {status}, {kept} have")
    return wrong


def stranded(found: Found) -> list[str]:
    """Return jobs that wait for their turn though nobody has it, and what asks for the end of no run."""
    wrong = []
    running = Counter((job.queue, job.key) for job in found.live if job.status == "running")
    pending = [job for job in found.live if job.status == "pending"]
    let_in = Counter((job.queue, job.key, job.task) for job in pending if job.due_at is not None)
    for job in pending:
        if job.cancelled_at is not None:
            wrong.append(f"{job.id} is cancelled and pending")
        turns = running[job.queue, job.key] + let_in[job.queue, job.key, job.task]
        if job.due_at is None and turns < LIMITS.get(job.queue, 0):
            wrong.append(f"{job.id} waits for a turn of {job.queue} {job.key!r} that nobody has")
    for place, limit in LIMITS.items():
        over = [key for (queue, key), count in running.items() if queue == place and key and count > limit]
        wrong += [f"of {place} {key!r} run more than {limit}" for key in over]
    return wrong


def twins(found: Found) -> list[str]:
    """Return unique keys with more than one live job, and those that are remembered for another."""
    live = Counter(task.get("unique") for task in found.left.values())
    wrong = [f"{count} live jobs of the unique key {key}" for key, count in live.items() if key and count > 1]
    last = dict(found.keys)
    for job_id, task in found.left.items():
        key = task.get("unique")
        if key and job_id not in ("own", "kept") and last.get(key) != job_id:
            wrong.append(f"the unique key {key} is that of {last.get(key)}, not of {job_id}")
    return wrong


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
    completed |= {event["job"] for event in events if event["what"] == "deleting"}
    verdict = audit(events, completed - set(found.left))
    doubles = [*verdict.unexplained, *repeated(events)]
    wrong = [*outcomes(found, events), *halves(found, events), *contradictions(found)]
    wrong += [*disobeyed(events), *forgotten(events), *crowded(events), *miscounted(found.service, events)]
    wrong += [*mistimed(found, events), *astray(found.flows, events)]
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
    asked = {event["job"] for event in events if event["what"] == "cancelling"}
    answered = {event["job"] for event in events if event["what"] == "cancelled"}
    for job_id, status, attempt, crashes, task in found.kept:
        if job_id in answered or (job_id in asked and status == "cancelled"):
            if status != "cancelled":
                wrong.append(f"{job_id} was cancelled and has {status}")
        elif task["plan"] == "spare" and (status, attempt) == ("succeeded", 2):
            continue  # somebody has retried it
        elif task["plan"] == "perhaps" and (status, attempt) in (("succeeded", 1), ("cancelled", 0)):
            continue  # somebody has retried what it comes after, or nobody has
        elif (status, attempt) != EXPECTED[task["plan"]]:
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


def disobeyed(events: list[dict[str, Any]]) -> list[str]:
    """Return what has started after its end was promised, while its queue was paused, or as it was before."""
    wrong = []
    cancelled: set[str] = set()
    paused: set[str] = set()
    versions: dict[str, int] = {}
    for event in events:
        what = event["what"]
        if what in ("cancelled", "deleted"):
            cancelled.add(event["job"])
        elif what == "paused":
            paused.add(event["queue"])
        elif what == "resuming":
            paused.discard(event["queue"])
        elif what == "replaced":
            versions[event["job"]] = event["version"]
        elif what == "start":
            if event["job"] in cancelled:
                wrong.append(f"{event['job']} was cancelled and has run")
            if event["queue"] in paused:
                wrong.append(f"{event['job']} has run though {event['queue']} was paused")
            if event["version"] < versions.get(event["job"], 0):
                wrong.append(f"{event['job']} has run as it was before it was replaced")
    return wrong


def forgotten(events: list[dict[str, Any]]) -> list[str]:
    """Return queues that the next process has found paused or not, unlike what had been promised."""
    wrong = []
    states: dict[str, str] = {}
    for event in events:
        if event["what"] in ("pausing", "paused", "resuming", "resumed"):
            states[event["queue"]] = event["what"]
        elif event["what"] == "found":
            wrong += [
                f"{queue} was {state}, then found paused: {queue in event['paused']}"
                for queue, state in states.items()
                if state == ("resumed" if queue in event["paused"] else "paused")
            ]
            wrong += [f"{queue} was never paused" for queue in event["paused"] if queue not in states]
    return wrong


def crowded(events: list[dict[str, Any]]) -> list[str]:
    """Return executions beside others that the limits of their queue do not permit."""
    wrong = []
    running: dict[str, dict[str, Any]] = {}
    started: dict[str, list[float]] = defaultdict(list)
    for event in events:
        what = event["what"]
        if what in ("end", "cause"):
            running.pop(event["job"], None)
        elif what == "killed":
            running = {job: other for job, other in running.items() if other["pid"] != event["victim"]}
        elif what == "start":
            queue, key = event["queue"], event["key"]
            beside = [other for other in running.values() if other["queue"] == queue]
            if len(beside) >= IN_ALL.get(queue, len(beside) + 1):
                wrong.append(f"{event['job']} ran beside {len(beside)} of {queue}")
            same = [other for other in beside if key and other["key"] == key]
            if len(same) >= LIMITS.get(queue, len(same) + 1):
                wrong.append(f"{event['job']} ran beside {len(same)} of {queue} {key!r}")
            if event["plan"] != "effect":  # whose job ends with its transaction, before its handler does
                running[event["job"]] = event
            started[queue].append(event["at"] - event.get("late", 0.0))
    for queue, (count, per) in RATES.items():
        times = sorted(started[queue])
        wrong += [
            f"{count + 1} of {queue} have started in {later - first:.4f} s"
            for first, later in zip(times, times[count:], strict=False)
            if later - first < per
        ]
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
