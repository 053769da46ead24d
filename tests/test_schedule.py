"""When schedules are due: arguments, intervals, instants, clocks that are set, bounds, words."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backlite_async import BackliteError, InvalidType, InvalidValue, Rule
from backlite_async._recurring import Timing
from backlite_async._schedule import jitter, last_of, next_after, occurrences, preview, timing, words

from .test_recurrence import calls

FAR = 2**53
HOUR = 3_600_000
DAY = 24 * HOUR


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def millis(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


NOW = millis(utc("2026-01-01 08:30"))


def made(**said: Any) -> Timing:
    return timing(now=NOW, **said)


def shown(timing: Timing, after: str, most: int = 4) -> list[str]:
    """Return what is due next, as the schedule's wall clock shows it, with its offset."""
    zone = ZoneInfo(timing.tz)
    after_ = millis(datetime.fromisoformat(after).replace(tzinfo=zone))
    return [f"{at:%d %H:%M%z}" for at in preview(timing, after_, most)]


# -- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [90, 90.0, timedelta(seconds=90)])
def test_an_interval_is_counted_from_its_start(every: object) -> None:
    """Which is the first one itself; it is as long as it was said to be, whatever the clock shows."""
    start = utc("2026-02-01 00:00:00.250")
    found = occurrences(made(every=every, start=start, tz="Europe/Berlin"), 0, FAR, 3)
    assert found == [millis(start), millis(start) + 90_000, millis(start) + 180_000]


def test_an_interval_without_a_start_is_counted_from_when_it_was_made() -> None:
    """The first one is a whole interval later."""
    assert occurrences(made(every=60), 0, FAR, 2) == [NOW + 60_000, NOW + 120_000]


def test_an_interval_keeps_its_beat_when_clocks_are_set() -> None:
    """Every day at the same time by UTC."""
    daily = made(every=timedelta(days=1), start=utc("2026-03-27 11:00"), tz="Europe/Berlin")
    assert shown(daily, "2026-03-28 00:00", 3) == ["28 12:00+0100", "29 13:00+0200", "30 13:00+0200"]


@given(st.integers(10, 10**12), st.integers(0, 10**13), st.integers(-(10**13), 10**14))
def test_intervals_are_multiples(every: int, start: int, instant: int) -> None:
    """The next one is the first that is later and a whole number of intervals after the start."""
    found = next_after(Timing(every=every, start=start), instant)
    assert found is not None
    assert found > instant
    assert found == start if instant < start else 0 < found - instant <= every
    assert (found - start) % every == 0


@pytest.mark.parametrize(
    ("every", "error", "said"),
    [
        (0, InvalidValue, r"every=0 must be at least 0.01 s"),
        (0.009, InvalidValue, r"every=0.009 must be at least 0.01 s"),
        (-1, InvalidValue, "between 0 and 100 years"),
        (float("nan"), InvalidValue, "between 0 and 100 years"),
        (timedelta(days=40_000), InvalidValue, "between 0 and 100 years"),
        ("1h", InvalidType, "a number of seconds or a timedelta, not '1h'"),
        (True, InvalidType, "a number of seconds or a timedelta"),
    ],
)
def test_what_is_wrong_with_an_interval_is_said(every: Any, error: type[BackliteError], said: str) -> None:
    """Too short, endless, or none."""
    with pytest.raises(error, match=said):
        made(every=every)
    assert made(every=0.01).every == 10


# -- instants -------------------------------------------------------------------------------------


def test_instants_are_sorted_and_each_is_due_once() -> None:
    """In whatever order and time zones they are given."""
    one, other = utc("2026-05-01 12:00"), utc("2026-04-01 12:00")
    same = one.astimezone(ZoneInfo("Asia/Kolkata"))
    timed = made(at=[one, other, same])
    assert timed.at == (millis(other), millis(one))
    assert occurrences(timed, 0, FAR, 10) == [millis(other), millis(one)]
    assert next_after(timed, millis(other)) == millis(one)
    assert next_after(timed, millis(one)) is None


def test_ten_thousand_instants_are_taken() -> None:
    """And no more; from any iterable."""
    many = [utc("2026-05-01") + timedelta(minutes=minute) for minute in range(10_001)]
    assert len(made(at=(at for at in many[:10_000])).at or ()) == 10_000
    with pytest.raises(InvalidValue, match="at=10001 instants must be 1 to 10,000"):
        made(at=many)
    with pytest.raises(InvalidValue, match="at=0 instants must be 1 to 10,000"):
        made(at=[])


