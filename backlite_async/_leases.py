"""Renewing the leases of running jobs, also while a handler blocks the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from ._clock import Clock, whole_millis
from ._errors import BackliteError
from ._job import Outcome
from .stores import Store

__all__ = ["LeaseKeeper"]

BEATS_PER_LEASE = 3


class LeaseKeeper:
    """Renews all leases together, three times in the length of a lease, while any are held.

    Where other processes see the jobs, a thread does it: it sleeps without a limit while nothing
    is held, and wakes once per beat at most. A store of this process alone needs no thread: who
    could take a job away is blocked by the same handler.
    """

    def __init__(self, store: Store, clock: Clock, *, lease: float) -> None:
        self._store = store
        self._clock = clock
        self._lease = whole_millis(lease)
        self._beat_seconds = lease / BEATS_PER_LEASE
        self._held: dict[str, int] = {}
        self._late: list[Outcome] = []
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
        if self._thread is None:
            self._ended.set_result(None)
        self._wake.set()
        return self._ended

    def linger(self) -> None:
        """Go on after the client's end, for handlers that will not end; then close the store."""
        self._lingering = True
        self._wake.set()

    def finish_late(self, outcome: Outcome) -> None:
        """Write the outcome of a handler that ended after its client."""
        self._late.append(outcome)
        if self._thread is None:
            self._write_late()
        self._wake.set()

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._beat_seconds, self._tick)

    def _tick(self) -> None:
        self._beat()
        self._doze()
        if not self._asleep and not self._stopped:
            self._schedule()

    def _doze(self) -> None:
        """Fall asleep if nothing is held; in this order, or a claim of that moment is overlooked."""
        self._asleep = True
        if self._held:
            self._asleep = False

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(None if self._asleep else self._beat_seconds)
            if self._wake.is_set():
                self._wake.clear()  # a first claim, or the end: the next beat is a full interval away
            else:
                self._beat()
                self._doze()
            if self._loop.is_closed() and not self._lingering:
                self._held.clear()  # the handlers died with their loop
                self._lingering = True
            if self._lingering:
                self._write_late()
                if not self._held:
                    self._store.close_soon()
                    return
        with contextlib.suppress(RuntimeError):  # a closed loop listens no more
            self._loop.call_soon_threadsafe(self._ended.set_result, None)

    def _beat(self) -> None:
        if held := self.held():
            # What prevents a renewal prevents others from taking the job, and is logged by
            # the dispatcher's own writes; the next beat tries again well before the lease ends.
            with contextlib.suppress(BackliteError):
                self._store.renew(held, until=self.until())

    def _write_late(self) -> None:
        while self._late:
            outcome = self._late[0]
            with contextlib.suppress(BackliteError):
                self._store.finish_now([outcome])
            self._late.pop(0)
            self.drop(outcome.id, outcome.fence)
