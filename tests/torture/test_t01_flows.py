"""The judge of workflows that were killed: what is as it should be passes, whatever is not is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from .t01_flows import Flow, Node, astray, entangled

ENDED = Flow(
    id="w",
    status="failed",
    size=5,
    left=0,
    nodes=[
        Node(0, "step", "a", "succeeded", 0, "cancel", [], [2]),
        Node(1, "step", "b", "failed", 0, "cancel", [], [2]),
        Node(2, "join", None, "skipped", 2, "cancel", [0, 1], [3]),
        Node(3, "step", "c", "skipped", 1, "cancel", [2], []),
        Node(4, "callback", "d", "succeeded", 0, "continue", [], []),
    ],
    jobs={"a": "succeeded", "b": "failed", "c": "cancelled", "d": "succeeded"},
)
"""Two steps, of which one has failed, what joins them, and a callback."""

LIVE = Flow(
    id="w",
    status=None,
    size=3,
    left=2,
    nodes=[
        Node(0, "step", "a", "succeeded", 0, "cancel", [], [2]),
        Node(1, "step", "b", None, 0, "cancel", [], [2]),
        Node(2, "step", "c", None, 1, "cancel", [0, 1], []),
    ],
    jobs={"a": "succeeded", "b": "running", "c": "blocked"},
)


def test_what_is_as_it_should_be_passes() -> None:
    events = [
        {"what": "flow", "flow": "w", "name": "w", "end": "failed"},
        {"what": "start", "job": "a", "name": "a"},
        {"what": "flow", "flow": "w", "name": "w", "end": "any"},
    ]
    assert entangled((ENDED, LIVE)) == []
    assert astray((ENDED,), events) == []


def changed(flow: Flow, number: int, **fields: Any) -> Flow:
    """Return a workflow with another node."""
    nodes = [node._replace(**fields) if node.number == number else node for node in flow.nodes]
    return replace(flow, nodes=nodes)


@pytest.mark.parametrize(
    ("flow", "found"),
    [
        (replace(ENDED, left=1), "0 nodes have not ended, not 1"),
        (replace(ENDED, size=6), "5 nodes, not 6"),
        (replace(ENDED, status=None), "all of it has ended, and it has not"),
        (replace(ENDED, jobs={**ENDED.jobs, "c": "due"}), "it is skipped, and its job is due"),
        (replace(ENDED, jobs={**ENDED.jobs, "x": "due"}), "job x is none of its nodes"),
        (changed(ENDED, 3, job_id="a"), "job a is 2 nodes"),
        (changed(ENDED, 0, next=[]), "one before it does not know it"),
        (changed(LIVE, 2, blocked=2), "blocked by 2, not 1"),
        (changed(LIVE, 2, blocked=0), "blocked by 0, and its job is blocked"),
        (changed(LIVE, 2, kind="join", job_id=None, blocked=0), "a join that nothing blocks has not ended"),
        (replace(LIVE, jobs={**LIVE.jobs, "c": "due"}), "blocked by 1, and its job is due"),
        (replace(LIVE, jobs={**LIVE.jobs, "b": "never due"}), "it has not ended, and its job is never due"),
    ],
)
def test_what_cannot_be_true_at_any_moment_is_seen(flow: Flow, found: str) -> None:
    assert found in "; ".join(entangled((flow,)))


@pytest.mark.parametrize(
    ("flow", "event", "found"),
    [
        (ENDED, {"what": "flow", "flow": "w", "name": "n", "end": "succeeded"}, "n is failed, not succeeded"),
        (ENDED, {"what": "flow", "flow": "v", "name": "n", "end": "failed"}, "n is gone, not failed"),
        (ENDED, {"what": "mistold", "name": "c", "told": 3}, "c was told of 3 results"),
        (ENDED, {"what": "start", "job": "c", "name": "c"}, "c was skipped and has run"),
        (LIVE, {"what": "start", "job": "b", "name": "b"}, "workflow w has not ended"),
        (changed(ENDED, 0, kind="callback"), {"what": "end"}, "has called back 2 times"),
    ],
)
def test_what_must_not_be_in_the_end_is_seen(flow: Flow, event: dict[str, Any], found: str) -> None:
    assert found in "; ".join(astray((flow,), [event]))
