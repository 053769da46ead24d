"""What every store promises: the sentences of `stores/_base.py`, run on each store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import anyio
import msgspec
import pytest

from backlite_async import InvalidState
from backlite_async._job import (
    Claim,
    ClaimedJob,
    Complete,
    Job,
    JobStatus,
    Keep,
    Lane,
    Lapsed,
    NewJob,
    Outcome,
    Reschedule,
)
from backlite_async.stores import Store

T = TypeVar("T")

FOREVER = Keep(until=None, payload=True)
FAR = 10**15
MOMENTS = [0, 1, 2, 3, 4, 6, 10, 30, 100, 300, 1000]
"""Turns of the event loop after which a caller is cancelled."""


def new(job_id: str, task: str = "T", **changes: Any) -> NewJob:
    """Return a job that is due at 0."""
    job = NewJob(id=job_id, queue="q", task=task, payload=b"{}", max_attempts=3, created_at=0, due_at=0)
    return msgspec.structs.replace(job, **changes)


def lane(*tasks: str, room: int = 10) -> Lane:
    return Lane(kinds=tuple(("q", task) for task in tasks or ("T",)), room=room)


async def claim(
    store: Store, *lanes: Lane, owner: str = "mine", now: int = 100, until: int = 1000, room: int = 10
) -> Claim:
    """Claim from these lanes, or from one lane of the task T."""
    return await store.claim(lanes or [lane(room=room)], owner=owner, now=now, until=until)


async def claim_one(store: Store, **changes: Any) -> ClaimedJob:
    """Claim the one job that can be claimed."""
    (job,) = (await claim(store, **changes)).jobs
    return job


async def running(store: Store, job_id: str = "a", **changes: Any) -> ClaimedJob:
    """Add a job and claim it."""
    await store.add([new(job_id)])
    return await claim_one(store, **changes)


def complete(job: ClaimedJob, **changes: Any) -> Complete:
    """Return the outcome that a job succeeded at 200 and is kept for ever."""
    outcome = Complete(
        id=job.id,
        fence=job.fence,
        status=JobStatus.SUCCEEDED,
        finished_at=200,
        started_at=None,
        duration=None,
        attempt=job.attempt,
        crashes=job.crashes,
        keep=FOREVER,
    )
    return msgspec.structs.replace(outcome, **changes)


def again(job: ClaimedJob, **changes: Any) -> Reschedule:
    """Return the outcome that a job runs again at 300."""
    outcome = Reschedule(id=job.id, fence=job.fence, due_at=300, attempt=job.attempt, crashes=job.crashes)
    return msgspec.structs.replace(outcome, **changes)


def lapsed(job: ClaimedJob, owner: str = "other", until: int = 500) -> Lapsed:
    return Lapsed(job=job, owner=owner, until=until)


def ids(jobs: Iterable[ClaimedJob]) -> list[str]:
    return [job.id for job in jobs]


def at(millis: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)


async def record(store: Store, job_id: str, *, now: int = 0) -> Job:
    job = await store.get(job_id, now=now)
    assert job is not None
    return job


async def cancelled_after(turns: int, call: Coroutine[Any, Any, T]) -> T | None:
    """Cancel a call after some turns of the event loop; return its answer, None if there is none."""
    task = asyncio.create_task(call)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return None if task.cancelled() else task.result()


def test_it_is_a_store(store: Store) -> None:
    """A store has every method of the protocol."""
    assert isinstance(store, Store)


# -- life: add -------------------------------------------------------------------------------------


async def test_added_job_is_pending(store: Store) -> None:
    """A job that was added is pending, with what it was added with and nothing else."""
    await store.add([new("a", payload=b'{"n":1}', priority=3, created_at=5, due_at=7)])
    assert await record(store, "a") == Job(
        id="a",
        queue="q",
        task="T",
        status=JobStatus.PENDING,
        payload=b'{"n":1}',
        attempt=0,
        max_attempts=3,
        crashes=0,
        priority=3,
        fence=None,
        owner=None,
        created_at=at(5),
        due_at=at(7),
        started_at=None,
        finished_at=None,
        duration=None,
        error=None,
        result=None,
        expires_at=None,
    )


async def test_add_of_several(store: Store) -> None:
    """All jobs of one call are stored."""
    await store.add([new(str(number)) for number in range(500)])
    assert {await store.status(str(number), now=0) for number in range(500)} == {JobStatus.PENDING}


async def test_add_of_nothing(store: Store) -> None:
    """No jobs can be added too."""
    await store.add([])
    assert await store.kinds() == []


async def test_add_again_leaves_a_pending_job_as_it_is(store: Store) -> None:
    """An id that is there already keeps its job; the others of the call are added."""
    await store.add([new("a")])
    before = await record(store, "a")
    await store.add([new("a", "Other", payload=b"[]", due_at=9), new("b")], again=True)
    assert await record(store, "a") == before
    assert ids((await claim(store)).jobs) == ["a", "b"]


async def test_add_again_leaves_a_running_job_as_it_is(store: Store) -> None:
    """A job that is added again while it runs goes on running, once."""
    await running(store)
    await store.add([new("a")], again=True)
    assert await store.status("a", now=0) is JobStatus.RUNNING
    assert (await claim(store)).jobs == []


async def test_add_again_with_the_same_id_twice(store: Store) -> None:
    """Of two jobs with one id in the same call, the first is stored."""
    await store.add([new("a", priority=1), new("a", priority=2)], again=True)
    assert (await record(store, "a")).priority == 1
    assert ids((await claim(store)).jobs) == ["a"]


async def test_add_again_of_what_was_not_added(store: Store) -> None:
    """What is not there yet is added as at the first time, in its order, however much it is."""
    await store.add([new(str(number)) for number in range(0, 2000, 3)])
    again = [new(str(number), payload=b"[%d]" % number, priority=2, due_at=7) for number in range(2000)]
    await store.add(again, again=True)
    jobs = (await claim(store, room=2000)).jobs
    fresh = [number for number in range(2000) if number % 3]
    assert ids(jobs) == [str(number) for number in [*fresh, *range(0, 2000, 3)]]
    assert [job.payload for job in jobs[: len(fresh)]] == [f"[{number}]" for number in fresh]


@pytest.mark.parametrize("taken", ["pending", "running", "twice"])
@pytest.mark.parametrize("count", [1, 600])
async def test_add_of_an_id_that_is_there(store: Store, taken: str, count: int) -> None:
    """A new job with the id of a live one is an error, and adds none of its call."""
    jobs = [new(f"new {number}") for number in range(count)]
    if taken == "twice":
        jobs.append(jobs[0])
    else:
        await store.add([new("a")])
        if taken == "running":
            await claim_one(store)
        jobs.append(new("a", priority=5))
    with pytest.raises(InvalidState, match="is there already, and nothing was added"):
        await store.add(jobs)
    assert await store.status("new 0", now=0) is JobStatus.NOT_FOUND
    await store.add([new("other")])
    assert await store.status("other", now=0) is JobStatus.PENDING


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 256, 257, 1023])
async def test_add_of_any_number(store: Store, count: int) -> None:
    """However many jobs one call adds, each is stored, in their order and with what is its own."""
    await store.add(
        [
            new(str(n), str(n % 3), payload=b"%d" % n, max_attempts=n + 1, created_at=n, priority=n % 2)
            for n in range(count)
        ]
    )
    jobs = (await claim(store, lane("0", "1", "2", room=2000))).jobs
    assert ids(jobs) == [str(n) for n in [*range(1, count, 2), *range(0, count, 2)]]
    for job in jobs:
        n = int(job.id)
        found = (job.task, job.payload, job.max_attempts, job.created_at)
        assert found == (str(n % 3), str(n), n + 1, n)


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b'""',
        rb'"\u0000 \" \\ \n"',
        '{"é":"日本 🦆 \u2028"}'.encode(),
        b'{"sql":"\'; DROP TABLE backlite_jobs; --"}',
        b"12345678901234567890123.000000001",
        b'"' + b"x" * 1_048_576 + b'"',
    ],
    ids=["empty", "string", "escapes", "unicode", "sql", "number", "large"],
)
async def test_payload_is_kept_to_the_byte(store: Store, payload: bytes) -> None:
    """A payload comes back byte by byte: pending, claimed, and completed."""
    await store.add([new("a", payload=payload)])
    assert (await record(store, "a")).payload == payload
    job = await claim_one(store)
    assert job.payload == payload.decode()
    await store.finish([complete(job)])
    assert (await record(store, "a")).payload == payload


@pytest.mark.parametrize(
    "payload",
    [b'"\xff"', b'"\xed\xa0\x80"', b"\xc3", b'"\x00"', b"\x00\x01\x1f\x7f", b"", b'"' + b"x" * 70_000 + b'"'],
    ids=["no UTF-8", "surrogate", "cut off", "zero", "controls", "nothing", "large"],
)
async def test_payload_that_is_no_json_harms_no_other(store: Store, payload: bytes) -> None:
    """Whatever a payload holds, it is claimed byte by byte; so are the others, in their order."""
    payloads = [b'{"n":1}', payload, '"ü"'.encode()]
    await store.add([new(str(number), payload=one) for number, one in enumerate(payloads)])
    jobs = (await claim(store)).jobs
    assert ids(jobs) == ["0", "1", "2"]
    assert [job.payload.encode("utf-8", "surrogateescape") for job in jobs] == payloads
    assert {(job.attempt, job.max_attempts, job.fence) for job in jobs} == {(1, 3, jobs[0].fence)}
    assert list(await store.claims_of("mine")) == list(jobs)
    assert await store.finish([complete(job) for job in jobs]) == set()
    assert (await record(store, "1")).payload == payload


@pytest.mark.parametrize("name", ["ü 日", "a'b", 'a"b', "a\\b", "%_", "q\u2028"])
async def test_names_are_data(store: Store, name: str) -> None:
    """Ids, queues and task names of any characters find their job."""
    await store.add([new(name, task=name, queue=name), new("other")])
    found = await store.claim([Lane(kinds=((name, name),), room=9)], owner=name, now=0, until=9)
    assert ids(found.jobs) == [name]
    assert ids(await store.claims_of(name)) == [name]
    assert store.renew([(name, found.jobs[0].fence)], until=20) == set()
    assert await store.finish([complete(found.jobs[0])]) == set()
    assert await store.status(name, now=0) is JobStatus.SUCCEEDED


# -- life: claim, in order -------------------------------------------------------------------------


async def test_claim_of_nothing(store: Store) -> None:
    """An empty store has nothing to claim and nothing to wait for."""
    assert await claim(store) == Claim(jobs=[], lapsed=[], next_at=None)
    assert await store.claim([], owner="mine", now=0, until=9) == Claim(jobs=[], lapsed=[], next_at=None)


async def test_claimed_job(store: Store) -> None:
    """A claim returns the job with all that its attempt needs."""
    await store.add([new("a", payload=b"[1]", created_at=5, due_at=7)])
    job = await claim_one(store)
    assert job == ClaimedJob(
        id="a",
        queue="q",
        task="T",
        payload="[1]",
        attempt=1,
        max_attempts=3,
        crashes=0,
        fence=job.fence,
        created_at=5,
        scheduled_at=7,
    )


async def test_claim_makes_running(store: Store) -> None:
    """A claimed job runs for its owner under the claim's fence, and counts the attempt."""
    await store.add([new("a", due_at=7)])
    before = await record(store, "a")
    job = await claim_one(store, owner="mine", now=100, until=1000)
    assert await record(store, "a") == msgspec.structs.replace(
        before, status=JobStatus.RUNNING, attempt=1, fence=job.fence, owner="mine", started_at=at(100)
    )


