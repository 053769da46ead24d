"""Claims of other owners whose lease has ended: taken at once, after a while, or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence

from . import _log as log
from ._clock import Clock
from ._job import ClaimedJob, Complete, Lapsed
from ._leases import held_in_this_process
from ._outcome import crashed
from ._registry import Registry
from ._reports import Finish, Reports
from ._suspects import Suspects
from .stores import Store

__all__ = ["Lapses"]


class Lapses:
    """Takes the claims whose lease has ended, those of owners that seem to live only after a while.

    `ours`: claims that are in our hands all the same, `reported`: whose outcome is on its way.
    `look_for_the_dead`: somebody has died, and has written down which of its jobs had started.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        clock: Clock,
        *,
        ours: Container[str],
        reported: Reports,
        finish: Finish,
        look_for_the_dead: Callable[[], None],
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._ours = ours
        self._reported = reported
        self._finish = finish
        self._look_for_the_dead = look_for_the_dead
        self._suspects = Suspects()
        self._wrote_in = 0.0

    @property
    def pause(self) -> float:
        """Seconds until suspects are to be looked at again."""
        return max(self._suspects.pause, 0.05) if self._suspects else math.inf

    async def probe(self) -> None:
        """See whether one can write, before owners are suspected that could not."""
        began = self._clock.monotonic()
        if self._suspects:
            await self._store.probe()
        self._wrote_in = self._clock.monotonic() - began

    def take(self, lapsed: Sequence[Lapsed]) -> None:
        """Take what a claim has found, or suspect its owners."""
        suspects = []
        for claim in lapsed:
            job = claim.job
            known = job.id in self._ours or (job.id, job.fence) in self._reported
            if known or held_in_this_process(job.id, job.fence):
                continue
            beat = self._store.beat_of(claim.owner)
            if beat is None:
                self._crash(job)
            elif beat == 0:
                self._look_for_the_dead()
            else:
                suspects.append((claim, beat))
        for claim in self._suspects.look(suspects, self._clock.monotonic(), self._wrote_in):
            self._crash(claim.job)

    def _crash(self, job: ClaimedJob) -> None:
        handler, now = self._registry.find(job.queue, job.task), self._clock.now()
        if handler is not None:
            outcome = crashed(job, handler.config, now, lapsed_by=now)
            event = log.JOB_FAILED if isinstance(outcome, Complete) else log.JOB_CRASHED
            self._finish(job, outcome, event, error=outcome.error)
