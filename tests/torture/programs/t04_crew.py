"""Forks processes that play the roles of a module, which it imports once.

No event loop, client or thread lives here, so that a child is as good as a fresh process and begins
within milliseconds. Commands come as lines of JSON on standard input: `{"role": ..., "with": {...}}`.
Lines on standard output say what became of them: `{"forked": pid}`, `{"ended": pid, "status": code}`.
At the end of the input all children are killed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

Role = Callable[..., Coroutine[Any, Any, None]]


def say(**message: Any) -> None:
    """Write a line in one go."""
    os.write(1, json.dumps(message).encode() + b"\n")


async def play(role: Role, arguments: dict[str, Any]) -> None:
    """Play a role until it ends; SIGTERM asks it to."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    await role(stop, **arguments)


def child(role: Role, arguments: dict[str, Any]) -> None:
    """Be a process with a role, and nothing of the parent's."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 1
    try:
        asyncio.run(play(role, arguments))
        status = 0
    except BaseException:  # a child must never go on in the parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def fork(role: Role, arguments: dict[str, Any]) -> int:
    """Fork a child; return its pid."""
    pid = os.fork()
    if pid == 0:
        child(role, arguments)
    return pid


class Server:
    """Takes commands and notices ends."""

    def __init__(self, roles: dict[str, Role]) -> None:
        self._roles = roles
        self._living: dict[int, int] = {}  # pids by their descriptors
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._rest = b""

    def run(self) -> None:
        """Serve until the input ends."""
        try:
            while True:
                for descriptor, _ in self._poll.poll():
                    if descriptor:
                        self._bury(descriptor)
                    elif not self._read():
                        return
        finally:
            for pid in self._living.values():
                os.kill(pid, signal.SIGKILL)

    def _read(self) -> bool:
        chunk = os.read(0, 65536)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            command = json.loads(line)
            pid = fork(self._roles[command["role"]], command["with"])
            descriptor = os.pidfd_open(pid)
            self._living[descriptor] = pid
            self._poll.register(descriptor, select.POLLIN)
            say(forked=pid)
        return bool(chunk)

    def _bury(self, descriptor: int) -> None:
        pid = self._living.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        say(ended=pid, status=os.waitstatus_to_exitcode(status))


LATER = (
    "anyio._backends._asyncio",
    "backlite_async.stores.sqlite.store",
    "importlib.resources.readers",
    "zipfile",
)
"""What a client imports when it starts: that is no child's work either."""


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until a child listens to it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in LATER:
        importlib.import_module(module)
    Server(importlib.import_module(sys.argv[1]).ROLES).run()  # a neighbour of this file
