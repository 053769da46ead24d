"""What type checkers say of declarations and calls. An ignore comment marks an error that must be there."""
# pyright: standard, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, assert_type

import aiosqlite

from backlite_async import (
    Added,
    AddOperation,
    AlreadyExists,
    AttemptError,
    Backoff,
    CallNext,
    Chain,
    Client,
    Count,
    Discard,
    Event,
    Events,
    Group,
    Job,
    JobContext,
    JobPage,
    JobStatus,
    LogLine,
    OwnerInfo,
    Percentiles,
    Queue,
    QueueConfig,
    QueueStats,
    Rate,
    Retention,
    Retry,
    Snooze,
    Step,
    StepRun,
    Task,
    TaskInfo,
    Workflow,
    WorkflowId,
    WorkflowRun,
    chain,
    current_client,
    current_job,
    group,
)


class SendEmail(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        name="send-email",
        max_attempts=5,
        max_crashes=2,
        backoff=Backoff(base=5.0, factor=3, cap=timedelta(hours=1), jitter=0),
        timeout=10.0,
        retention=Retention(duration=timedelta(hours=6), only_failed=False, payload="failed"),
    )
    task_name: ClassVar[str] = "send-email"
    aliases: ClassVar[tuple[str, ...]] = ("mail",)
    to: str
    subject: str = ""


# -- declarations ---------------------------------------------------------------------------------

QueueConfig("a", backoff=5)
QueueConfig("a", backoff=timedelta(seconds=5), timeout=timedelta(seconds=5))
QueueConfig("a", backoff="5")  # type: ignore[arg-type]
QueueConfig("a", max_attempts=1.5)  # type: ignore[arg-type]
QueueConfig("a", retention=3600)  # type: ignore[arg-type]
QueueConfig("a", retries=3)  # type: ignore[call-arg]
QueueConfig()  # type: ignore[call-arg]
Retention(payload="success")  # type: ignore[arg-type]
Retention(3600)  # type: ignore[call-arg]
Backoff(5)  # type: ignore[call-arg]
SendEmail(to=5)  # type: ignore[arg-type]
SendEmail()  # type: ignore[call-arg]

QueueConfig(
    "a", priority=-5, concurrency=1, global_concurrency=2, concurrency_per_key=3, rate=Rate(100, per=60)
)
QueueConfig("a", rate=Rate(100, timedelta(minutes=1)))
QueueConfig("a", rate=5)  # type: ignore[arg-type]
QueueConfig("a", priority="high")  # type: ignore[arg-type]


def queues(queue: Queue) -> None:
    """How a queue is doing."""
    assert_type(queue.oldest_due, timedelta | None)
    assert_type(queue.paused, bool)


# -- clients --------------------------------------------------------------------------------------

Client(Path("app.db"), workers=0, lease=timedelta(seconds=30), stop_timeout=None, durability="normal")
Client(":memory:", max_payload=10_000, install=False, busy_timeout=2)
Client(5)  # type: ignore[arg-type]
Client("app.db", durability="half")  # type: ignore[arg-type]
Client("app.db", 5)  # type: ignore[call-arg]


async def calls(connection: aiosqlite.Connection) -> None:
    """What the client's calls take and return."""
    client = Client("app.db")
    async with client as same:
        assert_type(same, Client)
    assert_type(await client.start(), None)
    assert_type(await client.stop(timedelta(seconds=1)), bool)
    assert_type(await client.install(), None)
    operation = client.add(SendEmail("a"), SendEmail("b", "hi"))
    assert_type(operation, AddOperation)
    assert_type(operation.at(datetime.now(UTC)).wait(5).wait(timedelta(1)).tx(connection), AddOperation)
    added = await operation.save()
    assert_type(added, Added)
    ids: list[str] = added
    assert_type(ids[0], str)
    assert_type(added.new, tuple[str, ...])
    assert_type(added.existing, tuple[str, ...])
    assert_type(await client.status("id"), JobStatus)
    job = await client.get("id")
    assert_type(job, Job | None)
    assert job is not None
    assert_type(job.payload, bytes | None)
    assert_type(job.due_at, datetime)
    assert_type(job.duration, timedelta | None)
    assert_type(job.meta, dict[str, Any])
    assert_type(job.tags, tuple[str, ...])
    job.status = JobStatus.FAILED  # type: ignore[misc]
    client.add("no task")  # type: ignore[arg-type]
    client.add(SendEmail)  # type: ignore[arg-type]
    operation.at(5)  # type: ignore[arg-type]
    operation.wait("5")  # type: ignore[arg-type]
    operation.tx("app.db")  # type: ignore[arg-type]
    await client.status(5)  # type: ignore[arg-type]


