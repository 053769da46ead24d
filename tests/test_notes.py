"""What running jobs say of themselves: progress and log lines, written together, and never waited for."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import anyio
import anyio.from_thread
import pytest
import structlog

from backlite_async import (
    Client,
    DatabaseUnavailable,
    InvalidType,
    InvalidValue,
    Job,
    JobContext,
    JobStatus,
    QueueConfig,
    Retention,
    Retry,
    Snooze,
    Task,
    _notes,
)
from backlite_async._history import MOST_LINES, Note
from backlite_async._job import ClaimedJob, Complete
from backlite_async._outcome import Result, decide
from backlite_async.stores import MemoryStore, Store

from .conftest import LIMIT, Journal


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", backoff=0, retention=Retention())
    number: int = 0


class Gone(Task):
    config: ClassVar[QueueConfig] = QueueConfig("gone")
    number: int = 0


class Spy:
    """Counts what is written by `Store.note`, and lets it fail."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Sequence[Note]] = []
        self.errors: list[Exception] = []
        self.written = asyncio.Event()
        self._note = store.note
        monkeypatch.setattr(store, "note", self._spy)

    async def _spy(self, notes: Sequence[Note]) -> None:
        self.calls.append(notes)
        if self.errors:
            raise self.errors.pop(0)
        await self._note(notes)
        self.written.set()


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is said be written after a moment."""
    monkeypatch.setattr(_notes, "EVERY", 0.01)


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is said be written with the outcome only."""
    monkeypatch.setattr(_notes, "EVERY", 1000.0)


async def run_one(database: str, handler: Callable[..., Any], journal: Journal) -> Job:
    """Run a job to its end; return its record."""
    client = Client(database)
    client.register(Work, handler)
    async with client:
        [job_id] = await client.add(Work()).save()
        await journal.ended(job_id)
        job = await client.get(job_id)
    assert job is not None
    return job


def said(job: Job) -> list[tuple[int, str, str]]:
    return [(line.attempt, line.level, line.text) for line in job.lines]


# -- while a job runs ------------------------------------------------------------------------------


