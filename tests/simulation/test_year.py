"""Simulated years: whatever clocks and clients do, what is due is run once.

Here the weeks around the days at which clocks are set; `python -m tests.simulation --years 3` lives through
whole years, with a hundred schedules each.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from .year import Plan, due, instant, watch

AUTUMN, SPRING = datetime(2025, 9, 28, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)


@pytest.mark.parametrize("begin", [AUTUMN, SPRING])
def test_each_instant_has_its_run_while_clocks_are_set(begin: datetime) -> None:
    """Three zones; four clients that die, stop and start, or all; a store that fails, a wall that jumps."""
    year = watch(6, begin=begin, days=38, schedules=18)
    assert year.wrong == []
    assert year.runs > 200
    assert min(year.deaths, year.stops, year.blackouts, year.outages, year.jumps, year.passed_over) > 0


@pytest.mark.parametrize(
    ("zone", "wall", "expected"),
    [
        ("Europe/Berlin", "2026-03-29T02:30", "2026-03-29T03:00+02:00"),
        ("Europe/Berlin", "2026-03-29T03:00", "2026-03-29T03:00+02:00"),
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T02:30+02:00"),
        ("America/New_York", "2026-03-08T02:00", "2026-03-08T03:00-04:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-04T02:30+11:00"),
        ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-05T01:45+11:00"),
        ("Europe/Berlin", "2026-07-01T02:30", "2026-07-01T02:30+02:00"),
    ],
)
def test_what_is_due_is_what_a_calendar_says(zone: str, wall: str, expected: str) -> None:
    """What a clock leaves out is due at once, what it shows twice the first time."""
    found = instant(datetime.fromisoformat(wall), ZoneInfo(zone))
    assert found == datetime.fromisoformat(expected).timestamp() * 1000


def test_what_is_due_in_a_span() -> None:
    """On the days that are meant, after the beginning and up to the end."""
    mondays = Plan("m", {}, "Europe/Berlin", (3, 0), lambda on: on.weekday() == 0)
    begin = int(datetime(2026, 3, 23, 2, tzinfo=UTC).timestamp()) * 1000
    end = int(datetime(2026, 4, 6, 1, tzinfo=UTC).timestamp()) * 1000
    days = [datetime.fromtimestamp(at / 1000, ZoneInfo("Europe/Berlin")) for at in due(mondays, begin, end)]
    assert [day.date() for day in days] == [date(2026, 3, 30), date(2026, 4, 6)]
    assert [day.hour for day in days] == [3, 3]
