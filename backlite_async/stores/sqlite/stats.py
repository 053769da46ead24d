"""Statistics of queues: what is added, asked, summed up. Functions inside a transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter

import msgspec

from ..._stats import DAY, HOUR, KEEP_HOURS, KEEP_MINUTES, MINUTE, WHATS, StatsRow, Tally
from .sql import fetch, statements, text

__all__ = ["numbers", "only_times", "seal", "stats", "sum_up", "tally", "to_seal"]

SEAL_AFTER, SEAL_EVERY, SEAL_AT_ONCE = 2 * MINUTE, 5 * MINUTE, 20 * MINUTE
"""Milliseconds after which a minute is summed up for all queues, between two times that this is done, and of
which it is done in one transaction."""

EVER_BEFORE = -(2**63)

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
        given = {"rows": text([(*row, number) for row, number in rows.items()])}
        raw.execute(statements()["tally"], given)
        raw.execute(statements()["tally_late"], given)


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
    if not together:
        return _rows.decode(fetch(raw, "stats", parameters)[0][0])
    at = _sealed(raw)
    parameters["sealed"] = EVER_BEFORE if at is None else at
    return _rows.decode(fetch(raw, "stats_together", parameters)[0][0])


def numbers(raw: sqlite3.Connection, since: int, until: int) -> list[StatsRow]:
    """Return what was counted of each queue in a time, but not how long attempts ran and had waited."""
    found = fetch(raw, "stats_numbers", {"queue": None, "since": since, "until": until})[0][0]
    return [
        (queue, since, what, 0, number)
        for queue, counted in _numbers.decode(found)
        for what, number in zip(WHATS, counted, strict=True)
        if number
    ]


def to_seal(raw: sqlite3.Connection, until: int) -> list[int]:
    """Return the instants up to which to sum up for all queues, one after the other: no write takes long."""
    at, end = _sealed(raw), until // MINUTE * MINUTE - SEAL_AFTER
    if at is not None and at + SEAL_EVERY >= end:
        return []
    since = max(end - KEEP_HOURS, EVER_BEFORE if at is None else at)
    minutes = max(since, end - KEEP_MINUTES - HOUR)
    return [*range(since + DAY, minutes, DAY), *range(minutes, end, SEAL_AT_ONCE), end]


def seal(raw: sqlite3.Connection, before: int) -> None:
    """Sum up for all queues what began before an instant; what is counted later is added to it."""
    at = _sealed(raw)
    since = EVER_BEFORE if at is None else at
    if before > since:
        raw.execute(statements()["seal"], {"queue": None, "sealed": since, "before": before})
        raw.execute(statements()["note_sealed"], {"before": before})


def _sealed(raw: sqlite3.Connection) -> int | None:
    at: int | None = fetch(raw, "sealed", {})[0][0]
    return at


def sum_up(raw: sqlite3.Connection, now: int) -> None:
    """Sum up minutes of whole hours that are old enough, and forget what is too old."""
    before = (now - KEEP_MINUTES) // HOUR * HOUR
    if _sealed(raw) is not None:
        seal(raw, before)  # else an hour would be begun before, and go on after that
    for queue in (None, ""):
        raw.execute(statements()["sum_up"], {"queue": queue, "before": before})
        for span, end in ((MINUTE, before), (HOUR, now - KEEP_HOURS)):
            raw.execute(statements()["forget_stats"], {"queue": queue, "span": span, "before": end})
