"""The ledger and the auditor, on histories in which something is wrong."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .kit import Budget, Ledger, Missing, Row, audit, intact, lively, needs

Event = dict[str, Any]


def ack(job: str) -> Event:
    return {"what": "ack", "job": job, "pid": 1}


def start(job: str, pid: int, fence: int = 1) -> Event:
    return {"what": "start", "job": job, "pid": pid, "fence": fence}


def killed(pid: int) -> Event:
    return {"what": "killed", "victim": pid, "pid": 1}


def cause(job: str) -> Event:
    return {"what": "cause", "job": job, "pid": 1}


# -- the auditor -----------------------------------------------------------------------------------------


def test_a_clean_history_is_clean() -> None:
    verdict = audit([ack("a"), start("a", 2), ack("b"), start("b", 2)], ["a", "b"])
    assert (verdict.acknowledged, verdict.executions) == (2, 2)
    assert (verdict.lost, verdict.doubles, verdict.unexplained) == ([], [], [])


def test_what_was_acknowledged_and_is_not_completed_is_lost() -> None:
    """Whether it ran or not, and however often it was acknowledged."""
    events = [ack("ran"), start("ran", 2), ack("never"), ack("never"), ack("done"), start("done", 2)]
    assert audit(events, ["done"]).lost == ["ran", "never"]


def test_what_was_not_acknowledged_cannot_be_lost() -> None:
    verdict = audit([start("a", 2)], [])
    assert (verdict.lost, verdict.acknowledged, verdict.executions) == ([], 0, 1)


def test_a_second_execution_without_a_reason_is_unexplained() -> None:
    """Also in the same process, and also if another process has been killed."""
    for second in (2, 3):
        verdict = audit([ack("a"), start("a", 2), killed(9), start("a", second, 7)], ["a"])
        assert verdict.doubles == verdict.unexplained == [f"a: claim 1 in 2, 7 in {second}"]


def test_a_death_explains_what_its_process_had_begun() -> None:
    verdict = audit([ack("a"), start("a", 2), killed(2), start("a", 3)], ["a"])
    assert (len(verdict.doubles), verdict.unexplained) == (1, [])


def test_what_a_dying_process_starts_is_left_out() -> None:
    """From the note of its kill, until a process with its pid is up; nothing else is left out."""
    end, up = {"what": "end", "job": "b", "pid": 2}, {"what": "up", "pid": 2}
    events = [start("a", 2), killed(2), start("b", 2), end, start("c", 3), up, start("d", 2)]
    assert list(lively(events)) == [event for event in events if event != start("b", 2)]


def test_a_death_does_not_explain_the_execution_after_the_next() -> None:
    """Killed in 2, then twice in living processes."""
    verdict = audit([start("a", 2), killed(2), start("a", 3), start("a", 4, 9)], ["a"])
    assert verdict.unexplained == ["a: claim 1 in 3, 9 in 4"]


def test_a_cause_explains_one_execution_of_its_job() -> None:
    events = [start("a", 2), cause("a"), start("a", 2, 2), start("a", 2, 3), start("b", 2), start("b", 2)]
    verdict = audit(events, ["a", "b"])
    assert len(verdict.doubles) == 3
    assert verdict.unexplained == ["a: claim 2 in 2, 3 in 2", "b: claim 1 in 2, 1 in 2"]


# -- the ledger ------------------------------------------------------------------------------------------


def test_the_ledger_keeps_what_was_noted_in_its_order(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    again = Ledger(tmp_path / "ledger")
    ledger.note("ack", job="a")
    again.note("start", job="a", fence=1)
    ledger.note("end", job="ä\n")
    ledger.close()
    again.close()
    events = Ledger.read(tmp_path / "ledger")
    assert [event["what"] for event in events] == ["ack", "start", "end"]
    assert {event["pid"] for event in events} == {os.getpid()}
    assert events == sorted(events, key=lambda event: event["at"])
    assert events[2]["job"] == "ä\n"


def test_a_ledger_that_nobody_began_is_empty(tmp_path: Path) -> None:
    assert Ledger.read(tmp_path / "ledger") == []


def test_a_torn_line_is_left_out_and_no_other(tmp_path: Path) -> None:
    """A writer that dies in its write leaves a piece: at the end, or before the next one's line."""
    path = tmp_path / "ledger"
    path.write_bytes(
        b'{"what": "ack", "job": "a"}\n{"what": "ack", "jo\n{"what": "end", "job": "a"}\n{"what": "a'
    )
    assert [event["what"] for event in Ledger.read(path)] == ["ack", "end"]


WRITER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.torture.kit import Ledger
ledger = Ledger(sys.argv[2])
for number in range(1000):
    ledger.note("ack", job=f"{number}")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_its_lines(tmp_path: Path) -> None:
    """What a process had noted outlives it, and nothing of it is torn."""
    root, path = Path(__file__).resolve().parents[2], tmp_path / "ledger"
    writer = subprocess.run([sys.executable, "-P", "-c", WRITER, root, path], check=False)
    assert writer.returncode == -signal.SIGKILL
    events = Ledger.read(path)
    assert [event["job"] for event in events] == [f"{number}" for number in range(1000)]
    assert len({event["pid"] for event in events}) == 1


# -- the database, the budget, the row -------------------------------------------------------------------


def database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x TEXT, y TEXT)")
    connection.execute("CREATE INDEX i ON t (x)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(f"{n}", "y" * 500) for n in range(200)])
    connection.commit()
    connection.close()


def test_a_whole_database_is_intact(tmp_path: Path) -> None:
    database(tmp_path / "db")
    assert intact(tmp_path / "db")


def test_a_page_overwritten_with_another_is_noticed(tmp_path: Path) -> None:
    """Each page is sound by itself; they do not fit together."""
    database(tmp_path / "db")
    content = bytearray((tmp_path / "db").read_bytes())
    content[-4096:] = content[-8192:-4096]
    (tmp_path / "db").write_bytes(content)
    assert not intact(tmp_path / "db")


@pytest.mark.parametrize("damage", ["garbage", "torn", "no database"])
def test_a_damaged_database_is_not_intact(tmp_path: Path, damage: str) -> None:
    database(tmp_path / "db")
    content = bytearray((tmp_path / "db").read_bytes())
    if damage == "garbage":
        content[8192:12288] = b"\xa5" * 4096
    elif damage == "torn":
        del content[-6000:]
    else:
        content[:100] = b"x" * 100
    (tmp_path / "db").write_bytes(content)
    assert not intact(tmp_path / "db")


def test_a_budget_ends_with_its_time_but_not_before_the_least() -> None:
    over = Budget(1.0, least=3, most=5, began=-1e9)
    assert [over.more(done) for done in (0, 2, 3, 4)] == [True, True, False, False]
    young = Budget(1e9, least=3, most=5)
    assert [young.more(done) for done in (2, 3, 4, 5, 6)] == [True, True, True, False, False]


def test_a_missed_bar_is_a_failure_of_its_row() -> None:
    row = Row("T1", "a fault", trials=1200, unit="points", lost=0, hangs=2, recovery_ms=1234.5)
    row.require("0 lost", held=True)
    row.require("0 hangs, found 2", held=False)
    assert row.failures == ["0 hangs, found 2"]
    assert row.columns() == ["T1", "a fault", "1,200 points", "0", "-", "-", "2", "1,234 ms"]


def test_a_missing_tool_is_told_with_its_package() -> None:
    needs("sh", "dash")
    with pytest.raises(Missing, match="needs no-such-tool: apt-get install its-package"):
        needs("no-such-tool", "its-package")
