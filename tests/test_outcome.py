"""What follows from an attempt: attempts and crashes are bounded, and retention is a table."""

from __future__ import annotations

import copy
import itertools
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async import (
    Backoff,
    Discard,
    InvalidType,
    InvalidValue,
    JobStatus,
    QueueConfig,
    Retention,
    Retry,
    Snooze,
)
from backlite_async._clock import from_millis
from backlite_async._graph import NewStep
from backlite_async._history import Line, Note, Trouble
from backlite_async._job import ClaimedJob, Complete, Keep, Outcome, Reschedule
from backlite_async._outcome import (
    Result,
    Steer,
    cancelled,
    conclude,
    crashed,
    decide,
    give_back,
    last_chance,
    postpone,
    refused,
    succeeded,
    used_up,
)
from backlite_async._stats import MINUTE, Tally, bucket

NOW = 1_700_000_000_000
SUCCEEDED, FAILED = JobStatus.SUCCEEDED, JobStatus.FAILED


def claimed(
    *,
    attempt: int = 1,
    max_attempts: int = 3,
    crashes: int = 0,
    scheduled_at: int = NOW - 5000,
    tags: str | None = None,
    noted: int | None = None,
) -> ClaimedJob:
    return ClaimedJob(
        id="j1",
        queue="mail",
        task="SendEmail",
        payload="{}",
        attempt=attempt,
        max_attempts=max_attempts,
        crashes=crashes,
        fence=42,
        created_at=NOW - 9000,
        scheduled_at=scheduled_at,
        waits_from=NOW - 9000,
        tags=tags,
        noted=noted,
    )


def queue(
    *, backoff: Backoff | float = 7.0, max_crashes: int = 3, retention: Retention | None = None
) -> QueueConfig:
    return QueueConfig("mail", backoff=backoff, max_crashes=max_crashes, retention=retention)


def ended(**values: Any) -> Result:
    return Result(**({"finished_at": NOW, "started_at": NOW - 100, "duration": 99_500} | values))


def failed(**values: Any) -> Result:
    return ended(**({"error": "ValueError: no", "type": "ValueError", "traceback": "line 1"} | values))


def tally(what: str) -> Tally:
    """What such an attempt of such a job adds to the statistics: it ran 99.5 ms, and had waited 4.9 s."""
    return ("mail", NOW - NOW % MINUTE, what, bucket(99_500), bucket(4_900_000))


def trouble(attempt: int, **values: Any) -> Trouble:
    """What is kept of such an error."""
    fields: dict[str, Any] = {
        "attempt": attempt, "type": "ValueError", "message": "ValueError: no", "traceback": "line 1",
        "started_at": NOW - 100, "finished_at": NOW, "duration": 99_500,
    }  # fmt: skip
    return Trouble(**(fields | values))


attempts = st.integers(1, 20)
limits = st.integers(1, 20)
spreads = st.floats(0, 1, exclude_max=True)
times = st.integers(0, 4_000_000_000_000)
steers = st.one_of(
    st.none(),
    st.builds(Retry, st.none() | st.floats(0, 1e6)),
    st.builds(Snooze, st.floats(0, 1e6)),
    st.builds(lambda millis: Snooze(until=from_millis(millis)), times),
    st.builds(Discard, st.text()),
)
jobs = st.builds(
    ClaimedJob,
    id=st.text(),
    queue=st.text(),
    task=st.text(),
    payload=st.binary(),
    attempt=attempts,
    max_attempts=limits,
    crashes=st.integers(0, 5),
    fence=st.integers(1),
    created_at=times,
    scheduled_at=times,
)
retentions = st.none() | st.builds(
    Retention,
    duration=st.none() | st.floats(0, 1e6),
    only_failed=st.booleans(),
    payload=st.sampled_from(["never", "failed", "always"]),
)
queues = st.builds(
    QueueConfig,
    st.just("mail"),
    max_crashes=st.integers(1, 5),
    backoff=st.floats(0, 1e6) | st.just(Backoff()),
    retention=retentions,
)
results = st.builds(
    Result,
    finished_at=times,
    started_at=st.none() | times,
    duration=st.none() | st.integers(0, 10**12),
    error=st.none() | st.text(),
    stopped=st.booleans(),
    final=st.booleans(),
    late=st.booleans(),
    timed_out=st.booleans(),
) | st.builds(Result, finished_at=times, error=st.text(), steer=steers)


