"""Whether what the dead leave is released promptly, and whether jobs with a last chance hold up others."""

from __future__ import annotations

from collections.abc import Sequence

from .history import (
    Buried,
    Claimed,
    Closed,
    Died,
    Event,
    Fault,
    Opened,
    Outage,
    Replaced,
    Started,
    Steered,
    StopAsked,
    Stored,
    Written,
)
from .owners import Members

__all__ = ["PATIENCE", "RECOVERY", "check_alone", "check_recovery"]

RECOVERY = 1.0
"""Seconds after a death within which another process releases the jobs, if it is told at once."""

WAYS = 6
"""Ways to the store and back for each dead owner: what it has claimed and started, and its release."""

LONGEST_LOOK = 30.0
"""Seconds between two looks of a process that is not told."""

LONGEST_PAUSE = 5.0
"""Seconds after a fault until the next try."""

PATIENCE = 5.0
"""Seconds for which a job with its last chance may hold others up, once."""


class _Recovery:
    """Who could release the jobs of the dead, and since when."""

    def __init__(self, latency: float) -> None:
        self.found: list[str] = []
        self.members = Members()
        self.latency = latency
        self.opened: dict[int, Opened] = {}
        self.able: dict[int, float] = {}
        self.claims: dict[str, Claimed] = {}
        self.orphans: dict[str, float] = {}
        self.buried: set[int] = set()
        self.calm_from = 0.0

    def see(self, event: Event) -> None:
        self.judge(event.at)
        self.members.see(event)
        match event:
            case Opened():
                self.opened[event.owner] = event
                if event.workers and event.manner != "blind":
                    self.able[event.owner] = max(event.at, self.calm_from)
            case StopAsked():
                for owner in self.members.of(event.client, event.life):
                    self.able.pop(owner, None)
            case Closed() | Died():
                self.able = {owner: at for owner, at in self.able.items() if not self.ended(owner)}
                self.put_off(event.at)
                for job, claim in self.claims.items():
                    if self.members.dead(claim.owner):
                        self.orphans.setdefault(job, event.at)
            case Buried():
                self.buried.add(event.owner)
            case Fault() | Outage():
                self.calm_from = event.at + LONGEST_PAUSE
                self.put_off(self.calm_from)
                self.able = dict.fromkeys(self.able, self.calm_from)
            case Claimed():
                self.claims[event.job] = event
            case Written(accepted=True) | Steered(how="release"):
                self.claims.pop(event.job, None)
                self.orphans.pop(event.job, None)
            case _:
                pass

    def ended(self, owner: int) -> bool:
        return self.members.ended(owner)

    def put_off(self, at: float) -> None:
        """Begin anew: whoever had charge may be gone, or has to try again."""
        self.orphans = {job: max(since, at) for job, since in self.orphans.items()}

    def judge(self, now: float) -> None:
        for job, since in list(self.orphans.items()):
            owners = [owner for owner in self.opened if self.members.dead(owner) and owner not in self.buried]
            for owner, able_since in self.able.items():
                waited = now - max(since, able_since)
                if waited > self.limit(self.opened[owner]) + WAYS * self.latency * len(owners):
                    while_lived = f"though {self.opened[owner].client} lived (at {now:.6f} s)"
                    self.found.append(
                        f"slow recovery: {job} was not released for {waited:.3f} s, {while_lived}"
                    )
                    del self.orphans[job]
                    break

    @staticmethod
    def limit(owner: Opened) -> float:
        if owner.manner == "bells":
            return RECOVERY
        return RECOVERY + 2 * min(LONGEST_LOOK, 3 * owner.beat)


def check_recovery(events: Sequence[Event], *, latency: float = 0.0) -> list[str]:
    """Return where the jobs of a dead owner were not released in time, though another process lived."""
    recovery = _Recovery(latency)
    for event in events:
        recovery.see(event)
    return recovery.found


class _Held:
    """A job with its last chance that a client has claimed and not started."""

    def __init__(self, claim: Claimed) -> None:
        self.claim = claim
        self.since = claim.at


class _Alone:
    """How long jobs with a last chance keep others from starting, in each owner."""

    def __init__(self, latency: float) -> None:
        self.found: list[str] = []
        self.slack = 0.5 + 4 * latency
        self.limits: dict[str, int] = {}
        self.held: dict[str, _Held] = {}
        self.spent: dict[tuple[int, str], float] = {}
        self.running: dict[str, int] = {}

    def see(self, event: Event) -> None:
        match event:
            case Stored() | Replaced():
                self.limits[event.job] = event.max_crashes
            case Claimed() if 0 < event.crashes >= self.limits.get(event.job, 0) - 1:
                self.held[event.job] = _Held(event)
            case Started() if event.job in self.held:
                claim = self.release(event.job, event.at)
                self.begin_anew(claim.owner, event.at)
                self.spent.pop((claim.owner, event.job), None)
                self.running[event.job] = claim.owner
            case Written(accepted=True) | Steered(how="release"):
                if event.job in self.held:
                    self.release(event.job, event.at)
                owner = self.running.pop(event.job, None)
                if owner is not None:
                    self.begin_anew(owner, event.at)
            case StopAsked() | Died():
                self.forgive(event.client)
            case Fault():
                self.forgive(event.client)
            case _:
                pass

    def begin_anew(self, owner: int, at: float) -> None:
        """Count from now on: up to now one ran alone, for which others wait."""
        for held in self.held.values():
            if held.claim.owner == owner:
                held.since = at

    def forgive(self, client: str) -> None:
        for job, held in list(self.held.items()):
            if held.claim.client == client:
                del self.held[job]

    def release(self, job: str, at: float) -> Claimed:
        claim, since = self.held[job].claim, self.held[job].since
        del self.held[job]
        key = claim.owner, job
        if claim.owner not in self.running.values():
            self.spent[key] = self.spent.get(key, 0.0) + max(0.0, at - since - self.slack)
        if self.spent.get(key, 0.0) > PATIENCE:
            self.found.append(
                f"held up: {job} kept others in {claim.client} from starting for {self.spent[key]:.3f} s"
                f" and more (at {at:.6f} s)"
            )
            self.spent[key] = float("-inf")  # said once
        return claim


def check_alone(events: Sequence[Event], *, latency: float = 0.0) -> list[str]:
    """Return where a job with its last chance held others up for longer than it may, or twice."""
    alone = _Alone(latency)
    for event in events:
        alone.see(event)
    return alone.found
