"""Adding one job unless another is in its way: by an id of the caller's own, by a unique key."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from backlite_async import InvalidState
from backlite_async._job import JobStatus, Keep, Limit, More, NewJob, Place, Unique
from backlite_async.stores import Store

from .test_contract import again, at, claim, claim_one, complete, ids, new, record
from .test_control import asked_for, let_in, within

HOUR = 3_600_000
BY_KEY = Unique(key="u")
REPLACE_KEY = Unique(key="u", replace_key=True)
OWN_ID = Unique(own_id=True)
REPLACE_OWN = Unique(own_id=True, replace_own=True)


async def add(
    store: Store, job_id: str, unique: Unique = BY_KEY, *, now: int = 0, again: bool = False, **changes: Any
) -> str | None:
    """Add a job that is created now and due now, unless another is in its way."""
    job = new(job_id, **({"created_at": now, "due_at": now} | changes))
    return await store.add_unique(job, unique, now=now, again=again)


async def end(store: Store, job_id: str, keep: Keep | None = None) -> None:
    """Claim the one job that there is, and complete it."""
    job = await claim_one(store, now=HOUR)
    assert job.id == job_id
    assert await store.finish([complete(job, keep=keep)]) == set()


# -- by key ----------------------------------------------------------------------------------------


async def test_first_of_a_key_is_added(store: Store) -> None:
    """Without another in its way a job is added as any other."""
    assert await add(store, "a") is None
    assert await store.status("a", now=0) is JobStatus.PENDING
    assert (await record(store, "a")).key is None


async def test_unique_job_is_added_with_all_it_has(store: Store) -> None:
    """What `add` stores, `add_unique` stores."""
    more = More(key="k", turns=1, timeout=1500, parent="p", meta='{"n":1}', tags='["x"]')
    plain = new("b", payload=b"[7]", priority=4, max_attempts=9, created_at=5, due_at=8, more=more)
    await store.add([plain])
    unique = new("a", payload=b"[7]", priority=4, max_attempts=9, created_at=5, due_at=8, more=more)
    assert await store.add_unique(unique, BY_KEY, now=5) is None
    first, second = await record(store, "a"), await record(store, "b")
    assert asked_for(first) == asked_for(second) | {"unique": BY_KEY.key}


async def test_pending_job_keeps_another_out(store: Store) -> None:
    """While a job of the key is pending, nothing is added, and its id is the answer."""
    assert await add(store, "a", payload=b"[1]") is None
    before = await record(store, "a")
    assert await add(store, "b", payload=b"[2]", now=7) == "a"
    assert await store.get("b", now=7) is None
    assert await record(store, "a") == before


async def test_running_job_keeps_another_out(store: Store) -> None:
    """So does one that runs."""
    await add(store, "a")
    await claim_one(store)
    assert await add(store, "b") == "a"
    assert await store.get("b", now=0) is None


async def test_rescheduled_job_keeps_another_out(store: Store) -> None:
    """So does one that is to run again."""
    await add(store, "a")
    await store.finish([again(await claim_one(store))])
    assert await add(store, "b") == "a"


@pytest.mark.parametrize("keep", [None, Keep(until=None, payload=True)])
async def test_completed_job_keeps_nobody_out(store: Store, keep: Keep | None) -> None:
    """A job that has ended, kept or not, is in nobody's way."""
    await add(store, "a")
    await end(store, "a", keep)
    assert await add(store, "b") is None
    assert await add(store, "c") == "b"


async def test_cancelled_job_keeps_nobody_out(store: Store) -> None:
    """Nor is one that was cancelled."""
    await add(store, "a")
    await store.cancel(["a"], now=10)
    assert await add(store, "b") is None


async def test_last_one_added_is_in_the_way(store: Store) -> None:
    """A job that was added anew takes over the key."""
    await add(store, "a")
    await end(store, "a")
    await add(store, "b")
    assert await add(store, "c") == "b"
    await end(store, "b")
    assert await add(store, "d") is None


async def test_unique_in_its_queue(store: Store) -> None:
    """Another queue, another key, and what was added without one, are in nobody's way."""
    await store.add([new("plain")])
    assert await add(store, "a") is None
    assert await add(store, "b", queue="r") is None
    assert await add(store, "c", Unique(key="v")) is None
    assert await add(store, "d") == "a"
    assert await add(store, "e", queue="r") == "b"


