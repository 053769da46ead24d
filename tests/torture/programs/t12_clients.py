"""Stops clients at random times while the zoo runs, and prints what that has left behind.

Run with a folder for its files, a loop ("asyncio" or "uvloop"), a seed, the number of trials (0: as
many as fit) and the seconds it may take.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NoReturn

import backlite_async  # before the checkout is on the path: what is tested may be another copy

sys.path.insert(0, str(Path(__file__).parents[3]))

from backlite_async import Client, InvalidState
from tests.torture.kit import Ledger, audit, intact
from tests.torture.programs.t12_zoo import STEADY, Zoo

GRACE = 3.5
"""Seconds that a stop may take beyond its limit; whether the machine was the reason is not known here."""

PATIENCE = 60.0
"""Seconds after which something has hung."""

SOON = 10.0
"""Seconds in which what ends by itself has ended: after a first problem it is not waited for that long."""

CALM = 30.0
"""Seconds in which a stop ends where every handler does."""

TOO_MANY = 5
"""Problems after which nothing more is tried."""

GROUP = 5
"""Trials on one file; then everything must drain."""

OTHERS = ("AnyIO worker thread", "asyncio_", "uvloop_", "MainThread")
"""Threads that are not the library's, or that rest between two calls."""


def say(**fields: Any) -> None:
    """Print a line that outlives this process."""
    os.write(1, json.dumps(fields).encode() + b"\n")


async def spin(steps: int) -> None:
    """Let the event loop go round so many times."""
    for _ in range(steps):
        await asyncio.sleep(0)


def hung(where: str) -> NoReturn:
    """Tell what hangs, and end: nothing more can be learned in this process."""
    say(hang=where, tasks=[repr(task) for task in asyncio.all_tasks()])
    faulthandler.dump_traceback()
    os._exit(3)


