"""Mutants of the store's SQL."""

from __future__ import annotations

from .mutant import Mutant

__all__ = ["MUTANTS"]

CONTRACT = "tests/stores/test_contract.py"
PLANS = "tests/stores/test_statements.py"

FENCE = " AND jobs.fence = json_extract(value, '$.fence')"
LAPSED = "  AND coalesce(jobs.due_at <= json_extract(value, '$.lapsed_by'), true)\n"


def sql(statement: str, name: str, breaks: str, old: str, new: str, *, tests: str = CONTRACT) -> Mutant:
    """Return a mutant of one statement."""
    return Mutant(
        name, breaks, "stores/sqlite/sql/queries.sql", old, new, tests, within=f"-- name: {statement}\n"
    )


def index(name: str, text: str) -> Mutant:
    """Return a mutant without an index."""
    return Mutant(
        f"no-{name}-index",
        "a statement walks over all jobs",
        "stores/sqlite/sql/migrations/0001_jobs.sql",
        f"CREATE INDEX {text};",
        "",
        PLANS,
    )


ADDING = [
    sql(
        "add",
        "add-repeats-kept",
        "a repeated save runs a job again that is kept",
        "WHERE NOT EXISTS (SELECT 1 FROM backlite_completed AS kept WHERE kept.id =",
        "WHERE NOT EXISTS (SELECT 1 FROM backlite_completed AS kept WHERE NULL =",
    ),
    sql("add", "add-conflict-fails", "a repeated save is an error", "ON CONFLICT (id) DO NOTHING", ""),
    sql(
        "add",
        "add-reversed",
        "jobs run in the wrong order",
        "ORDER BY json_each.id\n",
        "ORDER BY json_each.id DESC\n",
    ),
    sql(
        "add",
        "add-due-now",
        "scheduled jobs run at once",
        "    json_extract(value, '$[6]'),\n    json_extract(value, '$[6]'),\n",
        "    json_extract(value, '$[6]'),\n    json_extract(value, '$[5]'),\n",
    ),
]

CLAIMING = [
    sql("claimable", "claim-early", "jobs run before they are due", "best.due_at <= :now", "true"),
    sql(
        "claimable",
        "claim-late",
        "a job is not due at its instant",
        "best.due_at <= :now",
        "best.due_at < :now",
    ),
    sql(
        "claimable",
        "claim-without-priority",
        "priority counts for nothing",
        "WHERE place <= room ORDER BY priority DESC, ",
        "WHERE place <= room ORDER BY ",
    ),
    sql(
        "claimable",
        "claim-without-due-order",
        "a retry starves",
        "PARTITION BY lane ORDER BY priority DESC, due_at, seq",
        "PARTITION BY lane ORDER BY priority DESC, seq",
    ),
    sql(
        "claimable",
        "claim-youngest-first",
        "jobs of one instant in the wrong order",
        "best.due_at, best.seq LIMIT",
        "best.due_at, best.seq DESC LIMIT",
    ),
    sql(
        "claimable",
        "claim-beyond-room",
        "more jobs than there are threads",
        "WHERE place <= room",
        "WHERE true",
    ),
    sql(
        "claimable",
        "claim-beyond-workers",
        "more jobs than there are workers",
        "ORDER BY priority DESC, due_at, seq LIMIT :total",
        "ORDER BY priority DESC, due_at, seq",
    ),
    sql(
        "claimable",
        "claim-first-level-only",
        "jobs of low priority are never claimed",
        "FROM level WHERE priority IS NOT NULL\n    ),",
        "FROM level WHERE false\n    ),",
    ),
    sql(
        "next_due",
        "next-due-first-level-only",
        "no wake-up for jobs of low priority",
        "FROM level WHERE priority IS NOT NULL\n    )\n",
        "FROM level WHERE false\n    )\n",
    ),
    sql(
        "next_due",
        "next-due-any",
        "the dispatcher wakes for the last job first",
        "ORDER BY due_at LIMIT 1",
        "ORDER BY due_at DESC LIMIT 1",
    ),
    sql(
        "next_fence",
        "fence-stands-still",
        "a stale claim has the fence of the new one",
        "value = value + 1",
        "value = value",
    ),
    sql(
        "claim", "claim-is-no-attempt", "attempts are unbounded", "attempt = attempt + 1", "attempt = attempt"
    ),
    sql("claim", "claim-without-lease", "a claim has lapsed at once", "due_at = :until", "due_at = due_at"),
    sql(
        "claim",
        "claim-keeps-no-start",
        "a running job has no start time",
        "started_at = :now",
        "started_at = started_at",
    ),
]

