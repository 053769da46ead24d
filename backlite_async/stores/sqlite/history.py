"""What is stored beside jobs: tags, errors, lines, who waits for them. Functions inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..._history import MOST_ERRORS, MOST_LINES, Note, error_record, line_record
from ..._job import Complete, Job, Keep, NewJob, Outcome
from .._base import WATCHED_FOR
from .sql import fetch, statements, text

__all__ = [
    "add_tags",
    "forget",
    "kept_for_watchers",
    "note",
    "tagged",
    "tell",
    "unwatch",
    "watch",
    "watched",
    "with_history",
]

TRIM_EVERY = 100
"""Lines of an attempt after which those of its job are counted, which costs more than to write them."""


def tagged(jobs: Iterable[NewJob]) -> list[tuple[str, str]]:
    """Return the parameter of `add_tags`: the ids of those that have tags, with these as JSON."""
    return [(job.id, job.more.tags) for job in jobs if job.more is not None and job.more.tags is not None]


def add_tags(raw: sqlite3.Connection, jobs: Iterable[NewJob]) -> None:
    """Store the tags of jobs that were added."""
    found = tagged(jobs)
    if found:
        fetch(raw, "add_tags", {"tagged": text(found)})


def tell(raw: sqlite3.Connection, outcomes: Sequence[Outcome]) -> None:
    """Store the errors and notes of outcomes, of those whose claims are held."""
    troubles = [
        (outcome.id, outcome.fence, outcome.lapsed_by, outcome.trouble)
        for outcome in outcomes
        if outcome.trouble is not None
    ]
    if troubles:
        fetch(raw, "keep_errors", {"told": text(troubles)})
        fetch(raw, "trim_errors", {"ids": text([trouble[0] for trouble in troubles]), "most": MOST_ERRORS})
    notes = [(outcome.note, outcome.lapsed_by) for outcome in outcomes if outcome.note is not None]
    if notes:
        _note(raw, notes)


def note(raw: sqlite3.Connection, notes: Sequence[Note]) -> None:
    """Store what claims say of themselves, of those that are held."""
    if len({note.id for note in notes}) == len(notes):
        _note(raw, [(note, None) for note in notes])
    else:  # one after the other, so that the last one counts
        for note in notes:
            _note(raw, [(note, None)])


def _note(raw: sqlite3.Connection, notes: Sequence[tuple[Note, int | None]]) -> None:
    """Store notes of different jobs, each with the instant by which its lease must have ended, if any."""
    told = text(
        [
            (note.id, note.fence, lapsed_by, note.attempt, note.progress, note.message, note.lines)
            for note, lapsed_by in notes
        ]
    )
    raw.execute(statements()["note"], {"told": told})
    if any(note.lines for note, _ in notes):
        raw.execute(statements()["keep_lines"], {"told": told})
    many = [note.id for note, _ in notes if any(line.number % TRIM_EVERY == 0 for line in note.lines)]
    if many:
        raw.execute(statements()["trim_lines"], {"ids": text(many), "most": MOST_LINES})


def with_history(raw: sqlite3.Connection, job: Job) -> Job:
    """Return a record with the errors and log lines of its job."""
    errors = _newest(raw, "errors", job.id, MOST_ERRORS)
    lines = _newest(raw, "lines", job.id, MOST_LINES)
    return msgspec.structs.replace(
        job,
        errors=tuple(error_record(columns) for columns in errors),
        lines=tuple(line_record(columns) for columns in lines),
    )


def _newest(raw: sqlite3.Connection, name: str, job_id: str, most: int) -> list[list[Any]]:
    """Return the newest rows beside a job, the oldest of them first."""
    found: list[list[Any]] = msgspec.json.decode(fetch(raw, name, {"id": job_id, "most": most})[0][0])
    return found[::-1]


def forget(raw: sqlite3.Connection, job_ids: Sequence[str]) -> None:
    """Remove what is stored beside those of these jobs that are neither live nor kept any more."""
    parameters = {"ids": text(job_ids)}
    for name in ("forget_tags", "forget_errors", "forget_lines"):
        raw.execute(statements()[name], parameters)


def watch(raw: sqlite3.Connection, job_ids: Sequence[str], owner: str) -> None:
    """Remember that an owner waits for jobs."""
    raw.execute(statements()["watch"], {"ids": text(job_ids), "owner": owner})


def unwatch(raw: sqlite3.Connection, job_ids: Sequence[str], owner: str) -> None:
    """Undo `watch`."""
    raw.execute(statements()["unwatch"], {"ids": text(job_ids), "owner": owner})


def watched(raw: sqlite3.Connection, job_ids: Sequence[str]) -> set[str]:
    """Return the ids of those of these jobs that somebody waits for."""
    return set(msgspec.json.decode(fetch(raw, "watched", {"ids": text(job_ids)})[0][0]))


def kept_for_watchers(outcome: Complete) -> Complete:
    """Return an outcome by which its job is kept for long enough to be seen by those who wait for it."""
    until, keep = outcome.finished_at + WATCHED_FOR, outcome.keep
    if keep is None:
        keep = Keep(until=until, payload=False)
    elif keep.until is not None:
        keep = Keep(until=max(keep.until, until), payload=keep.payload)
    return msgspec.structs.replace(outcome, keep=keep)
