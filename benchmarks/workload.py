"""What is measured with: one small job, and how many of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from backlite_async import QueueConfig, Task

__all__ = ["FULL", "QUICK", "Noop", "Sizes", "tasks"]


class Noop(Task):
    """A job that does nothing, with a deadline as jobs should have."""

    config: ClassVar[QueueConfig] = QueueConfig("benchmark", timeout=30.0)

    n: int
    s: str


def tasks(count: int) -> list[Noop]:
    """Return jobs of `{n: int, s: 64 characters}`."""
    return [Noop(number, "x" * 64) for number in range(count)]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many jobs each figure takes."""

    singles: int
    callers: int
    per_caller: int
    bulk: int
    drain: int
    tries: int


FULL = Sizes(singles=1_000, callers=100, per_caller=100, bulk=10_000, drain=20_000, tries=400)
QUICK = Sizes(singles=300, callers=100, per_caller=20, bulk=10_000, drain=5_000, tries=100)
