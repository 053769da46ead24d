"""What pages ask of a store, on each: parts of large jobs, whose jobs, steps, numbers of all queues."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async import _query
from backlite_async._job import Job, JobStatus, Keep, Queue
from backlite_async._query import Delete, Found, Wanted
from backlite_async._stats import HOUR, MINUTE, WHATS, Tally
from backlite_async.stores import Store
from backlite_async.stores.sqlite import stats
from backlite_async.stores.sqlite.finding import count as count_raw
from backlite_async.stores.sqlite.kept import MOST_EXPIRED
from backlite_async.stores.sqlite.store import SQLiteStore

from .conftest import Opener
from .flows import Bench, join, step
from .test_contract import claim, complete, lane, new
from .test_listing import EXPIRED, NOW
from .test_service import fail, listed, tags, tally
from .test_stats import START, TALLIES, database

RUNNING = frozenset({JobStatus.RUNNING})
SIZES = [0, 199, 200, 201, 65_536, 65_537, 300_000]


def letters(size: int) -> bytes:
    """Return so many bytes of which no part is like another."""
    return b"".join(b"%07d," % number for number in range(size // 8 + 1))[:size]


async def found(store: Store, *, limit: int = 1000, now: int = 0, **wanted: Any) -> Found:
    return await store.find(Wanted(**wanted), limit=limit, now=now)


def names(jobs: Sequence[Job]) -> list[str]:
    return [job.id for job in jobs]


# -- parts of large jobs ---------------------------------------------------------------------------


async def one_of(store: Store, size: int) -> None:
    """Store two jobs with payloads of this size, of which one has failed, and its result is as long."""
    payload = letters(size)
    await store.add([msgspec.structs.replace(new("ended"), payload=payload)])
    [job] = (await claim(store)).jobs
    outcome = fail(job, error="é" * size, result=payload.decode(), keep=Keep(until=None, payload=True))
    await store.finish([outcome])
    await store.add([msgspec.structs.replace(new("waits"), payload=payload)])


@pytest.mark.parametrize("size", SIZES)
async def test_a_brief_list_has_the_beginnings(store: Store, size: int) -> None:
    """Of payload and result 200 bytes, of the error 200 characters; the rest of the record is whole."""
    await one_of(store, size)
    whole = list((await store.find(Wanted(), limit=5, now=0)).jobs)
    assert [job.payload for job in whole] == [letters(size)] * 2
    brief = list((await store.find(Wanted(), limit=5, now=0, brief=True)).jobs)

    def cut(job: Job) -> Job:
        return msgspec.structs.replace(
            job,
            payload=(job.payload or b"")[:200],
            result=None if job.result is None else job.result[:200],
            error=None if job.error is None else job.error[:200],
        )

    assert brief == [cut(job) for job in whole]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cut", [1, 201, 65_537, 400_000])
async def test_a_job_is_cut(store: Store, size: int, cut: int) -> None:
    """Its payload and its result, not its error."""
    await one_of(store, size)
    for job_id in ("ended", "waits"):
        whole, part = await store.get(job_id, now=0), await store.get(job_id, now=0, cut=cut)
        assert whole is not None
        assert part is not None
        result = None if whole.result is None else whole.result[:cut]
        assert part == msgspec.structs.replace(whole, payload=letters(size)[:cut], result=result)
    assert await store.get("none", now=0, cut=cut) is None


async def test_what_is_not_kept_is_not_cut(store: Store) -> None:
    await store.add([new("a")])
    [job] = (await claim(store)).jobs
    await store.finish([complete(job, keep=Keep(until=None, payload=False))])
    [brief] = (await store.find(Wanted(), limit=5, now=0, brief=True)).jobs
    assert (brief.payload, brief.result, brief.error) == (None, None, None)


async def test_no_large_payload_is_read_whole(
    open_store: Opener, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite is asked for no more of it than is shown: so many bytes where it stands, and its length."""
    store = await open_store()
    await one_of(store, 300_000)
    other = sqlite3.connect(path)
    assert other.execute("SELECT length(payload) FROM backlite_jobs").fetchall() == [(300_000,)]
    seen: list[int] = []
    other.close()
    read = sqlite3.Connection.blobopen

    def opened(raw: sqlite3.Connection, table: str, column: str, seq: int, **options: Any) -> Any:
        seen.append(seq)
        return read(raw, table, column, seq, **options)

    assert isinstance(store, SQLiteStore)
    monkeypatch.setattr(type(store._database.reader.raw), "blobopen", opened, raising=False)
    await store.find(Wanted(), limit=5, now=0, brief=True)
    assert len(seen) == 3  # two payloads and a result
    await store.find(Wanted(), limit=5, now=0)
    assert len(seen) == 3


