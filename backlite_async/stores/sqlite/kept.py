"""How many completed jobs are kept: counted by an index that does not tell which of them have expired."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .sql import fetch, text
from .walks import decoded

__all__ = ["MOST_EXPIRED", "Expired", "kept_counts"]

MOST_EXPIRED = 1000
"""Expired jobs that are read, to be taken off what is counted; where there are more, jobs are looked at."""


class Expired:
    """The jobs that have expired and are still there, usually few: upkeep removes them."""

    def __init__(self, raw: sqlite3.Connection, now: int) -> None:
        found = decoded(raw, "expired_kinds", {"now": now, "most": MOST_EXPIRED + 1})
        self.known = len(found) <= MOST_EXPIRED
        self._found: list[list[Any]] = found

    def within(self, kind: Sequence[object], since: int, until: int) -> int:
        """Return how many of a queue, task and status have ended in a time."""
        return sum([*of] == [*kind] and since <= at <= until for *of, at in self._found)

    def by_kind(self) -> Counter[tuple[str, str, str]]:
        """Return how many there are of each queue, task and status."""
        return Counter((queue, task, status) for queue, task, status, _ in self._found)


def kept_counts(raw: sqlite3.Connection, queue: str | None, now: int, most: int) -> Counter[tuple[str, str]]:
    """Return how many jobs of each queue, or of one, and status are kept, at least up to `most`."""
    expired = Expired(raw, now)
    kinds = decoded(raw, "completed_kinds", {"queue": queue})
    if not expired.known:
        places = {(name, status) for name, _, status in kinds}
        return Counter({place: _looked_at(raw, *place, now, most) for place in places})
    gone = expired.by_kind()
    looks = most + max(gone.values(), default=0)
    numbers = decoded(raw, "count_kinds", {"kinds": text(kinds), "looks": looks})
    found: Counter[tuple[str, str]] = Counter()
    for (name, task, status), number in zip(kinds, numbers, strict=True):
        found[name, status] += number - gone[name, task, status]
    return found


def _looked_at(raw: sqlite3.Connection, queue: str, status: str, now: int, most: int) -> int:
    parameters = {"queue": queue, "status": status, "now": now, "most": most}
    return int(fetch(raw, "kept_count", parameters)[0][0])