async def test_claim_takes_what_is_due(store: Store) -> None:
    """A job can be claimed from its due time on, and not before."""
    await store.add([new("a", due_at=100), new("b", due_at=101)])
    assert ids((await claim(store, now=99)).jobs) == []
    assert ids((await claim(store, now=100)).jobs) == ["a"]
    assert ids((await claim(store, now=101)).jobs) == ["b"]


async def test_job_is_claimed_once(store: Store) -> None:
    """A job is held by one claim at a time, whoever asks, even after its lease has ended."""
    await running(store, until=500)
    for owner in ("mine", "other"):
        assert (await claim(store, owner=owner, now=499)).jobs == []
        assert (await claim(store, owner=owner, now=501)).jobs == []


async def test_higher_priority_first(store: Store) -> None:
    """Priority comes before due time and order of adding."""
    priorities = [0, -10, 10, 1, -1]
    await store.add([new(str(p), priority=p, due_at=number) for number, p in enumerate(priorities)])
    assert ids((await claim(store)).jobs) == ["10", "1", "0", "-1", "-10"]


async def test_earlier_due_first(store: Store) -> None:
    """Within a priority, the due time comes before the order of adding."""
    await store.add([new("late", due_at=30)])
    await store.add([new("middle", due_at=20), new("early", due_at=10)])
    assert ids((await claim(store)).jobs) == ["early", "middle", "late"]