async def options(client: Client, task: SendEmail, connection: aiosqlite.Connection) -> None:
    """What can be said of a job when it is added."""
    plain: dict[str, str] = {"source": "import"}
    names = ["a", "b"]
    operation = (
        client.add(task).priority(5).max_attempts(1).timeout(5).timeout(timedelta(1)).key("customer-42")
    )
    assert_type(operation, AddOperation)
    operation = operation.meta({"a": [1, None, {"b": 2.5}]}).meta(plain).tags("a", "b").tags(*names).tags()
    assert_type(operation, AddOperation)
    operation = operation.unique().unique("key").unique("key", 3600, "replace").tx(connection)
    assert_type(operation.unique("key", within=timedelta(hours=1), on_conflict="keep"), AddOperation)
    assert_type(operation.unique(within=1, on_conflict="raise").id("order-42", "keep"), AddOperation)
    try:
        await operation.id("order-42", on_conflict="raise").save()
    except AlreadyExists as error:
        assert_type(error.job_id, str)
    operation.priority("high")  # type: ignore[arg-type]
    operation.max_attempts(None)  # type: ignore[arg-type]
    operation.timeout(None)  # type: ignore[arg-type]
    operation.key(42)  # type: ignore[arg-type]
    operation.meta([("a", 1)])  # type: ignore[arg-type]
    operation.meta({1: 2})  # type: ignore[dict-item]
    operation.tags(names)  # type: ignore[arg-type]
    operation.unique(42)  # type: ignore[arg-type]
    operation.unique(on_conflict="skip")  # type: ignore[arg-type]
    operation.id(42)  # type: ignore[arg-type]
    operation.id()  # type: ignore[call-arg]
    operation.id("a", on_conflict=None)  # type: ignore[arg-type]


async def services(client: Client, task: SendEmail, instant: datetime) -> None:
    """Lists, actions, and what is told of queues, owners and task types."""
    page = await client.jobs.list(queue="mail", task=SendEmail, state=["failed", JobStatus.PENDING], limit=5)
    assert_type(page, JobPage)
    assert_type(page[0], Job)
    assert_type(page.next, str | None)
    assert_type(page.limited, bool)
    page = await client.jobs.list(after=page.next, before=None, state="failed", tag=None)
    assert_type(await client.jobs.get("id"), Job | None)
    assert_type(await client.jobs.count(text="a", added_after=instant, most=5), Count)
    assert_type(1 + await client.jobs.count(key="a", unique="b", queue="c", parent="d", task="e"), int)
    ids = ["a", "b"]
    assert_type(await client.jobs.retry(*ids, attempts=2), int)
    assert_type(await client.jobs.run_now(all=True), int)
    assert_type(await client.jobs.reschedule("a", wait=timedelta(minutes=5)), int)
    assert_type(await client.jobs.reschedule(due_before=instant, at=instant), int)
    assert_type(await client.jobs.release(queue="mail"), int)
    assert_type(await client.jobs.cancel("a"), int)
    assert_type(await client.jobs.delete(finished_before=instant, state=JobStatus.SUCCEEDED), int)
    assert_type(await client.jobs.edit("a", task), int)
    assert_type(await client.jobs.copy("a"), str)
    assert_type(await client.jobs.copy("a", task), str)
    assert_type(await client.jobs.copy("a", task=task), str)
    assert_type(await client.jobs.copy(queue="mail", task="SendEmail"), int)
    assert_type(await client.jobs.copy(all=True), int)
    for error in page[0].errors:
        assert_type(error, AttemptError)
        assert_type(error.duration, timedelta | None)
    for line in page[0].lines:
        assert_type(line, LogLine)
    for queue in await client.queues.list():
        assert_type(queue.recent, QueueStats)
    stats = await client.queues.stats("mail", last=timedelta(days=1))
    assert_type(stats.run, Percentiles | None)
    for step in await client.queues.series("mail", last=3600, step=60):
        assert_type(step.begin, datetime | None)
        assert_type(step.throughput, float)
    for owner in await client.owners.list():
        assert_type(owner, OwnerInfo)
    for info in await client.tasks.list():
        assert_type(info, TaskInfo)
    assert_type(await client.tasks.get("SendEmail", queue="mail"), TaskInfo | None)
    await client.jobs.list(states="failed")  # type: ignore[call-arg]
    await client.jobs.list(state=5)  # type: ignore[arg-type]
    await client.jobs.list(limit="5")  # type: ignore[arg-type]
    await client.jobs.list(added_after=5)  # type: ignore[arg-type]
    await client.jobs.retry(ids)  # type: ignore[arg-type]
    await client.jobs.delete(queue=5)  # type: ignore[arg-type]
    await client.jobs.edit("a", "b")  # type: ignore[arg-type]
    await client.jobs.copy("a", "b")  # type: ignore[call-overload]
    await client.queues.stats("mail", last="day")  # type: ignore[arg-type]
    await client.tasks.get(SendEmail)  # type: ignore[arg-type]


