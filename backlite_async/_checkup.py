"""`client.health()`, whether a client does what it is there for, and the looks of `client.doctor()`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from ._clock import seconds
from ._config import Duration
from ._doctor import ENDED, confirmed, findings
from ._failure import describe
from ._inspection import Finding, Inspection
from .stores import Store

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["HealthReport", "checkup", "examine"]

AGAIN = 0.25
"""Seconds until the doctor looks again at jobs that nobody seems to claim."""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a client is doing.

    - `alive`: it is started, and its database answers in time;
    - `dispatching`: it claims jobs; None for a client without workers, which is not there for that;
    - `lag`: for how long the oldest job has been due that this client could run: of a task type with a
      handler here, in a queue that is not paused. What waits for the turn of its key does not count. None:
      nothing is due, or that could not be asked;
    - `reason`: what is wrong, in words; None: nothing.
    """

    alive: bool
    dispatching: bool | None = None
    lag: timedelta | None = None
    reason: str | None = None

    def ok(self, max_lag: Duration | None = None) -> bool:
        """Return whether it is alive, dispatches if it has workers, and no job waits longer than that."""
        late = (
            max_lag is not None
            and self.lag is not None
            and self.lag.total_seconds() > seconds("max_lag", max_lag)
        )
        return self.alive and self.dispatching is not False and not late


async def checkup(client: Client, within: float) -> HealthReport:
    """See how a client is doing; whatever goes wrong is said, not raised."""
    try:
        store = client.open_store()
    except Exception as error:
        return HealthReport(alive=False, dispatching=_dispatches(client), reason=str(error))
    asked = asyncio.ensure_future(store.oldest_due(client.registry.handled))
    try:
        await asyncio.wait([asked], timeout=within)
    finally:
        asked.cancel()  # if it has not ended
    dispatching = _dispatches(client)
    if not asked.done() or asked.cancelled():
        reason = f"the database has not answered within {within:g} s"
        asked.add_done_callback(lambda late: late.cancelled() or late.exception())
        return HealthReport(alive=False, dispatching=dispatching, reason=reason)
    failed = asked.exception()
    if failed is not None:
        return HealthReport(alive=False, dispatching=dispatching, reason=describe(failed))
    wrong = "jobs are not claimed; the log says why" if dispatching is False else None
    lag = _lag(client.clock.now(), asked.result())
    return HealthReport(alive=True, dispatching=dispatching, lag=lag, reason=wrong)


def _dispatches(client: Client) -> bool | None:
    """Return whether a client claims jobs; None: it has no workers."""
    return client.dispatches if client.workers else None


def _lag(now: int, due_at: int | None) -> timedelta | None:
    return None if due_at is None or due_at > now else timedelta(milliseconds=now - due_at)


async def examine(client: Client, store: Store, late: int) -> Sequence[Finding]:
    """Look for what is wrong; where jobs seem to be left alone for `late` milliseconds, look twice."""

    async def look(now: int) -> Inspection:
        return await store.inspect(now=now, ended_by=now - ENDED, late_by=now - late)

    now = client.clock.now()
    before = await look(now)
    found = findings(before, now=now, late=late)
    if any(one.code == "due_unclaimed" for one in found):
        await asyncio.sleep(AGAIN)
        now = client.clock.now()
        found = confirmed(before, await look(now), now=now, late=late)
    return found
