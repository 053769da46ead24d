"""Deadlines of what runs: each passes when it should, with one timer for all of a length."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async._deadlines import Deadlines


class Handle:
    """A timer of the loop below."""

    def __init__(self, when: float, number: int, call: Callable[[], None]) -> None:
        self.when, self.number, self.call = when, number, call
        self.cancelled = False

    def __lt__(self, other: Handle) -> bool:
        return (self.when, self.number) < (other.when, other.number)

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop's clock and timers, which pass when one says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Handle] = []
        self.made = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[..., None], *arguments: Any) -> Handle:
        handle = Handle(when, next(self.made), lambda: call(*arguments))
        heapq.heappush(self.timers, handle)
        return handle

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for timer in self.timers)

    def advance(self, seconds: float) -> None:
        """Let time pass, and each timer fire at its time."""
        until = self.now + seconds
        while self.timers and self.timers[0].when <= until:
            timer = heapq.heappop(self.timers)
            self.now = max(self.now, timer.when)
            if not timer.cancelled:
                timer.call()
        self.now = until


class Scene:
    """Deadlines on a loop of their own, and when each has passed."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.passed: list[tuple[str, float]] = []
        self.deadlines: Deadlines[str] = Deadlines(lambda item: self.passed.append((item, self.loop.now)))

    @property
    def kept(self) -> int:
        return sum(len(began) for began in self.deadlines._began.values())


def make_scene(patch: pytest.MonkeyPatch) -> Scene:
    loop = Loop()
    patch.setattr(asyncio, "get_running_loop", lambda: loop)
    scene = Scene()
    scene.loop = loop
    patch.undo()
    return scene


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return make_scene(monkeypatch)


def test_item_passes_at_its_deadline(scene: Scene) -> None:
    """Not before, and once."""
    scene.deadlines.begin("a", 5.0)
    scene.loop.advance(4.999)
    assert scene.passed == []
    scene.loop.advance(0.001)
    assert scene.passed == [("a", 105.0)]
    scene.loop.advance(100.0)
    assert len(scene.passed) == 1
    assert scene.kept == scene.loop.pending == 0


def test_one_timer_serves_all_of_a_length(scene: Scene) -> None:
    """However many begin."""
    for number in range(1000):
        scene.deadlines.begin(f"{number}", 5.0)
        scene.loop.advance(0.001)
    assert scene.loop.pending == 1
    assert next(scene.loop.made) == 1


def test_items_pass_in_the_order_in_which_they_began(scene: Scene) -> None:
    """Each at its own time."""
    for name in "abc":
        scene.deadlines.begin(name, 5.0)
        scene.loop.advance(1.0)
    scene.loop.advance(10.0)
    assert scene.passed == [("a", 105.0), ("b", 106.0), ("c", 107.0)]


def test_items_of_one_moment_pass_together(scene: Scene) -> None:
    """In the same call."""
    for name in "abc":
        scene.deadlines.begin(name, 5.0)
    scene.loop.advance(5.0)
    assert [item for item, _ in scene.passed] == ["a", "b", "c"]
    assert next(scene.loop.made) == 1


def test_what_has_ended_does_not_pass(scene: Scene) -> None:
    """Neither the first one, whose timer is set, nor one behind it; and nothing of it is kept."""
    for name in "abc":
        scene.deadlines.begin(name, 5.0)
        scene.loop.advance(1.0)
    scene.deadlines.end("a", 5.0)
    scene.deadlines.end("c", 5.0)
    scene.deadlines.end("c", 5.0)
    assert scene.kept == 1
    scene.loop.advance(10.0)
    assert scene.passed == [("b", 106.0)]
    assert scene.kept == scene.loop.pending == 0


def test_end_of_what_has_not_begun_is_nothing(scene: Scene) -> None:
    """Neither of a length that nobody has, nor of one that others have."""
    scene.deadlines.end("a", 5.0)
    scene.deadlines.begin("b", 5.0)
    scene.deadlines.end("a", 5.0)
    scene.loop.advance(5.0)
    assert [item for item, _ in scene.passed] == ["b"]


