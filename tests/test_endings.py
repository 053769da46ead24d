"""Endings that are nobody's usual case: a handler that ends its process, an outcome that is refused."""

from __future__ import annotations

import pytest

from backlite_async import JobStatus, QueueConfig, Retention
from backlite_async._job import ClaimedJob, Complete, Reschedule
from backlite_async._outcome import Result, crashed, decide, refused

NOW = 1_700_000_000_000
QUEUE = QueueConfig("q", max_crashes=3, retention=Retention())


def claimed(*, crashes: int = 0) -> ClaimedJob:
    return ClaimedJob(
        id="a",
        queue="q",
        task="T",
        payload="{}",
        attempt=2,
        max_attempts=5,
        crashes=crashes,
        fence=7,
        created_at=NOW - 9000,
        scheduled_at=NOW - 5000,
        waits_from=None,
    )


def test_handler_that_ends_its_process_has_crashed_it() -> None:
    """That is counted as the crash it is, not as an attempt, and the job runs again."""
    result = Result(finished_at=NOW, error="KeyboardInterrupt", ends_process=True)
    outcome = decide(claimed(), QUEUE, result, 0.5)
    assert isinstance(outcome, Reschedule)
    assert (outcome.attempt, outcome.crashes, outcome.due_at) == (1, 1, NOW - 5000)


def test_handler_that_ends_its_process_again_and_again_has_failed() -> None:
    """At the limit of crashes the job has failed."""
    result = Result(finished_at=NOW, error="KeyboardInterrupt", ends_process=True)
    outcome = decide(claimed(crashes=2), QUEUE, result, 0.5)
    assert isinstance(outcome, Complete)
    assert (outcome.status, outcome.crashes) == (JobStatus.FAILED, 3)


@pytest.mark.parametrize("lapsed_by", [None, NOW])
def test_refused_outcome_holds_under_the_same_condition(lapsed_by: int | None) -> None:
    """What is stored instead of a refused crash is void, as that would be, if the lease was renewed."""
    outcome = crashed(claimed(), QUEUE, NOW, lapsed_by=lapsed_by)
    instead = refused(outcome, claimed(), QUEUE, NOW, "too large")
    assert (instead.id, instead.fence, instead.lapsed_by) == ("a", 7, lapsed_by)
    assert (instead.attempt, instead.crashes) == (outcome.attempt, outcome.crashes)
