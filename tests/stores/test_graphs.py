"""The SQLite store's workflows: what is told of them, whatever their shape, and at what cost."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import pytest

from backlite_async import _query
from backlite_async._job import JobStatus
from backlite_async.stores import _runs
from backlite_async.stores.sqlite import graphs, rows
from backlite_async.stores.sqlite.store import SQLiteStore

NOW = 1_000


class Node(NamedTuple):
    """A node as its row has it. `attempt`: of its job, None: there is none; `runs`: whether that runs."""

    kind: str = "step"
    after: tuple[int, ...] = ()
    status: str | None = None
    attempt: int | None = 0
    runs: bool = False
    result: bytes | None = None


class Stored(NamedTuple):
    """A workflow as its row has it."""

    id: str
    nodes: Sequence[Node]
    status: str | None = None
    ends: int = 0
    expires_at: int | None = None

    @property
    def left(self) -> int:
        return sum(node.status is None for node in self.nodes)

    @property
    def told(self) -> JobStatus:
        """What is told of it."""
        begun = any(node.status is not None or node.attempt for node in self.nodes) or self.ends
        return JobStatus(self.status or ("running" if begun else "pending"))


FLOW = """
INSERT INTO backlite_workflows (id, created_at, size, left, status, ends, expires_at)
VALUES (?, 0, ?, ?, ?, ?, ?)
"""

STEP = """
INSERT INTO backlite_steps (workflow, number, kind, job_id, name, status, blocked, if_failed, after, next)
VALUES (?, ?, ?, ?, ?, ?, ?, 'cancel', ?, '[]')
"""

LIVE = """
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, attempt, status, owner, fence,
    workflow, step, blocked
) VALUES (?, 'q', 'T', x'7b7d', 3, 0, 5, ?, ?, ?, ?, 1, ?, ?, ?)
"""

ENDED = """
INSERT INTO backlite_completed (
    id, queue, task, status, priority, created_at, scheduled_at, finished_at, attempt, max_attempts, crashes,
    result, workflow, step
) VALUES (?, 'q', 'T', ?, 0, 0, 5, 9, ?, 3, 0, ?, ?, ?)
"""


def store(raw: sqlite3.Connection, flow: Stored) -> None:
    """Write a workflow, its nodes and their jobs."""
    raw.execute(FLOW, (flow.id, len(flow.nodes), flow.left, flow.status, flow.ends, flow.expires_at))
    for number, node in enumerate(flow.nodes):
        job_id = None if node.kind == "join" else f"{flow.id}-{number}"
        blocked = 0 if node.status else sum(flow.nodes[before].status is None for before in node.after)
        after = msgspec.json.encode(node.after).decode()
        name = f"step {number}" if number % 2 else None
        raw.execute(STEP, (flow.id, number, node.kind, job_id, name, node.status, blocked, after))
        if job_id is None or node.attempt is None:
            continue
        if node.status is not None:
            status = "cancelled" if node.status == "skipped" else node.status
            raw.execute(ENDED, (job_id, status, node.attempt, node.result, flow.id, number))
        else:
            owner = "somebody" if node.runs else None
            row = (
                (None if blocked else 5),
                node.attempt,
                "running" if node.runs else "pending",
                owner,
                flow.id,
                number,
                "" if blocked else None,
            )
            raw.execute(LIVE, (job_id, *row))


@pytest.fixture
def raw(path: str) -> Iterator[sqlite3.Connection]:
    """Return a connection to an empty database."""
    asyncio.run(SQLiteStore(path, durability="normal", busy_timeout=5.0).install())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    yield connection
    connection.close()


# -- lists -----------------------------------------------------------------------------------------


def flow_of(chance: random.Random, number: int) -> Stored:
    """Return a workflow in some state of its life."""
    flow_id = f"flow {chance.randrange(10**6):06}-{number}"
    ended = chance.choice([None, None, "succeeded", "failed", "cancelled"])
    if ended is not None:
        expires_at = chance.choice([None, NOW - 1, NOW, NOW + 1])
        return Stored(flow_id, [Node(status=ended, attempt=1)], ended, 1, expires_at)
    first = chance.choice(
        [Node(), Node(), Node(attempt=1), Node(attempt=1, runs=True), Node(status="succeeded")]
    )
    return Stored(flow_id, [first, Node(after=(0,))], ends=chance.choice([0, 0, 0, 1]))


STATES = [status for status in JobStatus if status is not JobStatus.NOT_FOUND]


def walked(
    raw: sqlite3.Connection, states: frozenset[JobStatus] | None, limit: int
) -> list[tuple[str, JobStatus]]:
    """Return all pages."""
    found: list[tuple[str, JobStatus]] = []
    before = None
    while page := graphs.workflows(raw, states=states, limit=limit, before=before, now=NOW):
        assert len(page) <= limit
        found += [(run.id, run.status) for run in page]
        before = page[-1].id
    return found


@pytest.mark.parametrize("seed", range(4))
def test_workflows_are_listed_whatever_there_is(raw: sqlite3.Connection, seed: int) -> None:
    """Of all states, those that are wanted and kept: the greatest id first, by pages of any size."""
    chance = random.Random(seed)
    flows = [flow_of(chance, number) for number in range(120)]
    raw.execute("BEGIN")
    for flow in flows:
        store(raw, flow)
    raw.execute("COMMIT")
    kept = sorted((flow for flow in flows if flow.expires_at is None or flow.expires_at > NOW), reverse=True)
    for _ in range(20):
        states = chance.choice([None, frozenset(chance.sample(STATES, chance.randint(1, 3)))])
        expected = [(flow.id, flow.told) for flow in kept if states is None or flow.told in states]
        for limit in (1, 7, 1000):
            assert walked(raw, states, limit) == expected
    for flow in flows:
        run = graphs.workflow(raw, flow.id, NOW)
        assert (None if run is None else run.status) == (flow.told if flow in kept else None)
        told = flow.told if flow in kept else JobStatus.NOT_FOUND
        assert rows.status(raw, flow.id, NOW) is told


def test_a_list_looks_at_few(raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a state is wanted, it ends after so many looks, and begins where it is told to."""
    for number in range(30):
        ended = "failed" if number % 10 == 0 else "succeeded"
        store(raw, Stored(f"{number:02}", [Node(status=ended, attempt=1)], ended, 1))
    monkeypatch.setattr(_query, "LOOKS", 15)
    failed = frozenset({JobStatus.FAILED})

    def ids(before: str | None) -> list[str]:
        return [run.id for run in graphs.workflows(raw, states=failed, limit=5, before=before, now=NOW)]

    assert ids(None) == ["20"]
    assert ids("20") == ["10"]
    assert ids("10") == ["00"]
    whole = graphs.workflows(raw, states=None, limit=20, before=None, now=NOW)
    assert len(whole) == 20


