"""A trace goes from where a job is added into its handler, and on into what that adds, whatever happens."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta
from typing import Any, ClassVar

import aiosqlite
import anyio.from_thread
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from backlite_async import (
    Client,
    JobContext,
    PayloadError,
    QueueConfig,
    Retention,
    Task,
    chain,
    group,
    testing,
)
from backlite_async._job import NewJob

from ..conftest import Journal
from .spans import Spans, ended, id_of, parent_of, said

SECRET = "s3cret-value"
KEPT = Retention()


class First(Task):
    config: ClassVar[QueueConfig] = QueueConfig("first", max_attempts=3, backoff=0, retention=KEPT)
    text: str = SECRET
    fails: int = 0


class Second(Task):
    config: ClassVar[QueueConfig] = QueueConfig("second", retention=KEPT)
    text: str = SECRET


class Third(Task):
    config: ClassVar[QueueConfig] = QueueConfig("third", retention=KEPT)


class Letter(Task):
    config: ClassVar[QueueConfig] = QueueConfig("letters", retention=KEPT)
    meta: dict[str, Any]
    payload: Any


class Doomed(Task):
    config: ClassVar[QueueConfig] = QueueConfig("doomed", max_attempts=1, dead_letter=Letter, retention=KEPT)


def app(database: str, **options: Any) -> Client:
    """Make a client with handlers: First fails as often as it says, then adds Second."""
    client = Client(database, durability="normal", **options)

    @client.handler(First)
    async def first(task: First, job: JobContext) -> None:
        if job.attempt <= task.fails:
            raise ValueError(SECRET)
        assert set(job.meta) <= {"note"}
        assert job.meta is job.meta
        await client.add(Second()).save()

    @client.handler(Second)
    async def second(task: Second) -> str:
        return SECRET

    @client.handler(Third)
    async def third(task: Third) -> None: ...

    return client


async def all_ended(client: Client, *queues: str) -> None:
    """Wait until all jobs of some queues have ended."""
    for queue in queues:
        await ended(client, *(job.id for job in await client.jobs.list(queue=queue)))


# -- one trace ------------------------------------------------------------------------------------


async def test_one_trace_from_the_request_into_the_job_that_a_handler_adds(either: str, spans: Spans) -> None:
    """Each span is the child of what it follows from, an attempt is linked to it, too, and all have names."""
    async with app(either) as client:
        with spans.request() as request:
            [job_id] = await client.add(First()).save()
        await all_ended(client, "first", "second")
        [added] = await client.jobs.list(queue="second")
    send, process = spans.one("send first"), spans.one("process first")
    send_second, process_second = spans.one("send second"), spans.one("process second")
    assert len(spans.traces) == 1
    assert parent_of(send) == request.get_span_context().span_id
    assert parent_of(process) == id_of(send)
    assert parent_of(send_second) == id_of(process)
    assert parent_of(process_second) == id_of(send_second)
    assert [link.context.span_id for link in process.links] == [id_of(send)]
    assert (send.kind, process.kind) == (trace.SpanKind.PRODUCER, trace.SpanKind.CONSUMER)
    assert said(send) == {
        "messaging.system": "backlite",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "first",
        "messaging.message.id": job_id,
    }
    assert said(process_second) == {
        "messaging.system": "backlite",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "second",
        "messaging.message.id": added.id,
        "backlite.job.attempt": 1,
        "backlite.job.outcome": "succeeded",
    }


async def test_no_payload_result_or_message_is_told(database: str, spans: Spans) -> None:
    """Nothing of what is in a task, what a handler returns, or the text of an error is in any span."""
    async with app(database) as client:
        await client.add(First(fails=1)).meta({"note": SECRET}).tags(SECRET).key(SECRET).save()
        await all_ended(client, "first", "second")
        with pytest.raises(PayloadError):
            await client.add(First(text=SECRET, fails=float("nan"))).save()  # type: ignore[arg-type]
    assert len(spans.all) >= 5
    for span in spans.all:
        assert SECRET not in span.to_json()


async def test_a_batch_has_one_span_for_each_queue(database: str, spans: Spans) -> None:
    """With the number of messages, or the id of the only one."""
    async with app(database, workers=0) as client:
        ids = await client.add(First(), Third(), First(), First()).save()
    assert len(spans.all) == 2
    assert said(spans.one("send first"))["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in said(spans.one("send first"))
    assert said(spans.one("send third"))["messaging.message.id"] == ids[1]
    assert "messaging.batch.message_count" not in said(spans.one("send third"))


async def test_a_job_that_is_there_already_is_the_one_that_is_named(either: str, spans: Spans) -> None:
    """By its id, and it goes on as it was added."""
    async with app(either, workers=0) as client:
        [job_id] = await client.add(Third()).unique("one").save()
        assert (await client.add(Third()).unique("one").save()).existing == (job_id,)
        job = await client.get(job_id)
    first, second = spans.of("send third")
    assert said(first)["messaging.message.id"] == said(second)["messaging.message.id"] == job_id
    assert job is not None
    assert f"{id_of(first):016x}" in job.context["traceparent"]


async def test_an_observer_is_of_the_same_mind(database: str, spans: Spans) -> None:
    """What is added by another client of the same database is traced as this one says."""
    async with app(database, workers=0) as client, client.observer() as other:
        await other.add(Third()).save()
    assert spans.one("send third")
    async with app(database, workers=0, tracing=False) as client, client.observer() as other:
        await other.add(Third()).save()
    assert spans.one("send third")


async def test_each_attempt_is_a_span_of_the_same_trace(database: str, spans: Spans) -> None:
    """Retries follow from the add as the first attempt does."""
    async with app(database) as client:
        await client.add(First(fails=2)).save()
        await all_ended(client, "first", "second")
    send, attempts = spans.one("send first"), spans.of("process first")
    assert [said(span)["backlite.job.attempt"] for span in attempts] == [1, 2, 3]
    assert [said(span)["backlite.job.outcome"] for span in attempts] == ["retried", "retried", "succeeded"]
    assert {parent_of(span) for span in attempts} == {id_of(send)}
    assert len(spans.traces) == 1


async def test_steps_callbacks_and_what_extends_are_of_one_trace(either: str, spans: Spans) -> None:
    """All of a workflow, whoever adds it to the either, and when."""
    client = Client(either, durability="normal")
    journal: list[str] = []

    @client.handler(First)
    async def first(task: First, job: JobContext) -> None:
        journal.append("first")
        await job.extend(Third())

    @client.handler(Second)
    async def second(task: Second) -> None:
        journal.append("second")
        raise ValueError

    @client.handler(Third)
    async def third(task: Third) -> None:
        journal.append("third")

    @client.handler(Letter)
    async def letter(task: Letter) -> None:
        journal.append("letter")

    flow = chain(First(), group(Third(), Third()), Second(), if_failed=Third(), on_complete=Letter({}, 1))
    async with client:
        with spans.request():
            await client.add(flow).max_attempts(1).save()
        await client.wait(flow.id)
        await all_ended(client, "letters")
    assert sorted(journal) == ["first", "letter", "second", *["third"] * 4]
    assert len(spans.traces) == 1
    [process] = spans.of("process first")
    thirds = spans.of("process third")
    assert len(thirds) == 4
    assert id_of(process) in {parent_of(span) for span in thirds}  # the one that extends it
    assert said(spans.one("send third"))["messaging.batch.message_count"] == 2


async def test_a_job_in_the_callers_transaction_is_of_the_callers_trace(file: str, spans: Spans) -> None:
    """Also in that of a handler."""
    client = Client(file, durability="normal")

    @client.handler(First)
    async def first(task: First, job: JobContext) -> None:
        async with job.transaction() as connection:
            await client.add(Second()).tx(connection).save()

    @client.handler(Second)
    async def second(task: Second) -> None: ...

    async with client:
        with spans.request():
            async with aiosqlite.connect(file) as connection:
                await connection.execute("BEGIN IMMEDIATE")
                await client.add(First()).tx(connection).save()
                await connection.commit()
        await all_ended(client, "first", "second")
    assert len(spans.traces) == 1
    assert said(spans.one("process first"))["backlite.job.outcome"] == "succeeded"
    assert parent_of(spans.one("send second")) == id_of(spans.one("process first"))


async def test_a_dead_letter_is_of_the_trace_of_the_failed_job(either: str, spans: Spans) -> None:
    """And is told the user's meta data alone."""
    letters: list[Letter] = []
    client = Client(either, durability="normal")

    @client.handler(Doomed)
    async def doomed(task: Doomed) -> None:
        raise ValueError

    @client.handler(Letter)
    async def letter(task: Letter) -> None:
        letters.append(task)

    async with client:
        await client.add(Doomed()).meta({"user": 1}).save()
        await all_ended(client, "doomed", "letters")
    assert [letter.meta for letter in letters] == [{"user": 1}]
    assert parent_of(spans.one("process letters")) == id_of(spans.one("send doomed"))


