"""Fresh processes under strace: quick to make, made to die or to fail at the n-th system call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import backlite_async

from .kit import Ledger, Missing, needs

__all__ = [
    "LANES",
    "LIMIT",
    "Bench",
    "Hung",
    "copied",
    "counted",
    "files",
    "in_turns",
    "lanes",
    "note",
    "share",
]

T = TypeVar("T")

LIMIT = 60.0
"""Seconds after which a process that has not said anything hangs."""

LANES = 4
"""Benches at once: more than processors, because they also wait."""

PROGRAMS = Path(__file__).parent / "programs"
SERVER = PROGRAMS / "t01_server.py"


class Hung(Exception):
    """A process did not do what was waited for; it has been killed."""


class Bench:
    """One process at a time, forked from a server that has imported everything, perhaps traced."""

    def __init__(self, server: asyncio.subprocess.Process, errors: Path, limit: float) -> None:
        self._server = server
        self._errors = errors
        self._limit = limit
        self._tracer: asyncio.subprocess.Process | None = None
        self.pid = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, module: str, library: str | None = None, limit: float = LIMIT
    ) -> AsyncIterator[Bench]:
        """Start a server with a module of the programs; afterwards kill all that is left of it.

        `library`: the folder to import it from, if not the one that this process has.
        """
        needs("strace", "strace")
        library = library or str(Path(backlite_async.__file__).parents[1])
        with tempfile.TemporaryDirectory() as folder:
            errors = Path(folder, "errors")
            file = os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                server = await asyncio.create_subprocess_exec(
                    *(sys.executable, str(SERVER), library, module),
                    cwd=folder,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=file,
                )
            finally:
                os.close(file)
            bench = cls(server, errors, LIMIT)
            try:
                await bench.said()  # it has imported everything
                bench._limit = limit
                yield bench
            finally:
                await bench._end_all()

    async def _end_all(self) -> None:
        if self._tracer is not None and self._tracer.returncode is None:
            self._tracer.kill()
            await self._tracer.wait()
        if self._server.returncode is None:
            self._server.kill()  # what it has forked dies with it
            await self._server.wait()

    async def begin(self, life: str, *, strace: Sequence[str] | None = None, **arguments: Any) -> int:
        """Start a life, `module:function`, with arguments; under strace if options for it are given."""
        command = {"life": life, "wait": strace is not None, "arguments": arguments}
        self.tell(json.dumps(command))
        self.pid = int((await self.said(LIMIT))["pid"])
        if strace is not None:
            self._tracer = await asyncio.create_subprocess_exec(
                *("strace", "-f", "-p", str(self.pid), *strace), stderr=asyncio.subprocess.PIPE
            )
            assert self._tracer.stderr is not None
            answer = (await asyncio.wait_for(self._tracer.stderr.readline(), LIMIT)).decode()
            if "attached" not in answer:
                raise Missing(f"needs strace that may trace: {answer.strip()}")
            self.tell("go")
        return self.pid

    def tell(self, line: str) -> None:
        """Send a line to the life's standard input."""
        assert self._server.stdin is not None
        self._server.stdin.write(line.encode() + b"\n")

    async def said(self, limit: float | None = None) -> dict[str, Any]:
        """Return the next line of standard output; a life that says nothing for too long is killed."""
        assert self._server.stdout is not None
        try:
            line = await asyncio.wait_for(self._server.stdout.readline(), limit or self._limit)
        except TimeoutError:
            await self.kill()
            raise Hung from None
        if not line:
            raise RuntimeError(f"the server has ended: {self.errors()}")
        found: dict[str, Any] = json.loads(line)
        return found

    async def ended(self, limit: float | None = None) -> int:
        """Wait for the life's end; return its exit code, or the negative number of what killed it."""
        while "end" not in (answer := await self.said(limit)):
            pass
        self.pid = 0
        await self._traced_no_more()
        return int(answer["end"])

    async def kill(self) -> None:
        """Kill the life, and wait until it is gone."""
        if not self.pid:
            raise RuntimeError(f"the server does not answer: {self.errors()}")
        os.kill(self.pid, signal.SIGKILL)  # not yet waited for by its server, so still this process
        await self.ended(LIMIT)

    async def release(self) -> None:
        """Trace no more: the life goes on as if it had never been traced."""
        if self._tracer is not None and self._tracer.returncode is None:
            self._tracer.terminate()
        await self._traced_no_more()

    async def _traced_no_more(self) -> None:
        if self._tracer is not None:
            await asyncio.wait_for(self._tracer.communicate(), LIMIT)
            self._tracer = None

    def errors(self) -> str:
        """Return the end of what the lives so far wrote to standard error."""
        return self._errors.read_text(errors="replace")[-300:].strip().replace("\n", " | ")


def counted(log: Path) -> dict[str, int]:
    """Return from a log of strace how often a thread made each system call, at most.

    strace counts calls thread by thread, so this is the last number of that call that can be hit.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for line in log.read_text().splitlines():
        thread, _, rest = line.partition(" ")
        call, opened, _ = rest.strip().partition("(")
        if opened and call.isidentifier():
            counts[thread, call] += 1
    most: dict[str, int] = {}
    for (_, call), count in counts.items():
        most[call] = max(count, most.get(call, 0))
    return most


@contextlib.asynccontextmanager
async def lanes(
    module: str, library: str | None, limit: float = LIMIT, *, count: int = LANES
) -> AsyncIterator[list[Bench]]:
    """Open so many benches."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [stack.enter_async_context(Bench.opened(module, library, limit)) for _ in range(count)]
        benches: list[Bench] = []
        for bench in await asyncio.gather(*opened, return_exceptions=True):  # all, so that each is closed
            if isinstance(bench, BaseException):
                raise bench
            benches.append(bench)
        yield benches


async def share(benches: Sequence[Bench], tasks: Iterable[Callable[[Bench], Awaitable[object]]]) -> None:
    """Do all of this, each on a bench, as much at once as there are benches; raise what one raises."""
    waiting = deque(tasks)

    async def lane(bench: Bench) -> None:
        while waiting:
            await waiting.popleft()(bench)

    try:
        async with asyncio.TaskGroup() as group:
            for bench in benches:
                group.create_task(lane(bench))
    except BaseExceptionGroup as raised:
        raise raised.exceptions[0] from None


def in_turns(items: Iterable[T], kind: Callable[[T], object]) -> list[T]:
    """Return items so that each kind has its turn: the first of every kind, the second of every kind, ..."""
    seen: Counter[object] = Counter()
    numbered = []
    for item in items:
        seen[kind(item)] += 1
        numbered.append((seen[kind(item)], item))
    return [item for _, item in sorted(numbered, key=lambda pair: pair[0])]


def copied(source: Path, target: Path) -> None:
    """Copy what a life has left; not sockets, which nobody listens to any more."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock"), dirs_exist_ok=True)


def files(folder: Path) -> dict[str, str]:
    """Return the arguments of every life: where its database and its ledger are."""
    return {"database": str(folder / "app.db"), "ledger": str(folder / "ledger")}


def note(folder: Path, what: str, **fields: object) -> None:
    """Add a line to the ledger in a folder."""
    ledger = Ledger(folder / "ledger")
    ledger.note(what, **fields)
    ledger.close()
