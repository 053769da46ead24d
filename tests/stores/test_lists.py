"""Lists and counts of jobs: every section, every filter, both directions; on each store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from backlite_async import _query
from backlite_async._graph import NewStep, NewWorkflow
from backlite_async._job import Declared, JobStatus, Keep, Lane, More, NewJob, Unique
from backlite_async._query import Delete, Found, Postpone, SortKey, Wanted
from backlite_async._stats import Count
from backlite_async.stores import Store

from .test_contract import at, claim, claim_one, complete, new

NOW = 1000

RUNNING = ["run-b", "run-a"]
PENDING = ["p-low", "p-50", "p-50b", "w-1", "k-in", "k-u", "j-in", "p-late"]
WAITING = ["k-2", "k-3", "k-u2", "j-2"]
BLOCKED = ["b-1", "b-2", "b-3", "b-4"]
COMPLETED = ["c-gone", "c-bad", "c-ok"]
ORDER = [*RUNNING, *PENDING, *WAITING, *BLOCKED, *COMPLETED]


def keyed(job_id: str, key: str, task: str = "T", queue: str = "q", **changes: Any) -> NewJob:
    """Return a job of a key of which one may run."""
    return new(job_id, task, queue=queue, created_at=100, more=More(key=key, turns=1), **changes)


async def populate(store: Store) -> Store:
    """Add jobs to every section, and one that has expired."""
    await store.declare(
        [Declared(queue=name, keeps=True, keep_for=None, keep_payload=True, turns=1) for name in ("q", "r")],
        now=1,
    )
    await complete_some(store)
    await store.add([new("run-a", created_at=41, more=More(meta='{"who":"Ann Otter"}'))])
    await store.add([new("run-b", "U", queue="r", created_at=40)])
    await store.claim([Lane(kinds=(("r", "U"),), room=1)], owner="b", now=90, until=9999)
    await claim_one(store, until=9999)
    late = new("p-late", due_at=2000, created_at=100, more=More(tags='["red"]'))
    await store.add_unique(late, Unique(key="only"), now=100)
    await store.add(
        [
            new("p-low", due_at=40, created_at=100, priority=-5, more=More(parent="p", key="solo")),
            new("p-50", "U", due_at=50, created_at=100, payload='{"says":"Needle, ß"}'.encode()),
            new("p-50b", queue="r", due_at=50, created_at=101, priority=9),
        ]
    )
    await store.add([keyed("k-in", "k", due_at=60), keyed("k-3", "k", due_at=65, priority=-2)])
    await store.add([keyed("k-2", "k", due_at=70, priority=-1), keyed("k-u", "k", "U", due_at=61)])
    await store.add([keyed("k-u2", "k", "U", due_at=66), keyed("j-in", "a", queue="r", due_at=62)])
    await store.add([keyed("j-2", "a", queue="r", due_at=63, priority=-1)])
    await store.add([], workflows=[workflow()])
    return store


def workflow() -> NewWorkflow:
    """Return one of which the first step can run, and all others come after that."""
    jobs = [
        new("w-1", "U", due_at=55, created_at=100, more=More(workflow="w", step=0)),
        new("b-4", queue="r", due_at=52, created_at=100, more=blocked(1, tags='["red"]')),
        new("b-3", "U", due_at=3000, created_at=100, more=blocked(2, parent="p")),
        new("b-2", due_at=52, created_at=100, more=blocked(3, key="k", turns=1)),
        new("b-1", due_at=68, created_at=100, priority=5, more=blocked(4, key="solo too", turns=1)),
    ]
    first, *others = jobs
    steps = [NewStep(job=first, next=(1, 2, 3, 4)), *(NewStep(job=job, after=(0,)) for job in others)]
    return NewWorkflow(id="w", name=None, created_at=100, steps=tuple(steps))


def blocked(step: int, **more: Any) -> More:
    return More(workflow="w", step=step, blocked=True, **more)


async def complete_some(store: Store) -> None:
    await store.add([new("c-ok", created_at=10, more=More(tags='["red"]'))])
    await store.finish([complete(await claim_one(store))])
    more = More(tags='["red","blue"]', parent="p")
    await store.add([new("c-bad", created_at=20, payload=b'{"n":17}', more=more)])
    failed = complete(await claim_one(store), status=JobStatus.FAILED, finished_at=300, error="It BROKE")
    await store.finish([failed])
    await store.add([new("c-gone", "U", created_at=30)])
    await store.cancel(["c-gone"], now=300)
    await store.add([new("c-old", more=More(tags='["red"]', parent="p"))])
    await store.finish([complete(await claim_one(store), keep=Keep(until=NOW, payload=True))])


def states(*names: str) -> Wanted:
    return Wanted(states=frozenset(JobStatus(name) for name in names))


EACH: dict[str, tuple[Wanted, Sequence[str]]] = {
    "all": (Wanted(), ORDER),
    "queue": (Wanted(queue="r"), ["run-b", "p-50b", "j-in", "j-2", "b-4"]),
    "other queue": (Wanted(queue="R"), []),
    "task": (Wanted(task="U"), ["run-b", "p-50", "w-1", "k-u", "k-u2", "b-3", "c-gone"]),
    "queue and task": (Wanted(queue="q", task="U"), ["p-50", "w-1", "k-u", "k-u2", "b-3", "c-gone"]),
    "running": (states("running"), RUNNING),
    "pending": (states("pending"), [*PENDING, *WAITING, *BLOCKED]),
    "succeeded": (states("succeeded"), ["c-ok"]),
    "failed": (states("failed"), ["c-bad"]),
    "cancelled": (states("cancelled"), ["c-gone"]),
    "two states": (states("failed", "running"), [*RUNNING, "c-bad"]),
    "no state": (states(), []),
    "not found": (states("not_found"), []),
    "state, queue, task": (
        Wanted(queue="q", task="T", states=frozenset({JobStatus.PENDING})),
        ["p-low", "k-in", "p-late", "k-2", "k-3", "b-1", "b-2"],
    ),
    "tag": (Wanted(tag="red"), ["b-4", "p-late", "c-bad", "c-ok"]),
    "second tag": (Wanted(tag="blue"), ["c-bad"]),
    "other tag": (Wanted(tag="re"), []),
    "tag and state": (Wanted(tag="red", states=frozenset({JobStatus.PENDING})), ["b-4", "p-late"]),
    "tag and times": (Wanted(tag="red", finished=(200, 200)), ["c-ok"]),
    "tag and parent": (Wanted(tag="red", parent="p"), ["c-bad"]),
    "parent": (Wanted(parent="p"), ["b-3", "p-low", "c-bad"]),
    "parent and state": (Wanted(parent="p", states=frozenset({JobStatus.FAILED})), ["c-bad"]),
    "other parent": (Wanted(parent="q"), []),
    "unique": (Wanted(queue="q", unique="only"), ["p-late"]),
    "unique and tag": (Wanted(queue="q", unique="only", tag="red"), ["p-late"]),
    "unique and another tag": (Wanted(queue="q", unique="only", tag="blue"), []),
    "unique of none and tag": (Wanted(queue="q", unique="none", tag="red"), []),
    "unique and task": (Wanted(queue="q", unique="only", task="U"), []),
    "unique of another queue": (Wanted(queue="r", unique="only"), []),
    "key": (Wanted(key="k"), ["k-in", "k-u", "k-2", "k-3", "k-u2", "b-2"]),
    "key of a blocked one": (Wanted(key="solo too"), ["b-1"]),
    "key and queue": (Wanted(key="a", queue="q"), []),
    "added until": (Wanted(added=(None, 30)), COMPLETED),
    "added since": (Wanted(added=(101, None)), ["p-50b"]),
    "added at": (Wanted(added=(40, 41)), RUNNING),
    "due since": (Wanted(due=(66, None)), ["p-late", "k-2", "k-u2", "b-1", "b-3"]),
    "due until": (Wanted(due=(None, 50)), ["p-low", "p-50", "p-50b"]),
    "due at": (Wanted(due=(60, 63)), ["k-in", "k-u", "j-in", "j-2"]),
    "due of a queue": (Wanted(queue="r", due=(51, 5000)), ["j-in", "j-2", "b-4"]),
    "due in every section": (
        Wanted(due=(52, 68)),
        ["w-1", "k-in", "k-u", "j-in", "k-3", "k-u2", "j-2", "b-1", "b-2", "b-4"],
    ),
    "finished until": (Wanted(finished=(None, 299)), ["c-ok"]),
    "finished since": (Wanted(finished=(300, None)), ["c-gone", "c-bad"]),
    "finished at": (Wanted(finished=(200, 300)), COMPLETED),
    "finished of a task": (Wanted(finished=(200, 300), task="T"), ["c-bad", "c-ok"]),
    "finished and due": (Wanted(finished=(None, 300), due=(0, 5000)), []),
    "text of a payload": (Wanted(text="nEEdLe, ß"), ["p-50"]),
    "text of an error": (Wanted(text="t brok"), ["c-bad"]),
    "text of ids": (Wanted(text="C-"), COMPLETED),
    "text of meta": (Wanted(text='"ann o'), ["run-a"]),
    "text of a key": (Wanted(text="sOLo"), ["p-low", "b-1"]),
    "text of few": (Wanted(text="-", queue="r", task="T"), ["p-50b", "j-in", "j-2", "b-4"]),
    "text that is no pattern": (Wanted(text="%"), []),
    "text of no one": (Wanted(text="_"), []),
    "text, added, key": (Wanted(text="U", added=(100, 100), key="k"), ["k-u", "k-u2"]),
}
each = pytest.mark.parametrize("name", EACH)


def end(wanted: Wanted) -> SortKey:
    """Return a place behind all of a list."""
    if wanted.tag is not None:
        return (5, 0)
    return (4, 0, 0) if wanted.parent is None else (7, 0)


def found_ids(found: Found) -> list[str]:
    return [job.id for job in found.jobs]


async def pages(store: Store, wanted: Wanted, limit: int) -> list[Found]:
    """Read all pages from the first to the last."""
    found = [await store.find(wanted, limit=limit, now=NOW)]
    while found[-1].more:
        assert len(found) < 200, "pages without end"
        after = found[-1].looked_to if found[-1].limited else found[-1].places[-1]
        found.append(await store.find(wanted, limit=limit, after=after, now=NOW))
    return found


async def pages_back(store: Store, wanted: Wanted, limit: int) -> list[Found]:
    """Read all pages from the last to the first; return them in the order of the list."""
    found = [await store.find(wanted, limit=limit, before=end(wanted), now=NOW)]
    while found[-1].more:
        assert len(found) < 200, "pages without end"
        before = found[-1].looked_to if found[-1].limited else found[-1].places[0]
        found.append(await store.find(wanted, limit=limit, before=before, now=NOW))
    return found[::-1]


def joined(found: Sequence[Found]) -> tuple[list[str], list[SortKey]]:
    places = [place for page in found for place in page.places]
    assert places == sorted(set(places))
    return [job_id for page in found for job_id in found_ids(page)], places


@each
async def test_list(store: Store, name: str) -> None:
    """Of every filter: the jobs in their order, whole, in pages from either end, and their number."""
    wanted, expected = EACH[name]
    await populate(store)
    whole = await store.find(wanted, limit=100, now=NOW)
    assert found_ids(whole) == expected
    assert (whole.more, whole.limited, whole.looked_to) == (False, False, None)
    exact = await store.find(wanted, limit=max(len(expected), 1), now=NOW)
    assert (found_ids(exact), exact.more) == (expected, False)
    there = await pages(store, wanted, 2)
    assert joined(there) == (expected, list(whole.places))
    assert len(there) == max(-(-len(expected) // 2), 1)
    back = await pages_back(store, wanted, 3)
    assert joined(back) == (expected, list(whole.places))
    assert not any(page.limited for page in [*there, *back])
    count = await store.count(wanted, most=len(expected), now=NOW)
    assert (int(count), count.capped) == (len(expected), False)


async def test_places(store: Store) -> None:
    """A job's place tells its section and, in it, its instant; of those that wait all that orders them."""
    await populate(store)
    found = await store.find(Wanted(), limit=100, now=NOW)
    shown = [place[:-1] for place in found.places]
    assert shown[:2] == [(0, 90), (0, 100)]
    assert shown[2:10] == [(1, instant) for instant in (40, 50, 50, 55, 60, 61, 62, 2000)]
    assert shown[10:14] == [
        (2, "q", "k", "T", 1, 70),
        (2, "q", "k", "T", 2, 65),
        (2, "q", "k", "U", 0, 66),
        (2, "r", "a", "T", 1, 63),
    ]
    assert shown[14:18] == [
        (3, "q", "T", -5, 68),
        (3, "q", "T", 0, 52),
        (3, "q", "U", 0, 3000),
        (3, "r", "T", 0, 52),
    ]
    assert shown[18:] == [(4, -300), (4, -300), (4, -200)]
    tagged = await store.find(Wanted(tag="red"), limit=100, now=NOW)
    assert [place[0] for place in tagged.places] == [5, 5, 5, 5]
    children = await store.find(Wanted(parent="p"), limit=100, now=NOW)
    assert [place[0] for place in children.places] == [6, 6, 7]


