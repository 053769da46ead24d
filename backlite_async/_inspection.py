"""What a look at a database has found, without changing it: plain data, judged elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ._job import OwnerInfo

__all__ = ["Backlog", "Claims", "Finding", "Inspection", "QueueSeen"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something about a database that is not as it should be, and what to do about it.

    `code`: what it is, in one word; `subject`: the queue, owner or file that it is about.
    """

    code: str
    message: str
    remedy: str
    subject: str | None = None


class Backlog(msgspec.Struct, frozen=True):
    """Pending jobs of a queue and task that wait for nothing but their time, of one priority at least.

    `pending`: how many, `late`: how many that are due for too long, both as far as they were counted;
    `due_at`: when the first is due.
    """

    queue: str
    task: str
    pending: int
    late: int
    due_at: int


class Claims(msgspec.Struct, frozen=True):
    """Jobs of a queue that an owner has claimed; `ended`: those whose lease has; `until`: the first does."""

    queue: str
    owner: str
    running: int
    ended: int
    until: int


class QueueSeen(msgspec.Struct, frozen=True):
    """A queue: its limits as declared, and how many have started in the time that its rate is about."""

    name: str
    paused: bool
    limits: Mapping[str, Any] = {}
    started: int = 0


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen. Of a schema that is not the newest one nothing more is looked at.

    `path` None: not in a file; `file_system`: which, where it is one of a network; `log_bytes`: the length
    of the write-ahead log, which is cut to `log_limit` where it can be; `all_owners`: whether all are known.
    """

    path: str | None = None
    there: bool = True
    sqlite: str = ""
    affected: bool = False
    file_system: str = ""
    journal: str = "wal"
    log_bytes: int = 0
    log_limit: int = 0
    schema: tuple[int, int] = (0, 0)
    owners: Sequence[OwnerInfo] = ()
    all_owners: bool = True
    backlogs: Sequence[Backlog] = ()
    claims: Sequence[Claims] = ()
    queues: Sequence[QueueSeen] = ()
