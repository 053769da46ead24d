"""What decides whether jobs run: limits of queues, pauses, cancellations; on each store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import anyio
import msgspec
import pytest

from backlite_async._job import (
    Cancelled,
    Claim,
    Declared,
    Job,
    JobStatus,
    Lane,
    Limit,
    More,
    NewJob,
    Orders,
    Queue,
)
from backlite_async.stores import Store
from tests.conftest import LIMIT

from .test_contract import again, at, claim, claim_one, complete, ids, new, record

ALL = Lane(kinds=(("q", "T"), ("q", "U"), ("q", "V"), ("r", "T")), room=1000)
NOTHING = Claim(jobs=[], lapsed=[])
NO_ORDERS = Orders(cancelled=[])
NO_ROOM = Lane(kinds=ALL.kinds, room=0)


def asked_for(job: Job) -> dict[str, Any]:
    """Return what a job was added with, but for its id."""
    return {name: value for name, value in msgspec.structs.asdict(job).items() if name != "id"}


async def let_in(store: Store, *, now: int = 100) -> list[str]:
    """Return the due jobs that wait for no turn, by claiming them without limits and giving them back."""
    jobs = (await store.claim([ALL], owner="nobody", now=now, until=now + 1)).jobs
    given_back = [
        again(job, due_at=job.scheduled_at, waits_from=job.waits_from, attempt=job.attempt - 1)
        for job in jobs
    ]
    assert await store.finish(given_back) == set()
    return ids(jobs)


async def within(
    store: Store,
    limits: Limit | Sequence[Limit],
    *lanes: Lane,
    owner: str = "mine",
    now: int = 100,
    until: int = 1000,
) -> Claim:
    """Claim within limits, from these lanes or from one of all kinds."""
    limits = [limits] if isinstance(limits, Limit) else limits
    return await store.claim(lanes or [ALL], owner=owner, now=now, until=until, limits=limits)


def numbered(count: int, *, begin: int = 0, **changes: Any) -> list[NewJob]:
    return [new(str(number), **changes) for number in range(begin, begin + count)]


# -- what most jobs have not -----------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 300])
async def test_job_is_stored_with_more(store: Store, batch: int) -> None:
    """Key, timeout, parent, meta and tags are kept, and claimed, beside jobs that have none."""
    more = More(key="k", timeout=1500, parent="p", meta='{"n":[1,"ä"]}', tags='["x","y"]')
    await store.add([new("a", more=more), *numbered(batch - 1)])
    job = await record(store, "a")
    assert (job.key, job.timeout, job.parent) == ("k", 1.5, "p")
    assert (job.meta, job.tags) == ({"n": [1, "ä"]}, ("x", "y"))
    claimed = next(job for job in (await within(store, [])).jobs if job.id == "a")
    assert (claimed.key, claimed.timeout, claimed.parent) == ("k", 1500, "p")
    assert (claimed.meta, claimed.tags) == ('{"n":[1,"ä"]}', '["x","y"]')
    assert next(job for job in await store.claims_of("mine") if job.id == "a") == claimed
    (lapsed,) = [
        found.job
        for found in (await within(store, [], NO_ROOM, owner="x", now=9999)).lapsed
        if found.job.id == "a"
    ]
    assert lapsed == claimed
    assert await store.finish([complete(claimed)]) == set()
    kept = await record(store, "a")
    assert (kept.key, kept.timeout, kept.parent) == ("k", 1.5, "p")
    assert (kept.meta, kept.tags) == ({"n": [1, "ä"]}, ("x", "y"))
    if batch > 1:
        plain = await record(store, "0")
        assert (plain.key, plain.timeout, plain.parent, plain.meta, plain.tags) == (None, None, None, {}, ())


async def test_add_again_stores_more(store: Store) -> None:
    """Also where they may have been stored before."""
    more = More(key="k", timeout=1500, parent="p", meta='{"n":1}', tags='["x"]')
    await store.add([new("a", more=more), new("b")], again=True)
    await store.add([new("a"), new("b", more=more)], again=True)
    first, second = await record(store, "a"), await record(store, "b")
    assert (first.key, first.timeout, first.parent) == ("k", 1.5, "p")
    assert (first.meta, first.tags) == ({"n": 1}, ("x",))
    assert (second.key, second.timeout, second.parent, second.meta, second.tags) == (None, None, None, {}, ())


async def test_payload_that_is_no_json_is_claimed_with_more(store: Store) -> None:
    """A payload that cannot travel beside others harms neither them nor what its job has."""
    more = More(key="k", timeout=1500, parent="p", meta='{"n":1}', tags='["x"]')
    await store.add([new("a", payload=b"\x00" * 200_000, more=more), new("b", more=more)])
    jobs = (await within(store, [])).jobs
    assert ids(jobs) == ["a", "b"]
    assert {(job.key, job.timeout, job.parent, job.meta, job.tags) for job in jobs} == {
        ("k", 1500, "p", '{"n":1}', '["x"]')
    }


# -- limits: room ----------------------------------------------------------------------------------


async def test_room_of_a_queue(store: Store) -> None:
    """No more of a queue are claimed than there is room for; others are as ever."""
    await store.add(numbered(5))
    await store.add(numbered(5, begin=10, queue="r"))
    found = await within(store, Limit(queue="q", room=2))
    assert ids(found.jobs) == ["0", "1", "10", "11", "12", "13", "14"]
    assert found.starts == {}


async def test_no_room_of_a_queue(store: Store) -> None:
    """Without room nothing of it is claimed, nor waited for."""
    await store.add(numbered(2))
    assert await within(store, Limit(queue="q", room=0)) == NOTHING
    assert ids((await within(store, Limit(queue="q", room=1))).jobs) == ["0"]


async def test_limit_without_a_number_limits_nothing(store: Store) -> None:
    """A limit may say nothing, or be of a queue that nobody asks for."""
    await store.add(numbered(3))
    found = await within(store, [Limit(queue="q"), Limit(queue="other", room=0, in_all=0, rate=(1, 9))])
    assert ids(found.jobs) == ["0", "1", "2"]


async def test_room_is_for_all_kinds_of_a_queue(store: Store) -> None:
    """The best jobs of a queue over all of its kinds have its room."""
    await store.add([new("a", "T", due_at=3), new("b", "U", due_at=2), new("c", "T", due_at=1)])
    await store.add([new("d", "V", due_at=9, priority=1), new("e", "U", due_at=4)])
    assert ids((await within(store, Limit(queue="q", room=3))).jobs) == ["d", "c", "b"]


async def test_room_over_two_lanes(store: Store) -> None:
    """Kinds in different lanes share the room of their queue, the best ones first."""
    lanes = [Lane(kinds=(("q", "T"),), room=9), Lane(kinds=(("q", "U"), ("r", "T")), room=9)]
    await store.add([new("a", "U", due_at=1), new("b", "T", due_at=2), new("c", "U", due_at=3)])
    await store.add([new("d", "T", due_at=4), new("e", due_at=5, queue="r")])
    assert ids((await within(store, Limit(queue="q", room=3), *lanes)).jobs) == ["a", "b", "c", "e"]


@pytest.mark.parametrize("tasks", ["TU", "TUV"])
async def test_queue_before_lanes(store: Store, tasks: str) -> None:
    """What a queue leaves room for is chosen first, and of that what fits the lanes.

    However many kinds there are. Of a kind no more counts than fits its lane.
    """
    lanes = [Lane(kinds=(("q", "T"), ("q", "V")), room=1), Lane(kinds=(("q", "U"),), room=5)]
    lanes = lanes if tasks == "TUV" else [Lane(kinds=(("q", "T"),), room=1), lanes[1]]
    await store.add(
        [new("a", due_at=1), new("b", due_at=2), new("c", "U", due_at=3), new("d", "U", due_at=4)]
    )
    found = await within(store, Limit(queue="q", room=2), *lanes)
    assert ids(found.jobs) == ["a", "c"]
    assert ids((await within(store, Limit(queue="q", room=1), lanes[1])).jobs) == ["d"]


async def test_lane_without_room_takes_no_place_of_its_queue(store: Store) -> None:
    """Kinds that there is no room for do not count among the best of their queue."""
    lanes = [Lane(kinds=(("q", "T"),), room=0), Lane(kinds=(("q", "U"),), room=5)]
    await store.add([new("a", due_at=1), new("b", "U", due_at=2)])
    assert ids((await within(store, Limit(queue="q", room=1), *lanes)).jobs) == ["b"]


async def test_limit_of_keys_alone_leaves_lanes_their_room(store: Store) -> None:
    """Where a queue has no number, but that of its keys, each lane takes what it has room for."""
    lanes = [Lane(kinds=(("q", "T"),), room=1), Lane(kinds=(("q", "U"),), room=2)]
    await store.add([new("a", due_at=1), new("b", due_at=2), new("c", due_at=3), new("d", "U", due_at=4)])
    assert ids((await within(store, Limit(queue="q", per_key=1), *lanes)).jobs) == ["a", "d"]


async def test_lanes_within_a_queue(store: Store) -> None:
    """A lane takes no more than it has room for, nor all lanes more than the largest."""
    lanes = [Lane(kinds=(("q", "T"),), room=1), Lane(kinds=(("q", "U"),), room=3)]
    await store.add([new(f"{task}{due_at}", task, due_at=due_at) for due_at in (1, 2, 3) for task in "TU"])
    assert ids((await within(store, Limit(queue="q", room=9), *lanes)).jobs) == ["T1", "U1", "U2"]


@pytest.mark.parametrize("kinds", [1, 2, 3, 8])
async def test_limited_queue_hides_no_other(store: Store, kinds: int) -> None:
    """Any number of due jobs of queues that are full delay nobody, with any number of kinds."""
    limits = [Limit(queue="full", room=0), Limit(queue="nearly", room=1)]
    asked = Lane(
        kinds=(("full", "T"), ("nearly", "T"), *(("q", f"T{number}") for number in range(kinds))), room=5
    )
    await store.add([new(f"full {number}", queue="full", priority=9) for number in range(50)])
    await store.add([new(f"nearly {number}", queue="nearly", priority=8) for number in range(50)])
    await store.add([new(f"q {number}", f"T{number}", due_at=number) for number in range(kinds)])
    expected = ["nearly 0", *(f"q {number}" for number in range(kinds))][:5]
    assert ids((await within(store, limits, asked)).jobs) == expected


async def test_next_due_within_room(store: Store) -> None:
    """A job of a queue that has room is waited for, one of a queue that is full now is not."""
    await store.add([*numbered(2), new("later", due_at=500), new("r", queue="r", due_at=700)])
    assert (await within(store, Limit(queue="q", room=3))).next_at == 500
    assert (await within(store, Limit(queue="q", room=0))).next_at == 700


async def test_next_due_where_the_room_of_a_queue_was_just_taken(store: Store) -> None:
    """A full queue is not waited for, though there is more that is due, or will be."""
    await store.add([*numbered(3), new("later", due_at=500)])
    found = await within(store, Limit(queue="q", room=2))
    assert (ids(found.jobs), found.next_at) == (["0", "1"], None)


# -- limits: in all --------------------------------------------------------------------------------


async def test_in_all_counts_what_runs(store: Store) -> None:
    """Over all owners no more run than that, and a place that is given back is there for anybody."""
    limit = Limit(queue="q", in_all=3)
    await store.add(numbered(6))
    first = await within(store, limit, Lane(kinds=ALL.kinds, room=2), owner="first")
    second = await within(store, limit, owner="second")
    assert (ids(first.jobs), ids(second.jobs)) == (["0", "1"], ["2"])
    third = await within(store, limit, owner="third")
    assert third.jobs == []
    await store.finish([complete(first.jobs[0]), again(second.jobs[0])])
    assert ids((await within(store, limit, owner="third")).jobs) == ["3", "4"]
    assert (await within(store, limit, owner="third")).jobs == []


async def test_in_all_counts_kinds_that_are_not_asked_for(store: Store) -> None:
    """All that runs of a queue counts, also tasks that this owner does not know."""
    await store.add([new("a", "Unknown"), new("b"), new("c")])
    await store.claim([Lane(kinds=(("q", "Unknown"),), room=1)], owner="other", now=100, until=1000)
    assert ids((await within(store, Limit(queue="q", in_all=2))).jobs) == ["b"]


async def test_in_all_counts_claims_whose_lease_has_ended(store: Store) -> None:
    """A claim counts until it is released."""
    await store.add(numbered(2))
    await within(store, Limit(queue="q", in_all=1), owner="other", until=200)
    found = await within(store, Limit(queue="q", in_all=1), now=500)
    assert (found.jobs, len(found.lapsed), found.next_at) == ([], 1, None)
    await store.finish([again(found.lapsed[0].job, lapsed_by=500)])
    assert ids((await within(store, Limit(queue="q", in_all=1), now=500)).jobs) == ["1"]


async def test_more_run_than_in_all(store: Store) -> None:
    """Where more run than are allowed now, nothing is claimed."""
    await store.add(numbered(5))
    jobs = (await within(store, [], Lane(kinds=ALL.kinds, room=3))).jobs
    limit = Limit(queue="q", in_all=2)
    assert (await within(store, limit)).jobs == []
    await store.finish([complete(job) for job in jobs[:2]])
    assert ids((await within(store, limit)).jobs) == ["3"]


async def test_room_and_in_all(store: Store) -> None:
    """The smaller one counts."""
    await store.add(numbered(9))
    assert len((await within(store, Limit(queue="q", room=1, in_all=5))).jobs) == 1
    assert len((await within(store, Limit(queue="q", room=5, in_all=3))).jobs) == 2


async def test_next_due_where_all_run(store: Store) -> None:
    """What waits for a place in all is not waited for by its time; leases of others are."""
    await store.add([*numbered(2), new("later", due_at=500)])
    await within(store, Limit(queue="q", in_all=1), owner="other", until=800)
    assert (await within(store, Limit(queue="q", in_all=1))).next_at == 800
    assert (await within(store, Limit(queue="q", in_all=3))).next_at == 500


# -- pause -----------------------------------------------------------------------------------------


async def test_paused_queue(store: Store) -> None:
    """Nothing of a paused queue is claimed, nor waited for; others are as ever."""
    await store.add([new("a"), new("later", due_at=500), new("r", queue="r")])
    await store.pause("q", now=50)
    found = await within(store, [])
    assert (ids(found.jobs), found.next_at) == (["r"], None)
    assert await within(store, Limit(queue="q", room=5, in_all=5, per_key=5, rate=(5, 1000))) == NOTHING
    await store.resume("q")
    found = await within(store, [])
    assert (ids(found.jobs), found.next_at) == (["a"], 500)


async def test_pause_leaves_what_runs(store: Store) -> None:
    """A job that runs goes on: it is renewed, reported when it lapses, and its outcome is written."""
    await store.add(numbered(2))
    jobs = (await within(store, [], owner="other")).jobs
    await store.pause("q", now=150)
    assert store.renew([(job.id, job.fence) for job in jobs], until=2000) == set()
    assert (await within(store, [])).next_at == 2000
    assert {claim.job.id for claim in (await within(store, [], now=2000)).lapsed} == {"0", "1"}
    assert await store.finish([complete(jobs[0]), again(jobs[1])]) == set()
    assert (await within(store, [], now=2000)).jobs == []
    await store.resume("q")
    assert ids((await within(store, [], now=2000)).jobs) == ["1"]


async def test_pause_of_a_queue_that_nobody_knows(store: Store) -> None:
    """A queue can be paused before there is anything of it, twice, and resumed, twice."""
    await store.resume("q")
    await store.pause("q", now=1)
    await store.pause("q", now=2)
    await store.add([new("a")])
    assert (await claim(store)).jobs == []
    await store.resume("q")
    await store.resume("q")
    assert ids((await claim(store)).jobs) == ["a"]


async def test_pause_outlives_a_declaration(store: Store) -> None:
    """What is declared of a queue changes nothing about its pause, nor the other way round."""
    await declare(store, keeps=True)
    await store.pause("q", now=1)
    await declare(store, keeps=True, keep_for=5)
    assert (await store.orders("mine")).paused == {"q"}
    await store.add([new("a")])
    await store.cancel(["a"], now=10)
    assert (await record(store, "a", now=14)).expires_at == at(15)


async def test_orders_of_pauses(store: Store) -> None:
    """Every owner is told all queues that are paused."""
    assert await store.orders("mine") == NO_ORDERS
    await store.pause("q", now=1)
    await store.pause("it's", now=1)
    assert (
        await store.orders("mine")
        == await store.orders("other")
        == Orders(paused=frozenset({"q", "it's"}), cancelled=[])
    )
    await store.resume("q")
    assert (await store.orders("mine")).paused == {"it's"}


# -- running, queues -------------------------------------------------------------------------------


async def test_running(store: Store) -> None:
    """The number of a queue's claimed jobs, whoever has them."""
    assert await store.running("q") == 0
    await store.add([*numbered(3), new("x", "Unknown"), new("r", queue="r")])
    jobs = (await within(store, [], Lane(kinds=ALL.kinds, room=2))).jobs
    await store.claim([Lane(kinds=(("q", "Unknown"),), room=1)], owner="other", now=100, until=1)
    assert (await store.running("q"), await store.running("r")) == (3, 0)
    await store.finish([complete(jobs[0]), again(jobs[1])])
    assert await store.running("q") == 1


