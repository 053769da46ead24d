"""How a job is shown to a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from .. import Job, JobStatus
from ._output import Output, ago, duration, instant, state

__all__ = ["JOB_COLUMNS", "JOB_DROP", "MOST_BYTES", "job_row", "json_text", "percent", "show_job"]

JOB_COLUMNS = ("id", "state", "queue", "task", ">attempt", "when", ">took", "what")
JOB_DROP = ("what", ">took", ">attempt", "task", "queue")
MOST_BYTES = 65_536
"""Bytes of a payload or result that a person is shown."""


def percent(fraction: float | None) -> str:
    """Return a progress in per cent."""
    return "" if fraction is None else f"{fraction:.0%}"


def job_row(job: Job, now: datetime) -> Sequence[str]:
    """Return a job as a line of a list."""
    return (
        job.id,
        state(str(job.status)),
        job.queue,
        job.task,
        f"{job.attempt}/{job.max_attempts}",
        _when(job, now),
        duration(job.duration),
        _what(job),
    )


def _when(job: Job, now: datetime) -> str:
    """Return when what happened last, or will happen next."""
    if job.status is JobStatus.PENDING:
        return f"due {ago(job.due_at, now)}"
    if job.status is JobStatus.RUNNING:
        return f"since {duration(now - (job.started_at or now))}"
    return ago(job.finished_at, now)


def _what(job: Job) -> str:
    """Return the most telling text, short: an error, progress, or the payload."""
    if job.error is not None and job.status is not JobStatus.SUCCEEDED:
        text = job.error
    elif job.status is JobStatus.RUNNING and job.progress is not None:
        text = f"{percent(job.progress)} {job.progress_message or ''}"
    else:
        text = (job.payload or b"")[:200].decode(errors="replace")
    first = next(iter(text.splitlines()), "")
    return first if len(first) <= 100 else f"{first[:99]}…"


def json_text(raw: bytes | None) -> str:
    """Return JSON on several lines, cut where it is long."""
    if raw is None:
        return ""
    if len(raw) > MOST_BYTES:
        return f"{raw[:MOST_BYTES].decode(errors='replace')}…\n(it is longer; --json has all)"
    try:
        return msgspec.json.format(raw, indent=2).decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return raw.decode(errors="replace")


def show_job(out: Output, job: Job) -> None:
    """Write all that is known of a job."""
    out.pairs([*_identity(job), *_times(job, datetime.now(UTC)), *_more(job)])
    for name, raw in (("payload", job.payload), ("result", job.result)):
        if raw is not None:
            out.heading(name)
            out.text(json_text(raw))
    for error in job.errors:
        out.heading(f"attempt {error.attempt} went wrong {instant(error.finished_at)}: {error.type}")
        out.text(error.traceback or error.message)
        if error.traceback and error.message not in error.traceback:
            out.text(error.message)
    if job.lines:
        out.heading("log")
        for line in job.lines:
            out.text(f"{instant(line.at)} {line.attempt} {line.level}: {line.text}")


def _identity(job: Job) -> Iterator[tuple[str, str]]:
    yield "id", job.id
    yield "state", state(str(job.status))
    yield "queue", job.queue
    yield "task", job.task
    yield "attempt", f"{job.attempt} of {job.max_attempts}" + (f", {job.crashes} crashes" * (job.crashes > 0))
    yield "priority", str(job.priority or "")


def _times(job: Job, now: datetime) -> Iterator[tuple[str, str]]:
    times = {"added": job.created_at, "due": job.due_at, "started": job.started_at}
    times |= {"finished": job.finished_at, "kept until": job.expires_at, "cancelled": job.cancelled_at}
    for name, at in times.items():
        if at is not None:
            yield name, f"{instant(at)} ({ago(at, now)})"
    yield "took", duration(job.duration)


def _more(job: Job) -> Iterator[tuple[str, str]]:
    yield "owner", job.owner or ""
    yield "key", job.key or ""
    yield "unique", job.unique or ""
    yield "timeout", "" if job.timeout is None else duration(job.timeout)
    yield "parent", job.parent or ""
    yield "workflow", job.workflow or ""
    yield "tags", ", ".join(job.tags)
    yield "meta", msgspec.json.encode(job.meta).decode() if job.meta else ""
    yield "progress", f"{percent(job.progress)} {job.progress_message or ''}".strip()
    yield "error", job.error or ""
