"""Lists and actions of the client, on both stores: by ids and by filters, however much goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec
import pytest

from backlite_async import (
    BackliteError,
    Client,
    InvalidState,
    InvalidTask,
    InvalidType,
    InvalidValue,
    Job,
    JobContext,
    JobNotFound,
    JobStatus,
    PayloadError,
    QueueConfig,
    Retention,
    Task,
    chain,
)
from backlite_async import _bulk as bulk
from backlite_async import _query as query
from backlite_async._clock import SystemClock, from_millis
from backlite_async._job import ClaimedJob, Complete, Keep, Lane, Reschedule

from .conftest import LIMIT, Journal

KEEP = Retention(payload="always")
BEGIN = 1_900_000_000_000
FAILED, PENDING, RUNNING = JobStatus.FAILED, JobStatus.PENDING, JobStatus.RUNNING


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=3, backoff=0, retention=KEEP)
    number: int = 0


class Sort(Task):
    config: ClassVar[QueueConfig] = Work.config
    word: str = "a"


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other")
    number: int = 0


class Keyed(Task):
    config: ClassVar[QueueConfig] = QueueConfig("keyed", concurrency_per_key=1)


class Clock(SystemClock):
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = BEGIN

    def now(self) -> int:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(database: str, clock: Clock) -> AsyncIterator[Client]:
    """A client that runs nothing, whose time stands still."""
    async with Client(database, workers=0, clock=clock) as client:
        yield client


async def claim(client: Client, count: int = 1_000, task: type[Task] = Work) -> Sequence[ClaimedJob]:
    """Take due jobs, as a dispatcher would."""
    now = client.clock.now()
    lane = Lane(kinds=((task.config.name, task.__name__),), room=count)
    claimed = await client.open_store().claim([lane], owner="somebody", now=now, until=now + 30_000)
    return claimed.jobs


async def finish(
    client: Client, job: ClaimedJob, status: JobStatus = FAILED, *, payload: bool = True
) -> bool:
    """End a claimed job; return whether that was accepted."""
    outcome = Complete(
        id=job.id,
        fence=job.fence,
        status=status,
        finished_at=client.clock.now(),
        started_at=client.clock.now(),
        duration=1_000,
        attempt=job.attempt,
        crashes=0,
        error="ValueError: no" if status is FAILED else None,
        keep=Keep(until=None, payload=payload),
    )
    return not await client.open_store().finish([outcome])


def again_later(job: ClaimedJob, due_at: int) -> Reschedule:
    return Reschedule(id=job.id, fence=job.fence, due_at=due_at, attempt=job.attempt, crashes=0)


async def add_failed(client: Client, count: int) -> list[str]:
    ids = await client.add(*[Work(number) for number in range(count)]).save()
    for job in await claim(client, count):
        await finish(client, job)
    return ids


async def get(client: Client, job_id: str) -> Job:
    job = await client.jobs.get(job_id)
    assert job is not None
    return job


async def all_states(client: Client, clock: Clock) -> dict[str, str]:
    """Add jobs in each state; return their ids by state."""
    found: dict[str, str] = {}
    for status in (JobStatus.SUCCEEDED, FAILED):
        [found[status.value]] = await client.add(Work()).tags("t").save()
        [job] = await claim(client)
        await finish(client, job, status)
        clock.at += 1
    [found["cancelled"]] = await client.add(Work()).tags("t").save()
    await client.cancel(found["cancelled"])
    [found["running"]] = await client.add(Work()).tags("t").save()
    await claim(client)
    clock.at += 1
    [found["pending"]] = await client.add(Work()).wait(60).tags("t").save()
    return found


def spied(
    monkeypatch: pytest.MonkeyPatch, client: Client, name: str, then: Callable[[], Any] | None = None
) -> list[int]:
    """Note how many jobs each call of a store's method was given; then let something happen."""
    store = client.open_store()
    method, calls = getattr(store, name), []

    async def called(*args: Any, **kwargs: Any) -> Any:
        given = args[1] if name == "act" else args[0]
        calls.append(len(given) if isinstance(given, (list, tuple)) else 0)
        answer = await method(*args, **kwargs)
        if then is not None:
            await then()
        return answer

    monkeypatch.setattr(store, name, called)
    return calls


