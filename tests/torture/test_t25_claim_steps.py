"""T25 in short; and counts that it must not let pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kit import Budget, Row
from .t25_claim_steps import (
    FULL,
    NAMES,
    OPEN,
    PAUSED,
    ROOM,
    Counted,
    Scene,
    claim,
    count,
    database,
    judge,
    run,
)


def test_what_cannot_run_costs_the_claim_nothing() -> None:
    """Neither closed queues, nor jobs of full keys, nor rows."""
    assert run(Budget(0.0), size=20_000).failures == []


def test_the_scene_is_what_it_says(tmp_path: Path) -> None:
    """Half of the queues are closed, and thousands of jobs of full keys wait in front."""
    assert len(OPEN) == len(PAUSED) + len(FULL) == len(NAMES) / 2
    with database(tmp_path, Scene("scene", NAMES, 4_000, crowded=True)) as raw:
        [[waiting]] = raw.execute("SELECT count(*) FROM backlite_jobs WHERE due_at IS NULL AND priority = 5")
        assert waiting > 9_900
        assert [queue for (queue,) in raw.execute("SELECT queue FROM backlite_queues")] == PAUSED
        found = claim(raw, NAMES, room=10_000, owner="mine", limits=[])
        assert {job.queue for job in found.jobs} == {*OPEN, *FULL}
        assert all(job.key is None for job in found.jobs)


def test_steps_are_counted_and_undone(tmp_path: Path) -> None:
    """A count is the same twice, and grows with what is looked at."""
    with database(tmp_path, Scene("scene", NAMES[:3], 300, crowded=False)) as raw:
        first, second, one = (count(raw, queues, []) for queues in (NAMES[:3], NAMES[:3], NAMES[:1]))
    assert first.steps == second.steps > one.steps > 50
    assert first.jobs == one.jobs == ROOM


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([10_500, 10_000, 6_800, 10], ""),
        ([11_100, 10_000, 8_000, 10], "1.11 times the steps of few"),
        ([10_500, 10_000, 6_700, 10], "76 steps for each closed queue"),
        ([8_000, 10_000, 8_000, 10], "0.80 times"),
    ],
)
def test_more_steps_are_told(counts: list[int], told: str) -> None:
    """A tenth more than with a few rows is too much, and what a closed queue costs has a limit."""
    row, names = Row("T25", "a history"), ["large", "few", "alone", "one"]
    found = {name: {"rate": Counted(steps, 1.0, ROOM)} for name, steps in zip(names, counts, strict=True)}
    judge(row, names, found)
    assert bool(row.failures) is bool(told)
    assert any(told in failure for failure in row.failures) or not told, row.failures


def test_claims_that_find_too_little_are_told() -> None:
    """Steps of a claim that took nothing say nothing."""
    row, names = Row("T25", "a history"), ["large", "few", "alone", "one"]
    judge(row, names, {name: {"rate": Counted(100, 1.0, ROOM - 1)} for name in names})
    assert row.failures == ["rate: [9, 9, 9, 9] jobs were claimed, not 10 each"]
