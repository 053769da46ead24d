"""The way of claimed jobs to the workers: at once, when one is free, alone, or back."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Sized

from . import _log as log
from ._ahead import Ahead
from ._clock import Clock
from ._job import ClaimedJob
from ._outcome import Result, cancelled, decide, give_back, last_chance, postpone, used_up
from ._registry import Handler, Registry
from ._reports import Finish
from ._solo import POSTPONED, Solo
from ._stop import StopRequest
from ._worker import WorkerPool

__all__ = ["Feed"]

BURST = 32
"""Jobs started in one turn of the event loop, so that the application's own tasks get theirs.

With many more the garbage collector would look at each turn's objects while they are in use.
"""

GIL_BREAK = 1e-6
"""Seconds asleep after so many jobs while the store writes. Its thread needs the interpreter between its
statements, and would wait for it for 5 ms each time (`sys.getswitchinterval()`) beside a busy event loop."""


class Feed:
    """Gives claimed jobs to the workers; every job is with one, waits here, or has an outcome.

    Whatever has waited through the end of its lease does not start: others may have taken it, as
    after a computer has slept. `unwritten`: the outcomes on their way; `writing` tells whether the
    store writes. `not_started` hears of claims that are over before their handlers start. `postponed`:
    seconds for which a job is given back that runs here already, under a claim that another owner has
    taken away.
    """

    def __init__(
        self,
        pool: WorkerPool,
        registry: Registry,
        clock: Clock,
        *,
        unending: Mapping[str, int],
        postponed: float,
        stop: StopRequest,
        unwritten: Sized,
        finish: Finish,
        wake: Callable[[], None],
        not_started: Callable[[ClaimedJob], None],
        writing: Callable[[], bool],
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._clock = clock
        self._unending = unending
        self._postponed = postponed
        self._stop = stop
        self._unwritten = unwritten
        self._finish = finish
        self._wake = wake
        self._not_started = not_started
        self._writing = writing
        self._solo = Solo()
        self._broken: Exception | None = None
        self._started = self._since_break = 0
        self._looked_at = 0
        self._queues: dict[str, str] = {}
        self.cancelled: set[tuple[str, int]] = set()
        """Claims that are to end as cancelled when they are handed over."""
        self.held: Counter[str] = Counter()
        """How many jobs are here, waiting or running, of each queue with a limit of its own here."""
        self.ahead = Ahead()
        self.crowded = True
        """Whether more may be due than there was room for, so that the end of a job makes room for one."""

    @property
    def alone(self) -> bool:
        """Whether a job runs alone, or is to."""
        return bool(self._solo)

    def hand_over(
        self, jobs: Sequence[ClaimedJob], since: float, until: int, paused: Collection[str]
    ) -> None:
        """Give claimed jobs to workers, those for which none is free when one is.

        `paused`: the queues of which nothing may start.
        """
        lonely = []
        for job in jobs:
            handler = self._registry.find(job.queue, job.task)
            if self._stop.asked or handler is None or job.queue in paused:
                self.give_back(job)
            elif self.cancelled and (job.id, job.fence) in self.cancelled:
                self._end_cancelled(job, handler)
            elif job.id in self._unending or self._pool.runs(job.id):
                self._not_beside_itself(job)
            elif reason := used_up(job, handler.config):
                self._refuse(job, handler, reason)
            elif last_chance(job, handler.config):
                self._hold(job, handler)
                lonely.append((job, handler))
            else:
                if handler.config.limited:
                    self._hold(job, handler)
                self.ahead.put(job, threaded=handler.threaded, since=since, until=until)
        self._fill()
        for job, handler in lonely:
            self._solo.wait(job, handler, self._clock.monotonic())
            self._wake()
        self.check_starts()

    def _fill(self) -> None:
        """Give jobs to the workers that are free, at most `BURST` of them in one turn of the event loop."""
        if self._solo or self._stop.asked:
            return
        while self._started < BURST and self._pool.free:
            job = self.ahead.take(self._pool.threads_free)
            if job is None:
                return
            handler = self._registry.find(job.queue, job.task)
            assert handler is not None  # handlers stay
            if self._started == 0:
                asyncio.get_running_loop().call_soon(self._next_turn)
            self._started += 1
            self._start(job, handler)

    def _next_turn(self) -> None:
        """Go on in another turn of the event loop; now and then let the thread that writes have its turn."""
        self._since_break += self._started
        self._started = 0
        if self._since_break >= BURST:
            self._since_break = 0
            if self._writing():
                time.sleep(GIL_BREAK)
        if self.ahead:
            self._go_on()

    def _hold(self, job: ClaimedJob, handler: Handler) -> None:
        """Count a job that takes a place of its queue here."""
        if handler.config.concurrency is not None:
            self._queues[job.id] = job.queue
            self.held[job.queue] += 1

    def _let_go(self, job: ClaimedJob) -> None:
        queue = self._queues.pop(job.id, None)
        if queue is not None:
            self.held[queue] -= 1

    def ended(self, job: ClaimedJob, handler: Handler) -> None:
        """Take note that a job has ended, and give its worker the next one."""
        if handler.config.limited:
            self._let_go(job)
            self._wake()
        self.ahead.ended(self._clock.monotonic(), threaded=handler.threaded)
        self._go_on()

    def cancel(self, job_id: str, fence: int) -> None:
        """End a claimed job as cancelled, now if it waits here, or when it is handed over."""
        self.cancelled.add((job_id, fence))
        for job in self._take_out(lambda job: job.id == job_id):
            handler = self._registry.find(job.queue, job.task)
            assert handler is not None  # handlers stay
            self._end_cancelled(job, handler)

    def _end_cancelled(self, job: ClaimedJob, handler: Handler) -> None:
        self.cancelled.discard((job.id, job.fence))
        self._let_go(job)
        self._not_started(job)
        self._finish(job, cancelled(job, handler.config, self._clock.now()), log.JOB_CANCELLED)

    def give_back_queues(self, queues: Collection[str]) -> None:
        """Give back what waits of these queues."""
        for job in self._take_out(lambda job: job.queue in queues):
            self.give_back(job)

    def _take_out(self, wanted: Callable[[ClaimedJob], bool]) -> list[ClaimedJob]:
        """Return those jobs that are wanted, which wait here no longer."""
        return self.ahead.take_out(wanted) + self._solo.take_out(wanted)

    def _go_on(self) -> None:
        """Fill the workers that have become free, and claim more where little is left for them."""
        if self.ahead:
            now = self._clock.now()
            if now != self._looked_at:  # once in a millisecond
                self._looked_at = now
                self.give_back_overdue()
            self._fill()
        if (self.crowded and self._low()) or self._solo or self._broken:
            self._wake()

    def _low(self) -> bool:
        """Return whether more should be claimed of what can run here."""
        ahead, sorts = self.ahead, self._registry.sorts
        return (False in sorts and ahead.low(threaded=False)) or (True in sorts and ahead.low(threaded=True))

    def check_starts(self) -> None:
        """Raise what kept jobs from being started."""
        broken, self._broken = self._broken, None
        if broken is not None:
            raise broken

    def pause(self) -> float:
        """Return the seconds until jobs that were claimed ahead have waited for too long."""
        return max(self.ahead.pause(self._clock.monotonic()), 0.001) if self.ahead else math.inf

    def give_back_overdue(self) -> None:
        """Give back what has waited for a worker for too long."""
        for job in self.ahead.overdue(self._clock.monotonic(), self._clock.now()):
            self.give_back(job)

    def give_back_all(self) -> None:
        """Give back everything that waits."""
        for job in self._solo.give_up():
            self.give_back(job)
        self.give_back_ahead()

    def give_back_ahead(self) -> None:
        """Give back what was claimed ahead."""
        for job in self.ahead.give_up():
            self.give_back(job)

    def give_back(self, job: ClaimedJob) -> None:
        """Give back a claim, as if it had not been made."""
        self._let_go(job)
        self._not_started(job)
        self._finish(job, give_back(job, self._clock.now()), log.JOB_GIVEN_BACK)

    def _start(self, job: ClaimedJob, handler: Handler) -> None:
        """Start a job; give it back if the event loop makes no task."""
        try:
            self._pool.start(job, handler)
        except Exception as error:
            self.give_back(job)
            self._broken = error

    def _not_beside_itself(self, job: ClaimedJob) -> None:
        """Give back a job that another owner took away while it runs here, and that is free again."""
        self._not_started(job)
        self._finish(job, postpone(job, self._clock.now(), self._postponed), log.JOB_GIVEN_BACK)

    def _refuse(self, job: ClaimedJob, handler: Handler, reason: str) -> None:
        """Fail a job that must not run once more."""
        self._not_started(job)
        result = Result(finished_at=self._clock.now(), error=reason, final=True, type="Refused")
        outcome = decide(job, handler.config, result, 0.0)
        self._finish(job, outcome, log.JOB_FAILED, error=result.error)

    def let_alone(self) -> float:
        """Start a job that is to run alone, if it can; return for how long nothing else may start."""
        if not self._solo:
            return 0.0
        self.give_back_ahead()
        if self._pool.running or self._unwritten or self._unending:
            remaining = self._solo.remaining(self._clock.monotonic())
            if remaining is None or remaining > 0:
                return remaining or math.inf
            now = self._clock.now()
            for job in self._solo.give_up():
                self._let_go(job)
                self._not_started(job)
                self._finish(job, postpone(job, now, POSTPONED), log.JOB_GIVEN_BACK)
            return 0.0
        alone = self._solo.start()
        if alone is None:
            return 0.0
        self._start(*alone)
        self.check_starts()
        return math.inf
