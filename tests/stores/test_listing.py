"""The SQLite store's lists: what they find, whatever the shape of the backlog, and by which indexes."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from backlite_async import _query
from backlite_async._job import JobStatus, NewJob
from backlite_async._query import Delete, Release, SortKey, Wanted
from backlite_async.stores.sqlite import finding, listing
from backlite_async.stores.sqlite.actions import act
from backlite_async.stores.sqlite.sql import named, statements
from backlite_async.stores.sqlite.store import SQLiteStore
from backlite_async.stores.sqlite.walks import walk

from .conftest import Opener

NOW = 1_000

STATES = [status for status in JobStatus if status is not JobStatus.NOT_FOUND]


class Stored(NamedTuple):
    """A job as its row has it; a live one without `due_at` waits for its turn, or is `blocked`."""

    seq: int
    id: str
    queue: str
    task: str
    status: JobStatus
    priority: int
    key: str | None
    created_at: int
    scheduled_at: int
    due_at: int | None
    started_at: int | None
    finished_at: int | None
    expires_at: int | None
    parent: str | None
    error: str | None
    tags: tuple[tuple[int, str], ...] = ()
    blocked: bool = False
    owner: str | None = None
    workflow: str | None = None
    step: int | None = None

    @property
    def ended(self) -> bool:
        return self.finished_at is not None


def jobs_of(chance: random.Random, number: int) -> list[Stored]:
    """Return jobs of all sorts, many of them at one and the same instant."""
    queues, tasks, keys = chance.randint(1, 4), chance.randint(1, 3), chance.randint(1, 6)
    instants = chance.choice([1, 3, 100])
    numbers = itertools.count(1)

    def some(of: Sequence[Any], none: float = 0.5) -> Any:
        return None if chance.random() < none else chance.choice(of)

    found = []
    for seq in range(1, number + 1):
        status = chance.choice([*STATES, JobStatus.PENDING, JobStatus.PENDING])
        key = some([f"key-{place}" for place in range(keys)])
        at = chance.randrange(instants) * 10
        ended = status not in (JobStatus.PENDING, JobStatus.RUNNING)
        blocked = status is JobStatus.PENDING and chance.random() < 0.3
        waits = status is JobStatus.PENDING and (blocked or (key is not None and chance.random() < 0.6))
        found.append(
            Stored(
                seq=seq,
                id=f"job {seq}",
                queue=f"queue {chance.randrange(queues)}",
                task=f"Task{chance.randrange(tasks)}",
                status=status,
                priority=chance.randint(-2, 2),
                key=key,
                created_at=chance.randrange(instants) * 10,
                scheduled_at=at,
                due_at=None if waits or ended else at if chance.random() < 0.8 else at + 5,
                started_at=at if status is JobStatus.RUNNING else None,
                finished_at=at if ended else None,
                expires_at=some([NOW, NOW + 1, NOW - 1]) if ended else None,
                parent=some(["parent", "other"]),
                error=some(["Not now", "never"]),
                tags=tuple((next(numbers), tag) for tag in ("red", "blue") if chance.random() < 0.4),
                blocked=blocked,
                owner=f"owner {seq % 3}" if status is JobStatus.RUNNING else some(OWNERS) if ended else None,
                workflow=None if seq % 4 else f"of {seq % 8}",
                step=None if seq % 4 else seq // 4,
            )
        )
    return found


OWNERS = [f"owner {number}" for number in range(3)]

LIVE = """
INSERT INTO backlite_jobs (
    seq, id, queue, task, status, priority, key, created_at, scheduled_at, due_at, started_at, parent, error,
    payload, max_attempts, fence, owner, workflow, step, blocked
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, x'7b7d', 3, 7, ?, ?, ?, ?)
"""

ENDED = """
INSERT INTO backlite_completed (
    seq, id, queue, task, status, priority, key, created_at, scheduled_at, finished_at, expires_at, parent,
    error, owner, workflow, step, attempt, max_attempts, crashes
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 3, 0)
"""


STEP = """
INSERT INTO backlite_steps (workflow, number, kind, job_id, blocked, if_failed, after, next)
VALUES (?, ?, 'step', ?, 0, 'cancel', '[]', '[]')
"""


def fill(raw: sqlite3.Connection, jobs: Sequence[Stored]) -> None:
    for job in jobs:
        row: list[object] = [*job[:4], job.status.value, *job[5:9]]
        owner = "somebody" if job.status is JobStatus.RUNNING and job.owner is None else job.owner
        of_flow = (owner, job.workflow, job.step)
        if job.ended:
            raw.execute(ENDED, [*row, job.finished_at, job.expires_at, job.parent, job.error, *of_flow])
        else:
            row[6], blocked = (None, job.key or "") if job.blocked else (job.key, None)
            raw.execute(LIVE, [*row, job.due_at, job.started_at, job.parent, job.error, *of_flow, blocked])
        if job.workflow is not None:
            raw.execute(STEP, (job.workflow, job.step, job.id))
        for tag in job.tags:
            raw.execute(
                "INSERT INTO backlite_tags (number, job_id, tag) VALUES (?, ?, ?)", (tag[0], job.id, tag[1])
            )
        raw.execute(
            "INSERT OR REPLACE INTO backlite_unique (queue, key, job_id, added_at, until, look_at)"
            " VALUES (?, ?, ?, ?, 0, 0)",
            (job.queue, "last", job.id, job.created_at),
        )


FLOWS = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :rows)
INSERT INTO backlite_workflows (id, created_at, size, left, status, expires_at)
SELECT 'flow ' || n, 0, 3, 3, iif(n % 3, NULL, 'failed'), iif(n % 3, NULL, n) FROM number
"""

