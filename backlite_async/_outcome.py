"""What follows from an attempt. Pure: the time and the random number are arguments."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ._backoff import delay
from ._clock import after, aware, seconds, to_millis, whole_millis
from ._config import Duration, QueueConfig, Retention
from ._errors import InvalidValue
from ._graph import NewStep
from ._history import CRASH, Note, Trouble
from ._job import ClaimedJob, Complete, JobStatus, Keep, NewJob, Outcome, Place, Reschedule
from ._letters import dead_letter
from ._stats import MINUTE, Tally, bucket
from ._task import task_type

__all__ = [
    "CANCELLED",
    "Discard",
    "Result",
    "Retry",
    "Snooze",
    "Steer",
    "cancelled",
    "conclude",
    "crashed",
    "decide",
    "give_back",
    "kept",
    "last_chance",
    "postpone",
    "refused",
    "succeeded",
    "used_up",
]


CANCELLED = "cancelled"
"""The error of a job that was cancelled."""


class Steer(Exception):
    """The base of what a handler raises to steer its job."""


class Retry(Steer):
    """Run the job again after a wait of its own, as a failed attempt.

    `after`: seconds or timedelta; None: the queue's backoff. Without attempts left the job fails.
    """

    def __init__(self, after: Duration | None = None) -> None:
        super().__init__(after)
        self.after = None if after is None else seconds("Retry.after", after)

    def __str__(self) -> str:
        return "asked to run again" + ("" if self.after is None else f" after {self.after:g} s")


class Snooze(Steer):
    """Run the job again later; this attempt does not count and is no error.

    Give either a duration in seconds or as a timedelta, or `until`, an aware datetime.
    """

    def __init__(self, duration: Duration | None = None, *, until: datetime | None = None) -> None:
        super().__init__(duration, until)
        if (duration is None) == (until is None):
            raise InvalidValue("Snooze takes either a duration or until=, and one of them")
        self.duration = None if duration is None else seconds("Snooze.duration", duration)
        self.until = None if until is None else aware("Snooze.until", until)

    def __str__(self) -> str:
        return "asked to run again later"

    def __reduce__(self) -> tuple[object, ...]:
        return _snooze, (self.duration, self.until)


def _snooze(duration: float | None, until: datetime | None) -> Snooze:
    return Snooze(duration, until=until)


class Discard(Steer):
    """End the job as failed now, whatever attempts remain. `reason` becomes the job's error."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = str(reason)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended.

    `error` None: the handler returned. `steer`: what it raised to steer its job. `stopped`: it
    was cut off because its client stops. `cancelled`: somebody asked to cancel the job, and it did not
    return. `ends_process`: it raised what ends the process,
    which counts as a crash, or a supervisor would restart it without end. `final`: no further
    attempt can help. `traceback`, `late` and `timed_out` are for the log. Times: milliseconds of
    wall time, and microseconds.
    """

    finished_at: int
    started_at: int | None = None
    duration: int | None = None
    error: str | None = None
    steer: Steer | None = None
    stopped: bool = False
    cancelled: bool = False
    final: bool = False
    ends_process: bool = False
    late: bool = False
    timed_out: bool = False
    traceback: str | None = None
    type: str | None = None
    value: str | None = None
    note: Note | None = None
    noted: bool = False
    extends: tuple[NewStep, ...] = ()


def decide(job: ClaimedJob, config: QueueConfig, result: Result, spread: float) -> Outcome:
    """Return what follows from the result of an attempt.

    `spread` is a random number in [0, 1) for the backoff's jitter.
    """
    steer = result.steer
    now = result.finished_at
    if result.cancelled:
        return _complete(job, config, JobStatus.CANCELLED, result)
    if isinstance(steer, Snooze):
        due_at = to_millis(steer.until) if steer.until is not None else after(now, steer.duration or 0.0)
        waits_from = now if steer.until is None else None
        return _again(job, due_at, waits_from, now, attempt=job.attempt - 1, what="snoozed", result=result)
    if result.stopped:
        return msgspec.structs.replace(give_back(job, now), note=result.note)
    if result.ends_process:
        return _ended_process(job, config, result)
    if result.error is None:
        return _complete(job, config, JobStatus.SUCCEEDED, result)
    if result.final or isinstance(steer, Discard) or job.attempt >= job.max_attempts:
        return _complete(job, config, JobStatus.FAILED, result)
    wait = steer.after if isinstance(steer, Retry) else None
    if wait is None:
        wait = delay(config.backoff, job.attempt, spread)
    return _again(job, after(now, wait), now, now, attempt=job.attempt, what="retried", result=result)


def _ended_process(job: ClaimedJob, config: QueueConfig, result: Result) -> Outcome:
    """Return what follows for a job whose handler ends its process: the crash that it is."""
    died = crashed(job, config, result.finished_at, started_at=result.started_at)
    if isinstance(died, Complete):
        beside = died.beside or _said(result)
        return msgspec.structs.replace(died, note=result.note, beside=beside)
    return msgspec.structs.replace(died, note=result.note)


def conclude(job: ClaimedJob, config: QueueConfig, result: Result, spread: float) -> tuple[Outcome, Result]:
    """Decide; where a handler has set attributes of a Retry or Snooze that cannot be, that is its error."""
    try:
        return decide(job, config, result, spread), result
    except Exception as error:
        text = f"{result.error} ({type(error).__name__}: {error})"
        plain = msgspec.structs.replace(result, steer=None, error=text, type=type(error).__qualname__)
        return decide(job, config, plain, spread), plain


def give_back(job: ClaimedJob, now: int) -> Reschedule:
    """Return the outcome of a claim that is given back: as if it had not been made.

    The job keeps its place in the order. It was due when it was claimed, so it is due now,
    also if the wall clock was set back meanwhile.
    """
    return _again(job, min(job.scheduled_at, now), job.waits_from, now, attempt=job.attempt - 1)


def postpone(job: ClaimedJob, now: int, wait: float) -> Reschedule:
    """Return the outcome of a claim that is given back for others to take, and for us only after a wait."""
    return _again(job, after(now, wait), now, now, attempt=job.attempt - 1)


def cancelled(job: ClaimedJob, config: QueueConfig, now: int) -> Complete:
    """Return the outcome of a claim that ends by a cancellation before its handler has started."""
    result = Result(finished_at=now, error=CANCELLED)
    done = _complete(job, config, JobStatus.CANCELLED, result)
    return msgspec.structs.replace(done, attempt=job.attempt - 1)


def crashed(
    job: ClaimedJob,
    config: QueueConfig | None,
    now: int,
    *,
    lapsed_by: int | None = None,
    started_at: int | None = None,
) -> Outcome:
    """Return what follows for a job whose process has died, or looks like it.

    The attempt is given back and the crash is counted instead. At the limit the job has failed;
    where no handler is registered here, so that the limit is not known, at its next claim.
    `lapsed_by`: only its lease says so; if that is renewed meanwhile, nothing follows.
    """
    crashes, attempt = job.crashes + 1, job.attempt - 1
    ends = config is not None and crashes >= config.max_crashes
    of = "" if config is None else f" of at most {config.max_crashes}"
    error = too_many_crashes(crashes) if ends else f"process died (crash {crashes}{of})"
    trouble = Trouble(
        attempt=job.attempt,
        type=CRASH,
        message=error,
        traceback=None,
        started_at=started_at,
        finished_at=now,
        duration=None,
    )
    tally = (job.queue, now - now % MINUTE, "failed" if ends else "crashed", -1, -1)
    if config is None or not ends:
        return msgspec.structs.replace(
            give_back(job, now),
            crashes=crashes,
            error=error,
            lapsed_by=lapsed_by,
            trouble=trouble,
            tally=tally,
        )
    keep = kept(config.retention, JobStatus.FAILED, now)
    counted = msgspec.structs.replace(job, attempt=attempt, crashes=crashes)
    letter, reason = _letter(counted, config, error, now)
    return Complete(
        id=job.id,
        fence=job.fence,
        status=JobStatus.FAILED,
        finished_at=now,
        started_at=started_at,
        duration=None,
        attempt=attempt,
        crashes=crashes,
        error=error + reason,
        keep=keep,
        lapsed_by=lapsed_by,
        frees=_place(job, config, now),
        tally=tally,
        beside=job.tags is not None or job.noted is not None,
        trouble=trouble,
        letter=letter,
        workflow=job.workflow,
        step=job.step,
    )


def too_many_crashes(crashes: int) -> str:
    """Return the error of a job that has reached its limit."""
    return f"process died {crashes} time{'s' * (crashes > 1)} while the job ran"


def used_up(job: ClaimedJob, config: QueueConfig) -> str | None:
    """Return why a claimed job must not run once more; None: it may."""
    if job.crashes >= config.max_crashes:
        return too_many_crashes(job.crashes)
    if job.attempt > job.max_attempts:
        return f"no attempts left of {job.max_attempts}"
    return None


def last_chance(job: ClaimedJob, config: QueueConfig) -> bool:
    """Return whether one more death of its process ends this job, so that it should die alone."""
    return 0 < job.crashes >= config.max_crashes - 1


def succeeded(job: ClaimedJob, config: QueueConfig, result: Result, value: str | None) -> Complete:
    """Return the outcome of an attempt that completes its job itself, with a result of its own."""
    return _complete(job, config, JobStatus.SUCCEEDED, msgspec.structs.replace(result, value=value))


def refused(outcome: Outcome, job: ClaimedJob, config: QueueConfig | None, now: int, reason: str) -> Complete:
    """Return what is stored instead of an outcome that the database refuses: the job has failed.

    Of what else was to be stored with that outcome, only what cannot be what it refuses.
    """
    error = f"its outcome could not be stored: {reason}"[:1000]
    keep = None if config is None else kept(config.retention, JobStatus.FAILED, now)
    counted = msgspec.structs.replace(job, attempt=outcome.attempt, crashes=outcome.crashes)
    letter, missing = (None, "") if config is None else _letter(counted, config, error, now)
    error += missing[:1000]
    trouble = Trouble(
        attempt=job.attempt,
        type="Refused",
        message=error,
        traceback=None,
        started_at=None,
        finished_at=now,
        duration=None,
    )
    return Complete(
        id=outcome.id,
        fence=outcome.fence,
        status=JobStatus.FAILED,
        finished_at=now,
        started_at=None,
        duration=None,
        attempt=outcome.attempt,
        crashes=outcome.crashes,
        error=error,
        keep=keep,
        lapsed_by=outcome.lapsed_by,
        frees=outcome.frees,
        tally=(job.queue, now - now % MINUTE, "failed", -1, -1),
        beside=True,
        trouble=trouble,
        letter=letter,
        workflow=job.workflow,
        step=job.step,
    )


def _place(job: ClaimedJob, config: QueueConfig | None, now: int) -> Place | None:
    """Return what others may wait for that a job leaves; None: nobody does."""
    counted = config is not None and config.global_concurrency is not None
    return Place(job.queue, job.key, now) if counted or job.key is not None else None


def _again(
    job: ClaimedJob,
    due_at: int,
    waits_from: int | None,
    now: int,
    *,
    attempt: int,
    what: str | None = None,
    result: Result | None = None,
) -> Reschedule:
    """Return the outcome of a job that runs again; `what` is counted, and any error kept, of its attempt."""
    error = None if result is None or what != "retried" else result.error
    return Reschedule(
        id=job.id,
        fence=job.fence,
        due_at=due_at,
        waits_from=waits_from,
        attempt=attempt,
        crashes=job.crashes,
        error=error,
        frees=_place(job, None, now),
        tally=None if what is None or result is None else _tally(job, what, result),
        trouble=None if result is None or error is None else _trouble(job, result),
        note=None if result is None else result.note,
    )


def _complete(job: ClaimedJob, config: QueueConfig, status: JobStatus, result: Result) -> Complete:
    now, error = result.finished_at, result.error
    keep = None if config.retention is None else kept(config.retention, status, now)
    letter = None
    if status is JobStatus.FAILED and config.dead_letter is not None:
        letter, reason = _letter(job, config, error or "", now)
        error = (error or "") + reason
    wrong = result.type is not None or status is JobStatus.FAILED
    beside = result.noted or result.note is not None or job.tags is not None or job.noted is not None
    done = Complete(
        id=job.id,
        fence=job.fence,
        status=status,
        finished_at=now,
        started_at=result.started_at,
        duration=result.duration,
        attempt=job.attempt,
        crashes=job.crashes,
        error=error,
        result=result.value,
        keep=keep,
        frees=None if job.key is None and not config.limited else _place(job, config, now),
        tally=_tally(job, status._value_, result),
        beside=beside,
    )
    if job.workflow is None and result.note is None and letter is None and not wrong:
        return done  # of most jobs that is all; to build it with more fields at once takes four times as long
    trouble = _trouble(job, result) if wrong else None
    return msgspec.structs.replace(
        done,
        trouble=trouble,
        note=result.note,
        letter=letter,
        workflow=job.workflow,
        step=job.step,
        extends=result.extends if status is JobStatus.SUCCEEDED else (),
    )


def _tally(job: ClaimedJob, what: str, result: Result) -> Tally:
    """Return what an attempt adds to the statistics of its queue."""
    ended, started, duration = result.finished_at, result.started_at, result.duration
    run = -1 if duration is None else bucket(duration)
    wait = -1 if started is None else bucket(1000 * (started - job.scheduled_at))
    return (job.queue, ended - ended % MINUTE, what, run, wait)


def _trouble(job: ClaimedJob, result: Result) -> Trouble:
    return Trouble(
        attempt=job.attempt,
        type=result.type or "Error",
        message=result.error or "",
        traceback=result.traceback,
        started_at=result.started_at,
        finished_at=result.finished_at,
        duration=result.duration,
    )


def _said(result: Result) -> bool:
    """Return whether an attempt has said anything that is kept beside its job, or is about to be."""
    return result.noted or result.note is not None


def _letter(job: ClaimedJob, config: QueueConfig, error: str, now: int) -> tuple[NewJob | None, str]:
    """Return the dead letter of a job that has failed, or what to add to its error where none can be made."""
    if config.dead_letter is None:
        return None, ""
    letter, reason = dead_letter(task_type(config.dead_letter), job, error, now)
    return letter, f" (no dead letter could be made: {reason})" if reason else ""


def kept(retention: Retention | None, status: JobStatus, now: int) -> Keep | None:
    """Return how a job that completes now is kept; None: not at all."""
    failed = status is not JobStatus.SUCCEEDED
    if retention is None or (retention.only_failed and not failed):
        return None
    until = None
    if retention.duration is not None:
        until = now + whole_millis(seconds("duration", retention.duration))
    payload = retention.payload == "always" or (retention.payload == "failed" and failed)
    return Keep(until=until, payload=payload)