async def test_earlier_added_first(store: Store) -> None:
    """What is due at the same time comes in the order of adding; ids have no say in it."""
    await store.add([new("z"), new("a")])
    await store.add([new("m"), new("b")])
    assert ids((await claim(store)).jobs) == ["z", "a", "m", "b"]


async def test_order_holds_over_claims(store: Store) -> None:
    """One claim after the other takes jobs in the same order as one claim would."""
    await store.add([new("c", due_at=3), new("a", priority=1, due_at=9), new("b", due_at=2)])
    assert [ids((await claim(store, room=1)).jobs) for _ in range(3)] == [["a"], ["b"], ["c"]]


async def test_order_holds_over_kinds(store: Store) -> None:
    """The order is one over all kinds, in one lane or in several."""
    await store.add(
        [new("b", "U", due_at=2), new("c", "T", due_at=3), new("d", "U", due_at=4), new("a", "T", due_at=1)]
    )
    assert ids((await claim(store, lane("T", "U", room=2))).jobs) == ["a", "b"]
    assert ids((await claim(store, lane("T"), lane("U"))).jobs) == ["c", "d"]
    await store.add([new("g", "T", due_at=3), new("e", "T", due_at=1), new("f", "U", due_at=2)])
    assert ids((await claim(store, lane("T", room=1), lane("U"))).jobs) == ["e", "f"]


async def test_order_of_adding_holds_over_kinds(store: Store) -> None:
    """What is due at the same time comes in the order of adding, whatever its kind and lane."""
    tasks = ["U", "T", "U", "V", "T", "V"]
    await store.add([new(str(number), task) for number, task in enumerate(tasks)])
    assert ids((await claim(store, lane("T", room=9), lane("V"), lane("U"))).jobs) == list("012345")


async def test_due_retry_before_newer_jobs(store: Store) -> None:
    """A retry that has become due comes before jobs that are due later, and before newer ones."""
    job = await running(store, "retry")
    await store.finish([again(job, due_at=300)])
    await store.add([new("due later", due_at=301), new("newer", due_at=300)])
    assert ids((await claim(store, now=400)).jobs) == ["retry", "newer", "due later"]


async def test_due_scheduled_job_before_newer_jobs(store: Store) -> None:
    """A scheduled job that has become due is not starved by jobs added since."""
    await store.add([new("scheduled", due_at=300)])
    await store.add([new(f"new {number}", due_at=301) for number in range(20)])
    assert ids((await claim(store, now=400, room=1)).jobs) == ["scheduled"]


async def test_delayed_high_priority_is_no_hindrance(store: Store) -> None:
    """Jobs of high priority that are not due keep nobody from running."""
    await store.add([new(str(number), priority=10, due_at=900) for number in range(20)])
    await store.add([new("a", priority=-10)])
    assert ids((await claim(store, room=2)).jobs) == ["a"]


# -- life: claim, from lanes -----------------------------------------------------------------------


async def test_room_of_a_lane(store: Store) -> None:
    """A claim takes at most a lane's room."""
    await store.add([new(str(number)) for number in range(5)])
    assert ids((await claim(store, room=2)).jobs) == ["0", "1"]
    assert ids((await claim(store, room=0)).jobs) == []
    assert ids((await claim(store, room=9)).jobs) == ["2", "3", "4"]


async def test_kinds_of_a_lane(store: Store) -> None:
    """Only jobs of the kinds asked for are taken: both the queue and the task count."""
    await store.add([new("a", "T"), new("b", "U"), new("c", "T", queue="r"), new("d", "U", queue="r")])
    lanes = [Lane(kinds=(("q", "T"), ("r", "U")), room=9)]
    assert ids((await store.claim(lanes, owner="mine", now=0, until=9)).jobs) == ["a", "d"]


async def test_kinds_share_the_room_of_their_lane(store: Store) -> None:
    """Kinds in one lane get its room together, and the best of them have it."""
    await store.add([new("t", "T", due_at=1), new("u", "U", due_at=2), new("t2", "T", due_at=3)])
    assert ids((await claim(store, lane("T", "U", room=2))).jobs) == ["t", "u"]


async def test_each_lane_has_its_own_room(store: Store) -> None:
    """A full lane leaves room to others, though its jobs would be better."""
    await store.add([new("t1", "T", priority=5), new("t2", "T", priority=5), new("u1", "U"), new("u2", "U")])
    assert ids((await claim(store, lane("T", room=1), lane("U", room=3))).jobs) == ["t1", "u1", "u2"]


async def test_largest_room_in_all(store: Store) -> None:
    """All lanes together get the largest room, and the best jobs have it."""
    await store.add([new(f"t{number}", "T", due_at=number) for number in range(3)])
    await store.add([new(f"u{number}", "U", due_at=number) for number in range(3)])
    assert ids((await claim(store, lane("T", room=2), lane("U", room=3))).jobs) == ["t0", "u0", "t1"]


# -- life: claim, fences ---------------------------------------------------------------------------


async def test_one_fence_per_claim(store: Store) -> None:
    """The jobs of one claim have one fence."""
    await store.add([new(str(number)) for number in range(5)])
    assert len({job.fence for job in (await claim(store)).jobs}) == 1


async def test_fences_grow(store: Store) -> None:
    """Each claim has a greater fence than all before it, also for the same job."""
    await store.add([new("a"), new("b")])
    fences = []
    for now in range(100, 110):
        (job,) = (await claim(store, now=now, room=1)).jobs
        fences.append(job.fence)
        await store.finish([again(job, due_at=now)])
    assert fences == sorted(set(fences))


async def test_fence_of_a_former_life(store: Store) -> None:
    """A job that is gone and was added again under its id has nothing to do with the old claim."""
    old = await running(store)
    await store.finish([complete(old, keep=None)])
    job = await running(store)
    assert job.fence > old.fence
    assert await store.finish([complete(old)]) == {"a"}
    assert store.renew([(old.id, old.fence)], until=9000) == {"a"}
    assert await store.status("a", now=0) is JobStatus.RUNNING


# -- life: claim, leases of others -----------------------------------------------------------------


