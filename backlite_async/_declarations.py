"""What the code of a client says of schedules, and making it so in the database."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from . import _log as log
from ._clock import Clock
from ._errors import AlreadyRegistered
from ._reconcile import Definition, orphans, reconciled, retired
from ._recurring import StoredSchedule
from .stores import Store

__all__ = ["GRACE", "Declarations"]

GRACE = 60.0
"""Seconds in which a client that has gone may start anew, and find its schedules as they were."""


class Declarations:
    """The schedules that are declared in the code of one client."""

    def __init__(self) -> None:
        self._definitions: dict[str, Definition] = {}
        self._undone: dict[str, Definition] = {}
        self._known: dict[str, Sequence[str]] | None = None
        """By whom those are declared that others declare, as it was at our start; None: nobody has looked."""
        self._gone: dict[str, float] = {}

    def add(self, definition: Definition) -> None:
        """Take a declaration; the same one again is no other one."""
        there = self._definitions.setdefault(definition.name, definition)
        if there.fingerprint != definition.fingerprint:
            raise AlreadyRegistered(
                f"schedule {definition.name!r} is declared already, with other arguments; give each its own"
                " name"
            )
        self._undone[definition.name] = there

    def begin(self) -> None:
        """Forget what was done in an earlier life of the client."""
        self._undone = dict(self._definitions)
        self._known = None
        self._gone = {}

    async def reconcile(self, store: Store, clock: Clock, owner: str) -> None:
        """Store what is declared, also what is while this goes on; what is said no more is retired."""
        if not self._undone:
            return
        while self._undone:
            await self._reconcile_one(store, clock, owner, next(iter(self._undone.values())))
        await self.retire(store, clock, owner)
        await self.reconcile(store, clock, owner)

    async def _reconcile_one(self, store: Store, clock: Clock, owner: str, definition: Definition) -> None:
        while True:  # until nobody else has written in between
            stored = next(iter(await store.schedules(definition.name)), None)
            living = () if stored is None else await _living(store, clock, owner) or ()
            there = reconciled(stored, definition, owner=owner, living=living, now=clock.now())
            if await store.save_schedule(there, expected=None if stored is None else stored.version):
                break
        self._undone.pop(definition.name, None)
        if stored is None or stored.declared != there.declared or stored.removed:
            action = "made" if stored is None else "brought back" if stored.removed else "changed"
            log.emit(log.SCHEDULE_CHANGED, schedule=there.name, action=action)

    async def retire(self, store: Store, clock: Clock, owner: str) -> None:
        """Take out of service what the code of nobody says who lives: of those who are older than us.

        At our start at once; afterwards, once it was so for `GRACE`.
        """
        starting = self._known is None
        while self._known is None or self._known:
            stored = await store.schedules()
            if self._known is None:
                self._known = {
                    schedule.name: schedule.declared_by
                    for schedule in stored
                    if schedule.declared is not None and schedule.name not in self._definitions
                }
            living = await _living(store, clock, owner)
            gone = [] if living is None else orphans(stored, self._known, living=living)
            if not starting:
                gone = self._long_gone(gone, clock.monotonic())
            saved = [await self._retire_one(store, clock, schedule) for schedule in gone]
            if all(saved):  # else somebody has written in between
                return

    def _long_gone(self, orphaned: Sequence[StoredSchedule], now: float) -> list[StoredSchedule]:
        """Return the schedules that have been nobody's for a while."""
        self._gone = {schedule.name: self._gone.get(schedule.name, now) for schedule in orphaned}
        return [schedule for schedule in orphaned if now - self._gone[schedule.name] >= GRACE]

    async def _retire_one(self, store: Store, clock: Clock, schedule: StoredSchedule) -> bool:
        saved = await store.save_schedule(retired(schedule, clock.now()), expected=schedule.version)
        if saved:
            log.emit(log.SCHEDULE_CHANGED, schedule=schedule.name, action="removed")
        return saved


async def _living(store: Store, clock: Clock, owner: str) -> Collection[str] | None:
    """Return the owners that live, ourselves too; None where that cannot be told."""
    infos = await store.owners(now=clock.now())
    living = {info.id for info in infos if info.alive is not False}
    return living if store.rings and owner in living else None
