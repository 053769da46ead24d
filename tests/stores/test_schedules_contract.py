"""What every store promises of schedules: the sentences of `stores/_schedules.py`, run on each store."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from backlite_async import DatabaseUnavailable, DatabaseUnusable, JobStatus
from backlite_async._job import Keep, More, NewJob
from backlite_async._query import Rerun
from backlite_async._recurring import StoredSchedule, Tick
from backlite_async.stores import Store
from backlite_async.stores.sqlite import database
from backlite_async.stores.sqlite.schedules import NOTHING

from .conftest import Opener
from .test_contract import again, claim, claim_one, complete, ids, new
from .test_service import Bell, listed, tags
from .test_sqlite import query

T = TypeVar("T")


def schedule(name: str = "s", **changes: Any) -> StoredSchedule:
    """Return a schedule that is due at 1000."""
    found = StoredSchedule(
        name=name,
        timing='{"every":1000}',
        job=new("", due_at=0),
        missed="one",
        overlap=True,
        jitter=0,
        max_runs=None,
        created_at=5,
        updated_at=6,
        next_at=1000,
    )
    return msgspec.structs.replace(found, **changes)


FULL = StoredSchedule(
    name='a "name", \u00e4 \N{GRINNING FACE}',
    timing='{"cron":"* * * * *","tz":"Europe/Berlin"}',
    job=NewJob(
        id="",
        queue="q",
        task="T",
        payload='{"text":"\u00e4\\u0000 \N{GRINNING FACE}","n":[1e300,-0.0,null]}'.encode(),
        max_attempts=7,
        created_at=1,
        due_at=2,
        waits_from=3,
        priority=-5,
        more=More(key="k", turns=2, timeout=1500, parent="p", meta='{"a":1}', tags='["x","y"]'),
    ),
    missed="all",
    overlap=False,
    jitter=250,
    max_runs=9,
    created_at=10,
    updated_at=20,
    next_at=30,
    version=1,
    declared="fingerprint",
    declared_by=("one", "two"),
    removed=True,
    paused_at=40,
    runs=3,
    skipped=2,
    last_instant=50,
    last_at=60,
    last_job_id="job",
)


async def saved(store: Store, found: StoredSchedule | None = None, **changes: Any) -> StoredSchedule:
    """Store a new schedule; return it as it is stored."""
    found = schedule(**changes) if found is None else found
    assert await store.save_schedule(found, expected=None)
    return await the(store, found.name)


async def the(store: Store, name: str = "s") -> StoredSchedule:
    """Return the schedule of this name."""
    (found,) = await store.schedules(name)
    return found


def tick(found: StoredSchedule, *job_ids: str, **changes: Any) -> Tick:
    """Return a tick at 1007 that adds these jobs, and is due again at 2000."""
    made = Tick(
        name=found.name,
        version=found.version,
        jobs=tuple(new(job_id, created_at=1007, due_at=1000) for job_id in job_ids),
        next_at=2000,
        last_instant=1000,
        at=1007,
        overlap=found.overlap,
    )
    return msgspec.structs.replace(made, **changes)


async def pending(store: Store) -> list[str]:
    """Return the ids of the jobs that are there, live or kept."""
    return sorted(await listed(store, now=10**6))


# -- writing and reading ---------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [FULL, schedule()], ids=["full", "plain"])
async def test_schedule_is_kept_as_it_was_written(store: Store, kept: StoredSchedule) -> None:
    """All of it: whatever its name is, whatever JSON its payload."""
    written = msgspec.structs.replace(kept, version=77)
    assert await saved(store, written) == msgspec.structs.replace(kept, version=1)


async def test_change_replaces_all_but_the_name(store: Store) -> None:
    """A write replaces all that is there; the version is one more, whatever it says."""
    await saved(store, name=FULL.name)
    assert await store.save_schedule(FULL, expected=1)
    assert await the(store, FULL.name) == msgspec.structs.replace(FULL, version=2)
    plain = schedule(FULL.name)
    assert await store.save_schedule(plain, expected=2)
    assert await the(store, FULL.name) == msgspec.structs.replace(plain, version=3)


async def test_of_two_writers_one_wins(store: Store) -> None:
    """Who has read an older version changes nothing, and is told."""
    await saved(store)
    assert await store.save_schedule(schedule(jitter=1), expected=1)
    assert not await store.save_schedule(schedule(jitter=2), expected=1)
    assert not await store.save_schedule(schedule(jitter=2), expected=3)
    assert not await store.save_schedule(schedule(jitter=2), expected=None)
    found = await the(store)
    assert (found.jitter, found.version) == (1, 2)


async def test_nothing_is_changed_that_is_not_there(store: Store) -> None:
    """A version that is expected of an unknown schedule is not that of a new one."""
    assert not await store.save_schedule(schedule(), expected=1)
    assert not await store.save_schedule(schedule(), expected=0)
    assert await store.schedules() == []


async def test_unknown_names(store: Store) -> None:
    """Nothing is found, deleted or moved of what is not there."""
    await saved(store)
    assert await store.schedules("S") == []
    assert not await store.delete_schedule("S")
    assert await store.tick(tick(schedule("S", version=1), "a")) is None
    assert await pending(store) == []
    assert len(await store.schedules()) == 1


async def test_schedules_by_name(store: Store) -> None:
    """All of them, in the order of their names, removed ones and paused ones too."""
    names = ["b", "a", "", "Z", "\u00e4", "\N{GRINNING FACE}", "\uffff", "a b"]
    for number, name in enumerate(names):
        await saved(store, name=name, removed=number == 0, paused_at=1 if number == 1 else None)
    assert [found.name for found in await store.schedules()] == sorted(names)


async def test_delete(store: Store) -> None:
    """A schedule that is deleted is gone; what it has added stays, and its name is free."""
    found = await saved(store)
    await store.tick(tick(found, "a"))
    assert await store.delete_schedule("s")
    assert not await store.delete_schedule("s")
    assert await store.schedules() == []
    assert await store.next_tick() is None
    assert await pending(store) == ["a"]
    assert await store.tick(tick(found, "b")) is None
    assert (await saved(store)).version == 1


# -- what is due -----------------------------------------------------------------------------------


async def test_nothing_is_due_of_nothing(store: Store) -> None:
    """Without schedules there is nothing to wait for."""
    assert await store.next_tick() is None
    assert await store.due_schedules(now=10**9, limit=10) == []


async def test_what_is_due(store: Store) -> None:
    """The earliest first, then by name, no more than asked for; the first instant is the next tick."""
    instants = {"a": 300, "b": 100, "c": 200, "d": 100, "e": 301, "paused": None, "negative": -5}
    for name, instant in instants.items():
        await saved(store, name=name, next_at=instant)

    async def due(now: int, limit: int = 100) -> list[str]:
        return [found.name for found in await store.due_schedules(now=now, limit=limit)]

    assert await store.next_tick() == -5
    assert await due(300) == ["negative", "b", "d", "c", "a"]
    assert await due(300, limit=2) == ["negative", "b"]
    assert await due(99) == ["negative"]
    assert await due(-6) == []
    assert (await store.due_schedules(now=0, limit=1))[0] == await the(store, "negative")
    await store.delete_schedule("negative")
    assert await store.next_tick() == 100


async def test_paused_and_removed_ones_are_not_due(store: Store) -> None:
    """Without a next instant nothing is due; with one again, it is."""
    await saved(store, next_at=None, paused_at=7)
    await saved(store, name="gone", next_at=None, removed=True)
    assert await store.due_schedules(now=10**9, limit=10) == []
    assert await store.next_tick() is None
    assert await store.save_schedule(schedule(next_at=50), expected=1)
    assert [found.name for found in await store.due_schedules(now=50, limit=10)] == ["s"]
    assert await store.next_tick() == 50


# -- ticks -----------------------------------------------------------------------------------------


async def test_tick_adds_and_moves_on(store: Store) -> None:
    """Its jobs are there, and it is due next when it says; the rest of it stays as it was."""
    found = await saved(store, msgspec.structs.replace(FULL, next_at=1000, max_runs=None, overlap=True))
    assert await store.tick(tick(found, "a", "b")) == ["a", "b"]
    moved = {"version": 2, "next_at": 2000, "last_instant": 1000, "last_at": 1007, "last_job_id": "b"}
    assert await the(store, FULL.name) == msgspec.structs.replace(found, runs=5, **moved)
    assert ids((await claim(store, now=1000)).jobs) == ["a", "b"]


async def test_exactly_one_tick_wins(store: Store) -> None:
    """Who has read the same version adds nothing, and is told."""
    found = await saved(store)
    assert await store.tick(tick(found, "a")) == ["a"]
    assert await store.tick(tick(found, "other")) is None
    assert await store.tick(tick(found, "a")) is None
    moved = await the(store)
    assert (moved.version, moved.runs, moved.last_job_id) == (2, 1, "a")
    assert await pending(store) == ["a"]
    assert not await store.save_schedule(schedule(), expected=found.version)


async def test_tick_of_a_schedule_that_was_changed_meanwhile(store: Store) -> None:
    """Whoever pauses or edits it between the look and the tick is heeded."""
    found = await saved(store)
    assert await store.save_schedule(schedule(next_at=None, paused_at=9), expected=1)
    assert await store.tick(tick(found, "a")) is None
    assert await pending(store) == []
    assert (await the(store)).next_at is None


async def test_tick_stores_all_of_its_jobs(store: Store) -> None:
    """Tags can be found, keys take turns, and payloads are those that were asked for."""
    found = await saved(store)
    more = msgspec.structs.replace(tags("x"), key="k", turns=1, timeout=1500, meta='{"a":1}')
    jobs = [
        new(name, created_at=1007, due_at=1000, more=more, payload=FULL.job.payload)
        for name in ("a", "b", "c")
    ]
    jobs.append(new("later", created_at=1007, due_at=5000, priority=4))
    assert await store.tick(tick(found, jobs=tuple(jobs))) == ["a", "b", "c", "later"]
    assert sorted(await listed(store, tag="x", now=1007)) == ["a", "b", "c"]
    (job,) = (await claim(store, now=1007)).jobs
    assert (job.id, job.payload, job.timeout) == ("a", FULL.job.payload.decode(), 1500)
    assert (await claim(store, now=1007)).jobs == []


async def test_many_jobs_in_one_tick(store: Store) -> None:
    """All of them are there, in their order."""
    found = await saved(store)
    names = [f"{number:04}" for number in range(1000)]
    assert await store.tick(tick(found, *names)) == names
    assert ids((await claim(store, now=2000, room=2000)).jobs) == names
    assert (await the(store)).runs == 1000


async def test_tick_without_jobs(store: Store) -> None:
    """What was missed may be left out: it moves on, and nothing was added."""
    found = await saved(store, last_at=3, last_job_id="before", last_instant=2, runs=1)
    assert await store.tick(tick(found)) == []
    moved = await the(store)
    assert (moved.version, moved.next_at, moved.last_instant) == (2, 2000, 1000)
    assert (moved.runs, moved.skipped, moved.last_at, moved.last_job_id) == (1, 0, 3, "before")
    assert await store.tick(tick(moved, next_at=None, last_instant=None)) == []
    moved = await the(store)
    assert (moved.next_at, moved.last_instant) == (None, 1000)


@pytest.mark.parametrize("state", ["pending", "running", "kept"])
async def test_ids_that_are_there_are_not_added_again(store: Store, state: str) -> None:
    """They are counted all the same, and left as they are; the others of the tick are added."""
    await store.add([new("a", payload=b'"first"')])
    if state != "pending":
        job = await claim_one(store)
        if state == "kept":
            await store.finish([complete(job)])
    found = await saved(store)
    assert await store.tick(tick(found, "a", "b")) == ["a", "b"]
    moved = await the(store)
    assert (moved.runs, moved.last_job_id) == (2, "b")
    assert await pending(store) == ["a", "b"]
    there = await store.get("a", now=0)
    assert there is not None
    assert (there.payload, there.status != "pending") == (b'"first"', state != "pending")


# -- no overlap ------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["pending", "running", "to run again"])
async def test_nothing_beside_the_last_job(store: Store, state: str) -> None:
    """While it is live, whatever is due is skipped; the schedule moves on."""
    found = await saved(store, overlap=False)
    assert await store.tick(tick(found, "a")) == ["a"]
    if state != "pending":
        job = await claim_one(store, now=1007, until=9000)
        if state == "to run again":
            await store.finish([again(job, due_at=5000)])
    found = await the(store)
    assert await store.tick(tick(found, "b", "c", next_at=3000, last_instant=2000, at=2007)) == []
    moved = await the(store)
    assert (moved.runs, moved.skipped, moved.version, moved.next_at) == (1, 2, 3, 3000)
    assert (moved.last_instant, moved.last_at, moved.last_job_id) == (2000, 1007, "a")
    assert await pending(store) == ["a"]


@pytest.mark.parametrize("keep", [None, Keep(until=None, payload=True)], ids=["gone", "kept"])
async def test_the_next_one_once_the_last_has_ended(store: Store, keep: Keep | None) -> None:
    """Whether it is kept or not; if it is run again, it is live again."""
    found = await saved(store, overlap=False)
    await store.tick(tick(found, "a"))
    await store.finish([complete(await claim_one(store, now=1007), keep=keep)])
    assert await store.tick(tick(await the(store), "b", last_instant=2000)) == ["b"]
    await store.finish([complete(await claim_one(store, now=2007), keep=keep, status=JobStatus.FAILED)])
    if keep is not None:
        assert await store.act(Rerun(), ["b"], now=2100) == ["b"]
        assert await store.tick(tick(await the(store), "c")) == []
    assert (await the(store)).runs == 2


async def test_one_of_several_in_a_tick(store: Store) -> None:
    """Without overlap, the first is added and the others are skipped, as it is live."""
    found = await saved(store, overlap=False)
    assert await store.tick(tick(found, "a", "b", "c")) == ["a"]
    moved = await the(store)
    assert (moved.runs, moved.skipped, moved.last_job_id) == (1, 2, "a")
    assert await pending(store) == ["a"]


async def test_other_jobs_are_in_nobodys_way(store: Store) -> None:
    """Only the last job counts: not an earlier one, nor those of others."""
    found = await saved(store, overlap=False, last_job_id="gone")
    await store.add([new("other")])
    other = await saved(store, name="o", overlap=False)
    assert await store.tick(tick(found, "a")) == ["a"]
    assert await store.tick(tick(other, "b")) == ["b"]


# -- a last run ------------------------------------------------------------------------------------


async def test_no_more_than_max_runs(store: Store) -> None:
    """What is more is left out and not counted, and nothing is due any more."""
    found = await saved(store, max_runs=3)
    assert await store.tick(tick(found, "a", "b")) == ["a", "b"]
    found = await the(store)
    assert (found.next_at, found.runs) == (2000, 2)
    assert await store.tick(tick(found, "c", "d", next_at=3000)) == ["c"]
    moved = await the(store)
    assert (moved.next_at, moved.runs, moved.skipped, moved.last_job_id) == (None, 3, 0, "c")
    assert await pending(store) == ["a", "b", "c"]
    assert await store.next_tick() is None


async def test_skipped_ones_are_no_runs(store: Store) -> None:
    """They do not bring it to its end; what comes after the last run is not skipped, but not due."""
    found = await saved(store, max_runs=2, overlap=False)
    assert await store.tick(tick(found, "a", "b")) == ["a"]
    assert await store.tick(tick(await the(store), "c", next_at=3000)) == []
    moved = await the(store)
    assert (moved.next_at, moved.runs, moved.skipped) == (3000, 1, 2)
    await store.finish([complete(await claim_one(store, now=1007))])
    assert await store.tick(tick(moved, "d", "e", next_at=4000)) == ["d"]
    moved = await the(store)
    assert (moved.next_at, moved.runs, moved.skipped) == (None, 2, 2)


async def test_max_runs_that_were_lowered(store: Store) -> None:
    """Where more were added than there may be, nothing is, and it ends."""
    found = await saved(store, max_runs=2, runs=5)
    assert await store.tick(tick(found, "a")) == []
    moved = await the(store)
    assert (moved.next_at, moved.runs, await pending(store)) == (None, 5, [])


# -- who is told -----------------------------------------------------------------------------------


async def test_listeners_are_called(store: Store) -> None:
    """Of what is written, deleted, moved; all of it may change when to look next."""
    bell = Bell(store)
    found = await saved(store)
    await bell.rung()
    assert await store.save_schedule(schedule(next_at=5), expected=1)
    await bell.rung()
    found = await the(store)
    await store.tick(tick(found, "a"))
    await bell.rung()
    await store.delete_schedule("s")
    await bell.rung()


async def test_nobody_is_called_for_nothing(store: Store) -> None:
    """Where nothing was written, and where nothing was added: who waits for later goes on waiting."""
    found = await saved(store, overlap=False)
    await store.tick(tick(found, "a"))
    found = await the(store)
    rung: list[None] = []
    store.listen(lambda: rung.append(None))
    assert await store.tick(tick(found, "b")) == []
    assert await store.tick(tick(found, "b")) is None
    assert not await store.save_schedule(schedule(), expected=1)
    assert not await store.delete_schedule("other")
    assert rung == []


async def test_other_processes_and_stores_are_called(open_store: Opener) -> None:
    """Another store on the same file hears of it, and sees it."""
    store, other = await open_store(), await open_store()
    bell = Bell(other)
    found = await saved(store)
    await bell.rung()
    assert await other.schedules() == [found]
    await store.tick(tick(found, "a"))
    await bell.rung()
    assert await pending(other) == ["a"]
    assert await other.tick(tick(found, "a")) is None
    await store.delete_schedule("s")
    await bell.rung()


# -- a database that fails -------------------------------------------------------------------------


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that lets the next transaction fail before its commit, or after it."""
    transaction = database._transaction

    def broken(raw: sqlite3.Connection, function: Callable[[sqlite3.Connection], T], when: str) -> T:
        monkeypatch.setattr(database, "_transaction", transaction)

        def run(raw: sqlite3.Connection) -> None:
            function(raw)
            if when == "before":
                raise error

        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        transaction(raw, run)
        raise error

    def let(when: str) -> None:
        monkeypatch.setattr(database, "_transaction", lambda raw, run: broken(raw, run, when))

    return let


