"""The demo: killed and run again, it ends with every file counted once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("click", reason="the command line needs click")

FILES = 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of Python files, two of which cannot be parsed."""
    root = tmp_path / "code"
    for number in range(FILES):
        path = root / f"package{number % 3}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import os\n\nclass A:\n    def f(self): pass\n" * (number % 50 + 1))
    (root / "broken.py").write_text("def\n")
    (root / "encoded.py").write_bytes(b"# -*- coding: nothing -*-\n")
    return root


def demo(folder: Path, *more: str) -> subprocess.Popen[str]:
    """Start the demo beside the folder."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "backlite_async", "demo", str(folder), "--workers", "2", *more],
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(output: str, database: Path) -> None:
    """Check the result against the files."""
    assert "3 could not be parsed:" in output
    assert "backlite-demo.broken.py\n    SyntaxError: " in output
    total = next(line.split() for line in output.splitlines() if line.startswith("total"))
    repeated = sum(number % 50 + 1 for number in range(FILES))
    assert [int(figure.replace(",", "")) for figure in total[1:]] == [
        FILES,
        repeated * 4,
        repeated,
        repeated,
        repeated,
    ]
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM demo_files").fetchone() == (FILES + 3,)
        assert connection.execute("SELECT count(*) FROM backlite_jobs").fetchone() == (0,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_it_measures_every_file(folder: Path) -> None:
    """One run: the table, the files that fail, plain lines of progress; a second run says so."""
    output, errors = demo(folder).communicate(timeout=60)
    assert errors == ""
    check(output, folder.parent / "backlite-demo.db")
    assert f"{FILES + 3} jobs added" in output
    assert "\r" not in output
    again, errors = demo(folder).communicate(timeout=60)
    assert errors == ""
    assert f"going on with {FILES + 3} files" in again
    check(again, folder.parent / "backlite-demo.db")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_it_goes_on_where_it_was(folder: Path, how: signal.Signals) -> None:
    """Killed in the middle and run again, no file is lost and none counted twice."""
    process = demo(folder)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("  ") and not line.startswith("  0 "):
            break
    os.kill(process.pid, how)
    process.communicate(timeout=60)
    assert process.returncode in (-how, 130)
    output, errors = demo(folder).communicate(timeout=60)
    assert errors == ""
    assert f"going on with {FILES + 3} files" in output
    check(output, folder.parent / "backlite-demo.db")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A folder that is not there is an error with status 2."""
    process = demo(tmp_path / "nothing")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "nothing is not a folder" in errors


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_progress_bar(folder: Path) -> None:
    """On a terminal the progress is one line that is drawn again and again, up to the end."""
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "backlite_async", "demo", str(folder)],
        cwd=folder.parent,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    os.close(terminal)
    chunks = []
    try:
        while chunk := os.read(controller, 65536):
            chunks.append(chunk)
    except OSError:  # Linux says so when the other side has been closed
        pass
    assert process.wait(60) == 0
    os.close(controller)
    screen = b"".join(chunks).decode()
    assert "█" in screen
    assert f"\r  {'█' * 39}" in screen
    assert f"{'█' * 40} {FILES + 3:,} of {FILES + 3:,} files" in screen
