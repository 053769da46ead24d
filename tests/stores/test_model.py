"""Any sequence of calls does to a store what it does to a model of a few lines."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from backlite_async._job import (
    Claim,
    ClaimedJob,
    Complete,
    Job,
    JobStatus,
    Keep,
    Lane,
    NewJob,
    Outcome,
    Owner,
    Reschedule,
)
from backlite_async.stores import MemoryStore, Store
from backlite_async.stores.sqlite.store import SQLiteStore

T = TypeVar("T")
Kind = tuple[str, str]

KINDS: list[Kind] = [("q", "T"), ("q", "U"), ("r", "T")]
OWNERS = ["first", "second"]


def lane(room: int, *kinds: Kind) -> Lane:
    return Lane(kinds=kinds, room=room)


kinds = st.sampled_from(KINDS)
owners = st.sampled_from(OWNERS)
instants = st.integers(0, 3)
picks = st.integers(0, 5)
ends = st.sampled_from([JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED])
reasons = st.sampled_from(["retry", "snooze", "give back"])
errors = st.sampled_from([None, "completed"])
keeps = st.none() | st.tuples(st.none() | instants, st.booleans())
news = st.lists(st.tuples(kinds, st.integers(-1, 1), instants, st.booleans(), picks), min_size=1, max_size=6)
rooms = st.sampled_from([0, 1, 2, 5])
lanes = st.one_of(
    st.builds(lambda room: [lane(room, *KINDS)], rooms),
    st.builds(lambda a, b, c: [lane(a, KINDS[0]), lane(b, KINDS[1]), lane(c, KINDS[2])], rooms, rooms, rooms),
    st.builds(lambda a, b: [lane(a, *KINDS[:2]), lane(b, *KINDS[2:])], rooms, rooms),
    st.builds(lambda room, kind: [lane(room, kind)], rooms, kinds),
)


@dataclass
class Row:
    """What the model knows of a job."""

    new: NewJob
    seq: int
    due_at: int
    scheduled_at: int
    waits_from: int | None
    status: JobStatus = JobStatus.PENDING
    attempt: int = 0
    crashes: int = 0
    fence: int | None = None
    owner: str | None = None
    error: str | None = None
    payload: bytes | None = None
    until: int | None = None

    @property
    def kind(self) -> Kind:
        return self.new.queue, self.new.task


@dataclass
class Model:
    """What a store should do."""

    rows: dict[str, Row] = field(default_factory=dict)
    fence: int = 0

    def add(self, jobs: Sequence[NewJob]) -> None:
        for job in jobs:
            row = Row(
                new=job,
                seq=len(self.rows),
                due_at=job.due_at,
                scheduled_at=job.due_at,
                waits_from=job.waits_from,
                payload=job.payload,
            )
            self.rows.setdefault(job.id, row)

    def of(self, status: JobStatus) -> list[Row]:
        return [row for row in self.rows.values() if row.status is status]

    def choose(self, lanes: Sequence[Lane], now: int) -> tuple[list[Row], set[Kind]]:
        """Return the jobs to claim, and the kinds with room left, going by the best job each time."""
        room = {lane: lane.room for lane in lanes}
        total = max(room.values())
        chosen: list[Row] = []
        due = [row for row in self.of(JobStatus.PENDING) if row.due_at <= now]
        for row in sorted(due, key=lambda row: (-row.new.priority, row.due_at, row.seq)):
            lane = next((lane for lane in lanes if row.kind in lane.kinds), None)
            if lane is not None and room[lane] > 0 and len(chosen) < total:
                room[lane] -= 1
                chosen.append(row)
        left = {kind for lane in lanes if room[lane] > 0 for kind in lane.kinds}
        return chosen, left if len(chosen) < total else set()

    def finish(self, outcome: Outcome) -> bool:
        row = self.rows.get(outcome.id)
        if row is None or not self.holds(outcome.id, outcome.fence):
            return False
        if outcome.lapsed_by is not None and row.due_at > outcome.lapsed_by:
            return False
        row.attempt, row.crashes, row.owner = outcome.attempt, outcome.crashes, None
        row.error = outcome.error or row.error
        if isinstance(outcome, Reschedule):
            row.status, row.due_at, row.scheduled_at = JobStatus.PENDING, outcome.due_at, outcome.due_at
            row.waits_from = outcome.waits_from
        elif outcome.keep is None:
            row.status = JobStatus.NOT_FOUND
        else:
            row.status, row.until = outcome.status, outcome.keep.until
            row.payload = row.payload if outcome.keep.payload else None
        return True

    def shift_waits(self, now: int, by: int) -> int:
        shifted = 0
        for row in self.of(JobStatus.PENDING):
            step = 0 if row.waits_from is None else self.step(row.waits_from, row.due_at, now, by)
            if row.waits_from is not None and step:
                row.waits_from += step
                row.due_at = row.scheduled_at = row.due_at + step
                shifted += 1
        return shifted

    def step(self, began: int, due_at: int, now: int, by: int) -> int:
        if by == 0:
            return now - began if began > now + 1000 else 0
        if by > 0:
            return by if due_at > now - by and began <= now - by else 0
        return by if due_at > now and not now - 60_000 <= began <= now + 1000 else 0

    def holds(self, job_id: str, fence: int) -> bool:
        row = self.rows[job_id]
        return row.status is JobStatus.RUNNING and row.fence == fence

    def expired(self, now: int) -> list[Row]:
        return [row for row in self.rows.values() if row.until is not None and row.until <= now]


class Machine(RuleBasedStateMachine):
    """Does the same to a store and to the model, and compares what they answer."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 10_000_000
        self.ids = map(str, itertools.count())
        self.model = Model()
        self.claims: list[ClaimedJob] = []
        self.touched = ""
        self.store = self.make()
        self.run(self.store.open(install=True, owner=Owner(id="model", beat=1.0, slots=9)))

    def make(self) -> Store:
        raise NotImplementedError

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    # -- what is done ------------------------------------------------------------------------------

    @initialize(jobs=news)
    def start(self, jobs: list[tuple[Kind, int, int, bool, int]]) -> None:
        """Begin with some jobs, whatever rules are tried."""
        self.add(jobs)

    @rule(jobs=news)
    def add(self, jobs: list[tuple[Kind, int, int, bool, int]]) -> None:
        """Add several jobs, some under the ids of live ones."""
        live = [
            row.new.id for row in self.model.rows.values() if row.owner or row.status is JobStatus.PENDING
        ]
        batch: list[NewJob] = []
        for (queue, task), priority, delay, again, pick in jobs:
            job_id = live[pick % len(live)] if again and live else next(self.ids)
            batch.append(
                NewJob(
                    id=job_id,
                    queue=queue,
                    task=task,
                    payload=f"[{len(batch)}]".encode(),
                    max_attempts=3,
                    created_at=self.now,
                    due_at=self.now + delay,
                    waits_from=None if pick % 3 == 0 else self.now,
                    priority=priority,
                )
            )
        self.run(self.store.add(batch, again=True))
        self.model.add(batch)
        self.touched = batch[0].id

    @rule(lanes=lanes, owner=owners, wait=instants, lease=st.integers(1, 5))
    def claim(self, lanes: list[Lane], owner: str, wait: int, lease: int) -> None:
        """Claim; compare the jobs in their order, what has lapsed, and when to look again."""
        self.now += wait
        until = self.now + lease
        found = self.run(self.store.claim(lanes, owner=owner, now=self.now, until=until))
        chosen, left = self.model.choose(lanes, self.now)
        assert [job.id for job in found.jobs] == [row.new.id for row in chosen]
        for job, row in zip(found.jobs, chosen, strict=True):
            assert self.model.fence < job.fence == found.jobs[0].fence
            row.status, row.fence, row.owner, row.due_at = JobStatus.RUNNING, job.fence, owner, until
            row.attempt += 1
            self.compare(job)
        self.model.fence = found.jobs[0].fence if found.jobs else self.model.fence
        self.claims += found.jobs
        self.compare_leases(found, owner, {kind for lane in lanes for kind in lane.kinds}, left)

    def compare(self, job: ClaimedJob) -> None:
        row = self.model.rows[job.id]
        assert job == ClaimedJob(
            id=row.new.id,
            queue=row.new.queue,
            task=row.new.task,
            payload=row.new.payload.decode(),
            attempt=row.attempt,
            max_attempts=row.new.max_attempts,
            crashes=row.crashes,
            fence=row.fence or 0,
            created_at=row.new.created_at,
            scheduled_at=row.scheduled_at,
            waits_from=row.waits_from,
        )

    def compare_leases(self, found: Claim, owner: str, kinds: set[Kind], left: set[Kind]) -> None:
        others = [row for row in self.model.of(JobStatus.RUNNING) if row.kind in kinds and row.owner != owner]
        lapsed = [row for row in others if row.due_at <= self.now]
        assert sorted(claim.job.id for claim in found.lapsed) == sorted(row.new.id for row in lapsed)
        for claim in found.lapsed:
            self.compare(claim.job)
            row = self.model.rows[claim.job.id]
            assert (claim.owner, claim.until) == (row.owner, row.due_at)
        if not lapsed:
            waiting = [row for row in self.model.of(JobStatus.PENDING) if row.kind in left]
            assert found.next_at == min((row.due_at for row in [*waiting, *others]), default=None)

    def write(self, outcomes: Sequence[Outcome], *, now: bool = False) -> None:
        """Write outcomes of different jobs; compare which claims are lost."""
        lost = self.store.finish_now(outcomes) if now else self.run(self.store.finish(outcomes))
        assert lost == {outcome.id for outcome in outcomes if not self.model.finish(outcome)}
        self.touched = outcomes[0].id if outcomes else ""

    def claimed(self, pick: int) -> ClaimedJob:
        """Return a claim there was, one of the last: held, taken over, or written already."""
        return self.claims[-1 - pick % len(self.claims)]

    @rule(owner=owners, wait=instants, end=ends, keep=keeps)
    def work(self, owner: str, wait: int, end: JobStatus, keep: tuple[int | None, bool] | None) -> None:
        """Claim the best job and end it at once."""
        known = len(self.claims)
        self.claim([lane(1, *KINDS)], owner, wait, 1)
        if len(self.claims) > known:
            self.complete([(0, end, keep, None)], now=False)

    @precondition(lambda self: self.claims)
    @rule(chosen=st.lists(st.tuples(picks, ends, keeps, errors), min_size=1, max_size=3), now=st.booleans())
    def complete(
        self, chosen: list[tuple[int, JobStatus, tuple[int | None, bool] | None, str | None]], now: bool
    ) -> None:
        """End several jobs in one write."""
        outcomes: dict[str, Outcome] = {}
        for pick, status, keep, error in chosen:
            job = self.claimed(pick)
            outcomes[job.id] = Complete(
                id=job.id,
                fence=job.fence,
                status=status,
                finished_at=self.now,
                started_at=None,
                duration=1,
                attempt=job.attempt,
                crashes=job.crashes,
                error=error,
                keep=keep and Keep(until=None if keep[0] is None else self.now + keep[0], payload=keep[1]),
            )
        self.write(list(outcomes.values()), now=now)

    def overtaken(self) -> list[ClaimedJob]:
        """Return claims of jobs that run under a newer one."""
        return [
            job
            for job in self.claims
            if self.model.rows[job.id].status is JobStatus.RUNNING and not self.model.holds(job.id, job.fence)
        ]

    @precondition(lambda self: self.overtaken())
    @rule(pick=picks, end=ends, keep=keeps)
    def complete_late(self, pick: int, end: JobStatus, keep: tuple[int | None, bool] | None) -> None:
        """End a job under a claim that another one has followed."""
        late = self.overtaken()
        self.claims.append(late[pick % len(late)])
        self.complete([(0, end, keep, "late")], now=False)

    @precondition(lambda self: self.claims)
    @rule(chosen=st.lists(st.tuples(picks, reasons, instants), min_size=1, max_size=3), now=st.booleans())
    def reschedule(self, chosen: list[tuple[int, str, int]], now: bool) -> None:
        """Retry, snooze or give back several jobs in one write."""
        outcomes: dict[str, Outcome] = {}
        for pick, why, delay in chosen:
            job = self.claimed(pick)
            outcomes[job.id] = Reschedule(
                id=job.id,
                fence=job.fence,
                due_at=self.now + (0 if why == "give back" else delay),
                waits_from=None if why == "give back" else self.now,
                attempt=job.attempt - (why != "retry"),
                crashes=job.crashes,
                error="retried" if why == "retry" else None,
            )
        self.write(list(outcomes.values()), now=now)

    @rule(owner=owners, wait=instants, crash=st.booleans(), wrong=st.booleans())
    def take_over(self, owner: str, wait: int, crash: bool, wrong: bool) -> None:
        """Release what has lapsed; sometimes by an instant at which it had not yet."""
        self.now += wait
        all_kinds = [Lane(kinds=tuple(KINDS), room=0)]
        found = self.run(self.store.claim(all_kinds, owner=owner, now=self.now, until=self.now))
        self.compare_leases(found, owner, set(KINDS), set())
        outcomes = [
            Reschedule(
                id=job.id,
                fence=job.fence,
                due_at=self.now,
                attempt=job.attempt - crash,
                crashes=job.crashes + crash,
                lapsed_by=self.now - 3 * wrong,
            )
            for job in (claim.job for claim in found.lapsed)
        ]
        self.write(outcomes)

    @rule(back=st.sampled_from([1, 1_001, 70_000]), known=st.booleans(), right=st.booleans())
    def set_clock(self, back: int, known: bool, right: bool) -> None:
        """Set the clock back, and sometimes right again."""
        self.now -= back
        by = -back if known else 0
        assert self.run(self.store.shift_waits(now=self.now, by=by)) == self.model.shift_waits(self.now, by)
        if right:
            self.now += back
            shifted = self.run(self.store.shift_waits(now=self.now, by=back))
            assert shifted == self.model.shift_waits(self.now, back)

    @precondition(lambda self: self.claims)
    @rule(chosen=st.lists(picks), lease=st.integers(-2, 4))
    def renew(self, chosen: list[int], lease: int) -> None:
        """Renew several claims, some of which are lost, some of which last longer already."""
        until = self.now + lease
        held = {job.id: job.fence for job in (self.claimed(pick) for pick in chosen)}
        lost = self.store.renew(held.items(), until=until)
        assert lost == {job_id for job_id, fence in held.items() if not self.model.holds(job_id, fence)}
        for job_id in held.keys() - lost:
            row = self.model.rows[job_id]
            row.due_at = max(row.due_at, until)

    @rule(owner=owners)
    def crash(self, owner: str) -> None:
        """Forget the claims of an owner: nothing but their leases' end releases them."""
        rows = self.model.rows
        self.claims = [job for job in self.claims if rows[job.id].owner != owner]

    @rule(wait=instants, limit=st.integers(1, 3))
    def expire(self, wait: int, limit: int) -> None:
        """Remove what has expired: as many as there are, up to the limit."""
        self.now += wait
        removed = self.run(self.store.expire(now=self.now, limit=limit))
        expired = self.model.expired(self.now)
        assert removed == min(limit, len(expired))
        if len(expired) > limit:  # which ones went is not promised: let the rest follow
            assert self.run(self.store.expire(now=self.now, limit=100)) == len(expired) - limit
        for row in expired:
            row.status, row.until = JobStatus.NOT_FOUND, None

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def records_agree(self) -> None:
        """The job that was added or written last is as the model has it."""
        if self.touched in self.model.rows:
            self.run(self.compare_record(self.touched))

    @rule()
    def look_at_all(self) -> None:
        """Compare all records, the kinds, the claims and the next expiry with the model's."""
        self.run(self.compare_all())

    async def compare_record(self, job_id: str) -> None:
        row = self.model.rows[job_id]
        hidden = row.until is not None and row.until <= self.now
        status = JobStatus.NOT_FOUND if hidden else row.status
        assert await self.store.status(job_id, now=self.now) is status
        job = await self.store.get(job_id, now=self.now)
        assert (job and summary(job)) == (None if status is JobStatus.NOT_FOUND else expected(row))

    async def compare_all(self) -> None:
        store, model = self.store, self.model
        for job_id in model.rows:
            await self.compare_record(job_id)
        assert sorted(await store.kinds()) == sorted({row.kind for row in model.of(JobStatus.PENDING)})
        for owner in OWNERS:
            held = {row.new.id for row in model.of(JobStatus.RUNNING) if row.owner == owner}
            assert {job.id for job in await store.claims_of(owner)} == held
        instants = [row.until for row in model.rows.values() if row.until is not None]
        assert await store.next_expiry() == min(instants, default=None)


