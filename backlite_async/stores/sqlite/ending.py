"""Ending pending jobs that are to be cancelled: functions inside a transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import NamedTuple

from ..._graph import FOR_EVER
from ..._job import Place
from ..._stats import MINUTE, Tally
from .._base import WATCHED_FOR
from .._flows import CANCELLED, End
from . import history
from .rows import readable
from .sql import fetch, statements
from .stats import tally

__all__ = ["Ended", "end_marked"]


class Ended(NamedTuple):
    """A pending job that was ended as cancelled: what it leaves to others, and whether it had its turn.

    `keep_for`, `keeps_payload`: how its queue keeps such; `step`: its workflow, and its number there.
    """

    id: str
    place: Place
    had_turn: bool
    beside: bool
    keep_for: int
    keeps_payload: bool
    step: tuple[str, int] | None

    @property
    def tally(self) -> Tally:
        """What it adds to the statistics."""
        return (self.place.queue, self.place.at - self.place.at % MINUTE, "cancelled", -1, -1)

    @property
    def end(self) -> End | None:
        """The end of a step that it is."""
        if self.step is None:
            return None
        return End(*self.step, CANCELLED, self.place.at, None, self.keep_for, self.keeps_payload)


def end_marked(raw: sqlite3.Connection) -> list[Ended]:
    """End the pending jobs that are to be cancelled, and count them; what follows is the caller's."""
    ended = [
        Ended(
            job_id,
            Place(queue, readable(key), at),
            bool(had_turn),
            bool(beside),
            (FOR_EVER if keep_for is None else keep_for) if keeps else 0,
            bool(keeps and keep_payload),
            None if workflow is None else (workflow.decode("utf-8", "replace"), step),
        )
        for (
            job_id, queue, key, at, had_turn, beside, workflow, step, keeps, keep_for, keep_payload
        ) in fetch(raw, "to_end", {})
    ]  # fmt: skip
    if ended:
        raw.execute(statements()["keep_cancelled"], {"watched_for": WATCHED_FOR})
        raw.execute(statements()["end_cancelled"])
        gone = [job.id for job in ended if job.beside]
        if gone:
            history.forget(raw, gone)
        tally(raw, Counter(job.tally for job in ended))
    return ended
