"""What people do to jobs, and what is kept of attempts; on each store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import anyio
import msgspec
import pytest

from backlite_async._history import MOST_ERRORS, MOST_LINES, AttemptError, Line, LogLine, Note, Trouble
from backlite_async._job import (
    ClaimedJob,
    Declared,
    DeclaredTask,
    Job,
    JobStatus,
    Keep,
    Lane,
    Limit,
    More,
    Place,
    Queue,
    TaskInfo,
    Unique,
)
from backlite_async._query import Action, Delete, Edit, Postpone, Release, Rerun, Wanted
from backlite_async._stats import DAY, HOUR, KEEP_HOURS, KEEP_MINUTES, MINUTE, Tally
from backlite_async.stores import Store
from backlite_async.stores._base import WATCHED_FOR
from tests.conftest import LIMIT

from .test_contract import FOREVER, again, at, claim, claim_one, complete, ids, new, record, running
from .test_control import NO_ROOM, declare, let_in, within

Q = Lane(kinds=(("q", "T"), ("q", "U")), room=1000)


def tags(*names: str) -> More:
    return More(tags=msgspec.json.encode(names).decode())


def fail(job: ClaimedJob, **changes: Any) -> Any:
    return complete(job, **{"status": JobStatus.FAILED, "error": "it broke"} | changes)


def trouble(job: ClaimedJob, **changes: Any) -> Trouble:
    """Return how an attempt went wrong at 200."""
    found = Trouble(
        attempt=job.attempt,
        type="ValueError",
        message="it broke",
        traceback="line 7",
        started_at=None,
        finished_at=200,
        duration=5_000,
    )
    return msgspec.structs.replace(found, **changes)


def tally(what: str, *, queue: str = "q", start: int = 0, run: int = -1, wait: int = -1) -> Tally:
    return (queue, start, what, run, wait)


def note(job: ClaimedJob, **changes: Any) -> Note:
    return Note(id=job.id, fence=job.fence, attempt=job.attempt, **changes)


def lines(*numbers: int) -> tuple[Line, ...]:
    return tuple(Line(number, 100 + number, "info", f"line {number}") for number in numbers)


async def listed(store: Store, *, now: int = 1000, **wanted: Any) -> list[str]:
    """Return the ids of the jobs that are wanted."""
    return [job.id for job in (await store.find(Wanted(**wanted), limit=1000, now=now)).jobs]


class Bell:
    """Tells whether a store has called its listeners."""

    def __init__(self, store: Store) -> None:
        self._rung = asyncio.Event()
        store.listen(self._rung.set)

    async def rung(self) -> None:
        """Wait for it; then wait for the next one."""
        with anyio.fail_after(LIMIT):
            await self._rung.wait()
        self._rung.clear()


# -- actions: to whom ------------------------------------------------------------------------------

STATES = (
    "due",
    "later",
    "waiting",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "without payload",
    "expired",
)
"""The ids of jobs, each in the state of its name; "first" has the turn that "waiting" waits for."""

DOABLE: dict[str, tuple[Action, set[str]]] = {
    "rerun": (Rerun(), {"due", "later", "waiting", "failed", "cancelled"}),
    "postpone": (Postpone(due_at=5000), {"due", "later", "waiting"}),
    "edit": (Edit(queue="q", task="T", payload=b"[7]"), {"due", "later", "waiting"}),
    "edit another": (Edit(queue="q", task="U", payload=b"[7]"), set()),
    "release": (Release(), {"running"}),
    "delete": (
        Delete(), {"due", "later", "waiting", "succeeded", "failed", "cancelled", "without payload"}
    ),
}  # fmt: skip


async def one_of_each(store: Store) -> None:
    """Add a job in each state, of which the pending ones begin after 300."""
    await declare(store, keeps=True, keep_payload=True)
    for job_id in ("succeeded", "failed", "without payload", "expired"):
        await store.add([new(job_id)])
    for job in (await claim(store)).jobs:
        changes: dict[str, Any] = {} if job.id == "succeeded" else {"status": JobStatus.FAILED}
        if job.id in ("without payload", "expired"):
            changes["keep"] = Keep(until=400 if job.id == "expired" else None, payload=job.id == "expired")
        await store.finish([complete(job, **changes)])
    await store.add([new("cancelled")])
    await store.cancel(["cancelled"], now=200)
    await running(store, "running", until=10**9)
    await store.add([new("due", due_at=300), new("later", due_at=9000, waits_from=250)])
    more = More(key="k", turns=1)
    await store.add([new("first", due_at=300, created_at=300, more=more)])
    await store.add([new("waiting", due_at=300, created_at=300, more=more)])


@pytest.mark.parametrize("name", DOABLE)
async def test_what_can_be_done_to_whom(store: Store, name: str) -> None:
    """An action is done to those that are in a state for it, once, and leaves the others as they are."""
    action, expected = DOABLE[name]
    await one_of_each(store)
    before = {job_id: await store.get(job_id, now=500) for job_id in (*STATES, "first")}
    assert {str(job.status) for job in before.values() if job is not None} == set(JobStatus) - {"not_found"}
    done = await store.act(action, [*STATES, "unknown", *STATES], now=500)
    assert sorted(done) == sorted(expected)
    for job_id, job in before.items():
        changed = await store.get(job_id, now=500) != job
        assert changed == (job_id in expected), job_id


async def test_nobody_to_act_upon(store: Store) -> None:
    """No ids are no error."""
    for action, _ in DOABLE.values():
        assert list(await store.act(action, [], now=5)) == []


@pytest.mark.parametrize("name", DOABLE)
async def test_actions_are_heard(store: Store, name: str) -> None:
    """Whoever listens is told, as there may be jobs that are due."""
    await one_of_each(store)
    bell = Bell(store)
    await store.act(DOABLE[name][0], STATES, now=500)
    if DOABLE[name][1]:
        await bell.rung()


async def test_many_ids(store: Store) -> None:
    """Any number of jobs in one call."""
    names = [str(number) for number in range(700)]
    await store.add([new(name) for name in names])
    assert sorted(await store.act(Postpone(due_at=700), names, now=5)) == sorted(names)
    assert len(await store.act(Delete(), names[:650], now=5)) == 650
    assert sorted(await listed(store)) == sorted(names[650:])


# -- actions: rerun --------------------------------------------------------------------------------


async def test_rerun_a_failed_job(store: Store) -> None:
    """It is pending and due now, with its id, attempts and error; as if it had not ended."""
    more = More(timeout=1500, parent="p", meta='{"n":1}', tags='["x"]')
    await store.add([new("a", payload=b"[1]", priority=2, waits_from=0, more=more)])
    before = await record(store, "a")
    job = await claim_one(store)
    outcome = fail(job, attempt=3, crashes=2, result="7", duration=9, started_at=150, trouble=trouble(job))
    await store.finish([outcome])
    assert await store.act(Rerun(attempts=4), ["a"], now=700) == ["a"]
    assert await listed(store) == ["a"]
    found = await record(store, "a")
    errors = found.errors
    assert found == msgspec.structs.replace(
        before, attempt=3, max_attempts=7, error="it broke", due_at=at(700), errors=errors
    )
    assert [error.message for error in errors] == ["it broke"]
    assert ids((await claim(store, now=699)).jobs) == []
    claimed = await claim_one(store, now=700)
    assert (claimed.attempt, claimed.max_attempts, claimed.crashes) == (4, 7, 0)
    assert (claimed.scheduled_at, claimed.waits_from, claimed.tags, claimed.noted) == (700, 700, '["x"]', 1)
    assert claimed.fence > job.fence


async def test_rerun_leaves_attempts_that_are_enough(store: Store) -> None:
    """It has as many attempts as it had, if that is more."""
    await store.finish([fail(await running(store))])
    await store.act(Rerun(attempts=1), ["a"], now=700)
    assert (await record(store, "a")).max_attempts == 3
    await store.finish([fail(await claim_one(store, now=700))])
    await store.act(Rerun(attempts=2), ["a"], now=700)
    assert ((await record(store, "a")).attempt, (await record(store, "a")).max_attempts) == (2, 4)


async def test_rerun_a_cancelled_job(store: Store) -> None:
    """Its cancellation is forgotten: it runs, and is not ended."""
    await declare(store, keeps=True, keep_payload=True)
    await store.add([new("a")])
    await store.cancel(["a"], now=50)
    assert await store.act(Rerun(), ["a"], now=70) == ["a"]
    job = await record(store, "a")
    assert (job.status, job.cancelled_at, job.error) == (JobStatus.PENDING, None, "cancelled")
    claimed = await claim_one(store)
    assert (await store.orders("mine")).cancelled == []
    assert await store.finish([again(claimed)]) == set()
    assert await store.status("a", now=0) is JobStatus.PENDING


async def test_rerun_pending_jobs(store: Store) -> None:
    """They are due now; one that waits for its turn waits on, since now. Crashes are forgiven."""
    await one_of_each(store)
    job = await claim_one(store, now=300, room=1)
    assert job.id == "due"
    await store.finish([again(job, attempt=3, crashes=2, due_at=2000)])
    await store.act(Rerun(attempts=2), ["due", "later", "waiting"], now=500)
    found = [await record(store, job_id) for job_id in ("due", "later", "waiting")]
    assert [(job.due_at, job.attempt, job.max_attempts, job.crashes) for job in found] == [
        (at(500), 3, 5, 0), (at(500), 0, 3, 0), (at(500), 0, 3, 0)
    ]  # fmt: skip
    assert await let_in(store, now=500) == ["first", "due", "later"]


async def test_rerun_where_a_live_job_has_the_id(store: Store) -> None:
    """A job that is kept stays so while another of its id lives."""
    await store.finish([fail(await running(store))])
    await store.add([new("a", payload=b"[2]", due_at=5)])
    await claim_one(store)
    assert list(await store.act(Rerun(), ["a"], now=500)) == []
    assert (await record(store, "a")).payload == b"[2]"


async def test_a_rerun_job_runs_within_its_limits(store: Store) -> None:
    """It counts for its key as any other: never do more of them run."""
    more, limit = More(key="k", turns=1), Limit(queue="q", per_key=1)
    await store.add([new("a", more=more)])
    await store.finish([fail(await claim_one(store), frees=Place("q", "k", 100))])
    await store.add([new("b", more=more), new("c", more=more)])
    await store.act(Rerun(), ["a"], now=100)
    order = []
    for _ in range(3):
        (job,) = (await within(store, limit)).jobs
        assert (await within(store, limit)).jobs == []
        order.append(job.id)
        await store.finish([complete(job, keep=None, frees=Place("q", "k", 100))])
    assert sorted(order) == ["a", "b", "c"]


# -- actions: postpone, edit, release --------------------------------------------------------------


async def test_postpone(store: Store) -> None:
    """The new due time counts, and whether it waits a while or for an instant."""
    await store.add([new("a", waits_from=0), new("b", due_at=900)])
    assert sorted(await store.act(Postpone(due_at=600, waits_from=50), ["a", "b"], now=50)) == ["a", "b"]
    assert (await record(store, "a")).due_at == (await record(store, "b")).due_at == at(600)
    assert ids((await claim(store, now=599)).jobs) == []
    assert await store.shift_waits(now=550, by=-100) == 0
    jobs = (await claim(store, now=600)).jobs
    assert [(job.id, job.waits_from) for job in jobs] == [("a", 50), ("b", 50)]


async def test_postpone_gives_the_turn_to_the_next(store: Store) -> None:
    """One that goes to later lets in the next of its key; one that goes to now keeps its turn."""
    more = More(key="k", turns=1)
    await store.add([new("a", more=more), new("b", more=more), new("u", "U", more=more)])
    assert await let_in(store) == ["a", "u"]
    await store.act(Postpone(due_at=80), ["a"], now=100)
    assert await let_in(store) == ["u", "a"]
    await store.act(Postpone(due_at=5000), ["a"], now=100)
    assert sorted(await let_in(store)) == ["b", "u"]


async def test_postpone_what_waits_for_its_turn(store: Store) -> None:
    """To now or before: it waits on, by its new time. To later: it comes then."""
    more = More(key="k", turns=1)
    await store.add([new("a", more=more), new("b", due_at=5, created_at=5, more=more)])
    await store.add(
        [new("c", due_at=6, created_at=6, more=more), new("d", due_at=7, created_at=7, more=more)]
    )
    await store.act(Postpone(due_at=3), ["d"], now=100)
    await store.act(Postpone(due_at=400, waits_from=100), ["b"], now=100)
    assert await let_in(store) == ["a"]
    assert await listed(store, key="k") == ["a", "b", "d", "c"]
    assert await let_in(store, now=400) == ["a", "b"]


async def test_edit(store: Store) -> None:
    """The payload alone is another."""
    await store.add([new("a"), new("u", "U"), new("r", queue="r")])
    before = await record(store, "a")
    action = Edit(queue="q", task="T", payload='{"ä":1}'.encode())
    assert await store.act(action, ["a", "u", "r"], now=50) == ["a"]
    assert await record(store, "a") == msgspec.structs.replace(before, payload='{"ä":1}'.encode())
    assert (await claim_one(store)).payload == '{"ä":1}'


async def test_release(store: Store) -> None:
    """The claim is taken away: pending and due now, the attempt uncounted; the old claim is worth nothing."""
    await store.add([new("a", due_at=70)])
    before = await record(store, "a")
    job = await claim_one(store)
    assert await store.act(Release(), ["a"], now=300) == ["a"]
    assert await record(store, "a") == msgspec.structs.replace(before, fence=(await record(store, "a")).fence)
    assert store.renew([("a", job.fence)], until=9999) == {"a"}
    await store.note([note(job, progress=0.5)])
    assert await store.finish([complete(job, tally=tally("succeeded"))]) == {"a"}
    assert (await record(store, "a")).progress is None
    assert await store.claims_of("mine") == []
    assert await store.stats(since=0, until=DAY) == []
    assert ids((await claim(store, now=299)).jobs) == []
    second = await claim_one(store, now=300)
    assert (second.attempt, second.scheduled_at) == (1, 70)
    assert second.fence > job.fence


async def test_release_after_the_clock_was_set_back(store: Store) -> None:
    """It is due now also where it was due later than now."""
    await store.add([new("a", due_at=70)])
    await claim_one(store)
    await store.act(Release(), ["a"], now=50)
    assert (await record(store, "a")).due_at == at(50)
    assert (await claim_one(store, now=50)).attempt == 1


async def test_release_of_a_job_to_be_cancelled(store: Store) -> None:
    """It ends as cancelled, and is counted so."""
    await declare(store, keeps=True)
    await running(store)
    await store.cancel(["a"], now=150)
    assert await store.act(Release(), ["a"], now=300) == ["a"]
    job = await record(store, "a")
    assert (job.status, job.cancelled_at, job.payload) == (JobStatus.CANCELLED, at(150), None)
    assert await store.stats(since=0, until=DAY) == [("q", 0, "cancelled", 0, 1)]


async def test_release_frees_the_turn(store: Store) -> None:
    """Whoever handles other tasks of its key only may go on."""
    more, limit = More(key="k", turns=1), Limit(queue="q", per_key=1)
    of_u = Lane(kinds=(("q", "U"),), room=5)
    await store.add([new("a", more=more)])
    await within(store, limit)
    await store.add([new("u", "U", more=more, created_at=100)])
    assert (await within(store, limit, of_u)).jobs == []
    await store.act(Release(), ["a"], now=100)
    assert ids((await within(store, limit, of_u)).jobs) == ["u"]


# -- actions: delete -------------------------------------------------------------------------------


async def test_delete_leaves_nothing(store: Store) -> None:
    """Neither the job nor what is kept beside it; another of its id begins anew."""
    await store.add([new("a", more=tags("x")), new("b", more=tags("x"))])
    for job in (await claim(store)).jobs:
        await store.finish([fail(job, trouble=trouble(job), note=note(job, lines=lines(0)))])
    assert list(await store.act(Delete(), ["a"], now=500)) == ["a"]
    assert await store.get("a", now=500) is None
    assert await listed(store) == await listed(store, tag="x") == ["b"]
    await store.add([new("a")])
    anew = await record(store, "a")
    assert (anew.errors, anew.lines, anew.tags) == ((), (), ())
    assert await listed(store, tag="x") == ["b"]


async def test_delete_gives_the_turn_to_the_next(store: Store) -> None:
    """Of one that had its turn the next has it; of one that waited nobody."""
    more = More(key="k", turns=1)
    await store.add([new(name, more=more) for name in "abcd"])
    await store.act(Delete(), ["b"], now=100)
    assert await let_in(store) == ["a"]
    await store.act(Delete(), ["a"], now=100)
    assert await let_in(store) == ["c"]


async def test_delete_frees_the_unique_key(store: Store) -> None:
    """A job that was deleted keeps none out."""
    unique = Unique(key="u", within=1000)
    await store.add_unique(new("a"), unique, now=0)
    await store.add_unique(new("b"), Unique(key="v", within=1000), now=0)
    await store.act(Delete(), ["a"], now=5)
    assert await store.add_unique(new("c", created_at=6), unique, now=6) is None
    assert await store.add_unique(new("d"), Unique(key="v", within=1000), now=6) == "b"


# -- tags ------------------------------------------------------------------------------------------


async def test_tags_last_as_long_as_their_job(store: Store) -> None:
    """A tag finds its job pending, running and kept; then no more."""
    await store.add([new(name, more=tags("x", name)) for name in "abc"])
    assert await listed(store, tag="x") == ["c", "b", "a"]
    a, b, c = (await claim(store)).jobs
    assert await listed(store, tag="x") == ["c", "b", "a"]
    until = Keep(until=900, payload=True)
    await store.finish([complete(a, keep=until), complete(b, keep=None, beside=True)])
    assert await listed(store, tag="x", now=800) == ["c", "a"]
    assert await listed(store, tag="x", now=900) == ["c"]
    assert await listed(store, tag="b") == []
    assert await store.expire(now=900, limit=10) == 1
    await store.finish([again(c, due_at=500)])
    assert await listed(store, tag="x") == ["c"]
    await store.cancel(["c"], now=500)
    assert await listed(store, tag="x") == []


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("count", [1, 600])
async def test_tags_of_every_way_of_adding(store: Store, again: bool, count: int) -> None:
    """Jobs are found by their tags however they were added; what is added twice is found once."""
    jobs = [new(str(number), more=tags("x") if number % 2 else None) for number in range(count)]
    jobs.append(new("last", more=tags("x", "y", "x")))
    await store.add(jobs, again=again)
    await store.add(jobs, again=True)
    unique = new("unique", more=tags("x"))
    await store.add_unique(unique, Unique(own_id=True, key="u"), now=0)
    await store.add_unique(unique, Unique(own_id=True, key="u"), now=0, again=True)
    expected = ["unique", "last", *[job.id for job in jobs[-2::-1] if job.more is not None]]
    assert await listed(store, tag="x") == expected
    assert await listed(store, tag="y") == ["last"]
    assert int(await store.count(Wanted(tag="x"), most=1000, now=0)) == len(expected)


async def test_an_id_that_is_used_again(store: Store) -> None:
    """A job with the id of one that has expired has its own tags and history, also once that is removed."""
    own = Unique(own_id=True)
    await store.add_unique(new("a", more=tags("x", "y")), own, now=0)
    job = await claim_one(store)
    ends = fail(job, keep=Keep(until=300, payload=True), trouble=trouble(job), beside=True)
    await store.finish([msgspec.structs.replace(ends, note=note(job, lines=lines(0)))])
    assert await store.add_unique(new("a", created_at=400, due_at=400, more=tags("y")), own, now=400) is None
    for _ in range(2):
        found = await record(store, "a", now=400)
        assert (found.status, found.tags, found.errors, found.lines) == (JobStatus.PENDING, ("y",), (), ())
        assert (await listed(store, tag="y"), await listed(store, tag="x")) == (["a"], [])
        await store.expire(now=400, limit=10)


# -- errors ----------------------------------------------------------------------------------------


async def test_errors_of_every_attempt(store: Store) -> None:
    """Each attempt that went wrong leaves its error, and the job's record has them, oldest first."""
    job = await running(store, now=110)
    assert (await record(store, "a")).errors == ()
    first = trouble(job, message="first")
    assert await store.finish([again(job, due_at=200, error="first", trouble=first)]) == set()
    job = await claim_one(store, owner="other", now=210)
    assert job.noted == 1
    await store.finish([again(job, due_at=300, attempt=2)])
    job = await claim_one(store, now=310)
    last = trouble(job, started_at=320, type="crash", traceback=None, duration=None, finished_at=330)
    await store.finish([fail(job, trouble=last)])
    error = AttemptError(
        attempt=1,
        type="ValueError",
        message="first",
        traceback="line 7",
        owner="mine",
        started_at=at(110),
        finished_at=at(200),
        duration=timedelta(milliseconds=5),
    )
    second = AttemptError(
        attempt=3,
        type="crash",
        message="it broke",
        traceback=None,
        owner="mine",
        started_at=at(320),
        finished_at=at(330),
        duration=None,
    )
    assert (await record(store, "a")).errors == (error, second)
    assert (error.crash, second.crash) == (False, True)
    (shown,) = (await store.find(Wanted(), limit=5, now=0)).jobs
    assert shown == msgspec.structs.replace(await record(store, "a"), errors=())