@pytest.mark.parametrize("when", ["before", "after"])
async def test_tick_with_an_unknown_outcome(
    open_store: Opener, breaks: Callable[[str], None], when: str
) -> None:
    """Repeated after `DatabaseUnavailable`, it adds nothing twice, and nothing is left out."""
    store = await open_store()
    found = await saved(store)
    asked = tick(found, "a", "b")
    breaks(when)
    with pytest.raises(DatabaseUnavailable):
        await store.tick(asked)
    assert await pending(store) == (["a", "b"] if when == "after" else [])
    assert await store.tick(asked) == (None if when == "after" else ["a", "b"])
    moved = await the(store)
    assert (moved.runs, moved.version, await pending(store)) == (2, 2, ["a", "b"])


@pytest.mark.parametrize("when", ["before", "after"])
async def test_write_with_an_unknown_outcome(
    open_store: Opener, breaks: Callable[[str], None], when: str
) -> None:
    """A new schedule that is written again is there once."""
    store = await open_store()
    breaks(when)
    with pytest.raises(DatabaseUnavailable):
        await store.save_schedule(schedule(), expected=None)
    assert await store.save_schedule(schedule(), expected=None) is (when == "before")
    assert (await the(store)).version == 1


async def test_tick_that_cannot_be_stored_moves_nothing(open_store: Opener) -> None:
    """A job that the database refuses leaves the schedule as it was."""
    store = await open_store()
    found = await saved(store)
    jobs = (new("a"), new("b", max_attempts=2**70))
    with pytest.raises(DatabaseUnusable):
        await store.tick(tick(found, jobs=jobs))
    assert (await the(store), await pending(store)) == (found, [])


