"""What others are to know of a queue: what cannot be told without its code. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ._clock import seconds
from ._job import Declared, DeclaredTask, JobStatus
from ._outcome import kept
from ._task import TaskType

__all__ = ["declaration"]


def declaration(kinds: Sequence[TaskType]) -> Declared:
    """Return what others are to know of the queue of these task types, of which there is one at least."""
    config = kinds[0].config
    keep = kept(config.retention, JobStatus.CANCELLED, 0)
    return Declared(
        queue=config.name,
        keeps=keep is not None,
        keep_for=None if keep is None else keep.until,
        keep_payload=keep is not None and keep.payload,
        turns=config.concurrency_per_key,
        limits=msgspec.json.encode(_limits(kinds[0])).decode(),
        tasks=tuple(DeclaredTask(kind.name, kind.title, kind.description, kind.schema()) for kind in kinds),
    )


def _limits(kind: TaskType) -> dict[str, object]:
    """Return the limits of a task type's queue that are set, to be shown."""
    config = kind.config
    rate = config.rate
    limits = {
        "concurrency": config.concurrency,
        "global_concurrency": config.global_concurrency,
        "concurrency_per_key": config.concurrency_per_key,
        "rate": None if rate is None else {"count": rate.count, "per": seconds("per", rate.per)},
        "timeout": config.timeout,
        "max_attempts": config.max_attempts,
        "priority": config.priority or None,
        "dead_letter": None if kind.letter is None else kind.letter.name,
    }
    return {name: limit for name, limit in limits.items() if limit is not None}