async def test_errors_of_outcomes_that_are_lost(store: Store) -> None:
    """What is not accepted leaves no error, no note, no count and no letter."""
    job = await running(store)
    await store.finish([again(job, due_at=200)])
    await claim_one(store, now=200, until=900)
    letter = new("letter")
    beside = {
        "tally": tally("failed"),
        "trouble": trouble(job),
        "note": note(job, progress=0.5, lines=lines(0)),
    }
    assert await store.finish([fail(job, letter=letter, **beside)]) == {"a"}
    late = msgspec.structs.replace(job, fence=job.fence + 1)
    assert await store.finish([fail(late, letter=letter, lapsed_by=899, **beside)]) == {"a"}
    assert await store.finish([again(job, **beside)]) == {"a"}
    found = await record(store, "a")
    assert (found.errors, found.lines, found.progress) == ((), (), None)
    assert await store.status("letter", now=0) is JobStatus.NOT_FOUND
    assert await store.stats(since=0, until=DAY) == []


async def test_beside_accepted_outcomes_others_are_lost(store: Store) -> None:
    """Of outcomes that are written together each is judged by itself."""
    await store.add([new("a"), new("b")])
    a, b = (await claim(store)).jobs
    stale = msgspec.structs.replace(a, fence=a.fence - 1)
    outcomes = [
        fail(job, trouble=trouble(job), tally=tally("failed"), letter=new(f"of {job.id}"))
        for job in (stale, b)
    ]
    assert await store.finish(outcomes) == {"a"}
    assert ((await record(store, "a")).errors, len((await record(store, "b")).errors)) == ((), 1)
    assert await store.stats(since=0, until=DAY) == [("q", 0, "failed", 0, 1)]
    assert await listed(store, states=frozenset({JobStatus.PENDING})) == ["of b"]


