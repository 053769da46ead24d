"""Renewing the leases of running jobs, also while a handler blocks the event loop."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import time
from collections.abc import Callable
from weakref import WeakSet

from ._clock import Clock, whole_millis
from ._errors import BackliteError, DatabaseUnavailable
from ._job import Outcome
from .stores import Store

__all__ = ["LeaseKeeper", "held_in_this_process"]

BEATS_PER_LEASE = 3

EXIT_LIMIT = 5.0
"""Seconds for which a process that ends waits for outcomes that came after the end of their client."""


_keepers: WeakSet[LeaseKeeper] = WeakSet()


def held_in_this_process(job_id: str, fence: int) -> bool:
    """Return whether a client of this process holds this claim, so that it lives whatever its lease says."""
    return any((job_id, fence) in keeper for keeper in list(_keepers))


@atexit.register
def _write_before_exit() -> None:
    """Have late outcomes written: their threads are daemons, which the end of the interpreter cuts off."""
    deadline = time.monotonic() + EXIT_LIMIT
    for keeper in list(_keepers):
        keeper.wait_written(deadline - time.monotonic())


class LeaseKeeper:
    """Renews all leases together, three times in the length of a lease, while any are held.

    Where other processes see the jobs, a thread does it: it sleeps without a limit while nothing
    is held, and wakes once per beat at most. A store of this process alone needs no thread: who
    could take a job away is blocked by the same handler.
    """

    def __init__(self, store: Store, clock: Clock, *, lease: float, in_thread: Callable[[str], bool]) -> None:
        self._in_thread = in_thread
        if store.shared:
            _keepers.add(self)
        self._store = store
        self._clock = clock
        self._lease = whole_millis(lease)
        self._beat_seconds = lease / BEATS_PER_LEASE
        self._held: dict[str, int] = {}
        self._late: list[tuple[Outcome, Callable[[], None]]] = []
        self._hurried = False
        self._asleep = True
        self._stopped = self._lingering = False
        self._wake = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread: threading.Thread | None = None
        if store.shared:
            thread = self._thread = threading.Thread(target=self._run, name="backlite leases", daemon=True)
            self._ended.add_done_callback(lambda _: thread.join())  # it has nothing left to do
            thread.start()

    def until(self) -> int:
        """Return when a lease that begins now ends."""
        return self._clock.now() + self._lease

    def __contains__(self, claim: tuple[str, int]) -> bool:
        job_id, fence = claim
        return self._held.get(job_id) == fence

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, job_id: str, fence: int) -> None:
        """Renew this claim from now on."""
        self._held[job_id] = fence
        if self._asleep:
            self._asleep = False
            if self._thread is None:
                self._schedule()
            else:
                self._wake.set()

    def drop(self, job_id: str, fence: int) -> None:
        """Renew this claim no longer."""
        if self._held.get(job_id) == fence:
            del self._held[job_id]

    def held(self) -> list[tuple[str, int]]:
        """Return the claims that are renewed: ids and fences."""
        return list(self._held.items())

    def stop(self) -> asyncio.Future[None]:
        """End; the future is done when no renewal is on its way any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is None and not self._ended.done():
            self._ended.set_result(None)
        self._wake.set()
        return self._ended

    def linger(self) -> None:
        """Go on after the client's end, for handlers that will not end; then close the store."""
        self._lingering = True
        self._wake.set()

    def finish_late(self, outcome: Outcome, written: Callable[[], None]) -> None:
        """Write the outcome of a handler that ended after its client; `written` is called then.

        Nothing is written of a claim that was taken away: the store may be closed, and would not accept it.
        """
        if (outcome.id, outcome.fence) not in self:
            return
        self._late.append((outcome, written))
        if self._thread is None:
            self._write_late()
        self._wake.set()

    def wait_written(self, limit: float) -> None:
        """Wait until no late outcome is left to write, at most so many seconds; blocking."""
        deadline = time.monotonic() + limit
        while self._late and time.monotonic() < deadline:
            time.sleep(0.002)  # once, at the end of the process

    def hurry(self) -> None:
        """Renew now: a claim was long in coming."""
        self._hurried = True
        if self._thread is None:
            self._beat()
        self._wake.set()

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._beat_seconds, self._tick)

    def _tick(self) -> None:
        self._beat()
        if self._lingering:
            self._write_late()
        self._doze()
        if not self._asleep and not self._stopped:
            self._schedule()

    def _doze(self) -> None:
        """Fall asleep if nothing is held; in this order, or a claim of that moment is overlooked."""
        self._asleep = True
        if self._held:
            self._asleep = False

    def _run(self) -> None:
        next_beat = 0.0
        while not self._stopped:
            self._wake.wait(None if self._asleep else max(0.0, next_beat - time.monotonic()))
            woken = self._wake.is_set()
            self._wake.clear()
            if self._hurried or (not woken and not self._asleep):
                self._hurried = False
                self._beat()
                self._doze()
                next_beat = time.monotonic() + self._beat_seconds
            elif next_beat <= time.monotonic():  # a first claim: the next beat is a full interval away
                next_beat = time.monotonic() + self._beat_seconds
            if self._loop.is_closed():
                self._drop_the_dead()
            if self._lingering:
                self._write_late()
                if not self._held:
                    self._store.close_soon()
                    return
        with contextlib.suppress(RuntimeError):  # a closed loop listens no more
            self._loop.call_soon_threadsafe(self._ended.set_result, None)

    def _drop_the_dead(self) -> None:
        """Give up the claims of coroutines that died with their event loop; threads go on."""
        self._lingering = True
        for job_id, fence in self.held():
            if not self._in_thread(job_id):
                self.drop(job_id, fence)

    def _beat(self) -> None:
        if held := self.held():
            # What prevents a renewal prevents others from taking the job, and is logged by
            # the dispatcher's own writes; the next beat tries again well before the lease ends.
            with contextlib.suppress(Exception):  # nothing may end the renewals
                self._store.renew(held, until=self.until())

    def _write_late(self) -> None:
        """Write late outcomes; one that cannot be written now is held on to, and tried at the next beat."""
        while self._late:
            outcome, written = self._late[0]
            try:
                lost = self._store.finish_now([outcome])
            except DatabaseUnavailable:
                return
            except BackliteError:  # refused for good: the claim ends with its lease
                lost = {outcome.id}
            self._late.pop(0)
            self.drop(outcome.id, outcome.fence)
            if not lost:
                written()
