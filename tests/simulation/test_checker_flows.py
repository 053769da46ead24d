"""The judge of workflows: what it calls wrong, in histories made by hand."""

from __future__ import annotations

import pytest

from backlite_async import JobStatus

from .flows import check_flows
from .history import (
    Claimed,
    Event,
    Extended,
    FlowActed,
    FlowEnded,
    FlowLeft,
    Node,
    Revoked,
    Steered,
    Stored,
    WaitBegan,
    WaitEnded,
    Woven,
    Written,
)

KIND = ("plain", "Simple")


def node(number: int, *after: int, kind: str = "step", **more: object) -> Node:
    job = None if kind == "join" else f"j{number}"
    return Node(number, kind, job, after, str(more.get("if_failed", "cancel")), bool(more.get("fallback")))


def ended_as(nodes: list[Node], *statuses: str | None) -> list[Node]:
    return [
        Node(n.number, n.kind, n.job, n.after, n.if_failed, n.fallback, status)
        for n, status in zip(nodes, statuses, strict=True)
    ]


def stored(job: str, number: int | None = None) -> Stored:
    return Stored(job=job, kind=KIND, due_at=0, max_attempts=1, max_crashes=3, flow="w", number=number)


def claimed(job: str) -> Claimed:
    return Claimed(job=job, owner=1, client="c", fence=1, attempt=1, crashes=0, now=0)


def written(job: str, status: JobStatus = JobStatus.SUCCEEDED) -> Written:
    return Written(job=job, owner=1, client="c", fence=1, accepted=True, status=status, attempt=1, crashes=0)


def ran(job: str, status: JobStatus = JobStatus.SUCCEEDED) -> list[Event]:
    return [claimed(job), written(job, status)]


def skipped(job: str) -> Revoked:
    return Revoked(job=job, ended=True, now=0, skipped=True)


def over(nodes: list[Node], state: str, *statuses: str | None, times: int = 1) -> list[Event]:
    shown = ended_as(nodes, *statuses)
    return [
        FlowEnded(flow="w", status=state, times=times, nodes=shown),
        FlowLeft(flow="w", status=state, nodes=shown),
    ]


def begun(nodes: list[Node], *callbacks: int | None) -> list[Event]:
    first, second, third = callbacks or (None, None, None)
    woven = Woven(flow="w", nodes=nodes, callbacks=(first, second, third))
    return [woven, *(stored(n.job) for n in nodes if n.job is not None)]


CHAIN = [node(0), node(1, 0)]
TOLERANT = [node(0, if_failed="continue"), node(1, 0)]
DIAMOND = [node(0), node(1), node(2, 0, 1, kind="join"), node(3, 2)]
FALLS_BACK = [node(0, fallback=True)]
FALLBACK = node(1, 0, kind="fallback", if_failed="continue")
CALLBACK = node(1, kind="callback", if_failed="continue")

FAILED, CANCELLED = JobStatus.FAILED, JobStatus.CANCELLED

RIGHT: dict[str, list[Event]] = {
    "chain": [*begun(CHAIN), *ran("j0"), *ran("j1"), *over(CHAIN, "succeeded", *["succeeded"] * 2)],
    "skip": [*begun(CHAIN), *ran("j0", FAILED), skipped("j1"), *over(CHAIN, "failed", "failed", "skipped")],
    "tolerant": [
        *begun(TOLERANT),
        *ran("j0", CANCELLED),
        *ran("j1"),
        *over(TOLERANT, "succeeded", "cancelled", "succeeded"),
    ],
    "join": [
        *begun(DIAMOND),
        *ran("j0"),
        *ran("j1"),
        *ran("j3"),
        *over(DIAMOND, "succeeded", *["succeeded"] * 4),
    ],
    "barred join": [
        *begun(DIAMOND),
        *ran("j0", FAILED),
        skipped("j3"),
        *ran("j1"),
        *over(DIAMOND, "failed", "failed", "succeeded", "skipped", "skipped"),
    ],
    "fallback": [
        *begun(FALLS_BACK),
        *ran("j0", FAILED),
        Woven(flow="w", nodes=[FALLBACK]),
        stored("j1"),
        *ran("j1"),
        *over([*FALLS_BACK, FALLBACK], "failed", "failed", "succeeded"),
    ],
    "callback": [
        *begun([node(0)], 7, None, None),
        *ran("j0"),
        Woven(flow="w", nodes=[CALLBACK]),
        stored("j1", 7),
        *over([node(0), CALLBACK], "succeeded", "succeeded", None)[:1],
        *ran("j1"),
        *over([node(0), CALLBACK], "succeeded", "succeeded", "succeeded")[1:],
    ],
    "extension": [
        *begun([node(0)]),
        claimed("j0"),
        Extended(job="j0", fence=1, jobs=["j1"]),
        written("j0"),
        Woven(flow="w", nodes=[node(1, 0)]),
        stored("j1"),
        *ran("j1"),
        *over(CHAIN, "succeeded", *["succeeded"] * 2),
    ],
    "extension of a failed attempt": [
        *begun([node(0)]),
        claimed("j0"),
        Extended(job="j0", fence=1, jobs=["j1"]),
        written("j0", FAILED),
        *over([node(0)], "failed", "failed"),
    ],
    "run again": [
        *begun([node(0)]),
        *ran("j0", FAILED),
        *over([node(0)], "failed", "failed")[:1],
        Steered(job="j0", how="rerun", was="completed", now=0),
        FlowActed(flow="w", how="rerun"),
        *ran("j0"),
        *over([node(0)], "succeeded", "succeeded", times=2),
    ],
    "cancelled": [
        *begun(CHAIN),
        FlowActed(flow="w", how="cancel"),
        Revoked(job="j0", ended=True, now=0),
        Revoked(job="j1", ended=True, now=0),
        *over(CHAIN, "cancelled", *["cancelled"] * 2),
    ],
    "deleted": [*begun(CHAIN), FlowActed(flow="w", how="delete")],
    "waited for": [
        *begun([node(0)]),
        WaitBegan(number=1, job="w", client="c"),
        *ran("j0"),
        *over([node(0)], "succeeded", "succeeded"),
        WaitEnded(number=1, status=JobStatus.SUCCEEDED),
    ],
}