def test_timer_that_finds_nothing_sets_no_other(scene: Scene) -> None:
    """Who is idle is not woken."""
    scene.deadlines.begin("a", 5.0)
    scene.deadlines.end("a", 5.0)
    scene.loop.advance(5.0)
    assert scene.loop.pending == 0
    scene.deadlines.begin("b", 5.0)
    assert scene.loop.pending == 1
    scene.loop.advance(5.0)
    assert scene.passed == [("b", 110.0)]


def test_lengths_do_not_wait_for_each_other(scene: Scene) -> None:
    """A short one that began later passes earlier."""
    for length in (9.0, 1.0, 5.0):
        scene.deadlines.begin(f"{length:g}", length)
    assert scene.loop.pending == 3
    scene.loop.advance(20.0)
    assert scene.passed == [("1", 101.0), ("5", 105.0), ("9", 109.0)]


def test_item_may_begin_again(scene: Scene) -> None:
    """The next attempt has all of its time, and its place in the order."""
    scene.deadlines.begin("a", 5.0)
    scene.loop.advance(1.0)
    scene.deadlines.begin("b", 5.0)
    scene.deadlines.end("a", 5.0)
    scene.loop.advance(1.0)
    scene.deadlines.begin("a", 5.0)
    scene.loop.advance(20.0)
    assert scene.passed == [("b", 106.0), ("a", 107.0)]


def test_nothing_passes_after_the_close(scene: Scene) -> None:
    """Whatever is left; to close twice does no harm."""
    for length in (1.0, 5.0):
        scene.deadlines.begin("a", length)
    scene.deadlines.close()
    scene.deadlines.close()
    assert scene.loop.pending == 0
    scene.loop.advance(20.0)
    assert scene.passed == []


def test_who_is_called_back_may_end_and_begin(scene: Scene) -> None:
    """Those that pass together are all told, and none twice."""

    def passed(item: str) -> None:
        scene.passed.append((item, scene.loop.now))
        scene.deadlines.end("b", 5.0)
        scene.deadlines.begin("again " + item, 5.0)

    scene.deadlines._passed = passed
    for name in "abc":
        scene.deadlines.begin(name, 5.0)
    scene.loop.advance(5.0)
    assert [item for item, _ in scene.passed] == ["a", "b", "c"]
    assert scene.loop.pending == 1
    assert scene.kept == 3
    scene.loop.advance(5.0)
    assert [item for item, _ in scene.passed[3:]] == ["again a", "again b", "again c"]


Steps = st.lists(
    st.tuples(st.sampled_from(["begin", "end", "advance"]), st.integers(0, 9), st.integers(1, 4)), max_size=60
)


@given(Steps)
def test_each_item_has_the_deadline_of_a_timer_of_its_own(steps: list[tuple[str, int, int]]) -> None:
    """Whatever begins, ends and passes, in whatever order."""
    with pytest.MonkeyPatch.context() as patch:
        scene = make_scene(patch)
    began: dict[tuple[str, float], float] = {}
    expected: list[tuple[str, float]] = []
    for what, number, length in steps:
        name = f"{number} for {length}"
        if what == "begin" and (name, length) not in began:
            began[name, length] = scene.loop.now
            scene.deadlines.begin(name, float(length))
        elif what == "end":
            began.pop((name, length), None)
            scene.deadlines.end(name, float(length))
        elif what == "advance":
            scene.loop.advance(length / 2)
            over = [(item, at + item[1]) for item, at in began.items() if at + item[1] <= scene.loop.now]
            expected += [(item[0], when) for item, when in over]
            for item, _ in over:
                del began[item]
    assert sorted(scene.passed) == sorted(expected)
    assert scene.kept == len(began)


async def test_event_loop_that_runs_calls_back() -> None:
    """With asyncio's own timers."""
    passed: asyncio.Queue[str] = asyncio.Queue()
    deadlines: Deadlines[str] = Deadlines(passed.put_nowait)
    deadlines.begin("late", 30.0)
    deadlines.begin("ended", 0.01)
    deadlines.begin("over", 0.01)
    deadlines.end("ended", 0.01)
    assert await asyncio.wait_for(passed.get(), 5.0) == "over"
    deadlines.close()
    assert passed.empty()
