"""Recurrence rules: the RFC's own examples, dateutil as a second opinion, and how far one has to walk."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from types import FrameType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backlite_async import InvalidType, InvalidValue, Rule
from backlite_async._recurring import Timing
from backlite_async._schedule import next_after, occurrences, timing

NEW_YORK = ZoneInfo("America/New_York")
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
FAR = 2**53


def millis(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def dates(text: str) -> Iterator[date]:
    """Read "1997 Sep 2 9 Oct 1-3", a year and a month going for all days after them."""
    year = month = 0
    for word in text.split():
        if word in MONTHS:
            month = MONTHS.index(word) + 1
        elif len(word) == 4 and word.isdigit():
            year = int(word)
        else:
            first, _, last = word.partition("-")
            for day in range(int(first), int(last or first) + 1):
                yield date(year, month, day)


def known(text: str, rule: str, *, begun: str) -> list[datetime]:
    """Make a rule that begins at nine in New York; return as many instants as the text says."""
    start = datetime.combine(next(dates(begun)), datetime.min.time(), NEW_YORK).replace(hour=9)
    made = timing(now=0, rule=rule, tz="America/New_York", start=start)
    ends = "COUNT" in rule or "UNTIL" in rule
    found = occurrences(made, 0, FAR, len(list(dates(text))) + (100 if ends else 0))
    return [datetime.fromtimestamp(instant / 1000, NEW_YORK) for instant in found]


SEP_2 = "1997 Sep 2"
WEEK = "SU,MO,TU,WE,TH,FR,SA"
JANUARIES = "1998 Jan 1-31 1999 Jan 1-31 2000 Jan 1-31"
EVERY_OTHER_DAY = (
    "1997 Sep 2 4 6 8 10 12 14 16 18 20 22 24 26 28 30 Oct 2 4 6 8 10 12 14 16 18 20 22 24 26 28 30"
    " Nov 1 3 5 7 9 11 13 15 17 19 21 23 25 27 29 Dec 1 3"
)
SUMMER_THURSDAYS = (
    "1997 Jun 5 12 19 26 Jul 3 10 17 24 31 Aug 7 14 21 28 1998 Jun 4 11 18 25 Jul 2 9 16 23 30"
    " Aug 6 13 20 27 1999 Jun 3 10 17 24 Jul 1 8 15 22 29 Aug 5 12 19 26"
)
TU_TH = "1997 Sep 2 4 9 11 16 18 23 25 30 Oct 2"

RFC = [  # what the rule says, DTSTART, what the RFC says comes of it; all of 3.8.5.3 that come at nine
    ("FREQ=DAILY;COUNT=10", SEP_2, "1997 Sep 2-11"),
    ("FREQ=DAILY;UNTIL=19971224T000000Z", SEP_2, "1997 Sep 2-30 Oct 1-31 Nov 1-30 Dec 1-23"),
    (
        "FREQ=DAILY;INTERVAL=2",
        SEP_2,
        EVERY_OTHER_DAY,
    ),
    ("FREQ=DAILY;INTERVAL=10;COUNT=5", SEP_2, "1997 Sep 2 12 22 Oct 2 12"),
    (f"FREQ=YEARLY;UNTIL=20000131T140000Z;BYMONTH=1;BYDAY={WEEK}", "1998 Jan 1", JANUARIES),
    ("FREQ=DAILY;UNTIL=20000131T140000Z;BYMONTH=1", "1998 Jan 1", JANUARIES),
    ("FREQ=WEEKLY;COUNT=10", SEP_2, "1997 Sep 2 9 16 23 30 Oct 7 14 21 28 Nov 4"),
    (
        "FREQ=WEEKLY;UNTIL=19971224T000000Z",
        SEP_2,
        "1997 Sep 2 9 16 23 30 Oct 7 14 21 28 Nov 4 11 18 25 Dec 2 9 16 23",
    ),
    (
        "FREQ=WEEKLY;INTERVAL=2;WKST=SU",
        SEP_2,
        "1997 Sep 2 16 30 Oct 14 28 Nov 11 25 Dec 9 23 1998 Jan 6 20 Feb 3 17",
    ),
    ("FREQ=WEEKLY;UNTIL=19971007T000000Z;WKST=SU;BYDAY=TU,TH", SEP_2, TU_TH),
    ("FREQ=WEEKLY;COUNT=10;WKST=SU;BYDAY=TU,TH", SEP_2, TU_TH),
    (
        "FREQ=WEEKLY;INTERVAL=2;UNTIL=19971224T000000Z;WKST=SU;BYDAY=MO,WE,FR",
        "1997 Sep 1",
        "1997 Sep 1 3 5 15 17 19 29 Oct 1 3 13 15 17 27 29 31 Nov 10 12 14 24 26 28 Dec 8 10 12 22",
    ),
    ("FREQ=WEEKLY;INTERVAL=2;COUNT=8;WKST=SU;BYDAY=TU,TH", SEP_2, "1997 Sep 2 4 16 18 30 Oct 2 14 16"),
    (
        "FREQ=MONTHLY;COUNT=10;BYDAY=1FR",
        "1997 Sep 5",
        "1997 Sep 5 Oct 3 Nov 7 Dec 5 1998 Jan 2 Feb 6 Mar 6 Apr 3 May 1 Jun 5",
    ),
    ("FREQ=MONTHLY;UNTIL=19971224T000000Z;BYDAY=1FR", "1997 Sep 5", "1997 Sep 5 Oct 3 Nov 7 Dec 5"),
    (
        "FREQ=MONTHLY;INTERVAL=2;COUNT=10;BYDAY=1SU,-1SU",
        "1997 Sep 7",
        "1997 Sep 7 28 Nov 2 30 1998 Jan 4 25 Mar 1 29 May 3 31",
    ),
    (
        "FREQ=MONTHLY;COUNT=6;BYDAY=-2MO",
        "1997 Sep 22",
        "1997 Sep 22 Oct 20 Nov 17 Dec 22 1998 Jan 19 Feb 16",
    ),
    ("FREQ=MONTHLY;BYMONTHDAY=-3", "1997 Sep 28", "1997 Sep 28 Oct 29 Nov 28 Dec 29 1998 Jan 29 Feb 26"),
    (
        "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=2,15",
        SEP_2,
        "1997 Sep 2 15 Oct 2 15 Nov 2 15 Dec 2 15 1998 Jan 2 15",
    ),
    (
        "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=1,-1",
        "1997 Sep 30",
        "1997 Sep 30 Oct 1 31 Nov 1 30 Dec 1 31 1998 Jan 1 31 Feb 1",
    ),
    (
        "FREQ=MONTHLY;INTERVAL=18;COUNT=10;BYMONTHDAY=10,11,12,13,14,15",
        "1997 Sep 10",
        "1997 Sep 10-15 1999 Mar 10-13",
    ),
    (
        "FREQ=MONTHLY;INTERVAL=2;BYDAY=TU",
        SEP_2,
        "1997 Sep 2 9 16 23 30 Nov 4 11 18 25 1998 Jan 6 13 20 27 Mar 3 10 17 24 31",
    ),
    (
        "FREQ=YEARLY;COUNT=10;BYMONTH=6,7",
        "1997 Jun 10",
        "1997 Jun 10 Jul 10 1998 Jun 10 Jul 10 1999 Jun 10 Jul 10 2000 Jun 10 Jul 10 2001 Jun 10 Jul 10",
    ),
    (
        "FREQ=YEARLY;INTERVAL=2;COUNT=10;BYMONTH=1,2,3",
        "1997 Mar 10",
        "1997 Mar 10 1999 Jan 10 Feb 10 Mar 10 2001 Jan 10 Feb 10 Mar 10 2003 Jan 10 Feb 10 Mar 10",
    ),
    (
        "FREQ=YEARLY;INTERVAL=3;COUNT=10;BYYEARDAY=1,100,200",
        "1997 Jan 1",
        "1997 Jan 1 Apr 10 Jul 19 2000 Jan 1 Apr 9 Jul 18 2003 Jan 1 Apr 10 Jul 19 2006 Jan 1",
    ),
    ("FREQ=YEARLY;BYDAY=20MO", "1997 May 19", "1997 May 19 1998 May 18 1999 May 17"),
    ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO", "1997 May 12", "1997 May 12 1998 May 11 1999 May 17"),
    (
        "FREQ=YEARLY;BYMONTH=3;BYDAY=TH",
        "1997 Mar 13",
        "1997 Mar 13 20 27 1998 Mar 5 12 19 26 1999 Mar 4 11 18 25",
    ),
    (
        "FREQ=YEARLY;BYDAY=TH;BYMONTH=6,7,8",
        "1997 Jun 5",
        SUMMER_THURSDAYS,
    ),
    (  # with an EXDATE for DTSTART, which we count only if it fits
        "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13",
        SEP_2,
        "1998 Feb 13 Mar 13 Nov 13 1999 Aug 13 2000 Oct 13",
    ),
    (
        "FREQ=MONTHLY;BYDAY=SA;BYMONTHDAY=7,8,9,10,11,12,13",
        "1997 Sep 13",
        "1997 Sep 13 Oct 11 Nov 8 Dec 13 1998 Jan 10 Feb 7 Mar 7 Apr 11 May 9 Jun 13",
    ),
    (
        "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
        "1996 Nov 5",
        "1996 Nov 5 2000 Nov 7 2004 Nov 2",
    ),
    ("FREQ=MONTHLY;COUNT=3;BYDAY=TU,WE,TH;BYSETPOS=3", "1997 Sep 4", "1997 Sep 4 Oct 7 Nov 6"),
    (
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2",
        "1997 Sep 29",
        "1997 Sep 29 Oct 30 Nov 27 Dec 30 1998 Jan 29 Feb 26 Mar 30",
    ),
    ("FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO", "1997 Aug 5", "1997 Aug 5 10 19 24"),
    ("FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU", "1997 Aug 5", "1997 Aug 5 17 19 31"),
    ("FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=5", "2007 Jan 15", "2007 Jan 15 30 Feb 15 Mar 15 30"),
]


@pytest.mark.parametrize(("rule", "begun", "expected"), RFC, ids=[rule for rule, _, _ in RFC])
def test_the_examples_of_the_rfc_that_come_at_nine(rule: str, begun: str, expected: str) -> None:
    """Each comes on the days that the RFC says, at nine by the clock of New York, summer or winter."""
    found = known(expected, rule, begun=begun)
    assert [instant.date() for instant in found] == list(dates(expected))
    assert {(instant.hour, instant.minute, instant.second) for instant in found} == {(9, 0, 0)}


NINE_TO_FOUR = [f"{hour:02}:{minute:02}" for hour in range(9, 17) for minute in (0, 20, 40)]
TWICE = [("Sep 2", time) for time in NINE_TO_FOUR] + [("Sep 3", time) for time in NINE_TO_FOUR]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [  # the first with the RFC's erratum: its UNTIL is 17:00 in New York, which is 21:00 UTC
        ("FREQ=HOURLY;INTERVAL=3;UNTIL=19970902T210000Z", ["09:00", "12:00", "15:00"]),
        ("FREQ=HOURLY;INTERVAL=3;UNTIL=19970902T170000Z", ["09:00", "12:00"]),
        ("FREQ=MINUTELY;INTERVAL=15;COUNT=6", ["09:00", "09:15", "09:30", "09:45", "10:00", "10:15"]),
        ("FREQ=MINUTELY;INTERVAL=90;COUNT=4", ["09:00", "10:30", "12:00", "13:30"]),
        ("FREQ=DAILY;BYHOUR=9,10,11,12,13,14,15,16;BYMINUTE=0,20,40", TWICE),
        ("FREQ=MINUTELY;INTERVAL=20;BYHOUR=9,10,11,12,13,14,15,16", TWICE),
    ],
)
def test_the_examples_of_the_rfc_that_come_more_often(rule: str, expected: list[Any]) -> None:
    """Hourly and minutely ones of 3.8.5.3."""
    made = timing(now=0, rule=rule, tz="America/New_York", start=datetime(1997, 9, 2, 9, tzinfo=NEW_YORK))
    found = occurrences(made, 0, FAR, len(expected) + ("COUNT" in rule or "UNTIL" in rule))
    shown = [datetime.fromtimestamp(instant / 1000, NEW_YORK) for instant in found]
    if expected is TWICE:
        assert [(f"{at:%b} {at.day}", f"{at:%H:%M}") for at in shown] == expected
    else:
        assert [f"{at:%H:%M}" for at in shown] == expected


# -- a thousand -----------------------------------------------------------------------------------


def test_a_thousand_in_a_row_are_what_counting_days_says() -> None:
    """Every other week on Monday and Thursday at 6:45 in New York, for ten years."""
    start = datetime(2026, 1, 5, 6, 45, tzinfo=NEW_YORK)
    made = timing(
        now=0, rule="FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TH;COUNT=1000", tz="America/New_York", start=start
    )
    naive = datetime(2026, 1, 5, 6, 45)
    days = [naive + timedelta(days=14 * week + day) for week in range(500) for day in (0, 3)]
    expected = [millis(day.replace(tzinfo=NEW_YORK)) for day in days]
    assert occurrences(made, 0, FAR, 2000) == expected
    chain, last = [], 0
    while (following := next_after(made, last)) is not None:
        chain.append(last := following)
    assert chain == expected


@pytest.mark.parametrize("rule", ["FREQ=DAILY", "FREQ=HOURLY;INTERVAL=7", "FREQ=MONTHLY;BYDAY=-1FR"])
def test_a_thousand_in_a_row_are_what_dateutil_says(rule: str) -> None:
    """As one list, and one after the other."""
    start = datetime(2020, 2, 29, 23, 59, 58)
    made = timing(now=0, rule=rule, start=start.replace(tzinfo=UTC))
    expected = [
        millis(at.replace(tzinfo=UTC))
        for at in islice(rrule.rrulestr(rule, dtstart=start, cache=False), 1000)
    ]
    assert occurrences(made, 0, FAR, 1000) == expected
    chain = [0]
    for _ in range(1000):
        chain.append(next_after(made, chain[-1]) or 0)
    assert chain[1:] == expected


# -- a second opinion -----------------------------------------------------------------------------


def several(values: st.SearchStrategy[int], most: int = 4) -> st.SearchStrategy[str]:
    return st.lists(values, min_size=1, max_size=most, unique=True).map(
        lambda found: ",".join(map(str, found))
    )


def signed(most: int) -> st.SearchStrategy[int]:
    return st.integers(1, most) | st.integers(-most, -1)


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Draw a rule that dateutil takes and sees as the RFC does."""
    freq = draw(st.sampled_from("YEARLY MONTHLY WEEKLY DAILY HOURLY MINUTELY SECONDLY".split()))
    found = {"FREQ": freq, "INTERVAL": str(draw(st.integers(1, 40) | st.just(1)))}
    placed = freq in ("YEARLY", "MONTHLY")
    maybe: dict[str, st.SearchStrategy[str]] = {
        "BYMONTH": several(st.integers(1, 12)),
        "BYHOUR": several(st.integers(0, 23)),
        "BYMINUTE": several(st.integers(0, 59)),
        "BYSECOND": several(st.integers(0, 59)),
        "WKST": st.sampled_from(WEEK.split(",")),
        "BYDAY": st.lists(st.sampled_from(WEEK.split(",")), min_size=1, max_size=4, unique=True).map(
            ",".join
        ),
    }
    if freq != "WEEKLY":
        maybe["BYMONTHDAY"] = several(signed(31))
    if freq not in ("DAILY", "WEEKLY", "MONTHLY"):
        maybe["BYYEARDAY"] = several(signed(366), 8)
    if freq == "YEARLY":
        maybe["BYWEEKNO"] = several(signed(53))
    for name in draw(st.sets(st.sampled_from(sorted(maybe)), max_size=3)):
        found[name] = draw(maybe[name])
    if "BYDAY" in found and placed and "BYWEEKNO" not in found and draw(st.booleans()):
        found["BYDAY"] = ",".join(f"{draw(signed(5))}{day}" for day in found["BYDAY"].split(","))
    if "BYWEEKNO" in found and not {"BYDAY", "BYMONTHDAY", "BYYEARDAY"} & {*found}:
        found["BYDAY"] = "TU"  # or dateutil takes the whole week
    if placed and "BYDAY" in found and draw(st.booleans()):
        found["BYSETPOS"] = draw(several(signed(5)))
    return ";".join(f"{name}={value}" for name, value in found.items())


