"""Jobs that are claimed before a worker is free, so that short jobs need not wait for claims."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ._job import ClaimedJob

__all__ = ["Ahead"]

WORK = 0.02
"""Seconds of work that is claimed ahead."""

MOST = 1000
"""Jobs that are claimed ahead, at most."""

KNOWN_AFTER = 32
"""Jobs that must have ended before anything is claimed ahead: until then nobody knows how long they take."""

LIMIT = 0.25
"""Seconds that a job waits here before it goes back to those who may have a worker for it."""

LONGEST_GAP = 0.1
"""Seconds that count at most between two ends: to be idle is not to be slow."""


class _Lane:
    """Claimed jobs that wait, and the pace at which jobs of their sort end."""

    def __init__(self) -> None:
        self.waiting: deque[ClaimedJob] = deque()
        self._claims: deque[tuple[int, float, int]] = deque()
        self.worth = 0
        self._gap = LONGEST_GAP
        self._known = 0
        self._last = 0.0

    def ended(self, now: float) -> None:
        gap = now - self._last
        self._last = now
        self._gap += (min(gap, LONGEST_GAP) - self._gap) / KNOWN_AFTER
        self._known += 1
        if self._known >= KNOWN_AFTER:
            self.worth = int(WORK / self._gap) if self._gap * MOST > WORK else MOST

    @property
    def low(self) -> bool:
        return 2 * len(self.waiting) <= self.worth

    def put(self, job: ClaimedJob, since: float, until: int) -> None:
        if not self._claims or self._claims[-1][0] != job.fence:
            self._claims.append((job.fence, since, until))
        self.waiting.append(job)

    def oldest(self) -> tuple[float, int] | None:
        """Return when the first job was claimed, and until when."""
        if not self.waiting:
            self._claims.clear()
            return None
        while self._claims[0][0] != self.waiting[0].fence:
            self._claims.popleft()
        return self._claims[0][1:]

    def overdue(self, now: float, wall: int) -> bool:
        oldest = self.oldest()
        return oldest is not None and (now - oldest[0] >= LIMIT or wall >= oldest[1])

    def take_out(self, wanted: Callable[[ClaimedJob], bool]) -> list[ClaimedJob]:
        jobs = [job for job in self.waiting if wanted(job)]
        if jobs:
            self.waiting = deque(job for job in self.waiting if not wanted(job))
        return jobs

    def give_up(self) -> list[ClaimedJob]:
        jobs = list(self.waiting)
        self.waiting.clear()
        self._claims.clear()
        self._known = self.worth = 0
        return jobs


class Ahead:
    """Holds claimed jobs in their order, and says how many more are worth claiming.

    That is by time, not by number: what ends within 20 ms, by a moving average of the time between
    two ends; handlers in threads are counted apart. Where that has changed, as a few long jobs can
    keep all workers, what waits is given back. So other processes are kept from nothing but what is
    about to run here.
    """

    def __init__(self) -> None:
        self._plain = _Lane()
        self._in_threads = _Lane()

    def __len__(self) -> int:
        return len(self._plain.waiting) + len(self._in_threads.waiting)

    def __bool__(self) -> bool:
        return bool(self._plain.waiting or self._in_threads.waiting)

    def ended(self, now: float, *, threaded: bool) -> None:
        """Take note that a job has ended. `now`: monotonic seconds."""
        (self._in_threads if threaded else self._plain).ended(now)

    def room(self, *, threaded: bool) -> int | None:
        """Return how many more jobs are worth claiming ahead; None: no need yet to claim anything."""
        lane = self._in_threads if threaded else self._plain
        return lane.worth - len(lane.waiting) if not lane.waiting or lane.low else None

    def low(self, *, threaded: bool) -> bool:
        """Return whether more should be claimed."""
        return (self._in_threads if threaded else self._plain).low

    def put(self, job: ClaimedJob, *, threaded: bool, since: float, until: int) -> None:
        """Let a job wait that was claimed at `since`, monotonic, with a lease until `until`, wall time."""
        (self._in_threads if threaded else self._plain).put(job, since, until)

    def take(self, threads_free: int) -> ClaimedJob | None:
        """Return the next job that can be started; of the two sorts, the one that was claimed first."""
        waiting, in_threads = self._plain.waiting, self._in_threads.waiting
        if threads_free > 0 and in_threads and not (waiting and waiting[0].fence <= in_threads[0].fence):
            waiting = in_threads
        return waiting.popleft() if waiting else None

    def pause(self, now: float) -> float:
        """Return the seconds until what waits has waited for too long; at most `LIMIT`."""
        since = [oldest[0] for lane in (self._plain, self._in_threads) if (oldest := lane.oldest())]
        return min(since, default=now) + LIMIT - now

    def overdue(self, now: float, wall: int) -> list[ClaimedJob]:
        """Return what has waited for too long, or through the end of its lease, and waits no longer."""
        lanes = [lane for lane in (self._plain, self._in_threads) if lane.overdue(now, wall)]
        return [job for lane in lanes for job in lane.give_up()]

    def take_out(self, wanted: Callable[[ClaimedJob], bool]) -> list[ClaimedJob]:
        """Return those jobs that are wanted, which wait no longer."""
        return self._plain.take_out(wanted) + self._in_threads.take_out(wanted)

    def give_up(self) -> list[ClaimedJob]:
        """Return all jobs that wait, which wait no longer."""
        return self._plain.give_up() + self._in_threads.give_up()
