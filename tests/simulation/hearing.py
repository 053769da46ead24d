"""Which clients must have heeded what was stored: who is told at once, and has had no trouble since."""

from __future__ import annotations

from .history import Died, Event, Fault, Opened, StopAsked

__all__ = ["THREADED", "Hearing"]

THREADED = 0.6
"""Seconds that a `def` handler may take to start once it is with a worker."""

HEED = 0.15
"""Seconds in which a client that is told heeds an order, without the ways to the store."""

WAYS = 6
"""Ways to the store and back in that time at most: a look that was under way, and another."""

RECOVERS = 6.0
"""Seconds after a fault of the store in which a client may not look."""


class Hearing:
    """What is known of each client's ears."""

    def __init__(self, latency: float) -> None:
        self._within = HEED + WAYS * latency
        self._opened: dict[str, Opened] = {}
        self._trouble: dict[str, float] = {}
        self._gone: set[str] = set()

    def see(self, event: Event) -> None:
        """Take note of what concerns clients."""
        match event:
            case Opened():
                self._opened[event.client] = event
                self._gone.discard(event.client)
            case Fault():
                self._trouble[event.client] = event.at
            case StopAsked() | Died():
                self._gone.add(event.client)
            case _:
                pass

    def heeds(self, client: str, since: float, at: float, *, more: float = 0.0) -> bool:
        """Return whether a client must heed by now what it was told then. `more`: seconds for it."""
        opened = self._opened.get(client)
        if opened is None or opened.manner != "bells" or client in self._gone:
            return False
        since = max(since, opened.at)
        calm = since - self._trouble.get(client, float("-inf")) > RECOVERS
        return calm and at - since > self._within + more

    def hears(self, client: str) -> bool:
        """Return whether a client runs and is not about to stop."""
        return client in self._opened and client not in self._gone
