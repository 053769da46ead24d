"""What the scenes of T15 are played on: processes, a clock that is set under them, and a ledger."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import signal
import struct
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .kit import Ledger, Missing, needs

__all__ = ["Events", "Stage", "Worker", "faketime"]

PROGRAM = Path(__file__).parent / "programs" / "t15_worker.py"
LIMIT = 60.0
"""Seconds after which a process that does not answer counts as hung."""

Events = list[dict[str, Any]]


def faketime() -> str:
    """Return the library that sets a process's clock, or raise `Missing`."""
    needs("faketime", "faketime")
    for folder in ("/usr/lib", "/usr/local/lib", "/opt"):
        for found in sorted(Path(folder).glob("**/libfaketimeMT*")):
            return str(found)
    raise Missing("needs libfaketimeMT: apt-get install faketime")


class Worker:
    """A process with a client. It answers one command at a time."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def ask(self, do: str, **arguments: Any) -> Any:
        """Have something done; return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        """Return its next line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            line = await self.process.stdout.readline()
        if not line:
            raise ChildProcessError(f"a process ended with {await self.process.wait()}")
        return json.loads(line)

    async def end(self) -> None:
        """Let it stop its client and exit."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(LIMIT):
            await self.process.wait()


class Stage:
    """A folder with a database and a ledger, processes, and the wall clock of all of them."""

    def __init__(self, library: str | None) -> None:
        self._library = library
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name)
        self._offset = self.path / "offset"
        self.workers: list[Worker] = []
        self.expected: Events = []
        if library is None:
            self._offset.write_bytes(bytes(8))
        self.set_clock(0.0)

    def set_clock(self, offset: float) -> None:
        """Set the wall clock of all processes, so many seconds from the true time."""
        self.offset = offset
        if self._library is None:
            with open(self._offset, "r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
                shared[:] = struct.pack("d", offset)
        else:
            new = self.path / "offset.new"
            new.write_text(f"{offset:+.3f}")
            new.rename(self._offset)

    async def start(self, workers: int) -> Worker:
        """Start a process with a client."""
        environment = dict(os.environ)
        if self._library is not None:
            environment |= {
                "LD_PRELOAD": self._library,
                "FAKETIME_TIMESTAMP_FILE": str(self._offset),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else every wait for the interpreter's lock spins
            }
        how = "clock" if self._library is None else "system"
        files = [self._offset, self.path / "app.db", self.path / "ledger"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *map(str, [PROGRAM, how, *files, workers]),
            env=environment,
            stdin=PIPE,
            stdout=PIPE,
        )
        worker = Worker(process)
        self.workers.append(worker)
        assert await worker.answer() == "ready"
        return worker

    def expect(self, job: str, **fields: Any) -> None:
        """Take note of when a run of a job is to begin: see `judge`."""
        self.expected.append({"what": "expect", "job": job, "run": 0, "after": None, "wall": None, **fields})

    def events(self) -> Events:
        """Return the ledger so far."""
        return Ledger.read(self.path / "ledger")

    async def until(self, what: str, *jobs: str, run: int = 0, limit: float = LIMIT) -> bool:
        """Wait until the ledger says something of these jobs, for the second time with `run=1`."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            said = [event["job"] for event in self.events() if what in (event["what"], event.get("event"))]
            if all(said.count(job) > run for job in jobs):
                return True
            await asyncio.sleep(0.02)
        return False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            if worker.process.returncode is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.process.kill()
            await worker.process.wait()
        self._folder.cleanup()
