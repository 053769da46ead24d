"""A process whose database is taken away: `t18_victim.py FAULT MOMENT FOLDER` prints what it saw, as JSON.

MOMENT is what goes on at the time: `idle`, `running` (all workers busy, more jobs waiting), `adding`
or `adds only` (no workers).
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import faulthandler
import gc
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar

import structlog

from backlite_async import BackliteError, Client, JobContext, QueueConfig, Retention, Task

WORKERS = 2
LIMIT = 60.0
"""Seconds after which something that was waited for does not come any more."""

VISIT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=5.0)
connection.execute("CREATE TABLE IF NOT EXISTS visits (number INTEGER)")
connection.execute("INSERT INTO visits VALUES (1)")
connection.commit()
connection.close()
"""
"""Another process's visit: whoever closes a file last takes its write-ahead log away."""

STAY = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=5.0)
for _ in range(2):
    connection.execute("INSERT INTO visits VALUES (1)")
    connection.commit()
    print("wrote", flush=True)
    sys.stdin.read()
connection.close()
"""
"""Another process that stays, with a log of its own."""


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work", retention=Retention())
    held: bool = False


class Victim:
    """A client, and what becomes of it."""

    def __init__(self, folder: str, moment: str) -> None:
        self.folder = folder
        self.moment = moment
        self.database = os.path.join(folder, "app.db")
        self.loop = asyncio.get_running_loop()
        self.changed = asyncio.Event()
        self.release = asyncio.Event()
        self.started: list[str] = []
        self.succeeded: set[str] = set()
        self.saves: list[tuple[str, str]] = []
        self.said: list[tuple[str, float, str]] = []
        self.over = False
        self.guest: subprocess.Popen[bytes] | None = None
        structlog.configure(processors=[self.capture])
        workers = 0 if moment == "adds only" else WORKERS
        self.client = Client(self.database, workers=workers, busy_timeout=1.0, lease=5.0)
        self.client.register(Work, self.work)

    def capture(self, _logger: object, method: str, event: Any) -> Any:
        """Keep what the library logs: a processor of structlog."""
        if method in ("error", "critical"):
            self.said.append((event["event"], time.monotonic(), str(event.get("error", ""))))
        elif event["event"] == "job.succeeded":
            self.succeeded.add(event["job_id"])
        self.loop.call_soon_threadsafe(self.changed.set)
        raise structlog.DropEvent

    async def until(self, condition: Callable[[], bool], limit: float = LIMIT) -> bool:
        """Wait for a condition that changes with what is logged or started; return whether it came."""
        try:
            async with asyncio.timeout(limit):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return False
        return True

    async def work(self, task: Work, job: JobContext) -> None:
        self.started.append(job.id)
        self.changed.set()
        if task.held:
            await self.release.wait()

    async def save(self, *tasks: Work) -> str | None:
        """Try to add a job; keep what came of it."""
        try:
            async with asyncio.timeout(LIMIT):
                [job_id] = await self.client.add(*(tasks or (Work(),))).save()
        except BackliteError as error:
            self.saves.append(("refused", f"{type(error).__name__}: {error}"))
        except Exception as error:  # whatever else comes is a finding
            self.saves.append(("broke", f"{type(error).__name__}: {error}"))
        else:
            self.saves.append(("returned", job_id))
            return job_id
        return None

    async def add_on(self) -> None:
        """Add until something is wrong."""
        while not self.over and await self.save() is not None:
            await asyncio.sleep(0)

    async def prepare(self) -> None:
        """Bring about what is to go on when it happens."""
        first = await self.save()
        if self.moment != "adds only":
            await self.until(lambda: first in self.succeeded)
        if self.moment == "running":
            held = [await self.save(Work(held=True)) for _ in range(WORKERS)]
            await self.until(lambda: set(held) <= set(self.started))
            await self.save()
        self.saves.clear()

    async def suffer(self, fault: str) -> dict[str, Any]:
        """Let it happen; return what the client did then."""
        await self.client.start()
        await self.prepare()
        adding = [self.loop.create_task(self.add_on()) for _ in range(3 * (self.moment == "adding"))]
        await asyncio.sleep(0.05 * bool(adding))
        before = len(self.started), len(self.succeeded)
        self.saves.clear()
        extra = FAULTS[fault](self)
        at = time.monotonic()
        concurrent = len(adding)  # as many saves may have been on their way
        self.release.set()
        first = await self.save()
        self.client.notify()
        for _ in range(2):
            await self.save()
        if not fault.startswith(HARMLESS) and self.moment != "adds only":  # who only adds logs nothing
            await self.until(lambda: bool(self.said))
        elif first is not None and self.moment != "adds only":
            await self.until(lambda: first in self.succeeded)
        self.over = True
        await asyncio.wait([*adding, self.loop.create_task(asyncio.sleep(0))])
        stopping = time.monotonic()
        clean = await self.stop()
        if self.guest is not None:
            self.guest.communicate()
        return {
            "saves": self.saves,
            "concurrent": concurrent,
            "said": [(event, said - at, error) for event, said, error in self.said],
            "started": len(self.started) - before[0],
            "succeeded": len(self.succeeded) - before[1],
            "stopped": clean,
            "stop": time.monotonic() - stopping,
            "stopped_at": time.monotonic(),
            "child": extra,
        }

    async def stop(self) -> str:
        """Stop the client; return what it said."""
        try:
            async with asyncio.timeout(2 * LIMIT):
                return str(await self.client.stop(0.5))
        except BackliteError as error:
            return f"refused: {error}"
        except TimeoutError:
            return "never"


# -- what happens to the file --------------------------------------------------------------------------

HARMLESS = "fork"


def delete(victim: Victim) -> None:
    os.unlink(victim.database)


def delete_all(victim: Victim) -> None:
    for suffix in ("", "-wal", "-shm"):
        os.unlink(victim.database + suffix)


def move(victim: Victim) -> None:
    os.rename(victim.database, victim.database + ".old")


def replace(victim: Victim) -> None:
    """Rename a whole database of the same kind over it, as a restored backup would be."""
    other = os.path.join(victim.folder, "other.db")
    source, target = sqlite3.connect(victim.database), sqlite3.connect(other)
    source.backup(target)
    source.close()
    target.close()
    os.rename(other, victim.database)


def replace_by_text(victim: Victim) -> None:
    other = os.path.join(victim.folder, "other")
    with open(other, "w") as file:
        file.write("no database")
    os.rename(other, victim.database)


def remove_folder(victim: Victim) -> None:
    shutil.rmtree(victim.folder)


def open_and_close(victim: Victim) -> None:
    """Open and close the file, which drops SQLite's locks; then another process closes it last."""
    with open(victim.database, "rb") as file:
        file.read(16)
    subprocess.run([sys.executable, "-c", VISIT, victim.database], check=True)