@settings(max_examples=150, deadline=None)
@given(
    rules(),
    st.datetimes(datetime(1998, 1, 1), datetime(2008, 1, 1)).map(lambda at: at.replace(microsecond=0)),
    st.integers(0, 4 * 366 * 86400),
)
def test_dateutil_says_the_same(rule: str, start: datetime, later: int) -> None:
    """Whatever the rule, from wherever one looks: the next ones are what a walk from the start finds."""
    if re.match("FREQ=(MIN|SEC|HOU)", rule):
        later //= 365  # it walks
    try:
        made = timing(now=0, rule=rule, start=start.replace(tzinfo=UTC))
    except InvalidValue as error:
        assume("never comes" not in str(error))
        raise
    after = start + timedelta(seconds=later)
    found = occurrences(made, millis(after.replace(tzinfo=UTC)), FAR, 12)
    assume(len(found) == 12 and found[-1] < millis(datetime(2060, 1, 1, tzinfo=UTC)))
    second = rrule.rrulestr(rule + ("" if "WKST" in rule else ";WKST=MO"), dtstart=start)
    expected = list(second.xafter(after, count=12))
    assert [datetime.fromtimestamp(at / 1000, UTC).replace(tzinfo=None) for at in found] == expected


# -- quick ----------------------------------------------------------------------------------------