async def test_what_others_have_written(open_store: Opener, path: str) -> None:
    """A schedule that cannot be read says nothing of when, so that it never runs, and hides no other."""
    store = await open_store()
    await saved(store)
    other = await saved(store, FULL)
    query(path, "UPDATE backlite_schedules SET job = 'nonsense' WHERE name = 's'")
    for found in (await store.schedules("s"), await store.due_schedules(now=9999, limit=2)):
        assert [(one.timing, one.job) for one in found if one.name == "s"] == [("", NOTHING)]
    assert [one for one in await store.schedules() if one.name != "s"] == [other]
    assert await store.delete_schedule("s")


# -- files -----------------------------------------------------------------------------------------


async def test_schedules_outlive_their_store(open_store: Opener) -> None:
    """They are there for the next one who opens the file."""
    store = await open_store()
    await saved(store, FULL)
    await store.close()
    assert await (await open_store()).schedules() == [FULL]


async def test_backup_has_schedules(open_store: Opener, tmp_path: Path) -> None:
    """A copy has them as they were, and goes on from there by itself."""
    store = await open_store()
    found = await saved(store)
    await saved(store, FULL)
    await store.tick(tick(found, "a"))
    before = await store.schedules()
    await store.backup(str(tmp_path / "copy.db"))
    await store.delete_schedule("s")
    copy = await open_store(str(tmp_path / "copy.db"))
    assert await copy.schedules() == before
    assert await copy.tick(tick(await the(copy), "b")) == ["b"]
    assert (await pending(copy), await pending(store)) == (["a", "b"], ["a"])