async def test_unique_over_tasks(store: Store) -> None:
    """A key is of a queue, whatever the task."""
    await add(store, "a", task="T")
    assert await add(store, "b", task="U") == "a"


async def test_unique_key_is_not_the_key_that_takes_turns(store: Store) -> None:
    """Uniqueness has nothing to do with the key of concurrency."""
    assert await add(store, "a", more=More(key="u")) is None
    assert await add(store, "b", Unique(key="v"), more=More(key="u")) is None
    await store.add([new("c", more=More(key="w"))])
    assert await add(store, "d", Unique(key="w")) is None


async def test_many_at_once_make_one(store: Store) -> None:
    """Of any number of calls at the same time one adds its job, and the others get its id."""
    answers = await asyncio.gather(*(add(store, str(number)) for number in range(50)))
    added = [str(number) for number, answer in enumerate(answers) if answer is None]
    assert len(added) == 1
    assert {answer for answer in answers if answer is not None} == set(added)
    assert ids((await claim(store)).jobs) == added


async def test_keys_are_data(store: Store) -> None:
    """Any text is a key, and differs from any other."""
    for number, key in enumerate(["", "'", "K", "k", "a b", "ä", "a\n", '"', "[]", "1"]):
        assert await add(store, str(number), Unique(key=key)) is None, key
        assert await add(store, "x", Unique(key=key)) == str(number), key


# -- within ----------------------------------------------------------------------------------------


def lasting(millis: int, *, replace: bool = False) -> Unique:
    return Unique(key="u", within=millis, replace_key=replace)


@pytest.mark.parametrize("keep", [None, Keep(until=None, payload=True)])
async def test_within(store: Store, keep: Keep | None) -> None:
    """Within the time given, the last one that was added is in the way, though it has ended."""
    await add(store, "a", lasting(HOUR), now=10)
    await end(store, "a", keep)
    assert await add(store, "b", lasting(HOUR), now=10 + HOUR - 1) == "a"
    assert await store.get("b", now=10) is None
    assert await add(store, "b", lasting(HOUR), now=10 + HOUR) is None


async def test_within_is_asked_of_both(store: Store) -> None:
    """The time is the shorter one of the one that is there and the new one."""
    await add(store, "a", lasting(HOUR), now=10)
    await end(store, "a")
    assert await add(store, "b", lasting(100), now=109) == "a"
    assert await add(store, "b", lasting(100), now=110) is None
    await end(store, "b")
    assert await add(store, "c", lasting(HOUR), now=209) == "b"
    assert await add(store, "c", lasting(HOUR), now=210) is None


async def test_without_within_only_live_ones_count(store: Store) -> None:
    """One that was added without a time, or a new one without, looks at live jobs only."""
    await add(store, "a", BY_KEY, now=10)
    await end(store, "a")
    assert await add(store, "b", lasting(HOUR), now=11) is None
    await end(store, "b")
    assert await add(store, "c", BY_KEY, now=12) is None


async def test_live_job_counts_beyond_its_time(store: Store) -> None:
    """A live job is in the way however long ago it was added."""
    await add(store, "a", lasting(100), now=10)
    assert await add(store, "b", lasting(100), now=10 + HOUR) == "a"


async def test_kept_out_does_not_prolong(store: Store) -> None:
    """The time counts from the add of the one that is there, not from the last try."""
    await add(store, "a", lasting(100), now=10)
    await end(store, "a")
    assert await add(store, "b", lasting(100), now=100) == "a"
    assert await add(store, "b", lasting(100), now=110) is None


