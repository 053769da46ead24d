"""T19 in seconds, and that it can fail."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from . import t19_bit_flips as row_module
from .kit import Budget, Row
from .programs.t19_open import Order, Report, damage, distance
from .t19_bit_flips import UNDAMAGED, Found, make, open_all, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file, closed, and the list of what is in it."""
    folder = tmp_path_factory.mktemp("t19")
    make(str(folder))
    return folder


def changed(made: Path, folder: Path, sql: str) -> str:
    """Return a folder with a copy of the file in which a statement has changed something."""
    for name in ("base", "added"):
        (folder / name).write_bytes((made / name).read_bytes())
    with contextlib.closing(sqlite3.connect(folder / "base", isolation_level=None)) as connection:
        connection.execute(sql)
    return str(folder)


def judged(found: Found, trials: int = 1) -> Row:
    row = Row("T19", "")
    row_module.judge(row, found, trials)
    return row


def test_damage_is_told_or_harmless() -> None:
    """Nothing hangs or dies, every error is clear, no handler gets what nobody added."""
    row = run(Budget(seconds=0, least=60))
    assert row.failures == []
    assert (row.corrupt, row.doubles, row.hangs) == (0, 0, 0)
    assert row.trials >= 60


@pytest.mark.parametrize(
    "sql",
    [
        """UPDATE backlite_jobs SET payload = CAST('{"key":"small-1","fill":"another"}' AS BLOB)
           WHERE task = 'Small'""",
        "UPDATE backlite_jobs SET queue = 'plain', task = 'Plain' WHERE task = 'Small'",
    ],
)
def test_a_payload_that_nobody_added_is_noticed(made: Path, tmp_path: Path, sql: str) -> None:
    """Another text, or a handler of another type, is a silent wrong success."""
    found = open_all(changed(made, tmp_path, sql), [UNDAMAGED])
    row = judged(found)
    assert len(found.reports[0]["wrong"]) == 16
    assert row.corrupt == 1
    assert "no handler gets" in "".join(row.failures)


def test_a_job_that_is_gone_is_counted(made: Path, tmp_path: Path) -> None:
    """A job that vanished without an error is among what nobody has noticed."""
    found = open_all(changed(made, tmp_path, "DELETE FROM backlite_jobs WHERE task = 'Left'"), [UNDAMAGED])
    assert found.reports[0]["missing"] == ["left-0", "left-1"]
    assert found.reports[0]["whole"] is True
    assert "1 in other values" in "".join(judged(found).notes)


def test_a_trial_that_takes_too_long_hangs(made: Path) -> None:
    """What does not end within its limit counts as a hang."""
    row = judged(open_all(str(made), [UNDAMAGED], limit=0.001))
    assert row.hangs == 1
    assert "nothing hangs" in "".join(row.failures)


PROGRAM = """
import json, os, signal, sys
order = json.loads(sys.argv[1])
with open(order["report"], "a") as report:
    for trial in order["trials"]:
        print(json.dumps({"begin": trial}), file=report, flush=True)
        if trial == 3:
            END
        print(json.dumps({"end": {"trial": trial}}), file=report, flush=True)
"""


@pytest.mark.parametrize(
    ("end", "limit", "what"),
    [("os.kill(os.getpid(), signal.SIGSEGV)", 20.0, "killed"), ("signal.pause()", 0.5, "hung")],
)
def test_the_rest_goes_on_without_a_trial_that_ends_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, limit: float, what: str
) -> None:
    """A process that dies or hangs is noticed; after a death the trials not begun with get another."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("END", end))
    monkeypatch.setattr(row_module, "PROGRAM", str(program))
    found = open_all(str(tmp_path), range(6), limit)
    rest = [4, 5] if what == "killed" else []  # after a hang nothing more is tried
    assert [report["trial"] for report in found.reports] == [0, 1, 2, *rest]
    assert len(getattr(found, what)) == (2 if what == "killed" else 1)  # among the others, and alone
    assert getattr(found, "hung" if what == "killed" else "killed") == []


def reports(**fields: Any) -> Sequence[dict[str, Any]]:
    return [asdict(Report(0, "a fault", 1, **fields))]


@pytest.mark.parametrize(
    ("found", "bar"),
    [
        (Found([]), "every trial has an answer"),
        (Found([*reports(unclear=["get: ValueError: no"])]), "every error is the library's own"),
        (Found([*reports(repeated=["small-1"])]), "no job runs twice"),
        (Found([*reports(hung=True)]), "nothing hangs"),
        (Found([*reports(lost=["fresh-0"])] * 2), "jobs saved to a damaged file seldom stand still"),
        (Found([*reports()], killed=["at [0]"]), "every process survives"),
        (Found([*reports()], stray=["an error"]), "no error goes to nobody"),
    ],
)
def test_each_bar_can_be_missed(found: Found, bar: str) -> None:
    """Each finding that must not be fails the row, by the name of its bar."""
    failures = judged(found, len(found.reports) or 1).failures
    assert [failure.split(":")[0] for failure in failures] == [failures[0].split(":")[0]]
    assert failures[0].startswith(bar)


def test_a_told_error_excuses_a_repetition() -> None:
    """A job may run twice where the library has said that something is wrong; damage told is no failure."""
    assert judged(Found([*reports(repeated=["small-1"], noticed=["job.lease_lost"])])).failures == []
    assert judged(Found([*reports(refused="DatabaseUnusable: no", missing=["small-1"])])).failures == []


def test_damage_is_what_it_says(tmp_path: Path) -> None:
    """As many bits differ as are told; a cut leaves the beginning, and never nothing."""
    content = bytes(range(256)) * 64
    sorts = set()
    for trial in range(300):
        damaged, fault, bits = damage(content, Order("open", str(tmp_path)), trial)
        sorts.add((fault.split()[0], bits))
        if bits:
            assert distance(content, damaged) == bits
        else:
            assert 0 < len(damaged) < len(content)
            assert content.startswith(damaged)
    assert sorts >= {("cut", 0), ("flipped", 1), ("flipped", 4), ("flipped", 8)}
