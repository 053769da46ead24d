"""Eight processes on one file, in short; and histories that the row must not let pass."""

from __future__ import annotations

from typing import Any

import pytest

from .kit import Budget, Row
from .t13_eight_processes import ENOUGH_IN_A_SECOND, PROCESSES, judge, run, shares_by_second

Event = dict[str, Any]


def test_eight_processes_share_one_file() -> None:
    """Nobody hears of a lock, nobody starves, and every job runs once."""
    row = run(Budget(4.0, least=100))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)


def share(added: int, ran: int) -> Event:
    return {"what": "share", "at": 0.0, "added": added, "ran": ran, "waits": [1000, 2000]}


GOOD: list[Event] = [
    {"what": "ack", "at": 0.0, "job": "a", "pid": 1},
    {"what": "start", "at": 0.0, "job": "a", "fence": 1, "pid": 2},
    *(share(30, 30) for _ in range(PROCESSES - 1)),
    share(10, 10),
]


def judged(events: list[Event], completed: list[tuple[str, str]]) -> Row:
    row = Row("T13", "a history")
    judge(row, events, completed)
    return row


def test_a_third_of_the_largest_share_is_enough() -> None:
    """A good history has no failure."""
    row = judged(GOOD, [("a", "succeeded")])
    assert row.failures == []
    assert "save() p50 2.0, p99 2.0, max 2.0 ms" in row.notes


@pytest.mark.parametrize(
    ("told", "events", "completed"),
    [
        ("lost", GOOD, []),
        ("lost", GOOD, [("a", "failed")]),
        ("more than once", [*GOOD, {"what": "start", "at": 0.0, "job": "a", "fence": 2, "pid": 3}], None),
        ("added: smallest/largest", [*GOOD[:-1], share(9, 10)], None),
        ("ran: smallest/largest", [*GOOD[:-1], share(10, 9)], None),
        ("told their share", GOOD[:-1], None),
        ("surfaced", [*GOOD, {"what": "surfaced", "error": "DatabaseBusy: ..."}], None),
        ("logged", [*GOOD, {"what": "error", "text": "store.failing"}], None),
    ],
)
def test_a_bad_history_is_told(
    told: str, events: list[Event], completed: list[tuple[str, str]] | None
) -> None:
    """Each bar of the row is missed by a history that deserves it, and says so."""
    row = judged(events, [("a", "succeeded")] if completed is None else completed)
    assert any(told in failure for failure in row.failures), row.failures


@pytest.mark.parametrize("fair", [True, False])
def test_who_starves_for_seconds_is_told(fair: bool) -> None:
    """Shares that are even in the end, but not in most seconds, are not enough."""
    events = [event | {"at": 10.5} for event in GOOD if event["what"] == "share"]
    events += [{"what": "up", "pid": pid, "at": 4.0} for pid in (1, 2)]
    for second in range(6):
        for number in range(ENOUGH_IN_A_SECOND):
            pid = 1 + (number % 2 if fair else second % 2)
            events.append({"what": "ack", "job": f"{second}-{number}", "pid": pid, "at": 4.5 + second})
    row = judged(events, [(event["job"], "succeeded") for event in events if event["what"] == "ack"])
    assert shares_by_second(events, "ack") == [1.0 if fair else 0.0] * 6
    assert shares_by_second(events, "ack", least=ENOUGH_IN_A_SECOND + 1) == []
    assert (row.failures == []) is fair
    assert all("median second" in failure for failure in row.failures)