@pytest.mark.parametrize("events", RIGHT.values(), ids=RIGHT)
def test_nothing_is_wrong_with_what_is_right(events: list[Event]) -> None:
    """Whatever may happen to a workflow is no fault of the library."""
    assert check_flows(events) == []


WRONG: dict[str, tuple[str, list[Event]]] = {
    "too early": (
        "before [0] have ended",
        [*begun(CHAIN), *ran("j1"), *ran("j0"), *over(CHAIN, "succeeded", *["succeeded"] * 2)],
    ),
    "too early after a join": (
        "before [2] have ended",
        [
            *begun(DIAMOND),
            *ran("j0"),
            *ran("j3"),
            *ran("j1"),
            *over(DIAMOND, "succeeded", *["succeeded"] * 4),
        ],
    ),
    "after one that has failed": (
        "before [0] have ended",
        [*begun(CHAIN), *ran("j0", FAILED), *ran("j1"), *over(CHAIN, "failed", "failed", "succeeded")],
    ),
    "skipped, and runs": (
        "j1 runs, and is skipped",
        [
            *begun(CHAIN),
            *ran("j0", FAILED),
            skipped("j1"),
            *ran("j1"),
            *over(CHAIN, "failed", "failed", "succeeded"),
        ],
    ),
    "skipped for nothing": (
        "nothing before it bars it",
        [*begun(CHAIN), *ran("j0"), skipped("j1"), *over(CHAIN, "cancelled", "succeeded", "skipped")],
    ),
    "never skipped": (
        "node 1, has not ended",
        [*begun(CHAIN), *ran("j0", FAILED), *over(CHAIN, "failed", "failed", "skipped")],
    ),
    "shown as another": (
        "node 0, is failed, not succeeded",
        [*begun([node(0)]), *ran("j0"), *over([node(0)], "succeeded", "failed")],
    ),
    "another state": (
        "has ended as succeeded, not as failed",
        [*begun([node(0)]), *ran("j0", FAILED), *over([node(0)], "succeeded", "failed")],
    ),
    "no end": ("never ended", [*begun([node(0)]), *ran("j0")]),
    "two ends": (
        "ended 2 times",
        [
            *begun([node(0)]),
            *ran("j0"),
            *over([node(0)], "succeeded", "succeeded"),
            *over([node(0)], "succeeded", "succeeded", times=2),
        ],
    ),
    "no callback": (
        "the callbacks Counter()",
        [*begun([node(0)], None, None, 7), *ran("j0"), *over([node(0)], "succeeded", "succeeded")],
    ),
    "a callback too early": (
        "[0] have not ended",
        [
            *begun([node(0)], 7, None, None),
            Woven(flow="w", nodes=[CALLBACK]),
            stored("j1", 7),
            *ran("j0"),
            *over([node(0), CALLBACK], "succeeded", "succeeded", None)[:1],
            *ran("j1"),
            *over([node(0), CALLBACK], "succeeded", "succeeded", "succeeded")[1:],
        ],
    ),
    "no fallback": (
        "the fallbacks Counter()",
        [*begun(FALLS_BACK), *ran("j0", FAILED), *over(FALLS_BACK, "failed", "failed")],
    ),
    "a fallback of one that was cancelled": (
        "nothing has failed",
        [
            *begun(FALLS_BACK),
            *ran("j0", CANCELLED),
            Woven(flow="w", nodes=[FALLBACK]),
            stored("j1"),
            *ran("j1"),
            *over([*FALLS_BACK, FALLBACK], "cancelled", "cancelled", "succeeded"),
        ],
    ),
    "no extension": (
        "the extensions Counter()",
        [
            *begun([node(0)]),
            claimed("j0"),
            Extended(job="j0", fence=1, jobs=["j1"]),
            written("j0"),
            *over([node(0)], "succeeded", "succeeded"),
        ],
    ),
    "the extension of a failed attempt": (
        "the extensions Counter({'j1': 1}), not Counter()",
        [
            *begun([node(0, if_failed="continue")]),
            claimed("j0"),
            Extended(job="j0", fence=1, jobs=["j1"]),
            written("j0", FAILED),
            Woven(flow="w", nodes=[node(1, 0)]),
            stored("j1"),
            *ran("j1"),
            *over(TOLERANT, "succeeded", "failed", "succeeded"),
        ],
    ),
    "a wait is told another state": (
        "a wait was told",
        [
            *begun([node(0)]),
            WaitBegan(number=1, job="w", client="c"),
            *ran("j0"),
            *over([node(0)], "succeeded", "succeeded"),
            WaitEnded(number=1, status=JobStatus.FAILED),
        ],
    ),
}


@pytest.mark.parametrize(("text", "events"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found(text: str, events: list[Event]) -> None:
    """Each promise is noticed when it is broken."""
    assert any(text in line for line in check_flows(events)), check_flows(events)