async def test_list_shows_records(store: Store) -> None:
    """The jobs of a list are as `get` returns them, without errors, lines and unique key."""
    await populate(store)
    found = await store.find(Wanted(), limit=100, now=NOW)
    for job in found.jobs:
        record = await store.get(job.id, now=NOW)
        assert record is not None
        assert job == msgspec.structs.replace(record, unique=None)
    assert found.jobs[-1].finished_at == at(200)


async def test_places_of_jobs_that_are_gone(store: Store) -> None:
    """A page begins behind a place, whether there is still a job at it."""
    await populate(store)
    found = await store.find(Wanted(), limit=100, now=NOW)
    places = dict(zip(ORDER, found.places, strict=True))
    gone = ["p-50", "j-2", "c-bad"]
    await store.act(Delete(), gone, now=NOW)
    for job_id in gone:
        at_it = ORDER.index(job_id)
        later = await store.find(Wanted(), limit=100, after=places[job_id], now=NOW)
        earlier = await store.find(Wanted(), limit=100, before=places[job_id], now=NOW)
        assert found_ids(later) == [one for one in ORDER[at_it + 1 :] if one not in gone]
        assert found_ids(earlier) == [one for one in ORDER[:at_it] if one not in gone]


async def test_pages_while_jobs_move(store: Store) -> None:
    """What leaves its place for a later one is met there; nothing that stays is missed."""
    await populate(store)
    first = await store.find(Wanted(), limit=4, now=NOW)
    await store.act(Postpone(due_at=1500), ["p-50", "p-50b"], now=NOW)
    rest = await store.find(Wanted(), limit=100, after=first.places[-1], now=NOW)
    due = ["w-1", "k-in", "k-u", "j-in", "p-50", "p-50b", "p-late"]
    assert found_ids(first) == ORDER[:4]
    assert found_ids(rest) == [*due, *WAITING, *BLOCKED, *COMPLETED]


