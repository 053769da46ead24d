"""Any workflow ends as a few lines say, whatever happens to its steps on the way, in every store."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from backlite_async import QueueConfig
from backlite_async._graph import CONTINUE, NewStep
from backlite_async._job import ClaimedJob, Complete, Declared, JobStatus, Keep, Outcome, Reschedule
from backlite_async._outcome import crashed
from backlite_async.stores import MemoryStore, Store
from backlite_async.stores.sqlite.store import SQLiteStore

from .flows import LANE, Node, flow, new

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


def expected(fates: Sequence[Fate]) -> list[str | None]:
    """Return how each node ends; None: it is never added."""
    ends: list[str | None] = []
    for fate in fates:
        bars = [ends[n] != SUCCEEDED and not fates[n].tolerated for n in fate.after]
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
                {},
            )
            for n, fate in enumerate(base)
        ]
        cancelled = Declared(queue="q", keeps=True, keep_for=KEPT, keep_payload=True, turns=None)
        await self.store.declare([cancelled], now=0)
        await self.store.add([], workflows=[flow(*nodes)])
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
                return died if isinstance(died, Reschedule) else done
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
    """Every node has ended as it should, and nothing is left over, now or once it has expired."""
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
    assert left_over(store) == {}


def left_over(store: Store) -> dict[str, int]:
    """Return how many rows there are of jobs and workflows, of those kinds of which there are any."""
    if isinstance(store, MemoryStore):
        flows = store._flows
        kept = {
            "jobs": store._live.rows,
            "completed": store._completed,
            "workflows": flows._flows,
            "steps": flows._steps,
            "after": flows._after,
            "keyed": store._live._keyed,
        }
        return {name: len(rows) for name, rows in kept.items() if rows}
    assert isinstance(store, SQLiteStore)
    names = ["jobs", "completed", "workflows", "steps", "errors", "lines", "tags"]
    with sqlite3.connect(store.path) as connection:
        there = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        counts = {
            name: connection.execute(f"SELECT count(*) FROM backlite_{name}").fetchone()[0]
            for name in names
            if f"backlite_{name}" in there
        }
    return {name: count for name, count in counts.items() if count}


class Stores:
    """Stores of one kind, each example in a new one or an empty one."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.kind = kind
        self.sqlite = SQLiteStore(str(folder / "app.db"), durability="normal", busy_timeout=5.0)
        if kind == "sqlite":
            self.run(self.sqlite.open(install=True))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def empty(self) -> Store:
        return MemoryStore() if self.kind == "memory" else self.sqlite

    def close(self) -> None:
        if self.kind == "sqlite":
            self.run(self.sqlite.close())
        self.runner.close()


@contextmanager
def stores_of(kind: str) -> Iterator[Stores]:
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(kind, Path(folder))
        yield stores
        stores.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_every_step_ends_as_its_fate_says(kind: str) -> None:
    """Steps end by their fates and the ends of those before them, in whatever order, whatever goes wrong."""
    with stores_of(kind) as stores:

        @settings(QUIET, max_examples=200 if kind == "memory" else 60)
        @given(fates=workflows(50), seed=st.integers(0, 2**32))
        def ends(fates: list[Fate], seed: int) -> None:
            store = stores.empty()
            runner = Runner(store, fates, Random(seed))
            stores.run(runner.run())
            stores.run(check(store, fates, runner))

        ends()
