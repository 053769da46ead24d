"""The short form of T8, and that it can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from . import t08_model as t08
from .chunks import Chunks
from .kit import Budget, Row


def told(tmp_path: Path, body: str) -> Row:
    """Run 60 examples with a program that answers as it is told."""
    program = tmp_path / "machines.py"
    program.write_text(f"import json, sys\nfor line in sys.stdin:\n    {body}\n")
    chunks = Chunks(program, t08.CHUNK, task=t08.task, patience=1.0, processes=2)
    return t08.run(Budget(0, least=60, most=60), chunks=chunks)


def test_stores_agree_with_the_model() -> None:
    """Some examples with seeds beyond those of the long form."""
    chunks = Chunks(t08.PROGRAM, t08.CHUNK, first=t08.CHUNK * 1_000_000, task=t08.task)
    row = t08.run(Budget(0, least=40, most=40), chunks=chunks)
    assert row.failures == []
    assert row.trials >= 40
    assert row.hangs == 0
    assert "steps of the sqlite store" in row.notes[0]
    assert "steps of the memory store" in row.notes[0]


def test_disagreement_is_named_with_its_seed(tmp_path: Path) -> None:
    """What disagrees is a failure that tells how to see it again."""
    answer = {"examples": 20, "steps": 9, "error": "AssertionError: 1 == 2"}
    row = told(tmp_path, f"print(json.dumps({answer!r}), flush=True)")
    assert row.trials == 60
    assert len(row.failures) == 3
    again = 'AssertionError: 1 == 2; to see it again: echo "sqlite 0 20" | python'
    assert any(line.startswith(again) for line in row.failures)


def test_store_that_takes_no_steps_is_no_success(tmp_path: Path) -> None:
    """A machine that does nothing shows nothing."""
    answer = {"examples": 20, "steps": 0, "error": None}
    row = told(tmp_path, f"print(json.dumps({answer!r}), flush=True)")
    assert row.failures == ["each store took steps"]


def test_dead_process_is_noticed(tmp_path: Path) -> None:
    """An example that kills its process is a failure."""
    row = told(tmp_path, "sys.exit(3)")
    assert any("the process died" in line for line in row.failures)


def test_program_finds_a_store_that_forgets(tmp_path: Path) -> None:
    """The machines notice a store that loses the second job of an operation."""
    script = tmp_path / "forgetful.py"
    script.write_text(
        f"import runpy\nfrom backlite_async.stores.memory import MemoryStore\n"
        f"add = MemoryStore.add\n"
        f"MemoryStore.add = lambda self, jobs, **how: add(self, jobs[:1], **how)\n"
        f"runpy.run_path({str(t08.PROGRAM)!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        input="memory 3 20\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "AssertionError" in json.loads(done.stdout)["error"]
