"""What people ask of a faulty store, do to its jobs, and wait for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from backlite_async._graph import StepResult, WorkflowRun
from backlite_async._history import Note
from backlite_async._inspection import Inspection
from backlite_async._job import Hands, JobStatus, OwnerInfo, TaskInfo
from backlite_async._query import Action, Found, SortKey, Wanted
from backlite_async._stats import Count, StatsRow

from .faults import Faults
from .history import Revoked, Steered
from .memory import SharedMemory
from .telling import Teller
from .telling import now as at_once

__all__ = ["Asking"]


class Asking(Faults):
    """The part of a faulty store that lists, steers, notes, watches and counts."""

    _inner: SharedMemory
    _teller: Teller

    def _ring_all(self) -> None:
        raise NotImplementedError

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
        """Return jobs that are wanted."""
        places = {"after": after, "before": before}
        find = partial(self._inner.find, wanted, limit=limit, now=now, brief=brief, **places)
        return await self._do("find", lambda: at_once(find()))

    async def count(self, wanted: Wanted, *, most: int, now: int) -> Count:
        """Return how many jobs are wanted."""
        return await self._do("count", lambda: at_once(self._inner.count(wanted, most=most, now=now)))

    async def act(self, action: Action, job_ids: Sequence[str], *, now: int) -> Sequence[str]:
        """Do something to jobs."""
        act = partial(self._teller.act, action, job_ids, now)
        done, _ = await self._do("act", act, committed=lambda result: self._acted(result[1]))
        return done

    def _acted(self, events: Sequence[Steered | Revoked]) -> None:
        for event in events:
            event.told = True
        self._ring_all()

    async def workflow(self, workflow_id: str, *, now: int) -> WorkflowRun | None:
        """Return a workflow with its steps."""
        return await self._do("workflow", lambda: at_once(self._inner.workflow(workflow_id, now=now)))

    async def workflows(
        self, *, states: frozenset[JobStatus] | None, limit: int, before: str | None, now: int
    ) -> Sequence[WorkflowRun]:
        """Return workflows without their steps."""
        listed = partial(self._inner.workflows, states=states, limit=limit, before=before, now=now)
        return await self._do("workflows", lambda: at_once(listed()))

    async def step_results(
        self, workflow_id: str, number: int | None, *, deep: bool = False
    ) -> Sequence[StepResult]:
        """Return what steps have left."""
        found = partial(self._inner.step_results, workflow_id, number, deep=deep)
        return await self._do("step_results", lambda: at_once(found()))

    async def note(self, notes: Sequence[Note]) -> None:
        """Store what running jobs say of themselves."""
        await self._do("note", lambda: at_once(self._inner.note(notes)))

    async def watch(self, job_ids: Sequence[str], *, owner: str) -> None:
        """Have an owner told when jobs complete."""
        await self._do("watch", lambda: at_once(self._inner.watch(job_ids, owner=owner)))

    async def unwatch(self, job_ids: Sequence[str], *, owner: str) -> None:
        """Undo `watch`."""
        await self._do("unwatch", lambda: at_once(self._inner.unwatch(job_ids, owner=owner)))

    async def which_ended(self, job_ids: Sequence[str], *, now: int) -> Sequence[str]:
        """Return which of these jobs are neither pending nor running."""
        ended = partial(self._inner.which_ended, job_ids, now=now)
        return await self._do("which_ended", lambda: at_once(ended()))

    async def stats(
        self,
        *,
        since: int,
        until: int,
        step: int | None = None,
        queue: str | None = None,
        together: bool = False,
    ) -> Sequence[StatsRow]:
        """Return what was counted."""
        stats = partial(
            self._inner.stats, since=since, until=until, step=step, queue=queue, together=together
        )
        return await self._do("stats", lambda: at_once(stats()))

    async def numbers(self, *, since: int, until: int) -> Sequence[StatsRow]:
        """Return what was counted of each queue in a time, but not how long attempts ran and had waited."""
        numbers = partial(self._inner.numbers, since=since, until=until)
        return await self._do("numbers", lambda: at_once(numbers()))

    async def sum_up(self, *, now: int) -> None:
        """Sum up old statistics."""
        await self._do("sum_up", lambda: at_once(self._inner.sum_up(now=now)))

    async def inspect(self, *, now: int, ended_by: int, late_by: int) -> Inspection:
        """Look for what may be wrong."""
        inspect = partial(self._inner.inspect, now=now, ended_by=ended_by, late_by=late_by)
        return await self._do("inspect", lambda: at_once(inspect()))

    async def versions(self) -> tuple[int, int]:
        """Return the version of the schema."""
        return await self._do("versions", lambda: at_once(self._inner.versions()))

    async def vacuum(self) -> None:
        """Build the file anew."""
        await self._do("vacuum", lambda: at_once(self._inner.vacuum()))

    def handles(self, owner: str, hands: Hands) -> None:
        """Let others know what an owner runs."""
        self._inner.handles(owner, hands)

    async def tasks(self) -> Sequence[TaskInfo]:
        """Return the task types that were declared."""
        return await self._do("tasks", lambda: at_once(self._inner.tasks()))

    async def owners(self, *, now: int) -> Sequence[OwnerInfo]:
        """Return the owners that are known."""
        return await self._do("owners", lambda: at_once(self._inner.owners(now=now)))