async def test_within_outlives_the_upkeep(store: Store) -> None:
    """Removing what has expired forgets no key too early."""
    await add(store, "a", lasting(HOUR), now=10)
    await end(store, "a")
    await add(store, "x", Unique(key="live"), now=10)
    for now in (11, HOUR // 2, HOUR):
        await store.expire(now=now, limit=100)
    assert await add(store, "b", lasting(HOUR), now=10 + HOUR - 1) == "a"
    await store.expire(now=10 + 100 * HOUR, limit=100)
    assert await add(store, "b", lasting(HOUR), now=10 + HOUR) is None
    assert await add(store, "y", Unique(key="live"), now=10 + 100 * HOUR) == "x"


# -- replace ---------------------------------------------------------------------------------------


async def test_replace_a_pending_job(store: Store) -> None:
    """A pending one gets task, payload and due time of the new one, and stays what it is otherwise."""
    more = More(key="k", timeout=1500, parent="p", meta='{"n":1}', tags='["x"]')
    await add(store, "a", payload=b"[1]", priority=2, max_attempts=7, more=more, now=10)
    before = await record(store, "a")
    answer = await add(
        store, "b", REPLACE_KEY, now=50, task="U", payload=b"[2]", priority=9, max_attempts=1, due_at=70
    )
    assert answer == "a"
    assert await store.get("b", now=50) is None
    after = await record(store, "a")
    assert after == msgspec.structs.replace(before, task="U", payload=b"[2]", due_at=at(70))


async def test_replaced_job_is_due_as_it_is_told(store: Store) -> None:
    """It can be claimed from its new due time on, and its wait is the new one's."""
    await add(store, "a")
    await add(store, "b", REPLACE_KEY, now=50, due_at=300, waits_from=50)
    assert (await claim(store, now=299)).next_at == 300
    job = await claim_one(store, now=300)
    assert (job.id, job.scheduled_at, job.waits_from) == ("a", 300, 50)


async def test_replaced_job_can_be_due_earlier(store: Store) -> None:
    """A job for later becomes one for now."""
    await add(store, "a", due_at=10_000)
    await add(store, "b", REPLACE_KEY, now=50)
    assert (await claim_one(store, now=50)).id == "a"


async def test_replace_a_retry_keeps_its_attempts(store: Store) -> None:
    """Attempts, crashes and the last error stay."""
    await add(store, "a")
    await store.finish([again(await claim_one(store), crashes=1, error="no")])
    await add(store, "b", REPLACE_KEY, now=50, payload=b"[2]")
    job = await record(store, "a")
    assert (job.attempt, job.crashes, job.error, job.payload) == (1, 1, "no", b"[2]")


async def test_replace_keeps_a_running_job(store: Store) -> None:
    """A running one is kept as it is."""
    await add(store, "a", payload=b"[1]")
    await claim_one(store)
    before = await record(store, "a")
    assert await add(store, "b", REPLACE_KEY, now=50, payload=b"[2]") == "a"
    assert await record(store, "a") == before


async def test_replace_keeps_a_completed_job(store: Store) -> None:
    """So is one that has ended and is in the way by its time, kept or gone."""
    await add(store, "a", lasting(HOUR), payload=b"[1]")
    await end(store, "a", Keep(until=None, payload=True))
    before = await record(store, "a")
    assert await add(store, "b", lasting(HOUR, replace=True), now=50, payload=b"[2]") == "a"
    assert await record(store, "a") == before
    await add(store, "c", Unique(key="v", within=HOUR))
    await end(store, "c")
    assert await add(store, "d", Unique(key="v", within=HOUR, replace_key=True), now=50) == "c"
    assert await store.get("c", now=50) is None
    assert await store.get("d", now=50) is None


async def test_replace_does_not_take_over_the_key(store: Store) -> None:
    """The key stays with the job that was added, at the time when it was."""
    await add(store, "a", lasting(100), now=10)
    await add(store, "b", lasting(100, replace=True), now=60)
    await end(store, "a")
    assert await add(store, "c", lasting(100), now=109) == "a"
    assert await add(store, "c", lasting(100), now=110) is None


def turn(job_id: str, **changes: Any) -> NewJob:
    return new(job_id, more=More(key="k", turns=1), **changes)


async def test_replace_of_one_that_waits_for_its_turn(store: Store) -> None:
    """It waits on, with what is new; its place is by its new time."""
    await store.add([turn("first")])
    await store.add_unique(turn("a", due_at=10, payload=b"[1]"), BY_KEY, now=10)
    await store.add([turn("b", due_at=20, created_at=20)])
    assert await add(store, "x", REPLACE_KEY, now=30, payload=b"[2]") == "a"
    assert await let_in(store) == ["first"]
    await store.cancel(["first"], now=40)
    assert await let_in(store) == ["b"]
    await store.cancel(["b"], now=50)
    assert await let_in(store) == ["a"]
    assert (await record(store, "a")).payload == b"[2]"


async def test_replace_for_later_of_one_that_waits_for_its_turn(store: Store) -> None:
    """For later, it waits for that time, like any other job."""
    await store.add([turn("first")])
    await store.add_unique(turn("a"), BY_KEY, now=0)
    assert await add(store, "x", REPLACE_KEY, now=30, due_at=500) == "a"
    assert await let_in(store) == ["first"]
    assert await let_in(store, now=500) == ["first", "a"]


async def test_replace_for_later_leaves_the_turn_to_the_next(store: Store) -> None:
    """Where one that has its turn is replaced by one for later, the next is let in."""
    await store.add_unique(turn("a"), BY_KEY, now=0)
    await store.add([turn("b"), turn("c")])
    await add(store, "x", REPLACE_KEY, now=30, due_at=500)
    assert await let_in(store, now=30) == ["b"]
    job = await claim_one(store, now=30)
    assert (job.scheduled_at, job.waits_from) == (0, 30)


async def test_replace_for_now_keeps_the_turn(store: Store) -> None:
    """Replaced for now, it keeps its turn, and nobody else is let in."""
    await store.add_unique(turn("a"), BY_KEY, now=0)
    await store.add([turn("b"), turn("c")])
    await add(store, "x", REPLACE_KEY, now=30)
    assert await let_in(store, now=30) == ["a"]


async def test_listener_hears_of_unique_jobs(store: Store) -> None:
    """A job that was added, or is due earlier than it was, is told."""
    heard = asyncio.Event()
    store.listen(heard.set)
    await add(store, "a", due_at=1000)
    await asyncio.wait_for(heard.wait(), 10)
    heard.clear()
    await add(store, "b", REPLACE_KEY)
    await asyncio.wait_for(heard.wait(), 10)
    store.unlisten(heard.set)


# -- again -----------------------------------------------------------------------------------------


async def test_again_is_not_in_its_own_way(store: Store) -> None:
    """A job whose first try was stored is found to be that, and not added twice."""
    await add(store, "a")
    before = await record(store, "a")
    assert await add(store, "a", again=True) is None
    assert await record(store, "a") == before
    await claim_one(store)
    assert await add(store, "a", again=True) is None


async def test_again_of_a_kept_job(store: Store) -> None:
    """Also where it has ended since, and is kept."""
    await add(store, "a")
    await end(store, "a", Keep(until=None, payload=True))
    assert await add(store, "a", again=True) is None
    assert await store.status("a", now=0) is JobStatus.SUCCEEDED


@pytest.mark.parametrize("unique", [BY_KEY, lasting(HOUR)])
async def test_again_of_a_job_that_is_gone(store: Store, unique: Unique) -> None:
    """Also where it has ended since, and is gone: the key still tells."""
    await add(store, "a", unique)
    await end(store, "a")
    assert await add(store, "a", unique, again=True) is None
    assert (await claim(store)).jobs == []


async def test_again_of_what_was_not_added(store: Store) -> None:
    """What is not there is added, or kept out, as at the first time."""
    assert await add(store, "a", again=True) is None
    assert await store.status("a", now=0) is JobStatus.PENDING
    assert await add(store, "b", again=True) == "a"
    assert await store.get("b", now=0) is None


async def test_again_of_a_replacement(store: Store) -> None:
    """A replacement that is made twice is made once."""
    await add(store, "a", payload=b"[1]")
    for repeated in (False, True):
        assert await add(store, "b", REPLACE_KEY, payload=b"[2]", now=50, again=repeated) == "a"
    assert (await record(store, "a")).payload == b"[2]"


# -- by an id of the caller's own ------------------------------------------------------------------


async def test_own_id_is_added(store: Store) -> None:
    """An id that nobody has can be had."""
    assert await add(store, "order-42", OWN_ID) is None
    assert (await claim_one(store)).id == "order-42"


async def test_own_id_of_a_live_job(store: Store) -> None:
    """A live job of that id, pending or running, however it was added, is in its way."""
    await store.add([new("a", payload=b"[1]")])
    before = await record(store, "a")
    assert await add(store, "a", OWN_ID, payload=b"[2]") == "a"
    assert await record(store, "a") == before
    await claim_one(store)
    assert await add(store, "a", OWN_ID, payload=b"[2]") == "a"
    assert (await record(store, "a")).payload == b"[1]"


async def test_own_id_of_a_kept_job(store: Store) -> None:
    """So is a completed one as long as it is kept."""
    await add(store, "a", OWN_ID)
    await end(store, "a", Keep(until=500, payload=True))
    assert await add(store, "a", OWN_ID, now=499) == "a"
    assert await add(store, "a", REPLACE_OWN, now=499) == "a"
    assert await store.status("a", now=499) is JobStatus.SUCCEEDED


async def test_own_id_of_an_expired_job(store: Store) -> None:
    """One that has expired is in nobody's way, though it was not removed yet."""
    await add(store, "a", OWN_ID)
    await end(store, "a", Keep(until=500, payload=True))
    assert await add(store, "a", OWN_ID, now=500) is None
    assert await store.status("a", now=500) is JobStatus.PENDING
    await store.expire(now=500, limit=10)
    job = await claim_one(store, now=600)
    await store.finish([complete(job, keep=Keep(until=900, payload=False))])
    assert (await record(store, "a", now=600)).payload is None


async def test_own_id_of_a_job_that_is_gone(store: Store) -> None:
    """An id can be had again after its job."""
    await add(store, "a", OWN_ID)
    await end(store, "a")
    assert await add(store, "a", OWN_ID) is None


async def test_replace_by_own_id(store: Store) -> None:
    """A pending one of that id is replaced; a running one is kept."""
    await add(store, "a", OWN_ID, payload=b"[1]")
    assert await add(store, "a", REPLACE_OWN, payload=b"[2]", now=40, due_at=60) == "a"
    job = await claim_one(store)
    assert (job.payload, job.scheduled_at, job.created_at) == ("[2]", 60, 0)
    assert await add(store, "a", REPLACE_OWN, payload=b"[3]") == "a"
    assert (await record(store, "a")).payload == b"[2]"


async def test_replace_by_own_id_moves_to_another_queue(store: Store) -> None:
    """It goes where the new one belongs: its turn goes to the next in the queue that it leaves."""
    own = Unique(own_id=True, replace_own=True)
    await store.add([turn("a"), turn("b"), turn("c"), turn("r", queue="r"), turn("s", queue="r")])
    assert await store.add_unique(turn("a", queue="r", due_at=30, created_at=30), own, now=30) == "a"
    assert await let_in(store) == ["r", "a", "b"]
    limits = [Limit(queue=queue, per_key=1) for queue in "qr"]
    jobs = (await within(store, limits, now=200)).jobs
    assert sorted((job.queue, job.id) for job in jobs) == [("q", "b"), ("r", "r")]
    await store.finish([complete(job, frees=Place(job.queue, job.key, 300)) for job in jobs])
    assert sorted(await let_in(store, now=300)) == ["c", "s"]
    await store.cancel(["c", "s"], now=400)
    assert await let_in(store, now=400) == ["a"]


async def test_job_that_moved_takes_no_turn_where_it_was(store: Store) -> None:
    """Turns are of a queue and a key: one that has moved counts where it is."""
    own = Unique(own_id=True, replace_own=True)
    await store.add([turn("a")])
    await store.add_unique(turn("a", queue="r"), own, now=0)
    await store.add([turn("b"), turn("c", queue="r")])
    limits = [Limit(queue=queue, per_key=1) for queue in "qr"]
    assert ids((await within(store, limits)).jobs) == ["a", "b"]


async def test_one_that_waits_moves_to_another_queue(store: Store) -> None:
    """What waits for a turn is let in where it goes, as nobody knows of its turns there."""
    own = Unique(own_id=True, replace_own=True)
    await store.add([turn("a"), turn("b"), turn("c")])
    assert await store.add_unique(turn("b", queue="r", due_at=30, created_at=30), own, now=30) == "b"
    assert await let_in(store) == ["a", "b"]


async def test_replace_of_one_for_later_lets_in_one(store: Store) -> None:
    """It may be one that has its turn, where the wall clock was set back."""
    await store.add_unique(turn("later", due_at=500), BY_KEY, now=0)
    await store.add([turn("a"), turn("b")])
    await add(store, "x", REPLACE_KEY, now=30, due_at=600)
    assert await let_in(store) == ["a", "b"]


async def test_own_id_again(store: Store) -> None:
    """It is ours if it was created when ours was, with our payload, as far as it has one."""
    await add(store, "a", OWN_ID, payload=b"[1]", now=5)
    assert await add(store, "a", OWN_ID, payload=b"[1]", now=5, again=True) is None
    assert await add(store, "a", OWN_ID, payload=b"[2]", now=5, again=True) == "a"
    assert await add(store, "a", OWN_ID, payload=b"[1]", now=6, again=True) == "a"
    await end(store, "a", Keep(until=None, payload=False))
    assert await add(store, "a", OWN_ID, payload=b"[2]", now=5, again=True) is None
    assert await add(store, "a", OWN_ID, payload=b"[1]", now=6, again=True) == "a"


async def test_own_id_again_where_it_was_not_added(store: Store) -> None:
    """What is not there is added."""
    assert await add(store, "a", OWN_ID, again=True) is None
    assert await store.status("a", now=0) is JobStatus.PENDING


async def test_many_of_one_id_make_one(store: Store) -> None:
    """Of any number of calls at the same time one adds its job."""
    answers = await asyncio.gather(
        *(add(store, "a", OWN_ID, payload=b"[%d]" % number) for number in range(50))
    )
    assert (answers.count(None), answers.count("a")) == (1, 49)
    assert len((await claim(store)).jobs) == 1


# -- by both ---------------------------------------------------------------------------------------


async def test_id_is_looked_at_first(store: Store) -> None:
    """Where one is in the way by its id, it is the answer, and the one that may be replaced."""
    await add(store, "a", Unique(own_id=True, key="u"), payload=b"[1]")
    await add(store, "b", Unique(own_id=True, key="v"), payload=b"[1]")
    both = Unique(own_id=True, key="v", replace_key=True)
    assert await add(store, "a", both, payload=b"[2]") == "a"
    assert {(await record(store, job_id)).payload for job_id in "ab"} == {b"[1]"}
    both = Unique(own_id=True, replace_own=True, key="v")
    assert await add(store, "a", both, payload=b"[2]") == "a"
    assert (await record(store, "a")).payload == b"[2]"
    assert (await record(store, "b")).payload == b"[1]"


async def test_key_is_looked_at_then(store: Store) -> None:
    """With an id that is free, one of the same key is in the way."""
    await add(store, "a", Unique(own_id=True, key="u"), payload=b"[1]")
    assert await add(store, "b", Unique(own_id=True, replace_own=True, key="u"), payload=b"[2]") == "a"
    assert (await record(store, "a")).payload == b"[1]"
    assert await add(store, "b", Unique(own_id=True, key="u", replace_key=True), payload=b"[2]") == "a"
    assert (await record(store, "a")).payload == b"[2]"


async def test_one_kept_out_by_its_id_takes_over_no_key(store: Store) -> None:
    """A job that was not added leaves its key to others."""
    await add(store, "a", OWN_ID)
    assert await add(store, "a", Unique(own_id=True, key="u")) == "a"
    assert await add(store, "b", BY_KEY) is None


async def test_key_is_not_that_of_another_job_that_got_the_id(store: Store) -> None:
    """An id of the caller's own can be had again, by a job that has not the key of the former one."""
    await add(store, "a", Unique(own_id=True, key="u"), now=5)
    await store.cancel(["a"], now=6)
    await add(store, "a", OWN_ID, now=7)
    assert await add(store, "b", BY_KEY, now=8) is None


async def test_generated_id_that_is_there(store: Store) -> None:
    """An id that is not the caller's own, and is there, is an error, as in `add`; nothing is added."""
    await store.add([new("a")])
    with pytest.raises(InvalidState):
        await add(store, "a")
    assert await add(store, "b") is None
