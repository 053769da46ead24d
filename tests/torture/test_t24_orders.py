"""T24 in short; and histories that it must not let pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .kit import Budget, Row
from .pulse import STEADY, Beats
from .t24_orders import judge, judge_times, run, still_running

Event = dict[str, Any]


def test_orders_reach_every_process_at_once() -> None:
    """Each scene once: cancelled, paused, resumed, with processes that are stopped or killed."""
    row = run(Budget(0.0, least=30))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)


def start(job: str, fence: int, pid: int, at: float) -> Event:
    return {"what": "start", "job": job, "fence": fence, "pid": pid, "at": at}


GOOD: list[Event] = [
    {"what": "ack", "job": "b", "pid": 1, "at": 0.0},
    start("e", 1, 10, 1.0),
    start("b", 2, 10, 1.0),
    {"what": "ordered", "jobs": ["e"], "pid": 1, "at": 2.0},
    {"what": "killed", "victim": 10, "pid": 1, "at": 3.0},
    start("b", 3, 11, 4.0),
    {"what": "end", "job": "b", "pid": 11, "at": 5.0},
]
DONE = [("e", "Endless", "cancelled"), ("b", "Brief", "succeeded"), ("t", "Threaded", "succeeded")]


@pytest.mark.parametrize(
    ("told", "doctor", "completed"),
    [
        ("", lambda events: events, DONE),
        ("lost", lambda events: events, DONE[:1]),
        ("ended as they should not", lambda events: events, [("e", "Endless", "succeeded"), *DONE[1:]]),
        ("ended as they should not", lambda events: events, [DONE[0], ("b", "Brief", "cancelled")]),
        ("started after", lambda events: [*events, start("e", 4, 11, 6.0)], DONE),
        ("unexplained", lambda events: [e for e in events if e["what"] != "killed"], DONE),
        ("errors", lambda events: [*events, {"what": "error", "text": "store.failing"}], DONE),
    ],
)
def test_a_bad_history_is_told(
    told: str, doctor: Callable[[list[Event]], list[Event]], completed: list[tuple[str, str, str]]
) -> None:
    """Each bar is missed by a history that deserves it; a good one misses none."""
    row = Row("T24", "a history")
    judge(row, doctor(list(GOOD)), completed)
    assert bool(row.failures) is bool(told)
    assert any(told in failure for failure in row.failures) or not told, row.failures


@pytest.mark.parametrize(
    ("seconds", "beats", "told"),
    [
        ([0.01] * 10 + [1.9], STEADY, ""),
        ([0.01] * 9 + [0.11], STEADY, "110 ms as a rule, to be 100"),
        ([0.01] * 10 + [2.1], STEADY, "2100 ms once, to be 2000"),
        ([0.01] * 9 + [0.11, 2.1], Beats([(1.0, 1.2)]), ""),
        ([0.01] * 9 + [0.11, 0.11], Beats([(1.0, 1.001)]), "110 ms as a rule, to be 100"),
    ],
)
def test_an_order_that_is_heeded_late_is_told(seconds: list[float], beats: Beats, told: str) -> None:
    """As a rule, or once; where the machine was not held up itself."""
    row = Row("T24", "a history")
    judge_times(row, {"pause": [(1.0, 1.0 + late) for late in seconds]}, beats)
    assert bool(row.failures) is bool(told)
    assert any(told in failure for failure in row.failures) or not told, row.failures


def test_what_runs_is_known() -> None:
    """Neither what has ended, nor what was killed."""
    assert still_running(GOOD[:4]) == {"e": 10, "b": 10}
    assert still_running(GOOD[:6]) == {"b": 11}
    assert still_running(GOOD) == {}
    assert still_running([*GOOD[:5], start("t", 4, 10, 3.01)]) == {}  # the last breath of who is killed
