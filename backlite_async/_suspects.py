"""Claims whose lease has ended though their owner lives: how long to wait before taking them."""

from __future__ import annotations

from collections.abc import Sequence

from ._job import Lapsed

__all__ = ["Suspects"]

LOOKS_PER_BEAT = 4


class Suspects:
    """Gives a live owner one more renewal period. Pure: the time is an argument.

    A long transaction of the application, a step of the clock or a suspended machine stops every
    renewal, its owner's as ours. So the period counts only while this process could write, seen by
    looks that are close together, and while the lease did not change.
    """

    def __init__(self) -> None:
        self._since: dict[tuple[str, int, int], float] = {}
        self._beat = 0.0
        self._looked_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._since)

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return self._beat / LOOKS_PER_BEAT

    def look(self, lapsed: Sequence[tuple[Lapsed, float]], now: float, wrote_in: float) -> list[Lapsed]:
        """Return those that may be taken.

        `lapsed`: all claims whose lease has ended, with the seconds between two renewals of their
        owner. `now`: monotonic seconds. `wrote_in`: how long a write took just now.
        """
        self._beat = min((beat for _, beat in lapsed), default=0.0)
        steady = now - self._looked_at <= 3 * self.pause and wrote_in <= self.pause
        self._looked_at = now
        known, self._since = self._since if steady else {}, {}
        ripe = []
        for claim, beat in lapsed:
            key = claim.job.id, claim.job.fence, claim.until
            since = self._since[key] = known.get(key, now)
            if now - since >= beat:
                ripe.append(claim)
        return ripe