def replace_log(victim: Victim) -> None:
    """The same, with another process that comes then, and stays."""
    open_and_close(victim)
    command = [sys.executable, "-c", STAY, victim.database]
    victim.guest = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert victim.guest.stdout is not None
    victim.guest.stdout.readline()


def second_library(victim: Victim) -> None:
    """Use a second copy of the SQLite library, which knows nothing of the first one's locks."""
    name = ctypes.util.find_library("sqlite3")
    if name is None:
        raise SystemExit("no second SQLite library")
    with open("/proc/self/maps") as maps:
        loaded = [line.split()[-1] for line in maps if "libsqlite3" in line]
    copy = victim.folder + "-library.so"
    shutil.copy(loaded[0] if loaded else name, copy)
    library = ctypes.CDLL(copy)
    handle = ctypes.c_void_p()
    assert library.sqlite3_open(victim.database.encode(), ctypes.byref(handle)) == 0
    assert library.sqlite3_exec(handle, b"SELECT count(*) FROM sqlite_schema", None, None, None) == 0
    assert library.sqlite3_close(handle) == 0
    subprocess.run([sys.executable, "-c", VISIT, victim.database], check=True)


def use_in_child(victim: Victim, write: int) -> None:
    """In a forked child: add, ask, collect what is not used any more."""
    signal.alarm(int(2 * LIMIT))  # a watchdog's thread would not be here
    structlog.configure(processors=[_drop])
    saves: list[str] = []

    async def use() -> None:
        for call in (victim.client.add(Work()).save, lambda: victim.client.status("x"), victim.client.start):
            try:
                async with asyncio.timeout(LIMIT / 2):
                    await call()
                saves.append("returned")
            except BackliteError as error:
                saves.append(f"refused: {error}")
            except Exception as error:  # whatever else comes is a finding
                saves.append(f"broke: {type(error).__name__}: {error}")

    asyncio.run(use())
    victim.client.notify()
    del victim.client
    gc.collect()
    os.write(write, json.dumps(saves).encode())


def _drop(_logger: object, _method: str, _event: Any) -> Any:
    raise structlog.DropEvent


def fork(victim: Victim) -> list[str]:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            use_in_child(victim, write)
        finally:
            os._exit(0)
    os.close(write)
    return _child_said(victim, read, lambda: os.waitpid(child, 0))


def fork_by_multiprocessing(victim: Victim) -> list[str]:
    read, write = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=use_in_child, args=(victim, write))
    process.start()
    os.close(write)
    return _child_said(victim, read, process.join)


def _child_said(victim: Victim, read: int, wait: Callable[[], object]) -> list[str]:
    with os.fdopen(read, "rb") as pipe:
        said: list[str] = json.loads(pipe.read() or b'["broke: the child died"]')
    wait()
    subprocess.run([sys.executable, "-c", VISIT, victim.database], check=True)
    return said


FAULTS: dict[str, Callable[[Victim], Any]] = {
    "deleted": delete,
    "all deleted": delete_all,
    "moved": move,
    "replaced": replace,
    "replaced by text": replace_by_text,
    "folder removed": remove_folder,
    "opened and closed": open_and_close,
    "log replaced": replace_log,
    "second library": second_library,
    "fork": fork,
    "fork by multiprocessing": fork_by_multiprocessing,
}


async def main(fault: str, moment: str, folder: str) -> None:
    print(json.dumps(await Victim(folder, moment).suffer(fault)))


if __name__ == "__main__":
    faulthandler.dump_traceback_later(240.0, exit=True)
    asyncio.run(main(*sys.argv[1:]))
