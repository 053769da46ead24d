"""The doorbell: a byte wakes the others at once, the end of a stream tells of a death."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import anyio
import pytest

from backlite_async.stores.sqlite import doorbell as module
from backlite_async.stores.sqlite.doorbell import Doorbell
from backlite_async.stores.sqlite.owners import socket_name
from tests.conftest import LIMIT

PROCESS = """
import asyncio, sys
from backlite_async.stores.sqlite.doorbell import Doorbell

async def main() -> None:
    folder, name, other = sys.argv[1:]
    told = asyncio.Event()
    bell = Doorbell(folder, name, rung=lambda: print("rung", flush=True), gone=lambda: None)
    bell.connect([other])
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line == "ring\\n":
            bell.ring()

asyncio.run(main())
"""


class Other:
    """Another process with a doorbell."""

    def __init__(self, folder: str, name: str, other: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, folder, name, other],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def __aenter__(self) -> Self:
        assert await self.line() == "ready"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    async def line(self) -> str:
        assert self.process.stdout is not None
        with anyio.fail_after(LIMIT):
            return (
                await anyio.to_thread.run_sync(self.process.stdout.readline, abandon_on_cancel=True)
            ).strip()

    def tell(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()


class Bell:
    """A doorbell of this process, and what it has told."""

    def __init__(self, folder: str, name: str = "mine") -> None:
        self.rung, self.gone = asyncio.Event(), asyncio.Event()
        self.bell = Doorbell(folder, name, rung=self.rung.set, gone=self.gone.set)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bell.detach()
        self.bell.close(keep=False)

    async def heard(self) -> None:
        with anyio.fail_after(LIMIT):
            await self.rung.wait()
        self.rung.clear()


@pytest.fixture(params=["short", "long"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, also one whose sockets have paths longer than any system takes."""
    found = tmp_path if request.param == "short" else tmp_path / ("x" * 100)
    found.mkdir(exist_ok=True)
    return str(found)


async def test_both_ways(folder: str) -> None:
    """Who connects rings and is rung; also from a thread."""
    with Bell(folder) as bell:
        async with Other(folder, "other", "mine") as other:
            other.tell("ring")
            await bell.heard()
            bell.bell.ring()
            assert await other.line() == "rung"
            thread = threading.Thread(target=bell.bell.ring)
            thread.start()
            assert await other.line() == "rung"
            thread.join()
    assert os.listdir(folder) == [socket_name("other")]  # which was killed


async def test_an_end_of_stream_tells_of_a_death_and_of_jobs(folder: str) -> None:
    """Who died may have added something before it could ring."""
    with Bell(folder) as bell:
        async with Other(folder, "other", "mine") as other:
            other.tell("ring")
            await bell.heard()
            assert not bell.gone.is_set()
        with anyio.fail_after(LIMIT):
            await bell.gone.wait()
        await bell.heard()
        bell.bell.connect(["other", "nobody"])  # refused, and no trouble
        bell.bell.ring()


async def test_who_does_not_listen_blocks_nobody(folder: str) -> None:
    """A stopped process has rings enough to read when it goes on."""
    with Bell(folder) as bell:
        async with Other(folder, "other", "mine") as other:
            other.tell("ring")
            await bell.heard()
            other.process.send_signal(signal.SIGSTOP)
            for _ in range(100_000):
                bell.bell.ring()
            other.process.send_signal(signal.SIGCONT)
            assert await other.line() == "rung"


async def test_two_that_start_at_once_are_connected(folder: str) -> None:
    """Each listens before it looks for others, so that at least one finds the other."""
    with Bell(folder, "a") as first, Bell(folder, "b") as second:
        first.bell.connect(["b"])
        second.bell.connect(["a"])
        first.bell.connect(["b"])  # which it is already
        first.bell.ring()
        await second.heard()
        second.bell.ring()
        await first.heard()


async def test_a_detached_bell_is_silent_and_looks_alive(folder: str) -> None:
    """Its loop is about to end; the others learn of its end when it is closed."""
    with Bell(folder, "a") as first, Bell(folder, "b") as second:
        first.bell.connect(["b"])
        first.bell.ring()
        await second.heard()
        first.bell.detach()
        second.bell.ring()
        first.bell.close(keep=True)
        with anyio.fail_after(LIMIT):
            await second.gone.wait()
        assert not first.rung.is_set()


async def test_without_descriptors_it_rests(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that cannot be accepted is not a reason to spin; it is accepted later."""
    monkeypatch.setattr(module, "ACCEPT_PAUSE", 0.05)
    calls = []
    with Bell(folder, "a") as first, Bell(folder, "b") as second:
        listener = first.bell._listener

        class Exhausted:
            """A socket that cannot accept, twice."""

            def fileno(self) -> int:
                return listener.fileno()

            def accept(self) -> object:
                calls.append(1)
                if len(calls) < 3:
                    raise OSError(24, "Too many open files")
                return listener.accept()

            def close(self) -> None:
                listener.close()

        monkeypatch.setattr(first.bell, "_listener", Exhausted())
        second.bell.connect(["a"])
        second.bell.ring()
        await first.heard()
        assert 3 <= len(calls) <= 5
