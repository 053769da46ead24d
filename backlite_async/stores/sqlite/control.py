"""Orders to those who run jobs, and what they are to know of queues: functions inside a transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from ..._clock import from_millis
from ..._job import Cancelled, Declared, Orders, Queue
from ..._stats import MOST_COUNTED, capped
from .._flows import cancel_flow
from . import workflows
from .finishing import end_cancelled
from .kept import kept_counts
from .sql import fetch, statements, text
from .turns import fill_up

__all__ = [
    "cancel",
    "declare",
    "declared",
    "end_starts",
    "note_starts",
    "orders",
    "pause",
    "queues",
    "resume",
    "running",
]


def declared(raw: sqlite3.Connection, queues: Sequence[Declared]) -> bool:
    """Return whether all of it is known, and nothing waits for turns that are no more."""
    return not fetch(raw, "undeclared", {"queues": text(queues)})[0][0]


def declare(raw: sqlite3.Connection, queues: Sequence[Declared], now: int) -> None:
    """Remember what is to be known of queues; let in what waits for turns that there are now."""
    raw.execute(statements()["declare"], {"queues": text(queues)})
    raw.execute(statements()["declare_tasks"], {"queues": text(queues), "now": now})
    raw.execute(statements()["end_turns"], {"queues": text(queues)})
    for declared in queues:
        if declared.turns is not None:
            fill_up(raw, declared.queue, declared.turns, now)


def pause(raw: sqlite3.Connection, queue: str, now: int) -> None:
    """Let nothing of a queue be claimed."""
    raw.execute(statements()["pause"], {"queue": queue, "now": now})


def resume(raw: sqlite3.Connection, queue: str) -> None:
    """Undo `pause`."""
    raw.execute(statements()["resume"], {"queue": queue})


def running(raw: sqlite3.Connection, queue: str) -> int:
    """Return how many jobs of a queue are claimed."""
    found = msgspec.json.decode(fetch(raw, "running_of_queues", {"queues": text([queue])})[0][0])
    return int(found[queue])


def queues(
    raw: sqlite3.Connection, now: int, most: int = MOST_COUNTED, queue: str | None = None
) -> list[Queue]:
    """Return how the queues are doing, or the one of this name."""
    found = []
    kept = kept_counts(raw, queue, now, most + 1)
    for name, paused, running, limits in fetch(raw, "queues", {"queue": queue}):
        due_at = fetch(raw, "oldest_due", {"queue": name})[0][0]
        found.append(
            Queue(
                name=name,
                paused=bool(paused),
                running=running,
                oldest_due=from_millis(now) - from_millis(due_at)
                if due_at is not None and due_at <= now
                else None,
                limits=msgspec.json.decode(limits or "{}"),
                **_counts(raw, name, now, most, kept),
            )
        )
    return found


def oldest_due(raw: sqlite3.Connection, kinds: Sequence[tuple[str, str]]) -> int | None:
    """Return when the first job of these queues and tasks is due that may start."""
    due_at: int | None = fetch(raw, "oldest_due_of", {"kinds": text(kinds)})[0][0]
    return due_at


def _counts(
    raw: sqlite3.Connection, queue: str, now: int, most: int, kept: Counter[tuple[str, str]]
) -> dict[str, Any]:
    """Return how many jobs of a queue there are by state, as far as they are counted."""
    parameters = {"queue": queue, "now": now, "most": most + 1}
    ((let_in, scheduled, keyed, blocked),) = fetch(raw, "live_counts", parameters)
    waiting, due = keyed + blocked, let_in - scheduled
    if let_in > most and scheduled:  # neither was counted to its end
        due = fetch(raw, "due_count", parameters)[0][0]
    numbers: dict[str, int] = {"pending": let_in + waiting, "scheduled": scheduled, "waiting": waiting}
    numbers["due"] = due
    for status in ("succeeded", "failed", "cancelled"):
        numbers[status] = kept[queue, status]
    return capped(numbers, most)


def cancel(raw: sqlite3.Connection, job_ids: Sequence[str], now: int) -> Cancelled:
    """End pending jobs as cancelled, and ask for the end of running ones."""
    raw.execute(statements()["cancel"], {"ids": text(job_ids), "now": now})
    asked = msgspec.json.decode(fetch(raw, "asked", {"ids": text(job_ids)})[0][0])
    ended = end_cancelled(raw)
    for workflow in workflows.live(raw, job_ids, now):
        of_flow, of_running, _ = cancel_flow(workflows.Flows(raw), workflow, now)
        ended += of_flow
        asked += of_running
    return Cancelled(ended=ended, asked=list(dict.fromkeys(asked)))


def orders(raw: sqlite3.Connection, owner: str) -> Orders:
    """Return what an owner is to heed."""
    paused, cancelled = fetch(raw, "orders", {"owner": owner})[0]
    return Orders(
        paused=msgspec.json.decode(paused, type=frozenset[str]),
        cancelled=msgspec.json.decode(cancelled, type=list[tuple[str, int]]),
    )


def end_starts(raw: sqlite3.Connection, owners: Sequence[str], now: int) -> None:
    """Count what owners that have died may have started as started by now; they wait for nothing any more."""
    raw.execute(statements()["end_watches"], {"owners": text(owners)})
    raw.execute(statements()["end_starts"], {"owners": text(owners), "now": now})


def note_starts(raw: sqlite3.Connection, starts: Sequence[tuple[str, int, int]]) -> None:
    """Correct when counted starts were."""
    raw.execute(statements()["note_starts"], {"starts": text(starts)})
