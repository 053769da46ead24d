"""Owner files: how a process shows that it lives, and what it was doing when it died.

Each started client holds a lock on a small file beside the database, which the operating system
drops when the process dies, however it dies. The file itself stays: whoever gets its lock releases
the owner's jobs and removes it. It is mapped into memory and holds the ids of the jobs whose handlers
have started, so that a death is counted against these, and not against jobs that only waited.

The lock is a POSIX one, because a forked child does not inherit it. It belongs to the process: closing
any descriptor of a file drops the lock on it. So a process never opens the files of its own owners twice.
"""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress
from hashlib import blake2b

import msgspec

from ..._clock import from_millis
from ..._job import Hands, Owner, OwnerInfo
from .locks import SharedFile, create, not_in_children

if sys.platform != "win32":
    import fcntl

__all__ = ["About", "Dead", "OwnerFile", "OwnerFolder", "socket_name"]

SLOT = 128
"""Bytes of a slot: a length, then fence and id of a job. The first slot describes the owner."""

RELEASE_LIMIT = 10.0
"""Seconds that a process may take to release a dead owner's jobs; it may have been stopped meanwhile."""

SUFFIX, UNBORN, KINDS, HALF = ".owner", ".unborn", ".kinds", ".half"


def socket_name(owner: str) -> str:
    """Return the name of an owner's socket; short, because a socket's path must be."""
    return blake2b(owner.encode(), digest_size=8).hexdigest() + ".sock"


class OwnerFile:
    """The file of an owner of this process: locked, and mapped into memory."""

    def __init__(self, folder: str, owner: Owner) -> None:
        self._path = os.path.join(folder, owner.id + SUFFIX)
        self._unborn = os.path.join(folder, owner.id + UNBORN)
        self._free = list(range(owner.slots, 0, -1))
        self._taken: dict[bytes, int] = {}
        self._file = create(self._unborn, folder)
        size = SLOT * (owner.slots + 1)
        try:
            _fill(self._file, size)  # so that a full disk cannot hit the mapping
            self._map: mmap.mmap | None = mmap.mmap(self._file, size)
        except BaseException:
            os.close(self._file)
            with suppress(OSError):
                os.unlink(self._unborn)
            raise
        self._map[:SLOT] = About.of(owner).slot()
        not_in_children(self)

    def appear(self) -> bool:
        """Lock the file, then give it its name: else another process takes it for a dead one's.

        Returns False if somebody has swept it away before it was locked.
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(self._unborn, self._path)
        except (BlockingIOError, FileNotFoundError):
            return False
        return True

    def started(self, job_id: str, fence: int) -> None:
        """Write down that this job's handler starts; the length last, so that no half id is read."""
        if self._map is not None and self._free:
            name = _name(job_id, fence)
            slot = self._taken[name] = self._free.pop()
            self._map[slot * SLOT + 1 : slot * SLOT + 1 + len(name)] = name
            self._map[slot * SLOT] = len(name)

    def ended(self, job_id: str, fence: int) -> None:
        """Cross that out again."""
        slot = self._taken.pop(_name(job_id, fence), None)
        if slot is not None and self._map is not None:
            self._map[slot * SLOT] = 0
            self._free.append(slot)

    def handles(self, hands: Hands) -> None:
        """Write down which kinds of jobs this owner runs, in a file beside its own."""
        if self._map is None:
            return
        path = self._path.removesuffix(SUFFIX) + KINDS
        with suppress(OSError):  # on a full disk: then others do not know
            file = create(path + HALF, os.path.dirname(path))
            try:
                os.ftruncate(file, 0)
                os.write(file, msgspec.json.encode(hands))
            finally:
                os.close(file)
            os.replace(path + HALF, path)

    def close(self, *, keep: bool) -> None:
        """Drop the lock; with `keep` the file stays, for others to release the jobs of this owner."""
        if self._map is None:
            return
        self._map.close()
        self._map = None
        if not keep:
            _forget_kinds(self._path.removesuffix(SUFFIX))
            with suppress(OSError):  # then others find it, and nothing to release
                os.unlink(self._path)
        os.close(self._file)

    def forget(self) -> None:
        """Close what a forked child has inherited; the lock stays with its process."""
        self.close(keep=True)


class Dead:
    """A dead owner, whose jobs are ours to release: nobody else gets its lock meanwhile."""

    def __init__(self, folder: str, shared: SharedFile, owner: str, file: int) -> None:
        self.id = owner
        self._folder = folder
        self._shared = shared
        self._file = file
        self._started = _read_started(file)
        with suppress(OSError):  # on a full disk
            released = msgspec.structs.replace(About.read(file), beat=0.0)
            os.pwrite(file, released.slot(), 0)  # our lock on it must not make it look alive

    def started(self, job_id: str, fence: int) -> bool:
        """Return whether this job's handler had started, and its outcome was not written."""
        return _name(job_id, fence) in self._started

    def bury(self) -> None:
        """Remove the owner's files: its jobs are released."""
        _forget_kinds(os.path.join(self._folder, self.id))
        for name in (socket_name(self.id), self.id + SUFFIX):
            with suppress(OSError):
                os.unlink(os.path.join(self._folder, name))
        self.leave()

    def leave(self) -> None:
        """Leave it to the next one who looks."""
        with self._shared.owners_lock:
            os.close(self._file)
            self._shared.burying.discard(self.id)


