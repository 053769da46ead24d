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
from .._flows import Flow
from .._runs import Node, before, ended_as, has_begun, run_of
from .sql import fetch, text
from .walks import AFTER_ALL, AT_ONCE, decoded

__all__ = ["step_results", "workflow", "workflows"]

FIRST_NODES = 100
"""Nodes that tell, in lists, whether a workflow has begun of which nothing has ended and nothing runs."""

_flows = msgspec.json.Decoder(list[Flow])
_nodes = msgspec.json.Decoder(list[Node])


def workflow(raw: sqlite3.Connection, workflow_id: str, now: int) -> WorkflowRun | None:
    """Return a workflow with its steps."""
    for flow in _flows_of(raw, [workflow_id], now):
        nodes = _nodes.decode(fetch(raw, "flow_nodes", {"id": workflow_id})[0][0])
        nodes.sort(key=lambda node: node.number)
        return run_of(flow, begun=has_begun(flow, (node.attempt for node in nodes)), nodes=nodes)
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
    return [run_of(flow, begun=page[flow.id] is not JobStatus.PENDING) for flow in found]


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
    return _flows.decode(fetch(raw, "flows", {"ids": text(ids), "now": now})[0][0])


def step_results(
    raw: sqlite3.Connection, workflow_id: str, number: int | None, *, deep: bool
) -> list[StepResult]:
    """Return what the steps have left that a node comes after."""
    numbers = before(_nodes_for(raw, workflow_id, number, deep=deep), number, deep=deep)
    found: list[StepResult] = []
    for begin in range(0, len(numbers), AT_ONCE):
        wanted = {"id": workflow_id, "numbers": text(numbers[begin : begin + AT_ONCE])}
        found += [_result(*row) for row in decoded(raw, "results_at", wanted)]
    return found


def _result(
    number: int, job_id: str, name: str | None, status: str, kept: int, result: str | None
) -> StepResult:
    left = (None if result is None else result.encode()) if kept else b""
    return StepResult(number=number, id=job_id, name=name, status=ended_as(status), result=left)


def _nodes_for(
    raw: sqlite3.Connection, workflow_id: str, number: int | None, *, deep: bool
) -> dict[int, tuple[str, list[int]]]:
    """Return the nodes that may matter for what comes before one: all of them, or this one and joins before."""
    nodes: dict[int, tuple[str, list[int]]] = {}

    def take(name: str, **parameters: Any) -> set[int]:
        rows = decoded(raw, name, {"id": workflow_id, **parameters})
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
