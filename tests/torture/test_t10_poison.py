"""T10 in short; and that it notices poison without an end, and neighbours that pay for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .children import Event, doctored
from .kit import Budget
from .t10_poison import Record, Trial, judge, run


def test_poison_fails_and_its_neighbours_complete() -> None:
    """A few files of jobs, each with poison among them."""
    row = run(Budget(2.0), patience=False)
    assert row.failures == []
    assert (row.lost, row.corrupt, row.hangs) == (0, 0, 0)
    assert row.trials >= 3


def test_a_library_where_neighbours_pay_is_noticed(tmp_path: Path) -> None:
    """Where the last death of a job is not its own affair, those beside it fail too."""
    library = doctored(tmp_path, "_outcome.py", "max_crashes - 1", "max_crashes + 1_000")
    row = run(Budget(3.0), lanes=2, patience=False, library=library)
    assert any("innocent" in failure or "started beside" in failure for failure in row.failures)


def events(*told: tuple[Any, ...]) -> list[Event]:
    """Return events: what, process, job; poison is called p, and is started by the library too."""
    found: list[Event] = []
    for at, (what, pid, job) in enumerate(told):
        if what == "start":
            found.append({"what": "job.started", "pid": pid, "job_id": job, "at": at})
        fields = {"child": pid} if what == "over" else {"job": job, "poison": job == "p"}
        found.append({"what": what, "pid": pid, "at": at, **fields})
    return found


POISON = Record("p", "failed", 0, 3, "process died 3 times while the job ran")
INNOCENT = Record("a", "succeeded", 1, 2, None)
GOOD = events(
    ("start", 1, "p"),
    ("start", 1, "a"),
    ("over", 1, None),
    ("start", 2, "a"),
    ("start", 2, "p"),
    ("over", 2, None),
    ("start", 3, "a"),
    ("end", 3, "a"),
    ("start", 3, "p"),
    ("over", 3, None),
)


def trial(told: list[Event], *records: Record) -> Trial:
    """Return a trial with one poison."""
    return Trial(workers=3, processes=1, poisons=1, events=told, records=list(records), lives=4)


def test_a_good_trial_is_good() -> None:
    """The neighbour was cut off twice and then ran alone; so did the poison."""
    verdict = judge(trial(GOOD, POISON, INNOCENT))
    assert verdict.wrong == []
    assert (verdict.wasted, verdict.poison_deaths, verdict.lost) == (2, [3], 0)
    assert verdict.recovery == [1, 1]


@pytest.mark.parametrize(
    ("records", "what"),
    [
        (
            [Record("p", "failed", 0, 2, "process died 2 times"), INNOCENT],
            "poison",
        ),
        ([POISON, Record("a", "failed", 0, 3, "process died 3 times")], "innocent"),
        ([POISON, Record("a", "succeeded", 1, 1, None)], "with 1 crashes"),
        ([POISON, Record("a", "succeeded", 3, 2, None)], "innocent"),
    ],
)
def test_wrong_records_are_noticed(records: list[Record], what: str) -> None:
    """Poison that fails early, neighbours that fail, are counted wrongly, or lose attempts."""
    assert any(what in complaint for complaint in judge(trial(GOOD, *records)).wrong)


def test_company_for_the_last_chance_is_noticed() -> None:
    """A job one death short of its limit that starts beside another, and one that starts beside it."""
    beside = [*GOOD[:-4], *events(("start", 3, "p"), ("over", 3, None))]
    assert any("started beside" in complaint for complaint in judge(trial(beside, POISON, INNOCENT)).wrong)
    before = [*GOOD[:-6], *events(("start", 3, "p"), ("start", 3, "a"), ("end", 3, "a"), ("over", 3, None))]
    assert any("started beside" in complaint for complaint in judge(trial(before, POISON, INNOCENT)).wrong)


def test_lost_jobs_are_noticed() -> None:
    """What was added, and is neither waiting nor completed."""
    told = [{"what": "job.added", "pid": 1, "at": 0, "job_id": "b"}, *GOOD]
    assert judge(trial(told, POISON, INNOCENT)).lost == 1
