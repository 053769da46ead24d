"""What happened to a job: errors of its attempts, its progress, its log lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from ._clock import from_millis

__all__ = [
    "CRASH",
    "MOST_ERRORS",
    "MOST_LINES",
    "AttemptError",
    "History",
    "Line",
    "LogLine",
    "Note",
    "Trouble",
    "error_record",
    "line_record",
]

MOST_ERRORS = 100
"""Errors that are kept of a job, the newest."""

MOST_LINES = 1000
"""Log lines that are kept of a job, the newest."""

CRASH = "crash"
"""The type of the error of a process that died."""


class AttemptError(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt went wrong.

    `type`: the class of the exception, or "crash" where its process died; `message`: the error as the
    job's own `error` gives it; `traceback`: the last frames, as far as they are the application's. Instants
    are aware datetimes in UTC; of a crash it is only known when it was noticed (`finished_at`), and
    `duration` is None.
    """

    attempt: int
    type: str
    message: str
    traceback: str | None
    owner: str | None
    started_at: datetime | None
    finished_at: datetime
    duration: timedelta | None

    @property
    def crash(self) -> bool:
        """Whether the process died."""
        return self.type == CRASH


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler said by `job.log`: the event, then its fields, as text."""

    attempt: int
    at: datetime
    level: str
    text: str


class Trouble(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """How an attempt went wrong, on its way into the store: milliseconds, and microseconds of duration.

    `started_at` None: when the job was claimed. The order of the fields is that of `keep_errors`.
    """

    attempt: int
    type: str
    message: str
    traceback: str | None
    started_at: int | None
    finished_at: int
    duration: int | None


class Line(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A log line of a job: its number in the attempt, from 0; milliseconds; level; text."""

    number: int
    at: int
    level: str
    text: str


class Note(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What a claim has said of itself: how far it is (None: nothing new), and log lines.

    The order of the fields is that of the statements that write it. Writing it twice does no harm.
    """

    id: str
    fence: int
    attempt: int
    progress: float | None = None
    message: str | None = None
    lines: tuple[Line, ...] = ()


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside a job's record: errors of its attempts and its log lines, oldest first."""

    errors: tuple[AttemptError, ...] = ()
    lines: tuple[LogLine, ...] = ()


def error_record(columns: Mapping[str, Any] | Sequence[Any]) -> AttemptError:
    """Make a public error of attempt, type, message, traceback, owner, started_at, finished_at, duration."""
    values = list(columns.values() if isinstance(columns, Mapping) else columns)
    attempt, kind, message, traceback, owner, started_at, finished_at, duration = values
    return AttemptError(
        attempt=attempt,
        type=kind,
        message=message,
        traceback=traceback,
        owner=owner,
        started_at=None if started_at is None else from_millis(started_at),
        finished_at=from_millis(finished_at),
        duration=None if duration is None else timedelta(microseconds=duration),
    )


def line_record(columns: Sequence[Any]) -> LogLine:
    """Make a public log line of attempt, at, level, text."""
    attempt, at, level, text = columns
    return LogLine(attempt=attempt, at=from_millis(at), level=level, text=text)