async def test_the_runs_of_a_schedule_begin_traces_of_their_own(spans: Spans) -> None:
    """Whoever has made the schedule, and whatever span was current when the client was started."""
    client = testing.client()

    @client.handler(Third)
    async def third(task: Third) -> None: ...

    with spans.request():
        await client.start()
        await client.schedule("often", Third(), every=60)
    await testing.run_until_idle(client, advance=timedelta(minutes=3.5))
    await client.stop()
    runs = spans.of("process third")
    assert len(runs) >= 3
    assert {parent_of(span) for span in runs} == {0}
    assert len(spans.traces) == len(runs) + 1


async def test_a_copy_is_of_the_trace_of_who_copies(either: str, spans: Spans) -> None:
    """Not of that of the first; its meta data are the same."""
    async with app(either, workers=0) as client:
        [job_id] = await client.add(Third()).meta({"user": 1}).save()
        with spans.request() as request:
            copied = await client.get(await client.jobs.copy(job_id))
        alone = await client.get(await client.jobs.copy(job_id))
    assert copied is not None
    assert alone is not None
    assert copied.meta == alone.meta == {"user": 1}
    assert f"{request.get_span_context().span_id:016x}" in copied.context["traceparent"]
    assert alone.context == {}


async def test_a_handler_in_a_thread_sees_its_span(database: str, spans: Spans) -> None:
    """What it adds follows from it; middleware sees it, too."""
    client, seen = Client(database, durability="normal"), list[int]()

    @client.middleware
    async def around(job: JobContext, task: Any, call_next: Any) -> Any:
        seen.append(trace.get_current_span().get_span_context().span_id)
        return await call_next(job, task)

    @client.handler(First)
    def first(task: First, job: JobContext) -> None:
        assert threading.current_thread() is not threading.main_thread()
        seen.append(trace.get_current_span().get_span_context().span_id)
        anyio.from_thread.run(client.add(Second()).save)

    @client.handler(Second)
    async def second(task: Second) -> None: ...

    async with client:
        await client.add(First()).save()
        await all_ended(client, "first", "second")
    process = spans.one("process first")
    assert seen[:2] == [id_of(process)] * 2
    assert parent_of(spans.one("send second")) == id_of(process)


