"""One life of a client, from start to stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

from ._dispatcher import WRITE_GRACE, Dispatcher
from ._errors import InvalidState
from ._stop import StopRequest
from .stores import Store

__all__ = ["Run"]


class Run:
    """One life of a client, from start to stop."""

    def __init__(self, serve: Callable[[Run], Coroutine[Any, Any, bool]]) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.get_running_loop()
        self.stop = StopRequest()
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.ready.add_done_callback(lambda ready: ready.exception())  # start() may no longer listen
        self.store: Store | None = None
        self.was_open = False
        self.owner = ""
        self.dispatcher: Dispatcher | None = None
        self.waiting: asyncio.Task[None] | None = None
        self.task = self.loop.create_task(serve(self), name="backlite client")
        self.task.add_done_callback(self._ended)

    @property
    def over(self) -> bool:
        """Whether it has ended, or its event loop has."""
        return self.task.done() or self.loop.is_closed()

    def opened(self, store: Store) -> None:
        """Let `start` return."""
        self.store, self.was_open = store, True
        if not self.ready.done():
            self.ready.set_result(None)

    async def close(self, store: Store) -> asyncio.Task[None]:
        """Close the store in good order, or at the limit in any; return the task that did, as it ended."""
        dispatcher = self.dispatcher
        lend = dispatcher is not None and dispatcher.lingers
        closing = asyncio.ensure_future(store.close(lend=lend))
        if not await self.stop.outlast([closing], grace=WRITE_GRACE):
            store.abandon()
            await self.stop.outlast([closing])
        if closing.cancelled():  # by the end of the loop, which lets nothing more be waited for
            store.close_soon()
        elif dispatcher is not None and lend:
            dispatcher.linger()
        return closing

    def clear_away(self) -> None:
        """Close what an event loop left behind that was closed under it."""
        if self.loop.is_closed():
            if self.dispatcher is not None:
                self.dispatcher.clear_away()
            if self.store is not None:
                self.store.close_soon()

    def check_process(self) -> None:
        """Raise in a process that was forked from the one that started the client."""
        if os.getpid() != self.pid:
            raise InvalidState(
                f"this client was started in process {self.pid}, of which this one ({os.getpid()}) is a fork:"
                " its threads did not come along, and SQLite's locks do not. Use a Client in a process"
                " that is spawned, or started by exec"
            )

    def somebody_gone(self) -> None:
        """Take note that another owner is gone."""
        if self.dispatcher is not None:
            self.dispatcher.look_for_the_dead()

    def _ended(self, task: asyncio.Task[bool]) -> None:
        self.store = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not self.ready.done():
            self.ready.set_exception(error or InvalidState("stopped before it had started"))
