"""What is due of a schedule: what one tick does, by tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async._clock import from_millis
from backlite_async._due import BATCH, LATE, coming, passed_over, plan_tick, state_of, timing_of
from backlite_async._graph import follow_up_id
from backlite_async._job import NewJob
from backlite_async._recurring import StoredSchedule, Tick, Timing
from backlite_async._schedule import next_after, timing
from backlite_async.stores._schedules import ticked

BASE = 1_700_000_000_000
MINUTE = 60_000
MADE = BASE - 5 * MINUTE
JOB = NewJob(id="", queue="q", task="T", payload=b"{}", max_attempts=7, created_at=0, due_at=0, priority=3)


def minutely(**more: Any) -> Timing:
    """Due at BASE and every minute from then on."""
    return timing(now=MADE, every=60, start=from_millis(BASE), **more)


def stored(times: Timing | None = None, **more: Any) -> StoredSchedule:
    """A schedule that has been dealt with up to BASE, unless something else is said."""
    usual: dict[str, Any] = {
        "name": "s",
        "timing": msgspec.json.encode(times or minutely()).decode(),
        "job": JOB,
        "missed": "one",
        "overlap": True,
        "jitter": 0,
        "max_runs": None,
        "created_at": MADE,
        "updated_at": MADE,
        "next_at": BASE + MINUTE,
        "version": 4,
        "last_instant": BASE,
    }
    return StoredSchedule(**(usual | more))


def tick_of(schedule: StoredSchedule, now: int) -> Tick:
    return plan_tick(schedule, timing_of(schedule), now)


def instants(tick: Tick) -> list[float]:
    """Return for which minutes after BASE a tick adds jobs."""
    return [(job.due_at - BASE) / MINUTE for job in tick.jobs]


def test_one_that_is_due_is_added() -> None:
    """The job of the instant is added with all that is said of it, and the next instant is due then."""
    schedule = stored()
    tick = tick_of(schedule, BASE + MINUTE)
    assert tick == Tick(
        name="s",
        version=4,
        jobs=(
            msgspec.structs.replace(
                JOB,
                id=follow_up_id("schedule", "s", MADE, BASE + MINUTE),
                created_at=BASE + MINUTE,
                due_at=BASE + MINUTE,
                waits_from=None,
            ),
        ),
        next_at=BASE + 2 * MINUTE,
        last_instant=BASE + MINUTE,
        at=BASE + MINUTE,
        overlap=True,
    )
    assert not passed_over(schedule, tick)


@pytest.mark.parametrize(
    ("missed", "late", "expected", "next_in", "passed"),
    [
        ("one", 0, [1], 2, False),
        ("one", LATE, [1], 2, False),
        ("one", 59_999, [1], 2, False),
        ("one", MINUTE, [2], 3, True),
        ("one", 10 * MINUTE + LATE, [11], 12, True),
        ("all", 0, [1], 2, False),
        ("all", 3 * MINUTE + LATE, [1, 2, 3, 4], 5, False),
        ("none", 0, [1], 2, False),
        ("none", LATE - 1, [1], 2, False),
        ("none", LATE, [], 2, True),
        ("none", 5 * MINUTE + LATE - 1, [6], 7, True),
        ("none", 5 * MINUTE + LATE, [], 7, True),
    ],
)
def test_what_was_missed(missed: Any, late: int, expected: list[int], next_in: int, passed: bool) -> None:
    """Of several that are due, the last one is added, or all are, or the last one if it is only just due."""
    schedule = stored(missed=missed)
    tick = tick_of(schedule, BASE + MINUTE + late)
    assert instants(tick) == expected
    assert tick.next_at == BASE + next_in * MINUTE
    assert tick.last_instant == BASE + (next_in - 1) * MINUTE
    assert passed_over(schedule, tick) is passed


def test_all_come_in_batches() -> None:
    """What is made up for after a long time comes in batches, one after the other, each instant once."""
    schedule, now, found = stored(missed="all"), BASE + 250 * MINUTE, []
    while schedule.next_at is not None and schedule.next_at <= now:
        tick = tick_of(schedule, now)
        assert 0 < len(tick.jobs) <= BATCH
        found += instants(tick)
        schedule = msgspec.structs.replace(schedule, next_at=tick.next_at, last_instant=tick.last_instant)
    assert found == list(range(1, 251))
    assert schedule.next_at == BASE + 251 * MINUTE


@pytest.mark.parametrize("missed", ["one", "all", "none"])
def test_nothing_is_due_after_the_end(missed: Any) -> None:
    """The last run before the end is added, and the schedule is completed."""
    schedule = stored(minutely(end=from_millis(BASE + 3 * MINUTE)), missed=missed, next_at=BASE + 3 * MINUTE)
    tick = tick_of(schedule, BASE + 3 * MINUTE)
    assert (instants(tick), tick.next_at) == ([3], None)


def test_what_was_due_before_the_end_is_made_up_after_it() -> None:
    """A process that was away at the end adds what `missed` says, though the end is over."""
    times = minutely(end=from_millis(BASE + 3 * MINUTE))
    late = BASE + 60 * MINUTE
    assert instants(tick_of(stored(times), late)) == [3]
    assert instants(tick_of(stored(times, missed="all"), late)) == [1, 2, 3]
    assert instants(tick_of(stored(times, missed="none"), late)) == []
    assert tick_of(stored(times, missed="none"), late).next_at is None


@pytest.mark.parametrize(("runs", "expected"), [(0, [1, 2, 3]), (1, [1, 2]), (2, [1]), (3, []), (9, [])])
def test_no_more_than_max_runs_are_added(runs: int, expected: list[int]) -> None:
    """As many are added as are left, and then the store completes the schedule."""
    schedule = stored(missed="all", max_runs=3, runs=runs)
    tick = tick_of(schedule, BASE + 8 * MINUTE)
    assert instants(tick) == expected
    jobs, skipped, next_at = ticked(tick, runs=runs, max_runs=3, is_live=False)
    assert (len(jobs), skipped, next_at) == (len(expected), 0, None)
    assert not passed_over(schedule, tick)


def test_overlap_is_left_to_the_store() -> None:
    """Whether the last job is live is seen in the transaction alone: the tick says only what to do then."""
    tick = tick_of(stored(overlap=False, last_job_id="x"), BASE + MINUTE)
    assert (instants(tick), tick.overlap) == ([1], False)


def test_jitter_follows_from_the_job() -> None:
    """A run starts later by up to the jitter, and by the same whoever works it out, and when."""
    schedule = stored(missed="all", jitter=30_000)
    first, again = tick_of(schedule, BASE + 100 * MINUTE), tick_of(schedule, BASE + 101 * MINUTE)
    late = [job.due_at - (BASE + number * MINUTE) for number, job in enumerate(first.jobs, 1)]
    assert [job.due_at for job in again.jobs] == [job.due_at for job in first.jobs]
    assert min(late) >= 0
    assert max(late) <= 30_000
    assert len(set(late)) > 50
    assert tick_of(schedule, BASE + MINUTE).last_instant == BASE + MINUTE  # which is not moved by it


def test_a_clock_that_steps_forth_and_back_repeats_nothing() -> None:
    """After a step forward the next instant is one that was not dealt with, whatever the clock says."""
    ahead = tick_of(stored(), BASE + 90 * MINUTE)
    schedule = stored(next_at=ahead.next_at, last_instant=ahead.last_instant, version=5)
    assert schedule.next_at == BASE + 91 * MINUTE
    back = tick_of(schedule, BASE + 91 * MINUTE)
    assert not {job.id for job in ahead.jobs} & {job.id for job in back.jobs}


def test_ids_name_the_schedule_and_the_instant() -> None:
    """Another name, another life of the same name and another instant are other jobs."""
    ids = [
        tick_of(there, BASE + late).jobs[0].id
        for there, late in [
            (stored(), MINUTE),
            (stored(), 2 * MINUTE),
            (stored(name="t"), MINUTE),
            (stored(created_at=MADE + 1), MINUTE),
        ]
    ]
    assert len(set(ids)) == 4
    assert tick_of(stored(), BASE + MINUTE + 5).jobs[0].id == ids[0]


def test_an_instant_that_is_no_longer_one_adds_nothing() -> None:
    """Where a time zone has other rules now, the schedule moves on to the instant that they give."""
    times = timing(now=MADE, at=[from_millis(BASE + 2 * MINUTE)])
    tick = tick_of(stored(times), BASE + MINUTE)
    assert (tick.jobs, tick.next_at, tick.last_instant) == ((), BASE + 2 * MINUTE, None)


@given(
    lates=st.lists(st.integers(0, 500 * MINUTE), min_size=1, max_size=8),
    missed=st.sampled_from(["one", "all", "none"]),
    max_runs=st.none() | st.integers(1, 20),
)
def test_instants_only_grow(lates: list[int], missed: Any, max_runs: int | None) -> None:
    """Whenever somebody looks, the clock may be anywhere: no instant comes twice, and each is due."""
    schedule, seen = stored(missed=missed, max_runs=max_runs), []
    for late in lates:
        now = BASE + late
        while schedule.next_at is not None and schedule.next_at <= now:
            tick = tick_of(schedule, now)
            jobs, _, next_at = ticked(tick, runs=schedule.runs, max_runs=max_runs, is_live=False)
            assert next_at is None or next_at > schedule.next_at
            seen += [job.due_at for job in jobs]
            assert all(job.due_at <= now for job in jobs)
            schedule = msgspec.structs.replace(
                schedule, next_at=next_at, last_instant=tick.last_instant, runs=schedule.runs + len(jobs)
            )
    assert seen == sorted(set(seen))
    assert max_runs is None or len(seen) <= max_runs
    if missed == "all" and max_runs is None:
        assert seen == list(range(BASE + MINUTE, BASE + max(lates) + 1, MINUTE))


@pytest.mark.parametrize(
    ("more", "now", "state"),
    [
        ({"next_at": BASE}, BASE - 1, "draft"),
        ({"next_at": BASE}, BASE, "active"),
        ({}, BASE + 5 * MINUTE, "active"),
        ({"next_at": None, "paused_at": BASE}, BASE, "paused"),
        ({"next_at": None, "paused_at": BASE}, BASE - 1, "paused"),
        ({"next_at": None}, BASE, "completed"),
        ({"next_at": None}, BASE - 1, "completed"),
    ],
)
def test_states(more: dict[str, Any], now: int, state: str) -> None:
    """A schedule has not begun, goes on, is paused, or has nothing left to do."""
    schedule = stored(**more)
    assert state_of(schedule, timing_of(schedule), now) == state


def test_what_is_coming() -> None:
    """The next times are told from the next instant on, no more than there will be."""
    start = datetime.fromtimestamp(BASE / 1000, UTC)
    times = [start + timedelta(minutes=number) for number in range(1, 6)]
    assert list(coming(stored(), minutely(), 5)) == times
    assert list(coming(stored(max_runs=5, runs=3), minutely(), 5)) == times[:2]
    assert list(coming(stored(next_at=None), minutely(), 5)) == []
    assert next_after(minutely(), BASE) == BASE + MINUTE
