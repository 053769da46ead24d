"""What a person at a real terminal sees, and is asked."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backlite_async.cli._output import coloured

from .conftest import Ids, Run, start

if sys.platform == "win32":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

import pty
import select

LIMIT = 30.0
UNDRAWN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A process at a terminal of its own."""

    def __init__(self, cwd: Path, *arguments: object, **environment: str) -> None:
        self._controller, terminal = pty.openpty()
        self.process = start(
            *arguments,
            cwd=cwd,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            env={"TERM": "xterm", "COLUMNS": "200", "PYTHONIOENCODING": "utf-8", **environment},
        )
        os.close(terminal)
        self.screen = ""

    def until(self, text: str, *, times: int = 1) -> str:
        """Read until a text has appeared; return everything so far, as it came."""
        while UNDRAWN.sub("", self.screen).count(text) < times:
            assert select.select([self._controller], [], [], LIMIT)[0], f"no {text!r} in {self.screen!r}"
            chunk = self._read()
            assert chunk, f"no {text!r} in {self.screen!r}"
        return self.screen

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._controller, text.encode())

    def end(self) -> tuple[int, str]:
        """Read to the end; return the exit status and everything that came."""
        while self._read():
            pass
        return self.process.wait(LIMIT), self.screen

    def close(self) -> None:
        """Let go of it."""
        self.process.kill()
        self.process.wait()
        os.close(self._controller)

    def _read(self) -> str:
        try:
            chunk = os.read(self._controller, 65_536).decode(errors="replace")
        except OSError:  # Linux says so when the other side has been closed
            chunk = ""
        self.screen += chunk
        return chunk


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Open]:
    """Open terminals."""
    opened: list[Terminal] = []

    def open_(*arguments: object, **environment: str) -> Terminal:
        opened.append(Terminal(tmp_path, *arguments, **environment))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def test_a_person_is_asked_and_answers(db: Path, run: Run, terminal: Open) -> None:
    """With the number affected; no leaves everything, yes does it."""
    no = terminal("jobs", "delete", "--queue", "mail", "--state", "failed", "--db", db)
    no.until(
        "delete: 2 failed jobs. Steps of workflows among them stay: backlite workflow delete. Go on? [y/N]"
    )
    no.type("n\n")
    code, screen = no.end()
    assert code == 1
    assert "Nothing was done." in screen
    assert run("jobs", "count", "--state", "failed").out == "2\n"
    yes = terminal("jobs", "retry", "--queue", "mail", "--state", "failed", "--db", db)
    yes.until("retry: 2 failed jobs. Go on? [y/N]")
    yes.type("y\n")
    code, screen = yes.end()
    assert code == 0
    assert "retried: 2 jobs" in screen
    assert run("jobs", "count", "--state", "failed").out == "0\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_a_question(
    db: Path, run: Run, terminal: Open, number: signal.Signals, status: int
) -> None:
    """At once, and nothing is done."""
    asked = terminal("prune", "--db", db)
    asked.until("Go on? [y/N]")
    asked.process.send_signal(number)
    code, screen = asked.end()
    assert code == status
    assert "Traceback" not in screen
    assert run("jobs", "count", "--state", "failed").out == "2\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stats_are_drawn_again_and_again(
    db: Path, run: Run, terminal: Open, number: signal.Signals, status: int
) -> None:
    """In place, with what has changed; Ctrl-C ends it with 130, and SIGTERM in good order, too."""
    shown = terminal("stats", "--watch", "0.1", "--db", db)
    shown.until("Ctrl-C ends it", times=2)
    assert "\x1b[1A" in shown.screen or "\x1b[2K" in shown.screen  # it is drawn over
    assert "paused" not in shown.screen
    run("queues", "pause", "reports")
    screen = shown.until("paused")
    assert "\x1b[33m" in screen  # in its colour
    shown.process.send_signal(number)
    code, screen = shown.end()
    assert code == status
    assert "Traceback" not in screen


def test_without_colours(db: Path, terminal: Open) -> None:
    """Where they are not wanted there are none."""
    code, screen = terminal("jobs", "list", "--state", "failed", "--db", db, NO_COLOR="1").end()
    assert code == 0
    assert "failed" in screen
    assert not re.search(r"\x1b\[[0-9;]*3\dm", screen)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_when_there_are_colours(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: bool
) -> None:
    """At a terminal that can show them, unless they are not wanted."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert coloured() is expected
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert not coloured()


def test_colours_at_a_terminal_and_nothing_else_from_errors(
    db: Path, ids: Ids, run: Run, terminal: Open
) -> None:
    """States have theirs; escape sequences in errors are shown as text. JSON is what it is elsewhere."""
    code, screen = terminal("jobs", "show", ids.failed, "--db", db).end()
    assert code == 0
    assert "\x1b[31mfailed" in screen
    assert "\x1b[31m<nobody>" not in screen
    code, screen = terminal("jobs", "show", ids.failed, "--db", db, "--json").end()
    assert code == 0
    assert screen.replace("\r\n", "\n") == run("jobs", "show", ids.failed, "--json").out


def test_the_demo_shows_its_progress(tmp_path: Path, terminal: Open) -> None:
    """As one line that is drawn again and again."""
    code = tmp_path / "code"
    code.mkdir()
    for number in range(50):
        (code / f"module{number}.py").write_text("import os\n" * 200)
    status, screen = terminal("demo", code).end()
    assert status == 0
    assert f"{'█' * 40} 51 of 51 files" in screen


def test_watching_as_json_is_an_object_for_each_queue_each_time(db: Path) -> None:
    """Also where nobody watches; an interruption ends it quietly."""
    process = start("stats", "--watch", "0.1", "--db", db, "--json", cwd=db.parent)
    assert process.stdout is not None
    names = [json.loads(process.stdout.readline())["name"] for _ in range(4)]
    assert names == ["mail", "reports", "mail", "reports"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err.strip()) == (130, "")


def test_without_rich_there_are_plain_lines(db: Path, terminal: Open, tmp_path: Path) -> None:
    """Also at a terminal, where `--watch` writes lines."""
    (tmp_path / "none" / "rich").mkdir(parents=True)
    (tmp_path / "none" / "rich" / "__init__.py").write_text("raise ImportError('no rich here')\n")
    path = os.pathsep.join([str(tmp_path / "none"), os.environ.get("PYTHONPATH", "")])
    shown = terminal("stats", "--watch", "0.1", "--db", db, PYTHONPATH=path)
    shown.until("a_second=", times=2)
    shown.process.send_signal(signal.SIGINT)
    assert shown.end()[0] == 130