def test_a_list_tells_what_has_begun(raw: sqlite3.Connection) -> None:
    """A step that runs tells it wherever it is, one that was tried if it is among the first."""
    wide = graphs.FIRST_NODES + 1
    idle = [Node()] * wide
    store(raw, Stored("1 idle", idle))
    store(raw, Stored("2 runs", [*idle, Node(attempt=1, runs=True)]))
    store(raw, Stored("3 tried", [Node(), Node(attempt=1), *idle]))
    store(raw, Stored("4 tried behind", [*idle, Node(attempt=1)]))
    store(raw, Stored("5 blocked", [Node(), Node(after=(0,), attempt=1)]))
    found = graphs.workflows(raw, states=None, limit=9, before=None, now=NOW)
    assert {run.id: str(run.status) for run in found} == {
        "1 idle": "pending",
        "2 runs": "running",
        "3 tried": "running",
        "4 tried behind": "pending",
        "5 blocked": "pending",
    }
    assert rows.status(raw, "4 tried behind", NOW) is JobStatus.RUNNING


# -- nodes -----------------------------------------------------------------------------------------


def test_nodes_are_told_in_order(raw: sqlite3.Connection) -> None:
    """Each with what is known of its job, live or completed; of one whose job is gone, what is left."""
    nodes = [
        Node(status="succeeded", attempt=2),
        Node(status="failed", attempt=3),
        Node("join", (0, 1), status="skipped", attempt=None),
        Node(after=(2,), status="skipped"),
        Node(after=(0,), attempt=1, runs=True),
        Node(after=(4,)),
        Node("fallback", (1,), attempt=None),
    ]
    store(raw, Stored("w", nodes))
    run = graphs.workflow(raw, "w", NOW)
    assert run is not None
    assert [(step.number, step.kind, step.after) for step in run.steps] == [
        (number, node.kind, node.after) for number, node in enumerate(nodes)
    ]
    assert [(str(step.status), step.skipped, step.attempt, step.task) for step in run.steps] == [
        ("succeeded", False, 2, "T"),
        ("failed", False, 3, "T"),
        ("cancelled", True, 0, None),
        ("cancelled", True, 0, "T"),
        ("running", False, 1, "T"),
        ("pending", False, 0, "T"),
        ("pending", False, 0, None),
    ]
    assert [step.finished_at is not None for step in run.steps] == [True, True, False, True, *[False] * 3]
    assert (run.size, run.left, run.progress) == (7, 3, 4 / 7)
    assert run.edges == ((0, 2), (1, 2), (2, 3), (0, 4), (4, 5), (1, 6))