async def test_list_of_one_instant(store: Store) -> None:
    """Of jobs that are due, or have ended, at one instant, the order of adding or of their ends decides."""
    due = [
        new(f"{number:02}", "TUV"[number % 3], queue="qr"[number % 2], priority=number % 5 - 2)
        for number in range(40)
    ]
    await store.add(due)
    expected = [job.id for job in due]
    for limit in (1, 7, 40):
        assert joined(await pages(store, Wanted(), limit))[0] == expected
        assert joined(await pages_back(store, Wanted(), limit))[0] == expected
    jobs = (await store.claim([Lane(kinds=tuple(kinds(due)), room=40)], owner="x", now=100, until=900)).jobs
    assert joined(await pages(store, Wanted(), 9))[0] == expected
    for job in sorted(jobs, key=lambda job: job.id):
        await store.finish([complete(job)])
    for limit in (1, 7, 40):
        assert joined(await pages(store, Wanted(), limit))[0] == expected[::-1]
        assert joined(await pages_back(store, Wanted(), limit))[0] == expected[::-1]


def kinds(jobs: Sequence[NewJob]) -> list[tuple[str, str]]:
    return sorted({(job.queue, job.task) for job in jobs})


async def test_a_second_end_is_later(store: Store) -> None:
    """A job that ends anew, or another of its id, is where it has ended last."""
    await store.add([new("a"), new("b")])
    await store.finish([complete(job) for job in (await claim(store)).jobs])
    await store.add([new("a")])
    await store.finish([complete(await claim_one(store))])
    assert found_ids(await store.find(Wanted(), limit=9, now=NOW)) == ["a", "b"]


