"""Outcomes on their way to the store: collected while one group is written, never forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from ._errors import DatabaseBusy, DatabaseReplaced, DatabaseUnavailable, DatabaseUnusable
from ._health import Health
from ._job import Complete, Outcome
from .stores import Store

__all__ = ["Completions"]

LARGEST_GROUP = 500


class Completions:
    """Writes outcomes in groups, for as long as it takes; calls back for each one written."""

    def __init__(
        self,
        store: Store,
        *,
        health: Health,
        written: Callable[[Outcome, bool], None],
        refused: Callable[[Outcome, str], Outcome],
        gone: Callable[[DatabaseReplaced], None],
    ) -> None:
        self._store = store
        self._gone = gone
        self._refused = refused
        self.health = health
        self._written = written
        self._waiting: list[Outcome] = []
        self._wake = asyncio.Event()
        self._rested = asyncio.Event()
        self._closing = self._giving_up = False
        self._unsure: set[tuple[str, int]] = set()
        self._refusals: set[tuple[str, int]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, outcome: Outcome) -> None:
        """Write this outcome soon."""
        self._waiting.append(outcome)
        self._wake.set()

    def close(self) -> None:
        """Let `run` return once everything is written."""
        self._closing = True
        self._wake.set()

    def give_up(self) -> None:
        """Let `run` return even if something cannot be written now."""
        self._giving_up = True
        self._rested.set()
        self.close()

    async def run(self) -> None:
        """Write until closed. Only `close` ends this, no cancellation: others rely on it."""
        pause = 0.0
        while self._waiting or not self._closing:
            if pause and self._giving_up:
                return
            try:
                if pause:
                    await self._rest(pause)
                elif not self._waiting:
                    await self._wake.wait()
                    self._wake.clear()
                pause = 0.0
                if self._waiting:
                    await self._write(self._next_group())
            except DatabaseUnavailable as error:
                if not isinstance(error, DatabaseBusy):  # it may have been written all the same
                    self._unsure.update((outcome.id, outcome.fence) for outcome in self._next_group())
                pause = self.health.failed(error)
            except DatabaseReplaced as error:  # for good
                self.health.failed(error)
                self._gone(error)
                return
            except asyncio.CancelledError:
                continue
            except Exception as error:  # nothing may keep the other outcomes from being written
                pause = self.health.failed(error)

    def _next_group(self) -> list[Outcome]:
        """Return the outcomes to write next: the oldest, up to the first second one of a job."""
        ids = set()
        for number, outcome in enumerate(self._waiting[:LARGEST_GROUP]):
            if outcome.id in ids:
                return self._waiting[:number]
            ids.add(outcome.id)
        return self._waiting[:LARGEST_GROUP]

    async def _write(self, group: list[Outcome]) -> None:
        try:
            lost = await self._store.finish(group)
        except DatabaseReplaced:
            raise
        except DatabaseUnusable as error:  # the database refuses one of them
            if len(group) > 1:
                for outcome in group:
                    await self._write([outcome])
            else:
                await self._give_in(group[0], error)
        else:
            self._done(group, lost)

    async def _give_in(self, outcome: Outcome, error: DatabaseUnusable) -> None:
        """Fail a job whose outcome the database refuses; if it refuses that too, let the others go first."""
        claim = outcome.id, outcome.fence
        if claim not in self._refusals:
            self._refusals.add(claim)
            self._waiting.remove(outcome)
            outcome = self._refused(outcome, f"{type(error).__name__}: {error}")
            self._waiting.insert(0, outcome)
            await self._write([outcome])
            return
        self._waiting.remove(outcome)
        if isinstance(outcome, Complete):  # it may be its dead letter that is refused
            outcome = msgspec.structs.replace(outcome, letter=None)
        self._waiting.append(outcome)
        raise error

    def _done(self, group: list[Outcome], lost: set[str]) -> None:
        self.health.succeeded()
        del self._waiting[: len(group)]
        if not lost and not self._unsure and not self._refusals:
            for outcome in group:
                self._written(outcome, False)
            return
        for outcome in group:
            claim = outcome.id, outcome.fence
            self._written(outcome, outcome.id in lost and claim not in self._unsure)
            self._unsure.discard(claim)
            self._refusals.discard(claim)

    async def _rest(self, seconds: float) -> None:
        """Wait before the next try, or until giving up."""
        timer = asyncio.get_running_loop().call_later(seconds, self._rested.set)
        try:
            await self._rested.wait()
        finally:
            timer.cancel()
            self._rested.clear()
