"""What is to be seen of jobs in memory that are not as they should be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from .._inspection import Backlog, Claims, Inspection, QueueSeen
from .._job import Declared, OwnerInfo
from ._limits import Limits
from ._rows import Live, Row

__all__ = ["inspection"]


def inspection(
    live: Live,
    declared: Mapping[str, Declared],
    limits: Limits,
    owners: Sequence[OwnerInfo],
    *,
    now: int,
    ended_by: int,
    late_by: int,
) -> Inspection:
    """Return what is to be seen of jobs and their owners."""
    return Inspection(
        owners=owners,
        backlogs=_backlogs(live, late_by),
        claims=_claims(live, ended_by),
        queues=[
            _queue(name, declared.get(name), limits, now) for name in sorted(declared.keys() | limits.paused)
        ],
    )


def _backlogs(live: Live, late_by: int) -> list[Backlog]:
    by_kind: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in live.pending():
        by_kind[row.kind].append(row.until)
    return [
        Backlog(*kind, len(instants), sum(at <= late_by for at in instants), min(instants))
        for kind, instants in sorted(by_kind.items())
    ]


def _claims(live: Live, ended_by: int) -> list[Claims]:
    by_owner: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in live.running():
        by_owner[row.queue, row.owner or ""].append(row)
    return [
        Claims(*place, len(rows), sum(row.until <= ended_by for row in rows), min(row.until for row in rows))
        for place, rows in sorted(by_owner.items())
    ]


def _queue(name: str, declared: Declared | None, limits: Limits, now: int) -> QueueSeen:
    known = {} if declared is None else msgspec.json.decode(declared.limits)
    rate, started = known.get("rate"), 0
    if rate is not None:
        most = (rate["count"], round(rate["per"] * 1000))
        started = rate["count"] - limits.starts[name].room(most, now=now)
    return QueueSeen(name, name in limits.paused, known, started)
