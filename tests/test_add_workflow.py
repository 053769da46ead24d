"""Adding workflows: among tasks, all or nothing, once, with what is said of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import aiosqlite
import anyio
import pytest

from backlite_async import (
    AlreadyRegistered,
    Client,
    DatabaseBusy,
    DatabaseUnavailable,
    InvalidState,
    InvalidValue,
    JobContext,
    JobStatus,
    PayloadError,
    QueueConfig,
    Retention,
    Task,
    Workflow,
    chain,
    group,
    testing,
)
from backlite_async._graph import NewStep, NewWorkflow
from backlite_async._job import More, NewJob
from backlite_async.stores import MemoryStore

from .conftest import LIMIT, Journal

KEEP = Retention(payload="always")


class Do(Task):
    config: ClassVar[QueueConfig] = QueueConfig("do", retention=KEEP, max_attempts=1)
    n: int = 0


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("other", priority=3, max_attempts=7, concurrency_per_key=2)
    n: int = 0


class Recording(MemoryStore):
    """A memory store that tells what it was given, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[list[NewJob], list[NewWorkflow], bool]] = []
        self.failure: BaseException | None = None
        self.stores = True

    async def add(
        self, jobs: Sequence[NewJob], *, workflows: Sequence[NewWorkflow] = (), again: bool = False
    ) -> None:
        self.given.append(([*jobs], [*workflows], again))
        failure, self.failure = self.failure, None
        if failure is None or self.stores:
            await super().add(jobs, workflows=workflows, again=again)
        if failure is not None:
            raise failure

    @property
    def steps(self) -> tuple[NewStep, ...]:
        """The steps of the workflow that was added last."""
        return self.given[-1][1][-1].steps


def job_of(step: NewStep) -> NewJob:
    assert step.job is not None
    return step.job


def more_of(job: NewJob | None) -> More:
    assert job is not None
    assert job.more is not None
    return job.more


# -- among tasks -----------------------------------------------------------------------------------


async def test_all_kinds_of_parts_at_once(database: str, journal: Journal) -> None:
    """The ids are those of jobs and workflows, in the order of the parts; each step runs in its turn."""
    ran: list[int] = []
    client = Client(database)

    @client.handler(Do)
    async def do(task: Do) -> None:
        ran.append(task.n)

    pair = group(Do(1), Do(2), name="pair").then(Do(3))
    graph = Workflow()
    first = graph.add(Do(4))
    last = graph.add(Do(5), after=[first])
    async with client:
        added = await client.add(Do(0), pair, Do(6), graph).save()
        assert len(added) == 4
        assert (added[1], added[3]) == (pair.id, graph.id)
        assert added.workflows == (pair.id, graph.id)
        assert (added.new, added.existing) == (tuple(added), ())
        ids = [*added[:1], added[2], *(step.id for step in (*pair.steps, *graph.steps))]
        await journal.ended(*ids)
    assert sorted(ran) == [*range(7)]
    assert ran.index(3) > max(ran.index(1), ran.index(2))
    assert ran.index(5) > ran.index(4)
    assert (last.id, first.workflow, last.workflow) == (graph.steps[1].id, graph.id, graph.id)
    assert pair.steps[0].workflow == pair.id
    assert [added[0], added[2]] == sorted([added[0], added[2]])
    for whole in (pair, graph):
        own = [whole.id, *(step.id for step in whole.steps)]
        assert own == sorted(own)


async def test_steps_are_jobs(database: str) -> None:
    """Those that wait for others are pending; all are jobs of the workflow."""
    whole = chain(Do(1), Do(2))
    async with Client(database, workers=0) as client:
        [workflow] = await client.add(whole).save()
        for step in whole.steps:
            job = await client.get(step.id)
            assert job is not None
            assert (job.status, job.workflow) == (JobStatus.PENDING, workflow)
        assert await client.status(workflow) is JobStatus.PENDING


async def test_the_same_tasks_and_parts_twice() -> None:
    """They are values: each place is a step of its own."""
    task = Do(1)
    part = group(task, task)
    client = Client(Recording(), workers=0)
    async with client:
        first, second = chain(part, part), part
        added = await client.add(first, second, task, task).save()
        assert len({*added}) == 4
        assert len({step.id for whole in (first, second) for step in whole.steps}) == 6