NODES = """
INSERT INTO backlite_steps (workflow, number, kind, job_id, name, status, blocked, if_failed, after, next)
SELECT
    workflows.id, value, 'step', 'job ' || (3 * workflows.rowid + value), nullif('step ' || value, 'step 2'),
    CASE WHEN expires_at THEN 'failed' END, value, 'cancel', '[]', '[]'
FROM backlite_workflows AS workflows CROSS JOIN json_each('[0, 1, 2]') WHERE workflows.id LIKE 'flow %'
"""


def add_flows(raw: sqlite3.Connection, rows: int) -> None:
    """Add so many workflows, with three steps each, some of which have jobs."""
    raw.execute(FLOWS, {"rows": rows})
    raw.execute(NODES)


# -- what they find --------------------------------------------------------------------------------


def place(job: Stored, wanted: Wanted) -> SortKey:
    if wanted.workflow is not None:
        return (8, job.step or 0)
    if wanted.tag is not None:
        return (5, -next(number for number, tag in job.tags if tag == wanted.tag))
    if wanted.parent is not None:
        return (7 if job.ended else 6, -job.seq)
    if job.finished_at is not None:
        return (4, -job.finished_at, -job.seq)
    if job.started_at is not None:
        return (0, job.started_at, job.seq)
    if job.blocked:
        return (3, job.queue, job.task, -job.priority, job.scheduled_at, job.seq)
    if job.due_at is None:
        return (2, job.queue, job.key or "", job.task, -job.priority, job.scheduled_at, job.seq)
    return (1, job.due_at, job.seq)


def within(instant: int | None, times: tuple[int | None, int | None] | None) -> bool:
    if times is None:
        return True
    since, until = times
    return instant is not None and (since is None or since <= instant) and (until is None or instant <= until)


def fits(job: Stored, wanted: Wanted, last: dict[str, str]) -> bool:
    pending = job.status is JobStatus.PENDING
    text = None if wanted.text is None else wanted.text.lower()
    payload = "" if job.ended else "{}"
    return (
        (job.expires_at is None or job.expires_at > NOW)
        and wanted.queue in (None, job.queue)
        and wanted.task in (None, job.task)
        and (wanted.states is None or job.status in wanted.states)
        and (wanted.tag is None or wanted.tag in [tag for _, tag in job.tags])
        and wanted.key in (None, job.key)
        and (wanted.unique is None or last[job.queue] == job.id)
        and wanted.parent in (None, job.parent)
        and wanted.owner in (None, job.owner)
        and wanted.workflow in (None, job.workflow)
        and within(job.created_at, wanted.added)
        and within(
            (job.due_at if job.due_at is not None else job.scheduled_at) if pending else None, wanted.due
        )
        and within(job.finished_at, wanted.finished)
        and (
            text is None
            or any(text in part.lower() for part in (job.id, job.key or "", job.error or "", payload))
        )
    )


