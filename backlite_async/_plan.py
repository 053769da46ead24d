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
    kinds: Sequence[Kind],
    *,
    workers_free: int,
    threads_free: int,
    writes_free: int,
    ahead: int | None = 0,
    ahead_in_threads: int | None = 0,
) -> list[Lane]:
    """Return the lanes to claim for; none where there is no room.

    Handlers in threads share the free threads, all jobs share the free workers; some more are
    claimed ahead of a free worker (None: enough are here for now). Outcomes that are not written
    yet take up `writes_free`, so that a slow disk slows the claims too.
    """
    lanes = []
    for threaded, free, more in (
        (False, workers_free, ahead),
        (True, min(workers_free, threads_free), ahead_in_threads),
    ):
        members = tuple((kind.queue, kind.task) for kind in kinds if kind.threaded is threaded)
        room = 0 if more is None else min(free + more, writes_free)
        if members and room > 0:
            lanes.append(Lane(kinds=members, room=room))
    return lanes
