"""What is said wrongly, and what is not there: exit status, one line, a suggestion."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Ids, Run, start


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("jobs lst", 2, "there is no command 'lst'. Did you mean 'list'?"),
        ("job list", 2, "there is no command 'job'. Did you mean 'jobs'?"),
        ("frobnicate", 2, "there is no command 'frobnicate'."),
        ("jobs list --quue mail", 2, "--queue"),
        ("jobs list --state faild", 2, "Did you mean 'failed'?"),
        ("jobs list --queue mial", 3, "there is no queue 'mial'. Did you mean 'mail'?"),
        ("jobs count --queue mial", 3, "Did you mean 'mail'?"),
        ("jobs cancel --queue mial --yes", 3, "Did you mean 'mail'?"),
        ("jobs list --task Snd", 3, "there is no task type 'Snd'. Did you mean 'Send'?"),
        ("prune --queue mial --yes", 3, "Did you mean 'mail'?"),
        ("prune --state running", 2, "prune is for jobs that are succeeded, failed, cancelled"),
        ("queues show mial", 3, "Did you mean 'mail'?"),
        ("queues resume mial", 3, "Did you mean 'mail'?"),
        ("jobs show nothing", 3, "nothing"),
        ("workflow show nothing", 3, "there is no workflow 'nothing'"),
        ("task show Snd", 3, "Did you mean 'Send'?"),
        ("jobs list --added-after yesterday", 2, "no instant"),
        ("jobs list --added-after 1h --added-before 2h", 2, "swap them"),
        ("jobs list --limit 0", 2, "--limit"),
        ("jobs list --after abc", 2, "--after 'abc' is no cursor; give what the last page said"),
        ("jobs list --unique k", 2, "--unique is a key within a queue; give --queue, too"),
        ("jobs add Send --to x --copies abc", 2, "copies"),
        ("queues show mail --last 0", 2, "--last must lie between a minute"),
        ("prune --older-than soon", 2, "no length of time"),
        ("stats --watch 0", 2, "no length of time"),
        ("backup {db}", 1, "something is there"),
        ("completion tcsh", 2, "tcsh"),
    ],
)
def test_what_is_wrong_is_said(db: Path, run: Run, line: str, code: int, said: str) -> None:
    """Nothing is on stdout then, and no traceback on stderr."""
    ran = run(*line.format(db=db).split())
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_without_a_database(run: Run) -> None:
    """Both ways to say which are named."""
    for line in ("jobs list", "stats", "migrate", "doctor", "prune --yes", "ui", "task list"):
        ran = run(*line.split())
        assert ran.code == 2
        assert "--db PATH" in ran.err
        assert "BACKLITE_DB" in ran.err


def test_an_empty_path_is_not_another_database(db: Path, run: Run) -> None:
    """`--db "$UNSET"` must not act upon what BACKLITE_DB names."""
    for words in (
        ["--db", "", "jobs", "cancel", "--all", "--yes"],
        ["jobs", "cancel", "--all", "--yes", "--db="],
    ):
        ran = run(*words)
        assert ran.code == 2
        assert "--db is empty" in ran.err
    assert run("jobs", "count", "--state", "pending").out == "4\n"


def test_a_database_in_memory_is_nobody_elses(run: Run) -> None:
    """It is no file."""
    assert run("jobs", "list", "--db", ":memory:").code == 2
    assert run("migrate", "--db", "file:x?mode=memory").code == 2


def test_acting_makes_no_database(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only migrate does, and what an application says."""
    monkeypatch.chdir(tmp_path)
    for line in ("jobs cancel --all --yes", "queues pause mail --force", "backup copy.db", "doctor", "ui"):
        ran = run(*line.split(), "--db", "new.db")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("Error: there is no database 'new.db'.")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(tmp_path: Path, run: Run) -> None:
    """It is left as it is."""
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but long enough to be one" * 100)
    for line in ("jobs list", "migrate", "stats", "jobs cancel --all --yes"):
        ran = run(*line.split(), "--db", file)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("Error: database ")
        assert ran.err.count("\n") == 1
    assert file.read_text().startswith("not a database")


def test_a_closed_pipe_is_no_error_to_tell(db: Path, ids: Ids) -> None:
    """Whoever reads our output may have had enough."""
    process = start("stats", "--watch", "0.1", "--db", db, cwd=db.parent)
    assert process.stdout is not None
    assert process.stderr is not None
    for line in (process.stdout.readline(), process.stdout.readline()):
        assert "pending=4 " in line  # all queues in one
        assert "\x1b" not in line
    process.stdout.close()
    assert process.wait(20) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("words", [["jobs", "list"], ["demo", "."]])
def test_a_pipe_that_is_closed_already(db: Path, words: list[str]) -> None:
    """The same for an answer that is short, and for lines that are printed."""
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "backlite_async", *words, "--db", str(db)],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
        cwd=db.parent,
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
@pytest.mark.parametrize("words", [["jobs", "list", "--json"]])
def test_an_answer_that_cannot_be_written(db: Path, words: list[str]) -> None:
    """One line says why; an output that is closed is read by nobody, and needs no word."""
    command = shlex.join([sys.executable, "-P", "-m", "backlite_async", *words, "--db", str(db)])
    for redirected, expected in (
        ("> /dev/full", (1, b"Error: No space left on device\n")),
        (">&-", (0, b"")),
        ("<&- >&- 2>&-", (0, b"")),
    ):
        ran = subprocess.run(
            f"{command} {redirected}", shell=True, capture_output=True, check=False, timeout=60
        )
        assert (ran.returncode, ran.stderr) == expected


def test_an_answer_where_not_all_signs_can_be_shown(db: Path) -> None:
    """People get a sign in their place, programs UTF-8 all the same."""
    for more, expected in (((), b'{"to":"???"'), (("--json",), "éßø".encode())):
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "backlite_async", "jobs", "list", "--db", str(db), *more],
            capture_output=True,
            check=False,
            timeout=60,
            env={**os.environ, "PYTHONIOENCODING": "iso8859-5"},
        )
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert expected in ran.stdout
