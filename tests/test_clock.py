"""Time and identity: nothing runs early, ids grow, wrong values are refused by name."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from fractions import Fraction
from itertools import pairwise
from uuid import RFC_4122, UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backlite_async import BackliteError
from backlite_async._clock import (
    MAX_SECONDS,
    IdFactory,
    SystemClock,
    after,
    aware,
    from_millis,
    seconds,
    to_millis,
    whole_millis,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLIS_48 = (1 << 48) - 1

zones = st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))
instants = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones)
stored = st.integers(-62_135_596_800_000, 253_402_300_799_999)
durations = st.floats(0, MAX_SECONDS)


class StandIn:
    """A clock that shows what it is told to, and then goes on showing the last of it."""

    def __init__(self, readings: Sequence[int]) -> None:
        self.readings = list(readings)

    def now(self) -> int:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    def monotonic(self) -> float:
        return 0.0


# -- instants -------------------------------------------------------------------------------------


@given(instants)
def test_a_stored_instant_is_never_early_and_less_than_a_millisecond_late(instant: datetime) -> None:
    """What is meant for an instant is stored for it or for the next whole millisecond."""
    back = from_millis(to_millis(instant))
    assert timedelta(0) <= back - instant < timedelta(milliseconds=1)


@given(stored)
def test_a_stored_instant_survives_both_conversions(millis: int) -> None:
    """Milliseconds to datetime and back is the identity, over all years that datetime knows."""
    instant = from_millis(millis)
    assert to_millis(instant) == millis
    assert instant.utcoffset() == timedelta(0)


@given(instants, zones)
def test_the_time_zone_does_not_matter(instant: datetime, zone: tzinfo) -> None:
    """One instant written in two zones is stored as the same number."""
    assert to_millis(instant) == to_millis(instant.astimezone(zone))


@given(instants, instants)
def test_stored_instants_keep_their_order(one: datetime, other: datetime) -> None:
    """An earlier instant is never stored as a later one."""
    if one <= other:
        assert to_millis(one) <= to_millis(other)


@pytest.mark.parametrize(
    "instant",
    [
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
    ],
    ids=["max", "max west of UTC", "min east of UTC"],
)
def test_the_ends_of_the_calendar_can_be_stored_and_read(instant: datetime) -> None:
    """`datetime.max`, which people write for "never", does not make a record that cannot be read."""
    assert abs(from_millis(to_millis(instant)) - EPOCH) > timedelta(days=1969 * 365)


def test_an_aware_datetime_is_taken_as_it_is() -> None:
    """`aware` hands back the very object."""
    instant = datetime(2024, 2, 29, tzinfo=UTC)
    assert aware("at", instant) is instant


@pytest.mark.parametrize("value", [None, 0, 1.5, "2024-01-01", EPOCH.date(), timedelta(1)])
def test_what_is_no_datetime_is_a_type_error_with_name_and_value(value: object) -> None:
    """An instant of another type is refused, naming the argument and the value."""
    with pytest.raises(TypeError) as caught:
        aware("at", value)
    assert isinstance(caught.value, BackliteError)
    assert str(caught.value) == f"at must be a datetime, not {value!r}"


class NoOffset(tzinfo):
    def utcoffset(self, dt: datetime | None, /) -> None: ...

    def tzname(self, dt: datetime | None, /) -> None: ...

    def dst(self, dt: datetime | None, /) -> None: ...


@pytest.mark.parametrize("zone", [None, NoOffset()])
def test_a_naive_datetime_is_a_value_error_that_says_what_to_write(zone: tzinfo | None) -> None:
    """A naive instant, also one whose zone knows no offset, is refused with the remedy."""
    naive = datetime(2024, 1, 1, tzinfo=zone)
    with pytest.raises(ValueError, match="has no time zone") as caught:
        aware("Snooze.until", naive)
    assert isinstance(caught.value, BackliteError)
    assert str(caught.value).startswith(f"Snooze.until={naive!r}")
    assert "datetime.now(UTC)" in str(caught.value)


# -- durations ------------------------------------------------------------------------------------


@given(st.one_of(durations, st.integers(0, int(MAX_SECONDS))))
def test_a_number_of_seconds_is_taken_as_it_is(value: float) -> None:
    """Seconds stay seconds, as a float."""
    result = seconds("x", value)
    assert result == value
    assert type(result) is float


@given(st.timedeltas(timedelta(0), timedelta(seconds=MAX_SECONDS)))
def test_a_timedelta_is_its_seconds(value: timedelta) -> None:
    """A timedelta means the same as its number of seconds."""
    assert seconds("x", value) == seconds("x", value.total_seconds())


@pytest.mark.parametrize("value", [None, "5", b"5", True, False, 1j, Fraction(1, 2), [1], EPOCH])
def test_what_is_no_duration_is_a_type_error_with_name_and_value(value: object) -> None:
    """A duration of another type, also a bool, is refused, naming the argument and the value."""
    with pytest.raises(TypeError) as caught:
        seconds("wait", value)
    assert isinstance(caught.value, BackliteError)
    assert str(caught.value) == f"wait must be a number of seconds or a timedelta, not {value!r}"


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -1e-9,
        float("nan"),
        float("inf"),
        float("-inf"),
        MAX_SECONDS + 1,
        timedelta(microseconds=-1),
        timedelta.max,
        timedelta.min,
        pytest.param(10**400, id="an int that no float can hold"),
    ],
)
def test_an_impossible_duration_is_a_value_error_with_name_and_value(value: object) -> None:
    """A negative, endless or absurd duration is refused, naming the argument and the value."""
    with pytest.raises(ValueError, match="between 0 and 100 years") as caught:
        seconds("wait", value)
    assert isinstance(caught.value, BackliteError)
    assert str(caught.value).startswith(f"wait={value!r}")


@given(durations)
def test_whole_milliseconds_are_never_too_few_nor_one_too_many(duration: float) -> None:
    """A duration is rounded up to milliseconds, but for what is below a billionth of a second."""
    exact = Fraction(duration) * 1000
    tolerance = max(Fraction(1, 10**6), exact / 10**15)
    assert exact - tolerance <= whole_millis(duration) < exact + 1 + tolerance


@given(st.integers(0, 10**9))
@example(2007)  # 2.007 * 1000 is 2007.0000000000002
def test_whole_milliseconds_stay_what_they_are(millis: int) -> None:
    """Up to days, where floats are exact enough, rounding up adds nothing to whole milliseconds."""
    assert whole_millis(millis / 1000) == millis


@given(st.fractions(0, 4 * 10**12), st.floats(0, 10**6))
@example(Fraction(1, 2), 0.001)
def test_after_is_never_early_however_the_reading_was_rounded(real: Fraction, duration: float) -> None:
    """The clock is read rounded down; what is due after a wait is due no earlier all the same."""
    reading = int(real)
    due = after(reading, duration)
    assert due >= real + Fraction(duration) * 1000 - Fraction(1, 10**6) or duration == 0
    assert due <= real + Fraction(duration) * 1000 + 3


@given(st.integers(0, 10**13))
def test_after_nothing_is_now(now: int) -> None:
    """No wait at all is due at once, not a millisecond later."""
    assert after(now, 0.0) == now


# -- clocks ---------------------------------------------------------------------------------------


def test_the_system_clock_reads_both_clocks_and_rounds_down() -> None:
    """`now` is whole milliseconds of wall time, never ahead of it; `monotonic` that of the system."""
    clock = SystemClock()
    before = time.time_ns()
    reading = clock.now()
    assert before // 1_000_000 <= reading <= time.time_ns() / 1_000_000
    start = time.monotonic()
    assert start <= clock.monotonic() <= time.monotonic()


# -- ids ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 1 << 47), min_size=2, max_size=60), st.integers())
@example([5] * 30, 0)
@example(list(range(30, 0, -1)), 0)
def test_ids_are_uuid7_and_grow_whatever_the_clock_does(readings: list[int], seed: int) -> None:
    """Each id is a valid UUIDv7 and greater, as text too, than all before it."""
    ids = IdFactory(StandIn(readings), random.Random(seed))
    made = [ids.next() for _ in readings]
    for text in made:
        value = UUID(text)
        assert (value.version, value.variant) == (7, RFC_4122)
        assert str(value) == text
    assert made == sorted(set(made))


@given(st.lists(st.integers(0, 1 << 47), min_size=1, max_size=20, unique=True).map(sorted))
def test_an_id_tells_its_millisecond_while_the_clock_goes_forward(readings: list[int]) -> None:
    """The first 48 bits are the time of making, so that ids sort by it."""
    ids = IdFactory(StandIn(readings), random.Random(1))
    assert [UUID(ids.next()).int >> 80 for _ in readings] == readings


class AllOnes(random.Random):
    def getrandbits(self, k: int, /) -> int:
        return (1 << k) - 1


def test_ids_grow_when_the_random_part_overflows() -> None:
    """A full random part carries over into the time instead of starting again below."""
    ids = IdFactory(StandIn([1]), AllOnes())
    made = [ids.next() for _ in range(1000)]
    assert made == sorted(set(made))
    assert all(UUID(text).version == 7 for text in made)


def test_ids_of_two_factories_differ() -> None:
    """Two processes that make ids in the same millisecond do not make the same ones."""
    one, other = (IdFactory(StandIn([1]), random.Random(seed)) for seed in (1, 2))
    made = {ids.next() for ids in (one, other) for _ in range(500)}
    assert len(made) == 1000


def test_ids_cannot_be_guessed_from_their_neighbours() -> None:
    """Ids of one millisecond are not simply counted up."""
    ids = IdFactory(StandIn([1]), random.Random(3))
    made = [UUID(ids.next()).int for _ in range(100)]
    assert len({b - a for a, b in pairwise(made)}) > 90
