"""The one loop that claims jobs and hands them to workers.

It owns everything that runs. It waits on an event or the next deadline, whichever comes first,
and never polls: the event is set by whatever could make a job claimable (an add, a finished job, a
registered handler, a given-back claim), the deadline is the earliest instant at which the clock
alone does (a job becomes due, another owner's lease ends). Four rules keep that right:

- The event is cleared *before* looking. A wake-up that comes while the store is being asked is
  then seen at the next turn; cleared afterwards, it would be lost.
- Between the claim's return and the hand-over (see `_feed`) there is no `await`, so that nothing
  can come between them: a claimed job is in good hands, or given back.
- What runs alone (see `_solo`), and trouble with writing, stop the claiming, not the running.
- Due times are rounded up, the present is rounded down, and a wait lasts at least a millisecond.
  A timer that fires early then finds nothing due and waits again; nothing runs early or spins.

A job's claim is renewed from the claim until its outcome is *written*, not until its handler ends;
so nobody else can run it while the outcome waits for a slow disk. Sleep is capped, because timers
stand still while a computer sleeps, and because others may not be able to tell us what they add.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import MutableMapping, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from . import _log as log
from ._clock import Clock
from ._completions import Completions
from ._context import JobContext
from ._errors import BackliteError, DatabaseReplaced
from ._feed import Feed
from ._health import Health
from ._heed import Heed
from ._job import Claim, ClaimedJob, Complete, Keep, Lane, Limit, NewJob, Outcome, Place
from ._lapses import Lapses
from ._leases import LeaseKeeper
from ._maintenance import Maintenance
from ._notes import Notes
from ._outcome import (
    Result,
    conclude,
    refused,
    succeeded,
)
from ._plan import plan_claim, plan_limits
from ._registry import Registry
from ._reports import Reports, milliseconds, naming, tell_note, told
from ._starts import Starts
from ._stop import StopRequest
from ._takeover import Takeover
from ._ticker import Ticker
from ._transaction import JobTransaction, longest_transaction
from ._wall import Wall
from ._worker import Attempt, WorkerPool
from .stores import WATCHED_FOR, Store

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Dispatcher"]

LONGEST_SLEEP = 45.0
"""Seconds after which the dispatcher looks around even if nothing has told it to."""

LONGEST_DEAF_SLEEP = 30.0
"""The same where others cannot tell us what they add."""

UNWRITTEN_LIMIT = 2000
"""Outcomes that may wait for the store before no more jobs are claimed."""

CANCEL_GRACE, WRITE_GRACE = 1.0, 2.0
"""Seconds after the limit of a stop: for cancelled handlers to end, for outcomes to be written."""


POSTPONED = 1.0
"""Seconds, or a lease if that is shorter, for which a job is put off that still runs here by an old claim."""


class Dispatcher:
    """Claims, hands over, records what follows, and stops in good order."""

    def __init__(
        self,
        client: Client,
        store: Store,
        registry: Registry,
        *,
        clock: Clock,
        rng: random.Random,
        owner: str,
        workers: int,
        threads: int,
        lease: float,
        stop: StopRequest,
        unending: MutableMapping[str, int],
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._random = rng
        self._owner = owner
        self._stop = stop
        self._unending = unending
        self._wake = asyncio.Event()
        self._claiming: asyncio.Task[None] | None = None
        self.lost: DatabaseReplaced | None = None
        self.paused = registry.paused
        """The queues of which nothing may start here."""
        troubled: set[str] = set()
        self._health = Health("claim jobs", troubled)
        self._uncertain = False
        self._reports = Reports(client.bus)
        self._lease = lease
        self._longest_sleep = LONGEST_SLEEP if store.rings else min(LONGEST_DEAF_SLEEP, lease)
        self._looked_at = clock.monotonic()
        self._wall = Wall(store, clock)
        self._awaits_writes = False
        self._completions = Completions(
            store,
            health=Health("write outcomes", troubled),
            written=self._written,
            refused=self._refused,
            gone=self._gone,
        )
        self._starts = Starts(store)
        self._heed = Heed(
            store,
            Health("heed orders", troubled),
            owner=owner,
            paused=self._pause,
            cancel=self._cancel,
        )
        self._client = client
        self._waits = client.waits
        self._notes = Notes(store, clock, Health("keep notes", troubled))
        self._notes.listener = partial(tell_note, client.bus)
        self._maintenance = Maintenance(store, clock, registry, Health("clean up", troubled))
        self._ticker = Ticker(
            store,
            clock,
            Health("tick schedules", troubled),
            declarations=client.schedules.declarations,
            owner=owner,
            added=self._ticked,
        )
        self._takeover = Takeover(
            store, clock, registry, Health("take over", troubled), bus=client.bus, released=self._wake.set
        )
        self._pool = WorkerPool(
            client,
            size=workers,
            threads=threads,
            clock=clock,
            context=copy_context(),
            started=store.started,
            counted=self._count_start,
            transaction=self._transaction,
            ended=self._ended,
            interrupted=self._interrupted,
            notes=self._notes,
        )
        self._feed = Feed(
            self._pool,
            registry,
            clock,
            unending=unending,
            postponed=min(lease, POSTPONED),
            stop=stop,
            unwritten=self._completions,
            finish=self._finish,
            wake=self._wake.set,
            not_started=self._starts.void,
            writing=lambda: store.writing,
        )
        self._lapses = Lapses(
            store,
            registry,
            clock,
            ours=unending,
            reported=self._reports,
            finish=self._finish,
            look_for_the_dead=self._takeover.look,
        )
        self._leases = LeaseKeeper(store, clock, lease=lease, in_thread=self._pool.in_thread)

    def wake(self) -> None:
        """Look for jobs now."""
        self._wake.set()

    def look(self) -> None:
        """Look for jobs and schedules now: somebody says so, perhaps as the clock was set."""
        self._ticker.wake()
        self._wake.set()

    def rung(self) -> None:
        """Look for jobs and orders: there may be some by others' doing."""
        self._heed.look()
        self._ticker.look()
        self._wake.set()

    def look_for_the_dead(self) -> None:
        """Look whether owners have died, and whether what they did once is ours to do now."""
        self._takeover.look()
        self._maintenance.look()
        self._ticker.look_around()
        self._heed.look()

    async def ticked(self) -> int | None:
        """Add what is due of schedules now; return when the next one is due, None: never."""
        await self._ticker.looked()
        return self._ticker.next_at

    def runs(self, job_id: str) -> bool:
        """Return whether a worker has this job in hand."""
        return self._pool.runs(job_id)

    @property
    def claims(self) -> bool:
        """Whether it claims jobs when there are any: it runs, and the last try did not fail."""
        claiming = self._claiming
        stopped = self._stop.asked or self.lost is not None or claiming is None or claiming.done()
        return not stopped and not self._health.failing

    @property
    def busy(self) -> int:
        """How many jobs run."""
        return len(self._pool.running)

    def seen(self, queue: str, task: str) -> None:
        """Take note that a job of this kind was added here."""
        self._maintenance.seen(queue, task)

    def _ticked(self, jobs: list[NewJob]) -> None:
        """Take note of runs of schedules that were added here."""
        self._client.added(jobs)
        self._wake.set()

    async def run(self) -> bool:
        """Run until stopped; return whether no handler was cut short and every outcome written."""
        loop = asyncio.get_running_loop()
        self._serving = asyncio.current_task()
        claiming = self._claiming = loop.create_task(self._claim_all(), name="backlite dispatcher")
        completing = loop.create_task(self._completions.run(), name="backlite completions")
        upkeep = loop.create_task(self._maintenance.run(), name="backlite maintenance")
        ticking = loop.create_task(self._ticker.run(), name="backlite ticker")
        taking_over = loop.create_task(self._takeover.run(), name="backlite takeover")
        heeding = loop.create_task(self._heed.run(), name="backlite orders")
        noting = loop.create_task(self._notes.run(), name="backlite notes")
        await self._stop.wait()
        log.emit(log.CLIENT_STOPPING, owner=self._owner, running=len(self._pool.running))
        self._wake.set()
        self._feed.give_back_ahead()
        self._maintenance.close()
        self._ticker.close()
        self._takeover.close()
        await self._stop.outlast([claiming], grace=0)
        idle = self._pool.idle()
        in_time = await self._stop.outlast([idle], grace=0)
        if not in_time:
            self._pool.cancel()
            await self._stop.outlast([idle], grace=CANCEL_GRACE)
        await self._stop.outlast([claiming], grace=WRITE_GRACE)  # what it brings is to be given back
        self._completions.close()
        self._heed.close()
        self._notes.close()
        core = [claiming, completing, upkeep, ticking, taking_over, heeding, noting]
        if not await self._stop.outlast(core, grace=WRITE_GRACE):
            self._completions.give_up()
            self._store.abandon()
            await self._stop.outlast(core)
        self._leave_unending()
        self._pool.close()
        if not self.lingers:
            leases = self._leases.stop()
            if not await self._stop.outlast([leases], grace=WRITE_GRACE):
                self._store.abandon()
                await self._stop.outlast([leases])
        broken = [task for task in core if task.cancelled() or task.exception() is not None]
        return in_time and not self._uncertain and not self._completions and not broken

    @property
    def lingers(self) -> bool:
        """Whether handlers are left that will not end; their claims are held on."""
        return bool(self._pool.running)

    def _leave_unending(self) -> None:
        """Hold on to the claims of handlers that will not end, and to nothing else."""
        self._serving = None
        keep = {attempt.job.id for attempt in self._pool.running.values()}
        for job_id, fence in self._leases.held():
            if job_id not in keep:
                self._leases.drop(job_id, fence)
        for attempt in self._pool.running.values():
            job = attempt.job
            self._unending[job.id] = job.fence
            log.emit(log.JOB_UNRESPONSIVE, **naming(job))

    def clear_away(self) -> None:
        """Forget the handlers that died with their event loop; threads go on, and their leases."""
        threads = {attempt.job.id for attempt in self._pool.running.values()}
        threads = {job_id for job_id in threads if self._pool.in_thread(job_id)}
        for attempt in self._pool.running.values():
            if attempt.job.id not in threads:
                self._unending.pop(attempt.job.id, None)
        if not threads:
            self._leases.stop()

    def linger(self) -> None:
        """Let the leases go on without us; called once the store is closed to everybody else."""
        self._leases.linger()

    # -- claiming ----------------------------------------------------------------------------------

    async def _claim_all(self) -> None:
        while not self._stop.asked:
            self._wake.clear()
            delay = 0.0
            try:
                delay = await self._claim_some()
                self._health.succeeded()
            except asyncio.CancelledError:  # the loop is closing: bring everything to its end
                self._uncertain = True
                self._stop.ask(0)
            except DatabaseReplaced as error:
                self._gone(error)
            except Exception as error:  # the dispatcher outlives every trouble with the database
                self._uncertain = True
                delay = self._health.failed(error)
            if not self._stop.asked:
                await self._sleep(delay)
        self._feed.give_back_all()
        await self._starts.note_last()
        while self._uncertain:
            try:
                await self._give_back_unknown()
            except asyncio.CancelledError:  # once more: what is ours must not wait for its lease to end
                continue
            except BackliteError:
                return

    def _gone(self, error: DatabaseReplaced) -> None:
        """Stop at once, for good: the file is not the one that was opened."""
        if self.lost is None:
            log.emit(log.STORE_LOST, error=str(error))
            self.lost = error
        self._stop.ask(0)

    async def _sleep(self, delay: float) -> None:
        timer = asyncio.get_running_loop().call_later(delay, self._wake.set)
        try:
            await self._wake.wait()
        except asyncio.CancelledError:
            self._stop.ask(0)
        finally:
            timer.cancel()

    async def _claim_some(self) -> float:
        """Claim what there is room for and start it; return the seconds until the next look."""
        self._feed.check_starts()
        if self._uncertain:
            await self._give_back_unknown()
        self._look_around()
        await self._client.declare_queues()
        await self._starts.note()
        pause = await self._wall.heed() or self._feed.let_alone()
        self._feed.crowded = True
        lanes = self._lanes() if pause == 0 else []
        limits = self._limits()
        if not lanes:
            return min(pause or math.inf, self._longest_sleep, self._feed.pause())
        await self._lapses.probe()
        now, asked = self._clock.now(), self._clock.monotonic()
        until, looks = self._leases.until(), self._heed.looks
        claim = await self._claim(lanes, limits, now, until)
        self._feed.crowded = self._is_crowded(lanes, limits, claim)
        self._starts.expect(claim)
        self._feed.hand_over(claim.jobs, asked, until, self._paused_for(claim, looks))
        self._lapses.take(claim.lapsed)
        if claim.jobs and self._clock.monotonic() - asked > self._lease / 10:
            self._leases.hurry()  # the lease began when the claim was asked for, not when it was made
        delay = self._longest_sleep
        if claim.next_at is not None:
            delay = min(max((claim.next_at - self._clock.now()) / 1000, 0.001), delay)
        return min(delay, self._wall.pause, self._lapses.pause, self._feed.pause())

    async def _claim(self, lanes: Sequence[Lane], limits: Sequence[Limit], now: int, until: int) -> Claim:
        """Claim, and hold what is taken from that moment: a blocked event loop hears of it late."""
        taken: list[ClaimedJob] = []

        def taking(jobs: Sequence[ClaimedJob]) -> None:
            self._drop(taken)  # of a first try, which was rolled back
            taken[:] = jobs
            for job in jobs:
                self._leases.hold(job.id, job.fence)

        try:
            return await self._store.claim(
                lanes, owner=self._owner, now=now, until=until, limits=limits, taking=taking
            )
        except BaseException:
            self._drop(taken)  # whether they are ours is asked for later
            raise

    def _drop(self, jobs: Sequence[ClaimedJob]) -> None:
        for job in jobs:
            self._leases.drop(job.id, job.fence)

    def _lanes(self) -> list[Lane]:
        self._feed.give_back_overdue()
        writes_free = UNWRITTEN_LIMIT - len(self._completions)
        self._awaits_writes = self._completions.health.failing or writes_free <= 0
        if self._awaits_writes:
            return []
        return plan_claim(
            self._registry.kinds,
            workers_free=self._pool.free,
            threads_free=self._pool.threads_free,
            writes_free=writes_free,
            ahead=self._feed.ahead.room(threaded=False),
            ahead_in_threads=self._feed.ahead.room(threaded=True),
        )

    def _limits(self) -> list[Limit]:
        if not self._registry.limited:
            return []
        return plan_limits(
            self._registry.limited,
            held=self._feed.held,
            workers_free=self._pool.free,
            threads_free=self._pool.threads_free,
            in_threads=self._registry.in_threads,
        )

    def _is_crowded(self, lanes: Sequence[Lane], limits: Sequence[Limit], claim: Claim) -> bool:
        """Return whether more may be due than there was room for, so that each end of a job counts."""
        kinds = sum(len(lane.kinds) for lane in lanes)
        if kinds < len(self._registry.kinds) or len(claim.jobs) >= min(lane.room for lane in lanes):
            return True
        taken = Counter(job.queue for job in claim.jobs) if limits else {}
        return any(limit.room is not None and taken[limit.queue] >= limit.room for limit in limits)

    def _look_around(self) -> None:
        """Have others look around as often as a sleep may last, also where nobody sleeps."""
        now = self._clock.monotonic()
        if now - self._looked_at >= self._longest_sleep:
            self._looked_at = now
            self.look_for_the_dead()

    async def _give_back_unknown(self) -> None:
        """Give back what a claim whose answer was lost may have taken in our name."""
        for job in await self._store.claims_of(self._owner):
            if (job.id, job.fence) not in self._leases:
                self._leases.hold(job.id, job.fence)
                self._feed.give_back(job)
        self._uncertain = False

    # -- orders ------------------------------------------------------------------------------------

    def _paused_for(self, claim: Claim, looks: int) -> frozenset[str]:
        """Return the queues of which nothing of a claim is to start, asked for after so many looks at orders.

        Where there was none since, the claim knows better: what it has taken is of no paused queue.
        """
        if self._heed.paused and any(job.queue in self._heed.paused for job in claim.jobs):
            self._heed.look()
        return self.paused if self._heed.looks > looks else self._registry.paused

    def pause_here(self) -> None:
        """Start nothing more of queues that are paused now, and what waits of those that are no longer."""
        paused = self._heed.paused | self._registry.paused
        if paused == self.paused:
            return
        self.paused = paused
        self._feed.give_back_queues(self.paused)
        log.emit(log.QUEUES_PAUSED, owner=self._owner, queues=sorted(self.paused))
        self._client.news()
        self._wake.set()

    def _pause(self, queues: frozenset[str]) -> None:
        """Heed pauses; tell whoever waits for queues to rest that what ends from now on is told."""
        self.pause_here()
        self._store.ring()

    def _cancel(self, job_id: str, fence: int) -> None:
        claim = job_id, fence
        ours = (
            claim in self._leases and claim not in self._reports
        )  # else its outcome is written, or on its way
        if ours and not self._pool.cancel_job(job_id, fence):
            self._feed.cancel(job_id, fence)
            self._wake.set()  # others may have waited for it to run alone

    def holds(self, queue: str) -> bool:
        """Return whether a job of a queue runs here, or its outcome is on its way."""
        return self._pool.queue_runs(queue) or self._reports.has(queue)

    def _count_start(self, job: ClaimedJob, at: int) -> None:
        self._starts.count(job, at)
        self._wake.set()

    def _interrupted(self) -> bool:
        """Return whether cancellations now come from the end of the client or of the loop."""
        return self._stop.asked or self._serving is None or self._serving.cancelling() > 0

    # -- completing --------------------------------------------------------------------------------

    def _transaction(self, attempt: Attempt, context: JobContext) -> JobTransaction:
        """Make what `job.transaction()` returns."""
        return JobTransaction(
            context,
            lambda: self._store,
            limit=longest_transaction(self._lease),
            outcome=lambda: self._waited_for(
                succeeded(
                    attempt.job, attempt.handler.config, self._pool.so_far(attempt), context.encoded_result
                )
            ),
            committed=lambda outcome: self._committed(attempt, outcome),
        )

    def _committed(self, attempt: Attempt, outcome: Complete) -> None:
        """Take note that a handler has completed its job itself; it may still run."""
        attempt.completed = True
        if attempt.context is not None:
            attempt.context.fall_silent()
        self._reports.put(attempt.job, log.JOB_SUCCEEDED, {"duration_ms": milliseconds(outcome.duration)})
        self._written(outcome, False)

    def _ended(self, attempt: Attempt, result: Result) -> None:
        job = attempt.job
        self._feed.ended(job, attempt.handler)
        if attempt.handler.config.rate is not None:
            if attempt.begun is None:
                self._starts.void(job)
            else:
                self._starts.count(job, attempt.begun)
        if attempt.completed:
            self._unending.pop(job.id, None)
            if attempt.attended is not None:
                attempt.attended.ended("succeeded", result)
            if result.error:
                trace = result.traceback
                log.emit(log.JOB_RAISED_LATE, **naming(job), error=result.error, traceback=trace)
            return
        outcome, result = conclude(job, attempt.handler.config, result, self._random.random())
        event, report = told(outcome, result)
        if attempt.attended is not None:
            attempt.attended.ended(event.name.partition(".")[2], result)
        if result.late:
            log.emit(log.JOB_LATE, **naming(job))
        if self._serving is None:
            self._unending.pop(job.id, None)
            self._leases.finish_late(outcome, lambda: log.emit(event, **naming(job), **report))
        else:
            self._reports.put(job, event, report)
            self._put(job, outcome)

    def _put(self, job: ClaimedJob, outcome: Outcome) -> None:
        """Have an outcome written; who waits for a paused queue to rest hears of it."""
        if outcome.frees is None and job.queue in self.paused:
            outcome = msgspec.structs.replace(outcome, frees=Place(job.queue, None, 0))
        if self._waits.watches and isinstance(outcome, Complete):
            outcome = self._waited_for(outcome)
        self._completions.put(outcome)

    def _waited_for(self, outcome: Complete) -> Complete:
        """Return an outcome by which a job is kept for those who wait here, known to the store or not.

        So is its workflow, by what is kept the longest of its steps.
        """
        watches = self._waits.watches
        if outcome.keep is not None or not (outcome.id in watches or outcome.workflow in watches):
            return outcome
        return msgspec.structs.replace(
            outcome, keep=Keep(until=outcome.finished_at + WATCHED_FOR, payload=False)
        )

    def _refused(self, outcome: Outcome, reason: str) -> Outcome:
        """Return what to store instead of an outcome that the database refuses."""
        job = self._reports.job(outcome)
        handler = self._registry.find(job.queue, job.task)
        config = None if handler is None else handler.config
        failed = refused(outcome, job, config, self._clock.now(), reason)
        self._reports.put(job, log.JOB_FAILED, {"error": failed.error})
        log.emit(log.JOB_UNWRITABLE, job_id=outcome.id, error=reason)
        return failed

    def _finish(self, job: ClaimedJob, outcome: Outcome, event: log.Event, **report: object) -> None:
        self._reports.put(job, event, report)
        self._put(job, outcome)

    def _written(self, outcome: Outcome, lost: bool) -> None:
        self._leases.drop(outcome.id, outcome.fence)
        self._store.ended(outcome.id, outcome.fence)
        if self._feed.cancelled:
            self._feed.cancelled.discard((outcome.id, outcome.fence))
        if outcome.note is not None and not lost:
            self._notes.told(self._reports.job(outcome), outcome.note)
        if self._waits.watches:
            self._waits.ended(outcome.id)
            workflow = self._reports.job(outcome).workflow
            if workflow is not None:  # perhaps that has ended, too
                self._waits.ended(workflow)
        self._reports.written(outcome, lost=lost)
        if isinstance(outcome, Complete):
            if outcome.keep is not None and outcome.workflow is None:
                self._maintenance.expect(outcome.keep.until)
            elif outcome.keep is not None:
                self._maintenance.expect_later(outcome.keep.until)
            if outcome.extends and not lost:
                self._client.added([step.job for step in outcome.extends if step.job is not None])
        if outcome.frees is not None:
            self._client.news()
        if (
            self._awaits_writes
            or self._feed.alone
            or outcome.frees is not None
            or not isinstance(outcome, Complete)
            or outcome.letter is not None
        ):
            self._wake.set()
