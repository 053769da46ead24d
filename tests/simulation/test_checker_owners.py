"""What the checker says of owners: their deaths, their leases, the jobs that run alone, and moved waits."""

from __future__ import annotations

from typing import Any

import pytest

from .checker import check
from .clock import EPOCH
from .history import (
    Claimed,
    Closed,
    Died,
    Event,
    Jumped,
    Known,
    Manner,
    Marked,
    Outage,
    Shifted,
    Started,
    Written,
)
from .test_checker import (
    AGAIN,
    CLIENTS,
    FAILED,
    at,
    claimed,
    ended,
    marked,
    opened,
    started,
    stored,
    timed,
    written,
)
from .test_checker_edges import LATER, but, fault, lapse

BEGUN: list[Event] = [stored(), claimed(), started()]
OTHERS: list[Event] = [
    claimed(2, client="y"),
    started(2, client="y"),
    ended(2, client="y"),
    written(2, client="y"),
]


def back(**changes: Any) -> Written:
    """Give the job back untouched, for a dead owner."""
    return but(written(status=AGAIN, client="y", attempt=0), **changes)


def crash(**changes: Any) -> Written:
    """Count a crash, for a dead owner."""
    return but(written(status=AGAIN, client="y", attempt=0, crashes=1), **changes)


def later(second: float, events: list[Event]) -> list[Event]:
    return [at(second + number / 10, event) for number, event in enumerate(events)]


def again(second: float, life: int) -> Event:
    """The client x opens the store once more, as owner 10 + life."""
    return at(second, but(opened("x"), life=life, owner=10 + life))


def moved(by: int, **changes: Any) -> Shifted:
    return but(Shifted(job="a", by=by, due_at=EPOCH, waits_from=EPOCH), **changes)


LEFT = Closed(owner=CLIENTS.index("x"), dead=True)
WENT = Closed(owner=CLIENTS.index("x"), dead=False)

