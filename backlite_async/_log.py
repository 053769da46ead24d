"""Every event that the library logs, declared in one place.

Silent unless the application configures logging: with structlog configured, events go there with
their fields; otherwise they go to the standard library's logger "backlite_async". A payload is
never logged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import structlog

__all__ = ["Event", "Keep", "bind", "bound", "emit", "events", "heard", "logger"]

Keep = Callable[[str, Callable[[], str]], None]
"""Takes the level of a line, and what renders it as text: its event, then its fields."""

_NAME = "backlite_async"
_standard = logging.getLogger(_NAME)
_standard.addHandler(logging.NullHandler())


class Event(NamedTuple):
    """A kind of log line: its name, level, and when it is written."""

    name: str
    level: int
    meaning: str


CLIENT_STARTED = Event("client.started", logging.INFO, "the client is open and, with workers, runs jobs")
CLIENT_STOPPING = Event(
    "client.stopping", logging.INFO, "no more jobs are claimed; running ones get their time"
)
CLIENT_STOPPED = Event(
    "client.stopped", logging.INFO, "the client is closed; clean: no handler was cut short"
)
JOB_ADDED = Event("job.added", logging.DEBUG, "a job was stored (in .tx(): if its transaction commits)")
JOB_STARTED = Event("job.started", logging.DEBUG, "an attempt begins")
JOB_SUCCEEDED = Event("job.succeeded", logging.INFO, "the handler returned and the job is complete")
JOB_RETRIED = Event("job.retried", logging.WARNING, "an attempt failed; the job runs again at due_at")
JOB_FAILED = Event("job.failed", logging.ERROR, "the job has failed for good")
JOB_CANCELLED = Event("job.cancelled", logging.INFO, "the job was cancelled, and has ended")
JOB_SNOOZED = Event("job.snoozed", logging.INFO, "the handler asked to run again at due_at")
JOB_GIVEN_BACK = Event("job.given_back", logging.INFO, "the claim was undone; the attempt does not count")
JOB_CRASHED = Event("job.crashed", logging.WARNING, "the process that ran the job died; it runs again")
JOB_RAISED_LATE = Event(
    "job.raised_late", logging.WARNING, "the handler raised after its job.transaction() had completed the job"
)
JOB_LATE = Event(
    "job.late", logging.WARNING, "the handler returned though it was to be cut off; its return counts"
)
JOB_UNRESPONSIVE = Event("job.unresponsive", logging.ERROR, "the handler was cancelled and does not end")
JOB_LEASE_LOST = Event("job.lease_lost", logging.ERROR, "an outcome was dropped: the claim is another's")
JOB_RESULT_DROPPED = Event(
    "job.result_dropped", logging.WARNING, "what the handler returned cannot be kept; the job has succeeded"
)
JOB_UNWRITABLE = Event("job.unwritable", logging.ERROR, "an outcome cannot be stored; the job fails instead")
JOBS_EXPIRED = Event("jobs.expired", logging.DEBUG, "completed jobs were removed when their retention ended")
JOBS_CHANGED = Event(
    "jobs.changed", logging.INFO, "jobs were retried, edited, deleted, ... by a call; action says"
)
QUEUES_PAUSED = Event("queues.paused", logging.INFO, "which queues are paused now has changed")
QUEUE_UNHANDLED = Event("queue.unhandled", logging.WARNING, "jobs wait that have no handler in this process")
PAGE_ACTION = Event("page.action", logging.INFO, "somebody does something by the page: who, what, to what")
PAGE_FAILED = Event("page.failed", logging.ERROR, "the page cannot answer a request; it changes nothing")
PAGE_REDACT_FAILED = Event(
    "page.redact_failed", logging.ERROR, "the function given as redact= has failed; the value is not shown"
)
SCHEDULE_CHANGED = Event(
    "schedule.changed", logging.INFO, "a schedule was made, edited, paused, removed, ...; action says"
)
SCHEDULE_TICKED = Event("schedule.ticked", logging.INFO, "runs of a schedule that were due are added")
SCHEDULE_SKIPPED = Event(
    "schedule.skipped", logging.INFO, "a run is not added, as the last one has not finished: overlap=False"
)
SCHEDULE_MISSED = Event(
    "schedule.missed",
    logging.WARNING,
    "instants of a schedule from `since` on went by and are not made up for",
)
SCHEDULE_TROUBLED = Event(
    "schedule.troubled", logging.ERROR, "nobody can tell here when a schedule is due; the others go on"
)
OWNER_DIED = Event("owner.died", logging.WARNING, "an owner is gone without a word; its jobs are released")
LISTENER_FAILED = Event("listener.failed", logging.ERROR, "a listener raised, which changes nothing")
LISTENERS_BEHIND = Event(
    "listeners.behind", logging.WARNING, "more happens than listeners take in; the oldest events are dropped"
)
LISTENERS_MISSED = Event("listeners.missed", logging.WARNING, "so many events were dropped untold")
TELEMETRY_FAILED = Event(
    "telemetry.failed", logging.WARNING, "something that traces or counts jobs raised, which changes nothing"
)
STORE_HAZARD = Event("store.hazard", logging.WARNING, "something here is dangerous, and what to do")
STORE_LOST = Event("store.lost", logging.ERROR, "the database file is gone, or another; the client stops")
STORE_FAILING = Event("store.failing", logging.ERROR, "the database cannot be used; tried again until it can")
STORE_RECOVERED = Event("store.recovered", logging.INFO, "the database can be used again")


def events() -> list[Event]:
    """Return all events, in the order of their declaration."""
    return [value for value in globals().values() if isinstance(value, Event)]


def heard(event: Event) -> bool:
    """Return whether anybody may listen to this event, so that its fields are worth gathering."""
    return structlog.is_configured() or _standard.isEnabledFor(event.level)


def emit(event: Event, /, **fields: Any) -> None:
    """Log an event with its fields; those that are None are left out."""
    if not heard(event):
        return
    present = {name: value for name, value in fields.items() if value is not None}
    try:
        getattr(logger(), logging.getLevelName(event.level).lower())(event.name, **present)
    except Exception:  # the application's logging is broken: no job may suffer from that
        with contextlib.suppress(Exception):
            _standard.exception("cannot log %s", event.name)


def logger(keep: Keep | None = None, /, **fields: Any) -> Any:
    """Return a structlog logger that carries these fields, bound to what the application configured.

    `keep` is given each line, from info up, before anybody filters or changes it.
    """
    if structlog.is_configured():
        if keep is None:
            return structlog.get_logger(_NAME, **fields)
        front: Any = _Configured(_Keeper(keep, fields))
        return structlog.wrap_logger(None, processors=front, logger_factory_args=(_NAME,), **fields)
    processors: list[Any] = [structlog.stdlib.filter_by_level, structlog.processors.format_exc_info, _plain]
    return structlog.wrap_logger(
        _standard,
        processors=processors if keep is None else [_Keeper(keep, fields), *processors],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        **fields,
    )


def bound(names: Iterable[str]) -> dict[str, Any]:
    """Return those context variables of structlog that are bound here."""
    there = structlog.contextvars.get_contextvars()
    return {name: there[name] for name in names if name in there}


def bind(values: dict[str, Any]) -> None:
    """Bind context variables of structlog for the rest of a context."""
    structlog.contextvars.bind_contextvars(**values)


class _Configured:
    """One processor, then those that are configured, whenever they are."""

    def __init__(self, first: Any) -> None:
        self._first = first

    def __iter__(self) -> Iterator[Any]:
        yield self._first
        yield from structlog.get_config()["processors"]


_LEVELS = {"warn": "warning", "exception": "error", "err": "error", "fatal": "critical", "msg": "info"}
"""Methods of structlog's loggers that are not called as their level."""


