"""Cron expressions: what they match on a wall clock, and what they say in plain English."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from types import ModuleType
from typing import TYPE_CHECKING

from ._errors import InvalidState, InvalidType, InvalidValue
from ._zones import from_local, to_local

if TYPE_CHECKING:
    from cronsim import CronSim

__all__ = ["checked_cron", "cron_words", "keeps_beat", "walk_cron"]

_FRIENDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_FIELDS = "minute, hour, day of the month, month, day of the week, or six with the second first"

_SOME_DAY = datetime(2000, 1, 1)


def checked_cron(expression: object) -> str:
    """Return a cron expression as it was given, but for its blanks, or say what is wrong with it."""
    if not isinstance(expression, str):
        raise InvalidType(f'cron must be text like "0 3 * * *", not {expression!r}')
    text = " ".join(expression.split())
    if text.startswith("@") and text.lower() not in _FRIENDS:
        out = "every= is for intervals" if text.startswith("@every") else f"there are {', '.join(_FRIENDS)}"
        raise InvalidValue(f"cron={expression!r} is not known; {out}")
    trouble = _cronsim().CronSimError
    try:
        next(_simulated(text, _SOME_DAY))
    except StopIteration:
        raise InvalidValue(f"cron={expression!r} never comes: no such day is in the calendar") from None
    except trouble as error:
        raise InvalidValue(
            f"cron={expression!r}: {str(error)[:1].lower()}{str(error)[1:]}; it has {_FIELDS},"
            " and only days that are in the calendar"
        ) from error
    return text


def keeps_beat(expression: str) -> bool:
    """Return whether an expression goes by real time: its hours are a wildcard, or all of them."""
    fields = _fields(expression)
    return "*" in fields[-4] or len(_simulated(expression, _SOME_DAY).hours) == 24


def walk_cron(expression: str, low: int, high: int) -> Iterator[int]:
    """Yield what a wall clock shows when an expression matches, from `low` to before `high`."""
    found = _simulated(expression, from_local(low) - timedelta(seconds=1))
    return takewhile(high.__gt__, map(to_local, found))


@lru_cache(maxsize=512)
def cron_words(expression: str) -> str:
    """Say in plain English when an expression matches."""
    said = _simulated(expression, _SOME_DAY).explain()
    return said[:1].upper() + said[1:]


def _fields(expression: str) -> list[str]:
    return _FRIENDS.get(expression.lower(), expression).upper().split()


def _simulated(expression: str, after: datetime) -> CronSim:
    """Return an iterator of what matches after a naive time, on a clock that is never set."""
    made: CronSim = _cronsim().CronSim(" ".join(_fields(expression)), after)
    return made


def _cronsim() -> ModuleType:
    try:
        import cronsim
    except ImportError as error:
        raise InvalidState('cron= needs cronsim: pip install "backlite_async[cron]"') from error
    return cronsim
