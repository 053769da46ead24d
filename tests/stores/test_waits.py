"""What becomes of waits in every store when the wall clock was set back, and is set right again."""

from __future__ import annotations

import pytest

from backlite_async.stores import Store

from .test_contract import at, claim, new, record

NOW = 10_000_000
STEP = 600_000
LATER = NOW + 5_000_000


async def due(store: Store, job_id: str = "a") -> int:
    """Return when a job is due, by its record and, for the first one, by when to look for it again."""
    shown = round(((await record(store, job_id)).due_at - at(0)).total_seconds() * 1000)
    assert job_id != "a" or (await claim(store, now=1)).next_at == shown
    return shown


@pytest.mark.parametrize(
    ("by", "waits_from", "due_at", "shift"),
    [
        (-STEP, NOW + 1_001, LATER, -STEP),
        (-STEP, NOW + 1_000, LATER, 0),
        (-STEP, NOW - 60_000, LATER, 0),
        (-STEP, NOW - 60_001, LATER, -STEP),
        (-STEP, NOW - 60_001, NOW + 1, -STEP),
        (-STEP, NOW - 60_001, NOW, 0),
        (-STEP, None, LATER, 0),
        (STEP, NOW - STEP, LATER, STEP),
        (STEP, NOW - STEP + 1, LATER, 0),
        (STEP, NOW - 2 * STEP, NOW - STEP + 1, STEP),
        (STEP, NOW - 2 * STEP, NOW - STEP, 0),
        (STEP, None, LATER, 0),
        (0, NOW + 1_001, LATER, -1_001),
        (0, NOW + 1_000, LATER, 0),
        (0, NOW - 60_001, LATER, 0),
        (0, None, LATER, 0),
    ],
)
async def test_wait_is_as_long_as_it_was_meant(
    store: Store, by: int, waits_from: int | None, due_at: int, shift: int
) -> None:
    """A wait that began before a step of the clock moves with it; what was asked for as an instant stays."""
    await store.add([new("a", waits_from=waits_from, due_at=due_at), new("b", due_at=2 * LATER)])
    assert await store.shift_waits(now=NOW, by=by) == (shift != 0)
    assert await due(store) == due_at + shift
    assert await due(store, "b") == 2 * LATER


async def test_clock_back_and_right_again_changes_nothing(store: Store) -> None:
    """Both steps together leave a wait as it was."""
    await store.add([new("a", waits_from=NOW + STEP, due_at=LATER)])
    assert await store.shift_waits(now=NOW, by=-STEP) == 1
    assert await store.shift_waits(now=NOW + STEP, by=STEP) == 1
    assert await due(store) == LATER


async def test_wait_that_begins_anew_does_so_once(store: Store) -> None:
    """Where it is not known by how much the clock was set back, a second look changes nothing."""
    await store.add([new("a", waits_from=NOW + STEP, due_at=LATER)])
    assert await store.shift_waits(now=NOW, by=0) == 1
    assert await store.shift_waits(now=NOW, by=0) == 0
    assert await due(store) == LATER - STEP


async def test_waits_move_together(store: Store) -> None:
    """Several waits keep their order, beside others that stay."""
    waits = {"a": NOW + STEP, "b": NOW + 2 * STEP, "c": NOW + 500, "d": None}
    await store.add([new(job_id, waits_from=begin, due_at=LATER) for job_id, begin in waits.items()])
    assert await store.shift_waits(now=NOW, by=-STEP) == 2
    assert [await due(store, job_id) for job_id in waits] == [LATER - STEP, LATER - STEP, LATER, LATER]


async def test_only_what_waits_is_shifted(store: Store) -> None:
    """The lease of a job that runs is left alone."""
    await store.add([new("a", waits_from=NOW - 2 * STEP, due_at=NOW)])
    (job,) = (await claim(store, now=NOW, until=LATER)).jobs
    for by in (-STEP, 0, STEP):
        assert await store.shift_waits(now=NOW - STEP, by=by) == 0
    assert (await claim(store, owner="other", now=NOW)).next_at == LATER
    assert store.renew([("a", job.fence)], until=LATER) == set()
