"""Calls of handlers in worker threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["InThread", "ThreadCall"]


class InThread(BaseException):
    """Carries what a handler raised in its thread, where not even KeyboardInterrupt is the user's."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class ThreadCall:
    """A call in a worker thread. What it raises is carried over as a value: futures do not carry all.

    A thread cannot be cancelled, only its being waited for; so it can be waited for once more.
    """

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], started: Callable[[], None]
    ) -> None:
        self._started = started
        self._function = function
        self._arguments = arguments
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._lock = threading.Lock()
        self._state = "new"
        self._value: Any = None
        self._error: BaseException | None = None

    def __call__(self) -> None:
        with self._lock:
            if self._state == "dropped":
                return
            self._state = "running"
        self._started()
        try:
            self._value = self._function(*self._arguments)
        except BaseException as error:
            self._error = error
        self._state = "ended"
        with contextlib.suppress(RuntimeError):  # nobody waits on a closed loop
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    @property
    def running(self) -> bool:
        """Whether the thread is in the function."""
        return self._state == "running"

    async def outlast(self) -> bool:
        """Wait for the thread through cancellations; return whether it has run the function at all."""
        with self._lock:
            if self._state == "new":
                self._state = "dropped"
                return False
        while not self._ended.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([self._ended])
        return True

    def answer(self) -> Any:
        """Return what the function returned, or raise what it raised as `InThread`."""
        if self._error is not None:
            raise InThread(self._error)
        return self._value