def wanted_of(chance: random.Random) -> Wanted:
    def times() -> tuple[int | None, int | None]:
        return chance.choice([None, 0, 10, 500]), chance.choice([None, 0, 15, 900])

    options: dict[str, Callable[[], Any]] = {
        "queue": lambda: f"queue {chance.randrange(4)}",
        "task": lambda: f"Task{chance.randrange(3)}",
        "states": lambda: frozenset(chance.sample(STATES, chance.randint(1, 3))),
        "tag": lambda: chance.choice(["red", "blue", "none"]),
        "key": lambda: f"key-{chance.randrange(6)}",
        "unique": lambda: "last",
        "parent": lambda: chance.choice(["parent", "none"]),
        "owner": lambda: chance.choice([*OWNERS, "none"]),
        "workflow": lambda: f"of {chance.choice([0, 4, 5])}",
        "added": times,
        "due": times,
        "finished": times,
        "text": lambda: chance.choice(["NOW", "job 1", "KEY-2", "{", "none"]),
    }
    chosen = chance.sample(list(options), chance.choice([0, 1, 1, 2, 2, 3]))
    if "unique" in chosen and "queue" not in chosen:
        chosen.append("queue")
    return Wanted(**{name: options[name]() for name in chosen})


def walked(
    raw: sqlite3.Connection, wanted: Wanted, limit: int, *, back: bool
) -> tuple[list[str], list[SortKey], bool]:
    """Return the ids and places of all pages, and whether any was limited."""
    ids: list[str] = []
    places: list[SortKey] = []
    here: SortKey | None = (9,) if back else None
    limited = False
    while True:
        after, before = (None, here) if back else (here, None)
        found = finding.find(raw, wanted, limit=limit, after=after, before=before, now=NOW)
        assert len(found.jobs) == len(found.places) <= limit
        assert found.limited is (found.looked_to is not None)
        limited = limited or found.limited
        new = [job.id for job in found.jobs]
        ids, places = (
            ([*new, *ids], [*found.places, *places]) if back else ([*ids, *new], [*places, *found.places])
        )
        if not found.more:
            return ids, places, limited
        assert found.limited or len(new) == limit
        here = found.looked_to or found.places[0 if back else -1]


@pytest.fixture
def raw(path: str) -> Iterator[sqlite3.Connection]:
    """Return a connection to an empty database."""
    asyncio.run(SQLiteStore(path, durability="normal", busy_timeout=5.0).install())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    yield connection
    connection.close()


