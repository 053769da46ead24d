"""What people ask of the SQLite store besides lists, and what claims say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from ..._clock import from_millis
from ..._history import Note
from ..._job import OwnerInfo, TaskInfo
from ..._stats import StatsRow
from . import history, stats
from .opened import OpenStore
from .sql import fetch, text

__all__ = ["ServiceStore"]


class ServiceStore(OpenStore):
    """Notes, waits, statistics, and who and what is known."""

    async def note(self, notes: Sequence[Note]) -> None:
        """Store what running jobs say of themselves."""
        await self._writing().submit(partial(history.note, notes=notes), durable=False)

    async def watch(self, job_ids: Sequence[str], *, owner: str) -> None:
        """Have the listeners of an owner called when one of these jobs completes."""
        watch = partial(history.watch, job_ids=list(job_ids), owner=owner)
        await self._writing().submit(watch, durable=False)

    async def unwatch(self, job_ids: Sequence[str], *, owner: str) -> None:
        """Undo `watch`."""
        unwatch = partial(history.unwatch, job_ids=list(job_ids), owner=owner)
        await self._writing().submit(unwatch, durable=False)

    async def which_ended(self, job_ids: Sequence[str], *, now: int) -> Sequence[str]:
        """Return which of these jobs are neither pending nor running."""
        ids = {"ids": text(list(job_ids))}
        return [job_id for (job_id,) in await self._database.read(lambda raw: fetch(raw, "which_ended", ids))]

    async def stats(
        self,
        *,
        since: int,
        until: int,
        step: int | None = None,
        queue: str | None = None,
        together: bool = False,
    ) -> Sequence[StatsRow]:
        """Return what was counted: queue, begin of the step, what, bucket, how many."""
        read = partial(stats.stats, since=since, until=until, step=step, queue=queue, together=together)
        return await self._database.read(read)

    async def numbers(self, *, since: int, until: int) -> Sequence[StatsRow]:
        """Return what was counted of each queue in a time, but not how long attempts ran and had waited."""
        return await self._database.read(lambda raw: stats.numbers(raw, since, until))

    async def sum_up(self, *, now: int) -> None:
        """Sum up old statistics by the hour; forget what is older."""
        await self._writing().submit(partial(stats.sum_up, now=now), durable=False)

    async def tasks(self) -> Sequence[TaskInfo]:
        """Return the task types that were declared."""
        found = await self._database.read(lambda raw: fetch(raw, "tasks", {}))
        return [
            TaskInfo(
                name=name,
                queue=queue,
                title=title,
                description=description,
                schema=None if schema is None else msgspec.json.decode(schema),
                registered_at=from_millis(registered_at),
                limits=msgspec.json.decode(limits or "{}"),
            )
            for name, queue, title, description, schema, registered_at, limits in found
        ]

    async def owners(self, *, now: int) -> Sequence[OwnerInfo]:
        """Return the owners that are known, those that have claims too."""
        claims = await self._database.read(lambda raw: fetch(raw, "owners", {}))
        known = {} if self._presence is None else {info.id: info for info in self._presence.infos(now)}
        for owner, number, claimed_at in claims:
            info = known.get(owner) or _unknown(owner, claimed_at)
            known[owner] = msgspec.structs.replace(info, running=number)
        return [known[owner] for owner in sorted(known)]


def _unknown(owner: str, claimed_at: int | None) -> OwnerInfo:
    """Return what can be told of an owner by its claims alone."""
    return OwnerInfo(
        id=owner,
        host="",
        pid=0,
        started_at=None,
        workers=0,
        running=0,
        alive=None,
        seen_at=None if claimed_at is None else from_millis(claimed_at),
    )
