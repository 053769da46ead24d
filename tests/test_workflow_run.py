"""Workflows as their handlers and their client see them: results, failures, additions, ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import anyio
import anyio.from_thread
import msgspec
import pytest

from backlite_async import (
    Client,
    DatabaseUnusable,
    Discard,
    Event,
    InvalidState,
    InvalidTask,
    InvalidType,
    InvalidValue,
    JobContext,
    JobNotFound,
    JobStatus,
    PayloadError,
    QueueConfig,
    ResultNotFound,
    Retention,
    Retry,
    Snooze,
    Task,
    Workflow,
    WorkflowRun,
    _waits,
    chain,
    group,
    testing,
)
from backlite_async._job import Complete, Lane, Outcome
from backlite_async._outcome import crashed

from .conftest import LIMIT

Does = Callable[[JobContext], Awaitable[object]]


class Do(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=1)
    what: str


class Stubborn(Task):
    config: ClassVar[QueueConfig] = QueueConfig("stubborn", max_attempts=3, backoff=0.001)
    what: str


class Kept(Task):
    config: ClassVar[QueueConfig] = QueueConfig("kept", max_attempts=1, retention=Retention(payload="always"))
    what: str


class InThread(Task):
    config: ClassVar[QueueConfig] = QueueConfig("threads", max_attempts=1)
    what: str


class Pair(msgspec.Struct):
    left: int
    right: str


class Scene:
    """A client whose jobs do what a test says, by what their tasks are called; others return that."""

    def __init__(self, database: str, **options: Any) -> None:
        self.client = Client(database, **options)
        self.does: dict[str, Does] = {}
        self.ran: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        for kind in (Do, Stubborn, Kept):
            self.client.register(kind, self._do)

    def on(self, does: Does) -> Does:
        """Say what the job does that is called like this function."""
        self.does[does.__name__] = does
        return does

    async def _do(self, task: Do | Stubborn | Kept, job: JobContext) -> object:
        await self.open.wait()
        self.ran.append(task.what)
        does = self.does.get(task.what)
        return task.what if does is None else await does(job)

    async def end(self, whole: Any) -> WorkflowRun:
        """Add a workflow; return it when it has ended, before which nothing runs of it."""
        self.open.clear()
        await self.client.add(whole).save()
        waiting = asyncio.ensure_future(self.end_of(whole.id))
        await asyncio.sleep(0)
        assert whole.id in self.client.waits
        self.open.set()
        return await waiting

    async def end_of(self, workflow_id: str) -> WorkflowRun:
        with anyio.fail_after(LIMIT):
            return await self.client.workflows.wait(workflow_id)

    async def all_of(self, workflow_id: str) -> WorkflowRun:
        """Return a workflow when its callbacks have ended, too."""
        while True:
            found = await self.client.workflow(workflow_id)
            assert found is not None
            if found.left == 0:
                return found
            live = next(step.id for step in found.steps if step.status in ("pending", "running"))
            assert live is not None
            with anyio.fail_after(LIMIT):
                await self.client.wait(live)


@pytest.fixture
async def scene(database: str) -> Scene:
    return Scene(database)


def states(run: WorkflowRun) -> dict[str | None, str]:
    """Return the states of steps by their names."""
    return {step.name: step.status.value for step in run.steps if step.name is not None}


def graph(*names: str, **said: Any) -> Workflow:
    """Return a workflow of steps one after the other, named after what they do; `said` of the first."""
    flow = Workflow()
    before: Any = ()
    for name in names:
        before = flow.add(Do(name), after=before, name=name, **(said if before == () else {}))
    return flow


# -- results --------------------------------------------------------------------------------------


async def test_a_chain_passes_on_what_its_steps_return(scene: Scene) -> None:
    """As plain values, or as the type that is asked for, though nothing is kept of such jobs."""
    seen: list[object] = []

    @scene.on
    async def first(job: JobContext) -> object:
        return Pair(1, "one")

    @scene.on
    async def second(job: JobContext) -> object:
        seen.extend([await job.previous(), await job.previous(Pair), job.workflow])
        return 2

    @scene.on
    async def third(job: JobContext) -> object:
        seen.append(await job.previous(int))
        return 3

    whole = chain(Do("first"), Do("second"), Do("third"))
    async with scene.client:
        run = await scene.end(whole)
    assert seen == [{"left": 1, "right": "one"}, Pair(1, "one"), whole.id, 2]
    assert run.status is run.state is JobStatus.SUCCEEDED
    assert run.progress == 1.0
    assert run.edges == ((0, 1), (1, 2))


async def test_a_step_that_returns_nothing_is_as_good_as_any(scene: Scene) -> None:
    """The chain goes on; None is what the next one sees, and no int."""
    seen: list[object] = []

    @scene.on
    async def nothing(job: JobContext) -> object:
        return None

    @scene.on
    async def after(job: JobContext) -> object:
        seen.append(await job.previous())
        seen.append(await job.previous(int | None))
        with pytest.raises(PayloadError, match=r"task Do: the result before it is of another type.*null"):
            await job.previous(int)
        with pytest.raises(InvalidType, match="decodes to a type such as int"):
            await job.previous(3)  # type: ignore[call-overload]
        return "seen"

    async with scene.client:
        run = await scene.end(chain(Do("nothing"), Do("after"), Do("last")))
    assert seen == [None, None]
    assert run.status is JobStatus.SUCCEEDED
    assert scene.ran == ["nothing", "after", "last"]


async def test_after_a_group_comes_a_list(scene: Scene) -> None:
    """In the order of the group, across the node that joins it, for each that comes after it."""
    seen: dict[str, object] = {}

    @scene.on
    async def b(job: JobContext) -> object:
        return None

    @scene.on
    async def d(job: JobContext) -> object:
        seen["d"] = await job.previous(list[str | None])
        return 4

    @scene.on
    async def e(job: JobContext) -> object:
        seen["e"] = await job.previous()
        return 5

    @scene.on
    async def f(job: JobContext) -> object:
        seen["f"] = await job.previous(list[int])
        seen["all"] = list((await job.results()).values())
        return 6

    whole = group(Do("a"), Do("b"), Do("c")).then(group(Do("d"), Do("e"))).then(Do("f"))
    async with scene.client:
        run = await scene.end(whole)
    assert seen == {
        "d": ["a", None, "c"],
        "e": ["a", None, "c"],
        "f": [4, 5],
        "all": ["a", None, "c", 4, 5],
    }
    assert run.status is JobStatus.SUCCEEDED


async def test_a_group_of_one(scene: Scene) -> None:
    """Is as good as its step, unless a list is asked for, which has one part then."""
    seen: list[object] = []

    @scene.on
    async def after(job: JobContext) -> object:
        seen.append(await job.previous(str))
        seen.append(await job.previous(str, many=True))
        seen.append(await job.previous(many=True))
        seen.append(await job.previous(str | None, many=True))
        with pytest.raises(PayloadError, match=r"Expected `int`, got `str` - at `\$\[0\]`"):
            await job.previous(int, many=True)
        return None

    async with scene.client:
        run = await scene.end(group(Do("a")).then(Do("after")))
    assert run.status is JobStatus.SUCCEEDED
    assert seen == ["a", ["a"], ["a"], ["a"]]


async def test_results_by_name_or_id(scene: Scene) -> None:
    """Of all steps before, near and far, and of no others; as a type, if one is given."""
    seen: list[Any] = []
    flow = Workflow()
    one = flow.add(Do("one"), name="uno")
    two = flow.add(Do("two"), after=[one])
    flow.add(Do("beside"), name="beside")
    flow.add(Do("look"), after=[two, "uno"])

    @scene.on
    async def look(job: JobContext) -> object:
        results = await job.results()
        seen.extend([dict(results), results["uno"], results[one.id], results[two.id], results.get("beside")])
        assert (one.id in results, "uno" in results, "beside" in results, len(results)) == (
            True,
            True,
            False,
            2,
        )
        with pytest.raises(KeyError, match="no step 'beside' before this one has succeeded; there are: "):
            results["beside"]
        typed = await job.results(str)
        assert typed["uno"] == "one"
        numbers = await job.results(int)
        with pytest.raises(PayloadError, match="the result of 'uno' is of another type: Expected `int`"):
            numbers["uno"]
        assert repr(numbers) == f"<results of uno, {two.id}>"
        return None

    async with scene.client:
        run = await scene.end(flow)
    assert run.status is JobStatus.SUCCEEDED
    assert seen == [{"uno": "one", two.id: "two"}, "one", "one", "two", None]


async def test_what_cannot_be_kept_is_no_result(scene: Scene) -> None:
    """Who asks for it is told, who asks for others gets those; the chain goes on."""

    @scene.on
    async def odd(job: JobContext) -> object:
        return object()

    @scene.on
    async def next_one(job: JobContext) -> object:
        with pytest.raises(ResultNotFound, match="cannot be kept"):
            await job.previous()
        results = await job.results()
        with pytest.raises(LookupError, match="cannot be kept"):
            results["odd"]
        return ["odd" in results, len(results)]

    async with scene.client:
        flow = Workflow()
        flow.add(Do("odd"), name="odd")
        last = flow.add(Do("next_one"), after=["odd"])
        await scene.end(flow)
        assert await scene.client.result(last.id) == [True, 1]


async def test_there_is_nothing_before_a_first_step(scene: Scene) -> None:
    """Nor is there anything for a job that is no step: a LookupError says which it is."""
    seen: list[str] = []

    @scene.on
    async def alone(job: JobContext) -> object:
        for ask in (job.previous, job.results, partial(job.extend, Do("more"))):
            with pytest.raises(LookupError) as caught:
                await ask()
            seen.append(str(caught.value).replace(job.id, "X"))
        assert job.workflow is None
        return None

    @scene.on
    async def begin(job: JobContext) -> object:
        with pytest.raises(LookupError, match="is a first step of its workflow: there is none before it"):
            await job.previous()
        assert dict(await job.results()) == {}
        return "begun"

    async with scene.client:
        [job_id] = await scene.client.add(Kept("alone")).save()
        with anyio.fail_after(LIMIT):
            job = await scene.client.wait(job_id)
        assert job.error is None
        run = await scene.end(chain(Do("begin"), Do("x")))
    assert run.status is JobStatus.SUCCEEDED
    assert seen == [
        f"job X is no step of a workflow, so that there is no job.{call}()"
        for call in ("previous", "results", "extend")
    ]


async def test_a_thread_sees_and_adds_as_well(database: str) -> None:
    """By anyio.from_thread."""
    client = Client(database)

    def in_thread(task: InThread, job: JobContext) -> object:
        if task.what == "last":
            return anyio.from_thread.run(job.previous, list[str])
        found = anyio.from_thread.run(job.results)
        anyio.from_thread.run(partial(job.extend, InThread("last"), name="last"))
        return [*found.values(), anyio.from_thread.run(job.previous, str)]

    async def in_loop(task: Do) -> str:
        return task.what

    client.register(InThread, in_thread)
    client.register(Do, in_loop)
    async with client:
        whole = chain(Do("a"), InThread("b"))
        await client.add(whole).save()
        with anyio.fail_after(LIMIT):
            run = await client.wait(whole.id)
        assert states(run) == {"last": "succeeded"}
        assert await client.result(run.step("last").id or "") == ["a", "a"]


# -- failures -------------------------------------------------------------------------------------


async def _fails(job: JobContext) -> object:
    raise ValueError("broken")


async def test_what_depends_on_a_failed_step_is_cancelled(scene: Scene) -> None:
    """And nothing of it runs; what does not depend on it does."""
    scene.does["a"] = _fails
    flow = graph("a", "b", "c")
    flow.add(Do("other"), name="other")
    async with scene.client:
        run = await scene.end(flow)
    assert states(run) == {"a": "failed", "b": "cancelled", "c": "cancelled", "other": "succeeded"}
    assert run.status is JobStatus.FAILED
    assert sorted(scene.ran) == ["a", "other"]
    step = run.step("b")
    assert (step.skipped, step.error) == (True, "skipped: 'a' has failed")


async def test_a_tolerated_failure(scene: Scene) -> None:
    """What depends on it runs, and sees None; the whole has succeeded."""
    seen: list[object] = []
    scene.does["a"] = _fails

    @scene.on
    async def b(job: JobContext) -> object:
        seen.extend([await job.previous(), dict(await job.results())])
        return "b"

    async with scene.client:
        run = await scene.end(graph("a", "b", "c", if_failed="continue"))
    assert states(run) == {"a": "failed", "b": "succeeded", "c": "succeeded"}
    assert run.status is JobStatus.SUCCEEDED
    assert seen == [None, {}]


async def test_a_task_for_a_failure(scene: Scene) -> None:
    """It runs once, knows whom it stands in for, and what that had before it."""
    seen: list[object] = []
    scene.does["b"] = _fails

    @scene.on
    async def refund(job: JobContext) -> object:
        seen.extend([await job.previous(), dict(await job.results()), job.parent])
        return "refunded"

    flow = Workflow()
    flow.add(Do("a"), name="a")
    failing = flow.add(Do("b"), after="a", name="b", if_failed=Do("refund"))
    flow.add(Do("c"), after="b", name="c")
    async with scene.client:
        run = await scene.end(flow)
    assert states(run) == {"a": "succeeded", "b": "failed", "c": "cancelled"}
    assert [(step.kind, step.status) for step in run.steps[3:]] == [("fallback", "succeeded")]
    assert seen == [None, {"a": "a"}, failing.id]
    assert scene.ran == ["a", "b", "refund"]


@pytest.mark.parametrize("fails", [False, True])
async def test_callbacks_of_the_whole(scene: Scene, fails: bool) -> None:
    """They run when it has ended, once each, and see the results of all."""
    if fails:
        scene.does["b"] = _fails
    seen: list[object] = []

    @scene.on
    async def done(job: JobContext) -> object:
        assert job.workflow is not None
        with anyio.fail_after(LIMIT):
            run = await scene.client.workflows.wait(job.workflow)
        seen.append([run.status.value, sorted((await job.results(str)).values())])
        return None

    whole = group(
        Kept("a"), Kept("b"), on_success=Kept("well"), on_failure=Kept("badly"), on_complete=Kept("done")
    )
    async with scene.client:
        await scene.end(whole)
        run = await scene.all_of(whole.id)
    assert run.status == ("failed" if fails else "succeeded")
    assert seen == [["failed", ["a"]] if fails else ["succeeded", ["a", "b"]]]
    assert sorted(scene.ran) == ["a", "b", *(["badly", "done"] if fails else ["done", "well"])]
    assert run.progress == 1.0


async def test_retries_and_snoozes_hold_up_what_follows(scene: Scene) -> None:
    """Nothing is released before the step has ended for good, and then once."""
    tries: list[int] = []

    @scene.on
    async def slow(job: JobContext) -> object:
        tries.append(job.attempt)
        if len(tries) == 1:
            raise Retry(after=0)
        if len(tries) == 2:
            raise Snooze(0)
        if len(tries) == 3:
            raise ValueError
        return len(tries)

    @scene.on
    async def after(job: JobContext) -> object:
        assert await job.previous(int) == 4
        return None

    async with scene.client:
        run = await scene.end(chain(Stubborn("slow"), Do("after")))
    assert run.status is JobStatus.SUCCEEDED
    assert scene.ran == ["slow"] * 4 + ["after"]
    assert tries == [1, 2, 2, 3]


async def test_a_payload_that_does_not_decode_fails_its_step(file: str) -> None:
    """And so what depends on it is cancelled."""
    scene, adds = Scene(file), Client(file, workers=0)

    class Older(Task):
        config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=1)
        task_name: ClassVar[str] = "Do"
        number: int

    flow = Workflow()
    flow.add(Older(1), name="a")
    flow.add(Older(2), after="a", name="b")
    async with adds, scene.client:
        await adds.add(flow).save()
        run = await scene.end_of(flow.id)
    assert states(run) == {"a": "failed", "b": "cancelled"}
    assert "does not decode" in str(run.step("a").error)
    assert scene.ran == []


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_step_whose_process_dies(file: str, limit: int) -> None:
    """It runs again, and fails for good at its limit of crashes; what follows hears of it as of any end."""
    scene = Scene(file, workers=0)
    dying = QueueConfig("dying", max_crashes=limit)

    class Dying(Task):
        config: ClassVar[QueueConfig] = dying

    flow = Workflow()
    flow.add(Dying(), name="a", if_failed=Do("instead"))
    flow.add(Do("b"), after="a", name="b")
    async with scene.client:
        await scene.client.add(flow).save()
        store = scene.client.open_store()
        lane = Lane(kinds=(("dying", "Dying"),), room=1)
        now = scene.client.clock.now()
        claim = await store.claim([lane], owner="dead", now=now, until=now + 60_000)
        [job] = claim.jobs
        outcome = crashed(job, dying, now)
        assert await store.finish([outcome]) == set()
        run = await scene.client.workflow(flow.id)
    assert run is not None
    a, b, *fallback = (step.status.value for step in run.steps)
    assert (a, b, fallback) == (
        ("failed", "cancelled", ["pending"]) if limit == 1 else ("pending", "pending", [])
    )


# -- adding steps ---------------------------------------------------------------------------------


async def test_a_running_step_adds_others(scene: Scene) -> None:
    """After itself, unless it is said otherwise, with groups and names; ids are known at once."""
    seen: dict[str, object] = {}

    @scene.on
    async def plan(job: JobContext) -> object:
        parts = await job.extend(group(Do("x"), Do("y")), name="parts")
        total = await job.extend(Do("total"), after=[parts, "side"], name="total")
        await job.extend(Do("report"), after=["total"])
        await job.extend(Do("by_id"), after=total.id, name="by id")
        assert job.workflow == total.workflow
        seen["id"] = total.id
        return "planned"

    @scene.on
    async def total(job: JobContext) -> object:
        seen["previous"] = await job.previous()
        seen["total"] = job.id
        seen["results"] = sorted((await job.results(str)).values())
        seen["parent"] = job.parent
        return 2

    @scene.on
    async def report(job: JobContext) -> object:
        seen["report"] = await job.previous(int)
        return None

    @scene.on
    async def by_id(job: JobContext) -> object:
        seen["by id"] = await job.previous(int)
        return None

    flow = Workflow()
    flow.add(Do("side"), name="side")
    planned = flow.add(Do("plan"), name="plan")
    async with scene.client:
        run = await scene.end(flow)
    assert run.status is JobStatus.SUCCEEDED
    assert sorted(scene.ran) == sorted(["plan", "side", "x", "y", "total", "report", "by_id"])
    assert seen["previous"] == ["x", "y", "side"]
    assert seen["results"] == ["planned", "side", "x", "y"]
    assert (seen["id"], seen["report"], seen["by id"]) == (seen["total"], 2, 2)
    assert seen["parent"] == planned.id


async def test_only_an_attempt_that_succeeds_adds(scene: Scene) -> None:
    """So retries and snoozes add nothing twice."""

    @scene.on
    async def plan(job: JobContext) -> object:
        await job.extend(Do(f"of {len(scene.ran)}"), name="more")
        if len(scene.ran) == 1:
            raise ValueError
        if len(scene.ran) == 2:
            raise Snooze(0)
        return None

    async with scene.client:
        run = await scene.end(chain(Stubborn("plan"), Do("last")))
    assert run.status is JobStatus.SUCCEEDED
    assert scene.ran.count("plan") == 3
    assert sorted(scene.ran[3:]) == ["last", "of 3"]


async def test_a_step_that_fails_for_good_adds_nothing(scene: Scene) -> None:
    """Whatever it has asked for before."""

    @scene.on
    async def plan(job: JobContext) -> object:
        await job.extend(Do("more"), after=())
        raise Discard("no")

    async with scene.client:
        run = await scene.end(chain(Stubborn("plan"), Do("last")))
    assert run.status is JobStatus.FAILED
    assert scene.ran == ["plan"]
    assert run.size == 2


async def test_a_transaction_writes_what_its_step_adds(file: str) -> None:
    """With the completion, in its commit; a block that is undone adds nothing."""
    scene, refused = Scene(file), asyncio.Event()

    @scene.on
    async def plan(job: JobContext) -> object:
        if job.attempt == 1:
            async with job.transaction():
                await job.extend(Do("undone"))
                raise ValueError
        await job.extend(Do("before"))
        with contextlib.suppress(ValueError):  # and the handler tries it again
            async with job.transaction():
                await job.extend(Do("undone"), after="other", name="inside")
                raise ValueError
        async with job.transaction():
            await job.extend(Do("inside"), after="other", name="inside")
            job.result = 7
        with pytest.raises(InvalidState, match="has ended, and adds nothing more"):
            await job.extend(Do("too late"))
        refused.set()
        return None

    @scene.on
    async def before(job: JobContext) -> object:
        return await job.previous(int)

    flow = Workflow()
    flow.add(Stubborn("plan"), name="plan")
    flow.add(Do("other"), name="other")
    async with scene.client:
        run = await scene.end(flow)
        added = next(step for step in run.steps if step.number == 2)
        assert await scene.client.result(added.id or "") == 7
        with anyio.fail_after(LIMIT):
            await refused.wait()
    assert run.status is JobStatus.SUCCEEDED
    assert sorted(scene.ran) == ["before", "inside", "other", "plan", "plan"]


async def test_what_cannot_be_added_is_refused_at_the_call(scene: Scene) -> None:
    """And leaves nothing behind: what was added before and after is there."""
    errors: list[type[Exception]] = []

    @scene.on
    async def plan(job: JobContext) -> object:
        await job.extend(Do("x"), name="x")
        wrong: list[tuple[Any, dict[str, Any]]] = [
            (Do("y"), {"after": "nobody"}),
            (Do("y"), {"name": "x"}),
            (Do("y"), {"name": "plan"}),
            (chain(Do("y"), name="plan"), {}),
            (Do("y"), {"after": [3]}),
            (Do("y"), {"if_failed": "explode"}),
            (group(Do("y"), Do("\ud800")), {}),
            ("y", {}),
        ]
        for part, said in wrong:
            with pytest.raises((ValueError, TypeError)) as caught:
                await job.extend(part, **said)
            errors.append(caught.type)
        await job.extend(Do("z"), after="x", name="y")
        return None

    flow = Workflow()
    flow.add(Do("plan"), name="plan")
    async with scene.client:
        run = await scene.end(flow)
    assert states(run) == {"plan": "succeeded", "x": "succeeded", "y": "succeeded"}
    assert errors[:4] == [InvalidValue] * 4
    assert errors[6] is PayloadError
    assert scene.ran == ["plan", "x", "z"]


async def test_who_comes_after_its_attempt_adds_nothing(scene: Scene) -> None:
    """A task that a handler has left behind is told so."""
    left: list[asyncio.Task[Any]] = []
    over = asyncio.Event()

    @scene.on
    async def plan(job: JobContext) -> object:
        async def late() -> None:
            await over.wait()
            await job.extend(Do("more"))

        left.append(asyncio.ensure_future(late()))
        return None

    async with scene.client:
        await scene.end(chain(Do("plan")))
        over.set()
        with pytest.raises(InvalidState, match="has ended, and adds nothing more"):
            await left[0]
    assert scene.ran == ["plan"]


async def test_what_the_database_refuses_to_add(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the step that wanted to, as an outcome that cannot be stored does, and nothing else."""

    @scene.on
    async def plan(job: JobContext) -> object:
        await job.extend(Do("more"))
        return None

    async with scene.client:
        store = scene.client.open_store()
        finish = store.finish

        async def refuse(outcomes: Sequence[Outcome]) -> set[str]:
            if any(isinstance(outcome, Complete) and outcome.extends for outcome in outcomes):
                raise DatabaseUnusable("app.db", "no such thing")
            return await finish(outcomes)

        monkeypatch.setattr(store, "finish", refuse)
        flow = graph("plan", "after")
        flow.add(Do("beside"), name="beside")
        run = await scene.end(flow)
    assert states(run) == {"plan": "failed", "after": "cancelled", "beside": "succeeded"}
    assert str(run.step("plan").error).startswith("its outcome could not be stored: DatabaseUnusable")
    assert sorted(scene.ran) == ["beside", "plan"]