def calls(function: Callable[[], object]) -> int:
    """Return how many calls a function makes, in Python and in C: the same on every machine."""
    seen = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        seen += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return seen


OLD = [
    "FREQ=YEARLY",
    "FREQ=YEARLY;BYWEEKNO=1,53;BYDAY=MO,SU",
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",
    "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
    "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=29",
    "FREQ=WEEKLY;INTERVAL=3;BYDAY=MO,WE",
    "FREQ=DAILY;INTERVAL=5",
    "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29",
    "FREQ=HOURLY;INTERVAL=7",
    "FREQ=HOURLY;BYMONTH=2;BYHOUR=3",
    "FREQ=MINUTELY;INTERVAL=11;BYDAY=SU",
    "FREQ=SECONDLY",
    "FREQ=SECONDLY;INTERVAL=11;BYMONTH=12;BYDAY=SU;BYHOUR=23;BYMINUTE=59;BYSECOND=58",
    "FREQ=DAILY;COUNT=5000",
    "FREQ=SECONDLY;COUNT=10000",
]


@pytest.mark.parametrize("rule", OLD)
@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin"])
def test_an_old_rule_is_as_quick_as_a_new_one(rule: str, tz: str) -> None:
    """Ten years after its start the next one takes a bounded number of steps, whatever the frequency."""
    made = timing(now=0, rule=rule, tz=tz, start=datetime(2016, 1, 4, 9, tzinfo=UTC))
    late = millis(datetime(2026, 1, 5, 7, tzinfo=UTC))
    next_after(made, late)  # what is kept is there: time zones, and those that are counted
    steps = calls(lambda: next_after(made, late + 1))
    assert steps < 5000


