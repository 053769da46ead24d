"""What the checker says of recoveries that take long, and of jobs that hold others up."""

from __future__ import annotations

import pytest

from .checker import check
from .clock import EPOCH
from .history import Died, Event, Manner, Opened, Outage, StopAsked
from .test_checker import AGAIN, at, claimed, ended, started, stored, timed, written
from .test_checker_edges import LATER, but, fault
from .test_checker_owners import BEGUN, LEFT, crash, later


def recovered(manner: Manner, after: float, *between: Event) -> list[Event]:
    """Return a history in which the job of a dead owner is released so many seconds after its death."""
    return timed(
        [*BEGUN, at(4.0, Died(client="x")), *between, at(4.0 + after, crash()), *later(99, LATER)], manner
    )


ASKED_Y = StopAsked(client="y", life=1, limit=None)


@pytest.mark.parametrize(
    ("manner", "after", "between", "slow"),
    [
        ("bells", 0.9, [], False),
        ("bells", 1.1, [], True),
        ("deaf", 6.9, [], False),
        ("deaf", 7.1, [], True),
        ("blind", 60.0, [], False),
        ("bells", 1.9, [at(5.0, Died(client="z"))], False),
        ("bells", 2.1, [at(5.0, Died(client="z"))], True),
        ("bells", 1.9, [at(5.0, but(LEFT, owner=3))], False),
        ("bells", 6.4, [at(4.5, fault("w"))], False),
        ("bells", 6.6, [at(4.5, fault("w"))], True),
        ("bells", 6.9, [at(4.2, Outage(begins=True)), at(5.0, Outage(begins=False))], False),
        ("bells", 50.0, [at(4.0, Died(client=client)) for client in "wz"] + [at(4.0, ASKED_Y)], False),
        ("bells", 50.0, [at(4.0, Died(client=client)) for client in "wz"], True),
    ],
)
def test_slow_recovery_is_found(manner: Manner, after: float, between: list[Event], slow: bool) -> None:
    """Who lives, is told, and has no trouble releases the jobs of the dead within a second."""
    found = [line.split(":")[0] for line in check(recovered(manner, after, *between))]
    assert found == ["slow recovery"] * slow


def test_slow_stores_and_many_dead_are_made_allowance_for() -> None:
    """Four ways to the store and back for each dead owner are added to the second."""
    events = recovered("bells", 1.35)
    assert check(events, latency=0.1) == []
    assert len(check(events, latency=0.05)) == 1


def test_only_who_has_workers_can_recover() -> None:
    """A process that only adds jobs releases none."""
    events = recovered("bells", 60.0)
    for event in events:
        if isinstance(event, Opened):
            event.workers = 0
    assert check(events) == []


def waiting(*events: Event) -> list[Event]:
    """Return a history in which y claims the job, with its last chance, ten seconds in."""
    job = [but(stored(), max_crashes=2), *BEGUN[1:], Died(client="x"), crash()]
    return timed([*job, at(10.0, LATER[0]), *events])


def put_off(second: float) -> Event:
    return at(second, but(written(2, AGAIN, client="y", attempt=0, crashes=1), due_at=EPOCH + 5_000))


def third(second: float) -> list[Event]:
    return later(
        second,
        [
            *[claimed(3, client="y", crashes=1), started(3, client="y"), ended(3, client="y")],
            written(3, client="y", crashes=1),
        ],
    )


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([at(15.4, LATER[1]), *later(16, LATER[2:])], []),
        ([at(15.6, LATER[1]), *later(16, LATER[2:])], ["held up"]),
        ([put_off(15.4), *third(20.0)], []),
        ([put_off(15.6), *third(20.0)], ["held up"]),
        ([at(11.0, fault("y")), put_off(19.0), *third(25.0)], []),
        ([at(11.0, fault("z")), put_off(19.0), *third(25.0)], ["held up"]),
        ([at(11.0, ASKED_Y), put_off(19.0), *third(25.0)], []),
    ],
    ids=["started in time", "too late", "put off in time", "put off late", "trouble", "another's", "stop"],
)
def test_holding_others_up_for_too_long_is_found(events: list[Event], found: list[str]) -> None:
    """A job with its last chance is started or put off within five seconds, unless its client has trouble."""
    assert [line.split(":")[0] for line in check(waiting(*events))] == found


def test_holding_others_up_twice_is_found() -> None:
    """What a job has held up before it was put off counts, until it has run."""
    first = [put_off(15.0)]
    second = [
        at(20.0, claimed(3, client="y", crashes=1)),
        at(24.9, but(written(3, AGAIN, client="y", attempt=0, crashes=1), due_at=EPOCH)),
    ]
    last = [
        *[claimed(4, client="y", crashes=1), started(4, client="y"), ended(4, client="y")],
        written(4, client="y", crashes=1),
    ]
    assert [line.split(":")[0] for line in check(waiting(*first, *second, *later(30, last)))] == ["held up"]


def test_waiting_for_one_that_runs_alone_is_no_hold_up() -> None:
    """Two jobs with their last chance run one after the other, however long the first one takes."""
    jobs = [but(stored(), max_crashes=2), but(stored("b"), max_crashes=2), *BEGUN[1:]]
    begun = [*jobs, claimed(2, job="b"), started(2, job="b"), Died(client="x")]
    counted = [
        at(7.1, crash()),
        at(7.2, crash(job="b", fence=2)),
        at(10.0, claimed(3, client="y", crashes=1)),
    ]
    both = [*counted, at(10.0, claimed(4, job="b", client="y", crashes=1)), at(12.0, started(3, client="y"))]
    ends = later(60, [ended(3, client="y"), written(3, client="y", crashes=1)])
    rest = [
        started(4, job="b", client="y"),
        ended(4, job="b", client="y"),
        written(4, job="b", client="y", crashes=1),
    ]
    assert check(timed([*begun, *both, *ends, *later(61, rest)])) == []
    assert len(check(timed([*begun, *both, *ends, *later(67, rest)]))) == 1
