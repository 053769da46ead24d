"""When schedules are due: what their arguments mean, and which instants follow from that.

Cron expressions and rules of days go by the wall clock: what it does not show, as it is set forward, is due
at the instant at which it is; what it shows twice is due the first time. Intervals, cron expressions of
every hour, and rules of hours, minutes and seconds go by real time.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache, partial
from itertools import islice

import msgspec

from ._clock import aware, from_millis, seconds, to_millis, whole_millis
from ._cron import checked_cron, keeps_beat, walk_cron
from ._errors import InvalidType, InvalidValue
from ._recurrence import check_dateutil, keeps_rule_beat, walk_rule
from ._recurring import Timing
from ._rule import Parts, checked_rule, parsed
from ._said import words
from ._zones import DAY, LAST, beat, local, to_local, wall, zone

__all__ = ["jitter", "last_of", "next_after", "occurrences", "preview", "timing", "words"]

SHORTEST = 10
"""The shortest interval in milliseconds."""

MOST_INSTANTS = 10_000
"""How many instants `at=` takes."""

FIRST = to_millis(datetime(1900, 1, 1, tzinfo=UTC))
"""Nothing is due before this."""

HORIZON = 100 * 366 * DAY
"""How far is looked ahead: what does not come in a hundred years does not come."""


# -- what was said --------------------------------------------------------------------------------


def timing(
    *,
    now: int,
    cron: str | None = None,
    every: float | timedelta | None = None,
    rule: object = None,
    at: Iterable[datetime] | None = None,
    tz: str = "UTC",
    start: datetime | None = None,
    end: datetime | None = None,
) -> Timing:
    """Check what was said of a schedule, and return it as plain data.

    `now` becomes the anchor, from which intervals and rules without a start are counted. It is no part
    of what was said: two timings say the same if they are equal but for their anchors.
    """
    said = _the_one({"cron": cron, "every": every, "rule": rule, "at": at})
    zone(tz)
    text = checked_rule(rule) if rule is not None else None
    if text is not None:
        check_dateutil()
    begins = _instant("start", start)
    if begins is not None and text is not None:
        begins -= begins % 1000  # a rule begins with a whole second
    made = Timing(
        cron=checked_cron(cron) if cron is not None else None,
        every=_interval(every) if every is not None else None,
        rule=text,
        at=_instants(at) if at is not None else None,
        tz=tz,
        anchor=now if begins is None and said in ("every", "rule") else 0,
        start=begins,
        end=_instant("end", end),
    )
    _check_comes(made)
    return made


def _the_one(given: dict[str, object]) -> str:
    said = [name for name, value in given.items() if value is not None]
    if len(said) != 1:
        wrong = " and ".join(f"{name}=" for name in said) or "none of them"
        raise InvalidValue(f"a schedule has one of cron=, every=, rule= and at=, not {wrong}")
    return said[0]


def _instant(name: str, value: datetime | None) -> int | None:
    return None if value is None else to_millis(aware(name, value))


def _interval(every: object) -> int:
    millis = whole_millis(seconds("every", every))
    if millis < SHORTEST:
        raise InvalidValue(f"every={every!r} must be at least {SHORTEST / 1000} s")
    return millis


def _instants(at: Iterable[datetime]) -> tuple[int, ...]:
    if isinstance(at, (str, datetime)) or not isinstance(at, Iterable):
        raise InvalidType(f"at must be several datetimes, like at=[...], not {at!r}")
    found = {to_millis(aware("at", instant)) for instant in at}
    if not 1 <= len(found) <= MOST_INSTANTS:
        raise InvalidValue(
            f"at={len(found)} instants must be 1 to {MOST_INSTANTS:,}; rule= and cron= say more"
        )
    return tuple(sorted(found))


def _check_comes(made: Timing) -> None:
    """Check that something is due at all, by what was said alone: not by when it is said.

    So code that declares what ended last year goes on to be right.
    """
    if made.start is not None and made.end is not None and made.end < made.start:
        raise InvalidValue(f"end={from_millis(made.end)} is before start={from_millis(made.start)}")
    if made.start is not None or made.at is not None:
        comes = next_after(made, _floor(made) - 1)
    else:
        comes = next_after(_endless(made), made.anchor)
    if comes is None:
        what = f"cron={made.cron!r}" if made.cron else f"rule={made.rule!r}" if made.rule else "at="
        bounds = " from start to end" if made.end is not None else " after start"
        hint = "" if made.start is None else bounds
        if made.start is None and made.rule is not None:
            hint = ", counted from now (start= says otherwise)"
        raise InvalidValue(f"{what} never comes{hint}; a schedule must be due at least once")


def _endless(made: Timing) -> Timing:
    rule = made.rule and ";".join(part for part in made.rule.split(";") if not part.startswith("UNTIL="))
    return Timing(cron=made.cron, every=made.every, rule=rule, at=made.at, tz=made.tz, anchor=made.anchor)


# -- what follows ---------------------------------------------------------------------------------


def next_after(timing: Timing, instant: int) -> int | None:
    """Return the first instant that is due strictly after `instant`; None: there is none."""
    found = next(_instants_after(timing, instant), None)
    return found if found is None or timing.end is None or found <= timing.end else None


def occurrences(timing: Timing, after: int, until: int, most: int) -> list[int]:
    """Return the first `most` instants that are due after `after`, up to and including `until`."""
    until = until if timing.end is None else min(until, timing.end)
    found: list[int] = []
    while len(found) < most:
        had = len(found)
        for instant in islice(_instants_after(timing, after), most - had):
            if instant > until:
                return found
            found.append(instant)
        if len(found) == had:
            break
        after = found[-1]  # it looks ahead for a hundred years at a time
    return found


def last_of(timing: Timing, after: int, until: int) -> int | None:
    """Return the last instant that is due after `after`, up to and including `until`; None: there is none.

    It looks for where `next_after` passes `until`, not at each: months of a busy schedule take no longer.
    """
    last, width = None, 1000
    while last is None:
        low = max(until - width, after)
        last = _next_until(timing, low, until)
        if last is None and low <= after:
            return None
        width *= 8
    high = until
    while high - last > 1:
        later = _next_until(timing, last, until)
        if later is None:
            break
        middle = (later + high) // 2
        found = _next_until(timing, middle, until)
        if found is None:
            last, high = later, middle
        else:
            last = found
    return last


def preview(timing: Timing, after: int, n: int) -> list[datetime]:
    """Return the next `n` times that are due after an instant, in the schedule's time zone."""
    found = occurrences(timing, after, LAST * 1000, n)
    return [from_millis(instant).astimezone(zone(timing.tz)) for instant in found]