def test_rules_that_never_come_are_found_out_in_a_moment() -> None:
    """A hundred years are looked at in jumps, not second by second."""
    for rule in ("FREQ=SECONDLY;BYMONTH=4;BYMONTHDAY=31", "FREQ=MINUTELY;INTERVAL=60;BYMINUTE=7"):
        start = datetime(2026, 1, 1, tzinfo=UTC)

        def made(rule: str = rule, start: datetime = start) -> None:
            with pytest.raises(InvalidValue, match="never comes"):
                timing(now=0, rule=rule, start=start)

        assert calls(made) < 100_000


# -- what it begins with, counts, and ends with ---------------------------------------------------


def rule(text: str, **said: Any) -> Timing:
    return timing(now=millis(datetime(2026, 1, 1, 8, 30, tzinfo=UTC)), rule=text, **said)


def shown(made: Timing, most: int = 5) -> list[str]:
    found = occurrences(made, 0, FAR, most)
    return [datetime.fromtimestamp(at / 1000, UTC).isoformat(" ").removesuffix("+00:00") for at in found]


def test_without_a_start_it_is_counted_from_when_it_was_made() -> None:
    """That moment itself is none of them."""
    assert shown(rule("FREQ=DAILY;COUNT=2")) == ["2026-01-02 08:30:00", "2026-01-03 08:30:00"]
    assert shown(rule("FREQ=DAILY;COUNT=2;BYHOUR=9")) == ["2026-01-01 09:30:00", "2026-01-02 09:30:00"]


