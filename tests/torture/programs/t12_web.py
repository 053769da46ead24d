"""Stops a web application by signals at random times while the zoo runs; prints what that has left behind.

Each trial is a process of its own, forked from this one: the same application, started again on the
same file. Run with a folder for its files, a seed, the number of trials (0: as many as fit) and the
seconds it may take.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import backlite_async  # before the checkout is on the path: what is tested may be another copy

sys.path.insert(0, str(Path(__file__).parents[3]))

import uvicorn
from fastapi import FastAPI

from tests.torture.kit import Ledger
from tests.torture.programs.t12_clients import GRACE, OTHERS, PATIENCE, TOO_MANY, Group, say
from tests.torture.programs.t12_zoo import Zoo

READY = 3
"""Handlers that have started before the signal may come."""


class Plan(NamedTuple):
    """What one trial does."""

    loop: str
    limit: float
    wait: float
    signals: tuple[signal.Signals, ...]
    gap: float
    seed: int


def serve(file: str, journal: str, plan: Plan, ready: int) -> None:
    """Be the application, until a signal ends it."""
    zoo = Zoo(Ledger(journal), random.Random(plan.seed))
    client = backlite_async.Client(file, workers=4, threads=2, stop_timeout=plan.limit)
    zoo.register(client)

    async def add() -> None:
        for _ in range(10):
            await zoo.add(client, ending=True)
            if zoo.started >= READY:
                os.write(ready, b"r")
        os.write(ready, b"r")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with client:
                adding = asyncio.ensure_future(add())
                yield
        finally:
            clean = await client.stop(0)
            alive, cut = list(zoo.alive), list(zoo.cut)
            zoo.ledger.note("over", clean=clean, alive=alive, cut=cut, left=left(alive))
            adding.cancel()

    app = FastAPI(lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=0, loop=plan.loop, log_level="critical", lifespan="on")


def left(alive: list[str]) -> list[str]:
    """Return the tasks and threads of ours that are there, but for those of handlers that have not ended."""
    tasks = [task.get_name() for task in asyncio.all_tasks()]
    tasks = [name for name in tasks if name.startswith("backlite") and name.split()[-1] not in alive]
    threads = [] if alive else [thread.name for thread in threading.enumerate()]
    return tasks + [name for name in threads if not name.startswith(OTHERS)]


class Restarts:
    """The same application, started and stopped again and again."""

    def __init__(self, folder: str, seed: int) -> None:
        self.choice = random.Random(f"{seed} web")
        self.loops = ["asyncio"]
        try:
            import uvloop  # noqa: F401

            self.loops.append("uvloop")
        except ImportError:
            pass
        self.group = Group(folder, 0, self.choice)

    def trial(self, number: int) -> None:
        """Start, send the signals, wait for the end, and look at what is left."""
        choice, group = self.choice, self.group
        signals = choice.choice([(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)])
        plan = Plan(
            loop=self.loops[number % len(self.loops)],
            limit=choice.choice([0.0, choice.uniform(0, 0.5), 1.0]),
            wait=choice.uniform(0, 0.1),
            signals=signals,
            gap=choice.uniform(0, 0.4),
            seed=choice.randrange(2**32),
        )
        names = "+".join(name.name for name in signals)
        group.where = f"trial {number} ({plan.loop}, limit {plan.limit:.2f}, {names}, gap {plan.gap:.2f})"
        child, ready = self._fork(plan)
        try:
            readable, _, _ = select.select([ready], [], [], PATIENCE)
            if not readable or not os.read(ready, 1):
                group.problem("the application does not start")
            time.sleep(plan.wait)
            began = time.monotonic()
            status = self._end(child, plan)
            ended = time.monotonic()
        finally:
            os.close(ready)
        group.overrun = max(group.overrun, ended - began - plan.limit)
        if ended - began - plan.limit > GRACE:
            group.late.append((group.where, began + plan.limit, ended))
        expected = -signal.SIGTERM if signal.SIGTERM in signals else 0
        if status != expected:
            group.problem(f"ended with status {status}")
        self._look(child)
        group.trials += 1

    def _fork(self, plan: Plan) -> tuple[int, int]:
        reading, writing = os.pipe()
        child = os.fork()
        if child:
            os.close(writing)
            return child, reading
        status = 1
        try:
            serve(self.group.file, self.group.journal, plan, writing)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _end(self, child: int, plan: Plan) -> int:
        """Send the signals and wait for the end; a process that does not end is killed."""
        for number, what in enumerate(plan.signals):
            if number:
                time.sleep(plan.gap)
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                os.kill(child, what)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        say(hang=self.group.where)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        sys.exit(3)

    def _look(self, pid: int) -> None:
        """Compare what the application wrote down with what the database says."""
        group = self.group
        events = [event for event in Ledger.read(group.journal) if event["pid"] == pid]
        ended = {(event["job"], event["fence"]) for event in events if event["what"] in ("end", "cause")}
        begun = {(event["job"], event["fence"]) for event in events if event["what"] == "start"}
        for job, _ in begun - ended:  # their process is gone: they run again
            group.ledger.note("cause", job=job)
        claimed = set(group.query("SELECT id, fence FROM backlite_jobs WHERE status = 'running'"))
        if stuck := claimed - (begun - ended):
            group.stuck += 1
            group.problem(f"claimed, and not running at the end: {stuck}")
        overs = [event for event in events if event["what"] == "over"]
        if len(overs) != 1:
            group.problem(f"the lifespan ended {len(overs)} times")
        for over in overs:
            self._check(over)

    def _check(self, over: dict[str, Any]) -> None:
        group = self.group
        if over["left"]:
            group.leaks += 1
            group.problem(f"left behind: {over['left']}")
        if over["clean"] and (over["alive"] or over["cut"]):
            group.lies += 1
            group.problem(f"stop says True: {over}")


def main(folder: str, seed: int, trials: int, seconds: float) -> None:
    """Do trials until there are enough, or the time is up; then everything must drain."""
    say(library=os.path.dirname(backlite_async.__file__))
    deadline = time.monotonic() + seconds
    restarts = Restarts(folder, seed)
    asyncio.run(restarts.group.prepare())
    done = 0
    while done < trials if trials else time.monotonic() < deadline:
        restarts.trial(done)
        done += 1
        if len(restarts.group.problems) >= TOO_MANY:
            break
    asyncio.run(restarts.group.drain())
    say(loop="web", **restarts.group.judge())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
