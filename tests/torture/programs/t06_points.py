"""Cancels the library's public coroutines after every step, and prints a line for each sweep.

Run with a folder for its files, then: which of how many shards; how many points of one sweep a case
(0: all sweeps, all points); a seed; the seconds it may take; and the names of cases (none: all).
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import backlite_async  # before the checkout is on the path: what is tested may be another copy

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.torture.programs.t06_cases import Case
from tests.torture.programs.t06_control import CONTROL
from tests.torture.programs.t06_flows import FLOWS
from tests.torture.programs.t06_life import LIFE
from tests.torture.programs.t06_recurring import RECURRING
from tests.torture.programs.t06_steps import Ended, SteppingLoop
from tests.torture.programs.t06_work import WORK
from tests.torture.programs.t06_world import World

CASES = {**LIFE, **WORK, **CONTROL, **FLOWS, **RECURRING}

PATIENCE = 300.0
"""Seconds after which a whole sweep has hung."""

ENOUGH = 3
"""Calls in a row that ended before they could be cut; then all steps have been seen.

How many steps a call has depends on how fast the database is.
"""

TOO_MANY = 5
"""Problems after which a sweep goes no further."""

NEVER = 1_000_000_000
"""A step that no call reaches."""


def say(**fields: Any) -> None:
    """Print a line that outlives this process."""
    os.write(1, json.dumps(fields).encode() + b"\n")


class Sweep:
    """One case under one way of cancellation: all its steps, or some of them."""

    def __init__(self, name: str, way: str, world: World) -> None:
        self.name, self.way, self.world = name, way, world
        self.case: Case = CASES[name](world)
        self.points = 0

    async def run(self, some: int, choice: random.Random, deadline: float) -> bool:
        """Go through the steps; return whether all that were wanted were reached."""
        world = self.world
        world.remember()
        await self.case.prepare()
        finished, missed = True, 0
        with world.remembering():
            for k in await self._steps(some, choice):
                if time.monotonic() > deadline or len(world.problems) >= TOO_MANY:
                    finished = False
                    break
                ended = await self._point(k)
                self.points += ended.cut
                missed = 0 if ended.cut else missed + 1
                if missed >= ENOUGH and not some:
                    break
        await self.case.finish()
        await world.drain()
        self.case.at_last()
        await world.settled()
        return finished

    async def _steps(self, some: int, choice: random.Random) -> Iterable[int]:
        ended = await self._point(NEVER)
        self.world.require(ended.how == "returned", f"an undisturbed call has {ended.how}")
        steps = range(ended.steps)
        return sorted(choice.sample(steps, min(some, len(steps)))) if some else itertools.count()

    async def _point(self, k: int) -> Ended:
        """Make one call, cut after its k-th step, and check what there is to check."""
        world = self.world
        world.where = where = f"{self.name}, {self.way}, step {'never' if k == NEVER else k}"
        await self.case.before()
        ended = await self.case.run(self.way, k)
        if ended is None:
            hung(where)
        await self.case.release()
        world.probe()
        if ended.how == "raised":
            world.problem(f"raised {ended.value!r}")
        swallowed = (
            ended.cut and ended.how == "returned" and self.way not in ("scope", "scope late", "wait_for")
        )
        world.require(not swallowed, "swallowed its cancellation")
        try:
            await self.case.after(ended)
        except Exception as error:  # whatever it is, it must not be
            world.problem(f"afterwards {error!r}")
        world.where = where
        await world.settled()
        return ended


def hung(where: str) -> NoReturn:
    """Tell what hangs, and end: nothing more can be learned in this process."""
    say(hang=where, tasks=[repr(task) for task in asyncio.all_tasks()])
    faulthandler.dump_traceback()
    os._exit(3)


def sweep(name: str, way: str, options: argparse.Namespace, choice: random.Random) -> None:
    """Run one sweep in a loop and a folder of its own, and tell what it found."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        with asyncio.Runner(loop_factory=SteppingLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, SteppingLoop)
            world = World(loop, folder)
            loop.set_exception_handler(lambda _, context: world.problem(f"the loop was told: {context}"))
            sys.unraisablehook = lambda found: world.problem(f"{found.err_msg}: {found.exc_value!r}")
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            began = time.monotonic()
            found = Sweep(name, way, world)
            finished = runner.run(found.run(options.some, choice, options.deadline))
            gc.collect()
            faulthandler.cancel_dump_traceback_later()
        say(
            case=name,
            way=way,
            points=found.points,
            finished=finished,
            lost=world.lost,
            doubles=world.doubles,
            corrupt=world.corrupt,
            leaks=world.leaks,
            late_locks=world.late_locks,
            worst_lock=world.worst_lock,
            seconds=time.monotonic() - began,
            problems=world.problems[:20],
        )


def chosen(options: argparse.Namespace, choice: random.Random) -> list[tuple[str, str]]:
    """Return all sweeps of the named cases; for some points only, one of each case."""
    every = [[(name, way) for way in CASES[name].ways] for name in options.cases or CASES]
    sweeps = [choice.choice(one) for one in every] if options.some else list(itertools.chain(*every))
    mine = sweeps[options.shard :: options.shards]
    say(library=os.path.dirname(backlite_async.__file__), sweeps=len(mine))
    return mine


def main() -> None:
    """Go through the sweeps of this shard."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--some", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--cases", nargs="*", default=[])
    options = parser.parse_args()
    options.deadline = time.monotonic() + options.seconds
    choice = random.Random(options.seed)
    for name, way in chosen(options, choice):
        sweep(name, way, options, choice)


if __name__ == "__main__":
    main()
