"""Cron expressions: known instants, a minute-by-minute second opinion, clocks that are set, plain words."""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache
from itertools import accumulate
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backlite_async import InvalidState, InvalidType, InvalidValue, _schedule, _zones
from backlite_async._schedule import last_of, next_after, occurrences, timing, words

FAR = 2**53


def millis(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def following(cron: str, after: str, most: int = 4, tz: str = "UTC") -> list[str]:
    """Return the next times after one, both as the zone's wall clock shows them."""
    zone = ZoneInfo(tz)
    made = timing(now=0, cron=cron, tz=tz)
    found = occurrences(made, millis(datetime.fromisoformat(after).replace(tzinfo=zone)), FAR, most)
    return [
        f"{datetime.fromtimestamp(at / 1000, zone):%a %Y-%m-%d %H:%M:%S}".removesuffix(":00") for at in found
    ]


NEW_YEAR = "2026-01-01 00:00"  # a Thursday

KNOWN = [
    ("@yearly", NEW_YEAR, ["Fri 2027-01-01 00:00", "Sat 2028-01-01 00:00"]),
    ("@annually", NEW_YEAR, ["Fri 2027-01-01 00:00", "Sat 2028-01-01 00:00"]),
    ("@monthly", NEW_YEAR, ["Sun 2026-02-01 00:00", "Sun 2026-03-01 00:00"]),
    ("@weekly", NEW_YEAR, ["Sun 2026-01-04 00:00", "Sun 2026-01-11 00:00"]),
    ("@daily", NEW_YEAR, ["Fri 2026-01-02 00:00", "Sat 2026-01-03 00:00"]),
    ("@midnight", NEW_YEAR, ["Fri 2026-01-02 00:00", "Sat 2026-01-03 00:00"]),
    ("@hourly", NEW_YEAR, ["Thu 2026-01-01 01:00", "Thu 2026-01-01 02:00"]),
    ("@Daily", NEW_YEAR, ["Fri 2026-01-02 00:00"]),
    ("0 3 * * *", NEW_YEAR, ["Thu 2026-01-01 03:00", "Fri 2026-01-02 03:00"]),
    ("* * * * *", "2026-01-01 23:58:30", ["Thu 2026-01-01 23:59", "Fri 2026-01-02 00:00"]),
    ("5,35 8-9 * * *", NEW_YEAR, [f"Thu 2026-01-01 {at}" for at in ("08:05", "08:35", "09:05", "09:35")]),
    ("*/20 6-18/6 * * *", NEW_YEAR, [f"Thu 2026-01-01 {at}" for at in ("06:00", "06:20", "06:40", "12:00")]),
    ("10/25 0 * * *", NEW_YEAR, ["Thu 2026-01-01 00:10", "Thu 2026-01-01 00:35", "Fri 2026-01-02 00:10"]),
    ("0 0 * FEB,aug mon-wed", NEW_YEAR, ["Mon 2026-02-02 00:00", "Tue 2026-02-03 00:00"]),
    ("0 12 * * 0", NEW_YEAR, ["Sun 2026-01-04 12:00"]),
    ("0 12 * * 7", NEW_YEAR, ["Sun 2026-01-04 12:00"]),
    ("0 12 13 * 5", NEW_YEAR, ["Fri 2026-01-02 12:00", "Fri 2026-01-09 12:00", "Tue 2026-01-13 12:00"]),  # or
    ("0 12 */13 * 5", NEW_YEAR, ["Fri 2026-02-27 12:00", "Fri 2026-03-27 12:00"]),  # and: it has a star
    ("0 0 29 2 *", NEW_YEAR, ["Tue 2028-02-29 00:00", "Sun 2032-02-29 00:00"]),
    ("0 0 31 * *", NEW_YEAR, ["Sat 2026-01-31 00:00", "Tue 2026-03-31 00:00"]),
    ("0 18 L * *", NEW_YEAR, ["Sat 2026-01-31 18:00", "Sat 2026-02-28 18:00"]),
    ("0 18 LW * *", NEW_YEAR, ["Fri 2026-01-30 18:00", "Fri 2026-02-27 18:00"]),
    ("0 18 * * 5L", NEW_YEAR, ["Fri 2026-01-30 18:00", "Fri 2026-02-27 18:00"]),
    ("0 18 * * MON#1", NEW_YEAR, ["Mon 2026-01-05 18:00", "Mon 2026-02-02 18:00"]),
    ("0 0 * 2 MON#5", NEW_YEAR, ["Mon 2044-02-29 00:00", "Mon 2072-02-29 00:00"]),
    ("*/20 30 12 * * *", NEW_YEAR, ["Thu 2026-01-01 12:30", "Thu 2026-01-01 12:30:20"]),
    ("  0   3 *  * * ", NEW_YEAR, ["Thu 2026-01-01 03:00"]),
]


@pytest.mark.parametrize(("cron", "after", "expected"), KNOWN, ids=[cron for cron, _, _ in KNOWN])
def test_known_instants(cron: str, after: str, expected: list[str]) -> None:
    """Lists, ranges, steps, names, friends, last days, days by number, seconds."""
    assert following(cron, after, len(expected)) == expected


# -- clocks that are set --------------------------------------------------------------------------

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"

SET = [  # cron, zone, after, what the wall clock shows with its offset
    # Berlin: 2026-03-29 02:00 -> 03:00, 2026-10-25 03:00 -> 02:00
    ("30 2 * * *", BERLIN, "2026-03-28 12:00", ["29 03:00+0200", "30 02:30+0200"]),
    ("15,45 2 * * *", BERLIN, "2026-03-28 12:00", ["29 03:00+0200", "30 02:15+0200", "30 02:45+0200"]),
    ("0 2,3 * * *", BERLIN, "2026-03-28 12:00", ["29 03:00+0200", "30 02:00+0200", "30 03:00+0200"]),
    ("*/15 2 * * *", BERLIN, "2026-03-28 12:00", ["29 03:00+0200", "30 02:00+0200"]),
    ("30 30 2 * * *", BERLIN, "2026-03-28 12:00", ["29 03:00+0200", "30 02:30+0200"]),
    ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["25 02:30+0200", "26 02:30+0100"]),
    ("0 3 * * *", BERLIN, "2026-10-24 12:00", ["25 03:00+0100", "26 03:00+0100"]),
    ("*/30 2 * * *", BERLIN, "2026-10-24 12:00", ["25 02:00+0200", "25 02:30+0200", "26 02:00+0100"]),
    ("30 * * * *", BERLIN, "2026-03-29 00:00", ["29 00:30+0100", "29 01:30+0100", "29 03:30+0200"]),
    (
        "30 * * * *",
        BERLIN,
        "2026-10-25 01:00",
        ["25 01:30+0200", "25 02:30+0200", "25 02:30+0100", "25 03:30+0100"],
    ),
    ("0 */2 * * *", BERLIN, "2026-03-28 23:00", ["29 00:00+0100", "29 04:00+0200"]),
    ("30 0-23 * * *", BERLIN, "2026-10-25 02:00", ["25 02:30+0200", "25 02:30+0100", "25 03:30+0100"]),
    # New York: 2026-03-08 02:00 -> 03:00, 2026-11-01 02:00 -> 01:00
    ("0 2 * * *", NEW_YORK, "2026-03-07 12:00", ["08 03:00-0400", "09 02:00-0400"]),
    ("30 1 * * *", NEW_YORK, "2026-10-31 12:00", ["01 01:30-0400", "02 01:30-0500"]),
    ("30 2 8 3 *", NEW_YORK, "2026-01-01 12:00", ["08 03:00-0400", "08 02:30-0500"]),
    ("@hourly", NEW_YORK, "2026-11-01 00:00", ["01 01:00-0400", "01 01:00-0500", "01 02:00-0500"]),
    # Lord Howe: 2026-10-04 02:00 -> 02:30, 2026-04-05 02:00 -> 01:30
    ("15 2 * * *", LORD_HOWE, "2026-10-03 12:00", ["04 02:30+1100", "05 02:15+1100"]),
    ("45 1 * * *", LORD_HOWE, "2026-04-04 12:00", ["05 01:45+1100", "06 01:45+1030"]),
    ("15 * * * *", LORD_HOWE, "2026-10-04 01:00", ["04 01:15+1030", "04 03:15+1100"]),
    ("40 * * * *", LORD_HOWE, "2026-04-05 00:45", ["05 01:40+1100", "05 01:40+1030", "05 02:40+1030"]),
    ("10 */2 * * *", LORD_HOWE, "2026-04-05 00:00", ["05 00:10+1100", "05 02:10+1030", "05 04:10+1030"]),
    # Casablanca in Ramadan: 2026-02-15 03:00 -> 02:00, 2026-03-22 02:00 -> 03:00
    ("30 2 * * *", "Africa/Casablanca", "2026-02-14 12:00", ["15 02:30+0100", "16 02:30+0000"]),
    ("30 2 * * *", "Africa/Casablanca", "2026-03-21 12:00", ["22 03:00+0100", "23 02:30+0100"]),
    # no midnight: Santiago, 2026-09-06 00:00 -> 01:00; and a day that was none: Apia, 2011-12-30
    ("@daily", "America/Santiago", "2026-09-05 12:00", ["06 01:00-0300", "07 00:00-0300"]),
    ("30 * * * SUN", "America/Santiago", "2026-09-05 12:00", ["06 01:30-0300", "06 02:30-0300"]),
    ("0 12 * * *", "Pacific/Apia", "2011-12-29 00:00", ["29 12:00-1000", "31 00:00+1400", "31 12:00+1400"]),
    ("30 2 * * *", "Asia/Kolkata", "2026-03-28 12:00", ["29 02:30+0530", "30 02:30+0530"]),
]