def queue(name: str, *, paused: bool = False, running: int = 0, oldest_due: int | None = None) -> Queue:
    oldest = None if oldest_due is None else timedelta(milliseconds=oldest_due)
    return Queue(name=name, paused=paused, running=running, oldest_due=oldest)


async def queues(store: Store, *, now: int) -> list[Queue]:
    """Return how the queues are doing, without the counts of their jobs."""
    return [
        Queue(name=found.name, paused=found.paused, running=found.running, oldest_due=found.oldest_due)
        for found in await store.queues(now=now)
    ]


async def test_queues(store: Store) -> None:
    """Those that have live jobs or are paused, by name: what runs, and since when one could run."""
    assert await store.queues(now=100) == []
    await store.add([new("a", due_at=40), new("b", "U", due_at=30, priority=-5), new("c", due_at=20)])
    await store.add([new("later", queue="r", due_at=200)])
    await store.pause("z", now=1)
    await store.pause("r", now=1)
    assert await queues(store, now=100) == [
        queue("q", oldest_due=80),
        queue("r", paused=True),
        queue("z", paused=True),
    ]
    (job,) = (await within(store, [], Lane(kinds=ALL.kinds, room=1))).jobs
    assert job.id == "c"
    assert (await queues(store, now=100))[0] == queue("q", running=1, oldest_due=70)
    assert (await queues(store, now=200))[1] == queue("r", paused=True, oldest_due=0)
    await store.finish([complete(job)])
    await store.cancel(["a", "b", "later"], now=300)
    await store.resume("z")
    assert await queues(store, now=300) == [queue("r", paused=True)]


