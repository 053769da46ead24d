"""What a database must hold after a power loss, by what its processes had been told before it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

BRIEF = 0.2 - 0.005
"""Seconds for which completed jobs of the kind `brief` are kept, a bit less: their times are rounded."""

FOREVER = ("kept", "flaky", "doomed", "sealed", "once", "stuck")
"""Kinds of jobs whose record is kept for ever; of the others nothing need be left once they have ended."""


@dataclass
class Facts:
    """What had been noted up to a moment. A key is OPERATION/MEMBER/MEMBERS/KIND."""

    ids: dict[str, str] = field(default_factory=dict)  # of acknowledged jobs
    orders: set[str] = field(default_factory=set)  # acknowledged operations of the application's transactions
    again: dict[str, int] = field(default_factory=dict)  # attempts whose retry was acknowledged
    ended: dict[str, float] = field(default_factory=dict)  # when the last run of a handler was over
    done: dict[str, str] = field(default_factory=dict)  # acknowledged completions
    asked: set[str] = field(default_factory=set)  # acknowledged cancellations, perhaps of what runs
    replaced: dict[str, str] = field(default_factory=dict)  # what may be another job by now
    pauses: dict[str, str] = field(default_factory=dict)  # what was noted last of a queue

    def learn(self, words: tuple[Any, ...], at: float) -> None:
        """Take in a note."""
        what, subject = words[0], words[1]
        if what == "ack":
            for key, job_id in words[2]:
                self.ids[key] = job_id
            if subject.startswith("order"):
                self.orders.add(subject)
        elif what == "again":
            self.again[subject] = words[2]
        elif what == "end":
            self.ended[subject] = at
        elif what == "asked":
            self.asked.add(subject)
        elif what == "replacing":
            self.replaced[subject] = words[2]
        elif what == "replaced":
            self.ids[words[2]] = self.ids.pop(subject)
        elif what in ("pausing", "paused", "resuming", "resumed"):
            self.pauses[subject] = what
        else:
            self.done[subject] = words[2]

    def may_be_gone(self, key: str, at: float) -> bool:
        """Return whether nothing need be left of a job."""
        kind = key.rsplit("/", 1)[1]
        if kind in FOREVER or key not in self.ended:
            return False
        return kind != "brief" or at >= self.ended[key] + BRIEF


@dataclass
class Found:
    """What a database holds: by key (id, status, attempt)."""

    live: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    completed: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    orders: set[str] = field(default_factory=set)
    corrupt: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)  # those that are to be cancelled
    paused: set[str] = field(default_factory=set)
    unique: dict[str, str] = field(default_factory=dict)  # jobs by unique key


_LIVE = "SELECT id, status, attempt, payload FROM backlite_jobs"
_COMPLETED = "SELECT id, status, attempt, payload FROM backlite_completed"
_keys: dict[bytes, str] = {}


def key_of(payload: object) -> str | None:
    """Return the key in a payload, None if it is not as it was added."""
    if not isinstance(payload, bytes):
        return None
    if payload not in _keys:
        try:
            task = json.loads(payload)
            if zlib.crc32(task["fill"].encode()) != task["check"]:
                return None
        except (ValueError, TypeError, KeyError):  # a corrupt image
            return None
        _keys[payload] = task["key"]
    return _keys[payload]


def find(database: str) -> Found:
    """Open a database, check it, and return what it holds."""
    found = Found()
    try:
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")  # nobody needs this image again
            rows = connection.execute("PRAGMA integrity_check").fetchall()
            if rows != [("ok",)]:
                found.corrupt.append(f"integrity: {rows[0][0]}")
            _read(connection, found)
    except sqlite3.DatabaseError as error:
        found.corrupt.append(f"{type(error).__name__}: {error}")
    return found


def _read(connection: sqlite3.Connection, found: Found) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    for table, sql, rows in (
        ("backlite_jobs", _LIVE, found.live),
        ("backlite_completed", _COMPLETED, found.completed),
    ):
        for job_id, status, attempt, payload in connection.execute(sql) if table in tables else ():
            key = key_of(payload)
            if key is None:
                found.corrupt.append(f"payload of {job_id} is not as it was added")
            else:
                rows[key] = (job_id, status, attempt)
    if "backlite_unique" in tables:
        _read_control(connection, found)
    if "orders" in tables:
        found.orders = {name for (name,) in connection.execute("SELECT operation FROM orders")}


def _read_control(connection: sqlite3.Connection, found: Found) -> None:
    asked = {row[0] for row in connection.execute("SELECT id FROM backlite_jobs WHERE cancelled_at > 0")}
    found.asked = {key for key, row in found.live.items() if row[0] in asked}
    paused = connection.execute("SELECT queue FROM backlite_queues WHERE paused_at IS NOT NULL")
    found.paused = {queue for (queue,) in paused}
    found.unique = dict(connection.execute("SELECT key, job_id FROM backlite_unique"))


def judge(facts: Facts, found: Found, at: float) -> dict[str, list[str]]:
    """Return what is wrong: "lost" saves, "undone" outcomes, what is "half" there; or "corrupt" alone."""
    if found.corrupt:
        return {"corrupt": found.corrupt}
    wrong = {
        "lost": list(_lost(facts, found, at)),
        "undone": list(_undone(facts, found)),
        "half": list(_half(facts, found, at)),
    }
    return {what: cases for what, cases in wrong.items() if cases}


def _lost(facts: Facts, found: Found, at: float) -> Iterator[str]:
    for key, job_id in facts.ids.items():
        other = facts.replaced.get(key, key)
        row = found.live.get(key) or found.completed.get(key) or found.live.get(other)
        if row is None:
            if not facts.may_be_gone(key, at):
                yield f"{key} is gone"
        elif row[0] != job_id:
            yield f"{key} has the id {row[0]}, not {job_id}"
    for operation in facts.orders - found.orders:
        yield f"{operation} is gone from the application's table"


def _undone(facts: Facts, found: Found) -> Iterator[str]:
    for key, status in facts.done.items():
        if key in found.live:
            yield f"{key} was {status} and is {found.live[key][1]}"
        elif key in found.completed and found.completed[key][1] != status:
            yield f"{key} was {status} and is {found.completed[key][1]}"
    for key in facts.asked & found.live.keys() - found.asked:
        yield f"{key} was cancelled and is {found.live[key][1]}"
    for queue, state in facts.pauses.items():
        if state == ("resumed" if queue in found.paused else "paused"):
            yield f"{queue} was {state}, and paused is {queue in found.paused}"
    for key, attempt in facts.again.items():
        row = found.live.get(key) or found.completed.get(key)
        if row is not None and row[2] < attempt:
            yield f"{key} has failed {attempt} times and is at attempt {row[2]}"


def _half(facts: Facts, found: Found, at: float) -> Iterator[str]:
    """Operations of which a part is there, jobs that are there twice, transactions that were undone."""
    there: dict[str, set[str]] = defaultdict(set)
    for key in found.live.keys() | found.completed.keys():
        there[key.split("/", 1)[0]].add(key)
    for operation in found.orders:
        there[operation].update()
    for key in found.live.keys() & found.completed.keys():
        yield f"{key} is both pending and completed"
    for key in (key for key in found.live.keys() | found.completed.keys() if key.endswith("/sealed")):
        if (key in found.completed) != ("order-" + key.replace("/", ":") in found.orders):
            yield f"{key} has completed without the effect of its transaction, or has not, with it"
    yield from _twins(facts, found)
    for operation, keys in there.items():
        if operation.startswith("never"):
            yield f"{operation} was rolled back"
        if operation.startswith("order") and operation not in found.orders:
            yield f"{operation} is not in the application's table"
        members = int(next(iter(keys)).split("/")[2]) if keys else 1
        if len(keys) < members:
            gone = (key for key in facts.ended if key.startswith(f"{operation}/"))
            keys.update(key for key in gone if facts.may_be_gone(key, at))
        if len(keys) < members:
            yield f"{operation} has only {len(keys)} of {members} jobs"


def _twins(facts: Facts, found: Found) -> Iterator[str]:
    """Unique jobs that are not known as such, and those that are there beside what has replaced them."""
    for key in found.live:
        if key.endswith("/once") and found.live[key][0] not in found.unique.values():
            yield f"{key} is there, and not known as unique"
        if facts.replaced.get(key) in found.live:
            yield f"{key} is there, and what has replaced it"
