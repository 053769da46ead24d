"""Group commit: what waits together is written together."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..._errors import InvalidState
from .connection import Database, translate

__all__ = ["Committer"]

T = TypeVar("T")

LARGEST_GROUP = 500
"""Writes that share one commit, at most."""


class _Write:
    """One member of a group: a function over the connection, and who waits for its value."""

    __slots__ = ("durable", "future", "look", "run")

    def __init__(
        self,
        run: Callable[[sqlite3.Connection], Any],
        look: Callable[[sqlite3.Connection], Any] | None,
        durable: bool,
        future: asyncio.Future[Any],
    ) -> None:
        self.run = run
        self.look = look
        self.durable = durable
        self.future = future


_Answer = tuple[Any, BaseException | None]


class Committer:
    """Writes in the order of submission, as many as are waiting in one transaction and one hop.

    While one group is on its way the next one gathers; nobody waits for a timer. A member that
    fails is rolled back alone: the group is then written one by one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Write] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="backlite writer")

    async def submit(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        look: Callable[[sqlite3.Connection], T | None] | None = None,
        durable: bool = True,
        insist: bool = False,
    ) -> T:
        """Run `run` in a write transaction and return its value once that is committed.

        `look` may answer without one, where nothing is to be written. A caller that is cancelled
        before its group has begun leaves nothing behind; later, everything. With `insist` it gets
        the answer all the same: what it has claimed or completed it must know.
        """
        if self._closing:
            raise InvalidState("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Write(run, look, durable, future))
        self._wake.set()
        while insist and not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue
        return await future

    async def close(self) -> None:
        """Write what is waiting, then end."""
        self._closing = True
        self._wake.set()
        while not self._task.done():
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError:  # what was accepted is written first
                continue

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            try:
                await self._wake.wait()
            except asyncio.CancelledError:  # only close() ends this task: others wait for its answers
                continue
            self._wake.clear()
            while self._waiting:
                await self._write_group()

    async def _write_group(self) -> None:
        group: list[_Write] = []
        while self._waiting and len(group) < LARGEST_GROUP:
            write = self._waiting.popleft()
            if not write.future.cancelled():
                group.append(write)
        if not group:
            return
        answers = await self._database.writer.call(lambda _: self._write(group))
        for write, (value, error) in zip(group, answers, strict=True):
            if write.future.done():
                continue
            if error is None:
                write.future.set_result(value)
            else:
                write.future.set_exception(error)

    def _write(self, group: Sequence[_Write]) -> list[_Answer]:
        try:
            if len(group) == 1 and group[0].look is not None:
                value = self._database.look(group[0].look)
                if value is not None:
                    return [(value, None)]
            values = self._database.transact(
                lambda raw: [write.run(raw) for write in group], durable=any(write.durable for write in group)
            )
            return [(value, None) for value in values]
        except BaseException as error:
            if len(group) > 1 and not _is_busy(error):
                return [self._write([write])[0] for write in group]
            return [(None, self._for_caller(error)) for _ in group]

    def _for_caller(self, error: BaseException) -> BaseException:
        """Return an error of its own for each caller, so that nobody shares a traceback."""
        found = translate(error, self._database.path)
        if found is not error:
            found.__cause__ = error
        return found


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        5,
        6,
    )