async def test_queues_with_jobs_that_wait_for_their_turn(store: Store) -> None:
    """What waits for its turn could run, but for those before it, since it was due."""
    more = More(key="k", turns=1)
    await store.add([new("a", due_at=50, created_at=50, more=more, priority=1)])
    await store.add([new("b", due_at=10, created_at=50, more=more)])
    assert await queues(store, now=100) == [queue("q", oldest_due=90)]
    await store.cancel(["b"], now=100)
    assert await queues(store, now=100) == [queue("q", oldest_due=50)]


async def test_the_oldest_due_of_some_kinds(store: Store) -> None:
    """Of no others, whatever their priorities; not of paused queues, nor what waits for its turn."""
    more = More(key="k", turns=1)
    await store.add([new("a", due_at=40, priority=5), new("b", due_at=30), new("c", due_at=35, priority=-5)])
    await store.add([new("d", "U", due_at=20), new("e", queue="r", due_at=10)])
    await store.add([new("f", "V", due_at=50, created_at=50, more=more, priority=1)])
    await store.add([new("g", "V", due_at=5, created_at=50, more=more)])
    assert await store.oldest_due([]) is None
    assert await store.oldest_due([("q", "T")]) == 30
    assert await store.oldest_due([("q", "T"), ("q", "U"), ("none", "T")]) == 20
    assert await store.oldest_due([("q", "V")]) == 50
    assert await store.oldest_due([("q", "T"), ("r", "T")]) == 10
    await store.pause("r", now=1)
    assert await store.oldest_due([("q", "T"), ("r", "T")]) == 30


