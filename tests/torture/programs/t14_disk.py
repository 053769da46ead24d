"""A program on a small disk of its own, which it fills and frees while jobs run.

`t14_disk.py main FOLDER LEDGER PLAN` lives through the outages of a plan (JSON) and drains;
`t14_disk.py peer FOLDER LEDGER` is a second process that works beside it until its input ends.
The ledger lies on another disk. What the library logs is written there too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import faulthandler
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ClassVar, TypeVar

import structlog

from backlite_async import (
    AddOperation,
    BackliteError,
    Client,
    DatabaseUnavailable,
    JobContext,
    QueueConfig,
    Retention,
    Task,
)

T = TypeVar("T")

PAGE = 4096
WORKERS = 6
LEASE = 1.0
LIMIT = 60.0
"""Seconds after which something that was waited for does not come any more."""


class Held(Task):
    """Ends when it is told to: well, or with an error that takes much space."""

    config: ClassVar[QueueConfig] = QueueConfig("held", max_attempts=1, retention=Retention())
    fails: bool = False


class Quick(Task):
    config: ClassVar[QueueConfig] = QueueConfig("quick", max_attempts=1, retention=Retention())
    padding: str = ""


class Calm(Task):
    """Is added while its queue is paused, once."""

    config: ClassVar[QueueConfig] = QueueConfig("calm", max_attempts=1, retention=Retention())
    number: int


class Turn(Task):
    """One of a key at a time."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "turns", max_attempts=1, retention=Retention(), concurrency_per_key=1
    )


class Parked(Task):
    """Has no handler: it is cancelled."""

    config: ClassVar[QueueConfig] = QueueConfig("parked", retention=Retention())


class World:
    """The disk, the ledger, the client, and what is known of its jobs."""

    def __init__(self, folder: str, ledger: str) -> None:
        self.database = os.path.join(folder, "app.db")
        self.filler = os.path.join(folder, "filler")
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.acknowledged: set[str] = set()
        self.started: set[str] = set()
        self.ended: set[str] = set()
        self.trouble = False
        self.unwritten: set[str] = set()
        self._released = ledger + ".released"
        self.full = False
        structlog.configure(processors=[self.capture])
        self.client = self.make_client()

    def make_client(self) -> Client:
        client = Client(self.database, workers=WORKERS, lease=LEASE, busy_timeout=2.0)
        client.register(Held, self.held)
        for kind in (Quick, Calm, Turn):
            client.register(kind, self.quick)
        return client

    def note(self, what: str, **fields: Any) -> None:
        line = {"what": what, "pid": os.getpid(), "at": time.monotonic(), **fields}
        os.write(self._ledger, json.dumps(line).encode() + b"\n")

    def capture(self, _logger: object, _method: str, event: Any) -> Any:
        """Keep what the library logs: a processor of structlog."""
        name = event["event"]
        if name in ("store.failing", "store.recovered"):
            self.note("log", event=name, doing=event["doing"], error=event.get("error"))
            self.trouble = name == "store.failing"
        elif name in ("job.succeeded", "job.failed", "job.cancelled"):
            self.ended.add(event["job_id"])
            if event["job_id"] in self.unwritten:
                self.note("written")
                self.unwritten.clear()
        elif name in ("job.crashed", "job.lease_lost", "job.unwritable"):
            self.note("log", event=name, job=event["job_id"])
        self.loop.call_soon_threadsafe(self._changed.set)
        raise structlog.DropEvent

    async def until(self, condition: Callable[[], bool], limit: float = LIMIT) -> bool:
        """Wait for a condition that changes with what is logged; return whether it came."""
        try:
            async with asyncio.timeout(limit):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    # -- jobs --------------------------------------------------------------------------------------

    def begin(self, job: JobContext) -> None:
        """Take note that an execution begins."""
        where = {"queue": job.queue, "key": job.key or "", "version": 0, "plan": ""}
        self.note("start", job=job.id, fence=job.fence, **where)

    async def held(self, task: Held, job: JobContext) -> None:
        self.begin(job)
        self.started.add(job.id)
        self._changed.set()
        while not os.path.exists(self._released):
            await asyncio.sleep(0.01)
        self.note("end", job=job.id, fence=job.fence)
        if task.fails:
            raise ValueError("x" * 16_000)

    async def quick(self, task: Quick | Calm | Turn, job: JobContext) -> None:
        self.begin(job)
        self.started.add(job.id)
        self.note("end", job=job.id, fence=job.fence)

    def hold(self) -> None:
        """Let handlers hold from now on, in all processes."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._released)

    def release(self) -> None:
        """Let them end."""
        with open(self._released, "w"):
            pass

    async def done(self, job_id: str) -> bool:
        """Return whether a job has ended, here or in another process."""
        if job_id not in self.ended and str(await self.client.status(job_id)) in (
            "succeeded",
            "failed",
            "cancelled",
        ):
            self.ended.add(job_id)
        return job_id in self.ended

    async def save(self, *tasks: Task) -> list[str]:
        """Add jobs, again and again with the same operation while the disk refuses."""
        return await self.saved(self.client.add(*tasks))

    async def saved(self, operation: AddOperation) -> list[str]:
        """Save an operation, again and again while the disk refuses."""
        ids: list[str] = await self.insist(operation.save)
        for job_id in ids:
            self.acknowledged.add(job_id)
            self.note("ack", job=job_id)
        return ids

    async def insist(
        self, call: Callable[[], Awaitable[T]], *, about: str = "", done: str = "", **fields: Any
    ) -> T:
        """Call again and again while the disk refuses; take note of what is about to be done, and done."""
        while True:
            if about:
                self.note(about, **fields)
            try:
                async with asyncio.timeout(LIMIT):
                    value = await call()
            except DatabaseUnavailable:
                self.note("refused", full=self.full)
                await asyncio.sleep(0.02)
                continue
            if done:
                self.note(done, **fields)
            return value

    async def cancel(self, *ids: str) -> None:
        """Cancel jobs, all of them or none, again and again while the disk refuses."""
        for job_id in ids:
            self.note("cancelling", job=job_id)
        await self.insist(partial(self.client.cancel, *ids))
        for job_id in ids:
            self.note("cancelled", job=job_id)

    async def flood(self, padding: int, over: Callable[[], bool]) -> None:
        """Add until the outage is over."""
        while not over():
            await self.save(Quick("x" * padding))
            await asyncio.sleep(0.01)

    # -- the disk ----------------------------------------------------------------------------------

    def fill(self, spare: int) -> None:
        """Fill the disk but for a few pages, with the write-ahead log as small as it can be."""
        connection = sqlite3.connect(self.database, isolation_level=None)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()
        self.full = True
        file = os.open(self.filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for size in (1 << 20, 1 << 16, PAGE):
            try:
                while os.write(file, bytes(size)) == size:
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        os.ftruncate(file, max(0, os.fstat(file).st_size // PAGE - spare) * PAGE)
        os.close(file)
        self.note("full", spare=spare)

    def fence(self) -> int:
        """Return the number of the last claim: those up to it were made before."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return int(connection.execute("SELECT value FROM backlite_fence").fetchone()[0])

    def free(self) -> float:
        """Free the disk; return when."""
        self.note("freed")
        os.unlink(self.filler)
        self.full = False
        return time.monotonic()


