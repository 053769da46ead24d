"""The wait after a failed attempt: bounded, monotone, never an overflow."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backlite_async import Backoff
from backlite_async._backoff import delay
from backlite_async._clock import MAX_SECONDS

spreads = st.floats(0, 1, exclude_max=True)
attempts = st.integers(1, 1_000_000)


@st.composite
def backoffs(draw: st.DrawFn, *, jitters: bool = True) -> Backoff:
    low, high = sorted([draw(st.floats(0, MAX_SECONDS)), draw(st.floats(0, MAX_SECONDS))])
    return Backoff(
        base=low,
        cap=high,
        factor=draw(st.floats(1, 1e308) | st.floats(1, 4)),
        jitter=draw(st.floats(0, 1)) if jitters else 0.0,
    )


@given(backoffs(), attempts, spreads)
@example(Backoff(base=1, factor=1e308, jitter=0), 3, 0.0)
@example(Backoff(base=0, factor=1e308, jitter=0), 1_000_000, 0.0)
@example(Backoff(base=5e-324, factor=2), 1025, 0.5)
def test_the_wait_lies_between_zero_and_the_cap(backoff: Backoff, attempt: int, spread: float) -> None:
    """Whatever the numbers, the wait is finite, not negative, and at most the cap."""
    assert isinstance(backoff.cap, float)
    assert 0 <= delay(backoff, attempt, spread) <= backoff.cap


@given(backoffs(jitters=False), attempts, attempts, spreads)
def test_without_jitter_waits_never_get_shorter(
    backoff: Backoff, one: int, other: int, spread: float
) -> None:
    """A later attempt waits at least as long as an earlier one."""
    first, last = sorted([one, other])
    assert delay(backoff, first, spread) <= delay(backoff, last, spread)


@given(backoffs(jitters=False), attempts, spreads, spreads)
def test_without_jitter_chance_does_not_matter(
    backoff: Backoff, attempt: int, one: float, other: float
) -> None:
    """The random number is used for the jitter only."""
    assert delay(backoff, attempt, one) == delay(backoff, attempt, other)


@given(backoffs(), attempts, spreads)
def test_jitter_spreads_by_its_fraction_only(backoff: Backoff, attempt: int, spread: float) -> None:
    """The wait differs from the one without jitter by at most the fraction, to both sides."""
    plain = delay(Backoff(base=backoff.base, cap=backoff.cap, factor=backoff.factor, jitter=0), attempt, 0.5)
    wait = delay(backoff, attempt, spread)
    slack = 1e-9 * plain + 1e-300
    assert plain * (1 - backoff.jitter) - slack <= wait <= plain * (1 + backoff.jitter) + slack


def test_jitter_uses_the_whole_range() -> None:
    """The ends of the random number are the ends of the range, its middle is the plain wait."""
    backoff = Backoff(base=10, jitter=0.2)
    assert [delay(backoff, 1, spread) for spread in (0.0, 0.25, 0.5, 0.75)] == pytest.approx([8, 9, 10, 11])
    assert 11.9 < delay(backoff, 1, 0.999) < 12


@given(st.floats(0, MAX_SECONDS), attempts, spreads)
def test_a_constant_backoff_is_constant(wait: float, attempt: int, spread: float) -> None:
    """A plain number means the same wait after every attempt."""
    assert delay(Backoff.constant(wait), attempt, spread) == wait


def test_the_defaults() -> None:
    """One second, then double, up to an hour."""
    waits = [delay(Backoff(), attempt, 0.5) for attempt in range(1, 14)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600]


def test_nothing_times_too_much_is_nothing() -> None:
    """With base 0 there is no wait, however often and however large the factor."""
    assert delay(Backoff(base=0, factor=1e308), 1_000, 0.9) == 0
