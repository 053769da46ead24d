"""Wall clocks: there and back, in every time zone that there is, and in one that is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import available_timezones

import pytest

from backlite_async._zones import from_local, local, offset, to_local, wall, zone

NAMES = sorted(
    name for name in available_timezones() if "/" in name and not name.startswith(("Etc", "posix", "right"))
)


class AtNewYear(tzinfo):
    """A zone that is set forward by an hour half an hour after the year has begun."""

    change = datetime(2030, 1, 1, 0, 30)

    def utcoffset(self, shown: datetime | None) -> timedelta:
        assert shown is not None
        after = shown.replace(tzinfo=None, fold=0) >= self.change + timedelta(hours=1 - shown.fold)
        return timedelta(hours=after)

    def dst(self, shown: datetime | None) -> None:
        return None

    def tzname(self, shown: datetime | None) -> str:
        return "new"

    def fromutc(self, shown: datetime) -> datetime:
        return shown + timedelta(hours=shown.replace(tzinfo=None) >= self.change)


def seconds(text: str) -> int:
    return to_local(datetime.fromisoformat(text))


def test_a_gap_over_the_end_of_a_year_ends_when_the_clock_is_set() -> None:
    """Not when the year does."""
    tz = AtNewYear()
    change = seconds("2030-01-01 00:30")
    assert [offset(tz, change - 1), offset(tz, change)] == [0, 3600]
    for shown in ("00:30", "00:45", "01:00", "01:29"):
        assert wall(tz, seconds(f"2030-01-01 {shown}")) == change
    assert wall(tz, seconds("2030-01-01 00:29")) == change - 60
    assert wall(tz, seconds("2030-01-01 01:31")) == change + 60


@pytest.mark.parametrize("part", range(8))
def test_what_a_clock_shows_comes_from_when_it_shows_it(part: int) -> None:
    """In all zones, every few hours of a year: the instant, or the first time that it shows the same."""
    start = seconds("2026-01-01")
    for name in NAMES[part::8]:
        tz = zone(name)
        for instant in range(start, start + 366 * 86400, 86400 * 3 + 3600 * 5):
            shown = local(tz, instant)
            assert from_local(shown) == datetime.fromtimestamp(instant, tz).replace(tzinfo=None)
            assert wall(tz, shown) in (instant, instant - 3600, instant - 1800)
            assert local(tz, wall(tz, shown)) == shown


def test_utc_needs_no_data() -> None:
    """Where a system has no time zones."""
    assert zone("UTC") is UTC