# -- workflows ------------------------------------------------------------------------------------


async def workflows(client: Client, task: SendEmail, connection: aiosqlite.Connection) -> None:
    """Chains, groups and graphs; their handles, and what becomes of them."""
    first = chain(task, group(task, chain(task)), name="a", if_failed="continue", on_success=task)
    assert_type(first, Chain)
    second = group(task, first, if_failed=SendEmail("a"), on_failure=task, on_complete=None)
    assert_type(second, Group)
    assert_type(second.then(first).then(task), Chain)
    workflow = Workflow("nightly", if_failed="cancel", on_complete=task)
    step = workflow.add(task, name="a")
    assert_type(step, Step)
    workflow.add(second, after=[step, "a"], if_failed=task)
    workflow.add(second, after=step)
    workflow.add(task, after=workflow.steps)
    added = await client.add(task, first, second, workflow).tx(connection).priority(5).save()
    assert_type(added.workflows, tuple[WorkflowId, ...])
    assert_type(first.id, WorkflowId)
    assert_type(step.workflow, WorkflowId)
    assert_type(step.id, str)
    assert_type(step.name, str | None)
    assert_type(workflow.steps, tuple[Step, ...])
    assert_type(workflow.mermaid(), str)
    assert_type(await client.wait(workflow.id), WorkflowRun)
    assert_type(await client.wait(step.id), Job)
    assert_type(await client.workflow(first.id), WorkflowRun | None)
    chain(SendEmail)  # type: ignore[arg-type]
    group([task])  # type: ignore[arg-type]
    chain(task, workflow)  # type: ignore[arg-type]
    chain(task, if_failed="skip")  # type: ignore[arg-type]
    group(task, name=5)  # type: ignore[arg-type]
    first.then("a")  # type: ignore[arg-type]
    workflow.add(task, after=task)  # type: ignore[arg-type]
    workflow.add(task, [step])  # type: ignore[call-arg]
    workflow.add("a")  # type: ignore[arg-type]


# -- hooks ----------------------------------------------------------------------------------------

hooked = Client("app.db")


@hooked.middleware
async def around(job: JobContext, task: Task, call_next: CallNext) -> object:
    """What a middleware is given, and what it stays."""
    assert_type(job.id, str)
    await call_next(task, job)  # type: ignore[arg-type]
    value: object = await call_next(job, task)
    return value


@hooked.middleware(queue="mail")
async def around_mail(
    job: JobContext, task: Any, call_next: Callable[[JobContext, Any], Awaitable[object]]
) -> None:
    await call_next(job, task)


@hooked.middleware  # type: ignore[type-var]
def not_async(job: JobContext, task: Any, call_next: CallNext) -> None: ...


@hooked.middleware  # type: ignore[type-var]
async def two_arguments(job: JobContext, task: Any) -> None: ...


@hooked.middleware(queue="mail")  # type: ignore[type-var]
async def wrong_order(task: SendEmail, job: JobContext, call_next: CallNext) -> None: ...


hooked.middleware(queue=5)  # type: ignore[call-overload]


@hooked.on("failed", queue="mail")
async def failed(event: Event) -> None:
    """What a listener is told, and what it stays."""
    assert_type(event.job_id, str)
    assert_type(event.at, datetime)
    assert_type(event.error, str | None)
    assert_type(event.duration, timedelta | None)
    assert_type(event.progress, float | None)
    event.job_id = "other"  # type: ignore[misc]
    if event.kind == "lost":
        print(event.payload)  # type: ignore[attr-defined]


