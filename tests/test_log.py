"""Events: declared once, silent unless asked for, and never with a payload."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import structlog

import backlite_async
from backlite_async import Client, Discard, QueueConfig, Retry, Snooze, Task, _log
from backlite_async._log import Event, emit, events, logger

NAME = "backlite_async"
PROBE = Event("probe.seen", logging.WARNING, "a test's own event")
SECRET = "xyzzy-4711-in-the-payload"


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    """Leave structlog unconfigured before and after each test."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture
def standard() -> Iterator[io.StringIO]:
    """What the library writes to the standard library's logging at every level."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    log = logging.getLogger(NAME)
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield lines
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


def configured(**options: Any) -> list[dict[str, Any]]:
    """Configure structlog to keep what is logged, and return where."""
    kept: list[dict[str, Any]] = []

    def keep(_logger: object, method: str, fields: Any) -> Any:
        kept.append({"log_level": method, **fields})
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.stdlib.add_log_level, keep], **options)
    return kept


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


# -- declarations ---------------------------------------------------------------------------------


def test_every_event_is_declared_once() -> None:
    """No two events have one name."""
    names = [event.name for event in events()]
    assert len(names) > 10
    assert len(names) == len(set(names))


@pytest.mark.parametrize("event", events(), ids=lambda event: event.name)
def test_a_declaration(event: Event) -> None:
    """An event has a dotted lower-case name, a level of the standard library, and a meaning."""
    assert re.fullmatch(r"[a-z]+\.[a-z]+(_[a-z]+)*", event.name)
    assert event.level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    assert len(event.meaning) > 10
    assert not event.meaning.endswith(".")


def test_every_event_is_used_and_only_declared_ones_are() -> None:
    """What the package emits are the declared events; none is declared for nothing."""
    package = Path(backlite_async.__file__).parent
    used: set[str] = set()
    for path in package.rglob("*.py"):
        if path.name == "_log.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "log"
            ):
                used.add(node.attr)
    declared = {name for name, value in vars(_log).items() if isinstance(value, Event)}
    assert {name for name in used if name.isupper()} == declared


# -- silent by default ----------------------------------------------------------------------------

FAILING_JOB = f"""
import asyncio, logging, sys
from typing import ClassVar
from backlite_async import Client, QueueConfig, Task

class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", max_attempts=2, backoff=0)
    value: str

async def main():
    client = Client(":memory:")
    done = asyncio.Event()

    @client.handler(Work)
    async def work(task, job):
        job.log.warning("working")
        if job.attempt == 2:
            done.set()
        raise RuntimeError("it failed")

    async with client:
        await client.add(Work({SECRET!r})).save()
        await done.wait()

CONFIGURE
asyncio.run(main())
"""


def test_silent_by_default() -> None:
    """An application that configures nothing sees nothing, not even of a job that fails."""
    run = in_a_process(FAILING_JOB.replace("CONFIGURE", ""))
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_standard_logging_shows_what_its_level_lets_through() -> None:
    """With `logging.basicConfig()` warnings and errors are seen, as one line each."""
    run = in_a_process(FAILING_JOB.replace("CONFIGURE", "logging.basicConfig()"))
    assert (run.returncode, run.stdout) == (0, "")
    assert "WARNING:backlite_async:job.retried" in run.stderr
    assert "ERROR:backlite_async:job.failed" in run.stderr
    assert "WARNING:backlite_async:working job_id=" in run.stderr
    assert "INFO" not in run.stderr
    assert "DEBUG" not in run.stderr
    assert SECRET not in run.stderr


def test_structlog_shows_the_same_when_configured() -> None:
    """With structlog configured, events go there and nowhere else."""
    configure = (
        "import structlog; structlog.configure(processors=[structlog.stdlib.add_log_level,"
        " structlog.processors.JSONRenderer()])"
    )
    run = in_a_process(FAILING_JOB.replace("CONFIGURE", configure))
    assert (run.returncode, run.stderr) == (0, "")
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert {"client.started", "job.added", "job.retried", "job.failed", "client.stopped"} <= {
        line["event"] for line in lines
    }
    assert SECRET not in run.stdout


# -- standard logging -----------------------------------------------------------------------------


def test_an_event_is_its_name_then_its_fields(standard: io.StringIO) -> None:
    """A line has the event's level and name first, the fields in their order, without empty ones."""
    emit(PROBE, job_id="j1", queue="mail", error=None, attempt=0)
    assert standard.getvalue() == f"WARNING {NAME} probe.seen job_id=j1 queue=mail attempt=0\n"