async def test_lapsed_claims_are_reported(store: Store) -> None:
    """A claim reports those of other owners whose lease has ended by now, and leaves them."""
    job = await running(store, owner="other", until=500)
    before = await record(store, "a")
    assert (await claim(store, now=499)).lapsed == []
    found = await claim(store, now=500)
    assert found.lapsed == [Lapsed(job=job, owner="other", until=500)]
    assert found.jobs == []
    assert await record(store, "a") == before


async def test_own_lapsed_claims_are_not_reported(store: Store) -> None:
    """An owner's own leases are never reported to it."""
    await running(store, owner="mine", until=500)
    found = await claim(store, owner="mine", now=600)
    assert found == Claim(jobs=[], lapsed=[], next_at=None)
    other = await running(store, "b", owner="other", until=500)
    assert (await claim(store, owner="mine", now=600)).lapsed == [lapsed(other)]


async def test_lapsed_claims_of_the_kinds_asked_for(store: Store) -> None:
    """Lapsed claims are reported for the kinds asked for, whether their lane has room or not."""
    await store.add([new("t", "T"), new("u", "U"), new("v", "V")])
    await claim(store, lane("T", "U", "V"), owner="other", until=500)
    found = await claim(store, lane("T", room=0), lane("U", room=1), now=600)
    assert sorted(ids(claim.job for claim in found.lapsed)) == ["t", "u"]


async def test_lapsed_claims_beside_new_ones(store: Store) -> None:
    """The same claim may take jobs and report lapsed ones."""
    await running(store, "old", owner="other", until=500)
    await store.add([new("a")])
    found = await claim(store, now=600)
    assert (ids(found.jobs), ids(claim.job for claim in found.lapsed)) == (["a"], ["old"])


async def test_claims_of_an_owner(store: Store) -> None:
    """An owner's claims are those that it holds, as they were claimed."""
    await store.add([new("a"), new("b"), new("c")])
    mine = (await claim(store, room=2)).jobs
    other = (await claim(store, owner="other")).jobs
    assert sorted(await store.claims_of("mine"), key=lambda job: job.id) == list(mine)
    assert await store.claims_of("other") == list(other)
    await store.finish([complete(mine[0]), again(mine[1])])
    assert await store.claims_of("mine") == []
    assert await store.claims_of("nobody") == []


# -- life: claim, when to look again ---------------------------------------------------------------


async def test_next_due(store: Store) -> None:
    """The next instant is that of the next job to become due, of whatever priority."""
    await store.add(
        [new("now", due_at=50), new("later", due_at=700, priority=10), new("next", due_at=600, priority=-10)]
    )
    found = await claim(store, now=100)
    assert (ids(found.jobs), found.next_at) == (["now"], 600)


@pytest.mark.parametrize("first", range(-10, 11))
async def test_next_due_at_each_priority(store: Store, first: int) -> None:
    """Whichever priority the next job has, its due time is found."""
    due = {priority: 500 if priority == first else 600 - priority for priority in range(-10, 11)}
    await store.add([new(str(priority), priority=priority, due_at=at) for priority, at in due.items()])
    assert (await claim(store)).next_at == 500
    assert ids((await claim(store, now=500)).jobs) == [str(first)]


async def test_next_due_of_the_kinds_asked_for(store: Store) -> None:
    """Jobs of other kinds are not waited for."""
    await store.add([new("t", "T", due_at=600), new("u", "U", due_at=500), new("r", queue="r", due_at=400)])
    assert (await claim(store, lane("T"))).next_at == 600
    assert (await claim(store, lane("T"), lane("U"))).next_at == 500


async def test_next_due_where_there_is_no_room(store: Store) -> None:
    """A lane without room is not waited for, whether its jobs are due or not."""
    await store.add([new("t", "T"), new("t2", "T", due_at=300), new("u", "U", due_at=600)])
    assert (await claim(store, lane("T", room=0))).next_at is None
    assert (await claim(store, lane("T", room=0), lane("U", room=1))).next_at == 600


async def test_next_due_where_the_room_was_just_taken(store: Store) -> None:
    """A lane that the claim itself has filled is not waited for; others are."""
    await store.add([new("t", "T"), new("t2", "T"), new("t3", "T", due_at=500), new("u", "U", due_at=600)])
    found = await claim(store, lane("T", room=1), lane("U", room=2))
    assert (ids(found.jobs), found.next_at) == (["t"], 600)


async def test_next_due_where_kinds_have_shared_the_room(store: Store) -> None:
    """A lane is full when its kinds have taken its room together."""
    await store.add([new("t", "T"), new("u", "U"), new("t2", "T", due_at=500), new("v", "V", due_at=600)])
    found = await claim(store, lane("T", "U", room=2), lane("V", room=3))
    assert (ids(found.jobs), found.next_at) == (["t", "u"], 600)


async def test_next_due_where_some_room_is_left(store: Store) -> None:
    """A lane with room left is waited for."""
    await store.add([new("t", "T"), new("u", "U"), new("t2", "T", due_at=500)])
    found = await claim(store, lane("T", "U", room=3))
    assert (ids(found.jobs), found.next_at) == (["t", "u"], 500)


async def test_next_due_when_all_room_is_taken(store: Store) -> None:
    """Once the largest room is taken, nothing is waited for."""
    await store.add([new("t", "T"), new("u", "U"), new("u2", "U", due_at=500)])
    found = await claim(store, lane("T", room=1), lane("U", room=2))
    assert (ids(found.jobs), found.next_at) == (["t", "u"], None)


async def test_next_lease_end(store: Store) -> None:
    """The end of another owner's lease is waited for; that of an own lease never."""
    await store.add([new("a"), new("b"), new("c")])
    await claim(store, owner="mine", until=400, room=1)
    await claim(store, owner="other", until=600, room=1)
    await claim(store, owner="third", until=500, room=1)
    assert (await claim(store, owner="mine")).next_at == 500
    assert (await claim(store, owner="third")).next_at == 400


async def test_next_lease_end_where_there_is_no_room(store: Store) -> None:
    """Another owner's lease is waited for even where there is no room; other kinds' are not."""
    await store.add([new("t", "T"), new("u", "U")])
    await claim(store, lane("T"), owner="other", until=600)
    await claim(store, lane("U"), owner="other", until=500)
    assert (await claim(store, lane("T", room=0))).next_at == 600