async def test_steps_are_told_as_added(scene: Scene) -> None:
    """To listeners, once their outcome is written."""
    told: list[str] = []
    both = asyncio.Event()

    @scene.on
    async def plan(job: JobContext) -> object:
        await job.extend(Do("more"))
        return None

    async with scene.client:
        whole = chain(Do("plan"))

        @scene.client.on("added")
        async def tell(event: Event) -> None:
            told.append(event.job_id)
            if len(told) == 2:
                both.set()

        run = await scene.end(whole)
        with anyio.fail_after(LIMIT):
            await both.wait()
    assert told == [step.id for step in run.steps]


# -- the whole ------------------------------------------------------------------------------------


async def test_a_workflow_is_waited_for(scene: Scene) -> None:
    """Whatever is kept of it otherwise, and for as long as one likes to."""
    began, go = asyncio.Event(), asyncio.Event()

    @scene.on
    async def a(job: JobContext) -> object:
        began.set()
        await go.wait()
        return 1

    whole = chain(Do("a"), Do("b"))
    async with scene.client:
        await scene.client.add(whole).save()
        with pytest.raises(TimeoutError, match=f"workflow {whole.id} has not ended within 0 s"):
            await scene.client.wait(whole.id, 0)
        with anyio.fail_after(LIMIT):
            await began.wait()
        assert await scene.client.status(whole.id) is JobStatus.RUNNING
        run = await scene.client.workflow(whole.id)
        assert run is not None
        assert (run.status, run.progress, run.size, run.left) == (JobStatus.RUNNING, 0.0, 2, 2)
        waiting = [asyncio.ensure_future(scene.client.wait(whole.id)) for _ in range(3)]
        await asyncio.sleep(0)
        go.set()
        with anyio.fail_after(LIMIT):
            runs = await asyncio.gather(*waiting)
            again = await scene.client.wait(whole.id)
        assert [run.status for run in (*runs, again)] == [JobStatus.SUCCEEDED] * 4
        assert await scene.client.result(whole.steps[0].id) == 1
        assert await scene.client.status(whole.id) is JobStatus.SUCCEEDED


