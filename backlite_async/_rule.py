"""Recurrence rules: as text (RFC 5545, 3.3.10), as parts, and as a `Rule`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, time
from functools import lru_cache
from itertools import product
from typing import Any, Literal

import msgspec

from ._errors import InvalidType, InvalidValue

__all__ = ["WEEKDAYS", "Frequency", "Parts", "Rule", "checked_rule", "parsed"]

Frequency = Literal["yearly", "monthly", "weekly", "daily", "hourly", "minutely", "secondly"]
"""How often a rule's period comes."""

WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

MOST = 10_000
"""The highest COUNT: they are counted."""

_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
_RANGES = {  # lowest, highest, whether one may count from the end
    "BYSECOND": (0, 60, False),
    "BYMINUTE": (0, 59, False),
    "BYHOUR": (0, 23, False),
    "BYMONTHDAY": (1, 31, True),
    "BYYEARDAY": (1, 366, True),
    "BYWEEKNO": (1, 53, True),
    "BYMONTH": (1, 12, False),
    "BYSETPOS": (1, 366, True),
}
_NOT_WITH = {  # what the table in 3.3.10 marks as N/A
    "BYMONTHDAY": {"WEEKLY"},
    "BYYEARDAY": {"DAILY", "WEEKLY", "MONTHLY"},
    "BYWEEKNO": set(_FREQUENCIES) - {"YEARLY"},
}
_UNTIL = re.compile(r"\d{8}(T\d{6}Z?)?")
_DAY = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)")


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a rule. `byday`: place (0: every) and weekday (0: Monday); `until` as text."""

    freq: str
    interval: int = 1
    count: int | None = None
    until: str | None = None
    wkst: int = 0
    bysecond: tuple[int, ...] = ()
    byminute: tuple[int, ...] = ()
    byhour: tuple[int, ...] = ()
    byday: tuple[tuple[int, int], ...] = ()
    bymonthday: tuple[int, ...] = ()
    byyearday: tuple[int, ...] = ()
    byweekno: tuple[int, ...] = ()
    bymonth: tuple[int, ...] = ()
    bysetpos: tuple[int, ...] = ()


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When something comes again: every `interval` years, months, ... (`frequency`), when in them.

    `weekdays`: "MO" to "SU", or in monthly and yearly rules "1MO", "-1FR": the first, the last one.
    `month_days`: 1 to 31, or from the end: -1 to -31. `months`: 1 to 12. `times`: "HH:MM" or "HH:MM:SS", at
    which it comes in daily to yearly rules; several must be each of some hours with each of some minutes.
    What is left out is that of the start. `count`: so many times in all; else without end.

    `str(rule)` is the text of RFC 5545, which says more than this: `rule=` takes that as well.
    """

    frequency: Frequency
    interval: int = 1
    weekdays: tuple[str, ...] = ()
    month_days: tuple[int, ...] = ()
    months: tuple[int, ...] = ()
    times: tuple[str | time, ...] = ()
    count: int | None = None

    def __str__(self) -> str:
        parts: dict[str, object] = {"FREQ": str(self.frequency).upper()}
        if self.interval != 1:
            parts["INTERVAL"] = self.interval
        if self.count is not None:
            parts["COUNT"] = self.count
        parts["BYMONTH"] = _joined("months", self.months)
        parts["BYMONTHDAY"] = _joined("month_days", self.month_days)
        parts["BYDAY"] = _joined("weekdays", self.weekdays).upper()
        if self.times:
            parts |= _times(self.times)
        return ";".join(f"{name}={value}" for name, value in parts.items() if value != "")


def _joined(name: str, values: Iterable[object]) -> str:
    if isinstance(values, (str, int)):
        raise InvalidType(f"{name} must be several, like {name}=({values!r},), not {values!r}")
    return ",".join(map(str, values))


def _times(times: Iterable[str | time]) -> dict[str, object]:
    """Return the parts that say at what times of day."""
    if isinstance(times, str):
        raise InvalidType(f"times must be several, like times=({times!r},), not {times!r}")
    found = set()
    for text in times:
        try:
            at = text if isinstance(text, time) else time.fromisoformat(text)
        except (TypeError, ValueError):
            raise InvalidValue(f'times: {text!r} is no time of day like "09:30"') from None
        if at.tzinfo is not None or at.microsecond:
            raise InvalidValue(f"times: {text!r} must be in whole seconds, in the time zone that tz= says")
        found.add((at.hour, at.minute, at.second))
    columns = [sorted({at[place] for at in found}) for place in range(3)]
    if set(product(*columns)) != found:
        raise InvalidValue(
            f"times={times!r} are not each of some hours with each of some minutes, which is all that a"
            " rule can say; make a schedule of each"
        )
    names = ("BYHOUR", "BYMINUTE", "BYSECOND")
    return {name: ",".join(map(str, values)) for name, values in zip(names, columns, strict=True)}


