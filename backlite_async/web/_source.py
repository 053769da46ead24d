"""Where the page reads: the application's client, or, while nobody has started that, one of its own."""

from __future__ import annotations

import asyncio

from .. import Client

__all__ = ["Source"]

IDLE = 30.0
"""Seconds after the last request in which a client of the page's own is closed again."""


class _Own:
    """A client of the page's own, and how many requests use it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.users = 0


class Source:
    """Gives requests an open client, and starts no workers: jobs run where they are meant to."""

    def __init__(self, client: Client) -> None:
        self._given = client
        self._own: _Own | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[bool]] = set()

    async def client(self) -> Client:
        """Return an open client, to be handed to `left` when the request is answered.

        Raises `DatabaseUnusable` and others as its start does.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # another loop than the last one: what that had went with it
            self._loop, self._own, self._lock, self._timer = loop, None, asyncio.Lock(), None
        if self._given.is_open_here:
            if self._own is not None and not self._own.users:
                self._close_soon()
            return self._given
        async with self._lock:
            if self._own is None or not self._own.client.is_open_here:
                client = self._given.observer()
                await client.start()
                self._own = _Own(client)
            self._stop_timer()
            self._own.users += 1
            return self._own.client

    def left(self, client: Client) -> None:
        """Take note that a request is answered. What nobody uses any more is closed, after a while."""
        own = self._own
        if own is None or own.client is not client:
            return
        own.users -= 1
        if own.users:
            return
        if self._given.is_open_here:
            self._close_soon()
        else:
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(IDLE, self._close_soon)

    def lost(self, client: Client) -> None:
        """Take note that the file of a client was replaced: that of the page's own is opened anew."""
        if self._own is not None and self._own.client is client:
            self._close_soon()

    async def close(self) -> None:
        """Close what was opened."""
        self._close_soon()
        if self._closing:
            await asyncio.wait(self._closing)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_soon(self) -> None:
        own, self._own = self._own, None
        self._stop_timer()
        if own is not None:
            closing = asyncio.ensure_future(own.client.stop(IDLE))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