class Group:
    """Some trials on one file, and what they found."""

    def __init__(self, folder: str, number: int, choice: random.Random, *, gentle: bool = False) -> None:
        self.file = os.path.join(folder, f"{number}.db")
        self.journal = os.path.join(folder, f"{number}.ledger")
        self.choice = choice
        self.lock_times = [0.2] if gentle else [0.2, 0.2, 0.2, 1.5, 1.5, 4.5]
        self.ledger = Ledger(self.journal)
        self.zoo = Zoo(self.ledger, choice)
        self.problems: list[str] = []
        self.overrun = self.drained_in = 0.0
        self.trials = self.leaks = self.stuck = self.lies = self.alarms = 0
        self.where = ""
        self.late: list[tuple[str, float, float]] = []  # stops: their limit, and when they had ended
        self._tasks: set[asyncio.Task[Any]] = set()
        self._told: set[object] = set()  # tasks and threads that were left behind, and told of
        self._lock: sqlite3.Connection | None = None

    @property
    def patience(self) -> float:
        """For how long to wait for what ends by itself."""
        return 1.0 if self.problems else SOON

    def problem(self, what: str) -> None:
        """Take note of something that must not be."""
        self.problems.append(f"{self.where}: {what}")

    def client(self, **options: Any) -> Client:
        """Return a client of the file with the zoo behind it."""
        client = Client(self.file, **options)
        self.zoo.register(client)
        return client

    def query(self, sql: str) -> list[Any]:
        """Ask as another connection."""
        with closing(sqlite3.connect(self.file)) as other:
            return other.execute(sql).fetchall()

    def running(self) -> set[str]:
        """Return the jobs that are claimed."""
        return {row[0] for row in self.query("SELECT id FROM backlite_jobs WHERE status = 'running'")}

    async def until(self, held: Callable[[], bool], limit: float) -> bool:
        """Wait for a condition, which nothing tells of; return whether it came true."""
        deadline = time.monotonic() + limit
        while not held():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.002)
        return True

    async def prepare(self) -> None:
        """Make the database, with a table of our own."""
        await self.client(workers=0).install()
        with closing(sqlite3.connect(self.file)) as other:
            other.execute("CREATE TABLE effects (job TEXT)")

    # -- one trial ---------------------------------------------------------------------------------

    async def trial(self, number: int) -> None:
        """Start, let the zoo run for a while, stop, and look at what is left."""
        choice, zoo = self.choice, self.zoo
        zoo.calm = False
        zoo.opened.clear()
        self._tasks = asyncio.all_tasks()
        limit = choice.choice([0.0, 0.0, choice.uniform(0, 0.3), 0.5, None])
        how = choice.choice(["stop", "stop", "twice", "cancelled", "async with", "while it starts"])
        locked = choice.random() < 0.1
        self.where = f"trial {number} (limit {limit}, {how}{', locked' if locked else ''})"
        client = self.client(
            workers=choice.randint(1, 8), threads=2, lease=choice.choice([1.0, 30.0]), stop_timeout=limit
        )
        starting = asyncio.ensure_future(client.start())
        await (spin(choice.randint(1, 40)) if how == "while it starts" else starting)
        adders = [asyncio.ensure_future(self._add(client)) for _ in range(2)]
        if how != "while it starts":
            await asyncio.sleep(choice.choice([0, choice.uniform(0, 0.12)]))
        if limit is None:  # what does not end by itself has to be told to
            asyncio.get_running_loop().call_later(0.2, zoo.opened.set)
        if locked:
            await self._take_lock(choice.choice(self.lock_times))
        zoo.cut.clear()
        began = time.monotonic()
        clean = await self._stop(client, how, limit)
        took = time.monotonic() - began
        if limit is not None:
            self.overrun = max(self.overrun, took - limit)
            if took - limit > GRACE:
                self.late.append((self.where, began + limit, began + took))
        await self._look(clean=clean, locked=locked)
        if zoo.alive and choice.random() < 0.5:
            await self._start_beside(client)
        await self._release()
        await asyncio.wait([*adders, starting])
        if (error := starting.exception()) and not isinstance(error, InvalidState):
            self.problem(f"start raised {error!r}")
        self.trials += 1

    async def _add(self, client: Client) -> None:
        for _ in range(self.choice.randint(1, 12)):
            if not await self.zoo.add(client):
                return
            await asyncio.sleep(self.choice.uniform(0, 0.004))

    async def _take_lock(self, seconds: float) -> None:
        """Keep everybody else from writing for a while."""
        lock = sqlite3.connect(self.file, isolation_level=None, check_same_thread=False, timeout=PATIENCE)
        await asyncio.to_thread(lock.execute, "BEGIN IMMEDIATE")
        self._lock = lock
        asyncio.get_running_loop().call_later(seconds, self._unlock)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _stop(self, client: Client, how: str, limit: float | None) -> bool:
        """Stop in one of several ways; return what `stop` has said."""
        stopping = asyncio.ensure_future(self._stop_somehow(client, how, limit))
        done, _ = await asyncio.wait([stopping], timeout=PATIENCE)
        if not done:
            hung(self.where)
        return stopping.result()

    async def _stop_somehow(self, client: Client, how: str, limit: float | None) -> bool:
        if how == "twice":
            later = None if limit is None else limit + 5
            first, second = await asyncio.gather(client.stop(later), client.stop(limit))
            if first is not second:
                self.problem(f"one stop says {first}, the other {second}")
            return second
        if how == "cancelled":
            with suppress(TimeoutError):
                async with asyncio.timeout(self.choice.uniform(0, 0.02)):
                    return await client.stop(limit)
        elif how == "async with":
            await client.__aexit__(None, None, None)
        return await client.stop(limit)

    # -- what is left ------------------------------------------------------------------------------

    async def _look(self, *, clean: bool, locked: bool) -> None:
        """Compare what `stop` has said with what is running, claimed, and left."""
        zoo = self.zoo
        claimed = self.running()
        cut, alive = set(zoo.cut), set(zoo.alive)
        if clean and (cut or alive):
            self.lies += 1
            self.problem(f"stop says True; cut short: {cut}, running: {alive}")
        if uncancelled := alive & zoo.obedient:
            self.problem(f"not cancelled at the limit: {uncancelled}")
        if not clean and not cut and not alive and not locked:
            self.alarms += 1
        if locked:
            await self.until(lambda: self._lock is None, PATIENCE)
            if unwritten := claimed - alive:  # their outcome could not be written within the limit
                self.lies += clean
                for job_id in unwritten:
                    self.ledger.note("cause", job=job_id)
        elif not await self.until(lambda: self.running() <= set(zoo.alive), self.patience):
            self.stuck += 1
            self.problem(f"claimed, and not running: {self.running() - set(zoo.alive)}")
        await self._nothing_left()

    async def _nothing_left(self) -> None:
        if not await self.until(lambda: not self._left(), self.patience):
            self.leaks += 1
            self.problem(f"left behind: {', '.join(self._left())}")
            self._told |= {*asyncio.all_tasks(), *threading.enumerate()}

    def _left(self) -> list[str]:
        """Return the tasks and threads that are left, but for those of handlers that have not ended."""
        alive = set(self.zoo.alive)
        left = [task.get_name() for task in asyncio.all_tasks() - self._tasks - self._told]
        left = [name for name in left if name.startswith("backlite") and name.split()[-1] not in alive]
        if not alive:
            threads = [thread.name for thread in set(threading.enumerate()) - self._told]
            left += [name for name in threads if not name.startswith(OTHERS)]
        return left

    async def _start_beside(self, client: Client) -> None:
        """Start again beside handlers that have not ended: their jobs do not run a second time."""
        again = client if self.choice.random() < 0.5 else self.client(workers=4)
        self.zoo.calm = True
        await again.start()
        await self.until(lambda: self._waiting() <= len(self.zoo.alive), 0.5)
        limit = 2.0 if self.zoo.alive else CALM
        if await self._stop(again, "stop", limit) is False and not self.zoo.alive:
            self.problem("a calm stop says False")
        await self._nothing_left()

    def _waiting(self) -> int:
        return int(self.query("SELECT count(*) FROM backlite_jobs")[0][0])

    async def _release(self) -> None:
        """Let everything end that has not; nothing is left then."""
        self.zoo.opened.set()
        if not await self.until(lambda: not self.zoo.alive, self.patience):
            self.problem(f"handlers do not end: {self.zoo.alive}")
        await self._nothing_left()

    # -- the end -----------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Run everything that is left with handlers that do no harm."""
        self.where = "drain"
        self.zoo.calm = True
        self._tasks = asyncio.all_tasks()
        began = time.monotonic()
        async with self.client(workers=8) as client:
            if not await self.until(lambda: not self._waiting(), PATIENCE):
                self.problem(f"{self._waiting()} jobs never end")
            if not await self._stop(client, "stop", CALM):
                self.problem("a calm stop says False")
        self.drained_in = time.monotonic() - began
        await self._nothing_left()

    def judge(self) -> dict[str, Any]:
        """Return what was found, the ledger's verdict included."""
        completed = [row[0] for row in self.query("SELECT id FROM backlite_completed")]
        verdict = audit(Ledger.read(self.journal), completed)
        self.problems += [f"lost: {job}" for job in verdict.lost]
        self.problems += [f"ran twice: {what}" for what in verdict.unexplained]
        self.problems += [f"ran beside itself: {job}" for job in self.zoo.beside]
        wrong = [row[0] for row in self.query(WRONG_EFFECTS)]
        self.problems += [f"its effect is not there once: {job}" for job in wrong]
        counted = [row[0] for row in self.query(WRONG_ATTEMPTS)]
        self.problems += [f"an attempt that a stop cut short was counted: {job}" for job in counted]
        return {
            "trials": self.trials,
            "jobs": verdict.acknowledged,
            "lost": len(verdict.lost),
            "doubles": len(verdict.unexplained) + len(self.zoo.beside) + len(wrong),
            "corrupt": 0 if intact(self.file) else 1,
            "leaks": self.leaks,
            "stuck": self.stuck,
            "lies": self.lies,
            "alarms": self.alarms,
            "overrun": self.overrun,
            "late": self.late,
            "drained_in": self.drained_in,
            "problems": self.problems[:20],
        }


