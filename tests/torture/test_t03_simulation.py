"""The short form of T3, and that it can fail."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from . import t03_simulation as t03
from .chunks import Chunks
from .kit import Budget, Row

SHORT = Budget(0, least=60, most=60)


def told(tmp_path: Path, body: str, *, patience: float = 60.0) -> Row:
    """Run 60 seeds with a program that answers as it is told."""
    program = tmp_path / "worlds.py"
    lines = "import json, os, sys\nfor line in sys.stdin:\n    first, count = map(int, line.split())\n"
    program.write_text(lines + textwrap.indent(textwrap.dedent(body), "    "))
    return t03.run(SHORT, chunks=Chunks(program, 25, patience=patience, processes=2))


def test_no_promise_is_broken_in_any_world() -> None:
    """A hundred seeds beyond those of the ordinary tests."""
    chunks = Chunks(t03.PROGRAM, 25, first=1_000_000)
    row = t03.run(Budget(0, least=100, most=100), chunks=chunks)
    assert row.failures == []
    assert (row.trials, row.lost, row.doubles, row.hangs) == (100, 0, 0, 0)


def test_failed_seeds_are_named(tmp_path: Path) -> None:
    """A violation is counted in its column, and its seed is named with how to see it again."""
    row = told(
        tmp_path,
        """
        found = {17: ["lost: a never ended", "extra: b ran twice"], 31: ["deadlock: nothing is ready"]}
        failed = {seed: lines for seed, lines in found.items() if first <= seed < first + count}
        print(json.dumps({"failed": failed, "seen": {}}), flush=True)
        """,
    )
    assert (row.trials, row.lost, row.doubles, row.hangs) == (60, 1, 1, 1)
    assert "seed 17: lost: a never ended (python -m tests.simulation --seed 17)" in row.failures
    assert any("seed 31: deadlock" in line for line in row.failures)


def test_many_failed_seeds_are_all_listed(tmp_path: Path) -> None:
    """Beyond the first few, seeds are listed without what was found."""
    body = """
    failed = {seed: ["lost: a"] for seed in range(first, first + count)}
    print(json.dumps({"failed": failed, "seen": {}}), flush=True)
    """
    row = told(tmp_path, body)
    assert row.lost == 60
    assert any(line.startswith("60 seeds fail: 0, 1, 2") and "59" in line for line in row.failures)


def test_worlds_in_which_nothing_happens_are_no_success(tmp_path: Path) -> None:
    """A simulation without executions, faults and deaths shows nothing."""
    row = told(tmp_path, 'print(json.dumps({"failed": {}, "seen": {"Started": 5}}), flush=True)')
    missing = ", ".join(t03.EVENTS[1:])
    assert row.failures == [f"worlds in which something happens: no {missing}"]


@pytest.mark.parametrize(
    ("body", "found", "hangs"),
    [("sys.stdin.read()", "no answer within 1 s", 3), ("os._exit(1)", "the process died", 0)],
    ids=["hangs", "dies"],
)
def test_worker_that_does_not_answer_is_noticed(tmp_path: Path, body: str, found: str, hangs: int) -> None:
    """Neither a hang nor a death of a process ends the row or goes unnoticed."""
    row = told(tmp_path, body, patience=1.0 if hangs else 60.0)
    assert row.hangs == hangs
    assert sum(found in line for line in row.failures) == 3
