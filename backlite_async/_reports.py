"""What is to be logged of an attempt, once its outcome is written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol

import msgspec

from . import _log as log
from ._clock import from_millis
from ._errors import LeaseLost
from ._events import Bus, EventKind
from ._history import CRASH, Note
from ._job import ClaimedJob, Complete, Job, JobStatus, Outcome, Reschedule
from ._outcome import Result, Snooze

__all__ = ["Finish", "Reports", "milliseconds", "naming", "tell", "tell_note", "told"]


class Finish(Protocol):
    """Has an outcome written, and an event logged with its fields once it is."""

    def __call__(self, job: ClaimedJob, outcome: Outcome, event: log.Event, **report: object) -> None: ...


_COMPLETED = {
    JobStatus.SUCCEEDED: log.JOB_SUCCEEDED,
    JobStatus.FAILED: log.JOB_FAILED,
    JobStatus.CANCELLED: log.JOB_CANCELLED,
}

_KINDS: dict[log.Event, EventKind] = {
    log.JOB_SUCCEEDED: "succeeded",
    log.JOB_FAILED: "failed",
    log.JOB_CANCELLED: "cancelled",
    log.JOB_SNOOZED: "snoozed",
    log.JOB_RETRIED: "retried",
    log.JOB_CRASHED: "retried",
}
"""What listeners are told where a log line says this; of jobs that are given back, nothing."""


def naming(job: ClaimedJob | Job) -> dict[str, Any]:
    """Return the fields that name a job's attempt on every line."""
    return {"job_id": job.id, "queue": job.queue, "task": job.task, "attempt": job.attempt}


def milliseconds(duration: int | None) -> float | None:
    """Return a duration in microseconds as logs show it."""
    return None if duration is None else duration / 1000


def told(outcome: Outcome, result: Result) -> tuple[log.Event, dict[str, Any]]:
    """Return the event of an attempt that has ended, and its fields."""
    if isinstance(outcome, Complete):
        event = _COMPLETED[outcome.status]
    elif isinstance(result.steer, Snooze):
        event = log.JOB_SNOOZED
    elif result.ends_process:
        event = log.JOB_CRASHED
    else:
        event = log.JOB_GIVEN_BACK if result.stopped else log.JOB_RETRIED
    fields: dict[str, Any] = {"duration_ms": milliseconds(result.duration)}
    if event is not log.JOB_SUCCEEDED and event is not log.JOB_SNOOZED:
        error = outcome.error if isinstance(outcome, Complete) else result.error
        fields |= {"error": error or None, "traceback": result.traceback}
    return event, fields


def tell(
    bus: Bus, job: ClaimedJob, outcome: Outcome, event: log.Event, duration_ms: float | None = None
) -> None:
    """Tell listeners of an outcome that is written, as it is logged."""
    kind = _KINDS.get(event)
    if kind is not None:
        bus.tell(
            kind,
            **naming(job),
            error=outcome.error,
            duration=None if duration_ms is None else timedelta(milliseconds=duration_ms),
            crashed=outcome.trouble is not None and outcome.trouble.type == CRASH,
            due_at=from_millis(outcome.due_at) if isinstance(outcome, Reschedule) else None,
        )
    if isinstance(outcome, Complete) and outcome.letter is not None:
        bus.added([outcome.letter])


def tell_note(bus: Bus, job: ClaimedJob, note: Note) -> None:
    """Tell listeners what a handler has said, once it is stored."""
    if not bus.heard:
        return
    if note.progress is not None:
        bus.tell("progress", **naming(job), progress=note.progress, message=note.message)
    for line in note.lines:
        bus.tell("log", **naming(job), at=line.at, level=line.level, text=line.text)


class _Report(msgspec.Struct, frozen=True, gc=False):
    """What is to be logged of one claim. Nothing in it leads back here, so the collector need not look."""

    job: ClaimedJob
    event: log.Event
    fields: dict[str, Any]


class Reports:
    """Keeps one report for each claim whose outcome is on its way."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: dict[tuple[str, int], _Report] = {}

    def __contains__(self, claim: tuple[str, int]) -> bool:
        return claim in self._waiting

    def has(self, queue: str) -> bool:
        """Return whether the outcome of a job of a queue is on its way."""
        return any(report.job.queue == queue for report in self._waiting.values())

    def put(self, job: ClaimedJob, event: log.Event, fields: dict[str, Any]) -> None:
        """Log this once the outcome is written."""
        self._waiting[job.id, job.fence] = _Report(job, event, fields)

    def job(self, outcome: Outcome) -> ClaimedJob:
        """Return the job of an outcome that is on its way."""
        return self._waiting[outcome.id, outcome.fence].job

    def written(self, outcome: Outcome, *, lost: bool) -> None:
        """Log what was waiting for this outcome; `lost`: it was not accepted."""
        report = self._waiting.pop((outcome.id, outcome.fence))
        job, event, fields = report.job, report.event, report.fields
        if self._bus.heard:
            self._tell(report, outcome, lost=lost)
        if not lost and not log.heard(event):
            return
        if not lost:
            if isinstance(outcome, Reschedule):
                fields["due_at"] = from_millis(outcome.due_at).isoformat()
            log.emit(event, **naming(job), **fields)
        elif outcome.lapsed_by is None:  # else another has taken note of the crash, or the owner lives
            fields["error"] = str(LeaseLost(outcome.id, outcome.fence))
            log.emit(log.JOB_LEASE_LOST, **naming(job), **fields)

    def _tell(self, report: _Report, outcome: Outcome, *, lost: bool) -> None:
        """Tell listeners what is logged."""
        if not lost:
            tell(self._bus, report.job, outcome, report.event, report.fields.get("duration_ms"))
        elif outcome.lapsed_by is None:
            error = str(LeaseLost(outcome.id, outcome.fence))
            self._bus.tell("lost", **naming(report.job), error=error)
