"""The doorbell: processes tell each other, without polling, that there are jobs, or that one has died.

Each owner listens on a socket beside the database and is connected to every other one. A byte means:
there may be jobs. The end of the stream means: that owner is gone, see whether it died, and whether
it has committed something that it could no longer tell.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from .locks import give, mode_beside, not_in_children
from .owners import socket_name

__all__ = ["Doorbell"]

LONGEST_PATH = 100
"""Bytes of a socket's path that every system takes: macOS has room for 104 with the end mark."""

BACKLOG = 512

ACCEPT_PAUSE = 1.0
"""Seconds after which to accept again when the process was out of descriptors."""

LOOKS = (0.0, 0.01, 0.1, 1.0)
"""Seconds after the end of a stream at which to look for the dead: a dying process closes its files
one by one, so its lock may be held a moment longer than its sockets."""


class Doorbell:
    """One owner's socket, and its connections to the others."""

    def __init__(
        self, folder: str, owner: str, *, rung: Callable[[], None], gone: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._owner = owner
        self._rung = rung
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._peers: dict[str, socket.socket] = {}
        self._callers: set[socket.socket] = set()
        self._path = os.path.join(folder, socket_name(owner))
        self._detached = False
        self._listener = _socket()
        try:
            with _short_path(self._path) as path:
                self._listener.bind(path)
                os.chmod(path, mode_beside(folder))  # who may write may connect
                give(path, folder)
            self._listener.listen(BACKLOG)
            self._listen()
        except BaseException:
            self._listener.close()
            raise
        not_in_children(self)

    def _listen(self) -> None:
        if self._listener.fileno() >= 0 and not self._detached:
            self._loop.add_reader(self._listener, self._accept)

    def connect(self, owners: Sequence[str]) -> None:
        """Connect to those of these owners that listen and are not connected yet."""
        for owner in owners:
            if owner in self._peers:
                continue
            peer = _socket()
            try:
                with _short_path(os.path.join(self._folder, socket_name(owner))) as path:
                    peer.connect(path)
            except OSError:  # dead, or too busy to be reached now
                peer.close()
            else:
                self._peers[owner] = peer
                self._loop.add_reader(peer, self._read, peer)

    def ring(self) -> None:
        """Tell all others that there may be jobs; from any thread."""
        for peer in [*self._peers.values(), *self._callers]:
            with suppress(OSError):  # it has unread rings already, or is gone, which its reader notices
                peer.send(b"!")

    def detach(self) -> None:
        """Listen no more, as the event loop is about to end; others still see this owner as alive."""
        if self._detached:
            return
        self._detached = True
        for found in [self._listener, *self._peers.values(), *self._callers]:
            self._loop.remove_reader(found)

    def close(self, *, keep: bool) -> None:
        """Close the sockets, which tells the others; with `keep` without removing the file."""
        if not keep:
            with suppress(OSError):
                os.unlink(self._path)
        self.forget()

    def forget(self) -> None:
        """Close the sockets of this process."""
        for found in [self._listener, *self._peers.values(), *self._callers]:
            found.close()
        self._peers.clear()
        self._callers.clear()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptors left: who calls keeps waiting, and we try again later
                self._loop.remove_reader(self._listener)
                self._loop.call_later(ACCEPT_PAUSE, self._listen)
                return
            caller.setblocking(False)
            self._callers.add(caller)
            self._loop.add_reader(caller, self._read, caller)

    def _read(self, peer: socket.socket) -> None:
        try:
            if peer.recv(4096):
                self._rung()
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._loop.remove_reader(peer)
        peer.close()
        self._callers.discard(peer)
        for owner, found in list(self._peers.items()):
            if found is peer:
                del self._peers[owner]
        for delay in LOOKS:
            self._loop.call_later(delay, self._gone)
        self._rung()


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


@contextmanager
def _short_path(path: str) -> Iterator[str]:
    """Give a path to a socket that is short enough, through a link in a private folder if need be."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="backlite-") as private:
        link = os.path.join(private, "f")
        os.symlink(os.path.dirname(path), link)
        yield os.path.join(link, os.path.basename(path))
