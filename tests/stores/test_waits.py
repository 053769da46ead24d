"""What becomes of waits in every store when the wall clock was set back, and is set right again."""

from __future__ import annotations

from typing import Any

import pytest

from backlite_async.stores import Store

from .test_contract import at, claim, new, record

WAITING: dict[str, Any] = {"due_at": 5000, "waits_from": 1000}


async def due(store: Store, job_id: str = "a") -> int:
    """Return when a job is due, by its record and, for the first one, by when to look for it again."""
    shown = round(((await record(store, job_id)).due_at - at(0)).total_seconds() * 1000)
    assert job_id != "a" or (await claim(store, now=1)).next_at == shown
    return shown


@pytest.mark.parametrize("by", [-600, 0], ids=["step known", "step unknown"])
async def test_wait_is_as_long_as_it_was_meant(store: Store, by: int) -> None:
    """A wait that began at a time that is still to come begins now, once."""
    await store.add([new("a", **WAITING)])
    assert await store.shift_waits(now=400, by=by) == 1
    assert await due(store) == 4400
    assert await store.shift_waits(now=400, by=by) == 0
    assert await due(store) == 4400


@pytest.mark.parametrize(
    "changes",
    [
        {"waits_from": None},
        {"waits_from": 400},
        {"waits_from": 399},
        {"due_at": 400},
    ],
    ids=["at an instant", "since now", "since before", "due"],
)
async def test_what_does_not_wait_from_a_time_to_come_stays(
    store: Store, changes: dict[str, int | None]
) -> None:
    """An instant that was asked for is meant as it is, and so is a wait that began before."""
    job = new("a", **(WAITING | changes))
    await store.add([job])
    assert await store.shift_waits(now=400, by=-600) == 0
    assert await due(store) == job.due_at


@pytest.mark.parametrize(("waits_from", "moved"), [(399, False), (400, True), (900, True), (901, False)])
async def test_clock_that_is_set_right_gives_back_what_it_took(
    store: Store, waits_from: int, moved: bool
) -> None:
    """A wait that began while the clock was wrong ends later; one from before or from now on does not."""
    await store.add([new("a", due_at=5000, waits_from=waits_from)])
    assert await store.shift_waits(now=1500, since=400, by=600) == moved
    assert await due(store) == 5000 + 600 * moved


async def test_clock_back_and_right_again_changes_nothing(store: Store) -> None:
    """Both steps together leave a wait as it was."""
    await store.add([new("a", **WAITING)])
    await store.shift_waits(now=400, by=-600)
    assert await store.shift_waits(now=1000, since=400, by=600) == 1
    assert await due(store) == 5000


async def test_only_waits_from_a_time_to_come_move(store: Store) -> None:
    """Beside a wait that is shifted, an instant that was asked for stays."""
    await store.add([new("a", **WAITING), new("b", due_at=7000), new("c", due_at=7000, waits_from=399)])
    assert await store.shift_waits(now=400, by=-600) == 1
    assert [await due(store, job_id) for job_id in "abc"] == [4400, 7000, 7000]


async def test_shifted_waits_keep_their_order(store: Store) -> None:
    """Several waits move together."""
    await store.add([new("a", **WAITING), new("b", due_at=6000, waits_from=2000)])
    assert await store.shift_waits(now=400, by=-600) == 2
    assert (await due(store), await due(store, "b")) == (4400, 5400)