async def test_many_queues(store: Store) -> None:
    """Any number of queues, tasks and priorities."""
    names = [f"q{number:03}" for number in range(30)]
    for level in (-1, 0, 1):
        await store.add(
            [
                new(f"{name}{task}{level}", task, queue=name, priority=level, due_at=50 - place + level)
                for place, name in enumerate(names)
                for task in "TU"
            ]
        )
    assert await queues(store, now=100) == [
        queue(name, oldest_due=51 + place) for place, name in enumerate(names)
    ]


# -- declare ---------------------------------------------------------------------------------------


async def declare(
    store: Store,
    queue: str = "q",
    *,
    keeps: bool = False,
    keep_for: int | None = None,
    keep_payload: bool = False,
    turns: int | None = 1,
) -> None:
    await store.declare(
        [Declared(queue=queue, keeps=keeps, keep_for=keep_for, keep_payload=keep_payload, turns=turns)],
        now=100,
    )


# -- cancel ----------------------------------------------------------------------------------------


async def test_cancel_a_pending_job(store: Store) -> None:
    """It ends at once as cancelled, and is not claimed any more."""
    await declare(store, keeps=True, keep_payload=True)
    more = More(key="k", timeout=1500, parent="p", meta='{"n":1}', tags='["x"]')
    await store.add([new("a", payload=b"[1]", priority=2, more=more), new("b")])
    before = await record(store, "a")
    assert await store.cancel(["a"], now=70) == Cancelled(ended=["a"], asked=[])
    assert await record(store, "a") == msgspec.structs.replace(
        before,
        status=JobStatus.CANCELLED,
        finished_at=at(70),
        cancelled_at=at(70),
        error="cancelled",
    )
    assert await store.status("a", now=10**12) is JobStatus.CANCELLED
    assert ids((await claim(store)).jobs) == ["b"]