@hooked.on("progress")
def progressed(event: Event) -> int:
    return 1


@hooked.on("done")  # type: ignore[arg-type]
def unknown_kind(event: Event) -> None: ...


@hooked.on("failed")  # type: ignore[type-var]
async def listens_to_jobs(job: Job) -> None: ...


async def hooks(client: Client, task: SendEmail, job: JobContext, event: Event, call: CallNext) -> None:
    """What is decorated can be called as before; streams give events; run() gives what the handler does."""
    assert_type(await around(job, task, call), object)
    assert_type(progressed(event), int)
    await failed(event)
    async for found in client.events(queue="mail", limit=10):
        assert_type(found, Event)
    async with client.events() as events:
        assert_type(events, Events)
        assert_type(events.missed, int)
    number: int = await client.run(task)
    print(number)
    await client.run("task")  # type: ignore[arg-type]
    client.events(limit="10")  # type: ignore[arg-type]


# -- inside handlers ------------------------------------------------------------------------------


def inside(task: SendEmail, job: JobContext) -> None:
    """What a handler has at hand."""
    assert_type(task.to, str)
    assert_type(job.id, str)
    assert_type(job.attempt, int)
    assert_type(job.fence, int)
    assert_type(job.created_at, datetime)
    assert_type(job.deadline, datetime | None)
    assert_type(job.key, str | None)
    assert_type(job.parent, str | None)
    assert_type(job.tags, tuple[str, ...])
    assert_type(job.meta["a"], Any)
    assert_type(job.cancelled, bool)
    job.cancelled = True  # type: ignore[misc]
    assert_type(job.client, Client)
    assert_type(current_client(), Client)
    assert_type(current_job(), JobContext)
    job.log.info("hello", n=1)
    print(job.payload)  # type: ignore[attr-defined]


async def steering_workflows(client: Client, task: SendEmail) -> None:
    """What is waited for by the id of a workflow is one; by another id, a job."""
    whole = chain(task, group(task, task), if_failed=task).then(task)
    added = await client.add(whole, task).save()
    assert_type(await client.wait(whole.id, 5), WorkflowRun)
    assert_type(await client.wait(added.workflows[0]), WorkflowRun)
    assert_type(await client.wait(added[0]), Job)
    assert_type(await client.workflows.wait(added[0], timeout=timedelta(1)), WorkflowRun)
    run = await client.workflow(added[0])
    assert_type(run, WorkflowRun | None)
    if run is not None:
        assert_type(await client.wait(run.id), WorkflowRun)
        assert_type(run.step("a"), StepRun)
        assert_type(run.steps[0].finished_at, datetime | None)
        assert_type(run.edges, tuple[tuple[int, int], ...])
        text: str = run.id + run.mermaid()
        print(text)
    assert_type(list(await client.workflows.list(state="failed", limit=5, before="a")), list[WorkflowRun])
    assert_type(await client.workflows.cancel("a", "b"), int)
    assert_type(await client.workflows.delete("a"), int)
    assert_type(await client.workflows.retry("a", attempts=2), int)
    assert_type(await client.run(task, previous=None, results={"a": 1}), Any)


async def steps(task: SendEmail, job: JobContext) -> None:
    """What a handler sees of its workflow."""
    assert_type(await job.previous(), Any)
    assert_type(await job.previous(SendEmail), SendEmail)
    assert_type(await job.previous(list[int]), list[int])
    assert_type(await job.previous(int, many=True), list[int])
    maybe: int | None = await job.previous(int | None)
    print(maybe)
    assert_type((await job.results())["a"], Any)
    assert_type((await job.results(int))["a"], int)
    handle = await job.extend(task, after=["a"], name="b", if_failed="continue")
    assert_type(await job.extend(chain(task), after=handle), Step)
    assert_type(handle.id, str)
    if job.workflow is not None:
        assert_type(await job.client.wait(job.workflow), WorkflowRun)


def steering(what: int) -> None:
    """What a handler raises to steer its job."""
    if what == 1:
        raise Retry
    if what == 2:
        raise Retry(after=timedelta(minutes=1))
    if what == 3:
        raise Snooze(60)
    if what == 4:
        raise Snooze(until=datetime.now(UTC))
    if what == 5:
        raise Discard("gone")
    Retry(after="soon")  # type: ignore[arg-type]
    Snooze(until=5)  # type: ignore[arg-type]
    Snooze(datetime.now(UTC))  # type: ignore[arg-type]