GOOD: dict[str, tuple[Manner, list[Event]]] = {
    "released after a death": ("bells", [*BEGUN, Died(client="x"), crash(), *LATER]),
    "released untouched, it had not started": (
        "bells",
        [stored(), claimed(), Died(client="x"), back(), *OTHERS],
    ),
    "released after a close that left it": ("bells", [stored(), claimed(), LEFT, back(), *OTHERS]),
    "released by a later life of the same process": (
        "bells",
        [
            *[stored(), claimed(), LEFT, again(3.5, 2)],
            *[at(3.9, back(owner=12, client="x")), but(claimed(2), owner=12), started(2), ended(2)],
            but(written(2), owner=12),
        ],
    ),
    "failed at the limit": (
        "bells",
        [but(stored(), max_crashes=1), *BEGUN[1:], Died(client="x"), crash(status=FAILED, due_at=None)],
    ),
    "a limit that is not known, and then is": (
        "bells",
        [
            *[but(stored(), max_crashes=1, kind=("q", "U")), *BEGUN[1:], Died(client="x"), crash()],
            *[claimed(2, client="y", crashes=1), written(2, FAILED, client="y", crashes=1)],
        ],
    ),
    "a limit that was not known a moment before": (
        "bells",
        [
            *[but(stored(), max_crashes=1, kind=("q", "U")), *BEGUN[1:], Died(client="x")],
            *[at(4.1, Known(client="y", kinds=[("q", "U")])), at(4.9, crash())],
            *[claimed(2, client="y", crashes=1), written(2, FAILED, client="y", crashes=1)],
        ],
    ),
    "a lapsed lease of the dead, it had started": ("bells", [*BEGUN, Died(client="x"), lapse(), *LATER]),
    "a lapsed lease of the dead, it had not": (
        "bells",
        [stored(), claimed(), Died(client="x"), lapse(crashes=0), *OTHERS],
    ),
    "a lapsed lease of one nobody sees, it had not started": (
        "blind",
        [stored(), claimed(), Died(client="x"), lapse(), *LATER],
    ),
    "a lapsed lease after a jump, where nobody sees the owner": (
        "blind",
        [*BEGUN, Jumped(by=60.0), lapse(), ended(), *LATER],
    ),
    "a lapsed lease after a jump at the claim": (
        "blind",
        [stored(), Jumped(by=60.0), claimed(), lapse(), *LATER],
    ),
    "taken from the living after a beat": (
        "bells",
        [*BEGUN, fault(), at(4.5, but(lapse(), lease_end=EPOCH + 3_500)), ended(), *later(6, LATER)],
    ),
    "taken from the living, a short outage": (
        "bells",
        [
            *[*BEGUN, Outage(begins=True), fault(), at(5.7, Outage(begins=False))],
            *[at(6.0, but(lapse(), lease_end=EPOCH + 3_500)), ended(), *later(8, LATER)],
        ],
    ),
    "taken by the same process, which knows that it does not hold it": (
        "bells",
        [
            *[stored(), claimed(), fault(), again(3.1, 2), but(lapse(), owner=12, client="x")],
            *LATER,
        ],
    ),
    "one alone with its last chance, then the others": (
        "bells",
        [
            *[but(stored(), max_crashes=2), stored("b"), *BEGUN[1:], Died(client="x"), crash()],
            *[claimed(2, client="y", crashes=1), started(2, client="y"), ended(2, client="y")],
            *[
                claimed(3, job="b", client="y"),
                started(3, job="b", client="y"),
                written(2, client="y", crashes=1),
            ],
            *[ended(3, job="b", client="y"), written(3, job="b", client="y")],
        ],
    ),
    "others beside one with two chances left": (
        "bells",
        [
            *[but(stored(), max_crashes=3), stored("b"), *BEGUN[1:], Died(client="x"), crash()],
            *[claimed(2, client="y", crashes=1), claimed(3, job="b", client="y"), started(2, client="y")],
            *[started(3, job="b", client="y"), ended(2, client="y"), written(2, client="y", crashes=1)],
            *[ended(3, job="b", client="y"), written(3, job="b", client="y")],
        ],
    ),
    "a wait that begins anew": (
        "bells",
        [
            *[but(stored(), due_at=EPOCH + 9_000, waits_from=EPOCH + 1_000), Jumped(by=-50.0)],
            *[moved(0, due_at=EPOCH - 40_000, waits_from=EPOCH - 48_000)],
            *later(10, [but(claimed(), now=EPOCH - 40_000), but(started(), wall=EPOCH), ended(), written()]),
        ],
    ),
    "a wait that ends as it was to end": (
        "bells",
        [
            *[but(stored(), due_at=EPOCH + 9_000, waits_from=EPOCH + 1_000), at(2, Jumped(by=-50.0))],
            *[
                but(
                    Shifted(job="a", by=-50_000, due_at=EPOCH - 41_000, waits_from=EPOCH),
                    at=3,
                    wall=EPOCH - 47_000,
                )
            ],
            *later(10, [but(claimed(), now=EPOCH), started(), ended(), written()]),
        ],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_owners_may_do_passes(name: str) -> None:
    """Whatever follows from a death, a lost lease, or a moved clock as it should is no violation."""
    manner, events = GOOD[name]
    assert check(timed(events, manner)) == []


BAD: dict[str, tuple[Manner, list[str], list[Event]]] = {
    "taken over from the living": ("bells", ["stale"], [*BEGUN, crash(), ended(), *LATER]),
    "taken over from one who closed in good order": (
        "bells",
        ["stale"],
        [stored(), claimed(), WENT, back(), *OTHERS],
    ),
    "a crash of a job that had not started": (
        "bells",
        ["crashes"],
        [stored(), claimed(), Died(client="x"), crash(), *LATER],
    ),
    "no crash of a job that had": ("bells", ["crashes"], [*BEGUN, Died(client="x"), back(), *OTHERS]),
    "a crash by the lapsed lease of a job that had not started": (
        "bells",
        ["crashes"],
        [stored(), claimed(), Died(client="x"), lapse(), *LATER],
    ),
    "no crash where nobody sees the owner": (
        "blind",
        ["crashes"],
        [stored(), claimed(), Died(client="x"), lapse(crashes=0), *OTHERS],
    ),
    "two crashes for one": (
        "bells",
        ["crashes"],
        [
            *[but(stored(), max_crashes=9), *BEGUN[1:], Died(client="x"), crash(crashes=2)],
            *(but(e, crashes=2) if isinstance(e, Claimed | Written) else e for e in LATER),
        ],
    ),
    "an attempt lost by a death": (
        "bells",
        ["crashes"],
        [
            *[stored(), claimed(), Died(client="x"), back(attempt=1)],
            *(but(e, attempt=2) if isinstance(e, Claimed | Started | Written) else e for e in OTHERS),
        ],
    ),
    "released for later": (
        "bells",
        ["place"],
        [*BEGUN, Died(client="x"), crash(due_at=EPOCH + 4_000), *LATER],
    ),
    "not failed at the limit that is known": (
        "bells",
        ["crashes"],
        [
            *[but(stored(), max_crashes=1), *BEGUN[1:], Died(client="x"), crash()],
            *[claimed(2, client="y", crashes=1), written(2, FAILED, client="y", crashes=1)],
        ],
    ),
    "run beyond the limit": (
        "bells",
        ["crashes"],
        [but(stored(), max_crashes=1, kind=("q", "U")), *BEGUN[1:], Died(client="x"), crash(), *LATER],
    ),
    "failed without a handler's word": ("bells", ["lost"], [stored(), claimed(), written(1, FAILED)]),
    "a crash without having run": (
        "bells",
        ["crashes"],
        [
            stored(),
            claimed(),
            but(written(status=AGAIN), attempt=0, crashes=1),
            claimed(2, crashes=1),
            started(2),
            ended(2),
            written(2, crashes=1),
        ],
    ),
    "put down without a claim": (
        "bells",
        ["mark"],
        [stored(), marked(7), claimed(), at(4.0, marked()), at(4.0, started()), ended(), written()],
    ),
    "put down before it starts": (
        "bells",
        ["mark"],
        [stored(), claimed(), marked(), started(), ended(), written()],
    ),
    "put down, but never started": (
        "bells",
        ["mark"],
        [
            stored(),
            claimed(),
            marked(),
            Died(client="x"),
            crash(),
            *later(6, [LATER[0], marked(2, client="y")]),
            at(6.1, LATER[1]),
            *later(7, LATER[2:]),
        ],
    ),
    "taken from the living after a jump": (
        "bells",
        ["extra", "hasty"],
        [*BEGUN, Jumped(by=60.0), at(4.2, but(lapse(), lease_end=EPOCH + 30_000)), ended(), *LATER],
    ),
    "taken from the living within a beat": (
        "bells",
        ["hasty"],
        [*BEGUN, fault(), at(4.4, but(lapse(), lease_end=EPOCH + 3_500)), ended(), *later(6, LATER)],
    ),
    "taken from the living within a beat of a jump": (
        "bells",
        ["hasty"],
        [
            *BEGUN,
            fault(),
            at(4.5, Jumped(by=60.0)),
            at(5.4, but(lapse(), lease_end=EPOCH + 30_000)),
            ended(),
            *later(6, LATER),
        ],
    ),
    "taken from the living, when nobody could write": (
        "bells",
        ["hasty"],
        [
            *[
                but(stored(), max_crashes=9),
                but(opened("x"), beat=10.0),
                claimed(),
                fault(),
                Outage(begins=True),
            ],
            *[
                at(14.0, Outage(begins=False)),
                at(14.5, but(lapse(), lease_end=EPOCH + 3_500)),
                *later(16, LATER),
            ],
        ],
    ),
    "taken from itself": (
        "bells",
        ["stale"],
        [
            stored(),
            claimed(),
            but(written(status=AGAIN), attempt=0, lapse=True),
            claimed(2),
            started(2),
            ended(2),
            written(2),
        ],
    ),
    "its last chance beside another": (
        "bells",
        ["beside"],
        [
            *[stored(), stored("b"), *BEGUN[1:], Died(client="x"), crash()],
            *[
                claimed(2, client="y", crashes=1),
                claimed(3, job="b", client="y"),
                started(3, job="b", client="y"),
            ],
            *[started(2, client="y"), ended(2, client="y"), written(2, client="y", crashes=1)],
            *[ended(3, job="b", client="y"), written(3, job="b", client="y")],
        ],
    ),
    "another beside its last chance": (
        "bells",
        ["beside"],
        [
            *[stored(), stored("b"), *BEGUN[1:], Died(client="x"), crash()],
            *[claimed(2, client="y", crashes=1), claimed(3, job="b", client="y"), started(2, client="y")],
            *[started(3, job="b", client="y"), ended(2, client="y"), written(2, client="y", crashes=1)],
            *[ended(3, job="b", client="y"), written(3, job="b", client="y")],
        ],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_owners_may_not_do_is_found(name: str) -> None:
    """Each thing that must not follow from a death or a lost lease is found, and nothing else."""
    manner, kinds, events = BAD[name]
    assert sorted(line.split(":")[0] for line in check(timed(events, manner))) == kinds


def test_start_that_was_not_put_down_is_found() -> None:
    """A handler may not start before that is put down."""
    events = [event for event in timed([*BEGUN, ended(), written()]) if not isinstance(event, Marked)]
    assert [line.split(":")[0] for line in check(events)] == ["mark"]


MOVES: dict[str, tuple[bool, Shifted]] = {
    "as the clock was": (True, moved(-50_000, due_at=EPOCH - 41_000, waits_from=EPOCH - 48_000)),
    "twice": (False, moved(-50_000, due_at=EPOCH - 91_000, waits_from=EPOCH - 48_000)),
    "too late": (False, moved(50_000, due_at=EPOCH + 59_000, waits_from=EPOCH - 48_000)),
    "anew": (True, moved(0, due_at=EPOCH - 40_000, waits_from=EPOCH - 48_000)),
    "anew, for longer": (False, moved(0, due_at=EPOCH - 39_000, waits_from=EPOCH - 48_000)),
    "anew, though it had begun": (False, moved(0, due_at=EPOCH + 9_500, waits_from=EPOCH + 1_500)),
}


@pytest.mark.parametrize("name", MOVES)
def test_wait_is_moved_as_the_clock_was(name: str) -> None:
    """A wait of eight seconds, one second of which has passed when the clock goes back by fifty."""
    fine, move = MOVES[name]
    waiting = but(stored(), due_at=EPOCH + 9_000, waits_from=EPOCH + 1_000)
    run = later(100, [but(claimed(), now=EPOCH + 90_000), started(), ended(), written()])
    events = [waiting, Jumped(by=-50.0), but(move, at=3.0, wall=EPOCH - 47_000), *run]
    found = [line.split(":")[0] for line in check(timed(events))]
    assert found == ([] if fine else ["shifted"])


@pytest.mark.parametrize(
    "events",
    [
        [stored(), moved(0), *BEGUN[1:], ended(), written()],
        [*BEGUN[:2], moved(0), started(), ended(), written()],
        [*BEGUN, ended(), written(), moved(0)],
    ],
    ids=["due at an instant", "claimed", "ended"],
)
def test_only_what_waits_for_a_while_is_moved(events: list[Event]) -> None:
    """An instant that was given stays what it is, whatever the clock does."""
    assert [line.split(":")[0] for line in check(timed(events))] == ["shifted"]