# -- whose jobs ------------------------------------------------------------------------------------


async def owned(store: Store) -> None:
    """Store jobs that "one" and "two" run, one that each has ended, one that waits."""
    for owner in ("one", "two"):
        await store.add([new(f"{owner} ended"), new(f"{owner} runs")])
        jobs = (await claim(store, owner=owner)).jobs
        await store.finish([complete(job) for job in jobs if job.id.endswith("ended")])
    await store.add([new("waits", due_at=10**9)])


async def test_jobs_of_an_owner(store: Store) -> None:
    """What it runs, then what it has ended; nothing that waits."""
    await owned(store)
    assert await listed(store, owner="one") == ["one runs", "one ended"]
    assert await listed(store, owner="two", states=RUNNING) == ["two runs"]
    assert await listed(store, owner="two", states=frozenset({JobStatus.PENDING})) == []
    assert await listed(store, owner="two", queue="q", task="T") == ["two runs", "two ended"]
    assert await listed(store, owner="two", queue="r") == await listed(store, owner="nobody") == []
    assert int(await store.count(Wanted(owner="one"), most=10, now=0)) == 2


async def test_what_an_owner_runs_is_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others run; of those that have ended, each is looked at."""
    await store.add([new(f"{number:02}") for number in range(20)])
    await claim(store, room=10, owner="one")
    jobs = (await claim(store, room=10, owner="two")).jobs
    monkeypatch.setattr(_query, "LOOKS", 3)
    runs = await found(store, owner="two", states=RUNNING, limit=5)
    assert (len(runs.jobs), runs.limited) == (5, False)
    assert int(await store.count(Wanted(owner="two", states=RUNNING), most=50, now=0)) == 10
    await store.finish([complete(job) for job in jobs])
    assert (await found(store, owner="one", limit=20)).limited
    count = await store.count(Wanted(owner="two"), most=50, now=0)
    assert (int(count), count.capped) == (3, True)


async def test_what_waits_is_nobodys(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much waits, it is not looked at for what an owner has ended."""
    await store.add([new("ended")])
    await store.finish([complete(job) for job in (await claim(store, owner="one")).jobs])
    await store.add([new(str(number)) for number in range(5)])
    monkeypatch.setattr(_query, "LOOKS", 3)
    page = await found(store, owner="one", limit=2)
    assert (names(page.jobs), page.limited) == (["ended"], False)


# -- steps -----------------------------------------------------------------------------------------


async def test_steps_of_a_workflow(store: Store) -> None:
    """In the order of their numbers, whatever has become of them, in pages of any size and both ways."""
    bench = Bench(store)
    await bench.add(step("a"), step("b"), join("j", "a", "b"), step("c", "j"), step("d", "a"))
    await store.add([new("x", more=tags("red"))])
    await bench.claim()
    await bench.end("b")
    assert await listed(store, workflow="w") == ["a", "b", "c", "d"]
    assert await listed(store, workflow="none") == []
    assert await listed(store, workflow="w", states=frozenset({JobStatus.SUCCEEDED})) == ["b"]
    assert await listed(store, workflow="w", states=RUNNING) == ["a"]
    assert await listed(store, workflow="w", tag="red") == []
    first = await found(store, workflow="w", limit=2)
    assert (names(first.jobs), first.more) == (["a", "b"], True)
    rest = await store.find(Wanted(workflow="w"), limit=5, after=first.places[-1], now=0)
    assert (names(rest.jobs), rest.more) == (["c", "d"], False)
    back = await store.find(Wanted(workflow="w"), limit=2, before=rest.places[-1], now=0)
    assert (names(back.jobs), back.more) == (["b", "c"], True)
    assert int(await store.count(Wanted(workflow="w"), most=50, now=0)) == 4
    assert await store.act(Delete(), ["w"], now=0) == []


