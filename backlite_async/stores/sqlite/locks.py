"""What the clients of one process share about one database file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from weakref import WeakValueDictionary

__all__ = ["SharedFile", "shared_file"]


class SharedFile:
    """One database file: its write lock within this process, and who wants to hear of new jobs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._listeners: dict[object, Callable[[], None]] = {}

    def listen(self, key: object, callback: Callable[[], None]) -> None:
        """Have `callback` called, from any thread, when jobs may have become due."""
        self._listeners[key] = callback

    def unlisten(self, key: object) -> None:
        """Undo `listen`; safe to repeat."""
        self._listeners.pop(key, None)

    def ring(self, *, but: object = None) -> None:
        """Tell all listeners, except the one with the key `but`."""
        for key, callback in list(self._listeners.items()):
            if key is not but:
                callback()


_files: WeakValueDictionary[tuple[int, int], SharedFile] = WeakValueDictionary()
_files_lock = threading.Lock()


def shared_file(path: str) -> SharedFile:
    """Return what this process shares about an existing file, whatever path leads to it."""
    found = os.stat(path)
    with _files_lock:
        return _files.setdefault((found.st_dev, found.st_ino), SharedFile())
