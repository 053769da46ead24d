"""What to claim next, from what is free."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

import msgspec

from ._clock import seconds, whole_millis
from ._config import QueueConfig
from ._job import Lane, Limit

__all__ = ["Kind", "plan_claim", "plan_limits"]


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


def plan_limits(
    queues: Iterable[QueueConfig],
    *,
    held: Mapping[str, int],
    workers_free: int,
    threads_free: int,
    in_threads: Container[str] = (),
) -> list[Limit]:
    """Return what limits claims of queues; `held`: how many jobs of each are here.

    What counts for all processes is not claimed ahead of a free worker, or thread: others may have one.
    `in_threads`: the queues all of whose handlers run in threads.
    """
    limits = []
    for config in queues:
        room = None if config.concurrency is None else max(config.concurrency - held.get(config.name, 0), 0)
        rate = (
            None
            if config.rate is None
            else (config.rate.count, whole_millis(seconds("per", config.rate.per)))
        )
        if config.global_concurrency is not None or rate is not None:
            free = min(workers_free, threads_free) if config.name in in_threads else workers_free
            room = free if room is None else min(room, free)
        limits.append(
            Limit(
                queue=config.name,
                room=room,
                in_all=config.global_concurrency,
                per_key=config.concurrency_per_key,
                rate=rate,
            )
        )
    return limits
