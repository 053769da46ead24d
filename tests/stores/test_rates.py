"""Rates: at most so many starts of a queue in any window of a length, whoever claims."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backlite_async._job import Claim, Lane, Limit, More
from backlite_async.stores import MemoryStore, Store
from backlite_async.stores.sqlite.store import SQLiteStore

from .test_contract import complete, ids, new
from .test_control import ALL, numbered, within

BEGIN = 1_000_000
"""The time when tests begin: an instant of 0 is none."""


def rated(count: int, per: int, **changes: int) -> Limit:
    return msgspec.structs.replace(Limit(queue="q", rate=(count, per)), **changes)


async def start(
    store: Store, limit: Limit, now: int, *, room: int = 1000, owner: str = "mine", at: int | None = None
) -> Claim:
    """Claim `now` milliseconds after the beginning; note that all of them start then, or as told."""
    moment = BEGIN + now
    lane = Lane(kinds=ALL.kinds, room=room)
    found = await within(store, limit, lane, owner=owner, now=moment, until=moment + 30_000)
    note = moment if at is None else at
    await store.note_starts([(limit.queue, number, note) for number in found.starts.values()])
    return found


def next_at(found: Claim) -> int | None:
    return None if found.next_at is None else found.next_at - BEGIN


# -- room ------------------------------------------------------------------------------------------


async def test_no_more_than_the_rate(store: Store) -> None:
    """A claim takes no more of a queue than may start; others are as ever."""
    await store.add([*numbered(9), *numbered(2, begin=10, queue="r")])
    found = await start(store, rated(3, 1000), 0)
    assert ids(found.jobs) == ["0", "1", "2", "10", "11"]
    assert set(found.starts) == {"0", "1", "2"}


async def test_claims_share_the_rate(store: Store) -> None:
    """All claims of all owners count, also those of jobs that have ended since."""
    await store.add(numbered(9))
    limit = rated(3, 1000)
    first = await start(store, limit, 0, room=2)
    await store.finish([complete(job) for job in first.jobs])
    second = await start(store, limit, 10, owner="other")
    assert (ids(first.jobs), ids(second.jobs)) == (["0", "1"], ["2"])
    assert (await start(store, limit, 20)).jobs == []


async def test_starts_leave_the_window(store: Store) -> None:
    """A start counts for as long as the window, and not longer."""
    await store.add(numbered(9))
    limit = rated(2, 1000)
    assert ids((await start(store, limit, 0, room=1)).jobs) == ["0"]
    assert ids((await start(store, limit, 400)).jobs) == ["1"]
    assert (await start(store, limit, 999)).jobs == []
    assert ids((await start(store, limit, 1000)).jobs) == ["2"]
    assert (await start(store, limit, 1399)).jobs == []
    assert ids((await start(store, limit, 1400)).jobs) == ["3"]
    assert ids((await start(store, limit, 9000)).jobs) == ["4", "5"]


async def test_rate_is_of_the_queue(store: Store) -> None:
    """All its kinds share it, the best jobs first; another queue has its own."""
    await store.add([new("a", "U", due_at=2), new("b", "T", due_at=1), new("c", "V", due_at=3)])
    await store.add(numbered(3, queue="r"))
    limits = [rated(2, 1000), Limit(queue="r", rate=(1, 1000))]
    found = await within(store, limits, now=BEGIN, until=BEGIN + 30_000)
    assert ids(found.jobs) == ["0", "b", "a"]


async def test_rate_and_other_limits(store: Store) -> None:
    """The smallest one counts, and only what is claimed counts as a start."""
    await store.add(numbered(9))
    assert len((await start(store, rated(5, 1000, room=2), 0)).jobs) == 2
    assert len((await start(store, rated(5, 1000, in_all=3), 1)).jobs) == 1
    assert len((await start(store, rated(5, 1000, room=9), 2)).jobs) == 2
    assert len((await start(store, rated(5, 1000, room=9), 3)).jobs) == 0


async def test_rate_and_turns(store: Store) -> None:
    """What waits for its turn counts as no start."""
    more = More(key="k")
    await store.add([*numbered(3, more=more, priority=1), *numbered(3, begin=5)])
    found = await start(store, rated(3, 1000, per_key=1), 0)
    assert (ids(found.jobs), len(found.starts)) == (["0", "5", "6"], 3)
    assert (await start(store, rated(3, 1000, per_key=1), 1)).jobs == []


async def test_rate_that_changes(store: Store) -> None:
    """Another rate counts what has started already."""
    await store.add(numbered(9))
    assert len((await start(store, rated(3, 1000), 0)).jobs) == 3
    assert len((await start(store, rated(2, 1000), 500)).jobs) == 0
    assert len((await start(store, rated(5, 1000), 500)).jobs) == 2
    assert len((await start(store, rated(1, 200), 800)).jobs) == 1


async def test_claims_without_a_rate_count_nothing(store: Store) -> None:
    """Starts are counted where a claim has a rate."""
    await store.add(numbered(9))
    assert (await within(store, Limit(queue="q", room=2), now=BEGIN)).starts == {}
    assert len((await start(store, rated(3, 1000), 0)).jobs) == 3


async def test_paused_queue_with_a_rate(store: Store) -> None:
    """Nothing of it starts, nor is it waited for."""
    await store.add(numbered(3))
    assert len((await start(store, rated(1, 1000), 0)).jobs) == 1
    await store.pause("q", now=BEGIN)
    assert next_at(await start(store, rated(1, 1000), 500)) is None
    await store.resume("q")
    assert next_at(await start(store, rated(1, 1000), 500)) == 1000


# -- numbers and instants --------------------------------------------------------------------------


async def test_starts_are_numbered(store: Store) -> None:
    """Each claimed job of the queue has the next number of that queue, in their order."""
    await store.add([*numbered(6), *numbered(2, begin=10, queue="r")])
    limits = [rated(9, 1000), Limit(queue="r", rate=(9, 1000))]
    lane = Lane(kinds=ALL.kinds, room=4)
    first = await within(store, limits, lane, now=BEGIN, until=BEGIN + 5)
    second = await within(store, limits, lane, now=BEGIN, until=BEGIN + 5)
    numbers = [
        number for found in (first, second) for job_id, number in found.starts.items() if len(job_id) < 2
    ]
    assert numbers == list(range(numbers[0], numbers[0] + 6))
    assert list(first.starts) == ids(first.jobs)
    others = [found.starts[job_id] for found in (first, second) for job_id in found.starts if len(job_id) > 1]
    assert others[1] == others[0] + 1


async def test_start_counts_at_the_end_of_its_lease_until_it_is_noted(store: Store) -> None:
    """It may be that late; once it is known, it counts when it was."""
    await store.add(numbered(9))
    limit = rated(1, 1000)
    lane = Lane(kinds=ALL.kinds, room=1)
    first = await within(store, limit, lane, now=BEGIN, until=BEGIN + 30_000)
    assert next_at(await start(store, limit, 2000)) == 31_000
    assert (await start(store, limit, 30_999)).jobs == []
    await store.note_starts([("q", first.starts["0"], BEGIN + 200)])
    assert next_at(await start(store, limit, 1199)) == 1200
    assert ids((await start(store, limit, 1200)).jobs) == ["1"]


async def test_void_starts(store: Store) -> None:
    """What did not start, as its claim was given back, gives its place to another, at either end."""
    await store.add(numbered(9))
    limit = rated(3, 1000)
    found = await within(store, limit, now=BEGIN, until=BEGIN + 30_000)
    first, second, third = (found.starts[job_id] for job_id in "012")
    await store.note_starts([("q", first, 0), ("q", second, BEGIN), ("q", third, BEGIN)])
    assert len((await start(store, limit, 1)).jobs) == 1
    assert (await start(store, limit, 2)).jobs == []
    assert len((await start(store, limit, 1000)).jobs) == 2


async def test_all_void(store: Store) -> None:
    """Where nothing has started, all may start."""
    await store.add(numbered(9))
    limit = rated(3, 1000)
    assert len((await start(store, limit, 0, at=0)).jobs) == 3
    assert len((await start(store, limit, 1)).jobs) == 3
    assert len((await start(store, limit, 2)).jobs) == 0


async def test_notes_of_what_is_not_there(store: Store) -> None:
    """Notes of unknown or forgotten starts do nothing, nor do none."""
    await store.add(numbered(9))
    await store.note_starts([])
    await store.note_starts([("q", 5, BEGIN), ("other", 1, BEGIN)])
    for now in range(0, 6000, 1000):
        assert len((await start(store, rated(1, 1000), now)).jobs) == 1
    await store.note_starts([("q", number, BEGIN + 6000) for number in range(1, 4)])
    assert len((await start(store, rated(1, 1000), 6000)).jobs) == 1


async def test_starts_of_an_owner_that_died(store: Store) -> None:
    """What it may have started had started by then; what was noted before, or is another's, stays."""
    await store.add(numbered(9))
    limit = rated(3, 1000)
    lane = Lane(kinds=ALL.kinds, room=1)
    first = await within(store, limit, lane, owner="dead", now=BEGIN, until=BEGIN + 30_000)
    await store.note_starts([("q", number, BEGIN + 100) for number in first.starts.values()])
    await within(store, limit, lane, owner="dead", now=BEGIN, until=BEGIN + 30_000)
    await within(store, limit, lane, owner="other", now=BEGIN, until=BEGIN + 20_000)
    await store.end_starts(["dead"], now=BEGIN + 500)
    await store.end_starts(["nobody"], now=BEGIN + 1)
    assert next_at(await start(store, limit, 600, room=0)) == 1100
    assert ids((await start(store, limit, 1100)).jobs) == ["3"]
    assert next_at(await start(store, limit, 1200, room=0)) == 1500
    assert ids((await start(store, limit, 1500)).jobs) == ["4"]
    assert (await start(store, limit, 15_000)).jobs == []