async def test_unique_key_is_of_the_last_job(store: Store) -> None:
    """Of jobs with one unique key the last one is meant, live or kept; once it is gone, none."""
    unique, wanted = Unique(key="u"), Wanted(queue="q", unique="u")
    await store.add_unique(new("a"), unique, now=0)
    await store.finish([complete(await claim_one(store))])
    assert found_ids(await store.find(wanted, limit=9, now=NOW)) == ["a"]
    await store.add_unique(new("b"), unique, now=0)
    assert found_ids(await store.find(wanted, limit=9, now=NOW)) == ["b"]
    await store.finish([complete(await claim_one(store), keep=None)])
    assert found_ids(await store.find(wanted, limit=9, now=NOW)) == []
    await store.add([new("b", created_at=5)])
    assert found_ids(await store.find(wanted, limit=9, now=NOW)) == []


async def test_unique_key_of_a_job_that_was_moved(store: Store) -> None:
    """A job that was replaced by one of another queue is not in a list of the first queue."""
    await store.add_unique(new("a"), Unique(key="u"), now=0)
    assert await store.add_unique(new("a", queue="r"), Unique(own_id=True, replace_own=True), now=0) == "a"
    for more in (None, frozenset({JobStatus.PENDING})):
        for queue in "qr":
            wanted = Wanted(queue=queue, unique="u", states=more)
            assert found_ids(await store.find(wanted, limit=9, now=NOW)) == []
    moved = await store.get("a", now=NOW)
    assert moved is not None
    assert (moved.queue, moved.unique) == ("r", None)


