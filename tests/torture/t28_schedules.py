"""T28: schedules that several processes watch, killed at random. Each instant runs once, none is left out.

The jobs of a schedule have ids that follow from its name and the instant. So the database tells, once
all is quiet, which instants were run; which there should be is counted here, from the schedule's beginning
to the last instant that it says it has dealt with. Meanwhile somebody pauses and resumes another schedule,
and one that a single process declares is removed and brought back as often as that dies.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from backlite_async._graph import follow_up_id

from .crew import LIMIT, Crew, Late, percentile, until
from .kit import Budget, Ledger, Row, intact
from .pulse import START, STEADY, Beats, Pulse
from .t04_kill_storm import stale, unexplained

__all__ = ["Found", "Kept", "Plan", "judge", "run"]

SECONDS, LEAST = 20.0, 500

PROCESSES = 4

KILLS_PER_SECOND = 6.0

SLOWEST_START = 1.0
"""Seconds after an instant within which 99 of 100 runs start."""

Event = dict[str, Any]


class Plan(NamedTuple):
    """When a schedule is due: every so many milliseconds; `whole`: on whole seconds, whenever it was made.

    `missed`, `most`: its `missed` and `max_runs`; `alone`: without overlap; `jitter` in milliseconds.
    """

    every: int
    missed: str = "all"
    whole: bool = False
    alone: bool = False
    most: int | None = None
    jitter: int = 0


PLANS = {
    "beat": Plan(50),
    "slower": Plan(130),
    "spread": Plan(200, jitter=150),
    "cron": Plan(1000, whole=True),
    "rule": Plan(1000, whole=True),
    "few": Plan(70, most=31),
    "last": Plan(100, "one"),
    "fresh": Plan(100, "none"),
    "alone": Plan(100, alone=True),
    "alone too": Plan(150, "one", alone=True),
    "solo": Plan(60),
    "steered": Plan(30),
}
"""The schedules of the roles."""


@dataclass(frozen=True)
class Kept:
    """What is stored of a schedule."""

    name: str
    created_at: int
    anchor: int
    runs: int
    skipped: int
    last_instant: int | None
    next_at: int | None


@dataclass(frozen=True)
class Found:
    """What a database holds: schedules, and the jobs of each, with the times that they were added for."""

    schedules: Sequence[Kept]
    jobs: Mapping[str, Mapping[str, int]]


def run(budget: Budget) -> Row:
    """Kill for most of the budget's time, let everything come to rest, and judge."""
    row = Row("T28", f"kill -9 at random, {PROCESSES} processes watch schedules", unit="runs", hangs=0)
    with tempfile.TemporaryDirectory(prefix="t28-") as name:
        folder = Path(name)
        files = {"database": str(folder / "app.db"), "ledger": str(folder / "ledger")}
        pulse = Pulse(folder)
        with pulse, Crew("t28_roles", folder / "errors") as crew:
            try:
                watch(crew, files, max(2.0, budget.seconds - 2.0))
            except Late as error:
                row.hangs = 1
                row.failures.append(str(error))
            row.require(f"processes complain: {crew.complaints[-500:]}", not crew.complaints)
        row.corrupt = 0 if intact(files["database"]) else 1
        row.require("the database is whole", row.corrupt == 0)
        if not row.hangs:
            judge(row, read(files["database"]), Ledger.read(files["ledger"]), pulse.beats())
    row.require(f"at least {budget.least} runs", row.trials >= budget.least)
    return row


def watch(crew: Crew, files: Mapping[str, str], seconds: float) -> None:
    """Start watchers and a manager, kill and replace them for some seconds; then let all come to rest."""
    book = Ledger(files["ledger"])
    for role in ("watcher",) * (PROCESSES - 1) + ("soloist", "manager"):
        crew.start(role, **files)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        crew.listen(random.expovariate(KILLS_PER_SECOND))
        chance = random.random()
        victims = list(crew.living) if chance < 0.06 else random.sample(list(crew.living), 1)
        roles = [crew.living[pid] for pid in victims]
        for pid in victims:
            book.note("killed", victim=pid)
        crew.send(victims, signal.SIGKILL)
        crew.ended(victims, LIMIT, "a killed process")
        for role in roles:
            crew.start(role, **files)
    statuses = crew.dismiss("manager")
    watching = set(crew.of("watcher", "soloist"))
    until(lambda: watching <= started(files["ledger"]), LIMIT, "the start of all watchers")
    book.note("awaited", wall=(now := time.time()))
    book.close()
    until(lambda: not behind(files["database"], now), LIMIT, "what was due by then")
    crew.start("closer", **files)
    until(
        lambda: '"what": "closed"' in Path(files["ledger"]).read_text(), LIMIT, "the pause of all schedules"
    )
    until(
        lambda: ask(files["database"], "SELECT count(*) FROM backlite_jobs") == [(0,)], LIMIT, "the last runs"
    )
    statuses += crew.dismiss("watcher", "soloist")
    if statuses:
        raise Late(f"processes ended with {statuses}")