# -- when to look again ----------------------------------------------------------------------------


async def test_next_start_is_waited_for(store: Store) -> None:
    """Where jobs are due and the rate permits none, it is told when it does."""
    await store.add(numbered(9))
    limit = rated(2, 1000)
    assert ids((await start(store, limit, 100, room=1)).jobs) == ["0"]
    found = await start(store, limit, 300)
    assert ids(found.jobs) == ["1"]
    assert next_at(await start(store, limit, 400)) == 1100
    found = await start(store, limit, 1100)
    assert (ids(found.jobs), next_at(await start(store, limit, 1100))) == (["2"], 1300)


async def test_claim_that_takes_the_last_start_tells_of_the_next(store: Store) -> None:
    """It counts its own starts at the end of their leases, as it cannot know better."""
    await store.add(numbered(3))
    found = await within(store, rated(2, 1000), now=BEGIN, until=BEGIN + 30_000)
    assert next_at(found) == 31_000
    assert next_at(await within(store, rated(5, 1000), now=BEGIN, until=BEGIN + 30_000)) is None


async def test_first_due_after_the_next_start(store: Store) -> None:
    """A job that is due later than the rate permits is waited for until then."""
    await store.add([new("a"), new("b", due_at=BEGIN + 5000)])
    await start(store, rated(1, 1000), 0)
    assert next_at(await start(store, rated(1, 1000), 10)) == 5000
    await store.add([new("c", due_at=BEGIN + 500)])
    assert next_at(await start(store, rated(1, 1000), 10)) == 1000