WRONG_EFFECTS = """
    SELECT id FROM backlite_completed
    WHERE json_extract(CAST(payload AS TEXT), '$.kind') = 'transacts' AND status = 'succeeded'
      AND (SELECT count(*) FROM effects WHERE job = id) <> 1
    UNION ALL
    SELECT job FROM effects
    WHERE NOT EXISTS (SELECT 1 FROM backlite_completed WHERE id = job AND status = 'succeeded')
"""
"""Jobs whose effect is not there exactly once, though it was to be one with their success."""


WRONG_ATTEMPTS = f"""
    SELECT id FROM backlite_completed
    WHERE json_extract(CAST(payload AS TEXT), '$.kind') IN {STEADY!r}
      AND (status <> 'succeeded' OR attempt <> 1)
"""
"""Jobs that cannot fail, and whose attempts were counted though a stop cut them short."""


async def run_group(group: Group, first: int, trials: int, deadline: float) -> None:
    """Do the trials of a group, then drain."""
    await group.prepare()
    for number in range(first, first + trials):
        if (time.monotonic() < deadline or number == first) and len(group.problems) < TOO_MANY:
            await group.trial(number)
    await group.drain()


def main(folder: str, loop: str, seed: int, trials: int, seconds: float) -> None:
    """Do groups of trials until there are enough, or the time is up."""
    choice = random.Random(f"{seed} {loop}")
    say(library=os.path.dirname(backlite_async.__file__))
    deadline = time.monotonic() + seconds
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    done = 0
    while (done < trials) if trials else (time.monotonic() < deadline):
        faulthandler.dump_traceback_later(300, exit=True)
        group = Group(folder, done, choice, gentle=trials > 0)
        wanted = min(GROUP, trials - done) if trials else GROUP
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(run_group(group, done, wanted, deadline if not trials else float("inf")))
        say(loop=loop, **group.judge())
        done += wanted
        if len(group.problems) >= TOO_MANY:
            break


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