async def test_nothing_is_left_of_a_workflow_that_nobody_keeps(scene: Scene) -> None:
    """All of it is gone at its end, at once; who asks then is too late."""
    whole = chain(Do("a"), Do("b"), on_complete=Do("done"))
    gone = asyncio.Event()

    @scene.on
    async def done(job: JobContext) -> object:
        gone.set()
        return None

    async with scene.client:
        await scene.client.add(whole).save()
        with anyio.fail_after(LIMIT):
            await gone.wait()
            while await scene.client.workflow(whole.id) is not None:
                await asyncio.sleep(0)
        assert [await scene.client.get(step.id) for step in whole.steps] == [None, None]
        with pytest.raises(JobNotFound, match="no such job or workflow"):
            await scene.client.wait(whole.id)
        assert await scene.client.status(whole.id) is JobStatus.NOT_FOUND


async def test_a_workflow_expires_as_a_whole(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the longest retention among its steps; upkeep does not look at each end of a step."""

    class Brief(Task):
        config: ClassVar[QueueConfig] = QueueConfig("brief", retention=Retention(duration=0.3))

    scene = Scene(database)

    async def run(task: Brief) -> None:
        scene.ran.append("brief")

    scene.client.register(Brief, run)
    looks = 0
    whole = chain(Do("a"), *(Brief() for _ in range(50)))
    async with scene.client:
        store = scene.client.open_store()
        ask, expire = store.next_expiry, store.expire
        gone = asyncio.Event()

        async def asked() -> int | None:
            nonlocal looks
            looks += 1
            return await ask()

        async def expired(*, now: int, limit: int) -> int:
            count = await expire(now=now, limit=limit)
            gone.set()
            return count

        monkeypatch.setattr(store, "next_expiry", asked)
        monkeypatch.setattr(store, "expire", expired)
        await scene.client.add(whole).save()
        with anyio.fail_after(LIMIT):
            await gone.wait()
        assert len(scene.ran) == 51
        assert await scene.client.workflow(whole.id) is None
        assert await scene.client.jobs.count() == 0
        assert looks < 15


async def test_a_workflow_is_waited_for_from_elsewhere(file: str) -> None:
    """By another client, which has no workers."""
    scene, other = Scene(file), Client(file, workers=0)
    go = asyncio.Event()

    @scene.on
    async def b(job: JobContext) -> object:
        await go.wait()
        return "b"

    whole = group(Do("a"), Do("b")).then(Do("c"))
    async with scene.client, other:
        await other.add(whole).save()
        waiting = asyncio.ensure_future(other.wait(whole.id))
        with anyio.fail_after(LIMIT):
            while whole.id not in other.waits.watches or not other.waits._stored.get(whole.id):
                await asyncio.sleep(0)
            go.set()
            run = await waiting
    assert run.status is JobStatus.SUCCEEDED
    assert [step.status for step in run.steps] == [JobStatus.SUCCEEDED] * len(run.steps)


async def test_who_waits_here_is_told_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the next look at all that is waited for, of which there are not too many in a second."""
    monkeypatch.setattr(_waits, "LOOKS_APART", 3600.0)
    go = asyncio.Event()

    @scene.on
    async def a(job: JobContext) -> object:
        await go.wait()
        return None

    async with scene.client:
        for _ in range(2):
            go.clear()
            whole = chain(Do("a"), Do("b"))
            await scene.client.add(whole).save()
            waiting = asyncio.ensure_future(scene.end_of(whole.id))
            while not scene.client.waits._stored.get(whole.id):
                await asyncio.sleep(0)
            go.set()
            assert (await waiting).status is JobStatus.SUCCEEDED


async def test_a_step_does_not_wait_for_its_own_workflow(scene: Scene) -> None:
    """That would never end; for another one it may."""
    other = chain(Do("x"), Do("y"))

    @scene.on
    async def a(job: JobContext) -> object:
        with pytest.raises(InvalidState, match="waits for its own workflow"):
            await scene.client.wait(job.workflow or "")
        await job.client.add(other).save()
        return (await scene.client.wait(other.id)).status

    whole = chain(Do("a"), Do("b"))
    async with scene.client:
        run = await scene.end(whole)
        assert await scene.client.result(whole.steps[0].id) == "succeeded"
    assert run.status is JobStatus.SUCCEEDED


async def test_a_workflow_shows_its_graph(scene: Scene) -> None:
    """Steps by name and id, what comes after what, and all of it as text to draw."""
    flow = graph("a", "b")
    async with scene.client:
        run = await scene.end(flow)
    [a, b] = run.steps
    assert (run.step("a"), run.step(b.id or "")) == (a, b)
    with pytest.raises(LookupError, match="has no step 'z'; the names of its steps: 'a', 'b'"):
        run.step("z")
    assert (a.kind, a.queue, a.task, a.attempt, a.max_attempts, b.after) == ("step", "work", "Do", 1, 1, (0,))
    assert b.started_at is not None
    assert b.finished_at is not None
    text = run.mermaid()
    assert text.startswith("flowchart TD\n")
    assert "n0 --> n1" in text
    assert ":::succeeded" in text


async def test_a_workflow_is_cancelled_as_a_whole(scene: Scene) -> None:
    """What waits and what runs; its end is a cancellation, and its callback comes."""
    began = asyncio.Event()

    @scene.on
    async def a(job: JobContext) -> object:
        began.set()
        await asyncio.Event().wait()
        return None

    whole = chain(Do("a"), Do("b"), Do("c"), on_failure=Do("sorry"))
    async with scene.client:
        await scene.client.add(whole).save()
        with anyio.fail_after(LIMIT):
            await began.wait()
        waiting = asyncio.ensure_future(scene.end_of(whole.id))
        assert await scene.client.workflows.cancel(whole.id, "unknown", whole.id) == 1
        run = await waiting
        assert [step.status.value for step in run.steps[:3]] == ["cancelled"] * 3
        assert run.status is JobStatus.CANCELLED
        assert run.cancelled_at is not None
        await scene.all_of(whole.id)
        assert await scene.client.workflows.cancel(whole.id) == 0
    assert scene.ran == ["a", "sorry"]


async def test_client_cancel_takes_workflows(scene: Scene) -> None:
    """And returns how many jobs have ended by it, or were asked to."""
    whole = chain(Do("a"), Do("b"), Do("c"))
    async with scene.client:
        await scene.client.add(whole).wait(3600).save()
        assert await scene.client.cancel(whole.id) == 3
        assert await scene.client.cancel(whole.id) == 0
    assert scene.ran == []


async def test_a_cancelled_workflow_is_not_extended(scene: Scene) -> None:
    """A step that ends all the same has succeeded, and what it wanted to add is not."""
    began = asyncio.Event()

    @scene.on
    async def a(job: JobContext) -> object:
        await job.extend(Do("more"))
        began.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "all the same"

    whole = chain(Do("a"), Do("b"))
    async with scene.client:
        await scene.client.add(whole).save()
        with anyio.fail_after(LIMIT):
            await began.wait()
        await scene.client.workflows.cancel(whole.id)
        run = await scene.end_of(whole.id)
    assert [step.status.value for step in run.steps] == ["succeeded", "cancelled"]
    assert scene.ran == ["a"]


async def test_a_workflow_is_deleted_as_a_whole(scene: Scene) -> None:
    """With all of its jobs, unless one of them runs; jobs are none of its business."""
    began, go = asyncio.Event(), asyncio.Event()

    @scene.on
    async def a(job: JobContext) -> object:
        began.set()
        await go.wait()
        return None

    client, whole = scene.client, chain(Kept("a"), Kept("b"))
    async with client:
        [job_id] = await client.add(Do("later")).wait(3600).save()
        await client.add(whole).save()
        with anyio.fail_after(LIMIT):
            await began.wait()
        assert await client.workflows.delete(whole.id) == 0
        go.set()
        await scene.end_of(whole.id)
        assert await client.jobs.delete(whole.steps[0].id) == 0
        assert await client.workflows.delete(whole.id, job_id, whole.id) == 1
        assert await client.workflow(whole.id) is None
        assert await client.jobs.count(queue="kept") == 0
        assert await client.jobs.get(job_id) is not None


async def test_a_workflow_runs_on_after_a_retry(scene: Scene) -> None:
    """Of the whole, or of the failed step: what was skipped because of it waits for it again."""
    tried = 0

    @scene.on
    async def b(job: JobContext) -> object:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise ValueError
        return await job.previous()

    whole = chain(Kept("a"), Kept("b"), Kept("c"), on_complete=Kept("done"))
    async with scene.client:
        await scene.end(whole)
        await scene.all_of(whole.id)
        assert await scene.client.workflows.retry(whole.id, "unknown") == 1
        assert (await scene.end_of(whole.id)).status is JobStatus.FAILED
        await scene.all_of(whole.id)
        failed = whole.steps[1].id
        assert await scene.client.jobs.retry(failed) == 1
        run = await scene.end_of(whole.id)
        assert run.status is JobStatus.SUCCEEDED
        await scene.all_of(whole.id)
        assert await scene.client.workflows.retry(whole.id) == 0
    assert scene.ran == ["a", "b", "done", "b", "done", "b", "c", "done"]


async def test_workflows_are_listed(scene: Scene) -> None:
    """The last one first, by state, a page after another."""
    scene.does["bad"] = _fails
    wholes = [chain(Kept(what), Kept("x")) for what in ("good", "bad", "well")]
    client = scene.client
    async with client:
        for whole in wholes:
            await scene.end(whole)
        ids = [whole.id for whole in reversed(wholes)]
        found = await client.workflows.list()
        assert [run.id for run in found] == ids
        assert [run.steps for run in found] == [()] * 3
        assert [run.size for run in found] == [2] * 3
        assert [run.id for run in await client.workflows.list(limit=1, before=ids[0])] == ids[1:2]
        assert [run.id for run in await client.workflows.list(state="failed")] == ids[1:2]
        assert [run.id for run in await client.workflows.list(state=["succeeded"])] == [ids[0], ids[2]]
        found_again = await client.workflows.get(ids[0])
        assert found_again is not None
        assert [step.task for step in found_again.steps] == ["Kept", "Kept"]


async def test_wrong_values_are_refused(scene: Scene) -> None:
    """At the call, whatever the database has."""
    async with scene.client:
        workflows = scene.client.workflows
        with pytest.raises(InvalidType, match=r"cancel\(\) takes ids of workflows, which are str"):
            await workflows.cancel(3)  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match=r"workflows\.delete\(\) was given no id"):
            await workflows.delete()
        with pytest.raises(InvalidValue, match="'' is no workflow's id"):
            await workflows.get("")
        with pytest.raises(InvalidValue, match="state='done' is none of the states"):
            await workflows.list(state="done")
        with pytest.raises(InvalidValue, match="max_attempts=0"):
            await workflows.retry("x", attempts=0)
        [job_id] = await scene.client.add(Kept("a")).save()
        with pytest.raises(JobNotFound, match="this is a job, and no workflow"), anyio.fail_after(LIMIT):
            await workflows.wait(job_id)


