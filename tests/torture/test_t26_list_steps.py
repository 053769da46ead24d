"""T26 in short; and counts that it must not let pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from backlite_async._query import LOOKS, Wanted

from .kit import Budget, Row
from .t26_list_steps import ACTED, ACTIONS, LOOK, Counted, acting, count, database, judge, listing, run


def test_lists_and_actions_cost_the_same_at_any_backlog() -> None:
    """Whatever is asked for and done, and from wherever on."""
    row = run(Budget(0.0), size=12_000)
    assert row.failures == []
    assert row.trials > 250


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_are_done(tmp_path: Path, name: str) -> None:
    """Each action that is counted is done to all of its jobs, and undone."""
    action, sort = ACTIONS[name]
    with database(tmp_path / "scene.db", 1_200) as raw:
        first, second = (count(raw, acting(raw, action, sort)) for _ in range(2))
    assert first.found == second.found == ACTED
    assert second.steps > 1_000
    assert abs(first.steps - second.steps) < 100


def test_steps_are_counted(tmp_path: Path) -> None:
    """A page costs more than an empty one."""
    with database(tmp_path / "scene.db", 1_200) as raw:
        page, none = (
            count(raw, listing(raw, wanted)) for wanted in (Wanted(queue="q1"), Wanted(queue="none"))
        )
    assert (page.found, none.found) == (50, 0)
    assert page.steps > none.steps + 1_000


@pytest.mark.parametrize(
    ("few", "many", "told"),
    [
        (Counted(1_000, 1.0, 50), Counted(1_090, 1.0, 50), ""),
        (Counted(1_000, 1.0, 50), Counted(1_110, 1.0, 50), "1.11 times the steps of few"),
        (Counted(1_000, 1.0, 50), Counted(800, 1.0, 50), "0.80 times the steps of few"),
        (Counted(1_000, 1.0, 50), Counted(1_000, 1.0, 49), "49 found, not 50"),
        (Counted(1_000, 1.0, 0), Counted(1_000, 1.0, 0), "nothing found"),
    ],
)
def test_more_steps_are_told(few: Counted, many: Counted, told: str) -> None:
    """A tenth more than beside few rows is too much, and so is to find something else, or nothing."""
    row = Row("T26", "lists")
    judge(row, {"all": few}, {"all": many}, {})
    assert [told in failure for failure in row.failures] == [True] * bool(told), row.failures


def test_searches_without_end_are_told() -> None:
    """What no index answers has a limit; and what was asked in one place only is no comparison."""
    row = Row("T26", "lists")
    judge(row, {"one": Counted(1, 1.0, 1)}, {}, {"text": Counted(LOOK * LOOKS + 1, 1.0, 0)})
    assert len(row.failures) == 2
