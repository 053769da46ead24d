"""Workflows to test stores with: built by name, and driven step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from backlite_async._graph import NewStep, NewWorkflow, StepRun, WorkflowRun
from backlite_async._job import ClaimedJob, Complete, JobStatus, Keep, Lane, More, NewJob, Reschedule
from backlite_async.stores import Store

FOREVER = Keep(until=None, payload=True)
FAR = 10**15
LANE = Lane(kinds=tuple((queue, "T") for queue in ("q", "r", "s")), room=1000)


class Node(msgspec.Struct, frozen=True):
    """A step or a join, by name, and the names of what it comes after."""

    name: str
    after: tuple[str, ...]
    joins: bool
    if_failed: str
    fallback: NewJob | None
    changes: dict[str, Any]


def step(
    name: str, *after: str, if_failed: str = "cancel", fallback: NewJob | None = None, **changes: Any
) -> Node:
    return Node(name, after, False, if_failed, fallback, changes)


def join(name: str, *after: str) -> Node:
    return Node(name, after, True, "cancel", None, {})


def new(job_id: str, **changes: Any) -> NewJob:
    """Return a job that is due at 0; what `More` has may be among the changes."""
    in_more = {name: changes.pop(name) for name in More.__struct_fields__ if name in changes}
    job = NewJob(id=job_id, queue="q", task="T", payload=b"{}", max_attempts=3, created_at=0, due_at=0)
    return msgspec.structs.replace(job, more=More(**in_more) if in_more else None, **changes)


def flow(*nodes: Node, id: str = "w", **changes: Any) -> NewWorkflow:  # noqa: A002 - as in NewWorkflow
    """Return a workflow of nodes; the ids of its jobs are their names."""
    number = {node.name: place for place, node in enumerate(nodes)}
    steps = [
        NewStep(
            job=None if node.joins else _job(node, id, number[node.name]),
            name=node.name,
            after=tuple(number[name] for name in node.after),
            next=tuple(number[other.name] for other in nodes if node.name in other.after),
            if_failed=node.if_failed,
            fallback=node.fallback,
        )
        for node in nodes
    ]
    return NewWorkflow(id=id, name=None, created_at=0, steps=tuple(steps), **changes)


def _job(node: Node, workflow: str, number: int) -> NewJob:
    job = new(node.name, **node.changes)
    more = job.more or More()
    more = msgspec.structs.replace(more, workflow=workflow, step=number, blocked=bool(node.after))
    return msgspec.structs.replace(job, more=more)


def extension(name: str, *after: int, **changes: Any) -> NewStep:
    """Return a node that extends a workflow."""
    return NewStep(job=new(name, **changes), name=name, after=after)


class Bench:
    """Claims jobs and ends them, by their ids."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = 1000
        self.claims: dict[str, ClaimedJob] = {}

    async def add(self, *nodes: Node, **changes: Any) -> NewWorkflow:
        """Add a workflow of nodes."""
        made = flow(*nodes, **changes)
        await self.store.add([], workflows=[made])
        return made

    async def claim(self) -> list[str]:
        """Claim all that is due; return the ids."""
        found = await self.store.claim([LANE], owner="mine", now=self.now, until=FAR)
        self.claims |= {job.id: job for job in found.jobs}
        return sorted(job.id for job in found.jobs)

    def outcome(self, job_id: str, status: str = "succeeded", **changes: Any) -> Complete:
        """Return the outcome that a claimed job has ended, kept for ever."""
        job = self.claims[job_id]
        done = Complete(
            id=job.id,
            fence=job.fence,
            status=JobStatus(status),
            finished_at=self.now,
            started_at=self.now,
            duration=1,
            attempt=job.attempt,
            crashes=job.crashes,
            error=None if status == "succeeded" else status,
            keep=FOREVER,
            beside=True,
            workflow=job.workflow,
            step=job.step,
        )
        return msgspec.structs.replace(done, **changes)

    def again(self, job_id: str, **changes: Any) -> Reschedule:
        """Return the outcome that a claimed job runs again at once."""
        job = self.claims[job_id]
        out = Reschedule(
            id=job.id, fence=job.fence, due_at=self.now, attempt=job.attempt, crashes=job.crashes
        )
        return msgspec.structs.replace(out, **changes)

    async def end(self, *job_ids: str, status: str = "succeeded", **changes: Any) -> list[str]:
        """End claimed jobs, all accepted; then claim what is due by that, and return the ids."""
        outcomes = [self.outcome(job_id, status, **changes) for job_id in job_ids]
        assert await self.store.finish(outcomes) == set()
        return await self.claim()

    async def run(self, workflow: str = "w") -> WorkflowRun:
        """Return a workflow that is there."""
        found = await self.store.workflow(workflow, now=self.now)
        assert found is not None
        return found

    async def steps(self, workflow: str = "w") -> dict[str, StepRun]:
        """Return its nodes, by name or id."""
        return {node.name or node.id or "": node for node in (await self.run(workflow)).steps}

    async def states(self, workflow: str = "w") -> dict[str, str]:
        """Return how its nodes are doing, by name or id."""
        nodes = await self.steps(workflow)
        return {name: "skipped" if node.skipped else str(node.status.value) for name, node in nodes.items()}

    async def status(self, workflow: str = "w") -> str:
        """Return how it is doing."""
        run = await self.run(workflow)
        assert await self.store.status(workflow, now=self.now) is run.status
        return str(run.status.value)

    async def cancel(self, *job_ids: str) -> tuple[Sequence[str], Sequence[str]]:
        """Cancel jobs, or workflows; return the ids of those that have ended, and that were asked to."""
        done = await self.store.cancel(job_ids, now=self.now)
        return done.ended, done.asked
