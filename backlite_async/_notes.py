"""What running jobs say of themselves - how far they are, log lines - on its way into the store."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from ._clock import Clock
from ._failure import storable
from ._health import Health
from ._history import MOST_LINES, Line, Note
from ._job import ClaimedJob
from .stores import Store

__all__ = ["MOST_MESSAGE", "MOST_TEXT", "Notes", "Said"]

EVERY = 0.2
"""Seconds that what was said may wait, for more of it; so between two writes at least."""

LARGEST_WRITE = 2000
"""Jobs and lines in one write, which keeps others from writing meanwhile."""

MOST_TEXT, MOST_MESSAGE = 2000, 1000
"""Characters of a log line, and of the message of a progress."""

STEP_ASIDE = 0.01
"""Seconds after which a handler that only reports lets the event loop have a turn."""


class Said:
    """What one attempt has said and is not known to be stored. Safe from any thread."""

    __slots__ = ("_closed", "_dropped", "_lines", "_notes", "_number", "_progress", "_turn_at", "job")

    def __init__(self, job: ClaimedJob, notes: Notes) -> None:
        self.job = job
        self._notes = notes
        self._progress: tuple[float, str | None] | None = None
        self._lines: list[Line] = []
        self._number = self._dropped = 0
        self._closed = False
        self._turn_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._lines) or self._progress is not None

    def report(self, fraction: float, message: str | None) -> bool:
        """Take note of how far it is; return whether it is time to let others have a turn."""
        notes = self._notes
        with notes.lock:
            self._progress = (fraction, message)
            notes.changed(self)
        now = notes.time()
        late = now >= self._turn_at > 0.0
        if late or not self._turn_at:
            self._turn_at = now + STEP_ASIDE
        return late

    def keep(self, level: str, render: Callable[[], str]) -> None:
        """Keep a log line, if there is room for it and for one that counts those for which there is none."""
        room = self._number < MOST_LINES - 1
        text = storable(render(), MOST_TEXT) if room else ""
        notes = self._notes
        with notes.lock:
            if room and self._number < MOST_LINES - 1:
                self._lines.append(Line(self._number, notes.clock.now(), storable(level, 50), text))
                self._number += 1
                notes.changed(self)
            else:
                self._dropped += 1

    def note(self, most: int = LARGEST_WRITE) -> Note:
        """Return what is not stored, at most so many lines."""
        with self._notes.lock:
            return self._note(tuple(self._lines[:most]))

    def all(self) -> Note | None:
        """Return all that is not stored, for an attempt that ends now; None: there is nothing."""
        with self._notes.lock:
            lines = self._lines
            if self._dropped:
                text = f"{self._dropped:,} more lines, which are not kept"
                lines = [*lines, Line(self._number, self._notes.clock.now(), "warning", text)]
            return self._note(tuple(lines)) if lines or self._progress is not None else None

    def _note(self, lines: tuple[Line, ...]) -> Note:
        job = self.job
        fraction, message = self._progress or (None, None)
        return Note(
            id=job.id, fence=job.fence, attempt=job.attempt, progress=fraction, message=message, lines=lines
        )

    def stored(self, note: Note) -> bool:
        """Forget what was stored; return whether that is news: else the attempt's outcome tells of it."""
        with self._notes.lock:
            del self._lines[: len(note.lines)]
            if self._progress == (note.progress, note.message):
                self._progress = None
            return not self._closed

    def close(self) -> None:
        """Take no more: the attempt has ended, and what it has said goes with its outcome."""
        with self._notes.lock:
            self._closed = True
            self._notes.forget(self)

    @property
    def closed(self) -> bool:
        """Whether nothing more is kept."""
        return self._closed


class Notes:
    """Collects what running jobs say, and writes it now and then, for all of them together.

    A task of its own, which nobody waits for: what it could not write goes with the outcome of its attempt.
    Nothing wakes up while nobody says anything.
    """

    def __init__(self, store: Store, clock: Clock, health: Health) -> None:
        self._store = store
        self.clock = clock
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.time = self._loop.time
        self.lock = threading.RLock()
        """Reentrant, as what is garbage may log when it is collected."""
        self._changed: dict[Said, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self.listener: Callable[[ClaimedJob, Note], None] | None = None
        """Called in the event loop with each note once it is stored: at most every `EVERY` seconds a job."""

    def changed(self, said: Said) -> None:
        """Write what an attempt has said, soon. Call it with the lock."""
        if said in self._changed or said.closed:
            return
        self._changed[said] = None
        if threading.get_ident() == self._thread:
            self._begin()
        else:
            with contextlib.suppress(RuntimeError):  # nobody writes on a closed loop
                self._loop.call_soon_threadsafe(self._begin)

    def forget(self, said: Said) -> None:
        """Write nothing more of this attempt. Call it with the lock."""
        self._changed.pop(said, None)

    def told(self, job: ClaimedJob, note: Note) -> None:
        """Pass on what is stored."""
        if self.listener is not None:
            self.listener(job, note)

    def _begin(self, pause: float = 0.0) -> None:
        if self._timer is None and not self._closing:
            self._timer = self._loop.call_later(max(pause, EVERY), self._wake.set)

    def close(self) -> None:
        """Let `run` return."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake.set()

    async def run(self) -> None:
        """Work until closed."""
        while not self._closing:
            pause = 0.0
            try:
                await self._wake.wait()
                self._wake.clear()
                self._timer = None
                if not self._closing:
                    await self._write()
                    self._health.succeeded()
            except asyncio.CancelledError:  # ends with its client, in the client's own order
                pass
            except Exception as error:  # notes can wait until the trouble is over
                pause = self._health.failed(error)
            if self._changed or self._health.failing:
                self._begin(pause)

    async def _write(self) -> None:
        """Write what was said; what cannot be written stays."""
        batch = self._batch()
        if not batch:
            return
        await self._store.note(list(batch.values()))
        for said, note in batch.items():
            with self.lock:
                news = said.stored(note)
                self._changed.pop(said, None)
                if said and news:
                    self._changed[said] = None  # behind the others
            if news:
                self.told(said.job, note)

    def _batch(self) -> dict[Said, Note]:
        batch: dict[Said, Note] = {}
        room = LARGEST_WRITE
        with self.lock:
            for said in list(self._changed):
                note = batch[said] = said.note(room)
                room -= 1 + len(note.lines)
                if room <= 0:
                    break
        return batch