@pytest.mark.parametrize(("cron", "tz", "after", "expected"), SET)
def test_when_clocks_are_set(cron: str, tz: str, after: str, expected: list[str]) -> None:
    """What is not shown comes right after, once; what is shown twice once; what is hourly keeps its beat."""
    zone = ZoneInfo(tz)
    made = timing(now=0, cron=cron, tz=tz)
    begun = millis(datetime.fromisoformat(after).replace(tzinfo=zone))
    found = occurrences(made, begun, FAR, len(expected))
    assert [f"{datetime.fromtimestamp(at / 1000, zone):%d %H:%M%z}" for at in found] == expected
    one_by_one = [begun]
    for _ in expected:
        one_by_one.append(next_after(made, one_by_one[-1]) or 0)
    assert one_by_one[1:] == found
    assert [next_after(made, at - 1) for at in found] == found


# -- minute by minute -----------------------------------------------------------------------------

FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
Sets = list[tuple[str, frozenset[int]]]

WINDOWS = [  # time zone, and the day around which its clocks are set
    (BERLIN, date(2026, 3, 29)),
    (BERLIN, date(2026, 10, 25)),
    (NEW_YORK, date(2026, 3, 8)),
    (NEW_YORK, date(2026, 11, 1)),
    (LORD_HOWE, date(2026, 4, 5)),
    (LORD_HOWE, date(2026, 10, 4)),
    ("America/Santiago", date(2026, 9, 6)),
    ("Asia/Kolkata", date(2026, 1, 1)),
]