async def test_cancel_a_job_for_later(store: Store) -> None:
    """Also before it is due; it is not waited for then."""
    await store.add([new("a", due_at=500)])
    assert await store.cancel(["a"], now=70) == Cancelled(ended=["a"], asked=[])
    assert await claim(store) == Claim(jobs=[], lapsed=[], next_at=None)


async def test_cancelled_retry(store: Store) -> None:
    """A job that has run before keeps its counters and fence; its error is that it was cancelled."""
    await declare(store, keeps=True)
    await store.add([new("a")])
    job = await claim_one(store)
    await store.finish([again(job, crashes=1, error="no")])
    await store.cancel(["a"], now=250)
    found = await record(store, "a")
    assert (found.attempt, found.crashes, found.error, found.fence) == (1, 1, "cancelled", job.fence)
    assert (found.owner, found.started_at, found.duration) == (None, None, None)


@pytest.mark.parametrize("ends", ["pending", "running"])
@pytest.mark.parametrize("keep_payload", [False, True])
@pytest.mark.parametrize("keep_for", [None, 0, 500])
async def test_cancelled_job_is_kept_as_declared(
    store: Store, ends: str, keep_payload: bool, keep_for: int | None
) -> None:
    """For as long as its queue was declared to keep it, with its payload if that was declared."""
    await declare(store, keeps=True, keep_for=keep_for, keep_payload=keep_payload)
    await declare(store, "r", keeps=False)
    await store.add([new("a", payload=b"[1]")])
    await cancel_as(store, ends, now=200)
    if keep_for is None:
        assert (await record(store, "a", now=10**12)).expires_at is None
    else:
        assert await store.status("a", now=200 + keep_for) is JobStatus.NOT_FOUND
    if keep_for != 0:
        found = await record(store, "a", now=200)
        assert found.payload == (b"[1]" if keep_payload else None)
        assert (found.status, found.finished_at) == (JobStatus.CANCELLED, at(200))
        assert found.expires_at == (None if keep_for is None else at(200 + keep_for))
    assert await store.expire(now=10**12, limit=10) == (keep_for is not None)


