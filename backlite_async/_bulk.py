"""What is done to many jobs: in batches, each of them a transaction, and told once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import _log as log
from ._filters import Walk, end_of_list
from ._job import Job

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["BATCH", "Change", "batches", "changing", "walk"]

BATCH = 500
"""Jobs that are changed in one transaction, so that nobody waits long behind it."""

NAMED = 5
"""Ids that the log names."""


class Change:
    """What an action has done so far."""

    def __init__(self) -> None:
        self.count = 0
        self.ids: list[str] = []

    def done(self, job_ids: Sequence[str]) -> None:
        """Take note of jobs that it was done to."""
        self.count += len(job_ids)
        self.ids += job_ids[: NAMED - len(self.ids)]


@contextmanager
def changing(action: str) -> Iterator[Change]:
    """Log what was done, once, also where it was cut short."""
    change = Change()
    try:
        yield change
    finally:
        if change.count:
            ids = change.ids or None
            log.emit(log.JOBS_CHANGED, action=action, count=change.count, job_ids=ids)


def batches(job_ids: Sequence[str]) -> Iterator[list[str]]:
    """Split ids, each of which counts once."""
    once = list(dict.fromkeys(job_ids))
    for first in range(0, len(once), BATCH):
        yield once[first : first + BATCH]


async def walk(client: Client, way: Walk, do: Callable[[Sequence[Job]], Awaitable[None]]) -> None:
    """Do something to the jobs along a way, a batch at a time.

    The next batch begins where the last one ended, whatever became of it, so that it comes to an end.
    """
    store = client.open_store()
    place = end_of_list(way.wanted) if way.backwards else None
    more = True
    while more:
        found = await store.find(
            way.wanted,
            limit=BATCH,
            after=None if way.backwards else place,
            before=place if way.backwards else None,
            now=client.clock.now(),
        )
        if found.jobs:
            await do(found.jobs)
        reached = found.places[0 if way.backwards else -1] if found.places else None
        place = found.looked_to if found.limited else reached
        more = found.more and place is not None
        await asyncio.sleep(0)  # in memory nothing waits: let a cancellation leave whole batches
