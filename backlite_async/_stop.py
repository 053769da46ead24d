"""The request to stop: when, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["StopRequest"]


class StopRequest:
    """Asked once or several times; the earliest limit counts.

    Whoever waits through it outlasts a cancellation of its own task, which counts as the request
    to stop at once: what has been started must be brought to its end in good order.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.asked = False
        self._asked: asyncio.Future[None] = self._loop.create_future()
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._limit: float | None = None

    def ask(self, timeout: float | None) -> None:
        """Ask to stop within `timeout` seconds; None: however long it takes, 0: at once."""
        limit = None if timeout is None else self._loop.time() + timeout
        if self._limit is None or (limit is not None and limit < self._limit):
            self._limit = limit
        self.asked = True
        if not self._asked.done():
            self._asked.set_result(None)
        if not self._changed.done():
            self._changed.set_result(None)

    def remaining(self) -> float | None:
        """Return the seconds until the limit, None where there is none."""
        return None if self._limit is None else max(0.0, self._limit - self._loop.time())

    async def wait(self) -> None:
        """Wait until somebody asks."""
        await self.outlast([self._asked])

    async def outlast(self, what: Iterable[asyncio.Future[Any]], *, grace: float | None = None) -> bool:
        """Wait for futures, at most until `grace` seconds after the limit (None: for ever).

        Returns whether all are done.
        """
        futures = list(what)
        while pending := [future for future in futures if not future.done()]:
            timeout = None
            if grace is not None and self._limit is not None:
                timeout = self._limit + grace - self._loop.time()
                if timeout <= 0:
                    return False
            if self._changed.done():
                self._changed = self._loop.create_future()
            try:
                await asyncio.wait(
                    [*pending, self._changed], timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
            except asyncio.CancelledError:
                self.ask(0)
        return True
