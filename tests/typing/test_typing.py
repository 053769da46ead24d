"""Type checkers agree with the contract: right calls pass, and each marked line is an error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(path for path in HERE.glob("*.py") if path != Path(__file__))
MARK = re.compile(r"  # type: ignore\[([\w-]+)\]")

MARKED = {"calls.py": 69, "handlers.py": 23}
"""How many errors each file must have: a marker that gets lost is noticed."""

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def marked(path: Path) -> dict[int, str]:
    """Return the lines that must be errors, with mypy's code."""
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    return {number: found[1] for number, line in lines if (found := MARK.search(line))}


def bare(path: Path, folder: Path) -> Path:
    """Return a copy of a file without the ignore comments."""
    copy = folder / path.name
    copy.write_text(MARK.sub("", path.read_text(encoding="utf-8")), encoding="utf-8")
    return copy


def mypy(path: Path, folder: Path) -> tuple[dict[int, str], str]:
    """Run mypy as a user of the package would; return line and code of each error, and all it said."""
    if find_spec("mypy") is None:
        pytest.skip("NOT CHECKED: mypy is not installed (dependency group 'typing')")
    (folder / "mypy.ini").write_text("[mypy]\nstrict = True\n")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-pretty", str(path)]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    said = run.stdout + run.stderr
    assert run.returncode in (0, 1), said
    found = re.findall(r":(\d+): error: .*\[([\w-]+)\]$", said, re.MULTILINE)
    return {int(line): code for line, code in found}, said


def pyright(path: Path, folder: Path) -> tuple[dict[int, str], str]:
    """Run pyright as a user of the package would; return line and rule of each error, and all it said."""
    if find_spec("pyright") is None:
        pytest.skip("NOT CHECKED: pyright is not installed (dependency group 'typing')")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(path)]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    said = run.stdout + run.stderr
    assert run.returncode in (0, 1), said
    report = json.loads(run.stdout[run.stdout.index("{") :])
    assert report["summary"]["filesAnalyzed"] == 1, said
    return {
        found["range"]["start"]["line"] + 1: found["rule"]
        for found in report["generalDiagnostics"]
        if found["severity"] in ("error", "warning")
    }, said


@each_file
def test_every_file_has_its_errors_marked(path: Path) -> None:
    """The number of marked errors is the one that is expected."""
    assert len(marked(path)) == MARKED[path.name]


@each_file
def test_mypy_strict_finds_nothing_that_is_not_marked(path: Path, tmp_path: Path) -> None:
    """Right handlers and calls pass mypy --strict, and no marker is without its error."""
    found, said = mypy(path, tmp_path)
    assert found == {}, said


@each_file
def test_mypy_strict_finds_every_error(path: Path, tmp_path: Path) -> None:
    """Without the markers each marked line is an error of its code, and no other line is one."""
    found, said = mypy(bare(path, tmp_path), tmp_path)
    assert found == marked(path), said


@each_file
def test_pyright_finds_nothing_that_is_not_marked(path: Path, tmp_path: Path) -> None:
    """Right handlers and calls pass pyright, and no marker is without its error."""
    found, said = pyright(path, tmp_path)
    assert found == {}, said


@each_file
def test_pyright_finds_every_error(path: Path, tmp_path: Path) -> None:
    """Without the markers each marked line is an error, and no other line is one."""
    found, said = pyright(bare(path, tmp_path), tmp_path)
    assert set(found) == set(marked(path)), said
    assert set(found.values()) <= {"reportArgumentType", "reportCallIssue", "reportAttributeAccessIssue"}
