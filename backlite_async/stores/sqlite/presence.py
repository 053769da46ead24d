"""One owner among the others: its file, its doorbell, and whether it leads."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ..._job import Hands, Owner, OwnerInfo
from .doorbell import Doorbell
from .locks import SharedFile, create, not_in_children
from .owners import About, Dead, OwnerFile, OwnerFolder

if sys.platform != "win32":
    import fcntl

__all__ = ["Presence", "owners_here"]


class Presence:
    """Shows the other processes that this owner lives, and tells of theirs.

    Where the folder takes no sockets, or the system none of these files, `trouble` says so: then
    others are noticed by looks now and then, and their deaths by the end of their leases.
    """

    def __init__(
        self,
        folder: str,
        shared: SharedFile,
        owner: Owner,
        *,
        rung: Callable[[], None],
        gone: Callable[[], None],
    ) -> None:
        self.owner = owner
        self.trouble = ""
        self.hands = Hands()
        self._folder = folder
        self._shared = shared
        self._others = OwnerFolder(folder, shared)
        self._bell: Doorbell | None = None
        self._file: OwnerFile | None = None
        self._leading: int | None = None
        if sys.platform == "win32":
            self.trouble = "this system has no POSIX locks: a crash is noticed when its leases end"
            return
        shared.owners.add(owner.id)
        shared.departures[self] = partial(_in_loop, asyncio.get_running_loop(), gone)
        not_in_children(self)
        try:
            while not self._appear(rung, gone):
                self._disappear()
            self.connect()
        except BaseException:
            self.close(keep=False)
            raise

    def _appear(self, rung: Callable[[], None], gone: Callable[[], None]) -> bool:
        """Make file and bell; return False if somebody has swept them away meanwhile.

        The file gets its name last, as who has one can be reached; it is there first, so that
        whoever finds it can tell what else belongs to an owner that died at its start.
        """
        self._file = OwnerFile(self._folder, self.owner)
        try:
            self._bell = Doorbell(self._folder, self.owner.id, rung=rung, gone=gone)
        except (OSError, NotImplementedError) as error:
            self.trouble = f"no sockets can be made in {self._folder!r} ({error}): others are noticed late"
        return self._file.appear()

    def _disappear(self) -> None:
        if self._bell is not None:
            self._bell.detach()
            self._bell.close(keep=False)
        if self._file is not None:
            self._file.close(keep=True)
        self._file = self._bell = None

    @property
    def rings(self) -> bool:
        """Whether there is a doorbell."""
        return self._bell is not None

    @property
    def locks(self) -> bool:
        """Whether owners can be told apart by their locks."""
        return self._file is not None

    def connect(self) -> None:
        """Connect to those who have come since, or could not be reached."""
        if self._bell is not None:
            self._bell.connect(self._others.others())

    def ring(self) -> None:
        """Tell the others that there may be jobs."""
        if self._bell is not None:
            self._bell.ring()

    def started(self, job_id: str, fence: int) -> None:
        """Write down that a handler starts."""
        if self._file is not None:
            self._file.started(job_id, fence)

    def ended(self, job_id: str, fence: int) -> None:
        """Cross it out again."""
        if self._file is not None:
            self._file.ended(job_id, fence)

    def dead(self) -> list[Dead]:
        """Take charge of owners that have died, and get to know new ones."""
        if self._file is None:
            return []
        self.connect()
        return self._others.dead()

    def beat(self, owner: str) -> float | None:
        """Return the seconds between two renewals of an owner; 0: it has died; None: not known."""
        return None if self._file is None else self._others.beat(owner)

    def infos(self, now: int) -> list[OwnerInfo]:
        """Return what is known of owners: without a look at files those of this process, and the others."""
        if self._file is None:
            return [self.info(now)]
        return owners_here(self._folder, self._shared, now)

    def info(self, now: int) -> OwnerInfo:
        """Return what is known of this owner."""
        info = About.of(self.owner).told(self.owner.id, now)
        return self.hands.told(info) if self.owner.workers else info

    def handles(self, hands: Hands) -> None:
        """Let others know which kinds of jobs it runs."""
        self.hands = hands
        if self._file is not None:
            self._file.handles(hands)

    def leads(self) -> bool:
        """Return whether this is the one owner that does what is to be done once."""
        if self._file is None:
            return True
        if self._leading is None and os.path.isdir(self._folder):
            file = create(os.path.join(self._folder, "upkeep.lock"), self._folder)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
                return False
            self._leading = file
        return True

    def detach(self) -> None:
        """Listen no more; the others still see this owner."""
        if self._bell is not None:
            self._bell.detach()

    def close(self, *, keep: bool) -> None:
        """Go; with `keep` others are to release what this owner has claimed."""
        self.forget()
        if self._file is not None:
            self._file.close(keep=keep)
        if self._bell is not None:
            self._bell.close(keep=keep)
        self._shared.owners.discard(self.owner.id)
        self._shared.departures.pop(self, None)
        for tell in list(self._shared.departures.values()):
            tell()

    def forget(self) -> None:
        """Close what a forked child has inherited."""
        leading, self._leading = self._leading, None
        if leading is not None:
            with suppress(OSError):
                os.close(leading)


def owners_here(folder: str, shared: SharedFile, now: int) -> list[OwnerInfo]:
    """Return what is known of a file's owners, those of this process without a look at their files."""
    here = [owner for owner in list(shared.departures) if isinstance(owner, Presence)]
    return [owner.info(now) for owner in here] + OwnerFolder(folder, shared).infos(now)


def _in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # a loop that was closed without stopping us
        loop.call_soon_threadsafe(callback)
