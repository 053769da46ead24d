"""Child processes of a row: their events come through one pipe, and none of them outlives the row."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Children", "Event", "Hang", "Wire", "doctored"]

Event = dict[str, Any]

_ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 600
"""Characters of one value in an event: only lines of up to 4,096 bytes reach a pipe in one piece."""

_START = """
import runpy, sys
import backlite_async  # the installed one: what is put on the path after this is for `tests` alone
sys.path.insert(0, sys.argv.pop(1))
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


class Hang(Exception):
    """Something did not happen within its limit."""


class Children:
    """Programs of `tests/torture/programs`, each in a process group of its own.

    `events` is what all of them have noted, in one order. `library` is put before everything else
    on their path: another copy of the library.
    """

    def __init__(self, *, library: Path | None = None) -> None:
        self.events: list[Event] = []
        self._library = library
        self._read, self._write = os.pipe()
        self._rest = b""
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            self.end(child)
        os.close(self._read)
        os.close(self._write)

    def start(self, program: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a program; its arguments begin with the number of the pipe."""
        path = _ROOT / "tests" / "torture" / "programs" / program
        environment = dict(os.environ)
        if self._library is not None:
            environment["PYTHONPATH"] = str(self._library)
        words = [str(path), str(self._write), *map(str, arguments)]
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, str(_ROOT), *words],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL if "TORTURE_STDERR" not in os.environ else None,
            pass_fds=[self._write],
            start_new_session=True,
            env=environment,
        )
        self._children.append(child)
        return child

    def end(self, child: subprocess.Popen[bytes]) -> None:
        """Kill a child and whatever it has forked; safe to repeat."""
        if child.stdin is not None and not child.stdin.closed:
            with contextlib.suppress(ProcessLookupError, BrokenPipeError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            with contextlib.suppress(ProcessLookupError, BrokenPipeError):
                child.stdin.close()

    def tell(self, child: subprocess.Popen[bytes], **command: object) -> None:
        """Send a command to a child, as one line."""
        assert child.stdin is not None
        with contextlib.suppress(ProcessLookupError, BrokenPipeError):
            child.stdin.write(json.dumps(command).encode() + b"\n")
            child.stdin.flush()

    def until(self, condition: Callable[[], object], limit: float, what: str) -> None:
        """Take in events until a condition holds; raises `Hang` after `limit` seconds without it."""
        deadline = time.monotonic() + limit
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise Hang(f"{what}: not within {limit:g} s")
            if select.select([self._read], [], [], min(left, 0.1))[0]:  # a child's end is no event
                self._take_in(os.read(self._read, 65536))

    def settle(self, seconds: float) -> None:
        """Take in events for some time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._read], [], [], left)[0]:
                self._take_in(os.read(self._read, 65536))

    def _take_in(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.events.extend(json.loads(line) for line in lines)


def doctored(folder: Path, module: str, old: str, new: str) -> Path:
    """Copy the library into a folder with one text of one module replaced, everywhere it occurs there.

    Raises ValueError if the text does not occur, so that no test goes on with a whole copy.
    """
    import backlite_async

    copy = folder / "backlite_async"
    shutil.copytree(Path(backlite_async.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / module).read_text(encoding="utf-8")
    if old not in text:
        raise ValueError(f"{module} does not say {old!r} any more: break the copy elsewhere")
    (copy / module).write_text(text.replace(old, new), encoding="utf-8")
    return folder


class Wire:
    """A child's end of the pipe."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def note(self, what: str, **fields: Any) -> None:
        """Tell the parent what has happened, in one write."""
        short = {
            name: value[:_LONGEST] if isinstance(value, str) else value for name, value in fields.items()
        }
        line = {"what": what, "pid": os.getpid(), "at": time.monotonic(), **short}
        os.write(self._pipe, json.dumps(line, default=str).encode() + b"\n")

    def tap(self) -> None:
        """Note everything that the library logs."""
        import structlog

        def forward(logger: Any, method: str, event: Any) -> Any:
            self.note(event.pop("event"), **event)
            raise structlog.DropEvent

        structlog.configure(processors=[forward])