def started(ledger: str) -> set[int]:
    """Return the processes that watch, or did."""
    return {event["pid"] for event in Ledger.read(ledger) if event["what"] == "up"}


def behind(database: str, at: float) -> list[str]:
    """Return the schedules that have not dealt with all that was due by an instant of wall time."""
    rows = ask(database, "SELECT name, next_at FROM backlite_schedules")
    return [
        name
        for name, next_at in rows
        if name != "steered" and PLANS[name].most is None and (next_at is None or next_at <= 1000 * at)
    ]


def ask(database: str, sql: str) -> list[Any]:
    """Return what a query finds."""
    with closing(sqlite3.connect(database, timeout=10.0)) as connection:
        return connection.execute(sql).fetchall()


def read(database: str) -> Found:
    """Read what a database holds."""
    columns = "name, created_at, json_extract(timing, '$.anchor'), runs, skipped, last_instant, next_at"
    schedules = [
        Kept(name, created, anchor or 0, *rest)
        for name, created, anchor, *rest in ask(database, f"SELECT {columns} FROM backlite_schedules")
    ]
    jobs: dict[str, dict[str, int]] = defaultdict(dict)
    for table in ("jobs", "completed"):
        query = f"SELECT id, payload, scheduled_at FROM backlite_{table}"
        for job_id, payload, scheduled_at in ask(database, query):
            jobs[json.loads(payload)["schedule"]][job_id] = scheduled_at
    return Found(schedules, jobs)


# -- judging ---------------------------------------------------------------------------------------


def judge(row: Row, found: Found, events: Sequence[Event], beats: Beats = STEADY) -> None:
    """Fill in what a database says of its schedules, and a ledger of their runs."""
    row.lost = row.doubles = 0
    awaited = next((event["wall"] for event in events if event["what"] == "awaited"), None)
    instants: dict[str, int] = {}
    named = {schedule.name for schedule in found.schedules}
    row.require(f"schedules are missing: {sorted(PLANS.keys() - named)}", named == PLANS.keys())
    for schedule in found.schedules:
        instants |= judge_one(row, schedule, PLANS[schedule.name], found.jobs.get(schedule.name, {}), awaited)
    row.trials = len(instants)
    judge_pauses(row, [instants[job] for job in found.jobs.get("steered", {}) if job in instants], events)
    judge_runs(row, instants, events, beats)
    kills = sum(event["what"] == "killed" for event in events)
    back = sum(event["what"] == "back" for event in events)
    row.notes.append(f"{kills} kills, {len(instants):,} runs of {len(found.schedules)} schedules")
    row.notes.append(f"{back} times one was removed, and brought back")


def judge_one(
    row: Row, schedule: Kept, plan: Plan, jobs: Mapping[str, int], awaited: float | None
) -> dict[str, int]:
    """Judge one schedule; return the instants of its jobs."""
    name = schedule.name
    last = schedule.last_instant or 0
    due = {follow_up_id("schedule", name, schedule.created_at, at): at for at in expected(schedule, plan)}
    instants = {job: due[job] for job in jobs if job in due}
    strange = [job for job in jobs if job not in due]
    missing = sorted(at for job, at in due.items() if job not in jobs)
    if plan.missed == "all" and not plan.alone and name != "steered":
        row.lost = (row.lost or 0) + len(missing)
        row.require(f"{name}: {len(missing)} of {len(due)} instants have no job: {missing[:3]}", not missing)
    row.doubles = (row.doubles or 0) + len(strange)
    row.require(f"{name}: {len(strange)} jobs of no instant: {strange[:3]}", not strange)
    counted = schedule.runs == len(jobs)
    row.require(f"{name}: {schedule.runs} runs were counted, there are {len(jobs)}", counted)
    late = [jobs[job] - at for job, at in instants.items() if not 0 <= jobs[job] - at <= plan.jitter]
    row.require(f"{name}: due otherwise than by jitter: {late[:3]}", not late)
    row.require(f"{name}: is due again", schedule.next_at is None)
    if plan.most is not None:
        row.require(f"{name}: {len(jobs)} runs, more than {plan.most}", len(jobs) <= plan.most)
    if len(jobs) != plan.most and awaited is not None and name != "steered":
        row.require(f"{name}: stopped {awaited - last / 1000:.1f} s too early", awaited - last / 1000 < 3.0)
    if plan.alone and plan.missed == "all":
        row.require(f"{name}: {len(due)} were due", schedule.runs + schedule.skipped == len(due))
    return instants


