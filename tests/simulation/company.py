"""Who has the store open, who died with claims, who releases whose jobs, and who leads.

What the owner files and doorbells of a SQLite database do, for simulated processes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from backlite_async._job import Owner
from backlite_async.stores import Dead

from .faults import Host
from .history import Buried, Charged, Closed, History, Manner, Misuse, Opened

__all__ = ["TELLING", "Company", "Member"]

TELLING = 0.005
"""Seconds within which one process hears what another has to tell."""


class Member:
    """One owner: a started client, or what is left of it.

    `listening`: whether it hears the others. `alive`: whether the others see that it lives.
    """

    def __init__(
        self, number: int, owner: Owner, host: Host, *, rung: Callable[[], None], gone: Callable[[], None]
    ) -> None:
        self.number = number
        self.id = owner.id
        self.beat = owner.beat
        self.slots = owner.slots
        self.host = host
        self.life = host.life
        self.rung = rung
        self.gone = gone
        self.listening = self.alive = True
        self.started: set[tuple[str, int]] = set()
        self.charge: Charge | None = None


class Charge:
    """The charge that a living owner has of a dead one."""

    def __init__(self, company: Company, dead: Member, by: Member) -> None:
        self.id = dead.id
        self.by = by
        self._company = company
        self._dead = dead

    def started(self, job_id: str, fence: int) -> bool:
        """Return whether it had started this job and not yet written its outcome."""
        return (job_id, fence) in self._dead.started

    def bury(self) -> None:
        """Forget the dead owner."""
        if self._end("buried"):
            self._company.forget(self._dead)

    def leave(self) -> None:
        """Leave the dead owner to the next one who looks."""
        self._end("left")

    def _end(self, how: str) -> bool:
        if self.by.host.dead:
            return False  # what a dead process was about to do
        held = self._dead.charge is self
        if not held:
            self._company.misuse(f"{self.by.host.name} {how} an owner that it had no charge of")
        self._dead.charge = None
        return held


class Company:
    """All owners of one store. `claims` returns the jobs that an owner has claimed."""

    def __init__(
        self, rng: random.Random, history: History, manner: Manner, claims: Callable[[str], list[str]]
    ) -> None:
        self.manner = manner
        self.ever: dict[str, Member] = {}
        self._random = rng
        self._history = history
        self._claims = claims
        self._members: dict[str, Member] = {}
        self._leader: Member | None = None

    @property
    def unburied(self) -> list[Member]:
        """The dead that nobody has buried."""
        return [member for member in self._members.values() if not member.alive]

    @property
    def lingering(self) -> list[Member]:
        """Those that have stopped, and are there for handlers that went on; soon they are dead."""
        return [member for member in self._members.values() if member.alive and not member.listening]

    def misuse(self, what: str) -> None:
        """Put down what no checker needs to deduce."""
        self._history.add(Misuse(what=what))

    # -- coming and going --------------------------------------------------------------------------

    def enter(
        self, owner: Owner, host: Host, *, rung: Callable[[], None], gone: Callable[[], None]
    ) -> Member:
        """Show the others an owner of this process."""
        number = len(self.ever) + 1
        member = self.ever[owner.id] = Member(number, owner, host, rung=rung, gone=gone)
        self._members[owner.id] = member
        self._history.add(
            Opened(
                owner=number,
                client=host.name,
                life=host.life,
                workers=host.workers,
                beat=owner.beat,
                manner=self.manner,
            )
        )
        return member

    def leave(self, member: Member, *, keep: bool) -> None:
        """Let an owner go; with `keep` the others are to release what it has claimed."""
        if not member.alive:
            return
        held = [dead for dead in self._members.values() if dead.charge and dead.charge.by is member]
        if held:
            self.misuse(f"{member.host.name} closed with the charge of {len(held)} dead owners")
        self._history.add(Closed(owner=member.number, dead=keep))
        self._go(member)
        if not keep or self.manner == "blind":
            del self._members[member.id]
        self._tell_end(member.host)
        if self.manner != "blind":  # clients of one process know of each other without bells
            for other in self._hearing(member.host, same=True):
                asyncio.get_running_loop().call_soon(_hear_end, other)

    def die(self, host: Host) -> None:
        """End all owners of a process, and what it was doing about others."""
        for member in list(self._members.values()):
            if member.alive and member.host is host:
                self._go(member)
                if self.manner == "blind":
                    del self._members[member.id]
            elif member.charge is not None and member.charge.by.host is host:
                member.charge = None
        self._tell_end(host)

    def forget(self, member: Member) -> None:
        """Bury an owner, whose claims must have been released."""
        if jobs := self._claims(member.id):
            self.misuse(f"owner {member.number} was buried with claims of {jobs}")
        self._history.add(Buried(owner=member.number))
        del self._members[member.id]

    def _go(self, member: Member) -> None:
        member.alive = member.listening = False
        if self._leader is member:
            self._leader = None

    # -- telling -----------------------------------------------------------------------------------

    def ring(self, host: Host) -> None:
        """Tell the other processes that there may be jobs."""
        if self.manner == "bells":
            self._soon(self._hearing(host), _hear_bell)

    def _tell_end(self, host: Host) -> None:
        if self.manner == "bells":
            self._soon(self._hearing(host), _hear_end)

    def _hearing(self, host: Host, *, same: bool = False) -> list[Member]:
        return [
            member
            for member in self._members.values()
            if member.listening and (member.host is host) is same and not member.host.dead
        ]

    def _soon(self, members: list[Member], hear: Callable[[Member], None]) -> None:
        loop = asyncio.get_running_loop()
        for member in members:
            loop.call_later(self._random.random() * TELLING, hear, member)

    # -- asking ------------------------------------------------------------------------------------

    def dead(self, asker: Member) -> Sequence[Dead]:
        """Give charge of the dead owners that nobody has charge of."""
        if self.manner == "blind":
            return []
        found = [dead for dead in self.unburied if dead.charge is None]
        self._random.shuffle(found)
        for dead in found:
            dead.charge = Charge(self, dead, asker)
            self._history.add(Charged(owner=dead.number, client=asker.host.name))
        host = asker.host
        if found and self._random.random() < host.weather.haunted:
            delay = self._random.random() * (4 * host.weather.latency + 0.001)
            asyncio.get_running_loop().call_later(delay, _haunt, host)
        return [dead.charge for dead in found if dead.charge is not None]

    def beat_of(self, asker: Member, owner: str) -> float | None:
        """Return the beat of an owner whose lock another process has: its own, or one that buries it.

        0: it is dead, as far as this process can tell.
        """
        member = self._members.get(owner)
        if member is None or self.manner == "blind" or (member.alive and member.host is asker.host):
            return None
        elsewhere = member.alive or (member.charge is not None and member.charge.by.host is not asker.host)
        return member.beat if elsewhere else 0.0

    def leads(self, asker: Member) -> bool:
        """Return whether this is the one owner that leads; without files nobody can tell."""
        if self.manner == "blind":
            return True
        if self._leader is None:
            self._leader = asker
        return self._leader is asker


def _hear_bell(member: Member) -> None:
    if member.listening and not member.host.dead:
        member.rung()


def _hear_end(member: Member) -> None:
    if member.listening and not member.host.dead:
        member.gone()
        member.rung()


def _haunt(host: Host) -> None:
    if host.weather.haunted:
        host.die()
