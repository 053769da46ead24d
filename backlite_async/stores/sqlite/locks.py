"""What the clients of one process share about one database file, and the turn to write to it."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Protocol
from weakref import WeakSet, WeakValueDictionary

if sys.platform != "win32":
    import fcntl

from ..._errors import DatabaseUnusable, InvalidState

__all__ = [
    "SharedFile",
    "WriteTurn",
    "create",
    "give",
    "mode_beside",
    "not_in_children",
    "shared_file",
    "side_folder",
]

TURN_LIMIT, SHORT_LIMIT = 1.0, 0.02
"""Seconds to wait for a turn; then it is tried without one, as its holder may have been stopped. Who
has waited in vain waits for less, until there is a turn again."""

QUEUE_STEP, TURN_STEP = 0.001, 0.0002
"""Seconds between two looks whether the queue, or the turn, is free."""


def side_folder(path: str) -> str:
    """Return the folder beside a database file where processes meet: locks, owners, doorbells."""
    return os.path.realpath(path) + "-backlite"


def create(path: str, folder: str) -> int:
    """Open a file of the side folder for reading and writing, with the mode of the database file."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0)  # or root could be made to change the mode of another file
    try:
        file = os.open(path, flags | os.O_EXCL, 0o600)
    except FileExistsError:
        file = os.open(path, flags, 0o600)
    else:  # only what was made here, which is no link to something else
        give(file, folder)
    with suppress(OSError):  # somebody else's, who has chosen its mode
        os.fchmod(file, mode_beside(folder))
    return file


def mode_beside(folder: str) -> int:
    """Return the mode for what is put into the side folder: that of the database file."""
    return stat.S_IMODE(os.stat(folder.removesuffix("-backlite")).st_mode) & 0o666


def give(what: int | str, folder: str) -> None:
    """Let what was made here belong to whom the database belongs, as SQLite does with its log.

    Else, where root or another of the group is the first to look at it, the application could not use it.
    """
    if sys.platform != "win32":
        with suppress(OSError):
            whose = os.stat(folder.removesuffix("-backlite"))
            owner = whose.st_uid if os.geteuid() == 0 else -1
            os.chown(what, owner, whose.st_gid, follow_symlinks=isinstance(what, int))


class WriteTurn:
    """Takes turns with the other processes that write to the same file.

    SQLite's own lock is won by chance: the longer one has waited, the less often one asks, and a
    busy process starves the others. Here who waits holds the *queue*, so that nobody can overtake,
    least of all who has just had the turn. The locks decide about fairness only: who does not get
    a turn in time, because its holder was stopped (SIGSTOP) in the middle of it, goes on without.
    """

    def __init__(self, folder: str) -> None:
        self._files: list[int] = []
        self._distrusted = False
        for name in ("queue.lock", "turn.lock"):
            self._files.append(create(os.path.join(folder, name), folder))
        not_in_children(self)

    @contextmanager
    def taken(self, give_up: threading.Event) -> Iterator[None]:
        """Have the turn, or go on without it after a while; `give_up` ends the waiting."""
        held = bool(self._files) and self._take(SHORT_LIMIT if self._distrusted else TURN_LIMIT, give_up)
        self._distrusted = not held
        try:
            yield
        finally:
            if held and self._files:
                fcntl.flock(self._files[1], fcntl.LOCK_UN)

    def _take(self, limit: float, give_up: threading.Event) -> bool:
        deadline = time.monotonic() + limit
        queue, turn = self._files
        if not _wait(queue, deadline, QUEUE_STEP, give_up):
            return False
        try:
            return _wait(turn, deadline, TURN_STEP, give_up)
        finally:
            fcntl.flock(queue, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files."""
        files, self._files = self._files, []
        for file in files:
            os.close(file)

    __del__ = forget = close


def _wait(file: int, deadline: float, step: float, give_up: threading.Event) -> bool:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline or give_up.wait(step):
                return False
        else:
            return True


class SharedFile:
    """One database file: its lock within this process, its turn among processes, and its users here."""

    def __init__(self, folder: str) -> None:
        self.lock = threading.Lock()
        self._turn = WriteTurn(folder) if sys.platform != "win32" else None
        self.owners: set[str] = set()
        self.burying: set[str] = set()
        self.owners_lock = threading.Lock()
        self.departures: dict[object, Callable[[], None]] = {}
        self.opened = 0
        self._listeners: dict[object, Callable[[], None]] = {}

    def turn(self, give_up: threading.Event) -> AbstractContextManager[None]:
        """Return what takes this process's turn to write; the lock must be held."""
        return nullcontext() if self._turn is None else self._turn.taken(give_up)

    def listen(self, key: object, callback: Callable[[], None]) -> None:
        """Have `callback` called, from any thread, when jobs may have become due."""
        self._listeners[key] = callback

    def unlisten(self, key: object) -> None:
        """Undo `listen`; safe to repeat."""
        self._listeners.pop(key, None)

    def ring(self, *, but: object = None) -> None:
        """Tell all listeners of this process, except the one with the key `but`."""
        for key, callback in list(self._listeners.items()):
            if key is not but:
                callback()


_files: WeakValueDictionary[tuple[int, int], SharedFile] = WeakValueDictionary()
_files_lock = threading.Lock()
_open_at_fork: set[tuple[int, int]] = set()


def shared_file(path: str, folder: str) -> SharedFile:
    """Return what this process shares about an existing file, whatever path leads to it."""
    found = os.stat(path)
    key = found.st_dev, found.st_ino
    with _files_lock:
        if key in _open_at_fork:
            raise InvalidState(
                f"database {path!r} was open in the process that this one was forked from. SQLite would"
                " believe that this process holds its locks, and damage the file: use it in a process"
                " that is spawned, or started by exec"
            )
        shared = _files.get(key)
        if shared is None:
            try:
                shared = _files[key] = SharedFile(folder)
            except PermissionError as error:
                reason = f"{error.filename!r}, where processes meet, is not for this user: {error.strerror}"
                raise DatabaseUnusable(path, f"{reason}; it must have the owner of the database") from error
        return shared


class _Forgetting(Protocol):
    def forget(self) -> None: ...


_inherited: WeakSet[_Forgetting] = WeakSet()


def not_in_children(thing: _Forgetting) -> None:
    """Have `thing.forget()` called in processes forked from this one.

    An inherited socket or lock would let this process look alive after its death.
    """
    _inherited.add(thing)


def _forget_all() -> None:
    global _files_lock  # noqa: PLW0603 - another thread may have held it at the fork
    _files_lock = threading.Lock()
    _open_at_fork.update(key for key, shared in _files.items() if shared.opened)
    _files.clear()
    for thing in list(_inherited):
        thing.forget()
    _inherited.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
