"""What the store's statements do to rows: functions over a connection of SQLite's, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from ..._job import ClaimedJob, Complete, Job, JobStatus, NewJob, Outcome, Place, record
from ..._stats import MINUTE, Tally
from .._base import STEP_MARGIN, STEP_NOTICE, WATCHED_FOR
from . import history
from .sql import fetch, many, statements, text
from .stats import only_times, tally
from .turns import let_in, take_turns

__all__ = [
    "Finish",
    "add",
    "add_again",
    "added",
    "claimed_job",
    "claims_of",
    "end_cancelled",
    "expire",
    "finish",
    "get",
    "holds_claims",
    "kinds",
    "next_expiry",
    "renew",
    "shift_waits",
    "status",
    "waits_ahead",
]

_RECORD = (
    "id queue task status payload attempt max_attempts crashes priority fence owner"
    " created_at scheduled_at started_at finished_at duration error result expires_at"
    " key timeout parent meta tags cancelled_at progress progress_message noted"
).split()
"""The columns of the statement `get`."""


KEY_LOOKS = 600_000
"""Milliseconds between two looks whether the job of a unique key is live."""

LARGEST_ADD = 256
"""Jobs that are added by one statement; with more, nothing is gained, and others wait for the interpreter."""


def add(raw: sqlite3.Connection, jobs: Sequence[NewJob]) -> None:
    """Store pending jobs, whose ids are new."""
    if any(job.more is not None for job in jobs):
        _add_chunks(raw, "add_from_array", jobs)
        history.add_tags(raw, jobs)
        take_turns(raw, jobs, max(job.created_at for job in jobs))
        return
    begin = 0
    while left := len(jobs) - begin:
        # Powers of two: few statements, all of them prepared, serve any number.
        size = min(1 << left.bit_length() - 1, LARGEST_ADD)
        values: list[object] = []
        for job in jobs[begin : begin + size]:
            values += (
                job.id,
                job.queue,
                job.task,
                job.payload,
                job.max_attempts,
                job.created_at,
                job.due_at,
                job.due_at,
                job.priority,
                job.waits_from,
            )
        raw.execute(many("add", size), values)
        begin += size


def add_again(raw: sqlite3.Connection, jobs: Sequence[NewJob]) -> None:
    """Store pending jobs, those that are not there already."""
    _add_chunks(raw, "add_again", jobs)
    history.add_tags(raw, jobs)
    take_turns(raw, jobs, max(job.created_at for job in jobs))


def _add_chunks(raw: sqlite3.Connection, name: str, jobs: Sequence[NewJob]) -> None:
    for begin in range(0, len(jobs), LARGEST_ADD):
        fetch(raw, name, {"jobs": added(jobs[begin : begin + LARGEST_ADD])})


def added(jobs: Iterable[NewJob]) -> str:
    """Return the parameter of the statements `add_from_array` and `add_again`."""
    return text(
        [
            (
                job.id,
                job.queue,
                job.task,
                job.payload.decode(),
                job.max_attempts,
                job.created_at,
                job.due_at,
                job.priority,
                job.waits_from,
                *((more.key, more.timeout, more.parent, more.meta, more.tags) if more else ()),
            )
            for job in jobs
            for more in (job.more,)
        ]
    )


class Finish:
    """Outcomes on their way into the database; afterwards, whether anybody waits for what has ended."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes
        self.watched = False

    @property
    def rings(self) -> bool:
        """Whether there may be jobs that are due, or a place that others wait for."""
        return any(
            outcome.frees is not None or not isinstance(outcome, Complete) or outcome.letter is not None
            for outcome in self.outcomes
        )

    def __call__(self, raw: sqlite3.Connection) -> set[str]:
        """Write them; return the ids of those whose claim is no longer theirs."""
        self.watched = False
        lost = self._write(raw, self.outcomes, unwatched=True)
        if lost is None:
            watched = history.watched(raw, [outcome.id for outcome in self.outcomes])
            self.watched = bool(watched)
            lost = self._write(raw, [_seen(outcome, watched) for outcome in self.outcomes], unwatched=False)
        assert lost is not None
        return lost

    def _write(
        self, raw: sqlite3.Connection, outcomes: Sequence[Outcome], *, unwatched: bool
    ) -> set[str] | None:
        """Write outcomes; with `unwatched` only if nobody waits for those that complete, else return None.

        What is kept of jobs is written before they are gone; to do so twice does no harm.
        """
        completed: dict[int | None, list[Outcome]] = {}
        again: dict[int | None, list[Outcome]] = {}
        kept: list[Complete] = []
        told: list[Outcome] = []
        for outcome in outcomes:
            if not isinstance(outcome, Complete):
                again.setdefault(outcome.lapsed_by, []).append(outcome)
            else:
                completed.setdefault(outcome.lapsed_by, []).append(outcome)
                if outcome.keep is None:
                    continue
                kept.append(outcome)
            if outcome.trouble is not None or outcome.note is not None:
                told.append(outcome)
        if unwatched and len(completed) > 1:
            return None  # one group must not be gone before the next one is refused
        if told:
            history.tell(raw, told)
        if kept:
            fetch(raw, "keep", {"outcomes": text([_bare(outcome) for outcome in kept])})
        lost: set[str] = set()
        for lapsed_by, group in completed.items():
            missing = _finish(raw, "remove", group, lapsed_by, unwatched=unwatched)
            if missing is None:
                return None
            lost |= missing
        for lapsed_by, group in again.items():
            lost |= _finish(raw, "reschedule", group, lapsed_by) or set()
        accepted = [outcome for outcome in outcomes if outcome.id not in lost] if lost else outcomes
        self._follow(raw, accepted, bool(again))
        return lost

    def _follow(self, raw: sqlite3.Connection, outcomes: Sequence[Outcome], again: bool) -> None:
        """Do what follows from outcomes that were accepted."""
        ended = _end_cancelled(raw) if again else []
        ids = {job.id for job in ended}
        if ids and not self.watched:
            self.watched = bool(history.watched(raw, list(ids)))
        freed: dict[str, Place] = {}
        letters: list[NewJob] = []
        gone: list[str] = []
        tallies: list[Tally] = []
        for outcome in outcomes:
            if outcome.tally is not None:
                tallies.append(only_times(outcome.tally) if outcome.id in ids else outcome.tally)
            if outcome.frees is not None:
                freed[outcome.id] = outcome.frees
            if isinstance(outcome, Complete):
                if outcome.letter is not None:
                    letters.append(outcome.letter)
                if outcome.beside and outcome.keep is None:
                    gone.append(outcome.id)
        tally(raw, Counter(tallies))
        for job in ended:
            freed.setdefault(job.id, job.place)
        if freed:
            let_in(raw, freed.values())
        if letters:
            add_again(raw, letters)
        if gone:
            history.forget(raw, gone)