@cache
def minutes(tz: str, day: date) -> tuple[list[int], list[datetime], list[datetime]]:
    """Return all minutes of two days: instants, what the wall clock shows, the most that it has shown."""
    first = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=26)
    instants = [first + timedelta(minutes=minute) for minute in range(2 * 1440)]
    shown = [instant.astimezone(ZoneInfo(tz)).replace(tzinfo=None) for instant in instants]
    return [millis(instant) for instant in instants], shown, list(accumulate(shown, max))


@st.composite
def crons(draw: st.DrawFn) -> tuple[str, Sets]:
    """Draw an expression of simple fields, and what they hold."""
    fields: Sets = []
    for place, (low, high) in enumerate(FIELDS):
        kind = draw(
            st.sampled_from(
                ["*", "one", "list", "range", "step"] if place < 2 else ["*", "*", "range", "list"]
            )
        )
        one, other = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
        step = draw(st.integers(1, 30))
        some = draw(st.sets(st.integers(low, high), min_size=1, max_size=5))
        near = draw(st.sets(st.integers(0, 4), min_size=1)) if place == 1 and draw(st.booleans()) else some
        fields.append(
            {
                "*": ("*", frozenset(range(low, high + 1))),
                "one": (str(one), frozenset({one})),
                "list": (",".join(map(str, near)), frozenset(near)),
                "range": (f"{one}-{other}", frozenset(range(one, other + 1))),
                "step": (f"*/{step}", frozenset(range(low, high + 1, step))),
            }[kind]
        )
    months, days = fields[3], fields[2]
    if draw(st.booleans()) or not any(day <= 28 for day in days[1]):
        fields[2:4] = [("*", frozenset(range(1, 32))), ("*", frozenset(range(1, 13)))]
    assert months
    return " ".join(text for text, _ in fields), fields


def matches(fields: Sets, shown: datetime) -> bool:
    """Say whether a wall clock shows a minute that matches."""
    (_, minute), (_, hour), (day_text, day), (_, month), (weekday_text, weekday) = fields
    if shown.minute not in minute or shown.hour not in hour or shown.month not in month:
        return False
    is_day, is_weekday = shown.day in day, shown.isoweekday() % 7 in weekday
    return (
        (is_day and is_weekday)
        if day_text.startswith("*") or weekday_text[0] == "*"
        else (is_day or is_weekday)
    )