async def test_no_workflow_but_tasks() -> None:
    """As it was."""
    async with Client(":memory:", workers=0) as client:
        added = await client.add(Do(1), Do(2)).save()
        assert (added.workflows, len(added)) == ((), 2)
        assert await client.add().save() == []


# -- what the store is given -----------------------------------------------------------------------


async def test_what_comes_after_what() -> None:
    """Numbers of nodes, forwards and backwards; joins have no job."""
    store = Recording()
    whole = chain(group(Do(1), Do(2)), group(Do(3), chain(Do(4), name="four")), name="w")
    async with Client(store, workers=0) as client:
        await client.add(whole).save()
    [(jobs, [workflow], again)] = store.given
    assert (jobs, again) == ([], False)
    assert workflow.name == "w"
    assert [step.after for step in store.steps] == [(), (), (0, 1), (2,), (2,)]
    assert [step.next for step in store.steps] == [(2,), (2,), (3, 4), (), ()]
    assert [step.job is None for step in store.steps] == [False, False, True, False, False]
    assert [step.name for step in store.steps] == [None, None, None, None, "four"]
    mores = [more_of(step.job) for step in store.steps if step.job is not None]
    assert [more.workflow for more in mores] == [workflow.id] * 4
    assert [(more.step, more.blocked) for more in mores] == [(0, False), (1, False), (3, True), (4, True)]


async def test_what_runs_on_failure_and_at_the_end() -> None:
    """Fallbacks and callbacks are jobs whose ids and times come later; what is said twice is made once."""
    store = Recording()
    undo = Other(1)
    whole = chain(
        group(Do(1), Do(2), if_failed=undo), chain(Do(3), if_failed="continue"), Do(4),
        on_success=Other(2), on_failure=Other(3), on_complete=Do(5),
    )  # fmt: skip
    async with Client(store, workers=0) as client:
        await client.add(whole).save()
    [(_, [workflow], _)] = store.given
    assert [step.if_failed for step in store.steps] == ["cancel", "cancel", "continue", "cancel"]
    fallbacks = [step.fallback for step in store.steps]
    assert fallbacks == [fallbacks[0], fallbacks[0], None, None]
    fallback = fallbacks[0]
    assert fallback is not None
    assert fallback is fallbacks[1]
    assert fallback.payload == b'{"n":1}'
    assert (fallback.queue, fallback.priority, fallback.max_attempts) == ("other", 3, 7)
    called = (workflow.on_success, workflow.on_failure, workflow.on_complete)
    assert [None if job is None else job.payload for job in called] == [b'{"n":2}', b'{"n":3}', b'{"n":5}']


async def test_each_failure_has_its_own_task() -> None:
    """Steps of which another one is said have that one."""
    store = Recording()
    async with Client(store, workers=0) as client:
        await client.add(chain(chain(Do(1), if_failed=Other(1)), chain(Do(2), if_failed=Other(2)))).save()
    fallbacks = [step.fallback for step in store.steps]
    assert [job and job.payload for job in fallbacks] == [b'{"n":1}', b'{"n":2}']


async def test_options_hold_for_all_steps() -> None:
    """For fallbacks and callbacks, too; each kind of task has what its queue says of the rest."""
    store = Recording()
    whole = chain(Do(1), Other(2), chain(Do(3), if_failed=Other(4)), on_complete=Other(5))
    async with Client(store, workers=0) as client:
        operation = client.add(whole, Do(6)).priority(5).key("k").meta({"a": 1}).tags("x", "y")
        await operation.max_attempts(2).timeout(1.5).save()
    [([alone], [workflow], _)] = store.given
    jobs = [*workflow.jobs, store.steps[2].fallback, workflow.on_complete, alone]
    for job in jobs:
        more = more_of(job)
        assert job is not None
        assert (job.priority, job.max_attempts) == (5, 2)
        assert (more.key, more.timeout, more.meta, more.tags) == ("k", 1500, '{"a":1}', '["x","y"]')
        assert more.turns == (2 if job.queue == "other" else None)
        assert more.parent is None
    async with Client(store, workers=0) as client:
        await client.add(chain(Do(1), Other(2))).save()
    assert [(job.priority, job.max_attempts) for job in map(job_of, store.steps)] == [(0, 1), (3, 7)]
    assert [more_of(step.job).key for step in store.steps] == [None, None]


