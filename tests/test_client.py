"""The client: starting, stopping, misuse, adding and asking."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from backlite_async import (
    AlreadyRegistered,
    BackliteError,
    Client,
    DatabaseUnusable,
    InvalidState,
    InvalidTask,
    InvalidValue,
    JobContext,
    JobStatus,
    PayloadError,
    QueueConfig,
    Retention,
    Task,
    current_client,
    current_job,
)
from backlite_async._task import task_type

from .conftest import LIMIT, Journal


class Note(Task):
    config: ClassVar[QueueConfig] = QueueConfig("notes", retention=Retention(payload="always"))
    text: str = ""
    number: float = 0.0


class Other(Task):
    config: ClassVar[QueueConfig] = QueueConfig("others", retention=Retention())
    text: str = ""


async def test_a_job_runs_and_is_kept(database: str, journal: Journal) -> None:
    """An added job runs once with its values, and its record tells of its life."""
    seen: list[tuple[Note, JobContext]] = []
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    async with Client(database) as client:

        @client.handler(Note)
        async def note(task: Note, job: JobContext) -> None:
            seen.append((task, job))

        [job_id] = await client.add(Note("hello")).save()
        await journal.ended(job_id)
        job = await client.get(job_id)
        assert await client.status(job_id) is JobStatus.SUCCEEDED
    [(task, context)] = seen
    assert task == Note("hello")
    assert (context.id, context.queue, context.attempt, context.max_attempts) == (job_id, "notes", 1, 3)
    assert context.client is client
    assert context.deadline is None
    assert job is not None
    assert (job.id, job.queue, job.task, job.status) == (job_id, "notes", "Note", JobStatus.SUCCEEDED)
    assert job.payload == b'{"text":"hello","number":0.0}'
    assert (job.attempt, job.max_attempts, job.crashes, job.error) == (1, 3, 0, None)
    assert job.fence == context.fence
    assert job.started_at is not None
    assert job.finished_at is not None
    assert before <= job.created_at <= job.due_at <= job.started_at <= job.finished_at
    assert job.duration is not None
    assert timedelta(0) <= job.duration < timedelta(seconds=LIMIT)
    assert job.expires_at is None


async def test_ids_come_in_the_order_of_the_tasks_and_grow(database: str) -> None:
    """`save` returns one id a task, in order, growing over operations; no tasks: no ids."""
    async with Client(database, workers=0) as client:
        first = await client.add(Note("a"), Other("b"), Note("c")).save()
        second = await client.add(Note("d")).save()
        jobs = [await client.get(job_id) for job_id in [*first, *second]]
        assert [job.queue for job in jobs if job] == ["notes", "others", "notes", "notes"]
        assert [*first, *second] == sorted({*first, *second})
        assert await client.add().save() == []


async def test_jobs_run_in_the_order_they_were_added(database: str, journal: Journal) -> None:
    """One worker runs the jobs that are due in the order of adding."""
    order: list[str] = []
    async with Client(database, workers=1) as client:
        ids = await client.add(*[Note(str(number)) for number in range(20)]).save()

        @client.handler(Note)
        async def note(task: Note) -> None:
            order.append(task.text)

        await journal.ended(*ids)
    assert order == [str(number) for number in range(20)]


async def test_status_over_a_life(database: str, journal: Journal) -> None:
    """A delayed job is pending, then running, then succeeded; strangers are not found."""
    running, go_on = asyncio.Event(), asyncio.Event()
    async with Client(database) as client:

        @client.handler(Note)
        async def note(task: Note) -> None:
            running.set()
            await go_on.wait()

        [later] = await client.add(Note()).wait(timedelta(hours=1)).save()
        assert await client.status(later) is JobStatus.PENDING
        [now] = await client.add(Note()).at(datetime.now(UTC)).save()
        with anyio.fail_after(LIMIT):
            await running.wait()
        assert await client.status(now) is JobStatus.RUNNING
        job = await client.get(now)
        assert job is not None
        assert job.owner
        assert job.finished_at is None
        go_on.set()
        await journal.ended(now)
        assert await client.status(now) is JobStatus.SUCCEEDED
        assert await client.status("nobody") is JobStatus.NOT_FOUND
        assert await client.get("nobody") is None
        pending = await client.get(later)
        assert pending is not None
        assert (
            timedelta(0)
            <= pending.due_at - pending.created_at - timedelta(hours=1)
            <= timedelta(milliseconds=1)
        )


async def test_the_last_of_at_and_wait_wins(database: str) -> None:
    """`at` and `wait` replace each other; a job in the past keeps its time."""
    at = datetime(2020, 1, 1, tzinfo=UTC)
    async with Client(database, workers=0) as client:
        [one] = await client.add(Note()).wait(5).at(at).save()
        [two] = await client.add(Note()).at(at).wait(5).save()
        first, second = await client.get(one), await client.get(two)
    assert first is not None
    assert second is not None
    assert first.due_at == at
    assert second.due_at > second.created_at


def test_options_are_checked_where_they_are_given() -> None:
    """Naive datetimes, negative waits and foreign connections are refused at the call."""
    client = Client("app.db")
    operation = client.add()
    with pytest.raises(ValueError, match="has no time zone"):
        operation.at(datetime(2030, 1, 1))
    with pytest.raises(ValueError, match=r"wait=-1 must lie between"):
        operation.wait(-1)
    with pytest.raises(TypeError, match=r"takes an aiosqlite\.Connection"):
        operation.tx(object())  # type: ignore[arg-type]
    with pytest.raises(InvalidState, match="memory store has no transactions"):
        Client(":memory:").add().tx(object())  # type: ignore[arg-type]


async def test_nothing_of_a_bad_operation_is_saved(database: str) -> None:
    """One task that cannot be stored refuses the whole operation, with the field and the reason."""
    bad: list[tuple[Any, type[Exception], str]] = [
        (Note(text=3), PayloadError, r"does not decode: Expected `str`, got `int` - at `\$.text`"),  # type: ignore[arg-type]
        (Note(number=float("nan")), PayloadError, r"- at `\$.number`"),
        (Note(text="x" * 2000), PayloadError, r"2,\d+ bytes, the limit is 1,000 \(largest field: 'text'\)"),
        (Note(text=object()), PayloadError, r"cannot be encoded - at `\$.text`"),  # type: ignore[arg-type]
        ("text", InvalidTask, "is no task type"),
        (Note, InvalidTask, "add an instance"),
    ]
    async with Client(database, workers=0, max_payload=1000) as client:
        good = client.add(Note("good"))
        for task, error, message in bad:
            with pytest.raises(error, match=message):
                await client.add(Note("a"), task, Note("b")).save()
        ids = await good.save()
        assert [await client.status(job_id) for job_id in ids] == [JobStatus.PENDING]
        assert await client.open_store().kinds() == [("notes", "Note")]


async def test_an_operation_saves_once(database: str) -> None:
    """Saving again is an error, and adds nothing."""
    async with Client(database, workers=0) as client:
        operation = client.add(Note())
        await operation.save()
        with pytest.raises(InvalidState, match="saves once"):
            await operation.save()


async def test_an_operation_that_was_never_saved_is_a_warning() -> None:
    """A forgotten `save()` does not go unnoticed, as a forgotten `await` does not; a failed one is known."""
    client = Client(":memory:")
    operations = [client.add(Note())]
    with pytest.warns(RuntimeWarning, match=r"client\.add\(Note\) was never saved"):
        operations.clear()
    with pytest.raises(InvalidState):
        await client.add(Note()).save()


def test_the_decorator_wants_the_task_type() -> None:
    """`@client.handler` without the type is an error at once, not a handler that never runs."""
    client = Client(":memory:")
    with pytest.raises(InvalidTask, match=r"write @client\.handler\(TaskType\)"):

        @client.handler  # type: ignore[arg-type, type-var]
        async def note(task: Note) -> None: ...

    with pytest.raises(InvalidTask, match="has no queue"):
        client.handler(Task)


async def test_a_client_is_used_between_start_and_stop(database: str) -> None:
    """Before start and after stop every call says that the client is not started."""
    client = Client(database, workers=0)
    for _ in range(2):
        for call in (client.add(Note()).save, lambda: client.status("x"), lambda: client.get("x")):
            with pytest.raises(InvalidState, match="not started"):
                await call()
        await client.start()
        with pytest.raises(InvalidState, match="started already"):
            await client.start()
        assert await client.status("x") is JobStatus.NOT_FOUND
        assert await client.stop()
        assert await client.stop()


async def test_a_client_belongs_to_one_event_loop(database: str) -> None:
    """Another event loop's call is refused with the reason."""

    async def elsewhere() -> None:
        with pytest.raises(InvalidState, match="another event loop"):
            await client.status("x")
        with pytest.raises(InvalidState, match="another event loop"):
            await client.stop()

    async with Client(database, workers=0) as client:
        await asyncio.to_thread(asyncio.run, elsewhere())


