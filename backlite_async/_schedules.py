"""What can be said and asked of schedules."""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import msgspec

from . import _log as log
from ._clock import aware, from_millis, seconds, to_millis, whole_millis
from ._codec import encode
from ._config import Duration, checked_name
from ._context import check_outside_block
from ._declarations import Declarations
from ._due import coming, state_of, timing_of
from ._errors import InvalidTask, InvalidType, InvalidValue, ScheduleNotFound
from ._filters import checked_number
from ._fingerprint import fingerprint
from ._job import NewJob
from ._query import BRIEF
from ._reconcile import Definition, changed, edited, made, paused, resumed
from ._recurring import Missed, Schedule, StoredSchedule, Timing
from ._rule import Rule
from ._schedule import preview, timing, words
from ._task import task_type
from ._workflow import WHOLES

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Said", "ScheduleOperation", "Schedules", "Times"]

NEXT_RUNS = 5
"""How many next runs a `Schedule` shows."""

DAMAGED = "cannot be read; delete it, and make it again"
"""When a schedule runs whose row somebody has damaged."""


class Times(TypedDict, total=False):
    """When a schedule is due: one of the first four, and the others."""

    cron: str | None
    every: Duration | None
    rule: str | Rule | None
    at: Iterable[datetime] | None
    tz: str
    start: datetime | None
    end: datetime | None


class Said(Times, total=False):
    """What can be said of a schedule, beside its name and task."""

    max_runs: int | None
    missed: Missed
    overlap: bool
    jitter: Duration | None


class ScheduleOperation:
    """A schedule as it was said. Made by `client.schedule(...)`; to be awaited on a started client.

    Returns the `Schedule`. On a client that is not started it is a declaration, which is recorded already and
    stored when the client starts; to await it does nothing more.
    """

    def __init__(self, schedules: Schedules, definition: Definition, *, declared: bool) -> None:
        self._schedules = schedules
        self._definition = definition
        self._tried = declared
        self._declared = declared

    def __await__(self) -> Generator[Any, None, Schedule]:
        """Store it, unless it is a declaration; return the `Schedule`."""
        return self._save().__await__()

    async def _save(self) -> Schedule:
        self._tried = True
        if self._declared:
            return self._schedules.declared(self._definition)
        return await self._schedules.store(self._definition)

    def __del__(self) -> None:
        if not getattr(self, "_tried", True):
            name = self._definition.name
            warnings.warn(
                f"client.schedule({name!r}, ...) was never awaited, and nothing was scheduled; a client that"
                " is started needs await client.schedule(...)",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )


