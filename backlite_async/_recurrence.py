"""Recurrence rules as in RFC 5545, 3.3.10: what they match on a wall clock.

A rule goes in periods: years, months, ... seconds. Which of them count, and how to get near an instant
without walking there from the start, is told here; which days of a year or month fit, by dateutil. Times
are whole seconds as a wall clock counts them. The first one of a rule (DTSTART) gives what it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from functools import lru_cache
from itertools import product
from math import gcd
from typing import Any

import msgspec

from ._errors import InvalidState
from ._rule import Parts
from ._zones import DAY, from_local, to_local

__all__ = ["check_dateutil", "filled", "keeps_rule_beat", "times_of_day", "walk_rule"]

_EPOCH = date(1970, 1, 1).toordinal()
_MONDAY = 4  # days from the epoch to a Monday
_UNITS = {"HOURLY": 3600, "MINUTELY": 60, "SECONDLY": 1}


def keeps_rule_beat(parts: Parts) -> bool:
    """Return whether a rule goes by real time: its frequency is hourly or higher."""
    return parts.freq in _UNITS


def check_dateutil() -> None:
    """Say what to install where dateutil is missing."""
    try:
        import dateutil.rrule  # noqa: F401 - whether it is there
    except ImportError as error:
        raise InvalidState('rule= needs python-dateutil: pip install "backlite_async[cron]"') from error


def walk_rule(given: Parts, first: int, low: int, high: int) -> Iterator[int]:
    """Yield what a wall clock shows when a rule that begins at `first` matches, from `low` to before `high`.

    COUNT and UNTIL are for those who know instants.
    """
    parts = filled(given, first)
    low = max(low, first)
    if parts is None or low >= high:
        return
    for period in _periods(parts, first, low, high):
        for shown in _expanded(parts, period):
            if shown >= high:
                return
            if shown >= low:
                yield shown


@lru_cache(maxsize=1024)
def filled(parts: Parts, first: int) -> Parts | None:
    """Return a rule with what the first time gives: its day, and its time. None: it can match nothing."""
    shown = from_local(first)
    new: dict[str, Any] = {}
    if not (parts.bymonthday or parts.byyearday or parts.byday):
        if parts.freq == "WEEKLY" or parts.byweekno:
            new["byday"] = ((0, shown.weekday()),)
        elif parts.freq in ("YEARLY", "MONTHLY"):
            new["bymonthday"] = (shown.day,)
            if parts.freq == "YEARLY" and not parts.bymonth:
                new["bymonth"] = (shown.month,)
    unit = _UNITS.get(parts.freq, DAY)
    for name, value, length in (
        ("byhour", shown.hour, 3600),
        ("byminute", shown.minute, 60),
        ("bysecond", shown.second, 1),
    ):
        if unit > length and not getattr(parts, name):
            new[name] = (value,)
    filled = msgspec.structs.replace(parts, **new)
    return filled if unit == DAY or _can_meet(filled, first, unit) else None


def _can_meet(parts: Parts, first: int, unit: int) -> bool:
    """Return whether the beat of an hourly, minutely or secondly rule ever meets its times of day."""
    common = gcd(parts.interval * unit, DAY)
    limits = [parts.byhour or range(24)]
    limits.append((parts.byminute or range(60)) if unit < 3600 else (0,))
    limits.append((parts.bysecond or range(60)) if unit < 60 else (0,))
    phase = (first // unit * unit) % common
    return common == unit == 1 or any(
        (hour * 3600 + minute * 60 + second) % common == phase for hour, minute, second in product(*limits)
    )


# -- periods --------------------------------------------------------------------------------------


def _period(parts: Parts, shown: int) -> int:
    """Return the number of the period in which a time lies."""
    days = shown // DAY
    match parts.freq:
        case "YEARLY":
            return from_local(shown).year
        case "MONTHLY":
            return from_local(shown).year * 12 + from_local(shown).month - 1
        case "WEEKLY":
            return (days - _MONDAY - parts.wkst) // 7
        case "DAILY":
            return days
        case freq:
            return shown // _UNITS[freq]


def _start(parts: Parts, period: int) -> int:
    """Return when a period begins."""
    match parts.freq:
        case "YEARLY":
            return to_local(datetime(period, 1, 1))
        case "MONTHLY":
            return to_local(datetime(period // 12, period % 12 + 1, 1))
        case "WEEKLY":
            return (period * 7 + _MONDAY + parts.wkst) * DAY
        case freq:
            return period * _UNITS.get(freq, DAY)


def _periods(parts: Parts, first: int, low: int, high: int) -> Iterator[int]:
    """Yield the periods from that of `low` to that of `high`, every so many, that are worth a look."""
    begun, last = _period(parts, first), _period(parts, high)

    def due(period: int) -> int:
        return period + (begun - period) % parts.interval

    period = due(_period(parts, low))
    while period <= last:
        later = _jump(parts, period)
        if later is None:
            yield period
            period += parts.interval
        else:
            period = due(max(_period(parts, later), period + 1))


def _jump(parts: Parts, period: int) -> int | None:
    """Return a time before which nothing after the beginning of a period matches; None: it may match."""
    if parts.freq == "YEARLY":
        return None
    start = _start(parts, period)
    if parts.freq == "MONTHLY":
        return _other_month(parts, start)
    if parts.freq == "WEEKLY":
        return _other_month(parts, start + 6 * DAY) if _other_month(parts, start) else None
    unit = _UNITS.get(parts.freq, DAY)
    month = _other_month(parts, start)
    if month is not None:
        return month
    if not _is_day(parts, start // DAY):
        return (start // DAY + 1) * DAY
    for limit, size, of in ((parts.byhour, 3600, 24), (parts.byminute, 60, 60), (parts.bysecond, 1, 60)):
        if size >= unit and unit < DAY and limit and start // size % of not in limit:
            ahead = min((value - start // size) % of for value in limit)
            return (start // size + ahead) * size
    return None


def _other_month(parts: Parts, shown: int) -> int | None:
    """Return when the next of a rule's months begins; None: this is one."""
    if not parts.bymonth:
        return None
    day = from_local(shown)
    if day.month in parts.bymonth:
        return None
    later = [month for month in parts.bymonth if month > day.month]
    return to_local(datetime(day.year + (not later), min(later or parts.bymonth), 1))


