"""A store that is slow, fails before or after the fact, and dies with its process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from backlite_async import DatabaseUnavailable, Job, JobStatus
from backlite_async._errors import DatabaseBusy
from backlite_async._job import Claim, ClaimedJob, Complete, Lane, NewJob, Outcome
from backlite_async.stores import MemoryStore

from .history import Claimed, Fault, History, Misuse, Stored, Written

__all__ = ["FaultyStore", "Killed", "SharedMemory", "Weather"]

T = TypeVar("T")


class Killed(BaseException):
    """The process of whoever called is dead; not an `Exception`, so that nobody handles it."""


class SharedMemory(MemoryStore):
    """A memory store that calls its listeners in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self._ordered: dict[Callable[[], None], None] = {}
        super().listen(self.ring)

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back when jobs were added."""
        self._ordered[callback] = None

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Undo `listen`."""
        self._ordered.pop(callback, None)

    def ring(self) -> None:
        """Call the listeners."""
        for callback in list(self._ordered):
            callback()

    def rows(self) -> list[tuple[str, JobStatus, str | None, tuple[str, str], int]]:
        """Return id, status, owner, kind and due time of the jobs that have not ended."""
        return [(row.id, row.status, row.owner, row.kind, row.due_at) for row in self._live.values()]

    def expiries(self) -> list[int | None]:
        """Return when the completed jobs that are kept expire."""
        return [row.expires_at for row in self._completed.values()]


class Weather:
    """What a store has to suffer; shared by the stores of all clients, changed at any time."""

    def __init__(self, *, latency: float = 0.0, faults: float = 0.0, deaths: float = 0.0) -> None:
        self.latency = latency
        self.faults = faults
        self.deaths = deaths
        self.outage = False

    def clear(self) -> None:
        """End all faults; the latency stays."""
        self.faults = self.deaths = 0.0
        self.outage = False