async def test_tagged_steps(store: Store) -> None:
    """A tag is looked at among the steps of a workflow."""
    bench = Bench(store)
    await bench.add(step("a", tags='["red"]'), step("b"), step("c", tags='["red"]'))
    await store.add([new("x", more=tags("red"))])
    assert await listed(store, workflow="w", tag="red") == ["a", "c"]
    assert await listed(store, tag="red") == ["x", "c", "a"]


# -- texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "pages"), [(25, ["a", "b", "c", "d"]), (45, ["ab", "cd"]), (1000, ["abcd"])]
)
async def test_texts_are_sought_in_so_many_bytes(
    store: Store, monkeypatch: pytest.MonkeyPatch, room: int, pages: list[str]
) -> None:
    """A page looks through so many bytes of payloads, and through one job at least; then it says so."""
    monkeypatch.setattr(_query, "LOOK_BYTES", room)
    await store.add([msgspec.structs.replace(new(name), payload=b'"%020d"' % 7) for name in "abcd"])
    places: list[Any] = [None]
    seen: list[str] = []
    while True:
        page = await store.find(Wanted(text="00007"), limit=10, after=places[-1], now=0)
        seen.append("".join(names(page.jobs)))
        assert page.more is page.limited is (len(seen) < len(pages))
        if not page.more:
            break
        places.append(page.looked_to)
    assert seen == pages
    count = await store.count(Wanted(text="00007"), most=10, now=0)
    assert (int(count), count.capped) == (len(pages[0]), len(pages) > 1)
    nothing = await store.find(Wanted(text="none"), limit=10, now=0)
    assert (names(nothing.jobs), nothing.limited) == ([], len(pages) > 1)


