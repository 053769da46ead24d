"""What must be true of workflows, at any moment of any life that is killed, and in the end."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["Flow", "astray", "entangled", "flows_in"]


class Node(NamedTuple):
    """What is stored of a node."""

    number: int
    kind: str
    job_id: str | None
    status: str | None
    blocked: int
    if_failed: str
    after: list[int]
    next: list[int]


@dataclass(frozen=True)
class Flow:
    """What is stored of a workflow, and its jobs: each runs, is due, is blocked, or has ended."""

    id: str
    status: str | None
    size: int
    left: int
    nodes: list[Node]
    jobs: dict[str, str]


def flows_in(connection: sqlite3.Connection, only: str | None = None) -> tuple[Flow, ...]:
    """Read all workflows, or the one of this id."""
    live = """
        SELECT id, CASE WHEN status = 'running' THEN 'running' WHEN blocked IS NOT NULL THEN 'blocked'
            WHEN due_at IS NULL THEN 'never due' ELSE 'due' END
        FROM backlite_jobs WHERE workflow = :id
    """
    kept = "SELECT id, status FROM backlite_completed WHERE workflow = :id"
    columns = "number, kind, job_id, status, blocked, if_failed, after, next"
    found = []
    for flow_id, status, size, left in connection.execute(
        'SELECT id, status, size, "left" FROM backlite_workflows WHERE id = ?1 OR ?1 IS NULL', (only,)
    ).fetchall():
        rows = connection.execute(
            f"SELECT {columns} FROM backlite_steps WHERE workflow = ?", (flow_id,)
        ).fetchall()
        nodes = [Node._make([*row[:6], json.loads(row[6]), json.loads(row[7])]) for row in rows]
        jobs = [*connection.execute(live, {"id": flow_id}), *connection.execute(kept, {"id": flow_id})]
        found.append(
            Flow(
                flow_id,
                status,
                size,
                left,
                nodes,
                {job[0]: job[1] for job in jobs},
            )
        )
    return tuple(found)


def entangled(flows: tuple[Flow, ...]) -> list[str]:
    """Return what cannot be true of workflows at any moment."""
    return [f"workflow {flow.id}: {what}" for flow in flows for what in _wrong(flow)]


def _wrong(flow: Flow) -> list[str]:
    by_number = {node.number: node for node in flow.nodes}
    wrong = []
    if sorted(by_number) != list(range(flow.size)):
        wrong.append(f"{len(by_number)} nodes, not {flow.size}")
    if (left := sum(node.status is None for node in flow.nodes)) != flow.left:
        wrong.append(f"{left} nodes have not ended, not {flow.left}")
    if flow.status is None and not any(
        node.status is None and node.kind != "callback" for node in flow.nodes
    ):
        wrong.append("all of it has ended, and it has not")
    for node in flow.nodes:
        wrong += [f"node {node.number}: {what}" for what in _wrong_node(flow, node, by_number)]
    ids = Counter(node.job_id for node in flow.nodes if node.job_id is not None)
    wrong += [f"job {job_id} is {count} nodes" for job_id, count in ids.items() if count > 1]
    wrong += [f"job {job_id} is none of its nodes" for job_id in flow.jobs if job_id not in ids]
    return wrong


def _wrong_node(flow: Flow, node: Node, nodes: dict[int, Node]) -> list[str]:
    wrong = []
    before = [nodes[number] for number in node.after]
    if any(node.number not in earlier.next for earlier in before if node.kind != "fallback"):
        wrong.append("one before it does not know it")
    waits = sum(not _frees(earlier) for earlier in before)
    job = flow.jobs.get(node.job_id or "", "gone")
    if node.status is None:
        if node.kind in ("step", "join") and node.blocked not in (0, waits):
            wrong.append(f"blocked by {node.blocked}, not {waits}")
        if node.kind == "join" and not node.blocked:
            wrong.append("a join that nothing blocks has not ended")
        if node.job_id and (job == "blocked") != (node.blocked > 0):
            wrong.append(f"blocked by {node.blocked}, and its job is {job}")
        if node.job_id and job not in ("running", "blocked", "due"):
            wrong.append(f"it has not ended, and its job is {job}")
    else:
        ended = "cancelled" if node.status == "skipped" else node.status
        if node.job_id and job != ended:
            wrong.append(f"it is {node.status}, and its job is {job}")
    return wrong


def _frees(node: Node) -> bool:
    return node.status == "succeeded" or (
        node.if_failed == "continue" and node.status in ("failed", "cancelled")
    )


def astray(flows: tuple[Flow, ...], events: list[dict[str, Any]]) -> list[str]:
    """Return what workflows have come to otherwise than they must, once nothing is left of them to do."""
    states = {flow.id: flow.status for flow in flows}
    wrong = [f"workflow {flow.id} has not ended" for flow in flows if flow.status is None]
    for event in events:
        if event["what"] == "flow" and event["end"] not in ("any", states.get(event["flow"])):
            wrong.append(
                f"workflow {event['name']} is {states.get(event['flow'], 'gone')}, not {event['end']}"
            )
        if event["what"] == "mistold":
            wrong.append(f"{event['name']} was told of {event['told']} results")
    for flow in flows:
        skipped = {node.job_id for node in flow.nodes if node.status == "skipped"}
        wrong += [
            f"{event['name']} was skipped and has run"
            for event in events
            if event["what"] == "start" and event["job"] in skipped
        ]
        callbacks = [node for node in flow.nodes if node.kind == "callback"]
        if len(callbacks) > 1:
            wrong.append(f"workflow {flow.id} has called back {len(callbacks)} times")
    return wrong