def test_lists_find_what_sorting_all_jobs_finds(
    raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever there is and whatever is wanted: in both directions, by pages of any size, with few looks."""
    limits = 0
    for seed in range(40):
        chance = random.Random(seed)
        jobs = jobs_of(chance, chance.choice([5, 60, 150]))
        last = {job.queue: job.id for job in jobs}
        raw.execute("BEGIN")
        fill(raw, jobs)
        for _ in range(12):
            wanted = wanted_of(chance)
            expected = sorted((place(job, wanted), job.id) for job in jobs if fits(job, wanted, last))
            limit = chance.choice([1, 2, 7, 1000])
            monkeypatch.setattr(_query, "LOOKS", chance.choice([1, 3, 10_000]) if limit > 2 else 10_000)
            for back in (False, True):
                ids, places, limited = walked(raw, wanted, limit, back=back)
                assert ids == [job_id for _, job_id in expected], (seed, wanted, limit, back)
                assert places == [key for key, _ in expected]
                limits += limited
            monkeypatch.setattr(_query, "LOOKS", 10_000)
            for most in (1, len(expected), 1000):
                count = finding.count(raw, wanted, most=most, now=NOW)
                assert (int(count), count.capped) == (min(most, len(expected)), len(expected) > most), (
                    seed,
                    wanted,
                )
        raw.execute("ROLLBACK")
    assert limits > 20


def test_lists_begin_anywhere(raw: sqlite3.Connection) -> None:
    """A page may begin behind or before any place, of a job that is there or not, in this list or another."""
    chance = random.Random(1)
    jobs = jobs_of(chance, 150)
    last = {job.queue: job.id for job in jobs}
    fill(raw, jobs)
    places = [place(job, Wanted()) for job in jobs]
    places += [
        (0, -5, 0),
        (1, 11, 3),
        (2, "queue 1", "key-22", "", 0, 0, 0),
        (2, "a", "", "", 0, 0, 0),
        (3, "queue 1", "Task1", 0, 5, 0),
        (3, "queue 1", "Task11", 3, 0, 0),
        (3, "", "", 0, 0, 0),
        (3, "z", "", 0, 0, 0),
        (4, -15, 0),
    ]
    for _ in range(800):
        wanted = wanted_of(chance)
        if wanted.tag is not None or wanted.parent is not None:
            continue
        expected = sorted((place(job, wanted), job.id) for job in jobs if fits(job, wanted, last))
        here = chance.choice(places)
        after = finding.find(raw, wanted, limit=10, after=here, before=None, now=NOW)
        before = finding.find(raw, wanted, limit=10, after=None, before=here, now=NOW)
        behind = [job_id for key, job_id in expected if key > here]
        in_front = [job_id for key, job_id in expected if key < here]
        assert [job.id for job in after.jobs] == behind[:10], (wanted, here)
        assert [job.id for job in before.jobs] == in_front[-10:], (wanted, here)
        assert (after.more, before.more) == (len(behind) > 10, len(in_front) > 10)


EXPIRED = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :rows)
INSERT INTO backlite_completed (
    id, queue, task, status, priority, attempt, max_attempts, crashes, created_at, scheduled_at, finished_at,
    expires_at
)
SELECT 'job ' || n, 'q', 'T', 'failed', 0, 1, 3, 0, 0, 0, n, CASE WHEN n > 0 THEN 1000 END FROM number
"""


def test_expired_jobs_are_passed_over_in_bounded_steps(raw: sqlite3.Connection) -> None:
    """Jobs that have expired, and are there still, are not listed; a page looks behind not too many."""
    raw.execute(EXPIRED, {"rows": 12_500})
    looked: list[SortKey | None] = [None]
    ids: list[str] = []
    while True:
        found = finding.find(raw, Wanted(), limit=50, after=looked[-1], before=None, now=NOW)
        ids += [job.id for job in found.jobs]
        if not found.more:
            break
        assert found.limited
        looked.append(found.looked_to)
    assert ids == ["job 0"]
    assert len(looked) == 3
    count = finding.count(raw, Wanted(), most=50, now=NOW)
    assert (int(count), count.capped) == (1, True)
    assert act(raw, action=Delete(), job_ids=["job 1", "job 0"], now=NOW) == ["job 0"]


async def test_list_is_of_one_instant(open_store: Opener, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that moves while a list is read is in it once, where it was."""
    store = await open_store()
    await store.add([new("job")])

    def meanwhile(raw: sqlite3.Connection, *arguments: Any) -> Any:
        raw.execute("SELECT 1 FROM backlite_jobs").fetchall()  # from here on, the list is as of now
        other = sqlite3.connect(path, isolation_level=None)
        other.execute(
            "UPDATE backlite_jobs SET status = 'running', fence = 1, owner = 'other', started_at = 5"
        )
        other.close()
        return walk(raw, *arguments)

    monkeypatch.setattr(finding, "walk", meanwhile)
    found = await store.find(Wanted(), limit=5, now=NOW)
    assert [(job.id, job.status) for job in found.jobs] == [("job", JobStatus.PENDING)]
    monkeypatch.setattr(finding, "walk", walk)
    found = await store.find(Wanted(), limit=5, now=NOW)
    assert [(job.id, job.status) for job in found.jobs] == [("job", JobStatus.RUNNING)]


def test_reading_at_one_instant_leaves_no_transaction(raw: sqlite3.Connection) -> None:
    """Neither after an answer nor after an error, which is the caller's to see."""
    assert listing.at_one_instant(raw, lambda raw: raw.in_transaction)
    assert not raw.in_transaction
    with pytest.raises(sqlite3.OperationalError):
        listing.at_one_instant(raw, lambda raw: raw.execute("SELECT nothing"))
    assert not raw.in_transaction


async def test_acting_calls_everybody(open_store: Opener) -> None:
    """Our own listeners and those of others look, once something was done."""
    store, other = await open_store(), await open_store()
    await store.add([new("job")])
    rung = asyncio.Event(), asyncio.Event()
    for one, event in zip((store, other), rung, strict=True):
        one.listen(event.set)
        event.clear()
    assert await store.act(Delete(), ["job"], now=NOW) == ["job"]
    async with asyncio.timeout(5):
        for event in rung:
            await event.wait()


def test_running_job_keeps_what_is_kept_of_its_id(raw: sqlite3.Connection) -> None:
    """What was kept of an id whose job runs again is not deleted: errors and tags are of both."""
    for status, ended in ((JobStatus.RUNNING, None), (JobStatus.FAILED, 10)):
        fill(raw, [one("job")._replace(status=status, started_at=5, finished_at=ended)])
    assert act(raw, action=Delete(), job_ids=["job"], now=NOW) == []
    raw.execute("UPDATE backlite_jobs SET status = 'pending'")
    assert act(raw, action=Delete(), job_ids=["job"], now=NOW) == ["job"]
    assert finding.find(raw, Wanted(), limit=5, after=None, before=None, now=NOW).jobs == []


def test_released_job_that_is_to_be_cancelled_says_that(raw: sqlite3.Connection) -> None:
    """Its error is not that of an attempt before."""
    raw.execute("INSERT INTO backlite_queues (queue, keeps) VALUES ('q', true)")
    fill(raw, [one("job")._replace(status=JobStatus.RUNNING, started_at=5, error="no")])
    raw.execute("UPDATE backlite_jobs SET cancelled_at = 7")
    assert act(raw, action=Release(), job_ids=["job"], now=NOW) == ["job"]
    [job] = finding.find(raw, Wanted(), limit=5, after=None, before=None, now=NOW).jobs
    assert (job.status, job.error) == (JobStatus.CANCELLED, "cancelled")


def one(job_id: str) -> Stored:
    """Return a plain pending job."""
    return Stored(
        seq=1,
        id=job_id,
        queue="q",
        task="T",
        status=JobStatus.PENDING,
        priority=0,
        key=None,
        created_at=0,
        scheduled_at=0,
        due_at=0,
        started_at=None,
        finished_at=None,
        expires_at=None,
        parent=None,
        error=None,
    )


def new(job_id: str) -> NewJob:
    return NewJob(id=job_id, queue="q", task="T", payload=b"{}", max_attempts=3, created_at=0, due_at=0)


# -- statements ------------------------------------------------------------------------------------

NAMES = [*named("service.sql"), *named("graphs.sql")]

INTEGERS = set(
    "size until at above since looks now attempts due_at waits_from from_priority from_instant from_seq"
    " added_since added_until due_since due_until finished_since finished_until due number"
    " cut letters long".split()
)

ARRAYS = {
    "walks": [["q", "T", 0, 0, 0]],
    "numbers": [0, 1],
    "levels": [["q", "T", 0]],
    "kinds": [["q", "T", "failed"]],
}

SMALL = set("json_each walk level wanted place kind waiting".split())
"""What a statement may walk over: what it was given, and what it has found by seeks."""


COUNTED = [1, 2, 3, 6, 12, 25, 60, 400]
"""Rows of each table when SQLite counted them."""


def parameters(statement: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in re.findall(r":(\w+)", statement):
        if name in INTEGERS:
            found[name] = 5
        else:
            found[name] = json.dumps(ARRAYS.get(name, ["a"])) if name.endswith("s") else "q"
    return found


def plan(raw: sqlite3.Connection, name: str) -> list[str]:
    statement = statements()[name]
    return [row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + statement, parameters(statement))]


def analyze(raw: sqlite3.Connection, rows: int) -> None:
    """Let SQLite count tables of so many rows each: it then thinks that there are few jobs, for ever."""
    jobs = jobs_of(random.Random(3), 20 * rows + 20)
    live, ended = ([job for job in jobs if job.ended is ended][:rows] for ended in (False, True))
    fill(raw, [*live, *ended])
    add_flows(raw, rows)
    raw.execute("ANALYZE")


ALL_THAT_RUNS = {"running_places", "count_running", "flows_running"}


@pytest.mark.parametrize("rows", [0, *COUNTED])
def test_plans_walk_over_nothing(raw: sqlite3.Connection, rows: int) -> None:
    """No statement walks over jobs, but over all that run, nor sorts them, whatever ANALYZE has counted."""
    if rows:
        analyze(raw, rows)
    for name in NAMES:
        lines = plan(raw, name)
        assert lines
        scanned = {found[1] for line in lines if (found := re.match(r"SCAN (\w+)", line))}
        running = {"backlite_jobs"} if name in ALL_THAT_RUNS else set()
        assert scanned <= SMALL | running | {"CONSTANT"}, (name, lines)
        assert not [line for line in lines if "BLOOM" in line or "AUTOMATIC" in line], (name, lines)
        sorts = [line for line in lines if "TEMP B-TREE" in line]
        assert bool(sorts) is (name == "rerun_completed"), (name, lines)


@pytest.mark.parametrize("rows", COUNTED)
def test_plans_outlast_analyze(raw: sqlite3.Connection, rows: int) -> None:
    """The plans are the same before and after."""
    before = {name: plan(raw, name) for name in NAMES}
    analyze(raw, rows)
    assert {name: plan(raw, name) for name in NAMES} == before


def test_every_name_is_there_once() -> None:
    """All files share one set of names."""
    both = [*named("queries.sql"), *NAMES]
    assert len(both) == len(set(both))
    assert set(both) <= statements().keys()
    assert len(NAMES) > 30