# -- properties of every decision -----------------------------------------------------------------


@given(jobs, queues, results, spreads)
def test_every_outcome_names_the_claim(
    job: ClaimedJob, config: QueueConfig, result: Result, spread: float
) -> None:
    """Whatever follows carries the job's id and fence, and leaves its crashes."""
    outcome = decide(job, config, result, spread)
    assert (outcome.id, outcome.fence, outcome.crashes) == (job.id, job.fence, job.crashes)
    assert outcome.lapsed_by is None


@given(jobs, queues, results, spreads)
def test_attempts_are_bounded(job: ClaimedJob, config: QueueConfig, result: Result, spread: float) -> None:
    """A job runs again only while it has attempts left, or if this one does not count."""
    outcome = decide(job, config, result, spread)
    if isinstance(outcome, Reschedule):
        assert outcome.attempt < job.max_attempts or outcome.attempt == job.attempt - 1
        assert outcome.attempt in (job.attempt, job.attempt - 1)
    else:
        assert outcome.attempt == job.attempt


@given(jobs, queues, results, spreads)
def test_a_decision_depends_on_its_arguments_only(
    job: ClaimedJob, config: QueueConfig, result: Result, spread: float
) -> None:
    """The same result of the same attempt is decided the same way twice."""
    assert decide(job, config, result, spread) == decide(job, config, result, spread)


@given(jobs, queues, results, spreads)
def test_a_retry_is_never_due_before_the_attempt_ended(
    job: ClaimedJob, config: QueueConfig, result: Result, spread: float
) -> None:
    """What failed and runs again is due at its end or later."""
    outcome = decide(job, config, result, spread)
    if isinstance(outcome, Reschedule) and outcome.attempt == job.attempt:
        assert outcome.due_at >= result.finished_at
        assert outcome.error == result.error


@given(limits, queues, st.lists(spreads, min_size=20, max_size=20))
def test_a_job_that_always_fails_ends_after_its_attempts(
    limit: int, config: QueueConfig, chances: list[float]
) -> None:
    """Failing over and over ends as failed after exactly `max_attempts` runs."""
    for number, chance in zip(itertools.count(1), chances, strict=False):
        outcome = decide(claimed(attempt=number, max_attempts=limit), config, failed(), chance)
        if isinstance(outcome, Complete):
            break
    assert number == limit
    assert isinstance(outcome, Complete)
    assert outcome.status is FAILED


# -- the cases ------------------------------------------------------------------------------------


def test_a_return_completes_the_job() -> None:
    """A handler that returns has succeeded; its times are recorded."""
    assert decide(claimed(attempt=2, crashes=1), queue(), ended(), 0.5) == Complete(
        id="j1",
        fence=42,
        status=SUCCEEDED,
        finished_at=NOW,
        started_at=NOW - 100,
        duration=99_500,
        attempt=2,
        crashes=1,
        tally=tally("succeeded"),
    )


def test_an_error_is_retried_after_the_backoff() -> None:
    """A failed attempt runs again after the queue's wait, never early, with its error kept."""
    outcome = decide(claimed(attempt=1), queue(backoff=7.0), failed(), 0.5)
    assert outcome == Reschedule(
        id="j1",
        fence=42,
        due_at=NOW + 7001,
        waits_from=NOW,
        attempt=1,
        crashes=0,
        error="ValueError: no",
        tally=tally("retried"),
        trouble=trouble(1),
    )


def test_the_backoff_grows_and_uses_the_random_number() -> None:
    """The attempt's number and the random number reach the backoff."""
    config = queue(backoff=Backoff(base=10, jitter=0.1))

    def wait(attempt: int, spread: float) -> int:
        outcome = decide(claimed(attempt=attempt, max_attempts=9), config, failed(), spread)
        assert isinstance(outcome, Reschedule)
        return outcome.due_at - NOW - 1

    assert [wait(1, 0.5), wait(2, 0.5), wait(3, 0.5), wait(1, 0.0)] == [10_000, 20_000, 40_000, 9_000]


def test_the_last_attempt_fails_the_job() -> None:
    """Without attempts left an error is the end, and the job's error."""
    outcome = decide(claimed(attempt=3, max_attempts=3), queue(), failed(), 0.5)
    assert outcome == Complete(
        id="j1",
        fence=42,
        status=FAILED,
        finished_at=NOW,
        started_at=NOW - 100,
        duration=99_500,
        attempt=3,
        crashes=0,
        error="ValueError: no",
        tally=tally("failed"),
        trouble=trouble(3),
    )