async def test_the_newest_errors_are_kept(store: Store) -> None:
    """Of a job that fails for ever only so many errors are kept."""
    await store.add([new("a")])
    for number in range(MOST_ERRORS + 3):
        job = await claim_one(store)
        wrong = trouble(job, message=str(number))
        await store.finish([again(job, due_at=0, attempt=0, trouble=wrong)])
    errors = (await record(store, "a")).errors
    assert [error.message for error in errors] == [str(number + 3) for number in range(MOST_ERRORS)]


async def test_errors_of_jobs_that_are_not_kept(store: Store) -> None:
    """They are gone with their job, so a later one of that id has none."""
    job = await running(store)
    await store.finish([again(job, due_at=100, trouble=trouble(job))])
    await store.finish([complete(await claim_one(store), keep=None, beside=True)])
    await store.add([new("a")])
    assert (await record(store, "a")).errors == ()
    await store.cancel(["a"], now=100)
    job = await running(store)
    await store.finish([again(job, due_at=100, trouble=trouble(job))])
    await store.cancel(["a"], now=100)
    await store.add([new("a")])
    assert (await record(store, "a")).errors == ()


# -- notes -----------------------------------------------------------------------------------------


async def test_notes(store: Store) -> None:
    """What a job says of itself is with it: how far it is, and its lines, in their order."""
    job = await running(store)
    await store.note([note(job, progress=0.25, message="begun", lines=lines(0, 1))])
    found = await record(store, "a")
    assert (found.progress, found.progress_message) == (0.25, "begun")
    assert found.lines == (
        LogLine(attempt=1, at=at(100), level="info", text="line 0"),
        LogLine(attempt=1, at=at(101), level="info", text="line 1"),
    )
    await store.note([note(job, lines=lines(2))])
    await store.note([note(job, lines=lines(1, 2))])
    found = await record(store, "a")
    assert (found.progress, found.progress_message) == (0.25, "begun")
    assert [line.text for line in found.lines] == ["line 0", "line 1", "line 2"]
    await store.note([note(job, progress=0.5)])
    found = await record(store, "a")
    assert (found.progress, found.progress_message) == (0.5, None)


