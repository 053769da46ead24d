"""Wall clocks: what they show at an instant, and at which instant they show something.

Both are whole seconds since 1970, of UTC or as a wall clock would count them ("local"). A time zone is
constant between two changes of its offset, and everything here goes by that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise

from ._errors import InvalidType, InvalidValue

__all__ = ["DAY", "LAST", "beat", "from_local", "local", "offset", "to_local", "wall", "zone"]

DAY = 86400
LAST = int(datetime(9900, 1, 1, tzinfo=UTC).timestamp())
"""Nothing is due after this: the calendar has an end."""

_EPOCH = datetime(1970, 1, 1)
_STRANGE = ("posix/", "right/", "localtime", "posixrules", "Factory", "leapseconds")


@lru_cache(maxsize=512)
def zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name, or say what is wrong with it."""
    if not isinstance(name, str):
        raise InvalidType(f'tz must be the IANA name of a time zone, like "Europe/Berlin", not {name!r}')
    if name == "UTC":
        return UTC  # which needs no data
    from zoneinfo import ZoneInfo

    try:
        if name and not name.startswith(_STRANGE):
            return ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # a path, a folder, unknown
        pass
    raise InvalidValue(
        f"tz={name!r} is not known here as the IANA name of a time zone; they look like"
        ' "Europe/Berlin". Where the system has no time zones: pip install "backlite_async[cron]"'
    )


def from_local(seconds: int) -> datetime:
    """Return what a wall clock shows, as a naive datetime."""
    return _EPOCH + timedelta(seconds=seconds)


def to_local(shown: datetime) -> int:
    """Return what a wall clock shows in seconds; time zone and fractions do not matter."""
    return (shown.toordinal() - 719163) * DAY + shown.hour * 3600 + shown.minute * 60 + shown.second


def offset(tz: tzinfo, instant: int) -> int:
    """Return how far a zone is ahead of UTC at an instant."""
    if tz is UTC:
        return 0
    return _whole((_EPOCH.replace(tzinfo=UTC) + timedelta(seconds=instant)).astimezone(tz).utcoffset())


def local(tz: tzinfo, instant: int) -> int:
    """Return what a wall clock shows at an instant."""
    return instant + offset(tz, instant)


def wall(tz: tzinfo, shown: int) -> int:
    """Return the instant at which a wall clock shows something.

    What it shows twice counts the first time; what it never shows, because it is set forward, at the
    instant at which it is.
    """
    if tz is UTC:
        return shown
    naive = from_local(shown).replace(tzinfo=tz)
    before, after = _whole(naive.utcoffset()), _whole(naive.replace(fold=1).utcoffset())
    if before >= after:  # shown once, or twice: a gap has the smaller offset first
        return shown - before
    late = shown - after  # too early to be shown, by the clock that was set forward
    return next(change for change in _changes_from(tz, late) if change > late and _is_real(tz, change))


def beat(tz: tzinfo, first: int, until: int, walk: Callable[[int, int, int], Iterator[int]]) -> Iterator[int]:
    """Yield the instants from `first` to `until` at which something is due in real time.

    `walk(offset, low, high)` yields, in order, what a wall clock with that constant offset shows when it
    is due, from `low` to before `high`. So nothing is due twice nor left out, whatever the zone does.
    """
    bounds = [until + 1] if tz is UTC else _changes_from(tz, first)
    for low, high in _stretches(first, until + 1, bounds):
        ahead = offset(tz, low)
        for shown in walk(ahead, low + ahead, high + ahead):
            yield shown - ahead


def _stretches(first: int, end: int, changes: Iterator[int] | list[int]) -> Iterator[tuple[int, int]]:
    low = first
    for change in changes:
        if change > low:
            yield low, min(change, end)
            low = change
        if change >= end:
            return


def _changes_from(tz: tzinfo, instant: int) -> Iterator[int]:
    """Yield the ends of stretches of a constant offset, and of years, around and after an instant."""
    year = from_local(instant).year
    while True:
        yield from _changes(tz, year)
        year += 1


@lru_cache(maxsize=4096)
def _changes(tz: tzinfo, year: int) -> tuple[int, ...]:
    """Return the instants of a year at which the offset changes, and the end of the year.

    No zone has ever kept an offset for less than a day.
    """
    days = [to_local(datetime(year, 1, 1)) + DAY * day for day in range(366)]
    days = [*(day for day in days if from_local(day).year == year), to_local(datetime(year + 1, 1, 1))]
    found = [_between(tz, low, high) for low, high in pairwise(days) if offset(tz, low) != offset(tz, high)]
    return tuple(sorted({*found, days[-1]}))


def _is_real(tz: tzinfo, change: int) -> bool:
    return offset(tz, change - 1) != offset(tz, change)


def _between(tz: tzinfo, low: int, high: int) -> int:
    """Return the first instant at which the offset is no longer that of `low`."""
    before = offset(tz, low)
    while high - low > 1:
        middle = (low + high) // 2
        if offset(tz, middle) == before:
            low = middle
        else:
            high = middle
    return high


def _whole(ahead: timedelta | None) -> int:
    return ahead.days * DAY + ahead.seconds if ahead is not None else 0
