"""What follows from an attempt: attempts and crashes are bounded, and retention is a table."""

from __future__ import annotations

import copy
import itertools
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

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
from backlite_async._job import ClaimedJob, Complete, Keep, Outcome, Reschedule
from backlite_async._outcome import (
    Result,
    Steer,
    crashed,
    decide,
    give_back,
    last_chance,
    postpone,
    refused,
    succeeded,
    used_up,
)

NOW = 1_700_000_000_000
SUCCEEDED, FAILED = JobStatus.SUCCEEDED, JobStatus.FAILED


def claimed(
    *, attempt: int = 1, max_attempts: int = 3, crashes: int = 0, scheduled_at: int = NOW - 5000
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
    )


def queue(
    *, backoff: Backoff | float = 7.0, max_crashes: int = 3, retention: Retention | None = None
) -> QueueConfig:
    return QueueConfig("mail", backoff=backoff, max_crashes=max_crashes, retention=retention)


def ended(**values: Any) -> Result:
    return Result(**({"finished_at": NOW, "started_at": NOW - 100, "duration": 99_500} | values))


def failed(**values: Any) -> Result:
    return ended(**({"error": "ValueError: no"} | values))


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
    )


def test_an_error_is_retried_after_the_backoff() -> None:
    """A failed attempt runs again after the queue's wait, never early, with its error kept."""
    outcome = decide(claimed(attempt=1), queue(backoff=7.0), failed(), 0.5)
    assert outcome == Reschedule(
        id="j1", fence=42, due_at=NOW + 7001, waits_from=NOW, attempt=1, crashes=0, error="ValueError: no"
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
        id="j1", fence=42, due_at=NOW + due, waits_from=NOW, attempt=2, crashes=0, error="ValueError: no"
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
        id="j1", fence=42, due_at=NOW + 5001, waits_from=NOW, attempt=attempt - 1, crashes=0
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
    failed_job = refused(again, None, NOW, "too large")
    assert (failed_job.status, failed_job.keep) == (FAILED, None)
    assert failed_job.error == "its outcome could not be stored: too large"


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