@pytest.mark.parametrize("attempt", [3, 4, 100])
def test_attempts_beyond_the_limit_fail_too(attempt: int) -> None:
    """A job whose limit was lowered below its attempts is not tried for ever."""
    outcome = decide(claimed(attempt=attempt, max_attempts=3), queue(), failed(), 0.5)
    assert isinstance(outcome, Complete)


@pytest.mark.parametrize(("after", "due"), [(0, 0), (2, 2001), (timedelta(minutes=1), 60_001), (None, 7001)])
def test_retry_waits_as_long_as_it_says(after: Any, due: int) -> None:
    """Retry replaces the backoff's wait, or without one uses it; it counts as an attempt."""
    outcome = decide(claimed(attempt=2), queue(backoff=7.0), failed(steer=Retry(after)), 0.5)
    assert outcome == Reschedule(
        id="j1",
        fence=42,
        due_at=NOW + due,
        waits_from=NOW,
        attempt=2,
        crashes=0,
        error="ValueError: no",
        tally=tally("retried"),
        trouble=trouble(2),
    )


def test_retry_without_attempts_left_fails() -> None:
    """Retry cannot get more attempts than there are."""
    outcome = decide(claimed(attempt=3), queue(), failed(steer=Retry(after=1)), 0.5)
    assert isinstance(outcome, Complete)
    assert outcome.status is FAILED


def test_discard_fails_whatever_attempts_remain() -> None:
    """Discard is the end, at the first attempt too."""
    outcome = decide(claimed(attempt=1), queue(), failed(steer=Discard("gone"), error="gone"), 0.5)
    assert isinstance(outcome, Complete)
    assert (outcome.status, outcome.error, outcome.attempt) == (FAILED, "gone", 1)


def test_final_fails_whatever_attempts_remain() -> None:
    """What no further attempt can help, like a payload that does not decode, is the end."""
    outcome = decide(claimed(attempt=1), queue(), failed(final=True), 0.5)
    assert isinstance(outcome, Complete)
    assert outcome.status is FAILED


@pytest.mark.parametrize("attempt", [1, 2, 3, 9])
@pytest.mark.parametrize("error", ["", "Snooze: 5"])
def test_snooze_gives_the_attempt_back_and_is_no_error(attempt: int, error: str) -> None:
    """A snooze runs again with the same number, also at the last attempt, and records no error."""
    outcome = decide(claimed(attempt=attempt), queue(), failed(steer=Snooze(5), error=error), 0.5)
    assert outcome == Reschedule(
        id="j1",
        fence=42,
        due_at=NOW + 5001,
        waits_from=NOW,
        attempt=attempt - 1,
        crashes=0,
        tally=tally("snoozed"),
    )


@pytest.mark.parametrize(
    ("snooze", "due"),
    [
        (Snooze(0), NOW),
        (Snooze(timedelta(hours=1)), NOW + 3_600_001),
        (Snooze(until=from_millis(NOW + 77)), NOW + 77),
        (Snooze(until=from_millis(NOW) + timedelta(microseconds=1)), NOW + 1),
        (Snooze(until=from_millis(NOW - 77)), NOW - 77),
    ],
)
def test_snooze_wakes_when_it_says(snooze: Snooze, due: int) -> None:
    """A snooze takes a duration or an instant, and is never early."""
    outcome = decide(claimed(), queue(), failed(steer=snooze), 0.5)
    assert isinstance(outcome, Reschedule)
    assert outcome.due_at == due
    assert outcome.waits_from == (None if snooze.until else NOW)


def test_a_snooze_counts_also_when_the_client_stops() -> None:
    """What the handler asked for while it was being stopped is done."""
    outcome = decide(claimed(), queue(), failed(steer=Snooze(5), stopped=True), 0.5)
    assert isinstance(outcome, Reschedule)
    assert outcome.due_at == NOW + 5001