def finish(raw: sqlite3.Connection, *, outcomes: Sequence[Outcome]) -> set[str]:
    """Write outcomes; return the ids of those whose claim is no longer theirs."""
    return Finish(outcomes)(raw)


def _seen(outcome: Outcome, watched: set[str]) -> Outcome:
    """Return an outcome by which a job that somebody waits for is kept for a while."""
    if outcome.id not in watched or not isinstance(outcome, Complete):
        return outcome
    return history.kept_for_watchers(outcome)


def _bare(outcome: Complete) -> Complete:
    """Return an outcome without what `keep` does not look at."""
    if outcome.note is None and outcome.letter is None:
        return outcome
    return msgspec.structs.replace(outcome, note=None, letter=None)


class _Ended(NamedTuple):
    """A pending job that was ended as cancelled: what it leaves to others, and whether it had its turn."""

    id: str
    place: Place
    had_turn: bool
    beside: bool

    @property
    def tally(self) -> Tally:
        return (self.place.queue, self.place.at - self.place.at % MINUTE, "cancelled", -1, -1)


def end_cancelled(raw: sqlite3.Connection) -> list[str]:
    """End the pending jobs that are to be cancelled; return their ids."""
    ended = _end_cancelled(raw)
    let_in(raw, [job.place for job in ended if job.had_turn])
    return [job.id for job in ended]


def _end_cancelled(raw: sqlite3.Connection) -> list[_Ended]:
    """End the same, and count them."""
    ended = [
        _Ended(job_id, Place(queue, _readable(key), at), bool(had_turn), bool(beside))
        for job_id, queue, key, at, had_turn, beside in fetch(raw, "to_end", {})
    ]
    if ended:
        raw.execute(statements()["keep_cancelled"], {"watched_for": WATCHED_FOR})
        raw.execute(statements()["end_cancelled"])
        gone = [job.id for job in ended if job.beside]
        if gone:
            history.forget(raw, gone)
        tally(raw, Counter(job.tally for job in ended))
    return ended


def _finish(
    raw: sqlite3.Connection,
    name: str,
    outcomes: Sequence[Outcome],
    lapsed_by: int | None,
    *,
    unwatched: bool = False,
) -> set[str] | None:
    """Write outcomes by a statement that takes all or none; without those that are lost, then.

    Returns their ids; None: nothing is written, as somebody waits for one of the jobs.
    """
    if _whole(raw, name, outcomes, lapsed_by, unwatched):
        return set()
    fences = {outcome.id: outcome.fence for outcome in outcomes}
    held = _held(raw, fences, lapsed_by)
    rest = [outcome for outcome in outcomes if outcome.id in held]
    if rest and not _whole(raw, name, rest, lapsed_by, unwatched):
        if unwatched:
            return None
        raise LookupError(f"claims of {len(rest)} jobs are held, and were not found")
    return fences.keys() - held