async def test_next_at_is_the_first_of_both(store: Store) -> None:
    """Whichever comes first, a job or a lease's end, is the next instant."""
    await running(store, owner="other", until=600)
    await store.add([new("late", due_at=700)])
    assert (await claim(store)).next_at == 600
    await store.add([new("early", due_at=500)])
    assert (await claim(store)).next_at == 500


async def test_lapsed_lease_is_not_waited_for(store: Store) -> None:
    """A lease that has ended is reported, and no instant to wait for: the next one lies ahead."""
    await running(store, owner="other", until=500)
    await store.add([new("later", due_at=900)])
    found = await claim(store, now=600)
    assert (ids(claim.job for claim in found.lapsed), found.next_at) == (["a"], 900)


async def test_renewed_lease_is_waited_for(store: Store) -> None:
    """A renewal moves the instant."""
    job = await running(store, owner="other", until=500)
    store.renew([(job.id, job.fence)], until=800)
    found = await claim(store, now=600)
    assert (found.lapsed, found.next_at) == ([], 800)


# -- life: finish ----------------------------------------------------------------------------------


async def _finish(store: Store, outcomes: Sequence[Outcome]) -> set[str]:
    return await store.finish(outcomes)


async def _finish_now(store: Store, outcomes: Sequence[Outcome]) -> set[str]:
    return store.finish_now(outcomes)


async def _finish_in_thread(store: Store, outcomes: Sequence[Outcome]) -> set[str]:
    return await asyncio.to_thread(store.finish_now, outcomes)


Finish = Callable[[Store, Sequence[Outcome]], Coroutine[Any, Any, set[str]]]
ways = pytest.mark.parametrize("finish", [_finish, _finish_now, _finish_in_thread])


@ways
async def test_completed_job(store: Store, finish: Finish) -> None:
    """A completed job that is kept shows its claim, its end and its error."""
    await store.add([new("a", payload=b"[1]", priority=2, created_at=5, due_at=7)])
    job = await claim_one(store, now=100)
    outcome = complete(
        job,
        status=JobStatus.FAILED,
        finished_at=250,
        started_at=120,
        duration=130_007,
        attempt=2,
        crashes=1,
        error="ValueError: no",
        result='{"n":1}',
        keep=Keep(until=900, payload=True),
    )
    assert await finish(store, [outcome]) == set()
    assert await record(store, "a") == Job(
        id="a",
        queue="q",
        task="T",
        status=JobStatus.FAILED,
        payload=b"[1]",
        attempt=2,
        max_attempts=3,
        crashes=1,
        priority=2,
        fence=job.fence,
        owner="mine",
        created_at=at(5),
        due_at=at(7),
        started_at=at(120),
        finished_at=at(250),
        duration=timedelta(microseconds=130_007),
        error="ValueError: no",
        result=b'{"n":1}',
        expires_at=at(900),
    )


@ways
async def test_rescheduled_job(store: Store, finish: Finish) -> None:
    """A rescheduled job is pending, due at its new time, with the counters it was given."""
    job = await running(store)
    before = await record(store, "a")
    outcome = again(job, due_at=300, attempt=0, crashes=2, error="Crash")
    assert await finish(store, [outcome]) == set()
    assert await record(store, "a") == msgspec.structs.replace(
        before,
        status=JobStatus.PENDING,
        owner=None,
        started_at=None,
        due_at=at(300),
        attempt=0,
        crashes=2,
        error="Crash",
    )
    assert (await claim(store, now=299)).next_at == 300
    (claimed,) = (await claim(store, now=300)).jobs
    assert (claimed.attempt, claimed.crashes, claimed.scheduled_at) == (1, 2, 300)


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED])
async def test_status_of_completed(store: Store, status: JobStatus) -> None:
    """A job ends with the status of its outcome."""
    job = await running(store)
    await store.finish([complete(job, status=status)])
    assert await store.status("a", now=0) is status
    assert (await record(store, "a")).status is status


async def test_completed_job_is_not_claimed_again(store: Store) -> None:
    """A job that has ended is over: not claimed, not waited for, nobody's, of no kind."""
    job = await running(store, owner="other")
    await store.finish([complete(job)])
    assert await claim(store, now=FAR) == Claim(jobs=[], lapsed=[], next_at=None)
    assert await store.claims_of("other") == []
    assert await store.kinds() == []


async def test_start_of_the_claim_where_none_is_given(store: Store) -> None:
    """Without a time of its own start, an outcome leaves that of the claim."""
    job = await running(store, now=123)
    await store.finish([complete(job, started_at=None)])
    assert (await record(store, "a")).started_at == at(123)


@ways
async def test_outcomes_of_several_jobs(store: Store, finish: Finish) -> None:
    """Each outcome concerns its own job; only the ids of lost claims are returned."""
    await store.add([new(name) for name in "abcde"])
    a, b, c, d, _ = (await claim(store)).jobs
    stale = msgspec.structs.replace(d, fence=d.fence + 1)
    outcomes: list[Outcome] = [complete(a), again(b), complete(c, keep=None), complete(stale)]
    assert await finish(store, outcomes) == {"d"}
    found = {name: await store.status(name, now=0) for name in "abcde"}
    assert found == {
        "a": JobStatus.SUCCEEDED,
        "b": JobStatus.PENDING,
        "c": JobStatus.NOT_FOUND,
        "d": JobStatus.RUNNING,
        "e": JobStatus.RUNNING,
    }


async def test_no_outcomes(store: Store) -> None:
    """No outcomes change nothing and lose nothing."""
    await running(store)
    assert await store.finish([]) == set()
    assert store.finish_now([]) == set()
    assert await store.status("a", now=0) is JobStatus.RUNNING


@ways
@pytest.mark.parametrize("make", [complete, again])
async def test_outcome_with_another_fence(store: Store, finish: Finish, make: Callable[..., Outcome]) -> None:
    """An outcome under another fence than the claim's, older or newer, changes nothing, ever."""
    first = await running(store)
    await store.finish([again(first, due_at=0)])
    job = await claim_one(store)
    before = await record(store, "a")
    for stale in (first, msgspec.structs.replace(job, fence=job.fence + 1)):
        assert await finish(store, [make(stale, error="stale")]) == {"a"}
        assert await record(store, "a") == before
    assert await finish(store, [complete(job)]) == set()
    found = await record(store, "a")
    assert (found.fence, found.error) == (job.fence, None)