async def test_notes_of_several(store: Store) -> None:
    """Several notes at once, of which one is of a claim that is no longer held."""
    await store.add([new("a"), new("b"), new("c")])
    jobs = (await claim(store)).jobs
    stale = msgspec.structs.replace(jobs[1], fence=jobs[1].fence - 1)
    said = [note(job, progress=0.5, lines=lines(0)) for job in (jobs[0], stale, jobs[2])]
    await store.note(said)
    found = [await record(store, job_id) for job_id in "abc"]
    assert [job.progress for job in found] == [0.5, None, 0.5]
    assert [len(job.lines) for job in found] == [1, 0, 1]
    twice = [note(jobs[0], progress=0.9, lines=lines(1)), note(jobs[0], progress=0.8, lines=lines(2))]
    await store.note(twice)
    first = await record(store, "a")
    assert (first.progress, len(first.lines)) == (0.8, 3)
    await store.note([])


async def test_notes_of_outcomes(store: Store) -> None:
    """What was not stored yet when an attempt ends is stored with its outcome, as if before it."""
    await store.add([new("a"), new("b")])
    a, b = (await claim(store)).jobs
    said = {"progress": 0.75, "message": "half", "lines": lines(0)}
    await store.finish([complete(a, note=note(a, **said)), again(b, due_at=200, note=note(b, **said))])
    for job_id in "ab":
        found = await record(store, job_id)
        assert (found.progress, found.progress_message, len(found.lines)) == (0.75, "half", 1)
    second = await claim_one(store, now=200)
    assert second.noted == 1
    await store.note([note(second, lines=lines(0))])
    assert [line.attempt for line in (await record(store, "b")).lines] == [1, 2]