async def test_a_record_tells_the_unique_key_while_it_keeps_others_away(store: Store) -> None:
    """While its job lives, then within its time; not that of another of its id, nor in lists."""

    async def held(job_id: str, now: int) -> str | None:
        found = await store.get(job_id, now=now)
        assert found is not None
        return found.unique

    await store.add([new("plain")])
    await store.finish([complete(await claim_one(store))])
    await store.add_unique(new("a"), Unique(key="u", within=900), now=0)
    await store.add_unique(new("b"), Unique(key="v"), now=0)
    assert [await held(job_id, 5) for job_id in ("plain", "a", "b")] == [None, "u", "v"]
    assert [job.unique for job in (await store.find(Wanted(), limit=9, now=5)).jobs] == [None] * 3
    await store.finish([complete(job) for job in (await claim(store)).jobs])
    assert [await held(job_id, 899) for job_id in ("a", "b")] == ["u", None]
    assert await held("a", 900) is None
    await store.add_unique(new("c", created_at=10), Unique(key="v"), now=10)
    assert await held("c", 10) == "v"
    await store.finish([complete(await claim_one(store), keep=None)])
    await store.add([new("c", created_at=30)])
    assert await held("c", 40) is None


async def test_names_in_lists_are_data(store: Store) -> None:
    """Queues, tasks, keys, tags and texts of any characters are found, and found alone."""
    for name in ["ü 日", "it's", 'say "x"', "a\\b", "%_*?[", "q\u2028"]:
        more = More(key=name, tags=msgspec.json.encode([name]).decode(), parent=name)
        await store.add([new(f"id {name}", name, queue=name, more=more)])
        wanted = [
            Wanted(queue=name),
            Wanted(task=name),
            Wanted(key=name),
            Wanted(tag=name),
            Wanted(parent=name),
            Wanted(text=name),
        ]
        for one in wanted:
            assert found_ids(await store.find(one, limit=9, now=NOW)) == [f"id {name}"]