async def test_attempts_beside_each_other_have_their_own_spans(database: str, spans: Spans) -> None:
    """No attempt sees the span of another."""
    client, seen = Client(database, durability="normal"), dict[str, int]()
    meet = asyncio.Barrier(5)

    @client.handler(Third)
    async def third(task: Third, job: JobContext) -> None:
        await meet.wait()
        seen[job.id] = trace.get_current_span().get_span_context().span_id

    async with client:
        ids = await client.add(*[Third()] * 5).save()
        await ended(client, *ids)
    assert seen == {
        str(said(span)["messaging.message.id"]): id_of(span) for span in spans.of("process third")
    }
    assert trace.get_current_span() is trace.INVALID_SPAN


# -- the caller's side ----------------------------------------------------------------------------


async def test_a_failed_save_is_told_and_the_next_has_a_span_of_its_own(database: str, spans: Spans) -> None:
    """Its span has the type of the error; an option that is refused makes none."""
    async with app(database, workers=0) as client:
        with pytest.raises(PayloadError):
            await client.add(Third(), First(fails=float("nan"))).save()  # type: ignore[arg-type]
        await client.add(Third()).save()
    failed, stored = spans.of("send third")
    assert said(failed)["error.type"] == "PayloadError"
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert stored.status.status_code is trace.StatusCode.UNSET