async def test_notes_of_jobs_that_are_not_kept(store: Store) -> None:
    """They are gone with their job."""
    job = await running(store)
    await store.note([note(job, lines=lines(0, 1))])
    await store.finish([complete(job, keep=None, beside=True, note=note(job, progress=1.0, lines=lines(2)))])
    await store.add([new("a")])
    assert ((await record(store, "a")).lines, (await record(store, "a")).progress) == ((), None)


async def test_the_newest_lines_are_kept(store: Store) -> None:
    """Of a job that never stops talking only so many lines are kept, whichever way they come."""
    job = await running(store)
    await store.note([note(job, lines=lines(*range(MOST_LINES - 5)))])
    await store.note([note(job, lines=lines(*range(MOST_LINES - 5, MOST_LINES + 5)))])
    found = (await record(store, "a")).lines
    assert [line.text for line in found] == [f"line {number + 5}" for number in range(MOST_LINES)]
    outcome = again(job, due_at=100, note=note(job, lines=lines(MOST_LINES + 5)))
    await store.finish([outcome])
    assert (await record(store, "a")).lines[0].text == "line 6"
    job = await claim_one(store)
    await store.note([note(job, lines=lines(0, 1))])
    found = (await record(store, "a")).lines
    assert (found[0].text, found[-1].attempt, len(found)) == ("line 8", job.attempt, MOST_LINES)


