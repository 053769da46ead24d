"""What stores tell of workflows, made of what they keep: plain functions, the same for all stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import msgspec

from .._clock import from_millis
from .._graph import Kind, StepRun, WorkflowRun
from .._job import JobStatus
from ._flows import SKIPPED, Flow

__all__ = ["Node", "before", "ended_as", "has_begun", "run_of"]


class Node(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A node of a workflow, with what is to be told of its job. `status` None: it has not ended.

    Instants in milliseconds; `due_at`: the public due time. Without a job (a join), the rest is left out.
    """

    number: int
    kind: str
    job_id: str | None
    name: str | None
    status: str | None
    if_failed: str
    after: tuple[int, ...]
    queue: str | None = None
    task: str | None = None
    job_status: str | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    due_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    progress: float | None = None
    error: str | None = None


def run_of(flow: Flow, *, begun: bool, nodes: Sequence[Node] = ()) -> WorkflowRun:
    """Return a workflow as it is now. `begun`: whether a step has started, see `has_begun`."""
    if flow.status is not None:
        status = JobStatus(flow.status)
    else:
        status = JobStatus.RUNNING if begun else JobStatus.PENDING
    return WorkflowRun(
        id=flow.id,
        name=flow.name,
        status=status,
        created_at=from_millis(flow.created_at),
        finished_at=None if flow.finished_at is None else from_millis(flow.finished_at),
        cancelled_at=None if flow.cancelled_at is None else from_millis(flow.cancelled_at),
        expires_at=None if flow.expires_at is None else from_millis(flow.expires_at),
        size=flow.size,
        left=flow.left,
        steps=tuple([_step(node) for node in nodes]),
    )


def has_begun(flow: Flow, attempts: Iterable[int | None]) -> bool:
    """Return whether any node of a workflow has ended, or been tried: the attempts of their jobs tell."""
    return flow.left < flow.size or flow.ends > 0 or any(attempts)


def _step(node: Node) -> StepRun:
    """Return a node as it is now."""
    return StepRun(
        number=node.number,
        kind=cast("Kind", node.kind),
        id=node.job_id,
        name=node.name,
        queue=node.queue,
        task=node.task,
        status=_status(node),
        skipped=node.status == SKIPPED,
        after=node.after,
        if_failed=node.if_failed,
        attempt=node.attempt or 0,
        max_attempts=node.max_attempts or 0,
        due_at=None if node.due_at is None else from_millis(node.due_at),
        started_at=None if node.started_at is None else from_millis(node.started_at),
        finished_at=None if node.finished_at is None else from_millis(node.finished_at),
        progress=node.progress,
        error=node.error,
    )


def _status(node: Node) -> JobStatus:
    if node.status is not None:
        return ended_as(node.status)
    return JobStatus.RUNNING if node.job_status == JobStatus.RUNNING else JobStatus.PENDING


def ended_as(status: str) -> JobStatus:
    """Return the status of a node that has ended: one that was skipped counts as cancelled."""
    return JobStatus.CANCELLED if status == SKIPPED else JobStatus(status)


def before(nodes: Mapping[int, tuple[str, Sequence[int]]], number: int | None, *, deep: bool) -> list[int]:
    """Return the numbers of the steps that a node comes after; joins are replaced by theirs.

    Of each node that may matter `nodes` tells its kind and what it comes after. In the order in which it
    comes after them; with `deep`, and of callbacks, or None, which come after all steps, by number.
    """
    if number is None or (number in nodes and nodes[number][0] == "callback"):
        return sorted(number for number, (kind, _) in nodes.items() if kind in ("step", "fallback"))
    found: dict[int, None] = {}
    seen: set[int] = set()
    ahead = [*reversed(nodes[number][1])] if number in nodes else []
    while ahead:
        one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        kind, after = nodes[one]
        if kind != "join":
            found[one] = None
        if kind == "join" or deep:
            ahead += reversed(after)
    return sorted(found) if deep else list(found)