async def test_what_a_running_job_says_is_seen(
    database: str, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress and lines can be read before the job ends."""
    end = asyncio.Event()
    client = Client(database)

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        await job.progress(0.5, "half")
        job.log.info("resized", n=3)
        await end.wait()

    async with client:
        spy = Spy(client.open_store(), monkeypatch)
        [job_id] = await client.add(Work()).save()
        with anyio.fail_after(LIMIT):
            await spy.written.wait()
        job = await client.get(job_id)
        assert job is not None
        assert (job.status, job.progress, job.progress_message) == (JobStatus.RUNNING, 0.5, "half")
        assert said(job) == [(1, "info", "resized n=3")]
        end.set()


async def test_one_write_for_all_jobs(database: str, soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much jobs say at once, it is one call; and none once nobody says anything any more."""
    said_all, end = asyncio.Event(), asyncio.Event()
    client, begun = Client(database, workers=20), []

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        for number in range(50):
            job.log.info("line", number=number)
            await job.progress(number / 50)
            if number % 10 == 0:
                await asyncio.sleep(0)
        begun.append(job.id)
        if len(begun) == 20:
            said_all.set()
        await end.wait()

    async with client:
        monkeypatch.setattr(_notes, "EVERY", 0.2)
        monkeypatch.setattr(_notes, "STEP_ASIDE", 1000.0)
        spy = Spy(client.open_store(), monkeypatch)
        await client.add(*(Work(number) for number in range(20))).save()
        with anyio.fail_after(LIMIT):
            await said_all.wait()
            await spy.written.wait()
        notes = [note for call in spy.calls for note in call]
        assert len(spy.calls) == 1
        assert {note.id for note in notes} == set(begun)
        assert [len(note.lines) for note in notes] == [50] * 20
        assert {note.progress for note in notes} == {0.98}
        notes_of_client = client._dispatcher._notes  # type: ignore[union-attr]
        assert notes_of_client._timer is None
        assert not notes_of_client._changed
        end.set()
    assert len(spy.calls) == 1


async def test_a_tight_loop_may_report(never: None, database: str, journal: Journal) -> None:
    """A hundred thousand reports are one that is stored; meanwhile the event loop goes on turning."""
    turns = 0

    async def count(stopped: asyncio.Event) -> None:
        nonlocal turns
        while not stopped.is_set():
            turns += 1
            await asyncio.sleep(0)

    async def work(task: Work, job: JobContext) -> None:
        stopped = asyncio.Event()
        counting = asyncio.create_task(count(stopped))
        for number in range(100_000):
            await job.progress(number / 100_000, "on its way")
        stopped.set()
        await counting

    job = await run_one(database, work, journal)
    assert (job.progress, job.progress_message) == (0.99999, "on its way")
    assert turns >= 3


async def test_a_job_that_says_nothing_costs_nothing(database: str, journal: Journal) -> None:
    """Nothing is made for it, nothing written, nobody wakes up."""
    seen: list[JobContext] = []

    async def work(task: Work, job: JobContext) -> None:
        assert job.log is not None
        job.log.debug("not kept")
        seen.append(job)

    job = await run_one(database, work, journal)
    assert seen[0].said is None
    assert (job.progress, job.lines) == (None, ())


async def test_large_notes_are_written_in_parts(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write is bounded, whatever was said; all of it is written all the same, once."""
    monkeypatch.setattr(_notes, "LARGEST_WRITE", 10)
    client, end = Client(":memory:"), asyncio.Event()

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        for number in range(25):
            job.log.info(f"line {number}")
        await job.progress(0.25)
        await end.wait()

    async with client:
        spy = Spy(client.open_store(), monkeypatch)
        ids = await client.add(Work(), Work()).save()
        with anyio.fail_after(LIMIT):
            while sum(len(note.lines) for call in spy.calls for note in call) < 50:
                await spy.written.wait()
                spy.written.clear()
        for job_id in ids:
            job = await client.get(job_id)
            assert job is not None
            assert [line.text for line in job.lines] == [f"line {number}" for number in range(25)]
            assert job.progress == 0.25
        assert all(sum(len(note.lines) for note in call) <= 10 for call in spy.calls)
        end.set()


# -- with the outcome ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, ValueError("no"), Retry(0), Snooze(0)], ids=repr)
async def test_what_is_unsaved_goes_with_the_outcome(
    database: str, never: None, journal: Journal, error: Exception | None
) -> None:
    """However an attempt ends, nothing of what it said is lost; lines name their attempt."""
    runs = 0

    async def work(task: Work, job: JobContext) -> None:
        nonlocal runs
        runs += 1
        job.log.warning("run", number=runs)
        await job.progress(runs / 10)
        if error is not None and runs < 3:
            raise error

    job = await run_one(database, work, journal)
    assert job.status is JobStatus.SUCCEEDED
    attempts = [1] if error is None else [1, 1, 1] if isinstance(error, Snooze) else [1, 2, 3]
    assert said(job) == [(attempt, "warning", f"run number={n}") for n, attempt in enumerate(attempts, 1)]
    assert job.progress == len(attempts) / 10


async def test_a_stop_keeps_what_was_said(database: str, file: str, never: None, journal: Journal) -> None:
    """An attempt that is cut off and given back leaves its lines."""
    store = MemoryStore() if database == ":memory:" else database
    client = Client(store)

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        job.log.info("begun")
        await asyncio.Event().wait()

    await client.start()
    [job_id] = await client.add(Work()).save()
    await journal.seen("begun", job_id)
    assert not await client.stop(0)
    async with Client(store, workers=0) as other:
        job = await other.get(job_id)
    assert job is not None
    assert job.status is JobStatus.PENDING
    assert said(job) == [(1, "info", "begun")]


async def test_a_transaction_keeps_what_was_said_before(file: str, never: None, journal: Journal) -> None:
    """What a job says before its transaction ends is kept with it; afterwards its claim is no more."""

    async def work(task: Work, job: JobContext) -> None:
        job.log.info("before")
        await job.progress(0.5)
        async with job.transaction():
            job.log.info("within")
        assert job.said is not None
        assert job.said.closed
        job.log.info("after")
        await job.progress(0.75)

    job = await run_one(file, work, journal)
    assert [line.text for line in job.lines] == ["before", "within"]
    assert job.progress == 0.5
    assert journal.of("after")


async def test_what_is_said_after_the_end_is_not_kept(never: None, journal: Journal) -> None:
    """A task that a handler left behind logs as ever, and keeps nothing."""
    late: list[JobContext] = []
    client = Client(":memory:")

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        job.log.info("in time")
        late.append(job)

    @client.handler(Gone)
    async def gone(task: Gone, job: JobContext) -> None:
        late.append(job)

    async with client:
        ids = await client.add(Work(), Gone()).save()
        await journal.ended(*ids)
        for job in late:
            job.log.info("too late")
            await job.progress(1.0)
        assert not client._dispatcher._notes._changed  # type: ignore[union-attr]
        stored = await client.get(ids[0])
    assert stored is not None
    assert said(stored) == [(1, "info", "in time")]
    assert stored.progress is None
    assert len(journal.of("too")) == 2


@pytest.mark.parametrize("number", [0, 1])
async def test_nothing_is_left_of_a_job_that_is_not_kept(
    file: str, soon: None, journal: Journal, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Lines that were written while it ran go with it, and so do those of its outcome."""
    client = Client(file)
    stored = asyncio.Event()

    @client.handler(Gone)
    async def gone(task: Gone, job: JobContext) -> None:
        job.log.info("one")
        await stored.wait()
        if task.number:
            job.log.info("two")

    async with client:
        spy = Spy(client.open_store(), monkeypatch)
        [job_id] = await client.add(Gone(number)).save()
        with anyio.fail_after(LIMIT):
            await spy.written.wait()
        stored.set()
        await journal.ended(job_id)
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM backlite_lines").fetchall() == [(0,)]
    connection.close()


def test_a_crash_at_the_limit_takes_its_lines_along() -> None:
    """A handler that ends its process for the last time leaves nothing, where its job is not kept."""
    claimed = ClaimedJob(
        id="j", queue="gone", task="Gone", payload="{}", attempt=1, max_attempts=3, crashes=2, fence=1,
        created_at=0, scheduled_at=0,
    )  # fmt: skip
    result = Result(finished_at=5, ends_process=True, error="KeyboardInterrupt", noted=True)
    outcome = decide(claimed, Gone.config, result, 0.0)
    assert isinstance(outcome, Complete)
    assert outcome.beside


# -- trouble ---------------------------------------------------------------------------------------


async def test_trouble_with_the_database_loses_nothing(
    database: str, soon: None, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once, tried again, and what was not written meanwhile is written then."""
    client, end = Client(database), asyncio.Event()

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        job.log.info("first")
        await job.progress(0.5)
        await end.wait()

    async with client:
        spy = Spy(client.open_store(), monkeypatch)
        spy.errors = [DatabaseUnavailable("disk full"), OSError("what is that?")]
        [job_id] = await client.add(Work()).save()
        with anyio.fail_after(LIMIT):
            await spy.written.wait()
        await journal.seen("store.recovered")
        job = await client.get(job_id)
        assert job is not None
        assert (said(job), job.progress) == ([(1, "info", "first")], 0.5)
        end.set()
    assert len(journal.of("store.failing")) == 1


async def test_what_could_not_be_written_goes_with_the_outcome(
    database: str, soon: None, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the store refuses notes the outcome carries them; then the trouble is over."""
    client, end, asked, go_on = Client(database), asyncio.Event(), asyncio.Event(), asyncio.Event()

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        job.log.info("first")
        await end.wait()

    async def refuse(notes: Sequence[Note]) -> None:
        asked.set()
        await go_on.wait()
        raise DatabaseUnavailable("no")

    async with client:
        monkeypatch.setattr(client.open_store(), "note", refuse)
        [job_id] = await client.add(Work()).save()
        with anyio.fail_after(LIMIT):
            await asked.wait()
        end.set()
        await journal.ended(job_id)
        job = await client.get(job_id)
        assert job is not None
        assert said(job) == [(1, "info", "first")]
        go_on.set()
        await journal.seen("store.failing")
        await journal.seen("store.recovered")


async def test_a_note_on_its_way_at_the_end_is_kept_once(
    soon: None, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being written while its job ends goes with the outcome as well, and is told once."""
    client, end, go_on, asked = Client(":memory:"), asyncio.Event(), asyncio.Event(), asyncio.Event()
    told: list[Note] = []

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        job.log.info("first")
        await end.wait()

    async with client:
        store = client.open_store()
        note = store.note

        async def slow(notes: Sequence[Note]) -> None:
            asked.set()
            await go_on.wait()
            await note(notes)

        monkeypatch.setattr(store, "note", slow)
        client._dispatcher._notes.listener = lambda job, note: told.append(note)  # type: ignore[union-attr]
        [job_id] = await client.add(Work()).save()
        with anyio.fail_after(LIMIT):
            await asked.wait()
        end.set()
        await journal.ended(job_id)
        go_on.set()
        job = await client.get(job_id)
        assert job is not None
        assert said(job) == [(1, "info", "first")]
    assert [line.text for note in told for line in note.lines] == ["first"]


async def test_the_listener_hears_of_each_note_once(
    soon: None, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is written while a job runs, and of what goes with its outcome, before its end is told."""
    client, end = Client(":memory:"), asyncio.Event()
    told: list[tuple[str, float | None, list[str], bool]] = []

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        job.log.info("first")
        await end.wait()
        job.log.info("last")
        await job.progress(1.0)

    def listen(job: ClaimedJob, note: Note) -> None:
        ended = bool(journal.of("job.succeeded"))
        told.append((job.task, note.progress, [line.text for line in note.lines], ended))

    async with client:
        spy = Spy(client.open_store(), monkeypatch)
        client._dispatcher._notes.listener = listen  # type: ignore[union-attr]
        [job_id] = await client.add(Work()).save()
        with anyio.fail_after(LIMIT):
            await spy.written.wait()
        end.set()
        await journal.ended(job_id)
    assert told == [("Work", None, ["first"], False), ("Work", 1.0, ["last"], False)]


# -- progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((1.5,), InvalidValue, r"progress\(1.5\) must lie between 0 and 1"),
        ((-0.1,), InvalidValue, "between 0 and 1"),
        ((float("nan"),), InvalidValue, "between 0 and 1"),
        (("half",), InvalidType, "a number from 0 to 1, not 'half'"),
        ((True,), InvalidType, "a number from 0 to 1, not True"),
        ((0.5, 3), InvalidType, "the message of a progress is a str, not 3"),
    ],
)
async def test_what_is_no_progress(
    journal: Journal, arguments: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    """A wrong value is an error in the handler, which names it."""

    async def work(task: Work, job: JobContext) -> None:
        with pytest.raises(error, match=text):
            await job.progress(*arguments)

    assert (await run_one(":memory:", work, journal)).status is JobStatus.SUCCEEDED


async def test_the_ends_of_progress(database: str, never: None, journal: Journal) -> None:
    """A sum of fractions may be 1 and a little; a long message is cut; the next may have none."""

    async def work(task: Work, job: JobContext) -> None:
        await job.progress(sum([1 / 3] * 3) + 1e-15, "x\0\ud800" + "y" * 2000)

    job = await run_one(database, work, journal)
    assert job.progress == 1.0
    assert job.progress_message is not None
    assert len(job.progress_message) == 1000
    assert job.progress_message.startswith("x\\0\\ud800yyy")
    assert job.progress_message.endswith("y…")

    async def again(task: Work, job: JobContext) -> None:
        await job.progress(0, "first")
        await job.progress(1)

    job = await run_one(":memory:", again, journal)
    assert (job.progress, job.progress_message) == (1.0, None)


async def test_progress_from_a_thread(database: str, never: None, journal: Journal) -> None:
    """A `def` handler reports through the event loop, and logs from its thread."""

    def work(task: Work, job: JobContext) -> None:
        assert threading.current_thread() is not threading.main_thread()
        anyio.from_thread.run(job.progress, 0.5)
        anyio.from_thread.run(job.progress, 0.75, "nearly")
        job.log.info("from a thread")

    job = await run_one(database, work, journal)
    assert (job.progress, job.progress_message) == (0.75, "nearly")
    assert said(job) == [(1, "info", "from a thread")]


async def test_lines_of_a_thread_are_written_while_it_runs(
    database: str, soon: None, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line from a thread wakes the one that writes, and numbers stay in order with many threads."""
    client, end = Client(database), threading.Event()

    @client.handler(Work)
    def work(task: Work, job: JobContext) -> None:
        def talk() -> None:
            for _ in range(100):
                job.log.info("line")

        threads = [threading.Thread(target=talk) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        end.wait(LIMIT)

    async with client:
        spy = Spy(client.open_store(), monkeypatch)
        [job_id] = await client.add(Work()).save()
        with anyio.fail_after(LIMIT):
            while sum(len(note.lines) for call in spy.calls for note in call) < 800:
                await spy.written.wait()
                spy.written.clear()
        job = await client.get(job_id)
        assert job is not None
        assert len(job.lines) == 800
        end.set()
        await journal.ended(job_id)
    numbers = [line.number for call in spy.calls for note in call for line in note.lines]
    assert numbers == list(range(800))


# -- lines -----------------------------------------------------------------------------------------


async def test_what_a_line_says(database: str, never: None, journal: Journal) -> None:
    """Level, then the event and its fields, without those that name the job; `debug` is not kept."""

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    async def work(task: Work, job: JobContext) -> None:
        job.log.debug("no")
        job.log.info("resized", n=3, name="a b")
        job.log.bind(step="one").warning("odd", attempt=7)
        job.log.error("%s of %s", 1, 2)
        job.log.critical("x" * 3000)
        try:
            raise ValueError("why")
        except ValueError:
            job.log.exception("broken")
        job.log.info("lone \ud800 and \0")
        with pytest.raises(RuntimeError):
            job.log.info("odd", value=Odd())

    job = await run_one(database, work, journal)
    levels = [line.level for line in job.lines]
    texts = [line.text for line in job.lines]
    assert levels == ["info", "warning", "error", "critical", "error", "info", "info"]
    assert texts[:4] == [
        "resized n=3 name='a b'",
        "odd attempt=7 step=one",
        "1 of 2",
        "x" * 1999 + "…",
    ]
    assert texts[4].startswith("broken\nTraceback (most recent call last):")
    assert texts[4].endswith("ValueError: why")
    assert texts[5] == "lone \\ud800 and \\0"
    assert texts[6] == "odd <its fields cannot be shown: RuntimeError>"


async def test_lines_are_counted_to_a_limit(database: str, never: None, journal: Journal) -> None:
    """The last line of an attempt that says too much tells how much more there was."""

    async def work(task: Work, job: JobContext) -> None:
        for number in range(MOST_LINES + 200):
            job.log.info("line", number=number)

    job = await run_one(database, work, journal)
    assert len(job.lines) == MOST_LINES
    assert [line.text for line in job.lines[:-1]] == [f"line number={n}" for n in range(MOST_LINES - 1)]
    assert job.lines[-1].text == "201 more lines, which are not kept"
    assert len(journal.of("line")) == MOST_LINES + 200


async def test_lines_go_to_the_application_as_ever(never: None, journal: Journal) -> None:
    """Keeping a line changes nothing in what the application's own processors get."""
    kept: list[tuple[str, dict[str, Any]]] = []

    def keep(_logger: object, method: str, fields: Any) -> Any:
        kept.append((method, dict(fields)))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    ended = asyncio.Event()
    client = Client(":memory:")

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        bound = job.log.bind(step="one")
        with structlog.testing.capture_logs() as captured:
            bound.info("captured")
        assert captured[0]["event"] == "captured"
        bound.warning("resized", n=3)
        await job.log.ainfo("from a thread of its own")
        ended.set()

    async with client:
        [job_id] = await client.add(Work()).save()
        with anyio.fail_after(LIMIT):
            await ended.wait()
            job = await client.wait(job_id)
    lines = [fields for fields in kept if "job_id" in fields[1] and "step" in fields[1]]
    own = {"job_id": job_id, "queue": "work", "attempt": 1}
    assert lines == [("warning", own | {"step": "one", "n": 3, "event": "resized"})]
    assert said(job) == [
        (1, "info", "captured step=one"),
        (1, "warning", "resized step=one n=3"),
        (1, "info", "from a thread of its own"),
    ]


async def test_a_filter_of_the_standard_library_keeps_lines_from_nobody_here(
    never: None, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the application does not want to log of a job is kept with it all the same."""
    logging.getLogger("backlite_async").setLevel(logging.ERROR)
    client = Client(file)

    @client.handler(Work)
    async def work(task: Work, job: JobContext) -> None:
        job.log.info("quiet")

    try:
        async with client:
            [job_id] = await client.add(Work()).save()
            with anyio.fail_after(LIMIT):
                job = await client.wait(job_id)
    finally:
        logging.getLogger("backlite_async").setLevel(logging.NOTSET)
    assert said(job) == [(1, "info", "quiet")]
    assert not [record for record in caplog.records if "quiet" in record.getMessage()]


async def test_lines_of_many_attempts_are_bounded(database: str, never: None, journal: Journal) -> None:
    """The newest lines of a job are kept."""

    async def work(task: Work, job: JobContext) -> None:
        for number in range(600):
            job.log.info("line", attempt_of=job.attempt, number=number)
        if job.attempt < 2:
            raise ValueError

    job = await run_one(database, work, journal)
    assert len(job.lines) == MOST_LINES
    assert job.lines[0].text == "line attempt_of=1 number=200"
    assert job.lines[-1].text == "line attempt_of=2 number=599"
