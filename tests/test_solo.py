"""A job one crash short of its limit runs alone, and holds others up once, for a while."""

from __future__ import annotations

from typing import Any, ClassVar

from backlite_async import QueueConfig, Task
from backlite_async._job import ClaimedJob
from backlite_async._registry import Handler, Registry
from backlite_async._solo import PATIENCE, Solo


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work")


def handler() -> Handler:
    registry = Registry()
    registry.register(Work, _work)
    found = registry.find("work", "Work")
    assert found is not None
    return found


async def _work(task: Work) -> None: ...


def job(name: str) -> ClaimedJob:
    fields: dict[str, Any] = {"attempt": 1, "max_attempts": 3, "crashes": 2, "fence": 1, "created_at": 0}
    return ClaimedJob(id=name, queue="work", task="Work", payload="{}", scheduled_at=0, **fields)


def test_nothing_is_held_up_without_such_jobs() -> None:
    """The usual case costs nothing."""
    assert not Solo()


def test_a_job_waits_for_its_turn_and_runs() -> None:
    """Others are held up while it waits, for a while, and while it runs, without limit."""
    solo = Solo()
    solo.wait(job("a"), handler(), 100.0)
    assert solo
    assert solo.remaining(101.0) == PATIENCE - 1
    started = solo.start()
    assert started is not None
    assert started[0].id == "a"
    assert solo
    assert solo.remaining(1000.0) is None
    assert solo.start() is None  # it has ended
    assert not solo


def test_one_at_a_time_in_their_order() -> None:
    """Two such jobs do not run beside each other either."""
    solo = Solo()
    solo.wait(job("a"), handler(), 100.0)
    solo.wait(job("b"), handler(), 101.0)
    assert [found[0].id for found in iter(solo.start, None)] == ["a", "b"]


def test_patience_is_counted_from_the_first() -> None:
    """Those that come later do not hold others up for longer."""
    solo = Solo()
    solo.wait(job("a"), handler(), 100.0)
    solo.wait(job("b"), handler(), 104.0)
    assert solo.remaining(104.0) == PATIENCE - 4
    assert solo.remaining(100.0 + PATIENCE) == 0.0
    assert solo.remaining(200.0) == 0.0


def test_who_has_waited_in_vain_holds_nobody_up_again() -> None:
    """It is given back, and when it comes again it runs if it can at once, or not now."""
    solo = Solo()
    solo.wait(job("a"), handler(), 100.0)
    assert [given.id for given in solo.give_up()] == ["a"]
    assert not solo
    solo.wait(job("a"), handler(), 110.0)
    assert solo.remaining(110.0) == 0.0
    assert solo.start() is not None


def test_who_has_run_may_hold_others_up_once_more() -> None:
    """Its time was used; a snooze or a retry later it is a claim like the first."""
    solo = Solo()
    solo.wait(job("a"), handler(), 100.0)
    solo.give_up()
    solo.wait(job("a"), handler(), 110.0)
    solo.start()
    solo.start()
    solo.wait(job("a"), handler(), 120.0)
    assert solo.remaining(120.0) == PATIENCE
