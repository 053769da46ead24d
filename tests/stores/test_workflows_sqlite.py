"""What SQLite alone brings to workflows: how many statements they take, copies, bells of other stores."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, cast

import aiosqlite
import pytest

from backlite_async import InvalidState
from backlite_async._job import Complete, JobStatus, Keep, NewJob
from backlite_async._query import Delete, Rerun
from backlite_async.stores.sqlite import actions, control, finishing, rows, workflows
from backlite_async.stores.sqlite.sql import migrations
from backlite_async.stores.sqlite.store import SQLiteStore

from .flows import FOREVER, Bench, extension, flow, join, new, step

Opener = Callable[..., Awaitable[SQLiteStore]]


class Counting:
    """A connection that counts the statements that it runs."""

    opened: ClassVar[list[sqlite3.Connection]] = []

    def __init__(self) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None)
        self.opened.append(self.raw)
        for statement in (statement for migration in migrations() for statement in migration):
            self.raw.execute(statement)
        self.raw.execute("INSERT INTO backlite_queues (queue, keeps, keep_payload) VALUES ('q', true, true)")
        self.count = 0

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        self.count += 1
        return self.raw.execute(sql, parameters)

    def counted(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> int:
        """Return how many statements a function runs over this connection."""
        before = self.count
        function(self, *arguments, **named)
        return self.count - before

    def claim(self) -> None:
        """Let all that is due run."""
        self.raw.execute(
            "UPDATE backlite_jobs SET status = 'running', fence = 7, owner = 'mine' WHERE due_at IS NOT NULL"
        )

    def due(self) -> int:
        found: int = self.raw.execute("SELECT count(*) FROM backlite_jobs WHERE due_at < 100").fetchone()[0]
        return found


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what a test has opened."""
    yield
    while Counting.opened:
        Counting.opened.pop().close()


def done(job_id: str, number: int, status: str = "succeeded") -> Complete:
    return Complete(
        id=job_id,
        fence=7,
        status=JobStatus(status),
        finished_at=50,
        started_at=40,
        duration=1,
        attempt=1,
        crashes=0,
        keep=FOREVER,
        workflow="w",
        step=number,
    )


def wide(count: int) -> Counting:
    """Return a database with a step, so many after it, what joins them, and so many after that."""
    raw = Counting()
    first = [step(f"b{number}", "a") for number in range(count)]
    last = [step(f"c{number}", "j") for number in range(count)]
    made = flow(step("a"), *first, join("j", *(node.name for node in first)), *last)
    workflows.add(raw, [], [made], again=False)  # type: ignore[arg-type]
    raw.claim()
    return raw


def test_a_node_succeeds_once() -> None:
    """One that has ended is passed over, and what comes after it is not freed again."""
    flows = workflows.Flows(cast("sqlite3.Connection", wide(3)))
    assert flows.succeed("w", [0]) == (1, Counter({1: 1, 2: 1, 3: 1}))
    assert flows.succeed("w", [0, 1, 2]) == (2, Counter({4: 2}))
    assert flows.succeed("w", [0, 1, 2]) == (0, Counter())
    assert flows.succeed("w", []) == (0, Counter())


def test_a_wave_takes_the_same_number_of_statements_at_any_width() -> None:
    """Whether it is two steps or a hundred that are released, joined or skipped."""
    found = []
    for count in (2, 100):
        raw = wide(count)
        released = raw.counted(finishing.finish, outcomes=[done("a", 0)])
        assert raw.due() == count
        raw.claim()
        joined = raw.counted(
            finishing.finish, outcomes=[done(f"b{number}", number + 1) for number in range(count)]
        )
        assert raw.due() == count
        other = wide(count)
        skipped = other.counted(finishing.finish, outcomes=[done("a", 0, "failed")])
        assert other.raw.execute("SELECT count(*) FROM backlite_jobs").fetchone() == (0,)
        revived = other.counted(actions.act, action=Rerun(), job_ids=["a"], now=60)
        assert other.raw.execute("SELECT count(*) FROM backlite_jobs").fetchone() == (2 * count + 1,)
        cancelled = other.counted(control.cancel, ["w"], 70)
        assert other.raw.execute("SELECT count(*) FROM backlite_jobs").fetchone() == (0,)
        found.append((released, skipped, revived, cancelled))
        assert joined <= 18
        assert max(found[-1]) <= 40
    assert found[0] == found[1]


