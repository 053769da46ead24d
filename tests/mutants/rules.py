"""Mutants of the pure decisions: what follows from an attempt, what to claim, what to wait for."""

from __future__ import annotations

from .mutant import Mutant

__all__ = ["MUTANTS"]


def outcome(name: str, breaks: str, old: str, new: str, within: str = "") -> Mutant:
    """Return a mutant of the decision about an attempt."""
    return Mutant(name, breaks, "_outcome.py", old, new, "tests/test_outcome.py", within)


def plan(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the plan of a claim."""
    return Mutant(name, breaks, "_plan.py", old, new, "tests/test_plan.py")


def solo(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the turns of jobs that run alone."""
    return Mutant(name, breaks, "_solo.py", old, new, "tests/test_solo.py tests/test_takeover.py")


def suspects(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the patience with owners that seem to live."""
    return Mutant(name, breaks, "_suspects.py", old, new, "tests/test_suspects.py")


def clock(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the conversions of times."""
    return Mutant(name, breaks, "_clock.py", old, new, "tests/test_clock.py")


def backoff(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the backoff."""
    return Mutant(name, breaks, "_backoff.py", old, new, "tests/test_backoff.py")


OUTCOME = [
    outcome(
        "one-attempt-more",
        "a job is tried once more than it says",
        "job.attempt >= job.max_attempts",
        "job.attempt > job.max_attempts",
    ),
    outcome(
        "snooze-counts",
        "a snooze costs an attempt",
        "after(now, steer.duration or 0.0), now, attempt=job.attempt - 1",
        "after(now, steer.duration or 0.0), now, attempt=job.attempt",
    ),
    outcome(
        "stop-costs-an-attempt",
        "a deploy costs an attempt",
        "job.waits_from, attempt=job.attempt - 1)",
        "job.waits_from, attempt=job.attempt)",
    ),
    outcome(
        "steer-lost-at-stop",
        "a snooze during a stop is forgotten",
        "    if result.stopped:\n        return give_back(job, now)\n",
        "",
        "def decide(",
    ),
    outcome("discard-retries", "a discarded job runs again", "isinstance(steer, Discard) or ", ""),
    outcome("final-retries", "a payload that does not decode is tried again", "result.final or ", ""),
    outcome(
        "retry-ignores-wait",
        "a retry waits for the backoff",
        "steer.after if isinstance(steer, Retry)",
        "None if steer",
    ),
    outcome(
        "retry-early",
        "a retry runs early",
        "_again(job, after(now, wait), now, attempt=job.attempt, error",
        "_again(job, now + int(wait * 1000) - 1, now, attempt=job.attempt, error",
    ),
    outcome(
        "retry-forgets-error",
        "the error of a retried attempt is not shown",
        "attempt=job.attempt, error=result.error)",
        "attempt=job.attempt)",
    ),
    outcome(
        "give-back-loses-place", "what is given back goes to the end", "min(job.scheduled_at, now)", "now"
    ),
    outcome(
        "give-back-waits",
        "what is given back waits for a clock that was set back",
        "min(job.scheduled_at, now)",
        "job.scheduled_at",
    ),
    outcome(
        "one-crash-more",
        "a job kills its process once more than it may",
        "crashes < config.max_crashes:",
        "crashes <= config.max_crashes:",
    ),
    outcome(
        "crash-costs-attempt",
        "a crash costs an attempt, too",
        "crashes, attempt = job.crashes + 1, job.attempt - 1",
        "crashes, attempt = job.crashes + 1, job.attempt",
    ),
    outcome(
        "crash-not-counted", "crashes are unbounded", "again, crashes=crashes,", "again, crashes=job.crashes,"
    ),
    outcome(
        "crash-though-renewed",
        "a job that lives is taken away",
        'error=f"process died (crash {crashes}{of})", lapsed_by=lapsed_by',
        'error=f"process died (crash {crashes}{of})"',
    ),
    outcome(
        "no-crash-limit-at-claim",
        "crashes are unbounded where nobody knows the handler",
        "if job.crashes >= config.max_crashes:",
        "if False:",
    ),
    outcome(
        "no-attempts-check-at-claim",
        "attempts are unbounded",
        "if job.attempt > job.max_attempts:",
        "if False:",
    ),
    outcome(
        "attempts-check-too-early",
        "the last attempt is not made",
        "if job.attempt > job.max_attempts:",
        "if job.attempt >= job.max_attempts:",
    ),
    outcome(
        "last-chance-in-company",
        "a poisonous job takes its neighbours with it",
        "0 < job.crashes >= config.max_crashes - 1",
        "False",
    ),
    outcome(
        "last-chance-at-once",
        "new jobs run alone",
        "0 < job.crashes >= config.max_crashes - 1",
        "job.crashes >= config.max_crashes - 1",
    ),
    outcome(
        "keeps-all",
        "retention keeps what it should not",
        "retention is None or (retention.only_failed and not failed)",
        "retention is None",
    ),
    outcome(
        "keeps-only-succeeded",
        "retention keeps the wrong ones",
        "retention.only_failed and not failed",
        "retention.only_failed and failed",
    ),
    outcome(
        "keeps-payload-of-all",
        "payloads stay that should not",
        '(retention.payload == "failed" and failed)',
        'retention.payload == "failed"',
    ),
    outcome(
        "own-death-is-a-stop",
        "a handler that ends its process runs for ever",
        "    if result.ends_process:\n        return crashed(job, config, now)\n",
        "",
    ),
    outcome(
        "refused-keeps-lapse",
        "the crash of a job that lives is stored",
        "lapsed_by=outcome.lapsed_by",
        "lapsed_by=None",
    ),
    outcome(
        "result-dropped", "a job's result is lost", "msgspec.structs.replace(done, result=value)", "done"
    ),
]

PLAN = [
    plan(
        "plan-beyond-writes",
        "a slow disk does not slow the claims",
        "min(workers_free, writes_free)",
        "workers_free",
    ),
    plan("plan-beyond-threads", "more threads than there are", "min(room, threads_free)", "room"),
    plan("plan-beyond-workers", "more thread jobs than workers", "min(room, threads_free)", "threads_free"),
    plan("plan-without-room", "claims with nobody free", "if members and free > 0:", "if members:"),
    plan(
        "plan-mixes-threads",
        "thread jobs take workers that are for others",
        "kind.threaded is threaded",
        "kind.threaded is not threaded",
    ),
]

SOLO = [
    solo(
        "solo-holds-up-for-ever",
        "a job that waits to run alone stops all others",
        "now + PATIENCE",
        "now + 1000 * PATIENCE",
    ),
    solo(
        "solo-holds-up-again",
        "a job that waits to run alone stops all others again and again",
        "now if job.id in self._tried else now + PATIENCE",
        "now + PATIENCE",
    ),
    solo("solo-among-themselves", "two poisonous jobs at once", "or self._running is not None", "False"),
    solo(
        "solo-never-over",
        "after a job has run alone nothing starts",
        "        self._running = None\n        if",
        "        if",
    ),
    solo(
        "solo-keeps-waiting",
        "what is given back runs, too",
        "jobs, self._waiting = [job for job, _ in self._waiting], []",
        "jobs = [job for job, _ in self._waiting]",
    ),
    solo(
        "solo-never-tried-again",
        "a job that ran alone once may never do so again",
        "        self._tried.discard(job.id)\n",
        "",
    ),
]

SUSPECTS = [
    suspects(
        "suspects-at-once",
        "a job that lives is taken at the end of its lease",
        "if now - since >= beat:",
        "if True:",
    ),
    suspects("suspects-never", "a process that hangs keeps its jobs", "if now - since >= beat:", "if False:"),
    suspects(
        "suspects-too-patient", "a claim is taken late", "if now - since >= beat:", "if now - since > beat:"
    ),
    suspects(
        "suspects-though-blind",
        "time in which nobody could look counts",
        "now - self._looked_at <= 3 * self.pause and ",
        "",
    ),
    suspects(
        "suspects-though-locked", "time in which nobody could write counts", " and wrote_in <= self.pause", ""
    ),
    suspects(
        "suspects-though-renewed",
        "a renewal in between counts for nothing",
        "claim.job.id, claim.job.fence, claim.until",
        "claim.job.id, claim.job.fence, 0",
    ),
    suspects(
        "suspects-other-claim",
        "a new claim inherits the old one's wait",
        "claim.job.id, claim.job.fence, claim.until",
        "claim.job.id, 0, claim.until",
    ),
    suspects("suspects-slowest-beat", "looks are too far apart", "min((beat for", "max((beat for"),
]

CLOCK = [
    clock(
        "instants-rounded-down",
        "a job runs early",
        "-((_EPOCH - instant) // _MILLISECOND)",
        "(instant - _EPOCH) // _MILLISECOND",
    ),
    clock(
        "waits-rounded-down",
        "a wait is too short",
        "return ceil(round(duration * 1000, 6))",
        "return int(duration * 1000)",
    ),
    clock("present-not-rounded", "a wait is a millisecond too short", " + (duration > 0)", ""),
    clock(
        "ids-do-not-grow", "ids of one millisecond are in disorder", "if value <= self._last:", "if False:"
    ),
    clock(
        "sleep-is-a-step", "a computer that slept has its waits shifted", "min(step, self._behind)", "step"
    ),
    clock(
        "start-trusts-clock",
        "a clock set back while nobody ran delays jobs",
        "            return -1\n",
        "            self._ahead = self._now()\n            return 0\n",
    ),
    clock("steps-add-up", "slow drift becomes a step", "        self._ahead += step\n", ""),
]

BACKOFF = [
    backoff("backoff-off-by-one", "the first wait is too long", "(attempt - 1)", "attempt"),
    backoff(
        "backoff-beyond-cap",
        "jitter exceeds the cap",
        "return min(wait * (1 + backoff.jitter * (2 * spread - 1)), cap)",
        "return wait * (1 + backoff.jitter * (2 * spread - 1))",
    ),
    backoff(
        "backoff-overflows",
        "a long backoff is an error",
        "except OverflowError:",
        "except ZeroDivisionError:",
    ),
]

MUTANTS = [*OUTCOME, *PLAN, *SOLO, *SUSPECTS, *CLOCK, *BACKOFF]