async def test_nothing_of_it_inside_a_transaction(file: str) -> None:
    """Which keeps everybody else from writing; to look is allowed."""
    scene = Scene(file)

    @scene.on
    async def a(job: JobContext) -> object:
        workflows = job.client.workflows
        async with job.transaction():
            for change in (workflows.cancel, workflows.delete, workflows.retry):
                with pytest.raises(InvalidState, match=r"inside a job\.transaction\(\)"):
                    await change("x")
            job.result = [await job.previous(), dict(await job.results())]
        return None

    whole = chain(Do("first"), Do("a"))
    async with scene.client:
        await scene.end(whole)
        [_, last] = whole.steps
        assert (await scene.client.result(last.id))[0] == "first"


# -- claims that are lost -------------------------------------------------------------------------


async def test_a_lost_claim_releases_nothing(file: str) -> None:
    """What the one who has lost it says of its step changes nothing, nor does what it wants to add."""
    first, second = Scene(file), Scene(file)
    began = [asyncio.Event(), asyncio.Event()]
    go = [asyncio.Event(), asyncio.Event()]
    seen: list[object] = []

    def slow(number: int) -> Does:
        async def a(job: JobContext) -> object:
            await job.extend(Do(f"of {number}"))
            began[number].set()
            await go[number].wait()
            return number

        return a

    async def b(job: JobContext) -> object:
        seen.append(await job.previous())
        return None

    first.does, second.does = {"a": slow(0), "b": b}, {"a": slow(1), "b": b}
    whole = chain(Kept("a"), Kept("b"))
    lost = asyncio.Event()

    @first.client.on("lost")
    async def tell(event: Event) -> None:
        lost.set()

    async with first.client:
        await first.client.add(whole).save()
        with anyio.fail_after(LIMIT):
            await began[0].wait()
            async with second.client:
                assert await second.client.jobs.release(whole.steps[0].id) == 1
                await began[1].wait()
                go[0].set()
                await lost.wait()
                run = await second.client.workflow(whole.id)
                assert run is not None
                assert [step.status.value for step in run.steps] == ["running", "pending"]
                go[1].set()
                run = await second.client.workflows.wait(whole.id)
    assert [step.status.value for step in run.steps] == ["succeeded"] * 3
    assert seen == [1]
    assert sorted(first.ran + second.ran) == ["a", "a", "b", "of 1"]