async def test_a_save_that_is_tried_again_is_traced_again(
    database: str, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs are made once, and follow from the first."""
    async with app(database, workers=0) as client:
        operation, store = client.add(Third()), client.open_store()

        async def fail(*_: object, **__: object) -> None:
            raise OSError("no space")

        with monkeypatch.context() as patched:
            patched.setattr(store, "add", fail)
            with pytest.raises(OSError, match="no space"):
                await operation.save()
        [job_id] = await operation.save()
        job = await client.get(job_id)
    failed, stored = spans.of("send third")
    assert [said(span).get("error.type") for span in (failed, stored)] == ["OSError", None]
    assert said(stored)["messaging.message.id"] == job_id
    assert job is not None
    assert f"{id_of(failed):016x}" in job.context["traceparent"]


async def test_what_is_not_sampled_is_not_sampled_further_on(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision of a sampler travels, so that there are no halves of traces."""
    provider = TracerProvider(sampler=sampling.ALWAYS_OFF, shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    async with app(database, workers=0) as client:
        [job_id] = await client.add(First()).save()
        job = await client.get(job_id)
        assert job is not None
        assert not int(job.context["traceparent"][-2:], 16) & trace.TraceFlags.SAMPLED


async def test_a_long_state_is_left_behind(database: str, spans: Spans) -> None:
    """The trace goes on without it."""
    state = trace.TraceState([(f"vendor{n}", "x" * 200) for n in range(5)])
    context = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)
    async with app(database, workers=0) as client:
        with trace.use_span(trace.NonRecordingSpan(context)):
            [job_id] = await client.add(Third()).save()
        short = trace.SpanContext(
            1, 2, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=trace.TraceState([("a", "b")])
        )
        with trace.use_span(trace.NonRecordingSpan(short)):
            [other_id] = await client.add(Third()).save()
        job, other = await client.get(job_id), await client.get(other_id)
    assert job is not None
    assert other is not None
    assert set(job.context) == {"traceparent"}
    assert other.context["tracestate"] == "a=b"


# -- on and off -----------------------------------------------------------------------------------


async def test_off_is_off(database: str, spans: Spans) -> None:
    """`tracing=False` writes nothing, and follows nothing."""
    async with app(database, tracing=False, workers=0) as client:
        with spans.request():
            [job_id] = await client.add(Third()).save()
        job = await client.get(job_id)
    assert job is not None
    assert job.context == {}
    assert [span.name for span in spans.all] == ["request"]


async def test_the_api_alone_writes_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody has set up a tracer, a job carries nothing and is as quick to store as ever."""
    async with app(database, tracing=True, workers=0) as client:
        added: list[Any] = []
        monkeypatch.setattr(client, "added", added.extend)
        context = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
        with trace.use_span(trace.NonRecordingSpan(context)):  # of a request that names a trace
            await client.add(Third()).save()
    assert [job.more for job in added] == [None]


async def test_it_is_on_from_when_the_application_has_set_it_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the client was started."""
    found = Spans()
    monkeypatch.setattr("backlite_async.telemetry._otel.LOOKS_APART", 0.0)
    async with app(database) as client:
        await client.add(Third()).save()
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: found.provider)
        await client.add(Third()).save()
        await all_ended(client, "third")
    assert len(found.of("send third")) == 1
    found.provider.shutdown()


# -- trouble --------------------------------------------------------------------------------------


class Broken(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        raise RuntimeError("no collector")


class Raises:
    """A tracer that raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"broken: {name}")


async def test_an_exporter_that_raises_changes_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs run, and what they add."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Broken()))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    async with app(database) as client:
        await client.add(First(fails=1)).save()
        await all_ended(client, "first", "second")
        assert [job.status for job in await client.jobs.list()] == ["succeeded"] * 2


async def test_a_tracer_that_raises_changes_nothing(database: str, spans: Spans, journal: Journal) -> None:
    """Jobs run, and what they add; the log says it."""
    async with app(database) as client:
        await client.add(Third()).save()
        await all_ended(client, "third")
        otel = client.telemetry._otel
        assert otel is not None
        otel._tracer = Raises()  # type: ignore[attr-defined]
        await client.add(First(fails=1)).save()
        await all_ended(client, "first", "second")
        assert {job.status for job in await client.jobs.list()} == {"succeeded"}
    assert len(journal.of("telemetry.failed")) == 2 + 3  # adds, and attempts


async def test_a_provider_that_cannot_be_found_changes_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    """As where the environment names one that there is not."""

    def fail() -> None:
        raise RuntimeError("no such provider")

    async with app(database, tracing=True) as client:
        monkeypatch.setattr(trace, "get_tracer_provider", fail)
        await client.add(First(fails=1)).save()
        await all_ended(client, "first", "second")
        assert {job.status for job in await client.jobs.list()} == {"succeeded"}
    assert journal.of("telemetry.failed")


async def test_a_span_that_cannot_be_ended_changes_nothing(
    database: str, spans: Spans, journal: Journal
) -> None:
    """Neither of an add, nor of an attempt."""
    async with app(database) as client:
        telemetry = client.telemetry
        sending = telemetry.sending()
        assert sending is not None
        sending.begin(
            [NewJob(id="1", queue="q", task="T", payload=b"", max_attempts=1, created_at=0, due_at=0)]
        )
        sending._spans["q"]._span = Raises()  # type: ignore[attr-defined]
        sending.ended([], error=ValueError())
        await client.add(Third()).save()
        await all_ended(client, "third")
    assert len(journal.of("telemetry.failed")) == 1


async def test_a_context_that_is_none_begins_a_trace(database: str, spans: Spans) -> None:
    """What others have written into the database harms no job."""
    async with app(database) as client:
        options = client.add(Third())
        options._options = type(options._options)(meta='{"~context":{"traceparent":7,"log":[1]}}')
        await options.save()
        await all_ended(client, "third")
    assert said(spans.one("process third"))["backlite.job.outcome"] == "succeeded"
    assert json.loads(spans.one("send third").to_json())["parent_id"] is None
