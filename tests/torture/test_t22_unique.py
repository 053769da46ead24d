"""T22 in short; and histories that it must not let pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .kit import Budget, Row
from .t22_unique import ROUNDS, Round, judge_one, judge_turns, run

Event = dict[str, Any]


def test_eight_processes_make_one_job() -> None:
    """Whatever way they add it, in whatever order, there is one of each key, and all know its id."""
    row = run(Budget(0.0, least=500), size=400)
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)


def found(key: str, *jobs: str) -> Event:
    return {"what": "found", "key": key, "jobs": list(jobs), "times": 5}


def new(key: str, job: str) -> Event:
    return {"what": "new", "key": key, "job": job}


GOOD = [new("a", "1"), found("a", "1"), new("b", "2"), found("b", "2"), found("a", "1"), found("b", "2")]
THERE = {"a": ["1"], "b": ["2"]}


def test_one_job_of_each_key_passes() -> None:
    """One job, one id, and one process that has made it."""
    row = Row("T22", "a history")
    judge_one(row, GOOD, THERE, Round("key", keys=2))
    assert (row.failures, row.trials, row.lost, row.doubles) == ([], 20, 0, 0)


def test_who_was_killed_need_not_tell_what_was_new() -> None:
    """The one process that has made it may be dead; the job is there all the same."""
    row = Row("T22", "a history")
    judge_one(row, GOOD[1:], THERE, Round("key", keys=2, killed=True))
    assert row.failures == []
    judge_one(row, GOOD[1:], THERE, Round("key", keys=2))
    assert [failure for failure in row.failures if "new for nobody: ['a']" in failure]


@pytest.mark.parametrize(
    ("told", "events", "there"),
    [
        ("twice", GOOD, THERE | {"a": ["1", "3"]}),
        ("lost", GOOD, {"a": ["1"]}),
        ("another id", [*GOOD, found("a", "3")], THERE),
        ("another id", GOOD, THERE | {"a": ["4"]}),
        ("new more than once", [*GOOD, new("a", "1")], THERE),
        ("keys were added", GOOD[:2], THERE),
    ],
)
def test_more_or_less_than_one_is_told(told: str, events: list[Event], there: dict[str, list[str]]) -> None:
    """Two jobs, none, or another id than that of the one that is there."""
    row = Row("T22", "a history")
    judge_one(row, events, there, Round("key", keys=2))
    assert any(told in failure for failure in row.failures), row.failures


def run_of(job: str) -> list[Event]:
    return [{"what": what, "key": "a", "job": job} for what in ("start", "end")]


TURNS = [new("a", "1"), *run_of("1"), *run_of("2"), new("a", "2"), found("a", "1", "2"), found("a", "2")]


@pytest.mark.parametrize(
    ("told", "doctor"),
    [
        ("", lambda events: events),
        ("runs beside 1", lambda events: [e for e in events if (e["what"], e["job"]) != ("end", "1")]),
        ("never run: ['1']", lambda events: [events[0], *events[3:]]),
        ("ran twice", lambda events: [*events[:3], *run_of("1"), *events[3:]]),
        ("ran twice", lambda events: [*events, new("a", "2")]),
        ("new for nobody", lambda events: events[1:]),
        ("new for nobody", lambda events: [*events, *run_of("3")]),
    ],
)
def test_the_next_job_of_a_key_comes_after_the_end_of_the_one_before(
    told: str, doctor: Callable[[list[Event]], list[Event]]
) -> None:
    """One beside another, lost, twice, or from nowhere: all of it is told."""
    row = Row("T22", "a history")
    judge_turns(row, doctor([event | {"job": event.get("job")} for event in TURNS]))
    assert bool(row.failures) is bool(told)
    assert any(told in failure for failure in row.failures) or not told, row.failures


def test_every_way_has_its_round() -> None:
    """No way of adding is left out."""
    assert {kind.way for kind in ROUNDS} == {"key", "payload", "replace", "raise", "id", "both", "tx"}
