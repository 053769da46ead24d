"""Sleeping and waking, in short; traces and histories that the row must not let pass."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from .kit import Budget, Missing, Row
from .t11_wake_ups import judge_adds, judge_crashes, judge_idle, run
from .wakeups import Wakes, calls, wakes

Event = dict[str, Any]


def test_the_idle_sleep_and_the_needed_wake() -> None:
    """Every bar holds in seconds."""
    try:
        row = run(Budget(5.0, least=20))
    except Missing as missing:
        pytest.skip(str(missing))
    assert row.failures == []
    assert (row.lost, row.hangs) == (0, 0)


TRACE = """\
7 100.000000 epoll_wait(0x3, 0x7f00, 0x2, 0x7530 <unfinished ...>
8 100.000000 futex(0x7fed, FUTEX_WAIT_BITSET, 0, {tv_sec=60, tv_nsec=500000000}, MATCH_ANY <unfinished ...>
9 100.100000 futex(0x7fee, FUTEX_WAIT_BITSET|FUTEX_CLOCK_REALTIME, 0, NULL, MATCH_ANY <unfinished ...>
8 110.500000 <... futex resumed>) = -1 ETIMEDOUT (Connection timed out) <10.500000>
8 110.500100 futex(0x7fed, FUTEX_WAIT_PRIVATE, 0, {tv_sec=12, tv_nsec=0} <unfinished ...>
7 130.000000 <... epoll_wait resumed>) = 0 <30.000000>
7 130.000100 epoll_wait(0x3, 0x7f00, 0x2, 0) = 0 <0.000010>
7 130.000200 futex(0x7fee, FUTEX_WAKE_PRIVATE, 1) = 1 <0.000010>
9 130.000300 <... futex resumed>) = 0 <29.900000>
9 130.000400 futex(0x7fee, FUTEX_WAIT_BITSET|FUTEX_CLOCK_REALTIME, 0, NULL, MATCH_ANY <unfinished ...>
7 130.000500 epoll_wait(0x3, 0x7f00, 0x2, 0x7530 <unfinished ...>
--- a line that is none ---
8 130.200000 <... futex resumed>) = 0 <19.700000>
8 130.200100 poll([{fd=5, events=POLLIN}], 1, 15000 <unfinished ...>
"""


def test_a_trace_tells_what_woke_a_process() -> None:
    """Timers that ran out, bursts of activity, and the limits of the waits that are left."""
    found = list(calls(TRACE.splitlines()))
    assert [call.name for call in found if call.expired] == ["futex", "epoll_wait"]
    assert wakes(found, 101.0, 129.0, monotonic=50.0) == Wakes(1, 1, [12.0, 30.0])
    assert wakes(found, 101.0, 131.0, monotonic=50.0) == Wakes(2, 2, [15.0, 30.0])
    assert wakes(found, 101.0, 110.0, monotonic=50.0) == Wakes(0, 0, [10.5, 30.0])


@pytest.mark.parametrize("step", [0.005, 0.05, 0.4, 2.0])
def test_who_polls_never_sleeps(step: float) -> None:
    """However short its waits are, they count."""
    lines = [
        f"7 {100 + n * step:f} epoll_wait(0x3, 0x7f, 0x2, 0x1) = 0 <{step:f}>" for n in range(int(60 / step))
    ]
    assert wakes(list(calls(lines)), 100.0, 160.0, monotonic=0.0).count >= 29


def test_threads_that_wait_for_the_interpreter_are_awake() -> None:
    """Its short waits inside a burst are no timers."""
    lines = [
        f"7 {100 + n * 0.005:f} futex(0x7f, FUTEX_WAIT, 0, NULL) = -1 ETIMEDOUT <0.005>" for n in range(3)
    ]
    assert wakes(list(calls(lines)), 90.0, 150.0, monotonic=0.0) == Wakes(0, 1, [])


@pytest.mark.parametrize(
    ("line", "limit", "expired"),
    [
        ("1 9.0 epoll_wait(0x3, 0x7f, 0x2, 0xffffffff) = 0x1 <1.0>", inf, False),
        ("1 9.0 epoll_pwait(0x3, 0x7f, 0x2, 0x64, 0, 0x8) = 0 <0.1>", 0.1, True),
        ("1 9.0 futex(0x7f, FUTEX_WAKE_PRIVATE, 1) = 1 <0.1>", inf, False),
        ("1 9.0 select(4, [3], [], [], {tv_sec=1, tv_usec=500000}) = 0 (Timeout) <1.5>", 1.5, True),
        ("1 9.0 poll([{fd=5, events=POLLIN}], 1, -1) = 1 ([{fd=5}]) <1.5>", inf, False),
        (
            "1 9.0 clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, {tv_sec=8, tv_nsec=0}, NULL) = 0 <2.0>",
            2,
            True,
        ),
        ("1 9.0 nanosleep({tv_sec=0, tv_nsec=5000000}, NULL) = 0 <0.005>", 0.005, True),
        ("1 9.0 epoll_ctl(3, EPOLL_CTL_ADD, 8, {events=EPOLLIN, data={u32=8}}) = 0 <0.1>", inf, False),
        ('1 9.0 read(5, "x", 1) = 1 <0.1>', inf, False),
    ],
)
def test_a_call_tells_how_long_it_may_wait(line: str, limit: float, expired: bool) -> None:
    """Limits are read from every kind of call that can have one."""
    [call] = calls([line])
    assert call.limit(3.0) == pytest.approx(limit)
    assert call.expired is expired


@pytest.mark.parametrize(
    ("kind", "found", "window", "good"),
    [
        ("alone", Wakes(2, 2, [30.0]), 60.0, True),
        ("alone", Wakes(3, 1, []), 60.0, False),
        ("alone", Wakes(0, 3, []), 60.0, False),
        ("alone", Wakes(0, 0, [30.0]), 3.0, True),
        ("alone", Wakes(0, 0, [30.0, 10.0]), 3.0, False),
        ("alone", Wakes(1, 1, [30.0]), 3.0, False),
        ("worked", Wakes(0, 0, [30.0, 10.0]), 3.0, True),
        ("worked", Wakes(0, 0, [30.0, 20.0, 10.0]), 3.0, False),
        ("worked", Wakes(3, 2, []), 60.0, False),
    ],
)
def test_an_idle_client_may_wake_twice_a_minute(kind: str, found: Wakes, window: float, good: bool) -> None:
    """Timers and other reasons count; what is armed counts where the window is short."""
    row = Row("T11", "a trace")
    judge_idle(row, kind, found, window)
    assert (row.failures == []) is good


def adds(wait: float, *, kind: str = "add") -> list[Event]:
    job, ack = f"{wait}", {"what": "ack", "called": 1.0, "kind": kind}
    return [{"what": "start", "job": job, "at": 1.0 + wait}, ack | {"job": job}]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (adds(0.002), None),
        (adds(0.002)[1:], "not started"),
        (adds(0.03), "p50"),
        (adds(0.03, kind="tx"), "p50"),
        (adds(0.002) * 290 + adds(0.03) * 10, "p99"),
        (adds(1.2), "wake-ups lost"),
    ],
)
def test_a_late_start_is_told(events: list[Event], told: str | None) -> None:
    """Each job must start elsewhere, and soon."""
    row = Row("T11", "a history")
    judge_adds(row, "elsewhere", events)
    assert [told in failure for failure in row.failures if told][:1] == [True] * (told is not None)
    assert row.failures == [] or told


def test_a_slow_recovery_is_told() -> None:
    """An interrupted job must run again within a second, in either case."""
    row = Row("T11", "a history")
    judge_crashes(row, {"alone": [(1, 1.1), (2, 2.2)], "beside": [(1, 1.01), (2, 3.01)]})
    assert len(row.failures) == 1
    assert row.recovery_ms == pytest.approx(1010)
