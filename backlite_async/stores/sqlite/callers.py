"""Adding inside the caller's own transaction, and noticing its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..._errors import BackliteError
from .connection import in_transaction, settled

if TYPE_CHECKING:
    import aiosqlite

__all__ = ["TransactionWatch"]

FIRST_LOOK, LONGEST_LOOK = 0.001, 0.005
"""Seconds between two looks at open transactions: often at first, less often at long ones."""

ROW_LOOK = 0.05
"""Seconds between two looks whether the rows can be seen: a COMMIT may be followed by a BEGIN."""


class TransactionWatch:
    """Looks at callers' transactions, only while there are any, and tells when one has ended.

    The look is an attribute of the connection, no statement: a transaction that is no longer
    open is committed or rolled back once its thread has settled, and a dispatcher that looks in
    vain does no harm.
    """

    def __init__(self, ended: Callable[[], None], visible: Callable[[str], Awaitable[bool]]) -> None:
        self._ended = ended
        self._visible = visible
        self._open: dict[aiosqlite.Connection, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()
        self._interval = FIRST_LOOK

    def watch(self, connection: aiosqlite.Connection, job_id: str) -> None:
        """Watch the transaction in which this job was added."""
        self._open[connection] = job_id
        self._interval = FIRST_LOOK
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="backlite transaction watch")

    async def close(self) -> None:
        """Stop watching."""
        self._open.clear()
        tasks = [*self._settling, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        waited = 0.0
        while self._open:
            await asyncio.sleep(self._interval)
            waited += self._interval
            self._interval = min(self._interval * 1.1, LONGEST_LOOK)
            ended = [connection for connection in self._open if not in_transaction(connection)]
            if not ended and waited >= ROW_LOOK:
                waited = 0.0
                with contextlib.suppress(BackliteError):  # cannot be asked now; the attribute will do
                    ended = [con for con, job_id in list(self._open.items()) if await self._visible(job_id)]
            for connection in ended:
                if self._open.pop(connection, None) is not None:
                    settling = asyncio.create_task(self._settle(connection), name="backlite transaction end")
                    self._settling.add(settling)
                    settling.add_done_callback(self._settling.discard)

    async def _settle(self, connection: aiosqlite.Connection) -> None:
        """Tell once the connection has done what it was doing; others need not wait for it."""
        await settled(connection)
        self._ended()