LEASES = [
    sql("lapsed", "lapsed-before-its-end", "a job is taken from a live process", "due_at <= :now AND ", ""),
    sql(
        "lapsed",
        "lapsed-one-late",
        "a lease lasts a millisecond longer than it says",
        "due_at <= :now",
        "due_at < :now",
    ),
    sql("lapsed", "lapsed-own", "a process takes its own jobs", " AND owner <> :owner", ""),
    sql("next_lease_end", "lease-end-own", "a process wakes for its own leases", " AND owner <> :owner", ""),
    sql(
        "next_lease_end",
        "lease-end-again",
        "a process spins beside a claim that it may not take",
        "due_at > coalesce(:now, -1)",
        "due_at >= coalesce(:now, -1)",
    ),
    sql(
        "claims_of",
        "claims-of-all",
        "a dead owner's funeral releases everybody's jobs",
        " AND owner = :owner",
        "",
    ),
    sql(
        "holds_claims",
        "claims-held-by-anybody",
        "an owner file stays for nothing",
        " AND owner = :owner",
        "",
        tests="tests/stores",
    ),
    sql(
        "renew",
        "renew-without-fence",
        "a stale claim renews the new one",
        " AND backlite_jobs.fence = held.fence",
        "",
    ),
    sql("renew", "renew-shortens", "a renewal ends a longer lease", "max(due_at, :until)", ":until"),
    sql("renew", "renew-pending", "a renewal postpones a pending job", " AND +status = 'running'", ""),
]

FINISHING = [
    sql("keep", "keep-without-fence", "a stale outcome is kept", FENCE, ""),
    sql(
        "keep",
        "keep-pending",
        "an outcome of a job that was given back is kept",
        "  AND +jobs.status = 'running'\n",
        "",
    ),
    sql("keep", "keep-though-renewed", "the crash of a job that lives is kept", LAPSED, ""),
    sql(
        "keep",
        "keep-all",
        "retention keeps what it should not",
        "  AND json_type(value, '$.keep') = 'object'\n",
        "",
    ),
    sql(
        "keep",
        "keep-payload",
        "payloads stay that should not",
        "CASE WHEN json_extract(value, '$.keep.payload') THEN payload END",
        "payload",
    ),
    sql(
        "keep",
        "keep-no-error",
        "the error of an earlier attempt is lost",
        "coalesce(json_extract(value, '$.error'), error)",
        "json_extract(value, '$.error')",
    ),
    sql(
        "keep", "keep-for-ever", "nothing expires", "    json_extract(value, '$.keep.until')\n", "    NULL\n"
    ),
    sql(
        "keep",
        "keep-no-result",
        "results are lost",
        "CAST(json_extract(value, '$.result') AS BLOB)",
        "NULL",
        tests="tests/test_transaction.py tests/stores",
    ),
    sql("remove", "remove-without-fence", "a stale outcome completes a job", FENCE, ""),
    sql(
        "remove",
        "remove-pending",
        "an outcome completes a job that was given back",
        "      AND +jobs.status = 'running'\n",
        "",
    ),
    sql(
        "remove",
        "remove-though-renewed",
        "the crash of a job that lives removes it",
        LAPSED.replace("  AND", "      AND"),
        "",
    ),
    sql(
        "reschedule",
        "reschedule-without-fence",
        "a stale outcome takes a job away",
        " AND backlite_jobs.fence = json_extract(value, '$.fence')",
        "",
    ),
    sql(
        "reschedule",
        "reschedule-pending",
        "an outcome moves a pending job",
        "  AND +backlite_jobs.status = 'running'\n",
        "",
    ),
    sql(
        "reschedule",
        "reschedule-though-renewed",
        "a job that lives is taken away",
        "  AND coalesce(backlite_jobs.due_at <= json_extract(value, '$.lapsed_by'), true)\n",
        "",
    ),
    sql(
        "reschedule",
        "reschedule-counts-no-crash",
        "crashes are unbounded",
        ", crashes = json_extract(value, '$.crashes')",
        "",
    ),
    sql(
        "reschedule",
        "reschedule-counts-attempt",
        "a snooze costs an attempt",
        "    attempt = json_extract(value, '$.attempt'), crashes",
        "    crashes",
    ),
    sql(
        "reschedule",
        "reschedule-keeps-owner",
        "a pending job has an owner",
        "status = 'pending', owner = NULL, ",
        "status = 'pending', ",
    ),
    sql(
        "reschedule",
        "reschedule-forgets-error",
        "the error of an earlier attempt is lost",
        "coalesce(json_extract(value, '$.error'), error)",
        "json_extract(value, '$.error')",
    ),
    sql(
        "reschedule",
        "reschedule-old-place",
        "given back, a retry has its first place",
        " scheduled_at = json_extract(value, '$.due_at'),",
        "",
    ),
]

