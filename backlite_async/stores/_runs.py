"""What is told of workflows, made of what stores keep of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from .._clock import from_millis
from .._graph import Kind, StepResult, StepRun, WorkflowId, WorkflowRun
from .._job import JobStatus
from ._flows import SKIPPED, Flow, Step

__all__ = ["before", "step_result", "step_run", "workflow_run"]


def workflow_run(flow: Flow, *, begun: bool, steps: Sequence[StepRun] = ()) -> WorkflowRun:
    """Return how a workflow is doing; `begun`: whether any of its nodes has started, or ended."""
    if flow.status is not None:
        status = JobStatus(flow.status)
    else:
        status = JobStatus.RUNNING if begun else JobStatus.PENDING
    return WorkflowRun(
        id=WorkflowId(flow.id),
        name=flow.name,
        status=status,
        created_at=from_millis(flow.created_at),
        finished_at=None if flow.finished_at is None else from_millis(flow.finished_at),
        cancelled_at=None if flow.cancelled_at is None else from_millis(flow.cancelled_at),
        expires_at=None if flow.expires_at is None else from_millis(flow.expires_at),
        size=flow.size,
        left=flow.left,
        steps=tuple(steps),
    )


def step_run(step: Step, after: tuple[int, ...], job: Mapping[str, Any] | None) -> StepRun:
    """Return how a node is doing; `job`: the columns of its job, None: it has none."""
    of_job = {} if job is None else job
    due_at, started_at = of_job.get("scheduled_at"), of_job.get("started_at")
    finished_at = of_job.get("finished_at")
    return StepRun(
        number=step.number,
        kind=cast("Kind", step.kind),
        id=step.job_id,
        name=step.name,
        queue=of_job.get("queue"),
        task=of_job.get("task"),
        status=_status(step) if job is None else JobStatus(job["status"]),
        skipped=step.status == SKIPPED,
        after=after,
        if_failed=step.if_failed,
        attempt=of_job.get("attempt", 0),
        max_attempts=of_job.get("max_attempts", 0),
        due_at=None if due_at is None else from_millis(due_at),
        started_at=None if started_at is None else from_millis(started_at),
        finished_at=None if finished_at is None else from_millis(finished_at),
        progress=of_job.get("progress"),
        error=of_job.get("error"),
    )


def step_result(step: Step, result: tuple[bytes | None] | None) -> StepResult:
    """Return what a step has left; `result` None: nothing of its job is kept."""
    return StepResult(
        number=step.number,
        id=step.job_id or "",
        name=step.name,
        status=_status(step),
        result=b"" if result is None else result[0],
    )


def before(number: int | None, deep: bool, nodes: Mapping[int, tuple[str, Sequence[int]]]) -> list[int]:
    """Return the numbers of the nodes whose results a node is to see; `nodes`: kind and what is before each.

    In the order in which it comes after them, a join replaced by what it joins; `deep`: also those before
    these, by number. A callback comes after all others but callbacks; None: after all.
    """
    if number is None or (number in nodes and nodes[number][0] == "callback"):
        unseen = ("join",) if number is None else ("join", "callback")
        return [one for one in sorted(nodes) if nodes[one][0] not in unseen]
    found: dict[int, None] = {}
    seen: set[int] = set()
    stack = list(reversed(nodes[number][1])) if number in nodes else []
    while stack:
        one = stack.pop()
        if one in seen:
            continue
        seen.add(one)
        kind, earlier = nodes[one]
        if kind != "join":
            found[one] = None
        if kind == "join" or deep:
            stack += reversed(earlier)
    return sorted(found) if deep else list(found)


def _status(step: Step) -> JobStatus:
    if step.status is None:
        return JobStatus.PENDING
    return JobStatus.CANCELLED if step.status == SKIPPED else JobStatus(step.status)
