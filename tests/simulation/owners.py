"""What a checker knows of owners, of the wall clock, and of outages."""

from __future__ import annotations

from .clock import EPOCH
from .history import Closed, Died, Event, Jumped, Opened, Outage

__all__ = ["Members", "Wall"]


class Members:
    """Who opened the store, how others see them, and when they died."""

    def __init__(self) -> None:
        self._opened: dict[int, Opened] = {}
        self._ended: dict[int, tuple[float, bool]] = {}

    def see(self, event: Event) -> None:
        """Take note of what concerns owners."""
        match event:
            case Opened():
                self._opened[event.owner] = event
            case Closed():
                self._ended[event.owner] = event.at, event.dead
            case Died():
                for owner in self._opened.values():
                    if owner.client == event.client and owner.owner not in self._ended:
                        self._ended[owner.owner] = event.at, True
            case _:
                pass

    def of(self, client: str, life: int) -> list[int]:
        """Return the owners that a client was in one of its lives."""
        return [
            number for number, owner in self._opened.items() if (owner.client, owner.life) == (client, life)
        ]

    def dead(self, owner: int) -> bool:
        """Return whether it has died, or closed with claims that are left to others."""
        return self._ended.get(owner, (0.0, False))[1]

    def ended(self, owner: int) -> bool:
        """Return whether it has died or closed."""
        return owner in self._ended

    def ended_at(self, owner: int) -> float:
        """Return when it died or closed; never: infinity."""
        return self._ended.get(owner, (float("inf"), False))[0]

    def seen(self, owner: int) -> bool:
        """Return whether others can see if it lives."""
        return self._opened[owner].manner != "blind"

    def beat(self, owner: int) -> float:
        """Return the seconds between two of its renewals."""
        return self._opened[owner].beat


class Wall:
    """The wall clock's course, and the times in which nobody could write."""

    def __init__(self) -> None:
        self._offsets = [(0.0, 0)]
        self._outages: list[tuple[float, float]] = []

    def see(self, event: Event) -> None:
        """Take note of jumps and outages."""
        match event:
            case Jumped():
                self._offsets.append((event.at, self._offsets[-1][1] + round(event.by * 1000)))
            case Outage(begins=True):
                self._outages.append((event.at, float("inf")))
            case Outage(begins=False):
                self._outages[-1] = self._outages[-1][0], event.at
            case _:
                pass

    def passed(self, instant: int, at: float) -> float:
        """Return since when the wall shows this instant or a later one, without a break until `at`."""
        since = at
        for began, offset in reversed(self._offsets):
            crossed = (instant - EPOCH - offset) / 1000
            if crossed > since:
                return since
            since = max(began, crossed)
            if crossed > began:
                return since
        return since

    def first_shown(self, instant: int, since: float) -> float:
        """Return when the wall showed this instant or a later one first, not before `since`."""
        ends = [began for began, _ in self._offsets[1:]] + [float("inf")]
        for (began, offset), end in zip(self._offsets, ends, strict=True):
            crossed = max(began, since, (instant - EPOCH - offset) / 1000)
            if crossed < end:
                return crossed
        return float("inf")

    def shown(self, instant: int, at: float) -> float:
        """Return when the wall showed this instant last, before `at`; `at` if it never did."""
        end = at
        for began, offset in reversed(self._offsets):
            shown = (instant - EPOCH - offset) / 1000
            if began - 0.002 <= shown <= end:
                return shown
            end = began
        return at

    def longest_outage(self, since: float, until: float) -> float:
        """Return how long the longest outage between two times was."""
        return max((min(end, until) - max(begin, since) for begin, end in self._outages), default=0.0)
