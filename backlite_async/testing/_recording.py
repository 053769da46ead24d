"""What tests are told of a client: the jobs that passed through its store, and how they ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, cast

import msgspec

from .._context import JobContext
from .._errors import PayloadError
from .._graph import NewWorkflow
from .._inside import Given
from .._job import Claim, ClaimedJob, Complete, NewJob, Outcome, Unique
from .._recurring import Tick
from .._registry import Registry
from ..stores import Block, Store

__all__ = ["Ran", "Record", "recording"]

End = Literal["succeeded", "failed", "cancelled", "retried", "snoozed", "crashed"]


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a job.

    `task`: the task as its handler got it, None if it did not decode; `name` is that of its type. `status`
    is "succeeded", "failed" or "cancelled" if the job has ended by it, "retried" or "snoozed" if it goes
    on. `error`: as in `Job.error`; `exception`: what was raised; `result`: what the handler returned, or set
    in its `job.transaction()`.
    """

    id: str
    queue: str
    name: str
    task: Any
    attempt: int
    status: End
    error: str | None = None
    exception: BaseException | None = None
    result: Any = None

    def __str__(self) -> str:
        what = self.name if self.task is None else repr(self.task)
        error = "" if self.error is None else f": {self.error}"
        return f"{what} {self.status} in attempt {self.attempt}{error}"


