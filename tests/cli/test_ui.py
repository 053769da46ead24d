"""The page served alone: a real process, and real requests."""

from __future__ import annotations

import re
import signal
import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from .conftest import Run, start

pytest.importorskip("uvicorn", reason="the page alone needs uvicorn")
pytest.importorskip("starlette", reason="the page needs starlette")
pytest.importorskip("jinja2", reason="the page needs jinja2")

LIMIT = 30.0


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_the_page_is_served_until_interrupted(db: Path) -> None:
    """It says where, answers there, and ends quietly, its log apart."""
    process = start("ui", "--port", "0", "--read-only", "--db", db, cwd=db.parent)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert found, line
    with urllib.request.urlopen(found[0], timeout=LIMIT) as answer:
        assert answer.status == 200
        assert b"mail" in answer.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (130, "")
    logged = [line.split()[2:4] for line in err.splitlines() if line and "store.hazard" not in line]
    assert logged == [["INFO", "client.started"], ["INFO", "client.stopped"]]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_every_action_is_logged(db: Path) -> None:
    """On stderr, where nothing else is configured."""
    process = start("ui", "--port", "0", "--db", db, cwd=db.parent)
    assert process.stderr is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/", process.stderr.readline())
    assert found
    request = urllib.request.Request(f"{found[0]}queues/mail/pause", data=b"", method="POST")
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    [line] = [line for line in err.splitlines() if "page.action" in line]
    assert "mail" in line


def test_an_address_for_others_is_not_for_others(db: Path) -> None:
    """Which is said, as nobody could find out why they are refused."""
    process = start("ui", "--host", "0.0.0.0", "--port", "0", "--db", db, cwd=db.parent)
    assert process.stderr is not None
    assert "http://0.0.0.0:" in process.stderr.readline()
    assert "only this computer is let in" in process.stderr.readline()


def test_a_port_that_is_taken(db: Path, run: Run) -> None:
    """One line says which."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run("ui", "--port", port)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"Error: cannot listen on 127.0.0.1, port {port}: ")
    assert ran.err.count("\n") == 1
    assert run("ui", "--host", "no.such.host.invalid").code == 1


def test_an_older_schema_is_told_before_anything_is_served(tmp_path: Path, run: Run) -> None:
    """With the command that helps."""
    path = tmp_path / "empty.db"
    path.touch()
    ran = run("ui", "--db", path)
    assert ran.code == 1
    assert "run: backlite migrate" in ran.err
    assert path.stat().st_size == 0