# -- both alike ------------------------------------------------------------------------------------


async def test_both_stores_agree(store: Store, open_store: Opener, tmp_path: Path) -> None:
    """Whatever is done to schedules, in whatever order, each store answers as the other one does."""
    other = await open_store(str(tmp_path / "other.db"))
    both: tuple[Store, Store] = store, other
    choose = random.Random(7)
    for step in range(150):
        name = choose.choice("abc")
        known = await store.schedules(name)
        assert await other.schedules(name) == known
        version = choose.choice([1, None, *([known[0].version] * 4 if known else [None])])
        changes: dict[str, Any] = {
            "next_at": choose.choice([None, step, step + 5]),
            "overlap": choose.random() < 0.5,
            "max_runs": choose.choice([None, None, 3]),
        }
        if known and choose.random() < 0.7:
            names = [f"{name}{step}{number}" for number in range(choose.randrange(3))]
            asked = tick(known[0], *names, version=version or 1, next_at=changes["next_at"], at=step)
            answers: list[Any] = [await one.tick(asked) for one in both]
        elif choose.random() < 0.1:
            answers = [await one.delete_schedule(name) for one in both]
        else:
            wanted = msgspec.structs.replace(known[0] if known else schedule(name), **changes)
            answers = [await one.save_schedule(wanted, expected=version) for one in both]
        assert answers[0] == answers[1]
        if choose.random() < 0.3:
            for one in both:
                await one.finish([complete(job) for job in (await claim(one, now=10**6, room=2)).jobs])
        limit = choose.randrange(3)
        assert await store.next_tick() == await other.next_tick()
        assert await store.due_schedules(now=step, limit=limit) == await other.due_schedules(
            now=step, limit=limit
        )
    assert await store.schedules() == await other.schedules()
    assert await pending(store) == await pending(other)
