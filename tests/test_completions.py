"""Outcomes on their way to a store that has trouble: what is said of each once it is written."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from backlite_async import DatabaseBusy, DatabaseUnavailable
from backlite_async._completions import Completions
from backlite_async._health import Health
from backlite_async._job import Outcome, Reschedule
from backlite_async.stores import MemoryStore

from .conftest import LIMIT


class Troubled(MemoryStore):
    """Fails to write once; then it holds no claim of what it is given."""

    def __init__(self, trouble: DatabaseUnavailable) -> None:
        super().__init__()
        self._troubles = [trouble]

    async def finish(self, outcomes: Any) -> set[str]:
        if self._troubles:
            raise self._troubles.pop()
        return {outcome.id for outcome in outcomes}


class Unhurried(Health):
    """Tries again at once."""

    def failed(self, error: BaseException) -> float:
        super().failed(error)
        return 0.0


@pytest.mark.parametrize(
    ("trouble", "lost"),
    [(DatabaseBusy("locked"), True), (DatabaseUnavailable("disk I/O error"), False)],
    ids=["busy", "unavailable"],
)
async def test_lost_is_what_cannot_have_been_written_before(trouble: DatabaseUnavailable, lost: bool) -> None:
    """Nothing was written behind a lock; after an error, that a claim is gone may mean that all went well."""
    told: list[tuple[str, bool]] = []

    def written(outcome: Outcome, gone: bool) -> None:
        told.append((outcome.id, gone))
        completions.close()

    completions: Any = Completions(
        Troubled(trouble),
        health=Unhurried("write outcomes", set()),
        written=written,
        refused=lambda outcome, reason: outcome,
        gone=lambda error: None,
    )
    completions.put(Reschedule(id="a", fence=1, due_at=0, attempt=1, crashes=0))
    with anyio.fail_after(LIMIT):
        await completions.run()
    assert told == [("a", lost)]