def expected(schedule: Kept, plan: Plan) -> Iterable[int]:
    """Return the instants that were due up to the last one that was dealt with."""
    if schedule.last_instant is None:
        return ()
    first = schedule.anchor + plan.every
    if plan.whole:
        first = schedule.created_at // plan.every * plan.every + plan.every
    found = range(first, schedule.last_instant + 1, plan.every)
    return found if plan.most is None else found[: plan.most]


def judge_pauses(row: Row, instants: Collection[int], events: Iterable[Event]) -> None:
    """Require that nothing was due between a pause and what ended it."""
    since: float | None = None
    wrong: list[int] = []
    pauses = 0
    for event in events:
        if event["what"] == "paused":
            since, pauses = event["wall"] if since is None else since, pauses + 1
        elif event["what"] == "resuming" and since is not None:
            wrong += [at for at in instants if since * 1000 + 1 < at < event["wall"] * 1000 - 1]
            since = None
    row.require(f"due while paused: {wrong[:3]}", not wrong)
    row.notes.append(f"{pauses} pauses, {len(instants)} runs between them")


def judge_runs(row: Row, instants: Mapping[str, int], events: Sequence[Event], beats: Beats) -> None:
    """Require that each run ended once, in time, and without overlap where none is wanted."""
    starts: dict[str, list[Event]] = defaultdict(list)
    ends: Counter[str] = Counter()
    for event in events:
        if event["what"] == "start":
            starts[event["job"]].append(event)
        elif event["what"] == "end":
            ends[event["job"]] += 1
    never = [job for job in instants if not ends[job]]
    row.lost = (row.lost or 0) + len(never)
    row.require(f"never ran to their end: {never[:3]}", not never)
    doubles = unexplained(events)
    row.doubles = (row.doubles or 0) + len(doubles)
    row.require(f"unexplained executions: {doubles[:3]}", not doubles)
    row.require(f"fences go back: {stale(events)[:3]}", not stale(events))
    beside = overlaps(starts)
    row.require(f"ran beside the run before: {beside[:3]}", not beside)
    errors = [event["text"] for event in events if event["what"] == "error"]
    row.require(f"the library logged {len(errors)} errors: {errors[:2]}", not errors)
    early = [
        job for job, runs in starts.items() if job in instants and runs[0]["wall"] * 1000 < instants[job]
    ]
    row.require(f"ran before they were due: {early[:3]}", not early)
    late = {job: runs[0]["wall"] - instants[job] / 1000 for job, runs in starts.items() if job in instants}
    waits = list(late.values())
    p50, p99 = (percentile(waits, share) for share in (0.5, 0.99))
    row.recovery_ms = max(waits, default=0.0) * 1000
    row.notes.append(f"started p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms after they were due")
    charged = [
        beats.charged(starts[job][0]["at"] - wait, starts[job][0]["at"], START) for job, wait in late.items()
    ]
    p99 = percentile(charged, 0.99)
    row.require(f"p99 of starts {p99:.2f} s late, to be below {SLOWEST_START:g} s", p99 < SLOWEST_START)


def overlaps(starts: Mapping[str, Sequence[Event]]) -> list[str]:
    """Return runs of schedules without overlap that started although a run before them was not over."""
    found = []
    for name in ("alone", "alone too"):
        runs = [events for events in starts.values() if events[0]["schedule"] == name]
        runs.sort(key=lambda events: events[0]["at"])
        found += [later[0]["job"] for earlier, later in pairwise(runs) if earlier[-1]["at"] > later[0]["at"]]
    return found