@pytest.mark.parametrize("attempt", [1, 3])
@pytest.mark.parametrize("error", [None, "", "CancelledError"])
def test_a_stopped_attempt_goes_back_as_if_not_claimed(attempt: int, error: str | None) -> None:
    """A deploy does not cost an attempt: pending, due when it was, uncounted, without error."""
    job = claimed(attempt=attempt)
    outcome = decide(job, queue(), ended(stopped=True, error=error), 0.5)
    assert outcome == give_back(job, NOW)
    assert outcome == Reschedule(
        id="j1",
        fence=42,
        due_at=job.scheduled_at,
        waits_from=job.waits_from,
        attempt=attempt - 1,
        crashes=0,
    )


def test_a_late_return_counts() -> None:
    """A handler that returns after its timeout has succeeded all the same."""
    outcome = decide(claimed(), queue(), ended(late=True), 0.5)
    assert isinstance(outcome, Complete)
    assert outcome.status is SUCCEEDED


def test_a_timeout_is_a_failed_attempt() -> None:
    """A timeout is retried like any error."""
    outcome = decide(claimed(), queue(), failed(timed_out=True), 0.5)
    assert isinstance(outcome, Reschedule)
    assert outcome.attempt == 1


def test_an_error_without_a_message_is_an_error() -> None:
    """The empty text is an error; only None is success."""
    assert isinstance(decide(claimed(), queue(), ended(error=""), 0.5), Reschedule)


@given(jobs, times)
def test_give_back_restores_what_the_claim_took(job: ClaimedJob, now: int) -> None:
    """The attempt is uncounted, the time the one the job was meant for, but never later than now."""
    assert give_back(job, now) == Reschedule(
        id=job.id,
        fence=job.fence,
        due_at=min(job.scheduled_at, now),
        waits_from=job.waits_from,
        attempt=job.attempt - 1,
        crashes=job.crashes,
    )


@given(jobs, times)
def test_what_is_postponed_comes_back_after_a_wait_uncounted(job: ClaimedJob, now: int) -> None:
    """Postponing gives back too, but for a time of its own."""
    assert postpone(job, now, 5.0) == Reschedule(
        id=job.id,
        fence=job.fence,
        due_at=now + 5001,
        waits_from=now,
        attempt=job.attempt - 1,
        crashes=job.crashes,
    )


def test_a_handler_that_completes_its_job_itself_has_succeeded() -> None:
    """The completion inside a transaction is that of a return, with a result."""
    outcome = succeeded(claimed(attempt=2), queue(), ended(), '{"n":1}')
    assert (outcome.status, outcome.attempt, outcome.result) == (SUCCEEDED, 2, '{"n":1}')
    assert (outcome.started_at, outcome.duration) == (NOW - 100, 99_500)
    assert succeeded(claimed(), queue(), ended(), None) == decide(claimed(), queue(), ended(), 0.5)


def test_what_cannot_be_stored_fails_also_without_a_handler() -> None:
    """Whoever writes the outcome may not know the queue."""
    again = give_back(claimed(), NOW)
    failed_job = refused(again, claimed(), None, NOW, "too large")
    assert (failed_job.status, failed_job.keep) == (FAILED, None)
    assert failed_job.trouble == Trouble(
        attempt=1,
        type="Refused",
        message="its outcome could not be stored: too large",
        traceback=None,
        started_at=None,
        finished_at=NOW,
        duration=None,
    )
    assert failed_job.error == "its outcome could not be stored: too large"
    assert failed_job.tally == ("mail", NOW - NOW % MINUTE, "failed", -1, -1)


def test_what_cannot_be_stored_takes_nothing_along_that_may_be_why() -> None:
    """Of the attempt's own words nothing is stored, nor of its result; what is beside the job is removed."""
    note = Note(id="j1", fence=42, attempt=1, message="x" * 9999)
    unstored = decide(claimed(), queue(retention=Retention()), ended(value="1", note=note), 0.5)
    outcome = refused(unstored, claimed(), queue(retention=Retention()), NOW, "too large" * 999)
    assert (outcome.note, outcome.result, outcome.beside) == (None, None, True)
    assert outcome.error is not None
    assert len(outcome.error) == 1000
    assert outcome.trouble == trouble(
        1, type="Refused", message=outcome.error, traceback=None, started_at=None, duration=None
    )


# -- statistics, errors, notes --------------------------------------------------------------------


