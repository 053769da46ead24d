"""Whether queues run no more than they may, at once, of a key, in a time, and while they are paused."""

from __future__ import annotations

from collections.abc import Sequence

from .hearing import THREADED, Hearing
from .history import (
    Claimed,
    Died,
    Ended,
    Event,
    Jumped,
    Paused,
    Replaced,
    Rested,
    Resumed,
    Ruled,
    Started,
    Steered,
    Stored,
    Written,
)

__all__ = ["check_limits"]

Run = tuple[str, str, int]
"""A handler that runs: its client, job and fence."""


DECIDING = 1.0
"""Seconds by which the time that a claim goes by may be older than the claim."""


class _Limits:
    """What runs of each queue, and what may."""

    def __init__(self, latency: float) -> None:
        self.found: list[str] = []
        self.hearing = Hearing(latency)
        self.rules: dict[str, Ruled] = {}
        self.queues: dict[str, str] = {}
        self.keys: dict[str, str | None] = {}
        self.claims: dict[str, Claimed] = {}
        self.runs: dict[Run, Started] = {}
        self.starts: dict[str, list[tuple[Started, float]]] = {}
        self.jumps: list[Jumped] = []
        self.paused: dict[str, Paused] = {}
        self.paused_here: dict[tuple[str, str], Paused] = {}
        self.resumed: dict[str, float] = {}
        self.dead: set[str] = set()

    def fail(self, event: Event, kind: str, text: str) -> None:
        self.found.append(f"{kind}: {text} (at {event.at:.6f} s)")

    def see(self, event: Event) -> None:
        self.hearing.see(event)
        match event:
            case Ruled():
                self.rules[event.queue] = event
            case Stored():
                self.queues[event.job], self.keys[event.job] = event.kind[0], event.key
            case Replaced():
                self.queues[event.job] = event.kind[0]
            case Claimed():
                self.claims[event.job] = event
                self.see_claimed(event)
            case Written(accepted=True) | Steered(how="release"):
                self.claims.pop(event.job, None)
            case Started() if event.client not in self.dead:
                self.runs[event.client, event.job, event.fence] = event
                self.see_started(event)
            case Ended():
                self.runs.pop((event.client, event.job, event.fence), None)
            case Died():
                self.dead.add(event.client)
                self.runs = {run: event_ for run, event_ in self.runs.items() if run[0] != event.client}
            case Jumped():
                self.jumps.append(event)
            case Paused() | Resumed() | Rested():
                self.see_order(event)
            case _:
                pass

    def see_order(self, event: Paused | Resumed | Rested) -> None:
        match event:
            case Paused(client=None):
                self.paused[event.queue] = event
            case Paused(client=str(client)):
                self.paused_here[client, event.queue] = event
            case Resumed(client=None):
                self.paused.pop(event.queue, None)
                self.resumed[event.queue] = event.at
            case Resumed(client=str(client)):
                self.paused_here.pop((client, event.queue), None)
                self.resumed[event.queue] = event.at
            case Rested():
                self.see_rested(event)

    def see_claimed(self, event: Claimed) -> None:
        queue, key = self.queues.get(event.job, ""), self.keys.get(event.job)
        rule = self.rules.get(queue)
        if queue in self.paused:
            self.fail(event, "paused", f"{event.job} of {queue!r} was claimed while that was paused")
        if rule is None or (rule.in_all is None and rule.per_key is None):
            return
        held = [job for job in self.claims if self.queues.get(job) == queue]
        if rule.in_all is not None and len(held) > rule.in_all:
            self.fail(event, "limit", f"{len(held)} jobs of {queue!r} are claimed, of {rule.in_all}")
        of_key = [job for job in held if key is not None and self.keys[job] == key]
        if rule.per_key is not None and len(of_key) > rule.per_key:
            self.fail(event, "key limit", f"{len(of_key)} jobs of {key!r} are claimed, of {rule.per_key}")

    def see_started(self, event: Started) -> None:
        queue = self.queues.get(event.job, "")
        rule = self.rules.get(queue)
        self.see_started_in_pause(event, queue)
        if rule is None:
            return
        here = sum(
            run.client == event.client and run.life == event.life and self.queues.get(run.job) == queue
            for run in self.runs.values()
        )
        if rule.here is not None and here > rule.here:
            self.fail(event, "limit here", f"{here} jobs of {queue!r} run in {event.client}, of {rule.here}")
        if rule.rate is not None:
            self.see_rate(event, queue, *rule.rate)

    def see_started_in_pause(self, event: Started, queue: str) -> None:
        pauses = (self.paused.get(queue), self.paused_here.get((event.client, queue)))
        for paused in pauses:
            if paused is None or not paused.told:
                continue
            if self.hearing.heeds(event.client, paused.at, event.at, more=0.0 if event.willing else THREADED):
                text = f"{event.job} of {queue!r} started {event.at - paused.at:.3f} s after its pause"
                self.fail(event, "paused", text)

    def see_rate(self, event: Started, queue: str, count: int, per: float) -> None:
        starts = self.starts.setdefault(queue, [])
        claim = self.claims.get(event.job)
        starts.append((event, event.at if claim is None else claim.at))
        if len(starts) <= count:
            return
        first = starts[-1 - count][0]
        since = min(claimed_at for _, claimed_at in starts[-1 - count :])
        if any(jump.by > 0 and jump.at >= since - DECIDING for jump in self.jumps):
            return  # the wall shows that more time has passed
        if event.at - first.at < per - 1e-6:
            text = f"{count + 1} jobs of {queue!r} started within {event.at - first.at:.6f} s"
            self.fail(event, "rate", f"{text}, not {per:g}: from {first.job} to {event.job}")

    def see_rested(self, event: Rested) -> None:
        if self.resumed.get(event.queue, float("-inf")) >= event.since:
            return
        if event.client is not None and not self.hearing.hears(event.client):
            return  # it ended meanwhile, and with it the pause
        if event.client is None:
            running = [job for job in self.claims if self.queues.get(job) == event.queue]
        else:
            running = [
                job
                for (client, job, _), run in self.runs.items()
                if (client, run.life) == (event.client, event.life) and self.queues.get(job) == event.queue
            ]
        if running:
            self.fail(event, "rest", f"{event.queue!r} came to rest, with {running} running")


def check_limits(events: Sequence[Event], *, latency: float = 0.0) -> list[str]:
    """Return where more ran of a queue than may. `latency`: of a way to the store, in seconds."""
    limits = _Limits(latency)
    for event in events:
        limits.see(event)
    return limits.found