async def cancel_as(store: Store, ends: str, *, now: int) -> None:
    """Cancel the job a, as one that is pending, or one that runs and is then to run again."""
    job = await claim_one(store) if ends == "running" else None
    await store.cancel(["a"], now=now)
    if job is not None:
        await store.finish([again(job)])


@pytest.mark.parametrize("ends", ["pending", "running"])
@pytest.mark.parametrize("declared", [False, True])
async def test_cancelled_job_that_is_not_kept(store: Store, ends: str, declared: bool) -> None:
    """Of a queue that is not declared, or keeps nothing, it is gone."""
    await declare(store, "r", keeps=True)
    if declared:
        await declare(store, keeps=True)
        await declare(store, keeps=False, keep_for=5)
    await store.add([new("a")])
    await cancel_as(store, ends, now=200)
    assert await store.status("a", now=200) is JobStatus.NOT_FOUND
    assert await store.get("a", now=200) is None
    await store.add([new("a")])
    assert await store.status("a", now=200) is JobStatus.PENDING


async def test_cancel_a_running_job(store: Store) -> None:
    """It goes on, and its owner is asked to end it; the first request is the one that counts."""
    await store.add([new("a")])
    job = await claim_one(store)
    before = await record(store, "a")
    assert before.cancelled_at is None
    assert await store.cancel(["a"], now=200) == Cancelled(ended=[], asked=["a"])
    assert await store.cancel(["a"], now=300) == Cancelled(ended=[], asked=["a"])
    assert await record(store, "a") == msgspec.structs.replace(before, cancelled_at=at(200))
    assert await store.claims_of("mine") == [job]
    assert store.renew([(job.id, job.fence)], until=5000) == set()


