"""Outcomes, and cancellations, on their way into the database: functions inside a transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..._job import Complete, JobStatus, NewJob, Outcome, Place
from ..._stats import Tally
from .._flows import End, retention
from . import history, workflows
from .ending import Ended, end_marked
from .rows import add_again, held
from .sql import portions, statements, text
from .stats import only_times, tally
from .turns import let_in

__all__ = ["Finish", "end_cancelled", "finish"]

AT_ONCE = 128
"""Jobs that are kept by one statement."""


class Finish:
    """Outcomes on their way into the database; afterwards, whether anybody waits for what has ended.

    `releases`: whether there are jobs that are due because of steps that have ended.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes
        self.watched = False
        self.releases = False

    @property
    def rings(self) -> bool:
        """Whether there may be jobs that are due, or a place that others wait for."""
        return self.releases or any(
            outcome.frees is not None or not isinstance(outcome, Complete) or outcome.letter is not None
            for outcome in self.outcomes
        )

    def __call__(self, raw: sqlite3.Connection) -> set[str]:
        """Write them; return the ids of those whose claim is no longer theirs."""
        self.watched = self.releases = False
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
                if outcome.keep is None and outcome.workflow is None:
                    continue
                kept.append(outcome)
            if outcome.trouble is not None or outcome.note is not None:
                told.append(outcome)
        if unwatched and len(completed) > 1:
            return None  # one group must not be gone before the next one is refused
        if told:
            history.tell(raw, told)
        if kept:
            for statement, values in portions("keep", kept, _kept, most=AT_ONCE):
                raw.execute(statement, values)
        lost: set[str] = set()
        for lapsed_by, group in completed.items():
            missing = _finish(raw, "remove", group, lapsed_by, unwatched=unwatched)
            if missing is None:
                return None
            lost |= missing
        for lapsed_by, group in again.items():
            lost |= _finish(raw, "reschedule", group, lapsed_by) or set()
        accepted = [outcome for outcome in outcomes if outcome.id not in lost] if lost else outcomes
        self._follow(raw, accepted, end_marked(raw) if again else [])
        return lost

    def _follow(self, raw: sqlite3.Connection, outcomes: Sequence[Outcome], ended: Sequence[Ended]) -> None:
        """Do what follows from outcomes that were accepted, and from jobs that were cancelled instead."""
        ids = {job.id for job in ended}
        if ids and not self.watched:
            self.watched = bool(history.watched(raw, list(ids)))
        freed: dict[str, Place] = {}
        letters: list[NewJob] = []
        gone: list[str] = []
        tallies: list[Tally] = []
        steps: list[Complete] = []
        for outcome in outcomes:
            if outcome.tally is not None:
                tallies.append(only_times(outcome.tally) if outcome.id in ids else outcome.tally)
            if outcome.frees is not None:
                freed[outcome.id] = outcome.frees
            if isinstance(outcome, Complete):
                if outcome.letter is not None:
                    letters.append(outcome.letter)
                if outcome.workflow is not None:
                    steps.append(outcome)
                elif outcome.beside and outcome.keep is None:
                    gone.append(outcome.id)
        tally(raw, Counter(tallies))
        for job in ended:
            freed.setdefault(job.id, job.place)
        let_in(raw, freed.values())
        if letters:
            add_again(raw, letters)
        if gone:
            history.forget(raw, gone)
        ends = [_end(outcome) for outcome in steps] + [job.end for job in ended if job.end is not None]
        if ends:
            self._go_on(raw, steps, ends)

    def _go_on(self, raw: sqlite3.Connection, steps: Sequence[Complete], ends: Sequence[End]) -> None:
        """Do what follows from the ends of steps of workflows."""
        flows = workflows.follow(raw, ends, [step for step in steps if step.extends])
        self.watched = self.watched or flows.heard
        self.releases = flows.releases


def finish(raw: sqlite3.Connection, *, outcomes: Sequence[Outcome]) -> set[str]:
    """Write outcomes; return the ids of those whose claim is no longer theirs."""
    return Finish(outcomes)(raw)


def end_cancelled(raw: sqlite3.Connection) -> list[str]:
    """End the pending jobs that are to be cancelled, with what follows; return their ids."""
    ended = end_marked(raw)
    let_in(raw, [job.place for job in ended if job.had_turn])
    ends = [job.end for job in ended if job.end is not None]
    if ends:
        workflows.follow(raw, ends)
    return [job.id for job in ended]


def _seen(outcome: Outcome, watched: set[str]) -> Outcome:
    """Return an outcome by which a job that somebody waits for is kept for a while; a step is, anyway."""
    if outcome.id not in watched or not isinstance(outcome, Complete) or outcome.workflow is not None:
        return outcome
    return history.kept_for_watchers(outcome)


def _kept(outcome: Complete) -> tuple[object, ...]:
    """Return the row of the statement `keep`.

    A step is kept until its workflow has ended, with its payload if it may run again.
    """
    keep, until = outcome.keep, None
    payload = keep is not None and keep.payload
    if outcome.workflow is not None:
        payload = payload or outcome.status is not JobStatus.SUCCEEDED
    elif keep is not None:
        until = keep.until
    return (
        outcome.id,
        outcome.fence,
        outcome.lapsed_by,
        payload,
        until,
        outcome.status._value_,
        outcome.finished_at,
        outcome.started_at,
        outcome.duration,
        outcome.attempt,
        outcome.crashes,
        outcome.error,
        outcome.result,
        outcome.trouble is not None,
    )


def _end(outcome: Complete) -> End:
    """Return the end of a step that an outcome is."""
    return End(
        outcome.workflow or "",
        outcome.step or 0,
        outcome.status._value_,
        outcome.finished_at,
        outcome.fence,
        retention(outcome.keep, outcome.finished_at),
        outcome.keep is not None and outcome.keep.payload,
    )


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
    found = held(raw, fences, lapsed_by)
    rest = [outcome for outcome in outcomes if outcome.id in found]
    if rest and not _whole(raw, name, rest, lapsed_by, unwatched):
        if unwatched:
            return None
        raise LookupError(f"claims of {len(rest)} jobs are held, and were not found")
    return fences.keys() - found


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