# -- letters ---------------------------------------------------------------------------------------


async def test_dead_letters(store: Store) -> None:
    """The letter of a job that has failed is added with its outcome, and can be claimed at once."""
    job = await running(store)
    letter = new("letter", "U", payload=b"[1]", created_at=200, due_at=200, more=More(parent="a"))
    await store.finish([fail(job, letter=letter)])
    found = await record(store, "letter")
    assert (found.status, found.payload, found.parent) == (JobStatus.PENDING, b"[1]", "a")
    assert await listed(store, parent="a") == ["letter"]
    assert ids((await store.claim([Q], owner="x", now=200, until=900)).jobs) == ["letter"]


async def test_a_letter_is_added_once(store: Store) -> None:
    """A letter of an id that is there changes nothing."""
    await store.add([new("letter", payload=b"[0]", due_at=900)])
    await store.finish([fail(await running(store), letter=new("letter", payload=b"[1]"))])
    assert (await record(store, "letter")).payload == b"[0]"


# -- watches ---------------------------------------------------------------------------------------


async def test_a_watched_job_is_kept_for_a_while(store: Store) -> None:
    """A job that somebody waits for can be seen after its end, but for its payload, then no more."""
    await store.watch(["a"], owner="me")
    job = await running(store)
    await store.finish([complete(job, keep=None, result="[1]", duration=7, beside=True)])
    found = await record(store, "a", now=200)
    assert (found.status, found.result, found.payload) == (JobStatus.SUCCEEDED, b"[1]", None)
    assert (found.finished_at, found.expires_at) == (at(200), at(200 + WATCHED_FOR))
    assert await store.get("a", now=200 + WATCHED_FOR) is None
    assert await store.expire(now=200 + WATCHED_FOR, limit=5) == 1


@pytest.mark.parametrize(
    ("until", "expected"),
    [(None, None), (250, 200 + WATCHED_FOR), (10**9, 10**9)],
    ids=["ever", "short", "long"],
)
async def test_watched_and_kept(store: Store, until: int | None, expected: int | None) -> None:
    """A job that is kept is kept as it would be, and for a while at least."""
    await store.watch(["a"], owner="me")
    await store.finish([complete(await running(store), keep=Keep(until=until, payload=True))])
    found = await record(store, "a", now=200)
    assert (found.payload, found.expires_at) == (b"{}", None if expected is None else at(expected))


async def test_who_waits_no_more(store: Store) -> None:
    """Once the last one has given up waiting, nothing is kept for it."""
    await store.watch(["a", "b", "c"], owner="me")
    await store.watch(["a", "b"], owner="you")
    await store.watch(["b"], owner="you")
    await store.unwatch(["a", "b", "c", "d"], owner="me")
    await store.unwatch(["a"], owner="you")
    await store.add([new("a"), new("b"), new("c")])
    await store.finish([complete(job, keep=None) for job in (await claim(store)).jobs])
    assert await listed(store) == ["b"]


async def test_the_dead_wait_for_nothing(store: Store) -> None:
    """Nothing is kept for owners that have died."""
    await store.watch(["a", "b"], owner="dead")
    await store.watch(["b"], owner="me")
    await store.end_starts(["dead", "gone"], now=50)
    await store.add([new("a"), new("b")])
    await store.finish([complete(job, keep=None) for job in (await claim(store)).jobs])
    assert await listed(store) == ["b"]


async def test_a_watched_job_that_is_cancelled(store: Store) -> None:
    """So is one that ends as cancelled: while it is pending, or instead of running again."""
    await store.watch(["a", "b"], owner="me")
    await store.add([new("a"), new("b", due_at=500)])
    job = await claim_one(store)
    await store.cancel(["a", "b"], now=150)
    await store.finish([again(job)])
    for job_id in "ab":
        found = await record(store, job_id, now=150)
        assert (found.status, found.payload) == (JobStatus.CANCELLED, None)
        assert found.expires_at == at(150 + WATCHED_FOR)


@pytest.mark.parametrize("keep", [None, FOREVER], ids=["forgotten", "kept"])
async def test_who_waits_is_told(store: Store, keep: Keep | None) -> None:
    """The end of a job that somebody waits for is told at once."""
    job = await running(store)
    await store.watch(["a"], owner="me")
    bell = Bell(store)
    await store.finish([complete(job, keep=keep)])
    await bell.rung()
    await store.act(Delete(), ["a"], now=200)
    await bell.rung()


# -- statistics ------------------------------------------------------------------------------------