async def test_a_stopped_client_goes_on_where_it_was(file: str, journal: Journal) -> None:
    """Jobs added before a stop run after the next start, also in another client."""
    first = Client(file, workers=0)
    async with first:
        ids = await first.add(Note(), Note()).save()
    second = Client(file)
    second.register(Note, lambda task: None)
    async with second:
        await journal.ended(*ids)
    async with first:
        assert [await first.status(job_id) for job_id in ids] == [JobStatus.SUCCEEDED] * 2


async def test_a_client_that_only_adds_wakes_the_others_on_its_file(file: str, journal: Journal) -> None:
    """Jobs of a client without workers start in another client of the process without delay."""
    async with Client(file) as worker, Client(file, workers=0) as adder:
        worker.register(Note, lambda task: None)
        for _ in range(20):
            [job_id] = await adder.add(Note()).save()
            with anyio.fail_after(LIMIT):  # far below the capped sleep
                await journal.ended(job_id)


async def test_clients_on_different_files_do_not_mix(tmp_path: Path, journal: Journal) -> None:
    """Two clients of one process on two files each run their own jobs."""
    ran: dict[str, list[str]] = {"a": [], "b": []}
    async with Client(tmp_path / "a.db") as a, Client(tmp_path / "b.db") as b:
        a.register(Note, lambda task: ran["a"].append(task.text))
        b.register(Note, lambda task: ran["b"].append(task.text))
        [one] = await a.add(Note("for a")).save()
        [two] = await b.add(Note("for b")).save()
        await journal.ended(one, two)
        assert await a.status(two) is JobStatus.NOT_FOUND
    assert ran == {"a": ["for a"], "b": ["for b"]}


