"""What people ask of a store, and what they do to its jobs: the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .._graph import StepResult, WorkflowRun
from .._history import Note
from .._job import JobStatus, OwnerInfo, TaskInfo
from .._query import Action, Found, SortKey, Wanted
from .._stats import MOST_COUNTED, Count

__all__ = ["MOST_COUNTED", "WATCHED_FOR", "Service"]

WATCHED_FOR = 60_000
"""Milliseconds for which a completed job is kept at least, without its payload, if somebody waits for it."""


class Service(Protocol):
    """Lists, actions, notes, waits, statistics."""

    async def find(
        self,
        wanted: Wanted,
        *,
        limit: int,
        after: SortKey | None = None,
        before: SortKey | None = None,
        now: int,
        brief: bool = False,
    ) -> Found:
        """Return the first jobs that are wanted, or those after a sort key, or the last ones before one.

        Always in their order, at most `limit`. What it costs does not grow with the number of jobs: it
        looks at `LOOKS` jobs at most, and says so (`limited`) if it has to stop there. `after` and `before`
        need not be those of a job that is there still. `brief`: of payload, result and error only the first
        `BRIEF` bytes, and characters; the rest is not read.
        """
        ...

    async def count(self, wanted: Wanted, *, most: int, now: int) -> Count:
        """Return how many jobs are wanted, capped at `most`.

        Where jobs have to be looked at one by one, it is capped once `LOOKS` have been.
        """
        ...

    async def act(self, action: Action, job_ids: Sequence[str], *, now: int) -> Sequence[str]:
        """Do something to jobs, all in one transaction; return the ids of those that it was done to.

        The others tell by that that they were in no state for it. What it frees, it lets in. Of a workflow,
        `Rerun` revives what was skipped because of its steps, and jobs of it are deleted with the whole
        only: `Delete` takes the ids of workflows, of which nothing runs. `Rerun` of such an id is of all
        its steps that have failed or were cancelled.
        """
        ...

    async def workflow(self, workflow_id: str, *, now: int) -> WorkflowRun | None:
        """Return a workflow with its steps; None once its retention has ended."""
        ...

    async def workflows(
        self, *, states: frozenset[JobStatus] | None, limit: int, before: str | None, now: int
    ) -> Sequence[WorkflowRun]:
        """Return workflows without their steps, by id, greatest first: those whose id is less than `before`.

        Of a certain state, it looks at `LOOKS` of them at most.
        """
        ...

    async def step_results(
        self, workflow_id: str, number: int | None, *, deep: bool = False
    ) -> Sequence[StepResult]:
        """Return what the steps have left that a node comes after, in their order, joins replaced by theirs.

        `deep`: also what those come after, and so on. `number` None: all steps. Callbacks come after all
        steps; joins are left out, so are steps that have not ended.
        """
        ...

    async def note(self, notes: Sequence[Note]) -> None:
        """Store what running jobs say of themselves; notes of claims that are no longer held are dropped.

        Not durable until the job's outcome is. Of each job the newest `MOST_LINES` lines are kept.
        """
        ...

    async def watch(self, job_ids: Sequence[str], *, owner: str) -> None:
        """Have the listeners of an owner called when one of these jobs completes, wherever that is.

        It is then kept for `WATCHED_FOR` at least.
        """
        ...

    async def unwatch(self, job_ids: Sequence[str], *, owner: str) -> None:
        """Undo `watch`."""
        ...

    async def which_ended(self, job_ids: Sequence[str], *, now: int) -> Sequence[str]:
        """Return which of these jobs are neither pending nor running."""
        ...

    async def stats(
        self,
        *,
        since: int,
        until: int,
        step: int | None = None,
        queue: str | None = None,
        together: bool = False,
    ) -> Sequence[tuple[str, int, str, int, int]]:
        """Return what was counted: queue, begin of the step, what, bucket, how many.

        What began at or after `since` and before `until`, in steps of so many milliseconds from `since` on;
        None: in one. Older than `KEEP_MINUTES`, it is counted in whole hours: those that begin in that time.
        `together`: of all queues, whose name is then "".
        """
        ...

    async def numbers(self, *, since: int, until: int) -> Sequence[tuple[str, int, str, int, int]]:
        """Return what was counted of each queue in a time, but not how long attempts ran and had waited.

        That is most of what is counted, so this is quicker than `stats`.
        """
        ...

    async def sum_up(self, *, now: int) -> None:
        """Sum up statistics older than `KEEP_MINUTES` by the hour; forget those older than `KEEP_HOURS`."""
        ...

    async def tasks(self) -> Sequence[TaskInfo]:
        """Return the task types that were declared, by queue and name."""
        ...

    async def owners(self, *, now: int) -> Sequence[OwnerInfo]:
        """Return the owners that are known, those that have claims too, by id."""
        ...