@pytest.mark.parametrize("at", [utc("2026-05-01"), "2026-05-01", 5, [5], ["2026-05-01"]])
def test_instants_are_several_datetimes(at: Any) -> None:
    """One alone is not, nor is text."""
    with pytest.raises(InvalidType, match="at must be"):
        made(at=at)


# -- arguments ------------------------------------------------------------------------------------


def test_there_is_exactly_one_way_to_say_when() -> None:
    """None, or two: what there is, and what was given, is said."""
    with pytest.raises(InvalidValue, match=r"one of cron=, every=, rule= and at=, not none of them"):
        made()
    with pytest.raises(InvalidValue, match=r"one of .*, not cron= and every="):
        made(cron="@daily", every=5)


@pytest.mark.parametrize("name", ["start", "end", "at"])
def test_datetimes_are_aware(name: str) -> None:
    """A naive one is refused, with what to write instead."""
    naive = datetime(2026, 1, 1)
    said: dict[str, Any] = {"at": [naive]} if name == "at" else {"every": 60, name: naive}
    with pytest.raises(InvalidValue, match=rf"{name}=.* has no time zone; write datetime.now\(UTC\)"):
        made(**said)


@pytest.mark.parametrize(
    "tz",
    [
        "",
        "CEST",
        "+02:00",
        "UTC+2",
        "europe/nowhere",
        "/etc/localtime",
        "../UTC",
        "Europe",
        "posix/UTC",
        "a\0b",
    ],
)
def test_time_zones_are_iana_names(tz: str) -> None:
    """Anything else is refused, with what they look like."""
    with pytest.raises(InvalidValue, match=r'IANA name of a time zone; they look like "Europe/Berlin"'):
        made(every=60, tz=tz)


@pytest.mark.parametrize("tz", [None, UTC, timezone(timedelta(hours=2)), ZoneInfo("Europe/Berlin")])
def test_time_zones_are_text(tz: Any) -> None:
    """An object is no name."""
    with pytest.raises(InvalidType, match='tz must be the IANA name of a time zone, like "Europe/Berlin"'):
        made(every=60, tz=tz)


def test_the_anchor_is_only_where_something_is_counted_from_it() -> None:
    """What is said the same way at two times differs in nothing else."""
    start = utc("2026-05-01")
    for said, anchored in (
        ({"every": 60}, True),
        ({"rule": "FREQ=DAILY"}, True),
        ({"every": 60, "start": start}, False),
        ({"rule": "FREQ=DAILY", "start": start}, False),
        ({"cron": "@daily"}, False),
        ({"at": [start]}, False),
    ):
        one, other = timing(now=5, **said), timing(now=9, **said)
        assert (one.anchor, other.anchor) == ((5, 9) if anchored else (0, 0))
        assert msgspec.structs.replace(one, anchor=0) == msgspec.structs.replace(other, anchor=0)


def test_a_timing_can_be_stored() -> None:
    """As JSON, and is the same when it is read."""
    timed = made(
        rule=Rule(frequency="daily"), tz="Asia/Kolkata", start=utc("2026-05-01"), end=utc("2027-05-01")
    )
    assert msgspec.json.decode(msgspec.json.encode(timed), type=Timing) == timed


