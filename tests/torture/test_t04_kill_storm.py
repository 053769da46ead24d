"""The storm of kills, in short; and histories that it must not let pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .kit import Budget, Row
from .t04_kill_storm import DYING, judge, judge_orders, recoveries, run, unexplained

Event = dict[str, Any]


def test_kills_at_random_lose_nothing() -> None:
    """Every bar holds in a storm of seconds."""
    row = run(Budget(3.0, least=10))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)
    assert row.trials >= 10


def start(job: str, fence: int, pid: int, at: float, *, batch: str = "b", size: int = 1) -> Event:
    return {"what": "start", "job": job, "fence": fence, "pid": pid, "at": at, "batch": batch, "size": size}


def end(job: str, fence: int, pid: int, at: float) -> Event:
    return {"what": "end", "job": job, "fence": fence, "pid": pid, "at": at}


def ack(job: str) -> Event:
    return {"what": "ack", "job": job, "pid": 9, "at": 0.0}


def killed(pid: int, at: float) -> Event:
    return {"what": "killed", "victim": pid, "role": "worker", "pid": 1, "at": at}


GOOD = [
    ack("a"),
    start("a", 1, 10, 1.0),
    killed(10, 1.5),
    start("a", 2, 11, 1.7),
    end("a", 2, 11, 1.8),
]


def judged(events: list[Event], completed: list[tuple[str, str]]) -> Row:
    row = Row("T4", "a history")
    judge(row, events, completed)
    return row


def test_a_recovery_is_measured_from_the_kill_to_the_next_start() -> None:
    """A job that ran again in time is neither lost nor a double without reason."""
    row = judged(GOOD, [("a", "succeeded")])
    assert row.failures == []
    assert recoveries(GOOD) == [(1.5, 1.7)]
    assert row.recovery_ms == pytest.approx(200)


def test_who_is_killed_may_go_on_for_a_moment() -> None:
    """A kill is noted just before it is sent, and a busy machine may take its time in between."""
    for late, found in ((0.9 * DYING, 0), (1.1 * DYING, 1)):
        events = [killed(10, 1.0), start("a", 1, 10, 1.0 + late), start("a", 2, 11, 1.5 + late)]
        assert len(unexplained(events)) == found


@pytest.mark.parametrize(
    ("told", "doctor", "completed"),
    [
        ("lost", lambda events: events, []),
        ("unexplained", lambda events: [e for e in events if e["what"] != "killed"], None),
        (
            "unexplained",
            lambda events: [e | {"at": 1.9} if e["what"] == "killed" else e for e in events],
            None,
        ),
        ("fences", lambda events: [e | {"fence": 1} if "fence" in e else e for e in events], None),
        ("jobs failed", lambda events: events, [("a", "failed")]),
        ("without having run to the end", lambda events: events[:-1], None),
        ("errors", lambda events: [*events, {"what": "error", "text": "store.failing"}], None),
        ("in part", lambda events: [e | {"size": 2} if "size" in e else e for e in events], None),
        ("recovery", lambda events: [e | {"at": 9.9} if e.get("fence") == 2 else e for e in events], None),
    ],
)
def test_a_bad_history_is_told(
    told: str, doctor: Callable[[list[Event]], list[Event]], completed: list[tuple[str, str]] | None
) -> None:
    """Each bar of the row is missed by a history that deserves it, and says so."""
    row = judged(doctor(list(GOOD)), [("a", "succeeded")] if completed is None else completed)
    assert any(told in failure for failure in row.failures), row.failures


@pytest.mark.parametrize(
    ("orders", "told"), [({"tx-1"}, None), (set(), "without orders"), ({"tx-1", "tx-2"}, "without jobs")]
)
def test_a_transaction_and_its_jobs_belong_together(orders: set[str], told: str | None) -> None:
    """An order without its jobs, or jobs without their order, is told."""
    row = Row("T4", "a history")
    judge_orders(row, [start("a", 1, 10, 1.0, batch="tx-1"), start("b", 1, 10, 1.0)], orders)
    assert [told in failure for failure in row.failures if told] == [True] * (told is not None)