def test_the_start_is_the_first_one_if_it_fits() -> None:
    """As DTSTART; a fraction of a second is not kept."""
    start = datetime(2026, 1, 3, 12, 0, 0, 400_000, tzinfo=UTC)
    assert shown(rule("FREQ=DAILY;COUNT=2", start=start)) == ["2026-01-03 12:00:00", "2026-01-04 12:00:00"]
    assert shown(rule("FREQ=WEEKLY;BYDAY=MO", start=start), 1) == ["2026-01-05 12:00:00"]


def test_a_week_of_the_year_comes_on_the_weekday_of_the_start() -> None:
    """Which is not said is taken from DTSTART, here too."""
    start = datetime(2026, 1, 7, tzinfo=UTC)
    assert shown(rule("FREQ=YEARLY;BYWEEKNO=20", start=start), 2) == [
        "2026-05-13 00:00:00",
        "2027-05-19 00:00:00",
    ]


@pytest.mark.parametrize(("wkst", "first"), [("MO", "2025-12-29"), ("SU", "2026-01-05")])
def test_the_first_week_of_a_year_depends_on_how_weeks_begin(wkst: str, first: str) -> None:
    """It has four days of the year at least; its Monday may lie in the year before."""
    start = datetime(2025, 12, 1, tzinfo=UTC)
    assert shown(rule(f"FREQ=YEARLY;BYWEEKNO=1;BYDAY=MO;WKST={wkst}", start=start), 1) == [
        f"{first} 00:00:00"
    ]


