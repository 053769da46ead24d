"""Processes that use the library, forked quickly by a server that has imported it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["LIMIT", "Crew", "Late", "percentile", "until"]

LIMIT = 60.0
"""Seconds after which what should have happened has not: more than the busiest machine takes."""

PROGRAMS = Path(__file__).parent / "programs"


class Late(Exception):
    """Something did not happen within its limit: a hang."""


def until(condition: Callable[[], bool], limit: float, what: str) -> None:
    """Look at a condition until it holds; `Late` after so many seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise Late(f"{what}: not within {limit:g} s")
        time.sleep(0.005)


def percentile(values: Collection[float], share: float) -> float:
    """Return the value that this share of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Crew:
    """Starts processes with roles, kills them, and notices their ends. Nothing of it outlives the block."""

    def __init__(self, roles: str, errors: Path) -> None:
        self._errors = errors
        self.living: dict[int, str] = {}  # roles by pid
        self.statuses: dict[int, int] = {}  # exit statuses of those that have ended, by pid
        self._starting: list[str] = []
        self._forked: list[int] = []
        self._rest = b""
        with errors.open("wb") as stderr:
            self._server = subprocess.Popen(
                [sys.executable, str(PROGRAMS / "t04_crew.py"), roles],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        for pipe in (self._server.stdin, self._server.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    @property
    def complaints(self) -> str:
        """What the processes have written to their standard errors."""
        return self._errors.read_text(errors="replace").strip()

    def start(self, role: str, **arguments: Any) -> int:
        """Start a process; return its pid."""
        assert self._server.stdin is not None
        self._starting.append(role)
        self._server.stdin.write(json.dumps({"role": role, "with": arguments}).encode() + b"\n")
        self._server.stdin.flush()
        deadline = time.monotonic() + LIMIT
        while not self._forked:
            self.listen(deadline - time.monotonic())
            if time.monotonic() > deadline:
                raise Late(f"the server has not forked: {self.complaints}")
        return self._forked.pop()

    def listen(self, seconds: float) -> None:
        """Take note of what the server says within some seconds; return after the first news."""
        assert self._server.stdout is not None
        descriptor = self._server.stdout.fileno()
        if not select.select([descriptor], [], [], max(0.0, seconds))[0]:
            return
        chunk = os.read(descriptor, 65536)
        if not chunk:
            raise Late(f"the server has died: {self.complaints}")
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "forked" in message:
                self._forked.append(message["forked"])
                self.statuses.pop(message["forked"], None)
                self.living[message["forked"]] = self._starting.pop(0)
            else:
                del self.living[message["ended"]]
                self.statuses[message["ended"]] = message["status"]

    def of(self, *roles: str) -> list[int]:
        """Return the living processes of these roles."""
        return [pid for pid, role in self.living.items() if role in roles]

    def send(self, pids: Sequence[int], number: signal.Signals) -> None:
        """Send a signal to processes that live; of the end of one we may not have been told yet."""
        for pid in pids:
            if pid in self.living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def ended(self, pids: Collection[int], limit: float, what: str) -> None:
        """Wait for the ends of processes; `Late` after so many seconds."""
        deadline = time.monotonic() + limit
        while set(pids) & set(self.living):
            if time.monotonic() > deadline:
                raise Late(f"{what}: {len(set(pids) & set(self.living))} still live after {limit:g} s")
            self.listen(min(0.1, deadline - time.monotonic()))

    def dismiss(self, *roles: str, limit: float = LIMIT) -> list[int]:
        """Ask all of these roles to end, and wait for that; return the statuses that are not 0."""
        pids = self.of(*roles)
        self.send(pids, signal.SIGTERM)
        self.ended(pids, limit, f"{' and '.join(roles)} asked to stop")
        return [self.statuses[pid] for pid in pids if self.statuses[pid]]