async def test_statistics(store: Store) -> None:
    """What attempts were, how long they ran and had waited, is counted by queue and minute."""
    await store.add([new(str(number)) for number in range(6)])
    jobs = (await claim(store)).jobs
    outcomes = [
        complete(jobs[0], tally=tally("succeeded", run=7, wait=0)),
        complete(jobs[1], tally=tally("succeeded", run=7, wait=3), keep=None),
        fail(jobs[2], tally=tally("failed", run=9)),
        again(jobs[3], tally=tally("retried", start=MINUTE, run=1, wait=3)),
        again(jobs[4], tally=tally("crashed", queue="r", start=MINUTE)),
    ]
    await store.finish(outcomes)
    await store.finish([again(jobs[5])])
    assert await store.finish(outcomes) == {"0", "1", "2", "3", "4"}
    first = [
        ("q", 0, "failed", 0, 1),
        ("q", 0, "run", 7, 2),
        ("q", 0, "run", 9, 1),
        ("q", 0, "succeeded", 0, 2),
        ("q", 0, "wait", 0, 1),
        ("q", 0, "wait", 3, 1),
    ]
    second = [("q", "retried", 0, 1), ("q", "run", 1, 1), ("q", "wait", 3, 1), ("r", "crashed", 0, 1)]
    assert sorted(await store.stats(since=0, until=MINUTE)) == first
    assert sorted(await store.stats(since=1, until=2 * MINUTE)) == [(row[0], 1, *row[1:]) for row in second]
    assert sorted(await store.stats(since=0, until=DAY, queue="r")) == [("r", 0, "crashed", 0, 1)]
    by_minute = await store.stats(since=0, until=DAY, step=MINUTE, queue="q")
    assert sorted(by_minute) == sorted([*first, *[(row[0], MINUTE, *row[1:]) for row in second[:3]]])
    assert ("q", 0, "wait", 3, 2) in await store.stats(since=0, until=DAY)
    assert await store.stats(since=2 * MINUTE, until=DAY) == []


async def test_steps_of_statistics(store: Store) -> None:
    """Steps begin where the time begins, wherever that is, and may be empty."""
    await store.add([new(str(number)) for number in range(10)])
    jobs = (await claim(store)).jobs
    tallies = [tally("succeeded", start=number * MINUTE) for number in (0, 1, 2, 3, 3, 9)]
    await store.finish([complete(job, tally=one) for job, one in zip(jobs, tallies, strict=False)])
    rows = await store.stats(since=MINUTE, until=9 * MINUTE + 1, step=2 * MINUTE)
    assert sorted(rows) == [
        ("q", MINUTE, "succeeded", 0, 2),
        ("q", 3 * MINUTE, "succeeded", 0, 2),
        ("q", 9 * MINUTE, "succeeded", 0, 1),
    ]
    rows = await store.stats(since=-30_000, until=2 * MINUTE, step=2 * MINUTE)
    assert sorted(rows) == [("q", -30_000, "succeeded", 0, 2)]


async def count_at(store: Store, *starts: int) -> None:
    """Count a success, run in bucket 3, at each of these minutes."""
    for start in starts:
        job = await running(store, "counted")
        await store.finish([complete(job, keep=None, tally=tally("succeeded", start=start, run=3))])


async def test_statistics_are_summed_up(store: Store) -> None:
    """Old minutes become hours, which add up; nothing is counted twice; very old hours are forgotten."""
    now = 1000 * HOUR + 30 * MINUTE
    old = 1000 * HOUR - KEEP_MINUTES - HOUR
    await count_at(store, old, old + 59 * MINUTE, now - 5 * MINUTE, now - KEEP_HOURS - 2 * HOUR)
    await count_at(store, old + HOUR + 7 * MINUTE)
    for _ in range(2):
        await store.sum_up(now=now)
        rows = await store.stats(since=0, until=2 * now, step=MINUTE)
        assert sorted(rows) == [
            ("q", old, "run", 3, 2),
            ("q", old, "succeeded", 0, 2),
            ("q", old + HOUR + 7 * MINUTE, "run", 3, 1),
            ("q", old + HOUR + 7 * MINUTE, "succeeded", 0, 1),
            ("q", now - 5 * MINUTE, "run", 3, 1),
            ("q", now - 5 * MINUTE, "succeeded", 0, 1),
        ]
    await count_at(store, old + 7 * MINUTE)
    await store.sum_up(now=now)
    assert ("q", old, "succeeded", 0, 3) in await store.stats(since=old, until=old + 1, step=MINUTE)
    assert await store.stats(since=old + 1, until=old + HOUR) == []
    await store.sum_up(now=old + KEEP_HOURS + 2 * HOUR)
    assert await store.stats(since=old, until=old + HOUR) == []


async def test_cancellations_are_counted(store: Store) -> None:
    """Each job that the store itself ends as cancelled counts once, when that was asked for."""
    await store.add([new("a", due_at=500), new("b"), new("c"), new("r", queue="r", due_at=500)])
    b, c = (await claim(store)).jobs
    now = 3 * MINUTE + 5
    await store.cancel(["a", "b", "c", "r", "unknown"], now=now)
    await store.cancel(["a", "b", "r"], now=now + 9 * MINUTE)
    await store.finish([again(b, tally=tally("retried", start=4 * MINUTE, run=7, wait=2)), again(c)])
    assert sorted(await store.stats(since=0, until=DAY, step=MINUTE)) == [
        ("q", 3 * MINUTE, "cancelled", 0, 3),
        ("q", 4 * MINUTE, "run", 7, 1),
        ("q", 4 * MINUTE, "wait", 2, 1),
        ("r", 3 * MINUTE, "cancelled", 0, 1),
    ]


# -- tasks, queues, owners -------------------------------------------------------------------------


async def declare_tasks(
    store: Store, *tasks: DeclaredTask, queue: str = "q", now: int, **changes: Any
) -> None:
    declared = Declared(queue=queue, keeps=False, keep_for=None, keep_payload=False, turns=None, tasks=tasks)
    await store.declare([msgspec.structs.replace(declared, **changes)], now=now)