# -- what is looked at -----------------------------------------------------------------------------


LOOKED_AT: dict[str, Wanted] = {
    "text": Wanted(text="c-"),
    "added": Wanted(added=(10, 30)),
    "text and queue": Wanted(text="-", queue="q"),
    "key": Wanted(key="k"),
    "tag and state": Wanted(tag="red", states=frozenset({JobStatus.SUCCEEDED})),
    "parent and state": Wanted(parent="p", states=frozenset({JobStatus.FAILED})),
    "nothing": Wanted(text="no such text"),
}


@pytest.mark.parametrize("name", LOOKED_AT)
@pytest.mark.parametrize("looks", [1, 4])
async def test_looks_are_limited(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, looks: int
) -> None:
    """Only so many jobs are looked at by one question; where it stopped, the next one begins."""
    await populate(store)
    wanted = LOOKED_AT[name]
    expected = found_ids(await store.find(wanted, limit=100, now=NOW))
    monkeypatch.setattr(_query, "LOOKS", looks)
    for limit in (1, 100):
        assert joined(await pages(store, wanted, limit))[0] == expected
        assert joined(await pages_back(store, wanted, limit))[0] == expected


async def test_what_is_limited_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that had to stop says so, and where."""
    await populate(store)
    places = (await store.find(Wanted(), limit=100, now=NOW)).places
    monkeypatch.setattr(_query, "LOOKS", 3)
    found = await store.find(Wanted(text="c-"), limit=5, now=NOW)
    assert (found_ids(found), found.more, found.limited, found.looked_to) == ([], True, True, places[2])
    back = await store.find(Wanted(text="p-"), limit=5, before=places[10], now=NOW)
    assert found_ids(back) == ["p-late"]
    assert (back.more, back.limited, back.looked_to) == (True, True, places[7])
    last = await store.find(Wanted(text="c-"), limit=5, after=places[17], now=NOW)
    assert (found_ids(last), last.more, last.limited, last.looked_to) == (COMPLETED, False, False, None)


async def test_a_full_page_is_not_limited(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that was filled by the last look is full; there may be another one."""
    await populate(store)
    monkeypatch.setattr(_query, "LOOKS", 4)
    found = await store.find(Wanted(text="p-"), limit=2, now=NOW)
    assert (found_ids(found), found.more, found.limited) == (["p-low", "p-50"], True, False)


