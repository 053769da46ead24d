"""The checker finds what it is there to find, and nothing in a history that is as promised."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backlite_async import JobStatus

from .checker import check
from .clock import EPOCH
from .history import (
    Acknowledged,
    Claimed,
    Died,
    Ended,
    Event,
    Fault,
    Final,
    Jumped,
    Known,
    Manner,
    Marked,
    Misuse,
    Opened,
    Probed,
    Started,
    StopAsked,
    Stopped,
    Stored,
    Written,
)
from .order import check_order, check_prompt

CLIENTS = "wxyz"
"""The names of clients; their places in this are the numbers of their owners."""


def stored(job: str = "a", due: int = 0) -> Stored:
    return Stored(job=job, kind=("q", "T"), due_at=EPOCH + due, max_attempts=2, max_crashes=2)


def claimed(
    fence: int = 1, *, job: str = "a", client: str = "x", attempt: int = 1, crashes: int = 0
) -> Claimed:
    return Claimed(
        job=job,
        owner=CLIENTS.index(client),
        client=client,
        fence=fence,
        attempt=attempt,
        crashes=crashes,
        now=EPOCH + 1_000_000,
    )


def started(
    fence: int = 1, *, job: str = "a", client: str = "x", attempt: int = 1, workers: int = 2
) -> Started:
    return Started(job=job, client=client, life=1, workers=workers, fence=fence, attempt=attempt)


def marked(fence: int = 1, *, job: str = "a", client: str = "x") -> Marked:
    return Marked(job=job, owner=CLIENTS.index(client), fence=fence)


def ended(fence: int = 1, how: Any = "returned", *, job: str = "a", client: str = "x") -> Ended:
    return Ended(job=job, client=client, fence=fence, how=how)


def written(
    fence: int = 1,
    status: JobStatus = JobStatus.SUCCEEDED,
    *,
    job: str = "a",
    client: str = "x",
    attempt: int = 1,
    crashes: int = 0,
    lapse: bool = False,
) -> Written:
    return Written(
        job=job,
        owner=CLIENTS.index(client),
        client=client,
        fence=fence,
        accepted=True,
        status=status,
        attempt=attempt,
        crashes=crashes,
        due_at=EPOCH if status is JobStatus.PENDING else None,
        lapse=lapse,
        lease_end=EPOCH + 2_000,
    )


AGAIN, FAILED, DONE = JobStatus.PENDING, JobStatus.FAILED, JobStatus.SUCCEEDED
ASKED = StopAsked(client="x", life=1, limit=0.0)


def stopped(*, clean: bool, claims: list[str], took: float = 1.0) -> Stopped:
    return Stopped(
        at=50.0, wall=EPOCH, client="x", life=1, clean=clean, asked_at=50.0 - took, limit=1.0, claims=claims
    )


def opened(client: str, manner: Manner = "bells", *, beat: float = 1.0) -> Opened:
    return Opened(
        at=0.5,
        wall=EPOCH + 500,
        owner=CLIENTS.index(client),
        client=client,
        life=1,
        workers=2,
        beat=beat,
        manner=manner,
    )


def timed(events: list[Event], manner: Manner = "bells") -> list[Event]:
    """Give the events their times, a second apart, unless they have one.

    Before them all clients open the store and know all kinds; each start of a handler is put down, by
    the owner that has claimed the job, unless that is in the list.
    """
    known: list[Event] = [Known(client=client, kinds=[("q", "T")]) for client in CLIENTS]
    told = [opened(client, manner) for client in CLIENTS] + known
    put_down = {(event.job, event.fence) for event in events if isinstance(event, Marked)}
    owners = {(event.job, event.fence): event.owner for event in events if isinstance(event, Claimed)}
    for number, raw in enumerate(events, 1):
        event = raw if raw.at else msgspec.structs.replace(raw, at=float(number), wall=EPOCH + 1000 * number)
        if isinstance(event, Started) and (event.job, event.fence) not in put_down:
            owner = owners.get((event.job, event.fence), CLIENTS.index(event.client))
            told.append(Marked(at=event.at, wall=event.wall, job=event.job, owner=owner, fence=event.fence))
        told.append(event)
    return told


GOOD: dict[str, list[Event]] = {
    "one success": [
        stored(),
        Acknowledged(job="a"),
        claimed(),
        started(),
        ended(),
        written(),
        Final(job="a", status=JobStatus.NOT_FOUND),
    ],
    "a retry, then the last attempt": [
        stored(),
        claimed(),
        started(),
        ended(how="raised"),
        written(status=AGAIN),
        claimed(2, attempt=2),
        started(2, attempt=2),
        ended(2, "raised"),
        written(2, FAILED, attempt=2),
    ],
    "a snooze does not count": [
        stored(),
        claimed(),
        started(),
        ended(how="snoozed"),
        written(status=AGAIN, attempt=0),
        claimed(2),
        started(2),
        ended(2),
        written(2),
    ],
    "a crash, and another owner": [
        stored(),
        claimed(),
        started(),
        Died(client="x"),
        written(status=AGAIN, client="y", attempt=0, crashes=1),
        claimed(2, client="y", crashes=1),
        started(2, client="y"),
        ended(2, client="y"),
        written(2, client="y", crashes=1),
    ],
    "a lease that ended because the owner could not write": [
        stored(),
        claimed(),
        started(),
        Fault(client="x", operation="renew", took_effect=False),
        written(status=AGAIN, client="y", attempt=0, crashes=1, lapse=True),
        ended(),
        claimed(2, client="y", crashes=1),
        started(2, client="y"),
        ended(2, client="y"),
        written(2, client="y", crashes=1),
    ],
    "given back by a stop": [
        stored(),
        claimed(),
        started(),
        ASKED,
        ended(how="cancelled"),
        written(status=AGAIN, attempt=0),
        stopped(clean=False, claims=[]),
        claimed(2),
        started(2),
        ended(2),
        written(2),
    ],
    "left claimed because the store failed": [
        stored(),
        claimed(),
        ASKED,
        Fault(client="x", operation="finish", took_effect=False),
        stopped(clean=False, claims=["a"]),
        written(status=AGAIN, client="y", attempt=0, crashes=1, lapse=True),
        claimed(2, client="y", crashes=1),
        started(2, client="y"),
        ended(2, client="y"),
        written(2, client="y", crashes=1),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_history_passes(name: str) -> None:
    """What the library may do is no violation."""
    assert check(timed(GOOD[name])) == []


BAD: dict[str, tuple[str, list[Event]]] = {
    "acknowledged, never stored": ("lost", [Acknowledged(job="a")]),
    "stored, never run": ("lost", [stored(), Acknowledged(job="a")]),
    "run, outcome forgotten": ("lost", [stored(), claimed(), started(), ended()]),
    "succeeded without having run": ("lost", [stored(), claimed(), written()]),
    "stored twice": ("added twice", [stored(), stored(), claimed(), started(), ended(), written()]),
    "claimed while claimed": ("claimed twice", [stored(), claimed(), claimed(2), started(2), ended(2)]),
    "claimed after its end": ("ghost", [*GOOD["one success"][:6], claimed(2)]),
    "fence repeated": (
        "fence",
        [stored(), claimed(3), started(3), ended(3, "raised"), written(3, AGAIN), claimed(2, attempt=2)],
    ),
    "claimed early": ("early", [stored(due=2_000_000), claimed()]),
    "started early": ("early", [stored(due=900_000), claimed(), started()]),
    "attempt not counted": (
        "attempts",
        [stored(), claimed(), started(), ended(how="raised"), written(status=AGAIN), claimed(2)],
    ),
    "one attempt too many": ("attempts", [stored(), claimed(attempt=3), started(attempt=3)]),
    "one crash too many": ("crashes", [stored(), claimed(crashes=2)]),
    "crash not counted": (
        "crashes",
        [stored(), claimed(), started(), Died(client="x"), written(status=AGAIN, client="y", attempt=0)],
    ),
    "crash counted that was none": (
        "crashes",
        [stored(), claimed(), Died(client="x"), written(status=AGAIN, client="y", attempt=0, crashes=1)],
    ),
    "a crash too early for the end": (
        "crashes",
        [
            stored(),
            claimed(),
            started(),
            Died(client="x"),
            written(status=FAILED, client="y", attempt=0, crashes=1),
        ],
    ),
    "runs beside itself": (
        "overlap",
        [
            stored(),
            claimed(),
            started(),
            Jumped(by=3600.0),
            written(status=AGAIN, client="y", attempt=0, crashes=1, lapse=True),
            claimed(2, crashes=1),
            started(2),
        ],
    ),
    "runs in two clients": (
        "overlap",
        [
            stored(),
            claimed(),
            started(),
            written(status=AGAIN, attempt=1),
            claimed(2, client="y", attempt=2),
            started(2, client="y", attempt=2),
        ],
    ),
    "runs without a claim": ("unclaimed", [stored(), started()]),
    "started twice under one claim": (
        "extra",
        [stored(), claimed(), started(), ended(), started(), ended(), written()],
    ),
    "ended without a start": ("extra", [stored(), claimed(), ended(), written()]),
    "lapsed without a cause": (
        "extra",
        [stored(), claimed(), started(), written(status=AGAIN, client="y", attempt=0, crashes=1, lapse=True)],
    ),
    "too many at once": (
        "crowd",
        [
            stored(),
            stored("b"),
            claimed(),
            claimed(2, job="b"),
            started(workers=1),
            started(2, job="b", workers=1),
        ],
    ),
    "a stale outcome was accepted": (
        "stale",
        [
            stored(),
            claimed(),
            started(),
            Died(client="x"),
            written(status=AGAIN, client="y", attempt=0, crashes=1, lapse=True),
            claimed(2, client="y", crashes=1),
            written(1),
        ],
    ),
    "another's outcome": ("stale", [stored(), claimed(), started(), ended(), written(client="y")]),
    "completed twice": ("completed twice", [*GOOD["one success"][:6], written()]),
    "an outcome before the end": ("outcome", [stored(), claimed(), started(), written()]),
    "a failure became a success": (
        "outcome",
        [stored(), claimed(), started(), ended(how="raised"), written()],
    ),
    "a success runs again": ("outcome", [stored(), claimed(), started(), ended(), written(status=AGAIN)]),
    "a failure with attempts left": (
        "outcome",
        [stored(), claimed(), started(), ended(how="raised"), written(status=FAILED)],
    ),
    "given back without a stop": (
        "outcome",
        [stored(), claimed(), started(), ended(how="cancelled"), written(status=AGAIN, attempt=0)],
    ),
    "discarded, runs again": (
        "outcome",
        [stored(), claimed(), started(), ended(how="discarded"), written(status=AGAIN)],
    ),
    "stop took too long": ("slow stop", [ASKED, stopped(clean=True, claims=[], took=5.0)]),
    "stop was not clean": (
        "untrue stop",
        [stored(), claimed(), started(), ASKED, stopped(clean=True, claims=["a"])],
    ),
    "stop left a claim and said True": (
        "untrue stop",
        [stored(), claimed(), ASKED, stopped(clean=True, claims=["a"])],
    ),
    "stop left a claim": ("kept claims", [stored(), claimed(), ASKED, stopped(clean=False, claims=["a"])]),
    "a smaller pool": ("pool", [Probed(expected=3, met=2)]),
    "a lost record": (
        "retention",
        [*GOOD["one success"][:6], Final(job="a", status=JobStatus.SUCCEEDED)],
    ),
    "a handler that never ends": ("endless", [stored(), claimed(), started()]),
    "a use after close": ("misuse", [Misuse(what="renew")]),
}


@pytest.mark.parametrize("name", BAD)
def test_violation_is_found(name: str) -> None:
    """Each kind of violation is named."""
    kind, events = BAD[name]
    assert kind in [line.split(":")[0] for line in check(timed(events))]


def at(second: float, event: Event) -> Event:
    return msgspec.structs.replace(event, at=second, wall=EPOCH + round(second * 1000))


@pytest.mark.parametrize(
    ("start", "found"), [(1.001, 0), (31.0, 1)], ids=["at once", "after the capped sleep"]
)
def test_idle_worker_is_found(start: float, found: int) -> None:
    """A job that waits although a worker is free is found, one that does not is not."""
    events = [at(1, stored()), at(start, claimed()), at(start, started()), at(start + 1, ended())]
    assert len(check_prompt(events, workers=1, within=0.1)) == found


@pytest.mark.parametrize(("first", "found"), [("a", 0), ("b", 1)], ids=["by due time", "the wrong way round"])
def test_wrong_order_is_found(first: str, found: int) -> None:
    """A job that is claimed before one that was due earlier is found."""
    second = "b" if first == "a" else "a"
    events: list[Event] = [stored("a", 1), stored("b", 2), claimed(job=first), claimed(2, job=second)]
    assert len(check_order(timed(events))) == found
