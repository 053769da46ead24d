"""What to claim next, from what is free."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ._job import Lane

__all__ = ["Kind", "plan_claim"]


class Kind(msgspec.Struct, frozen=True):
    """A kind of job that this process can run; `threaded`: in a worker thread."""

    queue: str
    task: str
    threaded: bool


def plan_claim(
    kinds: Sequence[Kind], *, workers_free: int, threads_free: int, writes_free: int
) -> list[Lane]:
    """Return the lanes to claim for; none where there is no room.

    Handlers in threads share the free threads, all jobs share the free workers. Outcomes that
    are not written yet take up `writes_free`, so that a slow disk slows the claims too.
    """
    room = min(workers_free, writes_free)
    lanes = []
    for threaded, free in ((False, room), (True, min(room, threads_free))):
        members = tuple((kind.queue, kind.task) for kind in kinds if kind.threaded is threaded)
        if members and free > 0:
            lanes.append(Lane(kinds=members, room=free))
    return lanes
