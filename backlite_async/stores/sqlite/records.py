"""The records of jobs, whole or cut: functions over a connection, which read at one instant."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from ... import _query
from ..._job import Job, record
from . import history
from .sql import fetch, text
from .walks import Spot

__all__ = ["get", "records"]

_COLUMNS = (
    "id queue task status payload attempt max_attempts crashes priority fence owner"
    " created_at scheduled_at started_at finished_at duration error result expires_at"
    " key timeout parent workflow meta tags cancelled_at progress progress_message noted waiting"
).split()
"""The columns of the statements here, between where the job is and how long payload and result are."""

_LONG = 65_536
"""Bytes of a payload or result of which a part is read without the rest; of others, that is dearer."""

_TABLES = {True: "backlite_jobs", False: "backlite_completed"}


def records(raw: sqlite3.Connection, spots: Sequence[Spot], *, brief: bool) -> list[Job]:
    """Return the records of the jobs at these places."""
    cut = _query.BRIEF if brief else None
    found: dict[tuple[bool, int], Job] = {}
    for name, live in (("live_records", True), ("completed_records", False)):
        seqs = [spot.seq for spot in spots if spot.live is live]
        if seqs:
            parameters = {"seqs": text(seqs), "cut": cut, "letters": cut, "long": _LONG}
            for row in fetch(raw, name, parameters):
                found[live, row[0]] = record(_read(raw, row, cut))
    return [found[spot.live, spot.seq] for spot in spots if spot.seq is not None]


def get(raw: sqlite3.Connection, job_id: str, now: int, cut: int | None) -> Job | None:
    """Return a job's record, with its history if it has any."""
    found = fetch(raw, "get", {"id": job_id, "now": now, "cut": cut, "long": _LONG})
    if not found:
        return None
    *row, unique = found[0]
    columns = _read(raw, row, cut)
    job = record(columns | {"unique": unique})
    return history.with_history(raw, job) if columns["noted"] else job


def _read(raw: sqlite3.Connection, row: Sequence[Any], cut: int | None) -> dict[str, Any]:
    """Return the columns of a row; of what is long, the first bytes."""
    seq, live, *values, payload, result = row
    columns: dict[str, Any] = dict(zip(_COLUMNS, values, strict=True))
    if cut is not None:
        for name, length in (("payload", payload), ("result", result)):
            if length is not None and length > max(_LONG, cut):
                with raw.blobopen(_TABLES[bool(live)], name, seq, readonly=True) as blob:
                    columns[name] = blob.read(cut)
    return columns