@ways
@pytest.mark.parametrize("make", [complete, again])
async def test_outcome_of_a_job_that_does_not_run(
    store: Store, finish: Finish, make: Callable[[ClaimedJob], Outcome]
) -> None:
    """An outcome for a job that is pending again, has ended or is gone changes nothing."""
    pending, gone, ended = [await running(store, name) for name in ("pending", "gone", "ended")]
    await store.finish([again(pending), complete(gone, keep=None), complete(ended)])
    before = [await store.get(job.id, now=0) for job in (pending, gone, ended)]
    assert await finish(store, [make(job) for job in (pending, gone, ended)]) == {"pending", "gone", "ended"}
    assert [await store.get(job.id, now=0) for job in (pending, gone, ended)] == before


@ways
async def test_outcome_written_twice(store: Store, finish: Finish) -> None:
    """Writing an outcome twice is writing it once: counters are given as they are to be."""
    job = await running(store)
    outcome = again(job, attempt=1, crashes=1)
    await finish(store, [outcome])
    before = await record(store, "a")
    assert await finish(store, [outcome]) == {"a"}
    assert await record(store, "a") == before


async def test_lease_end_alone_loses_no_claim(store: Store) -> None:
    """A claim whose lease has ended counts until somebody else takes the job."""
    job = await running(store, until=500)
    assert (await claim(store, owner="other", now=600)).lapsed == [lapsed(job, "mine")]
    assert await store.finish([complete(job)]) == set()


@ways
@pytest.mark.parametrize("make", [complete, again])
async def test_outcome_only_if_the_lease_has_ended(
    store: Store, finish: Finish, make: Callable[..., Outcome]
) -> None:
    """With `lapsed_by`, an outcome counts only if the lease ended at or before that instant."""
    job = await running(store, owner="other", until=500)
    before = await record(store, "a")
    assert await finish(store, [make(job, lapsed_by=499, error="too early")]) == {"a"}
    assert await record(store, "a") == before
    assert await finish(store, [make(job, lapsed_by=500, error="lapsed")]) == set()
    assert (await record(store, "a")).error == "lapsed"


@ways
async def test_conditions_within_one_call(store: Store, finish: Finish) -> None:
    """Each outcome of a call has its own condition; those that are lost keep no other from being written."""
    await store.add([new(name) for name in "abcdefgh"])
    first = (await claim(store, owner="other", until=500, room=4)).jobs
    second = (await claim(store, owner="other", until=600, room=4)).jobs
    outcomes: list[Outcome] = [
        complete(first[0], lapsed_by=499),
        again(first[1], lapsed_by=500),
        complete(first[2], lapsed_by=500, keep=None),
        again(first[3], lapsed_by=499),
        complete(second[0], lapsed_by=500),
        again(second[1], lapsed_by=599),
        complete(second[2]),
        again(second[3], lapsed_by=600),
    ]
    assert await finish(store, outcomes) == {"a", "d", "e", "f"}
    found = {name: (await store.status(name, now=0)).value for name in "abcdefgh"}
    lost = dict.fromkeys("adef", "running")
    assert found == lost | {"b": "pending", "c": "not_found", "g": "succeeded", "h": "pending"}


@ways
async def test_many_outcomes_of_which_some_are_lost(store: Store, finish: Finish) -> None:
    """However many outcomes there are, the lost ones are told, and only they."""
    await store.add([new(str(number)) for number in range(700)])
    jobs = (await claim(store, room=700)).jobs
    gone = jobs[::7]
    assert await store.finish([again(job) for job in gone]) == set()
    outcomes = [complete(job) if number % 2 else again(job) for number, job in enumerate(jobs)]
    assert await finish(store, outcomes) == set(ids(gone))
    assert {await store.status(job.id, now=0) for job in jobs[1::2] if job not in gone} == {
        JobStatus.SUCCEEDED
    }
    assert await store.claims_of("mine") == []


async def test_renewal_beats_takeover(store: Store) -> None:
    """A lease that was renewed after it was seen to lapse cannot be taken over."""
    job = await running(store, owner="other", until=500)
    assert (await claim(store, now=600)).lapsed == [lapsed(job)]
    store.renew([(job.id, job.fence)], until=800)
    assert await store.finish([again(job, lapsed_by=600)]) == {"a"}
    assert await store.finish([complete(job)]) == set()


async def test_takeover_happens_once(store: Store) -> None:
    """Of two that take a lapsed claim over, one wins; and the old owner has lost."""
    job = await running(store, owner="other", until=500)
    takeover = again(job, due_at=600, attempt=0, crashes=1, lapsed_by=600)
    assert await store.finish([takeover]) == set()
    assert await store.finish([takeover]) == {"a"}
    assert await store.finish([complete(job)]) == {"a"}
    (claimed,) = (await claim(store, now=600)).jobs
    assert (claimed.attempt, claimed.crashes) == (1, 1)


# -- life: what is kept ----------------------------------------------------------------------------


@ways
async def test_completed_without_keep_is_gone(store: Store, finish: Finish) -> None:
    """A completed job that nothing keeps is gone at once."""
    job = await running(store)
    await finish(store, [complete(job, keep=None)])
    assert await store.status("a", now=0) is JobStatus.NOT_FOUND
    assert await store.get("a", now=0) is None
    assert await store.next_expiry() is None


@ways
async def test_kept_without_payload(store: Store, finish: Finish) -> None:
    """A job may be kept without its payload, with all else."""
    with_payload, without = await running(store, "with"), await running(store, "without")
    outcomes = [complete(with_payload), complete(without, keep=Keep(until=None, payload=False))]
    await finish(store, outcomes)
    assert (await record(store, "with")).payload == b"{}"
    assert await record(store, "without") == msgspec.structs.replace(
        await record(store, "with"), id="without", payload=None, fence=without.fence
    )


async def test_kept_for_ever(store: Store) -> None:
    """A job that is kept without end never expires."""
    job = await running(store)
    await store.finish([complete(job, keep=Keep(until=None, payload=False))])
    assert await store.next_expiry() is None
    assert await store.expire(now=FAR, limit=10) == 0
    assert await store.status("a", now=FAR) is JobStatus.SUCCEEDED


async def test_error_none_leaves_the_last(store: Store) -> None:
    """An outcome without an error leaves the last one; one with an error replaces it."""
    seen = []
    await store.add([new("a")])
    for error in ("first", None, "second", None):
        job = await claim_one(store)
        await store.finish([again(job, due_at=0, error=error)])
        seen.append((await record(store, "a")).error)
    assert seen == ["first", "first", "second", "second"]
    await store.finish([complete(await claim_one(store), error=None)])
    assert (await record(store, "a")).error == "second"


