"""The checker finds what is wrong with limits, turns, rates, pauses, cancellations and unique jobs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backlite_async import JobStatus

from .checker import check
from .clock import EPOCH
from .history import (
    Acknowledged,
    Event,
    Final,
    Found,
    Jumped,
    Paused,
    Replaced,
    Rested,
    Resumed,
    Revoked,
    Ruled,
    Started,
    Stored,
    Turned,
    Written,
)
from .order import check_order, check_priority, check_prompt
from .test_checker import AGAIN, DONE, FAILED, claimed, ended, started, timed, written

GONE = JobStatus.CANCELLED


def rule(**limits: Any) -> Ruled:
    return Ruled(queue="q", **limits)


def stored(job: str = "a", due: int = 0, **fields: Any) -> Stored:
    kind = fields.pop("kind", ("q", "T"))
    return Stored(job=job, kind=kind, due_at=EPOCH + due, max_attempts=2, max_crashes=2, **fields)


def revoked(job: str = "a", *, ended: bool = False, **fields: Any) -> Revoked:
    return Revoked(job=job, ended=ended, now=EPOCH, told=True, **fields)


def willing(fence: int = 1) -> Started:
    return msgspec.structs.replace(started(fence), willing=True)


def begin(job: str, fence: int, client: str = "x") -> list[Event]:
    """Return how a job begins to run."""
    return [claimed(fence, job=job, client=client), started(fence, job=job, client=client)]


def end(job: str, fence: int, client: str = "x") -> list[Event]:
    """Return how it ends."""
    return [ended(fence, job=job, client=client), written(fence, job=job, client=client)]


def cancelled(*, attempt: int = 1, keep: bool = False) -> Written:
    return msgspec.structs.replace(written(1, GONE, attempt=attempt), keep=keep)


def at(seconds: float, event: Event) -> Event:
    return msgspec.structs.replace(event, at=seconds, wall=EPOCH + round(seconds * 1000))


TWO: list[Event] = [stored("a"), stored("b")]
KEYED: list[Event] = [stored("a", key="k"), stored("b", key="k")]
AFTER = [*begin("a", 1), *end("a", 1), *begin("b", 2), *end("b", 2)]
BESIDE = [*begin("a", 1), *begin("b", 2), *end("a", 1), *end("b", 2)]
APART = [*begin("a", 1), *begin("b", 2, "y"), *end("a", 1), *end("b", 2, "y")]
LAPSED: list[Event] = [
    *begin("a", 1),
    written(1, AGAIN, client="y", attempt=0, crashes=1, lapse=True),
    *begin("b", 2, "y"),
]
ONE = [stored(), *begin("a", 1)]
PAUSE = Paused(queue="q", told=True)
PAUSE_HERE = Paused(queue="q", client="x", told=True)
RESUME = Resumed(queue="q")
WAITS, LET_IN = Turned(job="b", due_at=None), Turned(job="b", due_at=EPOCH)
UNIQUE: dict[str, Any] = {"unique": "u", "within": 60_000, "created_at": EPOCH}


def found(job: str = "a", **fields: Any) -> Found:
    return Found(job=job, kind=("q", "T"), now=EPOCH + 5_000, **fields)


GOOD: dict[str, list[Event]] = {
    "one after the other": [rule(in_all=1, here=1, per_key=1), *KEYED, *AFTER],
    "each in a client of its own": [rule(in_all=2, here=1), *TWO, *APART],
    "keys beside each other": [rule(per_key=1), stored("a", key="k"), stored("b", key="l"), *BESIDE],
    "jobs without a key": [rule(per_key=1), *TWO, *BESIDE],
    "a turn": [rule(per_key=1), *KEYED, WAITS, *AFTER[:4], LET_IN, *AFTER[4:]],
    "as many starts as the rate permits": [rule(rate=(2, 60.0)), *TWO, *BESIDE],
    "starts that are apart": [rule(rate=(1, 4.0)), *TWO, *AFTER],
    "a wall that goes on": [
        rule(rate=(1, 60.0)),
        *TWO,
        *AFTER[:4],
        Jumped(by=60.0),
        *(msgspec.structs.replace(e, at=9.0 + n, wall=EPOCH + 69_000) for n, e in enumerate(AFTER[4:])),
    ],
    "a pause": [*TWO, *begin("a", 1), PAUSE, *end("a", 1), RESUME, *AFTER[4:]],
    "a queue that comes to rest": [*ONE, PAUSE, *end("a", 1), Rested(queue="q", since=3.0)],
    "a pause here": [
        *TWO,
        PAUSE_HERE,
        *begin("a", 1, "y"),
        Rested(queue="q", since=3.0, client="x", life=1),
        *end("a", 1, "y"),
        Resumed(queue="q", client="x"),
        *AFTER[4:],
    ],
    "cancelled before it ran": [
        rule(keeps=True),
        stored(),
        revoked(ended=True, keep=True),
        Final(job="a", status=GONE),
    ],
    "cancelled while it ran": [
        stored(), claimed(), willing(), at(4.0, revoked()), at(4.1, ended(how="cancelled")), cancelled()
    ],
    "cancelled, and it returned": [stored(), claimed(), started(), revoked(), ended(), written()],
    "cancelled just as it failed": [
        stored(), claimed(attempt=1), started(), at(4.0, revoked()), at(4.1, ended(how="discarded")),
        written(status=FAILED),
    ],
    "cancelled, and then it failed": [
        stored(), claimed(), started(), revoked(), ended(how="raised"), cancelled()
    ],
    "cancelled before it started": [stored(), claimed(), revoked(), cancelled(attempt=0)],
    "cancelled twice": [*ONE, revoked(), revoked(), ended(how="raised"), cancelled()],
    "added again after a cancellation": [stored(), revoked(ended=True), stored(), *AFTER[:4]],
    "unique, one after the other": [stored(unique="u"), *AFTER[:4], stored("b", unique="u"), *AFTER[4:]],
    "the one that is there": [stored(unique="u"), found(unique="u"), Acknowledged(job="a"), *AFTER[:4]],
    "the one that was there": [stored(**UNIQUE), *AFTER[:4], found(unique="u", within=60_000)],
    "the one of this id": [stored(), found(own="a"), *AFTER[:4]],
    "replaced": [
        stored(unique="u"),
        found(unique="u", replace=True),
        Replaced(job="a", kind=("q", "S"), due_at=EPOCH, max_crashes=2),
        *AFTER[:4],
    ],
    "a timeout": [
        rule(timeout=9.0), stored(timeout=2.0), claimed(), willing(), ended(how="cancelled"),
        written(status=AGAIN), claimed(2, attempt=2), started(2, attempt=2), ended(2), written(2, attempt=2),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_history_passes(name: str) -> None:
    """What the library promises is not called a violation."""
    assert check(timed(GOOD[name])) == []


BAD: dict[str, tuple[str, list[Event]]] = {
    "two of one": ("limit", [rule(in_all=1), *TWO, *APART]),
    "two here of one": ("limit here", [rule(here=1), *TWO, *BESIDE]),
    "two of one key": ("key limit", [rule(per_key=1), *KEYED, *APART]),
    "two starts of one": ("rate", [rule(rate=(1, 4.5)), *TWO, *AFTER]),
    "a window across a step back": (
        "rate",
        [
            rule(rate=(1, 6.0)),
            *TWO,
            *AFTER[:4],
            Jumped(by=-60.0),
            *(msgspec.structs.replace(e, at=9.0 + n, wall=EPOCH - 51_000) for n, e in enumerate(AFTER[4:])),
        ],
    ),
    "claimed in a pause": ("paused", [stored(), PAUSE, *AFTER[:4]]),
    "started long after the pause": ("paused", [stored(), claimed(), PAUSE, started(), *end("a", 1)]),
    "started in a pause here": ("paused", [stored(), claimed(), PAUSE_HERE, started(), *end("a", 1)]),
    "claimed in the pause after a resume here": (
        "paused",
        [stored(), PAUSE, Resumed(queue="q", client="x"), *AFTER[:4]],
    ),
    "rest while one runs": (
        "rest",
        [*ONE, PAUSE, Rested(queue="q", since=3.0), *end("a", 1)],
    ),
    "rest here while one runs": (
        "rest",
        [
            stored(),
            *begin("a", 1),
            PAUSE_HERE,
            Rested(queue="q", since=3.0, client="x", life=1),
            *end("a", 1),
        ],
    ),
    "claimed without its turn": ("turn", [rule(per_key=1), *KEYED, WAITS, *AFTER[4:], *AFTER[:4]]),
    "waits for its turn while it runs": ("turn", [*KEYED, *AFTER[:4], *begin("b", 2), WAITS, *end("b", 2)]),
    "waits for its turn before it is due": ("turn", [stored("b", 90_000, key="k"), WAITS]),
    "waits for ever": ("lost", [*KEYED, WAITS, *AFTER[:4]]),
    "claimed after it was cancelled": (
        "cancelled",
        [*ONE, revoked(), ended(how="raised"), written(status=AGAIN), *begin("a", 2)],
    ),
    "claimed after its end": ("ghost", [stored(), revoked(ended=True), *AFTER[:4]]),
    "runs again after it was cancelled": (
        "cancelled",
        [*ONE, revoked(), ended(how="raised"), written(status=AGAIN)],
    ),
    "runs again with its process dead": (
        "cancelled",
        [
            stored(),
            *begin("a", 1),
            revoked(),
            written(1, AGAIN, client="y", attempt=0, crashes=1, lapse=True),
        ],
    ),
    "started long after it was cancelled": (
        "cancelled",
        [stored(), claimed(), revoked(), started(), ended(how="raised"), cancelled()],
    ),
    "runs on": (
        "cancelled",
        [stored(), claimed(), willing(), revoked(), ended(how="cancelled"), cancelled()],
    ),
    "succeeded, and had not returned": (
        "outcome",
        [*ONE, revoked(), ended(how="raised"), written(status=DONE)],
    ),
    "failed long after it was cancelled": (
        "outcome",
        [*ONE, revoked(), ended(how="discarded"), written(status=FAILED)],
    ),
    "failed by its cancellation": (
        "outcome",
        [
            stored(),
            claimed(),
            willing(),
            at(4.0, revoked()),
            at(4.1, ended(how="cancelled")),
            written(1, FAILED),
        ],
    ),
    "cancelled, and had returned": ("outcome", [*ONE, revoked(), ended(), cancelled()]),
    "cancelled by nobody": ("cancelled", [*ONE, ended(how="raised"), cancelled()]),
    "ended by a cancellation while it ran": ("cancelled", [*ONE, revoked(ended=True)]),
    "asked, and nobody runs it": ("cancelled", [stored(), revoked(), *AFTER[:4]]),
    "cancelled after its end": ("cancelled", [stored(), *AFTER[:4], revoked()]),
    "not kept": ("retention", [rule(keeps=True), stored(), revoked(ended=True)]),
    "kept for too long": (
        "retention",
        [rule(keeps=True, keep_for=1_000), stored(), revoked(ended=True, keep=True, until=EPOCH + 2_000)],
    ),
    "not kept by its owner": (
        "retention",
        [rule(keeps=True), stored(), *begin("a", 1), revoked(), ended(how="raised"), cancelled()],
    ),
    "shown otherwise": (
        "retention",
        [rule(keeps=True), stored(), revoked(ended=True, keep=True), Final(job="a", status=FAILED)],
    ),
    "beyond its own timeout": (
        "timeout",
        [
            stored(timeout=0.5),
            claimed(),
            willing(),
            ended(how="raised"),
            written(status=AGAIN),
            *begin("a", 2),
        ],
    ),
    "beyond its queue's timeout": (
        "timeout",
        [rule(timeout=0.5), stored(), claimed(), willing(), ended(how="raised"), written(status=AGAIN)],
    ),
    "two of one unique key": ("unique", [stored("a", unique="u"), stored("b", unique="u"), *AFTER]),
    "another too soon": (
        "unique",
        [stored("a", **UNIQUE), *AFTER[:4], stored("b", **UNIQUE, now=EPOCH + 9_000), *AFTER[4:]],
    ),
    "found, and never there": ("unique", [found("z", unique="u")]),
    "found, and has ended": ("unique", [stored(unique="u"), *AFTER[:4], found(unique="u")]),
    "found by another's key": ("unique", [stored(unique="u"), found(unique="v"), *AFTER[:4]]),
    "found by its id, and is gone": ("unique", [stored(), *AFTER[:4], found(own="a")]),
    "not replaced": ("unique", [stored(unique="u"), found(unique="u", replace=True), *AFTER[:4]]),
    "replaced, and not to be": (
        "unique",
        [
            stored(unique="u"),
            found(unique="u"),
            Replaced(job="a", kind=("q", "T"), due_at=EPOCH, max_crashes=2),
            *AFTER[:4],
        ],
    ),
    "acknowledged, and never there": ("unique", [Acknowledged(job="z")]),
    "a worse one first": ("order", [stored("a"), stored("b", priority=1), *AFTER]),
}


@pytest.mark.parametrize("name", BAD)
def test_violation_is_found(name: str) -> None:
    """Each is found, and called what it is."""
    kind, events = BAD[name]
    assert kind in {line.split(":")[0] for line in check(timed(events))}


def test_place_of_a_claim_whose_lease_has_ended_is_free() -> None:
    """Its handler may go on for a while, beside the next one: that is known."""
    assert not [line for line in check(timed([rule(in_all=1), *TWO, *LAPSED])) if line.startswith("limit")]


def order(*priorities: int, due: int = 0, **fields: Any) -> list[Event]:
    """Return two jobs of these priorities; the first one is claimed."""
    first, second = priorities
    return timed([
        rule(),
        stored("a", priority=first),
        stored("b", due, priority=second, **fields),
        *begin("a", 1),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        (order(0, 0), False),
        (order(0, 1), True),
        (order(0, 1, due=2_000_000), False),
        (order(1, 0), False),
        (order(0, 0, due=-5), True),
    ],
)
def test_priorities_come_first_then_due_times(events: list[Event], wrong: bool) -> None:
    """Of one kind, what is better and due is claimed first."""
    assert bool(check_priority(events)) is wrong
    assert bool(check_order(events)) is wrong


@pytest.mark.parametrize(
    ("other", "wrong"),
    [
        ([], True),
        ([Ruled(queue="r", in_all=1)], False),
        ([Paused(queue="r")], False),
        ([Turned(job="b", due_at=None)], False),
    ],
)
def test_better_job_of_another_kind_may_only_be_kept_by_its_queue(other: list[Event], wrong: bool) -> None:
    """What is limited, paused or waits for its turn may be overtaken."""
    jobs: list[Event] = [stored("a"), stored("b", kind=("r", "T"), priority=1)]
    events = timed([*jobs, *other, *begin("a", 1)])
    assert check_priority(events) == []
    assert bool(check_order(events)) is wrong


@pytest.mark.parametrize(
    ("limits", "ends", "starts", "wrong"),
    [
        ({}, 9.0, 9.1, True),
        ({"in_all": 1}, 9.0, 9.1, False),
        ({"in_all": 1}, 5.0, 9.1, True),
        ({"rate": (1, 8.0)}, 2.0, 9.1, False),
        ({"rate": (1, 3.0)}, 2.0, 9.1, True),
    ],
)
def test_idle_worker_is_found_unless_the_queue_is_full(
    limits: dict[str, Any], ends: float, starts: float, wrong: bool
) -> None:
    """A job of a limited queue may wait until another has ended, or for its rate."""
    jobs = [at(1.0, event) for event in TWO]
    events = [at(1.0, event) for event in begin("a", 1)] + [at(ends, event) for event in end("a", 1)]
    late = [at(starts, event) for event in begin("b", 2)]
    found = check_prompt(timed([rule(**limits), *jobs, *events, *late]), workers=4, within=0.5)
    assert bool(found) is wrong


def test_resumed_queue_starts_at_once() -> None:
    """And may wait until then."""
    events: list[Event] = [rule(), stored("a"), PAUSE, at(50.0, RESUME), at(50.1, started(1))]
    assert check_prompt(timed(events), workers=4, within=0.5) == []
    events[-1] = at(51.0, started(1))
    assert len(check_prompt(timed(events), workers=4, within=0.5)) == 1
