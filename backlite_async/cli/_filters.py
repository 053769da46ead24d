"""Which jobs are meant, as the command line says it: filters, instants, durations, and if that is sure."""

from __future__ import annotations

import functools
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from .. import Client, JobStatus
from ._base import NothingFound, did_you_mean
from ._output import Output, is_terminal

__all__ = [
    "DURATION",
    "FUTURE",
    "INSTANT",
    "STATE",
    "all_and_yes",
    "check_names",
    "confirmed",
    "given",
    "job_filters",
]

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
NUMBER = r"\d+(?:\.\d+)?"
LENGTH = re.compile(rf"({NUMBER})(ms|[smhdw])", re.ASCII)


def parsed_duration(text: str) -> timedelta | None:
    """Return "90", "1.5h", "2h30m" as a length of time; None: it is none."""
    bare = re.fullmatch(NUMBER, text, re.ASCII)
    parts = [(text, "s")] if bare else LENGTH.findall(text)
    if not parts or (not bare and "".join(number + unit for number, unit in parts) != text):
        return None
    try:
        return timedelta(seconds=sum(float(number) * UNITS[unit] for number, unit in parts))
    except OverflowError:
        return None


def parsed_instant(text: str, now: datetime, *, relative: bool = True) -> datetime | None:
    """Return "2030-01-01T12:00Z", "2h" (ago), "+2h" (from now) or "now" as an instant; None: it is none."""
    if text == "now":
        return now
    length = parsed_duration(text.removeprefix("+"))
    try:
        if length is not None and (relative or text.startswith("+")):
            return now + length if text.startswith("+") else now - length
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # which is generic in newer versions only


class Duration(_ParamType):
    """A length of time."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a timedelta."""
        found = value if isinstance(value, timedelta) else parsed_duration(str(value))
        if found is None:
            self.fail(f"{value!r} is no length of time; write 90 (seconds), 5m, 2h30m or 7d.", param, ctx)
        return found


class Instant(_ParamType):
    """An instant, where lengths of time are counted back from now, or only forward."""

    name = "instant"

    def __init__(self, *, relative: bool) -> None:
        self._relative = relative

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return an aware datetime."""
        if isinstance(value, datetime):
            return value
        found = parsed_instant(str(value), datetime.now(UTC), relative=self._relative)
        if found is None:
            forms = "2h (ago), +2h (from now)" if self._relative else "+2h (from now)"
            self.fail(f"{value!r} is no instant; write 2030-01-31T12:00Z, {forms} or now.", param, ctx)
        return found


class State(_ParamType):
    """A state of a job; knows what was meant by a misspelt one."""

    name = "state"
    choices = tuple(str(state) for state in JobStatus if state is not JobStatus.NOT_FOUND)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the states that begin so."""
        return [CompletionItem(name) for name in self.choices if name.startswith(incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the state's name."""
        if value not in self.choices:
            hint = did_you_mean(str(value), self.choices)
            self.fail(f"{value!r} is no state; there are {', '.join(self.choices)}.{hint}", param, ctx)
        return value


DURATION, INSTANT, FUTURE, STATE = Duration(), Instant(relative=True), Instant(relative=False), State()

Body = Callable[..., Any]

OPTIONS: Sequence[tuple[str, dict[str, Any]]] = (
    ("--queue", {"metavar": "NAME", "help": "Of this queue."}),
    ("--state", {"type": STATE, "multiple": True, "help": "In this state; several may be given."}),
    ("--tag", {"metavar": "TAG", "help": "With this tag."}),
    ("--text", {"metavar": "TEXT", "help": "With this in payload, error, id, meta data or key."}),
    ("--task", {"metavar": "NAME", "help": "Of this task type."}),
    ("--key", {"metavar": "KEY", "help": "With this key."}),
    ("--unique", {"metavar": "KEY", "help": "Last added with this unique key; needs --queue."}),
    ("--parent", {"metavar": "ID", "help": "Added by the handler of this job."}),
    ("--owner", {"metavar": "ID", "help": "Claimed by this process."}),
    ("--workflow", {"metavar": "ID", "help": "Steps of this workflow."}),
    ("--added-after", {"type": INSTANT, "help": "Added then or later: 2h (ago), or an ISO instant."}),
    ("--added-before", {"type": INSTANT, "help": "Added then or earlier."}),
    ("--due-after", {"type": INSTANT, "help": "Pending, and due then or later: +2h (from now)."}),
    ("--due-before", {"type": INSTANT, "help": "Pending, and due then or earlier."}),
    ("--finished-after", {"type": INSTANT, "help": "Finished then or later."}),
    ("--finished-before", {"type": INSTANT, "help": "Finished then or earlier."}),
)
NAMES = tuple(name.removeprefix("--").replace("-", "_") for name, _ in OPTIONS)


def job_filters(function: Body) -> Body:
    """Give a command the options that say which jobs are meant; it gets them as `filters`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        filters = {name: kwargs.pop(name) for name in NAMES}
        return function(*args, filters=given(filters), **kwargs)

    for name, attributes in reversed(OPTIONS):
        wrapped = click.option(name, **attributes)(wrapped)
    return wrapped


def given(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters that were given."""
    return {name: value for name, value in filters.items() if value not in (None, ())}


def all_and_yes(function: Body) -> Body:
    """Give a command `--yes`, for where nobody can be asked."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")(
        function
    )


# -- names that are not there -------------------------------------------------------------------------


async def check_names(client: Client, filters: Mapping[str, Any]) -> None:
    """Raise where a filter names a queue or a task type that nobody knows."""
    queue, task = filters.get("queue"), filters.get("task")
    if queue is not None:
        known: Iterable[str] = [found.name for found in await client.queues.list(most=1)]
        if queue not in known:
            raise NothingFound(f"there is no queue {queue!r}.{did_you_mean(queue, known)}")
    if task is not None:
        known = {found.name for found in await client.tasks.list()}
        if task not in known and not await client.jobs.list(task=task, limit=1):
            raise NothingFound(f"there is no task type {task!r}.{did_you_mean(task, known)}")


# -- whether it is sure --------------------------------------------------------------------------------


def confirmed(out: Output, question: str, *, yes: bool) -> bool:
    """Ask whether to go on; where nobody can be asked, it must have been said."""
    if yes:
        return True
    if not is_terminal():
        raise click.UsageError(f"{question} There is no terminal to ask on: say --yes.")
    restored = _interruptible()
    try:
        click.echo(f"{question} Go on? [y/N] ", nl=False, err=True)  # not by input(): stdout is for data
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return True
    finally:
        restored()
    out.say("Nothing was done.")
    return False


def _interruptible() -> Callable[[], Any]:
    """Let signals end a question at once; an event loop takes them for later. Return what undoes that."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    terminate = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return lambda: (signal.signal(signal.SIGINT, interrupt), signal.signal(signal.SIGTERM, terminate))
