"""The examples do what they say, as a reader would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT = 60


def run(name: str, folder: Path) -> list[str]:
    """Run an example away from the checkout, every warning an error; return the lines it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        cwd=folder,
        env={"PATH": "", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(folder.iterdir()) == [], "an example cleans up behind itself"
    return done.stdout.splitlines()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_short(path: Path) -> None:
    """An example is read in one go: it has fewer than 60 lines, and says first what it shows."""
    text = path.read_text()
    assert len(text.splitlines()) < LIMIT
    assert text.startswith('"""')


def test_all_are_run() -> None:
    """No example is left without a test of what it does."""
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {
        "controlled.py", "fastapi_app.py", "nested_jobs.py", "quickstart.py", "scheduled_and_retried.py",
    }  # fmt: skip


def test_quickstart(tmp_path: Path) -> None:
    """Added jobs run in their order, a delayed one last, and the program ends by itself."""
    lines = run("quickstart.py", tmp_path)
    assert "stored 2 jobs" in lines
    assert [line for line in lines if line.startswith("to ")] == [
        "to ann@example.com: Hi (attempt 1 of 5)",
        "to bob@example.com: Hi (attempt 1 of 5)",
        "to ann@example.com: Last news (attempt 1 of 5)",
    ]
    assert lines[-1] == "stopped: every handler that was running has finished"


def test_nested_jobs(tmp_path: Path) -> None:
    """A handler's jobs run too, in threads if they are plain functions, and know their job."""
    first, *thumbnails = run("nested_jobs.py", tmp_path)
    assert first == "images: the album became 3 more jobs"
    assert sorted(line.split(" -> ")[0] for line in thumbnails) == ["beach.jpg", "hills.jpg", "river.jpg"]
    assert all(line.endswith("(attempt 1)") for line in thumbnails)


def test_scheduled_and_retried(tmp_path: Path) -> None:
    """Failures and Retry count as attempts, Snooze does not, Discard ends; all is told afterwards."""
    lines = run("scheduled_and_retried.py", tmp_path)
    attempts = [line for line in lines if ": attempt " in line]
    assert [line for line in attempts if line.startswith("shaky")] == [
        f"shaky: attempt {number} of 4" for number in (1, 2, 3)
    ]
    snoozed = [line for line in attempts if line.startswith("early")]
    assert len(snoozed) >= 2
    assert set(snoozed) == {"early: attempt 1 of 4"}
    for once in ("closed", "relative", "absolute"):
        assert attempts.count(f"{once}: attempt 1 of 4") == 1
    shaky, early, closed, relative, absolute = lines[-5:]
    assert shaky.startswith("succeeded in attempt 3, payload None")
    assert early == relative == absolute == "succeeded in attempt 1, payload None, error None"
    assert closed == (
        """failed in attempt 1, payload b'{"account":"closed"}', error 'the account is closed'"""
    )


def test_controlled(tmp_path: Path) -> None:
    """Equal jobs are one, a key's jobs take turns, priority comes first, and a running job is cancelled."""
    assert run("controlled.py", tmp_path) == [
        "bob clicked twice: one job",
        "sync: paused True, running 0",
        "eve, page 1, for support",
        "ann, page 1, for import",
        "bob, page 1, for click",
        "ann, page 2, for import",
        "asked to end: 1",
        "cancelled: cleaning up",
        "zoe-404 is cancelled",
    ]
