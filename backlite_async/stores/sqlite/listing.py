"""Lists of the SQLite store, and what people do to the jobs in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from ..._graph import StepResult, WorkflowRun
from ..._job import JobStatus
from ..._query import Action, Found, SortKey, Wanted
from ..._stats import Count
from . import finding, graphs
from .actions import act
from .opened import OpenStore

__all__ = ["ListingStore", "at_one_instant"]

T = TypeVar("T")


class ListingStore(OpenStore):
    """Finds jobs and workflows, and acts upon jobs."""

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
        """Return the first jobs that are wanted, or those after a sort key, or the last ones before one."""
        find = partial(
            finding.find, wanted=wanted, limit=limit, after=after, before=before, now=now, brief=brief
        )
        return await self._database.read(lambda raw: at_one_instant(raw, find))

    async def count(self, wanted: Wanted, *, most: int, now: int) -> Count:
        """Return how many jobs are wanted, capped at `most`."""
        count = partial(finding.count, wanted=wanted, most=most, now=now)
        return await self._database.read(lambda raw: at_one_instant(raw, count))

    async def act(self, action: Action, job_ids: Sequence[str], *, now: int) -> Sequence[str]:
        """Do something to jobs; return the ids of those that it was done to."""
        do = partial(act, action=action, job_ids=job_ids, now=now)
        return await self._writing().submit(do, committed=self._ordered)

    async def workflow(self, workflow_id: str, *, now: int) -> WorkflowRun | None:
        """Return a workflow with its steps; None once its retention has ended."""
        read = partial(graphs.workflow, workflow_id=workflow_id, now=now)
        return await self._database.read(lambda raw: at_one_instant(raw, read))

    async def workflows(
        self, *, states: frozenset[JobStatus] | None, limit: int, before: str | None, now: int
    ) -> Sequence[WorkflowRun]:
        """Return workflows without their steps, greatest id first: those whose ids are less than `before`."""
        read = partial(graphs.workflows, states=states, limit=limit, before=before, now=now)
        return await self._database.read(lambda raw: at_one_instant(raw, read))

    async def step_results(
        self, workflow_id: str, number: int | None, *, deep: bool = False
    ) -> Sequence[StepResult]:
        """Return what the steps have left that a node comes after."""
        read = partial(graphs.step_results, workflow_id=workflow_id, number=number, deep=deep)
        return await self._database.read(lambda raw: at_one_instant(raw, read))


def at_one_instant(raw: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]) -> T:
    """Read by several statements as if by one: no job is seen twice, or missed, that moves meanwhile."""
    raw.execute("BEGIN")
    try:
        return read(raw)
    finally:
        if raw.in_transaction:  # an error may have ended it
            raw.execute("ROLLBACK")
