"""Timings in plain English."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import tzinfo

from ._clock import from_millis
from ._cron import cron_words
from ._recurrence import filled, times_of_day
from ._recurring import Timing
from ._rule import Parts, parsed
from ._zones import local, zone

__all__ = ["words"]

_MONTHS = "January February March April May June July August September October November December".split()
_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_UNITS = {
    "YEARLY": "year",
    "MONTHLY": "month",
    "WEEKLY": "week",
    "DAILY": "day",
    "HOURLY": "hour",
    "MINUTELY": "minute",
    "SECONDLY": "second",
}
_LENGTHS = (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000))
_SHOWN = 6
"""How many of many are named."""


def words(timing: Timing) -> str:
    """Say in plain English when a schedule is due."""
    tz = zone(timing.tz)
    if timing.cron is not None:
        said = cron_words(timing.cron)
    elif timing.every is not None:
        said = _every(timing.every)
    elif timing.rule is not None:
        begun = timing.anchor if timing.start is None else timing.start
        said = _rule(parsed(timing.rule), local(tz, begun // 1000))
    else:
        said = "At " + _several(_moment(instant, tz) for instant in timing.at or ())
    if timing.start is not None:
        said += f", from {_moment(timing.start, tz)}"
    if timing.end is not None:
        said += f"{',' * (timing.start is None)} until {_moment(timing.end, tz)}"
    shows_time = timing.every is None or timing.start is not None or timing.end is not None
    return f"{said} ({timing.tz})" if shows_time else said


def _moment(instant: int, tz: tzinfo) -> str:
    shown = from_millis(instant).astimezone(tz)
    return f"{shown:%Y-%m-%d} " + _clock(shown.hour * 3600 + shown.minute * 60 + shown.second)


def _every(every: int) -> str:
    parts: list[tuple[float, str]] = []
    left = every
    for unit, length in _LENGTHS:
        number, left = divmod(left, length)
        if number:
            parts.append((number, unit))
    if left:
        parts.append((left / 1000 if left % 1000 else left // 1000, "second"))
    if len(parts) == 1 and parts[0][0] == 1:
        return f"Every {parts[0][1]}"
    return "Every " + _and([f"{number} {unit}{'s' * (number != 1)}" for number, unit in parts])


def _rule(given: Parts, first: int) -> str:
    parts = filled(given, first) or given
    unit = _UNITS[parts.freq]
    said = [f"Every {unit}" if parts.interval == 1 else f"Every {parts.interval} {unit}s"]
    if parts.bymonth:
        said.append("in " + _several(_MONTHS[month - 1] for month in parts.bymonth))
    said += [*_days(parts), *_times(parts)]
    if parts.bysetpos:
        said.append(f"(only the {_places(parts.bysetpos)} of these in each {unit})")
    until = f", until {_until(parts.until)}" if parts.until else ""
    if parts.count is not None:
        until = ", once in all" if parts.count == 1 else f", {parts.count} times in all"
    return " ".join(said) + until


def _days(parts: Parts) -> list[str]:
    said = []
    if parts.byweekno:
        said.append(f"in the {_places(parts.byweekno)} week")
    if parts.byyearday:
        said.append(f"on the {_places(parts.byyearday)} day of the year")
    if parts.bymonthday:
        days = _places(parts.bymonthday) + " day" * (min(parts.bymonthday) < 0)
        said.append(f"on the {days}" if parts.bymonth else f"on the {days} of the month")
    if parts.byday:
        joiner = "if it is " if parts.bymonthday or parts.byyearday else "on "
        said.append(joiner + _several([_weekday(place, day) for place, day in parts.byday], most=7))
    return said


def _weekday(place: int, day: int) -> str:
    return f"the {_place(place)} {_WEEKDAYS[day]}" if place else _WEEKDAYS[day]


def _times(parts: Parts) -> list[str]:
    """Say at what times of day; of hourly rules and the like, in which hours, minutes and seconds."""
    if parts.freq in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY"):
        times = times_of_day(parts.byhour, parts.byminute, parts.bysecond)
        return ["at " + _several(_clock(time) for time in times)]
    said = []
    for preposition, unit, values in (
        ("in", "hour", parts.byhour),
        ("at", "minute", parts.byminute),
        ("at", "second", parts.bysecond if parts.bysecond != (0,) else ()),
    ):
        if values:
            numbers = _several(map(str, values), most=24)
            said.append(f"{preposition} {unit}{'s' * (len(values) > 1)} {numbers}")
    return said


def _until(until: str) -> str:
    day = f"{until[:4]}-{until[4:6]}-{until[6:8]}"
    if "T" not in until:
        return day
    hours, minutes, seconds = (int(until[place : place + 2]) for place in (9, 11, 13))
    return f"{day} {_clock(hours * 3600 + minutes * 60 + seconds)}" + " UTC" * until.endswith("Z")


def _clock(seconds: int) -> str:
    hours, left = divmod(seconds, 3600)
    return f"{hours:02}:{left // 60:02}" + (f":{left % 60:02}" if left % 60 else "")


def _place(number: int) -> str:
    if number == -1:
        return "last"
    last = " last" if number < 0 else ""
    number = abs(number)
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 * (number // 10 % 10 != 1), "th")
    return f"{number}{ending}{last}"


def _places(numbers: tuple[int, ...]) -> str:
    return _several(_place(number) for number in sorted(numbers, key=lambda number: (number < 0, number)))


def _several(values: Iterable[str], most: int = _SHOWN) -> str:
    found = list(values)
    if len(found) > most:
        found = [*found[: most - 1], f"{len(found) - most + 1} more"]
    return _and(found)


def _and(found: list[str]) -> str:
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)