async def test_rate_without_jobs_is_not_waited_for(store: Store) -> None:
    """Without pending jobs of the kinds asked for there is nothing to wait for."""
    await store.add([new("a"), new("u", "Unknown")])
    await start(store, rated(1, 1000), 0)
    assert next_at(await start(store, rated(1, 1000), 10)) is None


async def test_jobs_that_wait_for_their_turn_are_no_reason_to_wait_for_the_rate(store: Store) -> None:
    """Nor are jobs that wait for their turn."""
    more = More(key="k", turns=1)
    await store.add(numbered(3, more=more))
    assert ids((await start(store, rated(1, 1000, per_key=1), 0)).jobs) == ["0"]
    assert next_at(await start(store, rated(1, 1000, per_key=1), 10)) is None


# -- steps of the clock ----------------------------------------------------------------------------


async def test_clock_that_was_set_back(store: Store) -> None:
    """Starts follow a step of the clock, so that they count for as long as before."""
    await store.add(numbered(3))
    limit = rated(1, 1000)
    await start(store, limit, 0)
    await store.shift_waits(now=BEGIN + 100 - 500_000, by=-500_000)
    assert next_at(await start(store, limit, 100 - 500_000)) == 1000 - 500_000
    await store.shift_waits(now=BEGIN + 200, by=500_000)
    assert next_at(await start(store, limit, 200)) == 1000