def _whole(
    raw: sqlite3.Connection, name: str, outcomes: Sequence[Outcome], lapsed_by: int | None, unwatched: bool
) -> bool:
    parameters: dict[str, Any] = {"count": len(outcomes), "lapsed_by": lapsed_by}
    if name == "remove":
        parameters["unwatched"] = unwatched
        parameters["fences"] = text({outcome.id: outcome.fence for outcome in outcomes})
    else:
        parameters["outcomes"] = text(outcomes)
    return raw.execute(statements()[name], parameters).rowcount == len(outcomes)


def _held(raw: sqlite3.Connection, fences: dict[str, int], lapsed_by: int | None) -> set[str]:
    """Return the ids of those of these claims that are held."""
    found = fetch(raw, "held", {"fences": text(fences), "lapsed_by": lapsed_by})
    return set(msgspec.json.decode(found[0][0]))


def claims_of(raw: sqlite3.Connection, owner: str) -> list[ClaimedJob]:
    """Return what an owner has claimed."""
    return [claimed_job(row) for row in fetch(raw, "claims_of", {"owner": owner})]


def holds_claims(raw: sqlite3.Connection, owner: str) -> bool:
    """Return whether an owner has claimed anything, or waits for a job."""
    return bool(fetch(raw, "holds_claims", {"owner": owner})[0][0])


def renew(raw: sqlite3.Connection, *, fences: dict[str, int], until: int) -> set[str]:
    """Extend leases; return the ids of those that are lost."""
    parameters = {"fences": text(fences), "until": until}
    if raw.execute(statements()["renew"], parameters).rowcount == len(fences):
        return set()
    return fences.keys() - _held(raw, fences, None)


def status(raw: sqlite3.Connection, job_id: str, now: int) -> JobStatus:
    """Return where a job is in its life."""
    found = fetch(raw, "status", {"id": job_id, "now": now})
    return JobStatus(found[0][0]) if found else JobStatus.NOT_FOUND


def get(raw: sqlite3.Connection, job_id: str, now: int) -> Job | None:
    """Return a job's record, with its history if it has any."""
    found = fetch(raw, "get", {"id": job_id, "now": now})
    if not found:
        return None
    columns: dict[str, Any] = dict(zip(_RECORD, found[0], strict=True))
    job = record(columns)
    return history.with_history(raw, job) if columns["noted"] else job


def next_expiry(raw: sqlite3.Connection) -> int | None:
    """Return the instant at which the next completed job expires."""
    found = fetch(raw, "next_expiry", {})
    return found[0][0] if found else None


def expire(raw: sqlite3.Connection, *, now: int, limit: int) -> int:
    """Remove completed jobs that have expired, and forget unique keys; return how many jobs."""
    parameters = {"now": now, "limit": limit, "later": now + KEY_LOOKS}
    raw.execute(statements()["look_later"], parameters)
    raw.execute(statements()["forget_keys"], parameters)
    ((number, seqs, beside),) = fetch(raw, "expired", {"now": now, "limit": limit})
    if number:
        raw.execute(statements()["expire"], {"seqs": seqs})
        history.forget(raw, msgspec.json.decode(beside))
    return int(number)


def waits_ahead(raw: sqlite3.Connection, now: int) -> bool:
    """Return whether a job waits since a time that is still to come, or a start is counted then."""
    return bool(
        fetch(raw, "waits_ahead", {"now": now, "margin": STEP_MARGIN})[0][0]
        or fetch(raw, "starts_ahead", {"latest": now + STEP_NOTICE})[0][0]
    )


def shift_waits(raw: sqlite3.Connection, *, now: int, by: int) -> int:
    """Shift waits after a step of the clock, or let them begin anew; return how many."""
    name = "restart_waits" if by == 0 else "shift_waits" if by < 0 else "shift_waits_back"
    parameters = {
        "now": now, "by": by, "margin": STEP_MARGIN, "notice": STEP_NOTICE, "latest": now + STEP_NOTICE
    }  # fmt: skip
    raw.execute(statements()["shift_starts" if by else "pull_starts"], parameters)
    return raw.execute(statements()[name], parameters).rowcount


def kinds(raw: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the queues and task names that have pending jobs with a due time."""
    found: list[tuple[str, str]] = []
    after = ("", "")
    while rows := fetch(raw, "next_kind", {"queue": after[0], "task": after[1]}):
        after = (rows[0][0], rows[0][1])
        found.append(after)
    return found


def claimed_job(row: Sequence[Any]) -> ClaimedJob:
    """Make a claimed job of a row with its fields."""
    job = dict(zip(ClaimedJob.__struct_fields__, row, strict=True))
    job["payload"] = job["payload"].decode("utf-8", "surrogateescape")
    for name in ("key", "parent", "meta", "tags"):
        job[name] = _readable(job[name])
    return ClaimedJob(**job)


def _readable(text: bytes | None) -> str | None:
    """Return a text whatever has become of its bytes: one bad row must not stop all others."""
    return None if text is None else text.decode("utf-8", "replace")