# -- what is in a period --------------------------------------------------------------------------


def _expanded(parts: Parts, period: int) -> list[int]:
    """Return all times in a period that match, in order."""
    unit = _UNITS.get(parts.freq)
    if unit is None:
        starts = [day * DAY for day in _days(parts, period)]
        times = times_of_day(parts.byhour, parts.byminute, parts.bysecond)
    else:
        starts = [period * unit]
        times = times_of_day(
            (0,), parts.byminute if unit == 3600 else (0,), parts.bysecond if unit > 1 else (0,)
        )
    if not parts.bysetpos:
        return [start + time for start in starts for time in times]
    found = [start + time for start in starts for time in times]
    places = {place - 1 if place > 0 else len(found) + place for place in parts.bysetpos}
    return [found[place] for place in sorted(places) if 0 <= place < len(found)]


@lru_cache(maxsize=1024)
def times_of_day(
    hours: tuple[int, ...], minutes: tuple[int, ...], seconds: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the times of a day, in order, in seconds."""
    every = product(hours, minutes, seconds)
    return tuple(sorted({hour * 3600 + minute * 60 + second for hour, minute, second in every}))


def _days(parts: Parts, period: int) -> list[int]:
    """Return the days of a period that match, counted from the epoch."""
    if parts.freq == "DAILY":
        return [period]  # or it would have been jumped over
    if parts.freq == "WEEKLY":
        first = _start(parts, period) // DAY
        return [day for day in range(first, first + 7) if _is_day(parts, day)]
    return _calendar_days(_days_only(parts), period)


def _is_day(parts: Parts, day: int) -> bool:
    """Return whether a day passes what limits days, in rules that are weekly or more frequent."""
    shown = date.fromordinal(day + _EPOCH)
    return (
        (not parts.bymonth or shown.month in parts.bymonth)
        and (not parts.byday or any(weekday == shown.weekday() for _, weekday in parts.byday))
        and (not parts.bymonthday or _is_among(parts.bymonthday, shown.day, _month_length(shown)))
        and (
            not parts.byyearday or _is_among(parts.byyearday, shown.timetuple().tm_yday, _year_length(shown))
        )
    )


def _is_among(places: tuple[int, ...], place: int, of: int) -> bool:
    return place in places or place - of - 1 in places


def _month_length(day: date) -> int:
    return (date(day.year + day.month // 12, day.month % 12 + 1, 1) - day.replace(day=1)).days


def _year_day(day: date) -> int:
    return day.timetuple().tm_yday


def _year_length(day: date) -> int:
    return (date(day.year + 1, 1, 1) - date(day.year, 1, 1)).days


@lru_cache(maxsize=1024)
def _days_only(parts: Parts) -> Parts:
    return msgspec.structs.replace(parts, interval=1, byhour=(), byminute=(), bysecond=(), bysetpos=())


@lru_cache(maxsize=4096)
def _calendar_days(parts: Parts, period: int) -> list[int]:
    """Return which days of a year or month match, says dateutil, of that one period alone."""
    from dateutil import rrule

    yearly = parts.freq == "YEARLY"
    found = rrule.rrule(
        rrule.YEARLY if yearly else rrule.MONTHLY,
        dtstart=from_local(_start(parts, period)),
        interval=120_000,  # there is no next one
        wkst=parts.wkst,
        bymonth=parts.bymonth or None,
        bymonthday=parts.bymonthday or None,
        byyearday=parts.byyearday or None,
        byweekno=parts.byweekno or None,
        byweekday=[rrule.weekday(weekday, place or None) for place, weekday in parts.byday] or None,
    )
    return [to_local(day) // DAY for day in found]