UPKEEP = [
    sql(
        "waits_ahead",
        "waits-never-ahead",
        "a wait is as long as the clock was set back",
        "due_at > :now AND waits_from > :now",
        "false",
    ),
    sql(
        "shift_waits",
        "waits-end-now",
        "a wait ends when the clock is set back",
        "SET due_at = due_at - waits_from + :now,",
        "SET due_at = :now,",
    ),
    sql(
        "shift_waits",
        "waits-all-shifted",
        "jobs at an instant are moved",
        "due_at > :now AND waits_from > :now",
        "due_at > :now",
    ),
    sql(
        "free_claims",
        "copy-costs-attempt",
        "a copy of the database has fewer attempts",
        "attempt = max(attempt - 1, 0)",
        "attempt = attempt",
        tests="tests/stores",
    ),
    sql(
        "free_claims",
        "copy-keeps-lease",
        "a job of a copy waits for a lease",
        "due_at = scheduled_at, ",
        "",
        tests="tests/stores",
    ),
    sql(
        "status",
        "status-of-expired",
        "what has expired is shown",
        " AND coalesce(expires_at > :now, true)",
        "",
    ),
    sql("status", "status-one-late", "what expires now is shown", "expires_at > :now", "expires_at >= :now"),
    sql("get", "get-expired", "what has expired is shown", " AND coalesce(expires_at > :now, true)", ""),
    sql(
        "next_kind",
        "kinds-of-one-queue",
        "unhandled jobs of other queues are not named",
        "queue > :queue\n",
        "false\n",
    ),
    sql(
        "next_kind",
        "kinds-without-end",
        "naming the kinds never ends",
        "queue > :queue\n",
        "queue >= :queue\n",
    ),
    sql(
        "next_expiry",
        "next-expiry-last",
        "upkeep wakes for the last expiry first",
        "ORDER BY expires_at LIMIT 1",
        "ORDER BY expires_at DESC LIMIT 1",
    ),
    sql("expire", "expire-one-late", "what expires now stays", "expires_at <= :now", "expires_at < :now"),
    sql(
        "expire",
        "expire-all",
        "records go before their time",
        "WHERE expires_at <= :now ORDER BY expires_at",
        "WHERE expires_at IS NOT NULL ORDER BY expires_at",
    ),
    sql("expire", "expire-without-limit", "one removal holds everybody up", " LIMIT :limit", ""),
]

INDEXES = [
    index(
        "pending",
        "backlite_jobs_pending ON backlite_jobs (queue, task, priority DESC, due_at)\n"
        "    WHERE status = 'pending' AND due_at IS NOT NULL",
    ),
    index(
        "running",
        "backlite_jobs_running ON backlite_jobs (queue, task, due_at)\n    WHERE status = 'running'",
    ),
    index("owner", "backlite_jobs_owner ON backlite_jobs (owner)\n    WHERE status = 'running'"),
    index(
        "expiry",
        "backlite_completed_expiry ON backlite_completed (expires_at)\n    WHERE expires_at IS NOT NULL",
    ),
]

MUTANTS = [*ADDING, *CLAIMING, *LEASES, *FINISHING, *UPKEEP, *INDEXES]