async def test_a_handler_registered_late_runs_what_waits(database: str, journal: Journal) -> None:
    """A job without a handler is left alone and logged once; registering one runs it at once."""
    async with Client(database) as client:
        ids = await client.add(Note(), Note(), Other()).save()
        assert await journal.seen("queue.unhandled", count=2) == [
            "queue.unhandled queue=notes task=Note",
            "queue.unhandled queue=others task=Other",
        ]
        assert [await client.status(job_id) for job_id in ids] == [JobStatus.PENDING] * 3
        client.register(Note, lambda task: None)
        await journal.ended(*ids[:2])
        assert await client.status(ids[2]) is JobStatus.PENDING
        job = await client.get(ids[2])
        assert job is not None
        assert (job.attempt, job.fence) == (0, None)
    assert len(journal.of("queue.unhandled")) == 2


async def test_a_second_handler_is_refused_without_effect(database: str, journal: Journal) -> None:
    """The first handler stays; two configurations of one queue are an error in add and register."""

    class Twin(Task):
        config: ClassVar[QueueConfig] = QueueConfig("notes")

    ran: list[str] = []
    async with Client(database) as client:
        client.register(Note, lambda task: ran.append("first"))
        with pytest.raises(AlreadyRegistered, match="has a handler already"):
            client.register(Note, lambda task: ran.append("second"))
        with pytest.raises(AlreadyRegistered, match="another QueueConfig"):
            client.register(Twin, lambda task: None)
        with pytest.raises(AlreadyRegistered, match="another QueueConfig"):
            await client.add(Twin()).save()
        await journal.ended(*await client.add(Note()).save())
    assert ran == ["first"]


@pytest.mark.parametrize("threaded", [False, True])
async def test_current_job_and_client(database: str, journal: Journal, threaded: bool) -> None:
    """Inside a handler, also in its thread, they are the running ones; outside, a LookupError."""
    seen: list[tuple[Client, JobContext, JobContext]] = []

    def sync(task: Note, job: JobContext) -> None:
        seen.append((current_client(), current_job(), job))

    async def coroutine(task: Note, job: JobContext) -> None:
        sync(task, job)

    async with Client(database) as client:
        client.register(Note, sync if threaded else coroutine)
        await journal.ended(*await client.add(Note()).save())
    assert seen[0][0] is client
    assert seen[0][1] is seen[0][2]
    for outside in (current_client, current_job):
        with pytest.raises(LookupError, match="inside a handler"):
            outside()


async def test_handlers_add_more_jobs(database: str, journal: Journal) -> None:
    """A handler adds through the current client; what it added runs too."""
    async with Client(database) as client:

        @client.handler(Note)
        async def note(task: Note) -> None:
            if task.number < 5:
                await current_client().add(Note(number=task.number + 1)).save()

        await client.add(Note()).save()
        assert len(await journal.seen("job.succeeded", count=6)) == 6