class OwnerFolder:
    """All owners of a database file, on this host."""

    def __init__(self, folder: str, shared: SharedFile) -> None:
        self._folder = folder
        self._shared = shared

    def others(self) -> list[str]:
        """Return the owners, dead or alive, that are not of this process."""
        return [owner for owner in self._named(SUFFIX) if owner not in self._shared.owners]

    def _named(self, suffix: str) -> list[str]:
        """Return the owners that have a file of this kind; none if somebody has removed the folder."""
        with suppress(FileNotFoundError):
            names = os.listdir(self._folder)
            return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
        return []

    def dead(self) -> list[Dead]:
        """Return the owners that have died and are not being released by others."""
        found = []
        with self._shared.owners_lock:
            self._sweep()
            for owner in self.others():
                file = None if owner in self._shared.burying else self._lock(owner + SUFFIX)
                if file is not None:
                    try:
                        found.append(Dead(self._folder, self._shared, owner, file))
                    except OSError:  # it cannot be read now: left to the next look
                        os.close(file)
                    else:
                        self._shared.burying.add(owner)
        return found

    def beat(self, owner: str) -> float | None:
        """Return the seconds between two renewals of an owner; 0: it has died; None: not known."""
        with self._shared.owners_lock:
            if owner in self._shared.owners:
                return None  # ours: who holds a claim here is known without files
            if owner in self._shared.burying:
                return 0.0
            try:
                file = os.open(os.path.join(self._folder, owner + SUFFIX), os.O_RDWR)
            except FileNotFoundError:
                return None
            except OSError:  # no descriptors left: it may well live
                return RELEASE_LIMIT
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return About.read(file).beat or RELEASE_LIMIT
            finally:
                os.close(file)
        return 0.0

    def infos(self, now: int) -> list[OwnerInfo]:
        """Return what is known of the owners that are not of this process."""
        found = []
        with self._shared.owners_lock:
            for owner in self.others():
                info = None if owner in self._shared.burying else self._info(owner, now)
                if info is not None:
                    found.append(info)
        return found

    def _info(self, owner: str, now: int) -> OwnerInfo | None:
        """Look at the file of another owner, without taking its lock; None: it is gone, or cannot be read."""
        try:
            file = os.open(
                os.path.join(self._folder, owner + SUFFIX), os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
            )
        except OSError:
            return None
        try:
            about = About.read(file)
            info = about.told(owner, now if about.beat and _locked(file) else None) if about.pid else None
        except OSError:
            return None
        finally:
            os.close(file)
        if info is None or not info.workers:
            return info
        return _hands(os.path.join(self._folder, owner)).told(info)

    def _lock(self, name: str) -> int | None:
        """Open and lock a file that is still there; None if it is not, or another has its lock."""
        path = os.path.join(self._folder, name)
        try:
            file = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(file).st_ino:
                return file
        except OSError:
            pass
        os.close(file)
        return None

    def _sweep(self) -> None:
        """Remove what owners left that died before their file had its name."""
        for owner in self._named(UNBORN):
            file = None if owner in self._shared.owners else self._lock(owner + UNBORN)
            if file is not None:
                for left in (socket_name(owner), owner + UNBORN):
                    with suppress(OSError):
                        os.unlink(os.path.join(self._folder, left))
                os.close(file)


def _fill(file: int, size: int) -> None:
    """Write zeros; raises OSError if the disk is full."""
    written = 0
    while written < size:
        written += os.pwrite(file, bytes(size - written), written)


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the first slot of an owner's file holds. `beat` 0: it has died, and is being released."""

    pid: int = 0
    beat: float = 0.0
    started_at: int = 0
    workers: int = 0
    host: str = ""

    @classmethod
    def of(cls, owner: Owner) -> About:
        """Describe an owner of this process."""
        return cls(
            pid=owner.pid or os.getpid(),
            beat=owner.beat,
            started_at=owner.started_at,
            workers=owner.workers,
            host=owner.host,
        )

    @classmethod
    def read(cls, file: int) -> About:
        """Read the description of another; what cannot be read says nothing."""
        try:
            return msgspec.json.decode(os.pread(file, SLOT, 0).rstrip(b"\0"), type=cls)
        except (msgspec.MsgspecError, UnicodeError):
            return cls()

    def slot(self) -> bytes:
        """Return it as it is written: with as much of the host's name as there is room for."""
        about = self
        while len(encoded := msgspec.json.encode(about)) >= SLOT and about.host:
            about = msgspec.structs.replace(about, host=about.host[:-1])
        return encoded[:SLOT].ljust(SLOT, b"\0")

    def told(self, owner: str, seen_at: int | None) -> OwnerInfo:
        """Return what is told of an owner; it lives if it was seen."""
        return OwnerInfo(
            id=owner,
            host=self.host,
            pid=self.pid,
            started_at=from_millis(self.started_at) if self.started_at else None,
            workers=self.workers,
            running=0,
            alive=seen_at is not None,
            seen_at=None if seen_at is None else from_millis(seen_at),
            handles=None if self.workers else (),
        )


def _hands(place: str) -> Hands:
    """Return which kinds of jobs an owner runs; none are told where it has not said so."""
    try:
        with open(place + KINDS, "rb") as file:
            return msgspec.json.decode(file.read(), type=Hands)
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return Hands()


def _forget_kinds(place: str) -> None:
    for name in (place + KINDS, place + KINDS + HALF):
        with suppress(OSError):
            os.unlink(name)


def _locked(file: int) -> bool:
    """Return whether another process has the lock of a file, without trying to get it."""
    try:
        os.lockf(file, os.F_TEST, 0)
    except OSError:
        return True
    return False


def _name(job_id: str, fence: int) -> bytes:
    return f"{fence} {job_id}".encode()[: SLOT - 1]


def _read_started(file: int) -> set[bytes]:
    content = os.pread(file, os.fstat(file).st_size, 0)
    slots = (content[at : at + SLOT] for at in range(SLOT, len(content), SLOT))
    return {slot[1 : 1 + slot[0]] for slot in slots if slot[0]}