async def test_orders_of_cancellations(store: Store) -> None:
    """An owner is told, until the outcome is written, which of its claims are to be cancelled."""
    await store.add(numbered(3))
    jobs = (await within(store, [])).jobs
    await store.add([new("x", "U")])
    (other,) = (await within(store, [], owner="other")).jobs
    await store.cancel(["0", "2", "x"], now=200)
    for _ in range(2):
        assert sorted((await store.orders("mine")).cancelled) == [("0", jobs[0].fence), ("2", jobs[2].fence)]
    assert list((await store.orders("other")).cancelled) == [("x", other.fence)]
    assert await store.orders("nobody") == NO_ORDERS
    await store.finish([complete(jobs[0]), complete(jobs[1])])
    assert list((await store.orders("mine")).cancelled) == [("2", jobs[2].fence)]
    await store.finish([again(jobs[2])])
    assert await store.orders("mine") == NO_ORDERS
    await store.finish([complete(other)])
    assert await store.orders("other") == NO_ORDERS


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED])
async def test_job_that_ends_after_a_request(store: Store, status: JobStatus) -> None:
    """However it ends, that is what is written; the request stays to be seen."""
    await declare(store, keeps=False)
    await store.add([new("a")])
    job = await claim_one(store)
    await store.cancel(["a"], now=150)
    assert await store.finish([complete(job, status=status, error="as it was")]) == set()
    found = await record(store, "a")
    assert (found.status, found.error, found.finished_at) == (status, "as it was", at(200))
    assert found.cancelled_at == at(150)


@pytest.mark.parametrize("error", [None, "why"])
@pytest.mark.parametrize("write", ["finish", "finish_now"])
async def test_job_that_is_to_run_again_after_a_request(store: Store, error: str | None, write: str) -> None:
    """It ends as cancelled instead, when that was asked for, with the counters of the outcome."""
    await declare(store, keeps=True, keep_for=1000, keep_payload=True)
    await store.add([new("a", payload=b"[1]"), new("b")])
    job, other = (await claim(store)).jobs
    await store.cancel(["a"], now=150)
    outcomes = [again(job, attempt=0, crashes=2, error=error), again(other, error="no")]
    lost = await store.finish(outcomes) if write == "finish" else store.finish_now(outcomes)
    assert lost == set()
    found = await record(store, "a")
    assert (found.status, found.finished_at, found.cancelled_at) == (JobStatus.CANCELLED, at(150), at(150))
    assert (found.attempt, found.crashes, found.error) == (0, 2, error or "cancelled")
    assert (found.payload, found.expires_at, found.fence) == (b"[1]", at(1150), job.fence)
    assert (found.owner, found.started_at, found.duration) == (None, None, None)
    assert (await record(store, "b")).status is JobStatus.PENDING
    assert ids((await claim(store, now=10_000)).jobs) == ["b"]


