"""Which jobs of the memory store are wanted, and where they stand in lists: `Wanted`, to the letter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .._job import JobStatus
from .._query import SortKey, Wanted
from ._rows import Row

__all__ = ["has", "is_looked_at", "sort_key"]

_INDEXED = frozenset({"queue", "task", "states", "due", "finished"})
_RUNNING = _INDEXED | {"owner"}


def _driver(wanted: Wanted) -> frozenset[str]:
    """Return what is wanted that one index knows, or the indexes of queues know together."""
    if wanted.unique is not None:  # one job at most, of which its tags are known
        return frozenset({"queue", "unique", "workflow", "tag"})
    for name in ("workflow", "tag", "parent"):
        if getattr(wanted, name) is not None:
            return frozenset({name})
    return _RUNNING if wanted.states == frozenset({JobStatus.RUNNING}) else _INDEXED


def is_looked_at(wanted: Wanted) -> bool:
    """Return whether anything is wanted that has to be looked at, job by job."""
    return any(name not in _driver(wanted) for name, value in _set(wanted).items())


def has(row: Row, wanted: Wanted, *, known: bool) -> bool:
    """Return whether a job has what is wanted and the driving index knows, or what else is wanted."""
    if known and wanted.owner not in (None, row.owner) and not row.ended and _driver(wanted) >= _INDEXED:
        return False  # who runs what is known; and what is pending nobody runs
    return all(
        _HAS[name](row, value)
        for name, value in _set(wanted).items()
        if (name in _driver(wanted)) is known and name in _HAS
    )


def sort_key(row: Row, wanted: Wanted, number: int | None) -> SortKey:
    """Return where a job stands; `number`: that of the tag that is wanted."""
    if wanted.workflow is not None:
        return (8, row.step or 0)
    if wanted.tag is not None:
        return (5, -(number or 0))
    if wanted.parent is not None:
        return (7 if row.ended else 6, -row.seq)
    if row.finished_at is not None:
        return (4, -row.finished_at, -row.seq)
    if row.status is JobStatus.RUNNING:
        return (0, row.started_at or 0, row.seq)
    if row.blocked:
        return (3, row.queue, row.task, -row.priority, row.scheduled_at, row.seq)
    if row.due_at is None:
        return (2, row.queue, row.key or "", row.task, -row.priority, row.scheduled_at, row.seq)
    return (1, row.due_at, row.seq)


def _set(wanted: Wanted) -> Mapping[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}


def _within(instant: int | None, times: tuple[int | None, int | None]) -> bool:
    since, until = times
    if instant is None:
        return False
    return (since is None or instant >= since) and (until is None or instant <= until)


def _due(row: Row) -> int | None:
    if row.status is not JobStatus.PENDING:
        return None
    return row.scheduled_at if row.due_at is None else row.due_at


def _says(row: Row, text: str) -> bool:
    """Return whether a job has a text, whatever the case of its ASCII letters."""
    texts = [(text or "").encode("utf-8", "surrogatepass") for text in (row.error, row.id, row.meta, row.key)]
    sought = text.encode("utf-8", "surrogatepass").lower()
    return any(sought in one.lower() for one in [row.payload or b"", *texts])


_HAS: Mapping[str, Callable[[Row, Any], bool]] = {
    "queue": lambda row, queue: row.queue == queue,
    "task": lambda row, task: row.task == task,
    "states": lambda row, states: row.status in states,
    "tag": lambda row, tag: tag in msgspec.json.decode(row.tags or "[]"),
    "key": lambda row, key: row.key == key,
    "parent": lambda row, parent: row.parent == parent,
    "owner": lambda row, owner: row.owner == owner,
    "workflow": lambda row, workflow: row.workflow == workflow,
    "added": lambda row, times: _within(row.created_at, times),
    "due": lambda row, times: _within(_due(row), times),
    "finished": lambda row, times: _within(row.finished_at, times),
    "text": _says,
}
"""How to tell from a job itself; the store knows who has a unique key."""
