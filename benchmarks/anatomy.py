"""Where the microseconds of a job go: `python -m benchmarks.anatomy [JOBS]`.

The same no-op jobs, by ever more of what a job takes, each in one event loop: first what asyncio costs
alone, then anyio's scope, then all of the library over a store that costs nothing, at last over SQLite.
There the event loop and the database thread work side by side; the processor time of each is shown.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from pathlib import Path
from statistics import median

import anyio
import msgspec

from backlite_async import Client
from backlite_async._job import Claim, ClaimedJob, Lane, Limit, Outcome
from backlite_async.stores.memory import MemoryStore
from backlite_async.stores.sqlite.database import Database

from .workload import Noop, tasks

WORKERS, ROUNDS, BURST = 100, 5, 32


async def asyncio_alone(count: int) -> None:
    """Run a task and its done callback for each job, in a context of its own: asyncio alone."""

    async def handle() -> None:
        pass

    await _in_bursts(count, handle)


async def with_scope(count: int) -> None:
    """Do the same, each under a cancel scope of anyio's."""

    async def handle() -> None:
        with anyio.CancelScope():
            await nothing()

    async def nothing() -> None:
        pass

    await _in_bursts(count, handle)


async def _in_bursts(count: int, handle: Callable[[], Awaitable[None]]) -> None:
    loop, context = asyncio.get_running_loop(), copy_context()
    left = count

    def ended(task: asyncio.Task[None]) -> None:
        nonlocal left
        left -= 1

    async def run() -> None:
        await handle()

    while left:
        for _ in range(min(BURST, left)):
            loop.create_task(run(), context=context.copy()).add_done_callback(ended)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class _Free(MemoryStore):
    """A store whose claims and outcomes cost nothing."""

    def __init__(self, jobs: deque[ClaimedJob]) -> None:
        super().__init__()
        self._left = jobs

    async def claim(
        self,
        lanes: Sequence[Lane],
        *,
        owner: str,
        now: int,
        until: int,
        limits: Sequence[Limit] = (),
        taking: Callable[[Sequence[ClaimedJob]], None] | None = None,
    ) -> Claim:
        room = min(len(self._left), max(lane.room for lane in lanes))
        jobs = [self._left.popleft() for _ in range(room)]
        if taking is not None:
            taking(jobs)
        await asyncio.sleep(0)
        return Claim(jobs=jobs)

    async def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        await asyncio.sleep(0)
        return set()


async def without_database(count: int) -> None:
    """Run all of the library over a store that costs nothing."""
    payloads = [msgspec.json.encode(task).decode() for task in tasks(count)]
    jobs = [
        ClaimedJob(
            id=f"01970000-0000-7000-8000-{number:012x}",
            queue=Noop.config.name,
            task="Noop",
            payload=payload,
            attempt=1,
            max_attempts=1,
            crashes=0,
            fence=number // 500,
            created_at=0,
            scheduled_at=0,
        )
        for number, payload in enumerate(payloads)
    ]
    await _drain(Client(_Free(deque(jobs)), workers=WORKERS), count)


async def _drain(client: Client, count: int) -> None:
    left, done = count, asyncio.Event()

    @client.handler(Noop)
    async def handle(task: Noop) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async with client:
        await done.wait()


class _Thread:
    """What the database thread has used while it wrote."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.transactions = 0

    def watch(self) -> None:
        original = Database.transact

        def transact(database: Database, *args: object, **options: object) -> object:
            began = time.thread_time()
            try:
                return original(database, *args, **options)  # type: ignore[arg-type]
            finally:
                self.seconds += time.thread_time() - began
                self.transactions += 1

        Database.transact = transact  # type: ignore[assignment, method-assign]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"microseconds per job, {count:,} jobs, medians of {ROUNDS}")
    for step in (asyncio_alone, with_scope, without_database):
        print(f"{_timed(step, count):6.1f}  {(step.__doc__ or '').splitlines()[0]}")
    thread = _Thread()
    thread.watch()
    walls, loops, threads = [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=Path(), prefix="anatomy-") as folder:
            wall, loop = asyncio.run(_over_sqlite(Path(folder) / "jobs.db", count, thread))
        walls.append(wall / count * 1e6)
        loops.append(loop / count * 1e6)
        threads.append(thread.seconds / count * 1e6)
    print(f"{median(walls):6.1f}  The library over SQLite, FULL, on the clock; of that, side by side:")
    print(f"{median(loops):6.1f}      processor time of the event loop's thread")
    print(f"{median(threads):6.1f}      that of the database thread, in {thread.transactions} transactions")


def _timed(step: Callable[[int], Awaitable[None]], count: int) -> float:
    taken = []
    for _ in range(ROUNDS):

        async def run() -> float:
            began = time.perf_counter()
            await step(count)
            return time.perf_counter() - began

        taken.append(asyncio.run(run()) / count * 1e6)
    return median(taken)


async def _over_sqlite(path: Path, count: int, thread: _Thread) -> tuple[float, float]:
    """Return the seconds on the clock, and those of processor time of the event loop's thread."""
    async with Client(path, workers=0) as adding:
        await adding.add(*tasks(count)).save()
    thread.seconds, thread.transactions = 0.0, 0
    began, used = time.perf_counter(), time.thread_time()
    await _drain(Client(path, workers=WORKERS), count)
    return time.perf_counter() - began, time.thread_time() - used


if __name__ == "__main__":
    main()