class Record:
    """What has passed through the store of one client."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.added: dict[str, NewJob] = {}
        """All jobs that were added by this client, in their order."""
        self.uncertain: set[str] = set()
        """Those of them that were added in a transaction of the caller's, who may have rolled it back."""
        self.ran: list[Ran] = []
        """All attempts that have ended."""
        self.untold: list[Ran] = []
        """Those of them that no test has been told of."""
        self.running: dict[tuple[str, int], ClaimedJob] = {}
        """Claims whose outcome is not written yet."""
        self.raised: dict[tuple[str, int], BaseException] = {}
        """What handlers of these have raised."""
        self.returned: dict[tuple[str, int], object] = {}
        """What they have returned."""
        self.given: dict[str, Given] = {}
        """What jobs are to be told of steps before them that there are not."""
        self.begun = self.answered = 0
        """The numbers of the claim that was begun last, and of the last one that has found nothing to do."""
        self.next_at: int | None = None
        """When there is more to do, according to that one."""
        self._waiting: set[asyncio.Event] = set()

    async def until(self, reached: Callable[[], object]) -> None:
        """Wait until something is reached by what passes through the store."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while not reached():
                event.clear()
                await event.wait()
        finally:
            self._waiting.discard(event)

    def _changed(self) -> None:
        for event in self._waiting:
            event.set()

    def add(self, jobs: Iterable[NewJob], *, uncertain: bool = False) -> None:
        """Take note of jobs that were added; `uncertain`: they will be if somebody commits."""
        for job in jobs:
            self.added[job.id] = job
            if uncertain:
                self.uncertain.add(job.id)

    def claimed(self, number: int, claim: Claim) -> None:
        """Take note of what a claim has found."""
        for job in claim.jobs:
            self.running[job.id, job.fence] = job
            self.uncertain.discard(job.id)
            if job.id in self.added:  # its payload may have been edited since
                payload = job.payload.encode("utf-8", "surrogateescape")
                self.added[job.id] = msgspec.structs.replace(self.added[job.id], payload=payload)
        if not claim.jobs and not claim.lapsed:
            self.answered, self.next_at = number, claim.next_at
        self._changed()

    def handled(self, job: JobContext, value: object, error: BaseException | None = None) -> None:
        """Take note of what a handler has returned or raised."""
        claim = job.id, job.fence
        if claim in self.running:  # else it has completed its job already, or is run directly
            self.returned[claim] = value
            if error is not None:
                self.raised[claim] = error

    def ended(self, outcomes: Sequence[Outcome], lost: Iterable[str] = ()) -> None:
        """Take note of outcomes that are written."""
        for outcome in outcomes:
            claim = outcome.id, outcome.fence
            job, error = self.running.pop(claim, None), self.raised.pop(claim, None)
            value = self.returned.pop(claim, None)
            if outcome.id not in lost:
                if isinstance(outcome, Complete):
                    self.add([] if outcome.letter is None else [outcome.letter])
                    self.add(step.job for step in outcome.extends if step.job is not None)
                if job is not None and outcome.tally is not None:
                    ran = self._ran(job, outcome, value, error)
                    self.ran.append(ran)
                    self.untold.append(ran)
        self._changed()

    def _ran(self, job: ClaimedJob, outcome: Outcome, value: object, raised: BaseException | None) -> Ran:
        assert outcome.tally is not None
        if value is None and isinstance(outcome, Complete) and outcome.result:
            value = msgspec.json.decode(outcome.result)  # set in a transaction
        return Ran(
            id=job.id,
            queue=job.queue,
            name=job.task,
            task=self.decoded(job.queue, job.task, job.payload),
            attempt=job.attempt,
            status=cast("End", outcome.tally[2]),
            error=outcome.error,
            exception=raised,
            result=value,
        )

    def decoded(self, queue: str, name: str, payload: str | bytes) -> Any:
        """Return a task of a type that the client has met; None for others, and if it does not decode."""
        handler = self._registry.find(queue, name)
        kind = self._registry.types.get((queue, name)) if handler is None else handler.kind
        try:
            return None if kind is None else kind.decoder.decode(payload)
        except (PayloadError, msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            return None

    def summary(self, jobs: Iterable[ClaimedJob | Ran | NewJob]) -> str:
        """Return which kinds of jobs these are, and how many."""
        names = Counter(job.name if isinstance(job, Ran) else job.task for job in jobs)
        return ", ".join(name if count == 1 else f"{name} ({count} times)" for name, count in names.items())


class _Recorder:
    """A store like another one, of which it tells the record what passes through."""

    def __init__(self, store: Store, record: Record) -> None:
        self._store = store
        self._record = record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def add(
        self, jobs: Sequence[NewJob], *, workflows: Sequence[NewWorkflow] = (), again: bool = False
    ) -> None:
        await self._store.add(jobs, workflows=workflows, again=again)
        self._record.add(_all(jobs, workflows))

    async def add_unique(self, job: NewJob, unique: Unique, *, now: int, again: bool = False) -> str | None:
        found = await self._store.add_unique(job, unique, now=now, again=again)
        if found is None:
            self._record.add([job])
        return found

    async def add_within(self, connection: Any, jobs: Sequence[NewJob], **options: Any) -> str | None:
        found = await self._store.add_within(connection, jobs, **options)
        if found is None:
            self._record.add(_all(jobs, options.get("workflows", ())), uncertain=True)
        return found

    async def tick(self, tick: Tick) -> Sequence[str] | None:
        added = await self._store.tick(tick)
        self._record.add(job for job in tick.jobs if job.id in (added or ()))
        return added

    async def claim(self, lanes: Any, **options: Any) -> Claim:
        self._record.begun = number = self._record.begun + 1
        claim = await self._store.claim(lanes, **options)
        self._record.claimed(number, claim)
        return claim

    async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        lost = await self._store.finish(outcomes)
        self._record.ended(outcomes, lost)
        return lost

    def finish_now(self, outcomes: Sequence[Outcome]) -> set[str]:
        lost = self._store.finish_now(outcomes)
        self._record.ended(outcomes, lost)
        return lost

    async def begin(self, limit: float) -> Block:
        return cast("Block", _RecordedBlock(await self._store.begin(limit), self._record))


def _all(jobs: Sequence[NewJob], workflows: Sequence[NewWorkflow]) -> list[NewJob]:
    """Return jobs, and those of the steps of workflows."""
    return [*jobs, *(job for workflow in workflows for job in workflow.jobs)]


class _RecordedBlock:
    """A handler's transaction like another one, whose commit is written down."""

    def __init__(self, block: Block, record: Record) -> None:
        self._block = block
        self._record = record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)

    async def commit(self, outcome: Outcome) -> None:
        try:
            await self._block.commit(outcome)
        finally:
            if self._block.committed:
                self._record.ended([outcome])


def recording(make: Callable[[], Store], record: Record) -> Callable[[], Store]:
    """Return what makes a store like `make` does, that tells a record what passes through it."""
    return lambda: cast("Store", _Recorder(make(), record))