async def test_error_of_completion(store: Store) -> None:
    """The completion's error replaces that of attempts before; an empty text is an error too."""
    job = await running(store)
    await store.finish([again(job, due_at=0, error="first")])
    await store.finish([complete(await claim_one(store), error="")])
    assert (await record(store, "a")).error == ""


async def test_counters_are_absolute(store: Store) -> None:
    """Counters become what the outcome says, not more by it."""
    job = await running(store)
    await store.finish([again(job, due_at=0, attempt=7, crashes=5)])
    job = await claim_one(store)
    assert (job.attempt, job.crashes) == (8, 5)
    await store.finish([complete(job, attempt=2, crashes=1)])
    found = await record(store, "a")
    assert (found.attempt, found.crashes) == (2, 1)


# -- life: renew -----------------------------------------------------------------------------------


async def lease_end(store: Store) -> int | None:
    """Return when the leases that others hold end, as an owner of nothing sees it."""
    return (await claim(store, lane(room=0), owner="nobody", now=0)).next_at


async def test_renew(store: Store) -> None:
    """A renewal extends the leases it names, and no other."""
    await store.add([new("a"), new("b")])
    a, b = (await claim(store, until=500)).jobs
    assert store.renew([(a.id, a.fence)], until=700) == set()
    assert await lease_end(store) == 500
    assert store.renew([(a.id, a.fence), (b.id, b.fence)], until=800) == set()
    assert await lease_end(store) == 800


async def test_renew_never_shortens(store: Store) -> None:
    """A lease that ends later than the renewal stays as long."""
    job = await running(store, until=500)
    assert store.renew([(job.id, job.fence)], until=400) == set()
    assert await lease_end(store) == 500


async def test_renew_tells_what_is_lost(store: Store) -> None:
    """Claims that are no longer held are returned and not extended; the others are."""
    held, other, pending, ended = [await running(store, name, until=500) for name in "abcd"]
    await store.finish([again(pending), complete(ended)])
    claims = [
        (held.id, held.fence),
        (other.id, other.fence + 100),
        (pending.id, pending.fence),
        (ended.id, ended.fence),
        ("unknown", 1),
    ]
    assert store.renew(claims, until=700) == {"b", "c", "d", "unknown"}
    assert await lease_end(store) == 500
    await store.finish([complete(other)])
    assert await lease_end(store) == 700
    assert (await record(store, "c")).due_at == at(300)


async def test_renew_of_nothing(store: Store) -> None:
    """No claims lose nothing."""
    assert store.renew([], until=700) == set()


async def test_renew_of_a_generator(store: Store) -> None:
    """The claims may be any iterable."""
    job = await running(store)
    assert store.renew(((job_id, job.fence) for job_id in ("a", "b")), until=9) == {"b"}


async def test_renew_in_a_thread(store: Store) -> None:
    """A renewal works from any thread, also beside adds that are on their way."""
    job = await running(store, until=500)
    renewal = asyncio.to_thread(store.renew, [(job.id, job.fence)], until=700)
    adds = [store.add([new(f"job {number}")]) for number in range(20)]
    assert (await asyncio.gather(renewal, *adds))[0] == set()
    assert await lease_end(store) == 700
    assert len((await claim(store, room=100)).jobs) == 20


async def test_renew_blocks_until_it_is_done(store: Store) -> None:
    """A renewal needs no event loop: it is done when it returns, with the loop blocked."""
    job = await running(store, until=500)
    lost: list[set[str]] = []
    thread = threading.Thread(target=lambda: lost.append(store.renew([(job.id, job.fence)], until=700)))
    thread.start()
    thread.join(timeout=10)
    assert lost == [set()]


# -- life: listen ----------------------------------------------------------------------------------


async def test_listener_hears_of_adds(store: Store) -> None:
    """The listener is called for each add, in the thread of the event loop."""
    called = asyncio.Event()
    threads = set()

    def listener() -> None:
        threads.add(threading.get_ident())
        called.set()

    store.listen(listener)
    for number in range(3):
        called.clear()
        await store.add([new(str(number))])
        async with asyncio.timeout(10):
            await called.wait()
    assert threads == {threading.get_ident()}


async def test_listener_finds_what_was_added(store: Store) -> None:
    """When the listener is called, the job can be claimed."""
    claims: asyncio.Queue[asyncio.Task[Claim]] = asyncio.Queue()
    store.listen(lambda: claims.put_nowait(asyncio.create_task(claim(store))))
    await store.add([new("a")])
    async with asyncio.timeout(10):
        found = await (await claims.get())
    assert ids(found.jobs) == ["a"]


async def test_unlisten(store: Store) -> None:
    """A listener that was taken away is not called; taking it away can be repeated."""
    first: list[str] = []
    second = asyncio.Event()

    def forgotten() -> None:
        first.append("called")

    store.listen(forgotten)
    store.unlisten(forgotten)
    store.unlisten(forgotten)
    store.listen(second.set)
    await store.add([new("a")])
    async with asyncio.timeout(10):
        await second.wait()
    assert first == []


# -- queries ---------------------------------------------------------------------------------------


async def test_status_through_a_life(store: Store) -> None:
    """The status follows the job; the record has the same."""
    seen = []

    async def look() -> None:
        status = await store.status("a", now=0)
        found = await store.get("a", now=0)
        assert status is (JobStatus.NOT_FOUND if found is None else found.status)
        seen.append(status.value)

    await look()
    await store.add([new("a")])
    await look()
    job = await claim_one(store)
    await look()
    await store.finish([again(job, due_at=0)])
    await look()
    job = await claim_one(store)
    await store.finish([complete(job)])
    await look()
    assert seen == ["not_found", "pending", "running", "pending", "succeeded"]


async def test_expired_is_hidden_before_it_is_removed(store: Store) -> None:
    """From its expiry on a job is not found, whether it has been removed or not."""
    job = await running(store)
    await store.finish([complete(job, keep=Keep(until=500, payload=True))])
    assert await store.status("a", now=499) is JobStatus.SUCCEEDED
    assert await store.get("a", now=499) is not None
    assert await store.status("a", now=500) is JobStatus.NOT_FOUND
    assert await store.get("a", now=500) is None
    assert await store.status("a", now=499) is JobStatus.SUCCEEDED


