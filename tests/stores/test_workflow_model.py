"""Any workflow ends as a few lines say, whatever happens to its steps on the way, in every store."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from backlite_async import QueueConfig
from backlite_async._clock import to_millis
from backlite_async._graph import CONTINUE, NewStep, follow_up_id
from backlite_async._job import (
    Cancelled,
    ClaimedJob,
    Complete,
    Declared,
    JobStatus,
    Keep,
    Limit,
    Outcome,
    Place,
    Reschedule,
)
from backlite_async._outcome import crashed
from backlite_async._query import Delete, Postpone, Release, Rerun, Wanted
from backlite_async.stores import MemoryStore, Store
from backlite_async.stores.sqlite.store import SQLiteStore

from .flows import LANE, Node, new
from .flows import flow as made_of

T = TypeVar("T")

SUCCEEDED, FAILED, CANCELLED, SKIPPED = "succeeded", "failed", "cancelled", "skipped"
CUT = "cut"
"""The fate of a step that is cancelled before anything has run."""

CONFIG = QueueConfig(name="q", max_crashes=3)
KEPT = 100
"""Milliseconds for which all is kept."""

QUIET = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Fate(msgspec.Struct):
    """What is to become of a node: how it ends if it runs, and what goes wrong before."""

    after: list[int]
    joins: bool = False
    tolerated: bool = False
    fallback: bool = False
    end: str = SUCCEEDED
    troubles: list[str] = []
    added_by: int | None = None
    """The step that extends its workflow by this one."""
    keyed: bool = False
    """Whether it has the one key, of which one job may run at a time."""


def expected(fates: Sequence[Fate]) -> list[str | None]:
    """Return how each node ends; None: it is never added."""
    ends: list[str | None] = []
    for fate in fates:
        bars = [ends[n] == SKIPPED or (ends[n] != SUCCEEDED and not fates[n].tolerated) for n in fate.after]
        if fate.added_by is not None and ends[fate.added_by] != SUCCEEDED:
            ends.append(None)
        elif fate.end == CUT and fate.added_by is None:
            ends.append(CANCELLED)
        elif any(bars):
            ends.append(SKIPPED)
        else:
            ends.append(SUCCEEDED if fate.joins else fate.end)
    return ends


def whole(fates: Sequence[Fate], ends: Sequence[str | None]) -> str:
    """Return how the whole has ended: joins and what may fail do not count."""
    found = {end for fate, end in zip(fates, ends, strict=True) if not (fate.joins or fate.tolerated)}
    return FAILED if FAILED in found else CANCELLED if found & {CANCELLED, SKIPPED} else SUCCEEDED


@st.composite
def workflows(draw: st.DrawFn, most: int) -> list[Fate]:
    """Return what is to become of the nodes of a workflow, what extends it behind all others."""
    size = draw(st.integers(1, most))
    random = Random(draw(st.integers(0, 2**32)))
    fates = [_fate(random, n) for n in range(size)]
    jobs = [n for n, fate in enumerate(fates) if not fate.joins]
    for n in random.sample(jobs, min(len(jobs), random.choice([0, 1, 3]))):
        first = len(fates)
        for place in range(first, first + random.randint(1, 4)):
            fate = _fate(random, n + 1)
            fate.after = sorted({n, *fate.after, *random.sample(range(first, place), min(1, place - first))})
            fate.added_by, fate.end = n, FAILED if fate.end == CUT else fate.end
            fates.append(fate)
    return fates


def _fate(random: Random, number: int) -> Fate:
    wide = random.random() < 0.1
    after = random.sample(range(number), number if wide else min(number, random.choice([0, 1, 1, 1, 2, 3])))
    end = random.choices([SUCCEEDED, FAILED, CANCELLED, CUT], [30, 3, 1, 1])[0]
    joins = bool(after) and random.random() < 0.15
    return Fate(
        after=sorted(after),
        joins=joins,
        tolerated=not joins and random.random() < 0.2,
        fallback=not joins and random.random() < 0.2,
        end=SUCCEEDED if joins else end,
        troubles=random.choices(["retry", "snooze", "crash", "stale", "late"], k=random.choice([0, 0, 1, 3])),
        keyed=not joins and random.random() < 0.2,
    )


class Runner:
    """Runs a workflow of fates in a store, in an order by chance."""

    def __init__(self, store: Store, fates: Sequence[Fate], random: Random) -> None:
        self.store = store
        self.fates = [msgspec.structs.replace(fate, troubles=list(fate.troubles)) for fate in fates]
        self.random = random
        self.now = 1000
        self.running: dict[str, ClaimedJob] = {}
        self.ran: list[str] = []

    async def run(self) -> None:
        """Run it until nothing is left."""
        base = [fate for fate in self.fates if fate.added_by is None]
        fallback = new("", max_attempts=1)
        nodes = [
            Node(
                str(n),
                tuple(map(str, fate.after)),
                fate.joins,
                CONTINUE if fate.tolerated else "cancel",
                fallback if fate.fallback else None,
                {"tags": '["t"]'},
            )
            for n, fate in enumerate(base)
        ]
        cancelled = Declared(queue="q", keeps=True, keep_for=KEPT, keep_payload=True, turns=None)
        await self.store.declare([cancelled], now=0)
        await self.store.add([], workflows=[made_of(*nodes)])
        cut = [str(n) for n, fate in enumerate(base) if fate.end == CUT]
        self.random.shuffle(cut)
        await self.store.cancel(cut, now=self.now)
        idle = 0
        while idle < 3:  # what was put off is due by then
            idle = 0 if await self.claim() or self.running else idle + 1
            await self.step()
            self.now += 1 if idle else self.random.choice([0, 1])

    async def claim(self) -> bool:
        """Claim some of what is due, as one of two owners; return whether there was any."""
        lane = msgspec.structs.replace(LANE, room=self.random.choice([1, 3, 99]))
        found = await self.store.claim(
            [lane], owner=self.random.choice(["first", "second"]), now=self.now, until=10**15
        )
        assert self.running.keys().isdisjoint(job.id for job in found.jobs)
        self.running |= {job.id: job for job in found.jobs}
        return bool(found.jobs)

    async def step(self) -> None:
        """Let some of what runs end, or go on."""
        some = self.random.sample(sorted(self.running), self.random.randint(0, len(self.running)))
        asked = [job_id for job_id in some if self._fate(job_id).end == CANCELLED]
        if asked:
            await self.store.cancel(asked, now=self.now)
        outcomes = [self.outcome(self.running[job_id]) for job_id in some]
        lost = await self.store.finish(outcomes)
        assert lost == {one.id for one in outcomes if one.fence < 0 or one.lapsed_by is not None}
        for one in outcomes:
            if one.id not in lost:
                del self.running[one.id]
                if isinstance(one, Complete):
                    assert await self.store.finish([one]) == {one.id}, "accepted twice"
                    self.ran.append(one.id)

    def outcome(self, job: ClaimedJob) -> Outcome:
        """Return what becomes of an attempt: first all that goes wrong, then how it ends."""
        fate = self._fate(job.id)
        done = self._end(job, fate)
        if not fate.troubles or fate.end == CANCELLED:
            return done
        again = Reschedule(
            id=job.id, fence=job.fence, due_at=self.now, attempt=job.attempt, crashes=job.crashes
        )
        match fate.troubles.pop():
            case "retry":
                return msgspec.structs.replace(again, error="oops")
            case "snooze":
                return msgspec.structs.replace(again, due_at=self.now + 1, attempt=job.attempt - 1)
            case "crash":
                died = crashed(job, CONFIG, self.now)
                if isinstance(died, Complete):  # once too often
                    return msgspec.structs.replace(died, keep=done.keep) if fate.end == FAILED else done
                return died
            case "stale":
                return msgspec.structs.replace(done, fence=-1)
            case _:
                return msgspec.structs.replace(done, lapsed_by=self.now)

    def _end(self, job: ClaimedJob, fate: Fate) -> Complete:
        return Complete(
            id=job.id,
            fence=job.fence,
            status=JobStatus(fate.end),
            finished_at=self.now,
            started_at=self.now,
            duration=1,
            attempt=job.attempt,
            crashes=job.crashes,
            keep=Keep(until=self.now + KEPT, payload=True),
            workflow=job.workflow,
            step=job.step,
            extends=self._extension(job) if fate.end == SUCCEEDED else (),
        )

    def _extension(self, job: ClaimedJob) -> tuple[NewStep, ...]:
        added = [n for n, fate in enumerate(self.fates) if str(fate.added_by) == job.id]
        return tuple(self._extending(n, added) for n in added)

    def _extending(self, number: int, added: Sequence[int]) -> NewStep:
        fate = self.fates[number]
        return NewStep(
            job=None if fate.joins else new(str(number)),
            name=str(number),
            after=tuple(-1 - added.index(n) if n in added else n for n in fate.after),
            if_failed=CONTINUE if fate.tolerated else "cancel",
            fallback=new("") if fate.fallback else None,
        )

    def _fate(self, job_id: str) -> Fate:
        return self.fates[int(job_id)] if job_id.isdigit() else Fate(after=[])  # a fallback


async def check(store: Store, fates: Sequence[Fate], runner: Runner) -> None:
    """Every node has ended as it should, nothing is left to do; then all of it expires."""
    ends = expected(fates)
    run = await store.workflow("w", now=runner.now)
    assert run is not None
    found = {node.name: node for node in run.steps if node.name is not None}
    got = {name: SKIPPED if node.skipped else node.status.value for name, node in found.items()}
    assert got == {str(n): end for n, end in enumerate(ends) if end is not None}
    ran = sorted(str(n) for n, end in enumerate(ends) if end in (SUCCEEDED, FAILED) and not fates[n].joins)
    assert sorted(one for one in runner.ran if one.isdigit() and fates[int(one)].end != CANCELLED) == ran
    failed = {str(n) for n, end in enumerate(ends) if end == FAILED and fates[n].fallback}
    names = {node.number: node.name for node in run.steps}
    assert sorted(str(names[node.after[0]]) for node in run.steps if node.kind == "fallback") == sorted(
        failed
    )
    assert run.left == 0
    assert run.size == len(run.steps)
    assert run.status.value == whole(fates, ends)
    until = await store.next_expiry()
    assert until is not None
    while await store.expire(now=until, limit=20):
        pass


def left_over(stores: Stores) -> dict[str, int]:
    """Return how many rows there are of jobs and workflows, of those kinds of which there are any."""
    if stores.kind == "memory":
        store, flows = stores.memory, stores.memory._flows
        kept: dict[str, Any] = {
            "jobs": store._live.rows,
            "completed": store._completed,
            "workflows": flows._flows,
            "steps": flows._steps,
            "after": flows._after,
            "keyed": store._live._keyed,
            "tags": store._beside._tags,
        }
        counts = {name: len(rows) for name, rows in kept.items()}
    else:
        names = ["jobs", "completed", "workflows", "steps", "errors", "tags"]
        sql = "SELECT count(*) FROM backlite_{}"
        counts = {name: stores.query(sql.format(name))[0][0] for name in names}
    return {name: count for name, count in counts.items() if count}


def blocked(stores: Stores, workflow: str) -> dict[int, int]:
    """Return by how many steps each is blocked that has not ended, of those that are."""
    if stores.kind == "memory":
        steps = stores.memory._flows.live_steps(workflow)
        return {step.number: step.blocked for step in steps if step.blocked}
    sql = "SELECT number, blocked FROM backlite_steps WHERE workflow = ? AND status IS NULL AND blocked > 0"
    return dict(stores.query(sql, workflow))


class Stores:
    """A store of one kind, with a look at what it keeps."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.runner = asyncio.Runner()
        self.memory = MemoryStore()
        path = str(folder / "app.db")
        self.sqlite = SQLiteStore(path, durability="normal", busy_timeout=5.0)
        if kind == "sqlite":
            self.run(self.sqlite.open(install=True))
            self.raw = sqlite3.connect(path)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a call; those of the store in memory never wait."""
        if self.kind == "sqlite":
            return self.runner.run(call)
        with pytest.raises(StopIteration) as answer:
            call.send(None)
        result: T = answer.value.value
        return result

    def query(self, sql: str, *parameters: object) -> list[Any]:
        """Return what there is in the file."""
        return self.raw.execute(sql, parameters).fetchall()

    @property
    def store(self) -> Store:
        if self.kind == "sqlite":
            return self.sqlite
        return self.memory

    def close(self) -> None:
        if self.kind == "sqlite":
            self.raw.close()
            self.run(self.sqlite.close())
        self.runner.close()


@contextmanager
def stores_of(kind: str) -> Iterator[Stores]:
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(kind, Path(folder))
        try:
            yield stores
        finally:
            stores.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_every_step_ends_as_its_fate_says(kind: str) -> None:
    """Steps end by their fates and the ends of those before them, in whatever order, whatever goes wrong."""
    with stores_of(kind) as stores:

        @settings(QUIET, max_examples=100 if kind == "memory" else 40)
        @given(fates=workflows(50), seed=st.integers(0, 2**32))
        def ends(fates: list[Fate], seed: int) -> None:
            store = stores.store
            runner = Runner(store, fates, Random(seed))
            stores.run(runner.run())
            stores.run(check(store, fates, runner))
            assert left_over(stores) == {}

        ends()


# -- what a workflow is like at any moment -------------------------------------------------------------


class Known(msgspec.Struct):
    """A node as it should be. `freed`: what it waited for is over; `ignores`: nodes it does not wait for."""

    kind: str
    job_id: str | None
    after: list[int]
    tolerated: bool = True
    fallback: bool = False
    end: str | None = None
    freed: bool = False
    ignores: set[int] = msgspec.field(default_factory=set)
    due: int = 0
    keyed: bool = False
    attempt: int = 0
    asked: int | None = None
    strip: bool = False
    stripped: bool = False

    @property
    def bars(self) -> bool:
        return self.end == SKIPPED or (self.end not in (None, SUCCEEDED) and not self.tolerated)


class Expected:
    """A workflow as it should be."""

    def __init__(self, name: str, fates: Sequence[Fate]) -> None:
        self.name = name
        self.nodes = [
            Known(
                kind="join" if fate.joins else "step",
                job_id=None if fate.joins else f"{name}.{n}",
                after=fate.after,
                tolerated=fate.tolerated,
                fallback=fate.fallback,
                keyed=fate.keyed,
            )
            for n, fate in enumerate(fates)
        ]
        self.status: str | None = None
        self.cancelled = False
        self.ends = 0
        self.keep_for = 0
        self.expires_at: int | None = None
        self.settle(0)

    def settle(self, now: int) -> None:
        """Let what waits run, or be skipped; end the whole once all has ended."""
        for node in self.nodes:
            if node.end is None and not node.freed:
                before = [self.nodes[n] for n in node.after if n not in node.ignores]
                if any(one.bars for one in before):
                    node.end, self.keep_for = SKIPPED, max(self.keep_for, CUT_KEPT * bool(node.job_id))
                elif all(one.end is not None for one in before):
                    node.freed, node.due = True, max(node.due, now)
                    node.end = SUCCEEDED if node.job_id is None else None
        if self.left == 0 and self.status is None:
            self.status = self.how()
            self.ends += 1
            for which in ("then", "complete"):
                callback = follow_up_id(self.name, self.ends, which)
                self.nodes.append(Known("callback", callback, [], freed=True, due=now))
        if self.left == 0 and self.expires_at is None:
            self.expires_at = now + self.keep_for
            for node in self.nodes:
                node.stripped = node.stripped or node.strip

    @property
    def left(self) -> int:
        return sum(node.end is None for node in self.nodes)

    def how(self) -> str:
        """Return how the whole has ended."""
        steps = [node for node in self.nodes if node.kind == "step"]
        found = {node.end for node in steps if not node.tolerated}
        by_hand = self.cancelled and {node.end for node in steps} & {CANCELLED, SKIPPED}
        return (
            FAILED if FAILED in found else CANCELLED if by_hand or found & {CANCELLED, SKIPPED} else SUCCEEDED
        )

    def extend(self, fates: Sequence[Fate], job_ids: Sequence[str | None], base: int) -> None:
        """Add nodes behind those that there are, which have become more than `base` since they were made."""
        shift = len(self.nodes) - base
        if not self.cancelled:
            self.nodes += [
                Known(
                    kind="join" if job_id is None else "step",
                    job_id=job_id,
                    after=[n + shift * (n >= base) for n in fate.after],
                    tolerated=fate.tolerated,
                    fallback=fate.fallback,
                    keyed=fate.keyed,
                )
                for fate, job_id in zip(fates, job_ids, strict=True)
            ]

    def fall_back(self, number: int, fence: int, now: int) -> None:
        """Add the fallback of a node that has failed."""
        node = self.nodes[number]
        if node.end == FAILED and node.fallback and not self.cancelled:
            fallback = follow_up_id(node.job_id, fence, "fallback")
            self.nodes.append(Known("fallback", fallback, [number], freed=True, due=now))

    def cancel(self, running: set[str], now: int) -> None:
        """Cancel all that has not ended."""
        self.cancelled = self.cancelled or self.status is None
        for node in self.nodes:
            if node.end is None and node.job_id in running:
                node.asked = now if node.asked is None else node.asked
            elif node.end is None:
                node.end = SKIPPED if node.job_id is None else CANCELLED
                self.keep_for = max(self.keep_for, CUT_KEPT * bool(node.job_id))
        self.settle(now)

    def run_again(self, numbers: set[int], now: int) -> None:
        """Let nodes that have ended run again, and what was skipped because of them."""
        if any(self.nodes[n].kind == "step" for n in numbers):
            self.status, self.cancelled = None, False
        self.expires_at = None
        reached = set(numbers)
        for n in sorted(numbers):
            node = self.nodes[n]
            node.end, node.freed, node.asked, node.strip = None, node.kind != "step", None, False
            node.due = now
        for n, node in enumerate(self.nodes):
            node.ignores -= reached
            if n in numbers:
                node.ignores = {before for before in node.after if self.nodes[before].bars}
            elif node.end == SKIPPED and not node.stripped and reached & set(node.after):
                if any(self.nodes[before].bars for before in node.after):
                    continue
                node.end, node.freed, node.ignores = None, False, set()
                reached.add(n)
        self.settle(now)


CUT_KEPT = 700
"""Milliseconds for which cancelled steps are kept."""

CUTS = Declared(queue="q", keeps=True, keep_for=CUT_KEPT, keep_payload=True, turns=1)
KEYS = Limit(queue="q", room=99, per_key=1)
KEY = {"key": "k", "turns": 1}

picks = st.integers(0, 99)
few = st.lists(picks, min_size=1, max_size=2, unique=True)
several = st.lists(picks, min_size=1, max_size=5, unique=True)
delays = st.sampled_from([0, 0, 0, 1, 3])
ways = st.sampled_from(
    [SUCCEEDED, SUCCEEDED, SUCCEEDED, FAILED, FAILED, CANCELLED, "again", "extend", "stale"]
)
retentions = st.sampled_from([(500, True), (500, False), (900, True), (5000, True), None])
outcomes = st.lists(st.tuples(picks, ways, delays, retentions, picks), min_size=1, max_size=6)
shapes = workflows(12).map(lambda fates: [fate for fate in fates if fate.added_by is None])


class Machine(RuleBasedStateMachine):
    """Does anything to two workflows in each store, and compares them with what they should be."""

    kinds = ("memory", "sqlite")

    def __init__(self) -> None:
        super().__init__()
        self.context = ExitStack()
        self.stores = [self.context.enter_context(stores_of(kind)) for kind in self.kinds]
        self.now = 1000
        self.flows: dict[str, Expected] = {}
        self.running: dict[str, ClaimedJob] = {}
        self.claims: list[ClaimedJob] = []
        self.extensions: dict[str, tuple[list[Fate], list[str | None], int]] = {}
        self.do(lambda store: store.declare([CUTS], now=0))

    def do(
        self, call: Callable[[Store], Coroutine[Any, Any, T]], *, same: Callable[[T], Any] = lambda x: x
    ) -> T:
        """Do it in each store; compare and return what they answer."""
        answers = [stores.run(call(stores.store)) for stores in self.stores]
        for answer in answers[1:]:
            assert same(answer) == same(answers[0])
        return answers[0]

    def teardown(self) -> None:
        """Let all that is left succeed, and delete it: nothing stays."""
        try:
            self.drain()
        finally:
            self.context.close()

    def drain(self) -> None:
        for _ in range(500):
            self.now += 10
            self.claim(99)
            if not self.running:
                break
            self.forget()
            self.finish([(n, SUCCEEDED, 0, (500, True), 0) for n in range(99)])
        assert all(flow.left == 0 for flow in self.flows.values())
        self.do(lambda store: store.act(Delete(), list(self.flows), now=self.now), same=list)
        assert [left_over(stores) for stores in self.stores] == [{}] * len(self.stores)

    def node(self, job_id: str) -> tuple[Expected, int, Known]:
        """Return the node of a job, with its number and its workflow."""
        return next(
            (flow, n, node)
            for flow in self.flows.values()
            for n, node in enumerate(flow.nodes)
            if node.job_id == job_id
        )

    def picked(self, places: Sequence[int]) -> list[str]:
        """Return some ids of jobs, of either workflow."""
        job_ids = [node.job_id for flow in self.flows.values() for node in flow.nodes if node.job_id]
        return list(dict.fromkeys(job_ids[place % len(job_ids)] for place in places)) if job_ids else []

    @initialize(first=shapes, second=shapes)
    def add(self, first: list[Fate], second: list[Fate]) -> None:
        callbacks = {f"on_{which}": new("") for which in ("success", "failure", "complete")}
        made = [
            made_of(*(_node(name, n, fate) for n, fate in enumerate(fates)), id=name, **callbacks)
            for name, fates in (("v", first), ("w", second))
        ]
        self.do(lambda store: store.add([], workflows=made))
        self.flows = {"v": Expected("v", first), "w": Expected("w", second)}

    @rule(room=st.sampled_from([1, 2, 99]))
    def claim(self, room: int) -> None:
        """What was freed can be claimed once it is due, and nothing else."""
        can = [
            node
            for flow in self.flows.values()
            for node in flow.nodes
            if node.end is None and node.freed and node.job_id not in self.running and node.due <= self.now
        ]
        lane = msgspec.structs.replace(LANE, room=room)
        found = self.do(
            lambda store: store.claim([lane], owner="mine", now=self.now, until=10**15, limits=[KEYS]),
            same=lambda claim: list(claim.jobs),
        ).jobs
        keyed = any(node.keyed for node in can) and not any(job.key for job in self.running.values())
        assert len(found) == min(room, sum(not node.keyed for node in can) + keyed)
        assert {job.id for job in found} <= {node.job_id for node in can}
        for job in found:
            self.node(job.id)[2].attempt = job.attempt
        self.running |= {job.id: job for job in found}
        self.claims += found

    @rule(picked=outcomes)
    def work(self, picked: list[tuple[int, str, int, tuple[int, bool] | None, int]]) -> None:
        """All that can run does, and some of it ends."""
        self.claim(99)
        self.finish(picked)

    @rule(picked=outcomes)
    def work_on(self, picked: list[tuple[int, str, int, tuple[int, bool] | None, int]]) -> None:
        """The same: this is what happens most."""
        self.work(picked)

    def finish(self, picked: list[tuple[int, str, int, tuple[int, bool] | None, int]]) -> None:
        """Write outcomes, also of claims that are over."""
        outcomes: dict[str, Outcome] = {}
        current = list(self.running.values())
        self.now += picked[0][2]
        for place, how, delay, keep, seed in picked:
            some = self.claims if how == "stale" else current
            if some and some[place % len(some)].id not in outcomes:
                job = some[place % len(some)]
                outcomes[job.id] = self.outcome(job, how, delay, keep, seed)
        lost = self.do(lambda store: store.finish(list(outcomes.values())))
        held = {job_id: job.fence for job_id, job in self.running.items()}
        assert lost == {one.id for one in outcomes.values() if held.get(one.id) != one.fence}
        accepted = [one for one in outcomes.values() if one.id not in lost]
        at: dict[str, int] = {}
        for one in accepted:
            name = self.node(one.id)[0].name
            at[name] = max(at.get(name, 0), self.take(one))
        for number, job_id in sorted((self.node(one.id)[1], one.id) for one in accepted):
            self.node(job_id)[0].fall_back(number, held[job_id], self.now)
        for name, instant in at.items():
            self.flows[name].settle(instant)

    def take(self, outcome: Outcome) -> int:
        """Note what an accepted outcome changes; return when that was."""
        flow, _, node = self.node(outcome.id)
        del self.running[outcome.id]
        if isinstance(outcome, Complete):
            node.end = outcome.status.value
            until = self.now if outcome.keep is None else outcome.keep.until or 0
            flow.keep_for = max(flow.keep_for, until - self.now)
            node.strip = outcome.keep is None or not outcome.keep.payload
            if outcome.extends:
                flow.extend(*self.extensions[outcome.id])
        elif node.asked is not None:
            node.end, flow.keep_for = CANCELLED, max(flow.keep_for, CUT_KEPT)
            return node.asked
        else:
            node.due = outcome.due_at
        return self.now

    def outcome(
        self, job: ClaimedJob, how: str, delay: int, keep: tuple[int, bool] | None, seed: int
    ) -> Outcome:
        frees = None if job.key is None else Place("q", job.key, self.now)
        if how == "again":
            return Reschedule(
                id=job.id,
                fence=job.fence,
                due_at=self.now + delay,
                attempt=job.attempt,
                crashes=job.crashes,
                frees=frees,
            )
        done = Complete(
            id=job.id,
            fence=job.fence,
            status=JobStatus(how if how in (FAILED, CANCELLED) else SUCCEEDED),
            finished_at=self.now,
            started_at=self.now,
            duration=1,
            attempt=job.attempt,
            crashes=job.crashes,
            keep=None if keep is None else Keep(until=self.now + keep[0], payload=keep[1]),
            frees=frees,
            workflow=job.workflow,
            step=job.step,
        )
        if how != "extend":
            return done
        flow, number, _ = self.node(job.id)
        base = len(flow.nodes)
        fates, job_ids = self.extension(flow, number, seed)
        self.extensions[job.id] = fates, job_ids, base
        steps = [
            NewStep(
                job=None if job_id is None else new(job_id, **KEY if fate.keyed else {}),
                after=tuple(n if n < base else base - 1 - n for n in fate.after),
                if_failed=CONTINUE if fate.tolerated else "cancel",
                fallback=new("") if fate.fallback else None,
            )
            for fate, job_id in zip(fates, job_ids, strict=True)
        ]
        return msgspec.structs.replace(done, extends=tuple(steps))

    def extension(self, flow: Expected, number: int, seed: int) -> tuple[list[Fate], list[str | None]]:
        """Return nodes that extend a workflow from a step on."""
        random, base = Random(seed), len(flow.nodes)
        fates = []
        for place in range(base, base + random.randint(1, 3)):
            fate = _fate(random, place)
            fate.after = sorted({number, *random.sample(range(place), min(place, 2))})
            fates.append(fate)
        names = [f"{flow.name}.{number}+{len(self.claims)}+{n}" for n in range(len(fates))]
        return fates, [None if fate.joins else name for fate, name in zip(fates, names, strict=True)]

    @rule(places=few)
    def cancel(self, places: list[int]) -> None:
        """Steps are cancelled one by one."""
        live = [job_id for job_id in self.picked(places) if self.node(job_id)[2].end is None]
        done = self.do(lambda store: store.cancel(live, now=self.now), same=cancelled)
        assert sorted(done.asked) == sorted(one for one in live if one in self.running)
        assert sorted(done.ended) == sorted(one for one in live if one not in self.running)
        for job_id in live:
            flow, _, node = self.node(job_id)
            if job_id in self.running:
                node.asked = self.now if node.asked is None else node.asked
            else:
                node.end, flow.keep_for = CANCELLED, max(flow.keep_for, CUT_KEPT)
        for flow in self.flows.values():
            flow.settle(self.now)

    @rule(name=st.sampled_from("vw"))
    @precondition(lambda self: len(self.claims) % 4 == 3)
    def cancel_whole(self, name: str) -> None:
        """So is the whole."""
        if name not in self.flows:
            return
        flow = self.flows[name]
        live = [str(node.job_id) for node in flow.nodes if node.end is None and node.job_id]
        done = self.do(lambda store: store.cancel([name], now=self.now), same=cancelled)
        assert sorted(done.asked) == sorted(one for one in live if one in self.running)
        assert sorted(done.ended) == sorted(one for one in live if one not in self.running)
        flow.cancel(set(self.running), self.now)

    @rule(places=several)
    def rerun(self, places: list[int]) -> None:
        """Steps that have not succeeded run again, those that can."""
        job_ids = self.picked(places)
        done = self.do(lambda store: store.act(Rerun(), job_ids, now=self.now), same=list)
        assert list(done) == [job_id for job_id in job_ids if self.can_run_again(job_id)]
        self.run_again(done)

    @rule(name=st.sampled_from("vw"))
    def rerun_whole(self, name: str) -> None:
        """So do all steps that have failed or were cancelled, of a workflow."""
        if name not in self.flows:
            return
        steps = [node for node in self.flows[name].nodes if node.kind == "step"]
        ended = [str(node.job_id) for node in steps if node.end in (FAILED, CANCELLED)]
        can = [job_id for job_id in ended if self.can_run_again(job_id)]
        done = self.do(lambda store: store.act(Rerun(), [name], now=self.now), same=list)
        assert list(done) == [name][: len(can)]
        self.run_again(can)

    def can_run_again(self, job_id: str) -> bool:
        node = self.node(job_id)[2]
        return job_id not in self.running and node.end != SUCCEEDED and not node.stripped

    def run_again(self, job_ids: Sequence[str]) -> None:
        again: dict[str, set[int]] = {}
        for job_id in job_ids:
            flow, number, node = self.node(job_id)
            if node.end is None:
                node.due = self.now
            else:
                again.setdefault(flow.name, set()).add(number)
        for name, numbers in again.items():
            self.flows[name].run_again(numbers, self.now)

    @rule(places=few, delay=delays)
    def postpone(self, places: list[int], delay: int) -> None:
        """What is pending is due at another time, but not before what it waits for is over."""
        pending = [
            job_id
            for job_id in self.picked(places)
            if self.node(job_id)[2].end is None and job_id not in self.running
        ]
        action = Postpone(due_at=self.now + delay)
        done = self.do(lambda store: store.act(action, pending, now=self.now), same=list)
        assert list(done) == pending
        for job_id in pending:
            self.node(job_id)[2].due = self.now + delay

    @rule(places=few)
    def take_away(self, places: list[int]) -> None:
        """What runs is taken away from its owner; it ends if it is to be cancelled."""
        some = [job_id for job_id in self.picked(places) if job_id in self.running]
        done = self.do(lambda store: store.act(Release(), some, now=self.now), same=list)
        assert list(done) == some
        at: dict[str, int] = {}
        for job_id in some:
            flow, _, node = self.node(job_id)
            node.attempt = self.running.pop(job_id).attempt - 1
            node.due = self.now
            if node.asked is not None:
                node.end, flow.keep_for = CANCELLED, max(flow.keep_for, CUT_KEPT)
                at[flow.name] = max(at.get(flow.name, 0), node.asked)
        for name, instant in at.items():
            self.flows[name].settle(instant)

    def forget(self) -> None:
        """What is not kept at all is gone with its end."""
        for name, flow in list(self.flows.items()):
            if flow.left == 0 and flow.keep_for == 0:
                assert self.do(lambda store, name=name: store.status(name, now=0)) is JobStatus.NOT_FOUND  # type: ignore[misc]
                del self.flows[name]

    @invariant()
    def they_are_as_they_should_be(self) -> None:
        """State, counters, order and retention of each node and of the whole are what they should be."""
        self.forget()
        for name, flow in self.flows.items():
            run = self.do(lambda store, name=name: store.workflow(name, now=self.now))  # type: ignore[misc]
            assert run is not None
            states = [SKIPPED if node.skipped else node.status.value for node in run.steps]
            assert states == [self.state(node) for node in flow.nodes]
            assert [node.id for node in run.steps] == [node.job_id for node in flow.nodes]
            assert [list(node.after) for node in run.steps] == [node.after for node in flow.nodes]
            assert (run.left, run.size) == (flow.left, len(flow.nodes))
            begun = flow.ends or any(
                node.attempt or node.end or node.job_id in self.running for node in flow.nodes
            )
            assert run.status.value == flow.status or flow.status is None
            assert flow.status or run.status.value == ("running" if begun else "pending")
            assert (run.finished_at is not None, run.cancelled_at is not None) == (
                flow.status is not None,
                flow.cancelled,
            )
            expires_at = None if run.expires_at is None else to_millis(run.expires_at)
            assert expires_at == flow.expires_at
            waiting = {n: node for n, node in enumerate(flow.nodes) if node.end is None and not node.freed}
            counts = {
                n: sum(flow.nodes[before].end is None for before in node.after) for n, node in waiting.items()
            }
            for stores in self.stores:
                assert blocked(stores, name) == counts

    @invariant()
    def jobs_agree(self) -> None:
        """The records of all jobs are the same in each store."""
        if len(self.stores) > 1:
            self.do(
                lambda store: store.find(Wanted(), limit=1000, now=self.now),
                same=lambda found: sorted(found.jobs, key=lambda job: job.id),
            )

    def state(self, node: Known) -> str:
        return node.end or ("running" if node.job_id in self.running else "pending")


def _node(name: str, number: int, fate: Fate) -> Node:
    return Node(
        f"{name}.{number}",
        tuple(f"{name}.{n}" for n in fate.after),
        fate.joins,
        CONTINUE if fate.tolerated else "cancel",
        new("") if fate.fallback else None,
        {"tags": '["t"]'} | (KEY if fate.keyed else {}),
    )


def cancelled(answer: Cancelled) -> tuple[list[str], list[str]]:
    return sorted(answer.ended), sorted(answer.asked)


@pytest.mark.parametrize("kinds", [("memory",), ("memory", "sqlite")], ids=["memory", "both"])
def test_workflows_are_as_they_should_be_at_any_moment(kinds: tuple[str, ...]) -> None:
    """After any calls, each node is in the state that follows from what has become of those before it."""
    run_state_machine_as_test(
        type("Machine", (Machine,), {"kinds": kinds}),
        settings=settings(QUIET, max_examples=8 if "sqlite" in kinds else 40, stateful_step_count=40),
    )
