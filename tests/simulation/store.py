"""A store that is slow, fails before or after the fact, and dies with its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from backlite_async import InvalidState, Job, JobStatus, QueueConfig
from backlite_async._graph import NewWorkflow
from backlite_async._job import (
    Cancelled,
    Claim,
    ClaimedJob,
    Complete,
    Declared,
    Lane,
    Limit,
    NewJob,
    Orders,
    Outcome,
    Owner,
    Queue,
    Unique,
)
from backlite_async._stats import MOST_COUNTED
from backlite_async.stores import Dead

from .asking import Asking
from .company import Company, Member
from .faults import Host, Killed
from .history import Marked, Misuse, Paused, Revoked
from .memory import SharedMemory
from .recurring import Recurring
from .telling import Teller
from .telling import now as at_once

__all__ = ["FaultyStore"]

T = TypeVar("T")

ASKED = frozenset(
    {
        *("add", "add_unique", "begin", "cancel", "commit", "declare", "get", "pause", "queues", "resume"),
        *("running", "status", "act", "find", "count", "stats", "tasks", "owners"),
        *("save_schedule", "delete_schedule", "schedules", "workflow", "workflows", "step_results"),
    }
)
"""What applications and handlers ask for at any time, and are refused once the store is closed."""


class FaultyStore(Asking, Recurring):
    """One owner's way to a shared memory store, for as long as it is open."""

    writing = False
    shared = False

    def __init__(
        self,
        inner: SharedMemory,
        company: Company,
        host: Host,
        queues: Sequence[QueueConfig],
    ) -> None:
        super().__init__(host)
        self._inner = inner
        self._company = company
        self._history = host.history
        self._teller = Teller(inner, host.history, queues)
        self._listeners: dict[Callable[[], None], None] = {}
        self._member: Member | None = None
        self._open = self._lent = self._renewed = False

    # -- life of the store -------------------------------------------------------------------------

    async def open(
        self, *, install: bool, owner: Owner | None = None, gone: Callable[[], None] | None = None
    ) -> None:
        """Open, unless the weather prevents it."""
        await self._pause(insist=False)
        self._strike("open")
        self._open = True
        if owner is not None:
            self._member = self._company.enter(
                owner, self._host, rung=self._called, gone=gone or self._called
            )

    def hazards(self) -> Sequence[str]:
        """Return nothing: there is no file."""
        return ()

    async def install(self) -> None:
        """Do nothing: there is no schema."""

    async def close(self, *, lend: bool = False) -> None:
        """Close; with `lend`, the blocking methods go on working."""
        await self._pause(insist=True)
        keep = lend or await self._holds_claims()
        self._open, self._lent = False, lend
        if self._member is None or self._host.dead:
            return
        self._member.listening = False
        if lend:
            self._watch()
        else:
            self._company.leave(self._member, keep=keep)

    async def _holds_claims(self) -> bool:
        """Return whether claims or watches are left, as far as that can be found out."""
        await self._pause(insist=True)
        if self._member is None or self._host.dead:
            return False
        fault = self._fault("holds_claims", took_effect=False)
        left = self._inner.claimed_by(self._member.id) or self._member.id in self._inner.watches()
        return fault is not None or bool(left)

    def _watch(self) -> None:
        """Close what was lent when nothing is renewed any more, as a thread would that renews."""
        self._renewed = False
        asyncio.get_running_loop().call_later(1.5 * self._me.beat, self._rest)

    def _rest(self) -> None:
        if self._lent and not self._renewed and not self._host.dead:
            self.close_soon()
        elif self._lent:
            self._watch()

    def close_soon(self) -> None:
        """Close what was lent."""
        self._lent = False
        if self._member is not None:
            self._company.leave(self._member, keep=True)

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back when jobs were added, or given back by others."""
        self._listeners[callback] = None

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Undo `listen`."""
        self._listeners.pop(callback, None)

    def _called(self) -> None:
        for callback in list(self._listeners):
            callback()

    def _ring(self) -> None:
        self._company.ring(self._host)

    def _ring_all(self) -> None:
        self._called()
        self._ring()

    async def _do(
        self,
        name: str,
        operation: Callable[[], T],
        *,
        insist: bool = False,
        committed: Callable[[T], None] | None = None,
    ) -> T:
        if name in ASKED and not (self._open or self._lent or self._host.dead):
            raise InvalidState("the store is closed")  # who asks is the application
        self._check_open(name, lent=name in ASKED)
        return await super()._do(name, operation, insist=insist, committed=committed)

    def _check_open(self, name: str, *, lent: bool = False) -> None:
        if self._host.dead:
            raise Killed
        if not self._open and not (lent and self._lent):
            self._misuse(f"used its closed store: {name}")

    def _misuse(self, what: str) -> None:
        self._history.add(Misuse(what=f"{self._host.name} {what}"))

    # -- owners ------------------------------------------------------------------------------------

    @property
    def rings(self) -> bool:
        """Whether others tell us at once."""
        return self._company.manner == "bells"

    @property
    def _me(self) -> Member:
        assert self._member is not None
        return self._member

    def started(self, job_id: str, fence: int) -> None:
        """Write down that a handler starts."""
        if self._host.dead:
            return
        self._me.started.add((job_id, fence))
        self._history.add(Marked(owner=self._me.number, job=job_id, fence=fence))
        if len(self._me.started) > self._me.slots:
            self._misuse(f"has put down {len(self._me.started)} jobs in {self._me.slots} places")

    def ended(self, job_id: str, fence: int) -> None:
        """Cross it out."""
        if self._host.dead:
            return
        if (job_id, fence) in self._me.started and self._inner.lease_end(job_id, fence) is not None:
            self._misuse(f"crossed out {job_id} before its outcome was written")
        self._me.started.discard((job_id, fence))

    def dead_owners(self) -> Sequence[Dead]:
        """Take charge of the owners that died."""
        self._check_open("dead_owners")
        return self._company.dead(self._me)

    def beat_of(self, owner: str) -> float | None:
        """Return the seconds between two renewals of an owner that lives elsewhere."""
        return self._company.beat_of(self._me, owner)

    def leads(self) -> bool:
        """Return whether upkeep is ours to do."""
        return not self._host.dead and self._company.leads(self._me)

    # -- the life of a job -------------------------------------------------------------------------

    async def add(
        self, jobs: Sequence[NewJob], *, workflows: Sequence[NewWorkflow] = (), again: bool = False
    ) -> None:
        """Store pending jobs, and workflows with theirs."""
        add = partial(self._teller.add, jobs, again, workflows)
        await self._do("add", add, committed=lambda _: self._ring_all())

    async def add_unique(self, job: NewJob, unique: Unique, *, now: int, again: bool = False) -> str | None:
        """Store a pending job, unless there is one that `unique` names."""
        add = partial(self._teller.add_unique, job, unique, now, again)
        return await self._do("add_unique", add, committed=lambda _: self._ring_all())

    def check_connection(self, connection: object) -> None:
        """Refuse: there are no transactions of callers here."""
        self._inner.check_connection(connection)

    async def add_within(
        self,
        connection: Any,
        jobs: Sequence[NewJob],
        *,
        workflows: Sequence[NewWorkflow] = (),
        unique: Unique | None = None,
        now: int = 0,
        again: bool = False,
    ) -> str | None:
        """Refuse: there are no transactions of callers here."""
        return await self._inner.add_within(
            connection, jobs, workflows=workflows, unique=unique, now=now, again=again
        )

    async def claim(
        self,
        lanes: Sequence[Lane],
        *,
        owner: str,
        now: int,
        until: int,
        limits: Sequence[Limit] = (),
        taking: Callable[[Sequence[ClaimedJob]], None] | None = None,
    ) -> Claim:
        """Take due jobs."""
        if owner != self._me.id:
            self._misuse("claims in another's name")
        if now > self._history.now():
            self._misuse("claims what is due only in the future")
        claim = partial(
            self._teller.claim,
            self._me.number,
            self._host.name,
            lanes,
            owner=owner,
            now=now,
            until=until,
            limits=limits,
            taking=taking,
        )
        return await self._do("claim", claim, insist=self._host.random.random() < 0.5)

    async def claims_of(self, owner: str) -> Sequence[ClaimedJob]:
        """Return what an owner has claimed."""
        return await self._do("claims_of", lambda: at_once(self._inner.claims_of(owner)))

    async def probe(self) -> None:
        """Do nothing, if that is possible."""
        await self._do("probe", lambda: None)

    async def begin(self, limit: float) -> Block:
        """Begin a transaction for a handler."""
        await self._do("begin", lambda: None)
        return Block(self, asyncio.get_running_loop().time() + limit)

    async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Write outcomes."""
        return await self._do(
            "finish",
            lambda: self._finish(outcomes),
            insist=True,
            committed=lambda _: self._finished(outcomes),
        )

    def _finished(self, outcomes: Sequence[Outcome]) -> None:
        watched = self._teller.tell(outcomes)
        if self._teller.releases():
            self._ring_all()
        elif watched or any(
            outcome.frees or not isinstance(outcome, Complete) or outcome.letter for outcome in outcomes
        ):
            self._ring()

    def _finish(self, outcomes: Sequence[Outcome], *, within: bool = False) -> set[str]:
        if len({outcome.id for outcome in outcomes}) < len(outcomes):
            self._misuse("writes two outcomes of one job at a time")
        finish = partial(self._teller.finish, self._me.number, self._host.name, within=within)
        return {outcome.id for outcome in outcomes if not finish(outcome)}

    def renew(self, claims: Iterable[tuple[str, int]], *, until: int) -> set[str]:
        """Extend leases."""
        self._check_open("renew", lent=True)
        self._renewed = True
        self._strike("renew")
        lost = self._inner.renew(claims, until=until)
        self._strike("renew", took_effect=True)
        return lost

    def finish_now(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Write outcomes, blocking."""
        self._check_open("finish_now", lent=True)
        self._strike("finish_now")
        lost = self._finish(outcomes)
        self._strike("finish_now", took_effect=True)
        self._finished(outcomes)
        return lost

    # -- control -----------------------------------------------------------------------------------

    async def declare(self, queues: Sequence[Declared], *, now: int) -> None:
        """Remember what is to be known of queues."""
        declare = partial(self._teller.declare, queues, now)
        await self._do("declare", declare, committed=lambda _: self._ring_all())

    async def pause(self, queue: str, *, now: int) -> None:
        """Let nothing of a queue be claimed."""
        pause = partial(self._teller.pause, queue, now)
        await self._do("pause", pause, committed=lambda paused: self._tell([paused]))

    async def resume(self, queue: str) -> None:
        """Undo `pause`."""
        resume = partial(self._teller.resume, queue)
        await self._do("resume", resume, committed=lambda _: self._ring_all())

    def _tell(self, orders: Sequence[Paused | Revoked]) -> None:
        """Tell everybody of orders that were given."""
        for order in orders:
            order.told = True
        self._ring_all()

    async def running(self, queue: str) -> int:
        """Return how many jobs of a queue are claimed."""
        return await self._do("running", lambda: at_once(self._inner.running(queue)))

    async def oldest_due(self, kinds: Sequence[tuple[str, str]]) -> int | None:
        """Return when the first pending job of these queues and tasks is due; None: there is none."""
        return await self._do("oldest_due", lambda: at_once(self._inner.oldest_due(kinds)))

    async def queues(
        self, *, now: int, most: int = MOST_COUNTED, queue: str | None = None
    ) -> Sequence[Queue]:
        """Return how the queues are doing."""
        return await self._do("queues", lambda: at_once(self._inner.queues(now=now, most=most, queue=queue)))

    async def cancel(self, job_ids: Sequence[str], *, now: int) -> Cancelled:
        """End pending jobs as cancelled, and ask for the end of running ones."""
        cancel = partial(self._teller.cancel, job_ids, now)
        done, _ = await self._do("cancel", cancel, committed=lambda result: self._tell(result[1]))
        return done

    async def orders(self, owner: str) -> Orders:
        """Return what an owner is to heed."""
        if owner != self._me.id:
            self._misuse("heeds another's orders")
        return await self._do("orders", lambda: at_once(self._inner.orders(owner)))

    async def note_starts(self, starts: Sequence[tuple[str, int, int]]) -> None:
        """Correct when counted starts were."""
        note = partial(self._inner.note_starts, starts)
        await self._do("note_starts", lambda: at_once(note()), committed=lambda _: self._ring_all())

    async def end_starts(self, owners: Sequence[str], *, now: int) -> None:
        """Count what a dead owner may have started as started by now."""
        end = partial(self._inner.end_starts, list(owners), now=now)
        await self._do("end_starts", lambda: at_once(end()), committed=lambda _: self._ring_all())

    def ring(self) -> None:
        """Tell the others to look."""
        if not self._host.dead:
            self._ring()

    # -- queries and upkeep ------------------------------------------------------------------------

    async def status(self, job_id: str, *, now: int) -> JobStatus:
        """Return where a job is in its life."""
        return await self._do("status", lambda: at_once(self._inner.status(job_id, now=now)))

    async def get(self, job_id: str, *, now: int, cut: int | None = None) -> Job | None:
        """Return a job's record."""
        return await self._do("get", lambda: at_once(self._inner.get(job_id, now=now, cut=cut)))

    async def kinds(self) -> Sequence[tuple[str, str]]:
        """Return the queues and task names that have pending jobs."""
        return await self._do("kinds", lambda: at_once(self._inner.kinds()))

    async def shift_waits(self, *, now: int, by: int) -> int:
        """Let waits go on as they were meant; one owner does it, where others can tell it to look."""
        if by and not (self.rings and self.leads()):
            self._check_open("shift_waits")
            self._ring()
            return 0
        return await self._do("shift_waits", partial(self._teller.shift, now, by), committed=self._shifted)

    def _shifted(self, count: int) -> None:
        if count:
            self._ring_all()

    async def backup(self, path: str) -> None:
        """Refuse: nothing is kept."""
        await self._inner.backup(path)

    async def next_expiry(self) -> int | None:
        """Return the instant at which the next completed job expires."""
        return await self._do("next_expiry", lambda: at_once(self._inner.next_expiry()))

    async def expire(self, *, now: int, limit: int) -> int:
        """Remove completed jobs that have expired."""
        return await self._do("expire", lambda: at_once(self._inner.expire(now=now, limit=limit)))


class Block:
    """A handler's transaction, which holds nothing but the outcome."""

    def __init__(self, store: FaultyStore, deadline: float) -> None:
        self.connection = self
        self.committed = False
        self._store = store
        self._deadline = deadline
        self._ended = False

    @property
    def overdue(self) -> bool:
        """Whether it was open for too long."""
        return not self.committed and asyncio.get_running_loop().time() >= self._deadline

    async def commit(self, outcome: Outcome) -> None:
        """Write the outcome, unless the claim is no longer ours."""
        try:
            await self._store._do("commit", lambda: self._commit(outcome), committed=self._committed)
        finally:
            self._ended = True

    def _commit(self, outcome: Outcome) -> bool:
        if self._ended:
            raise InvalidState("the transaction has ended")
        return not self.overdue and not self._store._finish([outcome], within=True)

    def _committed(self, done: bool) -> None:
        self.committed = done
        if done:
            self._store._ring_all()

    async def rollback(self) -> None:
        """Undo all of it."""
        self._ended = True
