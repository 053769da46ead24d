"""Forks one process per trial out of a process that has imported everything.

Reads one command a line: which function of which module beside this one to await, with which
arguments, and whether to wait for a line first (so that a tracer can attach). Answers with the new
process's pid, then with its exit code. What a trial writes to its standard output goes between.

    python t01_server.py LIBRARY_FOLDER MODULE...

Each module has a `rehearse(database, ledger)`, which does once what its lives do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any

SET_DEATH_SIGNAL, SET_TRACER, ANYBODY = 1, 0x59616D61, ctypes.c_ulong(-1)

REHEARSAL_SECONDS = 15
"""A library that hangs is found out by the trials."""

libc = ctypes.CDLL(None)


def line() -> bytes:
    """Read one line from standard input, and nothing beyond it: a fork may want the next one."""
    found = bytearray()
    while not found.endswith(b"\n"):
        more = os.read(0, 1)
        if not more:
            return b""
        found += more
    return bytes(found)


def say(**fields: Any) -> None:
    """Write one line to standard output."""
    os.write(1, json.dumps(fields).encode() + b"\n")


def live(command: dict[str, Any]) -> None:
    """Be the process of one trial; it ends with its server."""
    code = 1
    try:
        libc.prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
        libc.prctl(SET_TRACER, ANYBODY)
        if command["wait"] and not line():
            return
        module, function = command["life"].split(":")
        asyncio.run(getattr(sys.modules[module], function)(**command["arguments"]))
        code = 0
    except BaseException:  # whatever it was, the process ends here and tells why
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def rehearse(module: Any) -> None:
    """Import what a life imports while it lives, so that no life has to do it again.

    Another process finds out what that is: here nothing may run that a fork would break.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc.prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
        signal.alarm(REHEARSAL_SECONDS)
        os.close(reader)
        asyncio.run(module.rehearse("rehearsal.db", "rehearsal"))
        with os.fdopen(writer, "w") as answer:
            answer.write(" ".join(sys.modules))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        found = answer.read().split()
    os.waitpid(pid, 0)
    for name in found:
        if name not in sys.modules:
            with contextlib.suppress(ImportError):  # not all that has a name can be asked for by it
                importlib.import_module(name)


def serve() -> None:
    """Do one command after another until there are no more."""
    say(ready=True)
    while text := line():
        command = json.loads(text)
        pid = os.fork()
        if pid == 0:
            live(command)
        say(pid=pid)
        _, status = os.waitpid(pid, 0)
        say(end=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    libc.prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
    library, *modules = sys.argv[1:]
    sys.path.insert(1, library)
    for module in [importlib.import_module(name) for name in modules]:
        rehearse(module)
    gc.freeze()
    serve()