class Schedules:
    """The schedules of a client's database: `client.schedules`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.declarations = Declarations()

    # -- asking ------------------------------------------------------------------------------------

    async def list(self) -> Sequence[Schedule]:
        """Return all schedules by name, with their next runs and last job.

        Of that job's payload and result the first 200 bytes are there, as in a brief list of jobs; see `get`.
        """
        stored = await self._client.open_store().schedules()
        return [await self._shown(schedule, BRIEF) for schedule in stored if not schedule.removed]

    async def get(self, name: str) -> Schedule | None:
        """Return a schedule; None: there is none of this name."""
        stored = await self._stored(checked_name(name))
        return None if stored is None else await self._shown(stored)

    def preview(
        self,
        *,
        cron: str | None = None,
        every: Duration | None = None,
        rule: str | Rule | None = None,
        at: Iterable[datetime] | None = None,
        tz: str = "UTC",
        start: datetime | None = None,
        end: datetime | None = None,
        after: datetime | None = None,
        n: int = 5,
    ) -> builtins.list[datetime]:
        """Return the next `n` runs that a schedule would have after an instant (None: now), in its time zone.

        Without a `start`, intervals and rules are counted from that instant.
        """
        since = self._client.clock.now() if after is None else to_millis(aware("after", after))
        checked = timing(now=since, cron=cron, every=every, rule=rule, at=at, tz=tz, start=start, end=end)
        return preview(checked, since, checked_number("n", n))

    # -- changing ----------------------------------------------------------------------------------

    async def pause(self, *names: str) -> int:
        """Add no more runs of schedules until they are resumed; return how many are paused by it."""
        now = self._client.clock.now
        return await self._change(
            "paused", names, lambda there: None if _is_paused(there) else paused(there, now())
        )

    async def resume(self, *names: str) -> int:
        """Let schedules go on from now; return how many do. What was due in their pause is not made up."""
        now = self._client.clock.now
        return await self._change(
            "resumed", names, lambda there: resumed(there, now()) if _is_paused(there) else None
        )

    async def run_now(self, name: str) -> str:
        """Add the job of a schedule, due now, and return its id: beside its runs, which go on as they would.

        Also where it is paused or completed, or `overlap=False` and the last run has not finished. It counts
        for nothing of the schedule. Raises `ScheduleNotFound`.
        """
        check_outside_block(self._client)
        stored = await self._found(name)
        client, now = self._client, self._client.clock.now()
        job = msgspec.structs.replace(
            stored.job, id=client.ids.next(), created_at=now, due_at=now, waits_from=now
        )
        client.adding([job])
        await client.open_store().add([job])
        client.added([job])
        return job.id

    async def edit(self, name: str, task: msgspec.Struct | None = None, **changes: Unpack[Said]) -> Schedule:
        """Change what is given of a schedule, and leave all else; return it as it is then.

        It keeps its runs. One that is declared stays as it was edited, also over restarts, until the code
        says something else than now. Where it is due at other times, what was due already and not yet added
        is not made up. Raises `ScheduleNotFound`, and what `client.schedule()` raises.
        """
        check_outside_block(self._client)
        job = None if task is None else self._job(task)[0]
        await self._declare_queues()
        while True:  # until nobody else has written in between
            stored = await self._found(name)
            definition = self._merged(stored, job, changes)
            there = changed(stored, definition, now=self._client.clock.now())
            if await self._save("edited", there, stored):
                return await self._shown(there)

    async def delete(self, *names: str) -> int:
        """Delete schedules; return how many there were. Their jobs stay.

        One that stands in the code is made anew when a client that declares it starts.
        """
        check_outside_block(self._client)
        count = 0
        for name in _names("delete", names):
            stored = await self._stored(name)
            if stored is not None and await self._client.open_store().delete_schedule(name):
                count += 1
                log.emit(log.SCHEDULE_CHANGED, schedule=name, action="deleted")
        return count

    # -- for the client ----------------------------------------------------------------------------

    def operation(self, name: str, task: msgspec.Struct, said: Said) -> ScheduleOperation:
        """Check what is said of a schedule; record it, where the client is not started."""
        definition = self._definition(name, task, said)
        declared = not self._client.is_open
        if declared:
            self.declarations.add(definition)
        return ScheduleOperation(self, definition, declared=declared)

    def declared(self, definition: Definition) -> Schedule:
        """Return how a schedule begins that is declared, and not yet stored."""
        now = self._client.clock.now()
        return _record(made(definition, owner="", now=now), None, now)

    async def store(self, definition: Definition) -> Schedule:
        """Make a schedule, or make one as it is said now."""
        check_outside_block(self._client)
        await self._declare_queues()
        while True:  # until nobody else has written in between
            stored = next(iter(await self._client.open_store().schedules(definition.name)), None)
            there = edited(stored, definition, now=self._client.clock.now())
            if await self._save("made" if stored is None else "changed", there, stored):
                return await self._shown(there)

    # -- how ---------------------------------------------------------------------------------------

    async def _stored(self, name: str) -> StoredSchedule | None:
        for schedule in await self._client.open_store().schedules(name):
            if not schedule.removed:
                return schedule
        return None

    async def _found(self, name: str) -> StoredSchedule:
        stored = await self._stored(checked_name(name))
        if stored is None:
            raise ScheduleNotFound(name)
        return stored

    async def _shown(self, stored: StoredSchedule, cut: int | None = None) -> Schedule:
        now, job = self._client.clock.now(), None
        if stored.last_job_id is not None:
            job = await self._client.open_store().get(stored.last_job_id, now=now, cut=cut)
        return _record(stored, job, now)

    async def _change(
        self, action: str, names: Sequence[str], change: Callable[[StoredSchedule], StoredSchedule | None]
    ) -> int:
        """Change schedules of which there is something to change; return how many."""
        check_outside_block(self._client)
        count = 0
        for name in _names(action, names):
            while (stored := await self._stored(name)) is not None:
                there = change(stored)
                if there is None:
                    break
                if await self._save(action, there, stored):
                    count += 1
                    break
        return count

    async def _save(self, action: str, there: StoredSchedule, stored: StoredSchedule | None) -> bool:
        """Store a schedule unless somebody has written it since; return whether it was."""
        expected = None if stored is None else stored.version
        saved = await self._client.open_store().save_schedule(there, expected=expected)
        if saved:
            log.emit(log.SCHEDULE_CHANGED, schedule=there.name, action=action)
            self._client.rung()
        return saved

    async def _declare_queues(self) -> None:
        if self._client.undeclared:
            await self._client.declare_queues()

    def _job(self, task: msgspec.Struct) -> tuple[NewJob, str]:
        """Return what each run adds, but for its id and times, and a hash of its task."""
        if isinstance(task, type):
            raise InvalidTask(f"{task.__qualname__} is a class; schedule an instance of it")
        if type(task) in WHOLES:
            raise InvalidTask("a workflow is built for each run: schedule a task whose handler adds it")
        kind = task_type(type(task))
        self._client.registry.meet(kind)
        job = NewJob(
            id="",
            queue=kind.config.name,
            task=kind.name,
            payload=encode(kind, task, self._client.max_payload),
            max_attempts=kind.config.max_attempts,
            created_at=0,
            due_at=0,
            priority=kind.config.priority,
        )
        return job, fingerprint(kind, task)

    def _definition(self, name: str, task: msgspec.Struct, said: Said) -> Definition:
        name = checked_name(name)
        options = _checked(said)
        times = self._timing(said)
        job, of_task = self._job(task)
        return Definition(name=name, timing=times, job=job, task=of_task, **options)

    def _timing(self, said: Said) -> Timing:
        times = {key: value for key, value in said.items() if key in Times.__annotations__}
        return timing(now=self._client.clock.now(), **cast("Times", times))

    def _merged(self, stored: StoredSchedule, job: NewJob | None, changes: Said) -> Definition:
        """Return what a schedule is to be, where only some of it is said."""
        for key in changes.keys() - Said.__annotations__.keys():
            raise InvalidType(f"edit() takes no {key!r}; it takes a task, {', '.join(Said.__annotations__)}")
        there = timing_of(stored)
        times = (
            self._timing(_merged_times(there, changes))
            if changes.keys() & Times.__annotations__.keys()
            else there
        )
        options: dict[str, Any] = {
            "missed": stored.missed,
            "overlap": stored.overlap,
            "jitter": stored.jitter,
            "max_runs": stored.max_runs,
        }
        checked = _checked(changes)
        options |= {key: value for key, value in checked.items() if key in changes}
        return Definition(name=stored.name, timing=times, job=job or stored.job, task="", **options)


PATTERNS = ("cron", "every", "rule", "at")


def _merged_times(there: Timing, changes: Said) -> Said:
    """Return when a schedule is to be due: as it is, but for what changes."""
    merged = Said(
        cron=there.cron,
        every=None if there.every is None else timedelta(milliseconds=there.every),
        rule=there.rule,
        at=None if there.at is None else [from_millis(instant) for instant in there.at],
        tz=there.tz,
        start=None if there.start is None else from_millis(there.start),
        end=None if there.end is None else from_millis(there.end),
    )
    if any(changes.get(key) is not None for key in PATTERNS):  # which takes the place of another one
        merged |= Said(cron=None, every=None, rule=None, at=None)
    return merged | changes


def _checked(said: Said) -> dict[str, Any]:
    """Return what is said beside times, in the form in which it is stored, or say what it may be."""
    missed, overlap = said.get("missed", "one"), said.get("overlap", True)
    if missed not in ("one", "all", "none"):
        error = InvalidValue if isinstance(missed, str) else InvalidType
        raise error(
            f'missed={missed!r} must be "one" (of the runs that were missed, add the last), "all" or "none"'
        )
    if not isinstance(overlap, bool):
        raise InvalidType(f"overlap={overlap!r} must be True or False")
    max_runs, spread = said.get("max_runs"), said.get("jitter")
    return {
        "missed": missed,
        "overlap": overlap,
        "max_runs": None if max_runs is None else checked_number("max_runs", max_runs, 1_000_000_000),
        "jitter": 0 if spread is None else whole_millis(seconds("jitter", spread)),
    }


def _names(call: str, names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if not isinstance(name, str):
            raise InvalidType(
                f"names of schedules are str, not {name!r}; write one argument for each: *names"
            )
    return [*dict.fromkeys(map(checked_name, names))]


def _is_paused(stored: StoredSchedule) -> bool:
    return stored.paused_at is not None


def _record(stored: StoredSchedule, job: Any, now: int) -> Schedule:
    """Return a schedule as it is shown."""
    times = Timing()
    try:
        times = timing_of(stored)
        said, next_runs = words(times), tuple(coming(stored, times, NEXT_RUNS))
    except Exception:  # what is missing here for one schedule hides no others; the ticker has said what it is
        said, next_runs = str(times.cron or times.rule or DAMAGED), ()
    return Schedule(
        name=stored.name,
        state=state_of(stored, times, now),
        queue=stored.job.queue,
        task=stored.job.task,
        payload=stored.job.payload,
        words=said,
        next_runs=next_runs,
        cron=times.cron,
        every=None if times.every is None else timedelta(milliseconds=times.every),
        rule=times.rule,
        at=None if times.at is None else tuple(map(from_millis, times.at)),
        tz=times.tz,
        start=_instant(times.start),
        end=_instant(times.end),
        max_runs=stored.max_runs,
        missed=stored.missed,
        overlap=stored.overlap,
        jitter=timedelta(milliseconds=stored.jitter) if stored.jitter else None,
        declared=stored.declared is not None,
        runs=stored.runs,
        skipped=stored.skipped,
        last_run=_instant(stored.last_at),
        last_job_id=stored.last_job_id,
        last_job=job,
        paused_at=_instant(stored.paused_at),
        created_at=from_millis(stored.created_at),
        updated_at=from_millis(stored.updated_at),
    )


def _instant(millis: int | None) -> datetime | None:
    return None if millis is None else from_millis(millis)