async def drained(world: World, freed: float) -> None:
    """Wait until all that was acknowledged has ended, and note how long that took."""
    deadline = time.monotonic() + LIMIT
    while left := [job_id for job_id in world.acknowledged if not await world.done(job_id)]:
        if time.monotonic() > deadline:
            world.note("hang", waiting="drained", jobs=left[:5])
            break
        await asyncio.sleep(0.01)
    world.note("drained", ms=(time.monotonic() - freed) * 1000)


async def hold(world: World, fails: bool) -> set[str]:
    """Keep all workers busy, with more jobs waiting behind them; return the jobs that run here."""
    world.hold()
    known = set(world.started)
    ids = set(await world.save(*[Held(fails) for _ in range(2 * WORKERS)]))
    if not await world.until(lambda: len(world.started - known) >= WORKERS):
        world.note("hang", waiting="started")
    await world.save(*[Quick() for _ in range(5 * WORKERS)])
    return ids & world.started


async def outage(world: World, spare: int, seconds: float, fails: bool, adders: int) -> None:
    """Let all handlers end while the disk is full; nothing may start until that could be written."""
    ids = await hold(world, fails)
    world.fill(spare)
    adding = [asyncio.create_task(world.flood(50, lambda: not world.full)) for _ in range(adders)]
    world.release()
    if await world.until(lambda: world.trouble or ids <= world.ended) and not ids <= world.ended:
        world.note("noticed", fence=world.fence())
        world.unwritten = ids
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        world.client.notify()
    freed = world.free()
    await asyncio.gather(*adding)
    await drained(world, freed)


async def backlog(world: World, seconds: float) -> None:
    """Let the jobs themselves fill what is left of the disk, with workers that go on."""
    world.release()
    world.fill(100)
    adding = [asyncio.create_task(world.flood(20_000, lambda: not world.full)) for _ in range(4)]
    await asyncio.sleep(seconds)
    freed = world.free()
    await asyncio.gather(*adding)
    await drained(world, freed)