def test_percent_signs_are_not_formatted(standard: io.StringIO) -> None:
    """A field is text, whatever is in it."""
    emit(PROBE, error="100 %s %d {x}")
    assert standard.getvalue().endswith("probe.seen error='100 %s %d {x}'\n")


def test_a_traceback_has_lines_of_its_own(standard: io.StringIO) -> None:
    """A traceback follows its event, so that it can be read."""
    emit(PROBE, traceback="  File x\n    boom", error="E")
    assert standard.getvalue() == f"WARNING {NAME} probe.seen error=E\n  File x\n    boom\n"


def test_a_level_that_is_not_enabled_is_not_logged(standard: io.StringIO) -> None:
    """The application's level decides, at the time of the event."""
    logging.getLogger(NAME).setLevel(logging.ERROR)
    emit(PROBE)
    logger().info("not this")
    assert standard.getvalue() == ""
    logging.getLogger(NAME).setLevel(logging.WARNING)
    emit(PROBE)
    assert standard.getvalue() != ""


def test_a_bound_logger_repeats_its_fields(standard: io.StringIO) -> None:
    """What is bound is on every line, also of more specific loggers."""
    bound = logger(job_id="j1").bind(step=2)
    bound.info("half done", share=0.5)
    assert standard.getvalue() == f"INFO {NAME} half done job_id=j1 step=2 share=0.5\n"


def test_a_bound_logger_shows_an_exception(standard: io.StringIO) -> None:
    """`log.exception` in a handler writes the traceback below the line."""
    try:
        raise ValueError("no")
    except ValueError:
        logger(job_id="j1").exception("went wrong")
    first, *rest = standard.getvalue().splitlines()
    assert first == f"ERROR {NAME} went wrong job_id=j1"
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "ValueError: no"


def test_nothing_reaches_the_root_without_a_handler(capfd: pytest.CaptureFixture[str]) -> None:
    """Python's handler of last resort does not print the library's errors."""
    log = logging.getLogger(NAME)
    assert any(isinstance(handler, logging.NullHandler) for handler in log.handlers)
    emit(Event("probe.bad", logging.ERROR, "a test's own event"))
    assert capfd.readouterr() == ("", "")


# -- structlog ------------------------------------------------------------------------------------


def test_structlog_gets_the_fields() -> None:
    """With structlog configured, an event arrives as it is, with its fields, without empty ones."""
    kept = configured()
    emit(PROBE, job_id="j1", attempt=2, error=None)
    assert kept == [
        {"log_level": "warning", "event": "probe.seen", "job_id": "j1", "attempt": 2, "level": "warning"}
    ]


def test_capture_logs_sees_events() -> None:
    """Structlog's own testing helper works for applications that configured it."""
    structlog.configure()
    with structlog.testing.capture_logs() as kept:
        emit(PROBE, job_id="j1")
        logger(job_id="j2").info("mine")
    assert kept == [
        {"log_level": "warning", "event": "probe.seen", "job_id": "j1"},
        {"log_level": "info", "event": "mine", "job_id": "j2"},
    ]


def test_structlog_replaces_standard_logging(standard: io.StringIO) -> None:
    """An event is not written twice."""
    kept = configured()
    emit(PROBE)
    assert len(kept) == 1
    assert standard.getvalue() == ""