# -- lists ----------------------------------------------------------------------------------------


async def test_get_is_the_clients(client: Client) -> None:
    """`client.jobs.get` and `client.get` are the same."""
    [job_id] = await client.add(Work()).save()
    assert await client.jobs.get(job_id) == await client.get(job_id)
    assert await client.jobs.get("none") is None


async def test_a_list_in_its_order(client: Client, clock: Clock) -> None:
    """What runs, what is pending, what has ended, the last one first; each filter by state finds its own."""
    ids = await all_states(client, clock)
    page = await client.jobs.list()
    assert [job.status for job in page] == ["running", "pending", "cancelled", "failed", "succeeded"]
    assert (page.next, page.previous, page.limited) == (None, None, False)
    for state, job_id in ids.items():
        assert [job.id for job in await client.jobs.list(state=state)] == [job_id]
        assert await client.jobs.count(state=state) == 1
    assert [job.id for job in await client.jobs.list(state=["failed", RUNNING], queue="work")] == [
        ids["running"],
        ids["failed"],
    ]
    assert await client.jobs.list(task=Sort) == []
    assert [job.status for job in await client.jobs.list(tag="t")] == [
        "pending", "running", "cancelled", "failed", "succeeded",
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [1, 3, 4, 50])
@pytest.mark.parametrize("filters", [{}, {"tag": "t"}, {"queue": "work", "task": Work}])
async def test_pages_lead_through_all_in_both_directions(
    client: Client, clock: Clock, limit: int, filters: dict[str, Any]
) -> None:
    """Whatever the size of the pages, each job is on one of them, there and back."""
    await all_states(client, clock)
    await client.add(*[Work(number) for number in range(5)]).tags("t").save()
    everything = list(await client.jobs.list(limit=100, **filters))
    assert len(everything) == 10
    page = await client.jobs.list(limit=limit, **filters)
    forth, pages = list(page), [list(page)]
    assert page.previous is None
    while page.next is not None:
        page = await client.jobs.list(limit=limit, after=page.next, **filters)
        forth += page
        pages.append(list(page))
    assert forth == everything
    back = pages[-1]
    while page.previous is not None:
        page = await client.jobs.list(limit=limit, before=page.previous, **filters)
        back = list(page) + back
        assert page.next is not None
    assert back == everything


async def test_an_empty_page_leads_back(client: Client) -> None:
    """Where all behind a cursor are gone, `previous` still finds those up to it, and the other way round."""
    ids = await client.add(*[Work(number) for number in range(4)]).save()
    page = await client.jobs.list(limit=2)
    assert page.next is not None
    await client.jobs.delete(*ids[2:])
    behind = await client.jobs.list(limit=2, after=page.next)
    assert (behind, behind.next) == ([], None)
    assert behind.previous is not None
    again = await client.jobs.list(limit=2, before=behind.previous)
    assert [job.id for job in again] == ids[:2]
    assert again.next is not None
    await client.jobs.delete(ids[0])
    ahead = await client.jobs.list(limit=2, before=page.next)
    assert (ahead, ahead.previous) == ([], None)
    assert ahead.next is not None
    assert [job.id for job in await client.jobs.list(limit=2, after=ahead.next)] == ids[1:2]


