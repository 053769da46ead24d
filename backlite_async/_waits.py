"""Who waits for which jobs to end: watches in the store, and one look for all who wait when it rings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

from ._clock import Clock
from ._errors import BackliteError, DatabaseReplaced, InvalidState, JobNotFound
from ._graph import WorkflowRun
from ._health import Health
from ._job import Job
from .stores import Store

__all__ = ["DONE", "Waits"]

LOOKS_APART = 0.02
"""Seconds between two looks at least that no end of a job has asked for: there may be many rings."""

DEAF_LOOK, LONGEST_LOOK = 0.5, 30.0
"""Seconds until the next look where nobody can ring, and where a ring might have been lost."""

UNKEPT = (
    "it was deleted, or ended elsewhere just before anybody there knew that it is waited for; give its"
    " queue a retention"
)

DONE = frozenset({"succeeded", "failed", "cancelled"})
"""The states of jobs and workflows that have ended."""


class Watch:
    """A job or workflow that somebody here waits for."""

    def __init__(self) -> None:
        self.waiters = 0
        self.needed = False
        """Whether somebody has looked, and it had not ended."""
        self.ended = asyncio.Event()
        self.job: Job | WorkflowRun | None = None
        self.error: BackliteError | None = None


class Waits:
    """Wakes those who wait in this client when their jobs or workflows have ended, wherever that was.

    What is watched in the store is made to follow what is waited for, by one task, which asks for all at
    once: so it does not matter how many wait. Nobody waits: it sleeps.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.watches: dict[str, Watch] = {}
        """What is waited for, by the id of the job."""
        self._stored: dict[str, bool] = {}
        self._told: set[str] = set()
        self._look_at_all = False
        self._earliest = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._open = False

    def __contains__(self, job_id: str) -> bool:
        return job_id in self.watches

    @contextlib.contextmanager
    def waiting(self, job_id: str) -> Iterator[Watch]:
        """Have somebody wait for a job, inside of the block; if it ends here from now on, it is kept."""
        if not self._open:
            raise InvalidState(f"the client has stopped, and nobody tells here when job {job_id} ends")
        watch = self.watches.get(job_id)
        if watch is None:
            watch = self.watches[job_id] = Watch()
        watch.waiters += 1
        try:
            yield watch
        finally:
            watch.waiters -= 1
            if not watch.waiters and self.watches.get(job_id) is watch:
                del self.watches[job_id]
                if job_id in self._stored:
                    self._wake.set()

    async def end_of(self, job_id: str, watch: Watch) -> Job | WorkflowRun:
        """Wait until it has ended; return it, or raise `JobNotFound` where nothing is kept of it."""
        watch.needed = True
        self.ended(job_id)  # perhaps it has, since somebody has looked
        await watch.ended.wait()
        if watch.error is not None:
            raise watch.error
        if watch.job is None:
            raise JobNotFound(job_id, UNKEPT)
        return watch.job

    def ended(self, job_id: str) -> None:
        """Take note that a job may have ended, as an outcome of it was written here."""
        if job_id in self.watches:
            self._told.add(job_id)
            self._wake.set()

    def look(self) -> None:
        """Take note that jobs may have ended by others' doing."""
        if self.watches and self._open:
            self._look_soon(self._earliest)

    def _look_soon(self, at: float) -> None:
        """Look at all at an instant of the loop's time, or earlier."""
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(max(at, loop.time()), self._look_now)

    def _look_now(self) -> None:
        self._timer = None
        self._look_at_all = True
        self._wake.set()

    def begin(self) -> None:
        """Begin a life of the client, in an event loop that may be another one than before.

        Apart from `run`, which begins later than this is called: it may be closed before that.
        """
        self._wake = asyncio.Event()
        self.watches.clear()
        self._stored.clear()
        self._told.clear()
        self._timer, self._look_at_all, self._earliest = None, False, 0.0
        self._open = True

    def close(self) -> None:
        """Let `run` see a last time what has ended, send away all others who wait, and return."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake.set()

    async def run(self, store: Store, owner: str) -> None:
        """Work from `begin` until closed; then watch nothing any more."""
        health = Health("wait for jobs", set())
        while self._open:
            try:
                await self._wake.wait()
                self._wake.clear()
                if self._open:
                    await self._turn(store, owner)
                    health.succeeded()
                    self._look_later(store)
            except asyncio.CancelledError:  # ends with its client, in the client's own order
                self._look_now()
            except DatabaseReplaced as error:  # for good
                for job_id in list(self.watches):
                    self._settle(job_id, None, error)
            except Exception as error:  # who waits goes on waiting until the trouble is over
                self._earliest = asyncio.get_running_loop().time() + health.failed(error)
                self._look_soon(self._earliest)
        await self._end(store, owner)

    async def _end(self, store: Store, owner: str) -> None:
        with contextlib.suppress(Exception, asyncio.CancelledError):  # who waits is told of the stop
            await self._look_at(store, list(self.watches))
        for job_id in list(self.watches):
            error = InvalidState(f"the client was stopped while job {job_id} was waited for, which goes on")
            self._settle(job_id, None, error)
        while self._stored:
            try:
                await self._forget(store, owner)
            except asyncio.CancelledError:
                continue
            except Exception:  # who ends these jobs keeps them a little longer
                return

    def _look_later(self, store: Store) -> None:
        """Look again after a while where a ring may be missed; forget what is waited for no longer."""
        if self.watches:
            pause = LONGEST_LOOK if store.rings else DEAF_LOOK
            self._look_soon(asyncio.get_running_loop().time() + pause)
        if self._stored.keys() - self.watches.keys():
            self._wake.set()

    async def _turn(self, store: Store, owner: str) -> None:
        """Watch what is waited for and nothing else, and see which of them have ended."""
        await self._forget(store, owner)
        watches = self.watches.items()
        new = [job_id for job_id, watch in watches if watch.needed and not self._stored.get(job_id)]
        if new:
            self._stored.update(dict.fromkeys(new, False))  # it may be written though it fails
            await store.watch(new, owner=owner)
            self._stored.update(dict.fromkeys(new, True))
        if self._look_at_all:
            self._look_at_all = False
            self._earliest = asyncio.get_running_loop().time() + LOOKS_APART
            self._told.update(self.watches)
        told, self._told = [job_id for job_id in {*self._told, *new} if job_id in self.watches], set()
        await self._look_at(store, told)

    async def _look_at(self, store: Store, job_ids: Sequence[str]) -> None:
        """Wake those who wait for jobs that have ended, unless these run again."""
        for job_id in await store.which_ended(job_ids, now=self._clock.now()) if job_ids else ():
            found = await _found(store, job_id, self._clock.now())
            if found is None or found.status in DONE:
                self._settle(job_id, found, None)

    async def _forget(self, store: Store, owner: str) -> None:
        """Watch no more what nobody waits for."""
        old = [job_id for job_id in self._stored if job_id not in self.watches]
        if old:
            await store.unwatch(old, owner=owner)
            for job_id in old:
                del self._stored[job_id]

    def _settle(self, job_id: str, job: Job | WorkflowRun | None, error: BackliteError | None) -> None:
        watch = self.watches.pop(job_id, None)
        if watch is not None:
            watch.job, watch.error = job, error
            watch.ended.set()


async def _found(store: Store, job_id: str, now: int) -> Job | WorkflowRun | None:
    """Return the job or workflow of an id; None: there is none, or none any more."""
    return await store.get(job_id, now=now) or await store.workflow(job_id, now=now)
