"""What is told of workflows: functions over a connection, which read at one instant."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from ... import _query
from ..._graph import StepResult, WorkflowRun
from ..._job import JobStatus
from .. import _runs
from .._flows import Flow, Step
from .sql import fetch, text
from .walks import AFTER_ALL, AT_ONCE, decoded

__all__ = ["step_results", "workflow", "workflows"]

FIRST_NODES = 100
"""Nodes that tell, in lists, whether a workflow has begun of which nothing has ended and nothing runs."""

_flows = msgspec.json.Decoder(list[Flow | None])
_nodes = msgspec.json.Decoder(list[tuple[Step, tuple[int, ...], list[Any] | None]])
_results = msgspec.json.Decoder(list[tuple[Step, int, str | None] | None])

_OF_JOB: Sequence[str] = (
    "queue task status attempt max_attempts scheduled_at started_at finished_at progress error".split()
)
"""What the statement `flow_nodes` tells of jobs."""


def workflow(raw: sqlite3.Connection, workflow_id: str, now: int) -> WorkflowRun | None:
    """Return a workflow with its steps."""
    for flow in _flows_of(raw, [workflow_id], now):
        steps, tried = [], False
        for step, after, columns in _nodes.decode(fetch(raw, "flow_nodes", {"id": workflow_id})[0][0]):
            job = None if columns is None else dict(zip(_OF_JOB, columns, strict=True))
            steps.append(_runs.step_run(step, after, job))
            tried = tried or steps[-1].attempt > 0
        begun = tried or flow.left < flow.size or flow.ends > 0
        return _runs.workflow_run(flow, begun=begun, steps=steps)
    return None


def workflows(
    raw: sqlite3.Connection,
    *,
    states: frozenset[JobStatus] | None,
    limit: int,
    before: str | None,
    now: int,
) -> list[WorkflowRun]:
    """Return workflows without their steps, those whose ids are less than `before`, greatest first."""
    walk = _walk(raw, before, limit, now)
    if states is not None:
        walk = ((flow_id, status) for flow_id, status in walk if status in states)
    page = dict(islice(walk, limit))
    found = _flows_of(raw, list(page), now)
    return [_runs.workflow_run(flow, begun=page[flow.id] is not JobStatus.PENDING) for flow in found]


def _walk(
    raw: sqlite3.Connection, before: str | None, limit: int, now: int
) -> Iterator[tuple[str, JobStatus]]:
    """Walk over the first `LOOKS` workflows before an id, the greatest first."""
    running: set[str] = set(decoded(raw, "flows_running", {}))
    here: str | bytes = AFTER_ALL if before is None else before
    size, looks = min(limit, AT_ONCE), max(_query.LOOKS, limit)
    while looks > 0:
        size = min(size, looks)
        found = decoded(raw, "flow_places", {"before": here, "size": size, "now": now})
        unsure = [
            flow_id
            for flow_id, status, begun, kept in found
            if kept and status is None and not begun and flow_id not in running
        ]
        tried = set(decoded(raw, "flows_tried", {"ids": text(unsure), "number": FIRST_NODES}))
        idle = {*unsure} - tried
        for flow_id, status, _, kept in found:
            if kept:
                live = JobStatus.PENDING if flow_id in idle else JobStatus.RUNNING
                yield flow_id, live if status is None else JobStatus(status)
        if len(found) < size:
            return
        looks -= size
        here, size = found[-1][0], min(2 * size, AT_ONCE)


def _flows_of(raw: sqlite3.Connection, ids: Sequence[str], now: int) -> list[Flow]:
    found = _flows.decode(fetch(raw, "flows", {"ids": text(ids), "now": now})[0][0])
    return [flow for flow in found if flow is not None]


def step_results(
    raw: sqlite3.Connection, workflow_id: str, number: int | None, *, deep: bool
) -> list[StepResult]:
    """Return what the steps have left that a node comes after."""
    numbers = _runs.before(number, deep, _nodes_for(raw, workflow_id, number, deep=deep))
    found: list[StepResult] = []
    for begin in range(0, len(numbers), AT_ONCE):
        wanted = {"id": workflow_id, "numbers": text(numbers[begin : begin + AT_ONCE])}
        for row in _results.decode(fetch(raw, "results_at", wanted)[0][0]):
            if row is not None:
                step, kept, result = row
                left = None if result is None else result.encode()
                found.append(_runs.step_result(step, (left,) if kept else None))
    return found


def _nodes_for(
    raw: sqlite3.Connection, workflow_id: str, number: int | None, *, deep: bool
) -> dict[int, tuple[str, list[int]]]:
    """Return the nodes that may matter for what comes before one: all, or this one and the joins before."""
    nodes: dict[int, tuple[str, list[int]]] = {}

    def take(name: str, **parameters: Any) -> set[int]:
        rows = [row for row in decoded(raw, name, {"id": workflow_id, **parameters}) if row is not None]
        nodes.update((node, (kind, after)) for node, kind, after in rows)
        joins = [after for node, kind, after in rows if kind == "join" or node == number]
        return {one for after in joins for one in after} - nodes.keys()

    if number is None or deep:
        take("nodes_before", number=number)
        return nodes
    wanted = {number}
    while wanted:
        wanted = take("nodes_at", numbers=text(sorted(wanted)))
        if nodes.get(number, ("",))[0] == "callback":
            take("nodes_before", number=None)
            return nodes
    return nodes
