"""Turns: of each key only so many jobs run, the others wait out of the way, and keys take turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from backlite_async._job import (
    Claim,
    ClaimedJob,
    Complete,
    JobStatus,
    Lane,
    Limit,
    More,
    NewJob,
    Outcome,
    Place,
    Reschedule,
)
from backlite_async.stores import Store

from .test_contract import again, at, complete, ids, new, record
from .test_control import ALL, NO_ROOM, NOTHING, declare, let_in, within


def turn(job_id: str, task: str = "T", *, key: str = "k", turns: int | None = 1, **changes: Any) -> NewJob:
    """Return a job of a key, of which so many may run; due at 0, unless told otherwise."""
    return new(job_id, task, **({"more": More(key=key, turns=turns)} | changes))


def turns(*job_ids: str, **changes: Any) -> list[NewJob]:
    return [turn(job_id, **changes) for job_id in job_ids]


def per_key(count: int, **changes: Any) -> Limit:
    return msgspec.structs.replace(Limit(queue="q", per_key=count), **changes)


def frees(outcome: Outcome, *, key: str = "k", at: int = 200) -> Outcome:
    """Return an outcome that frees a turn of a key."""
    return msgspec.structs.replace(outcome, frees=Place("q", key, at))


async def finish(store: Store, *outcomes: Outcome) -> None:
    assert await store.finish(outcomes) == set()


async def take(store: Store, limit: Limit, room: int = 1000, **changes: Any) -> Sequence[ClaimedJob]:
    """Claim within a limit."""
    return (await within(store, limit, Lane(kinds=ALL.kinds, room=room), **changes)).jobs


# -- add -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_only_so_many_are_let_in(store: Store, count: int) -> None:
    """Of the due jobs of a key as many are let in as may run; the others are pending, and wait."""
    await store.add(turns("a", "b", "c", "d", turns=count))
    assert await let_in(store) == list("abcd")[:count]
    assert {await store.status(job_id, now=0) for job_id in "abcd"} == {JobStatus.PENDING}
    assert (await record(store, "d")).due_at == at(0)


async def test_waiting_jobs_are_met_by_no_claim(store: Store) -> None:
    """What waits for its turn is neither claimed, nor waited for by its time."""
    await store.add(turns("a", "b", "c"))
    found = await within(store, [])
    assert (ids(found.jobs), found.next_at) == (["a"], None)
    assert await within(store, []) == NOTHING


@pytest.mark.parametrize("batch", [False, True])
async def test_best_ones_are_let_in(store: Store, batch: bool) -> None:
    """The best ones by priority, due time and order of adding have their turn first."""
    jobs = [
        turn("a", due_at=3, turns=3),
        turn("b", due_at=2, turns=3),
        turn("c", due_at=9, turns=3, priority=1),
        turn("d", due_at=2, turns=3),
        turn("e", due_at=1, turns=3, priority=-1),
        turn("f", due_at=4, turns=3),
    ]
    jobs = [msgspec.structs.replace(job, created_at=10) for job in jobs]
    for portion in [jobs] if batch else [[job] for job in jobs]:
        await store.add(portion)
    assert await let_in(store) == ["c", "b", "d"]


async def test_better_job_takes_the_turn(store: Store) -> None:
    """A new job that is better than one that is let in has its turn; the other waits."""
    await store.add(turns("a"))
    await store.add(turns("b", priority=1))
    await store.add(turns("c", priority=1))
    assert await let_in(store) == ["b"]


async def test_what_runs_counts_over_tasks_and_what_waits_does_not(store: Store) -> None:
    """Each task has as many let in as may run of the key, less what runs of any task."""
    await store.add([*turns("a", "b"), *turns("c", "d", task="U")])
    assert await let_in(store) == ["a", "c"]
    (job,) = await take(store, per_key(1), room=1)
    assert job.id == "a"
    await store.add(turns("e", task="V"))
    assert "e" not in await let_in(store)


async def test_what_runs_fills_a_key(store: Store) -> None:
    """With as many running as may, everything new waits; a claim counts, though its lease has ended."""
    await store.add(turns("a", "b", turns=2))
    await take(store, per_key(2), until=101)
    await store.add(turns("c", created_at=5000, due_at=5000, turns=2))
    assert await let_in(store, now=6000) == []


async def test_more_run_than_may(store: Store) -> None:
    """Where more run than may now, everything waits."""
    await store.add(turns("a", "b", "c", turns=3))
    assert len(await take(store, per_key(3))) == 3
    await store.add(turns("d", turns=1))
    assert await let_in(store) == []


async def test_keys_are_apart(store: Store) -> None:
    """Each key, in each queue, has its own turns; jobs without a key, or of no such queue, have none."""
    await store.add([*turns("a", "b"), *turns("c", "d", key="l"), *turns("e", "f", queue="r")])
    await store.add([new("g"), new("h", more=More(timeout=1)), *turns("i", "j", key="m", turns=None)])
    assert await let_in(store) == ["a", "c", "e", "g", "h", "i", "j"]


async def test_any_text_is_a_key(store: Store) -> None:
    """Keys are data, and differ if their texts do."""
    keys = ["", "'", "K", "k", "ä", "a\nb", '"', "%", "1", "[]"]
    for number, key in enumerate(keys):
        await store.add(turns(f"{number}a", f"{number}b", key=key))
    assert await let_in(store) == [f"{number}a" for number in range(len(keys))]
    jobs = await take(store, per_key(1))
    await finish(store, *(frees(complete(job), key=str(job.key)) for job in jobs))
    assert await let_in(store, now=300) == [f"{number}b" for number in range(len(keys))]


async def test_jobs_for_later_have_no_turn_yet(store: Store) -> None:
    """What is not due neither waits for a turn, nor takes one."""
    await store.add(turns("later", due_at=500))
    await store.add(turns("a", "b"))
    found = await within(store, per_key(1))
    assert (ids(found.jobs), found.next_at) == (["a"], 500)


async def test_added_again(store: Store) -> None:
    """What is added a second time keeps its turn, or waits for it, as at the first time."""
    await store.add(turns("a"), again=True)
    await store.add(turns("a", "b", "c"), again=True)
    assert await let_in(store) == ["a"]


async def test_thousands_of_one_key(store: Store) -> None:
    """Any number may wait, and then has its turn, one by one."""
    await store.add(turns(*(str(number) for number in range(2000))))
    await store.add([new("other", due_at=50)])
    assert await let_in(store) == ["0", "other"]
    for number in range(20):
        (job,) = [job for job in await take(store, per_key(1), now=200) if job.id != "other"]
        assert job.id == str(number)
        await finish(store, frees(complete(job)))


# -- claim -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
async def test_claim_takes_no_more_of_a_key(store: Store, count: int) -> None:
    """A claim takes no more of a key than may run, though all of them are due; the others then wait."""
    await store.add(turns("a", "b", "c", "d", "e", turns=None))
    await store.add([new("plain", due_at=1)])
    jobs = await take(store, per_key(count))
    assert ids(jobs) == [*list("abcde")[:count], "plain"]
    assert await let_in(store) == []
    assert await within(store, per_key(count)) == NOTHING


@pytest.mark.parametrize("count", [1, 3])
async def test_claims_together_take_no_more_of_a_key(store: Store, count: int) -> None:
    """Nor do several claims, of several owners."""
    await store.add(turns("a", "b", "c", "d", "e", turns=None))
    found = [ids(await take(store, per_key(count), room=1, owner=owner)) for owner in "xyzxyz"]
    assert found == [[job_id] for job_id in "abcde"[:count]] + [[]] * (6 - count)


async def test_claim_lets_the_others_of_its_keys_wait(store: Store) -> None:
    """Also those that it had no room for, but of each task as many as may run."""
    await store.add([*turns("a", "b", "c", turns=None), *turns("d", "e", task="U", turns=None)])
    assert ids(await take(store, per_key(2), room=1)) == ["a"]
    assert await let_in(store) == ["b", "d", "e"]


async def test_full_keys_hide_nobody(store: Store) -> None:
    """Any number of due jobs of full keys, whatever their priority, are passed over in one claim or a few."""
    keys = [f"k{number}" for number in range(30)]
    await store.add([turn(f"{key} first", key=key) for key in keys])
    await take(store, per_key(1))
    await store.add([turn(f"{key} {n}", key=key, turns=None, priority=5) for n in range(9) for key in keys])
    await store.add([new("a"), turn("b", key="free")])
    claimed: list[str] = []
    for _ in range(20):
        found = await within(store, per_key(1), Lane(kinds=ALL.kinds, room=2))
        claimed += ids(found.jobs)
        if found.next_at is None or found.next_at > 100:
            break
    assert claimed == ["a", "b"]


async def test_kinds_of_a_key(store: Store) -> None:
    """What runs of a key counts over all tasks: the best of any of them is claimed."""
    await store.add([turn("a", "U", due_at=2), turn("b", "T", due_at=1), turn("c", "V", due_at=3)])
    assert await let_in(store) == ["b", "a", "c"]
    assert ids(await take(store, per_key(1))) == ["b"]
    assert await let_in(store) == []


@pytest.mark.parametrize("per", [1, 2, 3])
async def test_room_of_a_queue_is_for_keys_with_room(store: Store, per: int) -> None:
    """The best jobs that a queue leaves room for are counted without those of full keys."""
    await store.add(turns("a", "b", "c", "d", turns=None, priority=1))
    await store.add([turn("e", key="l", turns=None), new("f"), new("g")])
    jobs = await take(store, per_key(per, room=3))
    assert ids(jobs) == [*list("abcd")[:per], "e", "f", "g"][:3]


async def test_jobs_that_become_due_later(store: Store) -> None:
    """Those that become due together are let in by nobody; the claim takes as many as may run."""
    await store.add(turns("a", "b", "c", due_at=500))
    assert (await within(store, per_key(1))).next_at == 500
    assert ids(await take(store, per_key(1), now=500)) == ["a"]
    assert await let_in(store, now=500) == []
    await finish(store, frees(complete((await store.claims_of("mine"))[0]), at=600))
    assert ids(await take(store, per_key(1), now=600)) == ["b"]


async def test_key_without_a_limit(store: Store) -> None:
    """Where the claim limits no keys, what is let in is claimed."""
    await store.add(turns("a", "b", turns=None))
    assert ids(await take(store, Limit(queue="q", room=5))) == ["a", "b"]


async def test_more_may_run_than_before(store: Store) -> None:
    """A claim lets in what waits of keys that have room, and may take it at once."""
    await store.add(turns("a", "b", "c", "d", turns=1))
    jobs = await take(store, per_key(3), now=150)
    assert ids(jobs) == ["a", "b", "c"]
    assert [(job.scheduled_at, job.waits_from) for job in jobs] == [(0, None), (0, 150), (0, 150)]
    assert await let_in(store) == []


async def test_fewer_may_run_than_before(store: Store) -> None:
    """A claim takes no more than may run now."""
    await store.add(turns("a", "b", "c", "d", turns=3))
    assert ids(await take(store, per_key(1))) == ["a"]
    assert await let_in(store) == []


async def test_more_may_run_by_a_declaration(store: Store) -> None:
    """Where a limit is raised, those are let in at once that may run now, behind what is due."""
    await store.add([*turns("a", "b", "c", "d"), *turns("x", "y", key="l")])
    await store.add(turns("other", "another", queue="r"))
    await take(store, per_key(1), room=1)
    await declare(store, turns=1)
    assert await let_in(store) == ["x", "other"]
    await declare(store, turns=3)
    assert await let_in(store) == ["x", "other", "b", "c", "y"]


async def test_claim_lets_in_the_best(store: Store) -> None:
    """By priority, then the time that they were to be due at, then the order of adding."""
    await store.add(turns("x", priority=9))
    waiting = [turn("a", due_at=3), turn("b", due_at=2), turn("c", due_at=9, priority=1), turn("d", due_at=2)]
    await store.add([msgspec.structs.replace(job, created_at=10) for job in waiting])
    assert await let_in(store) == ["x"]
    assert ids(await take(store, per_key(3), now=300)) == ["x", "c", "b"]


# -- let in the next -------------------------------------------------------------------------------

ENDS = [
    pytest.param(complete, id="complete"),
    pytest.param(lambda job: complete(job, keep=None, status=JobStatus.FAILED), id="failed"),
    pytest.param(lambda job: again(job, due_at=9000), id="reschedule"),
    pytest.param(lambda job: again(job, due_at=9000, lapsed_by=10**6), id="lapsed"),
]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("now", [False, True])
async def test_outcome_lets_in_the_next(store: Store, end: Any, now: bool) -> None:
    """The best job that waits is let in by the outcome itself, due when the turn became free."""
    await store.add(turns("a"))
    await store.add([turn("b", due_at=9, created_at=9), turn("c", priority=1, due_at=50, created_at=50)])
    await store.add(turns("d", due_at=60, created_at=60))
    (job,) = await take(store, per_key(1))
    assert job.id == "c"
    outcome = frees(end(job), at=250)
    assert (store.finish_now([outcome]) if now else await store.finish([outcome])) == set()
    assert (await within(store, [], NO_ROOM, now=249)).jobs == []
    assert ids(await take(store, Limit(queue="q"), now=249)) == []
    (following,) = await take(store, Limit(queue="q"), now=250)
    assert (following.id, following.scheduled_at, following.waits_from) == ("a", 0, 250)
    assert (await record(store, "a")).due_at == at(0)


async def test_outcome_that_is_lost_lets_in_nobody(store: Store) -> None:
    """A turn is freed by the one who holds the claim."""
    await store.add(turns("a", "b", "c"))
    (job,) = await take(store, per_key(1))
    for lost in (complete(job, fence=job.fence + 1), again(job, lapsed_by=5), complete(job, lapsed_by=5)):
        assert await store.finish([frees(lost)]) == {"a"}
    assert await let_in(store, now=300) == []
    await finish(store, frees(complete(job)))
    assert await store.finish([frees(complete(job))]) == {"a"}
    assert await let_in(store, now=300) == ["b"]


async def test_each_outcome_lets_in_one(store: Store) -> None:
    """Of several outcomes of a key each lets in one more; those of another key let in others."""
    await store.add(turns("a", "b", "c", "d", "e", "f", turns=3))
    await store.add(turns("x", "y", "z", key="l", turns=1))
    jobs = await take(store, per_key(3))
    by_id = {job.id: job for job in jobs}
    assert set(by_id) == {"a", "b", "c", "x"} | ({"y", "z"} & set(by_id))
    await finish(store, frees(complete(by_id["a"])), frees(again(by_id["b"], due_at=9000)))
    assert await let_in(store, now=300) == ["d", "e"]


async def test_outcomes_free_turns_each_at_its_time(store: Store) -> None:
    """Each of them is due when its own turn became free, so that keys take turns."""
    await store.add([*turns("a", "b"), *turns("x", "y", key="l")])
    first, second = await take(store, per_key(1))
    await finish(store, frees(complete(first), at=260), frees(complete(second), key="l", at=250))
    assert ids(await take(store, per_key(1), now=255)) == ["y"]
    assert ids(await take(store, per_key(1), now=260)) == ["b"]


async def test_outcomes_let_in_the_best(store: Store) -> None:
    """One after the other, in the same order."""
    await store.add(turns("x", priority=9))
    waiting = [turn("a", due_at=3), turn("b", due_at=2), turn("c", due_at=9, priority=1), turn("d", due_at=2)]
    await store.add([msgspec.structs.replace(job, created_at=10) for job in waiting])
    order = []
    for now in range(300, 305):
        (job,) = await take(store, per_key(1), now=now)
        order.append(job.id)
        await finish(store, frees(complete(job), at=now))
    assert order == ["x", "c", "b", "d", "a"]


async def test_next_of_each_task_is_let_in(store: Store) -> None:
    """As tasks may be handled by different processes, one of each is let in; the claim takes the best."""
    await store.add([*turns("a", "b", "c"), *turns("d", "e", task="U"), *turns("f", "g", task="V")])
    assert await let_in(store) == ["a", "d", "f"]
    (job,) = await take(store, per_key(1))
    assert job.id == "a"
    assert await let_in(store) == []
    await finish(store, frees(complete(job)))
    assert await let_in(store, now=300) == ["b", "d", "f"]
    lane = Lane(kinds=(("q", "U"),), room=5)
    assert ids((await within(store, per_key(1), lane, now=300)).jobs) == ["d"]
    assert ids(await take(store, per_key(1), now=300)) == []


async def test_place_without_a_key(store: Store) -> None:
    """A place that is no turn of a key lets in nobody."""
    await store.add(turns("a", "b"))
    (job,) = await take(store, per_key(1))
    await finish(store, complete(job, frees=Place("q", None, 200)))
    assert await let_in(store, now=300) == []


async def test_nobody_waits(store: Store) -> None:
    """A turn may become free that nobody waits for."""
    await store.add(turns("a"))
    (job,) = await take(store, per_key(1))
    await finish(store, frees(complete(job)))
    await store.add(turns("b", created_at=300, due_at=300))
    assert ids(await take(store, per_key(1), now=300)) == ["b"]


async def test_rescheduled_job_stands_in_line_again(store: Store) -> None:
    """A job that is to run again soon leaves its turn to those that wait."""
    await store.add(turns("a", "b", "c"))
    order = []
    for now in range(300, 312, 2):
        (job,) = await take(store, per_key(1), now=now)
        order.append(job.id)
        await finish(store, frees(again(job, due_at=now + 1, waits_from=now), at=now))
    assert order == ["a", "b", "c", "a", "b", "c"]


async def test_keys_take_turns(store: Store) -> None:
    """A key with a thousand jobs, and keys with a few that came later, run in turns."""
    await store.add(turns(*(f"big {number:04}" for number in range(1000)), key="big"))
    for key in "xyz":
        await store.add(turns(*(f"{key} {number}" for number in range(3)), key=key, created_at=5, due_at=5))
    order = []
    for now in range(200, 212):
        (job,) = await take(store, per_key(1), room=1, now=now)
        order.append(job.id)
        await finish(store, frees(complete(job), key=str(job.key), at=now))
    assert order == [
        f"{key} {number:04}" if key == "big" else f"{key} {number}"
        for number in range(3)
        for key in ("big", "x", "y", "z")
    ]


async def test_priority_goes_before_turns_of_keys(store: Store) -> None:
    """Keys take turns within a priority."""
    await store.add(turns("low 0", "low 1", key="low"))
    await store.add(turns("high 0", "high 1", key="high", priority=1))
    order = []
    for now in range(200, 204):
        (job,) = await take(store, per_key(1), room=1, now=now)
        order.append(job.id)
        await finish(store, frees(complete(job), key=str(job.key), at=now))
    assert order == ["high 0", "high 1", "low 0", "low 1"]


# -- cancel ----------------------------------------------------------------------------------------


async def test_cancel_one_that_has_its_turn(store: Store) -> None:
    """Its turn goes to the next, due now."""
    await store.add(turns("a", "b", "c"))
    await store.cancel(["a"], now=150)
    assert ids(await take(store, Limit(queue="q"), now=149)) == []
    (job,) = await take(store, Limit(queue="q"), now=150)
    assert (job.id, job.scheduled_at, job.waits_from) == ("b", 0, 150)


async def test_cancel_some_that_wait(store: Store) -> None:
    """One that waits is just not there any more."""
    await declare(store, keeps=True)
    await store.add(turns("a", "b", "c", "d"))
    assert sorted((await store.cancel(["b", "d"], now=150)).ended) == ["b", "d"]
    assert (await record(store, "b")).status is JobStatus.CANCELLED
    assert await let_in(store) == ["a"]
    await store.cancel(["a"], now=160)
    assert await let_in(store, now=160) == ["c"]


async def test_cancel_several_of_a_key(store: Store) -> None:
    """As many are let in as had their turn, of what is left."""
    await store.add(turns("a", "b", "c", "d", "e", "f", turns=2))
    await store.cancel(["a", "b", "c"], now=100)
    assert await let_in(store) == ["d", "e"]


async def test_cancel_all_of_a_key(store: Store) -> None:
    """Nobody is left to be let in."""
    await store.add(turns("a", "b", "c"))
    assert sorted((await store.cancel(["a", "b", "c"], now=100)).ended) == ["a", "b", "c"]
    assert await within(store, per_key(1)) == NOTHING


async def test_cancel_one_for_later(store: Store) -> None:
    """It may be one that has its turn, where the wall clock was set back: so one more is let in."""
    await store.add(turns("later", due_at=500))
    await store.add(turns("a", "b", "c"))
    await store.cancel(["later"], now=100)
    assert await let_in(store) == ["a", "b"]
    assert ids(await take(store, per_key(1))) == ["a"]
    assert await let_in(store) == []


async def test_cancel_one_that_runs(store: Store) -> None:
    """It keeps its turn until it ends."""
    await store.add(turns("a", "b", "c"))
    (job,) = await take(store, per_key(1))
    await store.cancel(["a"], now=150)
    assert ids(await take(store, per_key(1), now=300)) == []
    await finish(store, frees(complete(job, status=JobStatus.CANCELLED)))
    assert await let_in(store, now=300) == ["b"]


@pytest.mark.parametrize("due_at", [0, 9000])
async def test_job_that_ends_as_cancelled_lets_in_one(store: Store, due_at: int) -> None:
    """One that was to run again and ends as cancelled instead lets in one, not two."""
    await store.add(turns("a", "b", "c"))
    (job,) = await take(store, per_key(1))
    await store.cancel(["a"], now=150)
    await finish(store, frees(again(job, due_at=due_at)))
    assert await let_in(store, now=300) == ["b"]


@pytest.mark.parametrize("due_at", [0, 9000])
async def test_job_that_ends_as_cancelled_and_names_no_turn(store: Store, due_at: int) -> None:
    """So does one whose outcome does not say so, due when the cancellation was asked for."""
    await store.add(turns("a", "b", "c"))
    (job,) = await take(store, per_key(1))
    await store.cancel(["a"], now=150)
    await finish(store, again(job, due_at=due_at))
    (following,) = await take(store, Limit(queue="q"), now=300)
    assert (following.id, following.waits_from) == ("b", 150)


# -- declare ---------------------------------------------------------------------------------------


async def test_keys_are_limited_no_more(store: Store) -> None:
    """Where a queue is declared not to limit keys, all that wait are let in, at their own times."""
    await store.add([*turns("a", "b", "c"), *turns("x", "y", key="l", due_at=7, created_at=7)])
    await store.add(turns("r", "s", queue="r"))
    await declare(store, turns=1)
    assert await let_in(store) == ["a", "r", "x"]
    await declare(store, turns=None)
    assert await let_in(store) == ["a", "b", "c", "r", "x", "y"]
    await store.add(turns("d", "e"))
    await declare(store, turns=None)
    assert await let_in(store) == ["a", "b", "c", "r", "d", "e", "x", "y"]


async def test_what_is_let_in_by_a_declaration_can_be_made_to_wait(store: Store) -> None:
    """A process that still limits keys makes no more of them run than may."""
    await store.add(turns("a", "b", "c"))
    await declare(store, turns=None)
    assert ids(await take(store, per_key(1))) == ["a"]
    assert await let_in(store) == []


# -- steps of the clock ----------------------------------------------------------------------------


async def test_clock_is_set_back_after_a_turn_was_given(store: Store) -> None:
    """Who was let in is due at once, as before; the time that it was to be due at goes back as well."""
    begin = 10_000_000
    await store.add(turns("a", "b", due_at=begin, created_at=begin, waits_from=begin))
    (job,) = await take(store, per_key(1), now=begin + 20)
    await finish(store, frees(complete(job), at=begin + 30))
    assert await store.shift_waits(now=begin + 40 - 500_000, by=-500_000) == 1
    assert await take(store, per_key(1), now=begin + 29 - 500_000) == []
    (job,) = await take(store, per_key(1), now=begin + 30 - 500_000)
    assert (job.scheduled_at, job.waits_from) == (begin - 500_000, begin + 30 - 500_000)


# -- the whole -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
async def test_never_more_than_may_run(store: Store, count: int) -> None:
    """Over several owners, tasks and keys, whatever their ends, no more of a key run; all jobs run."""
    jobs = [
        turn(f"{key}{number}", "TUV"[number % 3], key=key, turns=count, priority=number % 2, due_at=number)
        for number in range(40)
        for key in "kl"
    ]
    await store.add(jobs)
    held: dict[str, list[ClaimedJob]] = {"x": [], "y": []}
    done: list[str] = []
    now = 100
    for step in range(600):
        now += 1
        owner = "xy"[step % 2]
        held[owner] += await take(store, per_key(count), owner=owner, room=2, now=now, until=now + 10**6)
        for key in "kl":
            assert sum(job.key == key for jobs in held.values() for job in jobs) <= count
        if held[owner] and step % 3:
            job = held[owner].pop(0)
            outcome: Complete | Reschedule = complete(job)
            if step % 7 == 0:
                outcome = again(job, due_at=now + step % 5)
            else:
                done.append(job.id)
            await finish(store, frees(outcome, key=str(job.key), at=now))
    assert sorted(done) == sorted(job.id for job in jobs)
    assert await within(store, per_key(count), now=now) == Claim(jobs=[], lapsed=[])