@given(jobs, queues, results, spreads)
def test_an_attempt_is_counted_once(
    job: ClaimedJob, config: QueueConfig, result: Result, spread: float
) -> None:
    """Each attempt counts as what it was, in the minute of its end; one that is given back as nothing."""
    outcome = decide(job, config, result, spread)
    if isinstance(outcome, Complete):
        what = outcome.status.value
    elif isinstance(result.steer, Snooze):
        what = "snoozed"
    elif result.stopped:
        assert outcome.tally is None
        return
    else:
        what = "retried"
    assert outcome.tally is not None
    counted_in, minute, counted, run, _ = outcome.tally
    assert (counted_in, counted) == (job.queue, what)
    assert minute % MINUTE == 0
    assert 0 <= result.finished_at - minute < MINUTE
    assert run == (-1 if result.duration is None else bucket(result.duration))


@pytest.mark.parametrize(
    ("scheduled_at", "started_at", "wait"),
    [
        (NOW - 5000, NOW - 100, bucket(4_900_000)),
        (NOW - 100, NOW - 100, 0),
        (NOW + 3_600_000, NOW - 100, 0),  # the wall clock was set back meanwhile
        (NOW - 5000, None, -1),
    ],
)
def test_a_wait_is_counted_from_when_a_job_was_due(
    scheduled_at: int, started_at: int | None, wait: int
) -> None:
    """Up to its first line, with the time that it was held ahead; never negative; none without a start."""
    outcome = decide(claimed(scheduled_at=scheduled_at), queue(), ended(started_at=started_at), 0.5)
    assert outcome.tally is not None
    assert outcome.tally[4] == wait


def test_what_is_given_back_is_not_counted() -> None:
    """A stop, a claim ahead and what is postponed leave no trace in the statistics."""
    assert give_back(claimed(), NOW).tally is None
    assert postpone(claimed(), NOW, 5.0).tally is None


def test_a_cancellation_before_the_start_is_counted_without_times() -> None:
    """It has neither run nor waited for a start; its attempt does not count."""
    outcome = cancelled(claimed(), queue(retention=Retention()), NOW)
    assert outcome.tally == ("mail", NOW - NOW % MINUTE, "cancelled", -1, -1)
    assert (outcome.attempt, outcome.trouble) == (0, None)


KEPT = queue(retention=Retention(), max_crashes=2)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (failed(), trouble(3)),
        (failed(type=None, traceback=None), trouble(3, type="Error", traceback=None)),
        (
            failed(steer=Discard("gone"), error="gone", type="Discard"),
            trouble(3, type="Discard", message="gone"),
        ),
        (failed(cancelled=True), trouble(3)),
        (ended(cancelled=True, error="cancelled"), None),
        (ended(), None),
        (failed(steer=Snooze(5)), None),
        (failed(stopped=True), None),
    ],
)
def test_what_went_wrong_is_kept_with_a_job_that_is_kept(result: Result, expected: Trouble | None) -> None:
    """An attempt that failed has its error kept; one that was cut off or asked for another time has none."""
    assert decide(claimed(attempt=3), KEPT, result, 0.5).trouble == expected


def test_what_went_wrong_is_told_of_a_job_that_is_not_kept() -> None:
    """Somebody may wait for it, and then it is kept for a while: only the store knows."""
    assert decide(claimed(attempt=3), queue(), failed(), 0.5).trouble == trouble(3)
    assert crashed(claimed(), queue(max_crashes=1), NOW).trouble is not None


def test_a_crash_is_kept_and_counted() -> None:
    """A crash that is not the last is an error of an attempt that goes on; the last one fails the job."""
    again = crashed(claimed(attempt=2), KEPT, NOW)
    assert again.tally == ("mail", NOW - NOW % MINUTE, "crashed", -1, -1)
    last = crashed(claimed(attempt=2, crashes=1), KEPT, NOW)
    assert last.tally == ("mail", NOW - NOW % MINUTE, "failed", -1, -1)
    for outcome in (again, last, crashed(claimed(attempt=2), None, NOW)):
        assert outcome.error is not None
        assert outcome.trouble == trouble(
            2, type="crash", message=outcome.error, traceback=None, started_at=None, duration=None
        )
    unknown = crashed(claimed(attempt=2), None, NOW)
    assert unknown.tally == again.tally


NOTE = Note(id="j1", fence=42, attempt=1, progress=0.5, lines=(Line(0, NOW, "info", "half"),))