def graph_of(chance: random.Random, size: int) -> list[Node]:
    """Return nodes that come after any before them; some of them are joins."""
    nodes: list[Node] = []
    for number in range(size):
        after = tuple(chance.sample(range(number), min(number, chance.choice([0, 1, 1, 2, 5]))))
        if after and chance.random() < 0.3:
            nodes.append(Node("join", after, chance.choice(["succeeded", "skipped", None]), None))
            continue
        status = chance.choice(["succeeded", "succeeded", "failed", "cancelled", "skipped", None])
        kept = 1 if status is None or chance.random() < 0.9 else None
        result = chance.choice([None, b"5", b'"\xc3\xa9 \\ud800"', b"[" * 3000 + b"]" * 3000])
        nodes.append(Node("step", after, status, kept, result=result if status == "succeeded" else None))
    nodes.append(Node("callback"))
    return nodes


def direct(nodes: Sequence[Node], number: int) -> list[int]:
    """Return the steps that a node comes after, with those that joins stand for, once each."""
    found: list[int] = []
    for before in nodes[number].after:
        more = direct(nodes, before) if nodes[before].kind == "join" else [before]
        found += [one for one in more if one not in found]
    return found


def ancestors(nodes: Sequence[Node], number: int) -> set[int]:
    """Return all steps before a node."""
    found = set(direct(nodes, number))
    for before in direct(nodes, number):
        found |= ancestors(nodes, before)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_results_of_any_graph(raw: sqlite3.Connection, seed: int) -> None:
    """Every node sees what those before it have left, in their order, whatever is between them."""
    chance = random.Random(seed)
    nodes = graph_of(chance, chance.choice([3, 12, 25]))
    store(raw, Stored("w", nodes))
    store(raw, Stored("other", [Node(status="succeeded", result=b"0")] * 9))
    every = [number for number, node in enumerate(nodes) if node.kind == "step"]

    def expected(numbers: Sequence[int]) -> list[tuple[int, str, JobStatus, bytes | None]]:
        told = []
        for number in numbers:
            node = nodes[number]
            if node.status is not None:
                status = JobStatus.CANCELLED if node.status == "skipped" else JobStatus(node.status)
                left = node.result if node.attempt is not None else b""
                told.append((number, f"w-{number}", status, left))
        return told

    def found(number: int | None, *, deep: bool) -> list[tuple[int, str, JobStatus, bytes | None]]:
        results = graphs.step_results(raw, "w", number, deep=deep)
        return [(one.number, one.id, one.status, one.result) for one in results]

    for number in range(len(nodes) - 1):
        assert found(number, deep=False) == expected(direct(nodes, number))
        assert found(number, deep=True) == expected(sorted(ancestors(nodes, number)))
    for deep in (False, True):
        assert found(len(nodes) - 1, deep=deep) == found(None, deep=deep) == expected(every)
        assert found(len(nodes), deep=deep) == []


