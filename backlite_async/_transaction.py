"""`job.transaction()`: the effects of a handler and the completion of its job, in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import anyio

from ._errors import InvalidState, LeaseLost, TransactionTimeout
from ._job import Complete
from .stores import Block, Store

if TYPE_CHECKING:
    import aiosqlite

    from ._context import JobContext

__all__ = ["JobTransaction", "longest_transaction"]


def longest_transaction(lease: float) -> float:
    """Return how many seconds a transaction may be open: it keeps all leases from being renewed."""
    return min(5.0, 0.3 * lease)


class JobTransaction:
    """An asynchronous context manager; made by `job.transaction()`."""

    def __init__(
        self,
        job: JobContext,
        store: Callable[[], Store],
        *,
        limit: float,
        outcome: Callable[[], Complete],
        committed: Callable[[Complete], None],
    ) -> None:
        self._job = job
        self._store = store
        self._limit = limit
        self._outcome = outcome
        self._committed = committed
        self._block: Block | None = None

    async def __aenter__(self) -> aiosqlite.Connection:
        job = self._job
        if job.open_block is not None or job.completed:
            what = "completed in a transaction already" if job.completed else "a transaction open already"
            raise InvalidState(f"job {job.id} has {what}; a handler completes its job once")
        job.open_block = self
        self._had = len(job.extends)
        try:
            self._block = await self._store().begin(self._limit)
        except BaseException:
            job.open_block = None
            raise
        self._scope = anyio.CancelScope(deadline=anyio.current_time() + self._limit)
        self._scope.__enter__()
        connection: aiosqlite.Connection = self._block.connection
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block, scope = self._block, self._scope
        assert block is not None
        outcome = self._outcome()
        try:
            scope.__exit__(kind, error, trace)
            late = scope.cancelled_caught or anyio.current_time() >= scope.deadline
            if error is None and not late:
                await block.commit(outcome)
        finally:
            self._job.open_block = None
            if block.committed:  # also where this task was cancelled meanwhile
                self._job.completed = True
                self._committed(outcome)
            else:
                self._job.forget_extends(self._had)
                await block.rollback()
        cancelled = isinstance(error, asyncio.CancelledError) and not scope.cancelled_caught
        if (late or block.overdue) and not cancelled:
            raise TransactionTimeout(self._job.id, self._limit) from error
        if error is None and not block.committed:
            raise LeaseLost(self._job.id, self._job.fence)

    async def leave(self) -> None:
        """Undo a block that its handler has entered by hand and never left."""
        self._job.open_block = None
        if self._block is not None:
            try:
                self._scope.__exit__(None, None, None)
            finally:
                await self._block.rollback()