# -- handlers by themselves -----------------------------------------------------------------------


async def test_a_handler_of_a_step_is_tried_by_itself() -> None:
    """It is told what there was before it, and what it adds is checked and dropped."""
    scene = Scene(":memory:")

    @scene.on
    async def step(job: JobContext) -> object:
        found = await job.results()
        job.log.info("so that its outcome carries something")
        handle = await job.extend(Do("more"), after="anything", name="more")
        await job.extend(Do("yet more"), after=handle)
        with pytest.raises(ValueError, match="there is a step 'more' already"):
            await job.extend(Do("twice"), name="more")
        with pytest.raises(InvalidTask, match=r"extend\(.* takes one part: a task, a chain"):
            await job.extend([Do("one"), Do("two")])  # type: ignore[arg-type]
        return [await job.previous(int | None), found["a"], len(found)]

    @scene.on
    async def half(job: JobContext) -> object:
        assert dict(await job.results()) == {}
        with pytest.raises(LookupError, match="no previous= was given"):
            await job.previous()
        return None

    async with scene.client:
        assert await scene.client.run(Do("step"), previous=3, results={"a": 1}) == [3, 1, 1]
        await scene.client.run(Do("half"), results={})
        with pytest.raises(LookupError):
            await scene.client.run(Do("step"))
    assert scene.ran == ["step", "half", "step"]
    client = testing.client()
    client.register(Do, scene._do)
    async with client:
        ran = await testing.run_handler(client, Do("step"), previous=None, results={"a": None}, id="mine")
        assert (ran.id, ran.result) == ("mine", [None, None, 1])
        ran = await testing.run_handler(client, Do("step"), previous=3, results={"a": 1}, tags=["x"])
        assert ran.result == [3, 1, 1]
        assert await testing.added(client, Do) == [Do("step")] * 2
        with pytest.raises(LookupError):
            await testing.run_handler(client, Do("step"))