# -- cost ------------------------------------------------------------------------------------------


class Counting(dict[int, tuple[str, Sequence[int]]]):
    """Nodes that count how often they are looked at."""

    looks = 0

    def __getitem__(self, number: int) -> tuple[str, Sequence[int]]:
        self.looks += 1
        return super().__getitem__(number)


def test_each_node_is_looked_at_once() -> None:
    """However many ways lead to it: through layers of two joins, each after both of the layer before."""
    nodes = Counting({0: ("step", ()), 1: ("step", (0,)), 2: ("step", (0,))})
    for number in range(3, 31):
        first = number - 2 if number % 2 else number - 3
        nodes[number] = ("join", (first, first + 1))
    assert _runs.before(30, False, nodes) == [1, 2]
    assert _runs.before(30, True, nodes) == [0, 1, 2]
    assert nodes.looks < 2 * 32


def wide(raw: sqlite3.Connection, flow_id: str, width: int) -> None:
    """Write a step, a group behind it, its join, and one behind that; all but the last have ended."""
    done = Node(status="succeeded", attempt=1, result=b"1")
    joined = Node("join", tuple(range(1, width + 1)), "succeeded", None)
    nodes = [done, *[done._replace(after=(0,))] * width, joined, Node(after=(width + 1,), attempt=0)]
    raw.execute("BEGIN")
    store(raw, Stored(flow_id, nodes))
    raw.execute("COMMIT")


def steps(raw: sqlite3.Connection, call: Callable[[], object]) -> int:
    """Count the steps of SQLite's machine, by tens, for a call whose statements are compiled."""
    number = 0

    def step() -> None:
        nonlocal number
        number += 10

    call()
    raw.set_progress_handler(step, 10)
    try:
        call()
    finally:
        raw.set_progress_handler(None, 10)
    return number


def test_what_is_told_costs_by_the_node(raw: sqlite3.Connection) -> None:
    """A workflow ten times as wide costs ten times as much, and one node of it what it always does."""
    for count in range(3):
        store(raw, Stored(f"few {count}", [Node()]))
    raw.execute("ANALYZE")  # which says for ever that there are few
    for flow_id, width in (("small", 200), ("large", 2_000)):
        wide(raw, flow_id, width)

    def cost(flow_id: str) -> list[int]:
        last = 202 if flow_id == "small" else 2_002
        run = graphs.workflow(raw, flow_id, NOW)
        assert run is not None
        assert len(run.steps) == last + 1
        assert len(graphs.step_results(raw, flow_id, last, deep=False)) == last - 2
        return [
            steps(raw, lambda: graphs.workflow(raw, flow_id, NOW)),
            steps(raw, lambda: graphs.step_results(raw, flow_id, last, deep=False)),
            steps(raw, lambda: graphs.step_results(raw, flow_id, None, deep=True)),
        ]

    for small, large in zip(cost("small"), cost("large"), strict=True):
        assert 5 * small < large < 10.5 * small

    def one(flow_id: str) -> int:
        return steps(raw, lambda: graphs.step_results(raw, flow_id, 7, deep=False))

    def listed(before: str) -> int:
        return steps(raw, lambda: graphs.workflows(raw, states=None, limit=1, before=before, now=NOW))

    assert max(one("small"), one("large")) < 200
    assert listed("small!") < 1_000
    assert listed("large!") < 1_000
