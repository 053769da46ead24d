"""Turns to write: one at a time among processes, nobody overtakes, and a stopped holder is passed by."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from backlite_async.stores.sqlite import locks
from backlite_async.stores.sqlite.locks import WriteTurn, shared_file, side_folder

HOLD = """
import sys, threading
from backlite_async.stores.sqlite.locks import WriteTurn
with WriteTurn(sys.argv[1]).taken(threading.Event()):
    print("has it", flush=True)
    sys.stdin.readline()
print("gave it", flush=True)
"""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes on without a turn because the machine is busy."""
    monkeypatch.setattr(locks, "TURN_LIMIT", 10.0)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "app.db").touch(0o640)
    found = side_folder(str(tmp_path / "app.db"))
    os.mkdir(found)
    return found


class Holder:
    """Another process that has the turn, as long as it is not told to give it up."""

    def __init__(self, folder: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.line() == "has it"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def give_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def test_files_have_the_mode_of_the_database(folder: str) -> None:
    """Who may use the database may use its locks, and nobody else."""
    turn = WriteTurn(folder)
    for name in ("queue.lock", "turn.lock"):
        assert os.stat(os.path.join(folder, name)).st_mode & 0o777 == 0o640
    turn.close()


def test_the_turn_is_waited_for(folder: str) -> None:
    """While another process has it nobody else does; it comes with its end."""
    turn, taken = WriteTurn(folder), threading.Event()

    def take() -> None:
        with turn.taken(threading.Event()):
            taken.set()

    with Holder(folder) as holder:
        waiting = threading.Thread(target=take)
        waiting.start()
        assert not taken.wait(0.05)
        holder.give_up()
        assert holder.line() == "gave it"
        assert taken.wait(30)
        waiting.join()
    turn.close()


def test_a_dead_holder_has_no_turn(folder: str) -> None:
    """The operating system takes it back, at once."""
    turn = WriteTurn(folder)
    with Holder(folder):
        pass
    began = time.monotonic()
    with turn.taken(threading.Event()):
        assert time.monotonic() - began < locks.TURN_LIMIT
    assert not turn._distrusted
    turn.close()


def test_a_stopped_holder_is_passed_by(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs its limit once; then others wait for less, until there is a turn again."""
    monkeypatch.setattr(locks, "TURN_LIMIT", 0.2)
    turn, take = WriteTurn(folder), WriteTurn._take
    limits, took = [], []

    def taking(turn: WriteTurn, limit: float, give_up: threading.Event) -> bool:
        began = time.monotonic()
        had = take(turn, limit, give_up)
        limits.append(limit)
        took.append(time.monotonic() - began)
        return had

    monkeypatch.setattr(WriteTurn, "_take", taking)
    with Holder(folder) as holder:
        holder.process.send_signal(signal.SIGSTOP)
        for _ in range(2):
            with turn.taken(threading.Event()):
                pass
        assert limits == [0.2, locks.SHORT_LIMIT]
        assert all(seconds >= limit for seconds, limit in zip(took, limits, strict=True))
        holder.process.send_signal(signal.SIGCONT)
        holder.give_up()
        assert holder.line() == "gave it"
    with turn.taken(threading.Event()):
        pass
    assert not turn._distrusted
    turn.close()


def test_giving_up_ends_the_waiting(folder: str) -> None:
    """Who is about to close does not wait for others."""
    turn, give_up = WriteTurn(folder), threading.Event()
    give_up.set()
    with Holder(folder):
        began = time.monotonic()
        with turn.taken(give_up):
            assert time.monotonic() - began < locks.TURN_LIMIT
    turn.close()


def test_whoever_waits_is_not_overtaken(folder: str) -> None:
    """Who has just had the turn gets it again after the one who waits."""
    first, second = WriteTurn(folder), WriteTurn(folder)  # as in two processes: files of their own
    order: list[str] = []
    waiting = threading.Event()

    class Told(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.set()
            return super().wait(timeout)

    def take() -> None:
        with second.taken(Told()):
            order.append("second")

    with first.taken(threading.Event()):
        thread = threading.Thread(target=take)
        thread.start()
        assert waiting.wait(30)  # it has the queue now, and looks for the turn
        order.append("first")
    with first.taken(threading.Event()):
        order.append("first again")
    thread.join()
    assert order == ["first", "second", "first again"]
    first.close()
    second.close()


def test_one_process_shares_what_belongs_to_one_file(folder: str, tmp_path: Path) -> None:
    """Whatever path leads to it; another file has locks of its own."""
    path = str(tmp_path / "app.db")
    os.symlink(path, tmp_path / "link.db")
    (tmp_path / "other.db").touch()
    shared = shared_file(path, folder)
    assert shared_file(str(tmp_path / "link.db"), folder) is shared
    assert shared_file(str(tmp_path / "other.db"), folder) is not shared