async def test_earlier_error_of_a_cancelled_job(store: Store) -> None:
    """Without an error of its own, the last outcome leaves none of an earlier attempt."""
    await declare(store, keeps=True)
    await store.add([new("a")])
    await store.finish([again(await claim_one(store), error="earlier", due_at=0)])
    job = await claim_one(store)
    await store.cancel(["a"], now=150)
    await store.finish([again(job)])
    assert (await record(store, "a")).error == "cancelled"


async def test_lapsed_job_after_a_request(store: Store) -> None:
    """A claim that is taken over ends its job so too, if its lease has ended; not if it is lost."""
    await declare(store, keeps=True)
    await store.add([new("a")])
    job = await claim_one(store, owner="dead", until=300)
    await store.cancel(["a"], now=150)
    assert await store.finish([again(job, fence=job.fence + 1)]) == {"a"}
    assert await store.finish([again(job, lapsed_by=299)]) == {"a"}
    assert await store.status("a", now=0) is JobStatus.RUNNING
    assert await store.finish([again(job, lapsed_by=300)]) == set()
    assert await store.status("a", now=0) is JobStatus.CANCELLED
    assert await store.finish([again(job)]) == {"a"}


async def test_cancel_what_is_not_there(store: Store) -> None:
    """Nothing happens to jobs that are unknown, or have ended."""
    await declare(store, keeps=True)
    await store.add([new("a"), new("b")])
    first, second = (await claim(store)).jobs
    await store.finish([complete(first), complete(second, keep=None)])
    before = await record(store, "a")
    assert await store.cancel(["a", "b", "c", ""], now=300) == Cancelled(ended=[], asked=[])
    assert await store.cancel([], now=300) == Cancelled(ended=[], asked=[])
    assert await record(store, "a") == before


async def test_cancel_twice(store: Store) -> None:
    """What has ended as cancelled is left as it is."""
    await declare(store, keeps=True)
    await store.add([new("a")])
    assert await store.cancel(["a"], now=70) == Cancelled(ended=["a"], asked=[])
    before = await record(store, "a")
    assert await store.cancel(["a"], now=300) == Cancelled(ended=[], asked=[])
    assert await record(store, "a") == before


async def test_cancel_many(store: Store) -> None:
    """Pending and running ones, in one call, also if they are named twice."""
    await store.add(numbered(400))
    jobs = (await claim(store, room=150)).jobs
    everything = [str(number) for number in range(400)]
    done = await store.cancel([*everything, *everything[:50], "x"], now=200)
    assert set(done.asked) == set(ids(jobs))
    assert sorted(done.ended) == sorted(set(everything) - set(ids(jobs)))
    assert len((await store.orders("mine")).cancelled) == 150
    assert (await claim(store)).jobs == []


async def test_cancelled_id_is_data(store: Store) -> None:
    """An id is no pattern, and no statement."""
    await store.add([new("a"), new("'"), new("%"), new('"]')])
    assert sorted((await store.cancel(["'", "%", '"]'], now=1)).ended) == ['"]', "%", "'"]
    assert ids((await claim(store)).jobs) == ["a"]


async def test_cancel_finds_a_job_in_its_next_attempt(store: Store) -> None:
    """A request is of the job, not of an attempt: what runs again was not asked to end."""
    await store.add([new("a")])
    first = await claim_one(store)
    await store.finish([again(first, due_at=0)])
    second = await claim_one(store, owner="other")
    await store.cancel(["a"], now=150)
    assert list((await store.orders("other")).cancelled) == [("a", second.fence)]
    assert await store.orders("mine") == NO_ORDERS


# -- who is told -----------------------------------------------------------------------------------


async def heard_of(store: Store, call: Any) -> None:
    """Call, and wait until a listener has heard of something."""
    heard = asyncio.Event()
    store.listen(heard.set)
    await call
    with anyio.fail_after(LIMIT):
        await heard.wait()
    store.unlisten(heard.set)


async def test_listeners_hear_of_orders(store: Store) -> None:
    """Pause, resume and cancel are told."""
    await store.add([new("a")])
    await heard_of(store, store.pause("q", now=1))
    await heard_of(store, store.resume("q"))
    await heard_of(store, store.cancel(["a"], now=1))


async def test_ring(store: Store) -> None:
    """A ring can be asked for, from any thread."""
    store.ring()
    thread = threading.Thread(target=store.ring)
    thread.start()
    await asyncio.to_thread(thread.join)
