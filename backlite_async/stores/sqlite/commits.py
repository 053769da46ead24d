"""Group commit: what waits together is written together."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

from ..._errors import InvalidState
from .database import Database, is_busy, translate

__all__ = ["Committer"]

T = TypeVar("T")

LARGEST_GROUP = 500
"""Writes that share one commit, at most."""


class _Write:
    """One member of a group: a function over the connection, and who waits for its value."""

    __slots__ = ("batch", "claims", "committed", "durable", "future", "look", "run")

    def __init__(
        self,
        run: Callable[..., Any],
        *,
        batch: Sequence[Any] | None,
        look: Callable[[sqlite3.Connection], Any] | None,
        committed: Callable[[bool], None] | None,
        durable: bool,
        claims: bool,
        future: asyncio.Future[Any],
    ) -> None:
        self.run = run
        self.batch = batch
        self.look = look
        self.committed = committed
        self.durable = durable
        self.claims = claims
        self.future = future

    @property
    def kind(self) -> object:
        """What those have in common that can be written together: the function that takes a batch."""
        return self if self.batch is None else self.run

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Tell who waits, if anybody does."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)


_Answer = tuple[Any, BaseException | None]


class Committer:
    """Writes in the order of submission, as many as are waiting in one transaction and one hop.

    While one group is on its way the next one gathers; nobody waits for a timer. Who was waiting for
    a group hears of it, and may ask for the next write, before the next group is formed. A member
    that fails is rolled back alone: the group is then written one by one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Write] = deque()
        self.writing = False
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def submit(
        self,
        run: Callable[..., T],
        *,
        batch: Sequence[Any] | None = None,
        look: Callable[[sqlite3.Connection], T | None] | None = None,
        committed: Callable[[bool], None] | None = None,
        durable: bool = True,
        claims: bool = False,
        insist: bool = False,
    ) -> T:
        """Run `run` in a write transaction and return its value once that is committed.

        With a `batch` it is `run(raw, batch)`, and several that follow each other may be one call, with
        all their batches together, whose value all of them get. `look` may answer without one, where
        nothing is to be written. `committed` is called after the commit, once for all of a group that
        give the same, also where the caller has been cancelled meanwhile; it is told whether somebody
        has claimed jobs behind it (`claims`: in the group, these come last, and see all of it). A
        caller that is cancelled before its group has begun leaves nothing behind; later, everything.
        With `insist` it gets the answer all the same, and its cancellation at its next await: what it
        has claimed or completed it must know.
        """
        if self._closing:
            raise InvalidState("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        write = _Write(
            run, batch=batch, look=look, committed=committed, durable=durable, claims=claims, future=future
        )
        self._waiting.append(write)
        try:
            self._begin()
        except BaseException:  # of an application's task factory: then nothing is written, not even later
            self._waiting.remove(write)
            raise
        return await (_insist(future) if insist else future)

    async def close(self) -> None:
        """Write what is waiting, then end."""
        self._closing = True
        while self._task is not None and not (self._task.done() and not self._waiting):
            with contextlib.suppress(asyncio.CancelledError):  # what was accepted is written first
                await (asyncio.sleep(0) if self._task.done() else asyncio.wait([self._task]))

    def _begin(self) -> None:
        """Have somebody write what waits, also if the last one was cancelled before it began."""
        if self._waiting and (self._task is None or self._task.done()):
            writing = self._run()
            try:
                self._task = asyncio.create_task(writing, name="backlite writer")
            except BaseException:
                writing.close()
                raise
            self._task.add_done_callback(lambda _: self._begin())

    async def _run(self) -> None:
        """Write until nothing waits; a cancellation of this task would be one of all who wait."""
        while self._waiting:
            group: list[_Write] = []
            while self._waiting and len(group) < LARGEST_GROUP:
                write = self._waiting.popleft()
                if not write.future.cancelled():
                    group.append(write)
            if group:
                group.sort(key=attrgetter("claims"))
                await self._write_group(group)

    async def _write_group(self, group: list[_Write]) -> None:
        loop = asyncio.get_running_loop()
        self.writing = True

        def run(_: sqlite3.Connection) -> None:
            # Told from here, the answers arrive before this task hears of its end, and without it.
            loop.call_soon_threadsafe(self._settle, group, self._write(group))

        try:
            await self._database.writer.call(run)
        except asyncio.CancelledError:
            pass  # the call has ended all the same, and there is nobody else to go on
        except Exception as error:  # the connection is closed
            self._settle(group, [(None, error) for _ in group])

    def _settle(self, group: list[_Write], answers: list[_Answer]) -> None:
        """Tell everybody; before them, once for all, what follows from a commit."""
        self.writing = False
        committed = {
            write.committed: None
            for write, (_, error) in zip(group, answers, strict=True)
            if error is None and write.committed is not None
        }
        claimed = any(
            write.claims and error is None for write, (_, error) in zip(group, answers, strict=True)
        )
        for follow in committed:
            follow(claimed)
        for write, answer in zip(group, answers, strict=True):
            write.settle(*answer)

    def _write(self, group: Sequence[_Write]) -> list[_Answer]:
        try:
            if len(group) == 1 and group[0].look is not None:
                value = self._database.look(group[0].look)
                if value is not None:
                    return [(value, None)]
            durable = any(write.durable for write in group)
            values = self._database.transact(lambda raw: _run_all(raw, group), durable=durable)
            return [(value, None) for value in values]
        except BaseException as error:
            if len(group) > 1 and not is_busy(error):
                return [self._write([write])[0] for write in group]
            return [(None, self._for_caller(error)) for _ in group]

    def _for_caller(self, error: BaseException) -> BaseException:
        """Return an error of its own for each caller, so that nobody shares a traceback."""
        found = translate(error, self._database.path)
        if found is not error:
            found.__cause__ = error
        return found


def _run_all(raw: sqlite3.Connection, group: Sequence[_Write]) -> list[Any]:
    """Run the members in their order, batches of one kind that follow each other at once."""
    values: list[Any] = []
    for _, alike in groupby(group, attrgetter("kind")):
        writes = list(alike)
        first = writes[0]
        if first.batch is None:
            values.append(first.run(raw))
        else:
            batch = (
                first.batch if len(writes) == 1 else [item for write in writes for item in write.batch or ()]
            )
            values += [first.run(raw, batch)] * len(writes)
    return values


async def _insist(future: asyncio.Future[T]) -> T:
    """Wait for a future through cancellations, which are then put off until the next await."""
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
    task = asyncio.current_task()
    if cancelled and task is not None:
        task.uncancel()
        asyncio.get_running_loop().call_soon(task.cancel)
    return future.result()
