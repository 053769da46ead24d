"""Other queues, each in the way that its documentation recommends for speed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

__all__ = ["PEERS", "Peer"]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A queue to compare with, the server it needs if any, and what a sync means to it."""

    name: str
    server: str = ""
    durability: str

    @property
    def version(self) -> str | None:
        """The installed version; None: it is not installed."""
        try:
            return version(self.name)
        except PackageNotFoundError:
            return None


PEERS = [
    Peer(name="huey", durability="SQLite, FULL; at most once"),
    Peer(name="tinyjobs", durability="SQLite, NORMAL: cannot be set"),
    Peer(name="saq", server="redis", durability="Redis, append-only file, appendfsync {redis}"),
    Peer(name="arq", server="redis", durability="Redis, append-only file, appendfsync {redis}"),
    Peer(name="pgqueuer", server="postgres", durability="PostgreSQL, as it comes: each commit synced"),
    Peer(name="procrastinate", server="postgres", durability="PostgreSQL, as it comes: each commit synced"),
]
