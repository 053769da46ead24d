"""Running what there is to run, at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn

import anyio
import msgspec

from .._client import Client
from .._clock import after, seconds
from .._config import Duration
from .._errors import BackliteError, InvalidState, InvalidType
from .._events import Event, Listener
from .._inside import NOTHING_GIVEN, given
from .._task import task_type
from ._clients import record_of
from ._clock import ManualClock
from ._recording import Ran, Record

__all__ = ["JobFailed", "run_handler", "run_until_idle"]

OPTIONS = {"id", "key", "max_attempts", "meta", "priority", "tags", "timeout"}
"""Options of `client.add()` that make no difference to when a job runs, and whether."""

NOTHING = Event(kind="log", job_id="", queue="", task="", attempt=0, at=datetime.min.replace(tzinfo=UTC))
"""What is told to nobody, to see that all before it was."""


class JobFailed(BackliteError, AssertionError):
    """Jobs failed in a test; `ran` are their last attempts."""

    def __init__(self, ran: Sequence[Ran]) -> None:
        super().__init__(ran)
        self.ran = tuple(ran)

    def __str__(self) -> str:
        return "\n".join(map(str, self.ran))


async def run_until_idle(
    client: Client,
    *,
    advance: bool | Duration = True,
    limit: int = 1000,
    patience: Duration = 10.0,
    raise_errors: bool = True,
) -> list[Ran]:
    """Run everything there is to run; return all attempts since the last call, in the order of their ends.

    Jobs that are due start when they are added, as always; this waits for them. Then, with a
    `ManualClock`, the clock goes on to the next instant at which there is something to do (scheduled jobs,
    retries, snoozes, rates), until nothing is left. `advance`: a duration, in seconds or as a timedelta,
    lets just that time pass, and schedules add their runs in it; False: none.

    A job that has failed for good raises `JobFailed` at the end, with all of them; `raise_errors=False`
    leaves that to the test. An AssertionError says what goes on without end, after `limit` attempts, or
    what runs for longer than `patience` without anything coming of it: timeouts and sleeps of handlers
    take real time. Jobs without a handler, and those of paused queues, are left.
    """
    record = record_of(client)
    clock, end = _until(client, advance)
    running = _Running(client, record, most=len(record.ran) + limit, patience=seconds("patience", patience))
    while True:
        next_at = await running.settled(schedules=end is not None)
        if clock is None or next_at is None or (end is not None and next_at > end):
            break
        clock.move(max(next_at, clock.now() + 1))
    if clock is not None and end is not None:
        clock.move(max(end, clock.now()))
    ran, record.untold = record.untold, []
    failed = [attempt for attempt in ran if attempt.status == "failed"]
    if failed and raise_errors:
        raise JobFailed(failed) from failed[0].exception
    return ran


async def run_handler(
    client: Client,
    task: msgspec.Struct,
    /,
    *,
    patience: Duration = 10.0,
    previous: Any = NOTHING_GIVEN,
    results: Mapping[str, Any] | None = None,
    **options: Any,
) -> Ran:
    """Add one job and run it once, all the way: stored, claimed, decoded, handled, its outcome stored.

    Returns the attempt if it has succeeded, and raises what its handler has raised, `Retry`, `Snooze` and
    `Discard` too. A job that is to run again is left to do so. `options` are those of `client.add()` that
    make no difference to when it runs: `run_handler(client, task, meta={"by": "eve"}, tags=["a"])`.

    `previous`, `results`: what `job.previous()` and `job.results()` are to return, to try the handler of a
    step of a workflow by itself; what it adds by `job.extend()` is then checked and dropped.
    """
    record = record_of(client)
    kind = task_type(type(task))
    if client.registry.find(kind.config.name, kind.name) is None:
        raise InvalidState(f"this client has no handler of {kind.name}; register it before the job runs")
    for name in options.keys() - OPTIONS:
        raise InvalidType(f"run_handler() takes no option {name!r}; it takes {', '.join(sorted(OPTIONS))}")
    told = given(previous, results)
    if told is not None:
        record.given[options.setdefault("id", client.ids.next())] = told
    operation = client.add(task)
    for name, value in options.items():
        getattr(operation, name)(*(value if name == "tags" else [value]))
    first = len(record.ran)
    [job_id] = await operation.save()
    running = _Running(client, record, most=None, patience=seconds("patience", patience))
    await running.until(lambda: any(ran.id == job_id for ran in record.ran[first:]))
    ran = next(ran for ran in record.ran[first:] if ran.id == job_id)
    record.untold = [other for other in record.untold if other is not ran]
    if ran.status != "succeeded":
        raise _error_of(ran)
    return ran


def _until(client: Client, advance: bool | Duration) -> tuple[ManualClock | None, int | None]:
    """Return the clock to move, and the instant to which; None: there is none."""
    clock = client.clock
    if isinstance(clock, ManualClock):
        if isinstance(advance, bool):
            return clock, None if advance else clock.now()
        return clock, after(clock.now(), seconds("advance", advance))
    if not isinstance(advance, bool):
        raise InvalidState(f"advance={advance!r} needs a client with a ManualClock")
    return None, None


def _error_of(ran: Ran) -> BaseException:
    """Return what to raise of an attempt that has not succeeded."""
    kind, _, text = (ran.error or "").partition(": ")
    if isinstance(ran.exception, Exception):
        return ran.exception
    return TimeoutError(text) if kind == "TimeoutError" else JobFailed([ran])


class _Running:
    """Waits for a client to have nothing more to run, and says what keeps it from that."""

    def __init__(self, client: Client, record: Record, *, most: int | None, patience: float) -> None:
        self._client = client
        self._record = record
        self._most = most
        self._first = len(record.ran)
        self._patience = patience

    async def settled(self, *, schedules: bool) -> int | None:
        """Wait until nothing runs and nothing is due; return when there is more, None: never.

        `schedules`: also if that is a schedule alone; they go on for ever.
        """
        client, record = self._client, self._record
        quiet = 0
        while True:
            await self.until(lambda: not record.running)
            await self._ended()
            await self._told()
            tick_at = None if client._dispatcher is None else await client._dispatcher.ticked()
            if not client.registry.kinds or client._dispatcher is None:
                return tick_at if schedules else None
            asked = record.begun
            client.notify()
            await self.until(partial(self._answered, asked))
            quiet = 0 if record.running else quiet + 1
            if quiet > bool(client.bus._listeners):  # who may be told of an end a moment after it is written
                if tick_at is None or (record.next_at is None and not schedules):
                    return record.next_at
                return tick_at if record.next_at is None else min(tick_at, record.next_at)

    def _answered(self, asked: int) -> bool:
        """Return whether a claim that was begun after this one has found something, or nothing to do."""
        return bool(self._record.running) or self._record.answered > asked

    async def _ended(self) -> None:
        """Wait for handlers that go on after they have completed their job."""
        if self._client._dispatcher is not None:
            with anyio.move_on_after(self._patience) as scope:
                await self._client._dispatcher._pool.idle()
            if scope.cancelled_caught:
                self._give_up("a handler that has completed its job in a transaction")

    async def _told(self) -> None:
        """Wait until listeners have been called, which may have added jobs."""
        teller = self._client.bus._teller
        if teller is not None and self._client.bus._listeners:
            called = asyncio.Event()

            async def mark(event: Event) -> None:
                called.set()

            teller.put(NOTHING, [Listener(None, mark)])
            with anyio.move_on_after(self._patience) as scope:
                await called.wait()
            if scope.cancelled_caught:
                self._give_up("a listener")

    async def until(self, reached: Callable[[], object]) -> None:
        """Wait until something is reached, as long as attempts end."""
        record = self._record
        while not reached():
            seen = len(record.ran)
            if self._most is not None and seen > self._most:
                names = record.summary(record.ran[self._first :])
                raise AssertionError(f"not idle after limit={self._most - self._first} attempts: {names}")
            with anyio.move_on_after(self._patience) as scope:
                await record.until(partial(self._goes_on, reached, seen))
            if scope.cancelled_caught:
                self._give_up(record.summary(record.running.values()) or "nothing")

    def _goes_on(self, reached: Callable[[], object], seen: int) -> bool:
        return bool(reached()) or len(self._record.ran) > seen

    def _give_up(self, what: str) -> NoReturn:
        raise AssertionError(f"nothing has ended for {self._patience:g} s of real time; running: {what}")