@settings(max_examples=60, deadline=None)
@given(crons(), st.sampled_from(WINDOWS))
def test_every_minute_is_matched_or_not(cron: tuple[str, Sets], window: tuple[str, date]) -> None:
    """Around days on which clocks are set: exactly the minutes that a matcher of one line finds.

    By the beat: all minutes whose wall clock matches. Else: of each time of day that matches the first
    minute at which the clock has come to show it, or more.
    """
    text, fields = cron
    tz, day = window
    instants, shown, most_shown = minutes(tz, day)
    if "*" in fields[1][0] or len(fields[1][1]) == 24:
        expected = [at for at, wall in zip(instants, shown, strict=True) if matches(fields, wall)]
    else:
        count = int((most_shown[-1] - shown[0]).total_seconds() // 60) + 1
        due = [naive for n in range(count) if matches(fields, naive := shown[0] + timedelta(minutes=n))]
        expected = sorted({instants[bisect_left(most_shown, naive)] for naive in due})
    made = timing(now=0, cron=text, tz=tz)
    found = occurrences(made, instants[0] - 1, instants[-1], 10_000)
    assert found == expected
    probes = instants[:: len(instants) // 6]
    for probe in probes:
        later = next_after(made, probe)
        assert later is not None
        assert later > probe
        if expected and probe < expected[-1]:
            assert later == expected[bisect_right(expected, probe)]
        place = bisect_right(expected, probe)
        assert last_of(made, instants[0] - 1, probe) == (expected[place - 1] if place else None)


# -- what cannot work -----------------------------------------------------------------------------

WRONG = {
    "": "wrong number of fields",
    "0 3 * *": "wrong number of fields",
    "0 0 3 * * * *": "wrong number of fields",
    "60 * * * *": "bad minute",
    "* 24 * * *": "bad hour",
    "0 0 0 * *": "bad day-of-month",
    "0 0 * 13 *": "bad month",
    "0 0 * * 8": "bad day-of-week",
    "0 0 * * FRI-MON": "bad day-of-week",
    "*/0 * * * *": "bad minute",
    "0 0 ? * MON": "bad day-of-month",
    "0 0 30 2 *": "bad day-of-month.*in the calendar",
    "0 0 31 4,6 *": "bad day-of-month.*in the calendar",
    "@reboot": "is not known; there are @yearly, .*@hourly",
    "@every 5m": "every= is for intervals",
    "²  * * * *": "bad minute",
}


@pytest.mark.parametrize("cron", WRONG)
def test_what_is_wrong_with_an_expression_is_said(cron: str) -> None:
    """With the expression, and what would be right."""
    with pytest.raises(InvalidValue, match=WRONG[cron]) as raised:
        timing(now=0, cron=cron)
    assert str(raised.value).startswith(f"cron={cron!r}")


def test_an_expression_is_text() -> None:
    """Anything else is of the wrong type."""
    with pytest.raises(InvalidType, match=r"cron must be text like .*not 5"):
        timing(now=0, cron=5)  # type: ignore[arg-type]


def test_what_is_to_be_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the libraries of the extra are missing; intervals and instants do without."""
    monkeypatch.setitem(sys.modules, "cronsim", None)
    monkeypatch.setitem(sys.modules, "dateutil.rrule", None)
    with pytest.raises(InvalidState, match=r'pip install "backlite_async\[cron\]"'):
        timing(now=0, cron="@daily")
    with pytest.raises(InvalidState, match=r'pip install "backlite_async\[cron\]"'):
        timing(now=0, rule="FREQ=DAILY")
    assert next_after(timing(now=0, every=1), 0) == 1000
    at = timing(now=0, at=[datetime(2026, 1, 1, tzinfo=UTC)])
    assert next_after(at, 0) == millis(datetime(2026, 1, 1, tzinfo=UTC))


# -- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("30 2 * * *", "At 02:30 every day (Europe/Berlin)"),
        ("@yearly", "At 00:00 on January 1 (Europe/Berlin)"),
        (
            "*/5 9-17 * * MON-FRI",
            "Every fifth minute from 09:00 through 17:59 on Monday through Friday (Europe/Berlin)",
        ),
    ],
)
def test_what_an_expression_means_is_said(cron: str, said: str) -> None:
    """In plain English, with the time zone by whose clock it goes."""
    assert words(timing(now=0, cron=cron, tz=BERLIN)) == said


def test_nothing_is_looked_for_beyond_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due by now costs what it is, not what is to come in a hundred years."""
    walked: list[int] = []

    def wall(zone: tzinfo, shown: int) -> int:
        walked.append(shown)
        return _zones.wall(zone, shown)

    made = timing(now=0, cron="0 3 1 * *", tz="Europe/Berlin")
    monkeypatch.setattr(_schedule, "wall", wall)
    begun = millis(datetime(2026, 2, 1, tzinfo=UTC))
    assert len(occurrences(made, begun, millis(datetime(2026, 3, 15, tzinfo=UTC)), 100)) == 2
    assert len(walked) <= 3