class _Keeper:
    """A processor that changes nothing, and gives away a copy. Whatever goes wrong with that stays here."""

    def __init__(self, keep: Keep, own: dict[str, Any]) -> None:
        self._keep = keep
        self._own = own

    def __call__(self, _logger: object, method: str, fields: Any) -> Any:
        with contextlib.suppress(Exception):
            level = _LEVELS.get(method, method)
            number = logging.getLevelName(level.upper())
            if not isinstance(number, int) or number >= logging.INFO:
                self._keep(level, lambda: self._text(method, fields))
        return fields

    def _text(self, method: str, fields: Any) -> str:
        """Render a line without the fields that each line has."""
        own = self._own
        shown: Any = {name: value for name, value in fields.items() if own.get(name, fields) is not value}
        try:
            shown = structlog.stdlib.PositionalArgumentsFormatter()(None, method, shown)
            shown = structlog.processors.format_exc_info(None, method, shown)
            shown.pop("stack_info", None)
            return _plain(None, method, shown)
        except Exception as error:  # a value that cannot be shown
            return f"{fields.get('event', '')} <its fields cannot be shown: {type(error).__qualname__}>"


def _plain(_logger: object, _method: str, fields: Any) -> str:
    """Render an event as its name, then its fields, then the tracebacks on lines of their own."""
    tail = "".join(f"\n{fields.pop(name)}" for name in ("traceback", "exception") if name in fields)
    return " ".join([str(fields.pop("event", "")), *(f"{k}={_shown(v)}" for k, v in fields.items())]) + tail


def _shown(value: object) -> str:
    text = str(value)
    return repr(text) if set(text) & set(" ='\"\n") else text