async def test_a_limited_page_goes_on(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many jobs had to be looked at, the page says so, and leads on to what it did not see."""
    monkeypatch.setattr(query, "LOOKS", 10)
    ids = await client.add(*[Work(number) for number in range(35)]).save()
    wanted = [ids[3], ids[33]]
    for job_id in wanted:
        await client.jobs.edit(job_id, Work(4711))
    page = await client.jobs.list(text=":4711")
    found, pages = list(page), 1
    assert page.limited
    while page.next is not None:
        page = await client.jobs.list(text=":4711", after=page.next)
        found += page
        pages += 1
    assert [job.id for job in found] == wanted
    assert 4 <= pages <= 5
    back = list(page)
    while page.previous is not None:
        page = await client.jobs.list(text=":4711", before=page.previous)
        back = list(page) + back
    assert [job.id for job in back] == wanted
    assert await client.jobs.delete(text=":4711") == 2
    assert await client.jobs.count() == 33


async def test_a_glance_at_large_jobs(client: Client) -> None:
    """The beginning is there, and one byte more tells that there is more; an action means whole ones."""
    [job_id] = await client.add(Sort("é" * 400)).save()
    whole = (await get(client, job_id)).payload
    assert whole is not None
    [brief] = await client.jobs.list(brief=True)
    assert brief.payload == whole[:200]
    for cut in (5, len(whole) - 1):
        part = await client.jobs.get(job_id, cut=cut)
        assert part is not None
        assert part.payload == whole[: cut + 1]
    exact = await client.jobs.get(job_id, cut=len(whole))
    assert exact == await get(client, job_id)
    assert await client.jobs.get("none", cut=5) is None
    assert await client.jobs.copy(queue="work") == 1
    assert [job.payload for job in await client.jobs.list()] == [whole] * 2


async def test_actions_on_the_jobs_of_an_owner_or_a_workflow(client: Client) -> None:
    """All that somebody runs is taken away; the steps of one workflow are met, of others nothing."""
    [workflow] = await client.add(chain(Work(1), Work(2))).save()
    [other] = await client.add(Work(3)).save()
    assert len(await claim(client)) == 2
    assert await client.jobs.count(owner="somebody") == 2
    assert await client.jobs.release(owner="nobody") == 0
    assert await client.jobs.release(owner="somebody") == 2
    assert await client.jobs.list(owner="somebody") == []
    steps = await client.jobs.list(workflow=workflow, limit=1)
    assert steps.next is not None
    steps += await client.jobs.list(workflow=workflow, after=steps.next)
    assert [job.workflow for job in steps] == [workflow] * 2
    assert await client.jobs.cancel(workflow=workflow) == 2
    assert await client.status(other) == JobStatus.PENDING


async def test_a_count_is_capped_and_says_so(client: Client) -> None:
    """It is an int, and tells whether there are more."""
    await client.add(*[Work(number) for number in range(5)]).save()
    count = await client.jobs.count(queue="work", most=5)
    assert (count, count.capped, str(count)) == (5, False, "5")
    count = await client.jobs.count(most=4)
    assert (count, count.capped, str(count)) == (4, True, "4+")
    assert await client.jobs.count(queue="other") == 0


async def test_what_is_said_of_wrong_arguments(client: Client) -> None:
    """Each names the thing, the value and the way out."""
    jobs: Any = client.jobs
    for call, error, said in [
        (jobs.list(limit=0), InvalidValue, "limit=0 must lie between 1 and 1,000"),
        (jobs.list(limit=1001), InvalidValue, "limit=1001"),
        (jobs.list(limit=True), InvalidType, "limit=True must be a whole number"),
        (jobs.list(after="x", before="y"), InvalidValue, "give one of them"),
        (jobs.list(after="nonsense"), InvalidValue, "after='nonsense' is no cursor"),
        (
            jobs.list(states="failed"),
            InvalidType,
            "states= is no filter of jobs; there are queue, task, state",
        ),
        (jobs.count(most=0), InvalidValue, "most=0"),
        (jobs.list(brief=1), InvalidType, "brief=1 must be True or False"),
        (jobs.get("a", cut=0), InvalidValue, "cut=0 must lie between 1 and"),
        (jobs.get("a", cut="5"), InvalidType, "cut='5' must be a whole number"),
        (jobs.get(5, cut=5), InvalidType, "get() takes ids"),
        (jobs.list(owner=5), InvalidType, "owner=5 must be a str"),
        (jobs.cancel(workflow=""), InvalidValue, "workflow='' is none that a job can have"),
        (
            jobs.retry(),
            InvalidValue,
            "retry() was given no id and no filter; for every job, write retry(all=",
        ),
        (jobs.delete(queue=None), InvalidValue, "delete() was given no id"),
        (jobs.copy(), InvalidValue, "copy() was given no id"),
        (jobs.cancel(), InvalidValue, "cancel(all=True)"),
        (jobs.release("a", queue="b"), InvalidValue, "release() takes ids of jobs, or filters, not both"),
        (jobs.run_now("a", all=True), InvalidValue, "not both"),
        (jobs.copy("a", queue="b"), InvalidValue, "not both"),
        (jobs.delete(all=True, queue="a"), InvalidValue, "delete(all=True) means every job"),
        (jobs.delete(all="yes"), InvalidType, "all='yes' must be True or False"),
        (jobs.retry(["a"]), InvalidType, "write retry(*ids)"),
        (jobs.cancel(5), InvalidType, "cancel() takes ids"),
        (jobs.retry("a", attempts=0), InvalidValue, "attempts=0"),
        (jobs.reschedule("a"), InvalidValue, "one of at=, an instant, and wait=, a duration"),
        (jobs.reschedule("a", at=from_millis(5), wait=5), InvalidValue, "one of"),
        (jobs.reschedule("a", wait=-1), InvalidValue, "wait=-1"),
        (jobs.reschedule("a", at=datetime(2030, 1, 1)), InvalidValue, "has no time zone"),
        (jobs.edit(5, Work()), InvalidType, "edit() takes ids"),
        (jobs.edit("a", "b"), InvalidTask, "no task type"),
        (jobs.copy("a", Work), InvalidTask, "Work is a class; give an instance of it"),
    ]:
        with pytest.raises(error) as caught:
            await call
        assert said in str(caught.value)
        assert isinstance(caught.value, BackliteError)


# -- actions --------------------------------------------------------------------------------------

DOES = {
    "retry": ({"pending", "failed", "cancelled"}, {}),
    "run_now": ({"pending"}, {}),
    "reschedule": ({"pending"}, {"wait": 5}),
    "release": ({"running"}, {}),
    "cancel": ({"pending", "running"}, {}),
    "delete": ({"pending", "succeeded", "failed", "cancelled"}, {}),
}


@pytest.mark.parametrize("by", ["ids", "tag", "all"])
@pytest.mark.parametrize("action", DOES)
async def test_an_action_is_done_to_jobs_that_are_in_a_state_for_it(
    client: Client, clock: Clock, action: str, by: str
) -> None:
    """By ids, by filters and for all: the others are left as they are, the number says how many it was."""
    ids = await all_states(client, clock)
    before = {state: await get(client, job_id) for state, job_id in ids.items()}
    states, options = DOES[action]
    call = getattr(client.jobs, action)
    if by == "ids":
        done = await call(*ids.values(), "unknown", ids["pending"], **options)
    else:
        async with asyncio.timeout(LIMIT):
            done = await call(**({"tag": "t"} if by == "tag" else {"all": True}), **options)
    assert done == len(states)
    after = {state: await client.jobs.get(job_id) for state, job_id in ids.items()}
    assert {state for state, job in after.items() if job != before[state]} == states


async def test_a_retry(client: Client, clock: Clock) -> None:
    """Due now, with attempts to spare, under its id; what has happened to it is not forgotten."""
    [job_id] = await add_failed(client, 1)
    clock.at += 5_000
    assert await client.jobs.retry(job_id, attempts=7) == 1
    job = await get(client, job_id)
    assert (job.status, job.attempt, job.max_attempts) == (PENDING, 1, 8)
    assert (job.error, job.due_at) == ("ValueError: no", from_millis(clock.at))
    [claimed] = await claim(client)
    assert (claimed.id, claimed.attempt) == (job_id, 2)


async def test_run_now_and_reschedule(client: Client, clock: Clock) -> None:
    """Jobs are due when it was said; those already due are left in their order by a filter."""
    due = await client.add(Work(1)).save()
    clock.at += 1_000
    later = await client.add(Work(2)).wait(60).save()
    assert await client.jobs.run_now(queue="work") == 1
    assert (await get(client, due[0])).due_at == from_millis(BEGIN)
    assert (await get(client, later[0])).due_at == from_millis(clock.at)
    instant = datetime(2040, 1, 1, tzinfo=UTC)
    assert await client.jobs.reschedule(*later, at=instant) == 1
    assert (await get(client, later[0])).due_at == instant
    assert await client.jobs.reschedule(queue="work", wait=timedelta(minutes=1)) == 2
    assert (await get(client, due[0])).due_at == from_millis(clock.at + 60_001)
    assert await client.jobs.reschedule(queue="work", wait=timedelta(minutes=1)) == 0  # they are there


async def test_an_edit(client: Client) -> None:
    """A pending job gets another payload, which is checked as at its add."""
    [job_id, other] = await client.add(Work(1), Sort()).save()
    assert await client.jobs.edit(job_id, Work(2)) == 1
    assert (await get(client, job_id)).payload == b'{"number":2}'
    with pytest.raises(PayloadError, match=r"\$\.number"):
        await client.jobs.edit(job_id, Work("many"))  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="is a Sort of queue 'work', not a Work of 'work'; cancel it"):
        await client.jobs.edit(other, Work())
    with pytest.raises(JobNotFound, match="job none: there is none, or it is no longer kept"):
        await client.jobs.edit("none", Work())
    [claimed] = await claim(client)
    for status in ("running", "succeeded"):
        with pytest.raises(InvalidState, match=f"is {status}, and only a pending one can be edited"):
            await client.jobs.edit(job_id, Work(3))
        await finish(client, claimed, JobStatus.SUCCEEDED)
    assert (await get(client, job_id)).payload == b'{"number":2}'


async def test_an_edit_that_comes_as_the_job_starts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the deed it may be claimed; that is told like any other."""
    [job_id] = await client.add(Work(1)).save()
    store = client.open_store()
    act = store.act

    async def late(*args: Any, **kwargs: Any) -> Sequence[str]:
        await claim(client)
        return await act(*args, **kwargs)

    monkeypatch.setattr(store, "act", late)
    with pytest.raises(InvalidState, match="is running"):
        await client.jobs.edit(job_id, Work(2))
    assert (await get(client, job_id)).payload == b'{"number":1}'


async def test_a_task_under_an_old_name_can_be_edited(client: Client) -> None:
    """A job that was added before its type was renamed keeps its name."""

    class Renamed(Task):
        config: ClassVar[QueueConfig] = Work.config
        aliases: ClassVar[tuple[str, ...]] = ("Work",)
        number: int = 0

    [job_id] = await client.add(Work(1)).save()
    assert await client.jobs.edit(job_id, Renamed(5)) == 1
    job = await get(client, job_id)
    assert (job.task, job.payload) == ("Work", b'{"number":5}')


async def test_a_copy_keeps_the_options(client: Client, clock: Clock) -> None:
    """A new pending job, due now: its own id, no parent, all else as it was."""
    operation = client.add(Work(1)).priority(3).max_attempts(9).timeout(1.5).key("k").meta({"a": [1]})
    [job_id] = await operation.tags("t", "s").wait(60).save()
    clock.at += 5
    new_id = await client.jobs.copy(job_id)
    old, new = await get(client, job_id), await get(client, new_id)
    assert new_id != job_id
    now = from_millis(clock.at)
    assert new == msgspec.structs.replace(old, id=new_id, created_at=now, due_at=now)
    assert [job.id for job in await client.jobs.list(tag="s")] == [new_id, job_id]
    other = await get(client, await client.jobs.copy(job_id, Other(5)))
    assert (other.queue, other.task, other.payload) == ("other", "Other", b'{"number":5}')
    assert other == msgspec.structs.replace(
        new, id=other.id, queue="other", task="Other", payload=other.payload
    )


async def test_a_copy_waits_for_the_turn_of_its_key(client: Client) -> None:
    """It has the key, and what limits that."""
    [job_id] = await client.add(Keyed()).key("k").save()
    await client.jobs.copy(job_id)
    [queue] = await client.queues.list()
    assert (queue.pending, queue.waiting) == (2, 1)
    assert len(await claim(client, task=Keyed)) == 1


async def test_a_copy_of_what_is_not_kept(client: Client) -> None:
    """No job, or no payload: it says which, and what to do."""
    with pytest.raises(JobNotFound) as caught:
        await client.jobs.copy("none")
    assert caught.value.job_id == "none"
    [job_id] = await client.add(Work()).save()
    [claimed] = await claim(client)
    await finish(client, claimed, payload=False)
    with pytest.raises(InvalidState, match=r"is failed, and its payload is not kept; give the task, too"):
        await client.jobs.copy(job_id)
    with pytest.raises(PayloadError, match=r"\$\.number"):
        await client.jobs.copy(job_id, Work("many"))  # type: ignore[arg-type]
    assert await client.jobs.copy(state="failed") == 0
    assert (await get(client, await client.jobs.copy(job_id, Work(5)))).payload == b'{"number":5}'


async def test_a_released_job_is_another_claims(client: Client) -> None:
    """Its old owner's outcome is not accepted, and the attempt did not count."""
    [job_id] = await client.add(Work()).save()
    [old] = await claim(client)
    assert await client.jobs.release(job_id) == 1
    assert not await finish(client, old)
    [new] = await claim(client)
    assert (new.id, new.attempt) == (job_id, old.attempt)
    assert new.fence > old.fence
    assert not await finish(client, old)
    assert await finish(client, new)


async def test_who_has_workers_is_woken(database: str) -> None:
    """A retried job, a copy, and one that is to run now start at once."""
    started: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    client = Client(database)

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        started.put_nowait((job.id, task.number))

    async with client, asyncio.timeout(LIMIT):
        [job_id] = await client.add(Work(1)).wait(3_600).save()
        await client.jobs.run_now(job_id)
        assert await started.get() == (job_id, 1)
        copy = await client.jobs.copy(job_id, Work(2))
        assert await started.get() == (copy, 2)
        [later] = await client.add(Work(3)).wait(3_600).save()
        assert await client.jobs.retry(later) == 1
        assert await started.get() == (later, 3)


async def test_what_is_logged(client: Client, journal: Journal) -> None:
    """One line an action, with a few ids, and never a payload."""
    ids = await client.add(*[Work(4711) for _ in range(8)]).save()
    await client.jobs.reschedule(*ids, wait=5)
    await client.jobs.edit(ids[0], Work(4712))
    await client.jobs.run_now(queue="work")
    await client.jobs.cancel(*ids[:2])
    await client.jobs.retry("unknown")
    copied = await client.jobs.copy(ids[0])
    assert journal.of("job.added", copied)
    lines = journal.of("jobs.changed")
    assert [line.split()[1:3] for line in lines] == [
        ["action=reschedule", "count=8"],
        ["action=edit", "count=1"],
        ["action=run_now", "count=8"],
        ["action=cancel", "count=2"],
        ["action=copy", "count=1"],
    ]
    assert ids[4] in lines[0]
    assert ids[5] not in lines[0]
    assert not any("471" in line.replace(ids[0], "") for line in lines if "action=edit" in line)


async def test_nothing_is_changed_inside_a_transaction_of_a_job(file: str) -> None:
    """It would wait for the block that it is in; so it says so."""
    client = Client(file)
    said: list[str] = []
    done = asyncio.Event()

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        async with job.transaction():
            assert await client.jobs.count() == 1
            for call in (client.jobs.delete(job.id), client.jobs.cancel(job.id), client.jobs.copy(job.id)):
                with pytest.raises(InvalidState) as caught:
                    await call
                said.append(str(caught.value))
        done.set()

    async with client, asyncio.timeout(LIMIT):
        await client.add(Work()).save()
        await done.wait()
    assert len(said) == 3
    assert all("before or after the block" in text for text in said)


# -- many -----------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of ten."""
    monkeypatch.setattr(bulk, "BATCH", 10)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("action", ["retry", "delete", "copy"])
async def test_many_in_batches(client: Client, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """All that match, a batch a transaction, each once, though time stands still."""
    await add_failed(client, 35)
    calls = spied(monkeypatch, client, "add" if action == "copy" else "act")
    assert await getattr(client.jobs, action)(queue="work", state="failed") == 35
    assert [count for count in calls if count] == [10, 10, 10, 5]
    assert await client.jobs.count(state="failed") == (35 if action == "copy" else 0)
    assert await client.jobs.count(state="pending") == (0 if action == "delete" else 35)


@pytest.mark.usefixtures("small")
async def test_many_ids_in_batches(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, however often it is given."""
    ids = await client.add(*[Work(number) for number in range(25)]).save()
    calls = spied(monkeypatch, client, "act")
    assert await client.jobs.reschedule(*ids, *ids, wait=5) == 25
    assert calls == [10, 10, 5]
    calls = spied(monkeypatch, client, "cancel")
    assert await client.jobs.cancel(*ids, *ids) == 25
    assert calls == [10, 10, 5]


@pytest.mark.usefixtures("small")
async def test_the_size_of_a_batch(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 in a transaction."""
    monkeypatch.undo()
    ids = await client.add(*[Work(number) for number in range(501)]).save()
    calls = spied(monkeypatch, client, "act")
    assert await client.jobs.delete(queue="work") == len(ids)
    assert [count for count in calls if count] == [500, 1]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("at", ["due", "now", "between", "past"])
async def test_what_is_put_off_is_met_once(client: Client, clock: Clock, at: str) -> None:
    """Jobs that are given another due time come to lie elsewhere in the list, and are not met there again."""
    for number in range(25):
        clock.at += 10
        await client.add(Work(number)).at(from_millis(BEGIN + 1_000 * number)).save()
    clock.at += 5_000
    target = {"due": 30_000, "now": clock.at - BEGIN, "between": 12_500, "past": -1_000}[at]
    assert await client.jobs.reschedule(queue="work", at=from_millis(BEGIN + target)) == 25
    jobs = await client.jobs.list()
    assert {job.due_at for job in jobs} == {from_millis(BEGIN + target)}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("working", [False, True])
@pytest.mark.parametrize("action", ["retry", "run_now", "reschedule", "release", "copy", "delete", "cancel"])
async def test_what_others_do_meanwhile_makes_no_action_endless(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch, action: str, working: bool
) -> None:
    """Workers that take up, and fail, what an action has let run; adds that go on: it meets each once."""
    await add_failed(client, 15)
    for number in range(25):
        await client.add(Work(number)).wait(10 + number).save()
    await client.add(*[Work(number) for number in range(15)]).save()
    clock.at += 1
    await claim(client)

    async def meanwhile() -> None:
        clock.at += 10
        await client.add(Work()).wait(60).save()
        for job in await claim(client) if working and action != "copy" else ():
            if job.payload[-2] in "13579":
                await finish(client, job)
            elif job.payload[-2] in "04":
                again = again_later(job, clock.at + 30_000)
                await client.open_store().finish([again])

    spied(monkeypatch, client, {"copy": "find", "cancel": "cancel"}.get(action, "act"), meanwhile)
    options = {"wait": 0} if action == "reschedule" else {}
    async with asyncio.timeout(LIMIT):
        done = await getattr(client.jobs, action)(queue="work", **options)
    assert done == {
        "retry": 40, "run_now": 25, "reschedule": 25, "release": 15, "copy": 55, "delete": 40, "cancel": 40,
    }[action]  # fmt: skip


@pytest.mark.usefixtures("small")
async def test_a_release_goes_away_from_what_starts_again(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that are run again and again, by whomever, do not keep it busy."""
    await client.add(*[Work(number) for number in range(15)]).save()
    store = client.open_store()
    running = [job.id for job in await claim(client)]
    clock.at += 1

    async def again() -> None:
        clock.at += 1
        await act(query.Release(), running, now=clock.at)
        await start()

    async def start() -> None:
        clock.at += 1
        await claim(client)

    act = store.act
    spied(monkeypatch, client, "act", start)
    spied(monkeypatch, client, "find", again)
    async with asyncio.timeout(LIMIT):
        assert await client.jobs.release(queue="work") == 10


@pytest.mark.usefixtures("small")
async def test_a_copy_is_made_once_of_what_starts_meanwhile(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pending job that was copied, and runs when the running ones are copied, is not copied again."""
    await client.add(*[Work(number) for number in range(15)]).save()
    clock.at += 1

    async def start() -> None:
        clock.at += 1
        await claim(client)

    spied(monkeypatch, client, "add", start)
    async with asyncio.timeout(LIMIT):
        assert await client.jobs.copy(queue="work") == 10


@pytest.mark.usefixtures("small")
async def test_copies_are_not_copied(client: Client) -> None:
    """Though they have the same tags, and no time passes."""
    await client.add(*[Work(number) for number in range(15)]).tags("t").save()
    async with asyncio.timeout(LIMIT):
        assert await client.jobs.copy(tag="t") == 15
    assert await client.jobs.count(tag="t") == 30
    assert len(await claim(client)) == 30


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("action", ["cancel", "delete"])
async def test_what_starts_or_ends_meanwhile_is_met_all_the_same(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Jobs that move to where the walk has been are looked for there."""
    ids = await client.add(*[Work(number) for number in range(25)]).save()
    clock.at += 1

    async def meanwhile() -> None:
        clock.at += 1
        for job in await claim(client, 3):
            if action == "delete":
                await finish(client, job)

    spied(monkeypatch, client, "cancel" if action == "cancel" else "act", meanwhile)
    async with asyncio.timeout(LIMIT):
        assert await getattr(client.jobs, action)(queue="work") == 25
    jobs = [await client.jobs.get(job_id) for job_id in ids]
    if action == "delete":
        assert jobs == [None] * 25
    else:
        assert all(job is None or job.cancelled_at is not None for job in jobs)


@pytest.mark.usefixtures("small")
async def test_a_cancellation_leaves_whole_batches(
    client: Client, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    """What was done is done, and told; the rest is as it was."""
    await add_failed(client, 35)
    batches = 0

    async def cut() -> None:
        nonlocal batches
        batches += 1
        if batches == 2:
            retrying.cancel()

    spied(monkeypatch, client, "act", cut)
    retrying = asyncio.create_task(client.jobs.retry(state="failed"))
    with pytest.raises(asyncio.CancelledError):
        await retrying
    assert await client.jobs.count(state="pending") == 20
    assert await client.jobs.count(state="failed") == 15
    [line] = journal.of("jobs.changed")
    assert "count=20" in line


async def test_jobs_with_a_parent(database: str) -> None:
    """What a handler has added is found by it, and copied without it."""
    client = Client(database)
    done = asyncio.Event()

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        await client.add(Other(1), Other(2), Other(3)).wait(60).save()
        done.set()

    async with client, asyncio.timeout(LIMIT):
        [parent] = await client.add(Work()).save()
        await done.wait()
        children = await client.jobs.list(parent=parent, limit=2)
        assert [job.payload for job in children] == [b'{"number":3}', b'{"number":2}']
        [last] = await client.jobs.list(parent=parent, limit=2, after=children.next)
        assert (await get(client, await client.jobs.copy(last.id))).parent is None
        assert await client.jobs.copy(parent=parent) == 3
        assert await client.jobs.count(parent=parent) == 3
        assert await client.jobs.delete(parent=parent) == 3
