"""Where each check of the checker begins and ends: what it lets pass, and what it does not.

With each of these histories, and those beside it in `test_checker`, no condition of the checker can be
dropped or moved by one without a test that fails.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import pytest

from backlite_async import JobStatus

from .checker import check
from .clock import EPOCH
from .history import (
    Acknowledged,
    Claimed,
    Died,
    Event,
    Fault,
    Final,
    Jumped,
    Probed,
    Started,
    StopAsked,
    Stopped,
)
from .order import check_prompt
from .test_checker import (
    AGAIN,
    ASKED,
    DONE,
    FAILED,
    at,
    claimed,
    ended,
    started,
    stopped,
    stored,
    timed,
    written,
)

E = TypeVar("E", bound=Event)

GONE = JobStatus.NOT_FOUND
RUN: list[Event] = [claimed(), started(), ended()]
SUCCESS: list[Event] = [*RUN, written()]
LATER: list[Event] = [  # another client finds the job after a crash of the first, and brings it to its end
    claimed(2, client="y", crashes=1),
    started(2, client="y"),
    ended(2, client="y"),
    written(2, client="y", crashes=1),
]


def but(event: E, **changes: Any) -> E:
    return msgspec.structs.replace(event, **changes)


def lapse(fence: int = 1, status: JobStatus = AGAIN, *, attempt: int = 0, crashes: int = 1) -> Event:
    return written(fence, status, client="y", attempt=attempt, crashes=crashes, lapse=True)


def fault(client: str = "x") -> Fault:
    return Fault(client=client, operation="renew", took_effect=False)


def final(status: JobStatus) -> Final:
    return Final(job="a", status=status)


def asked(limit: float | None, took: float) -> Stopped:
    return but(stopped(clean=True, claims=[], took=took), limit=limit)


KEPT, BRIEFLY = but(written(), keep=True), but(written(), keep=True, until=EPOCH + 6_000)
ANEW: list[Event] = [stored(), claimed(2), started(2), ended(2), written(2)]

GOOD: dict[str, list[Event]] = {
    "claimed and started at the very instant": [
        stored(due=3_000),
        but(claimed(), now=EPOCH + 3_000),
        *SUCCESS[1:],
    ],
    "started early because the wall went back": [
        stored(due=900_000),
        claimed(),
        Jumped(by=-5.0),
        *SUCCESS[1:],
    ],
    "the wall went back while it was claimed": [stored(due=900_000), Jumped(by=-5.0), *SUCCESS],
    "the dead do nothing any more": [
        *[stored(), claimed(), Died(client="x"), at(3.1, started()), at(3.2, ended())],
        at(3.3, but(stopped(clean=True, claims=["a"]), asked_at=0.0)),
        at(3.9, written(status=AGAIN, client="y", attempt=0)),
        *[claimed(2, client="y"), started(2, client="y"), ended(2, client="y"), written(2, client="y")],
    ],
    "an outcome that was not accepted": [stored(), *SUCCESS, but(written(), accepted=False)],
    "added again after its end": [stored(), *SUCCESS, *ANEW, final(DONE)],
    "given back without a start": [stored(), claimed(), written(status=AGAIN, attempt=0), *ANEW[1:]],
    "at the limit of crashes": [
        *[stored(), claimed(), started(), Died(client="x"), lapse()],
        *[claimed(2, client="z", crashes=1), started(2, client="z"), Died(client="z")],
        lapse(2, FAILED, crashes=2),
    ],
    "a lease that ended after a fault": [stored(), claimed(), fault(), lapse(), *LATER],
    "a lease that ended after a fault at the claim": [
        stored(),
        at(3.0, claimed()),
        at(3.0, fault()),
        lapse(),
        *LATER,
    ],
    "started late, under a lease that has ended": [
        *[stored(), claimed(), fault(), lapse(), *LATER[:2], ended(2, "snoozed", client="y")],
        but(written(2, AGAIN, client="y", attempt=0, crashes=1), due_at=EPOCH + 900_000),
        *[started(), ended()],
        *[at(950.0, claimed(3, crashes=1)), at(951.0, started(3)), at(952.0, ended(3))],
        at(953.0, written(3, crashes=1)),
    ],
    "as many at once as there are workers": [
        *[stored(), stored("b"), claimed(), claimed(2, job="b"), started(), started(2, job="b")],
        *[ended(), ended(2, job="b"), written(), written(2, job="b")],
    ],
    "as many at once in two clients": [
        *[stored(), stored("b"), claimed(), claimed(2, job="b", client="y"), started(workers=1)],
        *[started(2, job="b", client="y", workers=1), ended(), ended(2, job="b", client="y")],
        *[written(), written(2, job="b", client="y")],
    ],
    "as many at once beside one of an earlier life": [
        *[stored(), stored("b"), claimed(), started(workers=1), ASKED, stopped(clean=False, claims=["a"])],
        *[claimed(2, job="b"), but(started(2, job="b", workers=1), life=2), ended(2, job="b")],
        *[written(2, job="b"), but(ASKED, life=2), but(stopped(clean=True, claims=["a"]), life=2)],
        *[ended(), written()],
    ],
    "a stop that was clean": [stored(), *SUCCESS, ASKED, stopped(clean=True, claims=[])],
    "a stop without a limit": [asked(None, took=40.0)],
    "a stop that took all the time it has": [asked(1.0, took=4.5)],
    "a stop of what has stopped": [
        *[stored(), claimed(), started(), stopped(clean=True, claims=["a"], took=0.0), ended(), written()]
    ],
    "a claim left because of a fault at the stop": [
        stored(),
        claimed(),
        at(40.0, fault()),
        at(40.0, ASKED),
        but(stopped(clean=False, claims=["a"], took=10.0), limit=None),
        *(at(60.0 + number, event) for number, event in enumerate([lapse(), *LATER])),
    ],
    "asked to wait, and did": [
        *[stored(), claimed(), started(), but(ended(how="retried"), wait=2.0)],
        *[but(written(status=AGAIN), due_at=EPOCH + 6_000), claimed(2, attempt=2), started(2, attempt=2)],
        *[ended(2), written(2, attempt=2)],
    ],
    "a failure while it stopped counts": [
        *[stored(), claimed(), started(), ASKED, ended(how="raised"), written(status=AGAIN)],
        *[claimed(2, attempt=2), started(2, attempt=2), ended(2), written(2, attempt=2)],
    ],
    "kept for ever": [stored(), *RUN, KEPT, final(DONE)],
    "kept for a while": [stored(), *RUN, BRIEFLY, at(5.5, final(DONE))],
    "kept until now": [stored(), *RUN, BRIEFLY, final(GONE)],
    "expired before the wall went back": [stored(), *RUN, BRIEFLY, Jumped(by=-3.0), final(DONE)],
    "the whole pool": [Probed(expected=3, met=3)],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_allowed_passes(name: str) -> None:
    """What lies just within what is promised is no violation."""
    assert check(timed(GOOD[name])) == []


BAD: dict[str, tuple[list[str], list[Event]]] = {
    "claimed out of nothing": (["ghost"], [claimed()]),
    "asked for before its end": (["lost"], [stored(), final(GONE)]),
    "the same fence": (
        ["fence", "outcome"],
        [*[stored(), *RUN[:2], ended(how="raised"), written(status=AGAIN), claimed(attempt=2)], written()],
    ),
    "claimed with a crash too many": (
        ["crashes"],
        [stored(), claimed(crashes=1), started(), ended(), written(crashes=1)],
    ),
    "claimed at the limit of crashes": (
        ["crashes", "crashes", "crashes"],
        [
            *[stored(), claimed(), started(), Died(client="x"), lapse(crashes=2)],
            *[claimed(2, client="y", crashes=2), started(2, client="y"), ended(2, client="y")],
            written(2, client="y", crashes=2),
        ],
    ),
    "an attempt too many": (["attempts"], [stored(), claimed(), started(attempt=3), ended(), written()]),
    "an attempt too many, refused": (
        ["attempts"],
        [stored(), claimed(attempt=3), written(1, FAILED, attempt=3)],
    ),
    "refused, but a success": (["attempts", "lost"], [stored(), claimed(attempt=3), written(attempt=3)]),
    "refused with an attempt left": (["lost"], [stored(), claimed(), written(1, FAILED)]),
    "refused at the last attempt": (
        ["lost"],
        [
            *[stored(), claimed(), started(), ended(how="raised"), written(status=AGAIN)],
            *[claimed(2, attempt=2), written(2, FAILED, attempt=2)],
        ],
    ),
    "given back, but counted": (["lost", "lost"], [stored(), claimed(), written(status=AGAIN)]),
    "not run, but a success": (["lost"], [stored(), claimed(), written(attempt=0)]),
    "under a claim to come": (
        ["mark", "unclaimed"],
        [stored(), claimed(), started(2), ended(2), started(), ended(), written()],
    ),
    "under another's claim": (
        ["unclaimed"],
        [stored(), claimed(), started(client="y"), ended(client="y"), written()],
    ),
    "early, the wall went forward": (
        ["early"],
        [stored(due=900_000), claimed(), Jumped(by=5.0), *SUCCESS[1:]],
    ),
    "early, the wall stayed": (["early"], [stored(due=900_000), claimed(), Jumped(by=0.0), *SUCCESS[1:]]),
    "early, the wall went back long ago": (
        ["early"],
        [stored(due=900_000), Jumped(by=-5.0), Acknowledged(job="a"), *SUCCESS],
    ),
    "ended twice": (["extra"], [stored(), *RUN, ended(), written()]),
    "an older outcome of the same client": (
        ["stale"],
        [
            *[stored(), claimed(), started(), ended(how="raised"), written(status=AGAIN)],
            *[claimed(2, attempt=2), started(2, attempt=2), ended(2), written(1, attempt=2)],
        ],
    ),
    "an older outcome that changes nothing": (
        ["stale"],
        [
            *[stored(), claimed(), started(), ended(how="raised"), written(status=AGAIN)],
            *[claimed(2, attempt=2), but(written(1, AGAIN, attempt=0), due_at=EPOCH + 900_000)],
            *[started(2, attempt=2), ended(2), written(2, attempt=2)],
        ],
    ),
    "a lease that ended after an old jump": (
        ["extra"],
        [stored(), Jumped(by=3600.0), Acknowledged(job="a"), claimed(), lapse(), *LATER],
    ),
    "a lease that ended after an old fault": (["extra"], [stored(), fault(), claimed(), lapse(), *LATER]),
    "a lease that ended after another's fault": (
        ["extra"],
        [stored(), claimed(), fault("z"), lapse(), *LATER],
    ),
    "a lease that ended after another's stop": (
        ["extra"],
        [stored(), but(ASKED, client="z"), claimed(), lapse(), *LATER],
    ),
    "a crash that cost an attempt": (
        ["crashes"],
        [
            *[stored(), claimed(), started(), Died(client="x"), lapse(attempt=1)],
            *[
                but(event, attempt=2) if isinstance(event, Claimed | Started) else event
                for event in LATER[:3]
            ],
            written(2, client="y", attempt=2, crashes=1),
        ],
    ),
    "a crash changed by an outcome": (["outcome"], [stored(), *RUN, written(crashes=1)]),
    "a success in another attempt": (["outcome"], [stored(), *RUN, written(attempt=0)]),
    "a snooze that failed": (
        ["outcome"],
        [stored(), *RUN[:2], ended(how="snoozed"), written(status=FAILED, attempt=0)],
    ),
    "a snooze that counted": (
        ["outcome"],
        [
            *[stored(), *RUN[:2], ended(how="snoozed"), written(status=AGAIN)],
            *[claimed(2, attempt=2), started(2, attempt=2), ended(2), written(2, attempt=2)],
        ],
    ),
    "a discard that did not count": (
        ["outcome"],
        [stored(), *RUN[:2], ended(how="discarded"), written(status=FAILED, attempt=0)],
    ),
    "a stop that failed a job": (
        ["outcome"],
        [stored(), *RUN[:2], ASKED, ended(how="cancelled"), written(status=FAILED, attempt=0)],
    ),
    "a stop that made a success": (
        ["outcome"],
        [stored(), *RUN[:2], ASKED, ended(how="cancelled"), written()],
    ),
    "snoozed for too short": (
        ["outcome"],
        [
            *[stored(), *RUN[:2], but(ended(how="snoozed"), wait=2.0)],
            *[but(written(status=AGAIN, attempt=0), due_at=EPOCH + 5_999), *ANEW[1:]],
        ],
    ),
    "asked to wait for longer": (
        ["outcome"],
        [
            *[stored(), *RUN[:2], but(ended(how="retried"), wait=2.0)],
            *[but(written(status=AGAIN), due_at=EPOCH + 5_999), claimed(2, attempt=2), started(2, attempt=2)],
            *[ended(2), written(2, attempt=2)],
        ],
    ),
    "kept for ever, but gone": (["retention"], [stored(), *RUN, KEPT, Jumped(by=9.0), final(GONE)]),
    "kept for a while, but gone": (["retention"], [stored(), *RUN, BRIEFLY, at(5.5, final(GONE))]),
    "kept for a while, but longer": (["retention"], [stored(), *RUN, BRIEFLY, final(DONE)]),
    "not kept, but there": (["retention"], [stored(), *SUCCESS, final(DONE)]),
    "a stop that took a little longer": (["slow stop"], [asked(1.0, took=4.6)]),
    "claims left, the fault was long ago": (
        ["kept claims"],
        [
            *[stored(), claimed(), fault(), ASKED],
            *[but(stopped(clean=False, claims=["a"], took=48.0), limit=None), *SUCCESS[1:]],
        ],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_exactly_what_is_forbidden_is_found(name: str) -> None:
    """What lies just beyond what is promised is found, and nothing else with it."""
    kinds, events = BAD[name]
    assert sorted(line.split(":")[0] for line in check(timed(events))) == kinds


def test_two_runs_are_told_from_one_beside_itself() -> None:
    """It is said whether a job runs twice in one client or in two."""
    runs = [stored(), claimed(), started()]
    twice = [*runs, Jumped(by=9.0), lapse(), claimed(2, crashes=1), started(2)]
    assert any("beside itself" in line for line in check(timed(twice)))
    both = [
        *runs,
        written(status=AGAIN),
        claimed(2, client="y", attempt=2),
        started(2, client="y", attempt=2),
    ]
    assert any("runs in y beside x" in line for line in check(timed(both)))
    assert not any("beside itself" in line for line in check(timed(both)))


@pytest.mark.parametrize(
    ("workers", "events", "found"),
    [
        (1, [at(1, stored()), at(1.25, started()), at(2, ended())], 0),
        (1, [at(1, stored()), at(1.26, started()), at(2, ended())], 1),
        (
            1,
            [at(1, stored()), at(1, stored("b")), at(1, started()), at(5, ended()), at(5, started(job="b"))],
            0,
        ),
        (
            2,
            [at(1, stored()), at(1, stored("b")), at(1, started()), at(5, ended()), at(5, started(job="b"))],
            1,
        ),
    ],
    ids=["just in time", "too late", "no worker was free", "a worker was free"],
)
def test_promptness_is_measured_from_when_a_worker_was_free(
    workers: int, events: list[Event], found: int
) -> None:
    """A job may wait while all workers are busy, and no longer than it is allowed to."""
    assert len(check_prompt(events, workers=workers, within=0.25)) == found


def test_stop_asked_twice_counts_from_the_first() -> None:
    """A fault between two calls of `stop` excuses what the first one leaves."""
    events = [
        *[stored(), claimed(), ASKED, fault(), StopAsked(client="x", life=1, limit=0.0)],
        *[stopped(clean=False, claims=["a"]), lapse(), *LATER],
    ]
    assert check(timed(events)) == []
