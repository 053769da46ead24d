"""Any sequence of calls does the same to both stores: the one in memory says what is to be done."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

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
    Declared,
    JobStatus,
    Keep,
    Lane,
    Limit,
    More,
    NewJob,
    Outcome,
    Place,
    Reschedule,
    Unique,
)
from backlite_async.stores import MemoryStore, Store
from backlite_async.stores.sqlite.store import SQLiteStore

T = TypeVar("T")
Kind = tuple[str, str]

KINDS: list[Kind] = [("q", "T"), ("q", "U"), ("r", "T"), ("s", "T")]
TURNS = {"q": 1, "r": 2}
"""How many jobs of a key of each queue may run."""

OWNERS = ["first", "second"]

ways = st.sampled_from(["end", "keep", "again", "back"])
owners = st.sampled_from(OWNERS)
waits = st.integers(0, 3)
picks = st.integers(0, 7)
priorities = st.sampled_from([0, 0, 0, 1, -1])
keys = st.sampled_from(["a", "b", "c", None])
delays = st.sampled_from([0, 0, 0, 1, 4])
news = st.tuples(st.sampled_from(KINDS), keys, priorities, delays)
uniques = st.builds(
    Unique,
    own_id=st.booleans(),
    replace_own=st.booleans(),
    key=st.sampled_from([None, "u", "v"]),
    within=st.sampled_from([None, 2, 10]),
    replace_key=st.booleans(),
)
rooms = st.sampled_from([0, 1, 2, 9])


def lane(room: int, *kinds: Kind) -> Lane:
    return Lane(kinds=kinds, room=room)


lanes = st.one_of(
    st.builds(lambda room: [lane(room, *KINDS)], rooms),
    st.builds(lambda a, b: [lane(a, *KINDS[:2]), lane(b, *KINDS[2:])], rooms, rooms),
    st.builds(lambda a, b: [lane(a, *KINDS[::2]), lane(b, *KINDS[1::2])], rooms, rooms),
    st.builds(lambda a, b: [lane(a, KINDS[0]), lane(b, KINDS[1])], rooms, rooms),
    st.builds(lambda *sizes: list(map(lane, sizes, KINDS)), *[rooms] * len(KINDS)),
    st.builds(lambda kind, room: [lane(room, kind)], st.sampled_from(KINDS), rooms),
)
numbers = st.sampled_from([None, None, 0, 1, 3])
rates = st.sampled_from([None, (2, 6)])
limits = st.tuples(numbers, numbers, numbers, numbers, rates)


class Machine(RuleBasedStateMachine):
    """Does the same to both stores, and compares what they answer."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.memory = MemoryStore()
        self.sqlite = SQLiteStore(
            str(Path(self.folder.name) / "app.db"), durability="normal", busy_timeout=5.0
        )
        self.now = 10_000_000
        self.names = map(str, itertools.count())
        self.ids: list[str] = []
        self.claims: list[ClaimedJob] = []
        self.starts: list[tuple[str, int, int, int]] = []
        self.both(lambda store: store.open(install=True))

    def teardown(self) -> None:
        self.both(lambda store: store.close())
        self.runner.close()
        self.folder.cleanup()

    def both(
        self, call: Callable[[Store], Coroutine[Any, Any, T]], *, same: Callable[[T], Any] = lambda x: x
    ) -> T:
        """Do it to both; compare and return what they answer."""
        expected = self.runner.run(call(self.memory))
        found = self.runner.run(call(self.sqlite))
        assert same(found) == same(expected)
        return expected

    # -- what is done ------------------------------------------------------------------------------

    def new(self, job: tuple[Kind, str | None, int, int], job_id: str | None = None) -> NewJob:
        (queue, task), key, priority, delay = job
        job_id = next(self.names) if job_id is None else job_id
        self.ids.append(job_id)
        return NewJob(
            id=job_id,
            queue=queue,
            task=task,
            payload=f"[{len(self.ids)}]".encode(),
            max_attempts=3,
            created_at=self.now,
            due_at=self.now + delay,
            waits_from=self.now if delay else None,
            priority=priority,
            more=None if key is None else More(key=key, turns=TURNS.get(queue)),
        )

    @initialize(keeps=st.booleans(), jobs=st.lists(news, min_size=2, max_size=8))
    def start(self, keeps: bool, jobs: list[tuple[Kind, str | None, int, int]]) -> None:
        """Begin with some jobs, of which some are of the same key."""
        self.declare(keeps, 1)
        self.add(jobs, again=False)

    @rule(keeps=st.booleans(), turns=st.sampled_from([1, 1, 2, None]))
    def declare(self, keeps: bool, turns: int | None) -> None:
        """Declare the queues, sometimes as if keys were not limited, or otherwise."""
        queues = [
            Declared(queue=queue, keeps=keeps, keep_for=20, keep_payload=queue == "q", turns=turns)
            for queue in "qr"
        ]
        self.both(lambda store: store.declare(queues, now=self.now))

    @rule(jobs=st.lists(news, min_size=1, max_size=5), again=st.booleans())
    def add(self, jobs: list[tuple[Kind, str | None, int, int]], again: bool) -> None:
        """Add several jobs; some of one key."""
        batch = [self.new(job) for job in jobs]
        self.both(lambda store: store.add(batch, again=again))

    @rule(job=news, unique=uniques, pick=picks, again=st.booleans())
    def add_unique(
        self, job: tuple[Kind, str | None, int, int], unique: Unique, pick: int, again: bool
    ) -> None:
        """Add a job that may be in the way of another, by its id or key."""
        own = f"own {pick % 3}" if unique.own_id else None
        one = self.new(job, own)
        self.both(lambda store: store.add_unique(one, unique, now=self.now, again=False))
        if again:
            self.both(lambda store: store.add_unique(one, unique, now=self.now, again=True))

    @rule(lanes=lanes, owner=owners, wait=waits, lease=st.integers(2, 9), limits=limits)
    def claim(self, lanes: list[Lane], owner: str, wait: int, lease: int, limits: tuple[Any, ...]) -> None:
        """Claim within limits."""
        self.now += wait
        until = self.now + lease
        room_of_q, room_of_r, all_of_q, all_of_s, rate = limits
        asked = [
            Limit(queue="q", room=room_of_q, in_all=all_of_q, per_key=TURNS["q"]),
            Limit(queue="r", room=room_of_r, per_key=TURNS["r"], rate=rate),
            Limit(queue="s", in_all=all_of_s),
        ]
        before = self.running_of_keys()
        found = self.both(
            lambda store: store.claim(lanes, owner=owner, now=self.now, until=until, limits=asked),
            same=self.comparable,
        )
        self.claims += found.jobs
        self.starts += [("r", number, self.now, until) for number in found.starts.values()]
        for (queue, key), count in self.running_of_keys().items():
            assert count <= max(TURNS[queue], before.get((queue, key), 0))

    def comparable(self, claim: Claim) -> Any:
        lapsed = sorted((found.job.id, found.owner, found.until) for found in claim.lapsed)
        return list(claim.jobs), lapsed, claim.next_at, dict(claim.starts)

    def running_of_keys(self) -> dict[tuple[str, str], int]:
        """Return how many jobs of each key of a limited queue are claimed."""
        counts: dict[tuple[str, str], int] = {}
        for owner in OWNERS:
            for job in self.runner.run(self.sqlite.claims_of(owner)):
                if job.key is not None and job.queue in TURNS:
                    counts[job.queue, job.key] = counts.get((job.queue, job.key), 0) + 1
        return counts

    @precondition(lambda self: self.claims)
    @rule(chosen=st.lists(st.tuples(picks, ways, delays), min_size=1, max_size=3))
    def finish(self, chosen: list[tuple[int, str, int]]) -> None:
        """Write some outcomes, some of them under claims that are lost."""
        outcomes: dict[str, Outcome] = {}
        for pick, how, delay in chosen:
            job = self.claims[-1 - pick % len(self.claims)]
            outcomes[job.id] = self.outcome(job, how, delay)
        written = list(outcomes.values())
        self.ids += outcomes
        self.both(lambda store: store.finish(written))

    def outcome(self, job: ClaimedJob, how: str, delay: int, lapsed_by: int | None = None) -> Outcome:
        frees = Place(job.queue, job.key, self.now - delay % 2)
        if how in ("end", "keep"):
            return Complete(
                id=job.id,
                fence=job.fence,
                status=JobStatus.SUCCEEDED,
                finished_at=self.now,
                started_at=None,
                duration=1,
                attempt=job.attempt,
                crashes=job.crashes,
                keep=Keep(until=self.now + 20, payload=True) if how == "keep" else None,
                frees=frees,
                lapsed_by=lapsed_by,
            )
        back = how == "back"
        return Reschedule(
            id=job.id,
            fence=job.fence,
            due_at=min(job.scheduled_at, self.now) if back else self.now + delay,
            waits_from=job.waits_from if back else self.now,
            attempt=job.attempt - back,
            crashes=job.crashes,
            error=None if back else "no",
            frees=frees,
            lapsed_by=lapsed_by,
        )

    @rule(owner=owners, wait=waits)
    def take_over(self, owner: str, wait: int) -> None:
        """Release what has lapsed."""
        self.now += wait
        nothing = [Lane(kinds=tuple(KINDS), room=0)]
        found = self.both(
            lambda store: store.claim(nothing, owner=owner, now=self.now, until=self.now),
            same=self.comparable,
        )
        outcomes = [self.outcome(lapsed.job, "back", 0, lapsed_by=self.now) for lapsed in found.lapsed]
        self.both(lambda store: store.finish(outcomes))

    @precondition(lambda self: self.ids)
    @rule(chosen=st.lists(picks, min_size=1, max_size=3), wait=waits)
    def cancel(self, chosen: Sequence[int], wait: int) -> None:
        """Cancel some of the last jobs, whatever they do."""
        self.now += wait
        asked = list(dict.fromkeys(self.ids[-1 - pick % len(self.ids)] for pick in chosen))
        self.both(
            lambda store: store.cancel(asked, now=self.now),
            same=lambda done: (sorted(done.ended), sorted(done.asked)),
        )

    @rule(queue=st.sampled_from("qrs"), resume=st.booleans())
    def pause(self, queue: str, resume: bool) -> None:
        """Pause a queue, or resume all of them."""
        if not resume:
            self.both(lambda store: store.pause(queue, now=self.now))
            return
        for name in "qrs":
            self.both(lambda store, name=name: store.resume(name))  # type: ignore[misc]

    @precondition(lambda self: self.starts)
    @rule(pick=picks, late=waits, void=st.booleans())
    def note_start(self, pick: int, late: int, void: bool) -> None:
        """Note when a job started, while its lease lasted, or that it did not."""
        queue, number, claimed_at, until = self.starts.pop(-1 - pick % len(self.starts))
        note = [(queue, number, 0 if void else min(claimed_at + late, until, self.now))]
        self.both(lambda store: store.note_starts(note))

    @rule(wait=waits)
    def expire(self, wait: int) -> None:
        """Remove what has expired."""
        self.now += wait
        self.both(lambda store: store.expire(now=self.now, limit=100))

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def stores_agree(self) -> None:
        """What can be asked is answered the same."""
        self.both(lambda store: store.queues(now=self.now), same=list)
        self.both(lambda store: store.oldest_due([("q", "T"), ("r", "U")]))
        for job_id in self.ids[-1:]:
            self.both(lambda store, job_id=job_id: store.get(job_id, now=self.now))  # type: ignore[misc]

    @rule()
    def look_at_all(self) -> None:
        """So is what there is of every job, and what owners are told."""
        self.both(lambda store: store.kinds(), same=sorted)
        for owner in OWNERS:
            self.both(lambda store, owner=owner: store.orders(owner), same=orders)  # type: ignore[misc]
        for job_id in set(self.ids):
            self.both(lambda store, job_id=job_id: store.get(job_id, now=self.now))  # type: ignore[misc]

    @rule(lanes=lanes, owner=owners, ways=st.lists(st.tuples(ways, delays), min_size=1, max_size=3))
    def work(self, lanes: list[Lane], owner: str, ways: list[tuple[str, int]]) -> None:
        """Claim by the limits of keys alone, and write outcomes at once."""
        self.claim(lanes, owner, 1, 9, (None, None, None, None, None))
        self.finish([(place, how, delay) for place, (how, delay) in enumerate(ways)] if self.claims else [])

    @rule()
    def take_all(self) -> None:
        """Who is let in is the same, and in the same order; all of it is completed."""
        everything = [Lane(kinds=tuple(KINDS), room=1000)]
        found = self.both(
            lambda store: store.claim(everything, owner="third", now=self.now, until=self.now + 9),
            same=self.comparable,
        )
        outcomes = [self.outcome(job, "end", 0) for job in found.jobs]
        self.both(lambda store: store.finish(outcomes))


def orders(found: Any) -> Any:
    return found.paused, sorted(found.cancelled)


def test_both_stores_do_the_same() -> None:
    """After any calls, each answer of the store on a file is that of the store in memory."""
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],  # add Phase.shrink to study a failure: it takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