async def test_times_hold_for_the_first_steps() -> None:
    """What comes after others is due when they have ended."""
    store = Recording()
    later = datetime.now(UTC) + timedelta(days=1)
    async with Client(store, workers=0) as client:
        await client.add(group(Do(1), Do(2)).then(Do(3))).at(later).save()
        due = [job.due_at for job in map(job_of, store.steps)]
        created = job_of(store.steps[0]).created_at
        assert due == [due[0], due[0], created]
        assert abs(due[0] - later.timestamp() * 1000) <= 1
        assert [job.waits_from for job in map(job_of, store.steps)] == [None, None, created]
        await client.add(chain(Do(1), Do(2))).wait(60).save()
        first, second = map(job_of, store.steps)
        assert first.due_at - first.created_at in (60_000, 60_001)
        assert (second.due_at, second.waits_from) == (second.created_at, second.created_at)


async def test_a_handler_adds_a_workflow(database: str, journal: Journal) -> None:
    """Its steps know the job that has added them."""
    whole = chain(Do(1), Do(2))
    client = Client(database)

    @client.handler(Other)
    async def add(task: Other, job: JobContext) -> None:
        await job.client.add(whole).save()

    @client.handler(Do)
    async def do(task: Do) -> None: ...

    async with client:
        [parent] = await client.add(Other()).save()
        await journal.ended(parent)
        await journal.ended(*(step.id for step in whole.steps))
        for step in whole.steps:
            job = await client.get(step.id)
            assert job is not None
            assert job.parent == parent


# -- all or nothing --------------------------------------------------------------------------------


async def test_a_bad_task_is_named_by_its_step(database: str) -> None:
    """Nothing is stored, and nobody holds the workflow."""
    bad = Do("x")  # type: ignore[arg-type]
    for whole, where in (
        (chain(Do(), bad), r"\(step 2 of 2\)"),
        (chain(group(Do(), Do()), group(Do(), bad), name="w"), r"\(step 4 of 4 of workflow 'w'\)"),
        (chain(Do(), chain(bad, name="odd")), r"\(step 'odd'\)"),
        (chain(Do(), if_failed=bad, name="w"), r"\(if_failed of step 1 of 1 of workflow 'w'\)"),
        (chain(Do(), on_complete=bad), r"\(on_complete\)"),
    ):
        async with Client(database, workers=0) as client:
            for _ in range(2):
                with pytest.raises(PayloadError, match=where):
                    await client.add(Do(), whole).save()
            with pytest.raises(InvalidState, match="no id yet"):
                _ = whole.id
            assert await client.open_store().kinds() == []
    async with Client(database, workers=0) as client:
        with pytest.raises(PayloadError, match=r"\(task 3 of 3\)"):
            await client.add(Do(), chain(Do()), bad).save()


async def test_two_configurations_of_one_queue(database: str) -> None:
    """Are found before anything is stored, wherever in a workflow they are."""

    class Do2(Task):
        config: ClassVar[QueueConfig] = QueueConfig("do")

    async with Client(database, workers=0) as client:
        with pytest.raises(AlreadyRegistered, match="another QueueConfig"):
            await client.add(chain(Do(), on_failure=Do2())).save()
        assert await client.open_store().kinds() == []


async def test_an_empty_workflow(database: str) -> None:
    """Is refused; it can still be filled."""
    workflow = Workflow()
    async with Client(database, workers=0) as client:
        with pytest.raises(InvalidValue, match="empty"):
            await client.add(Do(), workflow).save()
        assert await client.open_store().kinds() == []
        workflow.add(Do())
        assert len(await client.add(workflow).save()) == 1