async def test_what_a_handler_is_given_has_the_type_that_it_asks_for() -> None:
    """As it would have in a workflow, where it comes from the database."""
    scene = Scene(":memory:")

    @scene.on
    async def step(job: JobContext) -> object:
        assert await job.previous(Do) == Do("before")
        assert (await job.results(Do))["a"] == Do("a")
        with pytest.raises(PayloadError, match="of another type"):
            await job.previous(int)
        with pytest.raises(PayloadError, match="of another type"):
            await job.previous(Do, many=True)
        return None

    async with scene.client:
        await scene.client.run(Do("step"), previous=Do("before"), results={"a": Do("a")})
    assert scene.ran == ["step"]


async def test_workflows_in_tests_of_applications() -> None:
    """They run until idle, also what is for later, and what was added is known."""
    client = testing.client()

    async def handle(task: Do, job: JobContext) -> object:
        if task.what == "plan":
            await job.extend(Do("more"))
        return task.what

    client.register(Do, handle)
    async with client:
        await client.add(group(Do("plan"), Do("b")).then(Do("c"))).wait(3600).save()
        ran = await testing.run_until_idle(client)
        assert sorted(one.task.what for one in ran) == ["b", "c", "more", "plan"]
        added = await testing.added(client, Do)
        assert [task.what for task in added] == ["plan", "b", "c", "more"]
