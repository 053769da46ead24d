"""The overview: what is going on."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.responses import Response

from ... import Job, OwnerInfo, Queue
from .._times import number
from .._visit import Route, Visit
from ._queues import counted_to, figures, notes, rows, tiles

__all__ = ["ROUTES"]

MOST_QUEUES = 12
MOST_PROCESSES = 25
MOST_JOBS = 8
"""Rows that are shown at most: of queues, of processes, and of what each of these is doing."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process, and what it is doing; `more`: how many jobs besides."""

    owner: OwnerInfo
    jobs: Sequence[Job]
    more: int
    link: str


async def overview(visit: Visit) -> Response:
    """Show counts, figures and processes."""
    client = visit.client
    queues = await client.queues.list(most=await counted_to(visit), times=False)
    owners = sorted(await client.owners.list(), key=_rank)
    workers = sum(owner.workers for owner in owners if owner.alive is not False)
    busy = f"of {number(workers)} worker{'s' * (workers != 1)}"
    return visit.render(
        "overview.html",
        tiles=tiles(visit, queues, notes(queues) | {"running": busy}, None),
        rows=rows(visit, _busiest(queues)),
        queues=len(queues),
        processes=[await _process(visit, owner) for owner in owners[:MOST_PROCESSES]],
        more_processes=max(len(owners) - MOST_PROCESSES, 0),
        **await figures(visit, None),
    )


def _busiest(queues: Sequence[Queue]) -> Sequence[Queue]:
    """Return the queues in which most is going on, by name."""
    if len(queues) <= MOST_QUEUES:
        return queues

    def rank(queue: Queue) -> tuple[int, int, int]:
        return (queue.running, queue.recent.ended + queue.due + queue.waiting, queue.today.ended)

    return sorted(sorted(queues, key=rank, reverse=True)[:MOST_QUEUES], key=lambda queue: queue.name)


def _rank(owner: OwnerInfo) -> tuple[bool, bool, int, str]:
    """Say which process is shown first: those that live and work."""
    return (owner.alive is False, not owner.workers, -owner.running, owner.id)


async def _process(visit: Visit, owner: OwnerInfo) -> Process:
    jobs: Sequence[Job] = ()
    if owner.running:
        jobs = await visit.client.jobs.list(state="running", owner=owner.id, limit=MOST_JOBS, brief=True)
    return Process(
        owner=owner,
        jobs=jobs,
        more=max(owner.running - len(jobs), 0),
        link=visit.link("jobs", state="running", owner=owner.id),
    )


ROUTES = (Route("GET", "/", overview),)
