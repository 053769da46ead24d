"""T20 in short: a few copies under load; and the judge of copies."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest

from . import t20_backup
from .kit import Budget, Row
from .t20_backup import BALLAST, Ground


def test_copies_under_load_are_whole_or_absent() -> None:
    """Everything acknowledged before is in the copy, which drains; cut short, there is none."""
    row = t20_backup.run(Budget(0.0))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """A ledger in which two jobs were acknowledged before the second 10, and one after."""
    found = Ground(tmp_path, Row("T20", ""), random.Random(1))
    acks = [{"what": "ack", "job": job, "at": at} for job, at in (("a", 1), ("b", 2), ("c", 11))]
    found.ledger.write_text("".join(json.dumps(ack) + "\n" for ack in acks))
    return found


def copy(ground: Ground, pending: Iterable[str], completed: Iterable[str], ballast: int = BALLAST) -> Path:
    path = ground.path()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE backlite_jobs (id)")
    connection.execute("CREATE TABLE backlite_completed (id)")
    connection.execute("CREATE TABLE ballast (content)")
    connection.executemany("INSERT INTO backlite_jobs VALUES (?)", [(job,) for job in pending])
    connection.executemany("INSERT INTO backlite_completed VALUES (?)", [(job,) for job in completed])
    connection.executemany("INSERT INTO ballast VALUES (zeroblob(1000000))", [()] * ballast)
    connection.commit()
    connection.close()
    return path


def test_a_whole_copy_passes(ground: Ground) -> None:
    """What was acknowledged later may be in it, or not."""
    t20_backup.look_into(ground, copy(ground, "a", "b"), 10)
    t20_backup.absent_or_whole(ground, copy(ground, "ac", "b"), 10, set())
    t20_backup.absent_or_whole(ground, ground.path(), 10, set())
    assert (ground.row.failures, ground.row.lost) == ([], 0)


def test_what_is_missing_or_twice_in_a_copy_is_noticed(ground: Ground) -> None:
    """Jobs that were acknowledged before, jobs that are pending and completed, the application's rows."""
    t20_backup.look_into(ground, copy(ground, "a", ""), 10)
    t20_backup.look_into(ground, copy(ground, "ab", "a"), 10)
    t20_backup.look_into(ground, copy(ground, "ab", "", ballast=BALLAST - 1), 10)
    assert ground.row.lost == 1
    assert [failure.split(" ", 1)[1][:12] for failure in ground.row.failures] == [
        "of 2 jobs ar",
        "jobs are twi",
        "application'",
    ]


def test_a_torn_copy_is_noticed(ground: Ground) -> None:
    """Cut off, empty, or with something left beside it."""
    torn = copy(ground, "ab", "")
    torn.write_bytes(torn.read_bytes()[:1_000_000])
    t20_backup.look_into(ground, torn, 10)
    empty = ground.path()
    empty.touch()
    t20_backup.absent_or_whole(ground, empty, 10, set())
    assert ground.row.corrupt == 2
    left = ground.path().with_name("copy.db-journal")
    left.touch()
    t20_backup.absent_or_whole(ground, left.with_name("copy.db"), 10, {".unfinished"})
    assert ground.row.failures[-1] == "left beside a copy: copy.db-journal"