@pytest.mark.parametrize(
    "result",
    [
        ended(), failed(), failed(steer=Snooze(5)), failed(stopped=True), failed(cancelled=True),
        failed(final=True), failed(ends_process=True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("config", [queue(), queue(retention=Retention(), max_crashes=1)])
def test_what_an_attempt_has_said_goes_with_its_outcome(result: Result, config: QueueConfig) -> None:
    """However it ends; where the job is not kept, its lines are known to be beside it, to be removed."""
    outcome = decide(claimed(), config, msgspec.structs.replace(result, note=NOTE), 0.5)
    assert outcome.note == NOTE
    if isinstance(outcome, Complete):
        assert outcome.beside
        outcome = decide(claimed(), config, msgspec.structs.replace(result, noted=True), 0.5)
        assert isinstance(outcome, Complete)
        assert outcome.beside


@pytest.mark.parametrize(("values", "beside"), [({}, False), ({"tags": '["a"]'}, True), ({"noted": 1}, True)])
def test_what_is_beside_a_job_is_known(values: dict[str, Any], beside: bool) -> None:
    """A plain job costs nothing; one with tags, or notes of earlier attempts, leaves nothing behind."""
    job = claimed(**values)
    for outcome in (
        decide(job, queue(), ended(), 0.5),
        succeeded(job, queue(), ended(), "1"),
        cancelled(job, queue(), NOW),
        crashed(job, queue(max_crashes=1), NOW),
    ):
        assert isinstance(outcome, Complete)
        assert outcome.beside is beside


def test_an_error_of_what_steers_is_kept_with_its_own_name() -> None:
    """Where a Retry cannot be, the error says so, and is of the kind that kept it from being."""
    steer = Retry(after=1)
    steer.after = "soon"  # type: ignore[assignment]
    outcome, result = conclude(claimed(), queue(), failed(steer=steer, error="Retry", type="Retry"), 0.5)
    assert outcome.trouble is not None
    assert (outcome.trouble.type, result.type) == ("TypeError", "TypeError")
    assert outcome.trouble.message == outcome.error == result.error
    assert outcome.trouble.message.startswith("Retry (TypeError: ")


# -- crashes --------------------------------------------------------------------------------------


@given(jobs, queues, times)
def test_a_crash_is_counted_instead_of_the_attempt(job: ClaimedJob, config: QueueConfig, now: int) -> None:
    """The attempt is given back, the crash counted, and the write is conditional on the lease."""
    for lapsed_by in (None, now):
        outcome = crashed(job, config, now, lapsed_by=lapsed_by)
        assert (outcome.id, outcome.fence) == (job.id, job.fence)
        assert (outcome.attempt, outcome.crashes) == (job.attempt - 1, job.crashes + 1)
        assert outcome.lapsed_by == lapsed_by
        assert outcome.error
        assert outcome.error.startswith("process died")


@given(jobs, times)
def test_a_crash_is_counted_also_where_the_limit_is_not_known(job: ClaimedJob, now: int) -> None:
    """Without a handler here the job goes back with its crash, and is refused at its next claim."""
    outcome = crashed(job, None, now)
    assert isinstance(outcome, Reschedule)
    assert (outcome.attempt, outcome.crashes) == (job.attempt - 1, job.crashes + 1)
    assert outcome.error == f"process died (crash {job.crashes + 1})"


@pytest.mark.parametrize(
    ("crashes", "attempt", "reason"),
    [
        (0, 1, None),
        (0, 3, None),
        (2, 3, None),
        (3, 1, "process died 3 times while the job ran"),
        (9, 1, "process died 9 times while the job ran"),
        (0, 4, "no attempts left of 3"),
    ],
)
def test_the_claim_is_where_limits_hold(crashes: int, attempt: int, reason: str | None) -> None:
    """What has no attempts or crashes left does not run, whoever gave it back."""
    assert used_up(claimed(crashes=crashes, attempt=attempt), queue(max_crashes=3)) == reason


@pytest.mark.parametrize(
    ("crashes", "limit", "alone"),
    [(0, 1, False), (0, 2, False), (1, 2, True), (1, 3, False), (2, 3, True), (5, 3, True), (0, 3, False)],
)
def test_a_job_one_crash_short_of_its_limit_has_a_last_chance(crashes: int, limit: int, alone: bool) -> None:
    """A job that never crashed is not suspected, even where one crash ends it."""
    assert last_chance(claimed(crashes=crashes), queue(max_crashes=limit)) is alone


@given(jobs, queues, times)
def test_crashes_are_bounded(job: ClaimedJob, config: QueueConfig, now: int) -> None:
    """A job runs again only below the limit; at it, or above it, the job has failed."""
    outcome = crashed(job, config, now)
    if job.crashes + 1 < config.max_crashes:
        assert isinstance(outcome, Reschedule)
        assert outcome.due_at == min(job.scheduled_at, now)
    else:
        assert isinstance(outcome, Complete)
        assert (outcome.status, outcome.finished_at) == (FAILED, now)
        assert (outcome.started_at, outcome.duration) == (None, None)


@given(st.integers(1, 10))
def test_a_job_that_kills_its_process_ends_after_its_crashes(limit: int) -> None:
    """Crashing over and over ends as failed after exactly `max_crashes` deaths, which it tells."""
    config, crashes = queue(max_crashes=limit), 0
    outcome: Outcome | None = None
    deaths = 0
    while not isinstance(outcome, Complete):
        outcome = crashed(claimed(crashes=crashes), config, NOW)
        crashes, deaths = outcome.crashes, deaths + 1
        assert deaths <= limit
    assert deaths == limit
    assert outcome.error == f"process died {limit} time{'s' * (limit > 1)} while the job ran"


def test_the_error_of_a_crash_says_which() -> None:
    """A crash that is not the last one says how many there were and may be."""
    assert crashed(claimed(crashes=1), queue(max_crashes=5), NOW).error == (
        "process died (crash 2 of at most 5)"
    )


# -- retention ------------------------------------------------------------------------------------

Payload = Literal["never", "failed", "always"]

ENDS: dict[str, JobStatus] = {
    "returned": SUCCEEDED,
    "failed": FAILED,
    "discarded": FAILED,
    "undecodable": FAILED,
    "crashed": FAILED,
}

KEEPS_PAYLOAD: dict[tuple[Payload, JobStatus], bool] = {
    ("never", SUCCEEDED): False,
    ("never", FAILED): False,
    ("failed", SUCCEEDED): False,
    ("failed", FAILED): True,
    ("always", SUCCEEDED): True,
    ("always", FAILED): True,
}


def kept(end: str, retention: Retention | None) -> Keep | None:
    config = queue(retention=retention, max_crashes=1)
    outcomes: dict[str, Outcome] = {
        "returned": decide(claimed(), config, ended(), 0.5),
        "failed": decide(claimed(attempt=3), config, failed(), 0.5),
        "discarded": decide(claimed(), config, failed(steer=Discard()), 0.5),
        "undecodable": decide(claimed(), config, failed(final=True), 0.5),
        "crashed": crashed(claimed(), config, NOW),
    }
    outcome = outcomes[end]
    assert isinstance(outcome, Complete)
    assert outcome.status is ENDS[end]
    return outcome.keep


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("payload", ["never", "failed", "always"])
@pytest.mark.parametrize("only_failed", [False, True])
@pytest.mark.parametrize(
    ("duration", "until"),
    [
        (None, None),
        (0, NOW),
        (60, NOW + 60_000),
        (0.0015, NOW + 2),
        (timedelta(hours=6), NOW + 21_600_000),
    ],
)
def test_retention_table(
    duration: Any, until: int | None, only_failed: bool, payload: Payload, end: str
) -> None:
    """Every combination of duration, only_failed, payload and way to end is kept as declared."""
    retention = Retention(duration=duration, only_failed=only_failed, payload=payload)
    expected = Keep(until=until, payload=KEEPS_PAYLOAD[payload, ENDS[end]])
    if only_failed and ENDS[end] is SUCCEEDED:
        assert kept(end, retention) is None
    else:
        assert kept(end, retention) == expected


@pytest.mark.parametrize("end", ENDS)
def test_without_retention_nothing_is_kept(end: str) -> None:
    """A queue without retention keeps neither successes nor failures."""
    assert kept(end, None) is None


# -- what handlers raise --------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Retry, Snooze, Discard])
def test_what_steers_can_be_raised_and_caught_as_an_exception(cls: type[Exception]) -> None:
    """The three are exceptions of one base."""
    assert issubclass(cls, Steer)
    assert issubclass(cls, Exception)


INSTANT = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "steer",
    [
        Retry(),
        Retry(after=5),
        Retry(timedelta(seconds=5)),
        Snooze(5),
        Snooze(timedelta(hours=1)),
        Snooze(until=INSTANT),
        Discard(),
        Discard("no such customer"),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda steer: pickle.loads(pickle.dumps(steer))]
)
def test_what_steers_survives_copy_and_pickle(steer: Steer, duplicate: Any) -> None:
    """A copy says the same."""
    other = duplicate(steer)
    assert type(other) is type(steer)
    assert vars(other) == vars(steer)


def test_durations_are_kept_as_seconds() -> None:
    """A timedelta and its seconds mean the same."""
    assert (Retry(timedelta(seconds=5)).after, Snooze(timedelta(hours=1)).duration) == (5.0, 3600.0)
    assert (Retry().after, Snooze(until=INSTANT).duration, Snooze(5).until) == (None, None, None)
    assert Snooze(until=INSTANT).until == INSTANT


@pytest.mark.parametrize("value", ["5", True, [5], INSTANT])
def test_waits_of_a_wrong_type(value: Any) -> None:
    """A wait that is no duration is a TypeError naming class, argument and value."""
    with pytest.raises(InvalidType, match=r"Retry\.after must be") as caught:
        Retry(value)
    assert repr(value) in str(caught.value)
    with pytest.raises(InvalidType, match=r"Snooze\.duration must be") as caught:
        Snooze(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), timedelta(days=-1)])