async def test_the_bytes_of_a_text_are_those_of_jobs_that_are_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payloads that are not kept, and expired jobs, cost nothing; and where looks end, it ends."""
    await store.add([new("gone"), new("without"), new("last")])
    for job in (await claim(store)).jobs:
        until = 5 if job.id == "gone" else None
        await store.finish([complete(job, keep=Keep(until=until, payload=job.id != "without"))])
    monkeypatch.setattr(_query, "LOOK_BYTES", 2)
    assert sorted(await listed(store, text="t", now=10)) == ["last", "without"]
    monkeypatch.setattr(_query, "LOOKS", 1)
    monkeypatch.setattr(_query, "LOOK_BYTES", 1)
    page = await found(store, text="none", now=10)
    assert (page.limited, page.more) == (True, True)


# -- numbers ---------------------------------------------------------------------------------------


async def test_one_queue_and_how_far_it_is_counted(store: Store) -> None:
    await store.add([new(str(number)) for number in range(5)])
    await store.add([new("r", queue="r")])
    for job in (await claim(store, room=3)).jobs:
        await store.finish([complete(job, keep=Keep(until=500, payload=False))])

    async def counted(**options: Any) -> list[tuple[str, int, int, tuple[str, ...]]]:
        queues: list[Queue] = list(await store.queues(**{"now": 0} | options))
        return [(queue.name, queue.pending, queue.succeeded, queue.capped) for queue in queues]

    assert await counted() == [("q", 2, 3, ()), ("r", 1, 0, ())]
    assert await counted(queue="q", most=2) == [("q", 2, 2, ("succeeded",))]
    assert await counted(queue="q", most=1) == [("q", 1, 1, ("pending", "due", "succeeded"))]
    assert await counted(queue="q", now=500) == [("q", 2, 0, ())]
    assert await counted(queue="none") == []


@pytest.mark.parametrize("most", [1, 3, 4, 5, 6, 10])
async def test_kept_jobs_of_several_tasks(store: Store, most: int) -> None:
    """They are counted in one, up to a limit, and without those of any task that have expired."""
    await store.add([new(f"{task} {number}", task) for task in "TUV" for number in range(4)])
    claimed = (await claim(store, lane("T", "U", "V", room=20))).jobs
    await store.add([new("live")])
    for job in claimed:
        until = 500 if job.id in ("T 0", "T 1", "U 0") else None
        status = JobStatus.SUCCEEDED if job.task != "V" else JobStatus.FAILED
        await store.finish([complete(job, status=status, keep=Keep(until=until, payload=False))])
    for now, succeeded in ((0, 8), (500, 5)):
        [queue] = await store.queues(now=now, most=most)
        assert (queue.succeeded, queue.failed) == (min(succeeded, most), min(4, most))
        expected = [name for name, number in (("succeeded", succeeded), ("failed", 4)) if number > most]
        assert list(queue.capped) == expected


@pytest.mark.parametrize("rows", [5, MOST_EXPIRED, MOST_EXPIRED + 1])
def test_expired_jobs_are_taken_off_counts(rows: int) -> None:
    """Few by what is known of them, many by looking."""
    with database() as raw:
        raw.execute(EXPIRED, {"rows": rows})
        for most in (1, 2, rows + 5):
            count = count_raw(raw, Wanted(), most=most, now=NOW)
            assert (int(count), count.capped) == (1, False)
        assert int(count_raw(raw, Wanted(finished=(1, None)), most=5, now=NOW)) == 0
        assert int(count_raw(raw, Wanted(), most=5, now=NOW - 1)) == min(rows + 1, 5)


async def test_numbers_without_times(store: Store) -> None:
    """What was counted of each queue, but no histograms."""
    told = [tally(what, run=3, wait=0) for what in WHATS]
    told += [tally("failed", queue="r", start=MINUTE), tally("failed", queue="r", start=9 * MINUTE)]
    await store.add([new(str(number)) for number in range(len(told))])
    for one, job in zip(told, (await claim(store, room=50)).jobs, strict=True):
        await store.finish([complete(job, tally=one)])
    expected = [("q", 0, what, 0, 1) for what in WHATS] + [("r", 0, "failed", 0, 1)]
    assert sorted(await store.numbers(since=0, until=9 * MINUTE)) == sorted(expected)
    assert list(await store.numbers(since=20 * MINUTE, until=HOUR)) == []


EVENTS = st.one_of(
    st.tuples(st.just("tally"), st.lists(TALLIES, max_size=8)),
    st.tuples(st.just("sum up"), st.integers(-5, 5).map(lambda hour: START + hour * HOUR)),
)


@given(st.lists(EVENTS, max_size=12), st.sampled_from([None, MINUTE, HOUR]), st.integers(0, 3))
def test_all_queues_together_are_their_sum(
    events: list[tuple[str, Any]], length: int | None, back: int
) -> None:
    """Whatever was counted, and summed up by the hour."""
    since = 0 if length is None else START - back * 24 * HOUR
    with database() as raw:
        for event, what in events:
            if event == "tally":
                stats.tally(raw, Counter[Tally](what))
            else:
                stats.sum_up(raw, what)
        given_to: dict[str, Any] = {"since": since, "until": START + HOUR, "step": length, "queue": None}
        apart = stats.stats(raw, **given_to, together=False)
        expected: Counter[tuple[str, int, str, int]] = Counter()
        for _, start, what, bucket, number in apart:
            expected["", start, what, bucket] += number
        together = stats.stats(raw, **given_to, together=True)
        assert together == [(*place, number) for place, number in sorted(expected.items())]


async def test_together_is_of_all_queues(store: Store) -> None:
    await store.add([new("a"), new("b")])
    for queue, job in zip("qr", (await claim(store)).jobs, strict=True):
        await store.finish([complete(job, tally=tally("failed", queue=queue, run=2))])
    assert await store.stats(since=0, until=MINUTE, together=True) == [
        ("", 0, "failed", 0, 2),
        ("", 0, "run", 2, 2),
    ]
