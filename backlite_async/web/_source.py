"""Where the page reads: the application's client, or, while nobody has started that, one of its own."""

from __future__ import annotations

import asyncio

from .. import Client

__all__ = ["Source"]

IDLE = 30.0
"""Seconds after the last request in which a client of the page's own is closed again."""


class Source:
    """Gives requests an open client, and starts no workers: jobs run where they are meant to."""

    def __init__(self, client: Client) -> None:
        self._given = client
        self._own: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[bool]] = set()

    async def client(self) -> Client:
        """Return an open client; raises `DatabaseUnusable` and others as its start does."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # another loop than the last one: what that had went with it
            self._loop, self._own, self._lock, self._timer = loop, None, asyncio.Lock(), None
        if self._given.is_open_here:
            if self._own is not None:
                self._close_soon()
            return self._given
        async with self._lock:
            if self._own is None or not self._own.is_open_here:
                own = self._given.observer()
                await own.start()
                self._own = own
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(IDLE, self._close_soon)
            return self._own

    async def close(self) -> None:
        """Close what was opened."""
        self._close_soon()
        if self._closing:
            await asyncio.wait(self._closing)

    def _close_soon(self) -> None:
        own, self._own = self._own, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if own is not None:
            closing = asyncio.ensure_future(own.stop(IDLE))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