async def orders(world: World, seconds: float, spare: int) -> None:
    """Cancel, pause, and add what is unique, on a full disk, until each is done."""
    world.hold()
    client = world.client
    parked, held = await world.save(*[Parked()] * 4), await world.save(Held(), Held())
    turns = await world.saved(client.add(*[Turn()] * 4).key("k"))
    async with asyncio.timeout(LIMIT):
        while "pending" in [str(await client.status(job_id)) for job_id in (*held, *turns)]:
            await asyncio.sleep(0.01)
    await world.saved(client.add(*[Turn()] * 4).key("k"))
    world.fill(spare)
    given = [
        asyncio.create_task(world.cancel(*parked[:2])),
        asyncio.create_task(world.cancel(parked[2], held[0])),
        asyncio.create_task(calm(world)),
    ]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = {str(await client.status(job_id)) for job_id in parked[:2]}
        if len(found) > 1:  # asked one after the other, so it may have happened in between
            found = {str(await client.status(job_id)) for job_id in parked[:2]}
        if len(found) > 1:
            world.note("wrong", text=f"cancelled together and {found}")
        await asyncio.sleep(0.02)
    freed = world.free()
    await asyncio.gather(*given)
    await world.cancel(parked[3])
    async with asyncio.timeout(LIMIT):
        while not await world.done(held[0]):  # here or in the other process
            await asyncio.sleep(0.01)
    world.release()
    await drained(world, freed)


async def calm(world: World) -> None:
    """Pause a queue, add what it may have once, and let it go on."""
    client = world.client
    await world.insist(partial(client.pause, "calm"), about="pausing", done="paused", queue="calm")
    if "calm" not in [queue.name for queue in await client.queues.list() if queue.paused]:
        world.note("wrong", text="said to be paused, and is not")
    key = f"once {len(world.acknowledged)}"
    saves = [world.saved(client.add(Calm(number)).unique(key, within=3600)) for number in range(3)]
    found = {job_id for [job_id] in await asyncio.gather(*saves)}
    if len(found) > 1:
        world.note("wrong", text=f"unique, and {len(found)} jobs")
    await world.insist(partial(client.resume, "calm"), about="resuming", done="resumed", queue="calm")


async def restart(world: World, seconds: float, spare: int) -> None:
    """Stop with outcomes that cannot be written, and start again, all on a full disk."""
    await hold(world, fails=True)
    world.fill(spare)
    world.release()
    await world.until(lambda: world.trouble or not world.started - world.ended)
    asked = time.monotonic()
    clean = await world.client.stop(0.2)
    unwritten = world.started - world.ended  # others may have been started by then
    for job_id in unwritten:
        world.note("cause", job=job_id)
    world.note("stopped", clean=clean, unwritten=len(unwritten), seconds=time.monotonic() - asked)
    world.trouble = False
    world.note("new client")
    world.client = world.make_client()
    started = await starts(world)
    await asyncio.sleep(seconds)
    freed = world.free()
    if not started and not await starts(world):
        world.note("hang", waiting="start on a free disk")
    await drained(world, freed)


async def starts(world: World) -> bool:
    """Try to start; a disk that is full may be a reason not to, if it is said clearly."""
    try:
        async with asyncio.timeout(LIMIT):
            await world.client.start()
    except BackliteError as error:
        world.note("not started", error=f"{type(error).__name__}: {error}", full=world.full)
        return False
    return True


async def live(world: World, plan: list[dict[str, Any]]) -> None:
    """Go through the outages of a plan, then look at every job that was acknowledged."""
    kinds: dict[str, Any] = {"outage": outage, "backlog": backlog, "orders": orders, "restart": restart}
    await world.client.start()
    for step in plan:
        world.note("step", kind=step["kind"])
        await kinds[step["kind"]](world, **{name: value for name, value in step.items() if name != "kind"})
    if not await world.until(lambda: not world.trouble):
        world.note("hang", waiting="recovered")
    for job_id in world.acknowledged:
        world.note("final", job=job_id, status=str(await world.client.status(job_id)))
    if not await world.client.stop(5.0):
        world.note("hang", waiting="stop")
    connection = sqlite3.connect(world.database)
    world.note("intact", rows=connection.execute("PRAGMA integrity_check").fetchall())
    connection.close()


async def main(folder: str, ledger: str, plan: list[dict[str, Any]], peer: bool) -> None:
    world = World(folder, ledger)
    if not peer:
        await live(world, plan)
        return
    world.release()
    async with world.client:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    role, its_folder, its_ledger = sys.argv[1:4]
    faulthandler.dump_traceback_later(300.0, exit=True)
    if role == "peer":
        asyncio.run(main(its_folder, its_ledger, [], True))
    else:
        its_plan = json.loads(sys.argv[4])
        command = [sys.executable, __file__, "peer", its_folder, its_ledger]
        second = None
        try:
            if its_plan["peer"]:
                second = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                assert second.stdout is not None
                second.stdout.readline()
            asyncio.run(main(its_folder, its_ledger, its_plan["steps"], False))
        finally:
            if second is not None:
                second.communicate()
