"""T14 in short: one round of programs on small disks; and the judge of their ledgers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from . import t14_disk_full
from .kit import Budget, Missing, Row


def test_a_full_disk_delays_and_loses_nothing() -> None:
    """Outcomes wait, adds are refused, nothing new is claimed, and all drains once there is room."""
    try:
        row = t14_disk_full.run(Budget(0.0))
    except Missing as missing:
        pytest.skip(str(missing))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)


def line(what: str, at: float, **fields: Any) -> dict[str, Any]:
    start = {"queue": "quick", "key": "", "version": 0, "plan": ""} if what == "start" else {}
    return {"what": what, "pid": 1, "at": at, **start, **fields}


GOOD = [
    line("ack", 1, job="a"),
    line("start", 2, job="a", fence=1),
    line("log", 3, event="store.failing", doing="write outcomes", error="full"),
    line("noticed", 3.1, fence=1),
    line("freed", 4),
    line("written", 4.05),
    line("log", 4.1, event="store.recovered", doing="write outcomes", error=None),
    line("drained", 4.2, ms=200),
    line("final", 5, job="a", status="succeeded"),
    line("intact", 6, rows=[["ok"]]),
]


def judged(events: list[dict[str, Any]]) -> Row:
    row = Row("T14", "")
    t14_disk_full.judge(row, events, defaultdict(float))
    return row


def test_a_good_ledger_passes() -> None:
    """Nothing is found where nothing is wrong."""
    row = judged(GOOD)
    assert (row.failures, row.lost, row.doubles, row.corrupt, row.recovery_ms) == ([], 0, 0, 0, 200)


@pytest.mark.parametrize(
    ("place", "event", "found"),
    [
        (4, line("start", 3.5, job="b", fence=2), "started 0.40 s into the outage"),
        (4, line("start", 3.5, job="a", fence=2), "run twice"),
        (3, line("log", 3, event="store.failing", doing="write outcomes", error="full"), "said again"),
        (7, line("log", 5, event="store.failing", doing="clean up", error="full"), "never said to be over"),
        (6, line("hang", 5, waiting="drained"), "never came: drained"),
        (6, line("stopped", 5, seconds=9.0, clean=False, unwritten=1), "a stop took 9.0 s"),
        (6, line("drained", 9, ms=6100), "a recovery took 6100 ms"),
        (6, line("stopped", 5, seconds=1.0, clean=True, unwritten=1), "said True"),
        (6, line("wrong", 5, text="cancelled together and not"), "cancelled together and not"),
        (8, line("cancelled", 5, job="a"), "a was cancelled and has succeeded"),
        (1, line("cancelled", 1, job="a"), "a was cancelled and has run"),
        (9, line("final", 6, job="b", status="cancelled"), "b was never cancelled"),
        (1, line("paused", 1, queue="quick"), "a has run though quick was paused"),
    ],
)
def test_a_bad_ledger_is_noticed(place: int, event: dict[str, Any], found: str) -> None:
    """Each thing that may go wrong leaves a line of its own."""
    events = [*GOOD]
    events.insert(place, event)
    assert any(found in failure for failure in judged(events).failures)


def test_what_was_claimed_before_the_trouble_may_start_late() -> None:
    """A busy machine may take its time between a claim and a start."""
    ack, final = line("ack", 2.9, job="b"), line("final", 5, job="b", status="succeeded")
    row = judged([*GOOD[:4], ack, line("start", 3.5, job="b", fence=1), *GOOD[4:], final])
    assert row.failures == []


def test_losses_and_damage_are_counted() -> None:
    """An acknowledged job without an end is lost; a database that is not whole is corrupt."""
    assert judged([event for event in GOOD if event["what"] != "final"]).lost == 1
    assert judged([*GOOD, line("intact", 7, rows=[["row 1 missing from index"]])]).corrupt == 1
