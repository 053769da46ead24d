"""Schedules under kills, in short; and databases and ledgers that the row must not let pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backlite_async._graph import follow_up_id

from .kit import Budget, Row
from .t28_schedules import PLANS, Found, Kept, judge, run

Event = dict[str, Any]
Doctor = Callable[[Found, list[Event]], tuple[Found, list[Event]]]

MADE = 1_000_500
"""When all schedules were made, in milliseconds."""

LAST = 1_002_000
AWAITED = 1002.3


def test_kills_at_random_leave_no_instant_out_and_repeat_none() -> None:
    """Every bar holds in a storm of seconds."""
    row = run(Budget(4.0, least=100))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)
    assert row.trials >= 100


def job(name: str, instant: int) -> str:
    return follow_up_id("schedule", name, MADE, instant)


def instants(name: str) -> list[int]:
    """Return the instants of which there are jobs."""
    plan = PLANS[name]
    first = 1_001_000 if plan.whole else MADE + plan.every
    found = list(range(first, LAST + 1, plan.every))[: plan.most]
    if name == "few":
        found = [MADE + 70 * number for number in range(1, 32)]
    return found[::2] if plan.alone else found


def stored(name: str) -> Kept:
    due = instants(name)
    skipped = 7 if name == "alone" else 0
    last = max(due) if name == "few" else MADE + 1500 // PLANS[name].every * PLANS[name].every
    last = LAST if PLANS[name].whole else last
    return Kept(name, MADE, 0 if PLANS[name].whole else MADE, len(due), skipped, last, None)


def good() -> tuple[Found, list[Event]]:
    """Return a database and a ledger in which all is as it should be."""
    jobs = {name: {job(name, instant): instant for instant in instants(name)} for name in PLANS}
    events: list[Event] = [{"what": "paused", "wall": 1003.0}, {"what": "resuming", "wall": 1004.0}]
    runs = sorted((instant, name) for name in PLANS for instant in instants(name))
    for number, (instant, name) in enumerate(runs):
        fields = {"job": job(name, instant), "fence": number, "pid": 7}
        wall = instant / 1000 + 0.01
        events.append({"what": "start", "schedule": name, "wall": wall, "at": wall, **fields})
        events.append({"what": "end", "at": wall + 0.001, **fields})
    events.append({"what": "awaited", "wall": AWAITED})
    return Found([stored(name) for name in PLANS], jobs), events


def judged(found: Found, events: list[Event]) -> Row:
    row = Row("T28", "a history")
    judge(row, found, events)
    return row


def test_a_good_history_is_good() -> None:
    """Nothing is said against it, and what it holds is counted."""
    row = judged(*good())
    assert row.failures == []
    assert (row.lost, row.doubles) == (0, 0)
    assert row.trials == sum(len(instants(name)) for name in PLANS)


def of(name: str, **changes: Any) -> Doctor:
    """Return what changes what is stored of a schedule."""

    def doctor(found: Found, events: list[Event]) -> tuple[Found, list[Event]]:
        schedules = [replace(one, **changes) if one.name == name else one for one in found.schedules]
        return Found(schedules, found.jobs), events

    return doctor


def without(name: str, place: int = 2) -> Doctor:
    """Return what takes a job away, and counts so."""

    def doctor(found: Found, events: list[Event]) -> tuple[Found, list[Event]]:
        jobs = dict(list(found.jobs[name].items())[:place] + list(found.jobs[name].items())[place + 1 :])
        return of(name, runs=len(jobs))(Found(found.schedules, {**found.jobs, name: jobs}), events)

    return doctor


def beside(name: str, job_id: str, due_at: int) -> Doctor:
    """Return what adds a job, and counts so."""

    def doctor(found: Found, events: list[Event]) -> tuple[Found, list[Event]]:
        jobs = {**found.jobs[name], job_id: due_at}
        return of(name, runs=len(jobs))(Found(found.schedules, {**found.jobs, name: jobs}), events)

    return doctor


def told(change: Callable[[list[Event]], list[Event]]) -> Doctor:
    """Return what changes the ledger."""
    return lambda found, events: (found, change(events))


def first(events: list[Event], what: str, name: str = "beat") -> Event:
    return next(event for event in events if event["what"] == what and event.get("schedule", name) == name)


def gone(found: Found, events: list[Event]) -> tuple[Found, list[Event]]:
    return Found(found.schedules[1:], found.jobs), events


def later(found: Found, events: list[Event]) -> tuple[Found, list[Event]]:
    """Let what is spread by jitter be due later than by that."""
    spread = {job_id: instant + 151 for job_id, instant in found.jobs["spread"].items()}
    return Found(found.schedules, {**found.jobs, "spread": spread}), events


def crowded(events: list[Event]) -> list[Event]:
    """Let the first run of one without overlap start again after the next one has."""
    event = first(events, "start", "alone")
    return [*events, {"what": "killed", "victim": 7, "at": 1001.9}, event | {"at": 1001.95, "fence": 999}]


BAD: dict[str, tuple[str, Doctor]] = {
    "an instant left out": ("1 of 30 instants have no job: [1000650]", without("beat")),
    "the last of a cron": ("1 of 2 instants have no job", without("cron", 1)),
    "a run of no instant": ("1 jobs of no instant", beside("last", "strange", LAST)),
    "between two instants": ("1 jobs of no instant", beside("beat", job("beat", MADE + 75), MADE + 75)),
    "counted twice": ("31 runs were counted, there are 30", of("beat", runs=31)),
    "a run too many": (
        "few: 32 runs, more than 31",
        beside("few", job("few", MADE + 70 * 32), MADE + 70 * 32),
    ),
    "due again": ("is due again", of("beat", next_at=5)),
    "stopped early": ("stopped 3.3 s too early", of("fresh", last_instant=999_000)),
    "not skipped": ("alone: 15 were due", of("alone", skipped=6)),
    "a schedule that is gone": ("schedules are missing: ['beat']", gone),
    "due while paused": (
        "due while paused: [1000530",
        told(lambda events: [{"what": "paused", "wall": 1000.5}, *events]),
    ),
    "never ran": (
        "never ran to their end",
        told(lambda events: [e for e in events if e is not first(events, "end")]),
    ),
    "twice": ("unexplained", told(lambda events: [*events, first(events, "start") | {"at": 1003.0}])),
    "an error": ("errors", told(lambda events: [*events, {"what": "error", "text": "store.failing"}])),
    "late": (
        "p99 of starts",
        told(lambda events: [e | {"wall": e["wall"] + 2} if e["what"] == "start" else e for e in events]),
    ),
    "early": (
        "before they were due",
        told(lambda events: [e | {"wall": 0} if e is first(events, "start") else e for e in events]),
    ),
    "one beside another": ("ran beside the run before", told(crowded)),
    "otherwise than by jitter": (
        "due otherwise",
        lambda found, events: (
            Found(
                found.schedules,
                {**found.jobs, "spread": {id_: at + 151 for id_, at in found.jobs["spread"].items()}},
            ),
            events,
        ),
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_history_is_told(what: str) -> None:
    """Each bar of the row is missed by a history that deserves it, and says so."""
    text, doctor = BAD[what]
    failures = judged(*doctor(*good())).failures
    assert any(text in failure for failure in failures), failures