def summary(job: Job) -> tuple[object, ...]:
    return job.status, job.attempt, job.crashes, job.error, job.payload, job.fence, job.priority


def expected(row: Row) -> tuple[object, ...]:
    return row.status, row.attempt, row.crashes, row.error, row.payload, row.fence, row.new.priority


class MemoryMachine(Machine):
    def make(self) -> Store:
        return MemoryStore()


class SQLiteMachine(Machine):
    def make(self) -> Store:
        self.folder = tempfile.TemporaryDirectory()
        return self.store_on_file()

    def store_on_file(self) -> SQLiteStore:
        return SQLiteStore(str(Path(self.folder.name) / "app.db"), durability="normal", busy_timeout=5.0)

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()

    @rule()
    def reopen(self) -> None:
        """Close, and open the file with another store."""
        self.run(self.store.close())
        self.store = self.store_on_file()
        self.run(self.store.open(install=True, owner=Owner(id="model", beat=1.0, slots=9)))


@pytest.mark.parametrize(("machine", "examples"), [(MemoryMachine, 400), (SQLiteMachine, 150)])
def test_store_agrees_with_the_model(machine: type[Machine], examples: int) -> None:
    """After any calls, each answer of a store is the model's."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],  # add Phase.shrink to study a failure: it takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