async def test_a_def_handler_adds_through_anyio(database: str, journal: Journal) -> None:
    """A handler in a thread reaches the event loop by `anyio.from_thread`."""
    async with Client(database) as client:
        client.register(Other, lambda task: None)

        @client.handler(Note)
        def note(task: Note, job: JobContext) -> None:
            anyio.from_thread.run(job.client.add(Other()).save)

        await client.add(Note()).save()
        assert len(await journal.seen("job.succeeded", count=2)) == 2


async def test_the_job_log_names_its_job(database: str, journal: Journal) -> None:
    """`job.log` is a bound logger."""
    async with Client(database) as client:

        @client.handler(Note)
        async def note(task: Note, job: JobContext) -> None:
            job.log.info("halfway", percent=50)

        [job_id] = await client.add(Note("secret")).save()
        await journal.ended(job_id)
    assert journal.of("halfway") == [f"halfway job_id={job_id} queue=notes attempt=1 percent=50"]
    assert not [line for line in journal.lines if "secret" in line]


async def test_a_failed_start_leaves_the_client_startable(tmp_path: Path) -> None:
    """A missing folder is named; once it is there, the same client starts."""
    client = Client(tmp_path / "missing" / "app.db", workers=1)
    with pytest.raises(DatabaseUnusable, match=r"the folder '.*missing' does not exist; create it first"):
        await client.start()
    (tmp_path / "missing").mkdir()
    async with client:
        assert await client.status("x") is JobStatus.NOT_FOUND


async def test_install_alone(file: str) -> None:
    """`install` makes the schema and can be repeated; `install=False` insists on it."""
    client = Client(file, workers=0, install=False)
    with pytest.raises(DatabaseUnusable, match=r"does not exist; run await client\.install"):
        await client.start()
    await client.install()
    await client.install()
    async with client:
        await client.install()
        assert await client.status("x") is JobStatus.NOT_FOUND


@pytest.mark.parametrize("workers", [0, 10])
async def test_a_cancelled_start_closes_what_it_opened(file: str, workers: int) -> None:
    """Cancelled at any moment of its start, a client leaves no thread and can be started again."""
    before = threading.active_count()
    client = Client(file, workers=workers)
    for steps in range(40):
        starting = asyncio.ensure_future(client.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        if not (await asyncio.wait([starting], timeout=10))[0]:
            client.waits.close()  # so that this test ends
            pytest.fail(f"it hangs, cancelled after {steps} steps")
        try:
            await starting
        except asyncio.CancelledError:
            assert threading.active_count() == before
        else:
            await client.stop()
    async with client:
        assert await client.status("x") is JobStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": -1}, "workers=-1"),
        ({"workers": 1.5}, "workers=1.5"),
        ({"workers": True}, "workers=True"),
        ({"threads": 0}, "threads=0"),
        ({"lease": 0}, "lease=0"),
        ({"lease": "30"}, "lease must be a number"),
        ({"stop_timeout": -1}, "stop_timeout=-1"),
        ({"durability": "none"}, "durability='none'"),
        ({"max_payload": 0}, "max_payload=0"),
        ({"busy_timeout": float("inf")}, "busy_timeout=inf"),
        ({"database": ""}, "database=''"),
        ({"database": "file:app.db"}, "database='file:app.db'"),
        ({"database": b"app.db"}, "database=b'app.db'"),
        ({"database": 3}, "database=3"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    """A wrong argument is refused when the client is made, by its name and value."""
    with pytest.raises(BackliteError, match=message) as caught:
        Client(**{"database": "app.db", **arguments})
    assert isinstance(caught.value, (ValueError, TypeError))


async def test_memory_is_kept_over_a_restart_of_the_same_client() -> None:
    """The memory store lives as long as its client."""
    client = Client(":memory:", workers=0)
    async with client:
        [job_id] = await client.add(Note()).save()
    async with client:
        assert await client.status(job_id) is JobStatus.PENDING
    with pytest.raises(InvalidValue):
        Client(":memory:", durability="maybe")  # type: ignore[arg-type]


async def test_a_relative_path_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that changes its folder keeps its database."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    client = Client("app.db", workers=0)
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with client:
        await client.add(Note()).save()
    assert (tmp_path / "app.db").exists()
    assert not (tmp_path / "elsewhere" / "app.db").exists()


def test_two_classes_of_one_name_in_a_queue_are_refused() -> None:
    """A job would be run as the wrong one of them: an error that says what to do."""

    def twin() -> type[Task]:
        class Note(Task):
            config: ClassVar[QueueConfig] = Other.config

        return Note

    client = Client(":memory:")
    first, second = twin(), twin()
    client.registry.meet(task_type(first))
    with pytest.raises(AlreadyRegistered, match=r"give .* a task_name of its own"):
        client.registry.meet(task_type(second))
