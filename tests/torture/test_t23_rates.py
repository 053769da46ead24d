"""T23 in short; and starts that it must not let pass."""

from __future__ import annotations

import pytest

from .kit import Budget, Row
from .programs.t23_roles import RATES as ROLES_RATES
from .t23_rates import RATES, Rate, judge, narrowest, run

MILLI = 1_000_000


def test_no_window_holds_more_starts_than_it_may() -> None:
    """Over four processes one of which is killed, and close to what is permitted."""
    row = run(Budget(7.0, least=100), kills=3.0)
    assert row.failures == []
    assert (row.corrupt, row.hangs) == (0, 0)


def test_the_judge_knows_the_rates_of_the_queues() -> None:
    """What is judged is what was configured."""
    assert {name: (rate.count, rate.per) for name, rate in ROLES_RATES.items()} == RATES


@pytest.mark.parametrize(
    ("instants", "end", "told"),
    [
        ([0, 10, 50, 60, 100, 110, 150], 190, ""),
        ([0, 10, 50, 60, 99.999, 110, 150], 190, "1 times, 5 starts in less than 0.1 s, once in 0.1000"),
        ([0, 10, 20, 30, 40], 50, "1 times"),
        ([0, 1, 2, 3, 250, 251, 252, 253], 260, "67% of the permitted"),
        ([0, 1, 2, 3, 100, 101, 102, 103], 390, "50% of the permitted"),
        ([0, 1, 2, 3], 90, "only 4 starts"),
        ([], 10, "only 0 starts"),
    ],
)
def test_a_crowded_window_or_a_long_pause_is_told(instants: list[float], end: int, told: str) -> None:
    """A microsecond too early, wherever the window begins; or far fewer than there may be."""
    row = Row("T23", "a history")
    judge(row, {"q": [round(instant * MILLI) for instant in instants]}, {"q": Rate(4, 0.1)}, end * MILLI)
    assert bool(row.failures) is bool(told)
    assert any(told in failure for failure in row.failures) or not told, row.failures


def test_the_narrowest_window_is_found() -> None:
    """Of all windows, also those that begin between two starts."""
    assert narrowest([0, 30 * MILLI, 80 * MILLI, 160 * MILLI], Rate(2, 0.1)) == (0.08, 1)
