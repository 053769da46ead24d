"""What follows from an attempt. Pure: the time and the random number are arguments."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ._backoff import delay
from ._clock import after, aware, seconds, to_millis, whole_millis
from ._config import Duration, QueueConfig, Retention
from ._errors import InvalidValue
from ._job import ClaimedJob, Complete, JobStatus, Keep, Outcome, Place, Reschedule

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


def decide(job: ClaimedJob, config: QueueConfig, result: Result, spread: float) -> Outcome:
    """Return what follows from the result of an attempt.

    `spread` is a random number in [0, 1) for the backoff's jitter.
    """
    steer = result.steer
    now = result.finished_at
    if result.cancelled:
        return _complete(job, config, JobStatus.CANCELLED, result)
    if isinstance(steer, Snooze):
        if steer.until is not None:
            return _again(job, to_millis(steer.until), None, now, attempt=job.attempt - 1)
        return _again(job, after(now, steer.duration or 0.0), now, now, attempt=job.attempt - 1)
    if result.stopped:
        return give_back(job, now)
    if result.ends_process:
        return crashed(job, config, now)
    if result.error is None:
        return _complete(job, config, JobStatus.SUCCEEDED, result)
    if result.final or isinstance(steer, Discard) or job.attempt >= job.max_attempts:
        return _complete(job, config, JobStatus.FAILED, result)
    wait = steer.after if isinstance(steer, Retry) else None
    if wait is None:
        wait = delay(config.backoff, job.attempt, spread)
    return _again(job, after(now, wait), now, now, attempt=job.attempt, error=result.error)


def conclude(job: ClaimedJob, config: QueueConfig, result: Result, spread: float) -> tuple[Outcome, Result]:
    """Decide; where a handler has set attributes of a Retry or Snooze that cannot be, that is its error."""
    try:
        return decide(job, config, result, spread), result
    except Exception as error:
        text = f"{result.error} ({type(error).__name__}: {error})"
        plain = msgspec.structs.replace(result, steer=None, error=text)
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
    job: ClaimedJob, config: QueueConfig | None, now: int, *, lapsed_by: int | None = None
) -> Outcome:
    """Return what follows for a job whose process has died, or looks like it.

    The attempt is given back and the crash is counted instead. At the limit the job has failed;
    where no handler is registered here, so that the limit is not known, at its next claim.
    `lapsed_by`: only its lease says so; if that is renewed meanwhile, nothing follows.
    """
    crashes, attempt = job.crashes + 1, job.attempt - 1
    if config is None or crashes < config.max_crashes:
        of = "" if config is None else f" of at most {config.max_crashes}"
        again = give_back(job, now)
        return msgspec.structs.replace(
            again, crashes=crashes, error=f"process died (crash {crashes}{of})", lapsed_by=lapsed_by
        )
    return Complete(
        id=job.id,
        fence=job.fence,
        status=JobStatus.FAILED,
        finished_at=now,
        started_at=None,
        duration=None,
        attempt=attempt,
        crashes=crashes,
        error=too_many_crashes(crashes),
        keep=kept(config.retention, JobStatus.FAILED, now),
        lapsed_by=lapsed_by,
        frees=_place(job, config, now),
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
    done = _complete(job, config, JobStatus.SUCCEEDED, result)
    return msgspec.structs.replace(done, result=value)


def refused(outcome: Outcome, config: QueueConfig | None, now: int, reason: str) -> Complete:
    """Return what is stored instead of an outcome that the database refuses: the job has failed."""
    return Complete(
        id=outcome.id,
        fence=outcome.fence,
        status=JobStatus.FAILED,
        finished_at=now,
        started_at=None,
        duration=None,
        attempt=outcome.attempt,
        crashes=outcome.crashes,
        error=f"its outcome could not be stored: {reason}"[:1000],
        keep=None if config is None else kept(config.retention, JobStatus.FAILED, now),
        lapsed_by=outcome.lapsed_by,
        frees=outcome.frees,
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
    error: str | None = None,
) -> Reschedule:
    return Reschedule(
        id=job.id,
        fence=job.fence,
        due_at=due_at,
        waits_from=waits_from,
        attempt=attempt,
        crashes=job.crashes,
        error=error,
        frees=_place(job, None, now),
    )


def _complete(job: ClaimedJob, config: QueueConfig, status: JobStatus, result: Result) -> Complete:
    return Complete(
        id=job.id,
        fence=job.fence,
        status=status,
        finished_at=result.finished_at,
        started_at=result.started_at,
        duration=result.duration,
        attempt=job.attempt,
        crashes=job.crashes,
        error=result.error,
        keep=kept(config.retention, status, result.finished_at),
        frees=None if job.key is None and not config.limited else _place(job, config, result.finished_at),
    )


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