def test_waits_that_cannot_be(value: Any) -> None:
    """A negative or endless wait is a ValueError naming class, argument and value."""
    with pytest.raises(InvalidValue, match=r"Retry\.after="):
        Retry(value)
    with pytest.raises(InvalidValue, match=r"Snooze\.duration="):
        Snooze(value)


def test_snooze_takes_an_aware_instant() -> None:
    """A naive instant and one of another type are refused by name."""
    with pytest.raises(InvalidValue, match=r"Snooze\.until=.* has no time zone"):
        Snooze(until=INSTANT.replace(tzinfo=None))
    with pytest.raises(InvalidType, match=r"Snooze\.until must be a datetime, not 5"):
        Snooze(until=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{}, {"duration": 5, "until": INSTANT}])
def test_snooze_takes_one_of_both(given: dict[str, Any]) -> None:
    """Neither or both of duration and until is a mistake."""
    with pytest.raises(InvalidValue, match=r"either a duration or until="):
        Snooze(**given)


def test_the_reason_of_a_discard_is_text() -> None:
    """Whatever is given as the reason can be stored."""
    assert [Discard().reason, Discard("gone").reason, Discard(404).reason] == [  # type: ignore[arg-type]
        "",
        "gone",
        "404",
    ]


@pytest.mark.parametrize(
    "result",
    [
        Result(finished_at=NOW),
        Result(finished_at=NOW, error="E", final=True),
        Result(finished_at=NOW, error="E", cancelled=True),
        Result(finished_at=NOW, error="E", ends_process=True),
        Result(finished_at=NOW, error="E", steer=Discard()),
    ],
    ids=["succeeded", "failed", "cancelled", "ends its process", "discarded"],
)
def test_the_end_of_a_step_says_of_which_workflow(result: Result) -> None:
    """However it ends; what it adds to that, if it has succeeded only."""
    job = msgspec.structs.replace(claimed(), workflow="w1", step=7)
    added = (NewStep(job=None),)
    config = QueueConfig("q", max_crashes=1)
    end = decide(job, config, msgspec.structs.replace(result, extends=added), 0.5)
    assert isinstance(end, Complete)
    assert (end.workflow, end.step) == ("w1", 7)
    assert end.extends == (added if end.status is SUCCEEDED else ())


def test_other_ends_of_a_step_say_so_too() -> None:
    """In a transaction, before its start, by a crash elsewhere, and where the database refuses its end."""
    job = msgspec.structs.replace(claimed(), workflow="w1", step=7)
    config, added = QueueConfig("q", max_crashes=1), (NewStep(job=None),)
    result = Result(finished_at=NOW, extends=added)
    done = succeeded(job, config, result, "1")
    ends = [
        done,
        cancelled(job, config, NOW),
        crashed(job, config, NOW),
        refused(done, job, config, NOW, "no"),
        refused(done, job, None, NOW, "no"),
    ]
    for end in ends:
        assert isinstance(end, Complete)
        assert (end.workflow, end.step) == ("w1", 7)
    assert [end.extends for end in ends if isinstance(end, Complete)] == [added, (), (), (), ()]
