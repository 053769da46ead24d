"""Any sequence of calls does the same to both stores: lists, actions, and what is kept of attempts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from backlite_async import _query
from backlite_async._history import Line, Note, Trouble
from backlite_async._job import ClaimedJob, Complete, Declared, DeclaredTask, JobStatus, More, NewJob, Outcome
from backlite_async._query import Action, Delete, Edit, Postpone, Release, Rerun, SortKey, Wanted
from backlite_async._stats import DAY, HOUR, MINUTE
from backlite_async.stores import Store

from . import test_control_model
from .test_control_model import OWNERS, keys, picks, waits

TAGS = [None, None, '["x"]', '["x","y"]', '["y","z"]']
EVER = 10**15

tags = st.sampled_from(["x", "y", "z"])
times = st.one_of(st.none(), st.tuples(*[st.one_of(st.none(), st.integers(-5, 5))] * 2))
texts = st.sampled_from(["1", "NO", "ow", '"n":', "nothing"])
states = st.one_of(st.none(), st.frozensets(st.sampled_from(list(JobStatus)), max_size=3))
limits = st.sampled_from([1, 2, 5, 100])


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.none(), st.none(), values)


wanteds = st.builds(
    Wanted,
    queue=st.one_of(st.none(), st.sampled_from("qrs")),
    task=maybe(st.sampled_from("TU")),
    states=states,
    tag=maybe(tags),
    key=maybe(keys),
    unique=maybe(st.sampled_from("uv")),
    parent=maybe(st.sampled_from(["0", "1", "own 0"])),
    owner=maybe(st.sampled_from(test_control_model.OWNERS)),
    added=times,
    due=maybe(times),
    finished=maybe(times),
    text=maybe(texts),
)
rooms = st.sampled_from([1, 9, 10**9])
PENDING, RUNNING = JobStatus.PENDING, JobStatus.RUNNING
reruns = st.builds(Rerun, attempts=st.integers(0, 3))
postpones = st.builds(Postpone, due_at=st.integers(-2, 4), waits_from=st.sampled_from([None, 0]))
edits = st.builds(Edit, queue=st.sampled_from("qr"), task=st.sampled_from("TU"), payload=st.just(b'"now"'))
steps = st.one_of(
    st.tuples(st.just(RUNNING), st.just(Release())),
    st.tuples(st.sampled_from([JobStatus.FAILED, JobStatus.CANCELLED]), reruns),
    st.tuples(st.just(PENDING), st.one_of(postpones, reruns, edits)),
    st.tuples(st.sampled_from(list(JobStatus)[:-1]), st.just(Delete())),
    st.tuples(st.none(), st.one_of(reruns, postpones, edits, st.just(Release()), st.just(Delete()))),
)
"""Actions, each with the state of the jobs that it is meant for: None, any."""


class Machine(test_control_model.Machine):
    """Does all that the model of claims and orders does, and what people do; looks at all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.said = itertools.count()

    def new(self, job: tuple[Any, ...], job_id: str | None = None) -> NewJob:
        """Return a job that may have tags, a parent, meta data."""
        plain = super().new(job, job_id)
        number = len(self.ids)
        more = plain.more or More()
        changes = {
            "tags": TAGS[number % len(TAGS)],
            "parent": self.ids[0] if number % 3 == 0 else None,
            "meta": f'{{"n":{number}}}' if number % 4 == 0 else None,
        }
        return msgspec.structs.replace(plain, more=msgspec.structs.replace(more, **changes))

    def outcome(self, job: ClaimedJob, how: str, delay: int, lapsed_by: int | None = None) -> Outcome:
        """Return an outcome with all that may come with it."""
        plain = super().outcome(job, how, delay, lapsed_by)
        number = next(self.said)
        what = "succeeded" if isinstance(plain, Complete) else "retried"
        changes: dict[str, Any] = {
            "tally": (job.queue, self.now - self.now % MINUTE, what, delay, number % 9 - 1),
            "note": self.note(job, number) if number % 3 else None,
        }
        if how == "back":
            changes["tally"] = None
        if number % 2:
            changes["trouble"] = self.trouble(job, number) if how != "end" else None
        if isinstance(plain, Complete):
            changes["beside"] = True
            if number % 2:
                letter = self.new((("q", "U"), None, 0, delay))
                changes |= {"status": JobStatus.FAILED, "letter": letter, "error": "Not now"}
        return msgspec.structs.replace(plain, **changes)

    def trouble(self, job: ClaimedJob, number: int) -> Trouble:
        return Trouble(
            attempt=job.attempt,
            type="No",
            message=f"no {number}",
            traceback=None if number % 3 else "there",
            started_at=None if number % 5 else self.now,
            finished_at=self.now,
            duration=number,
        )

    def note(self, job: ClaimedJob, number: int) -> Note:
        lines = tuple(
            Line(4 * number + place, self.now, "info", f"line {number}") for place in range(number % 4)
        )
        progress = None if number % 3 == 1 else number / 1000
        return Note(
            id=job.id, fence=job.fence, attempt=job.attempt, progress=progress, message="so far", lines=lines
        )

    def latest(self, chosen: Sequence[int]) -> list[str]:
        return [self.ids[-1 - pick % len(self.ids)] for pick in chosen]

    @rule(keeps=st.booleans(), turns=st.sampled_from([1, 1, 2, None]))
    def declare(self, keeps: bool, turns: int | None) -> None:
        """Declare the queues with their task types."""
        task = DeclaredTask("T", f"{turns}", "", None if keeps else '{"type":"object"}')
        queues = [
            Declared(
                queue=queue,
                keeps=keeps,
                keep_for=20,
                keep_payload=queue == "q",
                turns=turns,
                limits=f'{{"concurrency_per_key":{turns or 0}}}',
                tasks=(task, DeclaredTask("U", "", "", None)),
            )
            for queue in "qr"
        ]
        self.both(lambda store: store.declare(queues, now=self.now))

    note_start: Any = None  # of no account here, or too much of it: rules that the other model has
    pause: Any = None
    take_all: Any = None
    look_at_all: Any = None

    @rule(step=steps, chosen=st.lists(picks, min_size=1, max_size=4), wait=waits)
    def act(self, step: tuple[JobStatus | None, Action], chosen: list[int], wait: int) -> None:
        """Do something to jobs, most often to such that it can be done to."""
        self.now += wait
        status, action = step
        states = frozenset(JobStatus) if status is None else frozenset({status})
        there = self.runner.run(self.memory.find(Wanted(states=states), limit=50, now=self.now)).jobs
        asked = [there[pick % len(there)].id for pick in chosen] if there else self.latest(chosen)
        if isinstance(action, Postpone):
            since = None if action.waits_from is None else self.now
            action = Postpone(due_at=self.now + action.due_at, waits_from=since)
        self.both(lambda store: store.act(action, [*asked, "unknown"], now=self.now), same=list)
        self.ids += asked

    @rule(step=steps, chosen=st.lists(picks, min_size=1, max_size=4), wait=waits)
    def act_again(self, step: tuple[JobStatus | None, Action], chosen: list[int], wait: int) -> None:
        """Do more of it than of the rest."""
        self.act(step, chosen, wait)

    @precondition(lambda self: self.claims)
    @rule(chosen=st.lists(picks, min_size=1, max_size=3))
    def say(self, chosen: list[int]) -> None:
        """Store notes of claims, of which some are lost."""
        jobs = [self.claims[-1 - pick % len(self.claims)] for pick in chosen]
        notes = [self.note(job, next(self.said)) for job in jobs]
        self.both(lambda store: store.note(notes))

    @precondition(lambda self: self.ids)
    @rule(chosen=st.lists(picks, min_size=1, max_size=3), owner=st.sampled_from(OWNERS), undo=st.booleans())
    def watch(self, chosen: list[int], owner: str, undo: bool) -> None:
        """Wait for jobs, or give it up."""
        waited = self.latest(chosen)

        async def call(store: Store) -> None:
            await (store.unwatch(waited, owner=owner) if undo else store.watch(waited, owner=owner))

        self.both(call)

    @rule(owner=st.sampled_from(OWNERS))
    def end_starts(self, owner: str) -> None:
        """Let an owner die."""
        self.both(lambda store: store.end_starts([owner], now=self.now))

    @rule(by=st.sampled_from([MINUTE, HOUR, 5 * HOUR, 33 * DAY]), sum_up=st.booleans())
    def jump(self, by: int, sum_up: bool) -> None:
        """Let a long time pass."""
        self.now += by
        if sum_up:
            self.both(lambda store: store.sum_up(now=self.now))

    # -- what is asked -----------------------------------------------------------------------------

    @invariant()
    def stores_agree(self) -> None:
        """There are the same jobs, in the same order; queues and statistics are the same."""
        self.both(lambda store: self.pages(store, Wanted(), 1000, back=False))
        self.both(lambda store: store.queues(now=self.now), same=list)
        self.both(lambda store: store.stats(since=0, until=EVER, step=HOUR), same=sorted)
        for job_id in self.ids[-2:]:
            self.both(lambda store, job_id=job_id: store.get(job_id, now=self.now))  # type: ignore[misc]

    @rule(wanted=wanteds, limit=limits, looks=st.sampled_from([1, 3, 10_000]), room=rooms)
    def look(self, wanted: Wanted, limit: int, looks: int, room: int) -> None:
        """Lists and counts are the same, in whatever pages, and wherever they begin."""
        wanted = self.of_now(wanted)
        whole = self.both(lambda store: self.pages(store, wanted, 1000, back=False))
        with patch.object(_query, "LOOKS", looks), patch.object(_query, "LOOK_BYTES", room):
            assert self.both(lambda store: self.pages(store, wanted, limit, back=False)) == whole
            assert self.both(lambda store: self.pages(store, wanted, limit, back=True)) == whole
        self.both(
            lambda store: store.count(wanted, most=limit, now=self.now),
            same=lambda count: (int(count), count.capped),
        )

    def of_now(self, wanted: Wanted) -> Wanted:
        """Return what is wanted with times that are counted from now; a unique key is one of a queue."""
        changes: dict[str, Any] = {
            name: tuple(None if at is None else self.now + at for at in value)
            for name in ("added", "due", "finished")
            if (value := getattr(wanted, name)) is not None
        }
        if wanted.unique is not None:
            changes["queue"] = wanted.queue or "q"
        return msgspec.structs.replace(wanted, **changes)

    async def pages(self, store: Store, wanted: Wanted, limit: int, *, back: bool) -> list[Any]:
        """Return all jobs of a list, in its order, read in pages."""
        jobs: list[Any] = []
        after: SortKey | None = None
        before: SortKey | None = (9,) if back else None
        for _ in range(1000):
            found = await store.find(wanted, limit=limit, after=after, before=before, now=self.now)
            assert list(found.places) == sorted(found.places)
            assert len(found.jobs) == len(found.places) <= limit
            jobs = [*found.jobs, *jobs] if back else [*jobs, *found.jobs]
            if not found.more:
                return jobs
            edge = found.looked_to if found.limited else found.places[0 if back else -1]
            before, after = (edge, None) if back else (None, edge)
        raise AssertionError("pages without end")

    @rule(step=st.sampled_from([None, MINUTE, HOUR]), queue=st.sampled_from([None, "q"]))
    def look_at_numbers(self, step: int | None, queue: str | None) -> None:
        """So are statistics, tasks, and owners."""
        since = self.now - self.now % HOUR - 40 * DAY
        self.both(lambda store: store.stats(since=since, until=EVER, step=step, queue=queue), same=sorted)
        self.both(lambda store: store.stats(since=since, until=EVER, step=step, together=True), same=list)
        self.both(lambda store: store.numbers(since=since, until=EVER), same=sorted)
        self.both(lambda store: store.queues(now=self.now, most=3, queue=queue), same=list)
        self.both(lambda store: store.tasks(), same=list)
        self.both(lambda store: store.owners(now=self.now), same=list)
        self.both(lambda store: store.which_ended(self.ids[-5:], now=self.now), same=set)


def test_both_stores_do_the_same() -> None:
    """After any calls, each answer of the store on a file is that of the store in memory."""
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],  # add Phase.shrink to study a failure: it takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