@pytest.mark.parametrize("commit", [True, False])
async def test_in_a_transaction_of_the_caller(file: str, commit: bool, journal: Journal) -> None:
    """They are there if it commits."""
    client = Client(file)
    ran: list[int] = []

    @client.handler(Do)
    async def do(task: Do) -> None:
        ran.append(task.n)

    async with client, aiosqlite.connect(file) as connection:
        await connection.execute("BEGIN IMMEDIATE")
        whole = group(Do(1), Do(2)).then(Do(3))
        added = await client.add(whole, Do(4)).tx(connection).save()
        assert added.workflows == (whole.id,)
        if commit:
            await connection.commit()
            await journal.ended(*(step.id for step in whole.steps), added[1])
        else:
            await connection.rollback()
            assert await client.status(whole.id) is JobStatus.NOT_FOUND
            assert await client.status(whole.steps[2].id) is JobStatus.NOT_FOUND
    assert sorted(ran) == ([1, 2, 3, 4] if commit else [])


# -- once ------------------------------------------------------------------------------------------


async def test_a_workflow_is_saved_once(database: str) -> None:
    """Whatever it is; and nothing is added to it then."""
    async with Client(database, workers=0) as client:
        workflow = Workflow()
        step = workflow.add(Do())
        for whole in (chain(Do()), group(Do()), workflow):
            await client.add(whole).save()
            with pytest.raises(InvalidState, match=r"(chain|group|workflow) is saved"):
                await client.add(Do(), whole).save()
        with pytest.raises(InvalidState, match="is saved"):
            workflow.add(Do(), after=[step])
        twice = chain(Do())
        with pytest.raises(InvalidState, match="the same workflow twice"):
            await client.add(twice, twice).save()
        await client.add(twice).save()
        assert await client.jobs.count(queue="do") == 4


async def test_two_operations_at_once() -> None:
    """One of them saves it."""
    whole = chain(Do())
    async with Client(":memory:", workers=0) as client:
        saves = [client.add(whole).save() for _ in range(2)]
        done = await asyncio.gather(*saves, return_exceptions=True)
        assert sorted(type(one).__name__ for one in done) == ["Added", "InvalidState"]
        assert await client.jobs.count(queue="do") == 1


@pytest.mark.parametrize("stores", [True, False])
async def test_a_failed_save_may_be_repeated(stores: bool) -> None:
    """By the same operation alone, with the same ids, and the store is told: so it is there once."""
    store = Recording()
    store.stores = stores
    whole = chain(Do(1), Do(2))
    async with Client(store, workers=0) as client:
        operation = client.add(whole, Do(3))
        store.failure = DatabaseUnavailable("disk I/O error")
        with pytest.raises(DatabaseUnavailable):
            await operation.save()
        with pytest.raises(InvalidState, match="no id yet"):
            _ = whole.id
        with pytest.raises(InvalidState, match="is saved, or may be"):
            await client.add(whole).save()
        added = await operation.save()
        first, second = store.given
        assert first[:2] == second[:2]
        assert (first[2], second[2]) == (False, True)
        assert added.workflows == (whole.id,) == (first[1][0].id,)
        assert await client.jobs.count(queue="do") == 3


async def test_a_busy_database_keeps_nobody_from_saving() -> None:
    """Nothing was written: any operation may save the workflow then."""
    store = Recording()
    store.stores = False
    workflow = Workflow()
    workflow.add(Do(1))
    async with Client(store, workers=0) as client:
        operation = client.add(workflow)
        store.failure = DatabaseBusy("locked")
        with pytest.raises(DatabaseBusy):
            await operation.save()
        workflow.add(Do(2))
        await operation.save()
        assert await client.jobs.count(queue="do") == 2
        assert [step.id for step in workflow.steps] == [job_of(step).id for step in store.steps]


async def test_a_client_that_is_not_started() -> None:
    """Holds nothing."""
    whole = chain(Do())
    client = Client(":memory:", workers=0)
    with pytest.raises(InvalidState, match="not started"):
        await client.add(whole).save()
    async with client:
        await client.add(whole).save()


