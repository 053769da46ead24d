"""Adding the runs of schedules when they are due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from traceback import format_tb

from . import _log as log
from ._clock import Clock, from_millis
from ._declarations import Declarations
from ._due import passed_over, plan_tick, timing_of
from ._errors import BackliteError
from ._health import Health
from ._job import NewJob
from ._recurring import StoredSchedule, Tick
from .stores import Store

__all__ = ["Ticker"]

LOOKS_APART = 0.1
"""Seconds between two looks at least: who is told of every job that others add need not look for each."""

MOST_DUE = 100
"""Schedules that are asked for at once."""

LONGEST_TIMER = 86_400.0


class Ticker:
    """Wakes when the next schedule is due, when others may have changed one, and at looks around.

    Every client with workers has one, and whoever comes first adds the run: a schedule moves on in the
    transaction that does, and only from where it was seen.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        health: Health,
        *,
        declarations: Declarations,
        owner: str,
        added: Callable[[list[NewJob]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._health = health
        self._declarations = declarations
        self._owner = owner
        self._added = added
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._ring: asyncio.TimerHandle | None = None
        self._earliest = 0.0
        self._closing = False
        self._somebody_gone = True  # perhaps before our start
        self._asked: list[asyncio.Event] = []
        self.next_at: int | None = None
        """When the next schedule is due, as far as is known; None: never."""
        self._troubled: set[tuple[str, int]] = set()
        self._named: set[tuple[str, int]] = set()

    def look(self) -> None:
        """Look soon: others may have changed a schedule."""
        if self._ring is None and not self._closing:
            self._ring = self._loop.call_at(max(self._earliest, self._loop.time()), self._wake.set)

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    async def looked(self) -> None:
        """Look now, and return when that is done."""
        if not self._closing:
            answer = asyncio.Event()
            self._asked.append(answer)
            self._wake.set()
            await answer.wait()

    def look_around(self) -> None:
        """Look now: somebody may be gone, and clocks may have been set."""
        self._somebody_gone = True
        self._troubled.clear()
        self._wake.set()

    def close(self) -> None:
        """Let `run` return."""
        self._closing = True
        self._forget_ring()
        self._wake.set()

    def _forget_ring(self) -> None:
        if self._ring is not None:
            self._ring.cancel()
            self._ring = None

    async def run(self) -> None:
        """Work until closed."""
        while not self._closing:
            self._wake.clear()
            self._forget_ring()
            asked, delay = len(self._asked), None
            try:
                self.next_at = await self._tick_all()
                self._health.succeeded()
                if self.next_at is not None:
                    delay = max((self.next_at - self._clock.now()) / 1000, 0.001)
            except asyncio.CancelledError:  # ends with its client, in the client's own order
                continue
            except Exception as error:  # what is due stays so until the trouble is over
                delay = self._health.failed(error)
            self._earliest = self._loop.time() + LOOKS_APART
            self._answer(asked)
            await self._sleep(delay)
        self._answer(len(self._asked))

    async def _sleep(self, delay: float | None) -> None:
        timer = None
        if delay is not None:
            timer = self._loop.call_later(min(delay, LONGEST_TIMER), self._wake.set)
        try:
            if not self._closing:
                await self._wake.wait()
        except asyncio.CancelledError:
            pass
        finally:
            if timer is not None:
                timer.cancel()

    def _answer(self, count: int) -> None:
        for answer in self._asked[:count]:
            answer.set()
        del self._asked[:count]

    async def _tick_all(self) -> int | None:
        """Add what is due; return when more is, None: never."""
        if self._somebody_gone:
            await self._declarations.retire(self._store, self._clock, self._owner)
            self._somebody_gone = False
        while not self._closing:
            now = self._clock.now()
            next_at = await self._next_at()
            if next_at is None or next_at > now:
                return next_at
            for schedule in await self._store.due_schedules(now=now, limit=MOST_DUE + len(self._troubled)):
                if not self._closing and not self._is_troubled(schedule):
                    await self._tick(schedule, now)
        return None

    async def _next_at(self) -> int | None:
        """Return when the next schedule is due that there is no trouble with."""
        if not self._troubled:
            return await self._store.next_tick()
        schedules = [
            schedule for schedule in await self._store.schedules() if not self._is_troubled(schedule)
        ]
        return min((there.next_at for there in schedules if there.next_at is not None), default=None)

    def _is_troubled(self, schedule: StoredSchedule) -> bool:
        return (schedule.name, schedule.version) in self._troubled

    async def _tick(self, schedule: StoredSchedule, now: int) -> None:
        try:
            tick = plan_tick(schedule, timing_of(schedule), now)
        except Exception as error:  # that of one holds up no others
            self._trouble(schedule, error)
            return
        try:
            added = await self._store.tick(tick)
        except Exception:  # perhaps it was written all the same, and nobody was told
            self._added([])
            self._store.ring()
            raise
        if added is not None:  # else somebody has moved it on
            self._report(schedule, tick, added)
            jobs = [job for job in tick.jobs if job.id in added]
            if jobs:
                self._added(jobs)

    def _trouble(self, schedule: StoredSchedule, error: Exception) -> None:
        """Leave a schedule until it is changed, or somebody looks around; say so once."""
        version = schedule.name, schedule.version
        self._troubled.add(version)
        if version not in self._named:
            self._named.add(version)
            expected = isinstance(error, BackliteError)
            log.emit(
                log.SCHEDULE_TROUBLED,
                schedule=schedule.name,
                error=str(error) if expected else f"{type(error).__name__}: {error}",
                traceback=None if expected else "".join(format_tb(error.__traceback__)).rstrip(),
            )

    def _report(self, schedule: StoredSchedule, tick: Tick, added: Sequence[str]) -> None:
        if passed_over(schedule, tick):
            log.emit(
                log.SCHEDULE_MISSED,
                schedule=schedule.name,
                since=from_millis(schedule.next_at or tick.at).isoformat(),
                missed=schedule.missed,
            )
        if added:
            log.emit(log.SCHEDULE_TICKED, schedule=schedule.name, jobs=len(added))
        elif tick.jobs and not schedule.overlap:
            log.emit(log.SCHEDULE_SKIPPED, schedule=schedule.name, last_job_id=schedule.last_job_id)
