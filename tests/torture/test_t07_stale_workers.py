"""T7 in short; and that it notices stale outcomes that count, and jobs taken from a blocked process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .children import doctored
from .kit import Budget
from .t07_stale_workers import History, Plan, Verdict, judge, run

SHORT = Plan(workers=5)


def test_no_stale_outcome_is_accepted() -> None:
    """Every stage of the second life of a stopped worker's jobs, and one blocked process."""
    row = run(Budget(0), SHORT)
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)
    assert row.trials >= 15


def test_a_library_without_fences_is_noticed(tmp_path: Path) -> None:
    """Where outcomes do not name their claim, the row fails."""
    plan = Plan(
        workers=5,
        blocked=0.1,
        library=doctored(
            tmp_path,
            "stores/sqlite/sql/queries.sql",
            "jobs.fence = claim.value",
            "jobs.fence IS NOT NULL",
        ),
    )
    row = run(Budget(0), plan)
    assert any("no stale outcome is accepted" in failure for failure in row.failures)


def judged(*events: tuple[str, int, int]) -> Verdict:
    """Judge a history of one job: what happened, in which process, to which claim."""
    history = History()
    history.take({"what": "ack", "pid": 0, "job": "a"})
    for what, pid, fence in events:
        names: dict[str, Any] = {"job": "a", "job_id": "a", "fence": fence}
        history.take({"what": what, "pid": pid, "error": f"job a: claim {fence} has lost", **names})
    return judge(history)


def test_a_refused_stale_outcome_is_right() -> None:
    """The claim that was overtaken is refused, the last one counts."""
    verdict = judged(
        ("start", 1, 1),
        ("start", 2, 2),
        ("end", 1, 1),
        ("job.lease_lost", 1, 1),
        ("end", 2, 2),
        ("job.succeeded", 2, 2),
    )
    assert verdict == Verdict(offered=1)


def test_a_retry_before_the_next_claim_is_right() -> None:
    """What was written before anybody else had the job is not stale."""
    verdict = judged(
        ("start", 1, 1),
        ("end", 1, 1),
        ("start", 2, 2),
        ("job.retried", 1, 1),
        ("end", 2, 2),
        ("job.succeeded", 2, 2),
    )
    assert verdict == Verdict()


def test_accepted_stale_outcomes_are_noticed() -> None:
    """A completion by another claim than the last one, a retry by one that had been overtaken."""
    verdict = judged(("start", 1, 1), ("start", 2, 2), ("end", 1, 1), ("job.succeeded", 1, 1))
    assert len(verdict.accepted) == 1
    verdict = judged(("start", 1, 1), ("start", 2, 2), ("end", 1, 1), ("job.retried", 1, 1))
    assert len(verdict.accepted) == 1
    assert verdict.lost == ["a"]


def test_wrong_refusals_and_second_completions_are_noticed() -> None:
    """A claim that nobody has overtaken must count, and only one of them."""
    verdict = judged(("start", 1, 1), ("end", 1, 1), ("job.lease_lost", 1, 1))
    assert len(verdict.refused) == 1
    verdict = judged(
        ("start", 1, 1),
        ("end", 1, 1),
        ("job.succeeded", 1, 1),
        ("start", 2, 2),
        ("end", 2, 2),
        ("job.succeeded", 2, 2),
    )
    assert verdict.twice == ["a"]
    assert len(verdict.accepted) == 1