def test_structlog_decides_on_levels_itself() -> None:
    """The level of the standard library's logger does not matter, that of structlog does."""
    kept = configured(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    emit(PROBE)
    assert kept == []
    kept = configured(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    emit(Event("probe.fine", logging.DEBUG, "a test's own event"))
    assert [line["event"] for line in kept] == ["probe.fine"]


def test_structlog_on_top_of_standard_logging(standard: io.StringIO) -> None:
    """The common set-up, structlog rendering into the standard library, names the library's logger."""
    structlog.configure(
        processors=[
            structlog.stdlib.add_logger_name,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    emit(PROBE, job_id="j1")
    line = standard.getvalue()
    assert line.startswith(f"WARNING {NAME} event='probe.seen'")
    assert "job_id='j1'" in line


def test_configuring_later_counts_too(standard: io.StringIO) -> None:
    """Where events go is decided when they happen, not when the library is imported."""
    emit(PROBE, n=1)
    kept = configured()
    emit(PROBE, n=2)
    structlog.reset_defaults()
    emit(PROBE, n=3)
    assert [line["n"] for line in kept] == [2]
    assert standard.getvalue().count("probe.seen") == 2


# -- payloads -------------------------------------------------------------------------------------


class Secretive(Task):
    config: ClassVar[QueueConfig] = QueueConfig("secretive", max_attempts=2, backoff=0, timeout=5)
    how: str
    secret: str = SECRET
    number: int = 0


class Undecodable(Task):
    config: ClassVar[QueueConfig] = QueueConfig("undecodable")
    secret: str


@pytest.mark.parametrize("how", ["return", "raise", "retry", "snooze", "discard", "thread"])
async def test_a_payload_is_never_logged(how: str, journal: Any) -> None:
    """Whatever becomes of a job, no line has anything of its task's values."""
    client = Client(":memory:")

    def steer(attempt: int) -> None:
        if how == "raise" or (how == "thread" and attempt == 1):
            raise RuntimeError("it failed")
        if how == "retry" and attempt == 1:
            raise Retry(after=0)
        if how == "discard":
            raise Discard("no use")

    snoozed: list[str] = []

    async def handler(task: Secretive, job: backlite_async.JobContext) -> None:
        job.log.info("handling")
        if how == "snooze" and not snoozed:
            snoozed.append(job.id)
            raise Snooze(0)
        steer(job.attempt)

    def in_thread(task: Secretive, job: backlite_async.JobContext) -> None:
        steer(job.attempt)

    client.register(Secretive, in_thread if how == "thread" else handler)
    async with client:
        ids = await client.add(Secretive(how)).save()
        await journal.ended(*ids)
    assert journal.of("job.started", ids[0])
    assert SECRET not in "\n".join(journal.lines)


async def test_a_payload_that_cannot_be_added_is_not_logged(journal: Any) -> None:
    """A task that is refused leaves no trace of its values."""
    async with Client(":memory:") as client:
        with pytest.raises(backlite_async.PayloadError):
            await client.add(Secretive("x", number=SECRET)).save()  # type: ignore[arg-type]
    assert SECRET not in "\n".join(journal.lines)


async def test_a_payload_without_handler_is_not_logged(journal: Any) -> None:
    """A job that nobody handles is told by queue and task type."""
    async with Client(":memory:") as client:
        await client.add(Undecodable(SECRET)).save()
        lines = await journal.seen("queue.unhandled")
    assert "queue=undecodable" in lines[0]
    assert "task=Undecodable" in lines[0]
    assert SECRET not in "\n".join(journal.lines)


BROKEN_LOGGING = """
import asyncio, logging, sys
from typing import ClassVar
import structlog
from backlite_async import Client, QueueConfig, Retention, Task

class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())

def broken(logger, method, fields):
    raise BrokenPipeError("nobody reads this")

structlog.configure(CONFIGURE)

async def main():
    ran = asyncio.Event()
    async with Client(":memory:") as client:
        client.register(Work, lambda task: ran.set())
        for _ in range(3):
            ran.clear()
            [job_id] = await client.add(Work()).save()
            while await client.status(job_id) != "succeeded":
                await asyncio.sleep(0)
        print("all ran")

asyncio.run(main())
"""


@pytest.mark.parametrize("configure", ["processors=[broken]", "wrapper_class=structlog.BoundLogger"])
def test_no_job_suffers_from_the_logging(configure: str) -> None:
    """With a logger that raises, or one of another kind, jobs run and the client stops as ever."""
    run = in_a_process(BROKEN_LOGGING.replace("CONFIGURE", configure))
    assert run.returncode == 0, run.stderr
    assert "all ran" in run.stdout