# -- text -----------------------------------------------------------------------------------------


def checked_rule(rule: object) -> str:
    """Return the text of a rule, in capitals and without blanks, or say what is wrong with it."""
    if not isinstance(rule, (str, Rule)):
        raise InvalidType(f'rule must be a Rule, or text like "FREQ=WEEKLY;BYDAY=MO,WE", not {rule!r}')
    text = "".join(str(rule).split()).upper().removeprefix("RRULE:").rstrip(";")
    parsed(text)
    return text


@lru_cache(maxsize=1024)
def parsed(text: str) -> Parts:
    """Return the parts of a rule's text; `InvalidValue` says what is wrong with it."""
    found: dict[str, Any] = {}
    if "DTSTART" in text:
        raise _wrong(text, "DTSTART is not said in the rule; give start=")
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise _wrong(text, f'{part!r} is no part like "FREQ=DAILY"')
        if name.lower() in found:
            raise _wrong(text, f"{name} is said twice")
        found[name.lower()] = _value(text, name, value)
    if "freq" not in found:
        raise _wrong(text, f"it must say FREQ=, one of {', '.join(_FREQUENCIES)}")
    parts = Parts(**found)
    _check_together(text, parts)
    return parts


def _value(text: str, name: str, value: str) -> object:
    """Return the value of one part of a rule."""
    if name in _RANGES:
        return _numbers(text, name, value)
    if name == "BYDAY":
        return tuple(dict.fromkeys(_weekday(text, day) for day in value.split(",")))
    if name == "FREQ" and value in _FREQUENCIES:
        return value
    if name in ("INTERVAL", "COUNT") and value.isascii() and value.isdigit():
        most = MOST if name == "COUNT" else 1_000_000
        if 1 <= int(value) <= most:
            return int(value)
        out = "; max_runs= ends a schedule after more runs" if name == "COUNT" else ""
        raise _wrong(text, f"{name}={value} must be 1 to {most:,}{out}")
    if name == "UNTIL" and _UNTIL.fullmatch(value):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise _wrong(text, f"UNTIL={value} is not in the calendar") from None
        return value
    if name == "WKST" and value in WEEKDAYS:
        return WEEKDAYS.index(value)
    known = {"FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", *_RANGES}
    raise _wrong(text, f"{name}={value} is not known" if name in known else f"there is no part {name}")


def _numbers(text: str, name: str, value: str) -> tuple[int, ...]:
    lowest, highest, signed = _RANGES[name]
    found = set()
    for number in value.split(","):
        digits = number.lstrip("+-") if signed and number[1:].isdigit() else number
        if not (digits.isascii() and digits.isdigit()) or not lowest <= int(digits) <= highest:
            also = f", or -{highest} to -{lowest}" if signed else ""
            raise _wrong(text, f"{name}={number} must be {lowest} to {highest}{also}")
        found.add(int(number))
    if name == "BYSECOND" and 60 in found:  # a leap second, which our clocks do not have
        found = found - {60} | {59}
    return tuple(sorted(found))


def _weekday(text: str, day: str) -> tuple[int, int]:
    match = _DAY.fullmatch(day)
    place = int(match[1] or 0) if match else 0
    if match is None or (match[1] and not 1 <= abs(place) <= 53):
        raise _wrong(text, f"BYDAY={day} must be of {', '.join(WEEKDAYS)}, or with a place: 1MO, -1FR")
    return place, WEEKDAYS.index(match[2])


def _check_together(text: str, parts: Parts) -> None:
    """Check what the RFC says of parts that go together."""
    for name, frequencies in _NOT_WITH.items():
        if getattr(parts, name.lower()) and parts.freq in frequencies:
            raise _wrong(text, f"{name} does not go with FREQ={parts.freq}")
    if any(place for place, _ in parts.byday):
        if parts.freq not in ("MONTHLY", "YEARLY"):
            raise _wrong(text, f"weekdays with a place (1MO) do not go with FREQ={parts.freq}")
        if parts.byweekno:
            raise _wrong(text, "weekdays with a place (1MO) do not go with BYWEEKNO")
    if parts.count and parts.until:
        raise _wrong(text, "COUNT and UNTIL do not go together; leave out one")
    if parts.bysetpos and not any(
        getattr(parts, name.lower()) for name in ("BYDAY", *_RANGES) if name != "BYSETPOS"
    ):
        raise _wrong(text, "BYSETPOS needs another part to take from, like BYDAY")


def _wrong(text: str, reason: str) -> InvalidValue:
    return InvalidValue(f"rule={text!r}: {reason}")
