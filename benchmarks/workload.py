"""What is measured with: one small job, and how many of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from backlite_async import QueueConfig, Task

__all__ = ["CALLERS", "DELAYED_AHEAD", "FULL", "HUNDRED", "QUEUES", "QUICK", "SMALL", "Noop", "Sizes"]
__all__ += ["tasks"]

HUNDRED = 100
"""Rows that share a transaction, where plain sqlite3 shares."""

CALLERS = 100
"""Callers that add at once."""

SMALL = 1_000
"""Jobs that wait besides, in a small backlog."""

QUEUES = 200
"""Queues, in the backlog that has many."""

DELAYED_AHEAD = 0.1
"""The part of a backlog that has a higher priority and is not due yet, where some has."""


class Noop(Task):
    """A job that does nothing, with a deadline as jobs should have."""

    config: ClassVar[QueueConfig] = QueueConfig("benchmark", timeout=30.0)

    n: int
    s: str


def tasks(count: int, first: int = 0) -> list[Noop]:
    """Return jobs of `{n: int, s: 64 characters}`, numbered from `first`."""
    return [Noop(number, "x" * 64) for number in range(first, first + count)]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much each measurement takes. Those of peers are smaller where they would take minutes."""

    rounds: int
    singles: int
    per_caller: int
    bulk: int
    drain: int
    wide: int
    tries: int
    load_seconds: float
    million: int
    idle_seconds: float
    memory: int
    imports: int
    peer_bulk: int
    peer_drain: int
    peer_tries: int


FULL = Sizes(
    rounds=5,
    singles=1_000,
    per_caller=100,
    bulk=100_000,
    drain=20_000,
    wide=10_000,
    tries=100,
    load_seconds=3.0,
    million=1_000_000,
    idle_seconds=60.0,
    memory=1_000_000,
    imports=7,
    peer_bulk=5_000,
    peer_drain=4_000,
    peer_tries=40,
)
QUICK = Sizes(
    rounds=2,
    singles=300,
    per_caller=30,
    bulk=20_000,
    drain=5_000,
    wide=4_000,
    tries=20,
    load_seconds=1.0,
    million=50_000,
    idle_seconds=10.0,
    memory=50_000,
    imports=3,
    peer_bulk=800,
    peer_drain=800,
    peer_tries=10,
)