def jitter(job_id: str, most: int) -> int:
    """Return how many milliseconds later a run starts, 0 to `most`: for a job the same on every machine."""
    drawn = hashlib.blake2b(job_id.encode(), digest_size=8).digest()
    return int.from_bytes(drawn) * (most + 1) >> 64


# -- instants -------------------------------------------------------------------------------------


def _next_until(timing: Timing, after: int, until: int) -> int | None:
    found = next_after(timing, after)
    return found if found is not None and found <= until else None


def _floor(timing: Timing) -> int:
    """Return the first instant that may be due: the start, or whatever comes after the anchor."""
    if timing.start is not None:
        return timing.start
    return timing.anchor + 1 if timing.anchor else FIRST


def _instants_after(timing: Timing, instant: int) -> Iterator[int]:
    """Yield what is due after an instant, in order, whatever the end, for at least a hundred years."""
    instant = max(instant, _floor(timing) - 1)
    if instant >= LAST * 1000:
        return iter(())
    if timing.at is not None:
        return iter(timing.at[bisect_right(timing.at, instant) :])
    if timing.every is not None:
        begun = timing.anchor if timing.start is None else timing.start
        return _intervals(begun, timing.every, instant)
    if timing.cron is not None:
        return _millis(_walked(timing, instant))
    parts = parsed(timing.rule or "")
    if parts.count is not None:
        return _millis(_counted(timing, parts.count, instant // 1000))
    return _millis(_walked(timing, instant))


def _millis(found: Iterator[int]) -> Iterator[int]:
    return (second * 1000 for second in found)


def _intervals(begun: int, every: int, instant: int) -> Iterator[int]:
    due = instant + every - (instant - begun) % every
    while due <= LAST * 1000:
        yield due
        due += every


def _walked(timing: Timing, instant: int) -> Iterator[int]:
    """Yield the seconds after an instant in which it is due, by cron or by rule, whatever its COUNT."""
    tz = zone(timing.tz)
    first = instant // 1000 + 1
    until = min(first + HORIZON, LAST)
    low = local(tz, first - 1) + 1  # which a clock that was set forward just now may not have shown
    if timing.cron is not None:
        if keeps_beat(timing.cron):
            return beat(tz, first, until, partial(_cron_beat, timing.cron))
        return _shown(tz, walk_cron(timing.cron, low, until + 2 * DAY), first, until)
    parts = parsed(timing.rule or "")
    begun = (timing.anchor if timing.start is None else timing.start) // 1000
    until = min(until, _until(parts, tz))
    if keeps_rule_beat(parts):
        return beat(tz, first, until, partial(_rule_beat, parts, begun))
    return _shown(tz, walk_rule(parts, local(tz, begun), low, until + 2 * DAY), first, until)


def _cron_beat(expression: str, ahead: int, low: int, high: int) -> Iterator[int]:
    return walk_cron(expression, low, high)


def _rule_beat(parts: Parts, begun: int, ahead: int, low: int, high: int) -> Iterator[int]:
    return walk_rule(parts, begun + ahead, low, high)


def _shown(tz: tzinfo, found: Iterator[int], first: int, until: int) -> Iterator[int]:
    """Yield the instants from `first` to `until` at which a wall clock shows what was found, each once."""
    last = first - 1
    for shown in found:
        due = wall(tz, shown)
        if due > until:
            return
        if due > last:
            yield due
            last = due


def _until(parts: Parts, tz: tzinfo) -> int:
    """Return the last second of a rule: of the day, if UNTIL is a date."""
    if parts.until is None:
        return LAST
    shown = to_local(datetime.fromisoformat(parts.until))
    if parts.until.endswith("Z"):
        return shown
    return wall(tz, shown) if "T" in parts.until else wall(tz, shown + DAY) - 1


def _counted(timing: Timing, most: int, instant: int) -> Iterator[int]:
    """Yield the seconds after one in which it is due, of the first `most` in all.

    They have to be counted from the first one; so as many as it takes are kept.
    """
    whole = msgspec.structs.replace(timing, end=None)
    size = 16
    while True:
        found = _first_ones(whole, min(size, most))
        if size >= most or len(found) < size or found[-1] > instant:
            break
        size *= 4
    place = bisect_right(found, instant)
    yield from found[place:]
    if size < most and len(found) == size:
        yield from _first_ones(whole, most)[size:]


@lru_cache(maxsize=128)
def _first_ones(timing: Timing, most: int) -> tuple[int, ...]:
    return tuple(islice(_walked(timing, _floor(timing) - 1), most))