def test_plain_jobs_take_no_statement_more() -> None:
    """To add them, and to end them beside steps of workflows that go on."""
    raw = Counting()
    jobs = [new(f"{number}") for number in range(100)]
    alone = raw.counted(rows.add, jobs)
    raw.claim()
    ends = [plain(job) for job in jobs]
    finished = raw.counted(finishing.finish, outcomes=ends)
    raw = wide(3)
    assert raw.counted(rows.add, jobs) == alone
    raw.claim()
    assert raw.counted(finishing.finish, outcomes=ends) == finished


def plain(job: NewJob) -> Complete:
    return Complete(
        id=job.id,
        fence=7,
        status=JobStatus.SUCCEEDED,
        finished_at=50,
        started_at=40,
        duration=1,
        attempt=1,
        crashes=0,
    )


async def test_other_stores_hear_of_what_is_released(open_store: Opener) -> None:
    """And we do, though no claim is made beside the outcome."""
    bench, other = Bench(await open_store()), await open_store()
    await bench.add(step("a"), step("b", "a"), step("c", "b"))
    await bench.claim()
    rung = asyncio.Event(), asyncio.Event()
    for one, event in zip((bench.store, other), rung, strict=True):
        one.listen(event.set)
        event.clear()
    await bench.store.finish([bench.outcome("a")])
    async with asyncio.timeout(5):
        for event in rung:
            await event.wait()


async def test_a_step_that_releases_nothing_rings_nobody(open_store: Opener) -> None:
    """Of a group, only the last one is worth a look."""
    bench = Bench(await open_store())
    await bench.add(step("a"), step("b"), step("c", "a", "b"))
    await bench.claim()
    heard: list[None] = []
    bench.store.listen(lambda: heard.append(None))
    await bench.store.finish([bench.outcome("a")])
    assert heard == []
    await bench.store.finish([bench.outcome("b")])
    assert heard


async def test_what_is_to_be_cancelled_goes_on_in_a_copy(open_store: Opener, tmp_path: Path) -> None:
    """A running step that was asked to end has ended there, and what depends on it is skipped."""
    bench = Bench(await open_store())
    await bench.add(step("a", if_failed="continue"), step("b", "a"), step("c"), step("d", "c"))
    await bench.claim()
    await bench.cancel("a")
    await bench.cancel("c")
    await bench.store.backup(str(tmp_path / "copy.db"))
    copy = Bench(await open_store(str(tmp_path / "copy.db")))
    assert await copy.claim() == ["b"]
    assert await copy.states() == {"a": "cancelled", "b": "running", "c": "cancelled", "d": "skipped"}
    assert await bench.states() == {"a": "running", "b": "pending", "c": "running", "d": "pending"}


@pytest.mark.parametrize("again", [False, True])
async def test_a_failed_add_in_a_transaction_leaves_the_rest_of_it(
    open_store: Opener, path: str, again: bool
) -> None:
    """A workflow of which a job's id is taken is refused whole; what the caller has written stays."""
    bench = Bench(await open_store())
    await bench.store.add([new("b")])
    many = [step(f"s{number}") for number in range(300)]
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        await connection.execute("CREATE TABLE mine (x)")
        await connection.execute("BEGIN IMMEDIATE")
        await connection.execute("INSERT INTO mine VALUES (1)")
        with pytest.raises(InvalidState):
            await bench.store.add_within(
                connection, [], workflows=[flow(*many, step("b", "s0"), id="v")], again=again
            )
        await bench.store.add_within(connection, [], workflows=[flow(step("a"), id="w")], again=again)
        await connection.execute("COMMIT")
        assert list(await connection.execute_fetchall("SELECT x FROM mine")) == [(1,)]
    assert await bench.claim() == ["a", "b"]
    assert await bench.store.workflow("v", now=0) is None


