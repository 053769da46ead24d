"""Failing writes and syncs, in short; and lives and histories that must not pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .kit import Budget, Missing, Row
from .t05_io_errors import (
    FLOWS,
    JOBS,
    STOP_GRACE,
    Syncs,
    after_told,
    given_up,
    io_errors,
    run,
    surprises,
    unfounded,
    unheeded,
)


def tried(life: str, limit: float = 60.0, least: int = 1, benches: int = 2) -> Row:
    """Return what the row finds in a few trials of another life than its own."""
    try:
        budget = Budget(1.0, least=least, most=max(least, 4))
        return io_errors(budget, lives=[life], limit=limit, benches=benches)
    except Missing as error:
        pytest.skip(str(error))


def test_no_failing_write_does_any_harm() -> None:
    """Every bar holds at the first faults of each call."""
    try:
        row = run(Budget(3.0, least=16, most=60))
    except Missing as error:
        pytest.skip(str(error))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)
    assert "wrong acknowledgements 0" in row.notes
    assert row.trials >= 12


def test_acknowledgements_without_a_sync_are_seen() -> None:
    for _ in range(6):  # a fault may come where nothing is acknowledged
        row = tried(f"{JOBS}:careless", least=12)
        if row.failures:
            break
    assert "0 acknowledgements, found" in "".join(row.failures)  # of adds, orders or ends: three are named
    assert "wrong acknowledgements 0" not in row.notes


def test_a_life_that_does_not_end_is_seen() -> None:
    assert tried(f"{JOBS}:stranded", limit=2.0).hangs


def test_a_workflow_that_has_not_come_to_its_end_is_seen() -> None:
    assert "of workflow a ran" in "".join(tried(f"{FLOWS}:misled", least=3, benches=1).failures)


# -- the judges, on their own -----------------------------------------------------------------------------

Event = dict[str, Any]

LOG = """\
7 10.0 pwrite64(3, "x", 1, 0) = 1
7 11.0 fdatasync(3) = 0
8 12.0 fdatasync(3 <unfinished ...>
7 12.1 pwrite64(3, "x", 1, 0) = 1
8 12.2 <... fdatasync resumed>) = 0
8 13.0 fsync(3) = 0
7 14.0 fdatasync(3) = -1 EIO (Input/output error) (INJECTED)
7 15.0 fdatasync(3 <unfinished ...>
7 15.1 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)
7 15.2 +++ exited with 0 +++
"""


def test_syncs_are_those_that_succeeded_at_the_time_they_began(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(LOG)
    syncs = Syncs(log)
    assert all(syncs.within(at - 0.05, at + 0.05) for at in (11.0, 12.0, 13.0))
    assert not any(syncs.within(at - 0.05, at + 0.05) for at in (10.0, 12.2, 14.0, 15.0, 15.1))


@pytest.mark.parametrize(
    ("asked", "answered", "wrong"), [(10.5, 11.5, 0), (11.1, 11.9, 1), (13.5, 16.0, 1), (12.1, 12.5, 1)]
)
def test_an_answer_needs_a_sync_since_the_question(
    tmp_path: Path, asked: float, answered: float, wrong: int
) -> None:
    """A sync that failed does not count, nor one that had begun before."""
    log = tmp_path / "log"
    log.write_text(LOG)
    events: list[Event] = [
        {"what": "try", "pid": 1, "number": 1, "wall": asked},
        {"what": "ack", "pid": 1, "number": 1, "wall": answered, "job": "a"},
        {"what": "end", "pid": 1, "job": "a", "wall": asked},
        {"what": "told", "pid": 1, "job": "a", "wall": answered},
        {"what": "did", "pid": 1, "number": 1, "wall": answered, "order": "paused"},
    ]
    found = unfounded(events, 1, Syncs(log))
    assert found == ["a acknowledged", "a said to be complete", "said to be paused"][: 3 * wrong]
    lifted: Event = {"what": "lifting", "pid": 9}
    assert unfounded([lifted, *events], 1, Syncs(log)) == []
    assert unfounded(events, 2, Syncs(log)) == []


def test_a_job_that_was_said_to_be_complete_does_not_run_again() -> None:
    start, told = {"what": "start", "job": "a"}, {"what": "told", "job": "a"}
    assert after_told([start, start, told]) == []
    assert after_told([start, told, start]) == ["a ran again after it was complete"]


def test_a_cancelled_job_ends_as_cancelled_and_a_unique_one_is_alone() -> None:
    cancelled: Event = {"what": "cancelled", "job": "a"}
    starts: list[Event] = [{"what": "start", "job": job, "queue": "paused"} for job in ("a", "a", "b")]
    assert unheeded([cancelled, *starts[:2]], {"a": "cancelled"}) == []
    assert unheeded([cancelled], {"a": "succeeded"}) == ["a was cancelled and has succeeded"]
    assert unheeded(starts, {}) == ["unique, and 2 jobs"]


START: Event = {"what": "start", "job": "a"}
TOLD: Event = {"what": "told", "job": "a"}
FREE: Event = {"what": "free"}


def stopped(*, clean: bool, over: float = 0.1) -> Event:
    return {"what": "stopped", "clean": clean, "over": over}


def test_a_stop_says_the_truth() -> None:
    assert surprises([START, TOLD, stopped(clean=True)]) == []
    assert surprises([START, stopped(clean=False)]) == []
    assert surprises([START, {"what": "told again", "job": "a"}, stopped(clean=True)]) == []
    assert len(surprises([START, stopped(clean=True)])) == 1
    assert len(surprises([START, FREE, TOLD, stopped(clean=False)])) == 1


def test_a_stop_that_gives_up_explains_what_it_has_not_written() -> None:
    """And nothing else."""
    ends: list[Event] = [{"what": "end", "job": job} for job in "ab"]
    assert given_up([*ends, TOLD, stopped(clean=True)]) == []
    assert [cause["job"] for cause in given_up([*ends, TOLD, stopped(clean=False)])] == ["b"]


def test_a_stop_ends_in_time() -> None:
    assert len(surprises([stopped(clean=True, over=STOP_GRACE + 1)])) == 1


def test_a_surprise_is_told() -> None:
    assert surprises([{"what": "surprise", "line": "job.lease_lost job_id=a"}]) == ["job.lease_lost job_id=a"]