async def test_what_indexes_know_is_not_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is to be looked at, nothing is limited."""
    await populate(store)
    monkeypatch.setattr(_query, "LOOKS", 1)
    indexed = [
        Wanted(),
        Wanted(queue="q"),
        Wanted(task="T"),
        states("pending"),
        Wanted(due=(50, 70)),
        Wanted(finished=(200, 300)),
        Wanted(tag="red"),
        Wanted(parent="p"),
    ]
    for wanted in indexed:
        found = await store.find(wanted, limit=100, now=NOW)
        assert (found.limited, found.more) == (False, False)
        assert len(found.jobs) > 1
        count = await store.count(wanted, most=100, now=NOW)
        assert (int(count), count.capped) == (len(found.jobs), False)


# -- count -----------------------------------------------------------------------------------------


def capped(count: Count) -> tuple[int, bool]:
    return int(count), count.capped


async def test_count_is_capped(store: Store) -> None:
    """A count ends where it is told to, and says so."""
    await populate(store)
    for wanted in (Wanted(), states("pending"), Wanted(tag="red"), Wanted(text="-"), Wanted(key="k")):
        number = len((await store.find(wanted, limit=100, now=NOW)).jobs)
        assert capped(await store.count(wanted, most=number + 1, now=NOW)) == (number, False)
        assert capped(await store.count(wanted, most=number, now=NOW)) == (number, False)
        assert capped(await store.count(wanted, most=number - 1, now=NOW)) == (number - 1, True)
        assert capped(await store.count(wanted, most=1, now=NOW)) == (1, True)


async def test_count_looks_at_few(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that has to look at jobs is capped where it had to stop, by what it has seen."""
    await populate(store)
    monkeypatch.setattr(_query, "LOOKS", 10)
    assert capped(await store.count(Wanted(text="p-"), most=100, now=NOW)) == (4, True)
    assert capped(await store.count(Wanted(text="c-"), most=100, now=NOW)) == (0, True)
    monkeypatch.setattr(_query, "LOOKS", len(ORDER))
    assert capped(await store.count(Wanted(text="c-"), most=100, now=NOW)) == (3, False)


async def test_nothing_to_list(store: Store) -> None:
    """A store that is empty has nothing to list."""
    for wanted in (Wanted(), Wanted(text="a"), Wanted(tag="a"), Wanted(queue="q", unique="u")):
        for found in (
            await store.find(wanted, limit=5, now=NOW),
            await store.find(wanted, limit=5, after=(0, 5, 5), now=NOW),
            await store.find(wanted, limit=5, before=end(wanted), now=NOW),
        ):
            assert (list(found.jobs), list(found.places)) == ([], [])
            assert (found.more, found.limited, found.looked_to) == (False, False, None)
    assert capped(await store.count(Wanted(), most=5, now=NOW)) == (0, False)


async def test_queues_count_what_waits_for_other_steps(store: Store) -> None:
    """They are pending and waiting, neither scheduled nor due; a queue that has nothing else is listed."""
    await store.add([], workflows=[workflow()])
    queues = {queue.name: queue for queue in await store.queues(now=NOW)}
    numbers = {name: (queue.pending, queue.waiting, queue.scheduled) for name, queue in queues.items()}
    assert numbers == {"q": (4, 3, 0), "r": (1, 1, 0)}
    assert queues["q"].oldest_due == timedelta(milliseconds=NOW - 55)
    assert queues["r"].oldest_due is None


async def test_blocked_job_shows_its_key_and_workflow(store: Store) -> None:
    """It waits for no turn of that key yet, but people see which one it will have."""
    await populate(store)
    shown = {
        job.id: (job.status, job.key, job.workflow)
        for job in (await store.find(Wanted(), limit=99, now=NOW)).jobs
    }
    assert shown["b-2"] == (JobStatus.PENDING, "k", "w")
    assert shown["b-3"] == (JobStatus.PENDING, None, "w")
    assert shown["w-1"] == (JobStatus.PENDING, None, "w")
    assert shown["k-2"] == (JobStatus.PENDING, "k", None)


async def test_what_waits_for_its_turn_or_for_other_steps_says_so(store: Store) -> None:
    await populate(store)
    found = await store.find(Wanted(), limit=100, now=NOW)
    assert [job.id for job in found.jobs if job.waiting] == [*WAITING, *BLOCKED]
    for job in found.jobs:
        got = await store.get(job.id, now=NOW)
        assert got is not None
        assert got.waiting is job.waiting