@pytest.mark.parametrize("by", [-500_000, -5_000, 5_000, 500_000])
async def test_start_after_a_step_of_the_clock_does_not_follow_it(store: Store, by: int) -> None:
    """The step may be noticed only after a start that has seen the new time: that counts as long as any."""
    await store.add(numbered(3))
    limit = rated(1, 1000)
    claim = await start(store, limit, 0)
    await store.note_starts([("q", number, BEGIN + 10) for number in claim.starts.values()])
    await store.shift_waits(now=BEGIN + 20, by=by)
    assert BEGIN + 1010 <= BEGIN + (next_at(await start(store, limit, 30)) or 0) <= BEGIN + 1020


async def test_clock_that_was_set_back_while_nobody_ran(store: Store) -> None:
    """A start that is later than any can be was now."""
    await store.add(numbered(3))
    limit = rated(1, 1000)
    await start(store, limit, 0)
    await store.shift_waits(now=BEGIN - 500_000, by=0)
    assert next_at(await start(store, limit, -500_000)) == 1000 - 500_000


# -- any window ------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Store]:
    """Open a store for one example."""
    with tempfile.TemporaryDirectory() as folder:
        store: Store = MemoryStore()
        if kind == "sqlite":
            store = SQLiteStore(str(Path(folder) / "app.db"), durability="normal", busy_timeout=5.0)
        await store.open(install=True)
        try:
            yield store
        finally:
            await store.close()


claims = st.lists(
    st.tuples(
        st.integers(0, 60),  # milliseconds since the one before
        st.integers(0, 4),  # room
        st.integers(0, 25),  # from the claim to the start
        st.integers(0, 40),  # from the start to the note
        st.integers(0, 5),  # 0: it does not start
    ),
    min_size=1,
    max_size=25,
)


async def run_claims(
    store: Store, rate: tuple[int, int], steps: Sequence[tuple[int, int, int, int, int]]
) -> list[int]:
    """Claim, start and note as told; return the instants of all starts."""
    await store.add(numbered(200))
    limit = Limit(queue="q", rate=rate)
    started: list[int] = []
    notes: list[tuple[int, int, int]] = []
    now = BEGIN
    for wait, room, latency, delay, starts in steps:
        now += wait
        due = [note for note in notes if note[0] <= now]
        notes = [note for note in notes if note[0] > now]
        await store.note_starts([("q", number, at) for _, number, at in due])
        lane = Lane(kinds=(("q", "T"),), room=room)
        found = await store.claim([lane], owner="mine", now=now, until=now + 30, limits=[limit])
        assert len(found.jobs) <= min(room, rate[0])
        assert sorted(found.starts) == sorted(job.id for job in found.jobs)
        at = now + latency if starts else 0
        started += [at] * len(found.jobs) * (at > 0)
        notes += [(now + latency + delay, number, at) for number in found.starts.values()]
    return sorted(started)


@pytest.mark.parametrize(("kind", "examples"), [("memory", 400), ("sqlite", 100)])
def test_no_window_holds_more_than_the_rate(kind: str, examples: int) -> None:
    """However claims, starts and notes follow each other, no window of the length holds more starts."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(1, 4), st.integers(1, 100), claims)
    def check(count: int, per: int, steps: list[tuple[int, int, int, int, int]]) -> None:
        async def run() -> list[int]:
            async with opened(kind) as store:
                return await run_claims(store, (count, per), steps)

        started = asyncio.run(run())
        for begin in started:
            assert sum(begin <= at < begin + per for at in started) <= count

    check()


async def test_rate_is_used(store: Store) -> None:
    """Who looks again when told starts as many as the rate permits, not fewer."""
    await store.add(numbered(60))
    limit = rated(3, 1000)
    now = 0
    started: list[int] = []
    while len(started) < 60:
        found = await start(store, limit, now)
        started += [now] * len(found.jobs)
        await store.finish([complete(job) for job in found.jobs])
        again = next_at(await start(store, limit, now))
        now = now if again is None else again
    assert now == 19_000
    assert all(started.count(instant) == 3 for instant in started)
