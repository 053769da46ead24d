"""T15 in short: some scenes; and the judge of their ledgers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from . import t15_clocks, t15_stage
from .kit import Budget, Missing, Row


def test_steps_of_the_clock() -> None:
    """The clock goes back and forward under two processes: nothing is early, stuck, busy or abandoned."""
    try:
        libraries: list[str | None] = [t15_stage.faketime(), None]
    except Missing as missing:
        passed(t15_clocks.play_all(Budget(0.0, most=2), [None]))
        pytest.skip(f"the system's own clock {missing}")
    passed(t15_clocks.play_all(Budget(0.0, most=3), libraries))


def passed(row: Row) -> None:
    assert row.failures == []
    assert (row.lost, row.doubles, row.hangs) == (0, 0, 0)


def line(what: str, at: float, wall: float, **fields: Any) -> dict[str, Any]:
    return {"what": what, "pid": 1, "at": at, "wall": wall, "job": "a", **fields}


def judged(*events: dict[str, Any]) -> tuple[list[str], Row]:
    row = Row("T15", "")
    return t15_clocks.judge(row, list(events), defaultdict(float)), row


def expected(**fields: Any) -> dict[str, Any]:
    return {"what": "expect", "job": "a", "run": 0, "after": None, "by": None, "wall": None, **fields}


@pytest.mark.parametrize(
    ("starts", "expectation", "found"),
    [
        ([(1.0, 11.0)], expected(by=2.0), ""),
        ([(3.0, 13.0)], expected(by=2.0), "stuck"),
        ([], expected(), "stuck"),
        ([(2.0, 12.0)], expected(after=1.9, by=3.0, wall=11.9), ""),
        ([(2.0, -3588.0)], expected(after=1.9, by=3.0, wall=11.9), ""),  # the clock went back meanwhile
        ([(1.0, 3611.0)], expected(after=1.9, by=3.0, wall=11.9), ""),  # forward: after a suspend, perhaps
        ([(1.0, 11.0)], expected(after=1.9, by=3.0, wall=11.9), "early"),
        ([(2.0, 12.0)], expected(wall=12.5, by=3.0), "early"),
        ([(2.0, 12.0), (2.5, 12.5)], expected(run=1, after=3.0, by=4.0, wall=13.0), "early"),
    ],
)
def test_starts_are_compared_with_what_was_meant(
    starts: list[tuple[float, float]], expectation: dict[str, Any], found: str
) -> None:
    """A wait is measured by the monotonic clock, an instant by the wall clock."""
    events = [line("start", at, wall, fence=n) for n, (at, wall) in enumerate(starts)]
    causes = [line("log", 0, 0, event="job.retried")] if len(starts) > 1 else []
    failures, row = judged(*events, *causes, expectation)
    assert [failure.split(":")[0] for failure in failures] == ([found] if found else [])
    assert row.doubles == 0


def test_what_looks_abandoned_is_noticed() -> None:
    """A second run without a cause, and a crash that was none."""
    runs = [line("start", 1, 1, fence=1), line("start", 2, 2, fence=2)]
    failures, row = judged(*runs, line("log", 2, 2, event="job.crashed"))
    assert [failure.split(":")[0] for failure in failures] == ["looked abandoned", "run twice"]
    assert row.doubles == 1


def test_losses_hangs_and_spins_are_noticed() -> None:
    """A job that is not done, a process that does not answer, one that is busy with nothing."""
    failures, row = judged(
        {"what": "final", "job": "a", "status": "running"},
        {"what": "hang", "error": "no answer"},
        {"what": "usage", "cpu": 0.9, "asked": 10.0},
        {"what": "usage", "cpu": 0.1, "asked": 1e5},
    )
    assert len(failures) == 4
    assert (row.lost, row.hangs) == (1, 1)