async def test_tasks(store: Store) -> None:
    """Each task type of each queue, as it was last declared, by queue and name."""
    assert await store.tasks() == []
    b = DeclaredTask("B", "Do b.", "Do b.\n\nAnd more.", '{"type":"object","ä":[1,null]}')
    a = DeclaredTask("A", "", "", None)
    await declare_tasks(store, b, queue="r", now=5)
    await declare_tasks(store, b, a, now=6)
    schema = {"type": "object", "ä": [1, None]}
    info = TaskInfo(
        name="B",
        queue="r",
        title="Do b.",
        description="Do b.\n\nAnd more.",
        schema=schema,
        registered_at=at(5),
    )
    first = TaskInfo(name="A", queue="q", title="", description="", schema=None, registered_at=at(6))
    second = msgspec.structs.replace(info, queue="q", registered_at=at(6))
    assert list(await store.tasks()) == [first, second, info]
    await declare_tasks(store, DeclaredTask("B", "New.", "New.", None), now=9)
    changed = msgspec.structs.replace(
        second, title="New.", description="New.", schema=None, registered_at=at(9)
    )
    assert list(await store.tasks()) == [first, changed, info]
    await declare_tasks(store, queue="r", now=10)
    assert list(await store.tasks()) == [first, changed, info]


async def test_limits_are_shown(store: Store) -> None:
    """A queue shows its limits as they were last declared, by whomever."""
    await store.add([new("a"), new("r", queue="r")])
    await declare_tasks(store, now=5, limits='{"rate":{"count":5,"per":60.0}}')
    found = await store.queues(now=100)
    assert [queue.limits for queue in found] == [{"rate": {"count": 5, "per": 60.0}}, {}]
    await declare_tasks(store, now=6, limits='{"timeout":5.0}')
    assert (await store.queues(now=100))[0].limits == {"timeout": 5.0}


def numbers(queue: Queue) -> dict[str, int]:
    names = ("running", "pending", "scheduled", "waiting", "succeeded", "failed", "cancelled")
    return {name: int(value) for name in names if (value := getattr(queue, name))}


async def test_numbers_of_queues(store: Store) -> None:
    """How many jobs of a queue are in each state."""
    await one_of_each(store)
    await store.add([new("r", queue="r", due_at=600)])
    q, r = await store.queues(now=500)
    assert numbers(q) == {
        "running": 1, "pending": 4, "scheduled": 1, "waiting": 1, "succeeded": 1, "failed": 2, "cancelled": 1
    }  # fmt: skip
    assert numbers(r) == {"pending": 1, "scheduled": 1}
    assert numbers((await store.queues(now=600))[1]) == {"pending": 1}
    assert q.capped == r.capped == ()
    assert [(found.pending, found.due) for found in await store.queues(now=600)] == [(4, 2), (1, 1)]


@pytest.mark.parametrize(
    ("most", "due", "capped"),
    [
        (10, 4, set()),
        (9, 4, {"pending"}),
        (5, 4, {"pending", "scheduled"}),
        (3, 3, {"pending", "scheduled", "due"}),
    ],
)
async def test_what_is_due_is_counted_beside_much_that_is_not(
    store: Store, most: int, due: int, capped: set[str]
) -> None:
    """However early counts end: it is not what is left of one that has ended less another."""
    await store.add([new(f"later {number}", due_at=500, priority=number % 2) for number in range(6)])
    await store.add([new(f"now {number}", "TU"[number % 2], due_at=50) for number in range(4)])
    [found] = await store.queues(now=100, most=most)
    assert (found.due, set(found.capped)) == (due, capped)


async def test_owners_with_claims(store: Store) -> None:
    """Whoever has claims is an owner, also one of whom nothing else is known."""
    assert await store.owners(now=100) == []
    await store.add([new(str(number)) for number in range(5)])
    await claim(store, owner="b", room=2)
    await claim(store, owner="a", room=1)
    found = await store.owners(now=100)
    assert [(owner.id, owner.running, owner.alive) for owner in found] == [("a", 1, None), ("b", 2, None)]
    assert {(owner.host, owner.pid, owner.started_at, owner.workers) for owner in found} == {("", 0, None, 0)}


# -- the record ------------------------------------------------------------------------------------


async def test_history_survives_the_end(store: Store) -> None:
    """Errors, lines, progress and tags are with a completed job until it is removed."""
    more = tags("x")
    await store.add([new("a", more=more)])
    job = await claim_one(store)
    await store.note([note(job, progress=0.5, message="half", lines=lines(0, 1))])
    await store.finish([again(job, due_at=100, trouble=trouble(job))])
    job = await claim_one(store)
    assert (job.noted, job.tags) == (1, '["x"]')
    assert (await store.claims_of("mine"))[0].noted == 1
    lapsed = (await within(store, [], NO_ROOM, owner="x", now=9999)).lapsed
    assert [found.job.noted for found in lapsed] == [1]
    until = Keep(until=900, payload=True)
    await store.finish([complete(job, keep=until, trouble=trouble(job), note=note(job, lines=lines(0)))])
    found = await record(store, "a")
    assert (found.progress, found.progress_message, found.tags) == (0.5, "half", ("x",))
    assert [error.attempt for error in found.errors] == [1, 2]
    assert [(line.attempt, line.text) for line in found.lines] == [
        (1, "line 0"), (1, "line 1"), (2, "line 0")
    ]  # fmt: skip
    assert await store.expire(now=900, limit=5) == 1
    await store.add([new("a")])
    assert isinstance(await store.get("a", now=0), Job)
    assert (await record(store, "a")).errors == ()


async def test_a_plain_job_is_not_noted(store: Store) -> None:
    """A job beside which nothing is kept says so to its claim."""
    job = await running(store)
    assert not job.noted
    await store.finish([again(job, due_at=100, error="no", tally=tally("retried"))])
    assert not (await claim_one(store)).noted