class FaultyStore:
    """One process's way to a shared memory store."""

    shared = False

    def __init__(
        self,
        inner: SharedMemory,
        weather: Weather,
        history: History,
        *,
        client: str,
        rng: random.Random,
        crash_limits: dict[str, int],
    ) -> None:
        self._inner = inner
        self._weather = weather
        self._history = history
        self._client = client
        self._random = rng
        self._crash_limits = crash_limits
        self._listeners: dict[Callable[[], None], None] = {}
        self._pauses: dict[asyncio.Future[None], None] = {}
        self._open = 0
        self._lent = self._abandoned = False
        self.dead = False
        self.dying: Callable[[], None] = self.kill
        self.life = 0
        self.owners: dict[str, int] = {}

    # -- life of the store -------------------------------------------------------------------------

    async def open(self, *, install: bool) -> None:
        """Open, unless the weather prevents it."""
        self._abandoned = False
        await self._pause(insist=False)
        self._strike("open")
        self._open += 1
        self._inner.listen(self._ring)

    async def install(self) -> None:
        """Do nothing: there is no schema."""

    async def close(self, *, lend: bool = False) -> None:
        """Close; with `lend`, the blocking methods go on working."""
        await self._pause(insist=True)
        self._open -= 1
        self._lent = self._lent or lend
        if not self._open:
            self._inner.unlisten(self._ring)

    def close_soon(self) -> None:
        """Close what was lent."""
        self._lent = False

    def abandon(self) -> None:
        """Let whatever waits for the database fail now."""
        self._abandoned = True
        for future in self._pauses:
            if not future.done():
                future.set_result(None)

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back when jobs were added, or given back by others."""
        self._listeners[callback] = None

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Undo `listen`."""
        self._listeners.pop(callback, None)

    def kill(self) -> None:
        """Die: nothing that this process does has any effect from now on."""
        self.dead = True
        self._inner.unlisten(self._ring)

    def _ring(self) -> None:
        for callback in list(self._listeners):
            callback()

    # -- faults ------------------------------------------------------------------------------------

    async def _do(self, name: str, operation: Callable[[], T], *, insist: bool = False) -> T:
        """Do something after a while, with a fault before or after it; another while, and return.

        `insist`: a cancellation is put off, and comes again once the answer is there.
        """
        self._check_open(name)
        cancelled = False
        try:
            cancelled |= await self._pause(insist=insist)
            self._strike(name)
            result = operation()
            if self._weather.deaths and self._random.random() < self._weather.deaths:
                self.dying()
                raise Killed
            cancelled |= await self._pause(insist=insist)
            self._strike(name, took_effect=True)
            return result
        finally:
            task = asyncio.current_task()
            if cancelled and task is not None:
                task.uncancel()
                asyncio.get_running_loop().call_soon(task.cancel)

    async def _pause(self, *, insist: bool) -> bool:
        """Wait a random while; return whether a cancellation came, if it insists on its while."""
        loop = asyncio.get_running_loop()
        latency = 0.0 if self._abandoned else self._weather.latency
        until = loop.time() + self._random.random() * latency
        cancelled = False
        while True:
            future: asyncio.Future[None] = loop.create_future()
            self._pauses[future] = None
            timer = loop.call_at(until, _end, future)
            try:
                await future
            except asyncio.CancelledError:
                if not insist:
                    raise
                cancelled = True
            else:
                return cancelled
            finally:
                timer.cancel()
                del self._pauses[future]

    def _strike(self, name: str, *, took_effect: bool = False) -> None:
        """Raise if the process is dead, or if a fault is due."""
        if self.dead:
            raise Killed
        rate = 1.0 if self._weather.outage else self._weather.faults
        if took_effect:  # an outage shows before; what it had done already, it seldom denies
            rate = min(rate, 0.3) / 2
        if not rate or self._random.random() >= rate:
            return
        self._history.add(Fault(client=self._client, operation=name, took_effect=took_effect))
        if took_effect or self._random.random() < 0.5:
            raise DatabaseUnavailable(f"{name}: I/O error")
        raise DatabaseBusy(f"{name}: locked")

    def _check_open(self, name: str, *, lent: bool = False) -> None:
        if self.dead:
            raise Killed
        if not self._open and not (lent and self._lent):
            self._history.add(Misuse(what=f"{self._client} used its closed store: {name}"))

    # -- the life of a job -------------------------------------------------------------------------

    async def add(self, jobs: Sequence[NewJob]) -> None:
        """Store pending jobs."""
        await self._do("add", lambda: self._add(jobs))

    def _add(self, jobs: Sequence[NewJob]) -> None:
        there = {row[0] for row in self._inner.rows()}
        _now(self._inner.add(jobs))
        new = {row[0] for row in self._inner.rows()} - there
        for job in jobs:
            if job.id in new:
                self._history.add(
                    Stored(
                        job=job.id,
                        kind=(job.queue, job.task),
                        due_at=job.due_at,
                        max_attempts=job.max_attempts,
                        max_crashes=self._crash_limits.get(job.queue, 3),
                    )
                )

    def check_connection(self, connection: object) -> None:
        """Refuse: there are no transactions here."""
        self._inner.check_connection(connection)

    async def add_within(self, connection: Any, jobs: Sequence[NewJob]) -> None:
        """Refuse: there are no transactions here."""
        await self._inner.add_within(connection, jobs)

    async def claim(self, lanes: Sequence[Lane], *, owner: str, now: int, until: int) -> Claim:
        """Take due jobs."""
        self.owners[owner] = self.life
        if now > self._history.now():
            self._history.add(Misuse(what=f"{self._client} claims what is due only in the future"))
        return await self._do(
            "claim",
            lambda: self._claim(lanes, owner=owner, now=now, until=until),
            insist=self._random.random() < 0.5,
        )

    def _claim(self, lanes: Sequence[Lane], *, owner: str, now: int, until: int) -> Claim:
        claim: Claim = _now(self._inner.claim(lanes, owner=owner, now=now, until=until))
        for job in claim.jobs:
            self._history.add(
                Claimed(
                    job=job.id,
                    client=self._client,
                    fence=job.fence,
                    attempt=job.attempt,
                    crashes=job.crashes,
                    now=now,
                )
            )
        return claim

    async def claims_of(self, owner: str) -> Sequence[ClaimedJob]:
        """Return what an owner has claimed."""
        return await self._do("claims_of", lambda: _now(self._inner.claims_of(owner)))

    async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Write outcomes."""
        return await self._do("finish", lambda: self._finish(outcomes), insist=True)

    def _finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        lost = set()
        if len({outcome.id for outcome in outcomes}) < len(outcomes):
            self._history.add(Misuse(what=f"{self._client} writes two outcomes of one job at a time"))
        for outcome in outcomes:
            leases = {row[0]: row[4] for row in self._inner.rows() if row[1] is JobStatus.RUNNING}
            accepted = not self._inner.finish_now([outcome])
            if not accepted:
                lost.add(outcome.id)
            if accepted and outcome.lapsed_by is not None and leases[outcome.id] > outcome.lapsed_by:
                self._history.add(Misuse(what=f"{self._client} took {outcome.id}, whose lease had not ended"))
            keep = outcome.keep if isinstance(outcome, Complete) else None
            self._history.add(
                Written(
                    job=outcome.id,
                    client=self._client,
                    fence=outcome.fence,
                    accepted=accepted,
                    status=outcome.status if isinstance(outcome, Complete) else JobStatus.PENDING,
                    attempt=outcome.attempt,
                    crashes=outcome.crashes,
                    due_at=None if isinstance(outcome, Complete) else outcome.due_at,
                    keep=keep is not None,
                    until=None if keep is None else keep.until,
                    lapse=outcome.lapsed_by is not None,
                )
            )
        return lost

    def renew(self, claims: Iterable[tuple[str, int]], *, until: int) -> set[str]:
        """Extend leases."""
        self._check_open("renew", lent=True)
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
        return lost

    # -- queries and upkeep ------------------------------------------------------------------------

    async def status(self, job_id: str, *, now: int) -> JobStatus:
        """Return where a job is in its life."""
        return await self._do("status", lambda: _now(self._inner.status(job_id, now=now)))

    async def get(self, job_id: str, *, now: int) -> Job | None:
        """Return a job's record."""
        return await self._do("get", lambda: _now(self._inner.get(job_id, now=now)))

    async def kinds(self) -> Sequence[tuple[str, str]]:
        """Return the queues and task names that have pending jobs."""
        return await self._do("kinds", lambda: _now(self._inner.kinds()))

    async def next_expiry(self) -> int | None:
        """Return the instant at which the next completed job expires."""
        return await self._do("next_expiry", lambda: _now(self._inner.next_expiry()))

    async def expire(self, *, now: int, limit: int) -> int:
        """Remove completed jobs that have expired."""
        return await self._do("expire", lambda: _now(self._inner.expire(now=now, limit=limit)))


def _now(operation: Any) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        operation.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the memory store waited")


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
