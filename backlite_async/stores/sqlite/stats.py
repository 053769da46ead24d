"""Statistics of queues: what is added, asked, summed up. Functions inside a transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter

import msgspec

from ..._stats import HOUR, KEEP_HOURS, KEEP_MINUTES, MINUTE, WHATS, StatsRow, Tally
from .sql import fetch, statements, text

__all__ = ["numbers", "only_times", "stats", "sum_up", "tally"]

_rows = msgspec.json.Decoder(list[StatsRow])
_numbers = msgspec.json.Decoder(list[tuple[str, list[int | None]]])


def tally(raw: sqlite3.Connection, tallies: Counter[Tally]) -> None:
    """Add what attempts come to."""
    rows: Counter[tuple[str, int, str, int]] = Counter()
    for (queue, start, what, run, wait), number in tallies.items():
        if what:
            rows[queue, start, what, 0] += number
        if run >= 0:
            rows[queue, start, "run", run] += number
        if wait >= 0:
            rows[queue, start, "wait", wait] += number
    if rows:
        raw.execute(statements()["tally"], {"rows": text([(*row, number) for row, number in rows.items()])})


def only_times(added: Tally) -> Tally:
    """Return what an attempt adds that is counted otherwise: how long it ran and had waited."""
    queue, start, _, run, wait = added
    return (queue, start, "", run, wait)


def stats(
    raw: sqlite3.Connection,
    *,
    since: int,
    until: int,
    step: int | None,
    queue: str | None,
    together: bool,
) -> list[StatsRow]:
    """Return what was counted: queue, begin of the step, what, bucket, how many."""
    parameters = {"since": since, "until": until, "step": step or max(until - since, 1), "queue": queue}
    statement = "stats_together" if together else "stats"
    return _rows.decode(fetch(raw, statement, parameters)[0][0])


def numbers(raw: sqlite3.Connection, since: int, until: int) -> list[StatsRow]:
    """Return what was counted of each queue in a time, but not how long attempts ran and had waited."""
    found = fetch(raw, "stats_numbers", {"queue": None, "since": since, "until": until})[0][0]
    return [
        (queue, since, what, 0, number)
        for queue, counted in _numbers.decode(found)
        for what, number in zip(WHATS, counted, strict=True)
        if number
    ]


def sum_up(raw: sqlite3.Connection, now: int) -> None:
    """Sum up minutes of whole hours that are old enough, and forget what is too old."""
    before = (now - KEEP_MINUTES) // HOUR * HOUR
    raw.execute(statements()["sum_up"], {"queue": None, "before": before})
    for span, end in ((MINUTE, before), (HOUR, now - KEEP_HOURS)):
        raw.execute(statements()["forget_stats"], {"queue": None, "span": span, "before": end})
