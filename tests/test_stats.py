"""What is counted of attempts: buckets of times, percentiles of histograms, counts that end somewhere."""

from __future__ import annotations

import pickle
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async._stats import WHATS, Count, QueueStats, bucket, bucket_time, queue_stats

CENTURY = 100 * 366 * 86_400 * 1_000_000
times = st.integers(0, 50) | st.integers(0, CENTURY)
"""Microseconds, short ones more often."""


def micros(value: timedelta) -> float:
    return value / timedelta(microseconds=1)


# -- buckets --------------------------------------------------------------------------------------


@given(times, times)
def test_buckets_keep_the_order(one: int, other: int) -> None:
    """A longer time is in the same bucket or a later one."""
    assert bucket(min(one, other)) <= bucket(max(one, other))


def test_buckets_leave_no_number_out() -> None:
    """From one microsecond to the next the bucket stays or is the next one."""
    assert [bucket(time) for time in range(17)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12]
    for shift in range(50):
        for time in (4 << shift, 5 << shift, 6 << shift, 7 << shift):
            assert bucket(time) == bucket(time - 1) + 1


@given(times)
def test_the_time_of_a_bucket_is_right_within_an_eighth(time: int) -> None:
    """What a bucket says differs from what was put into it by an eighth at most."""
    assert abs(bucket_time(bucket(time)) - time) <= time / 8


@given(st.integers(0, 250))
def test_a_bucket_has_its_own_time(number: int) -> None:
    """The middle of a bucket is in that bucket."""
    assert bucket(int(bucket_time(number))) == number


@given(st.integers(max_value=0))
def test_a_time_that_cannot_be_is_none(time: int) -> None:
    """A wait that a step of the clock has made negative counts as no wait."""
    assert bucket(time) == 0


def test_a_century_has_few_buckets() -> None:
    """A histogram of any times stays small."""
    assert bucket(CENTURY) < 210


# -- sums -----------------------------------------------------------------------------------------


@given(st.lists(times, min_size=1, max_size=200), st.sampled_from(["run", "wait"]))
def test_percentiles_are_those_of_the_sorted_list(values: list[int], what: str) -> None:
    """The p-th percentile is the time of the first value that p in a hundred do not exceed."""
    rows = [(what, place, number) for place, number in Counter(map(bucket, values)).items()]
    found = getattr(queue_stats(rows, timedelta(minutes=1)), what)
    values.sort()
    for percent, percentile in ((50, found.p50), (90, found.p90), (99, found.p99), (100, found.longest)):
        exact = values[-(-percent * len(values) // 100) - 1]
        assert abs(micros(percentile) - exact) <= exact / 8 + 0.5  # a timedelta has no half microseconds


@given(
    st.lists(
        st.tuples(st.sampled_from([*WHATS, "run", "wait", "novel"]), st.integers(0, 20), st.integers(1, 9))
    )
)
def test_rows_are_summed_up(rows: list[tuple[str, int, int]]) -> None:
    """Rows of several minutes and processes add up, in any order; what nobody knows is left out."""
    stats = queue_stats(rows, timedelta(seconds=10))
    for what in WHATS:
        assert getattr(stats, what) == sum(number for name, _, number in rows if name == what)
    assert stats == queue_stats(reversed(rows), timedelta(seconds=10))
    assert (stats.run is None) == all(name != "run" for name, _, _ in rows)
    assert stats.ended == stats.succeeded + stats.failed + stats.cancelled
    assert stats.throughput == stats.ended / 10


def test_percentiles_of_a_hundred_times() -> None:
    """They are those of the 50th, 90th, 99th and 100th, whatever minutes and processes these come from."""
    rows = [("run", place, 1) for place in [1] * 50 + [2] * 40 + [3] * 9 + [4]]
    found = queue_stats(rows, timedelta()).run
    assert found is not None
    assert [micros(found.p50), micros(found.p90), micros(found.p99), micros(found.longest)] == [1, 2, 3, 4]
    earlier = [("run", 1, 0), ("run", 4, 1)]
    moved = queue_stats(rows + earlier, timedelta()).run
    assert moved is not None
    assert [micros(moved.p50), micros(moved.p90), micros(moved.p99)] == [2, 3, 4]


def test_nothing_counted() -> None:
    """Of no time and of no attempts there are no percentiles, and nobody divides by zero."""
    assert queue_stats([], timedelta()) == QueueStats()
    assert (QueueStats().throughput, QueueStats().ended, QueueStats().run) == (0.0, 0, None)


# -- counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "shown", "value", "capped"), [(0, "0", 0, False), (9, "9", 9, False), (10, "9+", 9, True)]
)
def test_a_count_says_where_it_ended(number: int, shown: str, value: int, capped: bool) -> None:
    """Counted up to one more than the most, a count is capped there, and shows it."""
    count = Count.of(number, 9)
    assert (str(count), f"{count}", repr(count), int(count), count.capped) == (
        shown, shown, shown, value, capped,
    )  # fmt: skip
    copy = pickle.loads(pickle.dumps(count))
    assert (copy, copy.capped) == (count, count.capped)
    assert count == value