async def test_kinds(store: Store) -> None:
    """Kinds are those of pending jobs, due or not, each once."""
    assert await store.kinds() == []
    await store.add(
        [
            new("a", "T"),
            new("b", "T", due_at=FAR),
            new("c", "T", queue="r", due_at=FAR),
            new("d", "A", queue="r"),
            new("e", "U"),
        ]
    )
    assert sorted(await store.kinds()) == [("q", "T"), ("q", "U"), ("r", "A"), ("r", "T")]
    (job,) = (await claim(store, lane("U"))).jobs
    assert sorted(await store.kinds()) == [("q", "T"), ("r", "A"), ("r", "T")]
    await store.finish([again(job)])
    assert ("q", "U") in await store.kinds()


async def kept_until(store: Store, *instants: int) -> None:
    """Complete a job for each instant, to be kept until then; its id is the instant."""
    for instant in instants:
        job = await running(store, str(instant))
        await store.finish([complete(job, keep=Keep(until=instant, payload=True))])


async def test_next_expiry(store: Store) -> None:
    """The next expiry is the earliest one, also of what has expired and is not removed yet."""
    assert await store.next_expiry() is None
    await kept_until(store, 700, 500, 600)
    assert await store.next_expiry() == 500
    await store.expire(now=500, limit=10)
    assert await store.next_expiry() == 600


async def test_expire(store: Store) -> None:
    """Jobs that have expired by now are removed and counted; the others stay."""
    await kept_until(store, 500, 501, 502)
    await store.add([new("pending")])
    assert await store.expire(now=499, limit=10) == 0
    assert await store.expire(now=501, limit=10) == 2
    assert [await store.status(str(instant), now=0) for instant in (500, 501, 502)] == [
        JobStatus.NOT_FOUND,
        JobStatus.NOT_FOUND,
        JobStatus.SUCCEEDED,
    ]
    assert await store.status("pending", now=0) is JobStatus.PENDING
    assert await store.expire(now=501, limit=10) == 0


async def test_expire_in_portions(store: Store) -> None:
    """At most the limit is removed at a time, until nothing is left."""
    await kept_until(store, *range(500, 505))
    assert [await store.expire(now=600, limit=2) for _ in range(4)] == [2, 2, 1, 0]


# -- entirely or not at all ------------------------------------------------------------------------


async def test_cancelled_add(store: Store) -> None:
    """An add whose caller is cancelled at any moment stores all its jobs or none."""
    for turns in MOMENTS:
        names = [f"{turns}-{number}" for number in range(3)]
        await cancelled_after(turns, store.add([new(name) for name in names]))
        await store.add([])  # writes come in their order: what was begun is done now
        assert len({await store.status(name, now=0) for name in names}) == 1


async def test_cancelled_claim(store: Store) -> None:
    """A claim whose caller is cancelled at any moment either returns its jobs or takes none."""
    for turns in MOMENTS:
        await store.add([new(f"{turns}-{number}") for number in range(3)])
        found = await cancelled_after(turns, claim(store, owner=str(turns), until=FAR))
        await store.add([])
        assert list(found.jobs if found else ()) == list(await store.claims_of(str(turns)))
        await claim(store, owner="the rest")


async def test_cancelled_finish(store: Store) -> None:
    """Outcomes whose caller is cancelled at any moment are all written, and it hears so, or none."""
    for turns in MOMENTS:
        names = [f"{turns}-{number}" for number in range(3)]
        await store.add([new(name) for name in names])
        jobs = (await claim(store)).jobs
        lost = await cancelled_after(turns, store.finish([complete(job) for job in jobs]))
        await store.add([])
        expected = JobStatus.RUNNING if lost is None else JobStatus.SUCCEEDED
        assert [await store.status(name, now=0) for name in names] == [expected] * 3


async def test_cancelled_expire(store: Store) -> None:
    """An expiry whose caller is cancelled at any moment removes all it may or nothing."""
    for turns in MOMENTS:
        await kept_until(store, 500, 501, 502)
        await cancelled_after(turns, store.expire(now=600, limit=10))
        await store.add([])
        assert len({await store.status(name, now=0) for name in ("500", "501", "502")}) == 1
        await store.expire(now=600, limit=10)


async def test_concurrent_calls(store: Store) -> None:
    """Calls that are made at the same time each do what they would do alone."""
    await store.add([new(f"old {number}") for number in range(10)])
    first, second, third = await asyncio.gather(
        claim(store, owner="first", room=4),
        claim(store, owner="second", room=4),
        claim(store, owner="third", room=4),
    )
    claimed = [*first.jobs, *second.jobs, *third.jobs]
    assert sorted(ids(claimed)) == sorted(f"old {number}" for number in range(10))
    assert len({first.jobs[0].fence, second.jobs[0].fence, third.jobs[0].fence}) == 3
    first_lost, second_lost, _, third_lost, late = await asyncio.gather(
        store.finish([complete(job) for job in first.jobs]),
        store.finish([again(job) for job in second.jobs]),
        store.add([new("new")]),
        store.finish([complete(job) for job in third.jobs]),
        store.finish([complete(job) for job in third.jobs]),
    )
    assert (first_lost, second_lost, third_lost) == (set(), set(), set())
    assert late == set(ids(third.jobs))


async def test_next_at_beside_lapsed_claims(store: Store) -> None:
    """Next to claims that have lapsed, a claim still tells when the next lease of another ends."""
    await store.add([new("a"), new("b")])
    await claim(store, owner="other", room=1, until=500)
    await claim(store, owner="other", room=1, until=900)
    found = await claim(store, now=600)
    assert (ids(claim.job for claim in found.lapsed), found.next_at) == (["a"], 900)


async def test_a_kept_id_is_not_added_again(store: Store) -> None:
    """Saving again what has run and is kept does not run it a second time."""
    await store.add([new("a")])
    (job,) = (await claim(store)).jobs
    await store.finish([complete(job, keep=Keep(until=None, payload=True))])
    await store.add([new("a"), new("b")], again=True)
    assert await store.status("a", now=0) is JobStatus.SUCCEEDED
    assert ids((await claim(store)).jobs) == ["b"]


async def test_listeners_come_and_go_alone(store: Store) -> None:
    """Several listen; the one that leaves takes no other with it."""
    first, second = asyncio.Event(), asyncio.Event()
    forget = first.set
    store.listen(forget)
    store.listen(second.set)
    store.unlisten(forget)
    await store.add([new("a")])
    with anyio.fail_after(20):
        await second.wait()
    assert not first.is_set()
