"""T21 in short; and histories that it must not let pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .kit import Budget, Row
from .t21_limits import crowds, judge, run, waits

Event = dict[str, Any]


def test_limits_hold_over_processes_that_are_killed() -> None:
    """Never two where one may run, and every job ends."""
    row = run(Budget(0.0, least=300, most=300), every=75)
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)
    kills = int(row.notes[0].split(" kills")[0].split()[-1])
    assert kills >= 2


def start(job: str, fence: int, pid: int, at: float, **groups: int) -> Event:
    return {
        "what": "start",
        "job": job,
        "fence": fence,
        "pid": pid,
        "at": at,
        "groups": groups or {"alone": 1},
    }


def end(job: str, fence: int, pid: int, at: float) -> Event:
    return {"what": "end", "job": job, "fence": fence, "pid": pid, "at": at}


def killed(pid: int, at: float) -> Event:
    return {"what": "killed", "victim": pid, "pid": 1, "at": at}


def refused(job: str, pid: int, *holders: int) -> Event:
    return {"what": "refused", "job": job, "pid": pid, "at": 0.0, "group": "alone", "holders": list(holders)}


GOOD = [
    {"what": "round", "at": 0.0},
    {"what": "ack", "jobs": ["a", "b"], "at": 0.0},
    start("a#1", 1, 10, 1.0),
    killed(10, 1.5),
    start("a#1", 2, 11, 1.7),
    end("a#1", 2, 11, 1.8),
    start("b#1", 3, 12, 1.9),
    end("b#1", 3, 12, 2.0),
    {"what": "round", "at": 9.0},
    start("c#1", 4, 12, 9.0),
]
DONE = [("a", "succeeded"), ("b", "succeeded")]


def judged(events: list[Event], completed: list[tuple[str, str]]) -> Row:
    row = Row("T21", "a history")
    judge(row, events, completed)
    return row


def test_a_good_history_passes() -> None:
    """A run after the death of the one before is neither a crowd nor a double; waits are told apart."""
    row = judged(GOOD, DONE)
    assert row.failures == []
    assert row.trials == 2
    turns, deaths = waits(GOOD, "alone")
    assert turns == [(1.8, 1.9)]
    assert deaths == [(1.5, 1.7)]


def test_who_is_as_good_as_dead_does_not_count() -> None:
    """A kill is noted just before it is sent: what the victim starts until then takes nobody's place."""
    last = start("b#1", 3, 10, 1.6)
    late = [*GOOD[:4], last, *GOOD[4:6], start("b#1", 4, 12, 1.9), end("b#1", 4, 12, 2.0), *GOOD[8:]]
    assert judged(late, DONE).failures == []
    assert waits(late, "alone") == waits(GOOD, "alone")
    again = [*GOOD[:4], {"what": "up", "pid": 10, "at": 1.6}, last, *GOOD[4:]]
    assert any("more ran" in failure for failure in judged(again, DONE).failures)


def test_who_is_refused_by_a_dead_one_is_no_failure() -> None:
    """The files of who was killed may be closed after the lock by which others notice it."""
    assert judged([*GOOD, refused("c#1", 12, 10)], DONE).failures == []


@pytest.mark.parametrize(
    ("told", "doctor", "completed"),
    [
        ("lost", lambda events: events, DONE[:1]),
        ("jobs failed", lambda events: events, [DONE[0], ("b", "failed")]),
        ("all places taken", lambda events: [refused("c#1", 13, 10), *events], None),
        ("all places taken", lambda events: [*events, refused("c#1", 13, 12)], None),
        ("more ran", lambda events: [e for e in events if e["what"] != "killed"], None),
        ("more ran", lambda events: [e for e in events if e.get("at") != 1.8], None),
        ("unexplained", lambda events: [e for e in events if e["what"] != "killed"], None),
        ("errors", lambda events: [*events, {"what": "error", "text": "store.failing"}], None),
        (
            "dead one was free",
            lambda events: [e | {"at": 0.4} if e["what"] == "killed" else e for e in events],
            None,
        ),
        ("was free", lambda events: [e | {"at": 3.0} if e.get("fence") == 3 else e for e in events], None),
    ],
)
def test_a_bad_history_is_told(
    told: str, doctor: Callable[[list[Event]], list[Event]], completed: list[tuple[str, str]] | None
) -> None:
    """Each bar of the row is missed by a history that deserves it, and says so."""
    row = judged(doctor(list(GOOD)), DONE if completed is None else completed)
    assert any(told in failure for failure in row.failures), row.failures


@pytest.mark.parametrize(("size", "crowded"), [(1, 2), (2, 1), (3, 0)])
def test_as_many_as_may_run_are_no_crowd(size: int, crowded: int) -> None:
    """Groups are counted apart, each against its own limit."""
    events = [start(f"{n}#1", n, 10, 1.0, one=size) for n in range(3)]
    events.append(start("x#1", 9, 10, 1.0, other=size))
    assert len(crowds(events)) == crowded