def test_places_are_taken_from_whole_periods() -> None:
    """BYSETPOS counts in the week, hour and so on, also in those that have begun before the start."""
    start = datetime(2026, 1, 7, 10, 40, tzinfo=UTC)  # a Wednesday
    last = "FREQ=WEEKLY;BYDAY=MO,TU,FR;BYSETPOS=-1,1"
    assert shown(rule(last, start=start), 3) == [
        "2026-01-09 10:40:00",
        "2026-01-12 10:40:00",
        "2026-01-16 10:40:00",
    ]
    hourly = "FREQ=HOURLY;BYMINUTE=10,20,30,50;BYSETPOS=2,-1"
    assert shown(rule(hourly, start=start), 3) == [
        "2026-01-07 10:50:00",
        "2026-01-07 11:20:00",
        "2026-01-07 11:50:00",
    ]
    secondly = "FREQ=MINUTELY;BYSECOND=5,10,60;BYSETPOS=-1"
    assert shown(rule(secondly, start=start), 2) == ["2026-01-07 10:40:59", "2026-01-07 10:41:59"]


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("20260105T060000Z", "2026-01-05 06:00:00"),
        ("20260105T055959Z", "2026-01-04 06:00:00"),
        ("20260105T070000", "2026-01-05 06:00:00"),
        ("20260105T065959", "2026-01-04 06:00:00"),
        ("20260105", "2026-01-05 06:00:00"),
    ],
)
@pytest.mark.parametrize("freq", ["FREQ=DAILY", "FREQ=HOURLY;BYHOUR=7"])
def test_until_includes_itself(until: str, last: str, freq: str) -> None:
    """In UTC, or in the time zone; a date goes to its end."""
    made = rule(f"{freq};UNTIL={until}", tz="Europe/Berlin", start=datetime(2026, 1, 1, 6, tzinfo=UTC))
    assert shown(made, 100)[-1] == last


def test_count_and_end_both_end_it() -> None:
    """Whichever is first; what is counted is counted from the start, wherever one looks from."""
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    made = rule("FREQ=DAILY;COUNT=100", start=start)
    whole = occurrences(made, 0, FAR, 1000)
    assert len(whole) == 100
    assert [next_after(made, at) for at in whole] == [*whole[1:], None]
    ended = rule("FREQ=DAILY;COUNT=100", start=start, end=end)
    assert occurrences(ended, 0, FAR, 1000) == [at for at in whole if at <= millis(end)]


# -- Rule -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Rule(frequency="daily"), "FREQ=DAILY"),
        (Rule(frequency="weekly", interval=2, weekdays=("mo", "WE")), "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE"),
        (
            Rule(frequency="monthly", month_days=(1, -1), times=("09:30", "17:30"), count=10),
            "FREQ=MONTHLY;COUNT=10;BYMONTHDAY=1,-1;BYHOUR=9,17;BYMINUTE=30;BYSECOND=0",
        ),
        (
            Rule(frequency="yearly", months=(3, 9), weekdays=("-1SU",), times=("02:00:30",)),
            "FREQ=YEARLY;BYMONTH=3,9;BYDAY=-1SU;BYHOUR=2;BYMINUTE=0;BYSECOND=30",
        ),
    ],
)
def test_a_rule_is_its_text(made: Rule, text: str) -> None:
    """`Rule` says what the RFC's text says."""
    assert str(made) == text
    assert timing(now=1, rule=made) == timing(now=1, rule=text)
    assert timing(now=1, rule=made).rule == text