async def test_a_workflow_is_added_twice_in_a_transaction(open_store: Opener, path: str) -> None:
    """With `again` it is left as it is, with all that it has."""
    bench = Bench(await open_store())
    made = await bench.add(step("a"), step("b", "a"))
    await bench.claim()
    assert await bench.end("a") == ["b"]
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        await connection.execute("BEGIN IMMEDIATE")
        await bench.store.add_within(connection, [], workflows=[made], again=True)
        await connection.execute("COMMIT")
    assert await bench.states() == {"a": "succeeded", "b": "running"}


async def test_nothing_is_left_of_what_is_removed(open_store: Opener, path: str) -> None:
    """No rows of a workflow, nor any beside them."""
    bench = Bench(await open_store())
    await bench.add(step("a", tags='["t"]'), step("b", "a", tags='["t"]'))
    await bench.claim()
    assert await bench.end("a", keep=None) == ["b"]
    assert await bench.end("b", keep=None) == []
    with closing(sqlite3.connect(path)) as raw:
        for table in ("workflows", "steps", "jobs", "completed", "tags"):
            assert raw.execute(f"SELECT count(*) FROM backlite_{table}").fetchone() == (0,)


async def test_expired_workflows_are_removed_a_few_at_a_time(open_store: Opener, path: str) -> None:
    """As many nodes in a transaction as jobs were asked for."""
    bench = Bench(await open_store())
    for name in "uvw":
        await bench.add(step(f"{name}1"), step(f"{name}2", f"{name}1"), id=name)
    await bench.claim()
    for number in "12":
        await bench.end(*(name + number for name in "uvw"), keep=Keep(until=2000, payload=True))
    assert await bench.store.expire(now=2000, limit=7) == 6
    with closing(sqlite3.connect(path)) as raw:
        left = raw.execute("SELECT count(*) FROM backlite_workflows").fetchone()
        assert left == (2,)
    assert await bench.store.expire(now=2000, limit=7) == 0
    assert await bench.store.next_expiry() is None


async def test_a_blocked_step_has_its_key(open_store: Opener) -> None:
    """It is told, and searched, as if it were there; the claim tells it too."""
    store = await open_store()
    bench = Bench(store)
    await bench.add(step("a", key="first"), step("b", "a", key="second"), step("c", "a"))
    assert [(await told(store, name)) for name in "abc"] == ["first", "second", None]
    await bench.claim()
    await bench.end("a", extends=(extension("d", 1, key="third"),))
    assert [bench.claims[name].key for name in "abc"] == ["first", "second", None]
    assert await told(store, "d") == "third"
    await bench.cancel("w")
    assert await told(store, "d") == "third"


async def told(store: SQLiteStore, job_id: str) -> str | None:
    job = await store.get(job_id, now=0)
    assert job is not None
    return job.key


async def test_who_waits_for_a_step_hears_that_it_is_skipped(open_store: Opener) -> None:
    """Though the workflow goes on, and nothing is released."""
    bench = Bench(await open_store())
    await bench.add(step("a"), step("b", "a"), step("other"))
    await bench.claim()
    await bench.store.watch(["b"], owner="mine")
    heard: list[None] = []
    bench.store.listen(lambda: heard.append(None))
    await bench.store.finish([bench.outcome("a", "failed")])
    assert heard


async def test_nothing_is_done_to_what_has_expired(open_store: Opener) -> None:
    """A workflow that is there for longer than it should be: neither run again nor deleted by hand."""
    bench = Bench(await open_store())
    await bench.add(step("a"))
    await bench.claim()
    await bench.end("a", status="failed", keep=Keep(until=bench.now + 10, payload=True))
    for action in (Rerun(), Delete()):
        assert await bench.store.act(action, ["w", "a"], now=bench.now + 10) == []
    assert await bench.store.act(Rerun(), ["w"], now=bench.now + 9) == ["w"]
