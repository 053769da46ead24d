"""Hostile handlers, and what they write down about themselves."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

import anyio

from backlite_async import (
    BackliteError,
    Backoff,
    Client,
    Discard,
    JobContext,
    QueueConfig,
    Retention,
    Retry,
    Snooze,
    Task,
)
from tests.torture.kit import Ledger

__all__ = ["STEADY", "UNENDING", "Animal", "Caged", "Zoo"]

_retention = Retention(payload="always")


class Animal(Task):
    """A job whose handler is a coroutine."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "animals", max_attempts=4, max_crashes=5, backoff=Backoff(base=0.01, cap=0.05), retention=_retention
    )
    kind: str


class Caged(Task):
    """A job whose handler is a function in a thread."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "cages", max_attempts=4, max_crashes=5, backoff=Backoff(base=0.01, cap=0.05), retention=_retention
    )
    kind: str


UNENDING = ("unending", "unending thread")
"""Those that do not end before they are told to."""


STEADY = ("quick", "slow", "swallows", "stubborn", "waits", "busy", "own scope", "adds", "thread", *UNENDING)
"""Those that never fail: they succeed in their first attempt that counts."""


class Zoo:
    """The handlers of one process. `calm`: every handler returns at once."""

    def __init__(self, ledger: Ledger, choice: random.Random) -> None:
        self.ledger = ledger
        self.choice = choice
        self.calm = False
        self.alive: dict[str, int] = {}  # by job: its fence, while its handler is in it
        self.obedient: set[str] = set()  # those of them that end when they are cancelled
        self.cut: set[str] = set()  # jobs whose handlers saw a cancellation that was not their own
        self.beside: list[str] = []  # jobs that were run beside themselves
        self.started = 0
        self.opened = threading.Event()  # what does not end, ends
        self._lock = threading.Lock()
        self._behaviour: dict[str, Callable[[JobContext], Awaitable[None]]] = {
            "quick": self._quick,
            "slow": self._slow,
            "swallows": self._swallows,
            "stubborn": self._stubborn,
            "unending": self._unending,
            "waits": self._waits,
            "busy": self._busy,
            "snoozes": self._snoozes,
            "fails": self._fails,
            "retries": self._retries,
            "discards": self._discards,
            "cancels itself": self._cancels_itself,
            "raises cancelled": self._raises_cancelled,
            "own scope": self._own_scope,
            "adds": self._adds,
            "transacts": self._transacts,
        }

    def register(self, client: Client) -> None:
        """Put the zoo behind a client."""
        client.register(Animal, self._animal)
        client.register(Caged, self._caged)

    def any(self, *, ending: bool = False) -> Task:
        """Return a job of a random kind; `ending`: one that ends by itself."""
        kinds = [*self._behaviour, "thread", "unending thread", *["quick"] * 4, *["slow"] * 4]
        kind = self.choice.choice([kind for kind in kinds if not (ending and kind in UNENDING)])
        return Caged(kind) if "thread" in kind else Animal(kind)

    async def add(self, client: Client, *, ending: bool = False) -> bool:
        """Add one to three jobs; take note when that is acknowledged. Return whether it was."""
        tasks = [self.any(ending=ending) for _ in range(self.choice.randint(1, 3))]
        try:
            ids = await client.add(*tasks).save()
        except BackliteError:  # stopped, or locked: it says that nothing was acknowledged
            return False
        for job_id in ids:
            self.ledger.note("ack", job=job_id)
        return True

    def _enter(self, job: JobContext) -> None:
        with self._lock:
            self.ledger.note("start", job=job.id, fence=job.fence)
            if job.id in self.alive:
                self.beside.append(job.id)
            self.alive[job.id] = job.fence
            self.started += 1

    def _leave(self, job: JobContext, what: str) -> None:
        with self._lock:
            self.ledger.note(what, job=job.id, fence=job.fence)
            if self.alive.get(job.id) == job.fence:
                del self.alive[job.id]

    async def _animal(self, task: Animal, job: JobContext) -> None:
        self._enter(job)
        if task.kind in ("slow", "waits"):
            self.obedient.add(job.id)
        try:
            if not self.calm or task.kind == "transacts":
                await self._behaviour[task.kind](job)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and "cancel" not in task.kind:
                self.cut.add(job.id)
            completed = job.completed  # in its transaction: what it does now changes nothing
            self._leave(job, "end" if completed else "cause")
            raise
        self._leave(job, "end")

    def _caged(self, task: Caged, job: JobContext) -> None:
        self._enter(job)
        if not self.calm:
            self.opened.wait(30 if task.kind in UNENDING else self.choice.uniform(0, 0.2))
        self._leave(job, "end")

    async def _quick(self, job: JobContext) -> None:
        pass

    async def _slow(self, job: JobContext) -> None:
        await asyncio.sleep(self.choice.uniform(0, 0.1))

    async def _swallows(self, job: JobContext) -> None:
        """Return when cancelled, as if nothing had been."""
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            self.cut.add(job.id)

    async def _stubborn(self, job: JobContext) -> None:
        """Not be cancelled for a while."""
        until = time.monotonic() + self.choice.uniform(0, 0.8)
        while time.monotonic() < until and not self.opened.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                self.cut.add(job.id)

    async def _unending(self, job: JobContext) -> None:
        """Not be cancelled at all."""
        while not self.opened.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                self.cut.add(job.id)

    async def _waits(self, job: JobContext) -> None:
        """End when cancelled, and not before."""
        while not self.opened.is_set():
            await asyncio.sleep(0.01)

    async def _busy(self, job: JobContext) -> None:
        """Block the event loop."""
        until = time.monotonic() + self.choice.uniform(0, 0.03)
        while time.monotonic() < until:
            pass

    async def _snoozes(self, job: JobContext) -> None:
        raise Snooze(self.choice.uniform(0, 0.02))

    async def _fails(self, job: JobContext) -> None:
        raise ValueError("it fails")

    async def _retries(self, job: JobContext) -> None:
        raise Retry(after=self.choice.uniform(0, 0.02))

    async def _discards(self, job: JobContext) -> None:
        raise Discard("not wanted")

    async def _cancels_itself(self, job: JobContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0.01)

    async def _raises_cancelled(self, job: JobContext) -> None:
        raise asyncio.CancelledError

    async def _own_scope(self, job: JobContext) -> None:
        with anyio.move_on_after(0.02):
            await anyio.sleep_forever()

    async def _adds(self, job: JobContext) -> None:
        await self.add(job.client, ending=True)
        await asyncio.sleep(self.choice.uniform(0, 0.02))

    async def _transacts(self, job: JobContext) -> None:
        async with job.transaction() as connection:
            await connection.execute("INSERT INTO effects VALUES (?)", (job.id,))
            await asyncio.sleep(0 if self.calm else self.choice.uniform(0, 0.01))
