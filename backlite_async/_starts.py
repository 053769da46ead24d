"""When attempts have started whose queue has a rate: counted at the claim, corrected at the start."""

from __future__ import annotations

import contextlib

from ._errors import BackliteError
from ._job import Claim, ClaimedJob
from .stores import Store

__all__ = ["Starts"]

MARGIN = 20
"""Milliseconds after which a handler's first line has run, once it was started."""


class Starts:
    """Corrects the instants at which a claim counts the starts of its jobs.

    Nobody can know at the claim when its jobs will start, only that they do not after the end of their
    lease; so they count as started then, until it is known when they were. So no window ever holds more
    starts than its rate permits, whatever comes between claim and start.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers: dict[tuple[str, int], int] = {}
        self._noted: list[tuple[str, int, int]] = []

    def expect(self, claim: Claim) -> None:
        """Take note of a claim, whose jobs are about to start."""
        for job in claim.jobs if claim.starts else ():
            if job.id in claim.starts:
                self._numbers[job.id, job.fence] = claim.starts[job.id]

    def count(self, job: ClaimedJob, at: int) -> None:
        """Take note that a job has started."""
        number = self._numbers.pop((job.id, job.fence), None)
        if number is not None:
            self._noted.append((job.queue, number, at + MARGIN))

    def void(self, job: ClaimedJob) -> None:
        """Take note that a job will not start under this claim."""
        number = self._numbers.pop((job.id, job.fence), None)
        if number is not None:
            self._noted.append((job.queue, number, 0))

    async def note(self) -> None:
        """Store what is known."""
        if self._noted:
            noted = list(self._noted)
            await self._store.note_starts(noted)
            del self._noted[: len(noted)]

    async def note_last(self) -> None:
        """Store what is known, if that can be done now; otherwise the instants stay too late."""
        with contextlib.suppress(BackliteError):
            await self.note()