async def test_for_tasks_alone() -> None:
    """What one job is known by is none of a workflow's."""
    client = Client(":memory:", workers=0)
    for whole in (chain(Do()), group(Do()), Workflow()):
        with pytest.raises(InvalidValue, match="for one task at a time, not for a workflow"):
            client.add(whole).id("x")
        with pytest.raises(InvalidValue, match="for one task at a time, not for a workflow"):
            client.add(Do(), whole).unique()


async def test_an_operation_that_is_forgotten() -> None:
    """Is warned of."""
    client = Client(":memory:", workers=0)
    operation = client.add(chain(Do()), Workflow())
    with pytest.warns(RuntimeWarning, match=r"client.add\(Chain, Workflow\) was never saved"):
        del operation


# -- many ------------------------------------------------------------------------------------------


async def test_others_get_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two batches of steps, also of many small workflows."""
    monkeypatch.setattr("backlite_async._maker.CHUNK", 10)
    turn = 0
    met: list[int] = []
    async with Client(":memory:", workers=0) as client:
        original = client.ids.next

        def next_id() -> str:
            met.append(turn)
            return original()

        async def tick() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        client.ids.next = next_id  # type: ignore[method-assign]
        whole = group(*(Do(n) for n in range(48)))
        await client.add(whole).save()
        assert [*Counter(met).values()] == [1, *[5] * 9, 3], "the graph is laid out in a turn of its own"
        assert await client.jobs.count(queue="do") == 48
        assert len({step.id for step in whole.steps}) == 48
        met.clear()
        await client.add(*(chain(Do(n)) for n in range(20))).save()
        assert max(Counter(met).values()) <= 12
        ticking.cancel()


async def test_a_cancellation_between_batches(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    """Stores nothing; the operation, or another one, may go on."""
    monkeypatch.setattr("backlite_async._maker.CHUNK", 10)
    whole = group(*(Do(n) for n in range(48)))
    async with Client(database, workers=0) as client:
        saving = asyncio.create_task(client.add(whole).save())
        await asyncio.sleep(0)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert await client.open_store().kinds() == []
        await client.add(whole).save()
        assert await client.jobs.count(queue="do") == 48


async def test_a_wide_group(database: str) -> None:
    """A thousand side by side, then one."""
    ran: list[int] = []
    done = asyncio.Event()
    client = Client(database, workers=50)

    @client.handler(Do)
    async def do(task: Do) -> None:
        ran.append(task.n)

    @client.handler(Other)
    async def other(task: Other) -> None:
        ran.append(-1)
        done.set()

    async with client:
        await client.add(group(*(Do(n) for n in range(1000))).then(Other())).save()
        with anyio.fail_after(LIMIT):
            await done.wait()
    assert (len(ran), ran[-1], len({*ran})) == (1001, -1, 1001)


# -- what is told ----------------------------------------------------------------------------------


async def test_steps_are_told_as_added(journal: Journal) -> None:
    """Each by its own event, and in the log."""
    whole = chain(Do(1), group(Do(2), Do(3)))
    async with Client(":memory:", workers=0) as client:
        stream = client.events()
        await client.add(Do(0), whole).save()
        with anyio.fail_after(LIMIT):
            told = [(await anext(stream)).job_id for _ in range(4)]
        assert told[1:] == [step.id for step in whole.steps]
    assert len(journal.of("job.added")) == 4


async def test_tests_see_steps(tmp_path: Path) -> None:
    """As jobs that were added, also those that have not run yet, and those of a transaction."""
    client = Client(tmp_path / "app.db")

    @client.handler(Do)
    async def do(task: Do) -> None: ...

    with testing.replaced(client):
        async with client:
            whole = chain(Do(1), Do(2), Other(3))
            await client.add(whole).save()
            assert await testing.added(client, Do) == [Do(1), Do(2)]
            await testing.assert_added(client, Other, n=3, count=1)
            ran = await testing.run_until_idle(client)
            assert [attempt.task for attempt in ran] == [Do(1), Do(2)]
            await client.cancel(whole.id)
            await client.workflows.delete(whole.id)
            assert await client.status(whole.steps[0].id) is JobStatus.NOT_FOUND
            assert await testing.added(client, Do) == [Do(1), Do(2)]
