"""How long to wait before the next attempt."""

from __future__ import annotations

from ._clock import seconds
from ._config import Backoff

__all__ = ["delay"]


def delay(backoff: Backoff, attempt: int, spread: float) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (from 1).

    `spread` is a random number in [0, 1); the wait never exceeds the cap.
    """
    base, cap = seconds("base", backoff.base), seconds("cap", backoff.cap)
    try:
        wait = min(base * backoff.factor ** (attempt - 1), cap)
    except OverflowError:
        wait = cap if base else 0.0
    return min(wait * (1 + backoff.jitter * (2 * spread - 1)), cap)