def test_text_is_taken_in_any_case_with_blanks_and_with_its_name() -> None:
    """As calendars write it."""
    assert timing(now=1, rule=" rrule:freq=weekly; byday=mo,we; ").rule == "FREQ=WEEKLY;BYDAY=MO,WE"


WRONG = {
    "": "is no part like",
    "DAILY": "is no part like",
    "INTERVAL=2": "must say FREQ=, one of YEARLY",
    "FREQ=FORTNIGHTLY": "FREQ=FORTNIGHTLY is not known",
    "FREQ=DAILY;FREQ=DAILY": "FREQ is said twice",
    "FREQ=DAILY;BYEASTER=0": "no part BYEASTER",
    "FREQ=DAILY;INTERVAL=0": "INTERVAL=0 must be 1 to",
    "FREQ=DAILY;INTERVAL=-1": "INTERVAL=-1 is not known",
    "FREQ=DAILY;COUNT=10001": "max_runs= ends a schedule",
    "FREQ=DAILY;COUNT=3;UNTIL=20300101": "do not go together",
    "FREQ=DAILY;UNTIL=20300230": "not in the calendar",
    "FREQ=DAILY;UNTIL=tomorrow": "UNTIL=TOMORROW is not known",
    "FREQ=DAILY;BYHOUR=24": "BYHOUR=24 must be 0 to 23$",
    "FREQ=DAILY;BYHOUR=-1": "BYHOUR=-1 must be 0 to 23$",
    "FREQ=DAILY;BYHOUR=1,": "BYHOUR= must be 0 to 23$",
    "FREQ=MONTHLY;BYMONTHDAY=0": "must be 1 to 31, or -31 to -1",
    "FREQ=MONTHLY;BYMONTHDAY=-32": "must be 1 to 31, or -31 to -1",
    "FREQ=WEEKLY;BYMONTHDAY=1": "BYMONTHDAY does not go with FREQ=WEEKLY",
    "FREQ=DAILY;BYYEARDAY=1": "BYYEARDAY does not go with",
    "FREQ=MONTHLY;BYWEEKNO=1": "BYWEEKNO does not go with",
    "FREQ=WEEKLY;BYDAY=1MO": "do not go with FREQ=WEEKLY",
    "FREQ=YEARLY;BYWEEKNO=1;BYDAY=1MO": "do not go with BYWEEKNO",
    "FREQ=WEEKLY;BYDAY=MON": "BYDAY=MON must be of MO",
    "FREQ=MONTHLY;BYDAY=0MO": "BYDAY=0MO must be of MO",
    "FREQ=MONTHLY;BYSETPOS=1": "BYSETPOS needs another part",
    "FREQ=DAILY;DTSTART=20300101T000000Z": "give start=",
    "DTSTART:20300101T000000Z RRULE:FREQ=DAILY": "give start=",
    "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30": "never comes",
    "FREQ=SECONDLY;INTERVAL=60;BYSECOND=60": "never comes",
    "FREQ=YEARLY;INTERVAL=4;BYMONTH=2;BYMONTHDAY=29": "never comes",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_a_rule_is_said(text: str) -> None:
    """With the rule, and the way out."""
    with pytest.raises(InvalidValue, match=WRONG[text]) as raised:
        timing(now=millis(datetime(2026, 1, 1, tzinfo=UTC)), rule=text)
    assert str(raised.value).startswith("rule=")


def test_what_is_wrong_with_a_rule_object_is_said() -> None:
    """One text instead of several, and times that no rule can say."""
    with pytest.raises(InvalidType, match=r"weekdays=\('MO',\)"):
        timing(now=0, rule=Rule(frequency="weekly", weekdays="MO"))  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match=r"times=\('09:30',\)"):
        timing(now=0, rule=Rule(frequency="weekly", times="09:30"))  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="make a schedule of each"):
        timing(now=0, rule=Rule(frequency="daily", times=("09:15", "17:40")))
    with pytest.raises(InvalidValue, match='no time of day like "09:30"'):
        timing(now=0, rule=Rule(frequency="daily", times=("9 am",)))
    with pytest.raises(InvalidType, match="must be a Rule, or text"):
        timing(now=0, rule=7)