# -- start and end --------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "cron": {"cron": "0 * * * *"},
    "fixed": {"cron": "0 0,1,2,3,4,5 * * *"},
    "every": {"every": HOUR // 1000},
    "rule": {"rule": "FREQ=HOURLY"},
    "days": {"rule": "FREQ=DAILY;BYHOUR=0,1,2,3,4,5"},
    "counted": {"rule": "FREQ=HOURLY;COUNT=7"},
    "at": {"at": [utc("2026-05-01") + timedelta(hours=hour) for hour in range(-5, 9)]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_start_and_end_are_included(kind: str) -> None:
    """Nothing is due before or after."""
    start, end = utc("2026-05-01 00:00"), utc("2026-05-01 05:00")
    timed = made(**KINDS[kind], start=start, end=end)
    expected = [millis(start) + hour * HOUR for hour in range(6)]
    assert occurrences(timed, 0, FAR, 100) == expected
    assert next_after(timed, millis(start) - 1) == millis(start)
    assert next_after(timed, millis(end) - 1) == millis(end)
    assert next_after(timed, millis(end)) is None
    assert last_of(timed, 0, FAR) == millis(end)
    assert last_of(timed, 0, millis(start)) == millis(start)
    assert last_of(timed, 0, millis(start) - 1) is None
    assert last_of(timed, millis(end), FAR) is None
    shorter = made(
        **KINDS[kind], start=start + timedelta(milliseconds=1), end=end - timedelta(milliseconds=1)
    )
    if kind in ("cron", "fixed", "at"):
        assert occurrences(shorter, 0, FAR, 100) == expected[1:-1]


def test_what_never_comes_is_refused_by_what_was_said() -> None:
    """Not by when it is said: code that declares what has ended goes on to be right."""
    year_ago = utc("2025-01-01")
    for said in ({"cron": "@daily"}, {"every": 60}, {"rule": "FREQ=DAILY"}, {"at": [utc("2024-01-01")]}):
        assert next_after(made(**said, end=year_ago), NOW) is None
    assert next_after(made(rule="FREQ=DAILY;UNTIL=20250101"), NOW) is None
    with pytest.raises(InvalidValue, match=r"end=2025-01-01 .* is before start=2026"):
        made(every=60, start=utc("2026-01-01"), end=year_ago)
    for said in ({"cron": "0 0 * * SUN"}, {"rule": "FREQ=DAILY;BYDAY=SU"}, {"at": [year_ago]}):
        with pytest.raises(InvalidValue, match="never comes from start to end; a schedule must be due"):
            made(**said, start=utc("2026-01-05"), end=utc("2026-01-09"))
    with pytest.raises(InvalidValue, match=r"never comes, counted from now \(start= says otherwise\)"):
        made(rule="FREQ=DAILY;INTERVAL=7;BYDAY=FR")  # now is a Thursday


@pytest.mark.parametrize("kind", [*KINDS, "leap"])
def test_the_calendar_has_an_end(kind: str) -> None:
    """Nothing is due in the year 9999, and no question about it fails."""
    timed = made(**KINDS.get(kind, {"cron": "0 0 29 2 *"}), tz="Europe/Berlin")
    for instant in (millis(utc("9899-12-31 23:59")), millis(utc("9999-12-31 23:59")), FAR, 2**62):
        assert next_after(timed, instant) in (None, millis(utc("9899-12-31 23:59")) + 60_000)
    assert next_after(timed, -(2**62)) is not None


# -- clocks that are set --------------------------------------------------------------------------

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"

SET = [  # rule, zone, start, after, what the wall clock shows with its offset
    # Berlin: 2026-03-29 02:00 -> 03:00, 2026-10-25 03:00 -> 02:00
    ("FREQ=DAILY", BERLIN, "2026-03-01 02:30", "2026-03-28 12:00", ["29 03:00+0200", "30 02:30+0200"]),
    ("FREQ=WEEKLY", BERLIN, "2026-03-01 02:30", "2026-03-28 12:00", ["29 03:00+0200", "05 02:30+0200"]),
    (
        "FREQ=MONTHLY;BYDAY=-1SU",
        BERLIN,
        "2026-03-01 02:30",
        "2026-03-28 12:00",
        ["29 03:00+0200", "26 02:30+0200"],
    ),
    (
        "FREQ=DAILY;BYHOUR=2,3;BYMINUTE=0,30",
        BERLIN,
        "2026-03-01 00:00",
        "2026-03-29 00:00",
        ["29 03:00+0200", "29 03:30+0200"],
    ),
    ("FREQ=DAILY", BERLIN, "2026-10-01 02:30", "2026-10-24 12:00", ["25 02:30+0200", "26 02:30+0100"]),
    ("FREQ=HOURLY", BERLIN, "2026-03-01 00:30", "2026-03-29 01:00", ["29 01:30+0100", "29 03:30+0200"]),
    ("FREQ=HOURLY", BERLIN, "2026-10-01 00:30", "2026-10-25 02:00", ["25 02:30+0200", "25 02:30+0100"]),
    (
        "FREQ=HOURLY;INTERVAL=6",
        BERLIN,
        "2026-03-28 00:00",
        "2026-03-28 17:00",
        ["28 18:00+0100", "29 00:00+0100", "29 07:00+0200"],
    ),
    (
        "FREQ=MINUTELY;INTERVAL=90",
        BERLIN,
        "2026-03-29 00:00",
        "2026-03-29 01:00",
        ["29 01:30+0100", "29 04:00+0200"],
    ),
    ("FREQ=MINUTELY;INTERVAL=30;BYHOUR=2", BERLIN, "2026-03-29 00:00", "2026-03-29 01:00", ["30 02:00+0200"]),
    (
        "FREQ=MINUTELY;INTERVAL=30;BYHOUR=2",
        BERLIN,
        "2026-10-25 00:00",
        "2026-10-25 01:00",
        ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100", "26 02:00+0100"],
    ),
    (
        "FREQ=HOURLY;INTERVAL=24;BYHOUR=9",
        BERLIN,
        "2026-03-01 09:00",
        "2026-03-27 00:00",
        ["27 09:00+0100", "28 09:00+0100", "25 09:00+0100"],
    ),
    # New York: 2026-03-08 02:00 -> 03:00, 2026-11-01 02:00 -> 01:00
    ("FREQ=DAILY", NEW_YORK, "2026-03-01 02:00", "2026-03-07 12:00", ["08 03:00-0400", "09 02:00-0400"]),
    ("FREQ=DAILY", NEW_YORK, "2026-10-01 01:59", "2026-10-31 12:00", ["01 01:59-0400", "02 01:59-0500"]),
    (
        "FREQ=SECONDLY;INTERVAL=1800",
        NEW_YORK,
        "2026-03-08 00:00",
        "2026-03-08 01:00",
        ["08 01:30-0500", "08 03:00-0400"],
    ),
    # Lord Howe: 2026-10-04 02:00 -> 02:30, 2026-04-05 02:00 -> 01:30
    ("FREQ=DAILY", LORD_HOWE, "2026-10-01 02:15", "2026-10-03 12:00", ["04 02:30+1100", "05 02:15+1100"]),
    ("FREQ=DAILY", LORD_HOWE, "2026-04-01 01:45", "2026-04-04 12:00", ["05 01:45+1100", "06 01:45+1030"]),
    (
        "FREQ=HOURLY",
        LORD_HOWE,
        "2026-10-03 00:00",
        "2026-10-04 00:30",
        ["04 01:00+1030", "04 02:30+1100", "04 03:30+1100"],
    ),
    (
        "FREQ=HOURLY;BYMINUTE=15",
        LORD_HOWE,
        "2026-10-03 00:00",
        "2026-10-04 00:30",
        ["04 01:15+1030", "04 03:15+1100"],
    ),
    (
        "FREQ=DAILY",
        "Asia/Kolkata",
        "2026-03-01 02:30",
        "2026-03-28 12:00",
        ["29 02:30+0530", "30 02:30+0530"],
    ),
]


@pytest.mark.parametrize(("rule", "tz", "start", "after", "expected"), SET)
def test_rules_when_clocks_are_set(rule: str, tz: str, start: str, after: str, expected: list[str]) -> None:
    """Those of days come once, right after a gap; those of hours and less keep their beat in real time."""
    begun = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(tz))
    assert shown(made(rule=rule, tz=tz, start=begun), after, len(expected)) == expected


def test_what_is_due_right_after_a_gap_is_due_at_that_very_instant() -> None:
    """Asked a moment before, or any time before; and in the second in which the clock was set, no more."""
    change = millis(utc("2026-03-29 01:00"))
    for timed in (
        made(cron="30 2 * * *", tz=BERLIN),
        made(rule="FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0", tz=BERLIN),
    ):
        assert next_after(timed, change - 1) == next_after(timed, change - 1000) == change
        assert next_after(timed, change - 10 * HOUR) == last_of(timed, change - DAY, change + HOUR) == change
        assert next_after(timed, change) == change + 23 * HOUR + HOUR // 2


# -- the same however one asks --------------------------------------------------------------------

ALL = [
    {"cron": "*/7 * * * *"},
    {"cron": "*/20 2 * * *", "tz": BERLIN},
    {"cron": "15,45 1,2,3 * * SUN", "tz": LORD_HOWE},
    {"cron": "0 0 29 2 *", "tz": NEW_YORK},
    {"cron": "* * 1 1 *", "tz": NEW_YORK},
    {"every": 7.5},
    {"every": timedelta(days=3, seconds=1)},
    {"rule": "FREQ=DAILY;BYHOUR=1,2;BYMINUTE=30", "tz": NEW_YORK},
    {"rule": "FREQ=HOURLY;INTERVAL=5", "tz": BERLIN},
    {"rule": "FREQ=MINUTELY;INTERVAL=17;BYDAY=SU;COUNT=500", "tz": LORD_HOWE},
    {"rule": "FREQ=MONTHLY;BYDAY=MO,FR;BYSETPOS=1,-1"},
    {"rule": "FREQ=YEARLY;BYWEEKNO=1,20,53", "end": utc("2031-01-01")},
    {"at": [utc("2026-01-01") + timedelta(hours=n * n) for n in range(200)]},
]


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(ALL),
    st.integers(millis(utc("2026-01-01")), millis(utc("2030-01-01"))),
    st.sampled_from([1, 60_000, HOUR, DAY, 40 * DAY]),
    st.sampled_from(["2026-03-29", "2026-10-25", "2026-04-04 15:00", "2026-10-03 15:30", None]),
)
def test_one_by_one_all_at_once_and_from_behind(said: Any, after: int, span: int, near: str | None) -> None:
    """`next_after` grows, and finds what `occurrences` finds; `last_of` finds the last of them."""
    timed = made(**said)
    if near:
        after = millis(utc(near)) - span // 2
    found = occurrences(timed, after, after + span, 300)
    assert all(one < other for one, other in pairwise([after, *found]))
    one_by_one: list[int] = []
    last = after
    while len(one_by_one) < 300 and (following := next_after(timed, last)) and following <= after + span:
        one_by_one.append(last := following)
    assert one_by_one == found
    for place in range(0, len(found), 50):
        assert next_after(timed, found[place] - 1) == found[place]
        assert occurrences(timed, found[place], after + span, 5) == found[place + 1 :][:5]
    for until in (after, after + span // 3, after + span):
        if len(found) < 300 or until <= found[-1]:
            place = bisect_right(found, until)
            assert last_of(timed, after, until) == (found[place - 1] if place else None)


@pytest.mark.parametrize("said", ALL)
def test_the_last_of_ten_years_is_found_without_a_walk(said: Any) -> None:
    """As after a downtime of which only the last one is made up for."""
    timed = made(**said)
    until = NOW + 3500 * DAY
    last_of(timed, NOW, until)  # what is kept of time zones is there
    assert calls(lambda: last_of(timed, NOW, until)) < 20_000
    last = last_of(timed, NOW, until)
    assert last is not None
    later = next_after(timed, last)
    assert later is None or later > until


def test_the_first_of_many_are_found_without_the_rest() -> None:
    """What lies beyond `until`, and beyond `most`, is not looked at."""
    timed = made(cron="* 0-22 * * *", tz=BERLIN)
    occurrences(timed, NOW, NOW + DAY, 10)
    assert calls(lambda: occurrences(timed, NOW, NOW + HOUR, 10**9)) < 20_000
    assert calls(lambda: occurrences(timed, NOW, FAR, 60)) < 20_000


def test_more_than_a_hundred_years_are_seen() -> None:
    """A list goes on where one look ahead ends."""
    leap = occurrences(made(cron="0 0 * 2 MON#5"), NOW, millis(utc("2400-01-01")), 100)
    years = [year for year in range(2028, 2400, 4) if year % 100 and datetime(year, 2, 29).weekday() == 0]
    assert [datetime.fromtimestamp(at / 1000, UTC).year for at in leap] == years


# -- preview, jitter, words -----------------------------------------------------------------------


def test_a_preview_is_in_the_time_zone() -> None:
    """Aware, as its wall clock shows it."""
    found = preview(made(cron="0 3 * * *", tz=BERLIN), millis(utc("2026-03-28 00:00")), 3)
    assert [at.isoformat() for at in found] == [
        "2026-03-28T03:00:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T03:00:00+02:00",
    ]
    assert preview(made(at=[utc("2026-05-01")]), 0, 5) == [utc("2026-05-01")]


def test_jitter_is_that_of_the_job() -> None:
    """The same for a job wherever it is asked, spread evenly, and never more than was said."""
    ids = [f"job-{number}" for number in range(2000)]
    drawn = [jitter(job_id, 9) for job_id in ids]
    assert drawn == [jitter(job_id, 9) for job_id in ids]
    counts = [drawn.count(value) for value in range(10)]
    assert sum(counts) == 2000
    assert min(counts) > 140
    assert {jitter(job_id, 0) for job_id in ids} == {0}
    assert [jitter(job_id, 60_000) for job_id in ("a", "b", "c")] == [15227, 31043, 12948]  # on every machine


SAID = [
    ({"every": 90 * 60}, "Every 1 hour and 30 minutes"),
    ({"every": 1}, "Every second"),
    ({"every": 0.25}, "Every 0.25 seconds"),
    ({"every": timedelta(days=2, seconds=5)}, "Every 2 days and 5 seconds"),
    ({"every": 60, "end": utc("2026-05-01 08:00")}, "Every minute, until 2026-05-01 08:00 (UTC)"),
    ({"every": 60, "start": utc("2026-05-01 08:00")}, "Every minute, from 2026-05-01 08:00 (UTC)"),
    (
        {"cron": "0 3 * * *", "tz": BERLIN, "start": utc("2026-05-01"), "end": utc("2026-06-01 12:00:30")},
        "At 03:00 every day, from 2026-05-01 02:00 until 2026-06-01 14:00:30 (Europe/Berlin)",
    ),
    (
        {"rule": Rule(frequency="weekly", interval=2, weekdays=("MO", "WE"), times=("09:30", "17:30"))},
        "Every 2 weeks on Monday and Wednesday at 09:30 and 17:30 (UTC)",
    ),
    ({"rule": "FREQ=DAILY"}, "Every day at 08:30 (UTC)"),
    (
        {"rule": "FREQ=MONTHLY;BYDAY=-1FR;COUNT=20"},
        "Every month on the last Friday at 08:30, 20 times in all (UTC)",
    ),
    (
        {"rule": "FREQ=MONTHLY;BYDAY=MO,FR;BYSETPOS=-1,2"},
        "Every month on Monday and Friday at 08:30 (only the 2nd and last of these in each month) (UTC)",
    ),
    (
        {"rule": "FREQ=YEARLY", "start": utc("2026-02-03 04:05:06")},
        "Every year in February on the 3rd at 04:05:06, from 2026-02-03 04:05:06 (UTC)",
    ),
    (
        {"rule": "FREQ=HOURLY;INTERVAL=3;BYHOUR=8,11,14;BYMINUTE=0,30"},
        "Every 3 hours in hours 8, 11 and 14 at minutes 0 and 30 (UTC)",
    ),
    (
        {"rule": "FREQ=MONTHLY;BYMONTHDAY=13;BYDAY=FR"},
        "Every month on the 13th of the month if it is Friday at 08:30 (UTC)",
    ),
    (
        {"rule": "FREQ=YEARLY;BYWEEKNO=20,-1;BYDAY=MO"},
        "Every year in the 20th and last week on Monday at 08:30 (UTC)",
    ),
    (
        {"rule": "FREQ=YEARLY;INTERVAL=3;BYYEARDAY=1,111,-2"},
        "Every 3 years on the 1st, 111th and 2nd last day of the year at 08:30 (UTC)",
    ),
    (
        {"rule": "FREQ=HOURLY;UNTIL=20300101T000000Z"},
        "Every hour at minute 30, until 2030-01-01 00:00 UTC (UTC)",
    ),
    ({"rule": "FREQ=WEEKLY;UNTIL=20300101"}, "Every week on Thursday at 08:30, until 2030-01-01 (UTC)"),
    ({"rule": "FREQ=SECONDLY;COUNT=1"}, "Every second, once in all (UTC)"),
    (
        {"at": [utc(f"2026-05-0{day} 12:00") for day in range(1, 9)], "tz": "Asia/Kolkata"},
        f"At {', '.join(f'2026-05-0{day} 17:30' for day in range(1, 6))} and 3 more (Asia/Kolkata)",
    ),
]


@pytest.mark.parametrize(("said", "expected"), SAID)
def test_schedules_are_said_in_words(said: Any, expected: str) -> None:
    """In plain English, with the bounds, and the time zone where it matters."""
    assert words(made(**said)) == expected
